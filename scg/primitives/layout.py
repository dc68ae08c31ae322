"""Reshaping, transposing and broadcasting: elements change their place, not their value.

Five primitives (reshape, transpose, broadcast_to, the concatenate of ``joining`` and the getitem of ``indexing``) make
all the others, so that what is true of them (the derivative, the axis map, float32) is true of every name here and in
``joining``.
"""

import math
import operator

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from scg.core import axes
from scg.core.aliases import Operand
from scg.core.ambient import RECORDER
from scg.core.axes import elementwise
from scg.core.detaching import refuse
from scg.core.node import Node
from scg.core.operands import beside, plain
from scg.core.primitive import implements, primitive
from scg.errors import NotDifferentiable, ScgTypeError, here

alias = primitive(
    lambda x, **label: x, elementwise, lambda g, out, x, **label: g, name="alias", linear="together", view=True
)
"""The same value as a node of its own."""


def is_alias(node: Node) -> bool:
    """Whether a node is an ``alias``."""
    return node.primitive is alias


stop_gradient = primitive(lambda x, own=False: x, elementwise, name="stop_gradient", steps=False, same=True, view=True)
"""The same value, held constant: its derivative is zero. ``own``: in an estimator's formula, which needs the zero,
while the value itself has a derivative."""

reshape_p = primitive(
    lambda x, shape: np.reshape(x, shape),
    axes.reshape,
    lambda g, out, x, shape: np.reshape(g, x.shape),
    name="reshape",
    linear="together",
    moves=True,
    view=lambda x, shape: lambda x: np.reshape(x, shape),
)
transpose_p = primitive(
    lambda x, axes: np.transpose(x, axes),
    axes.transpose,
    lambda g, out, x, axes: np.transpose(g, sorted(range(len(axes)), key=axes.__getitem__)),
    name="transpose",
    linear="together",
    moves=True,
    view=lambda x, axes: lambda x: np.transpose(x, axes),
)
broadcast_to_p = primitive(
    lambda x, shape: np.broadcast_to(x, shape),
    axes.broadcast_to,
    lambda g, out, x, shape: g,
    name="broadcast_to",
    linear="together",
    moves=True,
    view=lambda x, shape: lambda x: np.broadcast_to(x, shape),
)


def _cast(x, dtype):
    return lambda x, out: np.copyto(out, x, casting="unsafe")


astype_p = primitive(
    lambda x, dtype: x.astype(dtype),
    elementwise,
    lambda g, out, x, dtype: g,
    name="astype",
    linear="together",
    into=_cast,
)
as_integer_p = primitive(lambda x, dtype: x.astype(dtype), elementwise, name="astype", into=_cast)


def as_array(x):
    """A Node as it is; anything else as an array (where a function is recorded for a plan: as a leaf, if others can
    write to it)."""
    if type(x) is np.ndarray and x.dtype.kind in "fiucb" and RECORDER.get() is not None:
        return beside(x)
    return x if type(x) is Node else np.asarray(plain(x, "a function of a node"))


def at(axis, *index):
    """The index that applies ``index`` from ``axis`` on and takes the axes before it whole."""
    return (slice(None),) * axis + index


@implements(np.reshape)
def reshape(a, /, shape, order="C", *, copy=None):
    shape = tuple([operator.index(n) for n in shape]) if np.iterable(shape) else (operator.index(shape),)
    if order not in "CF":
        raise NotDifferentiable(
            f"order={order!r}: how a node lies in memory is no part of its value; use 'C' or 'F' ({here()})"
        )
    if order == "F" and len(shape) + a.ndim > 2:
        return transpose(reshape(transpose(a), shape[::-1]))
    if min(shape, default=0) < 0:
        known = math.prod([n for n in shape if n != -1])
        if shape.count(-1) == 1 and known > 0 and a.size % known == 0:
            shape = tuple([a.size // known if n == -1 else n for n in shape])
    return reshape_p(a, shape=shape)


@implements(np.ravel)
def ravel(a, order="C"):
    return reshape(a, -1 if a.size else 0, order)


@implements(np.transpose)
def transpose(a, axes=None):
    return transpose_p(
        a, axes=tuple(range(a.ndim))[::-1] if axes is None else normalize_axis_tuple(axes, a.ndim, "axes")
    )


@implements(np.matrix_transpose)
def matrix_transpose(x, /):
    if x.ndim < 2:
        raise ValueError(f"matrix_transpose needs at least two axes, got {x.ndim}")
    return np.swapaxes(x, -1, -2)


@implements(np.swapaxes)
def swapaxes(a, axis1, axis2):
    order = list(range(a.ndim))
    i, j = normalize_axis_index(axis1, a.ndim), normalize_axis_index(axis2, a.ndim)
    order[i], order[j] = j, i
    return transpose_p(a, axes=tuple(order))


@implements(np.moveaxis)
def moveaxis(a, source, destination):
    sources, destinations = (
        normalize_axis_tuple(source, a.ndim, "source"),
        normalize_axis_tuple(destination, a.ndim, "destination"),
    )
    if len(sources) != len(destinations):
        raise ValueError("`source` and `destination` arguments must have the same number of elements")
    order = [i for i in range(a.ndim) if i not in sources]
    for to, origin in sorted(zip(destinations, sources, strict=True)):
        order.insert(to, origin)
    return transpose_p(a, axes=tuple(order))


@implements(np.rollaxis)
def rollaxis(a, axis, start=0):
    axis = normalize_axis_index(axis, a.ndim)
    start = normalize_axis_index(start, a.ndim + 1)
    return moveaxis(a, axis, start - (axis < start))


@implements(np.squeeze)
def squeeze(a, axis=None):
    if axis is None:
        return reshape_p(a, shape=tuple([n for n in a.shape if n != 1]))
    gone = normalize_axis_tuple(axis, a.ndim)
    if any(a.shape[i] != 1 for i in gone):
        raise ValueError("cannot select an axis to squeeze out which has size not equal to one")
    return reshape_p(a, shape=tuple([n for i, n in enumerate(a.shape) if i not in gone]))


@implements(np.expand_dims)
def expand_dims(a, axis):
    axis = axis if isinstance(axis, (tuple, list)) else (axis,)
    ndim = a.ndim + len(axis)
    new = normalize_axis_tuple(axis, ndim)
    shape = iter(a.shape)
    return reshape_p(a, shape=tuple([1 if i in new else next(shape) for i in range(ndim)]))


def at_least(ndim, *arys):
    def one(x):
        x = as_array(x)
        missing = ndim - x.ndim
        if missing <= 0:
            return x
        if ndim == 3:
            return np.expand_dims(x, {0: (0, 1, 2), 1: (0, 2), 2: (2,)}[x.ndim])
        return np.expand_dims(x, tuple(range(missing)))

    return one(arys[0]) if len(arys) == 1 else tuple(map(one, arys))


@implements(np.atleast_1d)
def atleast_1d(*arys):
    return at_least(1, *arys)


def named(value: Operand, name: str) -> Operand:
    """The value with a name that pictures of the graph show: a part of the cost, say. What is no Node comes back as it
    is.

    Raises ScgTypeError where the name is no string.
    """
    if not isinstance(name, str):
        raise ScgTypeError(f"a name must be a string, got {name!r} ({here()})")
    return alias(value, name=name) if type(value) is Node else value


@implements(np.atleast_2d)
def atleast_2d(*arys):
    return at_least(2, *arys)


@implements(np.atleast_3d)
def atleast_3d(*arys):
    return at_least(3, *arys)


@implements(np.broadcast_to)
def broadcast_to(array, shape, subok=False):
    return broadcast_to_p(
        array, shape=tuple([operator.index(n) for n in shape]) if np.iterable(shape) else (operator.index(shape),)
    )


@implements(np.broadcast_arrays)
def broadcast_arrays(*args, subok=False):
    arrays = [as_array(x) for x in args]
    shape = np.broadcast_shapes(*[x.shape for x in arrays])
    return tuple([np.broadcast_to(x, shape) for x in arrays])


@implements(np.meshgrid)
def meshgrid(*xi, copy=True, sparse=False, indexing="xy"):
    if indexing not in ("xy", "ij"):
        raise ValueError("Valid values for `indexing` are 'xy' and 'ij'.")
    n = len(xi)
    grid = [np.reshape(as_array(x), (1,) * i + (-1,) + (1,) * (n - i - 1)) for i, x in enumerate(xi)]
    if indexing == "xy" and n > 1:
        grid[:2] = [np.swapaxes(x, 0, 1) for x in grid[:2]]
    return tuple(grid) if sparse else np.broadcast_arrays(*grid)


@implements(np.astype)
def astype(x, dtype, /, *, copy=True, device=None, order="K", casting="unsafe", subok=True):
    dtype = np.dtype(dtype)
    if dtype.kind not in "fiucb":
        raise ScgTypeError(f"a node holds numbers, not {dtype}: use node.value.astype({str(dtype)!r}) ({here()})")
    if not np.can_cast(x.dtype, dtype, casting):
        raise TypeError(f"Cannot cast array data from {x.dtype!r} to {dtype!r} according to the rule {casting!r}")
    return x if x.dtype == dtype else (astype_p if dtype.kind in "fc" else as_integer_p)(x, dtype=dtype)


@implements(np.copy)
def copy(a, order="K", subok=False):
    return alias(a)


@implements(np.roll)
def roll(a, shift, axis=None):
    if axis is None:
        return np.reshape(roll(np.ravel(a), shift, 0), a.shape)
    for by, i in np.broadcast(shift, normalize_axis_tuple(axis, a.ndim, allow_duplicate=True)):
        n = a.shape[i]
        cut = -by % n if n else 0
        if cut:
            a = np.concatenate([a[at(i, slice(cut, None))], a[at(i, slice(None, cut))]], axis=int(i))
    return a


@implements(np.flip)
def flip(m, axis=None):
    turned = range(m.ndim) if axis is None else normalize_axis_tuple(axis, m.ndim)
    return m[tuple([slice(None, None, -1 if i in turned else 1) for i in range(m.ndim)])]


@implements(np.fliplr)
def fliplr(m):
    if m.ndim < 2:
        raise ValueError("Input must be >= 2-d.")
    return flip(m, 1)


@implements(np.flipud)
def flipud(m):
    if m.ndim < 1:
        raise ValueError("Input must be >= 1-d.")
    return flip(m, 0)


@implements(np.rot90)
def rot90(m, k=1, axes=(0, 1)):
    if len(axes) != 2:
        raise ValueError("len(axes) must be 2.")
    i, j = normalize_axis_tuple(axes, m.ndim)
    k %= 4
    if k == 0:
        return m
    if k == 2:
        return flip(m, (i, j))
    return swapaxes(flip(m, j), i, j) if k == 1 else flip(swapaxes(m, i, j), j)


refuse("its length depends on the values; cut with a slice", np.trim_zeros)
