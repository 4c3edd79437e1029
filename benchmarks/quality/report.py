"""Write a table of results as Markdown, mean and s.d. over seeds, from the files that `run.py` wrote.

python benchmarks/quality/report.py papalexi_targets
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

RESULTS = Path(__file__).parent / "results"
COLUMNS = {
    ("e_distance", "all"): "E, all",
    ("e_distance", "de20"): "E, DE20",
    ("emd", "all"): "EMD, all",
    ("emd", "de20"): "EMD, DE20",
    ("pearson_change", "all"): "Pearson",
    ("pearson_change_centred", "all"): "Pearson, centred",
}
LARGER_IS_BETTER = ("pearson_change", "pearson_change_centred")


def report(name: str) -> str:
    """Write one table."""
    scores = pd.read_csv(RESULTS / f"{name}.csv")
    of_seeds = scores.groupby(["metric", "gene_set", "predictor"])["score"].agg(["mean", "std"])
    if ("e_distance", "all") not in of_seeds.index.droplevel("predictor"):
        columns = {key: " ".join(key).replace("_", " ") for key in of_seeds.index.droplevel("predictor").unique()}
    else:
        columns = COLUMNS
    first = next(iter(columns))
    order = of_seeds["mean"].xs(first).sort_values().index
    rows = ["| | " + " | ".join(columns.values()) + " |", "|---" * (len(columns) + 1) + "|"]
    for predictor in order:
        cells = []
        for key in columns:
            part = of_seeds.xs(key)
            if predictor not in part.index:
                cells.append("")
                continue
            mean, deviation = part.loc[predictor]
            everywhere = part.loc[part.index != "additive", "mean"]  # which is there for pairs only
            best = everywhere.max() if key[0] in LARGER_IS_BETTER else everywhere.min()
            text = f"{mean:.3f}" if abs(mean) < 0.1 else f"{mean:.2f}"
            spread = "" if pd.isna(deviation) else f" ± {deviation:.2f}"
            cells.append((f"**{text}**" if mean == best else text) + spread)
        rows.append(f"| {predictor} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "name",
        choices=sorted(
            path.stem
            for path in RESULTS.glob("*.csv")
            if not path.stem.endswith(("_conditions", "_monotone", "_false_positives"))
            and "_conditions_" not in path.stem
        ),
    )
    print(report(parser.parse_args().name))
