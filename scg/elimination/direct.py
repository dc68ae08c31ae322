"""Which elements of samples each element of a node depends on directly: not through other draws.

Rows of a table name them, padded in front with -1: what an element of a chain's step depends on is a row of one,
however long the chain is. The axis maps tell which elements of an operand an element of a result is made from.
"""

import math
from collections.abc import Collection, Iterable, Mapping

import numpy as np

from scg.core import axes
from scg.core.aliases import Result
from scg.core.axes import mixed
from scg.core.node import Node
from scg.stochastic.sites import is_path

LARGEST = 2**25  # entries that a table may have


class NoStructure(Exception):
    """A graph of which it is not known what depends on what, or of which a node depends on too much."""


class NotListed(NoStructure):
    """A graph of samples, or of noise, whose values cannot all be listed."""


class TooBroad(NoStructure):
    """An element of a node that depends on too many values: those of the draws that ``names`` are, together ``size``
    configurations."""

    def __init__(self, names: str, size: int):
        super().__init__(f"{names}: {size} configurations")
        self.names, self.size = names, size


def direct(
    outputs: Iterable[Node],
    starts: Mapping[int, int],
    again: bool = False,
    whole: bool = False,
    most: int = LARGEST,
) -> dict[int, np.ndarray]:
    """For the nodes that lead to ``outputs``, not through draws, and depend on some: by id, (node.size, k) numbers of
    elements of samples. ``starts`` gives for a draw, by id, the number of its first element. With ``again`` it holds at
    other values of all other nodes, too: an index that is a node may pick any element. With ``whole`` it starts from
    any nodes, and every number in their values is an element. Raises NoStructure where a table would have more than
    ``most`` entries."""
    needed: dict[int, Node] = {}
    stack = list(outputs)
    while stack:
        node = stack.pop()
        if node.id not in needed:
            needed[node.id] = node
            if node.id not in starts:
                stack += [o for o in node.operands if type(o) is Node]
    found: dict[int, Result] = {}
    for i in sorted(needed):
        node = needed[i]
        if i in starts:
            found[i] = starts[i] + np.arange(node.size)[:, None] if whole else elements_of(node, starts[i])
            continue
        moving = [k for k in _read(node) if type(node.operands[k]) is Node and node.operands[k].id in found]
        if moving and type(node.operands[moving[0]].raw) is tuple:  # one of several results
            found[i] = found[node.operands[0].id][node.statics["index"]]
        elif moving and type(node.raw) is tuple:
            found[i] = [_passed(node, moving, found, again, j, most) for j in range(len(node.raw))]
        elif moving:
            found[i] = _passed(node, moving, found, again, most=most)
    return found


def depends(node: Node, dependent: Collection[int]) -> bool:
    """Whether the value of a node is made from one of those whose ids are ``dependent``."""
    return any([type(node.operands[k]) is Node and node.operands[k].id in dependent for k in _read(node)])


def _read(node: Node) -> range:
    """The positions of the operands from which the value of a node is made: of a path its first one."""
    return range(1 if is_path(node) or node.primitive.axes is axes.first else len(node.operands))


def elements_of(draw: Node, start: int) -> np.ndarray:
    """The element of its draw in which each element of the draw's value stands: those of one event in the same."""
    count = math.prod(draw.shape[: draw.ndim - draw.statics["site"].event_ndim])
    return np.repeat(start + np.arange(count), draw.size // max(count, 1))[:, None]


def of_parameters(draw: Node, found: Mapping[int, np.ndarray]) -> np.ndarray:
    """What the distribution of each element of a draw depends on: (elements, k)."""
    count = math.prod(draw.shape[: draw.ndim - draw.statics["site"].event_ndim])
    moving = [k for k, o in enumerate(draw.operands) if type(o) is Node and o.id in found]
    if not moving or not draw.size:
        return np.zeros((count, 0), int)
    return _passed(draw, moving, found).reshape(count, draw.size // count, -1)[:, 0]


def distinct(rows: np.ndarray) -> np.ndarray:
    """Rows of numbers without repetitions, in rising order behind a padding of -1."""
    if rows.shape[1] < 2:
        return rows
    rows = np.sort(rows, axis=1)
    again = rows[:, 1:] == rows[:, :-1]
    if again.any():
        rows[:, 1:][again] = -1
        rows = np.sort(rows, axis=1)
    padding = int(np.min(np.sum(rows < 0, axis=1), initial=rows.shape[1]))
    return rows[:, padding:]


def _passed(
    node: Node,
    moving: list[int],
    found: Mapping[int, np.ndarray],
    again: bool = False,
    result: int | None = None,
    most: int = LARGEST,
) -> np.ndarray:
    """What the elements of a node, or of one of its results, depend on."""
    if (
        result is None
        and len(moving) == 1
        and node.primitive.axes is axes.elementwise
        and node.operands[moving[0]].shape == node.shape
    ):
        return found[node.operands[moving[0]].id]
    picks = node.primitive.picks and moving == [0] and not (again and any([type(o) is Node for o in node.operands[1:]]))
    if result is None and (node.primitive.moves or picks):
        return _moved(node, found)
    columns = []
    for operand, k in {node.operands[k].id: (node.operands[k], k) for k in moving}.values():
        before = found[operand.id]
        if all([o is not operand for j, o in enumerate(node.operands) if j != k]):
            places = sources(node, k, result, most)
        else:
            places = np.concatenate(
                [sources(node, j, result, most) for j in moving if node.operands[j] is operand], axis=1
            )
        if places.size * before.shape[1] > most:
            raise NoStructure
        columns.append(before[places].reshape(len(places), places.shape[1] * before.shape[1]))
    return distinct(np.concatenate(columns, axis=1) if len(columns) > 1 else columns[0])


def sources(node: Node, k: int, result: int | None = None, most: int = LARGEST) -> np.ndarray:
    """Which elements of operand k each element of a node, or of one of its results, may depend on: (size, r)."""
    shapes = [np.shape(o.raw if type(o) is Node else o) for o in node.operands]
    axis_map, shape = node.primitive.axes or mixed, node.shape if result is None else node.raw[result].shape
    if result is None:
        out, ins = axis_map.align(shapes, shape, node.statics)
    else:
        out, ins = axis_map.align_result(result, shapes, shape, node.statics)
    size = math.prod(shape)
    values: dict[tuple[object, int], np.ndarray] = {}
    for factor, _, stride, n in _strided(out, shape):
        values[factor, n] = np.arange(size) // stride % n
    places = np.zeros((size, 1), int)
    for factor, _, stride, n in _strided(ins[k], shapes[k]):
        known = values.get((factor, n))
        if known is not None:
            places = places + (known * stride)[:, None]
        else:
            if places.size * n > most:
                raise NoStructure
            places = (places[:, :, None] + np.arange(n) * stride).reshape(size, -1)
    return places


def _strided(labels: axes.Axes, shape: tuple[int, ...]) -> list[tuple[object, int, int, int]]:
    """The factors of some axes: (label, axis, stride in the flat array, size)."""
    found = []
    for a, axis in enumerate(labels):
        stride = math.prod(shape[a + 1 :])
        for factor, n in reversed(axis):
            found.append((factor, a, stride, n))
            stride *= n
    return found


def _moved(node: Node, found: Mapping[int, np.ndarray]) -> np.ndarray:
    """Of a node whose elements are elements of its operands: run on their positions."""
    places, rows, start = [], [], 0
    for k, operand in enumerate(node.operands):
        value = operand.raw if type(operand) is Node else operand
        if node.primitive.picks and k:
            places.append(value)
            continue
        size = np.size(value)
        places.append(np.arange(start, start + size).reshape(np.shape(value)))
        known = found.get(operand.id) if type(operand) is Node else None
        rows.append(np.full((size, 1), -1) if known is None else known)
        start += size
    width = max(part.shape[1] for part in rows)
    padded = [np.pad(part, ((0, 0), (width - part.shape[1], 0)), constant_values=-1) for part in rows]
    return np.concatenate(padded)[np.asarray(node.primitive.fn(*places, **node.statics)).reshape(-1)]
