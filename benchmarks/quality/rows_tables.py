"""Write the tables of the guide from the scores on the thirteen rows in `rows.py`.

python benchmarks/quality/rows_tables.py
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from run import RESULTS
from vcc2026 import markdown, text

from unlasting.baselines import BASELINES
from unlasting.metrics import get_metric
from unlasting.tl._tables import TERMS, normalised
from unlasting.tl._uncertainty import difference_interval, score_interval

OURS, FALLBACK, SELECTOR = "unlasting", "zero-aware mean shift", "selector"
DISTANCES = {"e_distance": "E", "emd": "EMD"}
RIVALS = [name for name, baseline in BASELINES.items() if not baseline.is_ceiling]
CONDITION = ["unit", "condition", "cell_type", "dose"]
LEVEL = 0.9
"""Coverage of intervals over conditions."""
NEAREST, TRANSFER = "nearest target or nothing", "zero-aware context transfer"
QUESTIONS = {
    "P1": ("Papalexi, targets in turn", NEAREST),
    "P2": ("Papalexi, reference split", NEAREST),
    "N1": ("Norman, reference split", NEAREST),
    "N2": ("Norman, reference split, without TMSB4X", NEAREST),
    "N3": ("Norman, doubles in turn", "zero-aware additive"),
    "D1": ("Datlinger stimulated, targets in turn", NEAREST),
    "D2": ("Datlinger, unstimulated to stimulated", TRANSFER),
    "K1": ("Kang, cell types in turn", TRANSFER),
    "K2": ("Kang, one type from two", TRANSFER),
    "S1": ("simulated, unseen dose", "dose interpolation"),
    "S2": ("simulated, unseen drug", "nearest target"),
    "S3": ("simulated, gene + drug", FALLBACK),
    "S4": ("simulated, unseen context", TRANSFER),
}
"""Title and fixed reference for each row."""
FEW_CONTROLS = ("D1", "D2")
FILES = {"scores": "rows", **{name: f"rows_{name}" for name in ("choices", "sizes", "signal", "restraint", "transfer")}}


def place(name: str, folder: Path = RESULTS) -> Path:
    """Get the file of a frame."""
    return folder / f"{FILES[name]}.csv"


def stored(name: str, folder: Path = RESULTS) -> pd.DataFrame:
    """Read a frame; empty if there is none."""
    if not place(name, folder).exists():
        return pd.DataFrame()
    return pd.read_csv(place(name, folder), dtype=dict.fromkeys([*CONDITION, "predictor"], str), keep_default_na=False)


def store(frames: dict[str, pd.DataFrame]) -> None:
    """Write frames, whose rows replace those with the same name."""
    for name, frame in frames.items():
        old = stored(name)
        kept = old[~old["row"].isin(frame["row"])] if "row" in frame and len(old) else old[:0]
        pd.concat([kept, frame], ignore_index=True).to_csv(place(name), index=False, float_format="%.5g")


def complete(scores: pd.DataFrame) -> pd.DataFrame:
    """Give every baseline the fallback's terms where it has no prediction; scores of one metric and gene set."""
    names = [*RIVALS, *({OURS} & set(scores["predictor"]))]
    terms = scores.set_index([*CONDITION, "predictor"])[TERMS]
    wanted = pd.MultiIndex.from_frame(
        scores[CONDITION].drop_duplicates().merge(pd.DataFrame({"predictor": names}), how="cross")
    )
    found = terms.reindex(wanted)
    other = terms.xs(FALLBACK, level="predictor").reindex(wanted.droplevel("predictor"))
    return found.fillna(other.set_axis(wanted)).reset_index()


def terms_of(
    scores: pd.DataFrame, choices: pd.DataFrame, row: str, metric: str, gene_set: str = "all"
) -> dict[str, Any]:
    """Get value, floor and no effect for each predictor in a row, shape `(n_conditions, 3)`, and of the selector.

    A baseline without a prediction for a condition gives the fallback's. In K2 every subset counts the same.
    """
    part = scores[(scores["metric"] == metric) & (scores["gene_set"] == gene_set)]
    part = part[part["row"] == source_name(row)]
    if row == "N2":
        part = part[part["condition"] != "TMSB4X"]
    part = complete(part)
    if row == "K2":
        part[TERMS] = np.stack([relative(part), 0.0 * part["value"], 0.0 * part["value"] + 1.0], axis=1)
    found = {name: own.set_index(CONDITION)[TERMS] for name, own in part.groupby("predictor")}
    picked = choices[(choices["row"] == source_name(row)) & (choices["metric"] == metric)]
    picked = picked.set_index("unit")["predictor"]
    index = found[OURS].index
    found[SELECTOR] = pd.DataFrame([found[picked[place[0]]].loc[place] for place in index], index=index)
    return {name: own.loc[index].to_numpy(dtype=float) for name, own in found.items()}


def relative(scores: pd.DataFrame) -> np.ndarray:
    """Normalise each condition alone."""
    return normalised(get_metric("e_distance"), scores[TERMS].to_numpy(dtype=float))


def score(terms: np.ndarray) -> np.ndarray:
    """Normalise means over conditions."""
    return normalised(get_metric("e_distance"), terms)


def summary(scores: pd.DataFrame, choices: pd.DataFrame) -> pd.DataFrame:
    """Write a line for each row and metric: our score with its interval, and those beside it."""
    lines = []
    for row, metric in itertools.product(QUESTIONS, DISTANCES):
        if source_name(row) not in set(scores["row"]):
            continue
        title, reference = QUESTIONS[row]
        terms = terms_of(scores, choices, row, metric)
        own = score_interval(score, terms[OURS], 0, level=LEVEL)
        paired = difference_interval(score, terms[OURS], terms[reference], 0, level=LEVEL)
        values = {
            name: float(score(terms[name].mean(axis=0)[None])[0]) for name in [*RIVALS, SELECTOR] if name in terms
        }
        best = min((name for name in values if name != SELECTOR), key=values.__getitem__)
        de20 = terms_of(scores, choices, row, metric, "de20")[OURS]
        lines.append(
            {
                "row": row,
                "title": title,
                "metric": metric,
                "n": len(terms[OURS]),
                **dict(zip(["ours", "low", "high"], own, strict=True)),
                "worst": float(np.nanmax(score(terms[OURS]))),
                "de20": float(score(de20.mean(axis=0)[None])[0]),
                "reference": reference,
                **dict(zip(["difference", "difference_low", "difference_high"], paired, strict=True)),
                "best": best,
                "values": values,
            }
        )
    return pd.DataFrame(lines)


def source_name(row: str) -> str:
    """Get the row whose scores another row uses: N2 is N1 without its largest on-target effect."""
    return "N1" if row == "N2" else row


def interval(value: float, low: float, high: float) -> str:
    """Write a number with its interval."""
    return text(value) if pd.isna(low) else f"{text(value)} [{text(low)}, {text(high)}]"


def pair(lines: pd.DataFrame, row: str, column: Callable[[Any], str]) -> str:
    """Write an entry for E and for EMD."""
    return " / ".join(
        column(lines[(lines["row"] == row) & (lines["metric"] == metric)].iloc[0]) for metric in DISTANCES
    )


def scores_table(lines: pd.DataFrame, single: dict[str, str]) -> str:
    """Write our scores beside the fixed reference, the best single baseline, the selector and the best of all."""
    head = ["row", "conditions", "ours", "ours, DE20", "reference", "single", SELECTOR, "best after the fact"]
    body = []
    for row in lines["row"].unique():
        first = lines[lines["row"] == row].iloc[0]
        columns: list[Callable[[Any], str]] = [
            lambda x: interval(x["ours"], x["low"], x["high"]),
            lambda x: text(x["de20"]),
            lambda x: text(x["values"][x["reference"]]),
            lambda x: text(x["values"][single[x["metric"]]]),
            lambda x: text(x["values"][SELECTOR]),
            lambda x: f"{text(x['values'][x['best']])} ({x['best']})",
        ]
        entries = [pair(lines, row, column) for column in columns]
        entries[2] += f" ({first['reference']})"
        body.append([f"{row}: {first['title']}", str(first["n"]), *entries])
    means = {
        name: " / ".join(text(values_of(lines, metric, of).mean()) for metric in DISTANCES)
        for name, of in means_of(single).items()
    }
    body.append(["mean", "", means["ours"], "", means["reference"], means["single"], means[SELECTOR], means["best"]])
    return markdown(head, body)


def means_of(single: dict[str, str]) -> dict[str, Callable[[Any], float]]:
    """Name the columns of scores, each a function of a line."""
    return {
        "ours": lambda x: x["ours"],
        "reference": lambda x: x["values"][x["reference"]],
        "single": lambda x: x["values"][single[x["metric"]]],
        SELECTOR: lambda x: x["values"][SELECTOR],
        "best": lambda x: x["values"][x["best"]],
    }


def values_of(lines: pd.DataFrame, metric: str, column: Callable[[Any], float]) -> np.ndarray:
    """Get a score per row, shape `(n_rows,)`."""
    return np.array([column(line) for _, line in lines[lines["metric"] == metric].iterrows()])


def best_single(lines: pd.DataFrame) -> dict[str, str]:
    """Find, for each metric, the baseline with the best mean over rows."""
    found = {}
    for metric in DISTANCES:
        values = pd.DataFrame(list(lines.loc[lines["metric"] == metric, "values"]))
        found[metric] = str(values.drop(columns=SELECTOR).mean().idxmin())
    return found


def differences_table(lines: pd.DataFrame) -> str:
    """Write our paired difference from the fixed reference, with its interval."""
    rows = [
        [
            row,
            lines.loc[lines["row"] == row, "reference"].iloc[0],
            *(
                interval(x["difference"], x["difference_low"], x["difference_high"])
                for _, x in lines[lines["row"] == row].iterrows()
            ),
            pair(lines, row, lambda x: text(x["worst"])),
        ]
        for row in lines["row"].unique()
    ]
    return markdown(
        ["row", "reference", "difference in E", "difference in EMD", "ours, worst condition, E / EMD"], rows
    )


def rules(lines: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Compare with the four bars: the bar and the finding, by criterion."""
    columns, single = means_of(best_single(lines)), best_single(lines)
    parts = [lines[lines["metric"] == metric] for metric in DISTANCES]
    n_better = " / ".join(f"{(part['difference'] <= 0).sum()} of {len(part)}" for part in parts)

    def ahead(column: str) -> str:
        means = [[values_of(lines, metric, columns[name]).mean() for name in ("ours", column)] for metric in DISTANCES]
        return " / ".join(text(own - other) for own, other in means)

    def named(part: pd.DataFrame) -> str:
        return ", ".join(f"{x['row']} {DISTANCES[x['metric']]}" for _, x in part.iterrows()) or "none"

    return {
        "(a) difference from the reference, interval above .03": (
            "at most one",
            named(lines[lines["difference_low"] > 0.03]),
        ),
        "(a) rows with a difference of at most 0": ("10 / 10 of 13", n_better),
        "(b) best single baseline": ("", " / ".join(single.values())),
        "(b) mean difference from it": ("-.08 / -.05", ahead("single")),
        "(c) mean difference from the selector": ("0 / 0", ahead(SELECTOR)),
        "mean difference from the best after the fact": ("none", ahead("best")),
        "(d) score with its interval above 1": ("none", named(lines[lines["low"] > 1])),
    }


def rules_table(lines: pd.DataFrame) -> str:
    """Write the bars, for all rows and without those whose controls are few."""
    every, without = rules(lines), rules(lines[~lines["row"].isin(FEW_CONTROLS)])
    rows = [[name, bar, found, without[name][1]] for name, (bar, found) in every.items()]
    return markdown(["", "bar", "all rows", f"without {' and '.join(FEW_CONTROLS)}"], rows)


def sizes_table(frame: pd.DataFrame) -> str:
    """Write slope and correlation of true on predicted changes."""
    rows = []
    for row, part in frame.groupby("row", sort=True):
        terms = part[["product", "predicted", "true", "noise"]].to_numpy(dtype=float)
        slope = score_interval(lambda means: means[:, 0] / means[:, 1], terms, 0, level=LEVEL)
        product, predicted, true, noise = terms.sum(axis=0)
        correlation = product / np.sqrt(predicted * true) if predicted > 0 else np.nan
        rows.append([str(row), str(len(part)), interval(*slope), text(correlation), text(predicted / noise)])
    return markdown(["row", "conditions", "slope b", "correlation", "square of the prediction / its noise"], rows)


def ratios_table(frame: pd.DataFrame) -> str:
    """Write mean absolute changes relative to those between halves of the controls."""
    rows = []
    for screen, part in frame.groupby("screen", sort=False):
        sums = part[["predicted", "moved", "halves"]].astype(float).sum()
        rows.append(
            [str(screen), str(len(part)), *(text(sums[name] / sums["halves"]) for name in ("moved", "predicted"))]
        )
    return markdown(["screen", "conditions", "predicted change", "distance from the other half"], rows)


def transfer_table(frame: pd.DataFrame) -> str:
    """Write the transferred share of effects: its mean and its smallest value over screens."""
    shares = frame.assign(share=frame["product"].astype(float) / frame["true"].astype(float))
    rows = []
    for n, part in shares.groupby("n_trained", sort=False):
        found = part.groupby("predictor", sort=False)["share"]
        rows.append([str(n), *(f"{text(x.mean())} ({text(x.min())})" for _, x in found)])
    return markdown(["trained contexts", *frame["predictor"].unique()], rows)


def report() -> str:
    """Write all tables."""
    frames = {name: stored(name) for name in FILES}
    lines = summary(frames["scores"], frames["choices"])
    single = best_single(lines)
    signals = frames["signal"]
    named = ", ".join(signals.loc[signals["scored"].astype(bool), "target"]) if len(signals) else "none"
    parts = [
        f"E / EMD, with {LEVEL:.0%} intervals over conditions. The single baselines are {' / '.join(single.values())}.\n",
        scores_table(lines, single),
        "Differences from the fixed reference, paired over conditions:\n",
        differences_table(lines),
        "The bars:\n",
        rules_table(lines),
        f"Targets with a signal in D1 and D2: {named}.\n",
        "Sizes, true change on predicted change:\n",
        sizes_table(frames["sizes"]),
    ]
    if len(frames["transfer"]):
        parts += [
            "Share of the effect in an unseen context, mean (smallest) over simulated screens:\n",
            transfer_table(frames["transfer"]),
        ]
    if len(frames["restraint"]):
        parts += [
            "Mean absolute change of cells from one half of the controls, relative to that between the halves:\n",
            ratios_table(frames["restraint"]),
        ]
    return "\n".join(parts)


if __name__ == "__main__":
    place("scores").with_suffix(".md").write_text(report(), encoding="utf-8")
    print(report())
