"""What `cnnkernels summary MODEL` prints: a table of the model's layers, its totals, and what they leave out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from cnnkernels.bench.fields import Axis
    from cnnkernels.bench.model_summary import ModelSummary, Plan, Row

_NO_KERNEL = "nothing ours"
_WIDTH_FOR_TYPES = 100  # columns of a terminal; in a narrower one types stand below names
_WIDEST_TYPE = 12
_NARROWEST_NAME = 12

_SOME = 3  # of a list of names, how many are printed


class InputShape(click.ParamType):
    """N,C,H,W."""

    name = "N,C,H,W"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        try:
            shape = tuple(int(size) for size in value.split(","))
        except ValueError:
            shape = ()
        if len(shape) != 4 or min(shape) < 1:
            self.fail(f"{value!r} is not four numbers from 1, as 1,3,224,224", param, ctx)
        return shape


def load(specification: str, shape: tuple[int, int, int, int] | None, batch: int | None) -> ModelSummary:
    """Summarise the model of that name on images of `shape`, or of its own size.

    Raises ClickException with the error of what could not be loaded or run.
    """
    from cnnkernels.bench.model_summary import summarize
    from cnnkernels.models.load import load_model

    try:
        model, usual = load_model(specification)
        return summarize(model, shape or (batch or 1, *usual), specification)
    except ValueError as error:
        raise click.ClickException(_first_line(error)) from error
    except Exception as error:  # whatever a file or a factory of the user's may raise
        raise click.ClickException(f"{specification}: {type(error).__name__}: {_first_line(error)}") from error


def print_model(console: Console, summary: ModelSummary, dtype: str, layout: str, layer: str) -> None:
    """The rows with `layer` in their name, and the totals of all."""
    plans = _plans(summary, dtype, layout)
    console.print(
        f"[bold]{escape(summary.name)}[/]  input {_by(summary.input)}, {dtype}, {layout}, inference", soft_wrap=True
    )
    console.print(_table(summary, plans, dtype, layer, console.width))
    console.print()
    console.print(_totals(summary, plans, dtype))
    for line in _notes(summary):
        console.print(line)


def model_as_json(summary: ModelSummary, dtype: str, layout: str, layer: str) -> dict[str, Any]:
    """The same for a machine: sizes in bytes, times in microseconds."""
    plans = _plans(summary, dtype, layout)
    return {
        "model": summary.name,
        "input": list(summary.input),
        "dtype": dtype,
        "layout": layout,
        "parameters": summary.parameters,
        "macs": summary.macs,
        "bytes": summary.bytes(dtype),
        "roofline_us": summary.roofline_us(dtype),
        "kernels_modelled_us": _kernels_us(plans),
        "parameters_in_no_layer": dict(summary.elsewhere),
        "between": dict(summary.between),
        "left_out": [list(pair) for pair in summary.left_out],
        "notices": list(summary.notices),
        "layers": [
            {
                "name": row.name,
                "type": row.kind,
                "output": None if row.output is None else list(row.output),
                "parameters": row.parameters,
                "shared_parameters": row.shared,
                "macs": row.macs,
                "bytes": row.bytes(dtype),
                "receptive_field": None if row.fields is None else [_field_as_json(axis) for axis in row.fields],
                "kernel": plan and plan.kernel,
                "family": plan and plan.family,
                "kernel_modelled_us": plan and plan.modelled_us,
                "roofline_us": row.roofline_us(dtype),
            }
            for row, plan in zip(summary.rows, plans, strict=True)
            if layer in row.name
        ],
    }


def _plans(summary: ModelSummary, dtype: str, layout: str) -> list[Plan | None]:
    return [row.plan(dtype, layout) for row in summary.rows]


def _kernels_us(plans: list[Plan | None]) -> float:
    return sum(plan.modelled_us for plan in plans if plan is not None)


def _field_as_json(axis: Axis) -> dict[str, Any] | None:
    field = axis.field
    if field is None:
        return None
    return {"size": field.size, "jump": field.jump, "start": field.start, "whole_image": axis.everything}


def _table(summary: ModelSummary, plans: list[Plan | None], dtype: str, layer: str, width: int) -> Table:
    narrow = width < _WIDTH_FOR_TYPES
    numbers = ["output", "params", "MACs", "field", "bytes", "roof\nµs"]
    rows = [
        ([row.name, row.kind, plan.kernel if plan else _NO_KERNEL], [
            _by(row.output) if row.output else "", _parameters(row), _short(row.macs), _field(row), _short(row.bytes(dtype)),
            _time(row.roofline_us(dtype)),
        ], _time(plan.modelled_us) if plan else "")
        for row, plan in zip(summary.rows, plans, strict=True) if layer in row.name
    ]  # fmt: skip
    # Columns of numbers are as wide as what is in them; names share the rest, and are broken where they have joints.
    columns = zip(*[[*texts, time] for _, texts, time in rows], strict=True)
    headings = (*numbers, "kernel")
    taken = sum(
        max(len(heading.partition("\n")[0]), *map(len, column)) + 1
        for heading, column in zip(headings, columns, strict=True)
    )
    of_type = 0 if narrow else min(_WIDEST_TYPE, max(len(names[1]) for names, _, _ in rows))
    rest = max(2 * _NARROWEST_NAME, width - taken - (0 if narrow else of_type + 1) - 1)
    of_kernel = min(max(len(names[2]) for names, _, _ in rows), rest // 2)
    layers = [_broken(names[0], rest - of_kernel, ".") for names, _, _ in rows]
    of_layer = max(len(line) for name in layers for line in name.split("\n"))
    if narrow:
        of_layer = max(of_layer, min(max(len(names[1]) for names, _, _ in rows), rest - of_kernel))
    of_kernel = max(of_kernel, rest - of_layer)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    table.add_column("layer", overflow="fold")
    if not narrow:
        table.add_column("type", overflow="fold")
    table.add_column(numbers[0], no_wrap=True)
    for title in numbers[1:]:
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("planned kernel", overflow="fold")
    table.add_column("kernel\nµs", justify="right", no_wrap=True)
    for layer_name, ((_, kind, kernel), texts, time) in zip(layers, rows, strict=True):
        shown = escape(layer_name)
        type_ = escape(_broken(kind, of_layer if narrow else of_type, ""))
        style = "dim" if kernel is _NO_KERNEL else "cyan"
        first = [f"{shown}\n[dim]{type_}[/]"] if narrow else [shown, type_]
        table.add_row(*first, *texts, f"[{style}]{_broken(kernel, of_kernel, '_ ')}[/]", time)
    return table


def _broken(text: str, width: int, joints: str) -> str:
    """In lines of at most `width`, each as long as can be up to one of `joints`, or else to a letter."""
    lines = []
    while len(text) > width:
        end = max((text.rfind(joint, 1, width) + 1 for joint in joints), default=0) or width
        lines.append(text[:end])
        text = text[end:]
    return "\n".join([*lines, text])


def _totals(summary: ModelSummary, plans: list[Plan | None], dtype: str) -> Table:
    ours = sum(plan is not None for plan in plans)
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("parameters", f"{summary.parameters:,}")
    table.add_row("MACs", f"{summary.macs:,}")
    table.add_row("bytes", f"{summary.bytes(dtype):,} of inputs, weights and outputs, each once per layer")
    table.add_row(
        "roofline",
        f"{_time(summary.roofline_us(dtype))} µs for the {len(plans)} layers on an H200: modelled, not measured",
    )
    table.add_row(
        "our kernels", f"{_time(_kernels_us(plans))} µs for {ours} of them on an H200: modelled, not measured"
    )
    return table


def _notes(summary: ModelSummary) -> list[str]:
    notes = []
    if summary.elsewhere:
        total = sum(size for _, size in summary.elsewhere)
        names = _some([escape(name) for name, _ in summary.elsewhere])
        notes.append(f"{total:,} of the parameters are in no layer above: {names}")
    if summary.between:
        calls = ", ".join(f"{escape(name)} {count}" for name, count in summary.between.most_common())
        notes.append(f"Not counted, runs between the layers: {calls}")
    for module, reason in summary.left_out:
        notes.append(f"{escape(module)}: {escape(reason)}")
    notes += [escape(notice) for notice in summary.notices]
    fields = {_field(row) for row in summary.rows}
    if "-" in fields:
        notes.append("field -: not the same for all pixels, or not known")
    if "all" in fields:
        notes.append("field all: the whole image")
    return [f"[dim]{note}[/]" for note in notes]


def _parameters(row: Row) -> str:
    if row.parameters or not row.shared:
        return _short(row.parameters)
    return "shared"


def _field(row: Row) -> str:
    if row.fields is None:
        return ""
    if all(axis.everything for axis in row.fields):
        return "all"
    height, width = ("-" if axis.field is None else str(axis.field.size) for axis in row.fields)
    return height if height == width else f"{height}x{width}"


def _short(value: int) -> str:
    """Three digits and a power of ten; nothing for zero."""
    if value < 1000:
        return str(value) if value else ""
    for unit in ("k", "M", "G", "T"):
        value_in_unit = value / 1000 ** ("kMGT".index(unit) + 1)
        if value_in_unit < 999.5 or unit == "T":
            return f"{value_in_unit:.{2 if value_in_unit < 9.995 else 1 if value_in_unit < 99.95 else 0}f}{unit}"
    raise AssertionError


def _time(micros: float) -> str:
    if micros == 0:
        return ""
    return f"{micros:.2f}" if micros < 9.995 else f"{micros:.1f}" if micros < 999.95 else f"{micros:,.0f}"


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _some(names: list[str]) -> str:
    rest = len(names) - _SOME
    return ", ".join(names[:_SOME]) + (f" and {rest} more" if rest > 0 else "")


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
