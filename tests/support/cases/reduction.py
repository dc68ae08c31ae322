"""Cases of ``scg.primitives.reduction`` and ``scg.primitives.nanreduction``."""

import numpy as np

from tests.support.cases import Case, Domain
from tests.support.cases.layout import BOX, EMPTY, MATRIX, SCALAR, VECTOR, _one

ANY, POSITIVE = Domain(), Domain(0.5, 2.0, (3, 4))
MASK = np.array([[True, False, True, True], [False, False, True, False], [True, True, False, False]])
WEIGHTS = np.array([0.5, 2.0, 1.0, 0.25])
MATCHED = Domain(shape=(2, 3, 4), make=lambda x: np.where(x < -1, np.nan, x))
"""About a quarter of it is NaN."""


def _axes(name, fn, **keywords):
    """The forms of ``axis`` and ``keepdims``."""
    return [
        *_one(name, lambda x: fn(x, **keywords), lambda x: fn(x, keepdims=True, **keywords), domain=BOX),
        *_one(
            name, lambda x: fn(x, axis=1, **keywords), lambda x: fn(x, axis=-1, keepdims=True, **keywords), domain=BOX
        ),
        *_one(
            name,
            lambda x: fn(x, axis=(-1, 0), **keywords),
            lambda x: fn(x, axis=(2, 1), keepdims=True, **keywords),
            domain=BOX,
        ),
        *_one(name, lambda x: fn(x, axis=(), **keywords), lambda x: fn(x, axis=np.int64(0), **keywords), domain=MATRIX),
    ]


def _masked(name, fn, **keywords):
    """The forms of ``where``."""
    return [
        *_one(
            name,
            lambda x: fn(x, where=MASK, **keywords),
            lambda x: fn(x, axis=0, where=MASK, keepdims=True, **keywords),
        ),
        *_one(name, lambda x: fn(x, axis=-1, where=MASK[:, :1] | MASK[:, 2:3], **keywords)),
    ]


def _nan(name, *calls):
    return _one(name, *calls, domain=MATCHED)


def _holes(x):
    return np.where(MASK & np.roll(MASK, 1, 1), np.nan, x)


def _with_zeros(*places):
    """1, 2, ..., 8 as a matrix with exact zeros at flat places, each with slope one in what is drawn."""
    offsets = np.where(np.isin(np.arange(8), places), 0.0, np.arange(1.0, 9.0)).reshape(2, 4)
    return Domain(0.0, 0.0, (2, 4), lambda x: x + offsets.astype(x.dtype))


CASES = [
    *[
        Case(f"np.{fn.__name__}", fn, (ANY,))
        for fn in (np.sum, np.mean, np.prod, np.cumprod, np.var, np.std, np.max, np.min)
    ],
    *[
        Case(f"np.{f.__name__}.reduce", lambda x, f=f: f.reduce(x, axis=None), (ANY,))
        for f in (np.multiply, np.logaddexp, np.hypot)
    ],
    *_axes("np.sum", np.sum),
    *_masked("np.sum", np.sum),
    *_one(
        "np.sum",
        lambda x: np.sum(x, 0, None, None, True),
        lambda x: np.sum(x, axis=1, initial=2.5),
        lambda x: np.sum(x, dtype=np.float64),
    ),
    *_one(
        "np.sum",
        lambda x: x.sum(),
        lambda x: x.sum(axis=0, keepdims=True),
        lambda x: np.sum(x, where=MASK, initial=1.0),
        lambda x: np.sum(x, initial=None),
    ),
    *_one("np.sum", lambda x: np.sum(x, axis=0), lambda x: np.sum(x, axis=1), domain=EMPTY),
    *_one("np.sum", lambda x: np.sum(x, axis=-1), lambda x: np.sum(x, axis=()), domain=SCALAR),
    *_axes("np.mean", np.mean),
    *_masked("np.mean", np.mean),
    *_one(
        "np.mean",
        np.mean,
        lambda x: x.mean(axis=0),
        lambda x: np.mean(x, dtype=np.float64),
        lambda x: np.mean(x, 0, None, None, True),
    ),
    *_one("np.mean", np.mean, domain=SCALAR),
    *_axes("np.prod", np.prod),
    *_masked("np.prod", np.prod),
    *_one(
        "np.prod",
        lambda x: np.prod(x, axis=1, initial=2.5),
        lambda x: x.prod(axis=0),
        lambda x: np.prod(x, where=MASK, initial=-1.0),
    ),
    *[
        Case("np.prod", fn, (_with_zeros(*zeros),))
        for zeros in ((1,), (0, 3), (1, 5), (4, 6))
        for fn in (np.prod, lambda x: np.prod(x, axis=1))
    ],
    *_one("np.prod", lambda x: np.prod(x, axis=(1, 0)), domain=_with_zeros(2, 6)),
    *_one("np.prod", np.prod, lambda x: np.prod(x, axis=0), lambda x: np.prod(x, axis=1), domain=EMPTY),
    *_one("np.prod", np.prod, lambda x: np.prod(x, axis=0), domain=SCALAR),
    *_axes("np.var", np.var),
    *_axes("np.var", np.var, ddof=1)[:4],
    *_masked("np.var", np.var),
    *_one(
        "np.var",
        lambda x: np.var(x, axis=1, correction=1.5),
        lambda x: np.var(x, axis=1, mean=0.5),
        lambda x: x.var(axis=0),
        lambda x: np.var(x, mean=np.mean(x)),
    ),
    *_one(
        "np.var",
        lambda x: np.var(x + 1j * x * x),
        lambda x: np.var(x, dtype=np.float64),
        lambda x: np.var(x, axis=0, where=MASK, ddof=0.5),
    ),
    *_axes("np.std", np.std)[:6],
    *_one(
        "np.std",
        lambda x: np.std(x, axis=1, ddof=1),
        lambda x: np.std(x, axis=1, mean=0.5),
        lambda x: x.std(axis=1),
        lambda x: np.std(x, axis=1, correction=1),
    ),
    *_one("np.std", lambda x: np.std(x, axis=0, where=MASK, mean=0.25, keepdims=True)),
    *[case for name, fn in (("np.max", np.max), ("np.min", np.min)) for case in _axes(name, fn)],
    # at a tie the shares make one whole
    *_one(
        "np.max",
        lambda x: np.max(np.stack([x, x]), axis=0),
        lambda x: np.max(np.concatenate([x, x, x[::-1]], axis=1), axis=1),
    ),
    *_one(
        "np.min",
        lambda x: np.min(np.stack([x, x]), axis=0),
        lambda x: np.nanmin(np.concatenate([x, x, x[::-1]], axis=1), axis=1),
    ),
    *_one("np.amax", np.amax, lambda x: np.amax(x, axis=1, keepdims=True)),
    *_one("np.amin", np.amin, lambda x: np.amin(x, axis=1, keepdims=True)),
    *_masked("np.max", np.max, initial=-3.0),
    *_masked("np.min", np.min, initial=3.0),
    *_one(
        "np.max", lambda x: np.max(x, axis=0, initial=0.5), lambda x: x.max(axis=-1), lambda x: np.max(x, 1, None, True)
    ),
    *_one(
        "np.min", lambda x: np.min(x, axis=0, initial=0.5), lambda x: x.min(axis=-1), lambda x: np.min(x, 1, None, True)
    ),
    *_one("np.max", lambda x: np.max(x, axis=0, initial=1.0), lambda x: np.max(x, axis=1), domain=EMPTY),
    *_one("np.max", np.max, lambda x: np.max(x, axis=0), domain=SCALAR),
    *_axes("np.ptp", np.ptp),
    *_one(
        "np.average",
        np.average,
        lambda x: np.average(x, axis=-1, weights=WEIGHTS),
        lambda x: np.average(x, axis=(0, 1), keepdims=True),
    ),
    *_one(
        "np.average",
        lambda x: np.average(x, axis=0, returned=True)[0],
        lambda x: np.average(x, axis=1, weights=WEIGHTS, returned=True)[0],
    ),
    Case("np.average", lambda x, w: np.average(x, weights=w), (MATRIX, POSITIVE)),
    Case("np.average", lambda x, w: np.average(x, axis=0, weights=w, returned=True, keepdims=True), (MATRIX, POSITIVE)),
    Case("np.average", lambda x, w: np.average(x, axis=(2, 0), weights=w), (BOX, Domain(0.5, 2, (4, 2)))),
    Case("np.average", lambda w: np.average(np.arange(4.0), weights=w), (Domain(0.5, 2, (4,)),)),
    *[
        case
        for name, fn in (("np.cumsum", np.cumsum), ("np.cumprod", np.cumprod))
        for case in (
            *_one(
                name,
                fn,
                lambda x, fn=fn: fn(x, axis=0),
                lambda x, fn=fn: fn(x, axis=-1),
                lambda x, fn=fn: fn(x, axis=1, dtype=np.float64),
            ),
            *_one(name, fn, lambda x, fn=fn: fn(x, axis=0), domain=SCALAR),
            *_one(name, fn, lambda x, fn=fn: fn(x, axis=0), lambda x, fn=fn: fn(x, axis=1), domain=EMPTY),
        )
    ],
    *_one("np.cumsum", lambda x: x.cumsum(1)),
    *[
        Case("np.cumprod", lambda x: x.cumprod(axis=1), (_with_zeros(*zeros),))
        for zeros in ((0,), (1, 7), (1, 3), (4, 5))
    ],
    *_one("np.cumprod", lambda x: np.real(np.cumprod(x + 1j, axis=0)).astype(x.dtype)),
    *[
        case
        for name, fn in (
            ("np.cumulative_sum", getattr(np, "cumulative_sum", None)),
            ("np.cumulative_prod", getattr(np, "cumulative_prod", None)),
        )
        if fn is not None
        for case in (
            *_one(name, lambda x, fn=fn: fn(x, axis=0), lambda x, fn=fn: fn(x, axis=-1, include_initial=True)),
            *_one(name, fn, lambda x, fn=fn: fn(x, include_initial=True), domain=VECTOR),
        )
    ],
    *[
        case
        for fn in (np.nansum, np.nanprod, np.nanmean)
        for case in _nan(f"np.{fn.__name__}", fn, lambda x, fn=fn: fn(x, axis=(0, 2), keepdims=True))
    ],
    *[
        case
        for fn in (np.nanmax, np.nanmin)
        for case in _nan(f"np.{fn.__name__}", fn, lambda x, fn=fn: fn(x, axis=(0, 2), keepdims=True))
    ],
    *[
        case
        for fn in (np.nanvar, np.nanstd)
        for case in _nan(
            f"np.{fn.__name__}", fn, lambda x, fn=fn: fn(x, axis=(0, 2), ddof=1), lambda x, fn=fn: fn(x, correction=0.5)
        )
    ],
    *_nan("np.nancumsum", np.nancumsum, lambda x: np.nancumsum(x, axis=1)),
    *_nan("np.nancumprod", np.nancumprod, lambda x: np.nancumprod(x, axis=1)),
    *_one(
        "np.nansum",
        lambda x: np.nansum(_holes(x), axis=1, initial=2.0),
        lambda x: np.nansum(_holes(x), axis=0, where=MASK),
    ),
    *_one(
        "np.nanprod",
        lambda x: np.nanprod(_holes(x), axis=1, initial=2.0),
        lambda x: np.nanprod(_holes(x), axis=0, where=MASK),
    ),
    *_one(
        "np.nanmax",
        lambda x: np.nanmax(_holes(x), axis=1, initial=-0.5),
        lambda x: np.nanmax(_holes(x), axis=0, where=MASK, initial=-3.0),
    ),
    *_one(
        "np.nanmin",
        lambda x: np.nanmin(_holes(x), axis=1, initial=0.5),
        lambda x: np.nanmin(_holes(x), axis=0, where=MASK, initial=3.0),
    ),
    *_one("np.nanmean", lambda x: np.nanmean(_holes(x), axis=1), lambda x: np.nanmean(_holes(x), where=MASK)),
    *_one(
        "np.nanvar",
        lambda x: np.nanvar(_holes(x), axis=1),
        lambda x: np.nanvar(_holes(x), where=MASK),
        lambda x: np.nanvar(_holes(x), mean=0.5),
    ),
    *_one(
        "np.nanstd",
        lambda x: np.nanstd(_holes(x), axis=1, mean=0.5, keepdims=True),
        lambda x: np.nanstd(_holes(x), where=MASK),
    ),
    *[
        case
        for ufunc in (np.add, np.multiply, np.logaddexp, np.logaddexp2, np.hypot)
        for case in _one(
            f"np.{ufunc.__name__}.reduce",
            lambda x, f=ufunc: f.reduce(x),
            lambda x, f=ufunc: f.reduce(x, axis=-1, keepdims=True),
            lambda x, f=ufunc: f.reduce(x, axis=1, where=MASK, initial=0.5),
        )
    ],
    *[
        case
        for ufunc in (np.maximum, np.minimum, np.fmax, np.fmin)
        for case in _one(
            f"np.{ufunc.__name__}.reduce",
            lambda x, f=ufunc: f.reduce(x),
            lambda x, f=ufunc: f.reduce(x, axis=(0, 1), keepdims=True),
            lambda x, f=ufunc: f.reduce(x, axis=1, where=MASK, initial=0.5),
        )
    ],
    *_one(
        "np.add.reduce",
        lambda x: np.add.reduce(x, (0, 2), keepdims=True),
        lambda x: np.add.reduce(x, axis=None, dtype=np.float64),
        domain=BOX,
    ),
    *_one("np.logaddexp.reduce", lambda x: np.logaddexp.reduce(x, axis=0, initial=0.5), domain=EMPTY),
    *[
        case
        for ufunc in (np.add, np.multiply, np.maximum, np.minimum)
        for case in _one(
            f"np.{ufunc.__name__}.accumulate",
            lambda x, f=ufunc: f.accumulate(x),
            lambda x, f=ufunc: f.accumulate(x, axis=-1),
        )
    ],
    *[
        Case(f"np.{ufunc.__name__}.outer", lambda x, y, f=ufunc: f.outer(x, y), domains)
        for ufunc in (np.add, np.multiply, np.maximum, np.logaddexp, np.arctan2)
        for domains in ((ANY, VECTOR), (SCALAR, MATRIX))
    ],
    *_one(
        "np.subtract.outer",
        lambda x: np.subtract.outer([1.0, 2.0], x),
        lambda x: np.subtract.outer(x, [[1, 2]]),
        lambda x: np.subtract.outer(x, x),
    ),
    *[
        Case(f"np.{fn.__name__}", call, (MATRIX,), 0)
        for fn in (np.all, np.any)
        for call in (
            lambda x, fn=fn: fn(x > 0),
            lambda x, fn=fn: fn(np.round(x), axis=1, keepdims=True),
            lambda x, fn=fn: fn(x > 0, axis=(0, 1)),
            lambda x, fn=fn: fn(x > 0, axis=0, where=MASK),
        )
    ],
    *[
        Case("np.count_nonzero", fn, (MATRIX,), 0)
        for fn in (lambda x: np.count_nonzero(x > 0), lambda x: np.count_nonzero(np.round(x), axis=1, keepdims=True))
    ],
    *[
        Case(f"np.{f.__name__}.reduce", lambda x, f=f: f.reduce(x > 0), (MATRIX,), 0)
        for f in (np.logical_and, np.logical_or, np.logical_xor)
    ],
    *[
        Case(f"np.{f.__name__}.reduce", lambda x, f=f: f.reduce(np.astype(np.floor(4 * x), int), axis=-1), (MATRIX,), 0)
        for f in (np.bitwise_and, np.bitwise_or, np.bitwise_xor, np.gcd, np.lcm)
    ],
]
