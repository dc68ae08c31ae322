"""The user's own line, where frames of PyTorch or JAX lie between."""

import os
import sys
from types import FrameType

from scg.errors import NOT_THE_USERS, location


def user_line() -> str:
    """``file.py:12, in f``: the innermost line outside scg, NumPy, SciPy, PyTorch, JAX and Python's own library."""
    theirs = tuple(
        os.path.dirname(file) + os.sep
        for name in ("torch", "jax", "jaxlib")
        if (file := getattr(sys.modules.get(name), "__file__", None))
    )
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and (
        NOT_THE_USERS[frame.f_code.co_filename] or frame.f_code.co_filename.startswith(theirs)
    ):
        frame = frame.f_back
    return "" if frame is None else location(frame.f_code, frame.f_lasti)
