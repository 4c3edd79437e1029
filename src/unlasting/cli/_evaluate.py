from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unlasting.cli._app import command
from unlasting.cli._files import TABLES, may_write, read_cells, write_table
from unlasting.cli._options import AsJson, File, Force, Output, Quiet, Seed
from unlasting.cli._output import say, summary


@command
def evaluate(
    file: File,
    layer: Annotated[str, typer.Option(help="Layer of FILE with the generated cells.")] = "unlasting",
    predictions: Annotated[
        Path | None,
        typer.Option(help="Generated cells from any tool, in a second h5ad or zarr.", exists=True),
    ] = None,
    output: Output = Path("scores.csv"),
    figures: Annotated[
        Path | None, typer.Option(help="Folder for figures of the scores and of the changes in expression.")
    ] = None,
    seed: Seed = 0,
    force: Force = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Evaluate generated cells in held-out conditions beside simple baselines and the noise floor.

    FILE is an output from `unlasting predict`, or any prepared screen with its split.

    Example: `unlasting evaluate predicted.h5ad -o scores.csv`

    Example: `unlasting evaluate my_model/adata.h5ad --predictions cells_of_another_tool.h5ad`
    """
    may_write(output, force, suffixes=tuple(TABLES))
    if figures is not None:
        may_write(figures, force, is_folder=True)
    import unlasting as ul

    adata = read_cells(file)
    if "keys" not in adata.uns.get("unlasting", {}):
        raise ValueError(
            f"{str(file)!r} was not prepared: it has no recorded keys. Run `unlasting train {file}` first, then give the "
            "output from `unlasting predict` or the `adata.h5ad` in the model folder."
        )
    generated = None if predictions is None else read_cells(predictions)
    scores = ul.tl.evaluate(adata, layer=layer if generated is None else None, predictions=generated, seed=seed)
    write_table(scores, output)
    if figures is not None:
        figures.mkdir(parents=True, exist_ok=True)
        ul.pl.scores(adata, save=figures / "scores.png", show=False)
        ul.pl.heatmap(adata, save=figures / "heatmap.png", show=False)
    tables = adata.uns["unlasting"]
    n_left_out = int((tables["score_left_out"]["predictor"] == "").sum())
    found = {
        "scores": str(output),
        "n_conditions": len(tables["score_conditions"]) + n_left_out,
        "n_scored": int(tables["score_conditions"]["scored"].sum()),
        "summary": summary(adata),
    }
    say(found, as_json)
