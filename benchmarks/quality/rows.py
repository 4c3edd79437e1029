"""Score the closed form and all baselines on thirteen rows: unseen targets, doubles, contexts, doses and drugs.

    python benchmarks/quality/rows.py --data FOLDER

Writes `results/rows.csv` (all conditions), the frames beside it, and from them the tables of the guide: `results/rows.md`.
FOLDER holds the McFaline and Datlinger screens; without it, their rows are left out. `--only P1 K1` runs some rows, and
`--resume` keeps finished rows after an interruption.
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
from run import CLEAR, MEASURED_WELL, RESULTS, kang, keeping, maker
from vcc2026 import FULL, SIMULATED, STATE, markdown, read, text

import unlasting as ul
from unlasting.baselines import BASELINES, ModelPredictor
from unlasting.metrics import get_metric
from unlasting.screen import Condition, Perturbation
from unlasting.tl._intervals import difference_interval, score_interval
from unlasting.tl._significance import holm, permutation_test
from unlasting.tl._tables import TERMS, normalised

OURS, FALLBACK, SELECTOR = "unlasting", "zero-aware mean shift", "selector"
ORDER = ("P1", "P2", "N1", "N2", "N3", "D1", "D2", "K1", "K2", "S1", "S2", "S3", "S4")
DISTANCES = {"e_distance": "E", "emd": "EMD"}
CEILINGS = [name for name, baseline in BASELINES.items() if baseline.is_ceiling]
RIVALS = [name for name in BASELINES if name not in CEILINGS]
CONDITION = ["unit", "condition", "cell_type", "dose"]
COLUMNS = ["row", *CONDITION, "gene_set", "metric", "predictor", *TERMS]
MIN_CELLS = 8
LEVEL = 0.9
"""Coverage of intervals over conditions."""
MAX_LEFT_OUT = 8
"""Training conditions per unit from which the selector chooses: those with the largest mean change."""
SEEDS = (900, 901, 902, 903)
"""Simulated screens in S1 to S4, in no other table."""
N_NULL, N_TRANSFER = 5, 20
CONTEXTS = {"n_genes": 200, "n_targets": 15, "n_cell_types": 3, "n_cells": 200, "n_controls": 600}
ALWAYS = ("LCK", "LAT", "ZAP70")
SIZED = ("P1", "N1", "D1", "D2", "K1")
N_GENERATED = 300
FILES = {"scores": "rows", **{name: f"rows_{name}" for name in ("choices", "sizes", "signal", "restraint", "transfer")}}
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
    """Units of one question, and its fixed reference.

    `left_out` lists the folds within the training cells from which the selector chooses.
    """

    title: str
    reference: str
    units: list[Unit]
    left_out: Callable[[Any], Folds]
    prepare: dict[str, Any] = field(default_factory=dict)
    setup: dict[str, Any] = field(default_factory=dict)
    prior: Any = "go"


def prepared(row: Row, adata: Any) -> None:
    """Prepare a screen after its split."""
    ul.pp.prepare(adata, **row.prepare)
    if "smiles_key" in row.setup:
        ul.pp.molecules(adata)
    ul.pp.grn(adata, prior=adata.uns.get("simulation", {}).get("edges", row.prior))


def fold(kind: str, name: Any = None, **arguments: Any) -> dict[str, Any]:
    """Hold out a name, without validation conditions."""
    return {"kind": kind, "test": name, "val_fraction": 0.0, **arguments}


def in_turn(screen: Callable[[], Any], kind: str, names: tuple[str, ...], **arguments: Any) -> list[Unit]:
    """Hold out each name in turn."""
    return [Unit(name, screen, fold(kind, name, **arguments)) for name in names]


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
    for place in rng.permutation(len(every))[:12]:
        names = every[place]
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
    cells, nearest, transfer = "cell_type", "nearest target or nothing", "zero-aware context transfer"
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
            "Papalexi, targets in turn",
            nearest,
            [Unit(name, ul.datasets.papalexi, fold("leave_one_out", name), (name,)) for name in CLEAR],
            targets_in_turn,
        ),
        "P2": Row(
            "Papalexi, reference split",
            nearest,
            [Unit("reference", ul.datasets.papalexi, reference)],
            targets_in_turn,
        ),
        "N1": Row("Norman, reference split", nearest, [Unit("reference", mini, reference)], targets_in_turn, **norman),
        "N3": Row(
            "Norman, doubles in turn",
            "zero-aware additive",
            [Unit(name, mini, fold("unseen_perturbation", name), (name,)) for name in doubles],
            combinations_in_turn,
            **norman,
        ),
        "K1": Row(
            "Kang, cell types in turn",
            transfer,
            [Unit(name, kang, fold("unseen_cell_type", name, **types), ("IFNB",)) for name in MEASURED_WELL],
            partial(contexts_in_turn, cells),
            **pbmc,
        ),
    }
    found |= {
        "K2": Row("Kang, one of three types", transfer, triples(), partial(contexts_in_turn, cells), **pbmc),
        "S1": Row(
            "simulated, unseen dose",
            "dose interpolation",
            drugs(fold("unseen_dose", 1.0, **DRUG_KEYS), **DRUGS),
            doses_in_turn,
            **drug,
        ),
        "S2": Row("simulated, unseen drug", "nearest target", drugs(unseen_drug, **DRUGS), drugs_in_turn, **drug),
        "S3": Row(
            "simulated, gene + drug",
            FALLBACK,
            drugs(unseen_combination, **GENES_AND_DRUGS),
            combinations_in_turn,
            **drug,
        ),
        "S4": Row(
            "simulated, unseen context",
            transfer,
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
            "Datlinger stimulated, targets in turn",
            nearest,
            [Unit(name, stimulated, fold("leave_one_out", name), (name,)) for name in with_signal],
            targets_in_turn,
            prepare=FULL,
        )
        found["D2"] = Row(
            "Datlinger, unstimulated to stimulated",
            transfer,
            [Unit("stimulated", datlinger, fold("unseen_cell_type", "stimulated", **STATE), with_signal)],
            partial(contexts_in_turn, STATE["cell_type_key"]),
            prepare=FULL,
            setup=STATE,
        )
    return found


def run_unit(row: Row, unit: Unit) -> dict[str, pd.DataFrame]:
    """Score all predictors on one unit, choose baselines on its training cells, and measure sizes."""
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
        "scores": scores[COLUMNS[1:]],
        "choices": choices(row, screen).assign(unit=unit.name),
        "sizes": sizes(model, screen, scores).assign(unit=unit.name),
    }


def choices(row: Row, screen: Any) -> pd.DataFrame:
    """Choose a baseline per metric by leaving training conditions out; the row's reference where none can be.

    The loss is the distance above the noise floor, summed over conditions.
    """
    train = screen[screen.obs["unlasting_split"] == "train"].copy()
    folds = row.left_out(train)
    if not folds:
        return pd.DataFrame({"metric": list(DISTANCES), "predictor": row.reference, "n_left_out": 0})
    ul.tl.benchmark(
        train,
        {name: BASELINES[name]() for name in RIVALS},
        splits={str(i): given for i, given in enumerate(folds)},
        metrics=tuple(DISTANCES),
        gene_sets="all",
        n_repeats=1,
        min_cells=MIN_CELLS,
        max_cells=100,
        n_permutations=19,
        n_bootstraps=20,
    )
    found = train.uns["unlasting"]["benchmark_scores"].rename(columns={"split": "unit"})
    chosen = []
    for metric, part in found.groupby("metric", sort=False):
        losses = complete(part).groupby("predictor")[["value", "floor"]].sum()
        chosen.append({"metric": metric, "predictor": (losses["value"] - losses["floor"]).idxmin()})
    return pd.DataFrame(chosen).assign(n_left_out=len(folds))


def complete(scores: pd.DataFrame) -> pd.DataFrame:
    """Give every baseline the fallback's terms where it has no prediction; scores of one metric and gene set."""
    names = [*RIVALS, *({OURS} & set(scores["predictor"]))]
    terms = scores.set_index([*CONDITION, "predictor"])[TERMS]
    wanted = pd.MultiIndex.from_frame(
        scores[CONDITION].drop_duplicates().merge(pd.DataFrame({"predictor": names}), how="cross")
    )
    found = terms.reindex(wanted)
    other = terms.xs(FALLBACK, level="predictor").reindex(wanted.droplevel("predictor"))
    return found.fillna(other.set_axis(wanted)).reset_index()


def mean(adata: Any) -> np.ndarray:
    """Average expression, shape `(n_genes,)`."""
    return np.asarray(adata.X.mean(axis=0), dtype=np.float64).ravel()


def sizes(model: Any, screen: Any, scores: pd.DataFrame) -> pd.DataFrame:
    """Compare predicted with true mean changes by their sums over genes, condition by condition.

    Two samples of generated cells give the square of the prediction without its sampling noise.
    """
    found = []
    obs = screen.obs.assign(cell_type="", dose="") if "cell_type" not in screen.obs else screen.obs
    key = model.adata_manager.registry["setup_args"].get("cell_type_key")
    for condition in scores[CONDITION[1:]].drop_duplicates().itertuples(index=False):
        where = {"cell_type": condition.cell_type, "dose": condition.dose}
        options = {name: value for name, value in where.items() if value}
        here = np.ones(screen.n_obs, dtype=bool) if not condition.cell_type else (obs[key] == condition.cell_type)
        is_train, label = obs["unlasting_split"] == "train", obs["perturbation"]
        same_dose = obs["dose"].astype(float) == float(condition.dose) if condition.dose else True
        control = mean(screen[(here & is_train & (label == "control")).to_numpy()])
        true = mean(screen[(here & ~is_train & same_dose & (label == condition.condition)).to_numpy()]) - control
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
    null: list[tuple[str, Unit, dict[str, Any]]] = []
    for seed in range(N_NULL):
        knockouts = partial(ul.datasets.simulate_screen, seed=seed, **{**CONTEXTS, "n_cell_types": 1}, **silent)
        drugs = partial(ul.datasets.simulate_drug_screen, seed=seed, **DRUGS, **silent)
        null += [
            ("simulated knock-outs", Unit(str(seed), knockouts, {"kind": "unseen_perturbation"}, seed=seed), {}),
            (
                "simulated drugs",
                Unit(str(seed), drugs, {"kind": "unseen_drug", "val_fraction": 0.0, **DRUG_KEYS}, seed=seed),
                DRUG_KEYS,
            ),
        ]
    screens = [(title, unit, Row(title, "", [], targets_in_turn, SIMULATED, setup)) for title, unit, setup in null]
    if folder is not None:
        types = {"cell_type_key": "cell_type"}
        unit = Unit("0", partial(read, folder, "mcfaline2023_gbm_mini.h5ad"), {"kind": "unseen_perturbation", **types})
        screens.append(("McFaline", unit, Row("McFaline", "", [], targets_in_turn, FULL, types)))
    found = []
    for title, unit, row in screens:
        adata, model = fitted(row, unit)
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
            sizes = {key: float(np.abs(change).mean()) for key, change in changes.items()}
            found.append({"row": title, "unit": unit.name, "condition": name, **asked, **sizes})
    return pd.DataFrame(found)


def fitted(row: Row, unit: Unit) -> tuple[Any, Any]:
    """Prepare a unit, and fit the model in closed form."""
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
        adata, model = fitted(Row("", "", [], targets_in_turn, SIMULATED, types), unit)
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
            found.append({"row": n, "seed": seed, "predictor": predictor, "product": product, "true": square})
    return pd.DataFrame(found)


def place(name: str) -> Path:
    """Get the file of a frame."""
    return RESULTS / f"{FILES[name]}.csv"


def stored(name: str) -> pd.DataFrame:
    """Read a frame; empty if there is none."""
    if not place(name).exists():
        return pd.DataFrame()
    return pd.read_csv(place(name), dtype=dict.fromkeys([*CONDITION, "predictor"], str), keep_default_na=False)


def store(frames: dict[str, pd.DataFrame]) -> None:
    """Write frames, whose rows replace those with the same name."""
    for name, frame in frames.items():
        old = stored(name)
        kept = old[~old["row"].isin(frame["row"])] if "row" in frame and len(old) else old[:0]
        pd.concat([kept, frame], ignore_index=True).to_csv(place(name), index=False, float_format="%.6g")


def terms_of(
    scores: pd.DataFrame, choices: pd.DataFrame, row: str, metric: str, gene_set: str = "all"
) -> dict[str, Any]:
    """Get value, floor and no effect for each predictor in a row, shape `(n_conditions, 3)`, and of the selector.

    A baseline without a prediction for a condition gives the fallback's. In K2 every subset counts the same.
    """
    part = scores[(scores["metric"] == metric) & (scores["gene_set"] == gene_set)]
    part = part[part["row"] == source_name(row)]
    if row == "N2":
        part = part[part["condition"] != "TMSB4X"]
    part = complete(part)
    if row == "K2":
        part[TERMS] = np.stack([relative(part), 0.0 * part["value"], 0.0 * part["value"] + 1.0], axis=1)
    found = {name: own.set_index(CONDITION)[TERMS] for name, own in part.groupby("predictor")}
    picked = choices[(choices["row"] == source_name(row)) & (choices["metric"] == metric)]
    picked = picked.set_index("unit")["predictor"]
    index = found[OURS].index
    found[SELECTOR] = pd.DataFrame([found[picked[place[0]]].loc[place] for place in index], index=index)
    return {name: own.loc[index].to_numpy(dtype=float) for name, own in found.items()}


def relative(scores: pd.DataFrame) -> np.ndarray:
    """Normalise each condition alone."""
    return normalised(get_metric("e_distance"), scores[TERMS].to_numpy(dtype=float))


def score(terms: np.ndarray) -> np.ndarray:
    """Normalise means over conditions."""
    return normalised(get_metric("e_distance"), terms)


def summary(scores: pd.DataFrame, choices: pd.DataFrame, described: dict[str, Row]) -> pd.DataFrame:
    """Write a line for each row and metric: our score with its interval, and those beside it."""
    lines = []
    for row, metric in itertools.product(ORDER, DISTANCES):
        source = described.get(source_name(row))
        if source is None or source_name(row) not in set(scores["row"]):
            continue
        terms = terms_of(scores, choices, row, metric)
        own = score_interval(score, terms[OURS], 0, level=LEVEL)
        paired = difference_interval(score, terms[OURS], terms[source.reference], 0, level=LEVEL)
        values = {
            name: float(score(terms[name].mean(axis=0)[None])[0]) for name in [*RIVALS, SELECTOR] if name in terms
        }
        best = min((name for name in values if name != SELECTOR), key=values.__getitem__)
        de20 = terms_of(scores, choices, row, metric, "de20")[OURS]
        lines.append(
            {
                "row": row,
                "title": source.title + (", without TMSB4X" if row == "N2" else ""),
                "metric": metric,
                "n": len(terms[OURS]),
                **dict(zip(["ours", "low", "high"], own, strict=True)),
                "worst": float(np.max(score(terms[OURS]))),
                "de20": float(score(de20.mean(axis=0)[None])[0]),
                "reference": source.reference,
                **dict(zip(["difference", "difference_low", "difference_high"], paired, strict=True)),
                "best": best,
                "values": values,
            }
        )
    return pd.DataFrame(lines)


def source_name(row: str) -> str:
    """Get the row whose scores another row uses: N2 is N1 without its largest on-target effect."""
    return "N1" if row == "N2" else row


def interval(value: float, low: float, high: float) -> str:
    """Write a number with its interval."""
    return text(value) if pd.isna(low) else f"{text(value)} [{text(low)}, {text(high)}]"


def pair(lines: pd.DataFrame, row: str, column: Callable[[Any], str]) -> str:
    """Write an entry for E and for EMD."""
    return " / ".join(
        column(lines[(lines["row"] == row) & (lines["metric"] == metric)].iloc[0]) for metric in DISTANCES
    )


def scores_table(lines: pd.DataFrame, single: dict[str, str]) -> str:
    """Write our scores beside the fixed reference, the best single baseline, the selector and the best of all."""
    head = ["row", "conditions", "ours", "ours, DE20", "reference", "single", SELECTOR, "best after the fact"]
    body = []
    for row in lines["row"].unique():
        first = lines[lines["row"] == row].iloc[0]
        columns: list[Callable[[Any], str]] = [
            lambda x: interval(x["ours"], x["low"], x["high"]),
            lambda x: text(x["de20"]),
            lambda x: text(x["values"][x["reference"]]),
            lambda x: text(x["values"][single[x["metric"]]]),
            lambda x: text(x["values"][SELECTOR]),
            lambda x: f"{text(x['values'][x['best']])} ({x['best']})",
        ]
        entries = [pair(lines, row, column) for column in columns]
        entries[2] += f" ({first['reference']})"
        body.append([f"{row}: {first['title']}", str(first["n"]), *entries])
    means = {
        name: " / ".join(text(values_of(lines, metric, of).mean()) for metric in DISTANCES)
        for name, of in means_of(single).items()
    }
    body.append(["mean", "", means["ours"], "", means["reference"], means["single"], means[SELECTOR], means["best"]])
    return markdown(head, body)


def means_of(single: dict[str, str]) -> dict[str, Callable[[Any], float]]:
    """Name the columns of scores, each a function of a line."""
    return {
        "ours": lambda x: x["ours"],
        "reference": lambda x: x["values"][x["reference"]],
        "single": lambda x: x["values"][single[x["metric"]]],
        SELECTOR: lambda x: x["values"][SELECTOR],
        "best": lambda x: x["values"][x["best"]],
    }


def values_of(lines: pd.DataFrame, metric: str, column: Callable[[Any], float]) -> np.ndarray:
    """Get a score per row, shape `(n_rows,)`."""
    return np.array([column(line) for _, line in lines[lines["metric"] == metric].iterrows()])


def best_single(lines: pd.DataFrame) -> dict[str, str]:
    """Find, for each metric, the baseline with the best mean over rows."""
    found = {}
    for metric in DISTANCES:
        values = pd.DataFrame(list(lines.loc[lines["metric"] == metric, "values"]))
        found[metric] = str(values.drop(columns=SELECTOR).mean().idxmin())
    return found


def differences_table(lines: pd.DataFrame) -> str:
    """Write our paired difference from the fixed reference, with its interval."""
    rows = [
        [
            row,
            lines.loc[lines["row"] == row, "reference"].iloc[0],
            *(
                interval(x["difference"], x["difference_low"], x["difference_high"])
                for _, x in lines[lines["row"] == row].iterrows()
            ),
        ]
        for row in lines["row"].unique()
    ]
    return markdown(["row", "reference", "difference in E", "difference in EMD"], rows)


def rules_table(lines: pd.DataFrame, single: dict[str, str]) -> str:
    """Compare with the four bars."""
    worse = lines[lines["difference_low"] > 0.03]
    above = lines[lines["low"] > 1]
    columns = means_of(single)
    names = {metric: lines[lines["metric"] == metric] for metric in DISTANCES}
    n_better = " / ".join(str(int((part["difference"] <= 0).sum())) for part in names.values())

    def ahead(of: str) -> str:
        return " / ".join(
            text(float((values_of(lines, metric, columns["ours"]) - values_of(lines, metric, columns[of])).mean()))
            for metric in DISTANCES
        )

    def pairs(part: pd.DataFrame) -> str:
        return ", ".join(f"{x['row']} {DISTANCES[x['metric']]}" for _, x in part.iterrows()) or "none"

    n = len(lines) // len(DISTANCES)
    rows = [
        ["(a) interval of the difference from the reference above .03", "at most one", pairs(worse)],
        [f"(a) rows with a difference of at most 0, of {n}", "10 / 10", n_better],
        [
            f"(b) mean difference from the best single baseline ({' / '.join(single.values())})",
            "-.08 / -.05",
            ahead("single"),
        ],
        ["(c) mean difference from the selector", "0 / 0", ahead(SELECTOR)],
        ["mean difference from the best after the fact", "no bar", ahead("best")],
        ["(d) rows with their interval above 1", "none", pairs(above)],
    ]
    return markdown(["", "bar", "found, E / EMD"], rows)


def sizes_table(frame: pd.DataFrame) -> str:
    """Write slope and correlation of true on predicted changes."""
    rows = []
    for row in SIZED:
        part = frame[frame["row"] == row]
        if not len(part):
            continue
        terms = part[["product", "predicted", "true", "noise"]].to_numpy(dtype=float)
        slope = score_interval(lambda means: means[:, 0] / means[:, 1], terms, 0, level=LEVEL)
        product, predicted, true, noise = terms.sum(axis=0)
        correlation = product / np.sqrt(predicted * true) if predicted > 0 else np.nan
        rows.append([row, str(len(part)), interval(*slope), text(correlation), text(predicted / noise)])
    return markdown(["row", "conditions", "slope b", "correlation", "square of the prediction / its noise"], rows)


def ratios_table(frame: pd.DataFrame) -> str:
    """Write mean absolute changes relative to those between halves of the controls."""
    rows = []
    for row, part in frame.groupby("row", sort=False):
        sums = part[["predicted", "moved", "halves"]].astype(float).sum()
        rows.append([str(row), str(len(part)), *(text(sums[name] / sums["halves"]) for name in ("predicted", "moved"))])
    return markdown(["screen", "conditions", "from the other half", "from the own half"], rows)


def transfer_table(frame: pd.DataFrame) -> str:
    """Write the transferred share of effects: its mean and its smallest value over screens."""
    shares = frame.assign(share=frame["product"].astype(float) / frame["true"].astype(float))
    rows = []
    for n, part in shares.groupby("row", sort=False):
        found = part.groupby("predictor", sort=False)["share"]
        rows.append([str(n), *(f"{text(x.mean())} ({text(x.min())})" for _, x in found)])
    return markdown(["trained contexts", *frame["predictor"].unique()], rows)


def report(frames: dict[str, pd.DataFrame], described: dict[str, Row]) -> str:
    """Write all tables."""
    lines = summary(frames["scores"], frames["choices"], described)
    single = best_single(lines)
    signals = frames["signal"]
    named = ", ".join(signals.loc[signals["scored"].astype(bool), "target"]) if len(signals) else "none"
    parts = [
        f"E / EMD, with {LEVEL:.0%} intervals over conditions. The single baselines are {' / '.join(single.values())}.\n",
        scores_table(lines, single),
        "Differences from the fixed reference, paired over conditions:\n",
        differences_table(lines),
        "The bars:\n",
        rules_table(lines, single),
        f"Targets with a signal in D1 and D2: {named}.\n",
        "Sizes, true change on predicted change:\n",
        sizes_table(frames["sizes"]),
    ]
    if len(frames["transfer"]):
        parts += [
            "Share of the effect in an unseen context, mean (smallest) over simulated screens:\n",
            transfer_table(frames["transfer"]),
        ]
    if len(frames["restraint"]):
        parts += [
            "Mean absolute change of cells from one half of the controls, relative to that between the halves:\n",
            ratios_table(frames["restraint"]),
        ]
    return "\n".join(parts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None, help="folder with further screens")
    parser.add_argument("--only", nargs="+", default=None, help="names of rows")
    parser.add_argument("--resume", action="store_true", help="keep finished rows")
    arguments = parser.parse_args()
    logging.getLogger("unlasting").setLevel("ERROR")
    signals = stored("signal")
    if arguments.data is not None and signals.empty:
        signals = signal(arguments.data)
        store({"signal": signals})
    chosen = rows(arguments.data, tuple(signals.loc[signals["scored"], "target"]) if len(signals) else ())
    finished = set(stored("scores").get("row", ())) if arguments.resume else set()
    further = {"restraint": partial(restraint, arguments.data), "transfer": transfer}
    for name in arguments.only or [*chosen, *further]:
        if name in finished or (arguments.resume and name in further and len(stored(name))):
            continue
        start = time.process_time()
        if name in further:
            store({name: further[name]()})
        else:
            parts = [run_unit(chosen[name], unit) for unit in chosen[name].units]
            store({key: pd.concat([part[key] for part in parts]).assign(row=name) for key in parts[0]})
        print(f"{name}: {time.process_time() - start:.0f} s of processor", flush=True)
    table = report({name: stored(name) for name in FILES}, chosen)
    place("scores").with_suffix(".md").write_text(table, encoding="utf-8")
    print(table)
