"""What holds for all tests: no window opens, and progress bars stay out of the report."""

import os

os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("TQDM_DISABLE", "1")
