"""The published experiments, end to end on stand-ins of the same shape."""

from __future__ import annotations

import json
from importlib.resources import files

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from typer.testing import CliRunner

from unlasting import _reproduce, datasets
from unlasting._reproduce import EXPERIMENTS, printed_tables, reproduce
from unlasting.cli import app
from unlasting.module import LAPTOP, NetworkTraining
from unlasting.screen import ScreenKeys

TINY = {
    "width": 16,
    "gene_features": 4,
    "attention_features": 4,
    "time_frequencies": 8,
    "n_steps": 4,
    "train_denoiser": NetworkTraining(4, 16, 1e-3, 0.0, 0.9),
    "train_mask": NetworkTraining(4, 16, 1e-3, 0.0, 0.9),
}
QUICK = {
    "short": True,
    "accelerator": "cpu",
    "options": TINY,
    "evaluation": {"n_repeats": 1, "min_cells": 10, "n_permutations": 19},
}
PRINTED = """\
1 Adamson: Unlasting 1.4442 0.0636 1.1880 0.2531 1.2443 0.2368
1 Adamson: GRAPE 3.7594 0.1817 1.7053 0.5187 1.9226 0.5035
1 Adamson: GEARS 3.8018 0.1919 1.5752 0.4495 1.7755 0.4672
1 Adamson: GraphVCI 4.3182 0.6026 2.4499 1.2457 2.6327 1.0801
1 Adamson: scGPT 3.1368 0.1724 1.2571 0.3895 1.4484 0.3781
1 sci-Plex3: Unlasting 0.7034 0.0255 0.2898 0.0731 0.3216 0.0624
1 sci-Plex3: chemCPA 0.7847 0.0838 0.4717 0.1836 0.5008 0.1784
1 sci-Plex3: CPA 0.9894 0.1357 0.9737 0.3761 1.0794 0.3856
1 sci-Plex3: GraphVCI 0.8393 0.0986 0.4958 0.2016 0.5174 0.1861
2 Double Gene Perturbation: Unlasting 1.2040 0.0245 1.0528 0.2688 1.1196 0.2281
2 Double Gene Perturbation: GRAPE 3.1600 0.2746 1.9064 0.6092 2.0677 0.5192
2 Double Gene Perturbation: GEARS 3.2018 0.3732 1.9177 0.5894 1.9436 0.4871
2 OOD drug Perturbation: Unlasting 0.7371 0.0355 0.4744 0.1405 0.4839 0.1171
2 OOD drug Perturbation: chemCPA 0.8861 0.0959 0.7377 0.3435 0.7710 0.3004
2 OOD drug Perturbation: GraphVCI 0.8468 0.0986 0.7123 0.3163 0.8469 0.2776
"""
"""Tables 1 and 2, copied from the publication by hand."""


def genes() -> AnnData:
    """Knock-outs and pairs; the first target is called like the one in Fig. 5."""
    adata = datasets.simulate_screen(n_cells=40, n_controls=120, n_genes=60, n_unmeasured=0, n_combos=4)
    names = {"T1": "CREB1"}
    adata.var_names = [names.get(name, name) for name in adata.var_names]
    labels = adata.obs["perturbation"].astype(str)
    adata.obs["perturbation"] = ["+".join(names.get(name, name) for name in label.split("+")) for label in labels]
    return adata


def drugs() -> AnnData:
    """Drugs at four doses in two cell types; some are in the published list."""
    return datasets.simulate_drug_screen(n_cells=15, n_controls=80, n_genes=60, seed=0)


@pytest.fixture(scope="module")
def stand_ins() -> dict[str, AnnData]:
    return {"adamson": genes(), "norman": genes(), "sciplex3": drugs()}


def test_the_printed_numbers_are_those_of_the_publication():
    with (files("unlasting") / "_paper_tables.tsv").open() as file:
        assert len(file.readlines()) == 16
    tables = printed_tables()
    written = [
        f"{row['table']} {row['data']}: {row['tool']} " + " ".join(f"{row[c]:.4f}" for c in _reproduce.COLUMNS)
        for row in tables.to_dict("records")
    ]
    assert written == PRINTED.splitlines()
    assert {e.printed for e in EXPERIMENTS.values()} - {""} == set(tables["data"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adamson", "norman", "sciplex3", "ood-drugs"])
@pytest.mark.parametrize("preset", ["paper", "default"])
def test_an_experiment_prints_our_numbers_beside_the_printed_ones(stand_ins, name, preset):
    experiment = EXPERIMENTS[name]
    options = TINY if preset == "paper" else {**TINY, "n_steps": 2}
    data = stand_ins[experiment.dataset]
    before = data.copy()
    scores = reproduce(name, data, preset=preset, **{**QUICK, "options": options})["scores"]
    ours = scores[scores["source"] == "here"].set_index("tool")
    assert set(ours.index) == {f"unlasting, {preset}", "no effect", "noise floor"}
    assert np.isfinite(ours[_reproduce.COLUMNS].to_numpy()).all()
    assert (ours.loc["noise floor"].drop("source") < ours.loc["no effect"].drop("source")).any()
    printed = scores[scores["source"] == "printed"]
    expected = printed_tables().query("data == @experiment.printed")
    np.testing.assert_array_equal(printed[_reproduce.COLUMNS], expected[_reproduce.COLUMNS])
    pd.testing.assert_frame_equal(data.obs, before.obs)


@pytest.mark.slow
def test_the_splits_are_the_published_ones(stand_ins):
    seen = {}
    for name, experiment in EXPERIMENTS.items():
        adata = _reproduce._prepared(stand_ins[experiment.dataset].copy(), experiment, "paper", seed=0)
        part, keys = adata.obs["unlasting_split"], ScreenKeys.read(adata)
        labels = keys.labels(adata)
        assert (part[labels == "control"] == "train").all()
        seen[name] = {label: set(part[labels == label]) for label in set(labels) - {"control"}}
        assert adata.n_vars <= experiment.n_top_genes
    held_out = [label for label, parts in seen["adamson"].items() if parts == {"test"}]
    assert len(held_out) == round(0.3 * len(seen["adamson"]))
    assert all(parts == ({"test"} if "+" in label else {"train"}) for label, parts in seen["norman"].items())
    assert seen["fig5"]["CREB1"] == {"test"}
    assert {"test"} in seen["sciplex3"].values()
    assert {"train", "test"} in seen["sciplex3"].values()
    table = datasets.sciplex3_drugs().set_index("name")["ood"]
    assert all((parts == {"test"}) == table[label] for label, parts in seen["ood-drugs"].items())


@pytest.mark.slow
def test_fig_5_shows_the_modes_of_creb1(stand_ins):
    frame = reproduce("fig5", stand_ins["adamson"], **QUICK)["genes"]
    assert set(frame["condition"]) == {"CREB1"}
    assert {"bimodal_control", "bimodal_observed", "bimodal_generated", "recovered"} <= set(frame)
    assert len(frame) == 20


def test_the_trainings_of_fig_6_share_the_steps_of_the_laptop_recipe():
    shared, single = _reproduce._laptop("fig6"), _reproduce._laptop("adamson")
    assert single == LAPTOP
    for name in ("train_denoiser", "train_mask"):
        assert 0.9 * single[name].max_steps < 6 * shared[name].max_steps <= single[name].max_steps


@pytest.mark.slow
def test_fig_6_has_the_four_ablations_and_both_pairings(stand_ins):
    tables = reproduce("fig6", stand_ins["sciplex3"], **QUICK)
    assert {"full", "no GRN", "no control moments", "no encoded latent", "no mask network"} <= set(
        tables["ablations"]["tool"]
    )
    pairing = tables["pairing"].set_index("pairing")["distance"]
    assert pairing["implicit"] < pairing["random"]


@pytest.mark.slow
def test_the_command_prints_both(stand_ins, tmp_path, monkeypatch):
    monkeypatch.setattr(_reproduce, "LAPTOP", TINY)
    stand_ins["norman"].write_h5ad(tmp_path / "norman.h5ad")
    arguments = ["reproduce", "norman", "--data", str(tmp_path / "norman.h5ad"), "--short", "--accelerator", "cpu"]
    text = CliRunner().invoke(app, arguments)
    assert text.exit_code == 0, text.output
    assert "GEARS" in text.stdout
    assert "1.2040" in text.stdout
    found = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert {row["source"] for row in found["scores"]} == {"here", "printed"}


def test_without_a_connection_the_address_and_the_other_way_are_named(monkeypatch):
    def fail():
        raise ConnectionError("https://zenodo.org/x.h5ad cannot be downloaded.")

    monkeypatch.setitem(datasets.DATASETS, "norman", fail)
    done = CliRunner().invoke(app, ["reproduce", "norman"])
    assert done.exit_code == 1
    assert "https://zenodo.org/x.h5ad" in done.stderr
    assert "unlasting reproduce norman --data FILE" in " ".join(done.stderr.split())


def test_an_unknown_experiment_is_refused_with_a_hint():
    with pytest.raises(ValueError, match=r"`experiment` is 'norma'; choose one of.*Did you mean 'norman'"):
        reproduce("norma")
