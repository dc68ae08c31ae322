"""Subsets of a fixed size, orders, and ordered categories, against brute force."""

from itertools import combinations, permutations

import numpy as np
import pytest
import scipy.special as sp
from hypothesis import given
from hypothesis import strategies as st

import scg
from scg import distributions as dist
from scg.errors import EstimatorError, ScgValueError
from scg.estimators.races import race
from scg.testing import assert_unbiased, check_distribution, check_gradient

WIDE = st.floats(-30.0, 30.0, allow_subnormal=False)


def rng(seed=0):
    return np.random.default_rng(seed)


def order_probability(l, order):
    """The product of the shares of those who are left."""
    w = np.exp(l - np.max(l))
    left, p = list(range(len(l))), 1.0
    for i in order:
        p *= w[i] / sum(w[j] for j in left)
        left.remove(i)
    return p


@given(st.data())
def test_subsets_of_drawn_sizes_are_those_of_brute_force(data):
    n = data.draw(st.integers(1, 8))
    k = data.draw(st.integers(0, n))
    l = np.array(data.draw(st.lists(WIDE, min_size=n, max_size=n)))
    z = np.array([[float(i in chosen) for i in range(n)] for chosen in combinations(range(n), k)])
    log_w = z @ l
    log_p = log_w - sp.logsumexp(log_w)
    p, d = np.exp(log_p), dist.SubsetOfSize(l, k)
    assert np.array_equal(d.atoms(), z) and d.count() == len(z)
    np.testing.assert_allclose(d.log_prob(z), log_p, rtol=1e-12, atol=1e-11)
    np.testing.assert_allclose(d.mean, p @ z, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(d.entropy(), -np.sum(p * log_p), rtol=1e-9, atol=1e-11)
    if k:  # marginals so small that they vanish beside 1 keep their digits
        assert np.all(d.mean > 0)
        np.testing.assert_allclose(np.log(d.mean), np.log(p @ z), rtol=0, atol=1e-8)


@given(st.data())
def test_orders_of_drawn_lengths_are_those_of_brute_force(data):
    n = data.draw(st.integers(1, 6))
    k = data.draw(st.integers(1, n))
    l = np.array(data.draw(st.lists(WIDE, min_size=n, max_size=n)))
    d = dist.PlackettLuce(l, k)
    orders = list(permutations(range(n), k))
    assert d.count() == len(orders) and np.array_equal(d.atoms(), orders)
    with np.errstate(divide="ignore"):
        expected = np.log([order_probability(l, order) for order in orders])
    kept = expected > -600
    np.testing.assert_allclose(d.log_prob(np.array(orders))[kept], expected[kept], rtol=1e-11, atol=1e-11)


def test_improbable_orders_keep_their_digits():
    """Last come those who are e^800 times slower."""
    l = np.array([0.0, -800.0, -801.0])
    found = dist.PlackettLuce(l).log_prob(np.array([[0, 1, 2], [2, 1, 0]]))
    np.testing.assert_allclose(found, [-np.log1p(np.exp(-1)), -801 - 800], rtol=1e-12)


MADE = {
    "subsets": lambda: dist.SubsetOfSize(rng().normal(size=5), 2),
    "batch of subsets": lambda: dist.SubsetOfSize(rng().normal(0, 3, (2, 4)), 3),
    "orders": lambda: dist.PlackettLuce(rng().normal(size=4)),
    "first two": lambda: dist.PlackettLuce(rng().normal(size=(2, 5)), 2),
    "matrices": lambda: dist.OneHotPlackettLuce(rng().normal(size=3)),
    "batch of first two as matrices": lambda: dist.OneHotPlackettLuce(rng().normal(size=(2, 4)), 2),
    "ordered": lambda: dist.Ordered(rng().normal(size=3), [-1.0, 0.0, 2.0]),
    "ordered in two": lambda: dist.Ordered(0.3, [0.1]),
}


@pytest.mark.parametrize("name", MADE)
def test_distribution(name):
    check_distribution(MADE[name](), rng=rng(1))


@pytest.mark.fast
def test_a_matrix_is_its_order():
    l = rng().normal(size=(2, 4))
    matrix, order = dist.OneHotPlackettLuce(l, 3), dist.PlackettLuce(l, 3)
    p = matrix.sample(rng(1), 5)
    assert p.shape == (5, 2, 3, 4) and np.array_equal(np.argmax(p, -1), order.sample(rng(1), 5))
    np.testing.assert_array_equal(matrix.log_prob(p), order.log_prob(np.argmax(p, -1)))
    wrong = np.eye(4)[[[0, 0, 1], [0, 1, 2], [3, 1, 0]]]
    wrong[1, 0] = [0.5, 0.5, 0, 0]
    found = dist.OneHotPlackettLuce(l[0], 3).log_prob(wrong)
    assert found[0] == found[1] == -np.inf and found[2] == dist.PlackettLuce(l[0], 3).log_prob([3, 1, 0])
    assert np.isnan(dist.OneHotPlackettLuce(l[0], 3).log_prob(np.full((3, 4), np.nan)))


@pytest.mark.fast
def test_one_of_a_size_is_a_categorical_and_two_categories_are_a_coin():
    l = rng().normal(size=5)
    one, categorical = dist.SubsetOfSize(l, 1), dist.OneHotCategorical(logits=l)
    np.testing.assert_allclose(one.log_prob(np.eye(5)), categorical.log_prob(np.eye(5)), rtol=1e-12)
    np.testing.assert_allclose(dist.PlackettLuce(l, 1).log_prob(np.arange(5)[:, None]), categorical.log_p, rtol=1e-12)
    coin = dist.Bernoulli(logits=0.3 - 0.1)
    np.testing.assert_allclose(dist.Ordered(0.3, [0.1]).log_prob([0, 1]), coin.log_prob(np.array([0.0, 1.0])))


def test_coins_given_their_sum_are_a_subset():
    """Also where one of the things is never taken; and the divergence between two of them."""
    l, m = np.array([0.5, -1.0, 2.0, -np.inf]), np.array([0.1, 0.3, -0.2, 0.0])
    z = dist.SubsetOfSize(l, 2).atoms()
    p, q = (np.exp(dist.SubsetOfSize(x, 2).log_prob(z)) for x in (l, m))
    coins = np.prod(np.where(z == 1, sp.expit(l), sp.expit(-l)), axis=-1)
    np.testing.assert_allclose(p, coins / coins.sum(), rtol=1e-12)
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = np.sum(np.where(p > 0, p * np.log(p / q), 0))
    np.testing.assert_allclose(dist.kl_divergence(dist.SubsetOfSize(l, 2), dist.SubsetOfSize(m, 2)), expected, 1e-12)
    assert dist.kl_divergence(dist.SubsetOfSize(m, 2), dist.SubsetOfSize(l, 2)) == np.inf
    never = dist.SubsetOfSize(l, 2)
    np.testing.assert_allclose(never.mean, p @ z, rtol=1e-12)
    np.testing.assert_allclose(never.variance, never.mean * (1 - never.mean), rtol=1e-12)
    assert not np.any(never.sample(rng(), 1000)[:, 3])


@pytest.mark.parametrize("size", [0, 3])
def test_none_and_all_are_certain(size):
    d = dist.SubsetOfSize(rng().normal(size=3), size)
    assert np.array_equal(d.sample(rng(), 5), np.full((5, 3), float(size > 0))) and abs(d.entropy()) < 1e-14
    assert np.array_equal(d.mean, np.full(3, float(size > 0))) and np.array_equal(d.variance, np.zeros(3))
    assert np.max(np.abs(scg.grad(lambda l: np.sum(dist.SubsetOfSize(l, size).mean))(rng().normal(size=3)))) < 1e-15


def test_values_that_are_no_sample_are_impossible():
    subset, order = dist.SubsetOfSize(np.zeros(3), 2), dist.PlackettLuce(np.zeros(3))
    assert np.all(subset.log_prob([[1.0, 1.0, 1.0], [1.0, 0.5, 0.5], [2.0, 0.0, 0.0]]) == -np.inf)
    assert np.all(order.log_prob([[0.0, 0, 1], [0, 1, 3], [0, 1, -1], [0, 0.5, 2]]) == -np.inf)
    assert np.isnan(subset.log_prob([np.nan, 1.0, 1.0])) and np.isnan(order.log_prob([np.nan, 1.0, 2.0]))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: dist.SubsetOfSize([0.0, 1.0], 3), "at most the number of things that are possible, 2, got 3"),
        (lambda: dist.SubsetOfSize([0.0, -np.inf], 2), "possible, 1, got 2"),
        (lambda: dist.SubsetOfSize([0.0, 1.0], 1.5), "size must be an integer"),
        (lambda: dist.PlackettLuce([0.0, 1.0], 3), "integer from 1 to 2, got 3"),
        (lambda: dist.OneHotPlackettLuce([0.0, 1.0], 0), "integer from 1 to 2, got 0"),
        (lambda: dist.PlackettLuce([0.0, np.inf]), "logits must be a vector, all finite"),
        (lambda: dist.Ordered(0.0, [1.0, 1.0]), "increasing along the last axis"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(ScgValueError, match=message):
        make()


def test_gradients_of_normalisers_and_marginals():
    z = np.array([1.0, 0.0, 1.0, 0.0, 1.0])
    weights = rng(2).normal(size=5)
    l = rng().normal(size=5)
    check_gradient(lambda l: dist.SubsetOfSize(l, 3).log_prob(z), l, order=2)
    check_gradient(lambda l: np.sum(weights * dist.SubsetOfSize(l, 3).mean), l, order=2)
    check_gradient(lambda l: dist.PlackettLuce(l, 3).log_prob(np.array([2, 0, 4])), l, order=2)
    check_gradient(
        lambda loc, c: np.sum(dist.Ordered(loc, c).log_prob(np.arange(4))), 0.3, np.array([-1.0, 0.0, 2.0]), order=2
    )


def test_large_ones_are_sampled_and_scored_at_once():
    """Long products go by Fourier transforms: their derivative is the sample less its mean."""
    l, k = rng().normal(0, 3, 100_000), 1000
    subset = dist.SubsetOfSize(l, k)
    z, mean = subset.sample(rng(1)), subset.mean
    assert z.sum() == k and abs(mean.sum() - k) < 1e-9
    slope = scg.grad(lambda l: dist.SubsetOfSize(l, k).log_prob(z))(l)
    np.testing.assert_allclose(slope, z - mean, rtol=0, atol=1e-12)
    order = dist.PlackettLuce(l, k).sample(rng(1))
    assert order.shape == (k,) and len(set(order)) == k
    slope = scg.grad(lambda l: dist.PlackettLuce(l, k).log_prob(order))(l)
    assert abs(slope.sum()) < 1e-8  # a constant added to all logits changes nothing


@given(st.data())
def test_long_products_are_those_of_short_steps(data):
    """Sizes on both sides of where Fourier transforms begin; the sum of coins of one logit is binomial."""
    n, k = data.draw(st.integers(60, 300)), data.draw(st.integers(1, 60))
    expected = -(sp.gammaln(n + 1) - sp.gammaln(k + 1) - sp.gammaln(n - k + 1))
    z = np.r_[np.ones(k), np.zeros(n - k)]
    assert abs(dist.SubsetOfSize(np.full(n, 0.7), k).log_prob(z) - expected) < 1e-10 * (1 + abs(expected))


def subset_cost(l, rng, estimator=None):
    z = scg.sample(dist.SubsetOfSize(l, 2), estimator or scg.ScoreFunction(), rng=rng, name="z")
    return np.sum(z * np.array([1.0, -0.4, 0.3, 2.0])) ** 2


def order_cost(l, rng, estimator=None, size=None):
    o = scg.sample(dist.PlackettLuce(l, size), estimator or scg.ScoreFunction(), rng=rng, name="o")
    return (o[0] - 1.5) * (o[1] - 0.4) + 0.3 * o[1] ** 2


L = np.array([0.3, -0.7, 0.5, 0.1])


def true_gradient(cost):
    """From all subsets, or orders, and differences of their probabilities."""
    d = dist.SubsetOfSize(L, 2) if cost is subset_cost else dist.PlackettLuce(L)
    values = []
    for atom in d.atoms():
        if cost is subset_cost:
            values.append(np.sum(atom * np.array([1.0, -0.4, 0.3, 2.0])) ** 2)
        else:
            values.append((atom[0] - 1.5) * (atom[1] - 0.4) + 0.3 * atom[1] ** 2)

    def mean(l):
        if cost is subset_cost:
            w = np.exp(d.atoms() @ l)
            return w @ np.array(values) / w.sum()
        return sum(v * order_probability(l, atom) for v, atom in zip(values, d.atoms(), strict=True))

    h = 1e-4
    steps = h * np.eye(4)
    return np.array([(8 * (mean(L + e) - mean(L - e)) - mean(L + 2 * e) + mean(L - 2 * e)) / (12 * h) for e in steps])


@pytest.mark.parametrize("cost", [subset_cost, order_cost])
@pytest.mark.parametrize(
    "make",
    [
        scg.ScoreFunction,
        lambda: scg.ScoreFunction(scg.LeaveOneOut(), samples=2),
        scg.Enumerate,
        lambda: scg.UnorderedSet(2),
    ],
)
def test_estimators_are_exactly_unbiased(cost, make):
    graph = scg.trace(cost, L, rng=rng(), estimator=make())
    assert assert_unbiased(graph, rng=rng()).method == "exact"
    np.testing.assert_allclose(scg.exact.moments(graph).mean, true_gradient(cost), rtol=0, atol=1e-9)


def test_control_variates_of_subsets_and_simple():
    """MuProp is right; straight-through of a subset (SIMPLE) is biased for a cost that bends, and right for one that
    does not."""
    assert assert_unbiased(scg.trace(subset_cost, L, rng=rng(), estimator=scg.MuProp()), rng=rng()).method == "exact"
    simple = scg.trace(subset_cost, L, rng=rng(), estimator=scg.StraightThrough())
    assert np.max(np.abs(scg.exact.moments(simple).mean - true_gradient(subset_cost))) > 0.01

    def linear(l, rng):
        z = scg.sample(dist.SubsetOfSize(l, 2), scg.StraightThrough(), rng=rng)
        return np.sum(z * np.array([1.0, -0.4, 0.3, 2.0]))

    assert_unbiased(scg.trace(linear, L, rng=rng()), rng=rng())


def critic(phi, z):
    return np.sum(phi * np.tanh(z), axis=-1) + np.tanh(z[..., 0]) * np.tanh(z[..., 1])


PHI = np.array([0.8, -0.4, 0.2, 0.5])


@pytest.mark.parametrize("replicates", [1, 60_000])
def test_a_free_control_variate_of_an_order_leaves_its_mean(replicates):
    """By replicates, and by single runs whose estimate is no graph."""
    if replicates == 1:
        r, control = rng(3), scg.RELAX(critic, PHI)
        g = np.array([scg.grad(order_cost)(L, rng=r, estimator=control) for _ in range(600)])
    else:
        graph = scg.trace(order_cost, L, rng=rng(), estimator=scg.RELAX(critic, PHI))
        g = graph.gradients(rng=rng(3), replicates=replicates)
    error = np.std(g, axis=0) / np.sqrt(len(g))
    assert np.all(np.abs(np.mean(g, axis=0) - true_gradient(order_cost)) < 6 * error)
    assert np.max(error) < 0.3


def test_a_trained_control_variate_of_an_order_falls_in_variance():
    control = scg.RELAX(
        lambda phi, z: np.sum(phi * z, axis=-1), np.zeros(4), optimizer=lambda p: scg.optim.Adam(p, learning_rate=0.05)
    )
    before = np.var(scg.trace(order_cost, L, rng=rng(), estimator=control).gradients(rng=rng(1), replicates=4000), 0)
    r = rng(2)
    for _ in range(150):
        scg.grad(order_cost)(L, rng=r, estimator=control)
    after = np.var(scg.trace(order_cost, L, rng=rng(), estimator=control).gradients(rng=rng(1), replicates=4000), 0)
    assert np.sum(after) < 0.9 * np.sum(before)


def test_an_order_of_integers_has_no_relaxation():
    for estimator in (scg.REBAR(), scg.RELAX(critic, PHI, temperature=0.5)):
        with pytest.raises(EstimatorError, match="OneHotPlackettLuce"):
            scg.trace(order_cost, L, rng=rng(), estimator=estimator)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_keys_given_their_order_are_gumbel_keys(size):
    """Their largest are that order; and over orders each is l plus Gumbel noise (Kolmogorov and Smirnov)."""
    n = 20_000
    order = dist.PlackettLuce(L, size).sample(rng(), n)
    z = race(np.broadcast_to(L, (n, 4)), order, rng(1).random((n, 4)))
    assert np.array_equal(np.argsort(-z, axis=-1)[:, :size], order)
    u = np.sort(np.exp(-np.exp(-(z - L))), axis=0)
    distance = np.max(np.abs(u - (np.arange(n) + 0.5)[:, None] / n), axis=0) + 0.5 / n
    assert np.all(distance < sp.kolmogi(1e-6) / np.sqrt(n))
    correlation = np.corrcoef(np.log(np.exp(-(z - L))).T) - np.eye(4)
    assert np.max(np.abs(correlation)) < 5 / np.sqrt(n)
