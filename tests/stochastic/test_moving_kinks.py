"""Kinks that are written by square roots, norms and powers: where they move, second derivatives are refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import scg
from scg import distributions as dist
from scg.errors import EstimatorError
from tests.support.drawn import drawn

PATH = scg.Reparameterized()
T = 0.7

W = np.array([1.0, -2.0, 3.0])
SIZES = {  # |u| but for a factor
    "root of a square": (lambda u: np.sqrt(u**2), 1),
    "root of a product": (lambda u: np.sqrt(u * u + 0 * u), 1),
    "power of a square": (lambda u: (u**2) ** 0.5, 1),
    "power of a power": (lambda u: (u**4) ** 0.25, 1),
    "root of squares": (lambda u: np.sqrt(u**2 + (2 * u) ** 2), 5**0.5),
    "norm of one number": (lambda u: np.linalg.norm(np.stack([u], axis=-1), axis=-1), 1),
    "norm of a multiple": (lambda u: np.linalg.norm(u[..., None] * W, axis=-1), 14**0.5),
    "root of a sum": (lambda u: np.sqrt(np.sum((u[..., None] * W) ** 2, axis=-1)), 14**0.5),
    "deviation of two": (lambda u: np.std(np.stack([u, -u]), axis=0), 1),
    "size of a complex number": (lambda u: np.abs(u * (1 + 2j)), 5**0.5),
}
OUTER = (
    (lambda r, u: r, False),
    (lambda r, u: np.exp(-r), False),
    (lambda r, u: (u + 0.4) * r, False),
    (lambda r, u: u * r, True),  # with a slope that is continuous
    (lambda r, u: r**3, True),
    (lambda r, u: np.cos(r), True),
    (lambda r, u: np.sqrt(1 + r * r), True),
)


@drawn(60)
@given(
    st.sampled_from(sorted(SIZES)),
    st.sampled_from(OUTER),
    st.sampled_from([0.0, 0.3, -1.1]),
    st.sampled_from([(), (3,), (2, 1)]),
    st.sampled_from([np.float64, np.float32]),
    st.integers(0, 99),
)
def test_a_second_derivative_refuses_a_root_that_touches_zero(name, outer, place, shape, dtype, seed):
    """c(|u|, u), u = z - place, z ~ N(t, 1): where c has a slope at |u| = 0 its second derivative misses a flux, and is
    refused; else it is that of the cost at the draw, by differences."""
    (size, factor), (c, smooth) = SIZES[name], outer
    t = dtype(T)

    def cost(t, rng):
        u = scg.sample(dist.Normal(t, 1.0), PATH, rng=rng, shape=shape) - place
        return np.sum(c(size(u), u))

    if not smooth:
        with pytest.raises(EstimatorError, match="moves with the parameters"):
            scg.hessian(cost)(t, rng=np.random.default_rng(seed))
        return
    got = scg.hessian(cost)(t, rng=np.random.default_rng(seed))
    z = scg.sample(dist.Normal(t, 1.0), PATH, rng=np.random.default_rng(seed), shape=shape).raw
    u = z.astype(float) - place
    h = 1e-3
    before, at, after = [np.sum(c(factor * np.abs(u + k * h), u + k * h)) for k in (-1, 0, 1)]
    assert got.dtype == dtype
    assert got == pytest.approx((before - 2 * at + after) / h**2, rel=1e-3, abs=1e-2)
