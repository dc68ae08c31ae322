"""The random numbers of one run of a function in their turns, by which another run of it can be given the same ones."""

import contextvars
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, final

import numpy as np

from scg.core.aliases import Result, Shape
from scg.core.node import Node
from scg.distributions.base import Distribution
from scg.errors import GuardError, here

if TYPE_CHECKING:  # what stands above
    from scg.stochastic.sites import Site

Turn = tuple[str, int]
"""("b", 2) is the second sample that is called so, or is of that kind and has no name."""


_MARK = "\0"  # in the turns of what is drawn elsewhere; no name has it


def elsewhere(turn: Turn, k: int | None = None) -> str:
    """What the turns begin with of samples that are made again at other values of a sample: at all of them together, or
    at the ``k``-th alone, in a run of the function."""
    return f"{turn}{_MARK}{'' if k is None else k}{_MARK}"


def together(turn: Turn) -> tuple[Turn, int] | None:
    """Of a turn at the ``k``-th value alone, that of the same sample at all values together, and k; else None."""
    first, found, rest = turn[0].partition(_MARK)
    k, _, label = rest.partition(_MARK)
    return ((f"{first}{_MARK}{_MARK}{label}", turn[1]), int(k)) if found and k else None


class Chosen:
    """Random numbers that a run of a function is to have: ``values`` by turn. The others are drawn. ``prefix`` is what
    the turns of the run begin with."""

    prefix = ""

    def __init__(self, values: Mapping[Turn, np.ndarray]):
        self.values = values

    @property
    def some(self) -> bool:
        """Whether any are chosen."""
        return bool(self.values)

    def draw(self, site: "Site") -> Result:
        """The value of a sample, or the node that it is; None where it is to be drawn."""
        return None if site.turn is None else self.values.get(site.turn)

    def noise(self, distribution: Distribution, shape: Shape, turn: Turn) -> Result:
        """That of noise."""
        return self.values.get(turn)


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

    def draw(self, site: "Site") -> Result:
        given, node = super().draw(site), self.recorded.get(site.turn) if site.turn else None
        if given is not None or node is None:
            return given
        before, after = node.statics["site"].distribution, site.distribution
        if self.is_kin(site, node) and alike(before, after):
            return node.raw
        if node.id < self.looked.id:
            self.refuse(site, node)
        if not self.is_kin(site, node) or not self.coupled:
            return None
        made: Any = after.detached().coupled(before.detached(), node.raw)
        return made.sample(site.rng) if isinstance(made, Distribution) else made

    def is_kin(self, site: "Site", node: Node) -> bool:
        """Whether a sample is of the kind and shape of a recorded one."""
        after = site.distribution
        drawn = (*site.shape, *after.batch_shape, *after.event_shape)
        return type(node.statics["site"].distribution) is type(after) and node.shape == drawn

    def refuse(self, site: "Site", node: Node) -> NoReturn:
        """Raise GuardError, as samples before that which has another value are to be those of the recorded run."""
        raise GuardError(
            f"an `if` comes out otherwise at other values of {self.looked.statics['site']!r}, and the function, run"
            f" again for them, made other samples before it, {site!r} for {node.statics['site']!r}: let it depend"
            f" on its arguments alone, and on rng by scg.sample ({here()})"
        )

    def noise(self, distribution: Distribution, shape: Shape, turn: Turn) -> Result:
        given, node = super().noise(distribution, shape, turn), self.recorded.get(turn)
        if given is not None or node is None or "distribution" not in node.statics:
            return given
        same = node.statics["shape"] == shape and alike(node.statics["distribution"], distribution)
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

    def has_alone(self, turn: Turn) -> bool:
        """Whether a random number is chosen of a run of the function at one of the values of an evaluation."""
        if self.chosen is None:
            return False
        every, one = elsewhere(turn), f"{turn}{_MARK}"
        return any([label.startswith(one) and not label.startswith(every) for label, _ in self.chosen.values])


TAPE: contextvars.ContextVar[Tape | None] = contextvars.ContextVar("scg_tape", default=None)
"""The tape of the function that is being run; a function that is run within it has none of its own."""


@final
class Program:
    """A function that returns its cost, ``run`` again with random numbers that are chosen, and others from a generator.

    ``alone`` becomes True where what it gave to an estimate in nodes holds for the run that is recorded alone.
    """

    def __init__(self, run: Callable[[Chosen, np.random.Generator], Result]):
        self.run, self.alone = run, False


def alike(a: Distribution, b: Distribution) -> bool:
    """Whether two distributions are one, up to rounding."""
    return a is b or type(a) is type(b) and all(map(_same, vars(a).values(), vars(b).values()))


def _same(x: Any, y: Any) -> bool:
    if isinstance(x, Distribution):
        return isinstance(y, Distribution) and alike(x, y)
    x, y = (getattr(v, "raw", v) for v in (x, y))
    if not isinstance(x, (float, np.ndarray)) or x is y:
        return bool(np.all(x == y))
    eps = np.finfo(np.asarray(x).dtype).eps if np.asarray(x).dtype.kind == "f" else 0.0
    return np.shape(x) == np.shape(y) and np.allclose(x, y, eps**0.75, 0.0, equal_nan=True)
