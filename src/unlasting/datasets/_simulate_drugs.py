"""Simulated drug screens with a known dose-response and known counterfactuals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from unlasting.datasets._sciplex3 import sciplex3_drugs
from unlasting.datasets._screens import kang
from unlasting.datasets._simulation import CONTROL, Cells, Network, base_counts, expected_counts
from unlasting.screen import (
    SMILES_DELIMITER,
    Condition,
    Perturbation,
    ScreenKeys,
    canonical_smiles,
    require_integers,
    tanimoto_similarity,
)

LARGEST_DISTANCE = 0.8
"""Average Tanimoto distance within a family. The similarity 0.2 is twice the mean over all pairs of drugs."""


def simulate_drug_screen(
    *,
    n_drugs: int = 12,
    n_families: int = 4,
    n_inert: int = 1,
    doses: Sequence[float] = (0.01, 0.1, 1.0, 10.0),
    n_cells: int = 20,
    n_controls: int = 200,
    n_cell_types: int = 2,
    n_genes: int = 100,
    n_gene_targets: int = 0,
    n_combos: int = 0,
    n_downstream: int = 15,
    strength: float = 1.5,
    responders: float = 0.8,
    base: AnnData | None = None,
    seed: int = 0,
    return_counterfactuals: bool = False,
) -> AnnData | tuple[AnnData, dict[tuple[str, float], sparse.csr_matrix]]:
    """Simulate a drug screen with real cells, real molecules and a known response.

    Similar drugs from sci-Plex3 form families. Each family inhibits one target in a network with signed regulation, so
    drugs in a family change the same genes, and the structure predicts the effect of an unseen drug. The inhibition follows
    a Hill curve with its own parameters for each drug and cell type. In each cell type but the first, one family has no effect.
    Some cells do not respond. Control cells are real; the responses are invented, also for real drug names. Needs RDKit.

    Parameters
    ----------
    n_drugs
        Drugs with an effect.
    n_families
        Structural families, as equal in size as possible.
    n_inert
        Further drugs without an effect.
    doses
        Doses for each drug, in uM.
    n_cells
        Cells per perturbation, dose and cell type.
    n_controls
        Control cells per cell type.
    n_cell_types
        Cell types: those with most cells in `base`.
    n_genes
        Measured genes: the most expressed genes in `base`, renamed. The targets are `T1` and so on.
    n_gene_targets
        Targets that are also knocked out as genes.
    n_combos
        Pairs of such a knock-out and a drug from another family.
    n_downstream
        Genes that each target regulates directly.
    strength
        Mean absolute weight: a gene changes by about `exp(strength)` when its target is fully inhibited.
    responders
        Responding fraction.
    base
        Control cells with raw counts in `X`, and `obs["cell_type"]` if there are several types; by default the controls
        in :func:`unlasting.datasets.kang`. Each simulated cell joins random parts of two cells from one type, so there can be
        more cells than in `base`.
    seed
        The same seed gives the same screen.
    return_counterfactuals
        Return also every control cell under every perturbation.

    Returns
    -------
    The screen: raw counts in `X`; `obs["perturbation"]`, `obs["dose"]` (uM; 0 for controls and knock-outs),
    `obs["smiles"]`, `obs["cell_type"]`, `obs["responder"]` and `obs["library_size"]` before the perturbation. The keys are
    recorded in `uns["unlasting"]["keys"]`.
    `uns["simulation"]` holds `drugs` (one row per drug and cell type: `target`, empty without an effect, `ec50` in uM,
    `slope`, and `efficacy`, the largest inhibition), `effects` (change of each gene in a responding cell, in natural
    logarithms, one row per condition, named as in `Trametinib at 1 uM in B`), `edges` (a prior for
    :func:`unlasting.pp.grn`) and `parameters`.
    With `return_counterfactuals`, also a dictionary from perturbation and dose to counts, shape
    `(n_all_controls, n_genes)`, ordered as the control cells.

    Raises
    ------
    ValueError
        If the numbers do not fit together, or `base` has too few genes, cells or cell types.
    ImportError
        If RDKit is not installed.

    Examples
    --------
    >>> import unlasting as ul
    >>> adata, truth = ul.datasets.simulate_drug_screen(n_drugs=4, n_families=2, return_counterfactuals=True)
    >>> adata.shape
    (1200, 100)
    >>> curves = adata.uns["simulation"]["drugs"]
    >>> truth[curves["drug"].iloc[0], 10.0].shape
    (400, 100)
    """
    require_integers(1, n_families=n_families, n_cells=n_cells, n_controls=n_controls, n_cell_types=n_cell_types)
    require_integers(0, n_inert=n_inert)
    if n_drugs < n_families:
        raise ValueError(
            f"`n_drugs` is {n_drugs}, but each of the {n_families} families (`n_families`) needs a drug. Raise it."
        )
    if len(doses) == 0 or not all(0 < dose < np.inf for dose in doses) or len(set(doses)) < len(doses):
        raise ValueError(f"`doses` is {list(doses)}; it must hold different positive numbers of uM.")
    if n_genes <= n_families:
        raise ValueError(f"`n_genes` is {n_genes}, but the targets alone are {n_families} (`n_families`). Raise it.")
    if not 0 <= n_gene_targets <= n_families:
        raise ValueError(
            f"`n_gene_targets` is {n_gene_targets}; there are {n_families} targets (`n_families`). Lower it."
        )
    if not 0 <= responders <= 1:
        raise ValueError(f"`responders` must be a fraction from 0 to 1; it is {responders}.")
    rng = np.random.default_rng(seed)
    targets = [f"T{i + 1}" for i in range(n_families)]
    genes = [f"G{i + 1}" for i in range(n_genes - n_families)]
    network = Network.drawn(targets, [], genes, n_downstream=n_downstream, strength=strength, rng=rng)
    smiles, target_of = _families(targets, n_drugs, n_inert, rng)

    if base is None:
        base = kang()
        base = base[base.obs["perturbation"] == CONTROL]
    source, source_size, source_types = base_counts(base, n_genes)
    source = source[:, rng.permutation(n_genes)]  # else the targets would be the genes with most counts
    cell_types = _largest_types(source_types, n_cell_types)
    curves = _curves(smiles, target_of, cell_types, doses, rng)
    perturbations = _perturbations(smiles, target_of, targets[:n_gene_targets], doses, n_combos, rng)
    numbers = {Perturbation(): n_controls} | dict.fromkeys(perturbations, n_cells)
    plan = [(p, kind) for kind in cell_types for p, n in numbers.items() for _ in range(n)]
    kinds = np.array([kind for _, kind in plan])
    counts, library_size = _joined(source, source_size, source_types, kinds, rng)
    effects = {}
    for perturbation in perturbations:
        for kind in cell_types:
            inhibition = np.zeros(n_genes)
            for name, dose in zip(perturbation.targets, perturbation.doses, strict=True):
                if dose and target_of[name]:
                    inhibition[targets.index(target_of[name])] = curves[name, kind].inhibition(dose)
            none = np.zeros((1, n_genes))
            effects[perturbation, kind] = network.log_expression(none, perturbation.targets, inhibition)[0]

    def change(perturbation: Perturbation, cells: np.ndarray) -> np.ndarray:
        return np.stack([effects[perturbation, kind] for kind in kinds[cells]])

    conditions = [perturbation for perturbation, _ in plan]
    cells = Cells(counts, expected_counts(counts, kinds), change, lambda _: responders, rng)
    adata = cells.screen(
        conditions,
        Perturbation(),
        network.names,
        {
            "perturbation": [p.label(control=CONTROL) for p in conditions],
            "dose": [_dose(p) for p in conditions],
            "smiles": [SMILES_DELIMITER.join(smiles.get(name, "") for name in p.targets) for p in conditions],
            "cell_type": kinds,
        },
        library_size,
        {
            "drugs": pd.DataFrame(
                [
                    {"drug": name, "smiles": smiles[name], "cell_type": kind, "target": target_of[name], **vars(curve)}
                    for (name, kind), curve in curves.items()
                ]
            ),
            "effects": pd.DataFrame(
                np.stack(list(effects.values())),
                index=[str(Condition(p.label(), kind, p.dose_text())) for p, kind in effects],
                columns=network.names.astype(str),
            ),
            "edges": network.edges(),
            "parameters": {"seed": seed, "strength": strength, "n_downstream": n_downstream, "responders": responders},
        },
    )
    ScreenKeys(cell_type_key="cell_type", dose_key="dose", smiles_key="smiles").write(adata)
    if not return_counterfactuals:
        return adata
    truth = cells.counterfactuals(conditions, Perturbation())
    return adata, {(p.label(), _dose(p)): counts for p, counts in truth.items()}


@dataclass(frozen=True)
class _Curve:
    """The inhibited share of the target, against the dose in uM."""

    ec50: float
    slope: float
    efficacy: float

    def inhibition(self, dose: float) -> float:
        return self.efficacy / (1 + (self.ec50 / dose) ** self.slope)


def _families(
    targets: list[str], n_drugs: int, n_inert: int, rng: np.random.Generator
) -> tuple[dict[str, str], dict[str, str]]:
    """Draw families of similar drugs, one per target, and inert drugs: SMILES and target by name."""
    table = sciplex3_drugs()
    table["smiles"] = [canonical_smiles(text) for text in table["smiles"]]
    table = table.drop_duplicates("smiles", ignore_index=True)
    distance = 1 - tanimoto_similarity(table["smiles"].tolist()).astype(np.float64)
    np.fill_diagonal(distance, 0.0)
    tree = linkage(squareform(distance, checks=False), "average")
    clusters = pd.Series(fcluster(tree, LARGEST_DISTANCE, "distance"))
    members = {cluster: rows.index.to_numpy() for cluster, rows in clusters.groupby(clusters)}
    target_of: dict[str, str] = {}
    taken = []
    for place, target in enumerate(targets):
        size = n_drugs // len(targets) + (place < n_drugs % len(targets))
        large = [cluster for cluster, rows in members.items() if len(rows) >= size and cluster not in taken]
        if not large:
            raise ValueError(
                f"`n_drugs` is {n_drugs} in `n_families={len(targets)}`, but sci-Plex3 has only {place} families of {size} "
                "similar drugs. Lower `n_drugs` or raise `n_families`."
            )
        taken.append(rng.choice(large))
        rows = rng.choice(members[taken[-1]], size=size, replace=False)
        target_of |= dict.fromkeys(table["name"].iloc[rows], target)
    others = table["name"][~clusters.isin(taken)]
    if n_inert > len(others):
        raise ValueError(f"`n_inert` is {n_inert}, but only {len(others)} drugs of sci-Plex3 are left. Lower it.")
    target_of |= dict.fromkeys(rng.choice(others, size=n_inert, replace=False).tolist(), "")
    smiles = dict(zip(table["name"], table["smiles"], strict=True))
    return {name: smiles[name] for name in target_of}, target_of


def _largest_types(cell_types: np.ndarray, n_types: int) -> list[str]:
    """List the cell types with most cells."""
    names, count = np.unique(cell_types, return_counts=True)
    usable = names[np.argsort(-count, kind="stable")][:n_types].tolist()
    if len(usable) < n_types or np.sort(count)[-n_types] < 2:
        raise ValueError(
            f"`n_cell_types` is {n_types}, but `base` has {int((count >= 2).sum())} cell types with at least 2 cells. Lower it."
        )
    return usable


def _curves(
    smiles: dict[str, str],
    target_of: dict[str, str],
    cell_types: list[str],
    doses: Sequence[float],
    rng: np.random.Generator,
) -> dict[tuple[str, str], _Curve]:
    """Draw a dose-response per drug and cell type, within the range of the doses; similar within a family."""
    logarithm = np.log10(doses)
    middle, reach = logarithm.mean(), max(np.ptp(logarithm) / 4, 0.25)
    families = sorted(set(target_of.values()))
    centre = {family: middle + rng.uniform(-reach, reach) for family in families}
    active = [family for family in families if family]
    silent = {(str(rng.choice(active)), kind) for kind in cell_types[1:] if len(active) > 1}
    curves = {}
    for name in smiles:
        family = target_of[name]
        potency, slope, efficacy = rng.normal(0, 0.3), rng.uniform(1, 2), rng.uniform(0.7, 1)
        for kind in cell_types:
            ec50 = 10 ** (centre[family] + potency + rng.normal(0, 0.2))
            reached = efficacy * rng.uniform(0.8, 1) * (family != "" and (family, kind) not in silent)
            curves[name, kind] = _Curve(float(ec50), float(slope), float(reached))
    return curves


def _perturbations(
    smiles: dict[str, str],
    target_of: dict[str, str],
    knocked_out: list[str],
    doses: Sequence[float],
    n_combos: int,
    rng: np.random.Generator,
) -> list[Perturbation]:
    """List drugs at their doses, knock-outs, and pairs of both with different targets."""
    pairs = [(gene, drug) for gene in knocked_out for drug in smiles if target_of[drug] != gene]
    if not 0 <= n_combos <= len(pairs):
        raise ValueError(
            f"`n_combos` is {n_combos}; there are {len(pairs)} pairs of a knock-out (`n_gene_targets`) and a drug of "
            "another family. Lower `n_combos`, or raise `n_gene_targets`."
        )
    drawn = [pairs[place] for place in rng.choice(len(pairs), size=n_combos, replace=False)] if n_combos else []
    return [
        *(Perturbation((drug,), (float(dose),)) for drug in smiles for dose in doses),
        *(Perturbation((gene,)) for gene in knocked_out),
        *(Perturbation((gene, drug), (None, float(dose))) for gene, drug in drawn for dose in doses),
    ]


def _dose(perturbation: Perturbation) -> float:
    """Get the dose of the drug, 0 without a drug."""
    return max((dose for dose in perturbation.doses if dose is not None), default=0.0)


def _joined(
    source: sparse.csr_matrix,
    source_size: np.ndarray,
    source_types: np.ndarray,
    cell_types: np.ndarray,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Join random parts of two real cells from one type: counts `(n_cells, n_genes)`, library size `(n_cells,)`."""
    counts = np.zeros((len(cell_types), source.shape[1]), dtype=np.int64)
    library_size = np.zeros(len(cell_types))
    for cell_type in np.unique(cell_types):
        rows = np.flatnonzero(cell_types == cell_type)
        population = np.flatnonzero(source_types == cell_type)
        first = rng.integers(len(population), size=len(rows))
        second = (first + rng.integers(1, len(population), size=len(rows))) % len(population)  # another one
        share = rng.uniform(0.5, 1, size=len(rows))
        for chosen, part in ((population[first], share), (population[second], 1 - share)):
            own = source[chosen].toarray().astype(np.int64)
            other = (source_size[chosen] - own.sum(axis=1)).astype(np.int64)  # in the genes left out
            kept = rng.binomial(own, part[:, None])
            counts[rows] += kept
            library_size[rows] += kept.sum(axis=1) + rng.binomial(other, part)
    return counts, library_size
