"""Published files: shipped with the package, or downloaded once and checked."""

from __future__ import annotations

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

from unlasting.screen import UNS_KEY


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
