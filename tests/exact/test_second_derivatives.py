"""Second derivatives of exact means, and along paths, where something that is not smooth moves with a parameter."""

import numpy as np
import pytest

import scg
from scg import distributions as dist
from scg.errors import ScgValueError


def _laplace(t, b, rng):
    return scg.sample(dist.Laplace(t, b), scg.ScoreFunction(), rng=rng, name="z")


def _laplace_by_path(t, b, rng):
    return scg.sample(dist.Laplace(t, b), scg.Reparameterized(), rng=rng, name="z")


def _twice(t, b, rng):
    return scg.sample(
        dist.Transformed(dist.Laplace(0.5 * t, 0.5 * b), dist.Affine(0.0, 2.0)), scg.ScoreFunction(), rng=rng, name="z"
    )


def _mixed(t, b, rng):
    parts = dist.Laplace(np.stack([t, t]), np.stack([b, b]))
    return scg.sample(dist.Mixture(parts, weights=np.array([0.3, 0.7])), scg.ScoreFunction(), rng=rng, name="z")


@pytest.mark.parametrize("draw", [_laplace, _laplace_by_path, _twice, _mixed])
def test_second_derivatives_where_the_density_has_a_kink_that_moves(draw):
    """E[sin z] = sin(t) / (1 + b^2), z ~ Laplace(t, b): the slope of |z - t| jumps where z is t."""
    t, b = point = np.array([0.12, 0.5])
    found = scg.exact.hessian(lambda p, rng: np.sin(draw(p[0], p[1], rng)), point)
    square = 1 + b * b
    mixed = -2 * b * np.cos(t) / square**2
    right = [[-np.sin(t) / square, mixed], [mixed, np.sin(t) * (6 * b * b - 2) / square**3]]
    np.testing.assert_allclose(found, right, rtol=1e-8)
    with pytest.raises(ScgValueError, match="kink|jump"):
        scg.exact.hessian(lambda p, rng: np.abs(draw(p[0], p[1], rng) - 0.4), point)


def test_second_derivatives_of_a_sample_before_one_whose_density_has_a_kink():
    """z ~ Laplace(2 b - 1, 1/2), b a coin of logit t: E[sin z] = tanh(t / 2) sin(1) / (1 + 1/4); no parameter moves the
    kink."""

    def cost(t, rng):
        b = scg.sample(dist.Bernoulli(logits=t), scg.ScoreFunction(), rng=rng)
        return np.sin(_laplace(2.0 * b - 1, 0.5, rng))

    half = np.tanh(0.15)
    right = -0.5 * half * (1 - half**2) * np.sin(1) / 1.25
    assert scg.exact.hessian(cost, np.array(0.3)) == pytest.approx(right, rel=1e-7)


def test_second_derivatives_by_a_path_know_the_kinks_of_lengths():
    """A length of one number, |z - 0.3| by another name, has a slope that jumps; one of several has none."""
    draw = lambda t, rng: scg.sample(dist.Normal(t, 1.0), scg.Reparameterized(), rng=rng)
    run = lambda cost: scg.hessian(lambda t: cost(t, np.random.default_rng(0)))(np.array(0.1))
    with pytest.raises(scg.errors.EstimatorError, match="over_radius"):
        run(lambda t, rng: np.hypot(draw(t, rng) - 0.3, 0.0))
    assert np.isfinite(run(lambda t, rng: np.hypot(draw(t, rng) - 0.3, draw(t, rng))))
    assert np.isfinite(run(lambda t, rng: np.linalg.norm(np.stack([draw(t, rng), draw(t, rng), draw(t, rng)]))))
