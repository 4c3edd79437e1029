"""A training step waits for no device, and compiles as one graph."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import unlasting as ul

WAITING = {"_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "_unique2", "unique_dim"}
"""Operations whose result, or its shape, the host has to read."""


class Waits(TorchDispatchMode):
    """Count the operations for which the host waits."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()
        self.n_operations = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name.removeprefix("aten::")
        by_mask = name == "index" and any(one is not None and one.dtype == torch.bool for one in args[1])
        self.n_operations += 1
        if name in WAITING or by_mask:
            self.found[name] += 1
        return function(*args, **(kwargs or {}))


@pytest.fixture(scope="module", params=[False, True], ids=["default", "graph"])
def batch(request):
    """A model without and with a graph block, and the cells and codes of a step."""
    adata = ul.datasets.simulate_screen(n_cells=300, n_genes=40, seed=0)
    ul.pp.split(adata, "random")
    ul.pp.prepare(adata)
    ul.pp.grn(adata, prior=None)
    ul.UnlastingModel.setup_anndata(adata)
    model = ul.UnlastingModel(adata, width=16, gene_features=4, attention_features=4, use_grn=request.param)
    model.train(max_steps=1, batch_size=32, show_progress=False, accelerator="cpu")
    module = model.module.train()
    x0 = torch.from_numpy(adata.X[:32].toarray()) / module.statistics.x_max
    codes = (
        torch.as_tensor(adata.obs[f"_unlasting_{key}"].to_numpy()[:32]).long() for key in ("perturbation", "population")
    )
    return module, x0, *codes


@pytest.mark.slow
def test_a_training_step_waits_for_no_device(batch):
    module, *cells = batch
    for loss in (module.denoising_loss, module.mask_loss):
        loss(*cells).backward()  # tables are computed once
        with Waits() as waits:
            loss(*cells).backward()
        assert waits.n_operations > 100
        assert waits.found == {}, loss.__name__
    with Waits() as waits:
        assert bool((cells[0] > 0).nonzero().any())
    assert waits.found == {"nonzero": 1, "_local_scalar_dense": 1}  # the count finds them


@pytest.mark.slow
def test_a_training_step_is_one_graph(batch):
    module, *cells = batch
    for loss in (module.denoising_loss, module.mask_loss):
        loss(*cells)
        torch._dynamo.reset()
        found = torch._dynamo.explain(loss)(*cells)
        assert found.graph_count == 1, found.break_reasons
        assert found.graph_break_count == 0, found.break_reasons
