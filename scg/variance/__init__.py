"""Which estimator, on which node, at what cost: the variance of gradient estimators, measured and, where a graph allows it, exact.

    compare    rows of estimators: bias, variance with intervals, signal-to-noise, evaluations, time, and work-normalised variance
    attribute  how much of the variance comes from which draw
"""

from scg.variance.attribution import Attribution, Share, attribute
from scg.variance.comparing import compare
from scg.variance.report import Entry, Report, Row

__all__ = ["Attribution", "Entry", "Report", "Row", "Share", "attribute", "compare"]
