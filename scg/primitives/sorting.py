"""Sorting, searching and counting. Sorting gathers by positions, and positions are constants: a derivative goes to
where the value came from.

Sorting is stable: of equal elements the first in the input is the first in the output, and takes its cotangent. What
depends on values without a derivative (positions, counts, comparisons) is a Node all the same, so that a replay
computes it again.
"""

import math
import operator

import numpy as np

from scg.core import axes
from scg.core.ambient import settled
from scg.core.axes import AxisMap, labelled
from scg.core.cotangents import results
from scg.core.detaching import refuse
from scg.core.node import Node
from scg.core.primitive import Primitive, implements, primitive
from scg.errors import ScgTypeError, ScgValueError, here
from scg.primitives.indexing import choose_length, choose_size
from scg.primitives.layout import as_array
from scg.primitives.reduction import no_buffer


def _put_along_value(g, indices, axis, size):
    g, indices = [np.moveaxis(x, axis, -1) for x in np.broadcast_arrays(g, indices)]
    if indices.size and not -size <= indices.min() <= indices.max() < size:
        raise IndexError(f"an index lies outside of an axis of length {size}")
    out = np.zeros((*g.shape[:-1], size), g.dtype)
    rows = np.arange(math.prod(g.shape[:-1])).reshape(*g.shape[:-1], 1)
    np.add.at(
        out.reshape(-1), (rows * size + np.where(indices < 0, indices + size, indices)).reshape(-1), g.reshape(-1)
    )
    return np.moveaxis(out, -1, axis)


take_along_p: Primitive = primitive(
    lambda x, indices, axis: np.take_along_axis(x, indices, axis),
    axes.along,
    lambda g, out, x, indices, axis: put_along_p(g, indices, axis=axis, size=x.shape[axis]),
    None,
    name="take_along_axis",
    linear=[(0,)],
    picks=True,
)
put_along_p: Primitive = primitive(
    _put_along_value,
    axes.along,
    lambda h, out, g, indices, axis, size: take_along_p(h, indices, axis=axis),
    None,
    name="put_along_axis",
    linear=[(0,)],
)
"""Zeros, ``size`` of them along ``axis``, to which operand 0 is added at the indices of operand 1."""


@implements(np.take_along_axis)
def take_along_axis(arr, indices, axis=-1):
    arr, indices = as_array(arr), as_array(indices)
    return (
        take_along_p(np.ravel(arr), indices, axis=0)
        if axis is None
        else take_along_p(arr, indices, axis=operator.index(axis))
    )


_argsort = primitive(lambda x, axis, **how: np.argsort(x, axis, **how), axes.along, name="argsort")
_argpartition = primitive(lambda x, axis, kth: np.argpartition(x, kth, axis), axes.along, name="argpartition")


def _no_fields(order):
    if order is not None:
        raise ScgTypeError(f"order= names the fields of a structured array; a Node has none ({here()})")


def _flat(a, axis):
    return (np.ravel(a), -1) if axis is None else (a, operator.index(axis))


@implements(np.sort)
def sort(a, axis=-1, kind=None, order=None, *, stable=None):
    _no_fields(order)
    a, axis = _flat(a, axis)
    return take_along_p(a, _argsort(a, axis=axis, kind="stable"), axis=axis)


@implements(np.argsort)
def argsort(a, axis=-1, kind=None, order=None, *, stable=None):
    _no_fields(order)
    a, axis = _flat(a, axis)
    return _argsort(a, axis=axis, kind=kind, stable=stable)


@implements(np.partition)
def partition(a, kth, axis=-1, kind="introselect", order=None):
    """Like ``np.partition``; the order on either side of ``kth``, which NumPy leaves open, is that of
    ``np.argpartition``."""
    _no_fields(order)
    a, axis = _flat(a, axis)
    return take_along_p(a, _argpartition(a, axis=axis, kth=_static(kth)), axis=axis)


@implements(np.argpartition)
def argpartition(a, kth, axis=-1, kind="introselect", order=None):
    _no_fields(order)
    a, axis = _flat(a, axis)
    return _argpartition(a, axis=axis, kth=_static(kth))


def _static(kth):
    return tuple(map(operator.index, kth)) if np.iterable(kth) else operator.index(kth)


refuse("sort its real or imaginary part, or its absolute value", np.sort_complex)


def _extreme_position(fn):
    base = primitive(lambda x, axis, keepdims: fn(x, axis, keepdims=keepdims), axes.reduction, name=fn.__name__)

    @implements(fn)
    def implementation(a, axis=None, out=None, *, keepdims=False):
        no_buffer(out)
        if axis is None:
            position = base(a if a.ndim == 1 else np.ravel(a), axis=0, keepdims=False)
            return np.reshape(position, (1,) * a.ndim) if keepdims else position
        if a.ndim == 0:
            a, keepdims = np.ravel(a), False
        return base(a, axis=operator.index(axis), keepdims=bool(keepdims))

    return base


_argmax, _argmin, _nanargmax, _nanargmin = map(_extreme_position, (np.argmax, np.argmin, np.nanargmax, np.nanargmin))

_lexsort = primitive(lambda keys, axis: np.lexsort(keys, axis), name="lexsort")


@implements(np.lexsort)
def lexsort(keys, axis=-1):
    return _lexsort(np.stack(keys) if isinstance(keys, (tuple, list)) else keys, axis=axis)


class _Searched(AxisMap):
    """Each element of operand 1 is looked up by itself in the whole of operand 0."""

    def lead(self, operands, batched, statics):
        return None if batched[0] or len(operands) > 2 else (operands, statics)

    def align(self, shapes, out, statics):
        return labelled("out", out), (
            labelled("a", shapes[0]),
            labelled("out", shapes[1]),
            *[labelled("sorter", shape) for shape in shapes[2:]],
        )


_searchsorted = primitive(
    lambda a, v, *sorter, side: np.searchsorted(a, v, side, *sorter), _Searched(), name="searchsorted"
)


@implements(np.searchsorted)
def searchsorted(a, v, side="left", sorter=None):
    return _searchsorted(a, v, *(() if sorter is None else (sorter,)), side=side)


@implements(np.digitize)
def digitize(x, bins, right=False):
    """As NumPy has it: the place of x among rising bins, and counted from the other end among falling ones."""
    if type(bins) is Node:  # which may rise in one replay and fall in another
        return _digitize(x, bins, right=bool(right))
    if not np.issubdtype(x.dtype, np.complexfloating):
        np.digitize(np.zeros(0), bins)  # its words for bins that neither rise nor fall
        bins, side = as_array(bins), "left" if right else "right"
        if bins.size and bins[0] > bins[-1]:
            return len(bins) - _searchsorted(bins[::-1], x, side=side)
        return _searchsorted(bins, x, side=side)
    return np.digitize(x.raw, bins)  # its words for complex numbers


@implements(np.isin)
def isin(element, test_elements, assume_unique=False, invert=False, *, kind=None):
    return _isin(test_elements, element, invert=bool(invert))


if hasattr(np, "in1d"):  # until NumPy 2.4

    @implements(np.in1d)
    def in1d(ar1, ar2, assume_unique=False, invert=False, *, kind=None):
        return isin(np.ravel(ar1), ar2, invert=invert)


_digitize = primitive(lambda x, bins, right: np.digitize(x, bins, right), name="digitize")
_isin = primitive(
    lambda among, element, invert: np.isin(element, among, invert=invert),
    _Searched(),
    name="isin",
)

_nonzero = primitive(lambda a: np.nonzero(a), name="nonzero")
_argwhere = primitive(lambda a: np.argwhere(a), name="argwhere")


@implements(np.nonzero)
def nonzero(a):
    if a.ndim == 0:
        raise ScgValueError(f"nonzero of a scalar has no positions: use np.atleast_1d(x).nonzero() ({here()})")
    choose_size(a)
    return results(_nonzero(a))


@implements(np.flatnonzero)
def flatnonzero(a):
    return nonzero(np.ravel(a))[0]


@implements(np.argwhere)
def argwhere(a):
    choose_size(a)
    return _argwhere(a)


def _count_value(x, size):
    found = np.bincount(x, minlength=size)
    if len(found) > size:
        raise ScgValueError(f"bincount found {len(found) - 1} beside minlength={size}: give minlength={len(found)}")
    return found


_count = primitive(_count_value, name="bincount")


def _any_negative(x):
    return np.min(x, initial=0) < 0


@implements(np.bincount)
def bincount(x, /, weights=None, minlength=0):
    """sum of the weights (or the number) of the elements with x = 0, 1, ...; linear in the weights, whose dtype it
    keeps. How long it is without minlength is a choice of a Node x, as of an ``if``; with one it is the length."""
    x = as_array(x)
    values = x.raw if type(x) is Node else x
    if values.ndim != 1 or values.dtype.kind not in "iub" or settled(_any_negative, x):
        raise ScgValueError(
            f"bincount needs one axis of integers >= 0, got {values.dtype} of shape {values.shape} ({here()})"
        )
    size = int(np.maximum(minlength, values.max() + 1 if values.size else 0))
    if type(x) is Node and not minlength:
        choose_length(x)
    elif type(x) is Node and not settled(lambda values: np.max(values, initial=-1) < minlength, x):
        raise ScgValueError(
            f"bincount of a Node has minlength elements, or as many as its values decide where there is no minlength:"
            f" minlength={minlength}, and a value is {size - 1} ({here()})"
        )
    if weights is None:
        return _count(x, size=size)
    weights = as_array(weights)
    if weights.shape != x.shape:
        raise ScgValueError(
            f"bincount needs a weight for each element, got shapes {x.shape} and {weights.shape} ({here()})"
        )
    return put_along_p(weights if weights.dtype.kind in "fc" else weights.astype(float), x, axis=0, size=size)


refuse(
    "its bins move with the data; count with np.bincount(np.searchsorted(edges, x), weights, len(edges) + 1)",
    *(np.histogram, np.histogram2d, np.histogramdd, np.histogram_bin_edges),
    detached=True,
)
refuse(
    "how many elements it has depends on the values; use np.sort or np.isin",
    *(np.unique, np.unique_all, np.unique_counts, np.unique_inverse, np.unique_values),
    *(np.union1d, np.intersect1d, np.setdiff1d, np.setxor1d),
    detached=True,
)
