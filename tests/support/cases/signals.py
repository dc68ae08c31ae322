"""Cases of ``scg.primitives.signals``."""

import numpy as np

from tests.support.cases import Case, Domain
from tests.support.cases.layout import BOX, EMPTY, MATRIX, SCALAR, VECTOR, _one

LINE, LONG = Domain(shape=(3,)), Domain(shape=(6,))
STEP = Domain(0.5, 1.5, ())


def _rising(*shape):
    return Domain(0.3, 1.2, shape, lambda x: np.cumsum(x, axis=-1))


CASES = [
    *_one(
        "np.diff",
        np.diff,
        lambda x: np.diff(x, 2, 0),
        lambda x: np.diff(x, n=0),
        lambda x: np.diff(x, n=3, axis=1),
        lambda x: np.diff(x, n=5),
    ),
    *_one(
        "np.diff",
        lambda x: np.diff(x, prepend=0.0, append=x),
        lambda x: np.diff(x, axis=0, append=[[1.0, 2.0, 3.0, 4.0]]),
    ),
    Case("np.diff", lambda x, y: np.diff(x, prepend=y), (MATRIX, SCALAR)),
    Case("np.diff", lambda x: np.diff(x > 0), (MATRIX,), 0),
    *_one("np.diff", np.diff, domain=EMPTY),
    *_one("np.ediff1d", np.ediff1d, lambda x: np.ediff1d(x, to_begin=1.0, to_end=[2.0, 3.0])),
    Case("np.ediff1d", lambda x, y: np.ediff1d(x, y, y[:1]), (MATRIX, LINE)),
    *_one(
        "np.trapezoid",
        np.trapezoid,
        lambda x: np.trapezoid(x, dx=0.25, axis=0),
        lambda x: np.trapezoid(x, [0.0, 1.0, 3.0], axis=1),
        domain=BOX,
    ),
    Case("np.trapezoid", lambda y, x: np.trapezoid(y, x, axis=1), (MATRIX, VECTOR)),
    Case("np.trapezoid", lambda y, x: np.trapezoid(y, x, axis=0), (MATRIX, MATRIX)),
    *_one(
        "np.gradient",
        np.gradient,
        lambda x: np.gradient(x, 0.5),
        lambda x: np.gradient(x, axis=-1, edge_order=2),
        lambda x: np.gradient(x, 0.5, [0.0, 1.0, 3.0, 4.0]),
    ),
    *_one(
        "np.gradient",
        lambda x: np.gradient(x, 2, axis=(1, 0)),
        lambda x: np.gradient(x, [1, 2, 4, 5], axis=1, edge_order=2),
    ),
    *[
        Case("np.gradient", lambda f, x, e=e: np.gradient(f, x, axis=1, edge_order=e), (MATRIX, _rising(4)))
        for e in (1, 2)
    ],
    *[Case("np.gradient", lambda f, h, e=e: np.gradient(f, h, axis=1, edge_order=e), (BOX, STEP)) for e in (1, 2)],
    *[
        Case(f"np.{fn.__name__}", lambda a, v, fn=fn, mode=mode: fn(a, v, mode), pair)
        for fn in (np.convolve, np.correlate)
        for mode in ("full", "same", "valid")
        for pair in ((VECTOR, LINE), (LINE, VECTOR), (LONG, VECTOR), (VECTOR, VECTOR))
    ],
    *_one(
        "np.convolve",
        lambda x: np.convolve(x, [1.0, 2.0]),
        lambda x: np.convolve([1.0, 2.0], x, "same"),
        lambda x: np.convolve(x, 2.0),
        domain=VECTOR,
    ),
    *_one(
        "np.correlate",
        lambda x: np.real(np.correlate(x + 1j, 1j * x * x + 2, "full")),
        lambda x: np.correlate(x, [1.0, 2.0]),
        domain=VECTOR,
    ),
    *[
        Case(
            "np.interp",
            lambda x, xp, fp, kw=kw: np.interp(x, xp, fp, **kw),
            (Domain(-0.5, 6.0, (2, 4)), _rising(5), Domain(shape=(5,))),
        )
        for kw in ({}, {"left": -1.0, "right": 2.0}, {"period": 2.5})
    ],
    *_one(
        "np.interp",
        lambda x: np.interp(x, [-1.0, 0.0, 1.5], [2.0, 1.0, 5.0]),
        lambda x: np.interp(x, [0.0], [2.0], left=x[0, 0]),
    ),
    *_one(
        "np.interp",
        lambda x: np.interp([-1.5, 0.3, 7.0], [-1.0, 0.0, 1.0, 2.0], x),
        lambda x: np.interp(0.4, [-1.0, 0.0, 1.0, 2.0], x),
        domain=VECTOR,
    ),
    *_one(
        "np.unwrap",
        np.unwrap,
        lambda x: np.unwrap(x, axis=0),
        lambda x: np.unwrap(x, 4.0),
        lambda x: np.unwrap(x, axis=0, period=1.5),
        domain=Domain(-9.0, 9.0, (3, 4)),
    ),
]
