"""Simulated drug screens: the known curves decide what changes, structure tells the target, and inert drugs are controls."""

from __future__ import annotations

import anndata
import numpy as np
import pytest
from rdkit import Chem, DataStructs
from rdkit.Chem import rdFingerprintGenerator
from scipy import stats

from unlasting import datasets, pp, tl
from unlasting.screen import ScreenKeys

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def simulated():
    return datasets.simulate_drug_screen(
        n_drugs=9, n_families=3, n_gene_targets=2, n_combos=2, n_cells=60, seed=2, return_counterfactuals=True
    )


def controls(adata):
    return adata[adata.obs["perturbation"] == "control"]


def test_the_screen_has_the_requested_conditions(simulated) -> None:
    adata, truth = simulated
    drugs = adata.uns["simulation"]["drugs"]
    assert drugs["drug"].nunique() == 9 + 1
    assert set(drugs["target"]) == {"T1", "T2", "T3", ""}
    labels = set(adata.obs["perturbation"]) - {"control"}
    assert len(labels) == 10 + 2 + 2
    doses = adata.obs.groupby("perturbation", observed=True)["dose"].agg(set)
    for label in labels:
        assert doses[label] == ({0.0} if label in ("T1", "T2") else {0.01, 0.1, 1.0, 10.0})
    sizes = adata.obs.groupby(["perturbation", "dose", "cell_type"], observed=True).size()
    assert set(sizes["control"]) == {200}
    assert set(sizes.drop("control")) == {60}
    assert truth.keys() == set(zip(adata.obs["perturbation"], adata.obs["dose"], strict=True)) - {("control", 0.0)}
    assert all(matrix.shape == (400, 100) for matrix in truth.values())
    assert (adata.X.data == np.rint(adata.X.data)).all()


def test_labels_doses_and_molecules_are_read_as_they_are_written(simulated) -> None:
    adata = simulated[0].copy()
    pp.molecules(adata)
    stored = adata.uns["unlasting"]["molecules"]
    drugs = adata.uns["simulation"]["drugs"].drop_duplicates("drug").set_index("drug")["smiles"]
    assert dict(zip(stored["drugs"], stored["drug_smiles"], strict=True)) == drugs.to_dict()
    keys = ScreenKeys.read(adata)
    combos = adata.obs["perturbation"].str.contains("+", regex=False).to_numpy()
    assert set(keys.labels(adata)[combos]) == set(adata.obs["perturbation"][combos])
    written = {
        f"{label} at {dose} uM in {kind}" if dose else f"{label} in {kind}"
        for label, dose, kind in zip(keys.labels(adata), keys.doses(adata), keys.cell_types(adata), strict=True)
        if label != "control"
    }
    assert written == set(adata.uns["simulation"]["effects"].index)


def test_drugs_in_a_family_are_similar_and_share_a_target(simulated) -> None:
    drugs = simulated[0].uns["simulation"]["drugs"].drop_duplicates("drug")
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)
    prints = [generator.GetFingerprint(Chem.MolFromSmiles(text)) for text in drugs["smiles"]]
    similarity = np.array([DataStructs.BulkTanimotoSimilarity(each, prints) for each in prints])
    family = drugs["target"].to_numpy()
    active = family != ""
    same = (family[:, None] == family) & active[:, None]
    np.fill_diagonal(similarity, 0)
    np.fill_diagonal(same, False)
    nearest = similarity.argmax(axis=1)
    assert (family[nearest] == family)[active].mean() > 0.7
    assert similarity[same].mean() > 1.5 * similarity[~same].mean()


def test_the_effect_is_the_curve_of_the_target(simulated) -> None:
    adata, _ = simulated
    drugs, effects, edges = (adata.uns["simulation"][key] for key in ("drugs", "effects", "edges"))
    for row in drugs[drugs["target"] == "T3"].itertuples():  # the end of a chain: what it regulates directly is all
        direct = edges[edges["source"] == "T3"].set_index("target")["weight"]
        for dose in (0.01, 0.1, 1.0, 10.0):
            inhibition = row.efficacy * dose**row.slope / (dose**row.slope + row.ec50**row.slope)
            found = effects.loc[f"{row.drug} at {dose:g} uM in {row.cell_type}"]
            np.testing.assert_allclose(found[direct.index], -inhibition * direct)
            assert (found.drop(direct.index) == 0).all()


def test_a_knock_out_silences_its_target(simulated) -> None:
    effects = simulated[0].uns["simulation"]["effects"]
    assert (effects.filter(like="T1 in", axis=0)["T1"] == -np.inf).all()


def test_a_higher_dose_never_does_less(simulated) -> None:
    adata, truth = simulated
    drugs = adata.uns["simulation"]["drugs"]
    before = controls(adata).X.toarray()
    name = drugs.loc[drugs["target"] == "T3", "drug"].iloc[0]
    steps = [before, *(truth[name, dose].toarray() for dose in (0.01, 0.1, 1.0, 10.0))]
    direction = np.sign(
        adata.uns["simulation"]["effects"].loc[[f"{name} at 10 uM in {adata.obs['cell_type'].iloc[0]}"]]
    )
    for lower, higher in zip(steps, steps[1:], strict=False):
        assert ((higher - lower) * direction.to_numpy() >= 0).all()
    assert (steps[-1] != before).any()


def test_cells_without_an_effect_are_controls(simulated) -> None:
    adata, truth = simulated
    drugs = adata.uns["simulation"]["drugs"]
    inert = drugs.loc[drugs["target"] == "", "drug"].iloc[0]
    assert (truth[inert, 10.0] != controls(adata).X).nnz == 0
    for kind in adata.obs["cell_type"].unique():
        own = adata[adata.obs["cell_type"] == kind]
        first, second = (own[own.obs["perturbation"] == label].X.toarray() for label in ("control", inert))
        p_values = stats.ks_2samp(first, second).pvalue
        assert np.mean(p_values < 0.01) < 0.05
    silent = drugs[(drugs["efficacy"] == 0) & (drugs["target"] != "")]
    assert silent["cell_type"].nunique() == 1  # each cell type but the first lacks one family
    assert silent["target"].nunique() == 1


def test_perturbed_cells_and_counterfactuals_have_one_distribution(simulated) -> None:
    adata, truth = simulated
    control_types = controls(adata).obs["cell_type"].to_numpy()
    p_values = []
    for label, dose in [key for key in truth if key[1] in (0.0, 10.0)]:
        cells = adata[(adata.obs["perturbation"] == label) & (adata.obs["dose"] == dose)]
        for kind in np.unique(control_types):
            observed = cells[cells.obs["cell_type"] == kind].X.toarray()
            p_values.append(stats.ks_2samp(observed, truth[label, dose].toarray()[control_types == kind]).pvalue)
    assert np.mean(np.concatenate(p_values) < 0.01) < 0.03


def test_responders_and_others(simulated) -> None:
    adata, _ = simulated
    assert not controls(adata).obs["responder"].any()
    treated = adata[adata.obs["perturbation"] != "control"]
    assert treated.obs["responder"].mean() == pytest.approx(0.8, abs=0.03)
    silenced = adata[adata.obs["perturbation"] == "T1"]
    own = silenced[:, "T1"].X.toarray().ravel()
    assert (own[silenced.obs["responder"]] == 0).all()


def test_cells_are_like_the_real_ones() -> None:
    base = datasets.kang()
    base = base[base.obs["perturbation"] == "control"]
    adata = datasets.simulate_drug_screen(n_drugs=2, n_families=2, n_cells=1, n_controls=300, n_genes=200, base=base)
    assert adata.obs["cell_type"].value_counts().index.tolist() == ["CD14 Mono", "CD4 Naive T"]
    real = np.sort(np.asarray(base.X.sum(axis=0)).ravel())[-200:]
    for kind in ("CD14 Mono", "CD4 Naive T"):
        own = base[base.obs["cell_type"] == kind].X.toarray()
        most = np.argsort(-np.asarray(base.X.sum(axis=0)).ravel(), kind="stable")[:200]
        found = controls(adata[adata.obs["cell_type"] == kind]).X.toarray()
        np.testing.assert_allclose(
            np.sort(found.mean(axis=0)), np.sort(own[:, most].mean(axis=0)), rtol=0.25, atol=0.15
        )
        assert np.mean(found == 0) == pytest.approx(np.mean(own[:, most] == 0), abs=0.05)
        depth = adata.obs.loc[adata.obs["cell_type"] == kind, "library_size"]
        assert depth.mean() == pytest.approx(own.sum(axis=1).mean(), rel=0.1)
    assert real.min() > 0
    assert len({tuple(row) for row in adata.X.toarray()}) == adata.n_obs  # no cell twice


def test_the_same_seed_gives_the_same_screen() -> None:
    arguments = {"n_drugs": 2, "n_families": 2, "n_cells": 5, "n_controls": 20}
    first, second, other = (datasets.simulate_drug_screen(**arguments, seed=seed) for seed in (3, 3, 4))
    assert (first.X != second.X).nnz == 0
    assert first.obs.equals(second.obs)
    assert set(first.obs["perturbation"]) != set(other.obs["perturbation"])


def test_the_whole_way_of_preparation_works_and_survives_a_file(tmp_path, simulated) -> None:
    adata = simulated[0].copy()
    pp.split(adata, "unseen_dose", min_cells=1)
    pp.prepare(adata, library_size_key="library_size")
    pp.molecules(adata)
    pp.grn(adata, prior=adata.uns["simulation"]["edges"])
    adata.write_h5ad(tmp_path / "screen.h5ad")
    again = anndata.read_h5ad(tmp_path / "screen.h5ad")
    assert again.uns["simulation"]["effects"].equals(adata.uns["simulation"]["effects"])
    assert ScreenKeys.read(again) == ScreenKeys.read(adata)
    name = adata.uns["simulation"]["drugs"]["drug"].iloc[0]
    frame = tl.dose_response(again, predictions=again, drugs=[name])
    assert set(frame["dose"]) == {0.0, 0.01, 0.1, 1.0, 10.0}


def test_numbers_that_do_not_fit_are_named() -> None:
    for arguments, message in [
        ({"n_cells": 0}, "`n_cells` is 0"),
        ({"n_drugs": 3}, "each of the 4 families"),
        ({"n_drugs": 100}, "has only 0 families of 25"),
        ({"n_inert": -1}, "`n_inert` is -1"),
        ({"n_inert": 500}, "drugs of sci-Plex3 are left"),
        ({"doses": [0.0, 1.0]}, "must hold different positive numbers"),
        ({"doses": [1.0, 1.0]}, "must hold different positive numbers"),
        ({"n_genes": 4}, "the targets alone are 4"),
        ({"n_gene_targets": 5}, "there are 4 targets"),
        ({"n_combos": 1}, "there are 0 pairs"),
        ({"responders": 2}, "must be a fraction"),
        ({"n_cell_types": 20}, "`base` has 13 cell types"),
        ({"n_genes": 20000}, "`base` has 14053 genes"),
    ]:
        with pytest.raises(ValueError, match=message):
            datasets.simulate_drug_screen(**arguments)
