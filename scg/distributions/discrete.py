"""What laws on whole numbers share: one of two parameters, and what a log-probability is outside the support."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from scg.distributions.base import weak
from scg.errors import ScgTypeError, here
from scg.graph import Node


def one_of_two(law: Any) -> None:
    """Raise ScgTypeError unless exactly one of ``probs`` and ``logits`` is given."""
    if (law.probs is None) == (law.logits is None):
        raise ScgTypeError(f"{type(law).__name__} takes probs or logits, one of the two ({here()})")


def raw(value: Any) -> Any:
    """The number or array that is, or is held by, ``value``."""
    return value._value if type(value) is Node else value


def numbers(value: Any, dtype: np.dtype[Any]) -> Any:
    """``value`` as a Node or array of floats: those that it has, else of ``dtype``."""
    kind = getattr(value, "dtype", None)
    if kind is not None and kind.kind == "f":
        return value
    return np.astype(value, dtype) if type(value) is Node else np.asarray(value, dtype)


def outside(value: Any, low: Any, high: Any = None) -> Any:
    """Where ``value`` is no whole number from ``low`` to ``high`` (None: without end). A NaN is not outside: it stays NaN."""
    above = value == math.inf if high is None else value > high
    return (value < low) | above | (np.floor(value) < value)


def supported(inside: Callable[[Any], Any], value: Any, low: Any, high: Any = None) -> Any:
    """``inside(value)`` on the support, -inf with gradient zero outside.

    The choice enters the graph only where a recorded value is outside: a replay at fractional values (a relaxation) continues the formula.
    """
    if not np.any(outside(raw(value), raw(low), raw(high))):
        return inside(value)
    bad = outside(value, low, high)
    return np.where(bad, -math.inf, inside(np.where(bad, low, value)))


@weak
def times(p: Any, x: Any) -> Any:
    """p * x, and 0 where p is 0 whatever x is: a term of an expectation."""
    with np.errstate(invalid="ignore"):
        return np.where(p == 0, 0, p * x)


@weak
def log(p: Any) -> Any:
    """log p, -inf at 0 without a warning."""
    with np.errstate(divide="ignore"):
        return np.log(p)
