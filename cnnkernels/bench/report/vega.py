"""What the charts share: their form, who has which colour and shape, and how they become a specification or a PNG."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import altair as alt

from cnnkernels.bench.report.theme import SIDES, style

#: A Vega-Lite specification, or a record of its data.
Spec = dict[str, Any]

# What an axis of at most so many decades marks in each of them.
_STEPS: tuple[tuple[float, tuple[float, ...]], ...] = (
    (0.4, (1, 1.1, 1.2, 1.3, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9)),
    (1.3, (1, 1.5, 2, 3, 5, 7)),
    (3.2, (1, 2, 5)),
    (math.inf, (1,)),
)
# A logarithmic axis' room beyond its values, as a factor.
_MARGIN = 1.15
_PNG_WIDTH = 800


@dataclass(frozen=True)
class Chart:
    """`name` is the PNG's file name without the folder; `title` says what is seen, `caption` how to read it.

    `group` is what charts of one section are listed under where they are many.
    """

    name: str
    title: str
    caption: str
    spec: Spec
    group: str = ""


def to_png(chart: Chart, origin: str, scale: float = 2.0) -> bytes:
    """The chart on white, `scale` pixels to a unit, with `origin` under its title."""
    import vl_convert

    title = {"text": chart.title, "subtitle": origin, "anchor": "start", "offset": 14}
    config = style(dark=False) | {"background": "white", "padding": 16}
    png: bytes = vl_convert.vegalite_to_png(
        chart.spec | {"width": _PNG_WIDTH, "title": title}, vl_version=vegalite_version(), scale=scale, config=config
    )
    return png


def vegalite_version() -> str:
    """The version of the specifications, as vl_convert names it: "6.4"."""
    return ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])


def finish(chart: alt.LayerChart | alt.FacetChart, height: float) -> Spec:
    size = alt.AutoSizeParams(type="fit-x", contains="padding")
    spec: Spec = chart.properties(width="container", height=height, autosize=size).to_dict()
    # The page sets the one theme; altair's own would override it.
    spec.pop("config", None)
    return spec


def data(values: list[Any]) -> alt.InlineData:
    return alt.InlineData(values=values)


def color(points: Iterable[Spec]) -> alt.Color:
    """Who is who by the points' "side", in the same colours everywhere; one side alone needs no legend."""
    return alt.Color("side:N").scale(domain=list(SIDES)).legend(_legend(points))


def shape(points: Iterable[Spec]) -> alt.Shape:
    """The same again as shapes, for eyes and printers that do not tell the colours apart."""
    return alt.Shape("side:N").scale(domain=list(SIDES), range=["circle", "diamond", "square"]).legend(_legend(points))


def _legend(points: Iterable[Spec]) -> alt.Legend | None:
    present = {point["side"] for point in points}
    return alt.Legend(values=[side for side in SIDES if side in present], title=None) if len(present) > 1 else None


def tooltip(names: Sequence[str], **formats: str) -> list[alt.Tooltip]:
    numbers = [alt.Tooltip(f"{name}:Q", format=how) for name, how in formats.items()]
    return [*(alt.Tooltip(f"{name}:N") for name in names), *numbers]


Axis = TypeVar("Axis", alt.X, alt.Y)


def logarithmic(channel: Axis, values: Iterable[float], title: str, form: str = "~g", suffix: str = "") -> Axis:
    """The channel on a logarithmic axis that `values` fill, marked at round numbers."""
    lowest, highest = bounds(values)
    decades = math.log10(highest / lowest)
    steps = next(steps for most, steps in _STEPS if decades <= most)
    exponents = range(math.floor(math.log10(lowest)), math.ceil(math.log10(highest)) + 1)
    # 2 * 10**-1 is not quite 0.2, and the labels would say so.
    marks = [float(f"{step}e{exponent}") for exponent in exponents for step in steps]
    axis = alt.Axis(
        values=[mark for mark in marks if lowest <= mark <= highest],
        labelExpr=f"format(datum.value, '{form}') + '{suffix}'",
        title=title,
        labelOverlap=True,
    )
    result = channel.copy()
    result["scale"] = alt.Scale(type="log", domain=[lowest, highest], nice=False)
    result["axis"] = axis
    return result


def bounds(values: Iterable[float]) -> tuple[float, float]:
    """Where a logarithmic axis begins and ends."""
    values = list(values)
    return min(values) / _MARGIN, max(values) * _MARGIN


def si(value: float) -> str:
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.3g} {prefix}"
    return f"{value:.3g} "


def slug(text: str) -> str:
    return "-".join("".join(letter if letter.isalnum() else " " for letter in text.lower()).split())
