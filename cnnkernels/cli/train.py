"""`cnnkernels train`: train a small network on real handwriting through our kernels, and show what ran."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import torch
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from cnnkernels import __version__, backends
from cnnkernels.cli.output import (
    kernels_backend,
    make_console,
    print_json,
    require_backend,
    require_extra,
)

if TYPE_CHECKING:
    from rich.console import Console
    from torch import nn

    from cnnkernels.data import Dataset
    from cnnkernels.training import Evaluation, History, Recipe

_MODELS = ("lenet5", "mnistnet")
_INTERRUPTED = 130
# Images in the step that is checked layer by layer; as many as a step usually has would do.
_CHECKED_IMAGES = 64
_SHOWN_IMAGES = 5


@click.command()
@click.argument("model_name", metavar="MODEL", type=click.Choice(_MODELS))
@click.option("--data", default="digits", show_default=True, help="'digits', or a path to MNIST or EMNIST IDX files.")
@click.option(
    "--backend",
    type=click.Choice(backends.NAMES),
    help="Who computes convolutions and poolings.  [default: our kernels: cuda with a GPU, else emulator]",
)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Where tensors live.  [default: the backend's]")
@click.option("--epochs", type=click.IntRange(min=1), help="[default: by the number of images, 1 to 14]")
@click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True)
@click.option(
    "--lr", type=click.FloatRange(min=0, min_open=True), default=0.003, show_default=True, help="At its peak."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the results.  [default: runs/MODEL-DATA]")
@click.option("--json", "json_output", is_flag=True, help="Print the result as JSON; progress goes to stderr.")
@click.pass_context
def train(
    context: click.Context,
    model_name: str,
    data: str,
    backend: str | None,
    device: str | None,
    epochs: int | None,
    batch_size: int,
    lr: float,
    seed: int,
    out: Path | None,
    json_output: bool,
) -> None:
    """Train MODEL (lenet5 or mnistnet) and save checkpoint, metrics and pictures.

    Afterwards every convolution and pooling is checked against fp64 torch on the inputs of one training step, and shown
    with the kernel that ran. Exit code 1 if one of them ran on anything but our kernels (where the backend is one of
    ours) or is too far off; 130 after Ctrl-C, which saves what is there.
    """
    require_extra("train", "matplotlib", "sklearn")
    chosen = backend or kernels_backend()
    require_backend(chosen)
    device = _device(chosen, device)
    from cnnkernels.data import DataError, load_dataset
    from cnnkernels.models import MODELS
    from cnnkernels.training import Diverged, Recipe, build_model, single_threaded

    console = make_console(json_output)
    try:
        dataset = load_dataset(data, MODELS[model_name].input_size)
        out = out or Path("runs") / f"{model_name}-{dataset.name}"
        out.mkdir(parents=True, exist_ok=True)
    except (DataError, OSError) as error:
        raise click.ClickException(str(error)) from error
    images = len(dataset.train)
    recipe = Recipe(epochs or Recipe.default_epochs(images), batch_size, lr, seed, Recipe.default_distort(images))
    model = build_model(model_name, recipe, len(dataset.class_names), backend=chosen).to(device)
    _print_plan(console, model_name, model, dataset, recipe, chosen, device)
    try:
        with single_threaded():
            result = _train_and_check(console, model_name, model, dataset, recipe, chosen, device, out)
    except Diverged as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"{out}: {error.strerror or error}") from error
    if json_output:
        print_json(result)
    context.exit(_INTERRUPTED if result["interrupted"] else int(not result.get("passed", True)))


def _train_and_check(
    console: Console,
    model_name: str,
    model: nn.Module,
    dataset: Dataset,
    recipe: Recipe,
    backend: str,
    device: str,
    out: Path,
) -> dict[str, Any]:
    """Train, save, check; what came of it, for --json."""
    from cnnkernels.training import evaluate

    start = time.perf_counter()
    history = _train_with_progress(console, model, dataset, recipe, device)
    result: dict[str, Any] = {
        "cnnkernels": __version__,
        "model": model_name,
        "num_classes": len(dataset.class_names),
        "class_names": list(dataset.class_names),
        "input_size": dataset.input_size,
        "data": dataset.name,
        "preparation": dataset.preparation,
        "pixel_mean": dataset.mean * dataset.white,
        "pixel_std": dataset.std * dataset.white,
        "backend": backend,
        "device": device,
        **asdict(recipe),
        "steps": len(history.steps),
        "interrupted": history.interrupted,
        "seconds": time.perf_counter() - start,
    }
    evaluation = None if history.interrupted else evaluate(model, dataset, dataset.test, device=device)
    files = _save(out, model, dataset, history, evaluation, result, device)
    if evaluation is None:
        console.print(f"[yellow]interrupted[/] after step {len(history.steps):,}")
    else:
        right, of = round(evaluation.accuracy * len(dataset.test)), len(dataset.test)
        seconds = result["seconds"]
        console.print(
            f"[bold]{evaluation.accuracy:.2%}[/] of the test images right ({right:,} of {of:,}), {seconds:.0f} s"
        )
        result |= {"test_loss": evaluation.loss, "test_accuracy": evaluation.accuracy}
    console.print(f"saved in {escape(str(out))}: {', '.join(files)}")
    result["files"] = {name: str(out / name) for name in files}
    return result if evaluation is None else result | _check_layers(console, model, dataset, backend, device)


def _device(backend: str, asked: str | None) -> str:
    device = asked or ("cuda" if backend != "emulator" and torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise click.ClickException("--device cuda: torch sees no CUDA device")
    if (backend, device) in (("emulator", "cuda"), ("cuda", "cpu"), ("triton", "cpu")):
        raise click.ClickException(f"backend {backend!r} does not run on --device {device}")
    return device


def _print_plan(
    console: Console, name: str, model: nn.Module, dataset: Dataset, recipe: Recipe, backend: str, device: str
) -> None:
    runs = {
        "emulator": "emulator: our CUDA kernels, run thread by thread on the CPU",
        "cuda": "cuda: our kernels on the GPU",
        "torch": f"torch: torch's own operators, on {device}",
        "auto": f"auto: torch's own operators on the CPU, ours on a GPU; here on {device}",
    }
    parameters = sum(parameter.numel() for parameter in model.parameters())
    distorted = ", images turned, scaled and moved a little" if recipe.distort else ""
    lines = {
        "model": f"{name}, {parameters:,} parameters",
        "data": f"{dataset.description}; {dataset.preparation}",
        "backend": runs.get(backend, backend),
        "recipe": f"Adam, {recipe.epochs} epochs, batch {recipe.batch_size}, "
        f"peak learning rate {recipe.learning_rate:g}, seed {recipe.seed}{distorted}",
    }
    table = Table.grid(padding=(0, 2, 0, 0))
    for heading, text in lines.items():
        table.add_row(f"[bold cyan]{heading}[/]", escape(text))
    console.print(table)
    console.print()


def _train_with_progress(console: Console, model: nn.Module, dataset: Dataset, recipe: Recipe, device: str) -> History:
    from cnnkernels.training import Epoch, Step, interruptible, steps_per_epoch, train

    columns = (
        TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
        BarColumn(40),
        TextColumn("step {task.completed}/{task.total}  loss {task.fields[loss]:.4f}"),
        TimeRemainingColumn(),
    )
    total = recipe.epochs * steps_per_epoch(dataset, recipe)
    progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    with progress as bar, interruptible() as interrupted:
        task = bar.add_task("", total=total, epoch=1, epochs=recipe.epochs, loss=float("nan"))

        def show_step(step: Step) -> None:
            bar.update(task, completed=step.step, epoch=step.epoch, loss=step.loss)

        def show_epoch(epoch: Epoch) -> None:
            bar.console.print(
                f"epoch {epoch.epoch:2}/{recipe.epochs}   loss {epoch.train_loss:.4f}   "
                f"train {epoch.train_accuracy:7.2%}   test {epoch.test_accuracy:7.2%}   {epoch.seconds:5.1f} s"
            )

        return train(model, dataset, recipe, device=device, on_step=show_step, on_epoch=show_epoch, stop=interrupted)


def _save(
    out: Path,
    model: nn.Module,
    dataset: Dataset,
    history: History,
    evaluation: Evaluation | None,
    meta: dict[str, Any],
    device: str,
) -> list[str]:
    from cnnkernels.plots import plot_confusion, plot_curves, plot_features
    from cnnkernels.training import save_checkpoint, save_metrics

    save_checkpoint(out / "checkpoint.pt", model, meta)
    save_metrics(out, history, evaluation, meta)
    title = f"{meta['model']} on {dataset.name}, backend {meta['backend']}"
    plot_curves(out / "curves.png", history, title)
    files = ["checkpoint.pt", "metrics.json", "steps.csv", "curves.png"]
    if evaluation is not None:
        right = f"{evaluation.accuracy:.2%} of {len(dataset.test):,} test images right"
        plot_confusion(out / "confusion.png", evaluation, dataset.class_names, f"{title}: {right}")
        shown = _one_of_each_class(dataset)
        plot_features(out / "features.png", model.conv1, shown.to(device), f"{title}: what conv1 has learned")  # type: ignore[arg-type]
        files += ["confusion.png", "features.png"]
    return files


def _one_of_each_class(dataset: Dataset) -> Any:
    """The first test image of the first few classes that have any."""
    labels = dataset.test.labels
    firsts = [int((labels == label).nonzero()[0]) for label in labels.unique()[:_SHOWN_IMAGES]]
    return dataset.batch(dataset.test, torch.tensor(firsts))[0]


def _check_layers(console: Console, model: nn.Module, dataset: Dataset, backend: str, device: str) -> dict[str, Any]:
    """Print the table of layers; the same for --json, empty where there are no kernels of ours to check."""
    if backend == "torch" or (backend == "auto" and device == "cpu"):
        console.print(f"backend {backend}: torch's own operators ran, so there are no kernels of ours to check")
        return {}
    from cnnkernels.cli.layer_table import layers_as_json, print_layers
    from cnnkernels.testing.layers import check_layers

    images, labels = dataset.batch(dataset.test, slice(_CHECKED_IMAGES))
    report = check_layers(model, images.to(device), labels.to(device))
    console.print()
    print_layers(console, report, len(images))
    return {"layers": layers_as_json(report), "problems": list(report.problems), "passed": report.passed}
