"""Counts come back as they were, and the packages of the challenge accept what is written and score it as we do."""

from __future__ import annotations

import io
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata
import cell_eval2
import numpy as np
import pandas as pd
import pytest
import zstandard
from anndata import AnnData
from cell_eval.data import build_random_anndata
from click.testing import CliRunner
from scipy import sparse
from vcc.cli import cli
from vcc.prep import EXPECTED_GENE_DIM, run_prep
from vcc.sample import run_sample
from vcc.vccfile import validate_vcc

import unlasting as ul
from unlasting.metrics import VCC2026

TESTED = ("G1", "G3", "G5")


@pytest.fixture
def screen(prepared: AnnData) -> AnnData:
    return prepared.copy()


def scored(pred: Path | AnnData, real: Path | AnnData, **options: Any) -> tuple[pd.DataFrame, pd.Series]:
    """Score a pair with cell-eval2: every condition, and means over them."""
    config = cell_eval2.EvalConfig.from_preset("vcc2026")
    config = replace(config, device="cpu", num_threads=1, de=replace(config.de, backend="pdex"), **options)
    pair = (str(part) if isinstance(part, Path) else part for part in (pred, real))
    table = cell_eval2.compute_metrics(*pair, config=config)
    return table.to_pandas(), cell_eval2.aggregate_metrics(table).to_pandas().set_index("metric")["mean"]


def generated(screen: AnnData) -> AnnData:
    """The generated cells as `model.generate` returns them."""
    rows = screen.obs["perturbation"].isin(TESTED).to_numpy()
    obs = screen.obs.loc[rows, ["perturbation", "unlasting_source"]]
    return AnnData(screen.layers["unlasting"][rows], obs=obs, var=pd.DataFrame(index=screen.var_names))


def test_counts_are_those_that_were_normalised(screen: AnnData) -> None:
    rows = screen.obs["perturbation"].isin(TESTED).to_numpy()
    truth = screen.layers["truth_of_rounding"]
    found = ul.io.to_counts(screen, layer="unlasting")
    np.testing.assert_array_equal(found.toarray()[rows], truth[rows])
    assert not found[~rows].sum()
    of_new = ul.io.to_counts(generated(screen), screen=screen)
    np.testing.assert_array_equal(of_new.toarray(), truth[rows])
    np.testing.assert_array_equal(ul.io.to_counts(screen, layer="counts").toarray(), screen.layers["counts"].toarray())


def test_fractions_are_rounded_without_a_bias_and_with_a_seed(screen: AnnData) -> None:
    cells = AnnData(np.full((4000, 40), np.log1p(0.3), dtype=np.float32), var=pd.DataFrame(index=screen.var_names))
    counts = screen.layers["counts"]
    unit = np.median(counts.sum(axis=1).A1 / np.expm1(screen.X.toarray()).sum(axis=1))
    found = ul.io.to_counts(cells, screen=screen)
    assert found.mean() == pytest.approx(0.3 * unit, rel=0.01)
    assert (found.data == np.rint(found.data)).all()
    assert (found != ul.io.to_counts(cells, screen=screen)).nnz == 0
    assert (found != ul.io.to_counts(cells, screen=screen, seed=1)).nnz > 0


def test_a_screen_without_counts_gets_the_way_out(screen: AnnData) -> None:
    del screen.layers["counts"]
    with pytest.raises(ValueError, match=r"Keep the raw counts"):
        ul.io.to_counts(screen, layer="unlasting")
    with pytest.raises(KeyError, match="Name another `layer`"):
        ul.io.to_counts(screen, layer="nothing")


@pytest.mark.parametrize("form", ["layer", "predictions"])
@pytest.mark.slow
def test_a_pair_scores_in_cell_eval2_as_here(screen: AnnData, tmp_path: Path, form: str) -> None:
    given = {} if form == "layer" else {"predictions": generated(screen)[:, ::-1].copy()}
    pred, real = ul.io.write_cell_eval(screen, tmp_path / "pair", **given)
    table, theirs = scored(pred, real)

    frame = ul.tl.evaluate(screen, profile="vcc2026", baselines=["mean shift"], **given)
    name = "unlasting" if form == "layer" else "prediction"
    summary = screen.uns["unlasting"]["vcc2026_summary"]
    ours = summary[summary["predictor"] == name].set_index("metric")["value"]
    for metric, peer in VCC2026.items():
        assert ours[metric] == pytest.approx(theirs[peer], rel=1e-6), metric
    own = frame[frame["predictor"] == name].pivot(index="condition", columns="metric", values="value")
    for metric, peer in VCC2026.items():
        if metric != "mse_ratio":
            expected = table[table["metric"] == peer].set_index("perturbation")["value"]
            np.testing.assert_allclose(own[metric], expected[own.index], rtol=1e-6, err_msg=metric)

    # and their file comes in again
    back = ul.io.read_predictions(pred, "cell-eval", screen=screen)
    again = screen.copy()
    ul.tl.evaluate(again, predictions=back, profile="vcc2026", baselines=[])
    values = again.uns["unlasting"]["vcc2026_summary"].set_index(["predictor", "metric"])["value"]
    np.testing.assert_allclose(values["prediction"][list(VCC2026)], ours[list(VCC2026)], rtol=1e-12)


@pytest.mark.slow
def test_their_example_scores_here_as_in_cell_eval2(tmp_path: Path) -> None:
    """Two random screens of cell-eval as a pair, read in one call each."""
    paths = []
    for seed, name in enumerate(("real", "pred")):
        adata = build_random_anndata(600, n_genes=60, n_perts=5, n_celltypes=1, normlog=False, random_state=seed)
        adata.X = sparse.csr_matrix(np.rint(adata.X / 1e4), dtype=np.float32)
        paths.append(tmp_path / f"{name}.h5ad")
        adata.write_h5ad(paths[-1])
    no_targets = {"*": None}
    _, theirs = scored(paths[1], paths[0], pert_col="perturbation", control="control", target_gene_map=no_targets)
    screen = ul.io.read_screen(paths[0], "cell-eval")
    screen.obs["unlasting_split"] = np.where(screen.obs["perturbation"] == "control", "train", "test")
    ul.pp.prepare(screen)
    found = ul.io.read_predictions(paths[1], "cell-eval", screen=screen)
    ul.tl.evaluate(screen, predictions=found, profile="vcc2026", baselines=[])
    summary = screen.uns["unlasting"]["vcc2026_summary"].set_index(["predictor", "metric"])["value"]["prediction"]
    # noise has no large effects, so that some metrics are missing on both sides
    np.testing.assert_allclose(summary[list(VCC2026)], theirs.reindex(VCC2026.values()), rtol=1e-6, equal_nan=True)
    assert summary[list(VCC2026)].notna().sum() >= 3


def test_a_pair_needs_a_split(screen: AnnData, tmp_path: Path) -> None:
    screen.obs["unlasting_split"] = "train"
    with pytest.raises(ValueError, match="Run `pp.split`"):
        ul.io.write_cell_eval(screen, tmp_path)


def prep(path: Path, genes: Path, perturbations: Path, n_cells: int) -> object:
    return run_prep(
        input_path=str(path),
        genes_path=str(genes),
        perts_path=str(perturbations),
        cells_per_pert=n_cells,
        required_contexts=("A",),
        expected_gene_dim=None,
        output_path=str(path.with_suffix(".vcc")),
    )


@pytest.fixture
def challenge(screen: AnnData, tmp_path: Path) -> tuple[Path, Path]:
    """The list of genes, with two that the screen lacks, and the list of targets."""
    genes = [*screen.var_names[::-1], "MALAT1", "ACTB"]
    (tmp_path / "gene_names.csv").write_text("\n".join(genes) + "\n")
    (tmp_path / "pert_counts.csv").write_text("\n".join(["target_gene", *TESTED]) + "\n")
    return tmp_path / "gene_names.csv", tmp_path / "pert_counts.csv"


def test_the_challenge_accepts_the_file(screen: AnnData, challenge: tuple[Path, Path], tmp_path: Path) -> None:
    genes, perturbations = challenge
    cells = generated(screen)
    with pytest.raises(KeyError, match="2 genes among 42 have no prediction, such as 'MALAT1'"):
        ul.io.write_vcc(cells, tmp_path / "p.h5ad", screen=screen, genes=genes, context="A", n_cells=60)
    raw = AnnData(
        sparse.csr_matrix(np.random.default_rng(1).poisson(3.0, (screen.n_obs, 42)).astype(np.float32)),
        obs=pd.DataFrame(index=screen.obs_names),
        var=pd.DataFrame(index=["ACTB", "MALAT1", *screen.var_names]),
    )
    path = ul.io.write_vcc(
        cells, tmp_path / "p.h5ad", screen=screen, controls=raw, genes=genes, context="A", n_cells=60
    )
    written = anndata.read_h5ad(path)
    assert written.obs["target_gene"].value_counts().to_dict() == dict.fromkeys(TESTED, 60)
    result = prep(path, genes, perturbations, 60)
    assert (result.n_cells, result.n_genes, result.normalization) == (180, 42, "counts-preserved")
    assert result.verified_targets
    assert not result.reordered_genes
    assert path.with_suffix(".vcc").exists()
    # predicted genes are the generated counts, the others those of the source cells
    assert set(written[:, "ACTB"].X.toarray().ravel()) <= set(range(20))
    sums = written[:, screen.var_names].X.toarray().sum(axis=1)
    truth = screen.layers["truth_of_rounding"][screen.obs["perturbation"].isin(TESTED).to_numpy()].sum(axis=1)
    assert set(sums) <= set(truth)


def test_the_command_accepts_the_file_by_the_official_rules(screen: AnnData, tmp_path: Path) -> None:
    """All genes, three contexts, 400 cells of each target, and no controls."""
    rest = [f"X{i}" for i in range(EXPECTED_GENE_DIM - screen.n_vars)]
    (tmp_path / "gene_names.csv").write_text("\n".join([*rest, *screen.var_names]) + "\n")
    (tmp_path / "pert_counts.csv").write_text("\n".join(["target_gene", *TESTED]) + "\n")
    raw = sparse.random_array(
        (screen.n_obs, EXPECTED_GENE_DIM), density=1e-3, rng=np.random.default_rng(0), format="csr"
    )
    raw.data = np.ceil(3 * raw.data).astype(np.float32)
    controls = AnnData(
        sparse.csr_matrix(raw),
        obs=pd.DataFrame(index=screen.obs_names),
        var=pd.DataFrame(index=[*screen.var_names, *rest]),
    )
    cells = anndata.concat([generated(screen)] * 18, index_unique="-")
    cells.obs["cell_type"] = np.tile(np.repeat(["A", "B", "C"], cells.n_obs // 18), 6)
    given = {"screen": screen, "controls": controls, "genes": tmp_path / "gene_names.csv"}
    path = ul.io.write_vcc(cells, tmp_path / "p.h5ad", **given)
    files = ["--genes", str(given["genes"]), "--perts", str(tmp_path / "pert_counts.csv")]
    done = CliRunner().invoke(cli, ["prep", str(path), *files, "--contexts", "A,B,C"])
    assert done.exit_code == 0, done.output
    back = unpacked(tmp_path / "p.prep.vcc")
    assert back.shape == (9 * 400, EXPECTED_GENE_DIM)
    assert back.obs.groupby(["context", "target_gene"], observed=True).size().eq(400).all()
    assert (back.X != anndata.read_h5ad(path).X).nnz == 0
    validate_vcc(tmp_path / "p.prep.vcc")


def unpacked(path: Path) -> AnnData:
    """The cells in a `.vcc` package."""
    with tarfile.open(path) as package:
        member = package.extractfile("pred.h5ad.zst")
        assert member is not None
        content = zstandard.ZstdDecompressor().stream_reader(member).read()
    return anndata.read_h5ad(io.BytesIO(content))


@pytest.mark.slow
def test_cells_come_back_from_the_challenge_with_equal_scores(
    screen: AnnData, challenge: tuple[Path, Path], tmp_path: Path
) -> None:
    """Through `vcc prep` and back, and a file of `vcc sample`: equal scores here and in cell-eval2."""
    genes, perturbations = tmp_path / "genes.csv", challenge[1]
    genes.write_text("\n".join(screen.var_names) + "\n")
    ours = ul.io.write_vcc(generated(screen), tmp_path / "p.h5ad", screen=screen, genes=genes, context="A", n_cells=70)
    prep(ours, genes, perturbations, 70)
    unpacked(ours.with_suffix(".vcc")).write_h5ad(tmp_path / "back.h5ad")
    sample = tmp_path / "sample.h5ad"
    run_sample(
        genes_path=str(genes),
        perts_path=str(perturbations),
        output_path=str(sample),
        cells_per_pert=50,
        genes_per_cell=20,
        contexts=("A",),
        as_h5ad=True,
        seed=0,
    )
    real = anndata.read_h5ad(ul.io.write_cell_eval(screen, tmp_path / "pair")[1])
    frames = {}
    for path in (ours, tmp_path / "back.h5ad", sample):
        found = ul.io.read_predictions(path, "cell-eval", screen=screen)
        ul.tl.evaluate(screen, predictions=found, profile="vcc2026", baselines=[])
        values = screen.uns["unlasting"]["vcc2026_summary"].set_index(["predictor", "metric"])["value"]["prediction"]
        frames[path] = values[list(VCC2026)]
        pred = anndata.read_h5ad(path)
        pred.obs["target"] = pred.obs["target_gene"]
        pair = anndata.concat([pred, real[real.obs["target"] == "non-targeting"]], index_unique="-")
        _, theirs = scored(pair[:, real.var_names].copy(), real)
        np.testing.assert_allclose(frames[path], theirs[list(VCC2026.values())], rtol=1e-6, err_msg=path.name)
    pd.testing.assert_series_equal(frames[ours], frames[tmp_path / "back.h5ad"])
    assert (frames[sample] != frames[ours]).any()


def test_a_challenge_file_of_several_contexts(screen: AnnData, tmp_path: Path) -> None:
    cells = generated(screen)
    cells = anndata.concat([cells, cells], index_unique="-")
    cells.obs["cell_type"] = np.repeat(["A", "B"], cells.n_obs // 2)
    path = ul.io.write_vcc(cells, tmp_path / "p.h5ad", screen=screen, n_cells=70)
    assert anndata.read_h5ad(path).obs.groupby(["context", "target_gene"], observed=True).size().eq(70).all()
    with pytest.raises(ValueError, match="'G1' in context 'A' has 70 cells, but 71 are needed"):
        ul.io.write_vcc(cells, tmp_path / "q.h5ad", screen=screen, n_cells=71)
    with pytest.raises(KeyError, match="or give `context`"):
        ul.io.write_vcc(cells, tmp_path / "q.h5ad", screen=screen, context_key="site")
    with pytest.raises(KeyError, match="perturbation_key"):
        ul.io.write_vcc(cells, tmp_path / "q.h5ad", screen=screen, perturbation_key="gene")
    assert not (tmp_path / "q.h5ad").exists()


def test_the_packages_of_the_challenge_are_not_needed() -> None:
    source = Path(ul.io.__file__).parent
    text = "".join(file.read_text(encoding="utf-8") for file in source.glob("*.py"))
    assert "import vcc" not in text
    assert "import cell_eval2" not in text
    assert "unlasting.io" in sys.modules
