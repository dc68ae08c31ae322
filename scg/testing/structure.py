"""Gradients as rows of numbers, and back: the coordinates of a graph's parameters, or of Samples'.

``subject`` is a Graph, or Samples whose structure is known: whatever has ``parameters``.
"""

import numpy as np

from scg.bridge.samples import Sampled
from scg.core.aliases import Tree
from scg.core.ancestry import ancestors
from scg.core.node import Node
from scg.core.tree import leaves, map_leaves, rebuild
from scg.exact.paths import guards_on_draws
from scg.stochastic.graph import Graph
from scg.stochastic.sites import is_noise, is_stochastic

Subject = Graph | Sampled
"""What draws gradients: ``subject.gradients(rng=, replicates=)``, in the structure ``subject.parameters``."""


def join(tree: Tree, n: int) -> np.ndarray:
    """The leaves side by side, (n, coordinates), in float64."""
    return np.concatenate([np.asarray(leaf, float).reshape(n, -1) for _, leaf in leaves(tree)], axis=1)


def split(subject: Subject, row: np.ndarray) -> Tree:
    """Numbers for all coordinates in the parameters' structure."""
    targets = [leaf for _, leaf in leaves(subject.parameters)]
    parts = np.split(row, np.cumsum([t.size for t in targets])[:-1])
    return rebuild(subject.parameters, (part.reshape(t.shape) for part, t in zip(parts, targets, strict=True)))


def fixed(subject: Subject, moments: tuple[np.ndarray, np.ndarray] | None = None) -> np.ndarray:
    """For each coordinate whether its gradient is known not to vary: no stochastic node or noise leads to it, or its
    exact (mean, variance) say so, but for rounding.

    Draws alone cannot tell: what happens once in a million replicates has not happened in the first thousand.
    """
    sizes = [leaf.size for _, leaf in leaves(subject.parameters)]
    if isinstance(subject, Sampled):
        return np.full(sum(sizes), subject.constant)
    if guards_on_draws(subject) or not subject.is_complete:  # another way, or other numbers, may lead to another
        still = [False for _ in sizes]
    else:
        still = [not (type(g) is Node and depends(g)) for g in subject.recorded]
    found = np.repeat(still, sizes)
    if moments is None:
        return found
    mean, variance = moments
    return found | (np.sqrt(np.maximum(variance, 0)) <= 1e-8 * np.abs(mean) + precision(subject) * cost_of(subject))


def depends(*roots: Node) -> bool:
    """Whether a stochastic node or noise leads to one of them."""
    return any(is_stochastic(x) or is_noise(x) for x in ancestors(roots, guards=True))


def cost_of(subject: Subject) -> float:
    """The size of the recorded cost, whose rounding a gradient may have; 0 where none is known."""
    return abs(float(subject.cost.raw)) if isinstance(subject, Graph) else 0.0


def by_leaf(subject: Subject, row: np.ndarray) -> np.ndarray:
    """For each coordinate the largest of its parameter."""
    return join(map_leaves(lambda x: np.full(x.shape, np.max(x, initial=0)), split(subject, row)), 1)[0]


def precision(subject: Subject) -> np.ndarray:
    """2^8 units of rounding, for each coordinate."""
    return join(
        map_leaves(lambda node: np.full(node.shape, 2**8 * float(np.finfo(node.dtype).eps)), subject.parameters), 1
    )[0]


def paths(subject: Subject) -> list[str]:
    """The path of each coordinate, as one would write it; of a number that is all there is, "the parameter"."""
    found = []
    for path, leaf in leaves(subject.parameters):
        found += [
            path + (f"[{', '.join(map(str, index))}]" if index else "") or "the parameter"
            for index in np.ndindex(leaf.shape)
        ]
    return found
