"""Each row in the tables of `docs/guide/own_file.md`, in Python and on the command line."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
from simulated import GENES, SM, TARGETS, call, counts, drugs, fit, relabel, screen, targets_of, trial

import unlasting as ul

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "own_file.md"
DRUGS = {"perturbation_key": "drug", "control": "DMSO", "dose_key": "dose"}
QUIET = {"show_progress": False}


@dataclass
class Case:
    """A file with one habit.

    Parameters
    ----------
    file
        The screen.
    said
        Expression for the warning or error; empty if nothing is said.
    keys
        Label columns.
    understood
        Whether the registered screen and its overview have the right meaning.
    shell
        Expression for the output on the command line; `said` by default.
    command
        The command.
    prepared
        Whether the file is registered as it is.
    """

    file: Callable[[], ad.AnnData]
    said: str
    keys: dict[str, Any] = field(default_factory=dict)
    understood: Callable[[ad.AnnData, Any], bool] = lambda adata, overview: True
    shell: str | None = None
    command: str = "check"
    prepared: bool = False
    split: dict[str, Any] = field(default_factory=dict)


def renamed(old: dict[str, str], targets=TARGETS, write=str) -> ad.AnnData:
    a = screen(targets=targets, write=write)
    a.var_names = [old.get(gene, gene) for gene in a.var_names]
    return a


def ensembl(version: str = "", column: str = "gene_name") -> ad.AnnData:
    a = screen()
    a.var[column] = list(a.var_names)
    a.var_names = [f"ENSG{i:011d}{version}" for i in range(a.n_vars)]
    return a


def log_normalised(totals: Callable[[ad.AnnData], Any]) -> ad.AnnData:
    a = screen()
    sc.pp.normalize_total(a, target_sum=1.0)
    a.X = sp.csr_matrix(a.X.multiply(np.asarray(totals(a))[:, None]))
    sc.pp.log1p(a)
    return a


def twice() -> ad.AnnData:
    a = screen()
    ul.pp.prepare(a, min_cells=1)
    a.X = np.log1p(np.expm1(a.X.toarray()) * 10)
    return a


def scaled() -> ad.AnnData:
    a = log_normalised(lambda a: np.full(a.n_obs, 1e4))
    sc.pp.scale(a)
    return a


def with_column(a: ad.AnnData, values: Any, key: str = "dose") -> ad.AnnData:
    a.obs[key] = values
    return a


def moved(place: str) -> ad.AnnData:
    a = screen()
    raw = a.copy()
    sc.pp.normalize_total(a, target_sum=1e4)
    sc.pp.log1p(a)
    if place == "raw":
        a.raw = raw
    else:
        a.layers[place] = raw.X
    return a


def with_antibodies() -> ad.AnnData:
    a = screen()
    b = ad.AnnData(
        sp.csr_matrix(counts(a.n_obs, seed=3)[:, :4]), obs=a.obs.copy(), var=pd.DataFrame(index=list("wxyz"))
    )
    joined = ad.concat([a, b], axis=1, merge="same")
    joined.var["feature_types"] = ["Gene Expression"] * a.n_vars + ["Antibody Capture"] * 4
    return joined


def ambient() -> ad.AnnData:
    a = screen()
    a.X.data = a.X.data * np.random.default_rng(0).uniform(0.9, 1.0, a.X.nnz)
    return a


def an_empty_cell() -> ad.AnnData:
    a = screen()
    x = a.X.toarray()
    x[150] = 0
    a.X = sp.csr_matrix(x)
    return a


def stereo() -> ad.AnnData:
    a = drugs()
    rows, smiles = np.flatnonzero(a.obs.drug == "ibuprofen"), a.obs.smiles.to_numpy(copy=True)
    smiles[rows[::2]], smiles[rows[1::2]] = "CC(C)Cc1ccc(cc1)[C@H](C)C(=O)O", "CC(C)Cc1ccc(cc1)[C@@H](C)C(=O)O"
    return with_column(a, smiles, "smiles")


def kinds(**expected: list[str]) -> Callable[[ad.AnnData, Any], bool]:
    def understood(adata, overview):
        found = targets_of(adata)
        return all(set(names) <= set(found.get(kind, ())) for kind, names in expected.items())

    return understood


def doses_are(*doses: float) -> Callable[[ad.AnnData, Any], bool]:
    return lambda adata, overview: all(np.allclose(found, doses) for found in overview.doses.values())


WITH_KMT2D, WITH_MLL2 = {"UBE2C": "KMT2D"}, {"UBE2C": "MLL2"}
OLD = {**dict(zip(TARGETS, TARGETS, strict=True)), "MYC": "MLL2"}
LOG = {"cdose": np.nan, "doses": (0.01, 0.1, 10.0)}

FILES = {
    # scale
    "Perturbed cells normalised otherwise than controls": Case(
        lambda: log_normalised(lambda a: np.where(a.obs.perturbation == "control", 1e4, 1e6)),
        "another scale than the training controls.*pp.prepare",
        command="train",
        prepared=True,
    ),
    "A prepared screen normalised once more": Case(
        twice, "was scaled to .* by `pp.prepare`.*Leave further normalisation out", command="train", prepared=True
    ),
    "Scaled values (z-scores)": Case(scaled, "negative values.*raw counts"),
    # labels
    "Several control labels, one of them named": Case(
        lambda: relabel(screen(), lambda i, label: f"NT_{i % 3}" if label == "control" else label),
        "'NT_1', 'NT_2' may be meant as control.*pattern",
        {"control": "NT_0"},
    ),
    "No label of the default name, but `DMSO`": Case(
        lambda: screen(control="DMSO"), "no cell .*control label.*It may be `control='DMSO'`"
    ),
    "Text such as `nan` or `unassigned`": Case(
        lambda: relabel(screen(), lambda i, label: ("nan", "unassigned")[i % 2] if label == "MYC" else label),
        "'nan', 'unassigned' in .* are no perturbation. Remove these cells",
    ),
    "Missing labels": Case(
        lambda: relabel(screen(), lambda i, label: None if label == "MYC" else label), "40 cells have no perturbation label"
    ),
    "Guides such as `STAT1_g1`": Case(
        lambda: relabel(screen(), lambda i, label: label if label == "control" else f"{label}_g{1 + i % 2}"),
        "seem to be guides.*Use the targets",
    ),
    "Pairs joined by an underscore": Case(
        lambda: screen(combos=[("STAT1", "IRF1"), ("MYC", "SPI1")], write=lambda t: t if isinstance(t, str) else "_".join(t)),
        "seem to be combinations.*delimiter='_'",
    ),
    "Integers in place of names": Case(
        lambda: screen(write=lambda t: str(TARGETS.index(t))), "codes from a conversion"
    ),
    # genes
    "Ensembl ids, symbols in a column": Case(
        ensembl, r"gene names are taken from `adata.var\['gene_name'\]`", shell=r"gene_names.*adata.var\['gene_name'\]",
        understood=lambda adata, overview: "STAT1" in adata.var_names,
    ),
    "Ensembl ids with version, symbols in a named column": Case(
        lambda: ensembl(".3", "my names"), r"gene names are taken from `adata.var\['my names'\]`",
        shell=r"adata.var\['my names'\]", understood=lambda adata, overview: "STAT1" in adata.var_names,
    ),
    "Old symbols as labels (`MLL2`)": Case(
        lambda: renamed(WITH_KMT2D, write=lambda t: OLD.get(t, t)), "'MLL2' as 'KMT2D'.*present symbols",
        understood=lambda adata, overview: kinds(gene=["MLL2"])(adata, overview) and "MLL2" in overview.measured,
    ),
    "Old symbols as measured genes": Case(
        lambda: renamed(WITH_MLL2, write=lambda t: "KMT2D" if t == "MYC" else t), "'KMT2D' as 'MLL2'",
        understood=lambda adata, overview: kinds(gene=["KMT2D"])(adata, overview) and "KMT2D" in overview.measured,
    ),
    "A mouse screen": Case(
        lambda: renamed({gene: gene.capitalize() for gene in GENES}, write=str.capitalize),
        "prior names genes of another species.* of 60 genes are matched by orthologue", shell='"stimuli": {}',
        understood=kinds(gene=["Stat1", "Jak2", "Ifngr1"]),
    ),
    "A symbol in another case (`stat1`)": Case(
        lambda: screen(write=lambda t: "stat1" if t == "STAT1" else t), r"'stat1' \(STAT1\) may be meant.*write its symbol",
    ),
    "A name of several genes (`MLL4`)": Case(
        lambda: screen(write=lambda t: "MLL4" if t == "MYC" else t), r"'MLL4' \(KMT2B or KMT2D\).*Write the gene meant",
    ),
    "Ensembl ids as labels, symbols as genes": Case(
        lambda: screen(write=lambda t: f"ENSG{TARGETS.index(t):011d}"), "Only 0 of 8 targets are measured.*one nomenclature",
    ),
    "A name like a gene that nobody lists": Case(
        lambda: screen(write=lambda t: "STATX1" if t == "MYC" else t), "STATX1.*Correct (the names|them), or.*name genes",
    ),
    "A gene that is neither measured nor in the prior (`LINC00111`)": Case(
        lambda: screen(write=lambda t: "LINC00111" if t == "MYC" else t), "LINC00111.*Correct (the names|them), or.*name genes",
        understood=kinds(stimulus=["LINC00111"]),
    ),
    "The old symbol of such a gene (`NCRNA00111`)": Case(
        lambda: screen(write=lambda t: "NCRNA00111" if t == "MYC" else t),
        "LINC00111 are genes, but neither measured nor in the prior",
        understood=kinds(gene=["NCRNA00111"]),
        shell='"stimuli": {}',
    ),
    "A cytokine under an old symbol (`IFNB`)": Case(
        lambda: screen(write=lambda t: "IFNB" if t == "MYC" else t), "IFNB.*Correct (the names|them)",
        understood=kinds(stimulus=["IFNB"]),
    ),
    # doses
    "Doses in nM": Case(
        lambda: drugs(lambda x: 1_000 * x), "", {**DRUGS, "smiles_key": "smiles", "dose_unit": "nM"}, doses_are(0.1, 1.0, 10.0), shell='"oddities": \\[\\]'
    ),
    "A column named `dose_nM`": Case(
        lambda: with_column(drugs(), 1_000 * drugs().obs.dose.to_numpy(), "dose_nM"),
        "dose_nM.* are read in nM, because of its name", {**DRUGS, "dose_key": "dose_nM"}, doses_are(0.1, 1.0, 10.0),
    ),
    "Text with units (`100nM`)": Case(
        lambda: drugs(lambda x: f"{1_000 * x:g}nM", cdose="0 uM"), r"have their own unit \(nM, uM\)", DRUGS,
        doses_are(0.1, 1.0, 10.0),
    ),
    "Logarithms, several below 0": Case(
        lambda: drugs(np.log10, **LOG), r"negative in part.*read as log10 uM", DRUGS, doses_are(0.01, 0.1, 10.0)
    ),
    "One negative dose": Case(
        lambda: drugs(lambda x: -1 if x == 10 else x), "from 0 on.*dose_unit='log10 uM'", DRUGS,
        shell="from 0 on.*--dose-unit 'log10 uM'",
    ),
    "Doses up to 10,000 without a unit": Case(
        lambda: drugs(lambda x: 1_000 * x), "up to 10000 .{1,6}M when read in uM, which is unusual.*dose_unit='nM'", DRUGS
    ),
    "A unit against the column's name": Case(
        lambda: with_column(drugs(), drugs().obs.dose.to_numpy(), "dose_uM"),
        "`dose_unit` is 'nM', but .* is named after uM", {**DRUGS, "dose_key": "dose_uM", "dose_unit": "nM"},
    ),
    "A column of masses (`dose_ug_ml`)": Case(
        lambda: with_column(drugs(), drugs().obs.dose.to_numpy(), "dose_ug_ml"), "named after a mass.*molar mass",
        {**DRUGS, "dose_key": "dose_ug_ml"},
    ),
    "Doses without SMILES": Case(
        lambda: drugs(smiles=False), "no SMILES.* drugs by name alone", DRUGS, kinds(drug=list(SM)),
    ),
    "Stereoisomers under one name": Case(
        stereo, "'ibuprofen' has several stereoisomers.*smiles={'ibuprofen': SMILES}", {**DRUGS, "smiles_key": "smiles"},
        kinds(drug=list(SM)), command="train",
    ),
    "A second vehicle (`Vehicle` beside `DMSO`)": Case(
        lambda: relabel(drugs(), lambda i, label: "Vehicle" if 60 <= i < 120 else label, "drug"),
        "'Vehicle' may be meant as control", {**DRUGS, "smiles_key": "smiles"},
    ),
    # files
    "Counts in a layer": Case(lambda: moved("umi"), r"`adata.layers\['umi'\]` are used", shell=r"adata.layers\['umi'\]"),
    "Counts in `raw`": Case(lambda: moved("raw"), "`adata.raw.X` are used", shell="adata.raw.X"),
    "Guides or antibodies among the genes": Case(
        with_antibodies, "4 features that are not genes", shell="4 features are no genes",
        understood=lambda adata, overview: adata.n_vars == 60,
    ),
    "Fractions after removal of ambient RNA": Case(ambient, "ambient RNA.*np.rint"),
    "Log-normalised values only": Case(
        lambda: log_normalised(lambda a: np.full(a.n_obs, 1e4)), "", shell='"expression": "log-normalised.*"counts": ""',
        prepared=True,
    ),
    "A zarr store": Case(screen, "", shell='"oddities": \\[\\]'),
    "Cells without counts": Case(an_empty_cell, "1 cells have no counts.*filter_cells", command="train"),
}  # fmt: skip


def register(adata: ad.AnnData, case: Case) -> Any:
    """Take all steps up to registration, and get the overview from before."""
    overview = ul.pp.check(adata, **case.keys)
    ul.pp.split(adata, "random", **case.keys)
    if not case.prepared:
        ul.pp.prepare(adata, min_cells=1)
    if "smiles_key" in case.keys:
        ul.pp.molecules(adata)
    ul.pp.grn(adata, prior="go")
    ul.UnlastingModel.setup_anndata(adata)
    return overview


@pytest.mark.slow
@pytest.mark.parametrize("row", FILES)
def test_a_file_in_python(row):
    case, adata = FILES[row], FILES[row].file()
    with trial(show=False) as t:
        overview = register(adata, case)
    assert t.error is None or t.deliberate, t.trace
    if case.said:
        assert t.loud(case.said), t.log or str(t.error)
    else:
        assert t.error is None and "WARNING" not in t.log, t.log or t.trace
    if t.error is None:
        assert case.understood(adata, overview)


@pytest.mark.slow
@pytest.mark.parametrize("row", FILES)
def test_a_file_on_the_command_line(row, tmp_path):
    case, path = FILES[row], tmp_path / ("screen.zarr" if "zarr" in row else "screen.h5ad")
    adata = case.file()
    (adata.write_zarr if "zarr" in row else adata.write_h5ad)(path)
    options = [word for key, value in case.keys.items() for word in (f"--{key.replace('_', '-')}", value)]
    if case.command == "train":
        options += ["--split", "random", "--max-steps", 1, "--model", tmp_path / "model"]
    with trial(show=False) as t:
        result = call(case.command, path, *options, "--json")
    said = result.output if case.shell is None else result.stdout
    assert not result.traceback
    found = case.said if case.shell is None else case.shell
    assert re.search(found, re.sub(r"\s+", " ", said), re.S | re.I) or t.said(found), said + t.log


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model with cell types, integer batches and FLT4, its raw screen and its folder."""
    adata = screen(targets=[*TARGETS, "FLT4"])
    adata.obs["type"] = np.where(np.arange(adata.n_obs) % 2, "B", "T")
    adata.obs["batch"] = np.arange(adata.n_obs) // 2 % 2
    raw = adata.copy()
    model = fit(adata, test=["IRF1"], steps=2, cell_type_key="type", batch_key="batch")
    model.predict(adata, **QUIET)
    folder = tmp_path_factory.mktemp("saved") / "model"
    model.save(folder, save_anndata=True)
    return model, raw, folder


def load(saved, change, prepare=True, use=lambda model, adata: model.generate("STAT1", 4, **QUIET)):
    """Load the model with changed cells, and generate from them."""
    model, raw, folder = saved
    adata = raw.copy()
    if prepare:
        model.prepare(adata)
    changed = change(adata)
    adata = adata if changed is None else changed
    loaded = ul.UnlastingModel.load(folder, adata, accelerator="cpu")
    before = {name: tensor.clone() for name, tensor in loaded.module.state_dict().items()}
    made = use(loaded, adata)
    state = model.module.state_dict()
    assert all((tensor == state[name]).all() for name, tensor in before.items())  # nothing is fitted again
    return made


def new_controls(saved, change):
    model, raw, _ = saved
    adata = raw[raw.obs.perturbation == "control"].copy()
    changed = change(adata)
    return model.generate("STAT1", 4, controls=adata if changed is None else changed, **QUIET)


def per_million(adata):
    sc.pp.normalize_total(adata, target_sum=1e6)


def per_10_000(adata):
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)


def another_tool(saved):
    model = saved[0]
    cells = model.generate("IRF1", 60, **QUIET)
    cells.X = sp.csr_matrix(np.log1p(np.expm1(cells.X.toarray()) * 40))
    return ul.tl.evaluate(model.adata, predictions=cells, min_cells=8)


def all_test(adata):
    adata.obs["unlasting_split"] = "test"


def without_split(adata):
    adata.obs["perturbation"] = adata.obs["perturbation"].astype(str).replace("STAT1", "TP53")
    del adata.obs["unlasting_split"]


def fewer(adata):
    adata = adata[adata.obs["perturbation"].isin(["control", "STAT1"])].copy()
    del adata.obs["unlasting_split"]
    return adata


def unlabelled(adata):
    adata = adata[adata.obs["perturbation"] == "control"].copy()
    del adata.obs["perturbation"]
    return adata


def another_column(adata):
    adata.obs = adata.obs.rename(columns={"perturbation": "target"})


def another_type(adata):
    adata.obs["type"] = adata.obs["type"].astype(str).replace("T", "T cell")
    all_test(adata)


def floats(adata):
    adata.obs["batch"] = adata.obs["batch"].astype(float)


def changed_raw(change):
    """The same change on raw counts, for the command line."""

    def file(saved):
        adata = saved[1].copy()
        adata.obs["unlasting_split"] = "train"
        changed = change(adata)
        adata = adata if changed is None else changed
        adata.obs = adata.obs.drop(columns="unlasting_split", errors="ignore")
        return adata

    return file


NEW = {
    "New controls in counts per million": (
        lambda s: new_controls(s, per_million), "logarithm", changed_raw(per_million), "fractions.*raw counts",
    ),
    "New controls normalised to 10,000": (
        lambda s: new_controls(s, per_10_000), "another scale.*np.log1p", changed_raw(per_10_000), "fractions.*raw counts",
    ),
    "Another tool's cells on another scale": (another_tool, "another scale", None, ""),
    "A loaded screen on another scale": (
        lambda s: load(s, per_10_000, prepare=False), "another scale.*np.log1p", None, "",
    ),
    "Prediction asked for by an alias (`VEGFR3`)": (
        lambda s: s[0].generate("VEGFR3", 4, **QUIET), "'VEGFR3' is taken as the gene 'FLT4'", ("-p", "VEGFR3"), "FLT4",
    ),
    "Prediction asked for by a misspelt name (`FOX1A`)": (
        lambda s: s[0].generate("FOX1A", 4, **QUIET), "Did you mean 'FOXA1'", ("-p", "FOX1A"), "Did you mean 'FOXA1'",
    ),
    "A new screen with test cells only": (
        lambda s: load(s, all_test), "predictions start from all controls", changed_raw(all_test), "",
    ),
    "A new screen without a split, with a new perturbation": (
        lambda s: load(s, without_split), "the cells have no split, and 40 of them", changed_raw(without_split), "",
    ),
    "A new screen with fewer perturbations": (lambda s: load(s, fewer), "", changed_raw(fewer), ""),
    "New controls without labels": (
        lambda s: load(s, unlabelled), "no column 'perturbation', and are taken as controls", changed_raw(unlabelled),
        "are taken as controls",
    ),
    "New cells with labels in another column": (
        lambda s: load(s, another_column), "'target' holds the control label 'control'.*rename", changed_raw(another_column),
        "'target' holds the control label",
    ),
    "New cells without some genes": (
        lambda s: load(s, lambda a: a[:, 5:].copy()), "5 of the 60 genes.*model.prepare.*zeros",
        changed_raw(lambda a: a[:, 5:].copy()), "5 of the 60 genes.*zeros",
    ),
    "A cell type that was not trained": (
        lambda s: load(s, another_type), "'T cell' was not trained.*rename it", changed_raw(another_type), "'T cell' was not trained",
    ),
    "Integer batches that became numbers with a point": (
        lambda s: load(s, floats, use=lambda m, a: m.generate("STAT1", 4, batch="1", **QUIET)), "", changed_raw(floats), "",
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("row", NEW)
def test_new_cells_in_python(saved, row):
    run, said, _, _ = NEW[row]
    with trial(show=False) as t:
        run(saved)
    assert t.error is None or t.deliberate, t.trace
    assert t.loud(said) if said else t.error is None and "WARNING" not in t.log, t.log or str(t.error)


@pytest.mark.slow
@pytest.mark.parametrize("row", [row for row in NEW if NEW[row][2] is not None])
def test_new_cells_on_the_command_line(saved, row, tmp_path):
    _, _, given, said = NEW[row]
    words = ["--model", saved[2], "-o", tmp_path / "cells.h5ad"]
    if callable(given):
        given(saved).write_h5ad(tmp_path / "new.h5ad")
        given = (tmp_path / "new.h5ad", "-p", "STAT1")
    with trial(show=False) as t:
        result = call("predict", *given, *words, "--n-cells", 4)
    assert not result.traceback
    if said:
        assert re.search(said, re.sub(r"\s+", " ", result.output), re.S) or t.said(said), result.output
    else:
        assert result.exit_code == 0 and ad.read_h5ad(tmp_path / "cells.h5ad").n_obs


def test_each_row_of_the_page_has_a_test():
    tables = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    rows = [line.split("|")[1].strip() for line in tables]
    assert [row for row in rows if row != "Input"] == sorted([*FILES, *NEW], key=rows.index)
