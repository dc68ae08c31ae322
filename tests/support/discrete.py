"""Programs of discrete samples, each drawn given a few before it, with local costs."""

import numpy as np

import scg
from scg import distributions as dist
from scg.core.ancestry import ancestors
from scg.core.replay import replay
from scg.stochastic.sites import is_draw


def program(rng, estimator=None):
    """A function of two parameters that draws a handful of discrete values, each given a few before it, and adds up
    local costs of many kinds."""
    steps, pool = [], rng.normal(size=(2, 8))  # some steps are alike
    for k in range(rng.integers(2, 6)):
        before = [int(j) for j in rng.permutation(k)[: rng.integers(0, 3)]]
        steps.append((rng.integers(4), before, pool[rng.integers(2)], rng.integers(3)))
    kinds = [(rng.integers(9), rng.normal(size=6), rng.permutation(len(steps))[:2].tolist()) for _ in range(4)]

    def fn(theta, w, rng):
        draws, numbers = [], []
        for kind, before, c, how in steps:
            given = theta[0] * c[0] + c[1]
            for j in before:
                x = numbers[j]
                given = given + [c[2] * x, np.tanh(theta[1] * x + c[3]), np.where(x > 0.5, c[4], theta[0])][how]
            s = estimator or scg.ScoreFunction()
            if kind == 0:
                z = scg.sample(dist.Bernoulli(logits=given), s, rng=rng, shape=(3,) if np.ndim(given) == 0 else ())
                number = z
            elif kind == 1:
                rows = np.stack([given, 0.3 * given + c[5], 0 * given], axis=-1)
                z = scg.sample(dist.Categorical(logits=rows), s, rng=rng)
                number = (theta[1] * np.array([0.2, 1.0, -0.5]))[z]
            elif kind == 2:
                rows = np.stack([given, c[6] - given], axis=-1)
                z = scg.sample(dist.OneHotCategorical(logits=rows), s, rng=rng)
                number = z[..., 0] - 2 * z[..., 1]
            else:
                z = scg.sample(dist.Bernoulli(probs=1 / (1 + np.exp(-given))), s, rng=rng)
                number = 2 * z - 1
            draws.append(z)
            numbers.append(number)
        cost = 0.0
        for kind, c, (a, *others) in kinds:
            x = numbers[a]
            y = numbers[others[0]] if others else x
            cost = (
                cost
                + [
                    lambda: np.sum(x * y * w[0]),
                    lambda: np.mean(np.exp(c[0] * x)) * theta[1],
                    lambda: np.sum(np.tanh(x + y)) / 3,
                    lambda: np.sum(np.where(x > 0, y, c[1])),
                    lambda: np.sum(np.atleast_1d(x) @ np.full((np.size(x.value), 2), c[2]) * w),
                    lambda: np.sum(np.stack([x * c[3], x + w[1]])),
                    lambda: np.sum(x) * c[4] - np.max(np.maximum(x, y)),
                    lambda: np.sum(np.atleast_1d(x)[..., :1] ** 2 + np.cumsum(np.atleast_1d(y))[-1]),
                    lambda: w[1] * np.sum(np.concatenate([np.atleast_1d(x), np.atleast_1d(y)])[::-1]),
                ][kind]()
            )
        return cost

    return fn


def everywhere(graph, others=(), most=2**7):
    """The logarithms of the probabilities of all configurations of a graph's samples, the cost at each and other nodes:
    nodes, with an axis of rows in front. None where there are too many."""
    draws = [node for node in ancestors([graph.cost]) if is_draw(node)]
    values, rows = {}, 1
    for node in draws:
        site = node.statics["site"]
        batch = node.shape[: node.ndim - site.event_ndim]
        atoms = site.distribution.atoms()
        atoms = np.broadcast_to(
            atoms.reshape(len(atoms), *[1] * (1 + node.ndim - atoms.ndim), *atoms.shape[1:]), (len(atoms), *node.shape)
        )
        atoms = atoms.reshape(len(atoms), int(np.prod(batch, dtype=int)), *node.shape[len(batch) :])
        values[node] = (atoms, rows, batch)
        rows *= len(atoms) ** atoms.shape[1]
        if rows > most:
            return None
    held = {}
    for node, (atoms, stride, _) in values.items():
        places = np.arange(atoms.shape[1])
        digits = np.arange(rows)[:, None] // (stride * len(atoms) ** places) % len(atoms)
        held[node] = atoms[digits, places].reshape(rows, *node.shape).astype(node.dtype)
    logs = sum([np.sum(n.statics["site"].distribution.log_prob(n)) for n in draws])
    with np.errstate(all="ignore"):
        found = replay([logs, graph.cost, *others], held, list(held), create_graph=True)
    return [n if type(n) is scg.Node else scg.stop_gradient(n + 0 * graph.parameters[0][0]) for n in found]
