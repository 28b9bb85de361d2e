"""`cnnkernels report`: the stored results as one page, its charts as PNGs, and the README's table."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from cnnkernels.cli.output import make_console, print_json, require_extra

if TYPE_CHECKING:
    from rich.console import Console

    from cnnkernels.bench.report import views


@click.command()
@click.option(
    "--results",
    type=click.Path(path_type=Path, file_okay=False),
    help="The store.  [default: benchmarks/results in a checkout]",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where to write.  [default: benchmarks/report in a checkout, else runs/report]",
)
@click.option("--device", default="", help="Only the device whose folder in the store has this name.")
@click.option(
    "--readme",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Rewrite this file's table of results.",
)
@click.option(
    "--profile",
    "profiles",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Show what `cnnkernels profile --json` printed into this file, too. Repeatable.",
)
@click.option("--json", "json_output", is_flag=True, help="Print what the page shows as JSON, and write no page.")
def report(
    results: Path | None,
    out: Path | None,
    device: str,
    readme: Path | None,
    profiles: tuple[Path, ...],
    json_output: bool,
) -> None:
    """Make a page from the stored results, and from profiles.

    report.html is one file that loads nothing: open it, or send it. Beside it lie its charts as PNGs. Exit code 1 if
    --device names none in the store, --readme a file without the two markers, or --profile one that is no profile.
    """
    require_extra("report", "altair", "vl_convert", "jinja2")
    from cnnkernels.bench.paths import results_directory
    from cnnkernels.bench.report import readme as readme_file
    from cnnkernels.bench.report import views
    from cnnkernels.bench.report.profiles import read

    results = results or results_directory()
    out = out or (results_directory().parent / "report" if results_directory().is_dir() else Path("runs") / "report")
    console = make_console(json_output)
    try:
        profiled = [read(path) for path in profiles]
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    found = views.report(results, device, profiled)
    if device and not found.devices:
        names = ", ".join(path.name for path in sorted(results.glob("*/"))) or "nothing"
        raise click.ClickException(f"{results} has no runs of {device!r}: it has {names}")
    for problem in found.problems:
        console.print(f"[yellow]not read[/] {escape(problem)}")
    if json_output:
        print_json(asdict(found))
    else:
        _write(console, found, results, out)
    if readme is not None:
        try:
            changed = readme_file.rewrite(readme, found)
        except ValueError as error:
            raise click.ClickException(str(error)) from error
        console.print(f"{escape(str(readme))}: {'table rewritten' if changed else 'table is as it was'}")


def _write(console: Console, found: views.Report, results: Path, out: Path) -> None:
    from cnnkernels.bench.report import charts, page, vega

    out.mkdir(parents=True, exist_ok=True)
    drawn = {device.slug: charts.charts(device) for device in found.devices}
    target = out / "report.html"
    target.write_text(page.render(found, drawn, str(results)), encoding="utf-8")
    pictures = [(device, chart) for device in found.devices for group in drawn[device.slug].values() for chart in group]
    columns = (BarColumn(30), MofNCompleteColumn(), TextColumn("[dim]{task.description}"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=len(pictures))
        for device, chart in pictures:
            progress.update(task, description=escape(chart.name))
            folder = out / device.slug
            folder.mkdir(exist_ok=True)
            (folder / f"{chart.name}.png").write_bytes(vega.to_png(chart, charts.origin(device)))
            progress.advance(task)
    if not found.devices:
        console.print(f"no result is stored under {escape(str(results))} yet: the page says how to measure")
    console.print(f"{escape(str(target))}: {page.size(target.stat().st_size)}, {len(pictures)} charts beside it as PNG")
