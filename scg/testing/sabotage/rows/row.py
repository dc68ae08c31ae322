"""What stands in the table of saboteurs."""

from collections.abc import Callable
from typing import NamedTuple

from scg.core.node import Value
from scg.stochastic.estimator import Estimator
from scg.testing.sabotage.bounds import Objective

Wrong = Estimator | Objective
CostBy = Callable[..., Value]
"""A cost of (parameters, generator, estimator or objective)."""

TWO, THREE = [0.4, -0.6], [0.5, -0.3, 0.1]
TABLE = [[0.5, -0.3, 0.1], [-0.4, 0.2, 0.3]]


class Row(NamedTuple):
    """A program at some parameters, the wrong estimator and the one that is right there, the mistake, and where it is
    known from."""

    name: str
    program: CostBy
    parameters: list[list[float]] | list[float] | float
    wrong: Wrong
    right: Wrong
    mistake: str
    source: str = ""
