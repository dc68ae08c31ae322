"""Confidence sequences: intervals for a mean that hold at all times at once, so that one may look after every sample
and stop when it is plain.

Streams of samples arrive in blocks of shape (samples, streams); all formulas are per stream. t counts samples.
"""

import math
from typing import Protocol

import numpy as np
from scipy.special import ndtri

from scg.core.aliases import Result
from scg.errors import ScgValueError, here

FLOOR = 0.25  # of a standard deviation: a bias is sought relative to the reference, or to this where that is smaller
RARE, FREQUENT = 1 / 2000, 1 / 400
"""Of what must have been met before a bias is believed; the latter where few samples are to be had."""
_EARLY = 2**12  # where one of two sequences is tightest, the other being so at the horizon


def tightest(alpha: float) -> float:
    """The x = rho^2 t at which ``mixture`` is smallest for given t, whose square is then 1 + x: the root of x = log(1 +
    x) + 2 log(1/alpha)."""
    c = -2 * math.log(alpha)
    x = c + 1
    for _ in range(60):  # a contraction, of rate 1 / (1 + x)
        x = math.log1p(x) + c
    return x


def mixture(t: np.ndarray, alpha: float, rho2: float) -> np.ndarray:
    """Robbins' normal mixture: by how many standard errors sigma / sqrt(t) the mean of t samples is ever off, but for
    probability ``alpha``.

    With S a sum of t standardized samples, exp(l S - l^2 t / 2) is a martingale for each l, and so is its mean over l ~
    N(0, rho2), (1 + rho2 t)^(-1/2) exp(rho2 S^2 / (2 (1 + rho2 t))). By Ville's inequality it ever reaches 1/alpha with
    probability at most alpha, so that

        |S| / sqrt(t) < sqrt((1 + y) / y (log(1 + y) + 2 log(1/alpha))),  y = rho2 t,  for all t.

    For samples that are not normal this holds asymptotically, with the running standard deviation for sigma
    (Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, 2024, Time-uniform central limit theory and asymptotic confidence
    sequences, Annals of Statistics; arXiv:2103.06476), where the same is written sigma sqrt(2 (t rho2 + 1) / (t^2 rho2)
    log(sqrt(t rho2 + 1) / alpha)).
    """
    y = rho2 * np.asarray(t, float)
    return np.sqrt((1 + y) / y * (np.log1p(y) - 2 * math.log(alpha)))


def threshold(t: Result, alpha: float, when: float) -> Result:
    """The lesser of two mixtures of level alpha/2, tightest at 2^12 samples, for gross bias, and at ``when``."""
    x = tightest(alpha / 2)
    return np.minimum(mixture(t, alpha / 2, x / _EARLY), mixture(t, alpha / 2, x / when))


def widened(z: Result, skewness: Result, t: int) -> Result:
    """The threshold that a self-normalized sum of skewed draws needs to have the error of a normal one at ``z``;
    infinite where t is too small to tell.

    P(S/V > z) = P(N > z) exp(-z^3 skewness / (3 sqrt(t))) (1 + O((1 + z) / sqrt(t))) for z up to the order of t^(1/6),
    V^2 the sum of squares (Wang, 2005, Limit theorems for self-normalized large deviation, Electronic Journal of
    Probability 10, 1260-1285). So the threshold is the smallest w with w^2/2 - w^3 |skewness| / (3 sqrt(t)) = z^2/2:
    with v = z/w the largest root of v^3 - v + a = 0.
    """
    a = 2 * z * np.abs(skewness) / (3 * math.sqrt(t))
    limit = 2 / (3 * math.sqrt(3))
    v = 2 / math.sqrt(3) * np.cos(np.arccos(-np.minimum(a / limit, 1)) / 3)
    return np.where(a < limit, z / v, np.inf)


def horizon(alpha: float, detect: float, power: float) -> int:
    """The t at which a bias of detect * FLOOR standard deviations is found with probability ``power``: ((threshold +
    z_power) / (detect FLOOR))^2."""
    z = math.sqrt(1 + tightest(alpha / 2)) + float(ndtri(power))
    return math.ceil((z / (detect * FLOOR)) ** 2)


def met(alpha: float, p: float) -> int:
    """The least t of which all miss a value of probability p with probability at most alpha: (1 - p)^t <= alpha.

    Until a value is met nothing tells of it, neither variance nor skewness: for any sequence there are distributions
    that it fails for (Bahadur and Savage, 1956, The nonexistence of certain statistical procedures in nonparametric
    problems, Annals of Mathematical Statistics 27, 1115-1122), and what can be promised is how unusual these are. Where
    all t samples miss a value a of probability p their mean is off by p a, and an interval of half width z s / sqrt(t)
    excludes the right one if p a > z s / sqrt(t). More often than alpha they all miss it for p < log(1/alpha) / t only,
    so that a > z sqrt(t) / log(1/alpha) s. At alpha = 1e-9 and p = 1/2000 t is 41,437, and a value that may be missed
    is rarer than that and 69 standard deviations of the others away, or more; at t = 512, which show a gross bias, it
    is one of probability 1/25 at 8. Once met it makes the skewness large, and the interval infinite until it is met
    often (``widened``).
    """
    return math.ceil(math.log(alpha) / math.log1p(-p))


class Sequence(Protocol):
    """A confidence sequence: ``centre`` +- ``margin`` holds the mean at all times; ``spread`` is the standard deviation
    of ``centre``."""

    t: int

    def update(self, block: np.ndarray) -> None: ...

    @property
    def deviation(self) -> np.ndarray: ...

    @property
    def centre(self) -> np.ndarray: ...

    @property
    def spread(self) -> np.ndarray: ...

    @property
    def margin(self) -> np.ndarray: ...


class Asymptotic:
    """The asymptotic confidence sequence: centre +- s w / sqrt(t - w^2), w the ``threshold``, widened for skewness; s^2
    is the running variance.

    It is |S| <= w V solved for the mean, S the sum and V^2 the sum of squares of samples minus mean. Normalized by V,
    not by the standard deviation, the martingale of ``mixture`` is a supermartingale for symmetric draws of any tail
    (de la Pena, 1999, Annals of Probability 27, 537-564), with t replaced by V^2 over the variance.

    ``origin`` is a number near the mean, about which sums of powers are kept; ``when`` the t at which the sequence is
    tightest. s is at most half the range of the samples (Popoviciu, 1935), so that it is 0 where they are all the same:
    a difference of sums of powers leaves 1e-9 of a sample there, and an interval of that width.
    """

    def __init__(self, alpha: float, when: float, origin: np.ndarray):
        self.alpha, self.when, self.origin = alpha, when, np.asarray(origin, float)
        self.t, self.sums = 0, np.zeros((4, *self.origin.shape))
        self.low, self.high = np.full(self.origin.shape, np.inf), np.full(self.origin.shape, -np.inf)

    def update(self, block: np.ndarray) -> None:
        """Take in a block of samples."""
        self.low, self.high = np.minimum(self.low, block.min(axis=0)), np.maximum(self.high, block.max(axis=0))
        x = block - self.origin
        self.t += len(x)
        with np.errstate(all="ignore"):  # of the moments that overflow nothing is concluded
            square = x * x
            self.sums += np.stack(
                [x.sum(axis=0), square.sum(axis=0), (square * x).sum(axis=0), (square * square).sum(axis=0)]
            )

    def central(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(mean, and second to fourth central moments)."""
        m, a, b, c = self.sums / self.t
        with np.errstate(all="ignore"):
            return (
                self.origin + m,
                np.clip(a - m**2, 0, ((self.high - self.low) / 2) ** 2),
                b - 3 * m * a + 2 * m**3,
                np.maximum(c - 4 * m * b + 6 * m**2 * a - 3 * m**4, 0),
            )

    @property
    def deviation(self) -> np.ndarray:
        """The standard deviation of a sample."""
        return np.sqrt(self.central()[1])

    @property
    def centre(self) -> np.ndarray:
        """The mean of the samples."""
        return self.central()[0]

    @property
    def spread(self) -> np.ndarray:
        """The standard deviation of their mean."""
        return self.deviation / math.sqrt(self.t)

    @property
    def margin(self) -> np.ndarray:
        """Half the width of the interval; infinite while t is too small to say."""
        _, variance, third, _ = self.central()
        with np.errstate(all="ignore"):
            skewness = np.where(variance > 0, third / variance**1.5, 0)
            w = widened(threshold(self.t, self.alpha, self.when), skewness, self.t)
            return np.where(w**2 < self.t, np.sqrt(variance / np.where(w**2 < self.t, self.t - w**2, 1)) * w, np.inf)


class Bernstein:
    """The empirical-Bernstein confidence sequence of samples between ``low`` and ``high``: no asymptotics, no condition
    on tails.

    For samples y in [0, 1] and predictable bets l_i in (0, 1): sum(l y)/sum(l) +- (log(2/alpha) + sum(v_i psi(l_i))) /
    sum(l), v_i = (y_i - m_{i-1})^2, psi(l) = -log(1 - l) - l: the predictable plug-in empirical-Bernstein sequence
    (Waudby-Smith and Ramdas, 2024, Estimating means of bounded random variables by betting, Journal of the Royal
    Statistical Society B; arXiv:2010.09686; the inequality is of Howard, Ramdas, McAuliffe and Sekhon, 2021, Annals of
    Statistics 49, 1055-1080). Bets are l_i = min(1/2, sqrt(2 log(2/alpha) / (s_{i-1}^2 min(i log(1 + i), when)))), m
    and s^2 the running mean and variance, begun at 1/2 and 1/4 with the weight of one sample. The hedged capital of the
    same paper is narrower after few samples and the same to first order after many; but its interval has no closed
    form, and needs all samples again for each candidate mean of each stream at each look, so it is not used.
    """

    def __init__(self, alpha: float, when: float, low: np.ndarray, high: np.ndarray):
        self.log, self.when = math.log(2 / alpha), when
        self.low, self.range = np.asarray(low, float), np.asarray(high, float) - low
        if not np.all(np.isfinite(self.range) & (self.range > 0)):
            raise ScgValueError(f"bounds: the lower must be below the upper and both finite ({here()})")
        self.t = 0
        self.total, self.squares = np.full(self.range.shape, 0.5), np.full(self.range.shape, 0.25)
        self.bets, self.won, self.cost, self.bets2 = (np.zeros(self.range.shape) for _ in range(4))

    def update(self, block: np.ndarray) -> None:
        """Take in a block of samples; raises ScgValueError for one outside the bounds."""
        y = (block - self.low) / self.range
        if not np.all((y >= -1e-9) & (y <= 1 + 1e-9)):
            raise ScgValueError(
                f"bounds: a replicate lies outside, between {np.min(y):.6g} and {np.max(y):.6g} of the way from lower"
                f" to upper ({here()})"
            )
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
    def deviation(self) -> np.ndarray:
        """The standard deviation of a sample."""
        return self.range * np.sqrt(self.squares / (self.t + 1))

    @property
    def centre(self) -> np.ndarray:
        """The mean of the samples, weighted by the bets."""
        return self.low + self.range * self.won / self.bets

    @property
    def spread(self) -> np.ndarray:
        """The standard deviation of that mean."""
        return self.deviation * np.sqrt(self.bets2) / self.bets

    @property
    def margin(self) -> np.ndarray:
        """Half the width of the interval."""
        return self.range * (self.log + self.cost) / self.bets
