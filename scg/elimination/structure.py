"""A cost of discrete samples, taken apart into terms, and which elements of samples these and the samples themselves
depend on directly."""

import itertools
import math
import time
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from scg.core.ancestry import ancestors
from scg.core.node import Node, Value
from scg.distributions.base import FiniteSupport
from scg.elimination.affine import terms_of
from scg.elimination.alike import Form, described, form_of
from scg.elimination.direct import LARGEST, NoStructure, NotListed, TooBroad, depends, direct, distinct, of_parameters
from scg.elimination.finite import BudgetError, Finite, Lattice, Width, written
from scg.errors import here
from scg.stochastic.bindings import numbered
from scg.stochastic.sites import is_draw, is_noise, is_stochastic

_LATTICES = 2**22  # entries of a table of what depends on what, where lattices make each of them large
_FEW = 8  # draws, of which it takes longer to see that they are alike than to tabulate each


class Likeness(NamedTuple):
    """Of each of some nodes the position of the ``first`` that has the same table, and of the first of its ``form``;
    the positions of the ``draws`` behind it, None where they are too many; the ``numbers`` in it (``alike``)."""

    first: list[int]
    form: list[int]
    draws: list[list[int] | None]
    numbers: list[list[Value]]


class Structure:
    """A cost of discrete samples, taken apart into terms, and what these and the draws depend on directly.

    ``terms``    nodes in which the cost is affine, with weights that no draw decides
    ``scopes``   of each term, (elements, k): the elements of samples that each of its elements depends on
    ``roots``    what is affine in the terms: the cost, or other nodes
    ``parents``  of each draw, (elements, k): those that its distribution depends on

    ``lattices`` has, by id, the points that stand for the values of continuous draws.

    With ``draws`` it is the structure in these alone, whatever values all others take, and the caller knows that no
    ``if`` looks at them and that no other draw is drawn from them. Raises NotListed where draws are not finite,
    NoStructure where ``if``s look at draws, or a node depends on too much.
    """

    def __init__(
        self,
        cost: Node,
        names: dict[int, str],
        budget: int,
        deadline: float = math.inf,
        roots: list[Node] | None = None,
        draws: list[Node] | None = None,
        lattices: Mapping[int, Lattice] | None = None,
    ):
        self.cost, self.names, self.budget, self.deadline = cost, names, budget, deadline
        self.roots = [cost] if roots is None else roots
        self.order = ancestors(self.roots, guards=True)
        self.alone = draws is not None
        self.lattices = lattices or {}
        self.draws = [n for n in self.order if is_draw(n)] if draws is None else draws
        if not self.alone and any([is_noise(n) or is_stochastic(n) != is_draw(n) for n in self.order]):
            raise NotListed
        if not self.draws or not self.alone and any([n.guard is not None for n in self.order]):
            raise NoStructure
        if not all([n.id in self.lattices or n.statics["site"].distribution.has(FiniteSupport) for n in self.draws]):
            raise NotListed
        self.events = [n.statics["site"].event_ndim for n in self.draws]
        self.counts = [math.prod(n.shape[: n.ndim - event]) for n, event in zip(self.draws, self.events, strict=True)]
        self.offsets = list(itertools.accumulate(self.counts, initial=0))
        each = [
            len(self.lattices[n.id].points) if n.id in self.lattices else n.statics["site"].distribution.count()
            for n in self.draws
        ]
        self.each = each
        if (largest := max(each)) > budget:
            raise TooBroad(self.naming([self.offsets[each.index(largest)]]), largest)

    @cached_property
    def sizes(self) -> np.ndarray:
        """How many values each element of the draws has."""
        return np.repeat(np.array(self.each), self.counts)

    @cached_property
    def owner(self) -> np.ndarray:
        """The draw that each element is of."""
        return np.repeat(np.arange(len(self.draws)), self.counts)

    def look(self) -> None:
        """Find the terms, and what depends on what."""
        starts = {n.id: start for n, start in zip(self.draws, self.offsets, strict=False)}
        self.dependent = set(starts)
        for node in self.order:
            if node.id not in starts and depends(node, self.dependent):
                self.dependent.add(node.id)
        self.terms = terms_of(self.roots, self.order, self.dependent, False)
        if not self.terms:
            raise NoStructure
        self.like_terms = self._alike(self.terms, False)
        self.like_draws = self._alike(self.draws, True)
        terms, draws = (
            [nodes[k] for k in set(like.form)]
            for nodes, like in ((self.terms, self.like_terms), (self.draws, self.like_draws))
        )
        parameters = [o for n in draws for o in n.operands if type(o) is Node and o.id in self.dependent]
        found = direct([*terms, *parameters], starts, self.alone, most=_LATTICES if self.lattices else LARGEST)
        self.scopes = self._mapped(self.like_terms, {t.id: found[t.id] for t in terms}, self.terms)
        self.parents = self._mapped(self.like_draws, {n.id: of_parameters(n, found) for n in draws}, self.draws)

    def _alike(self, nodes: list[Node], given: bool) -> "Likeness":
        draws, few = self.described, len(self.draws) <= _FEW
        position = {n.id: k for k, n in enumerate(self.draws)}
        first: dict[Hashable, int] = {}
        forms: dict[Hashable, int] = {}
        found = Likeness([], [], [], [])
        for k, node in enumerate(nodes):
            form = Form(k, None, []) if few else form_of(node, draws, self.dependent, given)
            found.first.append(first.setdefault(form.alike, k))
            found.form.append(forms.setdefault(form.key, k))
            found.draws.append(None if form.draws is None else [position[n.id] for n in form.draws])
            found.numbers.append(form.numbers)
        return found

    @cached_property
    def described(self) -> dict[int, Hashable]:
        """What each draw is, by id, beside the parameters of its distribution."""
        return (
            {n.id: described(n, self.lattices.get(n.id)) for n in self.draws}
            if len(self.draws) > _FEW
            else dict.fromkeys([n.id for n in self.draws])
        )

    def _mapped(self, like: "Likeness", known: dict[int, np.ndarray], nodes: list[Node]) -> list[np.ndarray]:
        """The elements of samples of each node, from those of the one whose form it has."""
        found = []
        offsets = np.array(self.offsets)
        for k, first in enumerate(like.form):
            rows = known[nodes[first].id]
            if k != first and rows.shape[1]:
                move = np.zeros(len(self.draws), int)
                move[like.draws[first]] = offsets[like.draws[k]] - offsets[like.draws[first]]
                rows = np.where(rows < 0, -1, rows + move[self.owner[rows]])
            found.append(rows)
        return found

    def largest(self, rows: np.ndarray) -> float:
        """log2 of the most configurations of what a row of elements names."""
        return float(np.max(np.sum(np.append(np.log2(self.sizes), 0.0)[rows], axis=1), initial=0))

    @property
    def bits(self) -> float:
        """log2 of the number of configurations of all draws together."""
        return sum([count * math.log2(n) for count, n in zip(self.counts, self.each, strict=True) if n])

    def enumeration(self, most: float) -> tuple[float, float]:
        """log2 of the configurations of the largest set that an enumeration runs through (an element of a term, with
        all that its draws are drawn from), and of about how many rows it takes in all: sets that share an element of a
        draw take rows of their own. Infinite where a set has more than ``most``, which ends the search."""
        width = max(part.shape[1] for part in self.parents)
        parents = np.concatenate([_padded(part, width) for part in self.parents])
        bits = np.append(np.log2(self.sizes), 0.0)
        widest = max(rows.shape[1] for rows in self.scopes)
        rows = distinct(np.unique(np.concatenate([_padded(rows, widest) for rows in self.scopes]), axis=0))
        while True:
            sizes = np.sum(bits[rows], axis=1)
            if np.max(sizes, initial=0) > most:
                return math.inf, math.inf
            more = np.where(rows[:, :, None] < 0, -1, parents[rows]).reshape(len(rows), rows.shape[1] * width)
            after = distinct(np.concatenate([rows, more], axis=1))
            if after.shape == rows.shape and (after == rows).all():
                break
            rows = after
        rows, kept = np.unique(rows, axis=0, return_index=True)
        inside = rows >= 0
        loads = np.bincount(rows[inside], np.broadcast_to(2.0 ** sizes[kept][:, None], rows.shape)[inside])
        return float(np.max(sizes, initial=0)), float(np.log2(np.max(loads, initial=1)))

    @property
    def work(self) -> int:
        """How many numbers a row of a replay has."""
        return sum([n.size for n in self.order if n.id in self.dependent and type(n.raw) is not tuple])

    def leaf(self, k: int) -> Finite:
        """A draw as the values that it can take."""
        return Finite(self.draws[k], self.labels[k], self.lattices.get(self.draws[k].id))

    @cached_property
    def labels(self) -> list[str]:
        """What messages call the draws."""
        counts, found = Counter[str](), []
        for node in self.draws:
            kind = numbered(type(node.statics["site"].distribution).__name__.lower(), counts)
            found.append(self.names.get(node.id) or node.name or kind)
        return found

    def naming(self, variables: Sequence[int]) -> str:
        """The draws of some elements, for a message."""
        owner = self.owner[np.asarray(variables)]
        found = []
        for k in np.unique(owner)[:9]:
            n = int(np.sum(owner == k))
            size = int(self.sizes[self.offsets[k]])
            found.append(f"{self.labels[k]} ({n} element{'s' * (n > 1)} of {size} values)")
        rest = len(np.unique(owner)) - len(found)
        return ", ".join(found) + (f" and {rest} more samples" if rest > 0 else "")

    def width(self, variables: Sequence[int], entries: int) -> Width:
        """What is held together, of some elements."""
        owner = np.unique(self.owner[np.asarray(variables, int)]).tolist()
        return Width(len(variables), entries, tuple([self.labels[k] for k in owner]))

    def too_wide(self, variables: Sequence[int], entries: int) -> BudgetError:
        """The refusal of an elimination that comes to a table of so many entries."""
        further = ", or use ScoreFunction() on some of them" if self.alone else ""
        return BudgetError(
            f"elimination comes to a width of {len(variables)} elements of samples that keep together,"
            f" {self.naming(variables)}: {written(entries)} configurations at once, over the budget of {self.budget};"
            f" raise budget=, or write the cost as a sum of parts that depend on fewer{further} ({here()})",
            self.width(variables, entries),
        )

    def relevant(self, first: np.ndarray) -> np.ndarray:
        """Whether an element of the draws is among ``first`` or something there is drawn from it, generation by
        generation; what nothing is drawn from, and no term depends on, sums to one."""
        used = np.zeros(len(self.sizes), bool)
        used[first] = True
        for k in range(len(self.draws) - 1, -1, -1):  # what a draw is drawn from was drawn before
            own = used[self.offsets[k] : self.offsets[k + 1]]
            above = self.parents[k][own]
            used[above[above >= 0]] = True
        return used

    def apart(self) -> tuple[np.ndarray, np.ndarray] | None:
        """For each element of the terms, and for each element of the draws, the element of the cost that it is a part
        of (-1: of none); None where one is part of several."""
        sizes = [t.size for t in self.terms]
        starts = np.cumsum([0, *sizes])
        at = {t.id: int(start) for t, start in zip(self.terms, starts, strict=False)}
        rows = direct([self.cost], at, self.alone, whole=True)[self.cost.id]
        inside = rows >= 0
        most = np.full(starts[-1], -1)
        np.maximum.at(most, rows[inside], np.broadcast_to(np.arange(len(rows))[:, None], rows.shape)[inside])
        if np.unique(rows[inside]).size < np.sum(inside):
            return None
        low, high = np.full(len(self.sizes), self.cost.size), np.full(len(self.sizes), -1)

        def enter(scopes: np.ndarray, owner: np.ndarray) -> None:
            inside = (scopes >= 0) & (owner >= 0)[:, None]
            spread = np.broadcast_to(owner[:, None], scopes.shape)[inside]
            np.minimum.at(low, scopes[inside], spread)
            np.maximum.at(high, scopes[inside], spread)

        for k, scopes in enumerate(self.scopes):
            enter(scopes, most[starts[k] : starts[k + 1]])
        for k in range(len(self.draws) - 1, -1, -1):  # what a draw is drawn from was drawn before
            enter(self.parents[k], high[self.offsets[k] : self.offsets[k + 1]])
        return None if ((low != high) & (high >= 0)).any() else (most, high)

    def check_time(self) -> None:
        """Raise BudgetError where the time that was given is over."""
        if time.monotonic() > self.deadline:
            raise BudgetError(
                f"the exact mean over {self.naming(range(len(self.sizes)))} took longer than time_limit: raise it,"
                f" or sample it ({here()})"
            )


def _padded(rows: np.ndarray, width: int) -> np.ndarray:
    return np.pad(rows, ((0, 0), (width - rows.shape[1], 0)), constant_values=-1)
