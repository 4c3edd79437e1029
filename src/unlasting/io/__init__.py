"""The field's files: predictions and published screens in; counts, cell-eval pairs and challenge files out."""

from unlasting.io._counts import to_counts
from unlasting.io._predictions import read_predictions
from unlasting.io._screens import LAYOUTS, read_screen
from unlasting.io._tools import TOOLS
from unlasting.io._writers import write_cell_eval, write_vcc

__all__ = ["LAYOUTS", "TOOLS", "read_predictions", "read_screen", "to_counts", "write_cell_eval", "write_vcc"]
