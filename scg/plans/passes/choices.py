"""Tests of values asked once and where they are cheap: a row-wise product with finite results had finite factors, and
so had a sum of squares."""

import math
from collections.abc import Hashable

import numpy as np

from scg.core.aliases import Function
from scg.distributions.constraints import finite, real
from scg.plans.checks import CHOICE, is_bounded
from scg.plans.passes.norms import norm
from scg.plans.program import Op, Operations
from scg.primitives import contraction

LARGE = 2**8
"""Elements from which on another place is looked for."""


def choices(program: Operations) -> int:
    """Drop tests that are asked already, or implied; ask about the elements of a large array through its products with
    rows."""
    tests = [op for op in program.ops if op.primitive is CHOICE]
    finite_ones = {_key(op, real.holds) for op in tests if op.statics["test"] == finite.holds and op.statics["outcome"]}
    asked: set[Hashable] = set()
    dropped = set()
    for op in tests:
        key = _key(op, op.statics["test"])
        if key in asked or key in finite_ones:
            dropped.add(id(op))
        asked.add(key)
    program.ops = [op for op in program.ops if id(op) not in dropped]
    return len(dropped) + sum([_moved(op, program) for op in tests if id(op) not in dropped])


def _key(op: Op, test: Function) -> Hashable:
    return (test, op.statics["outcome"], *map(id, op.args))


def _moved(op: Op, program: Operations) -> bool:
    test, (x, *others) = op.statics["test"], op.args
    if (
        test not in (finite.holds, real.holds)
        or not op.statics["outcome"]
        or others
        or type(x) is not Op
        or x.size < LARGE
    ):
        return False
    dot = next(
        (
            o
            for o in program.ops
            if o.primitive is contraction.dot_p and any([a is x for a in o.args]) and o.size * x.shape[-1] == x.size
        ),
        None,
    )
    squares = None if dot is not None else norm(x, program)
    if dot is None and squares is None:
        return False
    op.args = (dot or squares, x)
    ask = _is_finite_in_sum if dot is not None else is_bounded
    op.statics = {**op.statics, "test": lambda rows, x: ask(rows) or test(x)}
    program.ops = [*[o for o in program.ops if o is not op], op]  # after the product
    return True


def _is_finite_in_sum(rows: np.ndarray) -> bool:
    return math.isfinite(np.add.reduce(rows, axis=None))
