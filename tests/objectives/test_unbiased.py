"""Bounds with less bias, estimates with none, and losses of held samples: one coin by enumeration, a Gaussian in closed
form."""

import itertools
import math

import numpy as np
import pytest
import scipy.special as sp

import scg
from scg import distributions as dist
from scg import objectives
from scg.errors import ScgTypeError, ScgValueError
from scg.objectives.unbiased import Level, Rounds

LOGIT, K = np.array(0.4), 3
JOINT = np.log([0.25, 0.6])  # log p(x, z) of z = 0, 1
EVIDENCE = np.log(0.85)


def rng(seed=0):
    return np.random.default_rng(seed)


def model(z):
    return z * JOINT[1] + (1 - z) * JOINT[0]


def of_weights(fn, **options):
    def cost(logit, rng):
        guide = dist.Bernoulli(logits=logit)
        z = scg.sample(guide, scg.ScoreFunction(), rng=rng, shape=K, name="z")
        return fn(model(z) - guide.log_prob(z), **options)

    return cost


def of_model(fn, **options):
    return lambda logit, rng: fn(model, guide=dist.Bernoulli(logits=logit), samples=K, rng=rng, **options)


def of_held(fn, **options):
    def cost(logit, rng):
        guide = dist.Bernoulli(logits=logit)
        return fn(model, guide, objectives.hold(guide, samples=K, rng=rng), **options)

    return cost


def mean(bound):
    """E bound(log-weights) over K coins, as a function of the logit."""

    def value(logit):
        total = 0.0
        for z in itertools.product([0.0, 1.0], repeat=K):
            log_q = np.where(np.array(z) == 1, -np.log1p(np.exp(-logit)), -np.log1p(np.exp(logit)))
            total += np.exp(np.sum(log_q)) * bound(model(np.array(z)) - log_q)
        return total

    return value


def slope(fn, x=float(LOGIT), h=1e-3):
    return (8 * (fn(x + h) - fn(x - h)) - fn(x + 2 * h) + fn(x - 2 * h)) / (12 * h)


def log_mean_exp(x):
    return sp.logsumexp(x) - math.log(len(x))


def first_order(x):
    """K L_K - (K - 1) times the mean of the L_{K-1}."""
    return K * log_mean_exp(x) - (K - 1) * np.mean([log_mean_exp(np.delete(x, i)) for i in range(K)])


CASES = {
    "elbo": (of_model(objectives.elbo, gradient="OVIS"), np.mean),
    "iwae": (of_model(objectives.iwae, gradient="ovis"), log_mean_exp),
    "renyi": (of_weights(objectives.renyi, alpha=0.5), lambda x: 2 * log_mean_exp(x / 2)),
    "renyi, below": (of_weights(objectives.renyi, alpha=-1.0), lambda x: log_mean_exp(2 * x) / 2),
    "renyi, limit": (of_weights(objectives.renyi, alpha=1), np.mean),
    "jackknife": (of_weights(objectives.jackknife), first_order),
    "jackknife, none": (of_weights(objectives.jackknife, order=0), log_mean_exp),
}


@pytest.mark.fast
@pytest.mark.parametrize("name", CASES)
def test_means_and_gradients_are_those_of_brute_force(name):
    cost, bound = CASES[name]
    graph = scg.trace(cost, LOGIT, rng=rng())
    assert abs(scg.exact.expectation(graph) - mean(bound)(float(LOGIT))) < 1e-12
    assert abs(scg.exact.moments(graph).mean - slope(mean(bound))) < 1e-9


def variance(cost):
    return scg.exact.moments(scg.trace(cost, LOGIT, rng=rng())).variance


def test_ovis_is_unbiased_for_gamma_zero_alone():
    exact = slope(mean(log_mean_exp))
    gradients = {
        gamma: scg.exact.moments(
            scg.trace(of_model(objectives.iwae, gradient="OVIS", gamma=gamma), LOGIT, rng=rng())
        ).mean
        for gamma in (0.0, 0.5, 1.0)
    }
    assert abs(gradients[0.0] - exact) < 1e-9
    assert 1.5 < gradients[0.5] / exact < 2.5 < gradients[1.0] / exact < 3.5


def test_ovis_has_less_variance_than_its_relatives():
    found = {g: variance(of_model(objectives.iwae, gradient=g)) for g in ("score function", "VIMCO", "OVIS")}
    assert found["OVIS"] < 0.05 * found["VIMCO"] < 0.05 * found["score function"]
    assert variance(of_model(objectives.elbo, gradient="OVIS")) < 0.1 * variance(
        of_model(objectives.elbo, gradient="VIMCO")
    )


def test_the_jackknife_has_less_bias():
    bias = {
        order: scg.exact.expectation(of_weights(objectives.jackknife, order=order), LOGIT, rng=rng()) - EVIDENCE
        for order in range(K)
    }
    assert bias[0] < -0.008 and abs(bias[1]) < 0.0005 and abs(bias[2]) < abs(bias[1])


def test_the_loss_of_log_variance_has_the_gradient_of_the_bound():
    graph = scg.trace(of_held(objectives.log_variance), LOGIT, rng=rng())
    found = scg.exact.moments(graph)
    assert abs(found.mean + slope(mean(np.mean))) < 1e-9
    assert np.isclose(found.variance, variance(of_model(objectives.elbo, gradient="OVIS")))
    assert abs(scg.exact.expectation(graph) - mean(lambda x: np.var(x, ddof=1) / 2)(float(LOGIT))) < 1e-12
    posterior = np.log(0.6 / 0.25)
    z = np.array([1.0, 0.0, 1.0, 1.0])
    assert objectives.log_variance(model, dist.Bernoulli(logits=posterior), z) < 1e-30


def test_the_thermodynamic_objective_is_biased_at_finite_samples():
    """Value and gradient by brute force: each mean by normalised weights, its derivative by its covariance."""
    steps = np.array([0.0, 0.3, 1.0])

    def parts(x, log_q, score):
        value = slope = 0.0
        for low, high in zip(steps[:-1], steps[1:], strict=True):
            w = np.exp(low * (x - x.max()))
            w = w / w.sum()
            centred = x - w @ x
            value += (high - low) * (w @ x)
            slope += (high - low) * (w @ (-score) + w @ (centred * (1 - low) * score))
        return np.array([value, slope])

    p = sp.expit(float(LOGIT))
    expected = np.zeros(2)
    for z in itertools.product([0.0, 1.0], repeat=K):
        z = np.array(z)
        log_q = np.log(np.where(z == 1, p, 1 - p))
        expected += np.exp(np.sum(log_q)) * parts(model(z) - log_q, log_q, z - p)
    graph = scg.trace(of_held(objectives.thermodynamic, temperatures=steps), LOGIT, rng=rng())
    assert np.allclose([scg.exact.expectation(graph), scg.exact.moments(graph).mean], expected, rtol=0, atol=1e-12)

    one = scg.exact.moments(scg.trace(of_held(objectives.thermodynamic, temperatures=1), LOGIT, rng=rng()))
    assert np.isclose(one.mean, (1 - 1 / K) * slope_of_elbo())


def slope_of_elbo():
    return slope(mean(np.mean))


@pytest.mark.parametrize("d", [Rounds(), Rounds(4, 0.5), Level(), Level(0.45)], ids=repr)
def test_lengths_and_levels_are_distributions(d):
    k = np.arange(0, 3000)
    p = np.exp(d.log_prob(k))
    assert abs(p.sum() - 1) < 1e-12
    n, drawn = 20_000, d.sample(rng(), 20_000)
    for value in range(8):
        expected = p[value]
        assert abs(np.mean(drawn == value) - expected) < 5 * math.sqrt(expected * (1 - expected) / n) + 1e-12
    if isinstance(d, Rounds):
        np.testing.assert_allclose(d.survival(k[1:]), np.cumsum(p[::-1])[::-1][1:], rtol=1e-9, atol=1e-15)
    assert d.log_prob(0.5) == -np.inf and np.isnan(d.log_prob(np.nan))


X = 1.3


def gaussian(theta, rng, objective, **options):
    """z ~ N(theta_0, 1), x | z ~ N(z, 0.8): log p(x) = log N(x; theta_0, 1.64)."""
    guide = dist.Normal(theta[1], 0.8)
    joint = lambda z: dist.Normal(theta[0], 1.0).log_prob(z) + dist.Normal(z, 0.8).log_prob(X)
    return objective(joint, guide=guide, rng=rng, **options)


THETA = np.array([0.2, 0.6])


@pytest.mark.parametrize("objective, options", [(objectives.sumo, {}), (objectives.multilevel, {"base": 2})])
def test_roulette_and_levels_have_the_mean_log_p_and_its_gradient(objective, options):
    log_p = dist.Normal(THETA[0], np.sqrt(1.64)).log_prob(X)
    truth = np.array([(X - THETA[0]) / 1.64, 0.0])
    r, values, gradients = rng(1), [], []
    evaluate = scg.value_and_grad(gaussian)
    for _ in range(1200):
        value, gradient = evaluate(THETA, r, objective, **options)
        values.append(value)
        gradients.append(gradient)
    for found, exact in ((np.array(values)[:, None], log_p), (np.array(gradients), truth)):
        error = np.std(found, axis=0) / np.sqrt(len(found))
        assert np.all(np.abs(np.mean(found, axis=0) - exact) < 5 * error) and np.max(error) < 0.2
    bound = scg.exact.expectation(lambda t, rng: gaussian(t, rng, objectives.iwae, samples=1), THETA, rng=rng())
    assert abs(bound - log_p) > 4 * np.std(values) / np.sqrt(len(values))  # it could tell


def test_the_second_moment_of_roulette_grows_with_its_heavy_part_and_that_of_levels_does_not():
    """From the exact variances of the differences of one coin's bounds: sum E D_k^2 / P(N >= k) against sum E D_l^2 /
    P(N = l)."""
    p = sp.expit(float(LOGIT))
    log_w = np.array([JOINT[0] - np.log(1 - p), JOINT[1] - np.log(p)])

    def bounds(n):
        heads = np.arange(n + 1)
        shares = np.log(np.maximum([n - heads, heads], 1e-300) / n)
        return sp.logsumexp(shares + log_w[:, None], axis=0)

    def binomial(n):
        heads = np.arange(n + 1)
        return (
            np.exp(sp.gammaln(n + 1) - sp.gammaln(heads + 1) - sp.gammaln(n - heads + 1))
            * p**heads
            * (1 - p) ** (n - heads)
        )

    def single(k):  # E (L_{k+1} - L_k)^2
        before, after = bounds(k), bounds(k + 1)
        w = binomial(k)
        return w @ (p * (after[1:] - before) ** 2 + (1 - p) * (after[:-1] - before) ** 2)

    def halves(n):  # E (L_2n - (L_n + L_n') / 2)^2
        w, one, two = binomial(n), bounds(n), bounds(2 * n)
        i = np.arange(n + 1)
        return np.sum(np.outer(w, w) * (two[i[:, None] + i] - (one[:, None] + one) / 2) ** 2)

    roulette = [k * single(k) for k in range(1, 600)]
    doublings = [sum(roulette[a - 1 : 2 * a - 1]) for a in (30, 60, 120, 240)]
    assert all(b > 0.9 * a for a, b in itertools.pairwise(doublings))  # each doubling adds the same: a logarithm
    levels = [halves(2**l) / ((1 - 2**-1.5) * 2 ** (-1.5 * l)) for l in range(2, 9)]
    assert all(b < 0.8 * a for a, b in itertools.pairwise(levels[2:]))  # a geometric series


@pytest.mark.parametrize(
    "call, kind, message",
    [
        (lambda: objectives.jackknife(np.zeros(3), order=3), ScgValueError, "below the number of samples, 3"),
        (lambda: objectives.jackknife(np.zeros(300), order=3), ScgValueError, "too many: a lower order"),
        (lambda: objectives.renyi(np.zeros(3), "a"), ScgTypeError, "alpha must be a number"),
        (lambda: objectives.multilevel(model, guide=dist.Bernoulli(0.5), rng=rng(), ratio=0.6), ScgValueError, "1/4"),
        (lambda: objectives.sumo(3, guide=dist.Bernoulli(0.5), rng=rng()), ScgTypeError, "needs a model"),
        (lambda: objectives.sumo(model, guide=0.5, rng=rng()), ScgTypeError, "needs guide="),
        (
            lambda: objectives.iwae(model, guide=dist.Normal(0.0, 1.0), samples=3, rng=rng(), gamma=0.5),
            ScgValueError,
            "option of gradient='OVIS'",
        ),
        (
            lambda: objectives.thermodynamic(model, dist.Bernoulli(0.5), np.zeros(3), temperatures=[0, 0.5]),
            ScgValueError,
            "rise from 0 to 1",
        ),
        (lambda: objectives.log_variance(model, dist.Bernoulli(0.5), np.zeros(1)), ScgValueError, "at least 2"),
    ],
)
def test_options_are_checked(call, kind, message):
    with pytest.raises(kind, match=message):
        call()
