"""The report's charts as Vega-Lite specifications. The page embeds them and the PNGs are drawn from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import altair as alt

from cnnkernels.bench.report import views
from cnnkernels.bench.report.history import version
from cnnkernels.bench.report.theme import BASELINE, OURS, TORCH
from cnnkernels.bench.report.vega import Chart, Spec, color, data, finish, shape, si, slug, ticks, tooltip
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
            chart for sheet in device.sheets for chart in (*_roofline(device, sheet), *_bandwidth(device, sheet))
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
    lowest, highest = min(*ratios, 0.5) / 1.15, max(*ratios, 2.0) * 1.15
    x = alt.X("speedup:Q").scale(type="log", domain=[lowest, highest], nice=False)
    x = x.axis(values=ticks(lowest, highest), labelExpr="format(datum.value, '~g') + '×'")
    heading = "strongest baseline's time ÷ our time"
    x = x.title(heading)
    y = alt.Y("group:N").sort(order).title(None).axis(labelLimit=150)
    slower = alt.Chart(data([{"from": lowest, "to": 1}])).mark_rect(style="slower")
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
    least = min(point["intensity"] for point in points) / 1.5
    most = max(point["intensity"] for point in points) * 1.5
    lines, labels = _ceiling_lines(device, sheet.dtype, least, most)
    layers = []
    if lines:
        drawn = alt.Chart(data(lines)).mark_line(style="ceiling", strokeWidth=1.5)
        dash = alt.StrokeDash("kind:N").scale(domain=["measured", "hardware's data"], range=[[1, 0], [5, 4]])
        layers.append(
            drawn.encode(
                x="intensity:Q",
                y="rate:Q",
                detail="kind:N",
                strokeDash=dash.legend(title="ceiling", symbolStrokeColor="gray"),
            )
        )
        texts = alt.Chart(data(labels)).mark_text(style="ceiling-label", dy=-7, align="right")
        layers.append(texts.encode(x="intensity:Q", y="rate:Q", text="text:N"))
    x = alt.X("intensity:Q").scale(type="log", domain=[least, most], nice=False)
    y = alt.Y("rate:Q").scale(type="log").axis(format="~s", tickCount=6).title("useful flop/s")
    layers.append(
        alt.Chart(data(points))
        .mark_point(filled=True, size=34, opacity=0.7)
        .encode(
            x=x.axis(format="~g", tickCount=6).title("useful flop per useful byte"),
            y=y,
            color=color(points),
            shape=shape(points),
            tooltip=tooltip(("layer", "what", "pass", "provider", "share"), rate=".3~s", intensity=".3~g"),
        )
    )
    kind = sheet.title
    ceilings = "" if lines else " This device's ceilings were not measured, so none are drawn."
    yield Chart(
        f"roofline-{slug(kind)}",
        f"Roofline of convolutions, {kind}",
        f"How near each pass comes to what bandwidth and arithmetic allow. Only useful work counts.{ceilings}",
        finish(alt.layer(*layers), _LARGE),
    )


def _ceiling_lines(device: views.Device, dtype: str, least: float, most: float) -> tuple[list[Spec], list[Spec]]:
    lines, labels = [], []
    for kind, rates in (("measured", device.ceilings), ("hardware's data", device.limits)):
        if "bytes" not in rates or dtype not in rates:
            continue
        ridge = rates[dtype] / rates["bytes"]
        for intensity in sorted({least, min(max(ridge, least), most), most}):
            rate = min(rates[dtype], rates["bytes"] * intensity)
            lines.append({"intensity": intensity, "rate": rate, "kind": kind})
        if kind == "measured":
            text = f"{si(rates['bytes'])}B/s, {si(rates[dtype])}flop/s"
            labels.append({"intensity": most, "rate": min(rates[dtype], rates["bytes"] * most), "text": text})
    return lines, labels


def _bandwidth(device: views.Device, sheet: views.Sheet) -> Iterator[Chart]:
    ceiling = device.ceilings.get("bytes")
    pools = [case for case in sheet.cases if case.family == "pool"]
    points = []
    for case in pools:
        for side, row in ((BASELINE, case.strongest), (OURS, case.ours)):
            if ceiling and row is not None and row.median_us and row.status == "ok":
                points.append(
                    {
                        "group": f"{case.what.split()[0]} · {case.name}",
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
            .title(f"share of the measured {si(ceiling or 0)}B/s"),
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
        "Poolings only move data: useful bytes per second, as a share of what a copy reaches.",
        finish(alt.layer(rule, strip), max(110, 2 * _LINE * groups)),
    )


def _sweep(sweep: views.Sweep) -> Chart:
    points = []
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
    y = alt.Y("us:Q").scale(type="log").axis(format="~g", tickCount=4).title("µs")
    base = alt.Chart(data(points))
    sides = color(points)
    layers = (
        base.mark_rule(strokeWidth=1, opacity=0.5).encode(x=x, y=alt.Y("p10:Q").title("µs"), y2="p90:Q", color=sides),
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
    )


def _models(cases: Sequence[views.Case]) -> list[Chart]:
    points = []
    for case in cases:
        name = f"{case.net} · {case.name} · {case.dtype} · N {case.batch}"
        for side, row in ((TORCH, case.torch), (BASELINE, case.strongest), (OURS, case.ours)):
            if row is not None and row.median_us and row.status == "ok":
                milliseconds = row.median_us / 1000
                points.append({"model": name, "ms": milliseconds, "side": side, "provider": _provider(row)})
    if not points:
        return []
    names = list(dict.fromkeys(str(point["model"]) for point in points))
    y = alt.Y("model:N").sort(names).title(None).axis(labelLimit=210)
    x = alt.X("ms:Q").scale(type="log").axis(format="~g", tickCount=6).title("ms per step")
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
        {"version": point.version, "date": point.started, "pass": point.name, "ratio": point.relative_time, "side": OURS}
        for point in found.points
    ]
    if len(found.versions) < 2 or not points:
        return []
    ratios = [point["ratio"] for point in points]
    y = alt.Y("ratio:Q").scale(type="log", domain=[min(*ratios, 0.9) / 1.03, max(*ratios, 1.1) * 1.03], nice=False)
    y = y.axis(labelExpr="format(datum.value, '~g') + '×'", tickCount=5).title("our time, relative to the first")
    x = alt.X("version:O").sort(list(found.versions)).title(None).axis(labelAngle=-40, labelLimit=130)
    passes = sorted({point["pass"] for point in points}, key=views.pass_rank)
    base = alt.Chart(data(points))
    # Passes are told apart by dash and shape: the colours are for us and them.
    dash = alt.StrokeDash("pass:N").sort(passes)
    layers = (
        alt.Chart(data([{"ratio": 1}])).mark_rule(style="reference").encode(y="ratio:Q"),
        base.mark_line(strokeWidth=1.5).encode(x=x, y=y, color=color(points), strokeDash=dash.title(None)),
        base.mark_point(filled=True, size=45, opacity=1).encode(
            x=x,
            y=y,
            color=color(points),
            shape=alt.Shape("pass:N").sort(passes).title(None),
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
