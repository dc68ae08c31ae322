"""Reductions that leave out NaN: what is left out takes no cotangent."""

import numpy as np

from scg.core.primitive import implements
from scg.primitives import cumulative, reduction
from scg.primitives.reduction import fold, no_buffer


def _without_nan(a, instead):
    return a if a.dtype.kind not in "fc" else np.where(np.isnan(a), instead, a)


def _present(a, where):
    present = ~np.isnan(a)
    return present if where is True else present & where


def _or_nan(x, bad):
    return np.where(bad, np.nan, x)


@implements(np.nansum)
def nansum(a, axis=None, dtype=None, out=None, keepdims=False, initial=None, where=True):
    return reduction.sum(_without_nan(a, 0), axis, dtype, out, keepdims, initial, where)


@implements(np.nanprod)
def nanprod(a, axis=None, dtype=None, out=None, keepdims=False, initial=None, where=True):
    return reduction.prod(_without_nan(a, 1), axis, dtype, out, keepdims, initial, where)


@implements(np.nanmax)
def nanmax(a, axis=None, out=None, keepdims=False, initial=None, where=True):
    return fold(reduction.fmax_p, np.fmax, None, a, axis, None, out, keepdims, initial, where)


@implements(np.nanmin)
def nanmin(a, axis=None, out=None, keepdims=False, initial=None, where=True):
    return fold(reduction.fmin_p, np.fmin, None, a, axis, None, out, keepdims, initial, where)


@implements(np.nancumsum)
def nancumsum(a, axis=None, dtype=None, out=None):
    return cumulative.cumsum(_without_nan(a, 0), axis, dtype, out)


@implements(np.nancumprod)
def nancumprod(a, axis=None, dtype=None, out=None):
    return cumulative.cumprod(_without_nan(a, 1), axis, dtype, out)


@implements(np.nanmean)
def nanmean(a, axis=None, dtype=None, out=None, keepdims=False, *, where=True):
    no_buffer(out)
    return np.mean(_without_nan(a, 0), axis=axis, dtype=dtype, keepdims=keepdims, where=_present(a, where))


@implements(np.nanvar)
def nanvar(a, axis=None, dtype=None, out=None, ddof=0, keepdims=False, *, where=True, mean=None, correction=None):
    """np.var of what is present; NaN where no more than ddof elements are."""
    no_buffer(out)
    kind = {} if mean is None else {"mean": mean}
    present, ddof = _present(a, where), reduction.ddof_of(ddof, correction)
    result = np.var(_without_nan(a, 0), axis=axis, dtype=dtype, ddof=ddof, keepdims=keepdims, where=present, **kind)
    return _or_nan(result, np.sum(present, axis=axis, keepdims=keepdims) <= ddof)


@implements(np.nanstd)
def nanstd(a, axis=None, dtype=None, out=None, ddof=0, keepdims=False, *, where=True, mean=None, correction=None):
    return np.sqrt(nanvar(a, axis, dtype, out, ddof, keepdims, where=where, mean=mean, correction=correction))
