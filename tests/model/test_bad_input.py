"""Every refusal names the argument, the value and the fix, and leaves the user's objects and files unchanged.

The first table lists faults of a screen, and the calls that have to find each.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from typer.testing import CliRunner

from unlasting import datasets, pp, tl
from unlasting.cli import app
from unlasting.model import UnlastingModel
from unlasting.screen import Perturbation, split_hash

QUIET = {"show_progress": False}

WHOLE = "a whole number of at least"


@pytest.fixture
def small(screen):
    return screen(n_cells=120)


# -- a screen with one fault, and all calls that take one


def value(number: float, row: int = 3) -> Callable:
    def change(adata):
        values = adata.X.toarray()
        values[row, 2] = number
        adata.X = sparse.csr_matrix(values)

    return change


def labels(old: str, new: str | float, n: int = 10_000) -> Callable:
    """Give some cells of a perturbation another label."""

    def change(adata):
        column = adata.obs["perturbation"].astype(object)
        column.iloc[np.flatnonzero(column == old)[:n]] = new
        adata.obs["perturbation"] = column

    return change


def column(name: str, old: str, new: str) -> Callable:
    def change(adata):
        adata.obs[name] = pd.Categorical(adata.obs[name].astype(str).replace({old: new}))

    return change


def new_cell_type(adata):
    types = adata.obs["cell_type"].astype(str).to_numpy()
    types[np.flatnonzero(adata.obs["perturbation"] == "T1")] = "NK"
    adata.obs["cell_type"] = types


def no_column(adata):
    del adata.obs["perturbation"]


def counts_for_logs(adata):
    adata.X = adata.layers["counts"].copy()


def logs_for_counts(adata):
    adata.X = sparse.csr_matrix(np.log1p(adata.X.toarray()))


def repeated(axis: str) -> Callable:
    def change(adata):
        names = list(getattr(adata, axis))
        setattr(adata, axis, [names[1], *names[1:]])

    return change


def matrix(make: Callable) -> Callable:
    def change(adata):
        adata.X = make(adata.X.toarray())

    return change


def no_matrix(adata):
    return anndata.AnnData(obs=adata.obs, var=adata.var, uns=adata.uns)


NUMBERS = "real numbers are expected"
ANNDATA = r"`(adata|controls)` (is|must be) .*(DataFrame|str|AnnData)"
NOT_FINITE = "(NaN|missing) or infinite"
UNWRITTEN = ["split", "prepare", "grn", "setup", "evaluate", "load"]
"""Calls that need controls among the cells."""
READ = ["prepare", "grn", "setup", "predict", "generate", "evaluate", "load", "model.prepare"]
"""Calls that look at values."""
LOGS = ["grn", "setup", "predict", "generate", "evaluate", "load"]
PARSED = [*UNWRITTEN, "predict", "generate"]
ALL = ["split", *READ]

FAULTS = {
    "NaN": (value(np.nan), NOT_FINITE, READ),
    "NaN in a later block": (value(np.nan, -1), NOT_FINITE, READ),
    "infinite": (value(np.inf), NOT_FINITE, READ),
    "negative": (value(-0.5), "negative values", READ),
    "text in X": (matrix(lambda values: values.astype(str).astype(object)), NUMBERS, READ),
    "complex numbers": (matrix(lambda values: values.astype(complex)), NUMBERS, READ),
    "no X": (no_matrix, r"`adata.X` is empty; expression is expected there. Fill it", READ),
    "zeros": (matrix(lambda values: sparse.csr_matrix(0 * values)), "only zeros|no counts", ["prepare", "setup", "predict", "generate", "load", "model.prepare"]),
    "raw counts": (counts_for_logs, r"whole numbers.* raw counts.*pp\.prepare", LOGS),
    "logs": (logs_for_counts, r"fractions .*layers\['counts'\]", ["prepare", "model.prepare"]),
    "no controls": (labels("control", "T1"), "`control='control'`.*Unperturbed cells are needed", UNWRITTEN),
    "controls misspelt": (labels("control", "Control_"), "`control='control'`.*Did you mean 'Control_'", UNWRITTEN),
    "perturbed cells as controls": (labels("control", "T1", 1), r"`controls` holds cells labelled \['T1'\]", ["generate"]),
    "no label": (labels("control", np.nan, 1), "no perturbation label.*Remove such cells", PARSED),
    "empty label": (labels("control", " ", 1), "perturbation label", PARSED),
    "empty part": (labels("control", "T1+", 1), r"'T1\+' has an empty part.*another `delimiter`", PARSED),
    "repeated target": (labels("control", "T1+T1", 1), r"'T1\+T1' repeats a target. Name every target once", PARSED),
    "unknown target": (labels("T1", "XYZ"), "Nothing is known of the target 'XYZ'", ["predict"]),
    "one cell of a condition": (labels("T1", "XYZ", 1), r"is for training.* perturbation 'XYZ' was not.*adata=False", ["load"]),
    "no column": (no_column, "`perturbation_key` is 'perturbation', but `adata.obs` has no such column", [*UNWRITTEN[:-1], "predict"]),
    "repeated gene": (repeated("var_names"), "var_names_make_unique|genes of the model are missing", ALL),
    "repeated cell": (repeated("obs_names"), "obs_names_make_unique", ALL),
    "no such part": (column("unlasting_split", "val", "held"), r"\['held'\]; only 'train', 'val' and 'test'", UNWRITTEN[1:]),
    "cell type without controls": (new_cell_type, "'NK'.*(dd controls|Add some|was not in)", ["setup", "predict", "load"]),
    "a view": (lambda adata: adata[: adata.n_obs - 3], r"view of another AnnData.*adata\.copy\(\)", ["split", "prepare", "grn", "setup", "load", "model.prepare"]),
    "no cells": (lambda adata: adata[:0].copy(), "`(adata|controls)` is empty", ALL),
    "no genes": (lambda adata: adata[:, :0].copy(), "is empty|genes of the model are missing", ALL),
    "a frame": (lambda adata: adata.to_df(), ANNDATA, ALL),
    "a path": (lambda adata: "screen.h5ad", ANNDATA, ALL),
    "a gene less": (lambda adata: adata[:, 1:].copy(), "1 of the 20 .*('T1' the first|missing in the new cells: T1)", ["predict", "generate", "load", "model.prepare"]),
    "turned genes": (lambda adata: adata[:, ::-1].copy(), r"same order. Pass `adata\[:, model.get_var_names", ["predict", "generate", "load"]),
    "a changed panel": (lambda adata: adata[:, 1:].copy(), r"do not begin with the 19 genes.*Call `pp\.grn", ["setup"]),
}  # fmt: skip


@pytest.fixture(scope="module")
def raw():
    adata = datasets.simulate_screen(
        n_cells=60, n_controls=80, n_genes=20, n_targets=3, n_unmeasured=0, n_inert=0, n_cell_types=2, mean_counts=5.0
    )
    pp.split(adata, "random", cell_type_key="cell_type")
    return adata


@pytest.fixture(scope="module")
def prepared(raw):
    adata = raw.copy()
    pp.prepare(adata)
    pp.grn(adata, prior=None)
    return adata


@pytest.fixture(scope="module")
def trained(prepared, tmp_path_factory):
    """A model of the screen, with a prediction in its AnnData, and the folder where it is saved."""
    adata = prepared.copy()
    UnlastingModel.setup_anndata(adata, cell_type_key="cell_type")
    model = UnlastingModel(adata, width=12, gene_features=4, attention_features=4, n_steps=2)
    model.train(max_steps=0, seed=0, accelerator="cpu", **QUIET)
    model.predict(seed=0, **QUIET)
    folder = tmp_path_factory.mktemp("saved") / "model"
    model.save(folder)
    return model, folder


@pytest.fixture
def calls(raw, prepared, trained):
    """For each call: a screen that it takes, and the call."""
    model, folder = trained
    controls = model.adata[model.adata.obs["perturbation"] == "control"].copy()
    return {
        "split": (raw, lambda adata: pp.split(adata, "random", cell_type_key="cell_type")),
        "prepare": (raw, pp.prepare),
        "grn": (prepared, lambda adata: pp.grn(adata, prior=None)),
        "setup": (prepared, lambda adata: UnlastingModel.setup_anndata(adata, cell_type_key="cell_type")),
        "predict": (model.adata, lambda adata: model.predict(adata, **QUIET)),
        "generate": (controls, lambda adata: model.generate("T1", 2, controls=adata, **QUIET)),
        "evaluate": (
            model.adata,
            lambda adata: tl.evaluate(
                adata, metrics="e_distance", gene_sets="all", min_cells=8, n_repeats=1, n_permutations=19
            ),
        ),
        "load": (prepared, lambda adata: UnlastingModel.load(folder, adata, accelerator="cpu")),
        "model.prepare": (raw, model.prepare),
    }


@pytest.mark.parametrize("call", ALL)
def test_a_screen_is_accepted_without_a_fault_only(calls, unchanged, call):
    (screen, accept), unclear = calls[call], {}
    for fault, (change, message, found_by) in FAULTS.items():
        if call not in found_by:
            continue
        adata = screen.copy()
        changed = change(adata)
        adata = adata if changed is None else changed
        same = unchanged(adata) if isinstance(adata, anndata.AnnData) and not adata.is_view else lambda: None
        with pytest.raises((ValueError, KeyError, TypeError)) as caught:
            accept(adata)
        if not re.search(message, str(caught.value), re.S):
            unclear[fault] = str(caught.value)
        assert caught.traceback[-1].frame.f_globals["__name__"].startswith("unlasting"), fault  # on purpose
        same()
    assert unclear == {}
    accept(screen.copy())


IN_FILES = [
    "NaN",
    "negative",
    "no X",
    "no controls",
    "controls misspelt",
    "no label",
    "empty part",
    "no column",
    "repeated gene",
    "repeated cell",
    "no such part",
    "no cells",
    "no genes",
]


ON_THE_COMMAND_LINE = {
    "no X": "`X` is empty; expression is expected there. Fill it, or name a `--layer`",
    "no controls": "the control label `--control control`.*Unperturbed cells are needed",
    "controls misspelt": "the control label `--control control`.*Did you mean 'Control_'",
    "empty part": r"'T1\+' has an empty part.*another `--delimiter`",
    "no column": "`--perturbation-key` is 'perturbation', but `obs` has no such column",
    "no cells": "the file is empty: 0 cells",
}
"""Messages that name options in place of arguments."""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*names are not unique")
def test_a_file_with_a_fault_is_refused(raw, tmp_path):
    unclear = {}
    for fault in IN_FILES:
        change, message, _ = FAULTS[fault]
        message = ON_THE_COMMAND_LINE.get(fault, message)
        adata = raw.copy()
        changed = change(adata)
        (adata if changed is None else changed).write_h5ad(tmp_path / "screen.h5ad")
        before = (tmp_path / "screen.h5ad").read_bytes()
        done = CliRunner().invoke(app, ["train", str(tmp_path / "screen.h5ad"), "--model", str(tmp_path / "model")])
        assert (done.exit_code, done.stdout) == (1, ""), fault
        if not re.search(f"Error: .*({message})", done.stderr, re.S):
            unclear[fault] = done.stderr
        assert (tmp_path / "screen.h5ad").read_bytes() == before
        assert [path.name for path in tmp_path.iterdir()] == ["screen.h5ad"]
    assert unclear == {}


def controls_in_test(adata):
    split = adata.obs["unlasting_split"].astype(str)
    split[(adata.obs["perturbation"] == "control").to_numpy()] = "test"
    adata.obs["unlasting_split"] = split.astype("category")


def nothing_perturbed_in_training(adata):
    split = adata.obs["unlasting_split"].astype(str)
    split[(adata.obs["perturbation"] != "control").to_numpy()] = "test"
    adata.obs["unlasting_split"] = split.astype("category")


def changed_split(adata):
    split = adata.obs["unlasting_split"].astype(str).to_numpy()
    adata.uns["unlasting"]["prepare"] = {"split_hash": split_hash(adata.obs_names, split)}
    split[0] = "train" if split[0] != "train" else "test"
    adata.obs["unlasting_split"] = split


def another_graph(adata):
    adata.uns["unlasting"]["grn"]["nodes"] = adata.uns["unlasting"]["grn"]["nodes"][1:]


def target_outside_the_graph(adata):
    grn = adata.uns["unlasting"]["grn"]
    grn["nodes"] = grn["nodes"][:-1]
    grn["edges"] = grn["edges"][~grn["edges"].isin(["TFX"]).any(axis=1)]


def edge_to_nowhere(adata):
    grn = adata.uns["unlasting"]["grn"]
    grn["edges"] = pd.concat([grn["edges"], pd.DataFrame({"source": ["G1"], "target": ["GENE?"]})])


SCREENS = {
    controls_in_test: r"No control cell is labelled 'train'.*`pp.split`",
    nothing_perturbed_in_training: "No perturbed cell is labelled 'train'",
    changed_split: r"have changed since `pp.prepare`.*Run `pp.prepare`",
    another_graph: r"do not begin with the 60 genes.*Call `pp.grn",
    target_outside_the_graph: r"targets \['TFX'\] are no nodes.*Call `pp.grn",
    edge_to_nowhere: r"'GENE\?'.*(no node|nodes)",
}


def test_setup_refuses_a_screen(small, unchanged):
    for change, message in SCREENS.items():
        adata = small.copy()
        change(adata)
        same = unchanged(adata)
        with pytest.raises(ValueError, match=message):
            UnlastingModel.setup_anndata(adata, cell_type_key="cell_type")
        same()


SETUPS = [
    ({"control": "contrl"}, ValueError, "`control='contrl'`.*Did you mean 'control'"),
    ({"perturbation_key": "perturbed"}, KeyError, "`perturbation_key` is 'perturbed'.*Did you mean 'perturbation'"),
    ({"split_key": "splt"}, KeyError, "`split_key` is 'splt', but `adata.obs` has no such column"),
    ({"cell_type_key": "celltype"}, KeyError, "`cell_type_key` is 'celltype'.*Did you mean 'cell_type'"),
    ({"batch_key": "lane"}, KeyError, "`batch_key` is 'lane'"),
    ({"layer": "lognorm"}, KeyError, "`layer` is 'lognorm'"),
    ({"mode": "overexpression"}, ValueError, "`mode` is 'overexpression'; choose one of"),
]


def test_setup_refuses_arguments(small, unchanged):
    same = unchanged(small)
    for arguments, error, message in SETUPS:
        with pytest.raises(error, match=message):
            UnlastingModel.setup_anndata(small, **arguments)
        same()


def test_setup_refuses_labels_other_than_those_of_the_split(small, unchanged):
    """A condition held out under one column may be trained under another."""
    given = {"perturbation_key": "perturbation", "control": "control", "cell_type_key": "cell_type"}
    small.obs["target"] = small.obs["perturbation"].to_numpy()
    small.obs["kind"] = small.obs["cell_type"].to_numpy()
    small.obs["perturbation"] = small.obs["perturbation"].cat.add_categories("NT")
    small.obs.iloc[:2, small.obs.columns.get_loc("perturbation")] = "NT"
    for argument, other in {"perturbation_key": "target", "control": "NT", "cell_type_key": "kind"}.items():
        pp.split(small, "random", **{**given, argument: other})
        same = unchanged(small)
        with pytest.raises(ValueError, match=f"`{argument}` is .* earlier steps used {other!r}.*`pp.split"):
            UnlastingModel.setup_anndata(small, **given)
        same()
    pp.split(small, "random", **given)
    UnlastingModel.setup_anndata(small)
    assert small.uns["unlasting"]["keys"]["cell_type_key"] == "cell_type"


OPTIONS = [
    ({"preset": None}, ValueError, "`preset` is None; choose one of"),
    ({"preset": "papper"}, ValueError, r"`preset` is 'papper'; choose one of.*Did you mean 'paper'"),
    ({"widht": 3}, TypeError, "'widht'.*Did you mean 'width'"),
    ({"solver": "adam"}, ValueError, "`solver` is 'adam'.*'adams'"),
    ({"mask_rule": "none"}, ValueError, "`mask_rule` is 'none'.*'bridge'"),
    ({"n_steps": 0}, ValueError, f"`n_steps` is 0; {WHOLE} 1"),
    ({"n_steps": 2.5}, ValueError, "`n_steps` is 2.5; a whole number"),
    ({"width": 0}, ValueError, f"`width` is 0; {WHOLE} 1"),
    ({"heads": "2"}, ValueError, f"`heads` is '2'; {WHOLE} 1"),
    ({"condition_features": -1}, ValueError, f"`condition_features` is -1; {WHOLE} 0"),
    ({"dropout": 2}, ValueError, "`dropout` is 2; give a number from 0 to below 1"),
    ({"dropout": "x"}, ValueError, "`dropout` is 'x'; a number is needed"),
    ({"mask_threshold": float("nan")}, ValueError, "`mask_threshold` is nan; a number is needed"),
    ({"use_mask": "no"}, ValueError, "`use_mask` is 'no'; choose `True` or `False`"),
    ({"use_grn": 0}, ValueError, "`use_grn` is 0; choose `True` or `False`"),
]


def test_the_model_refuses_options(small):
    UnlastingModel.setup_anndata(small)
    for options, error, message in OPTIONS:
        with pytest.raises(error, match=message):
            UnlastingModel(small, **options)


def test_setup_says_when_nothing_is_held_out(small, caplog, monkeypatch):
    monkeypatch.setattr("unlasting.screen._logging.logger.propagate", True)
    with caplog.at_level("INFO"):
        UnlastingModel.setup_anndata(small)
        assert "holds some out" not in caplog.text
        del small.obs["unlasting_split"]
        UnlastingModel.setup_anndata(small)
    assert "no `obs['unlasting_split']`: all conditions are trained" in caplog.text


def test_untrained_models_predict_nothing(small, build, unchanged):
    model = build(small)
    same = unchanged(small)
    for call in (model.predict, model.encode, model.get_latent_representation, lambda: model.generate("G3")):
        with pytest.raises(RuntimeError, match=r"not trained yet. Call `model.train\(\)`"):
            call()
    same()


def test_predict_refuses_an_unknown_perturbation(model, controls, unchanged):
    same = unchanged(controls)
    with pytest.raises(ValueError, match="Nothing is known of the target 'STAT1'"):
        model.predict(controls, perturbation="STAT1", **QUIET)
    same()


def test_the_default_name_of_the_control_is_told_what_the_control_is(model):
    with pytest.raises(ValueError, match="Nothing is known of the target 'control'.* The control is 'NT' here"):
        model.vocabulary.require_known([Perturbation(("control",))], "NT")


def test_predict_refuses_what_is_not_there(model, adata, unchanged):
    cells = adata[:40].copy()
    del cells.obs["cell_type"]
    same = unchanged(cells)
    with pytest.raises(KeyError, match="`cell_type_key` is 'cell_type'"):
        model.predict(cells, **QUIET)
    same()


# -- arguments

ARGUMENTS = {
    "train": [
        ({"max_steps": -1}, f"`max_steps` is -1; {WHOLE} 0"),
        ({"max_steps": 2.5}, f"`max_steps` is 2.5; {WHOLE} 0"),
        ({"max_steps": "3"}, f"`max_steps` is '3'; {WHOLE} 0"),
        ({"max_epochs": -1}, "`max_epochs` is -1"),
        ({"max_steps": 3, "max_epochs": 3}, "Both `max_steps` and `max_epochs` are given"),
        ({"max_steps": 3, "batch_size": 0}, "`batch_size` is 0"),
        ({"max_steps": 3, "lr": -1.0}, "`lr` is -1.0; a learning rate above 0"),
        ({"max_steps": 3, "lr": np.nan}, "`lr` is nan; a number is needed"),
        ({"max_steps": 3, "early_stopping_patience": 0}, "`early_stopping_patience` is 0"),
        ({"max_steps": 3, "early_stopping_patience": None}, "`early_stopping_patience` is None"),
        ({"max_steps": 3, "seed": -1}, f"`seed` is -1; {WHOLE} 0"),
        ({"max_steps": 3, "checkpoint": "."}, "`checkpoint` is '.', a folder. Name a file"),
    ],
    "generate": [
        ({"perturbations": "STAT1"}, "Nothing is known of the target 'STAT1'.*pp.grn"),
        ({"perturbations": ["G3", "G99+TFX"]}, "Nothing is known of the target 'G99'.*Did you mean 'G9'"),
        ({"perturbations": "g7"}, "Nothing is known of the target 'g7'.*Did you mean 'G7'"),
        ({"perturbations": "CONTROL"}, "Nothing is known of the target 'CONTROL'.*Did you mean 'control'"),
        ({"perturbations": "G3+G3"}, "'G3\\+G3' repeats a target"),
        ({"perturbations": ""}, "perturbation label '' has an empty part"),
        ({"perturbations": None}, "`perturbations` is None; give a label"),
        ({"perturbations": []}, "`perturbations` is empty"),
        *(({"perturbations": "G3", "n_cells": n}, f"`n_cells` is {n}; {WHOLE} 1") for n in (0, -4, 2.5, None, True)),
        ({"perturbations": "G3", "batch_size": 0}, "`batch_size` is 0"),
        ({"perturbations": "G3", "seed": -1}, "`seed` is -1"),
        ({"perturbations": "G3", "dose": 1.0}, "`dose` is 1.0, but the screen was set up without `dose_key`"),
        ({"perturbations": "G3", "cell_type": "NK"}, r"`cell_type='NK'`.*\['B', 'T'\].*`controls`"),
        ({"perturbations": "G3", "cell_type": []}, r"`cell_type` is empty; name at least one of \['B', 'T'\]"),
        ({"perturbations": "G3", "batch": "lane9"}, "`batch='lane9'`"),
        ({"perturbations": "G3", "path": "cells.csv"}, r"`path` is 'cells.csv'; .*must end in '\.h5ad'"),
    ],
    "predict": [
        ({"perturbation": "G3"}, "`adata` holds cells labelled.*only controls"),
        ({"dose": 1.0}, "`dose` is 1.0 without `perturbation`"),
        ({"indices": [3, 4_000]}, "`indices` do not fit the 500 cells"),
        ({"indices": []}, "`indices` is empty"),
        ({"batch_size": -1}, "`batch_size` is -1"),
        ({"seed": -1}, "`seed` is -1"),
    ],
    "split": [
        ({"kind": "randm"}, "`kind` is 'randm'.*Did you mean 'random'"),
        ({"test_fraction": 1.5}, "`test_fraction` is 1.5"),
        ({"test_fraction": "a third"}, "`test_fraction` is 'a third'; a number is needed"),
        ({"val_fraction": float("nan")}, "`val_fraction` is nan; a number is needed"),
        ({"min_cells": 1.5}, f"`min_cells` is 1.5; {WHOLE} 0"),
        ({"seed": -1}, f"`seed` is -1; {WHOLE} 0"),
    ],
    "prepare": [
        ({"n_top_genes": 0}, f"`n_top_genes` is 0; {WHOLE} 1"),
        ({"n_top_genes": "many"}, f"`n_top_genes` is 'many'; {WHOLE} 1"),
        ({"target_sum": "1e4"}, "`target_sum` is '1e4'; a number is needed"),
        ({"target_sum": -1}, "`target_sum` is -1; it must be positive"),
        ({"genes": "G3"}, "`genes` is 'G3'; give a list of names"),
    ],
    "grn": [
        ({"min_correlation": "high"}, "`min_correlation` is 'high'; a number is needed"),
        ({"max_neighbors": 0}, f"`max_neighbors` is 0; {WHOLE} 1"),
        ({"prior": None, "n_components": 2.5}, f"`n_components` is 2.5; {WHOLE} 1"),
    ],
    "evaluate": [
        ({"layer": "x"}, "`adata.layers` has no 'x'"),
        ({"predictions": "cells.h5ad"}, "`predictions` is a str; pass an AnnData"),
        ({"n_repeats": 2.5}, f"`n_repeats` is 2.5; {WHOLE} 1"),
        ({"metrics": ["emdd"]}, "no metric 'emdd'. Did you mean 'emd'"),
        ({"seed": -1}, f"`seed` is -1; {WHOLE} 0"),
    ],
}


def test_arguments_are_refused(either, adata, unchanged):
    calls = {
        "train": lambda **given: either.train(**given, **QUIET),
        "generate": lambda **given: either.generate(**given, **QUIET),
        "predict": lambda **given: either.predict(**given, **QUIET),
        "split": lambda **given: pp.split(adata, **given),
        "prepare": lambda **given: pp.prepare(adata, **given),
        "grn": lambda **given: pp.grn(adata, **given),
        "evaluate": lambda **given: tl.evaluate(adata, **given),
    }
    before, unclear = {name: weights.clone() for name, weights in either.module.state_dict().items()}, {}
    for call, cases in ARGUMENTS.items():
        for arguments, message in cases:
            same = unchanged(adata)
            with pytest.raises((ValueError, TypeError, KeyError, IndexError, OSError)) as caught:
                calls[call](**arguments)
            if not re.search(message, str(caught.value), re.S):
                unclear[call, str(arguments)] = str(caught.value)
            assert caught.traceback[-1].frame.f_globals["__name__"].startswith("unlasting"), (call, arguments)
            same()
    assert unclear == {}
    assert all(torch.equal(weights, before[name]) for name, weights in either.module.state_dict().items())


def test_options_of_a_graph_that_is_not_there_are_named(small, caplog):
    UnlastingModel.setup_anndata(small)
    for options, is_named in (({}, True), ({"use_grn": True}, False), ({"preset": "paper"}, False)):
        caplog.clear()
        UnlastingModel(small, heads=3, gene_features=8, **options)
        assert ("`gene_features`, `heads`: without effect" in caplog.text) == is_named
