"""Noise that is coupled along an axis of samples: each sample keeps its distribution, means over them vary less, and
exact truth integrates what depends on several of them."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import scg
from scg import distributions as dist
from scg.errors import EstimatorError, ScgTypeError, ScgValueError
from tests.support.compiled import agree
from tests.support.drawn import covering, drawn

pytestmark = pytest.mark.fast

COUPLINGS = {
    "antithetic": scg.noise.Antithetic(),
    "systematic": scg.noise.Systematic(),
    "Sobol": scg.noise.Sobol(),
}
FAMILIES = {
    "normal": lambda t: dist.Normal(t, 1.5),
    "uniform": lambda t: dist.Uniform(t - 1, t + 2),
    "gamma": lambda t: dist.Gamma(2.0 + t, 1.5),
    "exponential": lambda t: dist.Exponential(np.exp(t)),
    "Student": lambda t: dist.StudentT(5.0, t, 1.0),
    "relaxed coin": lambda t: dist.RelaxedBernoulli(0.5, logits=t),
}
T = np.array([0.3, -0.2])


def normal(n, coupling, f=lambda z, t: np.sin(z) + z**2 * t[0]):
    def cost(t, rng):
        z = scg.sample(
            dist.Normal(t[0], np.exp(t[1])), scg.Reparameterized(), rng=rng, shape=n, name="z", coupling=coupling
        )
        return np.mean(f(z, t))

    return cost


def traced(cost, t=T):
    return scg.trace(cost, t, rng=np.random.default_rng(0))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", COUPLINGS)
def test_each_sample_keeps_its_distribution_and_its_numbers_are_independent(name, family):
    """Kolmogorov and Smirnov at each place along the axis, rank correlations of the two numbers at a place: false alarm
    1e-5 each."""

    def cost(t, rng):
        z = scg.sample(
            FAMILIES[family](t), scg.Reparameterized(), rng=rng, shape=(3, 2), name="z", coupling=COUPLINGS[name]
        )
        return np.sum(z)

    t = np.array(0.3)
    z = traced(cost, t).run(rng=np.random.default_rng(1), replicates=3000).stochastic["z"].value
    assert z.shape == (3000, 3, 2)
    for i in range(3):
        for j in range(2):
            assert stats.kstest(z[:, i, j], FAMILIES[family](t).cdf).pvalue > 1e-5, (i, j)
        assert stats.spearmanr(z[:, i, 0], z[:, i, 1]).pvalue > 1e-5, i


@pytest.mark.slow
@pytest.mark.parametrize(("n", "name"), covering([1, 2, 5, 8], [*COUPLINGS]))
def test_means_are_those_of_independent_samples_and_the_variance_is_that_of_replicates(name, n):
    graph, plain = traced(normal(n, COUPLINGS[name])), traced(normal(n, None))
    exact = scg.exact.gradient(plain)
    np.testing.assert_allclose(scg.exact.gradient(graph), exact, rtol=1e-9)
    found = scg.exact.moments(graph)
    np.testing.assert_allclose(found.mean, exact, rtol=1e-9)
    g = graph.gradients(rng=np.random.default_rng(2), replicates=20_000)
    assert (abs(g.mean(0) - exact) < 5 * g.std(0) / np.sqrt(len(g))).all()
    # the error of a variance by its fourth moment, five times
    error = np.sqrt(((g - g.mean(0)) ** 4).mean(0) - g.var(0) ** 2) / np.sqrt(len(g))
    assert (abs(g.var(0) - found.variance) < 5 * error).all()
    if n > 1:
        assert (found.variance < scg.exact.moments(plain).variance).all()


@given(st.integers(1, 9), st.sampled_from(sorted(COUPLINGS)), st.integers(0, 2**32))
@drawn(15)
def test_the_mean_is_exact_for_drawn_polynomials(n, name, seed):
    a = np.random.default_rng(seed).standard_normal(4)

    def f(z, t):
        return a[0] * z + a[1] * z**2 + a[2] * z**3 * t[1] + a[3]

    exact = scg.exact.gradient(traced(normal(1, None, f)))
    np.testing.assert_allclose(scg.exact.gradient(traced(normal(n, COUPLINGS[name], f))), exact, rtol=1e-8, atol=1e-9)


def test_what_is_odd_in_the_noise_has_no_variance_left_in_pairs():
    graph = traced(normal(6, scg.noise.Antithetic(), lambda z, t: 3 * z + 1))
    found = graph.gradients(rng=np.random.default_rng(0), replicates=100)
    np.testing.assert_allclose(found[:, 0], 3, rtol=1e-12)
    assert np.ptp(found[:, 1]) < 1e-12


def test_the_rate_of_smooth_means_is_that_of_the_docstrings():
    """A smooth cost of a uniform number: n^-2 with systematic noise, n^-1 with independent one; Sobol points do it for
    two numbers that the cost mixes."""

    def variance(n, coupling, numbers):
        def cost(t, rng):
            z = scg.sample(
                dist.Uniform(t, t + 1), scg.Reparameterized(), rng=rng, shape=(n, numbers), name="z", coupling=coupling
            )
            return np.mean(np.prod(np.exp(z), axis=1))

        return traced(cost, np.array(0.2)).gradients(rng=np.random.default_rng(0), replicates=4000).var()

    for coupling, numbers, rate in [
        (scg.noise.Systematic(), 1, 2),
        (scg.noise.Sobol(), 1, 2),
        (scg.noise.Sobol(), 2, 2),
        (None, 2, 1),
    ]:
        found = np.log2(variance(8, coupling, numbers) / variance(64, coupling, numbers)) / 3
        assert abs(found - rate) < 0.35, (coupling, numbers, found)


def test_what_mixes_the_samples_is_integrated_as_it_is():
    """E[z_1 z_2] = loc^2 - scale^2 for a pair that mirrors itself, loc^2 for independent samples."""

    def cost(t, rng, coupling=scg.noise.Antithetic()):
        z = scg.sample(dist.Normal(t[0], t[1]), scg.Reparameterized(), rng=rng, shape=2, name="z", coupling=coupling)
        return np.prod(z)

    t = np.array([0.7, 1.3])
    graph = traced(cost, t)
    np.testing.assert_allclose(scg.exact.expectation(graph), t[0] ** 2 - t[1] ** 2, rtol=1e-12)
    np.testing.assert_allclose(scg.exact.gradient(graph), [2 * t[0], -2 * t[1]], rtol=1e-12)
    np.testing.assert_allclose(scg.exact.moments(graph).mean, [2 * t[0], -2 * t[1]], rtol=1e-12)


@pytest.mark.parametrize("name", COUPLINGS)
def test_samples_that_hang_on_coupled_ones_keep_their_means(name):
    def cost(t, rng, coupling=COUPLINGS[name]):
        z = scg.sample(dist.Normal(t[0], 1.0), scg.Reparameterized(), rng=rng, shape=4, name="z", coupling=coupling)
        y = scg.sample(
            dist.Bernoulli(logits=z * t[1]), scg.ScoreFunction(scg.LeaveOneOut(), samples=2), rng=rng, name="y"
        )
        return np.mean(y * np.cos(z))

    graph, plain = traced(cost), scg.trace(cost, T, rng=np.random.default_rng(0), coupling=None)
    exact = scg.exact.gradient(plain)
    np.testing.assert_allclose(scg.exact.gradient(graph), exact, rtol=1e-8)
    g = graph.gradients(rng=np.random.default_rng(2), replicates=20_000)
    assert (abs(g.mean(0) - exact) < 5 * g.std(0) / np.sqrt(len(g))).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", COUPLINGS)
def test_a_plan_draws_the_same_and_the_dtype_stays(name, dtype):
    def cost(t, rng):
        z = scg.sample(
            dist.Gamma(np.exp(t), 1.0), scg.Reparameterized(), rng=rng, shape=6, name="z", coupling=COUPLINGS[name]
        )
        return np.mean(z**2)

    fn = scg.value_and_grad(cost)
    step = scg.compile(fn)
    for seed in range(4):
        first, second = np.random.default_rng(seed), np.random.default_rng(seed)
        agree(step(T.astype(dtype), rng=second), fn(T.astype(dtype), rng=first), f"seed {seed}")
        assert first.bit_generator.state == second.bit_generator.state
    assert step.planned == 4
    value, gradient = fn(T.astype(dtype), rng=np.random.default_rng(0))
    assert np.asarray(value).dtype == gradient.dtype == dtype


@pytest.mark.slow
@pytest.mark.parametrize("name", COUPLINGS)
def test_it_goes_with_the_graph(name):
    graph = traced(normal(4, COUPLINGS[name]))
    again = pickle.loads(pickle.dumps(COUPLINGS[name]))
    assert again == COUPLINGS[name] and repr(again) == repr(COUPLINGS[name])
    first, second = (
        g.gradients(rng=np.random.default_rng(3), replicates=5) for g in (graph, graph.bind(z=scg.Reparameterized()))
    )
    np.testing.assert_array_equal(first, second)
    report = scg.variance.compare(graph, {"as it is": {}}, replicates=2000, rng=np.random.default_rng(0))
    truth = scg.exact.moments(graph).variance.sum()
    assert report["as it is"].total.low < truth < report["as it is"].total.high


def test_more_sample_axes_are_coupled_along_the_first():
    def cost(t, rng):
        z = scg.sample(
            dist.Normal(t[0], 1.0),
            scg.Reparameterized(),
            rng=rng,
            shape=(2, 3),
            name="z",
            coupling=scg.noise.Antithetic(),
        )
        return np.sum(z)

    z = traced(cost).stochastic["z"].value
    np.testing.assert_allclose(z[0] + z[1], 2 * T[0], rtol=1e-12)
    assert len(np.unique(z[0])) == 3


def test_what_takes_samples_for_independent_is_refused_by_name():
    rng, pair = np.random.default_rng(0), scg.noise.Antithetic()
    for estimator, distribution in [
        (scg.ScoreFunction(scg.LeaveOneOut(), samples=2), dist.Normal(scg.parameter(0.0), 1.0)),
        (scg.MeasureValued(), dist.Normal(scg.parameter(0.0), 1.0)),
        (scg.DisARM(), dist.Bernoulli(logits=scg.parameter(0.0))),
        (scg.GumbelSoftmax(0.5), dist.Bernoulli(logits=scg.parameter(0.0))),
    ]:
        with pytest.raises(EstimatorError, match=f"z: {type(estimator).__name__} takes the samples.*Reparameterized"):
            scg.sample(distribution, estimator, rng=rng, shape=4, name="z", coupling=pair)
    with pytest.raises(EstimatorError, match="z: ScoreFunction takes the samples"):
        traced(normal(4, pair)).bind(z=scg.ScoreFunction())
    with pytest.raises(ScgValueError, match="give shape=n"):
        scg.sample(dist.Normal(0.0, 1.0), scg.Reparameterized(), rng=rng, coupling=pair)
    with pytest.raises(ScgTypeError, match="Sobol"):
        scg.sample(dist.Normal(0.0, 1.0), scg.Reparameterized(), rng=rng, shape=2, coupling="sobol")
    with pytest.raises(ScgValueError, match="21,201"):
        scg.sample(
            dist.Normal(np.zeros(30_000), 1.0), scg.Reparameterized(), rng=rng, shape=2, coupling=scg.noise.Sobol()
        )
