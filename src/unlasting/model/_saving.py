"""Saved models: tensors and JSON, nothing that runs code when it is read."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from mudata import MuData
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from scipy import sparse

from unlasting._compat import parse_device_args
from unlasting.data import check_genes
from unlasting.model._base import ModelBase
from unlasting.model._mudata import modality_of

FORMAT: Final = 1
_JSON: Final = "model.json"
_TENSORS: Final = "tensors.safetensors"


class SavingMixin(ModelBase):
    """`save` and `load`."""

    def save(self, dir_path: str | os.PathLike[str], overwrite: bool = False, save_anndata: bool = False) -> None:
        """Write the model to a folder: `model.json` and `tensors.safetensors`.

        The folder is written beside its final place and moved there when it is complete, so that a save which fails
        leaves an older one as it was.

        Parameters
        ----------
        dir_path
            The folder.
        overwrite
            Whether an existing folder is replaced.
        save_anndata
            Whether the AnnData is written too, as `adata.h5ad`.

        Raises
        ------
        FileExistsError
            If the folder exists and `overwrite` is false.
        """
        target = Path(dir_path)
        if target.exists() and not overwrite:
            raise FileExistsError(f"{str(target)!r} exists already. Pass `overwrite=True` to replace it.")
        target.parent.mkdir(parents=True, exist_ok=True)
        tensors = {f"module.{k}": v.detach().cpu().contiguous() for k, v in self.module.state_dict().items()}
        arrays: dict[str, torch.Tensor] = {}
        description = {
            "format": FORMAT,
            "class": type(self).__name__,
            "unlasting_version": version("unlasting"),
            "preset": self._preset_name,
            "options": self._options,
            "is_trained": bool(self.is_trained_),
            "var_names": list(self.get_var_names()),
            "preparation": _to_json(self.preparation_, arrays, "preparation"),
            "registry": _to_json(self.registry_, arrays, "registry"),
            "history": {k: [frame.index.tolist(), frame.iloc[:, 0].tolist()] for k, frame in _history(self).items()},
        }
        building = _new_folder(target)
        try:
            # A tensor that two entries share is written for each, as safetensors asks.
            save_file({k: v.clone() for k, v in {**tensors, **arrays}.items()}, building / _TENSORS)
            description["sha256"] = _checksum(building / _TENSORS)
            (building / _JSON).write_text(json.dumps(description, indent=1))
            if save_anndata:
                self.adata.write_h5ad(building / "adata.h5ad")
            _replace_folder(building, target)
        finally:
            shutil.rmtree(building, ignore_errors=True)

    @classmethod
    def load(
        cls,
        dir_path: str | os.PathLike[str],
        adata: AnnData | MuData | bool | None = None,
        accelerator: str = "auto",
        device: int | str = "auto",
    ) -> Self:
        """Read a model that :meth:`save` wrote.

        Parameters
        ----------
        dir_path
            The folder.
        adata
            The screen, prepared as for training; a MuData if the model was set up with one. `None`: the `adata.h5ad`
            of the folder, if it is there. `False`: none; `generate` then takes `controls`.
        accelerator, device
            Where to put it.

        Returns
        -------
        The model.

        Raises
        ------
        FileNotFoundError
            If the folder holds no model.
        ValueError
            If the files are damaged, of another program or of a newer format, or the genes differ.
        """
        folder = Path(dir_path)
        description = _read_description(folder, cls.__name__)
        tensors = _read_tensors(folder, description["sha256"])
        registry = _from_json(description["registry"], tensors)
        if adata is None and (folder / "adata.h5ad").exists():
            import anndata

            adata = anndata.read_h5ad(folder / "adata.h5ad")
        setup = dict(registry["setup_args"])
        modalities = setup.pop("modalities", None)
        given = adata if isinstance(adata, AnnData) else None
        if isinstance(adata, MuData):
            given = modality_of(adata, modalities)
            check_genes(given, description["var_names"])
            cls.setup_mudata(adata, source_registry=registry, modalities=modalities, **setup)
        elif given is not None:
            check_genes(given, description["var_names"])
            cls.setup_anndata(given, source_registry=registry, **setup)
        model = cls(
            given, None if given is not None else registry, preset=description["preset"], **description["options"]
        )
        model.var_names_ = description["var_names"]
        model.preparation_ = description["preparation"]
        state = {k.removeprefix("module."): v for k, v in tensors.items() if k.startswith("module.")}
        model.module.load_state_dict(state)
        model._take_half_doses(model.module.effects.half_doses.numpy())
        model.module.describe(model.vocabulary.tensors(model._conditions()))
        model.is_trained_ = description["is_trained"]
        model.history_ = {
            key: pd.DataFrame({key: values}, index=pd.Index(steps))
            for key, (steps, values) in description["history"].items()
        }
        _, _, torch_device = parse_device_args(accelerator, device, return_device="torch", validate_single_device=True)
        model.to_device(torch_device)
        model.module.eval()
        return model


def _history(model: Any) -> dict[str, pd.DataFrame]:
    return model.history_ or {}


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _new_folder(target: Path) -> Path:
    """Make an empty folder beside another, with the usual permissions."""
    folder = target.with_name(f".{target.name}-{uuid.uuid4().hex}")
    folder.mkdir()
    return folder


def _replace_folder(building: Path, target: Path) -> None:
    """Move a finished folder to its place; an older one goes only when the new one stands."""
    if not target.exists():
        building.rename(target)
        return
    aside = _new_folder(target)
    target.rename(aside / "old")
    try:
        building.rename(target)
    except OSError:
        (aside / "old").rename(target)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _read_description(folder: Path, name: str) -> dict[str, Any]:
    if not (folder / _JSON).is_file() or not (folder / _TENSORS).is_file():
        raise FileNotFoundError(f"{str(folder)!r} holds no saved model: `{_JSON}` and `{_TENSORS}` are expected there.")
    try:
        description = json.loads((folder / _JSON).read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"`{_JSON}` in {str(folder)!r} is damaged ({error}). Save the model again.") from error
    needed = {
        "format",
        "unlasting_version",
        "preset",
        "options",
        "is_trained",
        "var_names",
        "preparation",
        "registry",
        "sha256",
    }
    if not isinstance(description, dict) or description.get("class") != name or needed - set(description):
        raise ValueError(f"`{_JSON}` in {str(folder)!r} does not describe a saved {name}.")
    if description["format"] > FORMAT:
        raise ValueError(
            f"{str(folder)!r} was saved by unlasting {description.get('unlasting_version')} in format "
            f"{description['format']}; this version reads formats up to {FORMAT}. Update unlasting."
        )
    return description


def _read_tensors(folder: Path, checksum: str) -> dict[str, torch.Tensor]:
    path = folder / _TENSORS
    if _checksum(path) != checksum:
        raise ValueError(f"`{_TENSORS}` in {str(folder)!r} is damaged or was changed: its checksum differs.")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"`{_TENSORS}` in {str(folder)!r} cannot be read: {error}.") from error


def _to_json(value: Any, arrays: dict[str, torch.Tensor], name: str) -> Any:
    """Write nested containers as JSON; arrays of numbers go to the tensors, by name."""
    if isinstance(value, dict):
        return {str(k): _to_json(v, arrays, f"{name}.{k}") for k, v in value.items()}
    if isinstance(value, np.ndarray):
        if value.dtype.kind in "OUS":
            return {"__strings__": [str(v) for v in value]}
        arrays[name] = torch.from_numpy(np.ascontiguousarray(value))
        return {"__array__": name}
    if sparse.issparse(value):
        csr = value.tocsr()
        parts = {"data": csr.data, "indices": csr.indices, "indptr": csr.indptr}
        return {"__csr__": _to_json(parts, arrays, name), "shape": list(csr.shape)}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list | tuple):
        return [_to_json(v, arrays, f"{name}.{i}") for i, v in enumerate(value)]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"{name} is of type {type(value).__name__}, which cannot be saved as JSON.")


def _from_json(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """Read what :func:`_to_json` wrote."""
    if isinstance(value, dict):
        if "__strings__" in value:
            return np.array(value["__strings__"], dtype=object)
        if "__array__" in value:
            return tensors[value["__array__"]].numpy()
        if "__csr__" in value:
            parts = _from_json(value["__csr__"], tensors)
            return sparse.csr_matrix(tuple(parts[k] for k in ("data", "indices", "indptr")), shape=value["shape"])
        return {k: _from_json(v, tensors) for k, v in value.items()}
    if isinstance(value, list):
        return [_from_json(v, tensors) for v in value]
    return value
