"""Measure-valued derivatives: a difference of two expectations in place of a score."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import NoReturn, final

import numpy as np

from scg.core.aliases import Operand, Result
from scg.core.node import Node, Numeric, Value
from scg.distributions.base import Distribution
from scg.distributions.bernoulli import Bernoulli
from scg.distributions.categorical import Categorical, OneHotCategorical
from scg.distributions.counts import Binomial, Geometric, NegativeBinomial, Poisson
from scg.distributions.gamma import Gamma
from scg.distributions.location_scale import Laplace, StudentT
from scg.distributions.normal import Normal
from scg.distributions.normal_transforms import LogNormal
from scg.distributions.positive import Exponential, Weibull
from scg.estimators.enumerate import listed
from scg.estimators.tools import constant, sampled
from scg.stochastic.estimator import Elsewhere
from scg.stochastic.formulas import first_order
from scg.stochastic.sites import noise_node
from scg.stochastic.surrogate import Downstream

RAYLEIGH, EXPONENTIAL = Weibull(math.sqrt(2), 2.0), Exponential(1.0)


@final
class MeasureValued(Elsewhere):
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
    LogNormal    loc, scale: exp of those of the normal distribution of log z
    Laplace      loc: loc +- |z - loc|, c = 1 / (2 scale); scale: z moved away from loc by an exponential against z,
                 c = 1 / scale
    StudentT     loc: loc +- scale w, w^2 = df r, r = exp(2e / (df + 1)) - 1, e exponential, c = p(loc); scale: z with
                 x^2 + (df + x^2) r in place of the square of x = (z - loc) / scale, against z, c = 1 / scale
    Binomial     y + 1 against y, y the successes of all trials but one: z - 1 with probability z / n, else z; c = n
                 (probs), n p (1 - p) (logits)
    Geometric    z against z plus another one, c = 1 / p (probs), 1 - p (logits); NegativeBinomial: the same n times,
                 z against z plus a geometric one
    Poisson      rate: z + 1 against z, c = 1.                        Bernoulli: 1 against 0, c = 1 (probs), p (1 - p)
                 (logits)
    Categorical  logits: each category against z, c = p_k; probs: each category, against nothing (K evaluations)

    A distribution from elsewhere has a method ``weak_derivatives(z, fresh)``: for each parameter's name a function
    without arguments that returns (c, z+, z-), made of the sample z and of ``fresh(distribution)``, noise of the
    sample's shape (a distribution that is made of z has parameters of that shape). First derivatives only.
    """

    second_derivatives = False
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
            if any([type(p) is not float for p in noise.parameters.values()]):  # numbers of this sample
                return constant(down, sampled(down, noise.expanded(down.node.shape)))  # type: ignore[no-any-return]
            e = noise_node(noise, down.rng, down.node.shape, z.dtype)
            return e if down.graph else e.raw

        known = _known(distribution, z, fresh)
        wanted = {name: known[name]() for name, p in down.distribution.parameters.items() if type(p) is Node}
        values = [np.broadcast_to(v, z.shape) for _, plus, minus in wanted.values() for v in (plus, minus)]
        f = down.one_by_one(np.stack(values))
        total: Result = 0
        for i, (name, (c, _, _)) in enumerate(wanted.items()):
            g = np.broadcast_to(c * (f[2 * i] - f[2 * i + 1]), down.shape)
            total = total + np.sum(first_order(np.broadcast_to(down.distribution.parameters[name], down.shape), g))
        return total


Fresh = Callable[[Distribution], Value]
Parts = Mapping[str, Callable[[], tuple[Numeric, Value, Value]]]


def _known(distribution: Distribution, z: Result, fresh: Operand) -> Parts:
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


def _laplace(distribution: Laplace, z: Value, fresh: Fresh) -> Parts:
    loc, scale = distribution.loc, distribution.scale

    def shifted() -> tuple[Numeric, Value, Value]:  # |z - loc| / scale is the exponential of both sides
        return 0.5 / scale, loc + abs(z - loc), loc - abs(z - loc)

    return {
        "loc": shifted,
        "scale": lambda: (1 / scale, z + np.copysign(scale * fresh(EXPONENTIAL), z - loc), z),
    }


def _lognormal(distribution: LogNormal, z: Value, fresh: Fresh) -> Parts:
    def raised(name: str) -> tuple[Numeric, Value, Value]:
        c, plus, minus = _normal(distribution.normal, np.log(z), fresh)[name]()
        return c, np.exp(plus), np.exp(minus)

    return {name: functools.partial(raised, name) for name in ("loc", "scale")}


def _student(distribution: StudentT, z: Value, fresh: Fresh) -> Parts:
    df, loc, scale = distribution.df, distribution.loc, distribution.scale

    def grown() -> Value:
        return np.expm1(2 * fresh(EXPONENTIAL) / (df + 1))

    # -p0'(x) / p0(0) has the distribution function 1 - (1 + x^2 / df)^(-(df + 1)/2)
    def shifted() -> tuple[Numeric, Value, Value]:
        w = scale * np.sqrt(df * grown())
        return np.exp(distribution.log_prob(loc)), loc + w, loc - w

    # -x p0'(x): the normal numerator of x becomes Maxwell, |m|^2 = e^2 + w^2, over the same chi-square, given x
    def stretched() -> tuple[Numeric, Value, Value]:
        x = (z - loc) / scale
        return 1 / scale, loc + scale * np.copysign(np.sqrt(x * x + (df + x * x) * grown()), x), z

    return {"loc": shifted, "scale": stretched}


def _binomial(distribution: Binomial, z: Value, fresh: Fresh) -> Parts:
    n = distribution.trials

    def one_trial(c: Numeric) -> tuple[Numeric, Value, Value]:
        share = np.broadcast_to(np.clip(z / np.maximum(n, 1), 0, 1), np.shape(z))
        fewer = z - fresh(Bernoulli(probs=share))
        return c, np.minimum(fewer + 1, n), fewer  # of no trials there is no success

    return {
        "probs": lambda: one_trial(n * 1.0),
        "logits": lambda: one_trial(n * distribution.p * distribution.q),
    }


def _geometric(distribution: Geometric | NegativeBinomial, z: Value, fresh: Fresh) -> Parts:
    """d p_n(z) / dp = (n / p) (p_n(z) - p_{n+1}(z - 1)): one more success takes one more failure and those before it,
    as many as the trials of a geometric distribution."""
    n = getattr(distribution, "n", 1.0)

    def another(c: Numeric) -> tuple[Numeric, Value, Value]:
        more = fresh(Geometric(probs=np.broadcast_to(distribution.p, np.shape(z))))
        return c, z, z + more

    return {"probs": lambda: another(n / distribution.p), "logits": lambda: another(n * distribution.q)}


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
    Laplace: _laplace,
    LogNormal: _lognormal,
    StudentT: _student,
    Binomial: _binomial,
    Geometric: _geometric,
    NegativeBinomial: _geometric,
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
