"""What a verdict by replicates takes where no exact gradient is known: seconds of ``scg.testing.judge`` for some draws,
each of a gradient and of differences of the cost around it."""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import scg
from benchmarks.timing import RESULTS, save, table, versions
from scg import distributions as dist


def coins(theta: Any, rng: Any) -> Any:
    """30 coins that one cost takes together, with a moving average as their baseline."""
    b = scg.sample(dist.Bernoulli(logits=theta), scg.ScoreFunction(baseline=scg.MovingAverage()), rng=rng)
    return np.tanh(np.sum(b * np.linspace(-1, 1, 30))) + np.sum((b - 0.45) ** 2)


def queue(theta: Any, rng: Any) -> Any:
    """The mean time that 20 customers wait, w = max(w + service - arrival, 0), by the score function."""
    wait: Any = 0.0
    total: Any = 0.0
    for _ in range(20):
        service, arrival = (
            scg.sample(dist.Exponential(np.exp(theta[k])), scg.ScoreFunction(), rng=rng) for k in range(2)
        )
        wait = np.maximum(wait + service - arrival, 0.0)
        total = total + wait
    return total / 20


SUBJECTS: dict[str, tuple[Callable[..., Any], np.ndarray]] = {
    "30 coins, moving average": (coins, np.zeros(30)),
    "queue of 20 customers": (queue, np.array([0.3, -0.2])),
}


def verdict(name: str, draws: int, progress: bool = False) -> tuple[float, str]:
    """Processor seconds of one verdict, and what it is."""
    cost, theta = SUBJECTS[name]
    start = time.process_time()
    found = scg.testing.judge(cost, theta, rng=np.random.default_rng(0), max_replicates=draws, progress=progress)
    return time.process_time() - start, found.status


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.verdicts", description=__doc__)
    parser.add_argument("--draws", type=int, default=2**17, metavar="N", help="at most so many (default 131072)")
    parser.add_argument(
        "--out",
        default=RESULTS / "verdicts.json",
        metavar="FILE",
        help="where the numbers go as JSON (default benchmarks/results/verdicts.json)",
    )
    options = parser.parse_args()
    found = {name: verdict(name, options.draws, progress=True) for name in SUBJECTS}
    print(table([["", "seconds", "verdict"], *[[name, *row] for name, row in found.items()]]))
    save({"versions": versions("numpy", "scipy"), "draws": options.draws, "seconds": found}, options.out)


if __name__ == "__main__":
    main()
