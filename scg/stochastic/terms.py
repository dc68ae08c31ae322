"""A cost taken apart through what is linear (sums, means, differences, layout, constant factors, products with constant
matrices), for each of the samples that it depends on."""

import functools
import heapq
import math
import operator
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np

from scg.core.axes import elementwise, reduction
from scg.core.backward import estimates, is_estimate, unbroadcast
from scg.core.node import Node, ancestors, values_of
from scg.stochastic.dependence import Influence, Tie, accounted, accounts, gather, is_accounted, picked, unpicked

Part = tuple[Node, Any, Tie]
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
        self.bits = {site: influence.bits[site.id] for site in sites}
        self.terms: list[tuple[Node, int]] = []
        self.sums: list[tuple[Node, list[tuple[int, int]]]] = []
        # by whether Nodes are wanted; what belongs to a part by its id
        self._parts: dict[bool, list[tuple[Part, int]]] = {}
        self._shares: dict[bool, dict[int, Any]] = {False: {}, True: {}}
        self._totals: dict[bool, dict[int, Any]] = {False: {}, True: {}}

        draws, chosen = influence.draws, influence.chosen
        if together:
            draws, chosen = dict.fromkeys(draws, 1), dict.fromkeys(chosen, 1)
        opened: set[int] = set()
        while new := self._apart(draws, chosen, opened, together):
            opened |= new

    def _apart(self, draws: dict[int, int], chosen: dict[int, int], opened: set[int], together: bool) -> set[int]:
        """Take the cost apart: through what is linear element by element, through layout and sums, and through those of
        the other linear nodes that are ``opened``. Returns which ones more are worth it.

        Worth it is a product with a matrix, w @ b say, where behind it stand terms of fewer elements of a sample, and
        no other term mixes these elements anyway: else weights cost as much as the products, and nothing is gained.
        """
        cost = self.cost
        closed: list[tuple[Node, list[tuple[Node, int]]]] = []
        self.terms, self.sums = [], []
        seen, region, latest = {cost.id: draws.get(cost.id, 0)}, {cost.id: cost}, [-cost.id]
        while latest:  # by falling id: a node comes after all sums in which it stands
            node = region[-heapq.heappop(latest)]
            inner, left = _shares(node, seen[node.id], draws, chosen.get(node.id, 0))
            if inner and not _is_cheap(node) and node.id not in opened:
                closed.append((node, [(node.operands[k], -1 if together else through) for k, through in inner]))
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
                seen[operand.id] = seen.get(operand.id, 0) | through
        return self._worth(closed, together) if closed else set()

    def _worth(self, closed: list[tuple[Node, list[tuple[Node, int]]]], together: bool) -> set[int]:
        """Of linear nodes that are terms, those behind which stand terms of fewer elements of a sample."""
        held = self.influence.held
        ways = {node.id: inner for node, inner in closed}
        finer = {node.id for node, inner in closed if self._finer(inner, held[node.id])}
        rest = [
            (_breadth(tie), those & (-1 if together else left))
            for term, left in self.terms
            if term.id not in finer
            for tie, those in held[term.id].items()
        ]
        worth = set()
        for i in finer:
            free = {}
            for tie, those in held[i].items():
                for breadth, draws in rest:
                    those &= ~draws if breadth >= _breadth(tie) else -1
                free[tie] = those
            if self._finer(ways[i], free):
                worth.add(i)
        return worth

    def _finer(self, inner: list[tuple[Node, int]], held: dict[Tie, int]) -> bool:
        """Whether what a node is a sum over, one behind the other, depends on fewer elements of some samples than the
        node, which is tied to them as ``held`` says."""
        for tie, draws in held.items():
            stack, seen, breadth = [(operand, through & draws) for operand, through in inner], set[int](), _breadth(tie)
            while stack:
                node, those = stack.pop()
                if any([tied & those and _breadth(t) < breadth for t, tied in self.influence.held[node.id].items()]):
                    return True
                if node.id not in seen:
                    seen.add(node.id)
                    further = _shares(node, those, self.influence.draws, self.influence.chosen.get(node.id, 0))[0]
                    stack += [(node.operands[k], through) for k, through in further]
        return False

    def of(self, site: Node, graph: bool) -> list[Part]:
        """The terms that a sample sees, latest first."""
        bit, parts = self.bits[site], self._parts.get(graph)
        if parts is None:
            weights, held = self._weights(graph), self.influence.held
            parts = self._parts[graph] = [
                ((t, w, tie), seen)
                for t, draws in self.terms
                for those, w in weights[t.id]
                for tie, tied in held[t.id].items()
                if (seen := draws & those & tied)
            ]
        return [part for part, draws in parts if draws & bit]

    def total(self, parts: list[Part], graph: bool) -> Any:
        """The cost-to-go of a sample: the sum of the terms that it sees, ``of`` it, gathered onto its elements.

        Samples that see the same latest terms share the sum of these: a walk of T samples with a cost at each step
        takes T additions, not one for each sample and each later cost.
        """
        at, total = self._totals[graph], None
        for part in parts:
            if id(part) not in at:
                share = self._share(part, graph)
                at[id(part)] = {}, share if total is None else total + share
            at, total = at[id(part)]
        return total

    def _share(self, part: Part, graph: bool) -> Any:
        known = self._shares[graph]
        if id(part) not in known:
            term, weight, tie = part
            value = weighted(term if graph else term.raw, weight)
            known[id(part)] = unpicked(gather(value, tie), tie)
        return known[id(part)]

    def _weights(self, graph: bool) -> dict[int, list[tuple[int, Any]]]:
        """d cost / d term through the sums alone, where each is constant, and for which samples; Nodes where it depends
        on parameters and ``graph``."""
        seeds: dict[int, list[tuple[int, Any]]] = {self.cost.id: [(-1, np.ones(self.cost.shape, self.cost.dtype))]}
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
                    if draws & through:
                        g, support = weight if type(weight) is Partial else (weight, None)
                        vjp = primitive.vjps
                        d = (
                            vjp[k](g, out, *arguments, **node.statics)
                            if vjp
                            else primitive.every(g, k, out, *arguments, **node.statics)
                        )
                        d = d if d.shape == operand.shape and d.dtype == dtype else unbroadcast(d, operand.shape, dtype)
                        if support is not None or takes:
                            support = _support(node, k, support)
                            d = d if support is None else Partial(d, support)
                        seeds[operand.id] = _added(seeds.get(operand.id, []), draws & through, d)
        return seeds


class Partial(NamedTuple):
    """A weight that is zero by structure outside of ``support``: of elements that nobody picked or chose."""

    value: Any
    support: Any


def weighted(value: Any, weight: Any) -> Any:
    """The product of a term's value and its weight; zero where the weight is so by structure, whatever the value is."""
    if type(weight) is not Partial:
        return value * weight
    if type(value) is Node or not np.isfinite(value).all():
        value = np.where(weight.support, value, np.zeros((), value.dtype))
    return value * weight.value


def _support(node: Node, k: int, support: Any) -> Any:
    """Where the weight of operand ``k`` is not zero by structure, given that of the node; None: everywhere.

    The zeros of a VJP that depends on indices and truths alone are of elements that were not picked or chosen.
    """
    primitive, operands = node.primitive, node.operands
    arguments = values_of(operands)
    group = next(group for group in primitive.groups(len(operands)) if k in group)
    if all([j in group or np.asarray(x).dtype.kind in "biu" for j, x in enumerate(arguments)]):
        ones = np.ones(node.shape) if support is None else support.astype(float)
        d = (
            primitive.vjps[k](ones, node.raw, *arguments, **node.statics)
            if primitive.vjps
            else primitive.every(ones, k, node.raw, *arguments, **node.statics)
        )
        found = unbroadcast(d, operands[k].shape, ones.dtype) != 0
    elif support is None or primitive.axes is not elementwise:
        return None
    else:
        found = unbroadcast(support.astype(float), operands[k].shape, np.dtype(float)) != 0
    return None if found.all() else found


def _added(pieces: list[tuple[int, Any]], draws: int, d: Any) -> list[tuple[int, Any]]:
    """A weight that differs from sample to sample, as (samples, what it is for them), with ``d`` added for some."""
    new = []
    for those, before in pieces:
        if those & draws:
            new.append((those & draws, _sum(before, d)))
        if those & ~draws:
            new.append((those & ~draws, before))
        draws &= ~those
    return [*new, (draws, d)] if draws else new


def _sum(a: Any, b: Any) -> Any:
    if type(a) is not Partial or type(b) is not Partial:
        return (a.value if type(a) is Partial else a) + (b.value if type(b) is Partial else b)
    return Partial(a.value + b.value, a.support | b.support)


def settled(cost: Node, order: list[Node] | None = None) -> Node:
    """The cost, in which every estimate that it is linear in is one of which the derivative has what its samples
    contribute.

    Linear is what adds it up with weights that depend on none of these samples: E[w e] = E[w] E[e] there, given all
    that was drawn before. Elsewhere, as in e^2, or e f(b) with b among its samples, an estimate is left a function of
    its samples, which enter by their own estimators.
    """
    # with what no way leads to but through an estimate's own derivative
    order = order or ancestors([cost], guards=True)
    found = estimates(order)
    if not found:
        return cost
    own = {node.id: 1 << k for k, node in enumerate(found)}
    sites = {site.id: site for node in found for site in accounts(node) if "site" in site.statics}
    known = Influence([(site, site.statics["site"].event_ndim) for site in sites.values()], order)
    masks = dict.fromkeys(sites, 0)
    for node in found:
        for site in accounts(node):
            if site.id in masks:
                masks[site.id] |= own[node.id]

    def owners(draws: int) -> int:
        """The estimates that account for one of some samples."""
        return functools.reduce(operator.or_, [mask for k, mask in enumerate(masks.values()) if draws >> k & 1], 0)

    # by id of a node, the estimates that it is made from, and with their samples those that it depends on
    below: dict[int, int] = {}
    mixed: dict[int, int] = {}
    for node in order:
        made = own.get(node.id, 0)
        for operand in node.operands[:1] if is_estimate(node) or is_accounted(node) else node.operands:
            made |= below.get(operand.id, 0) if type(operand) is Node else 0
        if made:
            below[node.id] = made
        if both := made | owners(known.draws.get(node.id, 0)):
            mixed[node.id] = both
    # of a node, as it is met: (operand, estimates)
    linear: dict[int, dict[int, list[tuple[int, int]]]] = {cost.id: {(1 << len(found)) - 1: []}}
    for node in reversed(order):
        chosen = owners(known.chosen.get(node.id, 0)) if node.id in linear else 0
        for those, inner in linear.get(node.id, {}).items():
            # in a branch that its sample chose, an estimate has 0 or 1 as its weight
            for k, through in _shares(node, those & ~chosen, mixed, 0)[0]:
                if through & below.get(node.operands[k].id, 0):
                    inner.append((k, through))
                    linear.setdefault(node.operands[k].id, {}).setdefault(through, [])
    new: dict[tuple[int, int], Node] = {}
    for node in order:
        for those, inner in linear.get(node.id, {}).items():
            operands = list(node.operands)
            for k, through in inner:
                operands[k] = new.get((node.operands[k].id, through), node.operands[k])
            if those & own.get(node.id, 0):
                made = accounted(*node.operands[1:])
            elif any([x is not y for x, y in zip(operands, node.operands, strict=True)]):
                made = node.primitive(*operands, **node.statics)
            else:
                continue
            made.guard = node.guard
            new[node.id, those] = made
    return new.get((cost.id, (1 << len(found)) - 1), cost)


def summands(node: Node, dependent: Collection[int]) -> list[int]:
    """Positions of the operands of which a node is a sum with constant weights, those in ``dependent``; none where it
    is no such sum."""
    if node.primitive.linear is None:
        return []
    return [
        k for k, _ in _shares(node, 1, {o.id: 1 for o in node.operands if type(o) is Node and o.id in dependent}, 0)[0]
    ]


def _shares(node: Node, seen: int, draws: Mapping[int, int], chosen: int) -> tuple[list[tuple[int, int]], int]:
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
    moving, some = [], 0
    for o in operands:
        m = draws.get(o.id, 0) & seen if type(o) is Node else 0
        if m and o.raw.dtype.kind == "c":
            return [], seen
        moving.append(m)
        some |= m
    if primitive.linear == "together" and not chosen:  # what follows, for most sums
        return [(k, m) for k, m in enumerate(moving) if m], 0
    apart = 0
    for group in primitive.groups(len(operands)):
        alone, every = some, seen
        for k, m in enumerate(moving):
            if k in group:
                every &= m
            else:
                alone &= ~m
        if chosen and len(group) > 1:
            alone &= ~chosen | every
        apart |= alone
    if chosen and node.guard is not None:
        for o, m in zip(operands, moving, strict=True):
            if m and o.guard is not node.guard:
                apart &= ~(m & chosen)
    return [(k, m & apart) for k, m in enumerate(moving) if m & apart], seen & ~apart


def _is_cheap(node: Node) -> bool:
    """Whether the weights of what a node is a sum over cost no more than an array each, as those of sums and layout."""
    primitive = node.primitive
    return primitive.axes is elementwise or primitive.axes is reduction or bool(primitive.moves or primitive.picks)


def _breadth(tie: Tie) -> int:
    """On how many elements of a sample an element of a node depends."""
    tied = {factor: n for axis in tie.axes for factor, n in axis if factor is not None}
    return math.prod(picked(tie)) // max(1, math.prod(tied.values()))
