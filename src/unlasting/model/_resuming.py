"""Checkpoints of a training, read with care: they come from a process that may have been killed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import is_zipfile

import torch


def read_checkpoint(path: str | os.PathLike[str], state: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Read what a checkpoint says of its training, after a look at whether it belongs to a model. No code of it is run.

    Parameters
    ----------
    path
        The file.
    state
        The weights of the model that is to go on.

    Returns
    -------
    The description.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no checkpoint of a training, or one of another model.
    """
    name = os.fspath(path)
    if not Path(path).is_file():
        raise FileNotFoundError(f"`resume` is {name!r}, which is no file. Give what `checkpoint` wrote.")
    try:
        if not is_zipfile(path):
            raise UnpicklingError("not what `torch.save` writes")
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError) as error:
        raise ValueError(
            f"`resume` is {name!r}, which is damaged or no checkpoint of a training. Give what `checkpoint` wrote."
        ) from error
    if not isinstance(found, dict) or not {"unlasting", "state_dict", "random_state"} <= set(found):
        raise ValueError(f"`resume` is {name!r}, a file of another program. Give what `checkpoint` wrote.")
    shapes = {key.removeprefix("module."): tuple(value.shape) for key, value in found["state_dict"].items()}
    if shapes != {key: tuple(value.shape) for key, value in state.items()}:
        raise ValueError(
            f"`resume` is {name!r}, a checkpoint of a model with other networks. Make the model with the screen and the "
            "options of that training."
        )
    return found["unlasting"]


def check_checkpoint(
    path: str | os.PathLike[str], described: Mapping[str, Any], expected: Mapping[str, Mapping[str, Any]]
) -> None:
    """Refuse to go on with a training that is another one.

    Parameters
    ----------
    path
        The file.
    described
        What the checkpoint says of its training.
    expected
        What is to be trained, by network.

    Raises
    ------
    ValueError
        If they differ.
    """
    wanted = expected.get(described["network"], {})
    for key, value in described.items():
        if wanted.get(key) != value:
            raise ValueError(
                f"`resume` is {os.fspath(path)!r}, a checkpoint of another training: its `{key}` is {value}, and now "
                f"{wanted.get(key)}. Call `train` with the cells and arguments of that time, or without `resume`."
            )
