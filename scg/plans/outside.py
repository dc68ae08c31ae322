"""What a function looks up outside its arguments, and whether it is as it was: a plan holds for that alone.

``Outside`` walks from a function through its closure, its globals and the functions, classes, modules and objects that
it reaches there, by the names that stand in their code, and notes what each place holds: names of modules, cells,
attributes, entries of dicts and lists, elements of arrays. ``changed`` tells the first place that holds something else
by now, and ``restore`` puts back what was there.
"""

import dis
import functools
import gc
import io
import os
import sys
import sysconfig
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, MutableSequence, MutableSet
from itertools import repeat
from operator import is_
from types import CellType, CodeType, FunctionType, GenericAlias, MappingProxyType, MethodType, ModuleType
from typing import Any

import numpy as np
import scipy

from scg.core.node import Node, Primitive
from scg.errors import PACKAGE

MISSING = object()
_ATOMS = (
    int,
    float,
    complex,
    bool,
    str,
    bytes,
    type(None),
    type(Ellipsis),
    slice,
    range,
    np.dtype,
    np.ufunc,
    np.generic,
    GenericAlias,
)
_WRAPPERS = {
    property: ("fget",),
    staticmethod: ("__func__",),
    classmethod: ("__func__",),
    functools.cached_property: ("func",),
}
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
LARGE = 2**20
"""Bytes from which on arrays are compared with a copy, element by element, and not as bytes."""


@functools.cache
def _is_installed(file: str) -> bool:
    return file.startswith(_LIBRARIES)


def is_library(namespace: Mapping[str, Any], own: str = "") -> bool:
    """Whether a module's code is that of a library, which looks up nothing that a user changes: the standard one, or
    what is installed, but for ``own``."""
    name, file = str(namespace.get("__name__", "")).partition(".")[0], namespace.get("__file__")
    if not isinstance(file, str):
        return name in sys.stdlib_module_names or name.startswith("namedtuple_")  # the module of a generated __new__
    return name != own and _is_installed(file)


def module_of(fn: Any) -> str:
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


def same(a: Any, b: Any) -> bool:
    """Whether a place that held ``a`` and holds ``b`` is as it was: the same object, or an equal number, string, method
    or tuple of such."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, (float, complex)) and not isinstance(a, np.generic):
        return repr(a) == repr(b)  # tells -0.0 from 0.0, and nan is itself
    if isinstance(a, np.generic):
        return a.tobytes() == b.tobytes()
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, MethodType):
        return a.__self__ is b.__self__ and a.__func__ is b.__func__
    return isinstance(a, (int, str, bytes, slice, range, np.dtype)) and bool(a == b)


class _Place:
    """A holder of values, and these as they were."""

    def __init__(self, label: str, holder: Any, values: tuple[Any, ...]):
        self.label, self.holder, self.values = label, holder, values

    def now(self) -> Any:
        """The values of now, in the same order."""
        raise NotImplementedError

    def put(self, values: tuple[Any, ...]) -> None:
        """Put values back."""
        raise NotImplementedError

    def holds(self) -> bool:
        """Whether the values are the same."""
        if all(map(is_, self.now(), self.values)) and self.is_whole():
            return True
        now = tuple(self.now())
        if len(now) == len(self.values) and all(map(same, self.values, now)) and self.is_whole():
            self.values = now  # the next look is a quick one
            return True
        return False

    def is_whole(self) -> bool:
        """Whether nothing was added."""
        return True

    def where(self) -> str:
        """What is not as it was, as one would write it."""
        return self.label


class _Entries(_Place):
    """Entries of a dict; ``whole``: all of them."""

    def __init__(self, label: str, holder: Any, keys: tuple[Any, ...], whole: bool, spelling: str):
        self.keys, self.spelling = keys, spelling
        self.size = len(holder) if whole else None
        super().__init__(label, holder, tuple(map(holder.get, keys, repeat(MISSING))))

    def now(self) -> Any:
        return map(self.holder.get, self.keys, repeat(MISSING))

    def is_whole(self) -> bool:
        return self.size is None or len(self.holder) == self.size

    def where(self) -> str:
        now = [key for key, a, b in zip(self.keys, self.values, self.now(), strict=True) if not same(a, b)]
        if not now and self.size is not None:
            now = [key for key in self.holder if key not in self.keys]
        return self.spelling.format(self.label, now[0]) if now else self.label

    def put(self, values: tuple[Any, ...]) -> None:
        if self.size is not None and len(self.holder) != self.size:
            for key in [key for key in self.holder if key not in self.keys]:
                del self.holder[key]
        for key, value in zip(self.keys, values, strict=True):
            if self.holder.get(key, MISSING) is not value:
                if value is MISSING:
                    del self.holder[key]
                else:
                    self.holder[key] = value


class _Class(_Entries):
    """Attributes of a class."""

    def __init__(self, label: str, owner: type, keys: tuple[str, ...]):
        self.owner = owner
        super().__init__(label, vars(owner), keys, False, _ATTRIBUTE)

    def put(self, values: tuple[Any, ...]) -> None:
        for key, value in zip(self.keys, values, strict=True):
            if vars(self.owner).get(key, MISSING) is not value:
                if value is MISSING:
                    delattr(self.owner, key)
                else:
                    setattr(self.owner, key, value)


class _Attributes(_Place):
    """Attributes in slots."""

    def __init__(self, label: str, holder: Any, names: tuple[str, ...]):
        self.names = names
        super().__init__(label, holder, tuple([getattr(holder, name, MISSING) for name in names]))

    def now(self) -> Any:
        return map(getattr, repeat(self.holder), self.names, repeat(MISSING))

    def put(self, values: tuple[Any, ...]) -> None:
        for name, value in zip(self.names, values, strict=True):
            if value is not MISSING and getattr(self.holder, name, MISSING) is not value:
                object.__setattr__(self.holder, name, value)


class _Cells(_Place):
    """Variables of functions around."""

    def __init__(self, label: str, cells: tuple[CellType, ...], names: tuple[str, ...]):
        self.names = names
        self.holder = cells
        super().__init__(label, cells, tuple(map(_content, cells)))

    def now(self) -> Any:
        return map(_content, self.holder)

    def put(self, values: tuple[Any, ...]) -> None:
        for cell, value in zip(self.holder, values, strict=True):
            if _content(cell) is not value:
                if value is MISSING:
                    del cell.cell_contents
                else:
                    cell.cell_contents = value

    def where(self) -> str:
        return next(
            (name for name, a, b in zip(self.names, self.values, self.now(), strict=True) if not same(a, b)), self.label
        )


class _Items(_Place):
    """Elements of a list, a deque or a set."""

    def __init__(self, label: str, holder: Any):
        super().__init__(label, holder, tuple(holder))

    def now(self) -> Any:
        return iter(self.holder)

    def is_whole(self) -> bool:
        return len(self.holder) == len(self.values)

    def put(self, values: tuple[Any, ...]) -> None:
        if not self.holds():
            self.holder.clear()
            (self.holder.update if isinstance(self.holder, set) else self.holder.extend)(values)


class _Elements(_Place):
    """Elements of an array, which may be changed in place."""

    def __init__(self, label: str, array: np.ndarray):
        super().__init__(label, array, ())
        self.kept: Any = array.tobytes() if array.nbytes <= LARGE else array.copy()

    def holds(self) -> bool:
        if type(self.kept) is bytes:
            return bool(self.holder.tobytes() == self.kept)
        return bool(np.array_equal(self.holder, self.kept, equal_nan=self.kept.dtype.kind in "fc"))

    def put(self, values: tuple[Any, ...]) -> None:
        if not self.holds():
            x = self.holder
            x[...] = np.frombuffer(self.kept, x.dtype).reshape(x.shape) if type(self.kept) is bytes else self.kept


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not bound yet
        return MISSING


_ATTRIBUTE, _ITEM = "{}.{}", "{}[{!r}]"


class Outside:
    """The places that ``roots`` lead to, and what they hold now.

    Of all code that is reached, or, with ``ran`` (code that was run, and its globals), of that alone. ``read``: ids of
    arrays whose elements need no look, since who calls reads them anew.
    """

    def __init__(
        self,
        roots: Iterable[tuple[str, Any]],
        ran: Mapping[CodeType, Any] | None = None,
        read: Iterable[int] = (),
        own: str = "",
    ):
        self._roots, self._ran, self._own = list(roots), ran, own
        self.names = Names()
        for code in ran or ():
            self.names.add(code, within=False)
        self._read = set(read)
        self.iterators: list[str] = []
        self.places: list[_Place] = []
        self.codes: set[CodeType] = set()
        before = -1
        # a name found late may stand for what was met before
        while before != len(self.names.attributes) + len(self.names.globals):
            before = len(self.names.attributes) + len(self.names.globals)
            self._walk()

    def changed(self) -> str | None:
        """The first place that does not hold what it did; None where all do."""
        for place in self.places:
            if not place.holds():
                return place.where()
        return None

    def changes(self) -> Iterator[tuple[str, list[Any]]]:
        """Each place that does not hold what it did, and what stands there now in its stead."""
        for place in self.places:
            if not place.holds():
                now = [*place.now()] if not isinstance(place, _Elements) else []
                if isinstance(place, _Entries) and place.size is not None:
                    now += [value for key, value in place.holder.items() if key not in place.keys]
                yield place.where(), [value for value in now if not any([value is v for v in place.values])]

    def restore(self) -> None:
        """Put back what was there."""
        for place in self.places:
            place.put(place.values)

    def holds_objects(self) -> list[Any]:
        """What must not be given to others while it is known by its identity."""
        return [place.holder for place in self.places]

    def _walk(self) -> None:
        self.places, self.iterators = [], []
        self._seen: dict[int, Any] = {}
        self._stack: list[tuple[str, Any]] = []
        self._globals: dict[int, tuple[Any, set[str]]] = {}
        self._stack += self._roots
        if self._ran is not None:
            for code, namespace in self._ran.items():
                self._look_up(namespace, self.names.globals[code])
        while self._stack or self._globals:
            while self._stack:
                label, x = self._stack.pop()
                if isinstance(x, _ATOMS) or x is MISSING or id(x) in self._seen:
                    continue
                self._seen[id(x)] = x
                self._visit(label, x)
            for namespace, names in self._globals.values():
                place = _Entries("", namespace, tuple(sorted(names)), False, "{}{}")
                self._place(place, zip(place.keys, place.values, strict=True))
            self._globals = {}
        self._seen = {}

    def _place(self, place: _Place, leads: Iterable[tuple[str, Any]]) -> None:
        self.places.append(place)
        self._stack += leads

    def _look_up(self, namespace: Any, names: Iterable[str]) -> None:
        """Globals of a module, and what they hide of the built-in ones."""
        _, known = self._globals.setdefault(id(namespace), (namespace, set()))
        known.update(names)

    def _visit(self, label: str, x: Any) -> None:
        kind = type(x)
        if isinstance(x, FunctionType):
            self._function(label, x)
        elif isinstance(x, np.ndarray):
            self._array(label, x)
        elif isinstance(x, MethodType):
            self._stack += [(label, x.__func__), (label.rpartition(".")[0] or label, x.__self__)]
        elif isinstance(x, functools.partial):
            self._stack += [(label, x.func), *[(label, a) for a in (*x.args, *x.keywords.values())]]
        elif kind in _WRAPPERS:
            self._stack += [(label, getattr(x, name)) for name in _WRAPPERS[kind]]
        elif isinstance(x, ModuleType):
            if not is_library(vars(x), self._own):
                keys = tuple(sorted(self.names.attributes & vars(x).keys()))
                self._entries(label, vars(x), keys, False, _ATTRIBUTE)
        elif isinstance(x, type):
            self._class(label, x)
        elif isinstance(x, weakref.ref):
            self._stack.append((label, x()))
        elif (
            isinstance(x, (Node, Primitive, np.random.Generator, np.random.RandomState, io.IOBase))
            or kind.__module__ == "scg.plans.recording"
        ):
            pass  # constants, or looked at elsewhere
        elif isinstance(x, (dict, MappingProxyType)):
            self._entries(label, x, tuple(x), True, _ITEM)
            self._attributes(label, x)
        elif isinstance(x, (tuple, frozenset)):
            self._stack += [(f"{label}[{k}]", value) for k, value in enumerate(x)]
            self._attributes(label, x)
        elif isinstance(x, (list, deque, set)):
            place = _Items(label, x)
            self._place(place, [(f"{label}[{k}]", value) for k, value in enumerate(place.values)])
            self._attributes(label, x)
        elif hasattr(kind, "__next__"):
            self.iterators.append(label)
        else:
            self._attributes(label, x)

    def _entries(self, label: str, holder: Any, keys: tuple[Any, ...], whole: bool, spelling: str) -> None:
        if keys or whole:
            place = _Entries(label, holder, keys, whole, spelling)
            self._place(
                place, [(spelling.format(label, key), value) for key, value in zip(keys, place.values, strict=True)]
            )

    def _function(self, label: str, fn: FunctionType) -> None:
        code, library = fn.__code__, is_library(fn.__globals__, self._own)
        if not library:
            self._codes(code)
            if self._ran is None:
                self.names.add(code, within=True)
                self._look_up(fn.__globals__, self.names.globals[code])
            elif code not in self._ran:
                return
        self._stack += [(label, value) for value in (*(fn.__defaults__ or ()), *(fn.__kwdefaults__ or {}).values())]
        if fn.__closure__:
            place = _Cells(label, fn.__closure__, code.co_freevars)
            self._place(place, zip(place.names, place.values, strict=True))
        if fn.__dict__ and not library:
            self._entries(label, fn.__dict__, tuple(fn.__dict__), True, _ATTRIBUTE)

    def _codes(self, code: CodeType) -> None:
        if code not in self.codes:
            self.codes.add(code)
            for constant in code.co_consts:
                if isinstance(constant, CodeType):
                    self._codes(constant)

    def _array(self, label: str, x: np.ndarray) -> None:
        if x.dtype.hasobject:
            self._stack += [(label, value) for value in x.flat]
            return
        base: Any = x
        while isinstance(base, np.ndarray):
            if id(base) in self._read:
                return
            if base.flags.writeable:
                self.places.append(_Elements(label, x))
                return
            base = base.base

    def _class(self, label: str, owner: type) -> None:
        for kind in owner.__mro__:
            module = sys.modules.get(kind.__module__)
            if module is None or not is_library(vars(module), self._own):
                taken = self.names.attributes | {
                    name
                    for name, value in vars(kind).items()
                    if name.startswith("__") and isinstance(value, FunctionType)
                }
                keys = tuple(sorted(taken & vars(kind).keys() - {"__dict__", "__weakref__", "__doc__", "__module__"}))
                if keys:
                    place = _Class(label, kind, keys)
                    self._place(
                        place, [(f"{label}.{key}", value) for key, value in zip(keys, place.values, strict=True)]
                    )

    def _attributes(self, label: str, x: Any) -> None:
        """Of an object: those that are named; all where names are computed, and of what looks like a container."""
        kind = type(x)
        module = sys.modules.get(kind.__module__)
        library = module is not None and is_library(vars(module), self._own)
        every = (
            self.names.computed and not library or not library and isinstance(x, (Mapping, MutableSequence, MutableSet))
        )
        inside = getattr(x, "__dict__", None)
        if isinstance(inside, dict) and (inside or not library):
            names = set(inside) if every else (self.names.attributes | {"__wrapped__"}) & inside.keys()
            self._entries(label, inside, tuple(sorted(names)), every, _ATTRIBUTE)
            if not library and not every:
                absent = tuple(
                    sorted(
                        name
                        for name in self.names.attributes - inside.keys()
                        if not callable(getattr(kind, name, None))
                    )
                )
                self._entries(label, inside, absent, False, _ATTRIBUTE)
        slots = [
            name
            for k in kind.__mro__
            for name in _names(vars(k).get("__slots__", ()))
            if name in self.names.attributes or every
        ]
        if slots:
            place = _Attributes(label, x, tuple(sorted(set(slots) - {"__dict__", "__weakref__"})))
            self._place(
                place, [(f"{label}.{name}", value) for name, value in zip(place.names, place.values, strict=True)]
            )
        if not library:
            self._class(label, kind)


def _names(slots: Any) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else tuple(slots)


def functions_of(codes: Iterable[CodeType]) -> list[FunctionType]:
    """The functions that have this code, wherever they are."""
    wanted = list(codes)
    return [x for x in gc.get_referrers(*wanted) if isinstance(x, FunctionType)] if wanted else []
