"""Composite maps taken apart: sigmoid, softplus and log-sigmoid in ufuncs, which run into buffers; and scg's own VJPs find their terms in them."""

from typing import Any

import numpy as np

from scg.graph import RULES
from scg.plans.program import Op, Program
from scg.primitives import elementwise, special

EXP, LOG1P, EXPM1, ADD, SUBTRACT, MULTIPLY, DIVIDE, NEGATIVE, ABSOLUTE, MAXIMUM = [
    RULES[fn] for fn in (np.exp, np.log1p, np.expm1, np.add, np.subtract, np.multiply, np.divide, np.negative, np.absolute, np.maximum)
]


def expand(program: Program) -> int:
    """Rewrite them by the formulas of their definitions: the same roundings."""
    return program.rewrite(_expanded)


def _expanded(op: Op, add: Any) -> Op | None:
    rule = op.rule
    if rule is elementwise.sigmoid and type(op.args[0]) is Op and op.dtype.kind == "f":
        (x,) = op.args
        e = add(op.like(EXP, add(op.like(NEGATIVE, x))))
        return add(op.like(DIVIDE, 1, add(op.like(ADD, 1, e))))
    if rule in (special.softplus, special.log_sigmoid) and op.dtype == getattr(op.args[0], "dtype", None) and type(op.args[0]) is Op:
        (x,) = op.args
        e = add(op.like(EXP, add(op.like(NEGATIVE, add(op.like(ABSOLUTE, x))))))
        small = add(op.like(LOG1P, e))
        if rule is special.softplus:
            return add(op.like(ADD, add(op.like(MAXIMUM, x, 0)), small))
        return add(op.like(SUBTRACT, add(op.like(RULES[np.minimum], x, 0)), small))
    return None
