"""Many predictors, splits and seeds by one protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import stats

from unlasting.baselines import BASELINES, Predictor
from unlasting.metrics import Metric
from unlasting.screen import Condition, ScreenKeys, logger, nearest_name
from unlasting.tl._evaluate import GENE_SETS, METRICS, fit_all, judge_all
from unlasting.tl._groups import Screen, store
from unlasting.tl._scores import CONDITION, TERMS, summary_table
from unlasting.tl._signal import holm
from unlasting.tl._verdict import NO_EFFECT, Rules

if TYPE_CHECKING:
    from anndata import AnnData

GROUP = ["split", "gene_set", "metric"]
COLUMNS = [*GROUP, "predictor", "score", "low", "high", "n_conditions", "rank", "better_in", "p_value", "p_adjusted"]


def benchmark(
    adata: AnnData,
    predictors: Mapping[str, Predictor] | None = None,
    *,
    splits: str | Iterable[str] | Mapping[str, Mapping[str, Any] | Sequence[Mapping[str, Any]]] = "unseen_perturbation",
    seeds: Iterable[int] = (0,),
    prepare: Callable[[AnnData], object] | None = None,
    reference: str | None = None,
    conditions: Iterable[str | tuple[str, ...]] | None = None,
    metrics: str | Metric | Iterable[str | Metric] = METRICS,
    gene_sets: str | Iterable[str] = GENE_SETS,
    n_repeats: int = 5,
    min_cells: int = 30,
    max_cells: int = 300,
    n_permutations: int = 999,
    n_bootstraps: int = 200,
) -> pd.DataFrame:
    """Compare predictors over splits and seeds, by the protocol of :func:`unlasting.tl.evaluate`.

    For every split and seed the screen is copied, split and prepared; every predictor is fitted to the copy, and judged
    on its test cells.

    Parameters
    ----------
    adata
        The screen, as `prepare` takes it; log-normalised without `prepare`.
    predictors
        What is compared, by name: baselines, :class:`unlasting.baselines.ModelPredictor`, or anything with their
        `fit` and `predict`. All baselines if `None`. No effect always takes part.
    splits
        Kinds of :func:`unlasting.pp.split`, or names of `obs` columns with `train`, `val` and `test`; or, by any name,
        the arguments of `pp.split`, or a list of them whose test conditions are put together, such as
        `{"one by one": [{"kind": "leave_one_out", "test": name} for name in names]}`.
    seeds
        Seeds of split and evaluation.
    prepare
        Is called on the copy after the split, so that what it fits knows no test cell. For raw counts:
        `lambda adata: (ul.pp.prepare(adata), ul.pp.grn(adata))`.
    reference
        The predictor to which the others are compared; the first if `None`.
    conditions
        Perturbations, or tuples of perturbation, cell type and dose. Where they are in the test part they are all
        scored, with a signal or not. If `None`, all test conditions, scored if they have a signal.
    metrics, gene_sets, n_repeats, min_cells, max_cells, n_permutations, n_bootstraps
        As of :func:`unlasting.tl.evaluate`.

    Returns
    -------
    A frame with `split`, `gene_set`, `metric`, `predictor`, `score` over all conditions of all seeds (values of one
    condition are averaged over seeds first), `low`, `high`, `n_conditions`, `rank` (1: the best score), `better_in`
    (share of the conditions in which it is better than the reference), `p_value` (two-sided Wilcoxon signed-rank
    test over conditions against the reference) and `p_adjusted` (Holm, over the predictors). Where a predictor said
    nothing, it is scored and compared on the other conditions: see `n_conditions`.

    Updates the following fields:

    - `adata.uns["unlasting"]["benchmark"]`: the frame.
    - `adata.uns["unlasting"]["benchmark_scores"]`, `["benchmark_harm"]`, `["benchmark_left_out"]`: the frames `scores`,
      `harm` and `score_left_out` of all evaluations, with `split` and `seed`, and whether a condition was `scored`.

    Raises
    ------
    KeyError
        If a metric or column is missing.
    ValueError
        If a split, the reference or an argument makes no sense, or a split leaves no condition to judge.
    """
    named: dict[str, Predictor] = dict(predictors) if predictors is not None else {n: b() for n, b in BASELINES.items()}
    if not named:
        raise ValueError("`predictors` is empty; name at least one, or leave it out for all baselines.")
    reference = next(iter(named)) if reference is None else reference
    if reference not in (*named, NO_EFFECT):
        raise ValueError(
            f"`reference` is {reference!r}; it must be one of {[*named]}.{nearest_name(reference, [*named])}"
        )
    seeds = [seeds] if isinstance(seeds, int) else list(seeds)
    if not seeds:
        raise ValueError("`seeds` is empty; name at least one.")
    numbers = {
        "n_repeats": n_repeats,
        "min_cells": min_cells,
        "max_cells": max_cells,
        "n_permutations": n_permutations,
        "n_bootstraps": n_bootstraps,
    }
    folds = _folds(adata, splits)
    parts: dict[str, list[pd.DataFrame]] = {"scores": [], "harm": [], "score_left_out": []}
    for split, seed, arguments in ((s, seed, a) for s, listed in folds.items() for seed in seeds for a in listed):
        logger.info("tl.benchmark: split %s, seed %d.", split, seed)
        rules = Rules.read(metrics, gene_sets, **numbers, seed=seed)
        tables = _one_run(adata, named, arguments, prepare, conditions, rules)
        for name, found in parts.items():
            found.append(tables[name].assign(split=split, seed=seed))
    scores, harm, left_out = (pd.concat(found, ignore_index=True) for found in parts.values())
    frame = _compared(scores, rules.metrics, reference)
    store(adata, benchmark=frame, benchmark_scores=scores, benchmark_harm=harm, benchmark_left_out=left_out)
    return frame.copy()


def _folds(
    adata: AnnData, splits: str | Iterable[str] | Mapping[str, Mapping[str, Any] | Sequence[Mapping[str, Any]]]
) -> dict[str, list[Mapping[str, Any]]]:
    """Write every split as a list of arguments: of `pp.split`, or the name of a column."""
    if isinstance(splits, Mapping):
        return {name: [found] if isinstance(found, Mapping) else list(found) for name, found in splits.items()}
    names = [splits] if isinstance(splits, str) else list(splits)
    return {name: [{"split_key": name} if name in adata.obs else {"kind": name}] for name in names}


def _one_run(
    adata: AnnData,
    predictors: Mapping[str, Predictor],
    arguments: Mapping[str, Any],
    prepare: Callable[[AnnData], object] | None,
    conditions: Iterable[str | tuple[str, ...]] | None,
    rules: Rules,
) -> dict[str, pd.DataFrame]:
    """Split, prepare, fit and judge once."""
    # scanpy is slow to import, and wanted only here
    from unlasting import pp

    adata = adata.copy()
    if "split_key" in arguments:
        ScreenKeys.restart(adata, split_key=arguments["split_key"]).write(adata)
    else:
        pp.split(adata, **{"seed": rules.seed, **arguments})
    if prepare is not None:
        prepare(adata)
    screen = Screen.of(adata)
    wanted = screen.observed_conditions(conditions)
    no_effect, fitted = fit_all(predictors, adata, {})
    tables, _ = judge_all(
        screen,
        fitted,
        no_effect,
        [condition for condition in screen.test_conditions() if condition in wanted],
        rules,
        scored_whole=conditions is not None,
        judged=list(fitted),
        left_out={},
    )
    judged = tables["score_conditions"]
    scored = pd.MultiIndex.from_frame(judged.loc[judged["scored"], CONDITION])
    tables["scores"]["scored"] = pd.MultiIndex.from_frame(tables["scores"][CONDITION]).isin(scored)
    return tables


def _compared(scores: pd.DataFrame, metrics: Sequence[Metric], reference: str) -> pd.DataFrame:
    """Put scores, ranks and the paired test side by side."""
    kept = scores[scores["scored"]].groupby([*GROUP, "predictor", *CONDITION], sort=False)[TERMS].mean().reset_index()
    by_name = {metric.name: metric for metric in metrics}
    frames = []
    for split, of_split in kept.groupby("split", sort=False):
        summary = summary_table(of_split, metrics, {Condition(*row) for row in of_split[CONDITION].to_numpy()}, seed=0)
        for (gene_set, name), part in summary.groupby(["gene_set", "metric"], sort=False):
            chosen = of_split[(of_split["gene_set"] == gene_set) & (of_split["metric"] == name)]
            losses = by_name[name].loss(chosen.pivot(index=CONDITION, columns="predictor", values="value"))
            tests = pd.DataFrame([_paired(losses, predictor, reference) for predictor in part["predictor"]])
            others = (part["predictor"] != reference).to_numpy()
            tests.loc[others, "p_adjusted"] = holm(tests.loc[others, "p_value"].to_numpy(dtype=float))
            rank = by_name[name].loss(part["score"]).rank(method="min")
            frames.append(pd.concat([part.assign(split=split, rank=rank).reset_index(drop=True), tests], axis=1))
    frame = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=COLUMNS)
    return frame[COLUMNS].sort_values([*GROUP, "rank"], kind="stable", ignore_index=True)


def _paired(losses: pd.DataFrame, predictor: str, reference: str) -> dict[str, float]:
    """Test whether a predictor differs from the reference over the conditions that both have."""
    if predictor == reference or reference not in losses:
        return {"better_in": np.nan, "p_value": np.nan, "p_adjusted": np.nan}
    difference = (losses[predictor] - losses[reference]).dropna().to_numpy(dtype=float)
    if not difference.any():
        return {"better_in": 0.0, "p_value": 1.0, "p_adjusted": np.nan}
    p_value = float(stats.wilcoxon(difference).pvalue)
    return {"better_in": float((difference < 0).mean()), "p_value": p_value, "p_adjusted": np.nan}
