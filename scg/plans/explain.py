"""A plan as text: steps, buffers, bytes, what was fused, and what was not and why."""

from typing import Any

import numpy as np

from scg.plans.buffers import origin
from scg.plans.kernels import is_plain, view
from scg.plans.passes.blocks import Region, why_not
from scg.plans.program import Op


def explain(plan: Any) -> str:
    """The text of ``Compiled.explain``."""
    program, assignment = plan.program, plan.assignment
    names = {id(op): f"%{k}" for k, op in enumerate(program.ops)}
    homes = {**{i: f"buffer {b}" for i, b in assignment.block.items()}, **dict.fromkeys(plan.results, "result")}
    turn_of = {id(op): turn for turn in program.turns for op in turn.members}
    region_of = {id(op): k for k, region in enumerate(program.regions) for op in region.members}
    lines, steps, plainly = [], 0, []
    for op in program.ops:
        k = region_of.get(id(op))
        turn = turn_of.get(id(op))
        thread = (
            ""
            if turn is None or program.width == 1
            else "  rows " + "|".join(map(str, turn.cuts))
            if turn.cuts
            else f"  thread {turn.thread}"
        )
        if k is not None and program.regions[k].members[0] is op:
            lines.append(_region(k, program.regions[k]) + thread)
        own = id(op) in homes or op.is_check
        if view(op) is not None and not op.copies and type(op.args[0]) is Op:
            home = f"view of {names[id(origin(op))]}"
        elif op.is_given:
            home = "an array that the function holds" if op.is_held else f"argument {program.inputs[id(op)]}"
        else:
            steps += 1
            home = homes.get(id(op), "of one block" if k is not None else "several results" if op.dtype is None else "")
            if own and is_plain(op):
                plainly.append(op)
        args = ", ".join([names.get(id(a), "?") if type(a) is Op else _constant(a) for a in op.args])
        kind = f"{op.dtype}{list(op.shape)}" if op.dtype is not None and not op.is_check else ""
        mark = " called plainly" if own and is_plain(op) else ""
        mark += thread if k is None else ""
        lines.append(
            f"  {'| ' if k is not None else ''}{names[id(op)]:>5} = {op.primitive.name}({args}) {kind} "
            f" {home}{mark}{'  ' + op.statics['line'] if 'line' in op.statics else ''}".rstrip()
        )
    size = sum(assignment.sizes)
    held = sum([op.nbytes for op in program.ops if op.is_given])
    naive = sum([op.nbytes for op in program.ops if not (op.is_given or op.is_check) and origin(op) is op])
    head = [
        (
            f"{steps} steps, {len(assignment.sizes)} buffers of {size:,} bytes in all (one for each result: {naive:,}),"
            f" {assignment.in_place} results in place"
        ),
        (
            f"arguments {held:,} bytes; results in arrays of the caller"
            f" {sum([op.nbytes for _, op in plan.results.values()]):,} bytes"
        ),
        "passes (operations after): "
        + ", ".join([f"{name} {struck} ({after})" for name, struck, after in plan.report]),
    ]
    head += program.notes
    if program.risky:
        head.append(
            "softplus by one exponential, or a common factor taken out: where that is not finite all is computed again"
            " as it was written"
        )
    tail = []
    if plainly:
        tail.append(
            "called plainly, and copied into their buffers: " + ", ".join(sorted({op.primitive.name for op in plainly}))
        )
    alone = [(op, why) for op in program.ops if id(op) not in region_of and (why := why_not(op, program)) is not None]
    tail += [f"not in a region: {names[id(op)]} {op.primitive.name} {list(op.shape)}: {why}" for op, why in alone]
    if plan.endings:
        tail.append("then: " + ", ".join([getattr(x.call, "__qualname__", repr(x.call)) for x in plan.endings]))
    return "\n".join([*head, *lines, *tail])


def _region(k: int, region: Region) -> str:
    rows = region.rows()
    return (
        f"  region {k}: {len(region.members)} maps of {list(region.shape)} in {len(rows)} blocks of up to"
        f" {max([b - a for a, b in rows])} rows; {len(region.temporaries)} need no array"
    )


def _constant(x: object) -> str:
    if isinstance(x, np.ndarray) and x.ndim:
        return f"{x.dtype}{list(x.shape)}"
    return f"{np.asarray(x)[()]:.6g}" if np.asarray(x).dtype.kind in "fiu" else str(x)
