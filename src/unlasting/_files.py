"""Files and folders that are whole or absent, whenever a process ends."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL = ".partial-"
"""How the names of files and folders begin that are not complete."""

_BEFORE = ".before-"
"""How the name of a folder begins that is set aside for a new one."""


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Give a file beside another to write to, which takes its place when it is complete."""
    partial = file.with_name(f"{PARTIAL}{file.name}")
    try:
        with _saying_that_it_is_full(file):
            yield partial
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder beside another to write to, which takes its place when it is complete.

    No system but Linux exchanges two folders in one step. The old one is set aside under a name where :func:`standing`
    finds it as long as nothing has its place, so that after a kill at any moment the old or the new one is found whole.
    """
    partial, before = (folder.with_name(f"{start}{folder.name}") for start in (PARTIAL, _BEFORE))
    if standing(folder) == before:
        before.rename(folder)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with _saying_that_it_is_full(folder):
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
    """Find a folder, or what was set aside for it when a kill came before it took its place."""
    before = folder.with_name(f"{_BEFORE}{folder.name}")
    return before if before.exists() and not folder.exists() else folder


def drop_folder(folder: Path) -> None:
    """Remove a folder, if it is there. It loses its name first, so that a kill leaves no half of it."""
    dropped = folder.with_name(f"{PARTIAL}{folder.name}")
    shutil.rmtree(dropped, ignore_errors=True)
    if folder.exists():
        folder.rename(dropped)
        shutil.rmtree(dropped)


@contextmanager
def _saying_that_it_is_full(place: Path) -> Iterator[None]:
    """Say alike that a disk is full, whoever found out."""
    try:
        yield
    except Exception as error:
        if getattr(error, "errno", None) != errno.ENOSPC and os.strerror(errno.ENOSPC) not in str(error):
            raise
        raise OSError(
            errno.ENOSPC,
            "No space left on the disk. Free some, or choose another place; what was there is kept",
            str(place),
        ) from error
