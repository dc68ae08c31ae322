"""Where a derivative does not exist because the cost is a NaN: on the way that the NaN took."""

from collections.abc import Sequence

import numpy as np

from scg.core.absorbing import spread
from scg.core.aliases import Result
from scg.core.axes import AxisMap, elementwise
from scg.core.node import Node, values_of


def is_nan(root: Node) -> bool:
    """Whether a cost, a scalar, is a NaN."""
    value = root.raw
    return type(value) is not tuple and value.ndim == 0 and bool(value != value)


def way(order: Sequence[Node], roots: Sequence[Node]) -> dict[tuple[int, int], Result]:
    """By node and operand, the elements from which a NaN of ``roots`` came, and where their derivative does not exist.

    Backwards from the roots: of the elements that an axis map connects with a NaN of the result, those that are NaN
    themselves. Where none is, the NaN was made here, of numbers or of a constant, and the way ends: a VJP is then
    right, or it is that of a kink beside a NaN.

        max of (1, nan, 3) is nan: its second element.    max(nan, 0) for nan = data (nan,) @ theta: the product
        where(isnan(x), 0, x): none of x.                 stop_gradient(x), a sample: the way ends

    What has kinks or steps, or takes elements at places that depend on values, has no derivative there, whatever its
    VJP makes of a NaN. A VJP that multiplies is right at a NaN; but where it multiplies by zero, 0 * nan is nan, in a
    product of matrices as of numbers.
    """
    marks = {root.id: np.isnan(root.raw) for root in roots if is_nan(root)}
    edges: dict[tuple[int, int], Result] = {}
    for node in reversed(order):
        mark, primitive = marks.get(node.id), node.primitive
        if (
            mark is None
            or type(node.raw) is tuple
            or primitive.random
            or not (primitive.differentiable or primitive.jumps)
        ):
            continue
        broken = _is_broken(node)
        near = {
            k: (operand, _taken(mark, node) if primitive.picks and k == 0 else connected(mark, node, k))
            for k, operand in enumerate(node.operands)
            if type(operand) is Node and type(operand.raw) is not tuple and operand.dtype.kind in "fc"
        }
        nan = {k: (operand, inside & np.isnan(operand.raw)) for k, (operand, inside) in near.items()}
        if not any([np.any(inside) for _, inside in nan.values()]):
            edges.update({(node.id, k): inside for k, (_, inside) in near.items() if broken})
            continue
        for k, (operand, inside) in nan.items():
            if np.any(inside):
                marks[operand.id] = marks.get(operand.id, False) | inside
                if broken:
                    edges[node.id, k] = inside
                elif primitive.axes is elementwise:
                    edges[node.id, k] = inside & connected(mark & _is_lost(node, k), node, k)
                elif primitive.linear == "each":
                    edges[node.id, k] = inside & _meets_zero(mark, node, k)
    return edges


def may_hide(order: Sequence[Node]) -> bool:
    """Whether a NaN among these nodes may have finite derivatives: of a kink or a step, or beside a factor of zero that
    is given."""
    return any([_is_broken(node) or _is_stopped(node) for node in order])


def _is_stopped(node: Node) -> bool:
    alone = node.primitive.axes is elementwise
    given = [x.raw if type(x) is Node else x for x in node.operands if type(x) is not Node or not x.operands]
    if len(node.operands) < 2 or not (alone or node.primitive.linear == "each") or all(map(np.all, given)):
        return False
    if not alone:
        return True
    moving = [k for k, x in enumerate(node.operands) if type(x) is Node and x.operands and x.dtype.kind in "fc"]
    return any([np.any(_is_lost(node, k)) for k in moving])


def _is_broken(node: Node) -> bool:
    primitive = node.primitive
    placed = primitive.picks and any([type(operand) is Node for operand in node.operands[1:]])
    return bool(node.operands and (primitive.kinks is not None or primitive.jumps or primitive.steps or placed))


def marked(d: Result, inside: Result) -> Result:
    """A cotangent that is NaN ``inside``."""
    return np.where(inside, np.asarray(np.nan, d.dtype), d) if np.any(inside) else d


def _is_lost(node: Node, k: int) -> Result:
    """Where the slope by operand ``k`` is zero."""
    slope = _vjp(node, k)(np.ones(node.shape, node.dtype), node.raw, *values_of(node.operands), **node.statics)
    return np.zeros((), bool) if slope is None else np.equal(slope, 0)


def _meets_zero(mark: Result, node: Node, k: int) -> Result:
    """Which elements of operand ``k`` a product multiplies by a zero on the way to a marked element: where its VJP,
    which counts if all factors are ones, counts fewer than all."""
    values = values_of(node.operands)
    every, others = [
        _vjp(node, k)(
            mark.astype(node.dtype), node.raw, *[np.asarray(f(x), node.dtype) for x in values], **node.statics
        )
        for f in (np.ones_like, lambda x: np.not_equal(x, 0))
    ]
    less, shape = np.real(every) > np.real(others), np.shape(values[k])
    less = np.any(less, axis=tuple(range(less.ndim - len(shape))))
    return np.any(less, axis=tuple([i for i, n in enumerate(shape) if n == 1 != less.shape[i]]), keepdims=True)


def _vjp(node: Node, k: int) -> Result:
    primitive = node.primitive
    return (
        (lambda g, *rest, **statics: primitive.every(g, k, *rest, **statics))
        if primitive.every
        else primitive.vjps[k] or _constant
    )


def _constant(*operands: object, **statics: object) -> None:
    return None


def _taken(mark: Result, node: Node) -> Result:
    """The elements of operand 0 that are among marked elements of a result, which takes elements of it."""
    return np.not_equal(_vjp(node, 0)(mark.astype(node.dtype), node.raw, *values_of(node.operands), **node.statics), 0)


def connected(support: Result, node: Node, k: int) -> Result:
    """The support of operand ``k``, by the axis map."""
    axes, shapes = node.primitive.axes or AxisMap(), [np.shape(x) for x in values_of(node.operands)]
    shape = shapes[k]
    if type(support) is not tuple:
        full = np.broadcast_to(support, node.shape)
        out, ins = axes.align(shapes, node.shape, node.statics)
        return spread(full, out, ins[k], shape)
    inside: Result = np.zeros(shape, bool)
    for j, part in enumerate(support):
        out, ins = axes.align_result(j, shapes, np.shape(part), node.statics)
        inside = inside | spread(part, out, ins[k], shape)
    return inside
