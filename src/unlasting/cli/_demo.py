from __future__ import annotations

from pathlib import Path

import typer

from unlasting._files import replacing
from unlasting.cli._app import INTERRUPTED, command
from unlasting.cli._files import may_write
from unlasting.cli._options import Accelerator, AsJson, Force, MaxSteps, Output, Quiet, Seed
from unlasting.cli._output import say, summary


@command
def demo(
    output: Output = Path("unlasting_demo"),
    max_steps: MaxSteps = None,
    accelerator: Accelerator = "auto",
    seed: Seed = 0,
    force: Force = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train on a real screen, predict held-out perturbations, and compare with simple baselines.

    The screen ships with the package: 25 knock-outs in THP-1 cells (Papalexi et al. 2021). Seven are held out, and none of
    their cells is used in training. It takes a few minutes on two CPU cores.

    Example: `unlasting demo -o my_folder`
    """
    may_write(output, force, is_folder=True)
    import unlasting as ul

    adata = ul.datasets.papalexi()
    ul.pp.split(adata, "reference")
    ul.pp.prepare(adata)
    ul.pp.grn(adata)
    ul.UnlastingModel.setup_anndata(adata)
    model = ul.UnlastingModel(adata)
    model.train(max_steps=max_steps, accelerator=accelerator, seed=seed, show_progress=not quiet)
    if getattr(model.trainer, "interrupted", False):
        raise typer.Exit(INTERRUPTED)
    model.save(output / "model", overwrite=force)
    model.predict(adata, seed=seed, show_progress=not quiet)
    scores = ul.tl.evaluate(adata, seed=seed)
    clearest = str(scores.loc[scores["no_effect"].where(scores["metric"] == "e_distance").idxmax(), "condition"])
    ul.tl.bimodality(adata, conditions=[clearest])

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
    say({**{name: str(path) for name, path in files.items()}, "summary": summary(adata)}, as_json)
