"""Which rows, along the first axis, of its operands a row of a result comes from: what may run part by part. All of it
follows from axis maps."""

import math

import numpy as np

from scg.core.aliases import Function, Result
from scg.plans.kernels import is_elementwise, is_plain, view
from scg.plans.program import Op

Look = Function


def is_map(op: Op) -> bool:
    """Whether it can run row by row into a buffer: a ufunc, a choice between two arrays, a conversion."""
    return is_elementwise(op) and not op.is_leaf and view(op) is None and not is_plain(op)


def folded(op: Op) -> tuple[int, ...] | None:
    """The shape of what is folded over its last axis, by itself or times another array, row by row; None for anything
    else.

    Operands (5, 3, 8) and (8,), result (5, 3) -> (5, 3, 8).
    """
    if op.dtype is None or not op.shape or not op.args or None in _shapes(op):
        return None
    shapes = _shapes(op)
    full: tuple[int, ...] = max(shapes, key=len)
    if op.shape != full[:-1] or op.primitive.axes is None or op.is_leaf or is_plain(op):
        return None
    out, ins = op.primitive.axes.align(shapes, op.shape, op.statics)
    whole = ins[shapes.index(full)]
    if whole[:-1] != out or not all([s == full or len(s) < len(full) for s in shapes]):
        return None
    return full if all([axes[-1:] == whole[-1:] for axes in ins]) else None


def is_product(op: Op) -> bool:
    """Whether it is a product of matrices, or of stacks of them."""
    if op.dtype is None or len(op.shape) < 2 or op.primitive.axes is None or not op.primitive.axes.products:
        return False
    return not is_plain(op) and folded(op) is None


def multiplications(product: Op) -> int:
    """Of a product of matrices."""
    return product.size * int(product.args[0].shape[-1])


def cut_rows(op: Op) -> int:
    """The rows by which an operation can be cut: those of its result, if each comes from the same rows of large
    operands. 0 where it cannot."""
    if op.dtype is None or not op.shape or op.is_leaf:
        return 0
    of_matrices = is_product(op) and all([len(a.shape) == 2 for a in op.args])
    return op.shape[0] if of_matrices or is_map(op) or folded(op) else 0


def cut_operand(op: Op, k: int, start: int, stop: int) -> Look | None:
    """The function that takes the part of operand ``k`` from which these rows of the result come; None where it is all
    of it."""
    shapes = [shape or () for shape in _shapes(op)]
    if op.primitive.axes is None or op.shape[0] == 1 or not shapes[k]:
        return None
    out, ins = op.primitive.axes.align(shapes, op.shape, op.statics)
    return (lambda x: x[start:stop]) if ins[k][0] == out[0] else None


def keeps_rows(look: Op) -> bool:
    """Whether a view of operand 0 has its rows in their order: (6, 4) as (2, 3, 4), but no transpose."""
    axes, shapes = look.primitive.axes, [shape or () for shape in _shapes(look)]
    if axes is None or not look.shape or not shapes[0]:
        return False
    out, ins = axes.align(shapes, look.shape, look.statics)
    return bool(out[0] and ins[0][0] and out[0][0] == ins[0][0][0])


def keeps_order(look: Op) -> bool:
    """Whether a view of operand 0 shows all its elements in their order, where that is contiguous."""
    found, source = view(look), look.args[0]
    if found is None or type(source) is not Op or look.size != source.size:
        return False
    array = np.empty(source.shape, source.dtype)  # of which nothing is read
    shown = found(array)
    return bool(
        shown.flags.c_contiguous and shown.dtype == array.dtype and shown.ctypes.data == array.ctypes.data
    ) or not math.prod(source.shape)


def _shapes(op: Op) -> list[Result]:
    """Those of the operands: None of a number, and of several results."""
    return [a.shape if isinstance(a, (Op, np.ndarray)) else None for a in op.args]
