"""Figures from the results stored by `tl`, `pp` and training.

Every function takes `ax` (axes to draw in, divided for several panels), `figsize` (inches), `show`, `save` (a file; its
ending selects the format) and `return_fig`. It returns the axes, the figure with `return_fig=True`, or nothing after
showing. Figures are shown by default in interactive sessions without `ax`.
"""

from unlasting.pl._bimodal_genes import bimodal_genes
from unlasting.pl._design import design
from unlasting.pl._dose_response import dose_response
from unlasting.pl._effects import calibration, heatmap
from unlasting.pl._embedding import embedding
from unlasting.pl._grn import grn
from unlasting.pl._history import history
from unlasting.pl._rank import rank
from unlasting.pl._scores import scores

__all__ = [
    "bimodal_genes",
    "calibration",
    "design",
    "dose_response",
    "embedding",
    "grn",
    "heatmap",
    "history",
    "rank",
    "scores",
]
