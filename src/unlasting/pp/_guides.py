"""From guide counts to perturbation labels."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData

from unlasting.pp._prepare import row_sums
from unlasting.screen import (
    MissingKeyError,
    Perturbation,
    ScreenKeys,
    check_cells,
    integer_counts,
    logger,
    nearest_name,
    require_integers,
    require_numbers,
)


def assign_guides(
    adata: AnnData,
    guides: AnnData,
    *,
    target_key: str | None = None,
    control: str = "control",
    delimiter: str = "+",
    min_counts: int = 5,
    min_share: float = 0.2,
    key_added: str = "perturbation",
    copy: bool = False,
) -> AnnData | None:
    """Label cells by their guide counts.

    A guide is assigned to a cell with at least `min_counts` counts and the fraction `min_share` of all its guide counts. The
    label consists of the targets of these guides; it is the control label if none has a target. A cell without a guide
    gets no label: remove it before the next step.

    Parameters
    ----------
    adata
        Cells to label, such as the expression modality of a MuData.
    guides
        Guide counts, shape `(n_cells, n_guides)`, such as the guide modality. Cells are matched by name.
    target_key
        `guides.var` column with the target; by default the guide's name.
    control
        Control label, also the target of non-targeting guides.
    delimiter
        Separator between targets.
    min_counts
        Smallest number of counts.
    min_share
        Smallest fraction among a cell's guide counts.
    key_added
        `obs` column to write.
    copy
        Return a changed copy, and leave `adata` as it is.

    Returns
    -------
    `None`, or the copy. Updates the following fields:

    - `adata.obs[key_added]`: the label, missing for cells without a guide.
    - `adata.uns["unlasting"]["keys"]`: the label columns.

    Raises
    ------
    KeyError
        If there is no such column.
    ValueError
        If counts are no integers, a target is missing, a threshold is out of range, no cell has a guide, or a key differs
        from the recorded one.

    Examples
    --------
    >>> import unlasting as ul
    >>> mdata = ...  # doctest: +SKIP
    >>> ul.pp.assign_guides(mdata["rna"], mdata["guides"], target_key="target")  # doctest: +SKIP
    >>> mdata = mdata[mdata["rna"].obs["perturbation"].notna()].copy()  # doctest: +SKIP
    """
    adata = adata.copy() if copy else adata
    check_cells(adata, writable=True)
    check_cells(guides, "guides")
    keys = ScreenKeys.read(adata, perturbation_key=key_added, control=control, delimiter=delimiter)
    require_integers(1, min_counts=min_counts)
    require_numbers(min_share=min_share)
    if not 0 <= min_share <= 1:
        raise ValueError(f"`min_share` is {min_share}; it must be from 0 to 1.")
    if target_key is not None and target_key not in guides.var:
        raise MissingKeyError(
            f"`target_key` is {target_key!r}, but `guides.var` has no such column."
            f"{nearest_name(target_key, map(str, guides.var.columns))}"
        )
    named = guides.var_names.to_series() if target_key is None else guides.var[target_key]
    if named.isna().any():
        raise ValueError(
            f"The guide {guides.var_names[int(np.argmax(named.isna()))]!r} has no target in `target_key={target_key!r}`. "
            f"Write {control!r} for guides without one."
        )
    targets = named.astype(str).to_numpy(dtype=object)
    counts = integer_counts(guides)
    row = np.repeat(np.arange(guides.n_obs), np.diff(counts.indptr))
    has = (counts.data >= min_counts) & (counts.data >= min_share * row_sums(counts)[row])
    hits = pd.Series(targets[counts.indices[has]], index=guides.obs_names[row[has]])
    found = hits.groupby(level=0).agg(
        lambda names: Perturbation(tuple(set(names) - {control})).label(control=control, delimiter=delimiter)
    )
    found = found.reindex(adata.obs_names)
    if found.isna().all():
        raise ValueError(
            f"None of the {adata.n_obs} cells of `adata` has a guide with {min_counts} counts and a share of {min_share}. "
            "Lower the thresholds, or give both objects the same cell names."
        )
    adata.obs[key_added] = found.astype("category")
    keys.write(adata)
    n_targets = found.dropna().map(lambda label: 0 if label == control else len(label.split(delimiter)))
    logger.info(
        "pp.assign_guides: %d cells with one target, %d with several, %d controls, %d without a guide.",
        int((n_targets == 1).sum()),
        int((n_targets > 1).sum()),
        int((n_targets == 0).sum()),
        int(found.isna().sum()),
    )
    return adata if copy else None
