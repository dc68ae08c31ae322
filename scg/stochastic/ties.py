"""Ties: which elements of a node depend on which elements of a sample.

The axes of a sample (those of its batch, not of one event) are *factors*: (axis, stride, size) is the component (i //
stride) % size of the index i along that axis. A later node then has, for every axis, a tuple of (factor, size), slowest
first. A factor of the sample that stands on an axis is *tied*: elements with index i there depend on elements of the
sample with component i only. A factor None is *free*: all elements along it depend on the same elements of the sample.
A factor of the sample that stands nowhere is *mixed*.

A basic index takes part of an axis. What a node depends on is then a *pick* of the elements along that axis of the
sample, in their order, and the factors of that axis are those of the picked ones.

For a sample z of shape (4, 3), np.sum(z, axis=0)[:, None] * np.ones(2), of shape (3, 2), has the axes
(((1, 1, 3), 3),) and ((None, 2),): axis 1 of z is tied to its axis 0, its axis 1 is free, and axis 0 of z is mixed.
"""

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

from scg.core import indices
from scg.core.aliases import Operands
from scg.core.axes import Alignment
from scg.core.node import Value
from scg.primitives.indexing import scatter_p

Factor = tuple[int, int, int] | None
"""(axis of the sample's batch, stride, size): which part of that axis an axis of a node is tied to; None: to none."""

Axis = tuple[tuple[Factor, int], ...]
Labels = tuple[Axis, ...]


class Tie(NamedTuple):
    """How a node depends on a sample: the factors on the node's axes, and for each axis of the sample's batch which
    elements (None: all)."""

    axes: Labels
    picks: tuple[tuple[int, ...] | None, ...]
    batch: tuple[int, ...]


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


def spread(array: Value, shape: tuple[int, ...], tie: Tie, outer: int = 0) -> Value:
    """An array over the batch of a sample brought to where its elements stand in a node of ``shape``.

    Mixed factors are summed, free axes have length one, elements that the node does not depend on are left out. The
    first ``outer`` axes stay.

    sample (4, 3), node (3, 2) as above: array (4, 3) -> axis 0 summed (3,) -> a free axis behind (3, 1).
    sample (6,), node (3, 2, 5) = reshape(z, (3, 2))[:, :, None] * np.ones(5): (6,) -> factors (3, 2) -> (3, 2, 1).
    """
    if is_whole(tie):
        return array
    outer_shape = array.shape[:outer]
    for a, pick in enumerate(tie.picks):
        if pick is not None:
            array = np.take(array, np.array(pick), axis=outer + a)
    factors, sizes = _factors(picked(tie), tie.axes)
    labels = [label for axis in tie.axes for label in axis]
    array = np.reshape(array, outer_shape + tuple(sizes))
    array = _arranged(array, factors, [f for f, _ in labels if f in factors], outer)
    array = np.reshape(array, outer_shape + tuple([n if f in factors else 1 for f, n in labels]))
    # a part of an axis is tied, a part free
    if any(len({f in factors for f, n in axis if n > 1}) > 1 for axis in tie.axes):
        array = np.broadcast_to(array, outer_shape + tuple([n for _, n in labels]))
        return np.reshape(array, outer_shape + shape)
    return np.reshape(
        array, outer_shape + tuple([math.prod([n if f in factors else 1 for f, n in axis]) for axis in tie.axes])
    )


def gather(array: Value, tie: Tie, outer: int = 0) -> Value:
    """The transpose of ``spread``: an array over a node summed into ``picked(tie)``, of length one along axes that are
    mixed.

    sample (4, 3), node (3, 2) as above: array (3, 2) -> the free axis summed (3,) -> a mixed axis before it (1, 3).
    """
    outer_shape = array.shape[:outer]
    shape = tuple([math.prod([n for _, n in axis]) for axis in tie.axes])
    array = np.broadcast_to(array, outer_shape + shape) if array.shape != outer_shape + shape else array
    if is_whole(tie):
        return array
    factors, sizes = _factors(picked(tie), tie.axes)
    labels = [label for axis in tie.axes for label in axis]
    left = [f for f in factors if f in {label for label, _ in labels}]
    array = np.reshape(array, outer_shape + tuple([n for _, n in labels]))
    array = _arranged(array, [f for f, _ in labels], left, outer)
    array = np.reshape(array, outer_shape + tuple([n if f in left else 1 for f, n in zip(factors, sizes, strict=True)]))
    coarse = [
        math.prod([m for f, m in zip(factors, sizes, strict=True) if f[0] == a and f in left])
        for a in range(len(tie.batch))
    ]
    # a part of an axis is tied, a part mixed
    if any(tied not in (1, n) for tied, n in zip(coarse, picked(tie), strict=True)):
        return np.reshape(np.broadcast_to(array, outer_shape + tuple(sizes)), outer_shape + picked(tie))
    return np.reshape(array, outer_shape + tuple(coarse))


def _arranged(array: Value, before: Sequence[Factor], after: Sequence[Factor], outer: int) -> Value:
    """An array whose axes behind the ``outer`` ones stand for the factors ``before``, summed over those that are not
    among ``after``, in their order.

    before (f, None, g), after (g, f): array (4, 2, 3) -> summed over axis 1 (4, 3) -> transposed (3, 4).
    """
    gone = tuple([outer + i for i, f in enumerate(before) if f not in after])
    array = np.sum(array, axis=gone) if gone else array
    left = [f for f in before if f in after]
    if left == after:
        return array
    return np.transpose(array, [*range(outer), *[outer + left.index(f) for f in after]])


def unpicked(array: Value, tie: Tie, outer: int = 0) -> Value:
    """What ``gather`` returned with zeros for the elements that the node does not depend on."""
    for a, pick in enumerate(tie.picks):
        if pick is not None:
            axis = outer + a
            shape = array.shape[:axis] + (tie.batch[a],) + array.shape[axis + 1 :]
            array = np.broadcast_to(array, array.shape[:axis] + (len(pick),) + array.shape[axis + 1 :])
            array = scatter_p(array, index=(*[slice(None)] * axis, np.array(pick)), shape=shape)
    return array


def _factors(batch: tuple[int, ...], labels: Labels) -> tuple[list[tuple[int, int, int]], list[int]]:
    """The factors into which the labels cut the axes of a batch, slowest first, and their sizes."""
    factors: list[tuple[int, int, int]] = []
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


def aligned(before: Tie, k: int, alignment: Alignment) -> Tie:
    """The tie of operand k carried to the output's axes by an alignment."""
    result, sources = alignment
    image: dict[Hashable, Axis] = {}
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


def indexed(before: Tie, index: Operands, shape: tuple[int, ...]) -> Tie:
    """The tie of ``x[index]`` for integers, slices, new axes and an ellipsis."""
    picks: list[tuple[int, ...] | None] = list(before.picks)
    after: list[Axis] = []
    axis = 0
    for i in indices.spelled_out(index, len(shape)):
        if i is None:
            after.append(((None, 1),))
            continue
        labels, n = before.axes[axis], shape[axis]
        chosen = range(n)[i]
        factor = labels[0][0] if len(labels) == 1 else None
        whole: Sequence[int] = () if factor is None else before.picks[factor[0]] or range(before.batch[factor[0]])
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


def _cut(labels: Axis, sizes: list[int]) -> list[Axis] | None:
    """Labels of one axis cut into consecutive groups of the given sizes, a factor split where it must be; None where it
    cannot."""
    pieces, queue = [], list(labels)
    for size in sizes:
        piece: list[tuple[Factor, int]] = []
        while size > 1:
            if not queue:
                return None
            factor, n = queue.pop(0)
            if size % n == 0:
                piece.append((factor, n))
                size //= n
            elif n % size == 0:  # the slow part here, the fast part for the next group
                slow, fast = _split(factor, n, n // size)
                piece.append(slow)
                queue.insert(0, fast)
                size = 1
            else:
                return None
        pieces.append(tuple(piece))
    return pieces


def _split(factor: Factor, size: int, fast: int) -> tuple[tuple[Factor, int], tuple[Factor, int]]:
    """A factor as a slow and a fast part, the fast one of the given size."""
    if factor is None:
        return (None, size // fast), (None, fast)
    axis, stride, _ = factor
    return ((axis, stride * fast, size // fast), size // fast), ((axis, stride, fast), fast)


def agreed(a: Tie, b: Tie) -> Tie:
    """What two paths from the same sample agree on: a factor is tied only where both tie it to the same place, and the
    picks are joined.

    sample (3, 3), node (3, 3) = z + z.T: one path ties axis 0 to axis 0, the other to axis 1 -> both axes are free.
    """
    if a == b:
        return a
    different = {axis for axis, (p, q) in enumerate(zip(a.picks, b.picks, strict=True)) if p != q}
    joined = [
        p if p == q else None if p is None or q is None else tuple(sorted({*p, *q}))
        for p, q in zip(a.picks, b.picks, strict=True)
    ]
    labels = []
    for x, y in zip(a.axes, b.axes, strict=True):
        labels.append(
            tuple(
                [
                    (f if f == h and f is not None and f[0] not in different else None, n)
                    for (f, n), (h, _) in zip(*_alike(x, y), strict=True)
                ]
            )
        )
    return Tie(_once(tuple(labels)), tuple(joined), a.batch)


def _alike(x: Axis, y: Axis) -> tuple[Axis, Axis]:
    """The labels of one axis on two paths, cut into the same sizes: those of one that refines the other, else one free
    label.

    sizes (6,) and (3, 2): the first is cut into (3, 2); sizes (3, 2) and (2, 3): free, of size 6.
    """
    if x == y:
        return x, y
    for one, other, swapped in ((x, y, False), (y, x, True)):
        pieces = _cut(one, [n for _, n in other])
        if pieces is not None and all(len(piece) == 1 for piece in pieces):
            cut = tuple([piece[0] for piece in pieces])
            return (other, cut) if swapped else (cut, other)
    free = ((None, math.prod([n for _, n in x])),)
    return free, free


def _once(labels: Labels) -> Labels:
    """Labels in which no factor of the sample stands twice (a factor on two axes ties neither)."""
    seen = [f for axis in labels for f, _ in axis if f is not None]
    twice = {f for f in seen if seen.count(f) > 1}
    return tuple([tuple([(None if f in twice else f, n) for f, n in axis]) for axis in labels]) if twice else labels
