"""REBAR and RELAX: a relaxation of the sample, given the sample, as control variate."""

import math
from collections.abc import Callable
from typing import Any, final

import numpy as np

from scg.core.aliases import State, Tree
from scg.core.ambient import unplanned
from scg.core.backward import pull
from scg.core.node import Node, Value, ancestors, parameter
from scg.core.options import is_number
from scg.core.tree import leaves, leaves_like, map_leaves, rebuild
from scg.distributions.base import FixedSupport
from scg.distributions.bernoulli import Bernoulli
from scg.errors import EstimatorError, ScgTypeError, ScgValueError, here
from scg.estimators.tools import constant, logits_of, uniform
from scg.optim import Optimizer
from scg.special import sigmoid, softplus
from scg.stochastic.dependence import influence
from scg.stochastic.estimator import Estimator
from scg.stochastic.formulas import first_order
from scg.stochastic.surrogate import Downstream
from scg.stochastic.ties import gather, unpicked


class _Controlled(Estimator):
    """d/dl E[f(b)] = E[(f(b) - c(z')) d/dl log p(b) + d/dl c(z) - d/dl c(z')], b = 1[z > 0], z = l + logit(u), z' a
    sample of z given b.

    b is what was drawn, so z too is drawn from its distribution given b; but as l moves, z keeps u, and z' keeps b and
    the noise v behind it. With s = 2b - 1 both are z = s softplus(logit(v) + softplus(s l)); dz/dl = 1, dz'/dl =
    sigmoid(logit(v) + softplus(s l)) sigmoid(s l).
    """

    requires = (Bernoulli, FixedSupport)

    def __init__(
        self, temperature: float | None, scale: float, parameters: Tree, optimizer: Callable[[Tree], Optimizer] | None
    ):
        name = type(self).__name__
        if temperature is not None and not (is_number(temperature) and temperature > 0):
            raise ScgValueError(f"{name}: temperature must be a positive number, got {temperature!r} ({here()})")
        if not is_number(scale):
            raise ScgValueError(f"{name}: scale must be a finite number, got {scale!r} ({here()})")
        if optimizer is not None and not callable(optimizer):
            raise ScgTypeError(
                f"{name}: optimizer must be a function of the parameters (scg.optim.Adam), got {optimizer!r} ({here()})"
            )
        self.parameters = {"fn": parameters}
        if temperature is not None:
            self.parameters |= {"log_temperature": np.array(math.log(temperature)), "scale": np.array(float(scale))}
        self.optimizer = optimizer(self.parameters) if optimizer is not None else None

    @property
    def continuous(self) -> bool:  # type: ignore[override]
        """Whether the cost has to be continuous between 0 and 1: not where the control variate is a free function
        alone."""
        return "scale" in self.parameters

    def expand(self, down: Downstream) -> Value | None:
        if not down.influences:
            return None
        eta = np.broadcast_to(logits_of(down.distribution), down.shape)
        l, s = constant(down, eta), 2 * constant(down, down.node) - 1
        (z, _), (other, slope) = (hidden(l, s, uniform(down)) for _ in range(2))
        trains = self.optimizer is not None and not down.graph and not down.inner
        if self.optimizer is not None:
            unplanned(f"{type(self).__name__} trains its control in every run, and a plan would not")
        phi = map_leaves(parameter if trains else lambda x: x, self.parameters)
        values = np.stack([z, other])
        c, d = self._control(down, phi, values, trains)
        g = (down.now() - c) * (s * sigmoid(-s * l)) + d[0] - d[1] * slope
        if (
            trains and self.optimizer is not None
        ):  # d/dphi of the variance is the mean of d/dphi g^2, as the mean of g does not depend on phi
            nodes = [leaf for _, leaf in leaves(phi)]
            cost = np.sum(g * g) / max(math.prod(down.shape[: down.site.replicate_axes]), 1)
            self.optimizer.step(rebuild(self.parameters, iter(pull([cost], [np.ones((), cost.dtype)], nodes))))
            g = g.raw
        return np.sum(first_order(eta, g))

    def _control(self, down: Downstream, phi: Tree, z: Value, trains: bool) -> tuple[Value, Value]:
        """(c(z') as a cost-to-go, d sum(c) / d(z, z')) for z and z' along the leading axis of ``z``."""
        c: Any = 0
        d: Any = 0
        if "scale" in phi:
            rate, scale = (x.astype(z.dtype) for x in (np.exp(-phi["log_temperature"]), phi["scale"]))
            x = sigmoid(z * rate)
            terms, slope = down.sloped(x, again=trains)
            c, d = scale * down.total(terms)[1], scale * rate * slope * x * (1 - x)
        return c, d

    @property
    def state(self) -> State:  # type: ignore[override]
        """What is trained, and the state of its optimizer."""
        return (
            {"parameters": self.parameters, "optimizer": getattr(self.optimizer, "state", None)}
            if self.optimizer is not None
            else {}
        )

    @state.setter
    def state(self, state: State) -> None:
        if not state:
            return
        for (_, x), value in zip(
            leaves(self.parameters), leaves_like(self.parameters, state["parameters"], "parameters"), strict=True
        ):
            x[...] = value
        if state["optimizer"] is not None and self.optimizer is not None:
            self.optimizer.state = state["optimizer"]

    @property
    def temperature(self) -> float:
        """The temperature now."""
        return float(np.exp(self.parameters["log_temperature"]))


@final
class REBAR(_Controlled):
    """REBAR: the control variate c(z) = scale * f(sigmoid(z / temperature)) (Tucker et al., 2017).

        d/dl E[f(b)] = E[(f(b) - c(z')) d/dl log p(b) + d/dl c(z) - d/dl c(z')],   b = 1[z > 0], z = l + logit(u), z' a
        sample of z given b.

    For the logits l of a Bernoulli distribution. Three evaluations of the cost, here and with the whole sample at z and
    at z', and their derivatives: the cost must be continuous between 0 and 1 (a step there would be lost, as on any
    pathwise sample). First derivatives only.

    ``optimizer``, a function of the parameters such as ``functools.partial(scg.optim.Adam, learning_rate=1e-3)``,
    trains temperature and scale by the gradient of g^2, a single-sample estimate of that of the variance (for l), after
    each use: a sample never meets what it has trained. Mean exact for any temperature and scale. Training takes a
    second derivative through the samples further down, whose estimators must have one, and goes on one run at a time:
    replicates of a graph measure the estimator as it stood at first.
    """

    def __init__(
        self, temperature: float = 0.5, scale: float = 1.0, optimizer: Callable[[Tree], Optimizer] | None = None
    ):
        if temperature is None:
            raise ScgValueError(f"REBAR: temperature must be a positive number, got None ({here()})")
        super().__init__(temperature, scale, (), optimizer)

    def __repr__(self) -> str:
        return f"REBAR(temperature={self.temperature:.4g}, scale={float(self.parameters['scale']):.4g})"


@final
class RELAX(_Controlled):
    """RELAX: the control variate c(z) = fn(parameters, z), a free one; with a ``temperature`` REBAR's is added
    (Grathwohl et al., 2018).

        d/dl E[f(b)] = E[(f(b) - c(z')) d/dl log p(b) + d/dl c(z) - d/dl c(z')],   b = 1[z > 0], z = l + logit(u), z' a
        sample of z given b.

    For the logits l of a Bernoulli distribution. ``fn`` is given ``parameters`` (nested arrays) and z, of the shape of
    the sample, as nodes, and returns an array whose sum over all elements is c; it must be continuous in z. Which
    element of it goes with which of z is read off its axis maps, so replicates and sample axes stay apart where ``fn``
    keeps them apart. One evaluation of the cost, which may have any dependence on b; with a temperature three, as in
    REBAR. First derivatives only.

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
    ):
        if not callable(fn):
            raise ScgTypeError(f"RELAX: fn must be a function of (parameters, z), got {fn!r} ({here()})")
        super().__init__(temperature, scale, parameters, optimizer)
        self.fn = fn

    def _control(self, down: Downstream, phi: Tree, z: Value, trains: bool) -> tuple[Value, Value]:
        c, d = super()._control(down, phi, z, trains)
        found = [self._free(down, phi["fn"], z[k], trains or down.graph) for k in range(2)]
        return c + found[1][0], d + np.stack([f[1] for f in found])

    def _free(self, down: Downstream, phi: Tree, z: Value, graph: bool) -> tuple[Value, Value]:
        z = z if type(z) is Node else parameter(z)
        c: Any = self.fn(phi, z)
        tie = influence(z, 0, ancestors([c], z.id)).get(c.id) if type(c) is Node else None
        if tie is None:
            raise EstimatorError(
                f"{down.site!r}: the control variate of RELAX must depend on z, and return an array, got {c!r}"
                f" ({here()})"
            )
        (slope,) = pull([c], [np.ones(c.shape, c.dtype)], [z], graph)
        return unpicked(gather(c if graph else c.raw, tie), tie), slope

    def __repr__(self) -> str:
        relaxed = f", temperature={self.temperature:.4g}" if "scale" in self.parameters else ""
        return f"RELAX({getattr(self.fn, '__name__', self.fn)}{relaxed})"


def hidden(l: Value, s: Value, v: Value) -> tuple[Value, Value]:
    """(z, dz/dl at fixed b and v) for z a sample of l + logit(u), u uniform, given b = 1[z > 0] and v uniform; s = 2b -
    1.

    z = log(v/(1-v) / (1-p) + 1) for b = 1 and -log(v/(1-v) / p + 1) for b = 0, with p = sigmoid(l).
    """
    inner = np.log(v) - np.log1p(-v) + softplus(s * l)
    return s * softplus(inner), sigmoid(inner) * sigmoid(s * l)
