"""Numbers that a traced function takes from a generator itself: found, run again for, or refused; never constants of an
expectation."""

import pickle
import random

import numpy as np
import pytest

import scg
from scg import distributions as dist
from scg.errors import ScgTypeError, ScgValueError
from tests.support.graphs import THETA, model

pytestmark = pytest.mark.fast

RNG = np.random.default_rng
X = np.array([1.5, -0.3, 0.8])


def by_index(t, rng):
    i = rng.integers(3)
    return np.sum((scg.sample(dist.Normal(t, 1.0), scg.ScoreFunction(), rng=rng, name="z") - X[i]) ** 2)


def by_noise_after(t, rng):
    z = scg.sample(dist.Normal(t, 1.0), scg.ScoreFunction(), rng=rng, name="z")
    return np.sum((z + rng.normal() - X.mean()) ** 2)


def by_shuffle(t, rng):
    z = scg.sample(dist.Normal(t, 1.0), scg.ScoreFunction(), rng=rng, name="z")
    return sum(np.sum((z - X[i]) ** 2) for i in rng.permutation(3)[:2]) / 2


def by_distribution(t, rng):
    return np.sum(
        (
            scg.sample(dist.Normal(t, 1.0), scg.ScoreFunction(), rng=rng, name="z")
            - dist.Normal(X.mean(), 1.0).sample(rng)
        )
        ** 2
    )


def in_an_inner_trace(t, rng):
    inner = scg.trace(by_index, np.array(0.5), rng=rng)
    return np.sum(
        (
            scg.sample(dist.Normal(t, 1.0), scg.ScoreFunction(), rng=rng, name="z")
            - X.mean()
            + 0 * float(inner.cost.value)
        )
        ** 2
    )


class Holder:
    def __init__(self, rng):
        self.rng = rng

    def cost(self, t, rng):
        return self(t, rng)

    def __call__(self, t, rng):
        return np.sum(
            (scg.sample(dist.Normal(t, 1.0), scg.ScoreFunction(), rng=rng, name="z") - X[self.rng.integers(3)]) ** 2
        )


def by_numpys_global(t, rng):
    return np.sum(
        (scg.sample(dist.Normal(t, 1.0), scg.ScoreFunction(), rng=rng, name="z") - X[np.random.randint(3)]) ** 2
    )


def by_pythons_own(t, rng):
    return np.sum((scg.sample(dist.Normal(t, 1.0), scg.ScoreFunction(), rng=rng, name="z") - random.choice(X)) ** 2)


DRAWS_ITSELF = [
    by_index,
    by_noise_after,
    by_shuffle,
    by_distribution,
    in_an_inner_trace,
    Holder(RNG(3)),
    Holder(RNG(4)).cost,
    by_numpys_global,
    by_pythons_own,
]


@pytest.mark.slow
@pytest.mark.parametrize("cost", DRAWS_ITSELF, ids=lambda fn: getattr(fn, "__qualname__", "object"))
def test_numbers_that_a_function_draws_itself_are_no_constants_of_its_expectation(cost):
    """d/dt E(z - x_i)^2 = 2 (t - mean of x): the one index that was recorded is not averaged over by a replay."""
    t = np.array(0.3)
    graph = scg.trace(cost, t, rng=RNG(0)).bind(z=scg.Reparameterized())
    assert not graph.is_complete
    found = graph.gradients(rng=RNG(1), replicates=400)
    again = np.array([graph.gradients(rng=RNG(s)) for s in range(400)])
    elsewhere = graph.run(parameters=np.array(0.4)).gradients(rng=RNG(2), replicates=400)
    for e, at in ((found, 0.3), (again, 0.3), (elsewhere, 0.4)):
        assert abs(e.mean() - 2 * (at - X.mean())) < 6 * e.std() / np.sqrt(400)
    refused = [
        lambda: scg.exact.expectation(graph),
        lambda: scg.exact.gradient(cost, t),
        lambda: scg.exact.moments(graph),
        lambda: scg.exact.hessian(graph),
        lambda: scg.testing.judge(cost, t, rng=RNG(0)),
        lambda: scg.testing.assert_unbiased(graph, rng=RNG(0), reference="differences"),
        lambda: scg.testing.assert_bias(graph, rng=RNG(0)),
        lambda: scg.variance.compare(cost, {"as declared": {}}, args=(t,), rng=RNG(0)),
        lambda: graph.run(rng=RNG(0), replicates=3),
        lambda: graph.run(rng=RNG(0), values={"z": 0.5}),
    ]
    for refuse in refused:
        with pytest.raises(ScgValueError, match=r"takes numbers from a .* itself.*minibatch"):
            refuse()
    assert graph.run(rng=RNG(5), parameters=np.array(1.0)).parameters.value == 1.0


def test_the_generator_that_was_traced_with_may_be_given_again():
    rng = RNG(0)
    assert scg.trace(by_index, np.array(0.3), rng).gradients(rng=rng, replicates=3).shape == (3,)


def test_what_is_a_node_or_fixed_is_complete():
    def fixed(t, rng):
        own = np.random.default_rng(0).normal()  # the same in every run
        child = rng.spawn(1)[0]  # does not move its parent
        z = scg.sample(dist.Normal(t, 1.0), scg.ScoreFunction(baseline=scg.LeaveOneOut()), rng=child, shape=4)
        rows = scg.minibatch(3, 2, rng=rng).rows(X)
        inner = scg.grad(lambda s: np.sum(scg.sample(dist.Bernoulli(logits=s), scg.REBAR(), rng=rng) * s))(t)
        return np.sum((z - own) ** 2) + np.sum(rows * t) + inner

    assert scg.trace(fixed, np.array(0.3), rng=RNG(0)).is_complete


@pytest.mark.parametrize(
    "bits", [np.random.PCG64, np.random.MT19937, np.random.Philox, np.random.SFC64, np.random.PCG64DXSM]
)
def test_the_state_of_every_generator_of_numpy_is_looked_at(bits):
    rng = np.random.Generator(bits(0))
    assert scg.trace(model, THETA, rng=rng).is_complete
    assert not scg.trace(by_index, np.array(0.3), rng=rng).is_complete
    assert not scg.trace(
        lambda t, rng: (
            np.sum(scg.sample(dist.Normal(t, 1.0), scg.ScoreFunction(), rng=rng)) + 0 * rng.random(dtype=np.float32)
        ),
        np.array(0.3),
        rng=rng,
    ).is_complete


def test_a_given_reference_judges_a_function_that_draws_itself():
    """Fresh runs are right, so a bias against numbers from elsewhere is one."""
    t, right = np.array(0.3), 2 * (0.3 - X.mean())
    graph = scg.trace(by_index, t, rng=RNG(0)).bind(z=scg.Reparameterized())
    assert scg.testing.judge(graph, rng=RNG(1), reference=np.array(right), detect=2.0, alpha=1e-3, power=0.9)
    assert (
        scg.testing.judge(graph, rng=RNG(1), reference=np.array(right + 3), detect=2.0, alpha=1e-3, power=0.9).status
        == "biased"
    )


def test_a_generator_that_is_no_argument_cannot_be_given_anew():
    rng = RNG(0)

    def closed(t):
        return np.sum((scg.sample(dist.Normal(t, 1.0), scg.ScoreFunction(), rng=rng) - X[rng.integers(3)]) ** 2)

    with pytest.raises(ScgTypeError, match="let it take rng="):
        scg.trace(closed, np.array(0.3)).gradients(rng=RNG(1), replicates=2)


def test_a_function_that_runs_again_keeps_the_estimators_of_draws_without_a_name():
    def unnamed(t, rng):
        return np.sum((scg.sample(dist.Normal(t, 1.0), scg.ScoreFunction(), rng=rng) - X[rng.integers(3)]) ** 2)

    graph = scg.trace(unnamed, np.array(0.3), rng=RNG(0))
    spread = [g.gradients(rng=RNG(1), replicates=200).std() for g in (graph, graph.bind(normal=scg.Reparameterized()))]
    assert spread[1] < spread[0] / 2  # 2 sd(z - x_i) is 2.5, and the score function has 6.6


def test_a_graph_that_has_to_run_again_is_pickled_with_its_function():
    graph = pickle.loads(pickle.dumps(scg.trace(by_index, np.array(0.3), rng=RNG(0))))
    e = graph.gradients(rng=RNG(1), replicates=50)
    np.testing.assert_array_equal(
        e, scg.trace(by_index, np.array(0.3), rng=RNG(0)).gradients(rng=RNG(1), replicates=50)
    )
    with pytest.raises(ScgValueError, match="itself"):
        scg.exact.gradient(graph)
