"""Options that several commands share, each defined once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import typer

SPLITS = (
    "random", "unseen_perturbation", "leave_one_out", "unseen_combo", "unseen_drug", "unseen_dose", "unseen_drug_and_dose",
    "unseen_cell_type", "unseen_pair", "reference",
)  # fmt: skip
PRESETS = ("default", "paper", "paper-as-printed")
MODES = ("knockout", "knockdown", "activation")
CELLS = ("test", "all")
ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")
FOLDER_OF_MODEL = Path("unlasting_model")


def choice(names: Sequence[str], help: str, *flags: str, check: Callable[[str], str] = str) -> Any:
    """Make an option with a few values, which are checked and completed before the package is imported."""

    def refuse_others(value: str | None) -> str | None:
        if value is None or value in names:
            return value if value is None else check(value)
        near = get_close_matches(value, names, n=1)
        meant = f" Did you mean {near[0]!r}?" if near else ""
        raise typer.BadParameter(f"{value!r} is none of {', '.join(names)}.{meant}")

    return typer.Option(
        *flags, help=f"{help} Values: {', '.join(names)}.", callback=refuse_others, autocompletion=lambda: list(names)
    )


def _present(name: str) -> str:
    """Refuse a missing device before the computation."""
    if name in ("auto", "cpu"):
        return name
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    there["gpu"] = any(there.values())
    if not there[name]:
        raise typer.BadParameter(f"there is no {name!r} here; `unlasting doctor` names the devices.")
    return name


File = Annotated[Path, typer.Argument(help="A screen as h5ad or zarr.", exists=True, show_default=False)]
Model = Annotated[Path, typer.Option("--model", "-m", help="Folder for the saved model.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Path for the output.")]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing output.")]
AsJson = Annotated[bool, typer.Option("--json", help="Write results and errors as JSON, for other programs.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Write warnings and errors only, and no progress.")]
Seed = Annotated[int, typer.Option(help="Seed for all random numbers.", min=0)]
MaxSteps = Annotated[
    int | None, typer.Option(help="Training steps at most; by default as in the preset. 0: no network.", min=0)
]
Accelerator = Annotated[str, choice(ACCELERATORS, "Device.", check=_present)]
Layer = Annotated[
    str | None, typer.Option(help="Layer of FILE with raw counts, or with log-normalised values; X by default.")
]
SymbolsKey = Annotated[str | None, typer.Option(help="Column of var with gene symbols, if var_names hold others.")]
Perturbations = Annotated[
    list[str] | None, typer.Option("--perturbation", "-p", help="Perturbation for new cells. May be repeated.")
]
Dose = Annotated[
    list[str] | None,
    typer.Option(
        help="Drug dose in uM, or with its unit ('100 nM'): one for all perturbations, one for each, or several for one."
    ),
]
CellTypes = Annotated[
    list[str] | None, typer.Option("--cell-type", help="Cell type of new cells; all by default. May be repeated.")
]
NCells = Annotated[int, typer.Option(help="New cells per perturbation and cell type.", min=1)]

LABELS = {
    "perturbation_key": Annotated[str | None, typer.Option(help="Column of obs with the perturbation.")],
    "control": Annotated[
        list[str] | None,
        typer.Option(help="Label for unperturbed cells, or a pattern such as 'non-targeting*'. May be repeated."),
    ],
    "delimiter": Annotated[str | None, typer.Option(help="Separator between the targets in a combination.")],
    "cell_type_key": Annotated[str | None, typer.Option(help="Column of obs with the cell type.")],
    "batch_key": Annotated[str | None, typer.Option(help="Column of obs with the batch.")],
    "dose_key": Annotated[str | None, typer.Option(help="Column of obs with the dose.")],
    "dose_unit": Annotated[
        str | None, typer.Option(help="Unit of that column, such as nM or 'log10 M'; by default uM.")
    ],
    "smiles_key": Annotated[str | None, typer.Option(help="Column of obs with the SMILES of the drug.")],
    "split_key": Annotated[str | None, typer.Option(help="Column of obs with train, val and test.")],
}
"""Options for the columns with labels."""


def with_labels(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options in `LABELS`; those that are used become its argument `labels`."""
    signature = inspect.signature(function, eval_str=True)

    @functools.wraps(function)
    def command(**options: Any) -> None:
        given = {name: value for name in LABELS if (value := options.pop(name))}
        if len(given.get("control", ())) == 1:
            (given["control"],) = given["control"]
        function(**options, labels=given)

    own = [parameter for name, parameter in signature.parameters.items() if name != "labels"]
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in LABELS.items()
    ]
    every = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own] + added
    command.__signature__ = signature.replace(parameters=every)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in every}
    return command
