"""A derivative at a point where the chain rule says 0 * inf: the limit of the derivatives nearby.

A function that is continuous at x and differentiable around it, and whose derivative has a limit at x, is
differentiable at x, and the limit is its derivative there (by the mean value theorem). So sqrt(x)^2 at 0, exp(log(x))
at 0, the second derivative of norm(x)^2 at 0, and a function of a matrix by way of eigenvectors where eigenvalues
coincide. What is moved is not x itself but what the program makes of it linearly before it does anything else: the
difference x_i - x_i in a matrix of distances is zero for all x, and the derivative of the rest has a limit all the
same. The derivatives nearby are the engine's own, of the recorded graph run again in double precision.
"""

import contextvars
import itertools
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from scg.core.absorbing import moves, stamp
from scg.core.aliases import Result
from scg.core.ambient import AMBIENT, RECORDER, SCOPE
from scg.core.ancestry import ancestors
from scg.core.leaves import parameter
from scg.core.node import Node
from scg.core.operands import has_nan
from scg.core.primitive import smooth_primitive
from scg.core.replay import rerun
from scg.errors import ScgError

TINY, STEP, CHECK, WIDE = 1e-60, 1e-6, 1e-5, 5e-4
"""Distances. Where x is zero nothing rounds at the first, but what cancels is lost. The other two are relative, and a
limit that is the same at both is one; where it is not, as for x sqrt(x), whose derivative goes to 0 as sqrt(x) does,
the first must come near the second. Of (exp(x) - 1) / x, whose derivative cancels to eps / x^2, little is left there,
and enough where it is WIDE."""

_DISTANCES = (STEP, CHECK, TINY), (WIDE, 2 * WIDE, TINY), (20 * WIDE, 40 * WIDE, TINY)

TOLERANCE = 1e-7
"""Of the largest element: so far the directions may differ. Extrapolated, what is smooth is off by STEP^2, and by eps /
STEP for rounding."""

Derivative = Callable[[list[Result], list[Node]], list[Result]]


def limit(found: list[Result], derivative: Derivative, roots: Sequence[Result], wrt: Sequence[Node]) -> list[Result]:
    """``found`` with limits in place of its NaN, where there are such.

    ``derivative(roots, wrt)`` gives the arrays that stand in ``found`` for other nodes. Each NaN is replaced where the
    derivatives at x + t d, by Richardson's 2 D(t / 2) - D(t), agree for all directions d in whose direction they exist,
    two at least, and the roots are continuous there. ``t d`` is added to the last nodes that are linear in ``wrt``, or
    else to ``wrt``: in hypot(x[None] @ x[:, None], 0) the two are one x, and moved apart they have a kink.
    """
    found = [g.raw if type(g) is Node else g for g in found]
    return _filled(found, derivative, roots, wrt, itertools.product((_cut, _itself), (True, False)))


def _filled(
    found: list[Result], derivative: Derivative, roots: Sequence[Result], wrt: Sequence[Node], ways: Iterable[Result]
) -> list[Result]:
    """``found`` with limits in place of its NaN, where there are such. Each of ``ways`` is what is moved, and whether
    distances are relative to one, or else to the largest element."""
    for cut, unit in ways:
        if not any(map(has_nan, found)):
            break
        near, continuous = _nearby(found, derivative, roots, wrt, cut, unit)
        if near and continuous:
            found = [
                np.where(np.isnan(g), n, g).astype(g.dtype, copy=False)
                for g, n in zip(found, _chosen(near), strict=True)
            ]
    return found


def confirmed(
    found: list[Result], derivative: Derivative, roots: Sequence[Result], wrt: Sequence[Node]
) -> list[Result]:
    """``found`` where the derivatives nearby come near it; their limit where that is another one and the roots are
    continuous; else NaN. ``found`` itself where there are no derivatives nearby, or where these grow without bound: a
    mask as in where(x > 0, sqrt(x), 0) is there to keep them out.

    For derivatives of what a tie made of a derivative (``Primitive.shares``). The slope of max(x, -x)^2 at 0 is
    2 max (1/2 - 1/2), its derivative by parts 2 (1/2 - 1/2)^2 = 0, and the second derivative 2. Here x itself is moved:
    what is tied is made of it in several ways.
    """
    blank = [np.full_like(g, np.nan) for g in found]
    near, continuous = _nearby(blank, derivative, roots, wrt, _itself, True)
    if not near or near[1] is None:
        return found
    limits, sides = _chosen(near), [_by_array(side) for side in near[:2]]
    stays = [_comes_near(g, *some) for g, *some in zip(found, *sides, strict=True)]
    if all(map(np.all, stays)):
        return found
    wide, also = _nearby(blank, derivative, roots, wrt, _itself, True, (WIDE, 2 * WIDE, TINY))
    if wide:
        sides.append(_by_array(wide[0]))
        further = _chosen(wide) if also else limits
        limits = [np.where(np.isnan(n), w, n) for n, w in zip(limits, further, strict=True)]
    grows = [_grows(*some) for some in zip(*sides, strict=True)]
    if any(map(np.any, grows)):
        again = _by_array(_nearby(blank, derivative, roots, wrt, _itself, True, (1.01 * STEP,))[0][0])
        grows = [grow & _is_alike(*some) for grow, *some in zip(grows, sides[0], again, strict=True)]
    settled = [
        np.where(stay | grow, g, n if continuous else np.nan).astype(g.dtype, copy=False)
        for g, n, stay, grow in zip(found, limits, stays, grows, strict=True)
    ]
    return _filled(settled, derivative, roots, wrt, [(_itself, False)])


def _by_array(side: list[list[Result]]) -> list[Result]:
    """Derivatives along some directions, one after another, for each array."""
    return [np.stack(some) for some in zip(*side, strict=True)]


def _comes_near(g: Result, step: Result, check: Result) -> Result:
    """Where derivatives at two distances, which are as 1 to 10, come near ``g``."""
    size = np.max(np.abs(step), initial=0, where=np.isfinite(step))
    off, before = [np.max(d, axis=0, initial=0, where=d == d) for d in (np.abs(step - g), np.abs(check - g))]
    return (off <= 10 * TOLERANCE * size) | (off <= 0.5 * before)


def _grows(*sides: Result) -> Result:
    """Where derivatives grow from each distance to the next smaller one."""
    sizes = [np.max(np.abs(d), axis=0, initial=0, where=d == d) for d in sides]
    return np.logical_and.reduce([a > 1.1 * b for a, b in itertools.pairwise(sizes)])


def _is_alike(step: Result, again: Result) -> Result:
    """Where derivatives at nearly the same distance are nearly the same, and so more than what is left of numbers that
    cancel, as of 1 - cos(x) divided by x^4."""
    return np.all(np.abs(step - again) <= 0.1 * np.abs(step) + 1e-300, axis=0, where=step == step)


def beside(found: list[Result], derivative: Derivative, roots: Sequence[Result], wrt: Sequence[Node]) -> list[Result]:
    """``found``, and where the derivatives nearby have another limit, and the roots are continuous, that; NaN where
    they nearly have one.

    For first derivatives where a mask belongs to neither side of its jump (``scg.core.ties.isolated``)."""
    blank = [np.full_like(g, np.nan) for g in found]
    limits, sides, whole = blank, [], False
    for unit in (True, False):
        for steps in _DISTANCES if not whole else ():
            near, continuous = _nearby(blank, derivative, roots, wrt, _itself, unit, steps)
            if not near or not continuous:
                break
            new = _chosen(near)
            whole = not any(map(has_nan, new))
            if unit or whole:
                limits, sides = new, near[0]
            if whole:
                break
    if not sides:
        return found
    settled = []
    for k, (g, n) in enumerate(zip(found, limits, strict=True)):
        far = np.abs(n - g) > 100 * TOLERANCE * (1 + np.abs(n))  # false where there is no limit
        settled.append(np.where(far | _is_off(g, [some[k] for some in sides]), n, g).astype(g.dtype, copy=False))
    return settled


def _is_off(g: Result, near: list[Result]) -> Result:
    """Where derivatives nearby differ from ``g``, by ten times as much as from one another."""
    stacked = np.stack(near)
    finite = np.all(np.isfinite(stacked), axis=0)
    low, high = np.min(stacked, axis=0), np.max(stacked, axis=0)
    size, off = np.maximum(np.abs(low), np.abs(high)), np.abs(0.5 * (low + high) - g)
    return finite & (high - low <= 0.1 * off) & (off > 0.01 * size)


def mended(found: Sequence[Result], near: Sequence[Result], sources: Sequence[Result]) -> list[Result]:
    """The Nodes ``found`` with the limits ``near`` in place of their NaN, as long as the leaves behind ``sources`` are
    what they are now; their derivatives are NaN there still, and may have limits of their own."""
    nodes = [x for x in sources if type(x) is Node]
    at = [x for x in ancestors(nodes) if not x.operands and type(x.raw) is not tuple]
    point = tuple([x.raw for x in at])
    return [
        _mended(g, *at, limit=n, point=point) if type(g) is Node and np.any(np.isnan(g.raw) & ~np.isnan(n)) else g
        for g, n in zip(found, near, strict=True)
    ]


_mended = smooth_primitive(
    lambda g, *at, limit, point: (
        np.where(np.isnan(g), limit, g) if all(map(np.array_equal, at, point)) else np.array(g)
    ),
    None,
    lambda h, out, g, *at, limit, point: h * np.where(np.isnan(g), np.nan, 1).astype(g.dtype),
    name="mended",
)


def _nearby(
    found: list[Result],
    derivative: Derivative,
    roots: Sequence[Result],
    wrt: Sequence[Node],
    cut: Result,
    unit: bool,
    steps: tuple[float, ...] = (STEP, CHECK, TINY),
) -> tuple[list[Result], bool]:
    """The derivatives at three distances, None where there are none at one; an empty list
    where nothing can be moved. And whether the roots are continuous. What is moved is ``cut(order, wrt)``."""
    nodes = [root for root in roots if type(root) is Node]
    order = ancestors(nodes, min([x.id for x in wrt]), guards=True)
    if not all([np.isfinite(x.raw).all() for x in wrt]) or any(
        [node.statics and "site" in node.statics for node in order]  # a sample cannot be moved
    ):
        return [], False

    def at_all() -> tuple[list[Result], bool]:
        for variable in (RECORDER, AMBIENT, SCOPE):
            variable.set(None)
        with np.errstate(all="ignore"):
            moved = cut(order, wrt)
            if not unit and all([np.all(_size(x, True) == _size(x, False)) for x in moved]):
                return [], False  # nothing new
            at = lambda step: _near(derivative, nodes, wrt, order, step, unit, found, moved)
            near, continuous = at(steps[0])
            return [] if near is None else [near, *[at(step)[0] for step in steps[1:]]], continuous

    return contextvars.copy_context().run(at_all)


def _chosen(near: list[Result]) -> list[Result]:
    """The limits of derivatives at the three distances, NaN where there are none."""
    step, *others = map(_agreed, near)
    return [_limit(one, *[other and other[k] for other in others]) for k, one in enumerate(step)]


def _limit(step: Result, check: Result, tiny: Result) -> Result:
    (mean, close, size), nothing = step, (np.nan, False, 0.0)
    other, closed, _ = check or nothing
    first, agreed, _ = tiny or nothing
    sure = close & closed & (np.abs(mean - other) <= 10 * TOLERANCE * size)
    near = np.abs(mean - first)
    return np.where(
        agreed & (near <= np.where(sure, 10 * TOLERANCE, 0.01) * np.maximum(size, 1)),
        first,
        np.where(sure, mean, np.nan),
    )


def _near(
    derivative: Derivative,
    roots: list[Node],
    wrt: Sequence[Node],
    order: list[Node],
    step: float,
    unit: bool,
    found: list[Result],
    cut: list[Node],
) -> tuple[list[list[Result]] | None, bool]:
    """The derivatives along some directions, extrapolated, None where there are none; and whether the roots are
    continuous."""
    rng = np.random.default_rng(0)
    signs = [np.ones(x.shape) for x in cut], [rng.choice([-1.0, 1.0], x.shape) for x in cut]
    directions = [[s * rng.uniform(0.5, 1, s.shape) for s in some] for some in signs]
    near, values = [], [[root.raw for root in roots]]
    for direction in [[sign * d for d in some] for some in directions for sign in (1, -1)]:
        pair = []
        for t in (step, step / 2):
            moved = [parameter(x.raw.astype(np.float64)) for x in wrt]
            table: dict[int, Result] = {x.id: m for x, m in zip(wrt, moved, strict=True)}
            shifts = {
                x.id: t * d * (1.0 if step < 1e-20 else _size(x, unit)) for x, d in zip(cut, direction, strict=True)
            }
            try:
                new = rerun(roots, order, table, set(), 0, True, _shifting(table, shifts))
                pair.append([np.asarray(d, np.float64) for d in derivative(new, moved)])
            except (ScgError, np.linalg.LinAlgError):  # a guard that comes out otherwise, say
                break
            values.append([root.raw if type(root) is Node else root for root in new])
        if len(pair) == 2:
            near.append([2 * b - a for a, b in zip(*pair, strict=True)])
            if len(near) == 2 and not any(
                [np.isfinite(n[np.isnan(g)]).any() for some in near for n, g in zip(some, found, strict=True)]
            ):
                return None, True
    return near or None, all([_is_continuous(column, step) for column in zip(*values, strict=True)])


def _shifting(table: dict[int, Result], shifts: dict[int, Result]) -> Result:
    """For ``rerun``: the nodes in ``shifts`` are computed, and moved by that."""
    for i in table:
        if i in shifts:
            table[i] = table[i] + shifts[i]

    def visit(node: Node) -> Result:
        if node.id not in shifts:
            return NotImplemented
        operands = [table.get(o.id, o) if type(o) is Node else o for o in node.operands]
        table[node.id] = node.primitive(*operands, **node.statics) + shifts[node.id]
        return None

    return visit


def _cut(order: Sequence[Node], wrt: Sequence[Node]) -> list[Node]:
    """The last nodes on each way from ``wrt`` that are linear in them. Of one that is so by pieces, as a maximum is,
    what it is made of: a derivative compares the two, and finds no side of a maximum that was moved alone."""
    linear, depends, cut = {x.id: [x] for x in wrt}, {x.id for x in wrt}, {}
    for node in order:
        moving = [o for o in node.operands if type(o) is Node and o.id in depends]
        if node.id in depends or not moving or not node.primitive.differentiable:
            continue
        depends.add(node.id)
        behind = [x for o in moving for x in linear.get(o.id, ())]
        newest, sources = stamp(), {node.id, *[o.id for o in moving]}
        slopes = _slopes(node, sources) if all([o.id in linear for o in moving]) else None
        if slopes is None or any([moves(d, sources, newest) for d in slopes]):
            cut.update({x.id: x for x in behind})
        else:
            linear[node.id] = behind if any([moves(d, sources, newest, steps=True) for d in slopes]) else [node]
    return list(cut.values())


def _itself(order: Sequence[Node], wrt: Sequence[Node]) -> list[Node]:
    return list(wrt)


def _slopes(node: Node, sources: set[int]) -> Result:
    """What the VJPs of a node make of ones, for its operands among ``sources``, as Nodes; None where they cannot."""
    if type(node.raw) is tuple or node.dtype.kind != "f":
        return None
    primitive, g = node.primitive, np.ones(node.shape, node.dtype)
    try:
        return [
            primitive.every(g, k, node, *node.operands, **node.statics)
            if primitive.every is not None
            else primitive.vjps[k](g, node, *node.operands, **node.statics)
            for k, operand in enumerate(node.operands)
            if type(operand) is Node and operand.id in sources and (primitive.every or primitive.vjps[k] is not None)
        ]
    except Exception:  # it serves arrays alone
        return None


def _size(x: Node, unit: bool) -> Result:
    """What distances are relative to. An element that is zero has no size of its own: beside 0.01, steps of 1e-8 would
    lose what a step of 1e-6 shows of (exp(x) - 1 - x) / x^2."""
    return np.maximum(np.abs(x.raw), 1.0 if unit else np.max(np.abs(x.raw), initial=0) or 1.0)


def _is_continuous(values: Sequence[Result], step: float) -> bool:
    stacked = np.stack([np.asarray(v, np.float64) for v in values])
    spread = np.fmax.reduce(stacked) - np.fmin.reduce(stacked)  # fmax and fmin do not warn where all are NaN
    return not np.any(spread > max(1e-6, 10 * np.sqrt(step)) * (1 + np.fmax.reduce(np.abs(stacked))))


def _agreed(near: list[list[Result]] | None) -> Result:
    """For each array the mean over the directions that have a derivative, whether there are two that agree, and the
    largest element."""
    if near is None:
        return None
    agreed = []
    for column in zip(*near, strict=True):
        stacked = np.stack(column)
        finite = np.isfinite(stacked)
        number = np.sum(finite, axis=0)
        size = np.max(np.abs(stacked), initial=0, where=finite)
        spread = np.max(stacked, axis=0, initial=-np.inf, where=finite) - np.min(
            stacked, axis=0, initial=np.inf, where=finite
        )
        mean = np.sum(stacked, axis=0, where=finite) / np.maximum(number, 1)
        agreed.append((mean, (number > 1) & (spread <= TOLERANCE * size + 1e-20), size))
    return agreed
