"""Scores of the mean change agree with scipy and scikit-learn, against any reference."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse, stats
from sklearn.metrics import mean_squared_error

from unlasting.metrics import mse_change, pearson_change


@pytest.fixture
def samples(cells) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    names = ("predicted", "observed", "control", "observed_control")
    return {name: cells(rng, 20 + 5 * i, 9) + 0.1 * i * rng.random(9) for i, name in enumerate(names)}


@pytest.mark.parametrize("form", [np.asarray, np.float32, sparse.csr_matrix, sparse.csc_array])
@pytest.mark.parametrize("shared", [True, False])
def test_agree_with_libraries(samples, form, shared) -> None:
    if shared:
        samples["observed_control"] = samples["control"]
    given = {name: form(values) for name, values in samples.items() if not (shared and name == "observed_control")}
    means = {name: values.mean(axis=0) for name, values in samples.items()}
    predicted = means["predicted"] - means["control"]
    observed = means["observed"] - means["observed_control"]
    assert pearson_change(**given) == pytest.approx(stats.pearsonr(predicted, observed).statistic, rel=1e-5)
    assert mse_change(**given) == pytest.approx(mean_squared_error(observed, predicted), rel=1e-4)


def test_mean_profiles_stand_for_cells(samples) -> None:
    means = {name: values.mean(axis=0) for name, values in samples.items()}
    for metric in (pearson_change, mse_change):
        assert metric(**means) == pytest.approx(metric(**samples), rel=1e-12)
        one_row = {name: mean[None, :] for name, mean in means.items()}
        assert metric(**one_row) == pytest.approx(metric(**samples), rel=1e-12)


def test_a_shared_control_correlates_by_its_own_noise() -> None:
    rng = np.random.default_rng(1)
    shared, disjoint = [], []
    for _ in range(100):
        predicted, observed, one, other = rng.normal(size=(4, 10, 50))
        shared.append(pearson_change(predicted, observed, one))
        disjoint.append(pearson_change(predicted, observed, one, observed_control=other))
    assert np.mean(shared) == pytest.approx(0.5, abs=0.05)
    assert np.mean(disjoint) == pytest.approx(0.0, abs=0.05)


def test_no_change_has_no_correlation(samples) -> None:
    control, observed = samples["control"], samples["observed"]
    assert np.isnan(pearson_change(control, observed, control))
    assert np.isnan(pearson_change(control[::-1], observed, control))
    assert np.isnan(pearson_change(observed, control, control))
    assert np.isnan(pearson_change(control + 0.3, observed, control))
    assert np.isnan(pearson_change(observed[:, :1], control[:, :1], control[:, :1] + 1))
    assert mse_change(control, control + 0.5, control) == pytest.approx(0.25)


def test_laws(samples) -> None:
    predicted, observed, control, _ = samples.values()
    assert pearson_change(observed, observed, control) == pytest.approx(1)
    assert pearson_change(2 * control.mean(axis=0) - observed.mean(axis=0), observed, control) == pytest.approx(-1)
    assert mse_change(observed, observed, control) == 0
    for metric in (pearson_change, mse_change):
        assert metric(observed, predicted, control) == pytest.approx(metric(predicted, observed, control))
        order = np.random.default_rng(2).permutation(9)
        shuffled = metric(predicted[::-1, order], observed[:, order], control[:, order])
        assert shuffled == pytest.approx(metric(predicted, observed, control))


def test_refusals(samples) -> None:
    predicted, observed, control, _ = samples.values()
    with pytest.raises(ValueError, match="`predicted` has 9 genes and `control` has 8"):
        pearson_change(predicted, observed, control[:, 1:])
    with pytest.raises(ValueError, match="`observed_control` holds missing"):
        mse_change(predicted, observed, control, observed_control=np.full(9, np.nan))
    with pytest.raises(ValueError, match="`control` has 3 dimensions"):
        mse_change(predicted, observed, control[None])


@pytest.mark.parametrize("factor", [1e-9, 1e9])
def test_the_unit_of_the_data_does_not_change_a_correlation(samples, factor) -> None:
    expected = pearson_change(**samples)
    scaled = {name: factor * values for name, values in samples.items()}
    assert pearson_change(**scaled) == pytest.approx(expected)
    control, observed = scaled["control"], scaled["observed"]
    assert np.isnan(pearson_change(control + 0.3 * factor, observed, control))


@pytest.mark.filterwarnings("error")
def test_no_change_at_all_has_no_correlation_and_no_warning(samples) -> None:
    control = samples["control"]
    assert np.isnan(pearson_change(control, control, control))


def test_rounding_takes_no_correlation_beyond_one() -> None:
    """Of some vectors the product with themselves is above that of their norms, in the last digit."""
    for change in np.random.default_rng(3).normal(size=(300, 7)):
        assert pearson_change(change, change, np.zeros(7)) <= 1
        assert pearson_change(-change, change, np.zeros(7)) >= -1


def test_the_mean_of_many_float32_cells_is_not_a_float32_sum() -> None:
    cells = np.random.default_rng(4).random((200_000, 3), dtype=np.float32)
    zeros = np.zeros(3)
    expected = (cells.mean(axis=0, dtype=np.float64) ** 2).mean()
    assert mse_change(cells, zeros, zeros) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("as_stored", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
def test_means_of_many_cells_keep_their_digits(as_stored) -> None:
    """Single precision adds up 200,000 cells to five digits."""
    cells = np.random.default_rng(0).uniform(3, 4, (200_000, 2)).astype(np.float32)
    mean = cells.astype(np.float64).mean(axis=0)
    control, other = mean - 1.0, mean - np.array([1.0, 3.0])
    found = mse_change(as_stored(cells), other, control)
    assert found == pytest.approx(5.0, rel=1e-10)
