"""Where what is integrated is not smooth: the values of one element of a continuous leaf at which an ``abs``, a
comparison, a ``maximum`` or ``floor`` comes to another side. They are looked for along a grid and found by bisection,
so that a rule can be put together of pieces between them."""

import itertools
import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from scg.core.ancestry import ancestors
from scg.core.node import Node
from scg.errors import GuardError
from scg.exact.leaf import Leaf
from scg.exact.reach import reaches
from scg.stochastic.dependence import influence
from scg.stochastic.sides import is_break, sides
from scg.stochastic.sites import is_path

_MOST = 256  # breaks along one element
_CHOICES = 64  # of the finite samples that move a break
_GRID = 2**20  # elements that the largest array on the grid may have

Digits = tuple[tuple[int, ...], ...]
"""Of some finite leaves the number of the value of each element."""


class Breaks(NamedTuple):
    """``at``: for every leaf the breaks of each of its elements; ``rough``: nodes whose breaks several elements decide
    together."""

    at: list[list[np.ndarray]]
    rough: list[Node]


def breaks(leaves: list[Leaf], offsets: list[int], order: list[Node], reach: dict[int, np.ndarray]) -> Breaks:
    """The breaks of nodes of ``order`` along all continuous leaves; ``reach`` tells which elements each of theirs
    depends on."""
    found: list[list[np.ndarray]] = [[np.zeros(0)] * leaf.count for leaf in leaves]
    rough: list[Node] = []
    wanted: dict[int, list[tuple[Node, np.ndarray, dict[int, bool]]]] = {}
    sources = _sources(leaves, order)
    for node in order:
        near = sources[node.id]
        along = [k for k in near if leaves[k].adaptive]
        if not is_break(node) or not any(not leaves[k].discrete for k in along) or node.id not in reach:
            continue
        table = {k: reach[node.id][:, offsets[k] : offsets[k + 1]] for k in near}
        several = {k: bool(np.any(t.sum(axis=1) > 1)) for k, t in table.items()}  # elements of one leaf decide together
        finite = {k: several[k] for k in sorted(near) if not leaves[k].adaptive}
        if len(along) > 1 or not leaves[along[0]].in_pieces or several[along[0]] or not _are_few(finite, leaves):
            rough.append(node)
        else:
            own = table[along[0]]
            wanted.setdefault(along[0], []).append((node, np.where(own.any(axis=1), own.argmax(axis=1), -1), finite))
    for k, nodes in wanted.items():
        places = _Along(leaves[k], nodes, leaves).search()
        found[k] = places
        if any(len(p) > _MOST for p in places):
            rough.append(nodes[0][0])
            found[k] = [p if len(p) <= _MOST else np.zeros(0) for p in places]
    return Breaks(found, _moving(rough, leaves))


def kinks(leaves: list[Leaf], offsets: list[int]) -> list[list[np.ndarray]]:
    """For every leaf where the densities of its elements are not smooth: what log_prob is made of tells, as it does of
    a cost. A kink of the base of ``Transformed`` is one of its image."""
    order = ancestors([leaf.score for leaf in leaves if leaf.score is not None and leaf.in_pieces], guards=True)
    if not any([is_break(n) for n in order]):
        return [[np.zeros(0)] * leaf.count for leaf in leaves]
    reach = reaches(leaves, [influence(leaf.node, len(leaf.event), order) for leaf in leaves], order)
    return breaks(leaves, offsets, order, reach).at


def _are_few(finite: dict[int, bool], leaves: list[Leaf]) -> bool:
    """Whether finite leaves, of which elements are tried together or each with all others alike, have few values."""
    return sum([_exponent(leaves[k], each) * math.log(leaves[k].size) for k, each in finite.items()]) < math.log(
        _CHOICES + 0.5
    )


def _exponent(leaf: Leaf, each: bool) -> int:
    return leaf.count if each else 1


def _moving(nodes: list[Node], leaves: list[Leaf]) -> list[Node]:
    """Those that do come to another side among joint values of all leaves; a check of parameters does not."""
    if not nodes:
        return []
    rng, rows = np.random.default_rng(0), 512
    held: dict[Node, np.ndarray] = {}
    with np.errstate(all="ignore"):
        for leaf in leaves:
            if leaf.fixed is not None:
                held[leaf.node] = leaf.at(rng.integers(leaf.size, size=(rows, leaf.count)), None)[0]
            else:
                held[leaf.node] = (leaf.distribution if leaf.is_noise else leaf.distribution.detached()).sample(
                    rng, (rows, *leaf.drawn_shape)
                )
        try:
            return [n for n, side in zip(nodes, sides(nodes, held, rows), strict=True) if np.any(side != side[:1])]
        except GuardError:
            return nodes


def _sources(leaves: list[Leaf], order: list[Node]) -> dict[int, set[int]]:
    """For every node the leaves whose values it is computed from; the parameters of a sample are not in its value."""
    number = {leaf.node.id: k for k, leaf in enumerate(leaves)}
    near: dict[int, set[int]] = {}
    for node in order:
        operands = node.operands[:1] if is_path(node) else node.operands
        near[node.id] = (
            {number[node.id]}
            if node.id in number
            else set().union(*[near.get(o.id, set()) for o in operands if type(o) is Node])
        )
    return near


class _Along:
    """The search along all elements of one leaf at once: each node's element depends on one of them."""

    def __init__(self, leaf: Leaf, nodes: list[tuple[Node, np.ndarray, dict[int, bool]]], leaves: list[Leaf]):
        self.leaf, self.nodes, self.leaves = leaf, nodes, leaves
        self.finite = {
            k: any([finite.get(k, False) for _, _, finite in nodes])
            for k in sorted(set().union(*[finite for _, _, finite in nodes]))
        }
        self.rows = max(1, _GRID // max([1, leaf.count, *[n.size for n, _, _ in nodes]]))

    def search(self) -> list[np.ndarray]:
        """For each element of the leaf where the nodes come to another side, in rising order."""
        grid = self.leaf.grid()
        found: list[list[float]] = [[] for _ in range(self.leaf.count)]
        for choice in self._choices():
            try:
                seen = self._sides(grid, choice)
                brackets = [
                    (k, j, int(e), i) for k, (_, own, _) in enumerate(self.nodes) for j, e in enumerate(own) if e >= 0
                    for i in np.flatnonzero(seen[k][1:, j] != seen[k][:-1, j])[: _MOST + 1]
                ]  # fmt: skip
                for place, (_, _, e, _) in zip(self._bisected(grid, seen, brackets, choice), brackets, strict=True):
                    found[e].append(place)
            except GuardError:  # an ``if`` comes out otherwise: that is reported where it matters
                continue
        return [_distinct(np.array(sorted(f))) for f in found]

    def _choices(self) -> Iterable[Digits]:
        """Values of all finite leaves, as numbers of the values of their elements."""
        if not _are_few(self.finite, self.leaves):
            return [tuple([(0,) * self.leaves[k].count for k in self.finite])]
        each = [
            itertools.product(range(leaf.size), repeat=leaf.count)
            if together
            else [(atom,) * leaf.count for atom in range(leaf.size)]
            for leaf, together in [(self.leaves[k], together) for k, together in self.finite.items()]
        ]
        return itertools.product(*each)

    def _sides(self, values: np.ndarray, choice: Digits) -> list[np.ndarray]:
        """(rows, node.size) for each node, where the leaf has ``values`` (rows, elements)."""
        parts = [self._at(values[k : k + self.rows], choice) for k in range(0, len(values), self.rows)]
        return [np.concatenate(column) for column in zip(*parts, strict=True)]

    def _at(self, values: np.ndarray, choice: Digits) -> list[np.ndarray]:
        rows, node = len(values), self.leaf.node
        held = {node: np.asarray(values, node.dtype).reshape(rows, *node.shape)}
        for k, digits in zip(self.finite, choice, strict=True):
            other = self.leaves[k]
            held[other.node] = other.at(np.tile(digits, (rows, 1)), None)[0]
        with np.errstate(all="ignore"):
            return sides([n for n, _, _ in self.nodes], held, rows)

    def _bisected(
        self,
        grid: np.ndarray,
        seen: list[np.ndarray],
        brackets: list[tuple[int, int, int, int]],
        choice: Digits,
    ) -> np.ndarray:
        if not brackets:
            return np.zeros(0)
        k, j, e, i = np.array(brackets).T
        low, high = grid[i, e], grid[i + 1, e]
        before = np.array([seen[a][c, b] for a, b, _, c in brackets])
        row = np.zeros(len(e), int)  # brackets of different elements share a row
        for element in np.unique(e):
            row[e == element] = np.arange(np.sum(e == element))
        middle = np.tile(grid[len(grid) // 2], (int(row.max()) + 1, 1))
        for _ in range(80):
            at = _between(low, high)
            middle[row, e] = at
            now = self._sides(middle, choice)
            same = np.array([now[a][r, b] == s for a, b, r, s in zip(k, j, row, before, strict=True)])
            low, high = np.where(same, at, low), np.where(same, high, at)
            if np.all((high - low) <= 4e-16 * np.abs(high)):
                break
        return high


def _between(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The mean; the geometric one where the ends have one sign and are far apart."""
    with np.errstate(all="ignore"):
        far = (low * high > 0) & ((low / high > 4) | (high / low > 4))
        return np.where(far, np.sign(low) * np.sqrt(np.abs(low)) * np.sqrt(np.abs(high)), 0.5 * (low + high))


def _distinct(places: np.ndarray) -> np.ndarray:
    if not len(places):
        return places
    return places[np.concatenate([[True], np.diff(places) > 1e-13 * (1e-300 + np.abs(places[1:]))])]
