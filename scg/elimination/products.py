"""Variable elimination: the sum, over all values of all variables, of a product of factors.

A variable is eliminated by multiplying the factors that it stands in and summing over its values, which leaves one
factor over its neighbours. The work is that of the largest such product, the *width* of the order. The order is greedy:
the variable with the smallest product comes next (min-weight; Koller and Friedman, 2009, section 9.4.3).

Variables that are no neighbours of one another are eliminated in one *round*, and in a round those whose factors have
equal shapes in one call of NumPy. Where products are small, calls cost more than entries: then a round may take all
variables up to some size, as every other coin of a chain, of which n take log2 n rounds. Parts that have no variable in
common and are built alike, as the chains of a batch, are planned once.

Everything is planned by structure alone, so that one plan serves arrays and Nodes, and a refusal costs no time.
"""

import heapq
import itertools
import math
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from scg.core.aliases import Shape
from scg.elimination.factors import Stack, ranked

Flags = tuple[bool, bool]
"""Whether the entries of a factor have a p, and an x."""

_CHUNK = 2**21  # entries that the products of one step may have
_SMALL = 64  # entries of a product below which calls cost more
_CALL, _ENTRY = 2e4, 4.0  # nanoseconds of one position of a step, of an entry of it


class TooWide(Exception):
    """An elimination that would take products of too many entries: ``variables`` are those of the smallest one that is
    left, ``size`` how many entries it has."""

    def __init__(self, variables: Sequence[int], size: int):
        super().__init__(f"{len(variables)} variables, {size} entries")
        self.variables, self.size = list(variables), size


class Step(NamedTuple):
    """One batched product: each of ``positions`` gives every row a factor, as [(stack, rows)], whose axes are those of
    the product at ``axes``. The variable on axis 0 is summed over."""

    shape: tuple[int, ...]
    positions: list[list[tuple[int, np.ndarray]]]
    axes: list[tuple[int, ...]]


class Plan(NamedTuple):
    """``steps`` in order, each of which makes the next stack; ``left``: (stack, rows) of the factors that remain, with
    their scopes; ``copies``: for each of these a variable of the part that each row is of; ``largest``: entries of the
    largest product, of ``clique``; ``entries``: of all products together."""

    steps: list[Step]
    left: list[tuple[int, np.ndarray, tuple[int, ...]]]
    copies: list[np.ndarray]
    largest: int
    clique: tuple[int, ...]
    entries: int

    @property
    def cost(self) -> float:
        """About how many nanoseconds it takes."""
        return _CALL * sum(len(step.positions) for step in self.steps) + _ENTRY * self.entries


class _Slot(NamedTuple):
    """A factor of the parts that are planned: its scope there, where it stands for every copy of its part, and a
    variable of each copy."""

    stack: int
    rows: np.ndarray
    scope: tuple[int, ...]
    copies: np.ndarray


def plan(stacks: Sequence[Stack], sizes: np.ndarray, kept: Collection[int] = (), budget: int = 2**20) -> Plan:
    """How to eliminate all variables but those in ``kept`` from the product of all factors of ``stacks``; ``sizes`` are
    the numbers of values of the variables.

    Raises TooWide where a product would have more than ``budget`` entries.
    """
    slots, counts = _slots(stacks, np.asarray(sizes), kept)
    flags = [(stack.p is not None, stack.x is not None) for stack in stacks]
    try:
        best = _Rounds(slots, sizes, counts, flags, kept, budget).plan(0)
    except TooWide as error:
        try:
            best = _Rounds(slots, sizes, counts, flags, kept, budget, by_message=True).plan(0)
        except TooWide:
            raise error from None
    if len(slots) > 4 and any([math.prod(step.shape) <= _SMALL for step in best.steps]):
        try:
            other = _Rounds(slots, sizes, counts, flags, kept, budget).plan(_SMALL)
            best = min(best, other, key=lambda p: p.cost)
        except TooWide:
            pass
    return best


def _slots(stacks: Sequence[Stack], sizes: np.ndarray, kept: Collection[int]) -> tuple[list[_Slot], dict[int, int]]:
    """The factors, of parts that are built alike those of one; and for each variable of these how many copies it has.

    Two parts are alike where their variables, in rising order, have the same sizes and stand in the same places of the
    same stacks.
    """
    width = max([stack.scopes.shape[1] for stack in stacks], default=0)
    scopes = np.full((sum(len(stack.scopes) for stack in stacks), width), -1)
    origin = np.empty((len(scopes), 2), int)
    start = 0
    for k, stack in enumerate(stacks):
        rows = slice(start, start + len(stack.scopes))
        scopes[rows, : stack.scopes.shape[1]] = stack.scopes
        origin[rows, 0] = k
        origin[rows, 1] = np.arange(len(stack.scopes)) if stack.rows is None else stack.rows
        start += len(stack.scopes)
    used, local = ranked(scopes[scopes >= 0])
    dense = np.full(scopes.shape, -1)
    dense[scopes >= 0] = local
    left, right = [], []
    for k in range(1, width):
        both = dense[:, k] >= 0
        left.append(dense[both, 0])
        right.append(dense[both, k])
    a, b = np.concatenate([np.zeros(0, int), *left]), np.concatenate([np.zeros(0, int), *right])
    _, part = connected_components(coo_array((np.ones(len(a), bool), (a, b)), shape=(len(used),) * 2), directed=False)
    # variables by part, each numbered within its own
    order = np.argsort(part, kind="stable")
    first = np.searchsorted(part[order], np.arange(part.max(initial=-1) + 2))
    number = np.empty(len(used), int)
    number[order] = np.arange(len(used)) - np.repeat(first[:-1], np.diff(first))
    inside = np.where(dense >= 0, number[dense], -1)
    owner = part[dense[:, 0]] if width else np.zeros(0, int)
    keys, extents = (owner, origin[:, 0], *(inside.T + 1)), (len(first), len(stacks), *[len(used) + 1] * width)
    if math.prod(extents) < 2**62:  # one number for each row is sorted sooner
        rank = np.argsort(np.ravel_multi_index(keys, extents), kind="stable")
    else:
        rank = np.lexsort(keys[::-1])
    bounds = np.searchsorted(owner[rank], np.arange(len(first)))
    signed = np.concatenate([origin[:, :1], inside], axis=1)[rank]
    extent = np.where(np.isin(used, list(kept)), -1 - used, np.asarray(sizes)[used])[order]
    alike: dict[tuple[bytes, bytes], list[int]] = {}
    for k in range(len(first) - 1):
        key = signed[bounds[k] : bounds[k + 1]].tobytes(), extent[first[k] : first[k + 1]].tobytes()
        alike.setdefault(key, []).append(k)
    slots, counts = [], {}
    for parts in alike.values():
        starts = bounds[np.array(parts)]
        for j in range(bounds[parts[0]], bounds[parts[0] + 1]):
            i = rank[j]
            scope = tuple(scopes[i][scopes[i] >= 0].tolist())
            copies = used[order[first[np.array(parts)]]]
            slots.append(_Slot(int(origin[i, 0]), origin[rank[starts + (j - bounds[parts[0]])], 1], scope, copies))
            counts.update(dict.fromkeys(scope, len(parts)))
    return slots, counts


class _Product(NamedTuple):
    """The product that eliminates a variable: its factors, as positions of slots, and its variables, of which the first
    is summed over."""

    factors: list[int]
    scope: Shape


class _Pattern(NamedTuple):
    """What products have in common that one step takes: the sizes of their variables, and of each factor whether it has
    a p and an x, and at which axes of the product its own stand."""

    shape: Shape
    factors: tuple[tuple[Flags, Shape], ...]


class _Rounds:
    """An elimination while it is planned. ``near`` has the neighbours of each variable that is left, ``holds`` the
    factors that it stands in, ``now`` how many entries the product has that eliminates it, or what this leaves.

    Of coins a, b, c with factors f(a), g(a, b), h(b, c) near is {a: {b}, b: {a, c}, c: {b}}, and the products have 4, 8
    and 4 entries. The first round takes a and c, which leave m(b) = sum_a f g and n(b) = sum_c h; the second takes b.
    """

    def __init__(
        self,
        slots: list[_Slot],
        sizes: np.ndarray,
        counts: dict[int, int],
        flags: list[Flags],
        kept: Collection[int],
        budget: int,
        by_message: bool = False,
    ):
        self.slots, self.flags, self.counts, self.budget = list(slots), list(flags), counts, budget
        self.by_message = by_message
        self.sizes = {v: int(sizes[v]) for v in counts}
        self.near: dict[int, set[int]] = {v: set() for v in counts}
        self.holds: dict[int, set[int]] = {v: set() for v in counts}
        for k, slot in enumerate(slots):
            for v in slot.scope:
                self.near[v].update(slot.scope)
                self.holds[v].add(k)
        for v, others in self.near.items():
            others.discard(v)
        self.waiting = [(self._weight(v), v) for v in counts if v not in kept]
        heapq.heapify(self.waiting)
        self.now = {v: n for n, v in self.waiting}
        self.steps: list[Step] = []
        self.largest, self.entries = 1, 0
        self.clique: Shape = ()

    def plan(self, small: int) -> Plan:
        """The plan of rounds in which variables with products of up to ``small`` entries, or of the fewest, go."""
        while self.waiting:
            for pattern, products in self._products(self._round(small)).items():
                per_row = math.prod(pattern.shape)
                for some in _chunks(products, [self.counts[p.scope[0]] * per_row for p in products]):
                    self._take(pattern, some)
        left = {k for holds in self.holds.values() for k in holds}
        left |= {k for k, slot in enumerate(self.slots) if not slot.scope}
        slots = [self.slots[k] for k in sorted(left)]
        ends = [(slot.stack, slot.rows, slot.scope) for slot in slots]
        return Plan(self.steps, ends, [slot.copies for slot in slots], self.largest, self.clique, self.entries)

    def _entries(self, v: int) -> int:
        """How many entries the product has that eliminates a variable."""
        return self.sizes[v] * math.prod([self.sizes[u] for u in self.near[v]])

    def _weight(self, v: int) -> int:
        """What is least of the next variable: the entries of its product, or of the factor that this leaves."""
        return self._entries(v) // (self.sizes[v] if self.by_message else 1)

    def _round(self, small: int) -> list[int]:
        """The variables that go next, of which no two are neighbours."""
        waiting, now = self.waiting, self.now
        limit, chosen, blocked, later = max(waiting[0][0], small), dict[int, None](), set[int](), []
        while waiting and waiting[0][0] <= limit:
            n, v = heapq.heappop(waiting)
            if now.get(v) != n or v in chosen:  # an entry of another time
                continue
            if not chosen:
                limit = max(n, small)
            if v in blocked:
                later.append((n, v))
            else:
                chosen[v] = None
                blocked |= self.near[v]
        for entry in later:
            heapq.heappush(waiting, entry)
        return list(chosen)

    def _products(self, chosen: list[int]) -> dict[_Pattern, list[_Product]]:
        """The products that eliminate some variables, by what they have in common."""
        slots, flags, found = self.slots, self.flags, dict[_Pattern, list[_Product]]()
        for v in chosen:
            n = self.now[v] * (self.sizes[v] if self.by_message else 1)
            if n > self.budget:
                raise TooWide(sorted([v, *self.near[v]]), n)
            if n > self.largest:
                self.largest, self.clique = n, tuple(sorted([v, *self.near[v]]))
            self.entries += n * self.counts[v]
            factors = sorted(self.holds[v], key=lambda k: (flags[slots[k].stack], len(slots[k].scope), k))
            scope = tuple(dict.fromkeys([v, *itertools.chain(*[slots[k].scope for k in factors])]))
            axis = {u: i for i, u in enumerate(scope)}
            own = tuple([(flags[slots[k].stack], tuple([axis[u] for u in slots[k].scope])) for k in factors])
            pattern = _Pattern(tuple([self.sizes[u] for u in scope]), own)
            found.setdefault(pattern, []).append(_Product(factors, scope))
        return found

    def _take(self, pattern: _Pattern, products: list[_Product]) -> None:
        """One step for some products, each of which leaves a factor over the neighbours of its variable."""
        stack, start, slots = len(self.flags), 0, self.slots
        factors = [[slots[p.factors[j]] for p in products] for j in range(len(pattern.factors))]
        positions = [[(slot.stack, slot.rows) for slot in column] for column in factors]
        self.steps.append(Step(pattern.shape, positions, [axes for _, axes in pattern.factors]))
        kinds = [flag for flag, _ in pattern.factors]
        self.flags.append((any([p for p, _ in kinds]), any([x for _, x in kinds])))
        for product in products:
            v, rest, copies = product.scope[0], product.scope[1:], self.counts[product.scope[0]]
            slots.append(_Slot(stack, start + np.arange(copies), rest, slots[product.factors[0]].copies))
            start += copies
            del self.now[v], self.holds[v]
            for u in rest:
                self.near[u].update(rest)
                self.near[u] -= {u, v}
                self.holds[u].difference_update(product.factors)
                self.holds[u].add(len(slots) - 1)
        for u in {u for product in products for u in product.scope[1:]}:
            if u in self.now:
                self.now[u] = self._weight(u)
                heapq.heappush(self.waiting, (self.now[u], u))


def _chunks(members: list[_Product], entries: list[int]) -> Iterator[list[_Product]]:
    some: list[_Product] = []
    total = 0
    for member, n in zip(members, entries, strict=True):
        if some and total + n > _CHUNK:
            yield some
            some, total = [], 0
        some.append(member)
        total += n
    if some:
        yield some
