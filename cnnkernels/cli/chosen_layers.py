"""Which layers a command is about: published suites and a user's models, by the options that `bench` and `tune` share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.markup import escape

if TYPE_CHECKING:
    from rich.console import Console
    from torch import nn

    from cnnkernels.bench.suites import Suite

#: A model's specification, itself, and the shape of its input with the batch.
ChosenModel = tuple[str, "nn.Module", tuple[int, ...]]

_Command = TypeVar("_Command", bound=Callable[..., Any])

_USUAL_BATCH = 32  # of a model, which unlike a suite does not say


def layer_options(*more_dtypes: str) -> Callable[[_Command], _Command]:
    """The options that `choose` and its callers take: --suite, --model, --batch, --dtype, --layout."""
    dtypes = ["f64", "f32", "f16", "bf16", *more_dtypes]
    options = (
        click.option(
            "--suite", "suites", multiple=True, help="A published layer set, or all. `cnnkernels bench --list`."
        ),
        click.option(
            "--model", "models", multiple=True, help="A model: lenet5, torchvision:NAME, timm:NAME, file.py:factory."
        ),
        click.option(
            "--batch", type=click.IntRange(1), help="Images per batch.  [default: the suite's; 32 for a model]"
        ),
        click.option("--dtype", "dtypes", multiple=True, type=click.Choice(dtypes), help="Repeatable."),
        click.option(
            "--layout", "layouts", multiple=True, type=click.Choice(["nchw", "channels_last"]), help="[default: both]"
        ),
    )

    def add(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def choose(
    console: Console,
    suites: tuple[str, ...],
    models: tuple[str, ...],
    batch: int | None = None,
    input_shape: tuple[int, int, int] | None = None,
) -> tuple[list[Suite], list[ChosenModel]]:
    """The suites asked for, one collected from each model after them, and the models.

    What a model has that cannot be stated as a layer is printed. Raises click's exceptions for names that do not exist.
    """
    from cnnkernels.bench import suites as published
    from cnnkernels.bench.collect import collect
    from cnnkernels.models.load import load_model

    if not suites and not models:
        raise click.UsageError(
            "name the layers: --suite lenet5, --model torchvision:resnet50; `cnnkernels bench --list`"
        )
    chosen: list[Suite] = []
    loaded: list[ChosenModel] = []
    try:
        for name in suites:
            suite = published.load(name)
            chosen.append(suite.with_batch(batch) if batch else suite)
        for specification in models:
            model, usual_shape = load_model(specification)
            shape = (batch or _USUAL_BATCH, *(input_shape or usual_shape))
            suite = collect(model, shape, specification)
            for layer, reason in suite.left_out:
                console.print(f"[yellow]left out[/] {escape(specification)} {escape(layer)}: {escape(reason)}")
            for notice in suite.notices:
                console.print(f"[dim]{escape(notice)}[/]")
            chosen.append(suite)
            loaded.append((specification, model, shape))
    except (ValueError, ImportError) as error:
        raise click.ClickException(str(error)) from error
    return chosen, loaded
