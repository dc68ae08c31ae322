"""MuProp: the linear part of the cost as control variate."""

from typing import final

import numpy as np

from scg.core.node import Value
from scg.distributions.base import Distribution, FixedSupport
from scg.estimators.tools import constant, without_mean
from scg.stochastic.estimator import Elsewhere
from scg.stochastic.formulas import first_order, score
from scg.stochastic.surrogate import Downstream


@final
class MuProp(Elsewhere):
    """MuProp: d/dt E[f(z)] = E[(f(z) - f(m) - f'(m)(z - m)) d/dt log p(z; t)] + f'(m) dm/dt, m = E[z] (Gu et al.,
    2016).

    Two evaluations of the cost, here and with the whole sample at its mean, and one derivative there: the cost must
    accept the mean as a value, and is the better controlled the closer it is to its tangent. Samples further down are
    made again at the mean, and their estimators say what f' is; the mean stays exact whatever they say, as z is not
    looked at there and their randomness does not depend on it. First derivatives only.
    """

    second_derivatives = False
    requires = (FixedSupport,)

    def objection(self, distribution: Distribution) -> str:
        return super().objection(distribution) or without_mean(distribution)

    def expand(self, down: Downstream) -> Value | None:
        if not down.influences:
            return None
        eta = np.broadcast_to(down.distribution.mean, down.node.shape)
        mean, node = constant(down, eta), down.node
        step = constant(down, node) - mean
        residual, slope = down.now(), 0
        for axes, parts in down.mixing().items():
            terms, pulled = down.sloped(mean[None], parts)
            along = np.sum(pulled[0] * step, axis=tuple(range(len(down.shape), node.ndim)))
            residual = residual - down.total(terms, 1, parts)[0] - np.sum(along, axis=axes, keepdims=True)
            slope = slope + pulled[0]
        return np.sum(first_order(score(node), residual)) + np.sum(first_order(eta, slope))
