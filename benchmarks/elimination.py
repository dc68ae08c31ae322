"""What exact results of long graphs of discrete draws take: chains, trees, grids, hidden Markov models, walks of a
policy, beside a recursion by hand.

Each row is checked: against a recursion in NumPy where one is written here. Times are of one call of ``scg.exact`` on a
traced graph; ``trace`` is what the graph itself took.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import scg
import scg.exact
from benchmarks.timing import RESULTS, save, table, versions
from scg import distributions as dist

S = scg.ScoreFunction()


def chain(n: int, batch: int = 1, coupled: bool = False) -> Callable[..., Any]:
    """n coins, each given the one before, in ``batch`` chains; the cost is the number of ones, or a quadratic form."""
    matrix = np.random.default_rng(0).normal(size=(n, n)) if coupled else None

    def fn(t: Any, rng: np.random.Generator) -> Any:
        z = scg.sample(dist.Bernoulli(probs=t * np.ones(batch) if batch > 1 else t), S, rng=rng)
        coins = [z]
        for _ in range(n - 1):
            coins.append(scg.sample(dist.Bernoulli(probs=0.2 + 0.6 * coins[-1]), S, rng=rng))
        if matrix is not None:
            b = np.stack(coins)
            return b @ matrix @ b
        total = np.sum(coins[0])
        for b in coins[1:]:
            total = total + np.sum(b)
        return total

    return fn


def tree(t: Any, rng: np.random.Generator, n: int = 1000) -> Any:
    """Coins, each given its parent in a binary tree."""
    coins = [scg.sample(dist.Bernoulli(logits=t), S, rng=rng)]
    for k in range(1, n):
        coins.append(scg.sample(dist.Bernoulli(logits=t * (2 * coins[(k - 1) // 2] - 1)), S, rng=rng))
    return sum(coins[1:], coins[0])


def grid(t: Any, rng: np.random.Generator, rows: int = 3, columns: int = 40) -> Any:
    """Coins, each given the one above and the one to the left; neighbours are multiplied."""
    z: dict[Any, Any] = {}
    total = 0.0
    for j in range(columns):
        for i in range(rows):
            logits = t + (z[i - 1, j] if i else 0) - (z[i, j - 1] if j else 0)
            z[i, j] = scg.sample(dist.Bernoulli(logits=logits), S, rng=rng)
            total = total + z[i, j] * (z[i - 1, j] if i else 1)
    return total


def factorial(t: Any, rng: np.random.Generator, steps: int = 40) -> Any:
    """Four chains of three states that meet in the cost of each step."""
    weights = scg.parameter(np.random.default_rng(1).normal(size=(4, 3)))
    z = [scg.sample(dist.Categorical(logits=t), S, rng=rng) for _ in range(4)]
    total = 0.0
    for _ in range(steps):
        total = total + np.tanh(sum(weights[i][z[i]] for i in range(4)))
        z = [scg.sample(dist.Categorical(logits=t * (1 + 0.5 * z[i])), S, rng=rng) for i in range(4)]
    return total


def walk(logits: Any, rng: np.random.Generator, steps: int = 20) -> Any:
    """A policy over five states and two actions."""
    data = np.random.default_rng(3)
    moves, rewards = scg.parameter(data.normal(size=(5, 2, 5))), scg.parameter(data.normal(size=5))
    s, total = scg.sample(dist.Categorical(logits=np.zeros(5)), S, rng=rng), 0.0
    for _ in range(steps):
        a = scg.sample(dist.Categorical(logits=logits[s]), S, rng=rng)
        total = total + rewards[s] * (1 + a)
        s = scg.sample(dist.Categorical(logits=moves[s, a]), S, rng=rng)
    return total


def hidden(step: Any, loc: Any, x: np.ndarray, rng: np.random.Generator) -> Any:
    """log p(x | z) of a hidden Markov model, x (steps, batch)."""
    steps, batch = x.shape
    z = scg.sample(dist.Categorical(logits=np.zeros((batch, len(loc)))), S, rng=rng)
    total = 0.0
    for t in range(steps):
        total = total - 0.5 * np.sum((x[t] - loc[z]) ** 2)
        if t + 1 < steps:
            z = scg.sample(dist.Categorical(logits=step[z]), S, rng=rng)
    return total


def forward_backward(step: np.ndarray, loc: np.ndarray, x: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """log p(x) and its gradients, by hand: scaled messages forwards and backwards."""
    rows = np.exp(step - step.max(axis=1, keepdims=True))
    rows /= rows.sum(axis=1, keepdims=True)
    logs = -0.5 * (x[:, :, None] - loc) ** 2
    largest = logs.max(axis=2, keepdims=True)
    seen = np.exp(logs - largest)
    alpha, scales = np.empty_like(seen), np.empty(x.shape)
    message = np.full(seen.shape[1:], 1 / len(loc))
    for t in range(len(x)):
        a = message * seen[t]
        scales[t] = a.sum(axis=1)
        alpha[t] = a / scales[t][:, None]
        message = alpha[t] @ rows
    beta, pairs = np.ones(seen.shape[1:]), np.zeros_like(rows)
    slope = np.zeros_like(loc)
    for t in range(len(x) - 1, -1, -1):
        slope += ((x[t][:, None] - loc) * (alpha[t] * beta)).sum(axis=0)
        if t:
            g = beta * seen[t] / scales[t][:, None]
            pairs += alpha[t - 1].T @ g
            beta = g @ rows.T
    joint = pairs * rows
    return (
        float(np.sum(np.log(scales)) + largest.sum()),
        joint - rows * joint.sum(axis=1, keepdims=True),
        slope,
    )


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """A result and its seconds, the better of two."""
    best = np.inf
    for _ in range(2):
        start = time.perf_counter()
        result = call()
        best = min(best, time.perf_counter() - start)
    return result, best


def rows(quick: bool) -> Iterator[list[str]]:
    """The rows of the table: what, seconds of trace, of the result, of the gradient (or the moments), what was found,
    and by how much it is off."""
    sizes = (20, 60, 300) if quick else (20, 60, 500, 2000)
    geometric = lambda n: sum(0.6**i for i in range(n))
    for n in sizes:
        graph, made = timed(lambda n=n: scg.trace(chain(n), np.array(0.5), rng=np.random.default_rng(0)))
        (mean, a), (slope, b) = (
            timed(lambda g=graph: scg.exact.expectation(g)),
            timed(lambda g=graph: scg.exact.gradient(g)),
        )
        yield [f"chain of {n} coins", *_seconds(made, a, b), f"{mean:.6g}", f"{abs(slope - geometric(n)):.0e}"]
    steps, batch = (10, 100) if quick else (50, 2000)
    graph, made = timed(lambda: scg.trace(chain(steps, batch), np.array(0.5), rng=np.random.default_rng(0)))
    (mean, a), (slope, b) = timed(lambda: scg.exact.expectation(graph)), timed(lambda: scg.exact.gradient(graph))
    off = abs(slope / batch - geometric(steps))
    yield [f"{batch} chains of {steps} coins", *_seconds(made, a, b), f"{mean:.6g}", f"{off:.0e}"]
    for name, fn in (("tree of 1000 coins", tree), ("3 x 40 grid", grid)):
        graph, made = timed(lambda fn=fn: scg.trace(fn, np.array(0.3), rng=np.random.default_rng(0)))
        (mean, a), (slope, b) = (
            timed(lambda g=graph: scg.exact.expectation(g)),
            timed(lambda g=graph: scg.exact.gradient(g)),
        )
        yield [name, *_seconds(made, a, b), f"{mean:.6g}", ""]
    graph, made = timed(lambda: scg.trace(factorial, np.array([0.1, 0.2, 0.3]), rng=np.random.default_rng(0)))
    (mean, a), (slope, b) = timed(lambda: scg.exact.expectation(graph)), timed(lambda: scg.exact.gradient(graph))
    yield ["4 chains of 3 states, 40 steps", *_seconds(made, a, b), f"{mean:.6g}", ""]
    for n in (20,) if quick else (20, 60):
        graph, made = timed(lambda n=n: scg.trace(chain(n, 1, True), np.array(0.5), rng=np.random.default_rng(0)))
        (mean, a), (slope, b) = (
            timed(lambda g=graph: scg.exact.expectation(g)),
            timed(lambda g=graph: scg.exact.gradient(g)),
        )
        yield [f"b J b of {n} coupled coins", *_seconds(made, a, b), f"{mean:.6g}", ""]
    for n in (20, 60) if quick else (60, 500):
        graph, made = timed(lambda n=n: scg.trace(chain(n), np.array(0.5), rng=np.random.default_rng(0)))
        found, a = timed(lambda g=graph: scg.exact.moments(g))
        off = abs(found.mean - geometric(n))
        yield [f"moments, chain of {n}", *_seconds(made, None, a), f"{found.variance:.6g}", f"{off:.0e}"]
    loo = scg.ScoreFunction(samples=2, baseline=scg.LeaveOneOut())
    for n in (60,) if quick else (60, 500):
        graph = scg.trace(chain(n), np.array(0.5), rng=np.random.default_rng(0))
        for name, estimator in (("leave-one-out", loo), ("DisARM", scg.DisARM())):
            start = time.perf_counter()
            found = scg.exact.moments(graph.bind({"*": estimator}))
            a, off = time.perf_counter() - start, abs(found.mean - geometric(n))
            yield [f"moments, {name}, {n} coins", *_seconds(None, None, a), f"{found.variance:.6g}", f"{off:.0e}"]
    for n in (20,) if quick else (20, 200):
        graph, made = timed(lambda n=n: scg.trace(walk, np.zeros((5, 2)), rng=np.random.default_rng(0), steps=n))
        (mean, a), (slope, b) = (
            timed(lambda g=graph: scg.exact.expectation(g)),
            timed(lambda g=graph: scg.exact.gradient(g)),
        )
        yield [f"policy, {n} steps", *_seconds(made, a, b), f"{mean:.6g}", ""]
        if n == 20:
            found, a = timed(lambda g=graph: scg.exact.moments(g))
            off = np.max(np.abs(found.mean - slope))
            yield [
                f"moments, policy, {n} steps",
                *_seconds(made, None, a),
                f"{np.sum(found.variance):.6g}",
                f"{off:.0e}",
            ]
    data = np.random.default_rng(2)
    states, steps, batch = (4, 20, 3) if quick else (16, 500, 64)
    step, loc, x = data.normal(size=(states, states)), data.normal(size=states), data.normal(size=(steps, batch))
    graph, made = timed(lambda: scg.trace(hidden, step, loc, x, argnums=(0, 1), rng=np.random.default_rng(0)))
    value, a = timed(lambda: scg.exact.log_evidence(graph))
    (value, slopes), b = timed(lambda: scg.exact.log_evidence(graph, gradient=True))
    (other, *by_hand), c = timed(lambda: forward_backward(step, loc, x))
    off = max([abs(value / other - 1), *[np.max(np.abs(g - h)) for g, h in zip(slopes, by_hand, strict=True)]])
    yield [f"HMM, {states} states, {steps} steps, batch {batch}", *_seconds(made, a, b), f"{value:.6g}", f"{off:.0e}"]
    yield ["  the same by hand", *_seconds(None, None, c), f"{other:.6g}", ""]
    yield ["30 pairwise coupled coins", *_refused()]


def _refused() -> list[str]:
    def fn(t: Any, rng: np.random.Generator) -> Any:
        b = scg.sample(dist.Bernoulli(logits=t), S, rng=rng)
        return np.sum(np.tanh(b[:, None] * b) * np.triu(np.ones((30, 30)), 1))

    graph, made = timed(lambda: scg.trace(fn, np.zeros(30), rng=np.random.default_rng(0)))
    start = time.perf_counter()
    try:
        scg.exact.log_evidence(graph)
    except scg.exact.BudgetError as error:
        width = str(error).split(" elements")[0].split()[-1]
        return [*_seconds(made, time.perf_counter() - start, None), f"refused, width {width}", ""]
    return [*_seconds(made, None, None), "not refused", ""]


def _seconds(*times: float | None) -> list[str]:
    return ["" if t is None else f"{t:.3f}" for t in times]


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes")
    options = parser.parse_args(arguments)
    found = [["", "trace", "result", "gradient or moments", "found", "off"], *rows(options.quick)]
    print(table(found))
    save({"versions": versions("numpy"), "rows": found}, RESULTS / "elimination.json")


if __name__ == "__main__":
    main()
