"""The value at 0 of a function that is known near 0 along some rays, and how far off that may be.

Along a ray the values at m distances t_k between r / 4 and r are those of a polynomial, whose value at 0 is sum_k w_k
f(t_k), w_k = prod_{j != k} t_j / (t_j - t_k) (Lagrange). What f is more than a polynomial of degree m - 1 adds about
c_m prod_k t_k, with Chebyshev's t_k less than 2 (3 r / 16)^m cosh(1.1 m) c_m; rounding adds sum_k |w_k| of what f(t_k)
is off. Where f is smooth across 0 the mean of opposite rays is even in t, and a polynomial in t^2: there the same
number of distances gives twice the order, and sum_k |w_k| is 10 for 121 where m = 5. So at r = 0.1 the second
derivative of (exp(x) - 1 - x) / x^2, of which 6 eps / t^4 is lost, is known to 1e-9 and at t = 1e-6 not at all.
"""

from typing import NamedTuple

import numpy as np

from scg.core.aliases import Result


class Estimate(NamedTuple):
    """Values at 0, elementwise: each within about ``error``; ``size`` is that of the largest element on the rays; where
    ``jumps``, rays that are smooth each lead to other values."""

    value: Result
    error: Result
    size: Result
    jumps: Result


def distances(radius: float, number: int) -> Result:
    """Chebyshev's points between ``radius`` / 4 and ``radius``, growing."""
    return radius * (0.625 - 0.375 * np.cos(np.pi * (np.arange(number) + 0.5) / number))


def extrapolated(samples: Result, t: Result) -> Estimate:
    """Of ``samples`` (4, m, ...) at the distances ``t`` on two pairs of opposite rays; NaN where two rays at least have
    no values."""
    finite = np.all(np.isfinite(samples), axis=1)
    samples = np.where(finite[:, None], samples, 0)
    size = np.max(np.abs(samples), axis=(0, 1))
    number = np.sum(finite, axis=0)
    each, fit = ends(samples, t)
    value = np.sum(each, axis=0) / np.maximum(number, 1)
    spread = _range(each, finite)
    error = np.where(number > 1, spread + fit, np.inf)
    jumps = (number > 1) & (spread > 30 * fit) & (spread > 1e-5 * size)
    both = 0.5 * (samples[0::2] + samples[1::2])
    middles, close = ends(both, t * t)
    # what is off may be odd or even as the function is, and then cancels between opposite rays
    across = _range(middles, True) + close + fit * _amplified(t * t) / _amplified(t)
    smooth = (number == len(samples)) & (spread <= 10 * fit + 1e-9 * size) & (across < error)
    value = np.where(smooth, np.mean(middles, axis=0), value)
    value = np.where(number > 1, value, np.nan)
    return Estimate(value, np.where(smooth, across, error), size, jumps)


def ends(samples: Result, t: Result) -> tuple[Result, Result]:
    """The value at 0 of each ray, and the most that the nearest distance makes of it."""
    found = np.tensordot(_weights(t), samples, (0, 1))
    return found, np.max(np.abs(found - np.tensordot(_weights(t[1:]), samples[:, 1:], (0, 1))), axis=0)


def _weights(t: Result) -> Result:
    """Lagrange's, of the value at 0 of the polynomial through values at ``t``."""
    return np.array([np.prod([u / (u - s) for u in t if u != s]) for s in t])


def _amplified(t: Result) -> Result:
    """How many times as far off the value at 0 is as those at ``t``, at most."""
    return np.sum(np.abs(_weights(t)))


def _range(values: Result, where: Result) -> Result:
    where = np.broadcast_to(where, values.shape)
    low, high = (
        np.min(values, axis=0, initial=np.inf, where=where),
        np.max(values, axis=0, initial=-np.inf, where=where),
    )
    return np.maximum(high - low, 0)
