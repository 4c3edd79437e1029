"""Score closed form and baselines in the challenge's profile `vcc2026`, beside normalised E-distance and EMD.

    python benchmarks/quality/vcc2026.py --data FOLDER

Writes `results/vcc2026.csv`, and `results/vcc2026.md` with the tables of the guide. FOLDER holds the Datlinger and McFaline
screens; without it, shipped and simulated screens are scored. `--resume` goes on after an interruption: it keeps the screens
in the file. `--steps` trains the networks too.
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

import unlasting as ul
from unlasting.baselines import BASELINES, ModelPredictor
from unlasting.metrics import VCC2026

NAME = "vcc2026"
FULL = {"library_size_key": "ncounts_full", "target_sum": 1e4}
SIMULATED = {"library_size_key": "library_size", "target_sum": 1e4}
STATE = {"cell_type_key": "stimulation"}
UNSEEN: dict[str, Any] = {"prepare": FULL, "split": {"kind": "unseen_perturbation"}}
DISTANCES = ("e_distance", "emd", "zero_fraction_error")
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
    knockouts = {"n_genes": 200, "n_targets": 18, "n_unmeasured": 6, "seed": 0}
    return {
        "Papalexi": shipped("papalexi"),
        "Norman mini": shipped("norman"),
        "Kang": shipped("kang"),
        **further,
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
    }


def scores(table: dict[str, Any], steps: int) -> pd.DataFrame:
    """Score all predictors on a screen's held-out conditions, by both kinds of scores."""
    adata, setup = table["screen"](), table.get("setup", {})
    ul.pp.split(adata, **table["split"], **{key: value for key, value in setup.items() if key in ("cell_type_key",)})
    ul.pp.prepare(adata, **table.get("prepare", {}))
    if "smiles_key" in setup:
        ul.pp.molecules(adata)
    simulation = adata.uns.get("simulation", {})
    ul.pp.grn(adata, prior=simulation.get("edges", table.get("prior", "go")))
    predictors: dict[str, Any] = {"unlasting": ModelPredictor(maker(setup, steps, 0))}
    predictors |= {label: baseline() for label, baseline in BASELINES.items()}
    for options in ({"profile": NAME}, {"metrics": DISTANCES, "gene_sets": "all"}):
        ul.tl.evaluate(adata, layer=None, baselines=predictors, **options)
    stored, keys = adata.uns["unlasting"], ["predictor", "metric"]
    values = stored["scores"].groupby(keys)["value"].mean()
    distance = stored["score_summary"].join(values, on=keys).assign(cell_type="")
    found = pd.concat([stored[f"{NAME}_summary"][COLUMNS], distance[COLUMNS]])
    found["n_evaluated"] = len(stored["score_conditions"])
    return found.dropna(subset=["score", "value"], how="all")


def wide(frame: pd.DataFrame, screen: str) -> pd.DataFrame:
    """Get a screen's scores, mean over cell types: a row per predictor, a column per metric."""
    part = frame[frame["screen"] == screen]
    found = part.groupby(["predictor", "metric"], sort=False)["score"].mean().unstack("metric")
    return found.reindex(columns=[*DISTANCES, *VCC2026, "mean"])


def text(value: float) -> str:
    """Write a score."""
    return "-" if pd.isna(value) else f"{value:.2f}"


def overview(frame: pd.DataFrame) -> str:
    """Write E, EMD and mean challenge score of each predictor and screen, and what they rest on, as Markdown."""
    kinds = ["e_distance", "emd", "mean"]
    names = list(frame["screen"].unique())
    tables = {name: wide(frame, name) for name in names}
    rows = []
    for predictor in frame["predictor"].unique():
        cells = [
            " / ".join(map(text, table.loc[predictor, kinds])) if predictor in table.index else ""
            for table in tables.values()
        ]
        rows.append([predictor, *cells])
    for kind, label in (("e_distance", "E"), ("emd", "EMD")):
        ranks = [table.dropna(subset=[kind, "mean"]) for table in tables.values()]
        found = [-r[kind].corr(r["mean"], method="spearman") if len(r) > 2 else float("nan") for r in ranks]
        rows.append([f"ranks by {label} and by mean", *map(text, found)])
    parts = [frame[frame["screen"] == name] for name in names]
    signal = [part.loc[part["metric"] == "e_distance", "n_conditions"].max() for part in parts]
    rows.append(
        [
            "conditions with a signal",
            *(
                f"{0 if pd.isna(n) else n:.0f} of {part['n_evaluated'].iloc[0]}"
                for n, part in zip(signal, parts, strict=True)
            ),
        ]
    )
    scaled = [table[list(VCC2026)].notna().any().sum() for table in tables.values()]
    rows.append(["challenge metrics with a scale", *(f"{n} of {len(VCC2026)}" for n in scaled)])
    return markdown(["", *names], rows)


def disagreements(frame: pd.DataFrame) -> str:
    """Write, for each screen, the predictors whose ranks by E and by the challenge differ most, and the metric behind it."""
    rows = []
    for name in frame["screen"].unique():
        table = wide(frame, name).dropna(subset=["e_distance", "mean"])
        zeros = frame[(frame["screen"] == name) & (frame["metric"] == "zero_fraction_error")].set_index("predictor")
        ranks = table[["e_distance", "emd"]].rank().assign(mean=(-table["mean"]).rank())
        gap = ranks["mean"] - ranks["e_distance"]
        for predictor in dict.fromkeys([gap.idxmax(), gap.idxmin()] if len(gap) > 2 else []):
            if abs(gap[predictor]) < 2:
                continue
            challenge = table[list(VCC2026)].dropna(axis=1, how="all")
            apart = challenge.loc[predictor] - challenge.median()
            decides = apart.idxmin() if gap[predictor] > 0 else apart.idxmax()
            own = ranks.loc[predictor]
            rows.append(
                [
                    name,
                    predictor,
                    f"{own['e_distance']:g} / {own['emd']:g} / {own['mean']:g} of {len(ranks)}",
                    text(zeros.loc[predictor, "value"]),
                    f"`{decides}`",
                    f"{text(challenge.loc[predictor, decides])} ({text(challenge[decides].median())})",
                ]
            )
    head = ["screen", "predictor", "rank by E / EMD / challenge", "wrong zeros", "metric", "its score (median)"]
    return markdown(head, rows)


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """Write a table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None, help="folder with further screens")
    parser.add_argument("--resume", action="store_true", help="keep the screens in the file")
    parser.add_argument("--steps", type=int, default=0, help="training steps of the denoiser; 0: the closed form")
    arguments = parser.parse_args()
    place = RESULTS / f"{NAME}.csv"
    done = arguments.resume and place.exists()
    frame = pd.read_csv(place, keep_default_na=False, na_values={"score": "", "value": ""}) if done else pd.DataFrame()
    for name, table in screens(arguments.data).items():
        if len(frame) and name in set(frame["screen"]):
            continue
        start = time.perf_counter()
        part = scores(table, arguments.steps).assign(screen=name)
        frame = pd.concat([frame, part], ignore_index=True)
        frame.to_csv(place, index=False, float_format="%.6g")
        print(f"{name}, {time.perf_counter() - start:.0f} s:\n{wide(frame, name).round(2).to_string()}", flush=True)
    tables = overview(frame), disagreements(frame)
    (RESULTS / f"{NAME}.md").write_text("\n".join(tables), encoding="utf-8")
    print("\n".join(tables))
