"""Names for what Python's types cannot say more of."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Function = Callable[..., Any]
"""A function that others pass: of a user, of NumPy, a VJP. What it takes and returns is theirs to know."""

Operand = Any
"""What a primitive is computed of: a node, an array, a number, or whatever one from outside takes."""

Operands = tuple[Operand, ...]

Given = Any
"""A parameter of a distribution: a node, an array or a number; None where another one stands for it."""

Statics = dict[str, Any]
"""What a primitive is called with beside its operands: an axis, a shape, a distribution."""

Keywords = Mapping[str, Any]
"""Arguments by name, handed on to a ``Function``."""

State = dict[str, Any]
"""What an object that learns depends on, as ``scg.checkpoint`` takes it: arrays, numbers, and dicts of them."""

Result = Any
"""A node or an array; of a primitive with several results a tuple of them, in which None stands for what is not there.
Cotangents and supports have the same form."""

Numbers = np.ndarray | float
"""An array, or one number for all of its elements."""

Shape = tuple[int, ...]

Tree = Any
"""Nested dicts, lists, tuples, named tuples and dataclasses of leaves (``scg.core.tree``), or a leaf."""

Foreign = Any
"""An object of another library, which need not be installed: a tensor, a key, a module."""
