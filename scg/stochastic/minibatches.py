"""Minibatches: rows of data that are drawn as a stochastic node."""

from typing import NamedTuple

import numpy as np

from scg.core.aliases import Operand
from scg.core.indices import Slot
from scg.core.node import Node
from scg.distributions.subset import UniformSubset
from scg.errors import ScgValueError, here
from scg.primitives.indexing import getitem_p
from scg.stochastic.estimator import Accounted
from scg.stochastic.sites import sample


class Minibatch(NamedTuple):
    """``index``: the rows that were drawn, an integer node of shape (size,); ``factor``: n / size, by which a sum over
    them estimates the sum over all."""

    index: Node  # type: ignore[assignment]
    factor: float

    def rows(self, data: Operand) -> Node:
        """``data[index]``: the rows that were drawn, of an array or a node of n rows (ScgValueError where it has
        another number)."""
        n, given = self.index.statics["site"].distribution.n, np.shape(data) if type(data) is not Node else data.shape
        if given[:1] != (n,):
            raise ScgValueError(f"this minibatch is of {n} rows, got data of shape {given} ({here()})")
        return getitem_p(data, self.index, index=(Slot(1),))


def minibatch(n: int, size: int, *, rng: np.random.Generator, name: str | None = None) -> Minibatch:
    """A uniformly drawn subset of ``size`` of n rows, as a stochastic node: E[factor * sum(f[index])] = sum(f) for
    every f of length n.

    ``minibatch(...).rows(data)`` are the rows of an array. The sample has no parameters, so no gradient passes it; as a
    node it can be enumerated, redrawn and counted in a variance like any other.
    """
    return Minibatch(sample(UniformSubset(n, size), Accounted(), rng=rng, name=name), n / size)
