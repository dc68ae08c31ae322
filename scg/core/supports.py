"""Reverse mode with a support beside each cotangent: where a zero is one by structure, and absorbs what it meets
(``scg.core.absorbing``)."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from scg.core import absorbing
from scg.core.aliases import Function, Operands, Result
from scg.core.ambient import AMBIENT, RECORDER, nan_is_sought, settled, unplanned
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
from scg.core.limits import mended
from scg.core.node import Node, value_of, values_of
from scg.core.operands import has_nan
from scg.core.primitive import smooth_primitive
from scg.core.still import stays
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
    seeking, ambient = nan_is_sought(), AMBIENT.get()
    if ambient is not None and seeking:
        AMBIENT.set(ambient._replace(nan=False))
    try:
        moving = [node for node in order if node.id in wanted]
        sound = _sound(order, roots, create_graph)
        walk = _Walk(table, moving, needed, create_graph, sound, seeking, undefined or {}, rest)
        for node in reversed(order):
            if node.id in table and (node.primitive.differentiable or node.primitive.every):
                walk.step(node, table[node.id] if node.id in wanted else table.pop(node.id))
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


class _Call(NamedTuple):
    """What the VJPs of a node are called with, and the support of the cotangent."""

    node: Node
    g: Result
    support: Result
    out: Result
    arguments: Operands

    def by(self, vjp: Function, g: Result, arguments: Operands | None = None, **more: Result) -> Result:
        """What a VJP makes of a cotangent, at other arguments if any are given."""
        return vjp(g, self.out, *(self.arguments if arguments is None else arguments), **self.node.statics, **more)


class _Walk:
    """The way back: by id, cotangents in ``table`` and their supports.

    Of c = sum(where(x > 0, log(x), 0)) at x (3,) = (2, 0, 1) the cotangent of log(x) is (1, 0, 1), with the support
    (True, False, True). The slope of log is (.5, inf, 1): 0 * inf lies outside the support, so that it is a zero, and
    that of x is (.5, 0, 1).
    """

    def __init__(
        self,
        table: dict[int, Result],
        wanted: list[Node],
        needed: set[int],
        create_graph: bool,
        sound: Result,
        seeking: bool,
        undefined: dict[tuple[int, int], Result],
        rest: Collection[int],
    ):
        self.table, self.wanted, self.needed = table, wanted, needed
        self.create_graph, self.sound = create_graph, sound
        self.seeking, self.undefined, self.rest = seeking, undefined, rest
        self.supports: dict[int, Result] = {i: np.not_equal(g, 0) for i, g in table.items()}
        self.known: dict[tuple[Function, tuple[bool, ...]], bool] = {}  # whether VJPs move

    def step(self, node: Node, g: Result) -> None:
        """Pull the cotangent of a node back to its operands, with absorbing products."""
        support = self.supports.pop(node.id)
        g, out, arguments = called_with(node, g, self.create_graph)
        if type(g) is tuple:
            support = tuple([np.zeros(np.shape(c), bool) if s is None else s for c, s in zip(g, support, strict=True)])
        call = _Call(node, g, support, out, arguments)
        for k, operand, vjp in operands_with_vjps(node, self.needed):
            try:
                found = self._pulled(call, k, vjp, operand.raw)
            except Exception as error:
                if is_zero(g):  # nothing was operands_with_vjps of a derivative that does not exist
                    unplanned(f"{node!r} has no derivative, and needs none only where its cotangent is zero")
                    continue
                raise_at(error, node)
            if found is not None:
                self._add(node, k, operand, *found)

    def _pulled(self, call: _Call, k: int, vjp: Function, value: Result) -> tuple[Result, Result] | None:
        """The cotangent of operand k, whose value is ``value``, and its support; None where nothing is pulled back."""
        axis_map = call.node.primitive.axes
        if axis_map is elementwise:
            return self._elementwise(call, k, vjp)
        if axis_map is not None and axis_map.products:
            return self._products(call, vjp, value)
        more = {"support": call.support} if call.node.primitive.supported else {}
        d = call.by(vjp, call.g, **more)
        if d is None:
            return None
        if type(d) is tuple or not self._moves(d, vjp, call.node):
            return d, _through(call, vjp, value)
        inside = connected(call.support, call.node, k)
        return np.where(inside, fitted(d, value), 0), inside

    def _elementwise(self, call: _Call, k: int, vjp: Function) -> tuple[Result, Result] | None:
        g, inside = call.g, call.support
        slope = call.by(vjp, np.ones((), g.dtype))
        if slope is None:
            return None
        if not self._moves(slope, vjp, call.node):
            inside = inside & np.not_equal(slope, 0)
        doubt = absorbing.doubtful(g, slope, inside, self.sound, _steady(call, slope, inside, vjp))
        d = absorbing.mark(absorb(g, slope), doubt, absorbing.rough(g, slope, inside))
        d = np.where(inside, d, 0) if self.create_graph else d  # zeros by structure for a further derivative, too
        return d, connected(inside, call.node, k)

    def _products(self, call: _Call, vjp: Function, value: Result) -> tuple[Result, Result]:
        g, support, dtype = call.g, call.support, call.g.dtype
        d = _absorbing_products(call, vjp)
        moving = [type(o) is Node and o.id in self.needed for o in call.node.operands]
        present = _present(call, moving)
        inside = unbroadcast(call.by(vjp, support.astype(dtype), present), value.shape, value.dtype)
        if not settled(is_finite, g):
            doubt = _absorbed(call, vjp, value, support & (np.isnan(g) | np.isinf(g) & ~self.sound), present)
            kink = _absorbed(call, vjp, value, support & ~np.isfinite(g)) if self.create_graph else np.False_
            d = absorbing.mark(fitted(d, value), doubt, kink)
        return d, np.not_equal(inside, 0)

    def _add(self, node: Node, k: int, operand: Node, d: Result, inside: Result) -> None:
        """Add to the cotangent of operand k, and to its support."""
        d = branched(fitted(d, operand.raw), node, self.rest)
        if type(d) is not tuple and RECORDER.get() is None and not is_finite(d) and value_of(self.sound):
            d, inside = self._without_still(operand, d, inside)
        if (node.id, k) in self.undefined:
            d, inside = marked(d, self.undefined[node.id, k]), inside | self.undefined[node.id, k]
        if self.seeking and has_nan(value_of(d)):
            raise NonFiniteError(
                f"the derivative of {node!r}, made at {node.line}, is a NaN for operand {k} ({here()})"
            )
        i = operand.id
        self.table[i] = accumulated(self.table.get(i), d)
        before = self.supports.get(i)
        if before is None:
            self.supports[i] = inside
        elif type(inside) is tuple:
            self.supports[i] = tuple([_either(a, b) for a, b in zip(before, inside, strict=True)])
        else:
            self.supports[i] = before | inside

    def _without_still(self, operand: Node, d: Result, inside: Result) -> tuple[Result, Result]:
        """A cotangent that is not finite, and its support, without elements of the operand that stay as they are."""
        still = stays(operand, self.wanted)
        if type(d) is Node:
            return mended([d], [np.where(still, 0, np.nan)], [operand, d])[0], inside & ~still
        return np.where(still & ~np.isfinite(d), 0, d).astype(d.dtype, copy=False), inside & ~still

    def _moves(self, d: Result, vjp: Function, node: Node) -> bool:
        """Whether the coefficients of a VJP depend on what we differentiate by: traced on nodes."""
        needed = self.needed
        sources = {node.id, *[o.id for o in node.operands if type(o) is Node and o.id in needed]}
        if self.create_graph:
            return absorbing.moves(d, sources, node.id) if type(d) is Node else False
        key = vjp, tuple([type(o) is Node and o.id in needed for o in node.operands])
        if key not in self.known or node.primitive.every:
            newest = absorbing.stamp()
            several = type(node.raw) is tuple
            try:
                _, out, arguments = called_with(node, (None,) * len(node.raw) if several else None, True)
                ones = tuple(map(np.ones_like, node.raw)) if several else np.ones(node.shape, node.dtype)
                self.known[key] = absorbing.moves(vjp(ones, out, *arguments, **node.statics), sources, newest)
            except Exception:  # it serves arrays alone
                self.known[key] = True
        return self.known[key]


def _either(a: Result, b: Result) -> Result:
    return b if a is None else a if b is None else a | b


def _through(call: _Call, vjp: Function, value: Result) -> Result:
    """The support of an operand by a VJP with fixed coefficients: where it takes something else than zero out of the
    support."""
    if type(call.g) is tuple:
        counted: Result = tuple([absorbing.weights(s, c.dtype) for s, c in zip(call.support, call.g, strict=True)])
    else:
        counted = absorbing.weights(call.support, call.g.dtype)
    d = call.by(vjp, counted)
    if type(d) is tuple:
        return tuple([None if c is None else np.not_equal(c, 0) for c in d])
    d = np.absolute(d) if d.dtype.kind == "c" else d
    return np.not_equal(unbroadcast(d, value.shape, d.dtype), 0)


def _steady(call: _Call, slope: Result, support: Result, vjp: Function) -> Result:
    """Where an infinite slope that meets a computed zero is infinite nearby too."""
    g, node = call.g, call.node
    if not settled(lambda g, slope, support: np.any(support & (g == 0) & np.isinf(slope)), g, slope, support):
        return np.False_
    near = [_nearby(x) if getattr(x, "dtype", np.dtype(bool)).kind in "fc" else x for x in call.arguments]
    return np.isinf(vjp(np.ones((), g.dtype), node.primitive(*near, **node.statics), *near, **node.statics))


def _nearby(x: Result) -> Result:
    least = max(1e-10, np.sqrt(np.finfo(x.dtype).tiny))  # 1e-10 is zero in half precision
    return np.where(np.equal(x, 0), least, x * (1 - 2.0**-10)).astype(x.dtype)


def _is_absorbed(g: Result, slope: Result) -> Result:
    return ((g == 0) | (slope == 0)) & ~np.isfinite(g * slope)


def _absorb(g: Result, slope: Result) -> Result:
    with np.errstate(invalid="ignore"):  # in a replay as in a backward pass
        return np.where(_is_absorbed(g, slope), 0, g * slope)


absorb: Result = smooth_primitive(
    lambda g, slope: _absorb(g, slope).astype(np.result_type(g, slope), copy=False),
    elementwise,
    lambda h, out, g, slope: np.where(_is_absorbed(g, slope), np.where(np.equal(g, 0), 0, np.nan), absorb(h, slope)),
    lambda h, out, g, slope: np.where(_is_absorbed(g, slope), np.where(np.equal(g, 0), 0, np.nan), absorb(h, g)),
    name="absorb",
)


def _absorbing_products(call: _Call, vjp: Function) -> Result:
    """A VJP that sums products of ``g`` and operands, without the products that have a zero among their factors.

    The sum over finite factors is the VJP of finite factors. As the VJP is a polynomial with coefficients of one, it
    also counts: put 1 for all that is not zero (of ``g``: not zero by structure), and it gives the number of other
    products; put signs, and it gives how many more of them are positive than negative.
    """
    g, arguments = call.g, call.arguments
    if settled(lambda *x: all(map(is_finite, x)), g, *arguments):
        return call.by(vjp, g)

    def over(change: Function, first: Result) -> tuple[Result, Result]:
        every = call.by(vjp, first, tuple(map(change, arguments)))
        finite = tuple([change(_where_finite(x)) for x in arguments])
        return every, call.by(vjp, np.where(np.isfinite(g), first, 0), finite)

    present, present_finite = over(lambda x: np.not_equal(x, 0).astype(g.dtype), call.support.astype(g.dtype))
    sign = lambda x: np.where(np.isnan(x), 0, np.sign(x))
    signs, signs_finite = over(sign, sign(g))
    finite = call.by(vjp, _where_finite(g), tuple(map(_where_finite, arguments)))
    return _with_infinite(finite, present - present_finite, signs - signs_finite)


def _present(call: _Call, moving: Sequence[bool] = ()) -> Operands:
    """For the operands of products, 1 where they are not zero, and 0 where they are; 1 too where zeros are
    ``moving``, since those are no zeros by structure."""
    dtype = call.g.dtype
    moving = moving or (False,) * len(call.arguments)
    return tuple(
        [
            np.ones(x.shape, dtype) if moves else np.not_equal(x, 0).astype(dtype)
            for x, moves in zip(call.arguments, moving, strict=True)
        ]
    )


def _absorbed(call: _Call, vjp: Function, value: Result, loud: Result, every: Operands | None = None) -> Result:
    """Where zeros of operands have absorbed a ``loud`` cotangent; zeros that are in ``every`` as well do not count."""
    loud = loud.astype(call.g.dtype)
    every = _present(call, (True,) * len(call.arguments)) if every is None else every
    count = call.by(vjp, loud, every) - call.by(vjp, loud, _present(call))
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
