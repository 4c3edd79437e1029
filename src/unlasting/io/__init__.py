"""The field's files: predictions of other tools and published screens in; counts, pairs and challenge files out."""

from unlasting.io._counts import to_counts
from unlasting.io._predictions import TOOLS, read_predictions
from unlasting.io._screens import LAYOUTS, read_screen
from unlasting.io._writers import write_cell_eval, write_vcc

__all__ = ["LAYOUTS", "TOOLS", "read_predictions", "read_screen", "to_counts", "write_cell_eval", "write_vcc"]
