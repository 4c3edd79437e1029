"""Sizes and switches of the networks."""

from __future__ import annotations

from dataclasses import dataclass, fields

from unlasting.nn._attention import layer_path
from unlasting.screen import require_integers, require_numbers, require_switches


@dataclass(frozen=True)
class Architecture:
    """Sizes and switches of a network; denoiser and mask network have one each.

    Parameters
    ----------
    gene_features
        Width of the gene embeddings.
    attention_features
        Width of the layers in the GRN block.
    heads
        Attention heads, averaged.
    attention
        Layer of the GRN block: `gat`, the fused graph attention, or a message-passing layer of torch-geometric,
        given as a class such as `torch_geometric.nn.GATv2Conv` or its import path. It is stored as the path.
    width
        Width of the MLPs.
    time_frequencies
        Width of the sinusoidal time embedding.
    largest_frequency
        Largest angular frequency of that embedding, for times in [0, 1].
    condition_features
        Width of the perturbation's embedding. 0: the perturbation acts through the knocked-out node alone, as
        published.
    dropout
        Share of MLP features dropped in training.
    use_grn
        Whether there is a GRN block.
    use_control_moments
        Whether the networks see a control signal.
    knock_out
        Whether the targets' nodes are zeroed, as for a knock-out but not for activation or knock-down.
    mask_as_input
        Whether the denoiser sees which genes are silent, instead of noise in their place.
    cell_type_index
        Whether cell types are learnt by index. If not, the control signal describes the cell type, and untrained
        cell types can be predicted.
    control_residual
        Whether the control signal is added to the denoiser's output.
    detected_genes_slope
        Whether the mask network's log-odds depend on the cell's number of detected genes.

    Raises
    ------
    ValueError
        If a size is no integer of at least 1, another number is out of range, or `attention` is unknown.
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
    use_grn: bool = True
    use_control_moments: bool = True
    knock_out: bool = True
    mask_as_input: bool = True
    cell_type_index: bool = False
    control_residual: bool = False
    detected_genes_slope: bool = True

    def __post_init__(self) -> None:
        sizes = ("gene_features", "attention_features", "heads", "width", "time_frequencies")
        require_integers(1, **{name: getattr(self, name) for name in sizes})
        require_integers(0, condition_features=self.condition_features)
        require_numbers(largest_frequency=self.largest_frequency, dropout=self.dropout)
        require_switches(**{f.name: getattr(self, f.name) for f in fields(self) if isinstance(f.default, bool)})
        if not 0 <= self.dropout < 1:
            raise ValueError(f"`dropout` is {self.dropout}; give a number from 0 to below 1.")
        object.__setattr__(self, "attention", layer_path(self.attention))
