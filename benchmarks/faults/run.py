"""Kill and starve what writes files, many times, and count what is lost: nothing should be.

    python benchmarks/faults/run.py --kills 30

Saving, training with a checkpoint and generation to a file are killed at random moments (`tests/model/killed.py`); saving
also at every step that it takes on the disk. On Linux, as root, all of them are then given a disk that is too small.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).parents[2] / "tests" / "model"
CASES = ("saving", "training", "generation")


def run(script: str, *arguments: str) -> dict[str, int]:
    """Run one case in a process of its own, and read its counts."""
    command = [sys.executable, str(TESTS / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Run every case and print what it counted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30, help="Kills of each case.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        for case in CASES:
            folder = Path(place) / case
            folder.mkdir()
            print(f"{case} killed:", run("killed.py", case, str(arguments.kills), str(folder)), flush=True)
        if sys.platform == "linux" and os.geteuid() == 0:
            disk = Path(place) / "disk"
            disk.mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(disk)], check=True)
            try:
                for case in CASES:
                    print(f"{case} on a full disk:", run("starved.py", case, str(disk)), flush=True)
            finally:
                subprocess.run(["umount", str(disk)], check=True)


if __name__ == "__main__":
    main()
