"""Places that hold what a function looks up: entries of dicts, attributes, cells, elements; and what each held."""

from collections import deque
from collections.abc import Iterable
from itertools import repeat
from operator import is_
from types import CellType, MethodType
from typing import Any, Literal

import numpy as np

from scg.core.aliases import Operands, Result

MISSING = object()

ATTRIBUTE, ITEM = "{}.{}", "{}[{!r}]"

SMALL, BLOCK = 2**12, 2**15
"""Bytes up to which an array is compared as bytes, and integers that are compared at once."""

WATCHED, SAMPLES = 2**14, 256
"""Bytes up to which an array that is read anew is watched as a whole, and elements by which a larger one is."""


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


class Place:
    """A holder of values, and these as they were."""

    def __init__(self, label: str, holder: Result, values: tuple[object, ...]):
        self.label, self.holder, self.values = label, holder, values

    def now(self) -> Iterable[object]:
        """The values of now, in the same order."""
        raise NotImplementedError

    def put(self, values: tuple[object, ...]) -> None:
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


class Entries(Place):
    """Entries of a dict; ``whole``: all of them."""

    def __init__(self, label: str, holder: Result, keys: Operands, whole: bool, spelling: str):
        self.keys, self.spelling = keys, spelling
        self.size = len(holder) if whole else None
        super().__init__(label, holder, tuple(map(holder.get, keys, repeat(MISSING))))

    def now(self) -> Iterable[object]:
        return map(self.holder.get, self.keys, repeat(MISSING))

    def is_whole(self) -> bool:
        return self.size is None or len(self.holder) == self.size

    def where(self) -> str:
        now = [key for key, a, b in zip(self.keys, self.values, self.now(), strict=True) if not same(a, b)]
        if not now and self.size is not None:
            now = [key for key in self.holder if key not in self.keys]
        return self.spelling.format(self.label, now[0]) if now else self.label

    def put(self, values: tuple[object, ...]) -> None:
        if self.size is not None and len(self.holder) != self.size:
            for key in [key for key in self.holder if key not in self.keys]:
                del self.holder[key]
        for key, value in zip(self.keys, values, strict=True):
            if self.holder.get(key, MISSING) is not value:
                if value is MISSING:
                    del self.holder[key]
                else:
                    self.holder[key] = value


class Class(Entries):
    """Attributes of a class."""

    def __init__(self, label: str, owner: type, keys: tuple[str, ...]):
        self.owner = owner
        super().__init__(label, vars(owner), keys, False, ATTRIBUTE)

    def put(self, values: tuple[object, ...]) -> None:
        for key, value in zip(self.keys, values, strict=True):
            if vars(self.owner).get(key, MISSING) is not value:
                if value is MISSING:
                    delattr(self.owner, key)
                else:
                    setattr(self.owner, key, value)


class Attributes(Place):
    """Attributes in slots."""

    def __init__(self, label: str, holder: Result, names: tuple[str, ...]):
        self.names = names
        super().__init__(label, holder, tuple([getattr(holder, name, MISSING) for name in names]))

    def now(self) -> Iterable[object]:
        return map(getattr, repeat(self.holder), self.names, repeat(MISSING))

    def put(self, values: tuple[object, ...]) -> None:
        for name, value in zip(self.names, values, strict=True):
            if value is not MISSING and getattr(self.holder, name, MISSING) is not value:
                object.__setattr__(self.holder, name, value)


class Cells(Place):
    """Variables of functions around."""

    def __init__(self, label: str, cells: tuple[CellType, ...], names: tuple[str, ...]):
        self.names = names
        self.holder = cells
        super().__init__(label, cells, tuple(map(_content, cells)))

    def now(self) -> Iterable[object]:
        return map(_content, self.holder)

    def put(self, values: tuple[object, ...]) -> None:
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


class Items(Place):
    """Elements of a list, a deque or a set, of a user's list, of a vector of objects."""

    def __init__(self, label: str, holder: Result):
        super().__init__(label, holder, tuple(holder))

    def now(self) -> Iterable[object]:
        return iter(self.holder)

    def is_whole(self) -> bool:
        return len(self.holder) == len(self.values)

    def put(self, values: tuple[object, ...]) -> None:
        if not self.holds():
            if isinstance(self.holder, np.ndarray):
                for k, value in enumerate(values):
                    self.holder[k] = value
                return
            if isinstance(self.holder, (list, deque, set)):
                self.holder.clear()
            else:
                del self.holder[:]
            (self.holder.update if isinstance(self.holder, set) else self.holder.extend)(values)


class Buffer(Place):
    """The bytes of an array.array, a bytearray or a memoryview."""

    def __init__(self, label: str, holder: Result):
        super().__init__(label, holder, (bytes(holder),))

    def now(self) -> Iterable[object]:
        return (bytes(self.holder),)

    def put(self, values: tuple[Any, ...]) -> None:
        if self.holds():
            return
        (kept,) = values
        view = memoryview(self.holder)
        if view.nbytes == len(kept):
            if not view.readonly and view.c_contiguous:
                view.cast("B")[:] = kept
        else:
            view.release()
            del self.holder[:]
            getattr(self.holder, "frombytes", self.holder.extend)(kept)


class Elements(Place):
    """Elements of an array, which may be changed in place."""

    def __init__(self, label: str, array: np.ndarray):
        super().__init__(label, array, ())
        self.form = array.shape, array.dtype
        self.kept: Any = array.tobytes() if array.nbytes <= SMALL else _memory(array).copy()

    def holds(self) -> bool:
        if (self.holder.shape, self.holder.dtype) != self.form:
            return False
        if type(self.kept) is bytes:
            return bool(self.holder.tobytes() == self.kept)
        now, kept = _memory(self.holder), self.kept
        return all([np.array_equal(now[k : k + BLOCK], kept[k : k + BLOCK]) for k in range(0, now.size, BLOCK)])

    def put(self, values: tuple[object, ...]) -> None:
        if not self.holds():
            x = self.holder
            if x.shape != self.form[0]:
                x.shape = self.form[0]
            kept = np.frombuffer(self.kept, np.uint8) if type(self.kept) is bytes else self.kept.view(np.uint8)
            order = "C" if type(self.kept) is bytes else _order(x)
            x[...] = kept.view(x.dtype).reshape(x.shape, order=order)


class Sample(Place):
    """Some elements of an array, all of a small one, spread over it."""

    def __init__(self, label: str, array: np.ndarray):
        super().__init__(label, array, ())
        self.kept = self._taken()

    def _taken(self) -> bytes:
        x = self.holder
        if x.nbytes <= WATCHED:
            return bytes(x.tobytes())
        step = x.size // SAMPLES | 1
        return bytes((x.reshape(-1, order=_order(x)) if _is_dense(x) else x.flat)[::step].tobytes())

    def holds(self) -> bool:
        return self._taken() == self.kept

    def put(self, values: Operands) -> None:
        pass  # what is read anew needs none


def _is_dense(array: np.ndarray) -> bool:
    return bool(array.flags.c_contiguous or array.flags.f_contiguous)


def _order(array: np.ndarray) -> Literal["C", "F", "A"]:
    return "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"


def _memory(array: np.ndarray) -> np.ndarray:
    """The elements as integers, which differ where bits do; without a copy where they lie side by side."""
    flat = np.ascontiguousarray(array.reshape(-1, order=_order(array))).view(np.uint8)
    return flat.view(np.uint64) if flat.size % 8 == 0 else flat


def _content(cell: CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # not bound yet
        return MISSING
