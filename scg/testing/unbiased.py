"""Is a gradient estimator unbiased? Exactly where the graph is small, and otherwise by replicates, with stated errors
of both kinds."""

import inspect
import math

import numpy as np

from scg import exact
from scg.bridge.samples import Sampled, Samples
from scg.core.aliases import Keywords, Operand, Tree
from scg.core.options import integer, number
from scg.core.progress import Progress, reporter
from scg.core.tree import leaves
from scg.errors import ScgError, ScgTypeError, ScgValueError, here
from scg.stochastic.graph import Graph, trace
from scg.testing.deciding import Demand, Outcome, decide
from scg.testing.differences import Differences
from scg.testing.streams import Others, Streams
from scg.testing.structure import Subject, by_leaf, cost_of, depends, fixed, join, paths, precision, split
from scg.testing.verdicts import Verdict

_SHORTER = 8.0  # are the steps of differences that may refute a bias
_BUDGET = 2**17  # of an exact verdict, beyond which replicates are the quicker way


def assert_unbiased(graph_or_fn: object, *args: object, **options: Operand) -> Verdict:
    """Raise AssertionError, with the printed verdict, unless the bound estimators' gradient is found unbiased; return
    the verdict.

    ``graph_or_fn`` is a Graph, or a function that returns a cost, with its arguments; or ``scg.bridge.Samples``, draws
    of a gradient from outside. The routes, from the first that the graph allows:

    - **exact**: the exact mean of the estimator (``scg.exact.moments``) against the exact gradient, by enumeration or
      quadrature; no false alarms.
    - replicates against **the exact gradient**, or against ``reference``, numbers in the parameters' structure.
    - replicates against **differences**: central differences of the expected cost with common random numbers, along
      each coordinate, or along random directions where there are over 32. (4 D(h) - D(2h)) / 3, and a quarter of its
      correction to D(h) is allowed for as truncation; a bias that shorter steps do not find, though they could, or
      find less than half of, is theirs. What is drawn by rejection is drawn by quantiles there, so that samples have
      random numbers in common.

    Samples have no reference of their own, and need ``reference``: numbers in their structure, or **other Samples**
    (a graph may have these, too), whose draws are subtracted from theirs; ``paired=True`` gives both the same seed for
    each block, which is worth much where they then have random numbers in common.

    ``reference="exact"`` or ``"differences"`` asks for replicates of that kind. Second derivatives: give a gradient as
    the cost, ``lambda t, rng: np.sum(scg.grad(cost)(t, rng=rng) * v)``, of which the gradient is the Hessian times v.

    **What is decided.** Streams are the coordinates and, where there are several, their projections on the reference,
    and on random directions: small biases that agree add up there. Each has a confidence sequence of level 1 -
    alpha/streams (a union bound), so that looking after every block leaves the probability of a false "biased" at most
    ``alpha``. "unbiased" means that a bias of ``detect`` times the gradient's scale would have been found with
    probability ``power``; the scale is the largest element of the reference in that parameter, or a quarter of the
    coordinate's standard deviation where that is larger. After ``max_replicates`` without either the verdict is
    "inconclusive", and ``detectable`` says which bias would have been found. The default suffices for the other
    defaults whatever the variance of the gradient; against differences and other Samples, which may vary more than it,
    there is no such number.

    With ``bounds=(low, high)`` of the gradient (numbers, or structures like the parameters) the sequences are
    empirical-Bernstein, which hold exactly; without, they are asymptotic, widened for skewness, and nothing is
    concluded while Hill's tail index of the gradient does not exceed 2 by five standard errors: an infinite variance is
    "inconclusive", never "unbiased". A gradient that depends on samples and never varied is not "biased", whatever it
    is, unless its exact variance is zero: after an eighth of ``max_replicates`` the verdict is "inconclusive" and names
    the coordinates. Mostly a score or a path was detached there.

    What is rare but counts for much beside what varies all the time is beyond asymptotics: t replicates all miss a
    value of probability p with probability (1 - p)^t, however large it is, and then nothing tells of it. So "biased" is
    not said, though an interval excludes 0, before t = log(alpha/streams) / log(1 - 1/2000), 41,437 for one stream and
    the default alpha: what is met once in 2000 replicates, or more often, is then missed with probability at most
    alpha, and what is rarer makes a false "biased" only where it lies 68 standard deviations of the rest away, or more.
    Where ``max_replicates`` are fewer it is said after these, but not before t of 1/400, a fifth; with fewer still the
    verdict is "inconclusive". Other verdicts do not wait, nor does that on a gradient which is known not to vary, or
    has ``bounds``. ``rarest`` is p of the replicates that were drawn, for one stream.

    ``progress(draws, max_replicates)`` is called on the way; ``progress=True`` shows a bar on stderr. Options out of
    range are refused before anything is drawn.

    With ``bounds`` other Samples have these, too. Memory does not grow with replicates: a block has at most 2^22
    numbers, but for 64 draws. The verdict is a function of the graph, or the Samples, and the seed of ``rng``.
    """
    verdict = judge(graph_or_fn, *args, **options)
    if not verdict:
        raise AssertionError(f"{verdict}")
    return verdict


def judge(
    graph_or_fn: object,
    *args: object,
    rng: np.random.Generator,
    reference: Tree = "auto",
    alpha: float = 1e-9,
    detect: float = 0.05,
    power: float = 1 - 1e-6,
    max_replicates: int = 2**21,
    bounds: tuple[Tree, Tree] | None = None,
    progress: Progress = None,
    paired: bool = False,
    **kwargs: object,
) -> Verdict:
    """The verdict of ``assert_unbiased``, which takes the same arguments, without raising AssertionError."""
    demand = Demand(
        number("alpha", alpha, 0, 1),
        number("detect", detect, 0),
        number("power", power, 0.5, 1, closed=True),
        integer("max_replicates", max_replicates, 2),
    )
    report = reporter(progress)
    subject = subject_of(graph_or_fn, args, rng, kwargs, reference)
    if isinstance(subject, Graph) and isinstance(reference, str) and reference == "auto":
        exact = exact_moments(subject)
        if exact is not None:
            return _exactly(subject, *exact, alpha, power)
    streams = Streams(subject, reference, rng, bounds, paired=paired)
    found = decide(streams.source(lambda: constant(streams)), demand, report)
    if found.status == "biased" and isinstance(streams.against, Differences):
        # it may be a bias of theirs, where the mean turns within a step
        closer = Streams(subject, "differences", rng, bounds, shorter=_SHORTER)
        other = decide(closer.source(lambda: constant(closer)), demand, report)
        if _refuted(found, other):
            streams, found = closer, other
    return _verdict(streams, found, alpha, power)


assert_unbiased.__signature__ = inspect.signature(judge)  # type: ignore[attr-defined]


def subject_of(
    given: object, args: tuple[object, ...], rng: np.random.Generator, kwargs: Keywords, reference: object
) -> Subject:
    """What draws the gradients: a graph, a function that is traced, Samples that are looked at."""
    if not isinstance(rng, np.random.Generator):
        raise ScgTypeError(f"rng must be np.random.default_rng(seed), got {type(rng).__name__} ({here()})")
    if isinstance(given, (Graph, Samples)) and (args or kwargs):
        what = "a graph takes" if isinstance(given, Graph) else "Samples take"
        raise ScgTypeError(
            f"{what} no further arguments, got {', '.join([*map(repr, args), *kwargs])}: the options are"
            f" reference, alpha, detect, power, max_replicates, bounds, paired and progress ({here()})"
        )
    if isinstance(given, Samples):
        if isinstance(reference, str):
            raise ScgTypeError(
                f"{given!r} have no reference of their own: give reference=, the gradient as numbers in their"
                f" structure, or other Samples ({here()})"
            )
        return Sampled.of(given, rng)
    if isinstance(given, Graph):
        graph = given
    elif callable(given):
        graph = trace(given, *args, rng=rng, **kwargs)
    else:
        raise ScgTypeError(
            f"a graph, a function or scg.bridge.Samples is needed, got {type(given).__name__}: of gradients that you"
            f" draw yourself, scg.bridge.Samples(draw) with a function draw(n, rng) ({here()})"
        )
    if not sum(leaf.size for _, leaf in leaves(graph.parameters)):
        raise ScgValueError(f"the graph has no parameters ({here()})")
    if isinstance(reference, str):
        graph.require_nodes("a verdict without reference=numbers")
    graph.require_repeatable(gradients=True)
    return graph


def exact_moments(graph: Graph) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
    """(exact mean and variance of the estimator, exact gradient, the error that these may have), flat; None where they
    are out of reach."""
    try:
        found = exact.moments(graph, budget=_BUDGET, full=True, time_limit=exact.PATIENCE)
        known = exact.gradient(graph, budget=_BUDGET, full=True, time_limit=exact.PATIENCE)
    except ScgError:
        # too large, not settled, an `if` that comes out otherwise, no quadrature rule: replicates say what the gradient
        # is
        return None
    mean, variance, gradient = (join(part, 1)[0] for part in (*found.value, known.value))
    scale, rounding = by_leaf(graph, np.abs(gradient)) + np.sqrt(np.maximum(variance, 0)), precision(graph)
    # of the cost its rounding alone: a constant that is added to it is no reason to overlook a bias
    return (
        mean,
        variance,
        gradient,
        np.maximum(1e-10, rounding) * scale + rounding * cost_of(graph) + found.error + known.error,
    )


def _exactly(
    graph: Graph,
    mean: np.ndarray,
    variance: np.ndarray,
    gradient: np.ndarray,
    tolerance: np.ndarray,
    alpha: float,
    power: float,
) -> Verdict:
    bias = mean - gradient
    with np.errstate(invalid="ignore", divide="ignore"):  # a cost that is exactly zero has no tolerance
        worst = index_of_worst(np.where(bias == 0, 0, np.abs(bias) / tolerance))
    agrees = bool(np.all(np.abs(bias) <= tolerance))
    reason = f"the exact mean {'is' if agrees else 'is not'} the exact gradient"
    at, low, high, detectable, reference = [
        split(graph, x) for x in (bias, bias - tolerance, bias + tolerance, tolerance, gradient)
    ]
    ends = (float(bias[worst] - tolerance[worst]), float(bias[worst] + tolerance[worst]))
    status = "unbiased" if agrees else "biased"
    return Verdict(
        status,
        reason,
        "exact",
        at,
        low,
        high,
        detectable,
        reference,
        paths(graph)[worst],
        float(bias[worst]),
        ends,
        float(gradient[worst]),
        float(tolerance[worst]),
        0,
        math.inf,
        alpha,
        power,
    )


def _verdict(streams: Streams, found: Outcome, alpha: float, power: float) -> Verdict:
    d, reference = streams.size, streams.reference
    rows = [found.centre, found.centre - found.margin, found.centre + found.margin, found.detectable]
    blind = (np.nan, -np.inf, np.inf, np.inf)
    back = [
        split(streams.subject, row[:d] if streams.by_coordinate else np.full(d, none))
        for row, none in zip(rows, blind, strict=True)
    ]
    worst, still = index_of_worst(_suspicion(found, d)), np.flatnonzero(found.unseen[:d])
    bias, low, high, detectable = (float(row[worst]) for row in rows)
    along = float(streams.expected[worst])
    reason = found.reason
    if found.status == "inconclusive" and still.size:
        more = f" and {still.size - 1} more coordinates" if still.size > 1 else ""
        reason += f": {streams.names[still[0]]}{more}; is what carries the gradient there detached?"
    return Verdict(
        status=found.status,
        reason=reason,
        method=streams.method,
        bias=back[0],
        low=back[1],
        high=back[2],
        detectable=back[3],
        reference=split(streams.subject, reference),
        worst=streams.names[worst],
        worst_bias=bias,
        worst_interval=(low, high),
        worst_reference=along,
        worst_detectable=detectable,
        draws=found.draws,
        tail_index=float(np.min(found.tail)),
        alpha=alpha,
        power=power,
        rarest=0.0 if streams.bounds is not None else -math.expm1(math.log(alpha) / found.draws),
    )


def _refuted(found: Outcome, closer: Outcome) -> bool:
    """Whether shorter steps do not find what seemed a bias: they would have found one as large; or, where they are not
    "unbiased" and so had all the samples there are, they come to less than half of the least that it seemed to be.
    A few samples that count for much may leave them without an interval of their own."""
    size = np.abs(found.centre)
    there = size > found.margin
    if closer.status == "unbiased":
        return bool(np.all((closer.detectable <= size)[there]))
    return bool(np.all((closer.centre * np.sign(found.centre) < (size - found.margin) / 2)[there]))


def _suspicion(found: Outcome, size: int) -> np.ndarray:
    """By how much each stream speaks against the estimator; where coordinates do, the ``size`` first, no others."""
    if found.status == "inconclusive" and np.any(found.unseen[:size]):
        return np.where(found.unseen, np.abs(found.centre), -np.inf)[:size]
    if not np.any(found.excess > 1) and not np.isfinite(found.margin).all():
        return np.where(np.isinf(found.margin), -found.tail, -np.inf)
    alone = found.excess[:size]
    return alone if np.any(alone > 1) else found.excess


def constant(streams: Streams) -> bool | np.ndarray:
    """Whether streams are known not to vary. Differences do where the cost does, whatever the gradient."""
    subject = streams.subject
    if isinstance(streams.against, Differences):
        return not depends(streams.against.graph.cost)
    found = exact_moments(subject) if isinstance(subject, Graph) else None
    still = fixed(subject, None if found is None else found[:2])
    if isinstance(streams.against, Others):
        still = still & fixed(streams.against.other)
    return np.append(still, np.abs(streams.projection) @ ~still == 0)


def index_of_worst(excess: np.ndarray) -> int:
    """Where the largest excess is; NaN is none."""
    return int(np.argmax(np.where(np.isnan(excess), -np.inf, excess)))
