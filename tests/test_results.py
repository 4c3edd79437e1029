"""The tables of results in the guide are written from the files with the scores."""

from __future__ import annotations

import importlib
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
    for name in ("vcc2026", "run", "drugs"):
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
