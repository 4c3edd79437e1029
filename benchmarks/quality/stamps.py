"""Record for each part of a table the code that scored it, so that a page never mixes models.

    python benchmarks/quality/stamps.py rows P1 K1    # these rows were scored with the code as it is now

`results/stamps.csv` has a line for each part of a table: version of the package, commit, date and a fingerprint of the
modules that determine scores. Comments, documentation and messages are no part of the fingerprint.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import os
import subprocess
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

RESULTS = Path(os.environ.get("RESULTS", Path(__file__).parent / "results"))
STAMPS = RESULTS / "stamps.csv"
ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "unlasting"
PACKAGES = ("screen", "pp", "data", "effects", "diffusion", "nn", "module", "train", "model", "metrics", "baselines")
PACKAGES += ("datasets",)
EVALUATION = ("benchmark", "comparison", "differential", "evaluate", "evaluator", "protocol", "screen", "tables")
EVALUATION += ("uncertainty", "vcc2026")
"""Modules of `tl` behind every score; the others only describe cells."""
COLUMNS = ["table", "part", "version", "commit", "date", "model"]


def fingerprint() -> str:
    """Get eight hexadecimal digits of the names, numbers and structure in the modules that determine scores."""
    digest = hashlib.sha256()
    files = [file for package in PACKAGES for file in (SOURCE / package).rglob("*.py")]
    files += [SOURCE / "tl" / f"_{name}.py" for name in EVALUATION]
    for file in sorted(files):
        digest.update(file.relative_to(SOURCE).as_posix().encode())
        for word in words(file.read_text(encoding="utf-8")):
            digest.update(word.encode())
    return digest.hexdigest()[:8]


def words(code: str) -> Iterator[str]:
    """List the nodes of a module with their names and values, without texts for people."""
    for node in ast.walk(ast.parse(code)):
        values = [value for _, value in ast.iter_fields(node) if isinstance(value, str | int | float | complex)]
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value
        yield f"{type(node).__name__}{[] if is_text else values};"


def present() -> dict[str, str]:
    """Describe the code as it is now; a plus after the commit stands for changes that are not committed."""
    import unlasting

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False).stdout

    commit = git("rev-parse", "--short", "HEAD").strip() or "unknown"
    changed = git("status", "--porcelain", "--untracked-files=no", "src/unlasting").strip()
    date = datetime.now(UTC).date().isoformat()
    commit += "+" if changed else ""
    return {"version": unlasting.__version__, "commit": commit, "date": date, "model": fingerprint()}


def stored() -> pd.DataFrame:
    """Read the stamps."""
    return pd.read_csv(STAMPS, dtype=str, keep_default_na=False) if STAMPS.exists() else pd.DataFrame(columns=COLUMNS)


def stamp(table: str, parts: Iterable[str]) -> None:
    """Record that these parts of a table were scored with the code as it is now."""
    parts, old = list(parts), stored()
    kept = old[~((old["table"] == table) & old["part"].isin(parts))]
    new = pd.DataFrame([{"table": table, "part": part, **present()} for part in parts], columns=COLUMNS)
    frame = pd.concat([kept, new]).sort_values(["table", "part"], kind="stable")
    frame.to_csv(STAMPS, index=False)


def finished(table: str) -> set[str]:
    """List the parts of a table that were scored with this model."""
    stamps = stored()
    return set(stamps.loc[(stamps["table"] == table) & (stamps["model"] == fingerprint()), "part"])


def one_model(tables: dict[str, Iterable[str]]) -> pd.Series:
    """Get the stamp that all parts of all tables share, with the latest date; refuse tables from several models."""
    stamps, every = stored(), [(table, part) for table, parts in tables.items() for part in parts]
    found = stamps.set_index(["table", "part"]).reindex(every)
    without = [" ".join(place) for place in found.index[found["model"].isna()]]
    if without:
        raise ValueError(
            f"{', '.join(without)}: without a stamp. Run `make results DATA=FOLDER`, or name the parts in "
            "`python benchmarks/quality/stamps.py TABLE PART ...` if the present code scored them."
        )
    if found["model"].nunique() > 1:
        models = [f"{model} ({', '.join(' '.join(p) for p in part.index)})" for model, part in found.groupby("model")]
        raise ValueError(f"The tables are from several models: {'; '.join(models)}. Run `make results DATA=FOLDER`.")
    return found.sort_values("date").iloc[-1]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table")
    parser.add_argument("parts", nargs="+")
    arguments = parser.parse_args()
    stamp(arguments.table, arguments.parts)
    print(stored().to_string(index=False))
