"""A cost taken apart through sums, means, differences, layout and constant factors, for each of the draws that it
depends on."""

import functools
import heapq
import operator
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from scg.core.backward import estimate, unbroadcast
from scg.core.node import RULES, Node, ancestors
from scg.primitives import indexing, layout, reduction
from scg.stochastic.dependence import Influence, Tie, accounted, accounts, gather, unpicked


class Terms:
    """A cost taken apart for some draws, each of which sees its own terms: f(a) g(b) is a term f for a, with the weight
    g, and g for b, with the weight f.

    ``terms``  nodes, and the draws (a set as in ``Influence``) that see them so
    ``sums``   the nodes that are taken apart: (node, [(position of an operand, the draws that look into it)])

    With ``together`` all draws see the same terms; f(a) g(b) is then one.
    """

    def __init__(self, cost: Node, sites: list[Node], nodes: list[Node] | None = None, together: bool = False):
        self.cost = cost
        nodes = nodes or ancestors([cost], min(site.id for site in sites), guards=True)
        self.influence = influence = Influence([(s, s.statics["site"].event_ndim) for s in sites], nodes)
        self.bits = {site: influence.bits[site.id] for site in sites}
        self.terms: list[tuple[Node, int]] = []
        self.sums: list[tuple[Node, list[tuple[int, int]]]] = []
        self._known: dict[Any, Any] = {}

        draws, chosen = influence.draws, influence.chosen
        if together:
            draws, chosen = dict.fromkeys(draws, 1), dict.fromkeys(chosen, 1)
        seen, region, latest = {cost.id: draws.get(cost.id, 0)}, {cost.id: cost}, [-cost.id]
        while latest:  # by falling id: a node comes after all sums in which it stands
            node = region[-heapq.heappop(latest)]
            inner, left = _shares(node, seen[node.id], draws, chosen.get(node.id, 0))
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

    def of(self, site: Node, graph: bool) -> list[tuple[Node, Any, Tie]]:
        """The terms that a draw sees, with their weights and ties."""
        bit, tie = self.bits[site], self.influence.tie
        weights = self._known.get(graph)
        if weights is None:
            weights = self._known[graph] = self._weights(graph)
        return [
            (t, w, tie(t, bit)) for t, draws in self.terms if draws & bit for those, w in weights[t.id] if those & bit
        ]

    def share(self, part: tuple[Node, Any, Tie], graph: bool) -> Any:
        """What a term adds to the cost-to-go of a draw that it is tied to so; computed once for all such draws."""
        term, weight, tie = part
        key = term.id, id(weight), tie, graph
        found = self._known.get(key)
        if found is None:
            value = (term if graph else term.raw) * weight
            found = self._known[key] = unpicked(gather(value, tie), tie)
        return found

    def _weights(self, graph: bool) -> dict[int, list[tuple[int, Any]]]:
        """d cost / d term through the sums alone, where each is constant, and for which draws; Nodes where it depends
        on parameters and ``graph``."""
        seeds: dict[int, list[tuple[int, Any]]] = {self.cost.id: [(-1, np.ones(self.cost.shape, self.cost.dtype))]}
        for node, inner in self.sums:
            arguments = [o if graph or type(o) is not Node else o.raw for o in node.operands]
            rule, out = node.primitive, node if graph else node.raw
            for k, through in inner:
                operand = node.operands[k]
                # the weight of a whole number is none
                dtype = operand.dtype if operand.dtype.kind == "f" else self.cost.dtype
                for draws, g in seeds[node.id]:
                    if draws & through:
                        d = (
                            rule.vjps[k](g, out, *arguments, **node.statics)
                            if rule.vjps
                            else rule.every(g, k, out, *arguments, **node.statics)
                        )
                        d = d if d.shape == operand.shape and d.dtype == dtype else unbroadcast(d, operand.shape, dtype)
                        seeds[operand.id] = _added(seeds.get(operand.id, []), draws & through, d)
        return seeds


def _added(pieces: list[tuple[int, Any]], draws: int, d: Any) -> list[tuple[int, Any]]:
    """A cotangent that differs from draw to draw, as (draws, what it is for them), with ``d`` added for some."""
    new = []
    for those, before in pieces:
        if those & draws:
            new.append((those & draws, before + d))
        if those & ~draws:
            new.append((those & ~draws, before))
        draws &= ~those
    return [*new, (draws, d)] if draws else new


def settled(cost: Node, order: list[Node] | None = None) -> Node:
    """The cost, in which every estimate that it is linear in is one of which the derivative has what its draws
    contribute.

    Linear is what adds it up with weights that depend on none of these draws: E[w e] = E[w] E[e] there, given all that
    was drawn before. Elsewhere, as in e^2, or e f(b) with b among its draws, an estimate is left a function of its
    draws, which enter by their own estimators.
    """
    # with what no way leads to but through an estimate's own derivative
    order = order or ancestors([cost], guards=True)
    found = [node for node in order if node.primitive is estimate]
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
        """The estimates that account for one of some draws."""
        return functools.reduce(operator.or_, [mask for k, mask in enumerate(masks.values()) if draws >> k & 1], 0)

    # by id of a node, the estimates that it is made from, and with their draws those that it depends on
    below: dict[int, int] = {}
    mixed: dict[int, int] = {}
    for node in order:
        made = own.get(node.id, 0)
        for operand in node.operands[:1] if node.primitive in (estimate, accounted) else node.operands:
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
            # in a branch that its draw chose, an estimate has 0 or 1 as its weight
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
    if node.primitive not in _SUMS:
        return []
    return [
        k for k, _ in _shares(node, 1, {o.id: 1 for o in node.operands if type(o) is Node and o.id in dependent}, 0)[0]
    ]


def _shares(node: Node, seen: int, draws: Mapping[int, int], chosen: int) -> tuple[list[tuple[int, int]], int]:
    """(position of an operand, the draws for which a node is a sum over it with a constant weight), and those for which
    it is no sum.

    For draws that have ``chosen`` a branch on the way a sum is one only where all of its summands are made from them:
    what is added there, though not made from them, is added in that branch alone.
    """
    rule, operands = node.primitive, node.operands
    if rule not in _SUMS:
        return [], seen
    if rule in _PLAIN and not chosen:  # what follows, for most sums
        return [(k, m) for k, o in enumerate(operands) if type(o) is Node and (m := draws.get(o.id, 0) & seen)], 0
    moving, some, every = [], 0, seen
    for o in operands:
        m = draws.get(o.id, 0) & seen if type(o) is Node else 0
        moving.append(m)
        some, every = some | m, every & m
    left = seen & ~some
    if rule is _MULTIPLY:
        left |= moving[0] & moving[1]
    elif rule in _FIRST_ONLY:
        for m in moving[1:]:
            left |= m
    elif chosen:
        left |= seen & chosen & ~every
    if chosen and node.guard is not None:
        for o, m in zip(operands, moving, strict=True):
            if m and o.guard is not node.guard:
                left |= m & chosen
    return [(k, m & ~left) for k, m in enumerate(moving) if m & ~left], left


_MULTIPLY = RULES[np.multiply]
_FIRST_ONLY = frozenset([RULES[np.divide], indexing.getitem_p])  # linear in the first operand
_PLAIN = frozenset(
    [
        *[RULES[fn] for fn in (np.add, np.subtract, np.negative, np.positive)],
        layout.reshape_p,
        layout.transpose_p,
        layout.broadcast_to_p,
    ]
    + [layout.concatenate_p, layout.alias, reduction.sum_p]
)
_SUMS = _PLAIN | _FIRST_ONLY | {_MULTIPLY}
