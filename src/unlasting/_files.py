"""Files that are whole or absent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL = ".partial-"
"""How the names of files begin that are not complete."""


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Give a file beside another to write to, which takes its place when it is complete."""
    partial = file.with_name(f"{PARTIAL}{file.name}")
    try:
        yield partial
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
