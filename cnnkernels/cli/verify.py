"""`cnnkernels verify`: every compiled kernel on every problem, against torch."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING

import click
from rich.markup import escape

from cnnkernels import backends
from cnnkernels.cli.findings import of_records, print_findings
from cnnkernels.cli.kernel_passes import kernel_options, pass_table, passes_of, print_failures, progress_bar
from cnnkernels.cli.output import INTERRUPTED, catalogue, kernels_backend, make_console, print_json, require_backend

if TYPE_CHECKING:
    from cnnkernels.testing.verify import Record


@click.command()
@click.option(
    "--backend",
    type=click.Choice(["emulator", "cuda", "triton"]),
    help="Where to run.  [default: cuda with a GPU, else emulator]",
)
@kernel_options
@click.option(
    "--quick", is_flag=True, help="Only the first problem of each group, and for each kernel one that it runs."
)
@click.option("--planned", is_flag=True, help="The kernel that the plan takes, on every problem of every family.")
@click.option("--schedules", is_flag=True, help="Also ask for the same bits under every schedule of the emulator.")
@click.option(
    "--jobs",
    type=click.IntRange(1),
    help="Processes that share the work of Triton's interpreter.  [default: as many as cores, at most 8]",
)
@click.option("--json", "json_output", is_flag=True, help="Print JSON.")
@click.pass_context
def verify(
    context: click.Context,
    backend: str | None,
    operations: tuple[str, ...],
    dtypes: tuple[str, ...],
    kernel: str,
    quick: bool,
    planned: bool,
    schedules: bool,
    jobs: int | None,
    json_output: bool,
) -> None:
    """Run every kernel on every problem and compare with torch.

    Each kernel is forced on each problem it does not refuse, but those that are other families' own; with --planned the plan
    chooses for every problem. Small integers have to come out exactly; other values as
    near to fp64 as twice torch's own error, or as a bound from the length of the sum allows. Exit code 1 if a kernel
    fails or is reached by no problem. Ctrl-C ends with a report of what was run until then, and exit code 130.
    """
    if backend is None:
        backend = kernels_backend()
    require_backend(backend)
    if schedules and backend != "emulator":
        raise click.ClickException("--schedules is for --backend emulator: a GPU's schedule is its own")
    if backend != "triton":
        catalogue()
    interpreted = backend == "triton" and backends.triton.INTERPRETED
    if jobs is not None and not interpreted:
        raise click.ClickException(
            "--jobs is for Triton's interpreter: the emulator has threads of its own, and a GPU runs one kernel at once"
        )
    from cnnkernels.testing import verify as engine

    selection = engine.Selection(backend, passes_of(operations), dtypes, kernel, quick, planned, schedules)
    cases = engine.count_cases(selection)
    if not cases:
        raise click.ClickException("no compiled kernel is left by --op, --dtype and --kernel")
    console = make_console(json_output)
    start = time.perf_counter()
    recorded, done = engine.new_records(selection), 0

    def advance(case: str) -> None:
        nonlocal done
        progress.update(task, advance=1, description=escape(case))
        done += 1

    interrupted = False
    with progress_bar(console) as progress:
        task = progress.add_task("", total=cases)
        try:
            engine.verify(selection, advance, recorded, (jobs or engine.usual_workers()) if interpreted else 1)
        except KeyboardInterrupt:
            interrupted = True
    seconds = time.perf_counter() - start
    records = [record for record in recorded.values() if not interrupted or record.problems]
    passed = not interrupted and all(record.passed for record in records)
    if json_output:
        rows = [asdict(record) | {"passed": record.passed} for record in records]
        print_json(
            {"backend": backend, "passed": passed, "interrupted": interrupted, "seconds": seconds, "kernels": rows}
        )
    else:
        console.print(pass_table(records, ("runs", "exact", "refused", "max error", "÷ torch's"), _cells, _CAPTION))
        print_findings(console, of_records(records))
        print_failures(console, records)
        runs = sum(record.runs for record in records)
        verdict = "[bold green]all pass[/]" if passed else "[bold red]failed[/]"
        if interrupted:
            verdict = f"[yellow]interrupted[/] at case {done:,} of {cases:,}"
        console.print(f"{verdict}: {runs:,} runs of {len(records)} kernel passes, {seconds:.0f} s, backend {backend}")
    context.exit(INTERRUPTED if interrupted else 0 if passed else 1)


_CAPTION = (
    "exact: runs on integers, compared bit for bit.  max error: against fp64, over the other runs.\n"
    "÷ torch's: that error as a multiple of torch's own on the same problem, at worst."
)


def _cells(record: Record) -> tuple[str, ...]:
    return (
        str(record.runs),
        str(record.exact_runs),
        str(len(record.refused) or ""),
        f"{record.error:.1e}" if record.error else "0",
        "" if record.error_ratio is None else f"{record.error_ratio:.2f}",
    )
