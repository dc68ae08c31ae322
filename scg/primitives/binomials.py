"""Binomial coefficients and rising factorials, with derivatives where a gamma function in them has a pole.

    binom(n, k) = Gamma(n+1) / (Gamma(k+1) Gamma(n-k+1)),  poch(z, m) = Gamma(z+m) / Gamma(z)

A pole in the denominator alone makes a zero, whose slope out (psi - psi) would be 0 * inf: it is taken by the
reflection 1 / Gamma(x) = Gamma(1-x) sin(pi x) / pi instead (DLMF 5.5.3). Poles above and below cancel where k or m is
an integer: there (-1)^k binom(k-n-1, k) and (-1)^m poch(1-z-m, m) are the same functions.
"""

import math

import numpy as np
import scipy.special as sp

from scg.core.axes import elementwise
from scg.core.primitive import primitive
from scg.primitives.elementwise import between_poles


def _is_pole(x):
    return (x <= 0) & (x == np.floor(x))


def _counts(x):
    return (x >= 0) & (x == np.floor(x))


def _sine(x):
    return np.sin(math.pi * x) / math.pi


def _at(mask, x, elsewhere):
    return np.where(mask, x, elsewhere)


def _in_n(n, k):
    """d binom / dn: out (psi(n+1) - psi(n-k+1)); with b = B(n+1, k-n), binom = b sin(pi (k-n)) / pi where n-k+1 is a
    pole."""
    low, top = _is_pole(n - k + 1), _is_pole(n + 1)
    both = (n < 0) & _counts(k)  # beside the poles, too, where the digammas are large and nearly the same
    plain = ~(low | top | both)
    i, j = _at(plain, n, 1), _at(plain, k, 1)
    slope = sp.binom(i, j) * (sp.digamma(i + 1) - sp.digamma(i - j + 1))
    zero = low & ~top
    i, j = _at(zero, n, 0), _at(zero, k, 1)
    reflected = sp.beta(i + 1, j - i) * (
        (sp.digamma(i + 1) - sp.digamma(j - i)) * _sine(j - i) - np.cos(math.pi * (j - i))
    )
    i, j = _at(both, n, -1), _at(both, k, 1)
    negated = -np.cos(math.pi * j) * sp.binom(j - i - 1, j) * (sp.digamma(j - i) - sp.digamma(-i))
    return np.where(both, negated, np.where(plain, slope, np.where(zero, reflected, np.nan)))


def _in_k(n, k):
    """d binom / dk: out (psi(n-k+1) - psi(k+1)), and by reflection where one of both is a pole; it is odd under k -> n
    - k."""
    low, left = _is_pole(n - k + 1), _is_pole(k + 1)
    plain = ~(low | left)
    i, j = _at(plain, n, 1), _at(plain, k, 1)
    slope = sp.binom(i, j) * (sp.digamma(i - j + 1) - sp.digamma(j + 1))

    def reflected(mask, k):
        i, j = _at(mask, n, 0), _at(mask, k, 1)
        return sp.beta(i + 1, j - i) * (
            (sp.digamma(j - i) - sp.digamma(j + 1)) * _sine(j - i) + np.cos(math.pi * (j - i))
        )

    return np.where(
        plain,
        slope,
        np.where(low & ~left, reflected(low & ~left, k), np.where(left & ~low, -reflected(left & ~low, n - k), np.nan)),
    )


def _in_z(z, m):
    """d poch / dz: out (psi(z+m) - psi(z))."""
    low, top = _is_pole(z), _is_pole(z + m)
    both = (low & top) | (z + m < 0.5) & _counts(m)
    i, j = _at(~(low | top | both), z, 1), _at(~(low | top | both), m, 1)
    slope = sp.poch(i, j) * (sp.digamma(i + j) - sp.digamma(i))
    zero = low & ~top
    i, j = _at(zero, z, 0), _at(zero, m, 1)
    reflected = (
        sp.gamma(i + j) * sp.gamma(1 - i) * ((sp.digamma(i + j) - sp.digamma(1 - i)) * _sine(i) + np.cos(math.pi * i))
    )
    i, j = _at(both, z, 0), _at(both, m, 0)
    mirrored = np.cos(math.pi * j) * sp.poch(1 - i - j, j) * (sp.digamma(1 - i - j) - sp.digamma(1 - i))
    return np.where(both, mirrored, np.where(zero, reflected, np.where(low | top, np.nan, slope)))


primitive(
    sp.binom,
    elementwise,
    lambda g, out, n, k: g * _in_n(n, k),
    lambda g, out, n, k: g * _in_k(n, k),
    # a polynomial of n where k is an integer from 0 on
    steps=lambda n, k: np.where(_counts(k), 0, between_poles(n + 1)),
)
primitive(
    sp.poch,
    elementwise,
    lambda g, out, z, m: g * _in_z(z, m),
    lambda g, out, z, m: g * (out * sp.digamma(z + m)),
    steps=lambda z, m: between_poles(z + m),
)
