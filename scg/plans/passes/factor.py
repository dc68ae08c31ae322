"""Common factors taken out: w a + w b = w (a + b), which is a product of large arrays less. Roundings differ."""

from typing import Any

from scg.plans.passes.expand import ADD, MULTIPLY, NEGATIVE, SUBTRACT
from scg.plans.program import Op, Program


def factor(program: Program) -> int:
    """For sums and differences of two products that nobody else takes; a factor may stand with either sign."""
    users = program.users()

    def change(op: Op, add: Any) -> Op | None:
        if op.rule not in (ADD, SUBTRACT) or not all([type(a) is Op and a.rule is MULTIPLY and len(users.get(id(a), ())) == 1 and a.shape == op.shape for a in op.args]):
            return None
        (a, b), (c, d) = op.args[0].args, op.args[1].args
        for w, x in ((a, b), (b, a)):
            for v, y in ((c, d), (d, c)):
                found = _common(w, v)
                if found is None or type(w) is not Op or not _whole(x, y, op):
                    continue
                base, first, second = found  # w = first * base, v = second * base
                second = second if op.rule is ADD else -second
                if first == second:
                    inner = add(op.like(ADD, x, y))
                    return add(op.like(MULTIPLY, base, inner)) if first > 0 else add(op.like(NEGATIVE, add(op.like(MULTIPLY, base, inner))))
                x, y = (x, y) if first > 0 else (y, x)
                return add(op.like(MULTIPLY, base, add(op.like(SUBTRACT, x, y))))
        return None

    return program.rewrite(change)


def _common(w: Any, v: Any) -> tuple[Any, int, int] | None:
    """(base, sign of w, sign of v) where both are the same operation up to sign."""
    (x, s), (y, t) = _unsigned(w), _unsigned(v)
    return (x, s, t) if x is y and type(x) is Op else None


def _unsigned(x: Any) -> tuple[Any, int]:
    """An operation without its sign, looked for beneath a broadcast or a reshape."""
    if type(x) is Op and x.rule is NEGATIVE:
        return x.args[0], -1
    return x, 1


def _whole(x: Any, y: Any, op: Op) -> bool:
    """Whether x + y has the shape and dtype of the sum."""
    shapes = [getattr(a, "shape", ()) for a in (x, y)]
    return op.shape in shapes and all([getattr(a, "dtype", op.dtype) == op.dtype for a in (x, y)])
