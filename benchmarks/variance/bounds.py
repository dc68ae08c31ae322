"""Signal-to-noise ratio of the gradients of importance-weighted bounds against the number of samples K, on a linear
Gaussian model.

    z ~ N(mu, I),  x | z ~ N(z, I),  q(z | x) = N(A x + b, (2/3) I),  20 dimensions; A = I/2 and b = mu/2 are best, and
    are moved by N(0, .01^2)

As K grows, the gradient of the guide's b vanishes as 1/K and its noise in the importance-weighted bound as K^(-1/2)
only: the ratio falls with slope -1/2, while that of the model's mu rises with slope 1/2 (Rainforth et al., 2018). The
doubly reparameterized gradient has the same mean and its ratio rises (Tucker et al., 2019). Sticking the landing leaves
the score out, and is biased for K > 1: what its ratio measures is mostly that bias. The generalized one is the doubly
reparameterized one for the guide, and another for the model's mu (Bauer and Mnih, 2021).

The ratio is pooled over coordinates and over a few data, (sum |E g|^2 / sum Var g)^(1/2) for one gradient, the squared
mean less the share that its own noise has in it. Where the signal is small beside that, the mean is better taken from
the doubly reparameterized gradients, as it is the same (``shared``).
"""

import math
from typing import Any

import numpy as np
from scipy.optimize import curve_fit

import scg
from benchmarks.variance.estimates import Z, markdown, number
from scg import distributions as dist

SIZE, DATA, FROM = 20, 4, 16
GRADIENTS = {
    "IWAE": "pathwise",
    "sticking the landing": "sticking the landing",
    "doubly reparameterized": "doubly reparameterized",
    "generalized": "generalized doubly reparameterized",
}
LEAVES = ("mu", "b")
EXPECTED = {
    ("IWAE", "mu"): "1/2",
    ("IWAE", "b"): "-1/2",
    ("doubly reparameterized", "mu"): "1/2",
    ("doubly reparameterized", "b"): "not negative",
}


def model(seed: int = 0) -> tuple[dict[str, Any], Any, Any]:
    """(parameters near the optimum, A, data): the same for all parts."""
    rng = np.random.default_rng(seed)
    mu = rng.standard_normal(SIZE)
    data = mu + math.sqrt(2) * rng.standard_normal((DATA, SIZE))
    a = np.eye(SIZE) / 2 + 0.01 * rng.standard_normal((SIZE, SIZE))
    return {"mu": mu, "b": mu / 2 + 0.01 * rng.standard_normal(SIZE)}, a, data


def bound(params: Any, a: Any, x: Any, samples: int, gradient: str, rng: Any) -> Any:
    """The bound on log p(x) for one datum."""
    guide = dist.Independent(dist.Normal(a @ x + params["b"], math.sqrt(2 / 3)), 1)

    prior = dist.Independent(dist.Normal(params["mu"], 1.0), 1)

    def model(z: Any) -> Any:
        return prior, np.sum(dist.Normal(z, 1.0).log_prob(x), axis=-1)

    return scg.objectives.iwae(model, guide=guide, samples=samples, rng=rng, gradient=gradient)


def points(quick: bool) -> list[dict[str, Any]]:
    """A point is a K, a gradient and a datum; most replicates where they are cheap, and never fewer than 10^4."""
    ks = [4, 16, 64] if quick else [2**i for i in range(10)]
    made = []
    for k in reversed(ks):
        n = 2000 if quick else int(np.clip(5_000_000 // k, 10_000, 100_000))
        made += [{"K": k, "gradient": g, "datum": i, "replicates": n} for g in GRADIENTS for i in range(DATA)]
    return made


def measure(point: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """leaf -> the mean gradient, the sum of its variances, and the variance of the estimate of its squared length.

    With C the covariance of one gradient and n replicates, |mean|^2 - tr C / n has the mean |m|^2 and about the
    variance 4 m'Cm / n + 2 tr C^2 / n^2.
    """
    params, a, data = model()
    graph = scg.trace(bound, params, a, data[point["datum"]], point["K"], GRADIENTS[point["gradient"]], rng=rng)
    n = point["replicates"]
    found = graph.gradients(rng=rng, replicates=n)
    result = {}
    for leaf in LEAVES:
        mean, c = found[leaf].mean(axis=0), np.cov(found[leaf], rowvar=False)
        error = 4 * mean @ c @ mean / n + 2 * np.sum(c * c) / n**2
        result[leaf] = {
            "mean": mean.tolist(),
            "variance": float(np.trace(c)),
            "signal": float(mean @ mean - np.trace(c) / n),
            "error": float(error),
        }
    return result


def pooled(results: list[tuple[Any, Any]]) -> list[dict[str, Any]]:
    """A row for each gradient, leaf and K: the squared ratio, its standard error, and both with the shared signal."""
    rows = []
    of = {(p["gradient"], p["K"], p["datum"]): r for p, r in results}
    for gradient in GRADIENTS:
        for leaf in LEAVES:
            for k in sorted({p["K"] for p, _ in results}):
                own, best = ([of[g, k, i][leaf] for i in range(DATA)] for g in (gradient, "doubly reparameterized"))
                noise = sum(v["variance"] for v in own)
                row = {
                    "gradient": gradient,
                    "parameter": leaf,
                    "K": k,
                    "replicates": DATA * next(p["replicates"] for p, _ in results if p["K"] == k),
                    "variance": noise / DATA,
                }
                for name, source in (("", own), ("shared ", best)):
                    if not name or gradient == "IWAE":
                        row[f"{name}squared ratio"] = sum(v["signal"] for v in source) / noise
                        row[f"{name}error"] = math.sqrt(sum(v["error"] for v in source)) / noise
                rows.append(row)
    return rows


def slope(ks: Any, squares: Any, errors: Any) -> tuple[float, float]:
    """(s, half its 95% interval) of ratio^2 ~ K^(2s), by weighted least squares on the squares, so that one below zero
    counts as well.

    Where the points scatter about the line more than their errors say, as they do where K is not yet large, the
    interval is widened accordingly.
    """
    x = np.log(np.asarray(ks, float) / ks[0])
    y, e = np.asarray(squares), np.maximum(np.asarray(errors), 1e-3 * np.abs(squares))
    first = np.polyfit(x[y > 0], np.log(y[y > 0]), 1) if np.sum(y > 0) > 1 else [0.0, math.log(e[0])]
    (s, c), covariance = curve_fit(
        lambda x, s, c: np.exp(2 * s * x + c), x, y, [first[0] / 2, first[1]], e, absolute_sigma=True
    )
    excess = np.sum(((y - np.exp(2 * s * x + c)) / e) ** 2) / max(len(x) - 2, 1)
    return float(s), float(Z * math.sqrt(covariance[0, 0] * max(excess, 1)))


def slopes(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The slope for each gradient and leaf, from K = 16 on."""
    made = []
    for gradient in GRADIENTS:
        for leaf in LEAVES:
            for name in ("", "shared "):
                of = [r for r in rows if r["gradient"] == gradient and r["parameter"] == leaf and f"{name}error" in r]
                of = [r for r in of if r["K"] >= FROM] if sum(r["K"] >= FROM for r in of) > 2 else of
                if of:
                    s, half = slope(
                        [r["K"] for r in of], [r[f"{name}squared ratio"] for r in of], [r[f"{name}error"] for r in of]
                    )
                    made.append(
                        {
                            "gradient": gradient,
                            "parameter": leaf,
                            "signal": name.strip() or "own",
                            "slope": s,
                            "low": s - half,
                            "high": s + half,
                        }
                    )
    return made


def tables(results: list[tuple[Any, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The ratios and the slopes."""
    rows = pooled(results)
    return {"bounds": rows, "bounds-slopes": slopes(rows)}


def report(results: list[tuple[Any, Any]]) -> str:
    """Both."""
    rows = pooled(results)
    ks = sorted({r["K"] for r in rows})
    shown = [["ratio", "", *[f"K = {k}" for k in ks]]]
    for gradient in GRADIENTS:
        for leaf in LEAVES:
            of = [r for r in rows if r["gradient"] == gradient and r["parameter"] == leaf]
            for name in ("", "shared "):
                if f"{name}error" in of[0]:
                    cells = [number(math.sqrt(max(r[f"{name}squared ratio"], 0)), 3) for r in of]
                    shown.append([gradient + (", signal shared" if name else ""), leaf, *cells])
    fitted: list[list[Any]] = [["slope", "", "signal", "found", "95% interval", "expected"]]
    for r in slopes(rows):
        expected = EXPECTED.get((r["gradient"], r["parameter"]), "")
        fitted.append(
            [
                r["gradient"],
                r["parameter"],
                r["signal"],
                f"{r['slope']:.3f}",
                f"{r['low']:.3f} to {r['high']:.3f}",
                expected,
            ]
        )
    return f"{markdown(shown)}\n\n{markdown(fitted)}"


def figures(results: list[tuple[Any, Any]]) -> dict[str, Any]:
    """Ratio against K, a panel for each parameter."""
    from benchmarks.variance import plots

    rows = pooled(results)
    fitted = {(r["gradient"], r["parameter"], r["signal"]): r for r in slopes(rows)}
    figure, axes = plots.panels(1, 2, (14, 5.5))
    for each, leaf in zip(axes[0], LEAVES, strict=True):
        ends, names = [], []
        for i, gradient in enumerate(GRADIENTS):
            of = [r for r in rows if r["gradient"] == gradient and r["parameter"] == leaf]
            ks, kind = [r["K"] for r in of], "shared " if gradient == "IWAE" else ""
            square = np.array([r["squared ratio"] for r in of])
            half = Z * np.array([r["error"] for r in of])
            entries = [
                {"variance": math.sqrt(max(y, 0)), "low": math.sqrt(max(y - h, 0)), "high": math.sqrt(max(y + h, 0))}
                for y, h in zip(square, half, strict=True)
            ]
            ends.append(
                plots.line(each, ks, [math.sqrt(max(r[f"{kind}squared ratio"], 0)) for r in of], i, entries=entries)
            )
            s = fitted[gradient, leaf, kind.strip() or "own"]
            names.append(f"{gradient}: {s['slope']:+.2f}")
        each.set_xscale("log", base=2)
        each.set_yscale("log")
        each.set_xlabel("samples K", fontsize=plots.SIZE)
        note = "; the line of IWAE by the shared signal" if leaf == "b" else ""
        each.set_title(f"gradient for {leaf}; slopes from K = {FROM} on{note}", loc="left", fontsize=plots.SIZE + 1)
        plots.label(each, ends, names)
    axes[0, 0].set_ylabel("signal-to-noise ratio of one gradient", fontsize=plots.SIZE)
    return {"bounds": figure}
