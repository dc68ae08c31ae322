"""Nodes that compute the same from other draws: the steps of a loop, which are analysed and tabulated once.

The *key* of a node is the expression that it is of the draws behind it, in which these are numbered as they are met:
primitives, statics, constants by their values, everything that no draw decides by its identity. Nodes of one key have
one table, over the draws of each in the same order.
"""

from collections.abc import Collection, Hashable, Mapping
from typing import Any

import numpy as np

from scg.core.node import Node

_COMPARED = 2**10  # bytes of an array that is compared by its values
_NODES = 200  # of an expression that is compared


def key_of(
    output: Node, draws: Mapping[int, Hashable], dependent: Collection[int], given: bool = False
) -> tuple[Hashable, list[Node]]:
    """The key of a node that depends on draws (by id, what each is: ``described``), and these, as they are numbered in
    the key; of a draw that of its distribution ``given`` those behind it. ``dependent`` are the ids of all nodes that
    depend on draws, draws among them."""
    opened = output if given else None
    found: dict[int, Node] = {}
    stack = [output]
    while stack:
        if len(found) > _NODES:  # no step of a loop, and of its own
            return ("id", output.id), []
        node = stack.pop()
        if node.id not in found:
            found[node.id] = node
            if node.id not in draws or node is opened:
                stack += [o for o in node.operands if type(o) is Node and o.id in dependent]
    number: dict[int, int] = {}
    parts: list[Hashable] = []
    slots: list[Node] = []
    for i in sorted(found):
        node = found[i]
        number[i] = len(number)
        if i in draws:
            slots += [node] if node is not opened else []
            parts.append(draws[i])
        if i not in draws or node is opened:
            operands = tuple(
                [number.get(o.id, ("node", o.id)) if type(o) is Node else frozen(o) for o in node.operands]
            )
            statics = () if i in draws else frozen(node.statics)
            parts.append((id(node.primitive), node.shape, operands, statics))
    return tuple(parts), slots


def frozen(x: Any) -> Hashable:
    """Something that is equal only for what computes the same; by identity where that is not known."""
    if isinstance(x, np.ndarray) and x.dtype != object:
        return (x.dtype.str, x.shape, x.tobytes() if x.nbytes <= _COMPARED else id(x))
    if isinstance(x, (float, complex, np.generic)):
        return (type(x), repr(x))
    if isinstance(x, (tuple, list)):
        return (type(x), *map(frozen, x))
    if isinstance(x, dict):
        return tuple([(name, frozen(value)) for name, value in sorted(x.items()) if name != "name"])
    if isinstance(x, slice):
        return ("slice", frozen(x.start), frozen(x.stop), frozen(x.step))
    if x is None or x is Ellipsis or isinstance(x, (bool, int, str, type, np.dtype)):
        return (type(x), x)
    return ("id", id(x))


def described(draw: Node) -> Hashable:
    """What a draw is beside the parameters of its distribution: those of equal descriptions have equal values."""
    distribution = draw.statics["site"].distribution
    own = {name: value for name, value in vars(distribution).items() if name not in distribution.parameters}
    return (draw.shape, draw.dtype.str, type(distribution), frozen(own), frozen(distribution.atoms()))
