"""Exact variances of estimators on long chains: quadratic forms against enumeration, estimators against enumeration
where they are short, and where a recursion tells."""

import numpy as np
import pytest

import scg
import scg.exact
from scg import distributions as dist
from scg.elimination.direct import NoStructure
from scg.exact.choice import eliminated_moments
from scg.exact.estimates import moments_of
from scg.exact.quadratic import Table, moments_of_form, order_of
from scg.exact.values import as_values
from scg.stochastic.surrogate import surrogate
from tests.support.discrete import everywhere

S = scg.ScoreFunction()


def full(table, sizes):
    shape = [n if v in table.scope else 1 for v, n in enumerate(sizes)]
    return np.broadcast_to(np.transpose(table.values, np.argsort(table.scope)).reshape(shape), sizes)


@pytest.mark.fast
def test_a_quadratic_form_has_the_moments_of_enumeration():
    rng = np.random.default_rng(0)
    for _ in range(150):
        n = rng.integers(1, 7)
        sizes = rng.integers(1, 4, n)

        def drawn(scope, values, sizes=sizes):
            return Table(scope, values(tuple(sizes[list(scope)])))

        def some(most, n=n):  # none, too: of the elements of a term some may depend on no sample
            return tuple(rng.permutation(n)[: rng.integers(0, min(n, most) + 1)].tolist())

        chances = [drawn((v,), rng.random) for v in range(n)]
        chances += [drawn(some(3), rng.random) for _ in range(rng.integers(4))]
        atoms = [drawn(some(2), lambda shape: rng.normal(size=shape)) for _ in range(rng.integers(7))]
        count = len(atoms)
        matrix = np.zeros((count, count))
        for _ in range(rng.integers(4)):
            u = np.outer(rng.normal(size=count), rng.normal(size=count))
            matrix += u + u.T
        c = rng.normal(size=count)
        p = np.prod([full(t, sizes) for t in chances], axis=0)
        a = np.stack([full(t, sizes) for t in atoms]) if atoms else np.zeros((0, *sizes))
        g = np.tensordot(c, a, 1) + 0.5 * np.einsum("i...,ij,j...->...", a, matrix, a)
        found = moments_of_form(
            chances, atoms, c, matrix, order_of([t.scope for t in (*chances, *atoms)], sizes, 2**20)
        )
        expected = np.sum(p), np.sum(p * g), np.sum(p * g * g)
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10 * max(1, expected[2]))


def chain(n, shared, cost=lambda z, before: z):
    def fn(t, rng):
        z = scg.sample(dist.Bernoulli(probs=t), S, rng=rng)
        total = z
        for _ in range(n - 1):
            before, z = (
                z,
                scg.sample(dist.Bernoulli(probs=t * (0.5 + 0.3 * z) if shared else 0.2 + 0.6 * z), S, rng=rng),
            )
            total = total + cost(z, before)
        return total

    return scg.trace(fn, np.array(0.5), rng=np.random.default_rng(0))


def of_estimate(graph):
    """(mean, variance) of each coordinate of a gradient estimate, by elimination, whatever its size."""
    targets = graph.parameters if isinstance(graph.parameters, (tuple, list)) else [graph.parameters]
    loss = surrogate(graph.cost, 1, graph=True)
    pulled = scg.core.backward.pull([loss], [np.ones(())], targets, True)
    found = []
    for root in as_values(list(pulled)):
        flat = np.reshape(root, -1)
        pairs = [moments_of(flat[k], {}, 2**20, np.inf)[:2] for k in range(root.size)]
        found.append(np.array([(m, q - m * m) for m, q in pairs]).T.reshape(2, *root.shape))
    return found


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("n", [2, 5, 8])
@pytest.mark.parametrize("cost", [lambda z, before: z, lambda z, before: np.exp(z - 2 * before) * z])
def test_a_short_chain_has_the_moments_of_enumeration(n, shared, cost, monkeypatch):
    graph = chain(n, shared, cost)
    expected = scg.exact.moments(graph)
    monkeypatch.setattr("scg.exact.estimates._LOCAL", 3.0)  # so that sums of few are sums
    ((mean, variance),) = of_estimate(graph)
    np.testing.assert_allclose(mean, expected.mean, rtol=1e-11)
    np.testing.assert_allclose(variance, expected.variance, rtol=1e-10)


@pytest.mark.fast
def test_a_long_chain_has_the_moments_of_its_recursion():
    """The score of z_1 is there alone: g = s C with E[g^2] = E[C^2 | z_1] s^2, C the sum of all coins."""
    n = 60
    graph = chain(n, False)
    found = scg.exact.moments(graph)
    # E[C | z] and E[C^2 | z] of a chain that begins at z, from its end
    first, second = np.array([0.0, 1.0]), np.array([0.0, 1.0])
    step = np.array([[0.8, 0.2], [0.2, 0.8]])
    for _ in range(n - 1):
        first, second = [0, 1] + step @ first, [0, 1] + 2 * np.array([0, 1]) * (step @ first) + step @ second
    score = np.array([-2.0, 2.0])
    mean = np.mean(score * first)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-11)
    np.testing.assert_allclose(found.variance, np.mean(score**2 * second) - mean**2, rtol=1e-11)
    np.testing.assert_allclose(found.mean, scg.exact.gradient(graph), rtol=1e-11)


def test_the_mean_of_an_estimate_on_a_long_chain_is_the_gradient():
    graph = chain(40, True, lambda z, before: np.exp(z - 2 * before))
    found = scg.exact.moments(graph, full=True)
    np.testing.assert_allclose(found.value.mean, scg.exact.gradient(graph), rtol=1e-10)
    drawn = graph.gradients(rng=np.random.default_rng(1), replicates=4000)
    assert abs(np.var(drawn) / found.value.variance - 1) < 0.25


def test_costs_at_values_that_no_sample_moves_count_in_the_moments():
    """``MeasureValued`` looks at the cost at each value, and an ``if`` makes one root of all that is summed."""

    def cost(t, rng):
        z = scg.sample(dist.Categorical(logits=np.stack([t, 0.3 * t, -t])), scg.MeasureValued(), rng=rng)
        later = dist.Categorical(logits=np.stack([t, t, np.arctan(0.2 * z)]))
        c = z * z + 0.3 * scg.sample(later, scg.UnorderedSet(2), rng=rng)
        return c + np.sin(z) if z > -0.5 else c

    theta = np.array(0.31)
    graph = scg.trace(cost, theta, rng=np.random.default_rng(0))
    found = scg.exact.moments(graph)
    np.testing.assert_allclose(found.mean, scg.exact.gradient(graph), rtol=1e-10)

    def expected(t):
        p = np.exp(t * np.array([1.0, 0.3, -1.0]))
        q = np.exp(np.stack([0 * np.arange(3) + t, 0 * np.arange(3) + t, np.arctan(0.2 * np.arange(3))]))
        later = 0.3 * np.array([0, 1, 2]) @ q / q.sum(axis=0)
        return p @ (np.arange(3.0) ** 2 + np.sin(np.arange(3.0)) + later) / p.sum()

    np.testing.assert_allclose(found.mean, (expected(theta + 1e-5) - expected(theta - 1e-5)) / 2e-5, rtol=1e-7)


ESTIMATORS = {
    "two samples": scg.ScoreFunction(samples=2),
    "leave-one-out": scg.ScoreFunction(samples=2, baseline=scg.LeaveOneOut()),
    "Enumerate": scg.Enumerate(),
    "DisARM": scg.DisARM(),
}


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_estimators_that_look_at_other_values_have_the_moments_of_enumeration(name, shared, monkeypatch):
    graph = chain(4, shared, lambda z, before: z * (1 - 0.3 * before)).bind({"*": ESTIMATORS[name]})
    with monkeypatch.context() as patched:
        patched.setattr("scg.exact.choice._CHEAP", np.inf)  # enumeration alone
        expected = scg.exact.moments(graph)
    monkeypatch.setattr("scg.exact.estimates._LOCAL", 5.0)
    ((mean, variance),) = of_estimate(graph)
    np.testing.assert_allclose(mean, expected.mean, rtol=1e-10)
    np.testing.assert_allclose(variance, expected.variance, rtol=1e-9)


@pytest.mark.fast
@pytest.mark.parametrize(("n", "variance"), [(20, 33.12536561), (80, 153.125)])
def test_enumerate_on_a_chain_has_the_variance_of_what_is_drawn_anew(n, variance):
    """By a recursion over the chain, with each branch drawn anew."""
    found = scg.exact.moments(chain(n, False).bind({"*": scg.Enumerate(coupled=False)}))
    np.testing.assert_allclose(found.mean, sum(0.6**i for i in range(n)), rtol=1e-11)
    np.testing.assert_allclose(found.variance, variance, rtol=1e-8)


def walk(steps, states, rng):
    """REINFORCE with costs-to-go on a Markov decision process."""
    moves, rewards, logits = rng.normal(size=(states, 2, states)), rng.normal(size=states), rng.normal(size=(states, 2))

    def fn(logits, rng):
        table, reward, total = scg.parameter(moves), scg.parameter(rewards), 0.0
        s = scg.sample(dist.Categorical(logits=np.zeros(states)), S, rng=rng)
        for _ in range(steps):
            a = scg.sample(dist.Categorical(logits=logits[s]), S, rng=rng)
            total = total + reward[s] * (1 + a)
            s = scg.sample(dist.Categorical(logits=table[s, a]), S, rng=rng)
        return total

    return scg.trace(fn, logits, rng=rng)


def test_a_policy_has_the_moments_of_enumeration_and_those_of_a_long_walk_are_its_gradient(monkeypatch):
    graph = walk(20, 5, np.random.default_rng(3))
    found = scg.exact.moments(graph)
    np.testing.assert_allclose(found.mean, scg.exact.gradient(graph), rtol=1e-9, atol=1e-11)
    assert np.all(found.variance > 0)
    graph = walk(3, 2, np.random.default_rng(3))
    expected = scg.exact.moments(graph)
    monkeypatch.setattr("scg.exact.estimates._LOCAL", 4.0)
    ((mean, variance),) = of_estimate(graph)
    np.testing.assert_allclose(mean, expected.mean, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(variance, expected.variance, rtol=1e-10, atol=1e-12)


def test_scores_times_whole_returns_have_the_moments_of_enumeration(monkeypatch):
    """Two sums over all steps, multiplied: one is a factor of the other's parts."""
    graph = walk(3, 2, np.random.default_rng(3))
    scores = sum([np.sum(n.statics["site"].distribution.log_prob(n)) for n in graph.stochastic.values()])
    (slope,) = scg.core.backward.pull([scores], [np.ones(())], [graph.parameters], True)
    (root,) = as_values([slope * graph.cost])
    logs, _, rows = everywhere(graph, [root], 2**12)
    chances = np.exp(logs.value)[:, None, None]
    mean, square = [np.sum(chances * x, axis=0) for x in (rows.value, rows.value**2)]
    monkeypatch.setattr("scg.exact.estimates._LOCAL", 4.0)
    found = [moments_of(np.reshape(root, -1)[k], {}, 2**20, np.inf) for k in range(root.size)]
    np.testing.assert_allclose([m.mean for m in found], mean.reshape(-1), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose([m.square for m in found], square.reshape(-1), rtol=1e-10, atol=1e-12)


def test_what_is_no_form_of_sums_is_left_to_enumeration():
    def fn(t, rng):
        b = [scg.sample(dist.Bernoulli(logits=t), S, rng=rng) for _ in range(12)]
        return np.exp(sum(b))

    graph = scg.trace(fn, np.array(0.2), rng=np.random.default_rng(0))
    loss = surrogate(graph.cost, 1, graph=True)
    roots = as_values(list(scg.core.backward.pull([loss], [np.ones(())], [graph.parameters], True)))
    assert eliminated_moments(roots, {}, 2**20, np.inf) is None
    with pytest.raises(NoStructure):
        moments_of(roots[0], {}, 2**20, np.inf)
    np.testing.assert_allclose(scg.exact.moments(graph).mean, scg.exact.gradient(graph), rtol=1e-9)
