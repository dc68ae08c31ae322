"""Which particles go on: the distributions of ancestors."""

import math
from dataclasses import dataclass
from itertools import combinations_with_replacement, product
from typing import final

import numpy as np

from scg.core.node import Numeric, Value
from scg.distributions.base import Distribution, FiniteSupport, Shape
from scg.distributions.categorical import Logits
from scg.distributions.constraints import Constraint, Integers
from scg.distributions.discrete import log
from scg.distributions.weak import real_array
from scg.special import softmax

SCHEMES = ("systematic", "multinomial")


@final
@dataclass(frozen=True, eq=False, repr=False)
class Ancestors(Distribution, FiniteSupport):
    """Of K particles with weights W = softmax(``log_weights``) along the last axis, those from which the next K come:
    integers, K of them, each j with a mean number of K W_j.

    "multinomial": independent ones, p(a) = prod_k W_{a_k}. "systematic": one uniform number u, and a_k the first j with
    W_1 + ... + W_j > (k + u) / K: less noise, and a_k that depend on one another (Carpenter, Clifford and Fearnhead,
    1999); p(a) is the length of the interval of the u that lead to a.

    Where the effective sample size 1 / sum W_j^2 is at least ``threshold`` times K, and that is less than 1, every
    particle goes on as it is: then a_k = K + k, which says so.
    """

    log_weights: Value
    scheme: str = "systematic"
    threshold: float = 1.0
    constraints = {"log_weights": Logits()}

    @property
    def particles(self) -> int:
        """K."""
        return int(self.log_weights.shape[-1])

    @property
    def event_shape(self) -> Shape:
        return (self.particles,)

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.int64)

    @property
    def support(self) -> Constraint:
        return Integers(0, 2 * self.particles - 1)

    def sample(self, rng: np.random.Generator, shape: int | Shape = ()) -> np.ndarray:
        k, full = self.particles, self.full_shape(shape)
        w = np.asarray(softmax(self.detached().log_weights, -1), float)
        stays = np.array(self.threshold < 1) & (k * self.threshold * np.sum(w**2, axis=-1, keepdims=True) <= 1)
        sums = np.cumsum(w, axis=-1)
        sums = np.broadcast_to(sums / sums[..., -1:], full).reshape(-1, k)  # the last of them exactly 1
        if self.scheme == "systematic":
            u = rng.random((len(sums), 1))
            ends = np.ceil(k * sums - u).astype(np.int64)  # how many of the (k + u) / K lie below each sum
            ends[:, -1] = k
            counts = np.diff(ends, axis=-1, prepend=0)
            found = np.repeat(np.tile(np.arange(k), len(sums)), counts.reshape(-1)).reshape(full)
        else:
            u = rng.random((len(sums), k))
            found = np.stack([np.searchsorted(s, x, side="right") for s, x in zip(sums, u, strict=True)]).reshape(full)
        return np.where(stays, k + np.arange(k), found)

    def atoms(self) -> np.ndarray:
        k = self.particles
        if self.scheme == "systematic":
            found = list(combinations_with_replacement(range(k), k))
        else:
            found = list(product(range(k), repeat=k))
        rows = np.array([*found, *([range(k, 2 * k)] if self.threshold < 1 else [])], np.int64)
        return rows.reshape(-1, *[1] * len(self.batch_shape), k)

    def count(self) -> int:
        k = self.particles
        return (math.comb(2 * k - 1, k) if self.scheme == "systematic" else k**k) + (self.threshold < 1)

    def masses(self, value: Numeric) -> Value:
        k, value = self.particles, real_array(self._events(value))
        w = softmax(self.log_weights, -1)
        chosen = np.equal(value[..., None], np.arange(k))
        if self.scheme == "multinomial":
            p = np.prod(np.sum(np.where(chosen, w[..., None, :], 0), axis=-1), axis=-1)
        else:
            upper, place = np.cumsum(w, axis=-1), np.arange(k, dtype=w.dtype)
            ends = k * np.sum(np.where(chosen, upper[..., None, :], 0), axis=-1) - place
            starts = k * np.sum(np.where(chosen, (upper - w)[..., None, :], 0), axis=-1) - place
            p = np.maximum(np.minimum(np.min(ends, axis=-1), 1) - np.maximum(np.max(starts, axis=-1), 0), 0)
            p = np.where(np.all(np.any(chosen, axis=-1), axis=-1), p, 0)
        if self.threshold == 1:
            return p
        stays = k * self.threshold * np.sum(w**2, axis=-1) <= 1
        as_it_is = np.all(np.equal(value, k + np.arange(k)), axis=-1)
        return np.where(stays, as_it_is.astype(p.dtype), p)

    def log_prob(self, value: Numeric) -> Value:
        return log(self.masses(value))
