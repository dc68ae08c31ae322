"""Wrong estimators whose mistake is in what stands beside the sample: a second walk, a step, a trial less."""

from typing import final

import numpy as np

from scg.core.node import Value
from scg.distributions.bernoulli import Bernoulli
from scg.distributions.categorical import Categorical
from scg.estimators.coupled import CoupledPairs
from scg.estimators.tools import constant, logits_of, sampled
from scg.stochastic.estimator import Estimator
from scg.stochastic.formulas import first_order, held
from scg.stochastic.surrogate import Downstream


@final
class RatioOfTwo(Estimator):
    """A pair of coins out of ``samples`` coupled ones, with the ratio that two alone would have."""

    def __init__(self, samples: int):
        self.samples = samples

    def expand(self, down: Downstream) -> Value | None:
        if not down.influences:
            return None
        eta = np.broadcast_to(logits_of(down.distribution), down.shape)
        b = constant(down, down.node)
        q = constant(down, np.broadcast_to(down.distribution.p, down.shape))[..., None]
        z = np.where(b > 0.5, 0, 1)  # a walk ends at its first coin where that is one
        again = CoupledPairs(self.samples).ending(q, [z])[..., 0]
        other = constant(down, sampled(down, Bernoulli(probs=again.astype(b.dtype))))
        rho = CoupledPairs(2).ratio(q, z, np.where(other > 0.5, 0, 1))
        partner = down.at(other[None])[0]
        return np.sum(first_order(eta, (down.now() - partner) * (b - other) * rho / 2))


@final
class OneStep(Estimator):
    """-dF(z_i) / p(z_i) (f(z + e_i) - f(z)) of one element i, drawn uniformly, for all of them: not divided by 1/n."""

    def expand(self, down: Downstream) -> Value | None:
        if not down.influences:
            return None
        distribution, z = down.distribution, constant(down, down.node)
        below = np.broadcast_to(distribution.cdf(held(down.node)), down.shape)
        p = constant(down, np.exp(distribution.log_prob(held(down.node))))
        last = 1 - constant(down, below) <= 0
        chosen = constant(down, sampled(down, Categorical(probs=np.full(down.shape[-1], 1 / down.shape[-1]))))
        pick = np.where(last, 0, chosen[..., None] == np.arange(down.shape[-1])).astype(z.dtype)
        return np.sum(first_order(below, -(down.at((z + pick)[None])[0] - down.now()) * pick / p))


@final
class AllTrials(Estimator):
    """n p (1 - p) (f(z + 1) - f(z)) with the successes z of all trials, and not of all but one."""

    def expand(self, down: Downstream) -> Value | None:
        if not down.influences:
            return None
        distribution, z = down.distribution, constant(down, down.node)
        eta = np.broadcast_to(logits_of(distribution), down.shape)
        f = down.one_by_one(np.stack([z + 1, z]))
        c = constant(down, distribution.trials * distribution.p * distribution.q)
        return np.sum(first_order(eta, c * (f[0] - f[1])))
