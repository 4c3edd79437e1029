"""A file imports only from packages above its own in the layout, or from its own package."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import unlasting

ROOT = Path(__file__).parents[1]
SOURCE = Path(unlasting.__file__).parent
FILES = {str(file.relative_to(SOURCE)): file for file in sorted(SOURCE.rglob("*.py"))}

ORDER = [
    {"_compat", "_docs", "_files", "_numba"},
    {"screen"},
    {"pp"},
    {"data"},
    {"effects"},
    {"diffusion"},
    {"nn"},
    {"module"},
    {"train"},
    {"model"},
    {"metrics"},
    {"baselines"},
    {"tl"},
    {"pl", "datasets"},
    {"io"},
    {"_doctor", "_report", "_reproduce", "report"},
    {"cli"},
    {"__init__"},
]
LEVEL = {package: level for level, packages in enumerate(ORDER) for package in packages}

FORBIDDEN = {
    "effects": {"anndata", "scanpy", "scvi", "lightning"},
    "diffusion": {"anndata", "scanpy", "scvi", "pandas"},
    "metrics": {"anndata", "scanpy", "scvi", "torch"},
    "nn": {"anndata", "scanpy", "scvi", "lightning"},
    "module": {"anndata", "scanpy", "lightning"},
    "tl": {"torch", "scvi", "lightning"},
    "io": {"torch", "scvi", "lightning"},
    "pl": {"torch", "scvi", "lightning", "scanpy", "scipy", "sklearn"},
}
"""Libraries that a package does without."""


def package(name: str) -> str:
    return Path(name).parts[0].removesuffix(".py")


def imports(file: Path) -> set[str]:
    """Dotted names of all imports in a file, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


IMPORTS = {name: imports(file) for name, file in FILES.items()}


def test_every_package_has_a_level():
    assert {package(name) for name in FILES} <= set(LEVEL)


def test_imports_only_from_packages_above():
    wrong = {}
    for name, found in IMPORTS.items():
        parts = [dotted.split(".") for dotted in found]
        others = {p[1] for p in parts if p[0] == "unlasting" and len(p) > 1 and p[1] in LEVEL} - {package(name)}
        wrong[name] = sorted(other for other in others if LEVEL[other] >= LEVEL[package(name)])
    assert {name: others for name, others in wrong.items() if others} == {}


def test_no_package_imports_a_library_that_it_does_without():
    wrong = {
        name: sorted({dotted.split(".")[0] for dotted in found} & FORBIDDEN.get(package(name), set()))
        for name, found in IMPORTS.items()
    }
    assert {name: libraries for name, libraries in wrong.items() if libraries} == {}


def test_private_names_of_scvi_are_in_one_file():
    private = {
        name: sorted(n for n in found if n.startswith("scvi.") and "._" in n)
        for name, found in IMPORTS.items()
        if package(name) != "_compat"
    }
    assert {name: names for name, names in private.items() if names} == {}


def test_messages_for_people_are_not_quoted():
    """A bare `KeyError` shows its message in quotes."""
    assert [name for name, file in FILES.items() if "raise KeyError(" in file.read_text(encoding="utf-8")] == []


def test_the_tests_use_few_private_modules():
    statement = re.compile(r"^ *(?:from|import) unlasting\b(?:[^\n(]|\([^)]*\))*", re.M)
    files = [
        file
        for file in sorted((ROOT / "tests").rglob("*.py"))
        if any(re.search(r"\b_(?!_)", found) for found in statement.findall(file.read_text(encoding="utf-8")))
    ]  # only these are parsed
    found = [(file.name, name) for file in files for name in imports(file)]
    private = {(file, name.rsplit(".", 1)[0]) for file, name in found if re.search(r"^unlasting\..*\b_(?!_)", name)}
    assert len(private) <= 10, sorted(private)


def test_contributing_has_the_layout():
    """The table in CONTRIBUTING lists each package, in the order of the imports."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = [re.findall(r"`(\w+)`", row) for row in re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", text, re.M)]
    listed = [name for row in rows for name in row]
    assert sorted(listed, key=LEVEL.__getitem__) == listed
    assert {package(name) for name in FILES} - {"__init__"} <= set(listed)
