"""Tables from results: values, normalised values, and scores over conditions with their uncertainty."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd
from scipy.stats import pearsonr

from unlasting.metrics import Metric
from unlasting.screen import Condition
from unlasting.tl._comparison import compares_conditions
from unlasting.tl._evaluator import ConditionResult
from unlasting.tl._protocol import ALL, FLOOR, LEVEL, NO_EFFECT, OBSERVED
from unlasting.tl._uncertainty import difference_interval, leave_one_out, score_interval

TERMS = ["value", "floor", "no_effect"]
CONDITION = ["condition", "cell_type", "dose"]
KEYS = ["predictor", "gene_set", "metric"]
SCORES = [*CONDITION, "gene_set", "metric", "predictor", *TERMS, "normalised", "n_cells", "signal"]
DIFFERENCE = ["difference", "difference_low", "difference_high", "without_one_low", "without_one_high", "decided_by"]
SUMMARY = [
    *KEYS,
    "score",
    "low",
    "high",
    "n_conditions",
    "best",
    "is_best",
    "is_ceiling",
    "reference",
    "n_paired",
    *DIFFERENCE,
]
FALSE_POSITIVES = [*CONDITION, "predictor", "e_distance", "e_distance_no_effect", "p_value", "detectable", "rejected"]
LEFT_OUT = [*CONDITION, "predictor", "reason"]


def score_table(
    results: Sequence[ConditionResult],
    metrics: Sequence[Metric],
    gene_sets: Sequence[str],
    predictors: Sequence[str],
    scored: Collection[Condition],
) -> pd.DataFrame:
    """Write a row for each condition, gene set, metric and predictor.

    The normalised value is missing for conditions that are not scored, and where the scale has no length.
    """
    rows = []
    found = {result.condition: dict(result.values) for result in results}
    for metric in filter(compares_conditions, metrics):
        for condition, by_name in _condition_terms(metric, results, scored).items():
            for name, row in by_name.items():
                found[condition][name] = {**found[condition].get(name, {}), (metric.name, ALL): row}
    for result in results:
        values = found[result.condition]
        for metric, gene_set in itertools.product(metrics, dict.fromkeys([*gene_sets, ALL])):
            for name in predictors:
                terms = values.get(name, {}).get((metric.name, gene_set))
                if terms is None:
                    continue
                rows.append(
                    {
                        **result.condition.columns(),
                        "gene_set": gene_set,
                        "metric": metric.name,
                        "predictor": name,
                        **dict(zip(TERMS, terms, strict=True)),
                        "normalised": normalised(metric, terms[None])[0] if result.condition in scored else np.nan,
                        "n_cells": result.n_cells[name],
                        "signal": result.signal,
                    }
                )
    return pd.DataFrame(rows, columns=SCORES)


def summary_table(
    scores: pd.DataFrame,
    metrics: Sequence[Metric],
    scored: Collection[Condition],
    seed: int,
    *,
    reference: str | None = None,
    evaluated: Collection[str] = (),
    ceilings: Collection[str] = (),
) -> pd.DataFrame:
    """Write the score over conditions for each predictor, gene set and metric, with its uncertainty.

    Without a `reference`, it is the best baseline among those with the most conditions: no `evaluated` predictor, and no
    ceiling.
    """
    by_name = {metric.name: metric for metric in metrics}
    counts = [condition in scored for condition in pd.MultiIndex.from_frame(scores[CONDITION])]
    kept = scores[np.array(counts, dtype=bool)].dropna(subset=TERMS)
    frames = []
    for (gene_set, name), group in scores.groupby(["gene_set", "metric"], sort=False):
        metric = by_name[name]
        chosen = kept[(kept["gene_set"] == gene_set) & (kept["metric"] == name)]
        terms = {
            predictor: chosen[chosen["predictor"] == predictor].set_index(CONDITION)[TERMS].astype(float)
            for predictor in dict.fromkeys(group["predictor"])
        }
        rows = [_score(metric, part, seed) for part in terms.values()]
        part = pd.DataFrame(rows).assign(predictor=list(terms), gene_set=gene_set, metric=name)
        part["best"] = 0.0 if is_distance(metric) else 1.0
        part["is_ceiling"] = part["predictor"].isin(list(ceilings))
        contenders = part[~part["is_ceiling"]]
        part["is_best"] = part.index == _best(metric, contenders)
        others = contenders[~contenders["predictor"].isin(list(evaluated))]
        hardest = _best(metric, others)
        compared = (part["predictor"].get(hardest, "") if reference is None else reference) or ""
        part["reference"] = compared
        differences = [
            _difference(metric, own, terms.get(compared), seed) if predictor != compared else {"n_paired": len(own)}
            for predictor, own in terms.items()
        ]
        frames.append(part.join(pd.DataFrame(differences, columns=["n_paired", *DIFFERENCE])))
    frame = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=SUMMARY)
    order = {name: i for i, name in enumerate(dict.fromkeys(scores["predictor"]))}
    frame = frame.sort_values("predictor", key=lambda names: names.map(order), kind="stable", ignore_index=True)
    return frame[SUMMARY].fillna({"decided_by": ""})


def condition_table(results: Sequence[ConditionResult], scored: Collection[Condition]) -> pd.DataFrame:
    """Write a row for each condition: its cells and its signal."""
    return pd.DataFrame(
        [
            {
                **result.condition.columns(),
                "n_test": result.n_test,
                "n_cells": result.n_cells[NO_EFFECT],
                "de_from": result.de_from,
                "n_de_cells": result.n_de_cells,
                "n_de_genes": result.n_de_genes,
                "e_distance": result.e_distance,
                "p_value": result.p_value,
                "signal": result.signal,
                "scored": result.condition in scored,
            }
            for result in results
        ]
    )


def false_positive_table(results: Sequence[ConditionResult]) -> pd.DataFrame:
    """Write a row for each condition without a signal and each predictor."""
    rows = [
        {
            **result.condition.columns(),
            "predictor": name,
            "e_distance": test.e_distance,
            "e_distance_no_effect": test.no_effect,
            "p_value": test.p_value,
            "detectable": test.detectable,
            "rejected": test.p_value <= LEVEL,
        }
        for result in results
        for name, test in result.false_positives.items()
    ]
    return pd.DataFrame(rows, columns=FALSE_POSITIVES).astype({"rejected": bool})


def left_out_table(results: Sequence[ConditionResult], left_out: Mapping[Condition, str]) -> pd.DataFrame:
    """Write each missing evaluation with its reason; a whole condition has an empty predictor."""
    rows = [{**condition.columns(), "predictor": "", "reason": reason} for condition, reason in left_out.items()]
    rows += [
        {**result.condition.columns(), "predictor": name, "reason": reason}
        for result in results
        for name, reason in result.missing.items()
    ]
    return pd.DataFrame(rows, columns=LEFT_OUT)


def agreement(observed: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Correlate the changes of all genes, and regress observed on predicted ones through 0; missing without a prediction."""
    square = float(predicted @ predicted)
    return {
        "pearson": float(pearsonr(predicted, observed)[0]) if square > 0 else np.nan,
        "slope": float(predicted @ observed) / square if square > 0 else np.nan,
    }


def is_distance(metric: Metric) -> bool:
    """Whether a perfect prediction has value 0, so that the scale goes from noise floor to no effect."""
    return metric.best_value == 0


def normalised(metric: Metric, terms: np.ndarray) -> np.ndarray:
    """Normalise the columns value, floor and no effect, shape `(n, 3)`.

    For a distance 0 is the floor and 1 no effect; for other metrics 1 is the floor. Missing where the scale has no
    length beyond rounding, as for library sizes after normalisation.
    """
    value, floor, no_effect = terms.T
    above, below = (value - floor, no_effect - floor) if is_distance(metric) else (value, floor)
    return np.divide(above, below, out=np.full(len(terms), np.nan), where=below > 1e-6 * np.abs(above))


def _score(metric: Metric, terms: pd.DataFrame, seed: int) -> dict[str, float]:
    if terms.empty:
        return {"score": np.nan, "low": np.nan, "high": np.nan, "n_conditions": 0}
    interval = score_interval(partial(normalised, metric), terms.to_numpy(), seed)
    return {"score": interval.value, "low": interval.low, "high": interval.high, "n_conditions": len(terms)}


def _best(metric: Metric, rows: pd.DataFrame) -> int:
    """Find the row with the best score among those with the most conditions, -1 without any."""
    rows = rows[rows["score"].notna()]
    rows = rows[rows["n_conditions"] == rows["n_conditions"].max()]
    return -1 if rows.empty else int(metric.loss(rows["score"]).idxmin())


def _difference(metric: Metric, own: pd.DataFrame, other: pd.DataFrame | None, seed: int) -> dict[str, object]:
    """Compare a predictor with the reference over shared conditions.

    A win that turns into none without one condition is decided by that condition.
    """
    shared = own.index[:0] if other is None else own.index.intersection(other.index, sort=False)
    if other is None or shared.empty:
        return {"n_paired": 0}
    score = partial(normalised, metric)
    terms, reference = own.loc[shared].to_numpy(), other.loc[shared].to_numpy()
    interval = difference_interval(score, terms, reference, seed)
    scores, references = (np.append(leave_one_out(score, x), score(x.mean(axis=0)[None])) for x in (terms, reference))
    gains = metric.loss(references) - metric.loss(scores)
    *without, overall = np.nan_to_num(gains)
    left_out = (scores - references)[:-1]
    decided = overall > 0 >= min(without)
    finite = np.isfinite(left_out).any()
    return {
        "n_paired": len(shared),
        "difference": interval.value,
        "difference_low": interval.low,
        "difference_high": interval.high,
        "without_one_low": float(np.nanmin(left_out)) if finite else np.nan,
        "without_one_high": float(np.nanmax(left_out)) if finite else np.nan,
        "decided_by": str(Condition(*shared[int(np.argmin(without))])) if decided else "",
    }


def _condition_terms(
    metric: Metric, results: Sequence[ConditionResult], scored: Collection[Condition]
) -> dict[Condition, dict[str, np.ndarray]]:
    """Compute a metric over all scored conditions in a cell type, with floor and no effect."""
    found: dict[Condition, dict[str, np.ndarray]] = {}
    chosen = [result for result in results if result.condition in scored]
    for cell_type in dict.fromkeys(result.condition.cell_type for result in chosen):
        same_type = [result for result in chosen if result.condition.cell_type == cell_type]
        for name in dict.fromkeys(name for result in same_type for name in result.values):
            with_it = [result for result in same_type if name in result.changes]
            if len(with_it) < 2:
                continue
            terms = np.transpose([_mean_over_repeats(metric, with_it, key) for key in (name, FLOOR, NO_EFFECT)])
            for result, row in zip(with_it, terms, strict=True):
                found.setdefault(result.condition, {})[name] = row
    return found


def _mean_over_repeats(metric: Metric, results: Sequence[ConditionResult], name: str) -> np.ndarray:
    """Compute a metric over all conditions, one value for each, shape `(n_conditions,)`."""
    # (n_repeats, n_conditions, n_genes)
    predicted, observed = (np.stack([r.changes[key] for r in results], axis=1) for key in (name, OBSERVED))
    values = [
        np.broadcast_to(metric.function(predicted_effects=x, observed_effects=y), len(results))
        for x, y in zip(predicted, observed, strict=True)
    ]
    return np.mean(values, axis=0)
