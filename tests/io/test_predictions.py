"""Files of the shapes that ten tools write are read to the same predictions."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

import unlasting as ul

CONDITIONS = ("G1", "G3", "G5")


@pytest.fixture
def screen(prepared: AnnData) -> AnnData:
    return prepared.copy()


@pytest.fixture
def blocks(screen: AnnData) -> dict[str, np.ndarray]:
    """Predicted cells of each condition, six each, genes in the order of the screen."""
    rng = np.random.default_rng(2)
    return {name: rng.gamma(1.0, 1.0, (6, screen.n_vars)).astype(np.float32) for name in CONDITIONS}


def stacked(blocks: dict[str, np.ndarray]) -> np.ndarray:
    return np.vstack(list(blocks.values()))


def labels(blocks: dict[str, np.ndarray], form: str = "{}") -> list[str]:
    return [form.format(name) for name, cells in blocks.items() for _ in cells]


def cells(blocks: dict[str, np.ndarray], genes: pd.Index, control: str | None = None, **obs: Any) -> AnnData:
    """An AnnData of the blocks, genes backwards, with control cells if these are labelled."""
    x, columns = stacked(blocks), {key: list(values) for key, values in obs.items()}
    if control is not None:
        x = np.vstack([x, np.ones((3, x.shape[1]), np.float32)])
        for values in columns.values():
            values += [control] * 3
    frame = pd.DataFrame(columns, index=[f"x{i}" for i in range(len(x))])
    return AnnData(x[:, ::-1].copy(), obs=frame, var=pd.DataFrame(index=genes[::-1]))


def in_obsm(adata: AnnData, key: str) -> AnnData:
    adata.obsm[key], adata.X = adata.X, np.zeros(adata.shape, np.float32)
    return adata


def in_layer(adata: AnnData, key: str) -> AnnData:
    adata.layers[key], adata.X = adata.X, np.zeros(adata.shape, np.float32)
    return adata


def save(path: Path, content: Any) -> Path:
    if isinstance(content, AnnData):
        content.write_h5ad(path)
    elif path.suffix == ".npz":
        np.savez(path, **content)
    elif path.suffix == ".csv":
        content.to_csv(path)
    else:
        path.write_bytes(pickle.dumps(content))
    return path


Form = Callable[[dict[str, np.ndarray], pd.Index], Any]
FORMS: dict[str, tuple[str, str, Form]] = {
    "gears evaluate": (
        "gears",
        "r.pkl",
        lambda b, g: {
            "pert_cat": np.array(labels(b, "{}+ctrl")),
            "pred": stacked(b),
            "truth": stacked(b),
            "genes": list(g),
        },
    ),
    "scgpt cells": ("scgpt", "r.pkl", lambda b, g: {**b, "gene_names": np.array(g, dtype=str)}),
    "scgpt eval_perturb": (
        "scgpt",
        "r.npz",
        lambda b, g: {"pert_cat": labels(b, "{}+ctrl"), "pred": stacked(b), "gene_names": list(g)},
    ),
    "cpa": (
        "cpa",
        "r.h5ad",
        lambda b, g: in_obsm(
            cells(b, g, "ctrl", condition=labels(b), cond_harm=labels(b, "{}+ctrl"), cov_cond=labels(b, "K562_{}")),
            "CPA_pred",
        ),
    ),
    "cellflow": ("cellflow", "r.h5ad", lambda b, g: in_layer(cells(b, g, condition=labels(b)), "X_recon")),
    "cellflow conditions": ("cellflow", "r.npz", lambda b, g: {**b, "gene_names": list(g)}),
    "state infer": ("state", "s_simulated.h5ad", lambda b, g: cells(b, g, "non-targeting", target_gene=labels(b))),
    "scgen": ("scgen", "r.h5ad", lambda b, g: cells(b, g, condition=labels(b))),
    "cell-eval": ("cell-eval", "pred.h5ad", lambda b, g: cells(b, g, "non-targeting", target=labels(b))),
    "graphvci": ("graphvci", "r.h5ad", lambda b, g: cells(b, g, "control", condition=labels(b))),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read_to_the_same_cells(
    form: str, screen: AnnData, blocks: dict[str, np.ndarray], tmp_path: Path
) -> None:
    tool, file, make = FORMS[form]
    path = save(tmp_path / file, make(blocks, screen.var_names))
    found = ul.io.read_predictions(path, tool, screen=screen)
    np.testing.assert_array_equal(np.asarray(found.X), stacked(blocks))
    assert found.var_names.equals(screen.var_names)
    expected = labels(blocks, "{}+ctrl" if "eval" in form and tool != "cell-eval" else "{}")
    assert found.obs["perturbation"].astype(str).tolist() == expected
    frame = ul.tl.evaluate(
        screen, predictions=found, metrics="pearson_change", baselines=[], gene_sets="all", n_permutations=19
    )
    assert set(frame.loc[frame["predictor"] == "prediction", "condition"]) == set(CONDITIONS)


def test_every_tool_is_tested() -> None:
    tested = {tool for tool, *_ in FORMS.values()} | {tool for tool, *_ in MEANS.values()} | {"chemcpa"}
    assert tested == set(ul.io.TOOLS)


Means = Callable[[dict[str, np.ndarray], pd.Index], Any]
MEANS: dict[str, tuple[str, str, Means]] = {
    "predict": ("gears", "r.pkl", lambda m, g: m),
    "predict with uncertainty": ("gears", "r.pkl", lambda m, g: (m, dict.fromkeys(m, np.float32(0.5)))),
    "arrays": ("gears", "r.npz", lambda m, g: m),
    "table": ("gears", "r.csv", lambda m, g: pd.DataFrame(m, index=g).T),
    "one row each": ("grape", "r.npz", lambda m, g: {name: profile[None] for name, profile in m.items()}),
}


@pytest.mark.parametrize("form", MEANS)
def test_mean_profiles_are_scored_where_a_mean_is_enough(
    form: str, screen: AnnData, blocks: dict[str, np.ndarray], tmp_path: Path
) -> None:
    tool, file, make = MEANS[form]
    means = {name.replace("G1", "G1_G3"): values.mean(axis=0) for name, values in blocks.items()}
    path = save(tmp_path / file, make(means, screen.var_names))
    genes = None if file == "r.csv" else list(screen.var_names)
    found = ul.io.read_predictions(path, tool, screen=screen, genes=genes)
    assert found.obs["perturbation"].tolist() == ["G1+G3", "G3", "G5"]
    np.testing.assert_allclose(np.asarray(found.X), np.vstack(list(means.values())), rtol=1e-6)
    options = {"baselines": [], "gene_sets": "all", "n_permutations": 19}
    frame = ul.tl.evaluate(screen, predictions=found[1:].copy(), **options)
    own = frame[frame["predictor"] == "prediction"]
    assert set(own["metric"]) == {"pearson_change", "pearson_change_centred"}
    assert own["value"].notna().all()


def test_all_metrics_for_which_a_mean_is_enough(screen: AnnData, blocks: dict[str, np.ndarray], tmp_path: Path) -> None:
    """The mean of predicted cells has the same values as the cells."""
    found = {
        tool: ul.io.read_predictions(
            save(tmp_path / f"{tool}.npz", {**given, "genes": list(screen.var_names)}), tool, screen=screen
        )
        for tool, given in {"scgpt": blocks, "grape": {n: b.mean(axis=0) for n, b in blocks.items()}}.items()
    }
    wanted = ["pearson_change", "pearson_change_centred", "mse_change", "weighted_mse", "weighted_r2_change"]
    wanted += ["discrimination_score_cosine", "centroid_accuracy"]
    values = {}
    for tool, predictions in found.items():
        frame = ul.tl.evaluate(
            screen,
            predictions=predictions,
            metrics=wanted,
            baselines=[],
            gene_sets="all",
            n_permutations=19,
            n_repeats=1,
        )
        own = frame[frame["predictor"] == "prediction"]
        values[tool] = own.set_index(["condition", "metric"])["value"]
        assert set(own["metric"]) == set(wanted)
        assert values[tool].notna().all()
    np.testing.assert_allclose(values["grape"], values["scgpt"][values["grape"].index], rtol=1e-5)


@pytest.mark.parametrize("form", ["obs", "graphvci obs", "dictionary", "triples", "columns"])
def test_drugs_doses_and_cell_types(form: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    genes = pd.Index([f"G{i}" for i in range(5)])
    names = ["A549_Nutlin-3_0.5", "A549_drug_x_10.0", "MCF7_Nutlin-3_0.5"]
    blocks = {name: rng.random((2, 5)).astype(np.float32) for name in names}
    if form == "obs":
        combined = cells(blocks, genes, cov_drug_dose_name=labels(blocks))
        path = save(tmp_path / "r.h5ad", in_obsm(combined, "ChemCPA_pred"))
    elif form == "graphvci obs":
        path = save(tmp_path / "r.h5ad", cells(blocks, genes, cov_pert_dose=labels(blocks)))
    elif form == "dictionary":
        path = save(tmp_path / "r.npz", {**blocks, "genes": list(genes)})
    elif form == "triples":
        triples = {name: [np.zeros((2, 5)), values, np.arange(3)] for name, values in blocks.items()}
        path = save(tmp_path / "r.pkl", {**triples, "genes": list(genes)})
    else:
        parts = [["A549", "Nutlin-3", "0.5"], ["A549", "drug_x", "10.0"], ["MCF7", "Nutlin-3", "0.5"]]
        columns = [[part[i] for part in parts for _ in range(2)] for i in range(3)]
        path = save(
            tmp_path / "r.h5ad",
            cells(blocks, genes, cell_type=columns[0], condition=columns[1], dose_val=columns[2]),
        )
    found = ul.io.read_predictions(path, "graphvci" if form in ("columns", "graphvci obs") else "chemcpa")
    assert found.obs["cell_type"].astype(str).tolist() == ["A549"] * 4 + ["MCF7"] * 2
    assert found.obs["perturbation"].astype(str).tolist()[::2] == ["Nutlin-3", "drug_x", "Nutlin-3"]
    assert found.obs["dose"].astype(float).tolist()[::2] == [0.5, 10.0, 0.5]
    np.testing.assert_array_equal(found[:, genes].X, stacked(blocks))


def test_concentrations_of_state_become_drugs_and_doses(tmp_path: Path) -> None:
    blocks = {"x": np.ones((3, 4), np.float32)}
    drugs = ["[('Nutlin', 500.0, 'nM')]", "[('B', 2.0, 'uM'), ('A', 0.001, 'mM')]", "[('DMSO_TF', 0.0, 'uM')]"]
    adata = cells(blocks, pd.Index(list("abcd")), drugname_drugconc=drugs, cell_line=["c"] * 3)
    found = ul.io.read_predictions(save(tmp_path / "r.h5ad", adata), "state")
    assert found.obs["perturbation"].tolist() == ["Nutlin", "A+B"]
    assert found.obs["dose"].tolist() == ["0.5", "1+2"]


def test_the_label_of_a_file_that_does_not_name_it(screen: AnnData, blocks, tmp_path: Path) -> None:
    for label in ("pred", "control"):  # as its tutorials write, and the label of the cells it starts from
        adata = cells({"G1": blocks["G1"]}, screen.var_names, condition=[label] * 6, cell_type=["B"] * 6)
        path = save(tmp_path / "r.h5ad", adata)
        found = ul.io.read_predictions(path, "scgen", screen=screen, perturbation="G1")
        assert found.obs["perturbation"].unique().tolist() == ["G1"]
        assert found.obs["cell_type"].unique().tolist() == ["B"]
        assert found.n_obs == 6


@pytest.mark.parametrize("tool", ["state", "cellflow"])
def test_files_without_gene_names(tool: str, screen: AnnData, blocks, tmp_path: Path) -> None:
    """STATE's `adata_pred.h5ad` has no `var`, and cells concatenated for CellFlow need none."""
    labelled = cells(
        blocks, screen.var_names, target_gene=labels(blocks), cell_type=["K562"] * 18, gem_group=["1"] * 18
    )
    nameless = AnnData(labelled.X, obs=labelled.obs)
    path = save(tmp_path / "adata_pred.h5ad", in_layer(nameless, "X_recon") if tool == "cellflow" else nameless)
    with pytest.raises(KeyError, match=r"none of the screen's genes.*\['0', '1', '2'\].*`genes=\[...\]`"):
        ul.io.read_predictions(path, tool, screen=screen)
    with pytest.raises(ValueError, match="40 genes, but 2 genes are named"):
        ul.io.read_predictions(path, tool, genes=["a", "b"])
    found = ul.io.read_predictions(path, tool, screen=screen, genes=screen.var_names[::-1])
    np.testing.assert_array_equal(np.asarray(found.X), stacked(blocks))
    assert found.obs["perturbation"].astype(str).tolist() == labels(blocks)


def test_labels_that_match_no_test_condition_are_named(screen: AnnData, blocks, tmp_path: Path) -> None:
    path = save(tmp_path / "r.h5ad", cells(blocks, screen.var_names, condition=labels(blocks, "sg{}")))
    found = ul.io.read_predictions(path, "cpa", screen=screen)
    for profile in (None, "vcc2026"):
        with pytest.raises(ValueError, match="holds sgG1, sgG3, sgG5, and the test conditions are G1, G3, G5.*as in"):
            ul.tl.evaluate(screen, predictions=found, baselines=[], profile=profile)


def test_expected_counts_are_normalised_as_the_screen(screen: AnnData, tmp_path: Path) -> None:
    rows = screen.obs["perturbation"].isin(CONDITIONS).to_numpy()
    counts = AnnData(screen.layers["counts"][rows], obs=screen.obs.loc[rows, ["perturbation"]], var=screen.var)
    counts.X = sparse.csr_matrix(counts.X)
    found = ul.io.read_predictions(save(tmp_path / "r.h5ad", counts), "cpa", screen=screen, counts=True)
    np.testing.assert_allclose(found.X.toarray(), screen.X[rows].toarray(), rtol=1e-5)


def test_genes_are_found_in_a_column_and_columns_named_as_in_the_screen(
    screen: AnnData, blocks, tmp_path: Path
) -> None:
    adata = cells(blocks, screen.var_names, condition=labels(blocks))
    adata.var["gene_names"], adata.var_names = adata.var_names, [f"ENSG{i}" for i in range(adata.n_vars)]
    screen.obs = screen.obs.rename(columns={"perturbation": "gene"}).assign(line="K562")
    screen.uns["unlasting"]["keys"] = {"perturbation_key": "gene", "control": "control", "cell_type_key": "line"}
    found = ul.io.read_predictions(save(tmp_path / "r.h5ad", adata), "gears", screen=screen)
    assert found.obs["gene"].astype(str).tolist() == labels(blocks)
    assert found.obs["line"].unique().tolist() == ["K562"]
    assert found.var_names.equals(screen.var_names)


class Surprise:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (print, ("run",))


def test_what_cannot_be_read_gets_the_way_out(screen: AnnData, blocks, tmp_path: Path, capsys) -> None:
    genes = list(screen.var_names)
    with pytest.raises(KeyError, match="no reader for 'gear'. Did you mean 'gears'"):
        ul.io.read_predictions(tmp_path / "x.npz", "gear")
    with pytest.raises(FileNotFoundError, match="There is no file"):
        ul.io.read_predictions(tmp_path / "x.npz", "gears")
    danger = save(tmp_path / "danger.pkl", {"A": Surprise()})
    with pytest.raises(ValueError, match="refused for safety.*numpy.savez"):
        ul.io.read_predictions(danger, "gears")
    assert "run" not in capsys.readouterr().out
    with pytest.raises(ValueError, match="holds a list"):
        ul.io.read_predictions(save(tmp_path / "list.pkl", [1]), "gears")
    nameless = save(tmp_path / "nameless.npz", blocks)
    with pytest.raises(ValueError, match="does not name its 40 genes"):
        ul.io.read_predictions(nameless, "gears")
    with pytest.raises(ValueError, match="3 genes are named"):
        ul.io.read_predictions(nameless, "gears", genes=["a", "b", "c"])
    short = save(tmp_path / "s.npz", {"pred": stacked(blocks), "pert_cat": ["G1", "G3"], "genes": genes})
    with pytest.raises(ValueError, match="18 predictions with 2 labels"):
        ul.io.read_predictions(short, "gears")
    with pytest.raises(ValueError, match="without 'pert_cat'"):
        ul.io.read_predictions(save(tmp_path / "p.npz", {"pred": stacked(blocks)}), "gears", genes=genes)
    with pytest.raises(ValueError, match="different numbers of genes"):
        ul.io.read_predictions(save(tmp_path / "d.npz", {"A": np.ones(3), "B": np.ones(4)}), "gears", genes=genes)
    (tmp_path / "x.txt").write_text("")
    with pytest.raises(ValueError, match="ends in '.txt'"):
        ul.io.read_predictions(tmp_path / "x.txt", "gears")
    with pytest.raises(ValueError, match="no '.h5ad' file"):
        ul.io.read_predictions(nameless, "cpa")
    unlabelled = save(tmp_path / "u.h5ad", cells(blocks, screen.var_names, thing=labels(blocks)))
    with pytest.raises(ValueError, match="Name it 'perturbation'"):
        ul.io.read_predictions(unlabelled, "cpa")
    controls = save(tmp_path / "c.h5ad", cells(blocks, screen.var_names, condition=["ctrl"] * 18))
    with pytest.raises(ValueError, match="control cells only"):
        ul.io.read_predictions(controls, "cpa")
    few = save(tmp_path / "f.h5ad", cells(blocks, screen.var_names, condition=labels(blocks))[:, :30].copy())
    with pytest.raises(KeyError, match="lack 10 genes among the screen's 40.*Compare on shared genes"):
        ul.io.read_predictions(few, "cpa", screen=screen)
    wrong = save(tmp_path / "w.npz", {"A549": np.ones(2), "genes": ["a", "b"]})
    with pytest.raises(ValueError, match="'celltype_drug_dose'"):
        ul.io.read_predictions(wrong, "chemcpa")
    screen.uns["unlasting"]["keys"]["cell_type_key"] = "unlasting_split"
    right = save(tmp_path / "r.h5ad", cells(blocks, screen.var_names, condition=labels(blocks)))
    with pytest.raises(KeyError, match="no cell type.*Add a column 'cell_type'"):
        ul.io.read_predictions(right, "cpa", screen=screen)
