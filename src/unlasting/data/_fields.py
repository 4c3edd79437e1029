"""Registered fields: the screen's data, and the vocabularies that are saved with a model."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
import pandas as pd
import rich.pretty  # scvi-tools shows a set-up with it, and does not import it
import rich.table
from anndata import AnnData
from scvi.data.fields import BaseAnnDataField

from unlasting.screen import (
    SPLITS,
    TRAIN,
    UNS_KEY,
    VAL,
    MissingKeyError,
    Perturbation,
    ScreenKeys,
    by_perturbation,
)

PERTURBATION = "perturbation"
POPULATION = "population"
SPLIT = "split"
GRAPH = "graph"

_VAL_SHARE = 0.1


class _CodeField(BaseAnnDataField):
    """Integer codes for cells, in an `obs` column."""

    def __init__(self, keys: ScreenKeys) -> None:
        super().__init__()
        self.keys = keys

    @property
    def attr_name(self) -> str:
        return "obs"

    @property
    def attr_key(self) -> str:
        return f"_unlasting_{self.registry_key}"

    @property
    def is_empty(self) -> bool:
        return False

    def validate_field(self, adata: AnnData) -> None:
        super().validate_field(adata)
        self.keys.labels(adata)

    @abstractmethod
    def state(self, adata: AnnData) -> dict[str, Any]:
        """Get the vocabulary."""

    @abstractmethod
    def codes(self, adata: AnnData, state: dict[str, Any]) -> np.ndarray:
        """Get each cell's code, -1 outside the vocabulary, shape `(n_cells,)`."""

    def register_field(self, adata: AnnData) -> dict[str, Any]:
        super().register_field(adata)
        state = self.state(adata)
        adata.obs[self.attr_key] = self.codes(adata, state).astype(np.int32)
        return state

    def transfer_field(self, state_registry: dict[str, Any], adata_target: AnnData, **kwargs: Any) -> dict[str, Any]:
        super().transfer_field(state_registry, adata_target, **kwargs)
        self.validate_field(adata_target)
        adata_target.obs[self.attr_key] = self.codes(adata_target, state_registry).astype(np.int32)
        return state_registry

    def get_summary_stats(self, state_registry: dict[str, Any]) -> dict[str, int]:
        return {}

    def view_state_registry(self, state_registry: dict[str, Any]) -> rich.table.Table | None:
        table = rich.table.Table(title=f"{self.registry_key} state registry")
        for name in state_registry:
            table.add_column(name, justify="center")
        table.add_row(*(str(np.size(value)) for value in state_registry.values()))
        return table


def split_codes(adata: AnnData, keys: ScreenKeys) -> np.ndarray:
    """Get 0 (train), 1 (val) or 2 (test) for every cell, shape `(n_cells,)`.

    Without validation cells in the split, a tenth in every training condition is taken, always the same ones.
    """
    split = keys.split(adata)
    codes = (
        np.zeros(adata.n_obs, dtype=np.int32)
        if split is None
        else pd.Categorical(split, categories=SPLITS).codes.astype(np.int32)
    )
    if not (codes == SPLITS.index(VAL)).any():
        rng = np.random.default_rng(0)
        parts = (keys.labels(adata), keys.doses(adata), keys.cell_types(adata), keys.batches(adata))
        training = np.flatnonzero(codes == SPLITS.index(TRAIN))
        frame = pd.DataFrame(dict(enumerate(parts))).iloc[training]
        for _, places in sorted(frame.groupby(list(frame)).indices.items()):
            rows = rng.permutation(training[places])
            codes[rows[: int(_VAL_SHARE * len(rows))]] = SPLITS.index(VAL)
    return codes


class SplitField(_CodeField):
    """The split's part for each cell."""

    @property
    def registry_key(self) -> str:
        return SPLIT

    def state(self, adata: AnnData) -> dict[str, Any]:
        return {"parts": np.array(SPLITS)}

    def codes(self, adata: AnnData, state: dict[str, Any]) -> np.ndarray:
        return split_codes(adata, self.keys)


class PerturbationField(_CodeField):
    """Each cell's perturbation; all conditions, and the targets in training cells.

    A condition is a label at a dose; the first is the control.
    """

    @property
    def registry_key(self) -> str:
        return PERTURBATION

    def state(self, adata: AnnData) -> dict[str, Any]:
        found = self.keys.perturbations(adata)
        in_training = set(found[split_codes(adata, self.keys) == SPLITS.index(TRAIN)])
        conditions = sorted({*found, Perturbation()}, key=lambda p: (p.targets, p.dose_text()))
        return {
            "conditions": np.array([p.label(**self.keys.grammar) for p in conditions], dtype=object),
            "doses": np.array([p.dose_text() for p in conditions], dtype=object),
            "is_trained": np.array([p in in_training for p in conditions]),
            "trained_targets": np.array(sorted({name for p in in_training for name in p.targets}), dtype=object),
        }

    def codes(self, adata: AnnData, state: dict[str, Any]) -> np.ndarray:
        place = {p: code for code, p in enumerate(self.conditions(state))}
        return by_perturbation(self.keys.perturbations(adata), lambda p: place.get(p, -1)).astype(np.int64)

    def conditions(self, state: dict[str, Any], *, trained: bool = False) -> list[Perturbation]:
        """Read the registered conditions, or only the trained ones."""
        written = zip(state["conditions"], state["doses"], state["is_trained"], strict=True)
        return [
            Perturbation.parse(label, dose or None, **self.keys.grammar)
            for label, dose, is_trained in written
            if is_trained or not trained
        ]

    def get_summary_stats(self, state_registry: dict[str, Any]) -> dict[str, int]:
        return {
            "n_conditions": len(state_registry["conditions"]),
            "n_trained_targets": len(state_registry["trained_targets"]),
        }


class PopulationField(_CodeField):
    """Each cell's control population: the controls with its cell type and batch."""

    @property
    def registry_key(self) -> str:
        return POPULATION

    def state(self, adata: AnnData) -> dict[str, Any]:
        pairs = sorted(self._pairs(adata).drop_duplicates())
        return {
            "cell_types": np.array([cell_type for cell_type, _ in pairs], dtype=object),
            "batches": np.array([batch for _, batch in pairs], dtype=object),
        }

    def codes(self, adata: AnnData, state: dict[str, Any]) -> np.ndarray:
        known = pd.MultiIndex.from_arrays([state["cell_types"], state["batches"]])
        return np.asarray(known.get_indexer(self._pairs(adata)))

    def _pairs(self, adata: AnnData) -> pd.MultiIndex:
        """Get cell type and batch of every cell."""
        return pd.MultiIndex.from_arrays([self.keys.cell_types(adata), self.keys.batches(adata)])

    def get_summary_stats(self, state_registry: dict[str, Any]) -> dict[str, int]:
        return {
            "n_populations": len(state_registry["cell_types"]),
            "n_cell_types": len(set(state_registry["cell_types"])),
        }


class GraphField(BaseAnnDataField):
    """The gene regulatory network, and the embeddings of targets and molecules, copied from `uns` into the registry."""

    @property
    def registry_key(self) -> str:
        return GRAPH

    @property
    def attr_name(self) -> str:
        return "uns"

    @property
    def attr_key(self) -> str:
        return UNS_KEY

    @property
    def is_empty(self) -> bool:
        return False

    def validate_field(self, adata: AnnData) -> None:
        super().validate_field(adata)
        if "grn" not in adata.uns.get(UNS_KEY, {}):
            raise MissingKeyError("`adata.uns['unlasting']['grn']` is missing. Call `unlasting.pp.grn(adata)` first.")

    def register_field(self, adata: AnnData) -> dict[str, Any]:
        super().register_field(adata)
        stored = adata.uns[UNS_KEY]
        nodes = np.asarray(stored["grn"]["nodes"], dtype=object)
        place = {name: i for i, name in enumerate(nodes)}
        edges = stored["grn"]["edges"]
        index = [[place[name] for name in edges[end]] for end in ("source", "target")]
        embedding, molecules = stored.get("target_embedding", {}), stored.get("molecules", {})
        matrix = np.asarray(embedding.get("matrix", np.zeros((0, 1))), dtype=np.float32)
        return {
            "nodes": nodes,
            "edge_index": np.array(index, dtype=np.int64).reshape(2, -1),
            "embedded": np.asarray(embedding.get("names", []), dtype=object),
            "features": (features := embedding.get("features", matrix)),
            "feature_source": np.asarray(embedding.get("feature_source", ["prior"] * features.shape[1]), dtype=object),
            "feature_is_term": np.asarray(embedding.get("feature_is_term", [False] * features.shape[1]), dtype=bool),
            **{key: np.asarray(molecules.get(key, []), dtype=object) for key in ("drugs", "drug_smiles", "smiles")},
            "molecules": np.asarray(molecules.get("matrix", np.zeros((0, 1))), dtype=np.float32),
            "molecule_kind": str(molecules.get("kind", "given")),
        }

    def transfer_field(self, state_registry: dict[str, Any], adata_target: AnnData, **kwargs: Any) -> dict[str, Any]:
        return state_registry  # the graph belongs to the model, whatever the other AnnData holds

    def get_summary_stats(self, state_registry: dict[str, Any]) -> dict[str, int]:
        return {"n_nodes": len(state_registry["nodes"]), "n_edges": state_registry["edge_index"].shape[1]}

    def view_state_registry(self, state_registry: dict[str, Any]) -> rich.table.Table | None:
        return None
