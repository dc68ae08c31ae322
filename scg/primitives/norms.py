"""Norms of vectors and matrices, and the condition number."""

import math
import operator

import numpy as np

from scg.core import axes
from scg.core.primitive import implements, primitive
from scg.errors import ScgLinAlgError, ScgTypeError, ScgValueError, here
from scg.primitives.elementwise import always, over_radius
from scg.primitives.linalg import inv
from scg.primitives.reduction import kept
from scg.primitives.scaling import rescaled


def _norm_value(x, axis, keepdims):
    if axis is None and not keepdims:
        return np.linalg.norm(x)  # one pass
    return np.sqrt(np.add.reduce((x.conj() * x).real, axis=axis, keepdims=keepdims))


def _norm_vjp(g, out, x, axis, keepdims):
    """x^* / ||x||, and zero at x = 0: the subgradient of least norm."""
    slope = kept(over_radius(g, out), x, axis, keepdims)
    return slope * (np.conjugate(x) if x.dtype.kind == "c" else x)


def _norm_side(x, axis=None, keepdims=False, **_):
    """The norm of one number has a kink where it is zero; that of a vector has one at a point, which no piece ends
    at."""
    gone = tuple([a % (x.ndim - 1) + 1 for a in (range(x.ndim - 1) if axis is None else np.atleast_1d(axis))])
    one = math.prod([x.shape[a] for a in gone]) == 1
    return np.any((x > 0) & one, axis=gone, keepdims=bool(keepdims))


_norm = primitive(_norm_value, axes.reduction, _norm_vjp, name="norm", kinks=_norm_side, sign=always(1))


@implements(np.linalg.norm)
def norm(x, ord=None, axis=None, keepdims=False):
    """||x|| of vectors or matrices. Where several elements attain an extremum they share its gradient; at 0 the
    gradient is 0."""
    x = x if x.dtype.kind in "fc" else x.astype(float)
    if axis is None and (ord is None or (ord == 2 and x.ndim == 1) or (x.ndim == 2 and ord in ("f", "fro"))):
        return _euclidean(x, None, bool(keepdims))
    try:
        axis = tuple(range(x.ndim)) if axis is None else axis if isinstance(axis, tuple) else (operator.index(axis),)
    except TypeError:
        raise ScgTypeError(
            f"np.linalg.norm needs an integer or a tuple of integers as axis, got {axis!r} ({here()})"
        ) from None
    if len(axis) == 1:
        return _vector_norm(x, ord, axis, bool(keepdims))
    if len(axis) == 2:
        return _matrix_norm(x, ord, axis, bool(keepdims))
    raise ScgValueError(f"np.linalg.norm needs one axis or two, got {axis} for shape {x.shape} ({here()})")


def _euclidean(x, axis, keepdims):
    return _rescaled(lambda x: _norm(x, axis=axis, keepdims=keepdims), x, axis, 2)


def _rescaled(fn, x, axis, power):
    return rescaled(fn, x, fn(x), lambda x: np.max(np.abs(x), axis=axis, keepdims=True), power)


def _vector_norm(x, ord, axis, keepdims):
    if ord is None or ord == 2:
        return _euclidean(x, axis, keepdims)
    if isinstance(ord, str):
        raise ScgValueError(f"np.linalg.norm: no order {ord!r} for vectors; use a number ({here()})")
    if ord == 0:
        return np.sum((x != 0).astype(x.dtype if x.dtype.kind == "f" else abs(x).dtype), axis=axis, keepdims=keepdims)
    size = np.abs(x)
    if ord == np.inf:
        return np.max(size, axis=axis, keepdims=keepdims, initial=0)
    if ord == -np.inf:
        return np.min(size, axis=axis, keepdims=keepdims)
    if ord == 1:
        return np.sum(size, axis=axis, keepdims=keepdims)
    p = float(ord)
    # the second derivative of u^(1/p), u = sum |x|^p, is as |x|^(1 - 2p)
    return _rescaled(lambda x: np.sum(x**p, axis=axis, keepdims=keepdims) ** (1 / p), size, axis, 2 * abs(p) + 1)


def _matrix_norm(x, ord, axis, keepdims):
    if (
        isinstance(ord, str)
        and ord not in ("f", "fro", "nuc")
        or not isinstance(ord, str)
        and ord not in (None, 1, -1, 2, -2, np.inf, -np.inf)
    ):
        raise ScgValueError(
            f"np.linalg.norm: no order {ord!r} for matrices; use 'fro', 'nuc', 1, -1, 2, -2, inf or -inf ({here()})"
        )
    row, column = (np.lib.array_utils.normalize_axis_index(a, x.ndim) for a in axis)
    if row == column:
        raise ScgValueError(f"np.linalg.norm needs two different axes, got {axis} ({here()})")
    if ord in (None, "f", "fro"):
        return _euclidean(x, axis, keepdims)
    if ord in (1, -1, np.inf, -np.inf):
        summed, ranged = (row, column) if abs(ord) == 1 else (column, row)
        sums = np.sum(np.abs(x), axis=summed, keepdims=True)
        total = (
            np.max(sums, axis=ranged, keepdims=True, initial=0) if ord > 0 else np.min(sums, axis=ranged, keepdims=True)
        )
    else:
        s = np.linalg.svdvals(np.moveaxis(x, (row, column), (-2, -1)))
        total = (
            np.sum(s, axis=-1) if ord == "nuc" else np.max(s, axis=-1, initial=0) if ord == 2 else np.min(s, axis=-1)
        )
    shape = [1 if i in (row, column) else n for i, n in enumerate(x.shape)]
    return np.reshape(total, shape if keepdims else [n for i, n in enumerate(x.shape) if i not in (row, column)])


@implements(np.linalg.vector_norm)
def vector_norm(x, /, *, axis=None, keepdims=False, ord=2):
    if isinstance(axis, int):
        return norm(x, ord, axis, keepdims)
    gone = np.lib.array_utils.normalize_axis_tuple(range(x.ndim) if axis is None else axis, x.ndim)
    rest = [i for i in range(x.ndim) if i not in gone]
    flat = np.reshape(
        np.transpose(x, [*gone, *rest]),
        [int(np.prod([x.shape[i] for i in gone], dtype=int)), *[x.shape[i] for i in rest]],
    )
    found = norm(flat, ord, 0)
    return np.reshape(found, [1 if i in gone else n for i, n in enumerate(x.shape)]) if keepdims else found


@implements(np.linalg.matrix_norm)
def matrix_norm(x, /, *, keepdims=False, ord="fro"):
    return norm(x, ord, (-2, -1), keepdims)


@implements(np.linalg.cond)
def cond(x, p=None):
    """||A|| ||A^-1||. A singular matrix has infinity for p = 2, and has no inverse to take a norm of for the others:
    ScgLinAlgError."""
    if 0 in x.shape[-2:]:
        raise ScgLinAlgError(f"np.linalg.cond is not defined on empty matrices, got shape {x.shape} ({here()})")
    if p is None or p in (2, -2):
        s = np.linalg.svdvals(x)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = s[..., -1] / s[..., 0] if p == -2 else s[..., 0] / s[..., -1]
        return np.where(s[..., 0] == 0, np.inf, ratio)
    return norm(x, p, (-2, -1)) * norm(inv(x), p, (-2, -1))
