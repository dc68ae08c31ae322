"""Baselines of the score function: numbers that stand against a sample's costs and do not depend on the sample."""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Self, cast, final

import numpy as np

from scg.core.aliases import Operands, Result, State, Statics, Tree
from scg.core.ambient import unplanned
from scg.core.ancestry import ancestors
from scg.core.backward import pull
from scg.core.leaves import parameter
from scg.core.node import Node, Numeric, Value, value_of
from scg.core.options import is_number
from scg.core.tree import leaves, leaves_like, map_leaves, rebuild
from scg.distributions.base import Distribution
from scg.errors import EstimatorError, ScgTypeError, ScgValueError, here
from scg.optim import Optimizer
from scg.stochastic.analysis import draws
from scg.stochastic.costs import at_first
from scg.stochastic.formulas import held
from scg.stochastic.surrogate import Downstream


class Baseline(ABC):
    """A number b that does not depend on the sample that it stands against: E[b d log p] = 0, so it changes the
    variance only."""

    @abstractmethod
    def value(self, down: Downstream) -> Numeric:
        """b, in the units of the cost-to-go F of ``down``, of a shape that broadcasts to the sample's batch shape."""

    def of_samples(self, f: Value, draws: Value, down: Downstream) -> Numeric:
        """b for each of the estimator's own samples ``draws``, along the leading axis of ``f``, their costs-to-go."""
        return self.value(down)

    def shares(self, f: Value, draws: Value, down: Downstream) -> Value:
        """(F_j - b_j) / n for each of the n own samples: what stands before the derivative of log p(z_j)."""
        return (f - held(self.of_samples(f, draws, down))) / f.shape[0]

    def learners(self) -> "list[Remembering]":
        """What of it learns from costs."""
        return []

    state: State = {}
    """What the next value depends on beside the samples, as ``scg.checkpoint`` takes it: a property to override;
    assigning it restores it."""

    def __repr__(self) -> str:
        given = ", ".join(f"{k}={v!r}" for k, v in vars(self).items() if not k.startswith("_"))
        return f"{type(self).__name__}({given})"


@final
class Constant(Baseline):
    """The same number for every element of the sample."""

    def __init__(self, value: float):
        if not is_number(value):
            raise ScgValueError(f"Constant: value must be a finite number, got {value!r} ({here()})")
        self.level = float(value)

    def value(self, down: Downstream) -> Numeric:
        return self.level


@final
class LeaveOneOut(Baseline):
    """b_i = mean of the costs of the other samples, sum_{j != i} F_j / (n - 1) (Mnih and Rezende, 2016; Kool et al.,
    2019).

    The others are the node's own sample axis (``scg.sample(..., shape=(n,))``, whose costs must not mix along that
    axis), or the estimator's ``samples``.
    """

    def value(self, down: Downstream) -> Numeric:
        n, axis = down.site.shape[0] if down.site.shape else 1, down.site.replicate_axes
        if n < 2 or any(axis in axes for axes in down.mixed()):
            raise EstimatorError(
                f"{down.site!r}: LeaveOneOut() needs a sample axis of at least 2 along which the costs do not mix, got"
                f" sample shape {down.site.shape} and costs that mix axes {sorted(set().union(*down.mixed()))}; use"
                f" ScoreFunction(samples=n, baseline=LeaveOneOut()) ({here()})"
            )
        return _of_others(down.now(), axis, n)

    def of_samples(self, f: Value, draws: Value, down: Downstream) -> Numeric:
        """The same over the leading axis of ``f``, the estimator's own samples."""
        return _of_others(f, 0, f.shape[0])

    def shares(self, f: Value, draws: Value, down: Downstream) -> Value:
        """(F_j - mean F) / (n - 1), which is the same number in fewer passes."""
        return _split(f - np.mean(f, axis=0, keepdims=True), f.shape[0] - 1)


def _of_others(f: Value, axis: int, n: int) -> Value:
    """The mean along an axis of length n of all elements but each one itself."""
    return _split(np.sum(f, axis=axis, keepdims=True) - f, n - 1)


def _split(x: Value, n: int) -> Value:
    return x if n == 1 else x / n  # a pass less


class Remembering(Baseline):
    """A baseline that learns from costs. The lesson of a cost waits until a sample comes that is younger than that
    cost.

    So b depends neither on the sample that it stands against nor, where several samples share the baseline, on costs
    that this sample has influenced. It learns where a gradient is taken from new samples one run at a time; replicates
    of a graph are all held against the state that it had at first.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, tuple[int, Operands]] = {}

    def _recall(self, down: Downstream) -> Self:
        """Itself after all costs older than the sample; in replicates a copy, the same for all of them."""
        unplanned(f"{type(self).__name__} learns from every run, and a plan would not")
        if (first := at_first(self, self._grown)) is not None:
            return cast("Self", first)
        for draw, (cost, lesson) in list(self._waiting.items()):
            if cost < down.node.id and not down.inner:
                del self._waiting[draw]
                self._learn(*lesson)
        return self

    def _grown(self) -> Self:
        """A copy that has learned all lessons so far."""
        found = copy.deepcopy(self)
        for _, lesson in found._waiting.values():
            found._learn(*lesson)
        found._waiting.clear()
        return found

    def _note(self, down: Downstream, *lesson: Value) -> None:
        """Remember a lesson of a sample's costs; zeros, which other samples' estimates add to a cost, teach nothing."""
        if down.teaches and np.any(lesson[0]):
            self._waiting.setdefault(down.node.id, (down.cost.id, lesson))

    def _learn(self, *lesson: Result) -> None:
        raise NotImplementedError

    def learners(self) -> "list[Remembering]":
        return [self]

    def carry_over(self) -> None:
        """Let the lessons that wait count as older than all samples: of a copy that serves other runs, perhaps in
        another process, which counts its nodes from 0."""
        self._waiting.update({draw: (-1, lesson) for draw, (_, lesson) in self._waiting.items()})

    @property
    def state(self) -> State:  # type: ignore[override]
        """What the next value depends on, once all lessons so far are learned, as they will be by then: to be read
        between runs."""
        return self._grown()._memory()

    @state.setter
    def state(self, state: State) -> None:
        known = self._memory()
        if not isinstance(state, dict) or set(state) != set(known):
            got = sorted(state) if isinstance(state, dict) else type(state).__name__
            raise ScgValueError(
                f"the state of {type(self).__name__} has the entries {sorted(known)}, got {got} ({here()})"
            )
        self._restore(state)
        self._waiting.clear()

    def _memory(self) -> State:
        raise NotImplementedError

    def _restore(self, state: State) -> None:
        raise NotImplementedError


@final
class MovingAverage(Remembering):
    """b = the exponentially weighted average of earlier costs-to-go, sum_k decay^k F_{-1-k} / sum_k decay^k; 0 at
    first.

    Before this sample's own cost, never with it. One number: F is averaged over the elements of a sample. The state is
    in the instance: give samples whose costs differ in size one each.
    """

    def __init__(self, decay: float = 0.99):
        super().__init__()
        self.decay, self._total, self._weight = fraction(self, decay), 0.0, 0.0

    def value(self, down: Downstream) -> Numeric:
        now = self._recall(down)
        self._note(down, value_of(down.now()))
        return now._total / now._weight if now._weight else 0.0

    def _learn(self, f: np.ndarray) -> None:
        self._total = self.decay * self._total + float(np.mean(f))
        self._weight = self.decay * self._weight + 1

    def _memory(self) -> State:
        return {"total": self._total, "weight": self._weight}

    def _restore(self, state: State) -> None:
        self._total, self._weight = float(state["total"]), float(state["weight"])


@final
class Optimal(Remembering):
    """b* = E[F s^2] / E[s^2], s = d/dt log p(z; t): the b of least Var[(F - b) s], from other samples (Greensmith et
    al., 2004).

    With the estimator's ``samples``, for each sample and element from the other ones (s^2 summed over the parameters);
    else from earlier costs with weights decay^k, as one number for all elements, 0 at first. Best where F and s^2 are
    dependent: for one Bernoulli it makes the variance zero.
    """

    def __init__(self, decay: float = 0.99):
        super().__init__()
        self.decay, self._above, self._below = fraction(self, decay), 0.0, 0.0

    def value(self, down: Downstream) -> Numeric:
        now = self._recall(down)
        f, square = value_of(down.now()), value_of(squared_score(down, down.node if down.graph else down.node.raw, 0))
        self._note(down, f, square)
        return now._above / now._below if now._below > 0 else 0.0

    def of_samples(self, f: Value, draws: Value, down: Downstream) -> Numeric:
        square = held(squared_score(down, held(draws), 1))
        above, below = (np.sum(x, axis=0, keepdims=True) - x for x in (f * square, square + 0 * f))
        below = np.where(below > 0, below, 1)  # no other sample has a score: any b will do
        return above / below

    def _learn(self, f: np.ndarray, square: np.ndarray) -> None:
        self._above = self.decay * self._above + float(np.mean(f * square))
        self._below = self.decay * self._below + float(np.mean(square))

    def _memory(self) -> State:
        return {"above": self._above, "below": self._below}

    def _restore(self, state: State) -> None:
        self._above, self._below = float(state["above"]), float(state["below"])


@final
class Learned(Remembering):
    """B(x, phi): a function of inputs and parameters of its own, trained by the squared error (F - B)^2 (NVIL, Mnih and
    Gregor, 2014).

        b = scg.Learned(fn, phi, optimizer=scg.optim.Adam)                     # once
        scg.sample(distribution, scg.ScoreFunction(baseline=b(x)), rng=rng)    # for each minibatch x

    ``fn(phi, x)`` returns predicted costs-to-go, of a shape that broadcasts to the sample's batch shape. ``phi`` is a
    structure of arrays, which ``optimizer(phi)``, an object with ``step(gradients)``, changes in place
    (``functools.partial(scg.optim.Adam, learning_rate=1e-4)``); without one, B is fixed. ``x`` (arrays, or nodes that
    do not depend on the sample) is not differentiated; what other samples lead to is given to ``fn`` as nodes where the
    estimate is to be replayed, in replicates. A step is taken when the next sample comes.

    ``normalize=True``: B predicts (F - m)/v with m and v the running mean and standard deviation of earlier costs (with
    ``decay``), so that fn need not know their scale. NVIL divides F - b by max(1, v), which rescales the gradient: that
    would be another gradient's estimate; here its mean stays exact.
    """

    def __init__(
        self,
        fn: Callable[[Tree, Tree], Value],
        parameters: Tree,
        optimizer: Callable[[Tree], Optimizer] | None = None,
        normalize: bool = False,
        decay: float = 0.99,
    ):
        super().__init__()
        if not callable(fn):
            raise ScgTypeError(f"Learned: fn must be a function of (parameters, inputs), got {fn!r} ({here()})")
        if optimizer is not None and not callable(optimizer):
            raise ScgTypeError(
                f"Learned: optimizer must be a function of the parameters (scg.optim.Adam), got {optimizer!r}"
                f" ({here()})"
            )
        self.fn, self.parameters, self.normalize, self.decay = fn, parameters, normalize, fraction(self, decay)
        self._optimizer = optimizer(parameters) if optimizer is not None else None
        self._moments = np.zeros(3)  # weight, and weighted sums of the costs and of their squares

    def __call__(self, inputs: Tree) -> Baseline:
        """The baseline B(x, phi) at the inputs of this sample."""
        return _Predicted(self, inputs)

    def value(self, down: Downstream) -> Numeric:
        raise EstimatorError(
            f"{down.site!r}: give the learned baseline its inputs, ScoreFunction(baseline=b(x)) ({here()})"
        )

    def train(self, inputs: Tree, costs: Value) -> float:
        """One step down the squared error, averaged over the elements of ``costs``; the error before it."""
        phi = map_leaves(parameter, self.parameters)
        m, v = self.level()
        error = (np.asarray(costs) - m) / v - self.fn(phi, inputs)
        loss: Result = np.mean(error * error)
        if self._optimizer is not None:
            nodes = [leaf for _, leaf in leaves(phi)]
            self._optimizer.step(rebuild(self.parameters, iter(pull([loss], [np.ones((), loss.dtype)], nodes))))
        self._moments = self.decay * self._moments + [1, float(np.mean(costs)), float(np.mean(np.square(costs)))]
        return float(value_of(loss))

    def level(self) -> tuple[float, float]:
        """(m, v): what the predictions of ``fn`` are relative to."""
        weight, total, squares = self._moments.tolist()
        if not self.normalize or not weight:
            return 0.0, 1.0
        m = total / weight
        variance = squares / weight - m * m
        return m, math.sqrt(variance) if variance > 0 else 1.0

    def _learn(self, f: np.ndarray, inputs: Tree) -> None:
        self.train(inputs, f)

    def _memory(self) -> State:
        return {
            "parameters": self.parameters,
            "moments": self._moments,
            "optimizer": getattr(self._optimizer, "state", None),
        }

    def _restore(self, state: State) -> None:
        for (_, x), value in zip(
            leaves(self.parameters), leaves_like(self.parameters, state["parameters"], "parameters"), strict=True
        ):
            x[...] = value
        self._moments = np.array(state["moments"], float)
        if state["optimizer"] is not None and self._optimizer is not None:
            self._optimizer.state = state["optimizer"]

    def __repr__(self) -> str:
        return f"Learned({getattr(self.fn, '__name__', self.fn)})"


@final
class _Predicted(Baseline):
    """A learned baseline at some inputs."""

    def __init__(self, owner: Learned, inputs: Tree):
        self._owner, self._inputs = owner, inputs

    def learners(self) -> list[Remembering]:
        return [self._owner]

    @property
    def state(self) -> State:  # type: ignore[override]
        """That of the learned baseline, at whatever inputs."""
        return self._owner.state

    @state.setter
    def state(self, state: State) -> None:
        self._owner.state = state

    def value(self, down: Downstream) -> Numeric:
        nodes = [leaf for _, leaf in leaves(self._inputs) if type(leaf) is Node]
        if any(node is down.node for node in ancestors(nodes, down.node.id, guards=True)):
            raise EstimatorError(
                f"{down.site!r}: a baseline must not depend on its sample, and these inputs do ({here()})"
            )
        # in a formula of nodes what is made of samples stays so: a replay has other inputs
        moving = {node.id for node in nodes if down.graph and draws([node])}
        x = map_leaves(value_of, self._inputs)
        now = self._owner._recall(down)
        m, v = now.level()
        predicted = now.fn(
            now.parameters,
            map_leaves(
                lambda leaf: held(leaf) if getattr(leaf, "id", None) in moving else value_of(leaf), self._inputs
            ),
        )
        b: Result = m + v * (held(predicted) if moving and type(predicted) is Node else np.asarray(value_of(predicted)))
        f = value_of(down.now())
        if b.ndim > len(down.shape) or any(
            n not in (1, m) for n, m in zip(b.shape[::-1], down.shape[::-1], strict=False)
        ):
            raise EstimatorError(
                f"{down.site!r}: a baseline of shape {b.shape} does not broadcast to the sample's {down.shape}"
                f" ({here()})"
            )
        self._owner._note(down, np.broadcast_to(f, np.broadcast_shapes(f.shape, b.shape)), x)
        return b

    def __repr__(self) -> str:
        return repr(self._owner)


def squared_score(down: Downstream, draws: Value, more: int) -> Value:
    """sum over parameters of (d/dt log p(z; t))^2 for each element of ``draws``, which have ``more`` more axes
    than the sample, before its own."""
    batch = (*draws.shape[:more], *down.shape)
    found = slopes(down, batch, lambda distribution: distribution.log_prob(draws))
    return sum([np.sum(s * s, axis=tuple(range(len(batch), s.ndim))) for s in found])


def slopes(down: Downstream, batch: tuple[int, ...], value: Callable[[Distribution], Value]) -> list[Value]:
    """The derivative of ``value`` of each element by the element's own parameters, one array a parameter: batch and
    event axes."""
    wide: Statics = {}
    for name, p in down.distribution.parameters.items():
        if type(p) is Node:
            event = p.shape[p.ndim - down.distribution.parameter_event_ndim(name) :]
            wide[name] = (
                np.broadcast_to(p, batch + event) if down.graph else parameter(np.broadcast_to(p.raw, batch + event))
            )
    total = np.sum(value(down.distribution.replaced(**wide)))
    return pull([total], [np.ones((), total.dtype)], list(wide.values()), down.graph)


def fraction(owner: object, decay: object) -> float:
    """A decay, from 0 to less than 1; ScgValueError, with the name of its owner, where it is none."""
    if not is_number(decay) or not 0 <= decay < 1:
        raise ScgValueError(
            f"{type(owner).__name__}: decay must be a number from 0 to less than 1, got {decay!r} ({here()})"
        )
    return float(decay)
