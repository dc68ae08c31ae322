"""Continuous relaxations of one of K and of a coin: noise, and a softmax or sigmoid at a temperature (Maddison et al.,
2017; Jang et al., 2017).

As the temperature goes to zero samples go to one-hot vectors (to 0 or 1) with the probabilities of the parameters.
"""

import math
from dataclasses import dataclass
from typing import final

import numpy as np
import scipy.special as sp

from scg.core.aliases import Given
from scg.core.ambient import settled
from scg.core.node import Node, Numeric, Value, value_of
from scg.distributions.base import Distribution, FixedSupport, Reparameterizable, Shape
from scg.distributions.constraints import (
    Simplex,
    Truth,
    Vector,
    finite,
    open_unit_interval,
    positive,
    simplex,
    unit_interval,
)
from scg.distributions.discrete import Odds, one_of_two, softplus
from scg.distributions.image import imaged, preimage, within
from scg.distributions.location_scale import Gumbel, Logistic
from scg.distributions.normal_transforms import SIGMOID
from scg.distributions.weak import doubles, log, real_array
from scg.special import logsumexp, sigmoid, softmax

GUMBEL, LOGISTIC = Gumbel(0.0, 1.0), Logistic(0.0, 1.0)


class Interior(Simplex):
    """Vectors of positive numbers with sum one."""

    def contains(self, x: Numeric) -> Truth:
        return super().contains(x) & (np.asarray(x) > 0).all(axis=-1)

    def __str__(self) -> str:
        return "positive and sum to 1 along the last axis"


@final
@dataclass(frozen=True, eq=False, repr=False)
class Concrete(Reparameterizable, Distribution, FixedSupport):
    """z = softmax((log a + g) / temperature), g standard Gumbel noise; log a = ``logits`` or log ``probs`` along the
    last axis, never both. With t = temperature

        log p(z) = log (K-1)! + (K-1) log t + sum_k (y_k - log z_k) - K logsumexp(y),    y = log a - t log z,

    a density over the first K - 1 elements. A coordinate that was rounded to zero counts as the smallest normal number
    of its dtype; where many are, estimators by scores refuse it.
    """

    temperature: Given
    probs: Given = None
    logits: Given = None
    constraints = {"temperature": positive, "probs": Interior(), "logits": Vector(finite)}
    support = simplex  # type: ignore[assignment]

    def __post_init__(self) -> None:
        one_of_two(self)
        super().__post_init__()

    @property
    def event_shape(self) -> Shape:
        return ((self.logits if self.probs is None else self.probs).shape[-1],)

    def noise(self, shape: Shape = ()) -> tuple[Distribution, Shape]:
        return GUMBEL, self.full_shape(shape)

    def transport(self, noise: Value) -> Value:
        return softmax((self._logits + noise) / self._temperature, -1)

    def unresolved(self) -> float:
        """P(Z_k < tiny), nearly P(log sum_{j != k} exp(y_j) - y_k > -t log tiny) of y = log a + g: a logistic
        variable."""
        y, t = doubles(self._logits, self._temperature)
        p = np.exp(y - np.max(y, axis=-1, keepdims=True))
        others = np.sum(p, axis=-1, keepdims=True) - p
        with np.errstate(divide="ignore"):
            apart = np.log(others) - np.log(p) + t * np.log(float(np.finfo(self.dtype).tiny))
        return float(np.max(sp.expit(apart), initial=0.0))

    def log_prob(self, value: Numeric) -> Value:
        value = self._events(value)
        if settled(simplex.holds, value):
            return self._density(value)
        bad = np.any(value < 0, axis=-1) | (np.abs(np.sum(value, axis=-1) - 1) > 1e-5)
        return np.where(bad, -math.inf, self._density(np.where(bad[..., None], 1 / self.event_shape[0], value)))

    def _density(self, z: Value) -> Value:
        k, log_z = self.event_shape[0], np.log(np.maximum(z, float(np.finfo(z.dtype).tiny)))
        y = self._logits - self._temperature * log_z
        return math.lgamma(k) + (k - 1) * log(self.temperature) + np.sum(y - log_z, axis=-1) - k * logsumexp(y, -1)

    @property
    def _logits(self) -> Numeric:
        return np.log(self.probs) if self.logits is None else self.logits

    @property
    def _temperature(self) -> Numeric:
        return self.temperature[..., None] if np.ndim(value_of(self.temperature)) else self.temperature


@final
@dataclass(frozen=True, eq=False, repr=False)
class RelaxedBernoulli(Reparameterizable, Odds, FixedSupport):
    """z = sigmoid((l + e) / temperature), e standard logistic noise, l = ``logits`` or that of ``probs``, never both.
    With t = temperature

        log p(z) = log t - softplus(s) - softplus(-s) - log z - log(1 - z),    s = l - t logit(z).

    Samples lie strictly between 0 and 1, and those by a path know their logit (``scg.distributions.image``); an array
    that was rounded to 0 or 1 counts as the nearest number strictly between, and a node that was is refused.
    """

    temperature: Given
    probs: Given = None
    logits: Given = None
    constraints = {"temperature": positive, "probs": open_unit_interval, "logits": finite}
    support = unit_interval  # type: ignore[assignment]

    @property
    def dtype(self) -> np.dtype:
        return Distribution.dtype.fget(self)  # type: ignore[attr-defined,no-any-return]

    def noise(self, shape: Shape = ()) -> tuple[Distribution, Shape]:
        return LOGISTIC, self.full_shape(shape)

    def transport(self, noise: Value) -> Value:
        return imaged(SIGMOID, (self._logit + noise) / self.temperature)

    def log_prob(self, value: Numeric) -> Value:
        value = real_array(value)
        x = preimage(SIGMOID, value if type(value) is Node else within(value, SIGMOID), closed=True)
        s = self._logit - self.temperature * x
        found = log(self.temperature) - softplus(s) - softplus(-s) - SIGMOID.log_det(x)
        return np.where((value < 0) | (value > 1), -math.inf, found)

    def cdf(self, value: Numeric) -> Value:
        return sigmoid(self.temperature * sp.logit(np.clip(real_array(value), 0, 1)) - self._logit)

    def icdf(self, probability: Numeric) -> Value:
        return sigmoid((self._logit + sp.logit(real_array(probability))) / self.temperature)

    @property
    def _logit(self) -> Numeric:
        return self.log_p - self.log_q if self.logits is None else self.logits
