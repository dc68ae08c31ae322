"""Pictures of a graph: as text, as DOT, as Mermaid and as SVG. Squares are deterministic, circles stochastic; the estimator is their label."""

import itertools
from html import escape
from typing import Any, NamedTuple

from scg.graph import Node
from scg.sample import is_stochastic, noise

MOST = 200
"""A graph with more nodes than this is summarised: its parameters, draws and cost, and what leads from which to which."""

_MARGIN, _HALF, _STEP_X, _STEP_Y = 30, 92, 232, 76  # pixels: around all, half of a node's width, between columns and rows
_LETTERS = 28  # that fit into a node


class Picture(NamedTuple):
    """What is drawn: nodes by id with kind ("parameter", "draw", "noise", "cost", "plain") and label, and edges between them."""

    nodes: dict[int, tuple[str, str]]
    edges: list[tuple[int, int]]
    hidden: int

    def numbered(self) -> "Picture":
        """With nodes called 0, 1, 2, ... as in ``text``: the same for every run of a program."""
        number = {i: k for k, i in enumerate(self.nodes)}
        return Picture({number[i]: kind for i, kind in self.nodes.items()}, [(number[a], number[b]) for a, b in self.edges], self.hidden)


def picture(cost: Node, nodes: list[Node], names: dict[int, str]) -> Picture:
    """Nodes and edges to draw, summarised where there are too many."""
    shown = [n for n in nodes if len(nodes) <= MOST or n is cost or is_stochastic(n) or n.primitive.name == "parameter"]
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
        return "draw", f"{names.get(node.id, 'draw')} ~ {type(site.distribution).__name__}\n{site.estimator!r}"
    if node.primitive.name == "parameter":
        return "parameter", node.name or "parameter"
    if node.primitive is noise:
        return "noise", f"noise ~ {type(node.statics['law']).__name__}"
    return ("cost" if node is cost else "plain"), node.primitive.name


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
        value = by_id[i]._value
        shape = f"{len(value)} results" if isinstance(value, tuple) else f"{value.dtype}{list(value.shape)}"
        lines.append((f"{number[i]:>3} {mark} {'  by '.join(label.split(chr(10)))}", shape, "← " + " ".join(map(str, before[i])) if i in before else ""))
    width = min(max(len(a) for a, _, _ in lines), 80)
    narrow = max(len(b) for _, b, _ in lines)
    body = "\n".join(f"{a:<{width}}  {b:<{narrow}}  {c}".rstrip() for a, b, c in lines)
    return body + (f"\n    ({drawn.hidden} more nodes between them)" if drawn.hidden else "")


def dot(cost: Node, nodes: list[Node], names: dict[int, str]) -> str:
    """Graphviz source."""
    drawn = picture(cost, nodes, names).numbered()
    shape = {"draw": "ellipse", "noise": "point", "parameter": "plaintext", "cost": "box", "plain": "box"}
    lines = ["digraph {", "  rankdir=LR;"]
    for i, (kind, label) in drawn.nodes.items():
        quoted = label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        more = ", peripheries=2" if kind == "cost" else ""
        lines.append(f'  n{i} [shape={shape[kind]}, label="{quoted}"{more}];')
    lines += [f"  n{a} -> n{b};" for a, b in drawn.edges]
    return "\n".join([*lines, "}"])


def mermaid(cost: Node, nodes: list[Node], names: dict[int, str]) -> str:
    """Mermaid source."""
    drawn = picture(cost, nodes, names).numbered()
    left = {"draw": "((", "noise": "((", "parameter": "(", "cost": "[[", "plain": "["}
    right = {"draw": "))", "noise": "))", "parameter": ")", "cost": "]]", "plain": "]"}
    lines = ["flowchart LR"]
    for i, (kind, label) in drawn.nodes.items():
        quoted = escape(label).replace("\n", "<br/>")
        lines.append(f'  n{i}{left[kind]}"{quoted}"{right[kind]}')
    return "\n".join([*lines, *[f"  n{a} --> n{b}" for a, b in drawn.edges]])


def svg(cost: Node, nodes: list[Node], names: dict[int, str]) -> str:
    """A picture without further dependencies: one column for each distance from the leaves. An edge past a column has a place of its own there."""
    drawn = picture(cost, nodes, names)
    before: dict[int, list[int]] = {}
    for a, b in drawn.edges:
        before.setdefault(b, []).append(a)
    column: dict[int, int] = {}
    for i in drawn.nodes:
        column[i] = max([column[a] + 1 for a in before.get(i, [])], default=0)
    # what stands in each column: nodes, and (node, column) where an edge from that node passes; with what each is joined to one column earlier
    rows: dict[int, dict[Any, list[Any]]] = {c: {} for c in range(max(column.values()) + 1)}
    for i in drawn.nodes:
        rows[column[i]][i] = [a if column[a] == column[i] - 1 else (a, column[i] - 1) for a in before.get(i, [])]
        for a in before.get(i, []):
            for c in range(column[a] + 1, column[i]):
                rows[c][a, c] = [a if column[a] == c - 1 else (a, c - 1)]
    tallest = max(map(len, rows.values()))
    place: dict[Any, tuple[float, float]] = {}
    for c, members in rows.items():  # each as near as can be to what it is joined to
        heights = {key: sum(place[a][1] for a in joined) / len(joined) if joined else 0.0 for key, joined in members.items()}
        for k, key in enumerate(sorted(members, key=heights.__getitem__)):
            place[key] = (_MARGIN + _HALF + _STEP_X * c, _MARGIN + 26 + _STEP_Y * (k + (tallest - len(members)) / 2))
    width, height = 2 * (_MARGIN + _HALF) + _STEP_X * (len(rows) - 1), 2 * _MARGIN + 52 + _STEP_Y * (tallest - 1)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="11" text-anchor="middle">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z" fill="#555"/></marker></defs>',
    ]
    for a, b in drawn.edges:
        stops = [place[a], *[place[a, c] for c in range(column[a] + 1, column[b])], place[b]]
        line = f"M{stops[0][0] + _HALF:.0f} {stops[0][1]:.0f}"
        for (xa, ya), (xb, yb) in itertools.pairwise(stops):
            xa, xb = xa + _HALF, xb - _HALF
            line += f" L{xa:.0f} {ya:.0f} C{(xa + xb) / 2:.0f} {ya:.0f} {(xa + xb) / 2:.0f} {yb:.0f} {xb:.0f} {yb:.0f}"
        parts.append(f'<path d="{line}" fill="none" stroke="#555" marker-end="url(#tip)"/>')
    for i, (kind, label) in drawn.nodes.items():
        x, y = place[i]
        if kind in ("draw", "noise"):
            parts.append(f'<ellipse cx="{x:.0f}" cy="{y:.0f}" rx="{_HALF}" ry="26" fill="{"#fff3e0" if kind == "draw" else "#f5f5f5"}" stroke="#333"/>')
        else:
            fill = {"parameter": "#e3f2fd", "cost": "#e8f5e9", "plain": "#ffffff"}[kind]
            parts.append(f'<rect x="{x - _HALF:.0f}" y="{y - 18:.0f}" width="{2 * _HALF}" height="36" fill="{fill}" stroke="#333"/>')
        lines = [line if len(line) <= _LETTERS else line[: _LETTERS - 1] + "…" for line in label.split("\n")]
        for k, line in enumerate(lines):
            parts.append(f'<text x="{x:.0f}" y="{y + 4 + 14 * (k - (len(lines) - 1) / 2):.0f}">{escape(line)}</text>')
    return "\n".join([*parts, "</svg>"])

