"""Training losses and validation scores."""

from __future__ import annotations

from typing import Any

from unlasting.pl._figure import NORMAL, PALETTE, SMALL, Canvas, dress, legend_beside, on_canvas

NETWORKS = {"denoiser": "Denoiser", "mask": "Mask network"}
AXES = {"epoch": "Epoch"}
"""Label of the axis for histories that count something else than steps."""


@on_canvas
def history(canvas: Canvas, model: Any, **kwargs: Any) -> Any:
    """Show training losses and validation scores for both networks by step, with the best score marked.

    The weights at the best validation score were kept.

    Parameters
    ----------
    model
        A trained model; names in its `history` begin with `denoiser_` or `mask_`.
    %(figure)s
    **kwargs
        Passed on to `Axes.plot`.

    %(returns)s

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
    axes = canvas.panels(1, len(found), figsize=(3.6 * len(found) + 1.2, 2.9))
    for panel, (prefix, names) in zip(axes[0], found.items(), strict=True):
        # noisy curves per step lie behind the others
        for name in sorted(names, key=lambda name: not name.endswith("_step")):
            curve = curves[name].iloc[:, 0].astype(float).dropna()
            noisy = name.endswith("_step")
            color = PALETTE[1] if "validation" in name else "#B3B3B3" if noisy else PALETTE[0]
            style = {"color": color, "linewidth": 0.6 if noisy else 1.5, "marker": "o" if len(curve) < 30 else None}
            label = name.removeprefix(f"{prefix}_").removesuffix("_epoch").replace("_", " ")
            panel.plot(curve.index, curve, **{**style, "markersize": 3, "label": label, **kwargs})
            if "validation" in name and len(curve):
                best = curve.idxmin()
                label = f"best: {curve[best]:.3g} at {best:,}"
                panel.plot([best], [curve[best]], color=color, marker="*", markersize=11, linestyle="none")
                panel.annotate(
                    label, (best, curve[best]), (0, -12), textcoords="offset points", ha="right", fontsize=SMALL
                )
                panel.margins(y=0.15)
        dress(panel, title=NETWORKS[prefix], xlabel=AXES.get(str(curves[names[0]].index.name), "Training step"))
        panel.locator_params(nbins=5)
        panel.locator_params(axis="x", integer=True)  # there is no half step
    axes[0, 0].set_ylabel("Loss (lower is better)", fontsize=NORMAL)
    legend_beside(axes[0, -1])
    return axes[0]
