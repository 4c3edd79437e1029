"""Evaluation of generated cells beside baselines and the noise floor."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.stats import binom

from unlasting.baselines import BASELINES, Baseline, NoEffect, Predictor
from unlasting.baselines._protocol import BY_NATURE
from unlasting.metrics import Metric
from unlasting.screen import PREDICTION_KEY, TEST, Condition, MissingKeyError, logger, nearest_name, not_none
from unlasting.tl._comparison import accepts_means
from unlasting.tl._differential import Moments
from unlasting.tl._evaluator import ConditionResult, Evaluator, GeneratedCells, LeftOut
from unlasting.tl._protocol import GENE_SETS, LEVEL, METRICS, NO_EFFECT, Protocol
from unlasting.tl._screen import Screen, store
from unlasting.tl._tables import (
    CONDITION,
    agreement,
    condition_table,
    false_positive_table,
    left_out_table,
    score_table,
    summary_table,
)
from unlasting.tl._vcc2026 import check_profile, evaluate_vcc2026

if TYPE_CHECKING:
    from anndata import AnnData


def evaluate(
    adata: AnnData,
    *,
    layer: str | None = PREDICTION_KEY,
    predictions: AnnData | None = None,
    baselines: Iterable[str] | Mapping[str, Predictor] = tuple(BASELINES),
    metrics: str | Metric | Iterable[str | Metric] = METRICS,
    gene_sets: str | Iterable[str] = GENE_SETS,
    conditions: Iterable[str | tuple[str, ...]] | None = None,
    reference: str | None = None,
    profile: str | None = None,
    n_repeats: int = 5,
    min_cells: int = 30,
    max_cells: int = 300,
    n_permutations: int = 999,
    name: str | None = None,
    seed: int = 0,
    perturbation_key: str | None = None,
    control: str | Sequence[str] | None = None,
    cell_type_key: str | None = None,
    dose_key: str | None = None,
    split_key: str | None = None,
    delimiter: str | None = None,
) -> pd.DataFrame:
    r"""Evaluate any model's generated cells on the true test cells, beside baselines and the noise floor.

    In each condition the test cells are halved at random into A and B. The prediction, each baseline and A provide
    equally many cells, :math:`n`: the size of A, at most `max_cells`, or fewer where fewer were generated or there are
    fewer controls. Each sample is compared with B, and everything is repeated with new halves. For a distance the score
    over conditions is a ratio of means,

    .. math::

        \frac{\operatorname{mean}[d(\text{prediction}, B) - d(A, B)]}{\operatorname{mean}[d(\text{no effect}, B) - d(A, B)]},

    so that 0 is the noise floor and 1 equals the control cells. For metrics with best value 1 (correlations,
    discrimination, overlap, spread) the score is the mean for the prediction divided by the mean for A: 1 is the ceiling.

    Every score has a 95 % interval over conditions, and a paired difference from a reference baseline.

    Conditions without a signal stay out of the score: a permutation test (E-distance between test cells and training
    controls, all genes, 5 %) cannot separate them from controls. There the prediction is tested for a false-positive
    effect: is its E-distance to B larger than that of control cells? A permutation test exchanges predicted cells from one
    half of the controls with cells in the other half (one-sided, 5 % in each condition).

    Parameters
    ----------
    adata
        The screen, log-normalised, with `test` cells in its split column. Baselines learn from `train` cells only.
    layer
        Layer with the generated cells. `None`, without `predictions`: only baselines are evaluated.
    predictions
        Generated cells as an AnnData, instead of `layer`: with `adata`'s genes in any order, its label columns in `obs`,
        and its scale. One row per condition is read as mean profiles, which limits the metrics to
        mean changes.
    baselines
        Names in `baselines.BASELINES`, or further predictors by name; they are fitted here. No effect always takes
        part. Conditions outside a baseline's scope are missing from its rows.
    metrics
        Names in `metrics.METRICS`, or :class:`unlasting.metrics.Metric` objects. Metrics over whole conditions or DE
        tables exist for all genes only.
    gene_sets
        `"all"`, and `"de20"` for the 20 genes with the largest change (or any other number). They come from training
        cells or, below 10 cells, from a third of the test cells, set aside first: by the absolute score in
        scanpy's `t-test_overestim_var` against training controls. Genes without any difference are never chosen.
    conditions
        Perturbations, or tuples (perturbation, cell type, dose), all of which are scored. If `None`, all conditions
        with test cells (and generated cells, if there are any), scored where they have a signal.
    reference
        Predictor for the paired differences. If `None`, the best baseline for each metric and gene set.
    profile
        `"vcc2026"`: the six metrics from the Virtual Cell Challenge 2026 on counts, as in cell-eval2, instead of `metrics` on
        `gene_sets`. `predictions` may then contain counts. Score 0 is the mean response over all conditions, and 1 a
        replicate, one half of the test cells against the other. Of the numbers below, `min_cells` and `seed` apply.
    n_repeats
        Random halvings.
    min_cells
        Fewest test cells per condition.
    max_cells
        Largest sample. B is not limited, but a condition takes part with at most 4,000 test cells.
    n_permutations
        Permutations in the tests for a signal and for a false-positive effect.
    name
        The prediction's name in tables; the layer's, or `"prediction"`, if `None`.
    seed
        Random seed.
    perturbation_key, control, cell_type_key, dose_key, split_key, delimiter
        Label columns, if not recorded by `pp` or `setup_anndata`.

    Returns
    -------
    A frame with a row for each condition, gene set, metric and predictor: `condition`, `cell_type`, `dose` (uM),
    `gene_set`, `metric`, `predictor`, `value`, `floor` (for A), `no_effect` (for training controls),
    `normalised` (as above, for this condition alone; missing if not scored, or if no effect is as near to B as A),
    `n_cells` per sample, `signal`.

    Updates the following fields in `adata.uns["unlasting"]`:

    - `"scores"`: the frame.
    - `"score_summary"`, with a row for each predictor, gene set and metric:

      - `score`, `low`, `high`: score over conditions and its 95 % interval (bootstrap over conditions)
      - `n_conditions`: conditions in the score
      - `best`: score for a perfect prediction, 0 or 1
      - `is_best`: best score among all rows with the most conditions, without ceilings
      - `is_ceiling`: baseline with training cells from the same condition
      - `reference`, `n_paired`: reference predictor, and conditions with both
      - `difference`, `difference_low`, `difference_high`: score minus the reference's, with its paired interval
      - `without_one_low`, `without_one_high`: range of this difference when each condition is left out in turn
      - `decided_by`: the condition without which a win over the reference is none

    - `"score_conditions"`: for each condition `n_test` cells, `n_cells` per sample, `de_from` (`train` or `test`),
      `n_de_cells`, `n_de_genes` (with any difference), `e_distance` from controls, `p_value`, `signal`, `scored`.
    - `"score_left_out"`: `condition`, `cell_type`, `dose`, `predictor` (empty: the whole condition), `reason`.
    - `"false_positives"`: for each condition without a signal `predictor`, `e_distance` and `e_distance_no_effect` to B,
      `p_value`, `rejected`, and `detectable`: the excess of the first over the second found with a power of 80 %.
    - `"effects"`, with a prediction: `condition`, `cell_type`, `dose`, `gene`, `observed` and `predicted` mean change
      from training controls (all cells), `is_de20`, and for each condition `pearson` and `slope` (observed on predicted
      changes; above 1, predictions are too small).

    With `profile="vcc2026"`, the frame has the columns `condition`, `cell_type`, `dose`, `metric`, `predictor` and `value`,
    and other fields are updated:

    - `"vcc2026"`: the frame.
    - `"vcc2026_summary"`: `predictor`, `cell_type`, `metric`, `score`, `value` over conditions, the values for
      `mean_response` and `replicate`, and `n_conditions`. The metric `mean` is the mean score over metrics with a scale.
    - `"vcc2026_left_out"`: `cell_type`, `predictor` and `reason` where a predictor lacks a condition.

    Raises
    ------
    KeyError
        If the layer, a column, a gene, a metric, a profile or a baseline is missing.
    ValueError
        If there are no test cells, no condition can be evaluated, or an argument is out of range.
    """
    labels = not_none(
        perturbation_key=perturbation_key,
        control=control,
        cell_type_key=cell_type_key,
        dose_key=dose_key,
        split_key=split_key,
        delimiter=delimiter,
    )
    protocol = Protocol.read(
        metrics,
        gene_sets,
        n_repeats=n_repeats,
        min_cells=min_cells,
        max_cells=max_cells,
        n_permutations=n_permutations,
        seed=seed,
    )
    predictors = named_baselines(baselines)
    left_out: dict[Condition, str] = {}
    evaluated: list[str] = []
    if profile is not None:
        check_profile(profile)
    screen = Screen.read(adata, layer, predictions, allow_counts=profile is not None, **labels)
    with_test = screen.test_conditions()
    tested = {condition.perturbation for condition in with_test}
    # a name stands for all tested cell types and doses, but must not vanish where none is tested
    chosen = [
        condition
        for condition in screen.observed_conditions(conditions)
        if condition in with_test or (conditions is not None and condition.perturbation not in tested)
    ]
    if screen.cells is not None:
        evaluated = [name or ("prediction" if predictions is not None else str(layer))]
        if evaluated[0] in (NO_EFFECT, *predictors):
            raise ValueError(f"A baseline is called {evaluated[0]!r} too: give the prediction another `name`.")
        available = set(screen.generated_conditions())
        left_out = {c: "no cells were generated" for c in chosen if c not in available}
        if chosen and len(left_out) == len(chosen):
            found, wanted = (", ".join(map(str, sorted(some)[:3])) for some in (available, chosen))
            raise ValueError(
                f"{screen.generated.origin} has no cells for a test condition: it holds {found}, and the test conditions are "
                f"{wanted}. Write perturbations, cell types and doses (uM) as in `adata`."
            )
        if profile is None:
            generated = GeneratedCells(screen.cells)
            protocol = _for_means(protocol) if generated.means_only else protocol
            predictors = {evaluated[0]: generated, **predictors}
    kept = [condition for condition in chosen if condition not in left_out]
    check_reference(reference, [NO_EFFECT, *predictors])
    no_effect, fitted = fit_all(predictors, adata, labels)
    if profile is not None:
        named = {NO_EFFECT: no_effect, **fitted}
        return evaluate_vcc2026(adata, screen, named, *evaluated, conditions=kept, min_cells=min_cells, seed=seed)
    tables, results = evaluate_all(
        screen,
        fitted,
        no_effect,
        kept,
        protocol,
        score_all=conditions is not None,
        evaluated=evaluated,
        left_out=left_out,
        reference=reference,
    )
    if evaluated:
        tables["effects"] = _effects(screen, results)
    store(adata, **tables)
    return tables["scores"].copy()


def named_baselines(baselines: Iterable[str] | Mapping[str, Predictor]) -> dict[str, Predictor]:
    """Make the named baselines."""
    if isinstance(baselines, Mapping):
        return dict(baselines)
    names = [baselines] if isinstance(baselines, str) else list(dict.fromkeys(baselines))
    for name in names:
        if name not in BASELINES:
            raise MissingKeyError(
                f"There is no baseline {name!r}.{nearest_name(name, BASELINES)} Choose among {list(BASELINES)}."
            )
    return {name: BASELINES[name]() for name in names}


def check_reference(reference: str | None, names: Sequence[str]) -> None:
    """Refuse a reference that is no predictor."""
    if reference is not None and reference not in names:
        raise ValueError(f"`reference` is {reference!r}; choose among {[*names]}.{nearest_name(reference, [*names])}")


def fit_all(
    predictors: Mapping[str, Predictor], adata: AnnData, labels: Mapping[str, Any]
) -> tuple[NoEffect, dict[str, Predictor]]:
    """Fit predictors and no effect; baselines read the screen once together."""
    no_effect = NoEffect().fit(adata, **labels)
    shared = {**labels, "training": no_effect.training_}
    return no_effect, {
        name: predictor.fit(adata, **(shared if isinstance(predictor, Baseline) else labels))
        for name, predictor in predictors.items()
        if name != NO_EFFECT
    }


def evaluate_all(
    screen: Screen,
    predictors: Mapping[str, Predictor],
    no_effect: NoEffect,
    conditions: Sequence[Condition],
    protocol: Protocol,
    *,
    score_all: bool,
    evaluated: Collection[str],
    left_out: Mapping[Condition, str],
    reference: str | None,
) -> tuple[dict[str, pd.DataFrame], list[ConditionResult]]:
    """Evaluate fitted predictors in all conditions, and write the tables that `evaluate` stores."""
    evaluator = Evaluator(screen, predictors, no_effect, protocol, evaluated)
    results: list[ConditionResult] = []
    left_out = dict(left_out)
    for condition in conditions:
        try:
            results.append(evaluator(condition))
        except LeftOut as error:
            left_out[condition] = str(error)
    if not results:
        reasons = "; ".join(f"{condition}: {reason}" for condition, reason in list(left_out.items())[:5])
        raise ValueError(f"No condition can be evaluated. {reasons}. Give more test cells, or lower `min_cells`.")
    scored = {result.condition for result in results if score_all or result.signal}
    names = list(dict.fromkeys([*evaluated, NO_EFFECT, *predictors]))
    scores = score_table(results, protocol.metrics, protocol.gene_sets, names, scored)
    tables = {
        "scores": scores,
        "score_summary": summary_table(
            scores,
            protocol.metrics,
            scored,
            protocol.seed,
            reference=reference,
            evaluated=evaluated,
            ceilings=[name for name, predictor in predictors.items() if getattr(predictor, "is_ceiling", False)],
        ),
        "score_conditions": condition_table(results, scored),
        "score_left_out": left_out_table(results, left_out),
        "false_positives": false_positive_table(results),
    }
    _report(tables, evaluated)
    return tables, results


def _for_means(protocol: Protocol) -> Protocol:
    """Keep metrics for mean profiles."""
    kept = [metric for metric in protocol.metrics if accepts_means(metric)]
    lost = [metric.name for metric in protocol.metrics if not accepts_means(metric)]
    if not kept:
        raise ValueError(
            f"The predictions have one row for each condition, its mean profile; {', '.join(lost)} "
            "need cells. Give `metrics` of the mean change, such as 'pearson_change', or several cells per condition."
        )
    if lost:
        logger.warning(
            "The predictions are mean profiles, one row per condition: without %s. Pass cells for these metrics.",
            ", ".join(lost),
        )
    return replace(protocol, metrics=kept)


def _effects(screen: Screen, results: Sequence[ConditionResult]) -> pd.DataFrame:
    """Compare mean changes, gene by gene, over all test cells and all generated cells."""
    frames = []
    for result in results:
        condition = result.condition
        control = Moments.read(screen.observed, screen.control_rows(condition.cell_type)).mean
        observed = Moments.read(screen.observed, screen.part(condition, TEST)).mean
        predicted = Moments.read(screen.generated, screen.generated.rows(condition)).mean
        top = np.isin(np.arange(len(screen.genes)), result.top20)
        change = {"observed": observed - control, "predicted": predicted - control}
        frame = pd.DataFrame({**condition.columns(), "gene": np.asarray(screen.genes, dtype=object), **change})
        frames.append(frame.assign(is_de20=top, **agreement(**change)))
    return pd.concat(frames, ignore_index=True)


def _report(tables: Mapping[str, pd.DataFrame], evaluated: Collection[str]) -> None:
    """Log the first score, its uncertainty, and the evaluations without a score."""
    conditions, left_out, tests = (tables[key] for key in ("score_conditions", "score_left_out", "false_positives"))
    silent = conditions[~conditions["signal"]]
    if len(silent):
        kept = "kept out of the score" if not silent["scored"].any() else "scored because they were named"
        logger.info("%d of %d conditions have no signal (%s): %s.", len(silent), len(conditions), kept, _names(silent))
    for predictor, part in left_out.groupby("predictor"):
        subject = f"{predictor!r} is missing in" if predictor else "Left out:"
        n = len(conditions) + (0 if predictor else len(part))
        if predictor and len(part) == n and BY_NATURE.issuperset(part["reason"]):
            continue
        first = f"{_names(part[:1])}: {part['reason'].iloc[0]}"
        logger.info("%s %d of %d conditions, the first %s.", subject, len(part), n, first)
    summary = tables["score_summary"]
    own = summary[summary["predictor"].isin(list(evaluated)) & summary["difference"].notna()]
    for row in own.head(1).itertuples() if len(evaluated) == 1 else ():
        decided = f" Without {row.decided_by} it is no better." if row.decided_by else ""
        logger.info(
            "%s, %s, %s genes: %.2f [%.2f, %.2f] over %d conditions; %+.2f [%.2f, %.2f] from %r over %d.%s",
            *(row.predictor, row.metric, row.gene_set, row.score, row.low, row.high, row.n_conditions),
            *(row.difference, row.difference_low, row.difference_high, row.reference, row.n_paired, decided),
        )
    for predictor, part in tests[tests["rejected"]].groupby("predictor"):
        n_tests = int((tests["predictor"] == predictor).sum())
        if binom.sf(len(part) - 1, n_tests, LEVEL) <= LEVEL:
            logger.warning(
                "%r has a false-positive effect in %d of %d conditions without a signal, more than the %g %% expected by chance: %s. "
                'See `adata.uns["unlasting"]["false_positives"]`.',
                *(predictor, len(part), n_tests, 100 * LEVEL, _names(part)),
            )


def _names(frame: pd.DataFrame, most: int = 10) -> str:
    names = [str(Condition(*row)) for row in frame[CONDITION].itertuples(index=False)]
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
