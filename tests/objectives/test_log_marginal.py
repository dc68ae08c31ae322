"""The logarithm of a mean over samples that are summed out: the forward algorithm of a loop, mixtures, and bounds with
continuous samples beside them, held against sums over all paths."""

import itertools

import numpy as np
import pytest

import scg
import scg.exact
from scg import distributions as dist
from scg.core.tree import leaves
from scg.errors import ScgError
from scg.special import log_softmax, logsumexp
from tests.support.compiled import both

SUM, PATH = scg.Marginalize(), scg.Reparameterized()
K, T = 3, 4


def parameters(rng):
    return {"start": rng.normal(size=K), "loc": 2 * rng.normal(size=K), "step": rng.normal(size=(K, K))}


def agree(found, expected, tolerance=1e-10):
    for (_, a), (_, b) in zip(leaves(found), leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, tolerance, tolerance)


def chains(p, x, rng, scale=1.0):
    """log p(x) of each row of x, by a loop."""
    z, total = None, 0.0
    for t in range(x.shape[1]):
        logits = np.broadcast_to(p["start"], (len(x), K)) if z is None else z @ p["step"]
        z = scg.sample(dist.OneHotCategorical(logits=logits), SUM, rng=rng, name=f"z{t}")
        total = total + np.sum(z * dist.Normal(p["loc"], scale).log_prob(x[:, t, None]), axis=-1)
    return scg.objectives.log_marginal(total)


def by_paths(p, x, scale=1.0):
    """The same, summed over all paths."""
    start, step = log_softmax(p["start"], -1), log_softmax(p["step"], -1)
    table = dist.Normal(p["loc"], scale).log_prob(x[:, :, None])
    found = []
    for path in itertools.product(range(K), repeat=x.shape[1]):
        total = start[path[0]] + sum(step[a, b] for a, b in itertools.pairwise(path))
        found.append(total + sum(table[:, t, k] for t, k in enumerate(path)))
    return logsumexp(np.stack(found), axis=0)


@pytest.mark.fast
def test_a_loop_is_the_sum_over_all_paths_for_each_row_with_its_derivatives():
    for seed in range(3):
        rng = np.random.default_rng(seed)
        p, x, w = parameters(rng), rng.normal(size=(5, T)) * 2, rng.normal(size=5)
        agree(
            scg.value_and_grad(lambda p: w @ chains(p, x, rng))(p), scg.value_and_grad(lambda p: w @ by_paths(p, x))(p)
        )
        for name in ("loc", "start"):
            at = lambda v, name=name: {**p, name: v}
            first = scg.hessian(lambda v: np.sum(chains(at(v), x[:2], rng)))(p[name])
            agree(first, scg.hessian(lambda v: np.sum(by_paths(at(v), x[:2])))(p[name]))
        rows = scg.jacobian(lambda v: chains({**p, "loc": v}, x, rng))(p["loc"])
        agree(rows, scg.jacobian(lambda v: by_paths({**p, "loc": v}, x))(p["loc"]))


def test_a_long_chain_has_its_evidence_however_small_it_is():
    rng = np.random.default_rng(0)
    p, x = parameters(rng), rng.normal(size=(2, 600)) * 3
    step, table = log_softmax(p["step"], -1), dist.Normal(p["loc"], 0.05).log_prob(x[:, :, None])
    alpha = log_softmax(p["start"], -1) + table[:, 0]
    for t in range(1, 600):
        alpha = logsumexp(alpha[:, :, None] + step, axis=1) + table[:, t]
    found = chains(p, x, rng, 0.05)
    assert found.value.max() < -1e5
    agree(found.value, logsumexp(alpha, axis=-1))


def test_a_random_field_is_normalised_by_its_evidence():
    """log sum_z exp(z' J z + h z) = n log 2 + log E[exp(.)] over fair coins, for couplings of neighbours."""

    def log_z(couplings, h, product):
        n = len(h)
        z = scg.sample(dist.Bernoulli(logits=np.zeros(n)), SUM, rng=np.random.default_rng(0))
        field = z @ np.diag(couplings[:-1], 1) @ z if product else np.sum(couplings[:-1] * z[:-1] * z[1:])
        return scg.objectives.log_marginal(field + h @ z) + n * np.log(2)

    def by_transfer(couplings, h):
        log_a = np.stack([0 * h[0], h[0]])
        for j, field in zip(couplings[:-1], h[1:], strict=True):
            step = np.reshape(np.stack([0 * j, field, 0 * j, field + j]), (2, 2))
            log_a = logsumexp(log_a[:, None] + step, axis=0)
        return logsumexp(log_a)

    rng = np.random.default_rng(0)
    for n in (3, 30):
        couplings, h = rng.normal(size=n), rng.normal(size=n)
        expected = scg.value_and_grad(by_transfer, argnums=(0, 1))(couplings, h)
        agree(scg.value_and_grad(log_z, argnums=(0, 1))(couplings, h, False), expected)
        value, slope = scg.value_and_grad(lambda h, j=couplings: log_z(j, h, True))(h)
        agree((value, slope), (expected[0], expected[1][1]))


@pytest.mark.fast
def test_elements_that_share_a_sample_have_their_evidence_each():
    rng, theta, x = np.random.default_rng(0), np.array([0.4, -0.3]), np.array([0.5, 2.0, -1.0])

    def shared(theta, rng):
        z = scg.sample(dist.Bernoulli(logits=theta[0]), SUM, rng=rng)
        each = scg.sample(dist.Bernoulli(logits=theta[1] * z * np.ones(2)), SUM, rng=rng)
        heights = np.concatenate([z + each, np.reshape(z, 1)])
        return scg.objectives.log_marginal(dist.Normal(heights, 1.0).log_prob(x) + theta[0])

    def expected(theta):
        log_p = lambda z, logits: dist.Bernoulli(logits=logits).log_prob(z)
        found = []
        for i in range(3):
            pairs = itertools.product((0.0, 1.0), (0.0, 1.0) if i < 2 else (None,))
            parts = [
                log_p(z, theta[0])
                + (0 if e is None else log_p(e, theta[1] * z))
                + dist.Normal(z + (e or 0.0), 1.0).log_prob(x[i])
                for z, e in pairs
            ]
            found.append(logsumexp(np.stack(parts), axis=0) + theta[0])
        return np.stack(found)

    agree(scg.jacobian(lambda t: shared(t, rng))(theta), scg.jacobian(expected)(theta))
    agree(shared(theta, rng).value, expected(theta))


def guided(p, x, rng):
    """A switching model: a continuous sample of a guide in each row, the switches summed out."""
    y = scg.sample(dist.Normal(p["loc"][0] + x, 0.7), PATH, rng=rng, name="y")
    s, total = None, -np.sum(dist.Normal(p["loc"][0] + x, 0.7).log_prob(y), axis=-1)
    for t in range(x.shape[1]):
        logits = np.broadcast_to(p["start"], (len(x), K)) if s is None else s @ p["step"]
        s = scg.sample(dist.OneHotCategorical(logits=logits), SUM, rng=rng, name=f"s{t}")
        here = dist.Normal(p["loc"], 1.0).log_prob(y[:, t, None])
        total = total + np.sum(s * here, axis=-1) + dist.Normal(y[:, t], 0.5).log_prob(x[:, t])
    return np.sum(scg.objectives.log_marginal(total))


def test_beside_continuous_samples_plans_and_replicates_are_those_of_single_runs():
    rng = np.random.default_rng(0)
    p, x = parameters(rng), rng.normal(size=(3, T))
    step = scg.compile(scg.value_and_grad(guided))
    step(p, x, rng=np.random.default_rng(0))
    both(scg.value_and_grad(guided), step, (p, 5 * x), seeds=(1, 2, 3))
    assert step.planned

    graph = scg.trace(guided, p, x, rng=rng)
    assert list(graph.stochastic) == ["y"]
    runs = graph.gradients(rng=np.random.default_rng(4), replicates=3)
    noise = graph.run(rng=np.random.default_rng(4), replicates=3).stochastic["y"].value

    e = [(noise[r] - p["loc"][0] - x) / 0.7 for r in range(3)]

    def by_hand(p, r):
        y = p["loc"][0] + x + 0.7 * e[r]
        q = dist.Normal(p["loc"][0] + x, 0.7).log_prob(y)
        return np.sum(by_paths_of(p, y) - np.sum(q, axis=-1) + np.sum(dist.Normal(y, 0.5).log_prob(x), axis=-1))

    def by_paths_of(p, y):
        start, step = log_softmax(p["start"], -1), log_softmax(p["step"], -1)
        table = dist.Normal(p["loc"], 1.0).log_prob(y[:, :, None])
        alpha = start + table[:, 0]
        for t in range(1, T):
            alpha = logsumexp(alpha[:, :, None] + step, axis=1) + table[:, t]
        return logsumexp(alpha, axis=-1)

    for r in range(3):
        agree({k: v[r] for k, v in runs.items()}, scg.grad(by_hand)(p, r))


@pytest.mark.fast
def test_what_depends_on_no_sample_that_is_summed_out_is_refused():
    rng = np.random.default_rng(0)
    z = scg.sample(dist.Bernoulli(logits=0.3), scg.ScoreFunction(), rng=rng)
    for log_p in (z * 2.0, np.zeros(3), scg.parameter(np.ones(2))):
        with pytest.raises(ScgError, match="log_marginal needs.*Marginalize.*draw them by scg.sample"):
            scg.objectives.log_marginal(log_p)
