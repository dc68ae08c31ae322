"""One of K: as an index, and as a one-hot vector."""

import math
from dataclasses import dataclass
from typing import final

import numpy as np

from scg.core.ambient import settled
from scg.core.node import Numeric, Value
from scg.distributions.accurate import rest
from scg.distributions.base import Distribution, FiniteSupport, FixedSupport, Shape
from scg.distributions.constraints import Constraint, Integers, Truth, one_hot, simplex
from scg.distributions.coupling import Kept
from scg.distributions.discrete import ByProbs, log, numbers, outside, times
from scg.distributions.weak import real_array
from scg.special import log_softmax, softmax


class Logits(Constraint):
    """Vectors of log-probabilities up to a constant: below +inf, and not all -inf (the logit of what is impossible)."""

    event_ndim = 1

    def contains(self, x: Numeric) -> Truth:
        x = np.asarray(x)
        return (x < math.inf).all(axis=-1) & (x > -math.inf).any(axis=-1)

    def __str__(self) -> str:
        return "numbers below inf, not all -inf, along the last axis"


class OneOfMany(ByProbs, FiniteSupport, FixedSupport):
    """What the two have in common: K probabilities along the last axis of ``probs`` or ``logits``."""

    constraints = {"probs": simplex, "logits": Logits()}
    edges = {"probs": (0.0,)}

    @property
    def categories(self) -> int:
        """K, the number of categories."""
        return int((self.logits if self.probs is None else self.probs).shape[-1])

    @property
    def p(self) -> Value:
        """The probabilities, of shape batch_shape + (K,)."""
        return softmax(self.logits, -1) if self.probs is None else self.probs

    @property
    def log_p(self) -> Value:
        """Their logarithms; -inf, with derivative zero, for a value that is impossible (a masked action)."""
        if self.probs is None:
            return log_softmax(self.logits, -1)
        possible = np.not_equal(self.probs, 0)
        return np.where(possible, log(np.where(possible, self.probs, 1)), -math.inf)

    def indices(self, rng: np.random.Generator, shape: int | Shape) -> np.ndarray:
        """Independent samples as indices, of shape ``shape + batch_shape``.

        The first k at which the sum of the probabilities exceeds a uniform number.
        """
        sums = np.cumsum(self.detached().p, axis=-1, dtype=float)
        sums /= sums[..., -1:]  # from the last possible category on exactly 1, which no uniform number reaches
        u = rng.random(self.full_shape(shape)[: -1 if self.event_shape else None])
        if sums.ndim == 1:
            return np.asarray(np.searchsorted(sums, u, side="right"))
        return np.asarray(np.sum(u[..., None] >= sums[..., :-1], axis=-1, dtype=np.int64))

    def entropy(self) -> Numeric:
        return -np.sum(times(self.p, self.log_p), axis=-1)

    def kl_to(self, other: Distribution) -> Numeric:
        """sum_k p_k (log p_k - log q_k)."""
        if type(other) is not type(self):
            return NotImplemented
        with np.errstate(invalid="ignore"):  # -inf - -inf, where p is 0
            return np.sum(times(self.p, self.log_p - other.log_p), axis=-1)


@final
@dataclass(frozen=True, eq=False, repr=False)
class Categorical(OneOfMany):
    """p(z) = p_z for z in {0, ..., K-1}, with p = ``probs`` or p = softmax(``logits``) along the last axis, never both.
    Samples are integers (int64).

    ``mean``, ``variance``, ``cdf`` and ``icdf`` are those of the index as a number. ``probs`` are the probabilities
    themselves: the derivative of log p(z) by them is that of log(probs[z]), without a normalisation. The mean of this
    score is 1, not 0: with a baseline, and by ``UnorderedSet``, the gradient by ``probs`` is right up to a constant,
    the same for all of them, which a softmax before them, or ``logits``, takes away. To look up a table at a sample
    that is a node, write ``np.take_along_axis(table, z[..., None], -1)[..., 0]``: ``table[z]`` cannot dispatch.
    """

    probs: Value | None = None
    logits: Value | None = None

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.int64)

    @property
    def support(self) -> Constraint:
        return Integers(0, self.categories - 1)

    def sample(self, rng: np.random.Generator, shape: int | Shape = ()) -> np.ndarray:
        return self.indices(rng, shape)

    def atoms(self) -> np.ndarray:
        return np.arange(self.categories).reshape(-1, *[1] * len(self.batch_shape))

    def masses(self, value: Numeric) -> Value:
        if self.probs is None:
            return super().masses(value)
        return np.sum(np.where(real_array(value)[..., None] == np.arange(self.categories), self.probs, 0), axis=-1)

    def log_prob(self, value: Numeric) -> Value:
        value = real_array(value)
        k = self.categories
        if value.dtype.kind in "iu" and settled(lambda v: np.all((v >= 0) & (v < k)), value):
            return self._at(value)
        bad = outside(value, 0, k - 1)
        found = self._at(np.where(bad | (value != value), 0, value).astype(np.int64))
        return np.where(value != value, math.nan, np.where(bad, -math.inf, found))

    def _at(self, index: Value) -> Value:
        return _gathered(self.log_p, index)

    def following(self, index: Value) -> Value:
        """The next value that is possible, for each of these; K where there is none."""
        k = self.categories
        places = np.where(self.p > 0, np.arange(k), k)
        least = np.flip(np.minimum.accumulate(np.flip(places, -1), axis=-1), -1)  # from each value on
        return _gathered(np.concatenate([least[..., 1:], np.full_like(least[..., :1], k)], axis=-1), index)

    @property
    def mean(self) -> Value:
        return np.sum(self.p * self._numbers(), axis=-1)

    @property
    def variance(self) -> Numeric:
        return np.sum(self.p * np.square(self._numbers() - self.mean[..., None]), axis=-1)

    def cdf(self, value: Numeric) -> Value:
        return np.sum(np.where(self._numbers() <= real_array(value)[..., None], self.p, 0), axis=-1)

    def icdf(self, probability: Numeric) -> Value:
        sums, u = np.cumsum(self.p, axis=-1), real_array(probability)
        found = np.sum(sums[..., :-1] < u[..., None], axis=-1)
        return found if np.all((u >= 0) & (u <= 1)) else np.where((u >= 0) & (u <= 1), found, math.nan)

    def coupled(self, before: Distribution, value: Numeric) -> Distribution:
        return Kept(before, self, value)

    def _numbers(self) -> Value:
        return np.arange(self.categories, dtype=self.p.dtype)


def _gathered(table: Value, index: Value) -> Value:
    """Numbers of a table (batch, K), gathered along its last axis, with index and batch axes broadcast."""
    rank = max(index.ndim, table.ndim - 1)
    table = np.reshape(table, (1,) * (rank + 1 - table.ndim) + table.shape)
    index = np.reshape(index, (1,) * (rank - index.ndim) + index.shape + (1,))
    return np.take_along_axis(table, index, -1)[..., 0]


@final
@dataclass(frozen=True, eq=False, repr=False)
class OneHotCategorical(OneOfMany):
    """log p(z) = sum_k z_k log p_k for z one-hot, with p = ``probs`` or p = softmax(``logits``) along the last axis,
    never both.

    Samples have the dtype of the parameters. At values that are not one-hot log p(z) is -inf; in a graph that was
    recorded at one-hot values, a replay at a relaxed value continues the formula above, linear in z.
    """

    probs: Value | None = None
    logits: Value | None = None
    support = one_hot  # type: ignore[assignment]

    @property
    def event_shape(self) -> Shape:
        return (self.categories,)

    def sample(self, rng: np.random.Generator, shape: int | Shape = ()) -> np.ndarray:
        return (self.indices(rng, shape)[..., None] == np.arange(self.categories)).astype(self.dtype)

    def atoms(self) -> np.ndarray:
        k = self.categories
        return np.eye(k, dtype=self.dtype).reshape(k, *[1] * len(self.batch_shape), k)

    def masses(self, value: Numeric) -> Value:
        return super().masses(value) if self.probs is None else np.sum(np.where(value == 1, self.probs, 0), axis=-1)

    def log_prob(self, value: Numeric) -> Value:
        value, table = numbers(self._events(value), self.dtype), self.log_p
        terms = value * table if settled(lambda t: np.all(t > -math.inf), table) else times(value, table)
        found = np.sum(terms, axis=-1)
        if settled(lambda v: not np.any(v * (v - 1)) and np.all(np.sum(v, axis=-1) == 1), value):
            return found
        bad = np.any((value != 0) & (value != 1), axis=-1) | (np.sum(value, axis=-1) != 1)
        return np.where(np.any(value != value, axis=-1), math.nan, np.where(bad, -math.inf, found))

    @property
    def mean(self) -> Numeric:
        return self.p

    @property
    def variance(self) -> Numeric:
        p = self.p
        return p * (rest(p) if self.probs is None else 1 - p)

    def coupled(self, before: Distribution, value: Numeric) -> Distribution:
        return Kept(before, self, value, event_ndim=1)
