"""A distribution against another implementation of the same distribution, such as that of ``scipy.stats``."""

import math
from collections.abc import Iterator
from functools import partial

import numpy as np

from scg.testing.check import Check, moment
from scg.testing.quadrature import ends


def against_reference(c: Check) -> Iterator[tuple[str, str]]:
    """The step of ``check_distribution`` that this is: pairs of a name and what was found."""
    distribution, ref = c.distribution, c.reference
    if ref is None:
        return
    if hasattr(ref, "logpmf") and (not hasattr(ref, "logpdf") or c.discrete):
        log_density = ref.logpmf
    else:
        log_density = ref.logpdf
    with np.errstate(all="ignore"):
        x = _points(c)
        found = np.asarray(distribution.log_prob(x))
        expected = np.asarray(log_density(x)).reshape(found.shape)
        usable = np.isfinite(expected) & (expected > -690 if not c.discrete else True)  # beyond, densities underflow
        tolerance = 1e-10 * np.maximum(1, np.abs(expected))
        deviation = c.close(
            "reference", np.where(usable, found, 0), np.where(usable, expected, 0), tolerance, "log p of the reference"
        )
        yield (
            "reference",
            (
                f"log p {deviation} at {len(x)} points, log p from {np.min(expected[usable]):.3g} to"
                f" {np.max(expected[usable]):.3g}"
            ),
        )
        for ours, theirs in (("mean", "mean"), ("variance", "var"), ("entropy", "entropy")):
            value = c.known(partial(moment, distribution, ours))
            if value is not None and hasattr(ref, theirs):
                value, other = np.asarray(value), getattr(ref, theirs)
                other = np.asarray(other() if callable(other) else other).reshape(value.shape)
                usable = np.isfinite(other)
                tolerance = 1e-8 * np.where(usable, 1 + np.abs(other), 0)
                c.close(
                    "reference",
                    np.where(usable, value, 0),
                    np.where(usable, other, 0),
                    tolerance,
                    f"the {ours} of the reference",
                )
        if hasattr(ref, "cdf") and not distribution.event_shape and c.known(lambda: distribution.cdf(x)) is not None:
            yield "reference", "cdf " + c.close("reference", distribution.cdf(x), ref.cdf(x), 1e-10, "the reference's")


def _points(c: Check) -> np.ndarray:
    """Draws, and points in both tails: quantiles down to 1e-290, and for a discrete distribution integers up to 60
    standard deviations."""
    distribution, ref, quarter = c.distribution, c.reference, c.points // 4
    draws = c.draws.astype(float) if c.draws.dtype.kind == "f" else c.draws
    if distribution.event_shape or not hasattr(ref, "ppf"):
        return draws
    if c.discrete:
        far = np.mean(draws, axis=0) + 60 * np.std(draws, axis=0) + 60
        high = np.minimum(far, getattr(distribution.support, "high", math.inf))
        k = np.rint(np.linspace(np.broadcast_to(distribution.support.low, high.shape), high, 2 * quarter))
        return np.concatenate([draws[: 2 * quarter], k.astype(draws.dtype)])
    u = 10 ** np.linspace(-290, -1, quarter).reshape(-1, *[1] * len(distribution.batch_shape))
    tails = np.concatenate(
        [np.broadcast_to(tail(u), (quarter, *distribution.batch_shape)) for tail in (ref.ppf, ref.isf)]
    )
    centre = np.broadcast_to(np.median(draws, axis=0), tails.shape)
    good = np.isfinite(tails) & (distribution.log_prob(np.where(np.isfinite(tails), tails, centre)) < math.inf)
    low, high = ends(distribution)
    return np.concatenate([draws[: 2 * quarter], np.where(good & (tails > low) & (tails < high), tails, centre)])
