"""The error that an exact result in float32 reports is not less than its distance from the result in float64."""

import numpy as np
import pytest

import scg
from scg import distributions as dist

pytestmark = pytest.mark.fast
LAWS = {
    "Laplace": dist.Laplace,
    "InverseGamma": lambda a, b: dist.InverseGamma(3 + a * a, b),
    "Gompertz": lambda a, b: dist.Gompertz(1 + a * a, b),
    "HalfNormal": lambda a, b: dist.HalfNormal(b),
    "LogNormal": dist.LogNormal,
    "Sigmoid of Laplace": lambda a, b: dist.Transformed(dist.Laplace(a, b), dist.Sigmoid()),
    "Sigmoid of Gumbel": lambda a, b: dist.Transformed(dist.Gumbel(a, b), dist.Sigmoid()),
    "Tanh of Laplace": lambda a, b: dist.Transformed(dist.Laplace(a, b), dist.Tanh()),
    "Affine of Exponential": lambda a, b: dist.Transformed(dist.Exponential(b), dist.Affine(a, 2.0)),
}
COSTS = {
    "smooth": lambda z, t: np.tanh(z),
    "kink": lambda z, t: np.abs(z - t),
    "kinks of tanh": lambda z, t: np.maximum(np.tanh(z), np.float32(np.tanh(t))),
    "kinks in a cost of float64": lambda z, t: np.maximum(np.tanh(z), np.tanh(t)),
}
POINTS = (-0.5, 0.875, 0.25), (-0.578125, 1.0, 0.75), (1.5, 2.25, 0.734375)  # loc, scale, kink: exact in float32


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("cost", COSTS)
def test_the_reported_error_of_single_precision_covers_its_distance_from_double(law, cost):
    """Also where a cost of float64 is made of samples of float32, which had the error of float64."""

    def of(p, rng, t):
        return COSTS[cost](scg.sample(LAWS[law](p[0], p[1]), scg.Reparameterized(), rng=rng), t)

    for *p, t in POINTS:
        for exact in (scg.exact.expectation, scg.exact.gradient):
            single, double = (
                exact(of, np.array(p, d), np.random.default_rng(0), t, full=True) for d in (np.float32, float)
            )
            off = np.max(np.abs(np.asarray(single.value, float) - double.value))
            assert off <= single.error + double.error
            assert single.error <= 1e-3 * max(1, np.max(np.abs(double.value)))


@pytest.mark.parametrize("law", ["Laplace", "HalfNormal", "LogNormal"])
def test_the_reported_error_of_a_jump_in_single_precision_covers_its_distance_from_double(law):
    def of(p, rng, t):
        z = scg.sample(LAWS[law](p[0], p[1]), scg.ScoreFunction(), rng=rng)
        return np.where(z > t, 1.0, 0.0 * z)

    for *p, t in POINTS:
        for exact in (scg.exact.expectation, scg.exact.gradient):
            single, double = (
                exact(of, np.array(p, d), np.random.default_rng(0), t, full=True) for d in (np.float32, float)
            )
            assert np.max(np.abs(np.asarray(single.value, float) - double.value)) <= single.error + double.error
