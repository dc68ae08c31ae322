"""A distribution against what it says of itself, against quadrature, against its own samples, and against another
implementation."""

import math
from collections.abc import Iterator
from functools import partial

import numpy as np

from scg.core.aliases import Function
from scg.core.backward import pull
from scg.core.leaves import parameter
from scg.core.node import Node, value_of
from scg.core.options import integer, number
from scg.distributions.base import Distribution, Reparameterizable, kl_divergence
from scg.distributions.constraints import Simplex
from scg.errors import ScgValueError
from scg.estimators import Reparameterized
from scg.special import softmax
from scg.stochastic.sites import sample
from scg.testing.check import Check, Checked, moment, set_of
from scg.testing.quadrature import ends
from scg.testing.reference import against_reference
from scg.testing.samplers import moments_of_samples, per_sample, sampler, score


def check_distribution(
    distribution: Distribution,
    *,
    rng: np.random.Generator,
    reference: object = None,
    alpha: float = 1e-9,
    points: int = 10_000,
    order: int = 2,
) -> Checked:
    """Check a distribution; raises AssertionError with the name of the check and its numbers, else returns a report
    that can be printed.

    - **shapes**: of samples, log_prob, moments; draws lie in the support; values outside it have log_prob -inf and NaN
      has NaN.
    - **reference**: a frozen distribution of ``scipy.stats``, or any object with ``logpdf`` or ``logpmf`` and perhaps
      ``cdf``, ``mean``, ``var``, ``entropy``, ``ppf``, ``isf``. log p agrees to 1e-10 max(1, |log p|) at ``points``
      points: draws, and quantiles down to 1e-290 in both tails.
    - **normalisation**, **mean**, **variance**, **entropy**, **cdf**: against sums and integrals of exp(log_prob), to
      1e-8 (relative; of the scale for the mean) plus the error that ``scg.testing.quadrature`` states. Where it has no
      rule (vectors of three free dimensions and more) the moments are compared with those of the samples.
    - **sampler**: ``points`` draws. Their counts in cells (values of a discrete distribution) have exact binomial
      distributions, tested two-sided; the greatest distance of their empirical distribution function to ``cdf`` exceeds
      sqrt(log(2/a) / 2n) with probability a at most (Massart, 1990).
    - **score**: E[d log p / d parameter] = 0 over the samples, where the support is fixed; and the moments of vectors.
      These use the central limit theorem. All statistical tests of a call together raise a false alarm with probability
      ``alpha`` at most.
    - **quantile**: icdf is the inverse of cdf, for a discrete distribution the smallest value whose cdf reaches the
      probability.
    - **pathwise**: dz/dtheta of reparameterized samples, against differences of the quantile function at fixed
      probability; the explicit transport by ``check_gradient``.
    - **gradients**: those of log_prob, mean, variance, entropy by ``check_gradient`` to ``order``, in the parameters
      and (continuous distributions) the value.
    - **float32**: float32 parameters and values give float32 results, near those in float64.
    - **detached**: ``detached``, ``stop_gradient``, ``replaced``. **divergence**: KL(p || p) = 0.
    """
    alpha, points = number("alpha", alpha, 0, 1), integer("points", points, 1)
    check = Check(distribution, rng, reference, alpha, points, order)
    for step in _STEPS:
        for name, found in step(check):
            check.report.rows.append((name, found))
    return check.report


def _shapes(c: Check) -> Iterator[tuple[str, str]]:
    distribution, batch = c.distribution, c.distribution.batch_shape
    for shape in ((), 3, (2, 3)):
        z = distribution.sample(c.rng, shape)
        lead = (shape,) if isinstance(shape, int) else shape
        if (
            not isinstance(z, (np.ndarray, np.generic))
            or z.shape != (*lead, *batch, *distribution.event_shape)
            or z.dtype != distribution.dtype
        ):
            c.fail(
                "shapes",
                f"sample(rng, {shape}) is {getattr(z, 'dtype', type(z))}{np.shape(z)}, wanted"
                f" {distribution.dtype}{(*lead, *batch, *distribution.event_shape)}",
            )
        if np.shape(distribution.log_prob(z)) != lead + batch:
            c.fail(
                "shapes",
                f"log_prob of a sample of shape {z.shape} has shape {np.shape(distribution.log_prob(z))},"
                f" wanted {lead + batch}",
            )
    for name in ("mean", "variance"):
        moment = c.known(partial(getattr, distribution, name))
        if moment is not None and np.shape(moment) != batch + distribution.event_shape:
            c.fail("shapes", f"{name} has shape {np.shape(moment)}, wanted {batch + distribution.event_shape}")
    entropy = c.known(distribution.entropy)
    if entropy is not None and np.shape(entropy) != batch:
        c.fail("shapes", f"entropy has shape {np.shape(entropy)}, wanted {batch}")
    yield "shapes", f"draws {distribution.dtype}{list(batch + distribution.event_shape)}, batch {list(batch)}"
    inside = np.asarray(distribution.support.contains(c.draws))
    if not inside.all() or not (distribution.log_prob(c.draws) > -math.inf).all():
        c.fail(
            "support", f"{np.sum(~inside)} of {inside.size} draws are not {distribution.support}, or have log_prob -inf"
        )
    yield "support", f"draws are {distribution.support}"
    if distribution.event_shape:
        return
    with np.errstate(all="ignore"):
        low, high = ends(distribution)
        beyond = [np.asarray(e + s, float) for e, s in ((low, -1.0), (high, 1.0)) if np.isfinite(e).all()] + [
            np.asarray(low + 0.5)
        ] * c.discrete
        beyond = [x for x in beyond if not np.any(distribution.support.contains(x))]
        for x in beyond:
            c.close("outside", np.exp(distribution.log_prob(x)), 0, 0, f"the density at {x}, outside the support,")
    if not c.discrete or distribution.dtype.kind == "f":
        if not np.isnan(distribution.log_prob(np.array(math.nan))).all():
            c.fail("outside", "log_prob of NaN is not NaN")
    yield "outside", f"log_prob is -inf at {len(beyond)} points outside the support, and NaN of NaN"


def _moments(c: Check) -> Iterator[tuple[str, str]]:
    distribution, found = c.distribution, c.integrals
    if found is None:
        if distribution.event_shape and not c.discrete:
            yield from moments_of_samples(c)
        return
    if not found.error < 1e-3:
        raise ScgValueError(
            f"{c.report.distribution}: the integral over the support is known to {found.error:.1g} only: check milder"
            " parameters"
        )
    slack = 1e-8 + 4 * found.error
    c.close("normalisation", found.mass, 1, slack, "the total probability wanted")
    yield (
        "normalisation",
        (
            f"{'sum' if c.discrete else 'integral'} of p is 1 within {np.max(np.abs(found.mass - 1)):.1e} (error bound"
            f" {found.error:.1e})"
        ),
    )
    for name, value, integral, scale in (
        ("mean", c.known(lambda: distribution.mean), found.mean, np.sqrt(np.abs(found.variance))),
        ("variance", c.known(lambda: distribution.variance), found.variance, found.variance),
        ("entropy", c.known(distribution.entropy), found.entropy, 1 + np.abs(found.entropy)),
    ):
        if value is not None:
            finite = np.isfinite(value) & np.isfinite(integral)  # what is infinite has no integral to compare with
            tolerance = slack * (scale + np.abs(integral)) * (100 if name == "entropy" else 10)
            if finite.any():
                yield (
                    name,
                    c.close(
                        name,
                        np.where(finite, value, 0),
                        np.where(finite, integral, 0),
                        np.where(finite, tolerance, 0),
                        "that of exp(log_prob)",
                    ),
                )
    if (
        not distribution.event_shape
        and (value := c.known(lambda: distribution.cdf(np.zeros(distribution.batch_shape)))) is not None
    ):
        at = found.knots if found.knots is not None else found.atoms
        total = np.cumsum(found.cells[:-1] if found.knots is not None else found.masses, axis=0)
        yield (
            "cdf",
            c.close(
                "cdf", distribution.cdf(np.broadcast_to(at, total.shape)), total, slack, "the integral of exp(log_prob)"
            ),
        )


def _quantile(c: Check) -> Iterator[tuple[str, str]]:
    distribution = c.distribution
    if distribution.event_shape:
        return
    u = np.linspace(0.01, 0.99, 99).reshape(-1, *[1] * len(distribution.batch_shape))
    x = c.known(lambda: distribution.icdf(u))
    if x is None or c.known(lambda: distribution.cdf(x)) is None:
        return
    u = np.broadcast_to(u, np.shape(x))
    if c.discrete:
        if not (np.all(distribution.cdf(x) >= u - 1e-12) and np.all(distribution.cdf(np.asarray(x) - 1) < u + 1e-12)):
            c.fail("quantile", "icdf(u) is not the smallest value whose cdf is at least u")
        yield "quantile", "icdf is the smallest value whose cdf reaches u"
    else:
        yield "quantile", c.close("quantile", distribution.cdf(x), u, 1e-9, "u, of which it is cdf(icdf(u)),")


def _pathwise(c: Check) -> Iterator[tuple[str, str]]:
    distribution = c.distribution
    if c.discrete or not distribution.has(Reparameterizable):
        return
    names = list(c.parameters)
    if isinstance(distribution, Reparameterizable) and names:
        base, size = distribution.noise(())
        noise = base.sample(c.rng, size)
        done = c.gradients(lambda p: distribution.replaced(**p).transport(noise), c.parameters)
        yield "pathwise", f"transport has its derivatives to order {done}"
    if distribution.event_shape or c.known(lambda: distribution.icdf(np.full(distribution.batch_shape, 0.5))) is None:
        return
    n = 64
    nodes = {name: parameter(per_sample(distribution, name, p, n)) for name, p in c.parameters.items()}
    z = sample(distribution.replaced(**nodes), Reparameterized(), rng=c.rng)
    u = np.asarray(distribution.cdf(z.value))
    central = (u > 1e-3) & (u < 1 - 1e-3)
    for name, node in nodes.items():
        p, is_simplex = c.parameters[name], isinstance(set_of(distribution, name), Simplex)
        direction = c.rng.uniform(0.5, 1.5, p.shape)
        direction = (
            p * (direction - np.sum(p * direction, -1, keepdims=True))
            if is_simplex
            else direction * np.where(p == 0, 1, np.abs(p))
        )
        (got,) = pull([z], [central.astype(z.dtype)], [node])
        got = np.sum(np.reshape(got * direction, (n, -1)), axis=1)

        def shifted(h: float, name: str = name, p: np.ndarray = p, direction: np.ndarray = direction) -> np.ndarray:
            return np.asarray(distribution.replaced(**{name: p + h * direction}).icdf(u))

        wide, narrow = [(shifted(h) - shifted(-h)) / (2 * h) for h in (2e-3, 1e-3)]
        expected, error = (
            (4 * narrow - wide) / 3,
            np.abs(wide - narrow) ** 2 / (np.abs(narrow) + 1e-300) + 1e-7 * (np.abs(narrow) + np.abs(z.value)),
        )
        expected, error = [np.sum(np.reshape(np.where(central, x, 0), (n, -1)), axis=1) for x in (expected, error)]
        found = c.close("pathwise", got, expected, 4 * error, f"the derivative of the quantile function by {name}")
        yield "pathwise", found


def _gradients(c: Check) -> Iterator[tuple[str, str]]:
    distribution = c.distribution
    middle = (
        np.sort(c.draws, axis=0)[[len(c.draws) // 5, len(c.draws) // 2]]
        if not distribution.event_shape
        else c.draws[:2]
    )
    arguments: list[object] = [c.parameters]
    fn: Function
    if c.discrete:
        fn = lambda p: distribution.replaced(**p).log_prob(middle)
    elif isinstance(distribution.support, Simplex):
        fn, arguments = lambda p, y: distribution.replaced(**p).log_prob(softmax(y, -1)), [c.parameters, np.log(middle)]
    else:
        fn, arguments = lambda p, value: distribution.replaced(**p).log_prob(value), [c.parameters, middle]
    if not c.parameters and c.discrete:
        return
    done = [f"log_prob to order {c.gradients(fn, *arguments)}"]
    for name in ("mean", "variance", "entropy"):
        value = c.known(partial(moment, distribution, name))
        if value is not None and np.isfinite(value).all() and c.parameters:
            reached = c.gradients(
                lambda p, name=name: moment(distribution.replaced(**p), name) + 0 * sum(np.sum(x) for x in p.values()),
                c.parameters,
            )
            done.append(f"{name} to {reached}")
    yield "gradients", ", ".join(done)


def _float32(c: Check) -> Iterator[tuple[str, str]]:
    distribution = c.distribution
    if not c.parameters:
        return
    low = distribution.replaced(**{name: np.asarray(p, np.float32) for name, p in distribution.parameters.items()})
    z = low.sample(c.rng, 20)
    wanted = np.dtype(np.float32) if distribution.dtype.kind == "f" else distribution.dtype
    results = {"sample": (z, wanted), "log_prob": (low.log_prob(z), np.dtype(np.float32))}
    for name in ("mean", "variance", "entropy"):
        value = c.known(partial(moment, low, name))
        if value is not None:
            results[name] = (value, np.dtype(np.float32))
    for name, (value, dtype) in results.items():
        if np.asarray(value).dtype != dtype:
            c.fail("float32", f"{name} of float32 parameters is {np.asarray(value).dtype}, wanted {dtype}")
    wide = distribution.replaced(
        **{name: np.asarray(p, np.float32).astype(float) for name, p in distribution.parameters.items()}
    )
    expected = wide.log_prob(z.astype(float) if z.dtype.kind == "f" else z)
    found = np.where(np.isfinite(expected), low.log_prob(z), expected)
    tolerance = 1e-3 * (1 + np.abs(np.where(np.isfinite(expected), expected, 0)))
    yield "float32", "log_prob " + c.close("float32", found, expected, tolerance, "that in float64")


def _detached(c: Check) -> Iterator[tuple[str, str]]:
    distribution, z = c.distribution, c.draws[:3]
    nodes = {name: parameter(p) for name, p in c.parameters.items()}
    if not nodes:
        return
    live = distribution.replaced(**nodes)
    plain = np.asarray(distribution.log_prob(z))
    if (
        type(live.log_prob(z)) is not Node
        or type(live.sample(c.rng)) is Node
        or type(live.detached().log_prob(z)) is Node
    ):
        c.fail("detached", "log_prob of Nodes must be a Node, a sample and what is detached must not")
    held = live.stop_gradient().log_prob(z)
    c.close(
        "detached", np.asarray(value_of(live.log_prob(z))), plain, 1e-12 * (1 + np.abs(plain)), "log_prob on arrays"
    )
    c.close(
        "detached", np.asarray(live.detached().log_prob(z)), plain, 1e-12 * (1 + np.abs(plain)), "log_prob on arrays"
    )
    if type(held) is Node and any(
        np.any(g) for g in pull([held], [np.ones(held.shape, held.dtype)], list(nodes.values()))
    ):
        c.fail("detached", "log_prob has a derivative after stop_gradient()")
    yield "detached", "detached(), stop_gradient() and replaced() keep the values"
    try:
        divergence = kl_divergence(distribution, distribution)
    except ScgValueError:
        return
    if np.shape(divergence) != distribution.batch_shape:
        c.fail("divergence", f"KL(p || p) has shape {np.shape(divergence)}, wanted {distribution.batch_shape}")
    yield "divergence", "KL(p || p) " + c.close("divergence", divergence, 0, 1e-10, "zero")


_STEPS = (_shapes, against_reference, _moments, sampler, score, _quantile, _pathwise, _gradients, _float32, _detached)
