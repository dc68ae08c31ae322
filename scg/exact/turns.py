"""Where nodes on the way to a cost turn along the lines of ``panels``: where they change their sign, their direction or
their truth. What a rule does not see lies there."""

import math
from typing import NamedTuple, Protocol

import numpy as np

from scg.core.node import Node
from scg.exact.engine import Engine
from scg.exact.leaf import Choice
from scg.exact.lines import NODES, Line, Places, Run
from scg.stochastic.sides import is_break

_CANDIDATES = 200  # places along one element where a node turns
_FINER = 32  # places for one, where primitives from outside say nothing of themselves
_SECTIONS = 16  # of a bracket, at each step towards the place in it


class Runs(Protocol):
    """What runs the costs along lines: see ``panels``."""

    watched: list[Node]
    choices: list[Choice]
    engine: Engine

    def run(self, x: Places, choice: Choice, nodes: list[Node], costs: bool = ...) -> Run: ...


class Bracket(NamedTuple):
    """Between which points of a grid a node changes: the position of the ``node``, its ``entry``, the ``element`` of
    the line, the first ``row`` of the grid; whether it turns there, which takes three points."""

    node: int
    entry: int
    element: int
    row: int
    turns: bool


def candidates(panels: Runs, lines: dict[int, Line], edges: Places, turns: bool = True) -> Places:
    """Where nodes on the way to the cost change their sign, their direction or their value, for each element, in
    v."""
    grid = {
        e: np.sort((0.5 * (a[:, :1] + a[:, 1:]) + 0.5 * (a[:, 1:] - a[:, :1]) * NODES).reshape(-1))
        for e, a in edges.items()
    }
    found = _seen(panels, lines, grid, panels.watched, turns)
    silent = [n for n in panels.watched if n.primitive.silent]
    if silent and turns:  # what is inside of one cannot be followed: it is looked at more closely
        fine = {e: _between(v) for e, v in grid.items()}
        closer = _seen(panels, lines, fine, silent, turns)
        found = {e: np.union1d(found[e], closer[e]) for e in found}
    return found


def _seen(panels: Runs, lines: dict[int, Line], grid: Places, watched: list[Node], turns: bool) -> Places:
    """``_candidates`` of some nodes, on a grid."""
    rows = max(map(len, grid.values()))
    grid = {e: np.append(v, np.full(rows - len(v), v[-1] if len(v) else 0.0)) for e, v in grid.items()}
    tables = {n.id: panels.engine.reach[n.id][:, list(grid)] for n in watched}
    nodes = [n for n in watched if tables[n.id].any()]
    places: dict[int, list[float]] = {e: [] for e in grid}
    for choice in panels.choices[:2]:
        values = panels.run({e: lines[e].at(v)[0] for e, v in grid.items()}, choice, nodes, False).nodes
        wanted = []
        for k, n in enumerate(nodes):
            single = tables[n.id].sum(axis=1) == 1
            for j in np.flatnonzero(single)[:4096]:
                e = list(grid)[int(np.argmax(tables[n.id][j]))]
                wanted.append((k, int(j), e))
        brackets = _brackets(wanted, values, [is_number(n) for n in nodes], turns)
        for e, v in _closed(panels, lines, grid, nodes, brackets, choice):
            places[e].append(v)
    return {e: np.unique(np.array(p)) for e, p in places.items()}


def _closed(
    panels: Runs,
    lines: dict[int, Line],
    grid: Places,
    nodes: list[Node],
    brackets: list[Bracket],
    choice: Choice,
) -> list[tuple[int, float]]:
    """Each bracket closed in on: by bisection where a node has another sign or value at its ends, by golden
    sections where it turns."""
    if not brackets:
        return []
    k, j, e, i, turn = (np.array(c) for c in zip(*brackets, strict=True))
    row = np.zeros(len(e), int)
    for element in np.unique(e):
        row[e == element] = np.arange(np.sum(e == element))
    used = sorted(set(k.tolist()))
    chosen, number = [nodes[u] for u in used], {u: m for m, u in enumerate(used)}
    k = np.array([number[u] for u in k])
    low = np.array([grid[a][b] for a, b in zip(e, i, strict=True)])
    high = np.array([grid[a][b + (2 if t else 1)] for a, b, t in zip(e, i, turn, strict=True)])

    def at(v: np.ndarray) -> np.ndarray:
        """The nodes at some places of each bracket, (brackets, places)."""
        x = {a: np.full((int(row.max()) + 1, v.shape[1]), lines[a].centre) for a in grid}
        for a in grid:
            mine = e == a
            x[a][row[mine]] = lines[a].at(v[mine])[0]
        values = panels.run({a: v.reshape(-1) for a, v in x.items()}, choice, chosen, False).nodes
        values = [v.reshape(*next(iter(x.values())).shape, -1) for v in values]
        return np.array([values[c][r, :, b] for c, r, b in zip(k, row, j, strict=True)], float)

    numbers = np.array([is_number(nodes[b.node]) for b in brackets])[:, None]
    steps, each = np.arange(_SECTIONS + 1) / _SECTIONS, np.arange(len(e))
    for depth in range(13):
        v = low[:, None] + (high - low)[:, None] * steps
        values = at(v)
        kinds = np.where(numbers, kind_of(values), np.nan_to_num(values, nan=-4.5))
        other = np.argmax(kinds != kinds[:, :1], axis=1)  # the first on the other side; 0 if rounding hides it
        if depth == 0:
            sign = np.where(values[:, 0] > np.min(values[:, 1:-1], axis=1), 1.0, -1.0)[:, None]
        lowest = np.clip(np.argmin(np.where(np.isnan(values), math.inf, sign * values), axis=1), 1, _SECTIONS - 1)
        start, stop = np.where(turn, lowest - 1, other - 1), np.where(turn, lowest + 1, other)
        lost = ~turn & (other == 0)
        low, high = np.where(lost, low, v[each, start]), np.where(lost, high, v[each, stop])
    return list(zip(e.tolist(), (0.5 * (low + high)).tolist(), strict=True))


def _between(grid: np.ndarray) -> np.ndarray:
    """A grid with ``_FINER`` - 1 places more between any two."""
    if len(grid) < 2:
        return grid
    steps = np.arange(len(grid) * _FINER - _FINER + 1) / _FINER
    return np.interp(steps, np.arange(len(grid)), grid)


def is_number(node: Node) -> bool:
    """Whether a node is looked at for its sign and direction; else its value, or the side that it is on, is what
    changes."""
    return node.dtype.kind == "f" and not is_break(node)


def kind_of(values: np.ndarray) -> np.ndarray:
    """The sign of a number; 4 where it is none, 2 and -2 where it is infinite."""
    return np.where(np.isnan(values), 4.0, np.sign(values) * np.where(np.isinf(values), 2, 1))


def _brackets(
    wanted: list[tuple[int, int, int]], values: list[np.ndarray], numbers: list[bool], turning: bool
) -> list[Bracket]:
    """Few for each place of the grid."""
    found: dict[int, dict[tuple[int, bool], list[Bracket]]] = {}
    for k, j, e in wanted:
        v = values[k][:, j]
        if numbers[k]:
            kinds = kind_of(v)
            with np.errstate(all="ignore"):
                d = np.sign(np.diff(v))
            turns = np.flatnonzero(
                (d[1:] != d[:-1]) & (d[1:] * d[:-1] <= 0) & np.isfinite(v[1:-1]) & ((d[1:] != 0) | (d[:-1] != 0))
            )
            both = [(np.flatnonzero(kinds[1:] != kinds[:-1]), False), (turns[: len(turns) * turning], True)]
        else:
            v = np.nan_to_num(v, nan=-4.5)
            both = [(np.flatnonzero(v[1:] != v[:-1]), False)]
        for rows, turn in both:
            for i in rows[:: max(1, len(rows) // _CANDIDATES)].tolist():
                here = found.setdefault(e, {}).setdefault((i, turn), [])
                if len(here) < 3:
                    here.append(Bracket(k, j, e, i, turn))
    result = []
    for places in found.values():
        every = [b for here in places.values() for b in here]
        result += every[:: max(1, len(every) // (3 * _CANDIDATES))]
    return result
