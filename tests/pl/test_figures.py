"""What every figure keeps to, and what each one shows."""

from __future__ import annotations

import inspect
from types import SimpleNamespace

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import same_color
from matplotlib.quiver import Quiver
from matplotlib.text import Text

from unlasting import pl
from unlasting.baselines import BASELINES

GROUP_COLORS = {"control": "#8C8C8C", "observed": "#0072B2", "generated": "#D55E00"}
MODEL = SimpleNamespace(
    history={
        f"{network}_{curve}": pd.DataFrame({curve: np.linspace(2, 1, 8)}, index=pd.RangeIndex(8, name="epoch"))
        for network in ("denoiser", "mask")
        for curve in ("train_loss", "validation_score")
    }
)
CALLS = {
    "bimodal_genes": ("A",),
    "scores": (),
    "calibration": (),
    "design": (),
    "heatmap": (),
    "embedding": (),
    "rank": (),
    "dose_response": ("A",),
    "grn": ("gene0",),
    "history": (),
}


def draw(name, screen, **kwargs):
    return getattr(pl, name)(MODEL if name == "history" else screen, *CALLS[name], **kwargs)


def test_every_figure_is_covered():
    assert set(CALLS) == set(pl.__all__)


def test_one_signature():
    for name in pl.__all__:
        parameters = inspect.signature(getattr(pl, name)).parameters
        assert list(parameters)[-6:] == ["ax", "figsize", "show", "save", "return_fig", "kwargs"], name
        defaults = [parameters[p].default for p in ("ax", "figsize", "show", "save", "return_fig")]
        assert defaults == [None, None, None, None, False], name


@pytest.mark.slow
def test_returns_axes_or_figure_and_leaves_settings_alone(screen, monkeypatch, tmp_path):
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(1))
    before = dict(matplotlib.rcParams)
    for name in pl.__all__:
        shown.clear()
        axes = draw(name, screen, show=False)
        assert all(isinstance(a, plt.Axes) for a in np.ravel(axes)), name
        assert list(draw(name, screen, figsize=(5, 4), return_fig=True).get_size_inches()) == [5, 4], name
        assert not shown
        assert draw(name, screen, show=True) is None
        assert shown == [1]
        draw(name, screen, show=False, save=tmp_path / "figure.pdf")
        assert (tmp_path / "figure.pdf").read_bytes().startswith(b"%PDF")
        assert dict(matplotlib.rcParams) == before
        plt.close("all")


@pytest.mark.slow
def test_shows_by_default_only_when_interactive_and_without_ax(screen, monkeypatch):
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(1))
    for name in pl.__all__:
        draw(name, screen)
        assert not shown, name
        monkeypatch.setattr(matplotlib, "is_interactive", lambda: True)
        draw(name, screen)
        assert shown == [1], name
        draw(name, screen, ax=plt.subplots()[1])
        assert shown == [1], name
        monkeypatch.setattr(matplotlib, "is_interactive", lambda: False)
        shown.clear()
        plt.close("all")


def test_draws_into_given_axes(screen):
    for name in pl.__all__:
        figure, grid = plt.subplots(1, 2)
        axes = draw(name, screen, ax=grid[0], show=False)
        assert all(a.figure is figure for a in np.ravel(axes)), name
        assert grid[1] in figure.axes
        assert not grid[1].has_data()
        assert len(plt.get_fignums()) == 1
        plt.close("all")


@pytest.mark.slow
def test_text_is_readable_and_within_the_figure(screen):
    for name in pl.__all__:
        figure = draw(name, screen, return_fig=True)
        figure.draw_without_rendering()
        width, height = figure.get_size_inches() * figure.dpi
        assert width <= 9.2 * figure.dpi, name
        for text in figure.findobj(Text):
            if text.get_visible() and text.get_text().strip():
                assert text.get_fontsize() >= 8, text.get_text()
        for axes in figure.axes:
            box = axes.get_tightbbox()
            assert box is None or (box.x0 > -1 and box.y0 > -1 and box.x1 < width + 1 and box.y1 < height + 1), name
        plt.close("all")


STORED = sorted(set(pl.__all__) - {"history"})


def test_a_missing_result_names_its_function(screen):
    del screen.uns["unlasting"]
    writer = {"scores": "evaluate", "calibration": "evaluate", "heatmap": "evaluate", "bimodal_genes": "bimodality"}
    for name in STORED:
        package = "pp" if name == "grn" else "tl"
        with pytest.raises(KeyError, match=f"ul.{package}.{writer.get(name, name)}"):
            draw(name, screen)


@pytest.mark.slow
def test_changes_nothing(screen):
    before = {key: value.copy() for key, value in screen.uns["unlasting"].items()}
    for name in STORED:
        draw(name, screen, show=False)
    assert set(screen.uns["unlasting"]) == set(before)
    for key, value in before.items():
        if isinstance(value, pd.DataFrame):
            pd.testing.assert_frame_equal(screen.uns["unlasting"][key], value)


def test_bimodal_genes_has_densities_of_three_groups_and_labelled_zeros(screen):
    axes = pl.bimodal_genes(screen, "A", ["gene1", "gene0"], show=False).ravel()
    assert [a.get_title() for a in axes] == ["gene1", "gene0"]
    frame = screen.uns["unlasting"]["bimodality"]
    row = frame[(frame["condition"] == "A") & (frame["gene"] == "gene1")].iloc[0]
    assert [text.get_text() for text in axes[0].texts] == [
        f"{100 * row[f'zero_fraction_{group}']:.0f}" for group in GROUP_COLORS
    ]
    for line, color in zip(axes[0].lines, GROUP_COLORS.values(), strict=True):
        assert same_color(line.get_color(), color)
        assert np.trapezoid(line.get_ydata(), line.get_xdata()) == pytest.approx(1, abs=0.05)
    figure = axes[0].figure
    assert "log-normalised to 10,000 counts" in figure.get_supxlabel()
    assert [t.get_text() for t in figure.legends[0].get_texts()] == [
        f"{name} (60 cells)" for name in ("observed control", "observed perturbed", "generated")
    ]


def test_bimodal_genes_takes_the_top_genes(screen):
    axes = pl.bimodal_genes(screen, "A", n_genes=3, show=False).ravel()
    assert {a.get_title() for a in axes} == {"gene0", "gene1", "gene2"}


def test_bimodal_genes_asks_for_the_cell_type(screen):
    for key in ("bimodality", "bimodality_density"):
        frame = screen.uns["unlasting"][key].astype({"cell_type": str, "condition": str})
        screen.uns["unlasting"][key] = pd.concat([frame.assign(cell_type=name) for name in ("T", "B")])
    with pytest.raises(ValueError, match=r"cell_type.*'B', 'T'"):
        pl.bimodal_genes(screen, "A", show=False)
    assert len(pl.bimodal_genes(screen, "A", cell_type="T", n_genes=2, show=False).ravel()) == 2
    with pytest.raises(ValueError, match="`perturbation` names 'Z'"):
        pl.bimodal_genes(screen, "Z")


def test_scores_show_predictors_with_intervals_and_conditions_with_a_signal(screen):
    upper, lower = pl.scores(screen, show=False)
    assert [t.get_text() for t in upper.get_yticklabels()] == ["unlasting", "no effect", "pooled"]
    assert [t.get_text() for t in lower.get_yticklabels()] == ["B", "A"]
    for panel in (upper, lower):
        verticals = [
            line.get_xdata()[0] for line in panel.lines if len(set(line.get_xdata())) == 1 < len(line.get_xdata())
        ]
        assert {0, 1} <= set(verticals)
    lines = [(list(line.get_xdata()), list(line.get_ydata())) for line in upper.lines]
    assert ([pytest.approx(0.18), pytest.approx(0.22)], [0, 0]) in lines
    dots = next(line for line in upper.lines if line.get_alpha())
    np.testing.assert_allclose(sorted(dots.get_xdata()), [0.2, 0.3])
    legend = [t.get_text() for t in lower.get_legend().get_texts()]
    assert legend == ["unlasting", "best baseline:\npooled"]
    assert lower.get_xlabel().endswith("beyond the axis; 1 condition without a signal left out")
    points = next(line for line in lower.lines if line.get_label() == "unlasting")
    np.testing.assert_allclose(points.get_xdata(), [0.3, 0.2])


def test_scores_keep_predictors_apart_however_many(screen):
    """A colour for the evaluated predictor alone, and each baseline with its name on the axis."""
    stored = screen.uns["unlasting"]
    names = [name for name in BASELINES if name not in ("no effect", "pooled", "training cells")][:12]
    for table in ("scores", "score_summary"):
        pooled = stored[table][stored[table]["predictor"] == "pooled"]
        added = [pooled.assign(predictor=name, **{c: pooled[c] - (i + 1) / 8 for c in ("normalised", "score", "low", "high") if c in pooled})
                 for i, name in enumerate(names)]  # fmt: skip
        stored[table] = pd.concat([stored[table], *added], ignore_index=True)
    upper, lower = pl.scores(screen, show=False)
    shown = [t.get_text() for t in upper.get_yticklabels()]
    assert shown == ["unlasting", "no effect", *names[::-1], "pooled"]
    colours = {line.get_color() for line in upper.lines if line.get_marker() == "D"}
    assert len(colours) == 1
    others = {line.get_color() for line in upper.lines if line.get_marker() in "os"}
    assert not colours & others - {dot.get_color() for dot in upper.lines if dot.get_alpha()}
    legend = [t.get_text() for t in lower.get_legend().get_texts()]
    assert legend == ["unlasting", f"best baseline:\n{names[-1]}", "other baselines"]
    _, lower = pl.scores(screen, predictors=["unlasting", "pooled"], show=False)
    assert [t.get_text() for t in lower.get_legend().get_texts()][1] == "best of these baselines:\npooled"


def test_scores_says_which_conditions_have_a_signal_but_no_row(screen):
    """Where no effect is as close to the true cells as these to themselves, a score of its own means nothing."""
    frame = screen.uns["unlasting"]["scores"]
    frame.loc[frame["condition"] == "B", "normalised"] = np.nan
    _, lower = pl.scores(screen, show=False)
    assert [t.get_text() for t in lower.get_yticklabels()] == ["A"]
    assert lower.get_xlabel().endswith(
        "1 condition without a signal left out; 1 at the noise floor, in the upper panel only"
    )


def test_scores_cuts_long_intervals_off(screen):
    """The interval of a hopeless predictor would press all points together."""
    summary = screen.uns["unlasting"]["score_summary"]
    scores = screen.uns["unlasting"]["scores"]
    scores["normalised"] = scores["normalised"].clip(upper=1.0)
    summary["score"] = summary["score"].clip(upper=1.0)
    summary["high"] = 30.0
    assert pl.scores(screen, show=False)[0].get_xlim()[1] < 3


def test_scores_names_what_is_not_there(screen):
    with pytest.raises(ValueError, match="Did you mean 'e_distance'"):
        pl.scores(screen, "edistance")
    screen.uns["unlasting"]["scores"]["normalised"] = np.nan
    with pytest.raises(ValueError, match="No condition has a signal"):
        pl.scores(screen)


def test_calibration_has_every_gene_the_diagonal_and_labels(screen):
    axes = pl.calibration(screen, "A", show=False)
    panel = axes[0, 0]
    effects = screen.uns["unlasting"]["effects"]
    own = effects[effects["condition"] == "A"]
    assert panel.get_title() == "A"
    screen.uns["unlasting"]["effects"] = effects.assign(pearson=0.5, slope=1.25)
    assert pl.calibration(screen, "A", show=False)[0, 0].get_title() == "A\nr 0.50, slope 1.25"
    assert sum(len(c.get_offsets()) for c in panel.collections) == 25
    assert any(line.get_slope() == 1 for line in panel.lines if hasattr(line, "get_slope"))
    largest = own.sort_values("observed", key=abs)["gene"].iloc[-1]
    names = [text.get_text() for text in panel.texts]
    assert largest in names
    boxes = [text.get_window_extent() for text in panel.texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert "10,000" in panel.get_xlabel()


def test_calibration_takes_the_strongest_conditions(screen):
    axes = pl.calibration(screen, n_conditions=2, show=False)
    assert [a.get_title() for a in axes.ravel()] == ["A", "B"]
    with pytest.raises(ValueError, match="`conditions` names 'Z'"):
        pl.calibration(screen, ["A", "Z"])


def test_calibration_draws_stored_intervals(screen):
    effects = screen.uns["unlasting"]["effects"]
    bounds = {"low": effects["predicted"] - 0.1, "high": effects["predicted"] + 0.2}
    screen.uns["unlasting"]["calibration"] = effects.assign(**bounds, expected_error=0.4, p_active=0.9)
    panel = pl.calibration(screen, "A", key="calibration", show=False)[0, 0]
    assert panel.get_title() == "A\nexpected error 0.40, P(active) 0.90"
    lines = next(c for c in panel.collections if hasattr(c, "get_segments"))
    top = effects[(effects["condition"] == "A") & effects["is_de20"].astype(bool)]
    segments = np.array(lines.get_segments())
    np.testing.assert_allclose(segments[:, 0, 1], top["predicted"] - 0.1)
    np.testing.assert_allclose(segments[:, 1, 1], top["predicted"] + 0.2)


def test_heatmap_shows_observed_and_predicted_on_one_scale(screen):
    observed, predicted, difference = pl.heatmap(screen, ["B", "A"], ["gene3", "gene1"], show=False)
    assert (observed.get_title(), predicted.get_title()) == ("observed", "predicted")
    first, second, third = (np.asarray(p.collections[0].get_array()) for p in (observed, predicted, difference))
    np.testing.assert_allclose(third, second - first)
    assert [t.get_text() for t in observed.get_xticklabels()] == ["B", "A"]
    assert [t.get_text() for t in observed.get_yticklabels()] == ["gene3", "gene1"]
    effects = screen.uns["unlasting"]["effects"].set_index(["gene", "condition"])
    for panel, column in ((observed, "observed"), (predicted, "predicted")):
        mesh = panel.collections[0]
        expected = [[effects.loc[(g, c), column] for c in ("B", "A")] for g in ("gene3", "gene1")]
        np.testing.assert_allclose(np.asarray(mesh.get_array()).reshape(2, 2), expected)
        assert mesh.get_clim() == observed.collections[0].get_clim()
        assert mesh.get_clim()[0] == -mesh.get_clim()[1]


def test_embedding_has_three_groups_and_arrows_from_source_to_generated(screen):
    panel = pl.embedding(screen, "A", n_arrows=1000, show=False)[0, 0]
    assert [len(c.get_offsets()) for c in panel.collections if not isinstance(c, Quiver)] == [60, 60, 60]
    frame = screen.uns["unlasting"]["embedding"]
    generated = frame[(frame["group"] == "generated") & (frame["condition"] == "A")]
    arrows, mean = (c for c in panel.collections if isinstance(c, Quiver))
    np.testing.assert_allclose(arrows.X + arrows.U, generated["x"])
    np.testing.assert_allclose(arrows.Y, generated["source_y"])
    np.testing.assert_allclose(mean.X + mean.U, generated["x"].mean())
    np.testing.assert_allclose(mean.Y + mean.V, generated["y"].mean())
    assert mean.width > arrows.width
    assert "of variance" in panel.get_xlabel()


def test_embedding_without_sources_or_arrows_has_none(screen):
    panel = pl.embedding(screen, "A", n_arrows=0, show=False)[0, 0]
    assert not any(isinstance(c, Quiver) for c in panel.collections)
    screen.uns["unlasting"]["embedding"][["source_x", "source_y"]] = np.nan
    panel = pl.embedding(screen, "A", show=False)[0, 0]
    assert not any(isinstance(c, Quiver) for c in panel.collections)
    assert [t.get_text() for t in panel.get_legend().get_texts()] == ["control", "observed", "generated"]


def test_embedding_shows_the_first_conditions(screen):
    axes = pl.embedding(screen, n_conditions=2, show=False).ravel()
    assert [a.get_title() for a in axes] == list(screen.uns["unlasting"]["embedding"]["condition"].unique()[1:3])


def test_rank_shows_the_top_with_open_points_for_unseen_conditions(screen):
    frame = screen.uns["unlasting"]["rank"]
    frame["seen"] = [True, False, True]
    axes = pl.rank(screen, n=2, show=False)
    assert [t.get_text() for t in axes.get_yticklabels()] == list(frame["condition"][:2])
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["seen in training", "not seen"]
    unseen = next(c for c in axes.collections if c.get_label() == "not seen")
    assert same_color(unseen.get_facecolor()[0], "white")
    np.testing.assert_allclose(unseen.get_offsets()[0], [frame["score"][1], 1])
    assert "E-distance" in axes.get_xlabel()


def test_design_shows_gains_in_the_order_of_choice(screen):
    axes = pl.design(screen, n=2, show=False)
    assert [t.get_text() for t in axes.get_yticklabels()] == ["B", "A"]
    np.testing.assert_allclose([bar.get_width() for bar in axes.patches], [0.5, 0.2])
    np.testing.assert_allclose(axes.lines[0].get_xdata(), [0.5, 0.3])


def test_dose_response_has_a_line_per_group_and_the_control_level(screen):
    axes = pl.dose_response(screen, "A", "gene0", show=False)[0, 0]
    assert axes.get_xscale() == "log"
    assert "µM" in axes.get_xlabel()
    curves = {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}
    assert list(curves) == ["control", "observed", "generated"]
    np.testing.assert_allclose(curves["observed"].get_xdata(), [0.1, 1.0])


def test_dose_response_opens_the_points_at_untrained_doses(screen):
    frame = screen.uns["unlasting"]["dose_response"]
    assert frame["trained"].all()  # the screen has no split
    axes = pl.dose_response(screen, "A", "gene0", show=False)[0, 0]
    assert "dose not trained" not in [t.get_text() for t in axes.get_legend().get_texts()]
    frame["trained"] = frame["dose"] != 0.1
    axes = pl.dose_response(screen, "A", "gene0", show=False)[0, 0]
    hidden = [line for line in axes.lines if line.get_markerfacecolor() == "white"]
    assert [list(line.get_xdata()) for line in hidden if len(line.get_xdata())] == [[0.1], [0.1]]
    assert [t.get_text() for t in axes.get_legend().get_texts()][-1] == "dose not trained"


def test_dose_response_has_a_band_from_the_posterior(screen):
    frame = screen.uns["unlasting"]["dose_response"]
    band = frame[frame["group"] == "generated"].assign(
        group="posterior", low=0.5, high=3.0, expected_error=0.25, p_active=1.0
    )
    screen.uns["unlasting"]["dose_response"] = pd.concat([frame, band], ignore_index=True)
    panel = pl.dose_response(screen, "A", "gene0", show=False)[0, 0]
    assert panel.get_title() == "gene0\nexpected error 0.25"
    shape = next(c for c in panel.collections if "interval" in str(c.get_label())).get_paths()[0].vertices
    assert (shape[:, 1].min(), shape[:, 1].max()) == (0.5, 3.0)


def test_grn_shows_the_neighbours_with_widths_and_origins(screen):
    axes = pl.grn(screen, "gene0", show=False)
    names = {text.get_text() for text in axes.texts}
    assert names == {"gene0", "gene1", "gene2", "TARGET"}
    assert [t.get_text() for t in axes.get_legend().get_texts()] == [
        "coexpression",
        "go",
        "in one direction, positive",
        "in one direction, negative",
        "not measured",
    ]
    # from wide to narrow: gene0 and gene1 in both directions, TARGET to gene0, and gene0 represses gene2
    edges = sorted(axes.patches, key=lambda patch: -patch.get_linewidth())
    assert edges[0].get_linewidth() == pytest.approx(3.4)
    assert [type(patch.get_arrowstyle()).__name__ for patch in edges] == ["Curve", "CurveFilledB", "BarAB"]
    places = {text.get_text(): np.array(text.xy) for text in axes.texts}
    start, end = edges[2]._posA_posB
    np.testing.assert_allclose([start, end], [places["gene0"], places["gene2"]])
    assert {t.get_text() for t in pl.grn(screen, "gene0", n_neighbours=1, show=False).texts} == {"gene0", "gene1"}


def test_grn_prefers_attention(screen):
    edges = screen.uns["unlasting"]["grn"]["edges"]
    edges["attention"] = [0.1, 0.1, 0.9, 0.2, 0.1, 0.1]
    axes = pl.grn(screen, "gene0", n_neighbours=1, show=False)
    assert {text.get_text() for text in axes.texts} == {"gene0", "TARGET"}
    assert "attention" in axes.get_legend().get_title().get_text()


def test_grn_names_what_is_not_there(screen):
    with pytest.raises(ValueError, match="Did you mean 'gene2"):
        pl.grn(screen, "gene2x")
    with pytest.raises(ValueError, match="no neighbour"):
        pl.grn(screen, "LONELY")


def test_history_has_a_panel_per_network_with_training_and_validation(screen):
    axes = pl.history(MODEL, show=False)
    assert [a.get_title() for a in axes] == ["Denoiser", "Mask network"]
    for panel in axes:
        named = [line.get_label() for line in panel.lines if not line.get_label().startswith("_")]
        assert named == ["train loss", "validation score"]
        (best,) = (line for line in panel.lines if line.get_marker() == "*")
        assert (list(best.get_xdata()), list(best.get_ydata())) == ([7], [1.0])
        assert panel.get_xlabel() == "Epoch"


def test_history_of_one_network_or_none():
    half = SimpleNamespace(history={"mask_train_loss_step": MODEL.history["mask_train_loss"]})
    assert [a.get_title() for a in pl.history(half, show=False)] == ["Mask network"]
    with pytest.raises(ValueError, match="model.train"):
        pl.history(SimpleNamespace(history=None))


def test_several_panels_cannot_be_put_into_free_axes(screen):
    figure = plt.figure()
    with pytest.raises(ValueError, match="plt.subplots"):
        pl.bimodal_genes(screen, "A", ax=figure.add_axes([0, 0, 1, 1]))
    assert len(pl.bimodal_genes(screen, "A", "gene0", ax=figure.add_axes([0, 0, 1, 1]), show=False)) == 1


def test_scores_of_a_correlation_are_shares_of_the_ceiling(screen):
    stored = screen.uns["unlasting"]
    stored["scores"]["dose"], stored["score_summary"]["best"] = "0.1", 1.0
    _, lower = pl.scores(screen, "emd", show=False)
    assert lower.get_xlabel().startswith("Share of the ceiling (1: true cells)")
    assert [t.get_text() for t in lower.get_yticklabels()] == ["A 0.1 µM", "B 0.1 µM"]


def test_a_gene_beside_a_drug_has_no_dose_in_names(screen):
    screen.uns["unlasting"]["scores"]["dose"] = "0.1+"
    _, lower = pl.scores(screen, "emd", show=False)
    assert {t.get_text() for t in lower.get_yticklabels()} == {"A 0.1 µM", "B 0.1 µM"}
