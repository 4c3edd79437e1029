"""The command line: a few lines over the API.

Progress and messages go to the standard error, results to the standard output. A deliberate error is one line and exit
code 1; wrong usage is exit code 2, and an interruption 130.
"""

from __future__ import annotations

import json
import os
import shlex
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from unlasting._files import replacing
from unlasting.screen import (
    TEST,
    Cells,
    ScreenKeys,
    check_log_normalised,
    expression,
    listed,
    logger,
    not_none,
    use_plain_strings,
)

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from unlasting import UnlastingModel

METRICS = {"e_distance": "E-dist.", "emd": "EMD", "pearson_change": "Pearson"}
INTERRUPTED = 130
VALIDATION = "_validation_score"
GENE_SETS = {"all": "all", "de20": "DE20", "de40": "DE40"}


class Commands(TyperGroup):
    """Commands with deliberate errors in one line; other errors keep their traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except (ValueError, KeyError, TypeError, IndexError, RuntimeError, ImportError, OSError) as error:
            if not isinstance(error, OSError) and not _is_deliberate(error):
                raise
            typer.secho(f"Error: {error}", fg="red", err=True)
            raise typer.Exit(1) from error


app = typer.Typer(
    name="unlasting",
    cls=Commands,
    help="Predict, cell by cell, how cells respond to perturbations that nobody has measured.",
    epilog="Results go to the standard output, messages to the standard error. Exit codes: 0 done, 1 error, 2 wrong usage, 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    rich_markup_mode="markdown",
)


def _accelerator(name: str) -> str:
    """Refuse a missing device before the computation."""
    if name in ("auto", "cpu"):
        return name
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    there["gpu"] = any(there.values())
    if name not in there:
        raise typer.BadParameter(f"{name!r} is none of auto, cpu, gpu, cuda and mps. Choose one of them.")
    if not there[name]:
        raise typer.BadParameter(f"there is no {name!r} here; `unlasting doctor` names the devices.")
    return name


File = Annotated[Path, typer.Argument(help="A screen as h5ad or zarr.", exists=True, show_default=False)]
Model = Annotated[Path, typer.Option("--model", "-m", help="Folder for the saved model.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Path for the output.")]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing output.")]
AsJson = Annotated[bool, typer.Option("--json", help="Write the results as JSON, for other programs.")]
Seed = Annotated[int, typer.Option(help="Seed for all random numbers.", min=0)]
MaxSteps = Annotated[int | None, typer.Option(help="Training steps at most; by default as in the preset.", min=1)]
Accelerator = Annotated[str, typer.Option(help="Device: auto, cpu, gpu or mps.", callback=_accelerator)]
PerturbationKey = Annotated[str | None, typer.Option(help="Column of obs with the perturbation.")]
Control = Annotated[
    list[str] | None,
    typer.Option(help="Label for unperturbed cells, or a pattern such as 'non-targeting*'. May be repeated."),
]
Delimiter = Annotated[str | None, typer.Option(help="Separator between the targets in a combination.")]
CellTypeKey = Annotated[str | None, typer.Option(help="Column of obs with the cell type.")]
BatchKey = Annotated[str | None, typer.Option(help="Column of obs with the batch.")]
DoseKey = Annotated[str | None, typer.Option(help="Column of obs with the dose in uM.")]
SmilesKey = Annotated[str | None, typer.Option(help="Column of obs with the SMILES of the drug.")]


def _version(asked: bool) -> None:
    if asked:
        import unlasting

        typer.echo(f"unlasting {unlasting.__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Predict, cell by cell, how cells respond to perturbations that nobody has measured."""
    from rich.console import Console
    from rich.logging import RichHandler

    for handler in logger.handlers:
        if isinstance(handler, RichHandler):
            handler.console = Console(stderr=True)


@app.command()
def demo(
    output: Output = Path("unlasting_demo"),
    max_steps: MaxSteps = None,
    accelerator: Accelerator = "auto",
    seed: Seed = 0,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Train on a real screen, predict held-out perturbations, and compare with simple baselines.

    The screen ships with the package: 25 knock-outs in THP-1 cells (Papalexi et al. 2021). Seven are held out, and none of
    their cells is used in training. It takes a few minutes on two CPU cores.

    Example: `unlasting demo -o my_folder`
    """
    import unlasting as ul

    _may_write(output, force, is_folder=True)
    adata = ul.datasets.papalexi()
    ul.pp.split(adata, "reference")
    ul.pp.prepare(adata)
    ul.pp.grn(adata, prior="go")
    ul.UnlastingModel.setup_anndata(adata)
    model = ul.UnlastingModel(adata)
    model.train(max_steps=max_steps, accelerator=accelerator, seed=seed)
    if getattr(model.trainer, "interrupted", False):
        raise typer.Exit(INTERRUPTED)
    held_out = (adata.obs["unlasting_split"] == "test").to_numpy().nonzero()[0]
    model.predict(adata, indices=held_out, seed=seed)
    scores = ul.tl.evaluate(adata, seed=seed)
    clearest = str(scores.loc[scores["no_effect"].where(scores["metric"] == "e_distance").idxmax(), "condition"])
    ul.tl.bimodality(adata, conditions=[clearest])

    output.mkdir(parents=True, exist_ok=True)
    files = {
        "cells": output / "papalexi.h5ad",
        "scores": output / "scores.csv",
        "scores_figure": output / "scores.png",
        "bimodal_genes_figure": output / f"bimodal_genes_{clearest}.png",
        "model": output / "model",
    }
    with replacing(files["cells"]) as path:
        adata.write_h5ad(path, compression="gzip")
    scores.to_csv(files["scores"], index=False)
    ul.pl.scores(adata, save=files["scores_figure"], show=False)
    ul.pl.bimodal_genes(adata, clearest, save=files["bimodal_genes_figure"], show=False)
    model.save(files["model"], overwrite=force)
    _say({**{name: str(path) for name, path in files.items()}, "summary": _summary(adata)}, as_json)


@app.command()
def check(
    file: File,
    perturbation_key: PerturbationKey = None,
    control: Control = None,
    delimiter: Delimiter = None,
    cell_type_key: CellTypeKey = None,
    batch_key: BatchKey = None,
    dose_key: DoseKey = None,
    smiles_key: SmilesKey = None,
    as_json: AsJson = False,
) -> None:
    """Show controls, perturbations, doses, genes, scale and oddities in a screen, and the next command.

    Example: `unlasting check screen.h5ad --perturbation-key target_gene --control NT`
    """
    from unlasting.pp._check import overview

    given: dict[str, Any] = not_none(
        perturbation_key=perturbation_key,
        control=_one_or_several(control),
        delimiter=delimiter,
        cell_type_key=cell_type_key,
        batch_key=batch_key,
        dose_key=dose_key,
        smiles_key=smiles_key,
    )
    found = overview(_read(file), **given)
    words = ["unlasting", "train", str(file), *(["--split", found.split_kind] if found.split_kind else [])]
    if not found.cells["controls"]:
        words, given["control"] = ["unlasting", "check", str(file)], "LABEL"
    for name, value in given.items():
        for one in value if isinstance(value, list) else [value]:
            words += [f"--{name.replace('_', '-')}", one]
    found = replace(found, next_call=shlex.join(words))
    typer.echo(json.dumps(asdict(found), indent=2) if as_json else str(found))


@app.command()
def train(
    file: File,
    model: Model = Path("unlasting_model"),
    split: Annotated[
        str | None,
        typer.Option(
            help="Kind of split, such as unseen_perturbation or random; by default the existing split. Without one all "
            "conditions are trained, and predictions cannot be evaluated."
        ),
    ] = None,
    prior: Annotated[str, typer.Option(help="Prior for the gene graph: go, none, or an scGPT folder.")] = "go",
    perturbation_key: PerturbationKey = None,
    control: Control = None,
    delimiter: Delimiter = None,
    cell_type_key: CellTypeKey = None,
    batch_key: BatchKey = None,
    dose_key: DoseKey = None,
    smiles_key: SmilesKey = None,
    library_size_key: Annotated[str | None, typer.Option(help="Column of obs with the full library size.")] = None,
    n_top_genes: Annotated[int, typer.Option(help="Highly variable genes to keep, besides the targets.")] = 2_000,
    mode: Annotated[str, typer.Option(help="knockout, knockdown or activation.")] = "knockout",
    preset: Annotated[str, typer.Option(help="default, paper or paper-as-printed.")] = "default",
    max_steps: MaxSteps = None,
    accelerator: Accelerator = "auto",
    seed: Seed = 0,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Prepare a screen with raw counts, train on it, and save the model together with the prepared cells.

    An interruption (Ctrl-C) ends the training, and the current weights are saved.

    Example: `unlasting train screen.h5ad --split unseen_perturbation --model my_model`

    Example: `unlasting train drugs.h5ad --split unseen_drug --dose-key dose --smiles-key smiles --prior none`
    """
    import unlasting as ul
    from unlasting.model._saving import check_place

    _may_write(model, force, is_folder=True)
    check_place(model, force, save_anndata=True)
    adata = _read(file)
    given: dict[str, Any] = not_none(
        perturbation_key=perturbation_key,
        control=_one_or_several(control),
        delimiter=delimiter,
        cell_type_key=cell_type_key,
        batch_key=batch_key,
        dose_key=dose_key,
        smiles_key=smiles_key,
    )
    if split is None:
        ScreenKeys.restart(adata, **given).write(adata)
    else:
        ul.pp.split(adata, split, **given, seed=seed)
    _normalise(adata, n_top_genes=n_top_genes, library_size_key=library_size_key)
    if ScreenKeys.read(adata).smiles_key is not None:
        ul.pp.molecules(adata)
    ul.pp.grn(adata, prior=None if prior == "none" else prior)
    ul.UnlastingModel.setup_anndata(adata, mode=mode)
    trained = ul.UnlastingModel(adata, preset=preset)
    trained.train(max_steps=max_steps, accelerator=accelerator, seed=seed)
    trained.save(model, overwrite=force, save_anndata=True)
    keys, cells = ScreenKeys.read(adata), Cells.read(adata, ScreenKeys.read(adata))
    parts = keys.split(adata)
    found: dict[str, Any] = {"model": str(model), "n_cells": adata.n_obs, "n_genes": adata.n_vars}
    held_out = {c: rows for c, rows in cells.conditions.items() if parts is not None and TEST in parts[rows]}
    found["held_out"] = [str(condition) for condition in held_out if condition.perturbation != keys.control]
    scores = {name: frame.min().item() for name, frame in (trained.history or {}).items() if name.endswith(VALIDATION)}
    found["best_validation_scores"] = {name.removesuffix(VALIDATION): round(best, 4) for name, best in scores.items()}
    _say(found, as_json)
    if not as_json:
        typer.echo(f"next: unlasting predict --model {shlex.quote(str(model))} -o predicted.h5ad")
    if getattr(trained.trainer, "interrupted", False):
        raise typer.Exit(INTERRUPTED)


@app.command()
def predict(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="Cells with raw counts on the training genes; by default the training screen itself.",
            exists=True,
            show_default=False,
        ),
    ] = None,
    model: Model = Path("unlasting_model"),
    output: Output = Path("predicted.h5ad"),
    perturbation: Annotated[
        list[str] | None,
        typer.Option("--perturbation", "-p", help="Generate new cells under it. May be repeated."),
    ] = None,
    dose: Annotated[
        list[str] | None,
        typer.Option(help="Drug dose in uM: one for all perturbations, one for each, or several for one."),
    ] = None,
    n_cells: Annotated[int, typer.Option(help="New cells per perturbation and cell type.")] = 300,
    accelerator: Accelerator = "auto",
    seed: Seed = 0,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Write one generated cell beside every cell, or new cells under named perturbations.

    Example: `unlasting predict --model my_model`

    Example: `unlasting predict --model my_model -p STAT1 -p JAK2+STAT1 -o new_cells.h5ad`
    """
    import unlasting as ul

    if dose and not perturbation:
        raise typer.BadParameter(
            "it needs --perturbation: the cells in a screen have their own doses.", param_hint="--dose"
        )
    _may_write(output, force)
    trained = ul.UnlastingModel.load(model, accelerator=accelerator)
    adata = None if file is None else _prepared(_read(file), trained)
    if perturbation:
        keys = trained.keys
        controls = None if adata is None else adata[keys.labels(adata) == keys.control].copy()
        cells = trained.generate(perturbation, n_cells, dose=dose or None, controls=controls, seed=seed)
    else:
        cells = trained.adata if adata is None else adata
        trained.predict(cells, seed=seed)
    with replacing(output) as path:
        cells.write_h5ad(path, compression="gzip")
    _say({"cells": str(output), "n_cells": cells.n_obs}, as_json)


@app.command()
def evaluate(
    file: File,
    layer: Annotated[str, typer.Option(help="Layer of FILE with the generated cells.")] = "unlasting",
    predictions: Annotated[
        Path | None,
        typer.Option(help="Generated cells from any tool, in a second h5ad or zarr.", exists=True),
    ] = None,
    output: Output = Path("scores.csv"),
    seed: Seed = 0,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Evaluate generated cells in held-out conditions beside simple baselines and the noise floor.

    FILE is an output from `unlasting predict`, or any prepared screen with its split.

    Example: `unlasting evaluate predicted.h5ad -o scores.csv`

    Example: `unlasting evaluate my_model/adata.h5ad --predictions cells_of_another_tool.h5ad`
    """
    import unlasting as ul

    _may_write(output, force)
    adata = _read(file)
    if "keys" not in adata.uns.get("unlasting", {}):
        raise ValueError(
            f"{str(file)!r} was not prepared: it has no recorded keys. Run `unlasting train {file}` first, then give the "
            "output from `unlasting predict` or the `adata.h5ad` in the model folder."
        )
    generated = None if predictions is None else _read(predictions)
    scores = ul.tl.evaluate(adata, layer=layer if generated is None else None, predictions=generated, seed=seed)
    with replacing(output) as path:
        scores.to_csv(path, index=False)
    tables = adata.uns["unlasting"]
    n_left_out = int((tables["score_left_out"]["predictor"] == "").sum())
    found = {
        "scores": str(output),
        "n_conditions": len(tables["score_conditions"]) + n_left_out,
        "n_scored": int(tables["score_conditions"]["scored"].sum()),
        "summary": _summary(adata),
    }
    _say(found, as_json)


@app.command()
def reproduce(
    experiment: Annotated[
        str, typer.Argument(help="adamson, norman, sciplex3, ood-drugs, fig5 or fig6.", show_default=False)
    ],
    data: Annotated[
        Path | None,
        typer.Option(help="The screen as h5ad or zarr, with raw counts; downloaded by default.", exists=True),
    ] = None,
    preset: Annotated[str, typer.Option(help="paper, paper-as-printed or default.")] = "paper",
    short: Annotated[bool, typer.Option("--short", help="The laptop recipe: small networks and few steps.")] = False,
    accelerator: Accelerator = "auto",
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Run a published experiment, and show its numbers beside the printed ones.

    Example: `unlasting reproduce norman --short`
    """
    from unlasting._reproduce import reproduce as run

    adata = None if data is None else _read(data)
    tables = run(experiment, adata, preset=preset, short=short, accelerator=accelerator, seed=seed)
    if as_json:
        typer.echo(json.dumps({name: json.loads(table.to_json(orient="records")) for name, table in tables.items()}))
        return
    for name, table in tables.items():
        typer.echo(f"{name}:\n{table.to_string(index=False, float_format='{:.4f}'.format, na_rep='')}")


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Show versions, devices and optional packages in this installation."""
    from unlasting._doctor import examine

    findings = examine()
    _say(findings, as_json)
    if findings["problems"]:
        raise typer.Exit(1)


def _is_deliberate(error: BaseException) -> bool:
    """Return whether this package raised an error itself."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__")).startswith("unlasting")


def _may_write(path: Path, force: bool, *, is_folder: bool = False) -> None:
    """Refuse an output before the computation, not after it."""
    if path.exists() and not force:
        raise FileExistsError(f"{str(path)!r} exists already. Pass --force to replace it, or another place.")
    if path.exists() and path.is_dir() != is_folder:
        raise FileExistsError(f"{str(path)!r} is a {'file' if is_folder else 'folder'}. Choose another place.")
    path.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"{str(path.absolute().parent)!r} is read-only. Choose another place.")


def _one_or_several(labels: list[str] | None) -> str | list[str] | None:
    """Read a repeatable option: one label, a list, or nothing."""
    return labels[0] if labels and len(labels) == 1 else labels or None


def _read(file: Path) -> AnnData:
    import anndata

    form, read = ("zarr", anndata.read_zarr) if file.is_dir() else ("h5ad", anndata.read_h5ad)
    try:
        adata = read(file)
    except (OSError, KeyError, ValueError) as error:
        message = f"{str(file)!r} cannot be read as {form}: {error}. Give a complete h5ad file or zarr store."
        raise ValueError(message) from error
    use_plain_strings(adata)
    return adata


def _normalise(adata: AnnData, **options: Any) -> None:
    """Call `pp.prepare`; log-normalised values without counts are kept, and said."""
    import unlasting as ul
    from unlasting.pp._genes import find_counts

    if find_counts(adata)[0] is None:
        try:
            check_log_normalised(expression(adata), "`adata.X`")
        except ValueError:
            ul.pp.prepare(adata, **options)  # says what is wrong
        logger.warning(
            "The file holds no raw counts: its values are taken as log-normalised, and all genes are kept. If they are "
            "something else, put raw counts into X or layers['counts']."
        )
        return
    ul.pp.prepare(adata, **options)


def _prepared(adata: AnnData, model: UnlastingModel) -> AnnData:
    """Normalise cells as in training, unless `pp.prepare` has done so."""
    if "prepare" not in adata.uns.get("unlasting", {}) and "target_sum" in model.preparation_:
        model.prepare(adata)
    return adata


def _summary(adata: AnnData) -> list[dict[str, Any]]:
    """Get the scores over conditions, one row per predictor, gene set and metric."""
    summary: pd.DataFrame = adata.uns["unlasting"]["score_summary"]
    return json.loads(summary.to_json(orient="records"))  # missing values become null


def _say(results: dict[str, Any], as_json: bool) -> None:
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
            typer.echo(f"{name.replace('_', ' ')}: {listed(value) if isinstance(value, list) else value}")


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
