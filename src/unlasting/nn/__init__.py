"""The networks: graph attention, conditions, denoiser and mask network."""

from unlasting.nn._architecture import GRAPH_OPTIONS, Architecture
from unlasting.nn._attention import MessagePassingLayer, SharedGraph, SharedGraphAttention
from unlasting.nn._base import ConditionedNetwork
from unlasting.nn._conditions import ConditionEncoder, dose_gate
from unlasting.nn._denoiser import Denoiser
from unlasting.nn._grn_block import GRNBlock
from unlasting.nn._mask_network import MaskNetwork
from unlasting.nn._molecules import MoleculeEncoder, MoleculeFusion

__all__ = [
    "Architecture",
    "GRAPH_OPTIONS",
    "ConditionEncoder",
    "ConditionedNetwork",
    "Denoiser",
    "GRNBlock",
    "MaskNetwork",
    "MessagePassingLayer",
    "MoleculeEncoder",
    "MoleculeFusion",
    "SharedGraph",
    "SharedGraphAttention",
    "dose_gate",
]
