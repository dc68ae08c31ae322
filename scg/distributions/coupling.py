"""A sample made again under other parameters from the randomness that it was made from: its distribution given the
sample that is there."""

from dataclasses import dataclass
from typing import final

import numpy as np

from scg.core.aliases import Operand
from scg.core.node import Numeric, Value
from scg.distributions.base import Discrete, Distribution, FiniteSupport, Shape, atoms_of
from scg.distributions.constraints import Constraint, real
from scg.distributions.discrete import log
from scg.distributions.parameterized import batch_of
from scg.distributions.weak import real_array


class Coupled(Distribution):
    """p(z'|z), z = ``value`` a sample of ``before``, such that z' is a sample of ``after``: sum_z p(z'|z) p(z) =
    q(z').

    Samples for other ``after``s are independent of one another given z.
    """

    before: Distribution
    after: Distribution
    value: Numeric
    constraints = {"value": real}
    parts = ("before", "after")
    event_ndim: int = 0  # how many axes of the value belong to one event

    @property
    def marginal(self) -> Distribution:
        return self.after

    @property
    def event_shape(self) -> Shape:
        return self.after.event_shape

    @property
    def dtype(self) -> np.dtype:
        return self.after.dtype

    @property
    def support(self) -> Constraint:
        return self.after.support

    def count(self) -> int:
        return self.after.count()  # type: ignore[attr-defined,no-any-return]

    def parameter_event_ndim(self, name: str) -> int:
        return self.event_ndim if name == "value" else super().parameter_event_ndim(name)

    def _broadcast(self) -> Shape:
        own = batch_of(self.value, self.event_ndim)
        return np.broadcast_shapes(own, self.before.batch_shape, self.after.batch_shape)

    def log_prob(self, value: Numeric) -> Value:
        return log(self.masses(value))


def is_given(distribution: Distribution) -> bool:
    """Whether a distribution is one of samples given others."""
    return distribution.marginal is not distribution


@final
@dataclass(frozen=True, eq=False, repr=False)
class Turned(Coupled, FiniteSupport):
    """A coin z' that differs from z with probability (1 - q(z) / p(z))+: as rarely as it can, which is the coupling by
    quantiles as well."""

    before: Operand
    after: Operand
    value: Operand

    def sample(self, rng: np.random.Generator, shape: int | Shape = ()) -> np.ndarray:
        plain = self.detached()
        z = plain.value
        gone = rng.random(self.full_shape(shape)) * plain.before.masses(z) >= plain.after.masses(z)
        return np.where(gone, 1 - z, z).astype(self.dtype, copy=False)

    def atoms(self) -> np.ndarray:
        return atoms_of(self.after)

    def masses(self, value: Numeric) -> Value:
        p, q = self.before.masses(self.value), self.after.masses(self.value)
        kept = np.minimum(q / np.where(p > 0, p, 1), 1)
        return np.where(real_array(value) == self.value, kept, 1 - kept)


@final
@dataclass(frozen=True, eq=False, repr=False)
class Kept(Coupled, FiniteSupport):
    """p(z'|z) = 1[z' = z] min(1, q(z) / p(z)) + (1 - q(z) / p(z))+ (q(z') - p(z'))+ / sum_k (q(k) - p(k))+: z' differs
    from z as rarely as it can (a maximal coupling).

    For categories, whose order means nothing.
    """

    before: Operand
    after: Operand
    value: Operand
    event_ndim: int = 0  # 1 where values are one-hot

    def sample(self, rng: np.random.Generator, shape: int | Shape = ()) -> np.ndarray:
        plain = self.detached()
        before, after, full = plain.before, plain.after, self.full_shape(shape)
        batch = full[: len(full) - self.event_ndim]
        gone = np.asarray(rng.random(batch) * before.masses(plain.value) >= after.masses(plain.value))
        found = np.array(np.broadcast_to(plain.value, full), self.dtype)
        if gone.any():
            p, q = (np.broadcast_to(d.p, (*batch, d.categories))[gone] for d in (before, after))
            sums = np.cumsum(np.maximum(q - p, 0), axis=-1)
            moved = sums[:, -1] > 0  # not by rounding alone
            gone[gone], sums = moved, sums[moved]
            number = np.sum((rng.random(len(sums)) * sums[:, -1])[:, None] >= sums[:, :-1], axis=-1)
            found[gone] = number[:, None] == np.arange(after.categories) if self.event_ndim else number
        return found

    def atoms(self) -> np.ndarray:
        return atoms_of(self.after)

    def masses(self, value: Numeric) -> Value:
        value = real_array(value)
        p, q = self.before.masses(self.value), self.after.masses(self.value)
        total = np.sum(np.maximum(self.after.p - self.before.p, 0), axis=-1)
        gain = np.maximum(self.after.masses(value) - self.before.masses(value), 0)
        same = np.all(value == self.value, axis=-1) if self.event_ndim else value == self.value
        p = np.where(p > 0, p, 1)
        moved = np.maximum(p - q, 0) / p * gain / np.where(total > 0, total, 1)
        return np.where(same, np.minimum(q / p, 1), moved)


@final
@dataclass(frozen=True, eq=False, repr=False)
class ByQuantile(Coupled, Discrete):
    """z' = G^-1(u), u uniform on (F(z - 1), F(z)]: p(z'|z) is the part of (F(z - 1), F(z)] that (G(z' - 1), G(z')]
    covers, with F and G the distribution functions of ``before`` and ``after``.

    For integers: z' is as close to z as it can be, on average.
    """

    before: Operand
    after: Operand
    value: Operand

    def sample(self, rng: np.random.Generator, shape: int | Shape = ()) -> np.ndarray:
        plain = self.detached()
        low, high = plain.before.cdf(plain.value - 1), plain.before.cdf(plain.value)
        u = low + rng.random(self.full_shape(shape)) * (high - low)
        u = np.clip(u, 0, 1 - np.finfo(u.dtype).epsneg)
        found = np.asarray(plain.after.icdf(u), self.dtype)
        return np.where(np.isfinite(found), found, plain.value).astype(self.dtype)

    def has(self, capability: type) -> bool:
        return self.after.has(FiniteSupport) if capability is FiniteSupport else super().has(capability)

    def atoms(self) -> np.ndarray:
        """Those of ``after``, where it has finitely many."""
        return atoms_of(self.after)

    def count(self) -> int:
        """That of ``after``."""
        return int(self.after.count())

    def masses(self, value: Numeric) -> Value:
        value = real_array(value)
        low, high = self.before.cdf(self.value - 1), self.before.cdf(self.value)
        width = high - low
        common = np.minimum(high, self.after.cdf(value)) - np.maximum(low, self.after.cdf(value - 1))
        # so far out that rounding leaves no interval: a sample of ``after``
        inside = np.maximum(common, 0) / np.where(width > 0, width, 1)
        return np.where(width > 0, inside, self.after.masses(value))
