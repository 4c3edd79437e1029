"""`var_names` are Ensembl ids, the symbols are in `var['gene_name']`, targets are symbols.

Source: GEARS #45, #62; bowang-lab/scGPT #346. Expected: a warning that no target is among the genes (and that the
prior knows none of the genes), with the column of `var` that holds them.
"""

import numpy as np
import pytest
from scipy import sparse as sp
from simulated import GENES, TARGETS, fit, screen, trial


@pytest.mark.slow
def test_ensembl_panel_symbol_targets():
    def own(ensembl):
        a = screen(targets=[t for t in TARGETS if t in GENES])
        x = a.X.toarray()
        for t in set(a.obs.perturbation) - {"control"}:
            x[np.ix_((a.obs.perturbation == t).to_numpy(), [GENES.index(t)])] = 0
        a.X = sp.csr_matrix(x)
        if ensembl:
            a.var["gene_name"] = a.var_names
            a.var_names = [f"ENSG{100000 + i:011d}" for i in range(a.n_vars)]
        with trial() as t:
            m = fit(a, test=["MYC"], steps=2)
            g = m.generate("MYC", 100, show_progress=False)
        i = GENES.index("MYC")
        return (t, float(g.X[:, i].mean()), float(a[a.obs.perturbation == "control"].X[:, i].mean()))

    _, symbol, control = own(False)
    t, ensembl, control = own(True)
    assert t.loud("ENSG|gene_name|symbols_key|measured") or abs(ensembl - symbol) < 0.3, (
        "no warning; the transcript of the knocked-out gene stays"
    )
