"""Cases of ``scg.primitives.layout``."""

import numpy as np

from tests.support.cases import Case, Domain

VECTOR, MATRIX, BOX = Domain(shape=(4,)), Domain(shape=(3, 4)), Domain(shape=(2, 3, 4))
SCALAR, ROW, THIN, EMPTY = Domain(shape=()), Domain(shape=(1, 4)), Domain(shape=(2, 1, 3, 1)), Domain(shape=(0, 3))
NEW = np.lib.NumpyVersion(np.__version__) >= "2.1.0"  # reshape(copy=) came with it


def _one(name, *calls, domain=MATRIX):
    return [Case(name, call, (domain,)) for call in calls]


CASES = [
    *_one(
        "np.reshape",
        lambda x: np.reshape(x, (2, 6)),
        lambda x: np.reshape(x, -1),
        lambda x: np.reshape(x, (4, -1), order="F"),
    ),
    *_one("np.reshape", lambda x: x.reshape(2, 1, 6)),
    *(_one("np.reshape", lambda x: np.reshape(x, (2, 2, -1), copy=True)) if NEW else []),
    *_one("np.reshape", lambda x: np.reshape(x, (3, 0, 2)), lambda x: np.reshape(x, (0, 3, 5), "F"), domain=EMPTY),
    *_one(
        "np.ravel", lambda x: np.ravel(x), lambda x: np.ravel(x, order="F"), lambda x: x.flatten(), lambda x: x.ravel()
    ),
    *_one("np.ravel", np.ravel, domain=SCALAR),
    *_one(
        "np.transpose",
        np.transpose,
        lambda x: np.transpose(x, (1, -3, 2)),
        lambda x: x.transpose(2, 0, 1),
        lambda x: x.T,
        domain=BOX,
    ),
    *_one("np.matrix_transpose", np.matrix_transpose, lambda x: x.mT, domain=BOX),
    *_one("np.moveaxis", lambda x: np.moveaxis(x, 0, -1), lambda x: np.moveaxis(x, (0, -1), (1, 0)), domain=BOX),
    *_one(
        "np.rollaxis",
        lambda x: np.rollaxis(x, 2),
        lambda x: np.rollaxis(x, 0, 3),
        lambda x: np.rollaxis(x, -1, 1),
        domain=BOX,
    ),
    *_one("np.swapaxes", lambda x: np.swapaxes(x, 0, -1), lambda x: x.swapaxes(1, 1), domain=BOX),
    *_one("np.squeeze", np.squeeze, lambda x: np.squeeze(x, 1), lambda x: np.squeeze(x, (-1, 1)), domain=THIN),
    *_one("np.expand_dims", lambda x: np.expand_dims(x, 0), lambda x: np.expand_dims(x, (-1, 1))),
    *[case for d in (SCALAR, VECTOR, MATRIX, BOX) for case in _one("np.atleast_1d", np.atleast_1d, domain=d)],
    *[case for d in (SCALAR, VECTOR, MATRIX, BOX) for case in _one("np.atleast_2d", np.atleast_2d, domain=d)],
    *[case for d in (SCALAR, VECTOR, MATRIX, BOX) for case in _one("np.atleast_3d", np.atleast_3d, domain=d)],
    Case("np.atleast_2d", lambda x, y: np.atleast_2d(x, y), (SCALAR, VECTOR)),
    *_one("np.broadcast_to", lambda x: np.broadcast_to(x, (2, 3, 4)), domain=ROW),
    *_one("np.broadcast_to", lambda x: np.broadcast_to(x, (2, 0)), lambda x: np.broadcast_to(x, 3), domain=SCALAR),
    Case("np.broadcast_arrays", lambda x, y: np.broadcast_arrays(x, y, 1.0)[:2], (ROW, Domain(shape=(3, 1)))),
    *[
        Case(
            "np.meshgrid",
            lambda x, y, sparse=sparse, indexing=indexing: np.meshgrid(
                x, y, [1.0, 2.0], sparse=sparse, indexing=indexing
            )[:2],
            (VECTOR, SCALAR),
        )
        for sparse in (False, True)
        for indexing in ("xy", "ij")
    ],
    *_one("np.astype", lambda x: np.astype(x, x.dtype), lambda x: np.real(np.astype(x, complex)).astype(x.dtype)),
    *_one("np.copy", np.copy, lambda x: x.copy()),
    Case("np.concatenate", lambda x, y: np.concatenate([x, y]), (MATRIX, ROW)),
    Case("np.concatenate", lambda x, y: np.concatenate((x, y, x), axis=-1), (MATRIX, Domain(shape=(3, 1)))),
    Case("np.concatenate", lambda x, y: np.concatenate([x, y, [1.0] * 2], axis=None, dtype=x.dtype), (MATRIX, SCALAR)),
    Case("np.concatenate", lambda x: np.concatenate(x), (BOX,)),
    Case("np.concatenate", lambda x, y: np.concatenate([x, y], axis=1), (EMPTY, Domain(shape=(0, 2)))),
    *[Case("np.stack", lambda x, y, axis=axis: np.stack([x, y], axis=axis), (MATRIX, MATRIX)) for axis in (0, 1, -1)],
    Case("np.stack", lambda x, y: np.stack([x, y]), (SCALAR, SCALAR)),
    *[
        Case(f"np.{fn.__name__}", lambda x, y, fn=fn: fn((x, y)), (domain, domain))
        for fn in (np.vstack, np.hstack, np.dstack, np.column_stack)
        for domain in (SCALAR, VECTOR, MATRIX, BOX)
        if domain.shape or fn is not np.column_stack
    ],
    Case(
        "np.block",
        lambda x, y: np.block([[x, np.zeros((3, 1), x.dtype)], [y, np.ones((1, 1), x.dtype)]]),
        (MATRIX, VECTOR),
    ),
    Case("np.block", lambda x, y: np.block([x, y]), (VECTOR, SCALAR)),
    Case("np.append", lambda x, y: np.append(x, y), (MATRIX, VECTOR)),
    Case("np.append", lambda x, y: np.append(x, y, axis=0), (MATRIX, ROW)),
    *_one(
        "np.split",
        lambda x: np.split(x, 2, axis=1),
        lambda x: np.split(x, [1, 2]),
        lambda x: np.split(x, [2, 9], axis=-1),
    ),
    *_one(
        "np.array_split",
        lambda x: np.array_split(x, 2),
        lambda x: np.array_split(x, 3, axis=-1),
        lambda x: np.array_split(x, 5),
    ),
    *_one("np.hsplit", lambda x: np.hsplit(x, 2)),
    *_one("np.hsplit", lambda x: np.hsplit(x, [1]), domain=VECTOR),
    *_one("np.vsplit", lambda x: np.vsplit(x, 3)),
    *_one("np.dsplit", lambda x: np.dsplit(x, [1, 3]), domain=BOX),
    *(_one("np.unstack", np.unstack, lambda x: np.unstack(x, axis=-1)) if hasattr(np, "unstack") else ()),
    *_one("np.tile", lambda x: np.tile(x, 2), lambda x: np.tile(x, (2, 1, 3)), lambda x: np.tile(x, (0, 2))),
    *_one("np.tile", lambda x: np.tile(x, (2, 3)), domain=SCALAR),
    *_one(
        "np.repeat",
        lambda x: np.repeat(x, 2),
        lambda x: np.repeat(x, 3, axis=0),
        lambda x: x.repeat([2, 0, 1, 1], axis=-1),
        lambda x: np.repeat(x, [2], 1),
    ),
    *_one(
        "np.roll",
        lambda x: np.roll(x, 5),
        lambda x: np.roll(x, -1, axis=1),
        lambda x: np.roll(x, (1, 2), axis=(0, 1)),
        lambda x: np.roll(x, 1, (0, 0)),
    ),
    *_one("np.flip", np.flip, lambda x: np.flip(x, 0), lambda x: np.flip(x, (0, -1)), domain=BOX),
    *_one("np.fliplr", np.fliplr),
    *_one("np.flipud", np.flipud),
    *_one("np.rot90", np.rot90, lambda x: np.rot90(x, 2), lambda x: np.rot90(x, -1), lambda x: np.rot90(x, 4)),
    *_one("np.rot90", lambda x: np.rot90(x, 1, (2, 1)), lambda x: np.rot90(x, 3, (-1, 0)), domain=BOX),
]
