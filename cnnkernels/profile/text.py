"""Numbers as people read them: three digits, and a unit."""

from __future__ import annotations


def si(value: float, unit: str = "") -> str:
    """1.23 M, 45.6 kB, 789 wavefronts."""
    apart = " " if len(unit) > 1 else ""
    for size, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size * 0.9995:
            digits = f"{value / size:.3g}" if value < size * 999.5 else f"{value / size:,.0f}"
            return f"{digits} {prefix}{apart}{unit}"
    return f"{value:.3g} {unit}".rstrip()


def duration(seconds: float) -> str:
    for size, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")):
        if seconds >= size * 0.9995:
            return f"{seconds / size:.3g} {unit}"
    return "< 1 ns" if seconds else "0 ns"


def percent(part: float | None, digits: int = 3) -> str:
    if part is None:
        return "—"
    if part >= 9.995:
        return f"{100 * part:,.0f} %"
    return "100 %" if round(part, 4) == 1 else f"{100 * part:.{digits}g} %"


def times(ratio: float | None) -> str:
    if ratio is None:
        return "—"
    return f"{ratio:,.0f}x" if ratio >= 999.5 else f"{ratio:.3g}x"


def several(count: int, what: str) -> str:
    """1 block, 2 blocks."""
    return f"{count:,} {what}{'s' * (count != 1)}"


def shortened(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
