"""Where a cost bends or jumps in its parameters, whatever chance does: at 0 of |t|, or of t - b for a coin b.

A continuous sample spreads a kink over all its values, and the mean is smooth. What only parameters move, or they and
discrete samples, stays where it is in the mean, and differences across it are not the derivative beside it.
"""

import numpy as np

from scg.core.ancestry import ancestors
from scg.core.node import Node
from scg.core.replay import replay
from scg.core.tree import leaves
from scg.distributions.base import Discrete
from scg.errors import GuardError
from scg.stochastic.graph import Graph
from scg.stochastic.sides import is_break, sides
from scg.stochastic.sites import is_draw, is_noise, is_stochastic

_FEW = 1 / 32  # of the elements that move, which come to a kink: among many that is as good as curvature


class Bends:
    """Those of a graph's cost, at the values that its discrete samples take in ``run``, which has ``rows`` replicates
    of it."""

    def __init__(self, graph: Graph, run: Graph, rows: int):
        self.leaves, self.rows = [leaf for _, leaf in leaves(graph.parameters)], rows
        order = ancestors([graph.cost], guards=True)
        chance, moved = set[int](), {leaf.id for leaf in self.leaves}
        for n in order:
            operands = [o.id for o in n.operands if type(o) is Node]
            if is_stochastic(n) or is_noise(n):
                if not (is_draw(n) and n.statics["site"].distribution.has(Discrete)):
                    chance.add(n.id)
            elif not chance.isdisjoint(operands):
                chance.add(n.id)
            elif not moved.isdisjoint(operands):
                moved.add(n.id)
        self.nodes = [n for n in order if n.id in moved and n.id not in chance and is_break(n)]
        drawn = {node: run.stochastic[name].raw for name, node in graph.stochastic.items() if node.id not in chance}
        self.held = {node: x for node, x in drawn.items() if np.shape(x) == (rows, *node.shape)}

    def crossed(self, one: list[np.ndarray], other: list[np.ndarray]) -> list[np.ndarray]:
        """Of each node, for each of its elements, whether it comes to another side from parameters ``one`` to
        ``other``; where few of many come to a kink, none."""
        (before, x), (after, y) = self._at(one), self._at(other)
        found = []
        for n, a, b, u, v in zip(self.nodes, before, after, x, y, strict=True):
            apart = a != b
            moves = np.count_nonzero(u != v)
            few = not n.primitive.jumps and np.count_nonzero(apart) <= _FEW * moves
            found.append(np.zeros(apart.shape[1], bool) if few else apart.any(axis=0))
        return found

    def _at(self, parameters: list[np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """The sides of all nodes, and their values."""
        held = dict(self.held)
        for leaf, value in zip(self.leaves, parameters, strict=True):
            held[leaf] = np.broadcast_to(value, (self.rows, *leaf.shape))
        with np.errstate(all="ignore"):
            return sides(self.nodes, held, self.rows), list(replay(self.nodes, held, list(held)))


def clear(bends: Bends, point: list[np.ndarray], ways: list[list[np.ndarray]], closest: list[list[np.ndarray]]) -> bool:
    """Whether nothing bends or jumps between a point and the ends of some ways. What does so at the point itself, as
    the ``closest`` points show, does not count: there the derivative is a convention."""
    try:
        own = [np.any(column, axis=0) for column in zip(*[bends.crossed(point, end) for end in closest], strict=True)]
        return not any(
            np.any(apart & ~here) for end in ways for apart, here in zip(bends.crossed(point, end), own, strict=True)
        )
    except GuardError:
        return False
