"""A known regulatory network, and what happens to its genes when targets are knocked out or inhibited."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

CHAIN_WEIGHT = 1.5
LARGEST_ACTIVITY = 2.0


@dataclass(frozen=True)
class Network:
    """Signed regulation without cycles.

    The activity of a regulator is 1 when it is expressed as usual in cells of its kind, and 0 when it is knocked out.
    The logarithm of a gene's expression moves by `weight * (activity - 1)` for each of its regulators, and this in
    turn moves what the gene regulates.

    Parameters
    ----------
    names
        Names of the nodes, regulators before what they regulate, shape `(n_nodes,)`.
    weights
        Weight of the regulation of the column by the row, shape `(n_nodes, n_nodes)`, above the diagonal only.
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
        """Draw a network in which targets form chains, so that neighbours in a chain have similar effects.

        Parameters
        ----------
        targets
            Names of the regulators.
        inert
            Targets that regulate nothing.
        genes
            Names of the genes that are regulated.
        n_downstream
            Number of genes that each regulator acts on directly.
        strength
            Mean absolute weight.
        rng
            Source of randomness.
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
        self, noise: np.ndarray, knocked_out: np.ndarray, inhibition: np.ndarray | None = None
    ) -> np.ndarray:
        """Compute by how much each gene of each cell departs from the usual expression, in natural logarithms.

        Parameters
        ----------
        noise
            What makes each cell different, shape `(n_cells, n_nodes)`.
        knocked_out
            Which nodes are knocked out, shape `(n_nodes,)`.
        inhibition
            What part of the activity of each node is blocked, as by a drug, shape `(n_nodes,)`. Its own expression stays.

        Returns
        -------
        Shape `(n_cells, n_nodes)`; minus infinity for what is knocked out.
        """
        change = noise.copy()
        left = np.ones(len(self.names)) if inhibition is None else 1.0 - inhibition
        for node in range(len(self.names)):
            regulators = np.flatnonzero(self.weights[:, node])
            if regulators.size:
                activity = np.minimum(np.exp(change[:, regulators]), LARGEST_ACTIVITY) * left[regulators]
                change[:, node] += (activity - 1) @ self.weights[regulators, node]
            if knocked_out[node]:
                change[:, node] = -np.inf
        return change

    def edges(self) -> pd.DataFrame:
        """List the edges as `pp.grn` takes them for a prior: `source`, `target` and signed `weight`."""
        source, target = np.nonzero(self.weights)
        return pd.DataFrame(
            {"source": self.names[source], "target": self.names[target], "weight": self.weights[source, target]}
        )
