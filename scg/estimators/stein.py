"""RODEO: a surrogate of the cost made of the other samples, and its mean over each element by a discrete Stein
operator."""

from collections.abc import Callable
from typing import final

import numpy as np

from scg.core.aliases import Function, Result, Tree
from scg.core.node import Value
from scg.core.options import is_integer
from scg.core.tree import leaves
from scg.distributions.base import Distribution, FiniteSupport, FixedSupport
from scg.errors import EstimatorError, ScgTypeError, ScgValueError, here
from scg.estimators.enumerate import listed
from scg.estimators.tools import constant, without_mean
from scg.estimators.trained import Trained
from scg.stochastic.formulas import first_order, held
from scg.stochastic.surrogate import Downstream

Surrogate = Callable[[Tree, Value, Value], Value]


@final
class RODEO(Trained):
    """RODEO: d/dt E[f(z)] = E[(1/n) sum_k (f(z_k) s(z_k) + A(u_k s)(z_k))], s = d log p / dt, A a discrete Stein
    operator (Shi et al., 2022, "Gradient estimation with discrete Stein operators").

    A(g)(z) = sum_v p(v) g(v) - g(z) for one element with the values v, the others as drawn (Gibbs): its mean is zero
    whatever g, as E[g(z)] is subtracted from itself. So the mean of the gradient is exact for any u_k that is not made
    of z_k. Here, with m = E[z],

        u_k(y) = h_k(y) - h_k(m) + mean_{j != k} (f(z_j) + sum_i A_i(h_j)(z_j)),
        h_k(y) = mean_{j != k} H(f(z_j), f'(z_j) (y - z_j)),

    A_i the operator for element i: f is compared with a surrogate that the other samples make, whose mean over the
    element is a sum over its values, and with the surrogate's level. ``samples`` evaluations of the cost and of its
    slope, none at the values v. Barker's operator, sum_v p(v) / (p(v) + p(z)) (g(v) - g(z)), is the same for a coin.

    ``surrogate`` is H: a function of (``parameters``, f, d) that treats elements alike, and returns an array of the
    shape of d. None: a d + b |d| with parameters "slope" a, at first 1, and "bend" b, at first 0, the tangent: it
    leaves nothing of a cost that is linear, and the estimate is that of ``DoubleControlVariate(samples)``.
    ``optimizer``, a function of the parameters such as ``functools.partial(scg.optim.Adam, learning_rate=1e-3)``,
    trains them by the gradient of g^2 (for the logits) after each use, as in ``RELAX``: replicates of a graph measure
    the estimator as it stood at first. For samples of finitely many values with a mean (Bernoulli, OneHotCategorical);
    the cost must accept what lies between the values. First derivatives only.

    H is a function of the cost and its slope at one value, and what multiplies it is one of z_1 ... z_n: as in
    ``DoubleControlVariate`` the mean is exact where samples further down share their randomness (``coupled``).
    """

    requires = (FiniteSupport, FixedSupport)

    def __init__(
        self,
        samples: int = 2,
        surrogate: Surrogate | None = None,
        parameters: Tree = (),
        optimizer: Function | None = None,
        *,
        coupled: bool = True,
    ):
        if not is_integer(samples, 2):
            raise ScgValueError(f"RODEO: samples must be an integer of at least 2, got {samples!r} ({here()})")
        if surrogate is not None and not callable(surrogate):
            raise ScgTypeError(
                f"RODEO: surrogate must be None or a function of (parameters, f, d), got {surrogate!r} ({here()})"
            )
        if surrogate is None and list(leaves(parameters)):
            raise ScgValueError(f"RODEO: parameters are those of a surrogate, and there is none ({here()})")
        if surrogate is None:
            surrogate, parameters = bent, {"slope": np.array(1.0), "bend": np.array(0.0)}
        super().__init__(parameters, optimizer, coupled)
        self.samples, self.surrogate = int(samples), surrogate

    def objection(self, distribution: Distribution) -> str:
        return super().objection(distribution) or without_mean(distribution)

    def expand(self, down: Downstream) -> Value | None:
        if not down.influences:
            return None
        n, (phi, trains) = self.samples, self.trained(down)
        atoms, p = listed(down)
        draws, mass = down.with_others(n - 1), constant(down, p)
        x, mean = constant(down, draws), constant(down, np.broadcast_to(down.distribution.mean, down.node.shape))
        rank = len(down.shape)
        event = tuple(range(rank - x.ndim + 1, 0))
        same = np.eye(n, dtype=bool).reshape(n, n, *[1] * rank)

        def others(h: Value) -> Result:  # (..., k, j, batch) -> (..., k, batch): the mean over j != k
            return np.sum(np.where(same, 0, h), axis=-rank - 1) / (n - 1)

        left: Result = 0  # f(z_k) - u_k(z_k)
        near: Result = 0  # u_k(v), of shape (values, n, batch)
        for axes, parts in down.mixing().items():
            terms, slope = down.sloped(x, parts)
            f = down.total(terms, 1, parts)

            def along(step: Value, slope: Value = slope) -> Result:
                return np.sum(slope * step, axis=event)

            def all_of(d: Value, axes: tuple[int, ...] = axes) -> Result:
                return np.sum(d, axis=tuple(axis - rank for axis in axes), keepdims=True)

            own = all_of(along(x[:, None] - x))  # by k, j
            moved = along(atoms[:, None, None] - x[:, None])
            level = self._h(phi, f, all_of(along(mean - x)))
            h, h_near = (others(self._h(phi, f, d) - level) for d in (own, own + moved))
            stein = all_of(np.sum(mass[:, None] * (h_near - h), axis=0))
            g = f + stein
            base = (np.sum(g, axis=0, keepdims=True) - g) / (n - 1)
            left, near = left + f - h - base, near + h_near + base
        near = np.mean(near, axis=1)
        if trains:
            equal = x == atoms[:, None]
            by_p = np.sum(np.where(np.all(equal, axis=event), left / n, 0), axis=1) / np.where(mass > 0, mass, 1) + near
            self.learn(down, phi, mass * (by_p - np.sum(mass * by_p, axis=0)))
            left, near = left.raw, near.raw
        return np.sum(first_order(down.distribution.log_prob(held(draws)), left / n)) + np.sum(first_order(p, near))

    def _h(self, phi: Tree, f: Value, d: Value) -> Value:
        d = np.broadcast_to(
            d, np.broadcast_shapes(f.shape, d.shape)
        )  # f is zero for elements that it does not depend on
        h = self.surrogate(phi, f, d)
        if np.shape(h) != np.shape(d):
            raise EstimatorError(
                f"RODEO: surrogate(parameters, f, d) must return an array of the shape of d, {np.shape(d)}, got"
                f" {np.shape(h)} ({here()})"
            )
        return h.astype(d.dtype)

    def __repr__(self) -> str:
        surrogate = getattr(self.surrogate, "__name__", self.surrogate)
        return f"RODEO(samples={self.samples}, surrogate={surrogate}{self._anew})"


def bent(parameters: Tree, f: Value, d: Value) -> Result:
    """a d + b |d|: a tangent with one slope for rises and another for falls, on the scale of d."""
    return parameters["slope"] * d + parameters["bend"] * abs(d)
