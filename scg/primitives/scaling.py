"""Roots of sums of powers, as norms and standard deviations, where the powers vanish or overflow: their values are
NumPy's, and their derivatives those of the numbers that are meant."""

import functools
import math

import numpy as np

from scg.core.ambient import settled
from scg.core.axes import elementwise
from scg.core.primitive import smooth_primitive
from scg.primitives.layout import stop_gradient

_in_place_of = smooth_primitive(
    lambda value, x: value, elementwise, None, lambda g, out, value, x: g, name="in_place_of"
)
"""``value``, a number that is rounded, with the derivative of ``x``, the number that is meant."""


def power_of_two(size):
    """One near a size; 1 where that is 0 or infinite."""
    return np.ldexp(np.ones((), size.dtype), np.frexp(np.where(np.isfinite(size) & (size > 0), size, 1))[1] - 1)


def rescaled(fn, x, out, size, power):
    """``out`` = fn(x), a root of a sum of powers; where these vanish or overflow, with the derivative of s fn(x / s),
    which is fn(x) for every s > 0.

    ``size(x)`` are the largest sizes among the elements, the axes kept; ``power`` is the largest of them, or of their
    inverses, that is computed on the way to a derivative. Of x = (3e-170, 4e-170), 9e-340 and 16e-340 are
    zero and so is the norm; s = 2^-563, and the derivative is (0.6, 0.8).
    """
    if settled(lambda out, x: _keeps_digits(out, x, size, power), out, x):
        return out
    scale = power_of_two(size(stop_gradient(x)))
    other = fn(x / scale)
    return _in_place_of(out, other * np.reshape(scale, other.shape))


def _keeps_digits(out, x, size, power):
    least = _least(out.dtype, power)
    if x.size == 0 or np.all((out > least) & (out < 1 / least)):
        return True
    top = size(x)
    out = np.reshape(out, top.shape)
    return not np.any((out <= least) & (top > 0) | (out >= 1 / least) & (top < math.inf))


@functools.cache
def _least(dtype, power):
    limits = np.finfo(dtype)
    return float(limits.tiny / limits.eps) ** (1 / power)
