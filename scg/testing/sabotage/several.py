"""Wrong estimators of several samples and of steps: coupled pairs, double control variates, stochastic derivatives."""

from typing import Any, final

import numpy as np

from scg.core.node import Node, Value
from scg.distributions.bernoulli import Bernoulli
from scg.elimination.means import mean
from scg.estimators.tools import logits_of
from scg.stochastic.estimator import Estimator
from scg.stochastic.formulas import first_order, held
from scg.stochastic.surrogate import Downstream


@final
class UnweightedPair(Estimator):
    """(f(b) - f(b')) (s - s') / 2 of an antithetic pair of coins, without rho = p(b) p(b') / p(b, b') = sigma(|l|)."""

    def expand(self, down: Downstream) -> Value | None:
        if not down.influences:
            return None
        eta = np.broadcast_to(logits_of(down.distribution), down.shape)
        b = down.constant(down.node)
        sign = 2 * b - 1
        flip = down.constant(down.noise(Bernoulli(probs=np.exp(-np.maximum(sign * down.constant(eta), 0)))))
        other = down.at((b + flip - 2 * b * flip)[None])[0]
        return np.sum(first_order(eta, (down.now() - other) * flip * sign / 2))


@final
class StepBack(Estimator):
    """-dF(z) / p(z) (f(z) - f(z - 1)): the mass dF goes from z to z + 1, not from z - 1 to z."""

    def expand(self, down: Downstream) -> Value | None:
        if not down.influences:
            return None
        z, distribution = down.constant(down.node), down.distribution
        below = np.broadcast_to(distribution.cdf(held(down.node)), down.shape)
        p = down.constant(np.exp(distribution.log_prob(held(down.node))))
        f = down.one_by_one(np.stack([z, np.maximum(z - 1, 0)]))
        return np.sum(first_order(below, -(f[0] - f[1]) / p))


@final
class Linear(Estimator):
    """Two samples with h_k = f(z_k) - g_k (z_k - m) and leave-one-out.

    ``own``: g_k is the slope at z_k itself; else that at the other one, and what it adds to the mean, g_k dm, is not
    put back.
    """

    def __init__(self, own: bool):
        self.own = own

    def expand(self, down: Downstream) -> Value | None:
        if not down.influences:
            return None
        mean = np.broadcast_to(down.distribution.mean, down.node.shape)
        draws = down.with_others(1)
        values = down.constant(draws)
        h: Any = 0
        slope: Any = 0
        for axes, parts in down.mixing().items():
            terms, pulled = down.sloped(values, parts)
            g = pulled if self.own else pulled[::-1]
            along = np.sum(g * (values - down.constant(mean)), axis=tuple(1 + a for a in axes), keepdims=True)
            h = h + down.total(terms, 1, parts) - along
            slope = slope + np.mean(g, axis=0)
        scores = down.distribution.log_prob(held(draws))
        found = np.sum(first_order(scores, (h - h[::-1]) / 2))
        return found + np.sum(first_order(mean, slope)) if self.own else found


@final
class LastAlone(Estimator):
    """The mean over the last sample given those before it, as they were drawn, which lead to it unnoticed."""

    def condition(self, cost: Node, samples: list[Node]) -> Node:
        return mean(cost, samples[-1:], 2**10)
