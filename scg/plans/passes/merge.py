"""Equal subexpressions merged: the same primitive of the same operands with the same statics is computed once."""

from collections.abc import Callable, Hashable

import numpy as np

from scg.core.aliases import Operand
from scg.plans.program import Op, Operations


def merge(program: Operations) -> int:
    """Let the first of several equal operations stand for all."""
    known: dict[Hashable, Op] = {}

    def change(op: Op, add: Callable[[Op], Op]) -> Op | None:
        if op.is_leaf:
            return None
        try:
            key = op.primitive, tuple(map(_key, op.args)), _key(op.statics)
            return known.setdefault(key, op)
        except TypeError:  # a static that cannot be compared
            return None

    return program.rewrite(change)


def _key(x: Operand) -> Hashable:
    kind = type(x)
    if kind is Op or kind is np.ndarray:
        return id(x)
    if kind is slice:
        return slice, x.start, x.stop, x.step
    if kind is tuple or kind is list:
        return kind, tuple(map(_key, x))
    if kind is dict:
        return tuple([(name, _key(x[name])) for name in sorted(x)])
    if kind is float:
        return float, repr(x)  # 0.0 is not -0.0
    if isinstance(x, np.generic):
        return kind, x.tobytes()
    hash(x)
    return kind, x
