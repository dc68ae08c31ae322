"""Constants folded: what depends on no input, no held array and no draw was computed in the recorded run, once for
all."""

import numpy as np

from scg.plans.program import Op, Operations


def fold(program: Operations) -> int:
    """Put the recorded value in the place of each operation all of whose operands are constants."""
    return program.rewrite(lambda op, add: op.value if _is_constant(op) else None)


def _is_constant(op: Op) -> bool:
    if op.is_leaf or op.is_check or op.dtype is None or op.value is None:
        return False
    index = op.statics.get("index", ())
    # by others, between calls
    written = [
        i for i in (index if isinstance(index, tuple) else (index,)) if isinstance(i, np.ndarray) and i.flags.writeable
    ]
    return not written and not any([type(a) is Op for a in op.args])
