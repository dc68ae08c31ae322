"""Exact means and variances by brute force: every value of every draw, and Gauss rules for noise. Slow, short, and
independent of the surrogate."""

import itertools

import numpy as np

import scg
from scg.core.axes import padded
from scg.core.backward import pull
from scg.core.node import Node, ancestors
from scg.core.replay import replay
from scg.distributions.base import Discrete, FiniteSupport
from scg.stochastic.sites import draw, noise

LINEAR = {
    "add",
    "subtract",
    "negative",
    "sum",
    "reshape",
    "transpose",
    "broadcast_to",
    "getitem",
    "only_once",
    "stop_gradient",
}


def expectation(node, points=12, budget=300_000):
    """The mean of a node over all draws and noise that lead to it, as a node of the parameters; sums are taken apart
    first."""
    return _mean(node, points, budget, {})


def _mean(node, points, budget, known):
    if not isinstance(node, Node) or not any(
        leaf.primitive in (draw, noise) for leaf in ancestors([node], guards=True)
    ):
        return node
    if node.id not in known:
        name = node.primitive.name
        chancy = [k for k, o in enumerate(node.operands) if _mean_differs(o)]
        linear = (
            name in LINEAR
            and (name != "getitem" or chancy == [0])
            or name == "multiply"
            and len(chancy) == 1
            or name == "divide"
            and chancy == [0]
        )
        if linear and node.guard is None:
            known[node.id] = node.primitive(*[_mean(o, points, budget, known) for o in node.operands], **node.statics)
        else:
            known[node.id] = _enumerated(node, points, budget)
    return known[node.id]


def _mean_differs(operand):
    return isinstance(operand, Node) and any(
        leaf.primitive in (draw, noise) for leaf in ancestors([operand], guards=True)
    )


def _enumerated(node, points, budget):
    columns = []
    for leaf in ancestors([node], guards=True):
        distribution = leaf.statics["site"].distribution if leaf.primitive is draw else None
        while isinstance(distribution, scg.distributions.Independent):
            distribution = distribution.base
        if leaf.primitive is draw and not isinstance(distribution, FiniteSupport):
            distribution = distribution.detached()  # as recorded: its parameters may not depend on other draws
            table, weights = _rule(distribution, points, leaf.shape)
            weights = weights / np.exp(distribution.log_prob(table.reshape(-1, *leaf.shape))).reshape(table.shape)
            columns.append((leaf, *_tuples(table, weights, leaf.shape, leaf.size)))
        elif leaf.primitive is draw:
            atoms = padded(distribution.atoms(), leaf.ndim)
            event = len(distribution.event_shape)
            batch = leaf.shape[: leaf.ndim - event]
            table = np.broadcast_to(atoms, (len(atoms), *leaf.shape)).reshape(
                len(atoms), -1, *leaf.shape[leaf.ndim - event :]
            )
            columns.append(
                (leaf, *_tuples(table, np.ones(table.shape[:2]), leaf.shape, int(np.prod(batch, dtype=int))))
            )
        elif leaf.primitive is noise:
            columns.append(
                (leaf, *_tuples(*_rule(leaf.statics["distribution"], points, leaf.shape), leaf.shape, leaf.size))
            )
    if not columns:
        return node
    count = np.prod([len(values) for _, values, _ in columns], dtype=float)
    assert count <= budget, f"{count:.0f} configurations: a smaller graph, please"
    rows = np.array(list(itertools.product(*[range(len(values)) for _, values, _ in columns])))
    values = {leaf: column[rows[:, k]] for k, (leaf, column, _) in enumerate(columns)}
    weight = np.prod([w[rows[:, k]] for k, (_, _, w) in enumerate(columns)], axis=0)
    scores = [np.sum(leaf.statics["site"].distribution.log_prob(leaf)) for leaf in values if leaf.primitive is draw]
    with np.errstate(divide="ignore"):  # of what is impossible
        result, *logs = replay(
            [node, *[s if isinstance(s, Node) else scg.parameter(s) for s in scores]],
            values,
            list(values),
            create_graph=True,
        )
    for log in logs:
        weight = weight * np.exp(log)
    return np.sum(np.reshape(weight, (-1, *[1] * node.ndim)) * result, axis=0)


def _tuples(table, weights, shape, count):
    """All assignments of one of the rows of ``table`` (values, elements, ...) to each of ``count`` elements, and the
    products of their weights."""
    picks = np.array(list(itertools.product(range(len(table)), repeat=count)), dtype=int).reshape(-1, count)
    return table[picks, np.arange(count)].reshape(len(picks), *shape), weights[picks, np.arange(count)].prod(axis=1)


def _rule(distribution, points, shape):
    """Values and weights, of shape (rows, elements), at which to take the mean over a distribution of numbers; those of
    a Gauss rule where it has a density."""
    size = int(np.prod(shape, dtype=int))
    if isinstance(distribution, scg.distributions.Normal):
        x, w = np.polynomial.hermite_e.hermegauss(points)
        loc, scale = (np.broadcast_to(p, shape).reshape(-1) for p in (distribution.loc, distribution.scale))
        return loc + scale * x[:, None], np.repeat((w / w.sum())[:, None], size, axis=1)
    if isinstance(distribution, scg.distributions.Uniform):
        x, w = np.polynomial.legendre.leggauss(points)
        return np.repeat((x[:, None] + 1) / 2, size, axis=1), np.repeat(w[:, None] / 2, size, axis=1)
    each = [
        distribution.replaced(
            **{k: np.broadcast_to(p, shape).reshape(-1)[i] for k, p in distribution.parameters.items()}
        )
        for i in range(size)
    ]
    rules = [_summed(one) if isinstance(one, Discrete) else _gauss(one, points) for one in each]
    return np.stack([x for x, _ in rules], axis=1), np.stack([w for _, w in rules], axis=1)


def _summed(distribution, most=60):
    """The numbers 0, 1, ..., and their probabilities, which have to be negligible beyond."""
    x = np.arange(float(most))
    w = np.exp(distribution.log_prob(x))
    assert abs(w.sum() - 1) < 1e-13
    return x, w


def _gauss(distribution, points):
    """The Gauss rule of a positive distribution: the eigenvalues of its Jacobi matrix, by Lanczos from a fine
    discretization of its density."""
    ends = np.linspace(0, 4 * distribution.icdf(1 - 1e-15), 81)
    x, w = np.polynomial.legendre.leggauss(20)
    x = (ends[:-1, None] + (x + 1) / 2 * np.diff(ends)[:, None]).reshape(-1)
    w = (w / 2 * np.diff(ends)[:, None]).reshape(-1) * np.exp(distribution.log_prob(x))
    assert abs(w.sum() - 1) < 1e-12
    basis, a, b = [np.sqrt(w / w.sum())], [], []
    for _ in range(points):
        v = x * basis[-1]
        a.append(v @ basis[-1])
        for _ in range(2):  # orthogonal to all before, to rounding
            v = v - np.array(basis).T @ (np.array(basis) @ v)
        b.append(np.linalg.norm(v))
        basis.append(v / b[-1])
    nodes, vectors = np.linalg.eigh(np.diag(a) + np.diag(b[:-1], 1) + np.diag(b[:-1], -1))
    return nodes, vectors[0] ** 2


def moments(fn, theta, seed=0, points=12):
    """(mean, variance, exact gradient) of the estimator's gradient, element by element."""
    parameter = scg.parameter(theta)
    cost = fn(parameter, np.random.default_rng(seed))
    one = [np.ones((), cost.dtype)]
    exact = pull([expectation(cost, points)], one, [parameter])[0]
    loss = scg.surrogate(cost, 1, graph=True)
    assert loss.value == cost.value
    (g,) = pull([loss], one, [parameter], True)
    mean, square = (_value(expectation_of(x, points)) for x in (g, g * g))
    return mean, square - mean**2, exact


def first_and_second(fn, theta, seed=0, order=2, points=12):
    """(mean of the estimator's gradient, exact gradient), and from order 2 on the same of second derivatives along a
    fixed direction."""
    parameter = scg.parameter(theta)
    cost = fn(parameter, np.random.default_rng(seed))
    one, direction = [np.ones((), cost.dtype)], np.linspace(1, 2, parameter.size).reshape(parameter.shape)
    exact = pull([expectation(cost, points)], one, [parameter], True)[0]
    loss = scg.surrogate(cost, 1, graph=True) if order == 1 else scg.surrogate(cost)
    assert loss.value == cost.value
    estimate = pull([loss], one, [parameter], True)[0]
    pairs = [(_value(expectation_of(estimate, points)), _value(exact))]
    if order > 1:
        second = [
            pull([g], [direction], [parameter], True)[0] if isinstance(g, Node) else np.zeros(parameter.shape)
            for g in (estimate, exact)
        ]
        pairs.append((_value(expectation_of(second[0], points)), _value(second[1])))
    return pairs


def expectation_of(value, points):
    """The mean of a node, or of a constant."""
    return expectation(value, points) if isinstance(value, Node) else value


def _value(x):
    return x.value if isinstance(x, Node) else np.asarray(x)
