"""Training a model on a dataset: the loop and its recipe.

Everything random comes from the seed through generators of the CPU: initial weights, order of the images, their
distortions and (on the CPU) dropout are the same on every backend, so that two backends can be compared step by step.

A run can be broken off and taken up again: a checkpoint holds all that the next step depends on, so that the resumed run
gives the bits of an unbroken one. Several processes can do it together (cnnkernels.distributed): each takes its part of
every batch, and losses and gradients are those of the whole batch.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from cnnkernels.data import Dataset, Part, shake
from cnnkernels.distributed import ALONE, Processes
from cnnkernels.models import MODELS, RESNETS

_EVALUATION_BATCH = 250
# A ResNet takes any size. Its first two layers and its stages halve this one to a single pixel.
_RESNET_INPUT_SIZE = 32
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
    """What happened in a training run, in all its parts; `seconds` of training and testing."""

    steps: list[Step] = field(default_factory=list)
    epochs: list[Epoch] = field(default_factory=list)
    interrupted: bool = False
    seconds: float = 0.0


@dataclass(frozen=True)
class Evaluation:
    """A model's mean loss on some images, the share it classifies rightly, and its confusion[true class, answer]."""

    loss: float
    accuracy: float
    confusion: Tensor


def input_size(name: str) -> int:
    """The side of the square images that the model called `name` is trained on."""
    return _RESNET_INPUT_SIZE if name in RESNETS else MODELS[name].input_size


def build_model(name: str, recipe: Recipe, num_classes: int, **arguments: Any) -> nn.Module:
    """The model called `name`, for images of one channel, with the initial weights that the recipe's seed gives.

    `arguments` are its keywords: `backend`, `layers` and, of the residual networks, `width`.
    """
    torch.manual_seed(recipe.seed)
    if name in RESNETS:
        return RESNETS[name](in_channels=1, num_classes=num_classes, **arguments)
    return MODELS[name](num_classes=num_classes, **arguments)


def least_images(model: nn.Module, processes: Processes = ALONE) -> int:
    """The fewest images that a training step of `model` takes.

    BatchNorm needs two values per channel in each process, and a ResNet's last maps have one pixel here.
    """
    normalised = any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    return 2 * processes.count if normalised else 1


def steps_per_epoch(dataset: Dataset, recipe: Recipe, least: int = 1) -> int:
    """Steps in one epoch; the last one may have fewer images, or more: fewer than `least` join the batch before them."""
    images = len(dataset.train)
    return max(1, math.ceil(images / recipe.batch_size) - (0 < images % recipe.batch_size < least))


def require_batches(model: nn.Module, dataset: Dataset, recipe: Recipe, processes: Processes = ALONE) -> None:
    """Raise ValueError where `model` cannot be trained on batches, or on a dataset, of so few images."""
    least, images = least_images(model, processes), len(dataset.train)
    if min(recipe.batch_size, images) < least:
        raise ValueError(
            f"BatchNorm needs at least {least} images in a batch, two for each process: "
            f"the batch size is {recipe.batch_size}, and there are {images} images to train"
        )


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
    processes: Processes = ALONE,
    resume: dict[str, Any] | None = None,
    on_checkpoint: Callable[[dict[str, Any], History], None] | None = None,
    checkpoint_every: int = 100,
) -> History:
    """Train `model`, which is on `device`, in place.

    Args:
        on_step, on_epoch: told of each step and epoch when it is over.
        stop: asked after each step; True ends the run between two steps, with `History.interrupted`. Of several
            processes, one that says so ends the run of all.
        max_steps: end the run, without a last epoch's test, after so many steps of the same schedule, counted from the
            run's beginning.
        processes: those that do this run together, each with the same arguments. `recipe.batch_size` is of all of them.
        resume: what `on_checkpoint` was given in a run with the same arguments: go on from there. Its tensors become the
            run's own.
        on_checkpoint: given, in the first process, the run's state for `save_checkpoint` (valid until it returns: tensors
            are the run's own) and its history: every `checkpoint_every` steps, after every epoch, where the run ends.

    Raises:
        Diverged: the loss of a step is infinite or NaN.
        ValueError: a batch has fewer images than BatchNorm needs.
    """
    run = _Run(model, dataset, recipe, torch.device(device), processes)
    if resume is not None:
        run.restore(resume)
    history = run.history

    def checkpoint() -> None:
        if on_checkpoint is not None:
            state = run.state()
            if processes.first:
                on_checkpoint(state, history)

    while len(history.epochs) < recipe.epochs:
        for rows in run.batches_left():
            if max_steps is not None and len(history.steps) >= max_steps:
                return history
            on_step(run.step(rows))
            steps = len(history.steps)
            history.interrupted = any(processes.total(stop()))
            if history.interrupted or steps == max_steps:
                checkpoint()
                return history
            if steps % checkpoint_every == 0:
                checkpoint()
        on_epoch(run.finish_epoch())
        checkpoint()
    return history


class _Run:
    """A training run between two steps: what the next step depends on, beside the images and the recipe."""

    def __init__(
        self, model: nn.Module, dataset: Dataset, recipe: Recipe, device: torch.device, processes: Processes
    ) -> None:
        self.model, self.dataset, self.recipe, self.device, self.processes = model, dataset, recipe, device, processes
        require_batches(model, dataset, recipe, processes)
        self.parallel = processes.parallel(model)
        self.optimizer = torch.optim.Adam(model.parameters(), lr=recipe.learning_rate)
        self.steps_per_epoch = steps_per_epoch(dataset, recipe, least_images(model, processes))
        self.schedule = _schedule(self.optimizer, recipe, total_steps=recipe.epochs * self.steps_per_epoch)
        # Apart from the generator of the weights and of dropout: a model's own use of it leaves the order of images alone.
        self.order, self.distortions = (torch.Generator().manual_seed(recipe.seed + salt) for salt in (0, 1))
        torch.manual_seed(recipe.seed + processes.rank)  # one dropout for all would drop the same units in each part
        self.history = History()
        self._begin_epoch()

    def _begin_epoch(self) -> None:
        self.order_at_epoch = self.order.get_state()
        self.images_seen, self.images_right, self.loss_seen, self.seconds_before = 0, 0, 0.0, self.history.seconds

    def state(self) -> dict[str, Any]:
        """All of it, for `restore`: the weights as {"state_dict"}, the rest as {"run"}."""
        rng = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            rng["cuda"] = torch.cuda.get_rng_state(self.device)
        run = {
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "order": self.order_at_epoch,
            "distortions": self.distortions.get_state(),
            "rng": self.processes.gather(rng),
            "epoch": (self.images_seen, self.images_right, self.loss_seen, self.seconds_before),
            "steps": [astuple(step) for step in self.history.steps],
            "epochs": [astuple(epoch) for epoch in self.history.epochs],
            "seconds": self.history.seconds,
        }
        return {"state_dict": self.model.state_dict(), "run": run}

    def restore(self, state: dict[str, Any]) -> None:
        """Be as the run was when it gave `state`."""
        self.model.load_state_dict(state["state_dict"])
        run = state["run"]
        self.optimizer.load_state_dict(run["optimizer"])
        self.schedule.load_state_dict(run["schedule"])
        self.order.set_state(run["order"])
        self.distortions.set_state(run["distortions"])
        self.history = recorded_history(state)
        self._begin_epoch()
        self.images_seen, self.images_right, self.loss_seen, self.seconds_before = run["epoch"]
        rng = run["rng"][self.processes.rank]
        torch.set_rng_state(rng["cpu"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(rng["cuda"], self.device)

    def batches_left(self) -> list[Tensor]:
        """The rows of the training images in each batch that this epoch still has, whoever takes them."""
        self.model.train()
        order = torch.randperm(len(self.dataset.train), generator=self.order)
        whole = self.steps_per_epoch - 1
        sizes = [self.recipe.batch_size] * whole
        batches = order.split([*sizes, len(order) - sum(sizes)])
        return list(batches[len(self.history.steps) - len(self.history.epochs) * self.steps_per_epoch :])

    def step(self, rows: Tensor) -> Step:
        """One step of the optimizer on the images that `rows` name: in each process, on its share of them."""
        start = time.perf_counter()
        images, labels = self.dataset.batch(self.dataset.train, rows)
        if self.recipe.distort:
            images = shake(images, self.distortions)  # all of them in every process: it draws for each image in turn
        images, labels = (self.processes.share(tensor).to(self.device) for tensor in (images, labels))
        scores = self.parallel(images)
        # MNISTNet's outputs are logarithms of probabilities already; taking log_softmax again changes nothing.
        loss_sum = functional.cross_entropy(scores, labels, reduction="sum")
        total_loss, right = self.processes.total(loss_sum.item(), int((scores.argmax(1) == labels).sum()))
        number, epoch = len(self.history.steps) + 1, len(self.history.epochs) + 1
        step = Step(number, epoch, total_loss / len(rows), float(self.schedule.get_last_lr()[0]))
        if not math.isfinite(step.loss):
            raise Diverged(f"the loss of step {step.step} is {step.loss}: try a smaller learning rate")
        self.optimizer.zero_grad()
        # The processes' gradients are averaged, their shares may differ in size: this makes it the mean over `rows`.
        (loss_sum * (self.processes.count / len(rows))).backward()
        self.optimizer.step()
        self.schedule.step()
        self.images_seen += len(rows)
        self.images_right += int(right)
        self.loss_seen += total_loss
        self.history.steps.append(step)
        self.history.seconds += time.perf_counter() - start
        return step

    def finish_epoch(self) -> Epoch:
        """Test the model, after the last batch of an epoch."""
        start = time.perf_counter()
        tested = evaluate(self.model, self.dataset, self.dataset.test, device=self.device, processes=self.processes)
        self.history.seconds += time.perf_counter() - start
        epoch = Epoch(
            len(self.history.epochs) + 1,
            self.loss_seen / self.images_seen,
            self.images_right / self.images_seen,
            tested.loss,
            tested.accuracy,
            self.history.seconds - self.seconds_before,
        )
        self.history.epochs.append(epoch)
        self._begin_epoch()
        return epoch


def evaluate(
    model: nn.Module,
    dataset: Dataset,
    part: Part,
    *,
    device: str | torch.device = "cpu",
    processes: Processes = ALONE,
) -> Evaluation:
    """How well `model`, which is on `device`, does on `part` of the dataset. Leaves it in eval mode.

    Several processes share the images, and each gets the whole result; buffers become the first one's.
    """
    processes.equal_buffers(model)
    model.eval()
    classes = len(dataset.class_names)
    loss, confusion = 0.0, torch.zeros(classes * classes, dtype=torch.int64)
    with torch.no_grad():
        for start in range(processes.rank * _EVALUATION_BATCH, len(part), processes.count * _EVALUATION_BATCH):
            images, labels = dataset.batch(part, slice(start, start + _EVALUATION_BATCH))
            scores = model(images.to(device)).cpu()
            loss += functional.cross_entropy(scores, labels, reduction="sum").item()
            confusion += torch.bincount(labels * classes + scores.argmax(1), minlength=classes * classes)
    loss, *counts = processes.total(loss, *confusion.tolist())
    confusion = torch.tensor(counts).long().view(classes, classes)
    return Evaluation(loss / len(part), int(confusion.trace()) / len(part), confusion)


def recorded_history(state: dict[str, Any]) -> History:
    """What had happened in a run when it gave `state`."""
    run = state["run"]
    steps, epochs = [Step(*step) for step in run["steps"]], [Epoch(*epoch) for epoch in run["epochs"]]
    return History(steps, epochs, seconds=run["seconds"])


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
