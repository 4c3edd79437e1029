"""Molecular fingerprints, descriptors and other representations, as unit rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from unlasting.screen import canonical_smiles, morgan_counts, require_rdkit

CLIP = 3.0
"""Limit for standardised descriptors: some have tails over many orders of magnitude."""


def fingerprints(smiles: Sequence[str]) -> np.ndarray:
    """Count circular substructures on a logarithmic scale, unit rows, shape `(n_molecules, 2048)`."""
    return unit_rows(np.log1p(morgan_counts(smiles)), smiles)


def descriptors(smiles: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Compute RDKit descriptors, each standardised over these molecules.

    Returns the names of descriptors that exist for all molecules and differ between them, shape `(n_features,)`, and unit
    rows, shape `(n_molecules, n_features)`.
    """
    if len(smiles) < 3:
        raise ValueError(
            f"`embedding='descriptors'` is standardised over the molecules, and there are only {len(smiles)}. "
            "Use `embedding='morgan'`."
        )
    chem = require_rdkit()
    from rdkit.Chem import Descriptors

    table = pd.DataFrame([Descriptors.CalcMolDescriptors(chem.MolFromSmiles(each)) for each in smiles])
    values = table.to_numpy(dtype=np.float64)
    spread = np.where(np.isfinite(values).all(axis=0), values.std(axis=0), 0.0)
    used = spread > 1e-9 * np.abs(values).max(axis=0, initial=1.0)
    standard = (values[:, used] - values[:, used].mean(axis=0)) / spread[used]
    names = table.columns[used].to_numpy(dtype=object)
    return names, unit_rows(np.clip(standard, -CLIP, CLIP), smiles)


def unimol(smiles: Sequence[str]) -> np.ndarray:
    """Represent molecules by the pre-trained Uni-Mol, unit rows, shape `(n_molecules, 512)`."""
    try:
        from unimol_tools import UniMolRepr
    except ImportError as error:
        raise ImportError(
            "`embedding='unimol'` needs the package `unimol_tools`. Install it with `pip install 'unlasting[unimol]'`, "
            "or use `embedding='morgan'`."
        ) from error
    try:
        encoder = UniMolRepr(data_type="molecule", remove_hs=False)
    except (ImportError, OSError) as error:
        raise ConnectionError(
            f"The weights of Uni-Mol could not be loaded ({type(error).__name__}: {error}). They are downloaded from the "
            "Hugging Face repository 'dptech/Uni-Mol-Models' when they are first used. Without a connection, download them "
            "elsewhere and name their folder in the environment variable UNIMOL_WEIGHT_DIR, or use `embedding='morgan'`."
        ) from error
    return unit_rows(np.asarray(encoder.get_repr(list(smiles))), smiles)


def given(frame: pd.DataFrame, names: Mapping[str, str]) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """Read a frame with one row per molecule, and either drug names or SMILES as its index.

    `names` holds the canonical SMILES for every name, or an empty text. Returns the molecule of each drug with a row, as
    canonical SMILES or, without one, its name; and the row of each molecule. In a frame by name, every row is a drug.
    """
    try:
        matrix = frame.to_numpy(dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            "The frame given as `embedding` must hold numbers only, with names of drugs or SMILES as its index; "
            f"its columns are {list(map(str, frame.columns))[:8]}."
        ) from error
    index = frame.index.astype(str).tolist()
    by_name = not names.keys().isdisjoint(index)
    if by_name:
        molecules = [names.get(name) or name for name in index]
    else:
        molecules = [canonical_smiles(text) for text in index]
    rows: dict[str, np.ndarray] = {}
    for text, molecule, row in zip(index, molecules, matrix, strict=True):
        if not np.allclose(rows.setdefault(molecule, row), row, equal_nan=True):
            raise ValueError(
                f"The frame given as `embedding` has two different rows for one molecule, the second {text!r}. Keep one."
            )
    if by_name:
        return dict(zip(index, molecules, strict=True)), rows
    return {name: smiles for name, smiles in names.items() if smiles in rows}, rows


def unit_rows(matrix: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Scale every row to length 1, float32."""
    length = np.linalg.norm(matrix, axis=1)
    bad = [str(name) for name, size in zip(names, length, strict=True) if not 0 < size < np.inf]
    if bad:
        raise ValueError(
            f"The embedding has only zeros, or values that are not finite, for {', '.join(bad)}. Correct or drop them."
        )
    return (matrix / length[:, None]).astype(np.float32)
