"""Samples of finitely many values, element by element: the values, how many there are, and their probabilities."""

import math
from typing import NamedTuple

import numpy as np

from scg.core.axes import padded
from scg.core.node import Node, Value
from scg.distributions.base import Distribution, FiniteSupport, FixedSupport
from scg.errors import ScgValueError, here
from scg.stochastic.nested import AT_AN_END, is_of_an_estimator


class Width(NamedTuple):
    """The most that an exact result holds together, in one table of an elimination or one part of an enumeration: how
    many ``elements`` of samples, how many ``entries`` they make, and the names of the ``samples``."""

    elements: int
    entries: int
    samples: tuple[str, ...]


class BudgetError(ScgValueError):
    """More configurations than the budget allows, for one part of a cost, or more time than was given. ``width`` is
    what would be held together, where that is why."""

    def __init__(self, message: str, width: Width | None = None):
        super().__init__(message)
        self.width = width


class Lattice(NamedTuple):
    """Numbers that stand for all values of a continuous sample: ``points`` (size, elements), and the ``steps`` between
    them, (size, elements), which times the density are the weights of a quadrature rule."""

    points: np.ndarray
    steps: np.ndarray


class Finite:
    """A sample whose *elements* are those of its batch, each with ``size`` values: ``fixed``, (size, elements,
    *event). Of a continuous one they are the points of a ``lattice``."""

    def __init__(self, node: Node, name: str, lattice: Lattice | None = None):
        self.node, self.name = node, name
        self.distribution = node.statics["site"].distribution
        self.batch = node.shape[: node.ndim - node.statics["site"].event_ndim]
        self.event = node.shape[len(self.batch) :]
        self.count = math.prod(self.batch)
        self.lattice = lattice
        self.fixed = values_of(self.distribution, node.shape, len(self.batch)) if lattice is None else lattice.points
        self.size = len(self.fixed)

    def at(self, digits: np.ndarray) -> np.ndarray:
        """Values, (rows, *node.shape), for the number of a value for every row and element; -1 stands for the value
        that was recorded."""
        values = self.fixed[np.maximum(digits, 0), np.arange(self.count)]
        kept = np.reshape(self.node.raw, (self.count, *self.event))
        values = np.where((digits < 0).reshape(*digits.shape, *[1] * len(self.event)), kept, values)
        return np.asarray(values, self.node.dtype).reshape(len(digits), *self.node.shape)


def values_of(distribution: FiniteSupport, shape: tuple[int, ...], ndim: int) -> np.ndarray:
    """All values of each element of a sample of a shape, of which the first ``ndim`` axes are its batch: (values,
    elements, *event)."""
    atoms = padded(distribution.atoms(), len(shape))
    return np.broadcast_to(atoms, (len(atoms), *shape)).reshape(len(atoms), math.prod(shape[:ndim]), *shape[ndim:])


def probabilities(node: Node, distribution: Distribution, log_p: Value, name: str, logs: bool = False) -> Value:
    """exp(log_p), of all values of the distribution of a sample; with ``logs`` log_p itself.

    Raises ScgValueError where a probability is zero and has a derivative, the first or the second, which ``log_p`` has
    not.
    """
    if type(log_p) is Node and np.isneginf(log_p.raw).any():
        given = any(type(p) is Node and part.endswith("probs") for part, p in distribution.parameters.items())
        if given and (not distribution.has(FixedSupport) or distribution.bends()):
            raise ScgValueError(
                f"the derivative of a gradient inside this cost is not known: {AT_AN_END} ({here()})"
                if is_of_an_estimator(node)
                else f"{name}: a probability of exactly zero has no derivative here: keep probs inside (0, 1), or use"
                f" logits ({here()})"
            )
    return log_p if logs else np.exp(log_p)


def written(count: int) -> str:
    """A count, however large, for a message."""
    return str(count) if count < 10**12 else f"about 10^{math.log10(count):.1f}"
