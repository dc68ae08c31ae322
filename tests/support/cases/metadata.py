"""Cases of ``scg.primitives.metadata``."""

import numpy as np

from tests.support.cases import Case, Domain

SCALAR, VECTOR, MATRIX, ANY = Domain(shape=()), Domain(shape=(4,)), Domain(shape=(3, 4)), Domain()


def _constant(name, *calls, domain=MATRIX):
    return [Case(name, call, (domain,), order=0) for call in calls]


def _complex(x):
    return x * (1 + 0.5j) + 1j


def _row(x):
    return x * np.flip(x)


CASES = [
    Case("np.real", np.real, (ANY,)),
    Case("np.real", lambda x: _complex(x).real, (MATRIX,)),
    Case("np.imag", lambda x: np.imag(_complex(x) ** 2), (MATRIX,)),
    Case("np.imag", np.imag, (MATRIX,), order=0),
    Case("np.angle", lambda x: np.angle(_complex(x)), (MATRIX,)),
    Case("np.angle", lambda x: np.angle(_complex(x), deg=True), (SCALAR,)),
    Case("np.real_if_close", np.real_if_close, (MATRIX,)),
    Case("np.nan_to_num", np.nan_to_num, (MATRIX,)),
    Case("np.nan_to_num", lambda x: np.nan_to_num(np.where([True, False, True, True], x, np.nan), nan=1.5), (MATRIX,)),
    Case("np.nan_to_num", lambda x: np.nan_to_num(x * 1j).imag, (MATRIX,)),
    Case("np.clip", lambda x: np.clip(x, -1, 1), (ANY,)),
    Case("np.clip", np.clip, (MATRIX, Domain(-2, -1, (4,)), Domain(1, 2, (3, 1)))),
    Case("np.clip", lambda x: np.clip(x, None, 0.5), (MATRIX,)),
    Case("np.clip", lambda x: x.clip(min=-0.5), (MATRIX,)),
    Case("np._core.umath.clip", lambda x, low: np._core.umath.clip(x, low, 1.5), (MATRIX, MATRIX)),
    Case("np.sinc", np.sinc, (ANY,), order=3),
    Case("np.sinc", lambda x: np.sinc(0 * x) * x, (VECTOR,)),
    Case("np.i0", np.i0, (Domain(shape=(3,)),)),
    Case("np.apply_along_axis", lambda x: np.apply_along_axis(_row, 0, x), (MATRIX,)),
    Case("np.apply_along_axis", lambda x: np.apply_along_axis(np.sum, 1, x), (MATRIX,)),
    Case("np.apply_along_axis", lambda x: np.apply_along_axis(np.diag, -1, x), (MATRIX,)),
    Case("np.apply_over_axes", lambda x: np.apply_over_axes(np.sum, x, (0, -1)), (MATRIX,)),
    *[
        Case(
            f"np.{fn.__name__}",
            lambda x, fn=fn: fn([x, 2 * x], like=x) if type(x) is not np.ndarray else np.stack([x, 2 * x]),
            (VECTOR,),
        )
        for fn in (np.array, np.asarray)
    ],
    *[
        Case(f"np.{fn.__name__}", lambda x, fn=fn: fn(x, like=x), (VECTOR,))
        for fn in (np.asanyarray, np.ascontiguousarray, np.asfortranarray, np.require)
    ],
    Case("np.full", lambda x: np.full((2, 4), x, like=x), (VECTOR,)),
    Case("np.full_like", lambda x: np.full_like(x, x[0]), (MATRIX,)),
    Case("np.ix_", lambda x: np.ix_(x, 2 * x), (VECTOR,)),
    *_constant("np.round", np.round, lambda x: np.round(x, 1), lambda x: x.round(decimals=2)),
    *_constant("np.around", lambda x: np.around(x, 1)),
    *_constant("np.fix", np.fix),
    *_constant("np.isclose", lambda x: np.isclose(x, np.round(x, 1), atol=0.02)),
    *_constant("np.allclose", lambda x: np.allclose(x, x + 1e-9)),
    *_constant(
        "np.array_equal", lambda x: np.array_equal(x, 1 * x), lambda x: np.array_equal(x, x + 1, equal_nan=True)
    ),
    *_constant("np.array_equiv", lambda x: np.array_equiv(x, x[:1])),
    *_constant("np.isposinf", lambda x: np.isposinf(np.where(x > 0, np.inf, x))),
    *_constant("np.isneginf", lambda x: np.isneginf(x)),
    *_constant("np.isreal", np.isreal, lambda x: np.isreal(x * 1j)),
    *_constant("np.iscomplex", np.iscomplex),
    *_constant(
        "np.unravel_index",
        lambda i: np.unravel_index(i.astype(int) % 12, (3, 4)),
        lambda i: np.unravel_index(i.astype(int) % 12, (3, 4), "F"),
    ),
    *_constant("np.ravel_multi_index", lambda i: np.ravel_multi_index((i.astype(int) % 3, i.astype(int) % 4), (3, 4))),
    *_constant(
        "np.ravel_multi_index", lambda i: np.ravel_multi_index((i.astype(int), 1), (3, 4), mode="wrap", order="F")
    ),
]
