"""Straight ways from the values that chance took to others, along which one sees whether a cost jumps where a step is
taken."""

import numpy as np

from scg.core.aliases import Result
from scg.core.axes import elementwise, padded
from scg.core.node import Node
from scg.core.replay import replay
from scg.distributions.base import Discrete, Distribution, draw_noise
from scg.distributions.parameterized import Shape
from scg.stochastic.crossings import is_real
from scg.stochastic.sides import denominator, dips, lowest, sides, spread
from scg.stochastic.sites import is_draw, is_noise

_NUMBERS = 2**23  # that are held at a time
_RUNS, _MATRICES = 256, 64  # runs that tell whether samples ever take a step, also one that a decomposition tells
_FAR = 5  # standard deviations: what is further out has no weight
_LINES, _POINTS = 6, 65  # along which the cost itself is looked at, before it is refused
_COARSE = 0.05  # of a cost beside a window
_CHANGES = 4  # along one way that are closed in on
_SECTIONS, _NARROWER = 16, 16  # of a bracket, at each step towards the change in it; such steps


class Ways:
    """The ways of the step ``node``, of which ``places`` are the elements that are looked at (None: all); ``leaves``
    are the samples and the noise that move along them."""

    def __init__(self, node: Node, cost: Node, order: list[Node], places: Result, touching: bool):
        self.node, self.cost, self.places = node, cost, places
        self.below = denominator(node) if touching else None  # a denominator that never changes its sign
        self.leaves = [
            n
            for n in order
            if (is_noise(n) or is_draw(n) and not n.statics["site"].distribution.has(Discrete)) and n.dtype.kind == "f"
        ]
        rng, self.runs = np.random.default_rng(0), runs_of(order)
        if node.primitive.axes is not elementwise:
            self.runs = min(self.runs, _MATRICES)
        self.others = {n: fresh(n, rng, self.runs) for n in self.leaves}
        self.eps = float(np.finfo(cost.dtype).eps)
        # some poles are rounded to a number within a window, and beside them matrices are singular to rounding
        wide = not touching and node.primitive.differentiable and (type(node.raw) is tuple or is_real(node))
        self.gap = self.eps**0.65 if wide else 16 * self.eps

    def beyond(self) -> np.ndarray:
        """The ways of which the ends lie beyond the step."""
        if self.below is not None:  # it falls from the one end, and from the other
            every, near = np.arange(self.runs), self.eps**0.4
            x = [self._denominators(every, np.full(self.runs, s)) for s in (0.0, near, 1 - near, 1.0)]
            return np.flatnonzero(np.any((x[0] > x[1]) & (x[2] < x[3]), axis=1))
        near = self._sides({n: n.raw[None] for n in self.leaves}, 1)
        return np.flatnonzero(np.any(self._sides(self.others, self.runs) != near, axis=1))

    def jumps(self, beyond: np.ndarray) -> bool | None:
        """Whether the cost jumps where some of these ways take the step; None where none of them is seen to.

        6 ways and 65 points on each: sides are (6, 65, elements), and each change between two points of a way is a
        bracket, of which ``line`` is the way and ``k`` the first point.
        """
        beyond = beyond[np.unique(np.linspace(0, len(beyond) - 1, min(_LINES, self.runs // 8), dtype=int))]
        grid = np.linspace(0, 1, min(_POINTS, self.runs))
        way = np.repeat(beyond, len(grid)), np.tile(grid, len(beyond))
        try:
            seen = self._sides_at(*way) if self.below is None else self._denominators(*way)
            costs = self._costs(*way)
            size = float(spread(costs) + 16 * self.eps**0.6 * np.nanmax(np.abs(costs)))  # of what is no rounding
        except np.linalg.LinAlgError:  # some values that chance takes are in no domain
            return None
        seen = np.reshape(seen, (len(beyond), len(grid), -1))
        if self.below is not None:
            return self._touches(beyond, grid, seen, size)
        changes = np.any(seen[:, 1:] != seen[:, :-1], axis=2)
        line, k = np.nonzero(changes & (np.cumsum(changes, axis=1) <= _CHANGES))
        if not len(line):
            return None
        ends = beyond[line]
        low, high = self._narrowed(ends, grid[k], grid[k + 1], seen[line, k])
        # equal ones are rounded apart
        below, above = self._costs(ends, low - self.gap), self._costs(ends, high + self.gap)
        return not np.all(np.abs(above - below) <= self.eps**0.4 * size)

    def _touches(self, beyond: np.ndarray, grid: np.ndarray, seen: np.ndarray, size: float) -> bool | None:
        """``jumps``, of ``seen`` denominators that come to zero without changing their signs: where they are least."""
        found = np.moveaxis(dips(np.moveaxis(seen, 1, 0)), 0, 1)
        taken = np.any(found, axis=2)
        line, k = np.nonzero(taken & (np.cumsum(taken, axis=1) <= _CHANGES))
        if not len(line):
            return None
        ends, every, element = beyond[line], np.arange(len(line)), np.argmax(found[line, k], axis=1)

        def denominators(s: np.ndarray) -> np.ndarray:
            x = self._denominators(np.tile(ends, len(s)), s.reshape(-1))
            return np.reshape(x, (*s.shape, -1))[:, every, element]

        low, high = lowest(denominators, grid[k], grid[k + 2])
        sides = np.stack([low - self.gap, high + self.gap])
        below, above = [self._costs(ends, s) for s in sides]
        clear = np.all(denominators(sides) > 0, axis=0) & np.isfinite(below) & np.isfinite(above)
        if np.any(clear & (np.abs(above - below) > self.eps**0.4 * size)):
            return True
        # some are rounded to zero within a window, and to a few digits beside it
        below, above = self._costs(ends, low - self.eps**0.45), self._costs(ends, high + self.eps**0.45)
        tolerance = _COARSE * (np.abs(below) + np.abs(above)) + self.eps**0.225 * size
        return not np.all(clear | (np.abs(above - below) <= tolerance))

    def _narrowed(
        self, ends: np.ndarray, low: np.ndarray, high: np.ndarray, before: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Brackets on the ways to ``ends``, closed in on where the sides ``before`` are left: (brackets,) each."""
        parts = np.linspace(0, 1, _SECTIONS + 1)[:, None]
        for _ in range(_NARROWER):
            s = low + parts * (high - low)  # (parts, brackets)
            now = np.reshape(self._sides_at(np.tile(ends, len(parts)), s.reshape(-1)), (*s.shape, -1))
            last = np.maximum(np.argmax(np.any(now != before, axis=2), axis=0), 1)
            low, high = (np.take_along_axis(s, (last - j)[None], 0)[0] for j in (1, 0))
            if np.all(high - low <= 0.1 * self.gap):
                break
        return low, high

    def _held(self, ends: np.ndarray, s: np.ndarray) -> dict[Node, np.ndarray]:
        """What chance takes at parts ``s`` of the ways to ``ends``."""
        return {
            n: np.asarray(n.raw + np.reshape(s, (-1, *[1] * n.ndim)) * (x[ends] - n.raw), n.dtype)
            for n, x in self.others.items()
        }

    def _costs(self, ends: np.ndarray, s: np.ndarray) -> np.ndarray:
        return np.broadcast_to(replay(self.cost, self._held(ends, s), self.leaves), len(s))

    def _sides_at(self, ends: np.ndarray, s: np.ndarray) -> np.ndarray:
        return self._sides(self._held(ends, s), len(s))

    def _denominators(self, ends: np.ndarray, s: np.ndarray) -> np.ndarray:
        """The denominators of the chosen elements, (rows, elements)."""
        assert self.below is not None
        x = padded(replay(self.below, self._held(ends, s), self.leaves), self.node.ndim)
        return self._chosen(np.reshape(np.broadcast_to(x, (len(s), *self.node.shape)), (len(s), -1)))

    def _sides(self, held: dict[Node, np.ndarray], rows: int) -> np.ndarray:
        return self._chosen(sides([self.node], held, rows)[0])

    def _chosen(self, found: np.ndarray) -> np.ndarray:
        return found if self.places is None or found.shape[1] != self.node.size else found[:, self.places]


def runs_of(order: list[Node]) -> int:
    """How many runs are made at once: fewer of what is large."""
    return int(np.clip(_NUMBERS // sum([n.size for n in order if type(n.raw) is not tuple]), 8, _RUNS))


def fresh(node: Node, rng: np.random.Generator, runs: int) -> Result:
    """Other values of a sample or of noise, from the distribution that was recorded, along a leading axis."""
    if is_noise(node):
        distribution = node.statics["distribution"]
        drawn = draw_noise(distribution, rng, (runs, *node.statics["shape"]), node.dtype)
    else:
        distribution = node.statics["site"].distribution.detached()
        drawn = sampled(distribution, rng, runs, node.shape)
    return np.asarray(farther(distribution, np.reshape(drawn, (runs, *node.shape)), rng), node.dtype)


def sampled(distribution: Distribution, rng: np.random.Generator, runs: int, shape: Shape) -> Result:
    """Samples of a shape, along a leading axis."""
    fixed = len(distribution.event_shape) + len(distribution.batch_shape)
    return distribution.sample(rng, (runs, *shape[: len(shape) - fixed]))


def farther(distribution: Distribution, drawn: Result, rng: np.random.Generator) -> Result:
    """Samples, (runs, ...), of which a half is further out than samples mostly are: all elements together, or one of
    them."""
    found = ends(distribution, drawn, _FAR, 1e-6)
    if found is None:
        return drawn
    (low, high), runs = found, len(drawn)
    half, quarter = runs // 2, runs // 4
    rows = np.array(drawn)
    centre = np.mean(drawn, axis=0)
    rows[half:-quarter] = np.minimum(np.maximum(centre + 3 * (drawn[half:-quarter] - centre), low), high)
    alone, size = np.arange(quarter), drawn[0].size
    k = rng.integers(size, size=quarter) if size > quarter // 2 else alone // 2 % size
    rows.reshape(runs, -1)[runs - 1 - alone, k] = np.where(alone % 2, np.reshape(high, -1)[k], np.reshape(low, -1)[k])
    return rows


def ends(distribution: Distribution, drawn: Result, far: float, inside: float) -> tuple[Result, Result] | None:
    """The least and the largest value of each element, ``far`` standard deviations of the samples ``drawn`` out at
    most, and ``inside``, a part of what lies between, from the ends of a support, which is open. None where there are
    none."""
    low, high = getattr(distribution.support, "low", None), getattr(distribution.support, "high", None)
    if distribution.event_shape or low is None or high is None or not drawn[0].size:
        return None
    centre = np.mean(drawn, axis=0)
    width = far * np.sqrt(np.mean((drawn - centre) ** 2, axis=0))
    low, high = np.maximum(low, centre - width), np.minimum(high, centre + width)
    inner = inside * (high - low)
    return np.broadcast_to(low + inner, drawn.shape[1:]), np.broadcast_to(high - inner, drawn.shape[1:])
