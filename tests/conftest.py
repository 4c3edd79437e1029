"""Settings for all tests: no window opens, and progress bars stay out of the report."""

import gc
import os

gc.disable()  # while modules are imported, whose objects all stay: a sixth of the time of collection

# The arrays of the tests are tiny: more threads would only wait for each other. Set before the first import of numpy.
# OpenMP in numba raises the number of threads of torch too.
for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(name, "1")

from hypothesis import settings  # noqa: E402

os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("TQDM_DISABLE", "1")

# In CI the same code gives the same result; elsewhere hypothesis goes on looking for new cases.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


def pytest_collection_finish() -> None:
    """Keep the imported libraries out of every later garbage collection, which is a tenth of the time."""
    gc.freeze()
    gc.enable()
