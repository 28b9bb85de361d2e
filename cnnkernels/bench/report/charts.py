"""The report's charts as Vega-Lite specifications. The page embeds them and the PNGs are drawn from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import altair as alt

from cnnkernels.bench.report import views
from cnnkernels.bench.report.history import version
from cnnkernels.bench.report.theme import BASELINE, OURS, TORCH
from cnnkernels.bench.report.vega import Chart, Spec, bounds, color, data, finish, logarithmic, shape, si, slug, tooltip
from cnnkernels.bench.store import Row

# Heights in pixels: of one line of a list of names, and of whole charts.
_LINE = 22
_SMALL = 190
_LARGE = 380

_GOLDEN = 0.61803398875


def charts(device: views.Device) -> dict[str, list[Chart]]:
    """Every chart of a device, by section of the page. A chart that would be empty is left out."""
    return {
        "speedups": [chart for sheet in device.sheets for chart in _speedups(sheet)],
        "rooflines": [
            chart
            for sheet in (device.sheets if device.ceilings else ())
            for chart in (*_roofline(device, sheet), *_bandwidth(device, sheet))
        ],
        "sweeps": [_sweep(sweep) for sweep in device.sweeps],
        "models": _models(device.models),
        "history": _history(device),
    }


def origin(device: views.Device) -> str:
    """Where the numbers are from: the line that goes with a chart which leaves the page."""
    parts = [device.name, version(device.newest), device.newest.started[:10]]
    return " · ".join(parts if device.on_gpu else [*parts, "these are not GPU times"])


def _speedups(sheet: views.Sheet) -> Iterator[Chart]:
    found = [case for case in sheet.cases if case.speedup is not None]
    if not found:
        return
    main = sheet.lists[0]
    found.sort(key=lambda case: (views.family_rank(case.family), views.pass_rank(case.name)))
    order = [key for key, _ in groupby(found, key=_group)]
    points = [
        {
            "group": _group(case),
            "speedup": case.speedup,
            "side": OURS,
            # Spread over the line's height in an order without a pattern, the same on every run.
            "spread": (index * _GOLDEN) % 1,
            **_who(case),
        }
        for index, case in enumerate(found)
    ]
    means = [
        {
            "group": f"{mean.group} · {summary.name}",
            "speedup": mean.speedup,
            "cases": f"{mean.measured} of {mean.wanted}",
        }
        for summary in main.summaries
        for mean in summary.geomeans
        if mean.speedup is not None and f"{mean.group} · {summary.name}" in order
    ]
    ratios = [point["speedup"] for point in points]
    ratios += [0.5, 2.0]  # both sides show, however lopsided the results are
    heading = "strongest baseline's time ÷ our time (shaded: slower)"
    x = logarithmic(alt.X("speedup:Q"), ratios, heading, suffix="×")
    y = alt.Y("group:N").sort(order).title(None).axis(labelLimit=150)
    slower = alt.Chart(data([{"from": bounds(ratios)[0], "to": 1}])).mark_rect(style="slower")
    strip = alt.Chart(data(points)).mark_point(filled=True, size=34, opacity=0.65)
    mean_marks = alt.Chart(data(means)).mark_tick(style="mean", thickness=2.5, size=_LINE - 3)
    layers = [
        slower.encode(x=alt.X("from:Q").title(heading), x2="to:Q"),
        alt.Chart(data([{"speedup": 1}])).mark_rule(style="reference").encode(x=x),
        strip.encode(
            x=x,
            y=y,
            yOffset=alt.YOffset("spread:Q").scale(domain=[-0.3, 1.3]),
            color=color(points),
            tooltip=tooltip(("layer", "what", "pass", "ours", "baseline"), speedup=".3~g"),
        ),
        mean_marks.encode(x=x, y=y, tooltip=tooltip(("group", "cases"), speedup=".3~g")),
    ]
    kind = sheet.title
    yield Chart(
        f"speedup-{slug(kind)}",
        f"Speedup over the strongest baseline, {kind}",
        "Each point is a layer's pass; left of 1×, on the shaded side, we are slower. The upright stroke is the geometric "
        f"mean over {main.suite}, where every layer of it has its ratio.",
        finish(alt.layer(*layers), max(90, _LINE * len(order))),
        kind,
    )


def _group(case: views.Case) -> str:
    return f"{case.family} · {case.name}"


def _roofline(device: views.Device, sheet: views.Sheet) -> Iterator[Chart]:
    points = []
    for case in sheet.cases:
        for side, row in ((BASELINE, case.strongest), (OURS, case.ours)):
            if row is not None and row.median_us and row.status == "ok" and row.useful_flops and row.useful_bytes:
                points.append(
                    {
                        "intensity": row.useful_flops / row.useful_bytes,
                        "rate": row.useful_flops / row.median_us * 1e6,
                        "side": side,
                        "provider": _provider(row),
                        "share": _percent(row.roofline_fraction),
                        **_who(case),
                    }
                )
    if not points:
        return
    intensities = [point["intensity"] for point in points]
    lines = _ceiling_lines(device, sheet.dtype, *bounds(intensities))
    rates = [point["rate"] for point in (*points, *lines)]
    x = logarithmic(alt.X("intensity:Q"), intensities, "useful flop per useful byte")
    y = logarithmic(alt.Y("rate:Q"), rates, "useful flop/s", form="~s")
    layers: list[alt.Chart] = []
    if lines:
        dash = alt.StrokeDash("ceiling:N").scale(domain=["measured", "hardware's data"], range=[[1, 0], [5, 4]])
        dash = dash.legend(title="ceilings", orient="bottom", symbolStrokeColor="gray")
        drawn = alt.Chart(data(lines)).mark_line(style="ceiling", strokeWidth=1.5)
        layers.append(drawn.encode(x=x, y=y, detail="ceiling:N", strokeDash=dash))
    layers.append(
        alt.Chart(data(points))
        .mark_point(filled=True, size=34, opacity=0.7)
        .encode(
            x=x,
            y=y,
            color=color(points),
            shape=shape(points),
            tooltip=tooltip(("layer", "what", "pass", "provider", "share"), rate=".3~s", intensity=".3~g"),
        )
    )
    ceilings = "This device's ceilings were not measured, so none are drawn."
    if lines:
        reached = f"{si(device.ceilings['bytes'])}B/s and {si(device.ceilings[sheet.dtype])}flop/s"
        ceilings = f"The ceilings, as measured here: {reached}."
    yield Chart(
        f"roofline-{slug(sheet.title)}",
        f"Roofline of convolutions, {sheet.title}",
        f"How near each pass comes to what bandwidth and arithmetic allow. Only useful work counts. {ceilings}",
        finish(alt.layer(*layers), _LARGE),
    )


def _ceiling_lines(device: views.Device, dtype: str, least: float, most: float) -> list[Spec]:
    """The corners of each ceiling between two intensities; none unless it was measured."""
    lines: list[Spec] = []
    if not {"bytes", dtype} <= set(device.ceilings):
        return lines
    for kind, rates in (("measured", device.ceilings), ("hardware's data", device.limits)):
        if {"bytes", dtype} <= set(rates):
            ridge = rates[dtype] / rates["bytes"]
            for intensity in sorted({least, min(max(ridge, least), most), most}):
                rate = min(rates[dtype], rates["bytes"] * intensity)
                lines.append({"intensity": intensity, "rate": rate, "ceiling": kind})
    return lines


def _bandwidth(device: views.Device, sheet: views.Sheet) -> Iterator[Chart]:
    ceiling = device.ceilings.get("bytes")
    pools = [case for case in sheet.cases if case.family == "pool"]
    points = []
    for case in pools:
        for side, row in ((BASELINE, case.strongest), (OURS, case.ours)):
            if ceiling and row is not None and row.median_us and row.status == "ok":
                points.append(
                    {
                        "group": f"{case.what.split()[0].replace('_pool2d', '').replace('_', ' ')} · {case.name}",
                        "fraction": row.useful_bytes / row.median_us * 1e6 / ceiling,
                        "side": side,
                        "provider": _provider(row),
                        **_who(case),
                    }
                )
    if not points:
        return
    groups = len({point["group"] for point in points})
    most = max(1.02, *(point["fraction"] for point in points))
    rule = alt.Chart(data([{"fraction": 1}])).mark_rule(style="reference").encode(x="fraction:Q")
    strip = (
        alt.Chart(data(points))
        .mark_point(filled=True, size=34, opacity=0.7)
        .encode(
            x=alt.X("fraction:Q")
            .scale(domain=[0, most], nice=False)
            .axis(format="%", tickCount=6)
            .title("share of measured bandwidth"),
            y=alt.Y("group:N").title(None).axis(labelLimit=170),
            yOffset=alt.YOffset("side:N").scale(domain=[OURS, BASELINE]),
            color=color(points),
            shape=shape(points),
            tooltip=tooltip(("layer", "what", "pass", "provider"), fraction=".0%"),
        )
    )
    kind = sheet.title
    yield Chart(
        f"bandwidth-{slug(kind)}",
        f"Bandwidth of poolings, {kind}",
        f"Poolings only move data: useful bytes per second, as a share of the {si(ceiling or 0)}B/s that a copy reaches.",
        finish(alt.layer(rule, strip), max(110, 2 * _LINE * groups)),
    )


def _sweep(sweep: views.Sweep) -> Chart:
    points: list[Spec] = []
    for case in sweep.cases:
        for side, row in ((BASELINE, case.strongest), (OURS, case.ours)):
            if row is not None and row.median_us and row.status == "ok":
                points.append(
                    {
                        "N": case.batch,
                        "us": row.median_us,
                        "p10": row.p10_us or row.median_us,
                        "p90": row.p90_us or row.median_us,
                        "side": side,
                        "provider": _provider(row),
                    }
                )
    sizes = sorted({case.batch for case in sweep.cases})
    x = alt.X("N:Q").scale(type="log", base=2).axis(values=sizes, format="d", labelOverlap=True).title("N")
    times = [point[quantile] for point in points for quantile in ("p10", "p90")] or [1.0]
    y = logarithmic(alt.Y("us:Q"), times, "µs")
    base = alt.Chart(data(points))
    sides = color(points)
    layers = (
        base.mark_rule(strokeWidth=1, opacity=0.5).encode(
            x=x, y=logarithmic(alt.Y("p10:Q"), times, "µs"), y2="p90:Q", color=sides
        ),
        base.mark_line(strokeWidth=1.5).encode(x=x, y=y, color=sides),
        base.mark_point(filled=True, size=30).encode(
            x=x,
            y=y,
            color=sides,
            shape=shape(points),
            tooltip=tooltip(("provider",), N="d", us=",.1f", p10=",.1f", p90=",.1f"),
        ),
    )
    kind = views.kind_of(sweep)
    return Chart(
        f"sweep-{slug(f'{sweep.net} {sweep.layer} {sweep.what} {sweep.name} {kind}')}",
        f"{sweep.net} {sweep.layer}, {sweep.name}, {kind}",
        sweep.what,
        finish(alt.layer(*layers), _SMALL),
        sweep.net,
    )


def _models(cases: Sequence[views.Case]) -> list[Chart]:
    points: list[Spec] = []
    one_dtype, one_batch = len({case.dtype for case in cases}) < 2, len({case.batch for case in cases}) < 2
    for case in cases:
        # What all have in common would only crowd the names out.
        kind = ([] if one_dtype else [case.dtype]) + ([] if one_batch else [f"N {case.batch}"])
        name = " ".join([case.net, case.name, *kind])
        for side, row in ((TORCH, case.torch), (BASELINE, case.strongest), (OURS, case.ours)):
            if row is not None and row.median_us and row.status == "ok":
                milliseconds = row.median_us / 1000
                points.append({"model": name, "ms": milliseconds, "side": side, "provider": _provider(row)})
    if not points:
        return []
    names = list(dict.fromkeys(str(point["model"]) for point in points))
    y = alt.Y("model:N").sort(names).title(None).axis(labelLimit=190)
    x = logarithmic(alt.X("ms:Q"), [point["ms"] for point in points], "ms per step")
    base = alt.Chart(data(points))
    layers = (
        base.mark_line(style="ceiling", strokeWidth=1).encode(x=x, y=y, detail="model:N"),
        base.mark_point(filled=True, size=70, opacity=1).encode(
            x=x,
            y=y,
            color=color(points),
            shape=shape(points),
            tooltip=tooltip(("model", "provider"), ms=",.3f"),
        ),
    )
    caption = "A whole step, end to end. The further left, the faster."
    return [Chart("models", "Whole models", caption, finish(alt.layer(*layers), max(90, 1.3 * _LINE * len(names))))]


def _history(device: views.Device) -> list[Chart]:
    found = device.history
    points: list[Spec] = [
        {
            "version": point.version,
            "date": point.started,
            "pass": point.name,
            "ratio": point.relative_time,
            "side": OURS,
        }
        for point in found.points
    ]
    if len(found.versions) < 2 or not points:
        return []
    ratios = [point["ratio"] for point in points]
    y = logarithmic(alt.Y("ratio:Q"), [*ratios, 1.0], "our time, relative to the first", suffix="×")
    x = alt.X("version:O").sort(list(found.versions)).title(None).axis(labelAngle=-40, labelLimit=130)
    passes = sorted({point["pass"] for point in points}, key=views.pass_rank)
    base = alt.Chart(data(points))
    # Passes are told apart by shape: the colours are for us and them.
    shapes = alt.Shape("pass:N").sort(passes).legend(title=None, symbolFillColor="gray", symbolStrokeColor="gray")
    layers = (
        alt.Chart(data([{"ratio": 1}])).mark_rule(style="reference").encode(y="ratio:Q"),
        base.mark_line(strokeWidth=1.5).encode(x=x, y=y, detail="pass:N", color=color(points)),
        base.mark_point(filled=True, size=45, opacity=1).encode(
            x=x,
            y=y,
            color=color(points),
            shape=shapes,
            tooltip=tooltip(("version", "date", "pass"), ratio=".3~g"),
        ),
    )
    layers_counted = ", ".join(f"{count:,} of {name}" for name, count in found.common.items())
    caption = (
        "Geometric mean of our times relative to the first version, over the cases that every version has "
        f"({layers_counted}). Below 1× it became faster."
    )
    return [Chart("history", "Our times over the commits", caption, finish(alt.layer(*layers), 260))]


def _who(case: views.Case) -> Spec:
    return {
        "layer": f"{case.net} {case.layer}",
        "what": case.what,
        "pass": case.name,
        "ours": _provider(case.ours),
        "baseline": _provider(case.strongest),
    }


def _provider(row: Row | None) -> str:
    if row is None:
        return "none"
    time = f" {row.median_us:,.1f} µs" if row.median_us else ""
    return f"{row.provider} ({row.layout}){time}"


def _percent(fraction: float | None) -> str:
    return "not told" if fraction is None else f"{fraction:.0%} of the roofline"
