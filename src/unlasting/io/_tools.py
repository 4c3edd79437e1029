"""Readers for files from other tools."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import anndata
import numpy as np
import pandas as pd
from anndata import AnnData

from unlasting.io._arrays import read_arrays
from unlasting.screen import MICROMOLAR

PERTURBATION = ("perturbation", "condition", "condition_harm", "target_gene", "target", "gene", "pert", "drug")
CELL_TYPE = ("cell_type", "celltype", "cell_line", "cell_name", "context")
DOSE = ("dose", "dose_val", "dosage", "dose_value")
COMBINED = ("cov_drug_dose_name", "cov_pert_dose")


def read_genes(path: Path, genes: Sequence[str] | None) -> AnnData:
    """Read GEARS, GRAPE or scGPT: a dictionary `{"A_B": profile or cells}`, `pred` with `pert_cat`, or an `.h5ad`.

    Labels join the targets by an underscore or a plus.
    """
    if path.suffix == ".h5ad":
        return read_cells(path, genes)
    found = _stacked(read_arrays(path), genes, path)
    names = set(found.var_names)
    labels = found.obs["perturbation"].astype(str)
    joined = labels.map(lambda label: label if label in names or "+" in label else label.replace("_", "+"))
    found.obs["perturbation"] = joined.astype("category")
    return found


def read_drugs(path: Path, genes: Sequence[str] | None, obsm: str | None = None) -> AnnData:
    """Read chemCPA or GraphVCI: a dictionary by `celltype_drug_dose`, or an `.h5ad` with such labels.

    Entries are cells, a mean, or chemCPA's list of truth, prediction and DE genes.
    """
    if path.suffix == ".h5ad":
        return read_cells(path, genes, obsm=obsm)
    arrays = {label: _prediction(entry) for label, entry in read_arrays(path).items()}
    found = _stacked(arrays, genes, path)
    return assemble(found.X, found.var_names, _split_labels(found.obs["perturbation"], path))


def read_cellflow(path: Path, genes: Sequence[str] | None) -> AnnData:
    """Read CellFlow: cells in `layers["X_recon"]` (or `X`), or `{"condition": cells}` in gene space."""
    if path.suffix != ".h5ad":
        return _stacked(read_arrays(path), genes, path)
    return read_cells(path, genes, layer="X_recon")


def read_state(path: Path, genes: Sequence[str] | None) -> AnnData:
    """Read STATE: `adata_pred.h5ad`. Labels such as `[('drug', 0.5, 'uM')]` become drug and dose."""
    adata = _h5ad(path, genes)
    if "drugname_drugconc" in adata.obs:
        parsed = {label: _concentration(label) for label in adata.obs["drugname_drugconc"].astype(str).unique()}
        both = adata.obs["drugname_drugconc"].astype(str).map(parsed)
        adata.obs["perturbation"], adata.obs["dose"] = both.str[0], both.str[1]
    return _labelled(adata)


def read_cells(
    path: Path, genes: Sequence[str] | None, *, obsm: str | None = None, layer: str | None = None
) -> AnnData:
    """Read an `.h5ad` with labelled cells, from `obsm`, a layer or `X`: CPA, scGen, cell-eval."""
    return _labelled(_h5ad(path, genes), obsm=obsm, layer=layer)


TOOLS: Final[dict[str, Callable[[Path, Sequence[str] | None], AnnData]]] = {
    "gears": read_genes,
    "cpa": partial(read_cells, obsm="CPA_pred"),
    "chemcpa": partial(read_drugs, obsm="ChemCPA_pred"),
    "graphvci": read_drugs,
    "scgpt": read_genes,
    "grape": read_genes,
    "cellflow": read_cellflow,
    "state": read_state,
    "scgen": read_cells,
    "cell-eval": read_cells,
}
"""Readers by tool, from a path and the gene names that the file may lack."""


def assemble(matrix: Any, genes: Iterable[str], columns: Mapping[str, Any]) -> AnnData:
    """Make an AnnData from values `(n_rows, n_genes)`, gene names and columns for `obs`, with unique names."""
    obs = pd.DataFrame({key: np.asarray(values, dtype=object) for key, values in columns.items()})
    obs.index = "prediction-" + obs.index.astype(str)
    return AnnData(matrix, obs=obs.astype("category"), var=pd.DataFrame(index=pd.Index(genes).astype(str)))


def _h5ad(path: Path, genes: Sequence[str] | None) -> AnnData:
    """Read an AnnData; `genes` replace its gene names, as some tools write none."""
    if path.suffix != ".h5ad":
        raise ValueError(f"{path} is no '.h5ad' file. Write the cells with `adata.write_h5ad(path)`.")
    adata = anndata.read_h5ad(path)
    if genes is not None:
        _check_names(genes, adata.n_vars, path)
        adata.var = pd.DataFrame(index=pd.Index(genes).astype(str))
    return adata


def _check_names(genes: Sequence[str], n_genes: int, path: Path) -> None:
    if len(genes) != n_genes:
        raise ValueError(
            f"{path} has {n_genes} genes, but {len(genes)} genes are named. Give one name for each column."
        )


def _stacked(arrays: dict[str, Any], genes: Sequence[str] | None, path: Path) -> AnnData:
    """Stack arrays by condition, or take `pred` with `pert_cat`."""
    names = next((arrays.pop(key) for key in ("gene_names", "genes") if key in arrays), genes)
    if "pred" in arrays:
        labels = arrays.get("pert_cat", arrays.get("conditions"))
        if labels is None:
            raise ValueError(f"{path} has 'pred' without 'pert_cat'. Save each row's condition as 'pert_cat'.")
        blocks, labels = [np.asarray(arrays["pred"])], np.asarray(labels, dtype=str)
    else:
        blocks = [np.atleast_2d(np.asarray(values)) for values in arrays.values()]
        labels = np.repeat([str(label) for label in arrays], [len(block) for block in blocks])
    if not blocks or len({block.shape[1] for block in blocks}) != 1:
        raise ValueError(
            f"{path} holds no predictions, or arrays with different numbers of genes. Save one array per condition."
        )
    matrix = np.vstack(blocks).astype(np.float32)
    if names is None:
        raise ValueError(
            f"{path} does not name its {matrix.shape[1]} genes. Give them: `genes=[...]` in the model's order."
        )
    _check_names(names, matrix.shape[1], path)
    if len(labels) != len(matrix):
        raise ValueError(
            f"{path} has {len(matrix)} predictions with {len(labels)} labels. Give one label for each row."
        )
    return assemble(matrix, names, {"perturbation": labels})


def _prediction(entry: Any) -> Any:
    """Take the prediction from chemCPA's list `[truth, prediction, DE genes]`."""
    return entry[1] if isinstance(entry, list) and len(entry) == 3 and np.ndim(entry[0]) else entry


def _labelled(adata: AnnData, *, obsm: str | None = None, layer: str | None = None) -> AnnData:
    """Take the cells with their labels."""
    if obsm is not None and obsm in adata.obsm:
        matrix = np.asarray(adata.obsm[obsm])
    elif layer is not None and layer in adata.layers:
        matrix = adata.layers[layer]
    else:
        matrix = adata.X
    combined = next((key for key in COMBINED if key in adata.obs), None)
    if combined is not None and not any(key in adata.obs for key in PERTURBATION):
        columns = _split_labels(adata.obs[combined], combined)
    else:
        columns = {
            name: adata.obs[key].astype(str)
            for name, keys in (("perturbation", PERTURBATION), ("cell_type", CELL_TYPE), ("dose", DOSE))
            for key in [next((key for key in keys if key in adata.obs), None)]
            if key is not None
        }
    if "perturbation" not in columns:
        raise ValueError(
            f"The predictions have the columns {list(adata.obs.columns)}, and none is a perturbation. Name it 'perturbation'."
        )
    found = assemble(matrix, adata.var_names, columns)
    found.var = adata.var.set_axis(found.var_names)
    return found


def _split_labels(labels: Iterable[str], origin: object) -> dict[str, list[str]]:
    """Split labels `celltype_drug_dose`."""
    parts = [(*str(label).split("_", 1)[:1], *str(label).split("_", 1)[-1].rsplit("_", 1)) for label in labels]
    wrong = [label for label, part in zip(labels, parts, strict=True) if len(part) != 3]
    if wrong:
        raise ValueError(f"{origin} holds the label {wrong[0]!r}. Write labels as 'celltype_drug_dose'.")
    return {name: [part[i] for part in parts] for i, name in enumerate(("cell_type", "perturbation", "dose"))}


def _concentration(label: str) -> tuple[str, str]:
    """Read `[('drug', 0.5, 'uM')]`, or several drugs."""
    try:
        drugs = [(str(name), float(dose) * MICROMOLAR[str(unit)]) for name, dose, unit in ast.literal_eval(label)]
    except (ValueError, SyntaxError, KeyError, TypeError):
        return label, ""
    drugs.sort()
    return "+".join(name for name, _ in drugs), "+".join(f"{dose:g}" for _, dose in drugs)
