"""The costs that a sample influences, now and at other values of the sample: what estimators compare."""

import contextlib
import contextvars
import functools
import itertools
import math
import operator
import weakref
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from scg.core.aliases import Result, Shape
from scg.core.ambient import unplanned
from scg.core.ancestry import ancestors
from scg.core.leaves import parameter
from scg.core.node import Node, Value, record
from scg.core.operands import frozen
from scg.errors import GuardError, here
from scg.primitives.layout import stop_gradient
from scg.stochastic.alongside import Alongside
from scg.stochastic.formulas import box, score
from scg.stochastic.resampling import resample
from scg.stochastic.sites import Site, turn_of
from scg.stochastic.tape import TAPE, Beside, Program, Tape, Turn, elsewhere
from scg.stochastic.terms import Terms, weighted
from scg.stochastic.ties import Tie, gather, mixed_axes, spread, unpicked

RUNS_AGAIN = (
    "an `if` comes out otherwise at other values of a sample, at which the function would have to run again:"
    " scg.compile(fn, fallback=True) runs it plainly"
)

INNER: contextvars.ContextVar[bool] = contextvars.ContextVar("scg_inner", default=False)
"""Whether costs are looked at on behalf of an estimator."""
First = weakref.WeakKeyDictionary[Any, Any]
"""What learns, and a copy of what it was when replicates first met it."""
_FIRST: contextvars.ContextVar[First | None] = contextvars.ContextVar("scg_first", default=None)


@contextlib.contextmanager
def as_replicates(first: First) -> Iterator[None]:
    """Runs that teach estimators nothing, and are all held against ``first``, to which what they meet is added.

    The ways behind an ``if`` are recorded one after the other, perhaps much later. Were a baseline another number in
    the way that its own sample chose, it would depend on that sample.
    """
    known = _FIRST.get()
    token = _FIRST.set(first if known is None else known)
    try:
        yield
    finally:
        _FIRST.reset(token)


def at_first(learner: Any, copied: Callable[[], Any]) -> Any:
    """In replicates what ``copied`` was when they first met ``learner``; None elsewhere."""
    known = _FIRST.get()
    if known is None:
        return None
    if learner not in known:
        known[learner] = copied()
    return known[learner]


class Costs:
    """The costs of one sample: see ``Downstream``, which is what an estimator has of them."""

    def __init__(
        self,
        node: Node,
        cost: Node,
        order: int | None,
        graph: bool = False,
        terms: Terms | None = None,
        program: Program | None = None,
        floor: int = -1,
    ):
        self._terms, self._program, self._floor = terms or Terms(cost, [node]), program, floor
        # the terms of another way through the function are not known, but what they add up to
        self._whole = order == 1 and cost.ndim == 0 and self._terms.stand_behind_ifs(node)
        self.node, self.cost, self.higher, self.graph = node, cost, order != 1, graph or order != 1
        self.site: Site = node.statics["site"]
        self.distribution, self.rng = self.site.distribution, self.site.rng
        self.inner = INNER.get()
        self.teaches = not self.inner and _FIRST.get() is None
        # a second derivative multiplies costs by the scores of all samples that their terms mix, also of those at other
        # values: their mean is zero where they are independent
        self._couples = order == 1 and self.site.estimator.coupled

    @cached_property
    def _parts(self) -> list[tuple[Node, Value, Tie]]:
        if not self._whole:
            return self._terms.of(self.node, self.graph)
        return [(self.cost, np.ones((), self.cost.dtype), Tie((), (None,) * len(self.shape), self.shape))]

    @cached_property
    def _rest(self) -> Result:
        """The part of the whole cost that does not depend on the sample."""
        cost = self.cost if self.graph else self.cost.raw
        parts = self._terms.of(self.node, self.graph)
        return cost - sum([np.sum(weighted(term if self.graph else term.raw, w)) for term, w, _ in parts])

    @property
    def influences(self) -> bool:
        """Whether any cost depends on the sample."""
        return bool(self._ties)

    @property
    def _ties(self) -> tuple[Tie, ...]:
        return (self._parts[0][2],) if self._whole else self._terms.ties(self.node, self.graph)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """The batch shape of the sample, replicate and sample axes included."""
        return self.node.shape[: self.node.ndim - self.site.event_ndim]

    def now(self) -> Result:
        """F at the value that was drawn."""
        if self._whole:
            return np.reshape((self.cost if self.graph else self.cost.raw) - self._rest, (1,) * len(self.shape))
        return self._terms.total(self.node, self.graph)

    def at(self, values: Result) -> Result:
        """F at other values of the whole sample, given along a leading axis: all elements are replaced at once.

        Samples further down are made again there, from the same randomness where the estimator is ``coupled`` and
        first derivatives alone are wanted: each has its distribution given the values, and may depend on those beside.
        """
        return self.total(self.terms_at(values))

    def mixed(self) -> set[tuple[int, ...]]:
        """The axes of the sample whose elements costs mix: one tuple for all costs that mix the same."""
        return {mixed_axes(tie) for tie in self._ties}

    def mixing(self) -> dict[tuple[int, ...], list[Result]]:
        """The costs, by the axes of the sample whose elements they mix."""
        groups: dict[tuple[int, ...], list[Result]] = {}
        for part in self._parts:
            groups.setdefault(mixed_axes(part[2]), []).append(part)
        return groups

    def terms_at(self, values: Result) -> list[Result]:
        """The terms behind ``at``, with their weights: for ``total`` and ``scored``."""
        return [weighted(v, w) for v, (_, w, _) in zip(self._evaluated(values, self._parts), self._parts, strict=True)]

    def total(self, terms: list[Result], outer: int = 1, parts: Result = None) -> Result:
        """F of the terms at ``outer`` axes of alternatives; with ``parts`` of those of the costs."""
        parts = self._parts if parts is None else parts
        shares = [unpicked(gather(v, tie, outer), tie, outer) for v, (_, _, tie) in zip(terms, parts, strict=True)]
        return functools.reduce(operator.add, shares)

    def scored(self, terms: list[Result], scores: Result) -> Result:
        """sum (box(s) - 1) c over the elements c of the terms, s the log-probabilities (one an alternative and element)
        of what influenced c."""
        total: Result = 0
        for value, (term, _, tie) in zip(terms, self._parts, strict=True):
            total = total + np.sum((box(spread(scores, term.shape, tie, 1)) - 1) * value)
        return total

    def one_by_one(self, values: Result) -> Result:
        """F with one element of the sample replaced, the others as drawn: for each alternative along the leading axis
        of ``values``, and each element.

        Elements that no cost mixes are replaced at once; those that a cost mixes, in turn.
        """
        groups: dict[tuple[Shape, Hashable], list[Result]] = {}
        if self._parts and 0 in self.shape:  # nothing to replace
            return np.zeros((values.shape[0], *self.shape), np.result_type(*[term.dtype for term, *_ in self._parts]))
        for part in self._parts:
            axes = mixed_axes(part[2])
            groups.setdefault((axes, part[2].picks if axes else None), []).append(part)
        total: Result = 0
        for (axes, _), parts in groups.items():
            total = total + (self._in_turn(values, axes, parts) if axes else self._at_once(values, parts))
        return total

    def _at_once(self, values: Result, parts: list[Result]) -> Result:
        total: Result = 0
        for value, (_, weight, tie) in zip(self._evaluated(values, parts), parts, strict=True):
            total = total + unpicked(gather(weighted(value, weight), tie, 1), tie, 1)
        return total

    def _in_turn(self, values: Result, axes: tuple[int, ...], parts: list[Result]) -> Result:
        """F for parts that mix the same elements along the same axes of the sample."""
        shape, event, tie = self.shape, self.node.ndim - len(self.shape), parts[0][2]
        positions = [tie.picks[a] or range(shape[a]) for a in axes]
        lengths, alternatives = [len(p) for p in positions], values.shape[0]
        values = np.broadcast_to(values, (alternatives, *self.node.shape))
        chosen = np.zeros(
            (math.prod(lengths), *[n if a in axes else 1 for a, n in enumerate(shape)], *[1] * event), bool
        )
        for m, index in enumerate(itertools.product(*positions)):
            place = dict(zip(axes, index, strict=True))
            chosen[(m, *[place.get(a, 0) for a in range(len(shape) + event)])] = True
        tried = np.where(chosen, values[:, None], self.node if self.graph else self.node.raw)
        found = self._evaluated(np.reshape(tried, (-1, *self.node.shape)), parts)
        total: Result = 0
        for value, (_, weight, tie) in zip(found, parts, strict=True):
            # (alternatives * positions, batch with ones along axes that are mixed as a whole)
            f = gather(weighted(value, weight), tie, 1)
            f = np.reshape(f, (alternatives, *lengths, *f.shape[1:]))
            for k, a in enumerate(axes):  # the position that was replaced is the position along the mixed axis
                at = 1 + len(axes) - k + a
                if f.shape[at] == 1:
                    f = np.swapaxes(f, 1, at)[:, 0]
                else:  # a part of the axis is tied
                    f = np.moveaxis(np.diagonal(f, axis1=1, axis2=at), -1, at - 1)
            total = total + unpicked(f, tie, 1)
        return total * box(_later(score(self.node), axes, tie.picks)) if self.higher else total

    def _evaluated(self, values: Result, parts: list[Result]) -> list[Result]:
        if type(values) is not Node:
            values = np.asarray(values, self.node.dtype)
            if self.graph and self._whole:  # a node, on which an `if` may look
                values = record(stop_gradient, (frozen(values),), {"own": True}, frozen(values))
        values = np.broadcast_to(values, (values.shape[0], *self.node.shape))
        found = self._again(parts, values, self.graph)
        return found if self.graph else [f.raw if type(f) is Node else f for f in found]

    def _again(
        self, parts: list[Result], values: Result, graph: bool, coupled: bool = True, slope: bool = False
    ) -> list[Result]:
        """The terms of some costs at other values of the sample."""
        terms, coupled, made = [term for term, _, _ in parts], coupled and self._couples, dict[Turn, Result]()
        tape = TAPE.get() or Tape()
        turn = tape.turn("elsewhere")  # what is drawn here has turns of its own, whichever way this goes
        token = TAPE.set(tape.within(turn))
        try:
            if graph and tape.has_alone(turn):
                raise GuardError(f"in another replicate an `if` came out otherwise ({here()})")
            found: list[Result] = resample(
                terms,
                {self.node: values},
                [self.node],
                create_graph=graph,
                coupled=coupled,
                made=made,
                prefix=elsewhere(turn),
            )
        except GuardError:
            if not self._whole or slope:
                raise
            unplanned(RUNS_AGAIN)
            given: Result = values if graph else getattr(values, "raw", values)
            each = [{t: v[r] if led else v for t, (v, led) in made.items()} for r in range(len(given))]
            run = functools.partial(self._alongside, tape=tape, turn=turn) if graph else self._beside
            found = [np.stack([run(m, x, coupled, k) for k, (m, x) in enumerate(zip(each, given, strict=True))])]
        finally:
            TAPE.reset(token)
        return [f - self._rest for f in found] if self._whole else found

    @property
    def _turn(self) -> Turn:
        return self.site.turn or ("", 0)  # of none

    def _beside(self, made: Mapping[Turn, Result], value: np.ndarray, coupled: bool, k: int) -> np.ndarray:
        return self.another({**made, self._turn: value}, coupled)

    def _alongside(
        self, made: Mapping[Turn, Result], value: Node, coupled: bool, k: int, tape: Tape, turn: Turn
    ) -> Node:
        """``another``, of nodes."""
        program, recorded = self._runs_again()
        beside = Alongside(made, recorded, self.node, coupled, value, elsewhere(turn, k), tape.chosen)
        cost = program.run(beside, self.rng)
        program.alone |= beside.alone
        return cost if type(cost) is Node else parameter(np.asarray(cost, self.cost.dtype))

    def another(self, made: Mapping[Turn, Result], coupled: bool) -> np.ndarray:
        """The cost of a run of its function beside the recorded one, with what was ``made`` for it before an ``if``
        came out otherwise; GuardError where it is not known how to run the function again."""
        program, recorded = self._runs_again()
        program.alone |= self.graph
        cost = program.run(Beside(made, recorded, self.node, coupled), self.rng)
        return np.asarray(getattr(cost, "raw", cost), self.cost.dtype)

    def _runs_again(self) -> tuple[Program, dict[Turn, Node]]:
        """How to run the function again, and the random numbers of the recorded run; raises the error that is being
        handled where that is not known."""
        nodes = [(t, n) for n in ancestors([self.cost], self._floor, guards=True) if (t := turn_of(n)) is not None]
        recorded = dict(nodes)
        known = recorded.get(self._turn) is self.node and len(recorded) == len(nodes)  # all of one run
        if self._program is None or self.site.replicate_axes or not known:
            raise
        return self._program, recorded


def change(downs: Sequence[Costs], steps: list[Value]) -> Value:
    """What the whole cost changes by when ``steps`` are added to several samples at once, and each of them and what is
    further down is made again: one evaluation. Summed."""
    first = downs[0]
    taken = {down.node.id: step for down, step in zip(downs, steps, strict=True)}  # what a plan draws, too, is drawn
    coupled = all([down.site.estimator.coupled for down in downs])
    made: dict[Turn, Result] = {}
    try:
        moved = resample([first.cost], {}, create_graph=first.graph, coupled=coupled, steps=taken, made=made)[0]
    except GuardError:
        unplanned(RUNS_AGAIN)
        one = next((down for down, step in zip(downs, steps, strict=True) if np.any(getattr(step, "raw", step))), first)
        moved = one.another({turn: value for turn, (value, _) in made.items()}, coupled)
    found = moved - first.cost if first.graph else getattr(moved, "raw", moved) - first.cost.raw
    return np.sum(found)


def _later(s: Value, axes: tuple[int, ...], picks: Value) -> Value:
    """For every element the sum of ``s`` over those after it along ``axes`` (row-major), of those picked there.

    For elements replaced in turn, p(t) - p(t0) = sum_i prod_{j<i} p_j(t0) (p_i(t) - p_i(t0)) prod_{j>i} p_j(t): the
    earlier ones stay as drawn, and the later ones keep their derivative. It matters from the second derivative on.
    """
    for a in axes:
        if picks[a] is not None:
            s = np.where(np.isin(np.arange(s.shape[a]), picks[a]).reshape(-1, *[1] * (s.ndim - 1 - a)), s, 0)
    order = [*[a for a in range(s.ndim) if a not in axes], *axes]
    moved = np.transpose(s, order)
    flat = np.reshape(moved, (*moved.shape[: s.ndim - len(axes)], -1))
    after = np.sum(flat, axis=-1, keepdims=True) - np.cumsum(flat, axis=-1)
    return np.transpose(np.reshape(after, moved.shape), np.argsort(order))
