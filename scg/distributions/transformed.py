"""Distributions made of another distribution: batch axes that become one event, and images under invertible maps."""

import math
from dataclasses import dataclass
from typing import final

import numpy as np

from scg.core.aliases import Operand, Result
from scg.core.node import Numeric, Value
from scg.core.options import is_integer
from scg.distributions.base import (
    Discrete,
    Distribution,
    FiniteSupport,
    FixedSupport,
    Reparameterizable,
    Shape,
    atoms_of,
)
from scg.distributions.bijections import Affine, Bijection
from scg.distributions.constraints import Constraint, Truth
from scg.distributions.image import imaged, is_bounded, preimage
from scg.distributions.uniform import noise_of, transported
from scg.distributions.weak import real_array
from scg.errors import ScgTypeError, ScgValueError, here


class _Made(Reparameterizable, Distribution, FixedSupport):
    """It is reparameterizable, finite or of fixed support where its base is."""

    base: Distribution

    def _check_base(self) -> None:
        if not isinstance(self.base, Distribution):
            raise ScgTypeError(
                f"{type(self).__name__}: base must be a distribution, got {type(self.base).__name__} ({here()})"
            )

    def has(self, capability: type) -> bool:
        # and no distribution: Independent(Bernoulli) is no Bernoulli
        known = capability in (Discrete, FiniteSupport, FixedSupport, Reparameterizable)
        return self.base.has(capability) if known else isinstance(self, capability)

    def bends(self) -> bool:
        return self.base.bends()  # type: ignore[no-any-return]

    @property
    def moving(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple([f"base.{name}" for name in self.base.moving])

    def way_out(self, capability: type) -> str:
        found: str = self.base.way_out(capability)
        return found

    @property
    def rounds(self) -> bool:
        return self.base.rounds

    def unresolved(self) -> float:
        return self.base.unresolved()

    def noise(self, shape: Shape = ()) -> tuple[Distribution, Shape]:
        return noise_of(self.base, shape)


@final
@dataclass(frozen=True, eq=False, repr=False)
class Independent(_Made):
    """The last ``ndim`` batch axes of ``base`` as axes of one event: log p(z) is the sum over them. Parameters are
    ``base.loc`` etc."""

    base: Distribution
    ndim: int = 1
    parts = ("base",)

    def __post_init__(self) -> None:
        self._check_base()
        if not is_integer(self.ndim, 0, len(self.base.batch_shape)):
            most = len(self.base.batch_shape)
            raise ScgValueError(
                f"Independent: ndim must be an integer from 0 to {most}, the base's batch axes, got {self.ndim!r}"
                f" ({here()})"
            )
        super().__post_init__()

    def _broadcast(self) -> Shape:
        shape: Shape = self.base.batch_shape
        return shape[: len(shape) - self.ndim]

    def _taken(self, part: str) -> int:
        return self.ndim

    @property
    def event_shape(self) -> Shape:
        shape: Shape = self.base.batch_shape
        return (*shape[len(shape) - self.ndim :], *self.base.event_shape)

    @property
    def dtype(self) -> np.dtype:
        return self.base.dtype  # type: ignore[no-any-return]

    @property
    def support(self) -> Constraint:
        return _Events(self.base.support, self.ndim)

    def transport(self, noise: Value) -> Value:
        return transported(self.base, noise)

    def sample(self, rng: np.random.Generator, shape: int | Shape = ()) -> np.ndarray:
        return self.base.sample(rng, shape)

    def count(self) -> int:
        places = self.base.batch_shape[len(self.base.batch_shape) - self.ndim :]
        return self.base.count() ** math.prod(places)  # type: ignore[attr-defined,no-any-return]

    def atoms(self) -> np.ndarray:
        """All combinations of the base's atoms, K^n of them for events of n elements."""
        if not self.base.has(FiniteSupport):
            raise self._unknown("atoms")
        batch, inner = self.base.batch_shape, len(self.base.event_shape)
        atoms = atoms_of(self.base)
        each = np.broadcast_to(atoms, (len(atoms), *batch, *self.base.event_shape))
        places = batch[len(batch) - self.ndim :]
        n = math.prod(places)
        joined = each.reshape(len(each), *batch[: len(batch) - self.ndim], n, *self.base.event_shape)
        columns = np.moveaxis(joined, -1 - inner, 0)  # (n, K, ...)
        choice = np.indices((len(each),) * n).reshape(n, -1)
        found = np.stack([columns[i][choice[i]] for i in range(n)], axis=-1 - inner)
        return found.reshape(len(found), *self.batch_shape, *self.event_shape)

    @property
    def marginal(self) -> Distribution:
        base = self.base.marginal
        return self if base is self.base else Independent(base, self.ndim)

    def coupled(self, before: Operand, value: Numeric) -> Result:
        made = self.base.coupled(before.base, value)
        return Independent(made, self.ndim) if isinstance(made, Distribution) else made

    def log_prob(self, value: Numeric) -> Value:
        return self._summed(self.base.log_prob(value))

    def masses(self, value: Numeric) -> Value:
        return (
            np.prod(self.base.masses(value), axis=tuple(range(-self.ndim, 0))) if self.ndim else self.base.masses(value)
        )

    def _summed(self, x: Numeric) -> Result:
        return np.sum(x, axis=tuple(range(-self.ndim, 0))) if self.ndim else x

    @property
    def mean(self) -> Numeric:
        return self.base.mean

    @property
    def variance(self) -> Numeric:
        return self.base.variance

    def entropy(self) -> Numeric:
        found = self.base.entropy()
        return self._summed(
            np.broadcast_to(found, self.base.batch_shape) if np.shape(found) != self.base.batch_shape else found
        )

    def kl_to(self, other: Distribution) -> Numeric:
        """The sum of the divergences of the elements."""
        if not isinstance(other, Independent) or other.ndim != self.ndim:
            return NotImplemented
        found = self.base.kl_to(other.base)
        if found is NotImplemented:
            found = other.base.kl_from(self.base)
        return found if found is NotImplemented else self._summed(found)


@final
@dataclass(frozen=True, eq=False, repr=False)
class Transformed(_Made):
    """The distribution of y = bijection(x), x of the distribution ``base``: log p(y) = log p(x) - log |det dy/dx|.
    Nested, they compose.

    Where the range of the map is bounded, samples lie strictly inside; those by a path know x, at which log_prob is
    taken, so that it and its derivatives are right where y is rounded to an end. Other nodes at an end are refused. A
    map of numbers acts on every element of an event; a triangular one needs a base whose events are vectors,
    ``Independent(base, 1)``.
    """

    base: Distribution
    bijection: Bijection
    parts = ("base", "bijection")

    def __post_init__(self) -> None:
        self._check_base()
        if not isinstance(self.bijection, Bijection):
            raise ScgTypeError(
                f"Transformed: bijection must be a Bijection such as Exp(), got {self.bijection!r} ({here()})"
            )
        if self.base.has(Discrete):
            raise ScgTypeError(f"Transformed: base must be continuous, got {self.base!r} ({here()})")
        if len(self.base.event_shape) < self.bijection.event_ndim:
            raise ScgValueError(
                f"Transformed: {self.bijection!r} maps vectors, and samples of {self.base!r} are numbers: use"
                f" Independent(base, 1) ({here()})"
            )
        super().__post_init__()

    def has(self, capability: type) -> bool:
        return super().has(capability) and (capability is not FixedSupport or Distribution.has(self, capability))

    @property
    def moving(self) -> tuple[str, ...]:  # type: ignore[override]
        own = () if _is_line(self.base.support) else tuple([f"bijection.{name}" for name in self.bijection.parameters])
        return (*super().moving, *own)

    def _broadcast(self) -> Shape:
        inner = len(self.base.event_shape) - self.bijection.event_ndim
        shape = self.bijection.batch_shape
        return np.broadcast_shapes(self.base.batch_shape, shape[: max(len(shape) - inner, 0)])

    def _taken(self, part: str) -> int:
        return 0 if part == "base" else len(self.base.event_shape) - self.bijection.event_ndim

    @property
    def event_shape(self) -> Shape:
        return self.base.event_shape  # type: ignore[no-any-return]

    @property
    def support(self) -> Constraint:
        return _Image(self.base.support, self.bijection)

    def noise(self, shape: Shape = ()) -> tuple[Distribution, Shape]:
        return noise_of(self._spread(), shape)

    def _spread(self) -> Distribution:
        """The base with the batch shape of the whole."""
        return self.base.expanded(self.batch_shape)

    def transport(self, noise: Value) -> Value:
        return imaged(self.bijection, transported(self._spread(), noise))

    def sample(self, rng: np.random.Generator, shape: int | Shape = ()) -> np.ndarray:
        plain = self.detached()
        return np.asarray(imaged(plain.bijection, plain._spread().sample(rng, shape)))

    def coupled(self, before: Operand, value: Numeric) -> Result:
        made: Result = self.base.coupled(before.base, preimage(before.bijection, real_array(value)))
        return made if made is None else imaged(self.bijection, made)

    def inverts_cdf(self) -> bool:
        return bool(self.base.inverts_cdf())

    def _outside(self, y: Value) -> Value:
        return (y <= self.bijection.low) | (y >= self.bijection.high)

    def log_prob(self, value: Numeric) -> Value:
        y = real_array(value)
        x = preimage(self.bijection, y)
        inner = len(self.event_shape) - self.bijection.event_ndim
        stretch = self.bijection.log_det(x)
        found = self.base.log_prob(x) - (np.sum(stretch, axis=tuple(range(-inner, 0))) if inner else stretch)
        if not is_bounded(self.bijection):
            return found
        outside = self._outside(y)
        gone = np.any(outside, axis=tuple(range(-len(self.event_shape), 0))) if self.event_shape else outside
        return np.where(gone, -math.inf, found)

    @property
    def mean(self) -> Numeric:
        if not isinstance(self.bijection, Affine):
            raise self._unknown("mean")
        mean: Result = self.base.mean
        return self._whole(self.bijection.forward(mean))

    @property
    def variance(self) -> Numeric:
        if not isinstance(self.bijection, Affine):
            raise self._unknown("variance")
        return self._whole(self.base.variance * self.bijection.scale**2)

    def entropy(self) -> Numeric:
        if not isinstance(self.bijection, Affine) or self.event_shape:
            raise self._unknown("entropy")
        return self._whole(self.base.entropy() + self.bijection.log_det(np.zeros((), self.dtype)))

    def cdf(self, value: Numeric) -> Value:
        if self.event_shape:
            raise self._unknown("cdf")
        y = real_array(value)
        low, high = y <= self.bijection.low, y >= self.bijection.high
        below = self.base.cdf(self.bijection.inverse(np.where(low | high, self.bijection.inside, y)))
        found = np.where(self.bijection.increasing, below, 1 - below)
        return np.where(low, 0, np.where(high, 1, found))

    def icdf(self, probability: Numeric) -> Value:
        if self.event_shape:
            raise self._unknown("icdf")
        p = real_array(probability)
        return self.bijection.forward(self.base.icdf(np.where(self.bijection.increasing, p, 1 - p)))

    def kl_to(self, other: Distribution) -> Numeric:
        """KL of the bases, where both have the very same map."""
        if not isinstance(other, Transformed):
            return NotImplemented
        one, two = self.bijection, other.bijection
        same = one is two or type(one) is type(two) and not vars(one).keys() - {"_batch_shape"}
        if not same:
            return NotImplemented
        found = self.base.kl_to(other.base)
        return other.base.kl_from(self.base) if found is NotImplemented else found


def _is_line(support: Constraint) -> bool:
    """Whether a support is all of the real numbers, or vectors of them: affine maps do not move it."""
    element = getattr(support, "element", support)
    return bool(np.all(np.isinf(element.low)) and np.all(np.isinf(element.high)))


class _Events(Constraint):
    """Events of which every element lies in the support of the base."""

    def __init__(self, element: Constraint, ndim: int):
        self.element, self.ndim, self.event_ndim = element, ndim, element.event_ndim + ndim

    def contains(self, x: Numeric) -> Truth:
        return (
            np.asarray(self.element.contains(x)).all(axis=tuple(range(-self.ndim, 0)))
            if self.ndim
            else self.element.contains(x)
        )

    def __str__(self) -> str:
        return f"all {self.element}"


class _Image(Constraint):
    """The image of a support under a map."""

    def __init__(self, source: Constraint, bijection: Bijection):
        self.source, self.bijection, self.event_ndim = source, bijection, source.event_ndim
        if not (source.event_ndim or bijection.event_ndim):
            with np.errstate(all="ignore"):
                ends = [bijection.forward(np.asarray(end, float)) for end in (source.low, source.high)]
            self.low, self.high = np.minimum(ends[0], ends[1]), np.maximum(ends[0], ends[1])

    def contains(self, y: Numeric) -> Truth:
        y = np.asarray(y)
        inside = (y > self.bijection.low) & (y < self.bijection.high)
        with np.errstate(all="ignore"):
            there = self.source.contains(self.bijection.inverse(np.where(inside, y, self.bijection.inside)))
        return there & (inside.all(axis=tuple(range(-self.event_ndim, 0))) if self.event_ndim else inside)

    def __str__(self) -> str:
        return f"the image of values {self.source} under {self.bijection!r}"
