"""Gradient replicates a second: 200 Bernoulli variables, leave-one-out with two samples, cost mean((b - .499)^2),
float64.

``scg`` is ``graph.gradients(replicates=)``, which is given the cost and an estimator; every coin meets its own term of
the mean because the engine finds that they do not mix. The others are told so by hand: NumPy and JAX (vmap of a
gradient, compiled) by formula, PyTorch as a loop of steps and as one batch, and Storchastic, which knows coins as a
plate, likewise. What works on a batch may choose its size: the fastest of some is taken.

Each is checked first: mean and variance of its gradients against the exact ones. Then rounds are interleaved, and
medians taken.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import scg
from benchmarks.timing import RESULTS, interleaved, medians, save, table, versions
from scg import distributions as dist

SIZE, SHIFT = 200, 0.499
MEAN, VARIANCE = (1 - 2 * SHIFT) / 4 / SIZE, (1 - 2 * SHIFT) ** 2 / 16 / SIZE**2
"""Of the gradient for one logit, at 0."""

BATCHES = (250, 1000, 4000, 20_000)
Run = Callable[[int], Any]
"""So many gradients, at once, as an array with them along its leading axis."""


def with_scg() -> Run:
    """A cost, an estimator, replicates."""

    def cost(theta: Any, rng: Any) -> Any:
        estimator = scg.ScoreFunction(samples=2, baseline=scg.LeaveOneOut())
        return np.mean((scg.sample(dist.Bernoulli(logits=theta), estimator, rng=rng, name="b") - SHIFT) ** 2)

    rng = np.random.default_rng(0)
    graph = scg.trace(cost, np.zeros(SIZE), rng=rng)
    return lambda n: graph.gradients(rng=rng, replicates=n)


def with_numpy() -> Run:
    """(F_1 - F_2)(s_1 - s_2) / 2 for each coin, with its own costs only."""
    theta, rng = np.zeros(SIZE), np.random.default_rng(0)

    def run(n: int) -> Any:
        p = 1 / (1 + np.exp(-theta))
        b = (rng.random((2, n, SIZE)) < p).astype(float)
        f, s = (b - SHIFT) ** 2 / SIZE, b - p
        return (f[0] - f[1]) * (s[0] - s[1]) / 2

    return run


def with_jax() -> Run:
    """vmap of a gradient of a surrogate loss, compiled."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)

    def surrogate(theta: Any, key: Any) -> Any:
        p = jax.nn.sigmoid(theta)
        b = jax.lax.stop_gradient((jax.random.uniform(key, (2, SIZE), dtype=theta.dtype) < p).astype(theta.dtype))
        f = (b - SHIFT) ** 2 / SIZE
        log_p = b * theta - jax.nn.softplus(theta)
        return jnp.sum(jax.lax.stop_gradient(f[0] - f[1]) * (log_p[0] - log_p[1])) / 2

    each = jax.vmap(jax.grad(surrogate), in_axes=(None, 0))
    compiled = jax.jit(lambda theta, key, n: each(theta, jax.random.split(key, n)), static_argnums=2)
    theta, state = jnp.zeros(SIZE), [jax.random.PRNGKey(0)]

    def run(n: int) -> Any:
        state[0], key = jax.random.split(state[0])
        return compiled(theta, key, n).block_until_ready()

    return run


def with_torch() -> Run:
    """One batch: the logits are expanded to a row for each gradient, so that autograd keeps them apart."""
    import torch

    theta = torch.zeros(SIZE, dtype=torch.float64)

    def run(n: int) -> Any:
        rows = theta.expand(n, SIZE).detach().requires_grad_()
        distribution = torch.distributions.Bernoulli(logits=rows, validate_args=False)
        b = distribution.sample((2,))
        f, log_p = (b - SHIFT) ** 2 / SIZE, distribution.log_prob(b)
        return torch.autograd.grad(((f[0] - f[1]) * (log_p[0] - log_p[1])).sum() / 2, rows)[0]

    return run


def with_torch_loop() -> Run:
    """A step for each gradient."""
    import torch

    step = with_torch()
    return lambda n: torch.cat([step(1) for _ in range(n)])


def with_storchastic() -> Run:
    """One batch: a plate of coins, each gradient with its own."""
    import storch
    import torch

    def run(n: int) -> Any:
        rows = torch.zeros(n * SIZE, dtype=torch.float64, requires_grad=True)
        method = storch.method.ScoreFunction("b", n_samples=2, baseline_factory="batch_average")
        b = method(
            torch.distributions.Bernoulli(logits=storch.denote_independent(rows, 0, "coins"), validate_args=False)
        )
        storch.add_cost((b - SHIFT) ** 2, "cost")
        storch.backward()
        return rows.grad.reshape(n, SIZE) * n  # the cost is the mean over all coins of the batch

    return run


def with_storchastic_loop() -> Run:
    """A step for each gradient."""
    import torch

    step = with_storchastic()
    return lambda n: torch.cat([step(1) for _ in range(n)])


LOOPS = {"PyTorch, a loop": with_torch_loop, "Storchastic, a loop": with_storchastic_loop}
SUBJECTS: dict[str, Callable[[], Run]] = {
    "NumPy by hand": with_numpy,
    "scg": with_scg,
    "JAX, vmap and jit": with_jax,
    "PyTorch, one batch": with_torch,
    "Storchastic, one batch": with_storchastic,
    **LOOPS,
}


def wrong(run: Run, n: int) -> str:
    """What is wrong with the mean and the variance of n x 200 gradients; the empty string if nothing is.

    A gradient here is 0 or 2 MEAN, both with probability 1/2: with N = 200 n, the mean has the standard error MEAN /
    N^(1/2), and the variance is within VARIANCE z^2 / N of MEAN^2. z = 6: once in 5 * 10^8.
    """
    g = np.asarray(run(n), float)
    if g.shape != (n, SIZE):
        return f"gradients of shape {g.shape}, not {(n, SIZE)}"
    off = abs(g.mean() - MEAN) / (MEAN / g.size**0.5)
    spread = abs(g.var() / VARIANCE - 1) * g.size
    return (
        ""
        if off < 6 and spread < 36 + 1e-3 * g.size**0.5
        else f"mean {g.mean():.4g} and variance {g.var():.4g}, not {MEAN:.4g} and {VARIANCE:.4g}"
    )


def best(run: Run, gradients: int) -> int:
    """The size of batches that takes least processor time, in the best of three trials after a first one."""
    found = {}
    for n in [n for n in BATCHES if n <= gradients] or [gradients]:
        trials: list[float] = []
        for _ in range(4):
            timed(run, n, max(gradients // n, 1), trials)
        found[n] = min(trials[1:]) / max(gradients // n, 1) / n
    return min(found, key=found.__getitem__)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers.coins",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--replicates",
        type=int,
        default=20_000,
        metavar="N",
        help="gradients in one measurement; a loop makes a fiftieth (default 20000)",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=11,
        metavar="R",
        help="interleaved rounds of which the median is taken (default 11)",
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        metavar="N",
        help="of PyTorch; JAX and NumPy's BLAS have their own settings (default 1)",
    )
    parser.add_argument(
        "--out",
        default=RESULTS / "coins.json",
        metavar="FILE",
        help="where the numbers go as JSON (default benchmarks/results/coins.json)",
    )
    options = parser.parse_args()
    subjects, counts, batches, processor = {}, {}, {}, {}
    for name, make in SUBJECTS.items():
        try:
            run = make()
            fault = wrong(run, 20 if name in LOOPS else 500)
        except ImportError as error:
            print(f"{name} left out: {error.name or error} is not installed")
            continue
        if "torch" in name.lower() or "storch" in name.lower():
            import torch

            torch.set_num_threads(options.threads)
        if fault:
            print(f"{name} left out: {fault}")
            continue
        counts[name] = max(options.replicates // 50, 1) if name in LOOPS else options.replicates
        batches[name] = counts[name] if name in LOOPS or name == "scg" else best(run, counts[name])
        subjects[name] = lambda run=run, name=name: timed(
            run, batches[name], counts[name] // batches[name], processor.setdefault(name, [])
        )
        counts[name] = counts[name] // batches[name] * batches[name]
    seconds = medians(interleaved(subjects, options.rounds))
    rates = {name: counts[name] / seconds[name] for name in subjects}
    # the first round is not measured
    busy = {name: counts[name] / statistics.median(processor[name][1:]) for name in subjects}
    used = versions("numpy", "scg", "jax", "torch", "storchastic")
    print(", ".join(f"{name} {version}" for name, version in used.items() if version), f"on {os.cpu_count()} cores")
    print(f"\ngradients a second, medians of {options.rounds} rounds")
    rows = [
        [n, rates[n], rates[n] / rates["scg"], busy[n], busy[n] / busy["scg"], 1 if n in LOOPS else batches[n]]
        for n in subjects
    ]
    print(table([["", "a second", "times scg", "a second of processor time", "times scg", "in batches of"], *rows]))
    save(
        {
            "versions": used,
            "cores": os.cpu_count(),
            "rounds": options.rounds,
            "a second": rates,
            "a second of processor time": busy,
            "batches": batches,
        },
        options.out,
    )


def timed(run: Run, batch: int, times: int, processor: list[float]) -> None:
    """So many batches; their processor time, of all threads, is added to the list: on a busy machine it says more than
    the clock on the wall."""
    start = time.process_time()
    for _ in range(times):
        run(batch)
    processor.append(time.process_time() - start)


if __name__ == "__main__":
    main()
