"""Indexing, gathering and their transpose; padding and windows, which are gathers."""

import functools
import operator
import warnings

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from scg.core import axes
from scg.core.ambient import settled
from scg.core.ancestry import ancestors
from scg.core.axes import Slot, elementwise
from scg.core.node import Node
from scg.core.operands import described, frozen, plain
from scg.core.primitive import Primitive, implements, primitive
from scg.errors import NotDifferentiable, ScgIndexError, ScgTypeError, ScgValueError, here
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
    if operands or not axes.is_basic(index):
        return None
    whole = index if Ellipsis in index else (*index, ...)
    return lambda x: x[whole]


def _scatter_into(g, *operands, index, shape):
    if operands or not axes.is_basic(index):
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


def _true_axes(mask):
    """The integer index of each axis that stands for a mask; Nodes, so that a replay looks at the mask again."""
    count = int(np.count_nonzero(mask.raw))
    return [_true(mask, axis=axis, count=count) for axis in range(mask.ndim)]


@implements(operator.getitem)
def getitem(x, index):
    """x[index] for every index of NumPy; the derivative adds each element's cotangent where the element came from.

    Slices, integers, ellipses and new axes, arrays of integers and masks; arrays are copied. An index that is a Node of
    integers stays an operand: a replay in which it changes gathers again. A mask that is a Node may change too, but not
    in the number of its true elements (ScgValueError). Raises ScgIndexError where the index is out of range.
    """
    if type(index) is int or type(index) is slice:
        return getitem_p(x, index=(index,))
    operands: list[Node] = []
    template: list[object] = []
    for i in index if type(index) is tuple else (index,):
        kind = type(i)
        if kind is Node:
            if i.dtype == bool and i.ndim:
                _check_mask(x, index)
                nodes = _true_axes(i)
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
    chosen = _true_axes(condition)[0] if type(condition) is Node else np.flatnonzero(condition)
    return getitem(a, at(normalize_axis_index(axis, a.ndim), chosen))


@implements(np.extract)
def extract(condition, arr):
    return compress(np.ravel(as_array(condition)), np.ravel(as_array(arr)))


@implements(np.choose)
def choose(a, choices, mode="raise"):
    a, choices = as_array(a), [as_array(c) for c in choices]
    n = len(choices)
    if mode == "raise":
        if not settled(lambda a: np.min(a, initial=0) >= 0 and np.max(a, initial=0) < n, a):
            raise ValueError(f"invalid entry in choice array: np.choose among {n} needs integers from 0 to {n - 1}")
    elif mode in ("wrap", "clip"):
        a = np.remainder(a, n) if mode == "wrap" else np.minimum(np.maximum(a, 0), n - 1)
    else:
        raise ValueError(f"clipmode must be one of 'clip', 'raise', or 'wrap', got {mode!r}")
    result = choices[0]
    for k, choice in enumerate(choices[1:], 1):
        result = np.where(np.equal(a, k), choice, result)
    return np.broadcast_to(result, np.broadcast_shapes(a.shape, result.shape))


@implements(np.select)
def select(condlist, choicelist, default=0):
    if len(condlist) != len(choicelist) or not len(condlist):
        raise ValueError(
            f"np.select needs as many choices as conditions, and at least one; got {len(condlist)} and"
            f" {len(choicelist)}"
        )
    if any(getattr(c, "dtype", np.asarray(c).dtype if type(c) is not Node else None) != np.bool_ for c in condlist):
        raise TypeError("invalid entry in condlist: should be boolean ndarray")
    result = default
    for condition, choice in zip(reversed(condlist), reversed(choicelist), strict=True):
        result = np.where(condition, choice, result)
    return result


@implements(np.piecewise)
def piecewise(x, condlist, funclist, *args, **kw):
    """Each function is called with the elements of its piece, ``x[condition]``, as NumPy calls it, and not where the
    piece is empty."""
    x = as_array(x)
    conditions = (
        list(condlist)
        if not (type(condlist) is Node or isinstance(condlist, np.ndarray)) or condlist.ndim > x.ndim
        else [condlist]
    )
    if len(conditions) and np.ndim(conditions[0]) == 0 and x.ndim:
        conditions = [np.stack([as_array(c) for c in conditions])]
    extra = len(funclist) - len(conditions)
    if extra not in (0, 1):
        raise ValueError(
            f"with {len(conditions)} condition(s), either {len(conditions)} or {len(conditions) + 1} functions are"
            " expected"
        )
    conditions = [np.broadcast_to(as_array(c), x.shape).astype(bool) for c in conditions]
    functions = list(funclist)
    if extra:  # the last is for what meets no condition
        functions, conditions = (
            [functions[-1], *functions[:-1]],
            [
                np.logical_not(functools.reduce(np.logical_or, conditions)),
                *conditions,
            ],
        )
    result = np.zeros(x.shape, x.dtype)
    for condition, f in zip(conditions, functions, strict=True):
        value = _on_piece(f, x, condition, args, kw) if callable(f) else f
        if value is not None:
            result = np.where(condition, as_array(value).astype(x.dtype), result)
    return as_array(result)


def _on_piece(f, x, condition, args, kw):
    """``f(x[condition])`` where its elements belong; None for an empty piece. Where f goes element by element, f(x) is
    the same there, and serves a replay in which other elements meet the condition."""
    empty = not settled(np.any, condition)
    if not x.ndim or empty:
        everywhere = _element_by_element(f, x, args, kw) if type(condition) is Node else None
        if everywhere is None and bool(np.any(condition)):  # of a node it is an `if`, which a replay looks at again
            return f(x, *args, **kw)
        return everywhere
    piece = getitem(x, condition) if type(x) is Node or type(condition) is Node else x[condition]
    value = as_array(f(piece, *args, **kw))
    if type(piece) is Node and (type(value) is not Node or _is_element_by_element(value, piece)):
        everywhere = _element_by_element(f, x, args, kw)
        if everywhere is not None and settled(
            lambda a, b, c: np.array_equal(
                np.broadcast_to(a, np.shape(c))[c], np.broadcast_to(b, np.sum(c)), equal_nan=True
            ),
            everywhere,
            value,
            condition,
        ):
            return everywhere
    if value.shape != piece.shape:
        # what does not fit is refused by np.where, as by NumPy
        return np.reshape(value, (1,) * x.ndim) if value.size == 1 else value
    places = np.cumsum(np.ravel(condition)) - 1
    return np.reshape(
        (
            getitem(value, np.where(np.ravel(condition), places, 0))
            if type(value) is Node
            else value[np.where(np.ravel(condition), places, 0)]
        ),
        x.shape,
    )


def _element_by_element(f, x, args, kw):
    """f(x), where it goes element by element; None where it does not, or fails where it is not asked."""
    try:
        with np.errstate(all="ignore"):  # outside its piece a function may well be undefined
            found = as_array(f(x, *args, **kw))
    except (ValueError, IndexError, ArithmeticError):
        return None
    return (
        found
        if type(found) is not Node and found.ndim == 0 or type(found) is Node and _is_element_by_element(found, x)
        else None
    )


def _is_element_by_element(value, x):
    """Whether only primitives that go element by element lead from x to a value of its shape."""
    return value.shape == x.shape and all([n.primitive.axes is elementwise for n in ancestors([value], x.id + 1)])


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
    return take(arr, np.delete(np.arange(arr.shape[axis]), obj), axis)


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


_GATHERS = ("edge", "reflect", "symmetric", "wrap")
_STATISTICS = {"mean": np.mean, "maximum": np.max, "minimum": np.min, "median": np.median}
_OPTIONS = (
    {"constant": ("constant_values", 0), "linear_ramp": ("end_values", 0)}
    | dict.fromkeys(_STATISTICS, ("stat_length", None))
    | dict.fromkeys(("reflect", "symmetric"), ("reflect_type", "even"))
)


@implements(np.pad)
def pad(array, pad_width, mode="constant", **options):
    """np.pad, one axis after another: a gather, a constant (which may be a Node), a ramp, or a statistic of what lies
    at the edge."""
    if callable(mode) or mode == "empty":
        raise NotDifferentiable(f"np.pad of a Node with mode={mode!r}: use another mode, or np.concatenate ({here()})")
    if mode not in _OPTIONS and mode not in _GATHERS:
        raise ValueError(f"mode {mode!r} is not supported")
    name, option = _OPTIONS.get(mode, ("", None))
    if set(options) - {name}:
        raise ValueError(f"unsupported keyword arguments for mode {mode!r}: {set(options)}")
    option = options.get(name, option)
    widths = np.zeros((array.ndim, 2), int)
    for axis, width in pad_width.items() if isinstance(pad_width, dict) else [(..., pad_width)]:
        if np.asarray(width).dtype.kind not in "iu" or np.min(width, initial=0) < 0:
            raise ValueError(f"pad_width needs non-negative integers, got {pad_width!r}")
        widths[axis] = width
    for axis, (before, after) in enumerate(widths.tolist()):
        if mode in _GATHERS:
            array = _pad_by_gather(array, axis, before, after, mode, option) if before or after else array
        else:
            ends = [None, None] if option is None else np.broadcast_to(as_array(option), widths.shape)[axis]
            parts = [array]
            if before:
                parts.insert(0, _PIECES[mode](array, axis, before, ends[0], 0))
            if after:
                parts.append(_PIECES[mode](array, axis, after, ends[1], 1))
            array = np.concatenate([x.astype(array.dtype) for x in parts], axis) if len(parts) > 1 else array
    return array


def _pad_by_gather(x, axis, before, after, mode, reflect_type):
    if reflect_type == "odd":  # linear in x, but no gather: as a matrix
        matrix = np.pad(np.eye(x.shape[axis], dtype=x.dtype), ((before, after), (0, 0)), mode, reflect_type="odd")
        return np.moveaxis(np.tensordot(matrix, x, (1, axis)), 0, axis)
    return np.take(x, np.pad(np.arange(x.shape[axis]), (before, after), mode), axis)


def _constant_piece(x, axis, width, end, side):
    return np.broadcast_to(end, (*x.shape[:axis], width, *x.shape[axis + 1 :]))


def _ramp_piece(x, axis, width, end, side):
    edge = x[at(axis, slice(-1, None) if side else slice(1))]
    share = (np.arange(width) / width).astype(x.dtype)[:: -1 if side else 1].reshape(-1, *(1,) * (x.ndim - 1 - axis))
    return end + (edge - end) * share


def _statistic_piece(statistic):
    def piece(x, axis, width, end, side):
        n = x.shape[axis]
        length = n if end is None else min(int(end), n)
        edge = x[at(axis, slice(n - length, n) if side else slice(length))]
        return _constant_piece(x, axis, width, statistic(edge, axis=axis, keepdims=True), side)

    return piece


_PIECES = {"constant": _constant_piece, "linear_ramp": _ramp_piece} | {
    name: _statistic_piece(f) for name, f in _STATISTICS.items()
}
