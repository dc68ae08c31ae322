"""The names of the stochastic nodes of a graph, and the values that may be given to them."""

from collections import Counter

import numpy as np

from scg.core.node import Node
from scg.core.operands import described, plain
from scg.distributions.base import FixedSupport
from scg.errors import ScgTypeError, ScgValueError, here
from scg.stochastic.estimator import Accounted
from scg.stochastic.sites import numbered


def named(nodes: list[Node]) -> dict[str, Node]:
    """Stochastic nodes by name, or as samples of a kind are ``numbered``; ScgValueError where two have one name."""
    found: dict[str, Node] = {}
    count: Counter[str] = Counter()
    for node in nodes:
        name, site = node.name, node.statics["site"]
        if name is None and type(site.estimator) is Accounted and site.distribution.parameters:
            continue  # an estimator's own
        if name is None:
            name = numbered(type(site.distribution).__name__.lower(), count)
        if name in found:
            if site.replicate_axes:
                # sampled again, by an estimator that looked at costs elsewhere: the cost is a gradient already
                continue
            raise ScgValueError(
                f"two stochastic nodes are called {name!r}, made at {found[name].line} and {node.line}: give each its"
                f" own name ({here()})"
            )
        found[name] = node
    return found


def numbers(value: object, what: str) -> np.ndarray:
    """Real numbers as an array; ScgTypeError where they are none."""
    array = np.asarray(plain(value, what))
    if array.dtype.kind not in "biuf":
        raise ScgTypeError(f"{what} needs real numbers, got {described((value,))} ({here()})")
    return array


def possible(name: str, node: Node, value: object) -> np.ndarray:
    """A value for a sample; ScgTypeError where it is none, ScgValueError where a sample of fixed support cannot have
    it. Its shape is checked where it is used."""
    distribution, array = node.statics["site"].distribution, numbers(value, name)
    if distribution.has(FixedSupport) and array.shape[array.ndim - node.ndim :] == node.shape:
        inside = np.asarray(distribution.support.contains(array))
        if not np.all(inside):
            raise ScgValueError(
                f"{name}: {value!r} is no value of {distribution!r}, whose support is {distribution.support!r}"
                f" ({here()})"
            )
    return array
