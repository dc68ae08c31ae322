"""A quadrature rule for two continuous elements together, where what is integrated bends or jumps along curves of both:

    E[f(a, b)] = int p(a) g(a) da,    g(a) = int p(b | a) f(a, b) db.

The inner integral has panels of its own for each point a of the outer one: |a - b| has its kink at b = a, which no
product of two rules sees. g is smooth again but for a few places, where a curve ends or turns, and is integrated over
adaptive panels in its turn; see ``panels`` for what a panel is. Places where nodes on the way to the cost change their
sign, their direction or their side are looked for along the inner element at each point of the outer one, and along the
outer element for what depends on it alone.
"""

import copy
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from scg.core.aliases import Numbers
from scg.core.ancestry import ancestors
from scg.core.node import Node
from scg.elimination.finite import BudgetError
from scg.errors import here
from scg.exact.changes import Changes, Columns, Watched, changes
from scg.exact.leaf import Choice
from scg.exact.lines import NODES, POINTS, WEIGHTS, Line, Places, Run
from scg.exact.panels import Panels
from scg.exact.rules import Rule, place_of
from scg.exact.turns import is_number
from scg.stochastic.sites import is_draw, is_noise

_COUNT = 20  # panels of a line between its tails
_DEPTH = 64
_TOLERANCE = 1e-14  # of a panel, against E|.|
_GRADED = 0.47 * 0.12 ** np.arange(6)  # where a panel is cut that has a place at its end, in its widths from there
_LEAST = 1e-20  # of E|.|: panels with less are left out of the rule
_ELEMENTS = 64  # of a node that are looked at
_ROWS = 2**17  # points that are looked at together
_EFFORT, _SHARE = 16, 4  # points for one of the budget, and as many for each choice where they are many


class Pieces(NamedTuple):
    """Panels: the line on which each one lies and its ends there, (count,) each; whether the ends are places."""

    line: np.ndarray
    low: np.ndarray
    high: np.ndarray
    graded: np.ndarray  # 0: no end, 1: the lower, 2: the upper, 3: both

    def at(self, chosen: np.ndarray) -> "Pieces":
        """Some of them."""
        return Pieces(*[part[chosen] for part in self])

    def points(self) -> tuple[np.ndarray, np.ndarray]:
        """Of the quadrature rule on each panel, the points and their weights, (count, POINTS) each."""
        half = 0.5 * (self.high - self.low)[:, None]
        return self.low[:, None] + half * (1 + NODES), half * WEIGHTS

    def cut(self) -> tuple["Pieces", np.ndarray]:
        """Two parts of each panel, or more and more narrow ones towards an end that is a place; the panel of each."""
        parts, parents = [], []
        for kind in range(4):
            (chosen,) = np.nonzero(self.graded == kind)
            low, high = self.low[chosen, None], self.high[chosen, None]
            inner = [low + _GRADED[:1] * (high - low)]
            if kind & 1:
                inner.append(low + _GRADED[1:] * (high - low))
            if kind & 2:
                inner.append(high - _GRADED * (high - low))
            edges = np.sort(np.concatenate([low, *inner, high], axis=1), axis=1)
            parents.append(np.repeat(chosen, edges.shape[1] - 1))
            parts.append(np.stack([edges[:, :-1].reshape(-1), edges[:, 1:].reshape(-1)]))
        parent, (low, high) = np.concatenate(parents), np.concatenate(parts, axis=1)
        order = np.lexsort([low, parent])
        parent = parent[order]
        return Pieces(self.line[parent], low[order], high[order], np.zeros(len(parent), int)), parent

    def split(self, line: np.ndarray, places: np.ndarray) -> "Pieces":
        """Cut at the places that lie inside of them."""
        order = np.lexsort([self.low, self.line])
        whole = self.at(order)
        key = np.lexsort([np.concatenate([whole.low, places]), np.concatenate([whole.line, line])])
        at, is_place = np.concatenate([whole.low, places])[key], key >= len(whole.low)
        of = np.concatenate([whole.line, line])[key]
        panel = np.cumsum(~is_place) - 1  # the last panel that begins before
        inside = is_place & (panel >= 0)
        inside[inside] &= (whole.line[panel[inside]] == of[inside]) & (at[inside] < whole.high[panel[inside]])
        kept = ~is_place | inside
        at, of, panel, is_place = at[kept], of[kept], panel[kept], is_place[kept]
        last = np.append(panel[1:] != panel[:-1], True)
        high = np.where(last, whole.high[panel], np.append(at[1:], 0.0))
        found = Pieces(of, at, high, is_place * 1 + np.append(is_place[1:], False) * ~last * 2)
        return found.at(high - at > 1e-13 * (1e-300 + np.abs(at)))


class Nested:
    """The rule for the elements ``outer`` and ``inner``, of which the second may depend on the first.

    ``doubt``: what was left unresolved, as a fraction of E|.|.
    """

    def __init__(self, panels: Panels, outer: int, inner: int):
        self.panels, self.outer, self.inner, self.engine = panels, outer, inner, panels.engine
        self.columns = [c for c, s in enumerate(self.engine.sets) if outer in s and inner in s]
        self.choices, self.looks = self._distinct(panels.choices[: panels.first]), self._distinct(panels.looks)
        self.rows = 0  # that were computed, those of a small graph
        self.weight = 1 + max([n.size for n in self.engine.order if type(n.raw) is not tuple]) // 16
        self.width = len(self.columns) * (1 + panels.squares) + 1
        self.tolerance = max(_TOLERANCE, 0.1 * self.engine.eps)
        self.doubt = 0.0
        self.scale: Numbers = 0.0
        self.watched: dict[int, list[Watched]] = {outer: [], inner: []}
        score = panels.leaf(inner).score
        for node in ancestors([*self.engine.terms, *([score] if type(score) is Node else [])], guards=True):
            if type(node.raw) is tuple or node.dtype.kind not in "fiub" or is_draw(node) or is_noise(node):
                continue
            reach = self.engine.reach.get(node.id)
            if reach is None:  # of the density, or of no sample
                self.watched[inner].append((node, np.arange(node.size)[:_ELEMENTS]))
                continue
            for e, own in ((outer, reach[:, outer] & ~reach[:, inner]), (inner, reach[:, inner])):
                if own.any():
                    self.watched[e].append((node, np.flatnonzero(own)[:_ELEMENTS]))

    def rule(self) -> Rule:
        """Points and steps, (points, 2) each."""
        line = self._line(self.outer, np.zeros(0))
        pieces = _first(line, 1)
        pieces = pieces.at(_used(self._weights(pieces, line).max(axis=(1, 2)), 1))
        pieces = pieces.split(*self._places(self.outer, line, np.zeros(1), pieces))

        def integrals(parts: Pieces, refined: bool = True) -> np.ndarray:
            """(panels, choices, 2, columns)"""
            found = self._inner(self._along(line, parts), self._weights(parts, line), refined)[0]
            return np.sum(found.reshape(-1, POINTS, *found.shape[1:]), axis=1)

        size = np.max(_finite(integrals(pieces, False)[:, :, 1]), axis=1)
        self.scale = np.sum(size, axis=0)
        pieces = pieces.at(_used(np.max(size / np.where(self.scale > 0, self.scale, 1) - _LEAST, axis=1), 1))
        pieces, _ = self._adapted(pieces, integrals(pieces), line, integrals)
        a, steps = self._along(line, pieces), self._steps(line, pieces)
        _, inside, lines = self._inner(a, self._weights(pieces, line))
        b, inner_steps = self._along(lines, inside), self._steps(lines, inside)
        each = np.repeat(inside.line, POINTS)
        return np.stack([a[each], b], axis=1), np.stack([steps[each], inner_steps], axis=1)

    def _distinct(self, choices: list[Choice]) -> list[Choice]:
        """Those that differ in other elements than the two."""
        found: dict[tuple[bytes, ...], Choice] = {}
        for choice in choices:
            held = self.panels.held({self.outer: np.zeros(1), self.inner: np.zeros(1)}, choice)
            found.setdefault(tuple([value.tobytes() for value in held.values()]), choice)
        return list(found.values())

    def _run(self, x: Places, choice: Choice, nodes: list[Node], costs: bool = True) -> Run:
        self.rows += len(x[self.outer]) * self.weight
        if self.rows > max(_EFFORT, _SHARE * len(self.choices)) * self.engine.budget:
            raise BudgetError(f"a mean over two continuous samples takes too many points ({here()})")
        return self.panels.run(x, choice, nodes, costs)

    def _line(self, e: int, a: np.ndarray) -> Line:
        """The line along an element; for the inner one, of each value of the outer one."""
        leaf, column = self.panels.leaf(e), self.engine.column(e)
        place = leaf.at_element(column)
        found = Line(*place, self.panels.seed + 0.5 * (e == self.inner), _COUNT, leaf.node.dtype)
        if len(a) and leaf.varies and not leaf.is_noise:
            values = self.panels.held({self.outer: a}, self.choices[0])
            ends = place_of(self.engine.distribution_at(leaf, values))
            if ends is not None:
                _, _, centre, scale = (np.broadcast_to(x, (len(a), *leaf.batch)).reshape(len(a), -1) for x in ends)
                found.centre, found.scale = centre[:, column], scale[:, column]
        return found

    def _along(self, line: Line, pieces: Pieces) -> np.ndarray:
        return _of(line, pieces.line).at(pieces.points()[0])[0].reshape(-1)

    def _steps(self, line: Line, pieces: Pieces) -> np.ndarray:
        v, steps = pieces.points()
        return (_of(line, pieces.line).at(v)[1] * steps).reshape(-1)

    def _weights(self, pieces: Pieces, line: Line) -> np.ndarray:
        """Of the points of the outer element, steps times density: (panels, POINTS, choices)."""
        x, steps = self._along(line, pieces), self._steps(line, pieces)
        found = [self._run({self.outer: x}, c, [], False).densities[self.outer] for c in self.choices]
        return np.nan_to_num(np.stack(found, axis=-1) * steps[:, None]).reshape(-1, POINTS, len(found))

    def _inner(self, a: np.ndarray, weight: np.ndarray, refined: bool = True) -> tuple[np.ndarray, Pieces, Line]:
        """For every value a of the outer element, times its weight: the integrals over the inner one of all columns and
        of their sizes, (values, choices, 2, columns); the panels, whose lines are these values."""
        line, weight = self._line(self.inner, a), weight.reshape(len(a), -1)
        step = max(1, _ROWS // (len(_first(line, 1).low) * POINTS))
        rows = [np.arange(k, min(k + step, len(a))) for k in range(0, len(a), step)]
        found = [self._block(a[k], weight[k], _of(line, k), refined) for k in rows]
        pieces = [part._replace(line=part.line + k[0]) for (_, part), k in zip(found, rows, strict=True)]
        together = Pieces(*[np.concatenate(part) for part in zip(*pieces, strict=True)])
        return np.concatenate([value for value, _ in found]), together, line

    def _block(self, a: np.ndarray, weight: np.ndarray, line: Line, refined: bool) -> tuple[np.ndarray, Pieces]:
        line.centre, line.scale = (np.broadcast_to(np.reshape(x, -1), (len(a),)) for x in (line.centre, line.scale))
        pieces = _first(line, len(a))

        def integrals(parts: Pieces) -> np.ndarray:
            """(panels, choices, 2, columns)"""
            outer, b = np.repeat(a[parts.line], POINTS), self._along(line, parts)
            steps, found = self._steps(line, parts), []
            narrow = _of(line, parts.line).points(np.stack([parts.low, parts.high], axis=1), self.engine.eps)
            for k, choice in enumerate(self.choices):
                run = self._run({self.outer: outer, self.inner: b}, choice, [])
                p = (
                    np.nan_to_num(run.densities[self.inner] * steps)[:, None]
                    * np.repeat(weight[parts.line, k], POINTS)[:, None]
                )
                cost, one = run.costs[:, self.columns], np.ones((len(b), 1))
                with np.errstate(all="ignore"):
                    f = np.concatenate([cost, cost * cost, one] if self.panels.squares else [cost, one], axis=1)
                    pole = ~np.isfinite(f) & np.repeat(narrow, POINTS)[:, None]
                    f = np.where((p > 0) & ~pole, f * p, 0).reshape(-1, POINTS, self.width)
                    found.append(np.stack([np.sum(f, axis=1), np.sum(np.abs(f), axis=1)], axis=1))
            return np.stack(found, axis=1)

        whole = integrals(pieces)
        if not refined:
            return np.sum(whole.reshape(len(a), -1, *whole.shape[1:]), axis=1), pieces
        pieces = pieces.at(_used(whole[:, :, 1, -1].max(axis=1), len(a)))
        pieces = pieces.split(*self._places(self.inner, line, a, pieces))
        whole = integrals(pieces)
        self.scale = np.maximum(self.scale, np.max(np.sum(_finite(whole[:, :, 1]), axis=0), axis=0))
        pieces, totals = self._adapted(pieces, whole, line, integrals, len(a))
        return totals, pieces

    def _adapted(
        self, pieces: Pieces, whole: np.ndarray, line: Line, integrals: Callable[[Pieces], np.ndarray], lines: int = 1
    ) -> tuple[Pieces, np.ndarray]:
        """The panels, cut where sums over their parts differ from the ``whole`` ones, but for those that are nothing;
        and the integrals over each line."""
        totals, done, unit = np.zeros((lines, *whole.shape[1:])), [], np.where(self.scale > 0, self.scale, 1e-300)
        for depth in range(_DEPTH):
            parts, parent = pieces.cut()
            new = integrals(parts)
            finer = (
                np.add.reduceat(new, np.searchsorted(parent, np.arange(len(whole))), axis=0) if len(whole) else whole
            )
            with np.errstate(all="ignore"):
                wrong = np.abs(finer[:, :, 0] - whole[:, :, 0]) / unit
                some = np.any(finer[:, :, 1] > _LEAST * unit, axis=(1, 2))
            wrong = np.max(np.where(np.isnan(wrong), np.inf, wrong), axis=(1, 2), initial=0)
            bad = wrong > (self.tolerance if lines > 1 else max(self.tolerance, 1e-12))
            tight = _of(line, pieces.line).tight(np.stack([pieces.low, pieces.high], axis=1), self.engine.eps)
            stop = bad & (tight | (depth == _DEPTH - 1))
            self.doubt += float(np.sum(wrong[stop]))
            ready = ~bad | stop
            done.append(pieces.at(ready & some))
            np.add.at(totals, pieces.line[ready], finer[ready])
            again = ~ready[parent]
            pieces, whole = parts.at(again), new[again]
            if not len(whole):
                break
        return Pieces(*[np.concatenate(part) for part in zip(*done, strict=True)]), totals

    def _places(self, e: int, line: Line, a: np.ndarray, pieces: Pieces) -> tuple[np.ndarray, np.ndarray]:
        """Where nodes on the way to the cost change their sign, their direction or their side along an element: lines,
        and places on them. A narrow window shows its edges only to what is close to such a place."""
        if not self.watched[e] or not len(pieces.low):
            return np.zeros(0, int), np.zeros(0)
        every, sided = self.watched[e], [(n, own) for n, own in self.watched[e] if not is_number(n)]
        found = self._closed(e, line, a, pieces, every)
        if sided and len(found.line):
            around = pieces.split(*found.distinct())
            further = self._closed(e, line, a, around.at(around.graded > 0).cut()[0], sided)
            found = Changes.joined([found, further])
        return found.distinct()

    def _closed(self, e: int, line: Line, a: np.ndarray, pieces: Pieces, watched: list[Watched]) -> Changes:
        """Places between the points of panels, each closed in on."""
        i, v = np.repeat(pieces.line, POINTS), pieces.points()[0].reshape(-1)
        order = np.lexsort([v, i])
        i, v = i[order], v[order]
        found = []
        for choice in self.looks:

            def values(lines: np.ndarray, at: np.ndarray, nodes: list[Node], choice: Choice = choice) -> Columns:
                x = _of(line, lines).at(at[:, None])[0].reshape(-1)
                held = {self.outer: x} if e == self.outer else {self.outer: a[lines], self.inner: x}
                return self._run(held, choice, nodes, False).nodes

            found.append(changes(i, v, watched, values))
        return Changes.joined(found)


def _finite(x: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(x), x, 0)


def _of(line: Line, chosen: np.ndarray) -> Line:
    """The lines, of several, of some panels."""
    found = copy.copy(line)
    if np.ndim(line.centre):
        found.centre, found.scale = (np.asarray(x)[chosen, None] for x in (line.centre, line.scale))
    return found


def _first(line: Line, count: int) -> Pieces:
    """The first panels of so many lines."""
    low, high = np.tile(line.edges[:-1], count), np.tile(line.edges[1:], count)
    return Pieces(np.repeat(np.arange(count), len(line.edges) - 1), low, high, np.zeros(len(low), int))


def _used(most: np.ndarray, lines: int) -> np.ndarray:
    """Panels where there is any density, and their neighbours."""
    some = np.reshape(most > 0, (lines, -1))
    none = np.zeros((lines, 1), bool)
    return (some | np.append(some[:, 1:], none, axis=1) | np.append(none, some[:, :-1], axis=1)).reshape(-1)
