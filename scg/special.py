"""Special functions that are no ufuncs, or that are faster than SciPy's, on arrays and Nodes alike.

float32 stays float32, and derivatives are of any order. Everything else of ``scipy.special`` that has a derivative
takes a Node itself: ``scipy.special.gammaln(node)``.
"""

import math
from typing import NoReturn

import numpy as np
import scipy.special as sp

from scg.core import axes
from scg.core.advice import INSTEAD
from scg.core.ambient import settled
from scg.core.node import Node
from scg.core.options import is_integer
from scg.core.primitive import smooth_primitive
from scg.errors import ScgIndexError, ScgTypeError, ScgValueError, here
from scg.primitives import special as _special
from scg.primitives.elementwise import sigmoid as _sigmoid
from scg.primitives.incomplete import vonmises_cdf as _vonmises_cdf
from scg.primitives.layout import as_array, stop_gradient
from scg.primitives.reduction import kept

__all__ = [
    "log1mexp",
    "log_sigmoid",
    "log_softmax",
    "logmeanexp",
    "logsumexp",
    "multigammaln",
    "polygamma",
    "sigmoid",
    "softmax",
    "softplus",
    "vonmises_cdf",
]


def softplus(x):
    """log(1 + exp(x)) = max(x, 0) + log1p(exp(-|x|)); its derivative, 1 - exp(-softplus(x)), is accurate in both
    tails."""
    return _special.softplus(_real(x))


def sigmoid(x):
    """1 / (1 + exp(-x)), to a few ulp in both tails (0 where exp(x) is subnormal); its derivative is s (1 - s)."""
    return _sigmoid(_real(x))


def log_sigmoid(x):
    """log(1 / (1 + exp(-x))) = -softplus(-x)."""
    return _special.log_sigmoid(_real(x))


def _real(x):
    """Integers and bools as floating-point numbers: the negative of an unsigned integer wraps, and a bool has none."""
    return x.astype(float) if getattr(getattr(x, "dtype", None), "kind", "f") in "bu" else x


def log1mexp(x):
    """log(1 - exp(x)) for x <= 0, without cancellation at either end (Maechler, 2012); -inf at 0, nan above."""
    return _special.log1mexp(x)


def polygamma(n, x):
    """The n-th derivative of digamma at x, n an integer >= 0 (``scipy.special.polygamma``, which takes no Node)."""
    if not is_integer(n, 0):
        raise ScgValueError(f"polygamma needs an integer n >= 0, got {n!r} ({here()})")
    return _special.polygamma(x, n=int(n)) if n else sp.digamma(x)


def multigammaln(a, d):
    """log of the d-variate gamma function: d (d-1) / 4 log(pi) + sum_{j=0}^{d-1} gammaln(a - j/2), for a > (d-1) / 2; d
    an int >= 1."""
    if not is_integer(d, 1):
        raise ScgValueError(f"multigammaln needs an integer d >= 1, got {d!r} ({here()})")
    a = _floating(a)
    if settled(lambda a: np.any(a <= 0.5 * (d - 1)), a):
        raise ScgValueError(f"multigammaln needs a > (d - 1) / 2 = {0.5 * (d - 1)} ({here()})")
    total = sp.gammaln(a) + d * (d - 1) / 4 * math.log(math.pi)
    for j in range(1, int(d)):
        total = total + sp.gammaln(a - 0.5 * j)
    return total


def vonmises_cdf(x, kappa):
    """P(T <= x) of the angle T in (-pi, pi] with density exp(kappa cos t) / (2 pi I0(kappa)); 1 more for each full turn
    of x.

    Differentiable in x to any order and in kappa once.
    """
    return _vonmises_cdf(x, kappa)


def logsumexp(a, axis=None, b=None, keepdims=False, return_sign=False):
    """log(sum(b * exp(a))) over ``axis`` (None, an int or a tuple), without overflow; ``scipy.special.logsumexp``,
    which takes no Node.

    With ``return_sign`` the pair (log|sum|, sign of the sum); without it nan where the sum is negative. -inf where the
    sum is zero or empty, and there the derivative is zero. +inf where an element is, and there the derivative is nan.
    Absolute error a few eps times max(1, |result|).
    """
    a = _floating(a)
    if b is None:
        gone = _axes(axis, a.ndim)
        out = logsumexp_p(a, axis=gone, keepdims=bool(keepdims))
        return (out, np.where(out == -math.inf, 0, np.ones((), out.dtype))) if return_sign else out
    b = as_array(b)
    gone = _axes(axis, max(a.ndim, b.ndim))
    with np.errstate(all="ignore"):
        top = np.max(stop_gradient(np.where(b == 0, -math.inf, a)), axis=gone, keepdims=True, initial=-math.inf)
        shifted = a - np.where(np.isfinite(top), top, 0)
        # an element of weight zero counts in the derivative by its weight, unless it would overflow
        shifted = np.where((b == 0) & ~(shifted < 80), -math.inf, shifted)
        total = np.sum(b * np.exp(shifted), axis=gone, keepdims=True)
        size, empty = np.absolute(total), np.equal(total, 0)  # the logarithm of nothing is -inf, and has no slope
        out = np.where(empty, -math.inf, np.log(np.where(empty, 1, size))) + np.where(np.isfinite(top), top, 0)
        if not return_sign:
            out = np.where(total < 0, math.nan, out)
    sign = np.sign(total)
    if not keepdims:
        out, sign = np.squeeze(out, gone), np.squeeze(sign, gone)
    return (out, sign) if return_sign else out


def logmeanexp(a, axis=None, keepdims=False):
    """log(mean(exp(a))) over ``axis`` (None, an int or a tuple), without overflow."""
    out = logsumexp(a, axis, keepdims=keepdims)
    count = np.size(a.raw if type(a) is Node else a) // max(out.size, 1)
    return out - math.log(count) if count else out + math.nan


def softmax(x, axis=None):
    """exp(x) / sum(exp(x)) over ``axis`` (None, an int or a tuple): non-negative, of sum 1, unchanged where a constant
    is added to x."""
    return _over_axes(_softmax, x, axis)


def log_softmax(x, axis=None):
    """x - logsumexp(x) over ``axis`` (None, an int or a tuple), kept where softmax(x) underflows."""
    return _over_axes(_log_softmax, x, axis)


def _shift(x, axis):
    """The greatest element over ``axis``, kept as an axis; 0 where it is infinite."""
    top = np.max(x, axis=axis, keepdims=True, initial=-math.inf)
    return np.where(np.isfinite(top), top, 0)


def _in_single(fn):
    """``fn`` of half-precision numbers in single precision, where sums do not soon exceed the largest half; the result
    is a half."""

    def value(x, **statics):
        return fn(x.astype(np.float32), **statics).astype(np.float16) if x.dtype == np.float16 else fn(x, **statics)

    return value


@_in_single
def _logsumexp_value(x, axis, keepdims):
    top = _shift(x, axis)
    with np.errstate(all="ignore"):
        out = np.log(np.sum(np.exp(x - top), axis=axis, keepdims=True)) + top
    return out if keepdims else np.squeeze(out, axis)[()]


def _logsumexp_vjp(g, out, x, axis, keepdims):
    """g softmax(x), by weights that are divided by their sum: of a large ``out`` the last digits are lost, e.g. log(2)
    in 1e5 of single precision, and exp(x - out) is all too large or too small by that."""
    out, g = stop_gradient(kept(out, x, axis, keepdims)), kept(g, x, axis, keepdims)
    weights = np.exp(x - np.where(out == -math.inf, 0, out))
    total = _total(weights, axis)
    return g / np.where(total > 0, total, 1) * weights  # of an infinite x it is NaN, and others weigh nothing


@_in_single
def _softmax_value(x, axis):
    with np.errstate(all="ignore"):
        e = np.exp(x - _infinite_shift(x, axis))
        return e / np.sum(e, axis=axis, keepdims=True)


@_in_single
def _log_softmax_value(x, axis):
    with np.errstate(all="ignore"):
        z = x - _shift(x, axis)
        return z - np.log(np.sum(np.exp(z), axis=axis, keepdims=True))


def _infinite_shift(x, axis):
    return np.max(x, axis=axis, keepdims=True, initial=-math.inf)


def _total(x, axis):
    """The sum along ``axis``, of halves in single precision."""
    return np.sum(x, axis=axis, keepdims=True, dtype=np.float32 if x.dtype == np.float16 else None)


logsumexp_p = smooth_primitive(_logsumexp_value, axes.reduction, _logsumexp_vjp, name="logsumexp")
_softmax = smooth_primitive(
    _softmax_value, axes.along, lambda g, out, x, axis: out * (g - _total(g * out, axis)), name="softmax"
)
_log_softmax = smooth_primitive(
    _log_softmax_value, axes.along, lambda g, out, x, axis: g - np.exp(out) * _total(g, axis), name="log_softmax"
)


def _over_axes(fn, x, axis):
    """``fn``, a function of one axis, over an axis, several, or all: several are made into one, in front."""
    x = _floating(x)
    gone = _axes(axis, x.ndim)
    if len(gone) == 1:
        return fn(x, axis=gone[0])
    front = np.moveaxis(x, gone, range(len(gone)))
    out = fn(np.reshape(front, (math.prod(front.shape[: len(gone)]), *front.shape[len(gone) :])), axis=0)
    return np.moveaxis(np.reshape(out, front.shape), range(len(gone)), gone)


def _floating(x):
    """``x`` as a Node or an array of real floats."""
    x = as_array(x)
    if x.dtype.kind not in "fiub":
        raise ScgTypeError(f"real numbers are needed, got dtype {x.dtype} ({here()})")
    return x if x.dtype.kind == "f" else x.astype(float)


def _axes(axis, ndim):
    """``axis`` (None, an int or a tuple) as a tuple of distinct non-negative ints."""
    try:
        return tuple(range(ndim)) if axis is None else np.lib.array_utils.normalize_axis_tuple(axis, ndim)
    except (np.exceptions.AxisError, ValueError) as error:
        raise ScgIndexError(f"axis {axis!r}: {error} ({here()})") from None
    except TypeError:
        raise ScgTypeError(f"axis must be None, an integer or a tuple of integers, got {axis!r} ({here()})") from None


INSTEAD.update(
    {
        f"scipy.special.{fn.__name__}": f"scg.special.{fn.__name__}({first}...)"
        for fn, first in (
            *((fn, "node, ") for fn in (softmax, log_softmax, logsumexp)),
            *((fn, "") for fn in (softplus, polygamma, multigammaln, sigmoid)),
        )
    }
)


def __getattr__(name: str) -> NoReturn:
    way = f": scipy.special.{name}(x) takes a Node itself" if isinstance(getattr(sp, name, None), np.ufunc) else ""
    raise AttributeError(f"module 'scg.special' has no attribute {name!r}{way}")
