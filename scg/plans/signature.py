"""What a call looks like from outside: its arrays, its generators, and a key of all that a plan depends on beside the
arrays' values."""

import dataclasses
from collections.abc import Hashable, Iterable, Mapping
from types import MethodType
from typing import Any

import numpy as np

from scg.core.aliases import Function, Keywords
from scg.core.node import Node
from scg.core.operands import described
from scg.core.tree import children
from scg.errors import PlanError, here


class Signature:
    """The leaves of the arguments, sorted: ``arrays``, ``generators``, and ``key``; ``nodes`` where a node is among
    them.

    Arrays and NumPy scalars are inputs, known to the key by shape and dtype. All else is part of the key: Python
    numbers, strings, None and functions by value, other objects by identity.
    """

    __slots__ = ("arrays", "generators", "key", "nodes", "kept")

    def __init__(self, args: tuple[object, ...], kwargs: Keywords):
        self.arrays: list[Any] = []  # and NumPy's scalars
        self.generators: list[np.random.Generator] = []
        self.kept: list[object] = []  # objects that are known by their identity, which must not be given to others
        self.nodes = False
        key = [self._of(arg) for arg in args]
        for name, arg in kwargs.items():  # in their order, which ``**kwargs`` shows
            key += (name, self._of(arg))
        self.key = len(args), tuple(key)

    def _of(self, x: object) -> Hashable:
        """The part of the key for one value; its arrays and generators are noted."""
        return (_BY_TYPE.get(type(x)) or _by_base(x))(self, x)

    def _array(self, x: np.ndarray) -> Hashable:
        if x.dtype.kind not in "fiucb":
            raise PlanError(f"a plan takes arrays of numbers, got dtype {x.dtype} ({here()})")
        self.arrays.append(x)
        return x.dtype, x.shape, x.flags.c_contiguous

    def _subclass(self, x: np.ndarray) -> Hashable:
        if isinstance(x, (np.ma.MaskedArray, np.matrix)):
            raise PlanError(
                f"a plan takes plain arrays, no masked ones and no np.matrix, got {type(x).__name__} {described((x,))}"
                f" ({here()})"
            )
        self.arrays.append(np.asarray(x))
        return type(x), x.dtype, x.shape, x.flags.c_contiguous

    def _scalar(self, x: np.generic) -> type:
        self.arrays.append(x)
        return type(x)

    def _generator(self, x: np.random.Generator) -> Hashable:
        for k, other in enumerate(self.generators):
            if other is x:
                return np.random.Generator, k
        self.generators.append(x)
        return np.random.Generator, len(self.generators) - 1

    def _node(self, x: Node) -> None:
        self.nodes = True

    def _dict(self, x: dict[object, object]) -> Hashable:
        return (type(x), *x, *map(self._of, x.values()))

    def _sequence(self, x: Iterable[object]) -> Hashable:
        return (type(x), *map(self._of, x))

    def _container(self, x: object) -> Hashable:
        return type(x), tuple([(name, self._of(child)) for name, child in children(x) or ()])

    def _number(self, x: object) -> Hashable:
        return type(x), repr(x)  # tells -0.0 from 0.0, and nan is itself

    def _value(self, x: object) -> Hashable:
        return type(x), x

    def _method(self, x: MethodType) -> Hashable:  # each look at obj.method makes another one
        self.kept.append(x.__self__)
        return type(x), id(x.__self__), x.__func__

    def _object(self, x: object) -> Hashable:
        self.kept.append(x)
        return type(x), id(x)


def _is_container(x: object) -> bool:
    if isinstance(x, type) or not (isinstance(x, (Mapping, tuple, list)) or dataclasses.is_dataclass(x)):
        return False
    return children(x) is not None


def _by_base(x: object) -> Function:
    """How a value of a type that is not listed is read."""
    if isinstance(x, tuple):
        return Signature._sequence
    if isinstance(x, np.random.Generator):
        return Signature._generator
    if isinstance(x, np.generic) and x.dtype.kind in "fiucb":
        return Signature._scalar
    if isinstance(x, np.ndarray):
        return Signature._subclass
    if _is_container(x):
        return Signature._container
    return Signature._value if isinstance(x, (int, str, bytes)) else Signature._object


_BY_TYPE: dict[type, Function] = {
    np.ndarray: Signature._array,
    np.random.Generator: Signature._generator,
    Node: Signature._node,
    dict: Signature._dict,
    list: Signature._sequence,
    tuple: Signature._sequence,
    float: Signature._number,
    complex: Signature._number,
    **dict.fromkeys((int, bool, str, bytes, type(None)), Signature._value),
    MethodType: Signature._method,
}


def is_leaf_array(x: object) -> bool:
    """Whether a leaf is an input of a plan."""
    return isinstance(x, np.ndarray) or isinstance(x, np.generic) and x.dtype.kind in "fiucb"
