"""Every outcome of the draws of a program in NumPy: closed forms, estimators that scg knows exactly, and what is
refused."""

import copy

import numpy as np
import pytest
import scipy.stats as st

import scg
from scg import bridge
from scg import distributions as dist
from scg.bridge import NotAFunctionOfItsDraws, TooManyOutcomes
from scg.errors import ScgTypeError, ScgValueError

pytestmark = pytest.mark.fast

P = np.array([0.2, 0.3, 0.5])
THETA = np.array([0.4, -0.7, 1.1])

COUNTS = {
    "binomial": (lambda rng: rng.binomial(7, 0.3), st.binom(7, 0.3)),
    "binomial, likely": (lambda rng: rng.binomial(40, 0.93), st.binom(40, 0.93)),
    "integers": (lambda rng: rng.integers(2, 9), st.randint(2, 9)),
    "integers, endpoint": (lambda rng: rng.integers(4, endpoint=True), st.randint(0, 5)),
    "choice": (lambda rng: rng.choice(3, p=P), st.rv_discrete(values=(range(3), P))),
    "hypergeometric": (lambda rng: rng.hypergeometric(5, 7, 9), st.hypergeom(12, 5, 9)),
    "geometric": (lambda rng: rng.geometric(0.3), st.geom(0.3)),
    "poisson": (lambda rng: rng.poisson(3.7), st.poisson(3.7)),
    "poisson, large": (lambda rng: rng.poisson(300.0), st.poisson(300)),
    "negative_binomial": (lambda rng: rng.negative_binomial(2.5, 0.4), st.nbinom(2.5, 0.4)),
    "logseries": (lambda rng: rng.logseries(0.6), st.logser(0.6)),
}


@pytest.mark.parametrize("name", COUNTS)
def test_a_count_has_the_probabilities_of_its_distribution(name):
    draw, known = COUNTS[name]
    found = bridge.enumerate(lambda rng: draw(rng))
    assert np.allclose(found.probability, known.pmf(found.outcomes), rtol=1e-9, atol=1e-16)
    assert np.all(np.diff(found.outcomes) > 0)
    assert abs(found.mean - known.mean()) <= found.error < 1e-9 * known.mean()
    assert abs(found.variance - known.var()) <= found.variance_error + 1e-12 * known.var()
    assert abs(1 - np.sum(found.probability) - found.missing) < 1e-13 and found.missing < 2e-14


def test_a_batch_branches_element_by_element():
    found = bridge.enumerate(lambda rng: rng.binomial([1, 2], [[0.2], [0.6]], size=(2, 2)))
    assert len(found.probability) == 2 * 3 * 2 * 3 and found.outcomes.shape == (36, 2, 2)
    assert np.allclose(found.mean, [[0.2, 0.4], [0.6, 1.2]], rtol=1e-14)
    assert np.allclose(found.variance, [[0.16, 0.32], [0.24, 0.48]], rtol=1e-13)


VECTORS = {
    "multinomial": (lambda rng: rng.multinomial(4, P), 15),
    "multivariate_hypergeometric": (lambda rng: rng.multivariate_hypergeometric([2, 3, 4], 3), 9),
    "choice without replacement": (lambda rng: rng.choice(4, 2, replace=False), 12),
    "choice unshuffled": (lambda rng: rng.choice(5, 3, replace=False, shuffle=False), None),
    "choice by weights": (lambda rng: rng.choice(4, 2, replace=False, p=[0.1, 0.2, 0.0, 0.7]), 6),
    "choice along an axis": (lambda rng: rng.choice(np.arange(6).reshape(2, 3), 2, axis=1).ravel(), 9),
    "permutation": (lambda rng: rng.permutation(4), 24),
    "permuted": (lambda rng: rng.permuted(np.arange(6).reshape(2, 3), axis=1).ravel(), 36),
    "permuted, flat": (lambda rng: rng.permuted(np.arange(4).reshape(2, 2)).ravel(), 24),
    "shuffle": (lambda rng: shuffled(rng, [3, 1, 2]), 6),
    "shuffle of columns": (lambda rng: shuffled(rng, np.arange(6).reshape(2, 3), axis=1), 6),
}


def shuffled(rng, x, **axis):
    x = copy.copy(x)
    rng.shuffle(x, **axis)
    return np.ravel(x)


@pytest.mark.parametrize("name", VECTORS)
def test_a_vector_has_the_frequencies_that_numpy_draws(name):
    draw, count = VECTORS[name]
    found = bridge.enumerate(lambda rng: draw(rng))
    assert count in (None, len(found.probability)) and abs(np.sum(found.probability) - 1) < 1e-14
    n, rng = 4000, np.random.default_rng(0)
    rows = {}
    for row, p in zip(found.outcomes.tolist(), found.probability, strict=True):
        rows[tuple(row)] = rows.get(tuple(row), 0) + p
    drawn = dict.fromkeys(rows, 0)
    for _ in range(n):
        drawn[tuple(draw(rng).tolist())] += 1  # a KeyError is an outcome that was missed
    for row, p in rows.items():
        assert abs(drawn[row] - n * p) < 6 * np.sqrt(n * p * (1 - p)) + 1  # 6 standard deviations


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def cost(b):
    return (np.sum(b, axis=-1) - 0.7) ** 2 * (1 + b[..., 0] * b[..., 1])


def leave_one_out(theta, rng, samples=2):
    p = sigmoid(theta)
    b = rng.binomial(1, p, size=(samples, *theta.shape))
    f = cost(b)
    others = (np.sum(f) - f) / (samples - 1)
    return np.mean((f - others)[:, None] * (b - p), axis=0)


def disarm(theta, rng):
    """(f(b) - f(b')) / 2 * (-1)^b' 1[b != b'] sigmoid(|theta|): b = [u < p] and b' = [1 - u < p] differ with
    probability 2 min(p, 1 - p), either way alike, and are the likelier value else."""
    p = sigmoid(theta)
    m = np.maximum(p, 1 - p)
    differ, side = rng.binomial(1, 2 * (1 - m)), rng.binomial(1, 0.5, size=p.shape)
    likely = (p > 0.5).astype(int)
    b = np.where(differ == 1, side, likely)
    other = np.where(differ == 1, 1 - side, likely)
    return (cost(b) - cost(other)) / 2 * (b - other) * m


def graph_of(estimator):
    def program(theta, rng):
        b = scg.sample(dist.Bernoulli(logits=theta), estimator, rng=rng, name="b")
        return (np.sum(b) - 0.7) ** 2 * (1 + b[0] * b[1])

    return scg.trace(program, THETA, rng=np.random.default_rng(0))


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [(leave_one_out, scg.ScoreFunction(scg.LeaveOneOut(), samples=2)), (disarm, scg.DisARM())],
    ids=["leave-one-out", "DisARM"],
)
def test_estimators_have_the_exact_moments_that_scg_finds_of_its_own(theirs, ours):
    found, known = bridge.enumerate(theirs, THETA), scg.exact.moments(graph_of(ours))
    gradient = scg.exact.gradient(graph_of(ours))
    assert np.allclose(found.mean, gradient, rtol=1e-12, atol=0)
    assert np.allclose(found.mean, known.mean, rtol=1e-12, atol=0)
    assert np.allclose(found.variance, known.variance, rtol=1e-12, atol=0)


@pytest.mark.parametrize("samples", [2, 3])
def test_the_bias_of_a_baseline_that_holds_its_own_sample_is_found_exactly(samples):
    truth = scg.exact.gradient(graph_of(scg.DisARM()))
    found = bridge.enumerate(own_baseline, THETA, samples)
    assert np.allclose(found.mean, truth * (1 - 1 / samples), rtol=1e-12, atol=0)


def own_baseline(theta, samples, rng):
    p = sigmoid(theta)
    b = rng.binomial(1, p, size=(samples, *theta.shape))
    return np.mean((cost(b) - np.mean(cost(b)))[:, None] * (b - p), axis=0)


def test_structures_are_kept_and_the_order_is_always_the_same():
    program = lambda rng: {"a": rng.binomial(1, [0.3, 0.6]).astype(np.float32), "b": (rng.integers(3), 1.5)}
    found, again = (bridge.enumerate(program) for _ in range(2))
    assert found.outcomes["a"].shape == (12, 2) and found.outcomes["a"].dtype == np.float32
    assert found.mean["a"].dtype == float and abs(found.mean["b"][1] - 1.5) < 1e-15 and found.variance["b"][1] < 1e-30
    assert np.array_equal(found.outcomes["a"], again.outcomes["a"])
    assert found.outcomes["b"][0].tolist() == [0, 1, 2] * 4
    assert "12 outcomes" in repr(found) and "['b'][1]" in str(found)


def test_draws_may_depend_on_draws_and_impossible_values_are_left_out():
    def program(rng):
        z = rng.binomial(2, 0.5)
        return sum(rng.binomial(1, [0.0, 0.5, 1.0][z]) for _ in range(z))

    found = bridge.enumerate(program)
    assert found.outcomes.tolist() == [0, 0, 1, 2] and found.probability.tolist() == [0.25, 0.25, 0.25, 0.25]


def test_spawned_generators_are_independent_and_isinstance_holds():
    def program(rng):
        assert isinstance(rng, np.random.Generator)
        return sum(child.binomial(1, 0.5) for child in rng.spawn(2)) + st.bernoulli.rvs(0.5, random_state=rng)

    found = bridge.enumerate(program)
    assert found.mean == 1.5 and abs(found.variance - 0.75) < 1e-15


def run_until_tails(rng):
    n = 0
    while rng.binomial(1, 0.001):
        n += 1
    return n


REFUSED = {
    "normal": (lambda rng: rng.normal(), ScgTypeError, "continuous"),
    "random": (lambda rng: rng.random() < 0.5, ScgTypeError, r"rng.binomial\(1, p\)"),
    "bits": (lambda rng: rng.bit_generator.random_raw(), ScgTypeError, "raw bits"),
    "zipf": (lambda rng: rng.zipf(2), ScgTypeError, "too slowly"),
    "a copy": (lambda rng: copy.deepcopy(rng).binomial(1, 0.5), ScgTypeError, "a copy of the generator"),
    "a loop without end": (run_until_tails, ScgValueError, "without end"),
    "numpy.random": (lambda rng: np.random.binomial(1, 0.5) * 0, ScgValueError, "global generator"),
    "an own generator": (lambda rng: np.random.default_rng().normal(), NotAFunctionOfItsDraws, "other numbers"),
    "text": (lambda rng: "a", ScgTypeError, "real numbers"),
    "nothing": (lambda rng: None, ScgTypeError, "must return numbers"),
    "infinite": (lambda rng: 1.0 / np.float64(rng.binomial(1, 0.5)), ScgValueError, "not finite"),
    "another shape": (lambda rng: np.zeros(rng.integers(1, 3)), ScgValueError, "shape of a result"),
    "another structure": (lambda rng: [0.0] * rng.integers(1, 3), ScgValueError, "structure of a result"),
    "no mean": (lambda rng: 2.0 ** rng.geometric(0.5), ScgValueError, "the mean does not exist"),
    "200 coins": (lambda rng: rng.binomial(1, 0.5, size=200), TooManyOutcomes, r"1.61e\+60 outcomes"),
    "200 draws": (lambda rng: sum(rng.binomial(1, 0.5) for _ in range(200)), TooManyOutcomes, r"1.61e\+60 outcomes"),
    "a large integer": (lambda rng: rng.integers(2**62), TooManyOutcomes, r"4.61e\+18"),
    "a long shuffle": (lambda rng: rng.permutation(12), TooManyOutcomes, "479,001,600"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_known_is_refused_at_the_users_line(name):
    program, error, words = REFUSED[name]
    with np.errstate(divide="ignore"), pytest.raises(error, match=words) as refused:
        bridge.enumerate(program)
    assert "test_enumerate.py:" in str(refused.value)


def test_state_that_is_kept_from_run_to_run_is_found_out():
    kept = [0.0]

    def moving_average(rng):
        b = rng.binomial(1, 0.3)
        gradient = (b - kept[0]) * (b - 0.3)
        kept[0] += 0.1 * (b - kept[0])
        return gradient

    with pytest.raises(NotAFunctionOfItsDraws, match="moving average"):
        bridge.enumerate(moving_average)


def test_state_that_the_first_outcome_does_not_show_is_found_out():
    """Of values that are all 0 a product is 0, whatever the state."""
    runs = []
    with pytest.raises(NotAFunctionOfItsDraws, match="returned other numbers"):
        bridge.enumerate(lambda rng: runs.append(None) or len(runs) * np.prod(rng.binomial(1, 0.5, 2)))


@pytest.mark.parametrize("depth", range(2, 12))
def test_a_program_within_the_budget_runs_however_skew_its_tree_is(depth):
    """Of n tails in a row: n + 1 outcomes, on paths of very different lengths."""
    program = lambda rng: next((i for i in range(depth) if rng.binomial(1, 0.3)), depth)
    found = bridge.enumerate(program, budget=depth + 1)
    assert len(found.probability) == depth + 1
    with pytest.raises(TooManyOutcomes, match="Knuth|as many along"):
        bridge.enumerate(program, budget=depth)


def test_a_variance_that_does_not_exist_is_infinite():
    found = bridge.enumerate(lambda rng: 1.5 ** rng.geometric(0.5))
    assert abs(found.mean - 3) <= found.error < 1e-3 and found.variance == np.inf


def test_progress_hears_of_all_outcomes_and_options_are_checked():
    heard = []
    bridge.enumerate(lambda rng: rng.binomial(3, 0.5), progress=lambda *at: heard.append(at))
    assert heard[-1] == (4, 4)
    for options in ({"framework": "tf"}, {"budget": 0}, {"tail": 0}, {"tail": 2}):
        with pytest.raises(ScgValueError):
            bridge.enumerate(lambda rng: rng.binomial(1, 0.5), **options)
    with pytest.raises(ScgTypeError):
        bridge.enumerate(3)
