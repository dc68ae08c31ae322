"""Mixtures of distributions of one family."""

import math
from dataclasses import dataclass, replace
from typing import final

import numpy as np

from scg.core.ambient import settled
from scg.core.node import Node, Numeric, Value
from scg.distributions.base import (
    Discrete,
    Distribution,
    FiniteSupport,
    FixedSupport,
    Reparameterizable,
    Shape,
    atoms_of,
)
from scg.distributions.categorical import Logits
from scg.distributions.constraints import Circle, Constraint, Integers, Interval, simplex
from scg.distributions.discrete import log
from scg.distributions.implicit import quantile
from scg.distributions.uniform import UNIT
from scg.distributions.weak import real_array
from scg.errors import ScgTypeError, ScgValueError, here
from scg.primitives.layout import stop_gradient
from scg.special import log_softmax, logsumexp, softmax


@final
@dataclass(frozen=True, eq=False, repr=False)
class Mixture(Reparameterizable, Distribution):
    """log p(z) = log sum_k w_k p_k(z): the last batch axis of ``component`` are the distributions that are mixed, by
    ``weights`` or ``logits`` (along their last axis).

    A mixture of distributions with finitely many values has those of all of its components. A mixture of continuous
    scalar distributions is reparameterized by its quantile function, whose derivative in weights and component
    parameters is implicit (Figurnov et al., 2018): every parameter moves the sample, though the sample comes from one
    component. Not so where the weights are differentiated by and components lie apart: the quantile function jumps over
    the gap between them, at a probability that moves with the weights.
    """

    component: Distribution
    weights: Value | None = None
    logits: Value | None = None
    constraints = {"weights": simplex, "logits": Logits()}
    parts = ("component",)

    def __post_init__(self) -> None:
        if not isinstance(self.component, Distribution):
            raise ScgTypeError(
                f"Mixture: component must be a distribution, got {type(self.component).__name__} ({here()})"
            )
        if (self.weights is None) == (self.logits is None):
            raise ScgTypeError(f"Mixture takes weights or logits, one of the two ({here()})")
        if not self.component.batch_shape:
            raise ScgValueError(
                f"Mixture: component needs a batch axis, the distributions that are mixed, got {self.component!r}"
                f" ({here()})"
            )
        super().__post_init__()
        name, k = "weights" if self.logits is None else "logits", self.component.batch_shape[-1]
        shape = getattr(self, name).shape
        self._require(shape[-1] == k, f"{name} must have {k} elements along the last axis, got shape {shape}")

    def _broadcast(self) -> Shape:
        shape = getattr(self, "weights" if self.logits is None else "logits").shape
        return np.broadcast_shapes(shape[:-1], self.component.batch_shape[:-1])

    def _taken(self, part: str) -> int:
        return 1

    def has(self, capability: type) -> bool:
        if capability in (FixedSupport, Reparameterizable) and self._turns():
            return False
        if capability is Reparameterizable:
            return (
                self.inverts_cdf()
                and type(self.component).cdf is not Distribution.cdf
                and self.component.has(Reparameterizable)
                and not self._gaps()
            )
        if issubclass(capability, (Discrete, FixedSupport)):
            return capability in (Discrete, FiniteSupport, FixedSupport) and self.component.has(capability)
        return isinstance(self, capability)

    def _turns(self) -> bool:
        """Whether the samples of the components lie on several turns: an angle has one density, and not the samples
        that are a turn apart."""
        found = self.component.support
        return isinstance(found, Circle) and bool(np.any(found.low != np.min(found.low)))

    def _gaps(self) -> bool:
        """Whether the weights are nodes, and some values between those of two components are none of any component."""
        if type(self.weights) is not Node and type(self.logits) is not Node:
            return False
        found = self.component.support
        ends = getattr(found, "low", -np.inf), getattr(found, "high", np.inf)
        low, high = [np.broadcast_to(end, self.component.batch_shape) for end in ends]
        return settled(_apart, low, high)

    def way_out(self, capability: type) -> str:
        if self.inverts_cdf() and not self._turns() and self._gaps():
            return (
                "np.sum(k * x, axis=-1), x ~ the component and k ~ OneHotCategorical of the weights, as the components"
                " lie apart"
            )
        found: str = self.component.way_out(FixedSupport if self._turns() else capability)
        return found

    def bends(self) -> bool:
        return self.component.bends()  # type: ignore[no-any-return]

    @property
    def moving(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple([f"component.{name}" for name in self.component.moving])

    @property
    def rounds(self) -> bool:
        return self.component.rounds  # type: ignore[no-any-return]

    def unresolved(self) -> float:
        return self.component.unresolved()  # type: ignore[no-any-return]

    def inverts_cdf(self) -> bool:
        return not self.component.has(Discrete) and self.event_shape == ()

    @property
    def event_shape(self) -> Shape:
        return self.component.event_shape  # type: ignore[no-any-return]

    @property
    def support(self) -> Constraint:
        found: Constraint = self.component.support
        if not isinstance(found, (Interval, Integers, Circle)):
            return found
        shape = self.component.batch_shape  # the ends of each component: those of all of them
        low, high = (
            end if getattr(end, "ndim", 0) == 0 else fold(np.broadcast_to(end, shape), axis=-1)
            for end, fold in ((found.low, np.min), (found.high, np.max))
        )
        return replace(found, low=low, high=high)

    @property
    def probs(self) -> Value:
        """The weights."""
        return softmax(self.logits, axis=-1) if self.weights is None else self.weights

    def noise(self, shape: Shape = ()) -> tuple[Distribution, Shape]:
        return UNIT, self.full_shape(shape)

    def transport(self, noise: Value) -> Value:
        return quantile(self, noise)

    def sample(self, rng: np.random.Generator, shape: int | Shape = ()) -> np.ndarray:
        plain, event = self.detached(), len(self.event_shape)
        z = plain.component.expanded((*self.batch_shape, plain.component.batch_shape[-1])).sample(rng, shape)
        edges = np.cumsum(np.asarray(plain.probs, float), axis=-1)
        full = z.shape[: z.ndim - 1 - event]
        k = np.sum(rng.random(full)[..., None] * edges[..., -1:] >= edges, axis=-1)
        return np.take_along_axis(z, np.reshape(k, (*full, *(1,) * (event + 1))), axis=-1 - event).squeeze(-1 - event)

    def _at(self, value: Numeric) -> Value:
        """A value with an axis for the components."""
        value, event = real_array(value), len(self.event_shape)
        return np.expand_dims(value, -1 - event)

    def log_prob(self, value: Numeric) -> Value:
        each = self.component.log_prob(self._at(value))
        if self.weights is None:
            return logsumexp(log_softmax(self.logits, axis=-1) + each, axis=-1)
        # not by the logarithms of the weights: the derivative in one that is zero is p_k(z) / p(z), and not zero
        some = self.weights > 0
        top = np.max(np.where(some, stop_gradient(each), -np.inf), axis=-1, keepdims=True)
        top = np.where(np.isfinite(top), top, 0)
        above = np.where(some, each - top, np.minimum(each - top, math.log(np.finfo(each.dtype).max) / 2))
        return log(np.sum(self.weights * np.exp(above), axis=-1)) + np.squeeze(top, -1)

    def count(self) -> int:
        """Of one component, which is as many as are listed for one element at a time."""
        return self.component.count()  # type: ignore[attr-defined,no-any-return]

    def atoms(self) -> np.ndarray:
        """The values of all components, each once."""
        if not self.component.has(FiniteSupport):
            raise self._unknown("atoms")
        event = len(self.event_shape)
        each = np.moveaxis(atoms_of(self.component), -1 - event, 1)  # values (3, 1, 2) of 2 components -> (3, 2, 1)
        return np.unique(each.reshape(-1, *each.shape[2:]), axis=0)

    def masses(self, value: Numeric) -> Value:
        return np.sum(self.probs * self.component.masses(self._at(value)), axis=-1)

    def _mixed(self, x: Numeric) -> Value:
        event = len(self.event_shape)
        w = np.reshape(self.probs, self.probs.shape + (1,) * event)
        # what has no weight may be infinite
        return np.sum(w * np.where((w == 0) & ~np.isfinite(x), 0, x), axis=-1 - event)

    @property
    def mean(self) -> Numeric:
        return self._whole(self._mixed(self.component.mean))

    @property
    def variance(self) -> Numeric:
        means = self.component.mean
        mean = np.expand_dims(self._mixed(means), -1 - len(self.event_shape))
        known = np.isfinite(mean)  # else some component's variance is not finite, and says whether it is inf or nan
        apart = np.where(known, means - np.where(known, mean, 0), 0)
        return self._whole(self._mixed(self.component.variance + apart * apart))

    def cdf(self, value: Numeric) -> Value:
        if self.event_shape:
            raise self._unknown("cdf")
        return self._mixed(self.component.cdf(self._at(value)))

    def bracket(self, u: Value) -> tuple[Value, Value]:
        """The quantile of a mixture lies between the least and the greatest of its components' (that have any
        weight)."""
        each = self.component.icdf(u[..., None])
        some = self.probs > 0
        return np.min(np.where(some, each, np.inf), axis=-1), np.max(np.where(some, each, -np.inf), axis=-1)


def _apart(low: np.ndarray, high: np.ndarray) -> bool:
    """Whether intervals along the last axis leave a gap between them, wider than by rounding."""
    order = np.argsort(low, axis=-1)
    low, high = np.take_along_axis(low, order, -1)[..., 1:], np.take_along_axis(high, order, -1)[..., :-1]
    reached = np.maximum.accumulate(high, axis=-1)
    with np.errstate(invalid="ignore"):  # inf - inf
        return bool(np.any(low - reached > 8 * np.finfo(float).eps * np.maximum(np.abs(low), np.abs(reached))))
