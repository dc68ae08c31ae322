"""The samples of a distribution against its probabilities, moments and score."""

import math
from collections.abc import Iterator

import numpy as np
import scipy.special as sp

from scg.core.backward import pull
from scg.core.leaves import parameter
from scg.core.node import Node
from scg.distributions.base import Distribution, FixedSupport
from scg.distributions.constraints import Simplex
from scg.testing.check import Check, set_of


def moments_of_samples(c: Check) -> Iterator[tuple[str, str]]:
    """Mean, variance and entropy against those of the samples, by z-tests."""
    distribution, draws = c.distribution, c.draws.astype(float)
    mean, variance, entropy = (
        c.known(lambda: distribution.mean),
        c.known(lambda: distribution.variance),
        c.known(distribution.entropy),
    )
    if mean is not None and np.isfinite(mean).all():
        yield "mean", c.z_test("mean", draws, mean, mean.size, "the mean")
        if variance is not None and np.isfinite(variance).all():
            yield "variance", c.z_test("variance", np.square(draws - mean), variance, mean.size, "the variance")
    if entropy is not None:
        yield "entropy", c.z_test("entropy", -distribution.log_prob(draws), entropy, np.size(entropy), "the entropy")


def sampler(c: Check) -> Iterator[tuple[str, str]]:
    """The samples against probabilities of cells, or against moments, and against ``cdf``."""
    distribution, found, n = c.distribution, c.integrals, c.points
    batch = distribution.batch_shape
    if found is not None and found.knots is not None:
        edges, p = found.knots, found.cells
        below = np.stack([np.sum(c.draws < edge, axis=0) for edge in edges])
        counts = np.diff(below, axis=0, prepend=np.zeros((1, *batch), int), append=np.full((1, *batch), n))
        yield "sampler", _binomial_tests(c, counts, p, [f"cell {i} of {len(p)}" for i in range(len(p))])
    elif found is not None and found.atoms is not None:
        atoms, p = found.atoms, found.masses
        shown = np.argsort(-p.reshape(len(p), -1).max(axis=1), kind="stable")[:500]
        event = tuple(range(-len(distribution.event_shape), 0))
        same = [np.equal(c.draws, atoms[k]) for k in shown]
        counts = np.stack([np.sum(s.all(axis=event), axis=0) for s in same])
        if len(shown) < len(p):
            counts = np.concatenate([counts, [n - np.sum(counts, axis=0)]])
        p = np.concatenate([p[shown], [1 - np.sum(p[shown], axis=0)]]) if len(shown) < len(p) else p[shown]
        yield (
            "sampler",
            _binomial_tests(c, counts, p, [f"value {np.ravel(atoms[k])[:8]}" for k in shown] + ["any other value"]),
        )
    elif found is not None:
        for what, values, expected in (
            ("mean", c.draws, found.mean),
            ("variance", np.square(c.draws - found.mean), found.variance),
        ):
            yield "sampler", c.z_test("sampler", values, expected, 2 * expected.size, f"the {what} of exp(log_prob)")
    if not distribution.event_shape and c.known(lambda: distribution.cdf(c.draws[0])) is not None:
        z = np.sort(c.draws, axis=0)
        grid = np.arange(1, n + 1).reshape(-1, *[1] * len(batch)) / n
        F = np.asarray(distribution.cdf(z), float)
        # of equal samples the last carries the step
        last = np.concatenate([z[1:] != z[:-1], np.ones((1, *batch), bool)])
        first = np.concatenate([np.ones((1, *batch), bool), z[1:] != z[:-1]])
        distance = np.maximum(
            np.max(np.where(last, np.abs(grid - F), 0), axis=0),
            0 if c.discrete else np.max(np.where(first, F - grid + 1 / n, 0), axis=0),
        )
        bound = math.sqrt(math.log(2 * max(1, math.prod(batch)) / c.alpha) / (2 * n))
        if not np.all(distance <= bound):
            c.fail(
                "sampler",
                f"the empirical distribution of {n} draws is {np.max(distance):.4g} from cdf, {bound:.4g} is allowed"
                f" (rate {c.alpha:.1g})",
            )
        yield "sampler", f"Kolmogorov-Smirnov distance {np.max(distance):.4f} <= {bound:.4f}"


def _binomial_tests(c: Check, counts: np.ndarray, p: np.ndarray, names: list[str]) -> str:
    """Two-sided exact tests of each count, at the rate that all together have ``alpha``."""
    n, p = c.points, np.clip(p, 0, 1)
    with np.errstate(all="ignore"):
        at_most = np.where(counts >= n, 1, sp.betaincc(counts + 1, np.maximum(n - counts, 1), p))
        at_least = np.where(counts <= 0, 1, sp.betainc(np.maximum(counts, 1), n - counts + 1, p))
    rate = c.alpha / (2 * counts.size)
    wrong = np.minimum(at_most, at_least) < rate
    if wrong.any():
        worst = np.unravel_index(np.argmin(np.minimum(at_most, at_least)), counts.shape)
        c.fail(
            "sampler",
            f"{names[worst[0]]}: {counts[worst]} of {n} draws, with probability {p[worst]:.6g} each (false alarms at"
            f" rate {c.alpha:.1g})",
        )
    return f"{n} draws in {len(counts)} cells, by exact binomial tests"


def score(c: Check) -> Iterator[tuple[str, str]]:
    """E[d log p / d parameter] = 0, over the samples, for each parameter that moves no support."""
    distribution = c.distribution
    if not distribution.has(FixedSupport):
        return
    count, done = sum(p.size for p in c.parameters.values()), []
    for name, p in c.parameters.items():
        if name in distribution.moving:
            continue
        node = parameter(per_sample(distribution, name, p, c.points))
        total = distribution.replaced(**{name: node}).log_prob(c.draws)
        scores = (
            pull([total], [np.ones(total.shape, total.dtype)], [node])[0]
            if type(total) is Node
            else np.zeros(node.shape)
        )
        if isinstance(set_of(distribution, name), Simplex):  # along the simplex
            scores = scores - np.mean(scores, axis=-1, keepdims=True)
        c.z_test("score", scores, 0.0, count, f"a mean score of zero by {name}")
        done.append(name)
    if done:
        yield "score", f"E[d log p] = 0 by {', '.join(done)}"


def per_sample(distribution: Distribution, name: str, p: np.ndarray, n: int) -> np.ndarray:
    """A parameter with a leading axis of one copy for each of n samples."""
    missing = len(distribution.batch_shape) + distribution.parameter_event_ndim(name) - p.ndim
    return np.array(
        np.broadcast_to(p.reshape((1,) * (1 + max(missing, 0)) + p.shape), (n,) + (1,) * max(missing, 0) + p.shape)
    )
