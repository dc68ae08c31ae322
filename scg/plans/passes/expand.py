"""Composites taken apart: sigmoid, softplus, log-sigmoid and log-sum-exp in ufuncs and reductions, which run into
buffers."""

from collections.abc import Callable
from typing import Any

import numpy as np

from scg.core.aliases import Operand, Shape
from scg.core.primitive import IMPLEMENTATIONS
from scg.plans.program import Op, Operations
from scg.primitives import choosing, elementwise, layout, reduction, special
from scg.special import logsumexp_p

EXP, LOG1P, EXPM1, ADD, SUBTRACT, MULTIPLY, DIVIDE, NEGATIVE, ABSOLUTE, MAXIMUM = [
    IMPLEMENTATIONS[fn]
    for fn in (
        np.exp,
        np.log1p,
        np.expm1,
        np.add,
        np.subtract,
        np.multiply,
        np.divide,
        np.negative,
        np.absolute,
        np.maximum,
    )
]


def expand(program: Operations) -> int:
    """Rewrite them by the formulas of their definitions: the same roundings."""
    return program.rewrite(_expanded)


def _expanded(op: Op, add: Callable[[Op], Op]) -> Op | None:
    primitive = op.primitive
    if primitive is elementwise.sigmoid and type(op.args[0]) is Op and op.dtype.kind == "f":
        (x,) = op.args
        e = add(op.like(EXP, add(op.like(NEGATIVE, x))))
        return add(op.like(DIVIDE, 1, add(op.like(ADD, 1, e))))
    if (
        primitive in (special.softplus, special.log_sigmoid)
        and op.dtype == getattr(op.args[0], "dtype", None)
        and type(op.args[0]) is Op
    ):
        (x,) = op.args
        e = add(op.like(EXP, add(op.like(NEGATIVE, add(op.like(ABSOLUTE, x))))))
        small = add(op.like(LOG1P, e))
        if primitive is special.softplus:
            return add(op.like(ADD, add(op.like(MAXIMUM, x, 0)), small))
        return add(op.like(SUBTRACT, add(op.like(IMPLEMENTATIONS[np.minimum], x, 0)), small))
    if primitive is logsumexp_p and type(op.args[0]) is Op and op.args[0].size and op.dtype == op.args[0].dtype:
        return _log_sum_exp(op, add)
    return None


def _log_sum_exp(op: Op, add: Callable[[Op], Op]) -> Op:
    """log sum exp(x - m) + m, with m the greatest element where that is finite, else 0."""
    (x,), axis = op.args, op.statics["axis"]
    gone = {a % len(x.shape) for a in axis} if axis is not None else set(range(len(x.shape)))
    kept = tuple([1 if a in gone else n for a, n in enumerate(x.shape)])

    def make(primitive: Any, *args: Operand, shape: Shape = kept, dtype: np.dtype = op.dtype, **statics: object) -> Op:
        return add(Op(primitive, args, statics, shape, dtype, op.line))

    top = make(reduction.max_p, x, axis=axis, keepdims=True)
    top = make(
        choosing.where_p, make(IMPLEMENTATIONS[np.isfinite], top, dtype=np.dtype(bool)), top, np.zeros((), op.dtype)
    )
    e = make(EXP, make(SUBTRACT, x, top, shape=x.shape), shape=x.shape)
    out = make(ADD, make(IMPLEMENTATIONS[np.log], make(reduction.sum_p, e, axis=axis, keepdims=True)), top)
    return (
        out if op.shape == kept else add(Op(layout.reshape_p, (out,), {"shape": op.shape}, op.shape, op.dtype, op.line))
    )
