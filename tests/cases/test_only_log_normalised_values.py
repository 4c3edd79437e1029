"""A public file holds log-normalised values only.

Source: GEARS #28 and its tutorial (takes normalised data), Teichlab/celltypist #24, #83; ArcInstitute/state #164.
Expected: taken, or told that `pp.prepare` can be left out.
"""

import tempfile

import pytest
import scanpy as sc
from simulated import QUICK, call, prep, screen, trial


@pytest.mark.slow
def test_only_log_normalised_values():
    a = screen()
    sc.pp.normalize_total(a, target_sum=10000.0)
    sc.pp.log1p(a)
    d = tempfile.mkdtemp()
    a.write_h5ad(d + "/log.h5ad")
    with trial() as t:
        prep(a)
    r = call("train", d + "/log.h5ad", "--split", "unseen_perturbation", "--model", d + "/m", *QUICK)
    assert r.exit_code == 0 and (t.error is None or t.said("log-normalised", "without .pp.prepare|leave out|skip")), (
        "refused; nobody says that values which are log-normalised already need no `pp.prepare`, and the command line always calls it"
    )
