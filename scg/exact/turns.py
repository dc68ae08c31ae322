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
_ENTRIES = 4096  # of a node that are looked at
_NUMBERS, _LEAST = 2**18, 64  # numbers of an array of a block of rows, and the least of rows
_EACH = 3  # brackets of one place of the grid


class Runs(Protocol):
    """What runs the costs along lines: see ``panels``."""

    looks: list[Choice]
    elements: list[int]
    engine: Engine
    largest: int

    def run(self, x: Places, choice: Choice, nodes: list[Node], costs: bool = ...) -> Run: ...


class Bracket(NamedTuple):
    """Between which points of a grid nodes change, an entry for each change: the position of the ``node``, its
    ``entry``, the ``element`` of the line, the first ``row`` of the grid; whether it turns there, which takes three
    points."""

    node: np.ndarray
    entry: np.ndarray
    element: np.ndarray
    row: np.ndarray
    turns: np.ndarray


def candidates(panels: Runs, lines: dict[int, Line], edges: Places, watched: list[Node], turns: bool = True) -> Places:
    """Where some nodes on the way to the cost change their sign, their direction or their value, for each element, in
    v."""
    grid = {
        e: np.sort((0.5 * (a[:, :1] + a[:, 1:]) + 0.5 * (a[:, 1:] - a[:, :1]) * NODES).reshape(-1))
        for e, a in edges.items()
    }
    found = _seen(panels, lines, grid, watched, turns)
    silent = [n for n in watched if n.primitive.silent]
    if silent and turns:  # what is inside of one cannot be followed: it is looked at more closely
        fine = {e: _between(v) for e, v in grid.items()}
        closer = _seen(panels, lines, fine, silent, turns)
        found = {e: np.union1d(found[e], closer[e]) for e in found}
    return found


def _seen(panels: Runs, lines: dict[int, Line], grid: Places, watched: list[Node], turns: bool) -> Places:
    """``_candidates`` of some nodes, on a grid."""
    rows = max(map(len, grid.values()))
    grid = {e: np.append(v, np.full(rows - len(v), v[-1] if len(v) else 0.0)) for e, v in grid.items()}
    elements = np.array(list(grid))
    tables = {n.id: panels.engine.reach[n.id][:, elements] for n in watched}
    nodes = [n for n in watched if tables[n.id].any()]
    at = {e: lines[e].at(v)[0] for e, v in grid.items()}
    step = max(_LEAST, _NUMBERS // panels.largest)
    found: list[tuple[np.ndarray, np.ndarray]] = []
    for k, choice in enumerate(panels.looks):
        if k == 1:  # others are the same at all values of other samples
            nodes = [n for n in nodes if np.any(panels.engine.reach[n.id].sum(axis=1) > 1)]
        if not nodes:
            break
        brackets = []
        entries = [np.flatnonzero(tables[n.id].sum(axis=1) == 1)[:_ENTRIES] for n in nodes]
        for start in range(0, rows, step):  # a bracket may have two points of the block before
            first = max(start - 2, 0)
            values = panels.run({e: x[first : start + step] for e, x in at.items()}, choice, nodes, False).nodes
            for number, (n, v, own) in enumerate(zip(nodes, values, entries, strict=True)):
                owner = elements[np.argmax(tables[n.id][own], axis=1)]
                brackets += _changes(number, v[:, own], own, owner, n, turns, first)
        found.append(_closed(panels, lines, grid, nodes, _few(brackets, rows), choice))
    owner, places = (np.concatenate(c) for c in zip(*found, strict=True)) if found else (np.zeros(0), np.zeros(0))
    return {e: np.unique(places[owner == e]) for e in grid}


def _closed(
    panels: Runs, lines: dict[int, Line], grid: Places, nodes: list[Node], brackets: Bracket, choice: Choice
) -> tuple[np.ndarray, np.ndarray]:
    """Each bracket closed in on: by bisection where a node has another sign or value at its ends, by golden
    sections where it turns. Elements, and places."""
    k, j, e, i, turn = brackets
    if not len(k):
        return e, np.zeros(0)
    row, each = np.zeros(len(e), int), np.arange(len(e))
    own = {int(element): np.flatnonzero(e == element) for element in np.unique(e)}
    for mine in own.values():
        row[mine] = np.arange(len(mine))
    used, k = np.unique(k, return_inverse=True)
    chosen = [nodes[u] for u in used]
    of_node = [np.flatnonzero(k == u) for u in range(len(used))]
    low, high = np.zeros(len(e)), np.zeros(len(e))
    for element, mine in own.items():
        low[mine], high[mine] = grid[element][i[mine]], grid[element][i[mine] + 1 + turn[mine]]

    place = {a: number for number, a in enumerate(grid)}
    centres = np.array([lines[a].centre for a in grid])
    alike: dict[tuple[float, ...], list[int]] = {}  # elements with equal lines, the positions of their brackets
    for a in own:
        line = lines[a]
        alike.setdefault((line.low, line.high, float(line.centre), float(line.scale)), []).append(a)
    together = [(lines[some[0]], np.concatenate([own[a] for a in some])) for some in alike.values()]
    position = np.array([place[int(a)] for a in e])

    def at(v: np.ndarray) -> np.ndarray:
        """The nodes at some places of each bracket, (brackets, places)."""
        shape = (int(row.max()) + 1, v.shape[1])
        x = np.repeat(centres, math.prod(shape)).reshape(len(centres), *shape)
        for line, mine in together:
            x[position[mine], row[mine]] = line.at(v[mine])[0]
        points = dict(zip(grid, x.reshape(len(centres), -1), strict=True))
        found = panels.run(points, choice, chosen, False).nodes
        result = np.empty(v.shape)
        for mine, values in zip(of_node, found, strict=True):
            result[mine] = values.reshape(*shape, -1)[row[mine], :, j[mine]]
        return result

    numbers = np.array([is_number(n) for n in chosen])[k][:, None]
    steps = np.arange(_SECTIONS + 1) / _SECTIONS
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
    return e, 0.5 * (low + high)


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
    kinds = np.sign(values)
    odd = ~np.isfinite(values)
    if odd.any():
        kinds[odd] = np.where(np.isnan(values[odd]), 4.0, 2 * kinds[odd])
    return kinds


def _changes(
    number: int, v: np.ndarray, entries: np.ndarray, owner: np.ndarray, node: Node, turning: bool, first: int
) -> list[Bracket]:
    """Where some entries of a node, (rows, entries), change their sign or value, and where they turn; of rows behind
    the ``first`` one, which two before have seen."""
    if is_number(node):
        kinds = kind_of(v)
        with np.errstate(all="ignore"):
            d = np.sign(np.diff(v, axis=0))
        turns = (d[1:] != d[:-1]) & (d[1:] * d[:-1] <= 0) & np.isfinite(v[1:-1])
        both = [(kinds[1:] != kinds[:-1], False), *[(turns, True)] * turning]
    else:
        v = np.nan_to_num(v, nan=-4.5)
        both = [(v[1:] != v[:-1], False)]
    found = []
    for changes, turn in both:
        j, i = np.nonzero(changes.T)
        counts = np.bincount(j, minlength=len(entries))
        kept = (_ranks(j) % np.maximum(1, counts // _CANDIDATES)[j] == 0) & ((i > 0) | turn | (first == 0))
        j, i = j[kept], i[kept] + first
        found.append(Bracket(np.full(len(j), number), entries[j], owner[j], i, np.full(len(j), turn)))
    return found


def _few(found: list[Bracket], rows: int) -> Bracket:
    """Few for each place of the grid."""
    if not found:
        none = np.zeros(0, int)
        return Bracket(none, none, none, none, none > 0)
    every = Bracket(*[np.concatenate(column) for column in zip(*found, strict=True)])
    key = (every.element * rows + every.row) * 2 + every.turns
    order = np.argsort(key, kind="stable")
    order = order[_ranks(key[order]) < _EACH]
    element = every.element[order]  # rising
    counts = np.bincount(element)
    order = order[_ranks(element) % np.maximum(1, counts // (_EACH * _CANDIDATES))[element] == 0]
    return Bracket(*[column[order] for column in every])


def _ranks(key: np.ndarray) -> np.ndarray:
    """How many equal ones stand before each entry, of equal ones that stand together."""
    first = np.flatnonzero(np.append(True, key[1:] != key[:-1])[: len(key)])
    return np.arange(len(key)) - np.repeat(first, np.diff(np.append(first, len(key))))
