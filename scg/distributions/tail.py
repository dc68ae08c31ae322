"""The normal distribution beyond c, far in a tail, by the distance t from c: no digits of c + t or of its tail cancel.

With Mills' ratio M(x) = (1 - Phi(x)) / phi(x), what is left beyond c + t of what lies beyond c is exp(-H(t)),

    H(t) = c t + t^2 / 2 + log M(c) - log M(c + t),   M(x) = (1 - 1/x^2 + 3/x^4 - 15/x^6 + 105/x^8 - ...) / x.

For c of at least FAR the next term is less than 1e-14.
"""

import math

import numpy as np

from scg.core.node import Numeric, Value

FAR = 50.0


def spent(c: Numeric, t: Numeric) -> Numeric:
    """H(t), the exponent of what is left beyond t; infinite where t is."""
    endless = np.isinf(t)
    t = np.where(endless, 0, t)
    return np.where(endless, math.inf, t * (c + 0.5 * t) + np.log1p(t / c) + _bend(c) - _bend(c + t))


def log_density(c: Numeric, t: Numeric, width: Numeric) -> Numeric:
    """log of the density of t, from 0 to ``width``: -c t - t^2 / 2 - log M(c) - log(1 - exp(-H(width)))."""
    return -t * (c + 0.5 * t) + np.log(c) - _bend(c) - np.log(-np.expm1(-spent(c, width)))


def share(c: Numeric, t: Numeric, width: Numeric) -> Numeric:
    """The probability of less than t: (1 - exp(-H(t))) / (1 - exp(-H(width)))."""
    return np.expm1(-spent(c, t)) / np.expm1(-spent(c, width))


def distance(c: Numeric, p: Numeric, right: Numeric, width: Numeric) -> Numeric:
    """The t of which ``share`` is p, or 1 - p where not ``right``, by Newton's method for H(t) = E from t = E / c,
    whose relative error is below E / c^2: each step squares it, and that of the derivatives.

    exp(-E) is 1 - p (1 - x) or p (1 - x) + x, x = exp(-H(width)): of a small p no digit is lost.
    """
    part = p * np.expm1(-spent(c, width))
    with np.errstate(divide="ignore"):
        e = -np.where(right, np.log1p(part), np.log(np.exp(-spent(c, width)) - part))
    endless = np.isinf(e)
    e = np.where(endless, 0, e)
    t = e / c
    for _ in range(4):
        x = c + t
        t = t - (spent(c, t) - e) / (x + 1 / x)
    return np.where(endless, math.inf, t)


def _bend(x: Numeric) -> Value:
    """log(x M(x))."""
    u = (1 / x) ** 2
    return np.log1p(-u * (1 - u * (3 - u * (15 - 105 * u))))
