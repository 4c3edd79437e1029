"""The page that maps the names of metrics names only metrics that exist."""

from __future__ import annotations

import re
from pathlib import Path

from cell_eval2.catalog import CATALOG
from scperteval.calibrators import CALIBRATORS
from scperteval.protocols.table import PROTOCOLS

from unlasting import metrics

PAGE = (Path(__file__).parents[1] / "docs" / "guide" / "metrics.md").read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("| `")]
MAP = [row for row in ROWS if len(row) == 5]


def names(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


def test_names_exist_in_every_package() -> None:
    ours = {*metrics.METRICS, *metrics.VCC2026, *metrics.__all__, "_l2"}
    theirs = {*CATALOG, "discrimination_score_cosine"}
    assert len(MAP) > 20
    for row in MAP:
        assert set(names(row[0])) <= ours, row
        assert set(names(row[1])) <= theirs, row
        assert set(names(row[3])) <= {*PROTOCOLS, *CALIBRATORS}, row


def test_the_names_of_the_challenge_are_those_of_the_profile() -> None:
    mapped = {name: peer for row in MAP for name in names(row[0]) for peer in names(row[1])}
    assert {name: mapped[name] for name in metrics.VCC2026} == metrics.VCC2026


def test_recommended_metrics_exist() -> None:
    section = PAGE.split("## Which metric to look at")[1].split("##")[0]
    recommended = {name for line in section.splitlines() if line.count("|") == 4 for name in names(line.split("|")[2])}
    assert recommended - {"false_positives"} <= {*metrics.METRICS, *metrics.VCC2026}
    assert "correlation_error" in recommended
