"""Screens with genes and a stimulus: shipped with the package, or downloaded from scPerturb."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import as_file, files
from os import PathLike

import anndata
import numpy as np
import pooch
from anndata import AnnData
from requests.exceptions import RequestException
from scipy import sparse

from unlasting.screen import UNS_KEY, ScreenKeys


def shipped(name: str, file: str) -> AnnData:
    """Read a file that ships with the package, and record the name."""
    with as_file(files("unlasting.datasets") / "_data" / file) as path:
        adata = anndata.read_h5ad(path)
    adata.uns[UNS_KEY] = {"dataset": name}
    return adata


@dataclass(frozen=True)
class Source:
    """A published screen, harmonised by scPerturb.

    Parameters
    ----------
    name
        Name, recorded in `uns["unlasting"]["dataset"]`.
    url
        Address for the h5ad file.
    checksum
        Its checksum, with the algorithm, as in `md5:...`.
    label
        Translates a published label; an empty text leaves the cell out.
    """

    name: str
    url: str
    checksum: str
    label: Callable[[str], str]

    def load(self, cache: str | PathLike[str] | None = None) -> AnnData:
        """Download if necessary, read, translate the labels, and drop cells without a label or cell line.

        Parameters
        ----------
        cache
            Folder for downloaded files; by default the cache folder of the operating system.

        Returns
        -------
        Raw counts in `X`, with `obs["perturbation"]`, `obs["cell_type"]` and `obs["published_label"]`.
        """
        adata = anndata.read_h5ad(self.fetch(cache))
        published = adata.obs["perturbation"].astype(object)
        labels = [self.label(str(value).strip()) if value == value else "" for value in published]
        types = adata.obs["cell_line"].astype(object).to_numpy()
        known = [
            label not in ("", "nan") and kind == kind and kind not in (None, "nan")
            for label, kind in zip(labels, types, strict=True)
        ]
        adata.obs["published_label"] = published.astype(str)
        adata.obs["perturbation"] = labels
        adata.obs["cell_type"] = types.astype(str)
        adata = adata[np.array(known)].copy()
        adata.X = sparse.csr_matrix(adata.X, dtype=np.float32)
        adata.var_names_make_unique()
        adata.uns[UNS_KEY] = {"dataset": self.name}
        return adata

    def fetch(self, cache: str | PathLike[str] | None) -> str:
        """Find the file in `cache` or download it there, and check it."""
        file = self.url.rsplit("/", 1)[-1]
        store = pooch.create(
            path=pooch.os_cache("unlasting") if cache is None else cache,
            base_url="",
            registry={file: self.checksum},
            urls={file: self.url},
            retry_if_failed=1,
        )
        try:
            return store.fetch(file, downloader=pooch.HTTPDownloader(progressbar=True))
        except RequestException as error:
            raise ConnectionError(
                f"{self.url} cannot be downloaded ({type(error).__name__}). Check the connection, or download it by "
                f"hand and save it as {str(store.abspath / file)!r}."
            ) from error
        except ValueError as error:
            raise ValueError(
                f"The file at {self.url} is not the expected one: its checksum differs from {self.checksum}. The download "
                "was damaged or the file was replaced; nothing was kept. Try again later."
            ) from error


def _adamson_label(published: str) -> str:
    """Read `DDIT3_pDS263` as `DDIT3`; constructs without a target are controls, `*` is unassigned."""
    if published == "*":
        return ""
    if "(mod)" in published or "neg_ctrl" in published:
        return "control"
    name = re.sub(r"_p[A-Z]{2}\d+(-\d+)?$", "", published)
    return name.removesuffix("_only").replace("_", "+")


ZENODO = "https://zenodo.org/records"
SOURCES = {
    source.name: source
    for source in (
        Source(
            "adamson",
            f"{ZENODO}/10044268/files/AdamsonWeissman2016_GSM2406681_10X010.h5ad",
            "md5:2fa44ea61a8dd35742af618638ec65fc",
            _adamson_label,
        ),
        Source(
            "norman",
            f"{ZENODO}/10044268/files/NormanWeissman2019_filtered.h5ad",
            "md5:c870e6967d91c017d9da827bab183cd6",
            lambda published: published.replace("_", "+"),
        ),
        Source(
            "sciplex3",
            f"{ZENODO}/7041849/files/SrivatsanTrapnell2020_sciplex3.h5ad",
            "md5:d1f51b9f8de35ca07638132539da9a99",
            str,
        ),
    )
}
"""Screens harmonised by scPerturb, by name."""


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

    References
    ----------
    Norman et al. (2019), Science 365, 786-793; harmonised by Peidli et al. (2024), Nature Methods 21, 531-540.
    """
    return SOURCES["norman"].load(cache)


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

    References
    ----------
    Adamson et al. (2016), Cell 167, 1867-1882; harmonised by Peidli et al. (2024), Nature Methods 21, 531-540.
    """
    return SOURCES["adamson"].load(cache)
