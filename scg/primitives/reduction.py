"""Sums, products, extrema, means and variances, and the ufunc method ``reduce``.

Six primitives (sum, product, the four extrema) carry the derivatives; the rest is composed of them. At a tie all
elements that reach an extremum take equal shares. Products differentiate by products of the other elements, never by
division, so that their derivatives of every order hold at zeros. Cumulative forms stand in ``cumulative``.
"""

import math
import operator
from collections.abc import Callable

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from scg.core import axes
from scg.core.ambient import settled
from scg.core.axes import elementwise
from scg.core.detaching import refuse
from scg.core.node import Node
from scg.core.primitive import implements, primitive, smooth_primitive
from scg.errors import NotDifferentiable, ScgTypeError, ScgValueError, here
from scg.primitives.layout import as_array, at, stop_gradient
from scg.primitives.scaling import power_of_two, rescaled


def kept(g, x, axis, keepdims):
    """The cotangent of a reduction with its reduced axes put back as axes of length one."""
    if keepdims or axis is None or x.ndim == 0:
        return g
    gone = {a % x.ndim for a in axis}
    return np.reshape(g, tuple([1 if i in gone else n for i, n in enumerate(x.shape)]))


def no_buffer(out):
    """Refuse a buffer to write the result into."""
    if out is not None:
        raise NotDifferentiable(f"a Node cannot be written into out=: use what the function returns ({here()})")


def axis_tuple(axis, ndim):
    """None for all axes, or a tuple. A scalar may be reduced along 0 or -1, as ufuncs allow."""
    if axis is None:
        return None
    axis = tuple(map(operator.index, axis)) if isinstance(axis, (tuple, list)) else (operator.index(axis),)
    return () if ndim == 0 and axis in ((0,), (-1,)) else axis


def _product_of_others(x, axis):
    """For each element the product of all others along ``axis``: along each axis in turn those before it times those
    after it."""
    product = 1
    for i in range(x.ndim) if axis is None else axis:
        i %= x.ndim
        after = np.flip(_before(np.flip(x, i), i), i)
        product = product * (_before(x, i) * after)
        x = np.prod(x, axis=i, keepdims=True)
    return product


def _before(x, axis):
    return shifted(np.cumprod(x, axis=axis), axis, 1)


def shifted(x, axis, first):
    """(first, x_0, ..., x_{n-2}) along a non-negative axis."""
    start = np.full((*x.shape[:axis], 1, *x.shape[axis + 1 :]), first, x.dtype)
    return np.concatenate([start, x[at(axis, slice(0, -1))]], axis=axis) if x.shape[axis] else x


def _equal_shares(g, out, x, axis, keepdims):
    reached = x == kept(out, x, axis, keepdims)
    # a half counts to 2048
    count = np.sum(reached, axis=axis, dtype=np.float32 if g.dtype == np.float16 else g.dtype, keepdims=True)
    d = np.where(reached, kept(g, x, axis, keepdims) / count, 0)
    return share_of_several(d, reached, count) if type(d) is Node else d  # arrays are not differentiated again


share_of_several = smooth_primitive(
    lambda d, reached, count: d,
    elementwise,
    lambda g, out, d, reached, count: g,
    None,
    None,
    name="share_of_several",
    same=True,
    view=True,
    shares=lambda d, reached, count: reached & (count > 1),
)
"""A cotangent ``d`` of elements that an extremum is taken of, of which those that reach it take equal parts."""


def _fold(reduce):
    """How a plan calls a ufunc's ``reduce``; its third argument is the dtype."""
    return lambda x, axis, keepdims: lambda x, out: reduce(x, axis, None, out, keepdims)


sum_p = primitive(
    np.add.reduce,
    axes.reduction,
    lambda g, out, x, axis, keepdims: kept(g, x, axis, keepdims),
    name="sum",
    linear="together",
    sign=lambda signs, x: signs[0],
    into=_fold(np.add.reduce),
)
prod_p = smooth_primitive(
    np.multiply.reduce,
    axes.reduction,
    lambda g, out, x, axis, keepdims: kept(g, x, axis, keepdims) * _product_of_others(x, axis),
    name="prod",
    sign=lambda signs, x: signs[0],
    into=_fold(np.multiply.reduce),
)


def _position(positions):
    """At which element, numbered along the reduced axes, an extremum is taken: an axis of points in front."""

    def place(x, axis=None, keepdims=False):
        ndim = x.ndim - 1
        gone = [a % ndim + 1 for a in (range(ndim) if axis is None else np.atleast_1d(axis))]
        rest = [a for a in range(ndim + 1) if a not in gone]
        moved = np.transpose(x, (*rest, *gone))
        found = positions(moved.reshape(*moved.shape[: len(rest)], -1), axis=-1)
        return np.expand_dims(found, gone) if keepdims else found

    return place


max_p, min_p, fmax_p, fmin_p = [
    primitive(
        *(ufunc.reduce, axes.reduction, _equal_shares),
        name=name,
        kinks=_position(positions),
        sign=lambda signs, x: signs[0],
        into=_fold(ufunc.reduce),
    )
    for ufunc, name, positions in (
        (np.maximum, "max", np.argmax),
        (np.minimum, "min", np.argmin),
        (np.fmax, "nanmax", lambda x, axis: np.argmax(np.where(np.isnan(x), -np.inf, x), axis)),
        (np.fmin, "nanmin", lambda x, axis: np.argmin(np.where(np.isnan(x), np.inf, x), axis)),
    )
]
_all, _any, _xor, _bit_and, _bit_or, _bit_xor, _gcd, _lcm = [
    primitive(ufunc.reduce, axes.reduction, name=f"{ufunc.__name__}.reduce")
    for ufunc in (
        np.logical_and,
        np.logical_or,
        np.logical_xor,
        np.bitwise_and,
        np.bitwise_or,
        np.bitwise_xor,
        np.gcd,
        np.lcm,
    )
]


def fold(base, combine, neutral, a, axis, dtype, out, keepdims, initial, where):
    """A reduction in all its keyword forms; ``neutral`` stands where the mask leaves an element out (None: ``initial``
    must be given)."""
    no_buffer(out)
    if where is not True:
        if neutral is None and initial is None:
            raise ScgValueError(f"{base.name} has no identity, so that where= needs initial= as well ({here()})")
        a = np.where(np.broadcast_to(where, np.shape(a)), a, initial if neutral is None else neutral)
    if dtype is not None:
        a = a.astype(dtype)
    if neutral is None and initial is not None and a.size == 0:  # an extremum of nothing is ``initial``
        base, combine = sum_p, np.add
    result = base(a, axis=axis_tuple(axis, a.ndim), keepdims=bool(keepdims))
    return result if initial is None else combine(result, initial)


@implements(np.sum)
def sum(a, axis=None, dtype=None, out=None, keepdims=False, initial=None, where=True):
    return fold(sum_p, np.add, 0, a, axis, dtype, out, keepdims, initial, where)


@implements(np.prod)
def prod(a, axis=None, dtype=None, out=None, keepdims=False, initial=None, where=True):
    return fold(prod_p, np.multiply, 1, a, axis, dtype, out, keepdims, initial, where)


@implements(np.max, np.amax)
def max(a, axis=None, out=None, keepdims=False, initial=None, where=True):
    return fold(max_p, np.maximum, None, a, axis, None, out, keepdims, initial, where)


@implements(np.min, np.amin)
def min(a, axis=None, out=None, keepdims=False, initial=None, where=True):
    return fold(min_p, np.minimum, None, a, axis, None, out, keepdims, initial, where)


@implements(np.all)
def all(a, axis=None, out=None, keepdims=False, *, where=True):
    return fold(_all, None, True, a, axis, None, out, keepdims, None, where)


@implements(np.any)
def any(a, axis=None, out=None, keepdims=False, *, where=True):
    return fold(_any, None, False, a, axis, None, out, keepdims, None, where)


@implements(np.count_nonzero)
def count_nonzero(a, axis=None, *, keepdims=False):
    return np.sum(np.not_equal(a, 0), axis=axis, dtype=np.intp, keepdims=keepdims)


@implements(np.ptp)
def ptp(a, axis=None, out=None, keepdims=False):
    return np.subtract(max(a, axis, out, keepdims), min(a, axis, None, keepdims))


def _log_sum_exp(base2):
    exp, log = (np.exp2, np.log2) if base2 else (np.exp, np.log)

    def reduce(a, axis, keepdims):
        """log sum exp(a), shifted by the largest element (by 0 where that is infinite)."""
        if a.size == 0:
            return np.sum(a, axis=axis, keepdims=keepdims) - math.inf
        top = np.max(stop_gradient(a), axis=axis, keepdims=True)
        top = np.where(np.isfinite(top), top, 0)
        with np.errstate(divide="ignore"):  # log 0 where all are -inf
            total = log(np.sum(exp(a - top), axis=axis, keepdims=keepdims))
        return total + (top if keepdims else np.reshape(top, total.shape))

    return reduce


def _norm(a, axis, keepdims):
    """sqrt(sum a^2), of numbers divided by a power of two near the largest: squares of large ones overflow, and of
    small ones vanish."""
    if a.size == 0 or a.dtype.kind != "f":
        return np.sqrt(np.sum(np.square(a), axis=axis, keepdims=keepdims))
    scale = power_of_two(np.max(np.abs(stop_gradient(a)), axis=axis, keepdims=True))
    total = np.sqrt(np.sum(np.square(a / scale), axis=axis, keepdims=keepdims))
    return total * (scale if keepdims else np.reshape(scale, total.shape))


def _reduce(ufunc, base, neutral):
    @implements((ufunc, "reduce"))
    def reduce(array, axis=0, dtype=None, keepdims=False, initial=None, where=True):
        return fold(base, ufunc, neutral, array, axis, dtype, None, keepdims, initial, where)


_FOLDS: list[tuple[np.ufunc, Callable[..., object], float | None]] = [
    (np.add, sum_p, 0),
    (np.multiply, prod_p, 1),
    (np.hypot, _norm, 0),
]
_FOLDS += [(np.logaddexp, _log_sum_exp(False), -math.inf), (np.logaddexp2, _log_sum_exp(True), -math.inf)]
_FOLDS += [(np.maximum, max_p, None), (np.minimum, min_p, None), (np.fmax, fmax_p, None), (np.fmin, fmin_p, None)]
_FOLDS += [
    (np.logical_and, _all, True),
    (np.logical_or, _any, False),
    (np.logical_xor, _xor, False),
    (np.gcd, _gcd, 0),
    (np.lcm, _lcm, 1),
]
_FOLDS += [(np.bitwise_and, _bit_and, -1), (np.bitwise_or, _bit_or, 0), (np.bitwise_xor, _bit_xor, 0)]
for _ufunc, _base, _neutral in _FOLDS:
    _reduce(_ufunc, _base, _neutral)


@implements(np.mean)
def mean(a, axis=None, dtype=None, out=None, keepdims=False, *, where=True):
    no_buffer(out)
    a = as_array(a)
    if dtype is None and a.dtype == np.float16:  # sums of halves soon exceed the largest half
        return mean(a, axis, np.float32, None, keepdims, where=where).astype(np.float16)
    total = sum(a, axis, dtype, None, keepdims, None, where)
    return total / _count(a, axis, keepdims, where, total.dtype)


def _count(a, axis, keepdims, where, dtype):
    """How many elements a reduction takes: an int, or with a mask an array."""
    if where is not True:
        return np.sum(
            np.broadcast_to(where, a.shape), axis=axis, dtype=dtype if dtype.kind in "fc" else float, keepdims=keepdims
        )
    return a.size if axis is None else math.prod([a.shape[i] for i in normalize_axis_tuple(axis, a.ndim)])


@implements(np.var)
def var(a, axis=None, dtype=None, out=None, ddof=0, keepdims=False, *, where=True, mean=None, correction=None):
    """sum |a - mean|^2 / max(n - ddof, 0)."""
    no_buffer(out)
    a, ddof = as_array(a), ddof_of(ddof, correction)
    if dtype is None and a.dtype == np.float16:
        return var(a, axis, np.float32, None, ddof, keepdims, where=where, mean=mean).astype(np.float16)
    deviation = a - (np.mean(a, axis=axis, dtype=dtype, keepdims=True, where=where) if mean is None else mean)
    total = sum(_squared(deviation), axis, dtype, None, keepdims, None, where)
    freedom = _count(a, axis, keepdims, where, total.dtype) - ddof
    return total / (np.maximum(freedom, 0) if where is not True else freedom if freedom > 0 else 0)


def ddof_of(ddof, correction):
    if correction is None:
        return ddof
    if ddof != 0:
        raise ScgValueError(f"ddof and correction are two names of one number: give one of them ({here()})")
    return correction


def _squared(x):
    return np.real(x * np.conjugate(x)) if x.dtype.kind == "c" else np.square(x)


@implements(np.std)
def std(a, axis=None, dtype=None, out=None, ddof=0, keepdims=False, *, where=True, mean=None, correction=None):
    variance = var(a, axis, dtype, out, ddof, keepdims, where=where, mean=mean, correction=correction)
    a, plain = as_array(a), where is True and mean is None
    if plain and _count(a, axis, keepdims, where, variance.dtype) == 1:
        return variance  # 0 (or NaN) whatever the element: no root that could be steep
    root = np.sqrt(variance)
    if not plain or a.dtype.kind not in "fc" or a.dtype != np.result_type(a, root):
        return root

    def again(a):
        return np.sqrt(var(a, axis, dtype, None, ddof, keepdims, correction=correction))

    def size(a):
        return np.max(np.abs(a - np.mean(a, axis=axis, keepdims=True)), axis=axis, keepdims=True)

    return rescaled(again, a, root, size, 3)


@implements(np.average)
def average(a, axis=None, weights=None, returned=False, *, keepdims=False):
    """sum w a / sum w, differentiable in both."""
    a = as_array(a)
    if weights is None:
        result = np.mean(a, axis=axis, keepdims=keepdims)
        total = np.asarray(_count(a, axis, keepdims, True, result.dtype), result.dtype)
    else:
        weights = aligned_weights(as_array(weights), a, axis)
        dtype = np.result_type(a.dtype, weights.dtype, *[] if a.dtype.kind in "fc" else [float])
        total = np.sum(weights, axis=axis, dtype=dtype, keepdims=keepdims)
        if settled(lambda total: np.any(total == 0), total):
            raise ScgValueError(f"average: the weights sum to zero ({here()})")
        result = np.sum(a * weights, axis=axis, keepdims=keepdims) / total
    return (result, np.broadcast_to(total, result.shape)) if returned else result


def aligned_weights(weights, a, axis):
    """Weights of all elements, or of the axes averaged over (in the order of ``axis``) shaped so that they
    broadcast."""
    if weights.shape == a.shape:
        return weights
    if axis is None:
        raise ScgTypeError(f"weights of shape {weights.shape} for {a.shape} need an axis ({here()})")
    along = [i % a.ndim for i in axis_tuple(axis, a.ndim)]
    if weights.shape != tuple([a.shape[i] for i in along]):
        raise ScgValueError(f"weights of shape {weights.shape} do not fit {a.shape} along axis {axis} ({here()})")
    ordered = np.transpose(weights, np.argsort(along))
    return np.reshape(ordered, [n if i in along else 1 for i, n in enumerate(a.shape)])


_UFUNCS = list({ufunc for ufunc in vars(np).values() if isinstance(ufunc, np.ufunc)})
refuse("sum slices of it, or use np.bincount with weights", *[(ufunc, "reduceat") for ufunc in _UFUNCS])
refuse(
    "nodes are immutable; use np.bincount with weights to add at places, or np.where",
    *[(ufunc, "at") for ufunc in _UFUNCS],
)
