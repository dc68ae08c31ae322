"""On which piece of what is not smooth the values of a node lie, as its primitive declares it (``kinks=``,
``steps=``)."""

import numpy as np

from scg.core.aliases import Result
from scg.core.axes import padded
from scg.core.node import Node
from scg.core.replay import replay


def is_break(node: Node) -> bool:
    """Whether a node is not smooth somewhere: it says so, or it has no derivative, but of a real number a value."""
    primitive = node.primitive
    if primitive.kinks is not None or primitive.steps is not None:
        return True
    if not primitive.jumps or "site" in node.statics:
        return False
    moving = [o for o in node.operands if type(o) is Node]  # what is made of truths and integers changes where they do
    return any(type(o.raw) is tuple or o.dtype.kind in "fc" for o in moving)


def is_silent(node: Node) -> bool:
    """Whether a node is of a differentiable primitive from outside that says nothing of where it is smooth: those
    inside are held to it by their tests."""
    rule = node.primitive
    return (
        rule.differentiable and rule.kinks is rule.steps is rule.linear is None and not rule.module.startswith("scg.")
    )


def sides(nodes: list[Node], held: dict[Node, Result], rows: int) -> list[Result]:
    """On which side each of the nodes is, (rows, elements), where others have the values ``held``, with an axis of rows
    in front."""
    outputs = [[n] if _tell(n) is None else [o for o in n.operands if type(o) is Node] for n in nodes]
    moved = iter(replay([o for group in outputs for o in group], held, list(held)))
    found = []
    for n in nodes:
        tell = _tell(n)
        if tell is None:
            side = next(moved)
        else:
            operands = [next(moved) if type(o) is Node else np.asarray(o)[None] for o in n.operands]
            side = tell(*[padded(o, max(o.ndim for o in operands) - 1) for o in operands], **n.statics)
        if type(side) is tuple:
            side = np.stack(side, axis=-1)
        found.append(np.broadcast_to(np.reshape(side, (len(side), -1)), (rows, np.size(side) // max(len(side), 1))))
    return found


def _tell(node: Node) -> Result:
    """The function that tells on which side operands are; None where the value does."""
    return node.primitive.steps or node.primitive.kinks
