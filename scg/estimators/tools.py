"""Tools that several estimators share: logits, constants, noise, and samples that an estimate draws for itself."""

import numpy as np
import scipy.special as sp

from scg.core.aliases import Function, Operand, Result
from scg.core.ambient import settled
from scg.core.axes import elementwise
from scg.core.node import Value
from scg.core.primitive import smooth_primitive
from scg.distributions.base import Distribution
from scg.distributions.bernoulli import Bernoulli
from scg.distributions.constraints import finite
from scg.distributions.uniform import UNIT
from scg.errors import ScgValueError
from scg.stochastic.sites import noise_node
from scg.stochastic.surrogate import Downstream


def logits_of(distribution: Operand) -> Value:
    """The logits of a Bernoulli or one-hot distribution, or of an order; computed where it is given by ``probs``."""
    if getattr(distribution, "probs", None) is None:
        return distribution.logits
    return _logit(distribution.probs) if isinstance(distribution, Bernoulli) else distribution.log_p


def _logit_vjp(g: Value, out: Value, p: Value) -> Value:
    """dl/dp = 1 / (p (1 - p)). A probability of 0 or 1 has no derivative itself, or the estimator is refused."""
    spread = p * (1 - p)
    return np.where(spread == 0, 0, g / np.where(spread == 0, 1, spread))


_logit: Function = smooth_primitive(lambda p: sp.logit(p), elementwise, _logit_vjp, name="logit of a coin")


def constant(down: Downstream, x: Value) -> Result:
    """``x`` held constant: a Node where the estimate is one, else an array."""
    return down.constant(x)


def uniform(down: Downstream) -> Value:
    """Noise, uniform on (0, 1), of the shape and dtype of the stochastic node."""
    if down.graph:
        return noise_node(UNIT, down.rng, down.node.shape, down.node.dtype)
    return UNIT.sample_as(down.rng, down.node.shape, down.node.dtype)


def sampled(down: Downstream, distribution: Distribution) -> Value:
    """A sample that an estimate draws for itself: a node of the graph where the estimate is one."""
    return down.noise(distribution)


def without_mean(distribution: Distribution) -> str:
    """Why the mean of the samples is no value that a cost could take, as "needs ..."; empty where it is one."""
    try:
        mean = distribution.mean
    except ScgValueError as error:
        return f"needs a distribution with a mean: {error}"
    if distribution.dtype.kind != "f" or not settled(finite.holds, mean):
        return (
            f"needs samples of which the mean is one as well, real numbers, got {distribution!r} with samples of"
            f" {distribution.dtype} (those of OneHotCategorical are)"
        )
    return ""
