"""Which columns of an AnnData mean what: written once by `pp` or `setup_anndata`, read by everything after."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from unlasting._constants import SPLIT_KEY, SPLITS, UNS_KEY
from unlasting._perturbation import canonical_labels, nearest_name

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True)
class ScreenKeys:
    """Where a screen keeps its labels.

    Parameters
    ----------
    perturbation_key
        Column of `obs` with the perturbation labels.
    control
        Label of unperturbed cells.
    cell_type_key
        Column of `obs` with the cell type, if there is more than one.
    batch_key
        Column of `obs` with the batch, if controls differ between batches.
    split_key
        Column of `obs` with `train`, `val` or `test`.
    delimiter
        What separates the targets of a combination.
    """

    perturbation_key: str = "perturbation"
    control: str = "control"
    cell_type_key: str | None = None
    batch_key: str | None = None
    split_key: str = SPLIT_KEY
    delimiter: str = "+"

    @classmethod
    def read(cls, adata: AnnData, **overrides: Any) -> ScreenKeys:
        """Take what earlier steps recorded in `uns["unlasting"]["keys"]`; arguments that are not `None` win."""
        stored = {k: v for k, v in adata.uns.get(UNS_KEY, {}).get("keys", {}).items() if v != ""}
        keys = replace(cls(), **stored)
        return replace(keys, **{k: v for k, v in overrides.items() if v is not None})

    def write(self, adata: AnnData) -> None:
        """Record the keys in `uns["unlasting"]["keys"]` (an absent key is an empty string, which h5ad can hold)."""
        adata.uns.setdefault(UNS_KEY, {})["keys"] = {k: v or "" for k, v in asdict(self).items()}

    def column(self, adata: AnnData, argument: str) -> np.ndarray:
        """Get the values of the `obs` column that `argument` (such as `"perturbation_key"`) names.

        Raises
        ------
        KeyError
            If `obs` has no such column.
        """
        key = getattr(self, argument)
        if key not in adata.obs:
            raise KeyError(
                f"`{argument}` is {key!r}, but `adata.obs` has no such column "
                f"(it has {list(map(str, adata.obs.columns))}).{nearest_name(str(key), map(str, adata.obs.columns))}"
            )
        return np.asarray(adata.obs[key].astype(object))

    def labels(self, adata: AnnData) -> np.ndarray:
        """Get the canonical perturbation label of every cell, shape `(n_cells,)`.

        Raises
        ------
        KeyError
            If `obs` has no such column.
        ValueError
            If a label cannot be read, or no cell carries the control label.
        """
        raw = self.column(adata, "perturbation_key")
        labels = canonical_labels(raw, control=self.control, delimiter=self.delimiter)
        if not (labels == self.control).any():
            raise ValueError(
                f"No cell of `adata.obs[{self.perturbation_key!r}]` carries the control label "
                f"`control={self.control!r}`.{nearest_name(self.control, sorted(set(map(str, raw))))} "
                "Unperturbed cells are needed: every prediction starts from them."
            )
        return labels

    def cell_types(self, adata: AnnData) -> np.ndarray:
        """Get the cell type of every cell, or one empty name for all, shape `(n_cells,)`."""
        if self.cell_type_key is None:
            return np.full(adata.n_obs, "", dtype=object)
        return self.column(adata, "cell_type_key").astype(str).astype(object)

    def batches(self, adata: AnnData) -> np.ndarray:
        """Get the batch of every cell, or one empty name for all, shape `(n_cells,)`."""
        if self.batch_key is None:
            return np.full(adata.n_obs, "", dtype=object)
        return self.column(adata, "batch_key").astype(str).astype(object)

    def split(self, adata: AnnData) -> np.ndarray | None:
        """Get `train`, `val` or `test` of every cell, or `None` without a split column.

        Raises
        ------
        ValueError
            If the column holds anything else.
        """
        if self.split_key not in adata.obs:
            return None
        split = self.column(adata, "split_key").astype(str).astype(object)
        strange = sorted(set(split) - set(SPLITS))
        if strange:
            raise ValueError(
                f"`adata.obs[{self.split_key!r}]` holds {strange[:5]}; only 'train', 'val' and 'test' are allowed."
            )
        return split


def split_hash(obs_names: Iterable[str], split: np.ndarray | None) -> str:
    """Fingerprint which cell is in which part of the split, so that a later change is noticed."""
    digest = hashlib.sha256()
    names = list(obs_names)
    for name, part in zip(names, split if split is not None else ["train"] * len(names), strict=True):
        digest.update(f"{name}\0{part}\n".encode())
    return digest.hexdigest()
