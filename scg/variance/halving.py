"""The best estimators for the stochastic nodes of a graph, by successive halving."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any, NamedTuple

import numpy as np

from scg.core.aliases import Keywords, Statics
from scg.core.node import Node, Value
from scg.core.progress import Progress, reporter
from scg.errors import ScgError, ScgTypeError, ScgValueError, here
from scg.estimators import (
    ARM,
    REBAR,
    RODEO,
    CoupledPairs,
    DisARM,
    DoubleControlVariate,
    Enumerate,
    LeaveOneOut,
    MeasureValued,
    MuProp,
    Reparameterized,
    ScoreFunction,
    StochasticDerivative,
    UnorderedSet,
)
from scg.stochastic.estimator import Estimator
from scg.stochastic.graph import Graph
from scg.variance.chunks import usable, with_own_estimators
from scg.variance.comparing import BUDGET, as_graph, checked, compare, entropy_of
from scg.variance.evaluations import evaluations
from scg.variance.report import Report
from scg.variance.rows import Entry

JOINT = 256  # assignments that compete at once; where there are more, one node at a time is decided
_LEAST, _FINALISTS = 128, 4
_TIMED = {"seconds": 0.004, "evaluations": 0.0}  # the seconds of a timed batch in the rounds before the last
CANDIDATES: tuple[Callable[[], Estimator], ...] = (
    ScoreFunction,
    lambda: ScoreFunction(LeaveOneOut(), 2),
    lambda: ScoreFunction(LeaveOneOut(), 4),
    Reparameterized,
    DisARM,
    ARM,
    lambda: CoupledPairs(4),
    lambda: DoubleControlVariate(4),
    lambda: RODEO(4, tangent, np.array(0.5)),
    StochasticDerivative,
    lambda: StochasticDerivative(prune=True),
    lambda: StochasticDerivative(prune="program"),
    REBAR,
    MeasureValued,
    MuProp,
    Enumerate,
    lambda: UnorderedSet(2),
)


def tangent(parameters: Any, f: Value, d: Value) -> Value:
    """A surrogate of RODEO: a part of the slope. With all of it the estimate is ``DoubleControlVariate``'s."""
    return parameters * d


class Found(NamedTuple):
    """``report`` of the estimators as declared and of those that were left at the end; ``graph``, bound to the best;
    ``binding``, these estimators by node."""

    report: Report
    graph: Graph
    binding: dict[str, Estimator]

    def __str__(self) -> str:
        return (
            "best of what was tried:"
            f" {', '.join(f'{name}: {estimator!r}' for name, estimator in self.binding.items())}\n\n{self.report}"
        )


def search(
    graph_or_fn: object,
    candidates: Mapping[str, Sequence[Estimator]] | None = None,
    *,
    args: tuple[object, ...] = (),
    kwargs: Keywords | None = None,
    replicates: int = 10_000,
    rng: np.random.Generator | None = None,
    work: str = "seconds",
    executor: Executor | Callable[[], Executor] | None = None,
    progress: Progress = None,
    budget: int = BUDGET,
) -> Found:
    """The assignment of estimators to nodes of least variance times ``work``, "seconds" or "evaluations" of the cost.

    ``candidates`` are estimators by node; None: the unbiased ones of the package, with usual settings, that are valid
    for the node: all but ``RELAX``, which needs a function, and ``Marginalize``, which sums samples out together. All
    assignments compete; where there are over 256, the nodes are decided one after the other, twice.

    Successive halving (Jamieson and Talwalkar, 2016): in each round the assignments left share an equal number of
    replicates in all, and the better half goes on, so that the last ones have ``replicates`` each. An assignment is
    worth the upper end of its variance's interval times its work, and among those without variance the one of least
    work is best. A time is a measurement: with ``work="evaluations"`` the result is a function of graph and seed.

    Raises EstimatorError or ScgValueError for a candidate that is given and not valid, and for a node without any.
    """
    seed = entropy_of(rng)
    checked(replicates, None, budget)
    usable(executor)
    reporter(progress)
    if work not in ("seconds", "evaluations"):
        raise ScgValueError(f"work must be 'seconds' or 'evaluations', got {work!r} ({here()})")
    graph = as_graph(graph_or_fn, args, kwargs, rng)
    choices = _valid(graph) if candidates is None else _given(graph, candidates)
    count = math.prod(map(len, choices.values()))
    options: Statics = {"work": work, "seed": seed, "budget": budget, "executor": executor, "progress": progress}
    if count <= JOINT:
        bindings = [dict(zip(choices, estimators, strict=True)) for estimators in itertools.product(*choices.values())]
        left = _halved(graph, _accepted(graph, bindings, candidates is not None), replicates, **options)
    else:
        best: dict[str, Estimator] = {}
        for name in [*choices, *choices]:
            bindings = _accepted(
                graph, [{**best, name: estimator} for estimator in choices[name]], candidates is not None
            )
            left = _halved(graph, bindings, replicates, last=0, **options)
            best = left[0]
    rows: dict[str, object] = {"as declared": {}, **{_label(binding): binding for binding in left}}
    report = compare(
        graph,
        rows,
        replicates=replicates,
        rng=np.random.default_rng(seed),
        executor=executor,
        progress=progress,
        budget=budget,
    )
    binding = min(left, key=lambda binding: _worth(report[_label(binding)].total, work))
    return Found(report, graph.bind(binding), binding)


def _halved(
    graph: Graph,
    bindings: list[dict[str, Estimator]],
    replicates: int,
    work: str,
    seed: int,
    budget: int,
    executor: Executor | Callable[[], Executor] | None,
    progress: Progress,
    last: int = 1,
) -> list[dict[str, Estimator]]:
    """The finalists; the best first where a ``last`` round, 0, ranks them."""
    rounds = max(0, math.ceil(math.log2(max(len(bindings), 1) / _FINALISTS)))
    for k in range(rounds, last - 1, -1):
        n = min(replicates, max(_LEAST, replicates >> k))
        rows = {_label(binding): binding for binding in bindings}
        found = compare(
            graph,
            rows,
            replicates=n,
            rng=np.random.default_rng([seed, k]),
            executor=executor,
            progress=progress,
            budget=0,
            _timed=_TIMED[work],
            _sure=budget,
        )
        if found.interrupted:
            raise KeyboardInterrupt
        ranked = sorted(rows, key=lambda label: _worth(found[label].total, work))
        bindings = [rows[label] for label in ranked[: max(_FINALISTS, -(-len(ranked) // 2))]]
    return bindings


def _worth(entry: Entry, work: str) -> tuple[float, float]:
    spent = entry.seconds if work == "seconds" else entry.evaluations
    variance = entry.high if math.isnan(entry.exact_variance) else entry.exact_variance
    return (float(f"{variance * spent:.6e}") if variance > 0 else 0.0, spent)


def _label(binding: Mapping[str, Estimator]) -> str:
    return ", ".join(f"{name}: {estimator!r}" for name, estimator in binding.items())


def _accepted(graph: Graph, bindings: list[dict[str, Estimator]], given: bool) -> list[dict[str, Estimator]]:
    """The bindings of which a gradient can be taken; where they were given by the user, none may fail that has only one
    estimator that is new."""
    found, first = [], None
    for binding in bindings:
        try:
            evaluations(with_own_estimators(graph.bind(binding)))
            found.append(binding)
        except ScgError as error:
            first = first or error
    if first is not None and (given or not found):
        raise first
    return found


def _valid(graph: Graph) -> dict[str, list[Estimator]]:
    choices = {}
    for name, node in graph.stochastic.items():
        distribution = node.statics["site"].distribution
        if not any(type(p) is Node for p in distribution.parameters.values()):
            continue  # nothing to differentiate
        found = []
        for make in CANDIDATES:
            estimator = make()
            try:
                estimator.check(distribution, name)
                evaluations(with_own_estimators(graph.bind({name: estimator})))
            except ScgError:
                continue
            found.append(estimator)
        if not found:
            raise ScgValueError(
                f"no unbiased estimator of the package is valid for {name}, {node.statics['site']!r}: give candidates"
                f" ({here()})"
            )
        choices[name] = found
    if not choices:
        raise ScgValueError(
            f"the graph has no stochastic node whose distribution has parameters: there is no estimator to choose"
            f" ({here()})"
        )
    return choices


def _given(graph: Graph, candidates: object) -> dict[str, list[Estimator]]:
    if not isinstance(candidates, Mapping) or not candidates:
        raise ScgTypeError(
            "candidates must be a mapping from node to estimators, such as {'b': [scg.ARM(), scg.DisARM()]}, got"
            f" {candidates!r} ({here()})"
        )
    choices = {}
    for name, estimators in candidates.items():
        estimators = [estimators] if isinstance(estimators, Estimator) else list(estimators)
        if not estimators:
            raise ScgValueError(f"candidates: there is none for node {name!r} ({here()})")
        for estimator in estimators:
            graph.bind({name: estimator})
        choices[name] = estimators
    return choices
