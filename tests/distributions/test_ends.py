"""Samples that float32 and float64 round to an end of a support, or beyond every number: which part of them, that
estimators by scores refuse a distribution of which many are, and how quantiles move there."""

import numpy as np
import pytest

import scg
from scg import distributions as dist
from scg.core.leaves import parameter
from scg.errors import EstimatorError

MADE = {  # of a shape a, and whether it is the end at 0, at 1, or beyond the greatest number
    "Gamma": (lambda a: dist.Gamma(a, 2.0), "0"),
    "Chi2": (lambda a: dist.Chi2(2 * a), "0"),
    "InverseGamma": (lambda a: dist.InverseGamma(a, 0.5), "inf"),
    "Beta at 0": (lambda a: dist.Beta(a, 0.7), "0"),
    "Beta at 1": (lambda a: dist.Beta(0.7, a), "1"),
    "Kumaraswamy at 0": (lambda a: dist.Kumaraswamy(a, 0.7), "0"),
    "Kumaraswamy at 1": (lambda a: dist.Kumaraswamy(0.7, a), "1"),
    "Weibull": (lambda a: dist.Weibull(0.3, a), "0 inf"),
    "Pareto": (lambda a: dist.Pareto(2.0, a), "inf"),
    "LogNormal": (lambda a: dist.LogNormal(0.5, 1 / a), "0 inf"),
    "Concrete": (lambda a: dist.Concrete(5 * a, logits=a * np.zeros(3, a.dtype)), "0"),
}
WITHIN = {
    "vector": lambda d: dist.Independent(d, 1),
    "multiple": lambda d: dist.Transformed(d, dist.Affine(0.0, 2.0)),
    "mixture": lambda d: dist.Mixture(d, logits=np.zeros(2)),
}
SHAPES = 0.002, 0.02, 0.06, 0.1, 0.3
MANY = 3e-3
N = 20_000


def made(name, a, dtype):
    return MADE[name][0](parameter(np.asarray(a, dtype)))


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_part_of_the_samples_that_is_rounded_to_an_end_is_known(name, dtype):
    """It is that of a count, to 5 standard deviations of this and a twentieth."""
    rng, kind = np.random.default_rng(0), np.finfo(dtype)
    for a in SHAPES:
        with np.errstate(over="ignore"):
            z = made(name, a, dtype).detached().sample(rng, N)
        z = z if z.ndim == 1 else z[:, 0]
        counts = {"0": z <= kind.tiny, "1": z >= 1 - kind.eps, "inf": z >= kind.max / 5}
        found = max([np.mean(counts[end]) for end in MADE[name][1].split()])
        known = made(name, a, dtype).unresolved()
        assert abs(found - known) < 5 * np.sqrt((known + 1 / N) / N) + 0.05 * known, (a, found, known)


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scores_are_refused_where_many_samples_are_rounded_and_else_have_mean_zero(name, dtype):
    """Within 5 standard deviations, which are a hundredth of the deviation of a score, and what is taken."""
    rng = np.random.default_rng(1)
    for a in SHAPES:
        d = made(name, a, dtype)
        if d.unresolved() > MANY:
            with pytest.raises(EstimatorError, match=r"rounded to it; use Reparameterized\(\)"):
                scg.sample(d, scg.ScoreFunction(), rng=rng)
            continue
        scg.sample(d, scg.ScoreFunction(), rng=rng)
        each = parameter(np.full(N, a, dtype))
        if name == "Concrete":
            many = dist.Concrete(5 * each, logits=np.zeros((N, 3), dtype))
        else:
            many = MADE[name][0](each)
        with np.errstate(over="ignore"):
            z = many.sample(rng)
        score = scg.gradients(np.sum(many.log_prob(z)), [each])[0].astype(float)
        assert np.isfinite(score).all()
        assert abs(score.mean()) < 5 * score.std() / np.sqrt(N) + 3 * MANY * score.std()


@pytest.mark.parametrize("how", WITHIN)
@pytest.mark.parametrize("name", ["Gamma", "Beta at 1", "Weibull"])
def test_what_is_made_of_a_distribution_has_its_ends(how, name):
    """With Beta(0.7, 0.05) in an Independent a gradient was 3e4 where it is -1e3."""
    rng = np.random.default_rng(2)
    for a, refused in ((0.004, True), (0.4, False)):
        inner = made(name, [a, a], np.float64)
        d = WITHIN[how](inner)
        assert d.unresolved() == inner.unresolved()
        if refused:
            with pytest.raises(EstimatorError, match="rounded to it"):
                scg.sample(d, scg.ScoreFunction(), rng=rng)
        else:
            scg.sample(d, scg.ScoreFunction(), rng=rng)


@pytest.mark.parametrize("name", MADE)
def test_samples_of_which_nothing_is_differentiated_are_taken_as_they_are(name):
    d, rng = MADE[name][0](np.asarray(0.002)), np.random.default_rng
    with np.errstate(over="ignore"):
        taken = scg.sample(d, scg.ScoreFunction(), rng=rng(0))
        np.testing.assert_array_equal(taken.value, d.sample(rng(0)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_samples_of_a_weibull_that_underflow_have_a_score(dtype):
    a = parameter(np.full(50_000, 0.1, dtype))
    d = dist.Weibull(a, a)
    z = d.sample(np.random.default_rng(0))
    assert z.min() >= np.finfo(dtype).tiny
    assert np.isfinite(scg.gradients(np.sum(d.log_prob(z)), [a])[0]).all()


def test_a_path_of_a_beta_near_zero_goes_through_subnormal_numbers():
    """The quadrature of a tail had a scale below the least normal number, and as many nodes as infinity."""
    a = parameter(np.array([0.001]))
    with np.errstate(all="ignore"):
        below = scg.gradients(np.sum(dist.Beta(a, 1.0).cdf(np.array([3e-323]))), [a])[0]
    np.testing.assert_allclose(below, np.log(3e-323) * 3e-323**0.001, rtol=1e-3)  # d/da x^a


WINDOWS = {  # loc, scale, low, high
    "around the mode": (0.3, 1.2, -1.0, 2.0),
    "beside it": (0.3, 1.2, 1.0, 3.0),
    "far to the right": (0.3, 1.2, 90.0, 100.0),
    "far to the left": (0.3, 1.2, -100.0, -90.0),
    "short": (0.3, 1.2, 0.5, 0.5001),
}
NEAR = [0.0, 1e-30, 1e-12, 6e-8, 1e-6, 1e-3, 0.5, 1 - 1e-3, 1 - 2.0**-20, 1 - 2.0**-24, 1.0]


@pytest.mark.parametrize("window", WINDOWS)
def test_quantiles_of_a_truncated_normal_in_single_precision_move_as_in_double(window):
    """Also where they are rounded to an end, at which a derivative was shared with that end; and of small p, whose
    complement is 1, far to the left of loc, where the quantile was the far end."""

    def moved(dtype):
        u = np.array(NEAR, np.float32).astype(dtype)
        parameters = [parameter(np.full(u.shape, x, dtype)) for x in WINDOWS[window]]
        z = dist.TruncatedNormal(*parameters).icdf(u)
        return z.value, scg.gradients(np.sum(z), parameters)

    (z, slopes), (expected, wide) = moved(np.float32), moved(np.float64)
    np.testing.assert_allclose(z, expected, rtol=3e-7)
    for slope, right in zip(slopes, wide, strict=True):
        np.testing.assert_allclose(slope, right, rtol=1e-3, atol=1e-6 * max(1, abs(WINDOWS[window][2]) / 10))


def test_quantiles_that_are_all_rounded_to_an_end_move_by_all_of_their_derivative():
    """t = scale^2 E / (low - loc) is 1e-5 for low = 1e5, which has a last digit of 8e-3: z is low, and dt/dscale 2 t /
    scale."""
    loc, scale, low, high = (parameter(np.full(3, x, np.float32)) for x in (0, 1, 1e5, 2e5))
    u = np.array([0.1, 0.5, 0.9], np.float32)
    z = dist.TruncatedNormal(loc, scale, low, high).icdf(u)
    assert np.all(z.value == 1e5)
    np.testing.assert_allclose(scg.gradients(np.sum(z), [scale])[0], -2e-5 * np.log1p(-u), rtol=1e-5)


@pytest.mark.parametrize("kind", [dist.Beta, dist.Kumaraswamy])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_sample_at_the_last_number_before_one_moves_as_its_quantile_does(kind, dtype):
    last = 1 - np.finfo(dtype).epsneg
    u = np.linspace(0.9, 1, 2001).astype(dtype)
    a, b = (parameter(np.full(u.shape, x, dtype)) for x in (0.7, 0.2 if dtype is np.float32 else 0.07))
    z = kind(a, b).icdf(u)
    at = z.value == last
    found = scg.gradients(np.sum(kind(a, b).transport(u)), [a, b])
    for slope, right in zip(found, scg.gradients(np.sum(z), [a, b]), strict=True):
        np.testing.assert_array_equal(slope[at], right[at])
    assert at.any() and np.any(found[1][at] != 0)


@pytest.mark.parametrize(
    "make, ends",
    [
        (lambda a: dist.Gamma(a, 1.0), [0.0]),
        (lambda a: dist.Beta(a, 2.0), [0.0, 1.0]),
        (lambda a: dist.Beta(2.0, a), [0.0, 1.0]),
        (lambda a: dist.Weibull(1.0, a), [0.0]),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_end_of_a_fixed_support_does_not_move(make, ends, dtype):
    for shape in (0.5, 1.0, 3.0):
        a = parameter(np.array(shape, dtype))
        for u in ends:
            with np.errstate(all="ignore"):
                assert scg.gradients(make(a).icdf(np.array(u, dtype)), [a])[0] == 0


SHARP = {
    "Beta at 1": (lambda a, b: dist.Beta(a, b), 1.0, 1e5),
    "Beta at 0": (lambda a, b: dist.Beta(b, a), 1.0, 1e9),
    "Kumaraswamy": (lambda a, b: dist.Kumaraswamy(b, a), 1.0, 1e9),
    "VonMises": (lambda a, b: dist.VonMises(b, a, low=-np.pi), 0.0, 1e8),
}


@pytest.mark.parametrize("name", SHARP)
@pytest.mark.parametrize("size", [1e-6, 1e-3, 1.0])
def test_scores_of_sharp_distributions_in_single_precision_are_those_of_double(name, size):
    """To a hundredth of their deviation. digamma(1e8) - digamma(1e8 + 1) was 0 in float32, and log(1 - z) too."""
    make, other, largest = SHARP[name]
    shape = np.float32(largest * size)
    z = make(parameter(np.full(500, shape)), np.float32(other)).detached().sample(np.random.default_rng(0))

    def scores(dtype):
        a = parameter(np.full(500, shape, dtype))
        return scg.gradients(np.sum(make(a, dtype(other)).log_prob(z.astype(dtype))), [a])[0].astype(float)

    single, double = scores(np.float32), scores(np.float64)
    assert z.dtype == np.float32 and np.std(double) > 0
    assert np.max(np.abs(single - double)) < 0.01 * np.std(double)
