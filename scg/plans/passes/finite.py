"""Results looked at for what is not finite, all in one test at the end, through sums of squares of few elements: of a
product those of its factors, |sum a b| <= |a| |b|, of a sum that of its terms. Only where these are not small are the
results themselves looked at.
"""

from scg.plans.checks import FINITE
from scg.plans.kernels import view
from scg.plans.passes.norms import norm
from scg.plans.program import Op, Operations
from scg.primitives import contraction, reduction

LARGE = 2**14
"""Elements from which on another place is looked for."""


def finite(program: Operations) -> int:
    """Add the test of the outputs in ``program.checked``, and drop those that were there to be looked at only."""
    wanted: dict[int, Op] = {}
    for k in sorted(program.checked):
        value = program.outputs[k]
        if type(value) is Op and value.dtype is not None and value.dtype.kind in "fc":
            value = _folded(value, program)
            wanted[id(value)] = value
    del program.outputs[program.kept :]
    if not wanted:
        return 0
    small = {id(a) for op in wanted.values() if sum([a.size for a in _terms(op)]) < op.size for a in _terms(op)}
    sums: dict[int, Op | None] = {}
    seen: list[Op] = []
    others: list[Op] = []
    for op in wanted.values():
        terms = _terms(op)
        if not terms or not all([id(a) in small for a in terms]):
            terms = [op]
        for a in terms:
            sums[id(a)] = sums.get(id(a)) or norm(a, program)
        (others if any([sums[id(a)] is None for a in terms]) else seen).append(op)
    norms = [found for found in sums.values() if found is not None]
    tests = [((*norms, *seen), len(norms))] * bool(seen) + [(tuple(others), 0)] * bool(others)
    program.ops += [Op(FINITE, args, {"norms": count}, (), args[-1].dtype) for args, count in tests]
    return len(wanted)


def _terms(op: Op) -> list[Op]:
    """What a result is a product of, or a sum of: it is finite where the squares of these have a small sum."""
    op = _unshaped(op)
    known = (
        op.primitive is contraction.matmul_p
        and all([type(a) is Op and len(a.shape) == 2 for a in op.args])
        or op.primitive is reduction.sum_p
    )
    return [_unshaped(a) for a in op.args] if known and all([type(a) is Op for a in op.args]) else []


def _folded(op: Op, program: Operations) -> Op:
    """A product with the rows of a large array, where there is one, in its place."""
    if op.size < LARGE or op.dtype.kind != "f":
        return op
    return next(
        (
            o
            for o in program.ops
            if o.primitive is contraction.dot_p and any([a is op for a in o.args]) and o.size * op.shape[-1] == op.size
        ),
        op,
    )


def _unshaped(op: Op) -> Op:
    """What a view shows all elements of."""
    while view(op) is not None and type(op.args[0]) is Op and op.args[0].size == op.size:
        op = op.args[0]
    return op
