"""Views told from copies: a reshape across strides cannot be a view, and gets a buffer."""

import numpy as np

from scg.plans.kernels import view
from scg.plans.program import HELD, Op, Program


def copies(program: Program) -> int:
    """Mark the operations that look like views and are none. Buffers and arguments are contiguous, so that shapes tell."""
    shown: dict[int, np.ndarray] = {}  # arrays laid out as the operations will be, without memory of their own size
    count = 0
    for op in program.ops:
        look = view(op)
        if look is None or not op.args or type(op.args[0]) is not Op:
            if op.dtype is not None:
                shown[id(op)] = op.statics["array"] if op.rule is HELD else np.empty(op.shape, op.dtype)
            continue
        source = shown[id(op.args[0])]
        seen = look(source)
        if source.size and not np.may_share_memory(seen, source):
            op.statics = {**op.statics, "copies": True}
            seen = np.empty(op.shape, op.dtype)
            count += 1
        shown[id(op)] = seen
    return count
