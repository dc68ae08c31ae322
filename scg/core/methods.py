"""The methods and attributes of NumPy's arrays, on what is recorded in their place: each is a function of NumPy."""

import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from scg.core.aliases import Function, Result
from scg.core.ambient import RECORDER
from scg.core.operands import raise_kin
from scg.core.primitive import IMPLEMENTATIONS, Recorded

if TYPE_CHECKING:
    from scg.core.node import Node


def typed(result: Result, fn: object, *args: object, **kwargs: object) -> Result:
    """``result``, after who records was told which call it stands for: NumPy makes of some a scalar, of others an array
    without axes."""
    recorder = RECORDER.get()
    if recorder is not None and isinstance(result, Methods) and result.raw.shape == ():
        recorder.typed(result, fn, args, kwargs)
    return result


def _method(fn: Any) -> Function:
    def method(self: "Node", *args: object, **kwargs: object) -> Result:
        try:
            return typed(IMPLEMENTATIONS[fn](self, *args, **kwargs), fn, self, *args, **kwargs)
        except Exception as error:
            raise_kin(error, fn)
            raise

    method.__name__ = method.__qualname__ = fn.__name__
    method.__doc__ = f"``np.{fn.__name__}`` of this node."
    return method


class Methods(Recorded):
    """What a node has of an array, by functions that are implemented for nodes."""

    __slots__ = ()
    raw: Result

    shape = property(lambda self: self.raw.shape)
    dtype = property(lambda self: self.raw.dtype)
    ndim = property(lambda self: self.raw.ndim)
    size = property(lambda self: self.raw.size)
    nbytes = property(lambda self: self.raw.nbytes)
    itemsize = property(lambda self: self.raw.itemsize)
    T = property(lambda self: IMPLEMENTATIONS[np.transpose](self))
    mT = property(lambda self: IMPLEMENTATIONS[np.matrix_transpose](self))
    real = property(lambda self: IMPLEMENTATIONS[np.real](self))
    imag = property(lambda self: IMPLEMENTATIONS[np.imag](self))

    device = property(lambda self: self.raw.device)

    def __getitem__(self, index: object) -> "Node":
        return IMPLEMENTATIONS[operator.getitem](self, index)

    def __matmul__(self, other: object) -> "Node":
        return typed(IMPLEMENTATIONS[np.matmul](self, other), np.matmul, self, other)

    def __rmatmul__(self, other: object) -> "Node":
        return typed(IMPLEMENTATIONS[np.matmul](other, self), np.matmul, other, self)

    def __divmod__(self, other: object) -> Result:
        return IMPLEMENTATIONS[np.divmod](self, other)

    def __rdivmod__(self, other: object) -> Result:
        return IMPLEMENTATIONS[np.divmod](other, self)

    all, any, argmax, argmin, argsort = map(_method, (np.all, np.any, np.argmax, np.argmin, np.argsort))
    astype, clip, copy, choose = map(_method, (np.astype, np.clip, np.copy, np.choose))
    conj, conjugate = _method(np.conjugate), _method(np.conjugate)
    cumprod, cumsum, diagonal, dot, flatten = map(_method, (np.cumprod, np.cumsum, np.diagonal, np.dot, np.ravel))
    max, mean, min, nonzero, prod, ptp = map(_method, (np.max, np.mean, np.min, np.nonzero, np.prod, np.ptp))
    ravel, repeat, round, searchsorted = map(_method, (np.ravel, np.repeat, np.round, np.searchsorted))
    squeeze, std, sum, swapaxes, take = map(_method, (np.squeeze, np.std, np.sum, np.swapaxes, np.take))
    trace, var = _method(np.trace), _method(np.var)

    def compress(self, condition: object, axis: int | None = None) -> "Node":
        """``np.compress`` of this node."""
        return IMPLEMENTATIONS[np.compress](condition, self, axis)

    def reshape(self, *shape: int | Sequence[int], **kwargs: object) -> "Node":
        """``np.reshape`` of this node; the shape as one argument or as several."""
        return IMPLEMENTATIONS[np.reshape](self, shape[0] if len(shape) == 1 else shape, **kwargs)

    def to_device(self, device: object, /, *, stream: None = None) -> "Node":
        """This node, for the device "cpu"; ValueError for others."""
        self.raw.to_device(device, stream=stream)
        return self  # type: ignore[return-value]

    def transpose(self, *axes: object) -> "Node":
        """``np.transpose`` of this node; the axes as one argument or as several."""
        return IMPLEMENTATIONS[np.transpose](self, axes[0] if len(axes) == 1 else axes or None)
