"""Polynomials by their coefficients, highest power first, and points between two ends.

Leading zeros are dropped, as NumPy does: whether there are any is an ``if`` on the coefficients, which the graph
records as a guard. All keep the precision of their operands, also where NumPy goes over from float32 to float64
(polyder, polyint, polyfit, vander, geomspace).
"""

import operator

import numpy as np
import numpy.polynomial.polynomial as power_series

from scg.core.ambient import settled
from scg.core.detaching import refuse
from scg.core.primitive import implements
from scg.errors import NotDifferentiable, here
from scg.primitives.layout import as_array


@implements(np.polyval)
def polyval(p, x):
    if isinstance(x, np.poly1d):
        raise NotDifferentiable(
            f"np.polyval of a Node takes no poly1d as x: use coefficients and np.polymul ({here()})"
        )
    y = np.zeros_like(as_array(x))
    for coefficient in as_array(p):
        y = y * x + coefficient
    return y


def _sum_of(combine, a1, a2):
    a1, a2 = np.atleast_1d(a1), np.atleast_1d(a2)
    n = max(a1.size, a2.size)
    return combine(*[np.pad(a, (n - a.size, 0)) if a.size < n else a for a in (a1, a2)])


@implements(np.polyadd)
def polyadd(a1, a2):
    return _sum_of(np.add, a1, a2)


@implements(np.polysub)
def polysub(a1, a2):
    return _sum_of(np.subtract, a1, a2)


@implements(np.polymul)
def polymul(a1, a2):
    return np.convolve(_without_leading_zeros(a1), _without_leading_zeros(a2))


def _without_leading_zeros(p):
    p = np.atleast_1d(p)
    while p.size > 1 and p[0] == 0:
        p = p[1:]
    return p


@implements(np.polydiv)
def polydiv(u, v):
    """(quotient, remainder) with u = quotient v + remainder, by long division."""
    u, v = np.atleast_1d(u) + 0.0, np.atleast_1d(v) + 0.0
    scale, quotient = 1.0 / v[0], []
    for k in range(u.size - v.size + 1):
        d = scale * u[k]
        quotient.append(d)
        u = u - np.pad(d * v, (k, u.size - k - v.size))
    while u.size > 1 and np.allclose(u[0], 0, rtol=1e-14):
        u = u[1:]
    return np.stack(quotient) if quotient else np.zeros(1, u.dtype), u


@implements(np.polyder)
def polyder(p, m=1):
    if operator.index(m) < 0:
        raise ValueError("Order of derivative must be positive (see polyint)")
    for _ in range(m):
        p = p[:-1] * np.arange(p.size - 1, 0, -1).astype(p.dtype)
    return p


@implements(np.polyint)
def polyint(p, m=1, k=None):
    if operator.index(m) < 0:
        raise ValueError("Order of integral must be positive (see polyder)")
    constants = np.zeros(m) if k is None else np.broadcast_to(np.atleast_1d(k), (m,))
    for i in range(m):
        p = np.concatenate([p / np.arange(p.size, 0, -1).astype(p.dtype), constants[i : i + 1].astype(p.dtype)])
    return p


@implements(np.polyfit)
def polyfit(x, y, deg, rcond=None, full=False, w=None, cov=False):
    """Least squares on the scaled Vandermonde matrix, through ``np.linalg.lstsq``; the coefficients only."""
    if full or cov:
        raise NotDifferentiable(
            f"np.polyfit of a Node gives coefficients only: use np.linalg.lstsq for full= and cov= ({here()})"
        )
    x, y = as_array(x) + 0.0, as_array(y) + 0.0
    left = np.vander(x, operator.index(deg) + 1)
    if w is not None:
        left, y = left * np.expand_dims(w, -1), y * (np.expand_dims(w, -1) if y.ndim == 2 else w)
    scale = np.sqrt(np.sum(left * left, axis=0))
    rcond = x.size * np.finfo(x.dtype).eps if rcond is None else rcond
    solution = np.linalg.lstsq(left / scale, y, rcond)[0]
    return np.transpose(np.transpose(solution) / scale)


@implements(np.poly)
def poly(seq_of_zeros):
    """Coefficients of prod_i (t - z_i)."""
    if seq_of_zeros.ndim > 1:
        raise NotDifferentiable(
            f"np.poly of a matrix: use np.poly(np.linalg.eigvalsh(matrix)) where it is symmetric ({here()})"
        )
    p = np.ones(1, seq_of_zeros.dtype)
    for zero in np.atleast_1d(seq_of_zeros):
        p = np.pad(p, (0, 1)) - np.pad(zero * p, (1, 0))
    return p


refuse("its roots may be complex and change their number; solve for the one that you need", np.roots)


@implements(np.vander)
def vander(x, N=None, increasing=False):
    if x.ndim != 1:
        raise ValueError("x must be a one-dimensional array or sequence.")
    n = x.size if N is None else operator.index(N)
    columns = [np.ones(x.shape, x.dtype), x]
    for _ in range(2, n):
        columns.append(columns[-1] * x)
    powers = np.stack(columns, axis=1)[:, :n]
    return powers if increasing else powers[:, ::-1]


def _ends(*ends):
    """Both in one inexact dtype, to which a Python number adds nothing."""
    kind = np.result_type(*[x if type(x) in (int, float) else as_array(x).dtype for x in ends], 0.0)
    return [as_array(x).astype(kind) for x in ends]


@implements(np.linspace)
def linspace(start, stop, num=50, endpoint=True, retstep=False, dtype=None, axis=0, *, device=None):
    num = operator.index(num)
    if num < 0:
        raise ValueError(f"Number of samples, {num}, must be non-negative.")
    start, stop = _ends(start, stop)
    pieces = num - 1 if endpoint else num
    kind = np.result_type(start.dtype, stop.dtype)
    steps = np.arange(num, dtype=kind).reshape(-1, *(1,) * max(start.ndim, stop.ndim))
    step = (stop - start) / pieces if pieces > 0 else np.nan * (stop - start)
    y = steps * step + start if pieces > 0 else steps * (stop - start) + start
    if endpoint and num > 1:
        # exact, whatever the rounding
        y = np.concatenate([y[:-1], np.expand_dims(np.broadcast_to(stop, y.shape[1:]), 0)])
    y = np.moveaxis(y, 0, axis)
    y = y if dtype is None else (np.floor(y) if np.dtype(dtype).kind in "iu" else y).astype(dtype)
    return (y, step) if retstep else y


@implements(np.logspace)
def logspace(start, stop, num=50, endpoint=True, base=10.0, dtype=None, axis=0):
    base = base if isinstance(base, (int, float)) else as_array(base)
    if np.ndim(base):
        start, stop, base = np.broadcast_arrays(start, stop, base)
        base = np.expand_dims(base, axis)
    y = np.power(base, linspace(start, stop, num, endpoint, axis=axis))
    return y if dtype is None else y.astype(dtype)


@implements(np.geomspace)
def geomspace(start, stop, num=50, endpoint=True, dtype=None, axis=0):
    """start (stop / start)^(i / (num - 1)) for real ends of one sign, both ends exact."""
    start, stop = _ends(start, stop)
    if any(settled(lambda x: np.any(x == 0), x) for x in (start, stop)):
        raise ValueError("Geometric sequence cannot include zero")
    sign = np.sign(start)
    y = sign * np.power(10.0, linspace(np.log10(start / sign), np.log10(stop / sign), num, endpoint))
    ends = [np.expand_dims(np.broadcast_to(x, y.shape[1:]), 0) for x in (start, stop)]
    if num > 0:
        y = np.concatenate([ends[0], y[1:-1], ends[1]] if endpoint and num > 1 else [ends[0], y[1:]])
    y = np.moveaxis(y, 0, axis)
    return y if dtype is None else y.astype(dtype)


def _horner(c, x, tensor):
    """Sum over i of c[i] x^i, where the other axes of c stand before those of x (``tensor``) or are those of x."""
    c = np.reshape(c, c.shape + (1,) * x.ndim) if tensor else c
    y = c[-1] + 0 * x
    for i in range(c.shape[0] - 2, -1, -1):
        y = y * x + c[i]
    return y


def polyvalnd(pts, c):
    first, *others = map(as_array, pts)
    if any(x.shape != first.shape for x in others):
        raise ValueError(f"ordinates are incompatible: their shapes are {[x.shape for x in (first, *others)]}")
    y = _horner(as_array(c), first, True)
    for x in others:
        y = _horner(y, x, False)
    return y


if hasattr(power_series, "polyvalnd"):  # from NumPy 2.5 on
    implements(power_series.polyvalnd)(polyvalnd)


@implements(power_series.polyval2d)
def polyval2d(x, y, c):
    return polyvalnd((x, y), c)


@implements(power_series.polygrid2d)
def polygrid2d(x, y, c):
    x, y, c = map(as_array, (x, y, c))
    return _horner(_horner(c, x, True), y, True)
