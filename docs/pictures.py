"""Draw the pictures of the pages `guide/pictures` and `guide/method`, for light and for dark pages.

The networks are replaced by what is known exactly: the best denoiser of a mixture of Gaussians, and given rates. The
last picture shows what `benchmarks/quality/closed_form.py` computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, Rectangle
from scipy import stats

from unlasting.diffusion import CosineSchedule, NoiseCoordinates, bridge_mask, integrate, mask_latent

FOLDER = Path(__file__).parent / "_static" / "pictures"
RESULTS = Path(__file__).parents[1] / "benchmarks" / "quality" / "results"
INK = {"light": "#303030", "dark": "#e0e0e0"}
PAGE = {"light": "#ffffff", "dark": "#121212"}
QUIET = "#8c8c8c"
CONTROL, LATENT, PERTURBED = "#0072b2", "#8c8c8c", "#d55e00"
N_STEPS = 60

Mixture = list[tuple[float, float, float]]
"""Weight, mean and s.d. of each mode of a gene."""
CONTROLS: Mixture = [(1.0, 1.5, 0.4)]
RESPONSE: Mixture = [(0.7, -1.3, 0.4), (0.3, 1.5, 0.4)]


def noised(mixture: Mixture, alpha: float, sigma: float) -> list[tuple[float, float, float]]:
    """Get the modes after noising."""
    return [(weight, alpha * mean, float(np.hypot(alpha * spread, sigma))) for weight, mean, spread in mixture]


def density(mixture: Mixture, values: np.ndarray) -> np.ndarray:
    return sum(weight * stats.norm.pdf(values, mean, spread) for weight, mean, spread in mixture)


def alpha_sigma(schedule: CosineSchedule, t: torch.Tensor) -> tuple[float, float]:
    log_snr = schedule.log_snr(t)
    return float(torch.sigmoid(log_snr).sqrt()), float(torch.sigmoid(-log_snr).sqrt())


def best_denoiser(mixture: Mixture, schedule: CosineSchedule) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Get E[x_0 | x_t] of a mixture of Gaussians, as a function of the state in noise coordinates."""

    def prediction(state: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        alpha, sigma = alpha_sigma(schedule, t)
        x_t = state.numpy() * sigma
        modes = noised(mixture, alpha, sigma)
        share = np.array([weight * stats.norm.pdf(x_t, mean, spread) for weight, mean, spread in modes])
        within = [
            mean + alpha * spread**2 / wide**2 * (x_t - middle)
            for (_, mean, spread), (_, middle, wide) in zip(mixture, modes, strict=True)
        ]
        return torch.as_tensor((share * within).sum(0) / share.sum(0))

    return prediction


def follow(cells: np.ndarray, mixture: Mixture, schedule: CosineSchedule, times: torch.Tensor) -> np.ndarray:
    """Follow cells along the flow of a mixture, from the first of the times; shape `(n_times, n_cells)`."""
    coordinates, prediction = NoiseCoordinates(), best_denoiser(mixture, schedule)

    def clock(t: torch.Tensor) -> torch.Tensor:
        return coordinates.clock(schedule.log_snr(t))

    path = [cells]
    for pair in zip(times[:-1], times[1:], strict=True):
        before, after = (alpha_sigma(schedule, t)[1] for t in pair)
        state = integrate(prediction, torch.as_tensor(path[-1] / before), torch.stack(pair), clock)
        path.append(state.numpy() * after)
    return np.array(path)


def draw_bridge(ink: str, page: str) -> Figure:
    """Cells on their way over the bridge, with the density of all cells behind them."""
    schedule = CosineSchedule(scale=1.0)
    times = schedule.times(N_STEPS).double()
    cells = stats.norm.ppf((np.arange(12) + 0.5) / 12, *CONTROLS[0][1:])
    there = follow(cells, CONTROLS, schedule, times)
    back = follow(there[-1], RESPONSE, schedule, times.flip(0))

    figure, axes = plt.subplots(figsize=(6.8, 3.7), layout="constrained")
    height = np.linspace(-3.2, 3.2, 161)
    for mixture, side, color in ((CONTROLS, -1, CONTROL), (RESPONSE, 1, PERTURBED)):
        place = side * (1 - times.numpy())
        behind = np.array([density(noised(mixture, *alpha_sigma(schedule, t)), height) for t in times])
        shades = LinearSegmentedColormap.from_list("shades", [page, color])
        axes.pcolormesh(place, height, behind.T, cmap=shades, vmin=0, vmax=1.7, shading="gouraud", rasterized=True)
        outline = density(mixture, height)
        axes.fill_betweenx(height, side, side * (1 + 0.32 * outline), color=color, alpha=0.75, linewidth=0)
    near = height[np.abs(height) < 2.9]
    for side in (-0.35, 0.35):
        axes.plot(side * stats.norm.pdf(near), near, color=LATENT, linewidth=1.2)
    way = np.concatenate([times.numpy() - 1, 1 - times.flip(0).numpy()])
    for i, path in enumerate(np.concatenate([there, back]).T):
        axes.plot(way, path, color=ink, linewidth=2.0 if i in (2, 8) else 0.7, alpha=1.0 if i in (2, 8) else 0.55)
        axes.plot([-1, 1], path[[0, -1]], "o", color=ink, markersize=5 if i in (2, 8) else 2.5)

    for x, text in ((-1.16, "control\ncells"), (0, "latent: one Gaussian\nfor both"), (1.16, "perturbed\ncells")):
        axes.text(x, -3.1, text, ha="center", va="top", color=ink)
    for start, end, text in ((-0.9, -0.15, "encode: no perturbation"), (0.15, 0.9, "decode: the perturbation")):
        axes.add_patch(FancyArrowPatch((start, 3.3), (end, 3.3), arrowstyle="->", mutation_scale=12, color=ink))
        axes.text((start + end) / 2, 3.5, text, ha="center", va="bottom", color=ink)
    axes.set(xlim=(-1.36, 1.36), ylim=(-3.9, 4.0), xticks=[], yticks=[])
    axes.set_ylabel("expression of a gene", color=ink)
    axes.spines[:].set_visible(False)
    return figure


PLACES = {
    "target": (0.0, 0.0),
    "A": (1.0, 0.75),
    "B": (1.05, -0.6),
    "C": (2.0, 1.15),
    "D": (2.1, 0.2),
    "E": (2.0, -1.0),
    "F": (3.0, 0.75),
    "G": (3.05, -0.45),
    "H": (0.2, 1.35),
    "I": (0.3, -1.3),
}
EDGES = ["target A", "target B", "A C", "A D", "B D", "B E", "C F", "D F", "D G", "E G", "H C", "I E"]
UNMEASURED = "B"


def spread(n_layers: int) -> dict[str, float]:
    """Get what reaches each node after layers that average over neighbours and the node itself."""
    names = list(PLACES)
    joined = np.eye(len(names))
    for edge in EDGES:
        i, j = (names.index(name) for name in edge.split())
        joined[i, j] = joined[j, i] = 1
    signal = np.linalg.matrix_power(joined / joined.sum(1, keepdims=True), n_layers)[:, names.index("target")]
    return dict(zip(names, signal / signal.max(), strict=True))


def draw_nodes(axes: Axes, signal: dict[str, float], ink: str, page: str) -> None:
    """Draw the graph; the fuller a node, the more has reached it."""
    shades = LinearSegmentedColormap.from_list("shades", [page, PERTURBED])
    for edge in EDGES:
        axes.plot(*zip(*(PLACES[name] for name in edge.split()), strict=True), color=QUIET, linewidth=1.0, zorder=1)
    for name, (x, y) in PLACES.items():
        style = {"facecolor": shades(signal[name] ** 0.6), "edgecolor": ink, "linewidth": 1.2, "zorder": 2}
        if name == UNMEASURED:
            axes.add_patch(Rectangle((x - 0.19, y - 0.19), 0.38, 0.38, **style))
        else:
            axes.add_patch(Circle((x, y), 0.22, **{**style, "linestyle": "--" if name == "target" else "-"}))
    axes.set(xlim=(-0.45, 3.4), ylim=(-1.75, 1.75), xticks=[], yticks=[], aspect="equal")
    axes.spines[:].set_visible(False)


def draw_graph(ink: str, page: str) -> Figure:
    """How far a knock-out is felt before and after each layer of attention."""
    figure, axes = plt.subplots(1, 3, figsize=(6.8, 2.4), layout="constrained")
    titles = ("the target is perturbed", "after the first layer", "after the second layer")
    for n_layers, (panel, title) in enumerate(zip(axes, titles, strict=True)):
        draw_nodes(panel, spread(n_layers), ink, page)
        panel.set_title(title, color=ink, fontsize=10)
    axes[0].text(0, 0.3, "target", ha="center", va="bottom", color=ink, fontsize=9)
    x, y = PLACES[UNMEASURED]
    axes[0].text(x - 0.26, y - 0.1, "not measured", ha="right", va="top", color=ink, fontsize=9)
    return figure


CONTROL_RATES = np.array([0.85, 0.7, 0.6, 0.5, 0.45, 0.4, 0.3, 0.25, 0.1, 0.03])
PERTURBED_RATES = np.array([0.85, 0.2, 0.6, 0.15, 0.9, 0.4, 0.3, 0.75, 0.1, 0.7])
UNIFORM = np.array([0.45, 0.6, 0.3, 0.1, 0.35, 0.75, 0.5, 0.2, 0.6, 0.5])
SOURCE = np.array([True, True, False, True, False, True, False, False, False, False])


def draw_mask(ink: str, page: str) -> Figure:
    """The latent of ten genes of a cell between the rates of control and perturbation, and the two masks."""
    rates = torch.as_tensor(CONTROL_RATES)
    latent = mask_latent(torch.as_tensor(SOURCE), rates, torch.as_tensor(UNIFORM))
    generated = bridge_mask(latent, torch.as_tensor(PERTURBED_RATES)).numpy()

    figure, (top, below) = plt.subplots(
        2, 1, figsize=(6.8, 4.2), layout="constrained", height_ratios=(3, 1), sharex=True
    )
    x = np.arange(len(SOURCE))
    bars = top.bar(x, CONTROL_RATES, 0.72, color=CONTROL, alpha=0.35)
    lines = top.hlines(PERTURBED_RATES, x - 0.42, x + 0.42, color=PERTURBED, linewidth=2.5)
    (points,) = top.plot(x, latent.numpy(), "o", color=ink, markersize=7)
    top.set_ylim(0, 1)
    top.set_ylabel("gene expressed in", color=ink)
    top.tick_params(colors=ink, bottom=False, labelbottom=False)
    top.spines[["top", "right"]].set_visible(False)
    top.spines[["left", "bottom"]].set_color(ink)
    top.legend(
        [bars, lines, points],
        ["share of control cells", "share of perturbed cells", "latent of the cell"],
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=3,
        frameon=False,
        labelcolor=ink,
    )
    for row, (mask, color) in enumerate(((SOURCE, CONTROL), (generated, PERTURBED))):
        for place, on in zip(x, mask, strict=True):
            below.add_patch(
                Rectangle((place - 0.36, 0.1 - row), 0.72, 0.8, facecolor=color if on else "none", edgecolor=color)
            )
    below.set(xlim=(-0.6, len(x) - 0.4), ylim=(-1.0, 1.0))
    below.set_yticks([0.5, -0.5], ["control cell", "generated cell"], color=ink)
    below.set_xticks(x, ["" if same else "changes" for same in SOURCE == generated], color=ink)
    below.tick_params(length=0)
    below.spines[:].set_visible(False)
    return figure


def draw_closed_form(ink: str, page: str) -> Figure:
    """Scores of the published recipe with ideal networks, after each change; a dot for each seed."""
    scores = pd.read_csv(RESULTS / "closed_form.csv")
    scores = scores[(scores["gene_set"] == "all") & (scores["predictor"] != "no effect")]
    names = list(scores["predictor"].unique())
    order = scores.groupby("predictor")["score"].mean().loc[names].sort_values(ascending=False).index
    figure, axes = plt.subplots(1, 2, figsize=(6.8, 2.4), layout="constrained", sharey=True)
    for panel, (metric, title) in zip(axes, (("e_distance", "E-distance"), ("emd", "EMD")), strict=True):
        found = scores[scores["metric"] == metric].groupby("predictor")["score"]
        place = np.arange(len(order))
        panel.barh(place, found.mean().loc[order], 0.65, color=PERTURBED, alpha=0.6)
        for y, name in zip(place, order, strict=True):
            panel.plot(found.get_group(name), [y] * len(found.get_group(name)), "o", color=ink, markersize=3)
        panel.axvline(1.0, color=QUIET, linewidth=1.0)
        panel.set_title(title, color=ink, fontsize=10)
        panel.set_xscale("symlog", linthresh=0.2)
        panel.set_xticks([0, 0.1, 1, 5], ["0", "0.1", "1\nno effect", "5"])
        panel.set_yticks(place, order)
        panel.tick_params(colors=ink, length=0)
        panel.spines[["top", "right", "left"]].set_visible(False)
        panel.spines["bottom"].set_color(ink)
    axes[0].invert_yaxis()
    return figure


@contextmanager
def style() -> Iterator[None]:
    """Draw what looks the same, byte by byte, whenever it is drawn."""
    with plt.rc_context({"svg.hashsalt": "unlasting", "font.size": 10, "savefig.dpi": 100}):
        yield


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    pictures = {"bridge": draw_bridge, "graph": draw_graph, "mask": draw_mask, "closed_form": draw_closed_form}
    for name, draw in pictures.items():
        for theme in INK:
            with style():
                figure = draw(INK[theme], PAGE[theme])
                figure.savefig(FOLDER / f"{name}_{theme}.svg", transparent=True, metadata={"Date": None})
                plt.close(figure)


if __name__ == "__main__":
    main()
