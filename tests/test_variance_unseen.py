"""What no replicate showed is not there to be called zero, exact or biased; and intervals of variances hold whatever centre they are taken from."""

import math

import numpy as np
import pytest

import scg
from scg import distributions as dist
from scg import variance
from scg.variance.comparing import BUDGET

LOO = lambda n=2: scg.ScoreFunction(samples=n, baseline=scg.LeaveOneOut())


def rng(seed=0):
    return np.random.default_rng(seed)


def coins(theta, rng):
    b = scg.sample(dist.Bernoulli(logits=theta), scg.ScoreFunction(), rng=rng, name="b")
    return np.mean((b - 0.45) ** 2)


def compare(model, rows, *args, **options):
    return variance.compare(model, rows, args=args, rng=rng(), **{"replicates": 2000, "_timed": 0.0, **options})


# what no draw showed


def rare(theta, rng, threshold=3.5):
    """A step that is rarely met, and counts for much."""
    z = scg.sample(dist.Normal(theta, 1.0), scg.ScoreFunction(), rng=rng, name="z")
    return np.sum(np.where(z > threshold, 1000.0, 0.0))


@pytest.mark.parametrize("budget", [0, BUDGET])
def test_a_variance_that_was_not_seen_is_neither_zero_nor_precise_nor_a_bias(budget):
    found = compare(rare, {"r": {}, "other": {}}, np.array([0.0]), kwargs={"threshold": 5.5}, replicates=10_000, precision=0.01, budget=budget)
    assert found.replicates == 10_000 and not found.precise
    for row in found.rows.values():
        e = row.total
        assert (e.variance, e.low, e.high, e.reliable, e.effective) == (0, 0, math.inf, False, 0) and row.entries["the parameter"].high == math.inf
        assert all(math.isnan(x) for x in (e.bias_p, e.snr, e.work_seconds, e.ratio_evaluations))
    text = found.table(1000)
    assert "?!" in text and "none was seen" in text and "*" not in text and "0  exact" not in text


def test_it_is_so_for_every_seed():
    for seed in range(20):
        found = variance.compare(rare, {"r": {}}, args=(np.zeros(1),), replicates=8192, rng=rng(seed), precision=0.01, _timed=0.0)
        assert found.replicates == 8192 and not found.precise and not found["r"].total.reliable and "*" not in found.table(100)


def test_a_coordinate_that_was_not_seen_to_vary_is_not_biased_beside_one_that_was():
    model = lambda theta, rng: rare(theta[:1], rng, 5.5) + coins(theta[1:], rng)
    found = compare(model, {"r": {}}, np.zeros(2))["r"]
    assert found.total.bias > 0 and found.total.bias_p > 1e-4 and found.total.variance > 0


def test_what_depends_on_no_draw_is_exact_without_exact_moments():
    model = lambda p, rng: coins(p["b"], rng) + np.sum(p["w"] ** 2)
    entry = compare(model, {"r": {}}, {"b": np.zeros(2), "w": np.ones(2)}, budget=0)["r"].entries["['w']"]
    assert entry.reliable and entry.high == 0 == entry.error
    found = compare(coins, {"DisARM": {"b": scg.DisARM()}}, np.zeros(3), budget=0)["DisARM"].total
    assert not found.reliable and found.high == math.inf  # without exact moments nothing says so


def test_a_difference_in_common_draws_that_does_not_vary_is_a_bias_where_the_gradients_vary():
    more = lambda theta, rng: coins(theta, rng) + np.sum(theta)
    found = compare(coins, {"r": {}, "more": more}, np.full(2, 0.3), budget=0)
    assert found["more"].total.bias_p < 1e-6 and found["more"].total.reliable


def test_a_branch_that_was_not_met_may_vary():
    def branch(theta, rng):
        z = scg.sample(dist.Normal(0.0, 1.0), scg.ScoreFunction(), rng=rng, name="z")
        return np.sum(theta) * 1000.0 if z > 5.5 else np.sum(theta) * 1.0

    assert not compare(branch, {"r": {}}, np.zeros(1), budget=0)["r"].total.reliable


def test_a_search_keeps_rules_that_have_no_variance():
    rules = [scg.ScoreFunction(), scg.ARM(), LOO(2), LOO(3), scg.DisARM(), scg.REBAR(), scg.MeasureValued()]
    found = variance.search(coins, {"b": rules}, args=(np.zeros(2),), rng=rng(), work="evaluations", replicates=512)
    assert isinstance(found.binding["b"], scg.DisARM)
