"""One step back: what a VJP is called with, and how its cotangents are fitted to the operands and added up."""

import math

import numpy as np

from scg.core.aliases import Function, Result
from scg.core.axes import AxisMap
from scg.core.node import Node, values_of
from scg.core.primitive import smooth_primitive
from scg.errors import NonFiniteError, NotDifferentiable, kin


def called_with(node: Node, g: Result, create_graph: bool) -> tuple[Result, Result, Result]:
    """What a VJP is called with: the cotangent, with zeros for results that nobody used, the result, the operands."""
    out: Result = node.raw
    if type(out) is tuple:
        g = tuple([np.zeros_like(v) if c is None else c for c, v in zip(g, out, strict=True)])
        out = [item(node, index=k) for k in range(len(out))] if create_graph else out
    elif create_graph:
        out = node
    return g, out, node.operands if create_graph else values_of(node.operands)


def operands_with_vjps(node: Node, needed: set[int]) -> list[tuple[int, Node, Result]]:
    """The operands that take part of the cotangent: position, node, VJP."""
    vjps = node.primitive.vjps or _each(node.primitive.every, len(node.operands))
    pairs = enumerate(zip(node.operands, vjps, strict=False))
    return [
        (k, operand, vjp)
        for k, (operand, vjp) in pairs
        if type(operand) is Node and operand.id in needed and vjp is not None
    ]


def fitted(d: Result, value: Result) -> Result:
    """A cotangent in the shape and dtype of what it belongs to: summed over the axes that were broadcast."""
    if type(value) is not tuple and (getattr(d, "shape", None) != value.shape or d.dtype is not value.dtype):
        return unbroadcast(d, value.shape, value.dtype)
    return d


def accumulated(before: Result, d: Result) -> Result:
    """The sum of a cotangent and those that came before; None stands for none."""
    if type(d) is tuple and before is not None:
        return tuple([sum_of(a, b) for a, b in zip(before, d, strict=True)])
    return d if before is None else before + d


def leading_to(wanted: set[int], order: list[Node]) -> set[int]:
    """Ids of the nodes through which a wanted node influences the roots differentiably."""
    needed = set(wanted)
    for node in order:
        for operand in node.operands:
            if type(operand) is Node and operand.id in needed and (node.primitive.smooth or _carries(node, needed)):
                needed.add(node.id)
                break
    return needed


def _carries(node: Node, needed: set[int]) -> bool:
    """Whether an operand that is needed has a VJP."""
    pairs = zip(node.operands, node.primitive.vjps, strict=False)
    return any(type(operand) is Node and operand.id in needed and vjp is not None for operand, vjp in pairs)


def _each(every: Function, n: int) -> list[Result]:
    """The VJPs of ``n`` operands from the one that serves them all."""
    return [lambda g, out, *operands, k=k, **statics: every(g, k, out, *operands, **statics) for k in range(n)]


def unbroadcast(g: Result, shape: tuple[int, ...], dtype: np.dtype) -> Result:
    """A cotangent brought to the shape and dtype of its operand: summed where the operand was stretched, stretched
    where it was summed."""
    if not hasattr(g, "shape"):
        g = np.asarray(g)
    if g.dtype != dtype:
        g = (np.real(g) if g.dtype.kind == "c" and dtype.kind != "c" else g).astype(dtype)
    if g.shape == shape:
        return g
    extra = g.ndim - len(shape)
    stretched = [i for i in range(max(extra, 0), g.ndim) if shape[i - extra] == 1 != g.shape[i]]
    if extra > 0 or stretched:
        g = np.sum(g, axis=(*range(extra), *stretched), keepdims=True)
        g = np.reshape(g, g.shape[max(extra, 0) :])
    if g.shape == shape:
        return g
    if type(g) is not Node and math.prod(shape) < 4096:  # a small copy is cheaper than making a view
        full = np.empty(shape, dtype)
        full[...] = g
        return full
    return np.broadcast_to(g, shape)


class _Item(AxisMap):
    def lead(self, operands, batched, statics):  # type: ignore[no-untyped-def]
        return operands, statics


item = smooth_primitive(
    lambda results, index: results[index],
    _Item(),
    lambda g, out, results, index: tuple([g if k == index else None for k in range(len(_values(results)))]),
    name="item",
)
"""One of the results of a primitive that has several."""


def results(node: Result) -> Result:
    """The results of a primitive that has several, as a tuple of Nodes (or, computed on arrays, of arrays)."""
    return tuple([item(node, index=k) for k in range(len(node.raw))]) if type(node) is Node else node


def _values(results: Result) -> Result:
    return results.raw if type(results) is Node else results


def sum_of(a: Result, b: Result) -> Result:
    """a + b, where None is zero."""
    return b if a is None else a if b is None else a + b


def is_finite(g: Result) -> bool:
    """Whether all numbers of a cotangent are finite; None, which is zero, is."""
    if g is None:
        return True
    return bool(np.isfinite(np.add.reduce(g.raw if type(g) is Node else g, axis=None)))


def is_zero(g: Result) -> bool:
    """Whether all numbers of a cotangent, or of a tuple of them, are zero."""
    if type(g) is tuple:
        return all(map(is_zero, g))
    return not np.any(g.raw if type(g) is Node else g)


def raise_at(error: Exception, node: Node) -> None:
    """Raise the error again as one of scg's, with the node whose VJP met it and the line that made it."""
    kind = kin(error)
    message = f"the derivative of {node!r}, made at {node.line}: {error}"
    if isinstance(error, (NotDifferentiable, NonFiniteError)):
        raise type(error)(message) from error
    if kind is None:
        error.add_note(message)
        raise error
    raise kind(message) from error
