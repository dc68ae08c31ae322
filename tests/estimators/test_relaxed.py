"""Relaxations and straight-through estimators: biases, distributions of the values, replicates."""

import numpy as np
import pytest

import scg
from scg import distributions as dist
from scg.core.backward import pull
from scg.errors import EstimatorError, ScgValueError
from tests.support.oracle import expectation

pytestmark = pytest.mark.fast

THETA = np.array([0.3, -0.5, 0.8, 0.1])
WORTH = np.array([1.0, -0.4, 2.0, 0.7])
BIASED = {
    "straight-through": lambda: scg.StraightThrough(),
    "straight-through, decoupled": lambda: scg.StraightThrough(temperature=0.6),
    "straight-through, gapped": lambda: scg.StraightThrough(gap=1.0),
    "straight-through, gapped and warm": lambda: scg.StraightThrough(1.5, gap=0.4),
    "reinmax": lambda: scg.ReinMax(),
    "gumbel, hard": lambda: scg.GumbelSoftmax(0.7, hard=True),
    "gumbel, soft": lambda: scg.GumbelSoftmax(0.7),
}


def mean_gradient(cost, estimator, points=12):
    """(mean of the estimator's gradient, exact gradient); the latter from the graph that is enumerated."""

    def gradient(used):
        t = scg.parameter(THETA)
        loss = scg.surrogate(cost(t, np.random.default_rng(0), used))
        return expectation(pull([loss], [np.ones(())], [t], True)[0], points).value

    t = scg.parameter(THETA)
    exact = expectation(cost(t, np.random.default_rng(0), scg.ScoreFunction()))
    return gradient(estimator), pull([exact], [np.ones(())], [t])[0]


def coin_cost(f):
    return lambda t, rng, estimator: f(scg.sample(dist.Bernoulli(logits=t[0]), estimator, rng=rng), t)


def class_cost(f):
    return lambda t, rng, estimator: f(scg.sample(dist.OneHotCategorical(logits=t), estimator, rng=rng), t)


@pytest.mark.parametrize("name", BIASED)
def test_biased_estimators_say_so_and_are(name):
    """On (b - .3)^3, a coin: the mean is off by far more than the quadrature is."""
    estimator = BIASED[name]()
    assert estimator.unbiased is False
    means = [mean_gradient(coin_cost(lambda b, t: (b - 0.3) ** 3), estimator, points)[0] for points in (150, 170)]
    _, exact = mean_gradient(coin_cost(lambda b, t: (b - 0.3) ** 3), scg.StraightThrough())
    bias = abs(means[1][0] - exact[0])
    assert bias > 0.005
    if "hard" not in name:  # which is a step function of the noise
        assert abs(means[1][0] - means[0][0]) < 1e-6


@pytest.mark.parametrize("estimator", ["straight-through", "reinmax"])
@pytest.mark.parametrize("make", [coin_cost, class_cost])
def test_linear_costs_leave_no_bias(make, estimator):
    found, exact = mean_gradient(
        make(lambda z, t: np.sum(z * t[0] * (1 + np.arange(z.size))) - t[1]), BIASED[estimator]()
    )
    np.testing.assert_allclose(found, exact, rtol=1e-10, atol=1e-12)


def test_straight_through_bias_of_a_square():
    """(b - a)^2: E f'(b) dp = 2 (p - a) q, exact (1 - 2a) q with q = p (1 - p)."""
    p = 1 / (1 + np.exp(-THETA[0]))
    found, exact = mean_gradient(coin_cost(lambda b, t: (b - 0.3) ** 2), scg.StraightThrough())
    assert found[0] == pytest.approx(2 * (p - 0.3) * p * (1 - p), rel=1e-12)
    assert exact[0] == pytest.approx((1 - 0.6) * p * (1 - p), rel=1e-12)


@pytest.mark.parametrize(
    "distribution", [lambda t: dist.Bernoulli(logits=t[0]), lambda t: dist.Bernoulli(probs=0.5 + 0.4 * np.tanh(t[0]))]
)
def test_reinmax_is_of_second_order(distribution):
    """Exact for squares; for b^3 the trapezoid q (f'(0) + f'(1)) / 2 = 3q/2 stands for q."""

    def cost(degree):
        return lambda t, rng, estimator: (scg.sample(distribution(t), estimator, rng=rng) * t[1]) ** degree

    found, exact = mean_gradient(cost(2), scg.ReinMax())
    np.testing.assert_allclose(found, exact, rtol=1e-10, atol=1e-12)
    found, exact = mean_gradient(cost(3), scg.ReinMax())
    assert found[0] == pytest.approx(1.5 * exact[0], rel=1e-10)


def test_reinmax_for_two_classes_is_reinmax_for_a_coin():
    """Logits (l, 0) of two classes, and f of degree two in the first coordinate."""

    def cost(t, rng, estimator):
        z = scg.sample(dist.OneHotCategorical(logits=np.stack([t[0], 0 * t[0]])), estimator, rng=rng)
        return (z[0] - 0.3) ** 2 * t[1] + z[0] * z[1]

    found, exact = mean_gradient(cost, scg.ReinMax())
    np.testing.assert_allclose(found, exact, rtol=1e-10, atol=1e-12)


def test_soft_gumbel_is_the_pathwise_gradient_of_the_relaxed_cost():
    """E sigmoid((l + logit u) / T)^2 and its derivative by the trapezoid rule over x = logit u."""
    T, l = 0.7, THETA[0]
    x = np.linspace(-40, 40, 40_001)
    s = 1 / (1 + np.exp(-x))
    weight = s * (1 - s) * (x[1] - x[0])
    y = 1 / (1 + np.exp(-(l + x) / T))
    found, _ = mean_gradient(coin_cost(lambda b, t: b**2), scg.GumbelSoftmax(T), points=170)
    assert found[0] == pytest.approx(weight @ (2 * y * y * (1 - y) / T), rel=1e-4)  # u is no polynomial


def test_lower_temperature_less_bias():
    cost = coin_cost(lambda b, t: (b - 0.3) ** 3)
    exact = mean_gradient(cost, scg.StraightThrough())[1][0]
    bias = [abs(mean_gradient(cost, scg.GumbelSoftmax(T), points=170)[0][0] - exact) for T in (1.0, 0.5, 0.25)]
    assert bias[0] > bias[1] > bias[2]


@pytest.mark.parametrize("estimator", ["straight-through", "reinmax"])
@pytest.mark.parametrize("distribution", [dist.Bernoulli(logits=THETA), dist.OneHotCategorical(logits=THETA)])
def test_the_value_is_the_discrete_draw(distribution, estimator):
    plain = scg.sample(distribution, scg.ScoreFunction(), rng=np.random.default_rng(7), shape=(50,))
    relaxed = scg.sample(distribution, BIASED[estimator](), rng=np.random.default_rng(7), shape=(50,))
    np.testing.assert_array_equal(plain.value, relaxed.value)
    assert relaxed.dtype == plain.dtype


@pytest.mark.parametrize("hard", [True, False])
@pytest.mark.parametrize("distribution", [dist.Bernoulli(logits=THETA), dist.OneHotCategorical(logits=THETA)])
def test_distribution_of_the_gumbel_value(distribution, hard):
    """Hard: the distribution's own, within 5 standard deviations each. Soft: strictly between the corners, with the
    largest coordinate of that distribution."""
    n, estimator = 20_000, scg.GumbelSoftmax(0.4, hard=hard)
    z = scg.sample(distribution, estimator, rng=np.random.default_rng(2), shape=(n,)).value
    assert estimator.keeps_distribution is hard
    if hard:
        assert np.all((z == 0) | (z == 1))
        assert distribution.event_shape == () or np.all(z.sum(axis=-1) == 1)
    else:
        assert np.all((z > 0) & (z < 1))
        z = z > 0.5 if distribution.event_shape == () else z == z.max(axis=-1, keepdims=True)
    assert np.all(np.abs(z.mean(axis=0) - distribution.mean) < 5 * np.sqrt(distribution.variance / n))


@pytest.mark.parametrize("estimator", BIASED)
def test_relaxed_draws_in_replicates_and_rebound(estimator):
    """New draws for each replicate, and a rebound node keeps its name and the model."""

    def cost(t, rng):
        z = scg.sample(dist.OneHotCategorical(logits=t), scg.ScoreFunction(), rng=rng, shape=(2,), name="z")
        return np.sum((z * WORTH) ** 2)

    graph = scg.trace(cost, THETA, rng=np.random.default_rng(0)).bind(z=BIASED[estimator]())
    many = graph.run(rng=np.random.default_rng(1), replicates=200)
    assert many.stochastic["z"].shape == (200, 2, 4)
    assert len(np.unique(many.stochastic["z"].value.argmax(axis=-1).reshape(200, 2), axis=0)) == 16
    gradients = scg.gradients(np.sum(many.cost), many.parameters)
    assert gradients.shape == (200, 4)
    assert np.all(np.isfinite(gradients))
    assert len(np.unique(np.round(gradients, 12), axis=0)) > 5


def jacobian(distribution, estimator, seed):
    """The sample of a seed and dz / dl, from costs that are linear in it."""
    rows = []
    for w in np.eye(THETA.size):
        t = scg.parameter(THETA)
        z = scg.sample(distribution(t), estimator, rng=np.random.default_rng(seed))
        rows.append(pull([np.sum(w * z)], [np.ones(())], [t])[0])
    return z.value, np.stack(rows)


@pytest.mark.parametrize("temperature, gap", [(0.6, None), (1.0, 1.0), (1.5, 0.4), (None, 2.0)])
def test_a_coin_is_the_first_of_two_classes_and_keys_have_the_sample_on_top(temperature, gap):
    """The derivative is that of a softmax of keys in which the sample leads by the gap, as the papers write them."""
    estimator, tau = scg.StraightThrough(temperature, gap), temperature or 1.0
    seen = set()
    for seed in range(25):
        z, found = jacobian(lambda t: dist.OneHotCategorical(logits=t), estimator, seed)
        chosen = z.argmax()
        seen.add(chosen)
        keys = THETA
        if gap is not None:  # m1 raises the sample to the top, m2 lowers those within the gap
            keys = THETA + (THETA.max() - THETA[chosen]) * z - np.maximum(THETA + gap - THETA.max(), 0) * (1 - z)
            assert np.all(keys[chosen] - np.delete(keys, chosen) > gap - 1e-12)
        p = np.exp(keys / tau) / np.sum(np.exp(keys / tau))
        np.testing.assert_allclose(found, (np.diag(p) - np.outer(p, p)) / tau, atol=1e-14)
        b, of_coin = jacobian(lambda t: dist.Bernoulli(logits=t), estimator, seed)
        for k in range(THETA.size):
            pair = np.array([THETA[k], 0.0])
            if gap is not None:
                one = np.array([b[k], 1 - b[k]])
                pair = (
                    pair + (pair.max() - pair[one.argmax()]) * one - np.maximum(pair + gap - pair.max(), 0) * (1 - one)
                )
            q = 1 / (1 + np.exp((pair[1] - pair[0]) / tau))
            assert of_coin[k, k] == pytest.approx(q * (1 - q) / tau, rel=1e-12)
    assert len(seen) == 4


@pytest.mark.parametrize("estimator", [e for e in BIASED if e.startswith("straight") or e == "reinmax"])
@pytest.mark.parametrize("make", [lambda t: dist.OneHotCategorical(logits=t), lambda t: dist.Bernoulli(logits=t)])
def test_the_derivative_has_no_noise_given_the_sample(make, estimator):
    """Which is why there is nothing to average over keys."""
    found = {}
    for seed in range(30):
        z, slope = jacobian(make, BIASED[estimator](), seed)
        np.testing.assert_array_equal(found.setdefault(z.tobytes(), slope), slope)
    assert 1 < len(found) < 30


def test_what_is_no_temperature_and_no_gap_is_refused():
    for made in (lambda: scg.StraightThrough(0.0), lambda: scg.StraightThrough(gap=-1.0)):
        with pytest.raises(ScgValueError, match="StraightThrough"):
            made()
    with pytest.raises(EstimatorError, match="Bernoulli or OneHotCategorical"):
        scg.sample(dist.Poisson(3.0), scg.StraightThrough(gap=1.0), rng=np.random.default_rng(0))


def test_float32_stays():
    for name in BIASED:

        def cost(t, rng, estimator=BIASED[name]()):
            return np.sum(scg.sample(dist.OneHotCategorical(logits=t), estimator, rng=rng) ** 2)

        assert scg.grad(cost)(THETA.astype(np.float32), rng=np.random.default_rng(0)).dtype == np.float32, name
