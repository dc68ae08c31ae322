"""Figures that need no legend: labels at the ends of the lines, and lines that differ in dashes and markers, not in
colour alone.

Imported when a figure is drawn: nothing else needs matplotlib.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

INK = ("#000000", "#0b559f", "#b33c00", "#2f7d32", "#7b4fa3", "#8a6d00", "#606060", "#0090a0")
DASHES: tuple[Any, ...] = ("-", (0, (6, 1.5)), (0, (1.5, 1.2)), (0, (7, 1.5, 1.5, 1.5)))
MARKERS = "os^Dv<>P"
SIZE = 9


def style(i: int) -> dict[str, Any]:
    """Colour, dashes and marker of the i-th line."""
    return {
        "color": INK[i % len(INK)],
        "linestyle": DASHES[i % len(DASHES)],
        "marker": MARKERS[i % len(MARKERS)],
        "linewidth": 1.4,
        "markersize": 4,
    }


def panels(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, Any]:
    """(figure, axes as an array), plain ones."""
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for each in axes.flat:
        each.spines[["top", "right"]].set_visible(False)
        each.grid(alpha=0.25, linewidth=0.6)
        each.tick_params(labelsize=SIZE)
    return figure, axes


def line(
    axes: Any,
    x: Sequence[float],
    y: Sequence[float | None],
    i: int,
    *,
    at: Any = None,
    entries: Any = None,
    **other: Any,
) -> tuple[float, float, int]:
    """The i-th line through (x, y); with ``entries``, at x or ``at``, their variances as markers with intervals in
    place of markers on the line; hollow ones where no interval is known. Its end."""
    look = {**style(i), **other}
    x, y = np.asarray(x, float), np.array([np.nan if v is None or v <= 0 else v for v in y])
    if entries is not None:
        points, low, high = (
            np.array([np.nan if v[key] is None else v[key] for v in entries], float)
            for key in ("variance", "low", "high")
        )
        marks = {
            "color": look["color"],
            "marker": look["marker"],
            "markersize": look["markersize"],
            "linestyle": "",
            "linewidth": 1,
        }
        seen, where = points > 0, x if at is None else np.asarray(at, float)
        known = seen & np.isfinite(low) & np.isfinite(high)
        ends = [(points - low)[known], (high - points)[known]]
        axes.errorbar(where[known], points[known], yerr=ends, capsize=2, **marks)
        open_ended = seen & ~known  # no interval is claimed: a hollow marker
        axes.plot(where[open_ended], points[open_ended], **marks, markerfacecolor="white")
        look["marker"] = ""
    axes.plot(x, y, **look)
    last = np.flatnonzero(np.isfinite(y))
    return (float(x[last[-1]]), float(y[last[-1]]), i) if len(last) else (np.nan, np.nan, i)


def label(axes: Any, ends: Sequence[tuple[float, float, int]], names: Sequence[str]) -> None:
    """Each name at the end of its line: as near as the others allow, with a thin line to it."""
    named = [(end, name) for end, name in zip(ends, names, strict=True) if np.isfinite(end[1])]
    axes.figure.canvas.draw()
    to_axes = axes.transData + axes.transAxes.inverted()
    height = axes.get_window_extent().height / axes.figure.dpi * 72
    gap = 1.3 * SIZE / height
    heights = [float(np.clip(to_axes.transform(end[:2])[1], 0, 1)) for end, _ in named]
    order = np.argsort(heights, kind="stable")
    placed = spread([heights[i] for i in order], gap)
    for i, y in zip(order, placed, strict=True):
        (x, value, which), name = named[i]
        axes.annotate(
            name,
            (x, value),
            xytext=(1.05, y),
            textcoords="axes fraction",
            va="center",
            fontsize=SIZE,
            color=INK[which % len(INK)],
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": INK[which % len(INK)],
                "linewidth": 0.5,
                "shrinkA": 1,
                "shrinkB": 3,
            },
        )


def spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Rising heights at least ``gap`` apart, as near to the wanted ones (rising too) as that allows: neighbours that
    collide share the difference."""
    groups: list[list[float]] = []  # [centre, size]
    for y in wanted:
        groups.append([y, 1])
        while len(groups) > 1 and groups[-1][0] - groups[-2][0] < gap * (groups[-1][1] + groups[-2][1]) / 2:
            (a, m), (b, n) = groups[-2:]
            groups[-2:] = [[(a * m + b * n) / (m + n), m + n]]
    return [centre + gap * (k - (size - 1) / 2) for centre, size in groups for k in range(int(size))]


def against(found: Sequence[tuple[str, dict[str, float]]], title: str) -> Any:
    """Estimated over exact, one row each, with intervals: all of them should stand about one."""
    figure, ((axes,),) = panels(1, 1, (9, 0.22 * len(found) + 1.2))
    found = [(name, v) for name, v in found if v["exact"] > 0]
    for i, (_, v) in enumerate(found):
        ratio, low, high = (np.nan if v[key] is None else v[key] / v["exact"] for key in ("variance", "low", "high"))
        known = np.isfinite(low) and np.isfinite(high)
        marks = {"color": "black", "marker": "o", "markersize": 4, "markerfacecolor": "black" if known else "white"}
        axes.errorbar(
            ratio, -i, xerr=[[ratio - low], [high - ratio]] if known else None, capsize=2, linewidth=1, **marks
        )
    axes.axvline(1, color="0.5", linewidth=0.8)
    axes.set_yticks([-i for i in range(len(found))], [name for name, _ in found], fontsize=SIZE)
    axes.set_xlabel("estimated variance / exact variance, 95% intervals", fontsize=SIZE)
    figure.suptitle(title, x=0.01, ha="left", fontsize=SIZE + 2)
    return figure
