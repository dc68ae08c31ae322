"""The rows of a report: what is concluded from the replicates of each, and what is not."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from scg.core.aliases import Result
from scg.core.tree import leaves
from scg.stochastic.graph import Graph
from scg.testing.structure import Subject, split
from scg.testing.structure import precision as rounding
from scg.variance.chunks import Tally
from scg.variance.rows import Entry, Row

LEVEL = 0.95
_SEEN = 10  # draws that must carry the variance of a mean before it is compared; of few replicates an eighth


@dataclass(frozen=True, eq=False)
class Measured:
    """What is known of one row: its ``tally``; ``moments``, exact (mean, variance) or None; ``still``, for each
    coordinate whether it is known not to vary; ``evaluations`` (nan where nobody counted) and ``seconds`` of one
    gradient."""

    label: str
    estimators: str
    subject: Subject
    tally: Tally
    moments: np.ndarray
    still: np.ndarray
    evaluations: float
    seconds: float

    @property
    def variance(self) -> np.ndarray:
        """Of each coordinate, but for rounding: a gradient that is the same in every run may differ by its last
        bits."""
        variance = self.tally.coordinates.variance
        return np.where(np.sqrt(variance) <= 2.0**-45 * np.abs(self.tally.coordinates.mean), 0.0, variance)

    def unseen(self, where: slice | np.ndarray = slice(None)) -> bool:
        """Whether draws lead to what did not vary."""
        return not np.any(self.variance[where]) and not np.all(self.still[where])

    def comparable(self, column: int) -> bool:
        """Whether enough draws carry the variance for the mean to have the error that it shows.

        Where a few do, more that matter as much may be missing: the mean is then off by more than its standard error.
        """
        effective = float(self.tally.squares.effective[column])
        return effective >= min(_SEEN, self.tally.coordinates.count / 8)

    def precise(self, precision: float) -> bool:
        """Whether the relative standard error of its variance is at most ``precision``."""
        with np.errstate(all="ignore"):  # what overflows is no variance, and is marked as not reliable
            return not self.unseen() and bool(
                self.tally.squares.error[-1] <= precision * np.sum(self.tally.coordinates.variance)
            )


@dataclass(frozen=True, eq=False)
class Reference:
    """What bias is against: ``gradient``, the exact one; or, where that is None, the mean of the row ``row``."""

    gradient: np.ndarray
    row: Measured

    def offset(self, measured: Measured) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Of each coordinate (mean minus reference but for rounding, variance of a sample of that, whether that
        variance is known); None for the row itself."""
        mean, differences = measured.tally.coordinates.mean, measured.tally.differences
        if self.gradient is not None:
            off, spread, sure = mean - self.gradient, measured.variance, measured.still
        elif differences is not None and measured.label != self.row.label:
            off, spread = differences.mean, differences.variance
            # draws in common, of which the gradients vary and the difference does not
            sure = measured.still & self.row.still | (measured.variance > 0)
        else:
            return None
        slack = rounding(measured.subject) * (np.abs(mean) + np.abs(mean - off) + np.max(np.abs(mean)))
        return np.sign(off) * np.maximum(np.abs(off) - slack, 0), spread, sure

    def known(self, column: int) -> bool:
        """Whether it is good enough to compare others with, for a parameter or in total."""
        return self.gradient is not None or self.row.comparable(column)


@np.errstate(all="ignore")
def row(measured: Measured, reference: Reference, first: Row | None) -> Row:
    """The row of a report; ``first`` is the one that stands first, to whose work that of others is compared."""
    off = reference.offset(measured)
    entries, at = {}, 0
    paths = [(path or "the parameter", leaf.size) for path, leaf in leaves(measured.subject.parameters)]
    for column, (path, width) in enumerate(paths):
        entries[path] = _entry(
            measured,
            reference,
            off,
            path,
            slice(at, at + width),
            column,
            None if first is None else first.entries[path],
        )
        at += width
    total = _entry(measured, reference, off, "total", slice(None), len(paths), None if first is None else first.total)
    subject, moments = measured.subject, measured.moments
    return Row(
        label=measured.label,
        estimators=measured.estimators,
        total=total,
        entries=entries,
        mean=split(subject, measured.tally.coordinates.mean),
        variance=split(subject, measured.variance),
        bias=(
            None
            if off is None
            else split(subject, off[0] if reference.known(len(paths)) else np.full_like(off[0], np.nan))
        ),
        exact_mean=None if moments is None else split(subject, moments[0]),
        exact_variance=None if moments is None else split(subject, moments[1]),
        graph=subject if isinstance(subject, Graph) else subject.samples,
    )


def _entry(
    measured: Measured,
    reference: Reference,
    off: Result,
    parameter: str,
    where: Result,
    column: int,
    before: Entry | None,
) -> Entry:
    n, squares = measured.tally.coordinates.count, measured.tally.squares
    mean = measured.tally.coordinates.mean[where]
    v, m, unseen = float(np.sum(measured.variance[where])), float(np.linalg.norm(mean)), measured.unseen(where)
    bias, error, p = _bias(measured, reference, off, where, column)
    margin = math.inf if unseen else float(squares.margin(LEVEL)[column]) if v > 0 else 0.0
    reliable = math.isfinite(margin) and bool(squares.trust[column] >= 0) or v == 0 and not unseen
    signal = math.sqrt(max(m * m - v / n, 0.0))
    exact_variance = exact_bias = math.nan
    if measured.moments is not None:
        exact_variance = float(np.sum(measured.moments[1][where]))
        if reference.gradient is not None:
            exact_bias = float(np.linalg.norm((measured.moments[0] - reference.gradient)[where]))
    w_e, w_s = (math.nan, math.nan) if unseen else (v * measured.evaluations, v * measured.seconds)
    return Entry(
        row=measured.label,
        parameter=parameter,
        coordinates=int(np.size(mean)),
        replicates=n,
        mean=m,
        bias=bias,
        bias_error=error,
        bias_p=p,
        variance=v,
        low=max(v - margin, 0.0),
        high=v + margin,
        reliable=reliable,
        tail_index=float(squares.tail[column]),
        effective=0.0 if unseen else float(squares.effective[column]),
        exact_variance=exact_variance,
        exact_bias=exact_bias,
        snr=signal / math.sqrt(v) if v > 0 else math.inf if m > 0 and not unseen else math.nan,
        evaluations=measured.evaluations,
        seconds=measured.seconds,
        work_evaluations=w_e,
        work_seconds=w_s,
        ratio_evaluations=_ratio(w_e, w_e if before is None else before.work_evaluations),
        ratio_seconds=_ratio(w_s, w_s if before is None else before.work_seconds),
    )


def _bias(
    measured: Measured, reference: Reference, off: np.ndarray, where: np.ndarray, column: int
) -> tuple[float, float, float]:
    """(its norm, what that would be without bias, the probability of what is seen); nan where they are not known."""
    if off is None or not reference.known(column):
        return math.nan, math.nan, math.nan
    each, spread, sure = (part[where] for part in off)
    bias = float(np.linalg.norm(each))
    if measured.unseen(where):
        return bias, math.nan, math.nan
    error = np.sqrt(spread / measured.tally.coordinates.count)
    if not measured.comparable(column):
        return bias, float(np.sqrt(np.sum(error**2))), math.nan
    z = np.where((each != 0) & (sure | (spread > 0)), np.abs(each) / error, 0)
    return bias, float(np.sqrt(np.sum(error**2))), min(1.0, 2 * z.size * float(ndtr(-np.max(z))))


def _ratio(x: float, first: float) -> float:
    return 1.0 if x == first else x / first if first > 0 else x + first if math.isnan(x + first) else math.inf
