"""Drug screens whose dose-response is known, down to what every control cell would have become."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from unlasting.datasets._counts import base_counts, changed_counts, expected_counts
from unlasting.datasets._network import Network
from unlasting.datasets._shipped import kang, sciplex3_drugs
from unlasting.screen import (
    SMILES_DELIMITER,
    UNS_KEY,
    Condition,
    Perturbation,
    ScreenKeys,
    canonical_smiles,
    require_integers,
    tanimoto_similarity,
)

CONTROL = "control"
LARGEST_DISTANCE = 0.8
"""Drugs of a family have an average Tanimoto similarity of 0.2, twice that of any two drugs of the table."""


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

    Drugs of sci-Plex3 with similar structures form families. Each family inhibits one target in a network of signed
    regulation, in which each three targets form a pathway: drugs of a family change the same genes, and so their
    structure tells what an unseen drug does. By how much the target is inhibited follows a Hill curve of the dose, with
    its own parameters for each drug and cell type; in each cell type but the first, one family has no effect. A part of
    the cells does not respond at all. Cells come from real control cells; what drugs do to them is invented, whatever the real
    drug of this name does. Needs RDKit.

    Parameters
    ----------
    n_drugs
        Number of drugs with an effect.
    n_families
        Number of structural families that they are divided into, as evenly as possible.
    n_inert
        Number of further drugs without an effect.
    doses
        Doses of each drug in uM.
    n_cells
        Number of cells of each perturbation at each dose in each cell type.
    n_controls
        Number of control cells of each cell type.
    n_cell_types
        Number of cell types: those with most cells in `base`.
    n_genes
        Number of measured genes. They are those of `base` with most counts, renamed: the targets are `T1` and so on.
    n_gene_targets
        How many of the targets are also knocked out as genes.
    n_combos
        Number of pairs of such a knock-out and a drug of another family.
    n_downstream
        Number of genes that each target acts on directly.
    strength
        Mean absolute weight of regulation: a gene changes by about `exp(strength)` when its target is fully inhibited.
    responders
        Fraction of the cells that respond.
    base
        Control cells with raw counts in `X`, and `obs["cell_type"]` if there are several types; by default the controls
        of :func:`unlasting.datasets.kang`. Each simulated cell, control or not, joins a random part of the counts of
        one of them with the rest of another of its type, so that there can be more cells than in `base`.
    seed
        The same seed gives the same screen.
    return_counterfactuals
        Return also what every control cell would have become under every perturbation.

    Returns
    -------
    The screen: raw counts in `X`; `obs["perturbation"]`, `obs["dose"]` (uM; 0 for controls and knock-outs),
    `obs["smiles"]`, `obs["cell_type"]`, `obs["responder"]` and `obs["library_size"]` (of the cell before the
    perturbation). These columns are recorded in `uns["unlasting"]["keys"]`, where later steps find them.
    `uns["simulation"]` holds `drugs` (one row per drug and cell type: `target`, which is empty without an effect, `ec50`
    in uM, `slope`, and `efficacy`, the largest inhibition), the `effects` (natural logarithm of the change of each gene
    in a responding cell, one row per condition, named as in `Trametinib at 1 uM in B`), the `edges` of the network (a
    prior for :func:`unlasting.pp.grn`) and the `parameters`.
    With `return_counterfactuals`, also a dictionary from perturbation and dose to counts, shape
    `(n_all_controls, n_genes)`, in the order of the control cells of the screen.

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
    _check(n_drugs, n_families, n_inert, doses, n_cells, n_controls, n_cell_types, n_genes, n_gene_targets, responders)
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
    rate = expected_counts(counts, kinds)
    # One draw per cell and gene decides all its fates: common random numbers.
    luck = rng.uniform(size=counts.shape)
    responds = rng.uniform(size=len(plan)) < responders

    def change(perturbation: Perturbation, cell_type: str) -> np.ndarray:
        """Compute the change of a responding cell, in natural logarithms, shape `(n_genes,)`."""
        inhibition = np.zeros(n_genes)
        for name, dose in zip(perturbation.targets, perturbation.doses, strict=True):
            if dose and target_of[name]:
                inhibition[targets.index(target_of[name])] = curves[name, cell_type].inhibition(dose)
        silenced = np.isin(network.names, perturbation.targets)
        return network.log_expression(np.zeros((1, n_genes)), silenced, inhibition)[0]

    changes = {(p, kind): change(p, kind) for p in perturbations for kind in cell_types}

    def perturbed(perturbation: Perturbation, cells: np.ndarray) -> np.ndarray:
        """Apply a perturbation to control cells, shape `(len(cells), n_genes)`."""
        each = np.stack([changes[perturbation, kind] for kind in kinds[cells]])
        each[~responds[cells]] = 0.0
        return changed_counts(counts[cells], rate[cells], each, luck[cells])

    rows: dict[Perturbation, list[int]] = {}
    for cell, (perturbation, _) in enumerate(plan):
        rows.setdefault(perturbation, []).append(cell)
    controls = np.array(rows[Perturbation()])
    matrix = counts.copy()
    for perturbation in perturbations:
        cells = np.array(rows[perturbation])
        matrix[cells] = perturbed(perturbation, cells)

    obs = pd.DataFrame(
        {
            "perturbation": [p.label(control=CONTROL) for p, _ in plan],
            "dose": [_dose(p) for p, _ in plan],
            "smiles": [SMILES_DELIMITER.join(smiles.get(name, "") for name in p.targets) for p, _ in plan],
            "cell_type": kinds,
            "responder": responds & ~np.isin(np.arange(len(plan)), controls),
            "library_size": library_size,
        },
        index=[f"cell{i}" for i in range(len(plan))],
    )
    adata = AnnData(
        sparse.csr_matrix(matrix, dtype=np.float32), obs=obs, var=pd.DataFrame(index=network.names.astype(str))
    )
    adata.uns[UNS_KEY] = {"dataset": "simulated"}
    ScreenKeys(cell_type_key="cell_type", dose_key="dose", smiles_key="smiles").write(adata)
    adata.uns["simulation"] = {
        "drugs": pd.DataFrame(
            [
                {"drug": name, "smiles": smiles[name], "cell_type": kind, "target": target_of[name], **vars(curve)}
                for (name, kind), curve in curves.items()
            ]
        ),
        "effects": pd.DataFrame(
            np.stack(list(changes.values())),
            index=[str(Condition(p.label(), kind, p.dose_text())) for p, kind in changes],
            columns=adata.var_names,
        ),
        "edges": network.edges(),
        "parameters": {"seed": seed, "strength": strength, "n_downstream": n_downstream, "responders": responders},
    }
    if not return_counterfactuals:
        return adata
    truth = {(p.label(), _dose(p)): sparse.csr_matrix(perturbed(p, controls), dtype=np.float32) for p in perturbations}
    return adata, truth


@dataclass(frozen=True)
class _Curve:
    """The part of its target that a drug inhibits, against the dose in uM."""

    ec50: float
    slope: float
    efficacy: float

    def inhibition(self, dose: float) -> float:
        return self.efficacy / (1 + (self.ec50 / dose) ** self.slope)


def _check(
    n_drugs: int,
    n_families: int,
    n_inert: int,
    doses: Sequence[float],
    n_cells: int,
    n_controls: int,
    n_types: int,
    n_genes: int,
    n_gene_targets: int,
    responders: float,
) -> None:
    """Refuse numbers that do not fit together."""
    require_integers(1, n_families=n_families, n_cells=n_cells, n_controls=n_controls, n_cell_types=n_types)
    require_integers(0, n_inert=n_inert)
    if n_drugs < n_families:
        raise ValueError(f"`n_drugs` is {n_drugs}, but each of the {n_families} families (`n_families`) needs a drug.")
    if len(doses) == 0 or not all(0 < dose < np.inf for dose in doses) or len(set(doses)) < len(doses):
        raise ValueError(f"`doses` is {list(doses)}; it must hold different positive numbers of uM.")
    if n_genes <= n_families:
        raise ValueError(f"`n_genes` is {n_genes}, but the targets alone are {n_families} (`n_families`). Raise it.")
    if not 0 <= n_gene_targets <= n_families:
        raise ValueError(f"`n_gene_targets` is {n_gene_targets}; there are {n_families} targets (`n_families`).")
    if not 0 <= responders <= 1:
        raise ValueError(f"`responders` must be a fraction from 0 to 1; it is {responders}.")


def _families(
    targets: list[str], n_drugs: int, n_inert: int, rng: np.random.Generator
) -> tuple[dict[str, str], dict[str, str]]:
    """Draw families of similar drugs, one for each target, and inert drugs: SMILES and target of each, by name."""
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
            f"`n_cell_types` is {n_types}, but `base` has {int((count >= 2).sum())} cell types with at least 2 cells."
        )
    return usable


def _curves(
    smiles: dict[str, str],
    target_of: dict[str, str],
    cell_types: list[str],
    doses: Sequence[float],
    rng: np.random.Generator,
) -> dict[tuple[str, str], _Curve]:
    """Draw a dose-response of each drug in each cell type, in the range of the doses; alike within a family."""
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
    """List drugs at their doses, knock-outs, and pairs of both, in which the two act on different targets."""
    pairs = [(gene, drug) for gene in knocked_out for drug in smiles if target_of[drug] != gene]
    if not 0 <= n_combos <= len(pairs):
        raise ValueError(
            f"`n_combos` is {n_combos}; there are {len(pairs)} pairs of a knock-out (`n_gene_targets`) and a drug of "
            "another family."
        )
    drawn = [pairs[place] for place in rng.choice(len(pairs), size=n_combos, replace=False)] if n_combos else []
    return [
        *(Perturbation((drug,), (float(dose),)) for drug in smiles for dose in doses),
        *(Perturbation((gene,)) for gene in knocked_out),
        *(Perturbation((gene, drug), (None, float(dose))) for gene, drug in drawn for dose in doses),
    ]


def _dose(perturbation: Perturbation) -> float:
    """Get the dose of the drug, 0 without one."""
    return max((dose for dose in perturbation.doses if dose is not None), default=0.0)


def _joined(
    source: sparse.csr_matrix,
    source_size: np.ndarray,
    source_types: np.ndarray,
    cell_types: np.ndarray,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Join a part of the counts of one real cell and the rest of another: counts `(n_cells, n_genes)`, library size."""
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
            other = (source_size[chosen] - own.sum(axis=1)).astype(np.int64)  # of genes that are left out
            kept = rng.binomial(own, part[:, None])
            counts[rows] += kept
            library_size[rows] += kept.sum(axis=1) + rng.binomial(other, part)
    return counts, library_size
