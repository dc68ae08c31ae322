"""Exact means of nodes, by enumeration of what each of their elements depends on.

A node is taken apart through sums, layout and constant factors into *terms*. The axis maps tell which elements of which
samples and of which noise an element of a term depends on, through samples in between too: its *set*. Sets without a
common element are enumerated at once, row by row of one batched replay: row r gives each of them the r-th of its own
configurations. So the number of rows is that of the largest set, and n coins of which each meets its own part of a cost
take 2 n evaluations of parts, not 2^n of the whole.
"""

import itertools
import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from scg.core.ancestry import ancestors
from scg.core.axes import padded
from scg.core.backward import pull
from scg.core.node import Node
from scg.core.replay import replay
from scg.elimination.affine import affine_at, terms_of
from scg.elimination.finite import BudgetError, written
from scg.errors import GuardError, ScgValueError, here
from scg.exact.breaks import breaks
from scg.exact.leaf import ConvergenceError, Leaf
from scg.exact.nested import Nested
from scg.exact.panels import Panels
from scg.exact.reach import reaches
from scg.exact.rules import ENDS, GAUSS, NESTED, PANELS, PIECES
from scg.stochastic.dependence import influence
from scg.stochastic.formulas import box
from scg.stochastic.sides import is_silent
from scg.stochastic.sites import is_draw, is_noise

Set = frozenset[int]

_BLOCK = 2**20  # elements that the largest array of a block of rows may have
_PAIRS = 2**26
_LEVELS = {GAUSS: (8, 16, 32, 64, 128), PIECES: (16, 32, 64, 128, 256), ENDS: (32, 64, 128, 256)}


class Block(NamedTuple):
    """``members``: requests, and the column of each in ``weights`` (rows, sets); ``values``: of terms, by id, (rows,
    elements)."""

    members: list[int]
    columns: list[int]
    weights: Any
    values: dict[int, Any]


class Engine:
    """The means of ``roots``. With ``held`` what is linear in values though not in derivatives, such as stop_gradient,
    is taken apart as well.

    ``deadline`` is a value of ``time.monotonic()`` after which BudgetError is raised.
    """

    def __init__(self, roots: list[Node], names: dict[int, str], budget: int, held: bool, deadline: float = math.inf):
        self.deadline, self.infinite = deadline, False
        self.roots, self.budget, self.evaluations, self.missing = roots, budget, 0, 0.0
        self.order = ancestors(roots, guards=True)
        sources = [n for n in self.order if is_draw(n) or is_noise(n)]
        events = [0 if is_noise(n) else n.statics["site"].event_ndim for n in sources]
        self.ties = [influence(n, event, self.order) for n, event in zip(sources, events, strict=True)]
        self.dependent = set().union(*self.ties) if sources else set()
        counts: dict[str, int] = {}
        self.leaves: list[Leaf] = []
        for node in sources:
            kind = "noise" if is_noise(node) else type(node.statics["site"].distribution).__name__.lower()
            counts[kind] = counts.get(kind, 0) + 1
            name = names.get(node.id) or node.name or (kind if counts[kind] == 1 else f"{kind}_{counts[kind] - 1}")
            self.leaves.append(
                Leaf(node, name, any(type(o) is Node and o.id in self.dependent for o in node.operands), budget)
            )
        self.offsets = list(itertools.accumulate([leaf.count for leaf in self.leaves], initial=0))
        self.owner = np.repeat(np.arange(len(self.leaves)), [leaf.count for leaf in self.leaves])
        self.joint: list[tuple[tuple[int, ...], list[int], int]] = []
        """Elements that have a rule together while the leaves are NESTED; see ``_digits``."""
        self.terms = terms_of(roots, self.order, self.dependent, held)
        self.reach = found = reaches(self.leaves, self.ties, self.order)
        self.rough: list[Node] = []
        if any(leaf.adaptive and not leaf.discrete for leaf in self.leaves):
            known = breaks(self.leaves, self.offsets, self.order, found)
            self.rough = known.rough
            for leaf, places in zip(self.leaves, known.at, strict=True):
                leaf.breaks = places
        further = [
            found[leaf.node.id].reshape(leaf.count, -1, self.offsets[-1]).any(axis=1) if leaf.varies else None
            for leaf in self.leaves
        ]
        self.sets: list[Set] = []
        self.places: list[tuple[int, int]] = []  # of each set: its term, and the element there
        self.starts: list[int] = []
        for k, term in enumerate(self.terms):
            self.starts.append(len(self.sets))
            sets = self._sets(found[term.id], further)
            self.sets += sets
            self.places += [(k, e) for e in range(len(sets))]

    @property
    def eps(self) -> float:
        """The rounding of what is integrated."""
        return max([float(np.finfo(n.dtype).eps) for n in self.roots if n.dtype.kind == "f"], default=2e-16)

    @property
    def leading(self) -> list[Node]:
        """The nodes that lead to the terms."""
        return ancestors(self.terms, guards=True)

    @property
    def adaptive(self) -> list[Leaf]:
        """The leaves whose values cannot all be listed."""
        return [leaf for leaf in self.leaves if leaf.adaptive]

    def leans(self, node: Node) -> bool:
        """Whether a node depends on noise."""
        return any(leaf.is_noise and node.id in tie for leaf, tie in zip(self.leaves, self.ties, strict=True))

    def _sets(self, reach: Any, reaches: list[Any]) -> list[Set]:
        """The sets of a term's elements: what they depend on, and what that is drawn from."""
        for leaf, start, further in reversed(list(zip(self.leaves, self.offsets, reaches, strict=False))):
            if further is not None:
                reach = reach | (reach[:, start : start + leaf.count] @ further)
        if not len(reach):
            return []
        distinct, inverse = np.unique(np.packbits(reach, axis=1), axis=0, return_inverse=True)
        known = [frozenset(np.flatnonzero(np.unpackbits(row, count=reach.shape[1])).tolist()) for row in distinct]
        return [known[i] for i in inverse.reshape(-1)]

    def check_time(self) -> None:
        """Raise BudgetError where the time that was given is over."""
        if time.monotonic() > self.deadline:
            names = ", ".join([leaf.described(leaf.count) for leaf in self.leaves])
            raise BudgetError(
                f"the exact mean over {names} took longer than time_limit: raise it, or sample it ({here()})"
            )

    def configurations(self, elements: Set) -> int:
        """How many configurations a set has."""
        return math.prod([count for _, _, count in self._digits(elements)])

    def _digits(self, elements: Set) -> list[tuple[tuple[int, ...], list[int], int]]:
        """Of what a number of a configuration of a set is made: elements that change together, the row at which the
        values of each begin, how many there are."""
        left, found = set(elements), []
        for joint in self.joint:
            if left.issuperset(joint[0]):
                left.difference_update(joint[0])
                rows = [self.leaves[self.owner[e]].size + start for e, start in zip(*joint[:2], strict=True)]
                found.append((joint[0], rows, joint[2]))
        return found + [((e,), [0], self.leaves[self.owner[e]].size) for e in sorted(left)]

    def blocks(self, requests: list[Set], wanted: Sequence[tuple[int, ...]], graph: bool) -> Iterator[Block]:
        """For every request (a set; the positions of the terms that it needs) the weights of its configurations and the
        terms there, in blocks of rows."""
        covers, of = _covered(requests)
        sizes = self._sizes(covers)
        self.evaluations += sum(sizes)
        members: list[list[int]] = [[] for _ in covers]
        for request, cover in enumerate(of):
            members[cover].append(request)
        for together in _rounds(covers, sizes):
            inside = [request for k in together for request in members[k]]
            columns = [column for column, k in enumerate(together) for _ in members[k]]
            terms = sorted({t for request in inside for t in wanted[request]})
            rows = max(sizes[k] for k in together)
            step = max(1, _BLOCK // max(1, max(n.size for n in self.order if type(n.raw) is not tuple)))
            for start in range(0, rows, step):
                self.check_time()
                at = np.arange(start, min(start + step, rows))
                weights, values = self._run(
                    [covers[k] for k in together], [sizes[k] for k in together], at, terms, graph
                )
                yield Block(inside, columns, weights, dict(zip(terms, values, strict=True)))

    def _sizes(self, sets: Collection[Set]) -> list[int]:
        """How many configurations each set has. Raises BudgetError, which names the samples, where that is over the
        budget."""
        sizes = [self.configurations(c) for c in sets]
        for cover, size in zip(sets, sizes, strict=True):
            if size > self.budget:
                counts = np.bincount([self.owner[e] for e in cover], minlength=len(self.leaves))
                parts = [leaf.described(int(n)) for leaf, n in zip(self.leaves, counts, strict=True) if n]
                further = " or rtol=" * any([self.leaves[self.owner[e]].adaptive for e in cover])
                raise BudgetError(
                    f"a part of the cost depends on {', '.join(parts)} at once: {written(size)} configurations, over"
                    f" the budget of {self.budget}; raise budget={further}, or write the cost as a sum of parts that"
                    f" depend on fewer ({here()})"
                )
        return sizes

    def _run(
        self, sets: list[Set], sizes: list[int], rows: Any, terms: list[int], graph: bool
    ) -> tuple[Any, list[Any]]:
        """The probability of every row's configuration of every set, and the values of some terms."""
        digits = np.full((len(rows), self.offsets[-1]), -1)
        for elements, size in zip(sets, sizes, strict=True):
            number = rows % size
            for inside, starts, count in self._digits(elements):
                digits[:, list(inside)] = (number % count)[:, None] + starts
                number = number // count
        values: dict[Node, Any] = {}
        weights: list[Any] = []
        with np.errstate(all="ignore"):  # where a configuration is impossible
            for leaf, start in zip(self.leaves, self.offsets, strict=False):
                value, weight = leaf.at(
                    digits[:, start : start + leaf.count],
                    None if leaf.is_noise or leaf.fixed is not None else self.distribution_at(leaf, values),
                )
                values[leaf.node] = value
                weights.append(weight)
            scores = [leaf.score if leaf.by_density or graph and not leaf.is_noise else None for leaf in self.leaves]
            found = replay(
                [*[self.terms[t] for t in terms], *[s for s in scores if s is not None]],
                values,
                list(values),
                create_graph=graph,
            )
            logs = iter(found[len(terms) :])
            chances = [
                self._chance(leaf, w, s if s is None else next(logs))
                for leaf, w, s in zip(self.leaves, weights, scores, strict=True)
            ]
        longest = max(map(len, sets), default=0)
        index = np.array([[*sorted(s), *[self.offsets[-1]] * (longest - len(s))] for s in sets], int).reshape(
            len(sets), longest
        )
        product = np.prod(np.concatenate([*chances, np.ones((len(rows), 1))], axis=1)[:, index], axis=-1)
        product = product * (rows[:, None] < np.array(sizes))
        return product, [np.reshape(v, (len(rows), -1)) for v in found[: len(terms)]]

    def distribution_at(self, leaf: Leaf, values: dict[Node, Any]) -> Any:
        """The distribution of a sample, of arrays: for each row where its parameters depend on other samples, whose
        ``values`` have rows."""
        distribution = leaf.distribution
        if leaf.is_noise:
            return distribution
        if leaf.varies:
            new = {}
            for name, p in distribution.parameters.items():
                if type(p) is Node and p.id in self.dependent:
                    moved = p if p in values else replay(p, values, list(values))
                    moved = values[p] if moved is p else moved
                    new[name] = padded(moved, len(leaf.batch) + distribution.parameter_event_ndim(name))
            distribution = distribution.replaced(**new)
        return distribution.detached()

    def _chance(self, leaf: Leaf, weight: Any, log_p: Any) -> Any:
        """The weight of every element of a leaf in every row, (rows, elements); with the derivative of its probability
        where that is a Node."""
        if log_p is None:
            return weight
        rows = log_p.shape[0]
        log_p = np.reshape(log_p, (rows, leaf.count))
        if not leaf.discrete:
            return weight * (np.exp(log_p) if leaf.by_density else box(log_p))
        return leaf.probabilities(log_p)

    def means(self, graph: bool = False) -> list[Any]:
        """E of every term: arrays, or Nodes of the parameters. ``magnitude`` is then E|.| of all their elements: what
        rounding is relative to."""
        total: Any = np.zeros(len(self.sets))
        self.magnitude = np.zeros(len(self.sets))
        pieces: list[Any] = []
        place: list[int] = []
        mass = np.zeros(len(self.sets))
        wanted = [(k,) for k, _ in self.places]
        for block in self.blocks(self.sets, wanted, graph):
            for t, inside, columns, elements in self._by_term(block):
                w = block.weights[:, columns]
                products = _absorbed(w, block.values[t][:, elements])
                part = np.sum(products, axis=0)
                self.magnitude[inside] += np.sum(np.abs(_raw(products)), axis=0)
                if graph:
                    pieces.append(part)
                    place += inside
                else:
                    total[inside] += part
                mass[inside] += np.sum(_raw(w), axis=0)
        self.missing = float(np.max(np.abs(mass - 1), initial=0))
        if graph and pieces:
            onto = np.zeros((len(self.sets), len(place)))  # rows of one element come in several blocks
            onto[place, np.arange(len(place))] = 1
            total = onto @ np.concatenate(pieces)
        return [
            np.reshape(total[s : s + term.size], term.shape) for s, term in zip(self.starts, self.terms, strict=True)
        ]

    def gradient(self, weights: list[Any], parameters: list[Node]) -> list[Any]:
        """d / d parameters of the sum of E[term] * weights over the terms, block by block: what is recorded stays
        small."""
        seeds = np.concatenate([np.ravel(w) for w in weights]) if weights else np.zeros(0)
        total: list[Any] = [np.zeros(p.shape) for p in parameters]
        for block in self.blocks(self.sets, [(k,) for k, _ in self.places], True):
            cost: Any = 0
            for t, inside, columns, elements in self._by_term(block):
                cost = cost + np.sum(_absorbed(block.weights[:, columns], block.values[t][:, elements]) * seeds[inside])
            if type(cost) is Node:
                pulled = pull([cost], [np.ones((), cost.dtype)], parameters)
                total = [a + b for a, b in zip(total, pulled, strict=True)]
        return total

    def covariances(self, means: list[Any], pairs: Any) -> tuple[Any, Any]:
        """Cov of pairs (a, b) of elements of the terms, given the means, and the mean of |.| of what it is the mean
        of."""
        centre = np.concatenate([np.zeros(0), *[np.ravel(m) for m in means]])
        total, magnitude = np.zeros(len(pairs)), np.zeros(len(pairs))
        requests = [self.sets[a] | self.sets[b] for a, b in pairs]
        wanted = [(self.places[a][0], self.places[b][0]) for a, b in pairs]
        for block in self.blocks(requests, wanted, False):
            chosen, used = pairs[block.members], np.unique(pairs[block.members])
            column = np.stack([block.values[self.places[e][0]][:, self.places[e][1]] - centre[e] for e in used], axis=1)
            left, right = np.searchsorted(used, chosen[:, 0]), np.searchsorted(used, chosen[:, 1])
            for k in range(0, len(chosen), step := max(1, _BLOCK // len(column))):
                part = slice(k, k + step)
                w = block.weights[:, block.columns[part]]
                products = _absorbed(w, column[:, left[part]] * column[:, right[part]])
                total[block.members[part]] += np.sum(products, axis=0)
                magnitude[block.members[part]] += np.sum(np.abs(products), axis=0)
        return total, magnitude

    def _by_term(self, block: Block) -> Iterator[tuple[int, list[int], list[int], list[int]]]:
        groups: dict[int, tuple[list[int], list[int], list[int]]] = {}
        for request, column in zip(block.members, block.columns, strict=True):
            t, element = self.places[request]
            for part, entry in zip(groups.setdefault(t, ([], [], [])), (request, column, element), strict=True):
                part.append(entry)
        return ((t, *found) for t, found in groups.items())

    def at(self, roots: list[Node], values: list[Any], graph: bool = False, size: int = 0) -> list[Any]:
        """The roots at other values of the terms, in which they are affine; where ``size``, with a leading axis of it.
        Those of integers may be fractions."""
        return affine_at(self.terms, roots, values, graph, size)

    def slopes(self, roots: list[Node]) -> list[Any]:
        """d root / d (elements of the terms), in which the roots are affine: (root.size, elements)."""
        count = len(self.sets)
        if not count:
            return [np.zeros((r.size, 0)) for r in roots]
        self._sizes(set(self.sets))  # refused sooner than computed
        base = self.at(roots, [np.zeros((1, *t.shape)) for t in self.terms], size=1)
        columns = []
        for start in range(
            0, count, step := max(1, _BLOCK // max([1, *[n.size for n in self.order if type(n.raw) is not tuple]]))
        ):
            unit = np.eye(min(step, count - start), count, start)
            values = [
                unit[:, s : s + t.size].reshape(len(unit), *t.shape)
                for s, t in zip(self.starts, self.terms, strict=True)
            ]
            columns.append(
                [
                    np.reshape(v - b, (len(unit), -1))
                    for v, b in zip(self.at(roots, values, size=len(unit)), base, strict=True)
                ]
            )
        return [np.concatenate(c).T for c in zip(*columns, strict=True)]

    def converged(
        self, compute: Callable[[], tuple[list[Any], list[float]]], rtol: float, squares: bool = False
    ) -> tuple[list[Any], float]:
        """Arrays computed with more and more values of continuous and endless leaves until they settle, and by how much
        they still moved.

        What settled is held against a quadrature that shares nothing with it; see ``panels``. ``compute`` also returns
        for each array what its rounding is relative to; ``squares`` says that squares of the terms are integrated too.
        """
        eps = self.eps
        if not self.adaptive:
            found, magnitudes = compute()
            return found, max(eps, self.missing) * max(magnitudes, default=0.0)
        rtol, closest, stopped, check = max(rtol, 64 * eps), math.inf, None, Check(self, compute, squares, rtol)

        def apart(a: list[Any], b: list[Any], magnitudes: list[float]) -> tuple[list[float], bool]:
            sizes = [_largest(x) for x in a]
            with np.errstate(all="ignore"):
                moved = [max(_largest(x - y), self.missing * m) for x, y, m in zip(a, b, magnitudes, strict=True)]
            return moved, math.isfinite(max(sizes, default=0.0)) and all(
                c <= rtol * n + 64 * eps * m for c, n, m in zip(moved, sizes, magnitudes, strict=True)
            )

        for kind, levels in _LEVELS.items():
            if kind == GAUSS and self.rough:  # symmetric quadrature rules agree on what they do not see
                continue
            last = None
            for points in levels:
                self.evaluations = 0
                try:
                    found, magnitudes = self.with_rules(compute, points, kind)
                except BudgetError as error:
                    self.check_time()
                    stopped = stopped or error
                    break
                self.infinite |= not all(np.isfinite(x).all() for x in found)
                if last is not None:
                    moved, settled = apart(found, last, magnitudes)
                    if settled and (other := check.of(found, magnitudes, points, kind)) is not None:
                        return found, max([*moved, *[eps * m for m in magnitudes], other], default=0.0)
                    closest = min(closest, max(moved))
                last = found
        alone = check.alone(rtol)
        if alone is not None:
            return alone
        if stopped is not None:
            raise stopped
        several = (
            f": {self.rough[0]!r} at {self.rough[0].line} breaks where several draws decide together"
            if self.rough
            else ""
        )
        raise ConvergenceError(
            f"the mean over {', '.join(map(str, self.adaptive))} did not settle: the last change was"
            f" {closest:.3g}{check.reason}; what is integrated is not smooth{several}, or has no such mean; raise"
            f" rtol=,{self.undeclared()} or sample it ({here()})"
        )

    def undeclared(self) -> str:
        """What to declare: of the first primitive on the way that does not say where it is smooth."""
        silent = [n for n in self.leading if is_silent(n.primitive) and n.id in self.dependent]
        if not silent:
            return ""
        rule, line = silent[0].primitive, silent[0].line
        return (
            f" declare where {rule.name}, used at {line}, is not smooth, as primitive(..., steps=lambda x: x > 1) or"
            f" kinks=,"
        )

    def with_rules(
        self, compute: Callable[[], tuple[list[Any], list[float]]], points: int, kind: int
    ) -> tuple[list[Any], list[float]]:
        """What is computed with quadrature rules of so many points."""
        for leaf in self.adaptive:
            leaf.refine(points, kind)
        with np.errstate(all="ignore"):  # what does not exist may be infinite
            return compute()


class Check:
    """What a result is held against: the same computed with panels, where no part has too many configurations then, or
    else means along lines."""

    def __init__(
        self, engine: Engine, compute: Callable[[], tuple[list[Any], list[float]]], squares: bool, rtol: float
    ):
        self.engine, self.compute, self.squares, self.rtol = engine, compute, squares, rtol
        self.reason = ""
        self._known: dict[int, Any] = {}
        self._results: dict[tuple[int, int], Any] = {}
        self._doubt = 0.0  # what rules for two elements left unresolved, as a fraction of E|.|

    def of(self, found: list[Any], magnitudes: list[float], points: int, kind: int) -> float | None:
        """How far ``found`` is from the check; None where that is too far. The leaves have the quadrature rules by
        which it was found."""
        panels, lines = self._lines(0)
        if not panels.elements:
            return 0.0
        other = self._computed(0, points)
        if other is None:
            off, e = panels.apart(lines)
            # a single line is rougher than the mean over all
            if off > max(1e-6, 1e3 * self.engine.eps, 30 * self.rtol):
                self.reason = (
                    f", and along {self.engine.leaves[self.engine.owner[e]].name} there is more than the rule sees"
                )
                return None
            return 2 * off * max(magnitudes, default=0.0)  # few lines do not have the worst
        doubt = max([d for d, _, _ in lines.doubt.values()], default=0.0)
        sizes = [max(m, n) for m, n in zip(magnitudes, other[1], strict=True)]
        return self._distance(found, other[0], sizes, max(1e-7, 1e3 * self.engine.eps, 2 * doubt, self.rtol))

    def alone(self, rtol: float) -> tuple[list[Any], float] | None:
        """Where no quadrature rule settles on what the panels say: their result, if panels that are cut at other places
        agree."""
        if not self._lines(0)[0].elements:
            return None
        for kind in (PANELS, NESTED):
            one = self._computed(0, 64, kind)
            two = None if one is None else self._computed(1, 64, kind)
            if two is None:
                continue
            distance = self._distance(one[0], two[0], one[1], 10 * rtol)
            doubt = max([self._doubt, *[d for d, _, _ in self._lines(0)[1].doubt.values()]])
            if distance is not None:
                return one[0], max(distance, max((self.engine.eps + doubt) * m for m in one[1]))
        return None

    def _distance(self, found: list[Any], other: list[Any], magnitudes: list[float], rtol: float) -> float | None:
        with np.errstate(all="ignore"):
            off = [_largest(a - b) for a, b in zip(found, other, strict=True)]
        good = all(math.isfinite(d) and d <= rtol * max(m, 1e-300) for d, m in zip(off, magnitudes, strict=True))
        if not good:
            self.reason = f", and a rule of other points differs by {max(off):.3g}"
        return max(off, default=0.0) if good else None

    def _lines(self, seed: int) -> Any:
        if seed not in self._known:
            panels = Panels(self.engine, seed, self.squares)
            try:
                found = panels.resolve()
            except (BudgetError, GuardError):
                raise
            except ScgValueError as error:
                raise ConvergenceError(
                    f"far out along {', '.join(map(str, self.engine.adaptive))} there is no value to hold a result"
                    f" against: {error}"
                ) from None
            self._known[seed] = panels, found
            for e, (doubt, low, high) in found.doubt.items():
                leaf = self.engine.leaves[self.engine.owner[e]]
                if doubt > max(1e-6, 1e3 * self.engine.eps):
                    raise ConvergenceError(
                        f"no mean was found over {leaf.name}: between {low:.9g} and {high:.9g} lies a part of"
                        f" {doubt:.2g} of it that does not settle; either the mean does not exist (E|.| is infinite),"
                        f" or the cost is not smooth at too many places;{self.engine.undeclared()} sample it ({here()})"
                    )
        return self._known[seed]

    def _computed(self, seed: int, points: int, kind: int = PANELS) -> Any:
        """(arrays, magnitudes) by panels; None where these are too many configurations."""
        panels, found = self._lines(seed)
        if (seed, kind) not in self._results:
            engine = self.engine
            for k, leaf in enumerate(engine.leaves):
                first = engine.offsets[k]
                if leaf.adaptive and leaf.place is not None:
                    leaf.panels = [
                        found.rules.get(first + j, (np.array([leaf.at_element(j)[2]]), np.ones(1)))
                        for j in range(leaf.count)
                    ]
            state = [
                (
                    leaf,
                    {
                        name: getattr(leaf, name, None)
                        for name in ("fixed", "steps", "rule", "inner", "size", "noise_shape")
                    },
                )
                for leaf in engine.adaptive
            ]
            evaluations = engine.evaluations
            try:
                rules = self._pairs(panels) if kind == NESTED else []
                engine.joint = self._placed(rules)
                self._results[seed, kind] = engine.with_rules(self.compute, points, kind)
            except BudgetError:
                engine.check_time()
                self._results[seed, kind] = None
            engine.evaluations, engine.joint = evaluations, []
            for leaf, attributes in state:
                for name, value in attributes.items():
                    setattr(leaf, name, value)
        return self._results[seed, kind]

    def _pairs(self, panels: Panels) -> list[Nested]:
        """A rule for each two elements that meet in a part of the cost. Raises BudgetError where more than two do, or
        none."""
        continuous = set(panels.elements)
        pairs = sorted({tuple(sorted(s & continuous)) for s in self.engine.sets if len(s & continuous) > 1})
        if not pairs or any([len(p) > 2 for p in pairs]):
            raise BudgetError(f"a rule is for two continuous samples together ({here()})")
        return [Nested(panels, *p) for p in pairs]

    def _placed(self, rules: list[Nested]) -> list[tuple[tuple[int, ...], list[int], int]]:
        """The rules, put behind the rows that their leaves have."""
        engine = self.engine
        found: list[tuple[tuple[int, ...], list[int], int]] = []
        for leaf in engine.leaves:
            leaf.nested = []
        for nested in rules:
            pair, (x, steps) = (nested.outer, nested.inner), nested.rule()
            self._doubt = max(self._doubt, nested.doubt)
            if nested.doubt > max(1e-6, 1e3 * engine.eps):
                names = " and ".join([engine.leaves[engine.owner[e]].name for e in pair])
                raise ConvergenceError(
                    f"no mean was found over {names}: a part of {nested.doubt:.2g} of it does not settle; either the"
                    f" mean does not exist (E|.| is infinite), or the cost is not smooth at too many places;"
                    f"{engine.undeclared()} sample it ({here()})"
                )
            owners = [int(engine.owner[e]) for e in pair]
            starts = [sum([len(rows) for rows, _ in engine.leaves[k].nested]) for k in owners]
            for k in set(owners):
                leaf = engine.leaves[k]
                rows = (
                    np.tile([leaf.at_element(j)[2] for j in range(leaf.count)], (len(x), 1)),
                    np.zeros((len(x), leaf.count)),
                )
                for side, e in enumerate(pair):
                    if owners[side] == k:
                        rows[0][:, e - engine.offsets[k]], rows[1][:, e - engine.offsets[k]] = (
                            x[:, side],
                            steps[:, side],
                        )
                leaf.nested.append(rows)
            found.append((pair, starts, len(x)))
        return found


def overlapping(slopes: list[Any], sets: list[Set], elements: int) -> Any:
    """The pairs of elements of terms that some coordinate adds up and that are not independent: (pairs, 2), the first
    not after the second."""
    if len(sets) ** 2 > _PAIRS:
        raise BudgetError(f"{len(sets)} parts of a gradient are too many for their covariances ({here()})")
    member = np.zeros((len(sets), elements), np.float32)
    for i, s in enumerate(sets):
        member[i, list(s)] = 1
    met = np.zeros((len(sets), len(sets)), bool)
    for slope in slopes:
        used = np.asarray(slope != 0, np.float32)
        met |= used.T @ used > 0
    return np.argwhere(np.triu(met & (member @ member.T > 0)))


def _absorbed(weights: Any, values: Any) -> Any:
    """weights * values, zero where the weight is, whatever the value there."""
    finite = np.isfinite(_raw(values))
    return weights * (values if finite.all() else np.where((_raw(weights) == 0) & ~finite, 0, values))


def _raw(x: Any) -> Any:
    return x.raw if type(x) is Node else x


def _largest(x: Any) -> float:
    return float(np.max(np.abs(x), initial=0))


def _covered(requests: list[Set]) -> tuple[list[Set], list[int]]:
    """The largest of the sets, in which all the others lie, and for every request one in which it does."""
    distinct = sorted(set(requests), key=lambda s: (-len(s), sorted(s)))
    covers: list[Set] = []
    containing: dict[int, list[int]] = {}
    cover_of: dict[Set, int] = {}
    for s in distinct:
        rarest = min((containing.get(e, []) for e in s), key=len, default=list(range(len(covers))))
        found = next((k for k in rarest if s <= covers[k]), None)
        if found is None:
            found = len(covers)
            covers.append(s)
            for e in s:
                containing.setdefault(e, []).append(found)
        cover_of[s] = found
    return covers, [cover_of[r] for r in requests]


def _rounds(covers: list[Set], sizes: list[int]) -> list[list[int]]:
    """Sets that have no element in common, together: by falling size, each into the first round that it fits."""
    rounds: list[tuple[set[int], list[int]]] = []
    for k in sorted(range(len(covers)), key=lambda k: -sizes[k]):
        for used, members in rounds:
            if used.isdisjoint(covers[k]):
                used |= covers[k]
                members.append(k)
                break
        else:
            rounds.append((set(covers[k]), [k]))
    return [members for _, members in rounds]
