from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from unlasting.cli._app import command
from unlasting.cli._files import read_cells
from unlasting.cli._options import PRESETS, Accelerator, AsJson, Quiet, Seed, choice


@command
def reproduce(
    experiment: Annotated[
        str, typer.Argument(help="adamson, norman, sciplex3, ood-drugs, fig5 or fig6.", show_default=False)
    ],
    data: Annotated[
        Path | None,
        typer.Option(help="The screen as h5ad or zarr, with raw counts; downloaded by default.", exists=True),
    ] = None,
    preset: Annotated[str, choice(PRESETS, "The recipe.")] = "paper",
    short: Annotated[bool, typer.Option("--short", help="The laptop recipe: small networks and few steps.")] = False,
    accelerator: Accelerator = "auto",
    seed: Seed = 0,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Run a published experiment, and show its numbers beside the printed ones.

    Example: `unlasting reproduce norman --short`
    """
    from unlasting._reproduce import reproduce as run

    adata = None if data is None else read_cells(data)
    tables = run(experiment, adata, preset=preset, short=short, accelerator=accelerator, seed=seed)
    if as_json:
        typer.echo(json.dumps({name: json.loads(table.to_json(orient="records")) for name, table in tables.items()}))
        return
    for name, table in tables.items():
        typer.echo(f"{name}:\n{table.to_string(index=False, float_format='{:.4f}'.format, na_rep='')}")
