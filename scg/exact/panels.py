"""An adaptive quadrature that shares no point and no symmetry with the rules of ``rules``: what their result is held
against.

Along each continuous element the line is x = x(v), an interval of v cut at irregular places into *panels* of ten
Gauss-Legendre points each. A panel is cut again while the sum over its parts differs from it, for any part of the cost:
steps, kinks, poles and steep places draw panels to themselves. A feature narrower than the first panels shows where a
node on the way to the cost changes its sign, its direction or its truth: (z - .31) / .001 is no narrower than z. Such
places are found by bisection, and panels shrink towards them geometrically before it is judged whether anything is
there.

Other elements that meet this one in a part of the cost are held at a few values, drawn with a generator of its own: no
result depends on recorded samples.
"""

import itertools
import math
from typing import Any, NamedTuple

import numpy as np
import scipy.special as sp

from scg.core.node import Node
from scg.core.replay import replay
from scg.exact.leaf import Leaf
from scg.stochastic.sides import is_break, is_silent, sides

POINTS = 10
NODES, WEIGHTS = np.polynomial.legendre.leggauss(POINTS)
_LARGEST = 2**20  # elements that the largest array of a block of rows may have
_PANELS = 3000  # along one element
_DEPTH = 64
_NOWHERE = np.zeros(0)
_CANDIDATES = 200  # places along one element where a node turns
_CHOICES = 5  # of the other elements: what happens at one place of a line happens, most often, at some place of others
_FINER = 32  # places for one, where primitives from outside say nothing of themselves
_SECTIONS = 16  # of a bracket, at each step towards the place in it
_GOLDEN = 0.5 * (math.sqrt(5) - 1)


class Found(NamedTuple):
    """By element: ``rules``, points and steps; ``doubt``, what is unresolved there as a fraction of E|.|, and where;
    ``totals``, the mean along the line of each part of the cost, and ``scale``, the largest mean of its size, (choices,
    columns) and (columns,)."""

    rules: dict[int, tuple[np.ndarray, np.ndarray]]
    doubt: dict[int, tuple[float, float, float]]
    totals: dict[int, np.ndarray]
    scale: dict[int, np.ndarray]


class Line:
    """One element along which x(v) goes from end to end of its support, with the panels that it has so far. ``centre``
    and ``scale`` may be arrays, of several such lines."""

    centre: Any
    scale: Any

    def __init__(self, low: float, high: float, centre: Any, scale: Any, seed: float, count: int, dtype: Any):
        self.low, self.high, self.centre, self.scale = low, high, centre, scale
        number = np.finfo(dtype)
        # from an end: while its distance is known to 1%; outwards: cubes are finite
        near, far_out = math.log(1 / number.eps) - 5, 0.3 * math.log(number.max)
        tiny = 0.93 * math.log(number.max)
        if math.isinf(low) and math.isinf(high):
            inner, reach = (-4.5, 4.5), (-far_out, far_out)
        elif math.isinf(low) or math.isinf(high):
            inner, reach = (-8.0, 4.5), (-tiny if (low if math.isinf(high) else high) == 0 else -near, far_out)
        else:
            inner, reach = (-7.0, 7.0), (-tiny if low == 0 else -near, tiny if high == 0 else near)
        far = [
            np.geomspace(abs(a), abs(b), max(12, count // 3))[1:] * np.sign(b)
            for a, b in zip(inner, reach, strict=True)
        ]
        middle = np.linspace(*inner, count + 1)
        shift = (np.arange(1, count) * _GOLDEN + 0.31 * seed + 0.17) % 1 - 0.5
        middle[1:-1] += 0.5 * (middle[1] - middle[0]) * shift
        # the centre is an edge: a density may have a kink there, and its score a jump
        self.edges = np.union1d(np.concatenate([far[0][::-1], middle, far[1]]), [0.0])

    def at(self, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """x and dx / dv."""
        if math.isinf(self.low) and math.isinf(self.high):
            return self.centre + self.scale * np.sinh(v), self.scale * np.cosh(v)
        if math.isinf(self.high):
            r = (self.centre - self.low) * np.exp(v)
            return self.low + r, r
        if math.isinf(self.low):
            r = (self.high - self.centre) * np.exp(v)
            return self.high - r, r
        u, rest, width = sp.expit(v), sp.expit(-v), self.high - self.low
        return np.where(u < rest, self.low + width * u, self.high - width * rest), width * u * rest

    def tight(self, panels: np.ndarray, eps: float) -> np.ndarray:
        """Which panels are so narrow that rounding fills them."""
        x = self.at(panels)[0]
        centre = np.reshape(np.abs(self.centre), -1) * (math.isinf(self.low) and math.isinf(self.high))
        noise = np.abs(x).max(axis=1, initial=0) + centre
        narrow = panels[:, 1] - panels[:, 0] <= 2e-14 * np.abs(panels).max(axis=1, initial=0)
        return narrow | (np.abs(x[:, 1] - x[:, 0]) <= 64 * eps * noise)

    def points(self, panels: Any, eps: float) -> Any:
        """Which panels are no more than a point of the line, where a pole that has a mean may lie; towards an end they
        are wide in v."""
        return self.tight(panels, eps) & (panels[:, 1] - panels[:, 0] <= 1e3 * eps)


class Panels:
    """The panels of all lines of an engine, resolved together where no part of the cost has two of their elements."""

    def __init__(self, engine: Any, seed: int = 0, squares: bool = False):
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
        alone = all(len(s) <= 1 for s in engine.sets)
        self.choices = [self._choice(np.random.default_rng([seed, k])) for k in range(1 if alone else _CHOICES)]
        self.tolerance = max(1e-13, 64 * engine.eps)
        known = {n.id for n in engine.leading}
        self.watched = [
            n
            for n in engine.order
            if n.id in known and type(n.raw) is not tuple and n.dtype.kind in "fiub" and n.id in engine.reach
        ]

    def resolve(self) -> Found:
        found = Found({}, {}, {}, {})
        for group in self._groups():
            self._resolve(group, found)
        return found

    def apart(self, found: Found) -> tuple[float, int]:
        """By how much the rules that the leaves have now differ along the lines, as a fraction of E|.|: the most, and
        of which element."""
        worst = (0.0, -1)
        for e in self.elements:
            leaf, column = self.leaf(e), e - self.engine.offsets[self.engine.owner[e]]
            digits = np.full((leaf.size, leaf.count), -1)
            digits[:, column] = np.arange(leaf.size)
            for k, choice in enumerate(self.choices):
                values, weights = leaf.at(digits, self.engine.distribution_at(leaf, choice))
                x = np.reshape(values, (leaf.size, leaf.count))[:, column]
                costs, density, _ = self.run({e: x}, choice, [])
                weights = weights[:, column] * (density[e] if leaf.by_density else 1)
                f = costs[:, self.columns[e]]
                with np.errstate(all="ignore"):
                    f = np.concatenate([f, f * f], axis=1) if self.squares else f
                    total = np.sum(np.where(weights[:, None] == 0, 0, f * weights[:, None]), axis=0)
                    off = np.abs(total - found.totals[e][k][:-1]) / np.where(
                        found.scale[e][:-1] > 0, found.scale[e][:-1], 1
                    )
                worst = max(worst, (float(np.max(np.where(np.isnan(off), math.inf, off), initial=0)), e))
        return worst

    def leaf(self, e: int) -> Leaf:
        return self.engine.leaves[self.engine.owner[e]]  # type: ignore[no-any-return]

    def _groups(self) -> list[list[int]]:
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

    def _choice(self, rng: np.random.Generator) -> dict[Node, Any]:
        """Values of all leaves: finite samples evenly, others from their distributions, the parents' values given; (1,
        *shape) each."""
        values: dict[Node, Any] = {}
        with np.errstate(all="ignore"):
            for leaf in self.leaves:
                if not leaf.adaptive:
                    values[leaf.node] = leaf.at(rng.integers(leaf.size, size=(1, leaf.count)), None)[0]
                else:
                    values[leaf.node] = leaf.drawn(rng, self.engine.distribution_at(leaf, values))
        return values

    def run(
        self, x: dict[int, Any], choice: dict[Node, Any], nodes: list[Node], costs: bool = True
    ) -> tuple[Any, dict[int, Any], list[Any]]:
        """The parts of the cost, (rows, columns); the density of each element, (rows,); other nodes, (rows, size)."""
        rows = len(next(iter(x.values())))
        largest = max([1, *[n.size for n in self.engine.order if type(n.raw) is not tuple]])
        step = max(1, _LARGEST // largest)
        parts = [
            self._block({e: v[k : k + step] for e, v in x.items()}, choice, nodes, costs)
            for k in range(0, max(rows, 1), step)
        ]
        found, densities, others = zip(*parts, strict=True)
        return (
            np.concatenate(found),
            {e: np.concatenate([d[e] for d in densities]) for e in x},
            [np.concatenate(c) for c in zip(*others, strict=True)],
        )

    def held(self, x: dict[int, Any], choice: dict[Node, Any]) -> dict[Node, Any]:
        """The values of all leaves, with rows in front: some elements as in ``x``, others as in ``choice``."""
        return {node: v.reshape(len(v), *node.shape) for node, v in self._spread(x, choice).items()}

    def _spread(self, x: dict[int, Any], choice: dict[Node, Any]) -> dict[Node, Any]:
        rows = len(next(iter(x.values())))
        held = {
            leaf.node: np.repeat(choice[leaf.node], rows, axis=0).reshape(rows, leaf.count, *leaf.event)
            for leaf in self.leaves
        }
        for e, v in x.items():
            held[self.leaf(e).node][:, e - self.engine.offsets[self.engine.owner[e]]] = v
        return held

    def _block(
        self, x: dict[int, Any], choice: dict[Node, Any], nodes: list[Node], costs: bool
    ) -> tuple[Any, dict[int, Any], list[Any]]:
        rows, engine = len(next(iter(x.values()))), self.engine
        engine.check_time()
        held = self._spread(x, choice)
        density = self._densities(x, held, rows)
        for e, p in density.items():  # what has no density is not looked at: other samples may not have such parameters
            column = held[self.leaf(e).node][:, e - engine.offsets[engine.owner[e]]]
            column[:] = np.where(
                p > 0, column, np.reshape(choice[self.leaf(e).node], -1)[e - engine.offsets[engine.owner[e]]]
            )
        held = {node: v.reshape(rows, *node.shape) for node, v in held.items()}
        terms = engine.terms if costs else []
        with np.errstate(all="ignore"):
            found = [np.reshape(v, (rows, -1)) for v in replay([*terms, *nodes], held, list(held))]
            others = found[len(terms) :]
            if not costs:
                sided = [k for k, n in enumerate(nodes) if is_break(n)]
                for k, side in zip(sided, sides([nodes[k] for k in sided], held, rows), strict=True):
                    others[k] = side
            return np.concatenate([np.zeros((rows, 0)), *found[: len(terms)]], axis=1).astype(float), density, others

    def _densities(self, x: dict[int, Any], held: dict[Node, Any], rows: int) -> dict[int, Any]:
        """The density of each element that moves, (rows,)."""
        values = {node: v.reshape(rows, *node.shape) for node, v in held.items()}
        known: dict[Node, Any] = {}
        with np.errstate(all="ignore"):
            for leaf in {id(self.leaf(e)): self.leaf(e) for e in x}.values():
                log_p = (
                    leaf.distribution.log_prob(values[leaf.node])
                    if leaf.score is None
                    else replay(leaf.score, values, list(values))
                )
                known[leaf.node] = np.exp(np.reshape(log_p, (rows, leaf.count)))
        return {e: known[self.leaf(e).node][:, e - self.engine.offsets[self.engine.owner[e]]] for e in x}

    def _resolve(self, group: list[int], found: Found) -> None:
        count = 128 if len(self.choices) == 1 else 36
        lines = {
            e: Line(
                *self.leaf(e).at_element(e - self.engine.offsets[self.engine.owner[e]]),
                self.seed,
                count,
                self.leaf(e).node.dtype,
            )
            for e in group
        }
        active = {e: np.stack([line.edges[:-1], line.edges[1:]], axis=1) for e, line in lines.items()}
        whole = self._integrals(lines, active)
        ends = {
            e: (_Tail(whole[e][1][1::-1], lines[e].edges[2::-1]), _Tail(whole[e][1][-2:], lines[e].edges[-3:]))
            for e in group
        }
        used = {e: self._used(whole[e]) for e in group}
        scale = {e: np.max(np.sum(whole[e][1], axis=0), axis=0, initial=0) for e in group}
        candidates = self._candidates(lines, {e: active[e][used[e]] for e in group})
        done: dict[int, list[Any]] = {e: [] for e in group}
        active = {e: _split(active[e][used[e]], candidates[e]) for e in group}
        around = {e: [c for panel in active[e] if len(c := _cut(panel, candidates[e])) > 3] for e in group}
        if any(map(len, around.values())):  # a window around a candidate has edges that only what is close to it shows
            close = {
                e: np.concatenate([np.zeros((0, 2)), *[np.stack([c[:-1], c[1:]], axis=1) for c in cuts]])
                for e, cuts in around.items()
            }
            further = self._candidates(lines, close, False)
            active = {e: _split(active[e], further[e]) for e in group}
        whole = self._integrals(lines, active)
        doubt = dict.fromkeys(group, (0.0, 0.0, 0.0))
        totals: dict[int, Any] = dict.fromkeys(group, 0.0)
        for depth in range(_DEPTH):
            cuts = {e: [_cut(panel, candidates[e] if depth == 0 else _NOWHERE) for panel in active[e]] for e in group}
            parts = {
                e: np.concatenate([np.stack([c[:-1], c[1:]], axis=1) for c in cuts[e]]) if cuts[e] else np.zeros((0, 2))
                for e in group
            }
            new = self._integrals(lines, parts)
            for e in group:
                if not len(active[e]):
                    continue
                starts = np.cumsum([0, *[len(c) - 1 for c in cuts[e]][:-1]])
                scale[e] = np.maximum(scale[e], np.max(np.sum(new[e][1], axis=0), axis=0)) if depth == 0 else scale[e]
                unit = np.where(scale[e] > 0, scale[e], 1)
                with np.errstate(all="ignore"):
                    finer = np.add.reduceat(new[e][0], starts, axis=0)
                    wrong = np.abs(finer - whole[e][0]) / unit
                wrong = np.max(np.where(np.isnan(wrong), math.inf, wrong), axis=(1, 2), initial=0)
                bad = wrong > self.tolerance
                done[e] += list(active[e][~bad])
                x = lines[e].at(active[e])[0]
                stop = bad & (
                    lines[e].tight(active[e], self.engine.eps)
                    | (depth == _DEPTH - 1)
                    | (len(done[e]) + np.sum(bad) > _PANELS)
                )
                if stop.any():
                    done[e] += list(active[e][stop])
                    worst = int(np.argmax(np.where(stop, wrong, 0)))
                    doubt[e] = max(doubt[e], (float(np.sum(wrong[stop])), float(x[worst][0]), float(x[worst][1])))
                beyond = _beyond(active[e], lines[e], ends[e])
                totals[e] = totals[e] + np.sum((finer * beyond[:, None, None])[~bad | stop], axis=0)
                belongs = np.repeat(bad & ~stop, [len(c) - 1 for c in cuts[e]])
                active[e], whole[e] = parts[e][belongs], [part[belongs] for part in new[e]]
            if not any(map(len, active.values())):
                break
        for e in group:
            found.rules[e], found.totals[e], found.scale[e] = (
                self._rule(lines[e], done[e], ends[e]),
                totals[e],
                scale[e],
            )
            for tail, edge in zip(ends[e], (lines[e].edges[:2], lines[e].edges[-2:]), strict=True):
                left = float(np.max(tail.left_out / np.where(scale[e] > 0, scale[e], 1), initial=0))
                doubt[e] = max(doubt[e], (left, *lines[e].at(edge)[0].tolist()))
            mass = float(np.max(np.abs(totals[e][:, -1] - 1)))  # of the density itself
            found.doubt[e] = max(doubt[e], (mass, lines[e].low, lines[e].high))

    @staticmethod
    def _used(whole: Any) -> Any:
        """Panels where there is any density, and their neighbours."""
        some = whole[2] > 0
        return some | np.append(some[1:], False) | np.append(False, some[:-1])

    def _rule(self, line: Line, panels: list[Any], ends: "tuple[_Tail, _Tail]") -> tuple[Any, Any]:
        edges = np.array(sorted(map(tuple, panels)))
        v = 0.5 * (edges[:, :1] + edges[:, 1:]) + 0.5 * (edges[:, 1:] - edges[:, :1]) * NODES
        x, slope = line.at(v)
        steps = slope * 0.5 * (edges[:, 1:] - edges[:, :1]) * WEIGHTS * _beyond(edges, line, ends)[:, None]
        return x.reshape(-1), np.where(line.points(edges, self.engine.eps)[:, None], 0, steps).reshape(-1)

    def _integrals(self, lines: dict[int, Line], panels: dict[int, Any]) -> dict[int, list[Any]]:
        """For each element, over each panel: the integrals of the parts of the cost and of the density, of their sizes,
        (panels, choices, columns); whether there is density."""
        points, steps = {}, {}
        for e, edges in panels.items():
            half = 0.5 * (edges[:, 1:] - edges[:, :1])
            x, slope = lines[e].at(edges[:, :1] + half * (1 + NODES))
            points[e], steps[e] = x.reshape(-1), slope * half * WEIGHTS
        rows = max(map(len, points.values()))
        if not rows:
            return {e: [np.zeros((0, 1, 1)), np.zeros((0, 1, 1)), np.zeros(0)] for e in panels}
        padded = {
            e: np.append(x, np.full(rows - len(x), x[-1] if len(x) else lines[e].centre)) for e, x in points.items()
        }
        found: dict[int, list[Any]] = {e: [[], [], []] for e in panels}
        for choice in self.choices:
            costs, density, _ = self.run(padded, choice, [])
            for e in panels:
                n = len(points[e])
                p = density[e][:n].reshape(-1, POINTS) * steps[e]
                p = np.where(np.isfinite(p), p, 0)
                f = costs[:n, self.columns[e]]
                with np.errstate(all="ignore"):
                    f = np.concatenate(
                        [f, f * f, np.ones((n, 1))] if self.squares else [f, np.ones((n, 1))], axis=1
                    ).reshape(len(p), POINTS, -1)
                    pole = ~np.isfinite(f) & lines[e].points(panels[e], self.engine.eps)[:, None, None]
                    product = np.where((p[..., None] > 0) & ~pole, f * p[..., None], 0)
                    found[e][0].append(np.sum(product, axis=1))
                    found[e][1].append(np.sum(np.abs(product), axis=1))
                found[e][2].append(np.max(p, axis=1, initial=0))
        return {e: [np.stack(s, axis=1), np.stack(m, axis=1), np.max(p, axis=0)] for e, (s, m, p) in found.items()}

    def _candidates(
        self, lines: dict[int, Line], panels: dict[int, np.ndarray], turns: bool = True
    ) -> dict[int, np.ndarray]:
        """Where nodes on the way to the cost change their sign, their direction or their value, for each element, in
        v."""
        grid = {
            e: np.sort((0.5 * (a[:, :1] + a[:, 1:]) + 0.5 * (a[:, 1:] - a[:, :1]) * NODES).reshape(-1))
            for e, a in panels.items()
        }
        found = self._seen(lines, grid, self.watched, turns)
        silent = [n for n in self.watched if is_silent(n.primitive)]
        if silent and turns:  # what is inside of one cannot be followed: it is looked at more closely
            fine = {e: _between(v) for e, v in grid.items()}
            closer = self._seen(lines, fine, silent, turns)
            found = {e: np.union1d(found[e], closer[e]) for e in found}
        return found

    def _seen(self, lines: dict[int, Line], grid: dict[int, Any], watched: list[Node], turns: bool) -> dict[int, Any]:
        """``_candidates`` of some nodes, on a grid."""
        rows = max(map(len, grid.values()))
        grid = {e: np.append(v, np.full(rows - len(v), v[-1] if len(v) else 0.0)) for e, v in grid.items()}
        tables = {n.id: self.engine.reach[n.id][:, list(grid)] for n in watched}
        nodes = [n for n in watched if tables[n.id].any()]
        places: dict[int, list[float]] = {e: [] for e in grid}
        for choice in self.choices[:2]:
            _, _, values = self.run({e: lines[e].at(v)[0] for e, v in grid.items()}, choice, nodes, False)
            wanted = []
            for k, n in enumerate(nodes):
                single = tables[n.id].sum(axis=1) == 1
                for j in np.flatnonzero(single)[:4096]:
                    e = list(grid)[int(np.argmax(tables[n.id][j]))]
                    wanted.append((k, int(j), e))
            brackets = _brackets(wanted, values, [is_number(n) for n in nodes], turns)
            for e, v in self._closed(lines, grid, nodes, brackets, choice):
                places[e].append(v)
        return {e: np.unique(np.array(p)) for e, p in places.items()}

    def _closed(
        self,
        lines: dict[int, Line],
        grid: dict[int, Any],
        nodes: list[Node],
        brackets: list[Any],
        choice: dict[Node, Any],
    ) -> list[tuple[int, float]]:
        """Each bracket closed in on: by bisection where a node has another sign or value at its ends, by golden
        sections where it turns."""
        if not brackets:
            return []
        k, j, e, i, turn = (np.array(c) for c in zip(*brackets, strict=True))
        row = np.zeros(len(e), int)
        for element in np.unique(e):
            row[e == element] = np.arange(np.sum(e == element))
        used = sorted(set(k.tolist()))
        chosen, number = [nodes[u] for u in used], {u: m for m, u in enumerate(used)}
        k = np.array([number[u] for u in k])
        low = np.array([grid[a][b] for a, b in zip(e, i, strict=True)])
        high = np.array([grid[a][b + (2 if t else 1)] for a, b, t in zip(e, i, turn, strict=True)])

        def at(v: np.ndarray) -> np.ndarray:
            """The nodes at some places of each bracket, (brackets, places)."""
            x = {a: np.full((int(row.max()) + 1, v.shape[1]), lines[a].centre) for a in grid}
            for a in grid:
                mine = e == a
                x[a][row[mine]] = lines[a].at(v[mine])[0]
            values = self.run({a: v.reshape(-1) for a, v in x.items()}, choice, chosen, False)[2]
            values = [v.reshape(*next(iter(x.values())).shape, -1) for v in values]
            return np.array([values[c][r, :, b] for c, r, b in zip(k, row, j, strict=True)], float)

        numbers = np.array([is_number(nodes[b[0]]) for b in brackets])[:, None]
        steps, each = np.arange(_SECTIONS + 1) / _SECTIONS, np.arange(len(e))
        for depth in range(13):
            v = low[:, None] + (high - low)[:, None] * steps
            values = at(v)
            kinds = np.where(numbers, kind_of(values), np.nan_to_num(values, nan=-4.5))
            other = np.argmax(kinds != kinds[:, :1], axis=1)  # the first on the other side; 0 if rounding hides it
            if depth == 0:
                sign = np.where(values[:, 0] > np.min(values[:, 1:-1], axis=1), 1.0, -1.0)[:, None]
            lowest = np.clip(np.argmin(np.where(np.isnan(values), math.inf, sign * values), axis=1), 1, _SECTIONS - 1)
            start, stop = np.where(turn, lowest - 1, other - 1), np.where(turn, lowest + 1, other)
            lost = ~turn & (other == 0)
            low, high = np.where(lost, low, v[each, start]), np.where(lost, high, v[each, stop])
        return list(zip(e.tolist(), (0.5 * (low + high)).tolist(), strict=True))


def _between(grid: np.ndarray) -> np.ndarray:
    """A grid with ``_FINER`` - 1 places more between any two."""
    if len(grid) < 2:
        return grid
    steps = np.arange(len(grid) * _FINER - _FINER + 1) / _FINER
    return np.interp(steps, np.arange(len(grid)), grid)


def is_number(node: Node) -> bool:
    """Whether a node is looked at for its sign and direction; else its value, or the side that it is on, is what
    changes."""
    return node.dtype.kind == "f" and not is_break(node)


def kind_of(values: np.ndarray) -> np.ndarray:
    """The sign of a number; 4 where it is none, 2 and -2 where it is infinite."""
    return np.where(np.isnan(values), 4.0, np.sign(values) * np.where(np.isinf(values), 2, 1))


def _brackets(
    wanted: list[tuple[int, int, int]], values: list[np.ndarray], numbers: list[bool], turning: bool
) -> list[tuple[int, int, int, int, bool]]:
    """(node, its element, the element of the line, row, whether it turns there), few for each place of the grid."""
    found: dict[int, dict[tuple[int, bool], list[tuple[int, int, int, int, bool]]]] = {}
    for k, j, e in wanted:
        v = values[k][:, j]
        if numbers[k]:
            kinds = kind_of(v)
            with np.errstate(all="ignore"):
                d = np.sign(np.diff(v))
            turns = np.flatnonzero(
                (d[1:] != d[:-1]) & (d[1:] * d[:-1] <= 0) & np.isfinite(v[1:-1]) & ((d[1:] != 0) | (d[:-1] != 0))
            )
            both = [(np.flatnonzero(kinds[1:] != kinds[:-1]), False), (turns[: len(turns) * turning], True)]
        else:
            v = np.nan_to_num(v, nan=-4.5)
            both = [(np.flatnonzero(v[1:] != v[:-1]), False)]
        for rows, turn in both:
            for i in rows[:: max(1, len(rows) // _CANDIDATES)].tolist():
                here = found.setdefault(e, {}).setdefault((i, turn), [])
                if len(here) < 3:
                    here.append((k, j, e, i, turn))
    result = []
    for places in found.values():
        every = [b for here in places.values() for b in here]
        result += every[:: max(1, len(every) // (3 * _CANDIDATES))]
    return result


def _split(panels: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The panels, cut at the places that lie in them."""
    edges = np.unique(np.concatenate([panels.reshape(-1), places]))
    edges = (
        edges[np.concatenate([[True], np.diff(edges) > 1e-13 * (1e-300 + np.abs(edges[1:]))])] if len(edges) else edges
    )
    both = np.stack([edges[:-1], edges[1:]], axis=1)
    middle = 0.5 * (both[:, 0] + both[:, 1])
    k = np.clip(np.searchsorted(panels[:, 0], middle, side="right") - 1, 0, None)
    return both[(middle > panels[k, 0]) & (middle < panels[k, 1])] if len(panels) else panels


def _cut(panel: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The edges of the parts of a panel: two, or more and more narrow ones towards an end that is one of the places."""
    a, b = panel
    edges = [a, a + 0.47 * (b - a), b]
    if len(places):
        steps = 0.47 * (b - a) * 0.25 ** np.arange(1, 14)
        for end, sign in ((a, 1), (b, -1)):
            if np.min(np.abs(places - end)) <= 1e-13 * abs(end) + 1e-300:
                edges += list(end + sign * steps)
    return np.unique(edges)


class _Tail:
    """What lies beyond the last panel: sizes there fall like exp(-r v), so that the rest is that of the last panel, of
    width d, over exp(r d) - 1.

    The density is continued so, by a factor on the weights of the last panel; ``left_out`` is what is beyond for each
    part of the cost and not in that, and 0.2% of what is.
    """

    def __init__(self, sizes: np.ndarray, edges: np.ndarray):
        before, last = sizes  # (choices, columns) each; the last column is the density's own
        wide, width = abs(edges[1] - edges[0]), abs(edges[2] - edges[1])
        with np.errstate(all="ignore"):
            rate = np.log(before / wide / (last / width)) / (0.5 * (wide + width))
            rest = np.where(last > 0, np.where(rate > 1e-3, 1 / np.expm1(np.maximum(rate, 1e-3) * width), 1e3), 0)
            own = np.where(rest[:, -1:] < 1e3, rest[:, -1:], 0)
            self.left_out = np.max(np.where(last > 0, last * (np.abs(rest - own) + 2e-3 * own), 0), axis=0)
        self.factor = 1 + float(np.max(own, initial=0))


def _beyond(panels: np.ndarray, line: Line, ends: tuple[_Tail, _Tail]) -> np.ndarray:
    """The factor of each panel by which the last ones stand for what is beyond."""
    low, high = ends
    return np.where(
        panels[:, 1] <= line.edges[1], low.factor, np.where(panels[:, 0] >= line.edges[-2], high.factor, 1.0)
    )
