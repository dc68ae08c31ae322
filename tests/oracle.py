"""Exact means by brute force: every value of every draw, and Gauss rules for noise. Slow, short, and independent of the surrogate."""

import itertools

import numpy as np

import scg
from scg.axes import padded
from scg.gradient import pull
from scg.graph import Node, ancestors
from scg.replay import replay
from scg.sample import draw, noise


def expectation(node, points=12, budget=300_000):
    """The mean of a node over all draws and noise that lead to it, as a node of the parameters."""
    columns = []
    for leaf in ancestors([node], guards=True):
        if leaf.primitive is draw:
            atoms = padded(leaf.statics["site"].distribution.atoms(), leaf.ndim)
            event = leaf.statics["site"].event_ndim
            batch = leaf.shape[: leaf.ndim - event]
            table = np.broadcast_to(atoms, (len(atoms), *leaf.shape)).reshape(len(atoms), -1, *leaf.shape[leaf.ndim - event :])
            columns.append((leaf, *_tuples(table, np.ones(len(atoms)), leaf.shape, int(np.prod(batch, dtype=int)))))
        elif leaf.primitive is noise:
            columns.append((leaf, *_tuples(*_rule(leaf.statics["law"], points, leaf.size), leaf.shape, leaf.size)))
    if not columns:
        return node
    count = np.prod([len(values) for _, values, _ in columns], dtype=float)
    assert count <= budget, f"{count:.0f} configurations: a smaller graph, please"
    rows = np.array(list(itertools.product(*[range(len(values)) for _, values, _ in columns])))
    values = {leaf: column[rows[:, k]] for k, (leaf, column, _) in enumerate(columns)}
    weight = np.prod([w[rows[:, k]] for k, (_, _, w) in enumerate(columns)], axis=0)
    scores = [np.sum(leaf.statics["site"].distribution.log_prob(leaf)) for leaf in values if leaf.primitive is draw]
    result, *logs = replay([node, *[s if isinstance(s, Node) else scg.parameter(s) for s in scores]], values, list(values), create_graph=True)
    for log in logs:
        weight = weight * np.exp(log)
    return np.sum(np.reshape(weight, (-1, *[1] * node.ndim)) * result, axis=0)


def _tuples(table, weights, shape, count):
    """All assignments of one of the rows of ``table`` (values, elements, ...) to each of ``count`` elements, and the products of their weights."""
    picks = np.array(list(itertools.product(range(len(table)), repeat=count)), dtype=int).reshape(-1, count)
    return table[picks, np.arange(count)].reshape(len(picks), *shape), weights[picks].prod(axis=1)


def _rule(law, points, size):
    if isinstance(law, scg.distributions.Normal):
        x, w = np.polynomial.hermite_e.hermegauss(points)
    else:
        x, w = np.polynomial.legendre.leggauss(points)
        x = (x + 1) / 2
    return np.repeat(x[:, None], size, axis=1), w / w.sum()


def first_and_second(fn, theta, seed=0, order=2, points=12):
    """(mean of the estimator's gradient, exact gradient), and from order 2 on the same of second derivatives along a fixed direction."""
    parameter = scg.parameter(theta)
    cost = fn(parameter, np.random.default_rng(seed))
    one, direction = [np.ones((), cost.dtype)], np.linspace(1, 2, parameter.size).reshape(parameter.shape)
    exact = pull([expectation(cost, points)], one, [parameter], True)[0]
    loss = scg.surrogate(cost)
    assert loss.value == cost.value
    estimate = pull([loss], one, [parameter], True)[0]
    pairs = [(_value(expectation_of(estimate, points)), _value(exact))]
    if order > 1:
        second = [pull([g], [direction], [parameter], True)[0] if isinstance(g, Node) else np.zeros(parameter.shape) for g in (estimate, exact)]
        pairs.append((_value(expectation_of(second[0], points)), _value(second[1])))
    return pairs


def expectation_of(value, points):
    """The mean of a node, or of a constant."""
    return expectation(value, points) if isinstance(value, Node) else value


def _value(x):
    return x.value if isinstance(x, Node) else np.asarray(x)
