"""Quadrature rules of n points for a mean over one distribution of numbers: those that Gauss's theorem makes exact for
polynomials, and others for what is not smooth.

A rule is (x, w), E[f(z)] ~ sum_k w_k f(x_k), the weights being positive and of sum one. There are five kinds, each for
what defeats the ones before:

GAUSS   analytic integrands
ENDS    those that are singular, or whose derivatives are, at the ends of the support: double exponential in the
        quantile (Takahasi and Mori, 1974)
PIECES  those with breaks, or heavy tails: double exponential in the value itself, on each of the pieces between breaks,
        and outwards
PANELS  any, as a check of the others: see ``panels``
NESTED  panels, and for two elements that bend or jump together panels of the one for each point of the other: see
        ``nested``
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import scipy.special as sp
from numpy.typing import ArrayLike

from scg.core.aliases import Numbers
from scg.core.node import value_of
from scg.distributions.base import Distribution
from scg.distributions.beta import Beta
from scg.distributions.gamma import Gamma
from scg.distributions.normal import Normal
from scg.distributions.positive import Exponential
from scg.distributions.transformed import Transformed
from scg.distributions.uniform import Uniform
from scg.errors import ScgError, ScgValueError, here

Rule = tuple[np.ndarray, np.ndarray]
"""Points and their weights, or the steps that a density is to be multiplied by."""

GAUSS, ENDS, PIECES, PANELS, NESTED = range(5)
_FIRST, _LAST = -4.3, 3.15  # where u is 1e-50, and where 1 - u is 2^-53
_CLOSE = 1e-15  # to a break: what is added to the value there may round it to the break itself


class Place(NamedTuple):
    """Where the values of a distribution of numbers lie: the ends of its support, a centre and a scale."""

    low: Numbers
    high: Numbers
    centre: Numbers
    scale: Numbers


def standard(distribution: Distribution, n: int, kind: int) -> Rule:
    """For noise, a distribution of numbers without parameters."""
    if kind == GAUSS and type(distribution) is Normal:
        x, w = sp.roots_hermitenorm(n)
        return distribution.loc + distribution.scale * x, w / np.sum(w)
    if kind == GAUSS and type(distribution) is Uniform:
        x, w = sp.roots_legendre(n)
        return distribution.low + (distribution.high - distribution.low) * 0.5 * (x + 1), 0.5 * w
    if not has_quantiles(distribution):
        raise ScgValueError(f"no quadrature rule is known for the noise {distribution!r} ({here()})")
    u, w = _double_exponential(400 if kind == GAUSS else n, _FIRST)
    x = np.asarray(distribution.icdf(u))
    return _lanczos(x, w, n) if kind == GAUSS else (x, w)


def has_quantiles(distribution: Distribution) -> bool:
    """Whether a rule in the quantiles is to be had."""
    return not distribution.event_shape and (distribution.inverts_cdf() or type(distribution) in (Normal, Uniform))


def place_of(distribution: Distribution) -> Place | None:
    """That of a distribution of numbers; None where it has none that is known."""
    low, high = getattr(distribution.support, "low", -math.inf), getattr(distribution.support, "high", math.inf)
    with np.errstate(all="ignore"):
        if has_quantiles(distribution):
            first, centre, last = (
                np.asarray(distribution.icdf(np.full(distribution.batch_shape, u))) for u in (0.25, 0.5, 0.75)
            )
            scale = last - first
        elif isinstance(distribution, Transformed) and not distribution.event_shape:
            base = place_of(distribution.base)
            if base is None:
                return None
            mapped = distribution.bijection.forward
            first, centre, last = (value_of(mapped(np.asarray(base.centre + k * base.scale))) for k in (-1, 0, 1))
            scale = np.abs(last - first)
        else:
            try:
                centre, scale = np.asarray(distribution.mean), np.sqrt(distribution.variance)
            except ScgError:
                return None
    good = np.all(np.isfinite(centre) & np.isfinite(scale) & (scale > 0) & (centre > low) & (centre < high))
    return Place(low, high, centre, scale) if good else None


def points_along(low: float, high: float, centre: float, scale: float) -> np.ndarray:
    """Points between which a function is looked at: dense within twelve scales, in geometric steps outwards and towards
    the ends."""
    steps = np.concatenate([np.linspace(0, 12, 241)[1:], np.geomspace(12, 1e8, 60)[1:]])
    near = np.concatenate([np.linspace(0, 0.95, 200)[1:], 1 - np.geomspace(0.05, 1e-14, 60)[1:]])
    sides = [
        centre + sign * ((end - centre) * sign * near if math.isfinite(end) else scale * steps)
        for sign, end in ((-1, low), (1, high))
    ]
    return np.concatenate([sides[0][::-1], [centre], sides[1]])


def pieces(low: float, high: float, centre: float, scale: float, breaks: Sequence[float] | np.ndarray, n: int) -> Rule:
    """Points, and what the density at each is to be multiplied by: n on each of the pieces between the ends, the centre
    and the breaks.

    On a finite piece (a, b) x = a + (b - a) / (1 + exp(-pi sinh t)), outwards x = a + scale exp(pi/2 sinh t), at equal
    steps of t (Takahasi and Mori, 1974): what is singular at the ends of pieces, or has heavy tails, costs nothing. The
    range grows with n, so that its end shows.
    """
    edges = sorted({low, high, *[float(b) for b in breaks]})
    if all(abs(centre - b) > 1e-13 * (abs(centre) + scale) for b in edges):
        edges = sorted([*edges, centre])
    rules = [_piece(a, b, scale, n) for a, b in itertools.pairwise(edges)]
    x, w = (np.concatenate(part) for part in zip(*rules, strict=True))
    return x, w


def _piece(a: float, b: float, scale: float, n: int) -> Rule:
    if math.isinf(a) and math.isinf(b):
        raise ValueError("a piece has an end")
    if math.isinf(a):
        x, w = _piece(-b, math.inf, scale, n)
        return -x[::-1], w[::-1]
    first = 6.8 - 8 / n if a == 0 else (3.9 if math.isinf(b) else 3.2) - 4 / n
    if math.isinf(b):
        t = np.linspace(-first, 5.2 - 8 / n, n)
        r = scale * np.exp(0.5 * math.pi * np.sinh(t))
        x, w = a + r, r * 0.5 * math.pi * np.cosh(t)
    else:
        last = 6.1 - 8 / n if b == 0 else 3.2 - 4 / n
        t = np.linspace(-min(first, 6.1), last, n)
        u, rest = sp.expit(math.pi * np.sinh(t)), sp.expit(-math.pi * np.sinh(t))
        x = np.where(u < rest, a + (b - a) * u, b - (b - a) * rest)
        w = (b - a) * math.pi * np.cosh(t) * u * rest
    inside = (x - a > _CLOSE * (abs(a) + scale) * (a != 0)) & (
        math.isinf(b) or (b - x > _CLOSE * (abs(b) + scale) * (b != 0))
    )
    return x, np.where(inside, w * (t[1] - t[0]), 0)


def matched(distribution: Distribution, n: int) -> Rule | None:
    """For a sample, one rule a distribution of its batch, along a last axis: Laguerre for exponential and gamma
    distributions, Jacobi for beta; None for others."""
    if type(distribution) is Exponential:
        return _each(lambda: sp.roots_laguerre(n), lambda x: x / np.reshape(distribution.rate, (1, -1)))
    if type(distribution) is Gamma:
        return _each(
            lambda a: sp.roots_genlaguerre(n, a - 1),
            lambda x: x / _flat(distribution.rate, distribution),
            _flat(distribution.concentration, distribution),
        )
    if type(distribution) is Beta:
        a, b = (_flat(p, distribution) for p in distribution.parameters.values())
        return _each(lambda a, b: sp.roots_jacobi(n, b - 1, a - 1), lambda x: 0.5 * (x + 1), a, b)
    return None


def _flat(parameter: ArrayLike, distribution: Distribution) -> np.ndarray:
    return np.broadcast_to(parameter, distribution.batch_shape).reshape(-1)


def _each(roots: Callable[..., Rule], place: Callable[[np.ndarray], np.ndarray], *shapes: np.ndarray) -> Rule:
    found = [roots(*s) for s in zip(*shapes, strict=True)] if shapes else [roots()]
    x, w = np.stack([x for x, _ in found], axis=1), np.stack([w for _, w in found], axis=1)
    return place(x), w / np.sum(w, axis=0)


def _double_exponential(n: int, first: float) -> Rule:
    """u = 1 / (1 + exp(-pi sinh t)) at equal steps of t: powers and logarithms at the ends cost nothing. The range
    grows with n, so that its end shows."""
    t = np.linspace(first, _LAST - 8 / n, n)
    u, rest = sp.expit(math.pi * np.sinh(t)), sp.expit(-math.pi * np.sinh(t))
    w = np.cosh(t) * u * rest
    return u, w / np.sum(w)


def _lanczos(x: np.ndarray, w: np.ndarray, n: int) -> Rule:
    """The Gauss rule of a distribution given by many points: eigenvalues of the Jacobi matrix that Lanczos finds, all
    vectors kept orthogonal."""
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
