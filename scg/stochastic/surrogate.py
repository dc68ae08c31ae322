"""The surrogate loss: a node with the value of the cost whose derivatives, of any order, estimate those of its
expectation.

A cost is taken apart through sums, means, differences, layout and constant factors into *terms*. A score-function draw
multiplies exactly the elements of the terms that it can have influenced, by

    box(s) = exp(s - stop_gradient(s)),   s the sum of the log-probabilities of those samples,

which is 1 and whose derivative is that of s (Foerster et al., 2018, "DiCE"). Where one derivative is wanted and no
more, it adds instead a zero with the derivative F ds, F the sample's cost-to-go: the same gradient in fewer passes. An
estimator that looks at the costs elsewhere adds a node that is zero and whose derivative is its estimate; it sees the
costs through ``Downstream``.
"""

import contextvars
import functools
import itertools
import math
import operator
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property

import numpy as np

from scg.core.aliases import Result, Shape
from scg.core.ambient import FORMULA, unplanned
from scg.core.ancestry import ancestors
from scg.core.backward import Reach, estimate, pull
from scg.core.leaves import parameter
from scg.core.node import Node, Value
from scg.core.operands import described
from scg.core.options import is_integer
from scg.distributions.base import Distribution
from scg.errors import EstimatorError, GuardError, ScgTypeError, ScgValueError, here
from scg.primitives.holding import IN_FORMULA
from scg.stochastic.analysis import Analysis, analysed, leading
from scg.stochastic.estimator import Accounted, second_ones
from scg.stochastic.formulas import REFUSAL, box, held, once, plus, score
from scg.stochastic.jumps import refuse_moving_jumps
from scg.stochastic.resampling import resample
from scg.stochastic.sets import meet
from scg.stochastic.sites import Site, place, turn_of
from scg.stochastic.steps import refuse_steps
from scg.stochastic.tape import TAPE, Beside, Program, Tape, Turn
from scg.stochastic.terms import Terms, weighted
from scg.stochastic.ties import Tie, gather, mixed_axes, spread, unpicked

MOST = 2**27
"""Elements of the arrays behind the zeros of a surrogate: they double or more with each sample of a chain whose
estimators look at the cost elsewhere."""

RUNS_AGAIN = (
    "an `if` comes out otherwise at other values of a sample, at which the function would have to run again:"
    " scg.compile(fn, fallback=True) runs it plainly"
)

_INNER: contextvars.ContextVar[bool] = contextvars.ContextVar("scg_inner", default=False)


def surrogate(
    cost: Node, order: int | None = None, floor: int = -1, graph: bool = False, program: Program | None = None
) -> Node:
    """A node of exactly the cost's value, whose gradient is an unbiased estimate of the gradient of its expectation.

    And whose k-th derivative is one of the k-th, for k up to ``order`` (None: for all k, which costs more where several
    nodes look at the cost elsewhere). The cost may have any shape; its elements are added up in the gradient as in any
    reverse mode. Samples with ids under ``floor`` are left alone: nothing that is older than what one differentiates by
    depends on it. With ``order=1`` what estimators compute is held as arrays, which is fast; with ``graph`` as nodes
    all the same, so that the gradient can be recorded and replayed with other samples. ``program`` runs the function of
    the cost again, where an ``if`` comes out otherwise at other values of a sample.

    Raises ScgTypeError or ScgValueError unless the order is None or an integer of at least 1.
    """
    if order is not None and not is_integer(order):
        raise ScgTypeError(
            f"surrogate: order must be None, for derivatives of any order, or an integer of at least 1, got {order!r}"
            f" ({here()})"
        )
    if order is not None and order < 1:
        raise ScgValueError(
            f"surrogate: order must be at least 1, or None for derivatives of any order, got {order} ({here()})"
        )
    if type(cost) is not Node:
        raise ScgTypeError(f"surrogate needs a node as cost, got {described((cost,))}: trace a function ({here()})")
    loss, found = expanded(cost, order, floor, graph, program=program)
    return estimate(cost, loss, *found) if found else loss


def expanded(
    cost: Node,
    order: int | None = None,
    floor: int = -1,
    graph: bool = False,
    known: Reach | None = None,
    program: Program | None = None,
) -> tuple[Node, list[Node]]:
    """What ``surrogate`` differentiates, and the samples that have contributed to it. ``known`` is ``reach([cost],
    floor)`` where the caller has it.

    A cost that has estimates in it is a function of their values, of which each sample has its score; d E[h(e)] =
    E[h'(e) de + h(e) d log p] with de the derivative of the value. In what h is linear, the estimate's own derivative
    is as right, and finer: there its samples contribute nothing more.
    """
    seen = analysed(cost, floor, known, program)
    plain = cost = seen.cost
    refuse_steps(cost, seen.draws, seen.order)
    if not _INNER.get():  # not on behalf of an estimator, which may make of a slope what it likes
        refuse_moving_jumps(cost, seen.order, seen.fixed)
    gone = [node for together in seen.together for node in together]
    for together in seen.together:
        cost = together[0].statics["site"].estimator.condition(cost, together)
    if gone:
        seen = Analysis([cost], leading([cost], floor), floor)
        plain = cost
    if not seen.draws:
        return cost, [*seen.accounted, *gone]
    # zeros, but costs themselves from the second derivative on
    cost = plus(cost, [_shared_out(extra, plain) for _, extra in expansions(seen, order, graph)])
    found = seen.draws
    if order != 1:
        # with those that were made again where an estimator looked elsewhere
        after = Analysis([cost], leading([cost], floor), floor)
        found = after.draws
        if any([node.statics["site"].estimator.scores for node in found]):
            cost = _boxed(after, seen, order)
    return cost, list({node.id: node for node in (*seen.accounted, *gone, *seen.draws, *found)}.values())


def _shared_out(extra: Result, cost: Node) -> Result:
    """A scalar in equal parts for the elements of a cost, over which the derivative of the cost is summed."""
    return extra if cost.ndim == 0 else np.broadcast_to(extra / cost.size, cost.shape)


def expansions(
    seen: Analysis, order: int | None, graph: bool, spent: list[int] | None = None, depth: int = 1
) -> Iterator[tuple[Node, Node]]:
    """What samples add to a cost: (sample, zero with its estimate as derivative), sum_w t_w + sum_{w < v} t_v(t_w) +
    ..., so that products of several count once.

    What was added by ``depth`` estimators one after the other has derivatives from that order on, to which each of them
    contributes one: all must be right to the whole ``order``. ``spent`` counts the numbers in it.
    """
    spent = [0] if spent is None else spent
    for nodes in _apart(seen.looking):
        node, estimator = nodes[0], nodes[0].statics["site"].estimator
        extra = _estimated(nodes, seen, order, graph)
        if extra is None:
            continue
        yield node, extra
        if estimator.second_derivatives and (order is None or order > depth):
            inner = ancestors([extra], node.id + 1, guards=True)
            spent[0] += sum([n.size for n in inner if type(n.raw) is not tuple])
            if spent[0] > MOST:
                raise EstimatorError(
                    f"{node.statics['site']}, drawn at {node.line}: a surrogate right to any order adds a zero for"
                    " each set of samples, one after the other, whose estimators evaluate the cost elsewhere, here"
                    f" with more than {MOST:,} numbers: ask for less, graph.surrogate(order=2), scg.hessian or"
                    f" scg.hvp, or use ScoreFunction() on some of them ({here()})"
                )
            yield from expansions(Analysis([extra], inner, seen.floor), order, graph, spent, depth + 1)


def _apart(looking: list[Node]) -> list[list[Node]]:
    """Samples that are expanded one by one, and before them those whose estimators are joint."""
    joint: dict[type, list[Node]] = {}
    alone = []
    for node in looking:
        estimator = node.statics["site"].estimator
        if estimator.joint:
            joint.setdefault(type(estimator), []).append(node)
        else:
            alone.append([node])
    return [*joint.values(), *alone]


def _estimated(nodes: list[Node], seen: Analysis, order: int | None, graph: bool) -> Node | None:
    """What one sample adds, or several whose estimators are joint."""
    estimator = nodes[0].statics["site"].estimator
    token, formula = REFUSAL.set(_refusal(nodes[0])) if order != 1 else None, IN_FORMULA.set(True)
    replayed = FORMULA.set(graph or order != 1)
    tape = TAPE.set((TAPE.get() or Tape()).within(nodes[0].statics["site"].turn))
    try:
        downs = [Downstream(node, seen.cost, order, graph, seen.terms, seen.program, seen.floor) for node in nodes]
        extra: Node | None = estimator.expand_together(downs) if estimator.joint else estimator.expand(downs[0])
        return extra if extra is None or estimator.second_derivatives else once(extra)
    finally:
        FORMULA.reset(replayed)
        TAPE.reset(tape)
        IN_FORMULA.reset(formula)
        if token is not None:
            REFUSAL.reset(token)


def _refusal(node: Node) -> str:
    """What is to be said where the estimate for a sample is differentiated twice, and cannot be."""
    site = node.statics["site"]
    ways = second_ones(site.distribution)
    use = f"use {ways} on it" if ways else "and no estimator has them for its distribution"
    has = "has none of higher order"
    if site.estimator.second_derivatives is None:
        has = (
            "does not say that its formula may be differentiated twice: where it is made of nodes throughout, and"
            " of box(s) - 1 for a score s, write second_derivatives = True in the class"
        )
    return (
        f"and {type(site.estimator).__name__}() of {site!r}, drawn at {node.line}, {has}; for second derivatives {use}"
    )


def _boxed(after: Analysis, seen: Analysis, order: int | None) -> Node:
    """The cost, every term multiplied by the boxes of the samples that influenced it, and what their baselines add.

    The cost of ``seen`` has not yet the zeros that other estimators added, which may mix what it does not: it is what
    the baselines of its samples look at. Samples that an estimator made again have none: they meet those zeros only,
    from the second derivative on.
    """
    cost, plain, known = after.cost, seen.cost, {node.id for node in seen.draws}
    scoring = [node for node in after.draws if node.statics["site"].estimator.scores]
    terms = Terms(cost, scoring, after.order, together=True)
    scores = {bit: score(site) for site, bit in terms.bits.items()}
    new: dict[int, Result] = {}
    for term, _ in terms.terms:
        shares = [
            spread(s, term.shape, terms.influence.tie(term, bit))
            for bit, s in scores.items()
            if meet(terms.influence.draws[term.id], bit)
        ]
        new[term.id] = box(functools.reduce(operator.add, shares)) * term
    for node, _ in reversed(terms.sums):
        operands = [new.get(o.id, o) if type(o) is Node else o for o in node.operands]
        new[node.id] = node.primitive(*operands, **node.statics)
    total = new.get(cost.id, cost)
    for site, bit in terms.bits.items():
        baseline = site.statics["site"].estimator.baseline
        if baseline is not None and site.id in known and meet(terms.influence.draws.get(cost.id, 0), bit):
            b = held(baseline.value(Downstream(site, plain, order)))
            total = total + _shared_out(np.sum((1 - box(scores[bit])) * b), cost)
    return total


class Downstream:
    """The costs that one sample influences, as its estimator sees them: now, and at other values of the sample.

    A cost-to-go F has the batch shape of the sample (or a shape that broadcasts to it: length one along axes of the
    sample that the costs mix): F[i] is the sum of the elements of the cost that sample element i can have influenced,
    with their weights. What comes back is a node where ``graph``, else an array.

    ``node``, ``site``     the sample, and its declaration: distribution, estimator, sample shape, name
    ``distribution``       of the sample, with its parameters as nodes; ``shape``, its batch shape
    ``cost``               the whole cost
    ``rng``                the generator of the run; ``noise`` draws from it
    ``higher``             whether derivatives after the first are wanted
    ``graph``              whether the estimate is to be made of nodes, so that it can be replayed
    ``inner``              whether this is on behalf of another estimator: then nothing is to be learned from it
    ``influences``         whether any cost depends on the sample; where none does there is nothing to estimate

    ``now()``              F at the sample
    ``at(values)``         F at other values of the whole sample, along a leading axis
    ``one_by_one(values)`` F with one element replaced at a time
    ``sloped(values)``     the terms and their slope at other values
    ``terms_at``, ``total``, ``scored``
                           the terms behind ``at``, their F, and their boxes
    ``with_others(n)``     the sample and n more, independent of it
    ``noise(d)``           a sample of a distribution d of the estimator's own
    ``constant(x)``        x without a derivative
    ``mixed()``, ``mixing()``
                           the axes of the sample whose elements costs mix, and the costs by these axes
    """

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
        # whether this looks at costs on behalf of another estimator: then nothing is to be learned from them
        self.inner = _INNER.get()
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

    def sloped(self, values: Result, parts: Result = None, again: bool = False) -> tuple[list[Result], Result]:
        """The terms at values as in ``at``, and the derivative of their sum by the values, to which samples further
        down contribute by their estimators: at several values they are independent, as one's score may meet the cost
        at another.

        ``parts`` are some of the costs (None: all). With ``again`` both can be differentiated once more, and are Nodes.
        """
        parts, graph = self._parts if parts is None else parts, self.graph or again
        x = values if type(values) is Node else parameter(values)
        found = self._again(parts, x, True, len(x.raw) == 1, slope=True)
        terms: list[Result] = [weighted(v, w) for v, (_, w, _) in zip(found, parts, strict=True)]
        cost = functools.reduce(operator.add, [np.sum(t) for t in terms])
        token = _INNER.set(True)
        try:
            loss, _ = expanded(cost, None if again else 1, x.id, graph)
        finally:
            _INNER.reset(token)
        slope = pull([loss], [np.ones((), cost.dtype)], [x], graph)[0]
        return (terms if graph else [t.raw for t in terms]), slope

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

    def noise(self, distribution: Distribution) -> Value:
        """A sample of a distribution of the estimator's own, of the shape of the distribution: each replicate draws it
        anew. It has no derivative."""
        if not self.graph:
            return distribution.sample(self.rng)
        return place(Site(distribution, Accounted(), self.rng, (), None))

    def constant(self, x: Result) -> Result:
        """``x`` held constant: a node where the estimate is one, else an array."""
        return held(x) if self.graph else getattr(x, "raw", x)

    def with_others(self, count: int) -> Value:
        """The value that was drawn, and ``count`` independent ones after it along a new leading axis."""
        drawn = self.site.shape if self.site.drawn is None else self.site.drawn
        others = place(
            replace(
                self.site,
                estimator=Accounted(),
                drawn=(count, *drawn),
                replicate_axes=self.site.replicate_axes + 1,
                turn=None,
            )
        )
        return np.concatenate([self.node[None], others])

    def one_by_one(self, values: Result) -> Result:
        """F with one element of the sample replaced, the others as drawn: for each alternative along the leading axis
        of ``values``, and each element.

        Elements that no cost mixes are replaced at once; those that a cost mixes, in turn.
        """
        groups: dict[tuple[Shape, Hashable], list[Result]] = {}
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
        values = np.asarray(values, self.node.dtype) if type(values) is not Node else values
        values = np.broadcast_to(values, (values.shape[0], *self.node.shape))
        found = self._again(parts, values, self.graph)
        return found if self.graph else [f.raw if type(f) is Node else f for f in found]

    def _again(
        self, parts: list[Result], values: Result, graph: bool, coupled: bool = True, slope: bool = False
    ) -> list[Result]:
        """The terms of some costs at other values of the sample."""
        terms, coupled, made = [term for term, _, _ in parts], coupled and self._couples, dict[Turn, Result]()
        try:
            found: list[Result] = resample(
                terms, {self.node: values}, [self.node], create_graph=graph, coupled=coupled, made=made
            )
        except GuardError:
            if not self._whole or slope:
                raise
            unplanned(RUNS_AGAIN)
            given: Result = getattr(values, "raw", values)
            each = [{t: v[r] if led else v for t, (v, led) in made.items()} for r in range(len(given))]
            turn = self._turn
            found = [np.stack([self.another({**m, turn: x}, coupled) for m, x in zip(each, given, strict=True)])]
        return [f - self._rest for f in found] if self._whole else found

    @property
    def _turn(self) -> Turn:
        return self.site.turn or ("", 0)  # of none

    def another(self, made: Mapping[Turn, Result], coupled: bool) -> np.ndarray:
        """The cost of a run of its function beside the recorded one, with what was ``made`` for it before an ``if``
        came out otherwise; GuardError where it is not known how to run the function again."""
        nodes = [(t, n) for n in ancestors([self.cost], self._floor, guards=True) if (t := turn_of(n)) is not None]
        recorded = dict(nodes)
        known = recorded.get(self._turn) is self.node and len(recorded) == len(nodes)  # all of one run
        if self._program is None or self.site.replicate_axes or not known:
            raise
        cost = self._program(Beside(made, recorded, self.node, coupled), self.rng)
        return np.asarray(getattr(cost, "raw", cost), self.cost.dtype)


def change(downs: list[Downstream], steps: list[Value]) -> Value:
    """What the whole cost changes by when ``steps`` are added to several samples at once, and each of them and what is
    further down is made again: one evaluation. Summed over all but the replicates."""
    first = downs[0]
    taken = {down.node.id: step for down, step in zip(downs, steps, strict=True) if first.graph or np.any(step)}
    coupled = all([down.site.estimator.coupled for down in downs])
    made: dict[Turn, Result] = {}
    try:
        moved = resample([first.cost], {}, create_graph=first.graph, coupled=coupled, steps=taken, made=made)[0]
    except GuardError:
        unplanned(RUNS_AGAIN)
        one = next((down for down, step in zip(downs, steps, strict=True) if np.any(getattr(step, "raw", step))), first)
        moved = one.another({turn: value for turn, (value, _) in made.items()}, coupled)
    found = moved - first.cost if first.graph else getattr(moved, "raw", moved) - first.cost.raw
    return np.sum(found, axis=tuple(range(first.site.replicate_axes, first.cost.ndim)))


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
