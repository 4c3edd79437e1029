"""Drugs at four doses in three cell lines, and their structures."""

from __future__ import annotations

from os import PathLike

import numpy as np
import pandas as pd
from anndata import AnnData

from unlasting.datasets._screens import SOURCES
from unlasting.pp._sciplex3_drugs import drug_table, table_name
from unlasting.screen import ScreenKeys


def sciplex3(*, hours: int | None = 24, cache: str | PathLike[str] | None = None) -> AnnData:
    """188 drugs at four doses in three cell lines (several GB to download, and as much memory).

    Up to 760,000 cells. Cells without an assigned drug and cell line are left out. The published file names each gene by
    its neighbour, because the header of the gene table was read as a gene; this is corrected.

    Continue with `ul.pp.split(adata, "unseen_drug", method="published")` or `ul.pp.split(adata, "unseen_dose")`, and
    `ul.pp.prepare(adata, n_top_genes=2000)`, the number of genes in published evaluations.

    Parameters
    ----------
    hours
        Hours of treatment: 24, in all cell lines, or 72, in A549 with a quarter of the drugs. `None` keeps both.
    cache
        Folder for downloaded files; by default the cache folder of the operating system.

    Returns
    -------
    Raw counts in `X`, with `obs["perturbation"]` (the drug), `obs["dose"]` in uM (0.01, 0.1, 1 and 10; 0 for controls),
    `obs["smiles"]`, `obs["cell_type"]` (the cell line) and `obs["hours"]`. The keys are recorded in
    `uns["unlasting"]["keys"]`, with `" + "` as the delimiter, because drug names contain `+`.

    Raises
    ------
    ValueError
        If the file holds no cells after `hours`.

    References
    ----------
    Srivatsan et al. (2020), Science 367, 45-51; harmonised by Peidli et al. (2024), Nature Methods 21, 531-540.
    """
    adata = _with_own_genes(SOURCES["sciplex3"].load(cache))
    adata.obs["hours"] = adata.obs["time"].astype(float).to_numpy()
    if hours is not None:
        adata = adata[adata.obs["hours"] == hours].copy()
    if adata.n_obs == 0:
        raise ValueError(
            f"`hours` is {hours}, but sci-Plex3 was measured after 24 and 72 hours: choose one, or `None`."
        )
    control = (adata.obs["perturbation"] == "control").to_numpy()
    adata.obs["dose"] = np.where(control, 0.0, adata.obs["dose_value"].astype(float) / 1000)  # published in nM
    smiles = drug_table().set_index("name")["smiles"]
    names = adata.obs["perturbation"].astype(str)
    structures = {name: smiles.get(table_name(name)) for name in names.unique() if name != "control"}
    adata.obs["smiles"] = names.map(structures).mask(control, "").astype("category")
    ScreenKeys(cell_type_key="cell_type", dose_key="dose", smiles_key="smiles", delimiter=" + ").write(adata)
    return adata


def sciplex3_drugs() -> pd.DataFrame:
    """Names and structures of the drugs in sci-Plex3, without their cells.

    187 drugs under their usual short names, the first word of the product (`Trametinib` for `Trametinib (GSK1120212)`).
    `Divalproex` and `Valproic` are salts of one molecule.

    Returns
    -------
    A frame with `name`, `smiles` (as published, with salts), and `ood` and `ood_epigenetic`: membership in the chemCPA lists
    with 9 and 8 out-of-distribution drugs.

    References
    ----------
    Srivatsan et al. (2020), Science 367, 45-51; Hetzel et al. (2022), NeurIPS 35, 26711-26722, from whose MIT-licensed
    repository chemCPA the table is taken.

    Examples
    --------
    >>> import unlasting as ul
    >>> table = ul.datasets.sciplex3_drugs()
    >>> table.loc[table["ood"], "name"].tolist()[:3]
    ['CUDC-101', 'CUDC-907', 'Dacinostat']
    """
    return drug_table()


def _with_own_genes(adata: AnnData) -> AnnData:
    """Give each gene its own name where the header of the gene table was taken for the first gene."""
    table = adata.var["ensembl_id"].astype(str).to_numpy() if "ensembl_id" in adata.var else None
    if table is None or not table[0].startswith("id"):
        return adata
    adata = adata[:, :-1].copy()  # the last gene has no name
    adata.var_names = [entry.split()[-1] for entry in table[1:]]
    adata.var = adata.var[[]]
    adata.var_names_make_unique()
    return adata
