"""A generator that gives the same random numbers again without making them again."""

from typing import Any

import numpy as np

from scg.core.aliases import Function, Operand

_BYTES = 2**24  # of numbers that are kept


class Recalled(np.random.Generator):
    """After ``start(seed)`` the numbers of ``np.random.default_rng(seed)``, and after ``rewind()`` the same ones again.

    What ``random``, ``standard_normal`` and ``standard_exponential`` gave first is kept, up to 16 MB, and copied as
    long as the calls are the same. At another call the generator is brought to where it would stand, and goes on: it is
    ``awake``.
    """

    def __init__(self) -> None:
        super().__init__(np.random.PCG64(0))
        self._source = super().bit_generator
        self.start(0)

    def start(self, seed: int) -> None:
        """Forget all numbers, and begin with those of a seed."""
        self._begin = np.random.PCG64(seed).state
        self.kept: list[tuple[tuple[Operand, ...], np.ndarray]] = []
        self._at, self.awake, self._keeps = 0, True, True
        self._source.state = self._begin

    def rewind(self) -> None:
        """Begin with the same numbers again."""
        self._at, self.awake, self._keeps = 0, False, False

    @property
    def bit_generator(self) -> np.random.BitGenerator:
        """The source itself, whose numbers nobody keeps."""
        self.wake()
        return self._source

    def wake(self) -> None:
        """Bring the generator to where it would stand; from here on nothing is kept or recalled."""
        self._keeps = False
        if not self.awake:
            self._source.state, self.awake = self._begin, True
            for (name, shape, dtype, *more), _ in self.kept[: self._at]:
                getattr(np.random.Generator, name)(self, shape, dtype, *more)

    def take(self, name: str, size: Any, dtype: Any, more: tuple[Operand, ...], out: np.ndarray | None) -> Any:
        """The numbers of a method, made or recalled."""
        call = name, size if out is None else out.shape, np.dtype(dtype), *more
        if not self.awake and self._at < len(self.kept) and self.kept[self._at][0] == call:
            found = self.kept[self._at][1]
            self._at += 1
            if out is not None:
                np.copyto(out, found)
                return out
            return found.copy() if found.ndim else found.item()
        if not self.awake:
            self.wake()
        made = getattr(np.random.Generator, name)(self, size, dtype, *more, out)
        if self._keeps:
            self.kept.append((call, np.array(made)))
            self._keeps = sum(x.nbytes for _, x in self.kept) < _BYTES
        return made

    def random(self, size: Any = None, dtype: Any = float, out: np.ndarray | None = None) -> Any:
        return self.take("random", size, dtype, (), out)

    def standard_normal(self, size: Any = None, dtype: Any = float, out: np.ndarray | None = None) -> Any:
        return self.take("standard_normal", size, dtype, (), out)

    def standard_exponential(
        self, size: Any = None, dtype: Any = float, method: str = "zig", out: np.ndarray | None = None
    ) -> Any:
        return self.take("standard_exponential", size, dtype, (method,), out)


def _waking(name: str) -> Function:
    def method(self: Recalled, *args: Any, **options: Any) -> Any:
        self.wake()
        return getattr(np.random.Generator, name)(self, *args, **options)

    return method


for _name in dir(np.random.Generator):
    if not _name.startswith("_") and _name not in vars(Recalled):
        setattr(Recalled, _name, _waking(_name))
