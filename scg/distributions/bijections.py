"""Invertible maps with their log-determinants, for ``Transformed``.

A subclass is a frozen dataclass with ``forward``, ``inverse`` and ``log_det``.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import scipy.special as sp

from scg.core.node import Numeric, Value
from scg.distributions.constraints import Constraint, Truth, Vector, finite, lower_cholesky, positive
from scg.distributions.parameterized import Parameterized
from scg.distributions.weak import log
from scg.primitives.contraction import matvec
from scg.special import log1mexp, sigmoid, softplus


class Bijection(Parameterized, ABC):
    """y = forward(x), invertible and differentiable: of numbers (``event_ndim`` 0), or of vectors along the last axis
    (1), with a triangular Jacobian.

    ``low`` and ``high`` are the ends of its range, open; ``inside`` is a number in it.
    """

    event_ndim: ClassVar[int] = 0
    low: ClassVar[float] = -np.inf
    high: ClassVar[float] = np.inf
    inside: ClassVar[float] = 0.0

    @abstractmethod
    def forward(self, x: Value) -> Value:
        """y."""

    @abstractmethod
    def inverse(self, y: Value) -> Value:
        """x."""

    @abstractmethod
    def log_det(self, x: Value) -> Value:
        """log |det dy/dx|, without the ``event_ndim`` last axes."""

    @property
    def increasing(self) -> Truth:
        """Whether a map of numbers grows, element by element; with it cdf and icdf follow."""
        return True


@final
@dataclass(frozen=True, eq=False, repr=False)
class Affine(Bijection):
    """y = loc + scale x; the scale may be negative, but not zero."""

    loc: Numeric
    scale: Numeric

    class _Nonzero(Constraint):
        def contains(self, x: Numeric) -> Truth:
            return np.isfinite(x) & (x != 0)

        def __str__(self) -> str:
            return "finite and not zero"

    constraints = {"loc": finite, "scale": _Nonzero()}

    def forward(self, x: Value) -> Value:
        return self.loc + self.scale * x

    def inverse(self, y: Value) -> Value:
        return (y - self.loc) / self.scale

    def log_det(self, x: Value) -> Value:
        return 0 * x + log(np.absolute(self.scale) if type(self.scale) is not float else abs(self.scale))

    @property
    def increasing(self) -> Truth:
        return self.scale > 0


@final
@dataclass(frozen=True, eq=False, repr=False)
class Exp(Bijection):
    """y = exp(x)."""

    low, inside = 0.0, 1.0

    def forward(self, x: Value) -> Value:
        return np.exp(x)

    def inverse(self, y: Value) -> Value:
        return np.log(y)

    def log_det(self, x: Value) -> Value:
        return x


@final
@dataclass(frozen=True, eq=False, repr=False)
class Sigmoid(Bijection):
    """y = 1 / (1 + exp(-x))."""

    low, high, inside = 0.0, 1.0, 0.5

    def forward(self, x: Value) -> Value:
        return sigmoid(x)

    def inverse(self, y: Value) -> Value:
        return sp.logit(y)

    def log_det(self, x: Value) -> Value:
        return -(softplus(x) + softplus(-x))


@final
@dataclass(frozen=True, eq=False, repr=False)
class Tanh(Bijection):
    """y = tanh(x); log(1 - y^2) = 2 (log 2 - x - softplus(-2x)), accurate where y rounds to 1."""

    low, high = -1.0, 1.0

    def forward(self, x: Value) -> Value:
        return np.tanh(x)

    def inverse(self, y: Value) -> Value:
        return np.arctanh(y)

    def log_det(self, x: Value) -> Value:
        return 2 * (float(np.log(2)) - softplus(2 * x) + x)


@final
@dataclass(frozen=True, eq=False, repr=False)
class Softplus(Bijection):
    """y = log(1 + exp(x))."""

    low, inside = 0.0, 1.0

    def forward(self, x: Value) -> Value:
        return softplus(x)

    def inverse(self, y: Value) -> Value:
        return y + log1mexp(-y)

    def log_det(self, x: Value) -> Value:
        return -softplus(-x)


@final
@dataclass(frozen=True, eq=False, repr=False)
class Power(Bijection):
    """y = x^exponent, of positive numbers."""

    exponent: Numeric
    constraints = {"exponent": positive}
    low, inside = 0.0, 1.0

    def forward(self, x: Value) -> Value:
        return x**self.exponent

    def inverse(self, y: Value) -> Value:
        return y ** (1 / self.exponent)

    def log_det(self, x: Value) -> Value:
        return log(self.exponent) + (self.exponent - 1) * np.log(x)


@final
@dataclass(frozen=True, eq=False, repr=False)
class TrilAffine(Bijection):
    """y = loc + L x for vectors x, L lower triangular with a positive diagonal (no derivative by what stands above
    it)."""

    loc: Value
    scale_tril: Value
    constraints = {"loc": Vector(finite), "scale_tril": lower_cholesky}
    event_ndim = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        n, shape = self.loc.shape[-1], self.scale_tril.shape
        self._require(
            shape[-2:] == (n, n), f"scale_tril must have {n} rows and columns, as loc has elements, got shape {shape}"
        )

    def forward(self, x: Value) -> Value:
        return self.loc + matvec(np.tril(self.scale_tril), x)

    def inverse(self, y: Value) -> Value:
        return np.linalg.solve(np.tril(self.scale_tril), (y - self.loc)[..., None])[..., 0]

    def log_det(self, x: Value) -> Value:
        return 0 * x[..., 0] + np.sum(np.log(np.diagonal(self.scale_tril, axis1=-2, axis2=-1)), axis=-1)
