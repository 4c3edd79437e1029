"""Generated cells beside simple baselines and the noise floor."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from unlasting._cells import Condition
from unlasting._constants import PREDICTION_KEY, TEST
from unlasting._errors import MissingKeyError
from unlasting._logging import logger
from unlasting._perturbation import nearest_name
from unlasting.baselines import BASELINES, Baseline, NoEffect, Predictor
from unlasting.baselines._protocol import BY_NATURE
from unlasting.tl._comparison import is_of_means
from unlasting.tl._differential import Moments
from unlasting.tl._groups import Groups, Screen, store
from unlasting.tl._judge import Generated, Judge
from unlasting.tl._scores import (
    condition_table,
    harm_table,
    left_out_table,
    score_table,
    summary_table,
)
from unlasting.tl._vcc2026 import check_profile, evaluate_vcc2026
from unlasting.tl._verdict import NO_EFFECT, LeftOut, Rules, Verdict

if TYPE_CHECKING:
    from anndata import AnnData

METRICS = ("e_distance", "emd", "pearson_change", "pearson_change_centred", "correlation_error")
GENE_SETS = ("all", "de20", "de40")


def evaluate(
    adata: AnnData,
    *,
    layer: str | None = PREDICTION_KEY,
    predictions: AnnData | None = None,
    baselines: Iterable[str] | Mapping[str, Predictor] = tuple(BASELINES),
    metrics: str | Iterable[str] = METRICS,
    gene_sets: str | Iterable[str] = GENE_SETS,
    conditions: Iterable[str | tuple[str, ...]] | None = None,
    profile: str | None = None,
    n_repeats: int = 5,
    min_cells: int = 30,
    max_cells: int = 300,
    n_permutations: int = 999,
    n_bootstraps: int = 200,
    name: str | None = None,
    seed: int = 0,
    perturbation_key: str | None = None,
    control: str | None = None,
    cell_type_key: str | None = None,
    dose_key: str | None = None,
    split_key: str | None = None,
    delimiter: str | None = None,
) -> pd.DataFrame:
    r"""Judge generated cells of any model against the true test cells, beside baselines and the noise floor.

    For each condition the test cells are split at random into halves A and B. The prediction, each baseline and A
    itself give the same number of cells, :math:`n`, which is that of A and at most `max_cells` (or as few as were
    generated, or as there are controls), and each is compared with B; everything is repeated with other halves. The score over
    conditions of a metric that is best at 0 is a ratio of means,

    .. math::

        \frac{\operatorname{mean}[d(\text{prediction}, B) - d(A, B)]}{\operatorname{mean}[d(\text{no effect}, B) - d(A, B)]},

    so that 0 is the noise floor and 1 no better than the control cells. That of a metric that is best at 1
    (correlations, discrimination, overlap of DE genes, spread) is the mean value of the prediction divided by that of A,
    so that 1 is the ceiling.

    Conditions that a permutation test (E-distance of test cells and training controls, all genes, 5 %) cannot tell from
    controls carry no signal and stay out of the score. For them one thing is tested: that the EMD of the prediction is
    not above that of no effect (:math:`\text{EMD}(\cdot, B)` of the first repeat, one-sided bootstrap test, 5 %, Holm
    over conditions).

    Parameters
    ----------
    adata
        The screen, log-normalised, with `test` cells in its split column. Baselines learn from `train` cells only.
    layer
        Layer with the generated cells. `None`, without `predictions`: only baselines are judged.
    predictions
        Generated cells of any model as an AnnData of their own, instead of `layer`: the genes of `adata` in any order,
        and the perturbation (cell type, dose) in the same columns of `obs`, on the scale of `adata`. With one row for
        each condition it is read as mean profiles; only metrics of the mean change can be given then.
    baselines
        Names in `baselines.BASELINES`, or further predictors by name; they are fitted here. No effect is always there.
        What has nothing to say in a condition is missing there.
    metrics
        Names in `metrics.METRICS`. Those that compare tables of differential expression or conditions with each
        other are given for all genes only.
    gene_sets
        `"all"`, and `"de20"` for the 20 genes that change most (or any other number). They are chosen from training cells
        of the condition or, with fewer than 10, a third of its test cells that is set aside first: by the absolute
        score of scanpy's `t-test_overestim_var` against training controls. Genes that do not differ at all are
        never chosen.
    conditions
        Perturbations, or tuples of perturbation, cell type and dose. They are all scored, with a signal or not. If
        `None`, all with test cells (and generated cells, if there are any), scored if they have a signal.
    profile
        `"vcc2026"`: the six metrics of the Virtual Cell Challenge 2026 on counts, as cell-eval2 computes them, instead of
        `metrics` on `gene_sets`. `predictions` may hold counts then. Score 0 is the mean response of all conditions, and
        1 a replicate, that is one half of the test cells against the other. `min_cells` and `seed` apply, the other
        numbers do not.
    n_repeats
        How often the test cells are split.
    min_cells
        Conditions with fewer test cells are left out.
    max_cells
        Largest number of cells of a sample. B is not limited by it, but of more than 4,000 test cells of a condition
        as many are drawn.
    n_permutations
        Number of permutations of the test for a signal.
    n_bootstraps
        Number of bootstraps of the test for harm.
    name
        How the prediction is called in tables. By default the name of the layer, or `"prediction"`.
    seed
        Seed of everything random.
    perturbation_key, control, cell_type_key, dose_key, split_key, delimiter
        Where the labels are, if other than recorded by `pp` or `setup_anndata`.

    Returns
    -------
    A frame with a row for each condition, set of genes, metric and predictor: `condition`, `cell_type`, `dose` (uM),
    `gene_set`, `metric`, `predictor`, `value`, `floor` (the value of A), `no_effect` (the value of training controls),
    `normalised` (as above, for this condition alone; missing if it is not scored, or no effect is no farther from B than
    A), `n_cells` of each sample, `signal`.

    Updates the following fields of `adata.uns["unlasting"]`:

    - `"scores"`: the frame.
    - `"score_summary"`: `predictor`, `gene_set`, `metric`, `score` over conditions, `low` and `high` (95 % interval of
      the bootstrap over conditions), `n_conditions`, `best` (the score of a perfect prediction, 0 or 1).
    - `"score_conditions"`: for each condition `n_test` cells, `n_cells` of a sample, `de_from` (`train` or `test`),
      `n_de_cells` and `n_de_genes` (which differ at all), `e_distance` from controls, `p_value`, `signal`, `scored`.
    - `"score_left_out"`: `condition`, `cell_type`, `dose`, `predictor` (empty: the whole condition), `reason`.
    - `"harm"`: for each condition without signal `predictor`, `emd`, `emd_no_effect`, `p_value`, `p_adjusted`, `rejected`.
    - `"effects"`: `condition`, `cell_type`, `dose`, `gene`, `observed` and `predicted` mean change from training controls
      (all cells), `is_de20`; with a prediction only.

    With `profile="vcc2026"`, the frame has the columns `condition`, `cell_type`, `dose`, `metric`, `predictor` and `value`.
    These fields are updated instead:

    - `"vcc2026"`: the frame.
    - `"vcc2026_summary"`: `predictor`, `cell_type`, `metric`, `score`, `value` over conditions, those of the
      `mean_response` and of the `replicate`, and `n_conditions`. The metric `mean` is the mean score over metrics that
      have one.
    - `"vcc2026_left_out"`: `cell_type`, `predictor` and `reason` where a predictor lacks a condition.

    Raises
    ------
    KeyError
        If the layer, a column, a gene, a metric, a profile or a baseline is missing.
    ValueError
        If no condition can be judged, there are no test cells, or an argument makes no sense.
    """
    given = {
        "perturbation_key": perturbation_key,
        "control": control,
        "cell_type_key": cell_type_key,
        "dose_key": dose_key,
        "split_key": split_key,
        "delimiter": delimiter,
    }
    labels: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    rules = Rules.read(
        metrics,
        gene_sets,
        n_repeats=n_repeats,
        min_cells=min_cells,
        max_cells=max_cells,
        n_permutations=n_permutations,
        n_bootstraps=n_bootstraps,
        seed=seed,
    )
    predictors = named_baselines(baselines)
    left_out: dict[Condition, str] = {}
    judged: list[str] = []
    without = layer is None and predictions is None
    if profile is not None:
        check_profile(profile)
    groups = (
        None
        if without
        else Groups.read(adata, layer=layer, predictions=predictions, allow_counts=profile is not None, **labels)
    )
    screen = groups or Screen.of(adata, **labels)
    with_test = screen.test_conditions()
    tested = {condition.perturbation for condition in with_test}
    # a name stands for all cell types and doses that are tested, but must not vanish where none is
    chosen = [
        condition
        for condition in screen.observed_conditions(conditions)
        if condition in with_test or (conditions is not None and condition.perturbation not in tested)
    ]
    if groups:
        judged = [name or ("prediction" if predictions is not None else str(layer))]
        if judged[0] in (NO_EFFECT, *predictors):
            raise ValueError(f"A baseline is called {judged[0]!r} too: give the prediction another `name`.")
        there = set(groups.conditions())
        left_out = {c: "no cells were generated" for c in chosen if c not in there}
        if profile is None:
            generated = Generated(groups.generated)
            rules = _of_means(rules) if generated.means_only else rules
            predictors = {judged[0]: generated, **predictors}
    no_effect, fitted = fit_all(predictors, adata, labels)
    if profile is not None:
        return evaluate_vcc2026(
            adata,
            screen,
            {NO_EFFECT: no_effect, **fitted},
            judged[0] if judged else None,
            [c for c in chosen if c not in left_out],
            min_cells=min_cells,
            seed=seed,
        )
    tables, verdicts = judge_all(
        screen,
        fitted,
        no_effect,
        [c for c in chosen if c not in left_out],
        rules,
        scored_whole=conditions is not None,
        judged=judged,
        left_out=left_out,
    )
    if groups:
        tables["effects"] = _effects(groups, verdicts)
    store(adata, **tables)
    return tables["scores"].copy()


def named_baselines(baselines: Iterable[str] | Mapping[str, Predictor]) -> dict[str, Predictor]:
    """Make the baselines that are named.

    Raises
    ------
    KeyError
        If there is no baseline of a name.
    """
    if isinstance(baselines, Mapping):
        return dict(baselines)
    names = [baselines] if isinstance(baselines, str) else list(dict.fromkeys(baselines))
    for name in names:
        if name not in BASELINES:
            raise MissingKeyError(
                f"There is no baseline {name!r}.{nearest_name(name, BASELINES)} There are {list(BASELINES)}."
            )
    return {name: BASELINES[name]() for name in names}


def fit_all(
    predictors: Mapping[str, Predictor], adata: AnnData, labels: Mapping[str, Any]
) -> tuple[NoEffect, dict[str, Predictor]]:
    """Fit predictors, and no effect; baselines share what they read of the screen."""
    no_effect = NoEffect().fit(adata, **labels)
    shared = {**labels, "training": no_effect.training_}
    return no_effect, {
        name: predictor.fit(adata, **(shared if isinstance(predictor, Baseline) else labels))
        for name, predictor in predictors.items()
        if name != NO_EFFECT
    }


def judge_all(
    screen: Screen,
    predictors: Mapping[str, Predictor],
    no_effect: NoEffect,
    conditions: Sequence[Condition],
    rules: Rules,
    *,
    scored_whole: bool,
    judged: Collection[str],
    left_out: dict[Condition, str],
) -> tuple[dict[str, pd.DataFrame], list[Verdict]]:
    """Judge fitted predictors in all conditions, and write the tables that `evaluate` stores.

    Raises
    ------
    ValueError
        If no condition can be judged.
    """
    judge = Judge(screen, predictors, no_effect, rules, judged)
    verdicts: list[Verdict] = []
    left_out = dict(left_out)
    for condition in conditions:
        try:
            verdicts.append(judge(condition))
        except LeftOut as error:
            left_out[condition] = str(error)
    if not verdicts:
        reasons = "; ".join(f"{condition}: {reason}" for condition, reason in list(left_out.items())[:5])
        raise ValueError(f"No condition can be judged. {reasons}.")
    scored = {v.condition for v in verdicts if scored_whole or v.signal}
    scores = score_table(
        verdicts, rules.metrics, rules.gene_sets, list(dict.fromkeys([*judged, NO_EFFECT, *predictors])), scored
    )
    tables = {
        "scores": scores,
        "score_summary": summary_table(scores, rules.metrics, scored, rules.seed),
        "score_conditions": condition_table(verdicts, scored),
        "score_left_out": left_out_table(verdicts, left_out),
        "harm": harm_table(verdicts),
    }
    _report(tables)
    return tables, verdicts


def _of_means(rules: Rules) -> Rules:
    """Keep what can be told from mean profiles.

    Raises
    ------
    ValueError
        If that is nothing.
    """
    kept = [metric for metric in rules.metrics if is_of_means(metric)]
    lost = [metric.name for metric in rules.metrics if not is_of_means(metric)]
    if not kept:
        raise ValueError(
            f"The predictions have one row for each condition, which is its mean; {', '.join(lost)} "
            "need cells. Give `metrics` of the mean change, such as 'pearson_change', or several cells per condition."
        )
    if lost:
        logger.warning("The predictions are mean profiles, one row per condition: without %s.", ", ".join(lost))
    return replace(rules, metrics=kept)


def _effects(groups: Groups, verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """Compare mean changes, gene by gene, over all test cells and all generated cells."""
    frames = []
    for verdict in verdicts:
        condition = verdict.condition
        control = Moments.read(groups.observed, groups.control_rows(condition.cell_type)).mean
        observed = Moments.read(groups.observed, groups.part(condition, TEST)).mean
        predicted = Moments.read(groups.generated, groups.generated.rows(condition)).mean
        top = np.isin(np.arange(len(groups.genes)), verdict.top20)
        change = {"observed": observed - control, "predicted": predicted - control, "is_de20": top}
        frames.append(pd.DataFrame({**condition.columns(), "gene": np.asarray(groups.genes, dtype=object), **change}))
    return pd.concat(frames, ignore_index=True)


def _report(tables: Mapping[str, pd.DataFrame]) -> None:
    """Say what is not in the score, and why."""
    conditions, left_out, harm = (tables[key] for key in ("score_conditions", "score_left_out", "harm"))
    silent = conditions[~conditions["signal"]]
    if len(silent):
        kept = "kept out of the score" if not silent["scored"].any() else "scored all the same, as they were named"
        logger.info("%d of %d conditions have no signal (%s): %s.", len(silent), len(conditions), kept, _names(silent))
    for predictor, part in left_out.groupby("predictor"):
        what = f"{predictor!r} is missing in" if predictor else "Left out:"
        n = len(conditions) + (0 if predictor else len(part))
        if predictor and len(part) == n and BY_NATURE.issuperset(part["reason"]):
            continue
        first = f"{_names(part[:1])}: {part['reason'].iloc[0]}"
        logger.info("%s %d of %d conditions, the first %s.", what, len(part), n, first)
    for predictor, part in harm[harm["rejected"]].groupby("predictor"):
        of = (harm["predictor"] == predictor).sum()
        logger.warning(
            "%r invents an effect in %d of %d conditions without one: %s.", predictor, len(part), of, _names(part)
        )


def _names(frame: pd.DataFrame, most: int = 10) -> str:
    names = [str(Condition(*row)) for row in frame[["condition", "cell_type", "dose"]].itertuples(index=False)]
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
