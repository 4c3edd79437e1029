"""Recorded keys: every public function uses them, refuses others, and erases none."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import mudata
import numpy as np
import pytest
from anndata import AnnData

import unlasting as ul

KEYS = {
    "perturbation_key": "treatment",
    "control": "DMSO",
    "cell_type_key": "line",
    "batch_key": "plate",
    "dose_key": "uM",
    "smiles_key": "structure",
    "split_key": "fold",
    "delimiter": "/",
}
"""No name is a default, so that a step without keys fails unless it reads the recorded ones."""

SIZES = {"width": 12, "gene_features": 4, "attention_features": 4, "n_steps": 2}
QUIET = {"show_progress": False}


@pytest.fixture(scope="module")
def raw() -> AnnData:
    """Raw counts, with all keys recorded by `pp.split`."""
    adata = ul.datasets.simulate_drug_screen(
        n_drugs=4,
        n_families=2,
        n_inert=0,
        doses=(0.1, 1.0, 10.0),
        n_cells=24,
        n_controls=60,
        n_gene_targets=1,
        n_combos=1,
    )
    del adata.uns["unlasting"]
    labels = adata.obs["perturbation"].astype(str).str.replace("+", "/")
    adata.obs = adata.obs.rename(columns={"dose": "uM", "smiles": "structure", "cell_type": "line"})
    adata.obs["treatment"] = labels.where(labels != "control", "DMSO").to_numpy()
    adata.obs["plate"] = np.resize(["p1", "p2"], adata.n_obs)
    del adata.obs["perturbation"]
    given = {key: value for key, value in KEYS.items() if key != "split_key"}
    ul.pp.split(adata, "random", key_added="fold", test_fraction=0.4, **given)
    return adata


@pytest.fixture(scope="module")
def prepared(raw) -> AnnData:
    adata = raw.copy()
    ul.pp.prepare(adata, min_cells=1)
    ul.pp.molecules(adata)
    ul.pp.grn(adata, prior=None)
    return adata


@pytest.fixture(scope="module")
def model(prepared):
    adata = prepared.copy()
    ul.UnlastingModel.setup_anndata(adata)
    model = ul.UnlastingModel(adata, **SIZES)
    model.train(max_steps=2, accelerator="cpu", seed=0, **QUIET)
    return model


@pytest.fixture(scope="module")
def predicted(model) -> AnnData:
    adata = model.adata.copy()
    model.predict(adata, **QUIET)
    return adata


def setup_mudata(adata: AnnData, **given: object) -> None:
    """Set up with all labels in the modality of the expression, and bring `uns` back."""
    mdata = mudata.MuData({"rna": adata.copy()})
    ul.UnlastingModel.setup_mudata(mdata, modalities={"layer": "rna"}, **given)
    adata.uns = mdata["rna"].uns


TAKE_KEYS: dict[str, tuple[str, Callable]] = {
    "pp.prepare": ("raw", ul.pp.prepare),
    "pp.molecules": ("prepared", ul.pp.molecules),
    "pp.grn": ("prepared", lambda adata, **given: ul.pp.grn(adata, prior=None, **given)),
    "UnlastingModel.setup_anndata": ("prepared", ul.UnlastingModel.setup_anndata),
    "UnlastingModel.setup_mudata": ("prepared", setup_mudata),
    "tl.evaluate": (
        "predicted",
        lambda adata, **given: ul.tl.evaluate(adata, baselines=(), min_cells=8, n_permutations=19, **given),
    ),
}
"""Each public function that takes keys, but for `pp.split`, which starts over: the screen that it is called on, and a call."""


def keys_taken(function: Callable) -> list[str]:
    """List the keys among the arguments."""
    return [name for name in inspect.signature(function).parameters if name in KEYS]


def public(name: str) -> Callable:
    function: object = ul
    for part in name.split("."):
        function = getattr(function, part)
    return function


def is_ours(name: str) -> bool:
    """Whether a public attribute of the model is this package's, and not one that scvi-tools adds."""
    return not name.startswith("_") and any(
        name in vars(cls) and cls.__module__.startswith("unlasting") for cls in ul.UnlastingModel.__mro__
    )


def test_the_list_is_complete() -> None:
    found = {f"{p}.{n}" for p in ("pp", "tl", "pl", "datasets") for n in getattr(ul, p).__all__}
    found |= {f"UnlastingModel.{name}" for name in dir(ul.UnlastingModel) if is_ours(name)}
    takes = {name for name in found if inspect.isroutine(public(name)) and keys_taken(public(name))}
    # `assign_guides` writes the labels and takes their grammar; `check` writes nothing and shows a screen under any keys
    assert takes - {"pp.split", "pp.assign_guides", "pp.check"} == set(TAKE_KEYS)


@pytest.mark.slow
def test_recorded_keys_are_used_others_refused_and_none_is_erased(request) -> None:
    for name, (screen, call) in TAKE_KEYS.items():
        start = request.getfixturevalue(screen)
        recorded = dict(start.uns["unlasting"]["keys"])
        assert recorded == KEYS
        taken = {key: KEYS[key] for key in keys_taken(public(name))}
        adata, spelt_out = start.copy(), start.copy()
        call(adata)
        call(spelt_out, **taken)
        assert adata.uns["unlasting"]["keys"] == spelt_out.uns["unlasting"]["keys"] == recorded, name
        for key, value in taken.items():
            other = start.copy()
            other.obs["other"] = other.obs[value] if value in other.obs else "other"
            before = list(other.uns["unlasting"])
            with pytest.raises(ValueError, match=f"`{key}` is 'other', but earlier steps used '{value}'.*start over"):
                call(other, **{key: "other"})
            assert other.uns["unlasting"]["keys"] == recorded, (name, key)
            assert list(other.uns["unlasting"]) == before


@pytest.mark.slow
def test_recorded_keys_decide_the_result(prepared, model, predicted) -> None:
    """Each key by its effect."""
    assert prepared.uns["unlasting"]["prepare"]["split_hash"] == prepared.uns["unlasting"]["split"]["hash"]
    assert prepared.uns["unlasting"]["grn"]["report"]["cell_type_key"] == "line"
    assert len(prepared.uns["unlasting"]["molecules"]["drugs"]) == 4
    registry = model.adata_manager.registry
    assert {key: registry["setup_args"][key] for key in KEYS} == KEYS
    assert model.summary_stats["n_populations"] == 4  # two cell types on two plates
    frame = ul.tl.evaluate(predicted.copy(), baselines=(), min_cells=8, n_permutations=19)
    assert set(frame["cell_type"]) == set(prepared.obs["line"])
    assert set(frame["dose"]) - {""}
    assert "DMSO" not in set(frame["condition"])
    assert any("/" in label for label in frame["condition"])


@pytest.mark.slow
def test_functions_without_key_arguments_use_recorded_keys(raw, model, predicted, tmp_path) -> None:
    conditions = [label for label in raw.obs["treatment"].unique() if label != "DMSO" and "/" not in label]
    adata = predicted.copy()
    kinds = set(raw.obs["line"])
    frame = ul.tl.dose_response(adata)
    conditions.remove("T1")
    assert set(frame["drug"]) == set(conditions)
    assert set(frame["cell_type"]) == kinds
    assert set(ul.tl.bimodality(adata, min_cells=2)["cell_type"]) == kinds
    assert set(ul.tl.embedding(adata)["cell_type"]) == kinds
    assert len(ul.tl.rank(adata, min_cells=2)) > 0
    scores = ul.tl.benchmark(adata, {"mean shift": ul.baselines.BASELINES["mean shift"]()}, splits="fold", min_cells=8)
    assert len(scores) > 0
    for kind in ("random", "unseen_cell_type", "unseen_pair", "unseen_dose", "unseen_drug", "unseen_perturbation"):
        again = raw.copy()
        ul.pp.split(again, kind, key_added="fold", min_cells=1, val_fraction=0)
        assert again.uns["unlasting"]["keys"] == KEYS
    new = model.generate(conditions[0], 4, cell_type=sorted(kinds)[0], dose=2.0, **QUIET)
    assert set(new.obs["treatment"]) == {conditions[0]}
    assert set(new.obs["line"]) == {sorted(kinds)[0]}
    later = raw[raw.obs["treatment"] == "DMSO"].copy()
    model.prepare(later)
    assert later.uns["unlasting"]["keys"] == KEYS
    assert adata.uns["unlasting"]["keys"] == KEYS
    model.save(tmp_path / "model")
    loaded = ul.UnlastingModel.load(tmp_path / "model", adata=model.adata.copy())
    assert loaded.adata.uns["unlasting"]["keys"] == KEYS


def test_split_starts_over_and_keeps_the_keys_that_it_is_not_given(raw) -> None:
    adata = raw.copy()
    adata.obs["other"] = adata.obs["line"]
    ul.pp.split(adata, "random", cell_type_key="other")
    assert adata.uns["unlasting"]["keys"] == {**KEYS, "cell_type_key": "other", "split_key": "unlasting_split"}


def test_a_key_that_was_not_recorded_is_added() -> None:
    adata = ul.datasets.simulate_screen(n_cells=20, n_controls=60, n_genes=20, n_cell_types=2)
    ul.pp.split(adata, "random")
    ul.pp.prepare(adata)
    assert "cell_type_key" not in adata.uns["unlasting"]["keys"]
    ul.pp.grn(adata, prior=None, cell_type_key="cell_type")
    assert adata.uns["unlasting"]["keys"]["cell_type_key"] == "cell_type"


def test_unseen_cell_types_have_control_populations_of_their_own() -> None:
    """The promise of README: cell types are named once, to `pp.split`."""
    adata = ul.datasets.simulate_screen(n_cells=20, n_controls=60, n_genes=20, n_cell_types=2)
    ul.pp.split(adata, "unseen_cell_type", cell_type_key="cell_type", val_fraction=0)
    ul.pp.prepare(adata)
    ul.pp.grn(adata, prior=None)
    ul.UnlastingModel.setup_anndata(adata)
    model = ul.UnlastingModel(adata, **SIZES)
    assert model.summary_stats["n_populations"] == 2
    assert model.keys.cell_type_key == "cell_type"


def test_without_record_or_argument_the_defaults_hold() -> None:
    adata = ul.datasets.simulate_screen(n_cells=20, n_controls=60, n_genes=20)
    ul.pp.prepare(adata)
    ul.UnlastingModel.setup_anndata(adata)
    expected = {"perturbation_key": "perturbation", "control": "control", "delimiter": "+"}
    assert adata.uns["unlasting"]["keys"] == expected
    adata.obs["mine"] = "train"
    ul.UnlastingModel.setup_anndata(adata, split_key="mine")  # there was no split yet
    assert adata.uns["unlasting"]["keys"] == {**expected, "split_key": "mine"}
