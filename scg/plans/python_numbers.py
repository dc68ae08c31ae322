"""Numbers of Python's own that a generator returned while a function is recorded: what stands in their place, and shows
NumPy the same."""

import sys
from typing import Any

import numpy as np

from scg.core.aliases import Function, Operand, Result
from scg.core.node import Node


class _Number:
    """A Python number that a generator returned: NumPy gives what it makes with an array the dtype of the array, and
    Python's operators make others of it."""

    shape, ndim, size, nbytes, itemsize = (), 0, 1, 8, 8
    dtype: np.dtype
    python: Function

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: object, **kwargs: object) -> Result:
        given = [x.python(x) if isinstance(x, _Number) else x for x in inputs]
        result = getattr(ufunc, method)(*given, **kwargs)
        caller: Any = sys._getframe(1)
        if caller.f_code.co_name == "apply":
            caller = caller.f_back
        operator = caller.f_code.co_name in _OPERATORS and all([type(x) in (float, int, bool) for x in given])
        return python_number(result) if operator else result


class _Float(_Number, float):
    dtype, python = np.dtype(float), float


class _Int(_Number, int):
    dtype, python = np.dtype(int), int


_OPERATORS = ("forward", "reflected", "__pow__", "__rpow__")


def python_number(x: Operand) -> Operand:
    """A number in the place of Python's own, of a float or an integer."""
    kind = np.asarray(x).dtype.kind
    return _Float(x) if kind == "f" else _Int(x) if kind in "iu" else x


def is_python_number(node: object) -> bool:
    """Whether a node stands for a number of Python."""
    return type(node) is Node and isinstance(node.raw, _Number)
