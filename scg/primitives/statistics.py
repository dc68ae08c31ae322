"""Order statistics, covariance and correlation.

A quantile is a weighted sum of two sorted elements: s_i + t (s_{i+1} - s_i), i the integer and t the fractional part of
a position that the method computes from the number of elements and from q. It is differentiable in the data and, where
the method interpolates, in q.
"""

import math

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from scg.core.ambient import settled
from scg.core.node import Node
from scg.core.primitive import implements
from scg.errors import ScgValueError, here
from scg.primitives.layout import as_array
from scg.primitives.reduction import aligned_weights, no_buffer


def _sampled_last(a, axis):
    """The array with the axes ``axis`` made into one, its last; and the shape that a reduction leaves when it keeps its
    axes."""
    axes = tuple(range(a.ndim)) if axis is None else normalize_axis_tuple(axis, a.ndim)
    rest = [i for i in range(a.ndim) if i not in axes]
    left = [a.shape[i] for i in rest]
    shape = tuple([1 if i in axes else n for i, n in enumerate(a.shape)])
    return np.reshape(np.transpose(a, (*rest, *axes)), (*left, math.prod([a.shape[i] for i in axes]))), shape


def _median(a, axis, keepdims, without_nan):
    """The mean of the two middle elements (of the one, where their number is odd)."""
    x, shape = _sampled_last(as_array(a), axis)
    s, n = np.sort(x, axis=-1), x.shape[-1]
    if n == 0:
        result = np.mean(s, axis=-1)
    elif without_nan:
        n = np.sum(~np.isnan(s), axis=-1, keepdims=True)
        result = np.mean(np.take_along_axis(s, np.concatenate([(n - 1) // 2, n // 2], axis=-1), axis=-1), axis=-1)
    else:
        result = _nan_where_last_is(s, np.mean(s[..., (n - 1) // 2 : n // 2 + 1], axis=-1, keepdims=True))[..., 0]
    return np.reshape(result, shape) if keepdims else result


def _nan_where_last_is(s, result):
    last = s[..., -1:]  # itself, so that its derivative is that of the element which is NaN
    return np.where(np.isnan(last), last, result) if s.dtype.kind in "fc" else result


@implements(np.median)
def median(a, axis=None, out=None, overwrite_input=False, keepdims=False):
    no_buffer(out)
    return _median(a, axis, keepdims, without_nan=False)


@implements(np.nanmedian)
def nanmedian(a, axis=None, out=None, overwrite_input=False, keepdims=False):
    no_buffer(out)
    return _median(a, axis, keepdims, without_nan=True)


# (alpha, beta) of Hyndman and Fan (1996): the position is q n + alpha + q (1 - alpha - beta) - 1
_CONTINUOUS = {
    "interpolated_inverted_cdf": (0, 1),
    "hazen": (0.5, 0.5),
    "weibull": (0, 0),
    "linear": (1, 1),
    "median_unbiased": (1 / 3, 1 / 3),
    "normal_unbiased": (3 / 8, 3 / 8),
}
_STEPS = {
    "lower": lambda n, q: np.floor((n - 1) * q),
    "higher": lambda n, q: np.ceil((n - 1) * q),
    "nearest": lambda n, q: np.rint((n - 1) * q),
    "inverted_cdf": lambda n, q: np.ceil(n * q - 1),
    "closest_observation": lambda n, q: _odd_at_ties(n * q - 1.5),
}
_HALVES = {
    "midpoint": lambda n, q: (np.floor((n - 1) * q), np.ceil((n - 1) * q)),
    "averaged_inverted_cdf": lambda n, q: (np.ceil(n * q - 1), np.floor(n * q)),
}


def _odd_at_ties(h):
    below = np.floor(h)
    return below + np.where((h == below) & (below % 2 == 1), 0, 1)


def _quantile(a, q, axis, method, keepdims, weights, without_nan):
    a, strong = as_array(a), type(q) is Node
    q = q if strong else np.asarray(q, a.dtype if isinstance(q, (int, float)) and a.dtype.kind == "f" else None)
    shape_of_q = q.shape
    if len(shape_of_q) > 2 - without_nan:
        raise ScgValueError(
            f"q must be a scalar or have one axis{'' if without_nan else ' or two'}, got shape {shape_of_q} ({here()})"
        )
    if not settled(lambda q: np.min(q, initial=1) >= 0 and np.max(q, initial=0) <= 1, q):
        raise ScgValueError(
            f"quantiles must lie in [0, 1] (percentiles in [0, 100]), got {q.raw if strong else q} ({here()})"
        )
    if without_nan and a.size == 0:
        return np.mean(a, axis=axis, keepdims=keepdims)
    q = np.ravel(q)
    x, shape = _sampled_last(a, axis)
    if weights is not None:
        if method != "inverted_cdf":
            raise ScgValueError(f"quantiles with weights need method 'inverted_cdf', got {method!r} ({here()})")
        weights = np.broadcast_to(aligned_weights(as_array(weights), a, axis), a.shape)
        s, result = _weighted(x, q, _sampled_last(weights, axis)[0])
    else:
        s = np.sort(x, axis=-1)
        n = np.sum(~np.isnan(s), axis=-1, keepdims=True, dtype=q.dtype) if without_nan else x.shape[-1]
        result = _at_positions(s, n, q, method, x.dtype if x.dtype.kind == "f" and not strong else None)
    result = np.moveaxis(result if without_nan else _nan_where_last_is(s, result), -1, 0)
    return np.reshape(result, shape_of_q + (shape if keepdims else x.shape[:-1]))


def _weighted(x, q, weights):
    """The sorted elements, and the first of them at which the share of the weight so far reaches q and is not zero. A
    NaN weighs nothing."""
    order = np.argsort(x, axis=-1, stable=True)
    s = np.take_along_axis(x, order, axis=-1)
    weight = np.cumsum(np.where(np.isnan(s), 0, np.take_along_axis(weights, order, axis=-1)), axis=-1, dtype=float)
    share = np.expand_dims(weight / weight[..., -1:], -2)
    n = x.shape[-1]
    return s, _taken(s, np.sum((share < q[:, None]) | (share == 0), axis=-1), n)


def _at_positions(s, n, q, method, dtype):
    if method in _CONTINUOUS:
        alpha, beta = _CONTINUOUS[method]
        h = (n - 1) * q if method == "linear" else n * q + (alpha + q * (1 - alpha - beta)) - 1
        below = np.floor(h)
        fraction = h - below
        low, high = _taken(s, below, n), _taken(s, below + 1, n)
        return low + (high - low) * (fraction if dtype is None else fraction.astype(dtype))
    if method in _STEPS:
        return _taken(s, _STEPS[method](n, q), n)
    if method in _HALVES:
        low, high = [_taken(s, position, n) for position in _HALVES[method](n, q)]
        return low + (high - low) * 0.5
    raise ScgValueError(
        f"{method!r} is not a method; use one of {', '.join((*_CONTINUOUS, *_STEPS, *_HALVES))} ({here()})"
    )


def _taken(s, positions, n):
    """Elements at positions that are clipped to the first n; the last of all, a NaN, where n = 0."""
    positions = np.minimum(np.maximum(positions, 0), n - 1).astype(np.intp)
    return np.take_along_axis(s, np.reshape(positions, (1,) * (s.ndim - positions.ndim) + positions.shape), axis=-1)


@implements(np.quantile)
def quantile(a, q, axis=None, out=None, overwrite_input=False, method="linear", keepdims=False, *, weights=None):
    no_buffer(out)
    return _quantile(a, q, axis, method, keepdims, weights, without_nan=False)


@implements(np.nanquantile)
def nanquantile(a, q, axis=None, out=None, overwrite_input=False, method="linear", keepdims=False, *, weights=None):
    no_buffer(out)
    return _quantile(a, q, axis, method, keepdims, weights, without_nan=True)


@implements(np.percentile)
def percentile(a, q, axis=None, out=None, overwrite_input=False, method="linear", keepdims=False, *, weights=None):
    return quantile(a, _hundredths(q), axis, out, overwrite_input, method, keepdims, weights=weights)


@implements(np.nanpercentile)
def nanpercentile(a, q, axis=None, out=None, overwrite_input=False, method="linear", keepdims=False, *, weights=None):
    return nanquantile(a, _hundredths(q), axis, out, overwrite_input, method, keepdims, weights=weights)


def _hundredths(q):
    return q / 100 if isinstance(q, (int, float, Node)) else np.asarray(q) / 100


@implements(np.cov)
def cov(m, y=None, rowvar=True, bias=False, ddof=None, fweights=None, aweights=None, *, dtype=None):
    """C_ij = sum_k w_k (x_ik - mean_i)(x_jk - mean_j)^* / (sum w - ddof sum w a / sum w), w = f a; in the precision of
    the data."""
    x = _variables(m, rowvar, dtype, np.ndim(m) != 1)
    if y is not None:
        y = _variables(y, rowvar, dtype, np.ndim(y) == 2 and np.shape(y)[0] != 1)
        x = np.concatenate([x, y], axis=0)
    if ddof is not None and ddof != int(ddof):
        raise ScgValueError(f"ddof must be an integer, got {ddof} ({here()})")
    ddof = (0 if bias else 1) if ddof is None else int(ddof)
    f, a = [None if v is None else _sample_weights(v, x.shape[1]) for v in (fweights, aweights)]
    w = f if a is None else a if f is None else f * a
    if w is None:
        total = x.shape[1] - ddof
    else:
        total = np.sum(w)
        total = total - ddof * (1 if a is None else np.sum(w * a) / total)
    x = x - np.average(x, axis=1, weights=w, keepdims=True)
    weighted = x if w is None else x * w.astype(x.real.dtype)
    product = np.matmul(x, np.conjugate(np.transpose(weighted)))
    return np.squeeze(product / np.maximum(as_array(total), 0).astype(product.real.dtype))


def _variables(m, rowvar, dtype, transposable):
    """Observations as a matrix of floating-point numbers, a row for each variable."""
    m = as_array(m)
    if m.ndim > 2:
        raise ScgValueError(f"observations have one axis or two, got shape {m.shape} ({here()})")
    if dtype is not None or m.dtype.kind not in "fc":
        m = m.astype(dtype or float)
    m = np.atleast_2d(m)
    return m if rowvar or not transposable else np.transpose(m)


def _sample_weights(weights, n):
    weights = as_array(weights).astype(float)
    if weights.shape != (n,):
        raise ScgValueError(f"weights need one axis of length {n}, got shape {weights.shape} ({here()})")
    if settled(lambda w: np.any(w < 0), weights):
        raise ScgValueError(f"weights cannot be negative ({here()})")
    return weights


@implements(np.corrcoef)
def corrcoef(x, y=None, rowvar=True, *, dtype=None):
    """C_ij / sqrt(C_ii C_jj), held in [-1, 1]."""
    c = np.cov(x, y, rowvar, dtype=dtype)
    if c.ndim == 0:
        return c / c
    deviation = np.sqrt(np.real(np.diagonal(c)))
    r = c / deviation[:, None] / deviation
    if r.dtype.kind == "c":
        return np.clip(np.real(r), -1, 1) + 1j * np.clip(np.imag(r), -1, 1)
    return np.clip(r, -1, 1)
