"""The shipped ECCITE-seq screen in THP-1 cells."""

from __future__ import annotations

from anndata import AnnData

from unlasting.datasets._source import shipped


def papalexi() -> AnnData:
    """CRISPR knock-outs in stimulated THP-1 cells.

    The ECCITE-seq screen for regulators of PD-L1: 16,093 cells (1,912 controls), 25 single targets, and 299 genes
    sub-sampled by its distributors. Only 9 targets are measured. IFNGR1, IFNGR2, JAK2, STAT1, SMAD4 and IRF1 have clear
    effects, CUL3, STAT2 and BRD4 weaker ones; about half the targets have none.

    Returns
    -------
    Raw counts in `X`, with `obs["perturbation"]`, `obs["guide"]`, `obs["batch"]` (three replicates) and
    `obs["cell_type"]`. `uns["unlasting"]["dataset"]` holds the name.

    References
    ----------
    Papalexi et al. (2021), Nature Genetics 53, 322-331. GEO accession GSE153056. Taken from the MIT-licensed
    Bioconductor package sceptredata.
    """
    return shipped("papalexi", "papalexi2021_thp1.h5ad")
