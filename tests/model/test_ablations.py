"""The options that take a part of the method away."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy import sparse

from unlasting.model import UnlastingModel

QUIET = {"show_progress": False, "accelerator": "cpu"}
SIZES = {"width": 24, "gene_features": 4, "attention_features": 4, "time_frequencies": 8}


def trained(screen, preset: str, steps: int = 20, **options) -> UnlastingModel:
    adata = screen(n_cells=300)
    UnlastingModel.setup_anndata(adata, cell_type_key="cell_type")
    model = UnlastingModel(adata, preset=preset, **SIZES, **options)
    model.train(max_steps=steps, seed=0, batch_size=64, lr=2e-3, **QUIET)
    return model


def shuffled(cells):
    """The same masks and totals with other values: those of each cell change places."""
    other = cells.copy()
    other.X = sparse.csr_matrix(cells.X, copy=True)
    for start, stop in itertools.pairwise(other.X.indptr):
        other.X.data[start:stop] = np.random.default_rng(0).permutation(other.X.data[start:stop])
    return other


@pytest.mark.parametrize(
    ("preset", "options"),
    # In the published recipe the control cell is the control signal as well, and stands behind the masks.
    [("default", {}), ("paper", {"use_control_moments": False, "use_mask": False})],
)
@pytest.mark.slow
def test_without_the_latent_the_values_of_the_control_cell_are_not_seen(screen, preset, options, controls):
    few = controls[:20].copy()
    for use, same in ((True, False), (False, True)):
        model = trained(screen, preset, use_latent=use, **options)
        one, other = (model.generate("G3", 20, controls=cells, show_progress=False) for cells in (few, shuffled(few)))
        assert np.allclose(one.X.toarray(), other.X.toarray(), atol=1e-6) == same


@pytest.mark.parametrize("preset", ["default", "paper"])
@pytest.mark.slow
def test_without_a_mask_network_every_gene_counts(screen, preset):
    model = trained(screen, preset, use_mask=False)
    assert set(model.history) == {"denoiser_train_loss", "denoiser_validation_score"}
    cells = torch.tensor([[0.0, 0.3], [0.2, 0.0]])
    assert torch.equal(model.module.is_expressed(cells), torch.ones(2, 2))
    new = model.generate(["G3", "control"], 10, show_progress=False)
    assert np.isfinite(new.X.toarray()).all()
    is_trained = (model.adata.obs["unlasting_split"] == "train").to_numpy()
    values, obs = model.adata.X.toarray()[is_trained], model.adata.obs[is_trained]
    scaled = values / values.max()
    for population, cell_type in enumerate(["B", "T"]):
        own = scaled[((obs["perturbation"] == "control") & (obs["cell_type"] == cell_type)).to_numpy()]
        np.testing.assert_allclose(model.module.statistics.base[population].numpy(), own.mean(0), rtol=1e-4)
    if preset == "default":
        null = new[new.obs["perturbation"] == "control"]
        before = model.adata[null.obs["unlasting_source"].astype(str)].X.toarray()
        first = (null.obs["unlasting_replicate"] == 0).to_numpy()
        np.testing.assert_allclose(null.X.toarray()[first], before[first], atol=2e-3 * values.max())


@pytest.mark.slow
def test_parts_are_switched_off_in_a_saved_model_too(screen, tmp_path):
    for option in ("use_control_moments", "use_latent", "use_mask", "use_grn"):
        model = trained(screen, "default", 3, **{option: False})
        expected = model.generate("G3", 6, show_progress=False)
        model.save(tmp_path / option)
        loaded = UnlastingModel.load(tmp_path / option, model.adata, accelerator="cpu")
        found = loaded.generate("G3", 6, show_progress=False)
        np.testing.assert_array_equal(found.X.toarray(), expected.X.toarray())
        switched_off = {getattr(loaded.preset, option, True), getattr(loaded.preset.denoiser, option, True)}
        assert False in switched_off


def test_the_published_recipe_needs_the_graph_for_genes(screen):
    adata = screen(n_cells=100)
    UnlastingModel.setup_anndata(adata)
    with pytest.raises(ValueError, match=r"\['G3', 'G7', 'TFX'\] cannot act in it with `use_grn=False`"):
        UnlastingModel(adata, preset="paper", use_grn=False)
