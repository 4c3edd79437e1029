from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from unlasting.cli._app import INTERRUPTED, command
from unlasting.cli._files import may_write, prepare, read_cells, read_prior
from unlasting.cli._options import (
    FOLDER_OF_MODEL,
    MODES,
    PRESETS,
    SPLITS,
    Accelerator,
    AsJson,
    File,
    Force,
    Layer,
    MaxSteps,
    Model,
    Quiet,
    Seed,
    SymbolsKey,
    choice,
    with_labels,
)
from unlasting.cli._output import say

VALIDATION = "_validation_score"

PRIORS = ("default", "go", "reactome", "string")
"""Shipped sources, known before the package is imported."""


@command
@with_labels
def train(
    file: File,
    labels: dict[str, Any],
    model: Model = FOLDER_OF_MODEL,
    split: Annotated[
        str | None,
        choice(
            SPLITS,
            "Kind of split; by default the existing split. Without one all conditions are trained, and predictions cannot "
            "be evaluated.",
        ),
    ] = None,
    test: Annotated[
        list[str] | None, typer.Option(help="With --split: a name to hold out, else drawn. May be repeated.")
    ] = None,
    val: Annotated[
        list[str] | None, typer.Option(help="With --split: a name for validation, else drawn. May be repeated.")
    ] = None,
    prior: Annotated[
        list[str] | None,
        typer.Option(
            help="Prior knowledge about genes: default (go, reactome and string), one of these, none, a csv or tsv table of edges "
            "or numbers, or an scGPT folder. May be repeated."
        ),
    ] = None,
    targets: Annotated[list[str] | None, typer.Option(help="A further gene to predict later. May be repeated.")] = None,
    layer: Layer = None,
    library_size_key: Annotated[str | None, typer.Option(help="Column of obs with the full library size.")] = None,
    symbols_key: SymbolsKey = None,
    n_top_genes: Annotated[
        int, typer.Option(help="Highly variable genes to keep, besides the targets.", min=1)
    ] = 2_000,
    mode: Annotated[str, choice(MODES, "Effect of a gene target.")] = "knockout",
    preset: Annotated[str, choice(PRESETS, "The recipe.")] = "default",
    max_steps: MaxSteps = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="File for the state of the training, in case the process is killed.")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="File from --checkpoint; repeat all other options.", exists=True, dir_okay=False)
    ] = None,
    accelerator: Accelerator = "auto",
    seed: Seed = 0,
    force: Force = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Prepare a screen with raw counts, train on it, and save the model together with the prepared cells.

    An interruption (Ctrl-C) ends the training, and the current weights are saved.

    Example: `unlasting train screen.h5ad --split unseen_perturbation --model my_model`

    Example: `unlasting train screen.h5ad --split leave_one_out --test STAT1 --test JAK2`

    Example: `unlasting train drugs.h5ad --split unseen_drug --dose-key dose --smiles-key smiles --prior none`
    """
    if split is None and (test or val):
        raise typer.BadParameter("they need --split, the kind of split.", param_hint="--test, --val")
    priors = prior or ["default"]
    known = _prior_names()
    for one in priors:
        if one not in known and not Path(one).exists():
            raise typer.BadParameter(
                f"{one!r} is none of {', '.join(known[:-1])} and {known[-1]}, and no file or folder.",
                param_hint="--prior",
            )
    if "none" in priors and len(priors) > 1:
        raise typer.BadParameter("none cannot be combined with another.", param_hint="--prior")
    may_write(model, force, is_folder=True)
    import unlasting as ul
    from unlasting.model._saving import check_place
    from unlasting.screen import TEST, Cells, ScreenKeys

    check_place(model, force, save_anndata=True)
    adata = read_cells(file, layer)
    if split is None:
        ScreenKeys.restart(adata, **labels).write(adata)
    else:
        given = {("key_added" if name == "split_key" else name): value for name, value in labels.items()}
        parts: dict[str, Any] = {"test": test, "val": val}
        if split == "unseen_dose":
            parts = {part: names and [_number(name) for name in names] for part, names in parts.items()}
        ul.pp.split(adata, split, **parts, **given, seed=seed)
    prepare(adata, n_top_genes=n_top_genes, library_size_key=library_size_key, symbols_key=symbols_key)
    if ScreenKeys.read(adata).smiles_key is not None:
        ul.pp.molecules(adata)
    sources = [read_prior(one) for one in priors if one != "none"]
    ul.pp.grn(
        adata,
        prior=sources if len(sources) > 1 else sources[0] if sources else None,
        targets=targets or None,
        response_fdr=ul.module.PAPER_RESPONSE_FDR if preset == "paper" else None,
    )
    ul.UnlastingModel.setup_anndata(adata, mode=mode)
    trained = ul.UnlastingModel(adata, preset=preset)
    trained.train(
        max_steps=max_steps,
        accelerator=accelerator,
        seed=seed,
        checkpoint=checkpoint,
        resume=resume,
        show_progress=not quiet,
    )
    trained.save(model, overwrite=force, save_anndata=True)
    keys, cells = ScreenKeys.read(adata), Cells.read(adata, ScreenKeys.read(adata))
    part = keys.split(adata)
    found: dict[str, Any] = {"model": str(model), "n_cells": adata.n_obs, "n_genes": adata.n_vars}
    held_out = {c: rows for c, rows in cells.conditions.items() if part is not None and TEST in part[rows]}
    found["held_out"] = [str(condition) for condition in held_out if condition.perturbation != keys.control]
    scores = {name: frame.min().item() for name, frame in (trained.history or {}).items() if name.endswith(VALIDATION)}
    found["best_validation_scores"] = {name.removesuffix(VALIDATION): round(best, 4) for name, best in scores.items()}
    found["next"] = f"unlasting predict --model {shlex.quote(str(model))} -o predicted.h5ad"
    say(found, as_json)
    if getattr(trained.trainer, "interrupted", False):
        raise typer.Exit(INTERRUPTED)


def _prior_names() -> list[str]:
    """Name all sources. Others than the shipped ones can be registered only where the package is imported already."""
    package = sys.modules.get("unlasting.pp")
    return [*(PRIORS if package is None else package.PRIORS), "none"]


def _number(text: str) -> str | float:
    """Read a dose, or leave a name."""
    try:
        return float(text)
    except ValueError:
        return text
