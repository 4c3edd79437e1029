from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unlasting.cli._app import command
from unlasting.cli._files import may_write, read_cells, require_model
from unlasting.cli._options import Accelerator, AsJson, Force, Output, Quiet, Seed
from unlasting.cli._output import say


@command
def report(
    model: Annotated[Path, typer.Argument(help="Folder for the saved model.", show_default=False)],
    file: Annotated[
        Path | None,
        typer.Argument(help="The screen as h5ad or zarr; by default the one saved with the model.", exists=True),
    ] = None,
    output: Output = Path("unlasting_report.html"),
    gene_sets: Annotated[
        Path | None,
        typer.Option(help="Pathways as a GMT file: name, description and genes, separated by tabs.", exists=True),
    ] = None,
    n_top: Annotated[int, typer.Option(help="Number of predictions with their genes.", min=1)] = 15,
    accelerator: Accelerator = "auto",
    seed: Seed = 0,
    force: Force = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Write one HTML file with data, split, training, scores, trust, top predictions and versions.

    FILE is the screen of the model, or an output from `unlasting predict`. The file needs no network, so it can be sent.

    Example: `unlasting report my_model predicted.h5ad -o report.html`
    """
    may_write(output, force, suffixes=(".html",))
    require_model(model)
    import unlasting as ul

    pathways = None
    if gene_sets is not None:
        lines = [line.split("\t") for line in gene_sets.read_text(encoding="utf-8").splitlines() if line.strip()]
        pathways = {name: genes for name, _, *genes in lines}
    trained = ul.UnlastingModel.load(model, accelerator=accelerator)
    adata = None if file is None else read_cells(file)
    place = ul.report(trained, adata, output, gene_sets=pathways, n_top=n_top, seed=seed)
    say({"report": str(place)}, as_json)
