"""Assembly of the page: views and charts into one self-contained HTML file.

Every name in the store may be a user's, and a profile anybody's. In HTML jinja2 escapes it; in JSON its tojson does, `<` included; the script
puts it into the page as text, never as HTML. The page's own security policy forbids it to load anything.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import jinja2
import vl_convert

from cnnkernels.bench.report import views
from cnnkernels.bench.report.lists import FixedList
from cnnkernels.bench.report.profiles import Launch, Line, Pass, Profile
from cnnkernels.bench.report.theme import PALETTES, style
from cnnkernels.bench.report.vega import Chart, vegalite_version
from cnnkernels.bench.store import Row, Run
from cnnkernels.profile.launches import Line as SourceLine

#: What a row of the per-layer table unfolds to: headings of :func:`_detail`.
DETAILS = (
    "provider", "layout", "role", "status", "median µs", "p10–p90 µs", "returns after µs", "calls", "roofline",
    "error / allowed", "workspace", "peak memory", "first call", "kernels and remarks",
)  # fmt: skip

#: Statuses without a number, the most telling first; "ok" without one would be a fault of the store.
_TELLING = ("refused", "failed", "unsteady", "skipped", "ok", "unsupported")

_CLOCKS = {
    "sm_mhz_before": "SM clock before, MHz",
    "sm_mhz_after": "SM clock after, MHz",
    "mem_mhz": "memory clock, MHz",
    "power_w": "power, W",
    "temperature_c": "temperature, °C",
}


def render(report: views.Report, all_charts: dict[str, dict[str, list[Chart]]], results: str) -> str:
    """The page.

    Args:
        all_charts: by device and section, from :func:`charts.charts`.
        results: where the store is, for the reader of an empty page.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("cnnkernels.bench", "report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "ensure_ascii": False, "allow_nan": False}
    for name, function in _FILTERS.items():
        environment.filters[name] = function
    specs = {
        chart_id(slug, chart): chart.spec for slug, by in all_charts.items() for group in by.values() for chart in group
    }
    return environment.get_template("template.html.j2").render(
        report=report,
        charts=all_charts,
        chart_id=chart_id,
        results=results,
        kernels_id="what_the_kernels_do",  # no device's slug has an underscore
        kernels_title="What the kernels do",
        palettes=PALETTES,
        css=_asset("page.css"),
        script=_asset("page.js"),
        bundle=_bundle() if specs else "",
        page_data={
            "themes": {"light": style(dark=False), "dark": style(dark=True)},
            "charts": specs,
            "headings": DETAILS,
            "details": {key: table for device in report.devices for key, table in _details(device).items()},
        },
    )


def chart_id(slug: str, chart: Chart) -> str:
    return f"{slug}-{chart.name}"


@cache
def _bundle() -> str:
    """Vega, Vega-Lite and their embedder, as one script, fit to stand inside a page."""
    bundle: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=vegalite_version())
    return bundle.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _asset(name: str) -> str:
    return files("cnnkernels.bench.report").joinpath(name).read_text(encoding="utf-8")


def _details(device: views.Device) -> dict[str, list[list[list[str]]]]:
    """By table of cases: by case: by row: what it unfolds to."""
    tables = {"time": device.cases, "latency": device.latency, "model": device.models}
    return {
        f"{device.slug} {metric}": [[_detail(row) for row in case.rows] for case in cases]
        for metric, cases in tables.items()
    }


def checked(device: views.Device) -> tuple[list[str], list[tuple[str, list[views.Check | None]]]]:
    """The passes, and for each family its checks in their order."""
    names = sorted({check.name for check in device.checks}, key=views.pass_rank)
    by_place = {(check.family, check.name): check for check in device.checks}
    families = list(dict.fromkeys(check.family for check in device.checks))
    return names, [(family, [by_place.get((family, name)) for name in names]) for family in families]


def _detail(row: Row) -> list[str]:
    error = "" if row.error is None else f"{row.error:.1e} / {row.allowed:.1e}" if row.allowed else f"{row.error:.1e}"
    remarks = [*row.kernels, *row.notices, *([row.reason] if row.reason else [])]
    return [
        row.provider,
        row.layout,
        row.role,
        row.status,
        microseconds(row.median_us),
        spread(row),
        microseconds(row.host_us),
        str(row.samples or ""),
        percent(row.roofline_fraction),
        error,
        size(row.workspace_bytes),
        size(row.peak_bytes),
        "" if row.first_call_ms is None else f"{row.first_call_ms:,.0f} ms",
        "; ".join(remarks),
    ]


def microseconds(value: float | None) -> str:
    return "" if value is None else f"{value:,.1f}"


def milliseconds(value: float | None) -> str:
    return "" if value is None else f"{value / 1000:,.2f}"


def spread(row: Row, unit: str = "µs") -> str:
    if row.p10_us is None or row.p90_us is None:
        return ""
    show = milliseconds if unit == "ms" else microseconds
    return f"{show(row.p10_us)}–{show(row.p90_us)}"


def ratio(value: float | None) -> str:
    """Two decimals, or two digits where those would be noughts."""
    if value is None:
        return ""
    return f"{value:.2f}×" if value >= 0.095 else f"{value:.2g}×"


def percent(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def size(value: int | None) -> str:
    if value is None:
        return ""
    for factor, unit in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if value >= factor:
            return f"{value / factor:.1f} {unit}"
    return f"{value} B"


def rate(value: float, unit: str) -> str:
    for factor, prefix in ((1e12, "T"), (1e9, "G")):
        if value >= factor:
            return f"{value / factor:,.1f} {prefix}{unit}"
    return f"{value / 1e6:,.1f} M{unit}"


def facts(device: views.Device) -> list[tuple[str, str]]:
    """What the page says first of the device and the newest run."""
    run = device.newest
    known = run.device
    found = [
        ("newest run", _date(run.started)),
        ("commit", _commit(run)),
        ("driver", known.get("driver", "")),
        ("compute capability", known.get("capability", "")),
        ("multiprocessors", known.get("sms", "")),
        ("cores", known.get("cores", "")),
        ("last-level cache", size(known.get("l2_bytes") or None)),
        ("memory", size(known.get("memory_bytes"))),
        *run.versions.items(),
        ("our library", run.library),
        ("launch floor", f"{run.floor_us:.2f} µs" if run.floor_us else ""),
    ]
    for name, value in device.ceilings.items():
        unit = "B/s" if name == "bytes" else "flop/s"
        label = "bandwidth" if name == "bytes" else f"{name} arithmetic"
        limit = f" of {rate(device.limits[name], unit)}" if name in device.limits else ""
        found.append((f"measured {label}", rate(value, unit) + limit))
    for clock in device.clocks:
        spread_ = "" if clock.least == clock.greatest else f" ({clock.least:,.0f}–{clock.greatest:,.0f})"
        found.append((_CLOCKS.get(clock.quantity, clock.quantity), f"{clock.median:,.0f}{spread_}"))
    return [(label, str(value)) for label, value in found if value not in ("", None)]


def tiles(device: views.Device) -> list[tuple[str, str]]:
    """The headline's numbers: figure, and what it counts. Off a GPU only who passed is of interest, not who was faster."""
    measured = device.counts.get("measured", 0)
    ratios = [case.speedup for case in device.cases if case.speedup is not None]
    found = [(f"{measured:,} of {len(device.cases):,}", "cases measured")]
    if device.on_gpu:
        found += [
            (f"{sum(value > 1 for value in ratios):,}", "faster than the strongest baseline"),
            (f"{sum(value < 1 for value in ratios):,}", "slower than it"),
        ]
    found += [(f"{count:,}", f"cases {name}") for name, count in device.counts.items() if name != "measured"]
    # Who cannot run a case at all (a GPU's backend on a CPU, a fused operator on a plain pass) is in a table further down.
    statuses = Counter(row.status for row in device.without_number if row.status != "unsupported")
    return found + [
        (f"{count:,}", f"{'row' if count == 1 else 'rows'} {name}")
        for name, count in sorted(statuses.items(), key=lambda item: _TELLING.index(item[0]))
    ]


def without_number(device: views.Device) -> list[dict[str, Any]]:
    """Rows without a number, those with the same provider and reason together; what the gate refused comes first."""
    groups: dict[tuple[str, str, str, str], list[Row]] = {}
    for row in device.without_number:
        groups.setdefault((row.status, row.provider, row.role, row.reason), []).append(row)
    found = [
        {
            "status": status,
            "provider": provider,
            "role": role,
            "reason": reason,
            "layouts": ", ".join(dict.fromkeys(row.layout for row in rows)),
            "passes": ", ".join(sorted({row.name for row in rows}, key=views.pass_rank)),
            "dtypes": ", ".join(dict.fromkeys(row.dtype for row in rows)),
            "count": len(rows),
            "layers": list(dict.fromkeys(f"{row.net} {row.layer}: {row.what}".replace(" :", ":") for row in rows)),
        }
        for (status, provider, role, reason), rows in groups.items()
    ]
    return sorted(found, key=lambda group: _TELLING.index(str(group["status"])))


def settings(run: Run) -> list[tuple[str, str]]:
    values = {**run.settings, "launch floor": f"{run.floor_us} µs", "command": run.command}
    return [
        (name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
        for name, value in values.items()
        if value not in ("", None)
    ]


def launches(profiles: Sequence[Profile]) -> list[tuple[Profile, Pass, int, Launch]]:
    """Every launch, with its profile and pass, and which of the pass' launches it is."""
    return [
        (profile, one, number, launch)
        for profile in profiles
        for one in profile.passes
        for number, launch in enumerate(one.launches, 1)
    ]


def place(line: Line) -> str:
    return SourceLine(line.file, line.line, "").place


def short_time(seconds: float) -> str:
    """Microseconds, three digits at least."""
    return f"{seconds * 1e6:.3g}" if seconds < 1e-4 else microseconds(seconds * 1e6)


def share(value: float | None) -> str:
    """Of a count: with a decimal, where there is one."""
    return "" if value is None else f"{100 * value:,.1f}".removesuffix(".0") + "%"


def extra(value: float | None) -> str:
    """What comes on top, as a share."""
    return f"+{share(value)}" if value else share(value)


def _date(started: str) -> str:
    return re.sub(r"\.\d+", "", started).replace("T", " ").replace("+00:00", " UTC")


def _commit(run: Run) -> str:
    return f"{run.commit[:12]}{', with changes' if run.dirty else ''}" if run.commit else "outside a checkout"


_FILTERS = {
    "us": microseconds,
    "ms": milliseconds,
    "spread": spread,
    "ratio": ratio,
    "percent": percent,
    "size": size,
    "launches": launches,
    "place": place,
    "short_time": short_time,
    "share": share,
    "extra": extra,
    "facts": facts,
    "tiles": tiles,
    "without_number": without_number,
    "settings": settings,
    "matrix": FixedList.by_family,
    "checked": checked,
    "date": _date,
    "commit": _commit,
}
