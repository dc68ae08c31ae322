"""Chains of elementwise maps over large arrays gathered into regions, which run block by block of leading rows: what
one map writes the next reads from the cache, and what only they read needs no array of its own.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from scg.plans.kernels import is_elementwise, view
from scg.plans.program import LEAVES, Op, Program
from scg.primitives import contraction, elementwise, layout, reduction
from scg.stochastic.sites import draw

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


def blocks(program: Program) -> int:
    """Gather regions, as early as their operands allow; the order of draws stays."""
    program.regions = []
    ops: list[Op] = []
    users = program.users()
    stack: list[Any] = [list(program.ops)]
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
        draws = op.rule in LEAVES or op.rule is draw
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


def is_map(op: Op) -> bool:
    """Whether it can run row by row into a buffer: a ufunc, a choice between two arrays, a conversion."""
    if not is_elementwise(op) or op.rule in LEAVES or view(op) is not None:
        return False
    return (
        isinstance(op.rule.fn, np.ufunc)
        and not op.statics
        or op.rule in (elementwise.where_p, layout.astype_p, layout.as_integer_p)
    )


def _joins(op: Op, shape: tuple[int, ...]) -> bool:
    """A map of the shape, or a sum over its last axis."""
    return op.dtype is not None and (is_map(op) if op.shape == shape else folded(op) == shape)


def folded(op: Op) -> tuple[int, ...] | None:
    """The shape of what is summed over its last axis, by itself or times another array, row by row; None for anything
    else."""
    if (
        op.rule not in (contraction.dot_p, reduction.sum_p)
        or not op.shape
        or not all([isinstance(a, (Op, np.ndarray)) for a in op.args])
    ):
        return None
    full: tuple[int, ...] = max([a.shape for a in op.args], key=len)
    if op.shape != full[:-1]:
        return None
    if op.rule is contraction.dot_p:
        return full if all([a.shape == full or len(a.shape) < len(full) for a in op.args]) else None
    return (
        full
        if [a % len(full) for a in op.statics["axis"] or ()] == [len(full) - 1] and not op.statics["keepdims"]
        else None
    )


def why_not(op: Op, program: Program) -> str | None:
    """Why a large map is in no region; None where it is no large map."""
    if op.dtype is None or op.size < LARGE or not is_elementwise(op) or op.rule in LEAVES or view(op) is not None:
        return None
    if not is_map(op):
        return "its primitive is no ufunc"
    if not op.shape or op.shape[0] < 2:
        return "its first axis has one row"
    return "no other map of its shape is near"


def part(shape: tuple[int, ...], region: tuple[int, ...], start: int, stop: int) -> Any:
    """The function that takes the block's rows of an operand of ``shape``; None where the operand is the same for all
    rows."""
    if len(shape) == len(region) and shape[0] == region[0] and region[0] > 1:
        return lambda x: x[start:stop]
    return None
