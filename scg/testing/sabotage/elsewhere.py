"""Wrong estimators of the other kinds: relaxed samples, sums over values, proposals, measures, antithetic partners,
control variates."""

import math
from collections.abc import Callable
from typing import Any, final

import numpy as np

from scg.core.node import Value
from scg.distributions.base import Distribution
from scg.distributions.bernoulli import Bernoulli
from scg.distributions.categorical import Categorical
from scg.distributions.uniform import UNIT
from scg.estimators.enumerate import listed, values_at
from scg.estimators.measure import RAYLEIGH
from scg.estimators.rebar import hidden
from scg.estimators.sets import WithoutReplacement
from scg.estimators.tools import constant, logits_of, sampled
from scg.primitives.layout import stop_gradient
from scg.special import sigmoid, softmax
from scg.stochastic.estimator import Accounted, Estimator
from scg.stochastic.formulas import first_order, score
from scg.stochastic.sites import Site, noise_node, place
from scg.stochastic.surrogate import Downstream


@final
class Straight(Estimator):
    """z + m - stop_gradient(m), m the mean: the straight-through sample, which says of itself that it is unbiased."""

    def draw(self, distribution: Distribution, rng: np.random.Generator, shape: tuple[int, ...]) -> Value:
        z = place(Site(distribution, Accounted(), rng, shape, None))
        return z + (distribution.mean - stop_gradient(distribution.mean))


@final
class Warm(Estimator):
    """sigmoid((l + logit u) / temperature) in place of a coin: what is differentiated is the mean of another cost."""

    keeps_distribution = False

    def __init__(self, temperature: float):
        self.temperature = temperature

    def draw(self, distribution: Distribution, rng: np.random.Generator, shape: tuple[int, ...]) -> Value:
        u = noise_node(UNIT, rng, distribution.full_shape(shape), distribution.dtype)
        return sigmoid((logits_of(distribution) + np.log(u) - np.log1p(-u)) / self.temperature)


@final
class SampledEnumeration(Estimator):
    """sum_k F(k) d p_k for one sample; for a batch of them the term of one k that is drawn by p, not divided by its
    probability."""

    def expand(self, down: Downstream) -> Value | None:
        if not down.influences:
            return None
        atoms, p = listed(down)
        if down.shape:
            held = constant(down, p)
            pick = constant(down, sampled(down, Categorical(probs=np.moveaxis(held, 0, -1))))[None]
            p, values = np.take_along_axis(p, pick, axis=0), values_at(atoms, pick, down)
        else:
            values = atoms
        return np.sum(first_order(p, down.one_by_one(values)))


@final
class AsWithReplacement(Estimator):
    """(1/k) sum_s F(s) d log p(s) over k distinct values s, as if they had been drawn independently."""

    def __init__(self, k: int):
        self.k = k

    def expand(self, down: Downstream) -> Value | None:
        if not down.influences:
            return None
        atoms, p = listed(down)
        held = constant(down, p)
        drawn = constant(down, sampled(down, WithoutReplacement(np.moveaxis(held, 0, -1), self.k)))
        chosen = np.moveaxis(drawn, -1, 0)
        f = down.one_by_one(values_at(atoms, chosen, down))
        return (
            np.sum(first_order(np.take_along_axis(p, chosen, axis=0), f / np.take_along_axis(held, chosen, axis=0)))
            / self.k
        )


@final
class Proposed(Estimator):
    """(1/n) sum_i w_i F(v_i) d log p(v_i), v_i from a uniform proposal q, w = p/q; ``weights`` "right", "left out",
    "self-normalized"."""

    def __init__(self, samples: int, weights: str):
        self.samples, self.weights = samples, weights

    def expand(self, down: Downstream) -> Value | None:
        if not down.influences:
            return None
        atoms, p = listed(down)
        q = 1 / len(atoms)
        distribution = Categorical(probs=np.full((self.samples, *down.shape, len(atoms)), q))
        chosen = constant(down, sampled(down, distribution))
        f = down.one_by_one(values_at(atoms, chosen, down))
        taken = np.take_along_axis(p, chosen, axis=0)
        held = constant(down, taken)
        w = held / q
        total = {"right": self.samples, "self-normalized": np.sum(w, axis=0), "left out": self.samples * w}[
            self.weights
        ]
        return np.sum(first_order(taken, w * f / held / total))


@final
class UnscaledMeasure(Estimator):
    """(F(loc + scale w) - F(loc - scale w)) / sqrt(2 pi) for the loc of a normal distribution: 1/scale is missing."""

    def expand(self, down: Downstream) -> Value | None:
        if not down.influences:
            return None
        distribution: Any = down.distribution
        loc = np.broadcast_to(distribution.loc, down.shape)
        w = constant(down, distribution.scale) * constant(
            down, noise_node(RAYLEIGH, down.rng, down.shape, down.node.dtype)
        )
        f = down.one_by_one(np.stack([constant(down, loc) + w, constant(down, loc) - w]))
        return np.sum(first_order(loc, (f[0] - f[1]) / math.sqrt(2 * math.pi)))


@final
class Uncorrected(Estimator):
    """(F - F(m) - F'(m)(z - m)) d log p: MuProp without + F'(m) dm."""

    def expand(self, down: Downstream) -> Value | None:
        if not down.influences:
            return None
        mean = constant(down, np.broadcast_to(down.distribution.mean, down.node.shape))
        terms, slope = down.sloped(mean[None])
        return np.sum(
            first_order(
                score(down.node), down.now() - down.total(terms)[0] - slope[0] * (constant(down, down.node) - mean)
            )
        )


@final
class Antithetic(Estimator):
    """DisARM, (F(b) - F(b')) (2b - 1) 1[b != b'] sigma(|l|) / 2, with another ``factor`` than 1/2, or without the
    absolute value."""

    def __init__(self, factor: float = 0.5, absolute: bool = True):
        self.factor, self.absolute = factor, absolute

    def expand(self, down: Downstream) -> Value | None:
        if not down.influences:
            return None
        eta = np.broadcast_to(logits_of(down.distribution), down.shape)
        l, b = constant(down, eta), constant(down, down.node)
        s = 2 * b - 1
        flip = constant(down, sampled(down, Bernoulli(probs=np.exp(-np.maximum(s * l, 0)))))
        partner = down.at((b + flip - 2 * b * flip)[None])[0]
        return np.sum(
            first_order(eta, (down.now() - partner) * flip * s * self.factor * sigmoid(abs(l) if self.absolute else l))
        )


@final
class Controlled(Estimator):
    """(F - c(z')) d log p(b) + d c(z) - d c(z'), c(z) = F(sigmoid(z / temperature)): REBAR, with one ``mistake``.

    "noise"     z' = h(p) + h(v') with h(x) = log x + log1p(x) where logit x = log x - log1p(-x) belongs, v' = 1 - p + v
    p for b = 1 and
                v (1 - p) for b = 0
    "detached"  + d c(z) - d c(z') is left out
    "one"       z, which is independent of b's score only given b, stands for z' as well
    """

    def __init__(self, mistake: str, temperature: float = 0.5):
        self.mistake, self.temperature = mistake, temperature

    def expand(self, down: Downstream) -> Value | None:
        if not down.influences:
            return None
        eta = np.broadcast_to(logits_of(down.distribution), down.shape)
        l, b = constant(down, eta), constant(down, down.node)
        u, v = (constant(down, noise_node(UNIT, down.rng, down.shape, down.node.dtype)) for _ in range(2))
        z, _ = hidden(l, 2 * b - 1, u)
        other, slope = hidden(l, 2 * b - 1, v)
        p = sigmoid(l)
        if self.mistake == "one":
            other, slope = z, np.ones(())
        if self.mistake == "noise":
            moved = b * (1 - p + v * p) + (1 - b) * v * (1 - p)
            other = np.log(p) + np.log1p(p) + np.log(moved) + np.log1p(moved)
            slope = p * (1 - p) * (1 / p + 1 / (1 + p) + (1 / moved + 1 / (1 + moved)) * (b * (v - 1) - (1 - b) * v))
        x = sigmoid(np.stack([z, other]) / self.temperature)
        terms, pulled = down.sloped(x)
        d = pulled * x * (1 - x) / self.temperature
        path = 0.0 if self.mistake == "detached" else d[0] - d[1] * slope
        return np.sum(first_order(eta, (down.now() - down.total(terms)[1]) * (b - p) + path))


@final
class Reweighted(Estimator):
    """sum_k W_k^power (d log w_k / dz_k) dz_k/dphi for the loc of a normal guide, W the normalized weights of a
    log-mean-exp.

    The cost itself adds - sum_k W_k d log q(z_k; phi) at fixed z, which ``dropped`` takes away. Power 1 with it, and 2
    without, are right.
    """

    def __init__(self, log_p: Callable[[Value], Value], power: int, dropped: bool):
        self.log_p, self.power, self.dropped = log_p, power, dropped

    def expand(self, down: Downstream) -> Value | None:
        if not down.influences:
            return None
        distribution: Any = down.distribution
        z = constant(down, down.node)
        log_q = distribution.log_prob(stop_gradient(down.node))
        w = softmax(self.log_p(z) - constant(down, log_q), axis=-1)
        _, slope = down.sloped(z[None])  # W_k d log w_k / dz_k
        moved = np.sum(first_order(np.broadcast_to(distribution.loc, down.shape), slope[0] * w ** (self.power - 1)))
        return moved + np.sum(first_order(log_q, w)) if self.dropped else moved
