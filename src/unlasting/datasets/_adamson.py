"""CRISPR interference in K562 cells."""

from __future__ import annotations

import re
from os import PathLike

from anndata import AnnData

from unlasting.datasets._source import Source


def _label(published: str) -> str:
    """Read `DDIT3_pDS263` as `DDIT3`; constructs without a target are controls, `*` is unassigned."""
    if published == "*":
        return ""
    if "(mod)" in published or "neg_ctrl" in published:
        return "control"
    name = re.sub(r"_p[A-Z]{2}\d+(-\d+)?$", "", published)
    return name.removesuffix("_only").replace("_", "+")


SOURCE = Source(
    "adamson",
    "https://zenodo.org/records/10044268/files/AdamsonWeissman2016_GSM2406681_10X010.h5ad",
    "md5:2fa44ea61a8dd35742af618638ec65fc",
    _label,
)


def adamson(*, cache: str | PathLike[str] | None = None) -> AnnData:
    """CRISPR interference with genes in the unfolded protein response in K562 cells (470 MB to download).

    About 65,000 cells, 32,738 genes and single targets. Vector names are removed (`DDIT3_pDS263` becomes `DDIT3`),
    non-targeting guides are `control`, and cells without an assigned guide are left out.

    Parameters
    ----------
    cache
        Folder for downloaded files; by default the cache folder of the operating system.

    Returns
    -------
    Raw counts in `X`, with `obs["perturbation"]`, `obs["cell_type"]` and `obs["published_label"]`.

    Raises
    ------
    ConnectionError
        If the file cannot be downloaded.
    ValueError
        If the file is not the expected one.

    References
    ----------
    Adamson et al. (2016), Cell 167, 1867-1882; harmonised by Peidli et al. (2024), Nature Methods 21, 531-540.
    """
    return SOURCE.load(cache)
