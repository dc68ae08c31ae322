"""An ``if`` that comes out otherwise: in a run with new samples, and at other values that an estimator looks at. Every
outcome of the run, of its estimators' own samples too, is taken in turn, and means are exact."""

import functools

import numpy as np
import pytest

import scg
import scg.exact
from scg import distributions as dist
from scg.errors import GuardError, PlanError
from scg.estimators import arm
from scg.stochastic import tape
from scg.variance.chunks import replicates
from tests.support.drawn import covering
from tests.support.outcomes import mean_and_variance, outcomes

T = np.array([0.3, -0.4, 0.6])
ELSEWHERE = {
    "ARM": scg.ARM,
    "DisARM": scg.DisARM,
    "Enumerate": scg.Enumerate,
    "Enumerate, anew": lambda: scg.Enumerate(coupled=False),
    "MeasureValued": scg.MeasureValued,
    "leave-one-out": lambda: scg.ScoreFunction(scg.LeaveOneOut(), samples=2),
    "several": lambda: scg.ScoreFunction(samples=2),
    "pairs": scg.CoupledPairs,
    "set": lambda: scg.UnorderedSet(2),
    "stochastic derivative": scg.StochasticDerivative,
    "pruned": lambda: scg.StochasticDerivative(prune=True),
    "program": lambda: scg.StochasticDerivative(prune="program"),
}


def branching(estimator):
    """The branches draw other samples, and not as many; what is drawn after them depends on both."""

    def cost(t, rng):
        a = scg.sample(dist.Bernoulli(logits=t[2]), scg.ScoreFunction(), rng=rng, name="a")
        b = scg.sample(dist.Bernoulli(logits=t[0] + a), estimator(), rng=rng, name="b")
        if b > 0.5:
            c = scg.sample(dist.Bernoulli(logits=t[1]), scg.ScoreFunction(), rng=rng)
            d = scg.sample(dist.Bernoulli(logits=t[1] * c), scg.ScoreFunction(), rng=rng)
            y = 2 * c - d * t[2]
        else:
            y = np.exp(t[0]) * scg.sample(dist.Categorical(logits=t), scg.ScoreFunction(), rng=rng, name="c")
        e = scg.sample(dist.Bernoulli(logits=t[1] + y), scg.ScoreFunction(), rng=rng, name="e")
        return (y - e) ** 2 + a * b

    return cost


def chosen_by_a_part(estimator):
    """The ``if`` looks at one element of a sample, and some costs stand before it."""

    def cost(t, rng):
        b = scg.sample(dist.Bernoulli(logits=t[:2]), estimator(), rng=rng, name="b")
        before = np.sum(b * t[:2]) - 0.7 * t[2]
        c = scg.sample(dist.Bernoulli(logits=t[2] + b[0]), scg.ScoreFunction(), rng=rng, name="c")
        if b[1] + c > 1.5:
            return before * c + t[2]
        return before - b[0] * scg.sample(dist.Bernoulli(logits=t[0]), estimator(), rng=rng)

    return cost


@functools.cache
def reference(program):
    return scg.exact.gradient(scg.trace(program(scg.ScoreFunction), T, np.random.default_rng(0)))


def found(monkeypatch, run):
    run()  # what is looked at once
    monkeypatch.setattr(arm, "uniform", lambda down: 0.5)
    return mean_and_variance(outcomes(monkeypatch, run))


def rng():
    return np.random.default_rng(0)


WAYS = {
    "plain": lambda cost, graph: scg.grad(cost)(T, rng()),
    "a new run": lambda cost, graph: graph.gradients(rng=rng()),
    "a replicate": lambda cost, graph: graph.gradients(rng=rng(), replicates=1)[0],
    "a row": lambda cost, graph: replicates(graph, rng(), 1)[0][0],
    "bound": lambda cost, graph: graph.bind(a=scg.ScoreFunction(scg.Constant(0.3))).gradients(rng=rng()),
}


@pytest.mark.parametrize(("name", "program"), covering([*ELSEWHERE], [branching, chosen_by_a_part]))
def test_an_if_that_comes_out_otherwise_elsewhere_is_traced_there(name, program, monkeypatch):
    """ARM is linear in its noise, which is held at its mean."""
    mean, _ = found(monkeypatch, lambda: scg.grad(program(ELSEWHERE[name]))(T, rng()))
    np.testing.assert_allclose(mean, reference(program), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("name", "way"), covering(["program", "DisARM", "Enumerate"], [*WAYS]))
def test_replicates_take_each_way_as_often_as_it_is_drawn(name, way, monkeypatch):
    """Whichever way the recorded run took, and whichever one its estimators looked at."""
    program = branching if way == "bound" else chosen_by_a_part
    for seed in (0, 1, 5):
        if way == "bound" and seed:
            continue
        cost = program(ELSEWHERE[name])
        graph = scg.trace(cost, T, np.random.default_rng(seed))
        graph.gradients(rng=rng())  # what is looked at once, for all that is bound
        mean, _ = found(monkeypatch, lambda cost=cost, graph=graph: WAYS[way](cost, graph))
        np.testing.assert_allclose(mean, reference(program), rtol=1e-12, atol=1e-13)


def rare(t, rng):
    b = scg.sample(dist.Bernoulli(probs=0.05 + 0.1 * t), scg.ScoreFunction(), rng=rng, name="b")
    return 20 * t * t if b > 0.5 else t + scg.sample(dist.Bernoulli(probs=t), scg.ScoreFunction(), rng=rng)


@pytest.mark.parametrize("seed", [0, 3])
def test_a_rare_way_is_taken_in_a_block_of_replicates_as_often_as_alone(seed, monkeypatch):
    t = np.array(0.4)
    graph = scg.trace(rare, t, np.random.default_rng(seed))
    expected = scg.exact.gradient(graph)
    mean, _ = found(monkeypatch, lambda: graph.gradients(rng=rng(), replicates=3))
    np.testing.assert_allclose(mean, np.full(3, expected), rtol=1e-12)


def test_coupled_runs_along_another_branch_have_less_variance(monkeypatch):
    """What comes after the branch is drawn with the same randomness on both, and the same way before it."""

    def program(estimator):
        def cost(t, rng):
            b = scg.sample(dist.Bernoulli(logits=t[0]), estimator(), rng=rng, name="b")
            extra = scg.sample(dist.Bernoulli(logits=t[1]), scg.ScoreFunction(), rng=rng) if b > 0.5 else 0.0
            w = scg.sample(dist.Bernoulli(logits=t[2] + 0.2 * b), scg.ScoreFunction(), rng=rng, name="w")
            return b + 0.1 * extra + 3 * w

        return cost

    both = [found(monkeypatch, lambda k=k: scg.grad(program(ELSEWHERE[k]))(T, rng())) for k in list(ELSEWHERE)[2:4]]
    (mean, coupled), (other, anew) = both
    np.testing.assert_allclose(mean, other, rtol=1e-12)
    assert coupled[0] < 0.7 * anew[0]


def test_noise_on_another_branch_is_the_same(monkeypatch):
    """A pathwise sample after the branch cancels in the difference."""

    def cost(t, rng):
        b = scg.sample(dist.Bernoulli(logits=t), scg.Enumerate(), rng=rng, name="b")
        if b > 0.5:
            scg.sample(dist.Bernoulli(logits=t), scg.ScoreFunction(), rng=rng)
        x = scg.sample(dist.Normal(0.0, 1.0), scg.Reparameterized(), rng=rng, name="x")
        return 2 * b + x if b > 0.5 else x - 1

    p = 1 / (1 + np.exp(-0.3))
    for seed in range(8):
        g = scg.grad(cost)(np.array(0.3), np.random.default_rng(seed))
        np.testing.assert_allclose(g, 3 * p * (1 - p), rtol=1e-12)


def test_auxiliary_results_are_those_of_the_run_itself():
    def cost(t, rng):
        b = scg.sample(dist.Bernoulli(logits=t), scg.Enumerate(), rng=rng, name="b")
        return (2 * t, "one") if b > 0.5 else (t * t, "zero")

    step = scg.value_and_grad(cost, has_aux=True)
    p, t = 1 / (1 + np.exp(-0.3)), np.array(0.3)
    for seed in range(6):
        (value, aux), g = step(t, np.random.default_rng(seed))
        assert (value == 2 * t) == (aux == "one")
        np.testing.assert_allclose(g, p * (1 - p) * (0.6 - 0.09) + (2 if aux == "one" else 0.6), rtol=1e-12)


def test_a_plan_says_that_the_function_would_have_to_run_again():
    cost = branching(scg.Enumerate)
    with pytest.raises(PlanError, match=r"would have to run again.*fallback=True"):
        scg.compile(scg.grad(cost))(T, rng())
    plainly = scg.compile(scg.grad(cost), fallback=True)
    for seed in range(4):
        expected = scg.grad(cost)(T, np.random.default_rng(seed))
        np.testing.assert_array_equal(plainly(T, np.random.default_rng(seed)), expected)


# --- what is refused


def test_slopes_and_second_derivatives_at_the_end_of_another_branch_are_refused():
    for estimator in (scg.DoubleControlVariate, scg.MuProp):
        with pytest.raises(GuardError, match="`if` on"):
            for seed in range(8):
                scg.grad(branching(estimator))(T, np.random.default_rng(seed))
    with pytest.raises(GuardError, match="`if` on"):
        scg.hvp(lambda t: branching(scg.Enumerate)(t, rng()))(T, T)


def test_a_graph_without_its_function_is_refused():
    with pytest.raises(GuardError, match="`if` on"):
        scg.Graph(scg.trace(branching(scg.Enumerate), T, rng()).cost).gradients()


def test_a_function_that_draws_otherwise_before_the_sample_is_refused():
    calls = []

    def cost(t, rng):
        calls.append(0)
        a = scg.sample(dist.Bernoulli(logits=t * len(calls)), scg.ScoreFunction(), rng=rng, name="a")
        b = scg.sample(dist.Bernoulli(logits=t + a), scg.Enumerate(), rng=rng, name="b")
        return a * t if b > 0.5 else t

    with pytest.raises(GuardError, match=r"made other samples before it, a ~ .*let it depend on its arguments alone"):
        scg.grad(cost)(np.array(0.3), rng())


# --- values where a recorded gradient is not finite


@pytest.mark.parametrize("estimator", [scg.ScoreFunction, scg.DisARM, scg.Enumerate, scg.REBAR])
def test_replicates_that_a_zero_has_to_absorb_in_are_those_that_were_drawn(estimator):
    """Where b is 0 the slope of the logarithm is infinite, times a zero that the recorded run did not meet. Drawing
    such a block anew would leave these samples out."""

    def cost(t, rng):
        x = scg.sample(dist.Normal(t, 1.0), scg.Reparameterized(), rng=rng, name="x")
        b = scg.sample(dist.Bernoulli(probs=0.7), scg.ScoreFunction(), rng=rng, name="b")
        d = scg.sample(dist.Bernoulli(logits=t), estimator(), rng=rng, name="d")
        return np.where(b > 0.5, np.log(b * t), 2 * t) + d * t * (d - b) + x

    t, seed, others = np.array(1.3), 0, []
    with np.errstate(all="ignore"):
        while len(others) < 2:  # one that met b = 1, and one that met b = 0
            graph = scg.trace(cost, t, np.random.default_rng(seed))
            seed += 1
            if graph.stochastic["b"].value == 1 - len(others):
                others.append(graph.gradients(rng=np.random.default_rng(5), replicates=50))
    assert np.isfinite(others).all()
    np.testing.assert_allclose(*others, rtol=1e-12)


# --- what must be noticed


def moved(monkeypatch, program=branching, name="Enumerate"):
    mean, _ = found(monkeypatch, lambda: scg.grad(program(ELSEWHERE[name]))(T, rng()))
    return np.max(np.abs(mean - reference(program))) > 1e-3


def short(estimator):
    def cost(t, rng):
        a = scg.sample(dist.Bernoulli(logits=t[2]), scg.ScoreFunction(), rng=rng, name="a")
        b = scg.sample(dist.Bernoulli(logits=t[0] + 3 * a), estimator(), rng=rng, name="b")
        return 2 * a if b > 0.5 else a * t[1]

    return cost


def test_samples_before_the_one_that_is_looked_at_must_stay(monkeypatch):
    assert not moved(monkeypatch, short)
    monkeypatch.setattr(tape.Beside, "draw", tape.Chosen.draw)
    assert moved(monkeypatch, short)


def test_samples_of_one_kind_are_not_kept_whatever_their_parameters_are(monkeypatch):
    monkeypatch.setattr(tape, "alike", lambda a, b: True)
    assert moved(monkeypatch)


def test_a_block_that_is_drawn_anew_is_noticed(monkeypatch):
    graph = scg.trace(rare, np.array(0.4), np.random.default_rng(0))
    monkeypatch.setattr(tape.Chosen, "draw", lambda self, site: None)
    mean, _ = found(monkeypatch, lambda: graph.gradients(rng=rng(), replicates=1))
    assert abs(mean[0] - scg.exact.gradient(graph)) > 1e-3


def test_no_tape_is_left_behind():
    assert tape.TAPE.get() is None
