"""Orders and subsets: estimators for the logits of what comes first and of what is taken, on costs of few things whose
exact variances are sums over all orders, or all subsets, where an estimator draws no noise of its own.

"places" is the square of running sums of what five things are worth, the later the less, over an order of them
(OneHotPlackettLuce); "first two" the same of the first two; "basket" the square of what two of five things are worth
together (SubsetOfSize), less a target.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

import scg
from benchmarks.variance.estimates import estimated, markdown, number, timeless
from scg import distributions as dist
from scg.errors import ScgError

LOGITS = np.array([0.3, -0.7, 0.5, 0.1, -0.2])
WORTH = np.array([1.0, -0.4, 0.3, 2.0, 0.7])
BUDGET = 2**14  # values that an exact variance lists: all pairs of orders, and no noise of an estimator
FADING = np.array([1.0, 0.6, 0.3, 0.2, 0.1])
COSTS = ("places", "first two", "basket")
ESTIMATORS: dict[str, Callable[[], Any]] = {
    "score function": scg.ScoreFunction,
    "leave-one-out, 2": lambda: scg.ScoreFunction(scg.LeaveOneOut(), samples=2),
    "leave-one-out, 4": lambda: scg.ScoreFunction(scg.LeaveOneOut(), samples=4),
    "unordered set of 2": lambda: scg.UnorderedSet(2),
    "coupled pairs, 2": lambda: scg.CoupledPairs(2),
    "REBAR, temperature 1": lambda: scg.REBAR(temperature=1.0),
    "REBAR, temperature 0.3": lambda: scg.REBAR(temperature=0.3),
    "RELAX, temperature 1": lambda: scg.RELAX(lambda phi, z: np.sum(phi * np.tanh(z), axis=-1), WORTH, 1.0),
    "MuProp": scg.MuProp,
    "straight-through (SIMPLE), biased": scg.StraightThrough,
    "enumerate": scg.Enumerate,
}


def points(quick: bool) -> list[dict[str, Any]]:
    """A point is a cost."""
    return [{"cost": cost, "replicates": 400 if quick else 100_000} for cost in COSTS]


def program(l: Any, cost: str, rng: Any) -> Any:
    """The cost of one sample."""
    if cost == "basket":
        z = scg.sample(dist.SubsetOfSize(l, 2), scg.ScoreFunction(), rng=rng, name="z")
        return (np.sum(z * WORTH, axis=-1) - 1.2) ** 2
    size = None if cost == "places" else 2
    p = scg.sample(dist.OneHotPlackettLuce(l, size), scg.ScoreFunction(), rng=rng, name="z")
    v = p @ WORTH
    return np.sum(np.square(np.cumsum(v * FADING[: v.shape[-1]], axis=-1)), axis=-1)


def measure(point: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """estimator -> exact, variance, low, high, evaluations, of the sum over all logits; those that take the draws."""
    graph = scg.trace(program, LOGITS, point["cost"], rng=rng)
    found = {}
    for name, make in ESTIMATORS.items():
        try:
            graph.bind(z=make())
        except ScgError:  # not for these draws
            continue
        found |= estimated(graph, {name: {"z": make()}}, point["replicates"], rng, budget=BUDGET)
    return {name: entries["the parameter"] for name, entries in found.items()}


def tables(results: list[tuple[Any, Any]]) -> dict[str, list[dict[str, Any]]]:
    """One CSV."""
    return {"orders": [{**p, "estimator": row, **timeless(v)} for p, r in results for row, v in r.items()]}


def report(results: list[tuple[Any, Any]]) -> str:
    """Variances, estimators down and costs across; exact ones where they are known."""
    rows: list[list[Any]] = [["variance", *[p["cost"] for p, _ in results]]]
    for name in ESTIMATORS:
        cells = []
        for _, r in results:
            entry = r.get(name, {"exact": None, "variance": None})
            sampled = "" if entry["variance"] is None else f"{number(entry['variance'])} ~"
            cells.append(sampled if entry["exact"] is None else number(entry["exact"]))
        rows.append([name, *cells])
    return f"{markdown(rows)}\n\n~ marks those of replicates, the others are exact"


def figures(results: list[tuple[Any, Any]]) -> dict[str, Any]:
    """Bars of variance over that of the score function, a panel for each cost."""
    from benchmarks.variance import plots

    figure, axes = plots.panels(1, len(results), (16, 5.0))
    for each, (point, found) in zip(axes[0], results, strict=True):
        base = found["score function"]["variance"]
        names = [n for n in ESTIMATORS if n in found]
        each.barh(range(len(names)), [found[n]["variance"] / base for n in names], color="0.6")
        each.set_yticks(range(len(names)), names, fontsize=plots.SIZE - 2)
        each.invert_yaxis()
        each.set_title(point["cost"], loc="left", fontsize=plots.SIZE + 1)
    return {"orders": figure}
