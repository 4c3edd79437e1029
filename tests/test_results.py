"""The tables of results in the guide are written from the files with the scores."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def vcc2026(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "quality"))
    yield importlib.import_module("vcc2026")
    for name in ("vcc2026", "run", "drugs", "stamps"):
        sys.modules.pop(name, None)


def test_the_tables_of_the_challenge_come_from_its_file(vcc2026: Any) -> None:
    frame = vcc2026.stored(vcc2026.RESULTS / "vcc2026.csv")
    assert set(frame["screen"]) == set(vcc2026.screens(ROOT))
    for file, table in (("vcc2026", vcc2026.overview(frame)), ("vcc2026_apart", vcc2026.apart(frame))):
        assert (vcc2026.RESULTS / f"{file}.md").read_text(encoding="utf-8") == table
    page = (ROOT / "docs" / "guide" / "results.md").read_text(encoding="utf-8")
    assert page.count("results/vcc2026") == 2


def test_best_scores_are_bold_and_ranks_that_differ_are_named(vcc2026: Any) -> None:
    distance = {"a": 0.1, "b": 0.2, "c": 0.3, "pairs only": 0.0}
    challenge = {"a": 0.0, "b": 0.5, "c": 0.9}
    rows = [("e_distance", name, value, 4 - 3 * (name == "pairs only")) for name, value in distance.items()]
    rows += [("emd", *row[1:]) for row in rows] + [("zero_fraction_error", *row[1:]) for row in rows]
    rows += [(metric, name, value, 4) for metric in ("lfc_nmae", "mean") for name, value in challenge.items()]
    frame = pd.DataFrame(rows, columns=["metric", "predictor", "score", "n_conditions"])
    frame = frame.assign(value=frame["score"], screen="S", cell_type="", n_evaluated=5)
    lines = vcc2026.overview(frame).splitlines()
    assert lines[2:6] == [
        "| a | **0.10** / 0.10 / 0.00 |",
        "| b | 0.20 / 0.20 / 0.50 |",
        "| c | 0.30 / 0.30 / **0.90** |",
        "| pairs only | 0.00 / 0.00 / - |",
    ]
    assert lines[6:] == [
        "| ranks by E and by mean | -1.00 |",
        "| ranks by EMD and by mean | -1.00 |",
        "| conditions with a signal | 4 of 5 |",
        "| challenge metrics with a scale | 1 of 6 |",
    ]
    assert vcc2026.apart(frame).splitlines()[2:] == [
        "| S | a | 1 / 1 / 3 of 3 | 0.10 | `lfc_nmae` | 0.00 (0.47) |",
        "| S | c | 3 / 3 / 1 of 3 | 0.30 | `lfc_nmae` | 0.90 (0.47) |",
    ]
    silent = frame.assign(n_evaluated=5).replace({"n_conditions": {4: 0, 1: 0}})
    silent.loc[silent["metric"].isin(["e_distance", "emd"]), "score"] = float("nan")
    lines = vcc2026.overview(silent).splitlines()
    assert lines[2] == "| a | (0.100) / (0.100) / 0.00 |"
    assert lines[8] == "| conditions with a signal | 0 of 5 |"


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "quality"))
    yield importlib.import_module("rows_tables")
    for name in ("rows_tables", "vcc2026", "run", "drugs", "stamps"):
        sys.modules.pop(name, None)


@pytest.mark.slow
def test_the_tables_of_the_rows_come_from_their_files(tables: Any) -> None:
    assert {tables.source_name(row) for row in tables.QUESTIONS} == set(tables.stored("scores")["row"])
    assert tables.place("scores").with_suffix(".md").read_text(encoding="utf-8") == tables.report()
    assert "results/rows.md" in (ROOT / "docs" / "guide" / "results.md").read_text(encoding="utf-8")


def test_rows_weigh_conditions_and_fill_gaps_as_described(tables: Any) -> None:
    """Scores with a floor of 1 and no effect at 3: a value of 2 is a score of .5."""
    values = {
        ("N1", "a", "A"): {"unlasting": 2.0, "zero-aware mean shift": 2.5, "linear": 1.5},
        ("N1", "a", "TMSB4X"): {"unlasting": 1.0, "zero-aware mean shift": 3.0},
        ("K2", "x", "I"): {"unlasting": 2.0, "zero-aware mean shift": 3.0},
        ("K2", "y", "I"): {"unlasting": 1.0, "zero-aware mean shift": 3.0},
    }
    rows = [
        {"row": row, "unit": unit, "condition": condition, "cell_type": "", "dose": "", "predictor": predictor,
         "gene_set": gene_set, "metric": metric, "value": value, "floor": 1.0, "no_effect": 3.0}
        for (row, unit, condition), found in values.items()
        for predictor, value in {**found, "no effect": 3.0}.items()
        for metric in tables.DISTANCES
        for gene_set in ("all", "de20")
    ]  # fmt: skip
    scores = pd.DataFrame(rows)
    large = (scores["row"] == "K2") & (scores["unit"] == "y")
    scores.loc[large, ["value", "floor", "no_effect"]] *= 100
    picked = {("N1", "a"): "linear", ("K2", "x"): "no effect", ("K2", "y"): "zero-aware mean shift"}
    choices = pd.DataFrame([(*key, name, m) for key, name in picked.items() for m in tables.DISTANCES])
    choices.columns = ["row", "unit", "predictor", "metric"]
    lines = tables.summary(scores, choices).set_index(["row", "metric"])
    assert set(lines.index.get_level_values("row")) == {"N1", "N2", "K2"}
    first, without, subsets = (lines.loc[row, "e_distance"] for row in ("N1", "N2", "K2"))
    assert first["ours"] == pytest.approx(0.25)
    assert first["n"] == 2
    assert without["n"] == 1
    assert without["ours"] == pytest.approx(0.5)
    # "linear" is missing for one condition, where the fallback has no effect: (.25 + 1) / 2
    assert first["values"]["linear"] == first["values"]["selector"] == pytest.approx(0.625)
    # subsets count the same, however large their distances
    assert subsets["ours"] == pytest.approx(0.25)
    assert subsets["values"]["selector"] == pytest.approx(1.0)
    single = tables.best_single(lines.reset_index())
    assert single == {"e_distance": "linear", "emd": "linear"}
    rules = tables.rules_table(lines.reset_index()).splitlines()
    assert rules[-1] == "| (d) score with its interval above 1 | none | none | none |"


def test_slopes_and_shares_are_ratios_of_sums(tables: Any) -> None:
    terms = {"product": [1.0, 3.0], "predicted": [2.0, 6.0], "true": [1.0, 1.0], "noise": [0.1, 0.3]}
    slope = tables.sizes_table(pd.DataFrame({"row": "P1", **terms})).splitlines()[2]
    assert slope == "| P1 | 2 | 0.50 [0.50, 0.50] | 1.00 | 20.00 |"
    shares = {"n_trained": 1, "predictor": "p", "product": [1.0, 1.5], "true": [2.0, 2.0]}
    assert tables.transfer_table(pd.DataFrame(shares)).splitlines()[2] == "| 1 | 0.62 (0.50) |"


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "quality"))
    yield importlib.import_module("results")
    names = ("results", "results_figures", "paper", "networks", "rows_tables", "vcc2026", "run", "drugs", "stamps")
    for name in names:
        sys.modules.pop(name, None)


@pytest.mark.slow
def test_pages_come_from_the_scores(results: Any) -> None:
    """README and the page of results hold what the command writes, and every figure that they show exists."""
    lines = results.questions()
    table = results.overview_table(lines)
    assert table in (ROOT / "README.md").read_text(encoding="utf-8")
    assert (results.RESULTS / "questions.md").read_text(encoding="utf-8") == results.sections(lines)
    assert (results.RESULTS / "overview.md").read_text(encoding="utf-8").startswith(results.overview_table(lines))
    assert (results.RESULTS / "slopes.md").read_text(encoding="utf-8") == results.slopes() + "\n"
    for row in lines["row"].unique():
        assert all((results.FOLDER / f"question_{row}_{theme}.svg").exists() for theme in ("light", "dark"))
    included = re.findall(r"\{include\} (\S+)", (ROOT / "docs" / "guide" / "results.md").read_text(encoding="utf-8"))
    assert all((ROOT / "docs" / "guide" / name).resolve().exists() for name in included)


@pytest.mark.slow
def test_questions_are_grouped_by_the_paired_interval_and_losses_come_first(results: Any) -> None:
    lines = results.questions()
    places = [list(results.GROUPS).index(name) for name in lines.drop_duplicates("row")["group"]]
    assert places == sorted(places)
    for _, part in lines.groupby("row"):
        is_behind, is_ahead = (part["gap_low"] > 0).any(), (part["gap_high"] < 0).any()
        assert part["group"].iloc[0] == ("behind" if is_behind else "ahead" if is_ahead else "level")
        rivals = [{k: v for k, v in values.items() if k != "selector"} for values in part["values"]]
        assert list(part["best_score"]) == [min(values.values()) for values in rivals]
        # the difference of means over conditions, since floor and no effect are shared by all predictors
        for line in part.to_dict("records"):
            own, best = (line["terms"][name].mean(axis=0) for name in ("unlasting", line["best"]))
            expected = (own[0] - own[1]) / (own[2] - own[1]) - (best[0] - best[1]) / (best[2] - best[1])
            assert line["gap"] == pytest.approx(expected)


def test_the_table_of_the_published_recipe_comes_from_its_scores(results: Any) -> None:
    rows = pd.read_csv(results.PUBLISHED)
    paper = sys.modules["paper"]
    assert results.PUBLISHED.with_suffix(".md").read_text(encoding="utf-8") == paper.table(rows)
    assert "results/paper.md" in (ROOT / "docs" / "guide" / "method.md").read_text(encoding="utf-8")
    assert set(results.trainings(rows)) <= set(
        importlib.import_module("stamps").stored().query("table == 'paper'")["part"]
    )


def test_only_the_text_between_the_marks_changes(results: Any) -> None:
    page = "a\n<!-- make results: begin -->\nold\n<!-- make results: end -->\nb\n"
    assert results.between(page, "new \\1") == page.replace("old", "new \\1")


@pytest.mark.slow
def test_tables_from_several_models_are_refused(results: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stamps = sys.modules["stamps"]
    monkeypatch.setattr(stamps, "STAMPS", tmp_path / "stamps.csv")
    stamps.stamp("rows", ["P1", "K1"])
    stamps.stamp("vcc2026", ["Kang"])
    assert stamps.finished("rows") == {"P1", "K1"}
    shared = stamps.one_model({"rows": ["P1", "K1"], "vcc2026": ["Kang"]})
    assert shared["model"] == stamps.fingerprint()
    assert re.fullmatch(r"[0-9a-f]{7,}\+?|unknown", shared["commit"])
    with pytest.raises(ValueError, match=r"rows D1: without a stamp.*make results"):
        stamps.one_model({"rows": ["P1", "D1"]})
    monkeypatch.setattr(stamps, "fingerprint", lambda: "another")
    stamps.stamp("rows", ["K1"])
    assert len(stamps.stored()) == 3
    assert stamps.finished("rows") == {"K1"}
    with pytest.raises(ValueError, match=r"several models: .*\(rows K1\).*make results"):
        stamps.one_model({"rows": ["P1", "K1"], "vcc2026": ["Kang"]})


def test_the_fingerprint_follows_the_code_and_no_words(results: Any) -> None:
    words = sys.modules["stamps"].words
    code = '"""A module."""\n\n\ndef f(x):\n    """Add."""\n    return x + 1  # one\n'
    same = '"""Another text."""\ndef f(x):\n    "Add one."\n    return (x + 1)\n'
    assert list(words(code)) != list(words(code.replace("1", "2")))
    assert list(words(code)) != list(words(code.replace("x", "y")))
    assert list(words(code.replace("Add.", "Add it."))) == list(words(same))


@pytest.mark.slow
def test_a_short_run_is_compared_with_the_intervals(
    results: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Scores in the folder of a short run: the committed ones fit, and those of a worse model do not."""
    frames = {name: results.stored(name) for name in ("scores", "choices")}
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    for worse in (False, True):

        def score(command: list[Any], env: dict[str, str], check: bool, worse: bool = worse) -> None:
            assert tuple(command[command.index("--only") + 1 :]) == results.SHORT
            for name, frame in frames.items():
                part = frame[frame["row"].isin(results.SHORT)].copy()
                if name == "scores" and worse:
                    part.loc[part["predictor"] == "unlasting", "value"] *= 3
                part.to_csv(Path(env["RESULTS"]) / sys.modules["rows_tables"].place(name).name, index=False)
                frame.to_csv(tmp_path / sys.modules["rows_tables"].place(name).name, index=False)

        monkeypatch.setattr(results.subprocess, "run", score)
        assert results.short() == int(worse)


def test_the_networks_are_compared_in_words(results: Any) -> None:
    networks = sys.modules["networks"]
    frame = networks.stored()
    assert networks.sentence(frame) in (ROOT / "README.md").read_text(encoding="utf-8")
    assert (results.RESULTS / "networks.md").read_text(encoding="utf-8") == networks.report(frame)
    worse = frame.assign(difference_low=0.1, difference_high=0.2)
    n = len(networks.compared(frame))
    assert networks.sentence(worse).endswith(f"the networks in 0 and the closed form in {n}.")
