"""Named problems: their exact answers against quadrature that knows nothing of scg, and their arrays of any
framework."""

import itertools

import numpy as np
import pytest
import scipy.stats as st
from scipy.integrate import quad

import scg
from scg.errors import ScgValueError

PROBLEMS = {problem.name: problem for problem in scg.testing.problems()}
DISCRETE = {name: p for name, p in PROBLEMS.items() if p.discrete and name != "poisson"}

pytestmark = pytest.mark.fast


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x)))


def softmax(x):
    weights = np.exp(x - np.max(x))
    return weights / np.sum(weights)


def outcomes(family, numbers):
    """(value, probability) pairs of a discrete draw, or a frozen distribution of SciPy."""
    if family == "Bernoulli":
        p = np.atleast_1d(numbers["probs"] if "probs" in numbers else sigmoid(numbers["logits"]))
        shape = np.shape(next(iter(numbers.values())))
        for bits in itertools.product((0.0, 1.0), repeat=len(p)):
            b = np.array(bits)
            yield b.reshape(shape), np.prod(np.where(b == 1, p, 1 - p))
    elif family == "Categorical":
        yield from enumerate(softmax(numbers["logits"]))
    elif family == "Poisson":
        yield from ((n, st.poisson.pmf(n, numbers["rate"])) for n in range(60))


CONTINUOUS = {
    "Normal": lambda loc, scale: st.norm(loc, scale),
    "Gamma": lambda concentration, rate: st.gamma(concentration, scale=1 / rate),
    "Exponential": lambda rate: st.expon(scale=1 / rate),
    "Beta": lambda concentration1, concentration0: st.beta(concentration1, concentration0),
}


def expected(problem, parameters, *drawn):
    """The mean cost, one draw after the other: sums over the discrete ones, adaptive quadrature over the others."""
    if len(drawn) == len(problem.draws):
        return float(problem.cost(*drawn))
    draw = problem.draws[len(drawn)]
    numbers = draw.parameters(parameters, *drawn)
    if draw.family in CONTINUOUS:
        known = CONTINUOUS[draw.family](**{name: float(x) for name, x in numbers.items()})
        low, high = known.ppf(1e-18), known.isf(1e-18)
        inner = lambda x: known.pdf(x) * expected(problem, parameters, *drawn, np.float64(x))
        return quad(inner, low, high, epsabs=1e-12, epsrel=1e-12, limit=200)[0]
    return sum(
        chance * expected(problem, parameters, *drawn, value) for value, chance in outcomes(draw.family, numbers)
    )


def difference(problem, key, index):
    """d expected / d parameter by central differences, Richardson's of the fourth order."""

    def at(step):
        moved = {name: np.array(x, float) for name, x in problem.parameters.items()}
        moved[key][index] += step
        return expected(problem, moved)

    h = 2e-3
    return (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)


def test_there_are_some_twenty_with_names_and_sources():
    found = scg.testing.problems()
    assert len(found) >= 20 and len(PROBLEMS) == len(found)
    assert all(len(problem.source) > 20 and problem.name in repr(problem) for problem in found)
    assert {draw.family for problem in found for draw in problem.draws} >= {
        "Bernoulli",
        "Categorical",
        "Poisson",
        "Normal",
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", PROBLEMS)
def test_the_exact_gradient_is_that_of_the_expected_cost(name):
    problem = PROBLEMS[name]
    assert abs(problem.value - expected(problem, problem.parameters)) < 1e-9 * max(1, abs(problem.value))
    for key, gradient in problem.gradient.items():
        indices = list(np.ndindex(gradient.shape))
        for index in indices[:2] + indices[-1:]:  # a difference each; the costs are smooth, the error is of h^4 = 2e-11
            assert abs(gradient[index] - difference(problem, key, index)) < 1e-8 * max(1, abs(problem.value)), key


@pytest.mark.parametrize(
    ("name", "estimator", "key", "variance"),
    [
        ("coin", "score function", "logits", 0.0156251),
        ("coin", "leave-one-out", "logits", 2.5e-7),
        ("coin", "DisARM", "logits", 0.0),
        ("coin, p = 0.3", "score function", "logits", 0.0155938),
        ("coin, p = 0.3", "leave-one-out", "logits", 0.01 * 0.21 * (0.5 - 0.21)),
        ("coin, p = 0.3", "DisARM", "logits", 0.01 * 0.21 * (0.35 - 0.21)),
        ("gaussian, square", "score function", "loc", 495.0),
        ("gaussian, square", "score function", "log_scale", 1546.0),
        ("gaussian, square", "pathwise", "loc", 4.0),
        ("gaussian, square", "pathwise", "log_scale", 72.0),
    ],
)
def test_variances_are_those_of_the_literature(name, estimator, key, variance):
    found = PROBLEMS[name].variance(estimator)[key]
    assert abs(found - variance) < 4e-6 * max(variance, 1e-4)


def test_gradients_are_those_of_closed_forms():
    gradient = {name: problem.gradient for name, problem in PROBLEMS.items()}
    assert abs(gradient["binary chain"]["probs"] - sum(0.6**i for i in range(6))) < 1e-12
    assert abs(gradient["coin"]["logits"] - 0.25 * (1 - 2 * 0.499)) < 1e-15
    rate = np.exp(0.7)
    assert abs(gradient["poisson"]["log_rate"] - rate * (1 + 2 * (rate - 3))) < 1e-9
    assert abs(gradient["gaussian, square"]["loc"] - 8) < 1e-9


def test_known_estimators_are_those_that_apply():
    assert PROBLEMS["coin"].estimators == ("score function", "leave-one-out", "DisARM", "measure-valued")
    assert "pathwise" in PROBLEMS["gamma"].estimators and "DisARM" not in PROBLEMS["gamma"].estimators
    assert set(PROBLEMS["bandit"].variances) == set(PROBLEMS["bandit"].estimators)
    with pytest.raises(ScgValueError, match="none of"):
        PROBLEMS["coin"].variance("guess")


def drawn(problem, rng, lead, convert, parameters):
    """Some values of each draw with leading axes, and the parameters that each then has, by a framework."""
    values, numbers = [], []
    for draw in problem.draws:
        found = draw.parameters(parameters, *values)
        numbers.append({name: np.asarray(x, float) for name, x in found.items()})
        shape = np.shape(next(iter(found.values())))
        size = (*lead, *(shape[:-1] if draw.family == "Categorical" else shape)) if not values else lead
        if draw.name == "two":
            size = (*lead, 2)
        if draw.family == "Categorical":
            value = rng.integers(0, 3, size)
        elif draw.family == "Bernoulli":
            value = rng.integers(0, 2, size).astype(float)
        else:
            value = rng.random(size)
        values.append(convert(value))
    return values, numbers


FRAMEWORKS = {
    "torch": lambda: pytest.importorskip("torch").as_tensor,
    "jax": lambda: pytest.importorskip("jax.numpy").asarray,
}


@pytest.mark.slow
@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("name", PROBLEMS)
def test_costs_and_distributions_take_arrays_of_any_framework_with_axes_in_front(name, framework):
    problem, convert = PROBLEMS[name], FRAMEWORKS[framework]()
    theirs = {key: convert(np.asarray(x)) for key, x in problem.parameters.items()}
    values, numbers = drawn(problem, np.random.default_rng(0), (5,), convert, theirs)
    same, expected_numbers = drawn(problem, np.random.default_rng(0), (5,), np.asarray, problem.parameters)
    cost, known = problem.cost(*values), problem.cost(*same)
    assert type(cost) is type(values[0]) and cost.shape == known.shape == (5,)
    assert np.allclose(np.asarray(cost), known, rtol=1e-5, atol=1e-5)  # JAX computes in float32
    for mine, others in zip(numbers, expected_numbers, strict=True):
        assert mine.keys() == others.keys()
        assert all([np.allclose(mine[key], others[key], rtol=1e-5, atol=1e-6) for key in mine])


@pytest.mark.parametrize("name", DISCRETE)
def test_an_audit_of_the_problem_itself_finds_its_value(name):
    problem = PROBLEMS[name]

    def run(rng):
        values = []
        for draw in problem.draws:
            numbers = draw.parameters(problem.parameters, *values)
            if draw.family == "Categorical":
                values.append(rng.choice(len(numbers["logits"]), p=softmax(numbers["logits"])))
            else:
                p = numbers["probs"] if "probs" in numbers else sigmoid(numbers["logits"])
                values.append(rng.binomial(1, p) * 1.0)
        return problem.cost(*values)

    assert abs(scg.bridge.enumerate(run).mean - problem.value) < 1e-12 * max(1, abs(problem.value))
