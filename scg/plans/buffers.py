"""Which buffer each result lives in: a buffer is free again when its last reader has run, and an elementwise map writes
over an operand that dies."""

import bisect
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


def is_origin(op: Op) -> bool:
    """Whether it is no view of another operation."""
    return view(op) is None or op.copies or type(op.args[0]) is not Op


def origin(op: Op) -> Op:
    """The operation whose memory a view shows."""
    while not is_origin(op):
        op = op.args[0]
    return op


def is_step(op: Op) -> bool:
    """Whether something is to be done for it at a call: it is no array of the caller's, and no view."""
    return not op.is_given and is_origin(op)


def assign(program: Operations, own: set[int]) -> Assignment:
    """Blocks for all results but those in ``own`` (by id), which have memory of their own, those of several results,
    and temporaries of regions."""
    region_of = {id(op): region for region in program.regions for op in region.members}
    temporary = {i for region in program.regions for i in region.temporaries}
    last: dict[int, int] = {}  # the last reader
    release: dict[int, int] = {}  # when the buffer is free: for what a region reads, at its end
    index = {id(op): k for k, op in enumerate(program.ops)}
    whole: dict[int, Op] = {}  # the origin of each
    for op in program.ops:
        shown = op.args[0] if op.args and not is_origin(op) else op
        whole[id(op)] = whole.get(id(shown)) or origin(shown)
    for k, op in enumerate(program.ops):
        end = index[id(region_of[id(op)].members[-1])] if id(op) in region_of else k
        for a in op.args:
            if type(a) is Op:
                i = id(whole.get(id(a)) or origin(a))
                last[i], release[i] = k, end
    for o in program.outputs:
        if type(o) is Op:
            last[id(origin(o))] = release[id(origin(o))] = len(program.ops)
    block: dict[int, int] = {}
    holder: dict[int, int] = {}  # by block: the operation whose result is in it
    sizes: list[int] = []
    free: list[tuple[int, int]] = []  # sizes and blocks, by rising size
    freed: dict[int, list[int]] = {}
    in_place = 0
    for k, op in enumerate(program.ops):
        if (
            not (op.is_given or op.is_check)
            and op.dtype is not None
            and whole[id(op)] is op
            and id(op) not in own
            and id(op) not in temporary
        ):
            beside = region_of[id(op)].members if id(op) in region_of else [op]
            over = _dying(op, k, last, block, beside, whole) if is_elementwise(op) else None
            nbytes = op.nbytes
            fit = bisect.bisect_left(free, (nbytes, -1))
            if over is not None:
                chosen = block[id(over)]
                in_place += 1
            elif fit < len(free) and free[fit][0] <= 2 * nbytes + 1024:
                chosen = free.pop(fit)[1]
            else:
                chosen = len(sizes)
                sizes.append(nbytes)
            block[id(op)], holder[chosen] = chosen, id(op)
            # what nobody reads are numbers that move their generator on
            freed.setdefault(release.get(id(op), k), []).append(id(op))
        for i in freed.pop(k, ()):
            if holder[block[i]] == i:
                bisect.insort(free, (sizes[block[i]], block[i]))
    return Assignment(block, sizes, in_place)


def _dying(
    op: Op, k: int, last: dict[int, int], block: dict[int, int], beside: Sequence[Op], whole: dict[int, Op]
) -> Op | None:
    """An operand of the same shape and dtype that nobody reads later: its buffer can be written over, element by
    element.

    Nor may one of those ``beside``, which run part by part with it, read the same memory otherwise (transposed, say).
    """
    for a in op.args:
        if type(a) is not Op or a.shape != op.shape or a.dtype != op.dtype:
            continue
        o, memory = a, whole.get(id(a)) or origin(a)
        while o is not memory and keeps_order(o) and not o.copies:
            o = o.args[0]
        if o is not memory or last[id(o)] != k or id(o) not in block or o.nbytes != op.nbytes:
            continue
        others = [b for other in beside for b in other.args if b is not a and type(b) is Op]
        if all([(whole.get(id(b)) or origin(b)) is not memory for b in others]):
            return o
    return None


def aligned(nbytes: int) -> np.ndarray:
    """Bytes that begin at a cache line."""
    raw = np.empty(nbytes + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + nbytes]
