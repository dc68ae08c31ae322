"""What may stand beside a Node, frozen so that nobody changes it behind the graph's back; and how values are named in
messages."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal, NoReturn

import numpy as np

from scg.core.aliases import Operand, Operands, Result, Statics
from scg.core.ambient import RECORDER
from scg.errors import ScgError, ScgTypeError, here, kin

if TYPE_CHECKING:
    from scg.core.primitive import Primitive

_FLOAT = np.dtype(float)


def constant_operand(value: Operand, primitive: "Primitive") -> Operand:
    """What may stand beside a Node: numbers as they are, arrays that nobody can change, lists as arrays."""
    kind = type(value)
    if kind is float or kind is int:
        return value
    if kind is np.ndarray and value.dtype.kind in "fiucb":
        return beside(value)
    if isinstance(value, (bool, int, float, complex, np.generic)) and getattr(value, "dtype", _FLOAT).kind in "fiucb":
        return value
    array = plain(value, primitive.name)
    if array.dtype.kind not in "fiucb":
        instead = getattr(value, "instead_of_an_array", None)  # of a class as well
        what = (
            f"{described((value,))} of dtype {array.dtype}" if instead is None else f"{described((value,))}: {instead}"
        )
        asked = ": `x is None` asks whether there is a value" if value is None else ""
        raise ScgTypeError(f"{primitive.name} needs numbers, got {what}{asked} ({here()})")
    return beside(array)


def plain(value: Operand, who: str) -> Operand:
    """``value`` as an array or NumPy scalar; refused where that would lose something."""
    require_plain(value, who)
    if type(value) is np.ndarray or isinstance(value, np.generic):
        return value
    try:
        return np.asarray(value)
    except (TypeError, ValueError) as error:
        at = "" if isinstance(error, ScgError) else f" ({here()})"  # which says it itself
        raise ScgTypeError(f"{who} needs an array of numbers, got {described((value,))}: {error}{at}") from None


def require_plain(value: Operand, who: str) -> None:
    """Raise ScgTypeError for arrays that mean something else than their numbers: masked ones and np.matrix, also in a
    list."""
    if isinstance(value, np.ma.MaskedArray) or value is np.ma.masked:
        raise ScgTypeError(f"{who}: a masked array would lose its mask; choose by np.where(mask, ..., ...) ({here()})")
    if type(value).__module__.startswith("scipy.sparse"):
        raise ScgTypeError(f"{who}: a sparse matrix is no array; use matrix.toarray() beside nodes ({here()})")
    if isinstance(value, np.matrix):
        raise ScgTypeError(f"{who}: a np.matrix has operators of its own; pass np.asarray(matrix) ({here()})")
    if type(value) in (list, tuple) and any([isinstance(item, np.ndarray) for item in value]):
        for item in value:
            require_plain(item, who)


def shape_of_all(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """``np.broadcast_shapes``, at once where all are the same."""
    first = shapes[0] if shapes else ()
    return first if all([shape == first for shape in shapes]) else np.broadcast_shapes(*shapes)


def frozen(array: Operand) -> Operand:
    """The array itself where its memory is one that nobody can ever write to; else a read-only copy.

    An array that is read-only now is not enough: its owner may make it writable again. Memory of ``bytes`` cannot be,
    and copies are of that.
    """
    if isinstance(array, np.generic):
        return array
    base = array
    while isinstance(base, np.ndarray) and not base.flags.writeable:
        base = base.base
    if type(base) is bytes:
        return array
    order: Literal["C", "F"] = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    copy = np.ndarray(array.shape, array.dtype, array.tobytes(order), order=order)
    recorder = RECORDER.get()
    if recorder is not None:
        recorder.copied(copy, array)
    return copy


def beside(array: np.ndarray) -> Operand:
    """``frozen(array)``; where a function is recorded for a plan, and others may write to the array later, a leaf that
    stands for it."""
    recorder = RECORDER.get()
    fixed = frozen(array)
    return fixed if recorder is None or fixed is array else recorder.held(fixed)


def raise_named(error: Exception, primitive: "Primitive", values: Operands, statics: Statics) -> NoReturn:
    """The same error as one of scg's, with the primitive, its operands and the user's line; what is one is raised as it
    is, for it says that itself."""
    if isinstance(error, ScgError):
        raise error
    kind = kin(error)
    shown = ", ".join([described(values), *(f"{name}={value!r}" for name, value in statics.items())])
    message = f"{primitive.name}({shown}): {error} ({here()})"
    if kind is None:
        error.add_note(message)
        raise error
    raise kind(message) from error


def raise_kin(error: Exception, fn: object) -> None:
    """Raise what Python or NumPy raised in the implementation of ``fn`` as one of scg's errors; return where it is one,
    or somebody else's."""
    kind = kin(error)
    if (
        kind is not None
        and not isinstance(error, ScgError)
        and type(error).__module__.partition(".")[0] in ("builtins", "numpy")
    ):
        raise kind(f"{name_of(fn)} of a Node: {error} ({here()})") from error


def has_nan(value: Result) -> bool:
    """Whether any element is a NaN."""
    if isinstance(value, tuple):
        return any(map(has_nan, value))
    return value is not None and np.asarray(value).dtype.kind in "fc" and bool(np.isnan(value).any())


def described(values: Iterable[object]) -> str:
    """Values for a message: arrays and nodes by dtype and shape, numbers as they are, others by their type."""

    def one(value: object) -> str:
        if hasattr(value, "dtype") and hasattr(value, "shape") and not isinstance(value, (np.generic, type)):
            return f"{value.dtype}{list(value.shape)}"
        return repr(value) if isinstance(value, (bool, int, float, complex, str, np.generic)) else type(value).__name__

    return ", ".join(map(one, values))


def name_of(fn: object) -> str:
    """A NumPy or SciPy callable, or a (ufunc, method) pair, as a user writes it."""
    if isinstance(fn, tuple):
        return f"{name_of(fn[0])}.{fn[1]}"
    if isinstance(fn, np.ufunc) and all("O" in types for types in fn.types):
        return f"the ufunc {fn.__name__!r} of np.frompyfunc"
    name = getattr(fn, "__name__", f"{fn}")
    home = getattr(fn, "__module__", None) or ("np" if getattr(np, name, None) is fn else "scipy.special")
    return f"{home.replace('numpy', 'np')}.{name}"
