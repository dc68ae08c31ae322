"""Sums of squares, by which arrays are seen to be finite: one call of BLAS where a test of every element takes three of
NumPy, and a bound for products."""

import numpy as np

from scg.plans.buffers import origin
from scg.plans.program import Op, Operations
from scg.primitives import contraction, layout

FLAT = 2**13
"""Elements up to which an array is one row: longer rows would wake the other threads of a BLAS."""


def norm(x: Op, program: Operations) -> Op | None:
    """The operation that adds up the squares of ``x``, or of an array of which it is a view: all of them, or row by
    row. None where there is none."""
    whole = origin(x)
    x = whole if whole.size <= 4 * x.size else x
    if x.dtype not in (np.float32, np.float64) or not x.size:
        return None
    found = next(
        (op for op in program.ops if op.primitive is contraction.dot_p and all([_shows(a, x) for a in op.args])), None
    )
    if found is not None:
        return found
    made = []
    row = x
    if len(x.shape) != 1 and x.size <= FLAT:
        row = x.like(layout.reshape_p, x, shape=(x.size,))
        row.statics["shape"] = row.shape
        made.append(row)
    made.append(row.like(contraction.dot_p, row, row, shape=row.shape[:-1]))
    at = next(k for k, op in enumerate(program.ops) if op is x) + 1
    program.ops[at:at] = made  # while it is in the cache, and in its buffer
    return made[-1]


def _shows(a: object, x: Op) -> bool:
    """Whether this is all of ``x``, in some shape."""
    return a is x or type(a) is Op and a.primitive is layout.reshape_p and a.args[0] is x
