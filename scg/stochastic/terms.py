"""A cost taken apart through what is linear (sums, means, differences, layout, constant factors, products with constant
matrices), for each of the samples that it depends on."""

import functools
import heapq
import math
from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np

from scg.core.aliases import Result
from scg.core.ancestry import ancestors
from scg.core.axes import elementwise, reduction
from scg.core.cotangents import unbroadcast
from scg.core.node import Node, Value, values_of
from scg.errors import GuardError, here
from scg.stochastic.dependence import Influence
from scg.stochastic.sets import Set, common, first, last, meet, members, union, without
from scg.stochastic.ties import Tie, gather, picked, unpicked

Part = tuple[Node, Result, Tie]
"""A term as some samples see it: with its weight, and how it is tied to them."""


class Terms:
    """A cost taken apart for some samples, each of which sees its own terms: f(a) g(b) is a term f for a, with the
    weight g, and g for b, with the weight f.

    ``terms``  nodes, and the samples (a set as in ``Influence``) that see them so
    ``sums``   the nodes that are taken apart: (node, [(position of an operand, the samples that look into it)])

    With ``together`` all samples see the same terms; f(a) g(b) is then one.
    """

    def __init__(self, cost: Node, sites: list[Node], nodes: list[Node] | None = None, together: bool = False):
        self.cost = cost
        nodes = nodes or ancestors([cost], min(site.id for site in sites), guards=True)
        self.influence = influence = Influence([(s, s.statics["site"].event_ndim) for s in sites], nodes)
        if influence.ties:
            raise GuardError(
                f"replicates were run at once, and the `if` at {influence.ties[0].line} looks at a sample of each: what"
                " stands behind it would depend on the samples of all; use graph.gradients(rng=rng, replicates=n), or"
                f" graph.run(rng=rng) for each ({here()})"
            )
        self.bits = {site: influence.bits[site.id] for site in sites}
        self.terms: list[tuple[Node, Set]] = []
        self.sums: list[tuple[Node, list[tuple[int, Set]]]] = []
        self._number = {site: k for k, site in enumerate(sites)}
        # by whether Nodes are wanted
        self._seen: dict[bool, dict[int, Seen]] = {}
        self._gathered: dict[int, Result] = {}

        draws, chosen = influence.draws, influence.chosen
        if together:
            draws, chosen = dict.fromkeys(draws, 1), dict.fromkeys(chosen, 1)
        opened: set[int] = set()
        while new := self._apart(draws, chosen, opened, together):
            opened |= new

    def _apart(self, draws: dict[int, Set], chosen: dict[int, Set], opened: set[int], together: bool) -> set[int]:
        """Take the cost apart: through what is linear element by element, through layout and sums, and through those of
        the other linear nodes that are ``opened``. Returns which ones more are worth it.

        Worth it is a product with a matrix, w @ b say, where behind it stand terms of fewer elements of a sample, and
        no other term mixes these elements anyway: else weights cost as much as the products, and nothing is gained.
        """
        cost = self.cost
        closed: list[tuple[Node, list[tuple[Node, Set]]]] = []
        every = self.influence.draws.get(cost.id, 0)
        self.terms, self.sums = [], []
        seen, region, latest = {cost.id: draws.get(cost.id, 0)}, {cost.id: cost}, [-cost.id]
        while latest:  # by falling id: a node comes after all sums in which it stands
            node = region[-heapq.heappop(latest)]
            inner, left = shares(node, seen[node.id], draws, chosen.get(node.id, 0))
            if inner and not _is_cheap(node) and node.id not in opened:
                closed.append((node, [(node.operands[k], every if together else through) for k, through in inner]))
                inner, left = [], seen[node.id]
            if left:
                self.terms.append((node, left))
            if inner:
                self.sums.append((node, inner))
            for k, through in inner:
                operand = node.operands[k]
                if operand.id not in region:
                    region[operand.id] = operand
                    heapq.heappush(latest, -operand.id)
                seen[operand.id] = union(seen.get(operand.id, 0), through)
        return self._worth(closed, together) if closed else set()

    def _worth(self, closed: list[tuple[Node, list[tuple[Node, Set]]]], together: bool) -> set[int]:
        """Of linear nodes that are terms, those behind which stand terms of fewer elements of a sample."""
        held = self.influence.held
        ways = {node.id: inner for node, inner in closed}
        finer = {node.id for node, inner in closed if self._finer(inner, held[node.id])}
        rest = [
            (_breadth(tie), those if together else common(those, left))
            for term, left in self.terms
            if term.id not in finer
            for tie, those in held[term.id].items()
        ]
        worth = set()
        for i in finer:
            free = {}
            for tie, those in held[i].items():
                for breadth, draws in rest:
                    those = without(those, draws) if breadth >= _breadth(tie) else those
                free[tie] = those
            if self._finer(ways[i], free):
                worth.add(i)
        return worth

    def _finer(self, inner: list[tuple[Node, Set]], held: dict[Tie, Set]) -> bool:
        """Whether what a node is a sum over, one behind the other, depends on fewer elements of some samples than the
        node, which is tied to them as ``held`` says."""
        for tie, draws in held.items():
            stack = [(operand, common(through, draws)) for operand, through in inner]
            seen, breadth = set[int](), _breadth(tie)
            while stack:
                node, those = stack.pop()
                known = self.influence.held[node.id]
                if any([_breadth(t) < breadth and meet(tied, those) for t, tied in known.items()]):
                    return True
                if node.id not in seen:
                    seen.add(node.id)
                    further = shares(node, those, self.influence.draws, self.influence.chosen.get(node.id, 0))[0]
                    stack += [(node.operands[k], through) for k, through in further]
        return False

    def stand_behind_ifs(self, site: Node) -> bool:
        """Whether some of the terms that a sample sees are made where an ``if`` has looked at it."""
        return meet(self.bits[site], self._behind_ifs)

    @functools.cached_property
    def _behind_ifs(self) -> Set:
        """The samples of which that holds."""
        chosen = self.influence.chosen
        return functools.reduce(union, [common(chosen[t.id], seen) for t, seen in self.terms if t.id in chosen], 0)

    def of(self, site: Node, graph: bool) -> list[Part]:
        """The terms that a sample sees, latest first."""
        seen = self._sight(graph).get(self._number[site])
        return [] if seen is None else [one.part for one in reversed(seen.back())]

    def ties(self, site: Node, graph: bool) -> tuple[Tie, ...]:
        """How the terms that a sample sees are tied to it."""
        seen = self._sight(graph).get(self._number[site])
        return () if seen is None else seen.ties

    def total(self, site: Node, graph: bool) -> Result:
        """The cost-to-go of a sample: the sum of the terms that it sees, gathered onto its elements; None where it sees
        none.

        Samples that see the same first terms share the sum of these: a walk of n samples with a cost at each step takes
        n additions, not one for each sample and each later cost.
        """
        seen = self._sight(graph).get(self._number[site])
        if seen is None:
            return None
        for one in reversed(seen.back(summed=False)):
            share = self._share(one.part, graph)
            one.total = share if one.before is None else one.before.total + share
        return seen.total

    def _share(self, part: Part, graph: bool) -> Value:
        known = self._gathered
        if id(part) not in known:
            term, weight, tie = part
            known[id(part)] = unpicked(gather(weighted(term if graph else term.raw, weight), tie), tie)
        return known[id(part)]

    def _sight(self, graph: bool) -> "dict[int, Seen]":
        """By number of a sample, the last of the terms that it sees."""
        if graph not in self._seen:
            weights, held = self._weights(graph), self.influence.held
            self._seen[graph] = sighted(
                [
                    ((t, w, tie), seen)
                    for t, draws in self.terms
                    for those, w in weights[t.id]
                    for tie, tied in held[t.id].items()
                    if (seen := common(common(draws, those), tied))
                ]
            )
        return self._seen[graph]

    def _weights(self, graph: bool) -> dict[int, list[tuple[Set, Result]]]:
        """d cost / d term through the sums alone, where each is constant, and for which samples; Nodes where it depends
        on parameters and ``graph``."""
        every = self.influence.draws.get(self.cost.id, 0)
        seeds: dict[int, list[tuple[Set, Result]]] = {
            self.cost.id: [(every, np.ones(self.cost.shape, self.cost.dtype))]
        }
        for node, inner in self.sums:
            arguments = [o if graph or type(o) is not Node else o.raw for o in node.operands]
            out, primitive = node if graph else node.raw, node.primitive
            # which elements have a weight may be a matter of structure
            takes = type(primitive.linear) is tuple or primitive.linear == "together" and not _is_cheap(node)
            for k, through in inner:
                operand = node.operands[k]
                # the weight of an integer is none
                dtype = operand.dtype if operand.dtype.kind == "f" else self.cost.dtype
                for draws, weight in seeds[node.id]:
                    if both := common(draws, through):
                        g, support = weight if type(weight) is Partial else (weight, None)
                        vjp = primitive.vjps
                        d = (
                            vjp[k](g, out, *arguments, **node.statics)
                            if vjp
                            else primitive.every(g, k, out, *arguments, **node.statics)
                        )
                        # a factor may be infinite where nobody picks it
                        if support is not None and primitive.axes is elementwise and d.shape == support.shape:
                            d = weighted(d, Partial(np.ones((), d.dtype), support))
                        d = d if d.shape == operand.shape and d.dtype == dtype else unbroadcast(d, operand.shape, dtype)
                        if support is not None or takes:
                            support = _support(node, k, support, graph)
                            d = d if support is None else Partial(d, support)
                        seeds[operand.id] = _added(seeds.get(operand.id, []), both, d)
        return seeds


class Seen:
    """A term that some samples see, after those ``before`` it."""

    __slots__ = ("before", "part", "ties", "total")

    def __init__(self, before: "Seen | None", part: Part):
        known: tuple[Tie, ...] = () if before is None else before.ties
        self.before, self.part = before, part
        self.ties: tuple[Tie, ...] = known if part[2] in known else (*known, part[2])
        self.total: Result = None

    def back(self, summed: bool = True) -> "list[Seen]":
        """The terms from this one back to the first, or else to those of which the sum is known."""
        found: list[Seen] = []
        seen: Seen | None = self
        while seen is not None and (summed or seen.total is None):
            found.append(seen)
            seen = seen.before
        return found


def sighted(parts: list[tuple[Part, Set]]) -> dict[int, Seen]:
    """By number of a sample, the last of the parts that it sees, which leads back to the others.

    Part by part, samples that have seen the same until now are a group, and a part splits the groups of which it is
    seen by some. A part that the latest samples see comes early, and what no part to come sees is done. Of a walk,
    where part t is seen by samples 0 to t, there is one group, samples 0 to t, which part t - 1 parts from sample t:
    n splits in all, as many as different groups, whatever the graph is.
    """
    runs: list[tuple[Set, list[Part]]] = []
    for part, draws in sorted(parts, key=_place) if len(parts) > 1 else parts:
        if runs and runs[-1][0] == draws:
            runs[-1][1].append(part)
        else:
            runs.append((draws, [part]))
    ahead: list[Set] = [0]
    for draws, _ in reversed(runs[1:]):
        ahead.append(union(ahead[-1], draws))
    found: dict[int, Seen] = {}
    groups: list[tuple[Set, Seen]] = []
    for draws, more in runs:
        coming, new, after = ahead.pop(), draws, []
        for group, seen in groups:
            if both := common(group, draws):
                after.append((both, _extended(seen, more)))
                group, new = without(group, both), without(new, both)
            if group:
                after.append((group, seen))
        if new:
            after.append((new, _extended(None, more)))
        groups = []
        for group, seen in after:
            found.update(dict.fromkeys(members(without(group, coming)), seen))
            if left := common(group, coming):
                groups.append((left, seen))
    return found


def _place(part: tuple[Part, Set]) -> tuple[int, int]:
    return -last(part[1]), first(part[1])


def _extended(seen: Seen | None, parts: list[Part]) -> Seen:
    for part in parts:
        seen = Seen(seen, part)
    assert seen is not None
    return seen


class Partial(NamedTuple):
    """A weight that is zero by structure outside of ``support``: of elements that nobody picked or chose. A Node where
    samples choose, and it is to be replayed with others."""

    value: Value
    support: Value


def weighted(value: Value, weight: Value | Partial) -> Value:
    """The product of a term's value and its weight; zero where the weight is so by structure, whatever the value is."""
    if type(weight) is not Partial:
        return value * weight
    if type(value) is Node or not np.isfinite(value).all():
        value = np.where(weight.support, value, np.zeros((), value.dtype))
    return value * weight.value


def _support(node: Node, k: int, support: Result, graph: bool) -> Result:
    """Where the weight of operand ``k`` is not zero by structure, given that of the node; None: everywhere. In a
    ``graph`` a Node where indices or truths are, which other samples may change.

    The zeros of a VJP that depends on indices and truths alone are of elements that were not picked or chosen.
    """
    primitive, operands = node.primitive, node.operands
    arguments = values_of(operands)
    group = next(group for group in primitive.groups(len(operands)) if k in group)
    if all([j in group or np.asarray(x).dtype.kind in "biu" for j, x in enumerate(arguments)]):
        ones = np.ones(node.shape) if support is None else support.astype(float)
        out, arguments = (node, operands) if graph else (node.raw, arguments)
        d = (
            primitive.vjps[k](ones, out, *arguments, **node.statics)
            if primitive.vjps
            else primitive.every(ones, k, out, *arguments, **node.statics)
        )
        found = unbroadcast(d, operands[k].shape, ones.dtype) != 0
    elif support is None or primitive.axes is not elementwise:
        return None
    else:
        found = unbroadcast(support.astype(float), operands[k].shape, np.dtype(float)) != 0
    return None if type(found) is not Node and found.all() else found


def _added(pieces: list[tuple[Set, Value]], draws: Set, d: Value) -> list[tuple[Set, Value]]:
    """A weight that differs from sample to sample, as (samples, what it is for them), with ``d`` added for some."""
    new = []
    for those, before in pieces:
        if both := common(those, draws):
            new.append((both, _sum(before, d)))
        if left := without(those, draws):
            new.append((left, before))
        draws = without(draws, those)
    return [*new, (draws, d)] if draws else new


def _sum(a: Value, b: Value) -> Value:
    if type(a) is not Partial or type(b) is not Partial:
        return (a.value if type(a) is Partial else a) + (b.value if type(b) is Partial else b)
    return Partial(a.value + b.value, a.support | b.support)


def summands(node: Node, dependent: Collection[int]) -> list[int]:
    """Positions of the operands of which a node is a sum with constant weights, those in ``dependent``; none where it
    is no such sum."""
    if node.primitive.linear is None:
        return []
    return [
        k for k, _ in shares(node, 1, {o.id: 1 for o in node.operands if type(o) is Node and o.id in dependent}, 0)[0]
    ]


def shares(node: Node, seen: Set, draws: Mapping[int, Set], chosen: Set) -> tuple[list[tuple[int, Set]], Set]:
    """(position of an operand, the samples for which a node is a sum over it with a constant weight), and those for
    which it is no sum.

    It is one for a sample where all operands that are made from the sample stand in one group of those in which it is
    linear together. For samples that have ``chosen`` a branch on the way a sum is one only where all of its summands
    are made from them: what is added there, though not made from them, is added in that branch alone.
    """
    primitive, operands, value = node.primitive, node.operands, node.raw
    # the sum of truths is their ``or``
    if primitive.linear is None or type(value) is tuple or value.dtype.kind not in "fiu":
        return [], seen
    moving = []
    for o in operands:
        m = common(draws.get(o.id, 0), seen) if type(o) is Node else 0
        if m and o.raw.dtype.kind == "c":
            return [], seen
        moving.append(m)
    if primitive.linear == "together" and not chosen:  # what follows, for most sums
        return [(k, m) for k, m in enumerate(moving) if m], 0
    some: Set = 0
    for m in moving:
        some = union(some, m)
    apart: Set = 0
    for group in primitive.groups(len(operands)):
        alone, every = some, seen
        for k, m in enumerate(moving):
            if k in group:
                every = common(every, m)
            else:
                alone = without(alone, m)
        if chosen and len(group) > 1:
            alone = without(alone, without(chosen, every))
        apart = union(apart, alone)
    if chosen and node.guard is not None:
        for o, m in zip(operands, moving, strict=True):
            if m and o.guard is not node.guard:
                apart = without(apart, common(m, chosen))
    return [(k, both) for k, m in enumerate(moving) if (both := common(m, apart))], without(seen, apart)


def _is_cheap(node: Node) -> bool:
    """Whether the weights of what a node is a sum over cost no more than an array each, as those of sums and layout."""
    primitive = node.primitive
    return primitive.axes is elementwise or primitive.axes is reduction or bool(primitive.moves or primitive.picks)


def _breadth(tie: Tie) -> int:
    """On how many elements of a sample an element of a node depends."""
    tied = {factor: n for axis in tie.axes for factor, n in axis if factor is not None}
    return math.prod(picked(tie)) // max(1, math.prod(tied.values()))
