"""Where a step lies on its jump: what ``np.where`` or a mask chose there is that of one side, or of neither.

At x = 0 both masks of ``np.where(x > 0, x, 0)**2 + np.where(x < 0, x, 0)**2`` are false. A first derivative there is a
convention; a second one is compared with those nearby (``scg.core.limits.confirmed``), as at a tie of ``np.maximum``.
"""

from collections.abc import Collection

import numpy as np

from scg.core.aliases import Function, Result
from scg.core.axes import elementwise
from scg.core.cotangents import leading_to
from scg.core.node import Node, values_of
from scg.core.primitive import primitive

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


def moving_steps(order: list[Node], wanted: set[int]) -> tuple[list[Node], set[int]]:
    """The steps that know where they jump and that move with the nodes ``wanted``, given by ids; and all that moves."""
    steps = [node for node in order if node.primitive.ties is not None]
    moving = leading_to(wanted, order) if steps else wanted
    return [
        node
        for node in steps
        if any([type(o) is Node and o.id in moving for o in node.operands])
        and (len(node.operands) < 2 or node.operands[0] is not node.operands[1])
    ], moving


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
