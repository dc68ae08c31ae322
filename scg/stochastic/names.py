"""The names of the stochastic nodes of a graph, the estimators by these names, and the values that may be given."""

from collections import Counter
from collections.abc import Mapping

import numpy as np

from scg.core.ambient import RECORDER
from scg.core.ancestry import ancestors
from scg.core.leaves import parameter
from scg.core.node import Node, value_of
from scg.core.operands import described, plain
from scg.distributions.base import FixedSupport
from scg.errors import ScgTypeError, ScgValueError, here
from scg.primitives.layout import alias
from scg.stochastic.bindings import numbered
from scg.stochastic.estimator import Accounted, Estimator


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


def stochastic_node(stochastic: Mapping[str, Node], name: str, cost: Node) -> Node:
    """The stochastic node of a name, in the graph of a cost; ScgValueError where there is none."""
    if name in stochastic:
        return stochastic[name]
    nodes = ancestors([cost], guards=True)
    lines = list(dict.fromkeys([node.guard.line for node in nodes if node.guard is not None]))
    branch = (
        f"; what is drawn in a branch that the `if` at {lines[-1]} did not take is not in this graph: give it its"
        " estimator in scg.sample"
        if lines
        else ""
    )
    raise ScgValueError(
        f"no stochastic node is called {name!r}; there are {', '.join(map(repr, stochastic)) or 'none'}{branch}"
        f" ({here()})"
    )


def refuse_no_estimators(
    estimators: Mapping[str, Estimator] | None, named: Mapping[str, Estimator]
) -> dict[str, Estimator]:
    """The estimators of ``Graph.bind``, by name or pattern; ScgTypeError where one of them is none."""
    if estimators is not None and not isinstance(estimators, Mapping):
        raise ScgTypeError(
            f"bind needs a mapping of names to estimators, got {type(estimators).__name__}: write {{'b':"
            f" scg.DisARM()}} ({here()})"
        )
    wanted = {**(estimators or {}), **named}
    for name, estimator in wanted.items():
        if not isinstance(name, str):
            raise ScgTypeError(
                f"bind: a key is the name of a stochastic node, or a pattern, got {described((name,))}: write"
                f" {{'b': scg.DisARM()}} ({here()})"
            )
        if not isinstance(estimator, Estimator):
            is_class = isinstance(estimator, type) and issubclass(estimator, Estimator)
            hint = f": write {estimator.__name__}()" if is_class else ""
            raise ScgTypeError(f"{name}: bind needs an estimator, got {estimator!r}{hint} ({here()})")
    return wanted


def new_parameter(node: Node, value: object, replicates: int | None) -> Node:
    """A leaf in the place of a parameter, with a leading axis of ``replicates`` if any; in a plan a node of it."""
    array = numbers(value_of(value), f"the parameter {node!r}").astype(node.dtype, copy=False)
    shape = node.shape if replicates is None else (replicates, *node.shape)
    if array.shape not in (node.shape, shape):
        raise ScgValueError(f"the parameter {node!r} needs a value of shape {shape}, got {array.shape} ({here()})")
    if type(value) is Node and RECORDER.get() is not None:  # a plan has other numbers there
        return alias(np.broadcast_to(value.astype(node.dtype), shape))
    return parameter(np.broadcast_to(array, shape), node.name)


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
