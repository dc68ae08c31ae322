"""Whether the cost jumps where parameters move the place of the jump: there no estimator that differentiates the cost
is right.

For z with density p and a cost c that jumps by [c] across b(t), d/dt E[c] = E[dc/dt + c d log p/dt] + [c] p(b) db/dt,
and the last term, the flux through the jump, is in no derivative of c. It is there where what a step looks at depends
both on what one differentiates by (also along a pathwise draw) and on a continuous draw.

A step need not be a jump of the cost: ``np.where(x > 0, x, a * x)`` is continuous. So the elements of what the step
looks at are moved to where it changes, and what is made of it, element by element, is computed on both sides: leaky
rectifiers, Huber losses and sorted values pass, x > t does not.
"""

from collections.abc import Collection

import numpy as np

from scg.core.aliases import Result
from scg.core.ambient import RECORDER
from scg.core.axes import elementwise, reduction
from scg.core.node import Node
from scg.distributions.base import Discrete
from scg.errors import EstimatorError, GuardError, ScgError, here
from scg.primitives.layout import is_alias
from scg.stochastic.continuity import is_continuous
from scg.stochastic.crossings import Crossing, is_real
from scg.stochastic.elsewhere import DRAWS, Elsewhere, origin
from scg.stochastic.estimator import by_values
from scg.stochastic.sides import denominator, kinds_of, sides
from scg.stochastic.signs import Signs
from scg.stochastic.sites import Site, is_coupled, is_draw, is_noise, is_path, is_stochastic
from scg.stochastic.unmet import watch_unmet
from scg.stochastic.ways import Ways, fresh, runs_of

_TRIES = 8  # nodes that may be moved in turn


def refuse_moving_jumps(cost: Node, order: list[Node], fixed: Collection[int] = ()) -> None:
    """Raise EstimatorError where a step moves with the parameters and with a continuous draw, and the cost jumps there.

    ``order`` are the nodes that lead to the cost, by growing id, with those that an ``if`` looked at; ``fixed`` those
    that stand for plain numbers.
    """
    steps = [n for n in order if ((p := n.primitive).jumps or p.poles or p.cuts) and _may_jump(n)]
    if not steps:
        return
    recorder = RECORDER.get()
    token = RECORDER.set(None)  # what is tried here is no part of a plan
    try:
        signs, unsettled = _refuse_moving(cost, order, fixed, steps, recorder is not None)
    finally:
        RECORDER.reset(token)
    if recorder is not None:
        for sign, operands in signs.taken:
            recorder.settle(sign, operands, True)
        for node, touching in unsettled:
            watch_unmet(node, order, touching)


def _refuse_moving(
    cost: Node, order: list[Node], fixed: Collection[int], steps: list[Node], planned: bool
) -> tuple[Signs, list[tuple[Node, bool]]]:
    """The signs that were taken from values; and, for a plan, the steps that are not refused for the values of this
    run alone, with whether a denominator may come to zero without changing its sign."""
    moving = _moving(order, fixed)
    signs = Signs(moving)
    unsettled: list[tuple[Node, bool]] = []
    steps = [n for n in steps if _looks_at(n, moving) == _BOTH and signs.change(n)]
    if not steps:
        return signs, unsettled
    guards = _guards(order)
    consumers, live = _consumers(order, {cost.id, *guards})
    for node in steps:
        if node.id not in live:
            continue
        touching = bool(signs.of(x)) if (x := denominator(node)) is not None and not node.primitive.jumps else False
        found, places = _met(node, moving, consumers, {cost.id, *guards}, touching)
        if found is not None:
            looked = guards.get(_guard_of(node, consumers, guards))
            branches = looked is not None and looked.node.primitive.jumps  # the size of a mask is no branch
            jumps = _is_met(node, order) if branches else _is_jump(node, cost, order, places, touching)
            if found if jumps is None else jumps:
                _refuse(node, order, looked)
        if planned and not _is_settled(node, moving, consumers, {cost.id, *guards}, touching):
            unsettled.append((node, touching))
    return signs, unsettled


_PARAMETER, _CHANCE, _BOTH = 1, 2, 3


def _moving(order: list[Node], fixed: Collection[int]) -> dict[int, int]:
    """By id, of what one differentiates by or chance moves: which of the two. What lies between noise and its pathwise
    draw is the draw's own affair."""
    found: dict[int, int] = {}
    inner: set[int] = set()
    for node in order:
        operands = [o.id for o in node.operands if type(o) is Node]
        both = 0
        for i in operands:
            both |= found.get(i, 0)
        if is_draw(node) or is_coupled(node):
            moves = 0 if node.statics["site"].distribution.has(Discrete) else _CHANCE
        elif is_path(node):
            moves = _moves_path(node.statics["site"], both)
        elif is_noise(node) or inner and not inner.isdisjoint(operands):
            inner.add(node.id)
            moves = both & _PARAMETER
        elif not operands or is_alias(node) and all([i in fixed for i in operands]):  # of an argument: a parameter
            moves = 0 if node.id in fixed else _PARAMETER
        else:
            moves = both & _CHANCE if node.primitive.holds else both
        if moves:
            found[node.id] = moves
    return found


def _moves_path(site: Site, both: int) -> int:
    """What moves a pathwise draw, of operands that ``both`` moves."""
    unmoved = not site.estimator.unbiased or isinstance(site.distribution, Discrete)
    return 0 if unmoved else _CHANCE | both & _PARAMETER


def _may_jump(node: Node) -> bool:
    """Whether a node jumps, or has a pole or a cut where its operands may come."""
    if node.primitive.jumps:
        return bool(node.operands) and "site" not in node.statics
    return type(denominator(node)) is Node or node.primitive.cuts is not None and "c" in kinds_of(node)


def _looks_at(node: Node, moving: dict[int, int]) -> int:
    """What moves the numbers that a step looks at; truths and integers were steps before."""
    found = 0
    primitive = node.primitive
    x = None if primitive.jumps else denominator(node)
    # in what it is linear no step is taken
    smooth = {k for group in primitive.linear for k in group} if type(primitive.linear) is tuple else ()
    for k, o in enumerate(node.operands) if x is None else ((-1, x),):
        if type(o) is Node and is_real(o) and k not in smooth:
            found |= moving.get(o.id, 0)
    return found


def _guards(order: list[Node]) -> dict[int, Result]:
    """By id of the node that it looked at, each ``if`` on the way."""
    seen: set[int] = set()
    return {guard.node.id: guard for node in order if node.guard is not None for guard in node.guard.unseen(seen)}


def _guard_of(node: Node, consumers: dict[int, list[Node]], guards: dict[int, int]) -> int:
    """The id of an ``if``'s node that is made of this one; -1 where there is none."""
    stack, seen = [node], {node.id}
    while stack:
        n = stack.pop()
        if n.id in guards:
            return n.id
        for c in consumers.get(n.id, ()):
            if c.id not in seen:
                seen.add(c.id)
                stack.append(c)
    return -1


def _consumers(order: list[Node], ends: set[int]) -> tuple[dict[int, list[Node]], set[int]]:
    """Who uses each node; and the nodes that reach an end by a way that no ``stop_gradient`` interrupts."""
    consumers: dict[int, list[Node]] = {}
    live = set(ends)
    for node in reversed(order):
        if node.id in live and not node.primitive.holds:
            for o in node.operands:
                if type(o) is Node:
                    live.add(o.id)
                    consumers.setdefault(o.id, []).append(node)
    return consumers, live


def _met(
    node: Node, moving: dict[int, int], consumers: dict[int, list[Node]], ends: set[int], touching: bool
) -> tuple[bool | None, Result]:
    """None where what is made of a step element by element is seen not to jump there; else whether samples are known to
    take the step. And the elements where it was seen to, None for all."""
    if _is_own_order(node, consumers, ends):
        return None, None
    if node.primitive.axes is not elementwise or type(node.raw) is tuple:
        return False, None
    made, edges = _made_of(node, consumers, ends)
    if is_continuous(node, made, edges, touching):
        return None, None
    compared = node.dtype.kind == "b" and len(node.operands) == 2
    if not compared and sum([type(o) is Node and o.id in moving for o in node.operands]) > 1:
        return False, None  # a jump may be there for some values of the others only
    sources = _sources(node, moving)
    crossing = Crossing(node, made, edges, touching)
    pairs = [(o, node.operands[1 - k]) for k, o in enumerate(node.operands)] if compared else []
    drawn = [n for n in sources if _is_alone(n)]
    try:
        if any(crossing.meets(o, other) for o, other in pairs if type(o) is Node and is_real(o)):
            return None, None
        if drawn:
            return (True if any(crossing.jumps(n) for n in drawn[:_TRIES]) else None), crossing.found
        taken = None if sources and not touching else False  # lines between samples tell where a denominator touches 0
        for n in sources[:_TRIES]:
            jumps = crossing.jumps(n)
            if jumps is False:  # what moves all that is made of the step shows it continuous
                return None, None
            taken = False if jumps else taken
        return taken, crossing.found
    except ScgError:  # there is nothing at such values: whether samples come there is seen along lines between them
        return False, None


def _is_settled(
    node: Node, moving: dict[int, int], consumers: dict[int, list[Node]], ends: set[int], touching: bool
) -> bool:
    """Whether what is made of a step does not jump there whatever numbers the function is given."""
    if _is_own_order(node, consumers, ends):
        return True
    if node.primitive.axes is not elementwise or type(node.raw) is tuple:
        return False
    made, edges = _made_of(node, consumers, ends)
    if is_continuous(node, made, edges, touching):
        return True
    if not node.primitive.jumps:  # a pole may be there for some numbers alone: z / np.sqrt(c * c + z * z) for c = 0
        return False
    sources = _sources(node, moving)
    drawn = [n for n in sources if _is_alone(n)]
    try:
        for k in range(DRAWS):
            crossing = Elsewhere(node, made, edges, touching, k)
            seen = [crossing.jumps(n) for n in (drawn or sources)[:_TRIES]]
            if True in seen and (drawn or False not in seen) or k == 0 and False not in seen:
                return False
    except (ScgError, ArithmeticError, ValueError):
        return False
    return True


def _is_alone(n: Node) -> bool:
    """Whether a node is a sample whose elements may be moved by themselves."""
    return is_stochastic(n) and not n.statics["site"].event_ndim


def _is_own_order(node: Node, consumers: dict[int, list[Node]], ends: set[int]) -> bool:
    """Whether positions by size are used only to take, from what they were found in, the elements there: in which order
    equal ones come is no matter."""
    if node.primitive.axes is elementwise or type(node.raw) is tuple or node.dtype.kind not in "iu":
        return False
    stack = [node]
    while stack:
        n = stack.pop()
        if n.id in ends:
            return False
        for c in consumers.get(n.id, ()):
            if c.primitive.picks and origin(c.operands[0]) == origin(node.operands[0]):
                continue
            if len(c.operands) != 1 or c.primitive.axes in (elementwise, reduction) or not c.primitive.differentiable:
                return False
            stack.append(c)  # the positions, laid out in another way
    return True


def _made_of(node: Node, consumers: dict[int, list[Node]], ends: set[int]) -> tuple[list[Node], list[Node]]:
    """What is made of a step element by element, and of these the nodes that something else is made of."""
    made = {node.id: node}
    edges = []
    stack = [node]
    while stack:
        n = stack.pop()
        out = n.id in ends
        for c in consumers.get(n.id, ()):
            if c.primitive.axes is elementwise and type(c.raw) is not tuple:
                if c.id not in made:
                    made[c.id] = c
                    stack.append(c)
            else:
                out = True
        if out:
            edges.append(n)
    return [made[i] for i in sorted(made)], edges


def _sources(node: Node, moving: dict[int, int]) -> list[Node]:
    """What a step looks at, and what that is made of element by element, oldest first; as far as chance and parameters
    move it."""
    found: dict[int, Node] = {}
    stack = [node]
    while stack:
        for o in stack.pop().operands:
            if type(o) is Node and o.id not in found and moving.get(o.id, 0) & _CHANCE and is_real(o):
                found[o.id] = o
                if o.primitive.axes is elementwise:
                    stack.append(o)
    return [found[i] for i in sorted(found) if found[i].dtype.kind == "f"]


def _is_jump(node: Node, cost: Node, order: list[Node], places: Result, touching: bool) -> bool | None:
    """Whether the cost jumps where the step is taken, at ``places`` among its elements (None: at any), on ways from the
    values that chance took to others beyond the step; None where there are none. ``touching``: a denominator may come
    to zero without changing its sign."""
    ways = Ways(node, cost, order, places, touching)
    try:
        with np.errstate(all="ignore"):
            beyond = ways.beyond()
            return bool(ways.jumps(beyond)) if len(beyond) else None
    except (GuardError, np.linalg.LinAlgError):  # what is on the other side cannot be computed
        return True


def _is_met(node: Node, order: list[Node]) -> bool:
    """Whether some of the samples take a step that an ``if`` looks at."""
    rng, runs = np.random.default_rng(0), runs_of(order)
    leaves = {n: fresh(n, rng, runs) for n in order if (is_noise(n) or is_draw(n)) and n.dtype.kind == "f"}
    try:
        with np.errstate(all="ignore"):
            found = sides([node], leaves, runs)[0]
    except GuardError:
        return True
    return bool(np.any(found != found[:1]))


def _refuse(node: Node, order: list[Node], guard: Result) -> None:
    draws = [
        n for n in order if is_stochastic(n) and n.id < node.id and not n.statics["site"].distribution.has(Discrete)
    ]
    sites = ", ".join([repr(n.statics["site"]) for n in draws[:3]])
    where = f"the `if` at {guard.line} looks at" if guard is not None else "the cost jumps at"
    paths = [n for n in draws if is_path(n)]
    ways = [
        "smooth the step, as scg.special.sigmoid(x / width)",
        "write a cost that is continuous there, as np.maximum(z - t, 0)",
    ]
    if paths:
        ways.insert(
            0,
            f"{by_values(paths[0].statics['site'].distribution, 'the pathwise sample')}, and let no parameter enter the"
            " step itself",
        )
    else:
        ways.insert(0, "let the sample carry the parameter (draw z - t, not z) so that the step looks at samples alone")
    promise = (
        " (where both branches agree at the step, look at scg.stop_gradient(x) in the `if`)"
        if guard is not None
        else ""
    )
    raise EstimatorError(
        f"{sites}: {where} {node!r}, made at {node.line}, a step that moves with the parameters and with this sample,"
        " and the flux through the jump there is in no derivative of the cost:"
        f" {'; or '.join(ways)}{promise} ({here()})"
    )
