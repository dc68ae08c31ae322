"""Sums over all values of discrete samples by elimination: the mean of a cost, the evidence of a model, the joint
distribution of a few elements.

    E[c] = sum_z prod_i p(z_i | parents) (sum_t w_t t(z))

The cost is affine in its terms t, with weights w_t that no draw decides; conditionals and terms are tabulated
(``tabulate``) and eliminated (``products``) as arrays, or as Nodes of the parameters, of which gradients and
Hessians are then taken by reverse mode. All of it is linear in the number of draws where the width is bounded.
"""

import math
from collections.abc import Sequence

import numpy as np

from scg.core.aliases import Result
from scg.core.ancestry import ancestors
from scg.core.backward import pull
from scg.core.leaves import parameter
from scg.core.node import Node, Numeric, Value, value_of
from scg.elimination.affine import affine_at
from scg.elimination.factors import Stack, blocks_of, one_below_the_other
from scg.elimination.finite import Width
from scg.elimination.messages import eliminate, eliminate_logarithms, may_lose
from scg.elimination.products import Plan, TooWide, plan
from scg.elimination.structure import Structure
from scg.elimination.tabulate import Group, Tables, families

_LARGE = 2**12  # entries of a product that are worth another plan
_LEAST = 1e-300  # an entry that may have been any smaller number
_PLANNED = np.zeros(0)  # what stands in a stack for tables that are not there yet


class Sums:
    """How the draws of a structure are eliminated, all but the ``kept`` elements. With ``evidence`` the terms are
    logarithms of factors, and not parts of a cost.

    Raises BudgetError, which names the draws that keep together.
    """

    def __init__(self, structure: Structure, kept: Sequence[int] = (), evidence: bool = False):
        self.structure, self.evidence, self.error, self.kept = structure, evidence, 0.0, list(kept)
        self.missing = 0.0  # of the probability of all values, where lattices stand for some
        draws, terms = families(structure)
        self.draws = [(family, group) for family in draws for group in family.groups()]
        # the distribution of what is kept is a matter of draws alone
        self.terms = [(family, group) for family in terms for group in family.groups()] if not self.kept else []
        try:
            self.plan = self._planned([[np.arange(len(group.scopes)) for _, group in self.terms]])
        except TooWide as error:
            parts = self._apart()
            try:
                if parts is None:
                    raise
                self.plan = self._planned(parts)
            except TooWide:
                raise structure.too_wide(error.variables, error.size) from None
            return
        if self.plan.largest > _LARGE and (parts := self._apart()) is not None:
            try:
                self.plan = min(self.plan, self._planned(parts), key=lambda p: p.cost)
            except TooWide:
                pass

    @property
    def width(self) -> Width:
        """The largest product of the elimination."""
        count = len(self.structure.sizes)  # beyond are those of other parts
        return self.structure.width([v % count for v in self.plan.clique], self.plan.largest)

    def _planned(self, parts: list[list[np.ndarray]]) -> Plan:
        """A plan for the sum of some parts of the cost, each of which has draws of its own: element v of the draws is
        number v + k L in part k. A part is given by the rows of each group of terms."""
        count, sizes = len(self.structure.sizes), self.structure.sizes
        chances: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in self.draws]
        for k, part in enumerate(parts):
            below = [group.scopes[rows].reshape(-1) for (_, group), rows in zip(self.terms, part, strict=True)]
            used = self.structure.relevant(np.concatenate([np.asarray(self.kept, int), *below]))
            for found, (_, group) in zip(chances, self.draws, strict=True):
                rows = np.flatnonzero(used[group.scopes[:, 0]])
                found.append((group.scopes[rows] + k * count, group.rows[rows]))
        stacks = []
        for found in chances:
            scopes, rows = (np.concatenate(column) for column in zip(*found, strict=True))
            stacks.append(Stack(scopes, p=_PLANNED, rows=rows))
        for j, (_, group) in enumerate(self.terms):
            scopes = np.concatenate([group.scopes[part[j]] + k * count for k, part in enumerate(parts)])
            p, x = (_PLANNED, None) if self.evidence else (None, _PLANNED)
            if group.sizes:
                stacks.append(Stack(scopes, p, x, rows=np.concatenate([part[j] for part in parts])))
        try:
            return plan(stacks, np.tile(sizes, len(parts)), frozenset(self.kept), self.structure.budget)
        except TooWide as error:
            raise TooWide([v % count for v in error.variables], error.size) from None

    def _apart(self) -> list[list[np.ndarray]] | None:
        """The terms in parts: those of one draw with what it is drawn from first; of the others, such as products of
        draws that are far apart, in turn all that one element of the draws has. None where there are no others."""
        if self.evidence or self.kept:
            return None
        parents = [set(row.tolist()) for rows in self.structure.parents for row in rows]
        groups, rows, scopes = [], [], []
        for j, (_, group) in enumerate(self.terms):
            for i, scope in enumerate(group.scopes.tolist()):
                child = max(scope, default=0)
                if any([v != child and v not in parents[child] for v in scope]):
                    groups.append(j)
                    rows.append(i)
                    scopes.append(scope)
        if not scopes:
            return None
        width = max(map(len, scopes))
        far = np.array([[*scope, *scope[:1] * (width - len(scope))] for scope in scopes])
        which, row = np.array(groups), np.array(rows)
        left, parts = np.ones(len(far), bool), []
        while left.any():
            hub = np.argmax(np.bincount(far[left].reshape(-1)))
            mine = left & (far == hub).any(axis=1)
            parts.append([row[mine & (which == j)] for j in range(len(self.terms))])
            left &= ~mine
        near = [np.setdiff1d(np.arange(len(group.scopes)), row[which == j]) for j, (_, group) in enumerate(self.terms)]
        return [near, *parts] if any(map(len, near)) else parts

    def mean(self, graph: bool = False, steps: bool = False, blocks: bool = False) -> Result:
        """E[cost]: a number, or a Node of the parameters; with ``steps``, as many second derivatives need it (see
        ``eliminate``). ``error`` is then what rounding may have done to it."""
        base, weights = weighted(self.structure, graph)
        stacks, constant = self._stacks(graph, weights)
        total, mass = base + constant, 0.0
        for pair in eliminate(self.plan, stacks, steps=steps, blocks=blocks):
            mass = max(mass, float(np.max(np.abs(value_of(pair.entries) - 1), initial=0)))
            if pair.x is not None:
                total = total + np.sum(pair.x)
        if self.structure.lattices:  # far out terms are large, and count for nothing
            self.missing = mass
            size = self._magnitude(stacks)
        else:
            each = [np.abs(value_of(stack.x)).reshape(len(stack.scopes), -1) for stack in stacks if stack.x is not None]
            size = sum([float(np.sum(np.max(part, axis=1, initial=0))) for part in each])
        self.error = max(mass, float(np.finfo(self.structure.cost.dtype).eps) * (1 + len(self.plan.steps))) * size
        if graph:  # in a derivative costs that come later cancel at every sample
            self.error *= 4 * math.sqrt(len(self.structure.sizes))
        return total

    def _magnitude(self, stacks: list[Stack]) -> float:
        """The sum of E|term|."""
        raw = []
        for s in stacks:
            p, x = None if s.p is None else value_of(s.p), None if s.x is None else np.abs(value_of(s.x))
            raw.append(s._replace(p=p, x=x))
        return sum([float(np.sum(pair.x)) for pair in eliminate(self.plan, raw) if pair.x is not None])

    def log_mean_exp(self, graph: bool = False) -> Result:
        """log E[exp(cost)]: the evidence of a model whose cost is the log-probability of the data given the draws."""
        base, weights = weighted(self.structure, graph)
        stacks, constant = self._stacks(graph, weights)
        if self.structure.lattices:
            chances = [
                Stack(s.scopes, np.ones_like(value_of(s.p)) if s.logs is not None else value_of(s.p)) for s in stacks
            ]
            masses = [np.abs(value_of(pair.entries) - 1) for pair in eliminate(self.plan, chances)]
            self.missing = max([float(np.max(mass, initial=0)) for mass in masses], default=0.0)
        total, size = base + constant, 0.0
        for pair in eliminate(self.plan, stacks, True):
            if not np.all(value_of(pair.entries) > 0):  # the data cannot be, or are as good as impossible
                return self._by_logarithms(graph)
            total = total + np.sum(np.log(pair.entries)) + (0.0 if pair.logs is None else np.sum(pair.logs))
            size += 0.0 if pair.logs is None else float(np.sum(np.abs(value_of(pair.logs))))
        self.error = float(np.finfo(self.structure.cost.dtype).eps) * (size + len(self.plan.steps))
        if may_lose(self.plan, stacks) and not self._is_all(total - base - constant, stacks):
            return self._by_logarithms(graph)
        return total

    def _is_all(self, found: Value, stacks: list[Stack]) -> bool:
        """Whether nothing counts that became zero by rounding: an upper bound of what was found is no larger."""
        bounds = [stack._replace(p=np.maximum(value_of(stack.entries), _LEAST)) for stack in stacks]
        most = 0.0
        for pair in eliminate(self.plan, bounds, True, least=_LEAST):
            most += float(np.sum(np.log(pair.entries))) + (0.0 if pair.logs is None else float(np.sum(pair.logs)))
        return most - float(value_of(found)) <= max(self.error, 1e-13 * len(self.plan.left))

    def _by_logarithms(self, graph: bool) -> Value:
        terms, count = sum([t.size for t in self.structure.terms]), len(self.structure.sizes)
        found = self.log_mean_exps(np.zeros(terms, int), np.zeros(count, int), False)[0]
        if not np.isfinite(found.raw):
            raise NotFinite
        self.error = float(np.finfo(self.structure.cost.dtype).eps) * (abs(float(found.raw)) + len(self.plan.steps))
        return found if graph else found.raw

    def log_mean_exps(self, owners: np.ndarray, elements: np.ndarray, blocks: bool) -> Node:
        """log E[exp(.)] of each element of the cost, as a Node of one axis, by sums of logarithms.

        ``owners`` has for each element of the terms, and ``elements`` for each of the draws, the element of the cost
        that it is a part of.
        """
        base, weights = weighted(self.structure, True)
        stacks, terms = self._tables(True, weights, True)
        parts: list[tuple[np.ndarray, Value]] = [(np.arange(base.size), np.reshape(base, -1))]
        for group, table in terms:
            if group.sizes:
                stacks.append(Stack(group.scopes, table))
            else:
                parts.append((owners[group.numbers], table))
        if any(
            [np.isnan(raw).any() or np.isposinf(raw).any() for raw in [value_of(stack.entries) for stack in stacks]]
        ):
            raise NotFinite
        for found, variables in zip(eliminate_logarithms(self.plan, stacks, blocks), self.plan.copies, strict=True):
            parts.append((elements[variables], found))
        return _grouped(parts, base.size)

    def joint(self) -> tuple[list[int], np.ndarray]:
        """The probabilities of the kept elements: their numbers, and an array with an axis for each."""
        stacks, _ = self._stacks(False, [])
        found = eliminate(self.plan, stacks)
        variables = sorted({v for _, _, scope in self.plan.left for v in scope})
        total = np.ones([int(self.structure.sizes[v]) for v in variables])
        for pair, (_, _, scope) in zip(found, self.plan.left, strict=True):
            order = np.argsort(scope)
            shape = [int(self.structure.sizes[v]) if v in scope else 1 for v in variables]
            for row in value_of(pair.entries):  # parts that are alike
                total = total * np.transpose(row, order).reshape(shape)
        return variables, total

    def _stacks(self, graph: bool, weights: list[Value]) -> tuple[list[Stack], Numeric]:
        """The tables in the order of the plan; and what terms that no draw decides add to the cost."""
        stacks, terms = self._tables(graph, weights)
        constant: Numeric = 0.0
        for group, table in terms:
            if group.sizes:
                stacks.append(self._term(group.scopes, table))
            else:
                constant = constant + np.sum(table)
        return _finite(stacks), constant

    def _tables(
        self, graph: bool, weights: list[Value], logs: bool = False
    ) -> tuple[list[Stack], list[tuple[Group, Value]]]:
        """The conditional probabilities, or their logarithms; and the terms with their weights, if any are given."""
        tables = Tables(self.structure, graph, logs)
        stacks, terms = [], []
        known: dict[int, Value] = {}
        for family, group in self.draws:
            if id(family) not in known:
                known[id(family)] = tables.chances(family)
            stacks.append(Stack(group.scopes, family.table(known[id(family)], group)))
        each: list[Value] = [np.reshape(w, -1) for w in weights]
        flat = one_below_the_other(each) if each else np.zeros(0)
        for family, group in self.terms if weights else ():
            if id(family) not in known:
                known[id(family)] = tables.terms(family)
            weight = np.reshape(blocks_of(flat, group.numbers), (-1, *[1] * len(group.sizes)))
            terms.append((group, blocks_of(family.table(known[id(family)], group), group.rows) * weight))
        return stacks, terms

    def _term(self, scopes: np.ndarray, table: Value) -> Stack:
        if not self.evidence:
            return Stack(scopes, None, table)
        raw = value_of(table).reshape(len(scopes), -1)
        largest = np.max(raw, axis=1)
        largest = np.where(np.isfinite(largest), largest, 0.0)
        return Stack(scopes, np.exp(table - largest.reshape(-1, *[1] * (table.ndim - 1))), None, largest)


def weighted(structure: Structure, graph: bool) -> tuple[Value, list[Value]]:
    """The cost of a structure where all its terms are zero, and d cost / d term."""
    terms = structure.terms
    zeros = [parameter(np.zeros(t.shape, t.dtype if t.dtype.kind == "f" else float)) for t in terms]
    (base,) = affine_at(terms, [structure.cost], zeros, True)
    # of parameters only where one stands between the cost and its terms
    own = {zero.id for zero in zeros}
    moved = graph and any([node.id not in own for node in ancestors([base]) if Node not in map(type, node.operands)])
    weights = pull([base], [np.ones(base.shape, base.dtype)], zeros, moved)
    return (base if graph else base.raw), weights


class NotFinite(Exception):
    """A table with an entry that is infinite or not a number."""


def _finite(stacks: list[Stack]) -> list[Stack]:
    for stack in stacks:
        for part in (stack.p, stack.x):
            if part is not None and not np.isfinite(value_of(part)).all():
                raise NotFinite
    return stacks


def _grouped(parts: list[tuple[np.ndarray, Value]], count: int) -> Result:
    """Sums of some numbers: parts are (which sum each belongs to, -1 for none; the numbers)."""
    total: Numeric = 0.0
    for which, numbers in parts:
        order = np.argsort(which, kind="stable")[np.sum(which < 0) :]
        counts = np.bincount(which[order], minlength=count)
        most = counts.max(initial=0)
        if (counts == most).all():
            total = total + np.sum(np.reshape(blocks_of(numbers, order), (count, most)), axis=1) if most else total
            continue
        place = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
        rows = np.full((count, most), len(which))
        rows[which[order], place] = order
        total = total + np.sum(np.concatenate([numbers, np.zeros(1)])[rows], axis=1)
    return total
