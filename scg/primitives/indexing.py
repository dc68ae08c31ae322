"""Indexing, gathering and their transpose, and what is a gather: diagonals, triangles, windows."""

import operator
import warnings

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from scg.core import axes, indices
from scg.core.indices import Slot
from scg.core.node import Node
from scg.core.operands import described, frozen, plain
from scg.core.primitive import Primitive, implements, primitive
from scg.errors import ScgIndexError, ScgTypeError, ScgValueError, here
from scg.primitives.layout import as_array, at


def _filled(index, operands):
    return tuple([operands[i.position] if type(i) is Slot else i for i in index])


def _getitem_value(x, *operands, index):
    return x[_filled(index, (x, *operands)) if operands else index]


def _scatter_value(g, *operands, index, shape):
    out = np.zeros(shape, g.dtype)
    where = _filled(index, (g, *operands)) if operands else index
    if _names_each_once(where):
        out[where] = g
    else:
        np.add.at(out, where, g)
    return out


def _names_each_once(index):
    """Whether no element is named twice.

    Slices and integers name each element once. Of arrays of integers and masks, which broadcast against one another to
    n places, one that fills all n suffices: a mask, or a vector of integers that increases and does not change sign.
    One place, stretched over n, names the same n times: x[[0], [1, 1]] is x[0, 1] twice.
    """
    arrays = [i for i in index if isinstance(i, np.ndarray)]
    if any(i.ndim > 1 and i.dtype != bool for i in arrays):
        return False
    counts = [np.count_nonzero(i) if i.dtype == bool else i.size for i in arrays]
    places = 0 if 0 in counts else max(counts, default=1)
    return places <= 1 or any(
        n == places and (i.dtype == bool or _increases(i)) for i, n in zip(arrays, counts, strict=True)
    )


def _increases(i):
    return (i[0] >= 0 or i[-1] < 0) and (i[1:] > i[:-1]).all()


def _look(x, *operands, index):
    """How a basic index shows an array: with an ellipsis, so that it is a view of no axes too, and no scalar."""
    if operands or not indices.is_basic(index):
        return None
    whole = index if Ellipsis in index else (*index, ...)
    return lambda x: x[whole]


def _scatter_into(g, *operands, index, shape):
    if operands or not indices.is_basic(index):
        return None

    def place(g, out):
        out[...] = 0
        out[index] = g

    return place


getitem_p: Primitive = primitive(
    _getitem_value,
    axes.index,
    every=lambda g, i, out, x, *operands, index: None if i else scatter_p(g, *operands, index=index, shape=x.shape),
    name="getitem",
    linear=[(0,)],
    picks=True,
    view=_look,
)
scatter_p: Primitive = primitive(
    _scatter_value,
    axes.scatter,
    every=lambda h, i, out, g, *operands, index, shape: None if i else getitem_p(h, *operands, index=index),
    name="scatter",
    linear=[(0,)],
    into=_scatter_into,
)


def _true_value(mask, axis, count):
    found = np.nonzero(mask)[axis]
    if len(found) != count:
        raise ScgValueError(
            f"a boolean mask took {count} elements when the graph was recorded, and takes {len(found)} in this replay, "
            f"so that all shapes after it would change: write np.where(mask, x, 0) ({here()})"
        )
    return found


_true = primitive(_true_value, name="nonzero")
"""Coordinates along ``axis`` of the ``count`` elements of a mask that are true: how many is part of the graph, which
ones is not."""


_bit = primitive(lambda mask, bit: np.asarray((np.count_nonzero(mask) >> bit) % 2 == 1), name="size", steps=False)
"""A binary digit of the number of elements of a mask that are true."""


def choose_size(mask):
    """Record how many elements of a Node are true, or not zero, as a choice: each binary digit is a guard, as of an
    ``if``, so that all that has this size depends on what decides it, and other sizes are other ways."""
    for bit in range(mask.size.bit_length()):
        bool(_bit(mask, bit=bit))


_shifted = primitive(lambda x, bit: np.max(x, initial=-1) + 1 >> bit, name="shifted", steps=False)
"""The largest of some integers plus one, without its last ``bit`` binary digits."""


def choose_length(x):
    """Record the largest of a Node's integers plus one, the length of what is counted by them, as ``choose_size``
    does: first how many binary digits it has."""
    digits = 0
    while bool(_shifted(x, bit=digits)):
        digits += 1
    for bit in range(digits - 1):
        bool(_shifted(x, bit=bit) % 2 == 1)


def true_axes(mask):
    """The integer index of each axis that stands for a mask; Nodes, so that a replay looks at the mask again. How many
    there are is no choice here."""
    count = int(np.count_nonzero(mask.raw))
    return [_true(mask, axis=axis, count=count) for axis in range(mask.ndim)]


@implements(operator.getitem)
def getitem(x, index):
    """x[index] for every index of NumPy; the derivative adds each element's cotangent where the element came from.

    Slices, integers, ellipses and new axes, arrays of integers and masks; arrays are copied. An index that is a Node of
    integers stays an operand: a replay in which it changes gathers again, as one in which a mask that is a Node does.
    How many elements a mask takes is a choice, as of an ``if``. Raises ScgIndexError where the index is out of range.
    """
    if type(index) is int or type(index) is slice:
        return getitem_p(x, index=(index,))
    if type(index) is Node and index.dtype == bool and index.ndim == 0:  # x[None] or nothing
        return getitem(np.expand_dims(x, 0), np.reshape(index, 1))
    operands: list[Node] = []
    template: list[object] = []
    for i in index if type(index) is tuple else (index,):
        kind = type(i)
        if kind is Node:
            if i.dtype == bool and i.ndim:
                _check_mask(x, index)
                choose_size(i)
                nodes = true_axes(i)
            elif i.dtype.kind in "iu":
                nodes = [i]
            else:
                cast = ": write index.astype(int)" if getattr(getattr(i, "dtype", None), "kind", "") == "f" else ""
                raise ScgTypeError(
                    f"an index needs integers, or booleans along an axis, got {described((i,))}{cast} ({here()})"
                )
            for node in nodes:
                operands.append(node)
                template.append(Slot(len(operands)))
        elif kind is bool or kind is np.bool_ or isinstance(i, (list, tuple, np.ndarray)):
            array = np.asarray(plain(i, "an index of a node"))
            if array.dtype.kind in "iu" and array.ndim == 0:
                template.append(int(array))
            else:
                template.append(frozen(array if array.size else array.astype(bool if array.dtype == bool else int)))
        else:
            template.append(i)
    return getitem_p(x, *operands, index=tuple(template))


def _check_mask(x, index):
    """NumPy's own check that a mask has the shape of the axes that it stands for, on an array that takes no memory."""
    values = [i.raw if type(i) is Node else i for i in (index if type(index) is tuple else (index,))]
    try:
        np.broadcast_to(np.False_, x.shape)[tuple(values)]
    except IndexError as error:
        raise ScgIndexError(f"getitem of {x!r}: {error} ({here()})") from None


def gather(x, positions):
    """x.ravel()[positions]: any rearrangement, given by the row-major position of each element's origin."""
    return np.ravel(x)[np.asarray(positions)]


def _positions(x):
    return np.arange(x.size).reshape(x.shape)


@implements(np.take)
def take(a, indices, axis=None, *, mode="raise"):
    a, indices = as_array(a), as_array(indices)
    if axis is None:
        a, axis = np.ravel(a), 0
    axis = normalize_axis_index(axis, a.ndim)
    n = a.shape[axis]
    if mode == "wrap":
        indices = np.remainder(indices, n)
    elif mode == "clip":
        indices = np.minimum(np.maximum(indices, 0), n - 1)
    elif mode != "raise":
        raise ValueError(f"clipmode must be one of 'clip', 'raise', or 'wrap', got {mode!r}")
    return getitem(a, at(axis, indices))


@implements(np.compress)
def compress(condition, a, axis=None):
    condition, a = as_array(condition), as_array(a)
    if condition.ndim != 1:
        raise ValueError("condition must be a 1-d array")
    if axis is None:
        a, axis = np.ravel(a), 0
    condition = condition if condition.dtype == bool else np.not_equal(condition, 0)
    if type(condition) is Node:
        choose_size(condition)
    chosen = true_axes(condition)[0] if type(condition) is Node else np.flatnonzero(condition)
    return getitem(a, at(normalize_axis_index(axis, a.ndim), chosen))


@implements(np.extract)
def extract(condition, arr):
    return compress(np.ravel(as_array(condition)), np.ravel(as_array(arr)))


@implements(np.diagonal)
def diagonal(a, offset=0, axis1=0, axis2=1):
    if a.ndim < 2:
        raise ValueError("diag requires an array of at least two dimensions")
    i, j = normalize_axis_tuple((axis1, axis2), a.ndim)
    moved = np.moveaxis(a, (i, j), (-2, -1)) if (i, j) != (a.ndim - 2, a.ndim - 1) else a
    rows = np.arange(
        max(0, -offset),
        max(0, -offset) + max(0, min(moved.shape[-2] + min(offset, 0), moved.shape[-1] - max(offset, 0))),
    )
    return moved[(..., rows, rows + offset)]


@implements(np.trace)
def trace(a, offset=0, axis1=0, axis2=1, dtype=None):
    return np.sum(diagonal(a, offset, axis1, axis2), axis=-1, dtype=dtype)


@implements(np.diag)
def diag(v, k=0):
    if v.ndim == 2:
        return diagonal(v, k)
    if v.ndim != 1:
        raise ValueError("Input must be 1- or 2-d.")
    n = v.size + abs(k)
    rows = np.arange(max(0, -k), max(0, -k) + v.size)
    return scatter_p(v, index=(frozen(rows), frozen(rows + k)), shape=(n, n))


@implements(np.diagflat)
def diagflat(v, k=0):
    return diag(np.ravel(v), k)


def _triangle(m, k):
    return np.tril(np.ones(m.shape[-2:], bool), k)  # of a vector the rows of a square


@implements(np.tril)
def tril(m, k=0):
    return np.where(_triangle(m, k), m, 0)


@implements(np.triu)
def triu(m, k=0):
    return np.where(_triangle(m, k - 1), 0, m)


@implements(np.resize)
def resize(a, new_shape):
    return gather(a, np.resize(_positions(a), new_shape)) if a.size else np.broadcast_to(np.sum(a), new_shape)


@implements(np.delete)
def delete(arr, obj, axis=None):
    if axis is None:
        arr, axis = np.ravel(arr), 0
    axis = normalize_axis_index(axis, arr.ndim)
    places = np.arange(arr.shape[axis])
    if type(obj) is Node:
        np.delete(places, obj.raw)  # NumPy's own check of it
        kept = ~obj if obj.dtype == bool else np.all(places != np.reshape(obj, (-1, 1)) % max(places.size, 1), axis=0)
        return np.compress(kept, arr, axis)
    return take(arr, np.delete(places, obj), axis)


with warnings.catch_warnings(action="ignore"):  # older NumPy reads a mask as the positions 0 and 1, and warns
    _MASKS = np.insert(np.zeros(2), np.array([False, True]), 1).size == 3


@implements(np.insert)
def insert(arr, obj, values, axis=None):
    arr, values, where = as_array(arr), as_array(values), np.asarray(obj) if not isinstance(obj, slice) else obj
    if axis is None:
        arr, axis = np.ravel(arr), 0
    axis = normalize_axis_index(axis, arr.ndim)
    n = arr.shape[axis]
    if isinstance(where, slice):
        where = np.arange(*where.indices(n))
    elif where.dtype == bool and _MASKS:
        where = np.flatnonzero(where)
    values = np.expand_dims(values, tuple(range(max(0, arr.ndim - values.ndim))))
    if where.ndim == 0:
        values = np.moveaxis(values, 0, axis)
    count = values.shape[axis] if where.size == 1 else where.size
    shape = (*arr.shape[:axis], count, *arr.shape[axis + 1 :])
    joined = np.concatenate([arr, np.broadcast_to(values, shape).astype(arr.dtype)], axis)
    return np.take(
        joined,
        np.insert(np.arange(n), where if where.dtype.kind in "iu" else where.astype(int), n + np.arange(count)),
        axis,
    )


@implements(np.lib.stride_tricks.sliding_window_view)
def sliding_window_view(x, window_shape, axis=None, *, subok=False, writeable=False):
    return gather(x, np.lib.stride_tricks.sliding_window_view(_positions(x), window_shape, axis))
