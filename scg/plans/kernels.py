"""How an operation runs into a buffer: as a view of its operand, as a ufunc, reduction or product with ``out=``, or
called plainly and copied.

``kernel(op)`` is a function ``fn(*operands, out)``; ``view(op)`` a function of one array, where the result is the
operand's own memory. A primitive that nobody here knows is called plainly.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from scg.core.axes import elementwise
from scg.core.node import RULES, Node
from scg.distributions.constraints import finite
from scg.errors import NonFiniteError
from scg.plans.program import CHOICE, FINITE, Op
from scg.plans.recording import numbers
from scg.primitives import contraction, indexing, layout, reduction
from scg.primitives import elementwise as elementwise_
from scg.stochastic.sites import draw, noise, path

Kernel = Callable[..., Any]

FEW, FEW_TRANSPOSED, WIDE = 32, 100, 100
"""Rows up to which a product in single precision is taken by columns, also where a transpose is on its right, and rows
and columns that this has at least."""

SMALL_PRODUCT, SMALL_RESULT, FEWEST = 10**6, 1200, 8
"""Multiplications up to which OpenBLAS has a kernel that does not rearrange its operands first, elements of the result,
with a transpose, and the columns at once that are worth it."""

BOUND = 1e30
"""What sums of squares stay below: in single precision products of such arrays are finite then, and sums of up to 10^46
elements."""


class Otherwise(Exception):
    """A choice came out otherwise than in the recorded run."""


class Raised(Exception):
    """Something that is called as it is, or that draws, has raised an error for these values: the plain call tells
    which, in its own words."""


class Generators:
    """The generators of one call, by position; kernels that draw hold this."""

    __slots__ = ("current",)

    def __init__(self) -> None:
        self.current: list[np.random.Generator] = []


def view(op: Op) -> Callable[[Any], Any] | None:
    """The function by which the result is a view of operand 0, where it is one."""
    rule: Any = op.rule
    statics = op.statics
    if rule in _SAME:
        return _itself
    if rule is layout.reshape_p:
        return lambda x: np.reshape(x, statics["shape"])
    if rule is layout.transpose_p:
        return lambda x: np.transpose(x, statics["axes"])
    if rule is layout.broadcast_to_p:
        return lambda x: np.broadcast_to(x, statics["shape"])
    if (
        rule is indexing.getitem_p
        and len(op.args) == 1
        and all([isinstance(i, (int, slice)) or i is None or i is Ellipsis for i in statics["index"]])
    ):
        index = statics["index"] if Ellipsis in statics["index"] else (*statics["index"], ...)  # a view, of no axes too
        return lambda x: x[index]
    return None


def kernel(op: Op, generators: Generators) -> Kernel:
    """``fn(*operands, out)``, which writes the result of an operation into ``out``."""
    rule: Any = op.rule
    if isinstance(rule.fn, np.ufunc) and not op.statics and rule.fn.nout == 1:
        return _KEYWORD_ONLY.get(rule.fn) or rule.fn
    if rule is reduction.sum_p:
        return _folded(np.add.reduce, op.statics["axis"], op.statics["keepdims"])
    if rule in _EXTREMA:
        return _folded(rule.fn, op.statics["axis"], op.statics["keepdims"])
    if rule is elementwise_.where_p:
        return _where
    if rule is contraction.matmul_p:
        return _product(op)
    if rule is contraction.dot_p:
        return np.vecdot if op.dtype.kind == "f" else functools.partial(_plain, rule.fn, op.statics)
    if (
        rule is indexing.scatter_p
        and len(op.args) == 1
        and all([isinstance(i, (int, slice)) for i in op.statics["index"]])
    ):
        return functools.partial(_placed, op.statics["index"])
    if rule is layout.astype_p or rule is layout.as_integer_p:
        return lambda x, out: np.copyto(out, x, casting="unsafe")
    if rule is layout.concatenate_p:
        return lambda *x, axis=op.statics["axis"]: np.concatenate(x[:-1], axis, out=x[-1])
    if rule is CHOICE and op.statics["test"] == finite.holds and op.statics["outcome"] and op.args[0].dtype.kind == "f":
        return _finite_choice
    if rule is CHOICE:
        return functools.partial(_choice, op.statics["test"], op.statics["outcome"])
    if rule is FINITE:
        return functools.partial(_finite, op.statics["norms"])
    if rule is noise:
        return _noise(op, generators)
    if rule is draw:
        return _draw(op, generators)
    if rule is numbers:
        return _numbers(op, generators)
    if op.dtype is None:
        return functools.partial(_several, rule.fn, op.statics)
    return functools.partial(_plain, rule.fn, op.statics)


def is_elementwise(op: Op) -> bool:
    """Whether the result may be written over an operand of its shape and dtype, and be computed part by part along
    leading axes."""
    return op.rule.axes is elementwise and op.dtype is not None


def is_plain(op: Op) -> bool:
    """Whether a primitive is called as it is and its result copied."""
    made = kernel(op, Generators())
    return isinstance(made, functools.partial) and made.func in (_plain, _several)


def may_differ(node: Node) -> bool:
    """Whether a node may raise an error for other values, or have another shape: all that is called plainly, and is no
    view."""
    several = type(node.raw) is tuple
    op = Op(
        node.primitive, node.operands, node.statics, None if several else node.shape, None if several else node.dtype
    )
    return view(op) is None and is_plain(op)


def is_there(*values: Any) -> bool:
    """A test that values were computed."""
    return True


def cast_scalars(op: Op) -> None:
    """Make Python numbers beside arrays into arrays of the dtype that NumPy would give them: a ufunc converts them anew
    at each call."""
    fn = op.rule.fn
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


def _itself(x: Any) -> Any:
    return x


def _choice(test: Kernel, outcome: bool, *values: Any) -> None:
    try:
        found = bool(test(*values[:-1]))
    except Exception as error:
        raise Raised from error
    if found is not outcome:
        raise Otherwise


def _finite(norms: int, *values: Any) -> None:
    if norms and all([is_bounded(squares) for squares in values[:norms]]):
        return
    if not all([is_finite(x) for x in values[norms:-1]]):
        raise NonFiniteError("a result of the plan is not finite")


def is_bounded(squares: Any) -> bool:
    """Whether sums of squares are so small that what they stand for, and products and sums of it, are finite. False at
    a NaN."""
    return bool((squares.item() if squares.size == 1 else np.add.reduce(squares, axis=None)) < BOUND)


def _square(x: Any) -> float:
    """The sum of squares, in one pass of BLAS; infinite where that is not to be had. Row by row: a long product would
    wake BLAS's other threads."""
    if not x.flags.c_contiguous:
        x = x.T
        if not x.flags.c_contiguous:
            return math.inf
    if x.size > 8192 and x.ndim > 1 and 32 <= x.shape[-1] <= 8192:
        return float(np.add.reduce(np.vecdot(x, x), axis=None))
    flat = x.reshape(-1)
    return float(np.dot(flat, flat))


def is_finite(x: Any) -> bool:
    """Whether all of x is finite. A sum of squares that is not may have overflowed."""
    if x.dtype.kind == "f" and math.isfinite(_square(x)):
        return True
    return bool(np.isfinite(x).all())


def _finite_choice(*values: Any) -> None:
    if not is_finite(values[0]):
        raise Otherwise


def _plain(fn: Kernel, statics: dict[str, Any], *values: Any) -> None:
    out = values[-1]
    try:
        result = fn(*values[:-1], **statics)
    except Exception as error:
        raise Raised from error
    if np.shape(result) != out.shape:
        raise Otherwise
    out[...] = result


def _placed(index: Any, g: Any, out: Any) -> None:
    out[...] = 0
    out[index] = g


def _folded(fold: Kernel, axis: Any, keepdims: bool) -> Kernel:
    return lambda x, out: fold(x, axis, None, out, keepdims)


def _stacked(a: Any, b: Any, out: Any) -> None:
    rows = math.prod(a.shape[:-1])
    np.matmul(a.reshape(rows, a.shape[-1]), b, out.reshape(rows, out.shape[-1]))


def _product(op: Op) -> Kernel:
    a, b = op.args
    if len(a.shape) > 2 == len(b.shape):
        return _stacked
    return _few_rows if has_few_rows(op) else np.matmul


def has_few_rows(op: Op) -> bool:
    """Whether a product of matrices is taken by columns."""
    a, b = op.args
    if not len(a.shape) == len(b.shape) == 2 or not op.dtype == a.dtype == b.dtype == np.float32 or min(b.shape) < WIDE:
        return False
    transposed = type(b) is Op and b.rule is layout.transpose_p
    large = op.size * a.shape[1] > SMALL_PRODUCT or transposed and op.size > SMALL_RESULT
    if FEWEST * math.prod(a.shape) > SMALL_PRODUCT:  # too many parts
        return False
    return large and 1 < a.shape[0] <= (FEW_TRANSPOSED if transposed else FEW)


def _few_rows(a: Any, b: Any, out: Any) -> None:
    """a b by columns of b, so many at once that OpenBLAS takes its kernel for small products."""
    (rows, inner), n = a.shape, b.shape[1]
    most = SMALL_PRODUCT // (rows * inner)
    if b.strides[0] < b.strides[1]:
        most = min(most, SMALL_RESULT // rows)
    count = -(-n // most)
    for k in range(count):
        start, stop = n * k // count, n * (k + 1) // count
        np.matmul(a, b[:, start:stop], out[:, start:stop])


def _where(condition: Any, x: Any, y: Any, out: Any) -> None:
    if np.may_share_memory(condition, out):
        condition = condition.copy()
    if np.may_share_memory(x, out):
        np.copyto(out, x)
        np.copyto(out, y, where=~condition, casting="unsafe")
    else:
        np.copyto(out, y, casting="unsafe")
        np.copyto(out, x, where=condition, casting="unsafe")


def _several(fn: Kernel, statics: dict[str, Any], *values: Any) -> None:
    try:
        results = fn(*values[:-1], **statics)
    except Exception as error:
        raise Raised from error
    for out, result in zip(values[-1], results, strict=True):
        if np.shape(result) != out.shape:
            raise Otherwise
        out[...] = result


def _noise(op: Op, generators: Generators) -> Kernel:
    law, shape, k, dtype = op.statics["distribution"], op.statics["shape"], op.statics["generator"], op.dtype

    def fill(out: Any) -> None:
        try:
            out[...] = law.sample_as(generators.current[k], shape, dtype)
        except Exception as error:
            raise Raised from error

    if law is _standard() and dtype in (np.float32, np.float64):  # the same numbers, into the buffer itself
        return lambda out: generators.current[k].standard_normal(dtype=dtype, out=out)
    return fill


def _standard() -> Any:
    from scg.distributions.normal import STANDARD

    return STANDARD


def _draw(op: Op, generators: Generators) -> Kernel:
    site, k = op.statics["site"], op.statics["generator"]
    names, shape = list(site.distribution.parameters), site.shape if site.drawn is None else site.drawn

    def fill(*values: Any) -> None:
        try:
            law = site.distribution.replaced(**dict(zip(names, values[:-1], strict=True)))
            values[-1][...] = site.estimator.draw(law, generators.current[k], shape)
        except Exception as error:
            raise Raised from error

    return fill


def _numbers(op: Op, generators: Generators) -> Kernel:
    name, args, kwargs, k = (
        op.statics["name"].partition(".")[2],
        op.statics["args"],
        op.statics["kwargs"],
        op.statics["generator"],
    )

    def fill(out: Any) -> None:
        out[...] = getattr(generators.current[k], name)(*args, **kwargs)

    return fill


_EXTREMA = (reduction.max_p, reduction.min_p, reduction.prod_p, reduction.fmax_p, reduction.fmin_p)
_SAME = (layout.alias, layout.stop_gradient, path, RULES[np.positive])
_KEYWORD_ONLY: dict[Any, Kernel] = {  # a third position is on its way out of NumPy
    np.maximum: lambda x, y, out: np.maximum(x, y, out=out),
    np.minimum: lambda x, y, out: np.minimum(x, y, out=out),
}
