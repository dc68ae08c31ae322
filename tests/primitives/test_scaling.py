"""Norms and standard deviations of numbers whose powers vanish or overflow: their values are NumPy's, and their
derivatives right."""

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import scg
from tests.support.drawn import drawn

ROOTS = {  # as NumPy computes them, and by mpmath
    "norm": (np.linalg.norm, lambda x: power_norm(x, 2)),
    "norm along an axis": (lambda x: np.linalg.norm(x[None], axis=1)[0], lambda x: power_norm(x, 2)),
    "norm of a matrix": (lambda x: np.linalg.norm(np.reshape(x, (2, 2)), "fro", (0, 1)), lambda x: power_norm(x, 2)),
    "norm of order 3": (lambda x: np.linalg.norm(x, 3), lambda x: power_norm(x, 3)),
    "norm of order 1.5": (lambda x: np.linalg.norm(x, 1.5), lambda x: power_norm(x, 1.5)),
    "norm of order -2": (lambda x: np.linalg.norm(x, -2), lambda x: power_norm(x, -2)),
    "vector_norm": (lambda x: np.linalg.vector_norm(x, keepdims=True)[0], lambda x: power_norm(x, 2)),
    "norm of complex numbers": (lambda x: np.linalg.norm(x[:2] + 1j * x[2:]), lambda x: power_norm(x, 2)),
    "hypot": (np.hypot.reduce, lambda x: power_norm(x, 2)),
    "std": (np.std, lambda x: power_norm([a - sum(x) / 4 for a in x], 2) / 2),
    "std of a sample": (lambda x: np.std(x, ddof=1), lambda x: power_norm([a - sum(x) / 4 for a in x], 2) / 3**0.5),
}
SIZES = [1e-306, 1e-200, 1e-170, 1e-161, 1e-155, 1e-110, 1.0, 1e120, 1e155, 1e200], [1e-30, 1e-22, 1e-14, 1e14, 1e22]


def power_norm(x, p):
    return sum(abs(a) ** mpmath.mpf(p) for a in x) ** (1 / mpmath.mpf(p))


@drawn(80)
@given(
    st.sampled_from(sorted(ROOTS)),
    st.lists(st.sampled_from([-2.5, -1.0, 0.5, 0.75, 3.0, 4.0]), min_size=4, max_size=4, unique=True),
    st.sampled_from([*SIZES[0], *map(np.float32, SIZES[1])]),
)
def test_a_root_of_powers_has_its_derivatives_at_any_size(name, shape, size):
    fn, exact = ROOTS[name]
    dtype = np.float32 if isinstance(size, np.float32) else np.float64
    x = (np.array(shape) * size).astype(dtype)
    with np.errstate(all="ignore"):
        plain, (value, gradient), second = fn(x), scg.value_and_grad(fn)(x), scg.hessian(fn)(x) @ x
    assert value == pytest.approx(plain, rel=4 * float(np.finfo(dtype).eps), abs=0, nan_ok=True)
    with mpmath.workdps(60):
        unit = [mpmath.mpf(float(a)) / mpmath.mpf(float(size)) for a in x]  # the derivative is the same at any size
        right = [float(mpmath.diff(lambda a, k=k: exact([*unit[:k], a, *unit[k + 1 :]]), unit[k])) for k in range(4)]
    rel = 1e-4 if dtype is np.float32 else 1e-9
    assert gradient.dtype == dtype
    assert gradient == pytest.approx(np.array(right), rel=rel, abs=rel)
    if np.all(np.isfinite(second)):  # of degree 0, the gradient does not change along x
        assert second == pytest.approx(np.zeros(4), abs=1e-3 if dtype is np.float32 else 1e-7)


def test_rows_of_different_sizes_have_each_its_derivative():
    x = np.array([[3e-170, 4e-170], [3.0, 4.0], [0.0, 0.0], [3e170, 4e170], [np.inf, 1.0]])
    with np.errstate(all="ignore"):
        value, gradient = scg.value_and_grad(lambda x: np.linalg.norm(x[:4], axis=1)[[0, 1, 2]] @ np.ones(3))(x)
        many = scg.jacobian(lambda x: np.linalg.norm(x, axis=1))(x)
    assert value == 5
    np.testing.assert_allclose(gradient[:3], [[0.6, 0.8], [0.6, 0.8], [0, 0]], rtol=1e-15)
    np.testing.assert_allclose(many[[0, 1, 2, 3], [0, 1, 2, 3]], [[0.6, 0.8], [0.6, 0.8], [0, 0], [0.6, 0.8]])


def test_a_plan_sees_that_powers_vanish():
    fn = scg.value_and_grad(np.linalg.norm)
    step = scg.compile(fn)
    for size in [1.0, 2.0, 3.0, 1e-170, 1.0, 1e-200, 1e200]:
        x = size * np.array([3.0, 4.0])
        with np.errstate(all="ignore"):
            (value, gradient), (plain, expected) = step(x), fn(x)
        assert value == plain
        assert np.array_equal(gradient, expected)
        assert gradient == pytest.approx(np.array([0.6, 0.8]))
