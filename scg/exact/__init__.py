"""Exact truth of a stochastic computation graph: expectations, their derivatives, and the moments of gradient
estimators, by enumeration and quadrature.

Finitely many values are enumerated, or eliminated draw by draw where that takes less: a chain of draws with local costs
takes time in proportion to its length (``sums``). A mean over a continuous distribution is a Gauss rule of that
distribution (Hermite, Laguerre, Legendre, Jacobi, or the distribution's own, by Lanczos); where the integrand has kinks
or jumps, which are looked for along each sample, or heavy tails, a double exponential rule on each of the pieces
between; the number of points is doubled until the result settles to ``rtol``. What settled is held against an adaptive
quadrature that shares no point and no symmetry with the rule (``panels``): narrow, steep or undeclared features and
means that do not exist are found by it, or are refused. Endless supports are cut where what is left has a probability
that matters no more. Costs are taken apart, so that only what meets in one part of a cost is enumerated jointly, or in
one product of an elimination; ``budget`` bounds the number of its configurations.

All take a Graph, a node, or a function with its arguments, and with ``full=True`` return an ``Exact``. ``time_limit``
is in seconds.

An ``if`` on a sample is followed both ways where the function is known: it is traced again until the ways that were met
have probability one together.

Raises BudgetError (a ScgValueError), which names the samples, where parts of the cost depend on too many or
``time_limit`` is over; ConvergenceError where parameters move a jump of the cost (for second derivatives, a kink), of
which no derivative under the integral knows, and where an integral does not settle, as where several samples decide
together about a jump, or the mean does not exist; GuardError where ways through an ``if`` are too rare to be met;
MovingSupport where a support moves with the parameters and no path is known along which its samples do.
"""

import functools
import inspect
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from scg.core.ancestry import ancestors
from scg.core.backward import pull
from scg.core.leaves import parameter
from scg.core.node import Node
from scg.core.tree import leaves, rebuild
from scg.distributions.base import Discrete, FiniteSupport, FixedSupport
from scg.elimination.finite import BudgetError
from scg.elimination.sums import Sums
from scg.errors import EstimatorError, ScgError, ScgTypeError, ScgValueError, here
from scg.exact.choice import eliminated, eliminated_distribution, eliminated_moments
from scg.exact.engine import ConvergenceError, Engine, overlapping
from scg.exact.paths import along_its_way, guards_on_draws, on_its_way, ways
from scg.exact.values import MovingSupport, as_values
from scg.stochastic.estimator import Accounted
from scg.stochastic.graph import Graph, trace
from scg.stochastic.jumps import refuse_moving_jumps
from scg.stochastic.lifting import check_cost
from scg.stochastic.resampling import resample
from scg.stochastic.sites import draw, is_draw, is_noise, is_path, is_stochastic, noise, path
from scg.stochastic.surrogate import surrogate

__all__ = [
    "BudgetError",
    "ConvergenceError",
    "Exact",
    "Law",
    "Moments",
    "MovingSupport",
    "distribution",
    "expectation",
    "gradient",
    "hessian",
    "log_evidence",
    "moments",
]

BUDGET, RTOL = 2**20, 1e-10
PATIENCE = 20.0
"""Seconds after which verdicts and comparisons do without an exact value."""


@dataclass(frozen=True, eq=False)
class Exact:
    """``value``; ``error``, an estimate of its absolute error: the last change as points were doubled, the tail that
    was cut, rounding; ``evaluations``, of parts of the cost."""

    value: Any
    error: float
    evaluations: int


class Moments(NamedTuple):
    """Exact mean and variance of a gradient estimate, coordinate by coordinate, in the structure of the parameters."""

    mean: Any
    variance: Any


class Law(NamedTuple):
    """The distribution of a discrete node: ``values`` along a leading axis, in rising order, and their
    ``probabilities``."""

    values: Any
    probabilities: Any


def expectation(
    graph: Graph | Node | Callable[..., Any],
    *args: Any,
    budget: int = BUDGET,
    rtol: float = RTOL,
    full: bool = False,
    time_limit: float | None = None,
    **kwargs: Any,
) -> Any:
    """E[cost] over all samples; of a node, of its shape. The distribution of a sample does not depend on its estimator:
    a relaxed one counts as what it relaxes."""
    graph, deadline = _graph(graph, args, kwargs), _deadline(time_limit)

    def one(way: Graph) -> Part:
        cost, names = _model(on_its_way(way).cost), _names(way)
        found = eliminated(cost, names, budget, deadline, lambda sums: [sums.mean()])
        if found is not None:
            return Part(*found)
        engine = Engine([cost], names, budget, False, deadline)
        slopes = engine.slopes([cost])

        def compute() -> tuple[list[Any], list[float]]:
            means = engine.means()
            return engine.at([cost], means), _magnitudes(slopes, engine)

        return Part(*engine.converged(compute, rtol), engine.evaluations)

    (value,), error, evaluations = _over_ways(graph, one, budget, rtol, deadline)
    value = np.asarray(value, graph.cost.dtype if graph.cost.dtype.kind == "f" else float)[()]
    return Exact(value, error, evaluations) if full else value


def gradient(
    graph: Graph | Callable[..., Any],
    *args: Any,
    budget: int = BUDGET,
    rtol: float = RTOL,
    full: bool = False,
    time_limit: float | None = None,
    **kwargs: Any,
) -> Any:
    """d E[cost] / d parameters, in their structure: of the values of the cost, to which ``stop_gradient`` makes no
    difference."""
    graph, deadline = _graph(graph, args, kwargs), _deadline(time_limit)
    check_cost(graph.cost)

    def one(way: Graph) -> Part:
        cost, targets = _model(on_its_way(way).cost, True), [leaf for _, leaf in leaves(way.parameters)]
        _refuse_flux([cost], "gradient")
        found = eliminated(cost, _names(way), budget, deadline, lambda sums: _slope(sums.mean(graph=True), targets))
        if found is not None:
            return Part(*found)
        engine = Engine([cost], _names(way), budget, False, deadline)
        slopes = engine.slopes([cost])

        def compute() -> tuple[list[Any], list[float]]:
            held = [_parameter(m, t) for m, t in zip(engine.means(), engine.terms, strict=True)]
            (total,) = engine.at([cost], held, True)
            pulled = pull([total], [np.ones((), cost.dtype)], [*targets, *held])
            found = [a + b for a, b in zip(pulled, engine.gradient(pulled[len(targets) :], targets), strict=False)]
            return found, _magnitudes(slopes, engine) * len(found)

        return Part(*engine.converged(compute, rtol), engine.evaluations)

    found, error, evaluations = _over_ways(graph, one, budget, rtol, deadline)
    result = rebuild(
        graph.parameters,
        iter([np.asarray(g, t.dtype) for g, (_, t) in zip(found, leaves(graph.parameters), strict=True)]),
    )
    return Exact(result, error, evaluations) if full else result


_gradient = gradient  # where an argument has that name


def hessian(
    graph: Graph | Callable[..., Any],
    *args: Any,
    budget: int = BUDGET,
    rtol: float = RTOL,
    full: bool = False,
    time_limit: float | None = None,
    **kwargs: Any,
) -> Any:
    """d^2 E[cost] / d a d b: the structure of the parameters, in which each leaf holds that structure again, of shape
    a.shape + b.shape.

    Raises ScgValueError where the cost has a kink along a path: the derivative there jumps, and the second would miss
    it.
    """
    graph, deadline = _graph(graph, args, kwargs), _deadline(time_limit)
    check_cost(graph.cost)

    def one(way: Graph) -> Part:
        cost, targets = _model(on_its_way(way).cost, True), [leaf for _, leaf in leaves(way.parameters)]

        def curvature(total: Any) -> list[Any]:
            first = _slope(total, targets, True)
            return [h for g in first for h in _second(g, targets)]

        found = eliminated(cost, _names(way), budget, deadline, lambda sums: curvature(sums.mean(True, True)))
        if found is not None:
            return Part(*found)
        engine = Engine([cost], _names(way), budget, False, deadline)
        bent = [leaf.name for leaf in engine.leaves if leaf.is_noise and any(map(len, leaf.breaks))]
        if bent := bent or [repr(n) for n in engine.rough if engine.leans(n)]:
            raise ScgValueError(
                f"hessian: the cost has a kink along the path of {bent[0]}, of which a second derivative knows nothing;"
                f" take differences ({here()})"
            )
        slope = pull([cost], [np.ones((), cost.dtype)], targets, True)  # which jumps where the cost has a kink
        _refuse_flux([cost, *[np.sum(g) for g in slope if type(g) is Node]], "hessian")
        slopes = engine.slopes([cost])

        def compute() -> tuple[list[Any], list[float]]:
            found = curvature(*engine.at([cost], engine.means(True), True))
            return found, _magnitudes(slopes, engine) * len(found)

        return Part(*engine.converged(compute, rtol), engine.evaluations)

    found, error, evaluations = _over_ways(graph, one, budget, rtol, deadline)
    rows, targets = iter(found), [leaf for _, leaf in leaves(graph.parameters)]
    result = rebuild(
        graph.parameters,
        iter(
            [
                rebuild(graph.parameters, (np.asarray(next(rows).reshape(t.shape + u.shape), t.dtype) for u in targets))
                for t in targets
            ]
        ),
    )
    return Exact(result, error, evaluations) if full else result


def log_evidence(
    model: Graph | Node | Callable[..., Any],
    *args: Any,
    gradient: bool = False,
    budget: int = BUDGET,
    rtol: float = RTOL,
    full: bool = False,
    time_limit: float | None = None,
    **kwargs: Any,
) -> Any:
    """log p(x) = log sum_z p(z) p(x | z) of a model that is written as draws and log-probabilities: a function, or its
    graph, that draws z by ``scg.sample`` and returns log p(x | z), a sum over data.

        def model(theta, x, rng):  # a hidden Markov model, as a loop
            z, total = scg.sample(dist.Categorical(logits=theta["start"]), scg.ScoreFunction(), rng=rng), 0.0
            for t in range(len(x)):
                total = total + dist.Normal(theta["loc"][z], 1.0).log_prob(x[t])
                z = scg.sample(dist.Categorical(logits=theta["step"][z]), scg.ScoreFunction(), rng=rng)
            return total

    Discrete draws are eliminated with products that are scaled, so that the evidence may be as small as it likes; that
    is the forward algorithm of the loop above. With others it is log E[exp(log p(x | z))], by enumeration and
    quadrature. With ``gradient`` the pair (log p(x), its gradient in the structure of the parameters).
    """
    graph, deadline = _graph(model, args, kwargs), _deadline(time_limit)
    check_cost(graph.cost)
    targets = [leaf for _, leaf in leaves(graph.parameters)]

    def compute(sums: Sums) -> list[Any]:
        total = sums.log_mean_exp(gradient)
        return [_raw(total), *(_slope(total, targets) if gradient else ())]

    cost, found = _model(graph.cost, True), None
    if not guards_on_draws(graph):
        found = eliminated(cost, _names(graph), budget, deadline, compute, True)
    if found is not None:
        (value, *slopes), error, evaluations = found
    else:
        shift = float(graph.cost.raw)
        options: dict[str, Any] = {"budget": budget, "rtol": rtol, "time_limit": time_limit, "full": True}
        if callable(model):

            @functools.wraps(model)
            def likelihood(*args: Any, **kwargs: Any) -> Any:
                return np.exp(model(*args, **kwargs) - shift)

            graph = _graph(likelihood, args, kwargs)
        else:
            graph = Graph(np.exp(graph.cost - shift), graph.parameters)
        mean = expectation(graph, **options)
        if not mean.value > 0:
            raise ScgValueError(f"log_evidence: the data have probability zero ({here()})")
        value, error, evaluations = np.log(mean.value) + shift, mean.error / max(mean.value, 1e-300), mean.evaluations
        slopes = []
        if gradient:
            slope = _gradient(graph, **options)
            slopes = [g / mean.value for _, g in leaves(slope.value)]
            error, evaluations = max(error, slope.error / mean.value), evaluations + slope.evaluations
    value = np.asarray(value, graph.cost.dtype)[()]
    result: Any = value
    if gradient:
        typed = [np.asarray(g, t.dtype) for g, t in zip(slopes, targets, strict=True)]
        result = value, rebuild(graph.parameters, iter(typed))
    return Exact(result, error, evaluations) if full else result


def moments(
    graph: Graph | Callable[..., Any],
    *args: Any,
    budget: int = BUDGET,
    rtol: float = RTOL,
    full: bool = False,
    time_limit: float | None = None,
    **kwargs: Any,
) -> Any:
    """Exact ``.mean`` and ``.variance`` of the gradient that the bound estimators give, over the samples and over the
    estimators' own noise.

    The gradient is a sum of parts, Var[sum_i a_i] = sum_ij Cov[a_i, a_j], and only parts with noise in common have a
    covariance.
    """
    graph, deadline = _graph(graph, args, kwargs), _deadline(time_limit)
    check_cost(graph.cost)
    count = len(list(leaves(graph.parameters)))

    def one(way: Graph) -> Part:
        found, error, evaluations = _moments(way, budget, rtol, deadline)
        if several:
            # of squares, which add up
            found = [*found[:count], *[v + m * m for m, v in zip(found[:count], found[count:], strict=True)]]
        return Part(found, error, evaluations)

    several = bool(guards_on_draws(graph))
    found, error, evaluations = _over_ways(graph, one, budget, rtol, deadline)
    if several:
        found = [*found[:count], *[np.maximum(v - m * m, 0) for m, v in zip(found[:count], found[count:], strict=True)]]
    found = [np.asarray(x, t.dtype) for x, (_, t) in zip(found, [*leaves(graph.parameters)] * 2, strict=True)]
    result = Moments(*[rebuild(graph.parameters, iter(part)) for part in (found[:count], found[count:])])
    return Exact(result, error, evaluations) if full else result


def _moments(graph: Graph, budget: int, rtol: float, deadline: float, absorbing: bool = False) -> "Part":
    """Means and variances of the gradients for all parameters: those that the graph gives where the samples lead its
    way, and 0 elsewhere.

    Where a zero meets an infinity at other values of the samples than the recorded ones, once more with products that
    absorb (``gradient.pull``).
    """
    targets = [leaf for _, leaf in leaves(graph.parameters)]
    loss = surrogate(graph.cost, 1, graph=True)
    pulled = pull([loss], [np.ones((), loss.dtype)], targets, True, absorbing=absorbing)
    roots = as_values(along_its_way(graph, [g for g in pulled if type(g) is Node]))
    if roots and (known := eliminated_moments(roots, _names(graph), budget, deadline)) is not None:
        means, squares, sizes, evaluations = known
        both = iter(zip(means, squares, strict=True))
        each = [next(both) if type(g) is Node else (np.asarray(g), np.square(g)) for g in pulled]
        found = [np.asarray(m) for m, _ in each] + [np.maximum(q - m * m, 0) for m, q in each]
        eps = max([float(np.finfo(r.dtype).eps) for r in roots])
        return Part(found, max(eps, 1e-13) * max(sizes), evaluations)
    engine = Engine(roots, _names(graph), budget, True, deadline)
    slopes = engine.slopes(roots)
    pairs = overlapping(slopes, engine.sets, engine.offsets[-1])

    def compute() -> tuple[list[Any], list[float]]:
        means = engine.means()
        covariances, magnitude = engine.covariances(means, pairs)
        twice = np.where(pairs[:, 0] == pairs[:, 1], 1, 2)
        forms = [_forms(s, pairs, np.stack([twice * covariances, twice * magnitude])) for s in slopes]
        results = zip(engine.at(roots, means), [v for v, _ in forms], strict=True)
        scales = zip(_magnitudes(slopes, engine), [float(np.max(m, initial=0)) for _, m in forms], strict=True)
        nothing = [(np.asarray(g), np.zeros(np.size(g))) for g in pulled if type(g) is not Node]
        both = [next(results) if type(g) is Node else nothing.pop(0) for g in pulled]
        sizes = [next(scales) if type(g) is Node else (0.0, 0.0) for g in pulled]
        return (
            [np.asarray(m) for m, _ in both]
            + [np.reshape(np.maximum(v, 0), t.shape) for (_, v), t in zip(both, targets, strict=True)],
            [m for m, _ in sizes] + [v for _, v in sizes],
        )

    try:
        return Part(*engine.converged(compute, rtol, squares=True), engine.evaluations)
    except ConvergenceError:
        if absorbing or not engine.infinite:
            raise
        return _moments(graph, budget, rtol, deadline, True)


def distribution(node: Graph | Node, budget: int = BUDGET) -> Law:
    """The exact distribution of a node (of a graph: of its cost), all elements jointly, that depends on finitely many
    values."""
    root, names = _model(_graph(node, (), {}).cost), _names(node) if isinstance(node, Graph) else {}
    if (known := eliminated_distribution(root, names, budget)) is not None:
        return _law(root, np.reshape(known[0], (len(known[1]), -1)), known[1])
    engine = Engine([root], names, budget, False)
    if engine.adaptive:
        raise ScgValueError(
            f"the distribution of {root!r} cannot be listed: it depends on"
            f" {', '.join(leaf.name for leaf in engine.adaptive)}"
            f" ({here()})"
        )
    if not engine.leaves:
        return Law(np.asarray(root.raw)[None], np.ones(1))
    engine.terms, engine.places = [root], [(0, 0)]
    everything = frozenset(range(engine.offsets[-1]))
    rows, chances = [], []
    for block in engine.blocks([everything], [(0,)], False):
        rows.append(block.values[0])
        chances.append(block.weights[:, 0])
    return _law(root, np.concatenate(rows), np.concatenate(chances))


def _law(root: Node, row: Any, chance: Any) -> Law:
    """Rows of values and their probabilities, equal ones together."""
    values, inverse = np.unique(row[chance > 0], axis=0, return_inverse=True)
    return Law(
        values.reshape(len(values), *root.shape), np.bincount(inverse.reshape(-1), chance[chance > 0], len(values))
    )


class Part(NamedTuple):
    """Arrays, an estimate of their error, and the evaluations that they took."""

    found: list[Any]
    error: float
    evaluations: int


def _deadline(time_limit: float | None) -> float:
    return math.inf if time_limit is None else time.monotonic() + time_limit


def _over_ways(graph: Graph, one: Callable[[Graph], Part], budget: int, rtol: float, deadline: float) -> Part:
    """The sum over the ways that the function takes through its ``if``s; most often there is one."""

    def mass(g: Graph) -> float:
        return float(expectation(g, budget=budget, rtol=rtol, time_limit=deadline - time.monotonic()))

    parts = [one(way) for way in ways(graph, mass)]
    return Part(
        [sum(column[1:], column[0]) for column in zip(*[p.found for p in parts], strict=True)],
        sum(p.error for p in parts),
        sum(p.evaluations for p in parts),
    )


def _graph(graph: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Graph:
    """A graph as it is; a node as one; a function traced, with some generator where it needs one: no result here
    depends on it."""
    if isinstance(graph, (Graph, Node)):
        if args or kwargs:
            raise ScgTypeError(f"a graph takes no further arguments, only budget, rtol, full and time_limit ({here()})")
        graph = graph if isinstance(graph, Graph) else Graph(graph)
        graph.require_nodes("an exact result")
        graph.require_repeatable(quick=True)
        return graph
    if not callable(graph):
        raise ScgTypeError(f"exact results need a graph, a node or a function, got {type(graph).__name__} ({here()})")
    if "rng" not in kwargs and len(args) < len(names := inspect.signature(graph).parameters) and "rng" in names:
        kwargs = {**kwargs, "rng": np.random.default_rng(0)}
    graph = trace(graph, *args, **kwargs)
    graph.require_nodes("an exact result")
    graph.require_repeatable(quick=True)
    return graph


def _names(graph: Graph) -> dict[int, str]:
    names = {node.id: name for name, node in graph.stochastic.items()}
    for name, node in graph.stochastic.items():
        for source in ancestors([node.operands[0]]) if is_path(node) else ():
            if is_noise(source):
                names.setdefault(source.id, name)
    return names


def _model(cost: Node, paths: bool = False) -> Node:
    """The cost as a function of values: every relaxed sample as the sample that it relaxes, and pathwise samples of
    numbers held, whose distribution is the same.

    With ``paths`` draws of a support that moves with its parameters are paths: a derivative of their density would miss
    the ends.
    """
    order = Graph(cost, []).nodes
    nodes = [n for n in order if is_stochastic(n)]
    moving = [n for n in nodes if is_path(n)]
    other = [
        n
        for n in moving
        if isinstance(n.statics["site"].distribution, Discrete) or _is_held(n) and not _is_known(n, order)
    ]
    if other:
        values = {n.id: n.raw for n in nodes if is_draw(n)}
        for n in other:
            distribution = n.statics["site"].distribution
            values[n.id] = (
                np.broadcast_to(distribution.atoms()[0], n.shape) if isinstance(distribution, FiniteSupport) else n.raw
            )
        cost = resample(cost, {}, bindings={n.id: Accounted() for n in other}, values=values)
    return as_values([cost], paths)[0]


def _refuse_flux(costs: list[Node], what: str) -> None:
    """Raise ConvergenceError where parameters move a jump of what is integrated: the flux through it is in no
    derivative under the integral."""
    for cost in costs:
        try:
            refuse_moving_jumps(cost, ancestors([cost], guards=True))
        except EstimatorError as error:
            raise ConvergenceError(f"{what}: {error}; or take differences of scg.exact.expectation") from None


def _is_known(node: Node, order: list[Node]) -> bool:
    """Whether a cost depends on the noise of a pathwise sample in another way than through the sample, as a gradient
    along its path does."""
    inside: set[int] = set()
    for n in ancestors([node.operands[0]]):
        if is_noise(n) or any([type(o) is Node and o.id in inside for o in n.operands]):
            inside.add(n.id)
    return any(
        [
            n is not node and n.id not in inside and any([type(o) is Node and o.id in inside for o in n.operands])
            for n in order
        ]
    )


def _is_held(node: Node) -> bool:
    """Whether the density of a pathwise sample is known and its support fixed, so that its mean may as well be taken
    over values as over noise."""
    distribution = node.statics["site"].distribution
    if distribution.event_shape or not distribution.has(FixedSupport) or not distribution.parameters:
        return False
    try:
        distribution.detached().log_prob(node.raw)
    except ScgError:
        return False
    return True


def _parameter(value: Any, term: Node) -> Node:
    return parameter(np.asarray(value, term.dtype if term.dtype.kind == "f" else float))


def _magnitudes(slopes: list[Any], engine: Engine) -> list[float]:
    return [float(np.max(np.abs(s) @ engine.magnitude, initial=0)) for s in slopes]


def _forms(slope: Any, pairs: Any, weights: Any) -> tuple[Any, Any]:
    """sum over pairs (a, b) of slope_a slope_b w_ab, and of the absolute values with the second weights."""
    value, size = np.zeros(len(slope)), np.zeros(len(slope))
    for k in range(0, len(pairs), step := max(1, 2**22 // max(1, len(slope)))):
        product = slope[:, pairs[k : k + step, 0]] * slope[:, pairs[k : k + step, 1]]
        value += product @ weights[0, k : k + step]
        size += np.abs(product) @ weights[1, k : k + step]
    return value, size


def _slope(total: Any, targets: list[Node], graph: bool = False) -> list[Any]:
    """d total / d targets; Nodes where ``graph``, and zeros of what is no Node."""
    if type(total) is not Node:
        return [np.zeros(t.shape, t.dtype) for t in targets]
    return pull([total], [np.ones((), total.dtype)], targets, graph)


def _raw(x: Any) -> Any:
    return x.raw if type(x) is Node else x


def _second(g: Any, targets: list[Node]) -> list[Any]:
    if type(g) is not Node:
        return [np.zeros(np.shape(g) + t.shape) for t in targets]
    rows = [pull([g], [unit.reshape(g.shape)], targets) for unit in np.eye(g.size, dtype=g.dtype)]
    return [
        np.stack(column) if rows else np.zeros(g.shape + t.shape)
        for column, t in zip(zip(*rows, strict=True), targets, strict=True)
    ]
