"""Facts about the package are the same in all files that state them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PYTHONS = sorted(
    (found[1] for line in PROJECT["classifiers"] if (found := re.search(r"Python :: (3\.\d+)$", line))),
    key=lambda version: int(version[2:]),
)


def entry(file: str, key: str) -> str:
    """Get a value of one line of a YAML file."""
    found = re.search(rf"^{key}: *(.+)$", (ROOT / file).read_text(encoding="utf-8"), re.M)
    assert found, f"{file} has no {key!r}"
    return found[1].strip("\"'")


def test_files_agree_with_the_package():
    for file in ("CITATION.cff", ".github/ecosystem/meta.yaml"):
        for key in ("version", "license"):
            assert entry(file, key) == PROJECT[key], (file, key)


def test_no_hard_dependency_has_a_copyleft_licence():
    """`diptest` is under the GPL, and so an extra."""
    assert not any(requirement.startswith("diptest") for requirement in PROJECT["dependencies"])
    assert any(requirement.startswith("torch-geometric") for requirement in PROJECT["dependencies"])


def test_the_ecosystem_entry_describes_the_package():
    assert entry(".github/ecosystem/meta.yaml", "name") == PROJECT["name"]
    assert entry(".github/ecosystem/meta.yaml", "description") == PROJECT["description"]
    logo = ROOT / ".github" / "ecosystem" / entry(".github/ecosystem/meta.yaml", "logo")
    assert logo.read_bytes() == (ROOT / "docs" / "_static" / "logo.svg").read_bytes()


def test_every_supported_python_is_tested():
    workflow = (ROOT / ".github" / "workflows" / "test.yaml").read_text(encoding="utf-8")
    assert PROJECT["requires-python"] == f">={PYTHONS[0]}"
    assert f"python: {str(PYTHONS).replace(chr(39), chr(34))}" in workflow


def test_the_package_is_typed_and_its_screens_are_small():
    source = ROOT / "src" / "unlasting"
    assert (source / "py.typed").is_file()
    assert sum(file.stat().st_size for file in (source / "datasets" / "_data").iterdir()) < 8e6
