"""Cases of ``np.linalg`` and ``np.emath``.

Eigenvectors, singular vectors and the factors of QR are unique up to signs, which LAPACK may change from one argument
to the next: the cases take products in which the signs cancel.
"""

import numpy as np

from tests.support.cases import Case, Domain


def regular(x):
    """Well conditioned: a matrix with a dominant diagonal."""
    return x + 6 * np.eye(*x.shape[-2:])


def definite(x):
    return np.matmul(x, np.swapaxes(x, -1, -2)) + np.eye(x.shape[-1])


def spread(x):
    """Symmetric, with eigenvalues far apart (Gershgorin's discs are disjoint)."""
    n = x.shape[-1]
    return (x + np.swapaxes(x, -1, -2)) / 2 + 6 * n * np.diag(np.arange(n))


def uneven(x):
    """Singular values apart and away from zero."""
    m, n = x.shape[-2:]
    return 0.3 * x + np.eye(m, n) * (2.0 + 3 * np.arange(n))


def rotating(x):
    """Two complex eigenvalues and one real one."""
    return 0.3 * x + np.array([[1.0, 4, 0], [-2, 1, 0], [0, 1, 5]])


def dependent(x):
    """Of rank one, whatever x."""
    return x[..., :, :1] * np.array([1.0, -2, 3])


def singular(x):
    """Of rank two at the matrix of ones, and of full rank around it."""
    return x * (np.array([[0.3, 1.7], [-1.1, 0.4], [0.9, -0.6]]) @ np.array([[1.3, -0.2, 0.7], [0.1, 1.9, -0.8]]))


def square(make=None, n=3, *batch):
    return Domain(-1.0, 1.0, (*batch, n, n), make)


def wide(make, m, n, *batch):
    return Domain(-1.0, 1.0, (*batch, m, n), make)


def vector(*shape):
    return Domain(-2.0, 2.0, shape)


def pairs(v):
    """v_ik v_jk for every column k."""
    return v[..., :, None, :] * v[..., None, :, :]


def triples(u, w):
    """u_ik w_kj for every k."""
    return np.swapaxes(u, -1, -2)[..., :, :, None] * w[..., :, None, :]


def eigh(a, **kwargs):
    w, v = np.linalg.eigh(a, **kwargs)
    return w, pairs(v)


def eig(a):
    w, v = np.linalg.eig(a)
    return np.real(w), np.imag(w), np.real(v * np.conjugate(np.sum(v, axis=-2, keepdims=True)))


def svd(a, full_matrices=False):
    u, s, vh = np.linalg.svd(a, full_matrices)
    k = s.shape[-1]
    v = np.swapaxes(vh, -1, -2)
    rest = (
        np.matmul(u[..., k:], np.swapaxes(u[..., k:], -1, -2)),
        np.matmul(v[..., k:], np.swapaxes(v[..., k:], -1, -2)),
    )
    return s, triples(u[..., :k], vh[..., :k, :]), pairs(u[..., :k]), pairs(v[..., :k]), *rest


def qr(a):
    q, r = np.linalg.qr(a)
    return triples(q, r), pairs(q)


def both(z):
    return np.real(z), np.imag(z)


la = np.linalg
NORMS = [
    Case("np.linalg.norm", fn, (vector(*shape),))
    for fn, shape in (
        (lambda x: la.norm(x), (4,)),
        (lambda x: la.norm(x), ()),
        (lambda x: la.norm(x), (2, 3, 2)),
        (lambda x: la.norm(x, keepdims=True), (2, 3)),
        (lambda x: la.norm(x, "fro"), (2, 3)),
        (lambda x: la.norm(x, "fro", (0, -1), True), (2, 3, 2)),
        (lambda x: la.norm(x, None, (1, 2)), (2, 3, 2)),
        (lambda x: la.norm(x, 2), (4,)),
        (lambda x: la.norm(x, axis=-1), (2, 3)),
        (lambda x: la.norm(x, axis=0, keepdims=True), (2, 3)),
        (lambda x: la.norm(x, 1), (4,)),
        (lambda x: la.norm(x, 1, 0), (3, 2)),
        (lambda x: la.norm(x, 3), (4,)),
        (lambda x: la.norm(x, 1.5, 1, True), (2, 3)),
        (lambda x: la.norm(x, -1), (4,)),
        (lambda x: la.norm(x, np.inf), (4,)),
        (lambda x: la.norm(x, -np.inf, 1), (2, 3)),
        (lambda x: la.norm(x, 1), (3, 2)),
        (lambda x: la.norm(x, np.inf, (2, 0)), (3, 2, 2)),
        (lambda x: la.norm(x, -1, (0, 1), True), (3, 2)),
        (lambda x: la.norm(x, -np.inf), (3, 2)),
        (lambda x: la.norm(x[:, 0] + 1j * x[:, 1]), (3, 2)),
        (lambda x: la.norm(x[..., 0] + 1j * x[..., 1], axis=1), (2, 3, 2)),
    )
] + [
    Case("np.linalg.norm", lambda x: la.norm(x, 0, 1), (vector(2, 3),), order=0),
    Case("np.linalg.norm", lambda x: la.norm(x, 2), (wide(uneven, 3, 2),)),
    Case(
        "np.linalg.norm",
        lambda x: la.norm(x, -2, (2, 0)),
        (Domain(-1, 1, (2, 3, 2), lambda x: np.moveaxis(uneven(np.moveaxis(x, (2, 0), (-2, -1))), (-2, -1), (2, 0))),),
    ),
    Case("np.linalg.norm", lambda x: la.norm(x, "nuc", keepdims=True), (square(uneven, 2),)),
    Case("np.linalg.vector_norm", lambda x: la.vector_norm(x), (vector(2, 3),)),
    Case("np.linalg.vector_norm", lambda x: la.vector_norm(x, axis=(0, -1), keepdims=True, ord=3), (vector(2, 3, 2),)),
    Case("np.linalg.vector_norm", lambda x: la.vector_norm(x, axis=(-1, 0)), (vector(2, 3, 2),)),
    Case("np.linalg.vector_norm", lambda x: la.vector_norm(x, axis=-1, keepdims=True), (vector(2, 3),)),
    Case("np.linalg.matrix_norm", lambda x: la.matrix_norm(x), (vector(2, 3, 2),)),
    Case("np.linalg.matrix_norm", lambda x: la.matrix_norm(x, keepdims=True, ord="nuc"), (wide(uneven, 2, 3, 2),)),
]

SYSTEMS = [
    Case("np.linalg.inv", la.inv, (square(regular),)),
    Case("np.linalg.inv", la.inv, (square(regular, 2, 2),)),
    Case("np.linalg.solve", la.solve, (square(regular), vector(3))),
    Case("np.linalg.solve", la.solve, (square(regular), vector(3, 2))),
    Case("np.linalg.solve", la.solve, (square(regular, 2, 2), vector(2, 2))),
    Case("np.linalg.solve", la.solve, (square(regular, 2, 2, 1), vector(3, 2, 1))),
    Case("np.linalg.solve", la.solve, (square(regular, 2, 2), vector(2))),
    Case("np.linalg.tensorinv", lambda a: la.tensorinv(np.reshape(a, (2, 2, 4))), (square(regular, 4),)),
    Case("np.linalg.tensorinv", lambda a: la.tensorinv(np.reshape(a, (4, 2, 2)), ind=1), (square(regular, 4),)),
    Case(
        "np.linalg.tensorsolve",
        lambda a, b: la.tensorsolve(np.reshape(a, (2, 2, 4)), b),
        (square(regular, 4), vector(2, 2)),
    ),
    Case(
        "np.linalg.tensorsolve",
        lambda a, b: la.tensorsolve(np.reshape(a, (4, 2, 2)), b, axes=(0,)),
        (square(regular, 4), vector(2, 2)),
    ),
    Case("np.linalg.det", la.det, (square(),)),
    Case("np.linalg.det", la.det, (square(None, 2, 2),)),
    Case("np.linalg.det", lambda a: 1 + la.det(a), (Domain(1.0, 1.0, (3, 3), singular),)),
    Case("np.linalg.det", la.det, (square(None, 1),)),
    Case("np.linalg.slogdet", la.slogdet, (square(regular),)),
    Case("np.linalg.slogdet", la.slogdet, (square(regular, 2, 2),)),
    Case("np.linalg.matrix_power", lambda a: la.matrix_power(a, 5), (square(),)),
    Case("np.linalg.matrix_power", lambda a: la.matrix_power(a, 3), (square(None, 2, 2),)),
    Case("np.linalg.matrix_power", lambda a: la.matrix_power(a, 0), (square(None, 2, 2),), order=0),
    Case("np.linalg.matrix_power", lambda a: la.matrix_power(a, -2), (square(regular),)),
    Case("np.linalg.multi_dot", lambda a, b: la.multi_dot([a, b]), (vector(2, 3), vector(3, 2))),
    Case("np.linalg.multi_dot", lambda a, b, c: la.multi_dot([a, b, c]), (vector(2), vector(2, 3), vector(3))),
    Case(
        "np.linalg.multi_dot",
        lambda a, b, c, d: la.multi_dot([a, b, c, d]),
        (vector(2, 3), vector(3, 1), vector(1, 4), vector(4)),
    ),
    Case("np.linalg.multi_dot", lambda a, b, c: la.multi_dot([a, b, c]), (vector(2), vector(2, 3), vector(3, 2))),
    Case("np.linalg.cond", la.cond, (square(uneven),)),
    Case("np.linalg.cond", lambda a: la.cond(a, -2), (wide(uneven, 3, 2, 2),)),
    Case("np.linalg.cond", lambda a: la.cond(a, "fro"), (square(regular, 2, 2),)),
    Case("np.linalg.cond", lambda a: la.cond(a, 1), (square(regular),)),
    Case("np.linalg.matrix_rank", la.matrix_rank, (square(dependent),), order=0),
    Case("np.linalg.matrix_rank", lambda a: la.matrix_rank(a, rtol=1e-3), (square(None, 3, 2),), order=0),
]

DECOMPOSITIONS = [
    Case("np.linalg.cholesky", la.cholesky, (square(definite),)),
    Case("np.linalg.cholesky", lambda a: la.cholesky(a, upper=True), (square(definite, 2, 2),)),
    Case("np.linalg.eigh", eigh, (square(spread),)),
    Case("np.linalg.eigh", lambda a: eigh(a, UPLO="U"), (square(spread, 2, 2),)),
    Case("np.linalg.eigvalsh", la.eigvalsh, (square(spread),)),
    Case("np.linalg.eigvalsh", lambda a: la.eigvalsh(a, "U"), (square(spread, 2, 2),)),
    Case("np.linalg.eig", eig, (square(rotating),)),
    Case("np.linalg.eig", eig, (square(spread, 2, 2),)),
    Case("np.linalg.eigvals", lambda a: both(la.eigvals(a)), (square(rotating),)),
    Case("np.linalg.eigvals", la.eigvals, (square(spread, 2, 2),)),
    Case("np.linalg.svd", svd, (square(uneven),)),
    Case("np.linalg.svd", svd, (wide(uneven, 3, 2, 2),)),
    Case("np.linalg.svd", svd, (wide(uneven, 2, 3),)),
    Case("np.linalg.svd", lambda a: svd(a, True), (wide(uneven, 4, 2),)),
    Case("np.linalg.svd", lambda a: svd(a, True), (wide(uneven, 2, 3, 2),)),
    Case("np.linalg.svd", lambda a: la.svd(a, compute_uv=False), (wide(uneven, 3, 2),)),
    Case("np.linalg.svdvals", la.svdvals, (wide(uneven, 2, 3, 2),)),
    Case("np.linalg.qr", qr, (square(uneven),)),
    Case("np.linalg.qr", qr, (wide(uneven, 4, 2, 2),)),
    Case("np.linalg.qr", qr, (wide(uneven, 2, 4),)),
    Case("np.linalg.qr", lambda a: abs(la.qr(a, "r")), (wide(uneven, 3, 2),)),
    Case("np.linalg.pinv", la.pinv, (square(uneven),)),
    Case("np.linalg.pinv", la.pinv, (wide(uneven, 3, 2, 2),)),
    Case("np.linalg.pinv", lambda a: la.pinv(a, rtol=1e-6), (wide(uneven, 2, 3),)),
    Case("np.linalg.lstsq", lambda a, b: la.lstsq(a, b), (wide(uneven, 4, 2), vector(4))),
    Case("np.linalg.lstsq", lambda a, b: la.lstsq(a, b), (wide(uneven, 4, 2), vector(4, 3))),
    Case("np.linalg.lstsq", lambda a, b: la.lstsq(a, b), (wide(uneven, 2, 3), vector(2, 2))),
    Case("np.linalg.lstsq", lambda a, b: la.lstsq(a, b, 1e-10), (square(uneven), vector(3))),
]

ALIASES = [
    Case("np.linalg.matmul", la.matmul, (vector(2, 3), vector(3, 2))),
    Case("np.linalg.matrix_transpose", la.matrix_transpose, (vector(2, 3, 2),)),
    Case("np.linalg.outer", la.outer, (vector(2), vector(3))),
    Case("np.linalg.cross", la.cross, (vector(2, 3), vector(3))),
    Case("np.linalg.cross", lambda x, y: la.cross(x, y, axis=0), (vector(3, 2), vector(3, 2))),
    Case("np.linalg.tensordot", lambda x, y: la.tensordot(x, y, axes=1), (vector(2, 3), vector(3, 2))),
    Case("np.linalg.tensordot", lambda x, y: la.tensordot(x, y, axes=([0], [1])), (vector(2, 3), vector(3, 2))),
    Case("np.linalg.vecdot", la.vecdot, (vector(2, 3), vector(3))),
    Case("np.linalg.vecdot", lambda x, y: la.vecdot(x, y, axis=0), (vector(2, 3), vector(2, 3))),
    Case("np.linalg.diagonal", lambda x: la.diagonal(x, offset=1), (vector(2, 3, 3),)),
    Case("np.linalg.trace", lambda x: la.trace(x, offset=-1), (vector(2, 3, 3),)),
    Case("np.linalg.trace", la.trace, (vector(2, 3),)),
]

INSIDE, NEGATIVE, LARGE, PLUS = (
    Domain(-0.9, 0.9, (3,)),
    Domain(-2.0, -0.3, (3,)),
    Domain(1.2, 3.0, (3,)),
    Domain(0.3, 2.0, (3,)),
)
EMATH = (
    [Case(f"np.emath.{name}", getattr(np.emath, name), (PLUS,)) for name in ("sqrt", "log", "log2", "log10")]
    + [
        Case(f"np.emath.{name}", lambda x, f=getattr(np.emath, name): both(f(x)), (NEGATIVE,))
        for name in ("sqrt", "log", "log2", "log10")
    ]
    + [Case(f"np.emath.{name}", getattr(np.emath, name), (INSIDE,)) for name in ("arccos", "arcsin", "arctanh")]
    + [
        Case(f"np.emath.{name}", lambda x, f=getattr(np.emath, name): both(f(x)), (LARGE,))
        for name in ("arccos", "arcsin", "arctanh")
    ]
    + [
        Case(f"np.emath.{name}", lambda x, f=getattr(np.emath, name): both(f(-x)), (LARGE,))
        for name in ("arccos", "arcsin", "arctanh")
    ]
    + [
        Case("np.emath.power", np.emath.power, (PLUS, PLUS)),
        Case("np.emath.power", lambda x, p: both(np.emath.power(x, p)), (NEGATIVE, PLUS)),
        Case("np.emath.logn", np.emath.logn, (LARGE, PLUS)),
        Case("np.emath.logn", lambda n, x: both(np.emath.logn(n, x)), (LARGE, NEGATIVE)),
    ]
)

CASES = NORMS + SYSTEMS + DECOMPOSITIONS + ALIASES + EMATH
