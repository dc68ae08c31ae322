"""Exact expectations of drawn programs with one continuous draw, against a midpoint rule in the quantiles: what is
returned is right, or it is refused."""

import functools

import numpy as np
import pytest
import scipy.special as sp
from scipy import stats

import scg
import scg.exact
from scg import distributions as dist

N = 2**19
DRAWS = {  # as scg declares it, and the quantiles of SciPy
    "normal": (lambda t: dist.Normal(t, 1.0), stats.norm(0.3)),
    "narrow normal": (lambda t: dist.Normal(t, 0.2), stats.norm(0.3, 0.2)),
    "laplace": (lambda t: dist.Laplace(t, 0.8), stats.laplace(0.3, 0.8)),
    "logistic": (lambda t: dist.Logistic(t, 0.5), stats.logistic(0.3, 0.5)),
    "student": (lambda t: dist.StudentT(6.0, t, 1.0), stats.t(6, 0.3)),
    "gamma": (lambda t: dist.Gamma(2.5, 2.0 + 0 * t), stats.gamma(2.5, scale=0.5)),
    "exponential": (lambda t: dist.Exponential(1.2 + 0 * t), stats.expon(scale=1 / 1.2)),
    "lognormal": (lambda t: dist.LogNormal(t - 0.5, 0.6), stats.lognorm(0.6, scale=np.exp(-0.2))),
    "beta": (lambda t: dist.Beta(1.7, 2.2 + 0 * t), stats.beta(1.7, 2.2)),
    "uniform": (lambda t: dist.Beta(1.0, 1.0 + 0 * t), stats.uniform(0, 1)),
}


def programs(rng):
    """A function of a number, in NumPy alone: a smooth inner one, and an outer one that bends, jumps, is steep or is
    nothing but a narrow bump."""
    a, b, c = rng.normal(0.3, 0.5), rng.uniform(0.3, 2.0) * rng.choice([-1, 1]), rng.uniform(0.05, 0.8)
    w = 10.0 ** rng.uniform(-3, -0.5)
    full = lambda z, v: 0 * z + v
    stack = lambda *x: np.stack(x)
    inner = [
        lambda z: z - a,
        lambda z: b * (z - a),
        lambda z: (z - a) * (z + c),
        lambda z: np.sin(2 * b * (z - a)),
        lambda z: np.tanh(b * z) - c,
        lambda z: z * z - c,
        lambda z: np.exp(-z * z) - c,
        lambda z: np.log1p(z * z) - c,
    ]
    bends = [
        lambda x: np.abs(x),
        lambda x: np.maximum(x, c),
        lambda x: np.minimum(x, full(x, c)),
        lambda x: np.clip(x, -c, 0.4),
        lambda x: np.where(x > c, x * x, c - x),
        lambda x: np.median(stack(x, full(x, -c), full(x, c)), axis=0),
        lambda x: np.sort(stack(x, full(x, c), x * x), axis=0)[1],
        lambda x: np.hypot(x, 0.0),
        lambda x: np.max(stack(x, -x, full(x, c)), axis=0),
        lambda x: np.mod(x, 0.7),
        lambda x: np.sqrt(np.abs(x)),
        lambda x: np.ptp(stack(x, full(x, 0.2)), axis=0),
        lambda x: np.fmod(x, c + 0.2),
        lambda x: np.linalg.norm(stack(x, 0 * x), axis=0),
    ]
    jumps = [
        lambda x: np.floor(1.3 * x),
        lambda x: np.round(x + c),
        lambda x: np.sign(x),
        lambda x: np.heaviside(x, 0.5),
        lambda x: np.where(x > 0, 1.0, -c),
        lambda x: 1.0 * np.searchsorted(np.array([-c, 0.1, 0.6]), x),
        lambda x: np.arctan2(0 * x, x),
        lambda x: np.angle(x + 0j),
        lambda x: np.arctan2(x, -c + 0 * x),
        lambda x: 1.0 * ((x > -c) & (x < 0.3)),
        lambda x: 1.0 * np.isclose(x, 0.0, atol=c),
        lambda x: x / np.sqrt(x * x),
        lambda x: x / np.hypot(x, 0.0),
        lambda x: 1.0 * np.isnan(np.log(x)),
        lambda x: 1.0 * np.isfinite(np.sqrt(x)),
        lambda x: np.log(x + 0j).imag,
        lambda x: 1.0 * np.argmax(stack(x, full(x, c)), axis=0),
        lambda x: 1.0 * np.nanargmax(stack(full(x, c), x), axis=0),
        lambda x: np.argpartition(stack(x, full(x, c)), 0, axis=0)[0] * 1.0,
        lambda x: np.copysign(1.0 + 0 * x, x),
        lambda x: np.digitize(x, [-0.5, c]) * 1.0,
        lambda x: np.floor_divide(x, 0.9),
    ]
    steep = [
        lambda x: sp.expit(x / w),
        lambda x: np.tanh(x / w),
        lambda x: sp.erf(x / w),
        lambda x: np.arctan(x / w),
        lambda x: x / np.sqrt(x * x + w * w),
        lambda x: np.logaddexp(x / w, 0.0) * w,
    ]
    bumps = [
        lambda x: np.exp(-0.5 * (x / w) ** 2),
        lambda x: 1 / (1 + (x / w) ** 2),
        lambda x: 1 / np.cosh(np.minimum(np.abs(x / w), 300.0)) ** 2,
        lambda x: sp.expit(x / w) * sp.expit(-x / w),
        lambda x: np.exp(-np.abs(x) / w),
    ]
    windows = [
        lambda x: 1.0 * (np.abs(x) < w),
        lambda x: np.where((x > 0) & (x < w), 1.0, 0.0),
        lambda x: 1.0 * np.isclose(x, 0.0, atol=w),
        lambda x: np.maximum(0.0, 1 - np.abs(x) / w),
        lambda x: np.where(x * x < w * w, np.cos(x), 0.0),
    ]
    kinds = [bends, jumps, steep, bumps, windows]
    f, g = inner[rng.integers(len(inner))], (kind := kinds[rng.integers(len(kinds))])[rng.integers(len(kind))]
    more, (name, (distribution, other)) = rng.random(), list(DRAWS.items())[rng.integers(len(DRAWS))]
    if more < 0.3:
        h = bends[rng.integers(len(bends))]
        return name, distribution, other, lambda z: h(g(f(z)) + 0.1 * z)
    if more < 0.5:
        return name, distribution, other, lambda z: g(f(z)) + np.cos(z)
    return name, distribution, other, lambda z: g(f(z))


@functools.cache
def quantiles(name):
    return DRAWS[name][1].ppf((np.arange(N) + 0.5) / N)


def beyond(frozen):
    """Values beyond the outer quantiles, where a function may jump."""
    tail = np.geomspace(1e-14, 0.5 / N, 1000)
    return np.concatenate([frozen.ppf(tail), frozen.isf(tail)])


def check(seed):
    """None where the expectation was refused; else it is asserted to be within its error of the midpoint rule, which is
    off by half the variation over N."""
    rng = np.random.default_rng([7, seed])
    name, distribution, other, f = programs(rng)
    cost = lambda t, rng: f(scg.sample(distribution(t), scg.ScoreFunction(), rng=rng, name="z"))
    with np.errstate(all="ignore"):
        values = f(quantiles(name))
        found = []
        for trace in range(1 + (seed % 4 == 0)):  # whatever was drawn when the function was traced
            try:
                found.append(
                    scg.exact.expectation(scg.trace(cost, np.array(0.3), rng=np.random.default_rng(trace)), full=True)
                )
            except scg.exact.ConvergenceError:
                found.append(None)
        far = np.max(np.abs(f(beyond(other))))
    truth, off = np.mean(values), np.sum(np.abs(np.diff(values))) / (2 * N) + 2 * far / N
    if found[0] is None:
        assert found == [None] * len(found)
        return None
    assert all(f is not None and abs(found[0].value - f.value) <= found[0].error + f.error for f in found), (seed, name)
    assert abs(found[0].value - truth) <= off + found[0].error, (seed, name, found[0], truth, off)
    assert found[0].error <= 1e-6 * max(np.mean(np.abs(values)), 1e-3), (seed, found[0])
    return found[0]


def test_no_silent_error_in_programs():
    refused = [seed for seed in range(20) if check(seed) is None]
    assert len(refused) <= 2, refused  # jumps without end in a heavy tail


@pytest.mark.long
def test_no_silent_error_in_a_thousand_programs():
    refused = [seed for seed in range(20, 1100) if check(seed) is None]
    assert len(refused) <= 60, refused


MOVED = {  # distributions that t moves along, and their scores d log p / dt of SciPy's densities
    name: lambda x, frozen=DRAWS[name][1]: (frozen.logpdf(x - 1e-5) - frozen.logpdf(x + 1e-5)) / 2e-5
    for name in ("normal", "narrow normal", "laplace", "logistic", "student")
}


@functools.cache
def scores(name):
    return MOVED[name](quantiles(name))


def check_slope(seed):
    """The gradient, and mean and variance of the score function estimator, against midpoint rules; how many of the two
    were refused."""
    for attempt in range(100):
        name, distribution, _, f = programs(np.random.default_rng([8, seed, attempt]))
        if name in MOVED:
            break
    cost = lambda t, rng: f(scg.sample(distribution(t), scg.ScoreFunction(), rng=rng, name="z"))
    with np.errstate(all="ignore"):
        values, ends = f(quantiles(name)) * scores(name), beyond(DRAWS[name][1])
        far = np.max(np.abs(f(ends) * MOVED[name](ends)))
        graph = scg.trace(cost, np.array(0.3), rng=np.random.default_rng(0))
        wanted = [np.mean(values)], [np.mean(values), np.var(values)]
        sizes = [(values, far)], [(values, far), (values**2, far**2)]
        refused = 0
        for compute, truths, rows in zip((scg.exact.gradient, scg.exact.moments), wanted, sizes, strict=True):
            try:
                found = compute(graph, full=True)
            except scg.exact.ConvergenceError:
                refused += 1
                continue
            for value, truth, (row, most) in zip(np.atleast_1d(found.value), truths, rows, strict=True):
                off = np.sum(np.abs(np.diff(row))) / (2 * N) + 4 * (abs(row[0]) + abs(row[-1])) / N + 2 * most / N
                off += 1e-9 * np.mean(np.abs(row))  # of the scores by differences
                assert abs(value - truth) <= 3 * off + found.error, (seed, name, compute, found, truth, off)
                assert found.error <= 1e-6 * max(np.mean(np.abs(row)), 1e-3), (seed, compute, found)
    return refused


def test_no_silent_error_in_gradients_and_moments_of_programs():
    assert sum([check_slope(seed) for seed in range(10)]) <= 3  # of 20; tails of Student's t


@pytest.mark.long
def test_no_silent_error_in_gradients_and_moments_of_a_thousand_programs():
    assert sum([check_slope(seed) for seed in range(10, 1100)]) <= 200
