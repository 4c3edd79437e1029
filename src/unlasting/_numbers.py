"""Numbers and switches that users pass."""

from __future__ import annotations

import math
from numbers import Integral, Real


def require_whole_numbers(minimum: int, **arguments: object) -> None:
    """Refuse an argument that is neither `None` nor a whole number of at least some size."""
    for name, value in arguments.items():
        if value is not None and not (isinstance(value, Integral) and int(value) >= minimum):
            raise ValueError(f"`{name}` is {value!r}; a whole number of at least {minimum} is needed.")


def require_numbers(**arguments: object) -> None:
    """Refuse an argument that is neither `None` nor a finite number."""
    for name, value in arguments.items():
        if value is not None and not (isinstance(value, Real) and math.isfinite(value)):
            raise ValueError(f"`{name}` is {value!r}; a number is needed.")


def require_switches(**arguments: object) -> None:
    """Refuse an argument that is neither `True` nor `False`."""
    for name, value in arguments.items():
        if not isinstance(value, bool):
            raise ValueError(f"`{name}` is {value!r}; choose `True` or `False`.")
