"""Distributions of counts, by the conventions of NumPy's generators: Binomial, Geometric (trials, from 1), Poisson,
NegativeBinomial (failures).

Samples are integers in the dtype of the parameters. Rounding errors of log p are those of log-gamma: about eps n log
n.
"""

import math
from dataclasses import dataclass
from typing import final

import numpy as np
import scipy.special as sp

from scg.core.aliases import Given
from scg.core.ambient import settled
from scg.core.axes import elementwise
from scg.core.node import Node, Numeric, Value, value_of
from scg.core.primitive import smooth_primitive
from scg.distributions import entropies
from scg.distributions.base import Discrete, Distribution, FiniteSupport, FixedSupport, Shape
from scg.distributions.constraints import (
    Constraint,
    Integers,
    Interval,
    finite,
    nonnegative,
    positive,
    real,
    unit_interval,
)
from scg.distributions.coupling import ByQuantile
from scg.distributions.discrete import Odds, log, numbers, outside, smallest, supported, times
from scg.distributions.weak import betaln
from scg.errors import NotDifferentiable, ScgValueError, here
from scg.primitives.layout import stop_gradient

probability = Interval(0.0, 1.0, "right")
"""Of what must be possible."""
possible = Interval(-math.inf, math.inf, "right")
"""Its logit."""
naturals = Integers(0)
_RARE = 1e-17
"""Below this probability NumPy's generators would meet the end of the integers: 2^63 trials without success have the
probability exp(-2^63 p), and here that is 1e-40."""

_MANY = 1e18
"""Rates above which the samples of NumPy's generators would not be integers that they can hold."""


def _no_derivative(g: Value, out: Value, n: Value) -> Value:
    raise NotDifferentiable(f"a number of trials has no derivative: apply scg.stop_gradient to it ({here()})")


_trials = smooth_primitive(lambda n: n, elementwise, _no_derivative, name="trials")


@final
@dataclass(frozen=True, eq=False, repr=False)
class Binomial(Odds, FiniteSupport, FixedSupport):
    """p(k) = C(n, k) p^k (1-p)^(n-k), k = 0, ..., n: the successes of n trials; ``probs`` or ``logits``, never both.

    ``n`` are integers (a node may hold them, such as a sample of a Poisson distribution; it gets no derivative), below
    2^63 for samples. The entropy is an integral for a variance up to 400, else a sum over a lattice.
    """

    n: Numeric
    probs: Given = None
    logits: Given = None
    constraints = {"n": naturals, "probs": unit_interval, "logits": real}

    @property
    def support(self) -> Constraint:
        return Integers(0, value_of(self.n))

    @property
    def trials(self) -> Numeric:
        """n, in the dtype of the probability."""
        n = _trials(self.n)
        return n if type(n) is float or n.dtype == self.dtype else n.astype(self.dtype)

    def sample(self, rng: np.random.Generator, shape: int | Shape = ()) -> np.ndarray:
        plain = self.detached()
        if np.any(np.asarray(plain.n) >= 2.0**63):
            raise ScgValueError(f"{self!r}: samples are drawn for n below 2^63, got {np.max(plain.n)} ({here()})")
        return np.asarray(rng.binomial(np.asarray(plain.n).astype(np.int64), plain.p, self.full_shape(shape))).astype(
            self.dtype
        )

    def atoms(self) -> np.ndarray:
        if type(self.n) is Node:
            raise ScgValueError(
                f"{self!r}: the values cannot be listed where n is a node; use ScoreFunction(), or a fixed n ({here()})"
            )
        return np.arange(int(np.max(self.n)) + 1, dtype=self.dtype).reshape(-1, *[1] * len(self.batch_shape))

    def log_prob(self, value: Numeric) -> Value:
        return supported(self._inside, numbers(value, self.dtype), 0, self.n)

    def _inside(self, k: Value) -> Value:
        n = self.trials
        ways = -betaln(k + 1, n - k + 1) - log(n + 1)
        if self.probs is None and settled(finite.holds, self.logits):
            return ways + (k * self.log_p + (n - k) * self.log_q)
        return ways + self.power(k, n - k)

    def masses(self, value: Numeric) -> Value:
        """C(n, k) p^k (1-p)^(n-k), with its derivatives at p = 0 and 1, where C(n, k) < 2^n is a number."""
        if self.probs is None or not settled(lambda n: np.max(n, initial=0) <= longest(self.dtype, 2), self.n):
            return super().masses(value)
        value, n = numbers(value, self.dtype), self.trials
        bad = outside(value, 0, self.n)
        k = np.where(bad, 0, value)
        ways = stop_gradient(np.exp(-betaln(k + 1, n - k + 1) - log(n + 1)))
        return np.where(bad, 0, ways * self.p**k * self.q ** (n - k))

    @property
    def mean(self) -> Numeric:
        return self._whole(self.trials * self.p)

    @property
    def variance(self) -> Numeric:
        return self._whole(self.trials * self.p * self.q)

    def entropy(self) -> Numeric:
        return self._whole(entropies.binomial(self.trials, self.p, self.q, self.log_p, self.log_q))

    def cdf(self, value: Numeric) -> Value:
        k, n = np.floor(numbers(value, self.dtype)), self.trials
        below, all_ = k < 0, k >= n
        inner = sp.betaincc(np.where(below | all_, 0, k) + 1, np.where(below | all_, 1, n - k), self.p)
        return np.where(below, 0, np.where(all_, 1, inner))

    def icdf(self, probability: Numeric) -> Value:
        return smallest(self, probability)

    def coupled(self, before: Distribution, value: Numeric) -> Distribution:
        return ByQuantile(before, self, value)

    def kl_to(self, other: Distribution) -> Numeric:
        """n times that of one trial, for the same n."""
        if not isinstance(other, Binomial) or not settled(np.array_equal, self.n, other.n):
            return NotImplemented
        return self.trials * self.of_a_trial(other)


@final
@dataclass(frozen=True, eq=False, repr=False)
class Geometric(Odds, Discrete, FixedSupport):
    """p(k) = (1-p)^(k-1) p, k = 1, 2, ...: the trials up to and with the first success (as in SciPy and NumPy; PyTorch
    and TFP count the failures, one less); ``probs`` or ``logits``, never both."""

    probs: Given = None
    logits: Given = None
    constraints = {"probs": probability, "logits": possible}
    support = Integers(1)  # type: ignore[assignment]

    def sample(self, rng: np.random.Generator, shape: int | Shape = ()) -> np.ndarray:
        p, full = np.asarray(self.detached().p), self.full_shape(shape)
        z = np.asarray(rng.geometric(np.maximum(p, _RARE), full)).astype(self.dtype)
        if np.all(p >= _RARE):
            return z
        with np.errstate(divide="ignore", over="ignore"):  # P(Z > k) = exp(k log(1-p)), log(1-p) = -p
            z = np.where(p < _RARE, np.ceil(rng.standard_exponential(full) / p).astype(self.dtype), z)
        if not np.all(np.isfinite(z)):
            raise ScgValueError(
                f"Geometric: p = {np.min(p)} has samples that are greater than any number of {self.dtype} ({here()})"
            )
        return z

    def log_prob(self, value: Numeric) -> Value:
        return supported(lambda k: self.power(0 * k + 1, k - 1), numbers(value, self.dtype), 1)

    @property
    def mean(self) -> Numeric:
        return self._whole(1 / self.p)

    @property
    def variance(self) -> Numeric:
        return self._whole(self.q / self.p / self.p)

    def entropy(self) -> Numeric:
        rounded = self.p == 0  # where logits have a p below all numbers: -log(q) / p goes to 1
        spread = np.where(rounded, 1, -times(self.q, self.log_q) / np.where(rounded, 1, self.p))
        return self._whole(spread - self.log_p)

    def cdf(self, value: Numeric) -> Value:
        k = np.floor(numbers(value, self.dtype))
        return np.where(k < 1, 0, -np.expm1(times(np.where(k < 1, 1, k), self.log_q)))

    def icdf(self, probability: Numeric) -> Value:
        return smallest(self, probability)

    def coupled(self, before: Distribution, value: Numeric) -> Distribution:
        return ByQuantile(before, self, value)

    def kl_to(self, other: Distribution) -> Numeric:
        """That of one trial, times their mean number 1/p."""
        return self.of_a_trial(other) / self.p if isinstance(other, Geometric) else NotImplemented


@final
@dataclass(frozen=True, eq=False, repr=False)
class Poisson(Distribution, Discrete, FixedSupport):
    """p(k) = rate^k exp(-rate) / k!, k = 0, 1, ...; at rate 0 it is k = 0. The entropy is a sum, above a rate of 100
    its series, right to 12 digits."""

    rate: Numeric
    constraints = {"rate": nonnegative}
    edges = {"rate": (0.0,)}
    support = naturals  # type: ignore[assignment]

    def sample(self, rng: np.random.Generator, shape: int | Shape = ()) -> np.ndarray:
        rate, full = np.asarray(self.detached().rate, float), self.full_shape(shape)
        z = np.asarray(rng.poisson(np.minimum(rate, _MANY), full)).astype(self.dtype)
        if not np.any(rate > _MANY):
            return z
        # Cornish and Fisher's quantile, whose error is of order rate^-1/2: below the spacing of such numbers
        e = rng.standard_normal(full)
        large = np.floor(rate + np.sqrt(rate) * e + (e * e - 1) / 6).astype(self.dtype)
        return np.where(rate > _MANY, large, z)

    def log_prob(self, value: Numeric) -> Value:
        return supported(
            lambda k: sp.xlogy(k, self.rate) - self.rate - sp.gammaln(k + 1), numbers(value, self.dtype), 0
        )

    @property
    def mean(self) -> Numeric:
        return self._whole(self.rate)

    @property
    def variance(self) -> Numeric:
        return self._whole(self.rate)

    def entropy(self) -> Numeric:
        return self._whole(entropies.poisson(self.rate))

    def cdf(self, value: Numeric) -> Value:
        k = np.floor(numbers(value, self.dtype))
        return np.where(
            k < 0, 0, np.where(k == math.inf, 1, sp.gammaincc(np.where((k < 0) | (k == math.inf), 0, k) + 1, self.rate))
        )

    def icdf(self, probability: Numeric) -> Value:
        return smallest(self, probability)

    def coupled(self, before: Distribution, value: Numeric) -> Distribution:
        return ByQuantile(before, self, value)

    def kl_to(self, other: Distribution) -> Numeric:
        """r log(r / r') - r + r'."""
        if not isinstance(other, Poisson):
            return NotImplemented
        return times(self.rate, log(self.rate) - log(other.rate)) - self.rate + other.rate


@final
@dataclass(frozen=True, eq=False, repr=False)
class NegativeBinomial(Odds, Discrete, FixedSupport):
    """p(k) = Gamma(n+k) / (k! Gamma(n)) p^n (1-p)^k, k = 0, 1, ...: the failures before the n-th success; ``probs`` or
    ``logits`` of a success (as in SciPy and NumPy; PyTorch and TFP take those of what is counted, 1 - p).

    ``n`` is any positive number: a Poisson distribution whose rate has the Gamma distribution with concentration n and
    rate p / (1-p). The entropy is an integral (for n and a mean above 400 a sum over a lattice), right to about 12
    digits.
    """

    n: Numeric
    probs: Given = None
    logits: Given = None
    constraints = {"n": positive, "probs": probability, "logits": possible}
    support = naturals  # type: ignore[assignment]

    @property
    def dtype(self) -> np.dtype:
        return Distribution.dtype.fget(self)  # type: ignore[attr-defined,no-any-return]

    def sample(self, rng: np.random.Generator, shape: int | Shape = ()) -> np.ndarray:
        plain, full = self.detached(), self.full_shape(shape)
        n, log_odds = np.asarray(plain.n, float), np.asarray(plain.log_q, float) - np.asarray(plain.log_p, float)
        usual = (n + 10 * np.sqrt(n)) * np.exp(np.minimum(log_odds, 50)) < _MANY  # else NumPy refuses
        if np.all(usual):
            return np.asarray(rng.negative_binomial(plain.n, plain.p, full)).astype(self.dtype)
        with np.errstate(over="ignore"):
            rate = rng.standard_gamma(n, full) * np.exp(log_odds)
        if not np.all(rate < float(np.finfo(self.dtype).max)):
            raise ScgValueError(f"{self!r} has samples that are greater than any number of {self.dtype} ({here()})")
        return Poisson(rate).sample(rng).astype(self.dtype)

    def log_prob(self, value: Numeric) -> Value:
        return supported(
            lambda k: self.power(self.n, k) - betaln(k + 1, self.n) - log(k + self.n), numbers(value, self.dtype), 0
        )

    @property
    def mean(self) -> Numeric:
        return self._whole(self.n * self.q / self.p)

    @property
    def variance(self) -> Numeric:
        return self._whole(self.n * self.q / self.p / self.p)

    def entropy(self) -> Numeric:
        return self._whole(entropies.negative_binomial(self.n, self.p, self.q, self.log_p, self.log_q))

    def cdf(self, value: Numeric) -> Value:
        k = np.floor(numbers(value, self.dtype))
        return np.where(
            k < 0,
            0,
            np.where(k == math.inf, 1, sp.betainc(self.n, np.where((k < 0) | (k == math.inf), 0, k) + 1, self.p)),
        )

    def icdf(self, probability: Numeric) -> Value:
        return smallest(self, probability)

    def coupled(self, before: Distribution, value: Numeric) -> Distribution:
        return ByQuantile(before, self, value)

    def kl_to(self, other: Distribution) -> Numeric:
        """That of one trial, times their mean number n/p: for the same n, which is a node in both or in neither."""
        if not isinstance(other, NegativeBinomial) or not (
            self.n is other.n or not _any_node(self.n, other.n) and np.array_equal(self.n, other.n)
        ):
            return NotImplemented
        return self.n * self.of_a_trial(other) / self.p


def longest(dtype: np.dtype, base: int) -> float:
    """The greatest n for which base^n is a number of the dtype."""
    return float(np.log(float(np.finfo(dtype).max)) / math.log(max(base, 2)))


def _any_node(*values: Numeric) -> bool:
    return any(type(v) is Node for v in values)
