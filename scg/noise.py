"""Noise that is coupled along an axis of samples: antithetic pairs and randomised quasi-Monte Carlo.

The numbers behind n samples depend on one another, and each has its own distribution still: means over the samples keep
their mean, and vary less where the cost is smooth. ``scg.sample(..., shape=n, coupling=scg.noise.Sobol())``.
"""

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from scg.core.axes import elementwise
from scg.core.node import Value
from scg.core.primitive import primitive, smooth_primitive
from scg.distributions.base import Distribution, Shape
from scg.distributions.normal import Normal
from scg.distributions.uniform import UNIT
from scg.errors import ScgValueError, here

__all__ = ["Antithetic", "Coupling", "Sobol", "Systematic"]

Fresh = Callable[[Distribution, Shape], Value]
MOST = 21_201
"""The numbers of one sample for which SciPy has Sobol points."""


class Coupling(ABC):
    """How the noise of n samples along an axis depends on one another.

    A function of independent noise, so that replicates draw all of it anew, and ``scg.exact`` integrates over it. Each
    of the n has the distribution that it would have alone, and so has each number of a sample given its others.
    """

    def coupled(self, base: Distribution, shape: Shape, axis: int, fresh: Fresh) -> Value:
        """Noise of distribution ``base`` and of a shape, coupled along an axis; ``fresh(distribution, shape)`` is
        independent noise."""
        u = self.uniform((shape[axis], *shape[:axis], *shape[axis + 1 :]), fresh)
        e: Any = u if base is UNIT else base.icdf(u)
        return e if axis == 0 else np.moveaxis(e, 0, axis)

    @abstractmethod
    def uniform(self, shape: Shape, fresh: Fresh) -> Value:
        """Numbers uniform on (0, 1), coupled along the leading axis."""


@final
@dataclass(frozen=True)
class Antithetic(Coupling):
    """Pairs u, 1 - u; for normal noise e, -e: the second half of the samples mirrors the first (Hammersley and Morton,
    1956).

    What is odd in the noise has no variance left; a mean of monotone costs has less than of independent samples, one of
    even costs twice as much.
    """

    def coupled(self, base: Distribution, shape: Shape, axis: int, fresh: Fresh) -> Value:
        if not isinstance(base, Normal):
            return super().coupled(base, shape, axis, fresh)
        e = fresh(base, (*shape[:axis], (shape[axis] + 1) // 2, *shape[axis + 1 :]))
        return _paired(e, 2 * base.loc - e, shape[axis], axis)

    def uniform(self, shape: Shape, fresh: Fresh) -> Value:
        u = fresh(UNIT, ((shape[0] + 1) // 2, *shape[1:]))
        return _paired(u, mirrored(u), shape[0], 0)


@final
@dataclass(frozen=True)
class Systematic(Coupling):
    """u_i = U + pi(i) / n modulo 1: one number for all n, shifted by steps of 1/n (systematic sampling: Madow and
    Madow, 1944; Cranley and Patterson, 1976).

    Each number of a sample has a U and an order pi of its own; the orders are fixed. One in each of n intervals of
    equal length: the variance of a mean of smooth bounded costs of one number is of order n^-2; of several numbers,
    what is a sum over them has that order, and the rest about the variance of independent samples.
    """

    def uniform(self, shape: Shape, fresh: Fresh) -> Value:
        return rotated(fresh(UNIT, (1, *shape[1:])), _orders(shape[0], math.prod(shape[1:])).reshape(shape))


@final
@dataclass(frozen=True)
class Sobol(Coupling):
    """The first n Sobol points, all with the same random digits added without carry (a digital shift; Owen, 1998;
    L'Ecuyer and Lemieux, 2002).

    One in each of n boxes of equal volume, in many ways, also for several numbers of a sample together: the variance of
    a mean of smooth bounded costs is of order n^-2 (up to logarithms). Best for n = 2^m; for another n the boxes are
    not all taken. At most 21,201 numbers a sample.
    """

    def uniform(self, shape: Shape, fresh: Fresh) -> Value:
        size = math.prod(shape[1:])
        if size > MOST:
            raise ScgValueError(
                f"Sobol: a sample of {size:,} numbers has more than the {MOST:,} that there are points for: use"
                f" scg.noise.Systematic() ({here()})"
            )
        bits = max(shape[0] - 1, 0).bit_length()
        places = np.arange(shape[0] * size).reshape(shape)
        return shifted(fresh(UNIT, (1, *shape[1:])), places, points=(shape[0], size, bits))


def _paired(e: Value, other: Value, n: int, axis: int) -> Value:
    both = np.concatenate([e, other], axis=axis)
    return both if both.shape[axis] == n else np.take(both, np.arange(n), axis=axis)


def _inside(u: Any) -> Any:
    """Off the ends, where a quantile may be infinite; as the uniform noise itself."""
    eps = float(np.finfo(u.dtype).epsneg)
    return np.clip(u, 0.5 * eps, 1 - eps)


def _along(g: Value, out: Value, u: Value, *more: Any, **statics: Any) -> Value:
    return g


mirrored = smooth_primitive(lambda u: _inside(1 - u), elementwise, lambda g, out, u: -g, name="mirrored")
"""1 - u."""

rotated = primitive(
    lambda u, by: _inside((u + by.astype(u.dtype)) % 1),
    elementwise,
    _along,
    None,
    name="rotated",
    steps=lambda u, by: u + by >= 1,
)
"""u + by, modulo 1."""


def _shift(u: Any, places: np.ndarray, points: tuple[int, int, int]) -> Any:
    digits = _points(*points).ravel()[places]  # made here: a plan watches what is no primitive
    scaled = np.ldexp(u, points[2])
    whole = np.floor(scaled)
    return _inside(np.ldexp((whole.astype(np.int64) ^ digits) + (scaled - whole), -points[2]).astype(u.dtype))


shifted = primitive(
    _shift,
    elementwise,
    _along,
    None,
    name="shifted",
    steps=lambda u, places, points: np.floor(np.ldexp(u, points[2])) + 0 * places,
)
"""u with its first binary digits added without carry to those of the Sobol points at some places in their table."""


@functools.lru_cache(64)
def _orders(n: int, size: int) -> np.ndarray:
    """pi(i) / n for each of ``size`` numbers; the first in order."""
    table = np.arange(n)[:, None] + np.zeros(size, int)
    if size > 1:
        table[:, 1:] = np.random.default_rng(0).permuted(table[:, 1:], axis=0)
    return _frozen(table / n)


@functools.lru_cache(64)
def _points(n: int, size: int, bits: int) -> np.ndarray:
    """The first n Sobol points as integers below 2^bits."""
    from scipy.stats import qmc  # takes half a second to import

    # without a generator it would ask the system for one
    found = (
        qmc.Sobol(d=size, scramble=False, seed=np.random.default_rng(0)).random_base2(bits)[:n]
        if size
        else np.zeros((n, 0))
    )
    return _frozen(np.ldexp(found, bits).astype(np.int64))


def _frozen(x: np.ndarray) -> np.ndarray:
    x.flags.writeable = False
    return x
