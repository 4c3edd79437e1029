"""Two files with foreign habits, from file to figures, by the commands that the README and the package itself name.

`python benchmarks/foreign_files.py [FOLDER] [--max-steps N]` writes the files, follows `check` and every `next:` on the command
line and in Python, and ends with an error at the first step that fails or leaves no result.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import anndata
import matplotlib as mpl
import numpy as np
import pandas as pd
from anndata import AnnData

import unlasting as ul

mpl.use("agg")
PROGRAM = shutil.which("unlasting") or str(Path(sys.executable).with_name("unlasting"))
KEYS = {
    "crispr": {"perturbation_key": "target_gene", "control": "non-targeting*", "batch_key": "lane"},
    "drugs": {
        "perturbation_key": "compound",
        "control": "DMSO",
        "cell_type_key": "line",
        "dose_key": "conc",
        "dose_unit": "nM",
        "smiles_key": "structure",
    },
}

RANKED = {"crispr": [], "drugs": ["--dose", "1000 nM"]}
"""Options for the ranking."""


def crispr_screen() -> AnnData:
    """Ensembl ids, symbols in a column, counts in a layer, `raw`, integer lanes, two control labels, components."""
    whole = ul.datasets.papalexi()
    rng = np.random.default_rng(0)
    labelled = whole.obs.groupby("perturbation", observed=True).indices.values()
    rows = np.concatenate([rng.permutation(rows)[:150] for rows in labelled])
    counts = whole[np.sort(rows)].copy()
    labels = counts.obs["perturbation"].astype(str)
    control = np.where(np.arange(counts.n_obs) % 2, "non-targeting_1", "non-targeting_2")
    obs = pd.DataFrame(
        {
            "target_gene": pd.Categorical(np.where(labels == "control", control, labels)),
            "lane": counts.obs["batch"].astype("category").cat.codes.to_numpy(dtype=np.int64) + 1,
            "sample_date": pd.date_range("2024-01-01", periods=counts.n_obs, freq="min").astype(str),
        },
        index=[f"{name}-1" for name in counts.obs_names],
    )
    size = np.asarray(counts.X.sum(axis=1))
    values = counts.X.multiply(1e4 / size).tocsr().log1p()
    var = pd.DataFrame(
        {"gene_symbols": counts.var_names, "feature_types": "Gene Expression"},
        index=[f"ENSG{i:011d}.{i % 7}" for i in range(counts.n_vars)],
    )
    adata = AnnData(values, obs=obs, var=var, layers={"umi": counts.X.copy()})
    adata.raw = adata.copy()
    adata.obsm["X_pca"] = np.random.default_rng(0).normal(size=(adata.n_obs, 10))
    return adata


def drug_screen() -> AnnData:
    """Doses in nM, DMSO with its own SMILES, integer plates, other names for all columns."""
    adata = ul.datasets.simulate_drug_screen(
        n_drugs=12, n_families=4, n_cells=40, n_controls=200, n_cell_types=2, n_genes=200
    )
    is_control = (adata.obs["perturbation"] == "control").to_numpy()
    obs = pd.DataFrame(
        {
            "compound": pd.Categorical(np.where(is_control, "DMSO", adata.obs["perturbation"].astype(str))),
            "conc": np.where(is_control, 0.0, adata.obs["dose"] * 1000.0),
            "structure": np.where(is_control, "CS(C)=O", adata.obs["smiles"].astype(str)),
            "line": adata.obs["cell_type"].astype(str),
            "plate": np.random.default_rng(0).integers(1, 4, adata.n_obs),
        },
        index=adata.obs_names,
    )
    return AnnData(adata.X.copy(), obs=obs, var=adata.var[[]].copy())


def run(words: list[str], log: Path) -> list[str]:
    """Run a command, and get the command that it names as next."""
    print("$", shlex.join(words), flush=True)
    done = subprocess.run([PROGRAM, *words[1:]], capture_output=True, text=True, check=False)
    log.write_text(done.stderr)
    for line in done.stderr.splitlines():
        if line.startswith(("WARNING", "Error")):
            print("  ", line)
    if done.returncode:
        raise SystemExit(f"{shlex.join(words)} failed:\n{done.stdout}{done.stderr[-3000:]}")
    following = [line.removeprefix("next: ") for line in done.stdout.splitlines() if line.startswith("next: ")]
    return shlex.split(following[0]) if following else []


def on_the_command_line(name: str, folder: Path, steps: list[str]) -> None:
    """Follow `check` to figures."""
    options = [word for key, value in KEYS[name].items() for word in (f"--{key.replace('_', '-')}", value)]
    training = run(["unlasting", "check", str(folder / f"{name}.h5ad"), *options], folder / "check.log")
    model, predicted = folder / f"{name}_model", folder / f"{name}_predicted.h5ad"
    run([*training, "--model", str(model), *steps], folder / "train.log")
    run(["unlasting", "predict", "--model", str(model), "-o", str(predicted)], folder / "predict.log")
    scores, figures = folder / f"{name}_scores.csv", folder / f"{name}_figures"
    run(
        ["unlasting", "evaluate", str(predicted), "-o", str(scores), "--figures", str(figures)], folder / "evaluate.log"
    )
    run(
        ["unlasting", "rank", "--model", str(model), "-o", str(folder / f"{name}_rank.csv")] + RANKED[name],
        folder / "rank.log",
    )
    cells = anndata.read_h5ad(predicted)
    assert (cells.obs["unlasting_source"] != "").any(), "no cell was generated"
    assert len(pd.read_csv(scores)), "no scores"
    assert sorted(file.name for file in figures.iterdir()) == ["heatmap.png", "scores.png"]


def in_python(name: str, folder: Path, max_steps: int | None) -> None:
    """Follow `ul.pp.check` to figures."""
    adata = anndata.read_h5ad(folder / f"{name}.h5ad")
    real_types = adata.obs.dtypes
    given = KEYS[name]
    for _ in range(8):
        call = ul.pp.check(adata, **given).next_call
        print(">>>", call, flush=True)
        exec(call, {"ul": ul, "adata": adata})
        given = {}
        if "setup_anndata" in call:
            break
    model = ul.UnlastingModel(adata)
    model.train(max_steps=max_steps)
    model.predict(adata)
    ul.tl.evaluate(adata)
    ul.pl.scores(adata, save=folder / f"{name}_python_scores.png", show=False)
    ul.pl.heatmap(adata, save=folder / f"{name}_python_heatmap.png", show=False)
    label = str(adata.obs.loc[adata.obs["unlasting_split"] == "test", KEYS[name]["perturbation_key"]].iloc[0])
    new = model.generate(label, n_cells=50, dose="1000 nM" if name == "drugs" else None)
    for key in set(new.obs) & set(real_types.index):
        assert new.obs[key].dtype.kind == adata.obs[key].dtype.kind, key
    both = anndata.concat([adata, new])
    both.write_h5ad(folder / f"{name}_both.h5ad")
    assert (both.layers["counts"].data == both.layers["counts"].data.round()).all()
    model.save(folder / f"{name}_python_model", save_anndata=True, overwrite=True)


def main() -> None:
    """Write both files and follow both ways."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", default="foreign_files", type=Path)
    parser.add_argument("--max-steps", type=int)
    asked = parser.parse_args()
    shutil.rmtree(asked.folder, ignore_errors=True)
    asked.folder.mkdir(parents=True)
    steps = [] if asked.max_steps is None else ["--max-steps", str(asked.max_steps)]
    for name, make in {"crispr": crispr_screen, "drugs": drug_screen}.items():
        make().write_h5ad(asked.folder / f"{name}.h5ad")
        on_the_command_line(name, asked.folder, steps)
        in_python(name, asked.folder, asked.max_steps)
    print(f"both files went to figures; Python {sys.version.split()[0]}")


if __name__ == "__main__":
    main()
