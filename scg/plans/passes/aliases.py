"""Names for the same array dropped: aliases, what differs in its derivative alone, and pathwise draws are their first
operand."""

from scg.plans.kernels import itself, view
from scg.plans.program import Op, Operations


def aliases(program: Operations) -> int:
    """Put the operand in their place; a plan takes no derivatives."""
    return program.rewrite(lambda op, add: op.args[0] if _is_same(op) else None)


def _is_same(op: Op) -> bool:
    if op.dtype is None or view(op) is not itself and not op.primitive.same:
        return False
    x = op.args[0]
    return type(x) is Op and x.dtype == op.dtype and x.shape == op.shape
