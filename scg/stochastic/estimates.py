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
    own = {node.id: 1 << k for k, node in enumerate(found)}
    sites = {site.id: site for node in found for site in accounts(node) if "site" in site.statics}
    known = Influence([(site, site.statics["site"].event_ndim) for site in sites.values()], order)
    masks = dict.fromkeys(sites, 0)
    for node in found:
        for site in accounts(node):
            if site.id in masks:
                masks[site.id] |= own[node.id]
    each = list(masks.values())

    def owners(draws: Set) -> int:
        """The estimates that account for one of some samples."""
        return functools.reduce(operator.or_, [each[k] for k in members(draws)], 0)

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
            for k, through in shares(node, those & ~chosen, mixed, 0)[0]:
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
