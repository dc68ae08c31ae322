"""One training step (loss, gradient, Adam; float32) of three autoencoders, beside other libraries, NumPy by hand, and
the matrix products alone.

Each library runs in a process of its own with the threads that it takes by default (two cores: two), and takes some
steps in turn, so that no pool of threads that waits for work stands in another's way. Then: what recording and planning
take, peak memory, a chain of small operations, gradient replicates, and how a step grows with the number of samples and
with the width of the layers.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.steps import MODELS, PEERS, Model
from benchmarks.timing import RESULTS, interleaved, medians, peak_bytes, save, table, versions

PAUSE = 0.1
"""Seconds between two libraries, until pools of threads are asleep: those of OpenBLAS wait for work for some 2^26
cycles, 25 to 30 ms."""


class Worker:
    """A library in a process of its own, which takes steps when asked."""

    def __init__(self, name: str):
        self.name, self.missing = name, ""
        command = [sys.executable, "-m", "benchmarks.training_step", "--worker", name]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def ask(self, *request: Any) -> Any:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"missing": "the process ended"}

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=30)


def serve(name: str) -> None:
    """Answer requests (model, number of steps) with the seconds of each step, and "peak" with bytes, until the input
    ends."""
    steps: dict[str, Callable[[], Any]] = {}
    for line in sys.stdin:
        model, number = json.loads(line)
        try:
            if model == "peak":
                answer: Any = peak_bytes()
                if number:  # and from here on
                    Path("/proc/self/clear_refs").write_text("5")
            else:
                if model not in steps:
                    steps[model] = PEERS[name](Model(*MODELS[model]) if model in MODELS else Model(*json.loads(model)))
                    for _ in range(3):
                        steps[model]()
                answer = [_timed(steps[model]) for _ in range(number + 1)][1:]
        except ImportError as error:
            answer = {"missing": str(error)}
        print(json.dumps(answer), flush=True)


def _timed(step: Callable[[], Any]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def compare(
    names: list[str], models: list[str], rounds: int, steps: int
) -> tuple[dict[str, dict[str, list[float]]], dict[str, str]]:
    """Milliseconds of a step, by model and library, one number a round (the median of its steps); and what is
    missing."""
    workers = {name: Worker(name) for name in names}
    missing: dict[str, str] = {}
    found: dict[str, dict[str, list[float]]] = {model: {name: [] for name in names} for model in models}
    for model in models:
        for name, worker in workers.items():  # imports, compilation and warm-up
            answer = worker.ask(model, 1)
            if isinstance(answer, dict):
                missing[name] = answer["missing"]
        for _ in range(rounds):
            for name, worker in workers.items():
                if name not in missing:
                    time.sleep(PAUSE)
                    found[model][name].append(1e3 * statistics.median(worker.ask(model, steps)))
    for worker in workers.values():
        worker.close()
    return {model: {name: times for name, times in row.items() if times} for model, row in found.items()}, missing


def ratios(row: dict[str, list[float]], name: str) -> dict[str, float]:
    """The median over the rounds of ``name``'s time over each other's in the same round."""
    return {
        other: statistics.median([a / b for a, b in zip(row[name], times, strict=True)])
        for other, times in row.items()
        if row.get(name)
    }


def memory(names: list[str], model: str) -> dict[str, list[float]]:
    """Megabytes: the peak of a process that takes steps; how much of it came after everything was imported; and that of
    steps after the first ones."""
    found = {}
    for name in names:
        worker = Worker(name)
        tiny = json.dumps([[4], 2, 2, 2])
        before = worker.ask(tiny, 1)
        if not isinstance(before, dict):
            worker.ask("peak", 1)
            base = worker.ask("peak", 0)
            worker.ask(model, 5)
            first = worker.ask("peak", 1)
            worker.ask(model, 5)
            found[name] = [first / 1e6, (first - base) / 1e6, (worker.ask("peak", 0) - base) / 1e6]
        worker.close()
    return found


def planning(model: str) -> dict[str, float]:
    """Milliseconds: a plain step, the first compiled call (which records and plans), and a later one."""
    made = MODELS[model]
    plain, firsts, later = [], [], 0.0
    step = PEERS["scg"](made)
    for _ in range(5):
        plain.append(_timed(step))
        step = PEERS["scg, compiled"](made)
        firsts.append(_timed(step))
        later = min(_timed(step) for _ in range(3))
        step = PEERS["scg"](made)
        step()
    return {"plain": 1e3 * statistics.median(plain), "first": 1e3 * statistics.median(firsts), "later": 1e3 * later}


def chain(length: int, rounds: int) -> dict[str, float]:
    """Microseconds an operation, forward and backward, of a chain on ten numbers."""
    import scg
    from benchmarks.chain import links, raw

    x = np.linspace(-1, 1, 10)
    gradient = scg.grad(lambda p: np.sum(links(p, length, np.tanh)))
    compiled = scg.compile(gradient)
    np.testing.assert_allclose(compiled(x), raw(x, length), rtol=1e-12)
    np.testing.assert_allclose(compiled(x), raw(x, length), rtol=1e-12)
    subjects = {"raw NumPy": lambda: raw(x, length), "scg": lambda: gradient(x), "scg, compiled": lambda: compiled(x)}
    return medians(interleaved(subjects, rounds), 1e6 / length)


def replicates(number: int, rounds: int) -> dict[str, float]:
    """Milliseconds for so many gradient replicates of 200 coins: in one call of a graph and one by one, plain and
    compiled."""
    import scg
    from scg import distributions as dist

    rng, theta = np.random.default_rng(0), np.zeros(200)

    def cost(theta: Any, rng: Any) -> Any:
        b = scg.sample(
            dist.Bernoulli(logits=theta), scg.ScoreFunction(samples=2, baseline=scg.LeaveOneOut()), rng=rng, name="b"
        )
        return np.mean((b - 0.499) ** 2)

    graph, plain = scg.trace(cost, theta, rng=rng), scg.grad(cost)
    compiled = scg.compile(plain)
    few = max(1, number // 20)

    def loop(gradient: Any) -> Callable[[], None]:
        def run() -> None:
            for _ in range(few):
                gradient(theta, rng=rng)

        return run

    whole = scg.compile(lambda rng: graph.gradients(rng=rng, replicates=number))
    whole(rng)
    subjects = {
        "graph.gradients": lambda: graph.gradients(rng=rng, replicates=number),
        "graph.gradients, compiled": lambda: whole(rng),
        "one by one": loop(plain),
        "one by one, compiled": loop(compiled),
    }
    found = medians(interleaved(subjects, rounds), 1e3)
    return {name: t if name.startswith("graph") else t * number / few for name, t in found.items()}


def growth(models: dict[str, Model], names: list[str], rounds: int) -> dict[str, dict[str, float]]:
    """Milliseconds of a step for each of some models."""
    found = {}
    for label, model in models.items():
        key = json.dumps(model)
        times = _grown(key, names, rounds)
        found[label] = {name: statistics.median(t) for name, t in times.items()}
    return found


def _grown(key: str, names: list[str], rounds: int) -> dict[str, list[float]]:
    workers = {name: Worker(name) for name in names}
    times: dict[str, list[float]] = {name: [] for name in names}
    for worker in workers.values():  # imports, compilation and warm-up
        worker.ask(key, 1)
    for _ in range(rounds):
        for name, worker in workers.items():
            time.sleep(PAUSE)
            answer = worker.ask(key, 3)
            if isinstance(answer, list):
                times[name].append(1e3 * statistics.median(answer))
    for worker in workers.values():
        worker.close()
    return {name: t for name, t in times.items() if t}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training_step",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=15,
        metavar="R",
        help="interleaved rounds of which the median is taken (default 15)",
    )
    parser.add_argument(
        "--steps", type=int, default=10, metavar="N", help="steps of a library in each round (default 10)"
    )
    parser.add_argument("--quick", action="store_true", help="few rounds, and the three steps alone")
    parser.add_argument(
        "--only", nargs="+", choices=PEERS, metavar="NAME", help=f"measure these alone, of: {', '.join(PEERS)}"
    )
    parser.add_argument(
        "--out", default=RESULTS / "training_step.json", metavar="FILE", help="where the numbers go as JSON"
    )
    parser.add_argument("--worker", choices=PEERS, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.worker:
        serve(options.worker)
        return
    names = options.only or list(PEERS)
    rounds, steps = (5, 5) if options.quick else (options.rounds, options.steps)
    times, missing = compare(names, list(MODELS), rounds, steps)
    record: dict[str, Any] = {
        "versions": versions("numpy", "scipy", "torch", "jax", "autograd", "mygrad"),
        "missing": missing,
        "rounds": rounds,
        "ms a step": times,
    }
    print(", ".join(f"{package} {version}" for package, version in record["versions"].items() if version))
    print(
        f"\nmilliseconds a step; medians of {rounds} rounds of {steps} steps; in brackets the median ratio of the"
        " compiled step to it"
    )
    rows = []
    for name in names:
        if name not in missing:
            cells = []
            for model in times:
                ratio = ratios(times[model], "scg, compiled").get(name)
                cells.append(f"{statistics.median(times[model][name]):.2f}" + (f" ({ratio:.2f})" if ratio else ""))
            rows.append([name, *cells])
    print(table([["", *times], *rows]))
    if missing:
        print("missing:", ", ".join(f"{name} ({why})" for name, why in missing.items()))
    if not options.quick:
        model = list(MODELS)[-1]
        record["memory"] = memory(
            [
                n
                for n in ("scg, compiled", "scg", "PyTorch", "JAX, jit", "NumPy by hand")
                if n in names and n not in missing
            ],
            model,
        )
        print(f"\nmegabytes, {model}")
        print(
            table(
                [
                    ["", "peak", "of it after the imports", "later steps"],
                    *[[name, *row] for name, row in record["memory"].items()],
                ]
            )
        )
        record["planning"] = {model: planning(model) for model in MODELS}
        print("\nmilliseconds of calls in a process that has imported scg: first = plain, recorded, + planning")
        print(
            table(
                [
                    ["", "plain", "first compiled", "later"],
                    *[[model, *row.values()] for model, row in record["planning"].items()],
                ]
            )
        )
        record["chain"] = chain(2000, rounds)
        print("\nchain of 2000 operations on ten numbers, microseconds an operation, forward and backward")
        print(table([["", "us"], *[[name, t] for name, t in record["chain"].items()]]))
        record["replicates"] = replicates(1000, max(3, rounds // 3))
        print("\nmilliseconds for 1000 gradient replicates of 200 coins, leave-one-out with two samples")
        print(table([["", "ms"], *[[name, t] for name, t in record["replicates"].items()]]))
        kinds = {f"k={k}": Model((200, 200), 50, 20, k) for k in (1, 5, 50, 500)} | {
            f"width {n}": Model((n, n), 50, 20, 5) for n in (50, 200, 400, 1600)
        }
        few = [
            n
            for n in ("products alone", "scg, compiled", "scg", "JAX, jit", "PyTorch")
            if n in names and n not in missing
        ]
        record["growth"] = growth(kinds, few, 3)
        print("\nmilliseconds a step of the importance bound, 784-n-n-50, batch 20 (n = 200; k = 5)")
        print(
            table(
                [
                    ["", *few],
                    *[
                        [label, *[row.get(name, float("nan")) for name in few]]
                        for label, row in record["growth"].items()
                    ],
                ]
            )
        )
    save(record, options.out)


if __name__ == "__main__":
    main()
