"""What the formulas of estimators are made of: zeros and ones that have derivatives, and what has none."""

from typing import Any

import numpy as np

from scg.core.aliases import Result
from scg.core.axes import elementwise
from scg.core.node import Node, Value
from scg.core.primitive import primitive
from scg.errors import NotDifferentiable, here
from scg.primitives import layout

box = primitive(lambda s: np.ones_like(s), elementwise, lambda g, out, s: g * out, name="box", constant=True)
"""exp(s - stop_gradient(s)): one, with the derivative of s, and so on for its derivatives."""


def score(node: Node) -> Value:
    """The log-probability of a sample under its distribution, as a node: of the sample's batch shape."""
    return node.statics["site"].distribution.log_prob(node)


def held(x: Result) -> Result:
    """``x`` as a constant of an estimator's formula. It has no derivative there; where the estimate is itself a value
    in a cost, it has."""
    return layout.stop_gradient(x, own=True)


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

once: Any = primitive(lambda x: x, elementwise, lambda g, out, x: only_once(g, x), name="once", same=True)
"""An estimate, whose derivative has none of its own."""
