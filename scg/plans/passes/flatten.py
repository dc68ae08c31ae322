"""Leading axes flattened before a contraction: a stack of rows times one matrix is one product, and many small ones
take twice its time."""

import math
from collections.abc import Callable

from scg.plans.program import Op, Operations
from scg.primitives import contraction, layout


def flatten(program: Operations) -> int:
    """(..., i, j) @ (j, k) as (rows, j) @ (j, k)."""

    def change(op: Op, add: Callable[[Op], Op]) -> Op | None:
        if op.primitive is not contraction.matmul_p:
            return None
        a, b = op.args
        if len(a.shape) < 3 or len(b.shape) != 2 or type(a) is not Op:
            return None
        flat = math.prod(a.shape[:-1])
        rows = add(Op(layout.reshape_p, (a,), {"shape": (flat, a.shape[-1])}, (flat, a.shape[-1]), a.dtype, op.line))
        product = add(op.like(op.primitive, rows, b, shape=(flat, b.shape[-1])))
        return add(Op(layout.reshape_p, (product,), {"shape": op.shape}, op.shape, op.dtype, op.line))

    return program.rewrite(change)
