"""Samples that are summed out together: gradients and Hessians are those of exact truth, without variance, whatever
estimators the other samples have."""

import itertools

import numpy as np
import pytest

import scg
import scg.exact
from scg import distributions as dist
from scg.core.tree import leaves
from scg.elimination import means
from scg.errors import EstimatorError, ScgError
from tests.support.compiled import both
from tests.support.discrete import program
from tests.support.drawn import first

SUM, SCORE, PATH = scg.Marginalize(), scg.ScoreFunction(), scg.Reparameterized()
THETA = np.array([0.3, -0.7])


def drawn(seed):
    rng = np.random.default_rng(seed)
    fn = program(rng)
    theta, w = rng.normal(size=2) * 0.5, rng.normal(size=2)
    return rng, scg.trace(fn, theta, w, argnums=(0, 1), rng=rng)


def agree(found, expected, tolerance=1e-10):
    for (_, a), (_, b) in zip(leaves(found), leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, tolerance, tolerance)


def chain(theta, rng, n=12, estimator=SUM):
    total, z = 0.0, None
    for t in range(n):
        logits = theta[0] if z is None else theta[1] * z + theta[0]
        z = scg.sample(dist.Bernoulli(logits=logits), estimator, rng=rng, name=f"z{t}")
        total = total + (z - 0.3) ** 2 * theta[1] + np.sin(z * theta[0])
    return total


def zero_variance(graph, rng):
    runs = graph.gradients(rng=rng, replicates=5)
    for _, run in leaves(runs):
        np.testing.assert_allclose(run, np.broadcast_to(run[:1], run.shape), 1e-12, 1e-12)
    return runs


@pytest.mark.parametrize("part", first(1, range(3)))
def test_drawn_programs_have_the_exact_gradient_in_every_run(part):
    for seed in range(15 * part, 15 * part + 15):
        rng, graph = drawn(seed)
        bound = graph.bind({"*": SUM})
        exact = scg.exact.gradient(graph)
        agree(bound.gradients(), exact)
        agree([run[0] for run in zero_variance(bound, rng)], exact)
        assert bound.surrogate().value == bound.surrogate(1).value == bound.cost.value


@pytest.mark.fast
@pytest.mark.parametrize("seed", range(8))
def test_drawn_programs_have_the_exact_hessian(seed):
    rng = np.random.default_rng(seed)
    fn, w = program(rng, SUM), rng.normal(size=2)
    theta = rng.normal(size=2) * 0.5
    cost = lambda theta: fn(theta, w, rng)
    agree(scg.hessian(cost)(theta), scg.exact.hessian(scg.trace(cost, theta)), 1e-9)


@pytest.mark.parametrize("part", first(1, range(3)))
def test_the_rest_by_other_estimators_is_unbiased_and_the_sum_adds_no_variance(part):
    """The first samples have a score function, on which those that are summed out may depend."""
    for seed in range(10 * part, 10 * part + 10):
        rng, graph = drawn(seed)
        names = list(graph.stochastic)
        if len(names) < 2:
            continue
        kept = rng.integers(1, len(names))
        bound = graph.bind(dict.fromkeys(names[kept:], SUM))
        exact = scg.exact.gradient(graph)
        agree(scg.exact.moments(bound).mean, exact)
        others = [
            scg.Enumerate(),
            scg.ScoreFunction(samples=2),
            scg.ScoreFunction(baseline=scg.LeaveOneOut(), samples=2),
        ]
        estimator = others[seed % 3]
        try:
            agree(scg.exact.moments(bound.bind(dict.fromkeys(names[:kept], estimator))).mean, exact)
        except scg.exact.BudgetError:
            pass


def test_a_chain_of_any_length_is_summed_out():
    for n in (3, 60, 400):
        graph = scg.trace(chain, THETA, rng=np.random.default_rng(0), n=n, estimator=SCORE)
        bound = graph.bind({"z*": SUM})
        agree(bound.gradients(rng=np.random.default_rng(1)), scg.exact.gradient(graph))


def switch(theta, rng, estimator=SUM, other=PATH):
    """A mixture: z chooses the mean of x."""
    z = scg.sample(dist.Categorical(logits=np.stack([theta[0], theta[1], 0 * theta[0]])), estimator, rng=rng, name="z")
    loc = np.stack([theta[0], theta[1], theta[0] * theta[1]])
    x = scg.sample(dist.Normal(loc[z], np.exp(theta[0])), other, rng=rng, name="x")
    return x**2 * theta[1] + np.sin(x) + (z == 1) * x


def above(theta, rng, estimator=SUM, other=SCORE):
    """A continuous sample decides the probabilities of coins."""
    x = scg.sample(dist.Normal(theta[0], 1.0), other, rng=rng, name="x")
    z = scg.sample(dist.Bernoulli(logits=theta[1] * x + theta), estimator, rng=rng, name="z")
    return np.sum(np.cos(x) * (z + theta[1]) ** 2) + x * theta[0]


@pytest.mark.parametrize("cost, others", [(switch, [PATH]), (above, [SCORE, PATH, scg.MuProp()])])
def test_continuous_samples_are_sampled_and_the_discrete_ones_are_summed_out(cost, others):
    for other in others:
        graph = scg.trace(cost, THETA, rng=np.random.default_rng(0), other=other)
        found, plain = scg.exact.moments(graph), scg.exact.moments(graph.bind(z=SCORE))
        agree(found.mean, scg.exact.gradient(graph))
        assert (found.variance < plain.variance).all()


def separate(t, rng, estimator=SUM, n=4):
    """Pairs of coins, by a loop."""
    total = 0.0
    for i in range(n):
        x = scg.sample(dist.Bernoulli(logits=t[0]), SCORE, rng=rng, name=f"x{i}")
        z = scg.sample(dist.Bernoulli(logits=t[1] * x), estimator, rng=rng, name=f"z{i}")
        total = total + (x - 0.3) * (z + t[1]) ** 2 + x * t[0]
    return total


def driven(t, rng, estimator=SUM, n=4):
    """A chain, of which each step depends on a coin of its own, too."""
    total, z = 0.0, 0.0
    for i in range(n):
        x = scg.sample(dist.Bernoulli(logits=t[0]), SCORE, rng=rng, name=f"x{i}")
        z = scg.sample(dist.Bernoulli(logits=t[1] * x + z), estimator, rng=rng, name=f"z{i}")
        total = total + (x - 0.3) * (z + t[1]) ** 2 + x * t[0]
    return total


def elements(t, rng, estimator=SUM):
    """Pairs of coins, the elements of two samples."""
    x = scg.sample(dist.Bernoulli(logits=t[0] * np.ones(4)), SCORE, rng=rng, name="x")
    z = scg.sample(dist.Bernoulli(logits=t[1] * x), estimator, rng=rng, name="z")
    return np.sum((x - 0.3) * (z + t[1]) ** 2 + x * t[0])


@pytest.mark.parametrize("cost", [separate, driven, elements])
def test_others_meet_their_own_cost_to_go_so_that_no_variance_grows(cost):
    """E[g | x] of the gradient in which all have score functions (Rao and Blackwell)."""
    graph, plain = (scg.trace(cost, THETA, rng=np.random.default_rng(0), estimator=e) for e in (SUM, SCORE))
    found, before = scg.exact.moments(graph), scg.exact.moments(plain)
    agree(found.mean, before.mean)
    assert (found.variance < before.variance).all()
    rng, names = np.random.default_rng(1), [name for name in graph.stochastic if name.startswith("x")]
    given = graph.run(rng=rng)
    x = {name: given.stochastic[name].value for name in names}
    others = {name: node for name, node in plain.stochastic.items() if name not in names}
    total = 0.0
    for z in itertools.product((0.0, 1.0), repeat=4):
        z = z if len(others) > 1 else [np.array(z)]
        run = plain.run(rng=rng, values={**x, **dict(zip(others, z, strict=True))})
        log_p = [
            np.sum(n.statics["site"].distribution.log_prob(n).value) for k, n in run.stochastic.items() if k in others
        ]
        total = total + np.exp(sum(log_p)) * run.gradients()
    agree(given.gradients(), total)


def walks(t, rng, n, steps):
    """n chains side by side, the elements of a sample for each step, driven by the elements of another one."""
    total, z = 0.0, 0.0
    x = scg.sample(dist.Bernoulli(logits=t[0] * np.ones(n)), SCORE, rng=rng, name="x")
    for k in range(steps):
        z = scg.sample(dist.Bernoulli(logits=t[1] * x + z), SUM, rng=rng, name=f"z{k}")
        total = total + np.sum((x - 0.3) * (z + t[1]) ** 2 * (k + 1) + x * t[0])
    return total


def evidences(t, rng, n, steps):
    """Their log-probabilities as data."""
    total, z = 0.0, 0.0
    x = scg.sample(dist.Bernoulli(logits=t[0] * np.ones(n)), SCORE, rng=rng, name="x")
    for k in range(steps):
        z = scg.sample(dist.Bernoulli(logits=t[1] * x + z), SUM, rng=rng, name=f"z{k}")
        total = total - 0.5 * (z - x * t[0] - k / steps) ** 2
    return np.sum(scg.objectives.log_marginal(total))


@pytest.mark.parametrize("cost", [walks, evidences])
def test_elements_side_by_side_meet_their_own_cost_to_go(cost):
    """Three of them have three times the variance of one."""
    for steps in (1, 2, 5, 11):
        one, three = (scg.trace(cost, THETA, rng=np.random.default_rng(0), n=n, steps=steps) for n in (1, 3))
        agree(scg.exact.moments(three).variance, 3 * scg.exact.moments(one).variance, 1e-9)


def test_many_costs_to_go_are_taken_together(monkeypatch):
    monkeypatch.setattr(means, "_GROUPS", 2)
    graph = scg.trace(driven, THETA, rng=np.random.default_rng(0))
    agree(scg.exact.moments(graph).mean, scg.exact.gradient(graph))


def test_a_choice_between_paths_keeps_the_noise_of_each_replicate():
    graph = scg.trace(switch, THETA, rng=np.random.default_rng(0))
    runs, rng = graph.gradients(rng=np.random.default_rng(5), replicates=40), np.random.default_rng(3)
    singles = []
    for _ in range(40):
        new = graph.run(rng=rng)
        x, z = new.stochastic["x"].value, new.stochastic["z"].value
        locs = np.array([THETA[0], THETA[1], THETA[0] * THETA[1]])
        noise = (x - locs[z]) / np.exp(THETA[0])

        def given(theta, noise=noise):
            p = np.exp(dist.Categorical(logits=np.stack([theta[0], theta[1], 0 * theta[0]])).log_prob(np.arange(3)))
            at = np.stack([theta[0], theta[1], theta[0] * theta[1]]) + np.exp(theta[0]) * noise
            return np.sum(p * (at**2 * theta[1] + np.sin(at) + np.array([0, 1, 0]) * at))

        agree(new.gradients(), scg.grad(given)(THETA))
        singles.append(new.gradients())
    spread = np.sqrt((np.var(runs, axis=0) + np.var(singles, axis=0)) / 40)
    assert (np.abs(np.mean(runs, axis=0) - np.mean(singles, axis=0)) < 5 * spread).all()


@pytest.mark.fast
def test_compiled_functions_agree_and_a_plan_has_run():
    for cost in (chain, switch, above):
        step = scg.compile(scg.value_and_grad(cost))
        assert step(THETA, rng=np.random.default_rng(0)) is not None
        both(scg.value_and_grad(cost), step, lambda seed: (THETA * (1 + 0.1 * seed),), seeds=(1, 2, 3, 4))
        assert step.planned


@pytest.mark.fast
@pytest.mark.parametrize(
    "cost, words",
    [
        (lambda z, t, rng: z * t[1] if z > 0 else t[0], "z: .*the `if` at .*looks at one.*np.where"),
        (
            lambda z, t, rng: scg.sample(dist.Normal(z, 1.0), SCORE, rng=rng, name="x") ** 2,
            "z: .*x ~ .*is drawn from them: use Reparameterized.. on it, too, or ScoreFunction",
        ),
        (
            lambda z, t, rng: scg.sample(dist.Bernoulli(logits=z), SCORE, rng=rng, name="x") ** 2,
            "z: .*x ~ .*is drawn from them: use Marginalize.. on it, too, or ScoreFunction",
        ),
        (lambda z, t, rng: np.where(z > 0.5, np.inf, t[1]), "z: .*infinite or NaN.*np.where"),
    ],
)
def test_what_cannot_be_summed_out_is_refused_with_a_way_out(cost, words):
    def fn(t, rng):
        return cost(scg.sample(dist.Bernoulli(logits=t[0]), SUM, rng=rng, name="z"), t, rng)

    with pytest.raises(EstimatorError, match=words):
        scg.grad(fn)(THETA, rng=np.random.default_rng(0))


def test_what_keeps_together_is_refused_with_its_width_and_a_larger_budget_helps():
    def cost(t, rng, budget, n=12):
        z = scg.sample(dist.Bernoulli(logits=t[0] * np.ones(n)), scg.Marginalize(budget), rng=rng, name="z")
        return np.tanh(np.sum(z * np.arange(n)) * t[1])

    with pytest.raises(scg.exact.BudgetError, match="z .12 elements of 2 values.*4096 configurations.*budget of 1000"):
        scg.grad(cost)(THETA, rng=np.random.default_rng(0), budget=1000)
    graph = scg.trace(cost, THETA, rng=np.random.default_rng(0), budget=2**12)
    agree(graph.gradients(), scg.exact.gradient(graph))
    with pytest.raises(ScgError, match="budget"):
        scg.Marginalize(0)


def test_an_index_that_another_sample_gives_is_read_anew_in_every_replicate():
    def cost(t, rng):
        z = scg.sample(dist.Bernoulli(logits=t[0] * np.arange(4.0)), SUM, rng=rng, name="z")
        rows = scg.minibatch(4, 2, rng=rng, name="rows")
        return np.sum((rows.rows(z) - t[1]) ** 2 * (1 + rows.index))

    def given(t, i):  # z^2 = z
        return np.sum((1 / (1 + np.exp(-t[0] * i)) * (1 - 2 * t[1]) + t[1] ** 2) * (1 + i))

    graph = scg.trace(cost, THETA, rng=np.random.default_rng(0))
    agree(scg.exact.moments(graph).mean, scg.exact.gradient(graph))
    for seed in range(5):
        new = graph.run(rng=np.random.default_rng(seed))
        agree(new.gradients(), scg.grad(given)(THETA, new.stochastic["rows"].value))
    each = np.array([scg.grad(given)(THETA, np.array([i, j])) for i in range(4) for j in range(i)])
    runs = graph.gradients(rng=np.random.default_rng(0), replicates=100)
    distance = np.max(np.abs(runs[:, None] - each), axis=-1)
    assert np.max(np.min(distance, axis=1)) < 1e-10 and set(np.argmin(distance, axis=1)) == set(range(6))


def matrices(t, rng, estimator):
    """Determinants and eigenvalues of a batch of matrices, each of which two coins decide; remainders of a sum."""
    z = scg.sample(dist.Bernoulli(logits=t[0] * np.arange(6.0).reshape(3, 2)), estimator, rng=rng, name="z")
    a = np.eye(2) + t[1] ** 2 * z[:, :, None] * z[:, None, :] * np.array([[1.0, 0.5], [0.5, 2.0]])
    whole, rest = np.divmod(np.sum(z * np.array([2.0, 3.0]), axis=-1), 2.0)
    return np.sum(np.linalg.slogdet(a)[1] + np.linalg.eigh(a)[0][:, 0] ** 2 + whole * t[0] + rest * t[1])


def counts(t, rng, estimator):
    """Values of many kinds: counts, vectors of counts, and an index that is another sample."""
    n = scg.sample(dist.Binomial(3, logits=t[0]), estimator, rng=rng, name="n")
    m = scg.sample(dist.Multinomial(2, logits=np.stack([t[1] * n, t[0], t[1]])), estimator, rng=rng, name="m")
    k = scg.sample(dist.Categorical(logits=m * t[0]), estimator, rng=rng, name="k")
    return np.sum(m * np.array([1.0, -1.0, 2.0])) ** 2 * t[1] + np.stack([t[0], t[1], t[0] * t[1]])[k] + n * t[0]


def products(t, rng, estimator):
    """Twelve coins in products that are distributed."""
    z = scg.sample(dist.Bernoulli(logits=t[0] * np.ones(12)), estimator, rng=rng, name="z")
    return (z @ np.diag(np.ones(11), 1) @ z) * t[1] + np.sum(z) ** 2 * t[0]


def walk_of_vectors(t, rng, estimator):
    """Coins of two axes, each drawn given those before, in running sums and the largest."""
    z = scg.sample(dist.Bernoulli(logits=t), estimator, rng=rng, shape=(2,), name="z")
    y = scg.sample(dist.Bernoulli(logits=z[::-1] * t + t[0]), estimator, rng=rng, name="y")
    return np.sum(np.cumsum(y, axis=0) * t) + np.mean(np.max(y, axis=1)) * t[1]


@pytest.mark.parametrize("cost", [matrices, counts, products, walk_of_vectors])
def test_every_way_to_a_gradient_is_exact(cost):
    """In one run, in replicates at once and as a graph, after rebinding, by a plan."""
    rng = np.random.default_rng(0)
    graph, plain = (scg.trace(cost, THETA, rng=rng, estimator=e) for e in (SUM, SCORE))
    exact = scg.exact.gradient(plain)
    agree(graph.gradients(), exact)
    agree(plain.bind({"*": SUM}).gradients(rng=rng), exact)
    for found in (graph.gradients(rng=rng, replicates=3), graph.run(rng=rng, replicates=3).gradients()):
        agree(found, np.broadcast_to(exact, found.shape))
    step = scg.compile(scg.grad(lambda t, rng: cost(t, rng, SUM)))
    for _ in range(3):
        agree(step(THETA, rng=rng), exact)
    assert step.planned


def test_what_is_held_has_no_derivative_and_counts_by_its_value():
    """As with a score function, and with Enumerate."""

    def cost(t, rng, estimator):
        z = scg.sample(dist.Bernoulli(logits=t[0]), estimator, rng=rng, name="z")
        return scg.stop_gradient(z * t[1]) * t[1] + np.where(z > 0, t[1] ** 2, t[0])

    found = scg.grad(cost)(THETA, rng=np.random.default_rng(0), estimator=SUM)
    graph = scg.trace(cost, THETA, rng=np.random.default_rng(0), estimator=scg.Enumerate())
    agree(found, scg.exact.moments(graph).mean)


def test_the_gradient_of_a_mean_may_stand_in_a_cost():
    """In any way: it is no estimate any more."""

    def inner(u, t, rng):
        z = scg.sample(dist.Bernoulli(logits=u * t[1]), SUM, rng=rng)
        return (z - 0.3) ** 2 * u + z * t[0]

    def mean(u, t):
        p = 1 / (1 + np.exp(-u * t[1]))
        return p * (0.49 * u + t[0]) + (1 - p) * 0.09 * u

    outer = lambda t, rng: scg.grad(inner)(t[0], t, rng) ** 2 + scg.grad(inner)(t[1], t, rng)
    expected = lambda t: scg.grad(mean)(t[0], t) ** 2 + scg.grad(mean)(t[1], t)
    agree(scg.grad(outer)(THETA, np.random.default_rng(0)), scg.grad(expected)(THETA))


def test_products_that_another_sample_decides_are_computed_anew_in_every_replicate():
    """z' (x x') z of twelve coins z, p their probability: E = s p + s (s - 1) p^2, s the sum of the coins x."""

    def cost(t, rng):
        x = scg.sample(dist.Bernoulli(probs=np.full(12, 0.5)), SCORE, rng=rng, name="x")
        z = scg.sample(dist.Bernoulli(logits=t[1] * np.ones(12)), SUM, rng=rng, name="z")
        return z @ (np.outer(x, x) * np.ones((12, 12))) @ z

    graph = scg.trace(cost, THETA, rng=np.random.default_rng(0))
    s, p = np.arange(13.0), 1 / (1 + np.exp(-THETA[1]))
    runs = graph.gradients(rng=np.random.default_rng(1), replicates=200)[:, 1]
    slopes = p * (1 - p) * (s + 2 * s * (s - 1) * p)
    assert np.max(np.min(np.abs(runs[:, None] - slopes), axis=1)) < 1e-10
    assert len(np.unique(runs.round(6))) > 5


def test_an_if_on_another_sample_is_no_obstacle():
    def cost(t, rng, estimator):
        x = scg.sample(dist.Bernoulli(logits=t[0]), SCORE, rng=rng, name="x")
        z = scg.sample(dist.Bernoulli(logits=t[1] + x), estimator, rng=rng, name="z")
        y = z * t[1] ** 2 if x > 0 else (z - 2) * t[0]
        return y * x + y

    graph, plain = (scg.trace(cost, THETA, rng=np.random.default_rng(0), estimator=e) for e in (SUM, SCORE))
    found, before = scg.exact.moments(graph), scg.exact.moments(plain)
    agree(found.mean, before.mean)
    assert (found.variance < before.variance).all()


def test_float32_stays_float32():
    theta = THETA.astype(np.float32)
    value, gradient = scg.value_and_grad(chain)(theta, rng=np.random.default_rng(0))
    assert value.dtype == gradient.dtype == np.float32
    agree(gradient, scg.grad(chain)(THETA, rng=np.random.default_rng(0)), 1e-5)
