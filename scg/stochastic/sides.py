"""On which piece of what is not smooth the values of a node lie, as its primitive declares it (``kinks=``,
``steps=``, ``cuts=``, ``poles=``)."""

import numpy as np

from scg.core.aliases import Result
from scg.core.axes import padded
from scg.core.node import Node
from scg.core.primitive import Primitive
from scg.core.replay import replay


def is_break(node: Node) -> bool:
    """Whether a node is not smooth somewhere: it says so, or it has no derivative, but of a real number a value."""
    primitive = node.primitive
    if primitive.kinks is not None or primitive.steps is not None or primitive.cuts and "c" in kinds_of(node):
        return True
    if not primitive.jumps or "site" in node.statics:
        return False
    moving = [o for o in node.operands if type(o) is Node]  # what is made of truths and integers changes where they do
    return any(type(o.raw) is tuple or o.dtype.kind in "fc" for o in moving)


def sides(nodes: list[Node], held: dict[Node, Result], rows: int, touching: bool = False) -> list[Result]:
    """On which side each of the nodes is, (rows, elements), where others have the values ``held``, with an axis of rows
    in front."""
    outputs = [[n] if _tell(n, touching) is None else [o for o in n.operands if type(o) is Node] for n in nodes]
    moved = iter(replay([o for group in outputs for o in group], held, list(held)))
    found = []
    for n in nodes:
        tell = _tell(n, touching)
        if tell is None:
            side = next(moved)
        else:
            operands = [next(moved) if type(o) is Node else np.asarray(o)[None] for o in n.operands]
            side = tell(*[padded(o, max(o.ndim for o in operands) - 1) for o in operands], **n.statics)
        if type(side) is tuple:
            side = np.stack(side, axis=-1)
        found.append(np.broadcast_to(np.reshape(side, (len(side), -1)), (rows, np.size(side) // max(len(side), 1))))
    return found


def kinds_of(node: Node) -> list[str]:
    """The kinds of the operands' dtypes."""
    return [
        o.dtype.kind if isinstance(o, (Node, np.ndarray, np.generic)) else np.result_type(o).kind
        for o in node.operands
        if type(o) is not Node or type(o.raw) is not tuple
    ]


def denominator(node: Node) -> Result:
    """The operand at whose zeros a node has a pole; None where there is none, or where it is complex."""
    poles = node.primitive.poles
    place = poles and poles(*node.operands)
    x = None if place is None else node.operands[place]
    return x if type(x) is Node and x.dtype.kind == "f" else None


def jump_side(primitive: Primitive, kinds: list[str], touching: bool = True) -> Result:
    """The function that tells on which side of a jump operands of these kinds are; None where the value does, or where
    there is no jump. ``touching``: a denominator may come to zero without changing its sign, as |x| does; there the
    numerator may change its own."""
    if primitive.steps:
        return primitive.steps
    if "c" in kinds:
        return primitive.cuts
    if primitive.poles is None:
        return None
    return _signs if touching else lambda *operands, **statics: operands[primitive.poles(*operands) or 0] > 0


def _signs(*operands: Result, **statics: Result) -> Result:
    return sum([np.greater(x, 0) * 2**k for k, x in enumerate(operands)])


def _tell(node: Node, touching: bool = False) -> Result:
    """The function that tells on which side operands are; None where the value does."""
    return jump_side(node.primitive, kinds_of(node), touching) or node.primitive.kinks
