"""Reverse mode: cotangents pulled back through a recorded graph, on raw arrays or, for higher orders, on Nodes."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from scg.ambient import RECORDER, nan_is_sought, settled, unplanned
from scg.axes import AxisMap, elementwise
from scg.errors import NonFiniteError, NotDifferentiable, here, kin
from scg.graph import Node, primitive, values_of
from scg.operands import has_nan


class Reach(NamedTuple):
    """The nodes that lead to some roots and are not older than what one differentiates by, as ``reach`` finds them."""

    order: list[Node]  # by growing id
    leaves: set[int]  # ids of those without operands
    older: bool  # whether anything was older, and left out
    chosen: bool  # whether an ``if`` on a node, or a draw, stands among them


def reach(roots: Sequence[Node], floor: int) -> Reach:
    """All nodes with ids of at least ``floor`` that lead to ``roots``, and what callers ask about them, in one search."""
    seen = {root.id: root for root in roots if root.id >= floor}
    stack = list(seen.values())
    leaves = set()
    older, chosen = any(root.id < floor for root in roots), False
    while stack:
        node = stack.pop()
        if node.guard is not None or node.statics and "site" in node.statics:
            chosen = True
        operands = node.operands
        if not operands:
            leaves.add(node.id)
        for operand in operands:
            if type(operand) is Node:
                i = operand.id
                if i not in seen:
                    if i >= floor:
                        seen[i] = operand
                        stack.append(operand)
                    else:
                        older = True
    return Reach([seen[i] for i in sorted(seen)], leaves, older, chosen)


def pull(
    roots: Sequence[Node], seeds: Sequence[Any], wrt: Sequence[Node], create_graph: bool = False, known: Reach | None = None, forget: Any = None
) -> list[Any]:
    """Cotangents of the nodes ``wrt`` for the cotangents ``seeds`` of ``roots``: sum_k seeds[k] d roots[k] / d wrt.

    Arrays of the shape and dtype of each node (zeros where nothing leads to it), distinct and writable; Nodes with ``create_graph``.
    ``known`` spares a search where the caller has ``reach(roots, the least id in wrt)`` already. ``forget(node)`` is told of each node on the way whose
    value is not needed any more, where the graph is only to be read.

    A zero absorbs: where a factor of the chain rule is zero the product is zero, also when the other factor is infinite or NaN, so
    that a branch that ``where`` did not take cannot poison the one that it took. This costs nothing where nothing is infinite: the plain
    products come first, and only a gradient that came out non-finite is computed again with absorbing ones.
    """
    known = known or reach(roots, min([node.id for node in wrt]))
    wanted = {node.id for node in wrt}
    if known.leaves <= wanted and not known.older:  # then every node leads to a wanted one
        needed = wanted.union([node.id for node in known.order if node.primitive.vjps or node.primitive.every])
    else:
        needed = _leading_to(wanted, known.order)
    table: dict[int, Any] = {}
    for root, seed in zip(roots, seeds, strict=True):
        if root.id in needed:
            table[root.id] = _sum(table.get(root.id), seed)
    seeking = nan_is_sought()  # a NaN that a zero absorbs is none
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        found = {} if seeking else _pull(known.order, dict(table), wanted, needed, create_graph, forget=forget)
        if seeking or not all(map(_finite, found.values())):
            found = _pull(known.order, table, wanted, needed, create_graph, absorbing=True, forget=forget)
        elif (recorder := RECORDER.get()) is not None:
            recorder.finite(found.values())
    if create_graph:
        return [found[x.id] if x.id in found else np.zeros(x.shape, x.dtype) for x in wrt]
    return _owned([found.get(x.id) for x in wrt], wrt, seeds)


def _pull(
    order: list[Node], table: dict[int, Any], wanted: set[int], needed: set[int], create_graph: bool, absorbing: bool = False, forget: Any = None
) -> dict[int, Any]:
    newest = order[-1].id if order else 0
    found: dict[int, Any] = {}
    careful = create_graph or absorbing
    take, get = table.pop, table.get
    for node in reversed(order):
        g = take(node.id, None)
        if g is None:
            continue
        if node.id in wanted:
            found[node.id] = g
        vjps, operands, out = node.primitive.vjps, node.operands, node._value
        n = len(operands)
        if careful or n > 2 or node.statics or not vjps or type(out) is tuple:
            _step(node, g, table, needed, create_graph, absorbing)
            if forget is not None:
                _forget_behind([g, *[table[o.id] for o in operands if type(o) is Node and o.id in table]], newest, [*table.values(), *found.values()], forget)
            continue
        # what follows is _step for one and for two operands, written out: it is most of what a gradient of small arrays costs
        try:
            if n == 1:
                x = operands[0]
                i = x.id
                if i in needed:
                    value = x._value
                    d = vjps[0](g, out, value)
                    if getattr(d, "shape", None) != value.shape or d.dtype is not value.dtype:
                        d = None if d is None else unbroadcast(d, value.shape, value.dtype)
                    before = get(i)
                    table[i] = d if before is None else _sum(before, d)
            elif n:
                x, y = operands
                xv = x._value if type(x) is Node else x
                yv = y._value if type(y) is Node else y
                vjp = vjps[0]
                if type(x) is Node and vjp is not None and x.id in needed:
                    i = x.id
                    d = vjp(g, out, xv, yv)
                    if getattr(d, "shape", None) != xv.shape or d.dtype is not xv.dtype:
                        d = None if d is None else unbroadcast(d, xv.shape, xv.dtype)
                    before = get(i)
                    table[i] = d if before is None else _sum(before, d)
                vjp = vjps[1]
                if type(y) is Node and vjp is not None and y.id in needed:
                    i = y.id
                    d = vjp(g, out, xv, yv)
                    if getattr(d, "shape", None) != yv.shape or d.dtype is not yv.dtype:
                        d = None if d is None else unbroadcast(d, yv.shape, yv.dtype)
                    before = get(i)
                    table[i] = d if before is None else _sum(before, d)
        except Exception as error:
            if not _is_zero(g):
                _raise_at(error, node)
    return found


def _forget_behind(stack: list[Any], newest: int, live: list[Any], forget: Any) -> None:
    """Forget the nodes younger than ``newest`` behind some cotangents, but for those that are cotangents still."""
    kept = {id(g) for part in live for g in (part if type(part) is tuple else (part,))}
    seen: set[int] = set()
    stack = [g for part in stack for g in (part if type(part) is tuple else (part,))]
    while stack:
        node = stack.pop()
        if type(node) is not Node or node.id <= newest or node.id in seen:
            continue
        seen.add(node.id)
        if id(node) in kept or forget(node):
            stack += node.operands


def _step(node: Node, g: Any, table: dict[int, Any], needed: set[int], create_graph: bool, absorbing: bool) -> None:
    """Pull the cotangent ``g`` of one node back to its operands."""
    rule, operands, statics = node.primitive, node.operands, node.statics
    out: Any = node._value
    if type(out) is tuple:
        g = tuple([np.zeros_like(v) if c is None else c for c, v in zip(g, out, strict=True)])
        out = [item(node, index=k) for k in range(len(out))] if create_graph else out
    elif create_graph:
        out = node
    arguments = operands if create_graph else values_of(operands)
    vjps = rule.vjps or _each(rule.every, len(operands))
    for k, (operand, vjp) in enumerate(zip(operands, vjps, strict=False)):
        if type(operand) is not Node or operand.id not in needed or vjp is None:
            continue
        try:
            if absorbing and rule.axes is elementwise:
                d = _absorbing_vjp(vjp, g, out, arguments, statics)
            elif absorbing and rule.axes is not None and rule.axes.products:
                d = _absorbing_products(vjp, g, out, arguments, statics)
            else:
                d = vjp(g, out, *arguments, **statics)
        except Exception as error:
            if _is_zero(g):  # nothing was asked of a derivative that does not exist
                unplanned(f"{node!r} has no derivative, and needs none only where its cotangent is zero")
                continue
            _raise_at(error, node)
        if d is None or absorbing and type(d) is not tuple and not _finite(d) and _is_zero(g):
            continue
        value = operand._value
        if type(value) is not tuple and (getattr(d, "shape", None) != value.shape or d.dtype is not value.dtype):
            d = unbroadcast(d, value.shape, value.dtype)
        if absorbing and nan_is_sought() and has_nan(d._value if type(d) is Node else d):
            raise NonFiniteError(f"the derivative of {node!r}, made at {node.line}, is a NaN for operand {k} ({here()})")
        before = table.get(operand.id)
        if type(d) is tuple and before is not None:
            d = tuple([_sum(a, b) for a, b in zip(before, d, strict=True)])
            before = None
        table[operand.id] = d if before is None else before + d


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


def _absorbing_vjp(vjp: Any, g: Any, out: Any, arguments: Any, statics: Any) -> Any:
    slope = vjp(np.ones((), g.dtype), out, *arguments, **statics)
    return None if slope is None else absorb(g, slope)


def _is_absorbed(g: Any, slope: Any) -> Any:
    return ((g == 0) | (slope == 0)) & ~np.isfinite(g * slope)


def _absorb(g: Any, slope: Any) -> Any:
    return np.where(_is_absorbed(g, slope), 0, g * slope)


absorb: Any = primitive(
    lambda g, slope: _absorb(g, slope).astype(np.result_type(g, slope), copy=False),
    elementwise,
    lambda h, out, g, slope: np.where(_is_absorbed(g, slope), 0, absorb(h, slope)),
    lambda h, out, g, slope: np.where(_is_absorbed(g, slope), 0, absorb(h, g)),
    name="absorb",
)


def _absorbing_products(vjp: Any, g: Any, out: Any, arguments: Any, statics: Any) -> Any:
    """A VJP that sums products of ``g`` and operands, without the products that have a zero among their factors.

    The sum over finite factors is the VJP of finite factors. As the VJP is a polynomial with coefficients of one, it also counts: put 1 for all
    that is not zero, and it gives the number of other products; put signs, and it gives how many more of them are positive than negative.
    """
    if settled(lambda *x: all(map(_finite, x)), g, *arguments):
        return vjp(g, out, *arguments, **statics)

    def over(change: Any) -> tuple[Any, Any]:
        every = vjp(change(g), out, *map(change, arguments), **statics)
        return every, vjp(change(_where_finite(g)), out, *[change(_where_finite(x)) for x in arguments], **statics)

    present, present_finite = over(lambda x: np.not_equal(x, 0).astype(g.dtype))
    signs, signs_finite = over(lambda x: np.where(np.isnan(x), 0, np.sign(x)))
    finite = vjp(_where_finite(g), out, *map(_where_finite, arguments), **statics)
    return _with_infinite(finite, present - present_finite, signs - signs_finite)


def _where_finite(x: Any) -> Any:
    return np.where(np.isfinite(x), x, 0)


_with_infinite: Any = primitive(
    lambda total, number, balance: np.where(
        number == 0, total, np.where(balance == number, np.inf, np.where(balance == -number, -np.inf, np.nan))
    ).astype(total.dtype, copy=False),
    elementwise,
    lambda g, out, total, number, balance: np.where(number == 0, g, 0),
    None,
    None,
    name="with_infinite",
)
"""A sum of finite terms and of a ``number`` of infinite ones, of which ``balance`` more are positive than negative."""


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


def _is_zero(g: Any) -> bool:
    if type(g) is tuple:
        return all(map(_is_zero, g))
    return not np.any(g._value if type(g) is Node else g)


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
