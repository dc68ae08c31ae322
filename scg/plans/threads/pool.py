"""Threads beside the caller's, each with a list of steps. Nothing of it is left when a plan has ended.

A hand-over costs some 40 microseconds, most of them the system's for waking a processor, so that it pays for parts of a
tenth of a millisecond and more. A helper waits without spinning: what spins keeps a processor from others, as the
threads of a BLAS do for milliseconds after each product.
"""

import itertools
import os
import time
import weakref
from _thread import LockType, allocate_lock, start_new_thread
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any

import numpy as np

from scg.core.aliases import Function, Operand
from scg.plans.threads.busy import taken

Step = tuple[Function, Sequence[Operand]]


def run_steps(steps: Sequence[Step]) -> None:
    """``fn(*args)`` for each step."""
    for fn, args in steps:
        fn(*args)


def _held() -> LockType:
    lock = allocate_lock()
    lock.acquire()
    return lock


def let_go(locks: Sequence[LockType]) -> None:
    """Let everyone run on who waits for a step that will not come."""
    for lock in locks:
        try:
            lock.release()
        except RuntimeError:  # nobody holds it
            pass


class _Work:
    """What a helper and its thread share. The thread knows nothing else, and ends with the helper."""

    def __init__(self) -> None:
        self.go: SimpleQueue[Any] = SimpleQueue()
        self.done = _held()
        self.busy = False
        # a reference whose callback, in C, tells the thread to end: a method in Python could be interrupted
        self.end: Any = None

    def serve(self) -> None:
        """The thread's own loop."""
        with np.errstate(all="ignore"):
            while True:
                found = self.go.get()
                if found is self.end:
                    return
                steps, failed = found
                start = time.thread_time_ns()
                try:
                    run_steps(steps)
                except BaseException as error:  # raised by the caller's thread
                    failed(error)
                taken[0] += time.thread_time_ns() - start
                found = steps = failed = None
                self.busy = False
                if self.done.locked():
                    self.done.release()


class Helper:
    """A parked thread that runs a list of steps when told, and ends with this object."""

    def __init__(self) -> None:
        self._work = work = _Work()
        work.end = weakref.ref(self, work.go.put)
        start_new_thread(work.serve, ())  # threading.Thread.start waits for it, and what interrupts that is lost

    @property
    def busy(self) -> bool:
        """Whether its steps are not done."""
        return self._work.busy

    def start(self, steps: Sequence[Step], failed: Callable[[BaseException], None]) -> None:
        """Begin; ``failed`` is told what a step raises."""
        self._work.busy = True
        self._work.go.put((steps, failed))

    def join(self) -> None:
        """Wait until the steps are done."""
        while self._work.busy:
            self._work.done.acquire()


class Threads:
    """The caller's thread and some helpers. One that is not parked at the end, as after an interrupt, ends its threads
    when it is dropped."""

    def __init__(self, size: int):
        self.helpers = [Helper() for _ in range(size - 1)]

    def run(
        self, lists: Sequence[Sequence[Step]], abandon: Callable[[], None], more: Sequence[Sequence[Step]] | None = None
    ) -> None:
        """Run the lists at once, the first on this thread, to their ends, and then ``more``, if none has failed.

        ``abandon`` lets go whoever waits for a step that failed. Who comes last to the end of its list goes on at once;
        the others are woken. An interrupt, wherever it comes, is raised when all have ended: their memory is in use
        until then.
        """
        errors: list[BaseException] = []  # as they come: the first may be why others fail
        gates = [[_held() for _ in lists] for _ in lists] if more is not None else []
        through: list[bool] = []  # whether this thread has come to the end of its list

        def failed(error: BaseException) -> None:
            errors.append(error)
            abandon()
            let_go([*itertools.chain(*gates)])

        def meet(k: int) -> None:
            for gate in gates[k]:
                gate.release()
            for row in gates:
                row[k].acquire()
            if errors:
                raise errors[0]

        def join() -> None:
            if not through and not errors:  # an interrupt between two lines of this function
                failed(KeyboardInterrupt())
            for helper in self.helpers:
                while helper.busy:
                    try:
                        helper.join()
                    except KeyboardInterrupt as interrupt:
                        errors.insert(0, interrupt)

        if more is not None:
            lists = [[*steps, (meet, (k,)), *more[k]] for k, steps in enumerate(lists)]
        try:
            try:
                for helper, steps in zip(self.helpers, lists[1:], strict=True):
                    helper.start(steps, failed)
                run_steps(lists[0])
                through.append(True)
            except BaseException as error:
                failed(error)
            finally:
                join()
        finally:  # once more: an interrupt may have come within the first
            join()
        if errors:
            first = errors[0]
            errors.clear()
            try:
                raise first
            finally:
                del first  # which knows this frame: the threads are to go with it


_idle: list[Threads] = []
"""Those that nobody uses, parked. (Threads do not survive a fork.)"""


def borrow(size: int) -> Threads:
    """``size`` threads, to be parked at the end."""
    return _parked(size) or Threads(size)


def park(found: Threads) -> None:
    """Keep threads, all of which have ended their steps, for the next caller."""
    _idle.append(found)


def _parked(size: int) -> Threads | None:
    for k, parked in enumerate(_idle):
        if len(parked.helpers) == size - 1:
            try:
                found = _idle.pop(k)
            except IndexError:  # others were quicker
                break
            if len(found.helpers) == size - 1:
                return found
            _idle.append(found)
            break
    return None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_idle.clear)
