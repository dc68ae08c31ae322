"""What a stochastic node costs, and how many gradient replicates a second the vectorised replay gives.

``replicates``: 200 Bernoulli variables, leave-one-out with two samples, cost mean((b - .499)^2), float64: gradients a second, beside NumPy written
by hand, JAX (vmap and jit) and a loop of PyTorch steps. ``node``: microseconds that one score-function node with ten descendants adds to a
gradient: its distribution, its draw, and its share of the surrogate.
"""

import argparse

import numpy as np

import scg
from benchmarks.timing import RESULTS, interleaved, medians, save, table, versions
from scg import distributions as dist

SIZE, SHIFT = 200, 0.499


def cost(theta, rng):
    rule = scg.ScoreFunction(samples=2, baseline=scg.LeaveOneOut())
    b = scg.sample(dist.Bernoulli(logits=theta), rule, rng=rng, name="b")
    return np.mean((b - SHIFT) ** 2)


def by_hand(theta, rng, replicates):
    """(F_1 - F_2)(s_1 - s_2) / 2 for each element, with its own costs only."""
    p = 1 / (1 + np.exp(-theta))
    b = (rng.random((2, replicates, SIZE)) < p).astype(float)
    f, s = (b - SHIFT) ** 2 / SIZE, b - p
    return (f[0] - f[1]) * (s[0] - s[1]) / 2


def jax_replicates(replicates):
    """The same by vmap of a gradient, compiled; None where JAX is missing."""
    try:
        import jax
        import jax.numpy as jnp
    except ImportError:
        return None
    jax.config.update("jax_enable_x64", True)

    def surrogate(theta, key):
        p = jax.nn.sigmoid(theta)
        b = jax.lax.stop_gradient((jax.random.uniform(key, (2, SIZE), dtype=theta.dtype) < p).astype(theta.dtype))
        f = (b - SHIFT) ** 2 / SIZE
        log_p = b * theta - jax.nn.softplus(theta)
        return jnp.sum(jax.lax.stop_gradient(f[0] - f[1]) * (log_p[0] - log_p[1])) / 2

    run = jax.jit(jax.vmap(jax.grad(surrogate), in_axes=(None, 0)))
    theta, keys = jnp.zeros(SIZE), jax.random.split(jax.random.PRNGKey(0), replicates)
    return lambda: run(theta, keys).block_until_ready()


def torch_replicates(replicates):
    """A loop of single steps; None where PyTorch is missing."""
    try:
        import torch
    except ImportError:
        return None
    torch.set_num_threads(1)
    theta = torch.zeros(SIZE, dtype=torch.float64, requires_grad=True)

    def step():
        law = torch.distributions.Bernoulli(logits=theta, validate_args=False)
        b = law.sample((2,))
        f, log_p = (b - SHIFT) ** 2 / SIZE, law.log_prob(b)
        return torch.autograd.grad((((f[0] - f[1]) * (log_p[0] - log_p[1])).sum() / 2), theta)

    return lambda: [step() for _ in range(replicates)]


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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicates", type=int, default=20_000, help="gradients in one measurement (default 20000)")
    parser.add_argument("--rounds", type=int, default=11, help="interleaved rounds of which the median is taken (default 11)")
    parser.add_argument("--out", default=RESULTS / "draws.json", help="where the numbers go as JSON (default benchmarks/results/draws.json)")
    options = parser.parse_args()
    theta, rng = np.zeros(SIZE), np.random.default_rng(0)
    graph = scg.trace(cost, theta, rng=rng)
    few = max(options.replicates // 50, 1)
    subjects = {
        "NumPy by hand": lambda: by_hand(theta, rng, options.replicates),
        "scg": lambda: graph.gradients(rng=rng, replicates=options.replicates),
    }
    counts = dict.fromkeys(subjects, options.replicates)
    for name, run, count in (("JAX vmap+jit", jax_replicates(options.replicates), options.replicates), ("PyTorch loop", torch_replicates(few), few)):
        if run is None:
            print(f"{name} left out: not installed")
        else:
            subjects[name], counts[name] = run, count
    seconds = medians(interleaved(subjects, options.rounds))
    rates = {name: counts[name] / seconds[name] for name in subjects}
    print(", ".join(f"{name} {version}" for name, version in versions("numpy", "jax", "torch").items() if version))
    print(f"\ngradient replicates a second, {SIZE} Bernoulli variables, medians of {options.rounds} rounds")
    print(table([["", "a second", "times by hand"], *[[name, rate, rate / rates["NumPy by hand"]] for name, rate in rates.items()]]))
    nodes = medians(interleaved(node_subjects(rng), options.rounds), 1e6 / 200)
    print(f"\nmicroseconds a gradient, ten operations on ten numbers, medians of {options.rounds} rounds")
    print(table([["", "us", "more than none"], *[[name, us, us - nodes["no node"]] for name, us in nodes.items()]]))
    save({"versions": versions("numpy", "scipy", "jax", "torch"), "replicates a second": rates, "us a gradient": nodes}, options.out)


if __name__ == "__main__":
    main()
