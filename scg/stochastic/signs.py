"""Which results cannot be zero, by the signs that primitives declare (``sign=``): there a denominator has no pole."""

import numpy as np

from scg.core.aliases import Result
from scg.core.axes import reduction
from scg.core.node import Node
from scg.core.primitive import Primitive
from scg.stochastic.sides import denominator
from scg.stochastic.sites import is_draw, is_noise, is_stochastic


class Signs:
    """The signs of nodes: 2 positive, 1 never negative, 0 neither known. ``moving`` are, by id, the nodes that chance
    or parameters move; the others have the signs of their values."""

    def __init__(self, moving: dict[int, int]):
        self.moving = moving
        self.known: dict[int, int] = {}

    def change(self, node: Node) -> bool:
        """Whether a node has a cut, or a pole that its denominator may come to."""
        x = denominator(node)
        return x is None or self.of(x) < 2

    def of(self, x: Result) -> int:
        """The sign of a node or of numbers."""
        if type(x) is not Node or x.id not in self.moving:
            if isinstance(x, (int, float)):
                return 2 if x > 0 else int(x == 0)
            x = x.raw if type(x) is Node else x
            if type(x) is tuple:
                return 0
            return 2 if np.all(np.greater(x, 0)) else int(np.all(np.greater_equal(x, 0)))
        stack = [x]
        while stack:  # no recursion: a chain may be long
            n = stack[-1]
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
            try:
                return 2 * bool(np.all(n.statics["site"].distribution.detached().support.low >= 0))
            except (AttributeError, TypeError):
                return 0
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
