"""Training a model on a dataset: the loop, its recipe, and the files that it leaves.

Everything random comes from the seed through generators of the CPU: initial weights, order of the images, their
distortions and (on the CPU) dropout are the same on every backend, so that two backends can be compared step by step.
"""

from __future__ import annotations

import csv
import json
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from cnnkernels.data import Dataset, Part, shake
from cnnkernels.files import replacing
from cnnkernels.models import MODELS

_EVALUATION_BATCH = 250
# How many images a run sees unless told otherwise; the emulator needs about a minute for them.
_IMAGES_SEEN = 32_000
_MOST_EPOCHS = 14
# Fewer images than this are shown distorted, or the model learns them by heart.
_FEW_IMAGES = 5_000


class Diverged(RuntimeError):
    """The loss is no longer a finite number."""


@dataclass(frozen=True)
class Recipe:
    """How a model is trained: Adam, whose learning rate rises for 40 % of the steps and falls to nothing, by cosines.

    The rise is slow for a reason beside stability: two backends whose results differ in the last bit stay together for
    as long as the steps are small.
    """

    epochs: int
    batch_size: int = 32
    learning_rate: float = 0.003
    seed: int = 0
    distort: bool = False

    @staticmethod
    def default_epochs(images: int) -> int:
        """Epochs for a training set of so many images: 14 for the 1,437 digits, 4 for 8,000 of MNIST, 1 for 60,000."""
        return max(1, min(_MOST_EPOCHS, round(_IMAGES_SEEN / images)))

    @staticmethod
    def default_distort(images: int) -> bool:
        """Whether a training set of so many images is shown distorted."""
        return images < _FEW_IMAGES


@dataclass(frozen=True)
class Step:
    """One step of the optimizer: its number from 1, its epoch from 1, the loss before it, the learning rate of it."""

    step: int
    epoch: int
    loss: float
    learning_rate: float


@dataclass(frozen=True)
class Epoch:
    """One epoch: mean loss and accuracy over its training batches, and both on the test images after it."""

    epoch: int
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    seconds: float


@dataclass
class History:
    """What happened in a training run."""

    steps: list[Step] = field(default_factory=list)
    epochs: list[Epoch] = field(default_factory=list)
    interrupted: bool = False


@dataclass(frozen=True)
class Evaluation:
    """A model's mean loss on some images, the share it classifies rightly, and its confusion[true class, answer]."""

    loss: float
    accuracy: float
    confusion: Tensor


def build_model(name: str, recipe: Recipe, num_classes: int, **arguments: Any) -> nn.Module:
    """The model called `name` with the initial weights that the recipe's seed gives; `arguments` are its keywords."""
    torch.manual_seed(recipe.seed)
    return MODELS[name](num_classes=num_classes, **arguments)


def steps_per_epoch(dataset: Dataset, recipe: Recipe) -> int:
    """Steps in one epoch; the last one may have fewer images."""
    return math.ceil(len(dataset.train) / recipe.batch_size)


def train(
    model: nn.Module,
    dataset: Dataset,
    recipe: Recipe,
    *,
    device: str | torch.device = "cpu",
    on_step: Callable[[Step], None] = lambda _: None,
    on_epoch: Callable[[Epoch], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
    max_steps: int | None = None,
) -> History:
    """Train `model`, which is on `device`, in place.

    Args:
        on_step, on_epoch: told of each step and epoch when it is over.
        stop: asked after each step; True ends the run between two steps, with `History.interrupted`.
        max_steps: end the run, without a last epoch's test, after so many steps of the same schedule.

    Raises:
        Diverged: the loss of a step is infinite or NaN.
    """
    optimizer = torch.optim.Adam(model.parameters(), lr=recipe.learning_rate)
    schedule = _schedule(optimizer, recipe, total_steps=recipe.epochs * steps_per_epoch(dataset, recipe))
    # Apart from the generator of the weights and of dropout: a model's own use of it leaves the order of images alone.
    order, distortions = (torch.Generator().manual_seed(recipe.seed + salt) for salt in (0, 1))
    torch.manual_seed(recipe.seed)
    history = History()
    for epoch in range(1, recipe.epochs + 1):
        model.train()
        start, seen, right, total_loss = time.perf_counter(), 0, 0, 0.0
        for rows in torch.randperm(len(dataset.train), generator=order).split(recipe.batch_size):
            images, labels = dataset.batch(dataset.train, rows)
            if recipe.distort:
                images = shake(images, distortions)
            images, labels = images.to(device), labels.to(device)
            scores = model(images)
            # MNISTNet's outputs are logarithms of probabilities already; taking log_softmax again changes nothing.
            loss = functional.cross_entropy(scores, labels)
            step = Step(len(history.steps) + 1, epoch, loss.item(), float(schedule.get_last_lr()[0]))
            if not math.isfinite(step.loss):
                raise Diverged(f"the loss of step {step.step} is {step.loss}: try a smaller learning rate")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            seen += len(rows)
            right += int((scores.argmax(1) == labels).sum())
            total_loss += step.loss * len(rows)
            history.steps.append(step)
            on_step(step)
            if stop():
                history.interrupted = True
                return history
            if step.step == max_steps:
                return history
        tested = evaluate(model, dataset, dataset.test, device=device)
        seconds = time.perf_counter() - start
        history.epochs.append(Epoch(epoch, total_loss / seen, right / seen, tested.loss, tested.accuracy, seconds))
        on_epoch(history.epochs[-1])
    return history


def evaluate(model: nn.Module, dataset: Dataset, part: Part, *, device: str | torch.device = "cpu") -> Evaluation:
    """How well `model`, which is on `device`, does on `part` of the dataset. Leaves it in eval mode."""
    model.eval()
    classes = len(dataset.class_names)
    loss, confusion = 0.0, torch.zeros(classes * classes, dtype=torch.int64)
    with torch.no_grad():
        for start in range(0, len(part), _EVALUATION_BATCH):
            images, labels = dataset.batch(part, slice(start, start + _EVALUATION_BATCH))
            scores = model(images.to(device)).cpu()
            loss += functional.cross_entropy(scores, labels, reduction="sum").item()
            confusion += torch.bincount(labels * classes + scores.argmax(1), minlength=classes * classes)
    confusion = confusion.view(classes, classes)
    return Evaluation(loss / len(part), int(confusion.trace()) / len(part), confusion)


def save_checkpoint(path: Path, model: nn.Module, meta: dict[str, Any]) -> None:
    """Write {"state_dict", "meta"}: CPU tensors and plain values, for `torch.load(path, weights_only=True)`.

    The state_dict is a plain torch model's: `LeNet5(layers=torch.nn).load_state_dict(checkpoint["state_dict"])`.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with replacing(path) as temporary:
        torch.save({"state_dict": state, "meta": meta}, temporary)


def save_metrics(folder: Path, history: History, evaluation: Evaluation | None, meta: dict[str, Any]) -> None:
    """Write metrics.json (everything) and steps.csv (step, epoch, loss, learning_rate) into `folder`."""
    report: dict[str, Any] = {"meta": meta} | asdict(history)
    if evaluation is not None:
        report["test"] = {"loss": evaluation.loss, "accuracy": evaluation.accuracy}
        report["confusion"] = evaluation.confusion.tolist()
    with replacing(folder / "metrics.json") as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n")
    with replacing(folder / "steps.csv") as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Step.__dataclass_fields__)
        writer.writerows(asdict(step).values() for step in history.steps)


@contextmanager
def single_threaded() -> Iterator[None]:
    """Run torch's own CPU operators on one thread inside the block; emulated kernels have threads of their own.

    Layers as small as these are slower on several, which spin between one operator and the next and keep the emulator's
    threads from the cores; and on one thread sums have the same order, losses the same bits, on any number of cores.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Hold back Ctrl-C inside the block: gives a function that says whether it came. A second Ctrl-C acts at once."""
    came = False

    def remember(number: int, frame: FrameType | None) -> None:
        nonlocal came
        came = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, remember)
    try:
        yield lambda: came
    finally:
        signal.signal(signal.SIGINT, before)


def _schedule(optimizer: torch.optim.Optimizer, recipe: Recipe, total_steps: int) -> torch.optim.lr_scheduler.LambdaLR:
    rise = max(1.0, 0.4 * total_steps)

    def factor(step: int) -> float:
        if step < rise:
            return 0.04 + 0.96 * (1 - math.cos(math.pi * step / rise)) / 2
        return (1 + math.cos(math.pi * min(1.0, (step - rise) / max(1.0, total_steps - rise)))) / 2

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
