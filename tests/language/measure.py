"""Measure the language of docstrings, README and documentation.

python tests/language/measure.py [PACKAGE ...]    # a line for each package: words, "what" and "of" per 1,000, findings
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "unlasting"
PATTERNS = [
    line for line in (Path(__file__).parent / "dialect.txt").read_text(encoding="utf-8").splitlines() if line[:1] != "#"
]
ANY = re.compile("|".join(f"(?:{pattern})" for pattern in PATTERNS), re.I)


@cache
def parsed(file: Path) -> tuple[ast.AST, ...]:
    """Parse a file once, into all its nodes."""
    return tuple(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))


def docstrings(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Yield the docstrings of a file, those of attributes too."""
    for node in nodes:
        body = getattr(node, "body", None)
        for child in body if isinstance(body, list) else []:
            if (
                isinstance(child, ast.Expr)
                and isinstance(child.value, ast.Constant)
                and isinstance(child.value.value, str)
            ):
                yield child.value.value


def identifiers(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Yield the names that a file defines."""
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def texts(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Yield all strings of a file: messages, docstrings and keys."""
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def prose(markdown: str) -> str:
    """Leave out code, tables' rules, links' targets and pictures."""
    text = re.sub(r"```.*?```", " ", markdown, flags=re.S)
    text = re.sub(r"`[^`\n]*`", " X ", text)
    return re.sub(r"\]\([^)]*\)|<[^>]*>", " ", text)


def pages() -> list[Path]:
    """List README and the pages of the documentation, without the changelog."""
    docs = [p for p in (ROOT / "docs").rglob("*.md") if "_build" not in p.parts and "generated" not in p.parts]
    return [ROOT / "README.md", *sorted(p for p in docs if p.name != "changelog.md")]


def rates(words: list[str]) -> dict[str, float]:
    """Count "what" and "of" per 1,000 words."""
    lower = [word.lower() for word in words]
    return {name: 1000 * lower.count(name) / max(len(lower), 1) for name in ("what", "of")}


def findings(strings: Iterator[str] | list[str]) -> list[str]:
    """List the strings that contain a word of the dialect, with the pattern."""
    found = []
    for text in filter(ANY.search, strings):
        for pattern in PATTERNS:
            match = re.search(pattern, text, flags=re.I)
            if match:
                start = max(match.start() - 30, 0)
                found.append(f"{pattern}: ...{text[start : match.end() + 30]!r}")
    return found


def words_of_docstrings(files: list[Path]) -> list[str]:
    """List the words of all docstrings."""
    texts = (text for file in files for text in docstrings(parsed(file)))
    return [word for text in texts for word in re.findall(r"[A-Za-z']+", text)]


def words_of_pages() -> list[str]:
    """List the words of README and the documentation."""
    return [word for page in pages() for word in re.findall(r"[A-Za-z']+", prose(page.read_text(encoding="utf-8")))]


if __name__ == "__main__":
    wanted = sys.argv[1:] or sorted(
        p.name for p in SOURCE.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()
    )
    for name in wanted:
        place = SOURCE / name
        files = [place] if place.suffix == ".py" else sorted(place.rglob("*.py"))
        words = words_of_docstrings(files)
        n_lines = sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)
        parts = [(file, parsed(file)) for file in files]
        bad = [
            f"  {f.relative_to(SOURCE)} {x}"
            for f, nodes in parts
            for x in findings([*identifiers(nodes), *texts(nodes)])
        ]
        rate = rates(words)
        print(
            f"{name}: {n_lines} lines, {len(words)} words, what {rate['what']:.1f}, of {rate['of']:.1f}, {len(bad)} findings"
        )
        if sys.argv[1:]:
            print("\n".join(bad))
    words = words_of_pages()
    rate = rates(words)
    print(f"pages: {len(words)} words, what {rate['what']:.1f}, of {rate['of']:.1f}")
