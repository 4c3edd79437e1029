"""The effects model: empirical-Bayes regression of hurdle parameters on conditions and control populations."""

from unlasting.effects._candidates import CandidateCovariance
from unlasting.effects._changes import ExpressionChanges
from unlasting.effects._condition_tensors import NO_DOSE, ConditionTensors, condition_tensors
from unlasting.effects._contexts import ContextKernel
from unlasting.effects._direction import CellBlocks, direction, t_scores
from unlasting.effects._dose import DoseCurves, hill
from unlasting.effects._families import FAMILIES, GENERIC, FeatureFamilies, KernelFamily, probability_to_be_best
from unlasting.effects._features import ConditionFeatures
from unlasting.effects._mixture import NonresponderMixture, ResponseMixture, fit_response_mixture
from unlasting.effects._model import EffectsModel, ExpectedParameters
from unlasting.effects._moments import (
    ControlPopulations,
    HurdleParameters,
    MeasuredEffects,
    ScreenCells,
    ScreenStatistics,
    fit_statistics,
    has_integer_counts,
)
from unlasting.effects._on_target import OnTargetEffects
from unlasting.effects._posterior import (
    FACTORS,
    QUESTIONS,
    EffectMoments,
    EffectPosterior,
    LeftOut,
    LeftOutEffects,
    calibrate,
)
from unlasting.effects._regression import EffectRegression
from unlasting.effects._similarity import MolecularSimilarity
from unlasting.effects._sparsity import EffectEvidence, Sparsity
from unlasting.effects._spectrum import Errors, Spectrum
from unlasting.effects._vocabulary import DRUG, GENE, KINDS, STIMULUS, TargetVocabulary

__all__ = [
    "CellBlocks",
    "DRUG",
    "GENE",
    "KINDS",
    "NO_DOSE",
    "STIMULUS",
    "CandidateCovariance",
    "ConditionFeatures",
    "ConditionTensors",
    "ContextKernel",
    "ControlPopulations",
    "DoseCurves",
    "EffectRegression",
    "EffectsModel",
    "Errors",
    "EffectEvidence",
    "EffectMoments",
    "EffectPosterior",
    "ExpectedParameters",
    "ExpressionChanges",
    "FACTORS",
    "FAMILIES",
    "GENERIC",
    "FeatureFamilies",
    "KernelFamily",
    "LeftOut",
    "LeftOutEffects",
    "HurdleParameters",
    "MeasuredEffects",
    "MolecularSimilarity",
    "NonresponderMixture",
    "OnTargetEffects",
    "QUESTIONS",
    "ResponseMixture",
    "ScreenCells",
    "ScreenStatistics",
    "Sparsity",
    "Spectrum",
    "TargetVocabulary",
    "calibrate",
    "condition_tensors",
    "probability_to_be_best",
    "direction",
    "fit_response_mixture",
    "fit_statistics",
    "has_integer_counts",
    "hill",
    "t_scores",
]
