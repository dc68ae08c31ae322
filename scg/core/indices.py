"""Indices of arrays: which axes they take, and where those stand in what is picked."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from scg.core.aliases import Operand, Operands


class Slot(NamedTuple):
    """Stands in an index for the operand at ``position``."""

    position: int


def is_advanced(i: object) -> bool:
    """Whether a part of an index is an array, or an integer that goes along with arrays."""
    return isinstance(i, (np.ndarray, Slot, int, np.integer))


def blocks_together(index: Operands) -> bool:
    """Whether the advanced parts of an index are neighbours, so that NumPy leaves the axes before them in place."""
    advanced = [is_advanced(i) for i in index]
    if not any(isinstance(i, (np.ndarray, Slot)) for i in index):
        return True
    first, last = advanced.index(True), len(advanced) - advanced[::-1].index(True)
    return all(advanced[first:last]) and not any(
        isinstance(i, np.ndarray) and i.dtype == bool and i.ndim == 0 for i in index
    )


def block_rank(index: Operands, ranks: Sequence[int]) -> int:
    """How many axes the advanced parts of an index broadcast to; ``ranks`` are those of the operands."""
    arrays = [1 if i.dtype == bool else i.ndim for i in index if isinstance(i, np.ndarray)]
    return max([*arrays, *[ranks[i.position] for i in index if isinstance(i, Slot)]], default=0)


def replicates(operands: Operands, batched: Sequence[bool], rank: int) -> np.ndarray:
    """0 ... R - 1 along a leading axis before ``rank`` others: the r-th indices belong to the r-th replicate."""
    return np.arange(operands[batched.index(True)].shape[0]).reshape(-1, *(1,) * rank)


def aligned_slices(index: Operands, shapes: Sequence[tuple[int, ...]]) -> tuple[list[tuple[int, int]], int, int]:
    """(operand axis, output axis) of the axes that an index takes whole and in order; the first output axis of its
    advanced parts, and their rank.

    x (5, 6, 7), x[:, k] with k (2, 3) -> (5, 2, 3, 7): axes 0 and 2 of x are 0 and 3 of the output, and k's begin at 1.
    Where advanced parts are no neighbours, NumPy puts their axes first: x[k, :, k] -> (2, 3, 6).
    """
    shape, rank = shapes[0], block_rank(index, [len(s) for s in shapes])
    parts = spelled_out(index, len(shape))
    start = next((k for k, i in enumerate(parts) if is_advanced(i)), 0) if rank and blocks_together(index) else 0
    axes = itertools.accumulate(map(_axes_taken, parts), initial=0)
    kept = [(axis, i) for axis, i in zip(axes, parts, strict=False) if not is_advanced(i)]  # each has an output axis
    pairs = [
        (axis, k if k < start else k + rank)
        for k, (axis, i) in enumerate(kept)
        if i is not None and i.indices(shape[axis]) == (0, shape[axis], 1)
    ]
    return pairs, start, rank


def is_basic(index: Operands) -> bool:
    """Whether an index is made of integers, slices, new axes and an ellipsis only."""
    return all(
        i is None or i is Ellipsis or isinstance(i, (slice, int, np.integer)) and not isinstance(i, bool) for i in index
    )


def spelled_out(index: Operands, ndim: int) -> list[Operand]:
    """An index of an array of ``ndim`` axes with a slice for every axis that an ellipsis, or nothing, stands for."""
    rest = [slice(None)] * (ndim - sum(map(_axes_taken, index)))
    at = next((k for k, i in enumerate(index) if i is Ellipsis), len(index))
    return [*index[:at], *rest, *index[at + 1 :]]


def _axes_taken(i: object) -> int:
    """How many axes of the indexed array a part of an index takes."""
    if isinstance(i, np.ndarray) and i.dtype == bool:
        return i.ndim
    return 0 if i is None or i is Ellipsis else 1
