"""Cases of ``scg.primitives.sorting``."""

from inspect import signature

import numpy as np

from tests.support.cases import Case
from tests.support.cases.layout import BOX, EMPTY, MATRIX, SCALAR, VECTOR, _one

LAST = signature(np.take_along_axis).parameters["axis"].default == -1  # NumPy 2.0 needs the axis
INDICES = np.array([[2, 0, 2, -1], [1, 1, 0, 0]])


def _constant(name, *calls, domain=MATRIX):
    return [Case(name, call, (domain,), 0) for call in calls]


def _ordered(x):
    """What a partition around 1 and 2 of four elements determines."""
    return x[..., 1:3]


CASES = [
    *_one(
        "np.take_along_axis",
        lambda x: np.take_along_axis(x, INDICES, 0),
        lambda x: np.take_along_axis(x, np.argsort(-x, axis=1), axis=1),
    ),
    *_one("np.take_along_axis", lambda x: np.take_along_axis(x, INDICES[0], axis=None)),
    *_one("np.take_along_axis", lambda x: np.take_along_axis(x, np.argmax(x, axis=1, keepdims=True), 1), domain=BOX),
    *_one("np.take_along_axis", lambda x: np.take_along_axis(x, INDICES[:0], 0)),
    *(_one("np.take_along_axis", lambda x: np.take_along_axis(x, INDICES[:1, :3] % 3)) if LAST else []),
    Case(
        "np.take_along_axis",
        lambda x: np.take_along_axis(np.arange(12.0).reshape(3, 4), np.argsort(x, axis=0), 0),
        (MATRIX,),
        0,
    ),
    *_one(
        "np.sort",
        np.sort,
        lambda x: np.sort(x, axis=None),
        lambda x: np.sort(x, axis=0, kind="heapsort"),
        lambda x: np.sort(x, axis=1, stable=True),
        domain=BOX,
    ),
    *_one("np.sort", np.sort, domain=EMPTY),
    *_one("np.sort", lambda x: np.sort(x, axis=None), domain=SCALAR),
    *_one(
        "np.partition",
        lambda x: _ordered(np.partition(x, (1, 2))),
        lambda x: _ordered(np.partition(x, [2, -3], axis=-1)),
        domain=BOX,
    ),
    *_one("np.partition", lambda x: np.partition(x, 1, axis=0)[1], lambda x: np.partition(x, 3, axis=None)[3]),
    *_constant(
        "np.argsort",
        np.argsort,
        lambda x: np.argsort(x, axis=0),
        lambda x: np.argsort(x, axis=None),
        lambda x: x.argsort(axis=-2, stable=True),
    ),
    *_constant(
        "np.argpartition", lambda x: np.argpartition(x, 1)[:, 1], lambda x: np.argpartition(x, (0, 2), axis=0)[0]
    ),
    *[
        case
        for fn in (np.argmax, np.argmin)
        for case in (
            *_constant(
                f"np.{fn.__name__}",
                fn,
                lambda x, fn=fn: fn(x, axis=0),
                lambda x, fn=fn: fn(x, axis=-1, keepdims=True),
                lambda x, fn=fn: fn(x, keepdims=True),
            ),
            *_constant(f"np.{fn.__name__}", fn, lambda x, fn=fn: fn(x, axis=0), domain=SCALAR),
            *_constant(f"np.{fn.__name__}", lambda x, fn=fn: fn(x, axis=1), domain=EMPTY),
        )
    ],
    *[
        case
        for fn in (np.nanargmax, np.nanargmin)
        for case in _constant(
            f"np.{fn.__name__}",
            lambda x, fn=fn: fn(np.where(x < -1.5, np.nan, x)),
            lambda x, fn=fn: fn(x, axis=1, keepdims=True),
        )
    ],
    *_constant("np.lexsort", lambda x: np.lexsort((x[0], np.round(x[1]))), np.lexsort, lambda x: np.lexsort(x, axis=0)),
    Case("np.searchsorted", lambda a, v: np.searchsorted(np.sort(a), v), (VECTOR, MATRIX), 0),
    *_constant(
        "np.searchsorted",
        lambda x: np.searchsorted([-1.0, 0.0, 1.0], x, side="right"),
        lambda x: np.searchsorted([1.0, -1.0, 0.0], x, sorter=[1, 2, 0]),
    ),
    *_constant(
        "np.searchsorted",
        lambda x: np.searchsorted(x, [0.0, 0.5], sorter=np.argsort(x)),
        lambda x: np.sort(x).searchsorted(0.5),
        domain=VECTOR,
    ),
    *_constant(
        "np.digitize",
        lambda x: np.digitize(x, [-1.0, 0.0, 1.0]),
        lambda x: np.digitize(x, [1.0, 0.0, -1.0], right=True),
    ),
    *(
        _constant(
            "np.in1d", lambda x: np.in1d(np.round(x), [0, 1]), lambda x: np.in1d(np.round(x), [0, 1], invert=True)
        )
        if hasattr(np, "in1d")
        else []
    ),
    *_constant("np.isin", lambda x: np.isin(np.round(x), [0, 1]), lambda x: np.isin(np.round(x), [0, 1], invert=True)),
    *_constant("np.nonzero", lambda x: np.nonzero(x + 5), lambda x: (x + 5).nonzero()),
    *_constant("np.flatnonzero", lambda x: np.flatnonzero(x + 5)),
    *_constant("np.argwhere", lambda x: np.argwhere(x + 5)),
    *_constant("np.bincount", lambda x: np.bincount(np.digitize(x, [-1.0, 1.0]), minlength=7), domain=VECTOR),
    *_one(
        "np.bincount",
        lambda x: np.bincount([0, 2, 2, 5], x),
        lambda x: np.bincount([1, 0, 0, 1], x, 4),
        lambda x: np.bincount(np.digitize(x, [0.0]), x, 3),
        domain=VECTOR,
    ),
]
