"""Cases of ``scg.primitives.indexing``."""

import numpy as np

from tests.support.cases import Case, Domain
from tests.support.cases.layout import BOX, EMPTY, MATRIX, SCALAR, VECTOR, _one

MASK = np.array([[True, False, True, True], [False, False, True, False], [True, True, False, False]])
INDICES = (
    *(
        1,
        -1,
        np.int64(2),
        slice(1, None),
        slice(None, None, -1),
        slice(-1, 0, -2),
        slice(5, 9),
        Ellipsis,
        None,
        (),
        [2, 0],
        [],
        [[0, 1], [2, 2]],
    ),
    *(
        (1, 2),
        (..., 0),
        (None, slice(None), None, 1),
        (slice(None), -1),
        (slice(2), slice(3, 0, -1)),
        np.array(1),
        np.array([-1, 1, 1]),
    ),
    *(
        (slice(None), [0, 0, 3]),
        ([0, 2], [1, 1]),
        ([[0], [2]], [1, 3]),
        (1, [0, 0]),
        ([1, 1], 2),
        (..., [1, 0], None),
        MASK,
        MASK[0, :3],
        True,
        False,
    ),
    *(
        (slice(None), MASK[0]),
        (MASK[:, 0], 1),
        (MASK[:, 0], [0, 3]),
        ([0, 1], slice(1, 3)),
        (None, MASK),
        np.array([0, 2], dtype=np.uint8),
    ),
)
DEEP = (
    (0, slice(None), [1, 1]),
    ([1, 0], slice(None), [2, 2]),
    (slice(None), [0, 0], [1, 2]),
    ([0, 1], None, 1, slice(2)),
    (MASK[:2, :3],),
    (..., MASK),
)


def _odd(x):
    return 2 * x % 2 > 1


CASES = [
    *_one("operator.getitem", *[lambda x, index=index: x[index] for index in INDICES]),
    *_one("operator.getitem", *[lambda x, index=index: x[index] for index in DEEP], domain=BOX),
    *_one("operator.getitem", lambda x: x[()], lambda x: x[...], lambda x: x[None], domain=SCALAR),
    *_one("operator.getitem", lambda x: x[:, 1], lambda x: x[[]], domain=EMPTY),
    *_one("operator.getitem", lambda x: x[np.argsort(x, axis=0)[:, 0]], lambda x: x[[2, 0], np.argmax(x[:2], axis=1)]),
    *[
        Case(
            "operator.getitem",
            lambda x, z, w, pick=pick: pick(x, z.astype(int) % 2, w.astype(int) % 2),
            (BOX, Domain(0, 2, (3,)), Domain(-2, 2, (4, 1))),
        )
        for pick in (
            *(
                lambda x, z, w: x[z],
                lambda x, z, w: x[w, z],
                lambda x, z, w: x[1, z],
                lambda x, z, w: x[z, :, 1:],
                lambda x, z, w: x[..., z],
            ),
            *(
                lambda x, z, w: x[z[0], :, w],
                lambda x, z, w: x[:, w, [2, 0, 1]],
                lambda x, z, w: x[z[1]],
                lambda x, z, w: x[w, None],
                lambda x, z, w: np.take(x, z, 1),
            ),
            *(lambda x, z, w: x[[0, 1, 0], w, z], lambda x, z, w: x[z[0], 1:, z[1]], lambda x, z, w: x[:, z, 1]),
        )
    ],
    *_one(
        "np.take",
        lambda x: np.take(x, [5, 0, 5]),
        lambda x: np.take(x, [[0, 2], [1, -1]], axis=1),
        lambda x: x.take(1, axis=0),
    ),
    *_one(
        "np.take",
        lambda x: np.take(x, [4, -5], axis=-1, mode="wrap"),
        lambda x: np.take(x, [4, -5, 1], axis=1, mode="clip"),
    ),
    *_one(
        "np.compress",
        lambda x: np.compress([True, False, True], x, axis=0),
        lambda x: np.compress([0, 1, 1, 0, 2], x),
        lambda x: x.compress([1, 1], axis=-1),
    ),
    *_one("np.extract", lambda x: np.extract(MASK, x), lambda x: np.extract([1, 0, 1], x)),
    Case("np.choose", lambda x, y: np.choose([0, 1, 1, 0], [x, y]), (VECTOR, SCALAR)),
    Case("np.choose", lambda x, y: np.choose([[4], [-1]], [x, y, 2 * x], mode="wrap"), (VECTOR, VECTOR)),
    Case("np.choose", lambda x, y: np.choose(np.argsort(x) % 2, [x, y], mode="clip"), (VECTOR, VECTOR)),
    Case("np.select", lambda x, y: np.select([MASK, ~MASK & (np.arange(4) > 1)], [x, y * y], 0.5), (MATRIX, VECTOR)),
    Case("np.select", lambda x: np.select([MASK], [x]), (MATRIX,)),
    Case("np.piecewise", lambda x: np.piecewise(x, [MASK], [lambda v: v * v, lambda v: -v]), (MATRIX,)),
    Case(
        "np.piecewise",
        lambda x: np.piecewise(x, [x < 0, x > 1], [lambda v, a: a * v, 3.0, lambda v, a: v**3], 2.0),
        (VECTOR,),
    ),
    Case("np.piecewise", lambda x: np.piecewise(x, x > 0, [np.sqrt]), (VECTOR,)),
    *_one(
        "np.diagonal", np.diagonal, lambda x: np.diagonal(x, 1), lambda x: x.diagonal(-2), lambda x: np.diagonal(x, 9)
    ),
    *_one("np.diagonal", lambda x: np.diagonal(x, -1, 2, 0), lambda x: np.diagonal(x, axis1=-2, axis2=-1), domain=BOX),
    *_one("np.trace", np.trace, lambda x: np.trace(x, -1), lambda x: np.trace(x, offset=2)),
    *_one("np.trace", lambda x: np.trace(x, 1, 1, 2), np.trace, domain=BOX),
    *_one("np.diag", np.diag, lambda x: np.diag(x, -2)),
    *_one("np.diag", np.diag, lambda x: np.diag(x, 1), lambda x: np.diag(x, k=-2), domain=VECTOR),
    *_one("np.diagflat", np.diagflat, lambda x: np.diagflat(x, -1)),
    *_one("np.tril", np.tril, lambda x: np.tril(x, 1), lambda x: np.tril(x, k=-1), domain=BOX),
    *_one("np.triu", np.triu, lambda x: np.triu(x, 1), lambda x: np.triu(x, k=-1)),
    *_one("np.tril", np.tril, domain=VECTOR),
    *_one("np.resize", lambda x: np.resize(x, (2, 3)), lambda x: np.resize(x, (5, 4)), lambda x: np.resize(x, 14)),
    *_one("np.resize", lambda x: np.resize(x, (2, 2)), domain=EMPTY),
    *_one(
        "np.delete",
        lambda x: np.delete(x, 1),
        lambda x: np.delete(x, [0, -1], axis=1),
        lambda x: np.delete(x, slice(0, 2), 0),
        lambda x: np.delete(x, MASK[:, 0], 0),
    ),
    Case("np.insert", lambda x, y: np.insert(x, 2, y), (MATRIX, VECTOR)),
    Case("np.insert", lambda x, y: np.insert(x, 1, y, axis=0), (MATRIX, VECTOR)),
    Case("np.insert", lambda x, y: np.insert(x, [1, 1, 4], y, axis=-1), (MATRIX, Domain(shape=(3, 1)))),
    Case("np.insert", lambda x, y: np.insert(x, [3], y, axis=1), (MATRIX, MATRIX)),
    Case("np.insert", lambda x, y: np.insert(x, slice(0, 2), y, axis=0), (MATRIX, SCALAR)),
    Case("np.insert", lambda x, y: np.insert(x, MASK[0], y), (VECTOR, SCALAR)),
    *_one(
        "np.lib.stride_tricks.sliding_window_view",
        lambda x: np.lib.stride_tricks.sliding_window_view(x, 2, axis=1),
        lambda x: np.lib.stride_tricks.sliding_window_view(x, (2, 3)),
    ),
    *_one("np.pad", lambda x: np.pad(x, 1), lambda x: np.pad(x, ((1, 0), (0, 2)), constant_values=((1, 2), (3, 4)))),
    # NumPy 2.0 takes no dict
    *(_one("np.pad", lambda x: np.pad(x, {-1: (1, 2)})) if "int, dict}" in np.pad.__doc__ else []),
    *[
        case
        for mode in ("edge", "reflect", "symmetric", "wrap", "linear_ramp", "mean", "maximum", "minimum", "median")
        for case in _one("np.pad", lambda x, mode=mode: np.pad(x, ((2, 1), (0, 5)), mode))
    ],
    *_one(
        "np.pad",
        lambda x: np.pad(x, 2, "reflect", reflect_type="odd"),
        lambda x: np.pad(x, (1, 3), "symmetric", reflect_type="odd"),
    ),
    *_one(
        "np.pad",
        lambda x: np.pad(x, 2, "linear_ramp", end_values=((1, 2), (0, 3))),
        lambda x: np.pad(x, 1, "mean", stat_length=2),
    ),
    *_one("np.pad", lambda x: np.pad(x, ((1, 1), (2, 0)), "maximum", stat_length=((1, 2), (3, 9)))),
    Case("np.pad", lambda x, y: np.pad(x, 1, constant_values=0) + np.pad(y, 1), (MATRIX, MATRIX)),
]
