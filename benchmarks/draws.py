"""What a stochastic node costs: microseconds that one node with ten descendants adds to a gradient, its distribution,
its draw, and its share of the surrogate.

``benchmarks.peers.coins`` measures replicates of a gradient, which share all that.
"""

import argparse

import numpy as np

import scg
from benchmarks.timing import RESULTS, interleaved, medians, save, table, versions
from scg import distributions as dist


def node_subjects(rng):
    """Gradients of ten operations behind a draw, and behind the same numbers without one."""
    theta = np.zeros(10)

    def behind(z):
        for _ in range(5):
            z = np.tanh(z * 1.1)
        return np.sum(z)

    def drawn(estimator):
        return scg.value_and_grad(lambda t, rng: behind(scg.sample(dist.Normal(t, 1.0), estimator, rng=rng)))

    plain = scg.value_and_grad(lambda t, rng: behind(t + rng.standard_normal(10)))
    score, path = drawn(scg.ScoreFunction()), drawn(scg.Reparameterized())
    return {
        "no node": lambda: [plain(theta, rng=rng) for _ in range(200)],
        "pathwise node": lambda: [path(theta, rng=rng) for _ in range(200)],
        "score-function node": lambda: [score(theta, rng=rng) for _ in range(200)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.draws", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=11,
        metavar="R",
        help="interleaved rounds of which the median is taken (default 11)",
    )
    parser.add_argument(
        "--out",
        default=RESULTS / "draws.json",
        metavar="FILE",
        help="where the numbers go as JSON (default benchmarks/results/draws.json)",
    )
    options = parser.parse_args()
    nodes = medians(interleaved(node_subjects(np.random.default_rng(0)), options.rounds), 1e6 / 200)
    print(f"\nmicroseconds a gradient, ten operations on ten numbers, medians of {options.rounds} rounds")
    print(table([["", "us", "more than none"], *[[name, us, us - nodes["no node"]] for name, us in nodes.items()]]))
    save({"versions": versions("numpy", "scipy"), "us a gradient": nodes}, options.out)


if __name__ == "__main__":
    main()
