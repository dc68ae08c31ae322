"""The places on many lines at once, as ``nested`` has them, where nodes change their sign, their direction or their
side: found between points, and closed in on by sections."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from scg.core.node import Node
from scg.exact.turns import is_number, kind_of

_SECTIONS = 4  # of a bracket, at each step towards the place in it
_EXACT, _NEAR = 27, 16  # steps towards a break, until rounding; to a place at which panels become narrow
_PLACES = 64  # along one line

Watched = tuple[Node, np.ndarray]
"""A node, and those of its elements that are looked at."""

Columns = list[np.ndarray]
"""Of some nodes, values in rows: (rows, elements) each."""

At = Callable[[np.ndarray, np.ndarray, list[Node]], Columns]
"""The values of some nodes at places of lines."""


class Changes(NamedTuple):
    """Places: the ``line`` of each, ``v`` there, and by how much that is uncertain, (places,) each."""

    line: np.ndarray
    v: np.ndarray
    blur: np.ndarray

    @staticmethod
    def joined(parts: Sequence["Changes"]) -> "Changes":
        """All of them."""
        return Changes(*[np.concatenate(part) for part in zip(*parts, strict=True)])

    def distinct(self) -> tuple[np.ndarray, np.ndarray]:
        """Their lines and places, without those that are, but for their ``blur``, their neighbours."""
        order = np.lexsort([self.blur, self.v, self.line])
        line, v, blur = self.line[order], self.v[order], self.blur[order]
        gap = np.where(np.diff(line) > 0, np.inf, np.diff(v)) / (1 + np.abs(v[1:]))
        before, after = np.append(np.inf, gap)[: len(v)], np.append(gap, np.inf)[: len(v)]
        sharp = np.append(np.inf, blur[:-1])[: len(v)] <= blur, np.append(blur[1:], np.inf)[: len(v)] < blur
        close = np.maximum(blur, 1e-13)
        kept = ~((before <= close) & sharp[0] | (after <= close) & sharp[1])
        return line[kept], v[kept]


def changes(line: np.ndarray, v: np.ndarray, watched: list[Watched], values: At) -> Changes:
    """Those between points ``v``, which rise along each ``line``: (points,) each."""
    nodes, numbers = [n for n, _ in watched], np.array([is_number(n) for n, _ in watched])
    seen = enumerate(zip(watched, values(line, v, nodes), strict=True))
    each = [_brackets(k, n, x[:, own], own, line) for k, ((n, own), x) in seen]
    found = _few(np.concatenate(each, axis=1), line)
    places = [Changes(np.zeros(0, int), np.zeros(0), np.zeros(0))]
    for exact in (True, False):
        row, turn, k, j = found[:, numbers[found[2]] != exact]
        if len(row):
            brackets = _Brackets(line[row], v[row], v[row + 1 + turn], turn > 0, k, j)
            at = _narrowed(brackets, nodes, values, _EXACT if exact else _NEAR)
            places.append(Changes(line[row], at, np.where(turn > 0, 1e-4, 0.0 if exact else 1e-9)))
    return Changes.joined(places)


class _Brackets(NamedTuple):
    """Between which places ``low`` and ``high`` of which ``line`` a node changes; whether it turns there; the position
    of the ``node`` and its ``entry``: (brackets,) each."""

    line: np.ndarray
    low: np.ndarray
    high: np.ndarray
    turns: np.ndarray
    node: np.ndarray
    entry: np.ndarray


def _brackets(k: int, node: Node, x: np.ndarray, own: np.ndarray, line: np.ndarray) -> np.ndarray:
    """(row of the grid, whether it turns there, number of the node, element): (4, brackets)."""
    kinds = kind_of(x) if is_number(node) else np.nan_to_num(np.asarray(x, float), nan=-4.5)
    same = line[1:] == line[:-1]
    found = [(np.nonzero((kinds[1:] != kinds[:-1]) & same[:, None]), 0)]
    if is_number(node):
        with np.errstate(all="ignore"):
            d = np.sign(np.diff(x, axis=0))
        d, e = d[:-1], d[1:]
        turns = (d != e) & (d * e <= 0) & np.isfinite(x[1:-1]) & ((d != 0) | (e != 0))
        found.append((np.nonzero(turns & (same[1:] & same[:-1])[:, None]), 1))
    return np.concatenate([np.stack([g, 0 * g + turn, 0 * g + k, own[j]]) for (g, j), turn in found], axis=1)


def _few(brackets: np.ndarray, line: np.ndarray) -> np.ndarray:
    """At most three of one place, and ``_PLACES`` of one line."""
    brackets = brackets[:, np.lexsort([brackets[2], brackets[1], brackets[0]])]
    brackets = brackets[:, _number(brackets[0] * 2 + brackets[1]) < 3]
    return brackets[:, _number(line[brackets[0]]) < _PLACES]


def _number(keys: np.ndarray) -> np.ndarray:
    """Which one of its key each of the sorted keys is."""
    start = np.flatnonzero(np.append(True, np.diff(keys) != 0)[: len(keys)])
    return np.arange(len(keys)) - np.repeat(start, np.diff(np.append(start, len(keys))))


def _narrowed(brackets: _Brackets, nodes: list[Node], values: At, depth: int) -> np.ndarray:
    """The place in each bracket, closed in on by sections: where node k's element j has another sign or side than at
    the lower end, or where it turns."""
    line, low, high, turn, k, j = brackets
    used, each = np.unique(k), np.arange(len(line))
    number = np.array([is_number(n) for n in nodes])[k][:, None]

    def at(v: np.ndarray) -> np.ndarray:
        found, x = values(np.repeat(line, v.shape[1]), v.reshape(-1), [nodes[u] for u in used]), np.zeros(v.shape)
        for u, value in zip(used, found, strict=True):
            mine = np.flatnonzero(k == u)
            x[mine] = np.reshape(value, (*v.shape, -1))[mine[:, None], np.arange(v.shape[1]), j[mine, None]]
        return x

    def kinds(x: np.ndarray) -> np.ndarray:
        return np.where(number, kind_of(x), np.nan_to_num(x, nan=-4.5))

    ends = at(np.stack([low, 0.5 * (low + high), high], axis=1))
    before, sign = kinds(ends[:, :1]), np.where(ends[:, 0] > ends[:, 1], 1.0, -1.0)[:, None]
    steps = np.arange(_SECTIONS + 1) / _SECTIONS
    for _ in range(depth):
        v = low[:, None] + (high - low)[:, None] * steps
        x = at(v[:, 1:-1])
        other = 1 + np.argmax(np.append(kinds(x) != before, np.ones((len(x), 1), bool), axis=1), axis=1)
        lowest = 1 + np.argmin(np.where(np.isnan(x), np.inf, sign * x), axis=1)
        low, high = v[each, np.where(turn, lowest - 1, other - 1)], v[each, np.where(turn, lowest + 1, other)]
    return np.where(number[:, 0], 0.5 * (low + high), high)
