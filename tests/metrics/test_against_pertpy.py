"""Distances agree with those of pertpy: its E-distance, in both of its conventions, and what else it shares."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from unlasting.metrics import e_distance, mean_distance, mmd, mse_change, pearson_change

# The last pertpy for Python 3.11 (1.0.3) brings JAX, which scvi-tools then imports too, so that the other tests would
# no longer see what users have; and it does not import with statsmodels 0.15. There, the same numbers are checked
# against all pairs written out (test_distances.py).
pertpy = pytest.importorskip("pertpy", reason="is installed for the tests from Python 3.12 on")


def distance(name: str, x: np.ndarray, y: np.ndarray, **options) -> float:
    return float(pertpy.tools.Distance(name)(x, y, **options))


def test_distances_of_cells(given_pair) -> None:
    x, y, exact_x, exact_y, tolerance = given_pair
    scale = distance("mean_pairwise", exact_x, exact_y)
    assert mean_distance(x, y) == pytest.approx(scale, rel=tolerance)
    assert e_distance(x, y) == pytest.approx(distance("edistance", exact_x, exact_y), abs=tolerance * scale)
    assert e_distance(x, x) == pytest.approx(distance("edistance", exact_x, exact_x), abs=tolerance * scale)


@pytest.mark.parametrize("bandwidth", [0.3, 5.0])
def test_mmd_with_a_gaussian_kernel(pair, bandwidth) -> None:
    expected = distance("mmd", *pair, kernel="rbf", gamma=0.5 / bandwidth**2)
    assert mmd(*pair, unbiased=False, bandwidth=bandwidth) == pytest.approx(expected, abs=1e-9)


def test_scores_of_the_mean(pair) -> None:
    origin = np.zeros(pair[0].shape[1])
    means = [cells.mean(axis=0) for cells in pair]
    assert mse_change(*pair, origin) == pytest.approx(distance("mse", *pair), rel=1e-9, abs=1e-18)
    if min(map(np.ptp, means)) == 0:
        assert np.isnan(pearson_change(*pair, origin))
    else:
        assert pearson_change(*pair, origin) == pytest.approx(1 - distance("pearson_distance", *pair), abs=1e-9)


@pytest.mark.parametrize(("cell_wise_metric", "squared"), [("euclidean", False), ("sqeuclidean", True)])
def test_conventions_of_the_e_distance(pair, cell_wise_metric, squared) -> None:
    """From distances that are kept, as in its tests of significance, pertpy takes squared ones too.

    They were its default before version 1.
    """
    x, y = (cells - pair[0].mean(axis=0) for cells in pair)  # kept distances lose digits where the cells are far away
    adata = AnnData(obs=pd.DataFrame(index=[f"cell{i}" for i in range(len(x) + len(y))]))
    adata.obsm["cells"] = np.vstack([x, y])
    peer = pertpy.tools.Distance("edistance", obsm_key="cells", cell_wise_metric=cell_wise_metric)
    peer.precompute_distances(adata)
    kept = adata.obsp[f"cells_{cell_wise_metric}_predistances"]
    found = peer.metric_fct.from_precomputed(kept, np.arange(adata.n_obs) < len(x))
    scale = mean_distance(x, y, squared=squared)
    assert e_distance(x, y, squared=squared) == pytest.approx(found, abs=1e-6 * scale)
