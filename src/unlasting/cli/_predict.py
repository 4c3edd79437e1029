from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from unlasting.cli._app import command
from unlasting.cli._files import may_write, prepare_as, read_cells, require_model, write_cells
from unlasting.cli._options import (
    CELLS,
    FOLDER_OF_MODEL,
    Accelerator,
    AsJson,
    CellTypes,
    Dose,
    Force,
    Layer,
    Model,
    NCells,
    Output,
    Perturbations,
    Quiet,
    Seed,
    choice,
)
from unlasting.cli._output import say


@command
def predict(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="Cells with raw counts on the training genes; by default the training screen itself.",
            exists=True,
            show_default=False,
        ),
    ] = None,
    model: Model = FOLDER_OF_MODEL,
    output: Output = Path("predicted.h5ad"),
    perturbation: Perturbations = None,
    dose: Dose = None,
    cell_type: CellTypes = None,
    batch: Annotated[str | None, typer.Option(help="Batch of new cells; all by default.")] = None,
    n_cells: NCells = 300,
    cells: Annotated[
        str, choice(CELLS, "Cells to predict: held-out ones (perturbed ones without a split), or every cell.")
    ] = "test",
    layer: Layer = None,
    accelerator: Accelerator = "auto",
    seed: Seed = 0,
    force: Force = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Write one generated cell beside every held-out cell, or new cells under named perturbations.

    Example: `unlasting predict --model my_model`

    Example: `unlasting predict --model my_model -p STAT1 -p JAK2+STAT1 -o new_cells.h5ad`
    """
    for name, value in (("--dose", dose), ("--cell-type", cell_type), ("--batch", batch)):
        if value and not perturbation:
            raise typer.BadParameter(
                "it needs --perturbation: the cells in a screen have their own labels.", param_hint=name
            )
    may_write(output, force, suffixes=(".h5ad", ".zarr"))
    require_model(model)
    import unlasting as ul

    trained = ul.UnlastingModel.load(model, accelerator=accelerator)
    adata = None if file is None else prepare_as(trained, read_cells(file, layer))
    if perturbation:
        keys = trained.keys
        controls = None if adata is None else adata[keys.labels(adata) == keys.control].copy()
        options: dict[str, Any] = {
            "dose": dose or None,
            "cell_type": cell_type or None,
            "batch": batch,
            "controls": controls,
        }
        found = trained.generate(perturbation, n_cells, **options, seed=seed, show_progress=not quiet)
    else:
        found = trained.adata if adata is None else adata
        trained.predict(found, cells=cells, seed=seed, show_progress=not quiet)
    write_cells(found, output)
    names = [f"unlasting_{name}" for name in ("expected_error", "p_better")]
    perturbations = found.obs[trained.keys.perturbation_key].astype(str)
    trust = found.obs[names].groupby(perturbations).mean().dropna()
    summary = {"cells": str(output), "n_cells": found.n_obs}
    if as_json:
        say({**summary, "trust": trust.to_dict("index")}, as_json)
    else:
        say(summary, as_json)
