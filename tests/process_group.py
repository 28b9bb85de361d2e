"""Run by test_distributed.py: three processes train together. Prints what the first one saw, as JSON.

The processes are forked after torch is imported, which takes longer than all they do; so they use torch's own layers, since
threads like the emulator's do not survive a fork.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import multiprocessing, nn
from torch.testing._internal.common_utils import find_free_port

from cnnkernels.data import Dataset, Part
from cnnkernels.distributed import ALONE, Processes, joined_processes, lost_connection
from cnnkernels.training import Recipe, build_model, evaluate, input_size, train
from cnnkernels.training_files import load_checkpoint, save_checkpoint

COUNT = 3
LIMIT = 200
# 40 images in batches of 16 and 8: shares of 6, 5 and 5, of 3, 3 and 2.
RECIPE = Recipe(epochs=2, batch_size=16, distort=True)


def random_images() -> Dataset:
    """40 images to train and 600 to test, which is more than one process's part of an evaluation."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (640, 32, 32), generator=generator, dtype=torch.uint8)
    whole = Part(pixels, torch.arange(640) % 10)
    parts = whole.select(slice(40)), whole.select(slice(40, None))
    return Dataset("random", "", *parts, tuple("0123456789"), input_size=32, white=255.0, mean=0.5, std=0.3)


def trained(dataset: Dataset, processes: Processes, name: str, path: Path | None = None, **arguments: Any) -> Any:
    width = {"width": 4} if name == "resnet18" else {}
    dataset = replace(dataset, input_size=input_size(name))
    model = build_model(name, RECIPE, 10, layers=nn, **width)

    def save(state: dict[str, Any], _: Any) -> None:
        if path is not None:
            save_checkpoint(path, state, {})

    return model, train(model, dataset, RECIPE, processes=processes, on_checkpoint=save, **arguments)


def same_bits(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one["run"]["steps"] == other["run"]["steps"] and all(
        torch.equal(tensor, other["state_dict"][name]) for name, tensor in one["state_dict"].items()
    )


def work(rank: int, folder: Path) -> None:
    signal.alarm(LIMIT)  # processes that wait for each other for ever are ended, too
    os.environ["RANK"] = str(rank)
    dataset, seen = random_images(), {}
    with joined_processes() as processes:
        # Of one process that wants to stop, all stop.
        _, history = trained(dataset, processes, "lenet5", stop=lambda: rank == 1)
        seen["stopped after"] = processes.gather(len(history.steps))
        model, history = trained(dataset, processes, "lenet5")
        seen["losses"] = [step.loss for step in history.steps]
        seen["tests"] = [(epoch.test_loss, epoch.test_accuracy, epoch.train_accuracy) for epoch in history.epochs]
        weights = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
        seen["same weights"] = all(torch.equal(weights, other) for other in processes.gather(weights))
        for name in ("mnistnet", "resnet18"):
            trained(dataset, processes, name, folder / "unbroken.pt")
            trained(dataset, processes, name, folder / "broken.pt", max_steps=4)
            processes.gather(None)  # the first one has written
            trained(dataset, processes, name, folder / "broken.pt", resume=load_checkpoint(folder / "broken.pt"))
            if processes.first:
                unbroken, resumed = (load_checkpoint(folder / f"{run}.pt") for run in ("unbroken", "broken"))
                seen[f"{name} resumed"] = same_bits(unbroken, resumed) and len(resumed["run"]["steps"]) == 6
            processes.gather(None)  # and has read
        # BatchNorm's statistics are the first process's wherever the model is used.
        means = torch.nn.BatchNorm2d(1)
        means.running_mean.fill_(rank)
        processes.equal_buffers(means)
        seen["running means"] = processes.gather(means.running_mean.item())
        if processes.first:
            model, history = trained(dataset, ALONE, "lenet5")
            seen["losses alone"] = [step.loss for step in history.steps]
            seen["tests alone"] = [
                (epoch.test_loss, epoch.test_accuracy, epoch.train_accuracy) for epoch in history.epochs
            ]
        seen["images evaluated"] = int(evaluate(model, dataset, dataset.test, processes=processes).confusion.sum())
        if processes.first:
            print(json.dumps(seen), flush=True)
        if rank == 2:
            os._exit(3)
        try:
            trained(dataset, processes, "lenet5")
        except RuntimeError as error:
            # No clean end is left to this group.
            os._exit(0 if lost_connection(error) else 1)
        os._exit(2)


if __name__ == "__main__":
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(find_free_port()), WORLD_SIZE=str(COUNT))
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=work, args=(rank, Path(sys.argv[1]))) for rank in range(COUNT)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print(json.dumps([worker.exitcode for worker in workers]))
