"""What a perturbation is, and the only place where its label is parsed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

GEARS_CONTROL_PART = "ctrl"
"""`A+ctrl`, the label that GEARS gives to a single perturbation, means `A`."""


@dataclass(frozen=True)
class Perturbation:
    """A set of targets that are perturbed together; the empty set is the control.

    Parameters
    ----------
    targets
        Names of the targets, sorted and unique, so that `A+B` and `B+A` are equal.
    """

    targets: tuple[str, ...] = ()

    @property
    def is_control(self) -> bool:
        """Whether nothing is perturbed."""
        return not self.targets

    @classmethod
    def parse(cls, label: object, *, control: str = "control", delimiter: str = "+") -> Perturbation:
        """Read a label such as `A`, `A+B` or the control label.

        Parameters
        ----------
        label
            The label of a cell.
        control
            The label of unperturbed cells. It may also stand as a part (`A+ctrl`).
        delimiter
            What separates the targets of a combination. Choose another one when names of
            targets contain it.

        Returns
        -------
        The perturbation, independent of the order of the targets.

        Raises
        ------
        ValueError
            If the label is missing, a part is empty or a target is repeated.
        """
        if label is None or label != label:
            raise ValueError(
                "A cell has no perturbation label (missing value). "
                f"Remove such cells, or label them {control!r} if they are controls."
            )
        text = str(label).strip()
        if text == control:
            return cls()
        parts = [part.strip() for part in text.split(delimiter)] if delimiter else [text]
        if not all(parts):
            raise ValueError(
                f"The perturbation label {text!r} has an empty part between {delimiter!r}. "
                "Correct the label, or pass another `delimiter` if the name itself contains it."
            )
        if len(parts) > 1:
            parts = [part for part in parts if part not in (control, GEARS_CONTROL_PART)]
        if len(set(parts)) < len(parts):
            raise ValueError(f"The perturbation label {text!r} repeats a target. Name every target once.")
        return cls(tuple(sorted(parts)))

    def label(self, *, control: str = "control", delimiter: str = "+") -> str:
        """Write the canonical label: targets in sorted order, or the control label."""
        return delimiter.join(self.targets) if self.targets else control


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


def nearest_name(name: str, names: Iterable[str]) -> str:
    """Suggest the closest of `names`, as the end of an error message."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def canonical_labels(labels: Iterable[object], *, control: str = "control", delimiter: str = "+") -> np.ndarray:
    """Write every label in its canonical form, shape `(n_cells,)`."""
    labels = list(labels)
    parsed = parse_labels(labels, control=control, delimiter=delimiter)
    written = {label: p.label(control=control, delimiter=delimiter) for label, p in parsed.items()}
    return np.array([written[label] for label in labels], dtype=object)
