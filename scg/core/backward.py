"""Reverse mode: cotangents pulled back through a recorded graph, on raw arrays or, for higher orders, on Nodes."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from scg.core import absorbing, limits
from scg.core.aliases import Function, Operands, Result, Statics
from scg.core.ambient import AMBIENT, RECORDER, nan_is_sought, settled, unplanned
from scg.core.axes import AxisMap, elementwise, first
from scg.core.node import Node, values_of
from scg.core.operands import has_nan
from scg.core.primitive import primitive
from scg.core.undefined import connected, is_nan, marked, way
from scg.errors import NonFiniteError, NotDifferentiable, here, kin


class Reach(NamedTuple):
    """The nodes that lead to some roots and are not older than what one differentiates by, as ``reach`` finds them."""

    order: list[Node]  # by growing id
    leaves: set[int]  # ids of those without operands
    older: bool  # whether anything was older, and left out
    chosen: bool  # whether an ``if`` on a node, or a draw, stands among them


def reach(roots: Sequence[Node], floor: int) -> Reach:
    """All nodes with ids of at least ``floor`` that lead to ``roots``, and what callers ask about them, in one
    search."""
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


estimate = primitive(
    lambda value, surrogate, *draws: value,
    first,
    every=lambda g, i, out, *operands: None if i else g,
    name="estimate",
    same=True,
)
"""An estimate, which is a value like any other: its derivative is that of the value, at the draws as they are.

The second operand has that value, and derivatives that estimate those of its mean: in them stands already what the
``draws`` contribute. It is what one differentiates where the estimate itself is a root, or a term of a cost; it is not
what (estimate)^2 needs.
"""


def is_estimate(node: Node) -> bool:
    """Whether a node is an ``estimate``."""
    return node.primitive is estimate


def estimates(nodes: Sequence[Node]) -> list[Node]:
    """Those of some nodes that are an ``estimate``."""
    return [node for node in nodes if node.primitive is estimate]


def pull(
    roots: Sequence[Node],
    seeds: Sequence[Result],
    wrt: Sequence[Node],
    create_graph: bool = False,
    known: Reach | None = None,
    forget: Function | None = None,
    nearby: bool = True,
    absorbing: bool = False,
) -> list[Result]:
    """Cotangents of the nodes ``wrt`` for the cotangents ``seeds`` of ``roots``: sum_k seeds[k] d roots[k] / d wrt.

    Arrays of the shape and dtype of each node (zeros where nothing leads to it), distinct and writable; Nodes with
    ``create_graph``. ``known`` spares a search where the caller has ``reach(roots, the least id in wrt)`` already.
    ``forget(node)`` is told of each node on the way whose value is not needed any more, where the graph is only to be
    read. With ``nearby`` a NaN among arrays becomes a limit, where it has one (``scg.limits``).

    A cost that is a NaN has no derivative where the NaN came from (``scg.core.undefined``).

    A zero by structure absorbs: where a factor of the chain rule is zero because a branch or an element was not taken,
    the product is zero, also when the other factor is infinite or NaN (``scg.absorbing``); where 0 * inf is of computed
    factors the product is NaN. This costs nothing where nothing is infinite: the plain products come first, and only a
    gradient that came out non-finite is computed again with absorbing ones; ``absorbing`` asks for these at once, as a
    graph needs that is replayed at other values.
    """
    roots = [root.operands[1] if root.primitive is estimate else root for root in roots]
    known = known or reach(roots, min([node.id for node in wrt], default=0))
    wanted = {node.id for node in wrt}
    shares = _shares(known.order) if nearby and (not create_graph or RECORDER.get() is not None) else []
    wanted.update([node.id for node in shares])
    if known.leaves <= wanted and not known.older:  # then every node leads to a wanted one
        needed = wanted.union([node.id for node in known.order if node.primitive.vjps or node.primitive.every])
    else:
        needed = _leading_to(wanted, known.order)
    table: dict[int, Result] = {}
    for root, seed in zip(roots, seeds, strict=True):
        if root.id in needed:
            table[root.id] = _sum(table.get(root.id), seed)
    seeking = nan_is_sought()  # a NaN that a zero absorbs is none
    if RECORDER.get() is None and any([is_nan(root) and np.any(s) for root, s in zip(roots, seeds, strict=True)]):
        found = _pull_undefined(known.order, table, roots, wanted, create_graph)
        if create_graph:
            return [found[x.id] if x.id in found else np.zeros(x.shape, x.dtype) for x in wrt]
        return _owned([found.get(x.id) for x in wrt], wrt, seeds)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        found = {} if seeking or absorbing else _pull(known.order, dict(table), wanted, needed, create_graph, forget)
        if seeking or absorbing or not all(map(_finite, found.values())):
            found = _pull_absorbing(known.order, table, roots, wanted, needed, create_graph)
            if nearby and not all(map(_finite, found.values())):
                found = _limits(found, roots, seeds, wrt, create_graph)
        elif (recorder := RECORDER.get()) is not None:
            recorder.finite([found[x.id] for x in wrt if x.id in found])
    if shares and _matter(shares, found) and not create_graph:
        found = _confirmed(found, roots, seeds, wrt)
    if create_graph:
        return [found[x.id] if x.id in found else np.zeros(x.shape, x.dtype) for x in wrt]
    return _owned([found.get(x.id) for x in wrt], wrt, seeds)


def _limits(
    found: dict[int, Result], roots: Sequence[Node], seeds: Sequence[Result], wrt: Sequence[Node], create_graph: bool
) -> dict[int, Result]:
    if create_graph:
        recorder, marked = RECORDER.get(), [g for g in found.values() if type(g) is Node and has_nan(g.raw)]
        if recorder is not None and marked:  # a plan knows no limits: where it needs one it gives up
            recorder.settle(lambda *gs: any(map(has_nan, gs)), tuple(marked), False)
        return found
    targets = [x for x in wrt if x.id in found]
    plain = [s.raw if type(s) is Node else s for s in seeds]
    near = limits.limit(
        [found[x.id] for x in targets], lambda ys, xs: pull(*_nodes(ys, plain), xs, nearby=False), roots, targets
    )
    return {**found, **{x.id: g for x, g in zip(targets, near, strict=True)}}


def _confirmed(
    found: dict[int, Result], roots: Sequence[Node], seeds: Sequence[Result], wrt: Sequence[Node]
) -> dict[int, Result]:
    targets = [x for x in wrt if x.id in found]
    if not targets:
        return found
    near = limits.confirmed(
        [found[x.id] for x in targets], lambda ys, xs: pull(*_nodes(ys, seeds), xs, nearby=False), roots, targets
    )
    return {x.id: g for x, g in zip(targets, near, strict=True)}


def depends_on_shares(root: Node, seed: Result, floor: int) -> bool:
    """Whether the derivative of a root by nodes of ids of at least ``floor`` is made of shares at a tie."""
    shares = _shares(reach([root], floor).order)
    found = pull([root], [seed], shares, nearby=False) if shares else []
    return _matter(shares, {node.id: g for node, g in zip(shares, found, strict=True)})


def _shares(order: Sequence[Node]) -> list[Node]:
    return [node for node in order if node.primitive.shares is not None]


def _matter(shares: Sequence[Node], found: dict[int, Result]) -> bool:
    """Whether any of some shares is one at a tie and has a cotangent, of those that were ``found``. A plan, which knows
    no limits, gives up there."""
    recorder = RECORDER.get()
    for node in shares:

        def at_a_tie(
            g: Result, *operands: Result, tied: Result = node.primitive.shares, statics: Result = node.statics
        ) -> Result:
            return np.any(np.not_equal(g, 0) & tied(*operands, **(statics or {})))

        if node.id in found and recorder is not None:
            recorder.settle(at_a_tie, (found[node.id], *node.operands), False)
        elif node.id in found and at_a_tie(found[node.id], *values_of(node.operands)):
            return True
    return False


def _nodes(roots: Sequence[Result], seeds: Sequence[Result]) -> tuple[list[Node], list[Result]]:
    pairs = [(y, np.asarray(s, y.dtype)) for y, s in zip(roots, seeds, strict=True) if type(y) is Node]
    return [y for y, _ in pairs], [s for _, s in pairs]


def _pull(
    order: list[Node],
    table: dict[int, Result],
    wanted: set[int],
    needed: set[int],
    create_graph: bool,
    forget: Function | None = None,
) -> dict[int, Result]:
    newest = order[-1].id if order else 0
    found: dict[int, Result] = {}
    take, get = table.pop, table.get
    for node in reversed(order):
        g = take(node.id, None)
        if g is None:
            continue
        if node.id in wanted:
            found[node.id] = g
        vjps, operands, out = node.primitive.vjps, node.operands, node.raw
        n = len(operands)
        if create_graph or n > 2 or node.statics or not vjps or type(out) is tuple:
            _step(node, g, table, needed, create_graph)
            if forget is not None:
                _forget_behind(
                    [g, *[table[o.id] for o in operands if type(o) is Node and o.id in table]],
                    newest,
                    [*table.values(), *found.values()],
                    forget,
                )
            continue
        # what follows is _step for one and for two operands, written out: it is most of what a gradient of small arrays
        # costs
        try:
            if n == 1:
                x = operands[0]
                i = x.id
                if i in needed:
                    value = x.raw
                    d = vjps[0](g, out, value)
                    if getattr(d, "shape", None) != value.shape or d.dtype is not value.dtype:
                        d = None if d is None else unbroadcast(d, value.shape, value.dtype)
                    before = get(i)
                    table[i] = d if before is None else _sum(before, d)
            elif n:
                x, y = operands
                xv = x.raw if type(x) is Node else x
                yv = y.raw if type(y) is Node else y
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


def _forget_behind(stack: list[Result], newest: int, live: list[Result], forget: Result) -> None:
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


def _step(node: Node, g: Result, table: dict[int, Result], needed: set[int], create_graph: bool) -> None:
    """Pull the cotangent ``g`` of one node back to its operands."""
    g, out, arguments = _filled(node, g, create_graph)
    if node.primitive.together is not None:
        for operand, d in zip(node.operands, node.primitive.together(g, out, *arguments, **node.statics), strict=True):
            if type(operand) is Node and operand.id in needed:
                table[operand.id] = _added(table.get(operand.id), _fitting(d, operand.raw))
        return
    for _, operand, vjp in _asked(node, needed):
        try:
            d = vjp(g, out, *arguments, **node.statics)
        except Exception as error:
            if _is_zero(g):  # nothing was asked of a derivative that does not exist
                unplanned(f"{node!r} has no derivative, and needs none only where its cotangent is zero")
                continue
            _raise_at(error, node)
        if d is not None:
            table[operand.id] = _added(table.get(operand.id), _fitting(d, operand.raw))


def _filled(node: Node, g: Result, create_graph: bool) -> tuple[Result, Result, Result]:
    """What a VJP is called with: the cotangent, with zeros for results that nobody used, the result, the operands."""
    out: Result = node.raw
    if type(out) is tuple:
        g = tuple([np.zeros_like(v) if c is None else c for c, v in zip(g, out, strict=True)])
        out = [item(node, index=k) for k in range(len(out))] if create_graph else out
    elif create_graph:
        out = node
    return g, out, node.operands if create_graph else values_of(node.operands)


def _asked(node: Node, needed: set[int]) -> list[tuple[int, Node, Result]]:
    """The operands that take part of the cotangent: position, node, VJP."""
    vjps = node.primitive.vjps or _each(node.primitive.every, len(node.operands))
    pairs = enumerate(zip(node.operands, vjps, strict=False))
    return [
        (k, operand, vjp)
        for k, (operand, vjp) in pairs
        if type(operand) is Node and operand.id in needed and vjp is not None
    ]


def _fitting(d: Result, value: Result) -> Result:
    if type(value) is not tuple and (getattr(d, "shape", None) != value.shape or d.dtype is not value.dtype):
        return unbroadcast(d, value.shape, value.dtype)
    return d


def _added(before: Result, d: Result) -> Result:
    if type(d) is tuple and before is not None:
        return tuple([_sum(a, b) for a, b in zip(before, d, strict=True)])
    return d if before is None else before + d


def _pull_undefined(
    order: list[Node], table: dict[int, Result], roots: Sequence[Node], wanted: set[int], create_graph: bool
) -> dict[int, Result]:
    """``_pull_absorbing`` for roots that are NaN, and NaN where these came from: ``np.maximum``, of which both sides
    compare as false there, would give zeros."""
    undefined = way(order, roots)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        needed = _leading_to(wanted, order)
        found = _pull_absorbing(order, table, roots, wanted, needed, create_graph, undefined)
    for node in order:
        for k, operand in enumerate(node.operands):
            if (node.id, k) in undefined and operand.id in wanted:
                zero = np.zeros(operand.shape, operand.dtype)
                found[operand.id] = marked(found.get(operand.id, zero), undefined[node.id, k])
    return found


def _pull_absorbing(
    order: list[Node],
    table: dict[int, Result],
    roots: Sequence[Node],
    wanted: set[int],
    needed: set[int],
    create_graph: bool,
    undefined: dict[tuple[int, int], Result] | None = None,
) -> dict[int, Result]:
    """``_pull`` with a support beside each cotangent; by node and operand, ``undefined`` is where no zero may stay."""
    needed = needed & _leading_to(wanted, order)
    supports = {i: np.not_equal(g, 0) for i, g in table.items()}
    known: dict[Result, bool] = {}
    seeking, ambient = nan_is_sought(), AMBIENT.get()
    if ambient is not None and seeking:
        AMBIENT.set(ambient._replace(nan=False))
    try:
        sound = _sound(order, roots, create_graph)
        for node in reversed(order):
            if node.id in table and (node.primitive.differentiable or node.primitive.every):
                g = table[node.id] if node.id in wanted else table.pop(node.id)
                _absorbing_step(
                    node,
                    g,
                    supports.pop(node.id),
                    table,
                    supports,
                    needed,
                    create_graph,
                    sound,
                    known,
                    seeking,
                    undefined,
                )
    finally:
        if seeking:
            AMBIENT.set(ambient)
    return {i: table[i] for i in wanted if i in table}


def _sound(order: list[Node], roots: Sequence[Node], create_graph: bool) -> Result:
    """Whether computed zeros may absorb, see ``scg.absorbing``: the roots are finite, and no steep place inside a
    domain is met."""
    tests = [np.all(np.isfinite(root if create_graph else root.raw)) for root in roots]
    for node in order:
        steep = node.primitive.steep
        if steep is not None:
            tests.append(np.logical_not(np.any(steep(*(node.operands if create_graph else values_of(node.operands))))))
    sound = tests[0] if tests else np.True_
    for test in tests[1:]:
        sound = np.logical_and(sound, test)
    return sound


def _absorbing_step(
    node: Node,
    g: Result,
    support: Result,
    table: Result,
    supports: Result,
    needed: set[int],
    create_graph: bool,
    sound: Result,
    known: Result,
    seeking: bool,
    undefined: Result = None,
) -> None:
    """``_step`` with absorbing products. ``known`` remembers, by VJP, whether it moves."""
    primitive, statics = node.primitive, node.statics
    g, out, arguments = _filled(node, g, create_graph)
    if type(g) is tuple:
        support = tuple([np.zeros(np.shape(c), bool) if s is None else s for c, s in zip(g, support, strict=True)])
    for k, operand, vjp in _asked(node, needed):
        value = operand.raw
        try:
            if primitive.axes is elementwise:
                slope = vjp(np.ones((), g.dtype), out, *arguments, **statics)
                if slope is None:
                    continue
                moving = _moves(slope, vjp, node, needed, create_graph, known)
                d = absorb(g, slope)
                inside = support if moving else support & np.not_equal(slope, 0)
                doubt = absorbing.doubtful(g, slope, inside, sound, _steady(g, slope, inside, vjp, node, arguments))
                d = absorbing.mark(d, doubt, absorbing.rough(g, slope, inside))
                d = np.where(inside, d, 0) if create_graph else d  # zeros by structure for a further derivative, too
                inside = connected(inside, node, k)
            elif primitive.axes is not None and primitive.axes.products:
                d = _absorbing_products(vjp, g, support, out, arguments, statics)
                inside = vjp(
                    support.astype(g.dtype), out, *[np.not_equal(x, 0).astype(g.dtype) for x in arguments], **statics
                )
                inside = np.not_equal(unbroadcast(inside, value.shape, value.dtype), 0)
                if create_graph:
                    d = absorbing.mark(
                        _fitting(d, value), np.False_, _absorbed(vjp, g, support, out, arguments, statics, value)
                    )
            else:
                more = {"support": support} if primitive.supported else {}
                d = vjp(g, out, *arguments, **statics, **more)
                if d is None:
                    continue
                if type(d) is tuple or not _moves(d, vjp, node, needed, create_graph, known):
                    inside = _through(vjp, g, support, out, arguments, statics, value)
                else:
                    inside = connected(support, node, k)
                    d = np.where(inside, _fitting(d, value), 0)
        except Exception as error:
            if _is_zero(g):  # nothing was asked of a derivative that does not exist
                unplanned(f"{node!r} has no derivative, and needs none only where its cotangent is zero")
                continue
            _raise_at(error, node)
        d = _fitting(d, value)
        if undefined and (node.id, k) in undefined:
            d, inside = marked(d, undefined[node.id, k]), inside | undefined[node.id, k]
        if seeking and has_nan(d.raw if type(d) is Node else d):
            raise NonFiniteError(
                f"the derivative of {node!r}, made at {node.line}, is a NaN for operand {k} ({here()})"
            )
        i = operand.id
        table[i] = _added(table.get(i), d)
        before = supports.get(i)
        if before is None:
            supports[i] = inside
        elif type(inside) is tuple:
            supports[i] = tuple(
                [b if a is None else a if b is None else a | b for a, b in zip(before, inside, strict=True)]
            )
        else:
            supports[i] = before | inside


def _moves(d: Result, vjp: Function, node: Node, needed: set[int], create_graph: bool, known: Result) -> bool:
    """Whether the coefficients of a VJP depend on what we differentiate by: traced on nodes."""
    sources = {node.id, *[o.id for o in node.operands if type(o) is Node and o.id in needed]}
    if create_graph:
        return absorbing.moves(d, sources, node.id) if type(d) is Node else False
    key = vjp, tuple([type(o) is Node and o.id in needed for o in node.operands])
    if key not in known or node.primitive.every:
        newest = absorbing.stamp()
        try:
            _, out, arguments = _filled(node, (None,) * len(node.raw) if type(node.raw) is tuple else None, True)
            ones = tuple(map(np.ones_like, node.raw)) if type(node.raw) is tuple else np.ones(node.shape, node.dtype)
            known[key] = absorbing.moves(vjp(ones, out, *arguments, **node.statics), sources, newest)
        except Exception:  # it serves arrays alone
            known[key] = True
    return known[key]


def _through(
    vjp: Function, g: Result, support: Result, out: Result, arguments: Operands, statics: Statics, value: Result
) -> Result:
    """The support of an operand by a VJP with fixed coefficients: where it takes something else than zero out of the
    support."""
    if type(g) is tuple:
        counted: Result = tuple([absorbing.weights(s, c.dtype) for s, c in zip(support, g, strict=True)])
    else:
        counted = absorbing.weights(support, g.dtype)
    d = vjp(counted, out, *arguments, **statics)
    if type(d) is tuple:
        return tuple([None if c is None else np.not_equal(c, 0) for c in d])
    d = np.absolute(d) if d.dtype.kind == "c" else d
    return np.not_equal(unbroadcast(d, value.shape, d.dtype), 0)


def _steady(g: Result, slope: Result, support: Result, vjp: Function, node: Node, arguments: Operands) -> Result:
    """Where an infinite slope that meets a computed zero is infinite nearby too."""
    if not settled(lambda g, slope, support: np.any(support & (g == 0) & np.isinf(slope)), g, slope, support):
        return np.False_
    near = [_nearby(x) if getattr(x, "dtype", np.dtype(bool)).kind == "f" else x for x in arguments]
    return np.isinf(vjp(np.ones((), g.dtype), node.primitive(*near, **node.statics), *near, **node.statics))


def _nearby(x: Result) -> Result:
    return np.where(np.equal(x, 0), 1e-10, x * (1 - 2.0**-10)).astype(x.dtype)


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


def _is_absorbed(g: Result, slope: Result) -> Result:
    return ((g == 0) | (slope == 0)) & ~np.isfinite(g * slope)


def _absorb(g: Result, slope: Result) -> Result:
    return np.where(_is_absorbed(g, slope), 0, g * slope)


absorb: Result = primitive(
    lambda g, slope: _absorb(g, slope).astype(np.result_type(g, slope), copy=False),
    elementwise,
    lambda h, out, g, slope: np.where(_is_absorbed(g, slope), np.where(np.equal(g, 0), 0, np.nan), absorb(h, slope)),
    lambda h, out, g, slope: np.where(_is_absorbed(g, slope), np.where(np.equal(g, 0), 0, np.nan), absorb(h, g)),
    name="absorb",
)


def _absorbing_products(
    vjp: Function, g: Result, support: Result, out: Result, arguments: Operands, statics: Statics
) -> Result:
    """A VJP that sums products of ``g`` and operands, without the products that have a zero among their factors.

    The sum over finite factors is the VJP of finite factors. As the VJP is a polynomial with coefficients of one, it
    also counts: put 1 for all that is not zero (of ``g``: not zero by structure), and it gives the number of other
    products; put signs, and it gives how many more of them are positive than negative.
    """
    if settled(lambda *x: all(map(_finite, x)), g, *arguments):
        return vjp(g, out, *arguments, **statics)

    def over(change: Function, first: Result) -> tuple[Result, Result]:
        every = vjp(first, out, *map(change, arguments), **statics)
        return every, vjp(
            np.where(np.isfinite(g), first, 0), out, *[change(_where_finite(x)) for x in arguments], **statics
        )

    present, present_finite = over(lambda x: np.not_equal(x, 0).astype(g.dtype), support.astype(g.dtype))
    sign = lambda x: np.where(np.isnan(x), 0, np.sign(x))
    signs, signs_finite = over(sign, sign(g))
    finite = vjp(_where_finite(g), out, *map(_where_finite, arguments), **statics)
    return _with_infinite(finite, present - present_finite, signs - signs_finite)


def _absorbed(
    vjp: Function, g: Result, support: Result, out: Result, arguments: Operands, statics: Statics, value: Result
) -> Result:
    """Where zeros of operands have absorbed cotangents that are not finite: there may be a kink."""
    loud = (support & ~np.isfinite(g)).astype(g.dtype)
    count = vjp(loud, out, *[np.ones(x.shape, x.dtype) for x in arguments], **statics) - vjp(
        loud, out, *[np.not_equal(x, 0).astype(x.dtype) for x in arguments], **statics
    )
    return np.not_equal(unbroadcast(count, value.shape, value.dtype), 0)


def _where_finite(x: Result) -> Result:
    return np.where(np.isfinite(x), x, 0)


_with_infinite: Result = primitive(
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


def results(node: Result) -> Result:
    """The results of a primitive that has several, as a tuple of Nodes (or, computed on arrays, of arrays)."""
    return tuple([item(node, index=k) for k in range(len(node.raw))]) if type(node) is Node else node


def _values(results: Result) -> Result:
    return results.raw if type(results) is Node else results


def _sum(a: Result, b: Result) -> Result:
    return b if a is None else a if b is None else a + b


def _finite(g: Result) -> bool:
    if g is None:
        return True
    return bool(np.isfinite(np.add.reduce(g.raw if type(g) is Node else g, axis=None)))


def _is_zero(g: Result) -> bool:
    if type(g) is tuple:
        return all(map(_is_zero, g))
    return not np.any(g.raw if type(g) is Node else g)


def _owned(found: list[Result], wrt: Sequence[Node], seeds: Sequence[Result]) -> list[Result]:
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
