"""Cases of ``scg.primitives.polynomial``."""

import numpy as np
import numpy.polynomial.polynomial as power_series

from tests.support.cases import Case, Domain

SCALAR, SHORT, LONG, MATRIX = Domain(shape=()), Domain(shape=(2,)), Domain(shape=(4,)), Domain(shape=(2, 3))
AWAY = Domain(0.5, 2.0, (2,))
POINTS = Domain(shape=(5,), make=lambda x: x + 5 * np.arange(5, dtype=x.dtype))

CASES = [
    *[Case("np.polyval", np.polyval, (LONG, x)) for x in (SCALAR, MATRIX)],
    Case("np.polyval", lambda x: np.polyval(np.array([1.0, -2.0, 0.5], x.dtype), x), (MATRIX,)),
    *[
        Case(f"np.{fn.__name__}", fn, pair)
        for fn in (np.polyadd, np.polysub, np.polymul)
        for pair in ((LONG, SHORT), (SHORT, LONG), (SHORT, SHORT))
    ],
    Case("np.polyadd", np.polyadd, (LONG, SCALAR)),
    Case("np.polydiv", lambda u, v: np.polydiv(u, v), (LONG, AWAY)),
    Case("np.polydiv", lambda u, v: np.polydiv(u, v)[0], (LONG, Domain(0.5, 2.0, (1,)))),
    Case("np.polydiv", lambda u, v: np.polydiv(u, v)[1], (SHORT, Domain(0.5, 2.0, (3,)))),
    *[Case("np.polyder", lambda p, m=m: np.polyder(p, m).astype(p.dtype), (LONG,)) for m in (1, 2, 0)],
    *[
        Case("np.polyint", lambda p, m=m, k=k: np.polyint(p, m, k).astype(p.dtype), (LONG,))
        for m, k in ((1, None), (2, [1.0, 2.0]), (2, 3.0))
    ],
    Case("np.polyfit", lambda x, y: np.polyfit(x, y, 2).astype(x.dtype), (POINTS, Domain(shape=(5,)))),
    Case(
        "np.polyfit",
        lambda y, w: np.polyfit(np.arange(5.0).astype(y.dtype), y, 1, w=w).astype(y.dtype),
        (Domain(shape=(5, 2)), Domain(0.5, 2.0, (5,))),
    ),
    Case("np.poly", np.poly, (LONG,)),
    *[
        Case("np.vander", lambda x, n=n, up=up: np.vander(x, n, increasing=up).astype(x.dtype), (LONG,))
        for n, up in ((None, False), (3, True), (1, False), (0, False))
    ],
    *[
        Case(f"np.polynomial.polynomial.{fn.__name__}", fn, (SHORT, y, MATRIX))
        for fn, y in ((power_series.polyval2d, SHORT), (power_series.polygrid2d, LONG))
        if hasattr(fn, "_implementation")  # NumPy 2.0 does not dispatch them
    ],
    *[
        Case(
            "np.polynomial.polynomial.polyvalnd",
            lambda x, y, c: power_series.polyvalnd((x, y), c),
            (SHORT, SHORT, MATRIX),
        )
        for _ in range(hasattr(power_series, "polyvalnd"))  # from NumPy 2.5 on
    ],
    *[
        Case(
            "np.linspace",
            lambda a, b, n=n, end=end, axis=axis: np.linspace(a, b, n, endpoint=end, axis=axis),
            (SHORT, SHORT),
        )
        for n, end, axis in ((5, True, 0), (4, False, -1), (1, True, 0), (0, True, 1))
    ],
    Case("np.linspace", lambda a: np.linspace(a, np.ones((), a.dtype), 3, retstep=True), (SCALAR,)),
    Case("np.linspace", lambda a: np.linspace(a, 1, 3), (SHORT,)),
    Case("np.logspace", lambda a: np.logspace(a, 1.0, 3), (SCALAR,)),
    Case("np.geomspace", lambda a: np.geomspace(a, 4.0, 3).astype(a.dtype), (AWAY,)),
    *[
        Case("np.logspace", lambda a, b, base=base: np.logspace(a, b, 4, base=base), (SHORT, SCALAR))
        for base in (10.0, 2.0)
    ],
    Case("np.logspace", lambda a, b: np.logspace(a, a + 1, 3, base=b), (SHORT, AWAY)),
    *[
        Case("np.geomspace", lambda a, b, end=end: np.geomspace(a, b, 4, endpoint=end).astype(a.dtype), (AWAY, AWAY))
        for end in (True, False)
    ],
    Case("np.geomspace", lambda a: np.geomspace(-a, -3 * a, 4, axis=-1).astype(a.dtype), (AWAY,)),
]
