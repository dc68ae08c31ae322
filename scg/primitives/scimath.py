"""``np.emath``: the functions that turn complex where their argument leaves the real domain.

Their dtype follows from a value, so each is an ``if`` on its argument: the graph records how it came out, and a replay
in which it comes out otherwise raises GuardError rather than changing the dtype of what was recorded.
"""

import numpy as np

from scg.core.axes import elementwise
from scg.core.primitive import implements, smooth_primitive
from scg.primitives.layout import as_array


def _complex_where(x, leaves):
    """x, as complex numbers where any element leaves the real domain."""
    if getattr(x, "dtype", None) is None:
        x = np.asarray(x)
    if x.dtype.kind == "c" or not np.any(leaves(x)):
        return x
    return x.astype(np.complex64 if x.dtype in _SINGLE else np.complex128)


# as NumPy has it: float16 becomes complex128
_SINGLE = tuple(map(np.dtype, (np.float32, np.int8, np.int16, np.uint8, np.uint16)))


def _unless_negative(x):
    return _complex_where(x, lambda x: x < 0)


def _unless_large(x):
    return _complex_where(x, lambda x: np.abs(x) > 1)


@implements(np.emath.sqrt)
def sqrt(x):
    return np.sqrt(_unless_negative(x))


@implements(np.emath.log)
def log(x):
    return np.log(_unless_negative(x))


@implements(np.emath.log2)
def log2(x):
    return np.log2(_unless_negative(x))


@implements(np.emath.log10)
def log10(x):
    return np.log10(_unless_negative(x))


@implements(np.emath.logn)
def logn(n, x):
    return np.log(_unless_negative(x)) / np.log(_unless_negative(n))


@implements(np.emath.power)
def power(x, p):
    p = as_array(p)
    p = p * 1.0 if p.dtype.kind in "iub" and np.any(p < 0) else p
    return np.power(_unless_negative(x), p)


# on the branch cut the derivative's side is that of the result: 1 - z forgets the sign of a zero imaginary part
_arccos = smooth_primitive(lambda z: np.arccos(z), elementwise, lambda g, out, z: -g / np.sin(out), name="arccos")
_arcsin = smooth_primitive(lambda z: np.arcsin(z), elementwise, lambda g, out, z: g / np.cos(out), name="arcsin")


@implements(np.emath.arccos)
def arccos(x):
    x = _unless_large(x)
    return _arccos(x) if x.dtype.kind == "c" else np.arccos(x)


@implements(np.emath.arcsin)
def arcsin(x):
    x = _unless_large(x)
    return _arcsin(x) if x.dtype.kind == "c" else np.arcsin(x)


@implements(np.emath.arctanh)
def arctanh(x):
    return np.arctanh(_unless_large(x))
