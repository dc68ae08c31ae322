"""Coupled pairs: several samples, drawn so that they differ, and their differences of cost."""

from typing import final

import numpy as np

from scg.core.node import Value
from scg.core.options import is_integer
from scg.distributions.base import FiniteSupport, FixedSupport
from scg.distributions.categorical import Categorical
from scg.errors import ScgValueError, here
from scg.estimators.enumerate import listed, values_at
from scg.estimators.tools import constant, sampled
from scg.stochastic.estimator import Elsewhere
from scg.stochastic.formulas import first_order, held
from scg.stochastic.surrogate import Downstream

COUPLINGS = ("dirichlet", "antithetic")
MOST = 16  # samples: the sums with alternating signs below lose a digit for each three of them


@final
class CoupledPairs(Elsewhere):
    """d/dt E[f(z)] = E[mean over pairs i < j of rho_ij (f(z_i) - f(z_j)) (s_i - s_j) / 2], s_i = d/dt log p(z_i; t),
    rho_ij = p(z_i) p(z_j) / p(z_i, z_j): ARMS for coins, CARMS for categories (Dimitriev and Zhou, 2021).

    Each sample has the distribution of z, and the samples of one element avoid one another. rho turns the mean over the
    pair into that over two independent samples, for which (f - f') (s - s') / 2 has the covariance of f and s as its
    mean, the gradient. Pairs that agree add nothing, so p(z_i, z_j) is needed for values that differ. ``samples``
    evaluations of the cost, with all elements of the sample at once. For elements with finitely many values. First
    derivatives only.

    A value is the end of a walk along its K values, the rare ones first: at value k the walk ends with probability
    q_k = p_k / (p_k + p_{k+1} + ...), and the walks that have come so far toss coupled coins there.

    "dirichlet"    coin i is 1 where d_i > x = 1 - q^{1/(n-1)}, (d_1 ... d_n) uniform on the simplex, so that P(a given
                   coins are all 1) = max(0, 1 - a x)^{n-1}
    "antithetic"   samples come in pairs (two coins are 1 together with probability max(0, 2q - 1)), and pairs are
                   independent of one another; an even number of samples

    Two samples of a coin are DisARM, with either coupling.
    """

    second_derivatives = False
    requires = (FiniteSupport, FixedSupport)
    partner = True

    def __init__(self, samples: int = 2, coupling: str = "dirichlet", *, coupled: bool = True):
        super().__init__(coupled=coupled)
        if not is_integer(samples, 2) or samples > MOST:
            raise ScgValueError(
                f"CoupledPairs: samples must be an integer from 2 to {MOST}, got {samples!r} ({here()})"
            )
        if coupling not in COUPLINGS:
            raise ScgValueError(
                f"CoupledPairs: coupling must be {' or '.join(map(repr, COUPLINGS))}, got {coupling!r} ({here()})"
            )
        if coupling == "antithetic" and samples % 2:
            raise ScgValueError(f"CoupledPairs: antithetic samples come in pairs, got {samples} samples ({here()})")
        self.samples, self.coupling = int(samples), coupling

    def expand(self, down: Downstream) -> Value | None:
        if not down.influences:
            return None
        atoms, p = listed(down)
        # (K, batch) -> (batch, K), the rare values first: then walks part with a positive probability wherever two can
        chances = np.moveaxis(constant(down, p), 0, -1)
        chances = chances.astype(np.float64)
        order = np.argsort(chances, axis=-1, kind="stable")
        chances = np.take_along_axis(chances, order, axis=-1)
        left = np.flip(np.cumsum(np.flip(chances, -1), axis=-1), -1)[..., :-1]
        q = np.where(left > 0, chances[..., :-1] / np.where(left > 0, left, 1), 1.0)
        walks = [_place(down, atoms, order)]
        for j in range(1, self.samples):
            near = walks if self.coupling == "dirichlet" else walks[j - 1 :] if j % 2 else []
            walks.append(constant(down, sampled(down, Categorical(probs=_ends(self.ending(q, near))))))
        # of shape (n, batch); the sample itself comes first
        z = np.stack(walks)
        number = np.take_along_axis(np.moveaxis(order, -1, 0), z, axis=0)
        values = values_at(atoms, number, down)
        f = np.broadcast_to(down.at(values), z.shape)
        weights = [
            sum(
                [
                    self.ratio(q, walks[i], walks[j], self._coupled(i, j)) * (f[i] - f[j])
                    for j in range(self.samples)
                    if j != i
                ]
            )
            for i in range(self.samples)
        ]
        scores = down.distribution.log_prob(held(values))
        pairs = self.samples * (self.samples - 1)
        return np.sum(first_order(scores, np.stack(weights).astype(scores.dtype) / pairs))

    def _coupled(self, i: int, j: int) -> bool:
        return self.coupling == "dirichlet" or i // 2 == j // 2

    def _joint(self, q: Value, ones: Value | float, zeros: Value | float) -> Value:
        """P(the given coins are 1, the others given are 0) = sum_m (-1)^m C(zeros, m) P(ones + m given coins are 1);
        counts of the shape of ``q``."""
        n = self.samples if self.coupling == "dirichlet" else 2
        x = 1 - q ** (1 / (n - 1))
        total, choose = np.zeros(np.shape(q)), np.ones(np.shape(q))
        for m in range(n + 1):
            total = total + choose * np.maximum(1 - (ones + m) * x, 0) ** (n - 1)
            choose = -choose * (zeros - m) / (m + 1)  # (-1)^m C(zeros, m), zero from m = zeros + 1 on
        return np.clip(total, 0, 1)

    def ending(self, q: Value, before: list[Value]) -> Value:
        """For each value but the last the probability that a further walk ends there, given that it comes so far and
        where the walks ``before`` have ended: (batch, K - 1)."""
        k = np.arange(q.shape[-1])
        ones = sum([(w[..., None] == k).astype(np.float64) for w in before], np.zeros(np.shape(q)))
        zeros = sum([(w[..., None] > k).astype(np.float64) for w in before], np.zeros(np.shape(q)))
        both, given = self._joint(q, ones + 1, zeros), self._joint(q, ones, zeros)
        return np.where(given > 0, np.minimum(both / np.where(given > 0, given, 1), 1), q)

    def ratio(self, q: Value, a: Value, b: Value, coupled: bool = True) -> Value:
        """rho where the values differ, else 0: prod_{k < c} (1 - q_k)^2 / P(0, 0)_k times q_c (1 - q_c) / P(1, 0)_c, c
        the earlier of the two ends."""
        differ = (a != b).astype(np.float64)
        if not coupled:
            return differ
        unequal, neither = self._joint(q, 1.0, 1.0), self._joint(q, 0.0, 2.0)
        passed = (1 - q) ** 2 / np.where(neither > 0, neither, 1)
        before = np.concatenate([np.ones(np.shape(q[..., :1])), np.cumprod(passed, axis=-1)[..., :-1]], axis=-1)
        table = before * q * (1 - q) / np.where(unequal > 0, unequal, 1)
        c = np.minimum(np.minimum(a, b), q.shape[-1] - 1)[..., None]
        return differ * np.take_along_axis(table, c, axis=-1)[..., 0]


def _place(down: Downstream, atoms: np.ndarray, order: np.ndarray) -> Value:
    """Where the sample stands among the values in ``order``, (batch, K) -> (batch,)."""
    event = tuple(range(-down.site.event_ndim, 0))
    same = constant(down, down.node) == atoms
    match = np.moveaxis(np.all(same, axis=event) if event else same, 0, -1)
    ordered = np.take_along_axis(match, order, axis=-1)
    return np.sum(ordered * np.arange(len(atoms)), axis=-1)


def _ends(ending: Value) -> Value:
    """(batch, K - 1) -> (batch, K): the probability of each value as the end of a walk."""
    one = np.ones(np.shape(ending[..., :1]))
    going = np.cumprod(1 - ending, axis=-1)
    return np.concatenate([one, going], axis=-1) * np.concatenate([ending, one], axis=-1)
