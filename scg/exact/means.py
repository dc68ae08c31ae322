"""Exact means of costs, and their first and second derivatives."""

import math
import time
from collections.abc import Callable, Sequence

import numpy as np

from scg.core.aliases import Function, Result, Tree
from scg.core.backward import pull
from scg.core.leaves import parameter
from scg.core.node import Node
from scg.core.tree import leaves, rebuild
from scg.distributions.image import Rounded
from scg.elimination.finite import BudgetError, Width
from scg.errors import EstimatorError, NotDifferentiable, ScgValueError, here
from scg.exact.choice import eliminated
from scg.exact.convergence import Sized, converged
from scg.exact.engine import Engine
from scg.exact.models import deadline_after, graph_of, names_of, refuse_flux, values_in
from scg.exact.paths import on_its_way, ways
from scg.exact.results import BUDGET, RTOL, Part, resulting
from scg.exact.values import rounded_share
from scg.stochastic.graph import Graph
from scg.stochastic.lifting import check_cost


def expectation(
    graph: Graph | Node | Function,
    *args: object,
    budget: int = BUDGET,
    rtol: float = RTOL,
    full: bool = False,
    time_limit: float | None = None,
    **kwargs: object,
) -> Tree:
    """E[cost] over all samples; of a node, of its shape. The distribution of a sample does not depend on its estimator:
    a relaxed one counts as what it relaxes."""
    graph, deadline = graph_of(graph, args, kwargs), deadline_after(time_limit, budget, rtol)

    def one(way: Graph, images: bool) -> Part:
        cost, names = values_in(on_its_way(way).cost, 0, images), names_of(way)
        found = eliminated(cost, names, budget, deadline, lambda sums: [sums.mean()], rtol=rtol)
        if found is not None:
            return Part(*found)
        engine = Engine([cost], names, budget, False, deadline)
        slopes = engine.slopes([cost])

        def compute() -> Sized:
            means = engine.means()
            return engine.at([cost], means), magnitudes(slopes, engine)

        return Part(*converged(engine, compute, rtol), engine.evaluations, engine.width)

    (value,), error, evaluations, width = over_ways(graph, one, budget, rtol, deadline)
    value = np.asarray(value, graph.cost.dtype if graph.cost.dtype.kind == "f" else float)[()]
    return resulting(value, error, evaluations, width) if full else value


def gradient(
    graph: Graph | Function,
    *args: object,
    budget: int = BUDGET,
    rtol: float = RTOL,
    full: bool = False,
    time_limit: float | None = None,
    **kwargs: object,
) -> Tree:
    """d E[cost] / d parameters, in their structure: of the values of the cost, to which ``stop_gradient`` makes no
    difference."""
    graph, deadline = graph_of(graph, args, kwargs), deadline_after(time_limit, budget, rtol)
    check_cost(graph.cost)

    def one(way: Graph, images: bool) -> Part:
        cost, targets = values_in(on_its_way(way).cost, 1, images), [leaf for _, leaf in leaves(way.parameters)]
        refuse_flux([cost], "gradient")
        found = eliminated(
            cost, names_of(way), budget, deadline, lambda sums: slope_of(sums.mean(graph=True), targets), rtol=rtol
        )
        if found is not None:
            return Part(*found)
        engine = Engine([cost], names_of(way), budget, False, deadline)
        slopes = engine.slopes([cost])

        def compute() -> Sized:
            held = [_parameter(m, t) for m, t in zip(engine.means(), engine.terms, strict=True)]
            (total,) = engine.at([cost], held, True)
            pulled = pull([total], [np.ones((), cost.dtype)], [*targets, *held])
            found = [a + b for a, b in zip(pulled, engine.gradient(pulled[len(targets) :], targets), strict=False)]
            return found, magnitudes(slopes, engine) * len(found)

        return Part(*converged(engine, compute, rtol), engine.evaluations, engine.width)

    found, error, evaluations, width = over_ways(graph, one, budget, rtol, deadline)
    result = rebuild(
        graph.parameters,
        iter([np.asarray(g, t.dtype) for g, (_, t) in zip(found, leaves(graph.parameters), strict=True)]),
    )
    return resulting(result, error, evaluations, width) if full else result


def hessian(
    graph: Graph | Function,
    *args: object,
    budget: int = BUDGET,
    rtol: float = RTOL,
    full: bool = False,
    time_limit: float | None = None,
    **kwargs: object,
) -> Tree:
    """d^2 E[cost] / d a d b: the structure of the parameters, in which each leaf holds that structure again, of shape
    a.shape + b.shape.

    Raises ScgValueError where the cost has a kink along a path: the derivative there jumps, and the second would miss
    it.
    """
    graph, deadline = graph_of(graph, args, kwargs), deadline_after(time_limit, budget, rtol)
    check_cost(graph.cost)

    def one(way: Graph, images: bool) -> Part:
        cost, targets = values_in(on_its_way(way).cost, 2, images), [leaf for _, leaf in leaves(way.parameters)]

        def curvature(total: Result) -> list[np.ndarray]:
            first = slope_of(total, targets, True)
            return [h for g in first for h in _second(g, targets)]

        found = eliminated(
            cost, names_of(way), budget, deadline, lambda sums: curvature(sums.mean(True, True)), rtol=rtol
        )
        if found is not None:
            return Part(*found)
        engine = Engine([cost], names_of(way), budget, False, deadline)
        bent = [leaf.name for leaf in engine.leaves if leaf.is_noise and any(map(len, leaf.breaks))]
        bent = bent and engine.bent_by(targets)
        if bent := bent or [repr(n) for n in engine.rough if engine.leans(n)]:
            raise ScgValueError(
                f"hessian: the cost has a kink along the path of {bent[0]}, of which a second derivative knows nothing;"
                f" take differences ({here()})"
            )
        slope = pull([cost], [np.ones((), cost.dtype)], targets, True)  # which jumps where the cost has a kink
        refuse_flux([cost, *[np.sum(g) for g in slope if type(g) is Node]], "hessian")
        slopes = engine.slopes([cost])

        def compute() -> Sized:
            found = curvature(*engine.at([cost], engine.means(True), True))
            return found, magnitudes(slopes, engine) * len(found)

        return Part(*converged(engine, compute, rtol), engine.evaluations, engine.width)

    found, error, evaluations, width = over_ways(graph, one, budget, rtol, deadline)
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
    return resulting(result, error, evaluations, width) if full else result


def over_ways(graph: Graph, one: Callable[[Graph, bool], Part], budget: int, rtol: float, deadline: float) -> Part:
    """The sum over the ways that the function takes through its ``if``s, most often there is one, of ``one(way,
    images)``: along paths where values are rounded to an end at which no density is known."""

    parts = [_also_by_images(one, way) for way in ways(graph, mass_by(budget, rtol, deadline))]
    return Part(
        [sum(column[1:], column[0]) for column in zip(*[p.found for p in parts], strict=True)],
        sum(p.error for p in parts),
        sum(p.evaluations for p in parts),
        wider([p.width for p in parts]),
    )


def _also_by_images(one: Callable[[Graph, bool], Part], way: Graph) -> Part:
    """The same along paths where values are rounded to an end of a support: beside it the score of a sample is not that
    of the value that it was rounded from. Where no such path is known, the error says so."""
    share = max([rounded_share(n) for n in way.stochastic.values()], default=0.0)
    try:
        return one(way, share > 0)
    except BudgetError:
        raise
    except (EstimatorError, ScgValueError, NotDifferentiable) as error:
        if share:
            part = one(way, False)
            size = max([float(np.max(np.abs(x), initial=0.0)) for x in part.found], default=0.0)
            scores = 10 * math.log(np.finfo(way.cost.dtype).eps) ** 2  # by order of magnitude, and their squares
            return part._replace(error=max(part.error, share * scores * size))
        if not isinstance(error, Rounded):
            raise
        try:
            return one(way, True)
        except BudgetError:
            raise
        except (EstimatorError, ScgValueError):
            raise error from None


def mass_by(budget: int, rtol: float, deadline: float) -> Callable[[Graph], float]:
    """The function that a graph's mean is found by."""
    return lambda g: float(expectation(g, budget=budget, rtol=rtol, time_limit=deadline - time.monotonic()))


def wider(widths: Sequence[Width | None]) -> Width | None:
    """The widest of some."""
    return max([width for width in widths if width is not None], key=lambda width: width.entries, default=None)


def magnitudes(slopes: list[np.ndarray], engine: Engine) -> list[float]:
    """For each root the largest sum of the sizes of its terms: what rounding is measured against."""
    return [float(np.max(np.abs(s) @ engine.magnitude, initial=0)) for s in slopes]


def slope_of(total: Result, targets: list[Node], graph: bool = False) -> list[Result]:
    """d total / d targets; Nodes where ``graph``, and zeros of what is no Node."""
    if type(total) is not Node:
        return [np.zeros(t.shape, t.dtype) for t in targets]
    return pull([total], [np.ones((), total.dtype)], targets, graph)


def _second(g: Result, targets: list[Node]) -> list[np.ndarray]:
    if type(g) is not Node:
        return [np.zeros(np.shape(g) + t.shape) for t in targets]
    rows = [pull([g], [unit.reshape(g.shape)], targets) for unit in np.eye(g.size, dtype=g.dtype)]
    return [
        np.stack(column) if rows else np.zeros(g.shape + t.shape)
        for column, t in zip(zip(*rows, strict=True), targets, strict=True)
    ]


def _parameter(value: np.ndarray, term: Node) -> Node:
    return parameter(np.asarray(value, term.dtype if term.dtype.kind == "f" else float))
