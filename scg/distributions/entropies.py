"""Entropies of counts, for parameters of any size: as integrals where counts are small, as sums over a lattice where
they are large.

With s = exp(-t), Malmsten's integral log Gamma(z + 1) = int_0^inf (z - (1 - s^z) / (1 - s)) exp(-t) / t dt makes the
logarithms of the numbers of ways

    log C(n, k)                  = int (1 - s^k) (1 - s^(n-k)) / (1 - s) exp(-t) / t dt
    log Gamma(n+k) / (k! Gamma(n)) = int (1 - s^k) (1 - s^(n-1)) / (1 - s) exp(-t) / t dt

whose means are those of s^k, which are known. In x = log t the integrand falls as exp(x) to the left, doubly so to the
right, and is analytic for |Im x| < pi/2: the trapezoidal rule of step h errs by exp(-pi^2 / h), 10^-17 for h = 1/4.

Where the variance is large the terms of the entropy cancel. There sum_k p(k) log p(k) is a sum over any lattice that is
finer than the standard deviation, as p is a smooth bell: for step sd / 3 the error is exp(-2 pi^2 9). log p is that of
Loader (2000), of deviances and of what Stirling's formula leaves.
"""

import numpy as np

from scg.core.aliases import Function, Result
from scg.core.ambient import settled
from scg.core.node import Numeric, Value
from scg.distributions.accurate import in_double, stirling
from scg.distributions.discrete import times
from scg.primitives.layout import stop_gradient

_LARGE = 400.0
"""Counts from which on the lattice is used."""
_STEP, _LEFT = 0.25, 38.0  # exp(-38) is beyond a float's digits
# H - log(2 pi e rate) / 2, by Stirling's series and the central moments: coefficients of rate^-1, rate^-2, ...
_POISSON = (-1 / 12, -1 / 24, -19 / 360, -9 / 80, -863 / 2520, -1375 / 1008, -33953 / 5040)


@in_double
def poisson(rate: Numeric) -> Numeric:
    """rate - rate log rate + E[log k!]: a sum up to a rate of 100, then its series."""
    large = rate > 100
    u = 1 / np.where(large, rate, 100)
    series: Result = 0.0
    for c in reversed(_POISSON):
        series = u * (c + series)
    r = np.where(large | (rate == 0), 1.0, rate)
    k = np.arange(300.0).reshape(-1, *[1] * np.ndim(rate))
    log_p = k * np.log(r) - r - np.cumsum(np.log(np.maximum(k, 1)), axis=0)
    few = np.where(rate == 0, 0, -np.sum(np.exp(log_p) * log_p, axis=0))
    return np.where(large, 0.5 * (np.log(2 * np.pi / u) + 1) + series, few)


@in_double
def binomial(n: Numeric, p: Numeric, q: Numeric, log_p: Numeric, log_q: Numeric) -> Numeric:
    """-n p log p - n q log q - E[log C(n, k)]."""
    large, certain = n * p * q > _LARGE, (p == 0) | (q == 0)
    m, a, b = np.where(large, 1, n), np.where(large | certain, 0.5, p), np.where(large | certain, 0.5, q)

    def integrand(t: Value) -> Value:
        u = -np.expm1(-t)
        near, s = t < 0.5, np.exp(-t)
        one, other = m * _log_rest(a * u, s + b * u), m * _log_rest(b * u, s + a * u)
        bend = np.log1p(a * b * u * u / np.where(near, 1 - u, 1))  # (1 - a u)(1 - b u) / (1 - u)
        rest = np.exp(-m * t)
        left = np.where(near, -rest * np.expm1(m * np.where(near, bend, 0)), rest - np.exp(one + other))
        return (np.expm1(one) * np.expm1(other) + left) * s / u

    few = -m * (times(p, log_p) + times(q, log_q)) - _integral(integrand, 1 + 2 * m, 45 + 0 * m)
    m, a, b = np.where(large, n, 4000.0), np.where(large, p, 0.5), np.where(large, q, 0.5)
    sd = np.sqrt(m * a * b)

    def log_prob(d: Value) -> Value:
        k, l = m * a + d, m * b - d
        near = stirling(m) - stirling(k) - stirling(l) + 0.5 * np.log(m / (2 * np.pi * k * l))
        return near - _deviance(m * a, d) - _deviance(m * b, -d)

    return np.where(large, _on_a_lattice(log_prob, sd, 10.0), np.where(certain, 0, few))


@in_double
def negative_binomial(n: Numeric, p: Numeric, q: Numeric, log_p: Numeric, log_q: Numeric) -> Numeric:
    """-n log p - (n q / p) log q - E[log Gamma(n+k) / (k! Gamma(n))]."""
    large = (n > _LARGE) & (n * q > _LARGE * p)
    m, odds = np.where(large, 1, n), np.where(large, 1, q / p)

    def integrand(t: Value) -> Value:
        u = -np.expm1(-t)
        near = t < 0.5
        ways = np.where(near, -np.exp(-t) * np.expm1(np.where(near, (1 - m) * t, 0)), np.exp(-t) - np.exp(-m * t))
        return np.expm1(-m * np.log1p(odds * u)) * ways / u

    few = _integral(integrand, (1 + m) * (1 + odds), 45 / np.minimum(m, 1))
    few = few - m * (log_p + times(odds, log_q))
    m, a, b = np.where(large, n, 1000.0), np.where(large, p, 0.5), np.where(large, q, 0.5)
    mean, sd = m * b / a, np.sqrt(m * b) / a

    def log_prob(d: Value) -> Value:
        k, whole = mean + d, m / a + d
        near = stirling(whole) - stirling(m) - stirling(k) + 0.5 * np.log(m / (2 * np.pi * k * whole))
        return near - _deviance(whole * a, -a * d) - _deviance(whole * b, a * d)

    return np.where(large, _on_a_lattice(log_prob, sd, 13.0), few)


def _log_rest(x: Value, rest: Value) -> Value:
    """log(1 - x), of which ``rest`` is 1 - x to all digits where x is near one."""
    near = x < 0.5
    return np.where(near, np.log1p(-np.where(near, x, 0)), np.log(np.where(near, 1, rest)))


def _integral(f: Function, scale: Value, end: Value) -> Value:
    """The integral of f(t) / t over t > 0, f(t) about proportional to t below 1 / ``scale`` and nothing beyond
    ``end``; by the trapezoidal rule in log t."""
    low, high = [np.log(stop_gradient(x)) for x in (scale, end)]
    steps = 64

    def reached(low: Value, high: Value) -> bool:
        return bool(np.max(low + high, initial=0.0) + _LEFT <= _STEP * steps)

    while not settled(reached, low, high):
        steps *= 2
    j = np.arange(steps + 1.0).reshape(-1, *[1] * np.ndim(low))
    x = np.minimum(_STEP * j - _LEFT - low, high + 3)
    there = _STEP * j - _LEFT - low <= high + 3
    return _STEP * np.sum(np.where(there, f(np.exp(x)), 0), axis=0)


def _on_a_lattice(log_prob: Function, sd: Value, end: float) -> Value:
    """-sum p log p over all integers, as one over a lattice around the mean, which log_prob counts from."""
    at = np.arange(-9.5, end, 1 / 3)
    log_p = log_prob(sd * at.reshape(-1, *[1] * np.ndim(sd)))
    return -np.sum(np.exp(log_p) * log_p, axis=0) * (sd / 3)


def _deviance(mean: Value, d: Value) -> Value:
    """k log(k / mean) + mean - k at k = mean + d."""
    return (mean + d) * np.log1p(d / mean) - d
