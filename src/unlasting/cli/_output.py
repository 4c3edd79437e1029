"""Results on the standard output."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

METRICS = {"e_distance": "E-dist.", "emd": "EMD", "pearson_change": "Pearson"}
GENE_SETS = {"all": "all", "de20": "DE20", "de40": "DE40"}


def summary(adata: AnnData) -> list[dict[str, Any]]:
    """Get the scores over conditions, one row per predictor, gene set and metric."""
    scores: pd.DataFrame = adata.uns["unlasting"]["score_summary"]
    return json.loads(scores.to_json(orient="records"))  # missing values become null


def say(results: dict[str, Any], as_json: bool) -> None:
    """Write results: one JSON object, or a table for the summary and a line for each other entry."""
    if as_json:
        typer.echo(json.dumps(results, indent=2))
        return
    for name, value in results.items():
        if name == "summary":
            _print_scores(value)
        elif isinstance(value, dict) and value:
            typer.echo(f"{name.replace('_', ' ')}:")
            for part, content in value.items():
                typer.echo(f"  {part}: {content}")
        elif value not in ([], {}):
            text = f"{', '.join(map(str, value[:8]))}{' ...' * (len(value) > 8)}" if isinstance(value, list) else value
            typer.echo(f"{name.replace('_', ' ')}: {text}")


def say_table(table: pd.DataFrame) -> None:
    """Print a table without its empty columns."""
    shown = table.loc[:, (table.notna() & (table != "")).any()]
    typer.echo(shown.to_string(index=False, float_format="{:.3g}".format))


def _print_scores(summary: list[dict[str, Any]]) -> None:
    """Print the scores over conditions: predictors in rows, metrics and gene sets in columns."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    rows = {(row["predictor"], row["metric"], row["gene_set"]): row for row in summary}
    columns = [(metric, genes) for metric in METRICS for genes in GENE_SETS]
    ceilings = {row["predictor"]: None for row in summary if row["is_ceiling"]}
    rivals = dict.fromkeys(row["predictor"] for row in summary if row["predictor"] not in ceilings)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("predictor")
    for metric, genes in columns:
        heading = METRICS[metric] if genes == "all" else ""
        table.add_column(f"{heading}\n{GENE_SETS[genes]}", justify="right")
    for predictor in [*rivals, *ceilings]:
        found = [rows.get((predictor, *column)) for column in columns]
        table.add_row(f"{predictor} (ceiling)" if predictor in ceilings else predictor, *map(_score, found))
    table.add_row("noise floor", *("1.00" if metric.startswith("pearson") else "0.00" for metric, _ in columns))
    Console().print(table)
    typer.echo(
        "E-distance and EMD: 0 is the noise floor (other true cells), 1 is no effect (control cells).\n"
        "Pearson of the mean change: 1 is the value for other true cells. Bold: best predictor."
    )
    best = Counter(row["predictor"] for column in columns for row in summary if _is_best(row, column))
    if best:
        typer.echo(
            f"Best score: {', '.join(f'{name} in {n}' for name, n in best.most_common())} of {best.total()} columns."
        )
    for predictor in rivals:
        _print_uncertainty(rows.get((predictor, *columns[0])))


def _is_best(row: dict[str, Any], column: tuple[str, str]) -> bool:
    return row["is_best"] and (row["metric"], row["gene_set"]) == column


def _score(row: dict[str, Any] | None) -> str:
    """Write a score, the best one bold."""
    if row is None or row["score"] is None:
        return ""
    return f"[bold]{row['score']:.2f}[/bold]" if row["is_best"] else f"{row['score']:.2f}"


def _print_uncertainty(row: dict[str, Any] | None) -> None:
    """Print the 95 % intervals over conditions for a score and for its difference from the reference."""
    if row is None or row["low"] is None:
        return
    text = f"{row['predictor']}: {row['score']:.2f} [{row['low']:.2f}, {row['high']:.2f}] over {row['n_conditions']} conditions"
    if row["difference_low"] is not None:
        text += f"; {row['difference']:+.2f} [{row['difference_low']:+.2f}, {row['difference_high']:+.2f}]"
        text += f" from {row['reference']}"
    if row["decided_by"]:
        text += f"; no better without {row['decided_by']}"
    typer.echo(f"{text}.")
