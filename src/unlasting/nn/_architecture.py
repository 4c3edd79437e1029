"""Network sizes and switches."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from unlasting.nn._attention import layer_path
from unlasting.screen import require_integers, require_numbers, require_switches

GRAPH_OPTIONS: Final = frozenset(
    {"gene_features", "attention_features", "heads", "attention", "node_norm", "read_out_scale"}
)
"""Options that only a GRN block reads."""


@dataclass(frozen=True)
class Architecture:
    """Network sizes and switches; denoiser and mask network have one architecture each.

    Parameters
    ----------
    gene_features
        Gene embedding width.
    attention_features
        Layer width in the GRN block.
    heads
        Attention heads, averaged.
    attention
        Layer in the GRN block: `gat`, the fused graph attention, or a torch-geometric message-passing layer,
        given as a class such as `torch_geometric.nn.GATv2Conv` or its import path. It is stored as the path.
    width
        MLP width.
    time_frequencies
        Sinusoidal time embedding width.
    largest_frequency
        Largest angular frequency in that embedding, for times in [0, 1].
    condition_features
        Perturbation embedding width. 0: the perturbation acts through the knocked-out node alone, as
        published.
    dropout
        Dropout rate in the MLPs.
    use_grn
        Whether there is a GRN block. The default preset has none, since no score gained from it.
    use_control_moments
        Whether the networks see a control signal.
    knock_out
        Whether the targets' nodes are zeroed, as for a knock-out but not for activation or knock-down.
    node_norm
        Whether node states are normalised after each graph layer, and gene embeddings start large. A knocked-out node then
        has an effect two layers away from the first step on.
    read_out_scale
        Factor of the GRN block's read-out. Steps of an adaptive optimiser have one size for all weights; a larger factor lets
        those of the read-out reach the size of effects sooner.
    mask_as_input
        Whether the denoiser sees which genes are silent, instead of noise in their place.
    state_gate
        Whether a gate lets each gene's state pass beside the denoiser's MLPs, whose width is a bottleneck.
    mixing_gate
        Whether this gate weighs the state against the sum of the MLPs' output and the gene's read-out of the GRN block, as
        the conditional mean of x_0 does in the published schedule's noise. If not, the gated state is added.
    cell_type_index
        Whether cell types are learnt by index. If not, the control signal describes the cell type, and untrained
        cell types can be predicted.
    grn_only
        Whether the control signal enters through the GRN block alone, as published: in the denoiser under a drug, and in
        the mask network without an MLP beside the block.
    control_residual
        Whether the control signal is added to the denoiser's output.
    detected_genes_slope
        Whether the mask network's log-odds depend on the cell's detected genes.

    Raises
    ------
    ValueError
        If a size is no positive integer, another number is invalid, `mixing_gate` has no gate, or `attention` is unknown.
    """

    gene_features: int = 16
    attention_features: int = 16
    heads: int = 2
    attention: str | type = "gat"
    width: int = 256
    time_frequencies: int = 64
    largest_frequency: float = 10.0
    condition_features: int = 64
    dropout: float = 0.0
    use_grn: bool = False
    use_control_moments: bool = True
    knock_out: bool = True
    node_norm: bool = False
    read_out_scale: float = 1.0
    mask_as_input: bool = True
    state_gate: bool = True
    mixing_gate: bool = False
    cell_type_index: bool = False
    grn_only: bool = False
    control_residual: bool = False
    detected_genes_slope: bool = True

    def __post_init__(self) -> None:
        sizes = ("gene_features", "attention_features", "heads", "width", "time_frequencies")
        require_integers(1, **{name: getattr(self, name) for name in sizes})
        require_integers(0, condition_features=self.condition_features)
        require_numbers(
            largest_frequency=self.largest_frequency, dropout=self.dropout, read_out_scale=self.read_out_scale
        )
        require_switches(**{f.name: getattr(self, f.name) for f in fields(self) if isinstance(f.default, bool)})
        if self.read_out_scale <= 0:
            raise ValueError(f"`read_out_scale` is {self.read_out_scale}; give a number above 0.")
        if self.mixing_gate and not self.state_gate:
            raise ValueError("`mixing_gate=True` needs the gate. Set `state_gate=True`, or `mixing_gate=False`.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"`dropout` is {self.dropout}; give a number from 0 to below 1.")
        object.__setattr__(self, "attention", layer_path(self.attention))
