"""Threads beside the caller's, each with a list of steps; and NumPy's BLAS kept to one thread meanwhile.

A hand-over costs some 40 microseconds, most of them the system's for waking a processor, so that it pays for parts of a tenth of a millisecond and
more. A helper waits without spinning: what spins keeps a processor from others, as the threads of a BLAS do for milliseconds after each product.
"""

import ctypes
import itertools
import os
import sys
import threading
import time
from _thread import allocate_lock
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Step = tuple[Callable[..., Any], Sequence[Any]]

LIMIT = 4
"""Threads of a plan at most: where a BLAS has more, they are left to it."""


WINDOW = 8_000_000
"""Nanoseconds over which it is looked how busy others are: the system adds up what running threads take every few milliseconds."""


class Watch:
    """Whether other threads of this process are busy: those of a BLAS, say, which wait for its next product for 30 ms, and do so spinning.

    A helper that shares its processor with one of them keeps the caller waiting, for a time slice of some milliseconds at each hand-over.
    """

    def __init__(self) -> None:
        self.crowded = False
        self.start = self.before = self.thread = 0

    def look(self) -> bool:
        """What was so in the last window; a new one begins when that is over, or another thread calls."""
        now, thread = time.perf_counter_ns(), threading.get_ident()
        if thread != self.thread or now - self.start > WINDOW:
            taken = time.process_time_ns() - time.thread_time_ns() - _taken[0]
            if thread == self.thread:
                self.crowded = taken - self.before > 0.3 * (now - self.start)
            self.start, self.before, self.thread = now, taken, thread
        return self.crowded


_taken = [0]
"""Nanoseconds of processor time of all helpers."""


def run_steps(steps: Sequence[Step]) -> None:
    """``fn(*args)`` for each step."""
    for fn, args in steps:
        fn(*args)


def _forget(error: BaseException) -> None:
    """Nobody waits for it."""


def _held() -> Any:
    lock = allocate_lock()
    lock.acquire()
    return lock


def let_go(locks: Sequence[Any]) -> None:
    """Let everyone run on who waits for a step that will not come."""
    for lock in locks:
        try:
            lock.release()
        except RuntimeError:  # nobody holds it
            pass


class Helper:
    """A parked thread that runs a list of steps when told."""

    def __init__(self) -> None:
        self.go, self.done = _held(), _held()
        self.steps: Sequence[Step] | None = ()
        self.failed: Callable[[BaseException], None] = _forget
        self.processors: frozenset[int] = frozenset()
        self.busy = False
        thread = threading.Thread(target=self._serve, name="scg helper", daemon=True)
        try:
            thread.start()
        except BaseException:  # an interrupt, when it may wait already
            self.retire()
            raise
        self.id = thread.native_id

    def _serve(self) -> None:
        with np.errstate(all="ignore"):
            while True:
                self.go.acquire()
                if self.steps is None:
                    return
                start = time.thread_time_ns()
                try:
                    run_steps(self.steps)
                except BaseException as error:  # raised by the caller's thread
                    self.failed(error)
                _taken[0] += time.thread_time_ns() - start
                self.busy = False
                if self.done.locked():
                    self.done.release()

    def move(self, processors: frozenset[int]) -> None:
        """Run on these processors from now on."""
        if processors != self.processors and self.id is not None:
            os.sched_setaffinity(self.id, processors)
            self.processors = processors

    def start(self, steps: Sequence[Step], failed: Callable[[BaseException], None]) -> None:
        """Begin; ``failed`` is told what a step raises."""
        self.steps, self.failed, self.busy = steps, failed, True
        self.go.release()

    def retire(self) -> None:
        """End the thread, when its steps are done."""
        self.steps = None
        if self.go.locked():
            self.go.release()

    def join(self) -> None:
        """Wait until the steps are done, also where an interrupt comes meanwhile: their memory is in use until then."""
        interrupt = None
        while self.busy:
            try:
                self.done.acquire()
            except KeyboardInterrupt as error:
                interrupt = error
        self.steps, self.failed = (), _forget
        if interrupt is not None:
            raise interrupt


class Crew:
    """The caller's thread and some helpers. Within ``with``, NumPy's BLAS keeps to one thread, and, if ``apart``, each thread to a processor of its own.

    The latter where there are as many processors as threads: schedulers that wake a thread beside its waker can leave both on one processor for
    tens of milliseconds, while the other idles. Not where others' code runs: it would see it, and threads that it starts would keep to it.
    """

    def __init__(self, size: int):
        self.helpers = [Helper() for _ in range(size - 1)]
        self.apart = False
        self._allowed: set[int] | None = None

    def __enter__(self) -> "Crew":
        BLAS.__enter__()
        self._allowed = None
        if _processor is not None:
            allowed, here = os.sched_getaffinity(0), _processor()
            apart = self.apart and len(allowed) == len(self.helpers) + 1 and here in allowed
            places = [frozenset([k]) for k in sorted(allowed - {here})] if apart else [frozenset(allowed)] * len(self.helpers)
            try:
                for helper, place in zip(self.helpers, places, strict=True):
                    helper.move(place)
                if apart:
                    os.sched_setaffinity(0, {here})
                    self._allowed = allowed
            except OSError:  # not allowed to
                pass
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if self._allowed is not None:
            os.sched_setaffinity(0, self._allowed)
        BLAS.__exit__()
        if error is None or isinstance(error, Exception):
            _idle.append(self)
        else:  # an interrupt, which may have come anywhere
            for helper in self.helpers:
                helper.retire()

    def run(self, lists: Sequence[Sequence[Step]], abandon: Callable[[], None], more: Sequence[Sequence[Step]] | None = None) -> None:
        """Run the lists at once, the first on this thread, to their ends, and then ``more``, if none has failed.

        ``abandon`` lets go whoever waits for a step that failed. Who comes last to the end of its list goes on at once; the others are woken.
        """
        errors: list[BaseException] = []  # as they come: the first may be why others fail
        gates = [[_held() for _ in lists] for _ in lists] if more is not None else []

        def failed(error: BaseException) -> None:
            errors.append(error)
            abandon()
            let_go([*itertools.chain(*gates)])

        def meet(lane: int) -> None:
            for gate in gates[lane]:
                gate.release()
            for row in gates:
                row[lane].acquire()
            if errors:
                raise errors[0]

        if more is not None:
            lists = [[*steps, (meet, (k,)), *more[k]] for k, steps in enumerate(lists)]
        for helper, steps in zip(self.helpers, lists[1:], strict=True):
            helper.start(steps, failed)
        try:
            run_steps(lists[0])
        except BaseException as error:
            failed(error)
        for helper in self.helpers:
            try:
                helper.join()
            except KeyboardInterrupt as interrupt:
                errors.insert(0, interrupt)
        if errors:
            raise errors[0]


_idle: list[Crew] = []
"""Crews that nobody uses, whose threads are parked. (Threads do not survive a fork.)"""


def crew(size: int, apart: bool = False) -> Crew:
    """A crew of ``size`` threads, to be entered, which is parked at the end."""
    found = _parked(size) or Crew(size)
    found.apart = apart
    return found


def _parked(size: int) -> Crew | None:
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


def width() -> int:
    """How many threads a plan may have: as many as NumPy's BLAS takes and this process has processors; 1 where the BLAS cannot be kept to one."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = min(BLAS.threads(), affinity)
    return count if count <= LIMIT else 1


class _Blas:
    """The number of threads of NumPy's OpenBLAS: a setting of the process, and so is this count of those who want one thread.

    Of an OpenBLAS with threads of its own: with those of OpenMP it is a setting of each thread.
    """

    def __init__(self) -> None:
        self.lock, self.users, self.before = threading.Lock(), 0, 1
        parallel = _openblas("get_parallel")
        self.get: Any = None
        self.set: Any = None
        if parallel is not None and int(parallel()) == 1:
            self.get, self.set = _openblas("get_num_threads"), _openblas("set_num_threads")

    def after_fork(self) -> None:
        """Forget the users, who are threads of the other process."""
        self.lock = threading.Lock()
        if self.users and self.set is not None:
            self.set(self.before)
        self.users = 0

    def threads(self) -> int:
        """How many it takes; 1 for another BLAS."""
        with self.lock:
            return self.before if self.users else int(self.get()) if self.get and self.set else 1

    def __enter__(self) -> None:
        """Keep it to one thread, until the end of all blocks that began meanwhile."""
        with self.lock:
            self.users += 1
            if self.users == 1 and self.set is not None:
                self.before = int(self.get())
                self.set(1)

    def __exit__(self, *error: Any) -> None:
        with self.lock:
            self.users -= 1
            if self.users == 0 and self.set is not None:
                self.set(self.before)


def _openblas(name: str) -> Any:
    """A function of the OpenBLAS that NumPy is linked with, by its names in wheels and elsewhere; None where there is none."""
    module = sys.modules.get("numpy._core._multiarray_umath")
    try:
        library = ctypes.PyDLL(module.__file__ if module is not None else None)
    except (OSError, AttributeError):
        return None
    for spelling in ("scipy_openblas_{}64_", "scipy_openblas_{}", "openblas_{}64_", "openblas_{}"):
        found = getattr(library, spelling.format(name), None)
        if found is not None:
            return found
    return None


def _current() -> Any:
    """The function that tells on which processor a thread runs, where the C library has one and threads can be told to keep away."""
    try:
        return ctypes.PyDLL(None).sched_getcpu if hasattr(os, "sched_setaffinity") else None
    except (OSError, AttributeError, TypeError):
        return None


BLAS = _Blas()
_processor = _current()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_idle.clear)
    os.register_at_fork(after_in_child=BLAS.after_fork)
