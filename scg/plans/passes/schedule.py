"""Which thread runs what: a list of steps for each of a few threads, the caller's thread the first.

List scheduling (Graham, 1969; ranks as in HEFT: Topcuoglu, Hariri and Wu, 2002): of what can begin, first what the
longest chain of others waits for, and it goes where it ends soonest: as a whole to a thread, or, products and regions
of maps, cut by rows with a part for each. What follows row by row stays with its rows, and what is short on the
caller's thread. Times are estimates from constants and shapes alone, so that the same program always gets the same
threads, and the same roundings. What must wait for what is not decided here: see ``scg.plans.threads``.
"""

import heapq
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from scg.core.aliases import Operand
from scg.distributions.normal import Normal
from scg.plans.buffers import is_origin, is_step, origin
from scg.plans.kernels import is_elementwise, is_plain
from scg.plans.passes.blocks import Region
from scg.plans.passes.few_rows import SMALL_PRODUCT, is_by_columns
from scg.plans.program import Op, Operations
from scg.plans.rows import cut_operand, cut_rows, is_product, keeps_rows, multiplications

HANDOVER = 40e3
"""Nanoseconds until a thread that waits runs on; a unit must gain as much to leave the caller's thread, or to be
cut."""

LONG = 30e3
"""Nanoseconds of what may leave the caller's thread: where two threads make short calls, each often waits for the
other's Python, and is as long in waking up."""

CALL = 1e3
"""Nanoseconds of a step around its arithmetic, in which the other threads' Python waits."""

STEP = 1.0
"""Nanoseconds for each element that an optimizer steps at the end, with all threads."""

LEAST = 300e3
"""Nanoseconds of a program for which more than one thread is looked at."""

FLOPS, PACKED = 90.0, 0.15
"""Of a product: operations a nanosecond, and nanoseconds for each element of the right factor."""

BLAS_GAIN, BLAS_LARGE = 1.7, 2**22
"""How much sooner a product ends that the BLAS itself shares out, and from how many multiplications on that is worth
it: its threads then spin for 30 ms."""

WORTH, WORTH_BLAS = 0.9, 1.1
"""The most that threads may take, of the time of one, and of that of one beside a BLAS with threads: while these wait,
they are in the way of others."""

GRAIN = 16
"""What can be cut anywhere is cut at multiples of so many rows."""

RATE, DRAW, FOLD, TEST = 0.15, 9.0, 0.12, 0.4
"""Nanoseconds an element of a map that declares no cost, of a draw, a sum, a test."""


class Turn(NamedTuple):
    """What runs next: one operation, or the members of a region; on one thread, or by ``cuts``: on each thread the rows
    between two of them."""

    members: Sequence[Op]
    region: Region | None
    thread: int
    cuts: tuple[int, ...] = ()


def schedule(program: Operations) -> int:
    """Fill ``program.turns``; how many are cut. One thread where more would not end sooner than one, or one with large
    products shared out by the BLAS."""
    units = _units(program)
    after = STEP * program.stepped
    alone = sum([unit.cost for unit in units]) + after
    program.turns = [Turn(unit.members, unit.region, 0) for unit in units]
    width, program.width = program.width, 1
    if width == 1:
        return 0
    products = [unit for unit in units if is_product(unit.members[0])]
    large = [unit for unit in products if _is_large(unit.members[0])]
    program.shares = bool(large) or not products or any([is_foreign(unit.members) for unit in units])
    if alone < LEAST:
        program.notes.append(
            f"one thread: about {alone / 1e6:.2g} ms of work, and several are looked at from {LEAST / 1e6:g} ms on"
        )
        return 0
    shared = alone - sum([unit.cost * (1 - 1 / BLAS_GAIN) for unit in large])
    turns, end = _scheduled(units, width)
    calls = sum([len(turn.members) * (width if turn.cuts else 1) for turn in turns])
    end += CALL * calls * (1 - 1 / width) + after / width  # Python runs on one thread at a time
    told = f"about {end / 1e6:.2g} ms, on one {alone / 1e6:.2g}" + (
        f", or {shared / 1e6:.2g} where the BLAS shares out its products" if large else ""
    )
    if end > min(WORTH_BLAS * shared, WORTH * alone):
        program.notes.append(f"one thread: on {width} it would take {told}")
        return 0
    cut = sum([bool(turn.cuts) for turn in turns])
    program.notes.append(f"{width} threads: {told}; {cut} of {len(turns)} turns are cut by rows")
    program.turns, program.width, program.shares = turns, width, False
    _reorder(program)
    return cut


class _Unit:
    """What is scheduled as one: an operation, or the members of a region."""

    def __init__(self, members: Sequence[Op], region: Region | None):
        self.members, self.region = members, region
        self.cost = sum(map(_cost, members))
        self.movable = self.cost >= LONG and not is_foreign(members)
        self.rows = _rows(members, region)
        self.before: list[_Unit] = []
        self.after: list[_Unit] = []
        self.rank = 0.0  # nanoseconds from its begin to the end, at the least
        self.is_last = False  # whether nothing long waits for it
        self.thread = 0
        self.cuts: tuple[int, ...] = ()
        self.ready: list[float] = []  # when its part on each thread is there; where it is not cut, all the same

    @property
    def is_free(self) -> bool:
        """Whether it can be cut anywhere, since nobody takes its rows as they are cut."""
        return self.region is None and not any([other.rows for other in self.after])


def is_foreign(members: Sequence[Op]) -> bool:
    """Whether this may run the code of others, which runs on the caller's thread, as it does without a plan."""
    op = members[0]
    return len(members) == 1 and (
        is_plain(op)
        or "site" in op.statics
        and op.generator is not None
        or "distribution" in op.statics
        and type(op.statics["distribution"]) is not Normal
    )


def _units(program: Operations) -> list[_Unit]:
    """Operations that are steps, and regions, in their order."""
    last = {id(region.members[-1]): region for region in program.regions}
    inside = {id(op) for region in program.regions for op in region.members}
    found: list[_Unit] = []
    for op in program.ops:
        if id(op) in last:
            found.append(_Unit(last[id(op)].members, last[id(op)]))
        elif id(op) not in inside and is_step(op):
            found.append(_Unit([op], None))
    return found


def _scheduled(units: Sequence[_Unit], width: int) -> tuple[list[Turn], float]:
    """Turns, and when the last of them ends: of what can begin, first what most depends on, each where it ends
    soonest."""
    maker = {id(op): unit for unit in units for op in unit.members}
    drawn: dict[int | None, _Unit] = {}  # the last draw of each generator
    for unit in units:
        needed = [
            maker[id(origin(a))] for op in unit.members for a in op.args if type(a) is Op and id(origin(a)) in maker
        ]
        for op in unit.members:
            if op.generator is not None:
                needed += [drawn[op.generator]] if op.generator in drawn else []
                drawn[op.generator] = unit
        unit.before = [other for other in dict.fromkeys(needed) if other is not unit]
        for other in unit.before:
            other.after.append(unit)
    for unit in reversed(units):
        after = max([other.rank for other in unit.after], default=0.0)
        unit.rank = (unit.cost / width if unit.rows else unit.cost) + after
        unit.is_last = after < LONG
    waiting = {id(unit): len(unit.before) for unit in units}
    place = {id(unit): k for k, unit in enumerate(units)}
    heap = [(-unit.rank, k, unit) for k, unit in enumerate(units) if not unit.before]
    heapq.heapify(heap)
    free = [0.0] * width  # when each thread has nothing more to do
    bound = sum([unit.cost for unit in units if not unit.movable])  # what is still to come for the caller's thread
    turns = []
    while heap:
        unit = heapq.heappop(heap)[2]
        bound -= 0.0 if unit.movable else unit.cost
        _put(unit, free, maker, bound)
        turns.append(Turn(unit.members, unit.region, unit.thread, unit.cuts))
        for other in unit.after:
            waiting[id(other)] -= 1
            if not waiting[id(other)]:
                heapq.heappush(heap, (-other.rank, place[id(other)], other))
    return turns, max(free)


def _begin(unit: _Unit, thread: int, cuts: Sequence[int], free: list[float], maker: dict[int, _Unit]) -> float:
    """When a unit, or its part, can begin on a thread."""
    when = free[thread]
    for op in unit.members:
        for a in op.args:
            source = maker.get(id(origin(a)), unit) if type(a) is Op else unit
            if source is unit:
                continue
            near = _follows(a, op, source.cuts, cuts)
            for other in [thread] if near else range(len(free)):
                home = other if source.cuts else source.thread
                t = source.ready[other]
                when = max(when, t if home == thread or t + HANDOVER <= free[thread] else t + HANDOVER)
    return when


def _put(unit: _Unit, free: list[float], maker: dict[int, _Unit], bound: float) -> None:
    """Choose the thread of a unit, or where it may be cut a part on each, and move on when these are free. The caller's
    has ``bound`` nanoseconds to do later."""
    width = len(free)
    begins = [_begin(unit, thread, (), free, maker) for thread in range(width if unit.movable else 1)]
    ends = [t + unit.cost for t in begins]
    more = [bound if unit.is_last else 0.0, *[0.0] * (width - 1)]
    counted = [end + more[thread] + (HANDOVER if thread else 0.0) for thread, end in enumerate(ends)]
    unit.thread = counted.index(min(counted))
    unit.ready = [ends[unit.thread]] * width
    if unit.movable and unit.rows >= 2 * width:
        cuts = tuple([unit.rows * k // width for k in range(width + 1)])
        if unit.is_free:
            cuts = _balanced(unit, [t + m for t, m in zip(begins, more, strict=True)])
        parts = [
            _begin(unit, k, cuts, free, maker) + _share(unit, (cuts[k + 1] - cuts[k]) / unit.rows, width)
            for k in range(width)
        ]
        last = max([t + m for t, m in zip(parts, more, strict=True)])
        if (
            min(b - a for a, b in itertools.pairwise(cuts)) > 0
            and last + HANDOVER < ends[unit.thread] + more[unit.thread]
        ):
            unit.cuts, unit.ready = cuts, parts
    for thread in range(width):
        if unit.cuts or thread == unit.thread:
            free[thread] = unit.ready[thread]


def _balanced(unit: _Unit, begins: list[float]) -> tuple[int, ...]:
    """Cuts at which all threads end at once, at rows that products like."""
    width = len(begins)
    fixed = _share(unit, 0.0, width)
    each = unit.cost - fixed
    taken: list[int] = []
    for count in range(width, 0, -1):  # without the threads that begin too late
        chosen = sorted(range(width), key=begins.__getitem__)[:count]
        end = (each + sum([begins[k] + fixed for k in chosen])) / count
        if all([end > begins[k] + fixed for k in chosen]):
            taken = chosen
            break
    shares = [max(0.0, end - begins[k] - fixed) / each if k in taken else 0.0 for k in range(width)]
    ends = [min(unit.rows, GRAIN * round(unit.rows * t / GRAIN)) for t in itertools.accumulate(shares)]
    return (0, *ends[:-1], unit.rows)


def _reorder(program: Operations) -> None:
    """Put the operations in the order of their turns, views before who looks through them. Other operands of a view,
    which show nothing in it, may have a later turn: a pathwise sample's parameters."""
    ops: list[Op] = []
    seen: set[int] = set()

    def emit(op: Op) -> None:
        if id(op) not in seen:
            seen.add(id(op))
            for a in op.args if is_origin(op) else op.args[:1]:
                if type(a) is Op:
                    emit(a)
            ops.append(op)

    for turn in program.turns:
        for op in turn.members:  # those of a region side by side: their operands first
            for a in op.args:
                if type(a) is Op and all([a is not other for other in turn.members]):
                    emit(a)
        for op in turn.members:
            emit(op)
    for op in program.ops:
        emit(op)
    program.ops = ops


def _rows(members: Sequence[Op], region: Region | None) -> int:
    """The rows by which a unit can be cut: those of its result, if each comes from the same rows of large operands. 0
    where it cannot."""
    if region is not None:
        return region.shape[0]
    return cut_rows(members[0])


def _follows(a: Operand, op: Op, before: Sequence[int], cuts: Sequence[int]) -> bool:
    """Whether a part of ``op``, cut by ``cuts``, reads but the part on its thread of ``a``, whose memory was cut by
    ``before``."""
    if (
        not before
        or not cuts
        or cut_operand(op, next(k for k, other in enumerate(op.args) if other is a), 0, 1) is None
    ):
        return False
    while a is not origin(a):
        if not keeps_rows(a):
            return False
        a = a.args[0]
    return all([x * cuts[-1] == y * before[-1] for x, y in zip(before, cuts, strict=True)])


def _cost(op: Op) -> float:
    """Nanoseconds, about."""
    if is_product(op):
        return CALL + 2 * multiplications(op) / FLOPS + _packing(op)
    if op.generator is not None:
        return CALL + DRAW * op.size
    if op.is_check:
        return 6 * CALL + TEST * sum([a.size for a in op.args if type(a) is Op and "test" in op.statics])
    if is_elementwise(op):
        return CALL + (op.primitive.cost or RATE) * op.size
    return CALL + FOLD * max([op.size, *[a.size for a in op.args if isinstance(a, (Op, np.ndarray))]])


def _share(unit: _Unit, part: float, width: int) -> float:
    """What a part of its rows costs a thread: calls are made on each, one at a time, and each packs the right factor of
    a product."""
    op = unit.members[0]
    calls = CALL * len(unit.members)
    packed = _packing(op)
    return width * calls + packed + (unit.cost - calls - packed) * part


def _packing(op: Op) -> float:
    """What it costs a product to rearrange its right factor, which small ones do not."""
    small = not is_product(op) or multiplications(op) <= SMALL_PRODUCT or is_by_columns(op)
    return 0.0 if small else PACKED * math.prod(op.args[1].shape)


def _is_large(product: Op) -> bool:
    return multiplications(product) > BLAS_LARGE
