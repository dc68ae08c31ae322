"""Which elements of a node depend on which elements of a sample: the axis maps, followed through a recorded graph.

The axes of a sample (those of its batch, not of one event) are *factors*: (axis, stride, size) is the component (i //
stride) % size of the index i along that axis. A later node then has, for every axis, a tuple of (factor, size), slowest
first. A factor of the sample that stands on an axis is *tied*: elements with index i there depend on elements of the
sample with component i only. A factor None is *free*: all elements along it depend on the same elements of the sample.
A factor of the sample that stands nowhere is *mixed*.

A basic index takes part of an axis. What a node depends on is then a *pick* of the elements along that axis of the
sample, in their order, and the factors of that axis are those of the picked ones.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from scg.core import axes
from scg.core.axes import mixed
from scg.core.node import Node
from scg.core.primitive import primitive
from scg.core.replay import is_shared
from scg.primitives.indexing import scatter_p

Labels = tuple[tuple[tuple[Any, int], ...], ...]


class Tie(NamedTuple):
    """How a node depends on a sample: the factors on the node's axes, and for each axis of the sample's batch which
    elements (None: all)."""

    axes: Labels
    picks: tuple[tuple[int, ...] | None, ...]
    batch: tuple[int, ...]


accounted: Any = primitive(
    lambda x, *draws: x, axes.first, every=lambda g, i, out, *operands: None if i else g, name="accounted", same=True
)
"""The same value, of which the derivative has already what the ``draws`` contribute: an ``estimate`` where a cost is
linear in it."""


def is_accounted(node: Node) -> bool:
    """Whether a node is ``accounted``."""
    return node.primitive is accounted


def accounts(node: Node) -> list[Node]:
    """The samples that an ``estimate`` or what is ``accounted`` has in its derivative."""
    found = []
    for operand in node.operands[1 if node.primitive is accounted else 2 :]:
        while type(operand) is Node and is_shared(operand):
            operand = operand.operands[0]
        if type(operand) is Node:
            found.append(operand)
    return found


Held = dict[Tie, int]


class Influence:
    """Which of some samples each node of a list (growing ids) depends on, and how, for all of them in one pass.

    A set of samples is an integer: sample k is its bit k.

    ``draws``   by id of a node, the samples on which it depends
    ``held``    for each tie the samples to which the node is tied so (a list of these for a node of several results):
                however many samples there are, these are few
    ``chosen``  the samples that an ``if`` looked at on the way: what is *not* made from them may depend on them there
                too
    ``bits``    by id of a sample, the set of it alone
    """

    def __init__(self, sources: Iterable[tuple[Node, int]], order: Iterable[Node]):
        self.chosen: dict[int, int] = {}
        self.bits: dict[int, int] = {}
        self._batches: dict[tuple[int, ...], int] = {}
        own: dict[int, Held] = {}
        for k, (source, event_ndim) in enumerate(sources):
            tied, bit = source.ndim - event_ndim, 1 << k
            batch = source.shape[:tied]
            own[source.id] = {
                Tie(
                    tuple([(((a, 1, n) if a < tied else None, n),) for a, n in enumerate(source.shape)]),
                    (None,) * tied,
                    batch,
                ): bit
            }
            self.bits[source.id] = bit
            self._batches[batch] = self._batches.get(batch, 0) | bit
        held, draws = self.held, self.draws = dict(own), dict(self.bits)
        looked: dict[int, int] = {}
        for node in order:
            found: Any = None
            after: Any = None
            alignments: Any = None
            chosen = gone = 0
            kept = node.primitive.axes is axes.first
            for k, operand in enumerate(node.operands[:1] if kept else node.operands):
                if type(operand) is not Node:
                    continue
                before = held.get(operand.id)
                if before is not None:
                    if kept:
                        after = before
                    elif type(before) is list:
                        after = before[node.statics["index"]]
                    elif node.primitive.axes is axes.elementwise and operand.raw.shape == node.raw.shape:
                        after = before
                    elif (
                        k == 0
                        and len(node.operands) == 1
                        and node.primitive.axes is axes.index
                        and axes.is_basic(node.statics["index"])
                    ):
                        after = _each(before, _indexed, node.statics["index"], operand.raw.shape)
                    else:
                        alignments = alignments or _alignments(node)
                        after = [_each(before, _aligned, k, alignment) for alignment in alignments]
                        after = after if type(node.raw) is tuple else after[0]
                    found = after if found is None or found is after else _joined(found, after)
                if self.chosen:
                    chosen |= self.chosen.get(operand.id, 0)
            if node.id in own:
                found = own[node.id] if found is None else _joined(found, own[node.id])
            if node.guard is not None:
                chosen |= self._looked(node.guard, looked)
            if node.primitive is accounted:
                for site in accounts(node):
                    gone |= self.bits.get(site.id, 0)
            if gone:
                chosen, found = chosen & ~gone, _without(found, gone)
            if chosen:
                self.chosen[node.id] = chosen
                if node.guard is not None:
                    found = self._freed(node, found, self._looked(node.guard, looked) & ~gone)
            if found:
                held[node.id], draws[node.id] = found, _draws(found)

    def tie(self, node: Node, draw: int) -> Tie:
        """How a node depends on a sample, one of those on which it does."""
        for tie, draws in self.held[node.id].items():
            if draws & draw:
                return tie
        raise KeyError(node)

    def _looked(self, guard: Any, known: dict[int, int]) -> int:
        """The samples that the ``if``s up to this one looked at."""
        chain = []
        while guard is not None and guard.stamp not in known:
            chain.append(guard)
            guard = guard.before
        looked = 0 if guard is None else known[guard.stamp]
        for link in reversed(chain):
            looked = known[link.stamp] = looked | self.draws.get(link.node.id, 0)
        return looked

    def _freed(self, node: Node, found: Any, draws: int) -> Any:
        """``found`` for what was made on a branch that some samples chose: all of its elements depend on all of
        theirs."""
        found = _without(found, draws)

        def freed(value: Any, before: Held) -> Held:
            free = tuple([((None, n),) for n in value.shape])
            new = {
                Tie(free, (None,) * len(batch), batch): draws & those
                for batch, those in self._batches.items()
                if draws & those
            }
            return _joined(before, new)

        if type(node.raw) is tuple:
            return [freed(value, before) for value, before in zip(node.raw, found or [{}] * len(node.raw), strict=True)]
        return freed(node.raw, found or {})


def influence(source: Node, event_ndim: int, order: Iterable[Node]) -> dict[int, Any]:
    """The ``Tie`` of every node of ``order`` (growing ids) that depends on ``source``; a list of them for a node of
    several results."""
    held = Influence([(source, event_ndim)], order).held
    return {
        i: [next(iter(h)) for h in found] if type(found) is list else next(iter(found)) for i, found in held.items()
    }


def _alignments(node: Node) -> list[Any]:
    """How the axes of each result of a node follow from those of its operands."""
    axis_map, value, shapes = node.primitive.axes or mixed, node.raw, [getattr(o, "shape", ()) for o in node.operands]
    if type(value) is tuple:
        return [axis_map.align_result(j, shapes, v.shape, node.statics) for j, v in enumerate(value)]
    return [axis_map.align(shapes, value.shape, node.statics)]


def _each(before: Held, move: Callable[..., Tie], *how: Any) -> Held:
    found: Held = {}
    for tie, draws in before.items():
        after = move(tie, *how)
        found[after] = found.get(after, 0) | draws
    return found


def _joined(a: Any, b: Any) -> Any:
    """What two paths hold together: a sample on both has what they agree on."""
    if type(a) is list:
        return [_joined(x, y) for x, y in zip(a, b, strict=True)]
    both = _draws(a) & _draws(b)
    found: Held = {}
    for held in (a, b):
        for tie, draws in held.items():
            if draws & ~both:
                found[tie] = found.get(tie, 0) | draws & ~both
    if both:
        for x, left in a.items():
            for y, right in b.items():
                if left & right:
                    tie = _agreed(x, y)
                    found[tie] = found.get(tie, 0) | left & right
    return found


def _without(held: Any, gone: int) -> Any:
    """``held`` without some samples."""
    if type(held) is list:
        return [_without(h, gone) or {} for h in held]
    return held and {tie: draws & ~gone for tie, draws in held.items() if draws & ~gone}


def _draws(held: Any) -> int:
    found = 0
    for part in held if type(held) is list else (held,):
        for draws in part.values():
            found |= draws
    return found


def is_whole(tie: Tie) -> bool:
    """Whether the node has exactly the axes of the sample's batch, each tied to its own."""
    return tie.axes == tuple([(((a, 1, n), n),) for a, n in enumerate(tie.batch)]) and not any(tie.picks)


def mixed_axes(tie: Tie) -> tuple[int, ...]:
    """The axes of the sample of which a node mixes several elements."""
    used: dict[int, int] = {}
    for axis in tie.axes:
        for factor, n in axis:
            if factor is not None:
                used[factor[0]] = used.get(factor[0], 1) * n
    return tuple([a for a, n in enumerate(picked(tie)) if used.get(a, 1) != n])


def picked(tie: Tie) -> tuple[int, ...]:
    """The shape of the part of a sample's batch that a node depends on."""
    return tuple([n if p is None else len(p) for n, p in zip(tie.batch, tie.picks, strict=True)])


def spread(array: Any, shape: tuple[int, ...], tie: Tie, outer: int = 0) -> Any:
    """An array over the batch of a sample brought to where its elements stand in a node of ``shape``.

    Mixed factors are summed, free axes have length one, elements that the node does not depend on are left out;
    The first ``outer`` axes stay.
    """
    outer_shape = array.shape[:outer]
    if is_whole(tie):
        return array
    for a, pick in enumerate(tie.picks):
        if pick is not None:
            array = np.take(array, np.array(pick), axis=outer + a)
    factors, sizes = _factors(picked(tie), tie.axes)
    used = [f for axis in tie.axes for f, _ in axis if f in factors]
    array = np.reshape(array, outer_shape + tuple(sizes))
    gone = tuple([outer + i for i, f in enumerate(factors) if f not in used])
    array = np.sum(array, axis=gone) if gone else array
    left = [f for f in factors if f in used]
    array = np.transpose(array, [*range(outer), *[outer + left.index(f) for f in used]]) if len(used) > 1 else array
    array = np.reshape(array, outer_shape + tuple([n if f in factors else 1 for axis in tie.axes for f, n in axis]))
    if any(len({f in factors for f, n in axis if n > 1}) > 1 for axis in tie.axes):
        array = np.broadcast_to(array, outer_shape + tuple([n for axis in tie.axes for _, n in axis]))
        return np.reshape(array, outer_shape + shape)
    return np.reshape(
        array, outer_shape + tuple([math.prod([n if f in factors else 1 for f, n in axis]) for axis in tie.axes])
    )


def gather(array: Any, tie: Tie, outer: int = 0) -> Any:
    """The transpose of ``spread``: an array over a node summed into ``picked(tie)``, of length one along axes that are
    mixed."""
    outer_shape = array.shape[:outer]
    shape = tuple([math.prod([n for _, n in axis]) for axis in tie.axes])
    array = np.broadcast_to(array, outer_shape + shape) if array.shape != outer_shape + shape else array
    if is_whole(tie):
        return array
    factors, sizes = _factors(picked(tie), tie.axes)
    fine = [(f, n) for axis in tie.axes for f, n in axis]
    array = np.reshape(array, outer_shape + tuple([n for _, n in fine]))
    gone = tuple([outer + i for i, (f, _) in enumerate(fine) if f not in factors])
    array = np.sum(array, axis=gone) if gone else array
    left = [f for f, _ in fine if f in factors]
    order = sorted(range(len(left)), key=lambda i: factors.index(left[i]))
    array = np.transpose(array, [*range(outer), *[outer + i for i in order]]) if len(left) > 1 else array
    array = np.reshape(array, outer_shape + tuple([n if f in left else 1 for f, n in zip(factors, sizes, strict=True)]))
    coarse = [
        math.prod([m for f, m in zip(factors, sizes, strict=True) if f[0] == a and f in left])
        for a in range(len(tie.batch))
    ]
    # a part of an axis is tied, a part mixed
    if any(tied not in (1, n) for tied, n in zip(coarse, picked(tie), strict=True)):
        return np.reshape(np.broadcast_to(array, outer_shape + tuple(sizes)), outer_shape + picked(tie))
    return np.reshape(array, outer_shape + tuple(coarse))


def unpicked(array: Any, tie: Tie, outer: int = 0) -> Any:
    """What ``gather`` returned with zeros for the elements that the node does not depend on."""
    for a, pick in enumerate(tie.picks):
        if pick is not None:
            axis = outer + a
            shape = array.shape[:axis] + (tie.batch[a],) + array.shape[axis + 1 :]
            array = np.broadcast_to(array, array.shape[:axis] + (len(pick),) + array.shape[axis + 1 :])
            array = scatter_p(array, index=(*[slice(None)] * axis, np.array(pick)), shape=shape)
    return array


def _factors(batch: tuple[int, ...], labels: Labels) -> tuple[list[Any], list[int]]:
    """The factors into which the labels cut the axes of a batch, slowest first, and their sizes."""
    factors: list[Any] = []
    for a, n in enumerate(batch):
        if n == 0:  # nothing to cut
            factors.append((a, 1, 0))
            continue
        cuts = {1, n}
        for axis in labels:
            for factor, _ in axis:
                if factor is not None and factor[0] == a:
                    cuts |= {factor[1], factor[1] * factor[2]}
        steps = sorted(cuts)
        pieces = [(a, low, high // low) for low, high in zip(steps, steps[1:], strict=False)] or [(a, 1, n)]
        factors += reversed(pieces)
    return factors, [f[2] for f in factors]


def _aligned(before: Tie, k: int, alignment: Any) -> Tie:
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
    return Tie(
        tuple(
            [tuple([label for factor in axis for label in image.get(factor, ((None, factor[1]),))]) for axis in result]
        ),
        before.picks,
        before.batch,
    )


def _indexed(before: Tie, index: tuple[Any, ...], shape: tuple[int, ...]) -> Tie:
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
        whole: Any = () if factor is None else before.picks[factor[0]] or range(before.batch[factor[0]])
        if factor is not None and factor[1:] == (1, len(whole)):
            picks[factor[0]] = (whole[chosen],) if isinstance(chosen, int) else tuple([whole[j] for j in chosen])
            if isinstance(chosen, range):
                after.append((((factor[0], 1, len(chosen)), len(chosen)),))
        elif isinstance(chosen, range):
            after.append(labels if len(chosen) == n and chosen.step == 1 else ((None, len(chosen)),))
        axis += 1
    picks = [
        None if p is not None and p in ((), tuple(range(n))) else p for p, n in zip(picks, before.batch, strict=True)
    ]
    return Tie(tuple(after), tuple(picks), before.batch)


def _cut(labels: tuple[tuple[Any, int], ...], sizes: list[int]) -> list[tuple[tuple[Any, int], ...]] | None:
    """Labels of one axis cut into consecutive groups of the given sizes, a factor split where it must be; None where it
    cannot."""
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
    """What two paths from the same sample agree on: a factor is tied only where both tie it to the same place, and the
    picks are joined."""
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
        out.append(
            tuple(
                [
                    (f if f == h and f is not None and f[0] not in different else None, n)
                    for (f, n), (h, _) in zip(x, y, strict=True)
                ]
            )
        )
    return Tie(_once(tuple(out)), tuple(joined), a.batch)


def _once(labels: Labels) -> Labels:
    """Labels in which no factor of the sample stands twice (a factor on two axes ties neither)."""
    seen = [f for axis in labels for f, _ in axis if f is not None]
    twice = {f for f in seen if seen.count(f) > 1}
    return tuple([tuple([(None if f in twice else f, n) for f, n in axis]) for axis in labels]) if twice else labels
