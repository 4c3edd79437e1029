"""One function for the file of each tool."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from anndata import AnnData

from unlasting.io._arrays import read_arrays

PERTURBATION = ("perturbation", "condition", "condition_harm", "target_gene", "target", "gene", "pert", "drug")
CELL_TYPE = ("cell_type", "celltype", "cell_line", "cell_name", "context")
DOSE = ("dose", "dose_val", "dosage", "dose_value")
COMBINED = "cov_drug_dose_name"
MICROMOLAR = {"pM": 1e-6, "nM": 1e-3, "uM": 1.0, "µM": 1.0, "μM": 1.0, "mM": 1e3, "M": 1e6}


def gears(path: Path, genes: Sequence[str] | None) -> AnnData:
    """Read GEARS: a dictionary of `model.predict` (`A_B`: mean profile), or of `evaluate` (`pred`, `pert_cat`).

    Parameters
    ----------
    path
        A `.pkl`, `.npz` or `.csv` file, or an `.h5ad` file with `obs["condition"]`.
    genes
        Names of the genes (`pert_data.adata.var["gene_name"]`), where the file lacks them.

    Returns
    -------
    One row for each prediction.
    """
    return _of_genes(path, genes)


def scgpt(path: Path, genes: Sequence[str] | None) -> AnnData:
    """Read scGPT: a dictionary of `predict` (`A_B`: cells), or of `eval_perturb` (`pred`, `pert_cat`).

    Parameters
    ----------
    path
        A `.pkl` or `.npz` file, or an `.h5ad` file with `obs["condition"]`.
    genes
        Names of the genes, where the file lacks them.

    Returns
    -------
    One row for each prediction.
    """
    return _of_genes(path, genes)


def grape(path: Path, genes: Sequence[str] | None) -> AnnData:
    """Read GRAPE, which writes the dictionaries of GEARS.

    Parameters
    ----------
    path
        A `.pkl`, `.npz` or `.csv` file, or an `.h5ad` file with `obs["condition"]`.
    genes
        Names of the genes, where the file lacks them.

    Returns
    -------
    One row for each prediction.
    """
    return _of_genes(path, genes)


def cpa(path: Path, genes: Sequence[str] | None) -> AnnData:
    """Read CPA: the AnnData after `model.predict`, with the cells in `obsm["CPA_pred"]`.

    Parameters
    ----------
    path
        An `.h5ad` file.
    genes
        Not needed.

    Returns
    -------
    One row for each cell; counts if the model was trained with `recon_loss="nb"`.
    """
    return _of_cells(_h5ad(path), obsm="CPA_pred")


def chemcpa(path: Path, genes: Sequence[str] | None) -> AnnData:
    """Read chemCPA: cells with `obs["cov_drug_dose_name"]`, or a dictionary of `celltype_drug_dose`: cells or mean.

    Parameters
    ----------
    path
        An `.h5ad` file (`X`, or `obsm["ChemCPA_pred"]`), or a `.pkl` or `.npz` file.
    genes
        Names of the genes, where the file lacks them.

    Returns
    -------
    One row for each prediction.
    """
    return _of_drugs(path, genes, "ChemCPA_pred")


def graphvci(path: Path, genes: Sequence[str] | None) -> AnnData:
    """Read GraphVCI: cells with the labels of CPA, or a dictionary of `celltype_perturbation_dose`: cells or mean.

    Parameters
    ----------
    path
        An `.h5ad` file (`X`), or a `.pkl` or `.npz` file.
    genes
        Names of the genes, where the file lacks them.

    Returns
    -------
    One row for each prediction.
    """
    return _of_drugs(path, genes, None)


def cellflow(path: Path, genes: Sequence[str] | None) -> AnnData:
    """Read CellFlow: cells in `layers["X_recon"]` (or `X`), or a dictionary of condition: cells in gene space.

    Parameters
    ----------
    path
        An `.h5ad` file, or a `.pkl` or `.npz` file.
    genes
        Names of the genes, where the file lacks them.

    Returns
    -------
    One row for each cell.
    """
    if path.suffix != ".h5ad":
        return _stacked(read_arrays(path), genes, path)
    return _of_cells(_h5ad(path), layer="X_recon")


def state(path: Path, genes: Sequence[str] | None) -> AnnData:
    """Read STATE: `adata_pred.h5ad` of `state tx predict`. Labels such as `[('drug', 0.5, 'uM')]` become drug and dose.

    Parameters
    ----------
    path
        An `.h5ad` file.
    genes
        Not needed.

    Returns
    -------
    One row for each cell.
    """
    adata = _h5ad(path)
    if "drugname_drugconc" in adata.obs:
        parsed = {label: _concentration(label) for label in adata.obs["drugname_drugconc"].astype(str).unique()}
        both = adata.obs["drugname_drugconc"].astype(str).map(parsed)
        adata.obs["perturbation"], adata.obs["dose"] = both.str[0], both.str[1]
    return _of_cells(adata)


def scgen(path: Path, genes: Sequence[str] | None) -> AnnData:
    """Read scGen: the AnnData that `model.predict` returns, with `obs["condition"]` and `obs["cell_type"]`.

    Parameters
    ----------
    path
        An `.h5ad` file.
    genes
        Not needed.

    Returns
    -------
    One row for each cell. Where `condition` is `pred`, name the `perturbation` in :func:`read_predictions`.
    """
    return _of_cells(_h5ad(path))


def cell_eval(path: Path, genes: Sequence[str] | None) -> AnnData:
    """Read the predicted part of a pair for cell-eval or cell-eval2, with `obs["target_gene"]` or `obs["target"]`.

    Parameters
    ----------
    path
        An `.h5ad` file.
    genes
        Not needed.

    Returns
    -------
    One row for each cell: counts or log-normalised expression, as written.
    """
    return _of_cells(_h5ad(path))


def assemble(matrix: Any, genes: Iterable[str], columns: Mapping[str, Any]) -> AnnData:
    """Make an AnnData of predictions with unique names.

    Parameters
    ----------
    matrix
        Values, shape `(n_rows, n_genes)`.
    genes
        Names of the genes.
    columns
        Columns of `obs`, each of length `n_rows`.

    Returns
    -------
    The AnnData.
    """
    obs = pd.DataFrame({key: np.asarray(values, dtype=object) for key, values in columns.items()})
    obs.index = "prediction-" + obs.index.astype(str)
    return AnnData(matrix, obs=obs.astype("category"), var=pd.DataFrame(index=pd.Index(genes).astype(str)))


def _h5ad(path: Path) -> AnnData:
    if path.suffix != ".h5ad":
        raise ValueError(f"{path} is no '.h5ad' file. Write the cells of this tool with `adata.write_h5ad(path)`.")
    return anndata.read_h5ad(path)


def _of_genes(path: Path, genes: Sequence[str] | None) -> AnnData:
    """Read predictions of gene perturbations, whose labels join the targets by an underscore or a plus."""
    if path.suffix == ".h5ad":
        return _of_cells(_h5ad(path))
    found = _stacked(read_arrays(path), genes, path)
    names = set(found.var_names)
    labels = found.obs["perturbation"].astype(str)
    joined = labels.map(lambda label: label if label in names or "+" in label else label.replace("_", "+"))
    found.obs["perturbation"] = joined.astype("category")
    return found


def _of_drugs(path: Path, genes: Sequence[str] | None, obsm: str | None) -> AnnData:
    if path.suffix == ".h5ad":
        return _of_cells(_h5ad(path), obsm=obsm)
    found = _stacked(read_arrays(path), genes, path)
    return assemble(found.X, found.var_names, _split_labels(found.obs["perturbation"], path))


def _stacked(arrays: dict[str, Any], genes: Sequence[str] | None, path: Path) -> AnnData:
    """Stack arrays by condition, or take `pred` with `pert_cat`."""
    names = next((arrays.pop(key) for key in ("gene_names", "genes") if key in arrays), genes)
    if "pred" in arrays:
        labels = arrays.get("pert_cat", arrays.get("conditions"))
        if labels is None:
            raise ValueError(f"{path} has 'pred' without 'pert_cat'. Save the condition of every row as 'pert_cat'.")
        blocks, labels = [np.asarray(arrays["pred"])], np.asarray(labels, dtype=str)
    else:
        blocks = [np.atleast_2d(np.asarray(values)) for values in arrays.values()]
        labels = np.repeat([str(label) for label in arrays], [len(block) for block in blocks])
    if not blocks or len({block.shape[1] for block in blocks}) != 1:
        raise ValueError(
            f"{path} holds no predictions, or arrays with different numbers of genes. Save one array a condition."
        )
    matrix = np.vstack(blocks).astype(np.float32)
    if names is None:
        raise ValueError(
            f"{path} does not name its {matrix.shape[1]} genes. Give them: `genes=[...]` in the order of the model."
        )
    if len(names) != matrix.shape[1] or len(labels) != len(matrix):
        raise ValueError(
            f"{path} holds predictions of shape {matrix.shape} with {len(labels)} labels, but {len(names)} genes are named. "
            "Give one name for each column and one label for each row."
        )
    return assemble(matrix, names, {"perturbation": labels})


def _of_cells(adata: AnnData, *, obsm: str | None = None, layer: str | None = None) -> AnnData:
    """Take the cells of an AnnData with their labels."""
    if obsm is not None and obsm in adata.obsm:
        matrix = np.asarray(adata.obsm[obsm])
    elif layer is not None and layer in adata.layers:
        matrix = adata.layers[layer]
    else:
        matrix = adata.X
    if COMBINED in adata.obs and not any(key in adata.obs for key in PERTURBATION):
        columns = _split_labels(adata.obs[COMBINED], COMBINED)
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
    for key in ("gene_name", "gene_symbol", "gene_symbols"):
        if key in adata.var:
            found.var[key] = np.asarray(adata.var[key].astype(str))
    return found


def _split_labels(labels: Iterable[str], origin: object) -> dict[str, list[str]]:
    """Split `celltype_drug_dose`."""
    parts = [(*str(label).split("_", 1)[:1], *str(label).split("_", 1)[-1].rsplit("_", 1)) for label in labels]
    wrong = [label for label, part in zip(labels, parts, strict=True) if len(part) != 3]
    if wrong:
        raise ValueError(f"{origin} holds the label {wrong[0]!r}. Labels of this tool are 'celltype_drug_dose'.")
    return {name: [part[i] for part in parts] for i, name in enumerate(("cell_type", "perturbation", "dose"))}


def _concentration(label: str) -> tuple[str, str]:
    """Read `[('drug', 0.5, 'uM')]`, or several of them."""
    try:
        drugs = [(str(name), float(dose) * MICROMOLAR[str(unit)]) for name, dose, unit in ast.literal_eval(label)]
    except (ValueError, SyntaxError, KeyError, TypeError):
        return label, ""
    drugs.sort()
    return "+".join(name for name, _ in drugs), "+".join(f"{dose:g}" for _, dose in drugs)
