"""Running a plan of an elimination: every step multiplies factors F_1 ... F_k and sums over the values of one variable,

    m = sum_v F_1 F_2 ... F_k

and m, a *message*, is a factor of a later step. On arrays the steps run forwards, and backwards for the derivative:
with g the cotangent of m, that of F_i is the sum of g prod_{j != i} F_j over all that F_i does not depend on. (The
backward algorithm of a hidden Markov model is this derivative of its forward algorithm.) So all steps are one node of a
graph, and their derivative is another. What differentiates that again does so step by step, on Nodes.
"""

import functools
import operator
from collections.abc import Iterator, Sequence
from copy import copy
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from scg.core.axes import AxisMap
from scg.core.backward import pull
from scg.core.cotangents import results, unbroadcast
from scg.core.leaves import parameter
from scg.core.node import Node
from scg.core.primitive import primitive
from scg.core.replay import replay
from scg.elimination.factors import Pair, Stack, product, scaled, summed
from scg.elimination.products import Plan, Step
from scg.special import logsumexp

_WAITING = 2**22  # entries of products that wait to be taken together


def eliminate(found: Plan, stacks: Sequence[Stack], logs: bool = False, steps: bool = False) -> list[Pair]:
    """The factors that remain, in the order of ``found.left``, each with an axis of rows in front. With ``logs`` what
    is small is scaled up, and its logarithm kept.

    Where a table is a Node so is what remains. With ``steps`` every step is recorded by itself: for a Hessian, many
    rows of which are taken of one graph.
    """
    run = _Run(found, stacks, logs)
    parts = [part for stack in stacks for part in (stack.p, stack.x) if part is not None]
    recorded = any([type(part) is Node for part in parts])
    if steps or not recorded:
        return run.left(run.forward(parts, steps and recorded))
    flat = iter(results(_eliminated(*parts, run=run)))
    return [Pair(*[next(flat) if known else None for known in (*kinds, logs)]) for kinds in run.kinds]


def eliminate_logarithms(found: Plan, stacks: Sequence[Stack]) -> list[Any]:
    """The same of factors of which ``p`` holds the logarithms: Nodes, the logarithms of what remains. Each step is
    recorded by itself, and nothing of it depends on recorded values, so that it may be replayed with any others."""
    run = _Run(found, stacks, False, _Logarithms)
    return [pair.p for pair in run.left(run.forward([stack.p for stack in stacks], True))]


class _Run:
    """A plan, with all that the tables of some stacks decide but their entries; ``kinds`` says of each factor that
    remains whether it has a p, and an x."""

    def __init__(self, found: Plan, stacks: Sequence[Stack], logs: bool, kind: "type[_Product] | None" = None):
        self.plan, self.logs, self.kind = found, logs, kind or _Product
        self.layout = [(stack.p is not None, stack.x is not None, stack.logs) for stack in stacks]
        self.lengths = [
            len(stack.scopes if stack.rows is None else stack.x if stack.p is None else stack.p) for stack in stacks
        ]
        self._prepare(None)

    def _prepare(self, copies: int | None) -> None:
        """Find the rows of all factors, for tables with an axis of ``copies`` in front."""
        self.copies, self._others = copies, dict[int, _Run]()
        lengths = list(self.lengths)
        flags = [(p, x) for p, x, _ in self.layout]
        self.steps: list[_Product] = []
        for step in self.plan.steps:
            self.steps.append(self.kind(step, lengths, copies or 1))
            inside = [flags[members[0][0]] for members in step.positions]
            flags.append((any([p for p, _ in inside]), any([x for _, x in inside])))
            lengths.append(sum([len(rows) for _, rows in step.positions[0]]))
        self.ends = [_Selection([(k, rows)], (), (), lengths, copies or 1) for k, rows, _ in self.plan.left]
        self.kinds = [flags[stack] for stack, _, _ in self.plan.left]

    def repeated(self, copies: int) -> "_Run":
        """The same for tables with an axis of ``copies`` in front."""
        if copies not in self._others:
            other = copy(self)
            other.layout = [(p, x, None if logs is None else np.tile(logs, copies)) for p, x, logs in self.layout]
            other._prepare(copies)
            self._others[copies] = other
        return self._others[copies]

    def forward(self, parts: Sequence[Any], pieces: bool = False, scales: list[Any] | None = None) -> "list[_Made]":
        """The tables and, behind them, the messages; with ``pieces`` for one use of each row after the other. What
        each message was multiplied by goes to ``scales``; without it messages live until their last use."""
        each = iter(parts)
        uses, last = self._uses() if pieces else {}, self._last() if scales is None and not pieces else {}
        made = [
            _Made(Pair(next(each) if p else None, next(each) if x else None, logs), uses.get(k))
            for k, (p, x, logs) in enumerate(self.layout)
        ]
        for k, step in enumerate(self.steps):
            total, by = step.message([position.take(made) for position in step.positions]), None
            if self.logs and total.p is not None:
                total, by = scaled(total)
            if scales is not None:
                scales.append(by)
            made.append(_Made(total, uses.get(len(made))))
            for stack in last.get(k, ()):
                made[stack] = _Made(Pair(None, None), None)
        return made

    def _uses(self) -> dict[int, list[Any]]:
        """Of each stack, the rows of each use in turn."""
        found: dict[int, list[Any]] = {}
        for position in [*[position for step in self.steps for position in step.positions], *self.ends]:
            for stack, rows in position.rows:
                found.setdefault(stack, []).append(rows)
        return found

    def _last(self) -> dict[int, list[int]]:
        """The messages that no step needs after each one."""
        when: dict[int, int] = {}
        for k, step in enumerate(self.steps):
            when.update(dict.fromkeys([stack for position in step.positions for stack, _ in position.rows], k))
        kept = {stack for end in self.ends for stack, _ in end.rows}
        found: dict[int, list[int]] = {}
        for stack, k in when.items():
            if stack >= len(self.layout) and stack not in kept:
                found.setdefault(k, []).append(stack)
        return found

    def left(self, made: "list[_Made]") -> list[Pair]:
        """What remains."""
        found = [end.take(made) for end in self.ends]
        if not self.logs:
            return found
        return [pair if pair.logs is not None else pair._replace(logs=np.zeros(pair.length)) for pair in found]

    def backward(self, seeds: Sequence[Any], parts: Sequence[Any]) -> list[Any]:
        """The cotangents of the tables, for those of what remains."""
        scales: list[Any] = []
        made = self.forward(parts, scales=scales)
        found = [_Cotangent(m.pair) for m in made]
        each = iter(seeds)
        for end, (p, x) in zip(self.ends, self.kinds, strict=True):
            end.give(found, Pair(next(each) if p else None, next(each) if x else None))
        for step, by in zip(reversed(self.steps), reversed(scales), strict=True):
            made.pop()
            g = found.pop().total()
            step.pull([position.take(made) for position in step.positions], g if by is None else g.times(by), found)
        totals = [cotangent.total() for cotangent in found]
        return [part for total in totals for part in total[:2] if part is not None]


class _Made:
    """A table or a message, of which rows are taken.

    Of a Node all are gathered at once, for one of its ``uses`` after the other, and then halved, and halved again:
    where each use takes another part, the cotangent of each would be as large as the whole.
    """

    def __init__(self, pair: Pair, uses: list[Any] | None):
        self.pair, self.pieces = pair, None if uses is None else _pieces(pair, uses)

    def take(self, rows: Any) -> Pair:
        """Some rows."""
        if self.pieces is not None:
            return next(self.pieces)
        p, x, logs = self.pair
        return Pair(
            None if p is None else p[rows], None if x is None else x[rows], None if logs is None else logs[rows]
        )


class _Selection:
    """Rows of some stacks, one below the other, as a factor of a product of ``shape``, in which the axes of the stacks
    stand at ``axes``."""

    def __init__(
        self,
        members: list[tuple[int, Any]],
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
        self.places: list[Any] = []  # where the rows of each stack stand
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

    def take(self, made: list[_Made]) -> Pair:
        """The factor."""
        parts = [made[stack].take(rows) for stack, rows in self.chosen]
        pair = parts[0]
        if self.places:
            each = [np.zeros(part.length) if part.logs is None else part.logs for part in parts]
            logs = None if all([part.logs is None for part in parts]) else np.concatenate(each)
            p, x = [
                None if c[0] is None else np.concatenate(c) for c in zip(*[part[:2] for part in parts], strict=True)
            ]
            pair = Pair(p, x, logs).rows(self.order)
        if self.turn is not None:
            pair = pair.each(lambda part: np.transpose(part, self.turn))
        return pair if self.dims is None else pair.each(self._fitted)

    def _fitted(self, part: Any) -> Any:
        return np.reshape(part, (part.shape[0], *(self.own if self.dims is None else self.dims)))

    def give(self, found: "list[_Cotangent]", g: Pair) -> None:
        """Add the cotangent of the factor to those of the stacks."""
        g = g.each(self._returned) if self.own else g
        for k, (stack, rows) in enumerate(self.chosen):
            found[stack].add(rows, g.rows(self.places[k]) if self.places else g)

    def _returned(self, g: Any) -> Any:
        if self.dims is not None or g.shape[1:] != self.own:
            g = unbroadcast(g, (g.shape[0], *(self.own if self.dims is None else self.dims)), g.dtype)
            g = np.reshape(g, (g.shape[0], *self.own))
        return g if self.turn is None else np.transpose(g, np.argsort(np.array(self.turn)))

    def give_product(self, found: "list[_Cotangent]", g: Pair, a: Pair, swapped: bool) -> None:
        """Add the product of g, which has no axis of the variable, and a, which has no other."""
        (stack, rows), *others = self.chosen
        if others or self.turn is not None or type(rows) is not slice:
            a = a.each(lambda part: part.reshape(*part.shape, *[1] * (len(self.own) - 1)))
            self.give(found, _swapped(product(g.each(lambda part: part[:, None]), a), swapped))
            return
        pairs = [(g.p, a.p)], [(g.x, a.p), (g.p, a.x)]
        found[stack].wait(rows, *(pairs[::-1] if swapped else pairs))


class _Product:
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
        self.positions = [_Selection(members, axes, shape, lengths, copies) for members, axes, shape in each]

    def message(self, factors: list[Pair]) -> Pair:
        """The message: all entries of it, also where they are equal because they do not depend on a variable."""
        if self.matrix:
            return product(_full(_product(factors[:-1])), _full(factors[-1]), self._across)
        total = summed(_product(factors).each(lambda part: _spread(part, self.shape[:1])), 1)
        return total.each(lambda part: _spread(part, self.shape[1:]))

    def _across(self, a: Any, b: Any) -> Any:
        """sum_v a[row, v] b[row, v, ...]"""
        if len(self.shape) == 2:
            return (a[:, None] @ b)[:, 0]
        return (a[:, None] @ b.reshape(b.shape[0], self.shape[0], -1)).reshape(b.shape[0], *self.shape[1:])

    def _along(self, g: Any, b: Any) -> Any:
        """sum_... g[row, ...] b[row, v, ...]"""
        return (b.reshape(b.shape[0], self.shape[0], -1) @ g.reshape(g.shape[0], -1, 1))[:, :, 0]

    def pull(self, factors: list[Pair], g: Pair, found: "list[_Cotangent]") -> None:
        """Add what the cotangent of the message makes of those of the factors."""
        swapped = any([factor.x is not None for factor in factors])
        g = _swapped(g, swapped)
        if g.p is None:
            g = Pair(np.zeros_like(g.x), g.x, None)
        if self.matrix:
            last = _full(factors.pop())
            self.positions[-1].give_product(found, g, _full(_product(factors)), swapped)
            g = product(g, last, self._along)
        else:
            g = g.each(lambda part: part[:, None])
        for k in range(len(factors)):
            others = factors[:k] + factors[k + 1 :]
            self.positions[k].give(found, _swapped(product(g, _product(others)) if others else g, swapped))


class _Logarithms(_Product):
    """The same step, of logarithms."""

    def message(self, factors: list[Pair]) -> Pair:
        each = [np.reshape(p, (*p.shape, *[1] * (1 + len(self.shape) - p.ndim))) for p, *_ in factors]
        total = _spread(functools.reduce(operator.add, each), self.shape[:1])
        return Pair(_spread(logsumexp(total, axis=1), self.shape[1:]), None)


class _Cotangent:
    """What has come together of the cotangent of a table or a message."""

    def __init__(self, pair: Pair):
        self.pair = pair
        self.parts: list[Any] = [None, None]
        self.waiting: dict[tuple[int, int, int], list[tuple[Any, Any]]] = {}

    def add(self, rows: Any, g: Pair) -> None:
        """Add to some rows."""
        for k, (part, table) in enumerate(zip(g[:2], self.pair, strict=False)):
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

    def wait(self, rows: slice, ps: list[Any], xs: list[Any]) -> None:
        """Add products a_i g_j to the rows, later and all at once."""
        for k, pairs in enumerate((ps, xs)):
            there = [(a, g) for g, a in pairs if g is not None and a is not None]
            if self.pair[k] is not None and there:
                waiting = self.waiting.setdefault((k, rows.start, rows.stop), [])
                waiting += there
                if len(waiting) * (there[0][0].size + there[0][1].size) > _WAITING:
                    self._take((k, rows.start, rows.stop))

    def _take(self, key: tuple[int, int, int]) -> None:
        pairs = self.waiting.pop(key)
        n = len(pairs[0][0])
        a, g = [np.stack([np.reshape(pair[k], (n, -1)) for pair in pairs], axis=1) for k in (0, 1)]
        total = np.reshape(np.swapaxes(a, 1, 2) @ g, (n, *self.pair[key[0]].shape[1:]))
        self.add(slice(*key[1:]), Pair(*[total if k == key[0] else None for k in (0, 1)]))

    def total(self) -> Pair:
        """All of it; zeros where nothing came."""
        for key in list(self.waiting):
            self._take(key)
        tables = zip(self.parts, self.pair, strict=False)
        return Pair(*[np.zeros(table.shape) if p is None and table is not None else p for p, table in tables])


def _values(*parts: Any, run: _Run) -> tuple[Any, ...]:
    """What remains of some tables, one part after the other."""
    left = run.left(run.forward(_flat(parts, run)))
    return _apart([part for pair in left for part in pair if part is not None], run)


def _seeds(g: Sequence[Any], run: _Run) -> list[Any]:
    """Of the cotangents of what remains those that count: the scale is a constant."""
    names = [name for p, x in run.kinds for name, known in zip("pxs", (p, x, run.logs), strict=True) if known]
    return [part for name, part in zip(names, g, strict=True) if name != "s"]


def _slopes(g: Any, out: Any, *parts: Any, run: _Run) -> Any:
    return results(_pulled(*_seeds(g, run), *parts, run=run))


def _backward(*operands: Any, run: _Run) -> tuple[Any, ...]:
    """The cotangents of the tables: of those of what remains, and the tables."""
    count = len(operands) - sum([p + x for p, x, _ in run.layout])
    operands = _flat(operands, run)
    return _apart(run.backward(operands[:count], operands[count:]), run)


def _second(g: Any, out: Any, *operands: Any, run: _Run) -> Any:
    """The cotangents of cotangents: step by step, on Nodes."""
    inside = [parameter(o.raw if type(o) is Node else o) for o in operands]
    seeds = [parameter(part.raw if type(part) is Node else part) for part in g]
    count = len(inside) - sum([p + x for p, x, _ in run.layout])
    flat = _flat(inside, run)
    left = [part for pair in run.left(run.forward(flat[count:], True)) for part in pair[:2] if part is not None]
    slopes = pull(left, flat[:count], inside[count:], True)
    pairs = [(slope, seed) for slope, seed in zip(slopes, seeds, strict=True) if type(slope) is Node]
    found = pull([slope for slope, _ in pairs], [seed for _, seed in pairs], inside, True)
    actual = {a: b for a, b in zip([*inside, *seeds], [*operands, *g], strict=True) if type(b) is Node}
    if not actual:
        return tuple([part.raw if type(part) is Node else part for part in found])
    return tuple([replay(part, actual, create_graph=True) if type(part) is Node else part for part in found])


def _flat(parts: Sequence[Any], run: _Run) -> Any:
    """Tables without the axis of copies, whose rows are one below the other."""
    return parts if run.copies is None else [np.reshape(part, (-1, *part.shape[2:])) for part in parts]


def _apart(parts: Sequence[Any], run: _Run) -> Any:
    return tuple(
        parts if run.copies is None else [np.reshape(part, (run.copies, -1, *part.shape[1:])) for part in parts]
    )


class _Replicates(AxisMap):
    """Everything is mixed; replicates are further copies of all factors."""

    def lead(self, operands: Any, batched: Any, statics: Any) -> Any:
        size = operands[batched.index(True)].shape[0]
        pairs = zip(operands, batched, strict=True)
        run = statics["run"]
        if run.copies is not None:  # of replicates
            return None
        return tuple([o if b else np.broadcast_to(o, (size, *o.shape)) for o, b in pairs]), {"run": run.repeated(size)}


_eliminated = primitive(
    _values,
    _Replicates(),
    every=lambda g, k, out, *parts, run: _slopes(g, out, *parts, run=run)[k],
    together=_slopes,
    name="eliminated",
    steps=False,
)
_pulled = primitive(
    _backward,
    _Replicates(),
    every=lambda g, k, out, *operands, run: _second(g, out, *operands, run=run)[k],
    together=_second,
    name="eliminated_backwards",
    steps=False,
)


def _product(factors: Sequence[Pair]) -> Pair:
    return functools.reduce(product, factors)


def _swapped(pair: Pair, swapped: bool) -> Pair:
    return Pair(pair.x, pair.p, pair.logs) if swapped else pair


def _full(pair: Pair) -> Pair:
    """A pair whose p is there."""
    return pair if pair.p is not None else pair._replace(p=np.ones(pair.x.shape))


def _spread(a: Any, shape: tuple[int, ...]) -> Any:
    """Entries that have the axes of ``shape`` behind that of the rows, also where they do not depend on a variable."""
    full = (a.shape[0], *shape, *a.shape[1 + len(shape) :])
    return a if a.shape == full else np.broadcast_to(a, full)


def _joined(parts: list[Any]) -> Any:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _copied(rows: Any, length: int, copies: int) -> Any:
    """Rows of every copy of a stack of some length."""
    return rows if copies == 1 else (rows + length * np.arange(copies)[:, None]).reshape(-1)


def _as_slice(rows: Any) -> Any:
    """Rows that follow one another as a slice, which copies nothing."""
    first, n = int(rows[0]), len(rows)
    if int(rows[-1]) - first == n - 1 and (n < 3 or (rows[1:] - rows[:-1] == 1).all()):
        return slice(first, first + n)
    return rows


def _pieces(pair: Pair, uses: list[Any]) -> Iterator[Pair]:
    """The rows of a stack for each of its uses in turn."""
    length = pair.length
    if len(uses) == 1 or sum(map(len, uses)) > 2 * length or type(pair.x if pair.p is None else pair.p) is not Node:
        return (_rows(pair, rows) for rows in uses)
    ends = np.cumsum([len(rows) for rows in uses])
    return iter(_halved(_rows(pair, np.concatenate(uses)), ends.tolist(), 0))


def _halved(pair: Pair, ends: list[int], start: int) -> list[Pair]:
    if len(ends) == 1:
        return [pair]
    middle = len(ends) // 2
    cut = ends[middle - 1] - start
    left, right = pair.rows(slice(None, cut)), pair.rows(slice(cut, None))
    return _halved(left, ends[:middle], start) + _halved(right, ends[middle:], start + cut)


def _rows(pair: Pair, rows: Any) -> Pair:
    if len(rows) == pair.length and (rows == np.arange(len(rows))).all():
        return pair
    return pair.rows(rows)
