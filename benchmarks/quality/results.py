"""Score every table of README and the page of results with one model, and write their tables and figures.

    make results                  # scores what this model has not scored yet, then writes the pages (hours)
    make results DATA=FOLDER      # with the McFaline and Datlinger screens
    make results DRAW=1           # writes the pages from the files with the scores (seconds)
    make results SHORT=1          # scores five rows in another folder, and compares them with the files (minutes)

An interrupted run goes on where it stopped. Pages are refused when their tables are from several models (`stamps.py`).
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from networks import NAME as NETWORKS
from networks import SCREENS
from networks import sentence as networks_sentence
from networks import stored as networks
from paper import FILE as PUBLISHED
from paper import NAME as PAPER
from paper import parts as trainings
from results_figures import FOLDER, INK, draw_overview, draw_question, style
from rows_tables import DISTANCES, LEVEL, OURS, QUESTIONS, RIVALS, score, source_name, stored, summary, terms_of
from stamps import RESULTS, ROOT, one_model
from vcc2026 import NAME, markdown, screens, text

from unlasting.tl._uncertainty import difference_interval

HERE = Path(__file__).parent
SHORT = ("P2", "N1", "N3", "K1", "S1")
FURTHER = ("restraint", "transfer")
NO_BREAK = "\N{NO-BREAK SPACE}"
DESCRIPTIONS = {
    "P1": "Nine knock-outs in THP-1 cells with a clear effect. Each is left out in turn, and all others are trained.",
    "P2": "Seven knock-outs in THP-1 cells are held out together. Two of them belong to trained pathways.",
    "N1": "Ten activations and pairs in K562 cells are held out together.",
    "N3": "Pairs of activations whose single activations are both trained. Each pair is left out in turn.",
    "D1": "Knock-outs in stimulated Jurkat cells, each left out in turn. The 140 control cells are few: baselines that add an "
    "effect to the same controls cancel their sampling error, and can score below 0.",
    "D2": "Knock-outs measured in unstimulated Jurkat cells are predicted in stimulated ones. The 60 control cells are few, as "
    "in D1.",
    "K1": "Interferon beta in seven blood cell types. Each cell type is left out in turn; its controls are trained.",
    "K2": "Interferon beta in a blood cell type, learnt from two others only: twelve sets of three cell types.",
    "S1": "Simulated drug screens: a dose between trained ones.",
    "S2": "Simulated drug screens: drugs without any trained cell, described by their molecule.",
    "S3": "Simulated drug screens: a drug together with the knock-out of a gene, each trained alone.",
    "S4": "Simulated screens: trained perturbations in a cell type with trained controls only.",
}
"""Sentences about each question. N2 is N1 without a condition, and has no figure."""
GROUPS = {
    "behind": "Behind the best baseline",
    "level": "No clear difference from the best baseline",
    "ahead": "Ahead of the best baseline",
}
RULE = (
    "Differences are ours minus the baseline's, paired over conditions. Behind: their 90 % interval lies above 0 in E or EMD. "
    "Ahead: it lies below 0 in one of them, and above 0 in none."
)


def main(arguments: argparse.Namespace) -> None:
    """Score, then write."""
    if arguments.short:
        sys.exit(short())
    if not arguments.draw:
        options = ["--resume", *(["--data", str(arguments.data)] if arguments.data else [])]
        for script in ("rows.py", "vcc2026.py"):
            subprocess.run([sys.executable, HERE / script, *options], check=True)
        subprocess.run([sys.executable, HERE / "networks.py", "--resume"], check=True)
        for screen, preset, seed in map(str.split, trainings(pd.read_csv(PUBLISHED))):
            published = ["paper.py", screen, "--presets", preset, "--seeds", seed, "--resume"]
            subprocess.run([sys.executable, HERE / published[0], *published[1:]], check=True)
    rows = sorted({source_name(row) for row in QUESTIONS})
    try:
        published = trainings(pd.read_csv(PUBLISHED))
        stamped = one_model({"rows": [*rows, *FURTHER], NAME: screens(Path()), NETWORKS: SCREENS, PAPER: published})
    except ValueError as error:
        sys.exit(str(error))
    write_pages(stamped)


def short() -> int:
    """Score some rows in a folder of their own, and compare our scores with the intervals in the committed files."""
    folder = RESULTS / "short"
    folder.mkdir(exist_ok=True)
    command = [sys.executable, HERE / "rows.py", "--resume", "--only", *SHORT]
    subprocess.run(command, check=True, env={**os.environ, "RESULTS": str(folder)})
    lines = [summary(stored("scores", where), stored("choices", where)) for where in (RESULTS, folder)]
    committed, found = (frame.set_index(["row", "metric"]) for frame in lines)
    n_outside = 0
    for key in found.index:
        ours, line = found.loc[key, "ours"], committed.loc[key]
        is_outside = not line["low"] <= ours <= line["high"]
        n_outside += is_outside
        interval = f"{text(line['ours'])} [{text(line['low'])}, {text(line['high'])}]"
        print(f"{' '.join(key)}: {text(ours)}, committed {interval}{' OUTSIDE' if is_outside else ''}")
    return int(n_outside > 0)


def questions() -> pd.DataFrame:
    """Collect a line for each row: both metrics, the best baseline after the fact, and the paired difference from it."""
    scores, choices = stored("scores"), stored("choices")
    lines = summary(scores, choices)
    lines = lines[lines["row"].isin(DESCRIPTIONS)]
    found = []
    for line in lines.to_dict("records"):
        terms = terms_of(scores, choices, line["row"], line["metric"])
        paired = difference_interval(score, terms[OURS], terms[line["best"]], 0, level=LEVEL)
        line |= dict(zip(["gap", "gap_low", "gap_high"], paired, strict=True))
        # without the copies of the fallback
        own = scores.loc[scores["row"] == source_name(line["row"]), "predictor"].unique()
        line["terms"] = {name: terms[name] for name in [OURS, *RIVALS] if name in own}
        found.append({**line, "best_score": line["values"][line["best"]]})
    frame = pd.DataFrame(found)
    frame["group"] = frame["row"].map({row: group(part) for row, part in frame.groupby("row")})
    worst = frame.groupby("row")["gap"].max()
    order = sorted(
        worst.index, key=lambda row: (list(GROUPS).index(frame.set_index("row")["group"][row].iloc[0]), -worst[row])
    )
    return (
        frame.set_index(["row", "metric"]).loc[[(row, metric) for row in order for metric in DISTANCES]].reset_index()
    )


def group(part: pd.DataFrame) -> str:
    """Compare with the best baseline: behind in a metric, ahead in a metric and behind in none, or neither."""
    if (part["gap_low"] > 0).any():
        return "behind"
    return "ahead" if (part["gap_high"] < 0).any() else "level"


def write_pages(stamped: Any) -> None:
    """Write figures, the section of each question, and the part of README between its marks."""
    lines = questions()
    FOLDER.mkdir(parents=True, exist_ok=True)
    figures = {"overview": (draw_overview, lines), "overview_narrow": (partial(draw_overview, is_narrow=True), lines)}
    figures |= {f"question_{row}": (draw_question, part) for row, part in lines.groupby("row", sort=False)}
    for name, (draw, data) in figures.items():
        for theme, ink in INK.items():
            with style():
                figure = draw(data, ink)
                figure.savefig(FOLDER / f"{name}_{theme}.svg", transparent=True, metadata={"Date": None})
                plt.close(figure)
    made = f"Scored on {stamped['date']} with version {stamped['version']}, commit {stamped['commit']}, model `{stamped['model']}`."
    (RESULTS / "questions.md").write_text(sections(lines), encoding="utf-8")
    (RESULTS / "overview.md").write_text(f"{overview_table(lines)}\n{groups(lines)} {made}\n", encoding="utf-8")
    (RESULTS / "slopes.md").write_text(slopes() + "\n", encoding="utf-8")
    page, table = ROOT / "README.md", overview_table(lines)
    written = f"{table}\n{groups(lines)} {made} Closed form beside trained networks. {networks_sentence(networks())}"
    page.write_text(between(page.read_text(encoding="utf-8"), written), encoding="utf-8")


def between(page: str, written: str) -> str:
    """Replace the text between the marks."""
    return re.sub(
        r"(<!-- make results: begin -->\n).*?(<!-- make results: end -->)",
        lambda found: f"{found[1]}{written}\n{found[2]}",
        page,
        flags=re.S,
    )


def overview_table(lines: pd.DataFrame) -> str:
    """Write a line for each question: our score with its interval, and the best baseline, by E and by EMD."""
    body = []
    for row, part in lines.groupby("row", sort=False):
        entries = []
        for line in part.to_dict("records"):
            ours, best = text(line["ours"]), text(line["best_score"])
            is_best = line["ours"] <= line["best_score"]
            ours, best = (f"**{ours}**", best) if is_best else (ours, f"**{best}**")
            ours = f"{ours} [{text(line['low'])}, {text(line['high'])}]".replace(" ", NO_BREAK)
            entries += [ours, f"{best} {line['best']}"]
        body.append([f"{row}: {part['title'].iloc[0]}", str(part["n"].iloc[0]), *entries])
    return markdown(["question", "n", "E", "best baseline", "EMD", "best baseline"], body)


def groups(lines: pd.DataFrame) -> str:
    """List the questions of each group."""
    named = [(title, lines.loc[lines["group"] == name, "row"].unique()) for name, title in GROUPS.items()]
    return " ".join([*(f"{title}: {', '.join(rows)}." for title, rows in named if len(rows)), RULE])


def sections(lines: pd.DataFrame) -> str:
    """Write a section for each question, those behind a baseline first."""
    parts = []
    for name, title in GROUPS.items():
        some = lines[lines["group"] == name]
        if len(some):
            parts.append(f"## {title}\n")
        for row, part in some.groupby("row", sort=False):
            title = part["title"].iloc[0]
            parts += [f"### {row}: {title}\n", f"{DESCRIPTIONS[row]}\n", image(f"question_{row}", sentence(part))]
            parts.append(f"{sentence(part)}\n")
    return "\n".join(parts)


def sentence(part: pd.DataFrame) -> str:
    """Write both scores beside the best baseline."""
    found = []
    for line in part.to_dict("records"):
        paired = f"difference {text(line['gap'])} [{text(line['gap_low'])}, {text(line['gap_high'])}]"
        found.append(
            f"{DISTANCES[line['metric']]} {text(line['ours'])}, best baseline {text(line['best_score'])} ({line['best']}; {paired})"
        )
    return f"{part['n'].iloc[0]} conditions: {'; '.join(found)}."


def image(name: str, alternative: str) -> str:
    """Write an image for light and for dark pages."""
    place = f"../_static/results/{name}"
    return "".join(
        f"```{{image}} {place}_{theme}.svg\n:class: only-{theme}\n:alt: {alternative}\n:width: 560px\n```\n"
        for theme in INK
    )


def slopes() -> str:
    """Write the range over rows of the slope of true on predicted changes."""
    sums = stored("sizes").groupby("row")[["product", "predicted"]].sum()
    slope = sums["product"] / sums["predicted"]
    same = slope.drop("D2", errors="ignore")
    return (
        f"The slope of true on predicted changes is {text(same.min())} to {text(same.max())} in {len(same)} questions"
        + (f", and {text(slope['D2'])} in D2" if "D2" in slope else "")
        + ": above 1, predictions are too small."
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None, help="folder with further screens")
    parser.add_argument("--draw", action="store_true", help="write the pages only")
    parser.add_argument("--short", action="store_true", help="score some rows and compare them with the files")
    main(parser.parse_args())
