"""The profile `vcc2026`: its metrics, their aggregates and their scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from unlasting.metrics._challenge import (
    direction_fidelity,
    direction_reach,
    lfc_nmae,
    noise_corrected_mse,
    perturbation_discrimination,
    significant_jaccard,
)
from unlasting.metrics._matrices import Matrix
from unlasting.metrics._pseudobulk import pseudobulk, pseudobulk_noise
from unlasting.metrics._rank_test import RankTable, rank_table

VCC2026: Final = {
    "perturbation_discrimination": "pds_cosine",
    "mse_ratio": "expr_mse_unbiased_capped_norm",
    "direction_fidelity": "de_wilcoxon_direction_fidelity_yield_raw",
    "direction_reach": "de_wilcoxon_direction_reach_raw",
    "significant_jaccard": "de_wilcoxon_sig_jaccard",
    "lfc_nmae": "de_wilcoxon_lfc_nmae",
}
"""The profile's metrics, and their names in cell-eval2."""

SMALLER_IS_BETTER: Final = ("mse_ratio", "lfc_nmae")
RANGES: Final = {"mse_ratio": (0.0, 1.0), "lfc_nmae": (-6.0, np.inf)}
"""Where the score of a metric is clipped."""


@dataclass(frozen=True)
class Panel:
    """The profile's input from all conditions, predicted or observed.

    Parameters
    ----------
    names
        The conditions.
    profiles, noise
        Their pseudobulk profiles, shape `(n_conditions, n_genes)`, and the sampling variance of these.
    control, control_noise
        The same for the control cells.
    tables
        Differential expression per condition against the control cells.
    """

    names: tuple[str, ...]
    profiles: np.ndarray
    noise: np.ndarray
    control: np.ndarray
    control_noise: float
    tables: tuple[RankTable, ...]

    @classmethod
    def of(cls, counts: Mapping[str, Matrix], control: Matrix) -> Panel:
        """Summarise counts.

        Parameters
        ----------
        counts
            Counts per condition, shape `(n_cells, n_genes)`.
        control
            Counts of the observed control cells, for predicted conditions too.

        Returns
        -------
        The panel.

        Raises
        ------
        TypeError
            If a matrix does not hold real numbers.
        ValueError
            If there is no condition, a matrix is empty or holds missing, infinite or negative values, or the numbers
            of genes differ.
        """
        if not counts:
            raise ValueError("`counts` holds no condition; give at least one.")
        return cls(
            names=tuple(counts),
            profiles=np.array([pseudobulk(cells) for cells in counts.values()]),
            noise=np.array([pseudobulk_noise(cells) for cells in counts.values()]),
            control=pseudobulk(control),
            control_noise=pseudobulk_noise(control),
            tables=tuple(rank_table(cells, control) for cells in counts.values()),
        )


def vcc2026(predicted: Panel, observed: Panel, *, targets: Sequence[Sequence[int]] | None = None) -> pd.DataFrame:
    """Compute the metrics in profile `vcc2026` for every condition.

    Parameters
    ----------
    predicted, observed
        Predicted and observed cells of the same conditions in the same order. Genes are in the order of their names,
        so that ties are broken as in cell-eval2.
    targets
        Columns of each condition's target genes. If `None`, no gene is excluded.

    Returns
    -------
    A frame with the conditions as index and a column for each metric; instead of `mse_ratio`, which exists over all
    conditions only, its two parts `mse_error` and `mse_size`.

    Raises
    ------
    ValueError
        If the conditions differ.

    Notes
    -----
    It is the preset `vcc2026` in cell-eval2 0.20.
    """
    if predicted.names != observed.names:
        raise ValueError(
            f"`predicted` has the conditions {list(predicted.names)} and `observed` {list(observed.names)}. Give the same "
            "conditions in the same order."
        )
    targets = [()] * len(observed.names) if targets is None else targets
    excluded = np.zeros(observed.profiles.shape[1], dtype=bool)
    excluded[[column for own in targets for column in own]] = True
    error, size = noise_corrected_mse(
        predicted.profiles,
        observed.profiles,
        observed.control,
        predicted_noise=predicted.noise,
        observed_noise=observed.noise,
        control_noise=observed.control_noise,
        targets=targets,
    )
    pairs = list(zip(predicted.tables, observed.tables, targets, strict=True))
    effects = predicted.profiles - predicted.control, observed.profiles - observed.control
    return pd.DataFrame(
        {
            "perturbation_discrimination": perturbation_discrimination(*effects, excluded=excluded),
            "mse_error": error,
            "mse_size": size,
            **{
                function.__name__: [function(p, o, targets=own) for p, o, own in pairs]
                for function in (direction_fidelity, direction_reach, significant_jaccard, lfc_nmae)
            },
        },
        index=pd.Index(observed.names, name="condition"),
    )


def vcc2026_summary(values: pd.DataFrame) -> pd.Series:
    """Aggregate the profile's metrics over conditions.

    Parameters
    ----------
    values
        The frame of :func:`vcc2026`, or rows of it.

    Returns
    -------
    A number for each metric: the mean over conditions where it is defined, and of `mse_ratio` the ratio of the sums.
    NaN where it is nowhere defined, or the observed changes are within noise.
    """
    parts = values[["mse_error", "mse_size"]].dropna().sum()
    found = {name: values[name].mean() for name in VCC2026 if name != "mse_ratio"}
    found["mse_ratio"] = parts["mse_error"] / parts["mse_size"] if parts["mse_size"] > 0 else np.nan
    return pd.Series(found)[list(VCC2026)].astype(float)


def vcc2026_scores(summary: pd.Series, mean_response: pd.Series, replicate: pd.Series) -> pd.Series:
    """Put aggregates on the scale of the challenge.

    Parameters
    ----------
    summary
        A prediction's aggregates (:func:`vcc2026_summary`).
    mean_response
        Those for the mean response over all conditions: score 0.
    replicate
        Those for a replicate from the observed cells: score 1.

    Returns
    -------
    A score for each metric, and their mean as `mean`. A missing aggregate gets the score of the worst value of its
    metric. The score of `mse_ratio` is clipped to `[0, 1]`, and that of `lfc_nmae` at -6. NaN where the replicate is no
    better than the mean response, or an end of the scale is missing; such metrics are not in the mean.
    """
    scores = {}
    for name in VCC2026:
        value, zero, one = (float(x[name]) for x in (summary, mean_response, replicate))
        low, high = RANGES.get(name, (-np.inf, np.inf))
        sign = -1.0 if name in SMALLER_IS_BETTER else 1.0
        if np.isnan(value):
            value = 0.0 if name not in SMALLER_IS_BETTER else np.inf
        usable = sign * (one - zero) > 0
        scores[name] = float(np.clip((value - zero) / (one - zero), low, high)) if usable else np.nan
    return pd.Series({**scores, "mean": pd.Series(scores).mean()})
