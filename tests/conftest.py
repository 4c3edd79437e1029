"""Settings for all tests: no window opens, and progress bars stay out of the report."""

import gc
import os

from hypothesis import settings

os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("TQDM_DISABLE", "1")

# In CI the same code gives the same result; elsewhere hypothesis goes on looking for new cases.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


def pytest_collection_finish() -> None:
    """Keep the imported libraries out of every later garbage collection, which is a tenth of the time."""
    gc.collect()
    gc.freeze()
