"""Orders: who comes first, second, ..., as in a race."""

import math
from dataclasses import dataclass
from itertools import permutations
from typing import final

import numpy as np

from scg.core.ambient import settled
from scg.core.axes import contraction
from scg.core.node import Node, Numeric, Value
from scg.core.options import is_integer
from scg.core.primitive import primitive
from scg.distributions.base import Distribution, FiniteSupport, FixedSupport, Shape
from scg.distributions.constraints import Constraint, Truth, Vector, finite, one_hot
from scg.distributions.discrete import numbers
from scg.distributions.subset import Picks
from scg.distributions.weak import real_array
from scg.errors import ScgValueError, here


def _completed(order: np.ndarray, n: int) -> np.ndarray:
    """An order of some of n things and, after it, the others as they come."""
    found = np.ones((*order.shape[:-1], n), bool)
    np.put_along_axis(found, order, False, -1)
    rest = np.argsort(~found, axis=-1, kind="stable")[..., : n - order.shape[-1]]
    return np.concatenate([order, rest], axis=-1)


completed = primitive(_completed, contraction("k->n"), name="completed_order", steps=False)
"""An order of the first places, with the things that it leaves out after them."""


def sums_to_the_last(x: Value) -> Value:
    """log sum_{j >= i} exp(x_j) along the last axis, by doubling steps: the largest of each sum is never lost."""
    step = 1
    while step < x.shape[-1]:
        x = np.concatenate([np.logaddexp(x[..., :-step], x[..., step:]), x[..., -step:]], axis=-1)
        step *= 2
    return x


@final
@dataclass(frozen=True, eq=False, repr=False)
class PlackettLuce(Picks):
    """The first ``size`` (None: all) of n things in the order of a race: p(z) = prod_i exp(l_{z_i}) / sum_{j not in
    z_1, ..., z_{i-1}} exp(l_j), l = ``logits`` along the last axis (Luce, 1959; Plackett, 1975).

    The first is drawn by softmax(l), the second from those that are left, and so on; a constant added to all logits
    changes nothing. Samples are the places of the largest keys l + g in falling order, g Gumbel noise (Yellott, 1977):
    integers (int64) of shape (size,). log p is computed by sums from the last place to the first, in log space, O(n log
    n); its derivative by l_j is 1[j in z] - sum_i p(j is next, given the places before i).

    Raises ScgValueError where the size is no integer from 1 to n; logits are finite.
    """

    logits: Value
    size: int | None = None
    constraints = {"logits": Vector(finite)}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size is not None and not (is_integer(self.size, 1) and self.size <= self.population):
            raise ScgValueError(
                f"PlackettLuce: size must be None, or an integer from 1 to {self.population}, got {self.size!r}"
                f" ({here()})"
            )

    @property
    def population(self) -> int:
        """n, of how many things this is an order."""
        return int(self.logits.shape[-1])

    @property
    def places(self) -> int:
        """How many places of the order are drawn."""
        return self.population if self.size is None else int(self.size)

    def count(self) -> int:
        return math.perm(self.population, self.places)

    def atoms(self) -> np.ndarray:
        found = np.array(list(permutations(range(self.population), self.places)), np.int64)
        return found.reshape(-1, *[1] * len(self.batch_shape), self.places)

    def sample(self, rng: np.random.Generator, shape: int | Shape = ()) -> np.ndarray:
        l = np.asarray(self.detached().logits, float)
        times = rng.standard_exponential((*self.full_shape(shape)[:-1], self.population))
        keys = np.log(times) - l  # of falling Gumbel keys, with the other sign
        k = self.places
        if k == self.population:
            return np.argsort(keys, axis=-1)
        first = np.argpartition(keys, k, axis=-1)[..., :k]
        return np.take_along_axis(first, np.argsort(np.take_along_axis(keys, first, -1), axis=-1), -1)

    def log_prob(self, value: Numeric) -> Value:
        value, n = real_array(self._events(value)), self.population
        if type(value) is Node and value.dtype.kind == "i":  # integers are nodes only as samples, which are orders
            return self._at(value)
        raw = np.asarray(getattr(value, "raw", value))
        known = (raw >= 0) & (raw < n) & (raw == np.floor(raw))
        order = np.where(known, raw, 0).astype(np.int64)
        good = np.all(known, axis=-1) & np.all(np.diff(np.sort(order, axis=-1), axis=-1) > 0, axis=-1)
        first = np.where(good[..., None], order, np.arange(self.places))
        return np.where(np.any(raw != raw, axis=-1), math.nan, np.where(good, self._at(first), -math.inf))

    def _at(self, order: Value) -> Value:
        n, k = self.population, self.places
        l = np.broadcast_to(self.logits, (*np.broadcast_shapes(order.shape[:-1], self.batch_shape), n))
        whole = np.broadcast_to(completed(order, n=n) if k < n else order, l.shape)
        own = np.take_along_axis(l, whole, -1)
        return np.sum((own - sums_to_the_last(own))[..., :k], axis=-1)


@dataclass(frozen=True)
class Places(Constraint):
    """Matrices of zeros and ones with a single one in each row, and at most one in each column."""

    event_ndim = 2

    def contains(self, x: Numeric) -> Truth:
        x = np.asarray(x)
        return np.all(one_hot.contains(x), axis=-1) & np.all(x.sum(axis=-2) <= 1, axis=-1)

    def __str__(self) -> str:
        return "one-hot along the last axis, no two rows alike"


@final
@dataclass(frozen=True, eq=False, repr=False)
class OneHotPlackettLuce(Distribution, FiniteSupport, FixedSupport):
    """The same order as a matrix P of zeros and ones, of shape (size, n): P_ij = 1 where j comes at place i. P @ x are
    the elements of x in this order. Samples have the dtype of the logits.

    Between zeros and ones costs have values as well, which ``REBAR`` looks at. log p(P) is -inf where P is no such
    matrix; it has steps between them.
    """

    logits: Value
    size: int | None = None
    constraints = {"logits": Vector(finite)}
    support = Places()  # type: ignore[assignment]

    def __post_init__(self) -> None:
        super().__post_init__()
        self.order  # noqa: B018 (it checks the size)

    @property
    def order(self) -> PlackettLuce:
        """The distribution of the order as integers."""
        return PlackettLuce(self.logits, self.size)

    @property
    def population(self) -> int:
        """n, of how many things this is an order."""
        return int(self.logits.shape[-1])

    @property
    def event_shape(self) -> Shape:
        return (self.population if self.size is None else int(self.size), self.population)

    def count(self) -> int:
        return self.order.count()

    def atoms(self) -> np.ndarray:
        return self._matrices(self.order.atoms())

    def sample(self, rng: np.random.Generator, shape: int | Shape = ()) -> np.ndarray:
        return self._matrices(self.order.sample(rng, shape))

    def _matrices(self, order: np.ndarray) -> np.ndarray:
        return (order[..., None] == np.arange(self.population)).astype(self.dtype)

    def log_prob(self, value: Numeric) -> Value:
        value = numbers(self._events(value), self.dtype)
        if settled(self.support.holds, value):
            return self.order.log_prob(np.argmax(value, axis=-1))
        good, missing = self.support.contains(getattr(value, "raw", value)), np.any(value != value, axis=(-2, -1))
        order = np.where(np.asarray(good)[..., None], np.argmax(value, axis=-1), np.arange(self.event_shape[0]))
        return np.where(missing, math.nan, np.where(good, self.order.log_prob(order), -math.inf))
