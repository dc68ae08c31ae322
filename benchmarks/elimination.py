"""What exact results of long graphs of discrete draws take: chains, trees, grids, hidden Markov models, walks of a
policy, beside a recursion by hand.

"off" is the distance from a recursion in NumPy, where one is written here. Times are CPU seconds of one call of
``scg.exact`` on a traced graph; ``trace`` is what the graph itself took.
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
from scg.core.backward import pull
from scg.exact.choice import eliminated_moments

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


def gaussians(n: int) -> Callable[..., Any]:
    """n samples z_t ~ Normal(0.8 z_(t-1) + t, 0.5); the cost is the sum of their squares."""

    def fn(t: Any, rng: np.random.Generator) -> Any:
        z, total = 0.0, 0.0
        for _ in range(n):
            z = scg.sample(dist.Normal(0.8 * z + t, 0.5), S, rng=rng)
            total = total + z * z
        return total

    return fn


def gaussians_by_hand(t: float, n: int) -> tuple[float, float]:
    """The mean of that cost, and its derivative."""
    mean = slope = variance = value = derivative = 0.0
    for _ in range(n):
        mean, slope, variance = 0.8 * mean + t, 0.8 * slope + 1, 0.64 * variance + 0.25
        value, derivative = value + mean * mean + variance, derivative + 2 * mean * slope
    return value, derivative


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


def walk_by_hand(logits: np.ndarray, steps: int = 20) -> tuple[float, np.ndarray]:
    """The mean return of ``walk`` and its gradient, by dynamic programming."""
    data = np.random.default_rng(3)
    moves, rewards = _softmax(data.normal(size=(5, 2, 5))), data.normal(size=5)
    policy, gains = _softmax(logits), rewards[:, None] * np.array([1.0, 2.0])
    at = [np.full(5, 0.2)]
    for _ in range(steps - 1):
        at.append(np.einsum("s,sa,sar->r", at[-1], policy, moves))
    value, slope = np.zeros(5), np.zeros((5, 2))
    for t in range(steps - 1, -1, -1):
        q = gains + moves @ value
        value = np.sum(policy * q, axis=1)
        slope += at[t][:, None] * policy * (q - value[:, None])
    return float(np.mean(value)), slope


def tree_by_hand(t: float, n: int = 1000) -> tuple[float, float]:
    """The mean of ``tree`` and its derivative."""
    up, down = 1 / (1 + np.exp(-t)), 1 / (1 + np.exp(t))
    p, slope = [up], [up * down]
    for k in range(1, n):
        q, d = p[(k - 1) // 2], slope[(k - 1) // 2]
        p.append(q * up + (1 - q) * down)
        slope.append(d * (up - down) + (2 * q - 1) * up * down)
    return sum(p), sum(slope)


def grid_by_hand(t: float, rows: int = 3, columns: int = 40) -> float:
    """The mean of ``grid``, a column of the grid at a time."""
    states = (np.arange(2**rows)[:, None] >> np.arange(rows)) & 1
    gain = states[:, 0] + np.sum(states[:, 1:] * states[:, :-1], axis=1)

    def column(before: np.ndarray) -> np.ndarray:
        logits = t + np.concatenate([np.zeros((len(states), 1)), states[:, :-1]], axis=1) - before
        chance = 1 / (1 + np.exp(-logits))
        return np.prod(np.where(states, chance, 1 - chance), axis=1)

    p, total = column(np.zeros(rows)), 0.0
    step = np.stack([column(state) for state in states])
    for _ in range(columns):
        total += float(p @ gain)
        p = p @ step
    return total


def factorial_by_hand(t: np.ndarray, steps: int = 40) -> float:
    """The mean of ``factorial``: its four chains are independent, and alike."""
    weights = np.random.default_rng(1).normal(size=(4, 3))
    cost = np.tanh(weights[0][:, None, None, None] + weights[1][:, None, None] + weights[2][:, None] + weights[3])
    p, total = _softmax(t), 0.0
    for _ in range(steps):
        total += float(np.einsum("abcd,a,b,c,d", cost, p, p, p, p))
        p = p @ _softmax(t * (1 + 0.5 * np.arange(3))[:, None])
    return total


def whole_returns(graph: Any) -> list[Any]:
    """The gradient of ``graph`` by REINFORCE without costs-to-go: the sum of all scores times the whole cost."""
    draws = list(graph.stochastic.values())
    scores = sum([np.sum(n.statics["site"].distribution.log_prob(n)) for n in draws])
    (slope,) = pull([scores], [np.ones(())], [graph.parameters], True)
    return [slope * graph.cost]


def _softmax(x: np.ndarray) -> np.ndarray:
    p = np.exp(x - x.max(axis=-1, keepdims=True))
    return p / p.sum(axis=-1, keepdims=True)


def hidden(step: Any, loc: Any, x: np.ndarray, rng: np.random.Generator, estimator: Any = S) -> Any:
    """log p(x | z) of a hidden Markov model, x (steps, batch)."""
    steps, batch = x.shape
    z = scg.sample(dist.Categorical(logits=np.zeros((batch, len(loc)))), estimator, rng=rng)
    total = 0.0
    for t in range(steps):
        total = total - 0.5 * np.sum((x[t] - loc[z]) ** 2)
        if t + 1 < steps:
            z = scg.sample(dist.Categorical(logits=step[z]), estimator, rng=rng)
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


def marginal(step: Any, loc: Any, x: np.ndarray, rng: np.random.Generator) -> Any:
    """log p(x) of that model, as a node that an optimizer takes."""
    return scg.objectives.log_marginal(hidden(step, loc, x, rng, scg.Marginalize()))


def by_pyro(step: np.ndarray, loc: np.ndarray, x: np.ndarray) -> Callable[[], Any] | None:
    """The same by Pyro's DiscreteHMM, which eliminates in parallel over time; None where it is not installed."""
    try:
        import pyro.distributions as pyro_dist  # type: ignore[import-not-found]
        import torch
    except ImportError:
        return None
    torch.set_num_threads(1)
    first = torch.zeros(len(loc), dtype=torch.float64)
    data = torch.tensor(x.T)

    def call() -> Any:
        a, b = (torch.tensor(v, requires_grad=True) for v in (step, loc))
        moves = torch.cat([torch.zeros_like(a)[None], a[None].expand(len(x) - 1, -1, -1)])
        emitted = pyro_dist.Normal(b, torch.ones((), dtype=torch.float64))
        model = pyro_dist.DiscreteHMM(first, moves, emitted, duration=len(x))
        value = torch.sum(model.log_prob(data)) + 0.5 * np.log(2 * np.pi) * x.size
        value.backward()
        return value.item(), a.grad.numpy(), b.grad.numpy()

    return call


def timed(call: Callable[[], Any], rounds: int = 2) -> tuple[Any, float]:
    """A result and its seconds of CPU time, the best of some."""
    best = np.inf
    for _ in range(rounds):
        start = time.process_time()
        result = call()
        best = min(best, time.process_time() - start)
    return result, best


def rows(quick: bool) -> Iterator[list[str]]:
    """The rows of the table: what, seconds of trace, of the result, of the gradient (or the moments), the width, what
    was found, and by how much it is off from a recursion by hand."""
    geometric = lambda n: sum(0.6**i for i in range(n))
    mean = lambda n: 0.5 * n
    for n in (20, 60, 300) if quick else (20, 60, 500, 2000):
        yield _both(f"chain of {n} coins", chain(n), np.array(0.5), mean(n), geometric(n))
    steps, batch = (10, 100) if quick else (50, 2000)
    name = f"{batch} chains of {steps} coins"
    yield _both(name, chain(steps, batch), np.array(0.5), batch * mean(steps), batch * geometric(steps))
    yield _both("tree of 1000 coins", tree, np.array(0.3), *tree_by_hand(0.3))
    yield _both("3 x 40 grid", grid, np.array(0.3), grid_by_hand(0.3))
    t = np.array([0.1, 0.2, 0.3])
    yield _both("4 chains of 3 states, 40 steps", factorial, t, factorial_by_hand(t))
    for n in (20,) if quick else (20, 60):
        yield _both(f"b J b of {n} coupled coins", chain(n, 1, True), np.array(0.5))
    for n in (20,) if quick else (20, 100, 500):
        yield _both(f"chain of {n} Gaussians", gaussians(n), np.array(0.3), *gaussians_by_hand(0.3, n))
    loo = scg.ScoreFunction(samples=2, baseline=scg.LeaveOneOut())
    for n in (20,) if quick else (60, 500):
        graph, made = timed(lambda n=n: scg.trace(chain(n), np.array(0.5), rng=np.random.default_rng(0)))
        for name, estimator in (("score function", S), ("leave-one-out", loo), ("DisARM", scg.DisARM())):
            bound = graph.bind({"*": estimator})
            found, a = timed(lambda g=bound: scg.exact.moments(g, full=True), 1)
            off = abs(found.value.mean - geometric(n))
            yield _row(f"moments, {name}, {n} coins", made, None, a, found, np.sum(found.value.variance), off)
    for n in (20,) if quick else (20, 200):
        value, slope = walk_by_hand(np.zeros((5, 2)), n)
        yield _both(f"policy, {n} steps", lambda t, rng, n=n: walk(t, rng, n), np.zeros((5, 2)), value, slope)
        graph, made = timed(lambda n=n: scg.trace(walk, np.zeros((5, 2)), rng=np.random.default_rng(0), steps=n))
        found, a = timed(lambda g=graph: scg.exact.moments(g, full=True), 1)
        off = np.max(np.abs(found.value.mean - slope))
        yield _row(f"moments, costs-to-go, {n} steps", made, None, a, found, np.sum(found.value.variance), off)
        roots = whole_returns(graph)
        known, a = timed(lambda roots=roots: eliminated_moments(roots, {}, 2**20, np.inf), 1)
        (m,), (q,) = known[:2]
        name = f"moments, REINFORCE, {n} steps"
        off = np.max(np.abs(m - slope))
        yield [name, *_seconds(None, None, a), str(known[-1].elements), f"{np.sum(q - m * m):.6g}", f"{off:.0e}"]
    data = np.random.default_rng(2)
    states, steps, batch = (4, 20, 3) if quick else (16, 500, 64)
    step, loc, x = data.normal(size=(states, states)), data.normal(size=states), data.normal(size=(steps, batch))
    yield from _of_hidden_markov_model(step, loc, x)
    yield ["30 pairwise coupled coins", *_refused()]


def _both(name: str, fn: Callable[..., Any], t: np.ndarray, value: float = np.nan, slope: Any = np.nan) -> list[str]:
    graph, made = timed(lambda: scg.trace(fn, t, rng=np.random.default_rng(0)))
    mean, a = timed(lambda: scg.exact.expectation(graph, full=True))
    found, b = timed(lambda: scg.exact.gradient(graph))
    off = [abs(mean.value - value) / max(1, abs(value)), np.max(np.abs(found - slope)) / max(1, np.max(np.abs(slope)))]
    return _row(name, made, a, b, mean, mean.value, max([d for d in off if np.isfinite(d)], default=None))


def _row(name: str, made: Any, a: Any, b: Any, found: Any, value: Any, off: Any) -> list[str]:
    return [name, *_seconds(made, a, b), str(found.width.elements), f"{value:.6g}", "" if off is None else f"{off:.0e}"]


def _of_hidden_markov_model(step: np.ndarray, loc: np.ndarray, x: np.ndarray) -> Iterator[list[str]]:
    graph, made = timed(lambda: scg.trace(hidden, step, loc, x, argnums=(0, 1), rng=np.random.default_rng(0)))
    known, a = timed(lambda: scg.exact.log_evidence(graph, full=True))
    (value, slopes), b = timed(lambda: scg.exact.log_evidence(graph, gradient=True))
    (other, *by_hand), c = timed(lambda: forward_backward(step, loc, x), 5)

    def off(value: float, slopes: Any) -> float:
        return max([abs(value / other - 1), *[np.max(np.abs(g - h)) for g, h in zip(slopes, by_hand, strict=True)]])

    size = f"{len(loc)} states, {len(x)} steps, batch {x.shape[1]}"
    yield _row(f"HMM, {size}", made, a, b, known, value, off(value, slopes))
    train = scg.compile(scg.value_and_grad(marginal, argnums=(0, 1)))
    train(step, loc, x, np.random.default_rng(0))
    (value, slopes), d = timed(lambda: train(step, loc, x, np.random.default_rng(0)), 5)
    yield ["  log_marginal, compiled", *_seconds(None, None, d), "", f"{value:.6g}", f"{off(value, slopes):.0e}"]
    yield ["  by hand", *_seconds(None, None, c), "", f"{other:.6g}", ""]
    call = by_pyro(step, loc, x)
    if call is None:
        yield ["  Pyro", "", "", "not installed", "", "", ""]
        return
    (value, *slopes), e = timed(call)
    yield ["  Pyro, DiscreteHMM", *_seconds(None, None, e), "", f"{value:.6g}", f"{off(value, slopes):.0e}"]


def _refused() -> list[str]:
    def fn(t: Any, rng: np.random.Generator) -> Any:
        b = scg.sample(dist.Bernoulli(logits=t), S, rng=rng)
        return np.sum(np.tanh(b[:, None] * b) * np.triu(np.ones((30, 30)), 1))

    graph, made = timed(lambda: scg.trace(fn, np.zeros(30), rng=np.random.default_rng(0)))
    start = time.process_time()
    try:
        scg.exact.log_evidence(graph)
    except scg.exact.BudgetError as error:
        width = error.width.elements if error.width else 0
        return [*_seconds(made, time.process_time() - start, None), str(width), "refused", ""]
    return [*_seconds(made, None, None), "", "not refused", ""]


def _seconds(*times: float | None) -> list[str]:
    return ["" if t is None else f"{t:.3f}" for t in times]


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes")
    options = parser.parse_args(arguments)
    found = [["", "trace", "result", "gradient or moments", "width", "found", "off"]]
    for row in rows(options.quick):
        found.append(row)
        print(*row, sep="  ", flush=True)
    print(table(found))
    save({"versions": versions("numpy"), "rows": found}, RESULTS / "elimination.json")


if __name__ == "__main__":
    main()
