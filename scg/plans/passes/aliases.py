"""Names for the same array dropped: aliases, held constants of a derivative, and pathwise draws are their first
operand."""

import numpy as np

from scg.core.node import RULES
from scg.plans.program import Op, Program
from scg.primitives import layout
from scg.stochastic.sites import path

_SAME = (layout.alias, layout.stop_gradient, path, RULES[np.positive])


def aliases(program: Program) -> int:
    """Put the operand in their place; a plan takes no derivatives."""
    return program.rewrite(
        lambda op, add: (
            op.args[0] if op.rule in _SAME and type(op.args[0]) is Op and op.args[0].dtype == op.dtype else None
        )
    )
