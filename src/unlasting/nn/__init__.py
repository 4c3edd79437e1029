"""The networks: graph attention, conditions, denoiser and mask network."""

from unlasting.nn._architecture import Architecture
from unlasting.nn._conditions import DRUG, GENE, NO_DOSE, STIMULUS, ConditionEncoder, ConditionTensors, dose_gate
from unlasting.nn._denoiser import Denoiser
from unlasting.nn._effects import N_SHIFTS, EffectFit, ExpectedEffects
from unlasting.nn._graph_attention import SharedGraph, SharedGraphAttention, weighted_neighbour_sum
from unlasting.nn._grn_block import GRNBlock
from unlasting.nn._mask_network import MaskNetwork
from unlasting.nn._molecules import MoleculeEncoder, MoleculeFusion
from unlasting.nn._responders import N_DIRECTION_GENES, ResponderFit, Responders
from unlasting.nn._statistics import ControlPools, Marginals, ScreenStatistics, StatisticsBuffers

__all__ = [
    "N_DIRECTION_GENES",
    "N_SHIFTS",
    "EffectFit",
    "ExpectedEffects",
    "DRUG",
    "GENE",
    "NO_DOSE",
    "STIMULUS",
    "Architecture",
    "ConditionEncoder",
    "ConditionTensors",
    "ControlPools",
    "Denoiser",
    "GRNBlock",
    "Marginals",
    "MaskNetwork",
    "MoleculeEncoder",
    "MoleculeFusion",
    "ResponderFit",
    "Responders",
    "ScreenStatistics",
    "SharedGraph",
    "SharedGraphAttention",
    "StatisticsBuffers",
    "dose_gate",
    "weighted_neighbour_sum",
]
