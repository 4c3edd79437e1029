"""Versions, devices and optional packages in this installation."""

from __future__ import annotations

import importlib
import os
import platform
import re
from collections import defaultdict
from importlib.metadata import PackageNotFoundError, packages_distributions, requires, version
from typing import Any

_BROKEN = (ImportError, OSError, RuntimeError, AttributeError, ValueError, TypeError)
"""Errors from packages that do not fit each other or the machine."""

_MISSING = "missing"


def examine() -> dict[str, Any]:
    """Collect the facts for a bug report.

    Returns
    -------
    `unlasting`, `python` and `platform`; `packages`, the versions of required packages; `extras`, the versions of optional
    packages or the command to install them; `devices`; `problems`, a line per broken package.
    """
    modules: dict[str, list[str]] = defaultdict(list)
    for module, distributions in packages_distributions().items():
        for distribution in distributions:
            modules[_canonical(distribution)].append(module)
    packages: dict[str, str] = {}
    extras: dict[str, str] = {}
    problems: list[str] = []
    for requirement in requires("unlasting") or []:
        name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", requirement)
        found, fault = _look_at(name, modules[_canonical(name)])
        if extra is None:
            packages[name] = found
        else:
            hint = f', pip install "unlasting[{extra[1]}]"' if found == _MISSING else ""
            extras[f"{name} [{extra[1]}]"] = found + hint
        if fault and not (extra and found == _MISSING):
            problems.append(f"{name}: {fault}")
    return {
        "unlasting": version("unlasting"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": packages,
        "extras": extras,
        "devices": {} if problems else _devices(),
        "problems": problems,
    }


def _canonical(name: str) -> str:
    """Write a distribution's name in lower case with hyphens: `Jinja2` is required as `jinja2`."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _look_at(name: str, modules: list[str]) -> tuple[str, str]:
    """Get the version and the fault of a package."""
    try:
        found = version(name)
    except PackageNotFoundError:
        return _MISSING, "is not installed"
    own = name.replace("-", "_")
    try:
        importlib.import_module(own if own in modules else modules[0])
    except _BROKEN as error:
        return found, f"{found} cannot be imported: {error}"
    return found, ""


def _devices() -> dict[str, str]:
    """List the devices for torch."""
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "cpu": f"{torch.get_num_threads()} threads on {os.cpu_count()} cores",
        "cuda": ", ".join(gpus) or "none",
        "mps": "yes" if torch.backends.mps.is_available() else "none",
    }
