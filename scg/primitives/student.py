"""Student's t: the derivatives of its CDF and quantile function. They vanish as 1/df^2, where differences of the
incomplete beta function's derivatives, of order 1/df each, would keep no digits.

The density p(t) = (1 + t^2/v)^(-(v+1)/2) / (sqrt(v) B(1/2, v/2)) has, with w = t^2 / (v + t^2), the score in v = df

    l(t) = d log p / dv = (c(v) + w/v + w + log(1 - w)) / 2,    c(v) = digamma((v+1)/2) - digamma(v/2) - 1/v > 0,

whose derivative by w has the sign of 1 - t^2: positive at t = 0, it changes its sign once as |t| grows. So dF/dv, the
integral of l p, is taken from 0 to t or from t to infinity, whichever keeps its sign, as in
``scg.primitives.incomplete``.
"""

import math

import numpy as np
import scipy.special as sp

from scg.core.axes import elementwise
from scg.core.primitive import Primitive, smooth_primitive
from scg.primitives.incomplete import DROP, LEGENDRE, on_flat_doubles, only_once
from scg.primitives.special import derivatives, polygamma

LN2 = math.log(2)


def _gap(v):
    """c(v), for large v by its asymptotic series, twice that of Nielsen's beta function (DLMF 5.11.2) without its first
    term."""
    u = 1 / np.square(v)
    series = u * (1 / 2 - u * (1 / 4 - u * (1 / 2 - u * (17 / 8 - u * (31 / 2 - u * (691 / 4 - u * (5461 / 2)))))))
    return np.where(v > 30, series, sp.digamma(0.5 * (v + 1)) - sp.digamma(0.5 * v) - 1 / v)


def _bent(w):
    """w + log(1 - w) for 0 <= w < 1, by its power series where that cancels."""
    small = np.minimum(w, 0.1)
    total = np.zeros_like(w)
    for k in range(18, 1, -1):
        total = small * (total + 1 / k)
    return np.where(w < 0.1, -small * total, w + np.log1p(-w))


def _log_cosh(x):
    """log cosh x for x >= 0."""
    near = np.minimum(x, 1)
    return np.where(x < 1, 0.5 * np.log1p(np.square(np.sinh(near))), x + np.log1p(np.exp(-2 * x)) - LN2)


def _norm(v):
    """1 / (sqrt(v) B(1/2, v/2)), for large v by Stirling's series."""
    u = 1 / np.square(v)
    series = np.exp(-(1 / 4 - u * (1 / 24 - u * (1 / 20 - u * (17 / 112 - u * (31 / 36))))) / v) / math.sqrt(
        2 * math.pi
    )
    return np.where(v > 30, series, np.exp(-sp.betaln(0.5, 0.5 * v)) / np.sqrt(v))


def _log_square(v, t):
    """log(1 + t^2/v), also where t^2 would overflow."""
    x = np.abs(t) / np.sqrt(v)
    return np.where(x < 1e8, np.log1p(np.square(np.minimum(x, 1e8))), 2 * np.log(x))


def _pdf(v, t):
    return _norm(v) * np.exp(-0.5 * (v + 1) * _log_square(v, t))


def _slope(v, t):
    w = np.square(t / np.hypot(t, np.sqrt(v)))
    return 0.5 * (_gap(v) + w / v + np.where(w < 0.5, _bent(np.minimum(w, 0.5)), w - _log_square(v, t)))


def _score(v, t):
    """By t = sqrt(v) sinh(s): p(t) dt = cosh(s)^-v ds / B(1/2, v/2), w = tanh(s)^2 and log(1 + t^2/v) = 2 log
    cosh(s)."""
    size = np.abs(t)
    start, height = np.arcsinh(size / np.sqrt(v)), 0.5 * _log_square(v, t)
    inner = _slope(v, size) > 0
    reach = height + DROP / v  # log cosh of where the tail ends
    low = np.where(inner, 0, start)
    high = np.where(inner, start, reach + np.log1p(np.sqrt(-np.expm1(-2 * reach))))
    gap, total = _gap(v), np.zeros_like(t)
    for node, weight in LEGENDRE:
        s = low + node * (high - low)
        w, fall = np.square(np.tanh(s)), _log_cosh(s)
        bent = np.where(w < 0.5, _bent(np.minimum(w, 0.5)), w - 2 * fall)
        total += weight * (gap + w / v + bent) * np.exp(-v * (fall - height))
    front = _norm(v) * np.sqrt(v) * np.exp(-v * height)
    found = np.where(inner, 0.5, -0.5) * front * (high - low) * total
    return np.where((t == 0) | np.isinf(t), 0 * v, np.sign(t) * found)


student_pdf: Primitive = smooth_primitive(
    on_flat_doubles(_pdf),
    elementwise,
    lambda g, out, df, t: g * (out * student_slope(df, t)),
    lambda g, out, df, t: g * (out * (-(df + 1) * t / (df + t * t))),
    name="student_pdf",
)
"""p(t)."""


def _slope_by_df(v, t):
    """dl/dv, with dw/dv = -t^2 / (v + t^2)^2."""
    square = t * t
    product = v * (v + square)
    moved = square / product + square * (product - (v + 1) * (2 * v + square)) / np.square(product)
    return 0.25 * (polygamma(0.5 * (v + 1), n=1) - polygamma(0.5 * v, n=1)) + 0.5 / np.square(v) + 0.5 * moved


student_slope: Primitive = smooth_primitive(
    on_flat_doubles(_slope),
    elementwise,
    lambda g, out, df, t: g * _slope_by_df(df, t),
    lambda g, out, df, t: g * (t * (1 - t * t) / np.square(df + t * t)),
    name="student_slope",
)
"""l(t)."""

student_score = smooth_primitive(
    on_flat_doubles(_score),
    elementwise,
    only_once("stdtr"),
    lambda g, out, df, t: g * (student_pdf(df, t) * student_slope(df, t)),
    name="student_score",
)
"""d stdtr(df, t) / d df."""


def _quantile(v, p):
    """The t with F(t) = p. Far out, where SciPy's is off, by the tail q = I_w(v/2, 1/2) / 2, w = v / (v + t^2), with a
    = v/2

        2 q a B(a, 1/2) = w^a (1 + a/(a+1) w/2 + a/(a+2) 3 w^2 / 8 + ...)    (DLMF 8.17.7)
    """
    a, left = 0.5 * v, p < 0.5
    q = np.where(left, p, 1 - p)
    first = (np.log(2 * q) + np.log(a) + sp.betaln(a, 0.5)) / a
    log_w = first
    for _ in range(2):
        w = np.exp(np.minimum(log_w, 0))
        log_w = first - np.log1p(a / (a + 1) * w / 2 + a / (a + 2) * 3 * np.square(w) / 8) / a
    w = np.exp(np.minimum(log_w, 0))
    far = np.exp(0.5 * (np.log(v) - log_w + np.log1p(-np.minimum(w, 0.5))))
    # w < 1e-6: what is left out is 1e-18
    return np.where((log_w < -14) & (q >= 0), np.where(left, -far, far), sp.stdtrit(v, p))


derivatives(sp.stdtr, lambda out, df, t: student_score(df, t), lambda out, df, t: student_pdf(df, t))
derivatives(
    sp.stdtrit,
    lambda out, df, p: -student_score(df, out) / student_pdf(df, out),
    lambda out, df, p: 1 / student_pdf(df, out),
)
student_quantile = smooth_primitive(
    on_flat_doubles(_quantile),
    elementwise,
    lambda g, out, df, p: -g * (student_score(df, out) / student_pdf(df, out)),
    lambda g, out, df, p: g / student_pdf(df, out),
    name="student_quantile",
)
"""The inverse of stdtr(df, t) in t, in both tails to the end of the numbers."""
