"""Products of matrices of few rows taken by columns, so many at once that OpenBLAS has a kernel for them that does not
rearrange its operands first."""

import math

import numpy as np

from scg.core import axes
from scg.core.primitive import primitive
from scg.plans.program import Op, Operations
from scg.primitives import contraction, layout

FEW, FEW_TRANSPOSED, WIDE = 32, 100, 100
"""Rows up to which a product in single precision is taken by columns, also where a transpose is on its right, and rows
and columns that this has at least."""

SMALL_PRODUCT, SMALL_RESULT, FEWEST = 10**6, 1200, 8
"""Multiplications up to which OpenBLAS has a kernel that does not rearrange its operands first, elements of the result,
with a transpose, and the columns at once that are worth it."""


def by_columns(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """a b by columns of b, so many at once that OpenBLAS takes its kernel for small products."""
    (rows, inner), n = a.shape, b.shape[1]
    most = SMALL_PRODUCT // (rows * inner)
    if b.strides[0] < b.strides[1]:
        most = min(most, SMALL_RESULT // rows)
    count = -(-n // most)
    for k in range(count):
        start, stop = n * k // count, n * (k + 1) // count
        np.matmul(a, b[:, start:stop], out[:, start:stop])


FEW_ROWS = primitive(
    np.matmul.__call__, axes.contraction("ij,jk->ik", products=True), name="matmul", into=lambda a, b: by_columns
)
"""A product of a matrix of few rows."""


def rows(program: Operations) -> int:
    """Take products of few rows by columns."""
    return program.rewrite(lambda op, add: add(op.like(FEW_ROWS, *op.args)) if has_few_rows(op) else None)


def is_by_columns(op: Op) -> bool:
    """Whether a product is taken by columns."""
    return op.primitive is FEW_ROWS


def has_few_rows(op: Op) -> bool:
    """Whether a product of matrices is to be taken by columns."""
    if op.primitive is not contraction.matmul_p:
        return False
    a, b = op.args
    if not len(a.shape) == len(b.shape) == 2 or not op.dtype == a.dtype == b.dtype == np.float32 or min(b.shape) < WIDE:
        return False
    transposed = type(b) is Op and b.primitive is layout.transpose_p
    large = op.size * a.shape[1] > SMALL_PRODUCT or transposed and op.size > SMALL_RESULT
    if FEWEST * math.prod(a.shape) > SMALL_PRODUCT:  # too many parts
        return False
    return large and 1 < a.shape[0] <= (FEW_TRANSPOSED if transposed else FEW)
