"""What a call looks like from outside: its arrays, its generators, and a key of all that a plan depends on beside the
arrays' values."""

import dataclasses
from collections.abc import Mapping
from types import MethodType
from typing import Any

import numpy as np

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

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]):
        self.arrays: list[Any] = []
        self.generators: list[np.random.Generator] = []
        self.kept: list[Any] = []  # objects that are known by their identity, which must not be given to others
        self.nodes = False
        key = [self._of(arg) for arg in args]
        for name in sorted(kwargs) if len(kwargs) > 1 else kwargs:
            key += (name, self._of(kwargs[name]))
        self.key = len(args), tuple(key)

    def _of(self, x: Any) -> Any:
        kind = type(x)
        if kind is np.ndarray:
            if x.dtype.kind not in "fiucb":
                raise PlanError(f"a plan takes arrays of numbers, got dtype {x.dtype} ({here()})")
            self.arrays.append(x)
            return x.dtype, x.shape, x.flags.c_contiguous
        if kind is dict:
            return (kind, *x, *map(self._of, x.values()))
        if kind is list or issubclass(kind, tuple):
            return (kind, *map(self._of, x))
        if isinstance(x, np.random.Generator):
            for k, other in enumerate(self.generators):
                if other is x:
                    return np.random.Generator, k
            self.generators.append(x)
            return np.random.Generator, len(self.generators) - 1
        if kind is Node:
            self.nodes = True
            return None
        if isinstance(x, np.generic) and x.dtype.kind in "fiucb":
            self.arrays.append(x)
            return kind
        if isinstance(x, np.ndarray):
            if isinstance(x, (np.ma.MaskedArray, np.matrix)):
                raise PlanError(
                    f"a plan takes plain arrays, no masked ones and no np.matrix, got {kind.__name__} {described((x,))}"
                    f" ({here()})"
                )
            self.arrays.append(np.asarray(x))
            return kind, x.dtype, x.shape, x.flags.c_contiguous
        if kind is float or kind is complex:
            return kind, repr(x)  # tells -0.0 from 0.0, and nan is itself
        inner = children(x) if isinstance(x, (Mapping, tuple, list)) or dataclasses.is_dataclass(x) else None
        if x is not None and inner is not None and not isinstance(x, type):
            return kind, tuple([(name, self._of(child)) for name, child in inner])
        if isinstance(x, (int, str, bytes, type(None))):
            return kind, x
        if isinstance(x, MethodType):  # each look at obj.method makes another one
            self.kept.append(x.__self__)
            return kind, id(x.__self__), x.__func__
        self.kept.append(x)
        return kind, id(x)


def is_leaf_array(x: Any) -> bool:
    """Whether a leaf is an input of a plan."""
    return isinstance(x, np.ndarray) or isinstance(x, np.generic) and x.dtype.kind in "fiucb"
