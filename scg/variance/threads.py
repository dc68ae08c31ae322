"""One thread for linear algebra: workers share a machine, and sums are added in the same order in all of them."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from scg.core.aliases import Foreign
from scg.plans.threads import set_threads

_LOCK = threading.Lock()
_HELD: list[int] = []  # of each library, the threads that it had before the first of the blocks that are open now
_BLOCKS: set[object] = set()


@contextmanager
def one_thread() -> Iterator[None]:
    """Within the block the BLAS libraries that NumPy and SciPy have loaded use one thread; several blocks at once share
    the hold.

    By ``threadpoolctl``, at run time: a process that is a worker already has read its environment long ago. Where that
    is not installed they are left alone, and OMP_NUM_THREADS and its kin set them.
    """
    block = object()
    with _LOCK:
        if not _BLOCKS:
            _HELD[:] = counts()
            _set([1] * len(_HELD))
        _BLOCKS.add(block)
    try:
        yield
    finally:
        with _LOCK:
            _BLOCKS.remove(block)
            if not _BLOCKS:
                _set(_HELD)


def counts() -> list[int]:
    """How many threads each library would use now."""
    return [int(library.get_num_threads()) for library in _libraries()]


def _set(wanted: list[int]) -> None:
    for library, count, before in zip(_libraries(), wanted, _HELD, strict=True):
        if before != 1:
            set_threads(library, count)


@cache
def _libraries() -> list[Foreign]:
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return []
    return list(ThreadpoolController().select(user_api="blas").lib_controllers)
