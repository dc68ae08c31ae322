"""Reverse mode: cotangents pulled back through a recorded graph, on raw arrays or, for higher orders, on Nodes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from scg.ambient import nan_is_sought
from scg.axes import AxisMap, elementwise
from scg.errors import NonFiniteError, NotDifferentiable, here, kin
from scg.graph import Node, ancestors, primitive, values_of
from scg.operands import has_nan


def pull(roots: Sequence[Node], seeds: Sequence[Any], wrt: Sequence[Node], create_graph: bool = False, order: list[Node] | None = None) -> list[Any]:
    """Cotangents of the nodes ``wrt`` for the cotangents ``seeds`` of ``roots``: sum_k seeds[k] d roots[k] / d wrt.

    Arrays of the shape and dtype of each node (zeros where nothing leads to it), distinct and writable; Nodes with ``create_graph``.
    ``order`` spares a search where the caller knows ``ancestors(roots, the least id in wrt)`` already.

    A zero absorbs: where a factor of the chain rule is zero the product is zero, also when the other factor is infinite or NaN, so
    that a branch that ``where`` did not take cannot poison the one that it took. This costs nothing where nothing is infinite: the plain
    products come first, and only a gradient that came out non-finite is computed again with absorbing ones.
    """
    order = ancestors(roots, min(node.id for node in wrt)) if order is None else order
    with np.errstate(divide="ignore", invalid="ignore"):
        seeking = nan_is_sought()  # one that a zero absorbs is none
        found = [] if seeking else _pull(order, roots, seeds, wrt, create_graph, absorbing=False)
        if seeking or not all(_finite(g) for g in found):
            found = _pull(order, roots, seeds, wrt, create_graph, absorbing=True)
    return [np.zeros(x.shape, x.dtype) if g is None else g for g, x in zip(found, wrt, strict=True)] if create_graph else _owned(found, wrt, seeds)


def _pull(
    order: list[Node], roots: Sequence[Node], seeds: Sequence[Any], wrt: Sequence[Node], create_graph: bool, absorbing: bool
) -> list[Any]:
    wanted = {node.id for node in wrt}
    needed = _leading_to(wanted, order)
    seek_nan = nan_is_sought()
    table: dict[int, Any] = {}
    found: dict[int, Any] = {}
    for root, seed in zip(roots, seeds, strict=True):
        if root.id in needed:
            table[root.id] = _sum(table.get(root.id), seed)
    for node in reversed(order):
        g = table.pop(node.id, None)
        if g is None:
            continue
        if node.id in wanted:
            found[node.id] = g
        rule, operands, statics = node.primitive, node.operands, node.statics
        out: Any = node._value
        if type(out) is tuple:
            g = tuple([np.zeros_like(v) if c is None else c for c, v in zip(g, out, strict=True)])
            out = [item(node, index=k) for k in range(len(out))] if create_graph else out
        elif create_graph:
            out = node
        arguments = operands if create_graph else (operands[0]._value,) if len(operands) == 1 else values_of(operands)
        n = len(arguments)
        vjps = rule.vjps or _each(rule.every, n)
        k = -1  # counted by hand, and calls of one operand and of two written out: of what a small node costs, a tenth
        for operand in operands:
            k += 1
            if type(operand) is not Node:
                continue
            i = operand.id
            if i not in needed or vjps[k] is None:
                continue
            try:
                if absorbing and rule.axes is elementwise:
                    d = _absorbing_vjp(vjps[k], g, out, arguments, statics)
                elif statics or n > 2:
                    d = vjps[k](g, out, *arguments, **statics)
                elif n == 2:
                    d = vjps[k](g, out, arguments[0], arguments[1])
                else:
                    d = vjps[k](g, out, arguments[0])
            except Exception as error:
                _raise_at(error, node)
            if d is None:
                continue
            value = operand._value
            if type(value) is not tuple and (getattr(d, "shape", None) != value.shape or d.dtype is not value.dtype):
                d = unbroadcast(d, value.shape, value.dtype)
            if seek_nan and has_nan(d._value if type(d) is Node else d):
                raise NonFiniteError(f"the derivative of {node!r}, made at {node.line}, is a NaN for operand {k} ({here()})")
            previous = table.get(i)
            if previous is None:
                table[i] = d
            elif type(d) is tuple:
                table[i] = tuple([_sum(a, b) for a, b in zip(previous, d, strict=True)])
            else:
                table[i] = previous + d
    return [found.get(node.id) for node in wrt]


def _leading_to(wanted: set[int], order: list[Node]) -> set[int]:
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


def _each(every: Any, n: int) -> list[Any]:
    """The VJPs of ``n`` operands from the one that serves them all."""
    return [lambda g, out, *operands, k=k, **statics: every(g, k, out, *operands, **statics) for k in range(n)]


def unbroadcast(g: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    """A cotangent brought to the shape and dtype of its operand: summed where the operand was stretched, stretched where it was summed."""
    if not hasattr(g, "shape"):
        g = np.asarray(g)
    if g.dtype != dtype:
        g = np.astype(np.real(g) if g.dtype.kind == "c" and dtype.kind != "c" else g, dtype)
    if g.shape == shape:
        return g
    extra = g.ndim - len(shape)
    stretched = [i for i in range(max(extra, 0), g.ndim) if shape[i - extra] == 1 != g.shape[i]]
    if extra > 0 or stretched:
        g = np.sum(g, axis=(*range(extra), *stretched), keepdims=True)
        g = np.reshape(g, g.shape[max(extra, 0) :])
    if g.shape == shape:
        return g
    if type(g) is not Node and np.prod(shape, dtype=int) < 4096:  # a small copy is cheaper than making a view
        full = np.empty(shape, dtype)
        full[...] = g
        return full
    return np.broadcast_to(g, shape)


def _absorbing_vjp(vjp: Any, g: Any, out: Any, arguments: Any, statics: Any) -> Any:
    slope = vjp(np.ones((), g.dtype), out, *arguments, **statics)
    return None if slope is None else absorb(g, slope)


def _is_absorbed(g: Any, slope: Any) -> Any:
    return ((g == 0) | (slope == 0)) & ~np.isfinite(g * slope)


def _absorb(g: Any, slope: Any) -> Any:
    return np.where(_is_absorbed(g, slope), 0, g * slope)


absorb = primitive(
    lambda g, slope: _absorb(g, slope).astype(np.result_type(g, slope), copy=False),
    elementwise,
    lambda h, out, g, slope: np.where(_is_absorbed(g, slope), 0, absorb(h, slope)),
    lambda h, out, g, slope: np.where(_is_absorbed(g, slope), 0, absorb(h, g)),
    name="absorb",
)


class _Item(AxisMap):
    def lead(self, operands, batched, statics):  # type: ignore[no-untyped-def]
        return operands, statics


item = primitive(
    lambda results, index: results[index],
    _Item(),
    lambda g, out, results, index: tuple([g if k == index else None for k in range(len(_values(results)))]),
    name="item",
)
"""One of the results of a primitive that has several."""


def results(node: Any) -> Any:
    """The results of a primitive that has several, as a tuple of Nodes (or, computed on arrays, of arrays)."""
    return tuple([item(node, index=k) for k in range(len(node._value))]) if type(node) is Node else node


def _values(results: Any) -> Any:
    return results._value if type(results) is Node else results


def _sum(a: Any, b: Any) -> Any:
    return b if a is None else a if b is None else a + b


def _finite(g: Any) -> bool:
    if g is None:
        return True
    return bool(np.isfinite(np.add.reduce(g._value if type(g) is Node else g, axis=None)))


def _owned(found: list[Any], wrt: Sequence[Node], seeds: Sequence[Any]) -> list[Any]:
    """Arrays that belong to the caller: writable, and no two the same memory."""
    seen = set(map(id, seeds))
    owned = []
    for g, x in zip(found, wrt, strict=True):
        if g is None:
            g = np.zeros(x.shape, x.dtype)
        elif not isinstance(g, np.ndarray):
            g = np.asarray(g)
        elif not g.flags.writeable or g.base is not None or id(g) in seen:
            g = np.array(g)
        seen.add(id(g))
        owned.append(g)
    return owned


def _raise_at(error: Exception, node: Node) -> None:
    kind = kin(error)
    message = f"the derivative of {node!r}, made at {node.line}: {error}"
    if isinstance(error, (NotDifferentiable, NonFiniteError)):
        raise type(error)(message) from error
    if kind is None:
        error.add_note(message)
        raise error
    raise kind(message) from error
