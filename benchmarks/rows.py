"""One table of what speed is measured by, each work beside what it is compared with: ``python -m benchmarks.rows``.

Processor time of all threads, the least of interleaved rounds, in this process; but for the training step (wall time,
medians, a process for each library) and the import. "ratio" is scg's time over the other's, and "aim" what it should
not exceed. ``--only`` measures some rows.
"""

import argparse
import gc
import statistics
import time
import tracemalloc
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

import scg
from benchmarks import chain, imports, training_step, verdicts, walk
from benchmarks.peers import coins
from benchmarks.steps import MODELS
from benchmarks.timing import RESULTS, save, table, versions
from scg import distributions as dist


class Row(NamedTuple):
    """One comparison: what scg takes, in some unit, and what another takes for the same."""

    work: str
    unit: str
    scg: float
    other: str
    others: float
    aim: float | None = None

    @property
    def ratio(self) -> float:
        """scg's over the other's."""
        return self.scg / self.others


def least(subjects: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """The least processor seconds of each subject, over interleaved rounds: each time of its second run in turn, which
    finds memory as its first left it, not as another subject did (a page that is new takes a microsecond or more)."""
    found = dict.fromkeys(subjects, float("inf"))
    for _ in range(rounds):
        for name, run in subjects.items():
            run()
            gc.collect()
            start = time.process_time()
            run()
            found[name] = min(found[name], time.process_time() - start)
    return found


SIZE, SHIFT = coins.SIZE, coins.SHIFT


def by_hand(kind: str) -> Callable[[int], Any]:
    """n gradients of mean((b - SHIFT)^2) at logits (or means) 0, as one writes them in NumPy."""
    theta, rng = np.zeros(SIZE), np.random.default_rng(0)

    def cost(b: Any) -> Any:
        return (np.asarray(b, float) - SHIFT) ** 2 / SIZE

    def run(n: int) -> Any:
        p = 1 / (1 + np.exp(-theta))
        if kind == "Enumerate":
            return np.broadcast_to(p * (1 - p) * (cost(1) - cost(0)), (n, SIZE)).copy()
        if kind == "Reparameterized":
            return 2 * (theta + rng.standard_normal((n, SIZE)) - SHIFT) / SIZE
        if kind == "leave-one-out":
            b = (rng.random((2, n, SIZE)) < p).astype(float)
            f, s = cost(b), b - p
            return (f[0] - f[1]) * (s[0] - s[1]) / 2
        u = rng.random((n, SIZE))
        if kind == "score function":
            b = (u < p).astype(float)
            return cost(b) * (b - p)
        one, other = u > 1 - p, u < p
        difference = cost(one) - cost(other)
        return difference * (u - 0.5) if kind == "ARM" else difference * ((one != other) * np.where(other, -p, p)) / 2

    return run


def kept(run: Callable[[int], Any], n: int, count: int) -> Any:
    """All of ``count`` gradients in one array, from batches of n: what ``graph.gradients`` returns."""
    out = np.empty((count, SIZE))
    for start in range(0, count, n):
        out[start : start + n] = run(min(n, count - start))
    return out


ESTIMATORS: dict[str, Any] = {
    "score function": scg.ScoreFunction(),
    "leave-one-out": scg.ScoreFunction(samples=2, baseline=scg.LeaveOneOut()),
    "ARM": scg.ARM(),
    "DisARM": scg.DisARM(),
    "Reparameterized": scg.Reparameterized(),
    "Enumerate": scg.Enumerate(),
}


def replicates(rounds: int, count: int = 10_000) -> list[Row]:
    """200 coins (or normal numbers), beside NumPy by hand at its best batch size, whose gradients are kept in one array
    as scg's are, or dropped batch by batch; and for leave-one-out JAX at its, whose are dropped."""
    rows = []
    for kind, estimator in ESTIMATORS.items():

        def cost(theta: Any, rng: Any, estimator: Any = estimator, kind: str = kind) -> Any:
            d = dist.Normal(theta, 1.0) if kind == "Reparameterized" else dist.Bernoulli(logits=theta)
            return np.mean((scg.sample(d, estimator, rng=rng) - SHIFT) ** 2)

        rng = np.random.default_rng(0)
        graph = scg.trace(cost, np.zeros(SIZE), rng=rng)
        runs: dict[str, Callable[[int], Any]] = {"NumPy by hand": by_hand(kind)}
        if kind == "leave-one-out":
            try:
                runs["JAX, vmap and jit"] = coins.with_jax()
            except ImportError:
                pass
        subjects: dict[str, Callable[[], Any]] = {"scg": lambda g=graph, r=rng: g.gradients(rng=r, replicates=count)}
        for name, run in runs.items():
            for n in (250, 1000, 4000):
                subjects[f"{name}, {n}"] = lambda run=run, n=n: [run(n) for _ in range(count // n)]
                if name == "NumPy by hand":
                    subjects[f"{name}, kept, {n}"] = lambda run=run, n=n: kept(run, n, count // n * n)
        found = least(subjects, rounds)
        for name in [name.removesuffix(", 250") for name in subjects if name.endswith(", 250")]:
            best = min(1e9 / (count // n * n) * found[f"{name}, {n}"] for n in (250, 1000, 4000))
            aim = 1 / 0.8 if "hand" in name else 1 / 1.3
            rows.append(Row(f"a replicate of 200, {kind}", "ns", 1e9 / count * found["scg"], name, best, aim))
    return rows


def walks(rounds: int) -> list[Row]:
    """A sample of a walk of 3,200, beside one of 200: 1 is linear."""
    rows = []
    for what, make in (("a gradient", walk.gradient), ("100 replicates", walk.replicates)):
        for kind in walk.KINDS:
            runs = {n: make(n, kind) for n in (200, 3200)}
            found = least({str(n): run for n, run in runs.items()}, max(rounds // 2, 1))
            long, short = (1e6 / n * found[str(n)] for n in (3200, 200))
            rows.append(Row(f"a sample of a walk of 3,200, {what}, {kind}", "us", long, "of a walk of 200", short))
    return rows


def operations(rounds: int) -> list[Row]:
    """The chain of 2,000 operations on ten numbers."""
    peers, _ = chain.installed()
    x = np.linspace(-1, 1, 10)
    found = least({name: lambda run=run: run(x, 2000) for name, run in peers.items()}, rounds)
    aims = {"PyTorch": 0.5, "autograd": 0.25}
    return [
        Row("an operation of a chain of 2,000", "us", 500 * found["scg"], name, 500 * seconds, aims.get(name))
        for name, seconds in found.items()
        if name != "scg"
    ]


def steps(rounds: int) -> list[Row]:
    """The training step with the optimizer after the compiled gradient, and inside of it."""
    mine = "scg, optimizer outside"
    names = [mine, "scg, compiled", "JAX, jit", "PyTorch"]
    times, missing = training_step.compare(names, list(MODELS), max(rounds, 3), 5)
    rows = []
    for model, row in times.items():
        over = training_step.ratios(row, mine)
        for name, aim in (("scg, compiled", 1.0), ("JAX, jit", 1.0), ("PyTorch", 0.7)):
            if name not in missing:
                ms = statistics.median(row[mine])
                rows.append(Row(f"a step, optimizer outside, {model}", "ms", ms, name, ms / over[name], aim))
    return rows


def hessian(rounds: int, n: int = 300) -> list[Row]:
    """The Hessian of sum(tanh(outer(p, p))), beside a loop of products with unit vectors; and its memory."""

    def cost(p: Any) -> Any:
        return np.sum(np.tanh(np.outer(p, p)))

    p = np.random.default_rng(0).normal(size=n)
    whole, product = scg.hessian(cost), scg.hvp(cost)
    subjects = {"scg": lambda: whole(p), "a loop of hvp": lambda: [product(p, e) for e in np.eye(n)]}
    found = least(subjects, 1)
    peaks = {name: peak(run) for name, run in subjects.items()}
    return [
        Row(f"Hessian of {n} parameters", "ms", 1e3 * found["scg"], "a loop of hvp", 1e3 * found["a loop of hvp"], 1.2),
        Row(f"its memory, {n} parameters", "MB", peaks["scg"] / 1e6, "a loop of hvp", peaks["a loop of hvp"] / 1e6),
    ]


def peak(run: Callable[[], Any]) -> int:
    """The most bytes that Python and NumPy hold at a time."""
    tracemalloc.start()
    run()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


def starts(rounds: int) -> list[Row]:
    """The import, beyond NumPy and SciPy."""
    found = imports.measured(rounds)
    floor = found["NumPy and scipy.special"]
    return [Row("import scg, beyond NumPy and SciPy", "ms", 1e3 * (found["scg"] - floor), "these", 1e3 * floor)]


def judged(rounds: int) -> list[Row]:
    """A draw of a verdict, beside a gradient of the same graph."""
    rows = []
    for name, (cost, theta) in verdicts.SUBJECTS.items():
        draws, rng = 2**15, np.random.default_rng(0)
        graph = scg.trace(cost, theta, rng=rng)
        subjects: dict[str, Callable[[], Any]] = {
            "verdict": lambda name=name, draws=draws: verdicts.verdict(name, draws),
            "replicate": lambda g=graph, r=rng, draws=draws: g.gradients(rng=r, replicates=draws),
        }
        found = least(subjects, 1)
        rows.append(
            Row(
                f"a draw of a verdict, {name}",
                "us",
                1e6 / draws * found["verdict"],
                "a replicate",
                1e6 / draws * found["replicate"],
            )
        )
    return rows


def memory(rounds: int) -> list[Row]:
    """Megabytes of 10,000 replicates of the gradient of a small autoencoder's encoder, beside what is returned."""
    rng, hidden, latents, pixels = np.random.default_rng(0), 20, 10, 64
    params = {
        "encoder": (0.1 * rng.standard_normal((pixels, latents))).astype(np.float32),
        "decoder": (0.1 * rng.standard_normal((latents, pixels))).astype(np.float32),
    }
    x = (rng.random((hidden, pixels)) < 0.5).astype(np.float32)

    def cost(params: Any, rng: Any) -> Any:
        q = dist.Normal(x @ params["encoder"], np.float32(1))
        z = scg.sample(q, scg.Reparameterized(), rng=rng)
        likelihood = np.sum(dist.Bernoulli(logits=z @ params["decoder"]).log_prob(x))
        return np.sum(dist.kl_divergence(q, dist.Normal(np.float32(0), np.float32(1)))) - likelihood

    graph = scg.trace(cost, params, rng=rng)
    _ = graph.block
    most = peak(lambda: graph.gradients(rng=rng, replicates=10_000))
    returned = 10_000 * sum(p.nbytes for p in params.values())
    return [Row("memory of 10,000 replicates of an autoencoder", "MB", most / 1e6, "what is returned", returned / 1e6)]


ROWS: dict[str, Callable[[int], list[Row]]] = {
    "replicates": replicates,
    "walk": walks,
    "chain": operations,
    "step": steps,
    "hessian": hessian,
    "import": starts,
    "judge": judged,
    "memory": memory,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rows", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, metavar="R", help="interleaved rounds (default 5)")
    parser.add_argument("--only", nargs="+", choices=ROWS, metavar="ROW", help=f"of: {', '.join(ROWS)}")
    parser.add_argument(
        "--out",
        default=RESULTS / "rows.json",
        metavar="FILE",
        help="where the numbers go as JSON (default benchmarks/results/rows.json)",
    )
    options = parser.parse_args()
    rows: list[Row] = []
    for name in options.only or ROWS:
        print(f"{name} ...", flush=True)
        rows += ROWS[name](options.rounds)
    cells = [
        [r.work, f"{r.scg:.3g} {r.unit}", f"{r.others:.3g} {r.unit}", r.other, r.ratio, "" if r.aim is None else r.aim]
        for r in rows
    ]
    print("\n" + table([["", "scg", "other", "", "ratio", "aim"], *cells]))
    save(
        {
            "versions": versions("numpy", "scipy", "torch", "jax", "autograd"),
            "rounds": options.rounds,
            "rows": [{**r._asdict(), "ratio": r.ratio} for r in rows],
        },
        options.out,
    )


if __name__ == "__main__":
    main()
