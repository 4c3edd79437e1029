"""Screens whose truth is known, down to what every control cell would have become."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from unlasting.datasets._counts import base_counts, changed_counts, expected_counts
from unlasting.datasets._network import Network
from unlasting.screen import UNS_KEY, require_integers

CONTROL = "control"


def simulate_screen(
    *,
    n_cells: int = 100,
    n_controls: int = 500,
    n_genes: int = 100,
    n_targets: int = 9,
    n_unmeasured: int = 3,
    n_inert: int = 1,
    n_combos: int = 0,
    n_cell_types: int = 1,
    n_downstream: int = 10,
    strength: float = 1.5,
    responders: float | Sequence[float] = 0.8,
    mean_counts: float = 3.0,
    depth_sd: float = 0.3,
    noise_sd: float = 0.3,
    base: AnnData | None = None,
    seed: int = 0,
    return_counterfactuals: bool = False,
) -> AnnData | tuple[AnnData, dict[str, sparse.csr_matrix]]:
    """Simulate a knock-out screen with a known network and known counterfactuals.

    Every cell begins as a control cell, simulated or real. In a perturbed cell the target is silenced, the change runs
    through a network of signed regulation, and counts are taken away or added accordingly; a part of the cells does
    not respond, so that the response has two modes. What a cell is made of (its state, depth, and luck) is drawn once:
    the counterfactual of a control cell differs from the cell only in the genes downstream of the target.

    Parameters
    ----------
    n_cells
        Number of cells of each perturbation.
    n_controls
        Number of control cells.
    n_genes
        Number of measured genes.
    n_targets
        Number of targets that regulate other genes. Each three form a chain, with similar effects.
    n_unmeasured
        How many of the targets are not among the measured genes.
    n_inert
        Number of further, measured targets without an effect on other genes.
    n_combos
        Number of pairs of targets that are knocked out together as well.
    n_cell_types
        Number of cell types, which differ in their usual expression; ignored when `base` is given.
    n_downstream
        Number of genes that each target acts on directly.
    strength
        Mean absolute weight of regulation: a direct target changes by about `exp(strength)`.
    responders
        Fraction of the cells that respond: one for all perturbations, or one for each target (pairs take the smaller).
    mean_counts
        Mean count of a gene in a cell; ignored when `base` is given.
    depth_sd
        Spread of the sequencing depth, as the s.d. of its logarithm; ignored when `base` is given.
    noise_sd
        Spread of the state of cells, as the s.d. of log-expression; ignored when `base` is given.
    base
        Real control cells with raw counts in `X` to begin from, such as the controls of
        :func:`unlasting.datasets.kang`, with `obs["cell_type"]` if there are several. The genes with most counts are
        taken, and cells are drawn without replacement.
    seed
        The same seed gives the same screen.
    return_counterfactuals
        Return also what every control cell would have become under every perturbation.

    Returns
    -------
    The screen: raw counts in `X`, `obs["perturbation"]`, `obs["cell_type"]`, `obs["responder"]`,
    `obs["library_size"]` (of the cell before the perturbation: with it, :func:`unlasting.pp.prepare` does not mistake
    what changes for depth), and in
    `uns["simulation"]` the `edges` of the network (`source`, `target`, `weight`: a prior for :func:`unlasting.pp.grn`),
    the `effects` (natural logarithm of the change of each measured gene in a responding cell of average state, one row
    per perturbation) and the `parameters`.
    With `return_counterfactuals`, also a dictionary from perturbation to counts, shape `(n_controls, n_genes)`, in the
    order of the control cells of the screen.

    Raises
    ------
    ValueError
        If the numbers do not fit together, or `base` has too few cells or genes.

    Examples
    --------
    >>> import unlasting as ul
    >>> adata, truth = ul.datasets.simulate_screen(n_cells=20, n_controls=50, return_counterfactuals=True)
    >>> adata.shape
    (250, 100)
    >>> truth["T1"].shape
    (50, 100)
    """
    _check(n_cells, n_controls, n_genes, n_targets, n_unmeasured, n_inert, n_combos, n_cell_types)
    rng = np.random.default_rng(seed)
    targets = [f"T{i + 1}" for i in range(n_targets)]
    inert = [f"N{i + 1}" for i in range(n_inert)]
    hidden = {str(name) for name in rng.choice(targets, size=n_unmeasured, replace=False)}
    n_regulated = n_genes - (n_targets - n_unmeasured) - n_inert
    genes = [f"G{i + 1}" for i in range(n_regulated)]
    network = Network.drawn(targets, inert, genes, n_downstream=n_downstream, strength=strength, rng=rng)
    measured = ~np.isin(network.names, sorted(hidden))

    labels = [*targets, *inert, *_pairs(targets, n_combos, rng)]
    fraction = _responder_fractions(responders, targets, inert)
    conditions = np.repeat([CONTROL, *labels], [n_controls] + [n_cells] * len(labels))
    total = len(conditions)
    if base is None:
        cell_types, library_size, noise, rate = _synthetic(
            network, total, n_cell_types, mean_counts, depth_sd, noise_sd, measured, rng
        )
        counts = rng.poisson(rate)
    else:
        cell_types, library_size, counts, rate = _real(base, total, int(measured.sum()), rng)
        noise = np.zeros((total, len(network.names)))
    # One draw per cell and gene decides all its fates: common random numbers.
    luck = rng.uniform(size=counts.shape)
    temper = rng.uniform(size=total)
    usual = network.log_expression(noise, np.zeros(len(network.names), dtype=bool))

    def perturbed(label: str, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Apply a perturbation to control cells: their counts, and whether they respond."""
        names = label.split("+")
        responds = temper[cells] < min(fraction[name] for name in names)
        after = network.log_expression(noise[cells], np.isin(network.names, names))
        change = np.where(responds[:, None], after - usual[cells], 0.0)[:, measured]
        return changed_counts(counts[cells], rate[cells], change, luck[cells]), responds

    matrix, responder = counts.copy(), np.zeros(total, dtype=bool)
    for label in labels:
        cells = np.flatnonzero(conditions == label)
        matrix[cells], responder[cells] = perturbed(label, cells)

    adata = AnnData(
        sparse.csr_matrix(matrix, dtype=np.float32),
        obs=pd.DataFrame(
            {
                "perturbation": conditions.astype(str),
                "cell_type": cell_types,
                "responder": responder,
                "library_size": library_size,
            },
            index=[f"cell{i}" for i in range(total)],
        ),
        var=pd.DataFrame(index=network.names[measured].astype(str)),
    )
    average = np.zeros((1, len(network.names)))
    effects = [
        network.log_expression(average, np.isin(network.names, label.split("+")))[0, measured] for label in labels
    ]
    adata.uns[UNS_KEY] = {"dataset": "simulated"}
    adata.uns["simulation"] = {
        "edges": network.edges(),
        "effects": pd.DataFrame(np.stack(effects), index=labels, columns=adata.var_names),
        "parameters": {"seed": seed, "strength": strength, "n_downstream": n_downstream, "responders": fraction},
    }
    if not return_counterfactuals:
        return adata
    controls = np.flatnonzero(conditions == CONTROL)
    truth = {label: sparse.csr_matrix(perturbed(label, controls)[0], dtype=np.float32) for label in labels}
    return adata, truth


def _check(
    n_cells: int,
    n_controls: int,
    n_genes: int,
    n_targets: int,
    n_unmeasured: int,
    n_inert: int,
    n_combos: int,
    n_types: int,
) -> None:
    """Refuse numbers that do not fit together."""
    require_integers(1, n_cells=n_cells, n_controls=n_controls, n_targets=n_targets, n_cell_types=n_types)
    require_integers(0, n_unmeasured=n_unmeasured, n_inert=n_inert, n_combos=n_combos)
    if n_unmeasured > n_targets:
        raise ValueError(f"`n_unmeasured` is {n_unmeasured}, but there are only {n_targets} targets (`n_targets`).")
    if n_genes <= n_targets - n_unmeasured + n_inert:
        raise ValueError(
            f"`n_genes` is {n_genes}, but the measured targets alone are {n_targets - n_unmeasured + n_inert}. Raise it."
        )
    if n_combos > n_targets * (n_targets - 1) // 2:
        raise ValueError(f"`n_combos` is {n_combos}, but {n_targets} targets have fewer pairs.")


def _pairs(targets: list[str], n_combos: int, rng: np.random.Generator) -> list[str]:
    """Draw pairs of targets."""
    pairs = ["+".join(sorted((a, b))) for i, a in enumerate(targets) for b in targets[i + 1 :]]
    return [str(pair) for pair in rng.choice(pairs, size=n_combos, replace=False)] if n_combos else []


def _responder_fractions(responders: float | Sequence[float], targets: list[str], inert: list[str]) -> dict[str, float]:
    """Give every target its fraction of responding cells."""
    each = np.full(len(targets), responders) if np.ndim(responders) == 0 else np.asarray(responders)
    given = each.astype(float).tolist()
    if len(given) != len(targets) or not all(0 <= value <= 1 for value in given):
        raise ValueError(
            f"`responders` must be a fraction from 0 to 1, or one for each of the {len(targets)} targets; it is {responders}."
        )
    return dict(zip(targets, given, strict=True)) | dict.fromkeys(inert, 1.0)


def _synthetic(
    network: Network,
    n_cells: int,
    n_cell_types: int,
    mean_counts: float,
    depth_sd: float,
    noise_sd: float,
    measured: np.ndarray,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Draw cell types and depth, both `(n_cells,)`, states `(n_cells, n_nodes)` and expected counts `(n_cells, n_measured)`."""
    n_nodes = len(network.names)
    usual = rng.normal(0, 1, size=n_nodes) + np.where(
        rng.uniform(size=(n_cell_types, n_nodes)) < 0.3, rng.normal(0, 1, size=(n_cell_types, n_nodes)), 0
    )  # (n_cell_types, n_nodes)
    kind = rng.integers(n_cell_types, size=n_cells)
    noise = noise_sd * rng.standard_normal((n_cells, n_nodes))
    state = network.log_expression(noise, np.zeros(n_nodes, dtype=bool))
    share = np.exp(usual[:, measured])
    share /= share.sum(axis=1, keepdims=True)
    depth = mean_counts * measured.sum() * np.exp(depth_sd * rng.standard_normal(n_cells) - depth_sd**2 / 2)
    activity = np.exp(state[:, measured])
    rate = depth[:, None] * share[kind] * activity / activity.mean(axis=0)
    return np.array([f"type{i + 1}" for i in range(n_cell_types)])[kind], depth, noise, rate


def _real(
    base: AnnData, n_cells: int, n_genes: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Draw real cells: types and library sizes, both `(n_cells,)`, counts and expected counts, both `(n_cells, n_genes)`."""
    if base.n_obs < n_cells or base.n_vars < n_genes:
        raise ValueError(
            f"`base` has {base.n_obs} cells x {base.n_vars} genes; this screen needs {n_cells} cells and {n_genes} genes. "
            "Lower `n_cells`, `n_controls` or the number of targets."
        )
    counts, library_size, kinds = base_counts(base, n_genes)
    cells = rng.choice(base.n_obs, size=n_cells, replace=False)
    matrix = counts[cells].toarray().astype(np.int64)
    matrix = matrix[:, rng.permutation(n_genes)]  # else the targets would be the genes with most counts
    return kinds[cells], library_size[cells], matrix, expected_counts(matrix, kinds[cells])
