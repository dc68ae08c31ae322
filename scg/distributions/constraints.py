"""Sets of values: what a parameter must satisfy, and where a distribution lives (its support)."""

import math
from dataclasses import dataclass

import numpy as np

from scg.core.node import Numeric, Value

Truth = Value | np.bool | bool
"""Whether something holds, element by element."""


class Constraint:
    """A set. ``contains(x)`` is, element by element (event by event where ``event_ndim`` is 1 or 2), whether x lies in
    it."""

    event_ndim = 0
    low: Numeric = -np.inf  # the ends, where the set is an interval
    high: Numeric = np.inf

    def contains(self, x: Numeric) -> Truth:
        """A boolean array of the shape of x, without its ``event_ndim`` last axes."""
        raise NotImplementedError

    def holds(self, x: Value) -> bool:
        """Whether all of x lies in the set."""
        return bool(np.all(self.contains(x)))


@dataclass(frozen=True, eq=False)
class Interval(Constraint):
    """Real numbers from ``low`` to ``high``, the ends included where ``closed`` ("both", "left", "right", "neither")
    says so. NaN lies in none."""

    low: Numeric = -np.inf
    high: Numeric = np.inf
    closed: str = "both"

    def contains(self, x: Numeric) -> Truth:
        above = x >= self.low if self.closed in ("both", "left") else x > self.low
        below = x <= self.high if self.closed in ("both", "right") else x < self.high
        return above & below

    def __str__(self) -> str:
        left, right = "[" if self.closed in ("both", "left") else "(", "]" if self.closed in ("both", "right") else ")"
        return f"in {left}{self.low}, {self.high}{right}"


@dataclass(frozen=True, eq=False)
class Integers(Constraint):
    """Integers from ``low`` to ``high``, both included, of any numeric dtype."""

    low: Numeric = -np.inf
    high: Numeric = np.inf

    def contains(self, x: Numeric) -> Truth:
        x = np.asarray(x)
        return (x >= self.low) & (x <= self.high) & (np.floor(x) == x) & np.isfinite(x)

    def __str__(self) -> str:
        return f"integers from {self.low} to {self.high}"


class _Real(Constraint):
    """Anything but NaN; infinite parameters have their limits (a logit of inf is a probability of 1)."""

    def contains(self, x: Numeric) -> Truth:
        return x == x

    def holds(self, x: Value) -> bool:
        return finite.holds(x) or super().holds(x)

    def __str__(self) -> str:
        return "a real number"


class _Finite(Constraint):
    """Neither infinite nor NaN."""

    def contains(self, x: Numeric) -> Truth:
        return np.isfinite(x)

    def holds(self, x: Value) -> bool:
        if type(x) is float or x.ndim == 0 and x.dtype.kind == "f":
            return math.isfinite(x)
        with np.errstate(all="ignore"):  # a sum is finite only of finite numbers, and one pass
            return x.dtype.kind == "f" and math.isfinite(np.add.reduce(x, axis=None)) or super().holds(x)

    def __str__(self) -> str:
        return "finite"


class _Positive(Constraint):
    low = 0.0

    def contains(self, x: Numeric) -> Truth:
        return (x > 0) & (x < np.inf)

    def holds(self, x: Value) -> bool:
        if type(x) is float:
            return 0 < x < math.inf
        return not x.size or bool(0 < np.minimum.reduce(x, axis=None) and np.maximum.reduce(x, axis=None) < math.inf)

    def __str__(self) -> str:
        return "positive and finite"


@dataclass(frozen=True, eq=False)
class Circle(Constraint):
    """Angles, in radians: any finite number stands for itself and all others an integer number of turns away.

    ``low`` and ``high`` are the ends of the turn on which samples lie.
    """

    low: Numeric = -np.pi
    high: Numeric = np.pi

    def contains(self, x: Numeric) -> Truth:
        return np.isfinite(x)

    def __str__(self) -> str:
        return "an angle in radians"


@dataclass(frozen=True)
class Vector(Constraint):
    """Vectors whose elements all lie in a set of numbers."""

    element: Constraint
    event_ndim = 1

    def contains(self, x: Numeric) -> Truth:
        return np.all(self.element.contains(np.asarray(x)), axis=-1)

    def __str__(self) -> str:
        return f"a vector, all {self.element}"


@dataclass(frozen=True)
class Matrix(Constraint):
    """Matrices whose elements all lie in a set of numbers."""

    element: Constraint
    event_ndim = 2

    def contains(self, x: Numeric) -> Truth:
        return np.all(self.element.contains(np.asarray(x)), axis=(-2, -1))

    def __str__(self) -> str:
        return f"a matrix, all {self.element}"


@dataclass(frozen=True)
class Simplex(Constraint):
    """Vectors of non-negative numbers with sum one, to the rounding of their dtype: |sum - 1| <= 4 n eps + 1e-6
    sqrt(eps) is generous, a wrong table is not."""

    event_ndim = 1

    def contains(self, x: Numeric) -> Truth:
        x = np.asarray(x)
        eps = np.finfo(x.dtype).eps if x.dtype.kind == "f" else np.finfo(float).eps
        return (x >= 0).all(axis=-1) & (np.abs(x.sum(axis=-1) - 1) <= 8 * eps * max(x.shape[-1], 8))

    def __str__(self) -> str:
        return "non-negative and sum to 1 along the last axis"


@dataclass(frozen=True)
class Increasing(Constraint):
    """Vectors of finite numbers, each greater than the one before."""

    event_ndim = 1

    def contains(self, x: Numeric) -> Truth:
        x = np.asarray(x)
        return np.isfinite(x).all(axis=-1) & (x[..., 1:] > x[..., :-1]).all(axis=-1)

    def __str__(self) -> str:
        return "finite and increasing along the last axis"


@dataclass(frozen=True)
class OneHot(Constraint):
    """Vectors with a single one among zeros."""

    event_ndim = 1

    def contains(self, x: Numeric) -> Truth:
        x = np.asarray(x)
        return ((x == 0) | (x == 1)).all(axis=-1) & (x.sum(axis=-1) == 1)

    def __str__(self) -> str:
        return "one-hot along the last axis"


@dataclass(frozen=True)
class LowerCholesky(Constraint):
    """Lower triangular matrices with a positive diagonal."""

    event_ndim = 2

    def contains(self, x: Numeric) -> Truth:
        x = np.asarray(x)
        diagonal = np.diagonal(x, axis1=-2, axis2=-1)
        return (np.triu(x, 1) == 0).all(axis=(-1, -2)) & (diagonal > 0).all(axis=-1) & np.isfinite(x).all(axis=(-1, -2))

    def __str__(self) -> str:
        return "lower triangular with a positive diagonal"


real, finite, positive = _Real(), _Finite(), _Positive()
nonnegative = Interval(0, np.inf, "left")
unit_interval = Interval(0.0, 1.0)
open_unit_interval = Interval(0.0, 1.0, "neither")
boolean = Integers(0, 1)
simplex, one_hot, lower_cholesky = Simplex(), OneHot(), LowerCholesky()
