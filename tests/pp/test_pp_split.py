"""Splits: what is held out, that labels alone decide, and what is refused."""

from __future__ import annotations

import itertools

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import given, settings
from hypothesis import strategies as st

from unlasting import datasets, pp
from unlasting.screen import ScreenKeys, split_hash

COMBOS = ["A+B", "A+C", "C+B", "D+E", "E+F", "A+D"]


def screen(labels: dict[str, int], cell_types: int = 1) -> AnnData:
    """Make an AnnData with so many cells of each label in each cell type."""
    cells = [(label, f"type{k}") for k in range(cell_types) for label, n in labels.items() for _ in range(n)]
    obs = pd.DataFrame(cells, columns=["perturbation", "kind"], index=[f"c{i}" for i in range(len(cells))])
    return AnnData(np.ones((len(cells), 3), dtype=np.float32), obs=obs)


def combo_screen() -> AnnData:
    return screen({"control": 30, **dict.fromkeys("ABCDEF", 20), **dict.fromkeys(COMBOS, 20)})


def parts(adata: AnnData) -> dict[str, set[str]]:
    """Collect the parts that each label appears in."""
    return adata.obs.groupby("perturbation", observed=True)["unlasting_split"].agg(set).to_dict()


def test_random_holds_out_cells_of_every_condition() -> None:
    adata = screen({"control": 100, "A": 50, "B": 20}, cell_types=2)
    pp.split(adata, "random", cell_type_key="kind", test_fraction=0.3, val_fraction=0.1)
    counts = adata.obs.groupby(["perturbation", "kind", "unlasting_split"], observed=True).size()
    for label, n in {"control": 100, "A": 50, "B": 20}.items():
        for kind in ("type0", "type1"):
            assert counts[label, kind].to_dict() == {"train": 0.6 * n, "val": 0.1 * n, "test": 0.3 * n}


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6), seed=st.integers(0, 5))
def test_random_leaves_cells_of_every_condition_in_training(sizes: list[int], seed: int) -> None:
    adata = screen({"control": 40, "A": 20, **{f"T{i}": n for i, n in enumerate(sizes)}})
    pp.split(adata, "random", seed=seed, test_fraction=0.5)
    assert all("train" in found for found in parts(adata).values())


def test_what_is_held_out_is_named(caplog, monkeypatch) -> None:
    monkeypatch.setattr("unlasting.screen._logging.logger.propagate", True)
    names = [f"T{i}" for i in range(12)]
    adata = screen({"control": 30, **dict.fromkeys(names, 15)}, cell_types=3)

    def said(kind: str, **arguments: object) -> str:
        caplog.clear()
        with caplog.at_level("INFO"):
            pp.split(adata, kind, cell_type_key="kind", **arguments)
        return caplog.messages[-1]

    assert said("unseen_perturbation", test=["T1", "T5"], val="T2").endswith("90 cells test; test: T1, T5; val: T2.")
    many = said("unseen_perturbation", test=sorted(names)[:10], val_fraction=0.0)
    assert many.endswith("; test: T0, T1, T10, T11, T2, T3, T4, T5 and 2 more.")
    assert said("unseen_cell_type", test="type1", val="type0").endswith("; test: type1; val: type0.")
    assert said("random").endswith(" cells test.")  # of every condition


def test_what_had_to_go_with_a_held_out_combination_is_named(caplog, monkeypatch) -> None:
    monkeypatch.setattr("unlasting.screen._logging.logger.propagate", True)
    adata = combo_screen()
    with caplog.at_level("INFO"):
        pp.split(adata, "unseen_combo", n_seen=1, test=["A+B"], val_fraction=0.0)
    assert caplog.messages[-1].endswith("; test: A+B, B+C; also held out: B.")


def test_unseen_perturbations_are_whole_and_controls_train() -> None:
    adata = screen({"control": 30, **{f"T{i}": 15 for i in range(10)}}, cell_types=2)
    pp.split(adata, "unseen_perturbation", cell_type_key="kind")
    found = parts(adata)
    assert found.pop("control") == {"train"}
    assert sorted(min(p) for p in found.values()) == ["test"] * 3 + ["train"] * 6 + ["val"]
    assert all(len(p) == 1 for p in found.values())


def test_one_combination_in_either_order_is_one_condition() -> None:
    adata = screen({"control": 30, "A+B": 15, "B+A": 15, "A": 15, "B": 15, "C+ctrl": 15, "C": 15})
    for seed in range(5):
        pp.split(adata, "unseen_perturbation", seed=seed)
        found = parts(adata)
        assert found["A+B"] == found["B+A"]
        assert found["C"] == found["C+ctrl"]


def test_the_same_seed_gives_the_same_split_and_another_seed_another() -> None:
    first, second, other = (combo_screen() for _ in range(3))
    for adata, seed in ((first, 1), (second, 1), (other, 2)):
        pp.split(adata, "unseen_perturbation", seed=seed)
    assert (first.obs["unlasting_split"] == second.obs["unlasting_split"]).all()
    assert (first.obs["unlasting_split"] != other.obs["unlasting_split"]).any()


def test_only_labels_are_read() -> None:
    for kind in ("random", "unseen_perturbation", "unseen_combo"):
        adata, empty = combo_screen(), combo_screen()
        empty = AnnData(np.full(empty.shape, np.nan, dtype=np.float32), obs=empty.obs)
        pp.split(adata, kind)
        pp.split(empty, kind)
        assert list(adata.obs["unlasting_split"]) == list(empty.obs["unlasting_split"])


def test_the_order_of_the_cells_does_not_choose_the_conditions() -> None:
    adata = combo_screen()
    shuffled = adata[np.random.default_rng(0).permutation(adata.n_obs)].copy()
    for screen_ in (adata, shuffled):
        pp.split(screen_, "unseen_perturbation")
    assert parts(adata) == parts(shuffled)


def test_leave_one_out_takes_the_combinations_along() -> None:
    adata = combo_screen()
    pp.split(adata, "leave_one_out", test="A")
    found = parts(adata)
    assert {label for label, part in found.items() if part == {"test"}} == {"A", "A+B", "A+C", "A+D"}
    hidden = {label for label, part in found.items() if part == {"val"}}
    assert hidden
    targets = {label for label in hidden if "+" not in label}
    assert all(set(label.split("+")) & targets for label in hidden)


def test_unseen_combinations_have_so_many_singles_in_training() -> None:
    adata = combo_screen()
    for n_seen, seed in itertools.product(range(3), range(4)):
        pp.split(adata, "unseen_combo", n_seen=n_seen, seed=seed, test_fraction=0.2, val_fraction=0.1)
        found = {label: part.copy().pop() for label, part in parts(adata).items()}
        trained = {label for label, part in found.items() if part == "train"}
        anywhere = {name for label in trained for name in label.split("+")}
        report = adata.uns["unlasting"]["split"]
        for part in ("test", "val"):
            assert len(report[f"{part}_conditions"]) >= 1
            for label in report[f"{part}_conditions"]:
                written = label if label in found else "+".join(reversed(label.split("+")))
                assert found[written] == part
                seen = {name for name in label.split("+") if name in trained}
                assert len(seen) == n_seen
                assert not (set(label.split("+")) - seen) & anywhere
        canonical = {"+".join(sorted(label.split("+"))) for label, part in found.items() if part != "train"}
        listed = [*report["test_conditions"], *report["val_conditions"], *report["also_held_out"]]
        assert sorted(listed) == sorted(canonical)


def test_a_named_combination_is_held_out() -> None:
    adata = combo_screen()
    pp.split(adata, "unseen_combo", test=["B+A", "A+B"], val="D+E")
    found = parts(adata)
    assert found["A+B"] == {"test"}
    assert found["D+E"] == {"val"}
    assert sum(part != {"train"} for part in found.values()) == 2


def test_unseen_cell_types_keep_their_controls_and_their_shots() -> None:
    adata = screen({"control": 30, "A": 20, "B": 20}, cell_types=5)
    pp.split(adata, "unseen_cell_type", cell_type_key="kind", test=["type1"])
    held_out = adata.obs["kind"] == "type1"
    control = adata.obs["perturbation"] == "control"
    assert (adata.obs.loc[held_out & ~control, "unlasting_split"] == "test").all()
    assert (adata.obs.loc[control, "unlasting_split"] == "train").all()
    pp.split(adata, "unseen_cell_type", cell_type_key="kind", test=["type1"], n_shots=4)
    shots = adata.obs[held_out & ~control & (adata.obs["unlasting_split"] == "train")]
    assert shots["perturbation"].value_counts().to_dict() == {"A": 4, "B": 4}


def test_validation_never_leaves_a_single_trained_cell_type(caplog, monkeypatch) -> None:
    monkeypatch.setattr("unlasting.screen._logging.logger.propagate", True)
    for n_types, from_cells in {2: True, 3: True, 4: False}.items():
        adata = screen({"control": 30, "A": 20, "B": 40}, cell_types=n_types)
        caplog.clear()
        pp.split(adata, "unseen_cell_type", cell_type_key="kind", test="type0", val_fraction=0.1)
        assert any("fewer than two cell types" in text for text in caplog.messages) == from_cells
        perturbed = adata.obs[adata.obs["perturbation"] != "control"]
        assert set(adata.obs.loc[adata.obs["perturbation"] == "control", "unlasting_split"]) == {"train"}
        counts = perturbed.groupby(["kind", "perturbation", "unlasting_split"], observed=True).size().to_dict()
        trained = [f"type{i}" for i in range(1, n_types)]
        if from_cells:
            validated = {(kind, label, "val"): n for kind in trained for label, n in (("A", 2), ("B", 4))}
            assert {key: n for key, n in counts.items() if key[2] == "val"} == validated
            assert {key[0] for key in counts if key[2] == "train"} == set(trained)
        else:
            assert len({key[0] for key in counts if key[2] == "train"}) == 2
    adata = screen({"control": 30, "A": 20}, cell_types=3)
    pp.split(adata, "unseen_cell_type", cell_type_key="kind", test="type0", val="type1")
    assert set(
        adata.obs.loc[(adata.obs["kind"] == "type1") & (adata.obs["perturbation"] == "A"), "unlasting_split"]
    ) == {"val"}


def test_a_cell_type_without_controls_is_not_drawn() -> None:
    adata = screen({"control": 20, "A": 20}, cell_types=4)
    adata = adata[(adata.obs["kind"] != "type0") | (adata.obs["perturbation"] != "control")].copy()
    for seed in range(8):
        pp.split(adata, "unseen_cell_type", cell_type_key="kind", seed=seed)
        assert (adata.obs.loc[adata.obs["kind"] == "type0", "unlasting_split"] == "train").all()
    with pytest.raises(ValueError, match="'type0' has no control cells"):
        pp.split(adata, "unseen_cell_type", cell_type_key="kind", test="type0")


def test_less_than_one_perturbation_for_validation_is_none(caplog) -> None:
    """A tenth of nine: a whole one would be more than was asked for, and its effects would not be learnt."""
    adata = screen({"control": 30, **{f"T{i}": 20 for i in range(9)}})
    pp.split(adata, "unseen_perturbation", test="T3")
    assert parts(adata) == {name: {"test" if name == "T3" else "train"} for name in adata.obs["perturbation"].unique()}
    assert "10 % of 9 perturbations is less than one" in caplog.text
    assert not len(adata.uns["unlasting"]["split"]["val_conditions"])

    pp.split(adata, "unseen_perturbation", test="T3", val="T4")
    assert parts(adata)["T4"] == {"val"}
    pp.split(adata, "unseen_perturbation", test="T3", val_fraction=0.12)
    assert sorted(min(part) for part in parts(adata).values()) == ["test"] + ["train"] * 8 + ["val"]


def test_rare_conditions_are_not_drawn_but_may_be_named() -> None:
    adata = screen({"control": 30, "rare": 3, **{f"T{i}": 20 for i in range(6)}})
    for seed in range(8):
        pp.split(adata, "unseen_perturbation", seed=seed)
        assert parts(adata)["rare"] == {"train"}
    pp.split(adata, "unseen_perturbation", test=["rare"])
    assert parts(adata)["rare"] == {"test"}


@pytest.mark.slow
def test_reference_splits_are_fixed() -> None:
    for load, n_test, n_cells in [
        (datasets.papalexi, 7, 3910),
        (datasets.norman_mini, 10, 1000),
        (datasets.kang, 1, 698),
    ]:
        adata = load()
        pp.split(adata, "reference", seed=0)
        first = adata.obs["unlasting_split"].to_numpy()
        pp.split(adata, "reference", seed=3)
        assert (first == adata.obs["unlasting_split"].to_numpy()).all()
        report = adata.uns["unlasting"]["split"]
        assert (len(report["test_conditions"]), report["n_test"]) == (n_test, n_cells)
        assert report["n_val"] > 0


def test_the_reference_of_kang_holds_out_stimulated_cells_of_three_types() -> None:
    adata = datasets.kang()
    pp.split(adata, "reference")
    test = adata.obs[adata.obs["unlasting_split"] == "test"]
    assert set(test["cell_type"]) == {"CD14 Mono", "CD4 Memory T", "CD8 T"}
    assert set(test["perturbation"]) == {"IFNB"}


def test_what_is_written_survives_a_file(tmp_path) -> None:
    adata = combo_screen()
    pp.split(adata, "unseen_combo", n_seen=1, key_added="part", seed=3)
    adata.write_h5ad(tmp_path / "screen.h5ad")
    again = anndata.read_h5ad(tmp_path / "screen.h5ad")
    assert list(again.obs["part"]) == list(adata.obs["part"])
    assert set(again.obs["part"].cat.categories) == {"train", "val", "test"}
    report = again.uns["unlasting"]["split"]
    assert report["hash"] == split_hash(again.obs_names, again.obs["part"].to_numpy())
    assert (report["kind"], report["seed"]) == ("unseen_combo", 3)
    assert ScreenKeys.read(again).split_key == "part"


def test_a_backed_screen_can_be_split(tmp_path) -> None:
    combo_screen().write_h5ad(tmp_path / "screen.h5ad")
    adata = anndata.read_h5ad(tmp_path / "screen.h5ad", backed="r")
    pp.split(adata, "random")
    expected = pp.split(combo_screen(), "random", copy=True)
    assert list(adata.obs["unlasting_split"]) == list(expected.obs["unlasting_split"])


def test_a_copy_leaves_the_screen_as_it_is() -> None:
    adata = combo_screen()
    changed = pp.split(adata, "random", copy=True)
    assert "unlasting_split" in changed.obs
    assert "unlasting_split" not in adata.obs
    assert "unlasting" not in adata.uns


def test_faults_are_named_and_nothing_is_written() -> None:
    adata = combo_screen()
    for arguments, message in [
        ({"kind": "unseen"}, "`kind` is 'unseen'; choose one of"),
        ({"test": ["Z"]}, "`test` names 'Z', but no perturbed cell has this perturbation"),
        ({"test": ["A"], "val": ["A"]}, "`test` and `val` both name 'A'"),
        ({"test_fraction": 0.9}, "leave something for training"),
        ({"test_fraction": -0.1}, "neither may be negative"),
        ({"kind": "leave_one_out"}, "needs the target to leave out"),
        ({"kind": "leave_one_out", "test": "AA"}, "`test` names 'AA', but no perturbed cell has this target"),
        ({"kind": "random", "test": ["A"]}, "holds out cells of all of them"),
        ({"kind": "unseen_cell_type"}, "needs `cell_type_key`"),
        ({"kind": "unseen_cell_type", "cell_type_key": "knd"}, "Did you mean 'kind'"),
        ({"kind": "unseen_combo", "n_seen": 7}, "can be held out so that exactly 7"),
        ({"kind": "unseen_combo", "test": "A+F"}, "which is no combination of the screen"),
        ({"kind": "reference"}, "is for the shipped data sets"),
        ({"control": "contrl"}, "Did you mean 'control'"),
        ({"min_cells": 100}, "12 of them with fewer than 100"),
        ({"n_shots": -1}, "`n_shots` is -1"),
    ]:
        with pytest.raises((ValueError, KeyError), match=message):
            pp.split(adata, **arguments)
        assert "unlasting" not in adata.uns
        assert "unlasting_split" not in adata.obs


def test_a_screen_that_is_too_small_is_told_its_counts() -> None:
    adata = screen({"control": 30, "A": 20, "B": 20})
    with pytest.raises(ValueError, match="There are 2 perturbations with perturbed cells.*leaves 0 for training"):
        pp.split(adata, "unseen_perturbation", val_fraction=0.5)
    pp.split(adata, "unseen_perturbation", val_fraction=0)
    assert sorted(min(part) for part in parts(adata).values()) == ["test", "train", "train"]


def test_labels_that_cannot_be_read_are_named() -> None:
    for label, message in (("A++B", "empty part"), ("A+A", "repeats a target"), (None, "no perturbation label")):
        adata = screen({"control": 30, "A": 20})
        adata.obs["perturbation"] = adata.obs["perturbation"].astype(object)
        adata.obs.iloc[-1, 0] = label
        with pytest.raises(ValueError, match=message):
            pp.split(adata, "random")


def test_views_empty_screens_and_repeated_cells_are_refused() -> None:
    adata = combo_screen()
    with pytest.raises(ValueError, match="view of another AnnData"):
        pp.split(adata[:60], "random")
    with pytest.raises(ValueError, match="is empty: 0 cells"):
        pp.split(adata[:0].copy(), "random")
    adata.obs_names = ["c"] * adata.n_obs
    with pytest.raises(ValueError, match="obs_names_make_unique"):
        pp.split(adata, "random")
    with pytest.raises(TypeError, match="must be an AnnData, not DataFrame"):
        pp.split(adata.obs, "random")
