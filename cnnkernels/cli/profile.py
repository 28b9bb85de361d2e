"""`cnnkernels profile`: what each kernel launch of a problem does, counted, and what that would cost on an H200."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from difflib import get_close_matches
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape
from rich.progress import Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.progress_bar import ProgressBar

from cnnkernels.cli.output import catalogue, make_console, print_json, require_checked_emulator

if TYPE_CHECKING:
    from rich.console import Console

    from cnnkernels.profile.report import PassReport
    from cnnkernels.profile.run import Job
    from cnnkernels.profile.subject import Problem, Trials

_NOT_COMPILED = "trials are compiled for the emulator alone"
#: Seconds in which the emulator's process begins, about.
_STARTING = 3.0
_DTYPES = ("f64", "f32", "tf32", "f16", "bf16")


@click.command()
@click.argument("subject", nargs=-1, required=True)
@click.option(
    "--pass",
    "passes",
    multiple=True,
    help="fprop, dgrad, wgrad, bias_grad, forward, backward; repeatable.  [default: all but bias_grad]",
)
@click.option("--kernel", default="", help="This kernel of the catalogue, whatever the plan would take.")
@click.option("--dtype", type=click.Choice(_DTYPES), help="[default: f32; with --kernel the kernel's]")
@click.option(
    "--layout",
    "layouts",
    multiple=True,
    type=click.Choice(["nchw", "channels_last"]),
    help="Repeatable.  [default: nchw]",
)
@click.option("--batch", type=click.IntRange(1), help="Images.  [default: 1; what a problem in text says]")
@click.option(
    "--sample",
    type=click.IntRange(1),
    help="Run one block in so many only; the first, where there are no more blocks than that.  [default: as many blocks as take about a minute]",
)
@click.option("--all-lines", is_flag=True, help="Every line of source that costs anything, not the dearest three.")
@click.option("--json", "json_output", is_flag=True, help="Print everything, with every count, as JSON.")
@click.pass_context
def profile(
    context: click.Context, subject: tuple[str, ...], json_output: bool, all_lines: bool, **options: Any
) -> None:
    """Count what the kernels of SUBJECT do, and say what that would cost on an H200. No GPU is needed.

    SUBJECT is a layer of a published suite (resnet50:l1.3x3, or a name that only one net has), a problem written out (n1 c64
    56x56 k64 3x3 pad 1; max n1 c64 112x112 3x3 stride 2 pad 1), or a file of trials (file.cu, file.cu:trial).

    The kernels run in the checked emulator, which sees every memory access: bytes, sectors, bank conflicts, active lanes and
    instructions are counted exactly. The times are a model's: what each resource needs for what was counted. With the CUDA
    library built, the compiler's report gives registers and occupancy.
    """
    from cnnkernels.profile.page import print_notice, print_pass
    from cnnkernels.profile.report import as_json
    from cnnkernels.profile.run import EmulationFailed
    from cnnkernels.profile.subject import Trials, parse_subject

    console = make_console(json_output)
    text = " ".join(subject)
    try:
        what = parse_subject(text, options["batch"])
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    if isinstance(what, Trials):
        _check_no_problem_options(options)
    else:
        jobs = _jobs(what, **options)
    require_checked_emulator()
    reports = []
    try:
        for report in _trials(console, what) if isinstance(what, Trials) else _passes(console, what, jobs):
            reports.append(report)
            if not json_output:
                print_pass(console, report, all_lines)
    except EmulationFailed as error:
        raise click.ClickException(str(error)) from error
    if json_output:
        print_json(as_json(text, reports))
    else:
        print_notice(console)
    context.exit(1 if any(report.error for report in reports) else 0)


def _jobs(problem: Problem, **options: Any) -> list[Job]:
    """What to run: passes by layouts."""
    from cnnkernels.profile.passes import operator_pass, passes_of, sample_for
    from cnnkernels.profile.run import Job

    layer = problem.layer
    try:
        known = passes_of(layer)
    except ValueError as error:
        raise click.ClickException(f"{problem.name or layer}: {error}") from error
    for name in options["passes"]:
        if name not in known:
            raise click.BadParameter(f"{layer.op} has no {name}: {', '.join(known)}", param_hint="--pass")
    passes, dtype = options["passes"] or layer.passes, options["dtype"] or "f32"
    if options["kernel"]:
        kernel = _kernel(options["kernel"])
        passes = [name for name in passes if operator_pass(layer, name) in kernel["passes"]]
        if not passes:
            does = " and ".join(kernel["passes"])
            raise click.BadParameter(
                f"{kernel['name']} computes {does}, no pass of this problem", param_hint="--kernel"
            )
        if options["dtype"] not in (None, kernel["dtype"]):
            raise click.BadParameter(f"{kernel['name']} computes in {kernel['dtype']}", param_hint="--dtype")
        dtype = kernel["dtype"]
    layouts = options["layouts"] or (problem.layout or "nchw",)
    return [
        Job(layer, name, dtype, layout, options["kernel"], options["sample"] or sample_for(layer, name))
        for name in dict.fromkeys(passes)
        for layout in dict.fromkeys(layouts)
    ]


def _kernel(name: str) -> dict[str, Any]:
    rows = {row["name"]: row for row in catalogue()}
    if name in rows:
        return rows[name]
    near = get_close_matches(name, rows, n=3) or [one for one in rows if name in one][:3]
    hint = f": did you mean {' or '.join(near)}?" if near else ";"
    raise click.BadParameter(
        f"no kernel is called {name!r}{hint} `cnnkernels info --kernels` lists them", param_hint="--kernel"
    )


def _check_no_problem_options(options: dict[str, Any]) -> None:
    given = [name for name in ("passes", "kernel", "dtype", "layouts", "batch", "sample") if options[name]]
    if given:
        option = {"passes": "pass", "layouts": "layout"}.get(given[0], given[0])
        raise click.UsageError(f"--{option} is for problems: a file of trials says itself what it launches")


def _passes(console: Console, problem: Problem, jobs: list[Job]) -> Iterator[PassReport]:
    """Each as soon as it is done."""
    from cnnkernels import ops
    from cnnkernels.bench.machine import DTYPES
    from cnnkernels.profile import resources
    from cnnkernels.profile.passes import expected_seconds, useful
    from cnnkernels.profile.report import PassReport, analyse
    from cnnkernels.profile.run import run

    compiled, why_not = resources.load(ops.LIBRARY_DIRECTORY / "ptxas.txt")
    layer = problem.layer
    with _progress(console) as progress, closing(run(jobs)) as results:
        task = progress.add_task("")
        for job in jobs:
            sampled = f", one block in {job.sample}" if job.sample > 1 else ""
            progress.reset(
                task,
                description=f"emulating {job.name} {job.dtype} {job.layout}{sampled}",
                total=_STARTING * (job is jobs[0]) + expected_seconds(layer, job.name, job.sample),
            )
            launches = next(results)
            stated = {"text": str(layer), "name": problem.name, "layer": layer.to_dict()}
            stated |= {"pass": job.name, "dtype": job.dtype, "layout": job.layout, "kernel": job.kernel}
            yield PassReport(
                f"{problem.name} {job.name} {job.dtype} {job.layout}".strip(),
                analyse(launches, compiled, why_not, job.dtype),
                stated,
                useful(layer, job.name, DTYPES[job.dtype]),
            )


def _trials(console: Console, what: Trials) -> Iterator[PassReport]:
    from cnnkernels.profile.launches import Launch
    from cnnkernels.profile.report import PassReport, analyse
    from cnnkernels.profile.run import EmulationFailed
    from cnnkernels.profile.subject import trial_names
    from cnnkernels.testing import trials

    with TemporaryDirectory(prefix="cnnkernels-profile-") as directory, _progress(console) as progress:
        task = progress.add_task(f"compiling {escape(str(what.path))}", total=None)
        try:
            library = trials.build(what.path, Path(directory), check=False, count=True)
            progress.update(task, description=f"running the trials of {escape(str(what.path))}")
            results = trials.run_libraries([library], [what.trial] if what.trial else None, check=False, count=True)
        except trials.TrialError as error:
            raise EmulationFailed(str(error)) from error
        except ValueError as error:
            there = ", ".join(trial_names(what.path)) or "none"
            raise EmulationFailed(f"no trial {what.trial} in {what.path.name}: it has {there}") from error
        for result in results:
            # While the library is there, whose machine code is read.
            launches = analyse([Launch.from_dict(launch) for launch in result.launches], {}, _NOT_COMPILED)
            yield PassReport(f"{what.path}:{result.name}", launches, error=result.error or "")


class _ExpectedTime(ProgressColumn):
    """A bar that is full when the task should be done. It pulses from then on, and where nobody knows when."""

    def render(self, task: Task) -> ProgressBar:
        elapsed = task.elapsed or 0.0
        late = task.total is None or elapsed >= task.total
        return ProgressBar(task.total, elapsed, width=30, pulse=late, animation_time=task.get_time())


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), _ExpectedTime(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
