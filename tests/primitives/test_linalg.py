"""What the catalogue of cases cannot say of ``np.linalg``, ``np.fft`` and ``np.emath``: ties, singular points, batches,
branches, refusals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import scg
from scg.core.ancestry import ancestors
from scg.errors import GuardError, NotDifferentiable, ScgLinAlgError
from scg.stochastic.dependence import influence
from tests.support.drawn import drawn

la = np.linalg
seeds = st.integers(0, 2**32 - 1)


def tied(seed):
    """A symmetric matrix with eigenvalues 1, 1, 2, and a random one."""
    rng = np.random.default_rng(seed)
    q = la.qr(rng.standard_normal((3, 3)))[0]
    return (q * [1.0, 1.0, 2.0]) @ q.T, rng.standard_normal((3, 3))


@given(seeds)
def test_ties_leave_the_gradient_of_values_and_of_other_vectors(seed):
    a, c = tied(seed)
    units = 2**12 * np.finfo(float).eps  # the gap of the untied value is 1
    np.testing.assert_allclose(scg.grad(lambda a: np.sum(la.eigh(a)[0] ** 2))(a), 2 * a, 0, units)
    np.testing.assert_allclose(scg.grad(lambda a: np.sum(la.svd(a)[1] ** 2))(a), 2 * a, 0, units)
    w, v = la.eigh(a)
    k = v[:, 2:] @ v[:, 2:].T
    # d k = (I - k) da k + its transpose, since w_2 - w_i = 1 for both others
    m = (np.eye(3) - k) @ (c + c.T) @ k / 2
    np.testing.assert_allclose(
        scg.grad(lambda a: np.sum(c * (la.eigh(a)[1][:, 2:] @ la.eigh(a)[1][:, 2:].T)))(a),
        m + m.T,
        0,
        units * np.abs(c).max(),
    )


READ = {
    "eigvalsh": lambda a: np.sum(la.eigvalsh(a) ** 3),
    "eigvalsh of the upper triangle": lambda a: np.sum(la.eigvalsh(a, "U") ** 3),
    "eigh": lambda a: np.sum(la.eigh(a)[0] ** 3) + np.sum(la.eigh(a)[1] ** 4),
    "eigh of the upper triangle": lambda a: np.sum(la.eigh(a, "u")[1] ** 4),
    "cholesky": lambda a: np.sum(la.cholesky(a) ** 3),
    "cholesky of the upper triangle": lambda a: np.sum(la.cholesky(a, upper=True) ** 3),
}


@pytest.mark.parametrize("name", READ)
def test_the_gradient_is_that_of_the_triangle_that_is_read_or_the_symmetric_one_of_a_symmetric_matrix(name):
    fn, rng = READ[name], np.random.default_rng(0)
    a = 0.3 * rng.standard_normal((2, 3, 3)) + np.diag([2.0, 3.0, 4.0])
    a[1] = a[1] + a[1].T
    gradient = scg.grad(fn)(a)
    scg.testing.check_gradient(lambda one: fn(one[None]), a[0], order=2)
    np.testing.assert_array_equal(gradient[1], gradient[1].T)
    # of a symmetric one: along symmetric changes
    turned = lambda x: fn(np.stack([a[0], a[1] + x + x.T]))
    scg.testing.check_gradient(turned, np.zeros((3, 3)), order=2)
    nearly = a[1] + 1e-9 * rng.standard_normal((3, 3))
    np.testing.assert_allclose(scg.grad(fn)(nearly[None])[0], gradient[1], 1e-6)


def spectral(a, h, c):
    """<c, h(A)> by way of eigenvectors, and of singular vectors."""
    w, v = la.eigh(a)
    u, s, vh = la.svd(a)
    return np.sum(c * ((v * h(w)) @ v.T)), np.sum(c * ((u * h(s)) @ vh))


@drawn(30)
@given(seeds, st.integers(0, 3))
def test_functions_of_a_matrix_have_a_derivative_where_values_are_equal(seed, rank):
    """Those of A = Q diag(w) Q^T are Q (H * Q^T C Q) Q^T with the differences H_ij = (h(w_i) - h(w_j)) / (w_i - w_j),
    h'(w_i) where they are equal.

    svd gives h of the singular values, which for w >= 0 is h of the eigenvalues, along symmetric directions. Where
    zeros are among them h must be odd.
    """
    rng = np.random.default_rng(seed)
    q = la.qr(rng.standard_normal((4, 4)))[0]
    w = np.array([2.0, 2.0, 3.0, 3.0]) * (np.arange(4) < rank + 1)
    a, c = (q * w) @ q.T, rng.standard_normal((4, 4))
    a = (a + a.T) / 2
    for h, slope in ((lambda x: x, np.ones_like), (lambda x: x**3, lambda x: 3 * x**2), (lambda x: np.sin(x), np.cos)):
        gap = w[:, None] - w
        ratio = np.where(gap == 0, slope(w), (h(w)[:, None] - h(w)) / np.where(gap == 0, 1, gap))
        expected = q @ (ratio * (q.T @ (c + c.T) @ q / 2)) @ q.T
        for k in range(2):
            found = scg.grad(lambda a: spectral(a, h, c)[k])(a)
            np.testing.assert_allclose((found + found.T) / 2, expected, 1e-6, 1e-6)
            assert k or np.allclose(found, found.T, 1e-6, 1e-6)  # eigh reads one triangle


def test_eigenvectors_of_any_matrix_where_values_are_equal():
    """Right, or NaN where LAPACK's eigenvectors nearby are too close to one another."""
    c = np.random.default_rng(0).standard_normal((3, 3))

    def rebuilt(a):
        w, v = la.eig(a)
        return np.sum(c * np.real((v * w) @ la.inv(v)))

    for a in (np.diag([3.0, 0, 0]), np.diag([1.0, 1, 2]), np.zeros((3, 3)), np.eye(3)):
        found = scg.grad(rebuilt)(a)
        assert np.isnan(found).any() or np.allclose(found, c, 1e-6, 1e-6)


@drawn(30)
@given(seeds)
def test_vectors_of_equal_values_have_none(seed):
    a, c = tied(seed)
    for k in range(3):
        found = scg.grad(lambda a: np.sum(c * (la.eigh(a)[1], la.svd(a)[0], np.real(la.eig(a)[1]))[k]))
        with np.errstate(all="ignore"):
            assert (
                not np.isfinite(found(a)).all()
                and not np.isfinite(found(np.eye(3))).all()
                and not np.isfinite(found(np.zeros((3, 3)))).all()
            )


@given(seeds, st.integers(1, 4))
def test_determinants_of_singular_matrices_have_two_derivatives(seed, n):
    rng = np.random.default_rng(seed)
    a, d, e = rng.integers(-3, 4, (3, n, n)).astype(float)
    a[:, -1] = a[:, 0] if n > 1 else 0
    # det(a + s d + t e) is a polynomial: its mixed and first coefficients from values at small integers, exact but for
    # rounding
    at = lambda s, t: la.det(a + s * d + t * e)
    first = sum(w * (at(s, 0) - at(-s, 0)) for s, w in ((1, 2 / 3), (2, -1 / 12)))
    cross = lambda s: (at(s, s) - at(s, -s) - at(-s, s) + at(-s, -s)) / (4 * s * s)
    mixed = (4 * cross(1) - cross(2)) / 3
    size = np.abs(np.stack([a, d, e])).sum(axis=(1, 2)).max() ** n + 1
    assert abs(np.sum(scg.grad(la.det)(a) * d) - first) <= 2**8 * size * 2**-52
    assert abs(np.sum(scg.hvp(la.det)(a, d) * e) - mixed) <= 2**8 * size * 2**-52


def test_batches_of_several_results_stay_apart():
    x = scg.parameter(np.random.default_rng(0).standard_normal((4, 3, 3)))
    a = np.matmul(x, np.swapaxes(x, -1, -2))
    for results in (la.slogdet(a), la.eigh(a), la.svd(x), la.qr(x)):
        for y in results:
            first, *others = influence(x, 0, ancestors([y]))[y.id].axes
            assert first == (((0, 1, 4), 4),) and all(factor is None for axis in others for factor, _ in axis)


def test_least_squares_of_a_dependent_matrix_has_a_derivative_in_the_right_side_alone():
    a, b = np.array([[1.0, 2], [2, 4], [3, 6]]), np.ones(3)
    for y, z in zip(la.lstsq(scg.parameter(a), b), la.lstsq(a, b), strict=True):
        np.testing.assert_allclose(y.value, z, rtol=0, atol=2**-40)
    with pytest.raises(NotDifferentiable, match="rank 1 only"):
        scg.grad(lambda a: np.sum(la.lstsq(a, b)[0]))(a)
    for rcond in (None, 1e-3):  # in b it is linear
        found = scg.grad(lambda b: la.lstsq(a, b, rcond)[0] @ np.array([1.0, -3.0]))(b)
        np.testing.assert_allclose(found, la.pinv(a, rcond=1e-3).T @ [1.0, -3.0], 1e-12, 1e-12)
    small = np.diag([1.0, 1e-4])
    np.testing.assert_allclose(
        scg.grad(lambda b: np.sum(la.lstsq(small, b, 1e-3)[0]))(np.ones(2)), [1, 0], 1e-12, 1e-12
    )


def test_a_replay_does_not_change_real_results_into_complex_ones():
    x, a = scg.parameter(np.array([1.0, 4.0])), scg.parameter(np.diag([1.0, 2.0]))
    root, values = np.emath.sqrt(x), la.eigvals(a)
    np.testing.assert_array_equal(scg.replay(root, {x: np.array([[9.0, 4.0]])}, batched=[x]), [[3.0, 2.0]])
    for y, node, other in ((root, x, np.array([-1.0, 4.0])), (values, a, np.array([[0.0, 1.0], [-1.0, 0.0]]))):
        with pytest.raises(GuardError):
            scg.replay(y, {node: other})


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda a: la.inv(a), ScgLinAlgError, "Singular matrix"),
        (lambda a: la.cholesky(-a), ScgLinAlgError, "not positive definite"),
        (lambda a: scg.gradients(la.slogdet(a)[1], a), ScgLinAlgError, "slogdet"),
        (lambda a: la.svd(a, hermitian=True), NotDifferentiable, "np.linalg.eigh"),
        (lambda a: la.qr(a[:, :1], "complete"), NotDifferentiable, "'reduced' or 'r'"),
        (lambda a: la.cholesky(a + 1j), NotDifferentiable, "blocks"),
        (lambda a: la.norm(a, 3), ValueError, "'nuc'"),
        (lambda a: np.fft.fft(a, 0), ValueError, "at least one point"),
        (lambda a: np.fft.hfft(a, norm="wrong"), ValueError, "'ortho'"),
    ],
)
def test_refusals_name_the_reason_and_the_line(call, error, says):
    with pytest.raises(error) as caught:
        call(scg.parameter(np.ones((2, 2))))
    assert isinstance(caught.value, scg.ScgError)
    assert says in str(caught.value) and "test_linalg.py" in str(caught.value)
