"""What a run computes, with other numbers in the place of all that goes in but samples: what is seen there holds for
all numbers, where it is a matter of what is analytic in them.

Between steps and kinks a cost is analytic in the numbers of a run. Whether it is continuous at a step is so for almost
all of them or for almost none: where it is for numbers that are drawn it is for all. np.where(z > t, z - t + b, 0) is
continuous for b = 0, and that says nothing.
"""

from collections.abc import Hashable

import numpy as np

from scg.core.aliases import Result
from scg.core.ambient import AMBIENT, Guard
from scg.core.node import Node, Value, record
from scg.distributions.base import FixedSupport
from scg.errors import GuardError
from scg.stochastic.crossings import Crossing
from scg.stochastic.sites import is_draw, is_noise, is_stochastic


class Elsewhere(Crossing):
    """``Crossing`` with other numbers. Those that were one stay one: t and its views, and a result that is computed
    twice."""

    def __init__(self, node: Node, made: list[Node], edges: list[Node], touching: bool):
        super().__init__(node, made, edges, touching)
        self.rng = np.random.default_rng(0)
        self.others: dict[Hashable, Result] = {}
        with np.errstate(all="ignore"):
            for i in sorted(self.before) if self.index is not None else ():
                n = self.before[i]
                self.values[i] = np.asarray(n.primitive.fn(*[self._value(o) for o in n.operands], **n.statics))

    def _value(self, x: Value) -> Value:
        if type(x) is not Node:
            return self._elements(self._other(x, ("array", id(x)))) if isinstance(x, np.ndarray) else x
        if x.id not in self.values:
            self.values[x.id] = self._elements(self._of(x))
        return self.values[x.id]

    def _of(self, x: Node) -> Result:
        """Other numbers of a node: of a view those of what it shows."""
        if is_stochastic(x):
            return np.asarray(x.raw)
        if (x.primitive.moves or x.primitive.picks) and sum([type(o) is Node for o in x.operands]) == 1:
            return np.asarray(x.primitive.fn(*[self._of(o) if type(o) is Node else o for o in x.operands], **x.statics))
        return self._other(np.asarray(x.raw), origin(x))

    def _other(self, x: Result, whose: Hashable) -> Result:
        """Other numbers, the same for all that has one origin: those between 0 and 1 stay there."""
        if whose not in self.others:
            integers = x.dtype.kind in "iu"
            self.others[whose] = (
                x + self.rng.integers(0, 3, x.shape).astype(x.dtype) if integers else _others(x, self.rng)
            )
        return self.others[whose]

    def _support(self, moved: Node) -> tuple[Result, Result]:
        """No ends where parameters move them."""
        fixed = moved.statics["site"].distribution.has(FixedSupport)
        return super()._support(moved) if fixed else (-np.inf, np.inf)

    def _same(self, low: Result, high: Result) -> Result:
        """Where both are undefined nothing is seen."""
        return low == high


def _others(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Other numbers, or truths: those between 0 and 1 stay there, and integers are laid out in another way, that they
    may count or name something."""
    if x.dtype.kind == "b":
        return rng.random(x.shape) < 0.5
    if x.dtype.kind not in "fc":
        return rng.permutation(x.reshape(-1)).reshape(x.shape)
    slope = rng.uniform(0.6, 0.9, x.shape)
    shift = (1 - slope) * rng.uniform(0.2, 0.8, x.shape)
    return np.asarray(slope * x + (shift if np.any(x > 0) or not np.any(x < 0) else -shift), x.dtype)


def elsewhere(order: list[Node]) -> dict[int, Node]:
    """By id of each of some nodes, by growing ids, one of the same operation with other numbers. Raises
    GuardError where an ``if`` comes out otherwise, and what operations raise that are not defined there."""
    rng = np.random.default_rng(0)
    made: dict[int, Node] = {}
    arrays: dict[int, np.ndarray] = {}
    guards: dict[int, Guard] = {}

    def other(x: Result) -> Result:
        if type(x) is Node:
            if x.id not in made:  # what is older goes in
                kept = x.primitive.random or type(x.raw) is tuple
                made[x.id] = x if kept else record(x.primitive, (), x.statics, _others(np.asarray(x.raw), rng))
            return made[x.id]
        if not isinstance(x, np.ndarray) or x.dtype.hasobject:
            return x
        if id(x) not in arrays:
            arrays[id(x)] = _others(x, rng)
        return arrays[id(x)]

    token = AMBIENT.set(None)  # nobody is told of these nodes
    try:
        for n in order:
            operands = tuple([other(o) for o in n.operands])
            if is_noise(n) or is_draw(n):
                value = n.raw
            elif not n.operands:
                value = _others(np.asarray(n.raw), rng)
            else:
                value = n.primitive.fn(*[o.raw if type(o) is Node else o for o in operands], **n.statics)
            made[n.id] = record(n.primitive, operands, n.statics, value)
            for guard in reversed(list(n.guard.unseen(set(guards)))) if n.guard is not None else ():
                looked = made[guard.node.id]
                if bool(looked.raw) is not guard.outcome:
                    raise GuardError("an `if` comes out otherwise for other numbers")
                before = guard.before and guards[guard.before.stamp]
                guards[guard.stamp] = Guard(looked, guard.outcome, before, guard.code, guard.instruction, guard.reads)
            if n.guard is not None:
                made[n.id].guard = guards[n.guard.stamp]
    finally:
        AMBIENT.reset(token)
    return made


def origin(x: Value, depth: int = 4) -> Hashable:
    """What two nodes that hold the same numbers have in common: the operation that makes them, of the same operands."""
    if type(x) is not Node:
        return ("array", id(x)) if isinstance(x, np.ndarray) else repr(x)
    known = [type(v) in (int, float, bool, str, tuple, type(None)) for v in (x.statics or {}).values()]
    if x.primitive.random or not any([type(o) is Node for o in x.operands]) or not depth or not all(known):
        return x.id
    return x.primitive, tuple([origin(o, depth - 1) for o in x.operands]), repr(x.statics)
