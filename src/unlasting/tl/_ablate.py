"""What each part of the method gives: the same model without it, judged on the same cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import pandas as pd

from unlasting.baselines import ModelPredictor
from unlasting.tl._evaluate import evaluate

if TYPE_CHECKING:
    from anndata import AnnData

FULL: Final = "full"
VARIANTS: Final[Mapping[str, Mapping[str, Any]]] = {
    FULL: {},
    "no GRN": {"use_grn": False},
    "no control moments": {"use_control_moments": False},
    "no encoded latent": {"use_latent": False},
    "no mask network": {"use_mask": False},
}
"""The ablations of the published method, as options of the model."""


def ablate(
    adata: AnnData,
    make: Callable[..., Any],
    *,
    variants: Mapping[str, Mapping[str, Any]] | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Train a model with and without each of its parts, and judge all on the same test cells.

    Parameters
    ----------
    adata
        The screen, prepared and split; every variant is trained on a copy of it.
    make
        Takes a copy of the screen and the options of a variant, and returns a trained model.
    variants
        Options of the model by the name of the variant. By default those of the published method: all of it (`full`),
        and without the GRN block, the control signal, the encoded latent (Gaussian noise instead) or the mask network
        (the loss runs over all genes then). With `preset="paper"` gene targets cannot do without the GRN block.
    **options
        For :func:`unlasting.tl.evaluate`, such as `metrics`, `gene_sets` or `conditions`.

    Returns
    -------
    The frame of :func:`unlasting.tl.evaluate` with the column `variant` in place of `predictor`; `no effect` is one of
    its values.

    Updates the fields of :func:`unlasting.tl.evaluate`.

    Raises
    ------
    ValueError
        If there is no variant, or as `make` and :func:`unlasting.tl.evaluate` do.

    Examples
    --------
    >>> import unlasting as ul
    >>> def make(adata, **options):
    ...     ul.UnlastingModel.setup_anndata(adata)
    ...     model = ul.UnlastingModel(adata, preset="paper", **options)
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
        raise ValueError("`variants` is empty; name at least one, or leave it out for those of the published method.")
    predictors = {name: ModelPredictor(partial(make, **changes)) for name, changes in variants.items()}
    frame = evaluate(adata, layer=None, baselines=predictors, **options)
    return frame.rename(columns={"predictor": "variant"})
