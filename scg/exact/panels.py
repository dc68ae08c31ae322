"""An adaptive quadrature that shares no point and no symmetry with the rules of ``rules``: what their result is held
against.

Settling each continuous element the line is x = x(v), an interval of v cut at irregular places into *panels* of ten
Gauss-Legendre points each. A panel is cut again while the sum over its parts differs from it, for any part of the cost:
steps, kinks, poles and steep places draw panels to themselves. A feature narrower than the first panels shows where a
node on the way to the cost changes its sign, its direction or its truth: (z - .31) / .001 is no narrower than z. Such
places are found by bisection, and panels shrink towards them geometrically before it is judged whether anything is
there.

Other elements that meet this one in a part of the cost are held at a few values: continuous ones are drawn with a
generator of its own, so that no result depends on recorded samples; finite ones have all their combinations, or those
that let what is on the line count (``gates``).
"""

import itertools
import math
from typing import NamedTuple

import numpy as np

from scg.core.node import Node
from scg.core.replay import replay
from scg.exact.engine import Engine
from scg.exact.gates import Meeting, combinations, telling
from scg.exact.leaf import Choice, Leaf
from scg.exact.lines import NODES, NOWHERE, POINTS, WEIGHTS, Integrals, Line, Places, Run, Settling, between, split
from scg.exact.meeting import at_places
from scg.exact.rules import Rule
from scg.exact.turns import candidates
from scg.stochastic.sides import is_break, sides

_LARGEST = 2**20  # elements that the largest array of a block of rows may have
_DEPTH = 64
_CHOICES = 5  # of the other elements: what happens at one place of a line happens, most often, at some place of others
_FEW = 9  # combinations of finite elements that are all tried
_POOL, _MOST = 2**16, 32  # others that are looked at, and how many of them are chosen
_WORK = 2**24  # numbers that these may make
_OPEN = 1e-6  # of E|.|, that does not settle where no more is known
_LOOKS = 2  # of the choices, at which nodes are looked at, beside one for each combination


class Found(NamedTuple):
    """By element: ``rules``, points and steps; ``doubt``, what is unresolved there as a fraction of E|.|, and where;
    ``totals``, the mean along the line of each part of the cost, and ``scale``, the largest mean of its size, (choices,
    columns) each."""

    rules: dict[int, Rule]
    doubt: dict[int, tuple[float, float, float]]
    totals: Places
    scale: Places
    along: dict[int, Settling]


class Panels:
    """The panels of all lines of an engine, resolved together where no part of the cost has two of their elements."""

    def __init__(self, engine: Engine, seed: int = 0, squares: bool = False):
        self.engine, self.squares, self.seed = engine, squares, seed
        self.leaves: list[Leaf] = engine.leaves
        self.elements = [
            e
            for e in sorted(set().union(*engine.sets))
            if (leaf := self.leaf(e)).adaptive and leaf.place is not None and not leaf.discrete
        ]
        self.columns: dict[int, list[int]] = {e: [] for e in self.elements}
        for column, s in enumerate(engine.sets):
            for e in s:
                if e in self.columns:
                    self.columns[e].append(column)
        self.largest = max([1, *[n.size for n in engine.order if type(n.raw) is not tuple]])
        self.choices, self.looks = self._choices()
        self.shares: Places = {}
        self.first = len(self.choices)
        """How many of the choices are drawn; at the others further elements are at places where nodes turn."""
        self.tolerance = max(1e-13, 64 * engine.eps)
        known = {n.id for n in engine.leading}
        self.watched = [
            n
            for n in engine.order
            if n.id in known and type(n.raw) is not tuple and n.dtype.kind in "fiub" and n.id in engine.reach
        ]

    @property
    def work(self) -> int:
        """The numbers that one row of all nodes makes."""
        return max(1, sum([n.size for n in self.engine.order if type(n.raw) is not tuple]))

    def resolve(self) -> Found:
        found = Found({}, {}, {}, {}, {})
        met = [np.max(np.sum(self.engine.reach[n.id][:, self.elements], axis=1), initial=0) for n in self.watched]
        alone = [n for n, count in zip(self.watched, met, strict=True) if count <= 1]
        together = [n for n, count in zip(self.watched, met, strict=True) if count > 1]
        started = [self._settling(group) for group in self.groups()]
        own = [self._turns(along, alone) for along in started]
        places = [
            {e: np.union1d(v[e], at) for e, at in self._turns(along, together).items()}
            for along, v in zip(started, own, strict=True)
        ]
        further = at_places(
            self, {e: a.line.at(v[e])[0] for along, v in zip(started, own, strict=True) for e, a in along.items()}
        )
        if further.choices:
            self.choices, self.shares = [*self.choices, *further.choices], further.shares
            started = [self._settling(list(along)) for along in started]
        for along, v in zip(started, places, strict=True):
            self._resolve(along, v, found)
        return found

    def apart(self, found: Found) -> tuple[float, int]:
        """By how much the rules that the leaves have now differ along the lines, as a fraction of E|.|: the most, and
        of which element."""
        worst = (0.0, -1)
        for group in self.groups():
            for k, choice in enumerate(self.choices):
                if all([found.along[e].open[k] > _OPEN for e in group]):
                    continue
                points, weights = self._by_rules(group, choice)
                run = self.run(points, choice, [])
                for e in group:
                    p = weights[e] * (run.densities[e] if self.leaf(e).by_density else 1)
                    f = run.costs[:, self.columns[e]]
                    with np.errstate(all="ignore"):
                        f = np.concatenate([f, f * f], axis=1) if self.squares else f
                        total = np.sum(np.where(p[:, None] == 0, 0, f * p[:, None]), axis=0)
                        off = np.abs(total - found.totals[e][k][:-1]) / found.along[e].unit[k][:-1]
                    if k >= self.first and found.along[e].open[k] > _OPEN:
                        continue
                    most = float(np.max(np.where(np.isnan(off), math.inf, off), initial=0))
                    worst = max(worst, (most, e))
        return worst

    def _by_rules(self, group: list[int], choice: Choice) -> tuple[Places, Places]:
        """The points of the rules that the leaves of some elements have now, and their weights, of one length."""
        points, weights = {}, {}
        rows = max([self.leaf(e).size for e in group])
        for leaf in {id(self.leaf(e)): self.leaf(e) for e in group}.values():
            columns = {e: self.engine.column(e) for e in group if self.leaf(e) is leaf}
            digits, inside = np.full((rows, leaf.count), -1), np.arange(rows) < leaf.size
            digits[:, list(columns.values())] = np.minimum(np.arange(rows), leaf.size - 1)[:, None]
            x, w = leaf.at(digits, self.engine.distribution_at(leaf, choice))
            assert w is not None  # a leaf of these has a density
            for e, column in columns.items():
                points[e] = np.reshape(x, (rows, leaf.count))[:, column]
                weights[e] = np.where(inside, w[:, column], 0)
        return points, weights

    def leaf(self, e: int) -> Leaf:
        return self.engine.leaf(e)

    def groups(self) -> list[list[int]]:
        """Elements of which no two are in one set, together."""
        near: dict[int, set[int]] = {e: set() for e in self.elements}
        for s in set(self.engine.sets):
            inside = [e for e in s if e in near]
            for e in inside:
                near[e].update(inside)
        colour: dict[int, int] = {}
        for e in self.elements:
            taken = {colour[o] for o in near[e] if o in colour}
            colour[e] = next(c for c in itertools.count() if c not in taken)
        return [[e for e in self.elements if colour[e] == c] for c in range(max(colour.values(), default=-1) + 1)]

    def _choices(self) -> tuple[list[Choice], list[Choice]]:
        """Values of all leaves, (1, *shape) each: combinations of the finite ones (``gates``); of the others samples,
        the parents' values given. And those at which nodes are looked at: some, and one for each combination."""
        engine = self.engine
        offsets = {id(leaf): start for leaf, start in zip(self.leaves, engine.offsets, strict=False)}
        finite = np.concatenate(
            [np.arange(leaf.count) + offsets[id(leaf)] for leaf in self.leaves if not leaf.adaptive] or [[]]
        )
        position = {int(e): k for k, e in enumerate(finite)}
        meets: dict[int, set[int]] = {e: set() for e in self.elements}
        for s in set(engine.sets):
            for e in s & set(self.elements):
                meets[e].update([position[o] for o in s if o in position])
        sizes = np.array([self.leaf(int(e)).size for e in finite], int)
        several = any([len(s) > 1 for s in engine.sets])
        rows = combinations(sizes, list(meets.values()), max(_FEW, min(_POOL, _WORK // self.work)))
        rows = rows[np.arange(max(len(rows), _CHOICES)) % len(rows)] if several else rows[:1]
        rng, pool = np.random.default_rng(self.seed), Choice()
        with np.errstate(all="ignore"):
            for leaf in self.leaves:
                if leaf.adaptive:
                    pool[leaf.node] = leaf.drawn(rng, engine.distribution_at(leaf, pool), len(rows))
                else:
                    own = [position[offsets[id(leaf)] + j] for j in range(leaf.count)]
                    pool[leaf.node] = leaf.at(rows[:, own], None)[0]
        chosen = np.arange(len(rows))
        if len(rows) > _FEW:
            found = [
                Meeting(n, engine.reach[n.id][:, finite], np.any(engine.reach[n.id][:, self.elements], axis=1))
                for n in engine.leading
                if n.id in engine.reach and type(n.raw) is not tuple
            ]
            chosen = telling(found, engine.terms, pool, _MOST)
        choices: list[Choice] = [{n: v[k : k + 1] for n, v in pool.items()} for k in chosen]
        _, first = np.unique(rows[chosen], axis=0, return_index=True)
        return choices, [choices[k] for k in sorted({*range(min(_LOOKS, len(choices))), *first.tolist()})]

    def run(self, x: Places, choice: Choice, nodes: list[Node], costs: bool = True) -> Run:
        """The parts of the cost where some elements are as in ``x``, others as in ``choice``; and other nodes there."""
        rows = len(next(iter(x.values())))
        step = max(1, _LARGEST // self.largest)
        parts = [
            self._block({e: v[k : k + step] for e, v in x.items()}, choice, nodes, costs)
            for k in range(0, max(rows, 1), step)
        ]
        if len(parts) == 1:
            return parts[0]
        found, densities, others = zip(*parts, strict=True)
        return Run(
            np.concatenate(found),
            {e: np.concatenate([d[e] for d in densities]) for e in x},
            [np.concatenate(c) for c in zip(*others, strict=True)],
        )

    def held(self, x: Places, choice: Choice) -> Choice:
        """The values of all leaves, with rows in front: some elements as in ``x``, others as in ``choice``."""
        return {node: v.reshape(len(v), *node.shape) for node, v in self._spread(x, choice).items()}

    def _spread(self, x: Places, choice: Choice) -> Choice:
        rows = len(next(iter(x.values())))
        held = {
            leaf.node: np.repeat(choice[leaf.node], rows, axis=0).reshape(rows, leaf.count, *leaf.event)
            for leaf in self.leaves
        }
        for e, v in x.items():
            held[self.leaf(e).node][:, self.engine.column(e)] = v
        return held

    def _block(self, x: Places, choice: Choice, nodes: list[Node], costs: bool) -> Run:
        rows, engine = len(next(iter(x.values()))), self.engine
        engine.check_time()
        held = self._spread(x, choice)
        density = self._densities(x, held, rows)
        for e, p in density.items():  # what has no density is not looked at: other samples may not have such parameters
            if p.all():
                continue
            column = held[self.leaf(e).node][:, engine.column(e)]
            column[:] = np.where(p > 0, column, np.reshape(choice[self.leaf(e).node], -1)[engine.column(e)])
        held = {node: v.reshape(rows, *node.shape) for node, v in held.items()}
        terms = engine.terms if costs else []
        with np.errstate(all="ignore"):
            found = [np.reshape(v, (rows, -1)) for v in replay([*terms, *nodes], held, list(held))]
            others = found[len(terms) :]
            if not costs:
                sided = [k for k, n in enumerate(nodes) if is_break(n)]
                for k, side in zip(sided, sides([nodes[k] for k in sided], held, rows), strict=True):
                    others[k] = side
            costs_there = np.concatenate([np.zeros((rows, 0)), *found[: len(terms)]], axis=1).astype(float)
            return Run(costs_there, density, others)

    def _densities(self, x: dict[int, np.ndarray], held: Choice, rows: int) -> Places:
        """The density of each element that moves, (rows,)."""
        values = {node: v.reshape(rows, *node.shape) for node, v in held.items()}
        known: Choice = {}
        with np.errstate(all="ignore"):
            for leaf in {id(self.leaf(e)): self.leaf(e) for e in x}.values():
                log_p = (
                    leaf.distribution.log_prob(values[leaf.node])
                    if leaf.score is None
                    else replay(leaf.score, values, list(values))
                )
                known[leaf.node] = np.exp(np.reshape(log_p, (rows, leaf.count)))
        return {e: known[self.leaf(e).node][:, self.engine.column(e)] for e in x}

    def _settling(self, group: list[int]) -> dict[int, Settling]:
        lines = {e: self._line(e) for e in group}
        first = self.integrals(lines, {e: line.panels for e, line in lines.items()})
        more = np.ones(len(self.choices) - self.first)
        shares = {e: np.append(np.ones(self.first), self.shares.get(e, more)) for e in lines}
        return {e: Settling(line, first[e], self.first, shares[e]) for e, line in lines.items()}

    def _turns(self, along: dict[int, Settling], nodes: list[Node]) -> Places:
        """Where some nodes turn along lines."""
        lines, panels = ({e: getattr(a, part) for e, a in along.items()} for part in ("line", "active"))
        return candidates(self, lines, panels, nodes)

    def _resolve(self, along: dict[int, Settling], places: Places, found: Found) -> None:
        """The lines of some elements, of which no two meet in a part of the cost: all are run together."""
        lines = {e: a.line for e, a in along.items()}
        self._cut_at_turns(along, places)
        for e, whole in self.integrals(lines, {e: a.active for e, a in along.items()}).items():
            along[e].whole = whole
        for depth in range(_DEPTH):
            cuts = {e: a.cuts(places[e] if depth == 0 else NOWHERE) for e, a in along.items()}
            new = self.integrals(lines, {e: between(edges) for e, edges in cuts.items()})
            for e, a in along.items():
                if depth == 0:
                    a.rescale(new[e])
                a.judge(cuts[e], new[e], self.tolerance, self.engine.eps, depth == _DEPTH - 1)
            if not any([len(a.active) for a in along.values()]):
                break
        for e, a in along.items():
            found.rules[e], found.totals[e], found.scale[e] = a.rule(a.panels, self.engine.eps), a.totals, a.scale
            found.doubt[e], found.along[e] = a.unresolved(), a

    def _line(self, e: int) -> Line:
        leaf, count = self.leaf(e), 128 if self.first == 1 else 36
        return Line(*leaf.at_element(self.engine.column(e)), self.seed, count, leaf.node.dtype)

    def _cut_at_turns(self, along: dict[int, Settling], places: Places) -> None:
        """Cut the panels where nodes turn, and once more close to these places: a window around one of them has edges
        that only what is close to it shows."""
        lines = {e: a.line for e, a in along.items()}
        for e, a in along.items():
            # also where other elements have values that are not among the choices
            a.active = split(split(a.active, self.edges(a.line, e)), places[e])
        around = {e: between([c for c in a.cuts(places[e]) if len(c) > 3]) for e, a in along.items()}
        if any(map(len, around.values())):
            for e, further in candidates(self, lines, around, self.watched, False).items():
                along[e].active = split(along[e].active, further)

    def edges(self, line: Line, e: int) -> np.ndarray:
        """Where the cost or the density is known not to be smooth, on the line of an element."""
        places = line.of(self.leaf(e).edges(self.engine.column(e)))
        return places[np.isfinite(places)]

    def integrals(self, lines: dict[int, Line], panels: Places) -> dict[int, Integrals]:
        """Of each element, over each of its panels."""
        points, steps = {}, {}
        for e, edges in panels.items():
            half = 0.5 * (edges[:, 1:] - edges[:, :1])
            x, slope = lines[e].at(edges[:, :1] + half * (1 + NODES))
            points[e], steps[e] = x.reshape(-1), slope * half * WEIGHTS
        rows = max(map(len, points.values()))
        if not rows:
            return {e: Integrals(np.zeros((0, 1, 1)), np.zeros((0, 1, 1)), np.zeros(0)) for e in panels}
        padded = {
            e: np.append(x, np.full(rows - len(x), x[-1] if len(x) else lines[e].centre)) for e, x in points.items()
        }
        found: dict[int, list[Integrals]] = {e: [] for e in panels}
        for choice in self.choices:
            run = self.run(padded, choice, [])
            for e in panels:
                n = len(points[e])
                p = run.densities[e][:n].reshape(-1, POINTS) * steps[e]
                p = np.where(np.isfinite(p), p, 0)
                f = run.costs[:n, self.columns[e]].reshape(len(p), POINTS, len(self.columns[e]))
                narrow = None if np.isfinite(f).all() else lines[e].points(panels[e], self.engine.eps)
                found[e].append(self._integrated(f, p, narrow))
        return {e: Integrals.over_choices(each) for e, each in found.items()}

    def _integrated(self, f: np.ndarray, p: np.ndarray, narrow: np.ndarray | None) -> Integrals:
        """The integrals of f, (panels, POINTS, columns), of its square, where these are looked at, and of one, with
        weights p, (panels, POINTS); where f is not finite, ``narrow`` tells which panels are no more than a point."""
        one, size = np.sum(p, axis=1)[:, None], np.abs(f)
        with np.errstate(all="ignore"):
            square = [f * f] if self.squares else []
            each = [f, size, *square]
            if narrow is None:
                found = [np.einsum("kqc,kq->kc", part, p) for part in each]
            else:
                inside = p[..., None] > 0
                found = [
                    np.sum(
                        np.where(inside & ~(~np.isfinite(part) & narrow[:, None, None]), part * p[..., None], 0), axis=1
                    )
                    for part in each
                ]
        sums, sizes = [found[0], *found[2:], one], [*found[1:], one]
        return Integrals(np.concatenate(sums, axis=1), np.concatenate(sizes, axis=1), np.max(p, axis=1, initial=0))
