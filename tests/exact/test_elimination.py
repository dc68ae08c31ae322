"""Elimination equals enumeration: on drawn products of factors, on drawn programs of discrete draws, and where there is
a recursion in closed form."""

import numpy as np
import pytest

import scg
import scg.exact
from scg import distributions as dist
from scg.core.backward import pull
from scg.core.replay import replay
from scg.elimination.factors import Pair, Stack, product
from scg.elimination.messages import eliminate
from scg.elimination.products import TooWide, plan

S = scg.ScoreFunction()
RNG = np.random.default_rng(0)


def drawn_factors(rng):
    """Stacks of factors over few variables, in which each variable stands."""
    n = rng.integers(1, 8)
    sizes = rng.integers(1, 4, n)
    scopes = [(v,) for v in range(n)]
    for _ in range(rng.integers(0, 9)):
        scopes.append(tuple(rng.permutation(n)[: rng.integers(1, min(n, 3) + 1)].tolist()))
    by_shape = {}
    for k, scope in enumerate(scopes):
        kind = 0 if k < n else rng.integers(3)
        by_shape.setdefault((kind, tuple(sizes[list(scope)].tolist())), []).append(scope)
    stacks = []
    for (kind, shape), some in by_shape.items():
        p, x = rng.random((len(some), *shape)), rng.normal(size=(len(some), *shape))
        stacks.append(Stack(np.array(some), None if kind == 2 else p, None if kind == 0 else x))
    return stacks, sizes


def everything(stacks, sizes):
    """The product of all factors over all variables, by broadcasting."""
    total = Pair(None, None)
    for stack in stacks:
        for r, scope in enumerate(stack.scopes):
            shape = [n if v in scope else 1 for v, n in enumerate(sizes)]
            part = [a if a is None else np.transpose(a[r], np.argsort(scope)).reshape(shape) for a in stack[1:3]]
            total = product(total, Pair(*part))
    return total


@pytest.mark.fast
@pytest.mark.parametrize("logs", [False, True])
def test_a_sum_over_all_variables_is_the_same_in_any_order(logs):
    rng = np.random.default_rng(0)
    for _ in range(150):
        stacks, sizes = drawn_factors(rng)
        kept = [v for v in range(len(sizes)) if rng.random() < 0.2]
        full = everything(stacks, sizes)
        gone = tuple(v for v in range(len(sizes)) if v not in kept)
        found = plan(stacks, sizes, kept)
        total = Pair(np.ones([n if v in kept else 1 for v, n in enumerate(sizes)]), None)
        for pair, (_, rows, scope) in zip(eliminate(found, stacks, logs), found.left, strict=True):
            shape = [n if v in scope else 1 for v, n in enumerate(sizes)]
            for r in range(len(rows)):
                scale = 1.0 if pair.logs is None else np.exp(pair.logs[r])
                part = [
                    a if a is None else scale * np.transpose(a[r], np.argsort(scope)).reshape(shape) for a in pair[:2]
                ]
                total = product(total, Pair(*part))
        for mine, other in zip(total[:2], full[:2], strict=True):
            if other is not None:
                expected = np.sum(np.broadcast_to(other, sizes), axis=gone, keepdims=True)
                np.testing.assert_allclose(0 * expected + mine, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("logs", [False, True])
def test_derivatives_by_messages_backwards_are_those_of_every_step(logs):
    rng = np.random.default_rng(1)
    for _ in range(60):
        stacks, sizes = drawn_factors(rng)
        # factors that share their entries, and small ones, which are scaled
        small, shared = rng.choice([1.0, 1e-15]), rng.random() < 0.5
        stacks = [s._replace(rows=np.zeros(len(s.scopes), int) if shared and s.p is not None else None) for s in stacks]
        found = plan(stacks, sizes, [v for v in range(len(sizes)) if rng.random() < 0.2])
        values = [part for s in stacks for part in (s.p, s.x) if part is not None]
        seeds = [rng.normal(size=100) for _ in range(3)]
        results = []
        for steps in (False, True):
            tables = [scg.parameter(v) for v in values]
            each, nodes = iter(tables), []
            for s in stacks:
                p = None if s.p is None else next(each) * small
                nodes.append(s._replace(p=p, x=None if s.x is None else next(each) * (1 if p is None else small)))
            total = 0.0
            for pair in eliminate(found, nodes, logs, steps):
                p = np.ones(()) if pair.p is None else pair.p
                total = total + np.sum(np.log(p) * np.resize(seeds[0], p.shape))  # of which the scale is no part
                if pair.x is not None:
                    total = total + np.sum(np.sin(pair.x / p) * np.resize(seeds[1], pair.x.shape))
            plain = pull([total], [np.ones(())], tables)
            first = pull([total], [np.ones(())], tables, True)
            again = sum([np.sum(g * np.resize(seeds[2], g.shape)) for g in first])
            results.append([*plain, *[g.raw for g in first], *pull([again], [np.ones(())], tables)])
        for a, b in zip(*results, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11 * max([np.max(np.abs(r)) for r in results[1]]))


def test_replicates_of_an_elimination_are_those_of_single_runs():
    rng = np.random.default_rng(2)
    for _ in range(30):
        stacks, sizes = drawn_factors(rng)
        found = plan(stacks, sizes, [v for v in range(len(sizes)) if rng.random() < 0.2])
        values = [part for s in stacks for part in (s.p, s.x) if part is not None]
        tables = [scg.parameter(v) for v in values]
        each = iter(tables)
        nodes = [s._replace(**{k: next(each) for k in ("p", "x") if getattr(s, k) is not None}) for s in stacks]
        parts = [part for pair in eliminate(found, nodes, True) for part in pair if part is not None]
        weight = scg.parameter(np.ones(()))
        slopes = pull([np.sum(np.log(parts[0])) * weight], [np.ones(())], tables, True)
        moved = [t for t in (*tables, weight) if rng.random() < 0.5] or [weight]
        new = {t: t.raw * rng.uniform(0.5, 2, (3, *t.shape)) for t in moved}
        outputs = [n for n in (*parts, *slopes) if isinstance(n, scg.Node)]
        together = replay(outputs, new, moved)
        for r in range(3):
            alone = replay(outputs, {t: v[r] for t, v in new.items()})
            for a, b in zip(together, alone, strict=True):
                np.testing.assert_allclose(a[r], b, rtol=1e-11, atol=1e-11)


def test_parts_that_are_alike_are_planned_once():
    n, copies = 9, 500
    ids = np.arange(n * copies).reshape(n, copies)
    edges = np.stack([ids[:-1].reshape(-1), ids[1:].reshape(-1)], axis=1)
    stacks = [Stack(ids[:1].T, np.full((copies, 2), 0.5)), Stack(edges, np.full((len(edges), 2, 2), 0.5))]
    found = plan(stacks, np.full(n * copies, 2))
    assert len(found.steps) < 10
    assert sum(len(eliminate(found, stacks)[0].p) for _ in found.left) == copies


def test_what_is_too_wide_is_refused_with_those_that_keep_together():
    pairs = np.array([(a, b) for a in range(30) for b in range(a)])
    with pytest.raises(TooWide) as caught:
        plan([Stack(pairs, np.ones((len(pairs), 2, 2)))], np.full(30, 2))
    assert caught.value.variables == list(range(30)) and caught.value.size == 2**30


@pytest.mark.fast
def test_steps_that_differ_in_a_constant_or_an_index_are_not_alike():
    steps = 24

    def fn(t, rng):
        b = scg.sample(dist.Bernoulli(probs=np.stack([t, 1 - t])), scg.ScoreFunction(), rng=rng)
        total = np.sum(b)
        for k in range(steps):
            given = 0.1 + 0.5 * b[k % 2] + (np.zeros(2) if k % 3 else np.array([0.1, 0.2]) * b)
            b = scg.sample(dist.Bernoulli(probs=given), S, rng=rng)
            total = total + (k % 5) * b[k % 2]
        return total

    def mean(t):
        p, total = np.outer([1 - t, t], [t, 1 - t]), 1.0
        for k in range(steps):
            step = np.zeros((2, 2, 2, 2))
            for i, j in np.ndindex(2, 2):
                q = 0.1 + 0.5 * (i, j)[k % 2] + (np.zeros(2) if k % 3 else np.array([0.1, 0.2]) * [i, j])
                step[i, j] = np.outer([1 - q[0], q[0]], [1 - q[1], q[1]])
            p = np.einsum("ij,ijkl->kl", p, step)
            total += (k % 5) * np.sum(p, axis=1 - k % 2)[1]
        return total

    graph = scg.trace(fn, np.array(0.3), rng=np.random.default_rng(0))
    np.testing.assert_allclose(scg.exact.expectation(graph), mean(0.3), rtol=1e-12)
    np.testing.assert_allclose(scg.exact.gradient(graph), (mean(0.31) - mean(0.29)) / 0.02, rtol=1e-11)


def chain(n, cost=lambda z, before: z):
    """A chain of coins z_1 ~ Bernoulli(t), z_{i+1} ~ Bernoulli(.2 + .6 z_i), with the sum of ``cost(z, the one
    before)``."""

    def fn(t, rng):
        z = scg.sample(dist.Bernoulli(probs=t), scg.ScoreFunction(), rng=rng)
        total = z
        for _ in range(n - 1):
            before, z = z, scg.sample(dist.Bernoulli(probs=0.2 + 0.6 * z), scg.ScoreFunction(), rng=rng)
            total = total + cost(z, before)
        return total

    return scg.trace(fn, np.array(0.3), rng=np.random.default_rng(0))


@pytest.mark.fast
@pytest.mark.parametrize("n", [13, 60, 700])
def test_a_chain_of_coins_has_the_mean_of_its_recursion(n):
    graph = chain(n)
    means = [0.3]
    while len(means) < n:
        means.append(0.2 + 0.6 * means[-1])
    found = scg.exact.expectation(graph, full=True)
    assert abs(found.value - sum(means)) < 1e-12 * n and abs(found.value - sum(means)) <= 2 * found.error
    np.testing.assert_allclose(scg.exact.gradient(graph), sum(0.6**i for i in range(n)), rtol=1e-12)


def test_a_long_chain_has_a_hessian_with_the_products_of_neighbours():
    """E[z_i z_{i-1}] = .8 m_{i-1}, with t^2 z_i z_{i-1} as its cost; m is linear in t."""
    n = 40

    def fn(t, rng):
        z = scg.sample(dist.Bernoulli(probs=t), scg.ScoreFunction(), rng=rng)
        total = 0.0
        for _ in range(n - 1):
            before, z = z, scg.sample(dist.Bernoulli(probs=0.2 + 0.6 * z), scg.ScoreFunction(), rng=rng)
            total = total + t * t * z * before
        return total

    graph = scg.trace(fn, np.array(0.3), rng=np.random.default_rng(0))
    # m_i = .5 + .6^i (t - .5): the cost is sum_i .8 t^2 (.5 + .6^i (t - .5))
    powers = 0.6 ** np.arange(n - 1)
    t = 0.3
    np.testing.assert_allclose(
        scg.exact.expectation(graph), np.sum(0.8 * t * t * (0.5 + powers * (t - 0.5))), rtol=1e-12
    )
    np.testing.assert_allclose(
        scg.exact.hessian(graph), np.sum(0.8 * (2 * (0.5 + powers * (t - 0.5)) + 4 * t * powers)), rtol=1e-11
    )


def test_a_batch_of_chains_is_as_many_times_one():
    steps, batch = 30, 400

    def fn(t, rng):
        z = scg.sample(dist.Bernoulli(probs=t * np.ones(batch)), scg.ScoreFunction(), rng=rng)
        total = np.sum(z)
        for _ in range(steps - 1):
            z = scg.sample(dist.Bernoulli(probs=0.2 + 0.6 * z), scg.ScoreFunction(), rng=rng)
            total = total + np.sum(z)
        return total / batch

    graph = scg.trace(fn, np.array(0.3), rng=np.random.default_rng(0))
    np.testing.assert_allclose(scg.exact.expectation(graph), scg.exact.expectation(chain(steps)), rtol=1e-12)
    np.testing.assert_allclose(scg.exact.gradient(graph), scg.exact.gradient(chain(steps)), rtol=1e-12)


@pytest.mark.fast
def test_a_grid_has_the_mean_of_its_transfer_matrices():
    rows, columns, t = 3, 12, 0.4

    def fn(t, rng):
        z, cost = {}, 0.0
        for j in range(columns):
            for i in range(rows):
                logits = t + (z[i - 1, j] if i else 0) - (2 * t * z[i, j - 1] if j else 0)
                z[i, j] = scg.sample(dist.Bernoulli(logits=logits), scg.ScoreFunction(), rng=rng)
                cost = cost + z[i, j] * (z[i - 1, j] if i else t)
        return cost

    graph = scg.trace(fn, np.array(t), rng=np.random.default_rng(0))
    states = [[(s >> i) & 1 for i in range(rows)] for s in range(2**rows)]
    p, mean = None, 0.0
    for j in range(columns):
        step = np.ones((2**rows, 2**rows))
        for a, before in enumerate(states):
            for b, now in enumerate(states):
                for i in range(rows):
                    q = 1 / (1 + np.exp(-(t + (now[i - 1] if i else 0) - (2 * t * before[i] if j else 0))))
                    step[a, b] *= q if now[i] else 1 - q
        p = step[0] if p is None else p @ step
        mean += p @ [sum(s[i] * (s[i - 1] if i else t) for i in range(rows)) for s in states]
    np.testing.assert_allclose(scg.exact.expectation(graph), mean, rtol=1e-12)
    h = 1e-5
    ends = [scg.exact.expectation(scg.trace(fn, np.array(t + s * h), rng=np.random.default_rng(0))) for s in (1, -1)]
    np.testing.assert_allclose(scg.exact.gradient(graph), (ends[0] - ends[1]) / (2 * h), rtol=1e-7)


@pytest.mark.fast
def test_a_policy_gradient_is_that_of_dynamic_programming():
    """States 0..4, two actions; the reward is that of the state; 20 steps."""
    steps, rng = 20, np.random.default_rng(3)
    moves, rewards, logits = rng.normal(size=(5, 2, 5)), rng.normal(size=5), rng.normal(size=(5, 2))

    def fn(logits, rng):
        table, reward, total = scg.parameter(moves), scg.parameter(rewards), 0.0
        s = scg.sample(dist.Categorical(logits=np.zeros(5)), scg.ScoreFunction(), rng=rng)
        for _ in range(steps):
            a = scg.sample(dist.Categorical(logits=logits[s]), scg.ScoreFunction(), rng=rng)
            total = total + reward[s] * (1 + a)
            s = scg.sample(dist.Categorical(logits=table[s, a]), scg.ScoreFunction(), rng=rng)
        return total

    def value(logits):
        policy = np.exp(logits) / np.sum(np.exp(logits), axis=1, keepdims=True)
        step = np.exp(moves) / np.sum(np.exp(moves), axis=2, keepdims=True)
        p, total = np.full(5, 0.2), 0.0
        for _ in range(steps):
            both = p[:, None] * policy
            total += np.sum(both * rewards[:, None] * [1, 2])
            p = np.einsum("sa,sat->t", both, step)
        return total

    graph = scg.trace(fn, logits, rng=np.random.default_rng(0))
    np.testing.assert_allclose(scg.exact.expectation(graph), value(logits), rtol=1e-12)
    h = 1e-6
    expected = [(value(logits + h * e) - value(logits - h * e)) / (2 * h) for e in np.eye(10).reshape(10, 5, 2)]
    np.testing.assert_allclose(np.ravel(scg.exact.gradient(graph)), expected, rtol=1e-6, atol=1e-7)


def coupled(n, fn):
    """n coins, each drawn given the one before, as a vector, and a cost of it."""

    def cost(t, rng):
        coins = [scg.sample(dist.Bernoulli(probs=t), scg.ScoreFunction(), rng=rng, name="a")]
        for _ in range(n - 1):
            coins.append(scg.sample(dist.Bernoulli(probs=0.2 + 0.6 * coins[-1]), scg.ScoreFunction(), rng=rng))
        return fn(np.stack(coins))

    return scg.trace(cost, np.array(0.3), rng=np.random.default_rng(0))


def test_what_keeps_together_is_refused_by_name():
    graph = coupled(30, lambda b: np.sum(np.tanh(b[:, None] * b + b)))
    assert np.isfinite(scg.exact.expectation(graph))  # a mean of what looks at two of them each
    with pytest.raises(
        scg.exact.BudgetError, match=r"a width of \d+ elements .* keep together, a \(1 .* over the budget"
    ):
        scg.exact.log_evidence(graph)


def test_results_and_refusals_tell_the_width():
    """What is held together at most: a coin of a chain with its neighbours, all coins of a product."""
    chain = coupled(20, np.sum)
    for exact in (scg.exact.expectation, scg.exact.gradient, scg.exact.log_evidence, scg.exact.moments):
        elements, entries, samples = exact(chain, full=True).width
        assert 2 <= elements <= 3 and entries == 2**elements and len(samples) == elements
    assert scg.exact.expectation(coupled(3, np.prod), full=True).width == (3, 8, ("a", "bernoulli", "bernoulli_1"))
    together = coupled(25, lambda b: np.exp(np.sum(b)))
    loose = scg.trace(
        lambda t, rng: np.tanh(np.sum(scg.sample(dist.Bernoulli(logits=t), S, rng=rng, name="b"))),
        np.zeros(30),
        rng=RNG,
    )
    for exact in (scg.exact.expectation, scg.exact.hessian, scg.exact.log_evidence, scg.exact.moments):
        for graph, width in ((together, 25), (loose, 30)):
            if exact is scg.exact.log_evidence and graph is together:
                continue  # a sum of logarithms
            with pytest.raises(scg.exact.BudgetError, match=rf"width of {width} elements") as found:
                exact(graph)
            assert found.value.width.elements == width
            assert len(found.value.width.samples) == (25 if graph is together else 1)


def moments_of_a_chain(n):
    """E[z_i z_j] of the coins of ``coupled``, and its derivative in t."""
    m, slope = [0.3], [1.0]
    while len(m) < n:
        m.append(0.2 + 0.6 * m[-1])
        slope.append(0.6 * slope[-1])
    i = np.arange(n)
    first, apart = np.minimum(i[:, None], i), np.abs(i[:, None] - i)
    onward = 0.5 + 0.5 * 0.6**apart  # P(z_j = 1 | z_i = 1)
    return np.array(m)[first] * onward, np.array(slope)[first] * onward


@pytest.mark.parametrize("n", [14, 24])
def test_products_of_sums_are_distributed(n):
    rng = np.random.default_rng(n)
    matrix, a = rng.normal(size=(n, n)), rng.normal(size=n)
    both, slope = moments_of_a_chain(n)
    for fn, weights in [
        (lambda b: b @ matrix @ b, matrix),
        (lambda b: np.einsum("i,ij,j->", b, np.triu(matrix, n - 3), b), np.triu(matrix, n - 3)),
        (lambda b: np.sum(a * b) * np.sum(b), np.outer(a, np.ones(n))),
        (lambda b: np.mean(a * b) ** 2, np.outer(a, a) / n**2),
        (lambda b: np.mean(b) ** 2 + np.sum((b - 0.5) ** 2) - n / 4, np.full((n, n), 1 / n**2)),
        (lambda b: np.mean((matrix @ b) ** 2), matrix.T @ matrix / n),
        (lambda b: np.sum((matrix @ b) * np.cumsum(b)), matrix.T @ np.tril(np.ones((n, n)))),
    ]:
        graph = coupled(n, fn)
        np.testing.assert_allclose(scg.exact.expectation(graph), np.sum(weights * both), rtol=1e-11)
        np.testing.assert_allclose(scg.exact.gradient(graph), np.sum(weights * slope), rtol=1e-10)


@pytest.mark.fast
def test_parameters_that_couple_have_their_gradient_also_where_they_are_zero():
    n = 24
    matrix = np.triu(np.random.default_rng(0).normal(size=(n, n)), 3)

    def fn(matrix, rng):
        b = scg.sample(dist.Bernoulli(probs=np.full(n, 0.3)), scg.ScoreFunction(), rng=rng)
        return (b + 1) @ matrix @ b

    graph = scg.trace(fn, matrix, rng=np.random.default_rng(0))
    expected = np.full((n, n), 0.39) + np.diag(np.full(n, 0.21))
    np.testing.assert_allclose(scg.exact.gradient(graph), expected, rtol=1e-12)
    np.testing.assert_allclose(scg.exact.expectation(graph), np.sum(matrix * expected), rtol=1e-11)


@pytest.mark.fast
def test_the_distribution_of_what_stands_late_in_a_chain_is_that_of_its_recursion():
    last = coupled(50, lambda b: b[-1] + 2 * b[-2] + 4 * b[0])
    found = scg.exact.distribution(last)
    p = 0.5 + 0.6**48 * np.array([[-0.5], [0.5]])  # P(z_49 = 1 | z_1)
    table = np.array([0.7, 0.3])[:, None, None] * np.stack([1 - p, p], axis=1)  # z_1, z_49, a last axis of z_50
    table = table * np.array([[0.8, 0.2], [0.2, 0.8]])
    np.testing.assert_array_equal(found.values, np.arange(8))
    np.testing.assert_allclose(found.probabilities, table.reshape(-1), rtol=1e-12)


def test_numbers_of_half_the_size_have_results_of_their_own():
    def fn(t, rng):
        z = scg.sample(dist.Bernoulli(logits=t), scg.ScoreFunction(), rng=rng)
        total = z
        for _ in range(30):
            z = scg.sample(dist.Bernoulli(logits=t - z), scg.ScoreFunction(), rng=rng)
            total = total + z
        return total

    mine, other = [scg.trace(fn, np.array(0.3, d), rng=np.random.default_rng(0)) for d in (np.float32, np.float64)]
    found, slope = scg.exact.expectation(mine, full=True), scg.exact.gradient(mine)
    assert found.value.dtype == slope.dtype == np.float32
    assert abs(found.value - scg.exact.expectation(other)) <= found.error
    np.testing.assert_allclose(slope, scg.exact.gradient(other), rtol=1e-5)
