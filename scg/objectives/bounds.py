"""The evidence lower bound and its kin of several samples, of log-weights, or of a model and a guide."""

import math
from collections.abc import Callable

import numpy as np

from scg.core.aliases import Function, Operand, Result
from scg.core.ancestry import ancestors
from scg.core.axes import elementwise
from scg.core.node import Node, Value
from scg.core.operands import require_plain
from scg.core.options import is_integer, number
from scg.core.primitive import smooth_primitive
from scg.distributions.base import Distribution, FixedSupport
from scg.distributions.constraints import Circle
from scg.errors import EstimatorError, ScgTypeError, ScgValueError, here
from scg.estimators import LeaveOneOut, Reparameterized, ScoreFunction
from scg.primitives.layout import stop_gradient
from scg.special import logsumexp, softmax
from scg.stochastic.estimator import Estimator
from scg.stochastic.formulas import as_broadcast, box, first_order
from scg.stochastic.resampling import resample
from scg.stochastic.sites import is_draw, sample

Model = Callable[[Value], Value]
GRADIENTS = ("pathwise", "sticking the landing", "doubly reparameterized", "score function", "VIMCO", "OVIS")
_LESS_A_SCORE = ("sticking the landing", "doubly reparameterized")
"""Pathwise ones without a score, whose mean is zero where the support does not move."""


def elbo(
    log_weights: Operand,
    axis: int = 0,
    *,
    guide: Distribution | None = None,
    samples: int = 1,
    rng: Result = None,
    gradient: str = "pathwise",
    name: str | None = None,
) -> Value:
    """(1/K) sum_k log w_k, whose mean is at most log p(x).

    Given log-weights, it is their mean along ``axis``; the estimators of the samples make its gradient. Given a model
    z -> log p(x, z) in their place and a ``guide`` q(z; phi), K = ``samples`` values of z are drawn along a new first
    axis. Then ``gradient`` is one of

    "pathwise"                the samples are reparameterized
    "sticking the landing"    the same without the score d log q(z; phi) / dphi at fixed z, whose mean is zero; this
                              gradient is zero where q(z) is p(z | x) (Roeder et al., 2017)
    "doubly reparameterized"  the same as "sticking the landing" for this bound
    "score function"          each sample's score times its own log-weight
    "VIMCO"                   each sample's score times its log-weight less the mean of the others (Mnih and Rezende,
                              2016, for one sample a term); K >= 2
    "OVIS"                    the same without the score -d log q(z_k) of the log-weight itself, whose mean is zero

    Raises EstimatorError where the guide does not have what the gradient needs (where a score is left out: a support
    that does not move), ScgValueError for an unknown one.
    """
    if guide is None:
        _check_weights(log_weights, gradient, rng)
        return np.mean(log_weights, axis=axis)
    gradient = _known(gradient)
    _require_fixed(guide, gradient, alone=True)
    others = ScoreFunction(baseline=LeaveOneOut())
    estimators = {"score function": ScoreFunction(), "VIMCO": others, "OVIS": others}
    estimator = estimators.get(gradient, Reparameterized())
    z, log_p, log_q = _drawn(log_weights, guide, samples, rng, gradient, estimator, name)
    log_w = log_p - log_q
    if gradient in (*_LESS_A_SCORE, "OVIS"):
        log_w = log_w + _score_dropped(guide, z)
    return np.mean(log_w, axis=0)


def iwae(
    log_weights: Operand,
    axis: int = 0,
    *,
    guide: Distribution | None = None,
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
                              on z must be reparameterized (EstimatorError)
    "score function"          sum_k L d log q(z_k) + sum_k W_k d log w_k
    "VIMCO"                   sum_k (L - L_k) d log q(z_k) + sum_k W_k d log w_k, L_k the bound with the geometric mean
                              of the other weights in the place of w_k (Mnih and Rezende, 2016); K >= 2. First
                              derivatives only, and the bound must enter the cost linearly (in sums, means, times
                              constants)
    "OVIS"                    sum_k (L - W_k - C_k) d log q(z_k) + sum_k W_k d log p, C_k = log (1/(K-1)) sum_{l != k}
                              w_l + log(1 - 1/K) - gamma (W_k + log(1 - 1/K)) (Lievin et al., 2020): a signal-to-noise
                              ratio that grows with K. Unbiased for ``gamma`` = 0 alone: with 1, for large effective
                              sample sizes, C_k depends on z_k, and the gradient may have three times its size (a coin
                              with K = 3 in the tests). As VIMCO: K >= 2, first derivatives, linear costs
    "sticking the landing"    the pathwise one without the scores of the guide: biased for K > 1
    """
    gradient = _known(gradient)
    if gradient != "OVIS" and gamma:
        raise ScgValueError(f"iwae: gamma is an option of gradient='OVIS', not of {gradient!r} ({here()})")
    if guide is None:
        _check_weights(log_weights, gradient, rng)
        return log_mean_exp(log_weights, axis)
    _require_fixed(guide, gradient)
    estimator = ScoreFunction() if gradient in ("score function", "VIMCO", "OVIS") else Reparameterized()
    z, log_p, log_q = _drawn(log_weights, guide, samples, rng, gradient, estimator, name)
    log_w = log_p - log_q
    if gradient == "sticking the landing":
        log_w = log_w + _score_dropped(guide, z)
    bound = log_mean_exp(log_w, 0)
    if gradient == "doubly reparameterized":
        weight = softmax(stop_gradient(log_w), axis=0)
        squared = weighted(z, np.reshape(weight, (*weight.shape, *[1] * (z.ndim - weight.ndim))))
        log_w = _moved(log_p, z, squared) - guide.stop_gradient().log_prob(squared)
        carrier = np.sum(weight * log_w, axis=0)
        return stop_gradient(bound) + first_order(carrier, np.ones(carrier.shape, carrier.dtype))
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
    may lie above log p(x). The estimators of the samples make its gradient.
    """
    require_plain(log_weights, "log-weights")
    alpha = number("alpha", alpha, -math.inf, math.inf)
    if alpha == 1:
        return np.mean(log_weights, axis=axis)
    return log_mean_exp((1 - alpha) * log_weights, axis) / (1 - alpha)


def log_mean_exp(x: Value, axis: int) -> Value:
    """log of the mean of exp(x) along an axis."""
    if not is_integer(axis, -np.ndim(x), np.ndim(x) - 1):
        raise ScgValueError(
            f"axis must be an integer, an axis of log-weights of shape {np.shape(x)}, got {axis!r} ({here()})"
        )
    # log K inside: score functions do not count constants added to a term
    return logsumexp(x - math.log(np.shape(x)[axis]), axis=axis)


def _check_weights(log_weights: Value, gradient: str, rng: np.random.Generator) -> None:
    require_plain(log_weights, "log-weights")
    if callable(log_weights):
        raise ScgTypeError(f"a model needs a guide to draw from: write guide=..., rng=... ({here()})")
    if gradient != "pathwise" or rng is not None:
        raise ScgTypeError(
            f"the gradient of log-weights is that of their draws' estimators: for {gradient!r} give a model and a guide"
            f" ({here()})"
        )


def _drawn(
    model: Function,
    guide: Operand,
    samples: int,
    rng: np.random.Generator,
    gradient: str,
    estimator: Estimator,
    name: str | None,
) -> tuple[Node, Value, Value]:
    """Draws z of the guide, log p(x, z), log q(z)."""
    if not callable(model):
        raise ScgTypeError(
            f"with a guide the first argument is the model, z -> log p(x, z), got {type(model).__name__} ({here()})"
        )
    if not is_integer(samples, least := 2 if gradient in ("VIMCO", "OVIS") else 1):
        raise ScgValueError(f"{gradient}: samples must be an integer of at least {least}, got {samples!r} ({here()})")
    z = sample(guide, estimator, rng=rng, shape=(int(samples),), name=name)
    log_q, log_p = guide.log_prob(z), model(z)
    check_shapes(log_p, log_q)
    return z, log_p, log_q


def _require_fixed(guide: Operand, gradient: str, alone: bool = False) -> None:
    """Raise EstimatorError where a score g d log q is left out, or replaced by the path of g, and the support of the
    guide moves with its parameters: its mean has what g q is at the ends. ``alone``: g is constant, so that the turn of
    an angle, at whose ends q is the same, may move."""
    if gradient not in _LESS_A_SCORE or not isinstance(guide, Distribution) or guide.has(FixedSupport):
        return
    angle = isinstance(getattr(guide.support, "element", guide.support), Circle)
    if all([type(p) is not Node for p in guide.parameters.values()]) or angle and alone:
        return
    ways = [w for w in (guide.way_out(FixedSupport),) if w]
    raise EstimatorError(
        f"{gradient} leaves out the score of the guide, whose support must not move with its parameters, got {guide!r}:"
        f" use {' or '.join(['gradient=' + repr('pathwise'), *ways])} ({here()})"
    )


def _moved(log_p: Value, z: Node, other: Node) -> Value:
    """log p(x, z) with ``other``, of the same value, in the place of z, and with what the model drew: a second call
    would draw again.

    With W_k^2 in place of W_k the scores d log q(z_k) are gone, by E[W_k d log q(z_k; phi) / dphi] = E[dW_k/dz_k
    dz_k/dphi]. If the distribution of a sample m of the model depends on z_k, that derivative has one more part, W_k d
    log p(m | z_k) / dz_k, which a reparameterized m does not need.
    """
    if type(log_p) is not Node:
        return log_p
    behind = {z.id}
    for node in ancestors([log_p], z.id):
        if any(type(o) is Node and o.id in behind for o in node.operands):
            behind.add(node.id)
            if is_draw(node):
                raise EstimatorError(
                    f"doubly reparameterized: the distribution of {node.statics['site']!r}, drawn at {node.line},"
                    " depends on the guide's draws; use scg.Reparameterized() for it, or gradient='pathwise'"
                    f" ({here()})"
                )
    return resample(log_p, {z: other})


def matched(log_p: Value, log_q: Value) -> Value:
    """The log-weights of two log-probabilities of one shape."""
    check_shapes(log_p, log_q)
    return log_p - log_q


def check_shapes(log_p: Value, log_q: Value) -> None:
    """Raise ScgValueError unless both have one number a sample."""
    if np.shape(log_p) != np.shape(log_q):
        raise ScgValueError(
            f"log p(x, z) has shape {np.shape(log_p)} and log q(z) {np.shape(log_q)}: both need one number a sample;"
            " make the axes of one sample an event of the guide with distributions.Independent, and sum over them in"
            f" the model ({here()})"
        )


def _score_dropped(guide: Distribution, z: Node) -> Value:
    """Zero, with the derivative d log q(z; phi) / dphi at fixed z, and a mean that is zero to any order: sum_z q(z;
    phi) = 1."""
    return box(guide.log_prob(stop_gradient(z))) - 1


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


weighted = smooth_primitive(as_broadcast, elementwise, lambda g, out, z, w: g * w, None, name="weighted", same=True)
"""The value of z, with its derivative times w."""
