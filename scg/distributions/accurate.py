"""Moments written so that nothing cancels: differences of log-gamma functions, series for large shapes, and float64 on
the way."""

import numpy as np
import scipy.special as sp

from scg.core.aliases import Function, Operand, Result
from scg.core.node import Numeric
from scg.distributions.weak import OfNumbers, betaln, digamma, log, weak
from scg.primitives.special import zeta

i0e, i1e = weak(sp.i0e), weak(sp.i1e)
HALF_LOG_2PIE = 0.5 * float(np.log(2 * np.pi * np.e))


def in_double(fn: Function) -> OfNumbers:
    """``fn`` of numbers computed in float64, and rounded to what they had: for sums of terms that are much larger than
    they."""

    def of(*x: Operand) -> Result:
        dtypes = [v.dtype for v in x if type(v) is not float]
        if all(dtype.itemsize >= 8 for dtype in dtypes):
            return fn(*x)
        wide = [v if type(v) is float or v.dtype.itemsize >= 8 else v.astype(float) for v in x]
        return fn(*wide).astype(np.result_type(*dtypes))

    return of


def rest(p: Numeric) -> Numeric:
    """1 - p, p the probabilities of one of many along the last axis: of one above a half, whose complement would
    cancel, the sum of the others."""
    few = p <= 0.5
    return np.where(few, 1 - p, np.sum(np.where(few, p, 0), axis=-1, keepdims=True))


def log_gamma_bend(x: Numeric | float, h: Numeric) -> Numeric:
    """log Gamma(x + 2h) - 2 log Gamma(x + h) + log Gamma(x) for x >= 1, h > 0; it is of order h^2.

    For small h sum_{n >= 2} (-h)^n (2^n - 2) / n zeta(n, x) (DLMF 5.15.1); for large x by Stirling's series, whose
    greatest terms are left out.
    """
    small, large = h < 0.01, x > 20
    t, total = np.where(small, h, 0), 0.0
    for n in range(10, 1, -1):
        total = (2**n - 2) / n * zeta(float(n), x) - t * total
    h, far, near = np.where(small, 1, h), np.where(large, x, 21), np.where(large, 1, x)
    one, two = far + h, far + 2 * h
    far_off = (
        (two - 0.5) * np.log1p(2 * h / far)
        - 2 * (one - 0.5) * np.log1p(h / far)
        + stirling(two)
        - 2 * stirling(one)
        + stirling(far)
    )
    direct = sp.gammaln(near + 2 * h) - 2 * sp.gammaln(near + h) + sp.gammaln(near)
    return np.where(small, t * t * total, np.where(large, far_off, direct))


def stirling(x: Numeric) -> Numeric:
    """log Gamma(x) - (x - 1/2) log x + x - log(2 pi) / 2, for x > 20."""
    u = 1 / (x * x)
    return (1 / 12 - u * (1 / 360 - u * (1 / 1260 - u * (1 / 1680)))) / x


@in_double
def student_entropy(df: Numeric) -> Numeric:
    """(v+1)/2 (digamma((v+1)/2) - digamma(v/2)) + log(v)/2 + log B(1/2, v/2), v = df; for large v its series, by DLMF
    5.11.1 and 5.11.2."""
    large = df > 100
    v, u = np.where(large, 1, df), 1 / np.where(large, df, 100)
    half = 0.5 * (v + 1)
    direct = half * (digamma(half) - digamma(0.5 * v)) + 0.5 * log(v) + betaln(0.5, 0.5 * v)
    series = u * (
        1 + u * (1 / 4 - u * (1 / 6 + u * (1 / 8 - u * (3 / 10 + u * (1 / 4 - u * (17 / 14 + u * (17 / 16)))))))
    )
    return np.where(large, HALF_LOG_2PIE + series, direct)


@in_double
def bessel_deficit(k: Numeric) -> Numeric:
    """1 - I1(k) / I0(k), for large k by the series of -d log(exp(-k) I0(k)) / dk (DLMF 10.40.1)."""
    large = k > 300
    near, u = np.where(large, 1, k), 1 / np.where(large, k, 300)
    series = u * (1 / 2 + u * (1 / 8 + u * (1 / 8 + u * (25 / 128 + u * (13 / 32 + u * (1073 / 1024))))))
    return np.where(large, series, (i0e(near) - i1e(near)) / i0e(near))
