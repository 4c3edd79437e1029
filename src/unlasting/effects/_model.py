"""The effects model: fit, prediction and state."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from unlasting.effects._changes import ExpressionChanges
from unlasting.effects._contexts import ContextKernel, aligned
from unlasting.effects._dose import DoseCurves
from unlasting.effects._features import ConditionFeatures
from unlasting.effects._mixture import NonresponderMixture
from unlasting.effects._moments import (
    ControlPopulations,
    HurdleParameters,
    ScreenCells,
    ScreenStatistics,
    fit_statistics,
)
from unlasting.effects._on_target import OnTargetEffects
from unlasting.effects._posterior import COMBINATION, DOSE, TARGET, EffectMoments, EffectPosterior
from unlasting.effects._regression import EffectRegression
from unlasting.effects._similarity import MolecularSimilarity
from unlasting.effects._spectrum import Errors, Spectrum
from unlasting.effects._vocabulary import Target, TargetVocabulary
from unlasting.screen import Perturbation


@dataclass(frozen=True)
class EffectsModel:
    """Empirical-Bayes regression of hurdle parameters on condition features and contexts.

    Parameters
    ----------
    statistics
        Statistics from the training cells.
    mixture
        Non-responding cells in registered conditions.
    features
        Describes conditions.
    regression
        Predicts effects from their descriptions.
    """

    statistics: ScreenStatistics
    mixture: NonresponderMixture
    features: ConditionFeatures
    regression: EffectRegression

    @classmethod
    def fit(
        cls,
        cells: ScreenCells,
        conditions: Sequence[Perturbation],
        vocabulary: TargetVocabulary,
        *,
        mode: str = "knockout",
        use_mask: bool = True,
        use_responders: bool = True,
    ) -> Self:
        """Fit the model to the training cells.

        Parameters
        ----------
        cells
            The screen.
        conditions
            Each code's condition, shape `(n_conditions,)`.
        vocabulary
            Targets, priors and molecules.
        mode
            Effect on the target: `knockout`, `knockdown` or `activation`.
        use_mask
            Whether zeros are undetected genes. Otherwise they count among the expressed values.
        use_responders
            Whether cells may be non-responding.
        """
        mixture = NonresponderMixture.none(cells.n_conditions, cells.n_populations, len(vocabulary.trained_conditions))
        if use_responders:
            targets = [frozenset(map(vocabulary.target, condition.targets)) for condition in conditions]
            code = {target: i for i, target in enumerate(dict.fromkeys(targets))}
            mixture = NonresponderMixture.fit(cells, np.array([code[target] for target in targets]))
        statistics, measured = fit_statistics(cells, mixture, use_mask=use_mask)
        measured = measured.averaged_over_batches()
        curves = DoseCurves.fit(vocabulary, measured)
        features = ConditionFeatures(vocabulary, curves, MolecularSimilarity.fit(vocabulary, measured, curves))
        observed = HurdleParameters(statistics.control_log_odds, statistics.base, statistics.scale)
        controls = observed.changed_by(statistics.correction)
        on_target = OnTargetEffects.find(vocabulary, measured, controls, float(statistics.x_max), mode)
        described = features(vocabulary.trained_conditions)
        contexts = ContextKernel.centred(_context_means(statistics, cells))
        regression = EffectRegression.fit(
            described, features.families, contexts, measured, on_target, _left_out(vocabulary)
        )
        correction = statistics.correction + torch.from_numpy(regression.control_error)
        return cls(replace(statistics, correction=correction), mixture, features, regression)

    @property
    def vocabulary(self) -> TargetVocabulary:
        """Targets, priors and molecules."""
        return self.features.vocabulary

    def effects(self, perturbations: Sequence[Perturbation], populations: ControlPopulations) -> np.ndarray:
        """Predict effects on log-odds, on the mean expressed value in s.d. and on the log s.d.

        Parameters
        ----------
        perturbations
            Conditions, one for each row.
        populations
            Their control populations, one for each row.

        Returns
        -------
        Shape `(n, 3, n_genes)`; 0 for the control.
        """
        context, means = (part.cpu().numpy() for part in (populations.cell_type, populations.mean.double()))
        described, untrained = (_once(describe, perturbations) for describe in (self.features, self.features.untrained))
        effects = self.regression.effects(described, untrained, context, means)
        n_genes = effects.shape[2]
        for row, perturbation in enumerate(perturbations):
            columns = self.vocabulary.measured_targets(perturbation, n_genes)
            effects[row][:, columns] += self.regression.on_target[:, columns]
        return effects

    def predict(self, perturbations: Sequence[Perturbation], populations: ControlPopulations) -> HurdleParameters:
        """Predict hurdle parameters, one row for each perturbation in its population.

        The control keeps the observed ones. Other perturbations act on estimates without the control cells' sampling
        error, a dose in proportion to its effect.
        """
        effects = torch.from_numpy(self.effects(perturbations, populations)).to(populations.mean)
        strength = torch.from_numpy(self.features.strength(perturbations)).to(populations.mean)
        return populations.hurdle_parameters().changed_by(effects + strength[:, None, None] * populations.correction)

    def nonresponder_share(self, perturbations: Sequence[Perturbation]) -> np.ndarray:
        """Predict the share of non-responding cells, shape `(n,)`."""
        share = self.mixture.trained_share.numpy().astype(np.float64)
        return np.clip(self.regression.transfer(self._describe(perturbations), share), 0.0, 1.0)

    def support(self, perturbations: Sequence[Perturbation]) -> np.ndarray:
        """Get the share of each condition's effect that trained conditions explain, in [0, 1], shape `(n,)`.

        It is 1 for trained conditions and the control, and 0 for a condition without features.
        """
        described = self._describe(perturbations)
        acts = np.array([not p.is_control for p in perturbations], dtype=bool)
        return np.where(acts & (np.diff(described.indptr) == 0), 0.0, self.regression.support(described))

    def question(self, perturbations: Sequence[Perturbation], populations: ControlPopulations) -> np.ndarray:
        """Classify conditions by the part that training cells lack, see `QUESTIONS`, shape `(n,)`."""
        context = populations.cell_type.cpu().numpy()
        described = self._describe(perturbations)
        question = self.regression.question(described, context)
        # a target without features adds nothing in the regression, but was not trained
        question = np.where(self.features.are_described(perturbations), question, TARGET)
        trained = set(self.vocabulary.trained_targets)
        combined = [
            len(p.targets) > 1 and trained.issuperset(map(self.vocabulary.target, p.targets)) for p in perturbations
        ]
        return np.where((question == TARGET) & combined, COMBINATION, question)

    def moments(
        self, perturbations: Sequence[Perturbation], populations: ControlPopulations, outputs: np.ndarray | None = None
    ) -> EffectMoments:
        """Compute the posterior of effects, one row for each perturbation in its population.

        Parameters
        ----------
        perturbations
            Conditions, shape `(n,)`.
        populations
            Their control populations, one row each.
        outputs
            Outputs to compute, as columns of `(3, n_genes)` in one row. All by default.
        """
        context, means = (part.cpu().numpy() for part in (populations.cell_type, populations.mean.double()))
        question, described = self.question(perturbations, populations), self._describe(perturbations)
        n_genes = means.shape[1]
        chosen = np.arange(self.regression.units.size) if outputs is None else np.asarray(outputs)
        untrained = _once(self.features.untrained, perturbations)
        moments = self.regression.moments(
            described, untrained, context, means, question, chosen, self.missing(perturbations)
        )
        place = np.full(self.regression.units.size, -1)
        place[chosen] = np.arange(len(chosen))
        units = self.regression.units
        for row, perturbation in enumerate(perturbations):
            for column in self.vocabulary.measured_targets(perturbation, n_genes):
                found = place[np.arange(len(units)) * n_genes + column]
                found, part = found[found >= 0], np.flatnonzero(found >= 0)
                moments.mean[row, found] += (self.regression.on_target * units)[part, column]
                moments.on_target_mean[row, found] += (self.regression.on_target * units)[part, column]
                moments.on_target[row, found] += (self.regression.on_target_variance * units**2)[part, column]
        return moments

    def changes(self, perturbations: Sequence[Perturbation], populations: ControlPopulations) -> ExpressionChanges:
        """Compute the posterior of changes in expression, one row for each perturbation in its population."""
        n_genes = populations.mean.shape[1]
        moments = self.moments(perturbations, populations, np.arange(2 * n_genes))
        strength = torch.from_numpy(self.features.strength(perturbations)).to(populations.mean)
        controls = populations.hurdle_parameters().changed_by(strength[:, None, None] * populations.correction)
        log_odds, base, scale, sd = (
            part.double().cpu().numpy()
            for part in (controls.log_odds, controls.base, populations.scale, populations.sd)
        )
        x_max = float(self.statistics.x_max)
        return ExpressionChanges.of(
            moments,
            self.regression.units[:2],
            log_odds,
            base * x_max,
            scale * x_max,
            1.0 - self.nonresponder_share(perturbations),
            ((sd * x_max) ** 2).sum(axis=1),
            np.array([p.is_control for p in perturbations], dtype=bool),
        )

    def is_trained(self, perturbations: Sequence[Perturbation]) -> np.ndarray:
        """Test whether conditions were trained, at any dose, shape `(n,)`."""
        return self.regression.is_trained(self._describe(perturbations))

    def missing(self, perturbations: Sequence[Perturbation]) -> np.ndarray:
        """Get the prior variance from unknown properties of untrained targets, shape `(n,)`."""
        trained = set(self.vocabulary.trained_targets)
        new = [
            [pair for pair in zip(p.targets, p.doses, strict=True) if self.vocabulary.target(pair[0]) not in trained]
            for p in perturbations
        ]
        parts = [Perturbation(tuple(name for name, _ in part), tuple(dose for _, dose in part)) for part in new]
        return self.regression.missing(self._describe(parts), np.array(list(map(len, new))))

    def _describe(self, perturbations: Sequence[Perturbation]) -> sparse.csr_matrix:
        """Describe conditions, each distinct one once."""
        return _once(self.features, perturbations)

    def state(self) -> dict[str, np.ndarray]:
        """Get all fitted arrays by name."""
        contexts = self.regression.contexts
        parts: dict[str, Any] = {
            "statistics": self.statistics,
            "mixture": self.mixture,
            "dose": self.features.dose_curves,
            "similarity": self.features.similarity,
            "regression": self.regression,
            "contexts": contexts,
            "conditions": self.regression.conditions,
            "posterior": self.regression.posterior,
            "spectrum": self.regression.posterior.spectrum,
        }
        state = {
            f"{name}.{f.name}": getattr(part, f.name)
            for name, part in parts.items()
            for f in fields(part)
            if f.name not in parts and f.name != "features"
        }
        rows = self.regression.features
        state |= {f"features.{name}": getattr(rows, name) for name in ("data", "indices", "indptr", "shape")}
        return {name: np.asarray(array, order="C") for name, array in state.items()}

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray], vocabulary: TargetVocabulary) -> Self:
        """Restore a model from :meth:`state`, also from that of models that were saved in format 1."""
        state = _without_matrices(state)
        parts: dict[str, dict[str, Any]] = {}
        for name, array in state.items():
            part, field = name.split(".")
            parts.setdefault(part, {})[field] = aligned(array)
        for part in ("statistics", "mixture"):
            parts[part] = {field: torch.from_numpy(array) for field, array in parts[part].items()}
        similarity = MolecularSimilarity(**{field: float(value) for field, value in parts["similarity"].items()})
        return cls(
            ScreenStatistics(**parts["statistics"]),
            NonresponderMixture(**parts["mixture"]),
            ConditionFeatures(vocabulary, DoseCurves(**parts["dose"]), similarity),
            EffectRegression(
                **parts["regression"],
                features=_stored_rows(**parts["features"]),
                contexts=ContextKernel(**parts["contexts"]),
                conditions=Spectrum(**parts["conditions"]),
                posterior=EffectPosterior(**parts["posterior"], spectrum=Spectrum(**parts["spectrum"])),
            ),
        )


def _left_out(vocabulary: TargetVocabulary) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """List the groups of trained conditions whose prediction from the others calibrates the posterior."""
    with_target: dict[Target, list[int]] = {}
    with_all: dict[frozenset[Target], list[int]] = {}
    for row, perturbation in enumerate(vocabulary.trained_conditions):
        targets = frozenset(map(vocabulary.target, perturbation.targets))
        with_all.setdefault(targets, []).append(row)
        for target in targets:
            with_target.setdefault(target, []).append(row)
    groups = [
        (TARGET, with_target[target], with_all.get(frozenset({target}), [])) for target in vocabulary.trained_targets
    ]
    groups += [(COMBINATION, rows, rows) for targets, rows in with_all.items() if len(targets) > 1]
    groups += [
        (DOSE, [row], [row]) for row in sorted(row for rows in with_all.values() if len(rows) > 1 for row in rows)
    ]
    return [(question, np.array(left, dtype=int), np.array(asked, dtype=int)) for question, left, asked in groups]


def _once(
    describe: Callable[[Sequence[Perturbation]], sparse.csr_matrix], perturbations: Sequence[Perturbation]
) -> sparse.csr_matrix:
    """Describe each distinct condition once."""
    row = {perturbation: i for i, perturbation in enumerate(dict.fromkeys(perturbations))}
    described = describe(list(row))
    return described if len(row) == len(perturbations) else described[[row[p] for p in perturbations]]


def _without_matrices(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Bring a state of format 1, which had the covariances themselves, into the present form."""
    state = dict(state)
    if "posterior.covariance" not in state:
        return state
    covariance, noise = (state.pop(f"posterior.{name}").astype(np.float64) for name in ("covariance", "noise"))
    variances, vectors = np.linalg.eigh(noise)
    own = np.full(len(noise), variances.min())
    spectrum = Spectrum.exact(covariance, Errors(own, vectors * np.sqrt(variances - variances.min())))
    variances, vectors = np.linalg.eigh(state.pop("regression.precision").astype(np.float64))
    root, n = vectors * np.sqrt(np.maximum(variances, 0.0)), len(variances)
    conditions = Spectrum(root, np.zeros(n), np.zeros(0), np.ones(n), np.zeros((n, 0)))
    for name, part in (("spectrum", spectrum), ("conditions", conditions)):
        state |= {f"{name}.{f.name}": getattr(part.stored(), f.name) for f in fields(part)}
    rows = sparse.csr_matrix(state.pop("regression.features"))
    state |= {f"features.{name}": np.asarray(getattr(rows, name)) for name in ("data", "indices", "indptr", "shape")}
    return state | {"regression.typical_size": np.ones((), dtype=np.float32)}


def _stored_rows(data: np.ndarray, indices: np.ndarray, indptr: np.ndarray, shape: np.ndarray) -> sparse.csr_matrix:
    return sparse.csr_matrix((data, indices, indptr), tuple(shape))


def _context_means(statistics: ScreenStatistics, cells: ScreenCells) -> np.ndarray:
    """Average mean expression in control cells over the batches of every context, shape `(n_contexts, n_genes)`."""
    controls = (cells.condition == 0) & (cells.split == 0)
    n_cells = np.maximum(np.bincount(cells.population[controls], minlength=cells.n_populations), 1)
    member = (np.arange(cells.context.max() + 1)[:, None] == cells.context) * n_cells
    return member @ statistics.control_mean.double().numpy() / np.maximum(member.sum(axis=1, keepdims=True), 1)


class ExpectedParameters:
    """Hurdle parameters for each pair (condition, population), computed once, each pair alone.

    A row's last bits thus depend on no other row, and a resumed training equals an undisturbed one.

    Parameters
    ----------
    effects
        Predicts them; without a model they equal the control population's.
    conditions
        Each code's condition.
    populations
        Each code's population, on the result's device.
    """

    def __init__(
        self, effects: EffectsModel | None, conditions: Sequence[Perturbation], populations: ControlPopulations
    ) -> None:
        self._effects = effects
        self._conditions = conditions
        self._populations = populations
        self._rows: dict[tuple[int, int], HurdleParameters] = {}
        self._table: tuple[HurdleParameters, Tensor] | None = None

    def restrict(self, condition: np.ndarray, population: np.ndarray) -> Self:
        """Compute the rows for some pairs now, and none later: no device has to wait for the others; they are missing.

        The codes have the shape `(n,)`.
        """
        if self._effects is not None:
            pairs = np.unique(np.stack([condition, population], axis=1), axis=0)
            rows = self._computed([(int(one), int(other)) for one, other in pairs])
            missing = HurdleParameters(*(torch.full_like(getattr(rows[0], f.name), torch.nan) for f in fields(rows[0])))
            place = torch.full((len(self._conditions), len(self._populations)), len(rows))
            place[pairs[:, 0], pairs[:, 1]] = torch.arange(len(rows))
            self._table = HurdleParameters.concatenate([*rows, missing]), place.to(rows[0].base.device)
        return self

    def _computed(self, pairs: Sequence[tuple[int, int]]) -> list[HurdleParameters]:
        """Get the row of each pair."""
        with torch.inference_mode(False), torch.no_grad():  # training reads rows that validation has computed
            for pair in pairs:
                if self._effects is not None and pair not in self._rows:
                    code = torch.tensor([pair[1]], device=self._populations.mean.device)
                    self._rows[pair] = self._effects.predict([self._conditions[pair[0]]], self._populations[code])
        return [self._rows[pair] for pair in pairs]

    def __call__(self, condition: Tensor, population: Tensor) -> HurdleParameters:
        """Get one row for each entry, shape `(n,)`."""
        if self._effects is None:
            return self._populations[population].hurdle_parameters()
        if self._table is not None:
            table, place = self._table
            return table[place[condition, population]]
        unique, row = torch.unique(torch.stack([condition, population], dim=-1), dim=0, return_inverse=True)
        return HurdleParameters.concatenate(self._computed([(int(a), int(b)) for a, b in unique.tolist()]))[row]
