"""Full screens from public archives: downloaded once, checked, and brought to one form."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike

import anndata
import numpy as np
import pooch
from anndata import AnnData
from requests.exceptions import RequestException
from scipy import sparse

from unlasting.pp._sciplex3_drugs import drug_table, table_name
from unlasting.screen import UNS_KEY, ScreenKeys

CONTROL = "control"


@dataclass(frozen=True)
class Source:
    """Where a file is published, and the checksum by which it is known."""

    url: str
    checksum: str

    @property
    def file(self) -> str:
        """The name of the file."""
        return self.url.rsplit("/", 1)[-1]


SOURCES = {
    "adamson": Source(
        "https://zenodo.org/records/10044268/files/AdamsonWeissman2016_GSM2406681_10X010.h5ad",
        "md5:2fa44ea61a8dd35742af618638ec65fc",
    ),
    "norman": Source(
        "https://zenodo.org/records/10044268/files/NormanWeissman2019_filtered.h5ad",
        "md5:c870e6967d91c017d9da827bab183cd6",
    ),
    "sciplex3": Source(
        "https://zenodo.org/records/7041849/files/SrivatsanTrapnell2020_sciplex3.h5ad",
        "md5:d1f51b9f8de35ca07638132539da9a99",
    ),
}


def adamson(*, cache: str | PathLike[str] | None = None) -> AnnData:
    """CRISPR interference with genes of the unfolded protein response in K562 cells (470 MB to download).

    About 65,000 cells and 32,738 genes, single targets. The names of the vectors are removed from the labels
    (`DDIT3_pDS263` becomes `DDIT3`), non-targeting guides are `control`, and cells without an assigned guide are left
    out.

    Parameters
    ----------
    cache
        Folder for downloaded files; by default that of the operating system.

    Returns
    -------
    Raw counts in `X`, with `obs["perturbation"]` and `obs["cell_type"]`; the label as published is in
    `obs["published_label"]`.

    Raises
    ------
    ConnectionError
        If the file cannot be downloaded.
    ValueError
        If the file is not the one that is expected.

    References
    ----------
    Adamson et al. (2016), Cell 167, 1867-1882; harmonised by Peidli et al. (2024), Nature Methods 21, 531-540.
    """
    return _load("adamson", cache, _adamson_label)


def norman(*, cache: str | PathLike[str] | None = None) -> AnnData:
    """CRISPR activation of single genes and pairs in K562 cells (700 MB to download).

    About 111,000 cells and 33,694 genes, of which 11,855 cells are controls; 105 single targets and 131 pairs.

    Parameters
    ----------
    cache
        Folder for downloaded files; by default that of the operating system.

    Returns
    -------
    Raw counts in `X`, with `obs["perturbation"]` (`A+B` for a pair) and `obs["cell_type"]`; the label as published is
    in `obs["published_label"]`.

    Raises
    ------
    ConnectionError
        If the file cannot be downloaded.
    ValueError
        If the file is not the one that is expected.

    References
    ----------
    Norman et al. (2019), Science 365, 786-793; harmonised by Peidli et al. (2024), Nature Methods 21, 531-540.
    """
    return _load("norman", cache, _norman_label)


def sciplex3(*, hours: int | None = 24, cache: str | PathLike[str] | None = None) -> AnnData:
    """188 drugs at four doses in three cell lines (several GB to download, and as much memory).

    Up to 760,000 cells. Cells that were not assigned to a drug and a cell line are left out. The published file
    names each gene by its neighbour, because the header of the gene table was read as a gene; this is put right here.

    Go on with `ul.pp.split(adata, "unseen_drug", method="published")` or `ul.pp.split(adata, "unseen_dose")`, and then
    `ul.pp.prepare(adata, n_top_genes=2000)`: the 2,000 genes of published evaluations, but chosen from the training
    cells alone.

    Parameters
    ----------
    hours
        Hours of treatment: 24, in all cell lines, or 72, in A549 with a quarter of the drugs. `None` keeps both, which
        `obs["hours"]` tells apart.
    cache
        Folder for downloaded files; by default that of the operating system.

    Returns
    -------
    Raw counts in `X`, with `obs["perturbation"]` (the drug), `obs["dose"]` in uM (0.01, 0.1, 1 and 10; 0 for controls),
    `obs["smiles"]`, `obs["cell_type"]` (the cell line) and `obs["hours"]`. These columns are recorded in
    `uns["unlasting"]["keys"]`, where later steps find them, and so is `" + "` as the delimiter of combinations, because
    names of drugs contain `+`.

    Raises
    ------
    ConnectionError
        If the file cannot be downloaded.
    ValueError
        If the file is not the one that is expected, or holds no cells after `hours`.

    References
    ----------
    Srivatsan et al. (2020), Science 367, 45-51; harmonised by Peidli et al. (2024), Nature Methods 21, 531-540.
    """
    adata = _with_own_genes(_load("sciplex3", cache, _drug_label))
    adata.obs["hours"] = adata.obs["time"].astype(float).to_numpy()
    if hours is not None:
        adata = adata[adata.obs["hours"] == hours].copy()
    if adata.n_obs == 0:
        raise ValueError(f"`hours` is {hours}, but sci-Plex3 was measured after 24 and 72 hours.")
    control = (adata.obs["perturbation"] == CONTROL).to_numpy()
    adata.obs["dose"] = np.where(control, 0.0, adata.obs["dose_value"].astype(float) / 1000)  # published in nM
    smiles = drug_table().set_index("name")["smiles"]
    names = adata.obs["perturbation"].astype(str)
    adata.obs["smiles"] = names.map({name: smiles.get(table_name(name)) for name in names.unique() if name != CONTROL})
    adata.obs["smiles"] = adata.obs["smiles"].mask(control, "").astype("category")
    ScreenKeys(cell_type_key="cell_type", dose_key="dose", smiles_key="smiles", delimiter=" + ").write(adata)
    return adata


def _load(name: str, cache: str | PathLike[str] | None, label: Callable[[str], str]) -> AnnData:
    """Download if need be, read, translate the labels, and drop the cells that have none."""
    adata = anndata.read_h5ad(_fetch(SOURCES[name], cache))
    published = adata.obs["perturbation"].astype(object)
    labels = np.array([label(str(value).strip()) if value == value else "" for value in published], dtype=object)
    types = adata.obs["cell_line"].astype(object).to_numpy()
    known = (labels != "") & np.array([value == value and value not in (None, "nan") for value in types])
    adata.obs["published_label"] = published.astype(str)
    adata.obs["perturbation"] = labels.astype(str)
    adata.obs["cell_type"] = types.astype(str)
    adata = adata[known].copy()
    adata.X = sparse.csr_matrix(adata.X, dtype=np.float32)
    adata.var_names_make_unique()
    adata.uns[UNS_KEY] = {"dataset": name}
    return adata


def _fetch(source: Source, cache: str | PathLike[str] | None) -> str:
    """Find the file in the cache or download it there, and check it."""
    store = pooch.create(
        path=pooch.os_cache("unlasting") if cache is None else cache,
        base_url="",
        registry={source.file: source.checksum},
        urls={source.file: source.url},
        retry_if_failed=1,
    )
    try:
        return store.fetch(source.file, downloader=pooch.HTTPDownloader(progressbar=True))
    except RequestException as error:
        raise ConnectionError(
            f"{source.url} cannot be downloaded ({type(error).__name__}). Check the connection, or download it by "
            f"hand and save it as {str(store.abspath / source.file)!r}."
        ) from error
    except ValueError as error:
        raise ValueError(
            f"The file at {source.url} is not the one that is expected: its checksum differs from "
            f"{source.checksum}. The download was damaged or the file has been replaced; nothing was kept. Try again later."
        ) from error


def _adamson_label(published: str) -> str:
    """Read `DDIT3_pDS263` as `DDIT3`; constructs that target nothing are controls, `*` and `nan` unassigned."""
    if published in ("*", "nan", ""):
        return ""
    if "(mod)" in published or "neg_ctrl" in published:
        return CONTROL
    name = re.sub(r"_p[A-Z]{2}\d+(-\d+)?$", "", published)
    return name.removesuffix("_only").replace("_", "+")


def _norman_label(published: str) -> str:
    """Read `A_B` as `A+B`."""
    return "" if published == "nan" else published.replace("_", "+")


def _drug_label(published: str) -> str:
    """Keep the name of a drug."""
    return "" if published == "nan" else published


def _with_own_genes(adata: AnnData) -> AnnData:
    """Give each gene its own name where the header of the gene table was taken for the first gene."""
    table = adata.var["ensembl_id"].astype(str).to_numpy() if "ensembl_id" in adata.var else None
    if table is None or not table[0].startswith("id"):
        return adata
    adata = adata[:, :-1].copy()  # nothing names the last
    adata.var_names = [entry.split()[-1] for entry in table[1:]]
    adata.var = adata.var[[]]
    adata.var_names_make_unique()
    return adata
