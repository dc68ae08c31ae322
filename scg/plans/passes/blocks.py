"""Chains of elementwise maps over large arrays gathered into regions, which run block by block of leading rows: what
one map writes the next reads from the cache, and what only they read needs no array of its own.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from scg.plans.kernels import is_elementwise, view
from scg.plans.program import Op, Operations
from scg.plans.rows import folded, is_map

LARGE = 2**15
"""Elements from which on an array is run in blocks."""

BLOCK = 2**16
"""Elements of an array in one block: a few of them fit into a core's second-level cache."""


class Region(NamedTuple):
    """``members`` stand one after the other in the program, and map arrays of ``shape``; ``temporaries`` (ids) are read
    by members only."""

    members: Sequence[Op]
    shape: tuple[int, ...]
    temporaries: frozenset[int]

    def rows(self, start: int = 0, stop: int | None = None) -> list[tuple[int, int]]:
        """(start, stop) of each block along the first axis, or a part of it."""
        n = (self.shape[0] if stop is None else stop) - start
        count = min(n, max(1, -(-n * math.prod(self.shape[1:]) // BLOCK)))
        ends = [start + n * k // count for k in range(count + 1)]
        return list(zip(ends[:-1], ends[1:], strict=True))


def blocks(program: Operations) -> int:
    """Gather regions, as early as their operands allow; the order of draws stays."""
    program.regions = []
    ops: list[Op] = []
    users = program.users()
    stack: list[list[Op] | Region] = [list(program.ops)]
    while stack:
        rest = stack.pop()
        if isinstance(rest, Region):
            program.regions.append(rest)
            ops += rest.members
            continue
        at = next((k for k, op in enumerate(rest) if _leads(op)), None)
        if at is None:
            ops += rest
            continue
        before, members, after = _gathered(rest[at:], rest[at].shape)
        inside = {id(op) for op in members}
        temporaries = [
            id(op)
            for op in members
            if users[id(op)] and all([u is not None and id(u) in inside for u in users[id(op)]])
        ]
        region = Region(members, members[0].shape, frozenset(temporaries))
        if len(members) == 1:  # nothing gained: it stays where it was
            ops += rest[: at + 1]
            stack.append(rest[at + 1 :])
            continue
        stack += [after, region, [*rest[:at], *before]]
    program.ops = ops
    return len(program.regions)


def _gathered(ops: list[Op], shape: tuple[int, ...]) -> tuple[list[Op], list[Op], list[Op]]:
    """Operations that can run before the region that ``ops[0]`` begins, its members, and those that must wait for
    it."""
    before: list[Op] = []
    members = [ops[0]]
    after: list[Op] = []
    inside, waiting = {id(ops[0])}, set()
    drawing = False
    for op in ops[1:]:
        # a sum is there after all rows
        depends = any([type(a) is Op and (id(a) in waiting or id(a) in inside and a.shape != shape) for a in op.args])
        reads = any([type(a) is Op and id(a) in inside for a in op.args])
        draws = op.is_leaf
        if depends or draws and drawing:
            drawing = drawing or draws
        elif _joins(op, shape) and (reads or op.shape == shape and _leads(op) and _near(op, inside, members)):
            members.append(op)
            inside.add(id(op))
            continue
        elif not reads:
            before.append(op)
            continue
        after.append(op)
        waiting.add(id(op))
        drawing = drawing or draws
    return before, members, after


def _near(op: Op, inside: set[int], members: list[Op]) -> bool:
    """Whether it shares a large operand with a member: then it is in the cache."""
    mine = {id(a) for a in op.args if type(a) is Op and a.size == op.size}
    return any([id(a) in mine for m in members for a in m.args])


def _leads(op: Op) -> bool:
    return len(op.shape or ()) > 0 and op.size >= LARGE and is_map(op) and op.shape[0] > 1


def _joins(op: Op, shape: tuple[int, ...]) -> bool:
    """A map of the shape, or a sum over its last axis."""
    return op.dtype is not None and (is_map(op) if op.shape == shape else folded(op) == shape)


def why_not(op: Op, program: Operations) -> str | None:
    """Why a large map is in no region; None where it is no large map."""
    if op.dtype is None or op.size < LARGE or not is_elementwise(op) or op.is_leaf or view(op) is not None:
        return None
    if not is_map(op):
        return "its primitive has no call into a buffer"
    if not op.shape or op.shape[0] < 2:
        return "its first axis has one row"
    return "no other map of its shape is near"
