"""Functions of numbers, arrays and nodes in which Python numbers do not widen float32."""

import math
from collections.abc import Callable
from typing import Protocol, overload

import numpy as np
import scipy.special as sp

from scg.core.aliases import Function, Operand, Result
from scg.core.node import Node, Numeric, Value, value_of
from scg.core.operands import require_plain


class OfNumbers(Protocol):
    """A function of numbers: a Python number where all of them are."""

    @overload
    def __call__(self, *x: float) -> float: ...
    @overload
    def __call__(self, x: Value, /, *others: Numeric) -> Value: ...
    @overload
    def __call__(self, x: Numeric, y: Value, /, *others: Numeric) -> Value: ...
    @overload
    def __call__(self, *x: Numeric) -> Numeric: ...


def weak(fn: Function) -> OfNumbers:
    """``fn`` in which Python numbers do not widen float32: alone they stay Python numbers, beside arrays they have
    these' dtype."""

    def of(*x: Operand) -> Result:
        strong = [v for v in x if type(v) is not float]
        if not strong:
            return float(fn(*x))
        if len(strong) < len(x):
            dtype = np.result_type(*[v.dtype for v in strong])
            x = tuple([np.asarray(v, dtype if dtype.kind == "f" else float) if type(v) is float else v for v in x])
        return fn(*x)

    return of


log, sqrt, exp, gammaln, betaln, digamma, xlogy, xlog1py = map(
    weak, (np.log, np.sqrt, np.exp, sp.gammaln, sp.betaln, sp.digamma, sp.xlogy, sp.xlog1py)
)
gammainc, gammaincc, gammaincinv, gammainccinv = map(weak, (sp.gammainc, sp.gammaincc, sp.gammaincinv, sp.gammainccinv))


def masked(outside: Value, density: Callable[[Value], Numeric], value: Numeric, inside: float) -> Value:
    """``density(value)``, and -inf where ``outside``, with gradient zero: there the density is evaluated ``inside``."""
    return np.where(outside, -math.inf, density(np.where(outside, inside, value)))


def doubles(*x: Operand) -> list[np.ndarray]:
    """The values of numbers, arrays and nodes in float64."""
    return [np.asarray(value_of(v), float) for v in x]


def real_array(value: Operand) -> Value:
    """A value as it is or as an array: Python numbers and lists become arrays."""
    if type(value) in (Node, np.ndarray) or isinstance(value, np.generic):
        return value
    require_plain(value, "a value of a distribution")
    return value if isinstance(value, np.ndarray) else np.asarray(value)
