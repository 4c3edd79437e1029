"""The networks: graph attention, conditions, denoiser and mask network."""

from unlasting.nn._architecture import Architecture
from unlasting.nn._conditions import ConditionEncoder, dose_gate
from unlasting.nn._denoiser import Denoiser
from unlasting.nn._graph_attention import SharedGraph, SharedGraphAttention, weighted_neighbour_sum
from unlasting.nn._grn_block import GRNBlock
from unlasting.nn._mask_network import MaskNetwork
from unlasting.nn._molecules import MoleculeEncoder, MoleculeFusion

__all__ = [
    "Architecture",
    "ConditionEncoder",
    "Denoiser",
    "GRNBlock",
    "MaskNetwork",
    "MoleculeEncoder",
    "MoleculeFusion",
    "SharedGraph",
    "SharedGraphAttention",
    "dose_gate",
    "weighted_neighbour_sum",
]
