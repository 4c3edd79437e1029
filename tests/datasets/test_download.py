"""Downloads, from a server on this machine: checked, cached, and brought to one form."""

from __future__ import annotations

import dataclasses
import hashlib
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from unlasting import datasets, pp
from unlasting.datasets import SOURCES
from unlasting.screen import ScreenKeys

pytestmark = pytest.mark.slow

PUBLISHED = {
    "adamson": ["63(mod)_pBA580", "62(mod)_pBA581", "DDIT3_pDS263", "SPI1_pDS255", "CREB1_pDS269", "*", "nan"],
    "norman": ["control", "CBL_UBASH3A", "CBL", "UBASH3A", "KLF1", "nan"],
    "sciplex3": ["control", "(+)-JQ1", "Alvespimycin (17-DMAG) HCl", "Trametinib", "nan"],
}


def published(name: str, n: int = 30) -> AnnData:
    """Make a small file in the form of the published one."""
    labels = np.repeat(np.array(PUBLISHED[name], dtype=object), n)
    obs = pd.DataFrame({"perturbation": labels}, index=[f"cell{i}" for i in range(len(labels))])
    obs.loc[obs["perturbation"] == "nan", "perturbation"] = np.nan
    var = pd.DataFrame(index=[f"gene{i}" for i in range(5)])
    if name == "sciplex3":
        obs["cell_line"] = np.tile(np.array(["A549", "K562", np.nan], dtype=object), len(obs) // 3)
        obs["time"] = np.where(np.arange(len(obs)) % 30 < 24, 24.0, 72.0)
        obs["dose_value"] = np.where(obs["perturbation"] == "control", np.nan, np.tile([10.0, 1000.0], len(obs) // 2))
        var["ensembl_id"] = ["id gene_short_name", "ENSG1", "ENSG2", "ENSG3", "ENSG4"]
        var.index = ["nan", "nan-1", "nan-2", "nan-3", "nan-4"]
    else:
        obs["cell_line"] = "K562"
    counts = np.random.default_rng(0).poisson(2, size=(len(obs), 5)) + np.arange(5)
    return AnnData(counts.astype(np.float32), obs=obs, var=var)


class Quiet(SimpleHTTPRequestHandler):
    asked: list[str] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, *args) -> None:
        pass


def redirect(monkeypatch, name: str, **changes: str) -> None:
    monkeypatch.setitem(SOURCES, name, dataclasses.replace(SOURCES[name], **changes))


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """Serve small files, and have the sources point to them."""
    folder = tmp_path / "archive"
    folder.mkdir()
    Quiet.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    for name in PUBLISHED:
        file = folder / f"{name}.h5ad"
        published(name).write_h5ad(file)
        url = f"http://127.0.0.1:{server.server_port}/{file.name}"
        redirect(monkeypatch, name, url=url, checksum="md5:" + hashlib.md5(file.read_bytes()).hexdigest())
    yield folder
    server.shutdown()
    server.server_close()
    thread.join()


def test_labels_are_harmonised_and_the_screen_can_be_split(archive, tmp_path) -> None:
    for name, labels in [
        ("adamson", {"control": 60, "DDIT3": 30, "SPI1": 30, "CREB1": 30}),
        ("norman", {"control": 30, "CBL+UBASH3A": 30, "CBL": 30, "UBASH3A": 30, "KLF1": 30}),
        ("sciplex3", {"control": 16, "(+)-JQ1": 16, "Alvespimycin (17-DMAG) HCl": 16, "Trametinib": 16}),
    ]:
        adata = datasets.DATASETS[name](cache=tmp_path / "cache")
        assert adata.obs["perturbation"].value_counts().to_dict() == labels
        assert set(adata.obs["cell_type"]) == ({"A549", "K562"} if name == "sciplex3" else {"K562"})
        assert adata.uns["unlasting"]["dataset"] == name
        pp.split(adata, "unseen_perturbation", test_fraction=0.3, val_fraction=0)
        pp.prepare(adata)
        assert adata.uns["unlasting"]["split"]["n_test"] > 0


def test_doses_are_in_micromolar_and_genes_have_their_own_names(archive, tmp_path) -> None:
    adata = datasets.sciplex3(cache=tmp_path / "cache")
    assert set(adata.obs["dose"]) == {0.0, 0.01, 1.0}
    assert (adata.obs["dose"] == 0).equals(adata.obs["perturbation"] == "control")
    assert list(adata.var_names) == ["ENSG1", "ENSG2", "ENSG3", "ENSG4"]
    assert set(adata.obs["hours"]) == {24}
    whole = published("sciplex3")
    np.testing.assert_array_equal(adata.X.toarray(), whole[adata.obs_names].X[:, :4])
    assert ScreenKeys.read(adata).cell_type_key == "cell_type"


def test_drugs_have_their_molecule_and_published_lists_know_them(archive, tmp_path) -> None:
    adata = datasets.sciplex3(cache=tmp_path / "cache", hours=None)
    assert adata.n_obs == 80
    assert adata.obs.loc[adata.obs["hours"] == 72, "perturbation"].value_counts().to_dict() == dict.fromkeys(
        ["control", "(+)-JQ1", "Alvespimycin (17-DMAG) HCl", "Trametinib"], 4
    )
    pp.split(adata, "unseen_drug", method="published", val_fraction=0)
    assert adata.uns["unlasting"]["split"]["test_conditions"].tolist() == ["Trametinib"]
    pp.molecules(adata)
    stored = adata.uns["unlasting"]["molecules"]
    assert stored["drugs"].tolist() == ["(+)-JQ1", "Alvespimycin (17-DMAG) HCl", "Trametinib"]
    assert not any("Cl" in smiles and "." in smiles for smiles in stored["drug_smiles"])  # no hydrochlorides
    pp.split(adata, "unseen_dose", test=1, val_fraction=0)
    assert set(adata.obs.loc[adata.obs["unlasting_split"] == "test", "dose"]) == {1.0}
    with pytest.raises(ValueError, match="`hours` is 48"):
        datasets.sciplex3(cache=tmp_path / "cache", hours=48)


def test_a_file_is_downloaded_once(archive, tmp_path) -> None:
    for _ in range(2):
        datasets.norman(cache=tmp_path / "cache")
    assert len(Quiet.asked) == 1


def test_a_file_with_another_checksum_is_refused_and_not_kept(archive, tmp_path, monkeypatch) -> None:
    redirect(monkeypatch, "norman", checksum="md5:" + "0" * 32)
    with pytest.raises(ValueError, match="is not the expected one.*md5:0000"):
        datasets.norman(cache=tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.h5ad"))


def test_a_damaged_file_in_the_cache_is_replaced(archive, tmp_path) -> None:
    datasets.norman(cache=tmp_path / "cache")
    (file,) = (tmp_path / "cache").glob("*.h5ad")
    file.write_bytes(file.read_bytes()[:1000])
    assert datasets.norman(cache=tmp_path / "cache").n_obs == 150


def test_without_a_connection_the_way_out_is_told(archive, tmp_path, monkeypatch) -> None:
    redirect(monkeypatch, "adamson", url=SOURCES["adamson"].url.replace(".h5ad", "_gone.h5ad"))
    with pytest.raises(ConnectionError, match="download it by hand and save it as .*_gone.h5ad"):
        datasets.adamson(cache=tmp_path / "cache")


def test_every_source_has_a_checksum_and_a_secure_address() -> None:
    for name in PUBLISHED:
        assert SOURCES[name].url.startswith("https://zenodo.org/records/")
        assert len(SOURCES[name].checksum.removeprefix("md5:")) == 32
