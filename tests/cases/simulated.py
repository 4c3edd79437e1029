"""Small screens and a frame for the reproductions of public reports. Everything is simulated."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import traceback
import warnings

for _k in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_k, "1")
import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

import unlasting as ul

GENES = "ACTB GAPDH B2M HLA-A HLA-B HLA-C CD74 STAT1 IRF1 IRF7 ISG15 IFIT1 IFIT3 MX1 OAS1 GBP1 GBP2 CXCL10 CD274 CD86 CCND1\nMYC JUN FOS EGR1 SPI1 CEBPB IL1B TNF CCL2 LYZ S100A8 S100A9 FCN1 VIM LGALS1 TMSB4X MALAT1 NEAT1 RPL3 RPS6 EEF1A1 HSPA8 HSP90AA1\nDDIT3 ATF4 XBP1 HMOX1 NQO1 FTH1 FTL MT2A TXN PCNA MKI67 TOP2A CDK1 TYMS CCNB1 UBE2C".split()
TARGETS = ["STAT1", "IRF1", "JAK2", "IFNGR1", "MYC", "SPI1", "CD86", "ATF4"]
LIKE = {"JAK2": "STAT1", "IFNGR1": "STAT1", "IRF1": "STAT1"}
CONTROL = "control"
TINY = {"width": 32, "n_steps": 4}


def effect(name, n_genes=len(GENES)):
    """Fold change of every gene under a target or drug: a fixed set of 10 genes goes up or down fourfold."""
    seed = sum(map(ord, LIKE.get(name, name))) * 7919 + len(name if name not in LIKE else LIKE[name])
    rng = np.random.default_rng(seed)
    fold = np.ones(n_genes)
    where = rng.choice(n_genes, 10, replace=False)
    fold[where] = np.where(rng.random(10) < 0.5, 4.0, 0.25)
    return fold


def counts(n, fold=None, seed=0, depth=1.0, n_genes=len(GENES)):
    rng = np.random.default_rng(seed)
    base = np.random.default_rng(1).gamma(1.5, 2.5, n_genes) + 0.3
    rate = base * (1 if fold is None else fold)
    lib = rng.lognormal(0, 0.3, n)[:, None] * depth
    return rng.poisson(rng.gamma(4, 1 / 4, (n, n_genes)) * rate * lib).astype(np.float32)


def screen(targets=TARGETS, n=40, n_control=120, key="perturbation", control=CONTROL, combos=(), write=str, seed=0):
    """`write` turns a target (or tuple) into the label of the user."""
    blocks, labels = ([counts(n_control, seed=seed)], [control] * n_control)
    for i, t in enumerate([*targets, *combos]):
        parts = (t,) if isinstance(t, str) else t
        fold = np.prod([effect(p) for p in parts], axis=0)
        blocks.append(counts(n, fold, seed=seed + 100 + i))
        labels += [write(t)] * n
    a = ad.AnnData(sp.csr_matrix(np.concatenate(blocks)), var=pd.DataFrame(index=GENES))
    a.obs_names = [f"cell_{i}" for i in range(a.n_obs)]
    a.obs[key] = pd.Categorical(labels)
    return a


class Trial:
    def __init__(self):
        self.error = None
        self.trace = ""
        self.log = ""

    def said(self, *patterns):
        text = self.log + "\n" + (str(self.error) if self.error else "")
        return all(re.search(p, text, re.I | re.S) for p in patterns)

    def loud(self, *patterns):
        """Said in an error or at the level of a warning, and not only in passing."""
        lines = [l for l in self.log.split("\n") if re.match("WARNING|ERROR|\\w*Warning", l)] + (
            [str(self.error)] if self.error else []
        )
        return any(all(re.search(p, l, re.I | re.S) for p in patterns) for l in lines)

    @property
    def deliberate(self):
        """Raised on purpose by the package: a message, not a trace from inside another library."""
        if self.error is None:
            return False
        tb = self.error.__traceback__
        while tb.tb_next:
            tb = tb.tb_next
        return str(tb.tb_frame.f_globals.get("__name__")).startswith("unlasting")


@contextlib.contextmanager
def trial(show=True):
    t, lines = (Trial(), [])

    class H(logging.Handler):
        def emit(self, r):
            lines.append(f"{r.levelname}: {r.getMessage()}")

    h, lg = (H(), logging.getLogger("unlasting"))
    lg.addHandler(h)
    with warnings.catch_warnings(record=True) as w:
        warnings.simplefilter("always")
        try:
            yield t
        except Exception as e:
            t.error, t.trace = (e, traceback.format_exc())
    lg.removeHandler(h)
    t.warnings = [
        f"{x.category.__name__}: {x.message}"
        for x in w
        if "unlasting" in str(x.filename) or issubclass(x.category, UserWarning)
    ]
    t.log = "\n".join([*lines, *t.warnings])
    if show:
        for l in lines:
            print("  log |", l[:400])
        for l in t.warnings[:5]:
            print("  warn|", l[:250])
        if t.error is not None:
            print(
                f"  err | {type(t.error).__name__} ({('on purpose' if t.deliberate else 'FROM ELSEWHERE')}): {str(t.error)[:700]}"
            )


def fit(
    a,
    split="unseen_perturbation",
    prior="go",
    steps=30,
    test=None,
    train=True,
    split_args=None,
    setup_args=None,
    grn_args=None,
    prepare_args=None,
    **labels,
):
    if split:
        ul.pp.split(a, split, test=test, **split_args or {}, **labels)
    ul.pp.prepare(a, min_cells=1, **prepare_args or {}, **{} if split else labels)
    ul.pp.grn(a, prior=prior, **grn_args or {})
    ul.UnlastingModel.setup_anndata(a, **labels, **setup_args or {})
    m = ul.UnlastingModel(a, **TINY)
    if train:
        m.train(max_steps=steps, accelerator="cpu", show_progress=False, seed=0)
    return m


def prep(a, split="unseen_perturbation", prior="go", split_args=None, setup_args=None, molecules=None, **labels):
    """All steps up to registration, without training."""
    if split:
        ul.pp.split(a, split, **split_args or {}, **labels)
    ul.pp.prepare(
        a,
        min_cells=1,
        **{} if split else {k: v for k, v in labels.items() if k in ("perturbation_key", "control", "delimiter")},
    )
    if molecules is not None:
        ul.pp.molecules(a, **molecules)
    ul.pp.grn(a, prior=prior)
    ul.UnlastingModel.setup_anndata(a, **labels, **setup_args or {})


def relabel(a, function, key="perturbation"):
    a.obs[key] = pd.Categorical([function(i, l) for i, l in enumerate(a.obs[key].astype(str))])
    return a


def targets_of(a):
    """What the registered model takes for genes, drugs and stimuli."""
    m = ul.UnlastingModel(a, **TINY)
    return {kind: sorted(names) for kind, names in m.targets.items() if names}


def call(*args):
    """The command line, in this process."""
    from typer.testing import CliRunner

    from unlasting.cli import app

    r = CliRunner().invoke(app, [str(x) for x in args])
    known = r.exception is None or isinstance(r.exception, SystemExit)
    print("  $ unlasting", *args)
    print("  exit", r.exit_code, "" if known else f"TRACEBACK {type(r.exception).__name__}: {str(r.exception)[:200]}")
    print(
        "   ",
        re.sub("[^\\n]*\\r?[^\\n]*\\d+%\\|[^\\n]*?\\]", "", r.output or "").strip()[-400:].replace("\n", "\n    "),
    )
    r.traceback = not known
    return r


QUICK = ["--max-steps", "2", "--accelerator", "cpu"]


def score(a, predictor, metric="e_distance", gene_set="all"):
    s = a.uns["unlasting"]["score_summary"]
    return float(s[(s.predictor == predictor) & (s.metric == metric) & (s.gene_set == gene_set)].score.iloc[0])


def change(cells, control):
    """Mean change of log expression, gene by gene."""
    d = lambda m: np.asarray(m.toarray() if sp.issparse(m) else m, dtype=float)
    return d(cells).mean(axis=0) - d(control).mean(axis=0)


def corr(x, y):
    return float(np.corrcoef(x, y)[0, 1])


SM = {
    "aspirin": "CC(=O)Oc1ccccc1C(=O)O",
    "caffeine": "Cn1cnc2c1c(=O)n(C)c(=O)n2C",
    "ibuprofen": "CC(C)Cc1ccc(cc1)C(C)C(=O)O",
    "phenol": "Oc1ccccc1",
    "naproxen": "COc1ccc2cc(ccc2c1)C(C)C(=O)O",
    "toluene": "Cc1ccccc1",
}


def drugs(dose=lambda d: d, control="DMSO", cdose=0.0, n=20, doses=(0.1, 1.0, 10.0), smiles=True):
    bl = [counts(120)]
    lab = [control] * 120
    ds = [cdose] * 120
    sm = [np.nan] * 120
    for i, d in enumerate(SM):
        for j, x in enumerate(doses):
            f = effect(d) ** (x / (x + 1))
            bl.append(counts(n, f, seed=50 + 10 * i + j))
            lab += [d] * n
            ds += [dose(x)] * n
            sm += [SM[d]] * n
    a = ad.AnnData(sp.csr_matrix(np.concatenate(bl)), var=pd.DataFrame(index=GENES))
    a.obs_names = [f"c{i}" for i in range(a.n_obs)]
    a.obs["drug"] = lab
    a.obs["dose"] = ds
    if smiles:
        a.obs["smiles"] = sm
    return a
