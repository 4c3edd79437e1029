"""What a perturbation is, and the only place where its label and its doses are parsed."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Container, Iterable
from dataclasses import dataclass

import numpy as np

GEARS_CONTROL_PART = "ctrl"
"""`A+ctrl`, the label that GEARS gives to a single perturbation, means `A`."""

_BETWEEN_DOSES = re.compile(r"(?<![eE])\+")
"""The plus between doses, and not that of `1e+3`."""


@dataclass(frozen=True)
class Perturbation:
    """A set of targets (genes, drugs, stimuli) that are perturbed together; the empty set is the control.

    Parameters
    ----------
    targets
        Names of the targets, each once. They are kept in sorted order, so that `A+B` and `B+A` are equal.
    doses
        The dose of each target in uM, `None` for what has no dose; none by default. A target at dose 0 is left out.
    """

    targets: tuple[str, ...] = ()
    doses: tuple[float | None, ...] = ()

    def __post_init__(self) -> None:
        doses = self.doses or (None,) * len(self.targets)
        given = sorted(
            (pair for pair in zip(self.targets, doses, strict=True) if pair[1] != 0), key=lambda pair: pair[0]
        )
        object.__setattr__(self, "targets", tuple(name for name, _ in given))
        object.__setattr__(self, "doses", tuple(dose for _, dose in given))

    @property
    def is_control(self) -> bool:
        """Whether nothing is perturbed."""
        return not self.targets

    @classmethod
    def parse(
        cls,
        label: object,
        dose: object = None,
        *,
        control: str = "control",
        delimiter: str = "+",
        drugs: Container[str] | None = None,
    ) -> Perturbation:
        """Read a label such as `A`, `A+B` or the control label, and the doses of its drugs.

        Parameters
        ----------
        label
            The label of a cell.
        dose
            A number of uM, or text such as `1+0.5` in the order of the label: one for each drug, or one for each
            part of the label, of which those of drugs are read. What the control or a gene carries is ignored.
        control
            The label of unperturbed cells. It may also stand as a part (`A+ctrl`).
        delimiter
            What separates the targets of a combination. Within brackets it does not separate: `(+)-JQ1` and
            `C[N+](C)C` are names. Choose another one when names of targets contain it elsewhere.
        drugs
            Names that have a dose. By default it is not known which these are, and every target may have one.

        Returns
        -------
        The perturbation, independent of the order of the targets. A drug at dose 0 is left out.

        Raises
        ------
        ValueError
            If the label is missing, a part is empty or a target is repeated; if a dose is negative or no number, or
            the number of doses fits neither the drugs nor the parts of the label.
        """
        parts = split_label(label, control=control, delimiter=delimiter)
        targets = [part for part in parts if part not in (control, GEARS_CONTROL_PART)] if len(parts) > 1 else parts
        if len(set(targets)) < len(targets):
            raise ValueError(f"The perturbation label {str(label).strip()!r} repeats a target. Name every target once.")
        if dose is None:
            return cls(tuple(targets))
        dosed = [name for name in targets if drugs is None or name in drugs]
        given = _BETWEEN_DOSES.split(str(dose)) if dosed else []
        if len(given) not in (len(dosed), len(parts)):
            raise ValueError(
                f"The dose {str(dose)!r} of {str(label).strip()!r} has {len(given)} parts for {len(dosed)} drugs. "
                "Write one number of uM for each drug in the order of the label, such as '1+0.5'."
            )
        named = dict(zip(dosed if len(given) == len(dosed) else parts, given, strict=True))
        return cls(tuple(targets), tuple(_number(named[name], name) if name in dosed else None for name in targets))

    def label(self, *, control: str = "control", delimiter: str = "+") -> str:
        """Write the canonical label: targets in sorted order, or the control label."""
        return delimiter.join(self.targets) if self.targets else control

    def undosed(self, drugs: Container[str]) -> list[str]:
        """List the targets that are among `drugs` and have no dose."""
        return [name for name, dose in zip(self.targets, self.doses, strict=True) if dose is None and name in drugs]

    def dose_text(self) -> str:
        """Write the doses in the order of the targets, empty for what has none: `0.1`, `1+0.5`, `+0.5`, or nothing."""
        if all(dose is None for dose in self.doses):
            return ""
        return "+".join("" if dose is None else np.format_float_positional(dose, trim="-") for dose in self.doses)


def split_label(label: object, *, control: str = "control", delimiter: str = "+") -> list[str]:
    """Get the parts of a label in the order in which they stand; none for the control.

    Raises
    ------
    ValueError
        If the label is missing or a part is empty.
    """
    if label is None or label != label:
        raise ValueError(
            "A cell has no perturbation label (missing value). "
            f"Remove such cells, or label them {control!r} if they are controls."
        )
    text = str(label).strip()
    if text == control:
        return []
    parts: list[str] = []
    for piece in text.split(delimiter) if delimiter else [text]:
        inside = bool(parts) and sum(map(parts[-1].count, "([")) > sum(map(parts[-1].count, ")]"))
        if inside:
            parts[-1] += delimiter + piece
        else:
            parts.append(piece)
    parts = [part.strip() for part in parts]
    if not all(parts):
        raise ValueError(
            f"The perturbation label {text!r} has an empty part between {delimiter!r}. "
            "Correct the label, or pass another `delimiter` if the name itself contains it."
        )
    return parts


def _number(text: str, name: str) -> float | None:
    """Read a dose in uM with six digits, so that float32 and float64 columns agree; `None` where there is none."""
    if not text.strip():
        return None
    try:
        dose = float(f"{float(text):.6g}")
    except ValueError as error:
        raise ValueError(f"The dose {text!r} of {name!r} is no number of uM.") from error
    if not 0 <= dose < math.inf:
        raise ValueError(f"The dose {text!r} of {name!r} is not a number of uM from 0 on.")
    return dose


def parse_labels(
    labels: Iterable[object], *, control: str = "control", delimiter: str = "+", argument: str = "perturbation_key"
) -> dict[object, Perturbation]:
    """Parse every distinct label and report all faulty ones at once.

    Parameters
    ----------
    labels
        Labels of cells, in any order, with repeats.
    control
        The label of unperturbed cells.
    delimiter
        What separates the targets of a combination.
    argument
        The name of the user's argument, for the error message.

    Returns
    -------
    One perturbation for every distinct label, in the order of first appearance.

    Raises
    ------
    ValueError
        If any label cannot be read.
    """
    parsed: dict[object, Perturbation] = {}
    faults: list[str] = []
    for label in dict.fromkeys(labels):
        try:
            parsed[label] = Perturbation.parse(label, control=control, delimiter=delimiter)
        except ValueError as error:
            faults.append(str(error))
    if faults:
        raise ValueError(f"`{argument}` holds labels that cannot be read: " + " ".join(faults[:10]))
    return parsed


def nearest_name(name: object, names: Iterable[str]) -> str:
    """Suggest the closest of `names` whatever its case, as the end of an error message; nothing, if it is far-fetched.

    A name that begins otherwise has to share more letters: `FOXO3B` has two thirds of those of `FOOBAR`.
    """
    wanted, known = str(name).casefold(), {other.casefold(): other for other in names}
    begin_alike = [other for other in known if other.startswith(wanted[: len(wanted) // 2 + 1])]
    close = difflib.get_close_matches(wanted, known, n=1, cutoff=0.7) or difflib.get_close_matches(wanted, begin_alike)
    return f" Did you mean {known[close[0]]!r}?" if close else ""


def canonical_labels(labels: Iterable[object], *, control: str = "control", delimiter: str = "+") -> np.ndarray:
    """Write every label in its canonical form, shape `(n_cells,)`."""
    labels = list(labels)
    parsed = parse_labels(labels, control=control, delimiter=delimiter)
    written = {label: p.label(control=control, delimiter=delimiter) for label, p in parsed.items()}
    return np.array([written[label] for label in labels], dtype=object)
