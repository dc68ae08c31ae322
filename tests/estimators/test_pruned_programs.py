"""One element of all samples of a program moves: two evaluations of the cost, whatever the length."""

import numpy as np
import pytest

import scg
import scg.exact
from scg import distributions as dist
from scg.errors import EstimatorError, ScgTypeError
from scg.estimators import difference
from scg.extend import Estimator
from scg.variance.evaluations import evaluations

T = np.array(0.3)


def pruned(**how):
    return scg.StochasticDerivative(prune="program", **how)


def nested(t, rng, estimator=pruned):
    """Five elements of three samples, one drawn from another, that also move with the parameter."""
    a = scg.sample(dist.Bernoulli(logits=np.stack([t, -0.4 * t])), estimator(), rng=rng)
    b = scg.sample(dist.Binomial(2, logits=2 * a[0] - a[1] + t), estimator(), rng=rng)
    c = scg.sample(dist.Categorical(logits=np.stack([a[1], 0.5 * b, t])), estimator(), rng=rng)
    return (c - 0.7 * b) ** 2 + a[0] * t + c * a[1]


def beside(t, rng):
    """With samples of other estimators above, between and below."""
    a = scg.sample(dist.Bernoulli(logits=t), scg.ScoreFunction(), rng=rng)
    b = scg.sample(dist.Bernoulli(logits=a - t), pruned(), rng=rng)
    c = scg.sample(dist.Bernoulli(logits=b * t), scg.Enumerate(), rng=rng)
    d = scg.sample(dist.Categorical(logits=np.stack([c, a * t, b])), pruned(), rng=rng)
    return (a + d - 0.5) ** 2 * (b + 0.3 * c)


def walk(t, n, rng):
    z = scg.sample(dist.Bernoulli(logits=t), pruned(), rng=rng)
    total = z
    for _ in range(n - 1):
        z = scg.sample(dist.Bernoulli(logits=2 * z - t), pruned(), rng=rng)
        total = total + z
    return total**2


def moments(program, t=T, **how):
    graph = scg.trace(program, t, np.random.default_rng(0), **how)
    return scg.exact.moments(graph, budget=2**22), scg.exact.gradient(graph)


@pytest.mark.parametrize("program", [nested, beside])
@pytest.mark.parametrize("t", [0.3, -1.1])
def test_the_mean_is_exact(program, t):
    found, expected = moments(program, np.array(t))
    np.testing.assert_allclose(found.mean, expected, rtol=1e-9)


def test_so_it_is_where_samples_further_down_are_drawn_anew():
    found, expected = moments(nested, estimator=lambda: pruned(coupled=False))
    np.testing.assert_allclose(found.mean, expected, rtol=1e-9)


@pytest.mark.parametrize("n", [1, 4, 30])
def test_two_evaluations_are_enough_for_any_length(n):
    assert evaluations(scg.trace(walk, T, n, np.random.default_rng(0))) == 2


def test_replicates_single_runs_and_a_plan_agree():
    """Means within five standard errors; the plan, to rounding."""
    expected = scg.exact.gradient(scg.trace(walk, T, 4, np.random.default_rng(0)))
    many = scg.trace(walk, T, 4, np.random.default_rng(0)).gradients(rng=np.random.default_rng(1), replicates=4000)
    single = np.array([scg.grad(walk)(T, 4, np.random.default_rng(k)) for k in range(800)])
    for g in (many, single):
        assert abs(g.mean() - expected) < 5 * g.std() / np.sqrt(len(g))
    step = scg.compile(scg.value_and_grad(walk))
    for seed in range(5):
        np.testing.assert_allclose(
            step(T, 4, np.random.default_rng(seed)),
            scg.value_and_grad(walk)(T, 4, np.random.default_rng(seed)),
            rtol=1e-13,
        )


@pytest.mark.parametrize("program", [nested, beside])
def test_a_plan_takes_the_numbers_that_a_plain_run_takes(program):
    """Whichever sample moves: what stays because it stands before that one takes its numbers all the same."""
    step, plain, moved = scg.compile(scg.grad(program)), np.random.default_rng(0), np.random.default_rng(0)
    for _ in range(8):
        np.testing.assert_allclose(step(T, moved), scg.grad(program)(T, plain), rtol=1e-13)
        assert moved.random() == plain.random()
    assert step.planned and not step.plainly


def test_of_one_sample_it_is_the_pruned_one():
    """The same distribution of the gradient, so the same variance."""

    def cost(t, prune, rng):
        b = scg.sample(dist.Bernoulli(logits=t), scg.StochasticDerivative(prune=prune), rng=rng)
        return np.prod(b + 0.3) + np.sum(b) ** 2

    t = np.array([0.3, -0.8, 1.2])
    one, other = (scg.exact.moments(scg.trace(cost, t, prune, np.random.default_rng(0))) for prune in (True, "program"))
    np.testing.assert_allclose(one.variance, other.variance, rtol=1e-10)


@pytest.mark.parametrize("prune", [False, True, "program"])
def test_a_sample_without_elements_moves_nothing(prune):
    def cost(t, n, rng):
        b = scg.sample(dist.Bernoulli(logits=t), scg.StochasticDerivative(prune=prune), rng=rng, shape=n)
        return (np.sum(b) - 0.3) ** 2 + t * np.prod(b)

    assert scg.grad(cost)(T, 0, np.random.default_rng(0)) == 1.0
    assert abs(scg.grad(cost)(T, 2, np.random.default_rng(0))) > 0.1


def test_float32_stays():
    assert scg.grad(walk)(T.astype(np.float32), 3, np.random.default_rng(0)).dtype == np.float32


def test_second_derivatives_are_refused():
    with pytest.raises(scg.ScgError, match="second"):
        scg.hessian(walk)(T, 3, np.random.default_rng(0))


def test_what_prune_may_be():
    with pytest.raises(ScgTypeError, match="prune must be True, False or 'program', got 'all'"):
        scg.StochasticDerivative(prune="all")


# --- what must be noticed


def test_a_term_that_is_not_divided_by_its_probability_is_noticed(monkeypatch):
    change = difference.change
    monkeypatch.setattr(difference, "change", lambda downs, steps: 0.9 * change(downs, steps))
    found, expected = moments(nested)
    assert abs(found.mean - expected) > 1e-3


def test_samples_further_down_that_stay_are_noticed(monkeypatch):
    monkeypatch.setattr(dist.Bernoulli, "coupled", lambda self, before, value: value + 0 * self.p)
    monkeypatch.setattr(dist.Binomial, "coupled", lambda self, before, value: value + 0 * self.p)
    found, expected = moments(nested)
    assert abs(found.mean - expected) > 1e-3


@pytest.mark.fast
@pytest.mark.parametrize(
    "outer",
    [scg.RODEO(), scg.DoubleControlVariate(), scg.MuProp(), scg.UnorderedSet(2), scg.CoupledPairs(2), scg.Enumerate()],
    ids=lambda outer: type(outer).__name__,
)
def test_copies_in_replicates_of_another_estimator_have_each_the_change_of_its_own_cost(outer):
    def cost(t, rng):
        a = scg.sample(dist.OneHotCategorical(logits=t * np.array([1.0, -0.5, 0.25])), outer, rng=rng)
        b = scg.sample(dist.Bernoulli(logits=t * (a @ np.array([1.0, -0.6, 2.0]))), pruned(), rng=rng)
        return (1.5 * b - 0.45) ** 2

    found, exact = moments(cost, np.array(0.5))
    np.testing.assert_allclose(found.mean, exact, 1e-9)


def test_samples_that_are_expanded_together_alone_are_refused_in_replicates_of_another_estimator():
    class Together(scg.StochasticDerivative):
        expand = Estimator.expand

    def cost(t, rng, outer):
        a = scg.sample(dist.Bernoulli(logits=t), outer, rng=rng)
        return scg.sample(dist.Bernoulli(logits=t * a), Together(prune="program"), rng=rng) - 0.45

    assert np.isfinite(scg.grad(cost)(T, np.random.default_rng(0), scg.ScoreFunction()))
    with pytest.raises(EstimatorError, match="Together expands its samples together.*override expand"):
        scg.grad(cost)(T, np.random.default_rng(0), scg.RODEO())
