"""What a plan is given: the leaves of a recorded function."""

import numpy as np

from scg.core.aliases import Function, Keywords, Operand, Operands
from scg.core.primitive import primitive

INPUT = primitive(lambda: None, name="input")
"""A leaf: an array that the function is called with."""

HELD = primitive(lambda: None, name="held")
"""A leaf: an array that the function holds and others can write to; a plan reads it anew each time."""


def is_given(x: Operand) -> bool:
    """Whether a node, or an operation, is an array of the caller's, or one that the function holds."""
    return x.primitive is INPUT or x.primitive is HELD


def is_input(x: Operand) -> bool:
    """Whether it is an array that the function is called with."""
    return x.primitive is INPUT


def is_held(x: Operand) -> bool:
    """Whether it is an array that the function holds."""
    return x.primitive is HELD


def _numbers_anew(name: str, args: Operands, kwargs: Keywords, rng: Function) -> Function:
    method = name.partition(".")[2]

    def call(out: np.ndarray) -> None:
        out[...] = getattr(rng(), method)(*args, **kwargs)

    return call


numbers = primitive(lambda value, **call: value, name="numbers", random=True, into=_numbers_anew)
"""A leaf: what a method of a generator returned to the function itself."""


def is_leaf(x: Operand) -> bool:
    """Whether it is any of the leaves."""
    return is_given(x) or x.primitive is numbers
