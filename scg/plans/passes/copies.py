"""Views told from copies: a reshape across strides cannot be a view, and gets a buffer."""

import numpy as np

from scg.plans.kernels import view
from scg.plans.program import Op, Operations


def copies(program: Operations) -> int:
    """Mark the operations that look like views and are none: shapes tell, as buffers are contiguous. Of an argument
    that is not, nothing is known but that."""
    shown: dict[int, np.ndarray] = {}  # arrays laid out as the operations will be, without memory of their own size
    count = 0
    for op in program.ops:
        look = view(op)
        if look is None or not op.args or type(op.args[0]) is not Op:
            if op.dtype is not None:
                shown[id(op)] = (
                    op.statics["array"]
                    if op.is_held
                    else _scattered(op)
                    if op.is_given and _is_strided(op.value)
                    else np.empty(op.shape, op.dtype)
                )
            continue
        source = shown[id(op.args[0])]
        seen = look(source)
        if source.size and not np.may_share_memory(seen, source):
            op.copies = True
            seen = np.empty(op.shape, op.dtype)
            count += 1
        shown[id(op)] = seen
    return count


def _is_strided(x: object) -> bool:
    return isinstance(x, np.ndarray) and not x.flags.c_contiguous


def _scattered(op: Op) -> np.ndarray:
    """An array of the operation's shape no two axes of which lie side by side."""
    return np.empty(tuple([2 * n for n in op.shape]), op.dtype)[(slice(None, None, 2),) * len(op.shape)]
