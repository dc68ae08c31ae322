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
from typing import Any

import numpy as np

from scg.core.aliases import Result
from scg.core.axes import elementwise, reduction
from scg.core.node import Node, Value
from scg.core.replay import replay
from scg.distributions.base import Discrete, draw_noise
from scg.errors import EstimatorError, GuardError, ScgError, here
from scg.stochastic.crossings import Crossing, is_real
from scg.stochastic.estimator import by_values
from scg.stochastic.sides import sides
from scg.stochastic.sites import is_draw, is_noise, is_path, is_stochastic

_TRIES = 8  # nodes that may be moved in turn
_RUNS = 256  # runs that tell whether draws ever take a step
_LINES, _POINTS = 4, 65  # along which the cost itself is looked at, before it is refused


def refuse_moving_jumps(cost: Node, order: list[Node], fixed: Collection[int] = ()) -> None:
    """Raise EstimatorError where a step moves with the parameters and with a continuous draw, and the cost jumps there.

    ``order`` are the nodes that lead to the cost, by growing id, with those that an ``if`` looked at; ``fixed`` those
    that stand for plain numbers.
    """
    steps = [n for n in order if n.primitive.jumps and n.operands and "site" not in n.statics]
    if not steps:
        return
    moving = _moving(order, fixed)
    steps = [n for n in steps if _looks_at(n, moving) == _BOTH]
    if not steps:
        return
    guards = _guards(order)
    consumers, live = _consumers(order, {cost.id, *guards})
    for node in steps:
        if node.id not in live:
            continue
        found, places = _met(node, moving, consumers, {cost.id, *guards})
        if found is None:
            continue
        looked = guards.get(_guard_of(node, consumers, guards))
        jumps = _is_jump(node, cost, order, places) if looked is None else _is_met(node, order)
        if found if jumps is None else jumps:
            _refuse(node, order, looked)


_PARAMETER, _CHANCE, _BOTH = 1, 2, 3


def _moving(order: list[Node], fixed: Collection[int]) -> dict[int, int]:
    """By id, of what one differentiates by or chance moves: which of the two. What lies between noise and its pathwise
    draw is the draw's own affair."""
    found: dict[int, int] = {}
    inner: set[int] = set()
    for node in order:
        operands = [o.id for o in node.operands if type(o) is Node]
        if is_draw(node):
            if not node.statics["site"].distribution.has(Discrete):
                found[node.id] = _CHANCE
        elif is_path(node):
            site = node.statics["site"]
            if site.estimator.unbiased and not isinstance(site.distribution, Discrete):
                found[node.id] = _CHANCE
                if any(found.get(i, 0) & _PARAMETER for i in operands):
                    found[node.id] = _BOTH
        elif is_noise(node) or any(i in inner for i in operands):
            inner.add(node.id)
            if any(found.get(i, 0) & _PARAMETER for i in operands):
                found[node.id] = _PARAMETER
        elif not operands:
            if node.id not in fixed:
                found[node.id] = _PARAMETER
        elif node.primitive.holds:
            if chance := max([found.get(i, 0) & _CHANCE for i in operands]):
                found[node.id] = chance
        else:
            both = 0
            for i in operands:
                both |= found.get(i, 0)
            if both:
                found[node.id] = both
    return found


def _looks_at(node: Node, moving: dict[int, int]) -> int:
    """What moves the numbers that a step looks at; truths and integers were steps before."""
    found = 0
    for o in node.operands:
        if type(o) is Node and is_real(o):
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
    node: Node, moving: dict[int, int], consumers: dict[int, list[Node]], ends: set[int]
) -> tuple[bool | None, Any]:
    """None where what is made of a step element by element is seen not to jump there; else whether draws are known to
    take the step. And the elements where it was seen to, None for all."""
    if _is_own_order(node, consumers, ends):
        return None, None
    if node.primitive.axes is not elementwise or type(node.raw) is tuple:
        return False, None
    compared = node.dtype.kind == "b" and len(node.operands) == 2
    if not compared and sum([type(o) is Node and o.id in moving for o in node.operands]) > 1:
        return False, None  # a jump may be there for some values of the others only
    made, edges = _made_of(node, consumers, ends)
    sources = _sources(node, moving)
    crossing = Crossing(node, made, edges)
    pairs = [(o, node.operands[1 - k]) for k, o in enumerate(node.operands)] if compared else []
    drawn = [n for n in sources if is_stochastic(n) and not n.statics["site"].event_ndim]
    try:
        if any(crossing.meets(o, other) for o, other in pairs if type(o) is Node and is_real(o)):
            return None, None
        if drawn:
            return (True if any(crossing.jumps(n) for n in drawn[:_TRIES]) else None), crossing.found
        taken = None
        for n in sources[:_TRIES]:
            jumps = crossing.jumps(n)
            if jumps is False:  # what moves all that is made of the step shows it continuous
                return None, None
            taken = False if jumps else taken
        return taken, crossing.found
    except ScgError:  # there is nothing at such values: whether samples come there is seen along lines between them
        return False, None


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
            if c.primitive.picks and c.operands[0] is node.operands[0]:
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
            if (
                type(o) is Node
                and o.id not in found
                and moving.get(o.id, 0) & _CHANCE
                and is_real(o)
                and o.dtype.kind == "f"
            ):
                found[o.id] = o
                if o.primitive.axes is elementwise:
                    stack.append(o)
    return [found[i] for i in sorted(found)]


def _is_jump(node: Node, cost: Node, order: list[Node], places: Any) -> bool | None:
    """Whether the cost jumps where the step is taken, at ``places`` among its elements (None: at any), on straight
    lines from the values that chance took to others beyond the step; None where there are none."""
    leaves = [
        n
        for n in order
        if n.dtype.kind == "f" and (is_noise(n) or is_draw(n) and not n.statics["site"].distribution.has(Discrete))
    ]
    rng = np.random.default_rng(0)
    others = {n: _fresh(n, rng) for n in leaves}

    def at(end: int, s: Result) -> tuple[Result, Result]:
        """The sides and the cost at parts ``s`` of the way to one of the other values."""
        held = {
            n: np.asarray(n.raw + np.reshape(s, (-1, *[1] * n.ndim)) * (x[end] - n.raw), n.dtype)
            for n, x in others.items()
        }
        return taken(held, len(s)), np.broadcast_to(replay(cost, held, leaves), len(s))

    def taken(held: dict[Node, Result], rows: int) -> Result:
        found = sides([node], held, rows)[0]
        return found if places is None or found.shape[1] != node.size else found[:, places]

    try:
        with np.errstate(all="ignore"):
            there, here_ = taken(others, _RUNS), taken({n: n.raw[None] for n in leaves}, 1)
            beyond = np.flatnonzero(np.any(there != here_, axis=1))[:_LINES]
            grid = np.linspace(0, 1, _POINTS)
            for end in beyond.tolist():
                seen, costs = at(end, grid)
                size = float(np.nanmax(np.abs(costs)))
                for place in np.flatnonzero(np.any(seen[1:] != seen[:-1], axis=1))[:4]:
                    low, high = grid[place], grid[place + 1]
                    while high - low > 4e-16:
                        middle = 0.5 * (low + high)
                        low, high = (middle, high) if np.all(at(end, [middle])[0][0] == seen[place]) else (low, middle)
                    found = at(end, [low, high])[1]
                    if not abs(found[1] - found[0]) <= float(np.finfo(cost.dtype).eps) ** 0.4 * size:
                        return True
    except GuardError:  # what is on the other side cannot be computed
        return True
    return False if len(beyond) else None


def _is_met(node: Node, order: list[Node]) -> bool:
    """Whether some of the draws take a step that an ``if`` looks at."""
    rng = np.random.default_rng(0)
    leaves = {n: _fresh(n, rng) for n in order if n.dtype.kind == "f" and (is_noise(n) or is_draw(n))}
    try:
        with np.errstate(all="ignore"):
            found = sides([node], leaves, _RUNS)[0]
    except GuardError:
        return True
    return bool(np.any(found != found[:1]))


def _fresh(node: Node, rng: np.random.Generator) -> Value:
    """Other values of a draw or of noise, from the distribution that was recorded, along a leading axis."""
    if is_noise(node):
        return draw_noise(node.statics["distribution"], rng, (_RUNS, *node.statics["shape"]), node.dtype)
    site = node.statics["site"]
    distribution = site.distribution.detached()
    return np.reshape(
        distribution.sample(rng, (_RUNS, *node.shape[: node.ndim - site.event_ndim - len(distribution.batch_shape)])),
        (_RUNS, *node.shape),
    )


def _refuse(node: Node, order: list[Node], guard: Any) -> None:
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
            f"use {by_values(paths[0].statics['site'].distribution)} on the pathwise draw, and let no parameter enter"
            " the step itself",
        )
    else:
        ways.insert(0, "let the draw carry the parameter (draw z - t, not z) so that the step looks at draws alone")
    promise = (
        " (where both branches agree at the step, look at scg.stop_gradient(x) in the `if`)"
        if guard is not None
        else ""
    )
    raise EstimatorError(
        f"{sites}: {where} {node!r}, made at {node.line}, a step that moves with the parameters and with this draw, and"
        f" the flux through the jump there is in no derivative of the cost: {'; or '.join(ways)}{promise} ({here()})"
    )
