"""Train the published presets by the laptop recipe on the screens that ship with the package, and score held-out cells.

    python benchmarks/quality/paper.py papalexi --seeds 0 1 2 --presets paper paper-as-printed

Writes `results/paper.csv`, with a row for each screen, preset, seed, predictor, metric and gene set: `score` (normalised),
`seconds` and `processor_seconds` of the training, and for Papalexi the lowest and highest ratio of detected genes over
the nine knock-outs. A run replaces the rows of its screen, presets and seeds, and writes `results/paper.md`, the table in the
guide to the method.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from run import CLEAR, METRICS, RESULTS, TABLES, keeping, maker
from stamps import finished, stamp

import unlasting as ul
from unlasting.baselines import BASELINES, ModelPredictor
from unlasting.module import LAPTOP, PAPER_RESPONSE_FDR

EVALUATION = {"metrics": METRICS[:2], "n_repeats": 2}
NAME = "paper"
FILE = RESULTS / f"{NAME}.csv"
TITLES = {"papalexi": "Papalexi, 9 seen knock-outs", "norman": "Norman, doubles", "kang": "Kang, 3 cell types"}


def prepare_kang(adata: Any, **graph: Any) -> None:
    """Prepare the cell types; the stimulus is a molecule of its own, since the text has genes and drugs only."""
    ul.pp.prepare(adata, n_top_genes=1_000)
    ul.pp.molecules(adata, embedding=pd.DataFrame(np.eye(1), index=["IFNB"]))
    ul.pp.grn(adata, prior=None, **graph)


def prepare_norman(adata: Any, **graph: Any) -> None:
    """Prepare the activations with the full library size; a target that the prior does not know is a node too."""
    ul.pp.prepare(adata, library_size_key="ncounts_full", target_sum=1e4)
    targets = {name for label in set(adata.obs["perturbation"]) - {"control"} for name in label.split("+")}
    ul.pp.grn(adata, prior="go", targets=sorted(targets), **graph)


def prepare_papalexi(adata: Any, **graph: Any) -> None:
    """Prepare the knock-outs."""
    ul.pp.prepare(adata)
    ul.pp.grn(adata, prior="go", **graph)


SCREENS: dict[str, dict[str, Any]] = {
    "papalexi": {
        "screen": TABLES["papalexi_reference"]["screen"],
        "split": {"kind": "random"},
        "prepare": prepare_papalexi,
        "conditions": CLEAR,
    },
    "norman": {
        "screen": TABLES["norman_reference"]["screen"],
        "split": {"kind": "unseen_combo", "n_seen": 2, "test_fraction": 0.3, "val_fraction": 0.0},
        "prepare": prepare_norman,
        "setup": {"mode": "activation"},
    },
    "kang": {
        "screen": TABLES["kang_reference"]["screen"],
        "split": {"kind": "reference"},
        "prepare": prepare_kang,
        "setup": {"cell_type_key": "cell_type"},
    },
}


def detected(model: Any, adata: Any, seed: int) -> list[float]:
    """Compare detected genes in generated and held-out cells, one ratio for each knock-out."""
    ratios = []
    for target in CLEAR:
        rows = ((adata.obs["perturbation"] == target) & (adata.obs["unlasting_split"] == "test")).to_numpy()
        true = np.asarray((adata.X[rows] > 0).sum(axis=1)).mean()
        generated = model.generate(target, 100, seed=seed, show_progress=False)
        ratios.append(float(np.asarray((generated.X > 0).sum(axis=1)).mean() / true))
    return ratios


def run(name: str, preset: str, seed: int) -> pd.DataFrame:
    """Train one model, and score it beside no effect and mean shift."""
    screen, kept = SCREENS[name], []
    clock: list[float] = []
    train = maker(screen.get("setup", {}), None, seed, preset=preset, **LAPTOP)

    def timed(adata: Any) -> Any:
        start = time.perf_counter(), time.process_time()
        model = train(adata)
        clock[:] = time.perf_counter() - start[0], time.process_time() - start[1]
        return model

    adata = screen["screen"]()
    ul.tl.benchmark(
        adata,
        {
            "unlasting": ModelPredictor(keeping(timed, kept)),
            **{label: BASELINES[label]() for label in ("no effect", "mean shift")},
        },
        splits={"held out": screen["split"]},
        seeds=[seed],
        prepare=partial(screen["prepare"], response_fdr=PAPER_RESPONSE_FDR if preset == "paper" else None),
        conditions=screen.get("conditions"),
        **EVALUATION,
    )
    rows = adata.uns["unlasting"]["benchmark"][["predictor", "metric", "gene_set", "score", "n_conditions"]]
    rows = rows.assign(screen=name, preset=preset, seed=seed, seconds=clock[0], processor_seconds=clock[1])
    if name == "papalexi":
        ratios = detected(*kept[0], seed)
        rows = rows.assign(detected_low=min(ratios), detected_high=max(ratios))
    return rows


def table(rows: pd.DataFrame) -> str:
    """Write the means over seeds as a table, with their smallest and largest value where there are several."""
    lines = [
        "| screen | predictor | E, all | EMD, all | E, DE20 | EMD, DE20 | detected genes | seeds |",
        "|" + "---|" * 8,
    ]
    for screen, title in TITLES.items():
        of_screen = rows[rows["screen"] == screen]
        for preset in dict.fromkeys(of_screen["preset"]):
            of_preset = of_screen[of_screen["preset"] == preset]
            predictors = ["unlasting", *(("mean shift",) if preset == "paper" else ())]
            for predictor in predictors:
                part = of_preset[of_preset["predictor"] == predictor]
                cells = []
                for gene_set in ("all", "de20"):
                    for metric in ("e_distance", "emd"):
                        scores = part[(part["metric"] == metric) & (part["gene_set"] == gene_set)]["score"]
                        spread = f" ({scores.min():.2f} to {scores.max():.2f})" if len(scores) > 1 else ""
                        cells.append(f"{scores.mean():.2f}{spread}")
                is_model = predictor == "unlasting"
                counted = part["detected_low"].notna().any() if "detected_low" in part else False
                found = f"{part['detected_low'].min():.2f} to {part['detected_high'].max():.2f}" if counted else ""
                name = f"`{preset}`" if is_model else predictor
                seeds = part["seed"].nunique()
                lines.append(f"| {title} | {name} | {' | '.join(cells)} | {found if is_model else ''} | {seeds} |")
    return "\n".join(lines) + "\n"


def parts(rows: pd.DataFrame) -> list[str]:
    """Name the trainings in the table: screen, preset and seed."""
    return sorted({" ".join(map(str, part)) for part in rows[["screen", "preset", "seed"]].itertuples(index=False)})


def main(names: list[str], presets: list[str], seeds: list[int], *, resume: bool) -> None:
    """Make the rows; with `resume` those that this code has not made yet."""
    done = finished(NAME) if resume else set()
    for name in names:
        for preset in presets:
            for seed in seeds:
                if f"{name} {preset} {seed}" in done:
                    continue
                new = run(name, preset, seed)
                before = pd.read_csv(FILE) if FILE.exists() else pd.DataFrame(columns=new.columns)
                same = (before["screen"] == name) & (before["preset"] == preset) & (before["seed"] == seed)
                rows = pd.concat([before[~same], new], ignore_index=True) if len(before) else new
                rows = rows.sort_values(["screen", "preset", "seed"], kind="stable")
                rows.to_csv(FILE, index=False)
                FILE.with_suffix(".md").write_text(table(rows), encoding="utf-8")
                stamp(NAME, parts(new))
                wide = new.pivot_table(index="predictor", columns=["metric", "gene_set"], values="score", sort=False)
                print(f"{name}, {preset}, seed {seed}:\n{wide.round(3).to_string()}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("screens", nargs="+", choices=list(SCREENS))
    parser.add_argument("--presets", nargs="+", default=["paper", "paper-as-printed"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--resume", action="store_true", help="skip what this code has made")
    RESULTS.mkdir(exist_ok=True)
    arguments = parser.parse_args()
    main(arguments.screens, arguments.presets, arguments.seeds, resume=arguments.resume)
