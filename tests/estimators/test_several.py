"""Estimators of several samples and of steps: coupled pairs, double control variates, Stein operators, stochastic
derivatives.

Exact means on drawn costs, joint distributions, closed forms of their variances, refusals."""

import functools
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import scg
from scg import distributions as dist
from scg.errors import EstimatorError, NotDifferentiable, ScgError, ScgTypeError, ScgValueError
from tests.support.drawn import drawn

SCORE = scg.ScoreFunction()
FINITE = {
    "pairs of 2": lambda: scg.CoupledPairs(2),
    "pairs of 3": lambda: scg.CoupledPairs(3),
    "two antithetic pairs": lambda: scg.CoupledPairs(4, "antithetic"),
    "next value": lambda: scg.StochasticDerivative(),
    "next value, pruned": lambda: scg.StochasticDerivative(prune=True),
}
REAL = {
    "double": lambda: scg.DoubleControlVariate(),
    "double of 3": lambda: scg.DoubleControlVariate(3, coefficient=0.7),
    "stein": lambda: scg.RODEO(),
    "stein of 3, any surrogate": lambda: scg.RODEO(
        3, lambda phi, f, d: phi * np.tanh(d) + 0.3 * d * d * np.cos(f), np.array(0.7)
    ),
}


def table(values, z):
    """values[z_1, z_2, ...] for elements z of a sample, as a product of one-hot vectors."""
    for k in range(values.ndim):
        picked = (z[k] == np.arange(values.shape[0])) * 1.0
        values = np.tensordot(picked, values, 1)
    return values


def agree(graph, estimator, rtol=1e-10):
    """The exact mean of the gradient is the gradient of the exact mean."""
    exact = scg.exact.gradient(graph)
    found = scg.exact.moments(graph.bind(z=estimator)).mean
    np.testing.assert_allclose(found, exact, rtol=rtol, atol=rtol * max(np.abs(exact).max(), 1.0))


@given(st.sampled_from(sorted(FINITE)), st.integers(2, 4), st.integers(1, 2), st.integers(0, 2**32), st.floats(0.1, 3))
@drawn(60)
def test_the_mean_is_exact_for_any_cost_of_categories_that_mix(name, values, elements, seed, spread):
    rng = np.random.default_rng(seed)
    costs = rng.standard_normal((values,) * elements)

    def cost(t, rng):
        z = scg.sample(dist.Categorical(logits=t), SCORE, rng=rng, name="z")
        return table(costs, z) * t[0, 0] + np.sum(z * t[:, -1])

    agree(scg.trace(cost, spread * rng.standard_normal((elements, values)), rng=rng), FINITE[name]())


@given(st.sampled_from(sorted({**FINITE, **REAL})), st.integers(1, 3), st.integers(0, 2**32))
@drawn(40)
def test_the_mean_is_exact_for_polynomials_of_coins_and_what_hangs_on_them(name, coins, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((2, coins))

    def cost(t, rng):
        z = scg.sample(dist.Bernoulli(logits=t), SCORE, rng=rng, name="z")
        y = scg.sample(dist.Bernoulli(logits=np.sum(a * z) - 0.3), SCORE, rng=rng, name="y")
        return np.prod(z + b) * y + np.sum((z - b) ** 2 * t)

    agree(scg.trace(cost, rng.standard_normal(coins), rng=rng), {**FINITE, **REAL}[name]())


@pytest.mark.parametrize("prune", [False, True])
@pytest.mark.parametrize(
    "family",
    [
        lambda t: dist.Binomial(4, logits=t),
        lambda t: dist.Poisson(np.exp(t)),
        lambda t: dist.Geometric(logits=t),
        lambda t: dist.NegativeBinomial(2.5, logits=t),
    ],
)
def test_steps_of_counts_are_exact(family, prune):
    def cost(t, rng):
        z = scg.sample(family(t), SCORE, rng=rng, name="z")
        return np.sum(np.sqrt(z + 1.0)) * t[0] + z[0]

    graph = scg.trace(cost, np.array([0.4, -0.2]), rng=np.random.default_rng(0))
    agree(graph, scg.StochasticDerivative(prune=prune), rtol=1e-9)


def test_no_step_goes_beyond_the_last_value():
    """Where the probabilities of three categories add up to a little less than one: a price is looked up by value."""
    prices = np.array([0.5, -1.0, 2.0])

    def cost(t, rng):
        z = scg.sample(dist.Categorical(logits=t[..., None] * np.array([1.0, -0.5, 0.25])), SCORE, rng=rng, name="z")
        return np.sum(scg.parameter(prices)[z] * t)

    for t in np.linspace(-3, 3, 25):
        agree(scg.trace(cost, np.array([t, 0.5]), rng=np.random.default_rng(0)), scg.StochasticDerivative())


def masked(m):
    """Logits, some of them those of what is impossible or of what no sample ever is."""
    return lambda t: dist.Categorical(logits=np.where(m > 0, t, [-np.inf, -900.0, -np.inf, -900.0, -np.inf]))


GAPS = {
    "a mask": masked(np.array([1, 0, 1, 0, 1])),
    "a mask of its own for each": masked(np.array([[1, 0, 0, 1, 1], [0, 1, 0, 1, 0]])),
    "none": masked(np.ones(5)),
    "probabilities": lambda t: dist.Categorical(
        probs=np.stack([t[:, 0] * 0, t[:, 0] ** 2, 1 - t[:, 0] ** 2], -1)[:, [0, 1, 0, 2]]
    ),
}


@pytest.mark.parametrize("prune", [False, True, "program"])
@pytest.mark.parametrize("name", GAPS)
@pytest.mark.parametrize("mixes", [False, True])
def test_a_step_leaps_over_values_that_are_impossible(name, mixes, prune):
    """Mass that a parameter moves past a value without probability arrives at the next one that has some."""
    family, t = GAPS[name], np.array([[0.4, -0.2, 0.7, 0.1, -0.6], [0.3, 0.8, -0.5, 0.2, 0.1]])

    def cost(t, rng, estimator=SCORE):
        z = scg.sample(family(t), estimator, rng=rng, name="z")
        return np.sum(np.sqrt(z + 1.0)) ** (2 if mixes else 1)

    graph = scg.trace(cost, t, rng=np.random.default_rng(0))
    expected = scg.exact.moments(graph).mean  # of the scores, which need no step
    estimator = scg.StochasticDerivative(prune=prune)
    np.testing.assert_allclose(scg.exact.moments(graph.bind(z=estimator)).mean, expected, 1e-9, 1e-12)
    plain, step = scg.grad(cost), scg.compile(scg.grad(cost))
    for seed in range(4):
        np.testing.assert_allclose(
            step(t, rng=np.random.default_rng(seed), estimator=estimator),
            plain(t, rng=np.random.default_rng(seed), estimator=estimator),
            1e-12,
            1e-15,
        )


def test_a_pruned_step_moves_one_of_the_elements_that_are_mixed():
    """Two evaluations of the cost, whatever the number of coins; and the mean over many is the gradient."""
    n = 30

    def cost(t, rng):
        z = scg.sample(dist.Bernoulli(logits=t), SCORE, rng=rng, name="z")
        return np.sum(z) ** 2 / n

    rng = np.random.default_rng(3)
    graph = scg.trace(cost, np.linspace(-1, 1, n), rng=rng)
    found = graph.bind(z=scg.StochasticDerivative(prune=True)).gradients(rng=rng, replicates=20_000)
    assert (np.count_nonzero(found, axis=1) <= 1).all() and (np.count_nonzero(found, axis=1) == 1).mean() > 0.9
    p = 1 / (1 + np.exp(-np.linspace(-1, 1, n)))
    exact = p * (1 - p) * (1 + 2 * (p.sum() - p)) / n
    assert (np.abs(found.mean(0) - exact) < 6 * found.std(0) / np.sqrt(20_000)).all()


# the samples of a pair


@given(st.integers(2, 5), st.integers(2, 4), st.integers(0, 2**32))
@drawn(25)
def test_each_walk_has_the_distribution_of_the_sample_and_pairs_the_joint_that_rho_divides_by(n, values, seed):
    """By enumeration of all walks: marginals, exchangeability, and rho p(a, b) = p(a) p(b) for a != b."""
    p = np.sort(np.random.default_rng(seed).dirichlet(np.ones(values)))
    q = (p / np.cumsum(p[::-1])[::-1])[:-1]
    estimator = scg.CoupledPairs(n)
    joint = np.zeros((values,) * n)
    for ends in itertools.product(range(values), repeat=n):
        mass = 1.0
        for j, end in enumerate(ends):
            r = estimator.ending(q, [np.array(e) for e in ends[:j]])
            mass *= np.prod(1 - r[:end]) * (r[end] if end < values - 1 else 1)
        joint[ends] = mass
    np.testing.assert_allclose(joint.sum(), 1, rtol=1e-10)
    for j in range(n):
        np.testing.assert_allclose(joint.sum(axis=tuple(k for k in range(n) if k != j)), p, rtol=1e-8)
    pair = joint.sum(axis=tuple(range(2, n)))
    last = joint.sum(axis=tuple(range(n - 2)))
    np.testing.assert_allclose(pair, last, rtol=1e-7, atol=1e-12)
    for a, b in itertools.permutations(range(values), 2):
        assert pair[a, b] > 0
        np.testing.assert_allclose(estimator.ratio(q, np.array(a), np.array(b)) * pair[a, b], p[a] * p[b], rtol=1e-7)


@pytest.mark.parametrize("p", [0.05, 0.3, 0.5, 0.9])
def test_two_samples_of_a_coin_are_disarm_and_more_are_better_than_as_many_independent_ones(p):
    def cost(t, rng):
        return (scg.sample(dist.Bernoulli(logits=t), SCORE, rng=rng, name="z") - 0.45) ** 2

    graph = scg.trace(cost, np.log(p / (1 - p)), rng=np.random.default_rng(0))

    def variance(estimator):
        return scg.exact.moments(graph.bind(z=estimator)).variance

    for coupling in ("dirichlet", "antithetic"):
        np.testing.assert_allclose(
            variance(scg.CoupledPairs(2, coupling)), variance(scg.DisARM()), rtol=1e-9, atol=1e-18
        )
    for n in (3, 4):
        assert variance(scg.CoupledPairs(n)) < variance(scg.ScoreFunction(scg.LeaveOneOut(), samples=n))


# control variates


def test_a_cost_that_is_linear_in_the_sample_has_no_variance_left():
    def cost(t, rng):
        z = scg.sample(dist.Bernoulli(logits=t), SCORE, rng=rng, name="z")
        return np.sum(z * np.array([1.0, -2.0, 0.5])) + 3

    graph = scg.trace(cost, np.array([0.3, -0.2, 1.0]), rng=np.random.default_rng(0))
    assert scg.exact.moments(graph.bind(z=scg.DoubleControlVariate())).variance.max() < 1e-25
    without = scg.exact.moments(graph.bind(z=scg.DoubleControlVariate(coefficient=0.0))).variance
    plain = scg.exact.moments(graph.bind(z=scg.ScoreFunction(scg.LeaveOneOut(), samples=2))).variance
    np.testing.assert_allclose(without, plain, rtol=1e-9)


def test_a_learned_coefficient_finds_the_linear_part_and_comes_back_from_its_state():
    learned = scg.DoubleControlVariate(coefficient=None)

    def cost(t, rng):
        z = scg.sample(dist.Bernoulli(logits=t), learned, rng=rng, name="z")
        return np.sum(z * np.array([1.0, -2.0, 0.5])) + 0.1 * np.prod(z)

    rng, t = np.random.default_rng(0), np.array([0.3, -0.2, 1.0])
    for _ in range(50):
        scg.grad(cost)(t, rng=rng)
    state = learned.state
    assert -1.2 < -state["above"] / state["below"] < -0.8
    again = scg.DoubleControlVariate(coefficient=None)
    again.state = state
    assert again.state == state
    with pytest.raises(ScgValueError, match="above"):
        again.state = {"nothing": 1}


# a discrete Stein operator


@given(st.integers(2, 4), st.integers(1, 2), st.sampled_from(["logits", "probs"]), st.integers(0, 2**32))
@drawn(30)
def test_a_surrogate_keeps_the_mean_of_one_hot_samples_whatever_it_is(values, elements, given, seed):
    rng = np.random.default_rng(seed)
    costs, a, b = rng.standard_normal((values,) * elements), *rng.standard_normal((2, values))

    def cost(t, rng):
        made = dist.OneHotCategorical(**{given: t if given == "logits" else np.exp(t) / np.sum(np.exp(t), -1)[:, None]})
        z = scg.sample(made, SCORE, rng=rng, name="z")
        f = costs
        for k in range(elements):
            f = np.tensordot(z[k], f, 1)
        y = scg.sample(dist.Bernoulli(logits=np.sum(a * z)), SCORE, rng=rng, name="y")
        return f * t[0, 0] + np.sum(np.exp(np.sum(a * z, axis=-1))) + y * np.sum(b * z[0])

    def surrogate(phi, f, d):
        return phi[0] * d * d + phi[1] * np.sin(d + f)

    agree(
        scg.trace(cost, rng.standard_normal((elements, values)), rng=rng),
        scg.RODEO(2, surrogate, rng.standard_normal(2)),
        rtol=1e-9,
    )


def test_its_tangent_is_the_double_control_variate_and_a_trained_one_is_better():
    """Of a steep cost the values lie above the tangents: 21.0 with these, 14.1 with the best bend."""
    t, learns = np.array([0.3, -0.5, 0.8, 0.1]), functools.partial(scg.optim.Adam, learning_rate=0.01)

    def steep(t, rng, estimator=SCORE):
        z = scg.sample(dist.Bernoulli(logits=t), estimator, rng=rng, name="z")
        s = np.sum(z * np.array([1.0, 2.0, -1.0, 1.5]))
        return np.exp(0.8 * s) / 4 + (s - 1) ** 2

    graph = scg.trace(steep, t, rng=np.random.default_rng(0))

    def variance(estimator):
        return scg.exact.moments(graph.bind(z=estimator)).variance

    for n in (2, 3):
        np.testing.assert_allclose(variance(scg.RODEO(n)), variance(scg.DoubleControlVariate(n)), rtol=1e-9)
    learned = scg.RODEO(optimizer=learns)
    for seed in range(150):
        scg.grad(steep)(t, rng=np.random.default_rng(seed), estimator=learned)
    assert variance(learned).sum() < 0.85 * variance(scg.DoubleControlVariate()).sum()
    again = scg.RODEO(optimizer=learns)
    again.state = learned.state
    np.testing.assert_array_equal(variance(again), variance(learned))


def test_what_a_surrogate_returns_has_the_shape_of_the_step():
    def cost(t, rng):
        z = scg.sample(dist.Bernoulli(logits=t), scg.RODEO(2, lambda phi, f, d: np.sum(d)), rng=rng, name="z")
        return np.sum(z) ** 2

    with pytest.raises(EstimatorError, match="shape of d"):
        scg.grad(cost)(np.zeros(2), rng=np.random.default_rng(0))


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: scg.CoupledPairs(1), "integer from 2"),
        (lambda: scg.CoupledPairs(17), "16"),
        (lambda: scg.CoupledPairs(2, "gaussian"), "dirichlet"),
        (lambda: scg.CoupledPairs(3, "antithetic"), "come in pairs"),
        (lambda: scg.DoubleControlVariate(1), "at least 2"),
        (lambda: scg.DoubleControlVariate(2, "much"), "finite number"),
        (lambda: scg.StochasticDerivative(prune=1), "True, False or"),
        (lambda: scg.RODEO(1), "at least 2"),
        (lambda: scg.RODEO(2, 1.0), "function of"),
        (lambda: scg.RODEO(2, parameters=np.ones(2)), "there is none"),
        (lambda: scg.RODEO(2, optimizer=0.1), "scg.optim.Adam"),
    ],
)
def test_options_out_of_range_are_refused(make, words):
    with pytest.raises(ScgError, match=words):
        make()


@pytest.mark.parametrize(
    "distribution, estimator, words",
    [
        (dist.Normal(0.0, 1.0), scg.CoupledPairs(2), "finite support"),
        (dist.Normal(0.0, 1.0), scg.StochasticDerivative(), "integers without a gap"),
        (dist.OneHotCategorical(logits=np.zeros(3)), scg.StochasticDerivative(), "integers without a gap"),
        (dist.Categorical(logits=np.zeros(3)), scg.DoubleControlVariate(), "real numbers"),
        (dist.Categorical(logits=np.zeros(3)), scg.RODEO(), "real numbers"),
        (dist.Normal(0.0, 1.0), scg.RODEO(), "finite support"),
    ],
)
def test_what_they_do_not_take_is_refused_where_it_is_sampled(distribution, estimator, words):
    with pytest.raises(EstimatorError, match=words):
        scg.sample(distribution, estimator, rng=np.random.default_rng(0), name="z")


@pytest.mark.parametrize("estimator", [*FINITE.values(), *REAL.values()])
def test_a_second_derivative_is_refused(estimator):
    def cost(t, rng):
        return scg.sample(dist.Bernoulli(logits=t), estimator(), rng=rng, name="z") ** 2 * t

    with pytest.raises((NotDifferentiable, EstimatorError, ScgTypeError)):
        scg.hessian(cost)(0.3, rng=np.random.default_rng(0))


@pytest.mark.parametrize("estimator", [*FINITE.values(), *REAL.values()])
def test_float32_stays(estimator):
    def cost(t, rng):
        return np.sum(scg.sample(dist.Bernoulli(logits=t), estimator(), rng=rng, name="z") ** 2 * t)

    found = scg.grad(cost)(np.array([0.3, 0.4], np.float32), rng=np.random.default_rng(0))
    assert found.dtype == np.float32
