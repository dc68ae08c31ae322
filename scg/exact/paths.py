"""The ways that a function takes through its ``if``s: each as a graph of its own, in which the cost counts where the
samples lead that way.

E[c] = sum over ways w of E[1{the samples lead along w} c_w]. A way is found by tracing the function again, from other
seeds, until those that are known have probability one together; what is missing is an error, so that no way is left out
unseen.
"""

import math
from collections.abc import Callable

import numpy as np

from scg.core.aliases import Result
from scg.core.ambient import Guard
from scg.core.ancestry import ancestors
from scg.core.leaves import parameter
from scg.core.node import Node, record
from scg.core.replay import rerun
from scg.core.tree import map_leaves
from scg.errors import EstimatorError, GuardError, here
from scg.exact.values import redrawn
from scg.stochastic.bindings import overridden
from scg.stochastic.graph import Graph, trace
from scg.stochastic.sites import is_draw, is_noise, is_stochastic, noise

_TRACES = 2048
Mass = Callable[[Graph], float]


def guards_on_draws(graph: Graph) -> list[Guard]:
    """The ``if``s that led to the cost and looked at samples or noise, in the order in which they were met."""
    return _met(graph.nodes)


def _met(order: list[Node]) -> list[Guard]:
    seen: set[int] = set()
    met = [guard for node in order if node.guard is not None for guard in node.guard.unseen(seen)]
    if not met:
        return []
    chance: set[int] = set()
    for node in order:
        if is_draw(node) or is_noise(node) or any(type(o) is Node and o.id in chance for o in node.operands):
            chance.add(node.id)
    found = sorted([guard for guard in met if guard.node.id in chance], key=lambda guard: guard.stamp)
    for guard in found:
        if guard.reads:
            raise EstimatorError(f"an estimator's formula takes a number by {guard.taken} ({here()})")
    return found


def ways(graph: Graph, mass: Mass) -> list[Graph]:
    """The graph itself where no ``if`` looks at a sample; else a graph for each way. ``mass`` is the mean of a graph's
    cost.

    Raises GuardError where the function is not known, or the ways that were met have a probability below one together.
    """
    if not guards_on_draws(graph):
        return [graph]
    if graph.again is None:
        raise GuardError(
            f"an `if` on a sample, at {guards_on_draws(graph)[0].line}: give the function and its arguments, which can"
            f" be traced again for each outcome, or write the choice with np.where ({here()})"
        )
    known = {_key(graph): graph}
    total, new, traces = 0.0, [graph], 0
    while True:
        total += math.fsum(
            mass(Graph(_where(guards_on_draws(g), [parameter(np.ones(()))])[0], g.parameters)) for g in new
        )
        if total >= 1 - 1e-9:
            return list(known.values())
        new = []
        for _ in range(64):
            if traces == _TRACES and not new:
                raise GuardError(
                    f"{traces} runs met {len(known)} ways through the `if`s on samples, of probability {total:.9g}"
                    " together: the rest is too rare, or without end; write the choice with np.where, or sample it"
                    f" ({here()})"
                )
            traces += traces < _TRACES
            other = _traced(graph, traces)
            if _key(other) not in known:
                known[_key(other)] = other
                new.append(other)


def on_its_way(graph: Graph) -> Graph:
    """The graph with its cost where the samples take its way at every ``if``, and 0 elsewhere."""
    guards = guards_on_draws(graph)
    return Graph(_where(guards, [graph.cost])[0], graph.parameters) if guards else graph


def along_its_way(graph: Graph, roots: list[Node], mass: Mass) -> list[Node]:
    """Nodes that were made from the graph's cost, where the samples lead its way, and 0 elsewhere. ``mass`` as in
    ``ways``.

    Raises GuardError where an estimator looked at the cost at other values of a sample, and an ``if`` that looks at it
    may come out otherwise there.
    """
    guards = guards_on_draws(graph)
    own = {guard.node.id for guard in guards}
    one = parameter(np.ones(()))
    for guard in _met(ancestors(roots, guards=True)):
        if guard.node.id in own:
            continue
        both, same = [mass(Graph(_where(g, [one])[0], graph.parameters)) for g in (guards, [*guards, guard])]
        if both - same > 1e-12:
            raise GuardError(
                f"an estimator looks at the cost at other values of a sample, at which the `if` at {guard.line} comes"
                f" out otherwise with probability {both - same:.3g}: use ScoreFunction() with one sample there, or"
                f" write the choice with np.where ({here()})"
            )
    if not guards:
        return roots
    if mass(Graph(_where(guards, [one], True)[0], graph.parameters)) == 0:  # checks that hold everywhere
        return _where([], roots)
    return _where(guards, roots)


def _where(guards: list[Guard], roots: list[Node], outside: bool = False) -> list[Result]:
    """The roots where the guards come out as they did, and 0 elsewhere; or the other way around."""
    looked = [guard.node for guard in guards]
    order = ancestors([*roots, *looked], guards=True)
    table: dict[int, Node] = {}

    def visit(node: Node) -> Result:
        if is_noise(node):
            table[node.id] = record(noise, (), node.statics, node.raw)
        elif is_stochastic(node):
            table[node.id] = redrawn(node, table, "")
        else:
            return NotImplemented
        return table[node.id]

    found = rerun([*roots, *looked], order, table, set(), 0, True, visit)
    costs, outcomes = found[: len(roots)], found[len(roots) :]
    for node in table.values():
        if type(node) is Node:
            node.guard = None  # it is made so that it exists on any way
    inside: Result = np.array(True)
    for guard, node in zip(guards, outcomes, strict=True):
        # those of an estimator look at the cost at several values
        inside = np.logical_and(inside, np.all(node != 0 if guard.outcome else node == 0))
    if not guards:
        return list(costs)
    return [np.where(np.logical_not(inside) if outside else inside, c, np.zeros((), c.dtype)) for c in costs]


def _key(graph: Graph) -> tuple[tuple[int, int, bool], ...]:
    return tuple([(id(g.code), g.instruction, g.outcome) for g in guards_on_draws(graph)])


def _traced(graph: Graph, seed: int) -> Graph:
    again = graph.again
    args, values = list(again.args), map_leaves(lambda node: node.value, graph.parameters)
    for position, value in (
        [(again.argnums, values)]
        if isinstance(again.argnums, (int, np.integer))
        else zip(again.argnums, values, strict=True)
    ):
        args[position] = value
    args = [np.random.default_rng(seed) if isinstance(a, np.random.Generator) else a for a in args]
    kwargs = {
        name: np.random.default_rng(seed) if isinstance(a, np.random.Generator) else a
        for name, a in again.kwargs.items()
    }
    with overridden(graph.bindings):
        return trace(again.fn, *args, argnums=again.argnums, **kwargs)
