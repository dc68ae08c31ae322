"""200 Bernoulli variables, cost mean((b - t)^2), against their logit theta: estimators, measured and exact, and what
following the costs of each coin is worth; and, exact without replicates, estimators of finitely many outcomes.

The cost does not mix the coins, and the engine sees it: each meets its own term only (automatic Rao-Blackwellisation).
``mixing`` is the same cost as a product of vectors, which hides it: then each coin meets the cost of all 200, as a
plain score function has it. Variances are summed over the coins; those of the hiding cost are exact by ``of_total``,
the others by ``scg.exact.moments`` of one coin.
"""

import functools
from typing import Any

import numpy as np

import scg
from benchmarks.variance.estimates import estimated, markdown, number, timeless
from scg import distributions as dist
from scg.special import sigmoid
from scg.variance.evaluations import evaluations

SIZE = 200
TARGETS = (0.499, 0.45)
TOTAL = ", all costs"
"""Marks a row whose coins meet the cost of all."""


def cost(theta: Any, t: float, rng: Any) -> Any:
    """mean((b - t)^2), coin by coin."""
    return np.mean((coins(theta, rng) - t) ** 2)


def mixing(theta: Any, t: float, rng: Any) -> Any:
    """The same number, in a way that hides which coin it comes from: as the root of its square."""
    return np.sqrt(np.mean((coins(theta, rng) - t) ** 2) ** 2)


def coins(theta: Any, rng: Any) -> Any:
    """The draw."""
    return scg.sample(dist.Bernoulli(logits=theta), scg.ScoreFunction(), rng=rng, name="b")


def control(phi: Any, z: Any) -> Any:
    """RELAX's free control variate for each coin: a constant and a line in sigmoid(z exp(rate)), in units of the coin's
    cost."""
    return (phi["slope"] * sigmoid(z * np.exp(phi["rate"])) + phi["level"]) / SIZE


def trained(theta: float, t: float, steps: int, rng: np.random.Generator) -> dict[str, Any]:
    """REBAR and RELAX after so many steps of Adam down their own variance, each on one run of all coins."""
    adam = functools.partial(scg.optim.Adam, learning_rate=0.03)
    rebar = scg.REBAR(0.5, optimizer=adam)
    relax = scg.RELAX(control, {"slope": np.zeros(()), "rate": np.zeros(()), "level": np.zeros(())}, optimizer=adam)
    for estimator in (rebar, relax):
        graph = scg.trace(cost, np.full(SIZE, theta), t, rng=rng).bind(b=estimator)
        for _ in range(steps):
            graph.gradients(rng=rng)
    return {
        "REBAR, trained": scg.REBAR(rebar.temperature, float(rebar.parameters["scale"])),
        "RELAX, trained": scg.RELAX(control, {key: value.copy() for key, value in relax.parameters["fn"].items()}),
    }


def estimators() -> dict[str, Any]:
    """The rows, with each coin's own cost; ``trained`` has two more."""
    return {
        "score function": scg.ScoreFunction(),
        "leave-one-out, 2 samples": scg.ScoreFunction(samples=2, baseline=scg.LeaveOneOut()),
        "ARM": scg.ARM(),
        "DisARM": scg.DisARM(),
        "REBAR, as it is": scg.REBAR(0.5),
    }


def of_values() -> dict[str, Any]:
    """The rows that need no replicates: of a finite number of outcomes, so that the exact variance is a sum."""
    return {
        "coupled pairs, 4 samples": scg.CoupledPairs(4),
        "coupled pairs, 4 samples in twos": scg.CoupledPairs(4, "antithetic"),
        "double control variate, 2 samples": scg.DoubleControlVariate(),
        "Stein operator, 2 samples": scg.RODEO(2, _half, np.array(0.5)),
        "MuProp": scg.MuProp(),
        "stochastic derivative": scg.StochasticDerivative(),
        "enumeration, or measure-valued": scg.Enumerate(),
    }


def _half(phi: Any, f: Any, d: Any) -> Any:
    """RODEO's surrogate: half the slope."""
    return phi * d


HIDDEN = ("score function", "leave-one-out, 2 samples", "ARM", "DisARM")
"""The rows that are measured with the cost of all coins too."""


def points(quick: bool) -> list[dict[str, Any]]:
    """A point is a target and a logit."""
    n, steps, thetas = (1000, 50, (-2.0, 0.0)) if quick else (20_000, 500, np.linspace(-4, 4, 9))
    return [{"t": t, "theta": float(theta), "replicates": n, "steps": steps} for t in TARGETS for theta in thetas]


def measure(point: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """row -> exact, variance, low, high, evaluations, seconds."""
    theta, t = np.full(SIZE, point["theta"]), point["t"]
    graph, total = (scg.trace(f, theta, t, rng=rng) for f in (cost, mixing))
    every = estimators() | trained(point["theta"], t, point["steps"], rng)
    rows = {name: graph.bind(b=estimator) for name, estimator in every.items()} | {
        name + TOTAL: total.bind(b=every[name]) for name in HIDDEN
    }
    found = {
        name: entries["the parameter"]
        for name, entries in estimated(graph, rows, point["replicates"], rng, 2**10).items()
    }
    for name, estimator in every.items():
        found[name]["exact"] = SIZE * of_one(estimator, point["theta"], t)
    for name in HIDDEN:
        found[name + TOTAL]["exact"] = SIZE * of_total(name, point["theta"], t, found[name]["exact"] / SIZE)
    for name, estimator in of_values().items():
        exact = SIZE * of_one(estimator, point["theta"], t)
        known = {"exact": exact, "variance": exact, "low": exact, "high": exact, "reliable": True}
        found[name] = known | {"evaluations": evaluations(graph.bind(b=estimator)), "seconds": None}
    return found


def of_one(estimator: Any, theta: float, t: float) -> float:
    """The exact variance for one coin with its own cost, (b - t)^2 / 200."""
    graph = scg.trace(lambda l, rng: (coins(l, rng) - t) ** 2 / SIZE, np.array(theta), rng=np.random.default_rng(0))
    return float(scg.exact.moments(graph.bind(b=estimator)).variance)


def of_total(name: str, theta: float, t: float, own: float, size: int = SIZE) -> float:
    """The exact variance for one coin with the cost of all: ``own``, with its own cost c, and what the sum S of the
    others adds.

    S has mean M and variance V, the score s = b - p has E[s^2] = p (1 - p), and the others differ from their partners
    by D with E[D^2] = 2 min(p, 1 - p) (1 - 2t)^2 / size^2 each:

        score function    2 M E[c s^2] + (V + M^2) E[s^2]
        leave-one-out     V E[s^2]
        ARM               E[D^2] / 12 for each other coin
        DisARM            E[D^2] min(p, 1 - p) max(p, 1 - p)^2 / 2 for each other coin
    """
    p = float(sigmoid(theta))
    q, least, others = p * (1 - p), min(p, 1 - p), size - 1
    c0, c1 = t**2 / size, (1 - t) ** 2 / size
    m, v = others * (p * c1 + (1 - p) * c0), others * q * (c1 - c0) ** 2
    apart = others * 2 * least * ((1 - 2 * t) / size) ** 2
    return (
        own
        + {
            "score function": 2 * m * (p * c1 * (1 - p) ** 2 + (1 - p) * c0 * p**2) + (v + m * m) * q,
            "leave-one-out, 2 samples": v * q,
            "ARM": apart / 12,
            "DisARM": apart * least * (1 - least) ** 2 / 2,
        }[name]
    )


def tables(results: list[tuple[Any, Any]]) -> dict[str, list[dict[str, Any]]]:
    """One CSV."""
    return {
        "coins": [
            {**point, "estimator": estimator, **timeless(v)}
            for point, result in results
            for estimator, v in result.items()
        ]
    }


def report(results: list[tuple[Any, Any]]) -> str:
    """The rows at a few logits, and how many intervals hold the exact value."""
    texts = []
    for t in TARGETS:
        of_t = [(p["theta"], r) for p, r in results if p["t"] == t]
        shown = [pair for pair in of_t if pair[0] in (-4, -2, 0, 2, 4)]
        rows: list[list[Any]] = [[f"t = {t}", *[f"theta = {theta:g}" for theta, _ in shown], "evaluations"]]
        rows += [
            [estimator, *[number(r[estimator]["exact"], 3) for _, r in shown], number(v["evaluations"], 2)]
            for estimator, v in shown[0][1].items()
        ]
        texts.append(markdown(rows))
    every = [v for _, r in results for v in r.values() if v["seconds"] is not None]
    inside = sum(
        v["low"] <= v["exact"] * (1 + 1e-9) and v["exact"] * (1 - 1e-9) <= (v["high"] or np.inf) for v in every
    )
    return "\n\n".join([*texts, f"{inside} of {len(every)} 95% intervals hold the exact variance"])


def figures(results: list[tuple[Any, Any]]) -> dict[str, Any]:
    """Variance against theta, a panel for each target; broken lines are those with the cost of all."""
    from benchmarks.variance import plots

    figure, axes = plots.panels(1, len(TARGETS), (15, 7))
    for each, t in zip(axes[0], TARGETS, strict=True):
        of_t = sorted([(p["theta"], r) for p, r in results if p["t"] == t], key=lambda pair: pair[0])
        names = [name for name, v in of_t[0][1].items() if v["seconds"] is not None]
        ends = []
        for name in names:
            i = names.index(name.removesuffix(TOTAL))
            v = [r[name] for _, r in of_t]
            look = (
                {"linestyle": (0, (2, 2)), "linewidth": 1}
                if name.endswith(TOTAL)
                else {"linestyle": (0, (6, 2)) if name == "REBAR, trained" else "-"}
            )
            ends.append(plots.line(each, [theta for theta, _ in of_t], [x["exact"] for x in v], i, entries=v, **look))
        each.set_yscale("log")
        each.set_xlabel(
            "theta, the logit of each coin; DisARM with a coin's own cost has no variance at 0", fontsize=plots.SIZE
        )
        each.set_title(
            f"mean((b - {t})^2) over {SIZE} coins; dotted: each coin meets all costs",
            loc="left",
            fontsize=plots.SIZE + 1,
        )
        plots.label(each, ends, names)
    axes[0, 0].set_ylabel("variance of one estimate, summed over the coins", fontsize=plots.SIZE)
    return {"coins": figure}
