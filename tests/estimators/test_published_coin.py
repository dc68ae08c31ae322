"""One coin, f(b) = (b - t)^2: the published variances of the gradient for its logit, and the means that known mistakes
would give."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import scg
from scg import distributions as dist
from scg.estimators import rebar
from scg.special import sigmoid
from tests.support.drawn import drawn
from tests.support.oracle import moments

pytestmark = pytest.mark.fast


def score_function(p, t):
    return p * (1 - p) * ((1 - t) ** 2 * (1 - p) + t**2 * p) ** 2


def leave_one_out(p, t):
    q = p * (1 - p)
    return (1 - 2 * t) ** 2 * q * (0.5 - q)


def arm(p, t):
    q, m = p * (1 - p), min(p, 1 - p)
    return (2 / 3 * (1 / 8 - (0.5 - m) ** 3) - q * q) * (1 - 2 * t) ** 2


def disarm(p, t):
    q = p * (1 - p)
    return (1 - 2 * t) ** 2 * q * (max(p, 1 - p) / 2 - q)


ROWS = {
    "score function": (scg.ScoreFunction, score_function, (0.0156251, 0.0155938)),
    "leave-one-out": (
        lambda: scg.ScoreFunction(samples=2, baseline=scg.LeaveOneOut()),
        leave_one_out,
        (2.5e-7, 6.09e-4),
    ),
    "ARM": (scg.ARM, arm, (8.3333e-8, 3.39e-4)),
    "DisARM": (scg.DisARM, disarm, (0.0, 2.94e-4)),
}
CASES = ((0.5, 0.499, 5e-4), (0.3, 0.45, 0.021))


def coin(estimator, t):
    return lambda l, rng: np.sum((scg.sample(dist.Bernoulli(logits=l), estimator, rng=rng) - t) ** 2)


def measured(estimator, p, t):
    """(mean, variance, exact gradient) for the logit."""
    return moments(coin(estimator, t), np.array(np.log(p) - np.log1p(-p)), points=4)


@pytest.mark.parametrize("row", ROWS)
def test_table(row):
    estimator, formula, published = ROWS[row]
    for (p, t, mean), variance in zip(CASES, published, strict=True):
        found = measured(estimator(), p, t)
        assert found[0] == pytest.approx(mean, rel=1e-10)
        assert found[2] == pytest.approx(mean, rel=1e-10)
        assert found[1] == pytest.approx(formula(p, t), rel=1e-8, abs=1e-17)
        assert found[1] == pytest.approx(variance, rel=2e-4, abs=1e-17)


@given(st.floats(0.02, 0.98), st.floats(-2.0, 2.0))
@drawn(20)
def test_table_at_any_probability_and_target(p, t):
    scale = (abs(t) + 1) ** 4
    found = {}
    for row, (estimator, formula, _) in ROWS.items():
        mean, found[row], exact = measured(estimator(), p, t)
        assert mean == pytest.approx(exact, rel=1e-10, abs=1e-14 * scale)
        assert found[row] == pytest.approx(formula(p, t), rel=1e-8, abs=1e-14 * scale)
    assert found["DisARM"] <= found["ARM"] + 1e-14 * scale
    assert found["DisARM"] <= found["leave-one-out"] + 1e-14 * scale


@pytest.mark.parametrize("row", ["ARM", "DisARM", "leave-one-out"])
def test_sampled_variances_agree_with_the_table(row):
    """10^5 replicates; the standard error of a sample variance from the fourth moment; 4.5 of them: once in 150,000
    each."""
    estimator, formula, _ = ROWS[row]
    count, p, t = 100_000, 0.3, 0.45
    graph = scg.trace(coin(estimator(), t), np.array(np.log(3 / 7)), rng=np.random.default_rng(0))
    g = graph.gradients(rng=np.random.default_rng(1), replicates=count)
    assert abs(g.mean() - 0.021) < 4.5 * g.std() / np.sqrt(count)
    assert abs(g.var() - formula(p, t)) < 4.5 * np.sqrt((np.mean((g - g.mean()) ** 4) - g.var() ** 2) / count)


def with_log1p_for_logit(l, s, v):
    """log p + log1p(p) where logit p = log p - log1p(-p) belongs, in the relaxation of a draw that is known."""
    p, b = sigmoid(l), (s + 1) / 2
    u = b * (v * p + 1 - p) + (1 - b) * v * (1 - p)
    move = (b * (v - 1) - (1 - b) * v) * (1 - p) * p / (u * (1 - u))
    return np.log(p) + np.log1p(p) + np.log(u) - np.log1p(-u), 1 - p + p * (1 - p) / (1 + p) + move


def with_log1p_added(l, s, v):
    """And with the other sign turned as well: log u + log1p(-u)."""
    p, b = sigmoid(l), (s + 1) / 2
    u = b * (v * p + 1 - p) + (1 - b) * v * (1 - p)
    move = (b * (v - 1) - (1 - b) * v) * (1 - p) * p * (1 - 2 * u) / (u * (1 - u))
    return np.log(p) + np.log1p(p) + np.log(u) + np.log1p(-u), 1 - p + p * (1 - p) / (1 + p) + move


@pytest.mark.parametrize("wrong", [with_log1p_for_logit, with_log1p_added])
def test_rebar_with_the_wrong_conditional_noise(wrong, monkeypatch):
    """.025 is right for (b - .45)^2 at logit 0; the mistake, in z' alone, moves the mean by half of that and more."""

    def mean():
        return moments(coin(scg.REBAR(0.5), 0.45), np.array(0.0), points=40)[0]

    assert mean() == pytest.approx(0.025, rel=1e-10)
    right, calls = rebar.hidden, []

    def hidden(l, s, v):
        calls.append(v)
        return (right if len(calls) % 2 else wrong)(l, s, v)

    monkeypatch.setattr(rebar, "hidden", hidden)
    assert mean() > 0.0375


def test_enumeration_does_not_sample_when_batched():
    """All replicates are the same number: there is nothing left to draw."""
    graph = scg.trace(coin(scg.Enumerate(), 0.45), np.zeros(3), rng=np.random.default_rng(0))
    np.testing.assert_allclose(graph.gradients(rng=np.random.default_rng(1), replicates=50), 0.025, rtol=1e-12)
