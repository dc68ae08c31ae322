"""Ordered categories: intervals of a latent number, as the answers from "never" to "always"."""

from dataclasses import dataclass
from typing import final

import numpy as np

from scg.core.node import Numeric, Value
from scg.distributions.base import Distribution, FiniteSupport, FixedSupport, Shape
from scg.distributions.categorical import Categorical
from scg.distributions.constraints import Constraint, Increasing, Integers, finite
from scg.errors import ScgValueError, here
from scg.special import log1mexp, log_sigmoid


@final
@dataclass(frozen=True, eq=False, repr=False)
class Ordered(Distribution, FiniteSupport, FixedSupport):
    """P(z <= k) = sigmoid(c_k - loc) for k = 0, ..., K - 2: the interval between ``cutpoints`` c_0 < ... < c_{K-2} in
    which ``loc`` and logistic noise fall (McCullagh, 1980: the proportional-odds model). Samples are integers (int64)
    from 0 to K - 1.

    log p(z) = log sigmoid(c_z - loc) + log sigmoid(loc - c_{z-1}) + log(1 - exp(c_{z-1} - c_z)), without the parts of
    a cutpoint that is not there: accurate in both tails. ``mean``, ``variance``, ``cdf`` and ``icdf`` are those of the
    category as a number. ``cutpoints`` lie along their last axis, which ``loc`` does not have.
    """

    loc: Value
    cutpoints: Value
    constraints = {"loc": finite, "cutpoints": Increasing()}

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.cutpoints.shape[-1]:
            raise ScgValueError(f"Ordered: cutpoints must be at least one, got shape {self.cutpoints.shape} ({here()})")

    @property
    def categories(self) -> int:
        """K, one more than there are cutpoints."""
        return int(self.cutpoints.shape[-1]) + 1

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.int64)

    @property
    def support(self) -> Constraint:
        return Integers(0, self.categories - 1)

    @property
    def log_p(self) -> Value:
        """The logarithms of the probabilities, of shape batch_shape + (K,)."""
        loc = np.reshape(self.loc, (*np.shape(self.loc), 1))
        below, above = log_sigmoid(self.cutpoints - loc), log_sigmoid(loc - self.cutpoints)
        gaps = log1mexp(self.cutpoints[..., :-1] - self.cutpoints[..., 1:])
        return np.concatenate(
            [below[..., :1], below[..., 1:] + above[..., :-1] + gaps, above[..., -1:]],
            axis=-1,
        )

    @property
    def p(self) -> Value:
        """The probabilities, of shape batch_shape + (K,)."""
        return np.exp(self.log_p)

    @property
    def _categorical(self) -> Categorical:
        return Categorical(logits=self.log_p)

    def sample(self, rng: np.random.Generator, shape: int | Shape = ()) -> np.ndarray:
        return self.detached()._categorical.sample(rng, shape)

    def atoms(self) -> np.ndarray:
        return self._categorical.atoms()

    def log_prob(self, value: Numeric) -> Value:
        return self._categorical.log_prob(value)

    @property
    def mean(self) -> Value:
        return self._categorical.mean

    @property
    def variance(self) -> Numeric:
        return self._categorical.variance

    def cdf(self, value: Numeric) -> Value:
        return self._categorical.cdf(value)

    def icdf(self, probability: Numeric) -> Value:
        return self._categorical.icdf(probability)

    def entropy(self) -> Numeric:
        return self._categorical.entropy()

    def kl_to(self, other: Distribution) -> Numeric:
        """sum_k p_k (log p_k - log q_k)."""
        return self._categorical.kl_to(other._categorical) if type(other) is Ordered else NotImplemented
