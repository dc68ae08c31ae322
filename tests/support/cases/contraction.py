"""Cases of ``scg.primitives.contraction``."""

import itertools

import numpy as np

from tests.support.cases import Case, Domain


def D(*shape):
    return Domain(shape=shape)


MATMULS = (
    ((3, 4), (4, 2)),
    ((4,), (4, 2)),
    ((3, 4), (4,)),
    ((4,), (4,)),
    ((5, 3, 4), (4, 2)),
    ((3, 4), (5, 4, 2)),
    ((5, 3, 4), (5, 4, 2)),
)
MATMULS += (
    ((2, 1, 3, 4), (5, 4, 2)),
    ((4,), (5, 4, 2)),
    ((5, 3, 4), (4,)),
    ((3, 0), (0, 2)),
    ((0, 3, 4), (4, 2)),
    ((1, 3, 4), (5, 4, 2)),
    ((2, 5, 3, 0), (0, 2)),
)
EINSUMS = (
    *(
        ("ij,jk->ik", (3, 4), (4, 2)),
        ("ij,jk", (3, 4), (4, 2)),
        ("ij->ji", (3, 4)),
        ("ba", (3, 4)),
        ("ij->", (3, 4)),
        ("ij->j", (3, 4)),
    ),
    *(
        ("ii", (3, 3)),
        ("ii->i", (3, 3)),
        ("iij->ij", (3, 3, 2)),
        ("iii->i", (2, 2, 2)),
        ("i,i->i", (4,), (4,)),
        ("i,j->ij", (4,), (2,)),
        (",i->i", (), (4,)),
    ),
    *(
        ("bij,bjk->bik", (2, 3, 4), (2, 4, 2)),
        ("...ij,...jk->...ik", (2, 3, 4), (4, 2)),
        ("i...,i...->...", (3, 2), (3, 1)),
        ("...", (2, 3)),
        ("...i->i...", (2, 3)),
    ),
    *(
        ("ij,jk,kl->il", (2, 3), (3, 4), (4, 2)),
        ("ij,kj,lm->ik", (2, 3), (2, 3), (2, 2)),
        ("ij,ij,ij->", (2, 3), (2, 3), (2, 3)),
        ("i,ij,j", (2,), (2, 3), (3,)),
    ),
    *(
        ("ij,ij->ij", (1, 3), (2, 3)),
        ("ij,jk->ik", (3, 0), (0, 2)),
        (" i j , j k -> i k ", (3, 4), (4, 2)),
        ("ij,j->", (3, 4), (4,)),
    ),
)
TENSORDOTS = (
    ((2, 3, 4), (4, 3), ([2, 1], [0, 1])),
    ((2, 3), (3, 4), 1),
    ((2, 3), (2, 3), 2),
    ((2,), (3,), 0),
    ((2, 3, 4), (3, 2), ((0, -2), (1, 0))),
    ((3, 4), (2, 4), (-1, 1)),
)
SHAPES = ((), (4,), (3, 4))

CASES = [
    *[Case("np.matmul", lambda a, b: a @ b, (D(*a), D(*b))) for a, b in MATMULS],
    Case("np.matmul", lambda a: np.matmul(a, np.linspace(0, 1, 8, dtype=a.dtype).reshape(4, 2)), (D(2, 3, 4),)),
    *[
        Case("np.dot", np.dot, (D(*a), D(*b)))
        for a, b in (*MATMULS[:5], ((3, 4), (5, 4, 2)), ((2, 3, 4), (5, 4, 2)), ((), (3,)), ((3, 2), ()))
    ],
    Case("np.dot", lambda a, b: a.dot(b), (D(3, 4), D(4))),
    *[
        Case("np.inner", np.inner, (D(*a), D(*b)))
        for a, b in (((4,), (4,)), ((3, 4), (2, 4)), ((2, 3, 4), (4,)), ((), (3,)), ((3,), ()))
    ],
    *[Case("np.vdot", np.vdot, (D(*a), D(*b))) for a, b in (((4,), (4,)), ((3, 4), (3, 4)), ((), ()))],
    *[Case("np.outer", np.outer, (D(*a), D(*b))) for a, b in itertools.product(SHAPES, SHAPES)],
    *[
        Case("np.tensordot", lambda a, b, axes=axes: np.tensordot(a, b, axes), (D(*a), D(*b)))
        for a, b, axes in TENSORDOTS
    ],
    Case("np.tensordot", np.tensordot, (D(2, 3, 4), D(3, 4))),
    *[
        Case("np.einsum", lambda *x, text=text: np.einsum(text, *x), tuple([D(*shape) for shape in shapes]))
        for text, *shapes in EINSUMS
    ],
    Case("np.einsum", lambda a, b: np.einsum(a, [0, 1], b, [1, 2], [2, 0]), (D(3, 4), D(4, 2))),
    Case("np.einsum", lambda a, b: np.einsum(a, [..., 1], b, [1], optimize=True), (D(3, 4), D(4))),
    Case("np.einsum", lambda a: np.einsum("ij,j->i", a, np.arange(4, dtype=a.dtype)), (D(3, 4),)),
    Case("np.einsum", lambda a, b: np.einsum("ij,jk->ik", a, b, optimize="optimal"), (D(60, 40), D(40, 50)), order=1),
    *[
        Case("np.kron", np.kron, (D(*a), D(*b)))
        for a, b in (((2, 3), (3, 2)), ((2,), (3, 2)), ((2, 1, 2), (3,)), ((), (3,)), ((2, 2), ()))
    ],
    Case("np.cross", np.cross, (D(3), D(3))),
    Case("np.cross", np.cross, (D(2, 1, 3), D(4, 3))),
    Case("np.cross", lambda a, b: np.cross(a, b, axisa=0, axisb=1, axisc=0), (D(3, 2), D(2, 3))),
    Case("np.cross", lambda a, b: np.cross(a, b, axis=0), (D(3, 2), D(3, 2))),
    *[Case("np.vecdot", np.vecdot, (D(*a), D(*b))) for a, b in (((4,), (4,)), ((3, 4), (4,)), ((3, 1, 4), (2, 4)))],
    Case("np.vecdot", lambda a, b: np.vecdot(a, b, axis=0), (D(3, 4), D(3, 1))),
    *[
        Case("np.matvec", np.matvec, (D(*a), D(*b)))
        for a, b in (((3, 4), (4,)), ((3, 4), (5, 4)), ((2, 3, 4), (2, 4)))
        if hasattr(np, "matvec")
    ],
    *[
        Case("np.vecmat", np.vecmat, (D(*a), D(*b)))
        for a, b in (((3,), (3, 4)), ((5, 3), (3, 4)), ((2, 3), (2, 3, 4)))
        if hasattr(np, "vecmat")
    ],
]
