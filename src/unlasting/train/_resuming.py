"""Checkpoints of a training, read with care: the process that wrote them may have been killed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import is_zipfile

import torch


def check_checkpoint_place(path: str | os.PathLike[str]) -> None:
    """Refuse a checkpoint path that cannot be written."""
    if Path(path).is_dir():
        raise IsADirectoryError(f"`checkpoint` is {os.fspath(path)!r}, a folder. Name a file in it.")
    if not Path(path).absolute().parent.is_dir():
        raise FileNotFoundError(f"The folder of `checkpoint` {os.fspath(path)!r} does not exist. Make it first.")


def read_checkpoint(
    path: str | os.PathLike[str], state: Mapping[str, torch.Tensor], expected: Mapping[Any, Mapping[str, Any]]
) -> str:
    """Check that a checkpoint belongs to a model and a training, and get the network that was in training.

    No code in the file runs. `state` holds the model's weights, and `expected` describes each network's training.
    """
    name = os.fspath(path)
    if not Path(path).is_file():
        raise FileNotFoundError(f"`resume` is {name!r}, which is no file. Give the file that `checkpoint` wrote.")
    try:
        if not is_zipfile(path):
            raise UnpicklingError("not written by `torch.save`")
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError) as error:
        raise ValueError(
            f"`resume` is {name!r}, which is damaged or no checkpoint. Give the file that `checkpoint` wrote."
        ) from error
    if not isinstance(found, dict) or not {"unlasting", "state_dict", "random_state"} <= set(found):
        raise ValueError(f"`resume` is {name!r}, a file of another program. Give the file that `checkpoint` wrote.")
    shapes = {key.removeprefix("module."): tuple(value.shape) for key, value in found["state_dict"].items()}
    if shapes != {key: tuple(value.shape) for key, value in state.items()}:
        raise ValueError(
            f"`resume` is {name!r}, a checkpoint of a model with other networks. Make the model with the same screen and "
            "options as before."
        )
    described = found["unlasting"]
    wanted = expected.get(described["network"], {})
    for key, value in described.items():
        if wanted.get(key) != value:
            raise ValueError(
                f"`resume` is {name!r}, a checkpoint of another training: its `{key}` is {value}, and now "
                f"{wanted.get(key)}. Call `train` with the same cells and arguments as before, or without `resume`."
            )
    return described["network"]
