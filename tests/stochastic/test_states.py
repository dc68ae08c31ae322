"""Samples whose distributions move with other samples alone, such as the states of a chain, have no derivative to
contribute: estimators do not look at costs for them."""

import numpy as np
import pytest

import scg
import scg.exact
from scg import distributions as dist
from scg.core.ancestry import ancestors
from scg.stochastic.analysis import Analysis
from scg.variance.evaluations import evaluations

pytestmark = pytest.mark.fast

TABLE = np.array([[0.2, 0.8], [0.7, 0.3]])
T = np.array(0.3)


def chain(t, n, rng, estimator=scg.Enumerate, moving=False):
    z = scg.sample(dist.Bernoulli(logits=t), estimator(), rng=rng)
    total = z
    for _ in range(n - 1):
        p = TABLE[0, 0] + (TABLE[0, 1] - TABLE[1, 1]) * z
        z = scg.sample(dist.Bernoulli(probs=p + 0.01 * t if moving else p), estimator(), rng=rng)
        total = total + z
    return total**2


def looking(cost, floor=0):
    return Analysis([cost], ancestors([cost], guards=True), floor).looking


@pytest.mark.parametrize("moving", [False, True])
def test_estimators_look_at_costs_for_the_samples_that_move_with_a_parameter(moving):
    graph = scg.trace(chain, T, 5, np.random.default_rng(0), scg.Enumerate, moving)
    assert len(looking(graph.cost, graph.floor)) == (5 if moving else 1)
    assert len(looking(graph.cost, -1)) == 5  # by anything
    assert evaluations(graph) == (10 if moving else 2)
    np.testing.assert_allclose(scg.exact.moments(graph).mean, scg.exact.gradient(graph), rtol=1e-10)


@pytest.mark.parametrize(
    "between", [lambda t: scg.sample(dist.Normal(t, 1.0), scg.Reparameterized(), rng=np.random.default_rng(0)), np.tanh]
)
def test_a_path_and_a_function_pass_the_derivative_on(between):
    t = scg.parameter(T)
    z = scg.sample(dist.Bernoulli(logits=between(t)), scg.Enumerate(), rng=np.random.default_rng(0))
    assert looking(z * 2.0) == [z]


@pytest.mark.parametrize("estimator", [scg.Enumerate, scg.DisARM, scg.ScoreFunction])
def test_second_derivatives_and_relaxed_states_are_right(estimator):
    """A relaxed sample moves what is drawn from it: there the states count."""
    if estimator is not scg.DisARM:
        found = scg.exact.gradient(
            lambda t, rng: scg.grad(chain)(t, 3, rng, estimator), T, rng=np.random.default_rng(0)
        )
        np.testing.assert_allclose(found, scg.exact.hessian(chain, T, 3, rng=np.random.default_rng(0)), rtol=1e-9)

    def relaxed(t, rng):
        z = scg.sample(dist.Bernoulli(logits=t), scg.MuProp(), rng=rng)
        w = scg.sample(dist.Bernoulli(probs=0.2 + 0.6 * z), estimator(), rng=rng)
        return w * (z + 0.5)

    graph = scg.trace(relaxed, T, np.random.default_rng(0))
    np.testing.assert_allclose(scg.exact.moments(graph).mean, scg.exact.gradient(graph), rtol=1e-10)


def test_a_plan_draws_what_a_plain_call_draws():
    """In a plan the table is a leaf; nobody differentiates by it."""

    def cost(t, table, rng):
        z = scg.sample(dist.Bernoulli(logits=t), scg.Enumerate(), rng=rng)
        w = scg.sample(dist.Bernoulli(probs=np.sum(table[0] * z) / 4 + 0.1), scg.Enumerate(), rng=rng)
        return w * z + scg.sample(dist.Bernoulli(logits=w - t), scg.DisARM(), rng=rng)

    step = scg.compile(scg.value_and_grad(cost))
    for seed in range(6):
        expected = scg.value_and_grad(cost)(T, TABLE, rng=np.random.default_rng(seed))
        np.testing.assert_array_equal(step(T, TABLE, rng=np.random.default_rng(seed)), expected)


@pytest.mark.fast
def test_a_node_that_samples_alone_have_made_can_be_differentiated_by():
    """Nobody says what a surrogate is differentiated by: x is a function of a coin, and the next coin of x."""
    t = scg.parameter(np.array(0.3))
    z = scg.sample(dist.Bernoulli(logits=t), scg.ScoreFunction(), rng=np.random.default_rng(0))
    x = 1.5 * z + 0.2
    b = scg.sample(dist.Bernoulli(logits=x), scg.Enumerate(), rng=np.random.default_rng(1))
    (slope,) = scg.gradients(scg.surrogate((b - 0.3) ** 2), [x])
    p = 1 / (1 + np.exp(-x.value))
    assert np.isclose(slope, (0.49 - 0.09) * p * (1 - p), rtol=1e-12)


@pytest.mark.parametrize("make", [scg.DoubleControlVariate, scg.RODEO, scg.MuProp, scg.REBAR, scg.Enumerate])
def test_a_slope_at_values_that_were_drawn_passes_what_is_further_down_in_plans_too(make):
    def cost(l, rng):
        z = scg.sample(dist.Bernoulli(logits=l), make(), rng=rng)
        b = scg.sample(dist.Bernoulli(logits=z @ np.array([1.0, -1.0, 0.5])), scg.ScoreFunction(), rng=rng)
        return (b - 0.3) ** 2

    l, compiled = np.array([0.3, -0.2, 0.5]), scg.compile(scg.grad(cost))
    for seed in range(5):
        found = compiled(l, rng=np.random.default_rng(seed))
        np.testing.assert_allclose(found, scg.grad(cost)(l, rng=np.random.default_rng(seed)), rtol=0, atol=1e-12)
    assert "1 signatures" in repr(compiled)
