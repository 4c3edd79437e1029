"""Ablations: the same model without one part, evaluated on the same cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import pandas as pd

from unlasting.baselines import ModelPredictor
from unlasting.tl._evaluate import evaluate

if TYPE_CHECKING:
    from anndata import AnnData

VARIANTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "full": {},
    "no GRN": {"use_grn": False},
    "no control moments": {"use_control_moments": False},
    "no encoded latent": {"use_latent": False},
    "no mask network": {"use_mask": False},
}
"""Published ablations as model options."""


def ablate(
    adata: AnnData, make: Callable[..., Any], *, variants: Mapping[str, Mapping[str, Any]] | None = None, **options: Any
) -> pd.DataFrame:
    """Train a model with and without each part, and evaluate all variants on the same test cells.

    Parameters
    ----------
    adata
        The screen, prepared and split; every variant is trained on a copy.
    make
        Function from a screen and a variant's options to a trained model.
    variants
        Model options by variant name. If `None`, the published ones: the whole model (`full`), and without the GRN
        block, the control signal, the encoded latent (Gaussian noise instead) or the mask network (a loss over all
        genes). The default preset has no GRN block, so that "no GRN" trains the same model again: make it with
        `use_grn=True`, as below. With `preset="paper"`, gene targets need the block.
    **options
        For :func:`unlasting.tl.evaluate`, such as `metrics`, `gene_sets` or `conditions`. By default the first variant
        is the `reference`.

    Returns
    -------
    The frame of :func:`unlasting.tl.evaluate`, with `variant` instead of `predictor`; it contains `no effect`.

    Updates the fields of :func:`unlasting.tl.evaluate`.

    Raises
    ------
    ValueError
        If `variants` is empty, or as `make` and :func:`unlasting.tl.evaluate` do.

    Examples
    --------
    >>> import unlasting as ul
    >>> def make(adata, **options):
    ...     ul.UnlastingModel.setup_anndata(adata)
    ...     model = ul.UnlastingModel(adata, **{"use_grn": True, **options})
    ...     model.train()
    ...     return model
    >>> adata = ul.datasets.papalexi()
    >>> ul.pp.split(adata, "random")
    >>> ul.pp.prepare(adata)
    >>> ul.pp.grn(adata)
    >>> frame = ul.tl.ablate(adata, make)  # doctest: +SKIP
    """
    variants = VARIANTS if variants is None else variants
    if not variants:
        raise ValueError("`variants` is empty; name at least one, or pass `None` for those of the published method.")
    predictors = {name: ModelPredictor(partial(make, **changes)) for name, changes in variants.items()}
    options = {"reference": next(iter(predictors)), **options}
    return evaluate(adata, layer=None, baselines=predictors, **options).rename(columns={"predictor": "variant"})
