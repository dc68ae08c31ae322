"""What the formulas of estimators are made of: zeros and ones that have derivatives, and what has none."""

import contextvars
import functools
import operator
from collections.abc import Sequence

import numpy as np

from scg.core.aliases import Function, Result
from scg.core.axes import elementwise
from scg.core.node import Node, Value
from scg.core.operands import shape_of_all
from scg.core.primitive import primitive, smooth_primitive
from scg.errors import NotDifferentiable, here
from scg.primitives import layout

box = smooth_primitive(lambda s: np.ones_like(s), elementwise, lambda g, out, s: g * out, name="box", constant=True)
"""exp(s - stop_gradient(s)): one, with the derivative of s, and so on for its derivatives."""


def score(node: Node) -> Value:
    """The log-probability of a sample under its distribution, as a node: of the sample's batch shape."""
    return node.statics["site"].distribution.log_prob_drawn(node)


_ADDED = 32

added: Function = primitive(
    lambda *x: functools.reduce(operator.add, x),
    elementwise,
    every=lambda g, i, out, *x: g,
    name="added",
    linear="together",
)
"""The sum of some numbers, or arrays of one shape."""


def plus(x: Node, others: Sequence[Value]) -> Node:
    """x plus all others, by few nodes: the zeros of a long walk are as many as its samples."""
    if len(others) == 1:
        return x + others[0]
    for k in range(0, len(others), _ADDED):
        x = added(x, *others[k : k + _ADDED])
    return x


def summed(x: Value) -> Value:
    """The sum of all elements: of a number itself."""
    return x if x.ndim == 0 else np.sum(x)


def held(x: Result) -> Result:
    """``x`` as a constant of an estimator's formula. It has no derivative there; where the estimate is itself a value
    in a cost, it has."""
    return layout.stop_gradient(x, own=True)


REFUSAL: contextvars.ContextVar[str] = contextvars.ContextVar(
    "scg_refusal", default="and has none of higher order: use scg.hessian, or a surrogate with order=2"
)
"""Whose estimate it is, and what has a second derivative there: for the refusal of one."""


def first_order(x: Result, g: Result) -> Result:
    """Zero, with the derivative g, which is an estimate that has no derivative of its own."""
    return _first_order(x, g, whose=REFUSAL.get())


_first_order: Function = smooth_primitive(
    lambda x, g, whose: np.zeros(shape_of_all(np.shape(x), np.shape(g)), x.dtype),
    elementwise,
    lambda h, out, x, g, whose: only_once(g if _is_one(h) else h * g, x, whose=whose),
    None,
    name="first_order",
    constant=True,
)


def _is_one(h: Result) -> bool:
    """Whether a cotangent is one everywhere, as those of a sum are."""
    return type(h) is not Node and bool(np.all(h == 1))


def _refuse_twice(g: Value, out: Value, estimate: Value, x: Value, whose: str) -> Value:
    raise NotDifferentiable(f"an estimate of a first derivative was differentiated again, {whose} ({here()})")


def as_broadcast(x: Value, other: Value) -> Value:
    """x in the shape to which both broadcast: either may have a replicate axis that the other has not."""
    shape = shape_of_all(np.shape(x), np.shape(other))
    return x if np.shape(x) == shape else np.broadcast_to(x, shape)


def is_only_once(node: Node) -> bool:
    """Whether a node is an estimate of a first derivative that has none of its own."""
    return node.primitive is only_once


only_once: Function = smooth_primitive(
    lambda x, other, whose: as_broadcast(x, other),
    elementwise,
    _refuse_twice,
    _refuse_twice,
    name="only_once",
    same=True,
    view=lambda x, other, whose: (
        lambda x, shape=shape_of_all(np.shape(x), np.shape(other)): x if x.shape == shape else np.broadcast_to(x, shape)
    ),
)


def once(x: Node) -> Result:
    """An estimate, whose derivative has none of its own: where it is a sum of zeros by ``first_order`` it has none as
    it is."""
    inner = x
    while inner.primitive.linear == "together" and len(inner.operands) == 1:
        inner = inner.operands[0]
    return x if inner.primitive is _first_order else _once(x, whose=REFUSAL.get())


_once: Function = smooth_primitive(
    lambda x, whose: x, elementwise, lambda g, out, x, whose: only_once(g, x, whose=whose), name="once", same=True
)
