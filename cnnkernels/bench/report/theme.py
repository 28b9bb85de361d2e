"""The report's colours and type: one palette, from which the page's style sheet and the charts' configuration come."""

from __future__ import annotations

from typing import Any

OURS, BASELINE, TORCH = "ours", "strongest baseline", "torch, eager"

#: Who is who, in the order of the palette.
SIDES = (OURS, BASELINE, TORCH)

#: Blue against orange is told apart by every kind of colour blindness; the third is a grey.
PALETTES: dict[str, dict[str, str]] = {
    "light": {
        "ground": "#ffffff",
        "panel": "#f6f7f8",
        "text": "#1b1f24",
        "quiet": "#5c6570",
        "line": "#dde1e5",
        "ours": "#0062a8",
        "baseline": "#c25a00",
        "torch": "#767d86",
        "slower": "#fbeee1",
    },
    "dark": {
        "ground": "#14171b",
        "panel": "#1c2025",
        "text": "#e6e9ec",
        "quiet": "#9aa4af",
        "line": "#333a42",
        "ours": "#62b3f0",
        "baseline": "#f0974a",
        "torch": "#98a1ab",
        "slower": "#2e241b",
    },
}


def style(dark: bool) -> dict[str, Any]:
    """The charts' configuration, for Vega-Lite."""
    colors = PALETTES["dark" if dark else "light"]
    return {
        "background": None,
        "font": "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif",
        "view": {"stroke": None},
        "range": {"category": [colors["ours"], colors["baseline"], colors["torch"]]},
        "axis": {
            "labelColor": colors["quiet"],
            "titleColor": colors["quiet"],
            "titleFontWeight": "normal",
            "titlePadding": 8,
            "labelFontSize": 12,
            "titleFontSize": 12,
            "gridColor": colors["line"],
            "gridOpacity": 0.7,
            "domain": False,
            "tickColor": colors["line"],
        },
        # Under the names, not beyond the edge, where a chart is narrower than the title.
        "axisX": {"titleAnchor": "end"},
        "axisY": {"ticks": False, "labelPadding": 6},
        "legend": {
            "orient": "top",
            "direction": "horizontal",
            "title": None,
            "labelColor": colors["text"],
            "titleColor": colors["quiet"],
            "titleFontWeight": "normal",
            "titleOrient": "left",
            "labelFontSize": 12,
            "titleFontSize": 12,
            "symbolOpacity": 1,
            "columnPadding": 14,
        },
        "title": {"color": colors["text"], "fontSize": 15, "fontWeight": 600, "subtitleColor": colors["quiet"]},
        "style": {
            "reference": {"color": colors["text"], "stroke": colors["text"], "strokeWidth": 1},
            "slower": {"color": colors["slower"], "fill": colors["slower"]},
            "mean": {"color": colors["text"], "fill": colors["text"], "opacity": 1},
            "ceiling": {"color": colors["quiet"], "stroke": colors["quiet"]},
        },
    }
