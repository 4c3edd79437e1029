"""Generate perturbed cells from control cells, in chunks."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import sparse
from torch import Tensor
from tqdm.auto import tqdm

from unlasting.data import cell_noise
from unlasting.effects import ControlPopulations, has_integer_counts
from unlasting.model._sources import SourceCells
from unlasting.module import UnlastingModule
from unlasting.screen import Perturbation

_NEW_NOISE = 0.1
"""Share of new noise in the latent of further replicates, so that no two cells are the same; the first has none."""
_SOLVER_ERROR = 1e-3
"""Change relative to the largest value that counts as none: such a value keeps its count."""


class GeneratedCells(NamedTuple):
    """Generated cells.

    Parameters
    ----------
    expression
        Log-normalised expression, shape `(n_cells, n_genes)`.
    counts
        The same cells as integer counts, shape `(n_cells, n_genes)`; `None` for source cells without counts.
    """

    expression: sparse.csr_matrix
    counts: sparse.csr_matrix | None


class Generator:
    """Generates cells under any conditions from source cells; a source is encoded once for all of them.

    `perturbations` are the first conditions; :meth:`set_conditions` replaces them. The control is added as row -1. The noise
    depends on source cell, replicate and seed; `batch_size` affects memory and speed only.

    A copy made by pickle generates the same cells in another process, on the same device and in the same precision.
    """

    def __init__(
        self,
        module: UnlastingModule,
        sources: SourceCells,
        perturbations: Sequence[Perturbation],
        *,
        seed: int,
        batch_size: int,
        show_progress: bool,
    ) -> None:
        self.module = module.eval()
        self.sources = sources
        self.seed = seed
        self.batch_size = batch_size
        self.show_progress = show_progress
        device = module.device.type
        self._autocast: dict[str, Any] | None = None  # `torch.autocast` does not reach other processes or threads
        if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
            self._autocast = {"device_type": device, "dtype": torch.get_autocast_dtype(device)}
        self._groups: dict[int, np.ndarray] | None = None
        self._latents: dict[int, np.ndarray] = {}
        self._tables: dict[tuple[int, int], Tensor] = {}
        self.set_conditions(perturbations)

    @property
    def precision(self) -> str:
        """Type of the numbers in products: that of the autocast around the call, else `float32`."""
        return "float32" if self._autocast is None else str(self._autocast["dtype"]).removeprefix("torch.")

    def set_conditions(self, perturbations: Sequence[Perturbation]) -> None:
        """Replace the conditions; the encoded sources stay."""
        conditions = [*perturbations, Perturbation()]
        self._conditions = self.module.tensors(conditions)
        self._expected = self.module.expected(conditions, self.sources.populations)
        self._nonresponding = self.module.effects.nonresponder_share(conditions)
        self._tables.clear()

    def keep_latents(self, source: np.ndarray) -> None:
        """Keep latents for further calls with these sources, in any order.

        Sources are encoded in fixed groups, so that the last bits of a latent do not depend on earlier calls. Without this,
        a latent is dropped after its last use in a call.
        """
        used = np.array(list(dict.fromkeys(source.tolist())), dtype=int)
        groups = [used[i : i + self.batch_size] for i in range(0, len(used), self.batch_size)]
        self._groups = {row: group for group in groups for row in group.tolist()}

    @torch.inference_mode()
    def __call__(self, source: np.ndarray, replicate: np.ndarray, condition: np.ndarray) -> GeneratedCells:
        """Generate one cell for every entry of the arguments.

        The arguments are rows of sources, numbers of earlier cells from the same source, and rows of conditions.
        """
        last_use = dict(zip(source.tolist(), range(len(source)), strict=True))
        chunks = [slice(i, i + self.batch_size) for i in range(0, len(source), self.batch_size)]
        generated = []
        for chunk in tqdm(chunks, desc="Generating cells", disable=None if self.show_progress else True):
            with nullcontext() if self._autocast is None else torch.autocast(**self._autocast):
                if self.module.preset.use_latent:
                    self._encode(np.unique(source[chunk]))
                generated.append(self._decode(source[chunk], replicate[chunk], condition[chunk]))
            if self._groups is None:
                for row in source[chunk].tolist():
                    if last_use[row] < chunk.stop:
                        self._latents.pop(row, None)
        if not generated:
            return GeneratedCells(sparse.csr_matrix((0, self.module.n_genes)), None)
        expression, counts = zip(*generated, strict=True)
        has_counts = self.sources.counts_per_unit is not None
        return GeneratedCells(
            sparse.vstack(expression, format="csr"), sparse.vstack(counts, format="csr") if has_counts else None
        )

    def cells(self, rows: np.ndarray) -> Tensor:
        """Read source cells on the [0, 1] scale, shape `(n_cells, n_genes)`."""
        cells = torch.from_numpy(self.sources.matrix[rows].toarray())
        return cells.to(self.module.device) / self.module.statistics.x_max

    def populations(self, rows: np.ndarray) -> ControlPopulations:
        """Get the control populations that source cells belong to."""
        return self.sources.populations[self._population(rows)]

    def _population(self, rows: np.ndarray) -> Tensor:
        return torch.as_tensor(self.sources.population[rows], device=self.module.device)

    def encode(self, rows: np.ndarray, condition: np.ndarray, eps: Tensor | None = None) -> Tensor:
        """Encode source cells under conditions, with zeros or the noise `eps` for undetected genes."""
        x0, populations = self.cells(rows), self.populations(rows)
        codes = torch.as_tensor(condition, device=x0.device)
        signal = populations.mean if self.module.preset.control_signal == "population" else torch.zeros_like(x0)
        expected = self._expected(codes, self._population(rows))
        noise = torch.zeros_like(x0) if eps is None else eps.to(x0.device)
        return self.module.encode(x0, noise, signal, self._conditions[codes], populations, expected)

    def _encode(self, rows: np.ndarray) -> None:
        """Encode the sources that have not been encoded yet, whole groups where latents are kept."""
        new = [row for row in rows.tolist() if row not in self._latents]
        if self._groups is None and new:
            self._encode_together(np.array(new))
        elif self._groups is not None:
            for row in new:
                if row not in self._latents:
                    self._encode_together(self._groups[row])

    def _encode_together(self, new: np.ndarray) -> None:
        """Encode sources, with their own noise where the network sees it."""
        eps = None
        if not self.module.preset.denoiser.mask_as_input:
            names = [self.sources.names[row] for row in new]
            eps = torch.from_numpy(cell_noise(names, [0] * len(new), self.module.n_genes, self.seed)[0])
        latent = self.encode(new, np.full(len(new), -1), eps)
        # copies: a view of one row would keep all rows in memory
        self._latents.update(
            (row, values.copy()) for row, values in zip(new.tolist(), latent.float().cpu().numpy(), strict=True)
        )

    def _table(self, population: int, condition: int) -> Tensor:
        """Get log-odds (mask bridge) or rates (published) in a population under a condition, shape `(n_genes,)`."""
        if (population, condition) not in self._tables:
            code, population_code = (torch.tensor([one], device=self.module.device) for one in (condition, population))
            tensors, populations = self._conditions[code], self.sources.populations[population_code]
            if self.module.preset.mask_rule == "bridge":
                expected = self._expected(code, population_code)
                table = self.module.mask_log_odds(tensors, populations, expected)[0]
            else:
                first = np.flatnonzero(self.sources.population == population)[: self.module.preset.n_mask_controls]
                table = self.module.published_mask_rate(self.cells(first), tensors, populations.cell_type)
            self._tables[population, condition] = table
        return self._tables[population, condition]

    def _mask(self, source: np.ndarray, condition: np.ndarray, source_mask: Tensor, uniform: Tensor) -> Tensor:
        """Get the genes that the cells in one chunk express, shape `(n_cells, n_genes)`."""
        module, populations = self.module, self.populations(source)
        population = self.sources.population[source].tolist()
        after = torch.stack([self._table(p, c) for p, c in zip(population, condition.tolist(), strict=True)])
        if module.preset.mask_rule != "bridge":
            return (uniform < after).to(source_mask.dtype)
        before = torch.stack([self._table(p, -1) for p in population])
        detected = module.detected(source_mask, populations.log_detected_mean, populations.log_detected_sd)
        p0, p1 = (module.probability_at_detected_genes(log_odds, detected) for log_odds in (before, after))
        return module.transfer_mask(source_mask, p0, p1, uniform)

    def _decode(self, source: np.ndarray, replicate: np.ndarray, condition: np.ndarray) -> GeneratedCells:
        """Generate one chunk."""
        module, device = self.module, self.module.device
        x0, populations = self.cells(source), self.populations(source)
        names = [self.sources.names[row] for row in source]
        *noise, response = cell_noise(names, replicate.tolist(), module.n_genes, self.seed)
        # a non-responding cell stays a control
        condition = np.where(response < self._nonresponding[condition], -1, condition)
        eps, uniform, rounding = (torch.from_numpy(part).to(device) for part in noise)
        source_mask = module.is_expressed(x0)
        mask = self._mask(source, condition, source_mask, uniform) if module.preset.use_mask else source_mask
        latent = eps
        if module.preset.use_latent:
            encoded = torch.from_numpy(np.stack([self._latents[row] for row in source.tolist()])).to(device)
            share = torch.as_tensor(replicate > 0, device=device)[:, None] * _NEW_NOISE
            latent = (1.0 - share**2).sqrt() * encoded + share * eps
        if module.preset.denoiser.mask_as_input:
            latent = torch.where(source_mask > 0, latent, eps)
        codes = torch.as_tensor(condition, device=device)
        signal = populations.mean if module.preset.control_signal == "population" else x0
        expected = self._expected(codes, self._population(source))
        values = module.decode(latent, mask, signal, self._conditions[codes], populations, expected)
        cells = (values.float() * mask).clamp(min=0.0) * module.statistics.x_max
        return self._as_measured(cells, x0, source, rounding)

    def _as_measured(self, cells: Tensor, x0: Tensor, source: np.ndarray, uniform: Tensor) -> GeneratedCells:
        """Give cells the total and the integer counts of measured cells."""
        preset, statistics = self.module.preset, self.module.statistics
        is_whole = torch.zeros(len(cells), 1, dtype=torch.bool, device=cells.device)
        has_total = preset.keep_total and statistics.total > 0
        if has_total:
            cells = _with_total(cells, statistics.total)
        counted = cells  # on the scale of the source cells
        rounds = preset.integer_counts and preset.use_mask and preset.use_latent
        if rounds and statistics.integer_counts > 0:
            start = x0 * statistics.x_max
            if has_total:
                start = _with_total(start, statistics.total)
            is_whole = torch.from_numpy(has_integer_counts(self.sources.matrix[source].expm1())).to(cells.device)[
                :, None
            ]
            rounded = _with_integer_counts(cells, start, uniform, _SOLVER_ERROR * statistics.x_max)
            counted = torch.where(is_whole, rounded, cells)
            cells = torch.where(is_whole, _with_total(rounded, statistics.total) if has_total else rounded, cells)
        counts = None
        if self.sources.counts_per_unit is not None:
            per_unit = torch.from_numpy(self.sources.counts_per_unit[source]).to(cells)[:, None]
            counts = torch.expm1(counted) * per_unit
            counts = torch.where(is_whole, counts.round(), (counts + uniform).floor())
        return GeneratedCells(
            *(None if part is None else sparse.csr_matrix(part.cpu().numpy()) for part in (cells, counts))
        )


def _with_integer_counts(cells: Tensor, source: Tensor, uniform: Tensor, error: Tensor) -> Tensor:
    """Round changed values to multiples of the source cells' smallest count, shape `(n_cells, n_genes)`."""
    one = torch.where(source > 0, torch.expm1(source), torch.inf).amin(-1, keepdim=True)
    counts = (torch.expm1(cells) / one).floor().clamp(min=1.0)
    lower, upper = (torch.log1p(n * one) for n in (counts, counts + 1.0))
    share = (cells - lower) / (upper - lower)
    rounded = torch.where(uniform < share, upper, lower)  # at random: the mean stays, where it is above one count
    is_unchanged = (source > 0) & ((cells - source).abs() < error)
    rounded = torch.where(is_unchanged, source, rounded)
    return torch.where((cells > 0) & one.isfinite(), rounded, cells)


def _with_total(cells: Tensor, wanted: Tensor) -> Tensor:
    """Scale log-normalised cells so that their counts add up to a total, shape `(n_cells, n_genes)`; empty cells stay."""
    counts = torch.expm1(cells)
    total = counts.sum(-1, keepdim=True)
    return torch.log1p(counts * torch.where(total > 0, wanted / total, 0.0))
