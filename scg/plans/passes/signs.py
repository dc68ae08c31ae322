"""Operations that do nothing left out, and signs moved where they are free: the same numbers, bit for bit."""

from collections.abc import Callable

import numpy as np

from scg.core.aliases import Operand
from scg.plans.passes.expand import ADD, DIVIDE, MULTIPLY, NEGATIVE, SUBTRACT
from scg.plans.program import Op, Operations
from scg.primitives import layout


def signs(program: Operations) -> int:
    """--x = x, (-a)(-b) = ab, a + (-b) = a - b, a - (-b) = a + b, x - 0 = x, 1 x = x, x / 1 = x, broadcasting to the
    same shape."""
    return program.rewrite(_changed)


def _changed(op: Op, add: Callable[[Op], Op]) -> Op | None:
    primitive, args = op.primitive, op.args
    if primitive is NEGATIVE and _is(args[0], NEGATIVE):
        return args[0].args[0]
    if primitive is layout.broadcast_to_p and type(args[0]) is Op and args[0].shape == op.shape:
        return args[0]
    if len(args) != 2 or primitive not in (ADD, SUBTRACT, MULTIPLY, DIVIDE):
        return None
    a, b = args
    if primitive in (MULTIPLY, DIVIDE) and _is_minus(a) and _is_minus(b):
        return add(op.like(primitive, a.args[0], b.args[0]))
    if primitive in (ADD, SUBTRACT) and _is_minus(b):
        return add(op.like(SUBTRACT if primitive is ADD else ADD, a, b.args[0]))
    if primitive is ADD and _is_minus(a):
        return add(op.like(SUBTRACT, b, a.args[0]))
    neutral = {SUBTRACT: (0, b), DIVIDE: (1, b), MULTIPLY: (1, b)}.get(primitive)
    if neutral is not None and _stays(a, op) and _all(b, neutral[0]):
        return a
    if primitive is MULTIPLY and _stays(b, op) and _all(a, 1):
        return b
    return None


def _is(x: object, primitive: object) -> bool:
    return type(x) is Op and x.primitive is primitive


def _is_minus(x: Operand) -> bool:
    """Whether this is the negative of numbers that do not wrap: -np.uint8(1) is 255."""
    return _is(x, NEGATIVE) and x.dtype.kind in "fc"


def _stays(x: object, op: Op) -> bool:
    return type(x) is Op and x.shape == op.shape and x.dtype == op.dtype


def _all(x: object, number: float) -> bool:
    """Whether a constant is this number everywhere (and for zero, positive zero: x - (-0.0) could change a sign)."""
    if type(x) is Op:
        return False
    x = np.asarray(x)
    return x.dtype.kind in "fi" and bool((x == number).all()) and not (number == 0 and np.signbit(x).any())
