"""Screens in the layouts of scPerturb, pertpy and cell-eval are ready for `pp.split` after one call."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import unlasting as ul


def screen(**obs: object) -> AnnData:
    n = len(next(iter(obs.values())))
    counts = np.random.default_rng(0).poisson(3.0, (n, 12)).astype(np.float32)
    return AnnData(counts, obs=pd.DataFrame(obs, index=[f"c{i}" for i in range(n)]))


@pytest.mark.parametrize("form", ["object", "file"])
def test_a_screen_of_scperturb(form: str, tmp_path: Path) -> None:
    adata = screen(
        perturbation=np.repeat(["control", "TP53", "MYC_KLF1", "A_B", "nan"], 30),
        nperts=np.repeat([0, 1, 2, 1, 0], 30),
        celltype=["lymphoblasts"] * 150,
        cell_line=["K562"] * 150,
    )
    before = adata.copy()
    if form == "file":
        adata.write_h5ad(tmp_path / "s.h5ad")
    found = ul.io.read_screen(adata if form == "object" else tmp_path / "s.h5ad", "scperturb")
    # only what has two perturbations is a combination
    assert set(found.obs["perturbation"]) == {"control", "TP53", "MYC+KLF1", "A_B"}
    assert found.n_obs == 120
    assert "cell_type" not in found.obs
    if form == "object":
        pd.testing.assert_frame_equal(adata.obs, before.obs)
    ul.pp.split(found, "unseen_perturbation")
    ul.pp.prepare(found, n_top_genes=12)
    assert (found.obs["unlasting_split"] == "test").any()


def test_drugs_of_scperturb() -> None:
    adata = screen(
        perturbation=pd.Categorical(np.repeat(["control", "Nutlin", "SAHA"], 40)),
        dose_value=np.r_[np.full(40, np.nan), np.tile([10.0, 500.0], 40)],
        dose_unit=np.r_[np.full(40, None), np.repeat(["nM", "µM"], 40)],
        cell_line=np.tile(["A549", "MCF7", "K562", "K562"], 30),
    )
    found = ul.io.read_screen(adata, "scperturb")
    doses = found.obs.groupby("perturbation", observed=True)["dose"].unique()
    assert sorted(doses["Nutlin"]) == [0.01, 0.5]
    assert sorted(doses["SAHA"]) == [10.0, 500.0]
    keys = found.uns["unlasting"]["keys"]
    assert (keys["cell_type_key"], keys["dose_key"], keys["perturbation_key"]) == ("cell_type", "dose", "perturbation")
    assert set(found.obs["cell_type"]) == {"A549", "MCF7", "K562"}


@pytest.mark.parametrize(
    ("obs", "expected"),
    [
        ({"gene_target": ["NT", "STAT1"], "perturbation": ["NT", "Perturbed"]}, {"control", "STAT1"}),
        ({"perturbation_name": ["control", "A+B"]}, {"control", "A+B"}),
        ({"label": ["ctrl", "stim"], "cell_type": ["T", "B"]}, {"control", "stim"}),
    ],
)
def test_screens_of_pertpy(obs: dict[str, list[str]], expected: set[str]) -> None:
    found = ul.io.read_screen(screen(**{key: values * 20 for key, values in obs.items()}), "pertpy")
    assert set(found.obs["perturbation"]) == expected
    assert ("cell_type_key" in found.uns["unlasting"]["keys"]) == ("cell_type" in obs)


def test_the_observed_part_of_a_pair() -> None:
    for key in ("target", "target_gene", "perturbation"):
        found = ul.io.read_screen(screen(**{key: ["non-targeting", "A", "B"] * 20}), "cell-eval")
        assert set(found.obs["perturbation"]) == {"control", "A", "B"}
        assert "cell_type" not in found.obs


def test_what_is_no_such_layout_gets_the_way_out() -> None:
    with pytest.raises(KeyError, match="no layout 'scpertub'. Did you mean 'scperturb'"):
        ul.io.read_screen(screen(perturbation=["control"]), "scpertub")
    with pytest.raises(KeyError, match="Rename the column with the perturbation"):
        ul.io.read_screen(screen(guide=["a"]), "scperturb")
    with pytest.raises(ValueError, match="Rename the control to 'control'"):
        ul.io.read_screen(screen(perturbation=["unperturbed", "A"]), "scperturb")
    wrong = screen(perturbation=["control", "A"], dose_value=[0.0, 1.0], dose_unit=["nM", "mg/l"])
    with pytest.raises(ValueError, match="'mg/l'. Convert doses"):
        ul.io.read_screen(wrong, "scperturb")
