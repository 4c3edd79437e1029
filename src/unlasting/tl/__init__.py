"""Evaluation and use of generated cells: AnnData in, tidy frame out."""

from unlasting.tl._ablate import ablate
from unlasting.tl._benchmark import benchmark
from unlasting.tl._bimodality import bimodality
from unlasting.tl._calibration import calibration
from unlasting.tl._design import design
from unlasting.tl._diagnose import diagnose
from unlasting.tl._dose_response import dose_response
from unlasting.tl._embedding import embedding
from unlasting.tl._enrich import enrich
from unlasting.tl._evaluate import evaluate
from unlasting.tl._grn import grn
from unlasting.tl._rank import rank
from unlasting.tl._responders import responders

__all__ = [
    "ablate",
    "benchmark",
    "bimodality",
    "calibration",
    "design",
    "diagnose",
    "dose_response",
    "embedding",
    "enrich",
    "evaluate",
    "grn",
    "rank",
    "responders",
]
