"""The table and the figure of what `run.py` measured."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import NullFormatter

RIVALS = [
    ("Attention, 32 cells, forward and backward", "attention", "attention, PyG GATConv", 5.0),
    ("Training step, published architecture, per cell", "step published", "step published, plain", 10.0),
    ("Generation, published architecture, per cell", "generation published", "generation, plain", 20.0),
    ("E-distance, 5,000 and 5,000 cells", "E-distance", "E-distance, scipy", 12.0),
    ("E-distance, 5,000 and 5,000 cells", "E-distance", "E-distance, pertpy", 4.0),
    ("EMD, 5,000 and 5,000 cells", "EMD", "EMD, scipy", 15.0),
    ("EMD, the same with 90 % zeros", "EMD, 90 % zeros", "EMD, 90 % zeros, sort", 5.0),
]
"""What is compared: ours, theirs, and how many times faster it is to be."""

HELD = {"generation, plain": 2}
"""Cells that a rival holds at once, where it does a part of their work."""

OPTIONS = ["n_cells", "n_edges", "n_genes", "n_steps", "n_conditions", "n_batches", "n_each"]
COLUMNS = ["case", *OPTIONS, "threads", "seconds", "processor_seconds", "megabytes", "n_units", "value", "note"]
CURVES = [
    ("n_cells", "cells", "attention", 32),
    ("n_edges", "edges", "attention", 40_000),
    ("n_genes", "genes", "step default", 2_000),
    ("n_steps", "steps", "generation", 5),
]
"""Over what a case is measured, and where it is when nothing is said."""
FITS = [
    ("n_conditions", "conditions, up to 4,000,", 500, 2.0),
    ("n_batches", "batches", 1, 1.1),
    ("n_genes", "genes", 300, 1.2),
    ("n_each", "cells", 3, 1.1),
]
"""The same for the closed form, with the largest exponent that is wanted."""
MANY = [("from 4,000 to 8,500 (exact)", 4_000, 8_500), ("from 12,000 to 17,000", 12_000, 17_000)]
"""Ranges of conditions above those."""


def _usual(speed: pd.DataFrame) -> pd.DataFrame:
    """Get the cases without options, by name; what was not measured is missing."""
    wanted = {
        "matrix product",
        "step default",
        "generation",
        "profile",
        "on disk",
        *(name for row in RIVALS for name in row[1:3]),
    }
    return speed[speed[OPTIONS].isna().all(axis=1)].set_index("case").reindex(sorted(wanted))


def _curve(speed: pd.DataFrame, of: str, case: str, usual: int) -> pd.DataFrame:
    """Get a case at all values of an option."""
    others = [option for option in OPTIONS if option != of]
    found = speed[(speed["case"] == case) & speed[others].isna().all(axis=1)]
    return found.assign(**{of: found[of].fillna(usual)}).dropna(subset="processor_seconds").sort_values(of)


def _exponent(curve: pd.DataFrame, of: str) -> float:
    """Fit the power with which the time grows."""
    return np.nan if len(curve) < 2 else float(np.polyfit(np.log(curve[of]), np.log(curve["processor_seconds"]), 1)[0])


def table(speed: pd.DataFrame, errors: pd.DataFrame) -> str:
    """Write ratios, rates and exponents as Markdown."""
    usual = _usual(speed)
    lines = ["| | ours | rival | | times faster (target) | times less memory |", "|---|---|---|---|---|---|"]
    for label, ours, theirs, target in RIVALS:
        one, other = usual.loc[ours], usual.loc[theirs]
        rival = theirs.split(", ")[-1]
        if pd.isna(other["processor_seconds"]):
            lines.append(f"| {label} | {_seconds(one)} | {rival} | {other['note']} | | |")
            continue
        faster = (other["processor_seconds"] / other["n_units"]) / (one["processor_seconds"] / one["n_units"])
        # a rival whose unit is a part of a cell's work still holds its cells; one that needs next to nothing has no ratio
        held = HELD.get(theirs, other["n_units"])
        less = (other["megabytes"] / held) / max(one["megabytes"] / one["n_units"], 1e-9)
        memory = f"{less:.1f}" if min(one["megabytes"], other["megabytes"]) > 5 else ""
        lines.append(
            f"| {label} | {_seconds(one)} | {rival} | {_seconds(other)} | {faster:.1f} ({target:.0f}) | {memory} |"
        )
    peak = usual.loc["matrix product", "n_units"] / usual.loc["matrix product", "processor_seconds"]
    step = usual.loc["step default"]
    share = step["value"] / step["processor_seconds"] / peak
    on_disk = usual.loc["on disk"]
    ddim = errors[(errors["solver"] == "diffusers DDIM") & (errors["n_evaluations"] == 50)]["error"].item()
    as_good = errors[(errors["solver"] == "ours") & (errors["error"] <= ddim)]["n_evaluations"].min()
    published = usual.loc["step published"]
    generated = usual.loc["generation", "processor_seconds"] / usual.loc["generation", "n_units"]
    lines += [
        "",
        "| | |",
        "|---|---|",
        f"| Published architecture, a step of 32 cells | {published['processor_seconds']:.2f} s of processors, "
        f"{published['megabytes']:.0f} MB |",
        f"| Default model, a step of 64 cells | {step['processor_seconds']:.2f} s of processors, {step['megabytes']:.0f} MB |",
        f"| Default model, a generated cell | {1000 * generated:.1f} ms of a processor |",
        f"| Matrix products of its step, of the rate of a product of 2,048 x 2,048 ({peak / 1e9:.0f} GFLOP/s) | {share:.0%} |",
        f"| Share of the step's time in them | {usual.loc['profile', 'value']:.0%} |",
        f"| 100,000 cells on disk: registered, fitted and read | {on_disk['megabytes']:.0f} MB |",
        f"| Read at random in batches of 64 | {on_disk['value']:,.0f} cells per second of a processor |",
        f"| Evaluations of our solver that are as exact as 50 of DDIM (error {ddim:.3f} s.d.) | {as_good} |",
    ]
    for of, name, case, default in CURVES:
        exponent = _exponent(_curve(speed, of, case, default), of)
        lines.append(f"| Time of {case} grows with {name} to the power (target: 1.1 at most) | {exponent:.2f} |")
    for of, name, default, most in FITS:
        curve = _curve(speed, of, "fit", default)
        exponent = _exponent(curve[curve[of] <= 4_000], of)
        lines.append(
            f"| Time of the closed form grows with {name} to the power (target: {most} at most) | {exponent:.2f} |"
        )
    curve = _curve(speed, "n_conditions", "fit", 500)
    for name, low, high in MANY:
        exponent = _exponent(curve[curve["n_conditions"].between(low, high)], "n_conditions")
        lines.append(
            f"| Time of the closed form grows with conditions, {name}, to the power (target: 1.2 at most) | {exponent:.2f} |"
        )
    for row in speed[speed["case"] == "genome"].itertuples():
        lines.append(
            f"| Closed form, {4_000 if np.isnan(row.n_conditions) else row.n_conditions:,.0f} human genes with the default prior | {row.processor_seconds:.0f} s of processors, "
            f"{row.megabytes / 1000:.1f} GB |"
        )
    large = speed[(speed["case"] == "fit") & (speed["n_conditions"] == 2_000) & (speed["n_batches"] == 48)]
    for row in large.itertuples():
        lines.append(
            f"| Closed form, 2,000 targets in 48 batches | {row.processor_seconds:.0f} s of processors, "
            f"{row.megabytes / 1000:.1f} GB |"
        )
    return "\n".join(lines) + "\n"


def _seconds(row: pd.Series) -> str:
    return f"{row['processor_seconds'] / row['n_units']:.3g} s"


def draw(speed: pd.DataFrame, errors: pd.DataFrame, file: Path) -> None:
    """Draw time and memory over sizes, and error over evaluations."""
    figure, axes = plt.subplots(2, 3, figsize=(10, 6), layout="constrained")
    panels = [*((ax, curve, "processor_seconds") for ax, curve in zip(axes.flat, CURVES, strict=False))]
    panels.append((axes.flat[4], CURVES[0], "megabytes"))
    for ax, (of, name, case, default), value in panels:
        cases = [case, "attention, PyG GATConv"] if of == "n_cells" else [case]
        for one in cases:
            curve = _curve(speed, of, one, default)
            ax.plot(curve[of], curve[value], "o-", label="PyG GATConv" if one != case else "unlasting")
        unit = "processor seconds" if value == "processor_seconds" else "peak memory (MB)"
        ax.set(xscale="log", yscale="log", xlabel=name, ylabel=unit, title=case)
    ax = axes.flat[5]
    for name, curve in errors.groupby("solver", sort=False):
        ax.plot(curve["n_evaluations"], curve["error"], "o-", label="unlasting" if name == "ours" else name)
    ax.set(xscale="log", yscale="log", xlabel="evaluations of the network", ylabel="error (s.d.)", title="solver")
    for ax in (axes.flat[0], axes.flat[5]):
        ax.legend(frameon=False)
    for ax in axes.flat:
        ax.xaxis.set_minor_formatter(NullFormatter())  # labels between powers of ten run into each other
    figure.savefig(file, dpi=120)
    plt.close(figure)
