"""Verdicts on gradients from outside: what is promised of graphs holds of Samples."""

import tracemalloc

import numpy as np
import pytest

import scg
from scg import distributions as dist
from scg.bridge import Samples
from scg.errors import ScgError, ScgTypeError, ScgValueError
from scg.testing import assert_bias, assert_unbiased, judge
from tests.support.foreign import cost, score_function, truth

QUICK = {"alpha": 1e-6, "detect": 0.2, "power": 0.999}
ZEROS = np.zeros(3)


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.fast
@pytest.mark.parametrize("scale, status", [(1.0, "unbiased"), (1.2, "biased"), (-1.0, "biased")])
def test_a_verdict_on_samples_is_that_on_the_same_estimator_in_a_graph(scale, status):
    """The graph's own estimator, scaled alike."""
    samples = Samples(score_function(scale))
    assert judge(samples, reference=truth(ZEROS), rng=rng(), **QUICK).status == status

    def scaled(theta, rng):
        value = cost(theta, rng)
        return value * scale + (1 - scale) * value.value

    graph = scg.trace(scaled, ZEROS, rng=rng())
    assert judge(graph, reference=truth(ZEROS), rng=rng(), **QUICK).status == status


@pytest.mark.fast
@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("scale, status", [(1.0, "unbiased"), (1.2, "biased")])
def test_two_samples_are_compared(scale, status, paired):
    mine, theirs = Samples(score_function(scale)), Samples(score_function(1.0))
    verdict = judge(mine, reference=theirs, paired=paired, rng=rng(), **QUICK)
    assert verdict.status == status and "Samples(" in verdict.method


def test_common_seeds_give_narrower_intervals():
    mine, theirs = Samples(score_function(1.3)), Samples(score_function(1.0))
    together, apart = (judge(mine, reference=theirs, paired=paired, rng=rng(), **QUICK) for paired in (True, False))
    assert together.status == apart.status == "biased" and together.draws == apart.draws
    assert np.all(together.high - together.low < (apart.high - apart.low) / 3)


def test_a_graph_is_compared_with_samples():
    graph = scg.trace(cost, ZEROS, rng=rng())
    assert assert_unbiased(graph, reference=Samples(score_function(1.0)), rng=rng(), **QUICK)
    assert judge(graph, reference=Samples(score_function(1.3)), rng=rng(), **QUICK).status == "biased"


def test_false_alarms_of_two_samples_have_the_level():
    """None in 40 at a level of 1e-3: of 2e-2 that more than two come by chance, 1e-5."""
    mine, theirs = Samples(score_function(1.0)), Samples(score_function(1.0))
    options = {"alpha": 1e-3, "detect": 0.5, "power": 0.9, "max_replicates": 2**14}
    found = [judge(mine, reference=theirs, rng=rng(seed), **options).status for seed in range(40)]
    assert found.count("biased") <= 2 and found.count("unbiased") >= 30


def structured(n, rng):
    x = rng.standard_normal((n, 2, 3))
    return {"w": x.astype(np.float32), "b": x[:, 0, 0]}


def test_a_verdict_has_the_structure_of_the_samples():
    verdict = judge(
        Samples(structured), reference={"w": np.zeros((2, 3)), "b": 0.0}, rng=rng(), bounds=(-9, 9), **QUICK
    )
    assert verdict.status == "unbiased" and np.shape(verdict.bias["w"]) == (2, 3) and np.shape(verdict.bias["b"]) == ()


def test_what_has_no_variance_is_inconclusive():
    samples = Samples(lambda n, rng: rng.standard_cauchy((n, 2)))
    verdict = judge(samples, reference=np.zeros(2), rng=rng(), max_replicates=2**15, **QUICK)
    assert verdict.status == "inconclusive" and "tail" in verdict.reason


def test_what_is_not_finite_is_inconclusive():
    samples = Samples(lambda n, rng: np.where(rng.random(n) < 0.01, np.nan, 1.0))
    verdict = judge(samples, reference=1.0, rng=rng(), **QUICK)
    assert verdict.status == "inconclusive" and "finite" in verdict.reason


@pytest.mark.parametrize("value, status", [(0.25, "unbiased"), (0.3, "biased")])
def test_a_gradient_for_which_no_number_is_taken_is_constant(value, status):
    verdict = judge(Samples(lambda n, rng: np.full((n, 2), 0.25)), reference=np.full(2, value), rng=rng(), **QUICK)
    assert verdict.status == status


def test_what_is_rarer_than_the_replicates_has_no_measured_bias():
    """The right mean is in values that 2000 draws do not meet; of a gradient without samples the bias is known."""
    rare = Samples(lambda n, rng: 1e6 * (rng.random((n, 1)) < 1e-6))
    with pytest.raises(AssertionError, match="no bias is seen.* in \\[-inf, inf\\]"):
        assert_bias(rare, reference=np.ones(1), rng=rng(), replicates=2000)
    still = assert_bias(Samples(lambda n, rng: np.zeros((n, 1))), reference=np.ones(1), rng=rng(), replicates=2000)
    assert np.allclose(still.squared_bias.total, 1.0)


@pytest.mark.fast
def test_a_verdict_says_which_values_it_may_have_missed():
    """Values of probability 1e-6 bring the mean to where it should be: 27,625 draws have none with probability .97.
    With bounds nothing is without them."""
    rare = Samples(lambda n, rng: 1e-3 * rng.standard_normal((n, 1)) + 1e3 * (rng.random((n, 1)) < 1e-6))
    verdict = judge(rare, reference=np.full(1, 1e-3), rng=rng(0), alpha=1e-6, detect=0.5)
    assert verdict.status == "biased" and (1 - verdict.rarest) ** verdict.draws == pytest.approx(1e-6)
    assert 1e-6 < verdict.rarest < 1 / 1999 and f"met in less than {verdict.rarest:.2g} of replicates" in str(verdict)
    bounded = judge(rare, reference=np.full(1, 1e-3), rng=rng(0), bounds=(-1.0, 1e3 + 1), max_replicates=4096)
    assert bounded.status != "biased" and bounded.rarest == 0 and "met in" not in str(bounded)


def rarely(n, rng):
    return np.where(rng.random((n, 1)) < 1e-7, 0.0, 0.25) * np.ones((n, 2))


def test_a_gradient_that_never_varied_is_not_called_biased():
    verdict = judge(Samples(rarely), reference=np.full(2, 0.3), rng=rng(), max_replicates=2**17, **QUICK)
    assert verdict.status == "inconclusive" and "never varied" in verdict.reason


def test_rare_values_that_the_first_look_missed_are_no_bias():
    """The pilot met the value 1, the first 512 draws did not, in one of 13 coordinates: rounding is no variance."""
    rare = Samples(lambda n, rng: (rng.random((n, 5)) < 0.003) * 1.0)
    budget = {"detect": 0.5, "power": 0.9, "max_replicates": 2**12}
    found = [judge(rare, reference=np.full(5, 0.003), rng=rng(seed), **budget) for seed in range(60)]
    assert {v.status for v in found} == {"inconclusive"}


@pytest.mark.fast
def test_bias_is_measured():
    report = assert_bias(Samples(score_function(1.5)), reference=truth(ZEROS), rng=rng(), alpha=1e-6)
    assert report.squared_bias.total[1] <= np.sum((0.5 * truth(ZEROS)) ** 2) <= report.squared_bias.total[2]
    with pytest.raises(AssertionError, match="no bias is seen"):
        assert_bias(Samples(score_function(1.0)), reference=truth(ZEROS), rng=rng(), replicates=10_000)


def test_memory_is_bounded():
    """4000 coordinates of 2^16 draws would be 2 GB: blocks of 2^22 numbers are 34 MB each."""

    def wide(n, rng):
        return rng.random((n, 4000)) - 0.5

    tracemalloc.start()
    try:
        judge(Samples(wide), reference=np.zeros(4000), rng=rng(), max_replicates=2**13)
        assert tracemalloc.get_traced_memory()[1] < 4e8
    finally:
        tracemalloc.stop()


@pytest.mark.fast
def test_a_verdict_is_a_function_of_the_seed_and_reports_progress():
    seen = []
    found = [
        judge(
            Samples(score_function(1.0)),
            reference=truth(ZEROS),
            rng=rng(5),
            progress=lambda done, most: seen.append(done),
            **QUICK,
        )
        for _ in range(2)
    ]
    assert found[0].worst_bias == found[1].worst_bias and seen and seen[-1] == found[0].draws


def own(seed):
    generator = np.random.default_rng(seed)
    return lambda n, rng: generator.random(n)


class Learns:
    """An estimator with a baseline that moves from call to call."""

    def __init__(self):
        self.mean = 0.0

    def __call__(self, n, rng):
        x = rng.random(n)
        self.mean += float(x.mean())
        return x - self.mean


@pytest.mark.fast
@pytest.mark.parametrize(
    "draw, words",
    [
        (lambda n, rng: np.random.random(n), "NumPy's global generator.*from rng"),
        (own(3), "a Generator of its own"),
        (lambda n, rng: np.random.default_rng().random(n), "other numbers for the same seed"),
        (lambda n, rng: np.random.default_rng(0).random(n), "same numbers for 5 seeds"),
        (Learns(), "keeps a state"),
        (lambda n, rng: np.zeros((n, n)), "keep their structure and shapes"),
        (lambda n, rng: rng.random(n).astype("f8" if n < 100 else "f4"), "keep their dtype"),
        (lambda n, rng: {}, "draws no numbers"),
    ],
)
def test_draws_that_are_no_function_of_the_seed_are_refused(draw, words):
    reference = np.zeros(16) if "shapes" in words else 0.0
    with pytest.raises(ScgError, match=words):
        judge(Samples(draw), reference=reference, rng=rng())


@pytest.mark.fast
@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda s: judge(s, rng=rng()), ScgTypeError, "no reference of their own"),
        (lambda s: judge(s, 1.0, reference=0.0, rng=rng()), ScgTypeError, "no further arguments"),
        (lambda s: judge(np.zeros(9), reference=0.0, rng=rng()), ScgTypeError, r"Samples\(draw\)"),
        (lambda s: judge(s, reference=np.zeros(4), rng=rng()), ScgValueError, r"shape \(3,\)"),
        (lambda s: judge(s, reference={"a": ZEROS}, rng=rng()), ScgValueError, "structure"),
        (lambda s: judge(s, reference=np.full(3, np.nan), rng=rng()), ScgValueError, "finite"),
        (lambda s: judge(s, reference=ZEROS, paired=True, rng=rng()), ScgTypeError, "paired"),
        (lambda s: judge(s, reference=Samples(structured), rng=rng()), ScgValueError, "other Samples"),
        (lambda s: assert_bias(s, rng=rng()), ScgTypeError, "no reference of their own"),
    ],
)
def test_what_is_no_question_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call(Samples(score_function(1.0)))


def test_a_graph_of_distributions_and_samples_agree_where_both_are_random():
    """A pathwise estimator against draws of the same derivative."""

    def program(mu, rng):
        return np.sum(scg.sample(dist.Normal(mu, 1.0), scg.Reparameterized(), rng=rng, name="z") ** 2)

    def draw(n, rng):
        return 2 * (0.5 + rng.standard_normal((n, 2)))

    assert_unbiased(program, np.full(2, 0.5), reference=Samples(draw), rng=rng(), **QUICK)


# what a verdict names


def times(factor):
    """Every coordinate has this multiple of what should be its mean."""
    return Samples(lambda n, rng: factor * TRUTH + rng.standard_normal((n, 3)) * np.array([0.05, 0.1, 0.05]))


TRUTH = np.array([0.3, -0.1, 0.5])


@pytest.mark.fast
@pytest.mark.parametrize("factor, clue", [(64.0, "a sum in the place of a mean"), (-1.0, "a sign"), (0.0, "detached")])
def test_a_mean_that_is_a_multiple_of_the_reference_is_told_with_its_factor(factor, clue):
    verdict = judge(times(factor), reference=TRUTH, rng=rng())
    assert verdict.status == "biased" and abs(verdict.ratio - factor) < 0.1 * max(1, abs(factor))
    assert clue in str(verdict) and clue in verdict._repr_html_()


@pytest.mark.fast
def test_a_factor_of_one_parameter_alone_is_told_with_its_name():
    def part(n, rng):
        noise = 0.05 * rng.standard_normal((n, 3))
        return {"encoder": TRUTH + noise, "decoder": TRUTH / 3 + noise}

    verdict = judge(Samples(part), reference={"encoder": TRUTH, "decoder": TRUTH}, rng=rng())
    assert verdict.status == "biased" and np.isnan(verdict.ratio)
    assert "the mean of ['decoder'] is about 0.33" in str(verdict) and "of ['encoder'] is" not in str(verdict)


@pytest.mark.fast
def test_a_mean_that_is_no_multiple_of_the_reference_has_no_ratio():
    """Nor has one of which the intervals leave open whether it is."""
    shifted = judge(times(1.0), reference=TRUTH + 1.0, rng=rng())
    barely = judge(times(1.02), reference=TRUTH, rng=rng(), detect=0.01)
    assert shifted.status == barely.status == "biased"
    assert np.isnan([shifted.ratio, barely.ratio]).all() and "ratio" not in str(shifted)


@pytest.mark.fast
def test_the_worst_is_a_coordinate_where_one_shows_the_bias_alone():
    """Though some random projection is further out for its interval."""
    shift = Samples(lambda n, rng: 0.018 + rng.standard_normal((n, 100)))
    assert judge(times(64.0), reference=TRUTH, rng=rng()).worst == "[2]"
    assert judge(shift, reference=np.zeros(100), rng=rng()).worst.startswith("random projection")


def test_what_never_varied_is_named_and_an_eighth_of_the_draws_tells():
    def detached(n, rng):  # the second array has no noise, and another mean than it should have
        return {"a": rng.standard_normal((n, 2)), "b": np.full((n, 2), 0.25)}

    reference = {"a": np.zeros(2), "b": np.array([0.25, 0.3])}
    verdict = judge(Samples(detached), reference=reference, rng=rng(), max_replicates=2**19, **QUICK)
    assert verdict.status == "inconclusive" and verdict.worst == "['b'][1]"
    assert "['b'][1]; is what carries the gradient there detached?" in verdict.reason
    assert 2**16 <= verdict.draws <= 1.5 * 2**16
