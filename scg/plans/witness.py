"""Who watches one recorded run from outside: which code runs, what leaves scg as an exception, and what is called that
answers otherwise each time.

A profile function of this thread, for the time of the run; the one before is put back.
"""

import contextlib
import contextvars
import dis
import os
import random
import sys
import time
from collections.abc import Iterator
from types import CodeType, FrameType, ModuleType

from scg.core.aliases import Function, Keywords
from scg.core.node import apply
from scg.errors import PACKAGE, location
from scg.plans.names import is_library

_ENDS = frozenset([code for name, code in dis.opmap.items() if name.startswith(("RETURN_", "YIELD_"))])
_GENERATOR = 0x20 | 0x80 | 0x200  # inspect.CO_GENERATOR, CO_COROUTINE, CO_ASYNC_GENERATOR
_READS = frozenset(["read", "readline", "readlines", "readinto", "__next__"])
_SUSPECT = frozenset(["urandom", "input", "open", *[name for name, value in vars(time).items() if callable(value)]])
_CLOCKS = frozenset(["now", "utcnow", "today"])
_RANDOM = (
    "it draws from Python's random, whose numbers a plan would repeat: draw from a generator of NumPy that is an"
    " argument"
)
_APPLY = apply.__code__
_ENVIRONMENT = type(os.environ).__getitem__.__code__


class Witness:
    """What was seen of a run: ``ran``, code of users with its globals; ``raised``, the line where an error of scg came
    back to a user's code; ``refused``, what a plan could not do again, and where."""

    def __init__(self, own: str):
        self._own = own
        self.ran: dict[CodeType, Keywords] = {}
        self.raised: str | None = None
        self.refused: tuple[str, str] | None = None
        self._library: dict[CodeType, bool] = {}
        self._harmless: set[type] = set()
        self._inside: FrameType | None = None  # of a function that a primitive stands for

    def __call__(self, frame: FrameType, event: str, arg: Function) -> None:
        if event == "c_call":
            owner = getattr(arg, "__self__", None)
            kind = type(owner)
            if (
                arg.__name__ in _SUSPECT if kind is ModuleType else kind not in self._harmless
            ) and self._inside is None:
                self._called(arg, owner, frame)
        elif event == "return":
            if self._inside is not None:
                if frame is self._inside:
                    self._inside = None
            elif arg is None and self.raised is None:
                self._returned(frame)
        elif event == "call" and self._inside is None:
            self._entered(frame)

    def _entered(self, frame: FrameType) -> None:
        """A function in Python was called."""
        code = frame.f_code
        if frame.f_back is not None and frame.f_back.f_code is _APPLY:  # a plan calls it too
            self._inside = frame
            return
        if code not in self._library:
            self._library[code] = is_library(frame.f_globals, self._own)
            if code is _ENVIRONMENT:
                why = "it looks up os.environ, which a plan would not: pass what stands there as an argument"
                self._refuse(why, frame.f_back)
            if frame.f_globals is vars(random):
                self._refuse(_RANDOM, frame.f_back)
        if not self._library[code]:
            self.ran[code] = frame.f_globals

    def _returned(self, frame: FrameType) -> None:
        """Nothing came back: where an error did, from scg to a user's code, note the line."""
        code, caller = frame.f_code, frame.f_back
        if (
            caller is None
            or not code.co_filename.startswith(PACKAGE)
            or caller.f_code.co_filename.startswith(PACKAGE)
            or code.co_flags & _GENERATOR
        ):
            return
        if code.co_code[frame.f_lasti] not in _ENDS and not is_library(caller.f_globals, self._own):
            self.raised = location(caller.f_code, caller.f_lasti)

    def _called(self, fn: Function, owner: object, frame: FrameType) -> None:
        """A built-in function was called, or a method of an object."""
        kind = type(owner)
        if (
            kind is not ModuleType
            and not issubclass(kind, (random.Random, contextvars.ContextVar, type))
            and kind.__module__ != "_io"
        ):
            self._harmless.add(kind)
            return
        why = self._otherwise_each_time(fn, owner, frame)
        if why:
            self._refuse(why, frame)

    def _refuse(self, why: str, frame: FrameType | None) -> None:
        while frame is not None and is_library(frame.f_globals, self._own):
            frame = frame.f_back
        if frame is not None and self.refused is None:
            self.refused = why, location(frame.f_code, frame.f_lasti)

    def _otherwise_each_time(self, fn: Function, owner: object, frame: FrameType) -> str | None:
        module = getattr(fn, "__module__", None)
        if isinstance(owner, random.Random) and fn.__name__ in ("random", "getrandbits"):
            return _RANDOM
        if fn.__name__ == "urandom" and module in ("posix", "nt"):
            return (
                "it draws from the system, whose numbers a plan would repeat: draw from a generator of NumPy that is an"
                " argument"
            )
        if module is None and owner is not None and type(owner).__module__ == "_io":
            return (
                "it reads from a file, which a plan would not"
                if fn.__name__ in _READS and not is_library(frame.f_globals, self._own)
                else None
            )
        if is_library(frame.f_globals, self._own):
            return None
        if module == "time" or isinstance(owner, type) and owner.__module__ == "datetime" and fn.__name__ in _CLOCKS:
            return "it looks at the clock, which a plan would not: pass what it shows as an argument"
        if isinstance(owner, contextvars.ContextVar) and fn.__name__ == "get":
            return "it looks at a context variable, which a plan would not: pass its value as an argument"
        if module == "builtins" and fn.__name__ == "input" or module in ("io", "_io") and fn.__name__ == "open":
            return f"it calls {fn.__name__}, whose answer a plan would repeat: pass that as an argument"
        return None


def is_watched() -> bool:
    """Whether a profiler that cannot be put back is at work: what runs meanwhile cannot be watched."""
    return sys.getprofile() is not None and not callable(sys.getprofile())


@contextlib.contextmanager
def watching(witness: Witness) -> Iterator[None]:
    """Within the block the witness sees what this thread runs."""
    before = sys.getprofile()
    sys.setprofile(witness)
    try:
        yield
    finally:
        sys.setprofile(before)
