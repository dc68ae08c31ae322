"""Figures of reports: variance against work, and lines along a parameter. Black and greys, marks by shape, labels
beside what they name."""

import io
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from scg.core.aliases import Keywords, Result
from scg.errors import ScgError, ScgTypeError, ScgValueError, here
from scg.files import write
from scg.variance.rows import Entry, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKS = ("o", "s", "^", "D", "P", "X", "<", ">", "h", "*", "p")
_STROKES: tuple[object, ...] = (
    "-",
    (0, (5, 2)),
    (0, (1, 1.4)),
    (0, (6, 2, 1, 2)),
    (0, (3, 1, 1, 1, 1, 1)),
    (0, (9, 3)),
)
_GREYS = ("#000000", "#555555", "#2b2b2b", "#7a7a7a")
_UNITS = {"evaluations": "evaluations of the cost, a gradient", "seconds": "time of a gradient"}
_NAMES = {"variance": "variance, sum over coordinates", "snr": "signal-to-noise ratio", "bias": "bias, norm"}


class Reported(Protocol):
    """A report: its rows by label."""

    @property
    def rows(self) -> Mapping[str, Row]: ...


class Swept(Protocol):
    """A sweep of what is called ``name``: its rows, and the field of each along the values."""

    @property
    def name(self) -> str: ...

    @property
    def labels(self) -> Sequence[str]: ...

    def line(self, label: str, field: str = ..., parameter: str = ...) -> tuple[np.ndarray, np.ndarray]: ...


class PlotError(ScgError, ImportError):
    """matplotlib is not installed."""


def scatter(
    report: Reported,
    path: str | os.PathLike[str] | None = None,
    work: str = "seconds",
    parameter: str = "total",
    title: str | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Variance against work for one gradient, on logarithmic axes: a mark a row, with its interval; exact variances as
    short bars. A row that does not count its evaluations is named below a plot against these.

    Along a grey line variance times work is the same: what lies below and to the left is better. A row without variance
    stands at the lower edge. ``work`` is "seconds" or "evaluations". To a file ``path`` (.svg, .png, .pdf), into the
    Axes ``ax``, or both; returns the Axes.
    """
    if work not in _UNITS:
        raise ScgValueError(f"work must be 'seconds' or 'evaluations', got {work!r} ({here()})")
    figure, axes = _figure(path, ax)
    from matplotlib.ticker import EngFormatter, FuncFormatter

    entries = [row.total if parameter == "total" else row.entries[parameter] for row in report.rows.values()]
    uncounted = [e.row for e in entries if math.isnan(getattr(e, work))]
    entries = [e for e in entries if e.row not in uncounted]
    if not entries:
        raise ScgValueError(f"no row counts its {work}: give evaluations= to Samples, or work='seconds' ({here()})")
    bottom = _limit(axes, entries, work)
    if work == "seconds":
        axes.xaxis.set_major_formatter(EngFormatter("s"))
    else:
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
    _isolines(axes)
    boxes = []
    for k, entry in enumerate(entries):
        at = getattr(entry, work), entry.variance if entry.variance > 0 else bottom
        _mark(axes, entry, at, _MARKS[k % len(_MARKS)])
        boxes.append((_named(entry), at))
    axes.set_xlabel(_UNITS[work] + (f"    (not counted: {', '.join(uncounted)})" if uncounted else ""))
    axes.set_ylabel(_NAMES["variance"] + ("" if parameter == "total" else f", {parameter}"))
    if title:
        axes.set_title(title, loc="left", fontsize=10)
    _label(figure, axes, boxes)
    return _finished(figure, axes, path)


def _limit(axes: "Axes", entries: list[Entry], work: str) -> float:
    """Make room on the axes for all entries, their intervals and names; returns where those without variance stand."""
    from matplotlib.ticker import LogLocator

    x, y = np.array([getattr(e, work) for e in entries]), np.array([e.variance for e in entries])
    positive = y[y > 0]
    floor = positive.min() / 10 if positive.size else 0.1
    spread = [
        v
        for e in entries
        if e.variance > 0
        for v in (e.variance, e.exact_variance, e.low, e.high)
        if v > floor and math.isfinite(v)
    ]
    bottom, top = (min([floor, *spread]), max(spread)) if spread else (0.1, 1.0)
    axes.set_xscale("log")
    axes.set_yscale("log")
    left, right = x[x > 0].min(), x.max()
    pad = max((right / left) ** 0.25, 1.8)
    axes.set_xlim(left / pad, right * pad**1.6)
    high = (top / bottom) ** 0.08
    axes.set_ylim(bottom / (high * 1.3 if (y == 0).any() else 1.3), top * high * 1.5)
    if x.max() < 30 * x.min():
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    return float(bottom)


def _mark(axes: "Axes", entry: Entry, at: tuple[float, float], mark: str) -> None:
    """The mark of a row, its interval, and the bar of its exact variance."""
    if entry.variance > 0 and math.isfinite(entry.high):
        low, top = axes.get_ylim()
        ends = [[entry.variance - max(entry.low, low)], [min(entry.high, top) - entry.variance]]
        axes.errorbar([at[0]], [at[1]], yerr=ends, fmt="none", ecolor="black", elinewidth=1, capsize=3, zorder=3)
    if entry.exact_variance > 0:
        bar: Keywords = {"marker": "_", "markersize": 15, "markeredgewidth": 1.5}
        axes.plot(at[0], entry.exact_variance, color="black", zorder=5, **bar)
    face: Keywords = {
        "markersize": 6.5,
        "markerfacecolor": "#666666" if entry.reliable else "white",
        "markeredgecolor": "black",
    }
    axes.plot(*at, marker=mark if entry.variance > 0 else "v", linestyle="none", zorder=4, **face)


def _named(entry: Entry) -> str:
    """The name of a row, and why its mark is another one."""
    if not entry.variance > 0:
        return entry.row + (" (no variance)" if entry.reliable else " (none seen)")
    return entry.row if entry.reliable else f"{entry.row} (tail too heavy)"


def lines(
    sweep: Swept,
    path: str | os.PathLike[str] | None = None,
    field: str = "variance",
    parameter: str = "total",
    title: str | None = None,
    log: bool | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """A field of ``Entry`` along the parameter of a sweep: a line a row with its interval, named at its end.

    ``log`` of the abscissa: where values allow it. To a file ``path`` (.svg, .png, .pdf), into the Axes ``ax``, or
    both; returns the Axes.
    """
    figure, axes = _figure(path, ax)
    ends = []
    curves = [(label, *sweep.line(label, field, parameter)) for label in sweep.labels]
    x_all = np.concatenate([x for _, x, _ in curves])
    wide = bool(np.all(x_all > 0) and x_all.max() / x_all.min() >= 8) if log is None else log
    if wide:
        axes.set_xscale("log")
    if any((y > 0).any() for _, _, y in curves):
        axes.set_yscale("log")
    nothing: list[str] = []
    for k, (label, x, y) in enumerate(curves):
        seen = np.isfinite(y) & (y > 0)
        if not seen.any():
            nothing.append(label)
            continue
        color = _GREYS[k % len(_GREYS)]
        axes.plot(
            x,
            np.where(seen, y, np.nan),
            color=color,
            linestyle=_STROKES[k % len(_STROKES)],
            marker=_MARKS[k % len(_MARKS)],
            markersize=4,
            linewidth=1.3,
        )
        if field == "variance":
            low, high, exact = (sweep.line(label, name, parameter)[1] for name in ("low", "high", "exact_variance"))
            axes.fill_between(
                x, np.maximum(low, y * 1e-2), high, where=seen & np.isfinite(high), color=color, alpha=0.15, linewidth=0
            )
            known = exact > 0
            axes.plot(x[known], exact[known], linestyle="none", marker="_", markersize=9, color="black", zorder=5)
        ends.append((label, x[seen][-1], y[seen][-1]))
    axes.set_xlabel(sweep.name + (f"    (zero throughout: {', '.join(nothing)})" if nothing else ""))
    axes.set_ylabel(_NAMES.get(field, field) + ("" if parameter == "total" else f", {parameter}"))
    if title:
        axes.set_title(title, loc="left", fontsize=10)
    _name_ends(figure, axes, ends)
    return _finished(figure, axes, path)


def _figure(path: str | os.PathLike[str] | None, ax: Result) -> "tuple[Result, Axes]":
    """(the figure and the Axes to draw into): those of ``ax``, else new ones."""
    if path is None and ax is None:
        raise ScgTypeError(f"plot needs a file to write, or ax= to draw into ({here()})")
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PlotError(
            "figures are drawn by matplotlib, which is not installed: pip install 'scg[plot]'; to_csv needs nothing"
            f" ({here()})"
        ) from error
    if ax is not None:
        if not hasattr(ax, "annotate"):
            raise ScgTypeError(
                f"ax must be an Axes of matplotlib, got {type(ax).__name__}: figure, ax = plt.subplots() ({here()})"
            )
        if not hasattr(ax.figure.canvas, "get_renderer"):  # labels are placed by their size
            FigureCanvasAgg(ax.figure)
        return ax.figure, ax
    figure = Figure(figsize=(6.4, 4.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(labelsize=8)
    return figure, axes


def _isolines(axes: "Axes") -> None:
    """Lines of equal variance times work, a power of ten (or several) apart."""
    (x0, x1), (y0, y1) = axes.get_xlim(), axes.get_ylim()
    low, high = math.floor(math.log10(x0 * y0)), math.ceil(math.log10(x1 * y1))
    step = max(1, (high - low) // 8)
    for power in range(low, high + 1, step):
        axes.plot(
            [x0, x1],
            [10.0**power / x0, 10.0**power / x1],
            color="#d8d8d8",
            linewidth=0.8,
            zorder=1,
            scalex=False,
            scaley=False,
        )


def _label(figure: Result, axes: "Axes", points: list[tuple[str, tuple[float, float]]]) -> None:
    """Texts beside their points, each where it meets neither a point, nor a text, nor the edge, as far as there is such
    a place."""
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    frame = axes.get_window_extent(renderer)
    marks = axes.transData.transform([at for _, at in points])
    taken = [(x - 17, y - 9, x + 17, y + 9) for x, y in marks]
    places = [
        (dx * r, dy * r)
        for r in (1, 2.2, 3.6, 5.2)
        for dx, dy in ((10, 0), (9, 7), (9, -7), (-10, 0), (-9, 7), (-9, -7), (0, 10), (0, -10))
    ]
    for text, at in points:
        best = None
        for dx, dy in places:
            label = axes.annotate(
                text,
                at,
                (dx, dy),
                textcoords="offset points",
                fontsize=8,
                ha="left" if dx > 0 else "right" if dx < 0 else "center",
                va="center" if abs(dy) <= abs(dx) else "bottom" if dy > 0 else "top",
                zorder=6,
            )
            box = label.get_window_extent(renderer)
            mine = (box.x0 - 2, box.y0 - 1, box.x1 + 2, box.y1 + 1)
            clash = sum(_overlap(mine, other) for other in taken)
            outside = (
                max(0, frame.x0 - box.x0)
                + max(0, box.x1 - frame.x1)
                + max(0, frame.y0 - box.y0)
                + max(0, box.y1 - frame.y1)
            )
            cost = clash + 100 * outside + 0.1 * math.hypot(dx, dy)
            if best is None or cost < best[0]:
                if best is not None:
                    best[1].remove()
                best = (cost, label, mine, (dx, dy))
            else:
                label.remove()
        assert best is not None
        taken.append(best[2])
        if math.hypot(*best[3]) > 15:
            leader = {"arrowstyle": "-", "linewidth": 0.5, "color": "#888888", "shrinkB": 4}
            axes.annotate("", at, best[3], textcoords="offset points", arrowprops=leader, zorder=2)


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _name_ends(figure: Result, axes: "Axes", ends: list[tuple[str, float, float]]) -> None:
    """The names of lines in a column at the right, in the order of their ends, moved apart until none overlaps."""
    if not ends:
        return
    figure.draw_without_rendering()
    height, gap = axes.get_window_extent().height, 13.0 * figure.dpi / 100
    order = sorted(ends, key=lambda end: end[2])
    wanted = [
        float(axes.transAxes.inverted().transform(axes.transData.transform((x, y)))[1]) * height for _, x, y in order
    ]
    placed = list(wanted)
    for _ in range(200):
        for i in range(1, len(placed)):
            short = gap - (placed[i] - placed[i - 1])
            if short > 0:
                placed[i - 1], placed[i] = placed[i - 1] - short / 2, placed[i] + short / 2
        placed = [min(max(p, 0.0), height) for p in placed]
    right = axes.get_xlim()[1]
    axes.set_xlim(axes.get_xlim()[0], right)
    for (label, x, y), at in zip(order, placed, strict=True):
        axes.annotate(
            label,
            (x, y),
            (1.03, at / height),
            xycoords="data",
            textcoords="axes fraction",
            fontsize=8,
            va="center",
            arrowprops={"arrowstyle": "-", "linewidth": 0.5, "color": "#888888", "shrinkA": 1, "shrinkB": 3},
            annotation_clip=False,
        )


def _finished(figure: Result, axes: "Axes", path: str | os.PathLike[str] | None) -> "Axes":
    if path is not None:
        _save(figure, path)
    return axes


def _save(figure: Result, path: str | os.PathLike[str]) -> None:
    kind = Path(path).suffix.lstrip(".").lower() or "png"
    from matplotlib import rc_context

    out = io.BytesIO()
    try:
        with rc_context({"svg.hashsalt": "scg"}):  # the same figure, the same file
            figure.savefig(out, format=kind, metadata={"Date": None} if kind == "svg" else None)
    except ValueError as error:
        raise ScgValueError(f"{path}: {error} ({here()})") from None
    write(path, out.getvalue())
