"""The house has floors: a file imports only from floors below its own, and no file grows too large to be read."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import unlasting

SOURCE = Path(unlasting.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))

FLOORS = {
    "_constants": 0,
    "_errors": 0,
    "_perturbation": 0,
    "_keys": 0,
    "_logging": 0,
    "_compat": 0,
    "_doctor": 8,
    "_cells": 0,
    "_counts": 0,
    "_direction": 0,
    "_files": 0,
    "_numbers": 0,
    "_chemistry": 0,
    "diffusion": 1,
    "metrics": 1,
    "nn": 2,
    "module": 3,
    "data": 3,
    "pp": 3,
    "train": 4,
    "model": 5,
    "baselines": 5,
    "tl": 6,
    "pl": 7,
    "io": 7,
    "datasets": 8,
    "cli": 9,
    "__init__": 10,
}

FORBIDDEN = {
    "diffusion": {"anndata", "scanpy", "scvi", "pandas"},
    "metrics": {"anndata", "scanpy", "scvi", "torch"},
    "nn": {"anndata", "scanpy", "scvi", "lightning"},
    "module": {"anndata", "scanpy", "lightning"},
    "tl": {"torch", "scvi", "lightning"},
    "io": {"torch", "scvi", "lightning"},
    "pl": {"torch", "scvi", "lightning", "scanpy", "scipy", "sklearn"},
}
"""What a room must not know, beyond its floor."""


def room(file: Path) -> str:
    return file.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(file: Path) -> set[str]:
    """Dotted names of everything that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def name_of(file: Path) -> str:
    return str(file.relative_to(SOURCE))


def test_every_room_has_a_floor():
    assert {room(file) for file in FILES} <= set(FLOORS)


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_imports_only_from_floors_below(file):
    own = room(file)
    parts = [name.split(".") for name in imports(file)]
    rooms = {name[1] for name in parts if name[0] == "unlasting" and len(name) > 1 and name[1] in FLOORS}
    too_high = sorted(other for other in rooms - {own} if FLOORS[other] >= max(FLOORS[own], 1))
    assert not too_high, f"{name_of(file)} (floor {FLOORS[own]}) imports {too_high}"


@pytest.mark.parametrize("file", [f for f in FILES if room(f) in FORBIDDEN], ids=name_of)
def test_knows_no_more_than_its_room(file):
    known = {name.split(".")[0] for name in imports(file)} & FORBIDDEN[room(file)]
    assert not known, f"{name_of(file)} imports {sorted(known)}"


def test_private_names_of_scvi_are_in_one_file():
    private = {
        name_of(file): sorted(n for n in imports(file) if n.startswith("scvi.") and "._" in n)
        for file in FILES
        if room(file) != "_compat"
    }
    assert {file: names for file, names in private.items() if names} == {}


def test_messages_for_people_are_not_quoted():
    """A bare `KeyError` shows its message in quotes."""
    bare = {name_of(file) for file in FILES if "raise KeyError(" in file.read_text(encoding="utf-8")}
    assert bare == set()


def test_no_file_is_too_large():
    lengths = {name_of(file): len(file.read_text(encoding="utf-8").splitlines()) for file in FILES}
    assert {file: n for file, n in lengths.items() if n > 500} == {}
