"""Which buffer each result lives in: a buffer is free again when its last reader has run, and an elementwise map writes over an operand that dies."""

from typing import Any, NamedTuple

import numpy as np

from scg.plans.kernels import is_elementwise, view
from scg.plans.program import CHOICE, HELD, Op, Program
from scg.plans.recording import INPUT

ALIGNMENT = 64


class Assignment(NamedTuple):
    """``block`` of each operation that has a buffer of its own (by id), the ``sizes`` of the blocks in bytes, and how many results were written in place."""

    block: dict[int, int]
    sizes: list[int]
    in_place: int


def origin(op: Op) -> Op:
    """The operation whose memory a view shows."""
    while view(op) is not None and not is_copy(op) and type(op.args[0]) is Op:
        op = op.args[0]
    return op


def is_copy(op: Op) -> bool:
    """Whether what is a view elsewhere has to be a copy: a reshape across strides."""
    return op.statics.get("copies", False)


def assign(program: Program, own: set[int]) -> Assignment:
    """Blocks for all results but those in ``own`` (by id), which have memory of their own, and those of several results."""
    last: dict[int, int] = {}
    for k, op in enumerate(program.ops):
        for a in op.args:
            if type(a) is Op:
                last[id(origin(a))] = k
    for o in program.outputs:
        if type(o) is Op:
            last[id(origin(o))] = len(program.ops)
    block: dict[int, int] = {}
    sizes: list[int] = []
    free: list[int] = []
    in_place = 0
    for k, op in enumerate(program.ops):
        dying = {id(o): o for a in op.args if type(a) is Op and last[id(o := origin(a))] == k and id(o) in block}
        if op.rule not in (INPUT, HELD, CHOICE) and op.dtype is not None and origin(op) is op and id(op) not in own:
            over = None
            if is_elementwise(op):
                over = next((o for o in dying.values() if o.shape == op.shape and o.dtype == op.dtype and any([o is a for a in op.args])), None)
            if over is not None:
                block[id(op)] = block[id(over)]
                del dying[id(over)]
                in_place += 1
            else:
                fits = [b for b in free if op.nbytes <= sizes[b] <= 2 * op.nbytes + 1024]
                if fits:
                    chosen = min(fits, key=sizes.__getitem__)
                    free.remove(chosen)
                else:
                    chosen = len(sizes)
                    sizes.append(op.nbytes)
                block[id(op)] = chosen
            if id(op) not in last:  # nobody reads it: a draw that only moves its generator on
                dying[id(op)] = op
        free += [block[i] for i in dying]
    return Assignment(block, sizes, in_place)


def aligned(nbytes: int) -> Any:
    """Bytes that begin at a cache line."""
    raw = np.empty(nbytes + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + nbytes]
