"""Dirichlet draws of small concentrations."""

import numpy as np
import pytest

import scg
from scg import distributions as dist

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    "dtype, a",
    [
        (float, 1e-3),
        (float, 1e-5),
        (np.float32, 0.03),
        (np.float32, 1e-3),
        (float, 1e-300),
        (float, 0.7),
        (float, 30.0),
    ],
)
def test_dirichlet_draws_of_small_concentrations(dtype, a):
    """Moments within 5.3 standard errors (two tails of 1e-7 each), by sample and by transport; near 0 the distribution
    sits at the vertices."""
    distribution = dist.Dirichlet(np.array([a, 2 * a, a], dtype))
    rng, n = np.random.default_rng(0), 40_000
    u = distribution.noise((n,))[0].sample_as(rng, distribution.noise((n,))[1], distribution.dtype)
    for z in (distribution.sample(rng, n), distribution.transport(u)):
        assert (
            z.dtype == dtype
            and z.min() > 0
            and np.all(distribution.support.contains(z))
            and np.all(np.isfinite(distribution.log_prob(z)))
        )
        z = z.astype(float)
        allowed = 5.3 * np.sqrt(np.asarray(distribution.variance, float) / n)
        assert np.all(np.abs(z.mean(axis=0) - [0.25, 0.5, 0.25]) <= allowed)
        square = z * z  # E z^2 = m (1 + a_k) / (1 + sum a)
        expected = np.array([0.25, 0.5, 0.25]) * (1 + np.array([a, 2 * a, a])) / (1 + 4 * a)
        assert np.all(np.abs(square.mean(axis=0) - expected) <= 5.3 * square.std(axis=0) / np.sqrt(n) + 1e-7)


def test_dirichlet_vertices_have_the_probabilities_of_their_concentrations():
    for a in (np.array([5e-324, 1.5e-323]), np.array([1e-10, 3e-10]), np.array([1e-40, 3e-40], np.float32)):
        share = dist.Dirichlet(a).sample(np.random.default_rng(0), 20_000)[:, 1].mean()
        assert abs(share - a[1] / a.sum()) < 5.3 * np.sqrt(3 / 16 / 20_000)


@pytest.mark.slow
@pytest.mark.parametrize("a", [[1e-3, 1e-3], [0.01, 0.002], [0.03, 2.0], [3.0, 0.5]])
def test_dirichlet_draws_move_with_small_concentrations(a):
    """d E z_0^2 / da of E z_0^2 = a_0 (1 + a_0) / (s (1 + s)), s = sum a, within 5.3 standard errors; each draw's
    derivative by differences."""
    a, n = np.array(a), 200_000
    rng = np.random.default_rng(0)
    u = rng.uniform(1e-16, 1, (n, 2))
    by = scg.parameter(np.broadcast_to(a, (n, 2)))
    square = dist.Dirichlet(by).transport(u)[:, 0] ** 2
    slopes = scg.gradients(np.sum(square), [by])[0]
    s = a.sum()
    exact = a[0] * (1 + a[0]) / (s * (1 + s)) * (np.array([1 / a[0] + 1 / (1 + a[0]), 0]) - (1 / s + 1 / (1 + s)))
    assert abs(square.raw.mean() - a[0] * (1 + a[0]) / (s * (1 + s))) <= 5.3 * square.raw.std() / np.sqrt(n)
    assert np.all(np.abs(slopes.mean(axis=0) - exact) <= 5.3 * slopes.std(axis=0) / np.sqrt(n))
    few = u[:200]
    for k in range(2):
        h = 1e-6 * a * np.eye(2)[k]
        moved = [dist.Dirichlet(a + t).transport(few)[:, 0] ** 2 for t in (h, -h)]
        # differences: eps |log y| / 1e-6 of the slope times a, and their second-order term (1e-6 |log y|)^2 of it
        assert np.all(np.abs((moved[0] - moved[1]) / (2 * h[k]) - slopes[:200, k]) * a[k] <= 1e-5)
