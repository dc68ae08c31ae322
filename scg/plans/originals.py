"""Arrays that were copied while a function is recorded, not kept alive by that: one that is gone when the run has ended
was the run's own, and nobody can write to it any more."""

import weakref
from typing import Any

import numpy as np

from scg.core.aliases import Operands


class Original:
    """``array()`` is the array that was copied, None where nobody holds its memory any more."""

    __slots__ = ("_kept", "_array", "_owner", "_layout")

    def __init__(self, array: np.ndarray):
        owner: Any = array
        while isinstance(owner.base, np.ndarray):
            owner = owner.base
        # memory of another kind of object, or with gaps, is not seen again through its owner
        known = owner.base is None and (owner.flags.c_contiguous or owner.flags.f_contiguous)
        self._kept = None if known else array
        self._array, self._owner = weakref.ref(array), weakref.ref(owner)
        offset = array.ctypes.data - owner.ctypes.data
        self._layout: Operands = array.shape, array.dtype, offset, array.strides

    def array(self) -> np.ndarray | None:
        """The array, or another view of the same memory where only this is still there."""
        found, owner = self._kept if self._kept is not None else self._array(), self._owner()
        if found is not None or owner is None:
            return found
        shape, dtype, offset, strides = self._layout
        memory = owner.reshape(-1, order="A").view(np.uint8)
        return np.ndarray(shape, dtype, memory, offset, strides)
