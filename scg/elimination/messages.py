"""Running a plan of an elimination: every step multiplies factors F_1 ... F_k and sums over the values of one variable,

    m = sum_v F_1 F_2 ... F_k

and m, a *message*, is a factor of a later step. On arrays the steps run forwards, and backwards for the derivative:
with g the cotangent of m, that of F_i is the sum of g prod_{j != i} F_j over all that F_i does not depend on. (The
backward algorithm of a hidden Markov model is this derivative of its forward algorithm.) So all steps are one node of a
graph, and their derivative is another. What differentiates that again does so step by step, on Nodes.
"""

import math
from collections.abc import Sequence
from copy import copy

import numpy as np

from scg.core.aliases import Operands, Result, Statics
from scg.core.axes import AxisMap, Call
from scg.core.backward import pull
from scg.core.cotangents import results
from scg.core.leaves import parameter
from scg.core.node import Node, Value, value_of
from scg.core.primitive import smooth_primitive
from scg.core.replay import replay
from scg.elimination.factors import Entries, Pair, Stack, scaled
from scg.elimination.products import Plan
from scg.elimination.steps import Cotangent, Logarithms, Made, Product, Selection

_RANGE = 600.0  # of the logarithms of what is multiplied; exp(-600) is above what scaling takes for lost


def eliminate(
    found: Plan,
    stacks: Sequence[Stack],
    logs: bool = False,
    steps: bool = False,
    blocks: bool = False,
    least: float = 0.0,
) -> list[Pair]:
    """The factors that remain, in the order of ``found.left``, each with an axis of rows in front. With ``logs`` what
    is small is scaled up, and its logarithm kept.

    Where a table is a Node so is what remains. With ``steps`` every step is recorded by itself: for a Hessian, many
    rows of which are taken of one graph. With ``blocks`` rows are taken so that it is seen which of them depends on
    which elements of samples (``factors.blocks_of``). With ``least``, arrays of p alone, no entry is smaller than that:
    what remains is an upper bound, whatever became zero by rounding.
    """
    run = _Run(found, stacks, logs)
    parts = [part for stack in stacks for part in (stack.p, stack.x) if part is not None]
    recorded = any([type(part) is Node for part in parts])
    if steps or not recorded:
        return run.left(run.forward(parts, steps and recorded, blocks=blocks, least=least))
    flat = iter(results(_eliminated(*parts, run=run)))
    return [Pair(*[next(flat) if known else None for known in (*kinds, logs)]) for kinds in run.kinds]


def may_lose(found: Plan, stacks: Sequence[Stack]) -> bool:
    """Whether a product of entries of p might become zero beside a larger one, and yet count where others follow: the
    sum of the ranges of logarithms of all factors of a step. That of a message is at most the sum over the factors
    that stand over other variables, too."""
    ranges = []
    for stack in stacks:
        rows = value_of(stack.entries).reshape(len(stack.entries), -1)
        with np.errstate(all="ignore"):
            ranges.append(float(np.max(np.log(np.max(rows, axis=1)) - np.log(np.min(rows, axis=1)), initial=0)))
    for step in found.steps:
        each = [max([ranges[stack] for stack, _ in members]) for members in step.positions]
        if not sum(each) < _RANGE:
            return True
        ranges.append(sum([part for part, axes in zip(each, step.axes, strict=True) if len(axes) > 1]))
    return False


def eliminate_logarithms(found: Plan, stacks: Sequence[Stack], blocks: bool) -> list[Value]:
    """The same of factors of which ``p`` holds the logarithms: Nodes, the logarithms of what remains. Each step is
    recorded by itself, and nothing of it depends on recorded values, so that it may be replayed with any others."""
    run = _Run(found, stacks, False, Logarithms)
    return [pair.entries for pair in run.left(run.forward([stack.entries for stack in stacks], True, blocks=blocks))]


class _Run:
    """A plan, with all that the tables of some stacks decide but their entries; ``kinds`` says of each factor that
    remains whether it has a p, and an x."""

    def __init__(self, found: Plan, stacks: Sequence[Stack], logs: bool, kind: type[Product] | None = None):
        self.plan, self.logs, self.kind = found, logs, kind or Product
        self.layout = [(stack.p is not None, stack.x is not None, stack.logs) for stack in stacks]
        self.lengths = [len(stack.scopes if stack.rows is None else stack.entries) for stack in stacks]
        self._prepare(None)

    def _prepare(self, copies: int | None) -> None:
        """Find the rows of all factors, for tables with an axis of ``copies`` in front."""
        self.copies, self._others = copies, dict[int, _Run]()
        lengths = list(self.lengths)
        flags = [(p, x) for p, x, _ in self.layout]
        self.steps: list[Product] = []
        for step in self.plan.steps:
            self.steps.append(self.kind(step, lengths, copies or 1))
            inside = [flags[members[0][0]] for members in step.positions]
            flags.append((any([p for p, _ in inside]), any([x for _, x in inside])))
            lengths.append(sum([len(rows) for _, rows in step.positions[0]]))
        self.ends = [Selection([(k, rows)], (), (), lengths, copies or 1) for k, rows, _ in self.plan.left]
        self.kinds = [flags[stack] for stack, _, _ in self.plan.left]
        self.messages = [
            ((n * (copies or 1), *step.shape[1:]), *known)
            for n, step, known in zip(lengths[len(self.layout) :], self.steps, flags[len(self.layout) :], strict=True)
        ]

    def repeated(self, copies: int) -> "_Run":
        """The same for tables with an axis of ``copies`` in front."""
        if copies not in self._others:
            other = copy(self)
            other.layout = [(p, x, None if logs is None else np.tile(logs, copies)) for p, x, logs in self.layout]
            other._prepare(copies)
            self._others[copies] = other
        return self._others[copies]

    def forward(
        self,
        parts: Sequence[Value],
        pieces: bool = False,
        scales: list[Entries] | None = None,
        blocks: bool = False,
        least: float = 0.0,
    ) -> list[Made]:
        """The tables and, behind them, the messages; with ``pieces`` for one use of each row after the other. What
        each message was multiplied by goes to ``scales``; without it messages live until their last use."""
        uses, last = self._uses() if pieces else {}, self._last() if scales is None and not pieces else {}
        made = [Made(pair, uses.get(k), blocks) for k, pair in enumerate(self._tables(parts))]
        for k, step in enumerate(self.steps):
            total, by = step.message([position.take(made) for position in step.positions]), None
            if self.logs and total.p is not None:
                total, by = scaled(total)
            if least:
                total = total._replace(p=np.maximum(total.entries, least if by is None else least * np.maximum(by, 1)))
            if scales is not None:
                scales.append(by)
            made.append(Made(total, uses.get(len(made)), blocks))
            for stack in last.get(k, ()):
                made[stack] = Made(Pair(None, None), None)
        return made

    def _uses(self) -> dict[int, list[np.ndarray]]:
        """Of each stack, the rows of each use in turn."""
        found: dict[int, list[np.ndarray]] = {}
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

    def left(self, made: list[Made]) -> list[Pair]:
        """What remains."""
        found = [end.take(made) for end in self.ends]
        if not self.logs:
            return found
        return [pair if pair.logs is not None else pair._replace(logs=np.zeros(pair.length)) for pair in found]

    def tape(self, made: list[Made], scales: list[Entries]) -> Value:
        """All messages, and what they were multiplied by, in one array; behind an axis of copies if there are any."""
        parts = []
        for (shape, p, _), m, by in zip(self.messages, made[len(self.layout) :], scales, strict=True):
            parts += [part for part in m.pair[:2] if part is not None]
            if self.logs and p:
                parts.append(np.ones(shape[0]) if by is None else by)
        count = self.copies or 1
        tape = np.concatenate([np.zeros((count, 0)), *[part.reshape(count, -1) for part in parts]], axis=1)
        return tape.reshape(-1) if self.copies is None else tape

    def _played(self, tape: Value) -> tuple[list[Pair], list[Entries]]:
        """The messages on a tape."""
        count, start = self.copies or 1, 0
        tape = tape.reshape(count, -1)

        def taken(shape: tuple[int, ...]) -> Value:
            nonlocal start
            end = start + math.prod(shape) // count
            part, start = tape[:, start:end], end
            return part.reshape(shape)

        found, scales = [], []
        for shape, p, x in self.messages:
            found.append(Pair(taken(shape) if p else None, taken(shape) if x else None))
            by = taken((shape[0], *[1] * (len(shape) - 1))) if self.logs and p else None
            scales.append(None if by is None or (by == 1).all() else by)
        return found, scales

    def backward(self, seeds: Sequence[Value], tape: Value, parts: Sequence[Value]) -> list[Value]:
        """The cotangents of the tables, for those of what remains."""
        messages, scales = self._played(tape)
        made = [Made(pair, None) for pair in (*self._tables(parts), *messages)]
        found = [Cotangent(m.pair) for m in made]
        each = iter(seeds)
        for end, (p, x) in zip(self.ends, self.kinds, strict=True):
            end.give(found, Pair(next(each) if p else None, next(each) if x else None))
        for step, by in zip(reversed(self.steps), reversed(scales), strict=True):
            made.pop()
            g = found.pop().total()
            step.pull([position.take(made) for position in step.positions], g if by is None else g.times(by), found)
        totals = [cotangent.total() for cotangent in found]
        return [part for total in totals for part in total[:2] if part is not None]

    def _tables(self, parts: Sequence[Value]) -> list[Pair]:
        each = iter(parts)
        return [Pair(next(each) if p else None, next(each) if x else None, logs) for p, x, logs in self.layout]


def _values(*parts: Value, run: _Run) -> tuple[Value, ...]:
    """What remains of some tables, one part after the other, and the tape of all messages."""
    scales: list[Entries] = []
    made = run.forward(_flat(parts, run), scales=scales)
    left = [part for pair in run.left(made) for part in pair if part is not None]
    return (*_apart(left, run), run.tape(made, scales))


def _seeds(g: Sequence[Value], run: _Run) -> list[Value]:
    """Of the cotangents of what remains those that count: the scale is a constant."""
    names = [name for p, x in run.kinds for name, known in zip("pxs", (p, x, run.logs), strict=True) if known]
    return [part for name, part in zip(names, g, strict=False) if name != "s"]


def _slopes(g: Sequence[Value], out: Sequence[Value], *parts: Value, run: _Run) -> Result:
    return results(_pulled(*_seeds(g, run), out[-1], *parts, run=run))


def _backward(*operands: Value, run: _Run) -> tuple[Value, ...]:
    """The cotangents of the tables: of those of what remains, the tape, and the tables."""
    seeds, tape, parts = _split(operands, run)
    return _apart(run.backward(_flat(seeds, run), tape, _flat(parts, run)), run)


def _split(operands: Sequence[Value], run: _Run) -> tuple[Sequence[Value], Value, Sequence[Value]]:
    count = len(operands) - sum([p + x for p, x, _ in run.layout]) - 1
    return operands[:count], operands[count], operands[count + 1 :]


def _second(g: Sequence[Value], out: Result, *operands: Value, run: _Run) -> Result:
    """The cotangents of cotangents: step by step, on Nodes. The tape is a function of the tables."""
    seeds, tape, tables = _split(operands, run)
    known = [*seeds, *tables]
    inside = [parameter(value_of(o)) for o in known]
    weights = [parameter(value_of(part)) for part in g]
    flat, count = _flat(inside, run), len(seeds)
    made = run.left(run.forward(flat[count:], True))
    left: list[Result] = [part for pair in made for part in pair[:2] if part is not None]
    slopes = pull(left, flat[:count], inside[count:], True)
    pairs = [(slope, weight) for slope, weight in zip(slopes, weights, strict=True) if type(slope) is Node]
    found = pull([slope for slope, _ in pairs], [weight for _, weight in pairs], inside, True)
    actual = {a: b for a, b in zip([*inside, *weights], [*known, *g], strict=True) if type(b) is Node}
    nodes = [part for part in found if type(part) is Node]
    values = iter(replay(nodes, actual, create_graph=True) if actual else [node.raw for node in nodes])
    found = [next(values) if type(part) is Node else part for part in found]
    return (*found[:count], np.zeros(tape.shape), *found[count:])


def _flat(parts: Sequence[Value], run: _Run) -> Sequence[Value]:
    """Tables without the axis of copies, whose rows are one below the other."""
    return parts if run.copies is None else [np.reshape(part, (-1, *part.shape[2:])) for part in parts]


def _apart(parts: Sequence[Value], run: _Run) -> tuple[Value, ...]:
    return tuple(
        parts if run.copies is None else [np.reshape(part, (run.copies, -1, *part.shape[1:])) for part in parts]
    )


class _Replicates(AxisMap):
    """Everything is mixed; replicates are further copies of all factors."""

    def lead(self, operands: Operands, batched: Sequence[bool], statics: Statics) -> Call | None:
        size = operands[batched.index(True)].shape[0]
        pairs = zip(operands, batched, strict=True)
        run = statics["run"]
        if run.copies is not None:  # of replicates
            return None
        return tuple([o if b else np.broadcast_to(o, (size, *o.shape)) for o, b in pairs]), {"run": run.repeated(size)}


_eliminated = smooth_primitive(
    _values,
    _Replicates(),
    every=lambda g, k, out, *parts, run: _slopes(g, out, *parts, run=run)[k],
    together=_slopes,
    name="eliminated",
    steps=False,
)
_pulled = smooth_primitive(
    _backward,
    _Replicates(),
    every=lambda g, k, out, *operands, run: _second(g, out, *operands, run=run)[k],
    together=_second,
    name="eliminated_backwards",
    steps=False,
)
