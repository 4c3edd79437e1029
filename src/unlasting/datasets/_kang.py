"""The shipped screen with interferon beta in blood cells."""

from __future__ import annotations

from anndata import AnnData

from unlasting.datasets._source import shipped
from unlasting.screen import ScreenKeys


def kang() -> AnnData:
    """Blood cells with and without interferon beta.

    2,800 peripheral blood mononuclear cells (1,310 controls), 14,053 genes and 13 cell types, for prediction in unseen
    cell types. The perturbation `IFNB` is a stimulus, not a gene.

    Returns
    -------
    Raw counts in `X`, with `obs["perturbation"]` and `obs["cell_type"]`. `uns["unlasting"]["dataset"]` holds the name,
    and `uns["unlasting"]["keys"]` records the column with the cell types.

    References
    ----------
    Kang et al. (2018), Nature Biotechnology 36, 89-94. GEO accession GSE96583. Taken from the MIT-licensed package
    rDeepMAPS.
    """
    adata = shipped("kang", "kang2018_ifnb2800.h5ad")
    ScreenKeys(cell_type_key="cell_type").write(adata)
    return adata
