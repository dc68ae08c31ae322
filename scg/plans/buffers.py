"""Which buffer each result lives in: a buffer is free again when its last reader has run, and an elementwise map writes
over an operand that dies."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from scg.plans.kernels import is_elementwise, view
from scg.plans.program import Op, Operations
from scg.plans.rows import keeps_order

ALIGNMENT = 64


class Assignment(NamedTuple):
    """``block`` of each operation that has a buffer of its own (by id), the ``sizes`` of the blocks in bytes, and how
    many results were written in place."""

    block: dict[int, int]
    sizes: list[int]
    in_place: int


def origin(op: Op) -> Op:
    """The operation whose memory a view shows."""
    while view(op) is not None and not op.copies and type(op.args[0]) is Op:
        op = op.args[0]
    return op


def is_step(op: Op) -> bool:
    """Whether something is to be done for it at a call: it is no array of the caller's, and no view."""
    return not op.is_given and (view(op) is None or op.copies or type(op.args[0]) is not Op)


def assign(program: Operations, own: set[int]) -> Assignment:
    """Blocks for all results but those in ``own`` (by id), which have memory of their own, those of several results,
    and temporaries of regions."""
    region_of = {id(op): region for region in program.regions for op in region.members}
    temporary = {i for region in program.regions for i in region.temporaries}
    last: dict[int, int] = {}  # the last reader
    release: dict[int, int] = {}  # when the buffer is free: for what a region reads, at its end
    index = {id(op): k for k, op in enumerate(program.ops)}
    for k, op in enumerate(program.ops):
        end = index[id(region_of[id(op)].members[-1])] if id(op) in region_of else k
        for a in op.args:
            if type(a) is Op:
                last[id(origin(a))], release[id(origin(a))] = k, end
    for o in program.outputs:
        if type(o) is Op:
            last[id(origin(o))] = release[id(origin(o))] = len(program.ops)
    block: dict[int, int] = {}
    holder: dict[int, int] = {}  # by block: the operation whose result is in it
    sizes: list[int] = []
    free: list[int] = []
    freed: dict[int, list[int]] = {}
    in_place = 0
    for k, op in enumerate(program.ops):
        if (
            not (op.is_given or op.is_check)
            and op.dtype is not None
            and origin(op) is op
            and id(op) not in own
            and id(op) not in temporary
        ):
            beside = region_of[id(op)].members if id(op) in region_of else [op]
            over = _dying(op, k, last, block, beside) if is_elementwise(op) else None
            fits = [b for b in free if op.nbytes <= sizes[b] <= 2 * op.nbytes + 1024]
            if over is not None:
                chosen = block[id(over)]
                in_place += 1
            elif fits:
                chosen = min(fits, key=sizes.__getitem__)
                free.remove(chosen)
            else:
                chosen = len(sizes)
                sizes.append(op.nbytes)
            block[id(op)], holder[chosen] = chosen, id(op)
            # what nobody reads are numbers that move their generator on
            freed.setdefault(release.get(id(op), k), []).append(id(op))
        free += [block[i] for i in freed.pop(k, ()) if holder[block[i]] == i]
    return Assignment(block, sizes, in_place)


def _dying(op: Op, k: int, last: dict[int, int], block: dict[int, int], beside: Sequence[Op]) -> Op | None:
    """An operand of the same shape and dtype that nobody reads later: its buffer can be written over, element by
    element.

    Nor may one of those ``beside``, which run part by part with it, read the same memory otherwise (transposed, say).
    """
    for a in op.args:
        if type(a) is not Op or a.shape != op.shape or a.dtype != op.dtype:
            continue
        o = a
        while o is not origin(o) and keeps_order(o) and not o.copies:
            o = o.args[0]
        seen_otherwise = any(
            [b is not a and type(b) is Op and origin(b) is origin(o) for other in beside for b in other.args]
        )
        if o is origin(o) and last[id(o)] == k and id(o) in block and o.nbytes == op.nbytes and not seen_otherwise:
            return o
    return None


def aligned(nbytes: int) -> np.ndarray:
    """Bytes that begin at a cache line."""
    raw = np.empty(nbytes + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + nbytes]
