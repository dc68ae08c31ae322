"""Noise behind a discrete sample, drawn given it: Rao-Blackwellised Gumbel keys, REBAR and RELAX for one of K; and
measure-valued derivatives of more distributions."""

import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import scg
from scg import distributions as dist
from scg.errors import EstimatorError, ScgValueError
from scg.estimators.rebar import hidden, keys
from scg.special import sigmoid
from scg.stochastic.estimator import Accounted, Estimator
from scg.stochastic.sites import Site, noise_node, place
from tests.support.drawn import drawn

SCORE = scg.ScoreFunction()
THETA = np.array([0.3, -0.5, 0.8])


def coin(t, rng):
    b = scg.sample(dist.Bernoulli(logits=t), SCORE, rng=rng, name="z")
    return (b - 0.3) ** 3 * (1 + t)


def faces(t, rng):
    z = scg.sample(dist.OneHotCategorical(logits=t), SCORE, rng=rng, name="z")
    return np.sum(z * np.array([1.0, -0.4, 2.0])) ** 2 * (1 + t[0])


def traced(cost, t):
    return scg.trace(cost, t, rng=np.random.default_rng(0))


def near(graph, estimator, mean, replicates=40_000, seed=1):
    """The mean over replicates is ``mean`` within five standard errors; the variances."""
    found = graph.bind(z=estimator).gradients(rng=np.random.default_rng(seed), replicates=replicates)
    found = found.reshape(replicates, -1)
    error = found.std(0) / np.sqrt(replicates)
    assert (abs(found.mean(0) - np.ravel(mean)) < 5 * error + 1e-12).all(), (found.mean(0), mean, error)
    return found.var(0)


def test_keys_of_a_coin_given_it_keep_the_mean_and_k_of_them_leave_a_kth_of_their_variance():
    """V(k) = V[E[d | z]] + E[V[d | z]] / k, by quadrature: V(1) is that without, V(1) - V(2) is twice V(2) - V(4)."""
    graph = traced(coin, np.array(0.3))
    plain, one, two, four = (
        scg.exact.moments(graph.bind(z=scg.GumbelSoftmax(0.7, hard=True, rao_blackwell=k))) for k in (None, 1, 2, 4)
    )
    for found in (one, two, four):
        np.testing.assert_allclose(found.mean, plain.mean, rtol=1e-9)
    np.testing.assert_allclose(one.variance, plain.variance, rtol=1e-8)
    assert one.variance - two.variance > 0.01
    np.testing.assert_allclose(one.variance - two.variance, 2 * (two.variance - four.variance), rtol=1e-4)


class Mistaken(Estimator):
    """The straight-through sample of a coin with two keys that do not know it, or with their sum in place of their
    mean."""

    def __init__(self, given, divided):
        self.given, self.divided = given, divided

    def draw(self, distribution, rng, shape):
        z, l, total = place(Site(distribution, Accounted(), rng, shape, None)), distribution.logits, 0
        for _ in range(2):
            u = noise_node(dist.Uniform(0.0, 1.0), rng, distribution.full_shape(shape), distribution.dtype)
            key = hidden(l, 2 * z - 1, u)[0] if self.given else l + np.log(u) - np.log1p(-u)
            total = total + sigmoid((l + scg.stop_gradient(key - l)) / 0.7)
        soft = total / 2 if self.divided else total
        return z + soft - scg.stop_gradient(soft)


@pytest.mark.parametrize("given, divided", [(True, True), (False, True), (True, False)])
def test_keys_that_do_not_know_the_sample_or_are_not_averaged_have_another_mean(given, divided):
    graph = traced(coin, np.array(0.3))
    plain, found = (
        scg.exact.moments(graph.bind(z=e)).mean for e in (scg.GumbelSoftmax(0.7, hard=True), Mistaken(given, divided))
    )
    away = abs(found / plain - 1)
    assert away < 1e-9 if given and divided else away > 0.01


@pytest.mark.parametrize("k", [1, 4])
def test_keys_of_one_of_k_given_it_keep_the_mean_and_have_less_variance(k):
    graph = traced(faces, THETA)
    many = graph.bind(z=scg.GumbelSoftmax(0.7, hard=True)).gradients(rng=np.random.default_rng(5), replicates=1_000_000)
    variance = near(graph, scg.GumbelSoftmax(0.7, hard=True, rao_blackwell=k), many.mean(0))
    assert (variance < 0.95 * many.var(0)).all() if k == 4 else (abs(variance / many.var(0) - 1) < 0.1).all()


def test_keys_given_the_sample_are_gumbel_and_their_largest_is_the_sample():
    """Over samples from softmax(l), z - l are independent standard Gumbel numbers (Kolmogorov-Smirnov, false alarm 1e-4
    each)."""
    rng, n = np.random.default_rng(0), 4000
    b = dist.OneHotCategorical(logits=THETA).sample(rng, n)
    z, _ = keys(np.broadcast_to(THETA, b.shape), b, rng.random(b.shape))
    np.testing.assert_array_equal(z.argmax(-1), b.argmax(-1))
    for i in range(3):
        assert stats.kstest(z[:, i] - THETA[i], "gumbel_r").pvalue > 1e-4
    assert abs(np.corrcoef((z - THETA).T)[np.triu_indices(3, 1)]).max() < 5 / np.sqrt(n)


def test_the_derivative_of_keys_at_fixed_noise_is_that_of_their_formula():
    rng, h = np.random.default_rng(0), 1e-6
    b, v = np.eye(3)[1], rng.random(3)
    _, share = keys(THETA, b, v)
    p = np.exp(THETA) / np.exp(THETA).sum()
    for j in range(3):
        up, down = (keys(THETA + s * h * np.eye(3)[j], b, v)[0] for s in (1, -1))
        np.testing.assert_allclose((up - down) / (2 * h), share * np.eye(3)[j] + (1 - share) * p[j], atol=1e-8)


ONE_OF_K = {
    "REBAR": lambda: scg.REBAR(),
    "REBAR, warm": lambda: scg.REBAR(2.0, 0.5),
    "RELAX": lambda: scg.RELAX(lambda phi, z: phi * np.tanh(z / 2) * np.array([1.0, 2.0, 3.0]), np.array(0.7)),
    "RELAX, relaxed too": lambda: scg.RELAX(lambda phi, z: phi * z[..., 0] * z[..., 1], np.array(0.1), temperature=1.0),
}


@pytest.mark.parametrize("given", ["logits", "probs"])
@pytest.mark.parametrize("name", ONE_OF_K)
def test_controls_of_one_of_k_keep_the_mean(name, given):
    def cost(t, rng):
        made = dist.OneHotCategorical(**{given: t if given == "logits" else np.exp(t) / np.sum(np.exp(t))})
        z = scg.sample(made, SCORE, rng=rng, name="z")
        return np.sum(z * np.array([1.0, -0.4, 2.0])) ** 2 * (1 + t[0])

    graph = traced(cost, THETA)
    near(graph, ONE_OF_K[name](), scg.exact.gradient(graph))


def test_controls_of_one_of_k_keep_the_mean_where_several_are_mixed_and_others_come_after():
    def cost(t, rng):
        z = scg.sample(dist.OneHotCategorical(logits=t), SCORE, rng=rng, name="z")
        y = scg.sample(dist.Bernoulli(logits=np.sum(z[0]) * z[1, 0]), SCORE, rng=rng, name="y")
        return np.sum(z[0] * z[1] * np.array([1.0, 2.0, -1.0])) + y * z[0, 1] + np.sum(z * t)

    graph = traced(cost, np.stack([THETA, -THETA]))
    near(graph, scg.REBAR(1.0), scg.exact.gradient(graph))


@given(st.integers(2, 5), st.integers(0, 2**32), st.floats(0.2, 3), st.sampled_from([-1.0, 0.5, 1.0]))
@drawn(8, derandomize=True)
def test_controls_keep_the_mean_for_any_number_of_categories_temperature_and_scale(
    categories, seed, temperature, scale
):
    rng = np.random.default_rng(seed)
    a = rng.standard_normal(categories)

    def cost(t, rng):
        z = scg.sample(dist.OneHotCategorical(logits=t), SCORE, rng=rng, name="z")
        return np.exp(np.sum(a * z, axis=-1)).sum() + np.prod(np.sum(a * z, axis=-1)) * t[0, 0]

    graph = traced(cost, rng.standard_normal((2, categories)))
    near(graph, scg.REBAR(temperature, scale), scg.exact.gradient(graph), replicates=20_000, seed=seed)


def test_a_trained_control_of_one_of_k_has_less_variance():
    estimator = scg.REBAR(0.5, optimizer=functools.partial(scg.optim.Adam, learning_rate=0.05))
    graph = traced(faces, THETA)
    for seed in range(200):
        graph.bind(z=estimator).gradients(rng=np.random.default_rng(seed))
    exact = scg.exact.gradient(graph)
    first = near(graph, scg.REBAR(0.5), exact)
    trained = scg.REBAR(estimator.temperature, float(estimator.parameters["scale"]))
    assert near(graph, trained, exact).sum() < 0.8 * first.sum()


def test_what_is_not_there_is_refused():
    with pytest.raises(ScgValueError, match="hard=True"):
        scg.GumbelSoftmax(0.5, rao_blackwell=2)
    with pytest.raises(ScgValueError, match="at least 1"):
        scg.GumbelSoftmax(0.5, hard=True, rao_blackwell=0)
    with pytest.raises(EstimatorError, match="OneHotCategorical"):
        scg.sample(dist.Categorical(logits=THETA), scg.REBAR(), rng=np.random.default_rng(0), name="z")


# measure-valued derivatives

COUNTS = {
    "binomial": lambda t: dist.Binomial(4, logits=t),
    "binomial, probs": lambda t: dist.Binomial(3, probs=1 / (1 + np.exp(-t))),
    "geometric": lambda t: dist.Geometric(logits=t),
    "geometric, probs": lambda t: dist.Geometric(probs=1 / (1 + np.exp(-t))),
    "negative binomial": lambda t: dist.NegativeBinomial(2.5, logits=t),
    "negative binomial, probs": lambda t: dist.NegativeBinomial(2.5, probs=1 / (1 + np.exp(-t))),
}
REAL = {
    "laplace": lambda t: dist.Laplace(t[0], np.exp(t[1])),
    "lognormal": lambda t: dist.LogNormal(0.3 * t[0], np.exp(t[1] - 1)),
    "student": lambda t: dist.StudentT(5.0, t[0], np.exp(t[1])),
}


@pytest.mark.parametrize("name", ["binomial", "binomial, probs"])
def test_weak_derivatives_of_a_binomial_are_exact(name):
    def cost(t, rng):
        z = scg.sample(COUNTS[name](t), SCORE, rng=rng, name="z")
        return np.sqrt(np.sum(z) + 1.0) * t[0] + np.sum(z**2)

    graph = traced(cost, np.array([0.4, -0.2]))
    found = scg.exact.moments(graph.bind(z=scg.MeasureValued())).mean
    np.testing.assert_allclose(found, scg.exact.gradient(graph), rtol=1e-10)


def test_of_no_trials_there_is_no_success():
    """A cost that is infinite beyond the number of trials is not asked there."""

    def cost(t, rng):
        z = scg.sample(dist.Binomial(np.array([0, 3]), logits=t), SCORE, rng=rng, name="z")
        return np.sum(1 / (np.array([1.0, 4.0]) - z))

    graph = traced(cost, np.array([0.4, -0.2]))
    found = scg.exact.moments(graph.bind(z=scg.MeasureValued())).mean
    np.testing.assert_allclose(found, scg.exact.gradient(graph), rtol=1e-10)


@pytest.mark.parametrize("name", [*COUNTS, *REAL])
def test_weak_derivatives_keep_the_mean(name):
    make = {**COUNTS, **REAL}[name]

    def cost(t, rng):
        z = scg.sample(make(t), SCORE, rng=rng, name="z")
        return np.cos(z) + 0.5 * np.exp(-z * z) * t.ravel()[0]

    graph = traced(cost, np.array([0.4, -0.2]) if name in REAL else np.array(0.4))
    near(graph, scg.MeasureValued(), scg.exact.gradient(graph, rtol=1e-6))


@pytest.mark.parametrize("name", REAL)
def test_weak_derivatives_of_a_step_are_those_of_the_distribution_function(name):
    def cost(t, rng):
        z = scg.sample(REAL[name](t), SCORE, rng=rng, name="z")
        return np.where(z > 1.3, 1.0, 0.0)

    t, h = np.array([0.4, -0.2]), 1e-5
    tail = [1 - np.asarray(REAL[name](t + s * h * e).cdf(1.3)) for e in np.eye(2) for s in (1, -1)]
    near(traced(cost, t), scg.MeasureValued(), np.array([tail[0] - tail[1], tail[2] - tail[3]]) / (2 * h))


@pytest.mark.parametrize("name", [*COUNTS, *REAL])
def test_float32_stays(name):
    def cost(t, rng):
        return np.sum(np.cos(scg.sample({**COUNTS, **REAL}[name](t), scg.MeasureValued(), rng=rng, name="z")))

    assert scg.grad(cost)(np.array([0.4, -0.2], np.float32), rng=np.random.default_rng(0)).dtype == np.float32
