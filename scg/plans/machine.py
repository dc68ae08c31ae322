"""A plan with buffers of its own: steps that are bound to them once, and to the arrays of a call when these are other ones."""

import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from scg.plans.buffers import Assignment, aligned, is_copy
from scg.plans.kernels import Generators, is_elementwise, kernel, view
from scg.plans.passes.blocks import Region, part
from scg.plans.program import HELD, SILENT, Op, Program
from scg.plans.recording import INPUT

SMALL = 2**14
"""Bytes up to which a result is copied out of its buffer; a larger one is written into an array that the caller then owns."""


class Dynamic:
    """An array that is known only at the call, the argument or result of a ``slot``, seen through ``views``."""

    __slots__ = ("slot", "views")

    def __init__(self, slot: int, views: tuple[Callable[[Any], Any], ...] = ()):
        self.slot, self.views = slot, views


class Machine:
    """Buffers and bound steps; ``run`` computes. One thread at a time."""

    def __init__(self, program: Program, assignment: Assignment, results: dict[int, int], slots: int):
        """``results``: slots (after those of the arguments) of the operations that are written into arrays of the caller."""
        self.generators = Generators()
        self.blocks = [aligned(n) for n in assignment.sizes]
        self.places: dict[int, Any] = {}
        self.bound: list[Any] = [None] * slots
        self.references: list[list[tuple[list[Any], int, tuple[Any, ...]]]] = [[] for _ in range(slots)]
        self.spares: dict[int, list[Any]] = {}
        self.counts: dict[int, int] = {}
        self.steps: list[tuple[Any, list[Any]]] = []
        regions = {id(region.members[-1]): region for region in program.regions}
        inside = {id(op) for region in program.regions for op in region.members}
        for op in program.ops:
            place = self._place(op, program, assignment, results)
            if place is not None:
                self.places[id(op)] = place
            if id(op) in inside:
                if id(op) in regions:
                    self._bind_region(regions[id(op)])
            elif op.rule not in (INPUT, HELD) and (view(op) is None or is_copy(op) or type(op.args[0]) is not Op):
                self._bind_step(op)

    def _place(self, op: Op, program: Program, assignment: Assignment, results: dict[int, int]) -> Any:
        if op.rule is INPUT:
            return Dynamic(program.inputs[id(op)])
        if op.rule is HELD:
            return op.statics["array"]
        if op.rule in SILENT:
            return None
        look = view(op)
        if look is not None and not is_copy(op) and type(op.args[0]) is Op:
            source = self.places[id(op.args[0])]
            return Dynamic(source.slot, (*source.views, look)) if type(source) is Dynamic else look(source)
        if id(op) in results:
            return Dynamic(results[id(op)])
        if id(op) not in assignment.block and op.dtype is not None:
            return None  # a region's own
        if op.dtype is None:
            return tuple([np.empty_like(v) for v in op.value])
        return self.blocks[assignment.block[id(op)]][: op.nbytes].view(op.dtype).reshape(op.shape)

    def _bind_step(self, op: Op) -> None:
        if is_copy(op):
            look = view(op)
            run: Any = lambda x, out, look=look: np.copyto(out, look(x))
        else:
            run = kernel(op, self.generators)
        args: list[Any] = []
        for operand in (*op.args, op):
            place = self.places.get(id(operand)) if type(operand) is Op else operand
            if type(place) is Dynamic:
                self.references[place.slot].append((args, len(args), place.views))
                place = None
            args.append(place)
        self.steps.append((run, args))

    def _bind_region(self, region: Region) -> None:
        """Steps for each block of rows; temporaries live in a few arrays of one block."""
        rows = region.rows
        homes, number = temporaries(region)
        height = max([stop - start for start, stop in rows])
        scratch = [aligned(height * size) for size in number]
        for start, stop in rows:
            for op in region.members:
                args: list[Any] = []
                for operand in (*op.args, op):
                    args.append(self._block(operand, region, start, stop, homes, scratch, args, operand is op))
                self.steps.append((kernel(op, self.generators), args))

    def _block(self, operand: Any, region: Region, start: int, stop: int, homes: Any, scratch: Any, args: list[Any], is_out: bool) -> Any:
        """The rows of an operand, or of the result; what is bound at the call has its place noted."""
        if type(operand) is not Op:
            cut = part(operand.shape, region.shape, start, stop) if isinstance(operand, np.ndarray) else None
            return operand if cut is None else cut(operand)
        if id(operand) in homes:
            shape = (stop - start, *operand.shape[1:])
            return scratch[homes[id(operand)]][: math.prod(shape) * operand.dtype.itemsize].view(operand.dtype).reshape(shape)
        cut = (lambda x: x[start:stop]) if is_out else part(operand.shape, region.shape, start, stop)
        place = self.places[id(operand)]
        if type(place) is Dynamic:
            self.references[place.slot].append((args, len(args), place.views if cut is None else (*place.views, cut)))
            return None
        return place if cut is None else cut(place)

    def bind(self, slot: int, array: Any) -> None:
        """Let the steps read, or write, this array in the place of the one before."""
        if self.bound[slot] is array:
            return
        self.bound[slot] = array
        for args, at, views in self.references[slot]:
            x = array
            for look in views:
                x = look(x)
            args[at] = x

    def read(self, value: Any) -> Any:
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

    def fresh(self, slot: int, shape: tuple[int, ...], dtype: Any) -> Any:
        """An array for a result, bound to its slot: a new one, or one that was returned before and that everybody has dropped since."""
        spares = self.spares.setdefault(slot, [])
        for array in spares:
            if sys.getrefcount(array) <= (self.counts[slot] if self.bound[slot] is array else _COUNT):
                self.bind(slot, array)
                return array
        array = np.empty(shape, dtype)
        if len(spares) < 3:
            spares.append(array)
        self.bind(slot, array)
        self.counts[slot] = sys.getrefcount(array)
        return array

    def run(self, arrays: Sequence[Any], generators: list[np.random.Generator]) -> None:
        """Bind the arguments and run all steps."""
        for slot, array in enumerate(arrays):
            if self.bound[slot] is not array:
                self.bind(slot, array)
        self.generators.current = generators
        for fn, args in self.steps:
            fn(*args)


def temporaries(region: Region) -> tuple[dict[int, int], list[int]]:
    """Which block-sized array each temporary of a region is in, by id, and the bytes that a row of each array has."""
    last = {id(a): k for k, op in enumerate(region.members) for a in op.args if type(a) is Op and id(a) in region.temporaries}
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


def _alone() -> int:
    """The count of references to an array that only a list of spares holds, as ``fresh`` sees it."""
    held = [np.empty(0)]
    for array in held:
        return sys.getrefcount(array)
    return 0


_COUNT = _alone()
