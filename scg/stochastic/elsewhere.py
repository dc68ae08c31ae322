"""What is made of a step, with other numbers in the place of all that goes in but samples: what is continuous there is
continuous for all numbers.

Between steps and kinks what is made of a step is analytic in the numbers of a run, and so is what it differs by on both
sides of the step, which vanishes for almost all of them or for almost none: where it vanishes for numbers that are
drawn it does for all. That of np.where(z > t, z - t + b, 0) vanishes for b = 0, and that says nothing.
"""

from collections.abc import Hashable

import numpy as np

from scg.core.aliases import Result
from scg.core.node import Node, Value
from scg.distributions.base import FixedSupport
from scg.stochastic.crossings import Crossing
from scg.stochastic.sites import is_stochastic

DRAWS = 12
"""Of other numbers: the first near those of the run, the rest of any sign and order."""


class Elsewhere(Crossing):
    """``Crossing`` with other numbers. Those that were one stay one: t and its views, and a result that is computed
    twice."""

    def __init__(self, node: Node, made: list[Node], edges: list[Node], touching: bool, draw: int):
        super().__init__(node, made, edges, touching)
        self.wide, self.rng = draw > 0, np.random.default_rng(draw)
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
        """Other numbers, the same for all that has one origin."""
        if whose not in self.others:
            self.others[whose] = _others(x, self.rng, self.wide)
        return self.others[whose]

    def _support(self, moved: Node) -> tuple[Result, Result]:
        """No ends where parameters move them, or what is made of the sample."""
        fixed = not self.wide and moved.statics["site"].distribution.has(FixedSupport)
        return super()._support(moved) if fixed else (-np.inf, np.inf)

    def _same(self, low: Result, high: Result) -> Result:
        """Where both are undefined nothing is seen: that may be so of numbers of any size."""
        return super()._same(low, high) if self.wide else low == high


def _others(x: np.ndarray, rng: np.random.Generator, wide: bool) -> np.ndarray:
    """Other numbers, or truths: near, where those between 0 and 1 stay there and none changes its sign, or ``wide``."""
    if x.dtype.kind == "b":
        return rng.random(x.shape) < 0.5
    if x.dtype.kind not in "fc":
        return x + rng.integers(0, 3, x.shape).astype(x.dtype)
    if wide:
        size = 1 + np.max(np.abs(x[np.isfinite(x)]), initial=0)
        return np.asarray(size * rng.standard_normal(x.shape), x.dtype)
    slope = rng.uniform(0.6, 0.9, x.shape)
    shift = (1 - slope) * rng.uniform(0.2, 0.8, x.shape)
    return np.asarray(slope * x + (shift if np.any(x > 0) or not np.any(x < 0) else -shift), x.dtype)


def origin(x: Value, depth: int = 4) -> Hashable:
    """What two nodes that hold the same numbers have in common: the operation that makes them, of the same operands."""
    if type(x) is not Node:
        return ("array", id(x)) if isinstance(x, np.ndarray) else repr(x)
    known = [type(v) in (int, float, bool, str, tuple, type(None)) for v in (x.statics or {}).values()]
    if x.primitive.random or not any([type(o) is Node for o in x.operands]) or not depth or not all(known):
        return x.id
    return x.primitive, tuple([origin(o, depth - 1) for o in x.operands]), repr(x.statics)
