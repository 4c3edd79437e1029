"""Gene symbols: one gene under its present, previous, alias and murine names."""

from __future__ import annotations

import gzip
import re
from collections import defaultdict
from collections.abc import Iterable
from functools import cache, cached_property
from importlib.resources import files
from typing import Final, NamedTuple

from unlasting.screen._perturbation import nearest_name

_LIGAND: Final = re.compile(
    r"IFN\w+|IL\d+[A-F]?|TNF|TNFSF\d+\w?|TGFA|TGFB\d|CSF\d|VEGF[A-D]|PDGF[A-D]|FGF\d+|IGF\d|BMP\d+|WNT\d+\w?|KITLG|(?:CCL|CXCL)\d+|EDN\d|"
    r"GAST|GH\d|GCG|CALCA|ADCYAP1|THPO|NRG\d|PF4"
)
"""Genes with a product that is added to cells: an old name such as `IFNB` is a stimulus, not a target."""
_REAGENTS: Final = frozenset({"LPS", "TSA", "THC", "NA", "KO", "AA", "TAX", "HS", "T3", "E2", "CIS", "ADP", "AMP"})
"""Old names that are rather reagents or remarks on a condition."""
_DISTINCT: Final = re.compile(r"[A-Z0-9][A-Z0-9-]+|\w*\d\w*")
_MURINE: Final = re.compile(r"[A-Z][a-z0-9-]*[a-z][a-z0-9-]*")


class _Table(NamedTuple):
    """The approved symbols, former ones without another meaning, and the symbols that other names may stand for."""

    approved: frozenset[str]
    former: frozenset[str]
    old: dict[str, tuple[str, ...]]
    mouse: dict[str, str]
    capitals: dict[str, str]


@cache
def _table() -> _Table:
    text = gzip.decompress((files("unlasting.screen") / "_data" / "gene_symbols.tsv.gz").read_bytes()).decode()
    previous, alias = defaultdict[str, list[str]](list), defaultdict[str, list[str]](list)
    approved, mouse = [], {}
    for line in text.splitlines()[1:]:
        symbol, *old, ortholog = line.split("\t")
        approved.append(symbol)
        for names, column in zip((previous, alias), old, strict=True):
            for name in filter(None, column.split("|")):
                names[name].append(symbol)
        if ortholog:
            mouse[symbol.capitalize() if ortholog == "=" else ortholog] = symbol
    meant = {name: tuple(symbols) for name, symbols in {**alias, **previous}.items()}
    former = frozenset(name for name, symbols in previous.items() if len(symbols) == 1 and name not in alias)
    return _Table(frozenset(approved), former, meant, mouse, {symbol.upper(): symbol for symbol in approved})


def symbol_candidates(name: str) -> tuple[str, ...]:
    """Get the present human symbols that a name may stand for: by previous symbol, else alias, else another case."""
    table = _table()
    if name in table.approved:
        return (name,)
    is_variant = name.isupper() or _MURINE.fullmatch(name)
    variant = table.mouse.get(name) or (table.capitals.get(name.upper()) if is_variant else None)
    if variant is None and len(name) < 3:  # `T4` is rather a label than CD4
        return ()
    return (
        table.old.get(name)
        or ((variant,) if variant else ())
        or table.old.get(name.upper())
        or table.old.get(name.lower(), ())
    )


def present_symbol(name: str) -> str:
    """Get the present human symbol of a gene; empty if the name stands for none, several, or a stimulus."""
    found = symbol_candidates(name)
    if len(found) != 1 or found[0] != name and (name in _REAGENTS or _LIGAND.fullmatch(found[0]) and name.isupper()):
        return ""
    return found[0]


def was_symbol(name: str) -> bool:
    """Whether a name was once the symbol of one gene, and is no alias of another."""
    return name in _table().former


def is_distinct(name: str) -> bool:
    """Whether a name is no common word: in capitals, or with a digit."""
    return bool(_DISTINCT.fullmatch(name))


class GeneNames:
    """Known gene names, in which a gene is found by any of its names.

    Parameters
    ----------
    known
        Names of a panel or a prior, in one nomenclature.
    panel
        Measured genes, `known` by default. Old names are read only beside genes of man or mouse, and words such as `Rest`
        only beside those of mice.
    """

    def __init__(self, known: Iterable[str], panel: Iterable[str] | None = None) -> None:
        self.known = dict.fromkeys(map(str, known))
        panel = list(self.known if panel is None else map(str, panel))
        self._panel = panel[:: max(1, len(panel) // 200)]

    @cached_property
    def is_murine(self) -> bool:
        """Whether most names of the panel are written like `Stat1`."""
        return 2 * sum(map(bool, map(_MURINE.fullmatch, self._panel))) > len(self._panel)

    @cached_property
    def are_genes(self) -> bool:
        """Whether most names of the panel are symbols or Ensembl ids of genes."""
        return 2 * sum(bool(symbol_candidates(name)) or name.startswith("ENS") for name in self._panel) > len(
            self._panel
        )

    @cached_property
    def _by_symbol(self) -> dict[str, str]:
        """Known names by present symbol; the present symbol itself goes first."""
        names = {present_symbol(name): name for name in reversed(self.known)}
        return {symbol: symbol if symbol in self.known else name for symbol, name in names.items() if symbol}

    def find(self, name: str, *, is_gene: bool = False) -> str:
        """Get the known name of a gene; empty if there is none.

        Parameters
        ----------
        name
            Any name.
        is_gene
            Whether it is surely a gene; otherwise common words and stimuli are not found by an old name.
        """
        if name in self.known:
            return name
        return self._by_symbol.get(present_symbol(name) if is_gene else self.symbol(name), "")

    def symbol(self, name: str) -> str:
        """Get the present human symbol of a name that is a gene beside this panel; empty otherwise."""
        is_read = self.are_genes and (self.is_murine or is_distinct(name))
        return present_symbol(name) if is_read else ""

    def hint(self, name: str) -> str:
        """Suggest the intended gene as the end to an error message: another spelling, or one slip of the pen."""
        several = [known for symbol in symbol_candidates(name) if (known := self.find(symbol, is_gene=True))]
        if several:
            return f" {name!r} is another name of {' and '.join(several)}: name the gene."
        if present_symbol(name):
            return ""
        wanted, by_capitals = name.casefold(), {known.casefold(): known for known in self.known}
        if wanted in by_capitals:
            return f" Did you mean {by_capitals[wanted]!r}?"
        near = [known for spelt, known in by_capitals.items() if is_one_slip(wanted, spelt)]
        swapped = [known for known in near if sorted(known.casefold()) == sorted(wanted)]
        return nearest_name(name, swapped or near)


def is_one_slip(first: str, second: str) -> bool:
    """Whether one letter is replaced, added, left out, or swapped with its neighbour."""
    if abs(len(first) - len(second)) > 1 or first == second:
        return False
    start = next(
        (i for i, (x, y) in enumerate(zip(first, second, strict=False)) if x != y), min(len(first), len(second))
    )
    rest, other = first[start:], second[start:]
    return (
        rest[1:] == other[1:]
        or rest[1:] == other
        or rest == other[1:]
        or rest[:2] == other[1::-1]
        and rest[2:] == other[2:]
    )
