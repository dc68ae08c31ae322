"""assert_unbiased and assert_bias: errors of both kinds on synthetic streams, correct estimators over many seeds,
saboteurs, and what no variance allows."""

import copy
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy.stats import binom

import scg
from scg import distributions as dist
from scg.errors import ScgTypeError, ScgValueError
from scg.stochastic.estimator import Estimator
from scg.stochastic.formulas import first_order, score
from scg.testing import assert_bias, assert_unbiased, confidence, judge
from scg.testing.confidence import Asymptotic, Bernstein, horizon, met, mixture, threshold, tightest, widened
from scg.testing.coupling import Coupled, comes_apart
from scg.testing.deciding import Demand, Source, decide
from scg.testing.differences import Differences
from scg.testing.streams import Streams
from scg.testing.tails import Tail
from tests.support.drawn import covering, every, first, share

RUNS = 2000
DISTRIBUTIONS = {  # of mean 0
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "uniform": lambda rng, shape: rng.random(shape) - 0.5,
    "exponential": lambda rng, shape: rng.exponential(size=shape) - 1,
    "its reflection": lambda rng, shape: 1 - rng.exponential(size=shape),
    "coin": lambda rng, shape: (rng.random(shape) < 0.1) - 0.1,
    "Student, 5": lambda rng, shape: rng.standard_t(5, shape),
}


class Times(Estimator):
    """The score function times a number: 1 is right."""

    def __init__(self, factor):
        self.factor = factor

    def expand(self, down):
        return np.sum(first_order(score(down.node), self.factor * down.now())) if down.influences else None


class OverN(scg.Baseline):
    """The mean of all n costs, the draw's own included, as its baseline: the leave-one-out estimate divided by n where
    n - 1 is right."""

    def value(self, down):
        return np.mean(down.now(), axis=0, keepdims=True)

    def of_samples(self, f, draws, down):
        return np.mean(f, axis=0, keepdims=True)


def coins(t, rng, estimator=None):
    b = scg.sample(dist.Bernoulli(logits=t), estimator or scg.ScoreFunction(), rng=rng, name="z")
    return np.mean((b - 0.2) ** 2 * np.arange(1.0, 1 + b.size)) + b[0] * t[1]


def normals(t, rng, estimator=None):
    z = scg.sample(dist.Normal(t, 1.0), estimator or scg.ScoreFunction(), rng=rng, name="z")
    return np.sum((z + 1) ** 2)


THETA = np.array([0.4, -0.6])
CORRECT = [
    (coins, scg.ScoreFunction()),
    (coins, scg.ScoreFunction(samples=3, baseline=scg.LeaveOneOut())),
    (coins, scg.DisARM()),
    (coins, scg.REBAR()),
    (normals, scg.ScoreFunction()),
    (normals, scg.ScoreFunction(samples=2, baseline=scg.LeaveOneOut())),
    (normals, scg.Reparameterized()),
    (normals, scg.MeasureValued()),
]
WRONG = [Times(-1), Times(0), Times(2), scg.ScoreFunction(samples=3, baseline=OverN())]
QUICK = {"detect": 0.5, "power": 0.99}


def graph_of(cost, estimator, theta=THETA):
    return scg.trace(cost, theta, rng=np.random.default_rng(0), estimator=estimator)


# the confidence sequences


def most_seen(alpha, runs=RUNS):
    """The number of false alarms that at rate alpha is exceeded once in a million."""
    return binom.isf(1e-6, runs, alpha)


def peeked(sequence, draw, steps, first=1, block=1, excluded=None):
    """Which streams' intervals ever exclude 0, where one looks after each block from ``first`` on."""
    ever = np.zeros(RUNS, bool)
    for _ in range(steps):
        sequence.update(draw(block))
        if sequence.t >= first:
            with np.errstate(all="ignore"):
                ever |= np.abs(sequence.centre) > (sequence.margin if excluded is None else excluded(sequence))
    return ever


@pytest.mark.parametrize("distribution", every(2, DISTRIBUTIONS))
def test_looking_after_every_draw_does_not_raise_the_false_alarms(distribution):
    rng = np.random.default_rng(1)
    ever = peeked(
        Asymptotic(0.05, 300, np.zeros(RUNS)), lambda n: DISTRIBUTIONS[distribution](rng, (n, RUNS)), 1000, first=64
    )
    assert 0 < ever.sum() <= most_seen(0.05)


@pytest.mark.long
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_looking_after_every_draw_does_not_raise_the_false_alarms_of_many_streams(distribution):
    """20,000 streams without bias, at level 0.01, looked at after each of 2,000 draws."""
    rng, ever, runs = np.random.default_rng(3), 0, 20_000
    for _ in range(runs // RUNS):
        ever += peeked(
            Asymptotic(0.01, 600, np.zeros(RUNS)),
            lambda n: DISTRIBUTIONS[distribution](rng, (n, RUNS)),
            2000,
            first=128,
        ).sum()
    assert 0 < ever <= most_seen(0.01, runs)


def test_a_fixed_interval_that_is_peeked_at_has_many_false_alarms():
    """The check above can fail."""
    rng = np.random.default_rng(1)
    sequence = Asymptotic(0.05, 300, np.zeros(RUNS))
    ever = peeked(
        sequence, lambda n: rng.standard_normal((n, RUNS)), 1000, first=64, excluded=lambda s: 1.96 * s.spread
    )
    assert ever.sum() > 3 * most_seen(0.05)


@pytest.mark.parametrize("chance", [0.5, 0.01, 0.001])
def test_bounded_draws_need_no_asymptotics(chance):
    """From the first draw on, and however rare what matters is; an asymptotic interval fails there."""
    rng = np.random.default_rng(2)
    ever = peeked(
        Bernstein(0.05, 500, np.full(RUNS, -chance), np.full(RUNS, 1 - chance)),
        lambda n: (rng.random((n, RUNS)) < chance) - chance,
        600,
    )
    assert ever.sum() <= most_seen(0.05)


def test_bounded_draws_with_a_bias_are_found():
    rng = np.random.default_rng(2)
    sequence = Bernstein(0.05, 2000, np.full(RUNS, -0.5), np.full(RUNS, 0.5))
    for _ in range(4):
        sequence.update(np.clip(rng.normal(0.02, 0.1, (500, RUNS)), -0.5, 0.5))
    assert np.all(sequence.centre - sequence.margin > 0)  # 0.02 is 9 standard errors
    assert np.sum(np.abs(sequence.centre - 0.02) > sequence.margin) <= most_seen(0.05)
    np.testing.assert_allclose(np.std(sequence.centre), np.mean(sequence.spread), rtol=0.1)


def test_bets_are_the_same_in_one_block_as_draw_by_draw():
    y = np.random.default_rng(3).random((50, 4))
    whole, parts = (Bernstein(0.01, 30, np.zeros(4), np.ones(4)) for _ in range(2))
    whole.update(y)
    for row in y:
        parts.update(row[None])
    np.testing.assert_allclose(
        [parts.centre, parts.margin, parts.spread], [whole.centre, whole.margin, whole.spread], rtol=1e-12
    )
    total, squares, won, cost, bets = 0.5, 0.25, 0.0, 0.0, 0.0
    for i, x in enumerate(y[:, 0], 1):  # the formula, as it is written
        bet = min(0.5, np.sqrt(2 * np.log(200) / (squares / i * min(i * np.log(1 + i), 30))))
        won, cost, bets = won + bet * x, cost + (x - total / i) ** 2 * (-np.log(1 - bet) - bet), bets + bet
        total += x
        squares += (x - total / (i + 1)) ** 2
    np.testing.assert_allclose(
        [whole.centre[0], whole.margin[0]], [won / bets, (np.log(200) + cost) / bets], rtol=1e-12
    )


@pytest.mark.parametrize("alpha", [0.05, 1e-9, 1e-15])
def test_the_mixture_is_tightest_where_it_is_said_to_be(alpha):
    x = tightest(alpha)
    at = [mixture(1000, alpha, x / 1000 * factor) for factor in (0.9, 1, 1.1)]
    assert at[1] == min(at)
    np.testing.assert_allclose(at[1] ** 2, 1 + x, rtol=1e-12)
    for t in (4096, 10**6):
        np.testing.assert_allclose(threshold(t, alpha, 10**6) ** 2, 1 + tightest(alpha / 2), rtol=1e-12)


def test_a_threshold_widened_for_skewness():
    z, t = 5.0, 4000
    for skewness in (0.0, 0.3, -2.0):
        w = widened(z, skewness, t)
        np.testing.assert_allclose(w**2 / 2 - w**3 * abs(skewness) / (3 * np.sqrt(t)), z**2 / 2, rtol=1e-9)
        assert z * (1 - 1e-12) <= w < 2 * z
    assert np.isinf(widened(z, 8.0, t))  # 3 z^2 skewness^2 > t


def test_moments_are_the_central_moments():
    x = np.random.default_rng(4).gamma(2.0, size=(3000, 3))
    sequence = Asymptotic(0.05, 100, x[0])
    for part in np.split(x, [1, 700]):
        sequence.update(part)
    np.testing.assert_allclose(
        sequence.central(), [x.mean(axis=0), *[((x - x.mean(axis=0)) ** k).mean(axis=0) for k in (2, 3, 4)]], rtol=1e-10
    )


def decided(draw, scale, **budget):
    return decide(Source(lambda n: (draw(n), None), scale), Demand(**budget))


def verdicts(draw, runs, scale=0.0, **budget):
    return [
        decided(lambda n: draw(rng, (n, 1)), [scale], **budget).status
        for rng in map(np.random.default_rng, range(runs))
    ]


BUDGET = {"alpha": 0.01, "detect": 0.4, "power": 0.9, "most": 40_000}


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_a_bias_of_the_detectable_size_is_found_with_the_power(distribution):
    sd = np.std(DISTRIBUTIONS[distribution](np.random.default_rng(9), 10**6))
    found = verdicts(lambda rng, shape: DISTRIBUTIONS[distribution](rng, shape) + 0.1 * sd, 200, **BUDGET)
    assert found.count("biased") >= binom.isf(1 - 1e-6, 200, 0.9)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_no_bias_is_called_unbiased(distribution):
    found = verdicts(DISTRIBUTIONS[distribution], 200, **BUDGET)
    assert found.count("biased") <= most_seen(0.01, 200)
    assert found.count("unbiased") == 200 - found.count("biased")


def test_many_streams_share_the_false_alarms():
    rng = np.random.default_rng(6)
    found = [
        decided(lambda n: rng.standard_normal((n, 200)), np.zeros(200), **{**BUDGET, "alpha": 0.05}).status
        for _ in range(60)
    ]
    assert found.count("biased") <= most_seen(0.05, 60)


def test_the_interval_is_where_the_self_normalized_sum_meets_the_threshold():
    """|S| = w V at its ends, S and V^2 the sums of x - end and of its square; for symmetric draws no skewness is
    seen."""
    x = np.random.default_rng(7).standard_normal(500)
    x = np.concatenate([x, -x])[:, None] + 0.3
    sequence = Asymptotic(0.01, 2000, np.zeros(1))
    sequence.update(x)
    for end in (sequence.centre + sequence.margin, sequence.centre - sequence.margin):
        np.testing.assert_allclose(
            abs(np.sum(x - end)) / np.sqrt(np.sum((x - end) ** 2)), threshold(1000, 0.01, 2000), rtol=1e-9
        )


def test_half_the_power_needs_fewer_draws_and_less_bias_more():
    assert horizon(1e-9, 0.1, 0.5) < horizon(1e-9, 0.1, 0.99) == pytest.approx(horizon(1e-9, 0.05, 0.99) / 4, abs=1)


def test_a_large_bias_takes_as_many_samples_as_meet_what_is_not_rare():
    """Not those that would find a small one; and the same, from bounds, at once."""
    draw = lambda n: np.clip(np.random.default_rng(n).standard_normal((n, 1)) + 3, -9, 9)
    demand = Demand(alpha=1e-9, detect=0.01, power=0.999, most=10**8)
    found = decide(Source(lambda n: (draw(n), None), [0.0]), demand)
    bounded = decide(Source(lambda n: (draw(n), None), [0.0], bounds=(np.full(1, -9.0), np.full(1, 9.0))), demand)
    assert found.status == bounded.status == "biased"
    assert found.draws == met(1e-9, confidence.RARE) and bounded.draws < 2000


@pytest.mark.parametrize("alpha", [0.3, 1e-3, 1e-9])
@pytest.mark.parametrize("p", [confidence.RARE, confidence.FREQUENT])
def test_enough_samples_miss_what_is_not_rare_with_no_more_than_the_level(alpha, p):
    assert (1 - p) ** met(alpha, p) <= alpha < (1 - p) ** (met(alpha, p) - 1)


RARELY = {  # beside noise of a thousandth, of mean 0
    "one": lambda rng, n, p: (rng.random((n, 1)) < p) - p,
    "far": lambda rng, n, p: 1e5 * ((rng.random((n, 1)) < p) - p),
    "of either sign": lambda rng, n, p: (rng.random((n, 1)) < p) - 2.0 * (rng.random((n, 1)) < p) + p,
    "of all sizes": lambda rng, n, p: (rng.random((n, 1)) < p) * rng.exponential(size=(n, 1)) - p,
    "both of two": lambda rng, n, p: np.all(rng.random((n, 1, 2)) < p**0.5, axis=-1) - p,
}


@pytest.mark.fast
@pytest.mark.parametrize("name", RARELY)
@pytest.mark.parametrize("p", [3e-3, 6e-4])
def test_what_is_rare_but_not_too_rare_makes_no_bias(name, p):
    """512 samples, after which the noise alone would do, have none with probability .21 and .74; 41,437 have
    one but for probability 2e-11, and then the skewness tells."""
    for seed in range(20):
        rng = np.random.default_rng([seed, int(1 / p)])
        draw = lambda n, rng=rng: 1e-3 * rng.standard_normal((n, 1)) + RARELY[name](rng, n, p)
        assert decided(draw, [0.0], **{**BUDGET, "alpha": 1e-9, "most": 2**17}).status != "biased"


def test_too_few_samples_to_meet_what_is_rare_are_inconclusive_and_the_verdict_says_how_many_are_enough():
    graph, level = graph_of(normals, Times(-1)), 1e-9 / 11  # of two coordinates and nine projections
    enough, few = met(level, confidence.RARE), met(level, confidence.FREQUENT)
    for most, status in ((few - 1, "inconclusive"), (few, "biased"), (2**18, "biased")):
        verdict = judge(graph, rng=np.random.default_rng(0), reference="exact", max_replicates=most)
        assert verdict.status == status and verdict.draws == min(most, enough)
        assert verdict.worst_interval[1] < 0 or verdict.worst_interval[0] > 0
        assert (f"raise max_replicates to {enough}" in verdict.reason) == (status == "inconclusive")


@pytest.mark.parametrize("index", [0.8, 1.0, 1.5, 1.9, 2.0])
def test_an_infinite_variance_never_passes(index):
    """Pareto tails of index 2 and below, to both sides."""
    heavy = lambda rng, shape: rng.choice([-1, 1], shape) * (1 + rng.pareto(index, shape))
    assert set(verdicts(heavy, 30, **BUDGET)) == {"inconclusive"}


@pytest.mark.parametrize("index", [1.0, 2.0, 4.0])
def test_the_tail_index_is_that_of_the_tail(index):
    rng = np.random.default_rng(5)
    tail = Tail(np.zeros(50))
    for _ in range(10):
        tail.update(1 + rng.pareto(index, (10_000, 50)))
    found, k = tail.index()
    assert np.all(k == 500)
    np.testing.assert_allclose(np.mean(found), index, rtol=5 / np.sqrt(400 * 50))
    np.testing.assert_allclose(np.std(found), index / np.sqrt(400), rtol=0.5)


def test_what_never_varies_is_not_believed_at_once():
    """No draw of a thousand showed the rare one that makes the mean right."""
    rare = lambda rng, shape: 1e5 * (rng.random(shape) < 1e-5) - 1.0
    drawn = []
    counted = lambda n: drawn.append(n) or rare(np.random.default_rng(sum(drawn)), (n, 1))
    decided(counted, [0.0], alpha=1e-9, detect=0.05, power=0.999, most=10**6)
    assert sum(drawn) >= 2**16


def test_what_never_differs_is_believed_at_once_where_it_is_a_difference_of_what_varies():
    """A pathwise gradient and its differences with common random numbers; not where no sample has moved either."""
    drawn = lambda varied: decide(
        Source(lambda n: (np.zeros((n, 1)), varied * np.random.default_rng(n).standard_normal((n, 1))), [1.0]),
        Demand(alpha=1e-9, detect=0.5, power=0.99, most=2**17),
    )
    assert drawn(1.0).status == drawn(0.0).status == "unbiased"
    assert drawn(1.0).draws == 512 and drawn(0.0).draws > horizon(1e-9, 0.5, 0.99)


def test_a_draw_that_is_not_finite_is_inconclusive():
    found = decided(lambda n: np.full((n, 2), [0.0, np.nan]), [1.0, 1.0], **BUDGET)
    assert found.status == "inconclusive" and "not finite" in found.reason


# graphs


@pytest.mark.parametrize("cost, estimator", CORRECT)
def test_correct_estimators_are_unbiased_exactly(cost, estimator):
    verdict = assert_unbiased(graph_of(cost, estimator), rng=np.random.default_rng(0))
    assert verdict.method == "exact" and verdict.draws == 0 and verdict
    assert repr(verdict).startswith("<Verdict unbiased, exact: bias ") and len(repr(verdict)) < 200


def statuses(cost, estimator, seeds):
    """What verdicts by replicates say."""
    graph = graph_of(cost, estimator)
    truth = scg.exact.gradient(graph)
    return {judge(graph, rng=np.random.default_rng(seed), reference=truth, **QUICK).status for seed in seeds}


@pytest.mark.parametrize("cost, estimator", CORRECT)
def test_correct_estimators_are_never_rejected(cost, estimator):
    assert statuses(cost, estimator, range(20)) == {"unbiased"}


@pytest.mark.long
@pytest.mark.parametrize("cost, estimator", CORRECT)
def test_correct_estimators_are_never_rejected_at_length(cost, estimator):
    assert statuses(cost, estimator, range(20, 500)) == {"unbiased"}


@pytest.mark.parametrize("reference", ["auto", "exact", "differences"])
@pytest.mark.parametrize("estimator", WRONG)
@pytest.mark.parametrize("cost", [coins, normals])
def test_saboteurs_are_caught(cost, estimator, reference):
    graph = graph_of(cost, estimator)
    for seed in range(1 if reference == "auto" else share(12, least=1)):
        assert judge(graph, rng=np.random.default_rng(seed), reference=reference, detect=0.2).status == "biased"


@pytest.mark.parametrize("cost, estimator", CORRECT)
def test_correct_estimators_agree_with_differences(cost, estimator):
    graph = graph_of(cost, estimator)
    for seed in range(share(12, least=1)):
        verdict = judge(graph, rng=np.random.default_rng(seed), reference="differences", **QUICK)
        assert verdict.status == "unbiased" and "differences" in verdict.method
        assert np.all((verdict.low <= 0) & (verdict.high >= 0))


def test_differences_along_random_directions_where_there_are_many_coordinates():
    theta = np.linspace(-1, 1, 40)
    for estimator, status in ((scg.Reparameterized(), "unbiased"), (Times(2), "biased")):
        graph = scg.trace(lambda t, rng: normals(t, rng, estimator), theta, rng=np.random.default_rng(0))
        verdict = judge(graph, rng=np.random.default_rng(1), reference="differences", **QUICK)
        assert verdict.status == status and verdict.worst.startswith("random direction")


@pytest.mark.parametrize(
    "distribution, theta, truth",
    [
        # of the mean of z^2 + z, plus t: the scale is nearer to 0 than the first step
        (lambda t: dist.Normal(0.0, t), 0.02, 0.04 + 1),
        (lambda t: dist.Bernoulli(probs=t), 0.03, 2.0 + 1),
        (lambda t: dist.Independent(dist.Bernoulli(probs=t * np.ones(2)), 1), 0.03, 4.0 + 1),
    ],
)
def test_differences_keep_to_the_domain(distribution, theta, truth):
    estimator = scg.Reparameterized if theta == 0.02 else scg.ScoreFunction

    def cost(t, rng):
        z = scg.sample(distribution(t), estimator(), rng=rng)
        return np.sum(z * z + z) + t

    verdict = assert_unbiased(cost, np.array(theta), rng=np.random.default_rng(0), reference="differences", **QUICK)
    assert verdict.low <= 0 <= verdict.high
    assert abs(float(verdict.reference) - truth) < 0.2 * truth


def test_differences_are_judged_by_the_scale_of_the_gradient():
    """With common draws a pathwise gradient and its difference hardly differ: what a small coordinate is held against
    is how much the gradient varies."""

    def cost(t, rng, estimator):
        z = scg.sample(dist.Normal(t, 1.0), estimator, rng=rng)
        # of gradient 3 t^2 + 0.1 t', where the first difference is off by h^2
        return np.sum(z**3 - 3 * z + 0.1 * np.prod(z))

    given = {"rng": np.random.default_rng(0), "reference": "differences", "max_replicates": 2**17, **QUICK}
    right = judge(cost, np.array([0.0, 0.01]), estimator=scg.Reparameterized(), **given)
    wrong = judge(cost, np.array([1.0, 0.5]), estimator=Times(3.0), **given)
    assert right.status == "unbiased"
    assert wrong.status == "biased"
    assert np.isfinite(right.worst_reference) and "nan" not in str(right)


def test_a_minibatch_is_not_enumerated():
    data = np.linspace(-1, 2, 100)

    def cost(t, rng, factor):
        batch = scg.minibatch(100, 10, rng=rng)
        return factor * np.sum((batch.rows(data) - t) ** 2)

    truth = np.sum(2 * (0.3 - data))
    assert (
        judge(cost, np.array(0.3), rng=np.random.default_rng(0), factor=10.0, reference=np.array(truth), **QUICK).status
        == "unbiased"
    )
    assert (
        judge(cost, np.array(0.3), rng=np.random.default_rng(0), factor=3.0, reference=np.array(truth), **QUICK).status
        == "biased"
    )
    assert judge(cost, np.array(0.3), rng=np.random.default_rng(0), factor=10.0, **QUICK).status == "unbiased"


def test_a_relaxation_is_held_against_what_it_relaxes():
    estimator = scg.GumbelSoftmax(0.7)
    for reference in ("exact", "differences"):
        assert (
            judge(
                coins, THETA, rng=np.random.default_rng(0), estimator=estimator, reference=reference, detect=0.1
            ).status
            == "biased"
        )


def test_small_biases_that_agree_add_up():
    """Each of 200 coordinates is off by less than its interval can tell; their projection on the gradient is not."""
    theta = np.full(200, 0.3)
    cost = lambda t, rng: np.mean((scg.sample(dist.Bernoulli(logits=t), Times(1.01), rng=rng) - 0.2) ** 2)
    verdict = judge(cost, theta, rng=np.random.default_rng(0), reference="exact", detect=0.05)
    assert verdict.status == "biased" and verdict.worst == "projection on the gradient"
    assert np.all((verdict.low < 0) & (verdict.high > 0))


HEAVY = {
    "1/|z|": (lambda z: 1 / np.abs(z), 1.0),
    "a Cauchy cost": (lambda z: np.tan(3.14159 * (z - np.floor(z) - 0.5)), 1.0),
    "importance weights": (lambda z: np.exp(0.5 * (z / 0.6) ** 2 - 0.5 * z**2), 0.6),
}


@pytest.mark.parametrize("name", HEAVY)
def test_an_infinite_variance_is_inconclusive(name):
    f, scale = HEAVY[name]

    def cost(t, rng):
        return f(scg.sample(dist.Normal(t, scale), scg.ScoreFunction(), rng=rng))

    graph = scg.trace(cost, np.array(0.1), rng=np.random.default_rng(0))
    for seed in range(10):
        with pytest.raises(AssertionError, match="inconclusive.*\n(.*\n)*.*tail index"):
            assert_unbiased(
                graph, rng=np.random.default_rng(seed), reference=np.array(0.0), max_replicates=50_000, **QUICK
            )


@pytest.mark.parametrize("bounds", [(-3.0, 3.0), (np.array([-3.0, -2.0]), np.array([3.0, 2.0]))])
def test_bounds(bounds):
    right, wrong = graph_of(coins, scg.ScoreFunction()), graph_of(coins, Times(-1))
    for seed in range(5):
        assert (
            judge(right, rng=np.random.default_rng(seed), reference="exact", bounds=bounds, **QUICK).status
            == "unbiased"
        )
        assert (
            judge(wrong, rng=np.random.default_rng(seed), reference="exact", bounds=bounds, **QUICK).status == "biased"
        )
    with pytest.raises(ScgValueError, match="a replicate lies outside"):
        judge(right, rng=np.random.default_rng(0), reference="exact", bounds=(-0.1, 0.1), **QUICK)


def test_nested_parameters_and_where_the_bias_is():
    theta = {"a": [np.array([[0.3, 0.1]])], "b": np.array(0.2)}

    def cost(t, rng):
        x = scg.sample(dist.Normal(t["a"][0], 1.0), Times(2), rng=rng)
        y = scg.sample(dist.Normal(t["b"], 1.0), scg.ScoreFunction(), rng=rng)
        return np.sum(x * np.array([0.01, 3.0])) + y

    for reference in ("auto", {"a": [np.array([[0.01, 3.0]])], "b": np.array(1.0)}):
        verdict = judge(cost, theta, rng=np.random.default_rng(0), reference=reference, detect=0.2)
        assert verdict.status == "biased"
        assert abs(verdict.bias["b"]) < 0.5 and abs(verdict.bias["a"][0][0, 1] - 3) < 1
        assert reference != "auto" or verdict.worst == "['a'][0][0, 1]"
        assert verdict.worst in str(verdict)


def test_a_verdict_is_a_function_of_the_seed():
    one, two, other = (
        judge(graph_of(normals, None), rng=np.random.default_rng(s), reference="exact", **QUICK) for s in (1, 1, 2)
    )
    assert str(one) == str(two) != str(other)


def test_single_precision():
    verdict = judge(coins, THETA.astype(np.float32), rng=np.random.default_rng(0))
    assert verdict.status == "unbiased"
    assert judge(
        normals,
        THETA.astype(np.float32),
        rng=np.random.default_rng(0),
        estimator=scg.Reparameterized(),
        reference="exact",
        **QUICK,
    )


def test_an_estimator_without_variance_needs_no_tolerance_of_the_users():
    cost = lambda t, rng: np.sum(t * scg.sample(dist.Bernoulli(logits=t), scg.Enumerate(), rng=rng))
    assert assert_unbiased(cost, THETA, rng=np.random.default_rng(0)).worst_detectable < 1e-9


@pytest.mark.parametrize("most", [2, 300, 40_000])
def test_a_budget_that_cannot_reach_the_power_says_what_it_can_find(most):
    verdict = judge(graph_of(normals, None), rng=np.random.default_rng(0), reference="exact", max_replicates=most)
    assert verdict.status == "inconclusive" and verdict.draws == most
    assert verdict.worst_detectable > 0.05 * 3 and (most < 40_000 or verdict.worst_detectable < 1)
    if most == 40_000:
        largest = np.max(verdict.detectable)
        again = judge(
            graph_of(normals, None),
            rng=np.random.default_rng(0),
            reference="exact",
            detect=largest,
            max_replicates=most,
        )
        assert again.status == "unbiased"  # relative to gradients of 2.8 and 0.8: so large a bias it finds


def test_progress_is_told_and_changes_nothing(capsys):
    seen = []
    given = {"reference": "exact", **QUICK}
    plain = judge(graph_of(normals, None), rng=np.random.default_rng(0), **given)
    told = assert_unbiased(
        graph_of(normals, None),
        rng=np.random.default_rng(0),
        progress=lambda *x: seen.append(x),
        max_replicates=2**21,
        **given,
    )
    assert str(plain) == str(told) and [total for _, total in seen] == [2**21] * len(seen)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen}) and seen[-1][0] == told.draws
    judge(graph_of(normals, None), rng=np.random.default_rng(0), progress=True, **given)
    assert_bias(
        graph_of(normals, Times(2)), rng=np.random.default_rng(0), reference="exact", replicates=40_000, progress=True
    )
    shown = capsys.readouterr()
    assert not shown.out and "512 of 2,097,152" in shown.err and shown.err.endswith("40,000 of 40,000\n")


@pytest.mark.parametrize(
    "given, error, match",
    [
        ({"reference": np.zeros(3)}, ScgValueError, "shape"),
        ({"reference": [np.zeros(2)]}, ScgValueError, "structure"),
        ({"reference": np.array([0.0, np.nan])}, ScgValueError, "finite"),
        ({"alpha": 0.0}, ScgValueError, "alpha"),
        ({"detect": -1.0}, ScgValueError, "detect"),
        ({"power": 1.0}, ScgValueError, "power"),
        ({"alpha": 7}, ScgValueError, "alpha must lie above 0 and below 1, got 7"),
        ({"alpha": "a"}, ScgTypeError, "alpha must be a number"),
        ({"max_replicates": 1}, ScgValueError, "max_replicates must be at least 2"),
        ({"max_replicates": 1e6}, ScgTypeError, "max_replicates must be an integer"),
        ({"progress": 5}, ScgTypeError, "progress must be True"),
        ({"rng": 3}, ScgTypeError, "default_rng"),
        ({"reference": "differences", "bounds": (-1.0, 1.0)}, ScgValueError, "bounds"),
        ({"reference": "exact", "bounds": (1.0, -1.0)}, ScgValueError, "bounds"),
    ],
)
def test_refusals(given, error, match):
    with pytest.raises(error, match=match):
        judge(graph_of(coins, None), **{"rng": np.random.default_rng(0), **given})


def test_arguments_are_for_functions():
    with pytest.raises(ScgTypeError, match="no further arguments"):
        judge(graph_of(coins, None), THETA, rng=np.random.default_rng(0))
    with pytest.raises(ScgTypeError, match="a graph, a function or scg.bridge.Samples"):
        judge(3, rng=np.random.default_rng(0))


# declared bias


@pytest.mark.parametrize("estimator", [Times(2), scg.StraightThrough(), scg.GumbelSoftmax(1.0)])
def test_bias_variance_and_mean_squared_error(estimator):
    graph = graph_of(coins, estimator)
    truth, (mean, variance) = scg.exact.gradient(graph), scg.exact.moments(graph)
    expected = (mean - truth) ** 2, variance, variance + (mean - truth) ** 2
    for reference in ("auto", truth, "differences"):
        report = assert_bias(graph, rng=np.random.default_rng(1), reference=reference)
        slack = 1e-12
        for row, value in zip((report.squared_bias, report.variance, report.mean_squared_error), expected, strict=True):
            assert np.all(row.low <= row.value) and np.all(row.value <= row.high)
            assert np.all(row.low - slack <= value) and np.all(value <= row.high + slack)
            assert row.total[1] <= row.total[0] <= row.total[2]
            assert np.all(row.high - row.low < (0.0 if report.method == "exact" else 2 * np.sum(value)) + slack)
        assert "bias^2" in str(report) and "mean squared error" in str(report)


@pytest.mark.parametrize("reference", ["auto", "exact"])
def test_what_is_unbiased_is_not_declared_biased(reference):
    with pytest.raises(AssertionError, match="no bias"):
        assert_bias(graph_of(coins, scg.ScoreFunction()), rng=np.random.default_rng(0), reference=reference)


# what no draw showed


def step(t, rng):
    """A step that is rarely met, and counts for much: 3.4 draws of a million lie beyond 4.5."""
    z = scg.sample(dist.Normal(t[0], 1.0), scg.ScoreFunction(), rng=rng)
    return np.where(z > 4.5, 1000.0, 0.0)


def step_and_coins(t, rng):
    return step(t, rng) + np.sum((scg.sample(dist.Bernoulli(logits=t[1:]), scg.ScoreFunction(), rng=rng) - 0.2) ** 2)


RARE = {"detect": 0.5, "power": 0.99, "max_replicates": 2**18}


@pytest.mark.parametrize("cost, coordinates", [(step, 1), (step_and_coins, 3)])
def test_a_rare_draw_that_was_not_met_is_no_bias(cost, coordinates):
    """Where there are other coordinates, a projection varies that takes in the one that does not."""
    graph = scg.trace(cost, np.zeros(coordinates), rng=np.random.default_rng(0))
    found = [judge(graph, rng=np.random.default_rng(seed), reference="exact", **RARE) for seed in range(8)]
    assert {v.status for v in found} == {"inconclusive"}
    unseen = [v for v in found if "never varied" in v.reason]
    assert unseen and all(2**15 <= v.draws <= 1.5 * 2**15 for v in unseen)  # an eighth of the most


def test_a_rare_coin_that_was_not_met_by_the_differences_is_no_bias():
    """Enumeration gives the same gradient always, and the differences that it is held against miss what it counts."""
    cost = lambda t, rng: 1e5 * np.sum(scg.sample(dist.Bernoulli(logits=t), scg.Enumerate(), rng=rng))
    assert judge(cost, np.array([-14.0]), rng=np.random.default_rng(0), reference="exact", **RARE).status == "unbiased"
    assert (
        judge(cost, np.array([-14.0]), rng=np.random.default_rng(0), reference="differences", **RARE).status != "biased"
    )


def test_what_does_not_vary_and_is_wrong_is_biased_where_it_is_known_not_to_vary():
    t = np.zeros(2)
    fixed = scg.trace(lambda t, rng: np.sum(t**2 + t), t, rng=np.random.default_rng(0))
    # fair coins: no variance, exact moments say so
    exactly = scg.trace(lambda t, rng: coins(t, rng, scg.DisARM()), t, rng=np.random.default_rng(0))
    for graph in (fixed, exactly):
        right = scg.exact.gradient(graph)
        assert judge(graph, rng=np.random.default_rng(1), reference=right, **RARE).status == "unbiased"
        verdict = judge(graph, rng=np.random.default_rng(1), reference=right + 0.1, **RARE)
        assert verdict.status == "biased" and verdict.draws < 2**18, verdict


# what a tail has to do with it


SMOOTH = lambda z: np.sin(z) / (1 + 0.1 * z * z)
PATHWISE = {
    "LogNormal": lambda t: dist.LogNormal(t, 0.8),
    "InverseGamma": lambda t: dist.InverseGamma(np.exp(t) + 1, 1.0),
    "StudentT": lambda t: dist.StudentT(3.0, t, 1.0),
}


@pytest.mark.parametrize("name", PATHWISE)
def test_a_bounded_gradient_is_unbiased_however_its_distance_from_the_differences_is_distributed(name):
    """That distance is a thousandth of the gradient, and has no variance of its own to speak of: what is asked of a
    tail is asked of the gradient."""
    cost = lambda t, rng: SMOOTH(scg.sample(PATHWISE[name](t), scg.Reparameterized(), rng=rng))
    given = {"rng": np.random.default_rng(0), "reference": "differences", "max_replicates": 2**18}
    assert judge(cost, np.array(0.3), **given).status == "unbiased"
    wrong = lambda t, rng: cost(t, rng) + 0.2 * (t - scg.stop_gradient(t))  # its differences do not see what is added
    assert judge(wrong, np.array(0.3), **given).status == "biased"


@pytest.mark.parametrize("seed", first(1, range(3)))
def test_polynomials_of_counts_have_a_variance(seed):
    """A score function of zero-inflated counts: of few values, the largest of which many draws share."""
    lattice = lambda rng, shape: (lambda z: (z - 1.0) ** 2 * (z - 1.6))(rng.poisson(1.6, shape))
    tail = Tail(np.zeros(40))
    for i in range(20):
        tail.update(lattice(np.random.default_rng([seed, i]), (20_000, 40)))
    assert np.all(tail.light())


@pytest.mark.parametrize(("index", "ratio"), covering([1.5, 2.0, 4.0], [1.1, 1.8]))
def test_the_tail_index_of_a_lattice_is_that_of_what_it_rounds(index, ratio):
    """P(x >= r^j) = r^(-j index). The index is solved for from the mean of a geometric variable: its standard error is
    that of a power law to within a factor that is (sinh(s) / s) with s = index log r / 2, 1.31 at most here; k is at
    least a fifth of 1000, since an atom has at most 1 - r^-index = 0.91 of what is not below it, of two atoms one is
    whole."""
    rng = np.random.default_rng(5)
    tail = Tail(np.zeros(50))
    for _ in range(20):
        tail.update(ratio ** np.floor(np.log1p(rng.pareto(index, (10_000, 50))) / np.log(ratio) + 1e-9))
    found, k = tail.index()
    assert np.all(k >= 50)
    np.testing.assert_allclose(np.mean(found), index, rtol=5 * 1.31 / np.sqrt(50 * np.min(k)))


def test_an_infinite_variance_on_a_lattice_never_passes():
    heavy = lambda rng, shape: (
        rng.choice([-1, 1], shape) * 1.5 ** np.floor(np.log1p(rng.pareto(1.8, shape)) / np.log(1.5))
    )
    assert set(verdicts(heavy, 30, **BUDGET)) == {"inconclusive"}


# what is drawn by rejection


class Declared(Estimator):
    """The cost function writes its own surrogate."""


def two_stages(distribution, right):
    """log(1 + a) + |b - 1| with b ~ Laplace(t + a, .8) by score functions; the first forgets what a does to b where it
    is not right."""

    def cost(t, rng):
        a = scg.sample(distribution(t[0]), Declared(), rng=rng)
        b = scg.sample(dist.Laplace(t[1] + a, 0.8), Declared(), rng=rng)
        held = scg.stop_gradient(a)
        near, far = np.log1p(a), np.abs(b - 1.0)
        first = scg.stop_gradient(near + far if right else near) * distribution(t[0]).log_prob(held)
        second = scg.stop_gradient(near + far) * dist.Laplace(t[1] + held, 0.8).log_prob(scg.stop_gradient(b))
        return near + far + first + second - scg.stop_gradient(first + second)

    return cost


REJECTED = {
    "Gamma": lambda s: dist.Gamma(np.exp(s), 1.5),
    "Beta": lambda s: dist.Beta(np.exp(s), 1.5),
    "Chi2": lambda s: dist.Chi2(np.exp(s) + 1),
    "InverseGamma": lambda s: dist.InverseGamma(np.exp(s) + 4, 3.0),
}


@pytest.mark.parametrize("name", REJECTED)
def test_what_rejection_draws_is_coupled_by_quantiles(name):
    """With random numbers in common alone the costs a step apart differ by their standard deviation, and twenty times
    that is their difference quotient."""
    graph = scg.trace(two_stages(REJECTED[name], True), np.array([0.3, -0.2]), rng=np.random.default_rng(0))
    streams = Streams(graph, "differences", np.random.default_rng(0), None)
    e, g = streams.draw(4096)
    assert np.all((g - e[:, :2]).var(axis=0) < 4 * g.var(axis=0))


@pytest.mark.parametrize("name, detect", [("Gamma", 0.05), ("Chi2", 0.3)])
def test_a_bias_behind_a_rejected_draw_is_found(name, detect):
    model = two_stages(REJECTED[name], False)
    assert (
        judge(model, np.array([0.3, -0.2]), rng=np.random.default_rng(1), reference="differences", detect=detect).status
        == "biased"
    )


def test_what_differences_cannot_tell_is_not_called_unbiased(monkeypatch):
    """Their noise is no part of the scale: without the coupling the verdict is that nothing is known."""
    monkeypatch.setattr("scg.testing.differences.comes_apart", lambda one, other: False)
    verdict = judge(
        two_stages(REJECTED["Gamma"], False),
        np.array([0.3, -0.2]),
        rng=np.random.default_rng(1),
        reference="differences",
        max_replicates=2**15,
        **QUICK,
    )
    assert verdict.status != "unbiased"


DISTRIBUTIONS_APART = [
    (dist.Gamma, {"concentration": 1.1, "rate": 1.5}, {"concentration": 1.3, "rate": 1.5}),
    (dist.Poisson, {"rate": 4.0}, {"rate": 4.4}),
    (dist.VonMises, {"loc": 0.1, "concentration": 2.0}, {"loc": 0.1, "concentration": 2.3}),
    (dist.Dirichlet, {"concentration": np.array([0.2, 2.0, 0.7])}, {"concentration": np.array([0.4, 2.0, 0.7])}),
]


@pytest.mark.parametrize("distribution, one, other", DISTRIBUTIONS_APART)
def test_coupled_draws_are_near_and_have_the_distribution(distribution, one, other):
    one, other = distribution(**one), distribution(**other)
    assert comes_apart(one, other) and not comes_apart(one, one)
    x, y = (Coupled().draw(each, np.random.default_rng(3), (20_000,)) for each in (one, other))
    apart = [each.sample(np.random.default_rng(3), (20_000,)) for each in (one, other)]
    assert (
        np.mean(np.abs(x - y)) < 0.3 * np.mean(np.abs(apart[0] - apart[1]))
        and x.dtype == apart[0].dtype
        and x.shape == apart[0].shape
    )
    error = np.sqrt((x.var(axis=0) + apart[0].var(axis=0)) / 20_000)
    assert np.all(np.abs(x.mean(axis=0) - apart[0].mean(axis=0)) < 6 * error)  # once in a hundred million


def test_a_mixture_of_vectors_falls_back_on_differences():
    def cost(p, rng, estimator):
        distribution = dist.Mixture(
            dist.MultivariateNormal(np.reshape(p[:4], (2, 2)), scale_tril=np.eye(2)), logits=p[4:]
        )
        z = scg.sample(distribution, estimator, rng=rng)
        return z[0] * z[1]

    p = np.array([1.0, -0.5, 0.3, 2.0, 0.1, 0.4])
    assert judge(cost, p, rng=np.random.default_rng(0), estimator=scg.ScoreFunction(), **QUICK).status == "unbiased"
    assert judge(cost, p, rng=np.random.default_rng(0), estimator=Times(2), **QUICK).status == "biased"


@pytest.mark.parametrize("reference", ["exact", "differences"])
def test_a_notebook_shows_what_is_printed(reference):
    graph = scg.trace(
        lambda t, rng: scg.sample(dist.Bernoulli(logits=t), scg.ScoreFunction(), rng=rng, name="<b>") * 1.0,
        np.array(0.3),
        rng=np.random.default_rng(0),
    )
    found = scg.testing.judge(graph, rng=np.random.default_rng(0), reference=reference, detect=0.5)
    page = ElementTree.fromstring(found._repr_html_())
    status, *lines = str(found).splitlines()
    assert status == "".join(page.find("caption").itertext())
    assert [line.split(maxsplit=1)[0] for line in lines] == [th.text.split()[0] for th in page.iter("th")]
    assert all(any(text in line for line in lines) for text in [td.text for td in page.iter("td")])


def _through(location):
    """tanh(z0 z1 + z0), z ~ N(location(t, n), 1), n ~ Poisson(1.2)."""

    def cost(t, rng):
        n = scg.sample(dist.Poisson(1.2), scg.ScoreFunction(), rng=rng)
        x, y = (scg.sample(dist.Normal(location(t, n), 1.0), scg.ScoreFunction(), rng=rng) for _ in range(2))
        return np.tanh(x * y + x)

    return cost


BENDS = {  # of the mean, at t = 1
    "maximum": lambda t, n: np.maximum(t, 1.0),
    "a penalty": lambda t, n: np.abs(t - 1.0) + 0.2 * n,
    "beside a count": lambda t, n: np.maximum(n, t),
    "a jump at a count": lambda t, n: np.where(n >= t, t, 0.3),
    "an if": lambda t, n: t * t if t > 1 else 0.5 * t,
}


@pytest.mark.parametrize("name", BENDS)
@pytest.mark.parametrize("distance", [-0.03, 0.004, 0.06])
def test_differences_do_not_reach_over_what_bends_in_the_parameters(name, distance):
    """A step of 0.05 does, and has the slope of neither side."""
    cost = _through(BENDS[name])
    given = {"rng": np.random.default_rng(0), "reference": "differences", "detect": 0.4}
    assert judge(cost, np.array(1 + distance), **given).status == "unbiased"


@pytest.mark.parametrize("near", [0.03, -0.01])
def test_a_mean_that_turns_within_a_step_is_no_bias(near):
    """E[hypot(u, z)] has its least at u = 0, and turns there as fast as z is seldom near 0."""

    def cost(t, rng):
        y, z = (scg.sample(dist.Normal(t[0], 1.0), scg.Reparameterized(), rng=rng) for _ in range(2))
        return np.hypot(t[1], z) + z * z + np.tanh(y * z)

    given = {"rng": np.random.default_rng(0), "reference": "differences", "detect": 0.2}
    assert judge(cost, np.array([0.2, near]), **given).status == "unbiased"
    wrong = lambda t, rng: cost(t, rng) + 0.3 * near * (t[1] - scg.stop_gradient(t[1]))
    assert judge(wrong, np.array([0.2, near]), **given).status == "biased"


def test_a_mean_that_turns_within_a_step_is_no_bias_where_shorter_steps_are_too_few_to_tell():
    """One in a hundred samples is near enough to the turn to count, too few of 2^14 for an interval; but not for
    seeing that what steps of .05 have found is not there."""

    def cost(t, rng):
        return np.hypot(t[1], scg.sample(dist.Normal(t[0], 1.0), scg.Reparameterized(), rng=rng))

    given = {"reference": "differences", "detect": 0.4, "power": 0.99, "max_replicates": 2**14}
    for seed in range(4):
        assert judge(cost, np.array([0.2, 0.01]), rng=np.random.default_rng(seed), **given).status == "inconclusive"
    wrong = lambda t, rng: cost(t, rng) + 0.05 * (t[1] - scg.stop_gradient(t[1]))
    assert judge(wrong, np.array([0.2, 0.01]), rng=np.random.default_rng(0), **given).status == "biased"


def test_an_if_that_seldom_comes_out_otherwise_leaves_no_reference():
    """2 of 1000 samples, none among the first."""

    def cost(t, rng):
        z = scg.sample(dist.Normal(t, 1.0), scg.ScoreFunction(), rng=rng)
        return np.tanh(z) if z < 3.0 else np.tanh(t)

    with pytest.raises(ScgValueError, match="no reference: the `if`.*give reference="):
        judge(cost, np.array(0.1), rng=np.random.default_rng(0), reference="differences")


def test_a_mistake_as_large_as_what_differences_over_a_kink_miss_is_found():
    """|t| at 0.02: differences with steps of 0.05 and 0.1 give 7 / 15, and so does the mistake here."""
    draw = lambda t, rng: scg.sample(dist.Normal(0.1 * t, 1.0), scg.ScoreFunction(), rng=rng)
    cost = lambda t, rng: np.abs(t) + np.tanh(draw(t, rng)) - 8 / 15 * (t - scg.stop_gradient(t))
    assert judge(cost, np.array(0.02), rng=np.random.default_rng(0), reference="differences").status == "biased"


def test_differences_are_those_of_whole_runs_of_the_graph():
    """(4 D(h) - D(2h)) / 3 of costs at the same random numbers, as ``Graph.run`` computes them with an axis of
    replicates on all that there is."""

    def cost(t, rng):
        b = scg.sample(dist.Bernoulli(logits=t["l"]), scg.ScoreFunction(), rng=rng)
        z = scg.sample(dist.Normal(t["m"] * b, 1.0), scg.Reparameterized(), rng=rng)
        return np.sum(np.tanh(z) * b) + np.sum(t["m"] ** 2)

    graph = scg.trace(cost, {"l": np.array([0.3, -0.2]), "m": np.array(0.5)}, rng=np.random.default_rng(0))
    differences = Differences(graph, np.random.default_rng(1))
    state = copy.deepcopy(differences.rng)
    errors, estimates = differences.draw(40)
    seed, point, step = int(state.integers(2**63)), np.array([0.3, -0.2, 0.5]), differences.steps[0]

    def costs(shift):
        l, m = np.broadcast_to((point + shift)[:2], (40, 2)), np.full(40, (point + shift)[2])
        run = graph.run(rng=np.random.default_rng(seed), parameters={"l": l, "m": m}, replicates=40)
        return run.cost.value

    for k, v in enumerate(np.eye(3)):
        near, far = ((costs(h * v) - costs(-h * v)) / (2 * h) for h in (step, 2 * step))
        np.testing.assert_allclose((estimates - errors)[:, k], (4 * near - far) / 3, rtol=1e-9, atol=1e-9)
