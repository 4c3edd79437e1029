"""Small real screens that ship with the package, so that a first look needs no download."""

from __future__ import annotations

from importlib.resources import as_file, files

import anndata
import pandas as pd
from anndata import AnnData

from unlasting.pp._sciplex3_drugs import drug_table
from unlasting.screen import UNS_KEY


def papalexi() -> AnnData:
    """CRISPR knock-outs in stimulated THP-1 cells.

    The ECCITE-seq screen of regulators of PD-L1, 16,093 cells (1,912 controls) and 25 single targets, on 299 genes
    that its distributors sub-sampled. Only 9 of the targets are among the genes. IFNGR1, IFNGR2, JAK2, STAT1, SMAD4
    and IRF1 have clear effects, CUL3, STAT2 and BRD4 weaker ones; about half of the targets have none.

    Returns
    -------
    Raw counts in `X`, with `obs["perturbation"]`, `obs["guide"]`, `obs["batch"]` (three replicates) and
    `obs["cell_type"]`. The name of the data set is in `uns["unlasting"]["dataset"]`.

    References
    ----------
    Papalexi et al. (2021), Nature Genetics 53, 322-331. GEO accession GSE153056. Taken from the MIT-licensed
    Bioconductor package sceptredata.
    """
    return _read("papalexi", "papalexi2021_thp1.h5ad")


def norman_mini() -> AnnData:
    """CRISPR activation of single genes and pairs in K562 cells, a small part of the screen.

    3,375 cells (100 controls), 500 genes, 18 single targets and 15 pairs of at most 100 cells each. One target,
    TMSB4X, is among the genes. Activation raises the expression of the target. Normalise by the library size over the
    whole transcriptome, `ul.pp.prepare(adata, library_size_key="ncounts_full", target_sum=1e4)`: 500 genes do not
    tell it.

    Returns
    -------
    Raw counts in `X`, with `obs["perturbation"]` (`A+B` for a pair), `obs["ncounts_full"]` and `obs["cell_type"]`.
    The name of the data set is in `uns["unlasting"]["dataset"]`.

    References
    ----------
    Norman et al. (2019), Science 365, 786-793. GEO accession GSE133344. Taken from the BSD-3-Clause-licensed
    repository perturbench.
    """
    return _read("norman_mini", "norman2019_k562_mini.h5ad")


def kang() -> AnnData:
    """Blood cells with and without interferon beta.

    2,800 peripheral blood mononuclear cells (1,310 controls), 14,053 genes and 13 cell types, for prediction in a
    cell type whose perturbed cells were never seen. The perturbation `IFNB` is a stimulus, not a gene.

    Returns
    -------
    Raw counts in `X`, with `obs["perturbation"]` and `obs["cell_type"]`. The name of the data set is in
    `uns["unlasting"]["dataset"]`.

    References
    ----------
    Kang et al. (2018), Nature Biotechnology 36, 89-94. GEO accession GSE96583. Taken from the MIT-licensed package
    rDeepMAPS.
    """
    return _read("kang", "kang2018_ifnb2800.h5ad")


def sciplex3_drugs() -> pd.DataFrame:
    """Names and structures of the drugs of sci-Plex3, without their cells.

    187 drugs under the short names that are usual for this screen, the first word of the product (`Trametinib` for
    `Trametinib (GSK1120212)`). Two of them, `Divalproex` and `Valproic`, are salts of one molecule.

    Returns
    -------
    A frame with `name`, `smiles` (as published, with salts), and `ood` and `ood_epigenetic`: whether the drug is in
    the lists of 9 and of 8 out-of-distribution drugs that chemCPA is judged on.

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


def _read(name: str, file: str) -> AnnData:
    """Read a shipped file and note which data set it is."""
    with as_file(files("unlasting.datasets") / "_data" / file) as path:
        adata = anndata.read_h5ad(path)
    adata.uns[UNS_KEY] = {"dataset": name}
    return adata
