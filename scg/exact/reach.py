"""Which elements of the samples and of the noise each element of a node depends on, one by one: finer than ties, and
larger."""

import math

import numpy as np

from scg.core import axes
from scg.core.node import Node
from scg.exact.leaf import Leaf
from scg.stochastic.dependence import influence
from scg.stochastic.sites import is_path
from scg.stochastic.ties import Tie, spread

_LARGEST = 2**24  # entries of a table of what depends on what


def reaches(leaves: list[Leaf], ties: list[dict[int, Tie]], order: list[Node]) -> dict[int, np.ndarray]:
    """For the nodes of ``order`` that depend on a leaf, by id: booleans (node.size, elements of all leaves). ``ties``
    are those to each leaf."""
    total = sum(leaf.count for leaf in leaves)
    starts = dict(
        zip([leaf.node.id for leaf in leaves], np.cumsum([0, *[leaf.count for leaf in leaves]]), strict=False)
    )
    found: dict[int, np.ndarray] = {}
    for node in order:
        moving = [o for o in node.operands if type(o) is Node and any(o.id in t for t in ties)]
        if not moving and node.id not in starts and (node.guard is None or not any(node.id in t for t in ties)):
            continue
        if type(node.raw) is tuple:
            continue
        fine = node.guard is None and all(o.id in found for o in moving)
        own = _passed(node, moving, found, total) if fine else None
        if own is None:
            own = _by_ties(node, leaves, ties, total)
        if node.id in starts:
            leaf = next(leaf for leaf in leaves if leaf.node is node)
            start = starts[node.id]
            own = own.copy()
            own[:, start : start + leaf.count] |= np.repeat(
                np.eye(leaf.count, dtype=bool), node.size // max(leaf.count, 1), axis=0
            )
        found[node.id] = own
    return found


def _passed(node: Node, moving: list[Node], found: dict[int, np.ndarray], total: int) -> np.ndarray | None:
    """What a node takes over from its operands; None where the table would be too large."""
    primitive = node.primitive
    reach = np.zeros((node.size, total), bool)
    if is_path(node):
        first = node.operands[0]
        return found[first.id] if type(first) is Node and first.id in found else reach
    if primitive.moves or primitive.picks:
        moved = _moved(node, found, total)
        if moved is not None:
            return moved
    for operand in moving:
        before = found[operand.id]
        if primitive.axes is axes.elementwise:
            full = np.broadcast_to(_padded(before.reshape(*operand.shape, total), node.ndim), (*node.shape, total))
            reach |= full.reshape(node.size, total)
        elif primitive.axes is axes.reduction:
            axis = node.statics.get("axis")
            axis = tuple(range(operand.ndim)) if axis is None else axis
            axis = tuple([a % operand.ndim for a in ((axis,) if isinstance(axis, int) else axis)])
            reach |= before.reshape(*operand.shape, total).any(axis=axis).reshape(node.size, total)
        elif operand.size * node.size > _LARGEST:
            return None
        else:
            tie = influence(operand, 0, [node]).get(node.id)
            if tie is not None:
                reach |= _table(operand.shape, node.shape, tie).T.astype(np.float32) @ before.astype(np.float32) > 0
    return reach


def _moved(node: Node, found: dict[int, np.ndarray], total: int) -> np.ndarray | None:
    """Of a node whose elements are elements of its operands: run on their positions."""
    places, rows, start = [], [], 0
    for k, operand in enumerate(node.operands):
        if node.primitive.picks and k:
            if type(operand) is Node and operand.id in found:
                return None
            places.append(operand.raw if type(operand) is Node else operand)
            continue
        shape = np.shape(operand.raw if type(operand) is Node else operand)
        size = int(np.prod(shape, dtype=int))
        places.append(np.arange(start, start + size).reshape(shape))
        rows.append(
            found[operand.id] if type(operand) is Node and operand.id in found else np.zeros((size, total), bool)
        )
        start += size
    return np.concatenate(rows)[np.asarray(node.primitive.fn(*places, **node.statics)).reshape(-1)]


def _by_ties(node: Node, leaves: list[Leaf], ties: list[dict[int, Tie]], total: int) -> np.ndarray:
    reach = np.zeros((node.size, total), bool)
    start = 0
    for leaf, known in zip(leaves, ties, strict=True):
        tie = known.get(node.id)
        if tie is not None and leaf.count:
            reach[:, start : start + leaf.count] = _table(leaf.batch, node.shape, tie).T
        start += leaf.count
    return reach


def _table(batch: tuple[int, ...], shape: tuple[int, ...], tie: Tie) -> np.ndarray:
    """(elements of the source, elements of the node): whether the one can influence the other."""
    count = math.prod(batch)
    one = np.eye(count).reshape(count, *batch)
    return np.broadcast_to(spread(one, shape, tie, 1) != 0, (count, *shape)).reshape(count, math.prod(shape))


def _padded(reach: np.ndarray, ndim: int) -> np.ndarray:
    return reach.reshape((1,) * (ndim + 1 - reach.ndim) + reach.shape)
