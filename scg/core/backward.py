"""Reverse mode: cotangents pulled back through a recorded graph, on raw arrays or, for higher orders, on Nodes."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from scg.core import limits
from scg.core.aliases import Function, Result
from scg.core.ambient import RECORDER, nan_is_sought, unplanned
from scg.core.axes import first
from scg.core.cotangents import (
    accumulated,
    called_with,
    fitted,
    is_finite,
    is_zero,
    leading_to,
    operands_with_vjps,
    raise_at,
    sum_of,
    unbroadcast,
)
from scg.core.node import Node, values_of
from scg.core.operands import has_nan
from scg.core.primitive import smooth_primitive
from scg.core.supports import pull_undefined, pull_with_supports
from scg.core.ties import branched, isolated, moving_steps, resting, rests
from scg.core.undefined import is_nan


class Reach(NamedTuple):
    """The nodes that lead to some roots and are not older than what one differentiates by, as ``reach`` finds them."""

    order: list[Node]  # by growing id
    leaves: set[int]  # ids of those without operands
    older: bool  # whether anything was older, and left out
    chosen: bool  # whether an ``if`` on a node, or a stochastic node, stands among them
    guarded: bool  # whether an ``if`` does


def reach(roots: Sequence[Node], floor: int) -> Reach:
    """All nodes with ids of at least ``floor`` that lead to ``roots``, and what callers ask about them, in one
    search."""
    seen = {root.id: root for root in roots if root.id >= floor}
    stack = list(seen.values())
    leaves = set()
    older, chosen, guarded = any(root.id < floor for root in roots), False, False
    while stack:
        node = stack.pop()
        if node.guard is not None:
            guarded = True
        elif node.statics and "site" in node.statics:
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
    return Reach([seen[i] for i in sorted(seen)], leaves, older, chosen or guarded, guarded)


estimate = smooth_primitive(
    lambda value, surrogate, *draws: value,
    first,
    every=lambda g, i, out, *operands: None if i else g,
    name="estimate",
    same=True,
)
"""An estimate, which is a value like any other: its derivative is that of the value, at the samples as they are.

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
    recorder = RECORDER.get()
    asked = {node.id for node in wrt}
    shares = _shares(known.order) if nearby and (not create_graph or recorder is not None) else []
    wanted = asked.union([node.id for node in shares])
    needed = _needed(known, wanted)
    rest = resting(known.order, asked) if create_graph and recorder is None else ()
    if recorder is not None and nearby:
        _settle_ties(known.order, asked, recorder)
    table: dict[int, Result] = {}
    for root, seed in zip(roots, seeds, strict=True):
        if root.id in needed:
            table[root.id] = sum_of(table.get(root.id), seed)
    seeking = nan_is_sought()  # a NaN that a zero absorbs is none
    if recorder is None and any([is_nan(root) and np.any(s) for root, s in zip(roots, seeds, strict=True)]):
        return _of(pull_undefined(known.order, table, roots, wanted, create_graph), wrt, seeds, create_graph)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        found: dict[int, Result] = {}
        if not (seeking or absorbing):
            found = (
                _pull_nodes(known.order, dict(table), wanted, needed, forget, rest)
                if create_graph
                else _pull_arrays(known.order, dict(table), wanted, needed)
            )
        if seeking or absorbing or not all(map(is_finite, found.values())):
            found = pull_with_supports(known.order, table, roots, wanted, needed, create_graph, rest=rest)
            if nearby and not all(map(is_finite, found.values())):
                found = _limits(found, roots, seeds, wrt, create_graph)
        elif recorder is not None:
            recorder.finite([found[x.id] for x in wrt if x.id in found])
    if recorder is not None:
        recorder.pulled(known.order[-1].id if known.order else 0)
    if shares and _matter(shares, found) and not create_graph:
        found = _confirmed(found, roots, seeds, wrt, limits.confirmed)
    elif nearby and (not create_graph or recorder is None) and any(map(rests, isolated(known.order, asked))):
        found = _confirmed(found, roots, seeds, wrt, limits.beside)
    return _of(found, wrt, seeds, create_graph)


def _needed(known: Reach, wanted: set[int]) -> set[int]:
    """Ids of the nodes to which cotangents are pulled on the way to the wanted ones."""
    if known.leaves <= wanted and not known.older:  # then every node leads to a wanted one
        return wanted.union([node.id for node in known.order if node.primitive.vjps or node.primitive.every])
    return leading_to(wanted, known.order)


def _of(found: dict[int, Result], wrt: Sequence[Node], seeds: Sequence[Result], create_graph: bool) -> list[Result]:
    """The cotangents of the nodes ``wrt``, zeros where none was found."""
    if create_graph:
        return [found[x.id] if x.id in found else np.zeros(x.shape, x.dtype) for x in wrt]
    return _owned([found.get(x.id) for x in wrt], wrt, seeds)


def _limits(
    found: dict[int, Result], roots: Sequence[Node], seeds: Sequence[Result], wrt: Sequence[Node], create_graph: bool
) -> dict[int, Result]:
    recorder = RECORDER.get()
    if recorder is not None:  # a plan knows no limits: where it needs one it gives up
        marked = [g for g in found.values() if type(g) is Node and has_nan(g.raw)]
        if marked:
            recorder.settle(lambda *gs: any(map(has_nan, gs)), tuple(marked), False)
        return found
    targets = [x for x in wrt if x.id in found]
    plain = [s.raw if type(s) is Node else s for s in seeds]
    near = limits.limit(
        [found[x.id] for x in targets], lambda ys, xs: pull(*_nodes(ys, plain), xs, nearby=False), roots, targets
    )
    if create_graph:
        near = limits.mended([found[x.id] for x in targets], near, [*roots, *seeds])
    return {**found, **{x.id: g for x, g in zip(targets, near, strict=True)}}


def _confirmed(
    found: dict[int, Result], roots: Sequence[Node], seeds: Sequence[Result], wrt: Sequence[Node], how: Function
) -> dict[int, Result]:
    targets = [x for x in wrt if x.id in found]
    if not targets:
        return found
    given, plain = [[y.raw if type(y) is Node else y for y in some] for some in ([found[x.id] for x in targets], seeds)]
    near = how(given, lambda ys, xs: pull(*_nodes(ys, plain), xs, nearby=False), roots, targets)
    near = limits.replaced([found[x.id] for x in targets], near, [*roots, *seeds])
    return {x.id: g for x, g in zip(targets, near, strict=True)}


def depends_on_shares(root: Node, seed: Result, floor: int) -> bool:
    """Whether the derivative of a root by nodes of ids of at least ``floor`` is made of shares at a tie."""
    shares = _shares(reach([root], floor).order)
    found = pull([root], [seed], shares, nearby=False) if shares else []
    return _matter(shares, {node.id: g for node, g in zip(shares, found, strict=True)})


def rests_beside(root: Node, wrt: Sequence[Node]) -> bool:
    """Whether a mask on the way to a root belongs, where it is, to neither side of its jump."""
    known = reach([root], min([x.id for x in wrt], default=0))
    return any(map(rests, isolated(known.order, {x.id for x in wrt})))


def _shares(order: Sequence[Node]) -> list[Node]:
    return [node for node in order if node.primitive.shares is not None]


def _matter(shares: Sequence[Node], found: dict[int, Result]) -> bool:
    """Whether any of some shares is one at a tie and has a cotangent, of those that were ``found``. A plan, which knows
    no limits, gives up there.

    A cotangent of zero counts: of max(x^2, 0) at 0 the slope is 2 x times a half, and the half stays in the second
    derivative.
    """
    recorder = RECORDER.get()
    for node in shares:
        at_a_tie = _any(node.primitive.shares, node.statics)
        if node.id in found and recorder is not None:
            recorder.settle(at_a_tie, node.operands, False)
        elif node.id in found and at_a_tie(*values_of(node.operands)):
            return True
    return False


def _settle_ties(order: list[Node], wanted: set[int], recorder: Result) -> None:
    """Let a plan give up where a step lies on its jump: of a derivative of a derivative, or where its mask belongs to
    neither side."""
    steps = moving_steps(order, wanted)[0] if recorder.has_derivatives(order) else isolated(order, wanted)
    for node in steps:
        recorder.settle(_any(node.primitive.ties, node.statics), node.operands, False)


def _any(test: Result, statics: Result) -> Function:
    return lambda *operands: np.any(test(*operands, **(statics or {})))


def _nodes(roots: Sequence[Result], seeds: Sequence[Result]) -> tuple[list[Node], list[Result]]:
    pairs = [(y, np.asarray(s, y.dtype)) for y, s in zip(roots, seeds, strict=True) if type(y) is Node]
    return [y for y, _ in pairs], [s for _, s in pairs]


def _pull_nodes(
    order: list[Node],
    table: dict[int, Result],
    wanted: set[int],
    needed: set[int],
    forget: Function | None,
    rest: Collection[int],
) -> dict[int, Result]:
    """Cotangents of the wanted nodes, by id, as Nodes."""
    newest = order[-1].id if order else 0
    found: dict[int, Result] = {}
    live = Counter[int]()  # how often each node is a cotangent
    if forget is not None:
        live.update(_ids(table.values()))
    for node in reversed(order):
        g = table.pop(node.id, None)
        if g is None:
            continue
        if node.id in wanted:
            found[node.id] = g
        if forget is None:
            _step(node, g, table, needed, True, rest)
            continue
        behind = {o.id for o in node.operands if type(o) is Node}
        live.subtract(_ids([table[i] for i in behind if i in table]))
        live.subtract(_ids([] if node.id in wanted else [g]))
        _step(node, g, table, needed, True, rest)
        made = [table[i] for i in behind if i in table]
        live.update(_ids(made))
        _forget_behind([g, *made], newest, live, forget)
    return found


def _pull_arrays(order: list[Node], table: dict[int, Result], wanted: set[int], needed: set[int]) -> dict[int, Result]:
    """Cotangents of the wanted nodes, by id, as arrays."""
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
        if n > 2 or node.statics or not vjps or type(out) is tuple:
            _step(node, g, table, needed, False, ())
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
                    table[i] = d if before is None else sum_of(before, d)
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
                    table[i] = d if before is None else sum_of(before, d)
                vjp = vjps[1]
                if type(y) is Node and vjp is not None and y.id in needed:
                    i = y.id
                    d = vjp(g, out, xv, yv)
                    if getattr(d, "shape", None) != yv.shape or d.dtype is not yv.dtype:
                        d = None if d is None else unbroadcast(d, yv.shape, yv.dtype)
                    before = get(i)
                    table[i] = d if before is None else sum_of(before, d)
        except Exception as error:
            if not is_zero(g):
                raise_at(error, node)
    return found


def _ids(parts: Iterable[Result]) -> list[int]:
    """The ids of the nodes among some cotangents, of which a tuple is several."""
    return [g.id for part in parts for g in (part if type(part) is tuple else (part,)) if type(g) is Node]


def _forget_behind(stack: list[Result], newest: int, live: Counter[int], forget: Result) -> None:
    """Forget the nodes younger than ``newest`` behind some cotangents, but for those that are cotangents still."""
    seen: set[int] = set()
    stack = [g for part in stack for g in (part if type(part) is tuple else (part,))]
    while stack:
        node = stack.pop()
        if type(node) is not Node or node.id <= newest or node.id in seen:
            continue
        seen.add(node.id)
        if live[node.id] > 0 or forget(node):
            stack += node.operands


def _step(
    node: Node, g: Result, table: dict[int, Result], needed: set[int], create_graph: bool, rest: Collection[int]
) -> None:
    """Pull the cotangent ``g`` of one node back to its operands; ``rest`` lies on a jump (``scg.core.ties``)."""
    g, out, arguments = called_with(node, g, create_graph)
    if node.primitive.together is not None:
        for operand, d in zip(node.operands, node.primitive.together(g, out, *arguments, **node.statics), strict=True):
            if type(operand) is Node and operand.id in needed:
                table[operand.id] = accumulated(table.get(operand.id), fitted(d, operand.raw))
        return
    for _, operand, vjp in operands_with_vjps(node, needed):
        try:
            d = vjp(g, out, *arguments, **node.statics)
        except Exception as error:
            if is_zero(g):  # nothing was operands_with_vjps of a derivative that does not exist
                unplanned(f"{node!r} has no derivative, and needs none only where its cotangent is zero")
                continue
            raise_at(error, node)
        if d is not None:
            table[operand.id] = accumulated(table.get(operand.id), branched(fitted(d, operand.raw), node, rest))


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
