"""What a gradient of a long walk costs: microseconds of processor time a sample, for n samples each of which meets the
costs after it.

x_t = x_{t-1} / 2 + z_t and the cost sum_t (x_t - 1)^2: the cost-to-go of every sample is another sum. z_t is drawn at
theta + x_{t-1} / 10; for leave-one-out two samples of it are drawn at theta, and the cost is the mean of two. A figure
that stays as n grows is a cost that is linear in n. ``--long`` has one gradient of a walk of any length.
"""

import argparse
import gc
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import scg
from benchmarks.timing import RESULTS, peak_bytes, save, table, versions
from scg import distributions as dist

Cost = Callable[[Any, Any], Any]


def walk(n: int, kind: str) -> Cost:
    """The cost of a walk of n samples: coins by the score function, two of each coin with each other's cost as
    baseline, or normal numbers."""
    estimator, shape = {
        "score function": (scg.ScoreFunction(), ()),
        "leave-one-out": (scg.ScoreFunction(baseline=scg.LeaveOneOut()), (2,)),
        "reparameterized": (scg.Reparameterized(), ()),
    }[kind]

    def cost(theta: Any, rng: Any) -> Any:
        x: Any = np.zeros(shape)
        total: Any = 0.0
        for _ in range(n):
            loc = theta if shape else theta + 0.1 * x
            d = dist.Normal(loc, 1.0) if kind == "reparameterized" else dist.Bernoulli(logits=loc)
            x = 0.5 * x + scg.sample(d, estimator, rng=rng, shape=shape)
            total = total + (x - 1) ** 2
        return np.mean(total)

    return cost


KINDS = ("score function", "leave-one-out", "reparameterized")


def seconds(run: Callable[[], Any], rounds: int) -> float:
    """The least processor time of some runs, after one that is not measured."""
    best = np.inf
    for k in range(rounds + 1):
        gc.collect()
        start = time.process_time()
        run()
        best = min(best, time.process_time() - start) if k or not rounds else best
    return best


def gradient(n: int, kind: str) -> Callable[[], Any]:
    """One gradient, traced anew."""
    run, rng = scg.value_and_grad(walk(n, kind)), np.random.default_rng(0)
    return lambda: run(np.array(0.1), rng=rng)


def replicates(n: int, kind: str, count: int = 100) -> Callable[[], Any]:
    """Replicates of the gradient of one graph."""
    rng = np.random.default_rng(0)
    graph = scg.trace(walk(n, kind), np.array(0.1), rng=rng)
    return lambda: graph.gradients(rng=rng, replicates=count)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.walk", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, metavar="R", help="runs of which the least counts (default 3)")
    parser.add_argument(
        "--samples", type=int, nargs="+", default=[200, 800, 3200], metavar="N", help="lengths of walks"
    )
    parser.add_argument("--long", type=int, metavar="N", help="one gradient, by the score function, of a walk of N")
    parser.add_argument(
        "--out",
        default=RESULTS / "walk.json",
        metavar="FILE",
        help="where the numbers go as JSON (default benchmarks/results/walk.json)",
    )
    options = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    for what, make in (("one gradient", gradient), ("100 replicates", replicates)):
        for kind in KINDS:
            found[f"{what}, {kind}"] = {
                str(n): 1e6 / n * seconds(make(n, kind), options.rounds) for n in options.samples
            }
    if options.long:
        run = gradient(options.long, "score function")
        found["one gradient, score function"][str(options.long)] = 1e6 / options.long * seconds(run, 0)
    print("\nmicroseconds of processor time a sample, of walks of so many samples")
    columns = list(dict.fromkeys(n for row in found.values() for n in row))
    print(table([["", *columns], *[[name, *[row.get(n, "") for n in columns]] for name, row in found.items()]]))
    print(f"\npeak of the process: {peak_bytes() / 2**20:.0f} MB")
    save({"versions": versions("numpy", "scipy"), "us a sample": found, "peak bytes": peak_bytes()}, options.out)


if __name__ == "__main__":
    main()
