"""Kernels in the workers of a DataLoader and in forked processes, and in their parent before and after."""

from __future__ import annotations

import multiprocessing

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import cnnkernels
from cnnkernels import trace

LIMIT = 120  # seconds, for processes that hang: a passing test takes a tenth


class Blurred(Dataset[Tensor]):
    """A dataset whose transform is a model on our kernels."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.blur = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"), nn.AvgPool2d(2))
        self.blur.requires_grad_(False)
        cnnkernels.convert(self.blur, backend="emulator")

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Tensor:
        blurred: Tensor = self.blur(torch.full((1, 8, 8), float(index)) + torch.eye(8))
        return blurred


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_and_their_parent_run_kernels(start: str) -> None:
    """Before, in and after the workers: a fork takes no thread of the emulator along, and must not wait for one."""
    if start not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {start}")
    dataset = Blurred()
    wanted = torch.stack([dataset[index] for index in range(len(dataset))])
    loader = DataLoader(dataset, batch_size=2, num_workers=2, multiprocessing_context=start, timeout=LIMIT)
    for _ in range(2 if start == "fork" else 1):
        assert torch.equal(torch.cat(list(loader)), wanted)
        with trace() as launched:
            assert torch.equal(torch.stack([dataset[index] for index in range(len(dataset))]), wanted)
        assert len(launched) == 2 * len(dataset)


def _train(model: nn.Module) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.ones(2, 1, 8, 8)).square().mean().backward()
        optimizer.step()


def test_a_forked_process_trains() -> None:
    model = Blurred().blur.requires_grad_()
    _train(model)
    process = torch.multiprocessing.get_context("fork").Process(target=_train, args=(model,))
    process.start()
    process.join(LIMIT)
    if process.is_alive():
        process.kill()
        pytest.fail("the forked process hangs")
    assert process.exitcode == 0
    _train(model)
