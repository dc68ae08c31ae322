"""Continuous samples as variables of an elimination: a lattice of points stands for the values of each.

    int p(z_1) p(z_2 | z_1) c(z_1, z_2) dz  ~  sum_jk h_1 p(x_j) h_2 p(x_k | x_j) c(x_j, x_k)

Nystrom's method for the integrals of a chain, whose tables are densities between fixed points: so a chain of n samples
takes n products of matrices, where a rule for the noise of each, of which later samples are functions, would take all
of them together. Points at equal steps over all that matters, the trapezoidal rule, are as good as a Gauss rule for
what is analytic on the line: the error is exp(-2 pi^2 s^2 / h^2) for a Gauss function of width s (Trefethen and
Weideman, 2014, "The exponentially convergent trapezoidal rule"). The points do not move with the parameters; so the
derivatives of the sum are the sums of the derivatives, and as good.

The lattices are made wider and finer, at other places, until results settle: two that follow one another share no point
and no symmetry. What is not smooth is refused, and so is what is much finer than a lattice: local parts of the cost and
densities are looked at along lines of many more points, at several values of all other samples, and close to places
where nodes on the way turn or change their sign. So are these nodes themselves: exp(-((z - .7) / .001)^2) times many
coins is zero along most lines, but the first factor is not. Of an evidence, whose factors are exp of what is looked at,
the product of all factors of each element must be wide enough for the points (``Lattices.resolved``).
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from scg.core.ancestry import ancestors
from scg.core.axes import padded
from scg.core.node import Node, value_of
from scg.core.replay import replay
from scg.distributions.base import Discrete, FiniteSupport
from scg.elimination.direct import NoStructure
from scg.elimination.finite import Lattice, Width, values_of
from scg.elimination.means import named
from scg.elimination.structure import Structure
from scg.elimination.sums import NotFinite, weighted
from scg.elimination.tabulate import colours_of
from scg.errors import ScgError, here
from scg.exact.gates import combinations, telling
from scg.exact.leaf import ConvergenceError
from scg.exact.looks import (
    AROUND,
    SEEN,
    Along,
    Around,
    Looked,
    lattices_of,
    meetings,
    on_lines,
    on_the_way,
    parts_of,
    refuse_steep,
    scopes_of,
)
from scg.exact.rules import place_of
from scg.stochastic.resampling import resample
from scg.stochastic.sides import is_break, sides
from scg.stochastic.sites import is_draw

# how many standard deviations a lattice reaches, its step in standard deviations, and where its first point lies
_LEVELS = ((9.0, 0.62, 0.0), (10.0, 0.5, 0.38), (12.0, 0.31, 0.76), (14.0, 0.19, 0.15), (16.0, 0.09, 0.53))
_OF_SQUARES = 3  # levels that moments try: each takes several times as long as the one before
_ROWS = 512  # samples that tell where a lattice has to be, and as many with finite samples spread out
_QUARTILES = 1.349  # standard deviations of a normal distribution between its quartiles
_LINES = 4  # of each element, with samples; further ones with combinations of finite samples
_COMBINATIONS, _AT_POINTS = 16, 64  # of these: where lines are looked at closely, and at the points of a lattice
_FINER, _FINEST = 32, 2**14
_BLOCK = 2**22  # numbers that one replay may make
_POOL = 2**12  # combinations of finite samples, of which some are chosen


class Attempt(NamedTuple):
    """What comes of some lattices: arrays; what rounding may have done to them; the probability of all values that they
    stand for, less one; the entries of all products, and the largest of these."""

    found: list[np.ndarray]
    error: float
    missing: float
    entries: int
    width: Width


class Lattices:
    """Where the lattices of the continuous draws behind some nodes lie. Raises NoStructure where a draw has none: of
    vectors, of a support with an end, of noise."""

    def __init__(self, roots: list[Node], names: dict[int, str], budget: int, deadline: float, evidence: bool = False):
        self.roots, self.names, self.budget, self.deadline, self.evidence = roots, names, budget, deadline, evidence
        self.order = ancestors(roots, guards=True)
        draws = [n for n in self.order if is_draw(n)]
        self.continuous = [n for n in draws if not n.statics["site"].distribution.has(FiniteSupport)]
        self.finite = [n for n in draws if n.statics["site"].distribution.has(FiniteSupport)]
        for node in self.continuous:
            distribution = node.statics["site"].distribution
            if distribution.has(Discrete) or node.statics["site"].event_ndim or node.dtype.kind != "f":
                raise NoStructure
            ends = [getattr(distribution.support, name, None) for name in ("low", "high")]
            if any([end is not None and np.any(np.isfinite(end)) for end in ends]):
                raise NoStructure

    def structure(self, lattices: Mapping[int, Lattice], roots: list[Node] | None = None) -> Structure:
        """The structure of the nodes, or of ``roots`` in their place, with lattices."""
        roots = self.roots if roots is None else roots
        found = Structure(roots[0], self.names, self.budget, self.deadline, roots, lattices=lattices)
        found.look()
        return found

    def joint(self, points: int, together: bool) -> bool:
        """Whether all that meets in a part of the cost, or ``together`` all there is, keeps to the budget with so many
        points for each continuous element."""
        structure = self.structure({n.id: Lattice(*np.zeros((2, points, n.size))) for n in self.continuous})
        most = math.log2(self.budget)
        return (structure.bits if together else structure.enumeration(most)[0]) <= most

    def sample(self) -> None:
        """Draw samples, of which the second half has finite ones that are spread over all values alike, as what is
        improbable may matter; and find where the continuous ones have their centres, and how wide they are."""
        rng = np.random.default_rng(0)
        draws = [*self.continuous, *self.finite]
        spread = {}
        for node in self.finite:
            batch = node.shape[: node.ndim - node.statics["site"].event_ndim]
            atoms = values_of(node.statics["site"].distribution, node.shape, len(batch))
            picks = atoms[rng.integers(len(atoms), size=(_ROWS, math.prod(batch))), np.arange(math.prod(batch))]
            spread[node.id] = np.asarray(picks, node.dtype).reshape(_ROWS, *node.shape)
        try:
            parts = [
                resample(draws, {}, rng=rng, size=_ROWS, values=values, create_graph=False) for values in ({}, spread)
            ]
        except ScgError:
            raise NoStructure from None
        self.samples = {n: np.asarray(np.concatenate([a, b]), n.dtype) for n, a, b in zip(draws, *parts, strict=True)}
        moving = {
            p.id: p
            for n in self.continuous
            for p in n.statics["site"].distribution.parameters.values()
            if type(p) is Node
        }
        rows = replay(list(moving.values()), self.samples, list(self.samples)) if moving else []
        known = dict(zip(moving, rows, strict=True))
        self.places = {}
        for node in self.continuous:
            distribution = node.statics["site"].distribution
            new = {
                name: padded(np.broadcast_to(known[p.id], (len(known[p.id]), *p.shape)), node.ndim)
                for name, p in distribution.parameters.items()
                if type(p) is Node
            }
            place = place_of(distribution.replaced(**new).detached())
            if place is None:
                raise NoStructure
            full = (2 * _ROWS, *node.shape)
            self.places[node.id] = tuple([np.broadcast_to(p, full).reshape(2 * _ROWS, -1) for p in place[2:]])

    def at(self, reach: float, step: float, shift: float) -> dict[int, Lattice]:
        """The lattices that reach so many standard deviations, with steps of so many. Their ends and steps are rounded,
        so that those of samples that are distributed much alike are the same."""
        found = {}
        for node in self.continuous:
            centre, scale = self.places[node.id]
            wide = scale / _QUARTILES
            lows, highs = [np.min(centre - reach * wide, axis=0)], [np.max(centre + reach * wide, axis=0)]
            for part in np.split(np.reshape(self.samples[node], (2 * _ROWS, -1)).astype(float), 2):
                mean, deviation = np.mean(part, axis=0), np.std(part, axis=0)
                lows.append(mean - reach * deviation)
                highs.append(mean + reach * deviation)
            low, high = np.min(lows, axis=0), np.max(highs, axis=0)
            grid = 2.0 ** (np.floor(np.log2(high - low)) - 3)
            low, high = grid * np.floor(low / grid), grid * np.ceil(high / grid)
            h = step * 2.0 ** (np.floor(4 * np.log2(np.quantile(wide, 0.02, axis=0))) / 4)
            count = int(np.max((high - low) / h, initial=0)) + 1
            if count > self.budget:
                raise NoStructure
            points = low + (np.arange(16 * -(-count // 16))[:, None] + shift) * h
            found[node.id] = Lattice(points, np.broadcast_to(h, points.shape))
        return found

    def look(self, structure: Structure, eps: float, squares: bool) -> None:
        """Raise ConvergenceError where a part of the cost or a density, along a line of finer points, is not smooth, or
        has another integral than by the points of its lattice.

        Elements with one colour run along their lines together, all others having the values of a sample.
        """
        parts = parts_of(structure)
        looked = parts + on_the_way(structure, {part.node.id for part in parts})
        colours = colours_of(structure, scopes_of(parts))
        size, first, step = lattices_of(structure)
        mean, deviation = np.zeros(len(size)), np.ones(len(size))
        for k, node in enumerate(structure.draws):
            if node.id in structure.lattices:
                own = slice(structure.offsets[k], structure.offsets[k + 1])
                drawn = np.reshape(self.samples[node], (2 * _ROWS, -1)).astype(float)
                mean[own], deviation[own] = np.mean(drawn, axis=0), np.std(drawn, axis=0)
        held = self._held(structure, parts, _COMBINATIONS)
        lines = len(next(iter(held.values())))
        breaking = [n for n in structure.order if n.id in structure.dependent and is_break(n)]
        for colour in np.unique(colours[size > 0]):
            mine = (size > 0) & (colours == colour)
            finer = int(max(4, min(_FINER, _FINEST // np.max(size[mine]))))
            last = int(np.max(size[mine]) - 1) * finer
            step_of_rows = max(finer, _BLOCK // max(1, structure.work * lines))
            every = [Along(part, mine) for part in looked]
            sums = [np.zeros((4, 1 + squares, lines, len(along.entries))) for along in every]
            before: list[np.ndarray] | None = None
            places = Around(every, lines, len(size))

            def run(x: np.ndarray, mine: np.ndarray = mine) -> tuple[list[np.ndarray], list[np.ndarray]]:
                """What is looked at, and the sides of what is not smooth, at x, (lines, points, elements)."""
                structure.check_time()
                values = on_lines(structure, held, mine, x)
                with np.errstate(all="ignore"):
                    found = replay([part.node for part in looked], values, list(values))
                    now = sides(breaking, values, x.shape[0] * x.shape[1]) if breaking else []
                flat = [[np.reshape(f, (*x.shape[:2], -1)) for f in part] for part in (found, now)]
                return flat[0], flat[1]

            for start in range(0, last + 1, step_of_rows):
                j = np.arange(start, min(start + step_of_rows, last + 1))
                inside = np.minimum(j[:, None], (size - 1) * finer)
                x = first + inside / finer * step
                density = np.exp(-0.5 * ((x - mean) / deviation) ** 2) * (inside == j[:, None])
                found, now = run(np.broadcast_to(x, (lines, *x.shape)))
                with np.errstate(all="ignore"):
                    for along, f, total in zip(every, found, sums, strict=True):
                        along.add(total, f, density, j % finer == 0)
                    places.add(found, x)
                before = [side[:, :1] for side in now] if before is None else before
                _refuse_breaks(breaking, now, before)
            for along, total in zip(every, sums, strict=True):
                along.refuse_more(total, finer, max(SEEN, 1e3 * eps))
            around = places.closed(run, first)
            if around is not None:
                x = around[:, :, None] + AROUND[:, None] * (step / finer)
                density = np.exp(-0.5 * ((x - mean) / deviation) ** 2)
                found, _ = run(x.reshape(lines, -1, len(size)))
                for along, f, total in zip(every, found, sums, strict=True):
                    along.refuse_narrow(total, f.reshape(*x.shape[:3], -1), density, max(SEEN, 1e3 * eps))

    def resolved(self, structure: Structure) -> None:
        """Raise ConvergenceError where the logarithms of all factors that one continuous element is in are together too
        narrow for its lattice, which those of the evidence may be while each of them is smooth."""
        parts = parts_of(structure)
        weights = [np.ones(len(part.scopes)) for part in parts]
        for k, weight in enumerate(weighted(structure, False)[1]):
            weights[k] = np.reshape(value_of(weight), -1)
        size, first, step = lattices_of(structure)
        colours = colours_of(structure, scopes_of(parts))
        held = self._held(structure, parts, _AT_POINTS)
        lines = len(next(iter(held.values())))
        for colour in np.unique(colours[size > 0]):
            structure.check_time()
            mine = (size > 0) & (colours == colour)
            j = np.arange(int(np.max(size[mine])))[:, None]
            x = first + np.minimum(j, size - 1) * step
            every = [Along(part, mine) for part in parts]
            few = max(1, _BLOCK // (structure.work * len(j)))
            for start in range(0, lines, few):
                some = {node: v[start : start + few] for node, v in held.items()}
                values = on_lines(structure, some, mine, np.broadcast_to(x, (min(few, lines - start), *x.shape)))
                with np.errstate(all="ignore"):
                    found = replay([part.node for part in parts], values, list(values))
                refuse_steep(every, weights, [np.reshape(f, (-1, len(j), f[0].size)) for f in found], size)

    def _held(self, structure: Structure, parts: list[Looked], most: int) -> dict[Node, np.ndarray]:
        """Values of all draws, from which lines start, with lines in front: samples, and some with combinations of the
        finite elements."""
        samples = np.arange(0, _ROWS, _ROWS // _LINES)
        finite = np.repeat([n.id not in structure.lattices for n in structure.draws], structure.counts)
        position = np.cumsum(finite) - 1
        meets: dict[int, set[int]] = {}
        for row in scopes_of(parts).tolist():
            coins = {int(position[e]) for e in row if e >= 0 and finite[e]}
            for e in row:
                if e >= 0 and not finite[e]:
                    meets.setdefault(e, set()).update(coins)
        if not finite.any():
            return {n: self.samples[n][samples] for n in structure.draws}
        sizes, near = structure.sizes[finite], list(meets.values())

        def started(rows: np.ndarray, first: np.ndarray) -> dict[Node, np.ndarray]:
            """Samples, and behind the ``first`` ones these values of the finite elements."""
            found = {n: self.samples[n][np.resize(samples, len(first) + len(rows))] for n in structure.draws}
            for k, node in enumerate(structure.draws):
                if node.id not in structure.lattices:
                    own = position[structure.offsets[k] : structure.offsets[k + 1]]
                    found[node][len(first) :] = structure.leaf(k).at(rows[:, own])
            return found

        rows = combinations(sizes, near, max(most, min(_POOL, _BLOCK // structure.work)))
        if len(rows) > most and structure.work * len(sizes) <= _BLOCK:
            terms = [part.node for part in parts]
            rows = rows[telling(meetings(structure, terms, finite), terms, started(rows, samples[:0]), most)]
        elif len(rows) > most:
            rows = combinations(sizes, near, most)
        return started(rows, samples)


def _refuse_breaks(nodes: list[Node], now: list[np.ndarray], before: list[np.ndarray]) -> None:
    """Raise ConvergenceError where a node comes to another side along a line."""
    for node, a, b in zip(nodes, now, before, strict=True):
        if np.any(a != b):
            raise ConvergenceError(
                f"{node!r}, at {node.line}, is not smooth where continuous samples run that are too many to be"
                f" integrated together by pieces; sample it ({here()})"
            )


def settled(
    lattices: Lattices, attempt: Callable[[Structure], Attempt], rtol: float, squares: bool = False
) -> tuple[list[np.ndarray], float, int, Width]:
    """What ``attempt`` makes of a structure whose lattices are fine enough: arrays, an estimate of their error, the
    entries of all products, the largest of these.

    Raises ConvergenceError where it does not settle; BudgetError where the lattices are too large before it does.
    """
    lattices.sample()
    last: Attempt | None = None
    narrow: ConvergenceError | None = None
    eps = max([float(np.finfo(n.dtype).eps) for n in lattices.roots if n.dtype.kind == "f"], default=2e-16)
    rtol, closest = max(rtol, 64 * eps), math.inf
    for level in _LEVELS[: _OF_SQUARES if squares else None]:
        structure = lattices.structure(lattices.at(*level))
        try:
            with np.errstate(all="ignore"):
                now = attempt(structure)
        except NotFinite:
            break
        if last is not None and all([np.isfinite(x).all() for x in (*now.found, *last.found)]):
            moved = [_largest(a - b) for a, b in zip(now.found, last.found, strict=True)]
            near = [m <= rtol * _largest(a) + 4 * now.error for m, a in zip(moved, now.found, strict=True)]
            closest = min(closest, max(moved, default=0.0))
            if all(near) and max(now.missing, last.missing) <= rtol:
                try:
                    if lattices.evidence:
                        lattices.resolved(structure)
                except ConvergenceError as error:
                    last, narrow = now, error
                    continue
                lattices.look(structure, eps, squares)
                return now.found, max([now.error, *moved]), now.entries, now.width
        last = now
    if narrow is not None:
        raise narrow
    lattices.look(structure, eps, squares)  # which may know more
    raise ConvergenceError(
        f"the mean over {named(lattices.continuous)} did not settle on lattices: the last change was {closest:.3g};"
        f" what is integrated is not smooth, or has no such mean; raise rtol=, or sample it ({here()})"
    )


def _largest(x: np.ndarray) -> float:
    return float(np.max(np.abs(x), initial=0))
