"""What an exact result is asked of, as a cost that is a function of the values of its samples."""

import inspect
import math
import time

import numpy as np

from scg.core.aliases import Function, Statics
from scg.core.ancestry import ancestors
from scg.core.node import Node
from scg.core.operands import described
from scg.core.options import number
from scg.distributions.base import Discrete, FiniteSupport, FixedSupport
from scg.errors import EstimatorError, ScgError, ScgTypeError, here
from scg.exact.leaf import ConvergenceError
from scg.exact.values import as_values
from scg.stochastic.estimator import Accounted
from scg.stochastic.graph import Graph, trace
from scg.stochastic.jumps import refuse_moving_jumps
from scg.stochastic.resampling import resample
from scg.stochastic.sites import is_draw, is_noise, is_path, is_stochastic


def deadline_after(time_limit: float | None, budget: float, rtol: float) -> float:
    """The time of the monotonic clock, in seconds, at which a limit that begins now ends. Raises ScgTypeError or
    ScgValueError for an option that is no number, or out of range."""
    if budget != math.inf:
        number("budget", budget, 0)
    number("rtol", rtol, 0, closed=True)
    if time_limit is None or time_limit == math.inf:
        return math.inf
    return time.monotonic() + number("time_limit", time_limit, -math.inf)


def graph_of(graph: Graph | Node | Function, args: tuple[object, ...], kwargs: Statics) -> Graph:
    """A graph as it is; a node as one; a function traced, with some generator where it needs one: no result here
    depends on it."""
    if isinstance(graph, (Graph, Node)):
        if args or kwargs:
            got = ", ".join([*[described((x,)) for x in args], *kwargs])
            raise ScgTypeError(
                f"a graph takes no further arguments, only budget, rtol, full and time_limit, got {got} ({here()})"
            )
        graph = graph if isinstance(graph, Graph) else Graph(graph)
        graph.require_nodes("an exact result")
        graph.require_repeatable()
        return graph
    if not callable(graph):
        raise ScgTypeError(f"exact results need a graph, a node or a function, got {type(graph).__name__} ({here()})")
    if "rng" not in kwargs and len(args) < len(names := inspect.signature(graph).parameters) and "rng" in names:
        kwargs = {**kwargs, "rng": np.random.default_rng(0)}
    graph = trace(graph, *args, **kwargs)
    graph.require_nodes("an exact result")
    graph.require_repeatable()
    return graph


def names_of(graph: Graph) -> dict[int, str]:
    """The names of stochastic nodes, and of the noise behind pathwise ones, by id."""
    names = {node.id: name for name, node in graph.stochastic.items()}
    for name, node in graph.stochastic.items():
        for source in ancestors([node.operands[0]]) if is_path(node) else ():
            if is_noise(source):
                names.setdefault(source.id, name)
    return names


def values_in(cost: Node, derivatives: int = 0, images: bool = False) -> Node:
    """The cost as a function of values: every relaxed sample as the sample that it relaxes, and pathwise samples of
    numbers held, whose distribution is the same; those of whose density so many ``derivatives`` under the integral are
    not known are paths, and with ``images`` those that may be rounded to an end (``as_values``)."""
    order = ancestors([cost], guards=True)
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
    return as_values([cost], derivatives, images)[0]


def by_densities(cost: Node) -> Node:
    """The cost with every pathwise sample of numbers as a value that is drawn, also where later ones are drawn from it;
    where the noise of each is seen through the sample alone."""
    order = ancestors([cost], guards=True)
    paths = [n for n in order if is_path(n)]
    if not paths or not all([_is_held(n) and not _is_known(n, order, True) for n in paths]):
        return cost
    values = {n.id: n.raw for n in order if is_stochastic(n)}
    return resample(cost, {}, bindings={n.id: Accounted() for n in paths}, values=values)  # type: ignore[no-any-return]


def refuse_flux(costs: list[Node], what: str) -> None:
    """Raise ConvergenceError where parameters move a jump of what is integrated: the flux through it is in no
    derivative under the integral."""
    for cost in costs:
        try:
            refuse_moving_jumps(cost, ancestors([cost], guards=True))
        except EstimatorError as error:
            raise ConvergenceError(f"{what}: {error}; or take differences of scg.exact.expectation") from None


def _is_known(node: Node, order: list[Node], own: bool = False) -> bool:
    """Whether a cost depends on the noise of a pathwise sample in another way than through the sample, as a gradient
    along its path does; with ``own`` on the noise that does not stand behind its parameters."""
    inside: set[int] = set()
    above = {n.id for n in ancestors([o for o in node.operands[1:] if type(o) is Node])} if own else set()
    for n in ancestors([node.operands[0]]):
        if n.id in above:
            continue
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
    over values as over noise; samples whose noise is coupled have no density together."""
    distribution = node.statics["site"].distribution
    if node.statics["site"].coupling is not None:
        return False
    if distribution.event_shape or not distribution.has(FixedSupport) or not distribution.parameters:
        return False
    try:
        distribution.detached().log_prob(node.raw)
    except ScgError:
        return False
    return True
