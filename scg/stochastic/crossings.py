"""What is made of a step element by element, computed on both sides of the places where the step is taken.

Some elements of the step are looked at, by themselves: those of a node before it get other values, and what lies
between is computed again, a few numbers at a time.
"""

import functools
import math
from typing import NamedTuple

import numpy as np

from scg.core.aliases import Function, Result, Statics
from scg.core.axes import elementwise
from scg.core.node import Node, Value
from scg.errors import ScgError
from scg.stochastic.sides import denominator, dips, jump_side, kinds_of, lowest, spread
from scg.stochastic.sites import is_stochastic

_ELEMENTS = 16  # of a step, spread over it, that are moved
_PARTS, _SETTLED = 33, 14  # a bracket is cut into so many, so often: down to neighbouring numbers
_RANKS = (1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144)  # of the steps of one element along the line, by distance
_SECANTS = 5  # that are tried after one cut
_STEEP = 1e4  # a slope, where the whole range is that of what is moved: what changes less across a gap is rounding
_COARSE, _SLOPE = 0.05, 30.0  # of values beside a window, and of what changes across it
_ROUNDED = 16  # times the precision of numbers: what differs less is rounded apart
_ROOM = 8.0  # times the size of what a step looks at, and it is moved no further
_FINE = np.linspace(-_ROOM, _ROOM, 129)[:, None]
_NEAR = np.concatenate([-np.geomspace(_ROOM, 1e-4, 64), [0.0], np.geomspace(1e-4, _ROOM, 64)])[:, None]
_BOTH = np.sort(np.concatenate([_FINE, _NEAR]), axis=0)


class _Line(NamedTuple):
    """One operation that is done again: ``fn`` of values, in which those of other nodes stand at their places."""

    id: int
    fn: Function
    values: list[Result]
    places: list[tuple[int, int]]  # of an operand, and the id of the node that stands there
    statics: Statics


class Crossing:
    """The chosen elements of a step, of the nodes ``made`` of it element by element, and of ``edges``, those of them
    that something else is made of; ``touching``: its denominator never changes its sign."""

    def __init__(self, node: Node, made: list[Node], edges: list[Node], touching: bool):
        self.node, self.edges = node, edges
        self.below = denominator(node) if touching else None
        self.shape = np.broadcast_shapes((1,), *{n.shape for n in made})
        self.side = jump_side(node.primitive, kinds_of(node))
        self.found: Result = None  # elements of the step, counted as they lie, where a jump was seen
        self.before: dict[int, Node] = {}
        self.values: dict[int, Result] = {}
        stack = list(made)
        while stack:
            n = stack.pop()
            if n.primitive.axes is elementwise and n.id not in self.before and self._fits(n):
                self.before[n.id] = n
                stack += [o for o in n.operands if type(o) is Node and type(o.raw) is not tuple]
        size = math.prod(self.shape)
        self.index = np.unravel_index(self._chosen(size), self.shape) if size else None

    def _chosen(self, size: int) -> Value:
        """Places spread over all; of many, also those where what goes in is least and largest: of a mask or a vector
        of constants the one element that is not as the others."""
        if size <= _ELEMENTS:
            return np.arange(size)
        chosen = {k * (size - 1) // (_ELEMENTS - 1) for k in range(_ELEMENTS)}
        for x in {id(x): x for n in self.before.values() for x in self._given(n)}.values():
            ends = [int(np.argmin(x)), int(np.argmax(x))]
            if x.shape != self.shape:
                axes = self.shape[len(self.shape) - x.ndim :]
                ends = [int(np.ravel_multi_index(np.unravel_index(end, x.shape), axes)) for end in ends]
            chosen.update(ends)
        return np.array(sorted(chosen))

    def _given(self, n: Node) -> list[Value]:
        """The arrays that are no results of the operations that are done again, of more than one number."""
        given = [o.raw if type(o) is Node else o for o in n.operands if type(o) is not Node or o.id not in self.before]
        return [x for x in given if isinstance(x, np.ndarray) and x.size > 1]

    def meets(self, moved: Node, other: Value) -> bool:
        """Whether what is made of a comparison agrees on both sides of the place where its operands are equal."""
        if self.index is None:
            return True
        if moved.dtype.kind != "f":
            return False
        at = np.asarray(np.broadcast_to(self._value(other), self.index[0].shape), moved.dtype)
        with np.errstate(all="ignore"):
            gap = _gap(at, at)
            table = self.run(self._lines(moved), moved, np.stack([at - gap, at + gap]))
            step = table[self.node.id]
            crossed = step[0] != step[1]
            return bool(crossed.all()) and not self._differs(table, crossed, gap, moved)

    def jumps(self, moved: Node) -> bool | None:
        """Whether there is a jump where the step is taken as ``moved`` is; None where it is not taken."""
        if self.index is None or not self._fits(moved):
            return None
        with np.errstate(all="ignore"):
            return self._jumps(moved) if self.below is None else self._touches(moved, self.below)

    def _jumps(self, moved: Node) -> bool | None:
        lines = self._lines(moved)
        way = [line for line in lines if line.id <= self.node.id]
        grid = self._grid(moved)
        taken = (step := self._step(way, moved, grid))[1:] != step[:-1]
        if not taken.any():
            return None
        every = np.arange(taken.shape[1])
        order = self._spread(taken, np.abs(grid[1:] - self._value(moved)))
        low, high = grid[order, every], grid[order + 1, every]
        crossed = step[order, every] != step[order + 1, every]
        low, high = self.closer(way, moved, low, high, 1)
        found = self._secant(lines, moved, low, high, crossed)
        if found is None:
            low, high = self.closer(way, moved, low, high, _SETTLED)
            gap = _gap(low, high) + self._rounding(self.run(way, moved, np.stack([low, high])), np.finfo(low.dtype).eps)
            found = self.run(lines, moved, np.stack([low - gap, high + gap])), gap + (high - low)
            if self.side is not None and np.any(np.isinf(found[0][self.node.id])):
                # some poles are rounded to an infinity, of one sign, within a window
                gap = gap + np.finfo(low.dtype).eps ** 0.65 * (1 + np.abs(high))
                found = self.run(lines, moved, np.stack([low - gap, high + gap])), gap
        return self._differs(found[0], crossed, found[1], moved)

    @staticmethod
    def _spread(taken: Result, away: Result) -> Result:
        """Rows (steps, elements) of ``taken`` that are true: of each element's the nearest by ``away``, and others
        further and further, as far out there may be no cost left that jumps."""
        near = np.argsort(away, axis=0)
        taken = np.take_along_axis(taken, near, axis=0)
        rank = np.cumsum(taken, axis=0)
        chosen = [np.argmax(taken & (rank == k), axis=0) for k in _RANKS if k <= rank[-1].max()]
        return np.take_along_axis(near, np.stack(chosen), axis=0)

    def _touches(self, moved: Node, below: Node) -> bool | None:
        """``_jumps`` where the denominator ``below`` comes to zero without changing its sign: where it is least."""
        lines = self._lines(moved)
        way = [line for line in lines if line.id <= below.id]

        def denominators(x: Result) -> Result:
            table = self.run(way, moved, x)
            return np.broadcast_to(table[below.id] if below.id in table else self._value(below), x.shape)

        grid = self._grid(moved)
        taken = dips(denominators(grid))
        if not taken.any():
            return None
        order = self._spread(taken, np.abs(grid[1:-1] - self._value(moved)))
        every = np.arange(taken.shape[1])
        low, high = lowest(denominators, grid[order, every], grid[order + 2, every])
        taken, gap = taken[order, every], _gap(low, high) + (high - low)
        sides = np.stack([low - gap, high + gap])
        clear = np.all(denominators(sides) > 0, axis=0)
        if self._differs(self.run(lines, moved, sides), taken & clear, gap, moved):
            return True
        # some are rounded to zero within a window, and to a few digits beside it
        gap = gap + np.finfo(low.dtype).eps ** 0.45 * (1 + np.abs(high))
        table = self.run(lines, moved, np.stack([low - gap, high + gap]))
        return self._differs(table, taken & ~clear, gap, moved, _COARSE, _SLOPE)

    def _fits(self, node: Node) -> bool:
        return node.shape == self.shape or np.broadcast_shapes(node.shape, self.shape) == self.shape

    def _value(self, x: Value) -> Value:
        """The chosen elements of a node or of an array; one number where all are the same."""
        if type(x) is not Node:
            return self._elements(x) if isinstance(x, np.ndarray) else x
        if x.id not in self.values:
            self.values[x.id] = self._elements(np.asarray(x.raw))
        return self.values[x.id]

    def _elements(self, x: np.ndarray) -> Result:
        if x.ndim == 0:
            return x
        return (x if x.shape == self.shape else np.broadcast_to(x, self.shape))[self.index]

    def _lines(self, moved: Node) -> list[_Line]:
        """What is computed again where ``moved`` has other values."""
        changed, lines = {moved.id}, []
        for i in sorted(self.before):
            n = self.before[i]
            places = [(k, o.id) for k, o in enumerate(n.operands) if type(o) is Node and o.id in changed]
            if i > moved.id and places:
                taken = {k for k, _ in places}
                values = [None if k in taken else self._value(o) for k, o in enumerate(n.operands)]
                lines.append(_Line(i, n.primitive.fn, values, places, n.statics))
                changed.add(i)
        return lines

    def run(self, lines: list[_Line], moved: Node, values: Result) -> dict[int, Result]:
        """What changes, with ``values`` (rows, ..., elements) in place of ``moved``."""
        table = {moved.id: np.asarray(values, moved.dtype)}
        for line in lines:
            for k, i in line.places:
                line.values[k] = table[i]
            table[line.id] = line.fn(*line.values, **line.statics)
        return table

    def _operands(self, table: dict[int, Value]) -> list[Value]:
        return [table[o.id] if type(o) is Node and o.id in table else self._value(o) for o in self.node.operands]

    def _step(self, lines: list[_Line], moved: Node, values: Result) -> Result:
        table = self.run(lines, moved, values)
        if self.side is None:
            return np.broadcast_to(table[self.node.id], values.shape)
        operands = [np.asarray(x)[None] if np.ndim(x) < values.ndim else x for x in self._operands(table)]
        return np.broadcast_to(self.side(*operands, **self.node.statics), values.shape)

    def _rounding(self, table: dict[int, Result], eps: float) -> Result:
        """By how much what the step looks at is rounded where it is taken, with values on both sides of that."""
        sizes = [np.abs(x) for x in map(np.asarray, self._operands(table)) if x.dtype.kind == "f"]
        least = functools.reduce(np.fmin, sizes, np.inf)  # of a comparison: of what is equal there
        least = np.max(least, axis=0) if np.ndim(least) > 1 else least
        return np.where(np.isfinite(least), 8 * eps * least, 0)

    def _secant(self, lines: list[_Line], moved: Node, low: Result, high: Result, crossed: Result) -> Result:
        """What is computed close on both sides of the step, and how close: of a comparison of two numbers, where their
        difference has its zero in the bracket. None where it is not found in a few steps."""
        looked = [o for o in self.node.operands if type(o) is Node]
        if len(self.node.operands) != 2 or self.node.dtype.kind != "b" or not all([is_real(o) for o in looked]):
            return None

        def difference(table: dict[int, Value]) -> Value:
            a, b = self._operands(table)
            return np.subtract(a, b, dtype=float)

        try:
            x, y = low, high
            table = self.run(lines, moved, np.stack([x, y]))
            f, g = difference(table)
            rounding = self._rounding(table, np.finfo(low.dtype).eps)
            for _ in range(_SECANTS):
                middle = np.clip(np.where(f == g, low, x - f * ((y - x) / (g - f))), low, high).astype(moved.dtype)
                gap = _gap(middle, middle) + rounding
                table = self.run(lines, moved, np.stack([middle - gap, middle + gap]))
                step = table[self.node.id]
                if np.all((step[0] != step[1]) | ~crossed):
                    return table, gap
                x, f, y, g = y, g, middle, 0.5 * np.sum(difference(table), axis=0)
        except (TypeError, ValueError):  # what has no difference, or depends on what is moved in another way
            return None
        return None

    def _differs(
        self,
        table: dict[int, Result],
        crossed: Result,
        gap: Result,
        moved: Node,
        coarse: float = 0.0,
        steep: float = _STEEP,
    ) -> bool:
        """Whether, at the elements that ``crossed`` the step, what leaves the region has two values on its sides,
        beyond rounding, the part ``coarse`` of both, and what a slope changes across the ``gap``."""
        assert self.index is not None
        ranges: dict[int, Result] = {}
        for n in self.edges:
            low, high = np.asarray(table[n.id], complex if n.dtype.kind == "c" else float)
            eps = float(np.finfo(n.dtype if n.dtype.kind in "fc" else float).eps)
            off, near = np.abs(high - low), np.abs(low) + np.abs(high)
            rounding = (_ROUNDED * eps + coarse) * near
            apart = crossed & ~(off <= rounding) & ~self._same(low, high)
            if not np.any(apart):
                continue
            far = apart & ~(off <= (eps**0.4 + coarse) * near + steep * gap)
            if not np.any(far):  # in small units, or beside a large number?
                ranges = ranges or self._ranges(moved)
                most, slope = ranges[n.id]
                far = apart & ~(off <= rounding + eps**0.4 * np.minimum(near, most) + steep * gap * slope)
            apart = far
            if np.any(apart):
                apart = np.broadcast_to(apart, np.broadcast_shapes(apart.shape, self.index[0].shape))
                chosen = np.any(apart, axis=tuple(range(apart.ndim - 1)))
                places = np.arange(self.node.size).reshape(self.node.shape)
                self.found = np.unique(np.broadcast_to(places, self.shape)[self.index][chosen])
                return True
        return False

    def _ranges(self, moved: Node) -> dict[int, tuple[Result, Result]]:
        """Of each edge by how much it changes on the line of what is moved; and that over the width of the line, at
        most 1."""
        grid = self._grid(moved)
        table = self.run(self._lines(moved), moved, grid)
        width = (np.max(grid, axis=0) - np.min(grid, axis=0)) / (2 * _ROOM)
        found = {n.id: spread(table[n.id]) for n in self.edges}
        return {i: (most, np.minimum(most / width, 1)) for i, most in found.items()}

    def _same(self, low: Result, high: Result) -> Result:
        """Whether two values are the same, of any size."""
        return (low == high) | np.isnan(low) & np.isnan(high)

    def closer(self, lines: list[_Line], moved: Node, low: Value, high: Value, times: int) -> tuple[Value, Value]:
        """The ends of a bracket, moved together, until they are neighbours at the latest, around the first step in
        it."""
        before = self._step(lines, moved, low[None])[0]
        parts = np.reshape(np.linspace(0, 1, _PARTS), (-1, *[1] * low.ndim))
        for _ in range(times):
            within = np.asarray(low + parts * (high - low), moved.dtype)
            within[-1] = high
            last = np.argmax(self._step(lines, moved, within) != before, axis=0)  # the first on the other side
            low, high = (np.take_along_axis(within, np.maximum(last - k, 0)[None], 0)[0] for k in (1, 0))
            if np.all(np.abs(high - low) <= 2 * np.finfo(moved.dtype).eps * np.abs(high)):
                break
        return low, high

    def _support(self, moved: Node) -> tuple[Result, Result]:
        """The ends of what a sample may be."""
        support = moved.statics["site"].distribution.detached().support
        return support.low, support.high

    def _grid(self, moved: Node) -> Result:
        """Values that ``moved`` may have, in rising order, (rows, elements): of a sample those of its support."""
        assert self.index is not None
        at = np.broadcast_to(np.asarray(self._value(moved), float), self.index[0].shape)
        if not is_stochastic(moved):
            scale = np.abs(at)
            for o in self.node.operands:
                x = np.asarray(self._value(o), float)
                scale = scale + np.abs(np.where(np.isfinite(x), x, 0))
            scale = np.where(np.isfinite(scale) & (scale > 0), scale, 1 + np.abs(at))
            return np.asarray(at + scale * _BOTH, moved.dtype)
        low: Result = -np.inf
        high: Result = np.inf
        centre, scale = at, np.abs(at)
        distribution = moved.statics["site"].distribution.detached()
        if not distribution.event_shape:
            try:
                low, high = (self._elements(np.asarray(end, float)) for end in self._support(moved))
            except (AttributeError, ValueError):
                pass
            try:
                mean, variance = np.asarray(distribution.mean), np.asarray(distribution.variance)
                centre, scale = self._elements(mean), np.sqrt(self._elements(variance))
            except (ScgError, ValueError):
                pass
        centre = np.where(np.isfinite(centre), centre, at)
        scale = np.where(np.isfinite(scale) & (scale > 0), scale, 1 + np.abs(at))
        grid = np.sort(np.concatenate([at + scale * _NEAR, centre + scale * _FINE]), axis=0)
        # strictly inside, whatever is rounded: the ends themselves are in no support that is open
        low, high = np.asarray(low, moved.dtype), np.asarray(high, moved.dtype)
        least = np.where(np.isfinite(low), np.maximum(low + 1e-9 * (at - low), np.nextafter(low, high)), low)
        most = np.where(np.isfinite(high), np.minimum(high - 1e-9 * (high - at), np.nextafter(high, low)), high)
        return np.clip(np.asarray(grid, moved.dtype), least, most).astype(moved.dtype)


def is_real(node: Node) -> bool:
    """Whether a node holds real or complex numbers."""
    return type(node.raw) is not tuple and node.dtype.kind in "fc"


def _gap(low: Value, high: Value) -> Value:
    dtype = np.finfo(low.dtype)
    return 8 * dtype.eps * (np.abs(low) + np.abs(high)) + dtype.tiny
