"""The rows of a comparison: what was found of one estimator, parameter by parameter."""

import math
from dataclasses import dataclass

from scg.bridge.samples import Samples
from scg.core.aliases import Tree
from scg.stochastic.graph import Graph


@dataclass(frozen=True)
class Entry:
    """One row's figures for one parameter (``parameter``, its path), or for all of them ("total"). Norms and sums are
    over its coordinates.

    ``mean``            the norm of the mean gradient
    ``bias``            the norm of (mean - reference), nan for the reference row itself and where that is unknown;
                        ``bias_error``, what it would be on average (in root mean square) without bias; ``bias_p``, the
                        probability of a coordinate as far off as the furthest, times the number of coordinates
    ``variance``        the sum of the coordinates' variances; ``low`` and ``high``, an interval around it of the
                        report's ``level``
    ``reliable``        whether that interval is to be trusted: among intervals that are, the report's ``level`` of them
                        hold, from a thousand replicates on, but for what is too rare to have been met some 60 times. It
                        is where the tail is light and many replicates carry the variance:
    ``tail_index``      of the squared distance from the mean is above 2, read from a fiftieth of the samples (100 of
                        the first thousand), and
    ``effective``       of the ``replicates``, those that carry the variance, are 60 or more, and enough for their
                        skewness. Not where the gradient depends on samples and none made a difference, though exact
                        moments do not say that none can: ``high`` is then infinite, and what is made of variance or
                        bias nan
    ``exact_variance``  by ``scg.exact.moments``, and ``exact_bias``; nan where out of reach
    ``snr``             the norm of the mean, less what noise adds to it, over the root of the variance
    ``evaluations``     of the cost, nan where Samples do not say, and ``seconds``, for one gradient (in a batch, on
                        one core)
    ``work_evaluations``, ``work_seconds``
                        the variance times these; ``ratio_evaluations`` and ``ratio_seconds``, over those of the first
                        row
    """

    row: str
    parameter: str
    coordinates: int
    replicates: int
    mean: float
    bias: float
    bias_error: float
    bias_p: float
    variance: float
    low: float
    high: float
    reliable: bool
    tail_index: float
    effective: float
    exact_variance: float
    exact_bias: float
    snr: float
    evaluations: float
    seconds: float
    work_evaluations: float
    work_seconds: float
    ratio_evaluations: float
    ratio_seconds: float

    @property
    def error(self) -> float:
        """Half the interval, over the variance; 0 where there is none, infinite where none was seen of what there may
        be."""
        return (self.high - self.low) / 2 / self.variance if self.variance > 0 else self.high


@dataclass(frozen=True, eq=False, repr=False)
class Row:
    """A row: its ``total``, the ``entries`` of its parameters by path, and arrays in the parameters' structure.

    ``mean`` and ``variance`` of each coordinate as estimated, ``exact_mean`` and ``exact_variance`` (None where out of
    reach), ``bias``, mean minus reference.
    """

    label: str
    estimators: str
    total: Entry
    entries: dict[str, Entry]
    mean: Tree
    variance: Tree
    bias: Tree
    exact_mean: Tree
    exact_variance: Tree
    graph: Graph | Samples

    def __repr__(self) -> str:
        return f"<Row {self.label!r}: variance {number(self.total.variance)}>"


def number(x: float) -> str:
    """Three digits, in as few characters as they take."""
    if math.isnan(x):
        return "-"
    if x == 0 or math.isinf(x):
        return f"{x:g}"
    if 1e-3 <= abs(x) < 1e4:
        return f"{x:.3g}" if abs(x) < 1000 else f"{x:.0f}"
    mantissa, exponent = f"{x:.2e}".split("e")
    return f"{mantissa}e{int(exponent)}"
