"""Double control variates: leave-one-out over costs from which their slope at the other samples is taken."""

from typing import final

import numpy as np

from scg.core.aliases import Result, State
from scg.core.backward import pull
from scg.core.node import Node, Value
from scg.core.options import is_integer, is_number
from scg.distributions.base import Distribution, FixedSupport
from scg.errors import ScgValueError, here
from scg.estimators.baselines import Remembering, fraction
from scg.estimators.tools import constant, without_mean
from scg.stochastic.estimator import Elsewhere
from scg.stochastic.formulas import first_order, held
from scg.stochastic.surrogate import Downstream


@final
class DoubleControlVariate(Elsewhere):
    """d/dt E[f(z)] = E[(1/n) sum_k (h_k - mean_{j != k} h_j) d/dt log p(z_k; t) - a g_k dm/dt], h_k = f(z_k) + a g_k
    (z_k - m), m = E[z] and g_k the mean of f'(z_j) over the samples j != k (Titsias and Shi, 2022).

    g_k does not depend on z_k, so a g_k (z_k - m) d log p has the mean a g_k dm, which is taken off again. In the
    baseline h_j of another sample f'(z_k) meets z_j - m, whose mean is zero and which is independent of z_k. The mean
    is exact for any a: -1 removes what is linear in z, 0 is leave-one-out. ``samples`` evaluations of the cost and of
    its slope; the cost must accept what lies between the values of z, and need not be continuous there. First
    derivatives only.

    Each product has the cost or its slope at one value as a factor, the others being functions of z_1 ... z_n. What
    lies further down has its distribution given z_k, whatever the others are, so the mean stays exact where it is made
    from the same randomness at all of them (``coupled``).

    ``coefficient`` is a. None: learned, a* = -E[A B] / E[B B] with A + a B the gradient, from earlier samples with
    weights decay^k, 0 at first.
    """

    second_derivatives = False
    requires = (FixedSupport,)

    def __init__(
        self, samples: int = 2, coefficient: float | None = -1.0, decay: float = 0.99, *, coupled: bool = True
    ):
        super().__init__(coupled=coupled)
        if not is_integer(samples, 2):
            raise ScgValueError(
                f"DoubleControlVariate: samples must be an integer of at least 2, got {samples!r} ({here()})"
            )
        if coefficient is not None and not is_number(coefficient):
            raise ScgValueError(
                "DoubleControlVariate: coefficient must be a finite number, or None for a learned one, got"
                f" {coefficient!r} ({here()})"
            )
        self.samples, self.coefficient = int(samples), coefficient
        self._learned = None if coefficient is not None else Slope(decay)

    def objection(self, distribution: Distribution) -> str:
        return super().objection(distribution) or without_mean(distribution)

    @property
    def state(self) -> State:  # type: ignore[override]
        """The average that a learned coefficient comes from."""
        return {} if self._learned is None else self._learned.state

    @state.setter
    def state(self, state: State) -> None:
        if self._learned is not None:
            self._learned.state = state

    def expand(self, down: Downstream) -> Value | None:
        if not down.influences:
            return None
        eta = np.broadcast_to(down.distribution.mean, down.node.shape)
        draws = down.with_others(self.samples - 1)
        values, n = constant(down, draws), self.samples
        step = values - constant(down, eta)
        f: Result = 0
        linear: Result = 0
        slope: Result = 0
        event = tuple(range(1 + len(down.shape), values.ndim))
        for axes, parts in down.mixing().items():
            terms, pulled = down.sloped(values, parts)
            others = (np.sum(pulled, axis=0, keepdims=True) - pulled) / (n - 1)
            along = np.sum(others * step, axis=event)
            f = f + down.total(terms, 1, parts)
            linear = linear + np.sum(along, axis=tuple(1 + axis for axis in axes), keepdims=True)
            slope = slope + np.mean(pulled, axis=0)
        scores = down.distribution.log_prob(held(draws))
        plain = np.sum(first_order(scores, _centred(f) / n))
        control = np.sum(first_order(scores, _centred(linear) / n)) - np.sum(first_order(eta, slope))
        a = self.coefficient if self._learned is None else self._learned.of(down, plain, control)
        return plain + a * control


def _centred(h: Value) -> Value:
    """h_k - mean_{j != k} h_j along the leading axis."""
    n = h.shape[0]
    return (h - np.mean(h, axis=0, keepdims=True)) * (n / (n - 1))


@final
class Slope(Remembering):
    """The coefficient a* = -E[A B] / E[B B] of least E|A + a B|^2, E B = 0, from earlier samples with weights
    decay^k."""

    def __init__(self, decay: float):
        super().__init__()
        self.decay, self._above, self._below = fraction(self, decay), 0.0, 0.0

    def value(self, down: Downstream) -> float:
        now = self._recall(down)
        return -now._above / now._below if now._below > 0 else 0.0

    def of(self, down: Downstream, plain: Node, control: Node) -> float:
        """The coefficient for a sample, of which the two parts of the gradient (zeros with these as derivatives) are a
        lesson for later ones."""
        nodes = [x for x in down.distribution.parameters.values() if type(x) is Node]
        one = [np.ones((), plain.dtype)]
        a, b = (pull([part], one, nodes) for part in (plain, control))
        square, both = (sum([np.vdot(x, y) for x, y in zip(one, b, strict=True)], np.zeros(())) for one in (b, a))
        found = self.value(down)
        self._note(down, np.asarray(square), np.asarray(both))
        return found

    def _learn(self, square: np.ndarray, both: np.ndarray) -> None:
        self._above = self.decay * self._above + float(both)
        self._below = self.decay * self._below + float(square)

    def _memory(self) -> dict[str, float]:
        return {"above": self._above, "below": self._below}

    def _restore(self, state: dict[str, float]) -> None:
        self._above, self._below = float(state["above"]), float(state["below"])
