"""A gallery of small stochastic computation graphs, each with its exact and its estimated gradients.

    schulman-1 ... schulman-5   the five graphs of figure 1 in Schulman, Heess, Weber and Abbeel (2015)
    sum, integral, both         gradients that become stochastic when a sum, an integral, or both are sampled
    density                     the parameter inside the density: score function, measure-valued, pathwise
    policy                      a policy gradient in a decision process of three states and two actions

Every graph is printed (θ parameter, ○ sample, □ function, ■ cost), drawn as SVG and DOT, and differentiated: exactly,
by a weighted sum over all values of its samples, and by estimators, whose means over independent replicates stand
beside it with their standard errors.
"""

import argparse
import itertools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import scg
from examples.options import Help, directory
from scg import distributions as dist
from scg.stochastic.estimator import Estimator

TAKES = "a tenth of a minute"
LARGE = 30  # nodes; of larger graphs the picture shows parameters, stochastic nodes and costs only

Rng = np.random.Generator
Cost = Callable[..., Any]


# the graphs: costs of a parameter t, drawn from rng


def coin(logits: Any, rng: Rng, name: str) -> Any:
    """A draw from {0, 1}; which estimator differentiates it is chosen below."""
    return scg.sample(dist.Bernoulli(logits=logits), scg.ScoreFunction(), rng=rng, name=name)


def schulman_1(t: Any, rng: Rng) -> Any:
    x = np.sin(t)
    y = coin(x, rng, "y")
    return (y - 0.3) ** 2


def schulman_2(t: Any, rng: Rng) -> Any:
    x = coin(t, rng, "x")
    y = np.exp(x)
    return (y - 2) ** 2


def schulman_3(t: Any, rng: Rng) -> Any:
    x = coin(t, rng, "x")
    y = coin(2 * x - 1, rng, "y")
    return (y - 0.3) ** 2


def schulman_4(t: Any, rng: Rng) -> Any:
    x = coin(t, rng, "x")
    y = t**2
    return x * y + np.sin(y)


def schulman_5(t: Any, rng: Rng) -> Any:
    x0 = 0.5
    x1 = coin(t * x0, rng, "x1")
    x2 = coin(t + x1 - x0, rng, "x2")
    return (x1 - 0.2) ** 2 + 3 * (x2 - 0.6) ** 2


DATA = np.array([-1.0, 0.5, 2.0, 0.0, 1.5, 3.0])


def sampled_sum(t: Any, rng: Rng) -> Any:
    batch = scg.minibatch(len(DATA), 2, rng=rng, name="rows")
    return batch.factor * np.sum((t - batch.rows(DATA)) ** 2)


def sampled_integral(t: Any, rng: Rng) -> Any:
    z = scg.sample(dist.Normal(0.5, 1.0), scg.Reparameterized(), rng=rng, name="z")
    return (t * z - 1) ** 2


def sampled_both(t: Any, rng: Rng) -> Any:
    batch = scg.minibatch(len(DATA), 2, rng=rng, name="rows")
    z = scg.sample(dist.Normal(0.5, 1.0), scg.Reparameterized(), rng=rng, shape=2, name="z")
    return batch.factor * np.sum((t * z - batch.rows(DATA)) ** 2)


def density(t: Any, rng: Rng) -> Any:
    z = scg.sample(dist.Normal(t, 1.0), scg.Reparameterized(), rng=rng, name="z")
    return (z - 1) ** 2


HORIZON, STATES = 4, 3
REWARD = np.array([[0.0, 0.1], [0.2, -0.1], [1.0, 0.3]])  # for each state and action
MOVE = np.array(  # probabilities of the next state, for each state and action
    [[[0.8, 0.15, 0.05], [0.2, 0.7, 0.1]], [[0.6, 0.3, 0.1], [0.1, 0.3, 0.6]], [[0.85, 0.1, 0.05], [0.1, 0.3, 0.6]]]
)


def policy(t: Any, rng: Rng, episodes: int = 8) -> Any:
    """Minus the mean return of episodes of four steps that start in state 0; action a has probability
    softmax(t[state])[a].

    States and actions are one-hot vectors.
    """
    state, rewards = np.tile(np.eye(STATES)[0], (episodes, 1)), []
    for k in range(HORIZON):
        action = scg.sample(dist.OneHotCategorical(logits=state @ t), scg.ScoreFunction(), rng=rng, name=f"action_{k}")
        rewards.append(np.einsum("es,ea,sa->e", state, action, REWARD))
        if k < HORIZON - 1:
            move = dist.OneHotCategorical(probs=np.einsum("es,ea,sam->em", state, action, MOVE))
            state = scg.sample(move, scg.ScoreFunction(), rng=rng, name=f"state_{k + 1}")
    return -np.mean(sum(rewards))


@dataclass(frozen=True)
class Entry:
    """One graph: what it shows, the cost, where it is differentiated, and the bindings (draw: estimator) to compare."""

    title: str
    formula: str
    cost: Cost
    theta: np.ndarray
    bindings: dict[str, dict[str, Estimator]]
    whole: Cost | None = None  # a smaller cost of the same expectation, to be enumerated

    def graph(self, rng: Rng) -> scg.Graph:
        """The graph of one run."""
        return scg.trace(self.cost, self.theta, rng=rng)

    def exact(self) -> np.ndarray:
        """d E[cost] / d theta."""
        return exact_gradient(scg.trace(self.whole or self.cost, self.theta, rng=np.random.default_rng(0)))


def discrete(*names: str) -> dict[str, dict[str, Estimator]]:
    """Four estimators for draws that take finitely many values."""
    two = scg.ScoreFunction(samples=2, baseline=scg.LeaveOneOut())
    made = {
        "score function": scg.ScoreFunction(),
        "leave-one-out": two,
        "DisARM": scg.DisARM(),
        "enumerate": scg.Enumerate(),
    }
    return {label: dict.fromkeys(names, estimator) for label, estimator in made.items()}


AS_WRITTEN: dict[str, dict[str, Estimator]] = {"sampled": {}}
T = np.array(0.7)
ENTRIES = {
    "schulman-1": Entry("a function, then a draw", "E[dx/dt  d log p(y | x)/dx  f(y)]", schulman_1, T, discrete("y")),
    "schulman-2": Entry("a draw, then a function", "E[d log p(x | t)/dt  f(y(x))]", schulman_2, T, discrete("x")),
    "schulman-3": Entry("a draw, then a draw", "E[d log p(x | t)/dt  f(y)]", schulman_3, T, discrete("x")),
    "schulman-4": Entry(
        "a draw and a function side by side",
        "E[d log p(x | t)/dt  f(x, y) + dy/dt  df/dy]",
        schulman_4,
        T,
        discrete("x"),
    ),
    "schulman-5": Entry(
        "a chain with a cost at each step",
        "E[d log p(x1 | t, x0)/dt  (f1 + f2) + d log p(x2 | t, x1)/dt  f2]",
        schulman_5,
        T,
        discrete("x1", "x2"),
    ),
    "sum": Entry(
        "a sum, sampled by a minibatch B of b from n",
        "E[(n / b) sum over i in B of df_i/dt]",
        sampled_sum,
        T,
        AS_WRITTEN,
    ),
    "integral": Entry("an integral, sampled by z ~ p", "E[df(z, t)/dt]", sampled_integral, T, AS_WRITTEN),
    "both": Entry(
        "a sum of integrals: doubly stochastic",
        "E[(n / b) sum over i in B of df_i(z_i, t)/dt]",
        sampled_both,
        T,
        AS_WRITTEN,
    ),
    "density": Entry(
        "the parameter inside the density: z ~ N(t, 1) = t + e",
        "E[f(z) d log p(z | t)/dt] = c E[f(z+) - f(z-)] = E[f'(z) dz/dt]",
        density,
        T,
        {
            "score function": {"z": scg.ScoreFunction()},
            "measure-valued": {"z": scg.MeasureValued()},
            "pathwise": {"z": scg.Reparameterized()},
        },
    ),
    "policy": Entry(
        "a policy gradient: eight episodes of four steps",
        "E[sum over k of d log p(action k | state k, t)/dt  (cost from step k on, of the same episode)]",
        policy,
        np.array([[0.2, -0.3], [0.0, 0.4], [-0.5, 0.1]]),
        discrete(*[f"action_{k}" for k in range(HORIZON)]),
        whole=lambda t, rng: policy(t, rng, episodes=1),
    ),
}


# the two gradients


def exact_gradient(graph: scg.Graph, points: int = 6) -> np.ndarray:
    """d/dt sum over all values v of all draws of p(v; t) cost(v; t): one replay of the graph, with a leading axis of
    alternatives.

    Normal draws are taken as functions of their noise, and that is summed by a Gauss-Hermite rule: exact for costs that
    are polynomials in it of degree below 2 * ``points``.
    """
    normal = [
        name for name, node in graph.stochastic.items() if isinstance(node.statics["site"].distribution, dist.Normal)
    ]
    graph = graph.bind(dict.fromkeys(normal, scg.Reparameterized()))
    leaves = [node for name, node in graph.stochastic.items() if name not in normal]
    leaves += [node for node in graph.nodes if node.primitive.name == "noise"]
    tables = [_table(leaf, points) for leaf in leaves]
    picks = np.array(list(itertools.product(*[range(len(values)) for values, _ in tables])))
    values = {leaf: table[picks[:, k]] for k, (leaf, (table, _)) in enumerate(zip(leaves, tables, strict=True))}
    weight = np.prod([w[picks[:, k]] for k, (_, w) in enumerate(tables)], axis=0)
    scores = [
        np.sum(leaf.statics["site"].distribution.log_prob(leaf)) for leaf in leaves if leaf.primitive.name == "draw"
    ]
    cost, *logs = scg.replay(
        [graph.cost, *[s for s in scores if isinstance(s, scg.Node)]], values, list(values), create_graph=True
    )
    for log in logs:
        weight = weight * np.exp(log)
    return scg.gradients(np.sum(weight * cost), graph.parameters)


def _table(leaf: scg.Node, points: int) -> tuple[np.ndarray, np.ndarray]:
    """All values of a draw or of noise, and the factors of their weights that do not depend on parameters."""
    if leaf.primitive.name == "noise":
        nodes, weights = np.polynomial.hermite_e.hermegauss(points)
        grid = np.array(list(itertools.product(range(points), repeat=leaf.size)))
        return nodes[grid].reshape(-1, *leaf.shape), np.prod((weights / weights.sum())[grid], axis=1)
    distribution = leaf.statics["site"].distribution
    if np.prod(distribution.batch_shape, initial=1) > 1:
        raise ValueError(f"{leaf}: only single draws are enumerated here")
    atoms = distribution.atoms()
    return atoms.reshape(len(atoms), *leaf.shape), np.full(
        len(atoms), 1.0 if distribution.parameters else 1 / len(atoms)
    )


def estimates(
    graph: scg.Graph, bindings: dict[str, dict[str, Estimator]], rng: Rng, replicates: int
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """For each binding the mean of the estimated gradient over independent replicates, and its standard error."""
    found = {}
    for label, binding in bindings.items():
        gradients = graph.bind(binding).gradients(rng=rng, replicates=replicates)
        found[label] = gradients.mean(axis=0), gradients.std(axis=0, ddof=1) / np.sqrt(replicates)
    return found


# what a person sees


def show(name: str, entry: Entry, out: Path, seed: int, replicates: int) -> None:
    """Print one graph and its gradients, and draw it to ``out``."""
    rng = np.random.default_rng(seed)
    graph = entry.graph(rng)
    print(f"{name}: {entry.title}\nd/dt E[cost] = {entry.formula}\n\n{graph}\n")
    graph.save(out / f"{name}.svg", detail=len(graph.nodes) < LARGE)
    (out / f"{name}.dot").write_text(graph.to_dot() + "\n", encoding="utf-8")
    exact, found = entry.exact(), estimates(graph, entry.bindings, rng, replicates)
    print(f"{'':10}{'exact':>12}" + "".join(f"{label:>24}" for label in found))
    for index in np.ndindex(exact.shape):
        label = "d/dt" + (f"[{', '.join(map(str, index))}]" if index else "")
        print(
            f"{label:10}{exact[index]:>12.6f}"
            + "".join(f"{mean[index]:>12.6f} +- {error[index]:.6f}" for mean, error in found.values())
        )
    print()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the gallery; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m examples.gallery", description=__doc__, formatter_class=Help)
    parser.add_argument("names", metavar="NAME", nargs="*", help="the graphs to show (default: all)")
    parser.add_argument("--out", metavar="DIR", type=directory, default="runs/gallery", help="where the pictures go")
    parser.add_argument(
        "--replicates", metavar="N", type=int, default=20_000, help="independent estimates of each gradient"
    )
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="of all draws")
    options = parser.parse_args(argv)
    unknown = [name for name in options.names if name not in ENTRIES]
    if unknown:
        parser.error(f"no graph is called {unknown[0]}; there are {', '.join(ENTRIES)}")
    if options.replicates < 2:
        parser.error(f"argument --replicates: expected at least 2, got {options.replicates}")
    if options.seed < 0:
        parser.error(f"argument --seed: expected at least 0, got {options.seed}")
    out = Path(options.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name in options.names or ENTRIES:
            show(name, ENTRIES[name], out, options.seed, options.replicates)
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"pictures: {out}/*.svg and {out}/*.dot")
    return 0


if __name__ == "__main__":
    sys.exit(main())
