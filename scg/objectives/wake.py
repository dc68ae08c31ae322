"""Reweighted wake-sleep: bounds of held samples, one for the model and one for the guide."""

import numpy as np

from scg.core.aliases import Operand
from scg.core.node import Node, Value
from scg.core.options import integer
from scg.distributions.base import Distribution
from scg.errors import ScgValueError, here
from scg.objectives.bounds import Model, log_mean_exp
from scg.objectives.layers import at_samples, samples_of
from scg.primitives.layout import stop_gradient
from scg.special import softmax
from scg.stochastic.estimator import Accounted
from scg.stochastic.sites import sample


def hold(guide: Distribution, *, samples: int, rng: np.random.Generator, name: str | None = None) -> Node:
    """K = ``samples`` samples of a distribution along a new first axis, which no gradient passes and for which none is
    estimated: of shape (K, *batch, *event)."""
    return sample(guide, Accounted(), rng=rng, shape=(integer("samples", samples, 1),), name=name)


def wake_theta(model: Model, guide: Distribution, z: Value) -> Value:
    """The bound of ``iwae`` at held samples z of the guide: its gradient is sum_k W_k d log p(x, z_k), for the model
    alone.

    Wake-phase of reweighted wake-sleep (Bornschein and Bengio, 2015). z, of K samples along its first axis, comes from
    ``hold``, or is an array.
    """
    log_p, log_q = at_samples(model, guide, z)
    return log_mean_exp(log_p - stop_gradient(log_q), 0)


def wake_phi(model: Model, guide: Distribution, z: Value) -> Value:
    """sum_k W_k log q(z_k | x) with W_k held: raising it lowers KL(p(z | x) || q(z | x)), estimated with samples z of
    the guide. Biased for that at finite K, as weights are normalised: for the coin of ``benchmarks.evidence`` its mean
    is 0, .056, .083 and .095 with 1, 2, 4 and 8 samples, where the derivative of -KL is .107."""
    log_p, log_q = at_samples(model, guide, z)
    return np.sum(softmax(stop_gradient(log_p - log_q), axis=0) * log_q, axis=0)


def sleep_phi(guide: Distribution, z: Value) -> Value:
    """The mean of log q(z | x) over the first axis of dreams z: (z, x) are held samples of the model, and the guide is
    q(. | x) at those x."""
    z = samples_of(guide, z)
    return np.mean(guide.log_prob(z), axis=0)


def log_variance(model: Model, guide: Distribution, z: Value) -> Value:
    """Half the variance of log w = log p(x, z) - log q(z | x) over K >= 2 held samples z along the first axis, (1 / (2
    (K - 1))) sum_k (log w_k - mean)^2, a loss (Richter et al., 2020).

    It is zero where the guide is the posterior, for any z. With z drawn from the guide itself the mean of its gradient
    in the guide's parameters is that of KL(q || p(z | x)), and the gradient is that of ``elbo`` by "OVIS", of opposite
    sign ("VarGrad"). That in the model's parameters belongs to no bound: hold them.
    """
    log_p, log_q = at_samples(model, guide, z)
    log_w = log_p - log_q
    n = log_w.shape[0]
    if n < 2:
        raise ScgValueError(f"log_variance needs at least 2 samples along the first axis, got {n} ({here()})")
    return np.sum(np.square(log_w - np.mean(log_w, axis=0)), axis=0) / (2 * (n - 1))


def thermodynamic(model: Model, guide: Distribution, z: Value, *, temperatures: Operand = 5) -> Value:
    """TVO: sum_i (b_{i+1} - b_i) E_{b_i}[log w], E_b the mean under q(z)^(1 - b) p(x, z)^b, normalised: a left Riemann
    sum of log p(x) = the integral of E_b[log w] over b from 0 to 1, and a lower bound (Masrani, Le and Wood, 2019).

    ``temperatures``: b_0 = 0 < b_1 < ... < b_n = 1, or how many steps, equal ones. The means are those of K held
    samples z of the guide along the first axis, each with the weight softmax(b log w). The gradient is that of each
    mean by its covariance: d E_b[log w] = E_b[d log w] + Cov_b(log w, (1 - b) d log q + b d log p).

    Biased for finite K where n > 1, in value and in gradient, as means with normalised weights are: for the coin of
    ``benchmarks.evidence`` its gradient in the guide is off by -0.056, -0.027 and -0.013 with 2, 4 and 8 samples. With
    one step it is ``elbo``, and its gradient in the guide has the factor 1 - 1/K.
    """
    if np.ndim(temperatures) == 0:
        temperatures = np.linspace(0, 1, integer("temperatures", temperatures, 1) + 1)
    b = np.asarray(temperatures, float)
    if b.ndim != 1 or b[0] != 0 or b[-1] != 1 or not np.all(np.diff(b) > 0):
        raise ScgValueError(f"thermodynamic: temperatures must rise from 0 to 1, got {temperatures!r} ({here()})")
    log_p, log_q = at_samples(model, guide, z)
    log_w = log_p - log_q
    held: Value = stop_gradient(log_w)
    total: Value = np.zeros((), held.dtype)
    for low, step in zip(b[:-1].tolist(), np.diff(b).tolist(), strict=True):
        weight = softmax(low * held, axis=0)
        mean = np.sum(weight * held, axis=0)
        path = (1 - low) * log_q + low * log_p
        moved = log_w - held + (held - mean) * (path - stop_gradient(path))
        total = total + step * (mean + np.sum(weight * moved, axis=0))
    return total
