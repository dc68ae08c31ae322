"""Sums, means, extrema, products and cumulative forms."""

import numpy as np

from scg import axes
from scg.graph import implements, primitive


def kept(g, x, axis, keepdims):
    """The cotangent of a reduction with its reduced axes put back as axes of length one."""
    if keepdims or axis is None or x.ndim == 0:
        return g
    gone = {a % x.ndim for a in axis}
    return np.reshape(g, tuple([1 if i in gone else n for i, n in enumerate(x.shape)]))


_sum = primitive(np.add.reduce, axes.reduction, lambda g, out, x, axis, keepdims: kept(g, x, axis, keepdims), name="sum")


@implements(np.sum)
def sum(a, axis=None, dtype=None, keepdims=False, initial=0, where=True):
    if where is not True:
        a = np.where(where, a, 0)
    if dtype is not None:
        a = np.astype(a, dtype)
    axis = axis if axis is None else (axis,) if isinstance(axis, (int, np.integer)) else tuple(axis)
    total = _sum(a, axis=axis, keepdims=bool(keepdims))
    return total if initial == 0 else total + initial


@implements((np.add, "reduce"))
def _add_reduce(a, axis=0, dtype=None, keepdims=False, initial=0, where=True):
    return sum(a, axis, dtype, keepdims, initial, where)
