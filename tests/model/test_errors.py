"""Every refusal names the argument, the value and the way out, and leaves the user's object as it was."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from unlasting._keys import split_hash
from unlasting.model import UnlastingModel

QUIET = {"show_progress": False}


@pytest.fixture
def small(screen):
    return screen(n_cells=120)


def poke(adata, value: float, row: int = 3) -> None:
    values = adata.X.toarray()
    values[row, 5] = value
    adata.X = sparse.csr_matrix(values)


def relabel(adata, column: str, **changes: str) -> None:
    adata.obs[column] = pd.Categorical(adata.obs[column].astype(str).replace(changes))


def no_controls(adata):
    relabel(adata, "perturbation", control="G7")


def empty_part(adata):
    relabel(adata, "perturbation", G7="G7+")


def repeated_target(adata):
    relabel(adata, "perturbation", G7="G7+G7")


def missing_label(adata):
    adata.obs["perturbation"] = adata.obs["perturbation"].astype(object).where(np.arange(adata.n_obs) != 4, np.nan)


def type_without_controls(adata):
    types = adata.obs["cell_type"].astype(str)
    types[(adata.obs["perturbation"] == "G3").to_numpy()] = "NK"
    adata.obs["cell_type"] = types.astype("category")


def controls_in_test(adata):
    split = adata.obs["unlasting_split"].astype(str)
    split[(adata.obs["perturbation"] == "control").to_numpy()] = "test"
    adata.obs["unlasting_split"] = split.astype("category")


def nothing_perturbed_in_training(adata):
    split = adata.obs["unlasting_split"].astype(str)
    split[(adata.obs["perturbation"] != "control").to_numpy()] = "test"
    adata.obs["unlasting_split"] = split.astype("category")


def strange_split(adata):
    relabel(adata, "unlasting_split", test="holdout")


def changed_split(adata):
    split = adata.obs["unlasting_split"].astype(str).to_numpy()
    adata.uns["unlasting"]["prepare"] = {"split_hash": split_hash(adata.obs_names, split)}
    split[0] = "train" if split[0] != "train" else "test"
    adata.obs["unlasting_split"] = split


def raw_counts(adata):
    adata.X = sparse.csr_matrix(np.round(10 * adata.X.toarray()))


def only_zeros(adata):
    adata.X = sparse.csr_matrix(adata.shape, dtype=np.float32)


def repeated_genes(adata):
    adata.var_names = ["G0", *adata.var_names[:-1]]


def repeated_cells(adata):
    adata.obs_names = ["cell7", *adata.obs_names[1:]]


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
    no_controls: r"`control='control'`.*Unperturbed cells are needed",
    empty_part: r"'G7\+' has an empty part",
    repeated_target: r"'G7\+G7' repeats a target",
    missing_label: "no perturbation label",
    type_without_controls: "`cell_type_key` 'NK'.*add controls, drop these cells",
    controls_in_test: r"No control cell is labelled 'train'.*`pp.split`",
    nothing_perturbed_in_training: "No perturbed cell is labelled 'train'",
    strange_split: r"'holdout'.*only 'train', 'val' and 'test'",
    changed_split: r"have changed since `pp.prepare`.*Run `pp.prepare`",
    raw_counts: r"whole numbers only, as raw counts.*pp.prepare",
    only_zeros: "only zeros",
    repeated_genes: r"gene name 'G0' is repeated.*var_names_make_unique",
    repeated_cells: r"cell name 'cell7' is repeated.*obs_names_make_unique",
    another_graph: r"do not begin with the 60 genes.*Call `pp.grn",
    target_outside_the_graph: r"targets \['TFX'\] are no nodes.*Call `pp.grn",
    edge_to_nowhere: r"'GENE\?'.*(no node|nodes)",
}


@pytest.mark.parametrize("change", SCREENS, ids=lambda f: f.__name__)
def test_setup_refuses_a_screen(small, unchanged, change):
    change(small)
    same = unchanged(small)
    with pytest.raises(ValueError, match=SCREENS[change]):
        UnlastingModel.setup_anndata(small, cell_type_key="cell_type")
    same()


@pytest.mark.parametrize(("value", "message"), [(np.nan, "NaN"), (np.inf, "infinite"), (-0.5, "negative values")])
@pytest.mark.parametrize("row", [3, 2_400])
@pytest.mark.parametrize("form", ["csr", "dense"])
def test_setup_refuses_values(screen, unchanged, value, message, row, form):
    adata = screen(n_cells=max(row + 10, 120))
    poke(adata, value, row)
    if form == "dense":
        adata.X = adata.X.toarray()
    same = unchanged(adata)
    with pytest.raises(ValueError, match=message):
        UnlastingModel.setup_anndata(adata)
    same()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"control": "contrl"}, ValueError, "`control='contrl'`.*Did you mean 'control'"),
        ({"perturbation_key": "perturbed"}, KeyError, "`perturbation_key` is 'perturbed'.*Did you mean 'perturbation'"),
        ({"cell_type_key": "celltype"}, KeyError, "`cell_type_key` is 'celltype'.*Did you mean 'cell_type'"),
        ({"batch_key": "lane"}, KeyError, "`batch_key` is 'lane'"),
        ({"layer": "lognorm"}, KeyError, "`layer` is 'lognorm'"),
        ({"mode": "overexpression"}, ValueError, "`mode` is 'overexpression'; choose one of"),
    ],
)
def test_setup_refuses_arguments(small, unchanged, arguments, error, message):
    same = unchanged(small)
    with pytest.raises(error, match=message):
        UnlastingModel.setup_anndata(small, **arguments)
    same()


def test_setup_refuses_views_and_empty_objects(small):
    with pytest.raises(ValueError, match=r"view of another AnnData.*adata.copy\(\)"):
        UnlastingModel.setup_anndata(small[:50])
    with pytest.raises(ValueError, match="empty: 0 cells x 60 genes"):
        UnlastingModel.setup_anndata(small[:0].copy())
    with pytest.raises(ValueError, match="empty: 120 cells x 0 genes"):
        UnlastingModel.setup_anndata(small[:, :0].copy())
    with pytest.raises(TypeError, match="must be an AnnData, not ndarray"):
        UnlastingModel.setup_anndata(np.ones((3, 3)))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"preset": "papper"}, ValueError, r"`preset` is 'papper'; choose one of.*Did you mean 'paper'"),
        ({"widht": 3}, TypeError, "'widht'.*Did you mean 'width'"),
        ({"solver": "adam"}, ValueError, "`solver` is 'adam'.*'adams'"),
        ({"mask_rule": "none"}, ValueError, "`mask_rule` is 'none'.*'bridge'"),
        ({"n_steps": 0}, ValueError, "`n_steps` is 0; at least 1"),
    ],
)
def test_the_model_refuses_options(small, options, error, message):
    UnlastingModel.setup_anndata(small)
    with pytest.raises(error, match=message):
        UnlastingModel(small, **options)


def test_untrained_models_predict_nothing(small, build, unchanged):
    model = build(small)
    same = unchanged(small)
    for call in (model.predict, model.encode, model.get_latent_representation, lambda: model.generate("G3")):
        with pytest.raises(RuntimeError, match=r"not trained yet. Call `model.train\(\)`"):
            call()
    same()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"perturbations": "STAT1"}, "Nothing is known of the target 'STAT1'.*pp.grn"),
        ({"perturbations": ["G3", "G99+TFX"]}, "Nothing is known of the target 'G99'.*Did you mean 'G9'"),
        ({"perturbations": "G3+G3"}, "'G3\\+G3' repeats a target"),
        ({"perturbations": "G3", "n_cells": 0}, "`n_cells` is 0; at least 1"),
        ({"perturbations": "G3", "n_cells": -4}, "`n_cells` is -4"),
        ({"perturbations": "G3", "cell_type": "NK"}, r"`cell_type='NK'`.*\['B', 'T'\].*`controls`"),
        ({"perturbations": "G3", "batch": "lane9"}, "`batch='lane9'`"),
        ({"perturbations": []}, "`perturbations` is empty"),
    ],
)
def test_generate_refuses(either, arguments, message):
    with pytest.raises(ValueError, match=message):
        either.generate(**arguments, **QUIET)


def test_predict_refuses_an_unknown_perturbation(model, controls, unchanged):
    same = unchanged(controls)
    with pytest.raises(ValueError, match="Nothing is known of the target 'STAT1'"):
        model.predict(controls, perturbation="STAT1", **QUIET)
    same()


def test_predict_refuses_other_genes(either, controls, unchanged):
    for cells, message in (
        (controls[:, ::-1].copy(), r"same order. Pass `adata\[:, model.get_var_names\(\)\].copy\(\)`"),
        (controls[:, 1:].copy(), "1 of the 60 genes of the model are missing, 'G0' the first"),
    ):
        same = unchanged(cells)
        with pytest.raises(ValueError, match=message):
            either.predict(cells, **QUIET)
        with pytest.raises(ValueError, match=message):
            either.generate("G3", controls=cells, **QUIET)
        same()
    turned = controls[:, ::-1].copy()
    either.predict(turned[:, either.get_var_names()].copy(), perturbation="G3", indices=[0], **QUIET)  # the way out


def test_predict_refuses_raw_counts_and_faulty_values(model, controls, unchanged):
    counts = controls.copy()
    counts.X = sparse.csr_matrix(np.round(10 * counts.X.toarray()))
    faulty = controls.copy()
    poke(faulty, np.nan)
    for cells, message in ((counts, "raw counts"), (faulty, "NaN")):
        same = unchanged(cells)
        for call in (model.predict, model.encode, lambda a: model.generate("G3", controls=a, **QUIET)):
            with pytest.raises(ValueError, match=message):
                call(cells)
        same()


def test_predict_refuses_a_cell_type_without_controls(model, controls, adata, unchanged):
    cells = adata[adata.obs["perturbation"] == "G3"].copy()
    cells.obs["cell_type"] = "NK"
    same = unchanged(cells)
    with pytest.raises(ValueError, match=r"'NK'.*(controls|Add some)"):
        model.predict(cells, **QUIET)
    same()


def test_generate_refuses_controls_that_are_none(model, adata):
    with pytest.raises(ValueError, match=r"`controls` holds cells labelled.*only controls \('control'\)"):
        model.generate("G3", controls=adata[:40].copy(), **QUIET)


def test_predict_refuses_what_is_not_there(model, adata, unchanged):
    cells = adata[:40].copy()
    del cells.obs["cell_type"]
    same = unchanged(cells)
    with pytest.raises(KeyError, match="`cell_type_key` is 'cell_type'"):
        model.predict(cells, **QUIET)
    with pytest.raises(IndexError, match="`indices`"):
        model.predict(adata[:40].copy(), indices=[3, 400], **QUIET)
    same()
