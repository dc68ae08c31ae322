"""Which estimator is best depends on the cost: (x - k)^2, exp(-k x^2) and cos(k x), x ~ N(mu, sigma^2) at mu = sigma =
1, against k.

After Mohamed et al. (2020, JMLR 21:132, figures 2 and 3), for mu and for sigma. Lines are exact, by quadrature of the
formulas below; points are replicates of what the library does.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

import scg
from benchmarks.variance.estimates import estimated, markdown, number, timeless
from scg import distributions as dist

COSTS = {
    "(x - k)^2": (lambda x, k: (x - k) ** 2, np.linspace(-3, 3, 13)),
    "exp(-k x^2)": (lambda x, k: np.exp(-k * x * x), np.geomspace(0.1, 10, 13)),
    "cos(k x)": (lambda x, k: np.cos(k * x), np.geomspace(0.1, 10, 13)),
}
ESTIMATORS = {
    "score function": scg.ScoreFunction(),
    "score function, 2 samples, leave-one-out": scg.ScoreFunction(samples=2, baseline=scg.LeaveOneOut()),
    "pathwise": scg.Reparameterized(),
    "measure-valued, coupled": scg.MeasureValued(),
}
NAMES = dict(zip(ESTIMATORS, ("score function", "leave-one-out, 2", "pathwise", "measure-valued"), strict=True))
EVALUATIONS = {
    "score function": 1,
    "score function, 2 samples, leave-one-out": 2,
    "pathwise": 1,
    "measure-valued, coupled": 2,
}
"""Of the cost, for the gradient with respect to one of the two parameters."""


def points(quick: bool) -> list[dict[str, Any]]:
    """A point is a cost and a k."""
    n = 10_000 if quick else 200_000
    return [
        {"cost": name, "k": float(k), "replicates": n}
        for name, (_, ks) in COSTS.items()
        for k in (ks[::6] if quick else ks)
    ]


def measure(point: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """estimator -> parameter -> exact, variance, low, high."""
    f, k = COSTS[point["cost"]][0], point["k"]

    def cost(t: Any, rng: Any) -> Any:
        return f(scg.sample(dist.Normal(t["mu"], t["sigma"]), scg.ScoreFunction(), rng=rng, name="x"), k)

    graph = scg.trace(cost, {"mu": np.array(1.0), "sigma": np.array(1.0)}, rng=rng)
    truth = {leaf: exact(point["cost"], k, leaf) for leaf in ("mu", "sigma")}
    found = estimated(
        graph, {name: {"x": estimator} for name, estimator in ESTIMATORS.items()}, point["replicates"], rng
    )
    for name, of_estimator in found.items():
        for leaf, (mean, variances) in truth.items():
            of_estimator[leaf] |= {"mean": mean, "exact": variances[name], "by scg.exact": of_estimator[leaf]["exact"]}
    return found


def exact(cost: str, k: float, leaf: str) -> tuple[float, dict[str, float]]:
    """(the gradient, estimator -> variance of its estimate) for mu or sigma, at mu = sigma = 1.

    With e standard normal, f = f(1 + e) and s the score, e for mu and e^2 - 1 for sigma:

        score function        E[f^2 s^2] - g^2
        leave-one-out, 2      E[f^2 s^2]/2 + E[f^2] E[s^2]/2 - E[f s^2] E[f]
        pathwise              E[(f' dx)^2] - g^2, dx = 1 for mu and e for sigma
        measure-valued        mu:    E[(f(1 + w) - f(1 - w))^2] / (2 pi) - g^2, w Rayleigh
                              sigma: E[(f(1 + m) - f(1 + u m))^2] - g^2, m two-sided Maxwell and u uniform, so that u m
                              is normal
    """
    f = COSTS[cost][0]
    e, p = _gauss(-13, 13, lambda x: np.exp(-x * x / 2) / math.sqrt(2 * math.pi))
    value = f(1 + e, k)
    score, step = (e, 1.0) if leaf == "mu" else (e * e - 1, e)
    slope = np.imag(f(1 + e + 1e-30j, k)) / 1e-30 * step
    g = p @ (value * score)
    squares = p @ (value * score) ** 2
    if leaf == "mu":
        w, q = _gauss(0, 13, lambda x: x * np.exp(-x * x / 2))
        measure = q @ (f(1 + w, k) - f(1 - w, k)) ** 2 / (2 * math.pi)
    else:
        m, q = _gauss(-13, 13, lambda x: x * x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi))
        u, flat = _gauss(0, 1, np.ones_like)
        measure = q @ (f(1 + m, k)[:, None] - f(1 + m[:, None] * u, k)) ** 2 @ flat
    loo = squares / 2 + (p @ value**2) * (p @ score**2) / 2 - (p @ (value * score**2)) * (p @ value)
    variances = [squares - g * g, loo, p @ slope**2 - g * g, measure - g * g]
    return float(g), {name: float(v) for name, v in zip(ESTIMATORS, variances, strict=True)}


def _gauss(low: float, high: float, density: Callable[[Any], Any], n: int = 600) -> tuple[Any, Any]:
    """Points and weights of a Gauss-Legendre rule with a density."""
    x, weight = np.polynomial.legendre.leggauss(n)
    x = (low + high) / 2 + (high - low) / 2 * x
    return x, (high - low) / 2 * weight * density(x)


def tables(results: list[tuple[Any, Any]]) -> dict[str, list[dict[str, Any]]]:
    """One CSV."""
    return {
        "costs": [
            {**p, "estimator": estimator, "parameter": leaf, **timeless(v)}
            for p, r in results
            for estimator, of_estimator in r.items()
            for leaf, v in of_estimator.items()
        ]
    }


def report(results: list[tuple[Any, Any]]) -> str:
    """The best estimator at the ends and in the middle of k, by variance for equal evaluations; and how many intervals
    hold the exact value."""
    rows: list[list[Any]] = [
        ["cost", "k", "best for mu", "variance x evaluations", "best for sigma", "variance x evaluations"]
    ]
    for name in COSTS:
        of_cost = sorted([(p["k"], r) for p, r in results if p["cost"] == name], key=lambda pair: pair[0])
        for k, r in (of_cost[0], of_cost[len(of_cost) // 2], of_cost[-1]):
            row: list[Any] = [name, number(k, 3)]
            for leaf in ("mu", "sigma"):
                work = {estimator: r[estimator][leaf]["exact"] * EVALUATIONS[estimator] for estimator in ESTIMATORS}
                best = min(work, key=work.__getitem__)
                row += [best, number(work[best], 3)]
            rows.append(row)
    every = [v for _, r in results for of_estimator in r.values() for v in of_estimator.values()]
    inside = sum(v["low"] <= v["exact"] <= (v["high"] or np.inf) for v in every)
    return f"{markdown(rows)}\n\n{inside} of {len(every)} 95% intervals hold the exact variance"


def figures(results: list[tuple[Any, Any]]) -> dict[str, Any]:
    """Variance against k: costs across, parameters down."""
    from benchmarks.variance import plots

    figure, axes = plots.panels(2, 3, (15, 7.5))
    for column, name in enumerate(COSTS):
        of_cost = sorted([(p["k"], r) for p, r in results if p["cost"] == name], key=lambda pair: pair[0])
        ks = [k for k, _ in of_cost]
        n = 121 if len(ks) > 3 else 31  # exact variances are most of the time of a quick run
        fine = np.linspace(ks[0], ks[-1], n) if name == "(x - k)^2" else np.geomspace(ks[0], ks[-1], n)
        for row, leaf in enumerate(("mu", "sigma")):
            each = axes[row, column]
            ends, truth = [], [exact(name, k, leaf)[1] for k in fine]
            for i, estimator in enumerate(ESTIMATORS):
                v = [r[estimator][leaf] for _, r in of_cost]
                ends.append(plots.line(each, fine, [x[estimator] for x in truth], i, at=ks, entries=v))
            each.set_yscale("log")
            if name != "(x - k)^2":
                each.set_xscale("log")
            each.set_xlabel("k", fontsize=plots.SIZE)
            each.set_title(f"{name}, gradient for {leaf}", loc="left", fontsize=plots.SIZE + 1)
            if not column:
                each.set_ylabel("variance of one estimate", fontsize=plots.SIZE)
            if name == "(x - k)^2" and leaf == "mu":
                each.set_ylim(bottom=0.05)
                each.text(
                    0.02,
                    0.05,
                    "measure-valued: 0 at k = mu",
                    color=plots.INK[3],
                    fontsize=plots.SIZE,
                    transform=each.transAxes,
                )
            plots.label(each, ends, [NAMES[estimator] for estimator in ESTIMATORS])
    return {"costs": figure}
