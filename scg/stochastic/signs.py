"""Which results cannot be zero, by the signs that primitives declare (``sign=``): there a denominator has no pole."""

import functools

import numpy as np

from scg.core.aliases import Function, Result
from scg.core.axes import reduction
from scg.core.node import Node, Value
from scg.core.primitive import Primitive
from scg.distributions.base import Distribution, FixedSupport
from scg.stochastic.sides import denominator
from scg.stochastic.sites import is_draw, is_noise, is_stochastic

_POSITIVE = np.array([0.0, *np.geomspace(1e-300, 1e300, 601)])  # and not negative
_MOST = 16  # numbers with which others are compared


class Signs:
    """The signs of nodes: 2 positive, 1 never negative, 0 neither known. ``moving`` are, by id, the nodes that chance
    (2), parameters (1) or both (3) move; the others have the signs of their values. What parameters alone move is
    positive nearby where it is, so that it may be taken for it: t * t + z * z has no zero for t = 0.3.

    ``taken`` are tests, and their operands, that held for the values from which signs were taken."""

    def __init__(self, moving: dict[int, int], parameters: bool = True):
        self.moving = moving
        self.known: dict[int, int] = {}
        self.taken: list[tuple[Function, tuple[object, ...]]] = []
        self.whatever: Signs | None = None  # the signs of whatever values parameters have
        if parameters:
            self.whatever = Signs(moving, False)
            self.whatever.taken = self.taken

    def change(self, node: Node) -> bool:
        """Whether a node has a step, a cut, or a pole that its denominator may come to: x > 0 has none for positive
        x."""
        if node.primitive.jumps:
            return not self._is_decided(node)
        x = denominator(node)
        return x is None or self.of(x) < 2

    def _is_decided(self, node: Node) -> bool:
        """Whether a comparison with numbers that nobody moves has one outcome on all that the other operand may be."""
        if type(node.raw) is tuple or node.dtype.kind != "b" or len(node.operands) != 2:
            return False
        for k, (x, c) in enumerate((node.operands, node.operands[::-1])):
            if type(x) is Node and x.id in self.moving and not (type(c) is Node and c.id in self.moving):
                sign = self.of(x)
                return bool(sign and self._taken(functools.partial(_has_one_outcome, node.primitive, sign, k), c))
        return False

    def of(self, x: Result) -> int:
        """The sign of a node or of numbers."""
        if type(x) is not Node or x.id not in self.moving:
            if isinstance(x, (int, float)):
                return 2 if x > 0 else int(x == 0)
            value = x.raw if type(x) is Node else x
            return 0 if type(value) is tuple else self._taken(_is_positive, x) or self._taken(_is_not_negative, x)
        stack = [x]
        while stack:  # no recursion: a chain may be long
            n = stack[-1]
            if self.whatever is not None and self.moving[n.id] == 1:
                sign = self.whatever.of(n)
                is_number = type(n.raw) is not tuple and n.dtype.kind in "fiu"
                self.known[stack.pop().id] = (
                    sign if sign == 2 or not is_number else self._taken(_is_positive, n) or sign
                )
                continue
            known = _is_told(n.primitive) and not is_stochastic(n)
            later = (
                [o for o in n.operands if type(o) is Node and o.id in self.moving and o.id not in self.known]
                if known
                else []
            )
            if later:
                stack += later
                continue
            self.known[stack.pop().id] = self._of(n)
        return self.known[x.id]

    def _of(self, n: Node) -> int:
        primitive = n.primitive
        if is_stochastic(n):
            distribution = n.statics["site"].distribution
            if distribution.has(FixedSupport):
                return 2 * _begins_at_zero(distribution.detached())
            told = functools.partial(_of_a_sample, distribution.detached(), list(distribution.parameters))
            return self._taken(told, *distribution.parameters.values())
        if not _is_told(primitive) or type(n.raw) is tuple or n.dtype.kind not in "fiu":
            return 0
        signs = [self.known[o.id] if type(o) is Node and o.id in self.known else self.of(o) for o in n.operands]
        if primitive.same or primitive.picks:
            return signs[0]
        if primitive.moves:
            return min(signs)
        if len(n.operands) == 2 and n.operands[0] is n.operands[1] and primitive.linear == "each":
            return max(signs[0], 1)  # a square
        sign = primitive.sign(signs, *n.operands) if primitive.sign else 0
        if sign == 1 and primitive.axes is reduction and np.count_nonzero(n.operands[0].raw) > n.size:
            # zero only where several are zero together: no border between two sides, unless one number moves them all
            return 2 if not _are_pairs(n.operands[0].raw, n.size) and _is_moved_by_more(n, n.size) else 1
        return int(sign)

    def _taken(self, sign: Function, *operands: object) -> int:
        """The sign of some values."""
        found = int(sign(*[o.raw if type(o) is Node else o for o in operands]))
        if found:
            self.taken.append((lambda *values: int(sign(*values)) >= found, operands))
        return found


def _has_one_outcome(primitive: Primitive, sign: int, place: int, c: Value) -> bool:
    """Whether a comparison with ``c`` comes out the same for all numbers of a sign."""
    c = np.asarray(c)
    if c.size > _MOST:
        return False
    x = np.reshape(_POSITIVE[sign - 1 :], (-1, *[1] * c.ndim))
    found = primitive(*((x, c[None]) if place == 0 else (c[None], x)))
    return bool(np.all(found == found[:1]))


def _is_positive(x: Value) -> int:
    return 2 * bool(np.all(np.greater(x, 0)))


def _is_not_negative(x: Value) -> int:
    return int(np.all(np.greater_equal(x, 0)))


def _of_a_sample(distribution: Distribution, names: list[str], *values: Value) -> int:
    return 2 * _begins_at_zero(distribution.replaced(**dict(zip(names, values, strict=True))))


def _begins_at_zero(distribution: Distribution) -> bool:
    """Whether no sample is below zero."""
    try:
        return bool(np.all(distribution.support.low >= 0))  # type: ignore[attr-defined]
    except (AttributeError, TypeError):
        return False


def _are_pairs(x: np.ndarray, pairs: int) -> bool:
    """Whether numbers are two by two of one size, as a and b less their mean are."""
    size = np.sort(np.abs(x), axis=None)
    return x.size == 2 * pairs and bool(np.allclose(size[::2], size[1::2], atol=0))


def _is_moved_by_more(node: Node, numbers: int) -> bool:
    """Whether more than so many numbers of chance move a node."""
    stack, seen = [node], {node.id}
    while stack and numbers >= 0:
        n = stack.pop()
        if is_noise(n) or is_draw(n):
            numbers -= n.size
        else:
            new = {o.id: o for o in n.operands if type(o) is Node and o.id not in seen}
            seen.update(new)
            stack += new.values()
    return numbers < 0


def _is_told(primitive: Primitive) -> bool:
    """Whether the sign of a result is known from those of its operands."""
    return primitive.sign is not None or primitive.same or primitive.picks or primitive.moves
