"""How cost grows: processor time against the number of samples of a walk, of replicates, of parameters, of samples k of
an importance bound, and the width of its layers; with slopes on a logarithmic scale.

The slope is that of a line through the larger half of the points: 1 is linear. ``--quick`` leaves out the largest.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import scg
from benchmarks import walk
from benchmarks.steps import PEERS, Model
from benchmarks.timing import RESULTS, save, table, versions
from benchmarks.walk import seconds
from scg import distributions as dist

Run = Callable[[], Any]


def of_samples(n: int) -> Run:
    """A gradient of a walk, by the score function."""
    return walk.gradient(n, "score function")


def of_replicates(n: int) -> Run:
    """Replicates of the gradient of 20 coins, leave-one-out with two samples."""

    def cost(theta: Any, rng: Any) -> Any:
        estimator = scg.ScoreFunction(samples=2, baseline=scg.LeaveOneOut())
        return np.mean((scg.sample(dist.Bernoulli(logits=theta), estimator, rng=rng) - 0.499) ** 2)

    rng = np.random.default_rng(0)
    graph = scg.trace(cost, np.zeros(20), rng=rng)
    return lambda: graph.gradients(rng=rng, replicates=n)


def of_parameters(n: int) -> Run:
    """A gradient through pathwise samples, one a parameter."""

    def cost(theta: Any, rng: Any) -> Any:
        return np.mean(np.tanh(scg.sample(dist.Normal(theta, 1.0), scg.Reparameterized(), rng=rng)))

    gradient, theta, rng = scg.grad(cost), np.zeros(n), np.random.default_rng(0)
    return lambda: gradient(theta, rng=rng)


def of_k(k: int) -> Run:
    """A training step of the importance bound, 784-200-200-50, batch 20."""
    return PEERS["scg"](Model((200, 200), 50, 20, k))


def of_width(width: int) -> Run:
    """The same with k = 5 and two layers of this width."""
    return PEERS["scg"](Model((width, width), 50, 20, 5))


SUBJECTS: dict[str, tuple[Callable[[int], Run], list[int]]] = {
    "samples of a walk": (of_samples, [10, 100, 1000, 10_000, 100_000]),
    "replicates": (of_replicates, [10, 100, 1000, 10_000, 100_000, 1_000_000]),
    "parameters": (of_parameters, [10, 100, 1000, 10_000, 100_000, 1_000_000, 10_000_000]),
    "samples k of a bound": (of_k, [1, 5, 20, 50, 150, 500]),
    "width of layers": (of_width, [50, 100, 200, 400, 800, 1600]),
}


def slope(points: dict[int, float]) -> float:
    """Of log time against log size, by least squares over the larger half of the points."""
    n, t = (np.log(np.array(list(x))) for x in (points, points.values()))
    half = len(n) // 2
    return float(np.polyfit(n[half:], t[half:], 1)[0])


def measured(quick: bool) -> dict[str, dict[int, float]]:
    """Processor seconds by size, the least of a few runs."""
    found: dict[str, dict[int, float]] = {}
    for name, (make, sizes) in SUBJECTS.items():
        found[name] = {}
        for n in sizes[:-1] if quick else sizes:
            found[name][n] = seconds(make(n), 1 if n == sizes[-1] else 3)
            print(f"{name}: {n:,}: {found[name][n]:.3g} s", flush=True)
    return found


def plot(found: dict[str, dict[int, float]], path: Path) -> None:
    """A panel a subject, seconds against size, both logarithmic, with the line of slope 1 through the largest."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 2.8), layout="constrained")
    for axes, (name, points) in zip(figure.subplots(1, len(found), sharey=True), found.items(), strict=True):
        n, t = np.array(list(points)), np.array(list(points.values()))
        axes.loglog(n, t[-1] * n / n[-1], color="0.75", linewidth=1, label="linear")
        axes.loglog(n, t, "o-", color="C0", markersize=3.5)
        axes.set_xlabel(name)
        axes.set_title(f"slope {slope(points):.2f}", fontsize="medium")
        axes.set_ylim(2e-5, 1e2)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("seconds of a processor")
    figure.axes[0].legend(frameon=False, loc="upper left")
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.growth", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="leave out the largest of each")
    parser.add_argument("--plot-only", action="store_true", help="draw what was measured before")
    parser.add_argument(
        "--out",
        default=RESULTS / "growth.json",
        metavar="FILE",
        help="where the numbers go as JSON, and beside it the figure (default benchmarks/results/growth.json)",
    )
    options = parser.parse_args()
    out = Path(options.out)
    if options.plot_only:
        known = json.loads(out.read_text())["seconds"]
        found = {name: {int(n): t for n, t in points.items()} for name, points in known.items()}
    else:
        found = measured(options.quick)
        save({"versions": versions("numpy", "scipy"), "seconds": found}, out)
    rows = [[name, f"{min(p):,} to {max(p):,}", p[max(p)], slope(p)] for name, p in found.items()]
    print("\n" + table([["", "sizes", "seconds of the largest", "slope"], *rows]))
    plot(found, out.with_suffix(".png"))


if __name__ == "__main__":
    main()
