"""A line, along which one continuous element runs through its support, and the *panels* that it is cut into."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.special as sp

from scg.core.aliases import Numbers
from scg.exact.rules import Rule

Places = dict[int, np.ndarray]
"""Of some elements, places on their lines; or values there, or panels, (count, 2)."""

POINTS = 10
NODES, WEIGHTS = np.polynomial.legendre.leggauss(POINTS)
_GOLDEN = 0.5 * (math.sqrt(5) - 1)
NOWHERE = np.zeros(0)
_PANELS = 3000  # along one element


class Line:
    """One element along which x(v) goes from end to end of its support, with the panels that it has so far. ``centre``
    and ``scale`` may be arrays, of several such lines."""

    centre: Numbers
    scale: Numbers

    def __init__(
        self, low: float, high: float, centre: Numbers, scale: Numbers, seed: float, count: int, dtype: np.dtype
    ):
        self.low, self.high, self.centre, self.scale = low, high, centre, scale
        number = np.finfo(dtype)
        # from an end: while its distance is known to 1%; outwards: cubes are finite
        near, far_out = math.log(1 / number.eps) - 5, 0.3 * math.log(number.max)
        tiny = 0.93 * math.log(number.max)
        if math.isinf(low) and math.isinf(high):
            inner, reach = (-4.5, 4.5), (-far_out, far_out)
        elif math.isinf(low) or math.isinf(high):
            inner, reach = (-8.0, 4.5), (-tiny if (low if math.isinf(high) else high) == 0 else -near, far_out)
        else:
            inner, reach = (-7.0, 7.0), (-tiny if low == 0 else -near, tiny if high == 0 else near)
        far = [
            np.geomspace(abs(a), abs(b), max(12, count // 3))[1:] * np.sign(b)
            for a, b in zip(inner, reach, strict=True)
        ]
        middle = np.linspace(*inner, count + 1)
        shift = (np.arange(1, count) * _GOLDEN + 0.31 * seed + 0.17) % 1 - 0.5
        middle[1:-1] += 0.5 * (middle[1] - middle[0]) * shift
        # the centre is an edge: a density may have a kink there, and its score a jump
        self.edges = np.union1d(np.concatenate([far[0][::-1], middle, far[1]]), [0.0])

    @property
    def panels(self) -> np.ndarray:
        """The first ones, (count, 2)."""
        return np.stack([self.edges[:-1], self.edges[1:]], axis=1)

    def at(self, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """x and dx / dv."""
        if math.isinf(self.low) and math.isinf(self.high):
            return self.centre + self.scale * np.sinh(v), self.scale * np.cosh(v)
        if math.isinf(self.high):
            r = (self.centre - self.low) * np.exp(v)
            return self.low + r, r
        if math.isinf(self.low):
            r = (self.high - self.centre) * np.exp(v)
            return self.high - r, r
        u, rest, width = sp.expit(v), sp.expit(-v), self.high - self.low
        return np.where(u < rest, self.low + width * u, self.high - width * rest), width * u * rest

    def of(self, x: np.ndarray) -> np.ndarray:
        """v, of values of the support; not finite at its ends."""
        with np.errstate(divide="ignore", invalid="ignore"):
            if math.isinf(self.low) and math.isinf(self.high):
                return np.asarray(np.arcsinh((x - self.centre) / self.scale))
            if math.isinf(self.high):
                return np.asarray(np.log((x - self.low) / (self.centre - self.low)))
            if math.isinf(self.low):
                return np.asarray(np.log((self.high - x) / (self.high - self.centre)))
            return np.asarray(np.log(x - self.low) - np.log(self.high - x))

    def tight(self, panels: np.ndarray, eps: float) -> np.ndarray:
        """Which panels are so narrow that rounding fills them."""
        x = self.at(panels)[0]
        centre = np.reshape(np.abs(self.centre), -1) * (math.isinf(self.low) and math.isinf(self.high))
        noise = np.abs(x).max(axis=1, initial=0) + centre
        narrow = panels[:, 1] - panels[:, 0] <= 2e-14 * np.abs(panels).max(axis=1, initial=0)
        return narrow | (np.abs(x[:, 1] - x[:, 0]) <= 64 * eps * noise)

    def points(self, panels: np.ndarray, eps: float) -> np.ndarray:
        """Which panels are no more than a point of the line, where a pole that has a mean may lie; towards an end they
        are wide in v."""
        return self.tight(panels, eps) & (panels[:, 1] - panels[:, 0] <= 1e3 * eps)


def split(panels: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The panels, cut at the places that lie in them."""
    edges = np.unique(np.concatenate([panels.reshape(-1), places]))
    edges = (
        edges[np.concatenate([[True], np.diff(edges) > 1e-13 * (1e-300 + np.abs(edges[1:]))])] if len(edges) else edges
    )
    both = np.stack([edges[:-1], edges[1:]], axis=1)
    middle = 0.5 * (both[:, 0] + both[:, 1])
    k = np.clip(np.searchsorted(panels[:, 0], middle, side="right") - 1, 0, None)
    return both[(middle > panels[k, 0]) & (middle < panels[k, 1])] if len(panels) else panels


def cuts(panels: np.ndarray, places: np.ndarray) -> list[np.ndarray]:
    """The edges of the parts of each panel: two, or more and more narrow ones towards an end that is one of the
    places."""
    low, high = panels.T
    middle = low + 0.47 * (high - low)
    found = list(np.stack([low, middle, high], axis=1))
    if len(places):
        near = np.sort(places)[
            np.clip(np.searchsorted(np.sort(places), panels) + np.array([[[-1]], [[0]]]), 0, len(places) - 1)
        ]
        at_end = np.min(np.abs(near - panels), axis=0) <= 1e-13 * np.abs(panels) + 1e-300
    else:
        at_end = np.zeros(panels.shape, bool)
    for k in np.flatnonzero(at_end.any(axis=1) | (middle <= low) | (middle >= high)):
        steps = 0.47 * (high[k] - low[k]) * 0.25 ** np.arange(1, 14)
        ends = [panels[k, i] + sign * steps for i, sign in enumerate((1, -1)) if at_end[k, i]]
        found[k] = np.unique(np.concatenate([found[k], *ends]))
    return found


def between(edges: list[np.ndarray]) -> np.ndarray:
    """The panels between the edges of each cut."""
    every = np.concatenate([np.zeros(0), *edges])
    last = np.cumsum([len(c) for c in edges], dtype=int)[:-1] - 1
    return np.delete(np.stack([every[:-1], every[1:]], axis=1), last, axis=0) if len(every) else np.zeros((0, 2))


class Run(NamedTuple):
    """The parts of the cost in some rows, (rows, columns); the density of each element, (rows,); other nodes, (rows,
    size)."""

    costs: np.ndarray
    densities: Places
    nodes: list[np.ndarray]


class Integrals(NamedTuple):
    """Over each panel: the integrals of the parts of the cost and, last, of the density, and those of their sizes,
    (panels, choices, columns) each; the largest density there, times its step, (panels,)."""

    sums: np.ndarray
    sizes: np.ndarray
    density: np.ndarray

    def at(self, chosen: np.ndarray) -> "Integrals":
        """Those of some panels."""
        return Integrals(*[part[chosen] for part in self])

    @staticmethod
    def over_choices(each: Sequence["Integrals"]) -> "Integrals":
        """Those of several choices, each (panels, columns), side by side."""
        sums, sizes, density = zip(*each, strict=True)
        return Integrals(np.stack(sums, axis=1), np.stack(sizes, axis=1), np.max(density, axis=0))


class Tail:
    """What lies beyond the last panel: sizes there fall like exp(-r v), so that the rest is that of the last panel, of
    width d, over exp(r d) - 1.

    The density is continued so, by a factor on the weights of the last panel; ``left_out`` is what is beyond for each
    part of the cost and not in that, and 0.2% of what is.
    """

    def __init__(self, sizes: np.ndarray, edges: np.ndarray):
        before, last = sizes  # (choices, columns) each; the last column is the density's own
        wide, width = abs(edges[1] - edges[0]), abs(edges[2] - edges[1])
        with np.errstate(all="ignore"):
            rate = np.log(before / wide / (last / width)) / (0.5 * (wide + width))
            rest = np.where(last > 0, np.where(rate > 1e-3, 1 / np.expm1(np.maximum(rate, 1e-3) * width), 1e3), 0)
            own = np.where(rest[:, -1:] < 1e3, rest[:, -1:], 0)
            self.left_out = np.max(np.where(last > 0, last * (np.abs(rest - own) + 2e-3 * own), 0), axis=0)
        self.factor = 1 + float(np.max(own, initial=0))


def beyond(panels: np.ndarray, line: Line, ends: tuple[Tail, Tail]) -> np.ndarray:
    """The factor of each panel by which the last ones stand for what is beyond."""
    low, high = ends
    return np.where(
        panels[:, 1] <= line.edges[1], low.factor, np.where(panels[:, 0] >= line.edges[-2], high.factor, 1.0)
    )


class Settling:
    """One line while its panels are resolved: those that are ``active``, with their integrals ``whole``; the ``totals``
    of those that are done, and the ``scale`` of each, (choices, columns): the largest mean of sizes among the ``first``
    choices, or that of a further choice where it is larger, over how much it counts, its ``shares``. What is ``open``,
    (choices,), does not settle there.

    Rows of panels, of their integrals and of their parts go together: of 3 active panels the first may be cut in 2
    parts, the others in 3 and 2, so that ``cuts`` has 3 arrays of edges, (3,), (4,), (3,), and its integrals 7 rows,
    which sum to 3 rows at the starts 0, 2, 5.
    """

    def __init__(self, line: Line, first: Integrals, choices: int, shares: np.ndarray):
        self.line, self.whole, self.first, self.shares = line, first, slice(0, choices), shares[:, None]
        sizes = first.sizes[:, self.first]
        self.ends = Tail(sizes[1::-1], line.edges[2::-1]), Tail(sizes[-2:], line.edges[-3:])
        self.scale, self.open = np.zeros(first.sizes.shape[1:]), np.zeros(first.sizes.shape[1])
        self.rescale(first)
        some = first.density > 0  # and the neighbours of such panels
        self.active = line.panels[some | np.append(some[1:], False) | np.append(False, some[:-1])]
        self.totals = np.zeros(first.sums.shape[1:])
        self._done: list[np.ndarray] = []
        self._doubt = 0.0, 0.0, 0.0

    def rescale(self, found: Integrals) -> None:
        """Let no scale be less than what was found."""
        if len(found.sizes):
            sizes = np.sum(found.sizes, axis=0)
            most = np.max(sizes[self.first], axis=0)
            sizes[self.first] = most
            self.scale = np.maximum(self.scale, np.maximum(sizes, most))

    def cuts(self, places: np.ndarray) -> list[np.ndarray]:
        """The edges of the parts of each active panel."""
        return cuts(self.active, places)

    def judge(self, cuts: list[np.ndarray], new: Integrals, tolerance: float, eps: float, last: bool) -> None:
        """Hold each active panel against the sum over its parts: it is done where these agree, and where it cannot be
        cut further; else its parts are active."""
        if not len(self.active):
            return
        counts = [len(c) - 1 for c in cuts]
        with np.errstate(all="ignore"):
            finer = np.add.reduceat(new.sums, np.cumsum([0, *counts[:-1]]), axis=0)
            wrong = np.abs(finer - self.whole.sums) / self.unit
        wrong = np.max(np.where(np.isnan(wrong), math.inf, wrong), axis=2, initial=0)
        bad = np.any(wrong > tolerance, axis=1)
        too_many = len(self._done) + len(bad) > _PANELS
        stop = bad & (self.line.tight(self.active, eps) | last | too_many)
        if stop.any():
            self.open = np.maximum(self.open, np.sum(wrong[stop], axis=0))
            most = np.max(wrong[:, self.first], axis=1)
            worst = self.active[int(np.argmax(np.where(stop, most, 0)))]
            self._doubt = max(self._doubt, self._part(float(np.sum(most[stop])), worst))
        ready = ~bad | stop
        self._done += list(self.active[ready])
        rest = beyond(self.active, self.line, self.ends)
        self.totals = self.totals + np.sum((finer * rest[:, None, None])[ready], axis=0)
        again = np.repeat(~ready, counts)
        self.active, self.whole = between(cuts)[again], new.at(again)

    @property
    def panels(self) -> np.ndarray:
        """All that are done, in rising order."""
        return np.array(sorted(map(tuple, self._done))).reshape(-1, 2)

    def rule(self, edges: np.ndarray, eps: float) -> Rule:
        """The points of panels that cover the line, and their steps."""
        half = 0.5 * (edges[:, 1:] - edges[:, :1])
        x, slope = self.line.at(0.5 * (edges[:, :1] + edges[:, 1:]) + half * NODES)
        steps = slope * half * WEIGHTS * beyond(edges, self.line, self.ends)[:, None]
        return x.reshape(-1), np.where(self.line.points(edges, eps)[:, None], 0, steps).reshape(-1)

    def unresolved(self) -> tuple[float, float, float]:
        """The worst part of the line that did not settle, beyond its ends too, as a fraction of E|.|: how much, and
        between which values; the density itself sums to one."""
        tails = [
            self._part(float(np.max(tail.left_out / self.unit[0], initial=0)), edge)
            for tail, edge in zip(self.ends, (self.line.edges[:2], self.line.edges[-2:]), strict=True)
        ]
        mass = float(np.max(np.abs(self.totals[self.first, -1] - 1)))
        return max(self._doubt, *tails, (mass, self.line.low, self.line.high))

    @property
    def unit(self) -> np.ndarray:
        """What integrals are compared with, (choices, columns)."""
        return np.where(self.scale > 0, self.scale / self.shares, 1)

    def _part(self, size: float, panel: np.ndarray) -> tuple[float, float, float]:
        low, high = self.line.at(panel)[0].tolist()
        return size, low, high
