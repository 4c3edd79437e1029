"""The command line: its files, its output and its errors."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys

import anndata
import numpy as np
import pandas as pd
import pytest
from lightning.pytorch.callbacks import Callback
from typer.testing import CliRunner

import unlasting
from unlasting import cli, datasets, model, module, pp, tl
from unlasting.cli import app
from unlasting.model import UnlastingModel

pytestmark = pytest.mark.slow  # it trains, once for all tests
TINY = ["--max-steps", "4", "--accelerator", "cpu"]


def call(*arguments: object):
    """Run the command line as a user would, and get the exit code and both outputs."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def results(*arguments: object) -> dict:
    """Run it with `--json`: nothing but the results may be on the standard output."""
    done = call(*arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a screen and a model that was trained on it for a few steps."""
    folder = tmp_path_factory.mktemp("cli")
    adata = datasets.simulate_screen(n_cells=60, n_controls=120, n_genes=40, n_unmeasured=0)
    adata.write_h5ad(folder / "screen.h5ad")
    trained = results(
        "train", folder / "screen.h5ad", "--split", "unseen_perturbation", "--model", folder / "model", *TINY
    )
    split = anndata.read_h5ad(folder / "model" / "adata.h5ad").uns["unlasting"]["split"]
    assert trained.pop("held_out") == list(split["test_conditions"])
    best = trained.pop("best_validation_scores")
    assert list(best) == ["denoiser", "mask"]
    assert all(score > 0 for score in best.values())
    assert trained.pop("next") == f"unlasting predict --model {shlex.quote(str(folder / 'model'))} -o predicted.h5ad"
    assert trained == {"model": str(folder / "model"), "n_cells": adata.n_obs, "n_genes": trained["n_genes"]}
    (folder / "text.h5ad").write_text("no screen")
    return folder


@pytest.fixture(scope="module")
def predicted(place):
    path = place / "predicted.h5ad"
    assert results("predict", "--model", place / "model", "-o", path)["cells"] == str(path)
    return path


def test_every_held_out_cell_of_the_training_screen_gets_a_cell(place, predicted):
    adata = anndata.read_h5ad(predicted)
    is_held_out = (adata.obs["perturbation"] != "control") & (adata.obs["unlasting_split"] == "test")
    assert is_held_out.any()
    assert list(adata.obs["unlasting_source"] != "") == list(is_held_out)
    assert list(np.diff(adata.layers["unlasting"].indptr) > 0) == list(is_held_out)
    assert set(adata.obs["unlasting_split"]) == {"train", "val", "test"}
    assert not list(place.glob(".partial*"))


def test_the_raw_file_gives_the_same_cells(place, tmp_path):
    for file, name in (([place / "screen.h5ad"], "again.h5ad"), ([], "first.h5ad")):
        results("predict", *file, "--model", place / "model", "--cells", "all", "-o", tmp_path / name)
    first, again = anndata.read_h5ad(tmp_path / "first.h5ad"), anndata.read_h5ad(tmp_path / "again.h5ad")
    controls = (first.obs["perturbation"] == "control").to_numpy()
    assert controls.any()
    assert (first.obs["unlasting_source"][controls] == first.obs_names[controls]).all()
    np.testing.assert_array_equal(first.X.toarray(), again.X.toarray())
    np.testing.assert_allclose(
        first.layers["unlasting"][controls].toarray(), again.layers["unlasting"][controls].toarray(), atol=1e-5
    )
    assert list(first.obs["unlasting_split"]) == list(again.obs["unlasting_split"])


def test_new_cells_under_perturbations(place, tmp_path):
    asked = ["-p", "T1", "-p", "T2+T1", "--n-cells", 7]
    for file in ([], [place / "screen.h5ad"], [place / "model" / "adata.h5ad"]):
        path = tmp_path / f"new{len(list(tmp_path.iterdir()))}.h5ad"
        found = results("predict", *file, "--model", place / "model", *asked, "-o", path)
        made = anndata.read_h5ad(path).obs
        trust = found.pop("trust")
        assert found == {"cells": str(path), "n_cells": 14}
        assert made["perturbation"].value_counts().to_dict() == {"T1": 7, "T1+T2": 7}
        error = made.groupby(made["perturbation"].astype(str))["unlasting_expected_error"].mean()
        assert {name: row["unlasting_expected_error"] for name, row in trust.items()} == pytest.approx(error.to_dict())


def test_new_cells_join_the_screen(tmp_path):
    adata = datasets.simulate_screen(n_cells=40, n_controls=120, n_genes=40, n_unmeasured=0)
    adata.obs["lane"] = np.arange(adata.n_obs) % 2 + 1
    adata.var["chromosome"] = pd.Categorical(["1", "X"] * (adata.n_vars // 2))
    adata.write_h5ad(tmp_path / "screen.h5ad")
    train = ["train", tmp_path / "screen.h5ad", "--batch-key", "lane", "--max-steps", 0, "-m", tmp_path / "model"]
    results(*train)
    asked = ["-p", "T1", "--batch", 2, "--n-cells", 9, "-o", tmp_path / "new.h5ad"]
    results("predict", "-m", tmp_path / "model", *asked)
    real, new = (anndata.read_h5ad(tmp_path / name) for name in ("model/adata.h5ad", "new.h5ad"))
    assert set(new.obs["lane"]) == {2}
    assert new.obs["lane"].dtype == real.obs["lane"].dtype
    assert list(new.var["chromosome"]) == list(real.var["chromosome"])
    counts = new.layers["counts"].toarray()
    size = counts.sum(axis=1, keepdims=True)
    assert (counts == counts.round()).all()
    target_sum = new.uns["unlasting"]["generated"]["target_sum"]
    np.testing.assert_allclose(np.log1p(counts / size * target_sum), new.X.toarray(), atol=1e-3)
    both = anndata.concat([real, new], merge="same")
    both.write_h5ad(tmp_path / "both.h5ad")
    assert anndata.read_h5ad(tmp_path / "both.h5ad").layers["counts"].shape == both.shape
    assert (
        call("predict", "-m", tmp_path / "model", "-p", "T1", "--batch", 3, "-o", tmp_path / "no.h5ad").exit_code == 1
    )


def test_scores_are_those_of_the_api(place, predicted, tmp_path):
    figures = tmp_path / "figures"
    said = results("evaluate", predicted, "-o", tmp_path / "scores.csv", "--seed", 3, "--figures", figures)
    assert sorted(file.name for file in figures.iterdir()) == ["heatmap.png", "scores.png"]
    adata = anndata.read_h5ad(predicted)
    scores = tl.evaluate(adata, seed=3)
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "scores.csv", keep_default_na=False, na_values=[""]).dropna(axis=1, how="all"),
        scores.replace("", np.nan).dropna(axis=1, how="all").reset_index(drop=True),
        check_dtype=False,
        check_categorical=False,
    )
    summary = adata.uns["unlasting"]["score_summary"]
    assert [row["predictor"] for row in said["summary"]] == list(summary["predictor"])
    assert {"unlasting", "no effect"} <= {row["predictor"] for row in said["summary"]}
    tables = adata.uns["unlasting"]
    assert said["n_scored"] == tables["score_conditions"]["scored"].sum() == summary["n_conditions"].max()
    assert said["n_conditions"] == len(tables["split"]["test_conditions"])


def test_cells_from_another_tool_are_evaluated(place, predicted, tmp_path):
    cells = anndata.read_h5ad(predicted)
    other = anndata.AnnData(cells.layers["unlasting"], obs=cells.obs[["perturbation"]], var=cells.var[[]])
    other = other[(cells.obs["unlasting_split"] == "test").to_numpy()].copy()
    other.write_h5ad(tmp_path / "other.h5ad")
    screen = place / "model" / "adata.h5ad"
    done = call("evaluate", screen, "--predictions", tmp_path / "other.h5ad", "-o", tmp_path / "scores.csv")
    assert done.exit_code == 0, done.output
    table = {line.split("  ")[0]: line.split() for line in done.stdout.splitlines()}
    assert {"prediction", "no effect", "noise floor"} <= set(table)
    assert table["noise floor"][2:5] == ["0.00"] * 3
    assert f"scores: {tmp_path / 'scores.csv'}" in " ".join(done.stdout.split())
    assert "n scored: " in done.stdout
    said = next(line for line in done.stdout.splitlines() if line.startswith("Best score: "))
    assert said.endswith("of 9 columns.")


def test_the_best_score_counts_predictors_that_are_scored_everywhere(place, predicted, tmp_path, monkeypatch):
    rows = [("a", 0.2, 3), ("b", 0.1, 2), ("c", 0.3, 3), ("d", np.nan, 3), ("cells", 0.0, 3)]
    uncertainty = {"low": 0.1, "high": 0.4, "difference": -0.1, "difference_low": -0.2, "difference_high": 0.05}
    summary = [
        {
            "predictor": name,
            "metric": metric,
            "gene_set": "all",
            "score": score,
            "n_conditions": n,
            "is_best": name == best,
        }
        | {"is_ceiling": name == "cells", "reference": "c", "decided_by": "X" if name == "a" else "", **uncertainty}
        for metric, best in (("emd", "a"), ("e_distance", "a"), ("pearson_change", "c"))
        for name, score, n in rows
    ]

    def evaluate(adata, **kwargs) -> pd.DataFrame:
        adata.uns["unlasting"] |= {
            "score_summary": pd.DataFrame(summary),
            "score_conditions": pd.DataFrame({"scored": [True]}),
            "score_left_out": pd.DataFrame({"predictor": []}),
        }
        return pd.DataFrame(summary)

    monkeypatch.setattr(tl, "evaluate", evaluate)
    done = call("evaluate", predicted, "-o", tmp_path / "scores.csv")
    assert "Best score: a in 2, c in 1 of 3 columns." in done.stdout
    line = "a: 0.20 [0.10, 0.40] over 3 conditions; -0.10 [-0.20, +0.05] from c; no better without X."
    assert line in done.stdout
    assert "cells (ceiling)" in done.stdout
    assert "cells: " not in done.stdout


def test_a_check_names_the_training_command_that_runs(place, tmp_path):
    found = results("check", place / "screen.h5ad")
    assert found["counts"] == "adata.X"
    program, *words = shlex.split(found["next_call"])
    assert (program, found["split_kind"]) == ("unlasting", "unseen_perturbation")
    assert call(*words, "--model", tmp_path / "model", *TINY).exit_code == 0
    prepared = results("check", place / "model" / "adata.h5ad")
    assert (prepared["counts"], prepared["split_kind"]) == ("adata.layers['counts']", "")


def test_training_names_the_held_out_conditions_and_the_next_command(place, tmp_path):
    done = call("train", place / "screen.h5ad", "--split", "unseen_perturbation", "-m", tmp_path / "my model", *TINY)
    held_out = anndata.read_h5ad(tmp_path / "my model" / "adata.h5ad").uns["unlasting"]["split"]["test_conditions"]
    assert f"held out: {', '.join(held_out)}\n" in done.stdout
    assert "best validation scores:\n  denoiser: " in done.stdout
    assert f"next: unlasting predict --model '{tmp_path / 'my model'}' -o predicted.h5ad" in done.stdout


def test_new_cells_are_evaluated_as_predictions(place, tmp_path):
    cells = tmp_path / "new.h5ad"
    results("predict", "--model", place / "model", "-p", "T1", "--n-cells", 40, "-o", cells)
    done = call("evaluate", cells, "-o", tmp_path / "scores.csv")
    assert done.exit_code == 1
    assert "contains cells generated by a model, and no controls" in done.stderr
    assert "--predictions" in done.stderr


def test_the_demo_writes_all_that_it_names(monkeypatch, tmp_path):
    whole = datasets.papalexi()
    rows = np.concatenate([rows[:50] for rows in whole.obs.groupby("perturbation", observed=True).indices.values()])
    monkeypatch.setattr(datasets, "papalexi", whole[np.sort(rows)].copy)
    said = results("demo", "-o", tmp_path / "demo", *TINY)
    summary = said.pop("summary")
    assert set(said) == {"cells", "scores", "scores_figure", "bimodal_genes_figure", "model"}
    assert sorted(map(str, (tmp_path / "demo").iterdir())) == sorted(said.values())
    adata = anndata.read_h5ad(said["cells"])
    assert list(adata.obs["unlasting_source"] != "") == list(adata.obs["unlasting_split"] == "test")
    assert {row["gene_set"] for row in summary} == {"all", "de20", "de40"}
    assert {"e_distance", "emd", "pearson_change"} <= {row["metric"] for row in summary}


def test_drugs_have_doses_and_structures(tmp_path):
    screen = datasets.simulate_drug_screen(
        n_drugs=4, n_families=2, n_cells=8, n_controls=40, n_cell_types=1, n_genes=30
    )
    screen.write_h5ad(tmp_path / "drugs.h5ad")
    keys = ["--dose-key", "dose", "--smiles-key", "smiles", "--prior", "none"]
    results("train", tmp_path / "drugs.h5ad", *keys, "-m", tmp_path / "model", *TINY)
    drug = screen.uns["simulation"]["drugs"]["drug"].iloc[0]
    asked = ["-p", drug, "--dose", 0.5, "--dose", 20, "--n-cells", 3, "-o", tmp_path / "cells.h5ad"]
    results("predict", "-m", tmp_path / "model", *asked)
    assert anndata.read_h5ad(tmp_path / "cells.h5ad").obs["dose"].astype(float).tolist() == [0.5] * 3 + [20.0] * 3


def test_existing_files_stay_without_force(place, tmp_path):
    path = tmp_path / "new.h5ad"
    path.write_text("mine")
    asked = ["predict", "--model", place / "model", "-p", "T1", "--n-cells", 2, "-o", path]
    done = call(*asked)
    assert (done.exit_code, path.read_text()) == (1, "mine")
    assert f"{str(path)!r} exists already. Pass --force" in done.stderr
    assert results(*asked, "--force")["n_cells"] == 2
    assert anndata.read_h5ad(path).n_obs == 2


def test_existing_files_stay_when_writing_fails(place, tmp_path, monkeypatch):
    path = tmp_path / "new.h5ad"
    path.write_text("mine")

    def full(self, file, **kwargs) -> None:
        file.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(anndata.AnnData, "write_h5ad", full)
    done = call("predict", "--model", place / "model", "-p", "T1", "--n-cells", 2, "-o", path, "--force")
    assert done.exit_code == 1
    assert "Error: [Errno 28] No space left on the disk" in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["new.h5ad"]
    assert path.read_text() == "mine"


def test_a_folder_that_is_read_only_is_found_before_the_work(place, tmp_path, monkeypatch):
    monkeypatch.setattr("unlasting.cli._files.os.access", lambda path, mode: str(path) != str(tmp_path))
    monkeypatch.setattr(UnlastingModel, "train", None)
    for command in (
        ["train", place / "screen.h5ad", "-m"],
        ["demo", "-o"],
        ["predict", "-o"],
        ["evaluate", place / "screen.h5ad", "-o"],
    ):
        done = call(*command, tmp_path / "new")
        assert done.exit_code == 1
        assert f"Error: {str(tmp_path)!r} is read-only" in done.stderr
    assert list(tmp_path.iterdir()) == []


class Stop(Callback):
    """Press Ctrl-C after the second step."""

    def on_train_batch_end(self, trainer, *args) -> None:
        if trainer.global_step == 2:
            raise KeyboardInterrupt


def test_an_interruption_is_reported_and_the_weights_are_saved(place, monkeypatch, tmp_path):
    train = UnlastingModel.train
    monkeypatch.setattr(UnlastingModel, "train", lambda *args, **kwargs: train(*args, **kwargs, callbacks=[Stop()]))
    done = call("train", place / "screen.h5ad", "--model", tmp_path / "model", *TINY)
    assert done.exit_code == 130
    assert "Training was interrupted at step 2" in " ".join(done.stderr.split())
    assert results("predict", "-m", tmp_path / "model", "-p", "T1", "--n-cells", 2, "-o", tmp_path / "cells.h5ad")
    assert call("demo", "-o", tmp_path / "demo", *TINY).exit_code == 130
    assert not (tmp_path / "demo").exists()


FAULTS = {
    "no file": (["train", "{}/nothing.h5ad"], 2, "'{}/nothing.h5ad' does not exist"),
    "no command": (["trian"], 2, "No such command 'trian'"),
    "no steps": (["demo", "--max-steps", "-1"], 2, "--max-steps"),
    "no seed": (["demo", "--seed", "-1"], 2, "--seed"),
    "no such accelerator": (
        ["demo", "--accelerator", "gup"],
        2,
        "'gup' is none of auto, cpu, gpu, cuda, mps. Did you mean 'gpu'?",
    ),
    "accelerator": (["demo", "--accelerator", "mps"], 2, "there is no 'mps' here; `unlasting doctor`"),
    "dose": (["predict", "-m", "{}/model", "--dose", "1"], 2, "it needs --perturbation"),
    "model is a file": (["train", "{}/screen.h5ad", "-m", "{}/text.h5ad", "--force"], 1, "'{}/text.h5ad' is a file"),
    "demo is a file": (["demo", "-o", "{}/text.h5ad", "--force"], 1, "'{}/text.h5ad' is a file"),
    "cells are a folder": (["predict", "-m", "{}/model", "-o", "{}", "--force"], 1, "'{}' is a folder"),
    "scores are a folder": (["evaluate", "{}/screen.h5ad", "-o", "{}/model", "--force"], 1, "'{}/model' is a folder"),
    "other files": (["train", "{}/screen.h5ad", "-m", "{}", "--force"], 1, "holds other files than a saved model"),
    "another program": (["predict", "-m", "{}"], 1, "'{}' holds no saved model"),
    "no h5ad": (["train", "{}/text.h5ad"], 1, "'{}/text.h5ad' cannot be read as h5ad"),
    "model there": (["train", "{}/screen.h5ad", "-m", "{}/model"], 1, "'{}/model' exists already. Pass --force"),
    "demo there": (["demo", "-o", "{}/model"], 1, "'{}/model' exists already. Pass --force"),
    "label": (["train", "{}/screen.h5ad", "--control", "contrl"], 1, "Did you mean 'control'?"),
    "column": (["train", "{}/screen.h5ad", "--perturbation-key", "gene"], 1, "`--perturbation-key` is 'gene'"),
    "split": (["train", "{}/screen.h5ad", "--split", "randm"], 2, "Did you mean 'random'?"),
    "preset": (["train", "{}/screen.h5ad", "--preset", "papper"], 2, "Did you mean 'paper'?"),
    "prior": (
        ["train", "{}/screen.h5ad", "--prior", "gone"],
        2,
        "'gone' is none of default, go, reactome, string and none, and no file or folder",
    ),
    "held-out without a split": (["train", "{}/screen.h5ad", "--test", "T1"], 2, "they need --split"),
    "unknown held-out": (
        ["train", "{}/screen.h5ad", "--split", "leave_one_out", "--test", "T9999"],
        1,
        "`--test` names 'T9999'",
    ),
    "no such layer": (["train", "{}/screen.h5ad", "--layer", "raw"], 1, "`--layer` is 'raw'"),
    "no checkpoint": (["train", "{}/screen.h5ad", "--resume", "{}/run.ckpt"], 2, "'{}/run.ckpt' does not exist"),
    "form of cells": (["predict", "-m", "{}/model", "-o", "{}/cells.csv"], 1, "must end in .h5ad or .zarr"),
    "form of scores": (["rank", "-m", "{}/model", "-o", "{}/rank.xlsx"], 1, "must end in .csv or .tsv"),
    "cells": (["predict", "-m", "{}/model", "--cells", "tset"], 2, "Did you mean 'test'?"),
    "cell type": (["rank", "-m", "{}/model", "-p", "T1", "--cell-type", "B"], 1, "no control cells of `--cell-type B`"),
    "no model": (["predict", "-m", "{}/nowhere"], 1, "'{}/nowhere' holds no saved model"),
    "target": (["predict", "-m", "{}/model", "-p", "T1+XYZ"], 1, "Nothing is known of the target 'XYZ'"),
    "n_cells": (["predict", "-m", "{}/model", "-p", "T1", "--n-cells", "0"], 2, "--n-cells"),
    "not prepared": (
        ["evaluate", "{}/screen.h5ad"],
        1,
        "'{}/screen.h5ad' was not prepared: it has no recorded keys",
    ),
    "no layer": (["evaluate", "{}/model/adata.h5ad"], 1, "`layers` has no 'unlasting'"),
}


def test_errors_are_a_line_and_an_exit_code(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for fault, (arguments, code, message) in FAULTS.items():
        done = call(*[argument.format(place) for argument in arguments])
        shown = " ".join(done.stderr.replace("│", " ").split())
        assert done.exit_code == code, (fault, done.output)
        assert "".join(message.format(place).split()) in "".join(shown.split()), fault  # boxes break long lines
        assert "Traceback" not in done.output
        assert done.stdout == ""
        assert list(tmp_path.iterdir()) == []


def test_errors_that_are_not_deliberate_keep_their_traceback(place, monkeypatch):
    monkeypatch.setattr("unlasting.pp.split", lambda *args, **kwargs: np.zeros(2) @ np.zeros(3))
    done = call("train", place / "screen.h5ad", "--split", "random", "-m", place / "other")
    assert isinstance(done.exception, ValueError)
    assert "Error:" not in done.stderr


def test_the_doctor_names_what_is_there():
    found = results("doctor")
    assert found["packages"]["anndata"] == anndata.__version__
    assert found["packages"]["pandas"] == pd.__version__
    assert set(found["devices"]) == {"cpu", "cuda", "mps"}
    assert found["problems"] == []
    assert f"pandas: {pd.__version__}" in call("doctor").stdout


def test_the_doctor_finds_what_is_broken(monkeypatch):
    wanted = ["numpy>=1", "torch>=2", "notthere>=1", 'rdkit>=1; extra == "drugs"', 'pooch>=1; extra == "sets"']
    monkeypatch.setattr("unlasting._doctor.requires", lambda name: wanted)
    real = __import__("importlib").import_module

    def broken(name: str):
        if name == "torch":
            raise ImportError("libtorch.so: cannot open shared object file")
        return real(name)

    monkeypatch.setattr("unlasting._doctor.importlib.import_module", broken)
    done = call("doctor", "--json")
    found = json.loads(done.stdout)
    assert done.exit_code == 1
    assert [problem.split(":")[0] for problem in found["problems"]] == ["torch", "notthere"]
    assert "libtorch.so: cannot open" in found["problems"][0]
    assert set(found["extras"]) == {"rdkit [drugs]", "pooch [sets]"}
    assert found["extras"]["pooch [sets]"][0].isdigit()


def test_help_has_an_example_of_each_command():
    assert call("--help").exit_code == 0
    for command in ("demo", "check", "train", "predict", "evaluate", "rank", "doctor"):
        done = call(command, "-h")
        assert done.exit_code == 0
        assert f"Example: unlasting {command}" in " ".join(done.stdout.split())
        assert "--json" in done.stdout


def test_the_version_is_that_of_the_package():
    assert call("--version").output.split() == ["unlasting", unlasting.__version__]


def test_choices_are_those_of_the_package():
    assert set(cli._options.SPLITS) == set(pp._split.SPLIT_KINDS)
    assert set(cli._options.PRESETS) == set(module._presets.PRESETS)
    assert cli._options.MODES == model._setup.MODES
    assert set(cli._train.PRIORS) == set(pp.PRIORS)


def test_a_registered_prior_is_a_choice(place, tmp_path, monkeypatch):
    genes = np.array(["T1", "T2", "T3"], dtype=object)
    monkeypatch.setitem(pp.PRIORS, "mine", lambda n_components: pp.Prior(genes, np.eye(3, dtype=np.float32)))
    results("train", place / "screen.h5ad", "--prior", "mine", "-m", tmp_path / "model", *TINY)
    graph = anndata.read_h5ad(tmp_path / "model" / "adata.h5ad").uns["unlasting"]
    assert graph["target_embedding"]["origin"] == "mine"
    refused = call("train", place / "screen.h5ad", "--prior", "mnie", "-m", tmp_path / "other")
    assert refused.exit_code == 2
    assert "mine" in refused.output


def test_usage_is_checked_before_the_package_is_imported(tmp_path):
    for arguments in (
        ["train", str(tmp_path / "nothing.h5ad")],
        ["train", __file__, "--splt", "random"],
        ["train", __file__, "--split", "randm"],
        ["train", __file__, "--prior", "gone"],
        ["predict", "-m", str(tmp_path)],
        ["predict", "-o", __file__],
        ["rank", "-m", str(tmp_path)],
        ["-h"],
    ):
        code = (
            "import sys\nfrom unlasting.cli import app\ntry:\n    app(sys.argv[1:])\nexcept SystemExit:\n"
            "    print(sorted({'pandas', 'numpy', 'anndata', 'torch', 'scvi'} & set(sys.modules)))"
        )
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
        assert done.stdout.splitlines()[-1] == "[]", (arguments, done.stderr)


def test_errors_are_json_with_json(place):
    for fault, (arguments, code, message) in FAULTS.items():
        done = call(*[argument.format(place) for argument in arguments], "--json")
        assert done.exit_code == code, fault
        found = json.loads(done.stdout)["error"]
        assert set(found) == {"type", "message"}
        assert "".join(message.format(place).split()) in "".join(found["message"].split()), fault


def test_messages_name_options():
    names = {"perturbation_key": "--perturbation-key", "control": "--control", "force": "--force", "file": "file"}
    for message, expected in (
        ("`perturbation_key` is 'x'", "`--perturbation-key` is 'x'"),
        ("give `perturbation_key='gene'`.", "give `--perturbation-key gene`."),
        ("name all: `control=['NT', 'safe']`", "name all: `--control NT --control safe`"),
        ("Pass `overwrite=True`", "Pass `--force`"),
        ("`file` and `dose_key` stay", "`file` and `dose_key` stay"),
        ("in `adata.obs['x']`, `adata` is", "in `obs['x']`, the file is"),
        ("Call `pp.split(adata, 'random')` first", "Call `unlasting train --split KIND` first"),
        ("Run `model.predict(adata)`", "Run `unlasting predict`"),
    ):
        assert cli._wording.with_options(message, names) == expected


def test_named_targets_are_held_out_in_a_column_of_choice(place, tmp_path):
    options = ["--split", "leave_one_out", "--test", "T1", "--test", "T2", "--val", "T3", "--split-key", "part"]
    extra = ["--targets", "IRF3", "--prior", "go", "--prior", tmp_path / "edges.csv"]
    pd.DataFrame({"source": ["T1", "T2"], "target": ["T3", "T4"]}).to_csv(tmp_path / "edges.csv", index=False)
    found = results("train", place / "screen.h5ad", *options, *extra, "-m", tmp_path / "model", *TINY)
    assert set(found["held_out"]) >= {"T1", "T2"}
    adata = anndata.read_h5ad(tmp_path / "model" / "adata.h5ad")
    parts = adata.obs.groupby("perturbation", observed=True)["part"].agg(lambda part: part.unique().tolist())
    assert (parts["T1"], parts["T2"], parts["T3"]) == (["test"], ["test"], ["val"])
    assert "unlasting_split" not in adata.obs
    assert "IRF3" in adata.uns["unlasting"]["grn"]["nodes"]
    again = results("train", tmp_path / "model" / "adata.h5ad", "--split-key", "part", "-m", tmp_path / "again", *TINY)
    assert again["held_out"] == found["held_out"]


def test_counts_in_a_layer_and_cells_in_zarr(place, tmp_path):
    adata = anndata.read_h5ad(place / "screen.h5ad")
    adata.layers["umi"] = adata.X.copy()
    adata.X = np.log1p(adata.X.toarray() * 1.7) if hasattr(adata.X, "toarray") else np.log1p(adata.X * 1.7)
    adata.layers["another"] = adata.layers["umi"] * 2
    adata.write_h5ad(tmp_path / "layers.h5ad")
    results("train", tmp_path / "layers.h5ad", "--layer", "umi", "--max-steps", 0, "-m", tmp_path / "model")
    trained = anndata.read_h5ad(tmp_path / "model" / "adata.h5ad")
    expected = adata[:, trained.var_names].layers["umi"]
    np.testing.assert_array_equal(
        trained.layers["counts"].toarray(), np.asarray(expected.todense() if hasattr(expected, "todense") else expected)
    )
    results("predict", "-m", tmp_path / "model", "-p", "T1", "--n-cells", 3, "-o", tmp_path / "cells.zarr")
    assert anndata.read_zarr(tmp_path / "cells.zarr").n_obs == 3
    assert call("predict", "-m", tmp_path / "model", "-p", "T1", "-o", tmp_path / "cells.zarr").exit_code == 1


def test_a_ranking_is_that_of_the_api(place, tmp_path):
    found = results("rank", "-m", place / "model", "-o", tmp_path / "rank.tsv")
    table = pd.read_csv(tmp_path / "rank.tsv", sep="\t")
    assert found["n_conditions"] == len(table) == len(found["rows"])
    trained = UnlastingModel.load(place / "model", accelerator="cpu")
    expected = tl.rank(trained)
    for column in ("score", "fdr", "expected_error", "p_better"):
        np.testing.assert_allclose(table[column], expected[column], rtol=1e-6)
    assert list(table["condition"]) == list(expected["condition"])
    asked = ["-p", "T1", "-p", "T2+T1", "--toward", "T3", "--toward", "T4", "-o", tmp_path / "two.csv"]
    done = call("rank", "-m", place / "model", *asked)
    assert set(pd.read_csv(tmp_path / "two.csv")["condition"]) == {"T1", "T1+T2"}
    assert set(pd.read_csv(tmp_path / "two.csv")["criterion"]) == {"gene set"}
    assert "T1+T2" in done.stdout


def test_a_training_goes_on_from_its_checkpoint(place, tmp_path, monkeypatch):
    train = ["train", place / "screen.h5ad", "--max-steps", 16, "--accelerator", "cpu"]
    results(*train, "-m", tmp_path / "whole")
    run = UnlastingModel.train
    monkeypatch.setattr(UnlastingModel, "train", lambda *args, **kwargs: run(*args, **kwargs, callbacks=[Kill()]))
    with pytest.raises(Killed):
        CliRunner().invoke(
            app,
            [*map(str, train), "-m", str(tmp_path / "part"), "--checkpoint", str(tmp_path / "run.ckpt")],
            catch_exceptions=False,
        )
    monkeypatch.setattr(UnlastingModel, "train", run)
    results(*train, "-m", tmp_path / "part", "--resume", tmp_path / "run.ckpt")
    cells = [
        UnlastingModel.load(tmp_path / name, accelerator="cpu").generate("T1", 9, show_progress=False).X.toarray()
        for name in ("whole", "part")
    ]
    np.testing.assert_array_equal(*cells)


class Killed(Exception):
    """The process ends without a word."""


class Kill(Callback):
    """End the process late in the training."""

    def on_train_batch_end(self, trainer, *args) -> None:
        if trainer.global_step == 13:
            raise Killed


def test_quiet_leaves_warnings_and_no_log_file_holds_a_bar(place, tmp_path):
    train = ["train", place / "screen.h5ad", "-m", tmp_path / "model", *TINY]
    for options, has_messages in (([], True), (["--quiet", "--force"], False)):
        code = "import sys; from unlasting.cli import app; app(sys.argv[1:])"
        environment = {name: value for name, value in os.environ.items() if name != "TQDM_DISABLE"}
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, [*train, *options])],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        )
        assert ("INFO: pp.prepare" in done.stderr) == has_messages
        assert "%|" not in done.stderr
        assert "\r" not in done.stderr
        assert done.stdout.startswith("model: ")


def test_completion_names_the_values():
    environment = {
        "_UNLASTING_COMPLETE": "complete_bash",
        "COMP_WORDS": "unlasting train x.h5ad --split unseen_c",
        "COMP_CWORD": "4",
    }
    done = CliRunner().invoke(app, [], env=environment, prog_name="unlasting")
    assert set(done.stdout.split()) == {"unseen_combo", "unseen_cell_type"}
