"""Files and folders that are complete or absent, whenever a process ends."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL = ".partial-"
"""Prefix of incomplete files and folders."""

_BEFORE = ".before-"
"""Prefix of a folder set aside for a new one."""

_FULL = 64 * 1024
"""Free bytes below which an error while writing means a full disk."""


@contextmanager
def replacing(file: Path, partial: Path | None = None) -> Iterator[Path]:
    """Yield a temporary file, by default beside another, which takes its place when complete."""
    if partial is None:
        partial = file.with_name(f"{PARTIAL}{file.name}")
    try:
        with _disk_errors(file):
            yield partial
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside another, which takes its place when complete.

    Only Linux exchanges two folders in one step. Here the old one is set aside under a name where :func:`standing` finds
    it until the new one has its place. A kill at any moment thus leaves the old or the new folder complete.
    """
    partial, before = (folder.with_name(f"{start}{folder.name}") for start in (PARTIAL, _BEFORE))
    if standing(folder) == before:
        before.rename(folder)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with _disk_errors(folder):
            partial.mkdir()
            yield partial
        drop_folder(before)
        if folder.exists():
            folder.rename(before)
        try:
            partial.rename(folder)
        except OSError:
            if before.exists():
                before.rename(folder)
            raise
        drop_folder(before)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def standing(folder: Path) -> Path:
    """Find a folder, or the one set aside for it by a process that was killed."""
    before = folder.with_name(f"{_BEFORE}{folder.name}")
    return before if before.exists() and not folder.exists() else folder


def drop_folder(folder: Path) -> None:
    """Remove a folder, if present. It loses its name first, so that a kill leaves no half of it."""
    dropped = folder.with_name(f"{PARTIAL}{folder.name}")
    shutil.rmtree(dropped, ignore_errors=True)
    if folder.exists():
        folder.rename(dropped)
        shutil.rmtree(dropped)


def is_disk_full(error: BaseException, place: Path) -> bool:
    """Whether an error while writing a file or folder means a full disk."""
    return getattr(error, "errno", None) == errno.ENOSPC or shutil.disk_usage(place.parent).free <= _FULL


@contextmanager
def _disk_errors(place: Path) -> Iterator[None]:
    """Raise one error for a full disk: HDF5 reports it in its own ways, without an error number."""
    try:
        yield
    except Exception as error:
        if not is_disk_full(error, place):
            raise
        raise OSError(
            errno.ENOSPC,
            "No space left on the disk. Free some, or choose another place; earlier files are kept",
            str(place),
        ) from error
