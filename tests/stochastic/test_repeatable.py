"""Numbers that a cost, an estimator or a sampler takes from elsewhere than the generator that it is given."""

import copy
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import scipy.stats

import scg
from scg import distributions as dist
from scg.distributions.constraints import unit_interval
from scg.errors import EstimatorError, ScgValueError
from scg.extend import Distribution, Estimator, FixedSupport, score

HELD = np.random.default_rng(5)

# another number at every call, and where it comes from
SOURCES = {
    "held": lambda size=None: HELD.random(size),
    "global": lambda size=None: np.random.random(size),
    "SciPy": lambda size=None: scipy.stats.uniform.rvs(size=size),
    "made": lambda size=None: np.random.default_rng().random(size),
    "hidden": lambda size=None: getattr(np.random, "default" + "_rng")().random(size),
}
T = np.array(0.3)


def rng(seed=0):
    return np.random.default_rng(seed)


@dataclass(frozen=True, eq=False, repr=False)
class Coin(Distribution, FixedSupport):
    p: np.ndarray
    source = staticmethod(lambda rng, size: rng.random(size))
    constraints: ClassVar = {"p": unit_interval}
    support = unit_interval

    def sample(self, rng, shape=()):
        return (self.source(rng, self.full_shape(shape)) < self.detached().p).astype(self.dtype)

    def log_prob(self, z):
        return z * np.log(self.p) + (1 - z) * np.log1p(-self.p)


class Noisy(Estimator):
    """The score function with a baseline of noise."""

    unbiased = True
    source = staticmethod(lambda down: down.noise(dist.Uniform(np.zeros(down.shape), 1.0)))

    def expand(self, down):
        if not down.influences:
            return None
        return np.sum(score(down.node) * down.constant(down.now() + self.source(down)))


def coin_of(source):
    return type("Coin", (Coin,), {"source": staticmethod(lambda rng, size: source(size))})


def noisy_of(source):
    return type("Noisy", (Noisy,), {"source": staticmethod(lambda down: source())})


def cost_of(coin=dist.Bernoulli, estimator=scg.ScoreFunction, own=lambda: 0.4):
    def cost(p, rng):
        return (scg.sample(coin(p), estimator(), rng=rng, name="b") - own()) ** 2

    return cost


CULPRITS = {
    "cost": lambda source: cost_of(own=source),
    "estimator": lambda source: cost_of(estimator=noisy_of(source)),
    "sampler": lambda source: cost_of(coin=coin_of(source)),
}
ASKED = {
    "replicates": lambda cost: scg.trace(cost, T, rng=rng()).gradients(rng=rng(1), replicates=10),
    "judge": lambda cost: scg.testing.judge(cost, T, rng=rng()),
    "compare": lambda cost: scg.variance.compare(cost, {"a": {}}, args=(T,), replicates=100, rng=rng()),
}


@pytest.mark.fast
@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("culprit", CULPRITS)
@pytest.mark.parametrize("source", SOURCES)
def test_numbers_from_elsewhere_are_found_out(source, culprit, asked):
    cost = CULPRITS[culprit](SOURCES[source])
    if (culprit, asked) == ("cost", "replicates") and source in ("held", "global", "SciPy"):
        found = ASKED[asked](cost)  # the function runs again for each gradient, so that each has numbers of its own
        assert len(set(found)) > 2
        return
    with pytest.raises((ScgValueError, EstimatorError)) as caught:
        ASKED[asked](cost)
    wanted = {"cost": "scg.sample", "estimator": "down.noise", "sampler": "sample.rng, shape."}[culprit]
    caught.match(wanted)
    if culprit != "cost":
        caught.match("^b")


@pytest.mark.parametrize("source", SOURCES)
def test_exact_results_are_of_a_function_of_its_generator(source):
    for culprit in (CULPRITS["cost"], CULPRITS["estimator"]):  # samplers are not asked there
        with pytest.raises((ScgValueError, EstimatorError), match="takes? numbers|not a function of the generator"):
            scg.exact.moments(culprit(SOURCES[source]), T, rng=rng())


@pytest.mark.fast
def test_what_draws_as_it_should_is_taken():
    mean = 0.2  # d/dp E[(b - .4)^2] = .36 - .16
    for cost in (cost_of(), cost_of(coin=Coin), cost_of(estimator=Noisy)):
        g = scg.trace(cost, T, rng=rng()).gradients(rng=rng(1), replicates=20_000)
        assert abs(np.mean(g) - mean) < 5 * np.std(g) / np.sqrt(g.size)


@pytest.mark.fast
def test_a_generator_that_the_function_holds_is_as_good_as_one_that_it_is_given_and_is_left_as_it_was():
    own = rng(3)
    graph = scg.trace(lambda p: cost_of()(p, own), T)
    before = own.bit_generator.state
    assert scg.exact.gradient(graph) == pytest.approx(0.2)
    assert scg.testing.judge(graph, rng=rng()).status == "unbiased"
    assert graph.gradients(rng=rng(1), replicates=10).shape == (10,)
    assert own.bit_generator.state == before


# numbers of the generator that is the estimator's, beside those by ``down.noise``
PAST = {
    "itself": lambda down: down.rng.random(down.shape),
    "a distribution": lambda down: dist.Uniform(0.0, 1.0).sample(down.rng, down.shape),
    "a copy": lambda down: copy.deepcopy(down.rng).random(down.shape),
    "a child": lambda down: down.rng.spawn(1)[0].random(down.shape),
    "a seed": lambda down: rng(down.rng.integers(2**31)).random(down.shape),
    "its state": lambda down: rng(down.rng.bit_generator.state["state"]["state"]).random(down.shape),
}


@pytest.mark.fast
@pytest.mark.parametrize("asked", [*ASKED, "exact"])
@pytest.mark.parametrize("source", PAST)
def test_numbers_that_an_estimator_takes_past_its_noise_are_found_out(source, asked):
    """All replicates would share them, and their variance would be without that of the noise."""
    noisy = type("Noisy", (Noisy,), {"source": staticmethod(PAST[source])})
    with pytest.raises(EstimatorError, match=r"^b \(Noisy\).*test_repeatable.py.*down.noise"):
        {**ASKED, "exact": lambda cost: scg.exact.moments(cost, T)}[asked](cost_of(estimator=noisy))


@pytest.mark.fast
@pytest.mark.parametrize("branch", [False, True])
def test_an_estimator_from_outside_goes_with_one_that_learns(branch):
    baseline = scg.MovingAverage()

    def cost(p, rng):
        z = scg.sample(dist.Normal(p, 1.0), scg.ScoreFunction(baseline=baseline), rng=rng)
        b = scg.sample(dist.Bernoulli(p), Noisy(), rng=rng, name="b")
        if branch and b > 0.5:
            return z**2
        return b * z**2

    g = ASKED["replicates"](cost)
    assert len(np.unique(g)) == 10


def test_a_sampler_that_never_uses_its_generator_is_found_out():
    """Its samples vary along their axes, and are the same at every call."""
    with pytest.raises(ScgValueError, match="they vary, and it was not used"):
        ASKED["replicates"](CULPRITS["sampler"](lambda size=None: rng(7).random(size)))
    point = coin_of(lambda size=None: np.zeros(size))  # always 1: a point needs no numbers
    assert np.all(np.isfinite(ASKED["replicates"](cost_of(coin=point))))


def test_a_sampler_inside_another_distribution_is_found_out():
    def cost(p, rng):
        coin = coin_of(SOURCES["made"])(p)
        return scg.sample(dist.Transformed(coin, dist.Affine(0.0, 2.0)), scg.ScoreFunction(), rng=rng)

    with pytest.raises(ScgValueError, match="not a function of the generator"):
        ASKED["replicates"](cost)


def test_an_estimator_that_learns_may_differ_from_run_to_run():
    class Learning(Estimator):
        unbiased = True

        def __init__(self):
            self.mean = 0.0

        def expand(self, down):
            if not down.influences:
                return None
            self.mean = 0.9 * self.mean + 0.1 * float(np.sum(getattr(down.now(), "raw", down.now())))
            return np.sum(score(down.node) * down.constant(down.now() - self.mean))

    shared = Learning()
    g = ASKED["replicates"](cost_of(estimator=lambda: shared))
    assert np.all(np.isfinite(g)) and shared.mean


@pytest.mark.parametrize("asked", [*ASKED, "exact"])
def test_a_cost_whose_state_changes_is_refused_with_both_values(asked):
    rows = iter(range(100))
    with pytest.raises(ScgValueError, match="two runs from equal ones gave costs"):
        {**ASKED, "exact": lambda cost: scg.exact.gradient(cost, T)}[asked](cost_of(own=lambda: next(rows)))


@pytest.mark.parametrize("asked", [*ASKED, "exact"])
def test_numbers_of_a_spawned_generator_are_found_out(asked):
    """The generator is as it was, and only its seed knows of the child: replicates would share the child's numbers."""

    def cost(p, rng):
        return (scg.sample(dist.Bernoulli(p), scg.ScoreFunction(), rng=rng, name="b") - rng.spawn(1)[0].random()) ** 2

    with pytest.raises(ScgValueError, match="rng.spawn"):
        {**ASKED, "exact": lambda cost: scg.exact.gradient(cost, T)}[asked](cost)
