"""How heavy the tails of samples are."""

import math

import numpy as np

_TOP = 1000  # largest deviations that the tail index is read from
_CERTAIN = 5  # standard errors by which it must exceed 2
_TIED, _FEW = 1 + 1e-9, 10


class Tail:
    """Hill's estimate of the tail index: P(|x - origin| > u) ~ u^-index. The variance is infinite where the index is at
    most 2.

    index = 1 / mean(log(x_(i) / x_(k+1))) over the k largest deviations, k = t/200 between 10 and 1000; its standard
    error is index / sqrt(k) (Hill, 1975, A simple general approach to inference about the tail of a distribution,
    Annals of Statistics 3, 1163-1174).

    Draws with values in common, such as polynomials of counts: where x_(k+1) is one of several equal ones, an atom a of
    which the k largest have an unknown part, only those above it are taken, k of them. On atoms of ratio r with P(x >=
    a_j) = a_j^-index the mean of log(x / (a b)^(1/2)), b the atom above a, is (log r / 2) coth(index log r / 2), which
    is solved for the index with r = b / a.
    """

    def __init__(self, origin: np.ndarray):
        self.origin, self.t = np.asarray(origin, float), 0
        self.most = int(np.clip(2**22 // max(1, self.origin.size), 20, _TOP))
        self.top = np.zeros((0, *self.origin.shape))

    def update(self, block: np.ndarray) -> None:
        """Take in a block of samples."""
        self.t += len(block)
        self.top = np.concatenate([self.top, np.abs(block - self.origin)])
        if len(self.top) > self.most + 1:
            self.top = np.partition(self.top, len(self.top) - self.most - 1, axis=0)[-self.most - 1 :]

    def index(self) -> tuple[np.ndarray, np.ndarray]:
        """(index, k) of each stream; infinite where all k are equal."""
        top = self._largest()
        k = np.full(self.origin.shape, len(top) - 1)
        with np.errstate(all="ignore"):
            found = np.where(top[-1] == top[0], np.inf, 1 / np.mean(np.log(top[1:] / top[0]), axis=0))
            for at in zip(*np.nonzero((top[1] <= _TIED * top[0]) & (top[0] > 0)), strict=True):
                x = top[:, *at]
                above = x[x > _TIED * x[0]]
                if len(above) >= _FEW:
                    half = math.log(above[0] / x[0]) / 2
                    found[at], k[at] = np.arctanh(half / np.mean(half + np.log(above / above[0]))) / half, len(above)
        return found, k

    def light(self) -> np.ndarray:
        """Whether the index exceeds 2 by five standard errors, those that it has at 2."""
        index, k = self.index()
        return index > 2 * (1 + _CERTAIN / np.sqrt(k))

    def mass(self) -> np.ndarray:
        """What the k largest deviations contribute to a mean."""
        return self._largest()[1:].sum(axis=0) / self.t

    def _largest(self) -> np.ndarray:
        """The k + 1 largest, in rising order."""
        k = int(np.clip(self.t // 200, _FEW, min(self.most, len(self.top) - 1)))
        return np.sort(self.top, axis=0)[-k - 1 :]
