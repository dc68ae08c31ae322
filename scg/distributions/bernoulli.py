"""The distribution of a coin."""

import math
from dataclasses import dataclass
from typing import final

import numpy as np

from scg.core.aliases import Given
from scg.core.ambient import settled
from scg.core.axes import elementwise
from scg.core.node import Node, Numeric, Value
from scg.core.primitive import smooth_primitive
from scg.distributions.base import Distribution, FiniteSupport, FixedSupport, Shape
from scg.distributions.constraints import boolean, finite, real, unit_interval
from scg.distributions.coupling import Turned
from scg.distributions.discrete import Odds, numbers, sigmoid, smallest, softplus, supported, times
from scg.distributions.weak import real_array


def _binary(v: Value) -> bool:
    """Whether all are 0 or 1."""
    return bool((v == (v != 0)).all())


_log_prob = smooth_primitive(
    lambda b, l: b * l - softplus(l),
    elementwise,
    lambda g, out, b, l: g * l,
    lambda g, out, b, l: g * (b - sigmoid(l)),
    name="log_prob_of_coin",
    linear=[(0,)],
)
"""b l - log(1 + exp l), whose derivative is one difference. A cost has it in two parts, of which one does not depend on
b."""


@final
@dataclass(frozen=True, eq=False, repr=False)
class Bernoulli(Odds, FiniteSupport, FixedSupport):
    """log p(b) = b l - log(1 + exp l) for b in {0, 1}, with l the logit of the probability: ``logits`` or ``probs``,
    never both.

    Samples have the dtype of the parameters. A probability of 0 or 1 (a logit of -inf or inf) is allowed: log p is 0 or
    -inf. The derivative by such a probability is seen by ``Enumerate`` and ``MeasureValued`` alone: other estimators
    look at values that are drawn. At other values than 0 and 1 log p is -inf; in a graph that was recorded at such
    values, a replay at a relaxed value continues the formula, linear in b. Sampling compares a uniform number with the
    probability, which resolves 2^-53 (float32: 2^-24).
    """

    probs: Given = None
    logits: Given = None
    constraints = {"probs": unit_interval, "logits": real}
    support = boolean  # type: ignore[assignment]

    def sample(self, rng: np.random.Generator, shape: int | Shape = ()) -> np.ndarray:
        p, dtype = self.detached().p, self.dtype
        u = rng.random(self.full_shape(shape), dtype=dtype if dtype in (np.float32, np.float64) else float)
        return np.asarray(u < p).astype(dtype)

    def sample_into(self, rng: np.random.Generator, shape: Shape, out: np.ndarray) -> None:
        if out.dtype in (np.float32, np.float64):  # the same numbers, without a copy
            rng.random(dtype=out.dtype, out=out)
            np.less(out, self.detached().p, out=out)
        else:
            super().sample_into(rng, shape, out)

    def atoms(self) -> np.ndarray:
        return np.array([0, 1], self.dtype).reshape(2, *[1] * len(self.batch_shape))

    def masses(self, value: Numeric) -> Value:
        return super().masses(value) if self.probs is None else np.where(value == 1, self.p, 1 - self.p)

    def log_prob(self, value: Numeric) -> Value:
        value = numbers(value, self.dtype)
        return self._inside(value) if settled(_binary, value) else supported(self._inside, value, 0, 1)

    def log_prob_drawn(self, sample: Value) -> Value:
        if type(self.logits) is Node and settled(finite.holds, self.logits):
            return _log_prob(sample, self.logits)
        return self.log_prob(sample)

    def _inside(self, b: Value) -> Value:
        """b log p + (1 - b) log(1 - p), in which 0 log 0 = 0."""
        if self.probs is None and settled(finite.holds, self.logits):
            return b * self.logits - softplus(self.logits)
        return self.power(b, 1 - b)

    @property
    def mean(self) -> Numeric:
        return self._whole(self.p)

    @property
    def variance(self) -> Numeric:
        return self._whole(self.p * self.q)

    def entropy(self) -> Numeric:
        return self._whole(times(self.p, -self.log_p) + times(self.q, -self.log_q))

    def cdf(self, value: Numeric) -> Value:
        value = real_array(value)
        return np.where(value != value, math.nan, np.where(value < 0, 0, np.where(value < 1, self.q, 1)))

    def icdf(self, probability: Numeric) -> Value:
        return smallest(self, probability)

    def coupled(self, before: Distribution, value: Numeric) -> Distribution:
        return Turned(before, self, value)

    def kl_to(self, other: Distribution) -> Numeric:
        """p log(p/p') + (1-p) log((1-p) / (1-p'))."""
        return self.of_a_trial(other) if isinstance(other, Bernoulli) else NotImplemented
