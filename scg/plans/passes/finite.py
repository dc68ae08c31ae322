"""Results looked at for what is not finite, where it is cheap: a large product through its factors, |sum a b| <= |a| |b|, which are often smaller; the
elements of a large array through its products with rows, which are finite only if these are.
"""

from scg.plans.program import FINITE, Op, Program
from scg.primitives import contraction

LARGE = 2**14
"""Elements from which on another place is looked for."""


def finite(program: Program) -> int:
    """Add the tests of the outputs in ``program.checked``, and drop those that were there to be looked at only."""
    wanted = {}
    for k in sorted(program.checked):
        value = program.outputs[k]
        if type(value) is Op and value.dtype is not None and value.dtype.kind in "fc":
            value = _folded(value, program)
            wanted[id(value)] = value
    del program.outputs[program.kept :]
    products = {id(product): product for o in wanted.values() if (product := _product(o)) is not None}
    factors = {id(_unshaped(a)) for product in products.values() for a in product.args}  # which are looked at with the product
    ops: list[Op] = []
    for op in program.ops:
        ops.append(op)
        if id(op) in products:  # while the factors are in the cache, and in their buffers
            ops.append(Op(FINITE, (op, *op.args), {}, (), op.dtype))
        elif id(op) in wanted and id(op) not in factors and _product(op) is None:
            ops.append(Op(FINITE, (op,), {}, (), op.dtype))
    program.ops = ops
    return len(wanted)


def _product(op: Op) -> Op | None:
    """The product that a result is, if its factors have fewer elements than it has."""
    op = _unshaped(op)
    small = op.rule is contraction._matmul and op.dtype.kind == "f" and all([type(a) is Op and len(a.shape) == 2 for a in op.args])
    return op if small and sum([a.size for a in op.args]) < op.size and op.size >= LARGE else None


def _folded(op: Op, program: Program) -> Op:
    """A product with the rows of a large array, where there is one, in its place."""
    if op.size < LARGE or op.dtype.kind != "f":
        return op
    return next((o for o in program.ops if o.rule is contraction._dot and any([a is op for a in o.args]) and o.size * op.shape[-1] == op.size), op)


def _unshaped(op: Op) -> Op:
    while op.rule.name in ("reshape", "transpose") and type(op.args[0]) is Op:
        op = op.args[0]
    return op
