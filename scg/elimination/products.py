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
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from scg.elimination.factors import Stack

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
    positions: list[list[tuple[int, Any]]]
    axes: list[tuple[int, ...]]


class Plan(NamedTuple):
    """``steps`` in order, each of which makes the next stack; ``left``: (stack, rows) of the factors that remain, with
    their scopes; ``copies``: for each of these a variable of the part that each row is of; ``largest``: entries of the
    largest product, of ``clique``; ``entries``: of all products together."""

    steps: list[Step]
    left: list[tuple[int, Any, tuple[int, ...]]]
    copies: list[Any]
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
    rows: Any
    scope: tuple[int, ...]
    copies: Any


def plan(stacks: Sequence[Stack], sizes: Any, kept: Collection[int] = (), budget: int = 2**20) -> Plan:
    """How to eliminate all variables but those in ``kept`` from the product of all factors of ``stacks``; ``sizes`` are
    the numbers of values of the variables.

    Raises TooWide where a product would have more than ``budget`` entries.
    """
    slots, counts = _slots(stacks, np.asarray(sizes), kept)
    flags = [(stack.p is not None, stack.x is not None) for stack in stacks]
    best = _ordered(slots, sizes, counts, flags, kept, budget, 0)
    if len(slots) > 4 and any([math.prod(step.shape) <= _SMALL for step in best.steps]):
        try:
            other = _ordered(slots, sizes, counts, flags, kept, budget, _SMALL)
            best = min(best, other, key=lambda p: p.cost)
        except TooWide:
            pass
    return best


def _slots(stacks: Sequence[Stack], sizes: Any, kept: Collection[int]) -> tuple[list[_Slot], dict[int, int]]:
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
    used, local = np.unique(scopes[scopes >= 0], return_inverse=True)
    dense = np.full(scopes.shape, -1)
    dense[scopes >= 0] = local.reshape(-1)
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
    rank = np.lexsort((*inside.T[::-1], origin[:, 0], owner)) if len(scopes) else np.zeros(0, int)
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


def _ordered(
    slots: list[_Slot],
    sizes: Any,
    counts: dict[int, int],
    flags: list[tuple[bool, bool]],
    kept: Collection[int],
    budget: int,
    small: int,
) -> Plan:
    """A plan by rounds, in each of which variables with products of up to ``small`` entries, or of the fewest, go."""
    slots, flags, size_of = list(slots), list(flags), {v: int(sizes[v]) for v in counts}
    near: dict[int, set[int]] = {v: set() for v in counts}
    holds: dict[int, set[int]] = {v: set() for v in counts}
    for k, slot in enumerate(slots):
        for v in slot.scope:
            near[v].update(slot.scope)
            holds[v].add(k)
    for v, others in near.items():
        others.discard(v)

    def weight(v: int) -> int:
        return size_of[v] * math.prod([size_of[u] for u in near[v]])

    waiting = [(weight(v), v) for v in counts if v not in kept]
    heapq.heapify(waiting)
    now = {v: w for w, v in waiting}
    steps: list[Step] = []
    largest, entries = 1, 0
    clique: tuple[int, ...] = ()
    while waiting:
        limit, chosen, blocked, later = max(waiting[0][0], small), dict[int, None](), set[int](), []
        while waiting and waiting[0][0] <= limit:
            w, v = heapq.heappop(waiting)
            if now.get(v) != w or v in chosen:  # an entry of another time
                continue
            if not chosen:
                limit = max(w, small)
            if v in blocked:
                later.append((w, v))
            else:
                chosen[v] = None
                blocked |= near[v]
        for entry in later:
            heapq.heappush(waiting, entry)
        if not chosen:
            continue
        groups: dict[Any, list[tuple[list[int], tuple[int, ...]]]] = {}
        for v in chosen:
            if now[v] > budget:
                raise TooWide(sorted([v, *near[v]]), now[v])
            if now[v] > largest:
                largest, clique = now[v], tuple(sorted([v, *near[v]]))
            inside = sorted(holds[v], key=lambda k: (flags[slots[k].stack], len(slots[k].scope), k))
            scope = tuple(dict.fromkeys([v, *itertools.chain(*[slots[k].scope for k in inside])]))
            place = {u: i for i, u in enumerate(scope)}
            key = (
                tuple([size_of[u] for u in scope]),
                tuple([(flags[slots[k].stack], tuple([place[u] for u in slots[k].scope])) for k in inside]),
            )
            groups.setdefault(key, []).append((inside, scope))
            entries += now[v] * counts[v]
        for (shape, pattern), members in groups.items():
            per_row = math.prod(shape)
            for some in _chunks(members, [counts[scope[0]] * per_row for _, scope in members]):
                positions = [
                    [(slots[inside[j]].stack, slots[inside[j]].rows) for inside, _ in some] for j in range(len(pattern))
                ]
                stack = len(flags)
                steps.append(Step(shape, positions, [axes for _, axes in pattern]))
                kinds = [flag for flag, _ in pattern]
                flags.append((any(p for p, _ in kinds), any(x for _, x in kinds)))
                start = 0
                for inside, scope in some:
                    v, rest, copies = scope[0], scope[1:], counts[scope[0]]
                    slots.append(_Slot(stack, start + np.arange(copies), rest, slots[inside[0]].copies))
                    start += copies
                    del now[v]
                    for u in rest:
                        near[u].update(rest)
                        near[u] -= {u, v}
                        holds[u].difference_update(inside)
                        holds[u].add(len(slots) - 1)
                    gone = holds.pop(v)
                    assert gone
                for u in {u for _, scope in some for u in scope[1:]}:
                    if u in now:
                        now[u] = weight(u)
                        heapq.heappush(waiting, (now[u], u))
    remaining = {k for v in holds for k in holds[v]} | {k for k, slot in enumerate(slots) if not slot.scope}
    left = [(slots[k].stack, slots[k].rows, slots[k].scope) for k in sorted(remaining)]
    return Plan(steps, left, [slots[k].copies for k in sorted(remaining)], largest, clique, entries)


def _chunks(members: list[Any], entries: list[int]) -> Iterator[list[Any]]:
    some: list[Any] = []
    total = 0
    for member, n in zip(members, entries, strict=True):
        if some and total + n > _CHUNK:
            yield some
            some, total = [], 0
        some.append(member)
        total += n
    if some:
        yield some
