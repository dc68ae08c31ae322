"""A derivative at a point where the chain rule says 0 * inf: the limit of the derivatives nearby.

A function that is continuous at x and differentiable around it, and whose derivative has a limit at x, is
differentiable at x, and the limit is its derivative there (by the mean value theorem). So sqrt(x)^2 at 0, exp(log(x))
at 0, the second derivative of norm(x)^2 at 0, and a function of a matrix by way of eigenvectors where eigenvalues
coincide. What is moved is not x itself but what the program makes of it linearly before it does anything else: the
difference x_i - x_i in a matrix of distances is zero for all x, and the derivative of the rest has a limit all the
same. The derivatives nearby are the engine's own, of the recorded graph run again in double precision.
"""

from collections.abc import Sequence

import numpy as np

from scg.core.aliases import Result
from scg.core.ancestry import ancestors
from scg.core.nearby import Derivative, foremost, searched
from scg.core.node import Node
from scg.core.operands import has_nan
from scg.core.primitive import smooth_primitive


def limit(found: list[Result], derivative: Derivative, roots: Sequence[Result], wrt: Sequence[Node]) -> list[Result]:
    """``found`` with limits in place of its NaN, where there are such.

    ``derivative(roots, wrt)`` gives the arrays that stand in ``found`` for other nodes. Each NaN is replaced where the
    derivatives at x + t d have the same limit for all directions d in whose direction they exist, two at least, and the
    roots are continuous there. ``t d`` is added to the last nodes that are linear in ``wrt``, or else to ``wrt``: in
    hypot(x[None] @ x[:, None], 0) the two are one x, and moved apart they have a kink.
    """
    found = [g.raw if type(g) is Node else g for g in found]
    for moved in (foremost, None):
        if any(map(has_nan, found)):
            near = searched(found, derivative, roots, wrt, moved, fills=True)
            found = (
                [np.where(np.isnan(g), n.limit, g).astype(g.dtype) for g, n in zip(found, near, strict=True)]
                if near
                else found
            )
    return found


def confirmed(
    found: list[Result],
    derivative: Derivative,
    roots: Sequence[Result],
    wrt: Sequence[Node],
) -> list[Result]:
    """``found`` where the derivatives nearby come near it; their limit where that is another one and the roots are
    continuous; else NaN. ``found`` itself where there are no derivatives nearby, or where these grow without bound: a
    mask as in where(x > 0, sqrt(x), 0) is there to keep them out.

    For derivatives of what a tie made of a derivative (``Primitive.shares``). The slope of max(x, -x)^2 at 0 is
    2 max (1/2 - 1/2), its derivative by parts 2 (1/2 - 1/2)^2 = 0, and the second derivative 2. Here x itself is moved:
    what is tied is made of it in several ways.
    """
    near = searched(found, derivative, roots, wrt)
    return [np.where(n.kept, g, n.limit).astype(g.dtype) for g, n in zip(found, near, strict=True)] if near else found


def beside(found: list[Result], derivative: Derivative, roots: Sequence[Result], wrt: Sequence[Node]) -> list[Result]:
    """``found``, and where the derivatives nearby have another limit, and the roots are continuous, that; NaN where
    they nearly have one.

    For first derivatives where a mask belongs to neither side of its jump (``scg.core.ties.isolated``)."""
    near = searched(found, derivative, roots, wrt)
    if not near:
        return found
    replaced = [n.off | ~np.isnan(n.limit) for n in near]
    return [np.where(r, n.limit, g).astype(g.dtype) for g, r, n in zip(found, replaced, near, strict=True)]


def mended(found: Sequence[Result], near: Sequence[Result], sources: Sequence[Result]) -> list[Result]:
    """The Nodes ``found`` with the limits ``near`` in place of their NaN. Their derivatives are NaN there still, and
    may have limits of their own."""
    whole = [
        np.where(np.isnan(g.raw), n, g.raw).astype(g.dtype) if type(g) is Node else g
        for g, n in zip(found, near, strict=True)
    ]
    return replaced(found, whole, sources)


def replaced(found: Sequence[Result], near: Sequence[Result], sources: Sequence[Result]) -> list[Result]:
    """``near``, and where ``found`` are Nodes these with the values ``near``, as long as the leaves behind ``sources``
    are what they are now."""
    nodes = [x for x in sources if type(x) is Node]
    at = [x for x in ancestors(nodes) if not x.operands and type(x.raw) is not tuple]
    point = tuple([x.raw for x in at])
    return [
        n
        if type(g) is not Node
        else g
        if np.array_equal(g.raw, n, equal_nan=True)
        else _mended(g, *at, limit=n, point=point)
        for g, n in zip(found, near, strict=True)
    ]


_mended = smooth_primitive(
    lambda g, *at, limit, point: np.array(limit if all(map(np.array_equal, at, point)) else g),
    None,
    lambda h, out, g, *at, limit, point: h * np.where(np.isnan(g), np.nan, 1).astype(g.dtype),
    name="mended",
)
