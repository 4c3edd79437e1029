"""Genes by any of their names, against the shipped table read independently."""

from __future__ import annotations

import gzip
from importlib.resources import files

import pandas as pd
import pytest

from unlasting.screen import GeneNames, is_one_slip, present_symbol, symbol_candidates

PANEL = ["STAT1", "FOXA1", "FOXL1", "KMT2D", "FLT4", "REST", "MLL5", "ACTB"]


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    with (files("unlasting.screen") / "_data" / "gene_symbols.tsv.gz").open("rb") as file:
        return pd.read_csv(gzip.open(file), sep="\t", dtype=str, keep_default_na=False)


def test_the_table_is_in_order(table):
    assert table["symbol"].is_unique
    approved = set(table["symbol"])
    for column in ("previous", "alias"):
        assert not approved & {name for names in table[column] for name in names.split("|")}
    mouse = table["mouse"].where(table["mouse"] != "=", table["symbol"].str.capitalize())
    assert not mouse[mouse != ""].duplicated().any()


def test_every_approved_symbol_is_itself(table):
    assert all(present_symbol(symbol) == symbol for symbol in table["symbol"])


@pytest.mark.parametrize(
    ("name", "symbol"),
    [
        ("MLL2", "KMT2D"),
        ("VEGFR3", "FLT4"),
        ("p53", "TP53"),
        ("P53", "TP53"),
        ("SARS", "SARS1"),
        ("MARCH1", "MARCHF1"),
        ("SEPT7", "SEPTIN7"),
        ("C9ORF72", "C9orf72"),
        ("Stat1", "STAT1"),
        ("Trp53", "TP53"),
        ("Cd8b1", "CD8B"),
        ("MLL4", ""),  # KMT2B or KMT2D
        ("CD25", ""),  # IL2RA or ISG20
        ("IFNB", ""),  # a stimulus, as TNFA and LPS
        ("TNFA", ""),
        ("LPS", ""),
        ("T4", ""),  # rather a label than CD4
        ("rest", ""),
        ("stat1", ""),
        ("stimulated", ""),
    ],
)
def test_names_of_one_gene(name, symbol):
    assert present_symbol(name) == symbol


def test_previous_symbols_go_before_aliases():
    assert symbol_candidates("MLL2") == ("KMT2D",)  # also an alias of KMT2B
    assert set(symbol_candidates("MLL4")) == {"KMT2B", "KMT2D"}


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("MLL2", "KMT2D"),
        ("KMT2D", "KMT2D"),
        ("KMT2E", "MLL5"),
        ("MLL5", "MLL5"),
        ("Stat1", "STAT1"),
        ("Rest", ""),
        ("STAT2", ""),
    ],
)
def test_a_gene_is_found_in_a_panel(name, found):
    assert GeneNames(PANEL).find(name) == found


def test_words_are_genes_beside_genes_of_mice_only():
    mouse = GeneNames(name.capitalize() for name in PANEL)
    assert mouse.is_murine
    assert mouse.find("REST") == "Rest"
    assert GeneNames(["RELA", "REST"], panel=mouse.known).find("Rela") == "RELA"
    assert GeneNames(PANEL).find("Rest", is_gene=True) == "REST"


def test_no_gene_is_found_beside_invented_names():
    panel = [f"gene_{i}" for i in range(50)]
    assert not GeneNames(["FLT4", *panel]).find("VEGFR3")
    assert GeneNames(["FLT4", *PANEL]).find("VEGFR3") == "FLT4"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("FOX1A", "FOXA1"),  # two letters swapped, where FOXL1 is as near by replacement
        ("STTA1", "STAT1"),
        ("KMT2DD", "KMT2D"),
        ("stat1", "STAT1"),
        ("MLL2", "KMT2D"),
        ("STAT2", ""),  # a gene of its own
        ("FOXO3B", ""),
        ("XYZ", ""),
    ],
)
def test_suggestions_are_near(name, hint):
    assert (f"{hint!r}" in GeneNames(PANEL).hint(name) or f"of {hint}:" in GeneNames(PANEL).hint(name)) == bool(hint)
    assert bool(GeneNames(PANEL).hint(name)) == bool(hint)


def test_one_slip_is_a_distance_of_one():
    def distance(a: str, b: str) -> int:  # optimal string alignment, by its recursion
        rows = [[i + j if not i * j else 0 for j in range(len(b) + 1)] for i in range(len(a) + 1)]
        for i in range(1, len(a) + 1):
            for j in range(1, len(b) + 1):
                rows[i][j] = min(rows[i - 1][j] + 1, rows[i][j - 1] + 1, rows[i - 1][j - 1] + (a[i - 1] != b[j - 1]))
                if i > 1 and j > 1 and a[i - 1] == b[j - 2] and a[i - 2] == b[j - 1]:
                    rows[i][j] = min(rows[i][j], rows[i - 2][j - 2] + 1)
        return rows[-1][-1]

    words = ["", "a", "b", "ab", "ba", "abc", "acb", "bac", "abcd", "abd", "abdc", "xbcd", "abcdd", "aabc", "cab"]
    for first in words:
        for second in words:
            assert is_one_slip(first, second) == (distance(first, second) == 1), (first, second)
