"""A plan: the program of one recorded run, its buffers, and how a call of it begins and ends."""

import functools
import itertools
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from scg.core.node import Node, ancestors
from scg.core.tree import leaves, rebuild
from scg.errors import NonFiniteError
from scg.plans import passes
from scg.plans.buffers import assign, origin
from scg.plans.checks import is_finite, is_there
from scg.plans.kernels import may_differ
from scg.plans.program import Op, Program, from_recording
from scg.plans.recording import Choice, Recorder, is_python_number
from scg.plans.steps import SMALL, Steps
from scg.plans.threads import Threads, Watch, borrow, park, run_steps, with_one_thread

SETS = 4
"""How many sets of buffers a plan keeps for threads that run it at once."""


class Output(NamedTuple):
    """One result: ``slot`` where it is written into an array of the caller, ``argument`` where it is one; a NumPy
    scalar where ``scalar``, a number of Python's own where ``python``."""

    value: Any
    slot: int | None
    argument: int | None
    scalar: bool
    python: bool = False


class Ending(NamedTuple):
    """A ``Later`` of the recorded run: its trees without their nodes, and the operations that stand for these."""

    call: Any
    now: bool
    trees: tuple[Any, ...]
    values: list[Any]

    def lists(self, width: int, found: Sequence[Any]) -> Any:
        """What it gives each thread to do, or has done, for these arrays in the place of its values."""
        given = iter(found)
        return self.call(width, *[next(given) if type(tree) is int else rebuild(tree, given) for tree in self.trees])


class Plan:
    """What one recorded run became. ``call`` gives the results of another call with the same signature, or raises
    Otherwise."""

    def __init__(self, recorder: Recorder, inputs: Sequence[Node], result: Any, floor: int, options: "passes.Options"):
        self.outside: Any = None  # what the function looked up
        self._structure = rebuild(result, itertools.count())  # of the result, without its nodes
        found = [leaf for _, leaf in leaves(result)]
        trailing: list[Any] = []
        spans = []
        for later in recorder.later_calls:
            tail = [leaf for tree in later.trees for _, leaf in leaves(tree)]
            spans.append((later, len(found) + len(trailing), len(tail)))
            trailing += tail
        taken = {
            node.id for node in ancestors([x for x in [*found, *trailing, *recorder.watched] if type(x) is Node], floor)
        }
        recorder.choices += [
            Choice(is_there, (node,), True, node.line)
            for node in recorder.made
            if node.id not in taken | recorder.draws.keys() and may_differ(node)
        ]
        watched = [node for node in {node.id: node for node in recorder.watched}.values() if node.id >= floor]
        program = from_recording(recorder, inputs, [*found, *trailing, *watched], floor)
        program.kept = len(found) + len(trailing)
        program.checked = {k for later, start, n in spans if later.now for k in range(start, start + n)} | set(
            range(program.kept, len(program.outputs))
        )
        program.stepped = sum(
            [
                node.size
                for later in recorder.later_calls
                if later.now
                for tree in later.trees
                for _, node in leaves(tree)
            ]
        )
        self.report = passes.run(program, options)
        self.risky = program.risky
        self.program = program
        self.arguments = len(inputs)
        self._position = {node.id: k for k, node in enumerate(inputs)}
        results, own = self._results(program, found)
        self._outputs = [
            self._output(node, value, results, recorder) for node, value in zip(found, program.outputs, strict=False)
        ]
        self._endings = [
            Ending(
                later.call,
                later.now,
                tuple([rebuild(t, itertools.count()) for t in later.trees]),
                program.outputs[start : start + n],
            )
            for later, start, n in spans
        ]
        read = [
            *[o.value for o in self._outputs],
            *[value for ending in self._endings if ending.now for value in ending.values],
        ]
        unchanged = not any([_is_foreign_memory(value) for value in read])
        # the first ending begins where the steps end: nobody reads what it changes
        self._at_once = unchanged and bool(self._endings) and self._endings[0].now
        # everywhere in the same order
        self._locks = sorted(
            {later.lock for later in recorder.later_calls if later.lock is not None}, key=lambda lock: id(lock.__self__)
        )
        self._own, self._slots = results, len(inputs) + len(results)
        self.assignment = assign(program, own)
        for op in program.ops:
            if op.dtype is not None:
                op.value = None  # what was computed is not kept
        self._watch = Watch()
        self._idle: list[Steps] = []
        self._lock = threading.Lock()

    @property
    def results(self) -> dict[int, Op]:
        """By id the operations that are written into arrays of the caller."""
        return self._by_id

    @property
    def later_calls(self) -> list[Any]:
        """What is called at the end, with values of the plan."""
        return [ending.call for ending in self._endings]

    def call(self, arrays: Sequence[Any], generators: list[np.random.Generator]) -> Any:
        """The results for the arrays of a call. Raises Otherwise where a choice comes out otherwise, NonFiniteError
        where zeros may have to absorb."""
        with self._lock:
            steps = self._idle.pop() if self._idle else None
        if steps is None:
            steps = Steps(self.program, self.assignment, self._own, self._slots)
        try:
            found = self._locked(0, steps, arrays, generators)
        except Exception:  # all threads have ended
            self._park(steps)
            raise
        self._park(steps)
        return found

    def _park(self, steps: Steps) -> None:
        with self._lock:
            if len(self._idle) < SETS:
                self._idle.append(steps)

    def _locked(self, k: int, steps: Steps, arrays: Sequence[Any], generators: list[np.random.Generator]) -> Any:
        """The results, with all locks from the k-th on: each a ``with`` of its own, which no interrupt leaves held."""
        if k < len(self._locks):
            with self._locks[k]():
                return self._locked(k + 1, steps, arrays, generators)
        # else the same steps one after the other: the same bits
        threads = borrow(self.program.width) if self.program.width > 1 and not self._watch.look() else None
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
        self, steps: Steps, arrays: Sequence[Any], generators: list[np.random.Generator], threads: Threads | None
    ) -> Any:
        for op_id, slot in self._own.items():
            op = self._by_id[op_id]
            steps.fresh(slot, op.shape, op.dtype)
        width, endings = self.program.width, self._endings
        first = [steps.read(value) for value in endings[0].values] if self._at_once else []
        # what is not would be copied before it is there
        at_once = self._at_once and all([x.flags.c_contiguous for x in first])
        steps.run(arrays, generators, threads, endings[0].lists(width, first) if at_once else None)
        # before parameters change
        found = rebuild(self._structure, iter([self._returned(o, steps, arrays) for o in self._outputs]))
        rest = endings[1:] if at_once else endings
        given = [
            [_of_now(value, steps) if ending.now else steps.read(value) for value in ending.values] for ending in rest
        ]
        if not all(
            [
                is_finite(x)
                for ending, values in zip(rest, given, strict=True)
                if ending.now
                for x, v in zip(values, ending.values, strict=True)
                if type(v) is not Op
            ]
        ):
            raise NonFiniteError("an array that the function holds, given as a gradient, is not finite")
        for ending, values in zip(rest, given, strict=True):
            lists = ending.lists(width, values)
            if threads is not None and lists:
                threads.run(lists, lambda: None)
            else:
                for steps in lists or ():
                    run_steps(steps)
        return found

    def _returned(self, output: Output, steps: Steps, arrays: Sequence[Any]) -> Any:
        if output.argument is not None:
            return arrays[output.argument]
        if output.slot is not None:
            return steps.bound[output.slot]
        x = output.value
        if type(x) is Op:
            x = steps.read(x)
            return x.item() if output.python else x[()] if output.scalar else np.array(x)
        return np.array(x) if isinstance(x, np.ndarray) else x

    def _results(self, program: Program, found: Sequence[Any]) -> tuple[dict[int, int], set[int]]:
        """Slots of the operations that are written into arrays of the caller: large results that are nobody's view."""
        results: dict[int, int] = {}
        self._by_id: dict[int, Op] = {}
        for value in program.outputs[: len(found)]:
            if (
                type(value) is Op
                and value.nbytes > SMALL
                and not value.is_given
                and origin(value) is value
                and id(value) not in results
            ):
                results[id(value)] = self.arguments + len(results)
                self._by_id[id(value)] = value
        return results, set(results)

    def _output(self, node: Any, value: Any, results: dict[int, int], recorder: Recorder) -> Output:
        if type(node) is Node and node.id in self._position:
            return Output(value, None, self._position[node.id], False)
        slot = results.get(id(value)) if type(value) is Op else None
        if slot is not None and any([o.slot == slot for o in getattr(self, "_given", [])]):
            slot = None  # the same result twice: two arrays
        scalar = (
            type(node) is Node
            and node.shape == ()
            and node.id not in recorder.arrays
            and (node.id in recorder.scalars or isinstance(node.raw, np.generic))
        )
        output = Output(value, slot, None, scalar, is_python_number(node))
        self._given = [*getattr(self, "_given", []), output]
        return output


def _is_foreign_memory(value: Any) -> bool:
    """Whether a value is somebody else's memory, which the calls at the end may change."""
    return origin(value).is_given if type(value) is Op else isinstance(value, np.ndarray)


def _of_now(value: Any, steps: Steps) -> Any:
    x = steps.read(value)
    return np.array(x) if _is_foreign_memory(value) else x
