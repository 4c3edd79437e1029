"""What a perturbation is expected to do to each gene, before the networks look."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from unlasting.effects._precision import in_full_precision

N_PARAMETERS: Final = 3
"""Shifts of a gene: log-odds of being expressed, mean of the expressed values in s.d., log of their s.d."""


@dataclass(frozen=True)
class EffectFit:
    """A Gaussian process over conditions and populations of controls, fitted to the training cells.

    Parameters
    ----------
    relevance
        Of every feature of a condition, shape `(n_features,)`.
    specific
        1 for features that tell targets apart, 0 for those of all perturbations of a kind, shape `(n_features,)`.
    features
        Of every trained condition, shape `(n_trained, n_features)`.
    profiles
        Rows of length one that tell how the populations differ, shape `(n_populations, n_genes)`.
    centre
        Mean profile of the populations, shape `(n_genes,)`.
    population_share
        Which share of an effect is particular to populations, shape `()`.
    coefficients
        Kernel times coefficients is the expected effect, shape `(n_trained, n_populations, 3, n_genes)`.
    precision
        Inverse covariance of the measured conditions at a typical size of effects, shape `(n_trained, n_trained)`.
    half_doses
        Doses in uM at which the trained drugs, and last any other, have half of their effect, shape
        `(n_trained_drugs + 1,)`.
    slopes
        Hill slopes of their dose-responses, of the same shape.
    molecular_similarity
        How far drugs with similar molecules act alike: sharpness, and the similarity that counts more than nothing; shape
        `(2,)`.
    own
        Shifts of each gene where it is the target, beside the rest, shape `(3, n_genes)`.
    """

    relevance: Tensor
    specific: Tensor
    features: Tensor
    profiles: Tensor
    centre: Tensor
    population_share: Tensor
    coefficients: Tensor
    precision: Tensor
    half_doses: Tensor = field(default_factory=lambda: torch.ones(1))
    slopes: Tensor = field(default_factory=lambda: torch.ones(1))
    molecular_similarity: Tensor = field(default_factory=lambda: torch.tensor([4.0, 0.5]))
    own: Tensor = field(default_factory=lambda: torch.zeros(N_PARAMETERS, 0))

    @classmethod
    def empty(
        cls, n_trained: int, n_features: int, n_populations: int, n_genes: int, n_trained_drugs: int = 0
    ) -> EffectFit:
        """Get placeholders of the right shapes, to be overwritten by a saved model."""
        shapes = (
            (n_features,),
            (n_features,),
            (n_trained, n_features),
            (n_populations, n_genes),
            (n_genes,),
            (),
            (n_trained, n_populations, N_PARAMETERS, n_genes),
            (n_trained, n_trained),
            (n_trained_drugs + 1,),
            (n_trained_drugs + 1,),
            (2,),
            (N_PARAMETERS, n_genes),
        )
        return cls(*(torch.zeros(shape) for shape in shapes))


class ExpectedEffects(nn.Module):
    """Expected effects of any condition in any population of controls; exactly none for the control.

    Parameters
    ----------
    fit
        What was learnt from the training cells.
    """

    def __init__(self, fit: EffectFit) -> None:
        super().__init__()
        for f in fields(fit):
            # In one layout, fitted or loaded: products round alike.
            self.register_buffer(f.name, getattr(fit, f.name).clone(memory_format=torch.contiguous_format))
        self.relevance: Tensor
        self.specific: Tensor
        self.features: Tensor
        self.profiles: Tensor
        self.centre: Tensor
        self.population_share: Tensor
        self.coefficients: Tensor
        self.precision: Tensor
        self.half_doses: Tensor
        self.slopes: Tensor
        self.molecular_similarity: Tensor
        self.own: Tensor

    @in_full_precision
    def forward(self, features: Tensor, node: Tensor, profiles: Tensor) -> Tensor:
        """Get the expected shifts.

        Parameters
        ----------
        features
            Of the conditions, shape `(n, n_features)`.
        node
            Nodes of their targets, the measured genes first, -1 for what is none, shape `(n, n_slots)`.
        profiles
            Mean expression of the populations of controls, shape `(n, n_genes)`.

        Returns
        -------
        Shifts of log-odds, of the base in s.d. and of the log s.d., shape `(n, 3, n_genes)`.
        """
        alike = functional.normalize(profiles - self.centre, dim=-1, eps=1e-6) @ self.profiles.T  # (n, n_populations)
        of_populations = 1.0 - self.population_share + self.population_share * alike
        kernel = self._kernel(features)[:, :, None] * of_populations[:, None]  # (n, n_trained, n_populations)
        shifts = (kernel.flatten(1) @ self.coefficients.flatten(0, 1).flatten(1)).unflatten(-1, (N_PARAMETERS, -1))
        is_measured = (node >= 0) & (node < shifts.shape[-1])
        gene = torch.where(is_measured, node, 0)  # (n, n_slots)
        own = (self.own[:, gene] * is_measured).movedim(0, 1)  # (n, 3, n_slots)
        return shifts.scatter_add(-1, gene[:, None].expand_as(own), own)

    @in_full_precision
    def support(self, features: Tensor) -> Tensor:
        """Get how far the effects of conditions follow from those of the trained ones, in [0, 1], shape `(n,)`.

        1 for a trained condition and the control. For any other, which share of the variance that is specific to its
        targets the trained ones explain. What is not known of a target counts as unexplained: its variance is at least
        that of a typical trained condition.
        """
        specific = features * self.specific
        kernel = self._kernel(specific)
        explained = ((kernel @ self.precision) * kernel).sum(-1)
        typical = ((self.features * self.specific).square() @ self.relevance).mean()
        prior = (specific.square() @ self.relevance).maximum(typical).clamp(min=1e-12)
        return torch.where(self._distance(features).amin(-1) == 0, 1.0, (explained / prior).clamp(0.0, 1.0))

    @in_full_precision
    def transferred(self, features: Tensor, values: Tensor) -> Tensor:
        """Get what a quantity is expected to be in conditions, from its values in the trained ones, shape `(n,)`.

        The own value for a trained condition, and that of the nearest dose for other doses, whose features are parallel; 0 for
        the control and where nothing is known. Features fade with the dose, and effects with them, but not this. It never
        exceeds what all trained ones have.
        """
        kernel = self._kernel(features)
        size, of_trained = ((of.square() @ self.relevance).sqrt() for of in (features, self.features))
        distance = self._distance(features)[:, :-1]
        has_own = self._is_parallel(features, kernel) | (distance == 0)
        nearest = distance.masked_fill(~has_own, torch.inf).argmin(-1)
        weights = kernel @ self.precision
        carried, of_one = weights @ (values * of_trained), weights @ of_trained
        return torch.where(
            has_own.any(-1) & (size > 0), values[nearest], carried / of_one.maximum(size).clamp(min=1e-6)
        )

    @in_full_precision
    def is_trained_at_a_dose(self, features: Tensor) -> Tensor:
        """Tell whether conditions were trained, at this or another dose, shape `(n,)`."""
        return self._is_parallel(features, self._kernel(features)).any(-1)

    def _is_parallel(self, features: Tensor, kernel: Tensor) -> Tensor:
        """Whether conditions are trained ones or other doses of them, whose features are parallel, (n, n_trained)."""
        size, of_trained = ((of.square() @ self.relevance).sqrt() for of in (features, self.features))
        return (kernel > 0) & (kernel > (1.0 - 1e-5) * size[:, None] * of_trained)

    def _distance(self, features: Tensor) -> Tensor:
        """Distance of features to those of the trained conditions and, last, the control, (n, n_trained + 1)."""
        known = torch.cat([self.features, torch.zeros_like(features[:1])])
        # not by a matrix product, which rounds: the distance to itself is 0
        return torch.cdist(features, known, compute_mode="donot_use_mm_for_euclid_dist")

    def _kernel(self, features: Tensor) -> Tensor:
        """Covariance with the trained conditions, (n, n_trained)."""
        return (features * self.relevance) @ self.features.T
