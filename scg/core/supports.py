"""Reverse mode with a support beside each cotangent: where a zero is one by structure, and absorbs what it meets
(``scg.core.absorbing``)."""

from collections.abc import Collection, Sequence

import numpy as np

from scg.core import absorbing
from scg.core.aliases import Function, Operands, Result, Statics
from scg.core.ambient import AMBIENT, nan_is_sought, settled, unplanned
from scg.core.axes import elementwise
from scg.core.cotangents import (
    accumulated,
    called_with,
    fitted,
    is_finite,
    is_zero,
    leading_to,
    operands_with_vjps,
    raise_at,
    unbroadcast,
)
from scg.core.node import Node, values_of
from scg.core.operands import has_nan
from scg.core.primitive import smooth_primitive
from scg.core.ties import branched
from scg.core.undefined import connected, marked, way
from scg.errors import NonFiniteError, here


def pull_undefined(
    order: list[Node], table: dict[int, Result], roots: Sequence[Node], wanted: set[int], create_graph: bool
) -> dict[int, Result]:
    """``pull_with_supports`` for roots that are NaN, and NaN where these came from: ``np.maximum``, of which both sides
    compare as false there, would give zeros."""
    undefined = way(order, roots)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        needed = leading_to(wanted, order)
        found = pull_with_supports(order, table, roots, wanted, needed, create_graph, undefined)
    for node in order:
        for k, operand in enumerate(node.operands):
            if (node.id, k) in undefined and operand.id in wanted:
                zero = np.zeros(operand.shape, operand.dtype)
                found[operand.id] = marked(found.get(operand.id, zero), undefined[node.id, k])
    return found


def pull_with_supports(
    order: list[Node],
    table: dict[int, Result],
    roots: Sequence[Node],
    wanted: set[int],
    needed: set[int],
    create_graph: bool,
    undefined: dict[tuple[int, int], Result] | None = None,
    rest: Collection[int] = (),
) -> dict[int, Result]:
    """``pull`` with a support beside each cotangent; by node and operand, ``undefined`` is where no zero may stay;
    ``rest`` lies on a jump."""
    needed = needed & leading_to(wanted, order)
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
                    rest,
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
    rest: Collection[int] = (),
) -> None:
    """One step with absorbing products. ``known`` remembers, by VJP, whether it moves."""
    primitive, statics = node.primitive, node.statics
    g, out, arguments = called_with(node, g, create_graph)
    if type(g) is tuple:
        support = tuple([np.zeros(np.shape(c), bool) if s is None else s for c, s in zip(g, support, strict=True)])
    for k, operand, vjp in operands_with_vjps(node, needed):
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
                        fitted(d, value), np.False_, _absorbed(vjp, g, support, out, arguments, statics, value)
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
                    d = np.where(inside, fitted(d, value), 0)
        except Exception as error:
            if is_zero(g):  # nothing was operands_with_vjps of a derivative that does not exist
                unplanned(f"{node!r} has no derivative, and needs none only where its cotangent is zero")
                continue
            raise_at(error, node)
        d = branched(fitted(d, value), node, rest)
        if undefined and (node.id, k) in undefined:
            d, inside = marked(d, undefined[node.id, k]), inside | undefined[node.id, k]
        if seeking and has_nan(d.raw if type(d) is Node else d):
            raise NonFiniteError(
                f"the derivative of {node!r}, made at {node.line}, is a NaN for operand {k} ({here()})"
            )
        i = operand.id
        table[i] = accumulated(table.get(i), d)
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
            _, out, arguments = called_with(node, (None,) * len(node.raw) if type(node.raw) is tuple else None, True)
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


def _is_absorbed(g: Result, slope: Result) -> Result:
    return ((g == 0) | (slope == 0)) & ~np.isfinite(g * slope)


def _absorb(g: Result, slope: Result) -> Result:
    return np.where(_is_absorbed(g, slope), 0, g * slope)


absorb: Result = smooth_primitive(
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
    if settled(lambda *x: all(map(is_finite, x)), g, *arguments):
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


_with_infinite: Result = smooth_primitive(
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
