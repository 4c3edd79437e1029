"""Benchmark: many predictors, splits and seeds under one protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import stats

from unlasting.baselines import BASELINES, Predictor
from unlasting.metrics import Metric
from unlasting.screen import Condition, ScreenKeys, logger, to_memory
from unlasting.tl._evaluate import check_reference, evaluate_all, fit_all
from unlasting.tl._protocol import GENE_SETS, METRICS, NO_EFFECT, Protocol
from unlasting.tl._screen import Screen, store
from unlasting.tl._tables import CONDITION, DIFFERENCE, TERMS, summary_table
from unlasting.tl._uncertainty import holm

if TYPE_CHECKING:
    from anndata import AnnData

GROUP = ["split", "gene_set", "metric"]
SCORE = ["predictor", "score", "low", "high", "n_conditions", "rank", "is_ceiling", "reference", "n_paired"]
COLUMNS = [*GROUP, *SCORE, *DIFFERENCE, "better_in", "p_value", "p_adjusted"]


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
) -> pd.DataFrame:
    """Compare predictors over splits and seeds, with the protocol of :func:`unlasting.tl.evaluate`.

    For every split and seed a copy of the screen is split and prepared. Every predictor is fitted to the copy and
    evaluated on its test cells.

    Parameters
    ----------
    adata
        The screen as `prepare` takes it; log-normalised without `prepare`.
    predictors
        Predictors by name: baselines, :class:`unlasting.baselines.ModelPredictor`, or anything with their `fit` and
        `predict`. All baselines if `None`. No effect always takes part.
    splits
        Kinds in :func:`unlasting.pp.split`, or columns in `obs` with `train`, `val` and `test`; or, by any name,
        arguments for `pp.split`, or a list of them whose test conditions are joined, such as
        `{"one by one": [{"kind": "leave_one_out", "test": name} for name in names]}`.
    seeds
        Seeds for split and evaluation.
    prepare
        Function called on the copy after the split, so that it fits no test cell. For raw counts:
        `lambda adata: (ul.pp.prepare(adata), ul.pp.grn(adata))`.
    reference
        Predictor for the paired comparisons; the first if `None`.
    conditions
        Perturbations, or tuples (perturbation, cell type, dose), all of which are scored where they are in the test
        part. If `None`, all test conditions, scored where they have a signal.
    metrics, gene_sets, n_repeats, min_cells, max_cells, n_permutations
        As for :func:`unlasting.tl.evaluate`.

    Returns
    -------
    A frame with a row for each `split`, `gene_set`, `metric` and `predictor`, over all conditions and seeds (a
    condition is averaged over seeds first). It has `rank` (1: the best score), the columns of
    `uns["unlasting"]["score_summary"]` (:func:`unlasting.tl.evaluate`), and against the reference, over the conditions
    of both: `better_in` (share of conditions), `p_value` (two-sided Wilcoxon signed-rank test over conditions) and
    `p_adjusted` (Holm, over predictors).

    Updates the following fields:

    - `adata.uns["unlasting"]["benchmark"]`: the frame.
    - `adata.uns["unlasting"]["benchmark_scores"]`, `["benchmark_false_positives"]`, `["benchmark_left_out"]`: the frames
      `scores`, `false_positives` and `score_left_out` for all evaluations, with `split`, `seed` and `scored`.

    Raises
    ------
    KeyError
        If a metric or column is missing.
    ValueError
        If a split, the reference or an argument is unknown, or a split has no condition to evaluate.
    """
    named: dict[str, Predictor] = dict(predictors) if predictors is not None else {n: b() for n, b in BASELINES.items()}
    if not named:
        raise ValueError("`predictors` is empty; name at least one, or pass `None` for all baselines.")
    reference = next(iter(named)) if reference is None else reference
    check_reference(reference, [NO_EFFECT, *named])
    seeds = [seeds] if isinstance(seeds, int) else list(seeds)
    if not seeds:
        raise ValueError("`seeds` is empty; name at least one.")
    parts: dict[str, list[pd.DataFrame]] = {"scores": [], "false_positives": [], "score_left_out": []}
    ceilings = [name for name, predictor in named.items() if getattr(predictor, "is_ceiling", False)]
    folds = [(split, seed, fold) for split, found in _folds(adata, splits).items() for seed in seeds for fold in found]
    for split, seed, fold in folds:
        logger.info("tl.benchmark: split %s, seed %d.", split, seed)
        protocol = Protocol.read(
            metrics,
            gene_sets,
            n_repeats=n_repeats,
            min_cells=min_cells,
            max_cells=max_cells,
            n_permutations=n_permutations,
            seed=seed,
        )
        tables = _one_run(adata, named, fold, prepare, conditions, protocol, reference)
        for name, found in parts.items():
            found.append(tables[name].assign(split=split, seed=seed))
    scores, false_positives, left_out = map(_joined, parts.values())
    frame = _compared(scores, protocol.metrics, reference, ceilings)
    store(
        adata,
        benchmark=frame,
        benchmark_scores=scores,
        benchmark_false_positives=false_positives,
        benchmark_left_out=left_out,
    )
    return frame.copy()


def _folds(
    adata: AnnData, splits: str | Iterable[str] | Mapping[str, Mapping[str, Any] | Sequence[Mapping[str, Any]]]
) -> dict[str, list[Mapping[str, Any]]]:
    """Write every split as a list: arguments for `pp.split`, or a column name."""
    if isinstance(splits, Mapping):
        return {name: [found] if isinstance(found, Mapping) else list(found) for name, found in splits.items()}
    names = [splits] if isinstance(splits, str) else list(splits)
    return {name: [{"split_key": name} if name in adata.obs else {"kind": name}] for name in names}


def _one_run(
    adata: AnnData,
    predictors: Mapping[str, Predictor],
    fold: Mapping[str, Any],
    prepare: Callable[[AnnData], object] | None,
    conditions: Iterable[str | tuple[str, ...]] | None,
    protocol: Protocol,
    reference: str,
) -> dict[str, pd.DataFrame]:
    """Split, prepare, fit and evaluate once."""
    from unlasting import pp  # imports scanpy, which is slow

    adata = to_memory(adata)
    if "split_key" in fold:
        ScreenKeys.restart(adata, split_key=fold["split_key"]).write(adata)
    else:
        pp.split(adata, **{"seed": protocol.seed, **fold})
    if prepare is not None:
        prepare(adata)
    screen = Screen.read(adata)
    wanted = screen.observed_conditions(conditions)
    no_effect, fitted = fit_all(predictors, adata, {})
    tables, _ = evaluate_all(
        screen,
        fitted,
        no_effect,
        [condition for condition in screen.test_conditions() if condition in wanted],
        protocol,
        score_all=conditions is not None,
        evaluated=list(fitted),
        left_out={},
        reference=reference,
    )
    listed = tables["score_conditions"]
    scored = pd.MultiIndex.from_frame(listed.loc[listed["scored"], CONDITION])
    tables["scores"]["scored"] = pd.MultiIndex.from_frame(tables["scores"][CONDITION]).isin(scored)
    return tables


def _joined(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Join tables; empty ones only give their columns, since pandas would let them decide the types."""
    return pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)


def _compared(scores: pd.DataFrame, metrics: Sequence[Metric], reference: str, ceilings: Sequence[str]) -> pd.DataFrame:
    """Combine scores, ranks and the paired test."""
    kept = scores[scores["scored"]].groupby([*GROUP, "predictor", *CONDITION], sort=False)[TERMS].mean().reset_index()
    by_name = {metric.name: metric for metric in metrics}
    frames = []
    for split, rows in kept.groupby("split", sort=False):
        scored = {Condition(*row) for row in rows[CONDITION].to_numpy()}
        summary = summary_table(rows, metrics, scored, seed=0, reference=reference, ceilings=ceilings)
        for (gene_set, name), part in summary.groupby(["gene_set", "metric"], sort=False):
            chosen = rows[(rows["gene_set"] == gene_set) & (rows["metric"] == name)]
            losses = by_name[name].loss(chosen.pivot(index=CONDITION, columns="predictor", values="value"))
            tests = pd.DataFrame([_paired(losses, predictor, reference) for predictor in part["predictor"]])
            others = (part["predictor"] != reference).to_numpy()
            tests.loc[others, "p_adjusted"] = holm(tests.loc[others, "p_value"].to_numpy(dtype=float))
            rank = by_name[name].loss(part["score"]).rank(method="min")
            frames.append(pd.concat([part.assign(split=split, rank=rank).reset_index(drop=True), tests], axis=1))
    frame = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=COLUMNS)
    return frame[COLUMNS].sort_values([*GROUP, "rank"], kind="stable", ignore_index=True)


def _paired(losses: pd.DataFrame, predictor: str, reference: str) -> dict[str, float]:
    """Test the difference from the reference over the conditions of both."""
    if predictor == reference or reference not in losses:
        return {"better_in": np.nan, "p_value": np.nan, "p_adjusted": np.nan}
    difference = (losses[predictor] - losses[reference]).dropna().to_numpy(dtype=float)
    if not difference.any():
        return {"better_in": 0.0, "p_value": 1.0, "p_adjusted": np.nan}
    p_value = float(stats.wilcoxon(difference).pvalue)
    return {"better_in": float((difference < 0).mean()), "p_value": p_value, "p_adjusted": np.nan}
