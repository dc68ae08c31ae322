"""Particle filters on hidden Markov and linear Gaussian models, against enumeration, the forward algorithm and
Kalman's filter."""

import itertools
import tracemalloc

import numpy as np
import pytest

import scg
from scg import distributions as dist
from scg.errors import EstimatorError, ScgTypeError, ScgValueError
from scg.objectives import smc, state_space
from scg.objectives.resampling import Ancestors
from scg.special import log_softmax, softmax
from scg.testing import check_distribution
from tests.support.drawn import covering

SEEN = [0, 1, 1]
TABLES = np.log([0.8, 0.2, 0.3, 0.7, 0.9, 0.1, 0.25, 0.75])


def rng(seed=0):
    return np.random.default_rng(seed)


def hidden_markov(tables, seen):
    """p(x) by the forward algorithm."""
    moves, emits = softmax(np.reshape(tables[:4], (2, 2)), -1), softmax(np.reshape(tables[4:], (2, 2)), -1)
    forward = np.array([0.5, 0.5]) * emits[:, seen[0]]
    for x in seen[1:]:
        forward = (forward @ moves) * emits[:, x]
    return np.sum(forward)


def filtered(tables, rng, particles=2, steps=2, of=np.exp, estimator=None, guide=False, **options):
    """Z-hat of two states, or a function of its logarithm."""
    moves, emits = np.reshape(tables[:4], (2, 2)), log_softmax(np.reshape(tables[4:], (2, 2)), -1)
    step = state_space(
        dist.OneHotCategorical(logits=np.zeros(2)),
        lambda t, z: dist.OneHotCategorical(logits=z @ moves),
        lambda t, z: z @ emits[:, SEEN[t]],
        particles=particles,
        guide=(lambda t, z: dist.OneHotCategorical(logits=0.5 * emits[:, SEEN[t]] + (0 if t == 0 else 0.3 * z)))
        if guide
        else None,
        estimator=estimator or scg.ScoreFunction(),
    )
    return of(smc(step, steps, rng=rng, **options).log_evidence)


UNBIASED = [
    {"resampling": "multinomial"},
    {"resampling": "systematic"},
    {"resampling": "systematic", "threshold": 0.8},
    {"resampling": "multinomial", "threshold": 0.7},
    {"resampling": "systematic", "guide": True},
    {"resampling": "multinomial", "correction": "score function"},
]


@pytest.mark.fast
@pytest.mark.parametrize("options", UNBIASED, ids=str)
@pytest.mark.parametrize("steps", [1, 2, pytest.param(3, marks=pytest.mark.long)])
def test_evidence_and_its_gradient_are_unbiased_by_enumeration(options, steps):
    """Over all states of two particles and all their ancestors."""
    graph = scg.trace(filtered, TABLES, rng=rng(), steps=steps, **options)
    seen = SEEN[:steps]
    assert abs(scg.exact.expectation(graph) - hidden_markov(TABLES, seen)) < 1e-14
    np.testing.assert_allclose(scg.exact.moments(graph).mean, scg.grad(hidden_markov)(TABLES, seen), rtol=0, atol=1e-14)


def test_without_a_correction_the_gradient_is_biased():
    graph = scg.trace(filtered, TABLES, rng=rng(), resampling="multinomial", correction="none")
    assert abs(scg.exact.expectation(graph) - hidden_markov(TABLES, SEEN[:2])) < 1e-14
    truth = scg.grad(hidden_markov)(TABLES, SEEN[:2])
    gap = (scg.exact.moments(graph).mean - truth) / truth
    assert 0.63 < np.max(np.abs(gap)) < 0.64


def test_the_gradient_of_the_bound_needs_the_score_of_the_ancestors():
    """E log Z-hat: its exact gradient is that of the score function, and not that of the other two."""
    gaps = {}
    for correction in ("score function", "stop gradient", "none"):
        graph = scg.trace(filtered, TABLES, rng=rng(), of=lambda v: v, resampling="multinomial", correction=correction)
        gaps[correction] = np.max(np.abs(scg.exact.moments(graph).mean - true_slope()))
    assert gaps["score function"] < 1e-9 < 1e-3 < gaps["stop gradient"] and gaps["none"] > 1e-3


def true_slope():
    """Differences of E log Z-hat, enumerated by hand: states of two particles, ancestors, states again."""

    def mean(tables):
        moves, emits = softmax(tables[:4].reshape(2, 2), -1), softmax(tables[4:].reshape(2, 2), -1)
        total = 0.0
        for first, a, second in itertools.product(itertools.product(range(2), repeat=2), repeat=3):
            w = emits[list(first), SEEN[0]]
            parents = [first[j] for j in a]
            p = 0.25 * np.prod(w[list(a)] / w.sum()) * np.prod(moves[parents, list(second)])
            total += p * (np.log(w.mean()) + np.log(emits[list(second), SEEN[1]].mean()))
        return total

    h = 1e-3
    steps = h * np.eye(8)
    return np.array(
        [
            (8 * (mean(TABLES + e) - mean(TABLES - e)) - mean(TABLES + 2 * e) + mean(TABLES - 2 * e)) / (12 * h)
            for e in steps
        ]
    )


@pytest.mark.parametrize("scheme", ["systematic", "multinomial"])
def test_the_bound_grows_with_the_particles(scheme):
    bounds = [
        scg.exact.expectation(
            lambda t, rng, k=k: filtered(t, rng, particles=k, of=lambda v: v, resampling=scheme), TABLES, rng=rng()
        )
        for k in (1, 2, 3)
    ]
    assert bounds[0] < bounds[1] < bounds[2] < np.log(hidden_markov(TABLES, SEEN[:2]))


@pytest.mark.parametrize("scheme", ["systematic", "multinomial"])
@pytest.mark.parametrize("threshold", [1.0, 0.7])
def test_ancestors(scheme, threshold):
    log_w = np.array([[0.3, -1.5, 2.0], [0.1, 0.0, 0.1]])
    ancestors = Ancestors(log_w, scheme, threshold)
    check_distribution(ancestors, rng=rng())
    p = np.exp(ancestors.log_prob(ancestors.atoms()))
    if threshold == 1.0:  # each has K W_j descendants in the mean
        counts = np.sum(ancestors.atoms()[..., None] == np.arange(3), axis=-2)
        np.testing.assert_allclose(np.sum(p[..., None] * counts, axis=0), 3 * softmax(log_w, -1), rtol=1e-12)
    else:  # the second row is even enough
        assert p[-1].tolist() == [0.0, 1.0] and np.all(ancestors.sample(rng(), 5)[:, 1] == [3, 4, 5])


STATES, SYMBOLS, HEARD = 4, 3, [0, 2, 1, 1, 0]
ROWS = np.random.default_rng(3).normal(0, 1.2, STATES * (STATES + SYMBOLS))


def rows(values):
    """Logits of the moves, and of what is heard."""
    return np.reshape(values[: STATES**2], (STATES, STATES)), np.reshape(values[STATES**2 :], (STATES, SYMBOLS))


def forward(values):
    """p(x) of four states by the forward algorithm."""
    moves, emits = (softmax(x, -1) for x in rows(values))
    left = np.full(STATES, 1 / STATES) * emits[:, HEARD[0]]
    for x in HEARD[1:]:
        left = (left @ moves) * emits[:, x]
    return np.sum(left)


def four_states(values, rng, **options):
    moves, emits = rows(values)
    emits = log_softmax(emits, -1)
    step = state_space(
        dist.OneHotCategorical(logits=np.zeros(STATES)),
        lambda t, z: dist.OneHotCategorical(logits=z @ moves),
        lambda t, z: z @ emits[:, HEARD[t]],
        particles=4,
        estimator=scg.ScoreFunction(),
    )
    return np.exp(smc(step, len(HEARD), rng=rng, **options).log_evidence)


@pytest.mark.parametrize(
    ("correction", "resampling"), covering(["stop gradient", "none"], ["systematic", "multinomial"])
)
def test_four_hidden_states_have_their_evidence_and_gradient(resampling, correction):
    """Over 10^5 runs of four particles, to 4 standard errors for the evidence and each of its 28 derivatives; those
    without the correction are off by more than 40."""
    graph = scg.trace(four_states, ROWS, rng=rng(), resampling=resampling, correction=correction)
    z = np.concatenate([graph.run(rng=rng(s), replicates=20_000).cost.raw for s in range(5)])
    assert abs(np.mean(z) - forward(ROWS)) < 4 * np.std(z) / np.sqrt(z.size)
    g = graph.gradients(rng=rng(9), replicates=100_000)
    gap = np.abs(np.mean(g, axis=0) - scg.grad(forward)(ROWS)) / (np.std(g, axis=0) / np.sqrt(len(g)))
    assert np.max(gap) < 4 if correction == "stop gradient" else np.max(gap) > 40


SERIES = np.array([1.1, 0.4, -0.3, 0.9, 1.7, 0.2])
THETA = np.array([0.9, -0.3, -0.2])  # of z_t = a z_{t-1} + q noise, x_t = z_t + r noise: a, log q, log r


def gaussian(theta, x, particles, guide=False):
    a, log_q, log_r = theta

    def better(t, z):  # towards what is seen
        return dist.Normal(0.5 * x[t] if z is None else 0.5 * (a * z + x[t]), 0.9 * np.exp(log_q))

    return state_space(
        dist.Normal(np.zeros(x.shape[1:]), 1.0),
        lambda t, z: dist.Normal(a * z, np.exp(log_q)),
        lambda t, z: dist.Normal(z, np.exp(log_r)).log_prob(x[t]),
        particles=particles,
        guide=better if guide else None,
    )


def kalman(theta, x):
    """log p(x), and the means and variances of z_t given x up to t."""
    a, log_q, log_r = theta
    m, v, total, means, variances = 0.0, 1.0, 0.0, [], []
    for t in range(len(x)):
        if t:
            m, v = a * m, a * a * v + np.exp(2 * log_q)
        total = total + dist.Normal(m, np.sqrt(v + np.exp(2 * log_r))).log_prob(x[t])
        gain = v / (v + np.exp(2 * log_r))
        m, v = m + gain * (x[t] - m), (1 - gain) * v
        means.append(m)
        variances.append(v)
    return total, means, variances


def rauch(theta, x):
    """The means of z_t given all of x."""
    a, log_q, _ = theta
    _, means, variances = kalman(theta, x)
    found = [means[-1]]
    for m, v in zip(means[-2::-1], variances[-2::-1], strict=True):
        gain = a * v / (a * a * v + np.exp(2 * log_q))
        found.append(m + gain * (found[-1] - a * m))
    return np.array(found[::-1])


@pytest.mark.parametrize(
    "options, guide",
    [
        (UNBIASED[1], False),
        (UNBIASED[1], True),
        (UNBIASED[2], True),
        pytest.param(UNBIASED[0], False, marks=pytest.mark.long),
        pytest.param(UNBIASED[3], True, marks=pytest.mark.long),
    ],
    ids=str,
)
def test_a_linear_gaussian_model_has_its_evidence_and_gradient(options, guide):
    """Over 10^5 runs of few particles, to 4.5 standard errors for each of 4 numbers."""

    def cost(theta, rng):
        return np.exp(smc(gaussian(theta, SERIES, 4, guide), 6, rng=rng, **options).log_evidence)

    graph = scg.trace(cost, THETA, rng=rng())
    evidence = np.exp(kalman(THETA, SERIES)[0])
    z = np.concatenate([graph.run(rng=rng(s), replicates=20_000).cost.raw for s in range(5)])
    assert abs(np.mean(z) - evidence) < 4.5 * np.std(z) / np.sqrt(z.size)
    g = graph.gradients(rng=rng(9), replicates=100_000)
    truth = evidence * scg.grad(lambda theta: kalman(theta, SERIES)[0])(THETA)
    assert np.all(np.abs(np.mean(g, axis=0) - truth) < 4.5 * np.std(g, axis=0) / np.sqrt(len(g)))


def test_the_uncorrected_gradient_of_a_linear_gaussian_model_is_biased():
    graph = scg.trace(
        lambda theta, rng: np.exp(smc(gaussian(theta, SERIES, 4), 6, rng=rng, correction="none").log_evidence),
        THETA,
        rng=rng(),
    )
    g = graph.gradients(rng=rng(9), replicates=50_000)
    truth = np.exp(kalman(THETA, SERIES)[0]) * scg.grad(lambda theta: kalman(theta, SERIES)[0])(THETA)
    assert np.max(np.abs(np.mean(g, axis=0) - truth) / (np.std(g, axis=0) / np.sqrt(len(g)))) > 10


def test_filtered_and_smoothed_means_are_those_of_kalman_and_rauch():
    x = np.stack([SERIES, SERIES[::-1]], axis=-1)  # a batch of two
    run = smc(gaussian(THETA, x, 20_000), 6, rng=rng())
    _, means, variances = kalman(THETA, x)
    assert np.max(np.abs(run.filtered() - np.array(means))) < 0.03
    second = run.filtered(lambda z: z**2) - run.filtered() ** 2
    assert np.max(np.abs(second - np.array(variances)[:, None])) < 0.03
    np.testing.assert_allclose(np.sum(run.increments, axis=0).value, run.log_evidence.value, rtol=1e-14)
    assert np.max(np.abs(run.log_evidence - kalman(THETA, x)[0])) < 0.05
    small = smc(gaussian(THETA, x, 500), 6, rng=rng(1))
    paths = small.smoothed(lambda t, z: dist.Normal(THETA[0] * z, np.exp(THETA[1])), paths=2000, rng=rng(2))
    assert paths.shape == (6, 2000, 2) and np.max(np.abs(paths.mean(axis=1) - rauch(THETA, x))) < 0.12
    assert "500 over 6 steps" in repr(small)


def test_particles_are_structures_and_steps_are_functions():
    """The same filter written out, with a state of two parts: one of them counts."""

    def step(t, z, rng):
        level = dist.Normal(np.zeros(()), 1.0) if t == 0 else dist.Normal(THETA[0] * z["level"], np.exp(THETA[1]))
        level = scg.sample(level, scg.Reparameterized(), rng=rng, shape=50 if t == 0 else ())
        count = np.zeros((50, 2)) if t == 0 else z["count"] + 1
        return {"level": level, "count": count}, dist.Normal(level, np.exp(THETA[2])).log_prob(SERIES[t])

    found = smc(step, 6, rng=rng())
    plain = smc(gaussian(THETA, SERIES, 50), 6, rng=rng())
    assert found.log_evidence == plain.log_evidence
    assert np.all(found.samples[-1]["count"] == 5) and found.filtered(lambda z: z["level"]).shape == (6,)


def test_memory_is_linear_in_the_steps():
    """Of the value and the gradient, 200 particles and a batch of 4: what each step adds is the same."""

    def cost(theta, x, rng):
        return np.sum(smc(gaussian(theta, x, 200), len(x), rng=rng).log_evidence)

    peaks, gradient = [], scg.value_and_grad(cost)
    for steps in (10, 20, 40, 80):
        x = np.resize(SERIES, (steps, 4))
        tracemalloc.start()
        gradient(THETA, x, rng=rng())
        peaks.append(tracemalloc.get_traced_memory()[1] / steps)
        tracemalloc.stop()
    assert max(peaks) < 1.3 * min(peaks)


def test_plans_run_the_filter():
    def cost(theta, rng):
        return np.sum(smc(gaussian(theta, np.stack([SERIES, SERIES], -1), 30), 6, rng=rng).log_evidence)

    compiled = scg.compile(scg.value_and_grad(cost))
    for seed in range(4):
        value, gradient = compiled(THETA, rng=rng(seed))
        expected, slope = scg.value_and_grad(cost)(THETA, rng=rng(seed))
        np.testing.assert_allclose(value, expected, rtol=1e-12)
        np.testing.assert_allclose(gradient, slope, rtol=1e-10)
    assert "1 signatures" in repr(compiled)


@pytest.mark.parametrize(
    "options, kind, message",
    [
        ({"resampling": "residual"}, ScgValueError, "resampling must be one of 'systematic', 'multinomial'"),
        ({"correction": "dice"}, ScgValueError, "correction must be one of"),
        ({"threshold": 1.5}, ScgValueError, "threshold must be a number from 0 to 1"),
        ({"correction": "score function"}, EstimatorError, "needs resampling='multinomial'"),
        ({"steps": 0}, ScgValueError, "steps must be at least 1"),
    ],
)
def test_options_are_checked(options, kind, message):
    with pytest.raises(kind, match=message):
        smc(gaussian(THETA, SERIES, 4), **{"steps": 3, **options}, rng=rng())


def test_steps_that_return_something_else_are_refused():
    for step, kind, message in (
        (lambda t, z, rng: np.zeros(3), ScgTypeError, r"step\(0, ...\) must return \(particles, log_weights\)"),
        (lambda t, z, rng: (np.zeros(3), 0.0), ScgTypeError, "axis of particles in front"),
        (lambda t, z, rng: (np.zeros(3), np.zeros(4)), ScgValueError, "particles of step 0 have shape"),
        (lambda t, z, rng: (np.zeros(3 + t), np.zeros(3 + t)), ScgValueError, r"shape \(4,\), those before \(3,\)"),
    ):
        with pytest.raises(kind, match=message):
            smc(step, 2, rng=rng())
