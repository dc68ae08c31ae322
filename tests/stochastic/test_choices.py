"""Samples that choose among what other samples are in (``np.where``, ``np.take``): a recorded gradient, run again with
other samples, is that of these, whatever the recorded run had chosen."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import scg
import scg.exact
from scg import distributions as dist
from scg.core.tree import leaves
from scg.errors import ScgError
from scg.testing import graphs
from tests.support.discrete import program
from tests.support.drawn import drawn, first

pytestmark = [pytest.mark.fast, pytest.mark.filterwarnings("ignore::RuntimeWarning")]

T = np.array(0.4)
CHOICES = {
    "where": lambda z, k: np.where(z > 0.5, k, -0.43),
    "where, a vector": lambda z, k: np.sum(np.where(z > 0.5, np.stack([k, 2 * k]), np.array([1.0, -0.3]))),
    "take": lambda z, k: np.take(np.stack([k, 0 * k - 0.43]), (z > 0.5) * 1),
    "index": lambda z, k: np.stack([k * 2, 1 - k, k])[(z > 0.5) * 2],
    "choose": lambda z, k: np.choose((z > 0.5) * 1, [k * 1.0, -k]),
    "select": lambda z, k: np.select([z > 0.5, z < 0.2], [k * 1.0, 0 * k], 0.7),
    "an infinite factor": lambda z, k: np.where(z > 0.5, k * (1 / z), 1 - k),
    "an infinite logarithm": lambda z, k: np.sum(np.where(z > 0.5, np.log(z) * np.stack([k, 2 * k]) + z, 0.3 * k)),
    "a running sum": lambda z, k: np.cumsum(np.stack([1 - k, 3 * k, 0.5 + k]))[(z > 0.5) * 1],
    "compress": lambda z, k: np.sum(np.where(np.stack([z, 1 - z]) > 0.5, np.stack([k, 3 * k]), 0.0)),
}


def chosen(choice, estimator=scg.ScoreFunction):
    def cost(t, rng):
        z = scg.sample(dist.Bernoulli(logits=t), estimator(), rng=rng, name="z")
        k = scg.sample(dist.Bernoulli(logits=2 * t - z), estimator(), rng=rng, name="k")
        return CHOICES[choice](z, k)

    return cost


def recorded(cost):
    """Graphs whose recorded runs have each value of z."""
    found = {}
    for seed in range(40):
        graph = scg.trace(cost, T, np.random.default_rng(seed))
        found.setdefault(float(graph.stochastic["z"].value), graph)
    assert len(found) == 2
    return found.values()


@pytest.mark.slow
@pytest.mark.parametrize("choice", CHOICES)
def test_the_exact_mean_is_that_of_any_recorded_run(choice):
    for estimator in (scg.ScoreFunction, scg.Enumerate, scg.DisARM, lambda: scg.ScoreFunction(samples=2)):
        for graph in recorded(chosen(choice, estimator)):
            expected = scg.exact.gradient(graph)
            np.testing.assert_allclose(scg.exact.moments(graph).mean, expected, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("choice", CHOICES)
def test_replicates_are_those_of_any_recorded_run(choice):
    one, other = (g.gradients(rng=np.random.default_rng(3), replicates=64) for g in recorded(chosen(choice)))
    np.testing.assert_allclose(one, other, rtol=1e-12)


@pytest.mark.parametrize("choice", CHOICES)
def test_a_plan_is_that_of_any_recorded_run(choice):
    plain, step = scg.grad(chosen(choice)), scg.compile(scg.grad(chosen(choice)))
    for seed in range(12):
        g = step(T, np.random.default_rng(seed))
        np.testing.assert_allclose(g, plain(T, np.random.default_rng(seed)), rtol=1e-12, atol=1e-15)


@drawn(100)
@given(graphs(finite=False), st.integers(0, 2**32 - 1))
def test_replicates_of_a_drawn_graph_are_those_of_any_recorded_run(graph, seed):
    """To what sums in another order may change."""
    many = [graph.program.graph(other).gradients(rng=np.random.default_rng(seed), replicates=4) for other in range(3)]
    for other in many[1:]:
        for (_, x), (_, y) in zip(leaves(many[0]), leaves(other), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-7, atol=1e-9 * np.max(np.abs(x), initial=1.0))


@pytest.mark.slow
@pytest.mark.parametrize("part", first(1, range(4)))
def test_the_exact_mean_of_drawn_programs_is_the_gradient(part):
    """For drawn estimators, also those that take slopes between the values."""
    makers = [
        lambda: scg.DoubleControlVariate(2, -0.8),
        scg.RODEO,
        scg.MuProp,
        scg.ScoreFunction,
        scg.Enumerate,
        scg.CoupledPairs,
    ]
    done = 0
    for seed in range(200 + 12 * part, 212 + 12 * part):
        rng = np.random.default_rng(seed)
        fn, at = program(rng), (np.array([0.4, -0.7]), np.array([0.5, 1.1]))
        graph = scg.trace(fn, *at, argnums=(0, 1), rng=np.random.default_rng(0))
        binding = {}
        for name, node in graph.stochastic.items():
            estimator = makers[rng.integers(len(makers))]()
            fits = not estimator.objection(node.statics["site"].distribution)
            binding[name] = estimator if fits else scg.ScoreFunction()
        try:
            found = scg.exact.moments(graph.bind(binding), time_limit=2, budget=2**16).mean
        except ScgError:
            continue
        done += 1
        for (_, mean), (_, expected) in zip(leaves(found), leaves(scg.exact.gradient(graph)), strict=True):
            np.testing.assert_allclose(mean, expected, rtol=1e-8, atol=1e-9, err_msg=repr((seed, binding)))
    assert done > 3
