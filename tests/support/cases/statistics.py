"""Cases of ``scg.primitives.statistics``."""

import numpy as np

from tests.support.cases import Case, Domain
from tests.support.cases.layout import BOX, MATRIX, SCALAR, VECTOR, _one
from tests.support.cases.reduction import MATCHED, WEIGHTS, _axes, _holes

METHODS = ("linear", "interpolated_inverted_cdf", "hazen", "weibull", "median_unbiased", "normal_unbiased")
STEPS = ("inverted_cdf", "averaged_inverted_cdf", "closest_observation", "lower", "higher", "midpoint", "nearest")
LEVELS = (0.0, 0.13, 0.25, 0.5, 0.77, 1.0)
SHARES, PAIR = Domain(0.5, 2.0, (4,)), Domain(shape=(2, 5))


def _levels(domain, low=0.05, high=0.95):
    return Domain(low, high, domain)


CASES = [
    *_axes("np.median", np.median),
    *_one("np.median", np.median, lambda x: np.median(x, 0, None, False, True), domain=VECTOR),
    *_one("np.median", np.median, domain=SCALAR),
    *_one("np.nanmedian", np.nanmedian, lambda x: np.nanmedian(x, axis=(0, 2), keepdims=True), domain=MATCHED),
    *_one("np.nanmedian", lambda x: np.nanmedian(_holes(x), axis=1), lambda x: np.nanmedian(_holes(x), axis=0)),
    *_axes("np.quantile", lambda x, **keywords: np.quantile(x, 0.3, **keywords)),
    *_axes("np.percentile", lambda x, **keywords: np.percentile(x, [20, 70.0], **keywords))[:6],
    *[
        Case("np.quantile", lambda x, m=m: np.quantile(x, LEVELS, axis=1, method=m), (MATRIX,))
        for m in (*METHODS, *STEPS)
    ],
    *[
        Case("np.nanquantile", lambda x, m=m: np.nanquantile(_holes(x), LEVELS, axis=1, method=m), (MATRIX,))
        for m in (*METHODS, *STEPS)
    ],
    *_one(
        "np.quantile",
        lambda x: np.quantile(x, [[0.1, 0.2], [0.6, 0.9]], axis=0, keepdims=True),
        lambda x: np.quantile(x, 1, axis=0),
    ),
    *[
        Case("np.quantile", lambda x, q, m=m: np.quantile(x, q, axis=0, method=m), (MATRIX, _levels((2,), 0.6, 0.65)))
        for m in METHODS
    ],
    Case(
        "np.quantile", lambda q: np.quantile(np.array([3.0, 1.0, 2.0, 7.0], dtype=q.dtype), q), (_levels((), 0.4, 0.6),)
    ),
    Case("np.percentile", lambda x, q: np.percentile(x, q), (MATRIX, _levels((), 46.0, 54.0))),
    *_one(
        "np.nanpercentile",
        lambda x: np.nanpercentile(x, 40, axis=(0, 2), keepdims=True),
        lambda x: np.nanpercentile(x, [10.0, 50.0]),
        domain=MATCHED,
    ),
    *_one(
        "np.quantile",
        lambda x: np.quantile(x, LEVELS, axis=1, weights=WEIGHTS, method="inverted_cdf"),
        lambda x: np.quantile(x, 0.5, weights=x * x, method="inverted_cdf"),
    ),
    *_one(
        "np.nanquantile",
        lambda x: np.nanquantile(_holes(x), 0.3, axis=1, weights=np.tile(WEIGHTS, (3, 1)), method="inverted_cdf"),
    ),
    *_one(
        "np.cov",
        np.cov,
        lambda x: np.cov(x, rowvar=False),
        lambda x: np.cov(x, bias=True),
        lambda x: np.cov(x, ddof=0),
        lambda x: np.cov(x, dtype=x.dtype),
    ),
    *_one(
        "np.cov",
        lambda x: np.cov(x, fweights=[1, 2, 0, 3]),
        lambda x: np.cov(x, fweights=[1, 2, 1, 3], aweights=WEIGHTS),
        lambda x: np.cov(x[0] + 1j * x[1], x[2]),
    ),
    *_one(
        "np.cov", np.cov, lambda x: np.cov(x, [1.0, 3.0, 2.0, 0.0]), lambda x: np.cov(x, rowvar=False), domain=VECTOR
    ),
    Case("np.cov", lambda x, y: np.cov(x, y), (MATRIX, VECTOR)),
    Case("np.cov", lambda x, y: np.cov(x, y, rowvar=False), (MATRIX, Domain(shape=(3, 2)))),
    Case("np.cov", lambda x, w: np.cov(x, aweights=w), (MATRIX, SHARES)),
    *_one(
        "np.corrcoef",
        np.corrcoef,
        lambda x: np.corrcoef(x, rowvar=False),
        lambda x: np.corrcoef(x[:, 0], x[:, 2]),
        domain=Domain(shape=(4, 5)),
    ),
    Case("np.corrcoef", lambda x, y: np.corrcoef(x, y), (PAIR, Domain(shape=(5,)))),
    *_one("np.median", lambda x: np.median(x - np.median(x, axis=1, keepdims=True), axis=0), domain=BOX),
]
