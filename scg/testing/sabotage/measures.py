"""Wrong weak derivatives: differences of two expectations with the wrong sides, constant or partner. Right is d/dt
E[f(z)] = c E[f(z+) - f(z-)], see ``MeasureValued``."""

from collections.abc import Callable
from typing import Any, final

import numpy as np

from scg.core.aliases import Operand, Result
from scg.core.node import Numeric, Value
from scg.distributions.base import Distribution
from scg.distributions.counts import Geometric
from scg.estimators.measure import EXPONENTIAL, RAYLEIGH
from scg.estimators.tools import constant, sampled
from scg.stochastic.estimator import Estimator
from scg.stochastic.formulas import first_order
from scg.stochastic.surrogate import Downstream

Fresh = Callable[[Distribution], Result]
Parts = tuple[Numeric, Value, Value]


@final
class Weak(Estimator):
    """c (F(z+) - F(z-)) dt for the parameter ``name``, t; ``parts`` of (distribution, z, fresh noise) are c, z+ and
    z-."""

    def __init__(self, name: str, parts: Callable[..., Parts]):
        self.name, self.parts = name, parts

    def expand(self, down: Downstream) -> Value | None:
        if not down.influences:
            return None

        def fresh(noise: Distribution) -> Result:
            return constant(down, sampled(down, noise.expanded(down.node.shape)))

        c, plus, minus = self.parts(down.distribution.stop_gradient(), constant(down, down.node), fresh)
        f = down.one_by_one(np.stack([constant(down, plus), constant(down, minus)]))
        t: Any = getattr(down.distribution, self.name)
        return np.sum(first_order(np.broadcast_to(t, down.shape), c * (f[0] - f[1])))


def left_for_right(distribution: Operand, z: Value, fresh: Fresh) -> Parts:
    """Of a Laplace loc: z+ is the lower one."""
    away = abs(z - distribution.loc)
    return 0.5 / distribution.scale, distribution.loc - away, distribution.loc + away


def same_again(distribution: Operand, z: Value, fresh: Fresh) -> Parts:
    """Of the logits of a geometric sample: z plus itself, not plus another one."""
    return distribution.q, z, z + z


def of_one_success(distribution: Operand, z: Value, fresh: Fresh) -> Parts:
    """Of the logits of a negative binomial sample: the constant of one success, not of n."""
    return distribution.q, z, z + fresh(Geometric(probs=np.broadcast_to(distribution.p, z.shape)))


def sum_of_two(distribution: Operand, z: Value, fresh: Fresh) -> Parts:
    """Of a Weibull scale: the sum of two Weibull variables, not the Weibull variable of a sum of two exponentials."""
    k, scale = distribution.concentration, distribution.scale
    return k / scale, z + scale * fresh(EXPONENTIAL) ** (1 / k), z


def without_scale(distribution: Operand, z: Value, fresh: Fresh) -> Parts:
    """Of a lognormal loc: exp(loc +- w), not exp(loc +- scale w)."""
    w = fresh(RAYLEIGH)
    c = 1 / (np.sqrt(2 * np.pi) * distribution.scale)
    return c, np.exp(distribution.loc + w), np.exp(distribution.loc - w)


def without_degrees(distribution: Operand, z: Value, fresh: Fresh) -> Parts:
    """Of a Student loc: w^2 = r, not df r."""
    r = np.expm1(2 * fresh(EXPONENTIAL) / (distribution.df + 1))
    w = distribution.scale * np.sqrt(r)
    return np.exp(distribution.log_prob(distribution.loc)), distribution.loc + w, distribution.loc - w
