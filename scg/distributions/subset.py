"""Subsets of a given size: what their distributions share, and the uniform one."""

import itertools
import math
from dataclasses import dataclass
from typing import final

import numpy as np

from scg.core.node import Node, Numeric, Value
from scg.core.operands import described
from scg.core.options import is_integer
from scg.distributions.base import Discrete, Distribution, FiniteSupport, FixedSupport, Shape
from scg.distributions.constraints import Constraint, Integers
from scg.errors import ScgValueError, here


class Picks(Distribution, FiniteSupport, FixedSupport):
    """A distribution over ``places`` different numbers of 0, ..., ``population`` - 1."""

    @property
    def population(self) -> int:
        """How many elements there are to take."""
        raise NotImplementedError

    @property
    def places(self) -> int:
        """How many are taken."""
        raise NotImplementedError

    @property
    def event_shape(self) -> Shape:
        return (self.places,)

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.int64)

    @property
    def support(self) -> Constraint:
        return Integers(0, self.population - 1)


class OfSubsets(Picks):
    """A distribution over subsets of 0, ..., ``population`` - 1 of ``size`` elements, in increasing order."""

    size: int

    @property
    def places(self) -> int:
        return self.size

    def count(self) -> int:
        return math.comb(self.population, self.size)

    def table(self) -> np.ndarray:
        """All subsets, of shape (count, size)."""
        return np.array(list(itertools.combinations(range(self.population), self.size)), np.int64)


@final
@dataclass(frozen=True, eq=False, repr=False)
class UniformSubset(OfSubsets, Discrete):
    """``size`` of the numbers 0, ..., n - 1 without replacement, in increasing order: p(z) = 1 / C(n, size). It has no
    parameters."""

    n: int
    size: int

    def __post_init__(self) -> None:
        for name in ("n", "size"):
            value = getattr(self, name)
            if not is_integer(value, 1):
                way = ": write len(data)" if np.ndim(value) else ""
                raise ScgValueError(
                    f"UniformSubset: {name} must be a positive integer, got {described((value,))}{way} ({here()})"
                )
        if self.size > self.n:
            raise ScgValueError(f"UniformSubset: size must be at most n={self.n}, got {self.size} ({here()})")
        object.__setattr__(self, "_batch_shape", ())

    @property
    def population(self) -> int:
        """n."""
        return int(self.n)

    def sample(self, rng: np.random.Generator, shape: int | Shape = ()) -> np.ndarray:
        shape = self.full_shape(shape)
        rows = [
            np.sort(rng.choice(self.n, self.size, replace=False, shuffle=False)) for _ in range(math.prod(shape[:-1]))
        ]
        return np.array(rows, np.int64).reshape(shape)

    def atoms(self) -> np.ndarray:
        return self.table()

    def log_prob(self, value: Numeric) -> Value:
        total = math.lgamma(self.n - self.size + 1) + math.lgamma(self.size + 1) - math.lgamma(self.n + 1)
        value = self._events(value)
        if type(value) is Node:  # integers are nodes only as samples, and samples are subsets
            return np.full(value.shape[:-1], total)
        inside = np.all((value >= 0) & (value < self.n), axis=-1) & np.all(value[..., 1:] > value[..., :-1], axis=-1)
        return np.where(inside, total, -math.inf)
