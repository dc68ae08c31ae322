"""Reports of the progress of long work: to a function of the user's, or by a bar on stderr."""

import sys
from collections.abc import Callable

from scg.errors import ScgTypeError, here

Progress = Callable[[int, int], object] | bool | None
"""A function of (done, most) that is called on the way; True: a bar on stderr."""


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
