"""What exact results are: values, means and variances, distributions; and the defaults of their options."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from scg.core.aliases import Result, Tree
from scg.core.tree import leaves
from scg.elimination.finite import Width

BUDGET, RTOL = 2**20, 1e-10
DIGITS = 16
"""Of rounding, in units of eps: what was measured in float32, where quantiles are rounded too, is up to 5."""

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


def resulting(value: Tree, error: float, evaluations: int, width: Width | None) -> Exact:
    """An ``Exact`` whose error has what rounding in the dtypes of the values adds: a few last digits of each."""
    return Exact(value, error + max([_rounding(x) for _, x in leaves(value)], default=0.0), evaluations, width)


def _rounding(x: Result) -> float:
    x = np.asarray(x)
    eps = float(np.finfo(x.dtype).eps) if x.dtype.kind == "f" else 0.0
    return DIGITS * eps * float(np.max(np.abs(x), initial=0.0, where=np.isfinite(x)))


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
