"""The effects model: expected effects of perturbations on hurdle parameters, in closed form."""

from unlasting.effects._condition_tensors import ConditionTensors, condition_tensors
from unlasting.effects._direction import direction, t_scores
from unlasting.effects._dose import DoseCurves, fit_dose_curves
from unlasting.effects._expected import EffectFit, ExpectedEffects
from unlasting.effects._features import ConditionFeatures
from unlasting.effects._mixture import fit_responders
from unlasting.effects._moments import MeasuredEffects, fit_statistics, has_integer_counts
from unlasting.effects._on_target import OnTargetEffects
from unlasting.effects._precision import full_precision
from unlasting.effects._regression import fit_effects
from unlasting.effects._responders import ResponderFit, Responders
from unlasting.effects._response import ResponseMixture, fit_response_mixture
from unlasting.effects._similarity import MolecularSimilarity, fit_molecular_similarity
from unlasting.effects._statistics import ControlPopulations, HurdleParameters, ScreenStatistics, StatisticsBuffers
from unlasting.effects._vocabulary import DRUG, GENE, KINDS, NO_DOSE, STIMULUS, TargetVocabulary

__all__ = [
    "ConditionFeatures",
    "ConditionTensors",
    "ControlPopulations",
    "DRUG",
    "DoseCurves",
    "EffectFit",
    "ExpectedEffects",
    "GENE",
    "KINDS",
    "MolecularSimilarity",
    "HurdleParameters",
    "MeasuredEffects",
    "NO_DOSE",
    "OnTargetEffects",
    "ResponderFit",
    "Responders",
    "ResponseMixture",
    "STIMULUS",
    "ScreenStatistics",
    "StatisticsBuffers",
    "TargetVocabulary",
    "condition_tensors",
    "direction",
    "fit_dose_curves",
    "fit_effects",
    "fit_molecular_similarity",
    "fit_responders",
    "fit_response_mixture",
    "fit_statistics",
    "full_precision",
    "has_integer_counts",
    "t_scores",
]
