"""The tree of outcomes of a program's discrete samples, walked depth first by running the program again and again."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from scg.bridge.chances import Chances
from scg.bridge.lines import user_line
from scg.errors import ScgValueError

_PROBES = 32


class TooManyOutcomes(ScgValueError):
    """More outcomes than ``budget``; the message says how many there are, or at least how many."""


class NotAFunctionOfItsDraws(ScgValueError):
    """The program came out otherwise for the same samples: it keeps state, or draws where it is not seen."""


class Outcome(NamedTuple):
    """What the program returned on one path, the path's probability, and the block (see ``Chances``) that it is in."""

    result: list[np.ndarray]
    probability: float
    block: int


class Paths:
    """The outcomes of a program whose draws call ``choose``.

    ``walk`` runs the program once a path: the last draw varies first, values ascend. The order is always the same.

    Where the first path promises too many, 32 paths are tried whose every value has equal chances. The product of the
    numbers of values along such a path is an unbiased estimate of the number of paths (Knuth, 1975). A tree of at most
    ``budget`` paths gives over 4 ``budget`` with a probability below 1/4 (Markov). Where 32 of 32 do, it is refused,
    and wrongly so at most once in 4^32 programs.
    """

    def __init__(self, budget: int):
        self.budget = budget
        self._steps: list[tuple[Chances, int]] = []  # of the path: a draw, and which of its possible values it takes
        self._position = 0
        self._done = 0
        self._probing: np.random.Generator | None = None

    def choose(self, draws: Iterable[Chances]) -> list[int]:
        """The values of independent samples, one after the other."""
        draws = list(draws)
        self.foresee(math.prod([d.count for d in draws]))
        return [self._one(d) for d in draws]

    def foresee(self, count: int) -> None:
        """Raise TooManyOutcomes where the next draw alone, of so many values, is beyond the budget."""
        if count > self.budget:
            raise TooManyOutcomes(self._too_many(f"one call draws {_number(count)} outcomes"))

    def without_replacement(self, weights: np.ndarray | int, k: int) -> list[int]:
        """k places in turn, each in proportion to the weights of those that are left; None is equal weights, of which
        the number is given."""
        left = list(range(weights)) if isinstance(weights, int) else [i for i, w in enumerate(weights) if w > 0]
        self.foresee(math.perm(len(left), k))
        taken: list[int] = []
        for _ in range(k):
            chances = np.ones(len(left)) if isinstance(weights, int) else np.array([weights[i] for i in left], float)
            taken.append(left.pop(self._one(Chances(chances / np.sum(chances)))))
        return taken

    def _one(self, draw: Chances) -> int:
        if self._position < len(self._steps):
            known, at = self._steps[self._position]
            if not known.same(draw):
                raise _unlike("drew from another distribution")
            draw = known
        else:
            at = 0 if self._probing is None else int(self._probing.integers(draw.count))
            self._steps.append((draw, at))
        self._position += 1
        return draw.first + int(draw.possible[at])

    def walk(self, program: Callable[[], list[np.ndarray]], report: Callable[[int, int], object]) -> Iterator[Outcome]:
        """Every outcome; ``report`` hears of how many are done, and of how many, as it seems from the place on the
        tree."""
        first, last = None, time.monotonic()
        while True:
            outcome = self._run(program)
            if first is None:
                first = outcome
                self._refuse_what_is_too_large(program)
            self._done += 1
            yield outcome
            if time.monotonic() - last > 0.1:
                report(self._done, max(self._done, round(self._done / max(self._part(), 1e-300))))
                last = time.monotonic()
            path = list(self._steps)
            if not self._advance():
                break
            if self._done >= self.budget:
                estimates = self._probe(program)
                raise TooManyOutcomes(self._too_many(_estimated(estimates)))
        report(self._done, self._done)
        for steps, before in (([], first), (path, outcome)):  # a product of values that are all 0 shows no state
            self._steps = steps
            if not _equal(before.result, self._run(program).result):
                raise _unlike("returned other numbers")

    def _run(self, program: Callable[[], list[np.ndarray]]) -> Outcome:
        self._position = 0
        result = program()
        if self._position < len(self._steps):
            raise _unlike("drew less")
        indices = [(draw, int(draw.possible[at])) for draw, at in self._steps]
        probability = math.prod([float(draw.probabilities[i]) for draw, i in indices])
        if probability == 0:
            raise ScgValueError(
                f"enumerate: a path of {len(indices)} samples has a probability below 1e-307: a loop that may draw"
                " without end has no finite list of outcomes. Bound it, as in for _ in range(60), or draw how often it"
                f" runs by geometric ({user_line()})"
            )
        return Outcome(result, probability, min([draw.block(i) for draw, i in indices], default=2))

    def _advance(self) -> bool:
        while self._steps:
            draw, at = self._steps.pop()
            if at + 1 < draw.count:
                self._steps.append((draw, at + 1))
                return True
        return False

    def _part(self) -> float:
        """How much of the tree lies behind, every branch of a sample counted alike."""
        part, width = 0.0, 1.0
        for draw, at in self._steps:
            width /= draw.count
            part += at * width
        return part + width

    def _refuse_what_is_too_large(self, program: Callable[[], list[np.ndarray]]) -> None:
        if math.prod([draw.count for draw, _ in self._steps]) > 4 * self.budget:
            estimates = self._probe(program)
            if min(estimates) > 4 * self.budget:
                raise TooManyOutcomes(self._too_many(_estimated(estimates)))

    def _probe(self, program: Callable[[], list[np.ndarray]]) -> list[int]:
        kept, self._probing, found = self._steps, np.random.default_rng(0), []
        for _ in range(_PROBES):
            self._steps = []
            self._run(program)
            found.append(math.prod([draw.count for draw, _ in self._steps]))
        self._steps, self._probing = kept, None
        return found

    def _too_many(self, how_many: str) -> str:
        return (
            f"enumerate: {how_many}, and budget={self.budget:,}: enumerate a smaller copy of the program, with fewer"
            f" values, raise budget=, or judge draws of it as scg.bridge.Samples ({user_line()})"
        )


def _estimated(estimates: list[int]) -> str:
    low, high = min(estimates), max(estimates)
    if low == high:
        return f"the program has {_number(low)} outcomes, as many along each of {len(estimates)} paths that were tried"
    return (
        f"the program has about {_number(sum(estimates) // len(estimates))} outcomes, by Knuth's estimate from"
        f" {len(estimates)} paths"
    )


def _number(n: int) -> str:
    return f"{n:,}" if n < 10**9 else f"{n:.3g}" if n < 10**300 else f"10^{math.log10(n):.0f}"


def _unlike(how: str) -> NotAFunctionOfItsDraws:
    return NotAFunctionOfItsDraws(
        f"enumerate: the function, run again with the same outcomes of its samples, {how}: it keeps something from run"
        f" to run (a moving average, a counter), or draws from a generator that it was not given. Take every sample"
        f" from the generator or key that it is given, and hand its state in as an argument ({user_line()})"
    )


def _equal(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return len(a) == len(b) and all(
        [x.shape == y.shape and np.allclose(x, y, rtol=1e-6, atol=0, equal_nan=True) for x, y in zip(a, b, strict=True)]
    )
