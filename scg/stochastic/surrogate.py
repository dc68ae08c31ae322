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

import functools
import operator
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from scg.core.aliases import Result
from scg.core.ambient import FORMULA
from scg.core.ancestry import ancestors
from scg.core.backward import Reach, estimate, pull
from scg.core.leaves import parameter
from scg.core.node import Node, Value
from scg.core.operands import described
from scg.core.options import is_integer
from scg.distributions.base import Distribution
from scg.errors import EstimatorError, ScgTypeError, ScgValueError, here
from scg.primitives.holding import IN_FORMULA
from scg.stochastic.analysis import Analysis, analysed, leading
from scg.stochastic.costs import INNER, Costs
from scg.stochastic.dependence import influence
from scg.stochastic.estimator import Accounted, refuse_bends, second_ones
from scg.stochastic.formulas import REFUSAL, box, held, once, plus, score
from scg.stochastic.jumps import refuse_moving_jumps
from scg.stochastic.sets import meet
from scg.stochastic.sites import Site, is_stochastic, place
from scg.stochastic.steps import refuse_steps
from scg.stochastic.tape import TAPE, Program, Tape
from scg.stochastic.terms import Terms, weighted
from scg.stochastic.ties import spread

MOST = 2**27
"""Elements of the arrays behind the zeros of a surrogate: they double or more with each sample of a chain whose
estimators look at the cost elsewhere."""


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
    if not INNER.get():  # not on behalf of an estimator, which may make of a slope what it likes
        refuse_moving_jumps(cost, seen.order, seen.fixed)
    if order != 1:
        refuse_bends(seen.draws)
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
    """Samples that are expanded one by one, and before them those whose estimators are joint; of those that another
    estimator has made again in replicates each alone, for a replicate's change is of its own cost."""
    joint: dict[type, list[Node]] = {}
    alone = []
    for node in looking:
        estimator = node.statics["site"].estimator
        if estimator.joint and not node.statics["site"].replicate_axes:
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
        together = estimator.joint and not downs[0].site.replicate_axes
        extra: Result = estimator.expand_together(downs) if together else estimator.expand(downs[0])
        if extra is None:
            return None
        if type(extra) is not Node or extra.ndim:
            raise EstimatorError(
                f"{nodes[0].statics['site']}: expand of {type(estimator).__name__} must return None, or a scalar node"
                f" that is zero and has the estimate as its derivative, got {described((extra,))}: write"
                " np.sum(first_order(score(down.node), down.now())), or np.sum((p - scg.stop_gradient(p)) * f)"
                f" ({here()})"
            )
        if np.any(extra.raw):
            extra = extra - held(extra)
        return extra if estimator.second_derivatives else once(extra)
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


class Downstream(Costs):
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
    ``inner``              whether this is on behalf of another estimator
    ``teaches``            whether there is something to learn from it: not where it is ``inner``, nor in replicates
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

    def sloped(self, values: Result, parts: Result = None, again: bool = False) -> tuple[list[Result], Result]:
        """The terms at values as in ``at``, and the derivative of their sum by the values, to which samples further
        down contribute by their estimators, each at the costs of its own value.

        ``parts`` are some of the costs (None: all). With ``again`` both can be differentiated once more, and are Nodes.
        """
        parts, graph = self._parts if parts is None else parts, self.graph or again
        x = values if type(values) is Node else parameter(values)
        # a second derivative would multiply the cost at a value by scores at another, and so would a first one where
        # values are not told apart: the mean of a score is zero where they are independent
        found = self._again(parts, x, True, not again, slope=True)
        if self._couples and not again and len(x.raw) > 1 and not _are_apart(x, found):
            found = self._again(parts, x, True, False, slope=True)
        terms: list[Result] = [weighted(v, w) for v, (_, w, _) in zip(found, parts, strict=True)]
        cost = functools.reduce(operator.add, [np.sum(t) for t in terms])
        token = INNER.set(True)
        try:
            loss, _ = expanded(cost, None if again else 1, x.id, graph)
        finally:
            INNER.reset(token)
        slope = pull([loss], [np.ones((), cost.dtype)], [x], graph)[0]
        return (terms if graph else [t.raw for t in terms]), slope

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


def _are_apart(x: Node, terms: list[Result]) -> bool:
    """Whether each element of some terms along their first axis depends on one along that of ``x``; true as well where
    no sample lies between."""
    found = [term for term in terms if type(term) is Node]
    order = ancestors(found, x.id)
    if not any(map(is_stochastic, order)):
        return True
    ties, length = influence(x, x.ndim - 1, order), len(x.raw)
    return all([t.id not in ties or ties[t.id].axes[:1] == ((((0, 1, length), length),),) for t in found])
