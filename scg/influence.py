"""Which elements of a node depend on which elements of a draw: the axis maps, followed through a recorded graph.

The axes of a draw (those of its batch, not of one event) are *factors*: (axis, stride, size) is the component (i // stride) % size of the index
i along that axis. A later node then has, for every axis, a tuple of (factor, size), slowest first. A factor of the draw that stands on an
axis is *tied*: elements with index i there depend on elements of the draw with component i only. A factor None is
*free*: all elements along it depend on the same elements of the draw. A factor of the draw that stands nowhere is *mixed*.

A basic index takes part of an axis. What a node depends on is then a *pick* of the elements along that axis of the draw, in their order,
and the factors of that axis are those of the picked ones.
"""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from scg import axes
from scg.ambient import is_tainted
from scg.axes import mixed
from scg.graph import Node, parameter, primitive
from scg.primitives.indexing import _scatter

Labels = tuple[tuple[tuple[Any, int], ...], ...]


class Tie(NamedTuple):
    """How a node depends on a draw: the factors on the node's axes, and for each axis of the draw which elements (None: all)."""

    axes: Labels
    picks: tuple[tuple[int, ...] | None, ...]




def _carried_on(g: Any, out: Any, x: Any, draws: Any) -> Any:
    return g if type(out) is not Node else accounted(g if type(g) is Node else parameter(g), draws=draws)


accounted: Any = primitive(lambda x, draws: x, axes.elementwise, _carried_on, name="accounted")
"""The same value; whatever is computed from it, or from a derivative of it, already has what some draws (by id) contribute to a gradient."""


def influence(source: Node, event_ndim: int, order: Iterable[Node]) -> dict[int, Any]:
    """The ``Tie`` of every node of ``order`` (growing ids) that depends on ``source``; a list of them for a node of several results."""
    tied = source.ndim - event_ndim
    whole = (None,) * tied
    ties: dict[int, Any] = {
        source.id: Tie(tuple([(((a, 1, n) if a < tied else None, n),) for a, n in enumerate(source.shape)]), whole)
    }
    tainted: dict[int, bool] = {}
    done: set[int] = set()
    for node in order:
        if node.id <= source.id:
            continue
        rule, value = node.primitive, node._value
        if rule is accounted and source.id in node.statics["draws"] or done and any(type(o) is Node and o.id in done for o in node.operands):
            done.add(node.id)
            continue
        several = type(value) is tuple
        if node.guard is not None and is_tainted(node.guard, ties, tainted):  # made on a branch that the draw chose
            ties[node.id] = [Tie(_free(v), whole) for v in value] if several else Tie(_free(value), whole)
            continue
        found: Any = None
        alignment = None
        for k, operand in enumerate(node.operands):
            if type(operand) is not Node or operand.id not in ties:
                continue
            before = ties[operand.id]
            if type(before) is list:
                after: Any = before[node.statics["index"]]
            elif several:
                after = [_aligned(node, before, k, (rule.axes or mixed).align_result(j, _shapes(node), v.shape, node.statics)) for j, v in enumerate(value)]
            elif rule.axes is axes.elementwise and operand._value.shape == value.shape:
                after = before
            elif rule.axes is axes.index and k == 0 and len(node.operands) == 1 and axes.is_basic(node.statics["index"]):
                after = _indexed(before, node.statics["index"], operand._value.shape, source.shape)
            else:
                alignment = alignment or (rule.axes or mixed).align(_shapes(node), value.shape, node.statics)
                after = _aligned(node, before, k, alignment)
            if found is None or found is after:
                found = after
            else:
                found = [_agreed(x, y) for x, y in zip(found, after, strict=True)] if several else _agreed(found, after)
        if found is not None:
            ties[node.id] = found
    return ties


def is_whole(tie: Tie, batch: tuple[int, ...]) -> bool:
    """Whether the node has exactly the axes of the draw's batch, each tied to its own."""
    return tie.axes == tuple([(((a, 1, n), n),) for a, n in enumerate(batch)]) and not any(tie.picks)


def mixed_axes(tie: Tie, batch: tuple[int, ...]) -> tuple[int, ...]:
    """The axes of the draw of which a node mixes several elements."""
    used: dict[int, int] = {}
    for axis in tie.axes:
        for factor, n in axis:
            if factor is not None:
                used[factor[0]] = used.get(factor[0], 1) * n
    return tuple([a for a, n in enumerate(picked(tie, batch)) if used.get(a, 1) != n])


def picked(tie: Tie, batch: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the part of a draw's batch that a node depends on."""
    return tuple([n if p is None else len(p) for n, p in zip(batch, tie.picks, strict=True)])


def spread(array: Any, shape: tuple[int, ...], tie: Tie, lead: int = 0) -> Any:
    """An array over the batch of a draw brought to where its elements stand in a node of ``shape``.

    Mixed factors are summed, free axes have length one, elements that the node does not depend on are left out; ``lead`` axes in front stay.
    """
    front, batch = array.shape[:lead], array.shape[lead:]
    if is_whole(tie, batch):
        return array
    for a, pick in enumerate(tie.picks):
        if pick is not None:
            array = np.take(array, np.array(pick), axis=lead + a)
    batch = picked(tie, batch)
    factors, sizes = _factors(batch, tie.axes)
    used = [f for axis in tie.axes for f, _ in axis if f in factors]
    array = np.reshape(array, front + tuple(sizes))
    gone = tuple([lead + i for i, f in enumerate(factors) if f not in used])
    array = np.sum(array, axis=gone) if gone else array
    left = [f for f in factors if f in used]
    array = np.transpose(array, [*range(lead), *[lead + left.index(f) for f in used]]) if len(used) > 1 else array
    array = np.reshape(array, front + tuple([n if f in factors else 1 for axis in tie.axes for f, n in axis]))
    if any(len({f in factors for f, n in axis if n > 1}) > 1 for axis in tie.axes):
        array = np.broadcast_to(array, front + tuple([n for axis in tie.axes for _, n in axis]))
        return np.reshape(array, front + shape)
    return np.reshape(array, front + tuple([math.prod([n if f in factors else 1 for f, n in axis]) for axis in tie.axes]))


def gather(array: Any, batch: tuple[int, ...], tie: Tie, lead: int = 0) -> Any:
    """The transpose of ``spread``: an array over a node summed into ``picked(tie, batch)``, of length one along axes that are mixed."""
    front = array.shape[:lead]
    shape = tuple([math.prod([n for _, n in axis]) for axis in tie.axes])
    array = np.broadcast_to(array, front + shape) if array.shape != front + shape else array
    if is_whole(tie, batch):
        return array
    factors, sizes = _factors(picked(tie, batch), tie.axes)
    fine = [(f, n) for axis in tie.axes for f, n in axis]
    array = np.reshape(array, front + tuple([n for _, n in fine]))
    gone = tuple([lead + i for i, (f, _) in enumerate(fine) if f not in factors])
    array = np.sum(array, axis=gone) if gone else array
    left = [f for f, _ in fine if f in factors]
    order = sorted(range(len(left)), key=lambda i: factors.index(left[i]))
    array = np.transpose(array, [*range(lead), *[lead + i for i in order]]) if len(left) > 1 else array
    array = np.reshape(array, front + tuple([n if f in left else 1 for f, n in zip(factors, sizes, strict=True)]))
    coarse = [math.prod([m for f, m in zip(factors, sizes, strict=True) if f[0] == a and f in left]) for a in range(len(batch))]
    if any(tied not in (1, n) for tied, n in zip(coarse, picked(tie, batch), strict=True)):  # a part of an axis is tied, a part mixed
        return np.reshape(np.broadcast_to(array, front + tuple(sizes)), front + picked(tie, batch))
    return np.reshape(array, front + tuple(coarse))


def unpicked(array: Any, batch: tuple[int, ...], tie: Tie, lead: int = 0) -> Any:
    """What ``gather`` returned with zeros for the elements that the node does not depend on."""
    for a, pick in enumerate(tie.picks):
        if pick is not None:
            axis = lead + a
            shape = array.shape[:axis] + (batch[a],) + array.shape[axis + 1 :]
            array = np.broadcast_to(array, array.shape[:axis] + (len(pick),) + array.shape[axis + 1 :])
            array = _scatter(array, index=(*[slice(None)] * axis, np.array(pick)), shape=shape)
    return array


def _factors(batch: tuple[int, ...], labels: Labels) -> tuple[list[Any], list[int]]:
    """The factors into which the labels cut the axes of a batch, slowest first, and their sizes."""
    factors: list[Any] = []
    for a, n in enumerate(batch):
        cuts = {1, n}
        for axis in labels:
            for factor, _ in axis:
                if factor is not None and factor[0] == a:
                    cuts |= {factor[1], factor[1] * factor[2]}
        steps = sorted(cuts)
        pieces = [(a, low, high // low) for low, high in zip(steps, steps[1:], strict=False)] or [(a, 1, n)]
        factors += reversed(pieces)
    return factors, [f[2] for f in factors]


def _shapes(node: Node) -> list[tuple[int, ...]]:
    return [getattr(o, "shape", ()) for o in node.operands]


def _free(value: Any) -> Labels:
    return tuple([((None, n),) for n in value.shape])


def _aligned(node: Node, before: Tie, k: int, alignment: Any) -> Tie:
    """The tie of operand k carried to the output's axes by an alignment."""
    result, sources = alignment
    image: dict[Any, tuple[tuple[Any, int], ...]] = {}
    for labels, factors in zip(before.axes, sources[k], strict=True):
        if len(factors) == 1:
            image[factors[0]] = labels
        elif factors:
            pieces = _cut(labels, [size for _, size in factors])
            for factor, piece in zip(factors, pieces or [((None, n),) for _, n in factors], strict=True):
                image[factor] = piece
    return Tie(tuple([tuple([label for factor in axis for label in image.get(factor, ((None, factor[1]),))]) for axis in result]), before.picks)


def _indexed(before: Tie, index: tuple[Any, ...], shape: tuple[int, ...], batch: tuple[int, ...]) -> Tie:
    """The tie of ``x[index]`` for integers, slices, new axes and an ellipsis."""
    picks: list[Any] = list(before.picks)
    after: list[Any] = []
    axis = 0
    for i in axes.spelled_out(index, len(shape)):
        if i is None:
            after.append(((None, 1),))
            continue
        labels, n = before.axes[axis], shape[axis]
        chosen = range(n)[i]
        factor = labels[0][0] if len(labels) == 1 else None
        whole: Any = () if factor is None else before.picks[factor[0]] or range(batch[factor[0]])
        if factor is not None and factor[1:] == (1, len(whole)):
            picks[factor[0]] = (whole[chosen],) if isinstance(chosen, int) else tuple([whole[j] for j in chosen])
            if isinstance(chosen, range):
                after.append((((factor[0], 1, len(chosen)), len(chosen)),))
        elif isinstance(chosen, range):
            after.append(labels if len(chosen) == n and chosen.step == 1 else ((None, len(chosen)),))
        axis += 1
    picks = [None if p is not None and len(p) == 0 else p for p in picks]
    return Tie(tuple(after), tuple(picks))


def _cut(labels: tuple[tuple[Any, int], ...], sizes: list[int]) -> list[tuple[tuple[Any, int], ...]] | None:
    """Labels of one axis cut into consecutive groups of the given sizes, a factor split where it must be; None where it cannot."""
    pieces, queue = [], list(labels)
    for size in sizes:
        piece: list[tuple[Any, int]] = []
        while size > 1:
            if not queue:
                return None
            factor, n = queue.pop(0)
            if size % n == 0:
                piece.append((factor, n))
                size //= n
            elif n % size == 0:  # the slow part here, the fast part for the next group
                slow, fast = split(factor, n, n // size)
                piece.append(slow)
                queue.insert(0, fast)
                size = 1
            else:
                return None
        pieces.append(tuple(piece))
    return pieces


def split(factor: Any, size: int, fast: int) -> tuple[tuple[Any, int], tuple[Any, int]]:
    """A factor as a slow and a fast part, the fast one of the given size."""
    if factor is None:
        return (None, size // fast), (None, fast)
    axis, stride, _ = factor
    return ((axis, stride * fast, size // fast), size // fast), ((axis, stride, fast), fast)


def _agreed(a: Tie, b: Tie) -> Tie:
    """What two paths from the same draw agree on: a factor is tied only where both tie it to the same place, and the picks are joined."""
    if a == b:
        return a
    different = {axis for axis, (p, q) in enumerate(zip(a.picks, b.picks, strict=True)) if p != q}
    joined = [
        p if axis not in different else None if p is None or q is None else tuple(sorted({*p, *q}))
        for axis, (p, q) in enumerate(zip(a.picks, b.picks, strict=True))
    ]
    out = []
    for x, y in zip(a.axes, b.axes, strict=True):
        if x != y:
            finer, coarser = _cut(x, [n for _, n in y]), _cut(y, [n for _, n in x])
            if finer is not None and all(len(p) == 1 for p in finer):
                x = tuple([p[0] for p in finer])
            elif coarser is not None and all(len(p) == 1 for p in coarser):
                y = tuple([p[0] for p in coarser])
            else:
                size = 1
                for _, n in x:
                    size *= n
                x = y = ((None, size),)
        out.append(tuple([(f if f == h and f is not None and f[0] not in different else None, n) for (f, n), (h, _) in zip(x, y, strict=True)]))
    return Tie(_once(tuple(out)), tuple(joined))


def _once(labels: Labels) -> Labels:
    """Labels in which no factor of the draw stands twice (a factor on two axes ties neither)."""
    seen = [f for axis in labels for f, _ in axis if f is not None]
    twice = {f for f in seen if seen.count(f) > 1}
    return tuple([tuple([(None if f in twice else f, n) for f, n in axis]) for axis in labels]) if twice else labels
