"""Numbers and switches that users pass."""

from __future__ import annotations

import math
from numbers import Integral, Real


def require_whole_numbers(minimum: int, *, optional: bool = False, **arguments: object) -> None:
    """Refuse an argument that is no whole number of at least some size, nor `None` where it is optional."""
    for name, value in arguments.items():
        whole = isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= minimum
        if not whole and not (optional and value is None):
            raise ValueError(f"`{name}` is {value!r}; a whole number of at least {minimum} is needed.")


def require_numbers(*, optional: bool = False, **arguments: object) -> None:
    """Refuse an argument that is no finite number, nor `None` where it is optional."""
    for name, value in arguments.items():
        number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
        if not number and not (optional and value is None):
            raise ValueError(f"`{name}` is {value!r}; a number is needed.")


def require_switches(**arguments: object) -> None:
    """Refuse an argument that is neither `True` nor `False`."""
    for name, value in arguments.items():
        if not isinstance(value, bool):
            raise ValueError(f"`{name}` is {value!r}; choose `True` or `False`.")
