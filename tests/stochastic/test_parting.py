"""Replicates that part at ``if``s on samples: each is an independent run of the function, also where an estimator looks
at the cost at other values, at which an ``if`` comes out otherwise."""

import functools

import numpy as np
import pytest
from scipy.special import ndtri

import scg
from scg import distributions as dist
from scg.stochastic.parting import parted

THETA = np.array([0.3, -0.4, 0.6])
ESTIMATORS = {
    "ARM": scg.ARM,
    "DisARM": scg.DisARM,
    "Enumerate": scg.Enumerate,
    "of which no sample is coupled": lambda: scg.Enumerate(coupled=False),
    "UnorderedSet": lambda: scg.UnorderedSet(2),
    "MeasureValued": scg.MeasureValued,
    "StochasticDerivative": scg.StochasticDerivative,
    "of one element": lambda: scg.StochasticDerivative(prune=True),
    "of one sample": lambda: scg.StochasticDerivative(prune="program"),
    "CoupledPairs": lambda: scg.CoupledPairs(samples=2),
    "several samples": lambda: scg.ScoreFunction(scg.LeaveOneOut(), samples=2),
}
EACH_ALONE = "of which no sample is coupled", "of one sample"  # where other replicates cannot go on by a run


def coin(logit, estimator, rng):
    return scg.sample(dist.Bernoulli(logits=logit), estimator(), rng=rng)


def in_a_loop(t, rng, estimator):
    n = 0
    while n < 4 and coin(t[0], estimator, rng) > 0:
        n += 1
    return n * t[1] + n**2


def in_a_chain(t, rng, estimator):
    """Each sample depends on those before it, and is made again with them."""
    a = coin(t[0], estimator, rng)
    b = coin(t[1] + 2 * a, estimator, rng)
    c = coin(t[2] - b + a, estimator, rng)
    if b + c > 1:
        return t[0] * 5 + a
    y = coin(t[2] + c, estimator, rng)
    return 3 * y * t[1] + c * a if y > 0 else t[2] - a


def of_other_parameters(t, rng, estimator):
    """The second and the third sample of one way have other parameters than those of the other, and some are equal."""
    if coin(t[0], estimator, rng) > 0:
        x, y = coin(t[1], estimator, rng), coin(t[2], estimator, rng)
        return 3 * x + x * y * t[0] + y if x > 0 else y * 2
    x = coin(2 * t[2], estimator, rng)
    y = coin(t[1] + x, estimator, rng)
    return x - 4 * y + t[1] if y > 0 else 2.0 * x


def of_other_kinds(t, rng, estimator):
    """From noise, and from samples of other estimators."""
    a = coin(t[0], estimator, rng)
    z = scg.sample(dist.Normal(t[1] + 2 * a, 1.0), scg.Reparameterized(), rng=rng)
    n = scg.sample(dist.Poisson(np.exp(0.3 * z)), scg.ScoreFunction(), rng=rng)
    if n > 1:
        return np.tanh(z) * 2 + t[2] * np.minimum(n, 5)
    d = coin(t[2] + z, estimator, rng)
    return d * t[1] + n if d > 0 else a * z


PROGRAMS = [in_a_loop, in_a_chain, of_other_parameters, of_other_kinds]


def seeded(seed):
    return np.random.default_rng(seed)


@functools.cache
def truth(program):
    return scg.exact.gradient(scg.trace(program, THETA, seeded(0), scg.ScoreFunction))


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_replicate_has_the_gradient_of_a_run_with_its_random_numbers(program, name, monkeypatch):
    compared = []

    def checked(group, recording, rng, record, single):
        for some, gradients in parted(group, recording, rng, record, single):
            for k in range(min(2, len(some.rows)) if len(some.rows) > 1 else 0):
                np.testing.assert_allclose([g[k] for g in gradients], single(some.of(k)), rtol=1e-9, atol=1e-10)
                compared.append(k)
            yield some, gradients

    monkeypatch.setattr("scg.stochastic.recorded.parted", checked)
    for seed in range(2):
        graph = scg.trace(program, THETA, seeded(seed), ESTIMATORS[name])
        graph.gradients(rng=seeded(seed + 3), replicates=60)
    assert compared or name in EACH_ALONE


@pytest.mark.parametrize("name", ["DisARM", "MeasureValued", "StochasticDerivative", "several samples"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_replicates_have_the_mean_of_all_ways(program, name):
    """What was drawn for a replicate before it left a way stays: drawn anew, rare ways would come too seldom. By
    z-scores, of which all here exceed the bound once in 10^6 tests."""
    n, bound = 10_000, -ndtri(1e-6 / 200)
    for seed in (0, 3):  # two recorded ways
        graph = scg.trace(program, THETA, seeded(seed), ESTIMATORS[name])
        found = graph.gradients(rng=seeded(seed + 1), replicates=n)
        off = np.abs(np.mean(found, axis=0) - truth(program))
        assert np.all(off <= bound * np.std(found, axis=0) / np.sqrt(n) + 1e-9)
