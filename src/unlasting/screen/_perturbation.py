"""Perturbations: the grammar for labels and doses, parsed here only."""

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
"""The plus between doses, but not in `1e+3`."""


@dataclass(frozen=True)
class Perturbation:
    """Targets (genes, drugs, stimuli) that are perturbed together; the empty set is the control.

    Parameters
    ----------
    targets
        Target names, each once. They are sorted, so that `A+B` and `B+A` are equal.
    doses
        One dose per target in uM, or `None`; no doses by default. A target at dose 0 is left out.
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
        """Read a label such as `A`, `A+B` or the control label, and its doses.

        Parameters
        ----------
        label
            The label.
        dose
            A number (uM), or text such as `1+0.5` in label order: one number for each drug, or one for each part. Doses
            for control and genes are ignored.
        control
            Control label. It may also stand as a part (`A+ctrl`), and so may half of a control such as `NT+NT`.
        delimiter
            Separator between targets. Within brackets it is part of a name, like in `(+)-JQ1` and
            `C[N+](C)C`. Choose another one for names that contain it elsewhere.
        drugs
            Targets with a dose. By default every target may have one.

        Returns
        -------
        The perturbation, independent of target order. A drug at dose 0 is left out.
        """
        parts = split_label(label, control=control, delimiter=delimiter)
        targets = [part for part in parts if part not in (control, GEARS_CONTROL_PART)] if len(parts) > 1 else parts
        twice = control.split(delimiter) if delimiter else []
        if len(twice) > 1 and len(set(twice)) == 1:  # `NT_NT` is the control of a library with two guides, `A_NT` is A
            targets = [part for part in targets if part != twice[0]]
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
        """List the targets among `drugs` without a dose."""
        return [name for name, dose in zip(self.targets, self.doses, strict=True) if dose is None and name in drugs]

    def dose_text(self) -> str:
        """Write the doses in target order, empty if missing: `0.1`, `1+0.5`, `+0.5`, or nothing."""
        if all(dose is None for dose in self.doses):
            return ""
        return "+".join("" if dose is None else np.format_float_positional(dose, trim="-") for dose in self.doses)


def split_label(label: object, *, control: str = "control", delimiter: str = "+") -> list[str]:
    """Get the ordered parts; none for the control."""
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
    """Read a dose in uM with six digits, so that float32 and float64 columns agree; `None` for an empty text."""
    if not text.strip():
        return None
    try:
        dose = float(f"{float(text):.6g}")
    except ValueError as error:
        raise ValueError(f"The dose {text!r} of {name!r} is no number of uM. Write a number such as '0.5'.") from error
    if not 0 <= dose < math.inf:
        raise ValueError(f"The dose {text!r} of {name!r} is not a number of uM from 0 on. Correct it.")
    return dose


def parse_labels(
    labels: Iterable[object], *, control: str = "control", delimiter: str = "+", argument: str = "perturbation_key"
) -> dict[object, Perturbation]:
    """Parse every distinct label, in order of first appearance, and report all faulty ones of `argument` at once."""
    parsed: dict[object, Perturbation] = {}
    faults: list[str] = []
    for label in dict.fromkeys(labels):
        try:
            parsed[label] = Perturbation.parse(label, control=control, delimiter=delimiter)
        except ValueError as error:
            faults.append(str(error))
    if faults:
        raise ValueError(f"`{argument}` contains labels that cannot be read: " + " ".join(faults[:10]))
    return parsed


def nearest_name(name: object, names: Iterable[str]) -> str:
    """Suggest the closest name, in any case, as the end to an error message; nothing if none is close.

    A name with another beginning has to share more letters: `FOXO3B` shares two thirds with `FOOBAR`.
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
