"""A second thread for halves of large arrays: NumPy's loops run beside one another, and handing over costs some 20 microseconds.

Not used where the process may run on one core only, or where ``OPENBLAS_NUM_THREADS``, ``OMP_NUM_THREADS`` or their like ask for one thread.
"""

import os
import threading
from collections.abc import Callable
from typing import Any

_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


def cores() -> int:
    """How many threads may compute: the cores that this process has, unless the environment asks for one."""
    if any(os.environ.get(name, "").strip() == "1" for name in _VARIABLES):
        return 1
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        return os.cpu_count() or 1


class _Helper:
    """One thread that waits for work; made when it is first needed, and again in a process that was forked."""

    def __init__(self) -> None:
        self.free = threading.Lock()
        self._process: int | None = None
        self._work: Callable[[], Any] | None = None
        self._error: BaseException | None = None

    def _start(self) -> None:
        self._process = os.getpid()
        self._go, self._done = threading.Lock(), threading.Lock()
        self._go.acquire()
        self._done.acquire()
        threading.Thread(target=self._serve, args=(self._go, self._done), name="scg-halves", daemon=True).start()

    def _serve(self, go: Any, done: Any) -> None:
        while True:
            go.acquire()
            try:
                self._work()  # type: ignore[misc]
            except BaseException as error:  # handed to who waits
                self._error = error
            done.release()

    def run(self, first: Callable[[], Any], second: Callable[[], Any]) -> None:
        if self._process != os.getpid():
            self._start()
        self._work = second
        self._go.release()
        try:
            first()
        finally:
            self._done.acquire()
            error, self._error, self._work = self._error, None, None
        if error is not None:
            raise error


_helper = _Helper()
ENABLED = cores() > 1
"""Whether there is a second core to use; read once, at the import."""


def both(first: Callable[[], Any], second: Callable[[], Any]) -> None:
    """Run both, beside one another where a second thread is to be had; they must not write what the other reads."""
    if ENABLED and _helper.free.acquire(blocking=False):
        try:
            _helper.run(first, second)
        finally:
            _helper.free.release()
    else:
        first()
        second()


def _after_fork() -> None:
    _helper.free = threading.Lock()  # somebody may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
