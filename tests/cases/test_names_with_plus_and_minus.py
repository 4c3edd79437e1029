"""Names of drugs hold `(+)-`, `(+/-)`, `D-(+)-`.

Source: theislab/chemCPA #165, #51. Expected: names stay whole.
"""

import pytest
from simulated import SM, drugs, prep, relabel, trial


@pytest.mark.slow
def test_names_with_plus_and_minus():
    names = dict(
        zip(
            SM,
            [
                "atenolol-(+/-)",
                "(+)-3-(1-propyl-piperidin-3-yl)-phenol",
                "flurbiprofen-(+/-)",
                "(+/-)-7-hydroxy-2-(N,N-di-n-propylamino)tetralin",
                "Ro 25-6981",
                "D-(+)-Trehalose",
            ],
        )
    )
    a = relabel(drugs(), lambda i, l: names.get(l, l), key="drug")
    with trial() as t:
        prep(
            a,
            "unseen_drug",
            molecules={},
            prior=None,
            perturbation_key="drug",
            control="DMSO",
            dose_key="dose",
            smiles_key="smiles",
        )
    assert t.error is None and sorted(a.uns["unlasting"]["molecules"]["drugs"]) == sorted(names.values()), str(
        t.error or list(a.uns["unlasting"]["molecules"]["drugs"])
    )
