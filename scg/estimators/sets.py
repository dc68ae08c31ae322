"""Sampling without replacement: a set of distinct values of a discrete sample."""

from dataclasses import dataclass
from typing import final

import numpy as np

from scg.core.aliases import Result
from scg.core.node import Numeric, Value
from scg.core.options import is_integer
from scg.distributions.base import FiniteSupport, Shape
from scg.distributions.constraints import simplex
from scg.distributions.subset import OfSubsets
from scg.distributions.weak import real_array
from scg.errors import ScgValueError, here
from scg.estimators.enumerate import listed, values_at
from scg.stochastic.estimator import Accounted, Elsewhere
from scg.stochastic.formulas import held
from scg.stochastic.sites import Site, place
from scg.stochastic.surrogate import Downstream

MOST = 10
"""The largest set: p(S) sums over the 2^k orders in which parts of S can come first."""


@final
class UnorderedSet(Elsewhere):
    """The unordered-set estimator with its built-in baseline (Kool, van Hoof and Welling, 2020): S, k distinct values
    drawn without replacement,

        sum_{s in S} R(S, s) d/dt p(s; t) (f(s) - b(S, s)),   R(S, s) = p(S \\ s without s) / p(S),
        b(S, s) = p(s) f(s) + sum_{s' in S \\ s} p(s') p(S \\ {s, s'} without s and s') / p(S \\ s without s) f(s'),

    R(S, s) the leave-one-out ratio, and E[b | s first] = E[f] whatever s is. k evaluations of the costs, all of them
    different; with k = K it is enumeration. Exact ratios, by a sum over the 2^k subsets of S.
    """

    requires = (FiniteSupport,)
    second_derivatives = True

    def __init__(self, k: int, *, coupled: bool = True):
        super().__init__(coupled=coupled)
        if not is_integer(k, 2, MOST):
            raise ScgValueError(f"UnorderedSet: k must be an integer from 2 to {MOST}, got {k!r} ({here()})")
        self.k = int(k)

    def expand(self, down: Downstream) -> Value | None:
        if not down.influences:
            return None
        atoms, p = listed(down)
        q = np.moveaxis(held(p) if down.graph else p.raw, 0, -1)
        # any distribution with full support draws sets that are as right, so that values of probability zero need no
        # care
        proposal = np.maximum(q, float(np.finfo(p.dtype).eps) ** 2)
        proposal = proposal / np.sum(proposal, axis=-1, keepdims=True)
        distribution = WithoutReplacement(proposal, min(self.k, len(atoms)))
        drawn: Result = place(Site(distribution, Accounted(), down.rng, (), None))
        drawn = drawn if down.graph else drawn.raw
        chosen = np.moveaxis(drawn, -1, 0)
        f = down.one_by_one(values_at(atoms, chosen, down))
        q, after = distribution.orders(drawn)
        k = distribution.size
        terms = []
        for s in range(k):
            b = q[s] * f[s] + sum(q[t] * after[1 << s | 1 << t] * f[t] for t in range(k) if t != s) / after[1 << s]
            terms.append(after[1 << s] / after[0] * (f[s] - held(b)))
        p = np.take_along_axis(p, chosen, axis=0)
        return np.sum((p - held(p)) * np.stack(terms))


@final
@dataclass(frozen=True, eq=False, repr=False)
class WithoutReplacement(OfSubsets):
    """``size`` distinct numbers from 0, ..., K - 1, in increasing order, drawn one after the other by ``probs`` among
    those that are left."""

    probs: Value
    size: int
    constraints = {"probs": simplex}

    @property
    def population(self) -> int:
        """K."""
        return int(self.probs.shape[-1])

    def atoms(self) -> np.ndarray:
        table = self.table()
        return table.reshape(len(table), *[1] * len(self.batch_shape), self.size)

    def sample(self, rng: np.random.Generator, shape: int | Shape = ()) -> np.ndarray:
        """The ``size`` largest of log p + Gumbel noise."""
        shape = (*self.full_shape(shape)[:-1], self.population)
        keys = np.log(self.detached().probs) + rng.gumbel(size=shape)
        return np.sort(np.argsort(-keys, axis=-1)[..., : self.size], axis=-1)

    def log_prob(self, value: Numeric) -> Value:
        return np.log(self.orders(real_array(value))[1][0])

    def orders(self, value: Value) -> tuple[list[Value], dict[int, Value]]:
        """p(s) for each s in S, and for each subset T of S (bits) the probability that, T being gone, the rest of S
        comes next, in any order."""
        hot = value[..., None] == np.arange(self.population)
        inside = np.sum(np.where(hot, self.probs[..., None, :], 0), axis=-1)
        outside = np.sum(np.where(np.any(hot, axis=-2), 0, self.probs), axis=-1)
        p = [inside[..., s] for s in range(self.size)]
        everything = (1 << self.size) - 1
        after: dict[int, Value] = {everything: np.ones_like(outside)}
        for gone in range(everything - 1, -1, -1):
            rest = [s for s in range(self.size) if not gone >> s & 1]
            mass = outside + sum(p[s] for s in rest)
            after[gone] = sum(p[s] * after[gone | 1 << s] for s in rest) / mass
        return p, after
