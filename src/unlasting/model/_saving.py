"""Saved models: tensors and JSON, without executable code."""

from __future__ import annotations

import hashlib
import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from mudata import MuData
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from scipy import sparse

from unlasting._compat import parse_device_args
from unlasting._files import is_disk_full, replacing_folder, standing
from unlasting.effects import EffectsModel
from unlasting.model._base import ModelBase, check_scale
from unlasting.model._mudata import modality_of
from unlasting.module import Preset
from unlasting.screen import check_cells, check_genes, logger, writable

FORMAT: Final = 2
_JSON: Final = "model.json"
_TENSORS: Final = "tensors.safetensors"
_ADATA: Final = "adata.h5ad"


class SavingMixin(ModelBase):
    """`save` and `load`."""

    def save(self, dir_path: str | os.PathLike[str], overwrite: bool = False, save_anndata: bool = False) -> None:
        """Write the model to a folder: `model.json` and `tensors.safetensors`.

        The folder takes its place only when complete: a save that fails or is killed leaves an older one intact.

        Parameters
        ----------
        dir_path
            The folder.
        overwrite
            Whether an existing folder is replaced. Cells stored in it are replaced with `save_anndata=True` only.
        save_anndata
            Whether the AnnData is written too, as `adata.h5ad`.

        Raises
        ------
        FileExistsError
            If the folder exists and `overwrite` is false, or it holds other files, or cells that would be lost.
        """
        check_place(dir_path, overwrite, save_anndata)
        folder = Path(dir_path).resolve()
        folder.parent.mkdir(parents=True, exist_ok=True)
        tensors = {f"module.{k}": v.detach().cpu().contiguous() for k, v in self.module.state_dict().items()}
        tensors |= {f"effects.{k}": torch.from_numpy(v) for k, v in self.effects_model.state().items()}
        arrays: dict[str, torch.Tensor] = {}
        description = {
            "format": FORMAT,
            "class": type(self).__name__,
            "unlasting_version": version("unlasting"),
            "preset": self._preset_name,
            "options": self.preset.to_dict(),
            "is_trained": bool(self.is_trained_),
            "var_names": self.get_var_names(),
            "preparation": _to_json(self.preparation_, arrays, "preparation"),
            "registry": _to_json(self.registry_, arrays, "registry"),
            "history": {
                name: [frame.index.tolist(), frame[name].tolist()] for name, frame in (self.history_ or {}).items()
            },
        }
        with replacing_folder(folder) as building:
            # A tensor that two entries share is written for each, as safetensors asks.
            content = save({k: v.clone() for k, v in {**tensors, **arrays}.items()})
            (building / _TENSORS).write_bytes(content)  # not by safetensors, whose files others may not read
            if save_anndata:
                self._write_cells(building / _ADATA)
            description["files"] = {file.name: _checksum(file) for file in sorted(building.iterdir())}
            description["sha256"] = _checksum_of(description)
            (building / _JSON).write_text(json.dumps(description, indent=1), encoding="utf-8")

    def _write_cells(self, path: Path) -> None:
        """Write the model's cells; a failure is logged, and the model is saved without them."""
        try:
            (self.adata if self.adata.isbacked else writable(self.adata)).write_h5ad(path)
        except Exception as error:  # nothing else may stand between a training and its weights
            if is_disk_full(error, path):
                raise
            path.unlink(missing_ok=True)
            logger.warning(
                "The model is saved without its cells, which h5ad cannot hold: %s. Convert or drop the entry, and write them "
                "yourself: `model.adata.write_h5ad(...)`.",
                error,
            )

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
            The screen, prepared as for training; a MuData if the model was set up with one. `None`: the folder's
            `adata.h5ad`, if present. `False`: none; `generate` then needs `controls`.
        accelerator, device
            Hardware for the model.

        Returns
        -------
        The model.

        Raises
        ------
        FileNotFoundError
            If the folder holds no model.
        ValueError
            If the files are damaged, from another program or a newer format, or the genes differ.
        TypeError
            If `adata` has another type.
        """
        if not (adata is None or adata is False or isinstance(adata, AnnData | MuData)):
            raise TypeError(
                f"`adata` is of type {type(adata).__name__}. Give an AnnData, a MuData, `False` or nothing."
            )
        folder = standing(Path(dir_path).resolve())
        description = _read_description(folder, cls.__name__)
        tensors = _read_tensors(folder, description["files"])
        registry = _from_json(description["registry"], tensors)
        if adata is None and (folder / _ADATA).exists():
            import anndata

            _check_file(folder / _ADATA, description["files"])
            adata = anndata.read_h5ad(folder / _ADATA)
        setup = dict(registry["setup_args"])
        modalities = setup.pop("modalities", None)
        preparation = _from_json(description["preparation"], tensors)
        given = modality_of(adata, modalities) if isinstance(adata, MuData) else adata if adata is not False else None
        if given is not None:
            check_cells(given)
            check_genes(given, description["var_names"])
            check_scale(given, setup["layer"], preparation)
        if isinstance(adata, MuData):
            cls.setup_mudata(adata, source_registry=registry, modalities=modalities, **setup)
        elif given is not None:
            cls.setup_anndata(given, source_registry=registry, **setup)
        options = vars(Preset.from_dict(description["options"]))
        model = cls(given, None if given is not None else registry, preset=description["preset"], **options)
        model.var_names_ = description["var_names"]
        model.preparation_ = preparation
        networks, effects = (
            {k.removeprefix(f"{part}."): v for k, v in tensors.items() if k.startswith(f"{part}.")}
            for part in ("module", "effects")
        )
        model.module.load_state_dict(networks)
        state = {k: v.numpy() for k, v in effects.items()}
        model.module.use_effects(EffectsModel.from_state(state, model.vocabulary))
        model.is_trained_ = description["is_trained"]
        model.history_ = {
            name: pd.DataFrame({name: values}, index=pd.Index(steps, name="step"), dtype=float)
            for name, (steps, values) in description["history"].items()
        }
        _, _, torch_device = parse_device_args(accelerator, device, return_device="torch", validate_single_device=True)
        model.to_device(torch_device)
        model.module.eval()
        return model


def check_place(path: str | os.PathLike[str], overwrite: bool, save_anndata: bool) -> None:
    """Refuse to save a model where a model, other files or cells would be lost."""
    folder = standing(Path(path).resolve())
    if folder.exists() and not overwrite:
        raise FileExistsError(f"{os.fspath(path)!r} exists already. Pass `overwrite=True` to replace it.")
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{os.fspath(path)!r} is a file, and a model is a folder. Choose another name.")
    others = sorted(file.name for file in folder.glob("*") if file.name not in (_JSON, _TENSORS, _ADATA))
    if others:
        raise FileExistsError(
            f"{os.fspath(path)!r} holds other files than a saved model ({others[0]!r} is one), which would be lost. Move "
            "them, or choose another folder."
        )
    if (folder / _ADATA).exists() and not save_anndata:
        raise FileExistsError(
            f"{os.fspath(path)!r} holds cells ({_ADATA!r}), which would be lost. Pass `save_anndata=True` to write this "
            "model's cells in their place, move the file, or choose another folder."
        )


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checksum_of(description: dict[str, Any]) -> str:
    """Get the checksum of all entries but itself."""
    text = json.dumps({key: value for key, value in description.items() if key != "sha256"}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _check_file(path: Path, checksums: dict[str, str]) -> None:
    """Refuse a file that changed after saving; one added later has no checksum."""
    if path.name in checksums and _checksum(path) != checksums[path.name]:
        way_out = "Pass the cells as `adata`." if path.name == _ADATA else "Save the model again."
        raise ValueError(
            f"`{path.name}` in {str(path.parent)!r} is damaged or was changed: its checksum differs. {way_out}"
        )


def _read_description(folder: Path, name: str) -> dict[str, Any]:
    if not (folder / _JSON).is_file() or not (folder / _TENSORS).is_file():
        raise FileNotFoundError(
            f"{str(folder)!r} holds no saved model: `{_JSON}` and `{_TENSORS}` are expected there. Give the folder that "
            "`save` wrote."
        )
    place = f"`{_JSON}` in {str(folder)!r}"
    try:
        description = json.loads((folder / _JSON).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{place} is damaged ({error}). Save the model again.") from error
    found = description if isinstance(description, dict) else {}
    if found.get("class") != name or not isinstance(found.get("format"), int):
        raise ValueError(f"{place} does not describe a saved {name}. Give the folder that its `save` wrote.")
    if not 1 <= found["format"] <= FORMAT:
        raise ValueError(
            f"{str(folder)!r} was saved by unlasting {found.get('unlasting_version')} in format {found['format']}; this "
            f"version reads formats 1 to {FORMAT}. Update unlasting."
        )
    if found.get("sha256") != _checksum_of(found):
        raise ValueError(f"{place} is damaged or was changed: its checksum differs. Save the model again.")
    return found


def _read_tensors(folder: Path, checksums: dict[str, str]) -> dict[str, torch.Tensor]:
    path = folder / _TENSORS
    _check_file(path, checksums)
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"`{_TENSORS}` in {str(folder)!r} cannot be read ({error}). Save the model again.") from error


def _to_json(value: Any, arrays: dict[str, torch.Tensor], name: str) -> Any:
    """Write nested containers and option classes as JSON; numeric arrays go to the tensors, by name."""
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
    raise TypeError(
        f"`{name}` is of type {type(value).__name__}, which cannot be saved as JSON. Give text, numbers, arrays or lists."
    )


def _from_json(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """Read the output of :func:`_to_json`."""
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
