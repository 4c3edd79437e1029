"""Put the model beside CellFlow and GEARS on one screen: processor time, memory and scores on unseen perturbations.

    python benchmarks/quality/beside_tools.py prepare            # in the environment of this package
    python benchmarks/quality/beside_tools.py ours
    VENV_OF_GEARS/bin/python benchmarks/quality/beside_tools.py gears --budget 720
    VENV_OF_CELLFLOW/bin/python benchmarks/quality/beside_tools.py cellflow --budget 720
    python benchmarks/quality/beside_tools.py table

`pip install cell-gears "numpy<2" "scipy<1.14"` and `pip install cellflow-tools requests` make the two further environments. Every stage takes
`--screens` and `--work`, the folder in which stages find each other's files, and skips what is there; delete a file in it to
run its stage again. `--budget` is processor seconds for each training. Set `OMP_NUM_THREADS=1`, and for CellFlow
`XLA_FLAGS="--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"`.

Screen `m` is simulated: 30,000 cells, 2,000 genes and 80 targets. Screen `papalexi` ships with the package. All tools get the
same cells, the same split and the same knowledge: a vector for each gene from `pp.grn`. CellFlow takes the vectors as the
representation of targets, and GEARS the 20 nearest genes of each as its graph of perturbations.

Writes `results/beside_tools_costs.csv`, `results/beside_tools.csv` (every condition) and `results/beside_tools.md`.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import multiprocessing
import pickle
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from stamps import RESULTS, stamp

NAME = "beside_tools"
SCREENS = {"m": "simulated, 30,000 cells x 2,000 genes x 80 targets", "papalexi": "Papalexi, 16,093 cells x 299 genes"}
SIMULATED = {
    "n_cells": 340,
    "n_controls": 2_800,
    "n_genes": 2_000,
    "n_targets": 80,
    "n_unmeasured": 0,
    "n_inert": 0,
    "n_downstream": 30,
    "mean_counts": 0.5,
    "seed": 1,
}
N_GENERATED = 150
"""Cells that each tool gives for a condition."""
N_PCS = 50
BASELINES = ("mean shift", "zero-aware mean shift", "nearest target", "nearest target or nothing")
FLOOR = "noise floor / no effect"
"""The row with the noise floor, which the scores leave out, as a share of the distance of control cells."""
GEARS_EPOCHS, GEARS_BATCH = 20, 32
"""Epochs and cells of a step in the README of GEARS."""
N_EVALUATED = 10
"""Batches on which GEARS is evaluated after a part of an epoch."""
N_NEIGHBOURS, LEAST_SIMILARITY = 20, 0.1
"""Neighbours in the graph of perturbations, as in GEARS."""
CELLFLOW = {"published": (100_000, 1_024), "small": (np.nan, 256)}
"""Recommended steps and cells of a step: `published` for genetic perturbations, in the repository of the CellFlow paper."""
WIDTHS = {
    "published": {"time_encoder_dims": (1024,) * 3, "hidden_dims": (2048,) * 3, "decoder_dims": (2048,) * 3},
    "small": {"time_encoder_dims": (256,) * 3, "hidden_dims": (512,) * 3, "decoder_dims": (512,) * 3},
}
TOLERANCE = 1e-3
"""Error of CellFlow's solver; its default is 1e-5, with several times the evaluations."""
CONDITION_WIDTH = {"published": 1024, "small": 256}


def processor() -> float:
    """Get the processor seconds of all threads so far."""
    return time.process_time()


def gigabytes() -> float:
    """Get the peak memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def record(folder: Path, tool: str, **facts: Any) -> None:
    """Write the costs of a tool on a screen; a later file replaces an earlier one."""
    row = {"screen": folder.name, "tool": tool, **facts, "gigabytes": gigabytes()}
    (folder / f"{tool}.json").write_text(json.dumps(row), encoding="utf-8")
    print({name: round(value, 3) if isinstance(value, float) else value for name, value in row.items()}, flush=True)


def write_cells(folder: Path, tool: str, cells: dict[str, np.ndarray]) -> None:
    """Write the predicted cells of every test condition."""
    np.savez_compressed(folder / f"{tool}.npz", **{name: np.asarray(x, dtype="f4") for name, x in cells.items()})


def prepare(folder: Path) -> None:
    """Simulate or load a screen, split and prepare it, and write it for all tools."""
    from anndata import AnnData

    import unlasting as ul
    from unlasting.screen import GeneNames

    if (folder / "prior.npz").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    if folder.name == "m":
        adata = ul.datasets.simulate_screen(**SIMULATED)
        ul.pp.split(adata, "unseen_perturbation")
        ul.pp.prepare(adata, library_size_key="library_size", target_sum=1e4)
        ul.pp.grn(adata, prior=adata.uns.pop("simulation")["edges"])
    else:
        adata = ul.datasets.papalexi()
        ul.pp.split(adata, "reference")
        ul.pp.prepare(adata)
        ul.pp.grn(adata)
    adata.write_h5ad(folder / "screen.h5ad")
    obs = adata.obs[["perturbation", "unlasting_split"]].astype(str).set_axis(["perturbation", "part"], axis=1)
    plain = AnnData(adata.X, obs=obs, var=pd.DataFrame(index=np.asarray(adata.var_names, dtype=object)))
    plain.write_h5ad(folder / "plain.h5ad")
    stored = adata.uns["unlasting"]["target_embedding"]
    row = {str(name): i for i, name in enumerate(stored["names"])}
    wanted = sorted({*adata.var_names, *adata.obs["perturbation"]} - {"control"})
    found = {name: name if name in row else GeneNames(list(row)).find(name, is_gene=True) for name in wanted}
    names = [name for name in wanted if found[name] in row]
    np.savez(folder / "prior.npz", names=names, matrix=stored["matrix"][[row[found[name]] for name in names]])


def ours(folder: Path, tool: str, budget: float) -> None:
    """Train the model with its own number of steps, and generate from its closed form and its networks."""
    import anndata

    import unlasting as ul

    adata = anndata.read_h5ad(folder / "screen.h5ad")
    names = test_conditions(adata.obs["perturbation"], adata.obs["unlasting_split"])
    ul.UnlastingModel.setup_anndata(adata)
    model, start = ul.UnlastingModel(adata), processor()
    model.train(max_steps=0)
    fitted = processor() - start
    if tool == "unlasting":
        model.train(seed=0, show_progress=False)
    trained = processor() - start
    steps = {name: int(frame.index.max()) for name, frame in (model.history or {}).items() if "train" in name}
    start = processor()
    cells = model.generate(names, N_GENERATED, seed=0, show_progress=False)
    generated = processor() - start
    labels = cells.obs["perturbation"].astype(str).to_numpy()
    write_cells(folder, tool, {name: cells[labels == name].X.toarray() for name in names})
    n_steps = sum(steps.values())
    record(
        folder,
        tool,
        version=ul.__version__,
        prepare_seconds=0.0,
        step_seconds=(trained - fitted) / n_steps if n_steps else np.nan,
        step_cells=np.nan,
        recommended_steps=n_steps,
        recommended_seconds=trained,
        extrapolated=False,
        steps=n_steps,
        training_seconds=trained,
        cell_seconds=generated / cells.n_obs,
        note=json.dumps(steps),
    )


def test_conditions(labels: pd.Series, parts: pd.Series) -> list[str]:
    """List the perturbations of test cells."""
    return sorted(set(labels[(parts == "test").to_numpy()].astype(str)) - {"control"})


def read_plain(folder: Path) -> tuple[Any, dict[str, np.ndarray]]:
    """Read the screen and the vectors of genes, without this package."""
    import anndata

    with np.load(folder / "prior.npz") as prior:
        vectors = dict(zip(prior["names"].tolist(), prior["matrix"], strict=True))
    return anndata.read_h5ad(folder / "plain.h5ad"), vectors


class Watched:
    """The first batches of a loader; keeps the processor seconds of each, apart for training and evaluation."""

    def __init__(self, loader: Any, n_batches: dict[bool, int], is_training: Callable[[], bool]) -> None:
        self.loader, self.n_batches, self.is_training = loader, n_batches, is_training
        self.seconds: dict[bool, list[float]] = {True: [], False: []}

    def __iter__(self) -> Iterator[Any]:
        training, start = self.is_training(), processor()
        for batch in itertools.islice(self.loader, self.n_batches[training]):
            yield batch
            self.seconds[training].append(processor() - start)
            start = processor()

    def mean(self, training: bool) -> float:
        """Average the seconds of a batch after the first one, which takes longer."""
        found = self.seconds[training]
        return float(np.mean(found[1:] or found))


def neighbours(vectors: dict[str, np.ndarray], names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Join each gene to its nearest ones, with the cosine as weight: edges `(2, n_edges)` and weights `(n_edges,)`."""
    matrix = np.stack([vectors[name] for name in names])
    cosine = matrix @ matrix.T / np.linalg.norm(matrix, axis=1) / np.linalg.norm(matrix, axis=1)[:, None]
    nearest = np.argsort(-cosine, axis=1)[:, : N_NEIGHBOURS + 1]
    target = np.repeat(np.arange(len(names)), nearest.shape[1])
    edges = np.stack([nearest.ravel(), target])
    weights = cosine[edges[0], edges[1]]
    return edges[:, weights > LEAST_SIMILARITY], weights[weights > LEAST_SIMILARITY].astype("f4")


def gears(folder: Path, tool: str, budget: float) -> None:
    """Train GEARS for as many epochs as the budget allows, or for a part of the first."""
    import torch
    from gears import GEARS, PertData
    from gears.inference import evaluate
    from torch_geometric.loader import DataLoader

    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002  GEARS draws control cells with it
    adata, vectors = read_plain(folder)
    start = processor()
    label = adata.obs["perturbation"].astype(str)
    condition = np.where(label == "control", "ctrl", label + "+ctrl")
    adata.obs["condition"], adata.obs["cell_type"], adata.var["gene_name"] = condition, "cell", adata.var_names
    parts = {part: sorted(set(condition[adata.obs["part"] == part])) for part in ("train", "val", "test")}
    parts = {
        part: [name for name in names if name.split("+")[0] in {"ctrl", *vectors}] for part, names in parts.items()
    }
    parts["val"], parts["test"] = ([name for name in parts[part] if name != "ctrl"] for part in ("val", "test"))
    place = folder / "gears"
    place.mkdir(exist_ok=True)
    with open(place / "gene2go_all.pkl", "wb") as file:
        pickle.dump({name: {"known"} for name in vectors}, file)  # which genes are known; the graph is given below
    with open(place / "split.pkl", "wb") as file:
        pickle.dump(parts, file)
    data = PertData(str(place), default_pert_graph=False)
    if not (place / "seconds.txt").exists():
        data.new_data_process("screen", adata=adata)
        (place / "seconds.txt").write_text(str(processor() - start))
    made, start = float((place / "seconds.txt").read_text()), processor()
    data.load(data_path=str(place / "screen"))
    data.prepare_split(split="custom", seed=0, split_dict_path=str(place / "split.pkl"))
    data.get_dataloader(batch_size=GEARS_BATCH, test_batch_size=128)
    edges, weights = neighbours(vectors, list(data.pert_names))
    model = GEARS(data, device="cpu")
    loader, val, test = (model.dataloader.pop(f"{part}_loader") for part in ("train", "val", "test"))
    graph = {"G_go": torch.from_numpy(edges), "G_go_weight": torch.from_numpy(weights)}

    def train(epochs: int, n_batches: int, n_evaluated: int) -> Watched:
        torch.manual_seed(0)
        model.model_initialize(hidden_size=64, **graph)
        numbers = {True: n_batches, False: n_evaluated}
        watched = Watched(loader, numbers, lambda: model.model.training)
        model.dataloader |= {
            "train_loader": watched,
            "val_loader": Watched(val, numbers, lambda: model.model.training),
        }
        model.train(epochs=epochs, lr=1e-3)
        return watched

    model.model_initialize(hidden_size=64, **graph)  # writes the co-expression graph
    prepared = made + processor() - start
    probe = train(1, 6, 3)
    step, evaluation = probe.mean(True), probe.mean(False)
    print(
        f"GEARS: {step:.2f} s a step, {evaluation:.2f} s an evaluated batch, {len(loader)} steps an epoch", flush=True
    )
    epochs = min(GEARS_EPOCHS, int(budget / (len(loader) * (step + evaluation) + len(val) * evaluation)))
    start = processor()
    if epochs:
        watched = train(epochs, len(loader), len(loader))
    else:
        watched = train(1, int((budget - 2 * N_EVALUATED * evaluation) / step), N_EVALUATED)
    trained = processor() - start
    step, evaluation = watched.mean(True), watched.mean(False)
    total = GEARS_EPOCHS * (len(loader) * (step + evaluation) + len(val) * evaluation)
    kept = {name: [graph for graph in test.dataset if graph.pert == name][:N_GENERATED] for name in parts["test"]}
    start = processor()
    found = evaluate(DataLoader(sum(kept.values(), []), GEARS_BATCH), model.best_model, False, "cpu")
    generated = processor() - start
    names = np.char.replace(found["pert_cat"].astype(str), "+ctrl", "")
    write_cells(folder, tool, {str(name): found["pred"][names == name] for name in np.unique(names)})
    record(
        folder,
        tool,
        version=f"{version('cell-gears')}, torch {version('torch')}",
        prepare_seconds=prepared,
        step_seconds=step,
        step_cells=GEARS_BATCH,
        recommended_steps=GEARS_EPOCHS * len(loader),
        recommended_seconds=total,
        extrapolated=epochs < GEARS_EPOCHS,
        steps=len(watched.seconds[True]),
        training_seconds=trained,
        cell_seconds=generated / len(names),
        note=f"{epochs} epochs" if epochs else "a part of the first epoch",
    )


def cellflow(folder: Path, tool: str, budget: float) -> None:
    """Measure a step of CellFlow in its published width, and train a small one for the budget."""
    import diffrax
    import optax
    from anndata import AnnData
    from cellflow.model import CellFlow
    from cellflow.preprocessing import centered_pca, project_pca, reconstruct_pca
    from cellflow.utils import match_linear

    size = tool.split(", ")[1]
    recommended, n_cells = CELLFLOW[size]
    adata, vectors = read_plain(folder)
    start = processor()
    adata.obs["is_control"] = (adata.obs["perturbation"] == "control").to_numpy()
    adata.obs["target_gene"] = adata.obs["condition"] = adata.obs["perturbation"].astype("category")
    adata.obs["part"] = adata.obs["part"].astype(str)
    train = adata[(adata.obs["part"] == "train").to_numpy()].copy()
    train.obs["target_gene"] = train.obs["target_gene"].cat.remove_unused_categories()
    unknown = np.zeros_like(next(iter(vectors.values())))
    targets = sorted(set(adata.obs["perturbation"].astype(str)))
    train.uns["genes"] = {name: vectors.get(name, unknown) for name in targets}
    centered_pca(train, n_comps=N_PCS, keep_centered_data=False)
    prepared = processor() - start
    names = test_conditions(adata.obs["perturbation"], adata.obs["part"])
    controls = train[train.obs["is_control"].to_numpy()]
    chosen = np.random.default_rng(0).permutation(controls.n_obs)[:N_GENERATED]
    controls = controls[np.sort(chosen)].copy()
    controls.uns["genes"] = train.uns["genes"]
    project_pca(query_adata=controls, ref_adata=train)

    def made() -> Any:
        model, width = CellFlow(train, solver="otfm"), CONDITION_WIDTH[size]
        model.prepare_data(
            sample_rep="X_pca",
            control_key="is_control",
            perturbation_covariates={"target_gene": ("target_gene",)},
            perturbation_covariate_reps={"target_gene": "genes"},
        )
        layers = {"layer_type": "mlp", "dims": [width, width], "dropout_rate": 0.0}
        adam = optax.MultiSteps(optax.adam(5e-5), 20) if size == "published" else optax.adam(5e-4)
        model.prepare_model(
            regularization=0.1,
            pooling="mean",
            layers_before_pool={"target_gene": layers},
            layers_after_pool=layers,
            condition_embedding_dim=256,
            cond_output_dropout=0.5,
            time_freqs=1024,
            conditioning="film" if size == "published" else "concatenation",
            probability_path={"constant_noise": 0.5},
            match_fn=functools.partial(match_linear, epsilon=1.0, tau_a=1.0, tau_b=1.0),
            optimizer=adam,
            **WIDTHS[size],
        )
        return model

    def seconds(model: Any, n_steps: int, n_cells: int) -> float:
        start = processor()
        model.train(num_iterations=n_steps, batch_size=n_cells, valid_freq=10**9)
        return processor() - start

    model = made()
    compiled = seconds(model, 2, n_cells)
    step = seconds(model, 10, n_cells) / 10
    print(f"{tool}: {step:.3f} s a step, {compiled:.0f} s until the second step", flush=True)
    facts: dict[str, Any] = {"steps": 0, "training_seconds": 0.0, "cell_seconds": np.nan}
    if size == "small":
        n_steps = int(budget / step)
        del model
        model = made()
        trained = seconds(model, n_steps, n_cells)
        step = trained / n_steps
        start = processor()
        asked = pd.DataFrame({"target_gene": names, "condition": names, "is_control": False})
        asked["target_gene"] = asked["target_gene"].astype("category")
        controller = diffrax.PIDController(rtol=TOLERANCE, atol=TOLERANCE)
        options = {"sample_rep": "X_pca", "condition_id_key": "condition", "stepsize_controller": controller}
        found = model.predict(controls, covariate_data=asked, **options)
        cells = {}
        for name, values in found.items():
            decoded = AnnData(obs=pd.DataFrame(index=[str(i) for i in range(len(values))]), var=train.var[[]])
            decoded.obsm["X_pca"] = np.asarray(values)
            reconstruct_pca(decoded, use_rep="X_pca", ref_adata=train)
            cells[str(name)] = decoded.layers["X_recon"]
        write_cells(folder, tool, cells)
        generated = (processor() - start) / sum(map(len, cells.values()))
        facts = {"steps": n_steps, "training_seconds": trained, "cell_seconds": generated}
    record(
        folder,
        tool,
        version=f"{version('cellflow-tools')}, jax {version('jax')}",
        prepare_seconds=prepared,
        step_seconds=step,
        step_cells=n_cells,
        recommended_steps=recommended,
        recommended_seconds=recommended * step,
        extrapolated=size == "published",
        note="widths " + json.dumps(WIDTHS[size]),
        **facts,
    )


class Stored:
    """Cells that a tool predicted, behind the protocol of baselines."""

    def __init__(self, file: Path) -> None:
        with np.load(file) as found:
            self.cells = {name: found[name] for name in found.files}

    def fit(self, adata: Any, **labels: Any) -> Stored:
        """Return itself: the tool was trained elsewhere."""
        return self

    def predict(self, condition: Any, n_cells: int, *, seed: int = 0) -> np.ndarray:
        """Draw cells."""
        from unlasting.baselines._protocol import NoPrediction

        if condition.perturbation not in self.cells:
            raise NoPrediction("no cells were generated")
        cells = self.cells[condition.perturbation]
        return cells[np.random.default_rng(seed).permutation(len(cells))[:n_cells]]


def score(folder: Path) -> pd.DataFrame:
    """Score the predicted cells of all tools beside baselines, one row for each condition and metric."""
    import anndata

    import unlasting as ul
    from unlasting.metrics import Metric

    adata = anndata.read_h5ad(folder / "screen.h5ad")
    train = adata[(adata.obs["unlasting_split"] == "train").to_numpy()].X
    mean = np.asarray(train.mean(axis=0)).ravel()
    covariance = (train.T @ train).toarray() / train.shape[0] - np.outer(mean, mean)
    pcs = np.linalg.eigh(covariance)[1][:, -N_PCS:].astype("f4")

    def within_pcs(predicted: Any, observed: Any) -> float:
        return ul.metrics.e_distance(predicted @ pcs, observed @ pcs, unbiased=True)

    tools = {name: Stored(folder / f"{name}.npz") for name in every_tool() if (folder / f"{name}.npz").exists()}
    predictors = tools | {name: ul.baselines.BASELINES[name]() for name in BASELINES}
    metrics = ["e_distance", Metric(f"e_distance_{N_PCS}_pcs", within_pcs, 0.0), "emd"]
    frame = ul.tl.evaluate(adata, layer=None, baselines=predictors, metrics=metrics, gene_sets="all")
    return frame.assign(screen=folder.name)


def normalised(terms: np.ndarray) -> np.ndarray:
    """Put the columns value, floor and no effect, shape `(n, 3)`, on the scale from noise floor, 0, to no effect, 1."""
    value, floor, no_effect = terms.T
    return (value - floor) / (no_effect - floor)


def floor_share(terms: np.ndarray) -> np.ndarray:
    """Divide the noise floor by the distance of control cells, shape `(n, 3)`."""
    return terms[:, 1] / terms[:, 2]


def scores(frame: pd.DataFrame) -> pd.DataFrame:
    """Get the scores over conditions with a signal, and their 90 % intervals."""
    from unlasting.tl._uncertainty import score_interval

    frame = frame[frame["signal"].astype(bool) & (frame["predictor"] != "no effect")]
    floor = frame[frame["predictor"] == frame["predictor"].iloc[0]].assign(predictor=FLOOR)
    rows = []
    for keys, group in pd.concat([frame, floor]).groupby(["screen", "predictor", "metric"], sort=False):
        terms = group[["value", "floor", "no_effect"]].to_numpy()
        found = score_interval(floor_share if keys[1] == FLOOR else normalised, terms, 0, level=0.9)
        rows.append([*keys, *found, len(group)])
    return pd.DataFrame(rows, columns=["screen", "predictor", "metric", "score", "low", "high", "n_conditions"])


def duration(seconds: float) -> str:
    """Write processor seconds for people."""
    for length, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"


def cost(row: Any) -> str:
    """Write a row of the table of costs."""
    step = "" if np.isnan(row.step_seconds) else f"{row.step_seconds:.3f} s"
    step += f" ({row.step_cells:,.0f} cells)" if row.step_cells > 0 else ""
    recommended, trained = "", "not trained"
    if not np.isnan(row.recommended_steps):
        mark = " \\*" if row.extrapolated else ""
        recommended = f"{row.recommended_steps:,.0f} steps, {duration(row.recommended_seconds)}{mark}"
    if row.training_seconds:
        trained = f"{row.steps:,} steps, {duration(row.training_seconds)}"
        trained += f" ({row.steps / row.recommended_steps:.1%})" if row.extrapolated else ""
    cell = "" if np.isnan(row.cell_seconds) else f"{1000 * row.cell_seconds:.1f} ms"
    own = duration(row.prepare_seconds) if row.prepare_seconds else ""
    return f"| {row.tool} | {step} | {own} | {recommended} | {trained} | {cell} | {row.gigabytes:.1f} GB |"


def report(costs: pd.DataFrame, found: pd.DataFrame) -> str:
    """Write a table of costs and one of scores for each screen."""
    lines = []
    for screen, title in SCREENS.items():
        part = found[found["screen"] == screen]
        if part.empty:
            continue
        if screen == "m":
            lines += [f"Processor time and memory, {title}:", ""]
            lines += [
                "| | a step | own preparation | recommended training | training here | a generated cell | peak memory |"
            ]
            lines += ["|---|---|---|---|---|---|---|", *map(cost, costs[costs["screen"] == screen].itertuples()), ""]
        metrics = ["e_distance", f"e_distance_{N_PCS}_pcs", "emd"]
        lines += [f"Scores, {title}, {part['n_conditions'].max()} unseen targets with a signal:", ""]
        lines += [f"| | E-distance | E-distance, {N_PCS} PCs | EMD |", "|---|---|---|---|"]
        wide = part.set_index(["predictor", "metric"])
        for name in dict.fromkeys(part["predictor"]):
            cells = [wide.loc[(name, metric)] for metric in metrics]
            texts = [f"{x['score']:.2f} [{x['low']:.2f}, {x['high']:.2f}]" for x in cells]
            lines.append(f"| {name} | {' | '.join(texts)} |")
        lines.append("")
    return "\n".join(lines)


def table(folders: list[Path]) -> None:
    """Score what is new, and write the tables."""
    files = [folder / f"{name}.json" for folder in folders for name in every_tool()]
    costs = [json.loads(file.read_text(encoding="utf-8")) for file in files if file.exists()]
    frames = [score(folder) for folder in folders if (folder / "prior.npz").exists()]
    frame = pd.concat(frames, ignore_index=True)
    pd.DataFrame(costs).to_csv(RESULTS / f"{NAME}_costs.csv", index=False, float_format="%.6g")
    frame.to_csv(RESULTS / f"{NAME}.csv", index=False, float_format="%.6g")
    text = report(pd.DataFrame(costs), scores(frame))
    (RESULTS / f"{NAME}.md").write_text(text, encoding="utf-8")
    print(text)


TOOLS: dict[str, tuple[Callable[[Path, str, float], None], list[str]]] = {
    "ours": (ours, ["unlasting, closed form", "unlasting"]),
    "gears": (gears, ["GEARS"]),
    "cellflow": (cellflow, ["CellFlow, published", "CellFlow, small"]),
}
"""What trains and predicts in each stage, and its rows in the tables."""


def every_tool() -> list[str]:
    """List the rows in order."""
    return [tool for _, tools in TOOLS.values() for tool in tools]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=["prepare", "ours", "gears", "cellflow", "table"])
    parser.add_argument("--screens", nargs="+", default=list(SCREENS), choices=list(SCREENS))
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / NAME)
    parser.add_argument("--budget", type=float, default=720, help="processor seconds of each training")
    asked = parser.parse_args()
    places = [asked.work / name for name in asked.screens]
    if asked.stage == "prepare":
        for place in places:
            prepare(place)
    elif asked.stage == "table":
        table(places)
    else:
        function, tools = TOOLS[asked.stage]
        for place, tool in itertools.product(places, tools):
            if (place / f"{tool}.json").exists() or (tool == "CellFlow, published" and place.name != "m"):
                continue
            # a process for each, so that its peak memory is its own
            process = multiprocessing.get_context("spawn").Process(target=function, args=(place, tool, asked.budget))
            process.start()
            process.join()
            if process.exitcode:
                sys.exit(process.exitcode)
        if asked.stage == "ours":
            stamp(NAME, [place.name for place in places])
