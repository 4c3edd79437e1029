"""Simulated knock-out screens with known counterfactuals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from unlasting.datasets._simulation import CONTROL, Cells, Network, base_counts, expected_counts
from unlasting.screen import require_integers


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

    Every cell begins as a control cell, simulated or real. In a perturbed cell the target is silenced, and the change runs
    through a network with signed regulation into the counts. Some cells do not respond, so the response has two modes. All
    random numbers for a cell are drawn once: a control cell and its counterfactual differ only downstream of the target.

    Parameters
    ----------
    n_cells
        Cells per perturbation.
    n_controls
        Control cells.
    n_genes
        Measured genes.
    n_targets
        Targets that regulate other genes. Each three form a chain, with similar effects.
    n_unmeasured
        Targets that are not measured.
    n_inert
        Further, measured targets without an effect on other genes.
    n_combos
        Target pairs that are knocked out together as well.
    n_cell_types
        Cell types with different usual expression; ignored when `base` is given.
    n_downstream
        Genes that each target regulates directly.
    strength
        Mean absolute weight: a direct target changes by about `exp(strength)`.
    responders
        Responding fraction: one for all perturbations, or one per target (pairs take the smaller).
    mean_counts
        Mean count per gene and cell; ignored when `base` is given.
    depth_sd
        S.d. of log sequencing depth; ignored when `base` is given.
    noise_sd
        S.d. of log-expression between cells; ignored when `base` is given.
    base
        Real control cells with raw counts in `X`, such as the controls in :func:`unlasting.datasets.kang`, with
        `obs["cell_type"]` if there are several. The most expressed genes are taken, and cells are drawn without
        replacement.
    seed
        The same seed gives the same screen.
    return_counterfactuals
        Return also every control cell under every perturbation.

    Returns
    -------
    The screen: raw counts in `X`; `obs["perturbation"]`, `obs["cell_type"]`, `obs["responder"]` and
    `obs["library_size"]` before the perturbation, for `library_size_key` of :func:`unlasting.pp.prepare`.
    `uns["simulation"]` holds `edges` (`source`, `target`, `weight`: a prior for :func:`unlasting.pp.grn`), `effects` (change
    of each measured gene in an average responding cell, in natural logarithms, one row per perturbation) and
    `parameters`.
    With `return_counterfactuals`, also a dictionary from perturbation to counts, shape `(n_controls, n_genes)`, ordered
    as the control cells.

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
    require_integers(1, n_cells=n_cells, n_controls=n_controls, n_targets=n_targets, n_cell_types=n_cell_types)
    require_integers(0, n_unmeasured=n_unmeasured, n_inert=n_inert, n_combos=n_combos)
    if n_unmeasured > n_targets:
        raise ValueError(
            f"`n_unmeasured` is {n_unmeasured}, but there are only {n_targets} targets. Raise `n_targets`."
        )
    if n_genes <= n_targets - n_unmeasured + n_inert:
        raise ValueError(
            f"`n_genes` is {n_genes}, but the measured targets alone are {n_targets - n_unmeasured + n_inert}. Raise it."
        )
    if n_combos > n_targets * (n_targets - 1) // 2:
        raise ValueError(f"`n_combos` is {n_combos}, but {n_targets} targets have fewer pairs. Raise `n_targets`.")
    rng = np.random.default_rng(seed)
    targets = [f"T{i + 1}" for i in range(n_targets)]
    inert = [f"N{i + 1}" for i in range(n_inert)]
    hidden = {str(name) for name in rng.choice(targets, size=n_unmeasured, replace=False)}
    genes = [f"G{i + 1}" for i in range(n_genes - (n_targets - n_unmeasured) - n_inert)]
    network = Network.drawn(targets, inert, genes, n_downstream=n_downstream, strength=strength, rng=rng)
    measured = ~np.isin(network.names, sorted(hidden))

    labels = [*targets, *inert, *_pairs(targets, n_combos, rng)]
    fraction = _responder_fractions(responders, targets, inert)
    conditions = np.repeat([CONTROL, *labels], [n_controls] + [n_cells] * len(labels)).tolist()
    if base is None:
        cell_types, library_size, noise, rate = _synthetic(
            network, len(conditions), n_cell_types, mean_counts, depth_sd, noise_sd, measured, rng
        )
        counts = rng.poisson(rate)
    else:
        cell_types, library_size, counts, rate = _real(base, len(conditions), int(measured.sum()), rng)
        noise = np.zeros((len(conditions), len(network.names)))
    usual = network.log_expression(noise)

    def change(label: str, cells: np.ndarray) -> np.ndarray:
        return (network.log_expression(noise[cells], label.split("+")) - usual[cells])[:, measured]

    def share(label: str) -> float:
        return min(fraction[name] for name in label.split("+"))

    average = np.zeros((1, len(network.names)))
    effects = [network.log_expression(average, label.split("+"))[0, measured] for label in labels]
    names = network.names[measured]
    cells = Cells(counts, rate, change, share, rng)
    adata = cells.screen(
        conditions,
        CONTROL,
        names,
        {"perturbation": conditions, "cell_type": cell_types},
        library_size,
        {
            "edges": network.edges(),
            "effects": pd.DataFrame(np.stack(effects), index=labels, columns=names.astype(str)),
            "parameters": {"seed": seed, "strength": strength, "n_downstream": n_downstream, "responders": fraction},
        },
    )
    return (adata, cells.counterfactuals(conditions, CONTROL)) if return_counterfactuals else adata


def _pairs(targets: list[str], n_combos: int, rng: np.random.Generator) -> list[str]:
    """Draw target pairs."""
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
    """Draw cell types and depth, both `(n_cells,)`, states `(n_cells, n_nodes)`, expected counts `(n_cells, n_measured)`."""
    n_nodes = len(network.names)
    usual = rng.normal(0, 1, size=n_nodes) + np.where(
        rng.uniform(size=(n_cell_types, n_nodes)) < 0.3, rng.normal(0, 1, size=(n_cell_types, n_nodes)), 0
    )  # (n_cell_types, n_nodes)
    kind = rng.integers(n_cell_types, size=n_cells)
    noise = noise_sd * rng.standard_normal((n_cells, n_nodes))
    state = network.log_expression(noise)
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
