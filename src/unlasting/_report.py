"""A report on a model as one file: data, split, training, scores, trust, predictions and versions."""

from __future__ import annotations

import base64
import io
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.resources import files
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import jinja2
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from anndata import AnnData

from unlasting import pl, tl
from unlasting._files import replacing
from unlasting.baselines import BASELINES
from unlasting.pp._check import overview
from unlasting.screen import PREDICTION_KEY, TEST, UNS_KEY, ScreenKeys, to_memory
from unlasting.tl._screen import Screen, screen_of

if TYPE_CHECKING:
    from unlasting.model import UnlastingModel

CONDITION: Final = ["condition", "cell_type", "dose"]
PACKAGES: Final = ("unlasting", "scvi-tools", "torch", "anndata", "scanpy", "numpy", "pandas")
TRUSTED: Final = 0.6
"""Probability to be better than control cells, below which a prediction is marked."""
N_PATHWAYS: Final = 3
STYLE: Final[Any] = {"svg.fonttype": "path", "svg.hashsalt": "unlasting"}


def report(
    model: UnlastingModel,
    adata: AnnData | None = None,
    path: str | PathLike[str] = "unlasting_report.html",
    *,
    gene_sets: Mapping[str, Sequence[str]] | pd.DataFrame | None = None,
    n_top: int = 15,
    n_genes: int = 6,
    seed: int = 0,
) -> Path:
    """Write a report on a model and its screen as one HTML file, which needs no network.

    It has the screen as understood, split, training, scores beside baselines, trust, top predictions with genes and
    pathways, figures and versions. Stored scores are shown. Where there are none, held-out cells are predicted and evaluated on
    a copy of the screen.

    Parameters
    ----------
    model
        A trained model with its screen.
    adata
        The screen, prepared as for the model, with its split; the model's own if `None`.
    path
        The file.
    gene_sets
        Pathways for :func:`unlasting.tl.enrich`. Without them, no pathway is listed.
    n_top
        Number of predictions with their genes.
    n_genes
        Number of genes in each direction.
    seed
        Random seed for prediction and evaluation.

    Returns
    -------
    The path.

    Updates `model.adata.uns["unlasting"]["rank"]`, as :func:`unlasting.tl.rank` does.

    Raises
    ------
    ValueError
        If the model is not trained, or has no screen.
    """
    if adata is not None and not isinstance(adata, AnnData):
        raise TypeError(
            f"`adata` is a {type(adata).__name__}. Pass the screen, or name the file: `path={str(adata)!r}`."
        )
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"`path` is the folder {str(path)!r}. Name a file in it, such as 'report.html'.")
    if not model.is_trained:
        raise ValueError("The model is not trained. Run `model.train()` first.")
    own = screen_of(model)
    adata = own if adata is None else adata
    split = ScreenKeys.read(adata).split(adata)
    held_out = split is not None and bool((split == TEST).any())
    if held_out and "score_summary" not in adata.uns.get(UNS_KEY, {}):
        adata = to_memory(adata)
        if PREDICTION_KEY not in adata.layers:
            model.predict(adata, seed=seed, show_progress=False)
        tl.evaluate(adata, seed=seed)
    observed = Screen.read(adata, None).observed_conditions()
    asked = dict.fromkeys((condition.perturbation, condition.dose or None) for condition in observed)
    doses = [dose for _, dose in asked]
    ranking = tl.rank(model, [name for name, _ in asked], dose=doses if any(doses) else None)
    sections = {
        "data": _data(adata),
        "split": _split(adata, split),
        "training": _training(model),
        "scores": _scores(adata) if held_out else None,
        "trust": _trust(adata, ranking, held_out),
        "top": _top(model, ranking, n_top, n_genes, gene_sets),
        "versions": {"Python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "date": datetime.now(UTC).date().isoformat(),
        "model": str(model.summary_string).split("Training status")[0].strip(),
        "dataset": str(adata.uns.get(UNS_KEY, {}).get("dataset", "")),
        "threshold": TRUSTED,
    }
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = _number
    page = environment.from_string(files("unlasting").joinpath("_report.html").read_text(encoding="utf-8"))
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write_text(page.render(sections), encoding="utf-8")
    return path


def _data(adata: AnnData) -> dict[str, Any]:
    """Collect the facts about the screen."""
    found = overview(adata)
    lines = str(found).split("\noddities:")[0].splitlines()
    return {"facts": dict(line.split(": ", 1) for line in lines), "oddities": found.oddities}


def _split(adata: AnnData, split: Any) -> dict[str, Any] | None:
    """Count cells, and list the held-out conditions."""
    if split is None:
        return None
    recorded = adata.uns.get(UNS_KEY, {}).get("split", {})
    names = {part: list(map(str, recorded.get(f"{part}_conditions", ()))) for part in ("test", "val")}
    counts = pd.Series(split).value_counts()
    return {"kind": str(recorded.get("kind", "an own column")), "cells": counts.to_dict(), "conditions": names}


def _training(model: UnlastingModel) -> dict[str, Any]:
    """Get the steps, the best validation scores and the curves; nothing for the closed form alone."""
    history = {name: curve for name, curve in (model.history or {}).items() if len(curve)}
    validation = {name: curve.iloc[:, 0].astype(float) for name, curve in history.items() if "validation" in name}
    rows = [
        {"network": name.split("_")[0], "steps": int(curve.index.max()), "best": float(curve.min())}
        for name, curve in validation.items()
    ]
    return {"rows": rows, "figure": _picture(pl.history, model) if validation else ""}


def _scores(adata: AnnData) -> dict[str, Any]:
    """Get the scores over conditions, and their figures."""
    summary = adata.uns[UNS_KEY]["score_summary"]
    summary = summary[summary["gene_set"] == "all"]
    metrics = {"e_distance": "E-distance", "emd": "EMD", "pearson_change": "Pearson"}
    first = summary[summary["metric"] == "e_distance"].sort_values("score", kind="stable")
    rows = []
    for name in first["predictor"]:
        found = summary[summary["predictor"] == name].set_index("metric")
        rows.append(
            {
                "predictor": name,
                "is_own": name not in BASELINES,
                "n": int(found["n_conditions"].max()),
                "scores": [
                    found.loc[m, ["score", "low", "high"]].astype(float).tolist() if m in found.index else None
                    for m in metrics
                ],
            }
        )
    figures = {
        "Scores over conditions and in each condition": _picture(pl.scores, adata),
        "Observed and predicted mean changes": _picture(pl.heatmap, adata),
        "Predicted against observed mean changes": _picture(pl.calibration, adata, rasterized=True),
    }
    scored = [row for row in rows if row["scores"][0] is not None and np.isfinite(row["scores"][0][0])]
    complete = max((row["n"] for row in scored), default=0)
    rivals = [row for row in scored if not row["is_own"] and row["n"] == complete and row["predictor"] != "no effect"]
    rivals = [row for row in rivals if not BASELINES[row["predictor"]].is_ceiling]
    own = [row for row in scored if row["is_own"]]
    silent = adata.uns[UNS_KEY]["score_conditions"]
    return {
        "metrics": list(metrics.values()),
        "rows": rows,
        "own": own[0] if own else None,
        "best": rivals[0] if rivals else None,
        "silent": silent.loc[~silent["scored"].astype(bool), "condition"].astype(str).tolist(),
        "figures": {title: figure for title, figure in figures.items() if figure},
    }


def _trust(adata: AnnData, ranking: pd.DataFrame, held_out: bool) -> list[dict[str, Any]]:
    """List untrained conditions, the least trusted first, with the observed score where there is one."""
    rows = ranking.loc[~ranking["seen"].astype(bool), [*CONDITION, "expected_error", "p_better"]]
    if held_out:
        scores = adata.uns[UNS_KEY]["scores"]
        wanted = (
            (scores["metric"] == "e_distance") & (scores["gene_set"] == "all") & ~scores["predictor"].isin(BASELINES)
        )
        observed = scores.loc[wanted, [*CONDITION, "normalised"]].astype(dict.fromkeys(CONDITION, str))
        rows = rows.astype(dict.fromkeys(CONDITION, str)).merge(observed, on=CONDITION, how="left")
    else:
        rows = rows.assign(normalised=np.nan)
    return [{**row, "name": _name(row)} for row in rows.sort_values("p_better", kind="stable").to_dict("records")]


def _top(
    model: UnlastingModel,
    ranking: pd.DataFrame,
    n_top: int,
    n_genes: int,
    gene_sets: Mapping[str, Sequence[str]] | pd.DataFrame | None,
) -> dict[str, Any]:
    """List the strongest predictions with their genes and pathways."""
    adata: Any = model.adata
    pathways = None if gene_sets is None else tl.enrich(adata, gene_sets)
    stored = adata.uns[UNS_KEY]["rank_genes"]
    genes, t = np.asarray(stored["genes"]), np.asarray(stored["t"])
    rows = []
    for i, row in enumerate(ranking.head(n_top).to_dict("records")):
        order = np.argsort(t[i], kind="stable")
        up = [genes[j] for j in order[::-1][:n_genes] if t[i][j] > 0]
        down = [genes[j] for j in order[:n_genes] if t[i][j] < 0]
        row |= {"name": _name(row), "up": ", ".join(up), "down": ", ".join(down), "pathways": ""}
        if pathways is not None:
            own = pathways.loc[(pathways[CONDITION] == [row[c] for c in CONDITION]).all(axis=1)].head(N_PATHWAYS)
            row["pathways"] = ", ".join(f"{p.pathway} ({p.score:+.1f})" for p in own.itertuples())
        rows.append(row)
    return {"rows": rows, "figure": _picture(pl.rank, adata, n=n_top), "has_pathways": pathways is not None}


def _name(row: Mapping[Any, Any]) -> str:
    """Name a condition by perturbation, dose and cell type."""
    dose, cell_type = str(row["dose"] or "").strip("+"), str(row["cell_type"] or "")
    return str(row["condition"]) + (f" {dose} µM" if dose else "") + (f", {cell_type}" if cell_type else "")


def _picture(draw: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    """Draw a figure as a data URI; empty where a figure has nothing to show."""
    buffer = io.BytesIO()
    with plt.rc_context(STYLE), suppress(ValueError, KeyError):
        figure = draw(*arguments, show=False, return_fig=True, **options)
        figure.savefig(buffer, format="svg", bbox_inches="tight", dpi=160, metadata={"Date": None})
        plt.close(figure)
    content = buffer.getvalue()
    return f"data:image/svg+xml;base64,{base64.b64encode(content).decode()}" if content else ""


def _number(value: float, digits: int = 2) -> str:
    """Write a number; a dash where there is none."""
    return "–" if value is None or not np.isfinite(value) else f"{value:.{digits}f}"
