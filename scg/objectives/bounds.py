"""The evidence lower bound and its kin of several samples, of log-weights, or of a model and a guide."""

import math
from collections.abc import Callable

import numpy as np

from scg.core.aliases import Operand, Result
from scg.core.node import Value
from scg.core.options import number
from scg.errors import ScgTypeError, ScgValueError, here
from scg.estimators import LeaveOneOut, Reparameterized, ScoreFunction
from scg.objectives.layers import (
    DOUBLY,
    GENERALIZED,
    STICKING,
    Guide,
    drawn,
    twice_reparameterized,
    weights_along,
)
from scg.primitives.layout import stop_gradient
from scg.special import logsumexp, softmax
from scg.stochastic.formulas import first_order

Model = Callable[[Value], Value]
GRADIENTS = ("pathwise", STICKING, DOUBLY, GENERALIZED, "score function", "VIMCO", "OVIS")


def elbo(
    log_weights: Operand,
    axis: int = 0,
    *,
    guide: Guide | None = None,
    samples: int = 1,
    rng: Result = None,
    gradient: str = "pathwise",
    name: str | None = None,
) -> Value:
    """(1/K) sum_k log w_k, whose mean is at most log p(x): by KL(q || p(z | x)), at any K (.026 nats for the coin and
    .167 for the Gaussian of ``benchmarks.evidence``).

    Given log-weights, it is their mean along ``axis``; the estimators of the samples make its gradient. Given a model
    z -> log p(x, z) in their place and a ``guide`` q(z; phi), K = ``samples`` values of z are drawn along a new first
    axis. A guide of several layers is a list of a distribution q(z_1) and functions z_1 -> q(z_2 | z_1), (z_1, z_2) ->
    q(z_3 | z_1, z_2), ...; the model is a function of (z_1, z_2, ...) then. A model may return a pair (prior, log p(x |
    z)) in place of log p(x, z), the prior a list of distributions p(z_l | other layers), one a layer of the guide.

        def model(z2, z1):  # z2 ~ N(0, 1), z1 ~ N(a z2, 1), x ~ N(z1, 1)
            return [dist.Normal(0.0, 1.0), dist.Normal(a * z2, 1.0)], dist.Normal(z1, 1.0).log_prob(x)


        bound = scg.objectives.iwae(
            model, guide=[dist.Normal(b, 1.0), lambda z2: dist.Normal(c * z2, 1.0)], samples=8, rng=rng
        )

    Then ``gradient`` is one of

    "pathwise"                the samples are reparameterized
    "sticking the landing"    the same without the score d log q(z; phi) / dphi at fixed z, whose mean is zero; this
                              gradient is zero where q(z) is p(z | x) (Roeder et al., 2017)
    "doubly reparameterized"  the same as "sticking the landing" for this bound
    "generalized doubly reparameterized"
                              the same for the guide, and for the parameters of the priors as in ``iwae``
    "score function"          each sample's score times its own log-weight
    "VIMCO"                   each sample's score times its log-weight less the mean of the others (Mnih and Rezende,
                              2016, for one sample a term); K >= 2
    "OVIS"                    the same without the score -d log q(z_k) of the log-weight itself, whose mean is zero

    Raises EstimatorError where the guide does not have what the gradient needs (where a score is left out: a support
    that does not move), ScgValueError for an unknown one.
    """
    if guide is None:
        log_w = weights_along(log_weights, axis)
        _check_weights(gradient, rng)
        return np.mean(log_w, axis=axis)
    gradient = _known(gradient)
    several = isinstance(guide, (list, tuple))
    others = ScoreFunction() if several else ScoreFunction(baseline=LeaveOneOut())
    estimators = {"score function": ScoreFunction(), "VIMCO": others, "OVIS": others}
    estimator = estimators.get(gradient, Reparameterized())
    found = drawn(log_weights, guide, samples, rng, gradient, estimator, name, alone=gradient != GENERALIZED)
    log_w = found.log_w
    if gradient == GENERALIZED:
        weight = np.full(log_w.shape, 1 / samples, log_w.dtype)
        return stop_gradient(np.mean(log_w, axis=0)) + twice_reparameterized(found, weight, weight, priors=True)
    if gradient in (STICKING, DOUBLY, "OVIS"):
        log_w = log_w + found.score_dropped()
    if several and gradient in ("VIMCO", "OVIS"):
        held: Value = stop_gradient(log_w)
        log_w = log_w + first_order(found.log_q, -(np.sum(held, axis=0) - held) / (samples - 1))
    return np.mean(log_w, axis=0)


def iwae(
    log_weights: Operand,
    axis: int = 0,
    *,
    guide: Guide | None = None,
    samples: int = 1,
    rng: Result = None,
    gradient: str = "pathwise",
    gamma: float = 0.0,
    name: str | None = None,
) -> Value:
    """log (1/K) sum_k w_k, whose mean grows with K towards log p(x) (Burda et al., 2016). What is missing is about
    Var(w) / (2 K p(x)^2): 0.026, 0.013, 0.0062 and 0.0030 nats with 1, 2, 4 and 8 samples of ``benchmarks.evidence``.

    Given log-weights, or a model and a ``guide``, as in ``elbo``. With W_k = w_k / sum_j w_j and L the bound,
    ``gradient`` is one of

    "pathwise"                sum_k W_k d log w_k, the samples reparameterized
    "doubly reparameterized"  sum_k W_k^2 (d log w_k / dz_k) dz_k/dphi for the guide and sum_k W_k d log p for the
                              model: the same mean, and a signal-to-noise ratio that does not fall with K (Tucker et
                              al., 2019). First derivatives only. What the model draws from distributions that depend
                              on z must be reparameterized (EstimatorError). A layer of the guide moves those after it
                              along their paths, and its z enters their log q
    "generalized doubly reparameterized"
                              the same, and for the parameters theta of a prior r(z_l) of the model, in the place of
                              W_k d log r(z_kl) / dtheta,

                                (W_k d (log p(x, z_k) - log r(z_kl)) / dz_kl - W_k^2 d log w_k / dz_kl) dT_kl / dtheta,

                              z_l = T(e; theta) a sample of the prior at the noise that it has there (Bauer and Mnih,
                              2021). Less noise where the prior of z_l is narrower than what else is known of it, more
                              where it is wider. The model returns a pair; a prior with parameters lives where its layer
                              of the guide does, and has a path known at any value (EstimatorError)
    "score function"          sum_k L d log q(z_k) + sum_k W_k d log w_k
    "VIMCO"                   sum_k (L - L_k) d log q(z_k) + sum_k W_k d log w_k, L_k the bound with the geometric mean
                              of the other weights in the place of w_k (Mnih and Rezende, 2016); K >= 2. First
                              derivatives only, and the bound must enter the cost linearly (in sums, means, times
                              constants)
    "OVIS"                    sum_k (L - W_k - C_k) d log q(z_k) + sum_k W_k d log p, C_k = log (1/(K-1)) sum_{l != k}
                              w_l + log(1 - 1/K) - gamma (W_k + log(1 - 1/K)) (Lievin et al., 2020): a signal-to-noise
                              ratio that grows with K. Unbiased for ``gamma`` = 0 alone: with 1, for large effective
                              sample sizes, C_k depends on z_k, and the gradient may have three times its size (for the
                              coin of ``benchmarks.evidence`` it is off by .056, .083 and .095 with K = 2, 4, 8). As
                              VIMCO: K >= 2, first derivatives, linear costs
    "sticking the landing"    the pathwise one without the scores of the guide: biased for K > 1 (on the Gaussian of
                              ``benchmarks.evidence`` by .27 with K = 2, where the derivative is .26)
    """
    gradient = _known(gradient)
    if gradient != "OVIS" and gamma:
        raise ScgValueError(f"iwae: gamma is an option of gradient='OVIS', not of {gradient!r} ({here()})")
    if guide is None:
        log_w = weights_along(log_weights, axis)
        _check_weights(gradient, rng)
        return log_mean_exp(log_w, axis)
    estimator = ScoreFunction() if gradient in ("score function", "VIMCO", "OVIS") else Reparameterized()
    found = drawn(log_weights, guide, samples, rng, gradient, estimator, name)
    log_w, log_q = found.log_w, found.log_q
    if gradient == STICKING:
        log_w = log_w + found.score_dropped()
    bound = log_mean_exp(log_w, 0)
    if gradient in (DOUBLY, GENERALIZED):
        weight = softmax(stop_gradient(log_w), axis=0)
        return stop_gradient(bound) + twice_reparameterized(found, weight, weight * weight, gradient == GENERALIZED)
    if gradient == "VIMCO":
        return bound + np.sum(first_order(log_q, -_without_each(stop_gradient(log_w))), axis=0)
    if gradient == "OVIS":
        held, less = stop_gradient(log_w), math.log1p(-1 / samples)
        control = (
            _of_the_others(held)
            + less
            - number("gamma", gamma, 0.0, math.inf, closed=True) * (softmax(held, axis=0) + less)
        )
        return bound + np.sum(first_order(log_q, -control), axis=0)
    return bound


def renyi(log_weights: Value, alpha: float, axis: int = 0) -> Value:
    """The variational Renyi bound (1 / (1 - alpha)) log (1/K) sum_k w_k^(1 - alpha) of log-weights along ``axis`` (Li
    and Turner, 2016).

    alpha = 0 is ``iwae``, and alpha = 1, the limit, ``elbo``; in between it lies between these two. For alpha < 0 it
    may lie above log p(x). The estimators of the samples make its gradient. For the coin of ``benchmarks.evidence`` and
    alpha = 1/2 it lies .026, .019, .016 and .014 nats below log p(x) with 1, 2, 4 and 8 samples.
    """
    log_weights = weights_along(log_weights, axis)
    alpha = number("alpha", alpha, -math.inf, math.inf)
    if alpha == 1:
        return np.mean(log_weights, axis=axis)
    return log_mean_exp((1 - alpha) * log_weights, axis) / (1 - alpha)


def log_mean_exp(x: Value, axis: int) -> Value:
    """log of the mean of exp(x) along an axis."""
    # log K inside: score functions do not count constants added to a term
    return logsumexp(x - math.log(np.shape(x)[axis]), axis=axis)


def _check_weights(gradient: str, rng: np.random.Generator) -> None:
    if gradient != "pathwise" or rng is not None:
        raise ScgTypeError(
            f"the gradient of log-weights is that of the samples' estimators: for {gradient!r} give a model and a guide"
            f" ({here()})"
        )


def _known(gradient: str) -> str:
    """The name of a gradient, whatever its case; ScgValueError where there is none."""
    found = {name.lower(): name for name in GRADIENTS}.get(str(gradient).lower())
    if found is None:
        raise ScgValueError(f"gradient must be one of {', '.join(map(repr, GRADIENTS))}, got {gradient!r} ({here()})")
    return found


def _of_the_others(log_w: Value) -> Value:
    """For each k the logarithm of the mean of the other weights."""
    n = log_w.shape[0]
    same = np.reshape(np.eye(n, dtype=bool), (n, n, *[1] * (log_w.ndim - 1)))
    return logsumexp(np.where(same, -math.inf, log_w[:, None]), axis=0) - math.log(n - 1)


def _without_each(log_w: Value) -> Value:
    """For each k the bound with w_k the geometric mean of the others."""
    n = log_w.shape[0]
    mean = (np.sum(log_w, axis=0, keepdims=True) - log_w) / (n - 1)
    same = np.reshape(np.eye(n, dtype=bool), (n, n, *[1] * (log_w.ndim - 1)))
    return log_mean_exp(np.where(same, mean[None], log_w[:, None]), 0)
