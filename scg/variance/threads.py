"""One thread for linear algebra: workers share a machine, and sums are added in the same order in all of them."""

import ctypes
import glob
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import scipy

_LOCK = threading.Lock()
_HELD: dict[str, Any] = {"depth": 0, "before": []}
_PREFIXES, _SUFFIXES = ("scipy_openblas", "openblas"), ("64_", "_64", "")


@contextmanager
def one_thread() -> Iterator[None]:
    """Within the block the BLAS libraries that NumPy and SciPy have loaded use one thread; several blocks at once share
    the hold.

    The OpenBLAS of their wheels is called directly, at run time: a process that is a worker already has read its
    environment long ago. Another BLAS is set through ``threadpoolctl`` where that is installed, and otherwise has to
    be set by OMP_NUM_THREADS and its kin.
    """
    with _LOCK:
        _HELD["depth"] += 1
        if _HELD["depth"] == 1:
            _HELD["before"] = [(set_count, get_count()) for get_count, set_count in _libraries()]
            for set_count, before in _HELD["before"]:
                if before != 1:
                    set_count(1)
    try:
        yield
    finally:
        with _LOCK:
            _HELD["depth"] -= 1
            if not _HELD["depth"]:
                for set_count, before in _HELD["before"]:
                    if before != 1:
                        set_count(before)


def counts() -> list[int]:
    """How many threads each library would use now."""
    return [get_count() for get_count, _ in _libraries()]


@cache
def _libraries() -> list[tuple[Callable[[], int], Callable[[int], None]]]:
    """(get, set) of each library."""
    found = []
    for package in (np, scipy):
        root = os.path.dirname(str(package.__file__))
        for folder in (f"{root}.libs", os.path.join(root, ".dylibs")):
            for file in sorted(glob.glob(os.path.join(folder, "*openblas*"))):
                pair = _functions(file)
                if pair is not None:
                    found.append(pair)
    return found or _others()


def _functions(file: str) -> Any:
    try:
        library = ctypes.CDLL(file)
    except OSError:
        return None
    for prefix in _PREFIXES:
        for suffix in _SUFFIXES:
            get, set_ = (getattr(library, f"{prefix}_{verb}_num_threads{suffix}", None) for verb in ("get", "set"))
            if get is not None and set_ is not None:
                get.restype, get.argtypes, set_.restype, set_.argtypes = ctypes.c_int, [], None, [ctypes.c_int]
                return get, set_
    return None


def _others() -> Any:
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return []
    blas = ThreadpoolController().select(user_api="blas").lib_controllers
    return [(library.get_num_threads, library.set_num_threads) for library in blas]
