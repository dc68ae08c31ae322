"""Sums over the last axis as row-wise products: sum(a b) needs no array for a b, and BLAS adds long rows in half the
time. Roundings differ."""

from collections.abc import Callable

import numpy as np

from scg.plans.passes.expand import MULTIPLY, SUBTRACT
from scg.plans.program import Op, Operations
from scg.primitives import contraction, reduction

LARGE = 4096
"""Elements from which on a sum is worth another form."""

LONG = 64
"""Elements in a row from which on its sum is taken by BLAS."""


def sums(program: Operations) -> int:
    """For large arrays of floats."""
    users = program.users()
    return program.rewrite(lambda op, add: _changed(op, add, users))


def _changed(op: Op, add: Callable[[Op], Op], users: dict[int, list[Op]]) -> Op | None:
    if (
        op.primitive is not reduction.sum_p
        or type(op.args[0]) is not Op
        or op.dtype.kind != "f"
        or op.args[0].dtype != op.dtype
    ):
        return None
    x = op.args[0]
    axis = op.statics["axis"]
    if x.size < LARGE or axis is None or not axis:
        return None
    axes = sorted([a % len(x.shape) for a in axis])
    n = len(x.shape)
    if axes == [n - 1] and not op.statics["keepdims"]:
        return _over_rows(op, x, add, users)
    return None


def _over_rows(op: Op, x: Op, add: Callable[[Op], Op], users: dict[int, list[Op]]) -> Op | None:
    alone = len(users.get(id(x), ())) == 1
    if x.primitive is MULTIPLY and alone and _fits(x):
        return add(op.like(contraction.dot_p, *x.args))
    if x.primitive is SUBTRACT and alone and all([type(a) is Op and a.shape == x.shape for a in x.args]):
        a, b = x.args
        if a.primitive is MULTIPLY and len(users.get(id(a), ())) == 1 and _fits(a):
            return add(op.like(SUBTRACT, add(op.like(contraction.dot_p, *a.args)), add(_rows_of(op, b))))
    return add(_rows_of(op, x)) if x.shape[-1] >= LONG else None


def _rows_of(op: Op, x: Op) -> Op:
    """A sum over long rows is their product with ones: BLAS takes half the time of NumPy's pairwise sum."""
    if x.shape[-1] < LONG:
        return Op(op.primitive, (x,), op.statics, op.shape, op.dtype, op.line)
    return op.like(contraction.dot_p, x, np.ones(x.shape[-1:], x.dtype))


def _fits(x: Op) -> bool:
    """Whether both factors have the last axis in full."""
    return all([type(a) is Op and a.dtype == x.dtype and a.shape[-1:] == x.shape[-1:] for a in x.args])
