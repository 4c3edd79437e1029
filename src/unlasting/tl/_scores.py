"""From verdicts to tables: values, normalised values, scores over conditions with intervals."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd

from unlasting.metrics import Metric
from unlasting.screen import Condition
from unlasting.tl._comparison import ALL, is_of_conditions
from unlasting.tl._signal import holm
from unlasting.tl._verdict import FLOOR, LEVEL, NO_EFFECT, OBSERVED, Verdict

TERMS = ["value", "floor", "no_effect"]
CONDITION = ["condition", "cell_type", "dose"]
SCORES = [
    *CONDITION,
    "gene_set",
    "metric",
    "predictor",
    "value",
    "floor",
    "no_effect",
    "normalised",
    "n_cells",
    "signal",
]
SUMMARY = ["predictor", "gene_set", "metric", "score", "low", "high", "n_conditions", "best"]
HARM = [*CONDITION, "predictor", "emd", "emd_no_effect", "p_value", "p_adjusted", "rejected"]
LEFT_OUT = [*CONDITION, "predictor", "reason"]
N_BOOTSTRAPS = 1000


def is_distance(metric: Metric) -> bool:
    """Whether a perfect prediction has value 0, so that noise floor and no effect are the ends of its scale."""
    return metric.best_value == 0


def score_table(
    verdicts: Sequence[Verdict],
    metrics: Sequence[Metric],
    gene_sets: Sequence[str],
    predictors: Sequence[str],
    scored: Collection[Condition],
) -> pd.DataFrame:
    """Write a row for each condition, set of genes, metric and predictor.

    The normalised value is missing for conditions that are not scored, and where nothing can be divided by.
    """
    rows = []
    found = {verdict.condition: dict(verdict.values) for verdict in verdicts}
    for metric in filter(is_of_conditions, metrics):
        for condition, of_condition in _of_conditions(metric, verdicts, scored).items():
            for name, of_predictor in of_condition.items():
                found[condition][name] = {**found[condition].get(name, {}), (metric.name, ALL): of_predictor}
    for verdict in verdicts:
        values = found[verdict.condition]
        for metric, gene_set in itertools.product(metrics, dict.fromkeys([*gene_sets, ALL])):
            for name in predictors:
                terms = values.get(name, {}).get((metric.name, gene_set))
                if terms is None:
                    continue
                rows.append(
                    {
                        **verdict.condition.columns(),
                        "gene_set": gene_set,
                        "metric": metric.name,
                        "predictor": name,
                        **dict(zip(TERMS, terms, strict=True)),
                        "normalised": _ratios(metric, terms[None, :])[0] if verdict.condition in scored else np.nan,
                        "n_cells": verdict.n_cells[name],
                        "signal": verdict.signal,
                    }
                )
    return pd.DataFrame(rows, columns=SCORES)


def summary_table(
    scores: pd.DataFrame, metrics: Sequence[Metric], scored: Collection[Condition], seed: int
) -> pd.DataFrame:
    """Write the score over conditions of each predictor, metric and set of genes, a ratio of means."""
    by_name = {metric.name: metric for metric in metrics}
    places = pd.MultiIndex.from_frame(scores[CONDITION])
    counts = pd.Series([place in scored for place in places], index=scores.index, dtype=bool)
    rows = []
    for (predictor, gene_set, name), part in scores.groupby(["predictor", "gene_set", "metric"], sort=False):
        terms = part.loc[counts[part.index], TERMS].dropna().to_numpy(dtype=float)
        n, best = len(terms), 0.0 if is_distance(by_name[name]) else 1.0
        if n == 0:
            rows.append((predictor, gene_set, name, np.nan, np.nan, np.nan, 0, best))
            continue
        # how often each condition is drawn; the first row is the sample itself
        drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), N_BOOTSTRAPS)
        means = np.vstack([np.ones(n), drawn]) @ terms / n
        score, *again = _ratios(by_name[name], means)
        interval = np.nanquantile(again, [0.025, 0.975]) if n > 1 and np.isfinite(again).any() else (np.nan, np.nan)
        rows.append((predictor, gene_set, name, score, *interval, n, best))
    return pd.DataFrame(rows, columns=SUMMARY)


def condition_table(verdicts: Sequence[Verdict], scored: Collection[Condition]) -> pd.DataFrame:
    """Write a row for each condition: its cells, and whether it has a signal."""
    return pd.DataFrame(
        [
            {
                **verdict.condition.columns(),
                "n_test": verdict.n_test,
                "n_cells": verdict.n_cells[NO_EFFECT],
                "de_from": verdict.de_from,
                "n_de_cells": verdict.n_de_cells,
                "n_de_genes": verdict.n_de_genes,
                "e_distance": verdict.e_distance,
                "p_value": verdict.p_value,
                "signal": verdict.signal,
                "scored": verdict.condition in scored,
            }
            for verdict in verdicts
        ]
    )


def harm_table(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """Write a row for each condition without a signal and each predictor, p-values adjusted over the conditions."""
    rows = [
        {**verdict.condition.columns(), "predictor": name, "emd": emd, "emd_no_effect": no_effect, "p_value": p_value}
        for verdict in verdicts
        for name, (emd, no_effect, p_value) in verdict.harm.items()
    ]
    frame = pd.DataFrame(rows, columns=HARM[:-2])
    frame["p_adjusted"] = frame.groupby("predictor")["p_value"].transform(lambda p: holm(p.to_numpy(dtype=float)))
    frame["rejected"] = frame["p_adjusted"] <= LEVEL
    return frame


def left_out_table(verdicts: Sequence[Verdict], left_out: dict[Condition, str]) -> pd.DataFrame:
    """Write what was not judged, with the reason; without a predictor where it is the whole condition."""
    rows = [{**condition.columns(), "predictor": "", "reason": reason} for condition, reason in left_out.items()]
    rows += [
        {**verdict.condition.columns(), "predictor": name, "reason": reason}
        for verdict in verdicts
        for name, reason in verdict.missing.items()
    ]
    return pd.DataFrame(rows, columns=LEFT_OUT)


def _ratios(metric: Metric, terms: np.ndarray) -> np.ndarray:
    """Divide by the ends of the scale, from columns of value, floor and no effect, shape `(n, 3)`.

    0 is the floor and 1 no effect; for what is best at 1, 1 is the floor. Missing where there is nothing to divide by,
    or rounding only, as in the library sizes of normalised cells.
    """
    value, floor, no_effect = terms.T
    above, below = (value - floor, no_effect - floor) if is_distance(metric) else (value, floor)
    return np.divide(above, below, out=np.full(len(terms), np.nan), where=below > 1e-6 * np.abs(above))


def _of_conditions(
    metric: Metric, verdicts: Sequence[Verdict], scored: Collection[Condition]
) -> dict[Condition, dict[str, np.ndarray]]:
    """Compute a metric of the changes of all scored conditions of a cell type, and those of floor and no effect."""
    found: dict[Condition, dict[str, np.ndarray]] = {}
    chosen = [verdict for verdict in verdicts if verdict.condition in scored]
    for cell_type in dict.fromkeys(verdict.condition.cell_type for verdict in chosen):
        of_type = [verdict for verdict in chosen if verdict.condition.cell_type == cell_type]
        for name in dict.fromkeys(name for verdict in of_type for name in verdict.values):
            with_it = [verdict for verdict in of_type if name in verdict.changes]
            if len(with_it) < 2:
                continue
            terms = np.transpose([_mean_over_repeats(metric, with_it, key) for key in (name, FLOOR, NO_EFFECT)])
            for verdict, of_condition in zip(with_it, terms, strict=True):
                found.setdefault(verdict.condition, {})[name] = of_condition
    return found


def _mean_over_repeats(metric: Metric, verdicts: Sequence[Verdict], name: str) -> np.ndarray:
    """Compute a metric of the changes of conditions, one value for each, shape `(n_conditions,)`."""
    # (n_repeats, n_conditions, n_genes)
    predicted, observed = (np.stack([v.changes[key] for v in verdicts], axis=1) for key in (name, OBSERVED))
    values = [
        np.broadcast_to(metric.function(predicted_effects=x, observed_effects=y), len(verdicts))
        for x, y in zip(predicted, observed, strict=True)
    ]
    return np.mean(values, axis=0)
