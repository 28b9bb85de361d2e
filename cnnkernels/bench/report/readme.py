"""The README's table of results, between two markers: made from the store, never by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cnnkernels.bench.compare import Geomean
from cnnkernels.bench.report import views
from cnnkernels.bench.report.history import version

BEGIN = "<!-- results:begin -->"
END = "<!-- results:end -->"
NOTHING = "No GPU result is stored yet."


def rewrite(readme: Path, report: views.Report) -> bool:
    """Put the results between the markers of `readme`; whether that changed the file.

    Raises:
        ValueError: a marker is missing, doubled, or they stand in the wrong order.
    """
    text = readme.read_text(encoding="utf-8")
    for marker in (BEGIN, END):
        if text.count(marker) != 1:
            raise ValueError(f"{readme} has {text.count(marker)} lines {marker}, and needs one")
    before, rest = text.split(BEGIN)
    if END not in rest:
        raise ValueError(f"{readme} has {END} before {BEGIN}")
    after = rest.split(END)[1]
    new = f"{before}{BEGIN}\n{results(report)}\n{END}{after}"
    if new == text:
        return False
    readme.write_text(new, encoding="utf-8")
    return True


def results(report: views.Report) -> str:
    """The results on GPUs as Markdown: per device a table of families and passes."""
    parts = [part for device in report.devices if device.on_gpu and device.sheets for part in _device(device)]
    return "\n\n".join(parts) if parts else NOTHING


def _device(device: views.Device) -> Iterator[str]:
    run = device.newest
    torch, driver = run.versions.get("torch", "?"), run.device.get("driver", "?")
    yield (
        f"**{_escape(device.name)}**, torch {_escape(torch)}, driver {_escape(str(driver))}, commit "
        f"{_escape(version(run))}, {run.started[:10]}. Geometric means of the strongest baseline's time ÷ our time, above 1 where we "
        "are faster; in brackets of torch eager's; then how many of the layers are slower. Where a layer of the list lacks its "
        "number there is no mean."
    )
    for sheet in device.sheets:
        # Suites overlap: the first is the one made to be published, and the report has the others.
        main = sheet.lists[0]
        names = [summary.name for summary in main.summaries]
        lines = [
            f"| {_escape(main.suite)}, {sheet.title} | {' | '.join(names)} |",
            f"| --- |{' ---: |' * len(names)}",
        ]
        for group, means in main.by_family():
            cells = ["" if mean is None else _cell(mean) for mean in means]
            lines.append(f"| {_escape(group)} | {' | '.join(cells)} |")
        yield "\n".join(lines)
        weakened = sum(summary.geomeans[-1].weakened for summary in main.summaries)
        if weakened:
            measured = sum(summary.geomeans[-1].measured for summary in main.summaries)
            yield f"{weakened} of these {measured} comparisons lack a baseline that could have run; the report names it for each."


def _cell(mean: Geomean) -> str:
    ratios = f"**{_mean(mean.speedup)}** ({_mean(mean.to_torch)})"
    if mean.measured < mean.wanted:
        return f"{ratios} {mean.measured} of {mean.wanted} measured, {mean.losses} slower"
    return f"{ratios} {mean.losses} of {mean.wanted}"


def _mean(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
