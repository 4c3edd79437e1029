"""The core shared by both simulators: a regulatory network, its response, and counts with known counterfactuals."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse, stats

from unlasting.screen import UNS_KEY

CONTROL = "control"
CHAIN_WEIGHT = 1.5
LARGEST_ACTIVITY = 2.0
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Network:
    """Signed regulation without cycles.

    A regulator has activity 1 at its usual expression and 0 when knocked out. Log-expression moves by
    `weight * (activity - 1)` for each regulator, and the change runs on to the genes downstream. Regulators come before their
    genes in `names`. `weights` act from row to column, shape `(n_nodes, n_nodes)`, above the diagonal only.
    """

    names: np.ndarray
    weights: np.ndarray

    @classmethod
    def drawn(
        cls,
        targets: list[str],
        inert: list[str],
        genes: list[str],
        *,
        n_downstream: int,
        strength: float,
        rng: np.random.Generator,
    ) -> Network:
        """Draw a network in which each three `targets` form a chain with similar effects; `inert` ones regulate nothing.

        Each target regulates `n_downstream` genes directly, with `strength` as the mean absolute weight.
        """
        names = np.array([*targets, *inert, *genes], dtype=object)
        weights = np.zeros((len(names), len(names)))
        first_gene = len(targets) + len(inert)
        for regulator in range(len(targets)):
            children = first_gene + rng.choice(len(genes), size=min(n_downstream, len(genes)), replace=False)
            sizes = strength * rng.uniform(0.6, 1.4, size=len(children))
            weights[regulator, children] = sizes * rng.choice([-1, 1], p=[0.3, 0.7], size=len(children))
            if regulator % 3:  # chains of three: the first acts on the second, the second on the third
                weights[regulator - 1, regulator] = CHAIN_WEIGHT
        return cls(names, weights)

    def log_expression(
        self, noise: np.ndarray, knocked_out: Sequence[str] = (), inhibition: np.ndarray | None = None
    ) -> np.ndarray:
        """Compute departures from the usual expression, in natural logarithms; minus infinity for knocked-out nodes.

        `noise` and the result have the shape `(n_cells, n_nodes)`. `inhibition` is the blocked share of each node's activity, as by
        a drug, shape `(n_nodes,)`; the expression of the node itself stays.
        """
        change = noise.copy()
        left = np.ones(len(self.names)) if inhibition is None else 1.0 - inhibition
        for node, name in enumerate(self.names):
            regulators = np.flatnonzero(self.weights[:, node])
            if regulators.size:
                activity = np.minimum(np.exp(change[:, regulators]), LARGEST_ACTIVITY) * left[regulators]
                change[:, node] += (activity - 1) @ self.weights[regulators, node]
            if name in knocked_out:
                change[:, node] = -np.inf
        return change

    def edges(self) -> pd.DataFrame:
        """List the edges as a prior for `pp.grn`: `source`, `target` and signed `weight`."""
        source, target = np.nonzero(self.weights)
        return pd.DataFrame(
            {"source": self.names[source], "target": self.names[target], "weight": self.weights[source, target]}
        )


class Cells(Generic[Key]):
    """Control cells and the random numbers that decide all their counterfactuals, drawn once.

    Parameters
    ----------
    counts
        Counts before the perturbation, shape `(n_cells, n_genes)`.
    rate
        Expected counts, shape `(n_cells, n_genes)`.
    change
        Computes the change in natural logarithms from a condition and cell indices, shape `(len(cells), n_genes)`.
    share
        Computes the responding fraction under a condition.
    rng
        Random number generator.
    """

    def __init__(
        self,
        counts: np.ndarray,
        rate: np.ndarray,
        change: Callable[[Key, np.ndarray], np.ndarray],
        share: Callable[[Key], float],
        rng: np.random.Generator,
    ) -> None:
        self.counts, self.rate, self.change, self.share = counts, rate, change, share
        self.luck = rng.uniform(size=counts.shape)
        self.temper = rng.uniform(size=len(counts))

    def perturbed(self, condition: Key, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Apply a condition to control cells: counts `(len(cells), n_genes)`, and a mask for the responders."""
        responds = self.temper[cells] < self.share(condition)
        change = np.where(responds[:, None], self.change(condition, cells), 0.0)
        return changed_counts(self.counts[cells], self.rate[cells], change, self.luck[cells]), responds

    def screen(
        self,
        conditions: Sequence[Key],
        control: Key,
        genes: np.ndarray,
        obs: dict[str, Any],
        library_size: np.ndarray,
        truth: dict[str, Any],
    ) -> AnnData:
        """Apply `conditions`, one for each cell, and make the screen with `truth` in `uns["simulation"]`."""
        matrix, responder = self.counts.copy(), np.zeros(len(self.counts), dtype=bool)
        for condition, cells in _rows(conditions).items():
            if condition != control:
                matrix[cells], responder[cells] = self.perturbed(condition, cells)
        adata = AnnData(
            sparse.csr_matrix(matrix, dtype=np.float32),
            obs=pd.DataFrame(
                {**obs, "responder": responder, "library_size": library_size},
                index=[f"cell{i}" for i in range(len(matrix))],
            ),
            var=pd.DataFrame(index=genes.astype(str)),
        )
        adata.uns[UNS_KEY] = {"dataset": "simulated"}
        adata.uns["simulation"] = truth
        return adata

    def counterfactuals(self, conditions: Sequence[Key], control: Key) -> dict[Key, sparse.csr_matrix]:
        """Apply every condition to all control cells: counts `(n_controls, n_genes)` for each."""
        rows = _rows(conditions)
        controls = rows.pop(control)
        return {c: sparse.csr_matrix(self.perturbed(c, controls)[0], dtype=np.float32) for c in rows}


def _rows(conditions: Sequence[Key]) -> dict[Key, np.ndarray]:
    """Find the cells under each condition, in order of appearance."""
    rows: dict[Key, list[int]] = {}
    for cell, condition in enumerate(conditions):
        rows.setdefault(condition, []).append(cell)
    return {condition: np.array(cells) for condition, cells in rows.items()}


def base_counts(base: AnnData, n_genes: int) -> tuple[sparse.csr_matrix, np.ndarray, np.ndarray]:
    """Get the counts for the most expressed genes, shape `(n_cells, n_genes)`, library sizes and cell types."""
    if base.n_vars < n_genes:
        raise ValueError(f"`base` has {base.n_vars} genes; this screen needs {n_genes}. Lower `n_genes`.")
    counts = sparse.csc_matrix(base.X)
    if counts.data.size and (counts.data.min() < 0 or (counts.data != np.rint(counts.data)).any()):
        raise ValueError("`base.X` must hold raw counts: pass `base` before normalisation.")
    most = np.argsort(-np.asarray(counts.sum(axis=0)).ravel(), kind="stable")[:n_genes]
    types = base.obs["cell_type"].astype(str).to_numpy() if "cell_type" in base.obs else np.full(base.n_obs, "cell")
    return sparse.csr_matrix(counts[:, most]), np.asarray(counts.sum(axis=1)).ravel(), types


def expected_counts(counts: np.ndarray, cell_types: np.ndarray) -> np.ndarray:
    """Estimate expected counts from the share of each gene in its cell type, shape `(n_cells, n_genes)`."""
    rate = np.empty(counts.shape)
    for cell_type in np.unique(cell_types):
        own = counts[cell_types == cell_type]
        rate[cell_types == cell_type] = own.sum(axis=1, keepdims=True) * (own.sum(axis=0) / max(own.sum(), 1))
    return rate


def changed_counts(counts: np.ndarray, rate: np.ndarray, change: np.ndarray, luck: np.ndarray) -> np.ndarray:
    """Thin the counts where genes go down and add counts where they go up; others stay.

    All arrays have shape `(n_cells, n_genes)`. Poisson counts with mean `rate` become Poisson counts with mean
    `rate * exp(change)`.
    """
    after = counts.copy()
    down, up = change < 0, change > 0
    after[down] = stats.binom.ppf(luck[down], counts[down], np.exp(change[down]))
    after[up] += stats.poisson.ppf(luck[up], rate[up] * np.expm1(change[up])).astype(counts.dtype)
    return after
