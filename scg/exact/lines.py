"""A line, along which one continuous element runs through its support, and the *panels* that it is cut into."""

import math
from typing import Any

import numpy as np
import scipy.special as sp

POINTS = 10
NODES, WEIGHTS = np.polynomial.legendre.leggauss(POINTS)
_GOLDEN = 0.5 * (math.sqrt(5) - 1)
NOWHERE = np.zeros(0)


class Line:
    """One element along which x(v) goes from end to end of its support, with the panels that it has so far. ``centre``
    and ``scale`` may be arrays, of several such lines."""

    centre: Any
    scale: Any

    def __init__(self, low: float, high: float, centre: Any, scale: Any, seed: float, count: int, dtype: Any):
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

    def tight(self, panels: np.ndarray, eps: float) -> np.ndarray:
        """Which panels are so narrow that rounding fills them."""
        x = self.at(panels)[0]
        centre = np.reshape(np.abs(self.centre), -1) * (math.isinf(self.low) and math.isinf(self.high))
        noise = np.abs(x).max(axis=1, initial=0) + centre
        narrow = panels[:, 1] - panels[:, 0] <= 2e-14 * np.abs(panels).max(axis=1, initial=0)
        return narrow | (np.abs(x[:, 1] - x[:, 0]) <= 64 * eps * noise)

    def points(self, panels: Any, eps: float) -> Any:
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


def cut(panel: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The edges of the parts of a panel: two, or more and more narrow ones towards an end that is one of the places."""
    a, b = panel
    edges = [a, a + 0.47 * (b - a), b]
    if len(places):
        steps = 0.47 * (b - a) * 0.25 ** np.arange(1, 14)
        for end, sign in ((a, 1), (b, -1)):
            if np.min(np.abs(places - end)) <= 1e-13 * abs(end) + 1e-300:
                edges += list(end + sign * steps)
    return np.unique(edges)


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
