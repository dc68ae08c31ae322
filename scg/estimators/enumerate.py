"""Summing over all values of a sample, or over the most probable ones."""

from typing import final

import numpy as np

from scg.core.aliases import Result
from scg.core.axes import padded
from scg.core.node import Value
from scg.core.options import is_integer
from scg.distributions.base import FiniteSupport, atoms_of
from scg.distributions.categorical import Categorical
from scg.errors import ScgValueError, here
from scg.stochastic.estimator import Accounted, Elsewhere
from scg.stochastic.formulas import held
from scg.stochastic.sites import Site, place
from scg.stochastic.surrogate import Downstream


@final
class Enumerate(Elsewhere):
    """Enumeration: d/dt E[f(z)] = sum_k d/dt p(k; t) E[f(z) | z = k], exact in this sample.

    K evaluations of the costs that the sample influences for K values; where costs mix n elements of the sample, each
    element in turn with the others as drawn: n K evaluations ("local expectation gradients", Titsias and
    Lazaro-Gredilla, 2015).

    ``Enumerate(k)`` sums over the set C of the k most probable values and draws one of the rest, v with probability
    q(v) = p(v) / (1 - p(C)):

        sum_{u in C} f(u) d/dt p(u; t) + f(v) d/dt p(v; t) / q(v),

    k + 1 evaluations (Liu et al., 2019, "Rao-Blackwellized stochastic gradients for discrete distributions").

    It is the gradient of this node's distribution that is summed: what flows from the costs to other parameters comes
    from the one sample that was drawn. To sum the whole gradient write the mean as the cost, ``np.sum(p * f)`` with f
    at all values.
    """

    requires = (FiniteSupport,)
    second_derivatives = True
    offered = 4

    def __init__(self, k: int | None = None, *, coupled: bool = True):
        super().__init__(coupled=coupled)
        if k is not None and not is_integer(k, 1):
            raise ScgValueError(
                f"Enumerate: k must be an integer of at least 1, or None for all values, got {k!r} ({here()})"
            )
        self.k = k

    def expand(self, down: Downstream) -> Value | None:
        if not down.influences:
            return None
        atoms, p = listed(down)
        if self.k is None or self.k >= len(atoms) - 1:
            return np.sum((p - held(p)) * down.one_by_one(atoms))
        chances = held(p) if down.graph else p.raw
        order = np.argsort(-chances, axis=0, kind="stable")
        top, rest = order[: self.k], order[self.k :]
        left = np.take_along_axis(chances, rest, axis=0)
        mass = np.sum(left, axis=0)
        # where nothing is left all are as good
        q = np.where(mass > 0, left / np.where(mass > 0, mass, 1), 1 / len(atoms[self.k :]))
        pick: Result = place(Site(Categorical(probs=np.moveaxis(q, 0, -1)), Accounted(), down.rng, (), None))
        pick = (pick if down.graph else pick.raw)[None]
        chosen = np.concatenate([top, np.take_along_axis(rest, pick, axis=0)])
        weight = np.concatenate([np.ones(top.shape, p.dtype), 1 / np.take_along_axis(q, pick, axis=0)])
        p = np.take_along_axis(p, chosen, axis=0)
        return np.sum((p - held(p)) * weight * down.one_by_one(values_at(atoms, chosen, down)))


def listed(down: Downstream) -> tuple[np.ndarray, Result]:
    """All values of the sample, of shape (K,) + its shape, and their probabilities, of shape (K,) + its batch shape."""
    atoms = padded(atoms_of(down.distribution), down.node.ndim)
    atoms = np.broadcast_to(atoms, (len(atoms), *down.node.shape))
    p = down.distribution.masses(atoms)
    return atoms, np.broadcast_to(p, (len(atoms), *down.shape))


def values_at(atoms: np.ndarray, chosen: Value, down: Downstream) -> Value:
    """The values of numbers ``chosen``, of shape (n,) + batch shape: of shape (n,) + the sample's shape."""
    return np.take_along_axis(atoms, np.reshape(chosen, (*chosen.shape, *[1] * down.site.event_ndim)), axis=0)
