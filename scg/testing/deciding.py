"""Verdicts on streams of samples: biased, unbiased or inconclusive, at any time and with one level of error."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from scg.core.aliases import Numbers
from scg.testing.confidence import FLOOR, FREQUENT, RARE, Asymptotic, Bernstein, Sequence, horizon, met
from scg.testing.tails import Tail

_FIRST = 512  # samples before the first look
# before a stream that never varied is believed to be constant: what is rarer than 20 / 2^16 may have been missed
_ALIKE = 2**16
_PIECE = 2**15  # samples between two reports of progress


@dataclass(frozen=True, eq=False)
class Outcome:
    """What ``decide`` found for each stream: the interval ``centre`` +- ``margin``, what was ``detectable``, the tail
    index, whether it never varied and may yet (``unseen``); samples in all."""

    status: str
    reason: str
    draws: int
    centre: np.ndarray
    margin: np.ndarray
    detectable: np.ndarray
    tail: np.ndarray
    unseen: np.ndarray

    @property
    def excess(self) -> np.ndarray:
        """How far the centre is from 0, in margins."""
        with np.errstate(all="ignore"):
            return np.where(self.centre == 0, 0, np.abs(self.centre) / self.margin)


@dataclass(frozen=True)
class Demand:
    """What a verdict must hold to: the probability ``alpha`` of a false "biased", ever; a bias of ``detect`` times the
    scale is found with probability ``power``; ``most`` samples."""

    alpha: float
    detect: float
    power: float
    most: int


@dataclass(frozen=True, eq=False)
class Source:
    """Streams whose means should be 0. ``draw(n)`` gives (the next n samples of each, (n, streams); where they are
    differences of a gradient and something else, that gradient, likewise, else None).

    ``scale`` of what is estimated, by which a bias is measured, or ``floor`` standard deviations of a sample, where
    these are more; ``rounding`` and ``allowance()``, by which a mean may be off without bias; ``bounds`` of the
    samples; ``origin``, near their means; ``constant()``, whether a stream is known not to vary; ``projection``, of
    which the last streams are made.
    """

    draw: Callable[[int], tuple[np.ndarray, np.ndarray | None]]
    scale: np.ndarray
    floor: float = FLOOR
    rounding: Numbers = 0.0
    allowance: Callable[[], Numbers] = lambda: 0.0
    bounds: tuple[np.ndarray, np.ndarray] | None = None
    origin: Numbers = 0.0
    constant: Callable[[], bool | np.ndarray] = lambda: False
    projection: np.ndarray | None = None


def decide(source: Source, demand: Demand, report: Callable[[int, int], object] = lambda done, most: None) -> Outcome:
    """Whether the means of streams are all 0.

    With m streams and delta = detect * max(scale, floor * deviation) + 2 rounding for each:

    - "biased" where an interval of level 1 - alpha/m, widened by ``allowance`` and ``rounding``, excludes 0. Where all
      means are 0 this happens, ever, with probability at most alpha (to first order, without ``bounds``). Without
      ``bounds`` it is not said before ``met(alpha/m, RARE)`` samples, unless the stream is known not to vary: fewer
      may all miss a value that brings the mean to 0, and none of them tells of it. The first samples count among those.
      Where ``most`` are fewer it is said after them all, but not before ``met(alpha/m, FREQUENT)``.
    - "unbiased" where no interval does, and each is so narrow that a bias of delta would have been found with
      probability ``power``: margin + z_power spread + allowance + rounding <= delta. This depends on the samples'
      variance and not on their mean. From ``horizon`` on it is so whatever the variance, where delta = detect * floor *
      deviation.
    - "inconclusive" where neither holds after ``most`` samples, or a sample is not finite. Without ``bounds`` nothing
      is concluded from a stream while its tail may be too heavy (``_Look.tails``), nor, before 2^16 samples, from one
      that never varied, but as a difference of what did. Nor is a stream that never varied "biased", however many the
      samples: a sample that is too rare to have been met may make its mean right. It is where ``constant()``, called at
      most once, says that it cannot vary. A row of ``projection`` is not "biased" where it takes in such a stream. An
      eighth of ``most`` samples suffices to call such a stream inconclusive: nothing is concluded from fewer than (2 z
      / (3 .385))^2 values that are met rarely (``widened``), 150 at the default level, and where ``most`` samples had
      so many, an eighth had none with probability e^-18.

    ``report(draws, most)`` is called on the way.
    """
    look = _Look(source, demand)
    while True:
        for size in look.sizes():
            block, estimate = source.draw(size)
            if not (np.all(np.isfinite(block)) and (estimate is None or np.all(np.isfinite(estimate)))):
                return look.broken(np.asarray(block, float))
            look.update(np.asarray(block, float), estimate)
            report(look.sequence.t, demand.most)
        found = look.outcome()
        if found is not None:
            return found


class _Look:
    """What is known of the streams after some samples."""

    def __init__(self, source: Source, demand: Demand):
        self.source, self.demand = source, demand
        self.scale = np.asarray(source.scale, float)
        level = demand.alpha / self.scale.size
        self.horizon = horizon(level, demand.detect, demand.power)
        # samples, to have met what is not too rare
        self.rare = met(level, RARE)
        self.enough = max(met(level, FREQUENT), min(self.rare, demand.most)) if source.bounds is None else 0
        self.origin = np.broadcast_to(np.asarray(source.origin, float), self.scale.shape)
        when = min(self.horizon, demand.most)
        self.sequence: Sequence = (
            Asymptotic(level, when, self.origin) if source.bounds is None else Bernstein(level, when, *source.bounds)
        )
        self.tail = Tail(self.origin)
        self.parts: tuple[Tail, ...] = ()  # of the gradient, and of what is taken from it
        self.known: np.ndarray | None = None  # what ``constant`` says
        self.moved = np.zeros(self.scale.shape, bool)  # whether what a stream is a difference of has varied

    def sizes(self) -> list[int]:
        """Of the samples before the next look: half of those so far, in pieces; one look is where they are enough."""
        t = self.sequence.t
        most = self.demand.most if not 0 < t < self.enough else min(self.demand.most, self.enough)
        n = min(t // 2 if t else _FIRST, max(64, 2**22 // self.scale.size), most - t)
        return [_PIECE] * (n // _PIECE) + [n % _PIECE] * (n % _PIECE > 0)

    def update(self, block: np.ndarray, estimate: np.ndarray | None) -> None:
        self.sequence.update(block)
        if self.source.bounds is not None:
            return
        self.tail.update(block)
        if estimate is not None:
            self.moved |= np.ptp(estimate, axis=0) > self.source.rounding
            taken = (estimate, estimate - block)
            self.parts = self.parts or tuple([Tail(x.mean(axis=0)) for x in taken])
            for tail, x in zip(self.parts, taken, strict=True):
                tail.update(x)

    def broken(self, block: np.ndarray) -> Outcome:
        none, wide = np.full(self.scale.shape, np.nan), np.full(self.scale.shape, np.inf)
        index = np.where(np.isfinite(block).all(axis=0), np.inf, 0.0)
        reason, blind = "a replicate is not finite", np.zeros(self.scale.shape, bool)
        return Outcome("inconclusive", reason, self.sequence.t + len(block), none, wide, wide, index, blind)

    def tails(self, wanted: np.ndarray) -> tuple[np.ndarray, Numbers]:
        """(Whether a stream may be concluded from, what its tail adds to its margin).

        An estimate without a variance is never called unbiased: the tail index is that of the gradient. A stream that
        is a difference of the gradient and something with samples in common may be a thousandth of it, with a tail that
        is heavy beside the rest of it. That is no harm where both have a variance, so that the difference has one too,
        and where all that the largest samples amount to, sum of the k largest / t, is below a quarter of what is to be
        detected; the margin is widened by it.
        """
        if self.source.bounds is not None:
            return np.ones(self.scale.shape, bool), 0.0
        own = self.sums(self.tail.light())
        if not self.parts:
            return own, 0.0
        gradient, other = (self.sums(part.light()) for part in self.parts)
        mass = self.tail.mass()
        return gradient & (own | other & (mass <= wanted / 4)), np.where(own, 0.0, mass)

    def sums(self, light: np.ndarray) -> np.ndarray:
        """A projection has a variance too where all that it is made of have one."""
        if self.source.projection is not None and len(self.source.projection):
            made = np.abs(self.source.projection) > 0
            light[-len(made) :] |= ~np.any(made & ~light[: made.shape[1]], axis=1)
        return light

    def outcome(self) -> Outcome | None:
        """The verdict; None where more samples may give another."""
        source, demand, sequence = self.source, self.demand, self.sequence
        centre, deviation = sequence.centre, sequence.deviation
        wanted = demand.detect * np.maximum(self.scale, source.floor * deviation) + 2 * source.rounding
        light, slack = self.tails(wanted)
        margin = sequence.margin + source.allowance() + source.rounding + slack
        if source.bounds is None:
            light = light & ((deviation > source.rounding) | self.moved | (sequence.t >= min(_ALIKE, self.horizon)))
        unseen = self.unseen((deviation <= source.rounding) & (np.abs(centre) > margin))
        index = (
            (self.parts[0] if self.parts else self.tail).index()[0]
            if source.bounds is None
            else np.full(self.scale.shape, np.inf)
        )
        detectable = np.where(
            (light | (index > 2)) & ~unseen, margin + float(ndtri(demand.power)) * sequence.spread, np.inf
        )
        margin = np.where(light & ~unseen, margin, np.inf)
        off = np.abs(centre) > margin
        if np.any(off) and (sequence.t >= self.enough or np.any(off & (deviation <= source.rounding))):
            status, reason = "biased", "an interval excludes 0"
        elif np.all(light) and np.all(detectable <= wanted) and not np.any(off):
            status, reason = "unbiased", "any bias of the detectable size would have been found"
        elif sequence.t < (demand.most / 8 if np.any(unseen) and not np.any(off) else demand.most):
            return None
        else:
            status = "inconclusive"
            reason = (
                f"the intervals are still too wide to find a bias of {demand.detect:g} of the gradient; raise"
                " max_replicates or detect"
            )
            if not np.all(light):
                reason = "the tail may be too heavy for a variance"
                if np.all(index[~light] > 2):
                    reason = f"{sequence.t} samples are too few to tell that the tail is not too heavy for a variance"
            if np.any(unseen):
                reason = (
                    f"what depends on samples never varied in {sequence.t} of them, which is no proof that it does not"
                )
            if np.any(off):
                reason = (
                    f"an interval excludes 0, but {sequence.t} samples may have missed rare values that bring the mean"
                    f" there; raise max_replicates to {self.rare}"
                )
        return Outcome(status, reason, sequence.t, centre, margin, detectable, index, unseen)

    def unseen(self, still: np.ndarray) -> np.ndarray:
        """The streams of which nothing is concluded, of those that never varied and seem biased; a projection too that
        takes in one."""
        if self.source.bounds is not None or not np.any(still):
            return np.zeros(self.scale.shape, bool)
        if self.known is None:
            self.known = np.broadcast_to(self.source.constant(), self.scale.shape)
        still = still & ~self.known
        if self.source.projection is not None:
            rows = np.abs(self.source.projection)
            still[self.scale.size - len(rows) :] |= rows @ still[: rows.shape[1]] > 0
        return still
