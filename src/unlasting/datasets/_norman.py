"""CRISPR activation in K562 cells: the full screen, and the shipped part."""

from __future__ import annotations

from os import PathLike

from anndata import AnnData

from unlasting.datasets._source import Source, shipped

SOURCE = Source(
    "norman",
    "https://zenodo.org/records/10044268/files/NormanWeissman2019_filtered.h5ad",
    "md5:c870e6967d91c017d9da827bab183cd6",
    lambda published: published.replace("_", "+"),
)


def norman(*, cache: str | PathLike[str] | None = None) -> AnnData:
    """CRISPR activation for single genes and pairs in K562 cells (700 MB to download).

    About 111,000 cells (11,855 controls), 33,694 genes, 105 single targets and 131 pairs.

    Parameters
    ----------
    cache
        Folder for downloaded files; by default the cache folder of the operating system.

    Returns
    -------
    Raw counts in `X`, with `obs["perturbation"]` (`A+B` for a pair), `obs["cell_type"]` and
    `obs["published_label"]`.

    Raises
    ------
    ConnectionError
        If the file cannot be downloaded.
    ValueError
        If the file is not the expected one.

    References
    ----------
    Norman et al. (2019), Science 365, 786-793; harmonised by Peidli et al. (2024), Nature Methods 21, 531-540.
    """
    return SOURCE.load(cache)


def norman_mini() -> AnnData:
    """CRISPR activation for single genes and pairs in K562 cells, a small part of the screen.

    3,375 cells (100 controls), 500 genes, 18 single targets and 15 pairs with at most 100 cells each. One target, TMSB4X,
    is measured. Activation raises the expression of the target. Normalise by the library size over the whole
    transcriptome, `ul.pp.prepare(adata, library_size_key="ncounts_full", target_sum=1e4)`, because 500 genes are too few.

    Returns
    -------
    Raw counts in `X`, with `obs["perturbation"]` (`A+B` for a pair), `obs["ncounts_full"]` and `obs["cell_type"]`.
    `uns["unlasting"]["dataset"]` holds the name.

    References
    ----------
    Norman et al. (2019), Science 365, 786-793. GEO accession GSE133344. Taken from the BSD-3-Clause-licensed
    repository perturbench.
    """
    return shipped("norman_mini", "norman2019_k562_mini.h5ad")
