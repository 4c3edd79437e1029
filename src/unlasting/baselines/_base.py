"""The base class for baselines."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from anndata import AnnData

from unlasting.baselines._protocol import NoPrediction
from unlasting.baselines._training_cells import TrainingCells
from unlasting.baselines._zero_aware import apply_effects
from unlasting.screen import UNS_KEY, Condition, GeneNames, ScreenKeys, compared_by


class Baseline:
    """A predictor that draws training cells and may change them: by default, control cells as they are.

    A new baseline overrides `_rows` or `_changed`, in its own file, and gets a line in `BASELINES`.
    """

    is_ceiling: ClassVar[bool] = False
    """Whether the baseline sees training cells of the condition itself: a ceiling, not a rival."""

    def fit(self, adata: AnnData, *, training: TrainingCells | None = None, **labels: Any) -> Self:
        """Find the training cells.

        Parameters
        ----------
        adata
            The screen, log-normalised, shape `(n_cells, n_genes)`. Cells labelled `val` or `test` are not used.
        training
            Another baseline's `training_`, fitted to this screen, so that its labels are read once.
        **labels
            Columns and label names (`perturbation_key`, `control`, `cell_type_key`, `split_key`, `delimiter`), if
            other than recorded by `pp` or `setup_anndata`.

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
        self._learn(adata)
        return self

    def _learn(self, adata: AnnData) -> None:
        """Read more from the screen than its training cells."""

    def predict(self, condition: Condition | str, n_cells: int, *, seed: int = 0) -> np.ndarray:
        """Give cells of a condition.

        Parameters
        ----------
        condition
            Perturbation, cell type and dose, or a perturbation's name alone.
        n_cells
            Number of cells.
        seed
            The same seed gives the same cells.

        Returns
        -------
        Log-normalised cells, genes in the screen's order, shape `(n_cells, n_genes)`; fewer rows if there are no more
        training cells.

        Raises
        ------
        RuntimeError
            If `fit` was not called.
        NoPrediction
            If the baseline does not apply to this condition.
        """
        if not hasattr(self, "training_"):
            raise RuntimeError(f"This {type(self).__name__} is not fitted: call `fit(adata)` first.")
        condition = Condition(condition) if isinstance(condition, str) else condition
        rng = np.random.default_rng(seed)
        cells = self.training_.cells.values(self._drawn(condition, n_cells, rng), dtype=np.float32)
        return self._changed(cells, condition, rng).astype(np.float32, copy=False)

    def _drawn(self, condition: Condition, n_cells: int, rng: np.random.Generator) -> np.ndarray:
        """Draw training cells, each at most once."""
        return rng.permutation(self._rows(condition))[:n_cells]

    def _rows(self, condition: Condition) -> np.ndarray:
        """Find the cells to draw from."""
        return self.training_.controls(condition.cell_type)

    def _changed(self, cells: np.ndarray, condition: Condition, rng: np.random.Generator) -> np.ndarray:
        """Change the drawn cells, shape `(n_cells, n_genes)`."""
        return cells

    def _uniform(self, n_cells: int, rng: np.random.Generator) -> np.ndarray:
        """Draw a number in [0, 1) for every cell and gene, whatever the order of the genes."""
        names = np.asarray(self.training_.genes, dtype=str)
        return rng.random((n_cells, len(names)))[:, np.argsort(np.argsort(names))]


class Shift(Baseline):
    """Control cells that all move by the same amount, so that zeros are lost and values can be negative."""

    def _changed(self, cells: np.ndarray, condition: Condition, rng: np.random.Generator) -> np.ndarray:
        return cells + self._shift(condition).astype(np.float32)

    @abstractmethod
    def _shift(self, condition: Condition) -> np.ndarray:
        """Compute the change, shape `(n_genes,)`."""


class ZeroAware(Baseline):
    """Control cells under effects on detection and on expressed values (:func:`apply_effects`)."""

    def _changed(self, cells: np.ndarray, condition: Condition, rng: np.random.Generator) -> np.ndarray:
        effects, control = self._effects(condition), self.training_.control_expression(condition.cell_type)
        return apply_effects(cells, effects, control, self._uniform(len(cells), rng))

    @abstractmethod
    def _effects(self, condition: Condition) -> np.ndarray:
        """Predict the effects, shape `(2, n_genes)`."""

    def _off_target(self, cell_type: str) -> dict[tuple[str, str], np.ndarray]:
        """Trained effects without on-target effects, which other perturbations do not share."""
        effects = {key: effect.copy() for key, effect in self.training_.hurdle_effects(cell_type).items()}
        for (perturbation, _), effect in effects.items():
            effect[:, self.training_.own_genes(perturbation)] = 0.0
        return effects

    def _with_on_target(self, effects: np.ndarray, condition: Condition) -> np.ndarray:
        """Give measured targets the mean on-target effect over trained perturbations."""
        trained = self.training_.hurdle_effects(condition.cell_type)
        own = [effect[:, self.training_.own_genes(perturbation)] for (perturbation, _), effect in trained.items()]
        known = np.concatenate(own, axis=1)
        targets = self.training_.own_genes(condition.perturbation)
        if known.size and len(targets):
            effects = effects.copy()
            effects[:, targets] = known.mean(axis=1, keepdims=True)
        return effects


def embedding_of(adata: AnnData, given: pd.DataFrame | None, training: TrainingCells) -> pd.DataFrame | None:
    """Get the target embedding, names as its index: the given one, or that from `pp.grn` and `pp.molecules`.

    The latter is read once for all baselines that share their training cells.

    Raises
    ------
    ValueError
        If the given one repeats a name, or holds missing or infinite values.
    """
    if given is not None:
        if not given.index.is_unique:
            name = given.index[given.index.duplicated()][0]
            raise ValueError(f"`embedding` holds {name!r} more than once. Keep one row for each name.")
        if not np.isfinite(given.to_numpy(dtype=np.float64)).all():
            raise ValueError("`embedding` holds missing or infinite values. Remove or replace these rows.")
        return given
    if not training.has_embedding:
        training.embedding, training.has_embedding = _stored_embedding(adata), True
    return training.embedding


def _stored_embedding(adata: AnnData) -> pd.DataFrame | None:
    """Read the embedding from `pp.grn` and `pp.molecules`."""
    stored = adata.uns.get(UNS_KEY, {})
    blocks = []
    if "target_embedding" in stored:
        blocks.append(pd.DataFrame(stored["target_embedding"]["matrix"], index=stored["target_embedding"]["names"]))
    if "molecules" in stored:
        molecules = stored["molecules"]
        matrix = compared_by(molecules["matrix"], molecules.get("kind", "given"))
        by_drug = pd.DataFrame(matrix, index=molecules["smiles"]).loc[molecules["drug_smiles"]]
        blocks.append(by_drug.set_axis(molecules["drugs"]))
    if not blocks:
        return None
    embedding = side_by_side(blocks)
    names, known = (
        {name for p in ScreenKeys.read(adata).perturbations(adata) for name in p.targets},
        GeneNames(embedding.index),
    )
    renamed = {name: gene for name in sorted(names) if name not in known.known and (gene := known.find(name))}
    return pd.concat([embedding, embedding.loc[list(renamed.values())].set_axis(list(renamed))])


def side_by_side(blocks: list[pd.DataFrame]) -> pd.DataFrame:
    """Join embeddings at mean squared length 1, with zeros for missing names."""
    scaled = [block / (np.sqrt((block**2).sum(axis=1).mean()) or 1.0) for block in blocks]
    return pd.concat(scaled, axis=1).fillna(0.0)


def rows_of(embedding: pd.DataFrame | None, targets: tuple[str, ...]) -> np.ndarray:
    """Add up target rows.

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
