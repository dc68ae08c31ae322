"""Reshaping, transposing, broadcasting and joining: elements change their place, not their value."""

import numpy as np

from scg import axes
from scg.axes import elementwise
from scg.graph import implements, primitive

alias = primitive(lambda x: x, elementwise, lambda g, out, x: g, name="alias")
"""The same value as a node of its own."""

stop_gradient = primitive(lambda x: x, elementwise, name="stop_gradient")
"""The same value, held constant: its derivative is zero."""

_reshape = primitive(lambda x, shape: np.reshape(x, shape), axes.reshape, lambda g, out, x, shape: np.reshape(g, x.shape), name="reshape")
_transpose = primitive(lambda x, axes: np.transpose(x, axes), axes.transpose, lambda g, out, x, axes: np.transpose(g, np.argsort(axes)), name="transpose")
_broadcast_to = primitive(lambda x, shape: np.broadcast_to(x, shape), axes.broadcast_to, lambda g, out, x, shape: g, name="broadcast_to")
_astype = primitive(lambda x, dtype: x.astype(dtype), elementwise, lambda g, out, x, dtype: g, name="astype")


@implements(np.reshape)
def reshape(a, /, shape, order="C", *, copy=None):
    shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
    if -1 in shape:
        known = int(np.prod([n for n in shape if n != -1], dtype=int))
        shape = tuple([a.size // known if n == -1 and known else n for n in shape])
    if order != "C":
        return transpose(reshape(transpose(a), shape[::-1]))
    return _reshape(a, shape=shape)


@implements(np.transpose)
def transpose(a, axes=None):
    return _transpose(a, axes=tuple(range(a.ndim))[::-1] if axes is None else tuple([i % a.ndim for i in axes]))


@implements(np.broadcast_to)
def broadcast_to(array, shape, subok=False):
    return _broadcast_to(array, shape=(shape,) if isinstance(shape, int) else tuple(shape))


@implements(np.astype)
def astype(x, dtype, /, *, copy=True, device=None, **casting):
    if x.dtype == dtype:
        return x
    return _astype(x, dtype=np.dtype(dtype)) if np.dtype(dtype).kind in "fc" else _as_integer(x, dtype=np.dtype(dtype))
