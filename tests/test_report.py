"""The report on a model is one file with every section, and needs nothing else."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from typer.testing import CliRunner

import unlasting as ul
from unlasting.cli import app

pytestmark = pytest.mark.slow  # it trains, once for all tests
SECTIONS = ("data", "split", "training", "scores", "trust", "predictions", "versions")


class Page(HTMLParser):
    """Attributes that load something, ids, and the text of each section."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.text: dict[str, str] = {}
        self.place = ""
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.loaded += [str(given[name]) for name in ("src", "srcset", "data", "poster") if name in given]
        self.loaded += ["link"] * (tag in ("link", "script", "iframe", "object"))
        self.links += [str(given["href"])] if "href" in given else []
        self.place = str(given.get("id", self.place)) if tag == "section" else self.place
        if tag not in ("img", "meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text[self.place] = self.text.get(self.place, "") + data


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    adata = ul.datasets.simulate_screen(n_cells=60, n_controls=120, n_genes=40, n_unmeasured=0)
    adata.obs["perturbation"] = adata.obs["perturbation"].astype(str).replace({"T3": "T<3>&co"})
    ul.pp.split(adata, "unseen_perturbation")
    ul.pp.prepare(adata)
    ul.pp.grn(adata)
    ul.UnlastingModel.setup_anndata(adata)
    model = ul.UnlastingModel(adata)
    model.train(max_steps=4, accelerator="cpu", show_progress=False)
    folder = tmp_path_factory.mktemp("report") / "model"
    model.save(folder, save_anndata=True)
    return model, folder


@pytest.fixture(scope="module")
def page(trained, tmp_path_factory):
    model, _ = trained
    before = set(model.adata.uns["unlasting"])
    place = ul.report(model, path=tmp_path_factory.mktemp("page") / "report.html")
    assert set(model.adata.uns["unlasting"]) - before == {"rank", "rank_genes"}
    assert "unlasting" not in model.adata.layers
    return place.read_text(encoding="utf-8")


def test_it_loads_nothing(page):
    found = Page(page)
    assert found.open == []
    assert len(found.loaded) >= 5
    assert all(source.startswith("data:image/svg+xml;base64,") for source in found.loaded)
    assert all(link.startswith("#") for link in found.links)
    assert not re.search(r"https?://|@import|url\(", page)
    for source in found.loaded:
        figure = base64.b64decode(source.split(",")[1]).decode()
        assert figure.rstrip().endswith("</svg>")
        hrefs = re.findall(r'(?:xlink:)?href="([^"]*)"', figure)
        assert all(href.startswith(("#", "data:")) for href in hrefs)


def test_it_has_every_section(page, trained):
    model, _ = trained
    found = Page(page)
    assert set(SECTIONS) < set(found.text)
    assert {f"#{name}" for name in SECTIONS} == set(found.links)
    held_out = list(model.adata.uns["unlasting"]["split"]["test_conditions"])
    assert all(name in found.text[part] for part in ("split", "trust") for name in held_out)
    assert f"{model.adata.n_obs} cells" in found.text["data"]
    assert "denoiser" in found.text["training"]
    assert all(name in found.text["scores"] for name in ("unlasting", "no effect", "mean shift"))
    assert ul.__version__ in found.text["versions"]


def test_its_numbers_are_those_of_the_package(page, trained):
    model, _ = trained
    found = Page(page)
    ranking = model.adata.uns["unlasting"]["rank"]
    unseen = ranking[~ranking["seen"].astype(bool)]
    for row in unseen.itertuples():
        cells = re.search(
            rf"<td>{re.escape(row.condition)}(?: ⚠)?</td><td class=\"n\">([\d.]+)</td><td class=\"n\">([\d.]+)</td>",
            page.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"),
        )
        assert cells, row.condition
        assert float(cells[1]) == pytest.approx(row.p_better, abs=0.006)
        assert float(cells[2]) == pytest.approx(row.expected_error, abs=0.006)
    genes = model.adata.uns["unlasting"]["rank_genes"]
    strongest = genes["genes"][int(np.argmax(genes["t"][0]))]
    assert strongest in found.text["predictions"]


def test_labels_are_escaped(page):
    assert "T<3>&co" not in page
    assert "T&lt;3&gt;&amp;co" in page


def test_stored_scores_are_shown_and_pathways_listed(trained, tmp_path):
    pytest.importorskip("decoupler")
    model, _ = trained
    adata = model.adata.copy()
    model.predict(adata, show_progress=False)
    ul.tl.evaluate(adata, baselines=["pooled"], name="my cells")
    genes = list(model.adata.var_names)
    place = ul.report(model, adata, tmp_path / "report.html", gene_sets={"first": genes[:8], "last": genes[-8:]})
    found = Page(place.read_text(encoding="utf-8"))
    assert "my cells" in found.text["scores"]
    assert "mean shift" not in found.text["scores"]
    assert "first (" in found.text["predictions"] or "last (" in found.text["predictions"]


def test_it_works_from_the_command_line_and_without_held_out_cells(trained, tmp_path):
    model, folder = trained
    place = tmp_path / "report.html"
    done = CliRunner().invoke(app, ["report", str(folder), "-o", str(place), "--accelerator", "cpu"])
    assert done.exit_code == 0, done.output
    assert str(place) in "".join(done.stdout.split("\n"))
    assert set(SECTIONS) < set(Page(place.read_text(encoding="utf-8")).text)
    assert CliRunner().invoke(app, ["report", str(folder), "-o", str(place)]).exit_code == 1
    adata = model.adata.copy()
    adata.obs["unlasting_split"] = "train"
    adata.write_h5ad(tmp_path / "all_train.h5ad")
    asked = ["report", str(folder), str(tmp_path / "all_train.h5ad"), "-o", str(place), "--force"]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    assert "No cells are held out" in place.read_text(encoding="utf-8")


def test_the_place_may_be_new_and_is_no_folder(trained, tmp_path):
    model, _ = trained
    adata = model.adata.copy()
    adata.obs["unlasting_split"] = "train"
    assert ul.report(model, adata, tmp_path / "new" / "report.html").is_file()
    with pytest.raises(IsADirectoryError, match="Name a file in it"):
        ul.report(model, adata, tmp_path)
    with pytest.raises(ValueError, match="Load it with"):
        ul.report(ul.UnlastingModel.load(trained[1], adata=False, accelerator="cpu"), adata)
    with pytest.raises(TypeError, match=r"path='report\.html'"):
        ul.report(model, "report.html")


def test_an_untrained_model_is_refused(trained):
    adata = trained[0].adata.copy()
    ul.UnlastingModel.setup_anndata(adata)
    with pytest.raises(ValueError, match=r"model\.train\(\)"):
        ul.report(ul.UnlastingModel(adata))
