"""What a plan looks at while it runs: choices that must come out as they did, and results that must be finite."""

import math
from collections.abc import Callable

import numpy as np

from scg.core.aliases import Function, Operand
from scg.core.primitive import primitive
from scg.distributions.constraints import finite
from scg.errors import NonFiniteError

BOUND = 1e30
"""What sums of squares stay below: in single precision products of such arrays are finite then, and sums of up to 10^46
elements."""


class Otherwise(Exception):
    """A choice came out otherwise than in the recorded run."""


class Raised(Exception):
    """Something that is called as it is, or that draws, has raised an error for these values: the plain call tells
    which, in its own words."""


def is_there(*values: object) -> bool:
    """A test that values were computed."""
    return True


def is_bounded(squares: Operand) -> bool:
    """Whether sums of squares are so small that what they stand for, and products and sums of it, are finite. False at
    a NaN."""
    return bool((squares.item() if squares.size == 1 else np.add.reduce(squares, axis=None)) < BOUND)


def is_finite(x: Operand) -> bool:
    """Whether all of x is finite. A sum of squares that is not may have overflowed."""
    if x.dtype.kind == "f" and math.isfinite(_square(x)):
        return True
    return bool(np.isfinite(x).all())


def _square(x: np.ndarray) -> float:
    """The sum of squares, in one pass of BLAS; infinite where that is not to be had. Row by row: a long product would
    wake BLAS's other threads."""
    if not x.flags.c_contiguous:
        x = x.T
        if not x.flags.c_contiguous:
            return math.inf
    if x.size > 8192 and x.ndim > 1 and 32 <= x.shape[-1] <= 8192:
        return float(np.add.reduce(np.vecdot(x, x), axis=None))
    flat = x.reshape(-1)
    return float(np.dot(flat, flat))


def _choice(*operands: Operand, test: Function, outcome: bool, line: str) -> Callable[..., None]:
    """The call that raises Otherwise unless ``test`` comes out as ``outcome``."""
    if test == finite.holds and outcome and operands[0].dtype.kind == "f":
        test = is_finite

    def check(*values: object) -> None:
        try:
            found = bool(test(*values[:-1]))
        except Exception as error:
            raise Raised from error
        if found is not outcome:
            raise Otherwise

    return check


def _finite(*operands: object, norms: int) -> Callable[..., None]:
    """The call that raises NonFiniteError where an operand is not finite."""

    def check(*values: object) -> None:
        if norms and all([is_bounded(squares) for squares in values[:norms]]):
            return
        if not all([is_finite(x) for x in values[norms:-1]]):
            raise NonFiniteError("a result of the plan is not finite")

    return check


CHOICE = primitive(lambda *values, test, outcome, line: None, name="choice", into=_choice)
"""A test of values that must come out as it did when the function was recorded."""

FINITE = primitive(lambda *values, norms: None, name="finite", into=_finite)
"""A test that operands are finite; the first ``norms`` of them are sums of squares, where the others are if these are
small."""


def is_check(op: Operand) -> bool:
    """Whether an operation makes nothing, and may end the call."""
    return op.primitive is CHOICE or op.primitive is FINITE
