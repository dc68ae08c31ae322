"""Costs at several parameters with random numbers in common, and the generator that recalls them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import scg
from scg import distributions as dist
from scg.core.tree import leaves
from scg.errors import ScgValueError
from scg.testing import graphs
from scg.testing.around import Around
from scg.testing.coupling import Coupled
from scg.testing.recalled import Recalled
from scg.testing.structure import join, split

pytestmark = pytest.mark.fast

CALLS = {
    "random": lambda g: g.random((2, 3)),
    "one number": lambda g: g.random(),
    "float32": lambda g: g.random(3, dtype=np.float32),
    "float32 normal": lambda g: g.standard_normal(3, np.float32),
    "normal": lambda g: g.standard_normal(size=4),
    "exponential": lambda g: g.standard_exponential(3),
    "exponential by inversion": lambda g: g.standard_exponential(3, method="inv"),
    "into an array": lambda g: g.random(out=np.empty((3, 2))),
    "normal into an array": lambda g: g.standard_normal(out=np.empty(5)),
    "gamma": lambda g: g.gamma(0.3, size=5),
    "integers": lambda g: g.integers(2**63),
    "normal of a mean": lambda g: g.normal(1.0, 2.0, 3),
    "its source": lambda g: g.bit_generator.random_raw(2),
}
calls = st.lists(st.sampled_from(sorted(CALLS)), max_size=6)


@given(st.integers(0, 2**32), st.lists(st.tuples(calls, st.integers(0, 6)), min_size=1, max_size=4), calls)
def test_what_recalls_random_numbers_gives_those_of_its_seed_whatever_is_called(seed, runs, first):
    rng = Recalled()
    for start in (seed, seed + 1):
        rng.start(start)
        for names in (first, *[first[:keep] + other for other, keep in runs], first):
            other = np.random.default_rng(start)
            for name in names:
                found, right = CALLS[name](rng), CALLS[name](other)
                assert type(found) is type(right)
                np.testing.assert_array_equal(found, right, strict=True)
                if type(found) is np.ndarray:
                    found[...] = 7  # what is kept is nobody else's
            rng.rewind()


def test_numbers_that_are_recalled_are_not_made_again():
    rng = Recalled()
    rng.start(3)
    first = rng.random(1000)
    rng.rewind()
    np.testing.assert_array_equal(rng.random(1000), first)
    assert not rng.awake
    rng.random(999)
    assert rng.awake


def test_what_is_kept_of_random_numbers_is_bounded():
    rng, other = Recalled(), np.random.default_rng(5)
    rng.start(5)
    for _ in range(5):
        np.testing.assert_array_equal(rng.random(2**20), other.random(2**20))
    assert sum(x.nbytes for _, x in rng.kept) <= 2**24
    rng.rewind()
    other = np.random.default_rng(5)
    for _ in range(5):
        np.testing.assert_array_equal(rng.random(2**20), other.random(2**20))


def chain(theta, rng):
    """Coins of which each has the probability that the last one chose, and a state of ten values."""
    b = scg.sample(dist.Bernoulli(logits=theta), scg.ScoreFunction(), rng=rng)
    c = scg.sample(dist.Bernoulli(logits=theta * b - 0.3), scg.ScoreFunction(), rng=rng)
    k = scg.sample(dist.Binomial(10, probs=0.3 + 0.2 * b[0]), scg.ScoreFunction(), rng=rng)
    u = scg.sample(dist.Normal(0.0, 1.0), scg.Reparameterized(), rng=rng)
    return np.sum(np.tanh(b + 0.5 * c)) ** 2 + k * u


def queue(theta, rng):
    wait = 0.0
    for _ in range(5):
        wait = np.maximum(wait + scg.sample(dist.Exponential(np.exp(theta[0])), scg.ScoreFunction(), rng=rng) - 1, 0.0)
    return wait


def gamma(theta, rng):
    return np.sum(scg.sample(dist.Gamma(np.exp(theta), 1.0), scg.ScoreFunction(), rng=rng, name="z") ** 2)


def direct(theta, rng):
    return np.sum(theta * scg.sample(dist.Bernoulli(logits=theta), scg.ScoreFunction(), rng=rng))


def behind_an_if(theta, rng):
    b = scg.sample(dist.Bernoulli(logits=theta), scg.ScoreFunction(), rng=rng)
    return np.sum(b) if theta[0] > -100 else np.sum(b * b)


def check(graph, rng, step=0.02, rtol=1e-12):
    """Costs around a graph's parameters, for several seeds and sizes, beside runs of the graph."""
    around, point = Around(graph), join([leaf.value for _, leaf in leaves(graph.parameters)], 1)[0]
    points = point + step * rng.choice([-1.0, 1.0], (7, point.size)) * (rng.random((7, point.size)) < 0.7)
    for seed, n in ((1, 40), (2, 40), (3, 2000), (4, 2000)):
        with np.errstate(all="ignore"):
            found = around.costs(points, n, seed)
            right = [
                np.broadcast_to(
                    graph.run(rng=np.random.default_rng(seed), parameters=split(graph, p), replicates=n).cost.value, n
                )
                for p in points
            ]
        assert found.shape == (7, n) and found.dtype == float
        np.testing.assert_allclose(found, right, rtol=rtol, atol=rtol * np.max(np.abs(right), initial=1))
    return around, found


@pytest.mark.parametrize(("cost", "by_steps"), [(chain, True), (queue, False), (gamma, False), (direct, False)])
def test_costs_around_are_those_of_runs_from_the_same_generator(cost, by_steps):
    rng = np.random.default_rng(0)
    graph = scg.trace(cost, np.linspace(-0.5, 0.5, 3), rng=rng)
    around, found = check(graph, rng)
    assert bool(around.samples) is by_steps
    assert np.any(found[0] != found[1]) and np.std(found) > 0.1


def test_costs_around_are_right_where_samples_are_coupled_or_stand_behind_an_if():
    rng = np.random.default_rng(0)
    graph = scg.trace(gamma, np.linspace(-0.5, 0.5, 3), rng=rng)
    check(graph.bind(z=Coupled()), rng)
    check(scg.trace(behind_an_if, np.linspace(-0.5, 0.5, 3), rng=rng), rng)


def test_where_many_samples_move_all_costs_are_computed():
    rng = np.random.default_rng(0)
    around, _ = check(scg.trace(chain, np.linspace(-0.5, 0.5, 3), rng=rng), rng, step=2.0)
    assert not around.samples


@pytest.mark.slow
@settings(max_examples=25)
@given(graphs(estimators=("scg.ScoreFunction()",)), st.integers(0, 2**32 - 1))
def test_costs_around_drawn_graphs_are_those_of_runs(graph, seed):
    check(graph, np.random.default_rng(seed), rtol=1e-9)


def test_a_cost_that_costs_much_is_computed_where_samples_have_moved():
    """Of a coin whose probability moves by .005 few replicates change."""
    lengths = []
    counted = scg.primitive(lambda x: lengths.append(len(x)) or np.tanh(x), scg.axes.elementwise, name="counted_here")

    def cost(theta, rng):
        return np.sum(counted(scg.sample(dist.Bernoulli(logits=theta), scg.ScoreFunction(), rng=rng)))

    graph = scg.trace(cost, np.zeros(4), rng=np.random.default_rng(0))
    around = Around(graph)
    lengths.clear()
    around.costs(0.02 * np.concatenate([np.eye(4), -np.eye(4)]), 2000, 1)
    assert lengths[0] == 2000 and 0 < sum(lengths[1:]) < 8 * 2000 / 40


def test_parameters_that_a_distribution_refuses_are_refused_at_every_point():
    def cost(theta, rng):
        return np.sum(scg.sample(dist.Bernoulli(probs=theta), scg.ScoreFunction(), rng=rng, name="z"))

    around = Around(scg.trace(cost, np.full(2, 0.5), rng=np.random.default_rng(0)))
    around.costs(np.full((2, 2), 0.5), 50, 1)
    with pytest.raises(ScgValueError, match="z made at .*probs must be"):
        around.costs(np.array([[0.5, 0.5], [0.5, 1.5]]), 50, 1)
