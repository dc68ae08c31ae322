"""The pseudo-inverse and least squares; real matrices, leading axes are batches."""

from inspect import unwrap

import numpy as np

from scg.core import axes
from scg.core.cotangents import results
from scg.core.primitive import implements, primitive
from scg.errors import NotDifferentiable, here
from scg.primitives.layout import as_array
from scg.primitives.linalg import finite, real_only, side_of_singular, transposed


def _pinv_vjp(g, out, a, **tolerance):
    """-P^T G P^T + (I - A P) G^T P P^T + P^T P G^T (I - P A), while the rank stays (Golub and Pereyra 1973, eq.
    4.12)."""
    p, pt, gt = out, transposed(out), transposed(g)
    left, right = gt @ p @ pt, pt @ p @ gt
    return left - a @ (p @ left) + right - (right @ p) @ a - pt @ g @ pt


def _pinv_side(a, rcond=None, rtol=None):
    """How many singular values count, and on which side of the singular matrices a square matrix lies."""
    side = side_of_singular(a) if a.shape[-1] == a.shape[-2] else np.zeros(transposed(a).shape, int)
    least = rtol if rcond is None else rcond
    if least is not None:
        s = np.linalg.svdvals(finite(a))
        counted = s > np.asarray(least)[..., None] * np.max(s, axis=-1, initial=0, keepdims=True)
        side = side + 2 * np.sum(counted, axis=-1)[..., None, None]
    return side


_pinv = primitive(unwrap(np.linalg.pinv), axes.contraction("ij->kl"), _pinv_vjp, name="pinv", steps=_pinv_side)


@implements(np.linalg.pinv)
def pinv(a, rcond=None, hermitian=False, **rtol):
    """The Moore-Penrose inverse; differentiable while the rank stays as it is."""
    if hermitian:
        raise NotDifferentiable(f"np.linalg.pinv of a Node takes no hermitian=True: leave it out ({here()})")
    return _pinv(real_only(a, "pinv"), rcond=rcond, **rtol)


def _lstsq_value(a, b, rcond):
    x, _, rank, _ = np.linalg.lstsq(a, b, rcond)
    return x, np.asarray(rank)


def _check_full_rank(rank, a):
    if rank < min(a.shape):
        raise NotDifferentiable(
            f"np.linalg.lstsq: the matrix of shape {a.shape} has rank {int(getattr(rank, 'value', rank))} only, where"
            " the solution is not continuous; drop dependent columns, or add a ridge: np.linalg.solve(A.T @ A + c I,"
            " A.T @ b)"
        )


def _lstsq_vjp_a(g, out, a, b, rcond):
    """``_pinv_vjp`` for G = g b^T, x = P b: -P^T g x^T + r (P P^T g)^T + P^T x (g - A^T P^T g)^T, r = b - A x."""
    x, rank = out
    _check_full_rank(rank, a)
    p = np.linalg.pinv(a)
    q = transposed(p) @ g[0]
    return (
        (b - a @ x) @ transposed(p @ q) - q @ transposed(x) + (transposed(p) @ x) @ transposed(g[0] - transposed(a) @ q)
    )


def _lstsq_vjp_b(g, out, a, b, rcond):
    """P^T g: linear in b for any rank, with the singular values that lstsq took for zero left out."""
    return transposed(_pinv(a, rcond=None, rtol=_cutoff(a, rcond))) @ g[0]


def _cutoff(a, rcond):
    """The relative size under which lstsq takes a singular value for zero."""
    eps = float(np.finfo(a.dtype).eps)
    return eps * max(a.shape) if rcond is None else eps if rcond < 0 else rcond


_lstsq = primitive(
    _lstsq_value,
    None,
    _lstsq_vjp_a,
    _lstsq_vjp_b,
    name="lstsq",
    steps=lambda a, b, rcond: _pinv_side(a, rtol=_cutoff(a, rcond)),
)


@implements(np.linalg.lstsq)
def lstsq(a, b, rcond=None):
    """(x, residuals, rank, s) as NumPy's, differentiable where A has full rank; elsewhere a derivative raises
    NotDifferentiable."""
    a, b = as_array(real_only(a, "lstsq")), as_array(real_only(b, "lstsq"))
    matrix = b[:, None] if b.ndim == 1 else b
    x, rank = results(_lstsq(a, matrix, rcond=rcond))
    m, n = a.shape
    misfit = matrix - a @ x
    residuals = (
        np.sum(misfit * misfit, axis=0)
        if m > n and rank == n
        else misfit[:0, 0]
        if misfit.shape[1]
        else np.zeros(0, x.dtype)
    )
    return (x[:, 0] if b.ndim == 1 else x), residuals, rank, np.linalg.svdvals(a)
