"""New cells, prepared as those that a model was trained on."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
from anndata import AnnData

from unlasting import pp
from unlasting.model._base import ModelBase
from unlasting.screen import UNS_KEY, check_cells, logger


class PreparationMixin(ModelBase):
    """`prepare`."""

    def prepare(self, adata: AnnData, *, copy: bool = False) -> AnnData | None:
        """Normalise raw counts as the cells of the training screen were, on the genes of the model.

        For cells that come later: controls to start from, or a screen to predict and to judge. They get the graph,
        embeddings and molecules of the model's screen, which baselines read. Where all of them belong to that screen, by name
        and label, they get their part of its split too.

        Parameters
        ----------
        adata
            Cells with raw counts in `X` on all genes of the training screen, in any order, shape `(n_cells, n_genes)`.
        copy
            Return a changed copy, and leave `adata` as it is.

        Returns
        -------
        `None`, or the copy. Updates the fields of :func:`unlasting.pp.prepare`, `adata.uns["unlasting"]["grn"]`,
        `["target_embedding"]` and `["molecules"]`, and `adata.obs[split_key]` for cells of the training screen.

        Raises
        ------
        KeyError
            If there is no column of library sizes, where the training screen had one.
        ValueError
            If `X` does not hold raw counts, genes of the model are missing, or the training screen was normalised by
            other means than `pp.prepare`.
        """
        if not self.preparation_ or self._layer is not None:
            raise ValueError(
                "The screen of this model was not normalised by `unlasting.pp.prepare`, so how it was done is not known. "
                "Normalise the new cells in the same way, and pass `adata[:, model.get_var_names()].copy()`."
            )
        check_cells(adata)
        adata = adata.copy() if copy else adata
        split = self._known_split(adata)
        n_genes, before = adata.n_vars, self.preparation_["genes_before"]
        pp.prepare(
            adata,
            genes=self.get_var_names(),
            library_size_key=self.preparation_["library_size_key"] or None,
            target_sum=self.preparation_["target_sum"],
            perturbation_key=self.keys.perturbation_key,
            control=self.keys.control,
            split_key=self.keys.split_key,
            delimiter=self.keys.delimiter,
        )
        self.keys.write(adata)
        stored = {} if self.adata is None else self.adata.uns[UNS_KEY]
        present = [key for key in ("grn", "target_embedding", "molecules") if key in stored]
        adata.uns[UNS_KEY] |= {key: deepcopy(stored[key]) for key in present}
        if n_genes != before and not self.preparation_["library_size_key"]:
            logger.warning(
                "The new cells have counts of %d genes, the training screen had %d: library sizes, and with them all "
                "values, are comparable only if the further genes hold few counts. Pass the same genes if you can.",
                n_genes,
                before,
            )
        if split is not None:
            adata.obs[self.keys.split_key] = split
        return adata if copy else None

    def _known_split(self, adata: AnnData) -> np.ndarray | None:
        """Look up which part of the split each cell is in, if all are cells of the training screen."""
        key, screen = self.keys.split_key, self.adata
        if screen is None or key not in screen.obs or key in adata.obs or self.keys.perturbation_key not in adata.obs:
            return None
        rows = screen.obs_names.get_indexer(adata.obs_names)
        if (rows < 0).any() or not np.array_equal(
            self.keys.perturbations(adata), self.keys.perturbations(screen)[rows]
        ):
            return None
        return screen.obs[key].to_numpy()[rows]


def preparation_of(adata: AnnData) -> dict[str, Any]:
    """Take from the report of `pp.prepare` what new cells need."""
    report = adata.uns.get(UNS_KEY, {}).get("prepare", {})
    return {key: report[key] for key in ("target_sum", "library_size_key", "genes_before") if key in report}
