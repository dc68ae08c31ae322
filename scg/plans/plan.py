"""A plan: the program of one recorded run, its buffers, and how a call of it begins and ends."""

import functools
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from scg.core.aliases import Function, Operand, Result, Tree
from scg.core.tree import rebuild
from scg.errors import NonFiniteError
from scg.plans.buffers import Assignment, origin
from scg.plans.checks import is_finite
from scg.plans.program import Op, Operations
from scg.plans.steps import Steps
from scg.plans.threads import Threads, Watch, borrow, park, run_steps, with_one_thread

SETS = 4
"""How many sets of buffers a plan keeps for threads that run it at once."""


class Stepped(Exception):
    """An error, its cause, that came after a step had changed what is outside: the call must not run again."""


class Output(NamedTuple):
    """One result: ``slot`` where it is written into an array of the caller, ``argument`` where it is one; a NumPy
    scalar where ``scalar``, a number of Python's own where ``python``."""

    value: Operand
    slot: int | None
    argument: int | None
    scalar: bool
    python: bool = False


class Ending(NamedTuple):
    """A ``Later`` of the recorded run: its trees without their nodes, and the operations that stand for these."""

    call: Function
    now: bool
    changes: bool
    trees: tuple[Tree, ...]
    values: list[Operand]

    def lists(self, width: int, found: Sequence[object]) -> Result:
        """What it gives each thread to do, or has done, for these arrays in the place of its values."""
        given = iter(found)
        return self.call(width, *[next(given) if type(tree) is int else rebuild(tree, given) for tree in self.trees])


@dataclass(eq=False)
class Plan:
    """What one recorded run became; ``scg.plans.building.build`` makes it. ``call`` gives the results of another call
    with the same signature, or raises Otherwise."""

    program: Operations
    report: list[tuple[str, int, int]]
    """(pass, how often it struck, operations after it)."""
    assignment: Assignment
    results: dict[int, tuple[int, Op]]
    """By id the operations that are written into arrays of the caller, and their slots."""
    slots: int
    structure: Tree
    """That of the result, without its nodes."""
    outputs: list[Output]
    endings: list[Ending]
    locks: list[Any]
    """Methods that return what is held until the endings are done; everywhere in the same order."""
    at_once: bool
    """Whether the first ending begins where the steps end: nobody reads what it changes."""
    outside: Any = None
    """What the function looks up."""
    constants: Any = None
    """What else its nodes hold."""
    watch: Watch = field(default_factory=Watch)
    _idle: list[Steps] = field(default_factory=list)
    _lock: Any = field(default_factory=threading.Lock)

    def call(self, arrays: Sequence[np.ndarray], generators: list[np.random.Generator]) -> Result:
        """The results for the arrays of a call. Raises Otherwise where a choice comes out otherwise, NonFiniteError
        where zeros may have to absorb, and Stepped where an error comes after a step."""
        with self._lock:
            steps = self._idle.pop() if self._idle else None
        if steps is None:
            steps = Steps(self.program, self.assignment, {i: slot for i, (slot, _) in self.results.items()}, self.slots)
        try:
            found = self._locked(0, steps, arrays, generators)
        except Exception:  # all threads have ended
            self._keep(steps)
            raise
        self._keep(steps)
        return found

    def _keep(self, steps: Steps) -> None:
        with self._lock:
            if len(self._idle) < SETS:
                self._idle.append(steps)

    def _locked(
        self, k: int, steps: Steps, arrays: Sequence[np.ndarray], generators: list[np.random.Generator]
    ) -> Result:
        """The results, with all locks from the k-th on: each a ``with`` of its own, which no interrupt leaves held."""
        if k < len(self.locks):
            with self.locks[k]():
                return self._locked(k + 1, steps, arrays, generators)
        # else the same steps one after the other: the same bits
        threads = borrow(self.program.width) if self.program.width > 1 and not self.watch.look() else None
        call = functools.partial(self._computed, steps, arrays, generators, threads)
        try:
            found = call() if self.program.width == 1 and self.program.shares else with_one_thread(call)
        except Exception:  # all threads have ended
            if threads is not None:
                park(threads)
            raise
        if threads is not None:
            park(threads)
        return found

    def _computed(
        self, steps: Steps, arrays: Sequence[np.ndarray], generators: list[np.random.Generator], threads: Threads | None
    ) -> Result:
        for slot, op in self.results.values():
            steps.bind(slot, np.empty(op.shape, op.dtype))
        width, endings = self.program.width, self.endings
        first = [steps.read(value) for value in endings[0].values] if self.at_once else []
        # what is not would be copied before it is there
        at_once = self.at_once and all([x.flags.c_contiguous for x in first])
        steps.run(arrays, generators, threads, endings[0].lists(width, first) if at_once else None)
        try:
            # before parameters change
            found = rebuild(self.structure, iter([_returned(output, steps, arrays) for output in self.outputs]))
            _end(endings[at_once:], steps, width, threads, at_once)
        except Exception as error:
            if at_once and not isinstance(error, Stepped):
                raise Stepped from error
            raise
        return found


def _end(endings: Sequence[Ending], steps: Steps, width: int, threads: Threads | None, stepped: bool) -> None:
    """Do what is to be done at the end, in its order: an error leaves what it leaves in a plain call, ``stepped`` once
    something has changed."""
    given = [[_read(value, steps) if e.now else steps.read(value) for value in e.values] for e in endings]
    for ending, values in zip(endings, given, strict=True):
        held = [x for x, v in zip(values, ending.values, strict=True) if type(v) is not Op]
        if ending.now and not all(map(is_finite, held)):
            raise NonFiniteError("an array that the function holds, given as a gradient, is not finite")
    try:
        for ending, values in zip(endings, given, strict=True):
            lists = ending.lists(width, values)
            stepped = stepped or ending.changes
            if threads is not None and lists:
                threads.run(lists, lambda: None)
            else:
                for part in lists or ():
                    run_steps(part)
    except Exception as error:
        if stepped:
            raise Stepped from error
        raise


def _returned(output: Output, steps: Steps, arrays: Sequence[np.ndarray]) -> Result:
    if output.argument is not None:
        return arrays[output.argument]
    if output.slot is not None:
        return steps.bound[output.slot]
    x = output.value
    if type(x) is Op:
        x = steps.read(x)
        return x.item() if output.python else x[()] if output.scalar else np.array(x)
    return (x[()] if output.scalar else np.array(x)) if isinstance(x, np.ndarray) else x


def is_foreign(value: object) -> bool:
    """Whether a value is somebody else's memory, which the calls at the end may change."""
    return origin(value).is_given if type(value) is Op else isinstance(value, np.ndarray)


def _read(value: object, steps: Steps) -> Result:
    """What it is now, before anything is changed."""
    x = steps.read(value)
    return np.array(x) if is_foreign(value) else x
