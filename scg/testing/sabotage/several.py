"""Wrong estimators of several samples and of steps: coupled pairs, double control variates, Stein operators,
stochastic derivatives."""

from typing import final

import numpy as np

from scg.core.aliases import Result
from scg.core.node import Node, Value
from scg.distributions.bernoulli import Bernoulli
from scg.elimination.means import mean
from scg.estimators.enumerate import listed
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
        h: Result = 0
        slope: Result = 0
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


@final
class Stein(Estimator):
    """RODEO of two samples with the tangent as surrogate, h_k(y) = f'(z_j) (y - m), and one ``mistake``.

    "uniform"  the operator of the baseline takes the plain mean over the values, not that by their probabilities: its
               own mean is not zero, and depends on the other sample, whose slope is in h
    "own"      h_k is the tangent at z_k itself, which depends on what the operator averages over
    """

    def __init__(self, mistake: str):
        self.mistake = mistake

    def expand(self, down: Downstream) -> Value | None:
        if not down.influences:
            return None
        atoms, p = listed(down)
        draws, mass = down.with_others(1), down.constant(p)
        x, mean = down.constant(draws), down.constant(np.broadcast_to(down.distribution.mean, down.node.shape))
        weight = mass * 0 + 1 / len(atoms) if self.mistake == "uniform" else mass
        left: Result = 0
        near: Result = 0
        for axes, parts in down.mixing().items():
            terms, pulled = down.sloped(x, parts)
            f, slope = down.total(terms, 1, parts), pulled if self.mistake == "own" else pulled[::-1]
            along = tuple(1 + axis for axis in axes)
            h = np.sum(slope * (x - mean), axis=along, keepdims=True)
            moved = h + slope * (atoms[:, None] - x)
            stein = np.sum(np.sum(weight[:, None] * (moved - h), axis=0), axis=along, keepdims=True)
            base = (f + stein)[::-1]
            left, near = left + f - h - base, near + moved + base
        scores = down.distribution.log_prob(held(draws))
        return np.sum(first_order(scores, left / 2)) + np.sum(first_order(p, np.mean(near, axis=1)))
