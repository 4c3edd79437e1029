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


def test_the_conda_recipe_has_the_same_requirements():
    recipe = (ROOT / ".github" / "conda-forge" / "recipe.yaml").read_text(encoding="utf-8")
    run = re.findall(r"^    - (\S+) (\S+)$", recipe.split("  run:\n")[1].split("\ntests:")[0], re.M)
    names = {"pytorch": "torch", "pytorch_geometric": "torch-geometric", "matplotlib-base": "matplotlib"}
    found = [f"{names.get(name, name)}{version}" for name, version in run if name != "python"]
    assert found == PROJECT["dependencies"]
    assert f'version: "{PROJECT["version"]}"' in recipe
    assert f'python_min: "{PYTHONS[0]}"' in recipe
    assert f"summary: {PROJECT['description']}" in recipe
    assert "unlasting = unlasting.cli:app" in recipe


def test_the_page_for_language_models_leads_to_pages():
    page = (ROOT / "docs" / "llms.txt").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)]+)\.html\)", page)
    assert len(links) > 10
    assert [link for link in links if not (ROOT / "docs" / f"{link}.md").exists()] == []
    import unlasting as ul

    calls = re.findall(r"`ul\.(\w+(?:\.\w+)*)`", page)
    for call in calls:
        value = ul
        for name in call.split("."):
            value = getattr(value, name)
