"""Figures of what `tl`, `pp` and the training have stored; nothing is computed here.

Every function takes `ax` (axes to draw in), `figsize` (inches), `show`, `save` (a file, its ending gives the format)
and `return_fig`. It returns the axes, the figure with `return_fig=True`, or nothing if the figure was shown. Figures
are shown by default in interactive sessions, if no `ax` is given.
"""

from unlasting.pl._bimodal_genes import bimodal_genes
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
    "dose_response",
    "embedding",
    "grn",
    "heatmap",
    "history",
    "rank",
    "scores",
]
