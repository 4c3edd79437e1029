"""Processes that are killed at any moment lose nothing. `benchmarks/faults` does the same many more times."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot be forked here")
@pytest.mark.parametrize(("case", "n_kills"), [("saving", 10), ("training", 4), ("generation", 5)])
def test_what_is_killed_loses_nothing(tmp_path, case, n_kills):
    script = Path(__file__).with_name("killed.py")
    command = [sys.executable, str(script), case, str(n_kills), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["kills"] >= n_kills
