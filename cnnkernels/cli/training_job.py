"""What `cnnkernels train` is asked to do: data, model and checkpoint, or one line that says why not."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import torch
from rich.console import Console

from cnnkernels import __version__, backends
from cnnkernels.cli.output import kernels_backend, require_backend, require_extra
from cnnkernels.models import RESNETS

if TYPE_CHECKING:
    from torch import nn

    from cnnkernels.data import Dataset
    from cnnkernels.distributed import Processes
    from cnnkernels.training import History, Recipe

CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class Job:
    """What one process knows of the run. `settings` have to be the same for a run to go on from a checkpoint."""

    console: Console
    processes: Processes
    model: nn.Module
    dataset: Dataset
    recipe: Recipe
    total_steps: int
    settings: dict[str, Any]
    out: Path
    checkpoint: dict[str, Any] | None
    checkpoint_every: int
    max_steps: int | None
    log: Path | None

    @property
    def first_step(self) -> int:
        """Steps that the run has already."""
        return int(self.checkpoint["meta"]["steps"]) if self.checkpoint is not None else 0

    @property
    def name(self) -> str:
        return str(self.settings["model"])

    @property
    def backend(self) -> str:
        return str(self.settings["backend"])

    @property
    def device(self) -> str:
        return str(self.settings["device"])

    def meta(self, history: History) -> dict[str, Any]:
        """What the files of the run say about it."""
        dataset = self.dataset
        return {
            "cnnkernels": __version__,
            **self.settings,
            "num_classes": len(dataset.class_names),
            "class_names": list(dataset.class_names),
            "input_size": dataset.input_size,
            "preparation": dataset.preparation,
            "pixel_mean": dataset.mean * dataset.white,
            "pixel_std": dataset.std * dataset.white,
            "steps": len(history.steps),
            "total_steps": self.total_steps,
            "interrupted": history.interrupted,
            "seconds": history.seconds,
        }


def prepare(
    console: Console,
    processes: Processes,
    model_name: str,
    width: int,
    *,
    data: str,
    backend: str | None,
    device: str | None,
    epochs: int | None,
    batch_size: int,
    lr: float,
    seed: int,
    out: Path | None,
    resume: bool,
    **rest: Any,
) -> Job:
    """Read the data and the checkpoint, build the model. Raises ClickException, DataError or OSError."""
    require_extra("train", "matplotlib", "sklearn")
    backend = backend or kernels_backend()
    require_backend(backend)
    device = _device(backend, device)
    from cnnkernels.data import load_dataset
    from cnnkernels.training import (
        Recipe,
        build_model,
        input_size,
        least_images,
        require_batches,
        steps_per_epoch,
    )
    from cnnkernels.training_files import load_checkpoint

    dataset = load_dataset(data, input_size(model_name))
    out = out or Path("runs") / f"{model_name}-{dataset.name}"
    if processes.first:
        out.mkdir(parents=True, exist_ok=True)
        for half_written in out.glob(f".{Path(CHECKPOINT).stem}.*"):
            half_written.unlink()
    images = len(dataset.train)
    recipe = Recipe(epochs or Recipe.default_epochs(images), batch_size, lr, seed, Recipe.default_distort(images))
    arguments = {"width": width} if model_name in RESNETS else {}
    model = build_model(model_name, recipe, len(dataset.class_names), backend=backend, **arguments).to(device)
    try:
        require_batches(model, dataset, recipe, processes)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    settings = {
        "model": model_name,
        **arguments,
        "data": dataset.name,
        "data_checksum": dataset.checksum,
        "backend": backend,
        "device": device,
        "processes": processes.count,
        **asdict(recipe),
    }
    checkpoint = None
    if resume and (out / CHECKPOINT).exists():
        checkpoint = load_checkpoint(out / CHECKPOINT)
        _require_same_settings(out / CHECKPOINT, checkpoint["meta"], settings)
    total_steps = recipe.epochs * steps_per_epoch(dataset, recipe, least_images(model, processes))
    return Job(console, processes, model, dataset, recipe, total_steps, settings, out, checkpoint, **rest)


def _require_same_settings(path: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    for name, value in now.items():
        if before.get(name) != value:
            raise click.ClickException(
                f"{path}: --resume goes on with the same run only: its {name} is {before.get(name)!r}, not {value!r}"
            )


def _device(backend: str, asked: str | None) -> str:
    device = asked or ("cuda" if backend != "emulator" and torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise click.ClickException("--device cuda: torch sees no CUDA device")
    not_there = [("emulator", "cuda"), ("cuda", "cpu")]
    if not backends.triton.INTERPRETED:
        not_there.append(("triton", "cpu"))
    if (backend, device) in not_there:
        raise click.ClickException(f"backend {backend!r} does not run on --device {device}")
    if device == "cuda":
        gpu = int(os.environ.get("LOCAL_RANK", "0"))
        if gpu >= torch.cuda.device_count():
            raise click.ClickException(f"process {gpu} has no GPU: torch sees {torch.cuda.device_count()}")
        torch.cuda.set_device(gpu)
    return device
