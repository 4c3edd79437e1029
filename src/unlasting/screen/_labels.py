"""Review of labels: everything that a reader of the labels may have understood otherwise than their author."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from unlasting.screen._constants import UNS_KEY
from unlasting.screen._doses import doubts
from unlasting.screen._logging import listed, logger
from unlasting.screen._perturbation import parse_labels
from unlasting.screen._symbols import GeneNames, symbol_candidates, was_symbol

if TYPE_CHECKING:
    from anndata import AnnData

    from unlasting.screen._keys import ScreenKeys

_CONTROL: Final = re.compile(
    r"(?:(?:sg|si|sh|g|guide)?[-_. ]?(?:non[-_. ]?target(?:ing|ed)?|ntc?|no[-_. ]?target|neg(?:ative)?[-_. ]?c(?:on)?tro?l|"
    r"c(?:on)?tro?l(?:[-_. ]?(?:guide|cell)s?)?|scrambled?|safe[-_. ]?(?:harbou?r|target(?:ing)?)|aavs1|rosa26|lacz|[ed]?gfp|"
    r"luciferase|untreated|unperturbed|unstim(?:ulated)?|no[-_. ]?treat(?:ment|ed)?|untr|no[-_. ]?drug|vehicle|"
    r"dmso|pbs|mock|water|h2o|saline|solvent|medium|media|etoh|intergenic)"
    r"(?:[-_. #]?(?:sg|g|guide|tf|rep)?[-_. ]?[a-z]?\d*)?)|wild[-_. ]?type|wt",
    re.IGNORECASE,
)
_NO_PERTURBATION: Final = re.compile(
    r"nan|none|na|n/a|<na>|null|nat|unknown|unassigned|not[-_. ]?assigned|ambiguous|multiplets?|multiple|doublets?|negative|"
    r"undetermined|unmapped|no[-_. ]?(call|guides?|grna|sgrna|hit)|low[-_. ]?(quality|umi)|empty|other|missing|-+|\?+|\.",
    re.IGNORECASE,
)
_GUIDE: Final = re.compile(
    r"(?P<target>.*[A-Za-z0-9)])(?P<suffix>[-_. :#]?(?:sg|sgrna|grna|guide|pds|crispr)[-_. ]?[a-z]?\d+|[-_. :#]g\d+|"
    r"(?-i:(?<=[A-Z0-9])g\d+)|_[+-]_[\d.]+(?:-P1P2|-P1|-P2|-all)?)",
    re.IGNORECASE,
)
_NUMBERED: Final = re.compile(r"(?P<target>.*[A-Za-z0-9)])(?P<suffix>[-_#]\d{1,2})")
_DOSE: Final = re.compile(
    r"(?P<drug>.*[^\d.\W])[-_ @]\(?(\d+(\.\d+)?|\.\d+)(e-?\d+)?[-_ ]?([munpµ]M|[un]g)?\)?", re.IGNORECASE
)
_DELIMITERS: Final = ("_", ";", ",", "|", "&", "/", ":", "--", "-", " ", "+", "__")


def target_by_guide(names: Iterable[str], genes: Iterable[str]) -> dict[str, str]:
    """Get the targets of names such as `STAT1_g1` and `STAT1_g2`.

    A name with a suffix is a guide if the name without it is measured or a name, or if other names differ in the suffix
    only. Bare numbers such as `STAT1-2` must begin at 0 or 1 for most names, as `NKX2-5` and `IL-10` do not. Measured genes
    are no guides.
    """
    names, measured = set(names), set(genes)
    found, numbered = (
        {n: m["target"] for n in sorted(names - measured) if (m := p.fullmatch(n))} for p in (_GUIDE, _NUMBERED)
    )
    count = Counter(found.values())
    guides = {name: target for name, target in found.items() if count[target] > 1 or target in names | measured}
    several = Counter(numbered.values())
    first = {target for name, target in numbered.items() if name[len(target) + 1 :].lstrip("0") in ("", "1")}
    is_usual = 2 * sum(several[t] for t in first if several[t] > 1) > len(names)
    for name, target in numbered.items():
        if target in names | measured or (is_usual and target in first and several[target] > 1):
            guides.setdefault(name, target)
    return guides


def control_candidates(labels: Iterable[str]) -> list[str]:
    """List the labels that are usual for controls."""
    return sorted(label for label in map(str, labels) if _CONTROL.fullmatch(label))


def review_labels(adata: AnnData, keys: ScreenKeys) -> list[str]:
    """List all oddities in the label columns, one sentence with its fix each.

    Parameters
    ----------
    adata
        The screen.
    keys
        Its keys.

    Raises
    ------
    KeyError
        If `obs` lacks a column.
    ValueError
        If a label cannot be read.
    """
    column, place = keys.column(adata, "perturbation_key"), f"adata.obs[{keys.perturbation_key!r}]"
    parsed = parse_labels(column, **keys.grammar)
    labels = sorted(str(label) for label, perturbation in parsed.items() if not perturbation.is_control)
    names = sorted({name for perturbation in parsed.values() for name in perturbation.targets})
    genes, drugs = set(map(str, adata.var_names)), keys.drugs(adata) or frozenset()
    found: list[str] = []

    nothing = [name for name in names if _NO_PERTURBATION.fullmatch(name) and name not in genes]
    if nothing:
        found.append(
            f"{_few(nothing)} in `{place}` {_are(nothing)} no perturbation. Remove these cells: `adata = "
            f"adata[~{place}.isin({nothing[:5]})].copy()`."
        )
    controls = [name for name in names if _CONTROL.fullmatch(name) and name not in genes and name not in nothing]
    if controls:
        found.append(
            f"{_few(controls)} may be meant as control, but only {keys.control_text} is. If so, name all: "
            f"`control={[keys.control, *keys.other_controls, *controls[:4]]}`, or give a pattern such as `'non-targeting*'`."
        )
    others = [name for name in names if name not in {*nothing, *controls, *drugs}]
    doses = defaultdict(list)
    for name in names:
        match = _DOSE.fullmatch(name)
        if match and name not in genes and (drugs or keys.dose_key):
            doses[match["drug"]].append(name)
    in_label = sorted(name for several in doses.values() if len(several) > 1 for name in several)
    if in_label:
        found.append(
            f"{_few(in_label)} seem to contain a dose. Doses in names are not read: write them into a column, give "
            "`dose_key`, and leave the drug's name in the label."
        )
    guides = {} if drugs else target_by_guide(others, genes)
    if guides:
        some = sorted(guides)
        suffixes = sorted({re.sub(r"\d+", r"\\d+", re.escape(name[len(target) :])) for name, target in guides.items()})
        found.append(
            f"{_few(some)} seem to be guides (or replicates). Each is trained as a target of its own. Use the targets: `{place} = "
            f"{place}.astype(str).str.replace(r'({'|'.join(suffixes[:3])})$', '', regex=True)`."
        )
    joined: dict[str, list[str]] = defaultdict(list)
    known = {*genes, *labels}
    for name in others:
        for delimiter in _DELIMITERS:
            parts = [part.strip() for part in name.split(delimiter)]
            is_known = [part in known for part in parts]
            if name in genes or len(parts) < 2 or not any(is_known):
                continue
            if all(yes or _CONTROL.fullmatch(part) for yes, part in zip(is_known, parts, strict=True)):
                joined[delimiter].append(name)
                break
    for delimiter, several in joined.items():
        found.append(
            f"{_few(several)} seem to be combinations, but {keys.delimiter!r} separates targets. If so, pass "
            f"`delimiter={delimiter!r}`."
        )
    if labels and all(re.fullmatch(r"-?\d+(\.0)?|true|false", label, re.IGNORECASE) for label in labels):
        found.append(
            f"The labels in `{place}` are {_few(labels)}, which may be codes from a conversion. Take the column with the "
            "names, or map the codes to names: `adata.obs[...] = adata.obs[...].map({1: 'STAT1', ...})`."
        )
    found += _other_names(others, genes, f"{place} = {place}")
    by_case = defaultdict(set)
    for name in names:
        by_case[name.casefold()].add(name)
    spelt = sorted(name for several in by_case.values() if len(several) > 1 for name in several)
    if spelt:
        found.append(f"{_few(spelt)} differ in case only. Write each target in one way.")
    found += keys.assumptions
    if keys.dose_key is not None and not keys.assumptions:
        found += doubts(keys.dose_key, keys.column(adata, "dose_key"), keys.dose_unit or "uM")
    for argument in ("cell_type_key", "batch_key"):
        key = getattr(keys, argument)
        if key is not None:
            values = sorted(set(map(str, keys.column(adata, argument))))
            empty = [value for value in values if _NO_PERTURBATION.fullmatch(value) or not value.strip()]
            if empty:
                found.append(
                    f"{_few(empty)} in `adata.obs[{key!r}]` (`{argument}`) may stand for a missing value. Name it, or remove "
                    f"these cells: `adata = adata[~adata.obs[{key!r}].isin({empty[:5]})].copy()`."
                )
    return found


def _other_names(names: Sequence[str], genes: set[str], replaced: str) -> list[str]:
    """Write a sentence about names of genes that are neither measured nor present symbols, if there are any."""
    panel = GeneNames(genes)
    if not panel.are_genes:
        return []
    found: dict[str, str] = {}
    unclear, guessed = [], []
    for name in names:
        gene = panel.find(name) or panel.symbol(name)
        meant = symbol_candidates(name)
        if gene and gene != name and (gene in genes or not (was_symbol(name) or gene.casefold() == name.casefold())):
            found[name] = gene
        elif not gene and len(meant) > 1:
            unclear.append(f"{name!r} ({' or '.join(meant)})")
        elif not gene and (
            name.upper() in genes or any(map(str.isdigit, name)) and symbol_candidates(name.upper()) == (name.upper(),)
        ):
            guessed.append(f"{name!r} ({name.upper()})")
    sentences = []
    if found:
        said = [f"{name!r} as {gene!r}" for name, gene in found.items()]
        sentences.append(
            f"Other names of genes are read as the gene: {', '.join(said[:8])}{f' and {len(said) - 8} more' if len(said) > 8 else ''}. "
            f"Write the present symbols to be explicit: `{replaced}.astype(str).replace({dict(list(found.items())[:8])})`."
        )
    if unclear:
        sentences.append(
            f"{listed(unclear)} may stand for several genes, and {_are(unclear)} not read as one. Write the gene meant."
        )
    if guessed:
        sentences.append(
            f"{listed(guessed)} may be meant as the gene in brackets, but {_are(guessed)} read as no gene. If so, write its symbol."
        )
    return sentences


def warn_of_labels(adata: AnnData, keys: ScreenKeys, step: str, further: Sequence[str] = ()) -> None:
    """Log all oddities and the sentences in `further` in one warning; the same oddities once."""
    oddities = review_labels(adata, keys)
    stored: dict[str, Any] = adata.uns.setdefault(UNS_KEY, {})
    is_new = stored.get("label_review", "") != " ".join(oddities)
    stored["label_review"] = " ".join(oddities)
    said = [*further, *(oddities if is_new else [])]
    if said:
        numbered = " ".join(f"({i}) {one}" for i, one in enumerate(said, 1))
        logger.warning("%s: please check the labels. %s", step, numbered)


def require_perturbed(is_control: np.ndarray, keys: ScreenKeys) -> None:
    """Refuse a screen that holds controls only.

    Raises
    ------
    ValueError
        If no cell is perturbed.
    """
    if is_control.all():
        raise ValueError(
            f"All {len(is_control)} cells are controls ({keys.control_text}), so there is nothing to learn from. Add measured "
            "cells under perturbations, or load a trained model and generate from these controls: "
            "`model.generate(..., controls=adata)`."
        )


def require_controls(adata: AnnData, keys: ScreenKeys, usable: np.ndarray) -> None:
    """Refuse a cell type or batch without usable control cells.

    Parameters
    ----------
    adata
        The screen.
    keys
        Its keys.
    usable
        Whether each cell is a control for training, shape `(n_cells,)`.

    Raises
    ------
    ValueError
        If a combination of cell type and batch has none.
    """
    populations = list(zip(keys.cell_types(adata), keys.batches(adata), strict=True))
    without = sorted(set(populations) - {populations[row] for row in np.flatnonzero(usable)})
    if not without:
        return
    places = {"cell_type_key": without[0][0], "batch_key": without[0][1]}
    named = {key: value for key, value in places.items() if getattr(keys, key)}
    raise ValueError(
        f"{len(without)} of {len(set(populations))} control populations have no control cells in training, the first: "
        f"{', '.join(f'`{key}` {value!r}' for key, value in named.items())}. Every prediction starts from controls with the same "
        f"cell type and batch: add controls, drop these cells, or set up without this key: leave `{list(named)[-1]}` out (if it is "
        "recorded, delete it from `adata.uns['unlasting']['keys']` first)."
    )


def _few(names: list[str]) -> str:
    """Quote the first names, and count the others."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(map(repr, names[:5])) + more


def _are(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"
