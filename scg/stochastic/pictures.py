"""Pictures of a graph: as text, as DOT, as Mermaid, as SVG, and as a file of these or of matplotlib's kinds.

Squares are deterministic, circles stochastic; the estimator is their label.
"""

import io
import itertools
import os
from collections.abc import Hashable
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from scg.core.aliases import Statics
from scg.core.leaves import is_parameter
from scg.core.node import Node
from scg.errors import ScgError, ScgValueError, here
from scg.files import write
from scg.stochastic.sites import is_noise, is_stochastic

MOST = 200
"""A graph with more nodes than this is summarised: its parameters, samples and cost, and what leads from which to
which."""

_FILLS = {"draw": "#fff3e0", "noise": "#f5f5f5", "parameter": "#e3f2fd", "cost": "#e8f5e9", "plain": "#ffffff"}
_PAGE = (
    10.9,
    7.5,
)  # inches: a landscape page of A4 or of US letter, within margins; a portrait page where columns run down
# pixels: around all, half of a node's width, between columns and rows
_MARGIN, _HALF, _STEP_X, _STEP_Y = 30, 92, 232, 76
_TALL, _SIDE, _DOWN, _LANE = 26, 204, 88, 24  # half of a node's height; steps where columns run down; an edge's way
_ACROSS = 6  # columns beside one another: more stand one below the other, so that a page is as wide as letters need
_LETTERS = 28  # that fit into a node


class Picture(NamedTuple):
    """What is drawn: nodes by id with kind ("parameter", "draw", "noise", "cost", "plain") and label, and edges between
    them."""

    nodes: dict[int, tuple[str, str]]
    edges: list[tuple[int, int]]
    hidden: int

    def numbered(self) -> "Picture":
        """With nodes called 0, 1, 2, ... as in ``text``: the same for every run of a program."""
        number = {i: k for k, i in enumerate(self.nodes)}
        return Picture(
            {number[i]: kind for i, kind in self.nodes.items()},
            [(number[a], number[b]) for a, b in self.edges],
            self.hidden,
        )


class PictureError(ScgError, ImportError):
    """matplotlib is not installed."""


def picture(cost: Node, nodes: list[Node], names: dict[int, str], detail: bool = True) -> Picture:
    """Nodes and edges to draw: with ``detail`` all, summarised where there are too many; else parameters, stochastic
    nodes, what has a name, and the cost."""
    every = detail and len(nodes) <= MOST
    shown = [n for n in nodes if every or n is cost or is_stochastic(n) or n.name is not None or is_parameter(n)]
    kept = {n.id for n in shown}
    edges = []
    # what a hidden node stands for: the shown nodes that lead to it
    sources: dict[int, frozenset[int]] = {}
    for node in nodes:
        before: set[int] = set()
        for operand in node.operands:
            if type(operand) is Node and operand.id in sources:
                before |= sources[operand.id]
        if node.id in kept:
            edges += [(i, node.id) for i in sorted(before)]
            sources[node.id] = frozenset([node.id])
        else:
            sources[node.id] = frozenset(before)
    return Picture({n.id: _label(n, cost, names) for n in shown}, edges, len(nodes) - len(shown))


def _label(node: Node, cost: Node, names: dict[int, str]) -> tuple[str, str]:
    if is_stochastic(node):
        site = node.statics["site"]
        return "draw", f"{names.get(node.id, 'sample')} ~ {type(site.distribution).__name__}\n{site.estimator!r}"
    if is_parameter(node):
        return "parameter", node.name or "parameter"
    if is_noise(node):
        return "noise", f"noise ~ {type(node.statics['distribution']).__name__}"
    return ("cost" if node is cost else "plain"), node.name or node.primitive.name


def text(cost: Node, nodes: list[Node], names: dict[int, str]) -> str:
    """A line a node: number, what it is, shape and dtype, and the numbers of its operands."""
    drawn = picture(cost, nodes, names)
    number = {i: k for k, i in enumerate(drawn.nodes)}
    before: dict[int, list[int]] = {}
    for a, b in drawn.edges:
        before.setdefault(b, []).append(number[a])
    by_id = {n.id: n for n in nodes}
    lines = []
    for i, (kind, label) in drawn.nodes.items():
        mark = {"draw": "○", "noise": "·", "parameter": "θ", "cost": "■", "plain": "□"}[kind]
        value = by_id[i].raw
        shape = f"{len(value)} results" if isinstance(value, tuple) else f"{value.dtype}{list(value.shape)}"
        lines.append(
            (
                f"{number[i]:>3} {mark} {'  by '.join(label.split(chr(10)))}",
                shape,
                "← " + " ".join(map(str, before[i])) if i in before else "",
            )
        )
    width = min(max(len(a) for a, _, _ in lines), 80)
    narrow = max(len(b) for _, b, _ in lines)
    body = "\n".join(f"{a:<{width}}  {b:<{narrow}}  {c}".rstrip() for a, b, c in lines)
    return body + (f"\n    ({drawn.hidden} more nodes between them)" if drawn.hidden else "")


def dot(cost: Node, nodes: list[Node], names: dict[int, str], detail: bool = True) -> str:
    """Graphviz source."""
    drawn = picture(cost, nodes, names, detail).numbered()
    shape = {"draw": "ellipse", "noise": "point", "parameter": "plaintext", "cost": "box", "plain": "box"}
    lines = ["digraph {", "  rankdir=LR;"]
    for i, (kind, label) in drawn.nodes.items():
        quoted = label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        more = ", peripheries=2" if kind == "cost" else ""
        lines.append(f'  n{i} [shape={shape[kind]}, label="{quoted}"{more}];')
    lines += [f"  n{a} -> n{b};" for a, b in drawn.edges]
    return "\n".join([*lines, "}"])


def mermaid(cost: Node, nodes: list[Node], names: dict[int, str], detail: bool = True) -> str:
    """Mermaid source."""
    drawn = picture(cost, nodes, names, detail).numbered()
    left = {"draw": "((", "noise": "((", "parameter": "(", "cost": "[[", "plain": "["}
    right = {"draw": "))", "noise": "))", "parameter": ")", "cost": "]]", "plain": "]"}
    lines = ["flowchart LR"]
    for i, (kind, label) in drawn.nodes.items():
        quoted = escape(label).replace("\n", "<br/>")
        lines.append(f'  n{i}{left[kind]}"{quoted}"{right[kind]}')
    return "\n".join([*lines, *[f"  n{a} --> n{b}" for a, b in drawn.edges]])


class Layout(NamedTuple):
    """Where a picture's nodes stand: ``place`` by id, (x, y) in pixels from the upper left; ``edges``, the points
    through which each passes, from node to node, one a column; the size of the whole; and whether columns stand one
    below the other."""

    place: dict[int, tuple[float, float]]
    edges: list[list[tuple[float, float]]]
    width: float
    height: float
    down: bool


def layout(drawn: Picture) -> Layout:
    """One column for each distance from the leaves. An edge past a column has a place of its own there.

    Places are found as (along, across), and become (x, y), or (y, x) where there are many columns.
    """
    before: dict[int, list[int]] = {}
    for a, b in drawn.edges:
        before.setdefault(b, []).append(a)
    column: dict[int, int] = {}
    for i in drawn.nodes:
        column[i] = max([column[a] + 1 for a in before.get(i, [])], default=0)
    # what stands in each column: nodes, and (node, column) where an edge from that node passes; with what each is
    # joined to one column earlier
    rows: dict[int, dict[Hashable, list[Hashable]]] = {c: {} for c in range(max(column.values()) + 1)}
    for i in drawn.nodes:
        rows[column[i]][i] = [a if column[a] == column[i] - 1 else (a, column[i] - 1) for a in before.get(i, [])]
        for a in before.get(i, []):
            for c in range(column[a] + 1, column[i]):
                rows[c][a, c] = [a if column[a] == c - 1 else (a, c - 1)]
    down = len(rows) > _ACROSS
    along, step = (_MARGIN + _TALL, _DOWN) if down else (_MARGIN + _HALF, _STEP_X)
    node = _SIDE if down else _STEP_Y  # what a node takes across; an edge that passes takes a lane
    widths = {c: sum([_LANE if type(key) is tuple else node for key in members]) for c, members in rows.items()}
    widest = max(widths.values())
    place: dict[Hashable, tuple[float, float]] = {}
    for c, members in rows.items():  # each as near as can be to what it is joined to
        heights = {
            key: sum(place[a][1] for a in joined) / len(joined) if joined else 0.0 for key, joined in members.items()
        }
        start = _MARGIN + (widest - widths[c]) / 2
        for key in sorted(members, key=heights.__getitem__):
            taken = _LANE if type(key) is tuple else node
            place[key] = along + step * c, start + taken / 2
            start += taken
    size: tuple[float, float] = 2 * along + step * (len(rows) - 1), 2 * _MARGIN + widest
    if down:
        place, size = {key: (x, y) for key, (y, x) in place.items()}, (size[1], size[0])
    edges = [[place[a], *[place[a, c] for c in range(column[a] + 1, column[b])], place[b]] for a, b in drawn.edges]
    return Layout({i: place[i] for i in drawn.nodes}, edges, *size, down)


def svg(cost: Node, nodes: list[Node], names: dict[int, str], detail: bool = True) -> str:
    """A picture without further dependencies. It is as wide as its numbers say where there is room, and narrower where
    there is less."""
    drawn = picture(cost, nodes, names, detail)
    place, edges, width, height, down = layout(drawn)
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" viewBox="0 0'
            f' {width:.0f} {height:.0f}" style="max-width:100%;height:auto" font-family="sans-serif" font-size="11"'
            ' text-anchor="middle">'
        ),
        (
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
            '<path d="M0 0 L8 4 L0 8 z" fill="#555"/></marker></defs>'
        ),
    ]
    for stops in edges:
        line = " ".join(
            [command + " ".join(f"{x:.0f} {y:.0f}" for x, y in points) for command, points in _strokes(stops, down)]
        )
        parts.append(f'<path d="{line}" fill="none" stroke="#555" marker-end="url(#tip)"/>')
    for i, (kind, label) in drawn.nodes.items():
        x, y = place[i]
        if kind in ("draw", "noise"):
            parts.append(
                f'<ellipse cx="{x:.0f}" cy="{y:.0f}" rx="{_HALF}" ry="26" fill="{_FILLS[kind]}" stroke="#333"/>'
            )
        else:
            parts.append(
                f'<rect x="{x - _HALF:.0f}" y="{y - 18:.0f}" width="{2 * _HALF}" height="36" fill="{_FILLS[kind]}"'
                ' stroke="#333"/>'
            )
        lines = _cut(label)
        for k, line in enumerate(lines):
            parts.append(f'<text x="{x:.0f}" y="{y + 4 + 14 * (k - (len(lines) - 1) / 2):.0f}">{escape(line)}</text>')
    return "\n".join([*parts, "</svg>"])


def save(
    path: str | os.PathLike[str], cost: Node, nodes: list[Node], names: dict[int, str], detail: bool = True
) -> None:
    """Write a picture to a file, of the kind that its suffix names: SVG, DOT and Mermaid as text, the others (PDF, PNG)
    by matplotlib, on one page."""
    texts = {".svg": svg, ".dot": dot, ".mmd": mermaid}
    kind = Path(path).suffix.lower()
    if kind in texts:
        write(path, (texts[kind](cost, nodes, names, detail) + "\n").encode())
        return
    if kind not in (".pdf", ".png"):
        raise ScgValueError(
            f"a picture of a graph is a file .svg, .pdf, .png, .dot or .mmd, got {os.fspath(path)!r} ({here()})"
        )
    out = io.BytesIO()
    _figure(picture(cost, nodes, names, detail)).savefig(
        out, format=kind[1:], metadata={"CreationDate": None} if kind == ".pdf" else None
    )
    write(path, out.getvalue())


def _figure(drawn: Picture) -> Any:
    """The picture of ``svg`` as a figure of matplotlib, scaled to fit a page."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.patches import Ellipse, FancyArrowPatch, Rectangle
        from matplotlib.path import Path as Curve
    except ImportError as error:
        raise PictureError(
            "PDF and PNG are drawn by matplotlib, which is not installed: pip install 'scg[plot]', or save an .svg"
            f" ({here()})"
        ) from error
    place, edges, width, height, down = layout(drawn)
    scale = min(1 / 96, _PAGE[down] / width, _PAGE[not down] / height)  # inches a pixel
    figure = Figure(figsize=(width * scale, height * scale), dpi=200)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    line, size = 0.75 * 96 * scale, 11 * 72 * scale  # points
    codes = {"M": Curve.MOVETO, "L": Curve.LINETO, "C": Curve.CURVE4}
    for stops in edges:
        strokes = _strokes(stops, down)
        curve = Curve(
            [p for _, points in strokes for p in points],
            [codes[command] for command, points in strokes for _ in points],
        )
        arrow = FancyArrowPatch(
            path=curve,
            arrowstyle="-|>",
            mutation_scale=max(8 * 96 * scale, 1),
            color="#555555",
            linewidth=line,
            shrinkA=0,
            shrinkB=0,
        )
        axes.add_patch(arrow)
    for i, (kind, label) in drawn.nodes.items():
        x, y = place[i]
        look: Statics = {"facecolor": _FILLS[kind], "edgecolor": "#333333", "linewidth": line, "zorder": 2}
        round_ = kind in ("draw", "noise")
        axes.add_patch(
            Ellipse((x, y), 2 * _HALF, 52, **look) if round_ else Rectangle((x - _HALF, y - 18), 2 * _HALF, 36, **look)
        )
        text = "\n".join(_cut(label)).replace("$", r"\$")
        axes.text(x, y, text, fontsize=size, ha="center", va="center", zorder=3, linespacing=1.2)
    return figure


def _strokes(stops: list[tuple[float, float]], down: bool) -> list[tuple[str, list[tuple[float, float]]]]:
    """An edge by pen commands: M (move), L (a straight line, past a node), C (a curve to the next column)."""
    if down:
        turned = _bent([(y, x) for x, y in stops], _TALL)
        return [(command, [(x, y) for y, x in points]) for command, points in turned]
    return _bent(stops, _HALF)


def _bent(stops: list[tuple[float, float]], half: int) -> list[tuple[str, list[tuple[float, float]]]]:
    (x, y), found = stops[0], []
    found.append(("M", [(x + half, y)]))
    for (xa, ya), (xb, yb) in itertools.pairwise(stops):
        xa, xb = xa + half, xb - half
        found += [("L", [(xa, ya)]), ("C", [((xa + xb) / 2, ya), ((xa + xb) / 2, yb), (xb, yb)])]
    return found


def _cut(label: str) -> list[str]:
    """The lines of a label, each as long as a node is wide."""
    return [line if len(line) <= _LETTERS else line[: _LETTERS - 1] + "…" for line in label.split("\n")]
