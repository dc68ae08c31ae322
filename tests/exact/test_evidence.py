"""The evidence of a model that is written as draws and log-probabilities: by the forward algorithm, by enumeration, by
closed forms."""

import numpy as np
import pytest
import scipy.special as sp

import scg
import scg.exact
from scg import distributions as dist
from scg.errors import ScgValueError

S = scg.ScoreFunction()


def hidden_markov(theta, x, rng):
    z, total = scg.sample(dist.Categorical(logits=theta["start"]), S, rng=rng), 0.0
    for t in range(len(x)):
        total = total + dist.Normal(theta["loc"][z], 0.7).log_prob(x[t])
        z = scg.sample(dist.Categorical(logits=theta["step"][z]), S, rng=rng)
    return total


def forward(theta, x):
    """log p(x), by messages in log scale."""
    start, step = (v - sp.logsumexp(v, axis=-1, keepdims=True) for v in (theta["start"], theta["step"]))
    message = start
    for t, value in enumerate(x):
        message = message - 0.5 * ((value - theta["loc"]) / 0.7) ** 2 - np.log(0.7) - 0.5 * np.log(2 * np.pi)
        if t + 1 < len(x):
            message = sp.logsumexp(message[:, None] + step, axis=0)
    return sp.logsumexp(message)


@pytest.mark.fast
@pytest.mark.parametrize(("states", "steps"), [(2, 1), (3, 4), (3, 60), (16, 120)])
def test_a_hidden_markov_model_has_the_evidence_of_the_forward_algorithm(states, steps):
    rng = np.random.default_rng(states)
    theta = {
        "start": rng.normal(size=states),
        "loc": rng.normal(size=states),
        "step": rng.normal(size=(states, states)),
    }
    x = 3 * rng.normal(size=steps)
    value, gradient = scg.exact.log_evidence(hidden_markov, theta, x, gradient=True)
    np.testing.assert_allclose(value, forward(theta, x), rtol=1e-12)
    assert scg.exact.log_evidence(hidden_markov, theta, x) == value
    h = 1e-5
    for name, g in gradient.items():
        d = rng.normal(size=g.shape)
        ends = [forward({**theta, name: theta[name] + s * h * d}, x) for s in (1, -1)]
        np.testing.assert_allclose(np.sum(g * d), (ends[0] - ends[1]) / (2 * h), rtol=1e-5, atol=1e-7)


def test_evidence_may_be_smaller_than_any_number():
    rng = np.random.default_rng(0)
    theta = {"start": rng.normal(size=3), "loc": rng.normal(size=3), "step": rng.normal(size=(3, 3))}
    x = 60 * np.ones(300)
    found = scg.exact.log_evidence(hidden_markov, theta, x, full=True)
    assert found.value < -1e6 and abs(found.value - forward(theta, x)) <= 1e-12 * abs(found.value)


@pytest.mark.fast
@pytest.mark.parametrize("width", [0.5, 0.1319, 0.03, 0.01])
def test_evidence_is_right_where_the_data_contradict_one_another(width):
    """States that one observation all but excludes, e^-500 and less, are those that the next ones are left with."""
    rng = np.random.default_rng(0)
    theta = {"start": rng.normal(size=3), "loc": np.arange(3.0), "step": rng.normal(size=(3, 3))}
    x = np.array([0.0, 2.0, 0.0, 1.0, 2.0, 0.0] * 5)

    def model(theta, rng):
        """A state that stays what it was, of which all observations speak."""
        z = scg.sample(dist.Categorical(logits=theta["start"]), S, rng=rng)
        other = scg.sample(dist.Categorical(logits=theta["step"][z]), S, rng=rng)
        return sum([dist.Normal(theta["loc"][z], width).log_prob(v) for v in x]) + np.tanh(other)

    logs = np.array([sum([dist.Normal(m, width).log_prob(v) for v in x]) for m in range(3)])
    start, step = (v - sp.logsumexp(v, axis=-1, keepdims=True) for v in (theta["start"], theta["step"]))
    expected = sp.logsumexp(start + logs + sp.logsumexp(step + np.tanh(np.arange(3)), axis=1))
    value, gradient = scg.exact.log_evidence(model, theta, gradient=True)
    np.testing.assert_allclose(value, expected, rtol=1e-13)
    chance = np.exp(start + logs + sp.logsumexp(step + np.tanh(np.arange(3)), axis=1) - expected)
    np.testing.assert_allclose(gradient["start"], chance - np.exp(start), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("steps", [4, 6, 9])
def test_a_state_that_one_step_excludes_and_others_do_not_counts(steps):
    """Chains that stay in their first of nine states. The first step all but excludes state 1, e^-800 beside one, which
    is no number; two later ones exclude state 0 by e^-550 and e^-500, each of which is."""
    tables = np.full((steps, 9), -5000.0)
    tables[:, :2] = 0.0
    tables[0, 1], tables[1, 0], tables[2, 0] = -800.0, -550.0, -500.0

    def model(scale, rng):
        stay, total = scg.parameter(1000.0 * np.eye(9)), 0.0
        z = scg.sample(dist.Categorical(logits=np.zeros(9)), S, rng=rng)
        for t in range(steps):
            total = total + scale * scg.parameter(tables[t])[z]
            z = scg.sample(dist.Categorical(logits=stay[z]), S, rng=rng) if t + 1 < steps else z
        return total

    value, slope = scg.exact.log_evidence(model, np.array(1.0), gradient=True)
    np.testing.assert_allclose([value, slope], [-800 - np.log(9), -800], rtol=1e-13)


def test_the_evidence_of_drawn_programs_is_that_of_enumeration():
    for seed in range(30):
        rng = np.random.default_rng(seed)
        parents, c = [int(rng.integers(k)) for k in range(1, 5)], rng.normal(size=(5, 4))

        def model(theta, rng, parents=parents, c=c):
            draws = [scg.sample(dist.Bernoulli(logits=theta + np.zeros(2)), S, rng=rng)]
            for k, parent in enumerate(parents):
                draws.append(scg.sample(dist.Bernoulli(logits=c[k, 0] * draws[parent] + theta), S, rng=rng))
            logs = [np.log(0.1 + c[k, 1] ** 2 * z + (theta * z - c[k, 2]) ** 2) for k, z in enumerate(draws)]
            return sum(np.sum(x) for x in logs) + 0.5 * np.sum(draws[0] * draws[-1])

        theta = np.array(0.3)
        value, gradient = scg.exact.log_evidence(model, theta, gradient=True)
        graph = scg.trace(lambda theta, rng, model=model: np.exp(model(theta, rng)), theta, rng=rng)
        mean = scg.exact.expectation(graph)
        np.testing.assert_allclose(value, np.log(mean), rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(gradient, scg.exact.gradient(graph) / mean, rtol=1e-10)


@pytest.mark.fast
def test_a_continuous_draw_is_integrated():
    """x | z ~ N(z, 1), z ~ N(mu, 1): x ~ N(mu, 2)."""

    def model(mu, rng):
        z = scg.sample(dist.Normal(mu, 1.0), scg.Reparameterized(), rng=rng)
        return dist.Normal(z, 1.0).log_prob(0.7)

    value, gradient = scg.exact.log_evidence(model, np.array(0.2), gradient=True)
    np.testing.assert_allclose([value, gradient], [-0.5 * np.log(4 * np.pi) - 0.0625, 0.25], rtol=1e-9)


@pytest.mark.parametrize("width", [1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("coins", [0, 1, 3])
def test_a_precise_observation_is_far_more_likely_somewhere_than_at_any_sample(width, coins):
    """x | z ~ N(z, width) at .7, k coins say that it counts twice: of k + 1 times the widths are width / sqrt(m)."""

    def model(mu, rng):
        z = scg.sample(dist.Normal(mu, 1.0), S, rng=rng)
        twice = [scg.sample(dist.Bernoulli(probs=0.5), S, rng=rng) for _ in range(coins)]
        return (1.0 + sum(twice)) * dist.Normal(z, width).log_prob(0.7)

    logs = []
    for m in range(1, coins + 2):  # N(z; .7, w)^m is N(z; .7, w / sqrt(m)) with another constant
        w = width / np.sqrt(m)
        constant = -m * np.log(width * np.sqrt(2 * np.pi)) + np.log(w * np.sqrt(2 * np.pi))
        chance = np.log(sp.comb(coins, m - 1)) - coins * np.log(2)
        logs.append(chance + constant - 0.5 * np.log(2 * np.pi * (1 + w * w)) - 0.125 / (1 + w * w))
    found = scg.exact.log_evidence(model, np.array(0.2), full=True)
    assert abs(found.value - sp.logsumexp(logs)) <= 10 * found.error + 1e-9


def test_data_that_cannot_be_are_refused():
    def model(theta, rng):
        z = scg.sample(dist.Bernoulli(logits=theta), S, rng=rng)
        return np.log(0 * z)

    with np.errstate(all="ignore"), pytest.raises(ScgValueError, match="probability zero"):
        scg.exact.log_evidence(scg.trace(model, np.array(0.1), rng=np.random.default_rng(0)))


@pytest.mark.parametrize("width", [0.1, 1e-2, 1e-4])
def test_samples_near_sharp_data_are_the_way_out_that_the_refusal_names(width):
    """z_i ~ Normal(z_(i-1) / 2, 1), x_i ~ Normal(z_i, width): by Kalman's filter."""
    data = np.random.default_rng(0).normal(size=9)

    def model(t, rng, near):
        total, before = 0.0, t
        for x in data:
            p = dist.Normal(0.5 * before, 1.0)
            q = dist.Normal(x, width) if near else p
            z = scg.sample(q, scg.ScoreFunction(), rng=rng)
            total = total + dist.Normal(z, width).log_prob(x) + (p.log_prob(z) - q.log_prob(z) if near else 0.0)
            before = z
        return total

    right, m, v = 0.0, 0.1, 0.0
    for x in data:
        m, v = 0.5 * m, 0.25 * v + 1
        right += -0.5 * np.log(2 * np.pi * (v + width**2)) - 0.5 * (x - m) ** 2 / (v + width**2)
        m, v = m + v / (v + width**2) * (x - m), v * width**2 / (v + width**2)
    rng = np.random.default_rng(0)
    with pytest.raises(scg.exact.ConvergenceError, match="near its own, z ~ q"):
        scg.exact.log_evidence(model, np.array(0.1), rng, False)
    assert scg.exact.log_evidence(model, np.array(0.1), rng, True) == pytest.approx(right, abs=1e-9)
