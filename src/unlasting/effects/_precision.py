"""Computations outside of automatic mixed precision."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import Any

import torch
from torch import Tensor


def full_precision(device_type: str) -> AbstractContextManager[object]:
    """Leave autocast."""
    if torch.amp.is_autocast_available(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()


def in_full_precision(method: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Keep a method, whose first argument is a tensor, out of autocast."""

    @wraps(method)
    def wrapped(self: Any, first: Tensor, *others: Tensor) -> Tensor:
        with full_precision(first.device.type):
            return method(self, first, *others)

    return wrapped
