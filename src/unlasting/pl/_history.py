"""Training losses and validation scores."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING, Any

from unlasting.pl._figure import NORMAL, PALETTE, dress, finish, legend_beside, panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NETWORKS = {"denoiser": "Denoiser", "mask": "Mask network"}


def history(
    model: Any,
    *,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    show: bool | None = None,
    save: str | PathLike[str] | None = None,
    return_fig: bool = False,
    **kwargs: Any,
) -> Any:
    """Show training losses and validation scores for both networks.

    Parameters
    ----------
    model
        A trained model; names in its `history` begin with `denoiser_` or `mask_`.
    ax, figsize, show, save, return_fig
        As for all figures (:mod:`unlasting.pl`).
    **kwargs
        Passed on to `Axes.plot`.

    Returns
    -------
    Array of Axes, one per network, the Figure with `return_fig`, or `None` after showing.

    Raises
    ------
    ValueError
        If the model has no history.
    """
    curves = getattr(model, "history", None) or {}
    found = {prefix: sorted(name for name in curves if name.startswith(f"{prefix}_")) for prefix in NETWORKS}
    found = {prefix: names for prefix, names in found.items() if names}
    if not found:
        raise ValueError("The model has no history: run `model.train()` first.")
    figure, axes = panels(ax, 1, len(found), figsize=figsize or (3.6 * len(found) + 1.2, 2.9))
    for panel, (prefix, names) in zip(axes[0], found.items(), strict=True):
        # noisy curves per step lie behind the others
        for name in sorted(names, key=lambda name: not name.endswith("_step")):
            curve = curves[name].iloc[:, 0].astype(float).dropna()
            noisy = name.endswith("_step")
            color = PALETTE[1] if "validation" in name else "#B3B3B3" if noisy else PALETTE[0]
            style = {"color": color, "linewidth": 0.6 if noisy else 1.5, "marker": "o" if len(curve) < 30 else None}
            label = name.removeprefix(f"{prefix}_").removesuffix("_epoch").replace("_", " ")
            panel.plot(curve.index, curve, **{**style, "markersize": 3, "label": label, **kwargs})
        dress(panel, title=NETWORKS[prefix], xlabel=str(curves[names[0]].index.name or "step"))
        panel.locator_params(nbins=5)
        panel.locator_params(axis="x", integer=True)  # there is no half epoch
    axes[0, 0].set_ylabel("Loss (lower is better)", fontsize=NORMAL)
    legend_beside(axes[0, -1])
    return finish(figure, axes[0], ax=ax, show=show, save=save, return_fig=return_fig)
