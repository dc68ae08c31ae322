"""Reweighted wake-sleep: bounds of held samples, one for the model and one for the guide."""

import numpy as np

from scg.core.node import Node, Value
from scg.distributions.base import Distribution
from scg.objectives.bounds import Model, log_mean_exp, matched
from scg.primitives.layout import stop_gradient
from scg.special import softmax
from scg.stochastic.estimator import Accounted
from scg.stochastic.sites import sample


def hold(guide: Distribution, *, samples: int, rng: np.random.Generator, name: str | None = None) -> Node:
    """``samples`` draws of a distribution along a new first axis, which no gradient passes and for which none is
    estimated."""
    return sample(guide, Accounted(), rng=rng, shape=(samples,), name=name)


def wake_theta(model: Model, guide: Distribution, z: Value) -> Value:
    """The bound of ``iwae`` at held draws z of the guide: its gradient is sum_k W_k d log p(x, z_k), for the model
    alone.

    Wake-phase of reweighted wake-sleep (Bornschein and Bengio, 2015). z, of K samples along its first axis, comes from
    ``hold``, or is an array.
    """
    z = stop_gradient(z)
    return log_mean_exp(matched(model(z), guide.stop_gradient().log_prob(z)), 0)


def wake_phi(model: Model, guide: Distribution, z: Value) -> Value:
    """sum_k W_k log q(z_k | x) with W_k held: raising it lowers KL(p(z | x) || q(z | x)), estimated with samples z of
    the guide."""
    z = stop_gradient(z)
    log_q = guide.log_prob(z)
    return np.sum(softmax(stop_gradient(matched(model(z), log_q)), axis=0) * log_q, axis=0)


def sleep_phi(guide: Distribution, z: Value) -> Value:
    """The mean of log q(z | x) over the first axis of dreams z: (z, x) are held draws of the model, and the guide is
    q(. | x) at those x."""
    return np.mean(guide.log_prob(stop_gradient(z)), axis=0)
