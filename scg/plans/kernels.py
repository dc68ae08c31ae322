"""How an operation runs into a buffer: as a view of its operand, by the call that its primitive declares, as a ufunc
with ``out=``, or called plainly and copied.

``kernel(op)`` is a function ``call(*arrays, out)``; ``view(op)`` a function of one array, where the result is the
operand's own memory. All follows from the declaration of the primitive (``scg.extend.primitive``: ``into``, ``view``).
"""

import functools

import numpy as np

from scg.core.aliases import Function, Result, Statics
from scg.core.axes import elementwise
from scg.core.node import Node
from scg.plans.checks import Otherwise, Raised
from scg.plans.program import Op

Kernel = Function


class Generators:
    """The generators of one call, by position; kernels that draw hold this."""

    __slots__ = ("current",)

    def __init__(self) -> None:
        self.current: list[np.random.Generator] = []

    def get(self, k: int) -> np.random.Generator:
        """The k-th."""
        return self.current[k]


def view(op: Op) -> Function | None:
    """The function by which the result is a view of operand 0, where it is one."""
    declared = op.primitive.view
    if declared is None or declared is True:
        return declared and itself
    return declared(*op.args, **op.statics)  # type: ignore[no-any-return]


def itself(x: Result) -> Result:
    """How an array shows itself."""
    return x


def kernel(op: Op, generators: Generators) -> Kernel:
    """``call(*arrays, out)``, which writes the result of an operation into ``out``."""
    declared = _declared(op, generators)
    if declared is None:
        return functools.partial(_plain if op.dtype is not None else _several, op.primitive.fn, op.statics)
    return declared if op.generator is None else functools.partial(_drawn, declared)


def is_elementwise(op: Op) -> bool:
    """Whether the result may be written over an operand of its shape and dtype, and be computed part by part along
    leading axes."""
    return op.primitive.axes is elementwise and op.dtype is not None


def is_plain(op: Op) -> bool:
    """Whether a primitive is called as it is and its result copied."""
    return _declared(op, Generators()) is None


def may_differ(node: Node) -> bool:
    """Whether a node may raise an error for other values, or have another shape: all that is called plainly, and is no
    view."""
    several = type(node.raw) is tuple
    op = Op(
        node.primitive, node.operands, node.statics, None if several else node.shape, None if several else node.dtype
    )
    return view(op) is None and is_plain(op)


def cast_scalars(op: Op) -> None:
    """Make Python numbers beside arrays into arrays of the dtype that NumPy would give them: a ufunc converts them anew
    at each call."""
    fn = op.primitive.fn
    if not isinstance(fn, np.ufunc) or op.statics or fn.nout != 1 or fn.signature is not None:
        return
    if any([type(a) in (float, int, bool) for a in op.args]):
        given = tuple(
            [type(a) if type(a) in (float, int) else np.dtype(bool) if type(a) is bool else a.dtype for a in op.args]
        )
        try:
            loop = fn.resolve_dtypes((*given, None))
        except (TypeError, ValueError):
            return
        try:
            op.args = tuple(
                [
                    np.asarray(a, d) if type(a) in (float, int, bool) else a
                    for a, d in zip(op.args, loop[:-1], strict=True)
                ]
            )
        except OverflowError:  # np.uint8(3) < 300, which NumPy answers
            return
    op.args = tuple([np.asarray(a) if isinstance(a, np.generic) else a for a in op.args])


def _declared(op: Op, generators: Generators) -> Kernel | None:
    """What the primitive declares for these operands, or a ufunc itself; None where it is called plainly."""
    if op.generator is None:
        return op.primitive.kernel(op.args, op.statics)
    return op.primitive.kernel(op.args, {**op.statics, "rng": functools.partial(generators.get, op.generator)})


def _drawn(draw: Kernel, *values: object) -> None:
    try:
        draw(*values)
    except Exception as error:
        raise Raised from error


def _plain(fn: Kernel, statics: Statics, *values: Result) -> None:
    out = values[-1]
    try:
        result = fn(*values[:-1], **statics)
    except Exception as error:
        raise Raised from error
    _write(result, out)


def _write(result: Result, out: Result) -> None:
    """Write a result into its buffer, which has the shape and dtype that came when it was recorded."""
    result = np.asarray(result)
    if result.shape != out.shape or result.dtype != out.dtype and not np.can_cast(result.dtype, out.dtype, "same_kind"):
        raise Otherwise
    out[...] = result


def _several(fn: Kernel, statics: Statics, *values: Result) -> None:
    try:
        results = fn(*values[:-1], **statics)
    except Exception as error:
        raise Raised from error
    for out, result in zip(values[-1], results, strict=True):
        _write(result, out)
