"""Score closed form and baselines in the challenge's profile `vcc2026`, beside normalised E-distance and EMD.

    python benchmarks/quality/vcc2026.py --data FOLDER

Writes `results/vcc2026.csv`, and the tables of the guide from it: `results/vcc2026.md` and `results/vcc2026_apart.md`. FOLDER
holds the McFaline and Datlinger screens; without it, shipped and simulated screens are scored. `--only Kang` scores some
screens, and `--resume` keeps screens that this model has scored. Every screen is stamped (`stamps.py`). `--steps` trains the
networks too.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any

import anndata
import pandas as pd
from drugs import DRUGS, FIRST_SEED
from drugs import KEYS as DRUG_KEYS
from run import RESULTS, TABLES, maker
from stamps import finished, stamp

import unlasting as ul
from unlasting.baselines import BASELINES, ModelPredictor
from unlasting.metrics import VCC2026

NAME = "vcc2026"
FULL = {"library_size_key": "ncounts_full", "target_sum": 1e4}
SIMULATED = {"library_size_key": "library_size", "target_sum": 1e4}
STATE = {"cell_type_key": "stimulation"}
UNSEEN: dict[str, Any] = {"prepare": FULL, "split": {"kind": "unseen_perturbation"}}
DISTANCES = ("e_distance", "emd", "zero_fraction_error")
PER_TABLE = 5
"""Most screens side by side."""
COLUMNS = ["cell_type", "predictor", "metric", "score", "value", "n_conditions"]


def shipped(name: str) -> dict[str, Any]:
    """Describe a shipped screen with its reference split."""
    return {**TABLES[f"{name}_reference"], "split": {"kind": "reference"}}


def read(folder: Path, file: str, **only: str) -> Any:
    """Read a screen, or its cells with a label."""
    adata = anndata.read_h5ad(folder / file)
    for key, label in only.items():
        adata = adata[adata.obs[key] == label].copy()
    return adata


def screens(folder: Path | None) -> dict[str, dict[str, Any]]:
    """Describe all screens: how to load, split, prepare and set up each."""
    further: dict[str, dict[str, Any]] = {}
    if folder is not None:
        datlinger = partial(read, folder, "datlinger2021_jurkat_tcr.h5ad")
        transfer = {"kind": "unseen_cell_type", "test": "stimulated", "val_fraction": 0.0}
        further = {
            "McFaline": {
                **UNSEEN,
                "screen": partial(read, folder, "mcfaline2023_gbm_mini.h5ad"),
                "setup": {"cell_type_key": "cell_type"},
            },
            "Datlinger, stimulated": {**UNSEEN, "screen": partial(datlinger, stimulation="stimulated")},
            "Datlinger, unstimulated": {**UNSEEN, "screen": partial(datlinger, stimulation="unstimulated")},
            "Datlinger, unstimulated to stimulated": {
                "screen": datlinger,
                "prepare": FULL,
                "setup": STATE,
                "split": transfer,
            },
        }
    knockouts = {"n_genes": 200, "n_targets": 18, "n_unmeasured": 6, "n_inert": 0, "seed": 0}
    return {
        "Papalexi": shipped("papalexi"),
        "Norman mini": shipped("norman"),
        "Kang": shipped("kang"),
        "simulated knock-outs": {
            "screen": partial(ul.datasets.simulate_screen, **knockouts),
            "prepare": SIMULATED,
            "split": {"kind": "unseen_perturbation"},
        },
        "simulated drugs": {
            "screen": partial(ul.datasets.simulate_drug_screen, seed=FIRST_SEED, **DRUGS),
            "prepare": SIMULATED,
            "setup": DRUG_KEYS,
            "split": {"kind": "unseen_drug", "val_fraction": 0.0},
        },
        **further,
    }


def scores(table: dict[str, Any], steps: int) -> pd.DataFrame:
    """Score all predictors on a screen's held-out conditions, by both kinds of scores."""
    adata, setup = table["screen"](), table.get("setup", {})
    ul.pp.split(adata, **table["split"], **{key: value for key, value in setup.items() if key in ("cell_type_key",)})
    ul.pp.prepare(adata, **table.get("prepare", {}))
    if "smiles_key" in setup:
        ul.pp.molecules(adata)
    simulation = adata.uns.get("simulation", {})
    ul.pp.grn(adata, prior=simulation.get("edges", table.get("prior", "default")))
    predictors: dict[str, Any] = {"unlasting": ModelPredictor(maker(setup, steps, 0))}
    predictors |= {label: baseline() for label, baseline in BASELINES.items()}
    for options in ({"profile": NAME}, {"metrics": DISTANCES, "gene_sets": "all"}):
        ul.tl.evaluate(adata, layer=None, baselines=predictors, **options)
    tables, keys = adata.uns["unlasting"], ["predictor", "metric"]
    values = tables["scores"].groupby(keys)["value"].mean()
    distance = tables["score_summary"].join(values, on=keys).assign(cell_type="")
    found = pd.concat([tables[f"{NAME}_summary"][COLUMNS], distance[COLUMNS]])
    found["n_evaluated"] = len(tables["score_conditions"])
    return found.dropna(subset=["score", "value"], how="all")


def stored(place: Path) -> pd.DataFrame:
    """Read the scores."""
    return pd.read_csv(place, keep_default_na=False, na_values={"score": "", "value": ""})


def wide(frame: pd.DataFrame, screen: str) -> pd.DataFrame:
    """Get a screen's scores, mean over cell types: a row per predictor, a column per metric."""
    part = frame[frame["screen"] == screen]
    found = part.groupby(["predictor", "metric"], sort=False)["score"].mean().unstack("metric")
    return found.reindex(columns=[*DISTANCES, *VCC2026, "mean"])


def text(value: float) -> str:
    """Write a score, without a sign at zero."""
    return "-" if pd.isna(value) else f"{round(value, 2) + 0.0:.2f}"


def overview(frame: pd.DataFrame) -> str:
    """Write E, EMD and mean challenge score per predictor and screen, best E and mean bold, and their basis."""
    names = list(frame["screen"].unique())
    parts = [names[i : i + PER_TABLE] for i in range(0, len(names), PER_TABLE)]
    return "\n".join(_overview(frame[frame["screen"].isin(part)], part) for part in parts)


def _overview(frame: pd.DataFrame, names: list[str]) -> str:
    columns = {name: screen_column(frame, name) for name in names}
    predictors = frame["predictor"].unique()
    rows = [[predictor, *(column.get(predictor, "") for column in columns.values())] for predictor in predictors]
    facts = dict.fromkeys(fact for column in columns.values() for fact in column if fact not in predictors)
    rows += [[fact, *(column[fact] for column in columns.values())] for fact in facts]
    return markdown(["", *names], rows)


def screen_column(frame: pd.DataFrame, name: str) -> dict[str, str]:
    """Write a screen's scores by predictor, and the facts behind them."""
    table, part = wide(frame, name), frame[frame["screen"] == name]
    counts = part[part["metric"] == "e_distance"].set_index("predictor")["n_conditions"]
    kinds = {"e_distance": "E", "emd": "EMD", "mean": "mean"}
    cells = table[list(kinds)].map(text)
    if not counts.max():  # no scale: plain values
        values = part[part["metric"].isin(DISTANCES)].pivot(index="predictor", columns="metric", values="value")
        for kind in ("e_distance", "emd"):
            cells[kind] = [f"({value:.3f})" for value in values.loc[cells.index, kind]]
    for kind in ("e_distance", "mean"):
        rivals = table.loc[counts.index[counts == counts.max()], kind].dropna()
        if len(rivals):
            best = rivals.max() if kind == "mean" else rivals.min()
            is_best = table[kind] == best
            cells.loc[is_best, kind] = "**" + cells.loc[is_best, kind] + "**"
    column = {predictor: " / ".join(row) for predictor, row in zip(cells.index, cells.to_numpy(), strict=True)}
    for kind in ("e_distance", "emd"):
        both = table.dropna(subset=[kind, "mean"])
        correlation = -both[kind].corr(both["mean"], method="spearman") if len(both) > 2 else float("nan")
        column[f"ranks by {kinds[kind]} and by mean"] = text(correlation)
    column["conditions with a signal"] = f"{counts.max():.0f} of {part['n_evaluated'].iloc[0]}"
    column["challenge metrics with a scale"] = f"{table[list(VCC2026)].notna().any().sum()} of {len(VCC2026)}"
    return column


def apart(frame: pd.DataFrame) -> str:
    """Write, for each screen, the predictors whose ranks by E and by the challenge differ most, and the metric behind it."""
    rows = []
    for name in frame["screen"].unique():
        table = wide(frame, name).dropna(subset=["e_distance", "mean"])
        zeros = frame[(frame["screen"] == name) & (frame["metric"] == "zero_fraction_error")].set_index("predictor")
        ranks = table[["e_distance", "emd"]].rank().assign(mean=(-table["mean"]).rank())
        gap = ranks["mean"] - ranks["e_distance"]
        for predictor in dict.fromkeys([gap.idxmax(), gap.idxmin()] if len(gap) > 2 else []):
            if abs(gap[predictor]) < len(gap) / 3:
                continue
            # the mean score is a mean over these metrics, so that its distance from the average is one over theirs
            challenge = table[list(VCC2026)].dropna(axis=1, how="all")
            distance = challenge.loc[predictor] - challenge.mean()
            decides = distance.idxmin() if gap[predictor] > 0 else distance.idxmax()
            own = ranks.loc[predictor]
            rows.append(
                [
                    name,
                    predictor,
                    f"{own['e_distance']:g} / {own['emd']:g} / {own['mean']:g} of {len(ranks)}",
                    text(zeros.loc[predictor, "value"]),
                    f"`{decides}`",
                    f"{text(challenge.loc[predictor, decides])} ({text(challenge[decides].mean())})",
                ]
            )
    head = ["screen", "predictor", "rank by E / EMD / challenge", "wrong zeros", "metric", "its score (average)"]
    return markdown(head, rows)


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """Write a table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None, help="folder with further screens")
    parser.add_argument("--only", nargs="+", default=None, help="names of screens")
    parser.add_argument("--resume", action="store_true", help="keep screens that this model has scored")
    parser.add_argument("--steps", type=int, default=0, help="training steps of the denoiser; 0: the closed form")
    arguments = parser.parse_args()
    place = RESULTS / f"{NAME}.csv"
    frame = stored(place) if place.exists() else pd.DataFrame({"screen": []})
    kept = finished(NAME) if arguments.resume else set()
    tables = screens(arguments.data)
    for name in arguments.only or tables:
        if name in kept:
            continue
        start = time.perf_counter()
        part = scores(tables[name], arguments.steps).assign(screen=name)
        frame = pd.concat([frame[frame["screen"] != name], part], ignore_index=True)
        frame.to_csv(place, index=False, float_format="%.6g")
        stamp(NAME, [name])
        print(f"{name}, {time.perf_counter() - start:.0f} s:\n{wide(frame, name).round(2).to_string()}", flush=True)
    frame = stored(place)
    for suffix, written in (("", overview(frame)), ("_apart", apart(frame))):
        (RESULTS / f"{NAME}{suffix}.md").write_text(written, encoding="utf-8")
        print(written)
