"""Checks of options before work begins, and reports of its progress."""

import sys
from collections.abc import Callable, Mapping

from scg.errors import ScgTypeError, here

Progress = Callable[[int, int], object] | bool | None
"""Who is told of (done, most) as numbers are drawn; True: a bar on the terminal, where tqdm is there."""


def call_arguments(args: object, kwargs: object) -> None:
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


def reporter(progress: Progress) -> Callable[[int, int], object]:
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
    return progress


def _bar(done: int, total: int) -> None:
    part = min(done / total, 1.0) if total else 1.0
    filled = round(30 * part)
    sys.stderr.write(f"\r[{'#' * filled}{'.' * (30 - filled)}] {done:,} of {total:,}{chr(10) if done >= total else ''}")
    sys.stderr.flush()
