"""Matrix decompositions; real matrices (``eig`` has complex results), leading axes are batches.

Vectors that belong to a repeated eigenvalue or singular value have no derivative: its terms carry a factor 1 / (l_j -
l_i). Where the cotangent of such vectors is zero by structure (``support``), because a function takes the values alone,
or other vectors, the terms are zero. Else they are NaN, also where the cotangent vanishes: 0 / 0 may have a limit, as
for a matrix function V h(w) V^T, that needs h'. ``scg.limits`` finds it.
"""

import math
from inspect import unwrap

import numpy as np

from scg.core import axes
from scg.core.cotangents import results
from scg.core.primitive import implements, primitive, smooth_primitive
from scg.errors import NotDifferentiable, ScgLinAlgError, ScgValueError, here
from scg.primitives.linalg import finite, inverse, real_only, solution, transposed

EigResult, EighResult = type(np.linalg.eig(np.eye(1))), type(np.linalg.eigh(np.eye(1)))
SVDResult, QRResult = type(np.linalg.svd(np.eye(1))), type(np.linalg.qr(np.eye(1)))


def _symmetric(x):
    return 0.5 * (x + transposed(x))


def _outside(x, basis):
    """(I - B B^T) x: what is left of the columns of x outside the span of the columns of B."""
    return x - basis @ (transposed(basis) @ x)


def _over(numerator, gap, scale, wanted):
    """numerator / gap off the diagonal. Where the gap vanishes to rounding against ``scale`` it is NaN if one of the
    two vectors is ``wanted``, else zero."""
    if 0 in gap.shape:
        return numerator
    other = ~np.eye(gap.shape[-1], dtype=bool)
    tied = _vanishes(gap, scale) & other
    found = numerator / np.where(other & ~tied, gap, np.inf)
    return np.where(tied & (wanted[..., None, :] | wanted[..., :, None]), np.nan, found).astype(found.dtype)


def _vanishes(x, scale):
    return np.abs(x) <= 4 * x.shape[-1] * float(np.finfo(x.dtype).eps) * scale


def _columns(support, k, g):
    """Which columns of result ``k`` are wanted; all where the support is not known."""
    return np.ones(np.shape(g[k])[:-2] + np.shape(g[k])[-1:], bool) if support is None else np.any(support[k], axis=-2)


def _differences(w):
    """The matrix of w_j - w_i, and the largest |w|."""
    return w[..., None, :] - w[..., :, None], np.max(np.abs(w), axis=-1)[..., None, None] if w.shape[-1] else 0.0


def _read_value(a, UPLO):
    apart = np.abs(a - transposed(a)) / math.sqrt(np.finfo(a.dtype).eps)
    symmetric = np.all(apart <= np.max(np.abs(a), axis=(-2, -1), keepdims=True, initial=0), axis=(-2, -1))
    triangle = np.tri(a.shape[-1], dtype=a.dtype) + np.tri(a.shape[-1], k=-1, dtype=a.dtype)
    return np.where(symmetric[..., None, None], np.ones((), a.dtype), triangle if UPLO == "L" else triangle.T)


_read = primitive(_read_value, axes.contraction("ij->kl"), steps=False, name="read")


def _of_triangle(s, a, UPLO):
    """The cotangent of a matrix of which one triangle is read, from the symmetric one S: along symmetric changes dA it
    is S, or the triangle alone with twice what is off the diagonal, as <S, dA> is the same. The first is given where A
    is symmetric, to half the digits, so that a step along it stays there; else the second, which NumPy's function has
    everywhere."""
    return s * _read(a, UPLO=UPLO.upper())


# Cholesky


def _cholesky_vjp(g, out, a):
    """S = sym(L^-T Phi(L^T G) L^-1), Phi the lower triangle with its diagonal halved (Murray 2016, eq. 8)."""
    n = a.shape[-1]
    phi = np.tri(n, dtype=a.dtype) - 0.5 * np.eye(n, dtype=a.dtype)
    root = inverse(out)
    return _of_triangle(_symmetric(transposed(root) @ (phi * (transposed(out) @ g)) @ root), a, "L")


_cholesky = smooth_primitive(
    unwrap(np.linalg.cholesky), axes.contraction("ij->kl"), _cholesky_vjp, name="cholesky", triangle=True
)


@implements(np.linalg.cholesky)
def cholesky(a, /, *, upper=False):
    """L with L L^T = A (or U = L^T). One triangle is read: the gradient is the symmetric one of a symmetric A, and that
    of the triangle where A is not symmetric."""
    real_only(a, "cholesky")
    return transposed(_cholesky(transposed(a))) if upper else _cholesky(a)


# eigenvalues


def _eigh_vjp(g, out, a, UPLO, support=None):
    """S = sym(V (diag(g_w) + (M - M^T) / 2 (w_j - w_i)) V^T) with M = V^T G_V (Giles 2008, section 3.1)."""
    w, v = out
    m, unit = transposed(v) @ g[1], np.eye(w.shape[-1], dtype=w.dtype)
    gap, scale = _differences(w)
    inside = 0.5 * _over(m - transposed(m), gap, scale, _columns(support, 1, g)) + g[0][..., None, :] * unit
    return _of_triangle(_symmetric(v @ inside @ transposed(v)), a, UPLO)


def _eigvalsh_vjp(g, out, a, UPLO):
    """S = V diag(g) V^T: dw_i = v_i^T dA v_i."""
    v = np.linalg.eigh(a, UPLO)[1]
    return _of_triangle((v * g[..., None, :]) @ transposed(v), a, UPLO)


def _eigh_side(a, UPLO):
    """The signs of the components of all eigenvectors. LAPACK gives a vector or its opposite, and two change places
    where their eigenvalues are equal: then some of these change, too."""
    return np.linalg.eigh(finite(a), UPLO)[1] > 0


_eigh = primitive(
    lambda a, UPLO: tuple(np.linalg.eigh(a, UPLO)),
    axes.contraction("ij->k,lm"),
    _eigh_vjp,
    name="eigh",
    supported=True,
    steps=_eigh_side,
    triangle=True,
)
_eigvalsh = smooth_primitive(
    unwrap(np.linalg.eigvalsh), axes.contraction("ij->k"), _eigvalsh_vjp, name="eigvalsh", triangle=True
)


@implements(np.linalg.eigh)
def eigh(a, UPLO="L"):
    """A = V diag(w) V^T. One triangle is read: the gradient is as that of ``cholesky``."""
    return EighResult(*results(_eigh(real_only(a, "eigh"), UPLO=UPLO)))


@implements(np.linalg.eigvalsh)
def eigvalsh(a, UPLO="L"):
    return _eigvalsh(real_only(a, "eigvalsh"), UPLO=UPLO)


def _eig_value(a):
    w, v = np.linalg.eig(a)
    kind = np.result_type(w.dtype, np.complex64)
    return w.astype(kind, copy=False), v.astype(kind, copy=False)


def _eig_vjp(g, out, a, support=None):
    """V^-T (diag(g_w) + (V^T G') / (w_j - w_i)) V^T, from dV = V ((V^-1 dA V) / (w_j - w_i)) + V diag(c).

    c keeps LAPACK's scale, |v_k| = 1 and the largest component m of v_k real: Re c_k = -Re v_k^H u_k and Im c_k = -Im
    u_mk / v_mk, which with t_k = v_k^T G_k makes G'_k = G_k - Re(t_k) conj(v_k) - i Im(t_k) / v_mk e_m.
    """
    w, v = out
    n = w.shape[-1]
    unit = np.eye(n, dtype=w.real.dtype)
    if n:
        size = np.where(np.imag(v) == 0, np.abs(v), -1)
        largest = np.arange(n)[:, None] == np.argmax(size, axis=-2)[..., None, :]
        t = np.sum(v * g[1], axis=-2, keepdims=True)
        turned = np.real(t) * np.conjugate(v) + 1j * np.imag(t) * largest / np.where(largest, v, 1)
        gap, scale = _differences(w)
        m = transposed(v) @ (g[1] - turned)
        inside = _over(m, gap, scale, _columns(support, 1, g)) + g[0][..., None, :] * unit
    else:
        inside = g[1]
    return transposed(inverse(v)) @ inside @ transposed(v)


def _eigvals_vjp(g, out, a):
    """V^-T diag(g) V^T: dw_i = (V^-1 dA V)_ii."""
    v = results(_eig(a))[1]
    return transposed(inverse(v)) @ (g[..., :, None] * transposed(v))


_eig = smooth_primitive(_eig_value, axes.contraction("ij->k,lm"), _eig_vjp, name="eig", supported=True)
_eigvals = smooth_primitive(
    lambda a: _eig_dtype(np.linalg.eigvals(a)), axes.contraction("ij->k"), _eigvals_vjp, name="eigvals"
)


def _eig_dtype(w):
    return w.astype(np.result_type(w.dtype, np.complex64), copy=False)


@implements(np.linalg.eig)
def eig(a):
    """A V = V diag(w), scaled as LAPACK does: real where all eigenvalues are, which a replay checks again (GuardError
    where it came out otherwise)."""
    w, v = results(_eig(real_only(a, "eig")))
    return EigResult(np.real(w), np.real(v)) if np.all(np.isreal(w)) else EigResult(w, v)


@implements(np.linalg.eigvals)
def eigvals(a):
    """The eigenvalues: real where all of them are, which a replay checks again (GuardError where it came out
    otherwise)."""
    w = _eigvals(real_only(a, "eigvals"))
    return np.real(w) if np.all(np.isreal(w)) else w


# singular values


def _svd_vjp(g, out, a, full_matrices, support=None):
    """U (diag(g_s) + W) V^T + (I - U U^T) G_U S^-1 V^T + U S^-1 G_V^T (I - V V^T), with, for K = U^T G_U - G_U^T U and
    L likewise in V,

    W_ij = (K_ij s_j + s_i L_ij) / (s_j^2 - s_i^2) = ((K + L)_ij / (s_j - s_i) + (K - L)_ij / (s_j + s_i)) / 2 (Townsend
    2016).

    Columns of U or V beyond the singular values are free to rotate among themselves: they are taken to turn no more
    than they must.
    """
    (u, s, vh), (gu, gs, gvh) = out, g
    m, n = a.shape[-2:]
    k = min(m, n)
    if k == 0:
        return np.zeros(a.shape, a.dtype)
    v, gv, extra_u, extra_v = transposed(vh), transposed(gvh), gu[..., k:], transposed(gvh)[..., k:]
    u, gu, v, gv, u2, v2 = u[..., :k], gu[..., :k], v[..., :k], gv[..., :k], u[..., k:], v[..., k:]
    mu, mv = transposed(u) @ gu, transposed(v) @ gv
    ku, kv = mu - transposed(mu), mv - transposed(mv)
    wanted_u = _columns(support, 0, g)
    wanted_v = np.ones(wanted_u.shape[:-1] + (gvh.shape[-2],), bool) if support is None else np.any(support[2], axis=-1)
    wanted = wanted_u[..., :k] | wanted_v[..., :k]
    gap, scale = _differences(s)
    turns = _over(ku + kv, gap, scale, wanted) + _over(ku - kv, s[..., None, :] + s[..., :, None], scale, wanted)
    inside = 0.5 * turns + gs[..., None, :] * np.eye(k, dtype=a.dtype)
    found = u @ inside @ transposed(v)
    if m > k:
        left = _outside(gu, u) - (u2 @ (transposed(extra_u) @ u) if full_matrices else 0)
        found = found + _columns_over(left, s, wanted_u) @ transposed(v)
    if n > k:
        right = _outside(gv, v) - (v2 @ (transposed(extra_v) @ v) if full_matrices else 0)
        found = found + u @ transposed(_columns_over(right, s, wanted_v))
    return found


def _columns_over(x, s, wanted):
    """Columns of x over s; where s vanishes NaN if the column, or one of those beyond the singular values, is wanted
    for, else zero."""
    k = s.shape[-1]
    tied = _vanishes(s, np.max(s, axis=-1)[..., None])
    found = x / np.where(tied, np.inf, s)[..., None, :]
    wanted = wanted[..., :k] | np.any(wanted[..., k:], axis=-1)[..., None]
    return np.where((tied & wanted)[..., None, :], np.nan, found).astype(found.dtype)


def _svdvals_vjp(g, out, a):
    """U diag(g) V^T: ds_i = u_i^T dA v_i; for s_i = 0 one of the subgradients."""
    u, _, vh = np.linalg.svd(a, full_matrices=False)
    return (u * g[..., None, :]) @ vh


def _svd_side(a, full_matrices):
    """The signs of the components of all vectors, as for ``eigh``."""
    u, _, vh = np.linalg.svd(finite(a), full_matrices=full_matrices)
    return np.concatenate([np.reshape(x > 0, (*x.shape[:-2], -1)) for x in (u, vh)], axis=-1)


_svd = primitive(
    lambda a, full_matrices: tuple(np.linalg.svd(a, full_matrices=full_matrices)),
    axes.contraction("ij->kl,m,no"),
    _svd_vjp,
    name="svd",
    supported=True,
    steps=_svd_side,
)
_svdvals = smooth_primitive(unwrap(np.linalg.svdvals), axes.contraction("ij->k"), _svdvals_vjp, name="svdvals")


@implements(np.linalg.svd)
def svd(a, full_matrices=True, compute_uv=True, hermitian=False):
    """A = U diag(s) V^T, for real A; with ``full_matrices`` the columns beyond min(m, n) are a basis that is not
    unique."""
    if hermitian:
        raise NotDifferentiable(f"np.linalg.svd of a Node takes no hermitian=True: use np.linalg.eigh ({here()})")
    if not compute_uv:
        return _svdvals(real_only(a, "svd"))
    return SVDResult(*results(_svd(real_only(a, "svd"), full_matrices=bool(full_matrices))))


@implements(np.linalg.svdvals)
def svdvals(x, /):
    return _svdvals(real_only(x, "svdvals"))


_rank = primitive(unwrap(np.linalg.matrix_rank), name="matrix_rank")


@implements(np.linalg.matrix_rank)
def matrix_rank(A, tol=None, hermitian=False, *, rtol=None):
    """The number of singular values above a threshold: a constant, its derivative is zero."""
    return _rank(A, tol=tol, hermitian=hermitian, rtol=rtol)


# QR


def _qr_vjp(g, out, a):
    """(G_Q + Q copyltu(M)) R^-T, M = R G_R^T - G_Q^T Q, copyltu the symmetric matrix of the lower triangle (Walter et
    al. 2012; Seeger et al. 2017)."""
    q, r = out
    lower = np.tri(r.shape[-1], dtype=a.dtype)
    m = r @ transposed(g[1]) - transposed(g[0]) @ q
    symmetric = m * lower + transposed(m * (lower - np.eye(r.shape[-1], dtype=a.dtype)))
    return transposed(solution(r, transposed(g[0] + q @ symmetric)))


# no more columns than rows
_qr = primitive(
    lambda a: tuple(np.linalg.qr(a)),
    axes.contraction("ij->kl,mn"),
    _qr_vjp,
    name="qr",
    steps=lambda a: np.linalg.qr(finite(a))[0] > 0,  # a column is one of two opposite ones
)


@implements(np.linalg.qr)
def qr(a, mode="reduced"):
    """A = Q R for A of full rank (else its derivative raises ScgLinAlgError). Further columns Y of a wide A = [X, Y]
    have R = [R_X, Q^T Y]."""
    real_only(a, "qr")
    if a.ndim < 2:
        raise ScgLinAlgError(f"np.linalg.qr needs matrices, got shape {a.shape} ({here()})")
    if mode not in ("reduced", "r", "complete", "raw"):
        raise ScgValueError(f"np.linalg.qr has no mode {mode!r}: use 'reduced' or 'r' ({here()})")
    m, n = a.shape[-2:]
    if mode not in ("reduced", "r") and not (mode == "complete" and m <= n):
        raise NotDifferentiable(
            f"np.linalg.qr of a Node takes mode 'reduced' or 'r', got {mode!r} for shape {a.shape}: the further columns"
            f" of Q are not unique ({here()})"
        )
    q, r = results(_qr(a[..., :m] if n > m else a))
    if n > m:
        r = np.concatenate([r, transposed(q) @ a[..., m:]], axis=-1)
    return r if mode == "r" else QRResult(q, r)
