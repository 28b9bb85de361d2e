"""`cnnkernels bench`: time our kernels and torch's on the layers of real networks."""

from __future__ import annotations

import shlex
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cnnkernels.cli.chosen_layers import choose, layer_options
from cnnkernels.cli.output import make_console, print_json

if TYPE_CHECKING:
    from rich.console import Console

    from cnnkernels.bench.measuring import Settings
    from cnnkernels.bench.runner import Order
    from cnnkernels.bench.store import Row
    from cnnkernels.bench.suites import Suite

_NOT_GPU = (
    "These are not GPU times: the emulator runs our kernels thread by thread on the CPU, to check them, not for speed."
)


@click.command()
@layer_options("tf32")
@click.option("--layer", "layers", multiple=True, help="Only layers with this in their name; repeatable.")
@click.option("--input", "input_shape", help="C,H,W of a model's input, instead of its usual one.")
@click.option("--sweep", is_flag=True, help="Every batch size that the suite lists.")
@click.option(
    "--pass", "passes", multiple=True, help="fprop, dgrad, wgrad, forward, backward, fprop_relu, fprop_add_relu."
)
@click.option(
    "--provider",
    "providers",
    multiple=True,
    help="Only these: cuda, emulator, torch-eager, 'torch-*', ...; repeatable.",
)
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    type=click.Choice(["time", "latency", "model"]),
    help="Kernels' time, single eager calls, whole models.  [default: time and latency; with --model also model]",
)
@click.option(
    "--data",
    type=click.Choice(["normal", "relu"]),
    default="normal",
    show_default=True,
    help="Activations N(0, 1), or those with the negative half set to 0.",
)
@click.option("--hot", is_flag=True, help="The same buffers again and again, instead of cold caches.")
@click.option(
    "--samples", type=click.IntRange(1), default=50, show_default=True, help="Per provider and case, at most."
)
@click.option(
    "--seconds",
    type=click.FloatRange(0),
    help="Sampling per provider and case, at most.  [default: 1 on a GPU, 0.1 on a CPU]",
)
@click.option("--budget", type=click.FloatRange(0), help="Begin no new case after so many seconds; --resume goes on.")
@click.option(
    "--longest-call",
    type=click.FloatRange(0),
    default=10.0,
    show_default=True,
    help="Skip emulator calls that would take more seconds than this.",
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--device", type=click.Choice(["cuda", "cpu"]), help="[default: cuda where there is one]")
@click.option(
    "--results",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where results are kept.  [default: benchmarks/results]",
)
@click.option(
    "--resume", is_flag=True, help="Leave out what earlier runs on this machine with this build have measured."
)
@click.option("--list", "list_only", is_flag=True, help="List the suites, or what would be measured; measure nothing.")
@click.option("--json", "json_output", is_flag=True, help="Print the rows as JSON.")
@click.pass_context
def bench(
    context: click.Context, json_output: bool, list_only: bool, results: Path | None, device: str | None, **options: Any
) -> None:
    """Time our kernels, torch's and cuDNN's on the layers of real networks.

    In both layouts, in bf16 on a GPU and in f32 on a CPU, unless --layout and --dtype say otherwise; tf32 is fp32 that
    everyone may multiply as tf32, as torch does by default, f32 is fp32 that nobody may. Every provider passes the same correctness gate before and after it is timed; one that fails it gets no number. Each
    result is on disk before the next is begun: Ctrl-C loses nothing, and --resume goes on. `cnnkernels report` makes a
    page of what is stored.
    """
    from cnnkernels.cli.bench_output import headline, print_case, print_suites, print_summary, print_work

    console = make_console(json_output)
    if list_only and not options["suites"] and not options["models"]:
        print_suites(console, json_output)
        return
    import torch

    from cnnkernels.bench import runner, store
    from cnnkernels.bench.paths import results_directory

    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if place.type == "cuda" and not torch.cuda.is_available():
        raise click.ClickException("--device cuda: torch sees no CUDA device")
    settings = _settings(place.type == "cuda", **options)
    order = _order(console, place.type == "cuda", **options)
    work = runner.items(order, place, settings)
    if not work:
        raise click.ClickException("nothing is left to measure by --layer, --pass, --provider and --layout")
    if list_only:
        print_work(console, work, json_output)
        return
    directory = results or results_directory()
    run = runner.start_run(place, settings, order, "cnnkernels " + shlex.join(sys.argv[1:]))
    if options["resume"]:
        left = runner.left_over(work, directory, run)
        console.print(f"{len(work) - len(left)} of {len(work)} measurements are stored already")
        work = left
        if not work:
            return
    console.print(headline(run))
    rows: list[Row] = []
    columns = (BarColumn(30), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("[dim]{task.description}"))
    with store.Writer(directory, run) as writer:
        try:
            with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
                task = progress.add_task("", total=len(work))
                for measured in runner.run_items(
                    work,
                    run,
                    writer,
                    budget=options["budget"],
                    before=lambda item: progress.update(task, description=escape(item.title)),
                    after=lambda item, _: progress.update(task, advance=1),
                ):
                    rows += measured
                    print_case(console, measured, run)
                left_over = len(work) - int(progress.tasks[task].completed)
        except KeyboardInterrupt:
            console.print(f"[yellow]interrupted[/]: {len(rows)} rows are in {writer.path}; --resume goes on from there")
            raise
        except Exception as error:
            text = f"{type(error).__name__}: {error}; what was measured is in {writer.path}; --resume goes on, with this case last"
            raise click.ClickException(text) from error
    if json_output:
        print_json({"run": asdict(run), "rows": [asdict(row) for row in rows]})
    else:
        print_summary(console, rows, run)
    if left_over:
        console.print(f"{left_over} of {len(work)} were not begun within --budget: --resume goes on")
    console.print(f"{len(rows)} rows in {writer.path}; `cnnkernels report` makes a page of them", soft_wrap=True)
    context.exit(1 if any(row.role == "ours" and row.status in ("refused", "failed") for row in rows) else 0)


def _settings(on_gpu: bool, **options: Any) -> Settings:
    from cnnkernels.bench.measuring import Settings

    seconds = options["seconds"]
    if seconds is None:
        seconds = 1.0 if on_gpu else 0.1
    return Settings(options["samples"], seconds, options["hot"], options["seed"], options["longest_call"])


def _order(console: Console, on_gpu: bool, **options: Any) -> Order:
    from cnnkernels.bench.layer import CONVOLUTION_PASSES, FUSED_PASSES, POOLING_PASSES
    from cnnkernels.bench.machine import TF32
    from cnnkernels.bench.operands import LAYOUTS
    from cnnkernels.bench.runner import Order

    known = (*CONVOLUTION_PASSES, *FUSED_PASSES, *POOLING_PASSES)
    for name in options["passes"]:
        if name not in known:
            raise click.BadParameter(f"{name!r} is none of {', '.join(known)}", param_hint="--pass")
    shape = _shape(options["input_shape"]) if options["input_shape"] else None
    suites, models = choose(console, options["suites"], options["models"], options["batch"], shape)
    metrics = options["metrics"] or ("time", "latency", *(["model"] if models else []))
    if "model" in metrics and not models:
        raise click.UsageError("--metric model needs a --model")
    dtypes = options["dtypes"] or (("bf16",) if on_gpu else ("f32",))
    if TF32 in dtypes and not on_gpu:
        raise click.BadParameter("fp32 is multiplied as tf32 on a GPU alone", param_hint="--dtype")
    return Order(
        suites=tuple(_narrowed(suite, options["sweep"], options["layers"]) for suite in suites),
        models=tuple(models),
        metrics=tuple(metrics),
        passes=tuple(options["passes"]),
        dtypes=dtypes,
        layouts=tuple(options["layouts"]) or LAYOUTS,
        providers=tuple(options["providers"]),
        data=options["data"],
    )


def _narrowed(suite: Suite, sweep: bool, layers: tuple[str, ...]) -> Suite:
    entries = suite.sweep() if sweep else suite.entries
    wanted = (entry for entry in entries if not layers or any(part in entry.layer for part in layers))
    return replace(suite, entries=tuple(wanted))


def _shape(text: str) -> tuple[int, int, int]:
    try:
        C, H, W = (int(part) for part in text.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not C,H,W", param_hint="--input") from error
    return C, H, W
