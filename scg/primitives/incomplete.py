"""Derivatives of cumulative distribution functions in their shape parameters, by quadrature of integrands that do not
change sign.

For a density p(t; a) with score l(t) = d log p / da, the derivative of the CDF is

    dP(x; a) / da = int_{-inf}^x l p dt = - int_x^inf l p dt,

and l is monotone in the gamma, beta and von Mises families. The tail in which l keeps its sign is the one integrated,
so no digits cancel, and relative accuracy holds far out in both tails. Pathwise derivatives of Gamma, Beta, StudentT
and VonMises draws are -(dP/da) / p (Figurnov, Mohamed and Mnih, 2018).
"""

import math

import numpy as np
import scipy.special as sp

from scg.core.axes import elementwise
from scg.core.primitive import smooth_primitive
from scg.errors import NotDifferentiable, here

DROP = 42.0  # integrands are cut off where they have fallen by exp(-42) = 6e-19
# on [0, 1]
LEGENDRE = [((1 + node) / 2, weight / 2) for node, weight in zip(*np.polynomial.legendre.leggauss(56), strict=True)]


def vonmises_pdf(x, kappa):
    """exp(kappa cos x) / (2 pi I0(kappa))."""
    return np.exp(-2 * kappa * np.square(np.sin(0.5 * x))) / (2 * math.pi * sp.i0e(kappa))


def on_flat_doubles(fn):
    """``fn`` of flat float64 arrays as a function of broadcasting operands, its result rounded to their dtype."""

    def computed(*operands):
        dtype = np.result_type(*operands)
        arrays = np.broadcast_arrays(*[np.asarray(x, float) for x in operands])
        with np.errstate(all="ignore"):
            out = fn(*[x.ravel() for x in arrays])
        return out.reshape(arrays[0].shape).astype(dtype if dtype.kind == "f" else float)[()]

    return computed


def only_once(name):
    def refused(g, out, *operands):
        raise NotDifferentiable(
            f"{name} is differentiated once in a shape parameter, not twice: for second derivatives give the draw"
            f" scg.ScoreFunction() ({here()})"
        )

    return refused


def _gamma_score(a, x):
    out = np.full(x.shape, np.nan)
    out[(a > 0) & ((x == 0) | (x == np.inf))] = 0
    inside = (a > 0) & (x > 0) & (x < np.inf)
    series = inside & (a <= 20) & (np.log(x) < sp.digamma(a + 1))
    out[series] = _gamma_series(a[series], x[series])
    rest = inside & ~series
    out[rest] = _gamma_quadrature(a[rest], x[rest])
    return out


def _gamma_series(a, x):
    """P = sum_n t_n, t_n = x^(a+n) exp(-x) / Gamma(a+n+1).

    d log t_n / da = log x - digamma(a+1) - sum_{k <= n} 1/(a+k), all negative.
    """
    term = np.exp(a * np.log(x) - x - sp.gammaln(a + 1))
    slope = np.log(x) - sp.digamma(a + 1)
    total, n = term * slope, 0
    while np.any(np.abs(term * slope) > 1e-17 * np.abs(total)):
        n += 1
        term, slope = term * x / (a + n), slope - 1 / (a + n)
        total += term * slope
    return total


def _gamma_quadrature(a, x):
    """t = x exp(s) above the geometric mean, x exp(-s) below; the integrand is its value at x times exp(+-a s - x
    expm1(+-s))."""
    gap = np.log(x) - sp.digamma(a)
    sign = np.where(gap > 0, 1.0, -1.0)
    end = np.where(gap > 0, 2 * DROP / (x - a + np.sqrt((x - a) ** 2 + 2 * DROP * x)), (DROP + x) / a)
    for _ in range(14):  # Newton's method, from the right, for the zero of a convex function
        end -= (x * np.expm1(sign * end) - sign * a * end - DROP) / (sign * (x * np.exp(sign * end) - a))
    total = np.zeros_like(x)
    for node, weight in LEGENDRE:
        s = sign * node * end
        total += weight * np.abs(gap + s) * np.exp(a * s - x * np.expm1(s))
    return -_gamma_front(a, x) * end * total


def _gamma_front(a, x):
    """x^a exp(-x) / Gamma(a), for large a by Stirling's series, in whose exponent little cancels."""
    u = (x - a) / a
    large = np.sqrt(a / (2 * math.pi)) * np.exp(a * (_log_1p(u, x / a) - u) - _stirling(a))
    return np.where(a > 20, large, np.exp(a * np.log(x) - x - sp.gammaln(a)))


def _beta_front(a, b, x, y):
    """x^a y^b / B(a, b), likewise."""
    sum_, d = a + b, b * x - a * y
    exponent = (
        a * _log_1p(d / a, x * sum_ / a)
        + b * _log_1p(-d / b, y * sum_ / b)
        + _stirling(sum_)
        - _stirling(a)
        - _stirling(b)
    )
    large = np.sqrt(a * b / (2 * math.pi * sum_)) * np.exp(exponent)
    return np.where(np.minimum(a, b) > 20, large, np.exp(a * np.log(x) + b * np.log(y) - sp.betaln(a, b)))


def _log_1p(u, v):
    """log v of v = 1 + u, whichever of the two is the more accurate."""
    return np.where(np.abs(u) < 0.5, np.log1p(u), np.log(v))


def _gamma_pdf(a, x):
    """x^(a-1) exp(-x) / Gamma(a)."""
    large = (a > 20) & (x > 0) & (x < np.inf)
    return np.where(large, _gamma_front(a, x) / x, np.exp(sp.xlogy(a - 1, x) - x - sp.gammaln(a)))


def _beta_pdf(a, b, x, y):
    """x^(a-1) y^(b-1) / B(a, b), y = 1 - x."""
    large = (np.minimum(a, b) > 20) & (x > 0) & (y > 0)
    return np.where(
        large, _beta_front(a, b, x, y) / (x * y), np.exp(sp.xlogy(a - 1, x) + sp.xlog1py(b - 1, -x) - sp.betaln(a, b))
    )


def _stirling(a):
    """log Gamma(a) - (a - 1/2) log a + a - log(2 pi) / 2, for a > 20."""
    return 1 / (12 * a) - 1 / (360 * a**3) + 1 / (1260 * a**5) - 1 / (1680 * a**7)


def _beta_score(a, b, x, y):
    """d betainc(a, b, x) / da, y = 1 - x."""
    out = np.full(x.shape, np.nan)
    proper = (a > 0) & (b > 0)
    out[proper & ((x == 0) | (y == 0))] = 0
    mean = mean_log(a, b)
    # at an end I = x^a / (a B(a, b)) and 1 - I = y^b / (b B(a, b)), both times 1 + O((a + b) x y)
    first, last = proper & (x > 0) & ((1 + b) * x < 1e-20), proper & (y > 0) & ((1 + a) * y < 1e-20)
    out[first] = (np.exp(a * np.log(x) - np.log(a) - sp.betaln(a, b)) * (np.log(x) - 1 / a - mean))[first]
    out[last] = (np.exp(b * np.log(y) - np.log(b) - sp.betaln(a, b)) * mean)[last]
    proper &= ~(first | last)
    lower = proper & (x > 0) & (y > 0) & (np.log(x) <= mean)
    upper = proper & (x > 0) & (y > 0) & ~lower
    # raised by I(a, b) = I(a+1, b) + x^a y^b / (a B(a, b)), and I(a, b) = I(a, b+1) - x^a y^b / (b B(a, b)): both parts
    # are negative
    for tail, p in ((lower, 1), (upper, 0)):
        at, bt, xt, yt = a[tail].copy(), b[tail].copy(), x[tail], y[tail]
        total = np.zeros_like(xt)
        grown = at if p else bt
        for _ in range(4):
            small = grown < 4
            front = _beta_front(at, bt, xt, yt) / grown
            slope = np.log(xt) - mean_log(at, bt) - p / at
            total += np.where(small, front * (slope if p else -slope), 0)
            grown += small
        out[tail] = total - (_beta_lower if p else _beta_upper)(at, bt, xt, yt)
    return out


def _beta_lower(a, b, x, y):
    """int_0^x (E log t - log t) p(t) dt by t = x exp(-s)."""
    gap = mean_log(a, b) - np.log(x)
    front = _beta_front(a, b, x, y) / y
    return front * _half_line(lambda s: (gap + s) * np.exp(-a * s + (b - 1) * np.log1p(-x / y * np.expm1(-s))), a, x, y)


def _beta_upper(a, b, x, y):
    """int_x^1 (log t - E log t) p(t) dt by 1 - t = y exp(-s)."""
    mean = mean_log(a, b)
    front = _beta_front(a, b, x, y) / x

    def integrand(s):
        growth = np.log1p(-y / x * np.expm1(-s))  # log(t / x)
        return (np.log(x) + growth - mean) * np.exp(-b * s + (a - 1) * growth)

    return front * _half_line(integrand, b, y, x)


def mean_log(a, b):
    """E log t of the beta distribution, digamma(a) - digamma(a+b), which would cancel where b << a.

    By recurrence to a > 12, and there by Stirling's series, term by term.
    """
    total = np.zeros_like(a)
    for _ in range(12):
        step = a < 12
        total -= np.where(step, b / (a * (a + b)), 0)
        a = a + step
    ratio = np.log1p(b / a)  # 1 / a^k - 1 / (a+b)^k = -expm1(-k ratio) / a^k
    total -= ratio
    for k, bernoulli in ((1, 1 / 2), (2, 1 / 12), (4, -1 / 120), (6, 1 / 252), (8, -1 / 240), (10, 1 / 132)):
        total += bernoulli * np.expm1(-k * ratio) / a**k
    return total


def _half_line(integrand, rate, x, y):
    """int_0^inf of what falls as exp(-rate s) and has structure down to s = y / x.

    By the trapezoidal rule in w, s = scale exp(w - exp(-w)): as fine as the scale at its left end, and reaching beyond
    1 / rate.
    """
    scale = np.minimum(1 / rate, y / x)
    # the slowest fall is the gamma family's, exp(-rate (s - 1 + exp(-s)))
    start, stop = -3.7, np.log((4 * DROP / rate + 12 / np.sqrt(rate)) / scale)
    nodes = int(np.max(stop - start, initial=0) / 0.12) + 1
    step = (stop - start) / nodes
    total = np.zeros_like(x)
    for k in range(nodes + 1):
        w = start + k * step
        s = scale * np.exp(w - np.exp(-w))
        total += np.nan_to_num(integrand(s)) * s * (1 + np.exp(-w))
    return total * step


def _vonmises_cdf(x, kappa):
    turns = np.round(x / (2 * math.pi))
    x = x - 2 * math.pi * turns
    end = np.minimum(np.abs(x), _reach(np.zeros_like(x), kappa))
    total = np.zeros_like(x)
    for node, weight in LEGENDRE:
        total += weight * vonmises_pdf(node * end, kappa)
    return turns + 0.5 + np.sign(x) * end * total


def _vonmises_score(x, kappa):
    x = x - 2 * math.pi * np.round(x / (2 * math.pi))
    deficit = (sp.i0e(kappa) - sp.i1e(kappa)) / sp.i0e(kappa)  # 1 - E cos t
    size = np.abs(x)
    inner = 2 * np.sin(0.5 * size) ** 2 < deficit
    start = np.where(inner, 0, size)
    end = np.where(inner, size, _reach(size, kappa))
    total = np.zeros_like(x)
    for node, weight in LEGENDRE:
        t = start + node * (end - start)
        total += weight * (deficit - 2 * np.sin(0.5 * t) ** 2) * vonmises_pdf(t, kappa)
    return np.sign(x) * np.where(inner, 1, -1) * (end - start) * total


def _reach(x, kappa):
    """Where the density has fallen by exp(-DROP) from its value at x >= 0, or pi."""
    return 2 * np.arcsin(np.sqrt(np.minimum(1, np.sin(0.5 * x) ** 2 + DROP / (2 * kappa))))


def _power_slope(p, x):
    """d log x^p / dx = p / x, and 0 for p = 0 also where x is 0."""
    return p / np.where((p == 0) & (x == 0), 1, x)


def _log_of(x, p):
    """log x, and 0 where x^p is 0^0."""
    return np.log(np.where((p == 0) & (x == 0), 1, x))


def _log1m_of(x, p):
    """log(1 - x), likewise."""
    return np.log1p(-np.where((p == 0) & (x == 1), 0, x))


# Not compositions of what is in them: their exponents are differences of terms as large as a log a, of which float32
# would leave little.
gammainc_pdf = smooth_primitive(
    on_flat_doubles(_gamma_pdf),
    elementwise,
    lambda g, out, a, x: g * (out * (_log_of(x, a - 1) - sp.digamma(a))),
    lambda g, out, a, x: g * (out * (_power_slope(a - 1, x) - 1)),
    name="gammainc_pdf",
)
"""d gammainc(a, x) / dx = x^(a-1) exp(-x) / Gamma(a)."""

betainc_pdf = smooth_primitive(
    on_flat_doubles(lambda a, b, x: _beta_pdf(a, b, x, 1 - x)),
    elementwise,
    lambda g, out, a, b, x: g * (out * (_log_of(x, a - 1) - sp.digamma(a) + sp.digamma(a + b))),
    lambda g, out, a, b, x: g * (out * (_log1m_of(x, b - 1) - sp.digamma(b) + sp.digamma(a + b))),
    lambda g, out, a, b, x: g * (out * (_power_slope(a - 1, x) - _power_slope(b - 1, 1 - x))),
    name="betainc_pdf",
)
"""d betainc(a, b, x) / dx = x^(a-1) (1-x)^(b-1) / B(a, b)."""

gammainc_score = smooth_primitive(
    on_flat_doubles(_gamma_score),
    elementwise,
    only_once("gammainc"),
    lambda g, out, a, x: g * (gammainc_pdf(a, x) * (np.log(x) - sp.digamma(a))),
    name="gammainc_score",
)
"""d gammainc(a, x) / da. Relative error against 40 digits, a in [1e-3, 1e5], both tails: at most 2e-13."""

betainc_score = smooth_primitive(
    on_flat_doubles(lambda a, b, x: _beta_score(a, b, x, 1 - x)),
    elementwise,
    only_once("betainc"),
    only_once("betainc"),
    lambda g, out, a, b, x: g * (betainc_pdf(a, b, x) * (np.log(x) - sp.digamma(a) + sp.digamma(a + b))),
    name="betainc_score",
)
"""d betainc(a, b, x) / da. Relative error against 40 digits, a and b in [1e-2, 3e3], both tails: at most 5e-12."""

betainc_score_b = smooth_primitive(
    on_flat_doubles(lambda a, b, x: -_beta_score(b, a, 1 - x, x)),
    elementwise,
    only_once("betainc"),
    only_once("betainc"),
    lambda g, out, a, b, x: g * (betainc_pdf(a, b, x) * (np.log1p(-x) - sp.digamma(b) + sp.digamma(a + b))),
    name="betainc_score_b",
)
"""d betainc(a, b, x) / db."""

vonmises_score = smooth_primitive(
    on_flat_doubles(_vonmises_score),
    elementwise,
    lambda g, out, x, kappa: g * (vonmises_pdf(x, kappa) * (np.cos(x) - sp.i1e(kappa) / sp.i0e(kappa))),
    only_once("vonmises_cdf"),
    name="vonmises_score",
)
"""d vonmises_cdf(x, kappa) / dkappa. Relative error against 30 digits, kappa in [1e-3, 1e4], within 8 deviations: at
most 1e-11."""

vonmises_cdf = smooth_primitive(
    on_flat_doubles(_vonmises_cdf),
    elementwise,
    lambda g, out, x, kappa: g * vonmises_pdf(x, kappa),
    lambda g, out, x, kappa: g * vonmises_score(x, kappa),
    name="vonmises_cdf",
)
"""P(T <= x) of the angle T in (-pi, pi] with density ``vonmises_pdf``; 1 more for each full turn of x."""
