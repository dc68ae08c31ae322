"""Sequential Monte Carlo: particles are moved, weighted and chosen step by step, and estimate the evidence."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np

from scg.core.aliases import Result, Tree
from scg.core.node import Node, Value, value_of
from scg.core.options import integer, is_number
from scg.core.tree import leaves, map_leaves
from scg.distributions.base import Distribution
from scg.distributions.categorical import Categorical
from scg.errors import EstimatorError, ScgTypeError, ScgValueError, here
from scg.estimators import Reparameterized, ScoreFunction
from scg.objectives.resampling import SCHEMES, Ancestors
from scg.primitives.layout import stop_gradient
from scg.special import logsumexp
from scg.stochastic.estimator import Accounted, Estimator
from scg.stochastic.sites import sample

Step = Callable[[int, Tree, np.random.Generator], tuple[Tree, Value]]
CORRECTIONS = ("stop gradient", "score function", "none")


@final
@dataclass(frozen=True)
class Particles:
    """What a run of ``smc`` leaves, step by step.

    ``log_evidence``  log Z-hat, of the batch shape, in nats: the sum of ``increments``
    ``increments``    log Z-hat_t - log Z-hat_{t-1}, of shape (steps, *batch)
    ``samples``       of each step the particles as they were drawn, (K, *batch, ...), or structures of such arrays
    ``log_weights``   of each step their normalised log-weights before resampling, (K, *batch)
    ``ancestors``     of each step but the first where each particle comes from, (K, *batch)
    """

    log_evidence: Value
    increments: Value
    samples: list[Tree]
    log_weights: list[Value]
    ancestors: list[Value]

    def filtered(self, fn: Callable[[Tree], Value] = lambda z: z) -> Value:
        """E[fn(z_t) | x_1, ..., x_t] as the particles of each step have it: weighted means, along a new first axis of
        steps."""
        _require_function(fn, "filtered: fn", "z")
        means = []
        for z, log_w in zip(self.samples, self.log_weights, strict=True):
            value = fn(z)
            weight = np.exp(log_w)
            means.append(np.sum(np.reshape(weight, (*weight.shape, *[1] * (value.ndim - weight.ndim))) * value, axis=0))
        return np.stack(means)

    def smoothed(
        self, transition: Callable[[int, Tree], Distribution], *, paths: int, rng: np.random.Generator
    ) -> np.ndarray:
        """``paths`` samples of (z_1, ..., z_T) given all observations, of shape (steps, paths, *batch, ...): backward
        simulation (Godsill, Doucet and West, 2004). From a particle of the last step by its weight back to one of each
        step before, by its weight times the density p(z_{t+1} | z_t) of what was chosen after it.

        ``transition(t, z)`` is the distribution of z_t given z_{t-1} = z. Particles are single arrays.
        """
        integer("paths", paths, 1)
        _require_function(transition, "smoothed: transition")
        if not isinstance(rng, np.random.Generator):
            raise ScgTypeError(f"smoothed needs rng=np.random.default_rng(seed), got {type(rng).__name__} ({here()})")
        raw, weights = [[np.asarray(value_of(x)) for x in xs] for xs in (self.samples, self.log_weights)]
        k, *batch = weights[-1].shape
        chosen = [_picked(raw[-1], _choice(np.broadcast_to(weights[-1][:, None], (k, paths, *batch)), rng))]
        for t in range(len(raw) - 2, -1, -1):
            log_p = transition(t + 1, raw[t][:, None]).log_prob(chosen[-1][None])
            chosen.append(_picked(raw[t], _choice(weights[t][:, None] + np.asarray(value_of(log_p)), rng)))
        return np.stack(chosen[::-1])

    def __repr__(self) -> str:
        value = np.mean(np.asarray(value_of(self.log_evidence)))
        return f"<Particles: {len(self.log_weights[0])} over {len(self.samples)} steps, log evidence {value:.6g}>"


def smc(
    step: Step,
    steps: int,
    *,
    rng: np.random.Generator,
    resampling: str = "systematic",
    correction: str = "stop gradient",
    threshold: float = 1.0,
) -> Particles:
    """A particle filter over ``steps`` observations: Z-hat = prod_t sum_k W_{t-1}^k w_t^k, with E[Z-hat] = p(x_1, ...,
    x_T) (Del Moral, 1996) and E[log Z-hat] at most log p(x).

    ``step(t, z, rng)`` draws the particles of step t = 0, 1, ... and returns them with their log-weights: K along the
    first axis, then the batch. At t = 0 ``z`` is None; then it holds the particles that were chosen. What a step draws
    it draws by ``scg.sample``, and with it the estimator of its gradient. ``state_space`` makes such a function of a
    model and a guide. With w_t = p(x_t | z_t) p(z_t | z_{t-1}) / q(z_t | z_{t-1}) and W_t the normalised weights, the
    particles of the next step descend from ``resampling`` ("systematic" or "multinomial"; see ``Ancestors``), wherever
    the effective sample size 1 / sum W_k^2 is below ``threshold`` times K (1: always).

    ``correction`` says what the gradient knows of the choice of ancestors, whose distribution has parameters:

    "stop gradient"   a particle of ancestor a begins with log W_a - stop_gradient(log W_a), which is zero and has a
                      derivative: the gradient of Z-hat = exp(log_evidence) is unbiased, and that of log Z-hat is
                      consistent (Scibior and Wood, 2021); for two particles and two steps of a hidden Markov model of
                      two states it is off by up to 24% of an element
    "score function"  the score of the ancestors, by ``ScoreFunction``: the gradient of log Z-hat, and of any function
                      of the particles, is unbiased (FIVO with its resampling terms, Maddison et al., 2017); noisy.
                      For "multinomial", where the choice is always made
    "none"            nothing: the gradient that FIVO, AESMC and VSMC are trained by. Biased: by up to 64% of an
                      element for two particles and two steps of a hidden Markov model of two states

    Memory is linear in the steps. Raises ScgValueError for unknown options, EstimatorError for a score function where
    the ancestors have none, ScgTypeError and ScgValueError where ``step`` returns something else.
    """
    integer("steps", steps, 1)
    _require_function(step, "smc: step")
    if not is_number(threshold) or not 0 <= threshold <= 1:
        raise ScgValueError(f"smc: threshold must be a number from 0 to 1, got {threshold!r} ({here()})")
    for name, given, known in (("resampling", resampling, SCHEMES), ("correction", correction, CORRECTIONS)):
        if given not in known:
            raise ScgValueError(f"smc: {name} must be one of {', '.join(map(repr, known))}, got {given!r} ({here()})")
    if correction == "score function" and (resampling != "multinomial" or threshold < 1):
        raise EstimatorError(
            "smc: a score function needs resampling='multinomial' and threshold=1: which ancestors are possible, and"
            " whether there is a choice, would move with the weights; or take correction='stop gradient'"
            f" ({here()})"
        )
    samples, all_weights, all_ancestors, increments = [], [], [], []
    z: Tree = None
    log_w: Value | None = None
    for t in range(steps):
        z, inc = _stepped(step, t, z, rng, log_w)
        total = inc - math.log(inc.shape[0]) if log_w is None else log_w + inc
        more = logsumexp(total, axis=0)
        log_w = total - more
        samples.append(z)
        all_weights.append(log_w)
        increments.append(more)
        if t < steps - 1:
            z, log_w, ancestors = _resampled(z, log_w, rng, resampling, correction, threshold)
            all_ancestors.append(ancestors)
    each = np.stack(increments)
    return Particles(np.sum(each, axis=0), each, samples, all_weights, all_ancestors)


def state_space(
    initial: Distribution,
    transition: Callable[[int, Tree], Distribution],
    observed: Callable[[int, Tree], Value],
    *,
    particles: int,
    guide: Callable[[int, Tree], Distribution] | None = None,
    estimator: Estimator | None = None,
) -> Step:
    """The step of ``smc`` for a state-space model: z_0 ~ ``initial``, z_t ~ ``transition(t, z_{t-1})``, and
    ``observed(t, z_t)`` = log p(x_t | z_t), of the batch shape.

    Without a guide particles move by the model (the bootstrap filter: Gordon, Salmond and Smith, 1993). With
    ``guide(t, z_{t-1})`` = q(z_t | z_{t-1}, x), where z_{-1} is None, they move by it, and log p - log q enters their
    weights. ``estimator`` of the samples: None for ``Reparameterized()``, which discrete states cannot have.
    """
    integer("particles", particles, 1)
    if not isinstance(initial, Distribution):
        raise ScgTypeError(f"state_space: initial must be a distribution, got {type(initial).__name__} ({here()})")
    for name, fn in (("transition", transition), ("observed", observed), ("guide", guide)):
        if fn is not None or name != "guide":
            _require_function(fn, f"state_space: {name}")
    estimator = Reparameterized() if estimator is None else estimator

    def step(t: int, z: Tree, rng: np.random.Generator) -> tuple[Tree, Value]:
        prior = initial if t == 0 else transition(t, z)
        proposal = prior if guide is None else guide(t, z)
        z = sample(proposal, estimator, rng=rng, shape=(particles,) if t == 0 else ())
        log_w = observed(t, z)
        return z, log_w if guide is None else log_w + prior.log_prob(z) - proposal.log_prob(z)

    return step


def _require_function(fn: object, who: str, of: str = "t, z") -> None:
    if not callable(fn):
        raise ScgTypeError(f"{who} must be a function of ({of}{', rng' * ('step' in who)}), got {fn!r} ({here()})")


def _stepped(step: Step, t: int, z: Tree, rng: np.random.Generator, log_w: Value | None) -> tuple[Tree, Value]:
    found = step(t, z, rng)
    if not isinstance(found, tuple) or len(found) != 2:
        raise ScgTypeError(
            f"smc: step({t}, ...) must return (particles, log_weights), got {type(found).__name__} ({here()})"
        )
    z, inc = found
    if not isinstance(inc, (Node, np.ndarray)) or not inc.ndim:
        raise ScgTypeError(
            f"smc: the log-weights of step {t} must be an array with an axis of particles in front, got {inc!r}"
            f" ({here()})"
        )
    if log_w is not None and inc.shape != log_w.shape:
        raise ScgValueError(
            f"smc: the log-weights of step {t} have shape {inc.shape}, those before {log_w.shape}: one number for each"
            f" particle and element of the batch ({here()})"
        )
    for path, leaf in leaves(z):
        if np.shape(leaf)[: inc.ndim] != inc.shape:
            raise ScgValueError(
                f"smc: particles{path} of step {t} have shape {np.shape(leaf)}, their log-weights {inc.shape}: these"
                f" axes come first ({here()})"
            )
    return z, inc


def _resampled(
    z: Tree, log_w: Value, rng: np.random.Generator, scheme: str, correction: str, threshold: float
) -> tuple[Tree, Value, Value]:
    """The particles that go on, the log-weights with which they begin, and their ancestors."""
    k = log_w.shape[0]
    last: Result = np.moveaxis(log_w, 0, -1)  # type: ignore[type-var]
    if scheme == "multinomial" and threshold == 1:
        estimator = ScoreFunction() if correction == "score function" else Accounted()
        ancestors = kept = sample(Categorical(logits=last), estimator, rng=rng, shape=(k,))
    else:
        drawn: Result = sample(Ancestors(last, scheme, threshold), Accounted(), rng=rng)
        kept = np.moveaxis(drawn, -1, 0)
        ancestors = kept % k if threshold < 1 else kept
    began = _picked(log_w, ancestors)
    held = stop_gradient(began)
    fresh = (began if correction == "stop gradient" else held) - held - math.log(k)
    return _picked(z, ancestors), np.where(kept >= k, log_w, fresh) if threshold < 1 else fresh, ancestors


def _picked(z: Tree, ancestors: Value) -> Tree:
    """The particles with these places along the first axis."""

    def pick(x: Value) -> Value:
        places = np.reshape(ancestors, (*ancestors.shape, *[1] * (x.ndim - ancestors.ndim)))
        return np.take_along_axis(x, places, 0)

    return map_leaves(pick, z)


def _choice(log_w: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A place along the first axis by these log-weights, for each element of the others: the largest Gumbel key."""
    return np.asarray(np.argmax(log_w + rng.gumbel(size=log_w.shape), axis=0))
