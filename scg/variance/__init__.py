"""Which estimator, on which node, at what cost: the variance of gradient estimators, measured and, where a graph allows
it, exact.

    compare    rows of estimators: bias, variance with intervals, signal-to-noise, evaluations, time, and
               work-normalised variance
    attribute  how much of the variance comes from which stochastic node
    search     the estimators of least work-normalised variance, by successive halving
    sweep      comparisons along a parameter
"""

from scg.variance.attribution import attribute
from scg.variance.comparing import compare
from scg.variance.halving import Found, search
from scg.variance.report import Report
from scg.variance.rows import Entry, Row
from scg.variance.shares import Attribution, Share
from scg.variance.sweeps import Sweep, sweep

__all__ = [
    "Attribution",
    "Entry",
    "Found",
    "Report",
    "Row",
    "Share",
    "Sweep",
    "attribute",
    "compare",
    "search",
    "sweep",
]
