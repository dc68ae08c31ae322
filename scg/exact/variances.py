"""The exact mean and variance of the gradient that bound estimators give."""

import copy

import numpy as np

from scg.core.aliases import Function, State, Tree
from scg.core.backward import pull
from scg.core.leaves import parameter
from scg.core.node import Node
from scg.core.tree import leaves, rebuild
from scg.exact.choice import eliminated_moments
from scg.exact.convergence import Sized, converged
from scg.exact.engine import Engine
from scg.exact.leaf import ConvergenceError
from scg.exact.means import magnitudes, mass_by, over_ways
from scg.exact.models import deadline_after, graph_of, names_of
from scg.exact.paths import along_its_way, guards_on_draws
from scg.exact.results import BUDGET, RTOL, Moments, Part, resulting
from scg.exact.sets import overlapping
from scg.exact.values import as_values
from scg.stochastic.costs import as_replicates
from scg.stochastic.estimator import Estimator
from scg.stochastic.graph import Graph
from scg.stochastic.lifting import check_cost
from scg.stochastic.surrogate import surrogate


def moments(
    graph: Graph | Function,
    *args: object,
    budget: int = BUDGET,
    rtol: float = RTOL,
    full: bool = False,
    time_limit: float | None = None,
    **kwargs: object,
) -> Tree:
    """Exact ``.mean`` and ``.variance`` of the gradient that the bound estimators give, over the samples and over the
    estimators' own noise.

    The gradient is a sum of parts, Var[sum_i a_i] = sum_ij Cov[a_i, a_j], and only parts with noise in common have a
    covariance.
    """
    graph, deadline = graph_of(graph, args, kwargs), deadline_after(time_limit, budget, rtol)
    check_cost(graph.cost)
    count = len(list(leaves(graph.parameters)))

    def one(way: Graph, images: bool) -> Part:
        if several:
            states.hold(way)
        found, error, evaluations, width = _moments(way, budget, rtol, deadline, images)
        if several:
            # of squares, which add up
            found = [*found[:count], *[v + m * m for m, v in zip(found[:count], found[count:], strict=True)]]
        return Part(found, error, evaluations, width)

    several, states = bool(guards_on_draws(graph)), _States()
    try:
        with as_replicates(graph.first):
            found, error, evaluations, width = over_ways(graph, one, budget, rtol, deadline)
    finally:
        states.restore()
    if several:
        found = [*found[:count], *[np.maximum(v - m * m, 0) for m, v in zip(found[:count], found[count:], strict=True)]]
    found = [np.asarray(x, t.dtype) for x, (_, t) in zip(found, [*leaves(graph.parameters)] * 2, strict=True)]
    result = Moments(*[rebuild(graph.parameters, iter(part)) for part in (found[:count], found[count:])])
    return resulting(result, error, evaluations, width) if full else result


class _States:
    """What the estimators of several ways have learned, the same in all of them: a mean over the ways is one of
    estimates that are all held against one baseline."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Estimator, State]] = {}

    def hold(self, way: Graph) -> None:
        """Give the estimators of a way the states that they had when they were first met."""
        for node in way.stochastic.values():
            estimator = node.statics["site"].estimator
            if estimator.state:
                self._known.setdefault(id(estimator), (estimator, copy.deepcopy(estimator.state)))
        self.restore()

    def restore(self) -> None:
        for estimator, state in self._known.values():
            estimator.state = copy.deepcopy(state)


def _moments(graph: Graph, budget: int, rtol: float, deadline: float, images: bool, absorbing: bool = False) -> "Part":
    """Means and variances of the gradients for all parameters: those that the graph gives where the samples lead its
    way, and 0 elsewhere.

    Where a zero meets an infinity at other values of the samples than the recorded ones, once more with products that
    absorb (``gradient.pull``).
    """
    targets = [leaf for _, leaf in leaves(graph.parameters)]
    loss = surrogate(graph.cost, 1, graph.floor, graph=True)
    pulled = pull([loss], [np.ones((), loss.dtype)], targets, True, absorbing=absorbing)
    if guards_on_draws(graph):  # a number, too, is the gradient of its own way alone
        pulled = [g if type(g) is Node else parameter(g) for g in pulled]
    nodes = [g for g in pulled if type(g) is Node]
    roots = as_values(along_its_way(graph, nodes, mass_by(budget, rtol, deadline)), 0, images)
    if roots and (known := eliminated_moments(roots, names_of(graph), budget, deadline, rtol)) is not None:
        means, squares, sizes, evaluations, width = known
        both = iter(zip(means, squares, strict=True))
        each = [next(both) if type(g) is Node else (np.asarray(g), np.square(g)) for g in pulled]
        found = [np.asarray(m) for m, _ in each] + [np.maximum(q - m * m, 0) for m, q in each]
        eps = max([float(np.finfo(r.dtype).eps) for r in roots])
        return Part(found, max(eps, 1e-13) * max(sizes), evaluations, width)
    engine = Engine(roots, names_of(graph), budget, True, deadline)
    slopes = engine.slopes(roots)
    pairs = overlapping(slopes, engine.sets, engine.offsets[-1])

    def compute() -> Sized:
        means = engine.means()
        covariances, magnitude = engine.covariances(means, pairs)
        twice = np.where(pairs[:, 0] == pairs[:, 1], 1, 2)
        forms = [_forms(s, pairs, np.stack([twice * covariances, twice * magnitude])) for s in slopes]
        results = zip(engine.at(roots, means), [v for v, _ in forms], strict=True)
        scales = zip(magnitudes(slopes, engine), [float(np.max(m, initial=0)) for _, m in forms], strict=True)
        nothing = [(np.asarray(g), np.zeros(np.size(g))) for g in pulled if type(g) is not Node]
        both = [next(results) if type(g) is Node else nothing.pop(0) for g in pulled]
        sizes = [next(scales) if type(g) is Node else (0.0, 0.0) for g in pulled]
        return (
            [np.asarray(m) for m, _ in both]
            + [np.reshape(np.maximum(v, 0), t.shape) for (_, v), t in zip(both, targets, strict=True)],
            [m for m, _ in sizes] + [v for _, v in sizes],
        )

    try:
        return Part(*converged(engine, compute, rtol, squares=True), engine.evaluations, engine.width)
    except ConvergenceError:
        if absorbing or not engine.infinite:
            raise
        return _moments(graph, budget, rtol, deadline, images, True)


def _forms(slope: np.ndarray, pairs: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """sum over pairs (a, b) of slope_a slope_b w_ab, and of the absolute values with the second weights."""
    value, size = np.zeros(len(slope)), np.zeros(len(slope))
    for k in range(0, len(pairs), step := max(1, 2**22 // max(1, len(slope)))):
        product = slope[:, pairs[k : k + step, 0]] * slope[:, pairs[k : k + step, 1]]
        value += product @ weights[0, k : k + step]
        size += np.abs(product) @ weights[1, k : k + step]
    return value, size
