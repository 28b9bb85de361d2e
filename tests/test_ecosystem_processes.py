"""Converted models in more than one process: data-parallel training and sharded parameters."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

import cnnkernels
from cnnkernels import trace

PROCESSES = 2
LIMIT = 120  # seconds, for processes that hang: a passing test takes a tenth


def _model() -> nn.Sequential:
    """On small integers every value of a step is a dyadic fraction that fp64 holds exactly: the sums have no order."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(4, 2),
    ).double()  # fmt: skip
    for parameter in model.parameters():
        nn.init.uniform_(parameter, -2.5, 2.5).data.round_()
    cnnkernels.convert(model, backend="emulator")
    return model


def _images() -> Tensor:
    return torch.randint(-2, 3, (4, 2, 8, 8), generator=torch.Generator().manual_seed(1)).double()


def _train(model: nn.Module, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Two steps: the losses, and the parameters after the first."""
    optimizer = torch.optim.SGD(model.parameters(), lr=2.0**-17)
    losses, after_one = [], []
    for step in range(2):
        optimizer.zero_grad()
        loss = model(images).square().mean()
        losses.append(loss.detach().clone())
        loss.backward()
        optimizer.step()
        if step == 0:
            after_one = [
                (value.full_tensor() if isinstance(value, DTensor) else value).detach().clone()
                for value in model.parameters()
            ]
    return losses, after_one


def _shard(model: nn.Sequential) -> nn.Sequential:
    mesh = init_device_mesh("cpu", (PROCESSES,))
    fully_shard(model[0], mesh=mesh)
    fully_shard(model[3], mesh=mesh)
    return fully_shard(model, mesh=mesh)


PARALLEL: dict[str, Callable[[nn.Sequential], nn.Module]] = {"DDP": DistributedDataParallel, "FSDP2": _shard}


def _one_of_many(rank: int, directory: str) -> None:
    """What a process of the group does: train on its share of the images, for each kind of parallelism."""
    torch.set_num_threads(1)
    limit = datetime.timedelta(seconds=LIMIT)
    dist.init_process_group("gloo", f"file://{directory}/meeting", timeout=limit, rank=rank, world_size=PROCESSES)
    share = _images().chunk(PROCESSES)[rank]
    results: dict[str, Any] = {}
    for title, parallel in PARALLEL.items():
        with trace() as launched:
            losses, parameters = _train(parallel(_model()), share)
        results[title] = (losses, parameters, len(launched))
    plain = _model()
    cnnkernels.restore(plain)
    results["sharded first"] = [row.reason for row in cnnkernels.convert(_shard(plain)).kept]
    torch.save(results, Path(directory) / f"{rank}.pt")
    dist.destroy_process_group()


def _join(context: Any) -> None:
    deadline = time.monotonic() + LIMIT
    while not context.join(timeout=1):
        if time.monotonic() > deadline:
            for process in context.processes:
                process.kill()
            pytest.fail(f"the processes did not end within {LIMIT} s")


@pytest.mark.skipif(not dist.is_available(), reason="this torch has no torch.distributed")
def test_data_parallel_training_is_that_of_one_process(tmp_path: Path) -> None:
    """DistributedDataParallel and fully_shard, on two processes with half the images each, against one with all."""
    context = mp.start_processes(
        _one_of_many, args=(str(tmp_path),), nprocs=PROCESSES, join=False, start_method="spawn"
    )
    whole_losses, whole_parameters = _train(_model(), _images())
    _join(context)
    each = [torch.load(tmp_path / f"{rank}.pt") for rank in range(PROCESSES)]
    for title in PARALLEL:
        for _, parameters, launches in (results[title] for results in each):
            assert launches
            for ours, whole in zip(parameters, whole_parameters, strict=True):
                assert torch.equal(ours, whole), title
        first, second = (torch.stack(losses).mean() for losses in zip(*[r[title][0] for r in each], strict=True))
        assert first == whole_losses[0]
        # From equal parameters, but no longer exact. A score is the end of sums of 2 * 9, 4 * 9, 4 and 4
        # values and their biases, so of at most 70 roundings; twice that for its square, and 8 for the mean.
        # Terms may be a thousand times their sum.
        torch.testing.assert_close(second, whole_losses[1], rtol=148 * 2.0**-53 * 1000, atol=0)
        assert second < first
    # fully_shard changes a module's class, too: what it has changed is left alone, and the report says so.
    assert [[reason.split(" (")[0] for reason in results["sharded first"]] for results in each] == [
        ["a subclass of Conv2d"] * 2
    ] * PROCESSES
