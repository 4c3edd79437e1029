"""Drugs in sci-Plex3: names, structures, and the published out-of-distribution lists."""

from __future__ import annotations

from importlib.resources import files

import pandas as pd


def drug_table() -> pd.DataFrame:
    """Read the shipped table: `name`, `smiles`, `ood` and `ood_epigenetic`."""
    with (files("unlasting.pp") / "_data" / "sciplex3_drugs.tsv").open(encoding="utf-8") as file:
        return pd.read_csv(file, sep="\t", dtype={"ood": bool, "ood_epigenetic": bool})


def table_name(name: str) -> str:
    """Shorten a product name like in the table: `Trametinib (GSK1120212)` is `Trametinib`."""
    return name.removeprefix("(+)-").split()[0]
