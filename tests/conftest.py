"""Settings for all tests: no window opens, and progress bars stay out of the report."""

import os

from hypothesis import settings

os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("TQDM_DISABLE", "1")

# In CI the same code gives the same result; elsewhere hypothesis goes on looking for new cases.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")
