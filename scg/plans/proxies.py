"""Generators in the place of those that a recorded function is given: they tell the recorder what they draw."""

import functools
from typing import Any, NoReturn

import numpy as np

from scg.core.aliases import Function, Result


class Proxy(np.random.Generator):
    """A generator in the place of another one, whose every draw it is, while a function is recorded."""

    def __init__(self, real: np.random.Generator, recorder: Any, position: int):
        super().__init__(real.bit_generator)
        self.real, self.recorder, self.position = real, recorder, position

    @property
    def bit_generator(self) -> np.random.BitGenerator:
        bits: np.random.BitGenerator = self.recorder.raw_bits(self)
        return bits

    def __reduce__(self) -> NoReturn:
        self.recorder.refuse("a copy of rng gives numbers that a plan would repeat: draw by the generator's methods")
        raise AssertionError


def _through(name: str) -> Function:
    @functools.wraps(getattr(np.random.Generator, name))
    def method(self: Proxy, *args: object, **kwargs: object) -> Result:
        return self.recorder.numbers_drawn(self, name, args, kwargs)

    return method


for _name in dir(np.random.Generator):
    if not _name.startswith("_") and callable(getattr(np.random.Generator, _name)):
        setattr(Proxy, _name, _through(_name))
