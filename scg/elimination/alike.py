"""Nodes that compute the same from other draws: the steps of a loop, which are analysed and tabulated once.

The *form* of a node is the expression that it is of the draws behind it, in which these are numbered as they are met:
primitives, statics, integers by their values, and of each number that no draw decides the shape and the dtype. Nodes of
one form are tabulated by one replay, with their numbers along its axis of rows; those that also have equal numbers have
one table.
"""

import math
from collections.abc import Collection, Hashable, Mapping
from typing import NamedTuple

import numpy as np

from scg.core.aliases import Operand, Result
from scg.core.node import Node, Value, record
from scg.elimination.finite import Lattice

_COMPARED = 2**10  # bytes of an array that is compared by its values
_NODES = 200  # of an expression that is compared


class Form(NamedTuple):
    """``key``: equal for nodes of one form; ``draws`` as they are numbered in it, None where the expression is too long
    to be compared; ``numbers`` (arrays, scalars, nodes) in the order in which they stand there."""

    key: Hashable
    draws: list[Node] | None
    numbers: list[Value]

    @property
    def alike(self) -> Hashable:
        """Equal for nodes of one form with equal numbers."""
        return self.key, tuple([("node", x.id) if type(x) is Node else frozen(x) for x in self.numbers])


def form_of(output: Node, draws: Mapping[int, Hashable], dependent: Collection[int], given: bool = False) -> Form:
    """The form of a node that depends on draws (by id, what each is: ``described``); of a draw that of its distribution
    ``given`` those behind it. ``dependent`` are the ids of all nodes that depend on draws, draws among them."""
    opened = output if given else None
    nodes = expression(output, draws, dependent, given, _NODES)
    if nodes is None:  # no step of a loop, and of its own
        return Form(("id", output.id), None, [])
    number: dict[int, int] = {}
    parts: list[Hashable] = []
    slots: list[Node] = []
    numbers: list[Value] = []
    for node in nodes:
        i = node.id
        number[i] = len(number)
        if i in draws:
            slots += [node] if node is not opened else []
            parts.append(draws[i])
        if i not in draws or node is opened:
            operands: list[Hashable] = []
            for o in node.operands:
                if is_number(o, dependent):
                    numbers.append(o)
                    operands.append(("number", o.shape, o.dtype.str))
                else:
                    operands.append(number.get(o.id, ("node", o.id)) if type(o) is Node else frozen(o))
            statics = () if i in draws else frozen(node.statics)
            parts.append((id(node.primitive), _shapes(node.raw), tuple(operands), statics))
    return Form(tuple(parts), slots, numbers)


def expression(
    output: Node, draws: Collection[int], dependent: Collection[int], given: bool = False, most: float = math.inf
) -> list[Node] | None:
    """The nodes between the draws behind a node and the node itself, both with them, by rising id; None where they are
    more than ``most``."""
    found: dict[int, Node] = {}
    stack = [output]
    while stack:
        if len(found) > most:
            return None
        node = stack.pop()
        if node.id not in found:
            found[node.id] = node
            if node.id not in draws or given and node is output:
                stack += [o for o in node.operands if type(o) is Node and o.id in dependent]
    return [found[i] for i in sorted(found)]


def is_number(operand: Operand, dependent: Collection[int]) -> bool:
    """Whether an operand is a real number, or an array of them, that no draw decides."""
    if type(operand) is Node:
        return operand.id not in dependent and type(operand.raw) is not tuple and operand.dtype.kind == "f"
    return isinstance(operand, (np.ndarray, np.floating)) and operand.dtype.kind == "f"


def with_numbers(
    output: Node, draws: Collection[int], dependent: Collection[int], given: bool, new: Mapping[int, Node]
) -> dict[int, Node]:
    """The nodes of an expression, by id, with other nodes in the place of some of its numbers, by their position."""
    count, made = 0, dict[int, Node]()
    for node in expression(output, draws, dependent, given) or ():
        made[node.id] = node
        if node.id in draws and not (given and node is output):
            continue
        operands = []
        for o in node.operands:
            if is_number(o, dependent):
                operands.append(new.get(count, o))
                count += 1
            else:
                operands.append(made.get(o.id, o) if type(o) is Node else o)
        if node.id not in draws and any([a is not b for a, b in zip(operands, node.operands, strict=True)]):
            made[node.id] = record(node.primitive, tuple(operands), node.statics, node.raw)
    return made


def _shapes(value: Result) -> Hashable:
    return tuple([part.shape for part in value]) if type(value) is tuple else value.shape


def frozen(x: Operand) -> Hashable:
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


def described(draw: Node, lattice: Lattice | None = None) -> Hashable:
    """What a draw is beside the parameters of its distribution: those of equal descriptions have equal values."""
    distribution = draw.statics["site"].distribution
    own = {name: value for name, value in vars(distribution).items() if name not in distribution.parameters}
    values = frozen(distribution.atoms()) if lattice is None else tuple([part.tobytes() for part in lattice])
    return (draw.shape, draw.dtype.str, type(distribution), frozen(own), values)
