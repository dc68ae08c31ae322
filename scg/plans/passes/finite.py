"""Results looked at for what is not finite, where it is cheap: a large product through its factors, |sum a b| <= |a| |b|, which are often smaller."""

from scg.plans.program import FINITE, Op, Program
from scg.primitives import contraction

LARGE = 2**14
"""Elements of a product from which on its factors are looked at."""


def finite(program: Program) -> int:
    """Add the tests of the results in ``program.checked`` (of all results, where a pass has struck that may overflow)."""
    wanted = {}
    for k, value in enumerate(program.outputs):
        if type(value) is Op and value.dtype is not None and value.dtype.kind in "fc" and (program.risky or k in program.checked):
            wanted[id(value)] = value
    products = {id(product): product for o in wanted.values() if (product := _product(o)) is not None}
    ops: list[Op] = []
    for op in program.ops:
        ops.append(op)
        if id(op) in products:  # while the factors are in the cache, and in their buffers
            ops.append(Op(FINITE, (op, *op.args), {}, (), op.dtype))
    program.ops = [*ops, *[Op(FINITE, (o,), {}, (), o.dtype) for o in wanted.values() if _product(o) is None]]
    return len(wanted)


def _product(op: Op) -> Op | None:
    """The product that a result is, if its factors have fewer elements than it has."""
    while op.rule.name == "reshape" and type(op.args[0]) is Op:
        op = op.args[0]
    small = op.rule is contraction._matmul and op.dtype.kind == "f" and all([type(a) is Op and len(a.shape) == 2 for a in op.args])
    return op if small and sum([a.size for a in op.args]) < op.size and op.size >= LARGE else None
