"""Constants folded: what depends on no input, no held array and no draw was computed in the recorded run, once for all."""

from scg.plans.program import CHOICE, LEAVES, Op, Program


def fold(program: Program) -> int:
    """Put the recorded value in the place of each operation all of whose operands are constants."""
    return program.rewrite(lambda op, add: op.value if _is_constant(op) else None)


def _is_constant(op: Op) -> bool:
    return op.rule not in LEAVES and op.rule is not CHOICE and op.dtype is not None and op.value is not None and not any([type(a) is Op for a in op.args])
