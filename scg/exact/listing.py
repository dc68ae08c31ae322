"""The exact distribution of a node that takes finitely many values."""

import numpy as np

from scg.core.node import Node
from scg.core.options import number
from scg.errors import ScgValueError, here
from scg.exact.choice import eliminated_distribution
from scg.exact.engine import Engine
from scg.exact.models import graph_of, names_of, values_in
from scg.exact.results import BUDGET, Law
from scg.stochastic.graph import Graph


def distribution(node: Graph | Node, budget: int = BUDGET) -> Law:
    """The exact distribution of a node (of a graph: of its cost), all elements jointly, that depends on finitely many
    values."""
    number("budget", budget, 0)
    root, names = values_in(graph_of(node, (), {}).cost), names_of(node) if isinstance(node, Graph) else {}
    if (known := eliminated_distribution(root, names, budget)) is not None:
        return _listed(root, np.reshape(known[0], (len(known[1]), -1)), known[1])
    engine = Engine([root], names, budget, False)
    if engine.adaptive:
        raise ScgValueError(
            f"the distribution of {root!r} cannot be listed: it depends on"
            f" {', '.join(leaf.name for leaf in engine.adaptive)}"
            f" ({here()})"
        )
    if not engine.leaves:
        return Law(np.asarray(root.raw)[None], np.ones(1))
    engine.terms, engine.places = [root], [(0, 0)]
    everything = frozenset(range(engine.offsets[-1]))
    rows, chances = [], []
    for block in engine.blocks([everything], [(0,)], False):
        rows.append(block.values[0])
        chances.append(block.weights[:, 0])
    return _listed(root, np.concatenate(rows), np.concatenate(chances))


def _listed(root: Node, row: np.ndarray, chance: np.ndarray) -> Law:
    """Rows of values and their probabilities, equal ones together."""
    values, inverse = np.unique(row[chance > 0], axis=0, return_inverse=True)
    return Law(
        values.reshape(len(values), *root.shape), np.bincount(inverse.reshape(-1), chance[chance > 0], len(values))
    )
