"""What a function looks up outside its arguments, and whether it is as it was: a plan holds for that alone.

``Outside`` walks from a function through its closure, its globals and the functions, classes, modules and objects that
it reaches there, by the names that stand in their code, and notes what each place holds: names of modules, cells,
attributes, entries of dicts and lists, elements of arrays. ``changed`` tells the first place that holds something else
by now, and ``restore`` puts back what was there.
"""

import array
import functools
import io
import sys
import weakref
from collections import deque
from collections.abc import Container, Iterable, Iterator, Mapping, MutableSequence, MutableSet
from types import CodeType, FunctionType, GenericAlias, MappingProxyType, MethodType, ModuleType
from typing import Any

import numpy as np

from scg.core.aliases import Keywords, Operand
from scg.core.node import Node
from scg.core.primitive import Primitive
from scg.plans.names import Names, is_library
from scg.plans.places import (
    ATTRIBUTE,
    ITEM,
    MISSING,
    Attributes,
    Buffer,
    Cells,
    Class,
    Elements,
    Entries,
    Items,
    Place,
    Sample,
)

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
_CONTAINERS = ("collections", "builtins")
"""Modules of containers of Python's own whose elements are no attributes: ChainMap, UserDict."""
_EVERY = frozenset(["globals", "eval", "exec"])
"""Functions by which code may look up any name of its module."""
_WRAPPERS = {
    property: ("fget",),
    staticmethod: ("__func__",),
    classmethod: ("__func__",),
    functools.cached_property: ("func",),
}


class Outside:
    """The places that ``roots`` lead to, and what they hold now.

    Of all code that is reached, or, with ``ran`` (code that was run, and its globals), of that alone. ``read``: ids of
    arrays whose elements need no look, since who calls reads them anew; ``sampled``: but for some of them, where NumPy
    may have made something else of them, of all that are not among ``free``.
    """

    def __init__(
        self,
        roots: Iterable[tuple[str, object]],
        ran: Mapping[CodeType, Keywords] | None = None,
        read: Iterable[int] = (),
        own: str = "",
        sampled: bool = False,
        free: Container[int] = (),
    ):
        self._roots, self._ran, self._own = list(roots), ran, own
        self.names = Names()
        for code in ran or ():
            self.names.add(code, within=False)
        self._read, self._sampled, self._free = set(read), sampled, free
        self.iterators: list[str] = []
        self.places: list[Place] = []
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

    def changes(self) -> Iterator[tuple[str, list[object]]]:
        """Each place that does not hold what it did, and what stands there now in its stead."""
        for place in self.places:
            if not place.holds():
                now = [*place.now()] if not isinstance(place, Elements) else []
                if isinstance(place, Entries) and place.size is not None:
                    now += [value for key, value in place.holder.items() if key not in place.keys]
                yield place.where(), [value for value in now if not any([value is v for v in place.values])]

    def changed_samples(self) -> list[np.ndarray]:
        """The arrays, read anew, that are not as they were."""
        return [place.holder for place in self.places if isinstance(place, Sample) and not place.holds()]

    def restore(self) -> None:
        """Put back what was there."""
        for place in self.places:
            place.put(place.values)

    def holds_objects(self) -> list[object]:
        """What must not be given to others while it is known by its identity."""
        return [place.holder for place in self.places]

    def _walk(self) -> None:
        self.places, self.iterators = [], []
        self._seen: dict[int, object] = {}
        self._stack: list[tuple[str, object]] = []
        self._globals: dict[int, tuple[Operand, set[str]]] = {}
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
                place = Entries("", namespace, tuple(sorted(names)), False, "{}{}")
                self._enter(place, zip(place.keys, place.values, strict=True))
            self._globals = {}
        self._seen = {}

    def _enter(self, place: Place, leads: Iterable[tuple[str, object]]) -> None:
        self.places.append(place)
        self._stack += leads

    def _look_up(self, namespace: Keywords, names: Iterable[str]) -> None:
        """Globals of a module, and what they hide of the built-in ones."""
        _, known = self._globals.setdefault(id(namespace), (namespace, set()))
        known.update(names)
        if not _EVERY.isdisjoint(known):
            known.update(name for name in namespace if not name.startswith("__"))

    def _visit(self, label: str, x: object) -> None:
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
                self._entries(label, vars(x), keys, False, ATTRIBUTE)
        elif isinstance(x, type):
            self._class(label, x)
        elif isinstance(x, weakref.ref):
            self._stack.append((label, x()))
        elif isinstance(
            x, (Node, Primitive, np.random.Generator, np.random.RandomState, io.IOBase)
        ) or kind.__module__.startswith("scg.plans."):
            pass  # constants, or looked at elsewhere
        elif isinstance(x, (dict, MappingProxyType)):
            self._entries(label, x, tuple(x), True, ITEM)
            self._attributes(label, x)
        elif isinstance(x, (tuple, frozenset)):
            self._stack += [(f"{label}[{k}]", value) for k, value in enumerate(x)]
            self._attributes(label, x)
        elif isinstance(x, (list, deque, set)):
            self._items(label, x)
            self._attributes(label, x)
        elif kind.__module__ in _CONTAINERS and isinstance(x, Mapping):
            self._entries(label, x, tuple(x), True, ITEM)
        elif isinstance(x, (array.array, bytearray, memoryview)):
            self._enter(Buffer(label, x), ())
        elif kind.__module__ in _CONTAINERS and isinstance(x, MutableSequence):
            self._items(label, x)
        elif hasattr(kind, "__next__"):
            self.iterators.append(label)
        else:
            self._attributes(label, x)

    def _entries(self, label: str, holder: object, keys: tuple[object, ...], whole: bool, spelling: str) -> None:
        if keys or whole:
            place = Entries(label, holder, keys, whole, spelling)
            self._enter(
                place, [(spelling.format(label, key), value) for key, value in zip(keys, place.values, strict=True)]
            )

    def _items(self, label: str, x: Operand) -> None:
        place = Items(label, x)
        self._enter(place, [(f"{label}[{k}]", value) for k, value in enumerate(place.values)])

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
            place = Cells(label, fn.__closure__, code.co_freevars)
            self._enter(place, zip(place.names, place.values, strict=True))
        if (fn.__dict__ or self._ran is None) and (not library or "__wrapped__" in fn.__dict__):
            self._entries(label, fn.__dict__, tuple(fn.__dict__), True, ATTRIBUTE)

    def _codes(self, code: CodeType) -> None:
        if code not in self.codes:
            self.codes.add(code)
            for constant in code.co_consts:
                if isinstance(constant, CodeType):
                    self._codes(constant)

    def _array(self, label: str, x: np.ndarray) -> None:
        if x.dtype.hasobject:
            self._items(label, x.reshape(-1) if x.flags.c_contiguous else x.T.reshape(-1))  # views, but of gaps
            return
        base: Any = x
        while isinstance(base, np.ndarray):
            if id(base) in self._read:
                if self._sampled and id(x) not in self._free and x.size:
                    self.places.append(Sample(label, x))
                return
            if base.flags.writeable:
                self.places.append(Elements(label, x))
                return
            base = base.base

    def _class(self, label: str, owner: type) -> None:
        if type(owner) is not type:
            self._stack.append((label, type(owner)))
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
                    place = Class(label, kind, keys)
                    self._enter(
                        place, [(f"{label}.{key}", value) for key, value in zip(keys, place.values, strict=True)]
                    )

    def _attributes(self, label: str, x: object) -> None:
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
            self._entries(label, inside, tuple(sorted(names)), every, ATTRIBUTE)
            if not library and not every:
                absent = tuple(
                    sorted(
                        name
                        for name in self.names.attributes - inside.keys()
                        if not callable(getattr(kind, name, None))
                    )
                )
                self._entries(label, inside, absent, False, ATTRIBUTE)
        slots = [
            name
            for k in kind.__mro__
            for name in _names(vars(k).get("__slots__", ()))
            if name in self.names.attributes or every
        ]
        if slots:
            place = Attributes(label, x, tuple(sorted(set(slots) - {"__dict__", "__weakref__"})))
            self._enter(
                place, [(f"{label}.{name}", value) for name, value in zip(place.names, place.values, strict=True)]
            )
        if not library:
            self._class(label, kind)


def _names(slots: Any) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else tuple(slots)
