from __future__ import annotations

import json
import shlex
from dataclasses import asdict, replace
from typing import Any

import typer

from unlasting.cli._app import command
from unlasting.cli._files import read_cells
from unlasting.cli._options import LABELS, AsJson, File, Layer, Quiet, SymbolsKey, with_labels
from unlasting.cli._wording import with_options


@command
@with_labels
def check(
    file: File,
    labels: dict[str, Any],
    layer: Layer = None,
    symbols_key: SymbolsKey = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Show controls, perturbations, doses, genes, scale and oddities in a screen, and the next command.

    Example: `unlasting check screen.h5ad --perturbation-key target_gene --control NT`
    """
    from unlasting.pp._check import overview

    found = overview(read_cells(file, layer), symbols_key=symbols_key, **labels)
    options = {**labels, "layer": layer, "symbols_key": symbols_key}
    words = ["unlasting", "train", str(file), *(["--split", found.split_kind] if found.split_kind else [])]
    if not found.cells["controls"]:
        words, options["control"] = ["unlasting", "check", str(file)], "LABEL"
    for name, value in options.items():
        for one in value if isinstance(value, list) else [value] if value else []:
            words += [option(name), one]
    found = replace(found, next_call=shlex.join(words))
    names = {name: option(name) for name in options.keys() | LABELS}
    typer.echo(json.dumps(asdict(found), indent=2) if as_json else with_options(str(found), names))


def option(name: str) -> str:
    """Write a parameter as an option."""
    return f"--{name.replace('_', '-')}"
