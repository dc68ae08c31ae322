"""Confidence sequences: intervals for a mean that hold at all times at once, so that one may look after every draw and stop when it is plain.

Streams of draws arrive in blocks of shape (draws, streams); all formulas are per stream. t counts draws.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from scipy.special import ndtri

from scg.errors import ScgValueError, here

FLOOR = 0.25  # of a standard deviation: a bias is sought relative to the reference, or to this where that is smaller
_FIRST = 512  # draws before the first look
_EARLY = 2**12  # where one of two sequences is tightest, the other being so at the horizon
_ALIKE = 2**16  # draws before a stream that never varied is believed to be constant: what is rarer than 20 / 2^16 may have been missed
_TOP = 400  # largest deviations that the tail index is read from
_CERTAIN = 5  # standard errors by which it must exceed 2


def tightest(alpha: float) -> float:
    """The x = rho^2 t at which ``mixture`` is smallest for given t, whose square is then 1 + x: the root of x = log(1 + x) + 2 log(1/alpha)."""
    c = -2 * math.log(alpha)
    x = c + 1
    for _ in range(60):  # a contraction, of rate 1 / (1 + x)
        x = math.log1p(x) + c
    return x


def mixture(t: Any, alpha: float, rho2: float) -> Any:
    """Robbins' normal mixture: how many standard errors sigma / sqrt(t) the mean of t draws ever strays from the truth, but for probability ``alpha``.

    With S a sum of t standardized draws, exp(l S - l^2 t / 2) is a martingale for each l, and so is its mean over l ~ N(0, rho2),
    (1 + rho2 t)^(-1/2) exp(rho2 S^2 / (2 (1 + rho2 t))). By Ville's inequality it ever reaches 1/alpha with probability at most alpha, so that

        |S| / sqrt(t) < sqrt((1 + y) / y (log(1 + y) + 2 log(1/alpha))),  y = rho2 t,  for all t.

    For draws that are not normal this holds asymptotically, with the running standard deviation for sigma (Waudby-Smith, Arbour, Sinha, Kennedy
    and Ramdas, 2024, Time-uniform central limit theory and asymptotic confidence sequences, Annals of Statistics; arXiv:2103.06476), where
    the same is written sigma sqrt(2 (t rho2 + 1) / (t^2 rho2) log(sqrt(t rho2 + 1) / alpha)).
    """
    y = rho2 * np.asarray(t, float)
    return np.sqrt((1 + y) / y * (np.log1p(y) - 2 * math.log(alpha)))


def threshold(t: Any, alpha: float, when: float) -> Any:
    """The lesser of two mixtures of level alpha/2, tightest at 2^12 draws, for gross bias, and at ``when``."""
    x = tightest(alpha / 2)
    return np.minimum(mixture(t, alpha / 2, x / _EARLY), mixture(t, alpha / 2, x / when))


def widened(z: Any, skewness: Any, t: int) -> Any:
    """The threshold that a self-normalized sum of skewed draws needs to have the error of a normal one at ``z``; infinite where t is too small to tell.

    P(S/V > z) = P(N > z) exp(-z^3 skewness / (3 sqrt(t))) (1 + O((1 + z) / sqrt(t))) for z up to the order of t^(1/6), V^2 the sum of squares (Wang, 2005,
    Limit theorems for self-normalized large deviation, Electronic Journal of Probability 10, 1260-1285). So the
    threshold is the smallest w with w^2/2 - w^3 |skewness| / (3 sqrt(t)) = z^2/2: with v = z/w the largest root of v^3 - v + a = 0.
    """
    a = 2 * z * np.abs(skewness) / (3 * math.sqrt(t))
    limit = 2 / (3 * math.sqrt(3))
    v = 2 / math.sqrt(3) * np.cos(np.arccos(-np.minimum(a / limit, 1)) / 3)
    return np.where(a < limit, z / v, np.inf)


def horizon(alpha: float, detect: float, power: float) -> int:
    """The t at which a bias of detect * FLOOR standard deviations is found with probability ``power``: ((threshold + z_power) / (detect FLOOR))^2."""
    z = math.sqrt(1 + tightest(alpha / 2)) + float(ndtri(power))
    return math.ceil((z / (detect * FLOOR)) ** 2)


def affordable(most: int, streams: int, alpha: float, detect: float, power: float) -> int:
    """The ``horizon`` of so many streams that share ``alpha``; raises ScgValueError where it is beyond ``most``."""
    when = horizon(alpha / streams, detect, power)
    if most < when:
        raise ScgValueError(
            f"max_replicates={most} cannot reach the power: a bias of {detect:g} of the gradient, or of {FLOOR:g} standard deviations, in {streams} "
            f"streams is found with probability {power:.9g} from {when} on, whatever the variance; raise max_replicates or detect ({here()})"
        )
    return when


class Sequence(Protocol):
    """A confidence sequence: ``centre`` +- ``margin`` holds the mean at all times; ``spread`` is the standard deviation of ``centre``."""

    t: int

    def update(self, block: Any) -> None: ...

    @property
    def deviation(self) -> Any: ...

    @property
    def centre(self) -> Any: ...

    @property
    def spread(self) -> Any: ...

    @property
    def margin(self) -> Any: ...


class Asymptotic:
    """The asymptotic confidence sequence: centre +- s w / sqrt(t - w^2), w the ``threshold``, widened for skewness; s^2 is the running variance.

    It is |S| <= w V solved for the mean, S the sum and V^2 the sum of squares of draws minus mean. Normalized by V, not by the standard deviation,
    the martingale of ``mixture`` is a supermartingale for symmetric draws of any tail (de la Pena, 1999, Annals of Probability 27, 537-564), with t replaced by V^2 over the variance.

    ``origin`` is a number near the mean, about which sums of powers are kept; ``when`` the t at which the sequence is tightest.
    """

    def __init__(self, alpha: float, when: float, origin: Any):
        self.alpha, self.when, self.origin = alpha, when, np.asarray(origin, float)
        self.t, self.sums = 0, np.zeros((4, *self.origin.shape))

    def update(self, block: Any) -> None:
        """Take in a block of draws."""
        x = block - self.origin
        self.t += len(x)
        with np.errstate(all="ignore"):  # of the moments that overflow nothing is concluded
            square = x * x
            self.sums += np.stack([x.sum(axis=0), square.sum(axis=0), (square * x).sum(axis=0), (square * square).sum(axis=0)])

    def central(self) -> tuple[Any, Any, Any, Any]:
        """(mean, and second to fourth central moments)."""
        m, a, b, c = self.sums / self.t
        with np.errstate(all="ignore"):
            return self.origin + m, np.maximum(a - m**2, 0), b - 3 * m * a + 2 * m**3, np.maximum(c - 4 * m * b + 6 * m**2 * a - 3 * m**4, 0)

    @property
    def deviation(self) -> Any:
        """The standard deviation of a draw."""
        return np.sqrt(self.central()[1])

    @property
    def centre(self) -> Any:
        """The mean of the draws."""
        return self.central()[0]

    @property
    def spread(self) -> Any:
        """The standard deviation of their mean."""
        return self.deviation / math.sqrt(self.t)

    @property
    def margin(self) -> Any:
        """Half the width of the interval; infinite while t is too small to say."""
        _, variance, third, _ = self.central()
        with np.errstate(all="ignore"):
            skewness = np.where(variance > 0, third / variance**1.5, 0)
            w = widened(threshold(self.t, self.alpha, self.when), skewness, self.t)
            return np.where(w**2 < self.t, np.sqrt(variance / np.where(w**2 < self.t, self.t - w**2, 1)) * w, np.inf)


class Bernstein:
    """The empirical-Bernstein confidence sequence of draws between ``low`` and ``high``: no asymptotics, no condition on tails.

    For draws y in [0, 1] and predictable bets l_i in (0, 1): sum(l y)/sum(l) +- (log(2/alpha) + sum(v_i psi(l_i))) / sum(l), v_i = (y_i - m_{i-1})^2,
    psi(l) = -log(1 - l) - l: the predictable plug-in empirical-Bernstein sequence (Waudby-Smith and Ramdas, 2024, Estimating means of bounded random
    variables by betting, Journal of the Royal Statistical Society B; arXiv:2010.09686; the inequality is of Howard, Ramdas, McAuliffe and Sekhon,
    2021, Annals of Statistics 49, 1055-1080). Bets are l_i = min(1/2, sqrt(2 log(2/alpha) /
    (s_{i-1}^2 min(i log(1 + i), when)))), m and s^2 the running mean and variance, begun at 1/2 and 1/4 with the weight of one draw.
    The hedged capital of the same paper is narrower after few draws and the same to first order after many; but its interval has no closed form, and needs
    all draws again for each candidate mean of each stream at each look, so it is not used.
    """

    def __init__(self, alpha: float, when: float, low: Any, high: Any):
        self.log, self.when = math.log(2 / alpha), when
        self.low, self.range = np.asarray(low, float), np.asarray(high, float) - low
        if not np.all(np.isfinite(self.range) & (self.range > 0)):
            raise ScgValueError(f"bounds: the lower must be below the upper and both finite ({here()})")
        self.t = 0
        self.total, self.squares = np.full(self.range.shape, 0.5), np.full(self.range.shape, 0.25)
        self.bets, self.won, self.cost, self.bets2 = (np.zeros(self.range.shape) for _ in range(4))

    def update(self, block: Any) -> None:
        """Take in a block of draws; raises ScgValueError for one outside the bounds."""
        y = (block - self.low) / self.range
        if not np.all((y >= -1e-9) & (y <= 1 + 1e-9)):
            raise ScgValueError(f"bounds: a draw lies outside, between {np.min(y):.6g} and {np.max(y):.6g} of the way from lower to upper ({here()})")
        i = self.t + np.arange(1, len(y) + 1).reshape(-1, *[1] * (y.ndim - 1))
        totals = np.concatenate([self.total[None], self.total + np.cumsum(y, axis=0)])
        means = totals / np.concatenate([i[:1], i + 1])
        squares = np.concatenate([self.squares[None], self.squares + np.cumsum((y - means[1:]) ** 2, axis=0)])
        bets = np.minimum(0.5, np.sqrt(2 * self.log / (squares[:-1] / i * np.minimum(i * np.log1p(i), self.when))))
        self.won += np.sum(bets * y, axis=0)
        self.cost += np.sum((y - means[:-1]) ** 2 * (-np.log1p(-bets) - bets), axis=0)
        self.bets, self.bets2 = self.bets + np.sum(bets, axis=0), self.bets2 + np.sum(bets**2, axis=0)
        self.t, self.total, self.squares = self.t + len(y), totals[-1], squares[-1]

    @property
    def deviation(self) -> Any:
        """The standard deviation of a draw."""
        return self.range * np.sqrt(self.squares / (self.t + 1))

    @property
    def centre(self) -> Any:
        """The mean of the draws, weighted by the bets."""
        return self.low + self.range * self.won / self.bets

    @property
    def spread(self) -> Any:
        """The standard deviation of that mean."""
        return self.deviation * np.sqrt(self.bets2) / self.bets

    @property
    def margin(self) -> Any:
        """Half the width of the interval."""
        return self.range * (self.log + self.cost) / self.bets


class Tail:
    """Hill's estimate of the tail index: P(|x - origin| > u) ~ u^-index. The variance is infinite where the index is at most 2.

    index = 1 / mean(log(x_(i) / x_(k+1))) over the k largest deviations, k = t/200 between 10 and 400; its standard error is index / sqrt(k)
    (Hill, 1975, A simple general approach to inference about the tail of a distribution, Annals of Statistics 3, 1163-1174).
    """

    def __init__(self, origin: Any):
        self.origin, self.t = np.asarray(origin, float), 0
        self.most = int(np.clip(2**22 // max(1, self.origin.size), 20, _TOP))
        self.top = np.zeros((0, *self.origin.shape))

    def update(self, block: Any) -> None:
        """Take in a block of draws."""
        self.t += len(block)
        self.top = np.concatenate([self.top, np.abs(block - self.origin)])
        if len(self.top) > self.most + 1:
            self.top = np.partition(self.top, len(self.top) - self.most - 1, axis=0)[-self.most - 1 :]

    def index(self) -> tuple[Any, int]:
        """(index, k); infinite where all k are equal."""
        k = int(np.clip(self.t // 200, 10, min(self.most, len(self.top) - 1)))
        top = np.sort(self.top, axis=0)[-k - 1 :]
        with np.errstate(all="ignore"):
            mean = np.mean(np.log(top[1:] / top[0]), axis=0)
            return np.where(top[-1] == top[0], np.inf, 1 / mean), k

    def light(self) -> Any:
        """Whether the index exceeds 2 by five standard errors, those that it has at 2."""
        index, k = self.index()
        return index > 2 * (1 + _CERTAIN / math.sqrt(k))


@dataclass(frozen=True, eq=False)
class Outcome:
    """What ``decide`` found for each stream: the interval ``centre`` +- ``margin``, what was ``detectable``, the tail index, draws in all."""

    status: str
    reason: str
    draws: int
    centre: Any
    margin: Any
    detectable: Any
    tail: Any

    @property
    def excess(self) -> Any:
        """How far the centre is from 0, in margins."""
        with np.errstate(all="ignore"):
            return np.where(self.centre == 0, 0, np.abs(self.centre) / self.margin)


def decide(
    draw: Callable[[int], Any],
    scale: Any,
    *,
    alpha: float,
    detect: float,
    power: float,
    most: int,
    bounds: tuple[Any, Any] | None = None,
    rounding: Any = 0.0,
    allowance: Callable[[], Any] = lambda: 0.0,
    origin: Any = 0.0,
    varied: Any = False,
    constant: Callable[[], Any] = lambda: False,
    projection: Any = None,
) -> Outcome:
    """Whether the means of streams are all 0; ``draw(n)`` gives the next n draws of each, an array (n, streams).

    With m streams and delta = detect * max(scale, deviation / 4) + 2 rounding for each:

    - "biased" where an interval of level 1 - alpha/m, widened by ``allowance`` and ``rounding``, excludes 0. Where all means are 0 this happens, ever,
      with probability at most alpha (to first order, without ``bounds``).
    - "unbiased" where no interval does, and each is so narrow that a bias of delta would have been found with probability ``power``:
      margin + z_power spread + allowance + rounding <= delta. This depends on the draws' variance and not on their mean.
    - "inconclusive" where neither holds after ``most`` draws, or a draw is not finite. Without ``bounds`` nothing is concluded from a stream
      while its tail may be too heavy for a variance, nor, before 2^16 draws, from one that never varied (unless ``varied`` says that what it is the difference of did).
      Nor is a stream that never varied "biased", however many the draws: a draw that is too rare to have been met may make its mean right. It is where
      ``constant()``, asked at most once, says that it cannot vary. A row of ``projection``, which tells what the last streams are made of the
      first, is not "biased" where it takes in such a stream.

    Raises ScgValueError, before it draws, where ``most`` may not suffice: below ``horizon`` for delta = detect deviation / 4.
    """
    scale = np.asarray(scale, float)
    when = affordable(most, scale.size, alpha, detect, power)
    alpha = alpha / scale.size
    origin = np.broadcast_to(np.asarray(origin, float), scale.shape)
    sequence: Sequence = Asymptotic(alpha, when, origin) if bounds is None else Bernstein(alpha, when, *bounds)
    tail, sure = Tail(origin), float(ndtri(power))
    projection = np.zeros((0, scale.size)) if projection is None else np.asarray(projection)
    known = None  # what ``constant`` says
    while True:
        size = min(_FIRST if not sequence.t else sequence.t // 2, max(64, 2**22 // scale.size), most - sequence.t)
        block = np.asarray(draw(size), float)
        if not np.all(np.isfinite(block)):
            bad = ~np.isfinite(block).all(axis=0)
            nothing, index = np.full(scale.shape, np.nan), np.where(bad, 0.0, np.inf)
            return Outcome("inconclusive", "a draw is not finite", sequence.t + size, nothing, np.full(scale.shape, np.inf), np.full(scale.shape, np.inf), index)
        sequence.update(block)
        if bounds is None:
            tail.update(block)
        centre, margin, deviation = sequence.centre, sequence.margin + allowance() + rounding, sequence.deviation
        light = np.ones(scale.shape, bool) if bounds is not None else tail.light() & ((deviation > rounding) | varied | (sequence.t >= min(_ALIKE, when)))
        unseen = (deviation <= rounding) & (np.abs(centre) > margin) & (bounds is None)
        margin = np.where(light, margin, np.inf)
        if np.any(unseen):
            known = np.broadcast_to(constant(), scale.shape) if known is None else known
            unseen = unseen & ~known
            among = np.abs(projection) @ unseen[: projection.shape[1]] > 0
            unseen[scale.size - len(among) :] |= among
            margin = np.where(unseen, np.inf, margin)
        wanted = detect * np.maximum(scale, FLOOR * deviation) + 2 * rounding
        found = margin + sure * sequence.spread
        if np.any(np.abs(centre) > margin):
            status, reason = "biased", "an interval excludes 0"
        elif np.all(found <= wanted):
            status, reason = "unbiased", "any bias of the detectable size would have been found"
        elif sequence.t < most:
            continue
        else:
            status = "inconclusive"
            reason = "the tail may be too heavy for a variance" if not np.all(light) else "the intervals are still too wide"
            if np.any(unseen):
                reason = f"what depends on draws never varied in {sequence.t} draws, which is no proof that it does not"
        return Outcome(status, reason, sequence.t, centre, margin, found, tail.index()[0] if bounds is None else np.full(scale.shape, np.inf))
