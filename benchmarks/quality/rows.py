"""Score the closed form and all baselines on thirteen rows: unseen targets, doubles, contexts, doses and drugs.

    python benchmarks/quality/rows.py --data FOLDER

Writes `results/rows.csv` (all conditions), the frames beside it, and from them the tables of the guide: `results/rows.md`.
FOLDER holds the McFaline and Datlinger screens; without it, their rows are left out. `--only P1 K1` runs some rows, and
`--resume` keeps rows that this model has scored. Every row is stamped (`stamps.py`).
"""

from __future__ import annotations

import argparse
import itertools
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from drugs import DRUGS, GENES_AND_DRUGS
from drugs import KEYS as DRUG_KEYS
from rows_tables import CONDITION, DISTANCES, OURS, QUESTIONS, complete, place, report, store, stored
from run import CLEAR, MEASURED_WELL, kang, keeping, maker
from stamps import finished, stamp
from vcc2026 import FULL, SIMULATED, STATE, read

import unlasting as ul
from unlasting.baselines import BASELINES, ModelPredictor
from unlasting.screen import Condition, Perturbation
from unlasting.tl._tables import TERMS
from unlasting.tl._uncertainty import holm, permutation_test

RIVALS = {name: baseline for name, baseline in BASELINES.items() if not baseline.is_ceiling}
MIN_CELLS = 8
MAX_LEFT_OUT = 8
"""Training conditions per unit from which the selector chooses: those with the largest mean change."""
SEEDS = (900, 901, 902, 903)
"""Simulated screens in S1 to S4, in no other table."""
N_NULL, N_TRANSFER = 5, 20
CONTEXTS = {"n_genes": 200, "n_targets": 15, "n_cell_types": 3, "n_cells": 200, "n_controls": 600}
ALWAYS = ("LCK", "LAT", "ZAP70")
SIZED = ("P1", "N1", "D1", "D2", "K1")
N_GENERATED = 300
Folds = list[dict[str, Any]]


@dataclass(frozen=True)
class Unit:
    """One split of one screen; without `conditions`, all test conditions with a signal count."""

    name: str
    screen: Callable[[], Any]
    split: dict[str, Any]
    conditions: tuple[str, ...] | None = None
    seed: int = 0


@dataclass(frozen=True)
class Row:
    """Units of one question; `left_out` lists the folds within the training cells from which the selector chooses."""

    units: list[Unit]
    left_out: Callable[[Any], Folds]
    prepare: dict[str, Any] = field(default_factory=dict)
    setup: dict[str, Any] = field(default_factory=dict)
    prior: Any = "default"


def prepared(row: Row, adata: Any) -> None:
    """Prepare a screen after its split."""
    ul.pp.prepare(adata, **row.prepare)
    if "smiles_key" in row.setup:
        ul.pp.molecules(adata)
    ul.pp.grn(adata, prior=adata.uns.get("simulation", {}).get("edges", row.prior))


def fold(kind: str, name: Any = None, **arguments: Any) -> dict[str, Any]:
    """Hold out a name, without validation conditions."""
    return {"kind": kind, "test": name, "val_fraction": 0.0, **arguments}


def largest(adata: Any, names: set[str]) -> list[str]:
    """Order perturbations by their mean change, and keep at most `MAX_LEFT_OUT`."""
    label = adata.obs["perturbation"].astype(str).to_numpy()
    control = mean(adata[label == "control"])
    change = {name: np.linalg.norm(mean(adata[label == name]) - control) for name in sorted(names)}
    enough = [name for name in change if (label == name).sum() >= MIN_CELLS]
    return sorted(enough, key=lambda name: -change[name])[:MAX_LEFT_OUT]


def labels(adata: Any, key: str = "perturbation") -> pd.Series:
    """Get an `obs` column of perturbed cells."""
    return adata.obs.loc[adata.obs["perturbation"] != "control", key]


def targets_in_turn(adata: Any) -> Folds:
    """Leave out trained perturbations in turn."""
    return [fold("unseen_perturbation", name) for name in largest(adata, set(labels(adata).astype(str)))]


def combinations_in_turn(adata: Any) -> Folds:
    """Leave out trained pairs in turn, whose two single perturbations are trained."""
    trained = set(labels(adata).astype(str))
    pairs = {name for name in trained if is_sum(name, trained)}
    return [fold("unseen_perturbation", name) for name in largest(adata, pairs)]


def contexts_in_turn(key: str, adata: Any) -> Folds:
    """Leave out trained contexts in turn, if there are two."""
    names = sorted(set(labels(adata, key).astype(str)))
    return [fold("unseen_cell_type", name, cell_type_key=key) for name in names if len(names) > 1]


def doses_in_turn(adata: Any) -> Folds:
    """Leave out trained doses in turn."""
    return [fold("unseen_dose", dose, **DRUG_KEYS) for dose in sorted(set(labels(adata, "dose").astype(float)))]


def drugs_in_turn(adata: Any) -> Folds:
    """Leave out trained drugs in turn."""
    return [fold("unseen_drug", name, **DRUG_KEYS) for name in largest(adata, set(labels(adata).astype(str)))]


def is_sum(label: str, trained: set[str]) -> bool:
    """Whether a perturbation has several targets, each trained alone."""
    targets = Perturbation.parse(label, control="control", delimiter="+").targets
    return len(targets) > 1 and trained.issuperset(targets)


def triples() -> list[Unit]:
    """Draw twelve sets of three cell types, each with one that is held out."""
    rng = np.random.default_rng(0)
    every = list(itertools.combinations(MEASURED_WELL, 3))
    units = []
    for i in rng.permutation(len(every))[:12]:
        names = every[i]
        held_out = names[rng.integers(3)]
        title = f"{held_out} from {' and '.join(name for name in names if name != held_out)}"
        split = fold("unseen_cell_type", held_out, cell_type_key="cell_type")
        units.append(Unit(title, partial(of_types, names), split))
    return units


def of_types(names: tuple[str, ...]) -> Any:
    """Get the Kang screen with some cell types only."""
    adata = kang()
    return adata[adata.obs["cell_type"].isin(names)].copy()


def signal(folder: Path) -> pd.DataFrame:
    """Test every Datlinger target under stimulation against the controls: E-distance, permutations, Holm."""
    adata = read(folder, "datlinger2021_jurkat_tcr.h5ad", stimulation="stimulated")
    ul.pp.split(adata, **fold("unseen_perturbation", ALWAYS[0]))
    ul.pp.prepare(adata, **FULL)
    label, x = adata.obs["perturbation"].astype(str).to_numpy(), adata.X.toarray()
    rows = []
    for target in sorted(set(label) - {"control"}):
        cells, controls = x[label == target], x[label == "control"]
        distance, p_value = permutation_test(cells, controls, 9999, np.random.default_rng(0))
        rows.append({"target": target, "n_cells": len(cells), "e_distance": distance, "p_value": p_value})
    frame = pd.DataFrame(rows)
    frame["p_adjusted"] = holm(frame["p_value"].to_numpy())
    frame["scored"] = (frame["p_adjusted"] <= 0.01) | frame["target"].isin(ALWAYS)
    return frame


def rows(folder: Path | None, with_signal: tuple[str, ...]) -> dict[str, Row]:
    """Describe the rows."""
    cells = "cell_type"
    types, norman = {"cell_type_key": cells}, {"prepare": FULL, "setup": {"mode": "activation"}}
    pbmc = {"prepare": {"n_top_genes": 1_000}, "setup": types, "prior": None}
    mini = ul.datasets.norman_mini
    names = set(labels(mini()).astype(str))
    doubles = tuple(sorted(name for name in names if is_sum(name, names)))
    reference = {"kind": "reference"}
    drug = {"prepare": SIMULATED, "setup": DRUG_KEYS}

    def simulated(screen: Callable[..., Any], split: dict[str, Any], **arguments: Any) -> list[Unit]:
        return [Unit(str(seed), partial(screen, seed=seed, **arguments), split, seed=seed) for seed in SEEDS]

    drugs = partial(simulated, ul.datasets.simulate_drug_screen)
    unseen_combination = {"kind": "unseen_combo", "val_fraction": 0.0, **DRUG_KEYS}
    unseen_drug = {"kind": "unseen_drug", "val_fraction": 0.0, **DRUG_KEYS}
    found = {
        "P1": Row(
            [Unit(name, ul.datasets.papalexi, fold("leave_one_out", name), (name,)) for name in CLEAR],
            targets_in_turn,
        ),
        "P2": Row(
            [Unit("reference", ul.datasets.papalexi, reference)],
            targets_in_turn,
        ),
        "N1": Row([Unit("reference", mini, reference)], targets_in_turn, **norman),
        "N3": Row(
            [Unit(name, mini, fold("unseen_perturbation", name), (name,)) for name in doubles],
            combinations_in_turn,
            **norman,
        ),
        "K1": Row(
            [Unit(name, kang, fold("unseen_cell_type", name, **types), ("IFNB",)) for name in MEASURED_WELL],
            partial(contexts_in_turn, cells),
            **pbmc,
        ),
    }
    found |= {
        "K2": Row(triples(), partial(contexts_in_turn, cells), **pbmc),
        "S1": Row(
            drugs(fold("unseen_dose", 1.0, **DRUG_KEYS), **DRUGS),
            doses_in_turn,
            **drug,
        ),
        "S2": Row(drugs(unseen_drug, **DRUGS), drugs_in_turn, **drug),
        "S3": Row(
            drugs(unseen_combination, **GENES_AND_DRUGS),
            combinations_in_turn,
            **drug,
        ),
        "S4": Row(
            simulated(ul.datasets.simulate_screen, fold("unseen_cell_type", "type3", **types), **CONTEXTS),
            partial(contexts_in_turn, cells),
            prepare=SIMULATED,
            setup=types,
        ),
    }
    if folder is not None:
        datlinger = partial(read, folder, "datlinger2021_jurkat_tcr.h5ad")
        stimulated = partial(datlinger, stimulation="stimulated")
        found["D1"] = Row(
            [Unit(name, stimulated, fold("leave_one_out", name), (name,)) for name in with_signal],
            targets_in_turn,
            prepare=FULL,
        )
        found["D2"] = Row(
            [Unit("stimulated", datlinger, fold("unseen_cell_type", "stimulated", **STATE), with_signal)],
            partial(contexts_in_turn, STATE["cell_type_key"]),
            prepare=FULL,
            setup=STATE,
        )
    return found


def run_unit(name: str, row: Row, unit: Unit) -> dict[str, pd.DataFrame]:
    """Score all predictors on one unit, choose baselines on its training cells, and measure sizes if asked for the row."""
    adata, kept = unit.screen(), []
    make = keeping(maker(row.setup, 0, unit.seed), kept)
    ul.tl.benchmark(
        adata,
        {OURS: ModelPredictor(make), **{name: baseline() for name, baseline in BASELINES.items()}},
        splits={unit.name: {**unit.split, "seed": unit.seed}},
        prepare=partial(prepared, row),
        conditions=unit.conditions,
        metrics=tuple(DISTANCES),
        gene_sets=("all", "de20"),
        n_permutations=199,
    )
    scores = adata.uns["unlasting"]["benchmark_scores"]
    scores = scores[scores["scored"]].assign(unit=unit.name)
    [(model, screen)] = kept
    return {
        "scores": scores[[*CONDITION, "gene_set", "metric", "predictor", *TERMS]],
        "choices": choices(row, screen, QUESTIONS[name][1]).assign(unit=unit.name),
        **({"sizes": sizes(model, screen, scores).assign(unit=unit.name)} if name in SIZED else {}),
    }


def choices(row: Row, screen: Any, reference: str) -> pd.DataFrame:
    """Choose a baseline per metric by leaving training conditions out; the reference where none can be.

    The loss is the distance above the noise floor, summed over conditions.
    """
    train = screen[screen.obs["unlasting_split"] == "train"].copy()
    folds = row.left_out(train)
    if not folds:
        return pd.DataFrame({"metric": list(DISTANCES), "predictor": reference, "n_left_out": 0})
    ul.tl.benchmark(
        train,
        {name: baseline() for name, baseline in RIVALS.items()},
        splits={str(i): given for i, given in enumerate(folds)},
        metrics=tuple(DISTANCES),
        gene_sets="all",
        n_repeats=1,
        min_cells=MIN_CELLS,
        max_cells=100,
        n_permutations=19,
    )
    found = train.uns["unlasting"]["benchmark_scores"].rename(columns={"split": "unit"})
    chosen = []
    for metric, part in found.groupby("metric", sort=False):
        losses = complete(part).groupby("predictor")[["value", "floor"]].sum().loc[part["predictor"].unique()]
        chosen.append({"metric": metric, "predictor": (losses["value"] - losses["floor"]).idxmin()})
    return pd.DataFrame(chosen).assign(n_left_out=len(folds))


def mean(adata: Any) -> np.ndarray:
    """Average expression, shape `(n_genes,)`."""
    return np.asarray(adata.X.mean(axis=0), dtype=np.float64).ravel()


def sizes(model: Any, screen: Any, scores: pd.DataFrame) -> pd.DataFrame:
    """Compare predicted with true mean changes by their sums over genes, condition by condition.

    Two samples of generated cells give the square of the prediction without its sampling noise.
    """
    found, obs = [], screen.obs
    is_train, label = obs["unlasting_split"] == "train", obs["perturbation"]
    key = model.adata_manager.registry["setup_args"].get("cell_type_key")
    for condition in scores[CONDITION[1:]].drop_duplicates().itertuples(index=False):
        options = {"cell_type": condition.cell_type} if condition.cell_type else {}
        here = (obs[key] == condition.cell_type) if options else np.ones(screen.n_obs, dtype=bool)
        control = mean(screen[(here & is_train & (label == "control")).to_numpy()])
        true = mean(screen[(here & ~is_train & (label == condition.condition)).to_numpy()]) - control
        first, second = (
            mean(model.generate(condition.condition, N_GENERATED, seed=seed, show_progress=False, **options)) - control
            for seed in (1, 2)
        )
        predicted = (first + second) / 2
        terms = {"product": predicted @ true, "predicted": first @ second, "true": true @ true}
        found.append({**condition._asdict(), **terms, "noise": ((first - second) ** 2).sum() / 4})
    return pd.DataFrame(found)


def restraint(folder: Path | None) -> pd.DataFrame:
    """Measure predicted changes of unseen targets where there are none, beside the change between halves of the controls.

    Cells are generated from one half. `predicted` is their distance from the other half, and `moved` from their own.
    """
    silent = {"strength": 0.0, "n_downstream": 1}
    one_type, types = {**CONTEXTS, "n_cell_types": 1}, {"cell_type_key": "cell_type"}
    screens: list[tuple[str, Row]] = []
    for seed in range(N_NULL):
        knockouts = partial(ul.datasets.simulate_screen, seed=seed, **one_type, **silent)
        drugs = partial(ul.datasets.simulate_drug_screen, seed=seed, **DRUGS, **silent)
        of_targets = Unit(str(seed), knockouts, {"kind": "unseen_perturbation"}, seed=seed)
        of_drugs = Unit(str(seed), drugs, {"kind": "unseen_drug", "val_fraction": 0.0, **DRUG_KEYS}, seed=seed)
        screens += [
            ("simulated knock-outs", Row([of_targets], targets_in_turn, SIMULATED)),
            ("simulated drugs", Row([of_drugs], drugs_in_turn, SIMULATED, DRUG_KEYS)),
        ]
    if folder is not None:
        screen = partial(read, folder, "mcfaline2023_gbm_mini.h5ad")
        unit = Unit("0", screen, {"kind": "unseen_perturbation", **types})
        screens.append(("McFaline", Row([unit], targets_in_turn, FULL, types)))
    found = []
    for title, row in screens:
        [unit] = row.units
        adata, model = fitted(row)
        is_test = (adata.obs["unlasting_split"] == "test") & (adata.obs["perturbation"] != "control")
        keys = ["perturbation", *(name for name in ("cell_type", "dose") if f"{name}_key" in row.setup)]
        for values in adata.obs.loc[is_test, keys].drop_duplicates().itertuples(index=False):
            asked = dict(zip(keys, values, strict=True))
            is_control = (adata.obs["perturbation"] == "control").to_numpy()
            if "cell_type" in asked:
                is_control &= (adata.obs["cell_type"] == asked["cell_type"]).to_numpy()
            halves = np.array_split(np.random.default_rng(unit.seed).permutation(np.flatnonzero(is_control)), 2)
            own, other = (adata[np.sort(rows)].copy() for rows in halves)
            name = asked.pop("perturbation")
            cells = model.generate(name, own.n_obs, controls=own, seed=0, show_progress=False, **asked)
            changes = {"predicted": mean(cells) - mean(other), "moved": mean(cells) - mean(own)}
            changes["halves"] = mean(own) - mean(other)
            moved = {key: float(np.abs(change).mean()) for key, change in changes.items()}
            found.append({"screen": title, "unit": unit.name, "condition": name, **asked, **moved})
    return pd.DataFrame(found)


def fitted(row: Row) -> tuple[Any, Any]:
    """Prepare the only unit in a row, and fit the model in closed form."""
    [unit] = row.units
    adata = unit.screen()
    ul.pp.split(adata, **{**unit.split, "seed": unit.seed})
    prepared(row, adata)
    return adata, maker(row.setup, 0, unit.seed)(adata)


def transfer() -> pd.DataFrame:
    """Compare how much of an effect reaches an unseen context, after training in one, two and three contexts.

    `product` and `true` are sums over conditions and genes of predicted times true change, and of its square.
    """
    found = []
    for n, seed in itertools.product((1, 2, 3), range(N_TRANSFER)):
        size = {"n_cells": 80 * (n + 1), "n_controls": 200 * (n + 1), "n_cell_types": n + 1, "n_targets": 6}
        screen = partial(ul.datasets.simulate_screen, seed=seed, n_genes=100, **size)
        types, held_out = {"cell_type_key": "cell_type"}, f"type{n + 1}"
        unit = Unit(str(seed), screen, fold("unseen_cell_type", held_out, **types))
        adata, model = fitted(Row([unit], targets_in_turn, SIMULATED, types))
        predictors = {OURS: ModelPredictor(lambda _, model=model: model)}
        predictors["zero-aware context transfer"] = BASELINES["zero-aware context transfer"]()
        here = adata.obs["cell_type"] == held_out
        label = adata.obs["perturbation"].astype(str)
        control = mean(adata[(here & (label == "control")).to_numpy()])
        names = sorted(set(label[here]) - {"control"})
        true = {name: mean(adata[(here & (label == name)).to_numpy()]) - control for name in names}
        for predictor, fitting in predictors.items():
            fitting.fit(adata)
            cells = {name: fitting.predict(Condition(name, held_out), N_GENERATED) for name in names}
            product = sum((cells[name].mean(axis=0) - control) @ true[name] for name in names)
            square = sum(change @ change for change in true.values())
            found.append({"n_trained": n, "seed": seed, "predictor": predictor, "product": product, "true": square})
    return pd.DataFrame(found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None, help="folder with further screens")
    parser.add_argument("--only", nargs="+", default=None, help="names of rows")
    parser.add_argument("--resume", action="store_true", help="keep rows that this model has scored")
    arguments = parser.parse_args()
    logging.getLogger("unlasting").setLevel("ERROR")
    signals = stored("signal")
    if arguments.data is not None and signals.empty:
        signals = signal(arguments.data)
        store({"signal": signals})
    chosen = rows(arguments.data, tuple(signals.loc[signals["scored"], "target"]) if len(signals) else ())
    kept = finished("rows") if arguments.resume else set()
    further = {"restraint": partial(restraint, arguments.data), "transfer": transfer}
    for name in arguments.only or [*chosen, *further]:
        if name in kept:
            continue
        start = time.process_time()
        if name in further:
            store({name: further[name]()})
        else:
            parts = [run_unit(name, chosen[name], unit) for unit in chosen[name].units]
            store({key: pd.concat([part[key] for part in parts]).assign(row=name) for key in parts[0]})
        stamp("rows", [name])
        print(f"{name}: {time.process_time() - start:.0f} s of processor", flush=True)
    place("scores").with_suffix(".md").write_text(report(), encoding="utf-8")
    print(report())
