"""Multinomial distributions: how often each of several outcomes comes in n trials."""

import itertools
import math
from dataclasses import dataclass
from typing import final

import numpy as np
import scipy.special as sp

from scg.core.aliases import Given
from scg.core.ambient import settled
from scg.core.node import Numeric, Value
from scg.core.options import is_integer
from scg.distributions.accurate import rest
from scg.distributions.base import Distribution, Shape
from scg.distributions.categorical import OneOfMany
from scg.distributions.constraints import Constraint, Truth
from scg.distributions.counts import longest
from scg.distributions.discrete import numbers, times
from scg.distributions.weak import betaln, gammaln
from scg.errors import ScgValueError, here
from scg.primitives.layout import stop_gradient
from scg.special import log_softmax


@dataclass(frozen=True, eq=False)
class Compositions(Constraint):
    """Vectors of integers from 0 that sum to n."""

    n: int
    event_ndim = 1

    def contains(self, x: Numeric) -> Truth:
        x = np.asarray(x)
        return ((x >= 0) & (np.floor(x) == x)).all(axis=-1) & (x.sum(axis=-1) == self.n)

    def __str__(self) -> str:
        return f"integers from 0 that sum to {self.n} along the last axis"


@final
@dataclass(frozen=True, eq=False, repr=False)
class Multinomial(OneOfMany):
    """p(x) = n! prod_k p_k^x_k / x_k!, for counts x of sum n: ``probs`` or ``logits`` along the last axis, never both;
    n a fixed integer.

    The entropy is closed: -log n! - n sum p log p + sum_k E[log x_k!], the last over binomial distributions.
    """

    n: int
    probs: Given = None
    logits: Given = None

    def __post_init__(self) -> None:
        if not is_integer(self.n, 0):
            raise ScgValueError(f"Multinomial: n must be an integer from 0, got {self.n!r} ({here()})")
        super().__post_init__()

    @property
    def event_shape(self) -> Shape:
        return (self.categories,)

    @property
    def support(self) -> Constraint:
        return Compositions(self.n)

    def sample(self, rng: np.random.Generator, shape: int | Shape = ()) -> np.ndarray:
        p = np.asarray(self.detached().p, float)
        return rng.multinomial(self.n, p / p.sum(axis=-1, keepdims=True), self.full_shape(shape)[:-1]).astype(
            self.dtype
        )

    def count(self) -> int:
        return math.comb(self.n + self.categories - 1, self.categories - 1)

    def atoms(self) -> np.ndarray:
        """All compositions, by bars among stars: C(n + K - 1, K - 1) of them."""
        k = self.categories
        bars = np.array(list(itertools.combinations(range(self.n + k - 1), k - 1)), np.int64).reshape(-1, k - 1)
        counts = np.diff(bars, axis=1, prepend=-1, append=self.n + k - 1) - 1
        return counts.astype(self.dtype).reshape(-1, *[1] * len(self.batch_shape), k)

    def log_prob(self, value: Numeric) -> Value:
        value = numbers(self._events(value), self.dtype)
        if settled(Compositions(self.n).holds, value):
            return self._inside(value)
        bad = np.any((value < 0) | (np.floor(value) < value), axis=-1) | (np.sum(value, axis=-1) != self.n)
        missing = np.any(value != value, axis=-1)
        return np.where(missing, math.nan, np.where(bad, -math.inf, self._inside(np.where(bad[..., None], 0, value))))

    def masses(self, value: Numeric) -> Value:
        """n! prod_k p_k^x_k / x_k!, with its derivatives where some p_k are 0, where the factor, at most K^n, is a
        number."""
        if self.probs is None or self.n > longest(self.dtype, self.categories):
            return super().masses(value)
        x = numbers(self._events(value), self.dtype)
        bad = np.any((x < 0) | (np.floor(x) < x), axis=-1) | (np.sum(x, axis=-1) != self.n)
        x = np.where(bad[..., None], 0, x)
        ways = np.exp(math.lgamma(self.n + 1) - np.sum(sp.gammaln(stop_gradient(x) + 1), axis=-1))
        return np.where(bad, 0, ways * np.prod(self.probs**x, axis=-1))

    def _inside(self, x: Value) -> Value:
        weighted = sp.xlogy(x, self.probs) if self.logits is None else times(x, log_softmax(self.logits, -1))
        return math.lgamma(self.n + 1) + np.sum(weighted - sp.gammaln(x + 1), axis=-1)

    @property
    def mean(self) -> Numeric:
        return self.n * self.p

    @property
    def variance(self) -> Numeric:
        p = self.p
        return self.n * p * (rest(p) if self.probs is None else 1 - p)

    def entropy(self) -> Numeric:
        k = np.arange(self.n + 1, dtype=self.dtype).reshape(-1, *[1] * (len(self.batch_shape) + 1))
        p = np.exp(
            sp.xlogy(k, self.p) + sp.xlog1py(self.n - k, -self.p) - betaln(k + 1, self.n - k + 1) - math.log(self.n + 1)
        )
        return self.n * super().entropy() - math.lgamma(self.n + 1) + np.sum(p * gammaln(k + 1), axis=(0, -1))

    def kl_to(self, other: Distribution) -> Numeric:
        """n sum_k p_k (log p_k - log q_k), for the same n."""
        return self.n * super().kl_to(other) if isinstance(other, Multinomial) and self.n == other.n else NotImplemented
