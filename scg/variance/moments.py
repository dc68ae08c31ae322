"""Moments of samples that come in parts: computed about each part's own mean, and merged without loss."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from scg.testing.confidence import widened

_TOP, _LEAST = 400, 100  # draws that the tail index is read from, at most and where there are a thousand
# the tail index, and the samples that carry the mean, above which an interval is to be trusted
_HEAVY, CARRIED = 2.0, 60
_ATOM = 1.1  # the ratio up to which the CARRIED largest draws count as one value: there is no tail beyond it
_WIDER = 0.5  # standard errors that are added where the criteria are hardly met


@dataclass(frozen=True, eq=False)
class CentralMoments:
    """``count`` samples, their ``mean``, and ``sums[p - 2]``, the sums of (x - mean)^p for p = 2, 3, ..., of the
    samples' shape.

    ``merge`` is the pairwise update of Chan, Golub and LeVeque (1979), for higher powers that of Pebay (2008): with d
    the distance from a part's mean to that of both,

        sum (x - mean)^p  =  sum over parts  sum_k binomial(p, k) d^k sums_{p-k},   sums_0 = count, sums_1 = 0.

    Terms are of the size of the result: nothing cancels, whatever the mean is.
    """

    count: int
    mean: np.ndarray
    sums: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray, order: int = 2) -> "CentralMoments":
        """The moments up to ``order`` of samples along the leading axis."""
        x = np.asarray(x, float)
        mean = x.mean(axis=0)
        y = x - mean
        power = y
        sums = []
        for _ in range(2, order):
            power = power * y
            sums.append(power.sum(axis=0))
        if order == 2:
            sums = [np.einsum("i...,i...->...", y, y)]
        elif order > 2:
            sums.append(np.einsum("i...,i...->...", power, y))
        return cls(len(x), mean, np.array(sums).reshape(order - 1, *mean.shape))

    def merge(self, other: "CentralMoments") -> "CentralMoments":
        """The moments of the samples of both."""
        count = self.count + other.count
        mean = self.mean + (other.mean - self.mean) * (other.count / count)
        total = np.zeros_like(self.sums)
        for part in (self, other):
            d = part.mean - mean
            below = [part.count + 0 * d, 0 * d, *part.sums]
            for p in range(2, len(self.sums) + 2):
                total[p - 2] += sum(math.comb(p, k) * d**k * below[p - k] for k in range(p + 1) if p - k != 1)
        return CentralMoments(count, mean, total)

    @property
    def variance(self) -> np.ndarray:
        """The unbiased estimate of the variance; nan for a single sample."""
        return self.sums[0] / (self.count - 1) if self.count > 1 else np.full_like(self.mean, np.nan)

    @property
    def skewness(self) -> np.ndarray:
        """The third standardized moment; 0 where nothing varies."""
        variance = self.sums[0] / self.count
        with np.errstate(all="ignore"):
            return np.where(variance > 0, self.sums[1] / self.count / variance**1.5, 0.0)


@dataclass(frozen=True, eq=False)
class Squares:
    """Squared distances S of samples from their mean, one column a group of coordinates; ``top`` are the largest, in
    rising order.

    The sum of a group's variances is E[S], but for how the mean is estimated (``Tally.of``): S is what its estimate
    averages, and the tail of S tells what that average is worth.
    """

    moments: CentralMoments
    top: np.ndarray

    @classmethod
    def of(cls, s: np.ndarray) -> "Squares":
        """Of samples along the leading axis."""
        return cls(CentralMoments.of(s, 3), _largest(s))

    def merge(self, other: "Squares") -> "Squares":
        """Those of both."""
        return Squares(self.moments.merge(other.moments), _largest(np.concatenate([self.top, other.top])))

    @property
    def effective(self) -> np.ndarray:
        """How many samples of equal size would carry as much, (sum S)^2 / sum S^2 (Kish): the relative standard error
        of mean S is (1/this - 1/n)^(1/2)."""
        m = self.moments
        second = m.mean**2 + m.sums[0] / m.count
        with np.errstate(all="ignore"):
            return np.where(second > 0, m.count * m.mean**2 / second, float(m.count))

    @property
    def _k(self) -> int:
        """The samples that the tail index is read from: a fiftieth, but 100 where a tenth is as many, and 400 at
        most."""
        n = self.moments.count
        return min(int(np.clip(n // 50, max(10, min(n // 10, _LEAST)), _TOP)), len(self.top) - 1)

    @property
    def tail(self) -> np.ndarray:
        """Hill's index of the tail of S: P(S > u) ~ u^-index, from the k largest. At 2 and below S has no variance.
        Infinite where the 60 largest are one value.

        So many are looked at, and not the very largest alone, since an index that is read from a dozen draws is large
        whenever the few that count for most are missing; these are the experiments in which the mean of S is too small.
        """
        top = self.top[-self._k - 1 :]
        largest = self.top[-min(CARRIED, len(self.top)) :]
        with np.errstate(all="ignore"):
            mean = np.mean(np.log(top[1:] / top[0]), axis=0)
            one = (len(self.top) >= CARRIED) & (largest[-1] <= _ATOM * largest[0])
            return np.where((top[-1] == top[0]) | (top[-1] == 0) | one, np.inf, 1 / mean)

    @property
    def trust(self) -> np.ndarray:
        """By how many standard errors the criteria of an interval are met; below 0 they are not.

        They are a tail index above 2, whose standard error is 2 / k^(1/2) there, and ``effective`` draws of 60 and
        more, whose error is that of a count.
        """
        with np.errstate(all="ignore"):
            least = np.minimum(
                (self.tail / _HEAVY - 1) * math.sqrt(max(self._k, 1)), (self.effective - CARRIED) / math.sqrt(CARRIED)
            )
        return np.where(np.isnan(least), -np.inf, least)

    @property
    def error(self) -> np.ndarray:
        """The standard error of the mean of S."""
        return np.sqrt(self.moments.variance / self.moments.count)

    def margin(self, level: float) -> np.ndarray:
        """Half the width of an interval of ``level`` for E[S], normal and widened for skewness; infinite where the
        samples are too few to say.

        |sum of (S - E[S])| <= w V, V^2 the sum of squares, solved for the mean: w s / (n - w^2)^(1/2).

        Experiments that meet the criteria of ``trust`` by chance are those whose mean is too small: both depend on the
        largest draws. Where they are met by less than two standard errors, half a standard error is added, less the
        better they are met. With that the intervals that are trusted hold at their level among themselves
        (tests/test_variance_reliable.py), but for what is too rare to have been met 60 times.
        """
        n, z = self.moments.count, float(ndtri(0.5 + level / 2))
        w = widened(z, self.moments.skewness, n)
        wider = 1 + _WIDER / z * np.clip(1 - self.trust / 2, 0, 1)
        with np.errstate(all="ignore"):
            return np.where(
                w * w < n, wider * w * np.sqrt(self.moments.sums[0] / n / np.where(w * w < n, n - w * w, 1)), np.inf
            )


def _largest(s: np.ndarray) -> np.ndarray:
    if len(s) > _TOP + 1:
        s = np.partition(s, len(s) - _TOP - 1, axis=0)[-_TOP - 1 :]
    return np.sort(s, axis=0)
