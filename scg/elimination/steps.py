"""The steps of an elimination: products of factors that are summed over one variable, and their derivatives.

A factor is a ``Selection`` of rows of tables and messages; a ``Product`` of some is the next message; a ``Cotangent``
is what comes back to a table or a message.
"""

import functools
import operator
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from scipy.sparse import csr_array

from scg.core.aliases import Result
from scg.core.cotangents import unbroadcast
from scg.core.node import Node, Value
from scg.elimination.factors import Entries, Indices, Pair, blocks_of, one_below_the_other, product, summed
from scg.elimination.products import Step
from scg.special import logsumexp

_WAITING = 2**22  # entries of products that wait to be taken together

Take = Callable[[Pair, Indices], Pair]
Products = list[tuple[Entries, Entries]]


class Made:
    """A table or a message, of which rows are taken.

    Of a Node all are gathered at once, for one of its ``uses`` after the other, and then halved, and halved again:
    where each use takes another part, the cotangent of each would be as large as the whole. With ``blocks`` rows are
    taken as ``blocks_of`` does.
    """

    def __init__(self, pair: Pair, uses: list[np.ndarray] | None, blocks: bool = False):
        self.pair, self.blocks = pair, blocks
        self.pieces = None if uses is None else _pieces(pair, uses, _in_blocks if blocks else Pair.rows)

    def take(self, rows: Indices) -> Pair:
        """Some rows."""
        if self.pieces is not None:
            return next(self.pieces)
        p, x, logs = self.pair
        return Pair(
            None if p is None else p[rows], None if x is None else x[rows], None if logs is None else logs[rows]
        )


class Selection:
    """Rows of some stacks, one below the other, as a factor of a product of ``shape``, in which the axes of the stacks
    stand at ``axes``."""

    def __init__(
        self,
        members: list[tuple[int, np.ndarray]],
        axes: tuple[int, ...],
        shape: tuple[int, ...],
        lengths: list[int],
        copies: int,
    ):
        by_stack: dict[int, list[int]] = {}
        for k, (stack, _) in enumerate(members):
            by_stack.setdefault(stack, []).append(k)
        self.rows = [
            (stack, _copied(_joined([members[k][1] for k in some]), lengths[stack], copies))
            for stack, some in by_stack.items()
        ]
        self.chosen = [(stack, _as_slice(rows)) for stack, rows in self.rows]
        self.places: list[np.ndarray] = []  # where the rows of each stack stand
        if len(by_stack) > 1:
            starts = np.cumsum([0, *[len(rows) for _, rows in members]])
            for some in by_stack.values():
                places = np.concatenate([np.arange(starts[k], starts[k + 1]) for k in some])
                self.places.append(_copied(places, int(starts[-1]), copies))
            self.order = np.argsort(np.concatenate(self.places))
        order = sorted(range(len(axes)), key=axes.__getitem__)
        self.turn = None if order == list(range(len(axes))) else (0, *[1 + k for k in order])
        self.dims = None if len(axes) == len(shape) else tuple([n if k in axes else 1 for k, n in enumerate(shape)])
        self.own = tuple([n for k, n in enumerate(shape) if k in axes])

    def take(self, made: list[Made]) -> Pair:
        """The factor."""
        parts = [made[stack].take(rows) for stack, rows in self.chosen]
        pair = parts[0]
        if self.places:
            each = [np.zeros(part.length) if part.logs is None else part.logs for part in parts]
            logs = None if all([part.logs is None for part in parts]) else np.concatenate(each)
            blocks = made[self.chosen[0][0]].blocks
            below, rows = (one_below_the_other, _in_blocks) if blocks else (np.concatenate, Pair.rows)
            p, x = [None if c[0] is None else below(c) for c in zip(*[part[:2] for part in parts], strict=True)]
            pair = rows(Pair(p, x, logs), self.order)
        if self.turn is not None:
            pair = pair.each(lambda part: np.transpose(part, self.turn))
        return pair if self.dims is None else pair.each(self._fitted)

    def _fitted(self, part: Value) -> Value:
        return np.reshape(part, (part.shape[0], *(self.own if self.dims is None else self.dims)))

    def give(self, found: "list[Cotangent]", g: Pair) -> None:
        """Add the cotangent of the factor to those of the stacks."""
        g = g.each(self._returned) if self.own else g
        for k, (stack, rows) in enumerate(self.chosen):
            found[stack].add(rows, g.rows(self.places[k]) if self.places else g)

    def _returned(self, g: Value) -> Value:
        if self.dims is not None or g.shape[1:] != self.own:
            g = unbroadcast(g, (g.shape[0], *(self.own if self.dims is None else self.dims)), g.dtype)
            g = np.reshape(g, (g.shape[0], *self.own))
        return g if self.turn is None else np.transpose(g, np.argsort(np.array(self.turn)))

    def give_product(self, found: "list[Cotangent]", g: Pair, a: Pair, swapped: bool) -> None:
        """Add the product of g, which has no axis of the variable, and a, which has no other."""
        (stack, rows), *others = self.chosen
        last = (0, len(self.own), *range(1, len(self.own)))  # the variable stands behind all others
        if others or self.turn not in (None, last) or type(rows) is not slice:
            a = a.each(lambda part: part.reshape(*part.shape, *[1] * (len(self.own) - 1)))
            self.give(found, _swapped(product(g.each(lambda part: part[:, None]), a), swapped))
            return
        pairs = [(g.p, a.p)], [(g.x, a.p), (g.p, a.x)]
        if self.turn is None:
            pairs = [(a, g) for g, a in pairs[0]], [(a, g) for g, a in pairs[1]]
        found[stack].wait(rows, *(pairs[::-1] if swapped else pairs))


class Product:
    """One step: the product of its factors, of ``shape``, summed over the values on axis 0 (behind that of the rows).

    A pair is a dual number p + e x, e e = 0. The cotangent of a factor is that of the message times the other factors,
    as dual numbers, where cotangents are written the other way round: gx + e gp.
    """

    def __init__(self, step: Step, lengths: list[int], copies: int):
        self.shape = step.shape
        # vectors that meet a matrix
        vectors = len(step.axes) > 1 and all([axes == (0,) for axes in step.axes[:-1]])
        self.matrix = vectors and len(step.axes[-1]) == len(step.shape) > 1
        shapes = [step.shape[:1] if self.matrix else step.shape] * (len(step.axes) - 1) + [step.shape]
        each = zip(step.positions, step.axes, shapes, strict=True)
        self.positions = [Selection(members, axes, shape, lengths, copies) for members, axes, shape in each]

    def message(self, factors: list[Pair]) -> Pair:
        """The message: all entries of it, also where they are equal because they do not depend on a variable."""
        if self.matrix:
            return product(_full(_product(factors[:-1])), _full(factors[-1]), self._across)
        total = summed(_product(factors).each(lambda part: _spread(part, self.shape[:1])), 1)
        return total.each(lambda part: _spread(part, self.shape[1:]))

    def _across(self, a: Value, b: Value) -> Value:
        """sum_v a[row, v] b[row, v, ...]"""
        if len(self.shape) == 2:
            return (a[:, None] @ b)[:, 0]
        return (a[:, None] @ b.reshape(b.shape[0], self.shape[0], -1)).reshape(b.shape[0], *self.shape[1:])

    def _along(self, g: Value, b: Value) -> Value:
        """sum_... g[row, ...] b[row, v, ...]"""
        return (b.reshape(b.shape[0], self.shape[0], -1) @ g.reshape(g.shape[0], -1, 1))[:, :, 0]

    def pull(self, factors: list[Pair], g: Pair, found: "list[Cotangent]") -> None:
        """Add what the cotangent of the message makes of those of the factors."""
        swapped = any([factor.x is not None for factor in factors])
        g = _swapped(g, swapped)
        if g.p is None:
            g = Pair(np.zeros(g.entries.shape), g.x)
        if self.matrix:
            last = _full(factors.pop())
            self.positions[-1].give_product(found, g, _full(_product(factors)), swapped)
            g = product(g, last, self._along)
        else:
            g = g.each(lambda part: part[:, None])
        for k in range(len(factors)):
            others = factors[:k] + factors[k + 1 :]
            self.positions[k].give(found, _swapped(product(g, _product(others)) if others else g, swapped))


class Logarithms(Product):
    """The same step, of logarithms."""

    def message(self, factors: list[Pair]) -> Pair:
        """The logarithm of the message."""
        entries = [factor.entries for factor in factors]
        each = [np.reshape(p, (*p.shape, *[1] * (1 + len(self.shape) - p.ndim))) for p in entries]
        total = _spread(functools.reduce(operator.add, each), self.shape[:1])
        return Pair(_spread(logsumexp(total, axis=1), self.shape[1:]), None)


class Cotangent:
    """What has come together of the cotangent of a table or a message."""

    def __init__(self, pair: Pair):
        self.tables: list[Result] = [pair.p, pair.x]
        self.parts: list[Result] = [None, None]
        self.waiting: dict[tuple[int, int, int], list[tuple[Value, Value]]] = {}

    def add(self, rows: Indices, g: Pair) -> None:
        """Add to some rows."""
        for k, (part, table) in enumerate(zip(g[:2], self.tables, strict=True)):
            if part is None or table is None:
                continue
            if self.parts[k] is None:
                if type(rows) is slice and rows.stop - rows.start == len(table):
                    self.parts[k] = part + 0.0
                    continue
                self.parts[k] = np.zeros(table.shape)
            if type(rows) is not slice and len(np.unique(rows)) < len(rows):
                n = len(rows)
                onto = csr_array((np.ones(n), (rows, np.arange(n))), shape=(len(table), n))
                self.parts[k] += (onto @ np.reshape(part, (n, -1))).reshape(table.shape)
            else:
                self.parts[k][rows] += part

    def wait(self, rows: slice, ps: Products, xs: Products) -> None:
        """Add products a_i b_j to the rows, later and all at once."""
        for k, pairs in enumerate((ps, xs)):
            there = [(a, b) for a, b in pairs if a is not None and b is not None]
            if self.tables[k] is not None and there:
                waiting = self.waiting.setdefault((k, rows.start, rows.stop), [])
                waiting += there
                if len(waiting) * (there[0][0].size + there[0][1].size) > _WAITING:
                    self._take((k, rows.start, rows.stop))

    def _take(self, key: tuple[int, int, int]) -> None:
        pairs = self.waiting.pop(key)
        n = len(pairs[0][0])
        a, b = [np.stack([np.reshape(pair[k], (n, -1)) for pair in pairs], axis=1) for k in (0, 1)]
        total = np.reshape(np.swapaxes(a, 1, 2) @ b, (n, *self.tables[key[0]].shape[1:]))
        self.add(slice(*key[1:]), Pair(*[total if k == key[0] else None for k in (0, 1)]))

    def total(self) -> Pair:
        """All of it; zeros where nothing came."""
        for key in list(self.waiting):
            self._take(key)
        tables = zip(self.parts, self.tables, strict=True)
        p, x = [np.zeros(table.shape) if part is None and table is not None else part for part, table in tables]
        return Pair(p, x)


def _product(factors: Sequence[Pair]) -> Pair:
    return functools.reduce(product, factors)


def _swapped(pair: Pair, swapped: bool) -> Pair:
    return Pair(pair.x, pair.p, pair.logs) if swapped else pair


def _full(pair: Pair) -> Pair:
    """A pair whose p is there."""
    return pair if pair.p is not None else pair._replace(p=np.ones(pair.entries.shape))


def _spread(a: Value, shape: tuple[int, ...]) -> Value:
    """Entries that have the axes of ``shape`` behind that of the rows, also where they do not depend on a variable."""
    full = (a.shape[0], *shape, *a.shape[1 + len(shape) :])
    return a if a.shape == full else np.broadcast_to(a, full)


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _copied(rows: np.ndarray, length: int, copies: int) -> np.ndarray:
    """Rows of every copy of a stack of some length."""
    return rows if copies == 1 else (rows + length * np.arange(copies)[:, None]).reshape(-1)


def _as_slice(rows: np.ndarray) -> Indices:
    """Rows that follow one another as a slice, which copies nothing."""
    first, n = int(rows[0]), len(rows)
    if int(rows[-1]) - first == n - 1 and (n < 3 or (rows[1:] - rows[:-1] == 1).all()):
        return slice(first, first + n)
    return rows


def _pieces(pair: Pair, uses: list[np.ndarray], take: Take) -> Iterator[Pair]:
    """The rows of a stack for each of its uses in turn."""
    length = pair.length
    if len(uses) == 1 or sum(map(len, uses)) > 2 * length or type(pair.entries) is not Node:
        return (_rows(pair, rows, take) for rows in uses)
    ends = np.cumsum([len(rows) for rows in uses])
    return iter(_halved(_rows(pair, np.concatenate(uses), take), ends.tolist(), 0, take))


def _halved(pair: Pair, ends: list[int], start: int, take: Take) -> list[Pair]:
    if len(ends) == 1:
        return [pair]
    middle = len(ends) // 2
    cut = ends[middle - 1] - start
    left, right = take(pair, slice(None, cut)), take(pair, slice(cut, None))
    return _halved(left, ends[:middle], start, take) + _halved(right, ends[middle:], start + cut, take)


def _rows(pair: Pair, rows: np.ndarray, take: Take) -> Pair:
    if len(rows) == pair.length and (rows == np.arange(len(rows))).all():
        return pair
    return take(pair, rows)


def _in_blocks(pair: Pair, rows: Indices) -> Pair:
    logs = None if pair.logs is None else pair.logs[rows]
    return pair.each(lambda part: blocks_of(part, rows))._replace(logs=logs)
