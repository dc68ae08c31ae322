"""Exact means of nodes, by enumeration of what each of their elements depends on.

A node is taken apart through sums, layout and constant factors into *terms*. The axis maps tell which elements of which
samples and of which noise an element of a term depends on, through samples in between too: its *set*. Sets without a
common element are enumerated at once, row by row of one batched replay: row r gives each of them the r-th of its own
configurations. So the number of rows is that of the largest set, and n coins of which each meets its own part of a cost
take 2 n evaluations of parts, not 2^n of the whole.
"""

import functools
import itertools
import math
import time
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from scg.core.aliases import Result
from scg.core.ancestry import ancestors
from scg.core.axes import padded
from scg.core.backward import pull
from scg.core.node import Node, Value, value_of
from scg.core.replay import replay
from scg.distributions.base import Distribution
from scg.elimination.affine import affine_at, terms_of
from scg.elimination.finite import BudgetError, Width, written
from scg.errors import here
from scg.exact.breaks import breaks, kinks
from scg.exact.leaf import Choice, Leaf
from scg.exact.reach import reaches
from scg.exact.sets import Set, covered, rounds
from scg.stochastic.dependence import influence
from scg.stochastic.formulas import box
from scg.stochastic.sites import is_draw, is_noise

_NAMED = 9  # samples in a message
_BLOCK = 2**20  # elements that the largest array of a block of rows may have


class Block(NamedTuple):
    """``members``: requests, and the column of each in ``weights`` (rows, sets); ``values``: of terms, by id, (rows,
    elements)."""

    members: list[int]
    columns: list[int]
    weights: Value
    values: dict[int, Value]


class Engine:
    """The means of ``roots``. With ``held`` what is linear in values though not in derivatives, such as stop_gradient,
    is taken apart as well.

    ``deadline`` is a value of ``time.monotonic()`` after which BudgetError is raised.
    """

    def __init__(self, roots: list[Node], names: dict[int, str], budget: int, held: bool, deadline: float = math.inf):
        self.deadline, self.infinite = deadline, False
        self._widest: tuple[Set, int] = frozenset(), 0
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
            for leaf, places, bends in zip(self.leaves, known.at, kinks(self.leaves, self.offsets), strict=True):
                leaf.breaks, leaf.kinks = places, bends
        further: list[np.ndarray | None] = [
            np.any(found[leaf.node.id].reshape(leaf.count, -1, self.offsets[-1]), axis=1) if leaf.varies else None
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

    @functools.cached_property
    def eps(self) -> float:
        """The rounding of what is integrated, and of what it is made of: samples of float32 in a cost of float64."""
        ties = [tie for tie, leaf in zip(self.ties, self.leaves, strict=True) if leaf.adaptive]
        varying = set().union(*ties) if ties else set()
        nodes = [*self.roots, *[n for n in self.order if n.id in varying and type(n.raw) is not tuple]]
        return max([float(np.finfo(n.dtype).eps) for n in nodes if n.dtype.kind == "f"], default=2e-16)

    @property
    def leading(self) -> list[Node]:
        """The nodes that lead to the terms."""
        return ancestors(self.terms, guards=True)

    @property
    def adaptive(self) -> list[Leaf]:
        """The leaves whose values cannot all be listed."""
        return [leaf for leaf in self.leaves if leaf.adaptive]

    def leaf(self, element: int) -> Leaf:
        """The leaf that an element is of."""
        return self.leaves[self.owner[element]]

    def column(self, element: int) -> int:
        """Which element of its leaf an element is."""
        return element - self.offsets[self.owner[element]]

    def bent_by(self, targets: list[Node]) -> list[str]:
        """The noise along which something breaks that depends on ``targets`` as well."""
        made = {t.id for t in targets}
        for n in self.order:
            if not made.isdisjoint([o.id for o in n.operands if type(o) is Node]):
                made.add(n.id)
        found = breaks(self.leaves, self.offsets, self.order, {i: r for i, r in self.reach.items() if i in made})
        return [
            leaf.name for leaf, at in zip(self.leaves, found.at, strict=True) if leaf.is_noise and any(map(len, at))
        ]

    def leans(self, node: Node) -> bool:
        """Whether a node depends on noise."""
        return any(leaf.is_noise and node.id in tie for leaf, tie in zip(self.leaves, self.ties, strict=True))

    def _sets(self, reach: np.ndarray, reaches: list[np.ndarray | None]) -> list[Set]:
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
        if self.joint:
            return math.prod([count for _, _, count in self._digits(elements)])
        return math.prod([self.leaf(e).size for e in elements])

    def _digits(self, elements: Set) -> list[tuple[tuple[int, ...], list[int], int]]:
        """Of what a number of a configuration of a set is made: elements that change together, the row at which the
        values of each begin, how many there are."""
        if not self.joint:
            return [((e,), [0], self.leaf(e).size) for e in sorted(elements)]
        left, found = set(elements), []
        for joint in self.joint:
            if left.issuperset(joint[0]):
                left.difference_update(joint[0])
                rows = [self.leaf(e).size + start for e, start in zip(*joint[:2], strict=True)]
                found.append((joint[0], rows, joint[2]))
        return found + [((e,), [0], self.leaf(e).size) for e in sorted(left)]

    def blocks(self, requests: list[Set], wanted: Sequence[tuple[int, ...]], graph: bool) -> Iterator[Block]:
        """For every request (a set; the positions of the terms that it needs) the weights of its configurations and the
        terms there, in blocks of rows."""
        covers, of = covered(requests)
        sizes = self._sizes(covers)
        self.evaluations += sum(sizes)
        members: list[list[int]] = [[] for _ in covers]
        for request, cover in enumerate(of):
            members[cover].append(request)
        for together in rounds(covers, sizes):
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
                further = " or rtol=" * any([self.leaf(e).adaptive for e in cover])
                more = f" and {len(parts) - _NAMED} more samples" if len(parts) > _NAMED else ""
                raise BudgetError(
                    f"a part of the cost depends on {', '.join(parts[:_NAMED])}{more} at once, a width of {len(cover)}"
                    f" elements: {written(size)} configurations, over the budget of {self.budget}; raise"
                    f" budget={further}, or write the cost as a sum of parts that depend on fewer ({here()})",
                    self._width(cover, size),
                )
        for cover, size in zip(sets, sizes, strict=True):
            if size > self._widest[1]:
                self._widest = cover, size
        return sizes

    @property
    def width(self) -> Width:
        """The largest part that was enumerated."""
        return self._width(*self._widest)

    def _width(self, elements: Set, entries: int) -> Width:
        owner = sorted({int(self.owner[e]) for e in elements})
        return Width(len(elements), entries, tuple([self.leaves[k].name for k in owner]))

    def _run(
        self, sets: list[Set], sizes: list[int], rows: np.ndarray, terms: list[int], graph: bool
    ) -> tuple[Value, list[Value]]:
        """The probability of every row's configuration of every set, and the values of some terms."""
        digits = np.full((len(rows), self.offsets[-1]), -1)
        alike: dict[tuple[int, int, int], tuple[list[int], list[int]]] = {}
        for elements, size in zip(sets, sizes, strict=True):
            stride = 1
            for inside, starts, count in self._digits(elements):
                columns, first = alike.setdefault((size, stride, count), ([], []))
                columns += inside
                first += starts
                stride *= count
        left: dict[tuple[int, int], np.ndarray] = {}  # the number of a configuration over the stride of a digit
        for (size, stride, count), (columns, first) in alike.items():
            if stride == 1:
                left[size, 1] = rows if rows[-1] < size else rows % size
            number = left[size, stride] if stride < size else np.zeros_like(rows)  # of a digit with one value
            last = stride * count == size
            digits[:, columns] = (number if last else number % count)[:, None] + first
            if not last:
                left[size, stride * count] = number // count
        values: Choice = {}
        weights: list[np.ndarray | None] = []
        with np.errstate(all="ignore"):  # where a configuration is impossible
            for leaf, start in zip(self.leaves, self.offsets, strict=False):
                value, weight = leaf.at(
                    digits[:, start : start + leaf.count],
                    None if leaf.is_noise or leaf.fixed is not None else self.distribution_at(leaf, values),
                )
                values[leaf.node] = value
                weights.append(weight)
            scores = [leaf.score if leaf.by_density or graph and leaf.moves else None for leaf in self.leaves]
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

    def distribution_at(self, leaf: Leaf, values: Choice) -> Distribution:
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

    def _chance(self, leaf: Leaf, weight: np.ndarray | None, log_p: Value | None) -> Value | None:
        """The weight of every element of a leaf in every row, (rows, elements); with the derivative of its probability
        where that is a Node."""
        if log_p is None:
            return weight
        rows = log_p.shape[0]
        log_p = np.reshape(log_p, (rows, leaf.count))
        if not leaf.discrete:
            return weight * (np.exp(log_p) if leaf.by_density else box(log_p))
        return leaf.probabilities(log_p)

    def means(self, graph: bool = False) -> list[Result]:
        """E of every term: arrays, or Nodes of the parameters. ``magnitude`` is then E|.| of all their elements: what
        rounding is relative to."""
        total: Result = np.zeros(len(self.sets))
        self.magnitude = np.zeros(len(self.sets))
        pieces: list[Value] = []
        place: list[int] = []
        mass = np.zeros(len(self.sets))
        wanted = [(k,) for k, _ in self.places]
        for block in self.blocks(self.sets, wanted, graph):
            for t, inside, columns, elements in self._by_term(block):
                w = block.weights[:, columns]
                products = _absorbed(w, block.values[t][:, elements])
                part = np.sum(products, axis=0)
                self.magnitude[inside] += np.sum(np.abs(value_of(products)), axis=0)
                if graph:
                    pieces.append(part)
                    place += inside
                else:
                    total[inside] += part
                mass[inside] += np.sum(value_of(w), axis=0)
        self.missing = float(np.max(np.abs(mass - 1), initial=0))
        if graph and pieces:
            onto = np.zeros((len(self.sets), len(place)))  # rows of one element come in several blocks
            onto[place, np.arange(len(place))] = 1
            total = onto @ np.concatenate(pieces)
        return [
            np.reshape(total[s : s + term.size], term.shape) for s, term in zip(self.starts, self.terms, strict=True)
        ]

    def gradient(self, weights: list[np.ndarray], parameters: list[Node]) -> list[np.ndarray]:
        """d / d parameters of the sum of E[term] * weights over the terms, block by block: what is recorded stays
        small."""
        seeds = np.concatenate([np.ravel(w) for w in weights]) if weights else np.zeros(0)
        total: list[np.ndarray] = [np.zeros(p.shape) for p in parameters]
        for block in self.blocks(self.sets, [(k,) for k, _ in self.places], True):
            cost: Result = 0
            for t, inside, columns, elements in self._by_term(block):
                cost = cost + np.sum(_absorbed(block.weights[:, columns], block.values[t][:, elements]) * seeds[inside])
            if type(cost) is Node:
                pulled = pull([cost], [np.ones((), cost.dtype)], parameters)
                total = [a + b for a, b in zip(total, pulled, strict=True)]
        return total

    def covariances(self, means: list[np.ndarray], pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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

    def at(self, roots: list[Node], values: Sequence[Value], graph: bool = False, size: int = 0) -> list[Result]:
        """The roots at other values of the terms, in which they are affine; where ``size``, with a leading axis of it.
        Those of integers may be fractions."""
        return affine_at(self.terms, roots, values, graph, size)

    def slopes(self, roots: list[Node]) -> list[np.ndarray]:
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


def _absorbed(weights: Value, values: Value) -> Value:
    """weights * values, zero where the weight is, whatever the value there."""
    finite = np.isfinite(value_of(values))
    return weights * (values if finite.all() else np.where((value_of(weights) == 0) & ~finite, 0, values))
