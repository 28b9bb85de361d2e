"""`cnnkernels train`: train a network on real handwriting through our kernels, and show what ran."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
import torch
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from cnnkernels import backends
from cnnkernels.cli.output import INTERRUPTED, make_console, print_json
from cnnkernels.cli.training_job import CHECKPOINT, Job, prepare
from cnnkernels.models import MODELS, RESNETS

if TYPE_CHECKING:
    from cnnkernels.data import Dataset
    from cnnkernels.distributed import Processes
    from cnnkernels.training import Evaluation, History, Step

_RESNET_WIDTH = 64
# Images in the step that is checked layer by layer; as many as a step usually has would do.
_CHECKED_IMAGES = 64
_SHOWN_IMAGES = 5


@click.command()
@click.argument("model_name", metavar="MODEL", type=click.Choice([*MODELS, *RESNETS]))
@click.option(
    "--data",
    default="digits",
    show_default=True,
    help="'digits' (scikit-learn's), or PATH: a folder with MNIST's or one EMNIST split's IDX files, gzipped or not "
    "(train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-...), or one of these files. Where only the training or only "
    "the test files are there, the first 80 % of them train. Other formats are not read.",
)
@click.option(
    "--width",
    type=click.IntRange(min=1),
    help=f"Channels of a ResNet's first stage; 4 to 16 suit the emulator.  [default: {_RESNET_WIDTH}]",
)
@click.option(
    "--backend",
    type=click.Choice(backends.NAMES),
    help="Who computes convolutions and poolings.  [default: our kernels: cuda with a GPU, else emulator]",
)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Where tensors live.  [default: the backend's]")
@click.option("--epochs", type=click.IntRange(min=1), help="[default: by the number of images, 1 to 14]")
@click.option(
    "--batch-size", type=click.IntRange(min=1), default=32, show_default=True, help="Of all processes together."
)
@click.option(
    "--lr", type=click.FloatRange(min=0, min_open=True), default=0.003, show_default=True, help="At its peak."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--max-steps", type=click.IntRange(min=1), help="End after so many steps; --resume goes on from there.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the results.  [default: runs/MODEL-DATA]")
@click.option("--resume", is_flag=True, help=f"Go on from {CHECKPOINT} in the results, where there is one.")
@click.option(
    "--checkpoint-every",
    type=click.IntRange(min=1),
    metavar="STEPS",
    default=100,
    show_default=True,
    help="Also after every epoch and at the end.",
)
@click.option(
    "--log", type=click.Path(path_type=Path), help="Write each step's loss to this file as it comes: JSON lines."
)
@click.option("--json", "json_output", is_flag=True, help="Print the result as JSON; progress goes to stderr.")
@click.pass_context
def train(context: click.Context, model_name: str, width: int | None, json_output: bool, **options: Any) -> None:
    """Train MODEL and save checkpoint, metrics and pictures.

    MODEL is lenet5, mnistnet, or resnet18, resnet34, resnet50, resnet101 or resnet152 for images of one channel. lenet5 and
    the ResNets see 32x32 pixels (28x28 images get a border of background, others are scaled), mnistnet 28x28.

    Afterwards every convolution and pooling is checked against fp64 torch on the inputs of one training step, and shown
    with the kernel that ran. Exit code 1 if one of them ran on anything but our kernels (where the backend is one of
    ours) or is too far off.

    Ctrl-C saves what is there (exit code 130). However a run ended, the same command with --resume goes on from its last
    checkpoint, and gives bit for bit what the unbroken run would have given.

    `torchrun --nproc_per_node 2 -m cnnkernels.cli train ...` shares every batch among processes; the first one prints and
    writes. Losses and gradients are those of the whole batch, but BatchNorm uses the statistics of each process's share.
    """
    if model_name not in RESNETS and width is not None:
        raise click.BadParameter(f"{model_name} has one width only", param_hint="--width")
    from cnnkernels.distributed import joined_processes
    from cnnkernels.training import single_threaded

    with _plain_errors(), joined_processes() as processes, single_threaded():
        console = make_console(json_output) if processes.first else Console(quiet=True)
        job = _together(processes, lambda: prepare(console, processes, model_name, width or _RESNET_WIDTH, **options))
        result = _train_and_check(job)
    if json_output and processes.first:
        print_json(result)
    context.exit(INTERRUPTED if result["interrupted"] else int(not result.get("passed", True)))


@contextmanager
def _plain_errors() -> Iterator[None]:
    """What can go wrong outside this program, in one line; of an error that all processes have, the first tells."""
    from cnnkernels.distributed import lost_connection
    from cnnkernels.training import Diverged

    try:
        yield
    except Diverged as error:
        _fail(str(error), silent=os.environ.get("RANK", "0") != "0")
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except RuntimeError as error:
        if not lost_connection(error):
            raise
        _fail(f"process {os.environ.get('RANK')}: another process of this run has ended ({str(error).splitlines()[0]})")


def _fail(message: str, silent: bool = False) -> NoReturn:
    raise click.exceptions.Exit(1) if silent else click.ClickException(message)


def _together(processes: Processes, make: Callable[[], Job]) -> Job:
    """The job that `make` makes. Where it cannot in one process, or not the same one, all end; the first tells why."""
    from cnnkernels.data import DataError

    job, failure = None, None
    try:
        job = make()
    except click.ClickException as error:
        failure = error.format_message()
    except (DataError, OSError) as error:
        failure = str(error)
    failures = [failure for failure in processes.gather(failure) if failure is not None]
    if failures:
        _fail("; ".join(dict.fromkeys(failures)), silent=not processes.first)
    assert job is not None
    jobs = processes.gather((job.settings, job.first_step))
    if any(other != jobs[0] for other in jobs):
        _fail(f"{job.out}: the processes see different data or checkpoints", silent=not processes.first)
    return job


def _train_and_check(job: Job) -> dict[str, Any]:
    """Train, save, check; what came of it, for --json."""
    from cnnkernels.training import evaluate

    console, dataset = job.console, job.dataset
    _print_plan(job)
    history = _train_with_progress(job)
    result = job.meta(history)
    evaluation = None
    if not history.interrupted:
        evaluation = evaluate(job.model, dataset, dataset.test, device=job.device, processes=job.processes)
    if not job.processes.first:
        return result
    files = _save(job, history, evaluation, result)
    if evaluation is None:
        console.print(f"[yellow]interrupted[/] after step {len(history.steps):,}; with --resume it goes on from there")
    else:
        right, of = round(evaluation.accuracy * len(dataset.test)), len(dataset.test)
        console.print(
            f"[bold]{evaluation.accuracy:.2%}[/] of the test images right ({right:,} of {of:,}), {history.seconds:.0f} s"
        )
        result |= {"test_loss": evaluation.loss, "test_accuracy": evaluation.accuracy}
    console.print(f"saved in {escape(str(job.out))}: {', '.join(files)}")
    result["files"] = {name: str(job.out / name) for name in files}
    return result if evaluation is None else result | _check_layers(job)


def _print_plan(job: Job) -> None:
    recipe, device, model = job.recipe, job.device, job.model
    runs = {
        "emulator": "emulator: our CUDA kernels, run thread by thread on the CPU",
        "cuda": "cuda: our kernels on the GPU",
        "torch": f"torch: torch's own operators, on {device}",
        "auto": f"auto: torch's own operators on the CPU, ours on a GPU; here on {device}",
    }
    parameters = sum(parameter.numel() for parameter in model.parameters())
    distorted = ", images turned, scaled and moved a little" if recipe.distort else ""
    width = f" of width {job.settings['width']}" if "width" in job.settings else ""
    processes = f"; {job.processes.count} processes share each batch" if job.processes.count > 1 else ""
    lines = {
        "model": f"{job.name}{width}, {parameters:,} parameters",
        "data": f"{job.dataset.description}; {job.dataset.preparation}",
        "backend": runs.get(job.backend, job.backend) + processes,
        "recipe": f"Adam, {recipe.epochs} epochs, batch {recipe.batch_size}, "
        f"peak learning rate {recipe.learning_rate:g}, seed {recipe.seed}{distorted}",
    }
    if job.checkpoint is not None:
        lines["resumed"] = f"after step {job.first_step:,} of {job.total_steps:,}"
    table = Table.grid(padding=(0, 2, 0, 0))
    for heading, text in lines.items():
        table.add_row(f"[bold cyan]{heading}[/]", escape(text))
    job.console.print(table)
    job.console.print()


def _train_with_progress(job: Job) -> History:
    from cnnkernels.training import Epoch, interruptible, train
    from cnnkernels.training_files import save_checkpoint

    console, epochs = job.console, job.recipe.epochs
    columns = (
        TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
        BarColumn(40),
        TextColumn("step {task.completed}/{task.total}  loss {task.fields[loss]:.4f}"),
        TimeRemainingColumn(),
    )
    shown = console.is_terminal and job.processes.first
    progress = Progress(*columns, console=console, transient=True, disable=not shown)
    with progress as bar, _step_log(job) as write_step, interruptible() as interrupted:
        task = bar.add_task("", total=job.total_steps, epoch=1, epochs=epochs, loss=float("nan"))

        def show_step(step: Step) -> None:
            write_step(step)
            bar.update(task, completed=step.step, epoch=step.epoch, loss=step.loss)

        def show_epoch(epoch: Epoch) -> None:
            bar.console.print(
                f"epoch {epoch.epoch:2}/{epochs}   loss {epoch.train_loss:.4f}   "
                f"train {epoch.train_accuracy:7.2%}   test {epoch.test_accuracy:7.2%}   {epoch.seconds:5.1f} s"
            )

        def save(state: dict[str, Any], history: History) -> None:
            save_checkpoint(job.out / CHECKPOINT, state, job.meta(history))
            # Where no bar is drawn, a long epoch is not silent either; after its test it has its own line.
            last = history.steps[-1]
            if not shown and last.step % job.checkpoint_every == 0 and last.epoch > len(history.epochs):
                bar.console.print(f"step {last.step:,}/{job.total_steps:,}   loss {last.loss:.4f}")

        return train(
            job.model,
            job.dataset,
            job.recipe,
            device=job.device,
            on_step=show_step,
            on_epoch=show_epoch,
            stop=interrupted,
            max_steps=job.max_steps,
            processes=job.processes,
            resume=job.checkpoint,
            on_checkpoint=save,
            checkpoint_every=job.checkpoint_every,
        )


@contextmanager
def _step_log(job: Job) -> Iterator[Callable[[Step], None]]:
    """A function that appends a step to --log; the file begins with the steps that the run already has."""
    from cnnkernels.training import recorded_history

    if job.log is None or not job.processes.first:
        yield lambda step: None
        return
    with job.log.open("w", buffering=1) as file:

        def write(step: Step) -> None:
            file.write(json.dumps(asdict(step)) + "\n")

        for step in recorded_history(job.checkpoint).steps if job.checkpoint is not None else ():
            write(step)
        yield write


def _save(job: Job, history: History, evaluation: Evaluation | None, meta: dict[str, Any]) -> list[str]:
    from cnnkernels.plots import plot_confusion, plot_curves, plot_features
    from cnnkernels.training_files import save_metrics

    out, dataset = job.out, job.dataset
    save_metrics(out, history, evaluation, meta)
    title = f"{job.name} on {dataset.name}, backend {job.backend}"
    plot_curves(out / "curves.png", history, title)
    files = [CHECKPOINT, "metrics.json", "steps.csv", "curves.png"]
    if evaluation is not None:
        right = f"{evaluation.accuracy:.2%} of {len(dataset.test):,} test images right"
        plot_confusion(out / "confusion.png", evaluation, dataset.class_names, f"{title}: {right}")
        shown = _one_of_each_class(dataset)
        plot_features(out / "features.png", job.model.conv1, shown.to(job.device), f"{title}: what conv1 has learned")  # type: ignore[arg-type]
        files += ["confusion.png", "features.png"]
    return files


def _one_of_each_class(dataset: Dataset) -> Any:
    """The first test image of the first few classes that have any."""
    labels = dataset.test.labels
    firsts = [int((labels == label).nonzero()[0]) for label in labels.unique()[:_SHOWN_IMAGES]]
    return dataset.batch(dataset.test, torch.tensor(firsts))[0]


def _check_layers(job: Job) -> dict[str, Any]:
    """Print the table of layers; the same for --json, empty where there are no kernels of ours to check."""
    console, backend, device = job.console, job.backend, job.device
    if backend == "torch" or (backend == "auto" and device == "cpu"):
        console.print(f"backend {backend}: torch's own operators ran, so there are no kernels of ours to check")
        return {}
    from cnnkernels.cli.layer_table import layers_as_json, print_layers
    from cnnkernels.testing.layers import check_layers

    images, labels = job.dataset.batch(job.dataset.train, slice(_CHECKED_IMAGES))
    report = check_layers(job.model, images.to(device), labels.to(device))
    console.print()
    print_layers(console, report, len(images))
    return {"layers": layers_as_json(report), "problems": list(report.problems), "passed": report.passed}
