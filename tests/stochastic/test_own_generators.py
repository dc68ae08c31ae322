"""An estimator that draws from a generator of its own, or takes the number that a node is in the recorded run, is found
out: all replicates would share it."""

import pickle

import numpy as np
import pytest

import scg
from scg import distributions as dist
from scg.errors import EstimatorError
from scg.extend import Estimator, first_order, noise_node, score

pytestmark = pytest.mark.fast

OWN = np.random.default_rng(5)


class Noisy(Estimator):
    """The difference of a coin's two costs, times noise of mean one."""

    requires = (dist.Bernoulli,)

    def noise(self, down):
        return 2 * noise_node(dist.Uniform(0.0, 1.0), down.rng, down.shape, down.node.dtype)

    def expand(self, down):
        f0, f1 = down.one_by_one(np.reshape([0.0, 1.0], (2,) + (1,) * down.node.ndim))
        p = down.distribution.p
        return np.sum((p - scg.stop_gradient(p)) * (f1 - f0) * self.noise(down))


class OfAModule(Noisy):
    def expand(self, down):
        f0, f1 = down.one_by_one(np.reshape([0.0, 1.0], (2,) + (1,) * down.node.ndim))
        p = down.distribution.p
        return np.sum((p - scg.stop_gradient(p)) * (f1 - f0) * 2 * OWN.random(down.shape))


class OfItself(Noisy):
    def __init__(self):
        self.generator = np.random.default_rng(3)

    def noise(self, down):
        return 2 * self.generator.random(down.shape)


def graph(estimator):
    def cost(theta, rng):
        return np.sum(scg.sample(dist.Bernoulli(logits=theta), estimator, rng=rng, name="b")) ** 2

    return scg.trace(cost, np.zeros(3), rng=np.random.default_rng(0))


ASKED = {
    "replicates": lambda g: g.gradients(rng=np.random.default_rng(0), replicates=3),
    "a verdict": lambda g: scg.testing.judge(g, rng=np.random.default_rng(0)),
    "a comparison": lambda g: scg.variance.compare(g, {"a row": {}}, replicates=100, rng=np.random.default_rng(0)),
}


@pytest.mark.parametrize("kind", [OfAModule, OfItself])
@pytest.mark.parametrize("what", ASKED)
def test_numbers_of_its_own_are_refused_with_the_tool_to_use(kind, what):
    with pytest.raises(EstimatorError, match=f"{kind.__name__} takes numbers.*down.noise"):
        ASKED[what](graph(kind()))


def test_numbers_by_the_tool_are_fresh_in_each_replicate():
    g = graph(Noisy())
    assert len(np.unique(ASKED["replicates"](g)[:, 0])) == 3
    assert scg.testing.judge(g, rng=np.random.default_rng(0), detect=0.5).status == "unbiased"


# numbers of the recorded run


class Read(Estimator):
    """The score function times F - b, with a b that is made of the sample itself; F, b or p are numbers."""

    requires = (dist.Bernoulli,)

    def __init__(self, what):
        self.what = what

    def expand(self, down):
        cost, level = down.now(), 0.3 * (down.node - scg.stop_gradient(down.distribution.p))
        if self.what == "cost":
            cost = getattr(cost, "value", cost)
        elif self.what == "sample":
            level = 0.3 * (down.node.value - scg.stop_gradient(down.distribution.p))
        elif self.what == "parameter":
            level = 0.3 * (down.node - down.distribution.p.value)
        elif self.what == "shape":
            cost = np.broadcast_to(cost, down.node.shape)
        return np.sum(first_order(score(down.node), cost - down.constant(level)))


@pytest.mark.parametrize("what", ["sample", "cost"])
@pytest.mark.parametrize("task", [*ASKED, "exact moments", "workers"])
def test_a_number_that_depends_on_samples_is_refused_where_others_are_drawn(what, task):
    """Single runs are as they are: there is one number for each."""
    tasks = {
        **ASKED,
        "exact moments": scg.exact.moments,
        "workers": lambda g: ASKED["replicates"](pickle.loads(pickle.dumps(g))),
    }
    recorded = graph(Read(what))
    np.testing.assert_array_equal(recorded.gradients(), graph(Read("nothing")).gradients())
    with pytest.raises(EstimatorError, match=r"node.value, at .*test_own_generators.py.*in expand.*down.constant"):
        tasks[task](recorded)


@pytest.mark.parametrize("what", ["nothing", "parameter", "shape"])
def test_other_numbers_are_taken(what):
    same, other = graph(Read(what)), graph(Read("nothing"))
    np.testing.assert_array_equal(ASKED["replicates"](same), ASKED["replicates"](other))
    np.testing.assert_array_equal(scg.exact.moments(same).mean, scg.exact.moments(other).mean)


class Chosen(Estimator):
    """The score function, its cost doubled by an ``if`` on the sample."""

    def expand(self, down):
        doubled = 2 if np.sum(down.node) > 1 else 1
        return np.sum(first_order(score(down.node), doubled * down.now()))


def test_an_if_in_a_formula_is_looked_at_in_each_replicate():
    """E[(1 + [n > 1]) n^2 (b - p)] for n = sum(b) of 3 coins of 1/2, by all eight of them."""
    b = np.array(list(np.ndindex(2, 2, 2)))
    n = b.sum(axis=1)
    expected = np.mean((1 + (n > 1)) * n**2 * (b - 0.5).T, axis=1)
    spread = np.std((1 + (n > 1)) * n**2 * (b - 0.5).T, axis=1)
    found = scg.variance.compare(graph(Chosen()), {"a": {}}, replicates=400, rng=np.random.default_rng(0), budget=0)
    assert np.all(np.abs(found["a"].mean - expected) < 5.3 * spread / 20)  # two tails of 1e-7 each
