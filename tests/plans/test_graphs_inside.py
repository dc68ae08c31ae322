"""Graphs that are traced, and run again, inside of a compiled function: refused in true words, with a way out."""

import numpy as np
import pytest

import scg
from scg import distributions as dist
from scg.errors import PlanError

T = np.array(0.2)


def branching(t, rng):
    z = scg.sample(dist.Bernoulli(logits=t), scg.ScoreFunction(), rng=rng, name="z")
    if z > 0.5:
        return (z - 0.3) ** 2 + t * t
    return t * z


AGAIN = {
    "new samples": lambda graph, rng: graph.gradients(rng=rng),
    "replicates": lambda graph, rng: graph.gradients(rng=rng, replicates=5),
    "another estimator": lambda graph, rng: graph.bind(z=scg.ARM()).gradients(rng=rng),
}


@pytest.mark.parametrize("name", AGAIN)
def test_an_if_on_a_sample_is_named_and_the_way_out_works(name):
    again = AGAIN[name]
    step = scg.compile(lambda t, rng: again(scg.trace(branching, t, rng=rng), rng))
    with pytest.raises(PlanError, match="`if` at .*compile scg.value_and_grad") as refused:
        step(T, np.random.default_rng(0))
    assert "two stochastic nodes" not in str(refused.value)
    compiled, rng, other = scg.compile(scg.value_and_grad(branching)), *[np.random.default_rng(3) for _ in range(2)]
    for _ in range(6):
        assert compiled(T, rng) == scg.value_and_grad(branching)(T, rng=other)


def test_an_if_on_a_parameter_alone_is_no_matter():
    def cost(t, rng):
        z = scg.sample(dist.Bernoulli(logits=t), scg.ScoreFunction(), rng=rng, name="z")
        return z * t if t > 0 else z

    step = scg.compile(lambda t, rng: scg.trace(cost, t, rng=rng).gradients(rng=rng))
    assert np.isfinite(step(T, np.random.default_rng(0)))


@pytest.mark.parametrize("estimator", [scg.ARM(), scg.REBAR(), scg.MeasureValued()])
def test_replicates_of_an_estimator_with_numbers_of_its_own(estimator):
    made = dist.Normal if isinstance(estimator, scg.MeasureValued) else lambda t, scale: dist.Bernoulli(logits=t)
    cost = lambda t, rng: np.cos(scg.sample(made(t, 1.0), estimator, rng=rng, name="z"))
    many = scg.compile(lambda t, rng: scg.trace(cost, t, rng=rng).gradients(rng=rng, replicates=5))
    with pytest.raises(PlanError, match=f"{type(estimator).__name__} draws numbers of its own"):
        many(T, np.random.default_rng(0))
    one = scg.compile(lambda t, rng: scg.trace(cost, t, rng=rng).gradients(rng=rng))
    rng = np.random.default_rng(0)
    assert len({float(one(T, rng)) for _ in range(8)}) > 1
