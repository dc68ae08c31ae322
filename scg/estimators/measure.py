"""Measure-valued derivatives: a difference of two expectations in place of a score."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, final

import numpy as np

from scg.core.node import Node, Numeric, Value
from scg.distributions.base import Distribution
from scg.distributions.bernoulli import Bernoulli
from scg.distributions.categorical import Categorical, OneHotCategorical
from scg.distributions.counts import Poisson
from scg.distributions.gamma import Gamma
from scg.distributions.normal import Normal
from scg.distributions.positive import Exponential, Weibull
from scg.estimators.enumerate import listed
from scg.stochastic.estimator import Estimator
from scg.stochastic.formulas import first_order
from scg.stochastic.sites import noise_node
from scg.stochastic.surrogate import Downstream

RAYLEIGH, EXPONENTIAL = Weibull(math.sqrt(2), 2.0), Exponential(1.0)


@final
class MeasureValued(Estimator):
    """d/dt p(z; t) = c (p+(z) - p-(z)), so d/dt E[f(z)] = c (E_{p+}[f] - E_{p-}[f]) (Pflug, 1989; Mohamed et al.,
    2020).

    Two evaluations of the costs for each element and each parameter that is differentiated by; elements that no cost
    mixes at once, others in turn. f need not be differentiable.

    The two are coupled: made from the same numbers, and from the recorded sample z where one of them
    has its distribution.

    Normal       loc: loc +- scale w, w Rayleigh (double-sided, c = 1 / (scale sqrt(2 pi))); scale: double-sided Maxwell
                 against z, |m|^2 = |e|^2 + w^2
    Exponential  rate: z against z plus another one, c = 1 / rate.    Gamma: rate: z against z + exponential, c =
                 concentration / rate
    Weibull      scale: the Weibull variable of a sum of two exponentials against z, c = concentration / scale
    Poisson      rate: z + 1 against z, c = 1.                        Bernoulli: 1 against 0, c = 1 (probs), p (1 - p)
                 (logits)
    Categorical  logits: each category against z, c = p_k; probs: each category, against nothing (K evaluations)

    A distribution from elsewhere has a method ``weak_derivatives(z, fresh)``: for each parameter's name a function
    without arguments that returns (c, z+, z-), made of the sample z and of ``fresh(distribution)``, noise of the
    sample's shape. First derivatives only.
    """

    offered = 5

    def objection(self, distribution: Distribution) -> str:
        known = _known(distribution, None, None)
        for name, parameter in distribution.parameters.items():
            if type(parameter) is Node and name not in known:
                return f"knows no decomposition of d p / d {name} of {distribution!r}"
        return ""

    def expand(self, down: Downstream) -> Value | None:
        if not down.influences:
            return None
        if isinstance(down.distribution, (Categorical, OneHotCategorical)):
            return _categories(down)
        distribution, z = (
            (down.distribution, down.node) if down.graph else (down.distribution.detached(), down.node.raw)
        )

        @functools.cache
        def fresh(noise: Distribution) -> Value:
            e = noise_node(noise, down.rng, down.node.shape, z.dtype)
            return e if down.graph else e.raw

        known = _known(distribution, z, fresh)
        wanted = {name: known[name]() for name, p in down.distribution.parameters.items() if type(p) is Node}
        values = [np.broadcast_to(v, z.shape) for _, plus, minus in wanted.values() for v in (plus, minus)]
        f = down.one_by_one(np.stack(values))
        total: Any = 0
        for i, (name, (c, _, _)) in enumerate(wanted.items()):
            g = np.broadcast_to(c * (f[2 * i] - f[2 * i + 1]), down.shape)
            total = total + np.sum(first_order(np.broadcast_to(down.distribution.parameters[name], down.shape), g))
        return total


Fresh = Callable[[Distribution], Value]
Parts = Mapping[str, Callable[[], tuple[Numeric, Value, Value]]]


def _known(distribution: Distribution, z: Any, fresh: Any) -> Parts:
    """The decompositions (c, z+, z-) of a distribution by parameter."""
    if hasattr(distribution, "weak_derivatives"):
        return distribution.weak_derivatives(z, fresh)  # type: ignore[no-any-return]
    return _PARTS[type(distribution)](distribution, z, fresh) if type(distribution) in _PARTS else {}


def _normal(distribution: Normal, z: Value, fresh: Fresh) -> Parts:
    def loc() -> tuple[Numeric, Value, Value]:
        w = distribution.scale * fresh(RAYLEIGH)
        return 1 / (math.sqrt(2 * math.pi) * distribution.scale), distribution.loc + w, distribution.loc - w

    # m = u m' with u uniform is normal; given the normal e, |m'|^2 exceeds e^2 by twice an exponential
    def scale() -> tuple[Numeric, Value, Value]:
        e = (z - distribution.loc) / distribution.scale
        w = fresh(RAYLEIGH)
        return 1 / distribution.scale, distribution.loc + distribution.scale * np.copysign(np.sqrt(e * e + w * w), e), z

    return {"loc": loc, "scale": scale}


def _gamma(distribution: Exponential | Gamma, z: Value, fresh: Fresh) -> Parts:
    return {
        "rate": lambda: (
            getattr(distribution, "concentration", 1.0) / distribution.rate,
            z,
            z + fresh(EXPONENTIAL) / distribution.rate,
        )
    }


def _weibull(distribution: Weibull, z: Value, fresh: Fresh) -> Parts:
    k = distribution.concentration
    return {
        "scale": lambda: (
            k / distribution.scale,
            distribution.scale * ((z / distribution.scale) ** k + fresh(EXPONENTIAL)) ** (1 / k),
            z,
        )
    }


def _poisson(distribution: Distribution, z: Value, fresh: Fresh) -> Parts:
    return {"rate": lambda: (1.0, z + 1, z)}


def _bernoulli(distribution: Bernoulli, z: Value, fresh: Fresh) -> Parts:
    def ends() -> tuple[Value, Value]:
        return np.ones_like(z), np.zeros_like(z)

    return {"probs": lambda: (1.0, *ends()), "logits": lambda: (distribution.p * (1 - distribution.p), *ends())}


def _by_category(distribution: Distribution, z: Value, fresh: Fresh) -> Parts:
    return dict.fromkeys(("probs", "logits"), _in_closed_form)


def _in_closed_form() -> NoReturn:
    raise NotImplementedError  # see _categories


_PARTS: dict[type, Callable[..., Parts]] = {
    Normal: _normal,
    Exponential: _gamma,
    Gamma: _gamma,
    Weibull: _weibull,
    Poisson: _poisson,
    Bernoulli: _bernoulli,
    Categorical: _by_category,
    OneHotCategorical: _by_category,
}


def _categories(down: Downstream) -> Value:
    """sum_k p_k (F(k) - F(z)) dl_k for logits l; sum_k F(k) dp_k for probabilities."""
    atoms, p = listed(down)
    name = "logits" if down.distribution.probs is None else "probs"
    x = down.distribution.parameters[name]
    z = down.node if down.graph else down.node.raw
    f = down.one_by_one(np.concatenate([atoms, np.broadcast_to(z, (1, *z.shape))]))
    g = (p if down.graph else p.raw) * (f[:-1] - f[-1:]) if name == "logits" else f[:-1]
    g = np.moveaxis(np.broadcast_to(g, p.shape), 0, -1)
    return np.sum(first_order(np.broadcast_to(x, g.shape), g))
