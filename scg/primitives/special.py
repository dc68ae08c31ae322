"""The ufuncs of ``scipy.special``, one line each: the function, and its derivative in each argument.

Beyond the table for NumPy's ufuncs: both derivatives of ``xlogy`` and ``rel_entr`` are 0 at x = y = 0, of ``xlog1py``
at x = 0, y = -1. These are conventions, and have no derivatives: a second one there is NaN, unless x stays 0
(``scg.core.still``). Orders, degrees and the like that have no derivative here are named: a node in their place is
refused when a derivative in it is asked for.
"""

import math

import numpy as np
import scipy.special as sp

from scg.core.axes import elementwise
from scg.core.node import Node
from scg.core.primitive import Primitive, implements, primitive, smooth_primitive
from scg.errors import NotDifferentiable
from scg.primitives.elementwise import (
    DEGREE,
    LN2,
    LN10,
    always,
    between_poles,
    cut_at_zero,
    power_in_base,
    power_in_exponent,
    sigmoid,
)
from scg.primitives.incomplete import (
    betainc_pdf,
    betainc_score,
    betainc_score_b,
    gammainc_pdf,
    gammainc_score,
    mean_log,
    on_flat_doubles,
)

ROOT_PI, ROOT_2PI = math.sqrt(math.pi), math.sqrt(2 * math.pi)


def derivatives(fn, *slopes, name=None, **facts):
    """Declare an elementwise function by its partial derivatives ``slope(out, *operands)``; a string names an argument
    without one."""

    def vjp(slope):
        if slope is None:
            return None
        if callable(slope):
            return lambda g, out, *operands: g * slope(out, *operands)

        def refused(g, out, *operands):
            advice = "apply scg.stop_gradient to what stands there"
            raise NotDifferentiable(f"{made.name} has no derivative in its argument {slope!r}: {advice}")

        return refused

    made = smooth_primitive(fn, elementwise, *map(vjp, slopes), name=name, **facts)
    return made


def several(ufunc, *slopes):
    """Declare a ufunc of several results, by the partial derivatives ``slope(results, *operands)`` of each in its last
    operand."""
    names = ["order"] * (ufunc.nin - 1)
    parts = [
        derivatives(
            lambda *x, k=k: ufunc(*x)[k],
            *names,
            lambda out, *x, slope=slope: slope(ufunc(*x), *x),
            name=f"{ufunc.__name__}[{k}]",
        )
        for k, slope in enumerate(slopes)
    ]
    for k, part in enumerate(parts):
        globals()[f"_{ufunc.__name__}_{k}"] = part  # a name by which it is pickled
    implements(ufunc)(lambda *x: tuple([part(*x) for part in parts]))


def _nonzero(x):
    return np.where(x == 0, 1, x)


_agreed: Primitive = smooth_primitive(
    lambda slope, at: slope,
    elementwise,
    lambda g, out, slope, at: g * np.where(at, math.nan, 1).astype(g.dtype),
    None,
    name="agreed",
    same=True,
)
"""A slope that is a convention ``at`` a point, where it has no derivative: that of x log(x) goes to -inf at 0."""


def _by_convention(slope, x, y):
    """``slope(y, at)``, at the points x = y = 0, where it has the value of a convention."""
    at = (x == 0) & (y == 0)
    found = slope(y, at)
    return _agreed(found, at) if type(found) is Node else found


def _log(x, y):
    """log(y), by convention 0 where x = y = 0."""
    return _by_convention(lambda y, at: np.log(np.where(at, 1, y)), x, y)


def _log1p(x, y):
    """log(1 + y), by convention 0 where x = 1 + y = 0."""
    return _by_convention(lambda z, at: np.log1p(np.where(at, 0, y)), x, 1 + y)


def _over(x, y):
    """x / y, by convention 0 where x = y = 0."""
    return _by_convention(lambda y, at: x / np.where(at, 1, y), x, y)


def _log_over(x, y, one):
    """log(x / y) + one, by convention 0 where x = y = 0."""
    return _by_convention(lambda y, at: np.where(at, 0, np.log(x / np.where(at, 1, y)) + one), x, y)


# gamma functions
def _polygamma_value(x, n):
    return np.asarray(sp.polygamma(n, x)).astype(np.result_type(x, np.float32))[()]


polygamma: Primitive = primitive(
    _polygamma_value,
    elementwise,
    lambda g, out, x, n: g * polygamma(x, n=n + 1),
    name="polygamma",
    steps=lambda x, n: between_poles(x),
)
"""The n-th derivative of digamma at x, n a static."""


def _rgamma_slope(out, x):
    """By 1 / Gamma(x) = Gamma(1-x) sin(pi x) / pi on the left, where digamma has poles and 1 / Gamma has none."""
    left, right = np.where(x < 0.5, x, 0), np.where(x < 0.5, 1, x)
    mirrored = sp.gamma(1 - left) * (np.cos(math.pi * left) - sp.digamma(1 - left) * np.sin(math.pi * left) / math.pi)
    return np.where(x < 0.5, mirrored, -sp.rgamma(right) * sp.digamma(right))


derivatives(sp.gamma, lambda out, x: out * sp.digamma(x), steps=between_poles)
derivatives(sp.gammaln, lambda out, x: sp.digamma(x))
derivatives(sp.loggamma, lambda out, x: sp.digamma(x), cuts=cut_at_zero)
derivatives(sp.rgamma, _rgamma_slope)
derivatives(sp.digamma, lambda out, x: polygamma(x, n=1), steps=between_poles)
derivatives(sp.gammasgn, None)


def _fall(a, b):
    out = sp.digamma(a) - sp.digamma(a + b)
    small = (a > 0) & (b > 0) & (b < 0.01 * a)  # there the two cancel
    if small.any():
        out[small] = mean_log(a[small], b[small])
    return out


fall: Primitive = primitive(
    on_flat_doubles(_fall),
    elementwise,
    lambda g, out, a, b: g * (polygamma(a, n=1) - polygamma(a + b, n=1)),
    lambda g, out, a, b: -g * polygamma(a + b, n=1),
    name="fall",
    steps=lambda a, b: between_poles(a) + math.pi * between_poles(a + b),
)
"""digamma(a) - digamma(a + b), also where b is much less than a: in float32 0 for a = 1e8, b = 1, which is -1e-8."""

derivatives(
    sp.beta,
    lambda out, a, b: out * fall(a, b),
    lambda out, a, b: out * fall(b, a),
    steps=lambda a, b: between_poles(a) + math.pi * between_poles(b),
)
derivatives(sp.betaln, lambda out, a, b: fall(a, b), lambda out, a, b: fall(b, a))
zeta = derivatives(sp._ufuncs._zeta, "x", lambda out, x, q: -x * sp.zeta(x + 1, q), name="zeta")


# incomplete gamma and beta functions, and the distributions that they are
def _gamma_shape(a, x):
    """(dF/da) / p, at x = 0 its limit, 0."""
    return gammainc_score(a, x) / np.where(x == 0, 1, gammainc_pdf(a, x))


def _beta_pdf_inside(a, b, x):
    """The density, and 1 at 0 and 1, where dF/da and dF/db are 0, and the quantile stays."""
    return np.where((x == 0) | (x == 1), 1, betainc_pdf(a, b, x))


derivatives(sp.gammainc, lambda out, a, x: gammainc_score(a, x), lambda out, a, x: gammainc_pdf(a, x))
derivatives(sp.gammaincc, lambda out, a, x: -gammainc_score(a, x), lambda out, a, x: -gammainc_pdf(a, x))
derivatives(sp.gammaincinv, lambda out, a, y: -_gamma_shape(a, out), lambda out, a, y: 1 / gammainc_pdf(a, out))
derivatives(sp.gammainccinv, lambda out, a, y: -_gamma_shape(a, out), lambda out, a, y: -1 / gammainc_pdf(a, out))
for _fn, _sign in ((sp.betainc, 1), (sp.betaincc, -1)):
    derivatives(
        _fn,
        lambda out, a, b, x, sign=_sign: sign * betainc_score(a, b, x),
        lambda out, a, b, x, sign=_sign: sign * betainc_score_b(a, b, x),
        lambda out, a, b, x, sign=_sign: sign * betainc_pdf(a, b, x),
    )
for _fn, _sign in ((sp.betaincinv, 1), (sp.betainccinv, -1)):
    derivatives(
        _fn,
        lambda out, a, b, y: -betainc_score(a, b, out) / _beta_pdf_inside(a, b, out),
        lambda out, a, b, y: -betainc_score_b(a, b, out) / _beta_pdf_inside(a, b, out),
        lambda out, a, b, y, sign=_sign: sign / betainc_pdf(a, b, out),
    )


def _f_pdf(n, d, x):
    sum_ = d + n * x
    return betainc_pdf(0.5 * n, 0.5 * d, n * x / sum_) * n * d / np.square(sum_)


for _fn, _half in ((sp.chdtr, 0.5), (sp.chdtrc, -0.5)):
    derivatives(
        _fn,
        lambda out, v, x, half=_half: half * gammainc_score(0.5 * v, 0.5 * x),
        lambda out, v, x, half=_half: half * gammainc_pdf(0.5 * v, 0.5 * x),
    )
for _fn, _sign in ((sp.gdtr, 1), (sp.gdtrc, -1)):
    derivatives(
        _fn,
        lambda out, a, b, x, sign=_sign: sign * x * gammainc_pdf(b, a * x),
        lambda out, a, b, x, sign=_sign: sign * gammainc_score(b, a * x),
        lambda out, a, b, x, sign=_sign: sign * a * gammainc_pdf(b, a * x),
    )
for _fn, _sign in ((sp.fdtr, 1), (sp.fdtrc, -1)):
    derivatives(_fn, "dfn", "dfd", lambda out, n, d, x, sign=_sign: sign * _f_pdf(n, d, x))


def _floor(k, n, p=None):
    """k and n are taken for the integers below, but n of a Poisson distribution's mean."""
    return np.floor(k) if p is None else np.floor(k) + math.pi * np.floor(n)


for _fn, _sign in ((sp.pdtr, -1), (sp.pdtrc, 1)):
    derivatives(_fn, None, lambda out, k, m, sign=_sign: sign * gammainc_pdf(np.floor(k) + 1, m), steps=_floor)
for _fn, _sign in ((sp.bdtr, -1), (sp.bdtrc, 1)):  # SciPy truncates n, and both integers of nbdtr
    derivatives(
        _fn,
        None,
        None,
        lambda out, k, n, p, sign=_sign: sign * betainc_pdf(np.floor(k) + 1, np.trunc(n) - np.floor(k), p),
        steps=_floor,
    )
for _fn, _sign in ((sp.nbdtr, 1), (sp.nbdtrc, -1)):
    derivatives(
        _fn,
        None,
        None,
        lambda out, k, n, p, sign=_sign: sign * betainc_pdf(np.trunc(n), np.trunc(k) + 1, p),
        steps=_floor,
    )


# the normal distribution and its kin
def _series(u):
    """u + 3 u^2 + 15 u^3 + 105 u^4 + ..."""
    return u * (1 + u * (3 + u * (15 + u * (105 + u * (945 + u * 10395)))))


def _erfcx_slope(out, x):
    """2 x erfcx(x) - 2 / sqrt(pi), which cancels for large x, and there its asymptotic series in 1 / 2x^2."""
    far = x > 25
    u = 0.5 / np.square(np.where(far, x, 25))
    return np.where(far, (2 / ROOT_PI) * _series(-u), 2 * np.where(far, 0, x) * out - 2 / ROOT_PI)


def _dawsn_slope(out, x):
    """1 - 2 x dawsn(x), which cancels for large x, and there its asymptotic series in 1 / 2x^2."""
    far = np.absolute(x) > 25
    u = 0.5 / np.square(np.where(far, x, 25))
    return np.where(far, -_series(u), 1 - 2 * np.where(far, 0, x) * out)


def _mills(x):
    """Phi(x) / phi(x), the ratio of the normal CDF to its density: accurate in both tails."""
    return (0.5 * ROOT_2PI) * sp.erfcx(-math.sqrt(0.5) * x)


derivatives(sp.erf, lambda out, x: (2 / ROOT_PI) * np.exp(-x * x))
derivatives(sp.erfc, lambda out, x: (-2 / ROOT_PI) * np.exp(-x * x))
derivatives(sp.erfcx, _erfcx_slope)
derivatives(sp.erfi, lambda out, x: (2 / ROOT_PI) * np.exp(x * x))
derivatives(sp.erfinv, lambda out, x: (0.5 * ROOT_PI) * np.exp(out * out))
derivatives(sp.erfcinv, lambda out, x: (-0.5 * ROOT_PI) * np.exp(out * out))
derivatives(sp.dawsn, _dawsn_slope)
derivatives(sp.ndtr, lambda out, x: np.exp(-0.5 * x * x) * (1 / ROOT_2PI), sign=always(2))
derivatives(sp.log_ndtr, lambda out, x: 1 / _mills(x), cuts=lambda x: np.imag(sp.log_ndtr(x)) > 0)
derivatives(sp.ndtri, lambda out, p: ROOT_2PI * np.exp(0.5 * out * out))
derivatives(sp.ndtri_exp, lambda out, y: _mills(out))
derivatives(
    sp.owens_t,
    lambda out, h, a: sp.erf(math.sqrt(0.5) * a * h) * np.exp(-0.5 * h * h) * (-0.5 / ROOT_2PI),
    lambda out, h, a: np.exp(-0.5 * h * h * (1 + a * a)) / ((2 * math.pi) * (1 + a * a)),
)

# logistic functions, logarithms and exponentials
derivatives(sp.expit, lambda out, x: out * sigmoid(-x), sign=always(2))
derivatives(sp.logit, lambda out, p: 1 / (p * (1 - p)))
derivatives(sp.log_expit, lambda out, x: sigmoid(-x))
softplus = derivatives(
    lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.absolute(x))),
    lambda out, x: -np.expm1(-out),
    name="softplus",
    sign=always(2),
)
log_sigmoid = derivatives(
    lambda x: np.minimum(x, 0) - np.log1p(np.exp(-np.absolute(x))), lambda out, x: -np.expm1(out), name="log_sigmoid"
)


def _log1mexp(x):
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(x > -LN2, np.log(-np.expm1(x)), np.log1p(-np.exp(x)))[()]


log1mexp = derivatives(_log1mexp, lambda out, x: -1 / np.expm1(-x), name="log1mexp")
derivatives(sp.exp2, lambda out, x: LN2 * out)
derivatives(sp.exp10, lambda out, x: LN10 * out)
derivatives(sp.expm1, lambda out, x: np.exp(x))
derivatives(sp.log1p, lambda out, x: 1 / (1 + x), cuts=lambda x: cut_at_zero(1 + x))
derivatives(sp.cbrt, lambda out, x: 1 / (3 * (out * out)))
derivatives(sp.cosm1, lambda out, x: -np.sin(x))
derivatives(sp.powm1, lambda out, x, y: power_in_base(x, y), lambda out, x, y: power_in_exponent(x, y))


def _moment(z):
    """int_0^1 t exp(z t) dt = (1 + (z - 1) e^z) / z^2 = 1F1(2; 3; z) / 2: by the first beyond |z| = 1, for SciPy's
    1F1 goes on for ever where z is 1e100."""
    far = np.absolute(z) > 1
    near, far_off = np.where(far, 0, z), np.where(far, z, 1)
    least = np.maximum(far_off, -800)  # e^z is zero below
    most = np.minimum(least, 800)  # and infinite above
    outer = (1 + (most - 1) * np.exp(most)) / np.square(np.where(far_off < 0, far_off, most))
    return np.where(far, outer, 0.5 * sp.hyp1f1(2.0, 3.0, near))


derivatives(sp.exprel, lambda out, x: _moment(x))
derivatives(
    sp.xlogy,
    lambda out, x, y: _log(x, y),
    lambda out, x, y: _over(x, y),
    cuts=lambda x, y: cut_at_zero(y),
)
derivatives(
    sp.xlog1py,
    lambda out, x, y: _log1p(x, y),
    lambda out, x, y: _over(x, 1 + y),
    cuts=lambda x, y: cut_at_zero(1 + y),
)
derivatives(sp.entr, lambda out, x: -1 - np.log(x))
derivatives(
    sp.rel_entr,
    lambda out, x, y: _log_over(x, y, 1),
    lambda out, x, y: -_over(x, y),
)
derivatives(
    sp.kl_div,
    lambda out, x, y: _log_over(x, y, 0),
    lambda out, x, y: 1 - _over(x, y),
)


def _in_exponent(y, lmbda):
    """d/dl (exp(l y) - 1) / l = y^2 int_0^1 t exp(l y t) dt, y = log x; where exp(l y) is 0 it is that of -1 / l."""
    gone = np.isinf(y) & (lmbda * np.sign(y) < 0)
    z = np.where((lmbda == 0) | gone, 0, lmbda * y)
    return np.where(gone, 1 / np.square(np.where(gone, lmbda, 1)), np.square(y) * _moment(z))


derivatives(
    sp.boxcox,
    lambda out, x, lmbda: np.power(x, lmbda - 1),
    lambda out, x, lmbda: _in_exponent(np.log(x), lmbda),
)
derivatives(
    sp.boxcox1p,
    lambda out, x, lmbda: np.exp((lmbda - 1) * np.log1p(x)),
    lambda out, x, lmbda: _in_exponent(np.log1p(x), lmbda),
)
for _fn, _one in ((sp.inv_boxcox, 0), (sp.inv_boxcox1p, 1)):  # log(out) = y 2F1(1, 1; 2; -lmbda y)
    derivatives(
        _fn,
        lambda out, y, lmbda, one=_one: (out + one) / (1 + lmbda * y),
        lambda out, y, lmbda, one=_one: -0.5 * (out + one) * np.square(y) * sp.hyp2f1(2.0, 2.0, 3.0, -lmbda * y),
    )


# robust losses
def _pseudo_huber_slope(out, delta, r):
    """2 delta (s - 1) - r^2 / (delta s) with s = sqrt(1 + (r / delta)^2), written without its cancellation."""
    u = np.square(r / delta)
    s = np.sqrt(1 + u)
    return delta * np.square(u) / (s * np.square(1 + s))


derivatives(
    sp.huber,
    lambda out, delta, r: np.maximum(np.absolute(r) - delta, 0),
    lambda out, delta, r: np.minimum(np.maximum(r, -delta), delta),
    kinks=lambda delta, r: (r > delta) * 1 - (r < -delta),
)
derivatives(sp.pseudo_huber, _pseudo_huber_slope, lambda out, delta, r: r / np.sqrt(1 + np.square(r / delta)))

# angles in degrees
for _fn, _slope in ((sp.sindg, lambda out, x: sp.cosdg(x)), (sp.cosdg, lambda out, x: -sp.sindg(x))):
    derivatives(_fn, lambda out, x, slope=_slope: DEGREE * slope(out, x))
derivatives(sp.tandg, lambda out, x: DEGREE * (1 + out * out), steps=lambda x: np.rint(x / 180))
derivatives(sp.cotdg, lambda out, x: -DEGREE * (1 + out * out), steps=lambda x: np.floor(x / 180))
derivatives(
    sp.radian, lambda out, d, m, s: DEGREE, lambda out, d, m, s: DEGREE / 60, lambda out, d, m, s: DEGREE / 3600
)
derivatives(sp.round, None)
