"""A plan with buffers of its own: steps that are bound to them once, and to the arrays of a call when these are other
ones."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.lib.array_utils import byte_bounds

from scg.core.aliases import Function, Operand, Operands, Result
from scg.plans.buffers import Assignment, aligned, origin
from scg.plans.kernels import Generators, is_elementwise, kernel, view
from scg.plans.passes.blocks import Region
from scg.plans.passes.schedule import Turn
from scg.plans.program import Op, Operations
from scg.plans.rows import cut_operand
from scg.plans.threads import Access, Step, Task, Threads, hold, let_go, run_steps, step_lists

SMALL = 2**14
"""Bytes up to which a result is copied out of its buffer; a larger one is written into an array that the caller then
owns."""


class Dynamic:
    """An array that is known only at the call, the argument or result of a ``slot``, seen through ``views``."""

    __slots__ = ("slot", "views")

    def __init__(self, slot: int, views: tuple[Function, ...] = ()):
        self.slot, self.views = slot, views


class Steps:
    """Buffers and bound steps; ``run`` computes. One call at a time."""

    def __init__(self, program: Operations, assignment: Assignment, results: dict[int, int], slots: int):
        """``results``: slots (after those of the arguments) of the operations that are written into arrays of the
        caller."""
        self.generators = Generators()
        self.blocks = [aligned(n) for n in assignment.sizes]
        self.places: dict[int, Result] = {}
        self.bound: list[Result] = [None] * slots
        self.references: list[list[tuple[list[Operand], int, Operands]]] = [[] for _ in range(slots)]
        for op in program.ops:
            place = self._home(op, program, assignment, results)
            if place is not None:
                self.places[id(op)] = place
        width = program.width
        shown = _Shown(self.places, assignment, results) if width > 1 else None
        tasks = [
            self._task(turn, thread, shown)
            for turn in program.turns
            for thread in (range(width) if turn.cuts else [turn.thread])
        ]
        self.steps = [step for task in tasks for step in task.steps]  # in the order of the program
        self.lists, self.locks = step_lists(tasks, width) if width > 1 else ([self.steps], [])

    def _home(self, op: Op, program: Operations, assignment: Assignment, results: dict[int, int]) -> Result:
        if op.is_given:
            return op.statics["array"] if op.is_held else Dynamic(program.inputs[id(op)])
        if op.is_check:
            return None
        look = view(op)
        if look is not None and not op.copies and type(op.args[0]) is Op:
            source = self.places[id(op.args[0])]
            return Dynamic(source.slot, (*source.views, look)) if type(source) is Dynamic else look(source)
        if id(op) in results:
            return Dynamic(results[id(op)])
        if id(op) not in assignment.block and op.dtype is not None:
            return None  # a region's own
        if op.dtype is None:
            return tuple([np.empty_like(v) for v in op.value])
        return self.blocks[assignment.block[id(op)]][: op.nbytes].view(op.dtype).reshape(op.shape)

    def _task(self, turn: Turn, thread: int, shown: "_Shown | None") -> Task:
        """The steps of a turn on a thread: all of it, or those of the thread's rows."""
        region = turn.region
        rows = (turn.cuts[thread], turn.cuts[thread + 1]) if turn.cuts else None
        steps: list[Step] = []
        if region is None:
            (op,) = turn.members
            steps.append(self._step(op, rows, {}, []))
            temporary: frozenset[int] = frozenset()
        else:
            homes, sizes = temporaries(region)  # in a few arrays of one block, each thread's own
            blocks = region.rows(*rows or (0, None))
            scratch = [aligned(max([b - a for a, b in blocks]) * size) for size in sizes]
            steps += [self._step(op, block, homes, scratch) for block in blocks for op in region.members]
            temporary = region.temporaries
        accesses = (
            [] if shown is None else [found for op in turn.members for found in shown.accesses(op, rows, temporary)]
        )
        return Task(thread, steps, accesses)

    def _step(self, op: Op, rows: tuple[int, int] | None, homes: dict[int, int], scratch: list[Result]) -> Step:
        """One operation bound to its operands and its result, or to these rows of them; what is bound at the call has
        its place noted."""
        args: list[Operand] = []
        for k, operand in enumerate((*op.args, op)):
            look = None if rows is None else _rows_of(op, k, rows)
            if id(operand) in homes and type(operand) is Op:
                assert rows is not None
                shape = (rows[1] - rows[0], *operand.shape[1:])
                place: Result = (
                    scratch[homes[id(operand)]][: math.prod(shape) * operand.dtype.itemsize]
                    .view(operand.dtype)
                    .reshape(shape)
                )
            elif type(operand) is Op and type(self.places.get(id(operand))) is Dynamic:
                found = self.places[id(operand)]
                self.references[found.slot].append(
                    (args, len(args), found.views if look is None else (*found.views, look))
                )
                place = None
            else:
                place = self.places.get(id(operand)) if type(operand) is Op else operand
                place = place if look is None else look(place)
            args.append(place)
        if op.copies:
            reshaped: Result = view(op)
            return (lambda x, out: np.copyto(out, reshaped(x))), args
        return kernel(op, self.generators), args

    def bind(self, slot: int, array: np.ndarray) -> None:
        """Let the steps read, or write, this array in the place of the one before."""
        if self.bound[slot] is array:
            return
        self.bound[slot] = array
        for args, at, views in self.references[slot]:
            x = array
            for look in views:
                x = look(x)
            args[at] = x

    def read(self, value: Operand) -> Result:
        """The array of an operation, or a constant, after a run."""
        if type(value) is not Op:
            return value
        place = self.places[id(value)]
        if type(place) is Dynamic:
            x = self.bound[place.slot]
            for look in place.views:
                x = look(x)
            return x
        return place

    def run(
        self,
        arrays: Sequence[np.ndarray],
        generators: list[np.random.Generator],
        threads: Threads | None,
        more: Sequence[Sequence[Step]] | None = None,
    ) -> None:
        """Bind the arguments and run all steps, by several threads where they are given, and ``more`` of them when all
        threads are through."""
        for slot, array in enumerate(arrays):
            if self.bound[slot] is not array:
                self.bind(slot, array)
        self.generators.current = generators
        if threads is None:
            for steps in (self.steps, *(more or ())):
                run_steps(steps)
            return
        try:
            threads.run(self.lists, lambda: let_go(self.locks), more)
        except Exception:
            hold(self.locks)
            raise


def _rows_of(op: Op, k: int, rows: tuple[int, int]) -> Function | None:
    """What takes, of operand k of an operation, or of its result behind them, the part that some rows of the result
    need; None: all of it."""
    return cut_operand(op, k, *rows) if k < len(op.args) else lambda x: x[rows[0] : rows[1]]


class _Shown:
    """What memory each operation touches."""

    def __init__(self, places: dict[int, Result], assignment: Assignment, results: dict[int, int]):
        self.places, self.assignment, self.results = places, assignment, results
        # arrays in the place of those that are known only at the call; nobody writes to them
        self.stood: dict[int, Result] = {}

    def accesses(self, op: Op, rows: tuple[int, int] | None, temporary: frozenset[int]) -> Iterator[Access]:
        """All but that of temporaries, which are each thread's own, and of arguments, to which nobody writes."""
        if op.generator is not None:
            yield ("generator", op.generator), 0, 1, True
        for k, operand in enumerate((*op.args, op)):
            if type(operand) is not Op or id(operand) in temporary:
                continue
            source = origin(operand)
            if source.is_given or source.is_check:
                continue
            look = None if rows is None else _rows_of(op, k, rows)
            place = self.places[id(operand)]
            if type(place) is Dynamic:
                array = self.stood.setdefault(id(source), np.empty(source.shape, source.dtype))
                for view_of in place.views:
                    array = view_of(array)
                place = array
            root: tuple[int, int] = self.results.get(id(source), -1), self.assignment.block.get(id(source), -1)
            for array in place if type(place) is tuple else (place,):
                low, high = byte_bounds(array if look is None else look(array))
                yield (root if max(root) >= 0 else id(source)), low, high, operand is op


def temporaries(region: Region) -> tuple[dict[int, int], list[int]]:
    """Which block-sized array each temporary of a region is in, by id, and the bytes that a row of each array has."""
    last = {
        id(a): k
        for k, op in enumerate(region.members)
        for a in op.args
        if type(a) is Op and id(a) in region.temporaries
    }
    homes: dict[int, int] = {}
    widths: list[int] = []
    free: list[int] = []
    for k, op in enumerate(region.members):
        dying = list(dict.fromkeys([id(a) for a in op.args if type(a) is Op and last.get(id(a)) == k]))
        if is_elementwise(op):  # written over what dies here
            free += [homes[i] for i in dying if i in homes]
        if id(op) in region.temporaries:
            width = math.prod(op.shape[1:]) * op.dtype.itemsize
            chosen = next((h for h in reversed(free) if widths[h] == width), None)
            if chosen is None:
                chosen = len(widths)
                widths.append(width)
            else:
                free.remove(chosen)
            homes[id(op)] = chosen
        if not is_elementwise(op):
            free += [homes[i] for i in dying if i in homes]
    return homes, widths
