"""What holds for all tests: no window opens, and progress bars stay out of the report."""

import os

from hypothesis import settings

os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("TQDM_DISABLE", "1")

# In CI the same code gives the same verdict; elsewhere hypothesis goes on looking for new cases.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: training, killed processes, fuzzing, notebooks")
