"""One exponential for softplus and its derivative: log(1 + e) and e / (1 + e) with e = exp(x), in place of eleven
passes.

Accurate in both tails, but infinite where exp(x) overflows (x > 88 in float32, > 709 in float64). log(1 + e) is
therefore looked at: where it is not finite, the call runs again as it was written, and so do all later ones with its
shapes.
"""

from collections.abc import Callable

from scg.core.aliases import Operand
from scg.plans.passes.expand import ADD, DIVIDE, EXP, EXPM1, LOG1P, NEGATIVE
from scg.plans.program import Op, Operations
from scg.primitives import special


def softplus(program: Operations) -> int:
    """softplus(x) = log1p(e); its slope, -expm1(-softplus(x)), = e / (1 + e). Before the composite maps are taken
    apart."""
    exponentials: dict[int, Op] = {}
    operands: dict[int, Operand] = {}  # by id of log1p(e): x

    def change(op: Op, add: Callable[[Op], Op]) -> Op | None:
        if (
            op.primitive is special.softplus
            and type(op.args[0]) is Op
            and op.args[0].dtype == op.dtype
            and op.dtype.kind == "f"
        ):
            x = op.args[0]
            e = exponentials.get(id(x)) or exponentials.setdefault(id(x), add(op.like(EXP, x)))
            made = add(op.like(LOG1P, e))
            program.watch(made)
            operands[id(made)] = made, e
            return made
        found = _slope_of(op, operands)
        return None if found is None else add(op.like(DIVIDE, found, add(op.like(ADD, found, 1))))

    count = program.rewrite(change)
    program.risky = program.risky or count > 0
    return count


def _slope_of(op: Op, operands: dict[int, Operand]) -> Op | None:
    """The exponential behind negative(expm1(negative(softplus(x))))."""
    for primitive in (NEGATIVE, EXPM1, NEGATIVE):
        if op.primitive is not primitive or type(op.args[0]) is not Op:
            return None
        op = op.args[0]
    return operands[id(op)][1] if id(op) in operands else None
