"""The limit of derivatives at a point: what they are nearby, along some rays and at several radii.

Each radius gives an estimate with its error (``scg.core.extrapolation``). Close by, no other kink is in the way, and
what cancels is lost; further out it is the other way round. So the search starts close by, and goes on as long as no
estimate is good enough. Those that stand are to agree, each within its error.
"""

import contextvars
import functools
from collections.abc import Callable, Sequence

import numpy as np

from scg.core.absorbing import moves, stamp
from scg.core.aliases import Function, Result
from scg.core.ambient import AMBIENT, RECORDER, SCOPE
from scg.core.ancestry import ancestors
from scg.core.extrapolation import Estimate, distances, ends, extrapolated
from scg.core.leaves import parameter
from scg.core.node import Node
from scg.core.replay import rerun
from scg.errors import ScgError

_RADII = (1e-6, 3), (1e-4, 3), (0.02, 4), (0.1, 5), (0.3, 6)
"""Radii, and how many distances there are on a ray. The first shows what lies close by, such as another kink; further
out less is lost where numbers cancel: of (exp(x) - 1 - x) / x^2 all is lost at the first."""

_TINY = 1e-60
"""A distance from zeros at which nothing rounds, but what cancels is lost."""

TOLERANCE, LEAST = 1e-7, 1e-5
"""Of the size of an element nearby: how well its limit is to be known, and how well at least."""

Derivative = Callable[[list[Result], list[Node]], list[Result]]


class Search:
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
        near ``found`` confirm it, and no others are its limit. What is smaller by 1e-12 than what is known, or than
        ``slopes``, the values of the roots over |x| or 1, is rounding.

        A limit that is not ``found`` is to be seen at three radii: at the first two 1 - cos(x^2) is 0. Where
        derivatives vanish at small distances alone, what they are made of has cancelled."""
        largest = np.max(new.size, initial=0, where=new.error <= LEAST * new.size)
        floor = 1e-12 * np.maximum(largest, slopes)
        away = np.abs(new.value - self.candidate)
        near = away <= 3 * new.error + TOLERANCE * new.size + floor
        agrees, clashes = np.full(new.value.shape, True), np.full(new.value.shape, False)
        for e in self.estimates:
            lost = (new.size == 0) & (e.size > 0)
            continuous, near = continuous & ~lost, near & ~lost
            apart = np.abs(new.value - e.value)
            rounding = floor + 1e-12 * np.minimum(new.size, e.size)
            agrees &= apart <= 10 * e.error + rounding
            clashes |= continuous & (apart > 10 * (e.error + new.error) + rounding) & (new.error <= 0.01 * new.size)
        sure = agrees & (continuous | near & (not self.fills))
        better = self.open & sure & (new.error < self.error) & (new.error <= LEAST * new.size + floor)
        self.limit = np.where(better, np.where(near, self.candidate, new.value), self.limit)
        self.limit = np.where(self.open & clashes, np.nan, self.limit)
        self.error = np.where(better, new.error, self.error)
        self.off |= self.open & (clashes | sure & (away > 3 * new.error + LEAST * new.size))
        again = continuous & (np.abs(new.value - self.limit) <= 10 * (new.error + self.error) + floor)
        enough = (near | again & (len(self.estimates) > 1)) & (self.error <= TOLERANCE * new.size + floor)
        self.open = self.open & ~(enough & ~np.isnan(self.limit)) & ~clashes
        if not self.estimates:
            self.open = self.open & ~new.jumps
        self.estimates.append(new._replace(error=np.where(continuous, new.error, np.inf)))

    def compare(self, close: Result, further: Result, again: Result, unit: bool) -> None:
        """What the derivatives at two radii show; ``again`` is for those ``close`` by, at nearly the same distances.

        Where they come nearer to the candidate the closer they are, as of x sqrt(x) to 0, it is the limit. Where they
        grow along each ray, they do so without bound, unless they are what is left of numbers that cancel, and so not
        alike at nearly the same distances, as of 1 - cos(x) divided by x^4."""
        size = lambda d, ray: np.max(np.abs(d[:, ray]), axis=0, initial=0, where=np.isfinite(d[:, ray]))
        nearest, near, far = [size(d - self.candidate, k) for d, k in ((close, 0), (close, -1), (further, 0))]
        possible = np.isfinite(self.estimates[-2].error) | (not self.fills)
        for e in self.estimates:
            possible = possible & (np.abs(e.value - self.candidate) <= 10 * e.error)
        unknown = self.open & np.isnan(self.limit)
        comes = unknown & possible & (nearest <= 0.8 * near) & (near <= 0.4 * far) & (near > 0)
        self.limit = np.where(comes, self.candidate, self.limit)
        nearest, near, far = size(close, 0), size(close, -1), size(further, 0)
        first = close[:, 0]
        small = ~(np.abs(first) > 0.01 * nearest)
        alike = np.abs(first - again[:, 0]) <= 0.1 * np.abs(first)
        for d in (close, further):
            alike &= np.all(d[:, :-1] / d[:, 1:] > 1, axis=1)
        grows = np.all(alike | small, axis=0) & (nearest > 1.05 * near) & (near > 1.1 * far) & unit
        self.kept |= unknown & grows
        self.off &= ~self.kept
        self.open = self.open & ~comes & ~self.kept

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


def searched(
    found: list[Result],
    derivative: Derivative,
    roots: Sequence[Result],
    wrt: Sequence[Node],
    moved: Callable[[list[Node], Sequence[Node]], list[Node]] | None = None,
    fills: bool = False,
) -> list[Search]:
    """What the derivatives nearby show of each array of ``found``; an empty list where nothing can be moved, or where
    none are finite of what a limit is to fill. What is moved is ``moved(order, wrt)``, or ``wrt``."""
    nodes = [root for root in roots if type(root) is Node]
    order = ancestors(nodes, min([x.id for x in wrt]), guards=True)
    if not all([np.isfinite(x.raw).all() for x in wrt]) or any(
        [node.statics and "site" in node.statics for node in order]  # a sample cannot be moved
    ):
        return []

    def search() -> list[Search]:
        for variable in (RECORDER, AMBIENT, SCOPE):
            variable.set(None)
        with np.errstate(all="ignore"):
            rays = _Rays(derivative, nodes, wrt, order, moved(order, wrt) if moved else list(wrt))
            return _by_radii(found, rays, fills)

    return contextvars.copy_context().run(search)


def _by_radii(found: list[Result], rays: "_Rays", fills: bool) -> list[Search]:
    searches = _by_some(found, rays, fills, True, [])
    for search in searches:
        search.open = search.open & np.isnan(search.limit)
    if rays.scales() and any([search.open.any() for search in searches]):
        searches = _by_some(found, rays, fills, False, searches)
    for search in searches:
        search.close()
    return searches


def _by_some(found: list[Result], rays: "_Rays", fills: bool, unit: bool, searches: list[Search]) -> list[Search]:
    kept: list[list[Result]] = []
    for radius, number in _RADII:
        t = distances(radius, number)
        samples, values = rays.at(t, unit, found if fills and not kept else None)
        if not samples:
            break
        if not searches:
            candidates = [_agreed(some) for some in rays.at(np.array([_TINY]), unit)[0]] if fills else found
            searches = [Search(g, c, fills) for g, c in zip(found, candidates, strict=True)]
        continuous = _continuous(rays.start, values, t)
        sizes = [np.nan_to_num(np.abs(v)) for v in rays.start]
        for search, some, x in zip(searches, samples, rays.wrt, strict=True):
            slopes = _rows(sizes, search.found, x, np.max) / np.maximum(np.abs(x.raw), 1)
            search.enter(extrapolated(some, t), _rows(continuous, search.found, x, np.all), slopes)
        kept.append(samples)
        if len(kept) == 2 and any([np.any(search.open & np.isnan(search.limit)) for search in searches]):
            again = rays.at(1.01 * distances(*_RADII[0])[:1], unit)[0]
            for search, *some in zip(searches, *kept, again, strict=True):
                search.compare(*some, unit)
        if not any([search.open.any() for search in searches]):
            break
    return searches


class _Rays:
    """Derivatives and values at x + t d, for four directions d: two, and their opposites."""

    def __init__(
        self,
        derivative: Derivative,
        roots: list[Node],
        wrt: Sequence[Node],
        order: list[Node],
        moved: list[Node],
    ):
        self.derivative, self.roots, self.wrt, self.order = derivative, roots, wrt, order
        rng = np.random.default_rng(0)
        signs = [np.ones(x.shape) for x in moved], [rng.choice([-1.0, 1.0], x.shape) for x in moved]
        each = [[s * rng.uniform(0.5, 1, s.shape) for s in some] for some in signs]
        if any([node.primitive.triangle for node in order]):
            each = [
                [_mirrored(d) if _is_symmetric(x.raw) else d for x, d in zip(moved, some, strict=True)] for some in each
            ]
        self.directions = [{x.id: k * d for x, d in zip(moved, some, strict=True)} for some in each for k in (1, -1)]
        self.sizes = {unit: {x.id: _size(x, unit) for x in moved} for unit in (True, False)}

    def scales(self) -> bool:
        """Whether zeros may have a size that is far from 1."""
        large, own = self.sizes[True], self.sizes[False]
        return any([np.any((size > 10 * large[i]) | (large[i] > 10 * size)) for i, size in own.items()])

    @functools.cached_property
    def start(self) -> list[Result]:
        """The values of the roots at the point itself, in double precision."""
        return self._again({})[1]

    def at(self, t: Result, unit: bool, missing: list[Result] | None = None) -> tuple[list[Result], list[Result]]:
        """For each array the derivatives, and for each root its values, (4, len(t), ...), NaN where there are none;
        empty lists where there are none at all, or none that are ``missing`` on the first two rays."""
        found: list[list[Result]] = []
        for number, direction in enumerate(self.directions):
            ray = []
            for s in t:
                shifts = {i: s * d * (1.0 if s < 1e-20 else self.sizes[unit][i]) for i, d in direction.items()}
                try:
                    new, values, moved = self._again(shifts)
                    some = [np.asarray(d, np.float64) for d in self.derivative(new, moved)]
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
        return columns[: -len(self.roots)], columns[-len(self.roots) :]

    def _again(self, shifts: dict[int, Result]) -> tuple[list[Result], list[Result], list[Node]]:
        moved = [parameter(x.raw.astype(np.float64)) for x in self.wrt]
        table: dict[int, Result] = {x.id: m for x, m in zip(self.wrt, moved, strict=True)}
        new = rerun(self.roots, self.order, table, set(), 0, True, _shifting(table, shifts))
        return new, [np.asarray(y.raw if type(y) is Node else y, np.float64) for y in new], moved


def _is_symmetric(x: Result) -> bool:
    return x.ndim > 1 and x.shape[-1] == x.shape[-2] and np.array_equal(x, np.swapaxes(x, -1, -2))


def _mirrored(d: Result) -> Result:
    """The lower triangle, above as well: what reads one triangle of symmetric matrices has the derivative of others
    beside them."""
    return np.tril(d) + np.swapaxes(np.tril(d, -1), -1, -2)


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


def foremost(order: Sequence[Node], wrt: Sequence[Node]) -> list[Node]:
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


def _continuous(start: list[Result], values: list[Result], t: Result) -> list[Result]:
    """For each root where it comes to its value at the point itself."""
    continuous = []
    for at, near in zip(start, values, strict=True):
        some, fit = ends(near, t)
        close = 10 * fit + 10 * TOLERANCE * np.fmax(np.max(np.abs(near), axis=(0, 1)), np.abs(at))
        continuous.append(~(np.max(np.abs(some - at), axis=0) > close))
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
