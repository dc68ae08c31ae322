"""Dead operations dropped: what leads to no result, no choice and no draw."""

from scg.plans.program import Op, Operations


def dead(program: Operations) -> int:
    """Keep what is needed: draws too that nobody reads, since they move their generator on."""
    needed = {id(o) for o in program.outputs if type(o) is Op}
    kept = []
    for op in reversed(program.ops):
        if id(op) in needed or op.is_check or op.generator is not None:
            kept.append(op)
            needed.update([id(a) for a in op.args if type(a) is Op])
    count = len(program.ops) - len(kept)
    program.ops = kept[::-1]
    return count
