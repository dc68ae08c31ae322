"""Distributions and rules at their edges: probabilities of exactly zero, supports of mixtures, values and distributions
of other shapes."""

import mpmath
import numpy as np
import pytest

import scg
from scg import distributions as dist
from scg.errors import EstimatorError, ScgValueError

COST = np.array([1.0, 7.0, -2.0])


@pytest.mark.parametrize("p", [0.0, 1.0, 0.3])
def test_enumerate_is_exact_where_a_probability_is_zero(p):
    rng = np.random.default_rng(0)
    slope = scg.grad(lambda p, rng: 3 * scg.sample(dist.Bernoulli(probs=p), scg.Enumerate(), rng=rng) + 1)
    assert slope(np.array(p), rng=rng) == pytest.approx(3, rel=1e-12)
    probs = np.array([p, 0.0, 1 - p])
    one_hot = scg.grad(
        lambda p, rng: np.sum(scg.sample(dist.OneHotCategorical(probs=p), scg.Enumerate(), rng=rng) * COST)
    )
    np.testing.assert_allclose(one_hot(probs, rng=rng), COST, rtol=1e-12)
    index = scg.grad(
        lambda p, rng: np.take_along_axis(
            scg.parameter(COST), scg.sample(dist.Categorical(probs=p), scg.Enumerate(), rng=rng)[None], 0
        )[0]
    )
    np.testing.assert_allclose(index(probs, rng=rng), COST, rtol=1e-12)


def test_masses_are_probabilities():
    table = np.random.default_rng(0).dirichlet(np.ones(4), (2, 3))
    for distribution in (
        dist.Categorical(probs=table),
        dist.OneHotCategorical(probs=table),
        dist.Bernoulli(probs=table),
        dist.Categorical(logits=table),
        dist.Binomial(3, probs=table),
        dist.Independent(dist.Bernoulli(probs=table), 1),
    ):
        atoms = distribution.atoms()
        np.testing.assert_allclose(distribution.masses(atoms), np.exp(distribution.log_prob(atoms)), rtol=1e-13)


def test_a_mixture_covers_what_any_of_its_components_covers():
    distribution = dist.Mixture(dist.Uniform(np.array([0.0, 2.0]), np.array([3.0, 5.0])), weights=np.array([0.5, 0.5]))
    np.testing.assert_allclose(
        distribution.icdf(np.array([1.0, 0.0, 0.1, 0.5, 0.9])), [5.0, 0.0, 0.6, 2.5, 4.4], rtol=1e-12
    )
    assert np.all(
        distribution.support.contains(distribution.sample(np.random.default_rng(0), 50))
    ) and not distribution.support.contains(5.1)
    scg.testing.check_distribution(distribution, rng=np.random.default_rng(0))
    counts = dist.Mixture(dist.Binomial(np.array([2, 5]), 0.5), weights=np.array([0.5, 0.5]))
    np.testing.assert_array_equal(counts.support.contains(np.array([0, 5, 6, 1.5])), [True, True, False, False])


def test_a_mixture_of_moving_ends_is_reparameterized():
    """d/dt E[z] by differences of the mean."""
    low = np.array([-1.0, -2.0])

    def distribution(t):
        return dist.Mixture(dist.TruncatedNormal(t, 1.0, low, 2.0), weights=np.array([0.5, 0.5]))

    theta = np.array([0.0, 1.0])
    graph = scg.trace(
        lambda t, rng: scg.sample(distribution(t), scg.Reparameterized(), rng=rng), theta, rng=np.random.default_rng(0)
    )
    draws = graph.gradients(rng=np.random.default_rng(1), replicates=4000)
    step = 1e-5 * np.eye(2)
    exact = [(distribution(theta + h).mean - distribution(theta - h).mean) / 2e-5 for h in step]
    error = np.std(draws, axis=0) / np.sqrt(len(draws))
    assert np.all(np.abs(np.mean(draws, axis=0) - exact) < 5.3 * error)  # two tails of 1e-7 each


@pytest.mark.parametrize("rule", [scg.REBAR(), scg.RELAX(lambda z: np.sum(z), temperature=0.5)], ids=["REBAR", "RELAX"])
def test_a_relaxed_cost_that_hides_a_part_of_its_slope_is_refused(rule):
    def cost(theta, rng):
        b = scg.sample(dist.Bernoulli(logits=theta), rule, rng=rng, name="b")
        return np.sum(b * scg.stop_gradient(b[::-1]))

    with pytest.raises(EstimatorError, match="b ~ Bernoulli.*stop_gradient"):
        scg.value_and_grad(cost)(np.array([0.3, -0.5]), rng=np.random.default_rng(0))


@pytest.mark.parametrize(
    "p, q",
    [
        (dist.Categorical(np.ones(3) / 3), dist.Categorical(np.ones(1))),
        (dist.Categorical(np.ones(3) / 3), dist.Categorical(np.ones(2) / 2)),
        (dist.Multinomial(3, np.ones(3) / 3), dist.Multinomial(3, np.ones(1))),
        (dist.Dirichlet(np.ones(3)), dist.Dirichlet(np.ones(1))),
        (dist.MultivariateNormal(np.zeros(3), np.eye(3)), dist.MultivariateNormal(np.zeros(1), np.eye(1))),
    ],
)
def test_divergences_of_distributions_of_other_shapes_are_refused(p, q):
    with pytest.raises(ScgValueError, match="values of one shape"):
        dist.kl_divergence(p, q)


@pytest.mark.parametrize(
    "distribution",
    [
        dist.OneHotCategorical(np.ones(3) / 3),
        dist.Multinomial(3, np.ones(3) / 3),
        dist.Dirichlet(np.ones(3)),
        dist.Concrete(1.0, logits=np.zeros(3)),
        dist.MultivariateNormal(np.zeros(3), np.eye(3)),
        dist.UniformSubset(5, 3),
    ],
    ids=lambda distribution: type(distribution).__name__,
)
@pytest.mark.parametrize("shape", [(), (1,), (2,), (3, 1)])
def test_values_of_another_event_shape_are_refused(distribution, shape):
    with pytest.raises(ScgValueError, match=r"a value has the shape \(3,\) along its last axes"):
        distribution.log_prob(np.ones(shape))


def test_what_is_no_subset_has_no_probability():
    found = dist.UniformSubset(4, 2).log_prob(np.array([[1, 1], [0, 9], [-1, 0], [3, 0], [0, 3]]))
    np.testing.assert_allclose(found, [-np.inf] * 4 + [-np.log(6)])


def test_parameters_that_are_none_are_refused():
    for make in (
        lambda: dist.Mixture(dist.Normal(np.zeros(2), 1.0), logits=np.array([np.inf, 0.0])),
        lambda: dist.Binomial(np.inf, 0.5),
    ):
        with pytest.raises(ScgValueError):
            make()
    np.testing.assert_array_equal(dist.Categorical([0.5, 0.5]).icdf([-1, 2, np.nan, 0.7]), [np.nan, np.nan, np.nan, 1])


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


def _truncated(loc, scale, low, high):
    """Mean, variance and entropy of a truncated normal distribution by its closed forms, to as many digits as mpmath
    works with."""
    a, b = (low - loc) / scale, (high - loc) / scale
    sign = -1 if a < -b else 1  # upper tails do not cancel
    a, b = (a, b) if sign == 1 else (-b, -a)
    mass = mpmath.erfc(a / mpmath.sqrt(2)) / 2 - mpmath.erfc(b / mpmath.sqrt(2)) / 2
    pa, pb = mpmath.npdf(a) / mass, mpmath.npdf(b) / mass
    first, second = pa - pb, (0 if mpmath.isinf(a) else a * pa) - (0 if mpmath.isinf(b) else b * pb)
    entropy = mpmath.log(2 * mpmath.pi * mpmath.e) / 2 + mpmath.log(scale * mass) + second / 2
    return loc + sign * scale * first, scale * scale * (1 + second - first * first), entropy


@pytest.mark.parametrize("dtype", [float, np.float32])
@pytest.mark.parametrize(
    "given",
    [
        (0, 1, 1000, np.inf),
        (0, 1, -1e5, -1e4),
        (0, 1e5, 0, 1),
        (0, 1, -1e-8, 2e-8),
        (0, 1, 5, 5 + 1e-4),
        (0, 100, 0, 1),
        (0, 1, 30, np.inf),
        (0, 1, 8, 8.25),
        (0.3, 0.7, -1, 2),
        (0.3, 5, -1, 2),
        (0, 1, -np.inf, -3),
        (0, 1, -np.inf, 3),
        (0, 1, -8, 9),
        (0, 1, 0.99, 2.98),
        (0, 1, 0.99, 3),
        (0, 1, 1.01, 40),
        (5, 2, -np.inf, 5),
        (1000, 0.25, 0, 1),
        (0, 1, -0.5, 0.49),
        (0, 1, -np.inf, np.inf),
    ],
    ids=str,
)
def test_moments_of_truncated_normal_distributions_far_out_and_on_narrow_windows(given, dtype):
    """Against 100 digits, and derivatives by all parameters against differences of these. Those by loc and scale are
    what is left of the ones by the ends: where all move at once, or are stretched, so do the moments. So they have the
    errors of the latter.
    """
    parameters = [np.array(x, dtype) for x in given]
    if not parameters[2] < parameters[3]:
        return
    by = [scg.parameter(p) for p in parameters]
    distribution = dist.TruncatedNormal(*by)
    found = distribution.mean, distribution.variance, distribution.entropy()
    with mpmath.workdps(100):
        exact = [mpmath.mpf(float(p)) for p in parameters]
        expected = _truncated(*exact)
        h = mpmath.mpf(10) ** -40
        slopes = np.zeros((3, 4))
        for k in range(4):
            if np.isfinite(parameters[k]):
                ends = [_truncated(*exact[:k], exact[k] + t, *exact[k + 1 :]) for t in (h, -h)]
                slopes[:, k] = [float((up - down) / (2 * h)) for up, down in zip(*ends, strict=True)]
    loc, scale, *both = (float(p) for p in parameters)
    rounding = 2 * np.finfo(dtype).eps * (dtype is not float) + 2e-14  # moments are taken in float64
    reach = max([abs(end - loc) / scale for end in both if np.isfinite(end)], default=0)
    window = min(both[1] - both[0], scale)
    for moment, value, slope, size in zip(found, expected, slopes, (window, 0, 1), strict=True):
        assert (
            moment.dtype == dtype
            and abs(float(moment.raw) - float(value)) <= rounding * abs(float(value)) + 2e-14 * size
        )
        got = np.array([float(g) for g in scg.gradients(moment, by)])
        ends = np.abs(slope[2:]).max()
        assert np.all(
            np.abs(got - slope) <= 5e-14 * np.array([ends, reach * ends, ends, ends]) + rounding * np.abs(slope)
        )


@pytest.mark.parametrize("dtype", [float, np.float32])
@pytest.mark.parametrize("low, high", [(-1e-8, 2e-8), (0.5, 0.5 + 2.0**-20), (-3.0, -3.0 + 2.0**-18)])
def test_densities_of_truncated_normal_distributions_on_narrow_windows(low, high, dtype):
    """Almost uniform: phi is constant to x w relatively. The cdf is the exponential of a difference of logarithms, of
    the size of log w."""
    low, high = np.array(low, dtype), np.array(high, dtype)
    w, by = float(high) - float(low), [scg.parameter(x) for x in (low, high)]
    distribution = dist.TruncatedNormal(np.zeros((), dtype), 1.0, *by)
    near, z = 4 * w + 4 * np.finfo(dtype).eps * (1 - np.log(w)), np.asarray(low + 0.5 * w, dtype)
    density, below = distribution.log_prob(z), distribution.cdf(z)
    assert density.dtype == dtype
    assert abs(density.raw + np.log(w)) <= near
    assert abs(below.raw - (float(z) - float(low)) / w) <= near
    np.testing.assert_allclose(scg.gradients(density, by), [1 / w, -1 / w], rtol=near)
    np.testing.assert_allclose(scg.gradients(below, by), [-0.5 / w, -0.5 / w], rtol=near)


def test_mixtures_of_components_without_finite_moments():
    """An infinite mean makes the mean and the variance infinite, unless its weight is zero; no variance (nan) is none
    of the mixture either."""
    for shape, weights, mean, variance in (
        ([0.5, 3.0], [0.5, 0.5], np.inf, np.inf),
        ([0.5, 3.0], [0.0, 1.0], 1.5, 0.75),
        ([0.5, 3.0], [1.0, 0.0], np.inf, np.inf),
        ([1.5, 3.0], [0.5, 0.5], 2.25, np.inf),
        ([3.0, 3.0], [0.5, 0.5], 1.5, 0.75),
    ):
        distribution = dist.Mixture(dist.Pareto(1.0, np.array(shape)), weights=np.array(weights))
        np.testing.assert_allclose([distribution.mean, distribution.variance], [mean, variance], rtol=1e-15)
        by_logits = dist.Mixture(
            dist.Pareto(1.0, np.array(shape)), logits=np.array([-np.inf if w == 0 else 0.0 for w in weights])
        )
        np.testing.assert_allclose([by_logits.mean, by_logits.variance], [mean, variance], rtol=1e-15)
    vectors = dist.Mixture(
        dist.Independent(dist.Pareto(1.0, np.array([[0.5, 3.0], [3.0, 3.0]])), 1), weights=np.array([0.5, 0.5])
    )
    np.testing.assert_allclose([vectors.mean, vectors.variance], [[np.inf, 1.5], [np.inf, 0.75]], rtol=1e-15)
    assert np.isnan(dist.Mixture(dist.StudentT(np.array([0.5, 3.0])), weights=np.array([0.5, 0.5])).variance)
    assert dist.Mixture(dist.StudentT(np.array([0.5, 3.0])), weights=np.array([0.0, 1.0])).variance == 3
    a, w = scg.parameter(np.array([0.5, 3.0])), scg.parameter(np.array([0.0, 1.0]))
    mixture = dist.Mixture(dist.Pareto(1.0, a), weights=w)
    for moment, slope in ((mixture.mean, -0.25), (mixture.variance, -1.25)):  # d/da a/(a-1), and of a / ((a-1)^2 (a-2))
        np.testing.assert_allclose(scg.gradients(moment, [a])[0], [0, slope], rtol=1e-14)


@pytest.mark.parametrize("p", [1e-12, 2e-17, 1e-18, 3e-19, 1e-25, 1e-300])
def test_geometric_draws_beyond_the_integers(p):
    """p k is exponential to p: at its quantiles, shares within 5.3 standard errors; none is the greatest integer."""
    n, shares = 40_000, np.array([0.1, 0.5, 0.9, 0.9999])
    z = dist.Geometric(np.array([p, 0.5])).sample(np.random.default_rng(0), n)
    below = np.mean(z[:, :1] * p <= -np.log1p(-shares), axis=0)
    assert (
        np.all(np.abs(below - shares) <= 5.3 * np.sqrt(shares * (1 - shares) / n))
        and np.all(z == np.floor(z))
        and z.min() >= 1
    )
    assert abs(z[:, 1].mean() - 2) <= 5.3 * np.sqrt(2 / n) and np.sum(z == 2.0**63) <= 1
    for distribution in (dist.Geometric(np.array(1e-38, np.float32)), dist.Geometric(logits=-800.0)):
        with pytest.raises(ScgValueError, match="Geometric.*greater than any number of float"):
            distribution.sample(np.random.default_rng(0), 1000)


def test_truncated_normal_distributions_keep_float32_beside_python_numbers():
    one = np.ones(3, np.float32)
    for distribution in (
        dist.TruncatedNormal(one, 1.0, -1.0, 2.0),
        dist.TruncatedNormal(0.0, one, -np.inf, 2.0),
        dist.TruncatedNormal(0.0, 1.0, -one, 2.0),
        dist.TruncatedNormal(0.0, 1.0, -one, np.inf),
    ):
        for found in (
            distribution.log_prob(one),
            distribution.cdf(one),
            distribution.icdf(0.5 * one),
            distribution.mean,
            distribution.variance,
            distribution.entropy(),
            distribution.sample(np.random.default_rng(0)),
        ):
            assert found.dtype == np.float32
        exact = dist.TruncatedNormal(
            *[np.broadcast_to(np.asarray(p, float), 3) for p in distribution.parameters.values()]
        )
        np.testing.assert_allclose(distribution.log_prob(one), exact.log_prob(one), rtol=1e-6)
    assert (
        np.shape(dist.TruncatedNormal(0.0, 1.0, -1.0, 2.0).log_prob(0.5))
        == np.shape(dist.TruncatedNormal(0.0, 1.0, -1.0, 2.0).mean)
        == ()
    )


def test_draws_without_elements_have_exact_moments_too():
    def cost(t, rng):
        a = scg.sample(dist.Bernoulli(logits=t[:1]), scg.ScoreFunction(), rng=rng)
        b = scg.sample(dist.Bernoulli(logits=t[1:]), scg.ScoreFunction(), rng=rng)
        return np.sum(a) + np.sum(b)

    p = 1 / (1 + np.exp(-0.3))
    found = scg.exact.moments(scg.trace(cost, np.array([0.3]), rng=np.random.default_rng(0)))
    np.testing.assert_allclose(found.mean, [p * (1 - p)], 1e-12)
    # E[(b (b - p))^2] - (E b (b - p))^2
    np.testing.assert_allclose(found.variance, [p * (1 - p) ** 2 - (p * (1 - p)) ** 2], 1e-12)
