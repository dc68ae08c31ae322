"""Chains of continuous samples, each drawn given the one before, at any length: against closed forms, the Kalman
filter, and quadrature of all samples together where that is possible."""

import numpy as np
import pytest

import scg
import scg.exact
from scg import distributions as dist
from scg.errors import ScgError

S = scg.ScoreFunction()
PATH = scg.Reparameterized()


def ar(theta, steps, rng, estimator=S, shape=()):
    """A chain z_t ~ Normal(a z_(t-1) + b, exp(q)) with local costs, and costs of neighbours."""
    z, total = np.zeros(shape, theta["b"].dtype), 0.0
    for _ in range(steps):
        last, z = z, scg.sample(dist.Normal(theta["a"] * z + theta["b"], np.exp(theta["q"])), estimator, rng=rng)
        total = total + np.sum(z * z + z * last)
    return total


def mean_of_ar(theta, steps):
    """The same cost in closed form, of plain numbers or nodes."""
    m, v, total = 0.0, 0.0, 0.0
    for _ in range(steps):
        next_m, next_v = theta["a"] * m + theta["b"], theta["a"] ** 2 * v + np.exp(2 * theta["q"])
        total = total + next_m**2 + next_v + m * next_m + theta["a"] * v
        m, v = next_m, next_v
    return np.sum(total)


def drawn_theta(rng, shape=()):
    return {
        "a": np.array(rng.uniform(-0.9, 0.9)),
        "b": rng.normal(size=shape) * 0.5,
        "q": np.array(rng.uniform(-1, 0.5)),
    }


def close(one, other, rtol):
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=rtol, atol=rtol)


@pytest.mark.parametrize("estimator", [S, PATH], ids=["drawn", "pathwise"])
def test_a_chain_of_normals_has_the_mean_and_the_slope_of_its_closed_form(estimator):
    rng = np.random.default_rng(0)
    for steps in (7, 16):
        theta = drawn_theta(rng)
        graph = scg.trace(lambda theta, rng: ar(theta, steps, rng, estimator), theta, rng=rng)
        found = scg.exact.expectation(graph, full=True)
        value, slope = scg.value_and_grad(lambda theta: mean_of_ar(theta, steps))(theta)
        assert abs(found.value - value) <= max(found.error, 1e-12) * 10
        assert found.error < 1e-8 * abs(value)
        assert found.width.elements == 2
        close(scg.exact.gradient(graph), slope, 1e-8)


def test_a_batch_of_chains_that_drift_apart_has_lattices_of_its_own():
    rng = np.random.default_rng(1)
    theta = drawn_theta(rng, (5,)) | {"b": np.linspace(-6, 6, 5)}
    graph = scg.trace(lambda theta, rng: ar(theta, 8, rng, shape=(5,)), theta, rng=rng)
    value, slope = scg.value_and_grad(lambda theta: mean_of_ar(theta, 8))(theta)
    np.testing.assert_allclose(scg.exact.expectation(graph), value, rtol=1e-10)
    close(scg.exact.gradient(graph), slope, 1e-8)


def test_second_derivatives_of_a_chain_are_those_of_its_closed_form():
    theta = drawn_theta(np.random.default_rng(2))
    graph = scg.trace(lambda theta, rng: ar(theta, 7, rng), theta, rng=np.random.default_rng(0))
    found, known = scg.exact.hessian(graph), scg.hessian(lambda theta: mean_of_ar(theta, 7))(theta)
    for name in theta:
        close(found[name], known[name], 1e-7)


def kalman(theta, x):
    """log p(x) of z_t ~ Normal(a z_(t-1) + b, exp(q)), x_t ~ Normal(z_t, exp(r))."""
    m, v, total = 0.0, 0.0, 0.0
    for value in x:
        m, v = theta["a"] * m + theta["b"], theta["a"] ** 2 * v + np.exp(2 * theta["q"])
        s = v + np.exp(2 * theta["r"])
        total = total - 0.5 * np.log(2 * np.pi * s) - 0.5 * (value - m) ** 2 / s
        m, v = m + v / s * (value - m), v - v * v / s
    return total


def state_space(theta, x, rng):
    z, total = 0.0, 0.0
    for value in x:
        z = scg.sample(dist.Normal(theta["a"] * z + theta["b"], np.exp(theta["q"])), S, rng=rng)
        total = total + dist.Normal(z, np.exp(theta["r"])).log_prob(value)
    return total


@pytest.mark.parametrize("scale", [1.0, 6.0])
def test_the_evidence_of_a_gaussian_model_is_that_of_the_kalman_filter(scale):
    rng = np.random.default_rng(3)
    for _ in range(3):
        theta, x = drawn_theta(rng) | {"r": np.array(rng.uniform(-0.3, 0.5))}, scale * rng.normal(size=15)
        value, slope = scg.exact.log_evidence(state_space, theta, x, gradient=True)
        known, known_slope = scg.value_and_grad(lambda theta: kalman(theta, x))(theta)
        np.testing.assert_allclose(value, known, rtol=1e-9)
        close(slope, known_slope, 1e-7)


def test_evidence_far_beyond_what_a_lattice_reaches_is_refused():
    theta, x = drawn_theta(np.random.default_rng(0)) | {"r": np.array(-1.0)}, 60.0 * np.ones(15)
    with pytest.raises(ScgError):
        scg.exact.log_evidence(state_space, theta, x)


def switching(theta, steps, rng):
    """Coins that are drawn given Gaussians, Gaussians that are drawn given coins."""
    z, total = 0.0, 0.0
    for _ in range(steps):
        coin = scg.sample(dist.Bernoulli(logits=theta["u"] + theta["v"] * z), S, rng=rng)
        z = scg.sample(dist.Normal(np.where(coin == 1, theta["a"] * z + 1.0, theta["b"]), 0.7), S, rng=rng)
        total = total + np.sin(z) * coin + z
    return total


SWITCH = {"u": np.array(0.3), "v": np.array(-0.8), "a": np.array(0.6), "b": np.array(-1.0)}


def test_coins_given_gaussians_given_coins_agree_with_quadrature_of_all_together():
    graph = scg.trace(lambda theta, rng: switching(theta, 3, rng), SWITCH, rng=np.random.default_rng(0))
    apart = {"budget": 2**17}
    one, two = scg.exact.expectation(graph, full=True, **apart), scg.exact.expectation(graph, full=True)
    assert one.width.elements < two.width.elements  # one of them is eliminated
    assert abs(one.value - two.value) <= 10 * (one.error + two.error)
    close(scg.exact.gradient(graph, **apart), scg.exact.gradient(graph), 1e-8)


def test_means_of_switching_systems_follow_their_own_recursion():
    """E[z_t; k_t] and E[z_t^2; k_t] of a linear system that switches, independently of z."""
    step = np.array([[0.8, 0.2], [0.4, 0.6]])
    a, b = np.array([0.5, 0.9]), np.array([-1.0, 1.0])

    def cost(s, rng):
        k = scg.sample(dist.Bernoulli(probs=0.5), S, rng=rng)
        z, total = 0.0, 0.0
        for _ in range(12):
            k = scg.sample(dist.Bernoulli(probs=np.where(k == 1, 0.6, 0.2)), S, rng=rng)
            z = scg.sample(dist.Normal(np.where(k == 1, 0.9 * z + 1.0, 0.5 * z - 1.0), s), S, rng=rng)
            total = total + z * z
        return total

    s = 0.5
    p, m, q, total = np.full(2, 0.5), np.zeros(2), np.zeros(2), 0.0
    for _ in range(12):
        p, m, q = p @ step, m @ step, q @ step
        p, m, q = p, a * m + b * p, a * a * q + 2 * a * b * m + (b * b + s * s) * p
        total += np.sum(q)
    np.testing.assert_allclose(scg.exact.expectation(cost, np.array(s)), total, rtol=1e-10)


def test_a_rare_coin_that_leads_far_away_is_seen():
    def cost(p, rng):
        coin = scg.sample(dist.Bernoulli(logits=p), S, rng=rng)
        z = scg.sample(dist.Normal(40.0 * coin, 1.0), S, rng=rng)
        total = np.exp(z / 4)
        for _ in range(7):
            z = scg.sample(dist.Normal(0.1 * z, 1.0), S, rng=rng)
            total = total + z
        return total

    p = 1 / (1 + np.exp(16.0))
    want = np.exp(1 / 32) * (1 - p + p * np.exp(10)) + 40 * p * sum(0.1**k for k in range(1, 8))
    np.testing.assert_allclose(scg.exact.expectation(cost, np.array(-16.0)), want, rtol=1e-9)


def test_what_too_few_samples_show_is_refused():
    """The probability of all coins together is 3e-9, and what is lost without them is half of the mean."""

    def cost(p, rng):
        coins = scg.sample(dist.Bernoulli(probs=p * np.ones(13)), S, rng=rng)
        z = scg.sample(dist.Normal(40.0 * np.prod(coins), 1.0), S, rng=rng)
        total = np.exp(z / 2)
        for _ in range(7):
            z = scg.sample(dist.Normal(0.1 * z, 1.0), S, rng=rng)
            total = total + z
        return total

    with pytest.raises((scg.exact.ConvergenceError, scg.exact.BudgetError)):
        scg.exact.expectation(cost, np.array(0.22))


@pytest.mark.parametrize("steps", [3, 7])
def test_moments_of_score_functions_on_a_chain(steps):
    theta = {"a": np.array(0.7), "b": np.array(0.2), "q": np.array(-0.3)}
    graph = scg.trace(lambda theta, rng: ar(theta, steps, rng), theta, rng=np.random.default_rng(0))
    found = scg.exact.moments(graph, budget=2**14 if steps == 3 else 2**20, full=True)
    assert found.width.elements == 2
    close(found.value.mean, scg.grad(lambda theta: mean_of_ar(theta, steps))(theta), 1e-8)
    if steps == 3:
        close(found.value.variance, scg.exact.moments(graph).variance, 1e-8)
    else:
        sample = graph.gradients(rng=np.random.default_rng(1), replicates=20_000)
        for name, part in sample.items():
            # variances of such products have heavy tails
            assert 0.8 < np.var(part) / found.value.variance[name] < 1.2


def chain_with(cost):
    def total(s, rng):
        z, found = 0.0, 0.0
        for _ in range(12):
            z = scg.sample(dist.Normal(0.8 * z, s), S, rng=rng)
            found = found + cost(z)
        return found

    return total


@pytest.mark.parametrize("width", [0.1, 0.01, 0.001])
def test_what_is_narrower_than_a_lattice_is_refused(width):
    with pytest.raises(scg.exact.ConvergenceError, match="narrow|settle"):
        scg.exact.expectation(chain_with(lambda z: z * z + np.exp(-(((z - 0.3) / width) ** 2))), np.array(0.5))


@pytest.mark.parametrize("width", [0.004, 2e-4, 2e-6])
@pytest.mark.parametrize("coins", [0, 6])
@pytest.mark.parametrize("bump", [lambda x: np.exp(-x * x), lambda x: 1.0 / np.cosh(x), lambda x: np.tanh(x) ** 2 - 1])
def test_what_is_narrow_is_seen_where_coins_hide_it_and_between_the_points_of_any_lattice(bump, coins, width):
    def cost(s, rng):
        z, total = 0.0, 0.0
        hidden = 1.0
        for _ in range(coins):
            hidden = hidden * scg.sample(dist.Bernoulli(probs=0.5), S, rng=rng)
        for _ in range(8):
            z = scg.sample(dist.Normal(0.5 * z, s), S, rng=rng)
            total = total + z * z
        return total + hidden * bump((z - 0.7) / width) / width

    with np.errstate(over="ignore"), pytest.raises(scg.exact.ConvergenceError, match="narrow|settle"):
        scg.exact.expectation(cost, np.array(0.9), rng=np.random.default_rng(0))


@pytest.mark.parametrize(
    "cost", [np.abs, lambda z: np.maximum(z, 6.0), lambda z: np.where(z > 0.4, 1.0, 0.0)], ids=["abs", "max", "where"]
)
def test_what_is_not_smooth_is_refused(cost):
    with pytest.raises(scg.exact.ConvergenceError, match="not smooth"):
        scg.exact.expectation(chain_with(cost), np.array(0.5))


def test_tails_that_are_too_heavy_are_refused():
    def cost(s, rng):
        z, total = 0.0, 0.0
        for _ in range(9):
            z = scg.sample(dist.StudentT(5.0, 0.5 * z, s), S, rng=rng)
            total = total + z * z
        return total

    with pytest.raises(scg.exact.ConvergenceError, match="settle"):
        scg.exact.expectation(cost, np.array(0.5))
    with pytest.raises(scg.exact.ConvergenceError):  # of which the mean is infinite
        scg.exact.expectation(chain_with(lambda z: np.exp(z * z)), np.array(0.9))


def test_a_chain_in_float32_is_as_good_as_its_rounding():
    theta = {"a": np.float32(0.7), "b": np.float32(0.2), "q": np.float32(-0.3)}
    graph = scg.trace(lambda theta, rng: ar(theta, 8, rng), theta, rng=np.random.default_rng(0))
    assert graph.cost.dtype == np.float32
    found = scg.exact.expectation(graph, full=True)
    assert abs(found.value - mean_of_ar(theta, 8)) <= 10 * found.error < 1e-2
