"""Presets: all options of the method, for each recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args, get_type_hints

from unlasting.nn import Architecture
from unlasting.screen import nearest_name, require_integers, require_numbers, require_switches

_CELLS_PER_CONDITION: Final = 64
"""Cells that a training holds for each condition at least, up to the ceiling."""


@dataclass(frozen=True)
class NetworkTraining:
    """Training options for one network.

    Parameters
    ----------
    max_steps
        Maximum number of steps, on small screens where there is a `ceiling`.
    batch_size
        Cells in a step.
    lr
        Initial learning rate of AdamW; it falls linearly to zero at `max_steps`.
    weight_decay
        Weight decay of AdamW.
    ema_decay
        Decay for the averaged weights, which prediction uses.
    ceiling
        Maximum number of steps on large screens; `None` for `max_steps` on all.
    """

    max_steps: int
    batch_size: int
    lr: float
    weight_decay: float
    ema_decay: float
    ceiling: int | None = None

    def for_screen(self, n_cells: int, n_conditions: int) -> NetworkTraining:
        """Choose the number of steps: a pass over the training cells, or 64 cells for each condition if that is more.

        It is at least `max_steps` and at most `ceiling`.
        """
        wanted = max(n_cells, _CELLS_PER_CONDITION * n_conditions) // self.batch_size
        steps = max(self.max_steps, min(wanted, self.ceiling or 0))
        return dataclasses.replace(self, max_steps=steps, ceiling=None)


@dataclass(frozen=True)
class Preset:
    """All the method's options.

    Parameters
    ----------
    denoiser, mask_network
        Sizes and switches of the networks.
    train_denoiser, train_mask
        Training options for the networks.
    coordinates
        `angle`: preconditioned per gene. `noise`: the network predicts x_0.
    schedule
        `cosine`: continuous, centred at the data's s.d. `linear_beta`: the published 500 steps.
    solver
        `adams` (third order) or `euler` (in noise coordinates: DDIM).
    n_steps
        Solver steps for encoding, and as many for decoding.
    steps
        `time`: uniform in the schedule's time. `log_snr`: uniform in the log-SNR.
    last_step
        Whether decoding in noise coordinates ends with DDIM's last step: at the network's prediction, and not at the state
        in the smallest noise.
    loss_average
        `entries`: over all expressed entries of a batch. `cells`: over the cells' own averages, as in Eq. 13, which
        gives a cell's entries the more weight the fewer genes it expresses.
    mask_labels
        Labels in the mask network's cross-entropy. `cells`: a cell's own mask. `conditions`: the detection rates among
        the training cells with the same condition. The cross-entropy is linear in its labels, so that the expected loss is
        the same, without the noise from single cells. The network must then read nothing from the cell.
    hold_silent
        Whether silent genes hold noise while cells are encoded and decoded, as in training. If not, a source cell's
        silent genes are encoded as zeros, and a generated cell's are masked at the end.
    control_signal
        `population`: mean over training controls, for source and target. `cell`: as published, nothing for the source,
        `mu + sigma eps` for the target in training and the control cell itself in generation.
    mask_rule
        `bridge`: a latent transfers a source cell's mask. As published, masks are drawn from a rate for each gene:
        the mean predicted probability over control cells (`probability`), or the share among control cells whose probability
        exceeds `mask_threshold` (`threshold`).
    mask_threshold
        Threshold tau for that rule.
    n_mask_controls
        Number K of control cells for these rates.
    use_effects
        Whether hurdle parameters start from the effects model, and the networks learn the rest.
    use_responders
        Whether some perturbed cells may be non-responding, in training and generation.
    keep_total
        Whether generated cells get the training cells' common total, if there is one.
    integer_counts
        Whether generated cells hold integer counts, rounded at random, if training cells do. Needs `use_latent` and
        `use_mask`.
    use_latent
        Whether a cell is decoded from the encoded control cell, and not from noise.
    use_mask
        Whether there is a mask network. If not, all genes count as expressed, in the loss too.

    Raises
    ------
    ValueError
        If an option is not among its choices, or a number is too small.
    """

    denoiser: Architecture = field(default_factory=Architecture)
    mask_network: Architecture = field(default_factory=Architecture)
    train_denoiser: NetworkTraining = NetworkTraining(400, 64, 2e-3, 1e-3, 0.999, ceiling=5_000)
    train_mask: NetworkTraining = NetworkTraining(200, 256, 3e-3, 1e-3, 0.99, ceiling=1_250)
    coordinates: Literal["angle", "noise"] = "angle"
    schedule: Literal["cosine", "linear_beta"] = "cosine"
    solver: Literal["adams", "euler"] = "adams"
    n_steps: int = 5
    steps: Literal["time", "log_snr"] = "time"
    last_step: bool = False
    loss_average: Literal["entries", "cells"] = "entries"
    mask_labels: Literal["cells", "conditions"] = "cells"
    hold_silent: bool = True
    control_signal: Literal["population", "cell"] = "population"
    mask_rule: Literal["bridge", "probability", "threshold"] = "bridge"
    mask_threshold: float = 0.5
    n_mask_controls: int = 500
    use_effects: bool = True
    use_responders: bool = True
    keep_total: bool = True
    integer_counts: bool = True
    use_latent: bool = True
    use_mask: bool = True

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            value, allowed = getattr(self, name), get_args(kind)
            if allowed and value not in allowed:
                raise ValueError(f"`{name}` is {value!r}; choose one of {list(allowed)}.")
        require_switches(
            **{f.name: getattr(self, f.name) for f in dataclasses.fields(self) if isinstance(f.default, bool)}
        )
        require_integers(1, n_steps=self.n_steps, n_mask_controls=self.n_mask_controls)
        require_numbers(mask_threshold=self.mask_threshold)
        if self.denoiser.mixing_gate and (self.coordinates, self.schedule) != ("noise", "linear_beta"):
            raise ValueError(
                "`mixing_gate=True` is for `coordinates='noise'` and `schedule='linear_beta'`. Set them, or `mixing_gate=False`."
            )
        if self.mask_labels == "conditions" and self.mask_network.detected_genes_slope:
            raise ValueError(
                "`mask_labels='conditions'` needs a mask network that reads nothing from the cell, and this one reads the number "
                "of detected genes. Set `detected_genes_slope=False`, or `mask_labels='cells'`."
            )

    @classmethod
    def named(cls, name: str) -> Preset:
        """Look up a preset.

        Raises
        ------
        ValueError
            If there is no preset of this name.
        """
        if name not in PRESETS:
            raise ValueError(f"`preset` is {name!r}; choose one of {sorted(PRESETS)}.{nearest_name(name, PRESETS)}")
        return PRESETS[name]

    def replace(self, **changes: Any) -> Preset:
        """Change some options; sizes and switches change in both networks.

        Raises
        ------
        TypeError
            If there is no option under a name.
        """
        own = {f.name for f in dataclasses.fields(self)}
        shared = {f.name for f in dataclasses.fields(Architecture)}
        unknown = sorted(set(changes) - own - shared)
        if unknown:
            raise TypeError(f"unknown option {unknown[0]!r}.{nearest_name(unknown[0], own | shared)}")
        sizes = {k: v for k, v in changes.items() if k in shared}
        changed = dataclasses.replace(self, **{k: v for k, v in changes.items() if k in own})
        return dataclasses.replace(
            changed,
            denoiser=dataclasses.replace(changed.denoiser, **sizes),
            mask_network=dataclasses.replace(changed.mask_network, **sizes),
        )

    def to_dict(self) -> dict[str, Any]:
        """Write all options as nested dictionaries that JSON can hold."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, options: Mapping[str, Any]) -> Preset:
        """Read options that :meth:`to_dict` wrote."""
        kinds: dict[str, Any] = get_type_hints(cls)
        return cls(
            **{
                name: kinds[name](**value) if dataclasses.is_dataclass(kinds[name]) else value
                for name, value in options.items()
            }
        )


_PUBLISHED = Architecture(
    gene_features=64,
    attention_features=256,
    width=512,
    time_frequencies=1024,
    largest_frequency=1_000.0,
    condition_features=0,
    use_grn=True,
    mask_as_input=False,
    cell_type_index=True,
    grn_only=True,
    detected_genes_slope=False,
)

_PAPER = Preset(
    denoiser=dataclasses.replace(_PUBLISHED, node_norm=True, read_out_scale=40.0, mixing_gate=True),
    mask_network=dataclasses.replace(_PUBLISHED, node_norm=True),
    train_denoiser=NetworkTraining(20_000, 32, 1e-4, 0.0, 0.9999),
    train_mask=NetworkTraining(1_500, 64, 1e-3, 1e-2, 0.0),
    coordinates="noise",
    schedule="linear_beta",
    solver="euler",
    n_steps=50,
    control_signal="cell",
    mask_rule="probability",
    mask_labels="conditions",
    use_effects=False,
    use_responders=False,
    keep_total=False,
    integer_counts=False,
)

PRESETS: Final = {
    "default": Preset(mask_network=Architecture(width=128)),
    "paper": _PAPER,
    "paper-as-printed": dataclasses.replace(
        _PAPER,
        denoiser=dataclasses.replace(_PUBLISHED, state_gate=False, control_residual=True),
        mask_network=_PUBLISHED,
        mask_rule="threshold",
        mask_labels="cells",
        hold_silent=False,
        last_step=True,
        loss_average="cells",
    ),
}
"""Presets by name: `default`, the identity bridge; `paper`, the published text with the steps repaired that break it;
`paper-as-printed`, without the repairs."""

PAPER_RESPONSE_FDR: Final = 0.2
"""False discovery rate for edges from targets to responding genes, with `preset="paper"`: `pp.grn(response_fdr=...)`."""

LAPTOP: Final[dict[str, Any]] = {
    "gene_features": 8,
    "attention_features": 8,
    "width": 256,
    "train_denoiser": NetworkTraining(4_000, 64, 7e-4, 0.0, 0.995),
    "train_mask": NetworkTraining(3_000, 64, 3e-3, 1e-2, 0.99),
}
"""Options that shorten the published recipe for a laptop: `UnlastingModel(adata, preset="paper", **LAPTOP)`."""
