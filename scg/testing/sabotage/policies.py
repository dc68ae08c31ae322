"""Wrong policy gradients of sampled tokens, as they occur in training code. Right is d/dt E[R(y)] = E[R(y) d log p(y;
t)], y a sequence of tokens, and the same of older samples with the weight p(y) / p_old(y)."""

from typing import final

import numpy as np

from scg.core.aliases import Function
from scg.core.node import Value
from scg.distributions import OneHotCategorical
from scg.estimators.tools import constant, sampled
from scg.primitives.layout import stop_gradient
from scg.stochastic.estimator import Estimator
from scg.stochastic.formulas import first_order, score
from scg.stochastic.surrogate import Downstream


@final
class OffPolicy(Estimator):
    """R(y) d w(y), y from uniform tokens, w = prod_t p(y_t) / q(y_t); the sum over T tokens adds w up T times where
    ``broadcast``."""

    def __init__(self, broadcast: bool):
        self.broadcast = broadcast

    def expand(self, down: Downstream) -> Value | None:
        if not down.influences:
            return None
        older = OneHotCategorical(logits=np.zeros((1, *down.node.shape)))
        y = constant(down, sampled(down, older))
        log_ratio = np.sum(down.distribution.log_prob(y) - older.log_prob(y), axis=-1, keepdims=True)
        tokens = down.shape[-1] if self.broadcast else 1
        weighted = constant(down, np.exp(log_ratio)) * down.at(y) * tokens
        return np.sum(first_order(log_ratio, np.mean(weighted, axis=-1, keepdims=True)))


@final
class Kept(Estimator):
    """R(y) d log p(y), y from the two likeliest of the tokens only: each ratio lacks the mass that they have."""

    def expand(self, down: Downstream) -> Value | None:
        if not down.influences:
            return None
        logits = constant(down, down.distribution.logits)
        least = logits == np.min(logits, axis=-1, keepdims=True)
        y = constant(down, sampled(down, OneHotCategorical(logits=np.where(least, -40.0, logits)[None])))
        return np.sum(first_order(down.distribution.log_prob(y), down.at(y)))


@final
class Live(Estimator):
    """d (log p(y) A(y; t)) with the advantage A differentiated: the extra log p dA has no mean of zero."""

    def __init__(self, advantage: Function):
        self.advantage = advantage

    def expand(self, down: Downstream) -> Value | None:
        if not down.influences:
            return None
        loss = score(down.node) * self.advantage(constant(down, down.node), down.distribution)
        return np.sum(loss - stop_gradient(loss))


@final
class TwiceCooled(Estimator):
    """R(y) d log p' of logits that are divided by the temperature once more than those that y was drawn from."""

    def __init__(self, temperature: float):
        self.temperature = temperature

    def expand(self, down: Downstream) -> Value | None:
        if not down.influences:
            return None
        again = OneHotCategorical(logits=down.distribution.logits / self.temperature)
        return np.sum(first_order(again.log_prob(constant(down, down.node)), down.now()))
