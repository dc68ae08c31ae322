"""Sums and integrals over the whole support of a distribution, with the error that they may have. They use its log_prob
and support, nothing else.

- finitely many values: all of them;
- integers without end: until the tail, bounded by a geometric series of the last ratio of terms, is below 1e-14;
- numbers: Gauss-Legendre panels, halved where halving still matters. An end of the support, or infinity, is approached
  as exp(v), so that powers at the end and algebraic tails decay exponentially in v;
- vectors of one or two free dimensions (real, or on the simplex): a double exponential product rule (Takahasi and Mori,
  1974).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from scg.core.aliases import Function, Numbers, Operands, Result
from scg.distributions.base import Discrete, Distribution, FiniteSupport, atoms_of
from scg.distributions.constraints import Simplex, Vector
from scg.errors import ScgValueError

NODES, WEIGHTS = np.polynomial.legendre.leggauss(12)


@dataclass(frozen=True, eq=False)
class Integrals:
    """Over the support, for each distribution of the batch: the mass, and (nan where it diverges) mean, variance and
    entropy; ``error`` is that of the mass.

    ``knots`` cut the line into cells of mass ``cells``, from the left; ``atoms`` and ``masses`` are all values of a
    discrete distribution.
    """

    mass: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    entropy: np.ndarray
    error: float
    knots: Result = None
    cells: Result = None
    atoms: Result = None
    masses: Result = None


def integrals(distribution: Distribution, pilot: np.ndarray) -> Integrals | None:
    """The integrals of ``distribution`` (without Nodes); ``pilot`` are samples, which show where its mass is. None for
    vectors of more dimensions."""
    with np.errstate(all="ignore"):
        if distribution.has(FiniteSupport):
            return _summed(distribution, atoms_of(distribution))
        if distribution.has(Discrete):
            return None if distribution.event_shape else _summed(distribution, _whole_numbers(distribution))
        if not distribution.event_shape:
            return _along_the_line(distribution, pilot)
        fine, coarse = _rule(distribution, pilot, 1 / 32), _rule(distribution, pilot, 1 / 16)
        return None if fine is None or coarse is None else _by_rule(distribution, fine, coarse)


def ends(distribution: Distribution) -> tuple[Numbers, Numbers]:
    """Of the support of a scalar distribution."""
    return getattr(distribution.support, "low", -math.inf), getattr(distribution.support, "high", math.inf)


def _summed(distribution: Distribution, atoms: np.ndarray, weight: Numbers = 1.0, error: float = 1e-12) -> Integrals:
    log_p = np.asarray(distribution.log_prob(atoms))
    p = np.exp(log_p) * weight
    q = p.reshape(p.shape + (1,) * len(distribution.event_shape))
    mean = np.sum(q * atoms, axis=0)
    entropy = -np.sum(np.where(p == 0, 0, p * log_p), axis=0)
    return Integrals(
        np.sum(p, axis=0), mean, np.sum(q * np.square(atoms - mean), axis=0), entropy, error, atoms=atoms, masses=p
    )


def _whole_numbers(distribution: Distribution) -> np.ndarray:
    low, high = np.min(distribution.support.low), np.max(distribution.support.high)
    count, batch = 256, (1,) * len(distribution.batch_shape)
    while True:
        k = (low + np.arange(min(count, high - low + 1) if np.isfinite(high) else count)).reshape(-1, *batch)
        p = np.exp(distribution.log_prob(k[-3:]))
        ratio = p[-1] / p[-2] if len(p) > 1 else 0 * p[-1]
        tail = np.where(p[-1] == 0, (np.max(p) > 0) * 1.0, np.where(ratio < 1, p[-1] * ratio / (1 - ratio), 1))
        if (
            len(k) < count
            or count > 1e6
            or np.all(tail < 1e-14)
            and np.all(np.exp(distribution.log_prob(k)).sum(axis=0) > 0)
        ):
            return k.astype(float)
        count *= 2


def _composed(
    outer: Function, inner: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]], v: np.ndarray
) -> np.ndarray:
    return outer(*inner(v))


def _along_the_line(distribution: Distribution, pilot: np.ndarray) -> Integrals:
    """Cells between quantiles of the pilot draws, and a tail on either side."""
    low, high = ends(distribution)
    knots = np.quantile(np.asarray(pilot, float), [0.001, 0.01, *np.linspace(0.05, 0.95, 19), 0.99, 0.999], axis=0)
    centre, scale = knots[len(knots) // 2], knots[-6] - knots[5]
    if not np.all(scale > 0):
        raise ScgValueError(f"{distribution!r}: its samples are all equal: there is no density to check")
    left, right = _tail(low, knots[0], knots[1] - knots[0]), _tail(high, knots[-1], knots[-1] - knots[-2])

    def at(x: np.ndarray, jacobian: np.ndarray) -> np.ndarray:
        log_p = np.asarray(distribution.log_prob(x))
        inside = (x > low) & (x < high) | np.isfinite(log_p)
        p = np.where(inside, np.exp(log_p), 0) * jacobian
        y = (x - centre) / scale
        parts = [p, np.where(p == 0, 0, p * y), np.where(p == 0, 0, p * y * y), np.where(p == 0, 0, -p * log_p)]
        return np.where(np.isfinite(np.stack(parts, axis=1)), np.stack(parts, axis=1), 0)  # (points, 4, batch)

    # between knots x is linear in t, or its distance from a finite end exponential in t: the nearer end, where there
    # are two
    half, bounded = len(knots) // 2, (np.isfinite(low).all(), np.isfinite(high).all())

    def body(t: np.ndarray) -> np.ndarray:
        i = np.minimum(t.astype(int), len(knots) - 2)
        step, width = _column(t - i, knots[0]), knots[i + 1] - knots[i]
        end = np.where(_column((i < half) & bounded[0] | (not bounded[1]), knots[0]), low, high)
        if not any(bounded):
            return at(knots[i] + step * width, width)
        start, rate = knots[i] - end, np.log((knots[i + 1] - end) / (knots[i] - end))
        return at(end + start * np.exp(rate * step), start * rate * np.exp(rate * step))

    found, error = _adaptive(body, np.arange(len(knots), dtype=float))
    sides = []
    for end, (x_of, length) in ((low, left), (high, right)):
        edges = np.array([0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 700.0])
        edges = np.append(edges[edges < length], length)
        side, missed = _adaptive(partial(_composed, at, x_of), edges)
        last = at(*x_of(np.array([length - 1, length])))[:, 0]
        # of a geometric series
        beyond = np.where(last[1] == 0, 0, last[1] ** 2 / (last[0] - last[1])) if np.isfinite(end).all() else 0
        sides.append(np.sum(side, axis=0))
        error += missed + float(np.max(np.where(beyond >= 0, beyond, 1)))
    cells = np.concatenate([sides[0][None], found, sides[1][None]])
    mass, first, second, entropy = np.moveaxis(np.sum(cells, axis=0), 0, 0)
    variance = (second / mass - np.square(first / mass)) * scale**2
    return Integrals(mass, centre + scale * first / mass, variance, entropy, error + 1e-12, knots, cells[:, 0])


def _tail(end: Result, knot: Result, width: Result) -> tuple[Function, float]:
    """From a knot to an end of the support: (the map from v in [0, length] to (x, |dx/dv|), length)."""
    end = np.asarray(end, float)
    if not np.isfinite(end).all():
        sign = math.copysign(1, float(np.ravel(end)[0]))
        return lambda v: (knot + sign * width * np.expm1(_column(v, knot)), width * np.exp(_column(v, knot))), 700.0
    gap = np.abs(end - knot)
    resolved = np.log(gap / (4 * np.finfo(float).eps * np.abs(end)))  # closer to an end than that x is the end
    length = max(1.0, min(700.0, float(np.min(np.where(end == 0, 700.0, resolved)))))
    sign = np.sign(end - knot)
    return lambda v: (end - sign * gap * np.exp(-_column(v, knot)), gap * np.exp(-_column(v, knot))), length


def _adaptive(f: Callable[[np.ndarray], np.ndarray], edges: np.ndarray) -> tuple[np.ndarray, float]:
    """The integral of f over each interval between ``edges``, and an error.

    Panels are halved until halving changes less than 1e-11 in all.
    """

    def panels(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        y = f(np.ravel(0.5 * (a + b) + 0.5 * (b - a) * NODES[:, None]))
        sums = np.tensordot(WEIGHTS, y.reshape(len(NODES), len(a), *y.shape[1:]), 1)
        return sums * _column(0.5 * (b - a), sums[0])

    a, b, owner = edges[:-1], edges[1:], np.arange(len(edges) - 1)
    coarse = panels(a, b)
    total = np.zeros_like(coarse)
    error = 0.0
    for level in range(24):
        middle = 0.5 * (a + b)
        a, b = np.stack([a, middle], 1).ravel(), np.stack([middle, b], 1).ravel()
        halves = panels(a, b)
        fine = halves.reshape(len(coarse), 2, *coarse.shape[1:]).sum(axis=1)
        off = np.abs(fine - coarse)[:, 0].reshape(len(coarse), -1).max(axis=1)
        all_off = np.abs(fine - coarse).reshape(len(coarse), -1).max(axis=1)
        open_ = (all_off > 1e-13) & (off.sum() > 1e-11 if level > 11 else True)
        if len(coarse) > 3000:
            open_[:] = False
        np.add.at(total, owner[~open_], fine[~open_])
        error += float(off[~open_].sum())
        if not open_.any():
            return total, error
        keep = np.repeat(open_, 2)
        a, b, owner, coarse = a[keep], b[keep], np.repeat(owner, 2)[keep], halves[keep]
    np.add.at(total, owner, coarse)
    return total, error + float(off[open_].sum())


def _column(t: np.ndarray, like: np.ndarray) -> np.ndarray:
    """``t`` along a leading axis in front of those of ``like``."""
    return np.reshape(t, np.shape(t) + (1,) * np.ndim(like))


def _rule(distribution: Distribution, pilot: np.ndarray, step: float) -> tuple[np.ndarray, np.ndarray] | None:
    """Points (n, ones, d) over the support of a distribution of vectors, and their weights; None where no rule is
    known."""
    size = distribution.event_shape[-1]
    if len(distribution.event_shape) != 1:
        return None
    ones = (1,) * len(distribution.batch_shape)
    if isinstance(distribution.support, Simplex) and size in (2, 3):
        t = np.arange(-5.2, 5.2 + step / 2, step)
        u, rest = 1 / (1 + np.exp(-math.pi * np.sinh(t))), 1 / (1 + np.exp(math.pi * np.sinh(t)))
        w = step * math.pi * np.cosh(t) * u * rest
        if size == 2:
            return np.stack([u, rest], -1).reshape(-1, *ones, 2), w.reshape(-1, *ones)
        points = np.stack([u[:, None] + 0 * u, rest[:, None] * u, rest[:, None] * rest], -1)
        return points.reshape(-1, *ones, 3), (w[:, None] * w * rest[:, None]).reshape(-1, *ones)
    if (
        isinstance(distribution.support, Vector)
        and size in (1, 2)
        and not np.any(np.isfinite(distribution.support.low) | np.isfinite(distribution.support.high))
    ):
        t = np.arange(-3.2, 3.2 + step / 2, step)
        s, w = (
            np.sinh(0.5 * math.pi * np.sinh(t)),
            step * 0.5 * math.pi * np.cosh(t) * np.cosh(0.5 * math.pi * np.sinh(t)),
        )
        grid = np.stack(np.meshgrid(*[s] * size, indexing="ij"), -1).reshape(-1, *ones, size)
        weight = np.prod(np.stack(np.meshgrid(*[w] * size, indexing="ij"), -1).reshape(-1, *ones, size), axis=-1)
        centre = np.mean(pilot, axis=0)
        flat = np.moveaxis(np.reshape(pilot - centre, (len(pilot), -1, size)), 0, 1)
        root = np.linalg.cholesky(np.swapaxes(flat, -1, -2) @ flat / len(pilot)).reshape(
            *distribution.batch_shape, size, size
        )
        return centre + np.einsum("...ij,...j->...i", root, grid), weight * np.linalg.det(root)
    return None


def _by_rule(distribution: Distribution, fine: Operands, coarse: Operands) -> Integrals:
    a, b = _summed(distribution, *fine), _summed(distribution, *coarse)
    return Integrals(a.mass, a.mean, a.variance, a.entropy, 1e-12 + float(np.max(np.abs(a.mass - b.mass))))
