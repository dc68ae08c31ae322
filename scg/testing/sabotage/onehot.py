"""A wrong estimator of one-hot samples: REBAR with one race for two."""

from typing import final

import numpy as np

from scg.core.node import Value
from scg.estimators.rebar import keys
from scg.estimators.tools import constant, logits_of, uniform
from scg.special import softmax
from scg.stochastic.estimator import Estimator
from scg.stochastic.formulas import first_order
from scg.stochastic.surrogate import Downstream


@final
class OneRace(Estimator):
    """(F - c(z)) (b - p), c(z) = F(softmax(z / temperature)): REBAR of one of K with the keys z, on which b depends, in
    the place of those given b; d c(z) - d c(z') is then zero."""

    def __init__(self, temperature: float = 0.5):
        self.temperature = temperature

    def expand(self, down: Downstream) -> Value | None:
        if not down.influences:
            return None
        eta = np.broadcast_to(logits_of(down.distribution), down.node.shape)
        l, b = constant(down, eta), constant(down, down.node)
        z, _ = keys(l, b, uniform(down))
        left = down.now() - down.at(softmax(z / self.temperature, axis=-1)[None])[0]
        return np.sum(first_order(eta, left[..., None] * (b - softmax(l, axis=-1))))
