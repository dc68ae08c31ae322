"""Where a step lies on its jump: what ``np.where`` or a mask chose there is that of one side, or of neither.

At x = 0 both masks of ``np.where(x > 0, x, 0)**2 + np.where(x < 0, x, 0)**2`` are false. A first derivative there is
that of the branch taken, or, where masks belong to neither side, the limit of those nearby; a second one is compared
with those nearby (``scg.core.limits.confirmed``), as at a tie of ``np.maximum``.
"""

import functools
from collections.abc import Collection
from typing import Any

import numpy as np

from scg.core.aliases import Function, Result
from scg.core.axes import elementwise
from scg.core.cotangents import leading_to
from scg.core.node import Node, values_of
from scg.core.primitive import primitive

_SMALL = 2**13  # bytes of arrays that are compared

branch = primitive(
    lambda d: d,
    elementwise,
    lambda g, out, d: g,
    name="branch",
    same=True,
    view=True,
    linear="together",
    shares=lambda d: np.True_,
)
"""A cotangent ``d`` beside a factor that lies on its jump."""


def _steps(order: list[Node]) -> list[Node]:
    """The steps that know where they jump; none beside samples, which cannot be moved."""
    steps = [node for node in order if node.primitive.ties is not None]
    return [] if steps and any([node.statics and "site" in node.statics for node in order]) else steps


def moving_steps(order: list[Node], wanted: set[int]) -> tuple[list[Node], set[int]]:
    """The steps that know where they jump and that move with the nodes ``wanted``, given by ids; and all that moves."""
    steps = _steps(order)
    moving = leading_to(wanted, order) if steps else wanted
    return [
        node
        for node in steps
        if any([type(o) is Node and o.id in moving for o in node.operands])
        and (len(node.operands) < 2 or node.operands[0] is not node.operands[1])
    ], moving


def isolated(order: list[Node], wanted: set[int]) -> list[Node]:
    """The comparisons with what does not move whose masks, where both sides are equal, belong to neither side: of x ==
    0 alone, of x > 0 and x < 0 together.

    There even a first derivative may be that of no branch: of where(x == 0, 1, expm1(x) / x) at 0 it is 1/2.
    """
    steps = [n for n in _steps(order) if len(n.operands) == 2 and n.dtype.kind == "b"]
    sides: dict[tuple[int, Any], dict[int, Node]] = {}
    moving: set[int] | None = None
    for node in steps if len(steps) > 1 or any([_side(n.primitive.fn, 0) == 0 for n in steps]) else ():
        moving = leading_to(wanted, order) if moving is None else moving
        moved = [type(o) is Node and o.id in moving for o in node.operands]
        if sum(moved) == 1:
            k = moved.index(True)
            other = values_of(node.operands)[1 - k]
            key: Any = other if isinstance(other, (int, float)) else id(other)
            if isinstance(other, np.ndarray) and other.nbytes <= _SMALL:  # a copy for each operation
                key = other.shape, other.tobytes()
            sides.setdefault((node.operands[k].id, key), {})[_side(node.primitive.fn, k)] = node
    return [n for known in sides.values() if 0 in known or len(known) > 1 for n in known.values()]


@functools.lru_cache(32)
def _side(fn: Function, k: int) -> int:
    """On which side of its jump, as operand ``k`` grows, a comparison of equal numbers stands: -1, 1, or 0 for
    neither."""
    low, middle, high = [bool(fn(*((s, 0.0) if k == 0 else (0.0, s)))) for s in (-1.0, 0.0, 1.0)]
    return 0 if middle not in (low, high) else -1 if middle == low else 1


def rests(node: Node) -> bool:
    """Whether a step lies on its jump."""
    return _rests(node, node.primitive.ties)


def resting(order: list[Node], wanted: set[int]) -> set[int]:
    """Ids of the nodes that move at jumps only, and of which a step that they are made of lies on its jump."""
    steps, moving = moving_steps(order, wanted)
    found = {node.id for node in steps if _rests(node, node.primitive.ties)}
    if found:
        for node in order:
            if node.id not in moving and any([type(o) is Node and o.id in found for o in node.operands]):
                found.add(node.id)
    return found


def _rests(node: Node, ties: Function | None) -> bool:
    return ties is not None and bool(np.any(ties(*values_of(node.operands), **node.statics)))


def branched(d: Result, node: Node, rest: Collection[int]) -> Result:
    """``d``, a cotangent of an operand of ``node``, marked where another operand is among ``rest``."""
    if rest and type(d) is Node and any([type(o) is Node and o.id in rest for o in node.operands]):
        return branch(d)
    return d
