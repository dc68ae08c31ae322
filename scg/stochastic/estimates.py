"""Estimates of gradients inside a cost: of which of them the derivative has what their samples contribute."""

import functools
import operator

from scg.core.ancestry import ancestors
from scg.core.backward import estimates, is_estimate
from scg.core.node import Node
from scg.stochastic.dependence import Influence, accounted, accounts, is_accounted
from scg.stochastic.sets import Set, members
from scg.stochastic.terms import shares


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
    known = _Known(found, order)
    every = (1 << len(found)) - 1
    linear = known.linear(cost, order, every)
    new: dict[tuple[int, int], Node] = {}
    for node in order:
        for those, inner in linear.get(node.id, {}).items():
            operands = list(node.operands)
            for k, through in inner:
                operands[k] = new.get((node.operands[k].id, through), node.operands[k])
            if those & known.own.get(node.id, 0):
                made = accounted(*node.operands[1:])
            elif any([x is not y for x, y in zip(operands, node.operands, strict=True)]):
                made = node.primitive(*operands, **node.statics)
            else:
                continue
            made.guard = node.guard
            new[node.id, those] = made
    return new.get((cost.id, every), cost)


class _Known:
    """What is known of the estimates ``found``, each of which is a bit: by id of a node, its ``own`` bit; those that it
    is made from, ``below``; and these with the ones on whose samples it depends, ``mixed``.

    Of e = estimate(...), b one of its samples, and e f(b): the product is made from e, and so is linear in e; but f(b),
    the weight, is mixed with e, so that the product is taken apart no further.
    """

    def __init__(self, found: list[Node], order: list[Node]):
        self.own = {node.id: 1 << k for k, node in enumerate(found)}
        sites = {site.id: site for node in found for site in accounts(node) if "site" in site.statics}
        self.influence = Influence([(site, site.statics["site"].event_ndim) for site in sites.values()], order)
        masks = dict.fromkeys(sites, 0)
        for node in found:
            for site in accounts(node):
                if site.id in masks:
                    masks[site.id] |= self.own[node.id]
        self._each = list(masks.values())
        self.below: dict[int, int] = {}
        self.mixed: dict[int, int] = {}
        for node in order:
            made = self.own.get(node.id, 0)
            for operand in node.operands[:1] if is_estimate(node) or is_accounted(node) else node.operands:
                made |= self.below.get(operand.id, 0) if type(operand) is Node else 0
            if made:
                self.below[node.id] = made
            if both := made | self._owners(self.influence.draws.get(node.id, 0)):
                self.mixed[node.id] = both

    def linear(self, cost: Node, order: list[Node], every: int) -> dict[int, dict[int, list[tuple[int, int]]]]:
        """By id of a node, and by the estimates that are looked for there: the operands through which the node is
        linear in some of them, as (position, estimates)."""
        found: dict[int, dict[int, list[tuple[int, int]]]] = {cost.id: {every: []}}
        for node in reversed(order):
            if node.id not in found:
                continue
            # in a branch that its sample chose, an estimate has 0 or 1 as its weight
            chosen = self._owners(self.influence.chosen.get(node.id, 0))
            for those, inner in found[node.id].items():
                for k, through in shares(node, those & ~chosen, self.mixed, 0)[0]:
                    operand = node.operands[k]
                    if through & self.below.get(operand.id, 0):
                        inner.append((k, through))
                        found.setdefault(operand.id, {}).setdefault(through, [])
        return found

    def _owners(self, draws: Set) -> int:
        """The estimates that account for one of some samples."""
        return functools.reduce(operator.or_, [self._each[k] for k in members(draws)], 0)
