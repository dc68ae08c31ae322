"""The threads of a BLAS, and BLAS kept to one thread while a plan has several, or small products alone."""

import functools
import os
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from scg.core.aliases import Foreign

T = TypeVar("T")

LIMIT = 4
"""Threads of a plan at most: where a BLAS has more, they are left to it."""


def width() -> int:
    """How many threads a plan may have: as many as NumPy's BLAS takes and this process has processors; 1 where the BLAS
    cannot be told to keep to one."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = min(BLAS.threads(), affinity)
    return count if count <= LIMIT else 1


class Blas:
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
    def libraries(self) -> list[Foreign]:
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
                set_threads(library, count)


def set_threads(library: Foreign, count: int) -> None:
    """Let a library of ``threadpoolctl`` use so many threads. From 3.7 on that hears the thread alone that called it
    first, unless it is told that this one is done; here whoever holds the lock calls, and is done."""
    done = getattr(library, "clear_controlling_thread", lambda force: None)
    done(force=True)
    library.set_num_threads(count)
    done(force=True)


def with_one_thread(call: Callable[[], T]) -> T:
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


BLAS = Blas()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=BLAS.after_fork)
