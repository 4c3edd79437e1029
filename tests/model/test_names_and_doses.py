"""The model is the same under any name of a gene and any unit of a dose."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

import unlasting as ul

GENES = ["KMT2D", "STAT1", "IRF1", "JAK2", "MYC", "SPI1", "CD86", "ATF4", "ACTB", "GAPDH", "B2M", "CD74", "GBP1", "MX1"]
QUIET = {"show_progress": False}
TINY = {"width": 16, "n_steps": 3}


def gene_screen(gene: str, label: str) -> AnnData:
    """Write KMT2D as `gene` in the panel and as `label` in the labels."""
    names = np.repeat(["control", "KMT2D", "STAT1", "JAK2", "MYC"], 60)
    rng = np.random.default_rng(0)
    rate = np.full((len(names), len(GENES)), 6.0)
    for i, name in enumerate(GENES):
        rate[names == name] *= np.random.default_rng(i).choice([0.3, 1.0, 2.5], len(GENES))
    obs = pd.DataFrame(
        {"perturbation": np.where(names == "KMT2D", label, names)}, index=[f"c{i}" for i in range(len(names))]
    )
    var = pd.DataFrame(index=[gene if name == "KMT2D" else name for name in GENES])
    return AnnData(sparse.csr_matrix(rng.poisson(rate).astype(np.float32)), obs=obs, var=var)


def trained(adata: AnnData, **keys) -> ul.UnlastingModel:
    ul.pp.split(adata, "random", **keys)
    ul.pp.prepare(adata, min_cells=1)
    if "smiles_key" in keys:
        ul.pp.molecules(adata)
    ul.pp.grn(adata, prior="go")
    ul.UnlastingModel.setup_anndata(adata)
    model = ul.UnlastingModel(adata, **TINY)
    model.train(max_steps=0, accelerator="cpu", seed=0, **QUIET)
    return model


@pytest.mark.slow
@pytest.mark.parametrize(("gene", "label"), [("KMT2D", "MLL2"), ("MLL2", "KMT2D"), ("MLL2", "MLL2")])
def test_a_gene_has_the_same_effects_under_any_of_its_names(gene, label):
    known, other = trained(gene_screen("KMT2D", "KMT2D")), trained(gene_screen(gene, label))
    assert label in other.targets["gene"]
    for name in ("KMT2D", "MLL2", "STAT1", "KMT2E"):  # KMT2E was not trained
        expected, found = (model.generate(name, 30, seed=0, **QUIET).X.toarray() for model in (known, other))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    names, panel = ["KMT2D", "MLL2"], list(other.get_var_names())
    assert other.vocabulary.measured_targets(ul.screen.Perturbation((names[0],)), len(panel)) == [panel.index(gene)]
    assert {other.vocabulary.target(name) for name in names} == {(0, gene)}


@pytest.mark.slow
def test_one_gene_under_two_names_is_refused_in_a_combination():
    model = trained(gene_screen("KMT2D", "MLL2"))
    with pytest.raises(ValueError, match="'KMT2D' and 'MLL2' are one gene, 'KMT2D'.*Name it once"):
        model.generate("KMT2D+MLL2", 5, **QUIET)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("unit", "write"),
    [
        ("nM", lambda uM: 1_000 * uM),
        ("log10 M", lambda uM: np.log10(np.where(uM > 0, uM, np.nan) * 1e-6)),
        ("uM", "{:g} uM".format),
    ],
)
def test_a_dose_is_the_same_in_any_unit(unit, write):
    screens = [
        ul.datasets.simulate_drug_screen(n_drugs=4, n_families=2, n_cells=20, n_gene_targets=0, n_combos=0, seed=1)
        for _ in "ab"
    ]
    for adata in screens:
        del adata.uns["unlasting"]
    uM = screens[0].obs["dose"].astype(float)
    screens[1].obs["dose"] = [write(dose) for dose in uM]
    keys = {"dose_key": "dose", "smiles_key": "smiles"}
    plain, other = trained(screens[0], **keys), trained(screens[1], **keys, dose_unit=unit)
    drug = plain.targets["drug"][0]
    for dose, same in ((0.5, "500 nM"), (10.0, 10.0)):
        expected, found = (
            plain.generate(drug, 30, dose=dose, seed=0, **QUIET),
            other.generate(drug, 30, dose=same, seed=0, **QUIET),
        )
        np.testing.assert_allclose(found.X.toarray(), expected.X.toarray(), rtol=1e-5, atol=1e-6)
        column = found.obs["dose"].iloc[0]
        assert float(column) == pytest.approx(write(np.array(dose)) if unit != "uM" else dose, rel=1e-6)
