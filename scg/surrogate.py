"""The surrogate loss: a node with the value of the cost whose derivatives, of any order, estimate those of its expectation.

A cost is taken apart through sums, means, differences, layout and constant factors into *terms*. A score-function draw multiplies exactly
the elements of the terms that it can have influenced, by

    box(s) = exp(s - stop_gradient(s)),   s the sum of the log-probabilities of those draws,

which is 1 and whose derivative is that of s (Foerster et al., 2018, "DiCE"). A rule that looks at the costs elsewhere adds a node that is zero
and whose derivative is its estimate; it sees the costs through ``Downstream``.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from scg.axes import elementwise
from scg.errors import NotDifferentiable, here
from scg.estimator import Accounted, Estimator
from scg.graph import RULES, Node, ancestors, primitive
from scg.influence import Labels, influence
from scg.primitives import indexing, layout, reduction
from scg.sample import Site, is_stochastic, place, resample

box = primitive(lambda s: np.ones_like(s), elementwise, lambda g, out, s: g * out, name="box")
"""exp(s - stop_gradient(s)): one, with the derivative of s, and so on for its derivatives."""


def surrogate(cost: Node, order: int | None = None) -> Node:
    """A node of exactly the cost's value, whose gradient is an unbiased estimate of the gradient of its expectation.

    And whose k-th derivative is one of the k-th, for k up to ``order`` (None: for all k, which costs more where several nodes look at the cost
    elsewhere). The cost may have any shape; its elements are added up in the gradient as in any reverse mode.
    """
    extras = [extra if cost.ndim == 0 else np.broadcast_to(extra / cost.size, cost.shape) for extra in _expansions(cost, -1, order)]
    if order != 1:  # the extras are costs themselves, which score-function draws influence
        for extra in extras:
            cost = cost + extra
    scoring = [node for node in draws([cost]) if node.statics["site"].estimator.scores]
    if scoring:
        cost = Terms(cost, scoring).boxed(order)
    if order == 1:
        for extra in extras:
            cost = cost + extra
    return cost


def draws(costs: list[Node]) -> list[Node]:
    """The stochastic nodes that lead to some costs and have parameters to differentiate by, oldest first."""
    found = [node for node in ancestors(costs, guards=True) if is_stochastic(node)]
    return [node for node in found if any(type(p) is Node for p in node.statics["site"].distribution.parameters.values())]


def _expansions(cost: Node, after: int, order: int | None) -> Iterable[Node]:
    """Zeros with the derivatives that nodes contribute by looking elsewhere: sum_w t_w + sum_{w < v} t_v(t_w) + ..., so that products count once."""
    for node in draws([cost]):
        if node.id > after and type(node.statics["site"].estimator).expand is not Estimator.expand:
            extra = node.statics["site"].estimator.expand(Downstream(node, cost, order))
            if extra is not None:
                yield extra
                if order is None or order > 1:
                    yield from _expansions(extra, node.id, None if order is None else order - 1)


class Terms:
    """A cost taken apart: its terms, and which elements of them each of some draws influences."""

    def __init__(self, cost: Node, sites: list[Node]):
        self.cost, self.sites = cost, sites
        order = ancestors([cost], guards=True)
        self.labels: dict[int, dict[int, Labels]] = {s.id: influence(s, s.statics["site"].event_ndim, order) for s in sites}
        dependent = set().union(*self.labels.values()) if sites else set()
        self.terms: list[Node] = []
        self.sums: list[tuple[Node, list[int]]] = []
        region = {cost.id}
        for node in reversed(order):
            if node.id in region:
                inner = _summands(node, dependent)
                if inner:
                    self.sums.append((node, inner))
                    region.update(node.operands[k].id for k in inner)
                elif node.id in dependent or node is cost:
                    self.terms.append(node)

    def boxed(self, order: int | None) -> Node:
        """The cost, every term multiplied by the boxes of the draws that influenced it."""
        scores = {s.id: score(s) for s in self.sites}
        new: dict[int, Any] = {}
        extra: Any = None
        for term in self.terms:
            influencing = [s for s in self.sites if term.id in self.labels[s.id]]
            if influencing:
                s: Any = None
                for site in influencing:
                    share = tie(scores[site.id], term.shape, self.labels[site.id][term.id])
                    s = share if s is None else s + share
                new[term.id] = box(s) * term
        for node, _ in reversed(self.sums):
            operands = [new.get(o.id, o) if type(o) is Node else o for o in node.operands]
            new[node.id] = node.primitive(*operands, **node.statics)
        total = new.get(self.cost.id, self.cost)
        for site in self.sites:
            baseline = getattr(site.statics["site"].estimator, "baseline", None)
            if baseline is not None and any(t.id in self.labels[site.id] for t in self.terms):
                b = layout.stop_gradient(baseline.value(Downstream(site, self.cost, order)))
                extra = ((1 - box(scores[site.id])) * b).sum()
                total = total + (extra if total.ndim == 0 else np.broadcast_to(extra, total.shape) / total.size)
        return total

    def weights(self, graph: bool) -> dict[int, Any]:
        """d cost / d term through the sums alone, where each is constant; Nodes where it depends on parameters and ``graph``."""
        seeds: dict[int, Any] = {self.cost.id: np.ones(self.cost.shape, self.cost.dtype)}
        for node, inner in self.sums:
            g = seeds.pop(node.id)
            arguments = [o if graph or type(o) is not Node else o._value for o in node.operands]
            for k in inner:
                rule, operand = node.primitive, node.operands[k]
                out = node if graph else node._value
                d = rule.vjps[k](g, out, *arguments, **node.statics) if rule.vjps else rule.every(g, k, out, *arguments, **node.statics)
                d = _shaped(d, operand)
                seeds[operand.id] = seeds[operand.id] + d if operand.id in seeds else d
        return seeds


class Downstream:
    """The costs that one draw influences, as its estimator sees them: now, and at other values of the draw.

    A cost-to-go F has the batch shape of the draw (or a shape that broadcasts to it: length one along axes of the draw that the costs mix): F[i] is
    the sum of the elements of the cost that draw element i can have influenced, with their weights. Arrays where only a first derivative is wanted
    (``graph`` is False), else Nodes.
    """

    def __init__(self, node: Node, cost: Node, order: int | None):
        self.node, self.cost, self.graph = node, cost, order != 1
        self.site: Site = node.statics["site"]
        self.distribution, self.rng = self.site.distribution, self.site.rng

    @cached_property
    def _terms(self) -> Terms:
        return Terms(self.cost, [self.node])

    @cached_property
    def _parts(self) -> list[tuple[Node, Any, Labels]]:
        terms, labels = self._terms, self._terms.labels[self.node.id]
        weights = terms.weights(self.graph)
        return [(t, weights[t.id], labels[t.id]) for t in terms.terms if t.id in labels]

    @property
    def influences(self) -> bool:
        """Whether any cost depends on the draw."""
        return bool(self._parts)

    @property
    def shape(self) -> tuple[int, ...]:
        """The batch shape of the draw, replicate and sample axes included."""
        return self.node.shape[: self.node.ndim - self.site.event_ndim]

    def now(self) -> Any:
        """F at the value that was drawn."""
        return self._added([t if self.graph else t._value for t, _, _ in self._parts], 0)

    def at(self, values: Any) -> Any:
        """F at other values of the whole draw, given along a leading axis: all elements are replaced at once. Draws further down are drawn anew."""
        return self._added(self._terms_at(values, [t for t, _, _ in self._parts]), 1)

    def with_others(self, count: int) -> Any:
        """The value that was drawn, and ``count`` independent ones after it along a new leading axis."""
        drawn = self.site.shape if self.site.drawn is None else self.site.drawn
        others = place(replace(self.site, estimator=Accounted(), drawn=(count, *drawn), lead=self.site.lead + 1))
        return np.concatenate([self.node[None], others])

    def one_by_one(self, values: Any) -> Any:
        """F with one element of the draw replaced, the others as drawn: for each alternative along the leading axis of ``values``, and each element.

        Elements that no cost mixes are replaced at once; those that a cost mixes, in turn.
        """
        whole = [p for p in self._parts if not self._mixed_axes(p[2])]
        total = 0
        if whole:
            total = self._added(self._terms_at(values, [t for t, _, _ in whole]), 1, whole)
        groups: dict[tuple[int, ...], list[Any]] = {}
        for part in self._parts:
            axes = self._mixed_axes(part[2])
            if axes:
                groups.setdefault(axes, []).append(part)
        for axes, parts in groups.items():
            total = total + self._in_turn(values, axes, parts)
        return total

    def _in_turn(self, values: Any, axes: tuple[int, ...], parts: list[Any]) -> Any:
        shape, event = self.shape, self.node.ndim - len(self.shape)
        lengths = [shape[a] for a in axes]
        count, alternatives = math.prod(lengths), values.shape[0]
        values = np.broadcast_to(values, (alternatives, *self.node.shape))
        chosen = np.zeros((count, *[shape[a] if a in axes else 1 for a in range(len(shape))], *[1] * event), bool)
        for m, index in enumerate(np.ndindex(*lengths)):
            place: list[Any] = [0] * (len(shape) + event)
            for a, i in zip(axes, index, strict=True):
                place[a] = i
            chosen[(m, *place)] = True
        tried = np.where(chosen, values[:, None], self.node if self.graph else self.node._value)
        found = self._terms_at(np.reshape(tried, (alternatives * count, *self.node.shape)), [t for t, _, _ in parts])
        f = self._added(found, 1, parts)  # (alternatives * count, batch shape with ones along ``axes``)
        f = np.reshape(f, (alternatives, *lengths, *f.shape[1:]))
        # the position that was replaced is the position along the mixed axis: put it there
        rest = f.ndim - 1 - len(axes)
        order = [0]
        for a in range(rest):
            order.append(1 + axes.index(a) if a in axes else 1 + len(axes) + a)
        squeezed = [1 + len(axes) + a for a in axes]
        f = np.transpose(f, [*order, *squeezed])
        f = np.reshape(f, f.shape[: 1 + rest])
        return f * box(_later(score(self.node), axes)) if self.graph else f

    def _mixed_axes(self, labels: Labels) -> tuple[int, ...]:
        used: dict[int, int] = {}
        for axis in labels:
            for factor, n in axis:
                if factor is not None:
                    used[factor[0]] = used.get(factor[0], 1) * n
        return tuple([a for a, n in enumerate(self.shape) if used.get(a, 1) != n])

    def _terms_at(self, values: Any, terms: list[Node]) -> list[Any]:
        values = np.asarray(values, self.node.dtype) if type(values) is not Node else values
        values = np.broadcast_to(values, (values.shape[0], *self.node.shape))
        found = resample(terms, {self.node: values}, [self.node], create_graph=self.graph)
        return found if self.graph else [f._value if type(f) is Node else f for f in found]

    def _added(self, found: list[Any], lead: int, parts: Any = None) -> Any:
        total: Any = None
        for value, (_, weight, labels) in zip(found, parts or self._parts, strict=True):
            share = gather(value * weight, self.shape, labels, lead)
            total = share if total is None else total + share
        return total


def _later(s: Any, axes: tuple[int, ...]) -> Any:
    """For every element the sum of ``s`` over those after it along ``axes`` (row-major).

    For elements replaced in turn, p(t) - p(t0) = sum_i prod_{j<i} p_j(t0) (p_i(t) - p_i(t0)) prod_{j>i} p_j(t): the earlier
    ones stay as drawn, and the later ones keep their derivative. It matters from the second derivative on.
    """
    rest = [a for a in range(s.ndim) if a not in axes]
    moved = np.transpose(s, [*rest, *axes])
    flat = np.reshape(moved, (*moved.shape[: len(rest)], -1))
    after = np.sum(flat, axis=-1, keepdims=True) - np.cumsum(flat, axis=-1)
    return np.transpose(np.reshape(after, moved.shape), [[*rest, *axes].index(a) for a in range(s.ndim)])


def score(node: Node) -> Any:
    """The log-probability of a draw under its distribution, as a node: of the draw's batch shape."""
    return node.statics["site"].distribution.log_prob(node)


def tie(array: Any, shape: tuple[int, ...], labels: Labels) -> Any:
    """An array over the batch of a draw brought to where its elements stand in a node of ``shape``: mixed factors are summed, free axes have length one."""
    if len(labels) == array.ndim and all(axis == (((a, 1, n), n),) for a, (axis, n) in enumerate(zip(labels, array.shape, strict=True))):
        return array
    factors, sizes = _factors(array.shape, labels)
    used = [f for axis in labels for f, _ in axis if f in factors]
    array = np.reshape(array, sizes)
    gone = tuple([i for i, f in enumerate(factors) if f not in used])
    array = np.sum(array, axis=gone) if gone else array
    left = [f for f in factors if f in used]
    array = np.transpose(array, [left.index(f) for f in used]) if len(used) > 1 else array
    fine = [n if f in factors else 1 for axis in labels for f, n in axis]
    array = np.reshape(array, fine)
    if any(len({f in factors for f, n in axis if n > 1}) > 1 for axis in labels):
        return np.reshape(np.broadcast_to(array, [n for axis in labels for _, n in axis]), shape)
    return np.reshape(array, [math.prod([n if f in factors else 1 for f, n in axis]) for axis in labels])


def gather(array: Any, batch: tuple[int, ...], labels: Labels, lead: int) -> Any:
    """The transpose of ``tie``: an array over a node summed into the batch of the draw, of length one along axes that are mixed.

    ``lead`` axes in front of both are left alone.
    """
    front = array.shape[:lead]
    shape = tuple([math.prod([n for _, n in axis]) for axis in labels])
    array = np.broadcast_to(array, front + shape) if array.shape != front + shape else array
    if labels == tuple([(((a, 1, n), n),) for a, n in enumerate(batch)]):
        return array
    factors, sizes = _factors(batch, labels)
    fine = [(f, n) for axis in labels for f, n in axis]
    array = np.reshape(array, front + tuple([n for _, n in fine]))
    gone = tuple([lead + i for i, (f, _) in enumerate(fine) if f not in factors])
    array = np.sum(array, axis=gone) if gone else array
    left = [f for f, _ in fine if f in factors]
    order = sorted(range(len(left)), key=lambda i: factors.index(left[i]))
    array = np.transpose(array, [*range(lead), *[lead + i for i in order]]) if len(left) > 1 else array
    array = np.reshape(array, front + tuple([n if f in left else 1 for f, n in zip(factors, sizes, strict=True)]))
    out, coarse, partly = list(front), [], False
    for a, n in enumerate(batch):
        own = [(f, m) for f, m in zip(factors, sizes, strict=True) if f[0] == a]
        tied = math.prod([m for f, m in own if f in left])
        partly = partly or tied not in (1, n)
        coarse.append(tied)
    if partly:
        return np.reshape(np.broadcast_to(array, front + tuple(sizes)), front + batch)
    return np.reshape(array, (*out, *coarse))


def _factors(batch: tuple[int, ...], labels: Labels) -> tuple[list[Any], list[int]]:
    """The factors into which the labels cut the axes of a batch, slowest first, and their sizes."""
    factors: list[Any] = []
    for a, n in enumerate(batch):
        cuts = {1, n}
        for axis in labels:
            for factor, _ in axis:
                if factor is not None and factor[0] == a:
                    cuts |= {factor[1], factor[1] * factor[2]}
        steps = sorted(cuts)
        pieces = [(a, low, high // low) for low, high in zip(steps, steps[1:], strict=False)] or [(a, 1, n)]
        factors += reversed(pieces)
    return factors, [f[2] for f in factors]


def _every(node: Node) -> list[int]:
    return list(range(len(node.operands)))


def _condition_is_no_summand(node: Node) -> list[int]:
    return [1, 2]


_LINEAR: dict[Any, Callable[[Node], list[int]]] = {
    rule: _every
    for rule in (
        *[RULES[fn] for fn in (np.add, np.subtract, np.negative, np.positive)],
        reduction._sum,
        layout._reshape,
        layout._transpose,
        layout._broadcast_to,
        layout._concatenate,
        layout.alias,
    )
}


def _summands(node: Node, dependent: set[int]) -> list[int]:
    """Positions of the operands of which a node is a sum with constant weights; none where it is no such sum."""
    rule, operands = node.primitive, node.operands
    moving = [k for k, o in enumerate(operands) if type(o) is Node and o.id in dependent]
    if not moving or node.guard is not None and any(operands[k].guard is not node.guard for k in moving):
        return []
    if rule in _LINEAR:
        return moving
    if rule is RULES[np.multiply] and len(moving) == 1 or rule is RULES[np.divide] and moving == [0]:
        return moving
    if rule is indexing._getitem and moving == [0]:
        return moving
    return []


def _shaped(d: Any, operand: Node) -> Any:
    from scg.gradient import unbroadcast

    return d if d.shape == operand.shape and d.dtype == operand.dtype else unbroadcast(d, operand.shape, operand.dtype)


first_order = primitive(lambda x, g: np.zeros_like(x), elementwise, lambda h, out, x, g: _only_once(h * g), None, name="first_order")
"""Zero, with the derivative g, which is an estimate that has no derivative of its own."""


def _refuse_twice(g: Any, out: Any, x: Any) -> Any:
    raise NotDifferentiable(
        "an estimate of a first derivative was differentiated again, and this estimator has none of higher order: "
        f"use ScoreFunction(), Enumerate() or Reparameterized() on this node for second derivatives ({here()})"
    )


_only_once = primitive(lambda x: x, elementwise, _refuse_twice, name="only_once")
