"""Cumulative sums and products, running extrema, and the ufunc method ``accumulate``.

A running extremum is the latest element that reaches it.
"""

import operator

import numpy as np

from scg.core import axes
from scg.core.primitive import implements, primitive, smooth_primitive
from scg.errors import ScgTypeError, ScgValueError, here
from scg.primitives.reduction import no_buffer, shifted


def _recurrence_value(a, b, axis):
    s = np.array(np.broadcast_arrays(a, b)[0], dtype=np.result_type(a, b))
    rows, factors = np.moveaxis(s, axis, 0), np.moveaxis(np.broadcast_to(b, s.shape), axis, 0)
    for k in range(1, len(rows)):
        rows[k] += factors[k] * rows[k - 1]
    return s


def _backwards(g, x, axis):
    """s_k = g_k + x_{k+1} s_{k+1}: the transpose of the recurrence with factors x."""
    return np.flip(_recurrence(np.flip(g, axis), shifted(np.flip(x, axis), axis, 0), axis=axis), axis)


_recurrence = primitive(
    _recurrence_value,
    axes.along,
    lambda g, out, a, b, axis: _backwards(g, b, axis),
    lambda g, out, a, b, axis: _backwards(g, b, axis) * shifted(out, axis, 0),
    name="recurrence",
    linear=[(0,)],
)
"""s_k = a_k + b_k s_{k-1} along a non-negative axis, s_0 = a_0."""

_cumsum = primitive(
    np.add.accumulate,
    axes.along,
    lambda g, out, x, axis: np.flip(np.cumsum(np.flip(g, axis), axis=axis), axis),
    name="cumsum",
    linear="together",
)
_cumprod = smooth_primitive(
    np.multiply.accumulate,
    axes.along,
    lambda g, out, x, axis: shifted(out, axis, 1) * _backwards(g, x, axis),
    name="cumprod",
)
"""d out_j / d x_k = (prod_{i<k} x_i) (prod_{k<i<=j} x_i): what comes before k times a recurrence from the end."""


def _latest(extremum):
    """Positions of the latest element that is as extreme as all before it (or a NaN)."""

    def positions(x, axis):
        reached = (x == extremum.accumulate(x, axis=axis)) | (x != x)
        places = np.arange(x.shape[axis]).reshape([-1 if i == axis else 1 for i in range(x.ndim)])
        return np.maximum.accumulate(np.where(reached, places, 0), axis=axis)

    return positions


_latest_max = primitive(_latest(np.maximum), axes.along, name="running_argmax")
_latest_min = primitive(_latest(np.minimum), axes.along, name="running_argmin")


def _cumulative(base, x, axis, dtype, out):
    no_buffer(out)
    x = x if dtype is None else x.astype(dtype)
    if axis is None or x.ndim == 0:
        x, axis = np.ravel(x), axis or 0
    axis = operator.index(axis)
    return base(x, axis=axis + x.ndim if -x.ndim <= axis < 0 else axis)


@implements(np.cumsum)
def cumsum(a, axis=None, dtype=None, out=None):
    return _cumulative(_cumsum, a, axis, dtype, out)


@implements(np.cumprod)
def cumprod(a, axis=None, dtype=None, out=None):
    return _cumulative(_cumprod, a, axis, dtype, out)


def _cumulative_with_initial(base, first, x, axis, dtype, include_initial):
    if axis is None and x.ndim > 1:
        raise ScgValueError(f"{base.name} of an array of {x.ndim} axes needs an axis ({here()})")
    result = _cumulative(base, x, axis, dtype, None)
    if not include_initial:
        return result
    axis = 0 if axis is None else axis % result.ndim
    start = np.full((*result.shape[:axis], 1, *result.shape[axis + 1 :]), first, result.dtype)
    return np.concatenate([start, result], axis=axis)


@implements(getattr(np, "cumulative_sum", None))
def cumulative_sum(x, /, *, axis=None, dtype=None, include_initial=False):
    return _cumulative_with_initial(_cumsum, 0, x, axis, dtype, include_initial)


@implements(getattr(np, "cumulative_prod", None))
def cumulative_prod(x, /, *, axis=None, dtype=None, include_initial=False):
    return _cumulative_with_initial(_cumprod, 1, x, axis, dtype, include_initial)


def _running(positions):
    def running(x, axis):
        return np.take_along_axis(x, positions(x, axis=axis), axis)

    return running


def _accumulate(ufunc, base):
    @implements((ufunc, "accumulate"))
    def accumulate(array, axis=0, dtype=None):
        if array.ndim == 0:
            raise ScgTypeError(
                f"np.{ufunc.__name__}.accumulate of a scalar: there is no axis to accumulate along ({here()})"
            )
        return _cumulative(base, array, axis, dtype, None)


for _accumulation in (
    (np.add, _cumsum),
    (np.multiply, _cumprod),
    (np.maximum, _running(_latest_max)),
    (np.minimum, _running(_latest_min)),
):
    _accumulate(*_accumulation)
