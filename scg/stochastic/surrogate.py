"""The surrogate loss: a node with the value of the cost whose derivatives, of any order, estimate those of its
expectation.

A cost is taken apart through sums, means, differences, layout and constant factors into *terms*. A score-function draw
multiplies exactly the elements of the terms that it can have influenced, by

    box(s) = exp(s - stop_gradient(s)),   s the sum of the log-probabilities of those draws,

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
from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from scg.core.aliases import Result
from scg.core.ambient import RECORDER
from scg.core.axes import elementwise
from scg.core.backward import estimate, estimates, is_estimate, pull
from scg.core.node import Node, Value, ancestors, parameter
from scg.core.operands import described
from scg.core.options import is_integer
from scg.core.primitive import primitive
from scg.errors import EstimatorError, NotDifferentiable, ScgTypeError, ScgValueError, here
from scg.primitives import layout
from scg.stochastic.dependence import Influence, accounts, is_accounted
from scg.stochastic.estimates import settled
from scg.stochastic.estimator import Accounted, Estimator, by_values
from scg.stochastic.jumps import refuse_moving_jumps
from scg.stochastic.sets import meet, union
from scg.stochastic.sites import Site, is_draw, place, resample
from scg.stochastic.terms import Terms, summands, weighted
from scg.stochastic.ties import Tie, gather, mixed_axes, spread, unpicked

box = primitive(lambda s: np.ones_like(s), elementwise, lambda g, out, s: g * out, name="box", constant=True)
"""exp(s - stop_gradient(s)): one, with the derivative of s, and so on for its derivatives."""

MOST = 2**27
"""Elements of the arrays behind the zeros of a surrogate: they double or more with each sample of a chain whose
estimators look at the cost elsewhere."""

_INNER: contextvars.ContextVar[bool] = contextvars.ContextVar("scg_inner", default=False)


def surrogate(cost: Node, order: int | None = None, floor: int = -1, graph: bool = False) -> Node:
    """A node of exactly the cost's value, whose gradient is an unbiased estimate of the gradient of its expectation.

    And whose k-th derivative is one of the k-th, for k up to ``order`` (None: for all k, which costs more where several
    nodes look at the cost elsewhere). The cost may have any shape; its elements are added up in the gradient as in any
    reverse mode. Samples with ids under ``floor`` are left alone: nothing that is older than what one differentiates by
    depends on it. With ``order=1`` what estimators compute is held as arrays, which is fast; with ``graph`` as nodes
    all the same, so that the gradient can be recorded and replayed with other samples.

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
    loss, found = expanded(cost, order, floor, graph)
    return estimate(cost, loss, *found) if found else loss


def expanded(cost: Node, order: int | None = None, floor: int = -1, graph: bool = False) -> tuple[Node, list[Node]]:
    """What ``surrogate`` differentiates, and the samples that have contributed to it.

    A cost that has estimates in it is a function of their values, of which each sample has its score; d E[h(e)] =
    E[h'(e) de + h(e) d log p] with de the derivative of the value. In what h is linear, the estimate's own derivative
    is as right, and finer: there its samples contribute nothing more.
    """
    nodes = leading([cost], floor)
    if estimates(nodes):
        cost = settled(cost, nodes)
        nodes = leading([cost], floor)
    found = _among(nodes, [cost])
    before = [site for node in nodes if node.primitive.same and is_accounted(node) for site in accounts(node)]
    refuse_steps(cost, found, nodes)
    if not _INNER.get():  # not on behalf of an estimator, which may make of a slope what it likes
        refuse_moving_jumps(cost, nodes, _fixed(nodes) if RECORDER.get() is not None else ())
    if not found:
        return cost, before
    extras = [
        e if cost.ndim == 0 else np.broadcast_to(e / cost.size, cost.shape)
        for e in expansions(cost, found, nodes, order, graph, [0])
    ]
    plain = cost
    for extra in extras:  # zeros, but costs themselves from the second derivative on
        cost = cost + extra
    # with those that were made again where an estimator looked elsewhere
    everything = found if order == 1 else draws([cost], floor)
    scoring = [node for node in everything if node.statics["site"].estimator.scores]
    if scoring and order != 1:
        cost = _boxed(cost, scoring, order, plain, {node.id for node in found})
    return cost, list({node.id: node for node in (*before, *found, *everything)}.values())


def leading(roots: list[Node], floor: int = -1) -> list[Node]:
    """``ancestors`` with those that an ``if`` looked at, without what an estimate has beside its value."""
    nodes = ancestors(roots, floor, guards=True)
    if not estimates(nodes):
        return nodes
    wanted, passed = {root.id for root in roots}, set[int]()
    for node in reversed(nodes):
        if node.id in wanted:
            operands = node.operands[:1] if is_estimate(node) else node.operands
            wanted.update([o.id for o in operands if type(o) is Node])
            if node.guard is not None:
                wanted.update([guard.node.id for guard in node.guard.unseen(passed)])
    return [node for node in nodes if node.id in wanted]


def draws(costs: list[Node], floor: int = -1) -> list[Node]:
    """The stochastic nodes that lead to some costs and have parameters to differentiate by, oldest first."""
    return _among(leading(costs, floor), costs)


def _among(order: list[Node], costs: list[Node]) -> list[Node]:
    found = [node for node in order if node.statics and "site" in node.statics]
    fixed = _fixed(order) if found and RECORDER.get() is not None else ()
    found = [
        n
        for n in found
        if any(type(p) is Node and p.id not in fixed for p in n.statics["site"].distribution.parameters.values())
    ]
    # those that a cost still depends on
    if found and any([is_accounted(node) or is_estimate(node) for node in order if node.primitive.same]):
        influence = Influence([(n, n.statics["site"].event_ndim) for n in found], order)
        seen = functools.reduce(
            union, [known.get(c.id, 0) for c in costs for known in (influence.draws, influence.chosen)]
        )
        found = [n for n in found if meet(seen, influence.bits[n.id])]
    return found


def held(x: Result) -> Result:
    """``x`` as a constant of an estimator's formula. It has no derivative there; where the estimate is itself a value
    in a cost, it has."""
    return layout.stop_gradient(x, own=True)


def _fixed(order: list[Node]) -> set[int]:
    """By id, while a function is recorded for a plan: what is made of arguments alone that nobody differentiates by,
    and would be an array in a plain call.

    An estimator that drew for such a distribution would move the generator on, as the plain call does not.
    """
    fixed: set[int] = set()
    recorder = RECORDER.get()
    for node in ancestors(order):  # those too that are older than what is differentiated here
        moving = [o for o in node.operands if type(o) is Node]
        made = (
            moving and not layout.is_alias(node) and "site" not in node.statics and all([o.id in fixed for o in moving])
        )
        if made or not moving and recorder.is_leaf(node):
            fixed.add(node.id)
    return fixed


def refuse_steps(cost: Node, found: list[Node], order: list[Node]) -> None:
    """Raise EstimatorError where a term of the cost depends on samples whose estimator differentiates it (pathwise,
    REBAR) through steps alone: its derivative is zero, that of its mean is not."""
    estimators = {node: node.statics["site"].estimator for node in found}
    paths = [
        node
        for node in found
        if type(estimators[node]).draw is not Estimator.draw
        and estimators[node].unbiased
        or estimators[node].continuous
    ]
    if not paths:
        return
    # by id, of what depends on them: one of them
    relaxed = {node.id: node for node in paths if estimators[node].continuous}
    for node in order if relaxed else ():
        source = next((relaxed[o.id] for o in node.operands if type(o) is Node and o.id in relaxed), None)
        if source is not None and node.primitive.holds and not node.statics.get("own"):
            raise EstimatorError(
                f"{source.statics['site']}: an estimator that differentiates a relaxed cost needs all of its slope, and"
                f" stop_gradient, at {node.line}, holds a part of it back, so that its control variate would not vanish"
                f" in the mean: use ScoreFunction(), ARM() or DisARM() ({here()})"
            )
        if source is not None:
            relaxed[node.id] = source
    # by id, of what depends on them: whether it moves with them, or only jumps
    moves = {node.id: True for node in paths}
    for node in order:
        if node.id in moves or node.primitive.holds:
            continue
        known = [moves[o.id] for o in node.operands if type(o) is Node and o.id in moves]
        if known:
            smooth = (
                is_draw(node) or node.primitive.differentiable and (type(node.raw) is tuple or node.dtype.kind in "fc")
            )
            moves[node.id] = smooth and any(known)
    region = {cost.id}
    for node in reversed(order):
        if node.id in region and node.id in moves:
            region.update(node.operands[k].id for k in summands(node, moves.keys()))
            if not moves[node.id] and not summands(node, moves.keys()):
                labels = ", ".join(repr(p.statics["site"]) for p in paths if p.id < node.id)
                raise EstimatorError(
                    f"{labels}: an estimator that differentiates the cost needs one that is continuous in the draw, and"
                    f" {node!r}, made at {node.line}, depends on it only through steps, of which the derivative is"
                    f" zero: use {by_values(paths[0].statics['site'].distribution)} on this node ({here()})"
                )


def expansions(
    cost: Node, found: list[Node], nodes: list[Node], order: int | None, graph: bool, spent: list[int], depth: int = 1
) -> Iterable[Node]:
    """What samples add: zeros with their estimates as derivatives, sum_w t_w + sum_{w < v} t_v(t_w) + ..., so that
    products of several count once.

    ``found`` are the samples that lead to the cost, ``nodes`` all that leads to it. What was added by ``depth``
    estimators one after the other has derivatives from that order on, to which each of them contributes one: all must
    be right to the whole ``order``.
    """
    looking = [node for node in found if type(node.statics["site"].estimator).expand is not Estimator.expand]
    terms = Terms(cost, looking, nodes) if looking else None
    for node in looking:
        extra = node.statics["site"].estimator.expand(Downstream(node, cost, order, graph, terms))
        if extra is not None:
            yield extra
            if order is None or order > depth:
                inner = ancestors([extra], node.id + 1, guards=True)
                spent[0] += sum([n.size for n in inner if type(n.raw) is not tuple])
                if spent[0] > MOST:
                    raise EstimatorError(
                        f"{node.statics['site']}, drawn at {node.line}: a surrogate right to any order adds a zero for"
                        " each set of draws, one after the other, whose estimators evaluate the cost elsewhere, here"
                        f" with more than {MOST:,} numbers: ask for less, graph.surrogate(order=2), scg.hessian or"
                        f" scg.hvp, or use ScoreFunction() on some of them ({here()})"
                    )
                yield from expansions(extra, _among(inner, [extra]), inner, order, graph, spent, depth + 1)


def _boxed(cost: Node, sites: list[Node], order: int | None, plain: Node, found: set[int]) -> Node:
    """The cost, every term multiplied by the boxes of the samples that influenced it, and what their baselines add.

    ``plain`` is the cost without the zeros that other estimators added, which may mix what it does not: it is what the
    baselines of the samples ``found``, that lead to it, look at. Samples that an estimator made again have none: they
    meet those zeros only, from the second derivative on.
    """
    terms = Terms(cost, sites, together=True)
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
        if baseline is not None and site.id in found and meet(terms.influence.draws.get(cost.id, 0), bit):
            b = held(baseline.value(Downstream(site, plain, order)))
            extra = np.sum((1 - box(scores[bit])) * b)
            total = total + (extra if cost.ndim == 0 else np.broadcast_to(extra / cost.size, cost.shape))
    return total


class Downstream:
    """The costs that one sample influences, as its estimator sees them: now, and at other values of the sample.

    A cost-to-go F has the batch shape of the sample (or a shape that broadcasts to it: length one along axes of the
    sample that the costs mix): F[i] is the sum of the elements of the cost that sample element i can have influenced,
    with their weights. Nodes where ``graph``, else arrays; ``higher`` tells whether derivatives after the first are
    wanted.
    """

    def __init__(self, node: Node, cost: Node, order: int | None, graph: bool = False, terms: Terms | None = None):
        self._terms = terms or Terms(cost, [node])
        self.node, self.cost, self.higher, self.graph = node, cost, order != 1, graph or order != 1
        self.site: Site = node.statics["site"]
        self.distribution, self.rng = self.site.distribution, self.site.rng
        # whether this looks at costs on behalf of another estimator: then nothing is to be learned from them
        self.inner = _INNER.get()

    @cached_property
    def _parts(self) -> list[tuple[Node, Value, Tie]]:
        return self._terms.of(self.node, self.graph)

    @property
    def influences(self) -> bool:
        """Whether any cost depends on the sample."""
        return bool(self._ties)

    @cached_property
    def _ties(self) -> tuple[Tie, ...]:
        return self._terms.ties(self.node, self.graph)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """The batch shape of the sample, replicate and sample axes included."""
        return self.node.shape[: self.node.ndim - self.site.event_ndim]

    def now(self) -> Result:
        """F at the value that was drawn."""
        return self._terms.total(self.node, self.graph)

    def at(self, values: Result) -> Result:
        """F at other values of the whole sample, given along a leading axis: all elements are replaced at once. Draws
        further down are drawn anew."""
        return self.total(self.terms_at(values))

    def sloped(self, values: Result, parts: Result = None, again: bool = False) -> tuple[list[Result], Result]:
        """The terms at values as in ``at``, and the derivative of their sum by the values, to which samples further
        down contribute by their estimators.

        ``parts`` are some of the costs (None: all). With ``again`` both can be differentiated once more, and are Nodes.
        """
        parts, graph = self._parts if parts is None else parts, self.graph or again
        x = values if type(values) is Node else parameter(values)
        found = resample([term for term, _, _ in parts], {self.node: x}, [self.node], create_graph=True)
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

    def with_others(self, count: int) -> Value:
        """The value that was drawn, and ``count`` independent ones after it along a new leading axis."""
        drawn = self.site.shape if self.site.drawn is None else self.site.drawn
        others = place(
            replace(
                self.site, estimator=Accounted(), drawn=(count, *drawn), replicate_axes=self.site.replicate_axes + 1
            )
        )
        return np.concatenate([self.node[None], others])

    def one_by_one(self, values: Result) -> Result:
        """F with one element of the sample replaced, the others as drawn: for each alternative along the leading axis
        of ``values``, and each element.

        Elements that no cost mixes are replaced at once; those that a cost mixes, in turn.
        """
        groups: dict[Any, list[Result]] = {}
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
        found = resample([term for term, _, _ in parts], {self.node: values}, [self.node], create_graph=self.graph)
        return found if self.graph else [f.raw if type(f) is Node else f for f in found]


def score(node: Node) -> Value:
    """The log-probability of a sample under its distribution, as a node: of the sample's batch shape."""
    return node.statics["site"].distribution.log_prob(node)


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


first_order: Any = primitive(
    lambda x, g: np.zeros(np.broadcast_shapes(np.shape(x), np.shape(g)), x.dtype),
    elementwise,
    lambda h, out, x, g: only_once(h * g, x),
    None,
    name="first_order",
    constant=True,
)
"""Zero, with the derivative g, which is an estimate that has no derivative of its own."""


def _refuse_twice(g: Value, out: Value, estimate: Value, x: Value) -> Value:
    raise NotDifferentiable(
        "an estimate of a first derivative was differentiated again, and this estimator has none of higher order: "
        f"use ScoreFunction(), Enumerate() or Reparameterized() on this node for second derivatives ({here()})"
    )


def as_broadcast(x: Value, other: Value) -> Value:
    """x in the shape to which both broadcast: either may have a replicate axis that the other has not."""
    shape = np.broadcast_shapes(np.shape(x), np.shape(other))
    return x if np.shape(x) == shape else np.broadcast_to(x, shape)


def is_only_once(node: Node) -> bool:
    """Whether a node is an estimate of a first derivative that has none of its own."""
    return node.primitive is only_once


only_once: Any = primitive(as_broadcast, elementwise, _refuse_twice, _refuse_twice, name="only_once", same=True)
