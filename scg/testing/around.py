"""Costs of a graph at several parameters, with random numbers in common."""

from collections.abc import Sequence

import numpy as np

from scg.core.aliases import Result
from scg.core.ancestry import ancestors
from scg.core.node import Node
from scg.core.repeated import Repeated
from scg.core.replay import replay
from scg.core.tree import leaves
from scg.stochastic.graph import Graph
from scg.stochastic.resampling import repeated, resample
from scg.stochastic.sites import is_noise, is_stochastic
from scg.testing.recalled import Recalled

_BYTES = 2**24  # of samples that are kept


class Around:
    """Costs of a graph in n replicates, at parameters that are near each other.

    Only what depends on a sample has the axis of replicates, and nothing is recorded. The random numbers of a seed are
    made once. Where parameters lead to the cost by samples alone, and these move by steps, they are the same in most
    replicates at all parameters: the cost is computed once, and again in those replicates in which one of ``samples``
    has moved.
    """

    def __init__(self, graph: Graph):
        self._cost, self._rng = graph.cost, Recalled()
        self._inputs = {leaf: np.array(leaf.raw, float) for _, leaf in leaves(graph.parameters)}
        self.samples = _between(graph.cost, self._inputs)
        self._again: Repeated | None = None

    def costs(self, points: np.ndarray, n: int, seed: int) -> np.ndarray:
        """The costs at each of the points, (points, coordinates) -> (points, n)."""
        self._rng.start(seed)
        if self.samples and n * sum([node.raw.nbytes for node in self.samples]) <= _BYTES:
            found = self._where_moved(points, n)
            if found is not None:
                return found
        self.samples, self._again = [], None if self.samples else self._again
        self._rng.start(seed)
        costs = np.empty((len(points), n))
        for row, point in zip(costs, points, strict=True):
            row[...] = self._values([self._cost], point, n)[0]
        return costs

    def _where_moved(self, points: np.ndarray, n: int) -> np.ndarray | None:
        """As ``costs``; None where samples move in more than half of the replicates."""
        first = [x.copy() for x in self._values(self.samples, points.mean(axis=0), n)]
        costs = np.tile(np.asarray(self._replayed(first), float), (len(points), 1))
        found: list[tuple[int, np.ndarray, list[np.ndarray]]] = []
        waiting = 0
        for k, point in enumerate(points):
            values = self._values(self.samples, point, n)
            moved = np.zeros(n, bool)
            for x, y in zip(values, first, strict=True):
                moved[np.flatnonzero(x != y) // max(1, x.size // n)] = True
            rows = np.flatnonzero(moved)
            if 2 * len(rows) > n:
                return None
            found.append((k, rows, [x[rows] for x in values]))
            waiting += len(rows)
            if waiting and (waiting >= n or k == len(points) - 1):
                again = self._replayed([np.concatenate(x) for x in zip(*[v for _, _, v in found], strict=True)])
                ends = np.cumsum([len(rows) for _, rows, _ in found])
                for (at, rows, _), part in zip(found, np.split(again, ends[:-1]), strict=True):
                    costs[at, rows] = part
                found, waiting = [], 0
        return costs

    def _replayed(self, samples: list[np.ndarray]) -> Result:
        return replay(self._cost, dict(zip(self.samples, samples, strict=True)), self.samples)

    def _values(self, roots: Sequence[Node], point: np.ndarray, n: int) -> list[np.ndarray]:
        """The values of some nodes, which the next call may overwrite; from the same random numbers each time."""
        end = 0
        for array in self._inputs.values():
            start, end = end, end + array.size
            array[...] = point[start:end].reshape(array.shape)
        if self._again is not None and self._again.size == n:
            self._again.run()
        else:
            self._again = repeated(roots, self._rng, n, self._inputs)
        if self._again is None:
            found = resample(list(roots), self._inputs, rng=self._rng, size=n, create_graph=False, checked=True)
        else:
            found = self._again.results
            self._again = self._again if self._again.repeatable else None
        self._rng.rewind()
        return [np.broadcast_to(x, (n, *node.shape)) for x, node in zip(found, roots, strict=True)]


def _between(cost: Node, parameters: dict[Node, np.ndarray]) -> list[Node]:
    """The samples and the noise by which alone parameters lead to a cost; none where there is another way, or an
    ``if``."""
    found, stack, seen = [], [cost], {cost.id}
    while stack:
        node = stack.pop()
        if is_stochastic(node) or is_noise(node):
            found.append(node)
            continue
        if node in parameters:
            return []
        new = [o for o in node.operands if type(o) is Node and o.id not in seen]
        seen.update([o.id for o in new])
        stack += new
    return [] if any([node.guard is not None for node in ancestors([cost], guards=True)]) else found
