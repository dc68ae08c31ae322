"""On which piece of what is not smooth the values of a node lie, as its primitive declares it (``kinks=``,
``steps=``, ``cuts=``, ``poles=``)."""

from collections.abc import Callable

import numpy as np

from scg.core.aliases import Function, Operand, Result
from scg.core.axes import padded
from scg.core.node import Node
from scg.core.primitive import Primitive
from scg.core.replay import replay

_PARTS, _CUTS = 33, 13  # a bracket is cut into so many, so often: down to neighbouring numbers


def is_break(node: Node) -> bool:
    """Whether a node is not smooth somewhere: it says so, or it has no derivative, but of a real number a value."""
    primitive = node.primitive
    if primitive.kinks is not None or primitive.steps is not None or primitive.cuts and "c" in kinds_of(node):
        return True
    if not primitive.jumps or "site" in node.statics:
        return False
    moving = [o for o in node.operands if type(o) is Node]  # what is made of truths and integers changes where they do
    return any(type(o.raw) is tuple or o.dtype.kind in "fc" for o in moving)


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


def telling(node: Node) -> tuple[list[Operand], Function | None]:
    """What tells on which side a node is: itself, or its operands and the function of these."""
    tell = _tell(node)
    return ([node], None) if tell is None else (list(node.operands), tell)


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


def jump_side(primitive: Primitive, kinds: list[str]) -> Result:
    """The function that tells on which side of a jump operands of these kinds are; None where the value does, or where
    there is no jump. A denominator that comes to zero without changing its sign, as |x| does, has no such sides: there
    it falls before and rises after (``dips``)."""
    if primitive.steps:
        return primitive.steps
    if "c" in kinds:
        return primitive.cuts
    if primitive.poles is None:
        return None
    return lambda *operands, **statics: operands[primitive.poles(*operands) or 0] > 0


def spread(x: Result) -> Result:
    """The range of numbers along the first axis, of those that are finite; of complex ones that of both parts added."""
    x = np.asarray(x, complex)
    finite = np.isfinite(x)
    parts = [(np.where(finite, p, -np.inf), np.where(finite, p, np.inf)) for p in (x.real, x.imag)]
    return sum([np.maximum(np.max(low, axis=0) - np.min(high, axis=0), 0) for low, high in parts])


def dips(x: Result) -> Result:
    """Where numbers fall and rise again along the first axis: of all of them but the first and the last.

    4, 1, 1, 3: the third, at the end of what is equal.
    """
    falls, rises = np.asarray(x[1:] < x[:-1]), np.asarray(x[1:] > x[:-1])
    steps = np.reshape(np.arange(len(falls)), (-1, *[1] * (falls.ndim - 1)))
    last = np.maximum.accumulate(np.where(falls | rises, steps, 0), axis=0)
    return np.take_along_axis(falls, last, 0)[:-1] & rises[1:]


def lowest(fn: Callable[[Result], Result], low: Result, high: Result) -> tuple[Result, Result]:
    """The ends of brackets, each closed in on the place where ``fn`` is least in it; ``fn`` takes (parts, ...)."""
    parts = np.reshape(np.linspace(0, 1, _PARTS), (-1, *[1] * np.ndim(low)))
    for _ in range(_CUTS):
        x = np.asarray(low + parts * (high - low), np.result_type(low))
        least = np.argmin(fn(x), axis=0)
        low, high = (np.take_along_axis(x, np.clip(least + k, 0, _PARTS - 1)[None], 0)[0] for k in (-1, 1))
    return low, high


def _tell(node: Node) -> Result:
    """The function that tells on which side operands are; None where the value does."""
    return jump_side(node.primitive, kinds_of(node)) or node.primitive.kinks
