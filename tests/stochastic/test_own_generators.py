"""An estimator that draws from a generator of its own, whose numbers all replicates would share, is found out."""

import numpy as np
import pytest

import scg
from scg import distributions as dist
from scg.errors import EstimatorError
from scg.extend import Estimator, noise_node

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
