"""The language of README, documentation, docstrings and messages follows the contract: plain sentences in the field's words."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location("measure", ROOT / "tests" / "language" / "measure.py")
assert spec is not None
assert spec.loader is not None
measure = importlib.util.module_from_spec(spec)
spec.loader.exec_module(measure)

FILES = sorted(measure.SOURCE.rglob("*.py"))
README = (ROOT / "README.md").read_text(encoding="utf-8")


def sentences(markdown: str) -> list[str]:
    """Split text into sentences: tables and headings are none, and an item of a list ends one."""
    lines = [line for line in measure.prose(markdown).splitlines() if not re.match(r"\s*(\||#)", line)]
    blocks = re.split(r"\n\s*\n|\n(?=\s*(?:[-*:]|\d+\.) )", "\n".join(lines))
    found = [text.strip() for block in blocks for text in re.split(r"(?<=[.!?])\s+", " ".join(block.split()))]
    return [text for text in found if re.search(r"[A-Za-z]{2}", text)]


def lengths(markdown: str) -> dict[str, int]:
    return {text: len(re.findall(r"[A-Za-z0-9']+", text)) for text in sentences(markdown)}


def test_few_clauses_with_what_and_few_chains_with_of():
    words = measure.words_of_docstrings(FILES) + measure.words_of_pages()
    rates = measure.rates(words)
    assert rates["what"] <= 1.5, rates
    assert rates["of"] <= 28, rates


def test_sentences_of_the_readme_are_short():
    found = lengths(README)
    assert {text: n for text, n in found.items() if n > 25} == {}
    assert sum(found.values()) / len(found) <= 15


def test_sentences_are_told_apart():
    found = lengths("# A heading\n\nOne two. Three `f(x)` four: five\nsix.\n\n- seven eight\n- nine ten\n\n| a | b |\n")
    assert found == {"One two.": 2, "Three X four: five six.": 5, "- seven eight": 2, "- nine ten": 2}


def test_the_old_words_are_gone_from_names_and_messages():
    found = []
    for file in FILES:
        nodes = measure.parsed(file)
        texts = [*measure.identifiers(nodes), *measure.texts(nodes)]
        found += [f"{file.relative_to(measure.SOURCE)}: {finding}" for finding in measure.findings(texts)]
    assert found == []


def test_the_old_words_are_gone_from_the_pages():
    for page in measure.pages():
        text = measure.prose(page.read_text(encoding="utf-8"))
        assert measure.findings([text]) == [], page.name


def test_the_old_words_are_found_where_they_are():
    for text in ("the pool of cells", "cells that escaped", "own shifts", "carries over", "whole_counts", "of_target"):
        assert measure.findings([text]), text
    for text in ("pooled cells", "similarity", "mean shift", "carbon"):
        assert measure.findings([text]) == [], text
