"""Objectives whose gradients are wrong: each has the value of the right one."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np

from scg import objectives
from scg.core.aliases import Operand, Result
from scg.core.node import Value
from scg.distributions import Bernoulli, Categorical, Normal, OneHotCategorical
from scg.distributions.base import Distribution
from scg.estimators import Reparameterized, ScoreFunction
from scg.objectives.bounds import Model, log_mean_exp
from scg.primitives.layout import stop_gradient
from scg.special import log_softmax, softmax
from scg.stochastic.estimator import Accounted
from scg.stochastic.formulas import first_order
from scg.stochastic.sites import sample

K = 3


@final
@dataclass(frozen=True, eq=False, repr=False)
class Objective:
    """A function of (model, guide, generator) that says its gradient is unbiased: ``fn`` with ``options``."""

    fn: Callable[..., Value]
    options: tuple[tuple[str, Any], ...] = ()
    unbiased: ClassVar[bool] = True

    def __call__(self, model: Operand, guide: Operand, rng: np.random.Generator) -> Value:
        return self.fn(model, guide, rng, **dict(self.options))

    def __repr__(self) -> str:
        return f"{self.fn.__name__}({', '.join(f'{k}={v!r}' for k, v in self.options)})"


def objective(fn: Callable[..., Value], **options: Any) -> Objective:
    """An objective by a function and its options."""
    return Objective(fn, tuple(options.items()))


# --- the models


def coins(t: Value, rng: np.random.Generator, estimator: Objective) -> Value:
    """A bound on log p(x) of a coin, by three samples of a guide."""
    return estimator(lambda z: z * (math.log(0.6) + t[0]) + (1 - z) * math.log(0.25), Bernoulli(logits=t[1]), rng)


def guides(t: Value, rng: np.random.Generator, estimator: Objective) -> Value:
    """The same of the guide's logit alone."""
    return estimator(lambda z: z * math.log(0.6) + (1 - z) * math.log(0.25), Bernoulli(logits=t), rng)


def models(t: Value, rng: np.random.Generator, estimator: Objective) -> Value:
    """The same of the model alone."""
    return estimator(lambda z: z * (math.log(0.6) + t) + (1 - z) * math.log(0.25), Bernoulli(logits=0.4), rng)


def lines(t: Value, rng: np.random.Generator, estimator: Objective) -> Value:
    """A bound on log p(x) of a Gaussian, by two samples of a guide."""
    return estimator(lambda z: (Normal(t[0], 1.0), Normal(z, 0.8).log_prob(1.3)), Normal(t[1], 0.8), rng)


def steps(t: Value, rng: np.random.Generator, estimator: Objective) -> Value:
    """Two particles over two steps of a hidden Markov model of two states."""
    moves, emits = np.reshape(t[:4], (2, 2)), log_softmax(np.reshape(t[4:], (2, 2)), -1)
    step = objectives.state_space(
        OneHotCategorical(logits=np.zeros(2)),
        lambda k, z: OneHotCategorical(logits=z @ moves),
        lambda k, z: z @ emits[:, k],
        particles=2,
        estimator=ScoreFunction(),
    )
    return estimator(step, None, rng)


# --- right ones, and those that are right elsewhere


def elbo(model: Model, guide: Operand, rng: np.random.Generator, samples: int = K, **options: Any) -> Value:
    """The evidence lower bound."""
    return objectives.elbo(model, guide=guide, samples=samples, rng=rng, **options)


def iwae(model: Model, guide: Operand, rng: np.random.Generator, samples: int = K, **options: Any) -> Value:
    """The bound of several samples."""
    return objectives.iwae(model, guide=guide, samples=samples, rng=rng, **options)


def filtered(step: Operand, guide: None, rng: np.random.Generator, log: bool, correction: str) -> Value:
    """A particle filter's estimate of p(x), or its logarithm."""
    found = objectives.smc(step, 2, rng=rng, resampling="multinomial", correction=correction).log_evidence
    return found if log else np.exp(found)


def of_weights(
    model: Model, guide: Distribution, rng: np.random.Generator, bound: Callable[..., Value], **options: Any
) -> Value:
    """A bound of log-weights, whose samples have the score function."""
    return bound(_log_weights(model, guide, rng, ScoreFunction()), **options)


def at_held(model: Model, guide: Distribution, rng: np.random.Generator, mistake: str = "") -> Value:
    """The bound of held samples for the parameters of the model, whose guide is held."""
    z = objectives.hold(guide.stop_gradient(), samples=K, rng=rng)
    log_w: Result = model(z) - guide.stop_gradient().log_prob(z)
    bound = objectives.wake_theta(model, guide, z)
    if not mistake:
        return bound
    weight = stop_gradient(softmax(log_w, axis=0))
    weight = weight * weight if mistake == "squared" else weight * 0 + 1 / K
    return _instead(bound, np.sum(weight * log_w, axis=0))


def summed_out(model: Model, guide: Distribution, rng: np.random.Generator, mistake: str = "") -> Value:
    """log p(x), the coin of the guide summed out: log sum_z q(z) p(x, z)."""
    log_q = np.stack([guide.log_prob(np.array(k)) for k in (0.0, 1.0)])
    log_p = np.stack([model(np.array(k)) + 0 * log_q[0] for k in (0.0, 1.0)])
    both = log_q + log_p
    found = log_mean_exp(both, 0)
    if not mistake:
        return found
    weight = stop_gradient(np.exp(log_q) if mistake == "prior" else softmax(both, axis=0))
    return _instead(found, np.sum(weight * (both if mistake == "prior" else log_p), axis=0))


# --- mistakes


def _log_weights(
    model: Model, guide: Distribution, rng: np.random.Generator, estimator: Any, samples: int = K
) -> Result:
    z = sample(guide, estimator, rng=rng, shape=(samples,), name="z")
    return model(z) - guide.log_prob(z)


def _instead(value: Result, moved: Result) -> Value:
    """A value, with the derivative of something else."""
    return stop_gradient(value) + (moved - stop_gradient(moved))


def no_score(model: Model, guide: Distribution, rng: np.random.Generator) -> Value:
    """The mean of log-weights of samples that have no estimator: the score times them is missing."""
    return np.mean(_log_weights(model, guide, rng, Accounted()), axis=0)


def score_alone(model: Model, guide: Distribution, rng: np.random.Generator) -> Value:
    """Each sample's score times its log-weight, which is held: the model gets no gradient."""
    log_w = _log_weights(model, guide, rng, ScoreFunction())
    return np.mean(stop_gradient(log_w), axis=0)


def even_weights(model: Model, guide: Distribution, rng: np.random.Generator) -> Value:
    """The bound of ``iwae`` with the derivative of ``elbo``: 1/K in place of W_k."""
    log_w = _log_weights(model, guide, rng, ScoreFunction())
    return _instead(log_mean_exp(log_w, 0), np.mean(log_w, axis=0))


def live_weights(model: Model, guide: Distribution, rng: np.random.Generator) -> Value:
    """sum_k W_k log w_k with W_k differentiated too: its stop_gradient was forgotten."""
    log_w = _log_weights(model, guide, rng, ScoreFunction())
    return _instead(log_mean_exp(log_w, 0), np.sum(softmax(log_w, axis=0) * log_w, axis=0))


def own_baseline(model: Model, guide: Distribution, rng: np.random.Generator) -> Value:
    """VIMCO whose L_k is the bound itself, the sample's own weight in it."""
    z = sample(guide, ScoreFunction(), rng=rng, shape=(K,), name="z")
    log_q = guide.log_prob(z)
    log_w: Result = model(z) - log_q
    bound = log_mean_exp(log_w, 0)
    return bound + np.sum(first_order(log_q, -stop_gradient(bound) + 0 * log_q), axis=0)


def mean_baseline(model: Model, guide: Distribution, rng: np.random.Generator) -> Value:
    """A baseline of each sample that is the mean of all log-weights, its own among them."""
    z = sample(guide, ScoreFunction(), rng=rng, shape=(K,), name="z")
    log_q = guide.log_prob(z)
    log_w: Result = model(z) - log_q
    return np.mean(log_w + first_order(log_q, -stop_gradient(np.mean(log_w, axis=0)) + 0 * log_q), axis=0)


def own_share(model: Model, guide: Distribution, rng: np.random.Generator) -> Value:
    """OVIS with the sample's own share W_k left in: sum_k (L - C_k) d log q(z_k) + sum_k W_k d log p."""
    z = sample(guide, ScoreFunction(), rng=rng, shape=(K,), name="z")
    log_q = guide.log_prob(z)
    bound = log_mean_exp(model(z) - stop_gradient(log_q), 0)
    log_w: Result = stop_gradient(model(z) - log_q)
    others = [log_mean_exp(np.delete(log_w, k), 0) + math.log1p(-1 / K) for k in range(K)]
    return bound + np.sum(first_order(log_q, -np.stack(others)), axis=0)


def paths(model: Any, guide: Normal, rng: np.random.Generator, mistake: str) -> Value:
    """Doubly reparameterized gradients of two samples of a Gaussian: the guide's slopes with the wrong sign, or W_k in
    place of W_k^2; with "prior" those of the model's prior, whose own slope in the samples is counted once."""
    z = sample(guide, Reparameterized(), rng=rng, shape=(2,), name="z")
    held: Result = stop_gradient(z)
    prior, likelihood = model(held)
    log_w = likelihood + prior.log_prob(held) - guide.log_prob(held)
    w: Result = softmax(stop_gradient(log_w), axis=0)
    away, before = stop_gradient((1.3 - z) / 0.64), stop_gradient((z - guide.loc) / 0.64)
    own: Result = stop_gradient(prior.loc - z)
    factor = {"sign": -w * w, "once": w, "prior": w * w}[mistake]
    found = np.sum(first_order(z, factor * (away + own + before)), axis=0)
    path = prior.loc + stop_gradient(z - prior.loc)
    slope = w * away - w * (away + own + before) if mistake == "prior" else w * away - w * w * (away + own + before)
    return stop_gradient(log_mean_exp(log_w, 0)) + found + np.sum(first_order(path, slope), axis=0)


def tempered(model: Model, guide: Distribution, rng: np.random.Generator, mistake: str, alpha: float = 0.5) -> Value:
    """The Renyi bound with the derivative of its logarithm alone, or with the weights of alpha = 0."""
    log_w = _log_weights(model, guide, rng, ScoreFunction())
    found = objectives.renyi(log_w, alpha)
    if mistake == "factor":
        return _instead(found, (1 - alpha) * found)
    return _instead(found, np.sum(stop_gradient(softmax(log_w, axis=0)) * log_w, axis=0))


def corrected(model: Model, guide: Distribution, rng: np.random.Generator, sign: float) -> Value:
    """The jackknife of order one, K L_K - (K - 1) mean L_{K-1}, with the derivative of another sign of what is
    subtracted, or without it."""
    log_w = _log_weights(model, guide, rng, ScoreFunction())
    found, whole = objectives.jackknife(log_w), log_mean_exp(log_w, 0)
    return _instead(found, whole + sign * (found - whole))


def spread(model: Model, guide: Distribution, rng: np.random.Generator, mistake: str = "") -> Value:
    """The evidence lower bound with the derivative of minus the loss of log-variance: over K in place of K - 1, or of
    the mean square, which is not centred."""
    z = objectives.hold(guide, samples=K, rng=rng)
    log_w: Result = model(z) - guide.log_prob(z)
    loss = objectives.log_variance(model, guide, z)
    if mistake == "over K":
        loss = loss * (1 - 1 / K)
    elif mistake == "centre":
        loss = np.sum(log_w * log_w, axis=0) / (2 * (K - 1))
    return _instead(np.mean(log_w, axis=0), -loss)


def one_temperature(model: Model, guide: Distribution, rng: np.random.Generator) -> Value:
    """The thermodynamic objective of one step, which is ``elbo``, its own sample in each mean: 1 - 1/K too small."""
    return objectives.thermodynamic(model, guide, objectives.hold(guide, samples=K, rng=rng), temperatures=1)


def roulette(model: Model, guide: Distribution, rng: np.random.Generator, mistake: str = "") -> Value:
    """SUMO of at most three samples, L_1 + sum_{k <= N} (L_{k+1} - L_k) / P(N >= k), P(N >= k) = 2^-k."""
    n = sample(Categorical(np.array([0.5, 0.25, 0.25])), Accounted(), rng=rng, name="n")
    return _summed(model, guide, rng, [np.where(n >= k, 1.0, 0.0) for k in (1, 2)], [2.0, 4.0], mistake)


def two_levels(model: Model, guide: Distribution, rng: np.random.Generator, mistake: str = "") -> Value:
    """Many levels that are two, each with the probability a half: L_1 + (L_{k+1} - L_k) / P(N = k)."""
    n = sample(Categorical(np.array([0.5, 0.5])), Accounted(), rng=rng, name="n")
    return _summed(model, guide, rng, [np.where(n == k - 1, 1.0, 0.0) for k in (1, 2)], [2.0, 2.0], mistake)


def _summed(
    model: Model,
    guide: Distribution,
    rng: np.random.Generator,
    taken: list[Value],
    weights: list[float],
    mistake: str,
) -> Value:
    """A bound of one sample and what was taken of the differences; their derivatives without their weights ("bare"),
    or none ("held")."""
    log_w = _log_weights(model, guide, rng, ScoreFunction())
    bounds: list[Result] = [log_mean_exp(log_w[: k + 1], 0) for k in range(K)]
    found = moved = bounds[0]
    for k, (there, weight) in enumerate(zip(taken, weights, strict=True)):
        difference = there * (bounds[k + 1] - bounds[k])
        found, moved = found + weight * difference, moved + (difference if mistake == "bare" else 0.0)
    return _instead(found, moved) if mistake else found


FUNCTIONS: tuple[tuple[Callable[..., Value], dict[str, Any]], ...] = (
    (objectives.renyi, {"alpha": 0.5}),
    (objectives.jackknife, {}),
)
