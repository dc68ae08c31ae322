"""A cost as factors: the terms of it and the conditional probabilities of its draws, each tabulated over the elements
of draws that it depends on *directly*.

All are found by few batched replays in which every draw is held. Elements of draws have *colours*, such that those on
which one element of a term (or of a parameter) depends differ in colour: row r of a replay gives each colour the r-th
combination of values. A chain of n coins has two colours, however long it is: its conditionals take two rows, and the
terms of neighbours four.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from scg.core.aliases import Result
from scg.core.axes import padded
from scg.core.leaves import parameter
from scg.core.node import Node, Value
from scg.core.replay import replay
from scg.elimination.alike import expression, with_numbers
from scg.elimination.direct import TooBroad
from scg.elimination.factors import blocks_of, one_below_the_other, ranked
from scg.elimination.finite import Finite, probabilities
from scg.elimination.structure import Likeness, Structure

_BLOCK = 2**22  # numbers that one replay may make
_FEW = 64  # rows of which a replay is not worth being split


class Group(NamedTuple):
    """Elements of draws or terms that have scopes of equal sizes: (elements, k) elements of samples, the ``places`` in
    their family of those that are tabulated, which of these ``rows`` each has, and its number among the elements of all
    draws, or of all terms."""

    scopes: np.ndarray
    places: np.ndarray
    rows: np.ndarray
    numbers: np.ndarray
    sizes: tuple[int, ...]


class Family:
    """Elements of draws, or of terms, that are replayed together, and all those that are like them.

    ``members`` are the positions of the draws or terms that are replayed, ``places`` the elements among all of theirs,
    ``scopes`` (all of theirs, k) what each depends on; of draws the first column is the element itself, of which there
    are ``own`` values.
    """

    def __init__(
        self, kind: "Kind", members: list[int], scopes: np.ndarray, places: np.ndarray, own: int, rows: "Rows"
    ):
        self.kind, self.members, self.places, self.own, self.rows = kind, members, places, own, rows
        if own:
            starts = [kind.structure.offsets[k] + np.arange(kind.structure.counts[k]) for k in members]
            scopes = np.concatenate([np.concatenate(starts)[:, None], scopes], axis=1)
        self.scopes = scopes

    def groups(self, used: np.ndarray | None = None) -> Iterator[Group]:
        """The elements, with those that are like them, by the sizes of what they depend on; of draws those that are
        ``used``."""
        kind, start, found = self.kind, 0, []
        for member in self.members:
            size = len(kind.scopes[member])
            own = self.places[(self.places >= start) & (self.places < start + size)]
            like = kind.instances[member]
            scopes = np.stack([kind.scopes[k] for k in like])[:, own - start].reshape(len(like) * len(own), -1)
            numbers = (np.array([kind.starts[k] for k in like])[:, None] + own - start).reshape(-1)
            if self.own:
                scopes = np.concatenate([numbers[:, None], scopes], axis=1)
            found.append((_padded(scopes, self.scopes.shape[1], self.own), np.tile(own, len(like)), numbers))
            start += size
        scopes, places, numbers = [np.concatenate(column) for column in zip(*found, strict=True)]
        if used is not None:
            kept = used[scopes[:, 0]]
            scopes, places, numbers = scopes[kept], places[kept], numbers[kept]
        sizes = np.append(kind.structure.sizes, 0)[scopes]
        if (sizes == sizes[:1]).all():
            patterns, inverse = sizes[:1], np.zeros(len(sizes), int)
        else:
            patterns, inverse = np.unique(sizes, axis=0, return_inverse=True)
        for k, pattern in enumerate(patterns):
            chosen = inverse.reshape(-1) == k
            some, rows = ranked(places[chosen])
            inside = pattern > 0
            yield Group(scopes[chosen][:, inside], some, rows, numbers[chosen], tuple(pattern[inside].tolist()))

    def table(self, values: Value, group: Group) -> Result:
        """(places, values of the first, ..., of the k-th) of what is (rows of the replay, elements); for draws rows of
        the replay are (own values, rows)."""
        places, scopes = group.places, self.scopes[group.places]
        k = len(group.sizes)
        strides = self.rows.strides[scopes]
        if self.own:
            strides[:, 0] = self.rows.number
        strides = strides[scopes >= 0].reshape(len(places), k)
        row = np.zeros([1] * (1 + k), int)
        for i, n in enumerate(group.sizes):
            row = row + strides[:, i].reshape(-1, *[1] * k) * np.arange(n).reshape(n, *[1] * (k - 1 - i))
        if type(values) is Node and k and (row == row[:1]).all():  # of nodes axes stay apart: whose element is whose
            chosen = blocks_of(blocks_of(values, row[0].reshape(-1)).T, places).T
            return np.moveaxis(np.reshape(chosen, (*group.sizes, len(places))), -1, 0)
        return values[row, places.reshape(-1, *[1] * k)]


class Kind:
    """The draws of a structure, or its terms: ``scopes`` of each, and by position of those that are tabulated all that
    are like them; ``starts``: the number of the first element of each."""

    def __init__(self, structure: Structure, scopes: list[np.ndarray], like: list[int]):
        self.structure, self.scopes = structure, scopes
        self.starts = np.cumsum([0, *[len(rows) for rows in scopes]])
        self.instances: dict[int, list[int]] = {}
        for k, first in enumerate(like):
            if len(scopes[k]):
                self.instances.setdefault(first, []).append(k)

    def families(self, owns: np.ndarray | None = None) -> list[Family]:
        """Those that depend on about equally many configurations, and of draws have equally many values, together."""
        bits = np.append(np.log2(self.structure.sizes), 0.0)
        together: dict[tuple[int, int], list[int]] = {}
        for k in self.instances:
            found = float(np.max(np.sum(bits[self.scopes[k]], axis=1), initial=0))
            size = math.ceil(found / 2) if found > 6 else int(found > 0)
            together.setdefault((size, 0 if owns is None else int(owns[self.starts[k]])), []).append(k)
        return [family for (_, own), members in together.items() for family in self._apart(members, own)]

    def _apart(self, members: list[int], own: int) -> Iterator[Family]:
        """Families that take few rows: where too many of their elements meet in pairs, they are split by the elements
        of draws that they depend on first, of each of which the partners may have one colour."""
        structure, parts = self.structure, [self.scopes[k] for k in members]
        width = max([part.shape[1] for part in parts])
        scopes = np.concatenate([_padded(part, width) for part in parts])
        starts = np.cumsum([0, *map(len, parts)])
        sizes = np.append(structure.sizes, 1)
        waiting = [np.arange(len(scopes))]
        while waiting:
            places = waiting.pop()
            rows = _coloured(structure, scopes[places])
            most = float(np.max(np.prod(sizes[scopes[places]], axis=1, dtype=float)))
            if rows.number > max(_FEW, 8 * most) and len(places) > 1:
                places = places[np.lexsort(scopes[places].T[::-1])]
                waiting += [places[len(places) // 2 :], places[: len(places) // 2]]
                continue
            if rows.number > structure.budget:
                scope = scopes[places[0]]
                raise TooBroad(structure.naming(scope[scope >= 0]), rows.number)
            places = np.sort(places)
            inside = np.unique(np.searchsorted(starts, places, side="right") - 1)
            kept = np.concatenate([np.arange(starts[j], starts[j + 1]) for j in inside])
            where = np.searchsorted(kept, places)
            yield Family(self, [members[j] for j in inside], scopes[kept], where, own, rows)


def families(structure: Structure) -> tuple[list[Family], list[Family]]:
    """Of the draws, and of the terms."""
    draws = Kind(structure, structure.parents, structure.like_draws.first)
    terms = Kind(structure, structure.scopes, structure.like_terms.first)
    return draws.families(structure.sizes), terms.families()


def _padded(rows: np.ndarray, width: int, kept: int = 0) -> np.ndarray:
    """Rows with -1 in front up to a width; behind the first column where ``kept``."""
    first = min(kept, 1)
    added = np.full((len(rows), width - rows.shape[1]), -1)
    return np.concatenate([rows[:, :first], added, rows[:, first:]], axis=1)


class Tables:
    """The values of families, by replays: arrays, or with ``graph`` Nodes of the parameters; with ``logs`` logarithms
    of probabilities in their place."""

    def __init__(self, structure: Structure, graph: bool, logs: bool = False):
        self.structure, self.graph, self.logs = structure, graph, logs
        self._leaves: dict[int, Finite] = {}

    def terms(self, family: Family) -> Value:
        """The terms of a family, (rows, elements)."""
        structure, columns = self.structure, []
        for members in _by_form(family, structure.like_terms):
            node = structure.terms[members[0]]
            (found,) = self._at([node], node, members, structure.like_terms, family, False)
            columns.append(self._beside(np.reshape(found, (1, -1, node.size)), len(members)))
        return _joined(columns, family, structure.like_terms, [structure.terms[k].size for k in family.members])

    def chances(self, family: Family) -> Value:
        """The probabilities of all values of the draws of a family, (own values times rows, elements)."""
        structure, columns = self.structure, []
        for members in _by_form(family, structure.like_draws):
            leaf = self.leaf(members[0])
            distribution, batch = leaf.distribution, len(leaf.batch)
            moving = {
                p.id: p for p in distribution.parameters.values() if type(p) is Node and p.id in structure.dependent
            }
            nodes = list(moving.values())
            found = self._at(nodes, leaf.node, members, structure.like_draws, family, True) if nodes else []
            new = dict(zip(moving, found, strict=True))
            changed = {}
            for name, p in distribution.parameters.items():
                each = [self.leaf(k).distribution.parameters[name] for k in members]
                if type(p) is Node and p.id in new:
                    rows = new[p.id]
                elif all([x is p for x in each]):
                    continue
                else:
                    rows = self._stacked(each)[np.repeat(np.arange(len(each)), family.rows.number)]
                changed[name] = padded(rows, batch + distribution.parameter_event_ndim(name))
            if changed:
                distribution = distribution.replaced(**changed)
            if not self.graph:
                distribution = distribution.detached()
            atoms = np.asarray(leaf.fixed, leaf.node.dtype).reshape(leaf.size, 1, *leaf.node.shape)
            with np.errstate(all="ignore"):  # where a configuration is impossible
                chance = probabilities(leaf.node, leaf.distribution, distribution.log_prob(atoms), leaf.name, self.logs)
            if leaf.lattice is not None:
                steps = np.reshape(leaf.lattice.steps, (leaf.size, 1, *leaf.batch))
                chance = chance + np.log(steps) if self.logs else chance * steps
            chance = np.broadcast_to(chance, (leaf.size, len(members) * family.rows.number, *leaf.batch))
            columns.append(self._beside(np.reshape(chance, (leaf.size, -1, leaf.count)), len(members)))
        return _joined(columns, family, structure.like_draws, [structure.counts[k] for k in family.members])

    def leaf(self, k: int) -> Finite:
        """A draw as the values that it can take."""
        if k not in self._leaves:
            self._leaves[k] = self.structure.leaf(k)
        return self._leaves[k]

    def _beside(self, found: Value, count: int) -> Value:
        """(own values, rows of ``count`` nodes, elements) as (own values times rows, nodes times elements)."""
        own, rows, size = found.shape
        if count > 1:
            found = np.swapaxes(np.reshape(found, (own, count, rows // count, size)), 1, 2)
        return np.reshape(found, (own * rows // count, count * size))

    def _stacked(self, parts: Sequence[Value]) -> Value:
        """Numbers along an axis in front."""
        return np.stack(parts if self.graph else [x.raw if type(x) is Node else x for x in parts])

    def _at(
        self, outputs: list[Node], first: Node, members: list[int], like: Likeness, family: Family, given: bool
    ) -> list[Value]:
        """Nodes at all rows, for each of the members, which have the form of the first: (members times rows, *shape)
        each."""
        s, rows = self.structure, family.rows
        numbers = list(zip(*[like.numbers[k] for k in members], strict=True))
        other = {j: parts for j, parts in enumerate(numbers) if any([x is not parts[0] for x in parts])}
        held = {j: parameter(x[0].raw if type(x[0]) is Node else x[0]) for j, x in other.items()}
        nodes = with_numbers(first, s.described, s.dependent, given, held) if held else {}
        outputs = [nodes.get(n.id, n) for n in outputs]
        tables = {node: self._stacked(list(other[j])) for j, node in held.items()}
        positions = like.draws[members[0]]
        behind = (
            [np.full(len(members), k) for k in range(len(s.draws))]
            if positions is None
            else [np.array(column) for column in zip(*[like.draws[k] for k in members], strict=True)]
        )
        offsets = np.array(s.offsets)
        work = (
            s.work
            if positions is None
            else sum([n.size for n in expression(first, s.described, s.dependent, given) or ()])
        )
        step = max(1, _BLOCK // max(1, work))
        parts = []
        for start in range(0, len(members) * rows.number, step):
            s.check_time()
            which, row = np.divmod(np.arange(start, min(start + step, len(members) * rows.number)), rows.number)
            values = {node: table[which] for node, table in tables.items()}
            for column in behind:
                leaf = self.leaf(int(column[0]))
                places = offsets[column][which][:, None] + np.arange(leaf.count)
                strides = rows.strides[places]
                digits = np.minimum(row[:, None] // np.maximum(strides, 1) % rows.extents[places], leaf.size - 1)
                values[leaf.node] = leaf.at(np.where(strides > 0, digits, -1))
            with np.errstate(all="ignore"):  # where a configuration is impossible
                parts.append(replay(outputs, values, list(values), create_graph=self.graph))
        return parts[0] if len(parts) == 1 else [np.concatenate(column) for column in zip(*parts, strict=True)]


def _by_form(family: Family, like: Likeness) -> list[list[int]]:
    """The members of a family, those of one form together."""
    found: dict[int, list[int]] = {}
    for k in family.members:
        found.setdefault(like.form[k], []).append(k)
    return list(found.values())


def _joined(columns: list[Value], family: Family, like: Likeness, sizes: list[int]) -> Value:
    """Columns of members by form, side by side in the order of the members, as float64."""
    joined = one_below_the_other(columns, 1)
    joined = joined if joined.dtype == np.float64 else joined.astype(np.float64)
    starts = np.cumsum([0, *sizes])
    place = {k: np.arange(a, b) for k, a, b in zip(family.members, starts, starts[1:], strict=False)}
    order = np.concatenate([place[k] for members in _by_form(family, like) for k in members])
    return joined if (order[1:] > order[:-1]).all() else joined[:, np.argsort(order)]


class Rows(NamedTuple):
    """Rows in which the values of the elements of each scope run through all their combinations: how many rows one
    value of each element of the draws is from the next (a last entry, 0, is for the padding), how many values its
    colour has, and the number of rows."""

    strides: np.ndarray
    extents: np.ndarray
    number: int


def _coloured(structure: Structure, scopes: np.ndarray) -> Rows:
    """Rows for some scopes."""
    colours, sizes = colours_of(structure, scopes), structure.sizes
    used = np.zeros(len(sizes), bool)
    used[scopes[scopes >= 0]] = True
    each = [int(sizes[used & (colours == c)].max(initial=1)) for c in range(int(colours.max(initial=0)) + 1)]
    strides = [math.prod(each[:c]) for c in range(len(each) + 1)]
    steps = np.array([min(stride, 2**62) for stride in strides])
    return Rows(np.append(np.where(used, steps[colours], 0), 0), np.array(each)[colours], strides[-1])


def colours_of(structure: Structure, scopes: np.ndarray) -> np.ndarray:
    """A colour for each element of the draws: those that meet in a scope differ."""
    count, owner, sizes = len(structure.draws), structure.owner, structure.sizes
    left, right = [np.zeros(0, int)], [np.zeros(0, int)]
    for i in range(scopes.shape[1]):
        for j in range(i + 1, scopes.shape[1]):
            both = scopes[:, i] >= 0
            left.append(scopes[both, i])
            right.append(scopes[both, j])
    a, b = np.concatenate(left), np.concatenate(right)
    # draws of which no two elements meet have one colour each
    whole = not (owner[a] == owner[b]).any()
    if whole:
        a, b = owner[a], owner[b]
    pairs = a * (count + len(sizes)) + b
    pairs = np.unique(pairs[np.append(True, pairs[1:] != pairs[:-1])[: len(pairs)]])
    colours = _greedy(count if whole else len(sizes), *np.divmod(pairs, count + len(sizes)))
    return colours[owner] if whole else colours


def _greedy(count: int, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """A colour for each of ``count`` things, such that those of a pair differ: the least that no neighbour has."""
    near: dict[int, list[int]] = {}
    for a, b in zip(left.tolist(), right.tolist(), strict=True):
        near.setdefault(max(a, b), []).append(min(a, b))
    colours = np.zeros(count, int)
    for a in sorted(near):
        taken = {int(colours[b]) for b in near[a]}
        colours[a] = next(c for c in range(len(taken) + 1) if c not in taken)
    return colours
