"""What the baselines share."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import pandas as pd
from anndata import AnnData

from unlasting.baselines._protocol import NoPrediction
from unlasting.baselines._training_cells import TrainingCells
from unlasting.screen import UNS_KEY, Condition, compared_by


class Baseline:
    """A predictor that reads the training cells when it is asked."""

    def fit(self, adata: AnnData, *, training: TrainingCells | None = None, **labels: Any) -> Self:
        """Find the training cells.

        Parameters
        ----------
        adata
            The screen, log-normalised, shape `(n_cells, n_genes)`. Cells labelled `val` or `test` are not looked at.
        training
            The `training_` of another baseline that is fitted to this screen, so that its labels are read once.
        **labels
            Names of columns and the like (`perturbation_key`, `control`, `cell_type_key`, `split_key`, `delimiter`),
            if other than recorded by `pp` or `setup_anndata`.

        Returns
        -------
        The baseline itself.

        Raises
        ------
        KeyError
            If a column is missing.
        ValueError
            If a label cannot be read, there are no controls, or `X` holds raw counts.
        """
        self.training_ = training or TrainingCells(adata, **labels)
        return self

    def predict(self, condition: Condition | str, n_cells: int, *, seed: int = 0) -> np.ndarray:
        """Give cells of a condition.

        Parameters
        ----------
        condition
            Perturbation, cell type and dose, or the name of a perturbation alone.
        n_cells
            How many cells are wanted.
        seed
            The same seed gives the same cells.

        Returns
        -------
        Log-normalised cells, genes in the order of the screen, shape `(n_cells, n_genes)`; fewer rows if there are
        no more training cells to draw from.

        Raises
        ------
        RuntimeError
            If `fit` was not called.
        NoPrediction
            If the baseline has nothing to say about this condition.
        """
        if not hasattr(self, "training_"):
            raise RuntimeError(f"This {type(self).__name__} is not fitted: call `fit(adata)` first.")
        condition = Condition(condition) if isinstance(condition, str) else condition
        rows, shift = self._drawn(condition, n_cells, np.random.default_rng(seed)), self._shift(condition)
        cells = self.training_.cells.values(rows, dtype=np.float32)
        return cells if shift is None else cells + shift.astype(np.float32)

    def _drawn(self, condition: Condition, n_cells: int, rng: np.random.Generator) -> np.ndarray:
        """Draw training cells, each at most once."""
        return rng.permutation(self._rows(condition))[:n_cells]

    def _rows(self, condition: Condition) -> np.ndarray:
        """Find the cells to draw from: the training controls, unless a baseline knows better."""
        return self.training_.controls(condition.cell_type)

    def _shift(self, condition: Condition) -> np.ndarray | None:
        """Compute what is added to every cell, shape `(n_genes,)`, if anything."""
        return None


def embedding_of(adata: AnnData, given: pd.DataFrame | None) -> pd.DataFrame | None:
    """Get the embedding of targets, names as its index: the given one, or else those of `pp.grn` and `pp.molecules`.

    Raises
    ------
    ValueError
        If the given one repeats a name, or holds missing or infinite values.
    """
    if given is not None:
        if not given.index.is_unique:
            raise ValueError(f"`embedding` holds {given.index[given.index.duplicated()][0]!r} more than once.")
        if not np.isfinite(given.to_numpy(dtype=np.float64)).all():
            raise ValueError("`embedding` holds missing or infinite values. Remove or replace these rows.")
        return given
    stored = adata.uns.get(UNS_KEY, {})
    blocks = []
    if "target_embedding" in stored:
        blocks.append(pd.DataFrame(stored["target_embedding"]["matrix"], index=stored["target_embedding"]["names"]))
    if "molecules" in stored:
        molecules = stored["molecules"]
        of_molecule = pd.DataFrame(
            compared_by(molecules["matrix"], molecules.get("kind", "given")), index=molecules["smiles"]
        )
        blocks.append(of_molecule.loc[molecules["drug_smiles"]].set_axis(molecules["drugs"]))
    return side_by_side(blocks) if blocks else None


def side_by_side(blocks: list[pd.DataFrame]) -> pd.DataFrame:
    """Join embeddings, each at a mean squared length of 1, with zeros for names that one of them does not know."""
    scaled = [block / (np.sqrt((block**2).sum(axis=1).mean()) or 1.0) for block in blocks]
    return pd.concat(scaled, axis=1).fillna(0.0)


def rows_of(embedding: pd.DataFrame | None, targets: tuple[str, ...]) -> np.ndarray:
    """Add up the rows of targets.

    Raises
    ------
    NoPrediction
        If a target has no row.
    """
    if embedding is None:
        raise NoPrediction("there is no embedding of targets (`pp.grn` with a prior or `pp.molecules` makes one)")
    unknown = [target for target in targets if target not in embedding.index]
    if unknown:
        raise NoPrediction(f"the embedding does not know {', '.join(unknown)}")
    return embedding.loc[list(targets)].to_numpy(dtype=np.float64).sum(axis=0)
