"""Names for the same array dropped: aliases, held constants of a derivative, and pathwise draws are their first
operand."""

from scg.plans.kernels import itself, view
from scg.plans.program import Op, Program


def aliases(program: Program) -> int:
    """Put the operand in their place; a plan takes no derivatives."""
    return program.rewrite(
        lambda op, add: (
            op.args[0] if view(op) is itself and type(op.args[0]) is Op and op.args[0].dtype == op.dtype else None
        )
    )
