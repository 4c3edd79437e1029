"""Parts that several docstrings share, written once."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


def shared(**parts: str) -> Callable[[Function], Function]:
    """Make a decorator that puts shared parts into docstrings, where `%(name)s` is alone on a line."""
    texts = {name: textwrap.dedent(text).strip().splitlines() for name, text in parts.items()}

    def decorate(function: Function) -> Function:
        lines = (function.__doc__ or "").splitlines()
        filled = [re.fullmatch(r"(\s*)%\((\w+)\)s", line) for line in lines]
        function.__doc__ = "\n".join(
            "\n".join((found[1] + text).rstrip() for text in texts[found[2]]) if found else line
            for line, found in zip(lines, filled, strict=True)
        )
        return function

    return decorate
