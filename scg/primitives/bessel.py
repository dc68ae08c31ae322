"""Bessel, hypergeometric and elliptic functions, orthogonal polynomials and integrals of ``scipy.special``, by their
recurrences."""

import math

import numpy as np
import scipy.special as sp

from scg.primitives.elementwise import cut_at_zero
from scg.primitives.special import ROOT_PI, derivatives, several

derivatives(sp.j0, lambda out, x: -sp.j1(x))
derivatives(sp.j1, lambda out, x: 0.5 * (sp.j0(x) - sp.jv(2.0, x)))
derivatives(sp.y0, lambda out, x: -sp.y1(x))
derivatives(sp.y1, lambda out, x: 0.5 * (sp.y0(x) - sp.yv(2.0, x)))
derivatives(sp.i0, lambda out, x: sp.i1(x))
derivatives(sp.i1, lambda out, x: 0.5 * (sp.i0(x) + sp.iv(2.0, x)))
derivatives(sp.i0e, lambda out, x: sp.i1e(x) - np.sign(x) * out)
derivatives(sp.i1e, lambda out, x: 0.5 * (sp.i0e(x) + sp.ive(2.0, x)) - np.sign(x) * out)
derivatives(sp.k0, lambda out, x: -sp.k1(x))
derivatives(sp.k1, lambda out, x: -0.5 * (sp.k0(x) + sp.kv(2.0, x)))
derivatives(sp.k0e, lambda out, x: out - sp.k1e(x))
derivatives(sp.k1e, lambda out, x: out - 0.5 * (sp.k0e(x) + sp.kve(2.0, x)))
for _fn in (sp.jv, sp.jve, sp.yv, sp.yve):
    derivatives(_fn, "v", lambda out, v, x, fn=_fn: 0.5 * (fn(v - 1, x) - fn(v + 1, x)))
# of yn, kn and expn SciPy truncates the order
derivatives(sp.yn, "n", lambda out, n, x: 0.5 * (sp.yv(np.trunc(n) - 1.0, x) - sp.yv(np.trunc(n) + 1.0, x)))
derivatives(sp.iv, "v", lambda out, v, x: 0.5 * (sp.iv(v - 1, x) + sp.iv(v + 1, x)))
derivatives(sp.ive, "v", lambda out, v, x: 0.5 * (sp.ive(v - 1, x) + sp.ive(v + 1, x)) - np.sign(x) * out)
derivatives(sp.kv, "v", lambda out, v, x: -0.5 * (sp.kv(v - 1, x) + sp.kv(v + 1, x)))
derivatives(sp.kn, "n", lambda out, n, x: -0.5 * (sp.kv(np.trunc(n) - 1.0, x) + sp.kv(np.trunc(n) + 1.0, x)))
derivatives(sp.kve, "v", lambda out, v, x: out - 0.5 * (sp.kve(v - 1, x) + sp.kve(v + 1, x)))


def _struve_rest(v, x):
    return np.power(0.5 * x, v) * sp.rgamma(v + 1.5) / ROOT_PI


derivatives(sp.struve, "v", lambda out, v, x: 0.5 * (sp.struve(v - 1, x) - sp.struve(v + 1, x) + _struve_rest(v, x)))
derivatives(
    sp.modstruve, "v", lambda out, v, x: 0.5 * (sp.modstruve(v - 1, x) + sp.modstruve(v + 1, x) + _struve_rest(v, x))
)
# Kelvin functions: ber'' = -bei - ber' / x, bei'' = ber - bei' / x
for _re, _im, _rep, _imp in ((sp.ber, sp.bei, sp.berp, sp.beip), (sp.ker, sp.kei, sp.kerp, sp.keip)):
    derivatives(_re, lambda out, x, slope=_rep: slope(x))
    derivatives(_im, lambda out, x, slope=_imp: slope(x))
    derivatives(_rep, lambda out, x, other=_im: -other(x) - out / x)
    derivatives(_imp, lambda out, x, other=_re: other(x) - out / x)
several(sp.airy, lambda y, x: y[1], lambda y, x: x * y[0], lambda y, x: y[3], lambda y, x: x * y[2])
several(sp.itj0y0, lambda y, x: sp.j0(x), lambda y, x: sp.y0(x))
several(sp.iti0k0, lambda y, x: sp.i0(x), lambda y, x: sp.k0(x))
derivatives(sp.itstruve0, lambda out, x: sp.struve(0.0, x))
derivatives(sp.itmodstruve0, lambda out, x: sp.modstruve(0.0, x))

# hypergeometric functions, in their last argument
derivatives(sp.hyp0f1, "v", lambda out, v, z: sp.hyp0f1(v + 1, z) / v)
derivatives(sp.hyp1f1, "a", "b", lambda out, a, b, x: a / b * sp.hyp1f1(a + 1, b + 1, x))
derivatives(sp.hyp2f1, "a", "b", "c", lambda out, a, b, c, z: a * b / c * sp.hyp2f1(a + 1, b + 1, c + 1, z))
derivatives(sp.hyperu, "a", "b", lambda out, a, b, x: -a * sp.hyperu(a + 1, b + 1, x))
derivatives(sp.wright_bessel, "a", "b", lambda out, a, b, x: sp.wright_bessel(a, a + b, x))
derivatives(sp.wrightomega, lambda out, z: out / (1 + out), cuts=lambda z: np.rint(np.imag(z) / (2 * np.pi)))


# integrals
derivatives(sp.expi, lambda out, x: np.exp(x) / x, cuts=cut_at_zero)
derivatives(sp.exp1, lambda out, x: -np.exp(-x) / x, cuts=cut_at_zero)


def _expn_slope(out, n, x):
    """-E_(n-1), where n < 2 by the recurrence (n - 1) E_n = exp(-x) - x E_(n-1)."""
    n = np.trunc(n)
    return -np.where(n > 1, sp.expn(np.maximum(n - 1, 0), x), (np.exp(-x) - (n - 1) * out) / x)


derivatives(sp.expn, "n", _expn_slope)
# log(z) / (1 - z)
derivatives(sp.spence, lambda out, z: -sp.hyp2f1(1.0, 1.0, 2.0, 1 - z), cuts=cut_at_zero)
several(sp.sici, lambda y, x: np.sinc(x / np.pi), lambda y, x: np.cos(x) / x)
several(sp.shichi, lambda y, x: sp.hyp0f1(1.5, 0.25 * x * x), lambda y, x: np.cosh(x) / x)
several(sp.fresnel, lambda y, x: np.sin(0.5 * math.pi * x * x), lambda y, x: np.cos(0.5 * math.pi * x * x))

# elliptic integrals by the parameter m = k^2; K = (pi/2) 2F1(1/2, 1/2; 1; m), E = (pi/2) 2F1(-1/2, 1/2; 1; m)
derivatives(sp.ellipk, lambda out, m: math.pi / 8 * sp.hyp2f1(1.5, 1.5, 2.0, m))
derivatives(sp.ellipkm1, lambda out, p: -math.pi / 8 / p * sp.hyp2f1(0.5, 0.5, 2.0, 1 - p))
derivatives(sp.ellipe, lambda out, m: -math.pi / 8 * sp.hyp2f1(0.5, 1.5, 2.0, m))
derivatives(sp.ellipkinc, lambda out, phi, m: 1 / np.sqrt(1 - m * np.square(np.sin(phi))), "m")
derivatives(sp.ellipeinc, lambda out, phi, m: np.sqrt(1 - m * np.square(np.sin(phi))), "m")


def _agm_slope(out, a, b):
    """From agm(a, b) = (pi/4) (a + b) / K(u^2), u = (a - b) / (a + b)."""
    sum_ = a + b
    u = (a - b) / sum_
    return out / sum_ - 2 * np.square(out) * u * b / sum_**3 * sp.hyp2f1(1.5, 1.5, 2.0, u * u)


derivatives(sp.agm, _agm_slope, lambda out, a, b: _agm_slope(out, b, a))


# orthogonal polynomials: a derivative is a polynomial of the next lower degree n, of another family, also where n is no
# integer; that of a constant, n = 0, is 0; at a negative integer, where SciPy takes other polynomials, it is not known
def _lower(fn, n, *arguments):
    lower = fn(np.where(n == 0, 0, n - 1), *arguments)
    known = np.where((n < 0) & (n == np.rint(n)), math.nan, 1).astype(lower.dtype)
    return np.where(n == 0, 0, lower * known)


derivatives(sp.eval_legendre, "n", lambda out, n, x: 0.5 * (n + 1) * _lower(sp.eval_jacobi, n, 1.0, 1.0, x))
derivatives(sp.eval_sh_legendre, "n", lambda out, n, x: (n + 1) * _lower(sp.eval_jacobi, n, 1.0, 1.0, 2 * x - 1))
derivatives(sp.eval_chebyt, "n", lambda out, n, x: n * _lower(sp.eval_chebyu, n, x))
derivatives(sp.eval_sh_chebyt, "n", lambda out, n, x: 2 * n * _lower(sp.eval_chebyu, n, 2 * x - 1))
derivatives(sp.eval_chebyc, "n", lambda out, n, x: n * _lower(sp.eval_chebyu, n, 0.5 * x))
derivatives(sp.eval_chebyu, "n", lambda out, n, x: 2 * _lower(sp.eval_gegenbauer, n, 2.0, x))
derivatives(sp.eval_sh_chebyu, "n", lambda out, n, x: 4 * _lower(sp.eval_gegenbauer, n, 2.0, 2 * x - 1))
derivatives(sp.eval_chebys, "n", lambda out, n, x: _lower(sp.eval_gegenbauer, n, 2.0, 0.5 * x))
derivatives(
    sp.eval_gegenbauer, "n", "alpha", lambda out, n, alpha, x: 2 * alpha * _lower(sp.eval_gegenbauer, n, alpha + 1, x)
)
derivatives(
    sp.eval_jacobi,
    "n",
    "alpha",
    "beta",
    lambda out, n, a, b, x: 0.5 * (n + a + b + 1) * _lower(sp.eval_jacobi, n, a + 1, b + 1, x),
)
derivatives(sp.eval_laguerre, "n", lambda out, n, x: -_lower(sp.eval_genlaguerre, n, 1.0, x))
derivatives(sp.eval_genlaguerre, "n", "alpha", lambda out, n, alpha, x: -_lower(sp.eval_genlaguerre, n, alpha + 1, x))
derivatives(sp.eval_hermite, "n", lambda out, n, x: 2 * n * _lower(sp.eval_hermite, n, x))
derivatives(sp.eval_hermitenorm, "n", lambda out, n, x: n * _lower(sp.eval_hermitenorm, n, x))
