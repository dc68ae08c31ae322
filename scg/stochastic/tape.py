"""The random numbers of one run of a function in their turns, by which another run of it can be given the same ones."""

import contextvars
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, final

import numpy as np

from scg.core.aliases import Result, Shape
from scg.core.node import Node
from scg.distributions.base import Distribution
from scg.errors import GuardError, here

if TYPE_CHECKING:  # what stands above
    from scg.stochastic.sites import Site

Turn = tuple[str, int]
"""("b", 2) is the second sample that is called so, or is of that kind and has no name."""


class Chosen:
    """Random numbers that a run of a function is to have: ``values`` by turn. The others are drawn."""

    def __init__(self, values: Mapping[Turn, np.ndarray]):
        self.values = values

    @property
    def some(self) -> bool:
        """Whether any are chosen."""
        return bool(self.values)

    def draw(self, site: "Site") -> np.ndarray | None:
        """The value of a sample; None where it is to be drawn."""
        return None if site.turn is None else self.values.get(site.turn)

    def noise(self, distribution: Distribution, shape: Shape, turn: Turn) -> np.ndarray | None:
        """That of noise."""
        return self.values.get(turn)


@final
class Beside(Chosen):
    """Those of a run beside a recorded one, in which a sample has another value.

    ``recorded`` holds the nodes of the recorded run by turn. What was drawn before the sample ``looked`` at stays.
    After it each random number has the randomness of the one of its turn, where both are of one kind, and where
    ``coupled`` or its parameters are the same; else it is drawn. The randomness of a turn is independent of that of all
    other turns, so that each sample has its distribution given those before it, whichever way the function takes.
    """

    def __init__(self, values: Mapping[Turn, np.ndarray], recorded: Mapping[Turn, Node], looked: Node, coupled: bool):
        super().__init__(values)
        self.recorded, self.looked, self.coupled = recorded, looked, coupled

    @property
    def some(self) -> bool:
        return True

    def draw(self, site: "Site") -> np.ndarray | None:
        given, node = super().draw(site), self.recorded.get(site.turn) if site.turn else None
        if given is not None or node is None:
            return given
        before, after = node.statics["site"].distribution, site.distribution
        drawn = (*site.shape, *after.batch_shape, *after.event_shape)
        kin = type(before) is type(after) and node.shape == drawn
        if kin and _alike(before, after):
            return node.raw
        if node.id < self.looked.id:
            raise GuardError(
                f"an `if` comes out otherwise at other values of {self.looked.statics['site']!r}, and the function, run"
                f" again for them, made other samples before it, {site!r} for {node.statics['site']!r}: let it depend"
                f" on its arguments alone, and on rng by scg.sample ({here()})"
            )
        if not kin or not self.coupled:
            return None
        made: Any = after.detached().coupled(before.detached(), node.raw)
        return made.sample(site.rng) if isinstance(made, Distribution) else made

    def noise(self, distribution: Distribution, shape: Shape, turn: Turn) -> np.ndarray | None:
        given, node = super().noise(distribution, shape, turn), self.recorded.get(turn)
        if given is not None or node is None or "distribution" not in node.statics:
            return given
        same = node.statics["shape"] == shape and _alike(node.statics["distribution"], distribution)
        return node.raw if same else None


@final
class Tape:
    """Who numbers the random numbers of a run, and knows which of them are ``chosen``."""

    def __init__(self, chosen: Chosen | None = None, prefix: str = ""):
        self.chosen, self._prefix, self._count = chosen, prefix, Counter[str]()

    def turn(self, label: str) -> Turn:
        """The next turn of a name or a kind."""
        self._count[label] += 1
        return self._prefix + label, self._count[label]

    def within(self, turn: Turn | None) -> "Tape":
        """The tape for what an estimator draws for the sample of a turn."""
        return Tape(self.chosen, f"{turn} ")


TAPE: contextvars.ContextVar[Tape | None] = contextvars.ContextVar("scg_tape", default=None)
"""The tape of the function that is being run; a function that is run within it has none of its own."""

Program = Callable[[Chosen, np.random.Generator], Result]
"""A function that returns its cost, run again with random numbers that are chosen, and others from a generator."""


def _alike(a: Distribution, b: Distribution) -> bool:
    """Whether two distributions are one, up to rounding."""
    return a is b or type(a) is type(b) and all(map(_same, vars(a).values(), vars(b).values()))


def _same(x: Any, y: Any) -> bool:
    if isinstance(x, Distribution):
        return isinstance(y, Distribution) and _alike(x, y)
    x, y = (getattr(v, "raw", v) for v in (x, y))
    if not isinstance(x, (float, np.ndarray)) or x is y:
        return bool(np.all(x == y))
    eps = np.finfo(np.asarray(x).dtype).eps if np.asarray(x).dtype.kind == "f" else 0.0
    return np.shape(x) == np.shape(y) and np.allclose(x, y, eps**0.75, 0.0, equal_nan=True)
