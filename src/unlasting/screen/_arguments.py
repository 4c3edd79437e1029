"""Numbers and switches that users pass."""

from __future__ import annotations

import math
from numbers import Integral, Real


def require_integers(minimum: int, **arguments: object) -> None:
    """Refuse an argument that is no whole number of at least some size."""
    for name, value in arguments.items():
        if not isinstance(value, Integral) or isinstance(value, bool) or int(value) < minimum:
            raise ValueError(f"`{name}` is {value!r}; a whole number of at least {minimum} is needed.")


def require_numbers(**arguments: object) -> None:
    """Refuse an argument that is no finite number."""
    for name, value in arguments.items():
        if not isinstance(value, Real) or isinstance(value, bool) or not math.isfinite(value):
            raise ValueError(f"`{name}` is {value!r}; a number is needed.")


def not_none(**arguments: object) -> dict[str, object]:
    """Keep the optional arguments that are not `None`."""
    return {name: value for name, value in arguments.items() if value is not None}


def require_switches(**arguments: object) -> None:
    """Refuse an argument that is neither `True` nor `False`."""
    for name, value in arguments.items():
        if not isinstance(value, bool):
            raise ValueError(f"`{name}` is {value!r}; choose `True` or `False`.")
