"""What exact results are: values, means and variances, distributions; and the defaults of their options."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from scg.core.aliases import Tree
from scg.elimination.finite import Width

BUDGET, RTOL = 2**20, 1e-10
PATIENCE = 20.0
"""Seconds after which verdicts and comparisons do without an exact value."""


@dataclass(frozen=True, eq=False)
class Exact:
    """``value``; ``error``, an estimate of its absolute error: the last change as points were doubled, the tail that
    was cut, rounding; ``evaluations``, of parts of the cost; ``width``, the most that was held together."""

    value: Tree
    error: float
    evaluations: int
    width: Width | None = None


class Moments(NamedTuple):
    """Exact mean and variance of a gradient estimate, coordinate by coordinate, in the structure of the parameters."""

    mean: Tree
    variance: Tree


class Law(NamedTuple):
    """The distribution of a discrete node: ``values`` along a leading axis, in rising order, and their
    ``probabilities``."""

    values: np.ndarray
    probabilities: np.ndarray


class Part(NamedTuple):
    """Arrays, an estimate of their error, the evaluations that they took, and the most that was held together."""

    found: list[np.ndarray]
    error: float
    evaluations: int
    width: Width | None
