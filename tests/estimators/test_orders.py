"""Control variates of orders: the relaxed matrix of keys, given the order and without it."""

import functools

import numpy as np
import pytest

import scg
from scg import distributions as dist
from scg.errors import EstimatorError, NotDifferentiable
from scg.estimators.races import race, relaxed
from scg.testing import assert_unbiased, check_gradient

L = np.array([0.3, -0.7, 0.5, 0.1])
WORTH, PLACE = np.array([1.0, -0.4, 0.3, 2.0]), np.array([1.0, 0.6, 0.2, 0.1])


def rng(seed=0):
    return np.random.default_rng(seed)


def value(p):
    """Squares of running sums of what things are worth at their places."""
    v = p @ WORTH[: p.shape[-1]]
    return np.sum(np.cumsum(v * PLACE[: v.shape[-1]], axis=-1) ** 2, axis=-1)


def cost(l, rng, estimator=None, size=None):
    return value(scg.sample(dist.OneHotPlackettLuce(l, size), estimator or scg.ScoreFunction(), rng=rng, name="P"))


def coin(l, rng, estimator):
    """An order of two, as a coin that says which is first."""
    b = scg.sample(dist.Bernoulli(logits=l[0] - l[1]), estimator, rng=rng)
    p = np.stack([np.stack([b, 1 - b]), np.stack([1 - b, b])])
    return value(p)


def category(l, rng, estimator):
    """The first of an order."""
    return value(scg.sample(dist.OneHotCategorical(logits=l), estimator, rng=rng)[None])


def gradients(fn, l, estimator, n=60_000, **how):
    return scg.trace(fn, l, rng=rng(), estimator=estimator, **how).gradients(rng=rng(3), replicates=n)


@pytest.mark.parametrize("size", [None, 2, 1])
@pytest.mark.parametrize(
    "make",
    [
        lambda: scg.REBAR(temperature=0.1, scale=0.7),
        lambda: scg.REBAR(temperature=1.0),
        lambda: scg.RELAX(lambda phi, z: np.sum(phi * np.tanh(z), axis=-1), PLACE, temperature=0.5),
        lambda: scg.RELAX(lambda phi, z: np.sum(phi * np.tanh(z), axis=-1), PLACE),
    ],
)
def test_control_variates_leave_the_mean_and_take_variance(make, size):
    """The exact gradient is that of all orders; 5 standard errors of 60,000 replicates."""
    g, score = gradients(cost, L, make(), size=size), gradients(cost, L, scg.ScoreFunction(), size=size)
    exact = scg.exact.gradient(cost, L, rng=rng(), size=size)
    error = np.std(g, axis=0) / np.sqrt(len(g))
    assert np.all(np.abs(np.mean(g, axis=0) - exact) < 5 * error)
    if size != 1 and make().continuous:  # neither a free function that is not trained, nor keys at a low temperature
        assert np.sum(np.var(g, axis=0)) < 0.8 * np.sum(np.var(score, axis=0))


@pytest.mark.parametrize(
    "make", [scg.ScoreFunction, scg.Enumerate, lambda: scg.UnorderedSet(2), lambda: scg.CoupledPairs(2)]
)
def test_other_estimators_are_exactly_unbiased(make):
    l = L[:3]
    assert assert_unbiased(scg.trace(cost, l, rng=rng(), estimator=make()), rng=rng()).method == "exact"


@pytest.mark.parametrize("temperature", [1.0, 0.3])
@pytest.mark.parametrize("other", [coin, category])
def test_an_order_of_two_is_a_coin_and_the_first_of_all_a_category(other, temperature):
    """In distribution: its relaxed keys are those of REBAR there, where the noise is integrated exactly (a coin); mean
    and variance agree to 5 standard errors."""
    l, size = (L[:2], None) if other is coin else (L, 1)
    estimator = scg.REBAR(temperature=temperature)
    g = gradients(cost, l, estimator, size=size)
    graph = scg.trace(other, l, rng=rng(), estimator=estimator)
    if other is coin:
        found = scg.exact.moments(graph)
        mean, variance, error = found.mean, found.variance, 0
    else:
        h = graph.gradients(rng=rng(4), replicates=len(g))
        mean, variance = np.mean(h, axis=0), np.var(h, axis=0)
        error = np.var((h - mean) ** 2, axis=0)
    n, centred = len(g), g - np.mean(g, axis=0)
    assert np.all(np.abs(np.mean(g, axis=0) - mean) < 5 * np.sqrt((np.var(g, axis=0) + variance * (error > 0)) / n))
    spread = np.sqrt((np.var(centred**2, axis=0) + error) / n)
    assert np.all(np.abs(np.mean(centred**2, axis=0) - variance) < 5 * spread)


def test_the_mean_with_integrated_noise_is_exact():
    """sum_b p(b) {(f(b) - E c(z')) score + E dc(z) - E dc(z')} of an order of three, with the three keys of z and z'
    on a grid of the midpoints of 24^3 cells."""
    m, l, rate = 24, L[:3], 1.0
    axis = (np.arange(m) + 0.5) / m
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    d = dist.OneHotPlackettLuce(l)
    total = np.zeros(3)
    for b, p in zip(d.atoms(), np.exp(d.log_prob(d.atoms())), strict=True):
        order = np.broadcast_to(np.argmax(b, -1), grid.shape)
        t = scg.parameter(np.broadcast_to(l, grid.shape).copy())
        keys = race(t, order, grid)
        x, back = relaxed(keys.value, np.broadcast_to(b, (len(grid), 3, 3)), rate)
        matrix = scg.parameter(x)
        c = value(matrix)
        (slope,) = scg.core.backward.pull([c], [np.ones(len(grid))], [matrix])
        direct = back(slope)
        (other,) = scg.core.backward.pull([keys], [direct], [t])
        score = scg.grad(lambda l, order=order: dist.PlackettLuce(l).log_prob(order[0]))(l)
        total += p * ((value(b) - np.mean(c.value)) * score + np.mean(direct - other, axis=0))
    np.testing.assert_allclose(total, scg.exact.gradient(cost, l, rng=rng()), rtol=0, atol=1.5e-3)  # falls as m^-1.5


@pytest.mark.fast
@pytest.mark.parametrize("size", [1, 3, 4])
def test_the_relaxed_matrix_is_soft_sort(size):
    """softmax(-|sorted z - z| / temperature), its derivative, and the order itself as the temperature falls."""
    z = rng(1).normal(size=(5, 4))
    b = (np.argsort(-z, axis=-1)[:, :size, None] == np.arange(4)).astype(float)
    x, back = relaxed(z, b, 1.7)
    d = -1.7 * np.abs(-np.sort(-z, axis=-1)[:, :size, None] - z[:, None, :])
    e = np.exp(d - d.max(-1, keepdims=True))
    np.testing.assert_allclose(x, e / e.sum(-1, keepdims=True), rtol=1e-12)
    np.testing.assert_allclose(relaxed(z, b, 1e5)[0], b, atol=1e-12)
    g = rng(2).normal(size=x.shape)
    slope = scg.grad(lambda z: np.sum(g * relaxed(z, b, 1.7)[0]))(z)
    np.testing.assert_allclose(back(g), slope, rtol=1e-10, atol=1e-13)
    check_gradient(lambda z: np.sum(g * relaxed(z, b, 1.7)[0]), z)


def test_single_runs_and_replicates_have_one_distribution():
    r = rng(5)
    g = np.array([scg.grad(cost)(L, rng=r, estimator=scg.REBAR(temperature=0.5)) for _ in range(600)])
    error = np.std(g, axis=0) / np.sqrt(len(g))
    assert np.all(np.abs(np.mean(g, axis=0) - scg.exact.gradient(cost, L, rng=rng())) < 5 * error)
    assert scg.grad(cost)(L.astype(np.float32), rng=r, estimator=scg.REBAR()).dtype == np.float32


def test_temperature_and_scale_are_trained():
    control = scg.REBAR(temperature=3.0, scale=0.1, optimizer=functools.partial(scg.optim.Adam, learning_rate=0.05))
    before = np.var(gradients(cost, L, control, 4000), axis=0)
    r = rng(2)
    for _ in range(150):
        scg.grad(cost)(L, rng=r, estimator=control)
    assert np.sum(np.var(gradients(cost, L, control, 4000), axis=0)) < 0.9 * np.sum(before)


def test_a_batch_of_orders_keeps_its_costs_apart():
    """Three orders of two sample axes: each with its own cost-to-go."""
    l = np.stack([L, L[::-1], 0 * L])

    def many(l, rng, estimator):
        p = scg.sample(dist.OneHotPlackettLuce(l), estimator, rng=rng, shape=(2,))
        return np.mean(value(p))

    g = gradients(many, l, scg.REBAR(temperature=0.7), 20_000)
    one = [scg.exact.gradient(cost, x, rng=rng()) / 3 for x in l]
    error = np.std(g, axis=0) / np.sqrt(len(g))
    assert np.all(np.abs(np.mean(g, axis=0) - one) < 5 * error)


def test_what_jumps_between_zeros_and_ones_is_refused():
    def steps(l, rng):
        p = scg.sample(dist.OneHotPlackettLuce(l), scg.REBAR(), rng=rng)
        return np.argmax(p[..., 0], axis=-1) * 1.0

    def own(l, rng):
        d = dist.OneHotPlackettLuce(l)
        p = scg.sample(d, scg.REBAR(), rng=rng)
        return d.log_prob(p) + value(p)

    for fn in (steps, own):
        with pytest.raises(EstimatorError, match="REBAR"):
            scg.grad(fn)(L, rng=rng())
    with pytest.raises(NotDifferentiable, match="REBAR"):
        scg.hvp(cost)(L, L, rng=rng(), estimator=scg.REBAR())
