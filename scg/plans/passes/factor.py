"""Common factors taken out: w a + w b = w (a + b), which is a product of large arrays less. Roundings differ, and a + b
may overflow: the product is looked at."""

from collections.abc import Callable

import numpy as np

from scg.core.aliases import Operand
from scg.plans.passes.expand import ADD, MULTIPLY, NEGATIVE, SUBTRACT
from scg.plans.program import Op, Operations
from scg.primitives import layout


def factor(program: Operations) -> int:
    """For sums and differences of two products that nobody else takes; a factor may stand with either sign."""
    users = program.users()

    def change(op: Op, add: Callable[[Op], Op]) -> Op | None:
        made = taken(op, add)
        if made is not None:
            program.watch(made)
        return made

    def taken(op: Op, add: Callable[[Op], Op]) -> Op | None:
        if op.primitive not in (ADD, SUBTRACT) or not all(
            [
                type(a) is Op and a.primitive is MULTIPLY and len(users.get(id(a), ())) == 1 and a.shape == op.shape
                for a in op.args
            ]
        ):
            return None
        (a, b), (c, d) = op.args[0].args, op.args[1].args
        for w, x in ((a, b), (b, a)):
            for v, y in ((c, d), (d, c)):
                found = _common(w, v)
                if found is None or not _whole(x, y, op):
                    continue
                base, first, second = found  # w = first * base, v = second * base
                second = second if op.primitive is ADD else -second
                if first == second:
                    inner = add(op.like(ADD, x, y))
                    return (
                        add(op.like(MULTIPLY, base, inner))
                        if first > 0
                        else add(op.like(NEGATIVE, add(op.like(MULTIPLY, base, inner))))
                    )
                x, y = (x, y) if first > 0 else (y, x)
                return add(op.like(MULTIPLY, base, add(op.like(SUBTRACT, x, y))))
        return None

    count = program.rewrite(change)
    program.risky = program.risky or count > 0
    return count


def _common(w: object, v: object) -> tuple[object, int, int] | None:
    """(base, sign of w, sign of v) where both are the same operation up to sign."""
    if w is v:
        return w, 1, 1
    if isinstance(w, np.ndarray) and isinstance(v, np.ndarray) and w.dtype == v.dtype and w.shape == v.shape:
        return (v, 1, 1) if np.array_equal(w, v) else (v, -1, 1) if _signed(v) and np.array_equal(w, -v) else None
    for x, y, signs in ((w, v, (-1, 1)), (v, w, (1, -1))):
        if _is_minus(x, y):
            return y, *signs
    return None


def _is_minus(x: object, y: object) -> bool:
    """Whether x = -y, also where both were broadcast after the sign was taken."""
    if type(x) is not Op or type(y) is not Op:
        return False
    if x.primitive is NEGATIVE:
        return x.args[0] is y and _signed(y)
    stretched = x.primitive is layout.broadcast_to_p and y.primitive is layout.broadcast_to_p and x.shape == y.shape
    return (stretched or x.primitive is y.primitive is layout.reshape_p and x.shape == y.shape) and _is_minus(
        x.args[0], y.args[0]
    )


def _signed(x: Operand) -> bool:
    """Whether the negative of x is that of its numbers: of truths there is none, and integers wrap, -np.uint8(1)
    being 255."""
    return x.dtype.kind in "fc"


def _whole(x: object, y: object, op: Op) -> bool:
    """Whether x + y has the shape and dtype of the sum."""
    shapes = [getattr(a, "shape", ()) for a in (x, y)]
    return op.shape in shapes and all([getattr(a, "dtype", op.dtype) == op.dtype for a in (x, y)])
