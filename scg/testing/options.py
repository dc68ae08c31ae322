"""Options that are checked before work begins, and who is told of its progress."""

import math
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from scg.errors import ScgTypeError, ScgValueError, here


def integer(name: str, given: Any, least: int) -> int:
    """An integer of at least ``least``; ScgTypeError or ScgValueError, with the name of the option, for anything
    else."""
    if not isinstance(given, (int, np.integer)) or isinstance(given, bool):
        raise ScgTypeError(f"{name} must be an integer, got {given!r} ({here()})")
    if given < least:
        raise ScgValueError(f"{name} must be at least {least}, got {given} ({here()})")
    return int(given)


def number(name: str, given: Any, low: float, high: float = math.inf, *, closed: bool = False) -> float:
    """A number between ``low`` (itself where ``closed``) and ``high``; ScgTypeError or ScgValueError for anything
    else."""
    if not isinstance(given, (int, float, np.integer, np.floating)) or isinstance(given, bool):
        raise ScgTypeError(f"{name} must be a number, got {given!r} ({here()})")
    if not ((low <= given if closed else low < given) and given < high):
        raise ScgValueError(
            f"{name} must lie {'from' if closed else 'above'} {low:g}"
            f" {f'and below {high:g}' if high < math.inf else 'on, finite'}, got {given} ({here()})"
        )
    return float(given)


def call_arguments(args: Any, kwargs: Any) -> None:
    """Raise ScgTypeError unless they are what a function can be called with."""
    if not isinstance(args, (tuple, list)):
        raise ScgTypeError(
            f"args must be a tuple of the function's arguments, got {type(args).__name__}: write args=(x,) ({here()})"
        )
    if kwargs is not None and not (isinstance(kwargs, Mapping) and all(isinstance(key, str) for key in kwargs)):
        raise ScgTypeError(
            f"kwargs must be a dict of the function's keyword arguments, got {type(kwargs).__name__}: write"
            f" kwargs={{'n': 3}} ({here()})"
        )


def reporter(progress: Any) -> Callable[[int, int], Any]:
    """What is called with how much is done and of how much: ``progress`` itself, a bar on stderr for True, nothing for
    None and False.

    ScgTypeError for anything else, before the work whose end would meet it.
    """
    if progress is None or progress is False:
        return lambda done, total: None
    if progress is True:
        return _bar
    if not callable(progress):
        raise ScgTypeError(
            f"progress must be True, for a bar on stderr, or a function of (done, total), got {progress!r} ({here()})"
        )
    return progress  # type: ignore[no-any-return]


def _bar(done: int, total: int) -> None:
    part = min(done / total, 1.0) if total else 1.0
    filled = round(30 * part)
    sys.stderr.write(f"\r[{'#' * filled}{'.' * (30 - filled)}] {done:,} of {total:,}{chr(10) if done >= total else ''}")
    sys.stderr.flush()
