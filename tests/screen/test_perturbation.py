from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import given
from hypothesis import strategies as st

from unlasting.screen import Perturbation, ScreenKeys, nearest_name, split_label

NAMES = st.lists(st.text("ABCdef0-", min_size=1, max_size=5), min_size=1, max_size=4, unique=True)
DOSES = st.sampled_from([0.001, 0.1, 0.25, 1.0, 2.5, 10.0, 1e4])


@given(NAMES, st.data())
def test_a_perturbation_has_no_order(names, data):
    doses = data.draw(st.lists(DOSES, min_size=len(names), max_size=len(names)))
    order = data.draw(st.permutations(range(len(names))))
    one = Perturbation.parse("+".join(names), "+".join(map(str, doses)))
    other = Perturbation.parse("+".join(names[i] for i in order), "+".join(str(doses[i]) for i in order))
    assert one == other
    assert hash(one) == hash(other)
    assert dict(zip(one.targets, one.doses, strict=True)) == dict(zip(names, doses, strict=True))


@given(NAMES, st.data())
def test_what_is_written_is_read(names, data):
    doses = data.draw(st.lists(st.none() | DOSES, min_size=len(names), max_size=len(names)))
    one = Perturbation(tuple(names), tuple(doses))
    assert Perturbation.parse(one.label(), one.dose_text() or None) == one


def test_doses_stand_in_the_order_of_the_label():
    """A gene or the control has none, whatever its column says."""
    for label, dose, drugs, text in [
        ("A", 0.1, {"A"}, "0.1"),
        ("A", np.float32(0.1), {"A"}, "0.1"),
        ("A", 1, None, "1"),
        ("A", "1e+03", {"A"}, "1000"),
        ("B+A", "1+0.5", {"A", "B"}, "0.5+1"),
        ("B+A", "1+0.5", None, "0.5+1"),
        ("B+STAT1", 0.5, {"B"}, "0.5+"),
        ("STAT1+B", "1+0.5", {"B"}, "0.5+"),
        ("X+STAT1", 0.5, {"X"}, "+0.5"),
        ("A+STAT1", "0.5", {"A"}, "0.5+"),
        ("A+ctrl", "0.5+0", {"A"}, "0.5"),
        ("STAT1", 1.0, {"B"}, ""),
        ("STAT1", "high", {"B"}, ""),
        ("control", "anything", {"B"}, ""),
        ("A", None, {"A"}, ""),
    ]:
        assert Perturbation.parse(label, dose, drugs=drugs).dose_text() == text


def test_dose_zero_is_control():
    assert Perturbation.parse("A", 0.0).is_control
    assert Perturbation.parse("A+B", "0+0") == Perturbation()
    assert Perturbation.parse("A+B", "0+2") == Perturbation(("B",), (2.0,))
    assert Perturbation.parse("A+STAT1", 0, drugs={"A"}) == Perturbation(("STAT1",))
    assert Perturbation(("A",), (0.0,)) == Perturbation()


def test_a_delimiter_within_brackets_is_part_of_a_name():
    for label, parts in [
        ("(+)-JQ1", ["(+)-JQ1"]),
        ("(+)-JQ1+STAT1", ["(+)-JQ1", "STAT1"]),
        ("C[N+](C)(C)C + A", ["C[N+](C)(C)C", "A"]),
        ("A+B+C", ["A", "B", "C"]),
        ("A)+B", ["A)", "B"]),
        (" control ", []),
    ]:
        assert split_label(label) == parts


def test_wrong_doses():
    for label, dose, message in [
        ("A", -1, "'-1' of 'A' is not a number of uM from 0 on"),
        ("A", np.inf, "'inf' of 'A' is not a number"),
        ("A", "nan", "'nan' of 'A' is not a number"),
        ("A", "high", "'high' of 'A' is no number of uM"),
        ("A", "1+2", r"'1\+2' of 'A' has 2 parts for 1 drugs"),
        ("A+B", 1.0, r"'1.0' of 'A\+B' has 1 parts for 2 drugs.*such as '1\+0.5'"),
        ("A+B", "1+-2", "'-2' of 'B'"),
    ]:
        with pytest.raises(ValueError, match=message):
            Perturbation.parse(label, dose, drugs={"A", "B"})


def test_the_nearest_name_is_suggested_whatever_its_case_and_none_that_is_far():
    for name, names, suggested in [
        ("nt", ["STAT1", "NT", "N"], "NT"),
        ("stat1", ["STAT2", "STAT1", "stat"], "STAT1"),
        ("STTA1", ["STAT1", "JAK2"], "STAT1"),
        ("dosis", ["batch", "dose"], "dose"),
        ("FOOBAR", ["FOXO3B", "BARX1"], None),
        ("T1", ["T2", "T3"], None),
        ("control", ["NT", "CTNNB1"], None),
        ("", ["A"], None),
    ]:
        assert nearest_name(name, names) == (f" Did you mean {suggested!r}?" if suggested else "")


# -- the columns of a screen


def screen(labels: list[object], **columns: list[object]) -> AnnData:
    obs = pd.DataFrame({"perturbation": labels, **columns}, index=[f"cell{i}" for i in range(len(labels))])
    return AnnData(np.ones((len(labels), 2), dtype=np.float32), obs=obs)


KEYS = ScreenKeys(dose_key="dose", smiles_key="smiles")


@pytest.fixture
def drugs() -> AnnData:
    return screen(
        ["control", "A", "B+A", "STAT1", "A+STAT1", "A", "C+A", "A"],
        dose=["1.0", "0.10", "1+0.5", "1.0", "2", "0", "3+4", "0.1"],
        smiles=[None, "CCO", "CCN..CCO", None, "CCO", "CCO", "C[N+](C)C..CCO", ""],
    )


def test_labels_and_doses_of_a_screen(drugs):
    assert KEYS.drugs(drugs) == {"A", "B", "C"}
    assert KEYS.smiles(drugs) == {"A": "CCO", "B": "CCN", "C": "C[N+](C)C"}
    assert list(KEYS.labels(drugs)) == ["control", "A", "A+B", "STAT1", "A+STAT1", "control", "A+C", "A"]
    assert list(KEYS.doses(drugs)) == ["", "0.1", "0.5+1", "", "2+", "", "4+3", "0.1"]


def test_equal_perturbations_are_one_object(drugs):
    found = KEYS.perturbations(drugs)
    assert found[1] is found[7]  # 0.10 and 0.1


def test_without_keys_there_are_no_doses(drugs):
    assert set(ScreenKeys().doses(drugs)) == {""}
    assert ScreenKeys().drugs(drugs) is None
    assert ScreenKeys().labels(drugs)[5] == "A"


def test_molecules_say_what_is_a_drug(drugs):
    drugs.uns["unlasting"] = {"molecules": {"drugs": np.array(["A", "B"]), "smiles": np.array(["CCO", "CCN"])}}
    keys = ScreenKeys(dose_key="dose")
    assert keys.drugs(drugs) == {"A", "B", "CCO", "CCN"}
    drugs.obs["dose"] = ["", "1", "1+2", "x", "5", "1", "4", "1"]
    assert list(keys.doses(drugs)) == ["", "1", "2+1", "", "5+", "1", "4+", "1"]


def test_every_wrong_dose_is_listed_at_once(drugs):
    drugs.obs["dose"] = ["x", "-1", "1+2", "y", "high", None, "3+4", "0.1"]
    with pytest.raises(ValueError, match="`dose_key='dose'`.*'-1' of 'A'.*'high' of 'A'.*'A' has none in some cells"):
        KEYS.labels(drugs)


def test_a_screen_without_smiles_may_dose_anything():
    adata = screen(["control", "A", "STAT1"], dose=[np.nan, 0.5, np.nan])
    assert list(ScreenKeys(dose_key="dose").doses(adata)) == ["", "0.5", ""]


def test_smiles_of_combinations_need_not_be_told_apart_where_their_drugs_are_known():
    adata = screen(
        ["control", "A", "B", "A+B", "B+STAT1", "A+ctrl"],
        smiles=["CS(C)=O", "CCO", "CCN |c:1|", "CCO.CCN", "CCN |c:1|", "CCO"],
    )
    assert ScreenKeys(smiles_key="smiles").smiles(adata) == {"A": "CCO", "B": "CCN |c:1|"}


def test_smiles_that_cannot_be_told_apart(drugs):
    drugs.obs["smiles"] = [None, "CCO", "CCN.CCO", None, "CCO", "CCO", "CCF..CCN..CCO", "CCO"]
    with pytest.raises(
        ValueError, match=r"`smiles_key='smiles'`.*'B\+A' has 1 SMILES for 2 names; 'C\+A' has 3 SMILES for 2 names"
    ):
        KEYS.smiles(drugs)


def test_missing_columns_are_named(drugs):
    with pytest.raises(KeyError, match="`dose_key` is 'dosis'.*Did you mean 'dose'") as caught:
        ScreenKeys(dose_key="dosis").labels(drugs)
    assert str(caught.value).startswith("`dose_key` is 'dosis', but")  # not the quoted message of a `KeyError`
    with pytest.raises(KeyError, match="`smiles_key` is 'smile'.*Did you mean 'smiles'"):
        ScreenKeys(smiles_key="smile").drugs(drugs)


def test_a_column_of_the_default_name_that_is_not_there_is_to_be_named():
    adata = screen(["control", "A"])
    adata.obs = adata.obs.rename(columns={"perturbation": "gene"})
    with pytest.raises(KeyError, match=r"it has \['gene'\]\). This is the default: name your own column"):
        ScreenKeys().labels(adata)
    with pytest.raises(KeyError, match=r"it has \['gene'\]\)\.$"):
        ScreenKeys(perturbation_key="target").labels(adata)


def test_cells_without_a_label_are_counted_and_the_first_is_named():
    for nothing in [None, np.nan, pd.NA]:
        with pytest.raises(
            ValueError, match="2 cells have no perturbation label.*'cell1' the first. Remove such cells"
        ):
            ScreenKeys().labels(screen(["control", nothing, "A", nothing]))
