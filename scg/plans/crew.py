"""Threads beside the caller's, each with a list of steps; and BLAS kept to one thread meanwhile. Nothing of it is left
when a plan has ended.

A hand-over costs some 40 microseconds, most of them the system's for waking a processor, so that it pays for parts of a
tenth of a millisecond and more. A helper waits without spinning: what spins keeps a processor from others, as the
threads of a BLAS do for milliseconds after each product.
"""

import functools
import itertools
import os
import threading
import time
import weakref
from _thread import allocate_lock, start_new_thread
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any

import numpy as np

Step = tuple[Callable[..., Any], Sequence[Any]]

LIMIT = 4
"""Threads of a plan at most: where a BLAS has more, they are left to it."""


WINDOW = 8_000_000
"""Nanoseconds over which it is looked how busy others are: the system adds up what running threads take every few
milliseconds."""


class Watch:
    """Whether other threads of this process are busy: those of a BLAS, say, which wait for its next product for 30 ms,
    and do so spinning.

    A helper that shares its processor with one of them keeps the caller waiting, for a time slice of some milliseconds
    at each hand-over.
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
                _taken[0] += time.thread_time_ns() - start
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


class Crew:
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

        def meet(lane: int) -> None:
            for gate in gates[lane]:
                gate.release()
            for row in gates:
                row[lane].acquire()
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
                del first  # which knows this frame: the crew is to go with it


_idle: list[Crew] = []
"""Crews that nobody uses, whose threads are parked. (Threads do not survive a fork.)"""


def crew(size: int) -> Crew:
    """A crew of ``size`` threads, to be parked at the end."""
    return _parked(size) or Crew(size)


def park(found: Crew) -> None:
    """Keep a crew, of which all threads have ended their steps, for the next caller."""
    _idle.append(found)


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
    """How many threads a plan may have: as many as NumPy's BLAS takes and this process has processors; 1 where the BLAS
    cannot be told to keep to one."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = min(BLAS.threads(), affinity)
    return count if count <= LIMIT else 1


class _Blas:
    """The number of threads of OpenBLAS, by ``threadpoolctl``: a setting of the process. Where that is not installed,
    or NumPy has another BLAS, it is left alone.

    ``users`` are those who want one thread. Whatever an interrupt leaves undone is done by the next ``release``, of
    which each user makes two. Only of an OpenBLAS with threads of its own: with those of OpenMP it is a setting of each
    thread.
    """

    def __init__(self) -> None:
        self.lock, self.users = threading.RLock(), set[object]()
        self._before: list[int] = []

    @functools.cached_property
    def libraries(self) -> list[Any]:
        """Those that NumPy and SciPy have loaded; none where one of them cannot be told."""
        try:
            from threadpoolctl import ThreadpoolController
        except ImportError:
            return []
        found = ThreadpoolController().select(user_api="blas").lib_controllers
        return found if all([x.internal_api == "openblas" and x.threading_layer == "pthreads" for x in found]) else []

    def get(self) -> int:
        """How many threads it takes now; 1 where it cannot be told."""
        return max([int(library.get_num_threads()) for library in self.libraries], default=1)

    def threads(self) -> int:
        """How many it takes when nobody wants one."""
        with self.lock:
            return max(self._before) if self._before else self.get()

    def after_fork(self) -> None:
        """Forget the users, who are threads of the other process."""
        self.lock = threading.RLock()
        self.users.clear()
        self.release(None)

    def keep(self, user: object) -> None:
        """Keep it to one thread, until all users have released it."""
        with self.lock:
            if not self._before:
                self._before = [int(library.get_num_threads()) for library in self.libraries]
            self.users.add(user)
            self._set([1] * len(self._before))

    def release(self, user: object) -> None:
        """Be no user any more; the last one puts back what was."""
        with self.lock:
            self.users.discard(user)
            if not self.users and self._before:
                self._set(self._before)
                self._before = []

    def _set(self, counts: Sequence[int]) -> None:
        for library, count, before in zip(self.libraries, counts, self._before, strict=True):
            if before != 1:
                library.set_num_threads(count)


def with_one_thread(call: Callable[[], Any]) -> Any:
    """What ``call`` returns, run while BLAS keeps to one thread. An interrupt, wherever it comes, leaves BLAS as it
    was."""
    user = object()
    try:
        try:
            BLAS.keep(user)
            return call()
        finally:
            BLAS.release(user)
    finally:  # once more: an interrupt may have come within the first
        BLAS.release(user)


BLAS = _Blas()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_idle.clear)
    os.register_at_fork(after_in_child=BLAS.after_fork)
