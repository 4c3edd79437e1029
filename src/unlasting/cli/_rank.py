from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unlasting.cli._app import command
from unlasting.cli._files import TABLES, may_write, require_model, write_table
from unlasting.cli._options import (
    FOLDER_OF_MODEL,
    Accelerator,
    AsJson,
    CellTypes,
    Dose,
    Force,
    Model,
    Output,
    Perturbations,
    Quiet,
)
from unlasting.cli._output import say, say_table

SHOWN = 20


@command
def rank(
    model: Model = FOLDER_OF_MODEL,
    output: Output = Path("rank.csv"),
    perturbation: Perturbations = None,
    dose: Dose = None,
    cell_type: CellTypes = None,
    toward: Annotated[
        list[str] | None,
        typer.Option(help="A gene that should rise; by default the size of the effect counts. May be repeated."),
    ] = None,
    accelerator: Accelerator = "auto",
    force: Force = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Rank perturbations by the predicted effect, with intervals, false discovery rates and trust: an in-silico screen.

    Without --perturbation, all targets in the training screen are ranked.

    Example: `unlasting rank --model my_model -p STAT1 -p JAK2 -p JAK2+STAT1 --toward CD274`
    """
    may_write(output, force, suffixes=tuple(TABLES))
    require_model(model)
    import unlasting as ul

    trained = ul.UnlastingModel.load(model, accelerator=accelerator)
    names = perturbation or [name for names in trained.targets.values() for name in names]
    table = ul.tl.rank(trained, names, cell_type=cell_type or None, dose=dose or None, toward=toward or None)
    write_table(table, output)
    found = {"ranking": str(output), "n_conditions": len(table)}
    if as_json:
        say({**found, "rows": table.to_dict("records")}, as_json)
    else:
        say_table(table.head(SHOWN).drop(columns="criterion"))
        say(found, as_json)
