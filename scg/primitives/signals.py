"""Sampled functions: differences, integrals, interpolation, convolution, unwrapping."""

import math
import operator

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from scg.core.ambient import settled
from scg.core.axes import AxisMap, elementwise, labelled
from scg.core.node import Node
from scg.core.primitive import implements, primitive, smooth_primitive
from scg.errors import ScgTypeError, ScgValueError, here
from scg.primitives.layout import as_array, at, stop_gradient
from scg.primitives.sorting import put_along_p


def _ends(a, axis):
    """All but the first, and all but the last."""
    return a[at(axis, slice(1, None))], a[at(axis, slice(None, -1))]


def _shaped(x, axis, ndim):
    """A vector laid along ``axis`` of an array of ``ndim`` axes."""
    return np.reshape(x, (1,) * axis + x.shape + (1,) * (ndim - axis - 1))


@implements(np.diff)
def diff(a, n=1, axis=-1, prepend=None, append=None):
    a, n = as_array(a), operator.index(n)
    if n < 0 or a.ndim == 0:
        raise ScgValueError(f"diff needs an axis and an order n >= 0, got shape {a.shape} and n = {n} ({here()})")
    axis = normalize_axis_index(axis, a.ndim)

    def border(x):
        x = as_array(x)
        return np.broadcast_to(x, (*a.shape[:axis], 1, *a.shape[axis + 1 :])) if x.ndim == 0 else x

    if n and (prepend is not None or append is not None):
        parts = [*([] if prepend is None else [border(prepend)]), a, *([] if append is None else [border(append)])]
        a = np.concatenate(parts, axis=axis)
    for _ in range(n):
        after, before = _ends(a, axis)
        a = np.not_equal(after, before) if a.dtype == bool else after - before
    return a


@implements(np.ediff1d)
def ediff1d(ary, to_end=None, to_begin=None):
    difference = np.diff(np.ravel(as_array(ary)))
    ends = [part if part is None else np.ravel(as_array(part)) for part in (to_begin, to_end)]
    parts = [part for part in (ends[0], difference, ends[1]) if part is not None]
    return np.concatenate([part.astype(difference.dtype) for part in parts]) if len(parts) > 1 else difference


@implements(np.trapezoid)
def trapezoid(y, x=None, dx=1.0, axis=-1):
    """sum_i (x_{i+1} - x_i) (y_i + y_{i+1}) / 2."""
    y = as_array(y)
    axis = normalize_axis_index(axis, y.ndim)
    if x is not None:
        x = as_array(x)
        dx = _shaped(np.diff(x), axis, y.ndim) if x.ndim == 1 else np.diff(x, axis=axis)
    after, before = _ends(y, axis)
    return np.sum(dx * (after + before) / 2.0, axis=axis)


@implements(np.gradient)
def gradient(f, *varargs, axis=None, edge_order=1):
    """Second-order central differences inside, one-sided ones of order ``edge_order`` at the ends; differentiable in f
    and in the spacing."""
    f = as_array(f)
    f = f if f.dtype.kind in "fc" else f.astype(float)
    axes = tuple(range(f.ndim)) if axis is None else normalize_axis_tuple(axis, f.ndim)
    # Python's numbers do not widen float32
    spacings = [v if type(v) in (Node, float, int) else as_array(v)[()] for v in varargs or (1.0,)]
    if len(spacings) == 1 and np.ndim(spacings[0]) == 0:
        spacings *= len(axes)
    if len(spacings) != len(axes):
        raise ScgTypeError(
            f"gradient needs no spacing, one, or one for each of {len(axes)} axes, got {len(varargs)} ({here()})"
        )
    if edge_order not in (1, 2):
        raise ScgValueError(f"edge_order must be 1 or 2, got {edge_order} ({here()})")
    found = [_slope(f, i, _steps(h, f, i), edge_order) for i, h in zip(axes, spacings, strict=True)]
    return found[0] if len(found) == 1 else tuple(found)


def _steps(h, f, axis):
    """The spacing along ``axis``: a scalar, or the distances between neighbours; NumPy takes those that are all equal
    as one."""
    if np.ndim(h) == 0:
        return h
    if h.shape != (f.shape[axis],):
        raise ScgValueError(
            f"coordinates along axis {axis} of {f.shape} need shape {(f.shape[axis],)}, got {h.shape} ({here()})"
        )
    h = np.diff(h if h.dtype.kind in "fc" else h.astype(float))
    return h[0] if type(h) is not Node and h.size and (h == h[0]).all() else h


def _slope(f, axis, h, edge_order):
    if f.shape[axis] < edge_order + 1:
        raise ScgValueError(
            f"gradient needs {edge_order + 1} elements along axis {axis}, got {f.shape[axis]} ({here()})"
        )
    # the value as NumPy has it, the derivative in each coordinate
    if type(h) is Node and h.ndim and settled(lambda h: (h == h[0]).all(), h):
        apart = _differences(f, axis, h, edge_order)
        return _differences(f, axis, stop_gradient(h[0]), edge_order) + _zero(apart, stop_gradient(apart))
    return _differences(f, axis, h, edge_order)


_zero = smooth_primitive(lambda x, same: np.zeros_like(x), elementwise, lambda g, out, x, same: g, None, name="zero")
"""Zero, with the derivative of x."""


def _differences(f, axis, h, edge_order):
    """NumPy's own terms, in NumPy's order: so the values are the same to the last bit, and an infinity or NaN spreads
    as far and no further."""
    n = f.shape[axis]

    def part(start, stop):
        return f[at(axis, slice(start, stop))]

    if np.ndim(h) == 0:
        inner = (part(2, n) - part(0, n - 2)) / (2.0 * h)
    else:
        left, right = h[:-1], h[1:]
        weights = -right / (left * (left + right)), (right - left) / (left * right), left / (right * (left + right))
        inner = _weighted([part(0, n - 2), part(1, n - 1), part(2, n)], [_shaped(w, axis, f.ndim) for w in weights])
    first_step, last_step = (h, h) if np.ndim(h) == 0 else (h[0], h[-1])
    if edge_order == 1:
        first, last = (part(1, 2) - part(0, 1)) / first_step, (part(n - 1, n) - part(n - 2, n - 1)) / last_step
    else:
        if np.ndim(h) == 0:
            begin, end = (-1.5 / h, 2.0 / h, -0.5 / h), (0.5 / h, -2.0 / h, 1.5 / h)
        else:
            a, b = h[0], h[1]
            begin = -(2.0 * a + b) / (a * (a + b)), (a + b) / (a * b), -a / (b * (a + b))
            a, b = h[-2], h[-1]
            end = b / (a * (a + b)), -(b + a) / (a * b), (2.0 * b + a) / (b * (a + b))
        first = _weighted([part(0, 1), part(1, 2), part(2, 3)], begin)
        last = _weighted([part(n - 3, n - 2), part(n - 2, n - 1), part(n - 1, n)], end)
    return np.concatenate([x.astype(f.dtype) for x in (first, inner, last)], axis=axis)


def _weighted(parts, weights):
    """a x + b y + c z, added from left to right."""
    (x, y, z), (a, b, c) = parts, weights
    return a * x + b * y + c * z


_convolve = primitive(
    lambda a, v: np.convolve(a, v),
    None,
    lambda g, out, a, v: np.convolve(g, v[::-1], "valid"),
    lambda g, out, a, v: np.convolve(g, a[::-1], "valid"),
    name="convolve",
    linear="each",
)


def _mode(mode):
    names = {"v": "valid", "s": "same", "f": "full", 0: "valid", 1: "same", 2: "full"}
    if mode not in names and mode not in names.values():
        raise ScgValueError(f"mode must be 'full', 'same' or 'valid', got {mode!r} ({here()})")
    return names.get(mode, mode)


@implements(np.convolve)
def convolve(a, v, mode="full"):
    """sum_m a_m v_{n-m}."""
    a, v = np.atleast_1d(a), np.atleast_1d(v)
    if a.ndim > 1 or v.ndim > 1 or not a.size or not v.size:
        raise ScgValueError(
            f"convolve needs two vectors that are not empty, got shapes {a.shape} and {v.shape} ({here()})"
        )
    if len(v) > len(a):
        a, v = v, a
    full, n, m = _convolve(a, v), len(a), len(v)
    start, length = {"full": (0, n + m - 1), "same": ((m - 1) // 2, n), "valid": (m - 1, n - m + 1)}[_mode(mode)]
    return full if length == n + m - 1 else full[start : start + length]


@implements(np.correlate)
def correlate(a, v, mode="valid"):
    """sum_n a_{n+k} v_n^*."""
    a, v = as_array(a), as_array(v)
    if len(v) > len(a):
        return np.conjugate(np.flip(correlate(v, a, mode)))
    return np.convolve(a, np.conjugate(np.flip(v)), mode)


@implements(np.interp)
def interp(x, xp, fp, left=None, right=None, period=None):
    """Linear interpolation, differentiable in all three arrays; at a knot the derivative in x is that of the piece on
    its right."""
    x, xp, fp = as_array(x), as_array(xp), as_array(fp)
    if xp.ndim != 1 or xp.shape != fp.shape or not xp.size:
        raise ScgValueError(
            f"interp needs vectors xp and fp of one length, got shapes {xp.shape} and {fp.shape} ({here()})"
        )
    if period is not None:
        if period == 0:
            raise ScgValueError(f"interp: the period must not be zero ({here()})")
        period, left, right = abs(period), None, None
        x, xp = x % period, xp % period
        order = np.argsort(xp)
        xp, fp = np.take_along_axis(xp, order, 0), np.take_along_axis(fp, order, 0)
        xp = np.concatenate([xp[-1:] - period, xp, xp[:1] + period])
        fp = np.concatenate([fp[-1:], fp, fp[:1]])
    value = interp_p(x, xp, fp)
    if settled(lambda xp: np.any(xp[1:] == xp[:-1]), xp):
        value = value + 0 * np.searchsorted(xp, x, side="right")  # between equal knots is a jump, which has to be seen
    if left is not None:
        value = np.where(x < xp[0], left, value)
    return value if right is None else np.where(x > xp[-1], right, value)


class _Interpolated(AxisMap):
    """Each element of operand 0 is looked up by itself in the whole of the others."""

    def lead(self, operands, batched, statics):
        return None if any(batched[1:]) else (operands, statics)

    def align(self, shapes, out, statics):
        return labelled("out", out), (labelled("out", shapes[0]), labelled("xp", shapes[1]), labelled("fp", shapes[2]))


def _piece(x, xp, fp):
    """Of a vector x: the knots on both sides, their distance, the slope between, and the part u of the way, from 0 to
    1; beyond the ends u is 0 or 1, and the slope 0."""
    n = xp.shape[0]
    low = np.minimum(np.maximum(np.searchsorted(xp, x, side="right") - 1, 0), max(n - 2, 0))
    high = np.minimum(low + 1, n - 1)
    x0, x1, f0, f1 = [np.take_along_axis(v, i, 0) for v in (xp, fp) for i in (low, high)]
    width = np.where(x1 == x0, 1, x1 - x0)
    below, above = x < xp[0], x > xp[-1]
    slope = np.where(below | above, 0, (f1 - f0) / width)
    return low, high, width, slope, np.where(below, 0, np.where(above, 1, (x - x0) / width)), x0, f0


def _interpolated(x, xp, fp):
    flat = np.ravel(x)
    _, _, _, slope, _, x0, f0 = _piece(flat, xp, fp)
    value = np.where(flat < xp[0], fp[0], np.where(flat > xp[-1], fp[-1], f0 + slope * (flat - x0)))
    return np.reshape(value, x.shape)


def _at_knots(of_piece):
    """The VJP of the knots: g times what ``of_piece(u, slope)`` gives for the lower and for the upper one."""

    def vjp(g, out, x, xp, fp):
        low, high, _, slope, u, _, _ = _piece(np.ravel(x), xp, fp)
        parts = zip((low, high), of_piece(u, slope), strict=True)
        return sum([put_along_p(np.ravel(g) * part, i, axis=0, size=xp.shape[0]) for i, part in parts])

    return vjp


interp_p = primitive(
    _interpolated,
    _Interpolated(),
    lambda g, out, x, xp, fp: g * np.reshape(_piece(np.ravel(x), xp, fp)[3], x.shape),
    _at_knots(lambda u, slope: (slope * (u - 1), -slope * u)),
    _at_knots(lambda u, slope: (1 - u, u)),
    name="interp",
    linear=[(2,)],
    kinks=lambda x, xp, fp: np.sum(x[..., None] >= xp[..., None, :], axis=-1),
)
"""f_k + s_k (x - x_k), s_k the slope of the piece: continuous where x meets a knot, with a slope that is not."""


@implements(np.unwrap)
def unwrap(p, discont=None, axis=-1, *, period=2 * math.pi):
    """p plus the multiples of the period that bring jumps of at least ``discont`` (default period / 2) to the smallest
    ones."""
    axis = normalize_axis_index(axis, p.ndim)
    step = np.diff(p, axis=axis)
    turns = step / period
    jump = -period * np.sign(turns) * np.ceil(np.abs(turns) - 0.5)  # of half a turn: none
    if discont is not None and discont > period / 2:
        jump = np.where(np.abs(step) < discont, 0, jump)
    return np.concatenate(
        [p[at(axis, slice(0, 1))], p[at(axis, slice(1, None))] + np.cumsum(jump, axis=axis)], axis=axis
    )
