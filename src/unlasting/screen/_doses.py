"""Doses: units and logarithms, read from columns of any habit."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Final

import numpy as np

MICROMOLAR: Final = {"pM": 1e-6, "nM": 1e-3, "uM": 1.0, "µM": 1.0, "μM": 1.0, "mM": 1e3, "M": 1e6}
"""Each unit in uM."""
_LOG: Final = "log10 "
DOSE_UNITS: Final = ("pM", "nM", "uM", "mM", "M", *(f"{_LOG}{unit}" for unit in ("nM", "uM", "M")))
"""The units of a column; `µM` is read as `uM`."""

_BETWEEN: Final = re.compile(r"(?<![eE])\+")
_QUANTITY: Final = re.compile(r"(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(?P<unit>[pnuµμm]M|M|[pnu]m)?")
_UNIT_IN_NAME: Final = re.compile(r"(?<![A-Za-z])([pnuµμm]M|[pnu]m)(?![A-Za-z])")
_LARGEST: Final = 1_000.0
_SMALLEST: Final = 0.01


def canonical_unit(unit: object) -> str:
    """Write a unit as in `DOSE_UNITS`.

    Raises
    ------
    ValueError
        If it is unknown.
    """
    text = str(unit).strip()
    logarithm, molar = bool(re.match(r"log", text, re.IGNORECASE)), re.sub(r"(?i)^log(10)?[-_ (]*|\)$", "", text)
    molar = "uM" if molar.casefold() in ("µm", "μm") or not molar else molar[:-1] + "M" if molar[-1] in "mM" else molar
    found = _LOG * logarithm + molar
    if found not in DOSE_UNITS:
        raise ValueError(
            f"`dose_unit` is {unit!r}; choose one of {list(DOSE_UNITS)}. Convert other units to uM in the column."
        )
    return found


def in_micromolar(value: object, unit: str) -> object:
    """Convert a column's dose to uM; text with its own unit keeps that, and unreadable text stays as it is."""
    if value is None or value != value:
        return value
    if isinstance(value, int | float | np.number) and not isinstance(value, bool):
        return value if unit == "uM" else _converted(float(value), unit)
    parts = []
    for part in _BETWEEN.split(str(value)):
        match = _QUANTITY.fullmatch(part.strip())
        if match is None:
            parts.append(part)
        elif match["unit"] is not None:
            parts.append(repr(_converted(float(match["number"]), canonical_unit(match["unit"]))))
        else:
            parts.append(part if unit == "uM" else repr(_converted(float(match["number"]), unit)))
    return "+".join(parts)


def from_micromolar(dose: float, unit: str) -> float:
    """Write a dose in uM as in a column with this unit."""
    amount = dose / MICROMOLAR[unit.removeprefix(_LOG)]
    if not unit.startswith(_LOG):
        return amount
    return math.log10(amount) if amount > 0 else -math.inf if amount == 0 else amount


def _converted(amount: float, unit: str) -> float:
    return (10.0**amount if unit.startswith(_LOG) else amount) * MICROMOLAR[unit.removeprefix(_LOG)]


def unit_in(name: str) -> str:
    """Find the unit in a column's name, such as `dose_nM`; empty if there is none."""
    logarithm = re.search(r"(?<![A-Za-z])log", name, re.IGNORECASE)
    match = _UNIT_IN_NAME.search(name) or (logarithm and re.search(r"(?<![A-Za-z])(M)(?![A-Za-z])", name))
    return canonical_unit(("log10 " if logarithm else "") + (match[1] if match else "uM")) if match or logarithm else ""


def assumed_unit(key: str, values: Iterable[object]) -> tuple[str, str]:
    """Infer a column's unit where none is given.

    Returns
    -------
    The unit, and the sentence to log; both empty if nothing tells against uM.
    """
    named = unit_in(key)
    numbers = _numbers(values)
    if named not in ("", "uM"):
        reason = (
            f"because of its name; give `dose_unit={named!r}` to be explicit, or `dose_unit='uM'` if the name is wrong"
        )
        return named, f"The doses in `adata.obs[{key!r}]` are read in {named}, {reason}."
    negative = [number for number in numbers if number < 0]
    if len(negative) > 1 and max(numbers) <= 5 and min(numbers) >= -12:
        unit = "log10 M" if max(numbers) <= -3 else "log10 uM"
        return unit, (
            f"The doses in `adata.obs[{key!r}]` are negative in part ({min(numbers):g} to {max(numbers):g}), and are read as "
            f"{unit}; give `dose_unit={unit!r}`, or another unit, to be explicit."
        )
    return "", ""


def doubts(key: str, values: Iterable[object], unit: str) -> list[str]:
    """List contradictions between a unit, the column's name and its values, one sentence with its fix each."""
    values = list(dict.fromkeys(values))
    found, named, numbers = [], unit_in(key), [x for x in _numbers(values) if x != 0]
    if named and named != unit:
        found.append(
            f"`dose_unit` is {unit!r}, but `adata.obs[{key!r}]` is named after {named}. If the name is right, give `dose_unit={named!r}`."
        )
    if re.search(r"(?<![A-Za-z])([mun]g|mg)(?![A-Za-z])", key):
        found.append(
            f"`adata.obs[{key!r}]` is named after a mass: doses are read in {unit}. Convert it to uM with the molar mass."
        )
    texts = {
        m["unit"]
        for v in values
        if isinstance(v, str)
        for p in _BETWEEN.split(v)
        if (m := _QUANTITY.fullmatch(p.strip()))
    }
    own = sorted({canonical_unit(text) for text in texts if text})
    if own:
        found.append(
            f"Doses in `adata.obs[{key!r}]` have their own unit ({', '.join(own)}), and are converted to uM. Write plain numbers to be explicit."
        )
    doses = [abs(_converted(x, unit)) for x in numbers if not unit.startswith(_LOG) or x < 300]
    if doses and max(doses) > _LARGEST:
        found.append(
            f"Doses in `adata.obs[{key!r}]` are up to {max(doses):g} µM when read in {unit}, which is unusual. "
            f"If they are in another unit, give it, such as `dose_unit={'nM' if unit == 'uM' else 'uM'!r}`."
        )
    elif doses and max(doses) < _SMALLEST:
        found.append(
            f"Doses in `adata.obs[{key!r}]` are at most {max(doses):g} µM when read in {unit}, which is unusual. "
            f"If they are in another unit, give it, such as `dose_unit={'M' if unit == 'uM' else 'uM'!r}`."
        )
    return found


def _numbers(values: Iterable[object]) -> list[float]:
    """Get the finite numbers without a unit among the values, each once."""
    found = []
    for value in dict.fromkeys(values):
        try:
            number = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            continue
        found += [number] if math.isfinite(number) else []
    return found
