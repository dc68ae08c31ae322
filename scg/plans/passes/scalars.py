"""Python numbers beside arrays made into arrays: a ufunc would convert them at every call."""

from scg.plans.kernels import cast_scalars
from scg.plans.program import Operations


def scalars(program: Operations) -> int:
    """Cast each to the dtype in which NumPy computes, so that nothing is rounded otherwise."""
    before = sum([type(a) in (int, float, bool) for op in program.ops for a in op.args])
    for op in program.ops:
        cast_scalars(op)
    return before - sum([type(a) in (int, float, bool) for op in program.ops for a in op.args])
