"""Rules of n points for a mean over one law of numbers: those that Gauss's theorem makes exact for polynomials, and others for what is not smooth.

A rule is (x, w), E[f(z)] ~ sum_k w_k f(x_k), the weights being positive and of sum one. There are four kinds, each for what defeats the ones before:

GAUSS   analytic integrands
BENT    those that are not smooth at the median (of normal or uniform noise): a Gauss rule on either side of it
ENDS    those that are singular, or whose derivatives are, at the ends of the support: double exponential in the quantile (Takahasi and Mori, 1974)
HALVES  and at the median: the same on either side of it
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.special as sp

from scg.distributions.gamma import Gamma
from scg.distributions.interval import Beta
from scg.distributions.normal import Normal
from scg.distributions.positive import Exponential
from scg.distributions.uniform import Uniform
from scg.errors import ScgValueError, here

Rule = tuple[Any, Any]
GAUSS, BENT, ENDS, HALVES = range(4)
_FIRST, _LAST = -4.3, 3.15  # where u is 1e-50, and where 1 - u is 2^-53


def standard(law: Any, n: int, kind: int) -> Rule:
    """For noise, a law of numbers without parameters."""
    if kind == GAUSS and type(law) is Normal:
        x, w = sp.roots_hermitenorm(n)
        return law.loc + law.scale * x, w / np.sum(w)
    if kind == BENT and type(law) is Normal:
        r, w = _half_normal(n)
        return law.loc + law.scale * np.concatenate([-r[::-1], r]), 0.5 * np.concatenate([w[::-1], w])
    if kind <= BENT and type(law) is Uniform:
        x, w = sp.roots_legendre(n)
        x, w = 0.5 * (x + 1), 0.5 * w
        if kind == BENT:
            x, w = np.concatenate([0.5 * x, 0.5 + 0.5 * x]), 0.5 * np.concatenate([w, w])
        return law.low + (law.high - law.low) * x, w
    if law.event_shape or not law._inverts_cdf() and type(law) not in (Normal, Uniform):
        raise ScgValueError(f"no rule is known for the noise {law!r} ({here()})")
    u, w = _double_exponential(400 if kind <= BENT else n, _FIRST)
    if kind == HALVES:
        v, weight = _double_exponential(n, 8 / n - _LAST)
        u, w = np.concatenate([0.5 * u, 1 - 0.5 * v[::-1]]), 0.5 * np.concatenate([w, weight[::-1]])
    x = np.asarray(law.icdf(u))
    return _lanczos(x, w, n) if kind <= BENT else (x, w)


def matched(law: Any, n: int) -> Rule | None:
    """For a draw, one rule a law of its batch, along a last axis: Laguerre for exponential and gamma laws, Jacobi for beta; None for others."""
    if type(law) is Exponential:
        return _each(lambda: sp.roots_laguerre(n), lambda x: x / np.reshape(law.rate, (1, -1)))
    if type(law) is Gamma:
        return _each(lambda a: sp.roots_genlaguerre(n, a - 1), lambda x: x / _flat(law.rate, law), _flat(law.concentration, law))
    if type(law) is Beta:
        a, b = (_flat(p, law) for p in law.parameters.values())
        return _each(lambda a, b: sp.roots_jacobi(n, b - 1, a - 1), lambda x: 0.5 * (x + 1), a, b)
    return None


def _flat(parameter: Any, law: Any) -> Any:
    return np.broadcast_to(parameter, law.batch_shape).reshape(-1)


def _each(roots: Callable[..., Rule], place: Callable[[Any], Any], *shapes: Any) -> Rule:
    found = [roots(*s) for s in zip(*shapes, strict=True)] if shapes else [roots()]
    x, w = np.stack([x for x, _ in found], axis=1), np.stack([w for _, w in found], axis=1)
    return place(x), w / np.sum(w, axis=0)


def _double_exponential(n: int, first: float) -> Rule:
    """u = 1 / (1 + exp(-pi sinh t)) at equal steps of t: powers and logarithms at the ends cost nothing. The range grows with n, so that its end shows."""
    t = np.linspace(first, _LAST - 8 / n, n)
    u, rest = sp.expit(math.pi * np.sinh(t)), sp.expit(-math.pi * np.sinh(t))
    w = np.cosh(t) * u * rest
    return u, w / np.sum(w)


def _half_normal(n: int) -> Rule:
    """The Gauss rule of |e|, e standard normal."""
    x, w = sp.roots_legendre(20)
    ends = np.linspace(0, 38, 153)
    r = (ends[:-1, None] + 0.5 * (x + 1) * np.diff(ends)[:, None]).reshape(-1)
    w = np.tile(w, 152) * np.exp(-0.5 * r * r)
    return _lanczos(r, w / np.sum(w), n)


def _lanczos(x: Any, w: Any, n: int) -> Rule:
    """The Gauss rule of a law given by many points: eigenvalues of the Jacobi matrix that Lanczos finds, all vectors kept orthogonal."""
    centre = np.sum(w * x)
    spread = math.sqrt(np.sum(w * (x - centre) ** 2))
    y = (x - centre) / spread
    basis, a, b = [np.sqrt(w)], [], []
    for _ in range(n):
        v = y * basis[-1]
        a.append(v @ basis[-1])
        for _ in range(2):
            v = v - np.array(basis).T @ (np.array(basis) @ v)
        b.append(np.linalg.norm(v))
        basis.append(v / b[-1])
    nodes, vectors = np.linalg.eigh(np.diag(a) + np.diag(b[:-1], 1) + np.diag(b[:-1], -1))
    return centre + spread * nodes, vectors[0] ** 2
