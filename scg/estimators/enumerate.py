"""Summing over all values of a draw."""

from typing import Any, final

import numpy as np

from scg.axes import padded
from scg.distributions.base import FiniteSupport
from scg.estimator import Estimator
from scg.primitives.layout import stop_gradient
from scg.surrogate import Downstream


@final
class Enumerate(Estimator):
    """Enumeration: d/dt E[f(z)] = sum_k d/dt p(k; t) E[f(z) | z = k], exact in this draw.

    K evaluations of the costs that the draw influences for K values; where costs mix n elements of the draw, each element in turn with the others
    as drawn: n K evaluations ("local expectation gradients", Titsias and Lazaro-Gredilla, 2015).
    """

    requires = (FiniteSupport,)
    instead = "ScoreFunction() or Reparameterized()"

    def expand(self, down: Downstream) -> Any:
        if not down.influences:
            return None
        distribution = down.distribution
        atoms = padded(distribution.atoms(), down.node.ndim)  # type: ignore[attr-defined]
        atoms = np.broadcast_to(atoms, (len(atoms), *down.node.shape))
        p = np.exp(distribution.log_prob(atoms))
        return np.sum((p - stop_gradient(p)) * down.one_by_one(atoms))
