"""Two tables in closed form: (x - k)^2 under a Gaussian (Mohamed et al., 2020, JMLR 21:132), and one coin, (b - t)^2,
by its logit.

Three ways to the same number: the closed form, ``scg.exact.moments`` (Gauss rules and enumeration), and replicates.
"""

import math
from typing import Any

import numpy as np

import scg
from benchmarks.variance.estimates import estimated, interval, markdown, timeless
from scg import distributions as dist


def gaussian(mu: float, sigma: float, k: float) -> dict[str, tuple[Any, tuple[float, float]]]:
    """row -> (estimator, closed variances for mu and sigma)."""
    d, s = mu - k, sigma
    return {
        "score function": (
            scg.ScoreFunction(),
            (d**4 / s**2 + 14 * d**2 + 15 * s**2, 2 * d**4 / s**2 + 60 * d**2 + 74 * s**2),
        ),
        "best baseline for mu": (
            scg.ScoreFunction(baseline=scg.Constant(d**2 + 3 * s**2)),
            (8 * d**2 + 6 * s**2, 40 * d**2 + 32 * s**2),
        ),
        "best baseline for sigma": (
            scg.ScoreFunction(baseline=scg.Constant(d**2 + 5 * s**2)),
            (8 * d**2 + 10 * s**2, 40 * d**2 + 24 * s**2),
        ),
        "pathwise": (scg.Reparameterized(), (4 * s**2, 4 * d**2 + 8 * s**2)),
        "measure-valued, coupled": (scg.MeasureValued(), (d**2 * (16 / math.pi - 4), 4 * d**2 + 4 * s**2)),
    }


def coin(p: float, t: float) -> dict[str, tuple[Any, float]]:
    """row -> (estimator, closed variance for the logit)."""
    D, q, m = 1 - 2 * t, p * (1 - p), min(p, 1 - p)
    return {
        "score function": (scg.ScoreFunction(), q * ((1 - t) ** 2 * (1 - p) + t**2 * p) ** 2),
        "leave-one-out, 2 samples": (scg.ScoreFunction(samples=2, baseline=scg.LeaveOneOut()), D**2 * q * (0.5 - q)),
        "ARM": (scg.ARM(), (2 / 3 * (1 / 8 - (0.5 - m) ** 3) - q * q) * D**2),
        "DisARM": (scg.DisARM(), D**2 * q * (max(p, 1 - p) / 2 - q)),
    }


def points(quick: bool) -> list[dict[str, Any]]:
    """A point is a row of a table."""
    n = 20_000 if quick else 2_000_000
    made: list[dict[str, Any]] = []
    for mu, sigma, k in ((1.0, 1.0, -3.0), (0.5, 0.7, 1.5)):
        made += [
            {"table": "gaussian", "row": row, "mu": mu, "sigma": sigma, "k": k, "replicates": n}
            for row in gaussian(mu, sigma, k)
        ]
    for p, t in ((0.5, 0.499), (0.3, 0.45)):
        made += [{"table": "coin", "row": row, "p": p, "t": t, "replicates": n} for row in coin(p, t)]
    return made


def measure(point: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """By parameter: closed, exact, variance, low, high."""
    if point["table"] == "gaussian":
        estimator, closed = gaussian(point["mu"], point["sigma"], point["k"])[point["row"]]
        parameters = {"mu": np.array(point["mu"]), "sigma": np.array(point["sigma"])}

        def cost(t: Any, rng: Any) -> Any:
            return (scg.sample(dist.Normal(t["mu"], t["sigma"]), estimator, rng=rng) - point["k"]) ** 2

        expected = dict(zip(("mu", "sigma"), closed, strict=True))
    else:
        estimator, variance = coin(point["p"], point["t"])[point["row"]]
        parameters = {"logit": np.array(math.log(point["p"] / (1 - point["p"])))}

        def cost(t: Any, rng: Any) -> Any:
            return (scg.sample(dist.Bernoulli(logits=t["logit"]), estimator, rng=rng) - point["t"]) ** 2

        expected = {"logit": variance}
    graph = scg.trace(cost, parameters, rng=rng)
    found = estimated(graph, {"": {}}, point["replicates"], rng)[""]
    return {name: {"closed": expected[name], **entry} for (name, entry) in zip(parameters, found.values(), strict=True)}


def tables(results: list[tuple[Any, Any]]) -> dict[str, list[dict[str, Any]]]:
    """One CSV."""
    return {
        "gaussian": [
            {**point, "parameter": name, **timeless(values)}
            for point, result in results
            for name, values in result.items()
        ]
    }


def report(results: list[tuple[Any, Any]]) -> str:
    """Both tables."""
    rows: list[list[Any]] = [["", "at", "parameter", "closed form", "exact", "estimated", "95% interval"]]
    for point, result in results:
        for name, v in result.items():
            rows.append([point["row"], _at(point), name, v["closed"], v["exact"], v["variance"], interval(v)])
    return markdown(rows)


def figures(results: list[tuple[Any, Any]]) -> dict[str, Any]:
    """Estimated against exact, with intervals."""
    from benchmarks.variance.plots import against

    found = [(f"{point['row']}, {name} ({_at(point)})", v) for point, result in results for name, v in result.items()]
    return {"gaussian": against(found, "(x - k)^2 under N(mu, sigma^2), and (b - t)^2 of one coin")}


def _at(point: dict[str, Any]) -> str:
    return ", ".join(f"{key} = {point[key]:g}" for key in ("mu", "sigma", "k", "p", "t") if key in point)
