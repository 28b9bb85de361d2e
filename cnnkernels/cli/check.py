"""`cnnkernels check`: every compiled kernel, or trials in .cu files, under every check of the checked emulator."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape

from cnnkernels.cli.findings import Sighting, of_records, print_findings
from cnnkernels.cli.kernel_passes import kernel_options, pass_table, passes_of, print_failures, progress_bar
from cnnkernels.cli.output import catalogue, make_console, print_json, require_checked_emulator

if TYPE_CHECKING:
    from rich.console import Console

    from cnnkernels.testing.trials import TrialResult
    from cnnkernels.testing.verify import Record

_ADVICE = (
    "every kernel needs one that provokes its ways with memory; add one that it takes to CHECK_PROBLEMS in"
    " cnnkernels/testing/check_problems.py, with a title that says what it provokes"
)


@click.command()
@click.argument("files", nargs=-1, metavar="[FILE.cu[:TRIAL]]...")
@kernel_options
@click.option(
    "--jobs", type=click.IntRange(1), help="Processes that share the work.  [default: as many as cores, at most 8]"
)
@click.option("--json", "json_output", is_flag=True, help="Print JSON, with everything known of each finding.")
@click.pass_context
def check(
    context: click.Context,
    files: tuple[str, ...],
    operations: tuple[str, ...],
    dtypes: tuple[str, ...],
    kernel: str,
    jobs: int | None,
    json_output: bool,
) -> None:
    """Find races, bad accesses and uninitialised reads in kernels. No GPU is needed.

    Every kernel of the catalogue runs on a compact list of problems in the checked emulator, which holds each memory access
    against its rules (docs/emulator.md), and must give the same bits in every order of its threads and blocks, near
    torch's. With FILEs, the trials in them run instead: small programs that launch kernels of their own
    (csrc/emulator/trial.h).

    Exit code 1 if anything is found, or if a kernel is reached by no problem.
    """
    if files and (operations or dtypes or kernel or jobs):
        raise click.UsageError(
            "--op, --dtype, --kernel and --jobs are for the compiled kernels: trials are named as FILE:TRIAL"
        )
    catalogue()
    require_checked_emulator()
    console = make_console(json_output)
    if files:
        passed = _check_trials(console, [_Source.parse(text) for text in files], json_output)
    else:
        passed = _check_kernels(console, passes_of(operations), dtypes, kernel, jobs, json_output)
    context.exit(0 if passed else 1)


def _check_kernels(
    console: Console, passes: tuple[str, ...], dtypes: tuple[str, ...], kernel: str, jobs: int | None, json_output: bool
) -> bool:
    from cnnkernels.testing import check as engine
    from cnnkernels.testing.verify import count_cases, kernel_passes

    selection = engine.compact_selection(passes, dtypes, kernel)
    if not kernel_passes(selection):
        raise click.ClickException("no compiled kernel is left by --op, --dtype and --kernel")
    start = time.perf_counter()
    with progress_bar(console) as progress:
        task = progress.add_task("starting", total=count_cases(selection))
        try:
            records = engine.check(
                selection,
                jobs,
                lambda what, done: progress.update(task, completed=done, description=escape(what)),
            )
        except engine.CheckError as error:
            raise click.ClickException(str(error)) from error
    seconds = time.perf_counter() - start
    passed = all(record.passed for record in records)
    if json_output:
        print_json(
            {
                "passed": passed,
                "seconds": seconds,
                "schedules": ["forward", *map(str, selection.orders)],
                "problems": [str(problem) for problem in selection.problems],
                "kernels": [asdict(record) | {"passed": record.passed} for record in records],
            }
        )
        return passed
    schedules = 1 + len(selection.orders)
    caption = f"runs: under every check, each problem in {schedules} orders of threads and blocks, for the same bits."
    console.print(pass_table(records, ("problems", "runs", "refused", "findings"), _cells, caption))
    found = print_findings(console, of_records(records))
    print_failures(console, records, _ADVICE)
    runs = sum(record.runs + record.schedule_runs for record in records)
    failed = sum(not record.passed for record in records)
    verdict = "[bold green]nothing found[/]" if passed else f"[bold red]{failed} failed[/], {_count(found, 'finding')}"
    console.print(f"{verdict}: {runs:,} runs of {len(records)} kernel passes, {seconds:.0f} s")
    return passed


def _cells(record: Record) -> tuple[str, ...]:
    findings = len(record.findings)
    return (
        str(record.problems),
        str(record.runs + record.schedule_runs),
        str(len(record.refused) or ""),
        f"[red]{findings}[/]" if findings else "0",
    )


@dataclass(frozen=True)
class _Source:
    """A file of trials, and the one asked for."""

    path: Path
    trial: str | None

    @classmethod
    def parse(cls, text: str) -> _Source:
        path, colon, trial = text.rpartition(":")
        if not colon or Path(text).suffix == ".cu":
            path, trial = text, ""
        return cls(Path(path), trial or None)


def _check_trials(console: Console, sources: list[_Source], json_output: bool) -> bool:
    from typing import get_args

    from cnnkernels.testing import trials
    from cnnkernels.testing.emulation import Schedule

    results: list[tuple[_Source, TrialResult]] = []
    with progress_bar(console) as progress:
        task = progress.add_task("", total=len(sources))
        for source in sources:
            progress.update(task, description=f"compiling and running {escape(str(source.path))}")
            try:
                ran = trials.run(source.path, [source.trial] if source.trial else None, schedules=get_args(Schedule))
            except (trials.TrialError, ValueError) as error:
                raise click.ClickException(str(error)) from error
            results += [(source, result) for result in ran]
            progress.update(task, advance=1)
    passed = not any(result.error or result.findings for _, result in results)
    if json_output:
        print_json({"passed": passed, "trials": [_as_json(source, result) for source, result in results]})
        return passed
    by_trial: dict[str, list[TrialResult]] = {}
    for source, result in results:
        by_trial.setdefault(f"{source.path}:{result.name}", []).append(result)
    found = sum(_print_trial(console, name, ran) for name, ran in by_trial.items())
    verdict = "[bold green]nothing found[/]" if passed else f"[bold red]failed[/], {_count(found, 'finding')}"
    console.print(f"{verdict}: {_count(len(by_trial), 'trial')}, each under {len(get_args(Schedule))} schedules")
    return passed


def _print_trial(console: Console, name: str, results: list[TrialResult]) -> int:
    """One line if nothing was found, else what was; returns how much."""
    failed = any(result.error or result.findings for result in results)
    console.print(f"{'[red]failed[/]' if failed else '[green]pass[/]'}  {escape(name)}")
    found = print_findings(
        console,
        (Sighting(name, f"schedule {result.schedule}", finding) for result in results for finding in result.findings),
    )
    for result in results:
        if result.error and not result.findings:
            console.print(f"  schedule {result.schedule}: {escape(result.error)}")
    return found


def _as_json(source: _Source, result: TrialResult) -> dict[str, Any]:
    return {
        "file": str(source.path),
        "name": result.name,
        "schedule": result.schedule,
        "error": result.error,
        "findings": list(result.findings),
    }


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
