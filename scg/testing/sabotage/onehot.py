"""Wrong estimators of one-hot samples: control variates of REBAR, RELAX and MuProp."""

from typing import final

import numpy as np

from scg.core.aliases import Result
from scg.core.node import Value
from scg.estimators.rebar import keys
from scg.estimators.tools import constant, logits_of, uniform
from scg.special import softmax
from scg.stochastic.estimator import Estimator
from scg.stochastic.formulas import first_order, score
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


@final
class Raced(Estimator):
    """(F - c(z')) (b - p) + d c(z) - d c(z') of one of K, with one ``mistake``. z and z' are the same keys given b,
    which move by the logits in two ways: their means need no more.

    ``free``       RELAX's control c(z) = sum tanh(z) w; else REBAR's, F(softmax(z / temperature))
    "detached"     + d c(z) - d c(z') is left out
    "normalizer"   z' given b depends on log sum_k exp(l_k) too, and this is not differentiated
    "temperature"  d c lacks the factor 1 / temperature
    """

    def __init__(self, mistake: str, free: bool, temperature: float = 0.5):
        self.mistake, self.free, self.temperature = mistake, free, temperature

    def expand(self, down: Downstream) -> Value | None:
        if not down.influences:
            return None
        eta = np.broadcast_to(logits_of(down.distribution), down.node.shape)
        l, b = constant(down, eta), constant(down, down.node)
        p = softmax(l, axis=-1)
        z, share = keys(l, b, uniform(down))
        c, d = self.control(down, z)
        moved = d * share
        if self.mistake != "normalizer":
            moved = moved + p * np.sum(d * (1 - share), axis=-1, keepdims=True)
        path = 0.0 if self.mistake == "detached" else d - moved
        return np.sum(first_order(eta, (down.now() - c)[..., None] * (b - p) + path))

    def control(self, down: Downstream, z: Value) -> tuple[Result, Result]:
        """c(z) and its derivative by z."""
        if self.free:
            w, c = np.linspace(1.0, -0.5, z.shape[-1]), np.tanh(z)
            return np.sum(c * w, axis=-1), w * (1 - c * c)
        x = softmax(z / self.temperature, axis=-1)
        terms, slopes = down.sloped(x[None])
        d = x * (slopes[0] - np.sum(x * slopes[0], axis=-1, keepdims=True))
        return down.total(terms)[0], d if self.mistake == "temperature" else d / self.temperature


@final
class TangentHere(Estimator):
    """(F - F'(z)(z - m)) d log p + F'(z) dm: MuProp with the slope at the sample in the place of that at its mean."""

    def expand(self, down: Downstream) -> Value | None:
        if not down.influences:
            return None
        eta, z = np.broadcast_to(down.distribution.mean, down.node.shape), constant(down, down.node)
        _, slopes = down.sloped(z[None])
        along = np.sum(slopes[0] * (z - constant(down, eta)), axis=-1)
        return np.sum(first_order(score(down.node), down.now() - along)) + np.sum(first_order(eta, slopes[0]))
