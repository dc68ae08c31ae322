"""All unbiased estimators on ten problems of the literature, from one coin to a chain of categories: variance times
evaluations of the cost, exact where it can be computed, and the best of each problem.

A problem's draws all have the same estimator. A row's variance is the sum over all coordinates of the gradient. Where
the exact variance is out of reach it is that of replicates, with its interval; an estimator that does not take a
problem's draws has no entry. ``Marginalize`` has none: where it can sum a problem's draws out there is nothing left to
vary.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

import scg
from benchmarks.variance.estimates import entry, markdown, number, timeless
from scg.core.tree import leaves
from scg.errors import ScgError
from scg.stochastic.estimator import Estimator
from scg.variance.evaluations import evaluations

PROBLEMS = (
    "coin",
    "coins apart",
    "coins together",
    "coins, likely ones",
    "knapsack",
    "binary chain",
    "bandit",
    "categorical chain",
    "poisson",
    "gaussian, cosine",
)
ESTIMATORS: dict[str, Callable[[], Estimator]] = {
    "score function": scg.ScoreFunction,
    "leave-one-out, 2": lambda: scg.ScoreFunction(scg.LeaveOneOut(), samples=2),
    "pathwise": scg.Reparameterized,
    "ARM": scg.ARM,
    "DisARM": scg.DisARM,
    "coupled pairs, 3": lambda: scg.CoupledPairs(3),
    "coupled pairs, 4 in twos": lambda: scg.CoupledPairs(4, "antithetic"),
    "double control variate": scg.DoubleControlVariate,
    "Stein operator": lambda: scg.RODEO(2, _flat, np.array(0.5)),
    "stochastic derivative": scg.StochasticDerivative,
    "stochastic derivative, pruned": lambda: scg.StochasticDerivative(prune=True),
    "stochastic derivative, one of all": lambda: scg.StochasticDerivative(prune="program"),
    "MuProp": scg.MuProp,
    "REBAR": scg.REBAR,
    "RELAX": lambda: scg.RELAX(lambda phi, z: phi * np.tanh(z), np.array(0.1)),
    "enumerate": scg.Enumerate,
    "unordered set of 2": lambda: scg.UnorderedSet(2),
    "measure-valued": scg.MeasureValued,
}
BUDGET, PATIENCE = 2**17, 10.0
_BEST = 1 + 1e-9


def _flat(phi: Any, f: Any, d: Any) -> Any:
    """A tangent of half its slope: with all of it the estimate is that of the double control variate."""
    return phi * d


def points(quick: bool) -> list[dict[str, Any]]:
    """A point is a problem."""
    n = 2000 if quick else 50_000
    return [{"problem": name, "replicates": n} for name in (("coin", "bandit", "poisson") if quick else PROBLEMS)]


def measure(point: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """estimator -> variance, low, high, exact (None where out of reach), evaluations, work."""
    (problem,) = [p for p in scg.testing.problems() if p.name == point["problem"]]
    found = {}
    for name, make in ESTIMATORS.items():
        try:
            graph = problem.graph(make)
            taken = evaluations(graph)
        except ScgError:  # not for these draws
            continue
        exact = of(graph)
        if exact is None:
            total = scg.variance.compare(graph, {name: {}}, replicates=point["replicates"], rng=rng, budget=0)[
                name
            ].total
            found[name] = entry(total) | {"evaluations": taken}
        else:
            found[name] = {"variance": exact, "low": exact, "high": exact, "reliable": True, "exact": exact}
        found[name] |= {"evaluations": taken, "work": found[name]["variance"] * taken}
    return found


def of(graph: Any) -> float | None:
    """The exact variance, summed over coordinates; None where it is out of reach."""
    try:
        moments = scg.exact.moments(graph, budget=BUDGET, time_limit=PATIENCE)
    except ScgError:
        return None
    variance = float(sum([np.sum(leaf) for _, leaf in leaves(moments.variance)]))
    scale = float(sum([np.sum(np.square(leaf)) for _, leaf in leaves(moments.mean)]))
    return variance if variance > 1e-12 * scale else 0.0


def best(result: dict[str, Any]) -> list[str]:
    """The estimators of least work; among those without variance the ones of fewest evaluations."""
    least = min(v["work"] for v in result.values())
    those = [name for name, v in result.items() if v["work"] <= least * _BEST]
    fewest = min(result[name]["evaluations"] for name in those)
    return [name for name in those if result[name]["evaluations"] == fewest]


def tables(results: list[tuple[Any, Any]]) -> dict[str, list[dict[str, Any]]]:
    """One CSV."""
    return {
        "problems": [
            {**point, "estimator": name, "best": name in best(result), **timeless(v)}
            for point, result in results
            for name, v in result.items()
        ]
    }


def report(results: list[tuple[Any, Any]]) -> str:
    """Variance times evaluations: estimators down, problems across, and the best of each problem in bold; how many are
    exact."""
    rows: list[list[Any]] = [["variance x evaluations", *[point["problem"] for point, _ in results]]]
    for name in ESTIMATORS:
        cells = []
        for _, result in results:
            text = "" if name not in result else number(result[name]["work"], 3)
            if text and result[name]["exact"] is None:
                text += " ~"
            cells.append(f"**{text}**" if name in best(result) else text)
        rows.append([name, *cells])
    every = [v for _, result in results for v in result.values()]
    exact = sum(v["exact"] is not None for v in every)
    return f"{markdown(rows)}\n\n{exact} of {len(every)} are exact; ~ marks those of replicates"


def figures(results: list[tuple[Any, Any]]) -> dict[str, Any]:
    """Variance times evaluations over that of the score function: a row for each problem, a mark for each estimator,
    and the names of the best."""
    from benchmarks.variance import plots

    figure, ((each,),) = plots.panels(1, 1, (10, 0.5 * len(results) + 1.2))
    for i, (_, result) in enumerate(results):
        base, those = result["score function"]["work"], best(result)
        ratios = {name: v["work"] / base for name, v in result.items() if v["work"] > 0}
        each.plot(list(ratios.values()), [-i] * len(ratios), "|", color="0.45", markersize=9)
        if those[0] in ratios:
            each.plot(ratios[those[0]], -i, "o", color=plots.INK[1], markersize=6)
        at, text = ratios.get(those[0]), ", ".join(those)
        each.annotate(
            text if at else f"no variance: {text}",
            (at or 0.01, -i),
            xycoords="data" if at else ("axes fraction", "data"),
            xytext=(0, 5),
            textcoords="offset points",
            fontsize=plots.SIZE - 1,
            color=plots.INK[1],
            ha="center" if at else "left",
        )
    each.set_xscale("log")
    each.set_ylim(0.7 - len(results), 0.8)
    each.set_yticks([-i for i in range(len(results))], [point["problem"] for point, _ in results], fontsize=plots.SIZE)
    each.set_xlabel(
        "variance x evaluations, over that of the score function; named: the best of each row", fontsize=plots.SIZE
    )
    return {"problems": figure}
