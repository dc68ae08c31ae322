"""Linear algebra without decompositions: inverses, systems, determinants, powers and chains. Leading axes are batches,
as in NumPy.

Norms stand in ``norms``, decompositions in ``decompositions``, the pseudo-inverse in ``least_squares``.
"""

import functools
import operator
from inspect import unwrap

import numpy as np

from scg.core import axes
from scg.core.cotangents import results
from scg.core.primitive import Primitive, implements, primitive, smooth_primitive
from scg.errors import NotDifferentiable, ScgLinAlgError, ScgTypeError, ScgValueError, here
from scg.primitives import contraction
from scg.primitives.layout import as_array

SlogdetResult = type(np.linalg.slogdet(np.eye(1)))


def transposed(x):
    """The transpose of the last two axes; never conjugated, as cotangents want it."""
    return np.swapaxes(x, -1, -2)


def inner(x, y):
    """<x, y> = sum_ij x_ij y_ij of each matrix, with two axes of length one."""
    return np.sum(x * y, axis=(-2, -1), keepdims=True)


def finite(a):
    """Matrices, zeros in place of those that are not finite, of which LAPACK knows no decomposition."""
    return np.where(np.all(np.isfinite(a), axis=(-2, -1), keepdims=True), a, 0)


def side_of_singular(a, b=None, **statics):
    """On which side of the singular matrices a square matrix lies: where its determinant changes its sign its inverse
    comes from one infinity to the other. Of complex matrices those are too few to lie between others."""
    positive = a.dtype.kind != "c" and np.linalg.slogdet(a)[0] > 0
    return np.broadcast_to(np.reshape(positive, np.shape(positive) + (1, 1)), np.shape(a if b is None else a @ b))


# inverses and systems (Giles 2008, sections 2.2.3 and 2.3.1)

_inv = primitive(
    unwrap(np.linalg.inv),
    axes.contraction("ij->kl"),
    lambda g, out, a: -(transposed(out) @ g @ transposed(out)),
    name="inv",
    steps=side_of_singular,
)
_solve: Primitive = primitive(
    unwrap(np.linalg.solve),
    axes.contraction("ij,jk->lk"),
    lambda g, out, a, b: -(_solve(transposed(a), g) @ transposed(out)),
    lambda g, out, a, b: _solve(transposed(a), g),
    name="solve",
    linear=[(1,)],
    steps=side_of_singular,
)


@implements(np.linalg.inv)
def inv(a):
    return _inv(a)


@implements(np.linalg.solve)
def solve(a, b):
    a, b = as_array(a), as_array(b)
    return _solve(a, b[:, None])[..., 0] if b.ndim == 1 else _solve(a, b)


@implements(np.linalg.tensorinv)
def tensorinv(a, ind=2):
    if ind <= 0:
        raise ScgValueError(f"np.linalg.tensorinv needs ind > 0, got {ind} ({here()})")
    rows = int(np.prod(a.shape[ind:], dtype=int))
    return np.reshape(_inv(np.reshape(a, (rows, -1))), a.shape[ind:] + a.shape[:ind])


@implements(np.linalg.tensorsolve)
def tensorsolve(a, b, axes=None):
    a, b = as_array(a), as_array(b)
    order = list(range(a.ndim))
    for k in axes or ():
        order.remove(k)
        order.insert(a.ndim, k)
    a = np.transpose(a, order) if axes is not None else a
    shape = a.shape[b.ndim - a.ndim :]
    size = int(np.prod(shape, dtype=int))
    if a.size != size**2:
        raise ScgLinAlgError(
            f"np.linalg.tensorsolve needs prod(a.shape[b.ndim:]) == prod(a.shape[:b.ndim]), got a of shape {a.shape}"
            f" and b of {b.shape} ({here()})"
        )
    return np.reshape(solve(np.reshape(a, (size, size)), np.ravel(b)), shape)


def each_or_nan(fn):
    """``fn`` of stacks of matrices, with NaN for those of a stack for which it raises LinAlgError; it still raises for
    a matrix by itself."""

    def guarded(*operands):
        try:
            return fn(*operands)
        except np.linalg.LinAlgError:
            leading = np.broadcast_shapes(*[x.shape[:-2] for x in operands])
            if leading == ():
                raise
            stacks = [np.broadcast_to(x, (*leading, *x.shape[-2:])) for x in operands]
            rows = [_or_nan(fn, [x[i] for x in stacks]) for i in np.ndindex(*leading)]
            shape = next((row.shape for row in rows if row.ndim), stacks[-1].shape[-2:])
            found = np.stack([np.broadcast_to(row, shape) for row in rows])
            return found.reshape(*leading, *shape).astype(np.result_type(*operands), copy=False)

    return guarded


def _or_nan(fn, operands):
    try:
        return fn(*operands)
    except np.linalg.LinAlgError:
        return np.full((), np.nan)


inverse = primitive(
    each_or_nan(unwrap(np.linalg.inv)),
    axes.contraction("ij->kl"),
    lambda g, out, a: -(transposed(out) @ g @ transposed(out)),
    name="inverse",
    steps=side_of_singular,
)
"""The inverses of a stack of matrices, NaN for a singular one: for derivatives, where one matrix must not spoil
another."""

solution: Primitive = primitive(
    each_or_nan(unwrap(np.linalg.solve)),
    axes.contraction("ij,jk->lk"),
    lambda g, out, a, b: -(solution(transposed(a), g) @ transposed(out)),
    lambda g, out, a, b: solution(transposed(a), g),
    name="solution",
    linear=[(1,)],
    steps=side_of_singular,
)
"""``np.linalg.solve`` in the same way."""


# determinants: polynomials, so their derivatives exist for singular matrices too


def _rotated(a):
    """A = U S V^T, with det(U) det(V) and the singular values; for complex A both factors conjugated, as plain
    cotangents want them.

    All NaN for a matrix that is not finite, on which LAPACK may give up, and with it on the whole stack.
    """
    finite = np.all(np.isfinite(a), axis=(-2, -1))
    u, s, vh = np.linalg.svd(np.where(finite[..., None, None], a, 0).astype(a.dtype, copy=False))
    s = np.where(finite[..., None], s, np.nan).astype(s.dtype, copy=False)
    return u.conj(), s, vh.conj(), np.conj(np.linalg.det(u.conj()) * np.linalg.det(vh.conj()))[..., None, None]


def _cofactor_value(a):
    """Cofactors, det(A) A^-T: det(U) det(V) U diag(prod_{k != i} s_k) V^T, which needs no inverse."""
    u, s, vh, sign = _rotated(a)
    others = np.prod(np.where(np.eye(s.shape[-1], dtype=bool), 1, s[..., None, :]), axis=-1)
    return (sign * (u * others[..., None, :]) @ vh).astype(a.dtype, copy=False)


def _det_curvature_value(a, h):
    """D[H]_ij = sum_kl H_kl d^2 det(A) / dA_ij dA_kl.

    For diagonal S it is -P_ij H_ji off the diagonal and sum_{j != i} P_ij H_jj on it, with P_ij the product of all s
    but s_i and s_j.
    """
    u, s, vh, sign = _rotated(a)
    unit = np.eye(s.shape[-1], dtype=bool)
    pairs = np.prod(np.where(unit[:, None] | unit, 1, s[..., None, None, :]), axis=-1) * ~unit
    inside = np.swapaxes(u, -1, -2) @ h @ np.swapaxes(vh, -1, -2)
    diagonal = (pairs @ np.diagonal(inside, axis1=-2, axis2=-1)[..., None])[..., 0]
    curved = unit * diagonal[..., None, :] - pairs * np.swapaxes(inside, -1, -2)
    return (sign * (u @ curved @ vh)).astype(np.result_type(a, h), copy=False)


def _det_third(g, out, a, h):
    """d <G, D[H]> / dA with B = A^-T, <G, D[H]> = det(A) (<H, B><G, B> - tr(G^T B H^T B)); only where A is regular."""
    b = transposed(inverse(a))
    bgb, bhb = b @ transposed(g) @ b, b @ transposed(h) @ b
    gb, hb = inner(g, b), inner(h, b)
    crossed = bhb @ transposed(g) @ b + bgb @ transposed(h) @ b
    return np.linalg.det(a)[..., None, None] * (b * (gb * hb - inner(g, bhb)) - bhb * gb - bgb * hb + crossed)


_det = smooth_primitive(
    unwrap(np.linalg.det), axes.contraction("ij->"), lambda g, out, a: g[..., None, None] * _cofactor(a), name="det"
)
_cofactor: Primitive = smooth_primitive(
    _cofactor_value, axes.contraction("ij->kl"), lambda g, out, a: _det_curvature(a, g), name="cofactor"
)
_det_curvature: Primitive = smooth_primitive(
    _det_curvature_value,
    axes.contraction("ij,kl->mn"),
    _det_third,
    lambda g, out, a, h: _det_curvature(a, g),
    name="det_curvature",
)
_slogdet = smooth_primitive(
    lambda a: tuple(np.linalg.slogdet(a)),
    axes.contraction("ij->,"),
    lambda g, out, a: g[1][..., None, None] * transposed(inverse(a)),  # the sign is constant
    name="slogdet",
)


@implements(np.linalg.det)
def det(a):
    return _det(a)


@implements(np.linalg.slogdet)
def slogdet(a):
    sign, logarithm = results(_slogdet(real_only(a, "slogdet", "np.log(np.linalg.det(a))")))
    return SlogdetResult(np.sign(sign), logarithm)  # np.sign says that it jumps


def real_only(a, name, instead="the real matrix of blocks [[re, -im], [im, re]]"):
    """Refuses a complex Node, for a function whose complex derivative is not declared."""
    if getattr(a, "dtype", np.dtype(float)).kind == "c":
        raise NotDifferentiable(f"np.linalg.{name} of a complex Node has no derivative: use {instead} ({here()})")
    return a


# powers and chains

_identity = primitive(
    lambda a: np.broadcast_to(np.eye(a.shape[-1], dtype=a.dtype), a.shape), axes.contraction("ij->ij"), name="identity"
)


@implements(np.linalg.matrix_power)
def matrix_power(a, n):
    try:
        n = operator.index(n)
    except TypeError:
        raise ScgTypeError(f"np.linalg.matrix_power needs an integer exponent, got {n!r} ({here()})") from None
    if a.ndim < 2 or a.shape[-1] != a.shape[-2]:
        raise ScgLinAlgError(f"np.linalg.matrix_power needs square matrices, got shape {a.shape} ({here()})")
    if n == 0:
        return _identity(a)
    square, n = (_inv(a) if n < 0 else a), abs(n)
    product = None
    while n:
        if n & 1:
            product = square if product is None else product @ square
        n >>= 1
        if n:
            square = square @ square
    return product


@implements(np.linalg.multi_dot)
def multi_dot(arrays):
    """The product in the order of fewest multiplications (Cormen et al., chapter 15)."""
    arrays = [as_array(a) for a in arrays]
    if len(arrays) < 2:
        raise ScgValueError(f"np.linalg.multi_dot needs at least two arrays, got {len(arrays)} ({here()})")
    first, last = arrays[0].ndim == 1, arrays[-1].ndim == 1
    arrays[0] = arrays[0][None, :] if first else arrays[0]
    arrays[-1] = arrays[-1][:, None] if last else arrays[-1]
    if any(a.ndim != 2 for a in arrays):
        raise ScgLinAlgError(
            f"np.linalg.multi_dot needs matrices, and vectors at its ends only, got shapes {[a.shape for a in arrays]}"
            f" ({here()})"
        )
    sizes = [a.shape[0] for a in arrays] + [arrays[-1].shape[1]]

    @functools.cache
    def plan(i, j):  # (cost, split) of the product of arrays[i:j]
        if j - i == 1:
            return 0, i
        return min((plan(i, k)[0] + plan(k, j)[0] + sizes[i] * sizes[k] * sizes[j], k) for k in range(i + 1, j))

    def product(i, j):
        k = plan(i, j)[1]
        return arrays[i] if j - i == 1 else product(i, k) @ product(k, j)

    return product(0, len(arrays))[0 if first else slice(None), 0 if last else slice(None)]


# norms


# the array API's names for what NumPy has elsewhere


@implements(np.linalg.matmul)
def matmul(x1, x2, /):
    return np.matmul(x1, x2)


@implements(np.linalg.matrix_transpose)
def matrix_transpose(x, /):
    return np.matrix_transpose(x)


@implements(np.linalg.outer)
def outer(x1, x2, /):
    x1, x2 = as_array(x1), as_array(x2)
    if x1.ndim != 1 or x2.ndim != 1:
        raise ScgValueError(
            f"np.linalg.outer needs two vectors, got shapes {x1.shape} and {x2.shape}: use np.outer ({here()})"
        )
    return np.outer(x1, x2)


@implements(np.linalg.cross)
def cross(x1, x2, /, *, axis=-1):
    x1, x2 = as_array(x1), as_array(x2)
    if x1.shape[axis] != 3 or x2.shape[axis] != 3:
        raise ScgValueError(
            f"np.linalg.cross needs vectors of length 3 along axis {axis}, got shapes {x1.shape} and {x2.shape}"
            f" ({here()})"
        )
    return np.cross(x1, x2, axis=axis)


@implements(np.linalg.tensordot)
def tensordot(x1, x2, /, *, axes=2):
    return np.tensordot(x1, x2, axes=axes)


@implements(np.linalg.vecdot)
def vecdot(x1, x2, /, *, axis=-1):
    return contraction.vecdot(x1, x2, axis=axis)


@implements(np.linalg.diagonal)
def diagonal(x, /, *, offset=0):
    return np.diagonal(x, offset, -2, -1)


@implements(np.linalg.trace)
def trace(x, /, *, offset=0, dtype=None):
    return np.trace(x, offset, -2, -1, dtype)
