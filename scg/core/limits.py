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
from collections.abc import Callable, Sequence

import numpy as np

from scg.core.absorbing import moves, stamp
from scg.core.aliases import Function, Result
from scg.core.ambient import AMBIENT, RECORDER, SCOPE
from scg.core.ancestry import ancestors
from scg.core.extrapolation import Estimate, distances, ends, extrapolated
from scg.core.leaves import parameter
from scg.core.node import Node
from scg.core.operands import has_nan
from scg.core.primitive import smooth_primitive
from scg.core.replay import rerun
from scg.errors import ScgError

_LEVELS = (1e-6, 3), (1e-4, 3), (0.02, 4), (0.1, 5), (0.3, 6)
"""Radii, and how many distances there are on a ray. The first shows what lies close by, such as another kink; further
out less is lost where numbers cancel: of (exp(x) - 1 - x) / x^2 all is lost at the first."""

_TINY = 1e-60
"""A distance from zeros at which nothing rounds, but what cancels is lost."""

TOLERANCE, LEAST = 1e-7, 1e-5
"""Of the size of an element nearby: how well its limit is to be known, and how well at least."""

Derivative = Callable[[list[Result], list[Node]], list[Result]]


def limit(found: list[Result], derivative: Derivative, roots: Sequence[Result], wrt: Sequence[Node]) -> list[Result]:
    """``found`` with limits in place of its NaN, where there are such.

    ``derivative(roots, wrt)`` gives the arrays that stand in ``found`` for other nodes. Each NaN is replaced where the
    derivatives at x + t d have the same limit for all directions d in whose direction they exist, two at least, and the
    roots are continuous there. ``t d`` is added to the last nodes that are linear in ``wrt``, or else to ``wrt``: in
    hypot(x[None] @ x[:, None], 0) the two are one x, and moved apart they have a kink.
    """
    found = [g.raw if type(g) is Node else g for g in found]
    for cut, unit in itertools.product((_cut, _itself), (True, False)):
        if not any(map(has_nan, found)):
            break
        near = _searched(found, derivative, roots, wrt, cut, unit, fills=True)
        found = [_with(g, np.isnan(g), n.limit) for g, n in zip(found, near, strict=True)] if near else found
    return found


def confirmed(
    found: list[Result],
    derivative: Derivative,
    roots: Sequence[Result],
    wrt: Sequence[Node],
    cost: Node | None = None,
) -> list[Result]:
    """``found`` where the derivatives nearby come near it; their limit where that is another one and the roots are
    continuous; else NaN. ``found`` itself where there are no derivatives nearby, or where these grow without bound: a
    mask as in where(x > 0, sqrt(x), 0) is there to keep them out.

    For derivatives of what a tie made of a derivative (``Primitive.shares``). The slope of max(x, -x)^2 at 0 is
    2 max (1/2 - 1/2), its derivative by parts 2 (1/2 - 1/2)^2 = 0, and the second derivative 2. Here x itself is moved:
    what is tied is made of it in several ways. Where the ``cost`` is given whose derivatives the roots are, the cost is
    to be continuous, and the roots are to have limits.
    """
    settled, missing = found, [np.full(g.shape, True) for g in found]
    for unit in (True, False):
        near = _searched(found, derivative, roots, wrt, _itself, unit, cost=cost)
        if not near:
            break
        settled = [
            _with(s, m, np.where(n.kept, g, n.limit), True)
            for s, m, g, n in zip(settled, missing, found, near, strict=True)
        ]
        missing = [m & n.open for m, n in zip(missing, near, strict=True)]
        if not any(map(np.any, missing)):
            break
    return settled


def beside(found: list[Result], derivative: Derivative, roots: Sequence[Result], wrt: Sequence[Node]) -> list[Result]:
    """``found``, and where the derivatives nearby have another limit, and the roots are continuous, that; NaN where
    they nearly have one.

    For first derivatives where a mask belongs to neither side of its jump (``scg.core.ties.isolated``)."""
    settled, missing = found, [np.full(g.shape, True) for g in found]
    for unit in (True, False):
        near = _searched(found, derivative, roots, wrt, _itself, unit)
        if not near:
            break
        settled = [
            _with(s, m & (n.off | ~np.isnan(n.limit)), n.limit, True)
            for s, m, n in zip(settled, missing, near, strict=True)
        ]
        missing = [m & n.open for m, n in zip(missing, near, strict=True)]
        if not any(map(np.any, missing)):
            break
    return settled


def _with(g: Result, where: Result, limit: Result, nan: bool = False) -> Result:
    return np.asarray(np.where(where & (nan | ~np.isnan(limit)), limit, g), g.dtype)


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


class _Search:
    """What is known of the limit of one array of derivatives, which is ``found`` at the point itself.

    ``limit`` is NaN where none is known, and ``open`` says where another one may be found; ``kept`` where derivatives
    grow without bound, or where ``found`` is as good as what is nearby; ``off`` where it is not, and no limit is known
    well. ``candidate`` is what the limit is where it is near that: it has the last bits.
    """

    def __init__(self, found: Result, candidate: Result, fills: bool):
        self.found, self.candidate, self.fills = found, candidate, fills
        self.limit = np.full(found.shape, np.nan)
        self.error = np.full(found.shape, np.inf)
        self.open = np.isnan(found) if fills else np.full(found.shape, True)
        self.kept = np.full(found.shape, False)
        self.off = np.full(found.shape, False)
        self.estimates: list[Estimate] = []

    def enter(self, new: Estimate, continuous: Result, slopes: Result) -> None:
        """What the derivatives at some distances show. Where the roots are not ``continuous``, derivatives that come
        near ``found`` confirm it, and no others are its limit. What is smaller by 1e-12 than ``slopes``, the values of
        the roots over |x| or 1, is rounding."""
        floor = 1e-12 * np.maximum(np.max(new.size, initial=0, where=new.error <= LEAST * new.size), slopes)
        away = np.abs(new.value - self.candidate)
        near = away <= 3 * new.error + TOLERANCE * new.size + floor
        agrees = np.full(new.value.shape, True)
        for e in self.estimates:
            agrees &= np.abs(new.value - e.value) <= 10 * e.error + floor
        sure = continuous & agrees | near & (not self.fills)
        better = self.open & sure & (new.error < self.error) & (new.error <= LEAST * new.size + floor)
        self.limit = np.where(better, np.where(near, self.candidate, new.value), self.limit)
        self.error = np.where(better, new.error, self.error)
        self.off |= self.open & sure & (away > 3 * new.error + LEAST * new.size)
        self.open = self.open & ~(better & (new.error <= TOLERANCE * new.size + floor))
        if not self.estimates:
            self.open = self.open & ~new.jumps
        self.estimates.append(new._replace(error=np.where(continuous, new.error, np.inf)))

    def compare(self, close: Result, further: Result, again: Result, unit: bool) -> None:
        """What the derivatives at two radii show; ``again`` is for those ``close`` by, at nearly the same distances.

        Where they come nearer to the candidate the closer they are, as of x sqrt(x) to 0, it is the limit. Where they
        grow, they do so without bound, unless they are what is left of numbers that cancel, and so not alike at nearly
        the same distances, as of 1 - cos(x) divided by x^4."""
        size = lambda d, ray: np.max(np.abs(d[:, ray]), axis=0, initial=0, where=np.isfinite(d[:, ray]))
        nearest, near, far = [size(d - self.candidate, k) for d, k in ((close, 0), (close, -1), (further, 0))]
        known = not self.fills or np.isfinite(self.estimates[0].error)
        comes = self.open & known & (nearest <= 0.8 * near) & (near <= 0.4 * far)
        self.limit = np.where(comes, self.candidate, self.limit)
        nearest, near, far = size(close, 0), size(close, -1), size(further, 0)
        alike = np.abs(close[:, 0] - again[:, 0]) <= 0.1 * np.abs(close[:, 0])
        grows = np.all(alike | ~np.isfinite(close[:, 0]), axis=0) & (nearest > 1.05 * near) & (near > 1.1 * far) & unit
        self.kept |= self.open & grows
        self.off &= ~self.kept
        self.open = self.open & ~comes & ~grows

    def close(self) -> None:
        """When nothing more is looked at: what nothing nearby shows more precisely is as it was found. Its own digits
        are lost where numbers cancel, mask or no mask."""
        first, least = self.estimates[0], np.minimum.reduce([e.error for e in self.estimates])
        self.off |= self.open & (first.error > 10 * least)
        alike = (first.error <= 10 * least) & (first.error <= 0.01 * first.size)
        alike &= np.isnan(self.limit) & (np.abs(self.found - first.value) <= 3 * first.error)
        self.kept |= self.open & alike
        self.off &= ~self.kept
        self.open = self.open & ~self.kept & np.isnan(self.limit)


def _searched(
    found: list[Result],
    derivative: Derivative,
    roots: Sequence[Result],
    wrt: Sequence[Node],
    cut: Result,
    unit: bool,
    fills: bool = False,
    cost: Node | None = None,
) -> list[_Search]:
    """What the derivatives nearby show of each array of ``found``; an empty list where nothing can be moved, or where
    none are finite of what a limit is to fill. What is moved is ``cut(order, wrt)``."""
    nodes = [root for root in roots if type(root) is Node]
    seen = nodes if cost is None else [*nodes, cost]
    order = ancestors(seen, min([x.id for x in wrt]), guards=True)
    if not all([np.isfinite(x.raw).all() for x in wrt]) or any(
        [node.statics and "site" in node.statics for node in order]  # a sample cannot be moved
    ):
        return []

    def search() -> list[_Search]:
        for variable in (RECORDER, AMBIENT, SCOPE):
            variable.set(None)
        with np.errstate(all="ignore"):
            moved = cut(order, wrt)
            if not unit and all([np.all(_size(x, True) == _size(x, False)) for x in moved]):
                return []  # nothing new
            rays = _Rays(derivative, nodes, seen, wrt, order, moved, unit)
            return _by_levels(found, rays, fills, len(nodes) if cost is not None else 0)

    return contextvars.copy_context().run(search)


def _by_levels(found: list[Result], rays: "_Rays", fills: bool, derived: int) -> list[_Search]:
    searches, start, kept = list[_Search](), list[Result](), list[list[Result]]()
    for level, (radius, number) in enumerate(_LEVELS):
        t = distances(radius, number)
        samples, values = rays.at(t, found if fills and not level else None)
        if not samples:
            return []
        if not level:
            start = rays.start()
            candidates = [_agreed(some) for some in rays.at(np.array([_TINY]))[0]] if fills else found
            searches = [_Search(g, c, fills) for g, c in zip(found, candidates, strict=True)]
        continuous = _continuous(start, values, t, derived)
        sizes = [np.nan_to_num(np.max(np.abs(v), axis=(0, 1))) for v in values]
        for search, some, x in zip(searches, samples, rays.wrt, strict=True):
            slopes = _rows(sizes, search.found, x, np.max) / np.maximum(np.abs(x.raw), 1)
            search.enter(extrapolated(some, t), _rows(continuous, search.found, x, np.all), slopes)
        kept.append(samples)
        if level == 1:
            again = rays.at(1.01 * distances(_LEVELS[0][0], _LEVELS[0][1])[:1])[0]
            for search, *some in zip(searches, *kept, again, strict=True):
                search.compare(*some, rays.unit)
        if not any([search.open.any() for search in searches]):
            break
    for search in searches:
        search.close()
    return searches


class _Rays:
    """Derivatives and values at x + t d, for four directions d: two, and their opposites."""

    def __init__(
        self,
        derivative: Derivative,
        roots: list[Node],
        seen: list[Node],
        wrt: Sequence[Node],
        order: list[Node],
        moved: list[Node],
        unit: bool,
    ):
        self.derivative, self.roots, self.seen, self.wrt, self.order = derivative, roots, seen, wrt, order
        rng = np.random.default_rng(0)
        signs = [np.ones(x.shape) for x in moved], [rng.choice([-1.0, 1.0], x.shape) for x in moved]
        each = [[s * rng.uniform(0.5, 1, s.shape) for s in some] for some in signs]
        self.directions = [{x.id: k * d for x, d in zip(moved, some, strict=True)} for some in each for k in (1, -1)]
        self.unit = unit
        self.sizes = {x.id: _size(x, unit) for x in moved}

    def start(self) -> list[Result]:
        """The values of the roots at the point itself, in double precision."""
        return self._again({})[1]

    def at(self, t: Result, missing: list[Result] | None = None) -> tuple[list[Result], list[Result]]:
        """For each array the derivatives, and for each root its values, (4, len(t), ...), NaN where there are none;
        empty lists where there are none at all, or none that are ``missing`` on the first two rays."""
        found: list[list[Result]] = []
        for number, direction in enumerate(self.directions):
            ray = []
            for s in t:
                shifts = {i: s * d * (1.0 if s < 1e-20 else self.sizes[i]) for i, d in direction.items()}
                try:
                    new, values, moved = self._again(shifts)
                    some = [np.asarray(d, np.float64) for d in self.derivative(new[: len(self.roots)], moved)]
                except (ScgError, np.linalg.LinAlgError):  # a guard that comes out otherwise, say
                    break
                ray.append([*some, *values])
            found.append(ray if len(ray) == len(t) else [])
            if (
                missing is not None
                and number == 1
                and not any(
                    [
                        np.isfinite(d[np.isnan(g)]).any()
                        for r in found
                        for some in r
                        for d, g in zip(some, missing, strict=False)
                    ]
                )
            ):
                return [], []
        like = next((ray for ray in found if ray), None)
        if like is None:
            return [], []
        nothing = [[np.full_like(v, np.nan) for v in some] for some in like]
        columns = [
            np.stack([np.stack([some[k] for some in ray or nothing]) for ray in found]) for k in range(len(nothing[0]))
        ]
        return columns[: -len(self.seen)], columns[-len(self.seen) :]

    def _again(self, shifts: dict[int, Result]) -> tuple[list[Result], list[Result], list[Node]]:
        moved = [parameter(x.raw.astype(np.float64)) for x in self.wrt]
        table: dict[int, Result] = {x.id: m for x, m in zip(self.wrt, moved, strict=True)}
        new = rerun(self.seen, self.order, table, set(), 0, True, _shifting(table, shifts))
        return new, [np.asarray(y.raw if type(y) is Node else y, np.float64) for y in new], moved


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
    """What distances are relative to: each element, and for a zero 1 or else the largest element."""
    size = np.abs(x.raw).astype(np.float64)
    return np.where(size == 0, 1.0 if unit else np.max(size, initial=0) or 1.0, size)


def _continuous(start: list[Result], values: list[Result], t: Result, derived: int) -> list[Result]:
    """For each root where it comes to its value at the point itself; where, of the first ``derived``, the rays lead to
    one value."""
    continuous = []
    for k, (at, near) in enumerate(zip(start, values, strict=True)):
        some, fit = ends(near, t)
        close = 10 * fit + 1e-9 * np.fmax(np.max(np.abs(near), axis=(0, 1)), np.abs(at))
        off = np.max(some, axis=0) - np.min(some, axis=0) if k < derived else np.max(np.abs(some - at), axis=0)
        continuous.append(~(off > close))
    return continuous


def _rows(some: list[Result], found: Result, x: Node, over: Function) -> Result:
    """For each derivative, of what belongs to roots, what belongs to the root of its row of a Jacobian; else all
    together, by ``over``. Others than the first belong to each row."""
    first = some[0]
    if found.shape == first.shape + x.shape:
        first = np.reshape(first, first.shape + (1,) * x.ndim)
        return first if len(some) == 1 else over(np.stack(np.broadcast_arrays(first, *map(over, some[1:]))), axis=0)
    return over(list(map(over, some)))


def _agreed(samples: Result) -> Result:
    """The mean of the derivatives on the rays where they agree, else NaN."""
    finite = np.isfinite(samples)
    number = np.sum(finite, axis=(0, 1))
    size = np.max(np.abs(samples), initial=0, where=finite)
    spread = np.max(samples, axis=(0, 1), initial=-np.inf, where=finite) - np.min(
        samples, axis=(0, 1), initial=np.inf, where=finite
    )
    mean = np.sum(samples, axis=(0, 1), where=finite) / np.maximum(number, 1)
    return np.where((number > 1) & (spread <= 1e-7 * size + 1e-20), mean, np.nan)
