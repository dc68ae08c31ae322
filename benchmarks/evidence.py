"""Bias and variance of bounds on log p(x), and of their gradients, against the number of samples: exact, on a coin and
on a Gaussian.

A coin z with p(z = 1, x) = 0.6 exp(theta) and p(z = 0, x) = 0.25, theta = 0, and a guide with logit phi = 0.4: all
samples are enumerated. A Gaussian, z ~ N(theta, 1), x | z ~ N(z, 0.8^2), with the guide N(phi, 0.8^2): by quadrature
for at most two samples, beyond that by replicates (the standard deviations alone). For each objective: E[bound] - log
p(x), the mean of the gradient in theta less d log p(x) / dtheta, and the mean of the gradient in phi less the
derivative of E[bound] in phi, with the standard deviations of both gradients.

Estimates without bias are sampled, with their standard errors and the tail index of their values (Hill): a second
moment needs an index above two. So is a particle filter of a hidden Markov model of four states: how many standard
errors its estimate of p(x), and the worst derivative of that, are off over 10^5 runs, by each correction; and its bound
on log p(x) against the number of particles. Last, seconds and memory of the value and the gradient of a filter of 1000
particles on a linear Gaussian model, a batch of 16, against the number of steps.
"""

import argparse
import math
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import scg
from benchmarks.timing import RESULTS, save, table, versions
from scg import distributions as dist
from scg import objectives

AT = np.array([0.0, 0.4])
GAUSSIAN = np.array([0.2, 0.6])
X = 1.3


def coin(parameters: Any) -> tuple[Callable[[Any], Any], Any]:
    """The model and the guide at (theta, phi)."""
    return lambda z: z * (math.log(0.6) + parameters[0]) + (1 - z) * math.log(0.25), dist.Bernoulli(
        logits=parameters[1]
    )


def gaussian(parameters: Any) -> tuple[Callable[[Any], Any], Any]:
    """The same of the Gaussian: the model as a prior and log p(x | z)."""
    prior = dist.Normal(parameters[0], 1.0)
    return lambda z: (prior, dist.Normal(z, 0.8).log_prob(X)), dist.Normal(parameters[1], 0.8)


def whole(objective: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """An objective of a model and a guide."""
    return lambda model, guide, k, rng: objective(model, guide=guide, samples=k, rng=rng, **options)


def weighed(fn: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """One of log-weights, whose samples have the score function."""

    def bound(model: Any, guide: Any, k: int, rng: np.random.Generator) -> Any:
        z = scg.sample(guide, scg.ScoreFunction(), rng=rng, shape=k)
        return fn(model(z) - guide.log_prob(z), **options)

    return bound


def held(fn: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """One of held samples."""
    return lambda model, guide, k, rng: fn(model, guide, objectives.hold(guide, samples=k, rng=rng), **options)


def wake(model: Any, guide: Any, k: int, rng: np.random.Generator) -> Any:
    """Reweighted wake-sleep: the bound, whose gradient is the model's, and for the guide the wake phase."""
    z = objectives.hold(guide, samples=k, rng=rng)
    phi = objectives.wake_phi(model, guide, z)
    return objectives.wake_theta(model, guide, z) + phi - scg.stop_gradient(phi)


COINS: dict[str, tuple[Callable[..., Any], int]] = {
    "ELBO, score function": (whole(objectives.elbo, gradient="score function"), 1),
    "ELBO, OVIS": (whole(objectives.elbo, gradient="OVIS"), 2),
    "IWAE, score function": (whole(objectives.iwae, gradient="score function"), 1),
    "IWAE, VIMCO": (whole(objectives.iwae, gradient="VIMCO"), 2),
    "IWAE, OVIS": (whole(objectives.iwae, gradient="OVIS"), 2),
    "IWAE, OVIS, gamma 1": (whole(objectives.iwae, gradient="OVIS", gamma=1.0), 2),
    "Renyi, alpha 0.5": (weighed(objectives.renyi, alpha=0.5), 1),
    "jackknife, order 1": (weighed(objectives.jackknife), 2),
    "jackknife, order 2": (weighed(objectives.jackknife, order=2), 3),
    "TVO, 5 steps": (held(objectives.thermodynamic), 1),
    "wake-sleep": (wake, 1),
}
PATHS: dict[str, Callable[..., Any]] = {
    "ELBO, pathwise": whole(objectives.elbo),
    "ELBO, sticking the landing": whole(objectives.elbo, gradient="sticking the landing"),
    "IWAE, pathwise": whole(objectives.iwae),
    "IWAE, sticking the landing": whole(objectives.iwae, gradient="sticking the landing"),
    "IWAE, doubly reparameterized": whole(objectives.iwae, gradient="doubly reparameterized"),
    "IWAE, generalized doubly reparameterized": whole(objectives.iwae, gradient="generalized doubly reparameterized"),
    "IWAE, score function": whole(objectives.iwae, gradient="score function"),
}


def row(problem: Callable[..., Any], at: np.ndarray, bound: Callable[..., Any], k: int, truth: Any) -> list[float]:
    """The five numbers of an objective at K samples; ``truth``: log p(x), and its derivative."""

    graph = scg.trace(_cost, at, rng=np.random.default_rng(0), problem=problem, bound=bound, k=k)
    found, own = scg.exact.moments(graph), scg.exact.gradient(graph)
    deviations = np.sqrt(found.variance)
    return [
        float(scg.exact.expectation(graph)) - truth[0],
        found.mean[0] - truth[1],
        found.mean[1] - own[1],
        deviations[0],
        deviations[1],
    ]


def exact(most: int) -> Iterator[list[Any]]:
    """Rows of the coin for K = 1, 2, 4, ..., and of the Gaussian for K = 1, 2."""
    truth = math.log(0.85), 0.6 / 0.85
    for name, (bound, least) in COINS.items():
        for k in (1, 2, 4, 8):
            if least <= k <= most:
                yield ["coin", name, k, *row(coin, AT, bound, k, truth)]
    log_p = float(dist.Normal(GAUSSIAN[0], math.sqrt(1.64)).log_prob(X))
    for name, path in PATHS.items():
        for k in (1, 2):
            yield ["Gaussian", name, k, *row(gaussian, GAUSSIAN, path, k, (log_p, (X - GAUSSIAN[0]) / 1.64))]
        for k in (4, 8):
            if k <= most:
                graph = scg.trace(_cost, GAUSSIAN, rng=np.random.default_rng(0), problem=gaussian, bound=path, k=k)
                found = graph.gradients(rng=np.random.default_rng(k), replicates=200_000)
                yield ["Gaussian", name, k, "", "", "", *[float(x) for x in np.std(found, axis=0)]]


def _cost(parameters: Any, problem: Callable[..., Any], bound: Callable[..., Any], k: int, rng: Any) -> Any:
    return bound(*problem(parameters), k, rng)


class Counted:
    """A model that counts the samples it is asked about."""

    def __init__(self, model: Callable[[Any], Any]):
        self.model, self.samples = model, 0

    def __call__(self, z: Any) -> Any:
        self.samples += len(z)
        return self.model(z)


def hill(values: np.ndarray) -> float:
    """The tail index of the largest hundredth of the sizes of values less their median (Hill, 1975)."""
    sizes = np.sort(np.abs(values - np.median(values)))
    top = sizes[-max(20, len(sizes) // 100) :]
    return float(1 / np.mean(np.log(top / top[0])))


def sampled(runs: int) -> Iterator[list[Any]]:
    """Rows of what has no bias, on the Gaussian: its error, the standard deviation, the tail index, samples a run."""
    log_p = float(dist.Normal(GAUSSIAN[0], math.sqrt(1.64)).log_prob(X))
    for name, objective, options in (
        ("SUMO", objectives.sumo, {}),
        ("SUMO, heavy up to 10", objectives.sumo, {"heavy": 10}),
        ("many levels", objectives.multilevel, {}),
        ("many levels, base 4", objectives.multilevel, {"base": 4}),
    ):
        rng, counted = np.random.default_rng(1), 0
        values = np.empty(runs)
        for i in range(runs):
            model, guide = gaussian(GAUSSIAN)
            log_p_of = Counted(model)
            values[i] = objective(log_p_of, guide=guide, rng=rng, **options).value
            counted += log_p_of.samples
        error = float(np.std(values) / math.sqrt(runs))
        yield [name, float(np.mean(values)) - log_p, error, float(np.std(values)), hill(values), counted / runs]


STATES, SYMBOLS, HEARD = 4, 3, (0, 2, 1, 1, 0)
ROWS = np.random.default_rng(3).normal(0, 1.2, STATES * (STATES + SYMBOLS))


def _rows(values: Any) -> tuple[Any, Any]:
    """Logits of the moves of the hidden state, and of what is heard of it."""
    return np.reshape(values[: STATES**2], (STATES, STATES)), np.reshape(values[STATES**2 :], (STATES, SYMBOLS))


def forward(values: Any) -> Any:
    """p(x) of the hidden Markov model by the forward algorithm."""
    moves, emits = (scg.special.softmax(x, -1) for x in _rows(values))
    left = np.full(STATES, 1 / STATES) * emits[:, HEARD[0]]
    for x in HEARD[1:]:
        left = (left @ moves) * emits[:, x]
    return np.sum(left)


def filtered(values: Any, particles: int, rng: Any, log: bool = False, **options: Any) -> Any:
    """A particle filter's estimate of it, or its logarithm."""
    moves, emits = _rows(values)
    seen = scg.special.log_softmax(emits, -1)
    step = objectives.state_space(
        dist.OneHotCategorical(logits=np.zeros(STATES)),
        lambda t, z: dist.OneHotCategorical(logits=z @ moves),
        lambda t, z: z @ seen[:, HEARD[t]],
        particles=particles,
        estimator=scg.ScoreFunction(),
    )
    found = objectives.smc(step, len(HEARD), rng=rng, **options).log_evidence
    return found if log else np.exp(found)


def hidden(runs: int) -> Iterator[list[Any]]:
    """Rows of the filter: standard errors by which p(x) and its worst derivative are off, and the greatest gap of a
    derivative in parts of the greatest derivative."""
    truth, slope = float(forward(ROWS)), scg.grad(forward)(ROWS)
    for resampling in ("systematic", "multinomial"):
        for correction in ("stop gradient", "none"):
            graph = scg.trace(
                filtered, ROWS, 4, rng=np.random.default_rng(0), resampling=resampling, correction=correction
            )
            z = graph.run(rng=np.random.default_rng(1), replicates=runs).cost.raw
            g = graph.gradients(rng=np.random.default_rng(2), replicates=runs)
            off = np.abs(np.mean(g, axis=0) - slope)
            yield [
                f"{resampling}, {correction}",
                float(np.mean(z) - truth) / float(np.std(z) / math.sqrt(runs)),
                float(np.max(off / (np.std(g, axis=0) / math.sqrt(runs)))),
                float(np.max(off) / np.max(np.abs(slope))),
            ]


def particles(runs: int) -> Iterator[list[Any]]:
    """E log Z-hat - log p(x) against the number of particles, with standard errors."""
    truth = math.log(float(forward(ROWS)))
    for k in (1, 2, 4, 8, 16, 64):
        graph = scg.trace(filtered, ROWS, k, rng=np.random.default_rng(0), log=True)
        z = graph.run(rng=np.random.default_rng(k), replicates=runs).cost.raw
        yield [k, float(np.mean(z)) - truth, float(np.std(z) / math.sqrt(runs))]


def large(steps: tuple[int, ...]) -> Iterator[list[Any]]:
    """Rows of a filter of 1000 particles, batch 16: seconds, megabytes of arrays."""
    series = np.cumsum(np.random.default_rng(0).normal(size=(max(steps), 16)), axis=0)

    def cost(theta: Any, x: Any, rng: Any) -> Any:
        step = objectives.state_space(
            dist.Normal(np.zeros(16), 1.0),
            lambda t, z: dist.Normal(theta[0] * z, np.exp(theta[1])),
            lambda t, z: dist.Normal(z, np.exp(theta[2])).log_prob(x[t]),
            particles=1000,
        )
        return np.sum(objectives.smc(step, len(x), rng=rng).log_evidence)

    gradient = scg.value_and_grad(cost)
    for n in steps:
        tracemalloc.start()
        start = time.perf_counter()
        gradient(np.array([1.0, 0.0, 0.0]), series[:n], rng=np.random.default_rng(1))
        seconds, (_, peak) = time.perf_counter() - start, tracemalloc.get_traced_memory()
        tracemalloc.stop()
        yield [n, seconds, peak / 2**20]


def main(arguments: list[str] | None = None) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer samples and runs")
    options = parser.parse_args(arguments)
    start = time.perf_counter()
    heading = ["", "objective", "K", "bias", "theta bias", "phi bias", "theta sd", "phi sd"]
    first = [heading, *exact(2 if options.quick else 8)]
    print(table(first), flush=True)
    runs = 200 if options.quick else 20_000
    second = [["no bias", "error", "+-", "sd", "tail index", "samples"], *sampled(runs)]
    print(f"\n{table(second)}", flush=True)
    third = [["filter of four states", "p(x), s.e.", "worst slope, s.e.", "gap"], *hidden(5 * runs)]
    fourth = [["particles", "log Z-hat", "+-"], *particles(runs)]
    fifth = [["steps", "seconds", "MB"], *large((20, 40) if options.quick else (250, 500, 1000))]
    print(f"\n{table(third)}\n\n{table(fourth)}\n\n{table(fifth)}\n{time.perf_counter() - start:.0f} s")
    save(
        {
            "versions": versions("numpy"),
            "exact": first,
            "sampled": second,
            "filter": third,
            "particles": fourth,
            "large": fifth,
        },
        RESULTS / "evidence.json",
    )


if __name__ == "__main__":
    main()
