"""REBAR and RELAX: a relaxation of the sample, given the sample, as control variate."""

import math
from collections.abc import Callable
from typing import final

import numpy as np

from scg.core.aliases import Result, Statics, Tree
from scg.core.ancestry import ancestors
from scg.core.backward import pull
from scg.core.leaves import parameter
from scg.core.node import Node, Value
from scg.core.options import is_number
from scg.distributions.base import Distribution, FixedSupport
from scg.distributions.bernoulli import Bernoulli
from scg.distributions.categorical import OneHotCategorical
from scg.distributions.orders import OneHotPlackettLuce, PlackettLuce
from scg.errors import EstimatorError, ScgTypeError, ScgValueError, here
from scg.estimators.races import relaxed, two_races
from scg.estimators.tools import constant, logits_of, uniform
from scg.estimators.trained import Trained
from scg.optim import Optimizer
from scg.special import logsumexp, sigmoid, softmax, softplus
from scg.stochastic.dependence import influence
from scg.stochastic.formulas import first_order
from scg.stochastic.surrogate import Downstream
from scg.stochastic.ties import gather, unpicked


class _Controlled(Trained):
    """d/dl E[f(b)] = E[(f(b) - c(z')) d/dl log p(b) + d/dl c(z) - d/dl c(z')], b = 1[z > 0], z = l + logit(u), z' a
    sample of z given b; for one of K b = argmax z as a one-hot vector, z = l + Gumbel noise.

    b is what was drawn, so z too is drawn from its distribution given b; but as l moves, z keeps u, and z' keeps b and
    the noise v behind it. With s = 2b - 1 both are z = s softplus(logit(v) + softplus(s l)); dz/dl = 1, dz'/dl =
    sigmoid(logit(v) + softplus(s l)) sigmoid(s l). For one of K see ``keys``.
    """

    requires = (FixedSupport,)
    accepted = (Bernoulli, OneHotCategorical, OneHotPlackettLuce)

    def __init__(
        self,
        temperature: float | None,
        scale: float,
        parameters: Tree,
        optimizer: Callable[[Tree], Optimizer] | None,
        coupled: bool,
    ):
        name = type(self).__name__
        if temperature is not None and not (is_number(temperature) and temperature > 0):
            raise ScgValueError(f"{name}: temperature must be a positive number, got {temperature!r} ({here()})")
        if not is_number(scale):
            raise ScgValueError(f"{name}: scale must be a finite number, got {scale!r} ({here()})")
        trained: Statics = {"fn": parameters}
        if temperature is not None:
            trained |= {"log_temperature": np.array(math.log(temperature)), "scale": np.array(float(scale))}
        super().__init__(trained, optimizer, coupled)

    def objection(self, distribution: Distribution) -> str:
        if not isinstance(distribution, self.accepted):
            hint = " (a OneHotPlackettLuce is such an order)" if isinstance(distribution, PlackettLuce) else ""
            return f"needs a {' or '.join(kind.__name__ for kind in self.accepted)}, got {distribution!r}{hint}"
        return super().objection(distribution)

    @property
    def continuous(self) -> bool:  # type: ignore[override]
        """Whether the cost has to be continuous between 0 and 1: not where the control variate is a free function
        alone."""
        return "scale" in self.parameters

    def expand(self, down: Downstream) -> Value | None:
        if not down.influences:
            return None
        eta: Result = logits_of(down.distribution)
        eta = np.broadcast_to(eta, (*down.shape, *eta.shape[eta.ndim - _key_ndim(down) :]))
        l, b = constant(down, eta), constant(down, down.node)
        z, other, score, back = _halves(down)(down, l, b)
        phi, trains = self.trained(down)
        values = np.stack([z, other])
        c, d = self._control(down, phi, values, b, trains)
        now, event = down.now(), (1,) * _key_ndim(down)
        left: Result = now - c
        g: Result = np.reshape(left, (*left.shape, *event)) * score + d[0] - back(d[1])
        if trains:
            self.learn(down, phi, g)
            g = g.raw
        found = np.sum(first_order(eta, g))
        probs = getattr(down.distribution, "probs", None) if event else None
        if probs is not None:  # p(z) = probs[z] also where they do not sum to one
            found = found + np.sum(first_order(np.broadcast_to(np.sum(probs, -1), down.shape), now))
        return found

    def _control(self, down: Downstream, phi: Tree, z: Value, b: Value, trains: bool) -> tuple[Value, Value]:
        """(c(z') as a cost-to-go, d sum(c) / d(z, z')) for z and z' along the leading axis of ``z``."""
        c: Result = 0
        d: Result = 0
        if "scale" in phi:
            rate, scale = (x.astype(z.dtype) for x in (np.exp(-phi["log_temperature"]), phi["scale"]))
            if isinstance(down.distribution, OneHotPlackettLuce):
                x, back = relaxed(z, b, rate)
            elif down.site.event_ndim:
                x = softmax(z * rate, axis=-1)
                back = lambda g: rate * x * (g - np.sum(x * g, axis=-1, keepdims=True))
            else:
                x = sigmoid(z * rate)
                back = lambda g: rate * g * x * (1 - x)
            terms, slope = down.sloped(x, again=trains)
            c, d = scale * down.total(terms)[1], scale * back(slope)
        return c, d

    @property
    def temperature(self) -> float:
        """The temperature now."""
        return float(np.exp(self.parameters["log_temperature"]))


@final
class REBAR(_Controlled):
    """REBAR: the control variate c(z) = scale * f(sigmoid(z / temperature)) (Tucker et al., 2017).

        d/dl E[f(b)] = E[(f(b) - c(z')) d/dl log p(b) + d/dl c(z) - d/dl c(z')],   b = 1[z > 0], z = l + logit(u), z' a
        sample of z given b.

    For the logits l of a Bernoulli distribution, or of a OneHotCategorical one: there b = argmax z as a one-hot vector,
    z = l + Gumbel noise, and softmax stands for sigmoid. Of an order, OneHotPlackettLuce, b are the places of the
    largest z in falling order, and row i of the relaxed matrix is softmax_j(-|z_(i) - z_j| / temperature), z_(i) the
    i-th largest (Gadetsky et al., 2020; SoftSort: Prillo and Eisenschlos, 2020).

    Three evaluations of the cost, here and with the whole sample at z and at z', and their derivatives: the cost must
    be continuous between 0 and 1 (a step there would be lost, as on any pathwise sample). First derivatives only.

    ``optimizer``, a function of the parameters such as ``functools.partial(scg.optim.Adam, learning_rate=1e-3)``,
    trains temperature and scale by the gradient of g^2, a single-sample estimate of that of the variance (for l), after
    each use: a sample never meets what it has trained. Mean exact for any temperature and scale. Training takes a
    second derivative through the samples further down, whose estimators must have one, and goes on one run at a time:
    replicates of a graph measure the estimator as it stood at first.
    """

    def __init__(
        self,
        temperature: float = 0.5,
        scale: float = 1.0,
        optimizer: Callable[[Tree], Optimizer] | None = None,
        *,
        coupled: bool = True,
    ):
        if temperature is None:
            raise ScgValueError(f"REBAR: temperature must be a positive number, got None ({here()})")
        super().__init__(temperature, scale, (), optimizer, coupled)

    def __repr__(self) -> str:
        return f"REBAR(temperature={self.temperature:.4g}, scale={float(self.parameters['scale']):.4g}{self._anew})"


@final
class RELAX(_Controlled):
    """RELAX: the control variate c(z) = fn(parameters, z), a free one; with a ``temperature`` REBAR's is added
    (Grathwohl et al., 2018).

        d/dl E[f(b)] = E[(f(b) - c(z')) d/dl log p(b) + d/dl c(z) - d/dl c(z')],   b = 1[z > 0], z = l + logit(u), z' a
        sample of z given b.

    For the logits l of a Bernoulli distribution, of a OneHotCategorical one, or of an order (OneHotPlackettLuce), as in
    REBAR; without a temperature also for an order of integers (PlackettLuce). ``fn`` is given
    ``parameters`` (nested arrays) and z, of the shape of the sample (of an order: one for each thing), as nodes, and
    returns an array whose sum over all elements is c; it must be continuous in z. Which element of it goes with which
    of z is read off its axis maps, so replicates and sample axes stay apart where ``fn`` keeps them apart. One
    evaluation of the cost, which may have any dependence on b; with a temperature three, as in REBAR. First
    derivatives only.

    ``optimizer``, a function of the parameters such as ``functools.partial(scg.optim.Adam, learning_rate=1e-3)``,
    trains all of them in place by the gradient of g^2, a single-sample estimate of that of the variance (for l), after
    each use: a sample never meets what it has trained. As in REBAR it goes on one run at a time.
    """

    def __init__(
        self,
        fn: Callable[[Tree, Tree], Value],
        parameters: Tree = (),
        temperature: float | None = None,
        scale: float = 1.0,
        optimizer: Callable[[Tree], Optimizer] | None = None,
        *,
        coupled: bool = True,
    ):
        if not callable(fn):
            raise ScgTypeError(f"RELAX: fn must be a function of (parameters, z), got {fn!r} ({here()})")
        super().__init__(temperature, scale, parameters, optimizer, coupled)
        self.fn = fn

    def objection(self, distribution: Distribution) -> str:
        if not isinstance(distribution, PlackettLuce):
            return super().objection(distribution)
        relaxed = (
            "needs temperature=None where the samples are integers, or a OneHotPlackettLuce, which has a relaxation"
        )
        return relaxed if self.continuous else ""

    def _control(self, down: Downstream, phi: Tree, z: Value, b: Value, trains: bool) -> tuple[Value, Value]:
        c, d = super()._control(down, phi, z, b, trains)
        found = [self._free(down, phi["fn"], z[k], trains or down.graph) for k in range(2)]
        return c + found[1][0], d + np.stack([f[1] for f in found])

    def _free(self, down: Downstream, phi: Tree, z: Value, graph: bool) -> tuple[Value, Value]:
        z = z if type(z) is Node else parameter(z)
        c: Result = self.fn(phi, z)
        tie = influence(z, _key_ndim(down), ancestors([c], z.id)).get(c.id) if type(c) is Node else None
        if tie is None:
            raise EstimatorError(
                f"{down.site!r}: the control variate of RELAX must depend on z, and return an array, got {c!r}"
                f" ({here()})"
            )
        (slope,) = pull([c], [np.ones(c.shape, c.dtype)], [z], graph)
        return unpicked(gather(c if graph else c.raw, tie), tie), slope

    def __repr__(self) -> str:
        relaxed = f", temperature={self.temperature:.4g}" if "scale" in self.parameters else ""
        return f"RELAX({getattr(self.fn, '__name__', self.fn)}{relaxed}{self._anew})"


Halves = tuple[Value, Value, Value, Callable[[Value], Value]]
"""z, z', the score, and what a derivative by z' becomes as one by l."""


def _key_ndim(down: Downstream) -> int:
    """How many last axes of z belong to one sample: one where things are compared."""
    return min(down.site.event_ndim, 1)


def _halves(down: Downstream) -> Callable[..., Halves]:
    if isinstance(down.distribution, OneHotPlackettLuce):
        return lambda down, l, b: two_races(down, down.distribution.order, l, np.argmax(b, axis=-1))
    if isinstance(down.distribution, PlackettLuce):
        return lambda down, l, b: two_races(down, down.distribution, l, b)
    return _two_keys if down.site.event_ndim else _two_hidden


def _two_hidden(down: Downstream, l: Value, b: Value) -> Halves:
    s = 2 * b - 1
    (z, _), (other, slope) = (hidden(l, s, uniform(down)) for _ in range(2))
    return z, other, s * sigmoid(-s * l), lambda d: d * slope


def _two_keys(down: Downstream, l: Value, b: Value) -> Halves:
    (z, _), (other, share) = (keys(l, b, uniform(down)) for _ in range(2))
    p = softmax(l, axis=-1)
    return z, other, b - p, lambda d: d * share + p * np.sum(d * (1 - share), axis=-1, keepdims=True)


def keys(l: Value, b: Value, v: Value) -> tuple[Value, Value]:
    """(z, w) for z a sample of l - log(-log u), u uniform, given the one-hot b of its argmax k, and v uniform.

    With E = -log v the largest is z_k = log Z - log E_k, Z = sum exp(l), and the others are those below it,

        z_i = -log(E_i exp(-l_i) + exp(-z_k)).

    At fixed b and v, dz_i = w_i dl_i + (1 - w_i) dlog Z, w_i = E_i exp(-l_i + z_i), and w_k = 0 (Tucker et al., 2017;
    Maddison, Tarlow and Minka, 2014).
    """
    e, chosen = np.log(-np.log(v)), b > 0.5
    low = np.sum(np.where(chosen, e, 0), axis=-1, keepdims=True) - logsumexp(l, axis=-1, keepdims=True)
    own = np.where(chosen, -np.inf, e - l)
    top = np.maximum(own, low)
    return -(top + np.log1p(np.exp(-abs(own - low)))), sigmoid(own - low)


def hidden(l: Value, s: Value, v: Value) -> tuple[Value, Value]:
    """(z, dz/dl at fixed b and v) for z a sample of l + logit(u), u uniform, given b = 1[z > 0] and v uniform; s = 2b -
    1.

    z = log(v/(1-v) / (1-p) + 1) for b = 1 and -log(v/(1-v) / p + 1) for b = 0, with p = sigmoid(l).
    """
    inner = np.log(v) - np.log1p(-v) + softplus(s * l)
    return s * softplus(inner), sigmoid(inner) * sigmoid(s * l)
