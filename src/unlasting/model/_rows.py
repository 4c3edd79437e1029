"""Rows of generated cells, made in any order and in any process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from anndata import AnnData

from unlasting.model._generator import GeneratedCells, Generator
from unlasting.screen import COUNTS_LAYER, Perturbation


@dataclass(frozen=True, kw_only=True)
class GeneratedRows(ABC):
    """All cells of one call, generated when asked for. Pickle takes them to other processes.

    Parameters
    ----------
    generator
        Generates them.
    genes
        The model's genes in order.
    layer
        The model's layer for expression, if any.
    source, replicate
        Rows of sources, and numbers of earlier cells from the same source, shape `(n,)`.
    """

    generator: Generator
    genes: Sequence[str]
    layer: str | None
    source: np.ndarray
    replicate: np.ndarray

    @abstractmethod
    def __call__(self, rows: range) -> AnnData:
        """Generate some rows."""

    def _as_adata(self, generated: GeneratedCells, obs: pd.DataFrame) -> AnnData:
        """Join generated cells with their table."""
        layers = {} if generated.counts is None else {COUNTS_LAYER: generated.counts}
        if self.layer is not None:
            layers[self.layer] = generated.expression
        return AnnData(generated.expression, obs=obs, var=pd.DataFrame(index=pd.Index(self.genes)), layers=layers)


@dataclass(frozen=True, kw_only=True)
class RowsByCondition(GeneratedRows):
    """The same sources under each condition; all cells of a condition are consecutive.

    Parameters
    ----------
    conditions
        The conditions.
    population
        Row of each source's population in `trust`, shape `(n,)`.
    by_condition, by_source, trust
        Columns of `obs` for each condition, source, and pair (condition, population).
    """

    conditions: Sequence[Perturbation]
    population: np.ndarray
    by_condition: pd.DataFrame
    by_source: pd.DataFrame
    trust: pd.DataFrame

    def __call__(self, rows: range) -> AnnData:
        """Generate some rows."""
        which, position = np.divmod(np.asarray(rows), len(self.source))
        self.generator.set_conditions(self.conditions[which[0] : which[-1] + 1])
        generated = self.generator(self.source[position], self.replicate[position], which - which[0])
        pair = which * (len(self.trust) // len(self.conditions)) + self.population[position]
        tables = ((self.by_condition, which), (self.by_source, position), (self.trust, pair))
        obs = pd.concat([frame.iloc[row].reset_index(drop=True) for frame, row in tables], axis=1)
        return self._as_adata(generated, obs.set_axis([f"generated_{i}" for i in rows]))


@dataclass(frozen=True, kw_only=True)
class RowsByCell(GeneratedRows):
    """A source and a condition for each cell.

    Parameters
    ----------
    condition
        Rows of the generator's conditions, shape `(n,)`.
    obs
        Table of the cells.
    """

    condition: np.ndarray
    obs: pd.DataFrame

    def __call__(self, rows: range) -> AnnData:
        """Generate some rows."""
        part = np.asarray(rows)
        generated = self.generator(self.source[part], self.replicate[part], self.condition[part])
        return self._as_adata(generated, self.obs.iloc[part])
