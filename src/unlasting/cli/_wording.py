"""Messages of the API in the words of the command line."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

_OTHER_NAMES = {"perturbations": "perturbation", "kind": "split", "overwrite": "force", "dir_path": "model"}
"""Arguments of the API, and the parameters of commands that stand for them."""

_CALLS = (
    (re.compile(r"`(ul\.|unlasting\.)?pp\.grn\([^`]*targets=[^`]*`"), "`unlasting train --targets NAME`"),
    (re.compile(r"`(ul\.|unlasting\.)?pp\.split\([^`]*`"), "`unlasting train --split KIND`"),
    (re.compile(r"`(ul\.|unlasting\.)?pp\.check\([^`]*`"), "`unlasting check FILE`"),
    (re.compile(r"`(ul\.)?(model|UnlastingModel)\.predict\([^`]*`"), "`unlasting predict`"),
    (re.compile(r"`model\.generate[^`]*`"), "`unlasting predict -p NAME`"),
    (re.compile(r"`model\.train\([^`]*`"), "`unlasting train`"),
)
"""Calls that a command makes."""

_ARGUMENT = re.compile(r"`(\w+)(?:=(?:'([^'`]*)'|\"([^\"`]*)\"|([^`]*)))?`")
_FILE = re.compile(r"`adata`")
_SLOT = re.compile(r"\badata\.(?=(obs|var|uns|layers|obsm|raw|X)\b)")


def with_options(message: str, names: Mapping[str, str]) -> str:
    """Name options in place of arguments, and commands in place of calls.

    Parameters
    ----------
    message
        A message of the API.
    names
        The parameters of a command, and their options.
    """

    def option(found: re.Match[str]) -> str:
        name = _OTHER_NAMES.get(found[1], found[1])
        if name not in names or not names[name].startswith("-"):
            return found[0]
        value = next((part for part in found.groups()[1:] if part is not None), None)
        if value in (None, "True"):
            return f"`{names[name]}`"
        values = re.findall(r"'([^']*)'", value) if value.startswith("[") else [value]
        return f"`{' '.join(f'{names[name]} {shlex.quote(one)}' for one in values)}`"

    for call, command in _CALLS:
        message = call.sub(command, message)
    return _SLOT.sub("", _FILE.sub("the file", _ARGUMENT.sub(option, message)))
