"""A walk of coins, z_1 ~ Bernoulli(t) and z_{i+1} ~ Bernoulli(.2 + .6 z_i) at t = 1/2, against its length: what follows
the first coin made again from the same randomness where an estimator looks at its other value, or anew.

Two costs: the sum of the coins, which rises with all of them, and the number of changes sum (z_i - z_{i+1})^2 plus z_1,
in which the two values of z_1 meet the second coin the other way around. All variances are exact (``scg.exact``).
"""

from collections.abc import Callable
from typing import Any

import numpy as np

import scg
from benchmarks.variance.estimates import estimated, markdown, number, timeless
from scg import distributions as dist

STAY = 0.6
COSTS: dict[str, Callable[[list[Any]], Any]] = {
    "sum": lambda z: sum(z[1:], z[0]),
    "changes": lambda z: z[0] + sum([(a - b) ** 2 for a, b in zip(z[:-1], z[1:], strict=True)]),
}
ESTIMATORS: dict[str, Callable[..., Any]] = {
    "Enumerate": scg.Enumerate,
    "leave-one-out, 2 samples": lambda **how: scg.ScoreFunction(scg.LeaveOneOut(), samples=2, **how),
}
HOW = {"coupled": True, "anew": False}


def points(quick: bool) -> list[dict[str, Any]]:
    """A point is a cost and a length."""
    lengths, n = ((2, 20), 1000) if quick else ((2, 3, 5, 10, 20, 40, 80), 20_000)
    return [{"cost": cost, "n": length, "replicates": n} for cost in COSTS for length in lengths]


def walk(t: Any, cost: str, n: int, rng: Any) -> Any:
    """The program; the first coin alone moves with t."""
    z = [scg.sample(dist.Bernoulli(probs=t), scg.Enumerate(), rng=rng, name="first")]
    for _ in range(n - 1):
        z.append(scg.sample(dist.Bernoulli(probs=0.2 + STAY * z[-1]), scg.ScoreFunction(), rng=rng))
    return COSTS[cost](z)


def closed(n: int) -> float:
    """The variance of ``Enumerate``, coupled, for the sum: that of the number of coins in which the two walks differ, k
    of them or more with probability .6^(k-1), k up to n."""
    k = np.arange(n)
    first, second = STAY**k, (2 * k + 1) * STAY**k
    return float(np.sum(second) - np.sum(first) ** 2)


def measure(point: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """row -> exact, variance, low, high, evaluations."""
    graph = scg.trace(walk, np.array(0.5), point["cost"], point["n"], rng=rng)
    rows = {
        f"{name}, {how}": {"first": made(coupled=coupled)}
        for name, made in ESTIMATORS.items()
        for how, coupled in HOW.items()
    }
    found = estimated(graph, rows, point["replicates"], rng)
    return {name: entries["the parameter"] for name, entries in found.items()}


def tables(results: list[tuple[Any, Any]]) -> dict[str, list[dict[str, Any]]]:
    """One CSV."""
    return {"walks": [{**p, "estimator": row, **timeless(v)} for p, r in results for row, v in r.items()]}


def of_cost(results: list[tuple[Any, Any]], cost: str) -> list[tuple[int, Any]]:
    """(length, result) by growing length."""
    return sorted([(p["n"], r) for p, r in results if p["cost"] == cost], key=lambda pair: pair[0])


def report(results: list[tuple[Any, Any]]) -> str:
    """Exact variances by length."""
    lengths = sorted({p["n"] for p, _ in results})
    rows: list[list[Any]] = [["cost", "estimator", *[f"n = {n}" for n in lengths]]]
    for cost in COSTS:
        found = of_cost(results, cost)
        rows += [[cost, row, *[number(r[row]["exact"]) for _, r in found]] for row in found[0][1]]
    every = [v for _, r in results for v in r.values()]
    inside = sum(v["low"] <= v["exact"] <= (v["high"] or np.inf) for v in every)
    return f"{markdown(rows)}\n\n{inside} of {len(every)} 95% intervals hold the exact variance"


def figures(results: list[tuple[Any, Any]]) -> dict[str, Any]:
    """Variance against length, a panel for each cost."""
    from benchmarks.variance import plots

    figure, axes = plots.panels(1, 2, (14, 5.5))
    for each, cost in zip(axes[0], COSTS, strict=True):
        found = of_cost(results, cost)
        names, ends = list(found[0][1]), []
        for i, row in enumerate(names):
            exact = [r[row]["exact"] for _, r in found]
            ends.append(plots.line(each, [n for n, _ in found], exact, i, entries=[r[row] for _, r in found]))
        each.set_xscale("log")
        each.set_yscale("log")
        each.set_xlabel("coins", fontsize=plots.SIZE)
        each.set_title(f"cost: {cost}", loc="left", fontsize=plots.SIZE + 1)
        plots.label(each, ends, names)
    axes[0, 0].set_ylabel("variance of one estimate", fontsize=plots.SIZE)
    return {"walks": figure}
