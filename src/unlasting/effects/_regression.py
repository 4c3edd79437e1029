"""Regression of effects on condition features and contexts: a Gaussian process in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from scipy import sparse

from unlasting.effects._contexts import ContextKernel, aligned
from unlasting.effects._families import FeatureFamilies, probability_to_be_best
from unlasting.effects._moments import N_PARAMETERS, MeasuredEffects
from unlasting.effects._on_target import OnTargetEffects
from unlasting.effects._posterior import (
    COMBINATION,
    CONTEXT,
    DOSE,
    ROUNDING,
    TARGET,
    TRAINED,
    EffectMoments,
    EffectPosterior,
    LeftOut,
)
from unlasting.effects._products import as_rows, divided, equal_rows, products, squares, weighted
from unlasting.effects._spectrum import MAX_EXACT, RANK, SIZES, Errors, Spectrum, rows_of_groups

_ROUNDS: Final = 3
"""Updates to the relevances. More updates fit trained conditions better, and held-out conditions worse."""

_ROUNDING_VARIANCE: Final = 1e-12
"""Variances, relative to the largest, that are rounding."""

_MAX_ROWS: Final = 400
"""Measurements that choose the kernels: decompositions are cubic."""


@dataclass(frozen=True)
class EffectRegression:
    """Posterior of effects given those in the training cells.

    Two conditions' effects on a gene covary as `size * sum_f relevance_f phi_f(c) phi_f(c')`, times the kernel over
    contexts. Relevances come from a few expectation-maximisation steps over all genes :cite:p:`tipping2001relevance`, for
    each source of knowledge alone, and are averaged by the errors for left-out targets. Sizes are averaged over their posterior, whose prior is their distribution over all
    genes :cite:p:`stephens2017false`. Effects on one population share the sampling error of its control cells, which is
    estimated beside them. Everything else is linear algebra.

    The untrained part of a condition, and untrained contexts, have their effects multiplied by a slope: that of measured on
    predicted effects where trained conditions, or contexts, are left out.

    Parameters
    ----------
    contexts
        Kernel over contexts.
    posterior
        Posterior variance, without on-target effects.
    relevance
        Weight for every feature, shape `(n_features,)`.
    specific
        1 for features that distinguish targets, 0 for those common to all perturbations, shape `(n_features,)`.
    features
        The trained conditions' features, shape `(n_trained, n_features)`.
    coefficients
        Effects are kernel times coefficients, shape `(n_trained, n_contexts, 3, n_genes)`.
    conditions
        Covariance between effects in the trained conditions, averaged over contexts, beside that between errors.
    typical_size
        A typical effect size, shape `()`.
    on_target
        Additional effect on each gene where it is the target, shape `(3, n_genes)`.
    control_error
        Error that all effects on a population share, minus the sampling error of its control cells, shape
        `(n_populations, 3, n_genes)`.
    slopes
        Factors for the untrained part of conditions and for untrained contexts, shape `(2,)`.
    units
        Factors that bring all effects to unit variance over cells, shape `(3, n_genes)`.
    importance
        Squared change in mean expression by a unit effect, shape `(3, n_genes)`.
    on_target_variance
        Posterior variance of `on_target`, shape `(3, n_genes)`.
    """

    contexts: ContextKernel
    posterior: EffectPosterior
    relevance: np.ndarray
    specific: np.ndarray
    features: sparse.csr_matrix
    coefficients: np.ndarray
    conditions: Spectrum
    typical_size: np.ndarray
    on_target: np.ndarray
    control_error: np.ndarray
    slopes: np.ndarray
    units: np.ndarray
    importance: np.ndarray
    on_target_variance: np.ndarray

    @classmethod
    def fit(
        cls,
        features: np.ndarray | sparse.csr_matrix,
        families: FeatureFamilies | None,
        contexts: ContextKernel,
        measured: MeasuredEffects,
        on_target: OnTargetEffects | None = None,
        questions: Sequence[tuple[int, np.ndarray, np.ndarray]] | None = None,
    ) -> Self:
        """Fit the regression.

        Parameters
        ----------
        features
            The trained conditions' features, shape `(n_trained, n_features)`.
        families
            The families of features, whose weights are learnt here. `None`: one.
        contexts
            Kernel over contexts, whose weights are learnt here.
        measured
            Effects in the training cells.
        on_target
            Separates on-target effects; any other effect on a target is predicted from other conditions. `None`: no
            separation.
        questions
            Groups that calibrate the posterior: the kind of question, codes of the conditions to leave out, and of those
            to predict. `None`: each target in turn.
        """
        features = as_rows(features)
        n_trained, units = features.shape[0], measured.units
        families = families or FeatureFamilies.single(features.shape[1])
        n_contexts, n_genes = len(contexts.profiles), units.shape[1]
        (target_effects, target_variance), rest = np.zeros((2, N_PARAMETERS, n_genes)), measured
        if on_target is not None:
            target_effects, rest = on_target.separate(measured)
        values = (rest.effects * units).reshape(len(rest.effects), -1)
        condition = np.unique(measured.condition, return_inverse=True)[1]
        errors, weight = measured.errors, 1.0 / measured.noise
        weight /= np.bincount(condition, weights=weight, minlength=n_trained)[condition]
        mean = sparse.csr_matrix((weight, (condition, np.arange(len(condition)))), (n_trained, len(condition)))
        importance = np.ones(values.shape[1]) if measured.importance is None else measured.importance.ravel()
        averages, average_errors = mean @ values, errors.averaged(mean)
        relevance = _relevances(features, families, averages, average_errors, importance)
        context = measured.context
        if len(np.unique(context)) > 1:
            chosen = _subset(condition)
            errors_of = []
            for candidate in contexts.candidates():
                spectrum = _spectrum(
                    features[condition[chosen]], relevance, errors[chosen], candidate.between(), context[chosen]
                )
                predicted, shared = spectrum.without(context[chosen], values[chosen])
                errors_of.append((values[chosen] - predicted - shared) ** 2 @ importance)
            in_others = _number_of_contexts(condition[chosen], context[chosen]) > 1
            contexts = contexts.averaged_over(np.array(errors_of)[:, in_others])
        conditions = _spectrum(features, relevance, average_errors)
        between = contexts.between()
        is_common = np.array_equal(condition, np.arange(n_trained)) and (between[context[0], context] == 1.0).all()
        spectrum = conditions
        if not is_common:
            spectrum = _spectrum(features[condition], relevance, errors, between, context)
        sizes = spectrum.size_posterior(values)
        if on_target is not None:
            own = np.repeat(on_target.is_target[:, None], N_PARAMETERS, axis=1).reshape(values.shape)
            expected = spectrum.left_out(values, sizes, own).reshape(rest.effects.shape) / units
            target_effects, rest = on_target.separate(measured, expected)
            target_variance = on_target.variance(measured, expected)
            values = (rest.effects * units).reshape(values.shape)
            sizes = spectrum.size_posterior(values)
        rotated, shrunken = spectrum.rotate(values), 1.0 / (1.0 + spectrum.variances[:, None] * SIZES)
        solved, residuals = (
            spectrum.combine(weights @ sizes, rotated).reshape(-1, N_PARAMETERS, n_genes) / units
            for weights in (shrunken * SIZES, shrunken)
        )
        control_error = np.tensordot(measured.control_covariance, residuals, axes=1)
        coefficients = np.zeros((n_trained, n_contexts, N_PARAMETERS, n_genes))
        np.add.at(coefficients, (condition, context), solved)  # batches of a context add up
        targets = equal_rows(_directions(features))[0][condition]
        in_others = _number_of_contexts(condition, context) > 1
        slopes = []
        for group, included in ((targets, np.ones(len(targets), dtype=bool)), (context, in_others)):
            if len(np.unique(group[included])) < 2:
                slopes.append(1.0)
                continue
            predicted, shared = spectrum.without(group, values, sizes)
            slopes.append(_slope(predicted[included], (values - shared)[included], group[included], importance))
        if questions is None:
            same = [np.unique(condition[rows]) for rows in rows_of_groups(targets)]
            questions = [(TARGET, one, one) for one in same]
        rows_of = rows_of_groups(condition)
        groups = []
        for question, left_out, asked in questions:
            rows = np.sort(np.concatenate([rows_of[code] for code in left_out]))
            groups.append(LeftOut(question, rows, np.isin(condition[rows], asked)))
        groups += [LeftOut(CONTEXT, rows, in_others[rows]) for rows in rows_of_groups(context)]
        posterior = EffectPosterior.fit(
            condition=condition,
            context=context,
            spectrum=spectrum,
            measured=values,
            candidates=SIZES,
            sizes=sizes,
            noise_ratio=measured.noise_ratio.reshape(values.shape),
            importance=importance / np.maximum(units.ravel() ** 2, 1e-12),
            profiles=contexts.means,
            groups=[one for one in groups if one.asked.any() and len(one.rows) < len(condition)],
            slopes={TRAINED: 1.0, DOSE: 1.0, TARGET: slopes[0], COMBINATION: 1.0, CONTEXT: slopes[1]},
        )
        likeliest = SIZES[conditions.size_posterior(averages).argmax(axis=0)]
        arrays = {
            "relevance": relevance,
            "specific": families.specific,
            "coefficients": coefficients,
            "typical_size": np.array(np.median(likeliest[likeliest > 0]) if likeliest.any() else 1.0),
            "on_target": target_effects,
            "control_error": control_error,
            "slopes": np.array(slopes),
            "units": units,
            "importance": importance.reshape(units.shape),
            "on_target_variance": target_variance,
        }
        stored = {name: _single(array) for name, array in arrays.items()}
        stored_features = features.astype(np.float32)
        return cls(contexts, posterior, features=stored_features, conditions=conditions.stored(), **stored)

    def effects(
        self, features: sparse.csr_matrix, untrained: sparse.csr_matrix, context: np.ndarray, means: np.ndarray
    ) -> np.ndarray:
        """Predict effects without on-target effects.

        Parameters
        ----------
        features
            The conditions' features, shape `(n, n_features)`.
        untrained
            Their untrained part, see :meth:`ConditionFeatures.untrained`, shape `(n, n_features)`.
        context
            Codes of their contexts, -1 for a new one, shape `(n,)`.
        means
            Mean expression in their control cells, read for new contexts, shape `(n, n_genes)`.

        Returns
        -------
        Effects on log-odds, on the mean in s.d. and on the log s.d., shape `(n, 3, n_genes)`.
        """
        between = _single(self.contexts(context, means))
        similarity = self._shrunken_kernel(features, untrained, context)
        kernel = similarity[:, :, None] * between[:, None]  # (n, n_trained, n_contexts)
        n_parameters, n_genes = self.coefficients.shape[2:]
        coefficients = self.coefficients.reshape(-1, n_parameters * n_genes)
        return _matmul(kernel.reshape(len(kernel), -1), coefficients).reshape(-1, n_parameters, n_genes)

    def _shrunken_kernel(
        self, features: sparse.csr_matrix, untrained: sparse.csr_matrix, context: np.ndarray
    ) -> np.ndarray:
        """Covariance with the trained conditions times the slopes, shape `(n, n_trained)`."""
        slope = np.where(context >= 0, 1.0, self.slopes[1].astype(np.float64))[:, None]
        return np.asarray(slope * self._kernel(features) + (self.slopes[0] - slope) * self._kernel(untrained))

    def question(self, features: sparse.csr_matrix, context: np.ndarray) -> np.ndarray:
        """Classify conditions by the part that training cells lack, see `QUESTIONS`, shape `(n,)`.

        Combinations count as targets here, and the control as trained.
        """
        known = self._is_known(features)
        measured = np.zeros((self.features.shape[0], len(self.contexts.means) + 1), dtype=bool)  # -1: a new context
        measured[self.posterior.condition, self.posterior.context] = True
        here = measured[:, context].T
        same = self._is_parallel(features) | known[:, :-1]
        question = np.where((known[:, :-1] & here).any(axis=1), TRAINED, DOSE)
        question = np.where((same & here).any(axis=1), question, CONTEXT)
        question = np.where(same.any(axis=1), question, TARGET)
        return np.asarray(np.where(known[:, -1], TRAINED, question))

    def moments(
        self,
        features: sparse.csr_matrix,
        untrained: sparse.csr_matrix,
        context: np.ndarray,
        means: np.ndarray,
        question: np.ndarray,
        outputs: np.ndarray | slice = slice(None),
        missing: np.ndarray | float = 0.0,
    ) -> EffectMoments:
        """Compute the posterior of effects without on-target effects, on the scale with unit variance over cells.

        Parameters
        ----------
        features, untrained, context, means
            As in :meth:`effects`.
        question
            Kind of question, shape `(n,)`.
        outputs
            Outputs to compute, columns of `(3, n_genes)` in one row.
        missing
            Prior variance from unknown properties of untrained targets beside others, see :meth:`missing`, shape `(n,)`.
        """
        between = self.contexts(context, means)[:, self.posterior.context]
        kernel, shrunken = (
            one[:, self.posterior.condition] * between
            for one in (self._kernel(features), self._shrunken_kernel(features, untrained, context))
        )
        size, trained_size = self._sizes(features)
        # an untrained target has unknown properties too
        is_new = np.isin(question, (TARGET, COMBINATION))
        prior = np.where(is_new, np.maximum(size**2 + missing, (trained_size**2).mean()), size**2)
        known = self._is_known(features)
        similarity = np.where(known[:, -1] & ~is_new, 1.0, self.posterior.similarity(context, means))
        measured = known[:, self.posterior.condition] & (context[:, None] == self.posterior.context)
        row = np.where(measured.any(axis=1), measured.argmax(axis=1), -1)
        return self.posterior.moments(kernel, shrunken, prior, question, similarity, row, outputs)

    def missing(self, features: sparse.csr_matrix, n_targets: np.ndarray) -> np.ndarray:
        """Get the variance that targets lack beside typical trained conditions, shape `(n,)`.

        Parameters
        ----------
        features
            Features of the untrained targets in each condition, shape `(n, n_features)`.
        n_targets
            Their number, shape `(n,)`.
        """
        size, trained_size = self._sizes(features)
        return np.maximum(n_targets * (trained_size**2).mean() - size**2, 0.0)

    def support(self, features: sparse.csr_matrix) -> np.ndarray:
        """Get the target-specific variance that trained conditions explain, as a share in [0, 1], shape `(n,)`.

        It is 1 for trained conditions and the control. Any other target has at least a typical trained
        condition's variance, so that unknown properties count as unexplained.
        """
        specific = weighted(as_rows(features), self.specific)
        kernel = self._kernel(specific)
        projected = kernel @ self.conditions.root
        explained = self.conditions.explained(self._precision[:, None], kernel, projected)[:, 0]
        typical = squares(self.features, self.specific * self.relevance).mean()
        prior = np.maximum(squares(specific, self.relevance), max(typical, 1e-12))
        return np.where(self._is_known(features).any(axis=-1), 1.0, np.clip(explained / prior, 0.0, 1.0))

    def transfer(self, features: sparse.csr_matrix, values: np.ndarray) -> np.ndarray:
        """Predict a quantity with one value per trained condition, shape `(n,)`.

        A trained condition keeps its value, and other doses have the nearest dose's, since their features are
        parallel. The control has 0, as has a condition without similar ones. Features and effects shrink with the dose,
        whereas the quantity does not. It never exceeds a value that all trained conditions have.
        """
        kernel = self._kernel(features)
        size, trained_size = self._sizes(features)
        same = self._is_parallel(features) | self._is_known(features)[:, :-1]
        nearest = np.where(same, np.abs(size[:, None] - trained_size), np.inf).argmin(axis=-1)
        both = self.conditions.rotate(np.stack([values * trained_size, trained_size], axis=1))
        transferred, total = (kernel @ self.conditions.combine(self._precision, both)).T
        interpolated = transferred / np.maximum(np.maximum(total, size), 1e-6)
        return np.where(same.any(axis=-1) & (size > 0), values[nearest], interpolated)

    def is_trained(self, features: sparse.csr_matrix) -> np.ndarray:
        """Test whether conditions were trained at any dose, shape `(n,)`."""
        return np.asarray(self._is_parallel(features).any(axis=-1))

    def _is_parallel(self, features: sparse.csr_matrix) -> np.ndarray:
        """Test for trained conditions at any dose, whose features are parallel, shape `(n, n_trained)`."""
        kernel, (size, trained_size) = self._kernel(features), self._sizes(features)
        return (kernel > 0) & (kernel > (1.0 - 1e-5) * size[:, None] * trained_size)

    def _is_known(self, features: sparse.csr_matrix) -> np.ndarray:
        """Test for the trained conditions and, in the last column, the control, shape `(n, n_trained + 1)`."""
        control = sparse.csr_matrix((1, self.features.shape[1]), dtype=np.float32)
        asked, trained, none = equal_rows(as_rows(features), self.features, control)
        return np.asarray(asked[:, None] == np.concatenate([trained, none]))

    def _sizes(self, features: sparse.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
        """Get the prior s.d. for the given and the trained conditions."""
        size, trained_size = (np.sqrt(squares(as_rows(rows), self.relevance)) for rows in (features, self.features))
        return size, trained_size

    @property
    def _precision(self) -> np.ndarray:
        """Inverse of the covariance between measured conditions at a typical effect size, as a function of variances."""
        return np.asarray(1.0 / (self.conditions.variances + 1.0 / self.typical_size))

    def _kernel(self, features: sparse.csr_matrix) -> np.ndarray:
        """Covariance with the trained conditions, shape `(n, n_trained)`."""
        return products(as_rows(features), self.relevance, self.features)


def _subset(condition: np.ndarray) -> np.ndarray:
    """Draw whole conditions with few enough rows to compare kernels over contexts."""
    codes, sizes = np.unique(condition, return_counts=True)
    order = np.random.default_rng(0).permutation(len(codes))
    within = sizes[order].cumsum() <= max(_MAX_ROWS, int(sizes[order[0]]))
    return np.flatnonzero(np.isin(condition, codes[order[within]]))


def _number_of_contexts(condition: np.ndarray, context: np.ndarray) -> np.ndarray:
    """Count the contexts in which each row's condition was measured, shape `(n_measured,)`."""
    pairs = np.unique(np.stack([condition, context]), axis=1)
    return np.bincount(pairs[0], minlength=condition.max() + 1)[condition]


def _directions(features: sparse.csr_matrix) -> sparse.csr_matrix:
    """Bring features to length one, so that conditions with parallel ones, a target's doses, are equal."""
    length = np.sqrt(squares(features, np.ones(features.shape[1])))
    directions = sparse.csr_matrix(sparse.diags(1.0 / np.maximum(length, 1e-12)) @ features)
    directions.data = directions.data.round(5)
    directions.eliminate_zeros()
    return directions


def _slope(predicted: np.ndarray, measured: np.ndarray, group: np.ndarray, importance: np.ndarray) -> float:
    """Regress left-out effects on their predictions, with one group's worth of evidence for a slope of 1.

    Slopes above 1 are not used: they made errors larger on nearly all development screens.
    """
    codes = np.unique(group, return_inverse=True)[1]
    product, square = (np.bincount(codes, weights=(predicted * other) @ importance) for other in (measured, predicted))
    if len(product) < 2 or square.sum() <= ROUNDING * (measured**2 @ importance).sum():
        return 1.0
    typical = (square**2).sum() / square.sum()
    return float(np.clip((product.sum() + typical) / (square.sum() + typical), 0.0, 1.0))


def _spectrum(
    features: sparse.csr_matrix,
    relevance: np.ndarray,
    errors: Errors,
    between: np.ndarray = np.ones((1, 1)),  # noqa: B008
    context: np.ndarray | None = None,
) -> Spectrum:
    """Decompose the covariance between effects beside that between errors.

    Parameters
    ----------
    features
        Features of the condition in each row, shape `(n, n_features)`.
    relevance
        Weight for every feature, shape `(n_features,)`.
    errors
        Covariance between errors.
    between, context
        Kernel over contexts, and the code of each row's context, shape `(n,)`. By default, all rows are in one.
    """
    n_measured = features.shape[0]
    context = np.zeros(n_measured, dtype=int) if context is None else context
    if n_measured <= MAX_EXACT:
        covariance = products(features, relevance, features)
        if not (between == 1.0).all():
            covariance *= between[np.ix_(context, context)]
        return Spectrum.exact(covariance, errors)
    parts = divided(weighted(features, np.sqrt(relevance)))[1:]
    values, vectors = np.linalg.eigh(between)
    scales = (vectors * np.sqrt(np.maximum(values, 0.0)))[context, :, None]

    def times(right: np.ndarray) -> np.ndarray:
        found = np.zeros(right.shape)
        for place in np.flatnonzero(values > _ROUNDING_VARIANCE * values[-1]):
            scaled = scales[:, place] * right
            for part in parts:
                found += scales[:, place] * (part @ (part.T @ scaled))
        return found

    variance = squares(features, relevance) * np.diag(between)[context]
    return Spectrum.largest(times, variance, errors, RANK)


def _relevances(
    features: sparse.csr_matrix,
    families: FeatureFamilies,
    measured: np.ndarray,
    errors: Errors,
    importance: np.ndarray,
) -> np.ndarray:
    """Average the relevances of all candidate families, weighted by the errors for left-out targets."""
    rows = _subset(np.arange(features.shape[0]))
    features, measured, errors = features[rows], measured[rows], errors[rows]
    # the draws that weigh candidates depend on the order of groups, which is therefore that of their features
    group = np.unique(_directions(features).toarray(), axis=0, return_inverse=True)[1].ravel()
    dense = features.toarray()
    candidates = [
        _refined(dense, families, relevance / squares(features, relevance).mean(), measured, errors)
        for relevance in families.candidates()
        if squares(features, relevance).any()
    ]
    if not candidates:
        return np.ones(features.shape[1])
    left_out = []
    for relevance in candidates:
        spectrum = Spectrum.exact(products(features, relevance, features), errors)
        predicted, shared = spectrum.without(group, measured)
        left_out.append(np.bincount(group, weights=(measured - predicted - shared) ** 2 @ importance))
    return np.asarray(probability_to_be_best(np.array(left_out)) @ np.array(candidates))


def _refined(
    features: np.ndarray, families: FeatureFamilies, relevance: np.ndarray, measured: np.ndarray, errors: Errors
) -> np.ndarray:
    """Update relevances by expectation maximisation."""
    squared, used = features**2, np.flatnonzero(features.any(axis=0))
    own = features[:, used]
    for _ in range(_ROUNDS):
        spectrum = Spectrum.exact((features * relevance) @ features.T, errors)
        sizes = SIZES[spectrum.size_posterior(measured).argmax(axis=0)]
        moment, n_outputs = np.zeros_like(relevance), 0
        for size in np.unique(sizes[sizes > 0]):
            outputs = sizes == size
            inverse = spectrum.block(1.0 / (spectrum.values + 1.0 / size), np.arange(len(own)))  # times the size
            solved = inverse @ measured[:, outputs]
            known = solved @ solved.T / size - outputs.sum() * inverse  # squared means less the explained variance
            moment += outputs.sum() * relevance  # a feature without a condition keeps its prior variance
            moment[used] += relevance[used] ** 2 * np.einsum("nf,nf->f", own, known @ own)
            n_outputs += int(outputs.sum())
        if not n_outputs:
            break
        relevance = moment / n_outputs
        for columns in families.tied:
            relevance[columns] = relevance[columns].mean()
        relevance = relevance / (squared @ relevance).mean()
    return relevance


def _single(array: np.ndarray) -> np.ndarray:
    return aligned(np.asarray(array, dtype=np.float32, order="C"))


def _matmul(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Multiply in double precision, so that neighbouring doses keep their order."""
    return left.astype(np.float64) @ right.astype(np.float64)
