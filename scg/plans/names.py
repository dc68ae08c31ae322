"""What code looks up by name, and whose code it is: a library's, which looks up nothing that a user changes, or a
user's."""

import dis
import functools
import gc
import os
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from types import CodeType, FunctionType

import numpy as np
import scipy

from scg.core.aliases import Function
from scg.errors import PACKAGE

_COMPUTED = frozenset(
    [
        "getattr",
        "hasattr",
        "setattr",
        "vars",
        "__dict__",
        "attrgetter",
        "asdict",
        "astuple",
        "fields",
        "dir",
        "globals",
        "eval",
        "exec",
    ]
)
_PATHS = sysconfig.get_paths()
_LIBRARIES = (
    PACKAGE,
    *[os.path.dirname(str(m.__file__)) + os.sep for m in (np, scipy)],
    *{_PATHS[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")},
)


@functools.cache
def _is_installed(file: str) -> bool:
    return file.startswith(_LIBRARIES)


def is_library(namespace: Mapping[str, object], own: str = "") -> bool:
    """Whether a module's code is that of a library, which looks up nothing that a user changes: the standard one, or
    what is installed, but for ``own``."""
    name, file = str(namespace.get("__name__", "")).partition(".")[0], namespace.get("__file__")
    if not isinstance(file, str):
        return name in sys.stdlib_module_names or name.startswith("namedtuple_")  # the module of a generated __new__
    return name != own and _is_installed(file)


def module_of(fn: Function) -> str:
    """The first part of the name of a function's module, where that is a user's: it may be installed too."""
    name = str(getattr(fn, "__module__", "")).partition(".")[0]
    return "" if name in ("scg", "numpy", "scipy") else name


class Names:
    """Names that code looks up: those of globals by code, attributes in one set; ``computed`` where a name may be
    any."""

    def __init__(self) -> None:
        self.globals: dict[CodeType, frozenset[str]] = {}
        self.attributes: set[str] = set()
        self.computed = False

    def add(self, code: CodeType, within: bool) -> None:
        """Those of a code object, and, ``within``, those that it assigns to, and of the code that stands in it."""
        if code in self.globals:
            return
        found = set()
        for step in dis.get_instructions(code):
            if not within and step.opname.startswith(("STORE_", "DELETE_")):
                continue
            if "GLOBAL" in step.opname or step.opname.endswith("_NAME"):
                found.add(step.argval)
            elif "ATTR" in step.opname or "METHOD" in step.opname and isinstance(step.argval, str):
                self.attributes.add(step.argval)
        for constant in code.co_consts:
            if isinstance(constant, CodeType) and within:
                self.add(constant, within)
                found |= self.globals[constant]
        self.globals[code] = frozenset(found)
        self.computed |= not _COMPUTED.isdisjoint(found | self.attributes)


def functions_of(codes: Iterable[CodeType]) -> list[FunctionType]:
    """The functions that have this code, wherever they are."""
    wanted = list(codes)
    return [x for x in gc.get_referrers(*wanted) if isinstance(x, FunctionType)] if wanted else []
