"""`effects`: the posterior of every change, and trust in predictions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from mudata import MuData

from unlasting.effects import QUESTIONS, CandidateCovariance, ControlPopulations, ExpressionChanges
from unlasting.model._base import Dose
from unlasting.model._sources import SourceCells, SourcesMixin, typed_as
from unlasting.screen import PREDICTION_KEY, Condition, Perturbation, listed, logger, to_memory

_CONDITIONS_AT_ONCE = 128
_LEVELS = np.array([0.025, 0.975])
LITTLE_TRUST = 0.6
"""Probability to be nearer to the truth than the control, below which a prediction is named at WARNING."""
_FIXES = {
    "trained condition": "more cells",
    "unseen dose": "nearer doses",
    "unseen combination": "similar combinations",
    "unseen context": "perturbations in these cell types",
    "unseen target": "similar perturbations, or give a prior that covers them",
}
"""Ways to a better prediction, by kind of question: the end of a sentence with "Measure"."""
GUIDE = "https://unlasting.readthedocs.io/en/latest/guide/trust.html"


class TrustMixin(SourcesMixin):
    """`effects`, and the columns that say how far a prediction can be trusted."""

    def effects(
        self,
        perturbations: str | Sequence[str],
        *,
        cell_type: str | Sequence[str] | None = None,
        dose: Dose | Sequence[Dose] = None,
        controls: AnnData | MuData | None = None,
    ) -> AnnData:
        """Compute the posterior of every gene's change, without generating cells.

        The posterior is Gaussian for effects on log-odds of detection and on expressed values, with these contributions to
        its variance: few training cells, the sampling error of control cells, an untrained target or combination, transfer
        to the context, on-target effects, and conditions without an effect. Changes in detection and in mean expression are
        linearised around their posterior mean. Leaving out trained conditions calibrates it.

        Parameters
        ----------
        perturbations
            Labels such as `A` or `A+B`.
        cell_type
            Cell types; all by default.
        dose
            The drugs' dose in uM, as in :meth:`generate`.
        controls
            Control cells, also from new cell types; the training controls by default.

        Returns
        -------
        An AnnData with one row for each perturbation and cell type. `X` is the change in mean log-normalised expression
        against control cells, over responding and non-responding cells. It has the layers

        - `sd`: posterior standard deviation of `X`.
        - `false_sign_rate`: probability that the change has not the sign of `X`, the local false sign rate
          :cite:p:`stephens2017false`.
        - `detection`, `detection_sd`: change in the share of cells that express the gene.
        - `expressed`, `expressed_sd`: change in the mean of expressed values in responding cells.

        `obs` holds the labels under the screen's keys, and

        - `question`: the part that training cells lack, such as `unseen target`.
        - `e_distance`, `low`, `high`: expected E-distance to the control cells, with a 95 % interval.
        - `p_active`: probability that anything changes beside the targets, by more than 0.5 % of the variance between control cells.
        - `unlasting_expected_error`: expected normalised error; 0 is perfect, 1 no better than the control.
        - `unlasting_p_better`: probability to be nearer to the truth than the control is.
        - `n_left_out`: number of left-out conditions that calibrate this kind of question. Intervals are wide with few.

        Raises
        ------
        ValueError
            If a target is unknown, none is named, a dose is missing or unreadable, or a cell type has no control cells.
        """
        asked = self._all_asked(perturbations, dose)
        sources, given = self._sources_of(controls)
        rows = sources.rows_by_cell_type(cell_type, None)
        populations = _averaged(sources, rows)
        pairs = [(p, row) for p in asked for row in range(len(rows))]
        parts = list(self._changes(pairs, populations))
        tables = [one.obs for one in (self.adata, given) if one is not None]
        labels = np.array([p.label(**self.keys.grammar) for p, _ in pairs], dtype=object)
        key = self.keys.perturbation_key
        obs = pd.DataFrame({key: typed_as(labels, *(table[key] for table in tables if key in table))})
        if self.keys.dose_key is not None:
            obs[self.keys.dose_key] = [p.dose_text() for p, _ in pairs]
        if self.keys.cell_type_key is not None:
            names = np.array(list(rows), dtype=object)[[row for _, row in pairs]]
            columns = [table[self.keys.cell_type_key] for table in tables if self.keys.cell_type_key in table]
            obs[self.keys.cell_type_key] = typed_as(names, *columns) if columns else names
        found = pd.concat([trust_table(one) for one in parts], ignore_index=True)
        question = found.pop("question").to_numpy()
        obs["question"] = pd.Categorical([QUESTIONS[code] for code in question], categories=list(QUESTIONS.values()))
        obs = pd.concat([obs, found], axis=1)
        obs["n_left_out"] = self.effects_model.regression.posterior.n_left_out[question].astype(int)
        layers = {
            "sd": "sd",
            "false_sign_rate": "false_sign_rate",
            "detection": "detection",
            "detection_sd": "detection_sd",
            "expressed": "expressed",
            "expressed_sd": "expressed_sd",
        }
        stacked = {
            name: np.concatenate([getattr(one, field) for one in parts]).astype(np.float32)
            for name, field in {"X": "mean", **layers}.items()
        }
        obs.index = pd.Index([f"{label}_{i}" for i, label in enumerate(labels)])
        var = pd.DataFrame(index=pd.Index(self.get_var_names()))
        described = AnnData(stacked.pop("X"), obs=obs, var=var, layers=stacked)
        self.keys.write(described)
        return described

    def iterate_changes(
        self,
        perturbations: Sequence[str],
        *,
        cell_type: str | Sequence[str] | None = None,
        dose: Dose | Sequence[Dose] = None,
    ) -> Iterator[tuple[list[Condition], np.ndarray, ExpressionChanges]]:
        """Compute the posterior of changes from training controls in parts, for candidates that exceed memory.

        Parameters
        ----------
        perturbations, cell_type, dose
            As in :meth:`effects`.

        Yields
        ------
        Conditions, the mean expression in their control cells, shape `(n, n_genes)`, and their changes.
        """
        asked = self._all_asked(perturbations, dose)
        sources = self._training_controls()
        rows = sources.rows_by_cell_type(cell_type, None)
        populations, names = _averaged(sources, rows), list(rows)
        means = populations.mean.cpu().numpy() * float(self.module.statistics.x_max)
        pairs = [(p, row) for p in asked for row in range(len(rows))]
        for start, changes in zip(
            range(0, len(pairs), _CONDITIONS_AT_ONCE), self._changes(pairs, populations), strict=True
        ):
            part = pairs[start : start + _CONDITIONS_AT_ONCE]
            conditions = [Condition(p.label(**self.keys.grammar), names[row], p.dose_text()) for p, row in part]
            yield conditions, means[[row for _, row in part]], changes

    def candidate_covariance(
        self,
        perturbations: Sequence[str],
        *,
        cell_type: str | Sequence[str] | None = None,
        dose: Dose | Sequence[Dose] = None,
    ) -> CandidateCovariance:
        """Compute the joint posterior of candidates in the order of :meth:`iterate_changes`.

        Parameters
        ----------
        perturbations, cell_type, dose
            As in :meth:`effects`.
        """
        sources = self._training_controls()
        populations = _averaged(sources, sources.rows_by_cell_type(cell_type, None))
        contexts = populations.cell_type.cpu().numpy()
        pairs = [(p, context) for p in self._all_asked(perturbations, dose) for context in contexts]
        asked, context = zip(*pairs, strict=True)
        return CandidateCovariance.of(self.effects_model, asked, np.array(context))

    def _sources_of(self, controls: AnnData | MuData | None) -> tuple[SourceCells, AnnData]:
        """Read the given control cells, or those of the training data."""
        if controls is None:
            return self._training_controls(), self._resolve(None)
        controls = self._resolve(controls, "controls")
        if self.keys.perturbation_key not in controls.obs:
            controls = to_memory(controls)
            controls.obs[self.keys.perturbation_key] = self.keys.control  # the argument says so
        self._require_controls(self._perturbations(controls), "controls")
        return self._as_sources(controls, np.arange(controls.n_obs)), controls

    def _changes(
        self, pairs: Sequence[tuple[Perturbation, int]], populations: ControlPopulations
    ) -> Iterator[ExpressionChanges]:
        """Compute changes for pairs of perturbation and row of populations, in parts."""
        device = populations.mean.device
        for start in range(0, len(pairs), _CONDITIONS_AT_ONCE):
            part = pairs[start : start + _CONDITIONS_AT_ONCE]
            codes = torch.tensor([row for _, row in part], device=device)
            yield self.effects_model.changes([p for p, _ in part], populations[codes])

    def _trust(self, pairs: Sequence[tuple[Perturbation, int]], populations: ControlPopulations) -> pd.DataFrame:
        """Compute the two columns for pairs of perturbation and row of populations, and name poor ones at WARNING."""
        names = [f"{PREDICTION_KEY}_{name}" for name in ("expected_error", "p_better")]
        table = pd.concat([trust_table(one) for one in self._changes(pairs, populations)], ignore_index=True)
        acts = np.array([not p.is_control for p, _ in pairs], dtype=bool)
        little = acts & (table[names[1]] < LITTLE_TRUST).to_numpy()
        if little.any():
            labels = dict.fromkeys(
                p.label(**self.keys.grammar) for (p, _), is_poor in zip(pairs, little, strict=True) if is_poor
            )
            kinds = {QUESTIONS[code] for code in table.loc[little, "question"]}
            logger.warning(
                "Predictions for %s may be no nearer to the truth than control cells are (`obs['%s']` is below %g). Measure %s: %s",
                listed(labels),
                names[1],
                LITTLE_TRUST,
                ", or ".join(fix for kind, fix in _FIXES.items() if kind in kinds),
                GUIDE,
            )
        return table[names]


def trust_table(changes: ExpressionChanges) -> pd.DataFrame:
    """Get one row for each condition: question, E-distance with its interval, and trust."""
    low, high = changes.distance_quantiles(_LEVELS).T
    return pd.DataFrame(
        {
            "question": changes.question,
            "e_distance": changes.distance,
            "low": low,
            "high": high,
            "p_active": changes.p_active,
            f"{PREDICTION_KEY}_expected_error": changes.expected_error,
            f"{PREDICTION_KEY}_p_better": changes.p_better,
        }
    )


def _averaged(sources: SourceCells, rows: dict[str, np.ndarray]) -> ControlPopulations:
    """Average the populations of every cell type over its batches, by their number of cells."""
    averages = []
    for chosen in rows.values():
        share = np.bincount(sources.population[chosen], minlength=len(sources.populations)) / len(chosen)
        averages.append(sources.populations.average(torch.from_numpy(share)))
    return ControlPopulations.concatenate(averages)
