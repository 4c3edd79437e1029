"""Parity with the CPU, kernels and synchronisations of a step, and throughput on a device, as JSON.

python measure.py --device cuda
python measure.py --device cpu --genes 200 --cells 64  # small, without a GPU
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).parents[1] / "speed"))
import screens

from unlasting import UnlastingModel
from unlasting.module import UnlastingModule

LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cuLaunchKernelEx", "cudaLaunchKernelExC", "cudaGraphLaunch")
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")


def batch(model: UnlastingModel, n_cells: int, device: str) -> tuple[torch.Tensor, ...]:
    """Get cells on the [0, 1] scale with their codes."""
    rows = torch.arange(n_cells).numpy() % model.adata.n_obs
    x0 = torch.from_numpy(model.adata.X[rows].toarray()) / float(model.effects_model.statistics.x_max)
    codes = (
        torch.as_tensor(model.adata.obs[f"_unlasting_{key}"].to_numpy()[rows]).long()
        for key in ("perturbation", "population")
    )
    return tuple(part.to(device) for part in (x0, *codes))


def largest_difference(one: torch.Tensor, other: torch.Tensor) -> float:
    """Get the largest absolute difference between tensors on any device."""
    return float((one.detach().cpu().float() - other.detach().cpu().float()).abs().max())


def parity(model: UnlastingModel, cells: int, device: str) -> dict[str, float]:
    """Compare attention with its gradients, effects and generated cells with those of the CPU."""
    modules: list[UnlastingModule] = [copy.deepcopy(model.module).to(place) for place in ("cpu", device)]
    found: dict[str, list[torch.Tensor]] = {
        "attention": [],
        "attention gradient": [],
        "effects": [],
        "weights gradient": [],
    }
    for module, place in zip(modules, ("cpu", device), strict=True):
        layer = module.denoiser.grn.attention[0]
        size = (8, layer.graph.n_nodes, layer.lin.in_features)
        features = torch.randn(*size, generator=torch.Generator().manual_seed(0)).to(place).requires_grad_(True)
        out = layer(features)
        out.square().sum().backward()
        found["attention"].append(out)
        found["attention gradient"].append(features.grad)
        found["weights gradient"].append(layer.lin.weight.grad)
        _, condition, population = batch(model, cells, place)
        found["effects"].append(module.registered_expected(condition, population).base)
    differences = {name: largest_difference(*pair) for name, pair in found.items()}
    labels, made = ["G0", "G1"], []
    for place in ("cpu", device):
        model.to_device(place)
        made.append(torch.from_numpy(model.generate(labels, 16, seed=0, show_progress=False).X.toarray()))
    return differences | {"generated cells": largest_difference(*made)}


def seconds(work: Callable[[], object], device: str, repeats: int) -> float:
    """Time some work after a first run."""
    work()
    if device != "cpu":
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    if device != "cpu":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / repeats


def step_of(model: UnlastingModel, cells: int, device: str, *, half: bool, compiled: bool) -> Callable[[], None]:
    """Get a training step of the denoiser."""
    module = copy.deepcopy(model.module).to(device).train()
    codes = (model.adata.obs[f"_unlasting_{key}"].to_numpy() for key in ("perturbation", "population"))
    condition, population = codes
    module.register_pairs(*(part.astype(int) for part in (condition, population)))
    data = batch(model, cells, device)
    fused = torch.optim.AdamW(module.denoiser.parameters(), lr=1e-4, fused=True)
    if compiled:
        module.denoiser.compile()

    def step() -> None:
        with torch.autocast(device, dtype=torch.bfloat16) if half else nullcontext():
            loss = module.denoising_loss(*data)
        fused.zero_grad()
        loss.backward()
        fused.step()

    return step


def counted(step: Callable[[], None], device: str) -> dict[str, int]:
    """Count a step's kernels and the times at which the host waits; operations on the CPU."""
    step()
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device != "cpu" else [])
    with profile(activities=activities) as found:
        step()
    counts = {event.key: event.count for event in found.key_averages()}
    if device == "cpu":
        return {"operations": sum(n for name, n in counts.items() if name.startswith(("aten::", "unlasting::")))}
    return {
        "kernels": sum(counts.get(name, 0) for name in LAUNCHES),
        "synchronisations": sum(counts.get(name, 0) for name in WAITS),
    }


def main() -> None:
    """Measure everything, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--genes", type=int, default=2_000)
    parser.add_argument("--cells", type=int, default=512, help="cells in a step")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--no-compile", action="store_true", help="leave `torch.compile` out, which needs a C++ compiler"
    )
    asked = parser.parse_args()
    size = {"n_cells": 600, "n_genes": asked.genes, "n_edges": 20 * asked.genes}
    model, with_graph = (screens.model("default", **size, use_grn=use_grn) for use_grn in (False, True))
    is_cuda = asked.device != "cpu"
    result: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if is_cuda else "cpu",
        "torch": torch.__version__,
        "genes": asked.genes,
        "cells in a step": asked.cells,
        "largest difference from the CPU": parity(with_graph, min(asked.cells, 64), asked.device),
        "step": counted(step_of(model, asked.cells, asked.device, half=False, compiled=False), asked.device),
        "step with a graph block": counted(
            step_of(with_graph, asked.cells, asked.device, half=False, compiled=False), asked.device
        ),
        "trained cells per second": {},
        "generated cells per second": {},
    }
    for half in (False, True):
        for compiled in (False, True)[: 1 if asked.no_compile else 2]:
            name = " and ".join(["bf16"] * half + ["compile"] * compiled) or "float32"
            step = step_of(model, asked.cells, asked.device, half=half, compiled=compiled)
            result["trained cells per second"][name] = asked.cells / seconds(step, asked.device, asked.repeats)
        model.to_device(asked.device)
        with torch.autocast(asked.device, dtype=torch.bfloat16) if half else nullcontext():
            taken = seconds(
                lambda: model.generate(["G0", "G1"], asked.cells, batch_size=asked.cells, show_progress=False),
                asked.device,
                1,
            )
        result["generated cells per second"]["bf16" if half else "float32"] = 2 * asked.cells / taken
    if is_cuda:
        result["peak memory (MB)"] = torch.cuda.max_memory_allocated() / 1e6
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
