"""What is known of a cost before anything is added to it, found once and read by all that adds to it."""

import functools
from collections.abc import Sequence
from functools import cached_property

from scg.core.ambient import RECORDER
from scg.core.ancestry import ancestors
from scg.core.backward import Reach, estimates, is_estimate
from scg.core.node import Node
from scg.primitives import layout
from scg.stochastic.dependence import Influence, accounts, is_accounted
from scg.stochastic.estimates import settled
from scg.stochastic.estimator import Estimator
from scg.stochastic.sets import meet, union
from scg.stochastic.sites import is_coupled, is_draw, is_noise
from scg.stochastic.tape import Program
from scg.stochastic.terms import Terms


class Analysis:
    """A cost (or several), and what leads to it; what takes work is found when it is asked for.

    ``order``      the nodes that lead to it, with those that an ``if`` looked at, by growing id
    ``sites``      the samples among them that the cost depends on
    ``together``   those of estimators that take a mean over several samples at once
    ``draws``      those of ``sites`` that have parameters to differentiate by
    ``looking``    those of ``draws`` whose estimators look at the cost; with a ``floor``, the oldest node that one
                   differentiates by, those whose parameters depend on it or on leaves, not by way of other samples
                   alone: a state that is drawn from the one before has no derivative to contribute
    ``terms``      the cost, taken apart for ``looking``
    ``accounted``  the samples that estimates among the nodes have in their derivative already
    ``program``    how to run the function of the cost again; None where it is not known
    ``fixed``      while a function is recorded for a plan, ids of what is made of arguments alone that nobody
                   differentiates by, and would be an array in a plain call
    """

    def __init__(self, costs: Sequence[Node], order: list[Node], floor: int = -1, program: Program | None = None):
        self.program = program
        self.cost, self.costs, self.order, self.floor = costs[0], costs, order, floor
        self._same = [node for node in order if node.primitive.same]

    @cached_property
    def sites(self) -> list[Node]:
        """Oldest first."""
        found = [node for node in self.order if node.statics and "site" in node.statics]
        # those that a cost still depends on
        if found and any([is_accounted(node) or is_estimate(node) or is_coupled(node) for node in self._same]):
            influence = Influence([(n, n.statics["site"].event_ndim) for n in found], self.order)
            known = influence.draws, influence.chosen
            seen = functools.reduce(union, [samples.get(c.id, 0) for c in self.costs for samples in known])
            found = [n for n in found if meet(seen, influence.bits[n.id])]
        return found

    @cached_property
    def together(self) -> list[list[Node]]:
        """One list for each class of estimators."""
        found: dict[type, list[Node]] = {}
        for node in self.sites:
            kind = type(node.statics["site"].estimator)
            if kind.condition is not Estimator.condition:
                found.setdefault(kind, []).append(node)
        return list(found.values())

    @cached_property
    def draws(self) -> list[Node]:
        """Oldest first."""
        fixed = self.fixed if self.sites else ()
        return [
            n
            for n in self.sites
            if any([type(p) is Node and p.id not in fixed for p in n.statics["site"].distribution.parameters.values()])
        ]

    @cached_property
    def looking(self) -> list[Node]:
        """Oldest first."""
        found = [n for n in self.draws if _looks(n.statics["site"].estimator)]
        if self.floor < 0 or not found:  # by what one differentiates is not known
            return found
        known = {**dict.fromkeys(self.fixed, False), self.floor: True}
        return [n for n in found if any([_is_differentiated(o, known) for o in n.operands])]

    @cached_property
    def terms(self) -> Terms:
        """For ``Downstream``."""
        return Terms(self.cost, self.looking, self.order)

    @cached_property
    def accounted(self) -> list[Node]:
        """As the estimates come, oldest first."""
        return [site for node in self._same if is_accounted(node) for site in accounts(node)]

    @cached_property
    def fixed(self) -> set[int]:
        """An estimator that drew for a distribution with such parameters would move the generator on, as the plain call
        does not."""
        fixed: set[int] = set()
        recorder = RECORDER.get()
        for node in ancestors(self.order) if recorder is not None else ():  # also what is older than the inputs
            moving = [o for o in node.operands if type(o) is Node]
            if moving:
                made = not layout.is_alias(node) and "site" not in node.statics and all([o.id in fixed for o in moving])
            else:
                made = recorder.is_leaf(node)
            if made:
                fixed.add(node.id)
        return fixed


def analysed(cost: Node, floor: int = -1, known: Reach | None = None, program: Program | None = None) -> Analysis:
    """The analysis of a cost, in which estimates that it is linear in are ``settled``. Nodes with ids under ``floor``
    are left out; ``known`` spares a search where the caller has ``reach([cost], floor)``."""
    order = ancestors([cost], floor, guards=True) if known is None or known.guarded else known.order
    if estimates(order):
        cost, program = settled(cost, leading([cost], floor)), None
        order = leading([cost], floor)
    return Analysis([cost], order, floor, program)


def leading(roots: list[Node], floor: int = -1) -> list[Node]:
    """``ancestors`` with those that an ``if`` looked at, without what an estimate has beside its value."""
    nodes = ancestors(roots, floor, guards=True)
    if not estimates(nodes):
        return nodes
    wanted, passed = {root.id for root in roots}, set[int]()
    for node in reversed(nodes):
        if node.id in wanted:
            operands = node.operands[:1] if is_estimate(node) else node.operands
            wanted.update([o.id for o in operands if type(o) is Node])
            if node.guard is not None:
                wanted.update([guard.node.id for guard in node.guard.unseen(passed)])
    return [node for node in nodes if node.id in wanted]


def draws(costs: list[Node], floor: int = -1) -> list[Node]:
    """The stochastic nodes that lead to some costs and have parameters to differentiate by, oldest first."""
    return Analysis(costs, leading(costs, floor)).draws


def _looks(estimator: Estimator) -> bool:
    kind = type(estimator)
    return kind.expand is not Estimator.expand or kind.expand_together is not Estimator.expand_together


def _is_differentiated(x: object, known: dict[int, bool]) -> bool:
    """Whether derivatives can pass an operand to a leaf: a sample that no gradient passes, and noise, let none
    through. ``known`` holds what was found, by id; of a plan's argument an alias is differentiated by, not itself."""
    if type(x) is not Node:
        return False
    stack = [x]
    while stack:
        node = stack[-1]
        if node.id in known:
            stack.pop()
            continue
        operands = [o for o in node.operands if type(o) is Node]
        if is_draw(node) or is_coupled(node) or is_noise(node):
            known[node.id] = False
        elif not operands or layout.is_alias(node) or any([known.get(o.id, False) for o in operands]):
            known[node.id] = True
        elif waiting := [o for o in operands if o.id not in known]:
            stack.append(waiting[0])
        else:
            known[node.id] = False
    return known[x.id]
