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

from scg.core.node import Node
from scg.core.replay import replay
from scg.exact.leaf import Leaf
from scg.exact.lines import NODES, NOWHERE, POINTS, WEIGHTS, Line, Tail, beyond, cut, split
from scg.exact.turns import candidates
from scg.stochastic.sides import is_break, sides

_LARGEST = 2**20  # elements that the largest array of a block of rows may have
_PANELS = 3000  # along one element
_DEPTH = 64
_CHOICES = 5  # of the other elements: what happens at one place of a line happens, most often, at some place of others


class Found(NamedTuple):
    """By element: ``rules``, points and steps; ``doubt``, what is unresolved there as a fraction of E|.|, and where;
    ``totals``, the mean along the line of each part of the cost, and ``scale``, the largest mean of its size, (choices,
    columns) and (columns,)."""

    rules: dict[int, tuple[np.ndarray, np.ndarray]]
    doubt: dict[int, tuple[float, float, float]]
    totals: dict[int, np.ndarray]
    scale: dict[int, np.ndarray]


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
            e: (Tail(whole[e][1][1::-1], lines[e].edges[2::-1]), Tail(whole[e][1][-2:], lines[e].edges[-3:]))
            for e in group
        }
        used = {e: self._used(whole[e]) for e in group}
        scale = {e: np.max(np.sum(whole[e][1], axis=0), axis=0, initial=0) for e in group}
        places = candidates(self, lines, {e: active[e][used[e]] for e in group})
        done: dict[int, list[Any]] = {e: [] for e in group}
        active = {e: split(active[e][used[e]], places[e]) for e in group}
        around = {e: [c for panel in active[e] if len(c := cut(panel, places[e])) > 3] for e in group}
        if any(map(len, around.values())):  # a window around a candidate has edges that only what is close to it shows
            close = {
                e: np.concatenate([np.zeros((0, 2)), *[np.stack([c[:-1], c[1:]], axis=1) for c in cuts]])
                for e, cuts in around.items()
            }
            further = candidates(self, lines, close, False)
            active = {e: split(active[e], further[e]) for e in group}
        whole = self._integrals(lines, active)
        doubt = dict.fromkeys(group, (0.0, 0.0, 0.0))
        totals: dict[int, Any] = dict.fromkeys(group, 0.0)
        for depth in range(_DEPTH):
            cuts = {e: [cut(panel, places[e] if depth == 0 else NOWHERE) for panel in active[e]] for e in group}
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
                rest = beyond(active[e], lines[e], ends[e])
                totals[e] = totals[e] + np.sum((finer * rest[:, None, None])[~bad | stop], axis=0)
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

    def _rule(self, line: Line, panels: list[Any], ends: "tuple[Tail, Tail]") -> tuple[Any, Any]:
        edges = np.array(sorted(map(tuple, panels)))
        v = 0.5 * (edges[:, :1] + edges[:, 1:]) + 0.5 * (edges[:, 1:] - edges[:, :1]) * NODES
        x, slope = line.at(v)
        steps = slope * 0.5 * (edges[:, 1:] - edges[:, :1]) * WEIGHTS * beyond(edges, line, ends)[:, None]
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
                    f = np.concatenate([f, f * f, np.ones((n, 1))] if self.squares else [f, np.ones((n, 1))], axis=1)
                    f = f.reshape(len(p), POINTS, f.shape[1])
                    pole = ~np.isfinite(f) & lines[e].points(panels[e], self.engine.eps)[:, None, None]
                    product = np.where((p[..., None] > 0) & ~pole, f * p[..., None], 0)
                    found[e][0].append(np.sum(product, axis=1))
                    found[e][1].append(np.sum(np.abs(product), axis=1))
                found[e][2].append(np.max(p, axis=1, initial=0))
        return {e: [np.stack(s, axis=1), np.stack(m, axis=1), np.max(p, axis=0)] for e, (s, m, p) in found.items()}
