"""How often one gradient evaluates the cost: counted in the graph of the gradient, whatever the estimators are."""

import contextvars

import numpy as np

from scg.core.ancestry import ancestors
from scg.core.axes import elementwise
from scg.core.backward import pull
from scg.core.node import Node
from scg.core.primitive import smooth_primitive
from scg.core.tree import leaves
from scg.stochastic.analysis import draws
from scg.stochastic.costs import as_replicates
from scg.stochastic.graph import Graph
from scg.stochastic.surrogate import surrogate
from scg.stochastic.terms import Terms

_SEEN: contextvars.ContextVar[list[int] | None] = contextvars.ContextVar("scg_evaluated", default=None)


def _mark(x: np.ndarray) -> np.ndarray:
    seen = _SEEN.get()
    if seen is not None:
        seen.append(np.size(x))
    return x


looked_at = smooth_primitive(lambda g, out: g, elementwise, lambda h, result, g, out: h, None, name="looked_at")
"""A cotangent that has passed ``marked``: a derivative of the cost belongs to the evaluation at the same point."""

marked = smooth_primitive(_mark, elementwise, lambda g, out, x: looked_at(g, out), name="marked")
"""An element of the cost, here or where an estimator evaluates it."""


def evaluations(graph: Graph) -> float:
    """Evaluations of the cost, at one point each with or without its derivative, that one gradient of the bound
    estimators takes.

    The cost is taken apart into its terms (as for the surrogate), and the elements of all terms that a gradient
    computes, at the samples or in place of them, are counted and divided by those that one run of the graph computes. 1
    for a score function or a pathwise estimator, n for n samples, 2 for ARM, K for enumeration, and where elements of a
    sample are replaced in turn, for each of them. Parts of the cost that no sample influences do not count.
    """
    found = draws([graph.cost])
    if not found:
        return 1.0
    terms = Terms(graph.cost, found, together=True)
    nodes = [term for term, _ in terms.terms]
    size = sum(term.size for term in nodes)
    if not size:
        return 1.0
    new: dict[int, Node] = {term.id: marked(term) for term in nodes}
    for node, _ in reversed(terms.sums):
        operands = [new.get(o.id, o) if type(o) is Node else o for o in node.operands]
        new[node.id] = node.primitive(*operands, **node.statics)
    run = [new[term.id] for term in nodes]  # what the graph's own run evaluates, if the gradient looks at it
    targets = [leaf for _, leaf in leaves(graph.parameters)]
    elsewhere: list[int] = []
    token = _SEEN.set(elsewhere)
    try:
        with as_replicates(graph.first):
            loss = surrogate(new[graph.cost.id], 1, graph.floor, graph=True)
        gradient = pull([loss], [np.ones((), loss.dtype)], targets, create_graph=True)
    finally:
        _SEEN.reset(token)
    used = {node.id for node in ancestors([g for g in gradient if type(g) is Node])}
    return (sum(elsewhere) + sum(node.size for node in run if node.id in used)) / size
