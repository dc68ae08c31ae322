"""One door for what the methods of every distribution take: values, probabilities, a generator and a sample shape.

``Distribution`` puts these checks around ``sample``, ``log_prob``, ``masses``, ``cdf`` and ``icdf`` of every subclass,
also of one from outside.
"""

import functools
import math
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from scg.core.aliases import Function, Operand, Result
from scg.core.ambient import RECORDER, note_taken, settled
from scg.core.node import Node, Numeric, Value
from scg.core.operands import beside, described, plain
from scg.errors import ScgError, ScgTypeError, ScgValueError, here, kin

if TYPE_CHECKING:
    from scg.distributions.base import Distribution

Method = Function


def sample_shape(shape: Operand, who: object) -> tuple[int, ...]:
    """A sample shape as a tuple of integers; ScgTypeError or ScgValueError, about ``who``, where it is none."""
    if type(shape) is tuple and not shape:
        return shape
    try:
        if isinstance(shape, (str, bytes, bytearray, dict, set)):
            raise TypeError
        found = tuple([operator.index(n) for n in (shape if np.ndim(shape) else (shape,))])
    except (TypeError, ValueError) as error:
        if isinstance(error, ScgError):  # a node, which says what to write
            raise
        raise ScgTypeError(
            f"{who}: shape must be an integer or a tuple of integers, got {shape!r} ({here()})"
        ) from None
    if found and min(found) < 0:
        raise ScgValueError(f"{who}: shape must not be negative, got {shape!r} ({here()})")
    return found


def entered(name: str, method: Method) -> Method:
    """The method called ``name`` with its arguments checked, and with errors of Python's and NumPy's raised as
    scg's."""
    entry = functools.wraps(method)(_ENTRIES[name](method))
    entry.entered = True  # type: ignore[attr-defined]
    return entry


def _sample(method: Method) -> Method:
    def sample(self: "Distribution", rng: np.random.Generator | None = None, shape: object = ()) -> np.ndarray:
        if not isinstance(rng, np.random.Generator):
            got = "nothing" if rng is None else type(rng).__name__
            raise ScgTypeError(f"{self!r}.sample needs rng=np.random.default_rng(seed), got {got} ({here()})")
        shape = sample_shape(shape, self)
        note_taken(self)
        try:
            return method(self, rng, shape)
        except Exception as error:
            _raise(error, self, f"sample(rng, {shape})")
            raise

    return sample


def _of_a_value(name: str, after: Callable[[Method, "Distribution", Value], Value]) -> Callable[[Method], Method]:
    def declare(method: Method) -> Method:
        def of(self: "Distribution", value: Numeric) -> Numeric:
            x = _real(self, value, name)
            try:
                return after(method, self, x)
            except Exception as error:
                _raise(error, self, f"{name}({described((x,))})")
                raise

        return of

    return declare


def _log_prob(method: Method, self: "Distribution", value: Operand) -> Value:
    """In a function that is recorded for a plan, an array that others can write to is a leaf, and is read anew."""
    if (
        type(value) is np.ndarray
        and RECORDER.get() is not None
        and any([type(p) is Node for p in self.parameters.values()])
    ):
        value = beside(value)
    return method(self, value)


def _cdf(method: Method, self: "Distribution", value: Value) -> Value:
    """NaN of NaN."""
    found = method(self, value)
    return np.where(value != value, math.nan, found) if settled(_some_nan, value) else found


def _icdf(method: Method, self: "Distribution", p: Operand) -> Value:
    """NaN of what is no probability. Noise, a node of a plan, is one at every run."""
    if type(p) is Node and RECORDER.get() is not None or _probable(p.raw if type(p) is Node else p):
        return method(self, p)
    inside = (p >= 0) & (p <= 1)
    return np.where(inside, method(self, np.where(inside, p, 0.5)), math.nan)


def _some_nan(x: Value) -> bool:
    return bool(np.any(x != x))


def _probable(p: Value) -> bool:
    return not np.size(p) or bool(np.min(p) >= 0 and np.max(p) <= 1)


def _real(distribution: "Distribution", value: Operand, name: str) -> Result:
    """A value as a Node or an array of real floats: numbers and integers have the dtype of the distribution, where that
    holds them.

    A distribution of integers has values that stay integers.
    """
    given = value
    if type(value) is Node or type(value) is np.ndarray or isinstance(value, np.generic):
        kind = value.dtype.kind
        if kind == "f":
            return value
    elif isinstance(value, (bool, int, float)):
        try:
            wide = np.asarray(value)
            wide = wide if wide.dtype.kind in "fiub" else np.asarray(float(value))
        except OverflowError:
            wide = np.asarray(math.inf if value > 0 else -math.inf)
        dtype = (
            distribution.dtype
            if distribution.dtype.kind == "f"
            else wide.dtype
            if name in ("log_prob", "masses")
            else np.dtype(float)
        )
        with np.errstate(over="ignore"):
            near = wide.astype(dtype)
        return wide.astype(float) if dtype.kind == "f" and np.isinf(near) and not np.isinf(wide.astype(float)) else near
    else:
        value = plain(value, f"{distribution!r}.{name}")
        kind = value.dtype.kind
        if kind == "f":
            return value
    if kind not in "fiub":
        raise ScgTypeError(f"{distribution!r}.{name} needs real numbers, got {described((given,))} ({here()})")
    if distribution.dtype.kind == "f" or name not in ("log_prob", "masses"):
        return value.astype(
            np.result_type(value.dtype, distribution.dtype if distribution.dtype.kind == "f" else float)
        )
    return value


def _raise(error: Exception, distribution: "Distribution", call: str) -> None:
    """Raise an error of Python's or NumPy's as scg's, with the distribution, the call and the user's line."""
    kind = kin(error)
    if kind is not None and not isinstance(error, ScgError):
        raise kind(f"{distribution!r}.{call}: {error} ({here()})") from error


_ENTRIES: dict[str, Callable[[Method], Method]] = {
    "sample": _sample,
    "log_prob": _of_a_value("log_prob", _log_prob),
    "masses": _of_a_value("masses", lambda method, self, value: method(self, value)),
    "cdf": _of_a_value("cdf", _cdf),
    "icdf": _of_a_value("icdf", _icdf),
}
ENTRIES = tuple(_ENTRIES)
"""The methods that have a door."""
