"""Dataclasses whose fields are tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tensors:
    """A dataclass whose fields are tensors."""

    def to(self, device: torch.device | str) -> Self:
        """Move all tensors to a device."""
        return type(self)(*(getattr(self, f.name).to(device) for f in fields(self)))


@dataclass(frozen=True)
class Rows(Tensors):
    """A dataclass whose tensors have one row for each entry."""

    def __getitem__(self, index: Tensor | slice) -> Self:
        """Take some rows, or repeat them."""
        return type(self)(*(getattr(self, f.name)[index] for f in fields(self)))

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """Put all parts' rows one after the other."""
        return cls(*(torch.cat([getattr(part, f.name) for part in parts]) for f in fields(cls)))
