"""The oracle: exact means by brute force, over every value of every draw and Gauss rules for noise, in one batched
replay. Slow, short, and independent of the surrogate.

``mean`` takes nothing apart, so nothing of the surrogate is believed. ``expectation`` takes sums apart first, so that
larger graphs are in reach."""

import itertools

import numpy as np

import scg
from scg.core.ancestry import ancestors
from scg.core.axes import padded
from scg.core.backward import pull
from scg.core.node import Node
from scg.core.replay import replay
from scg.distributions import Independent, Normal, Uniform
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


class TooMany(Exception):
    """More joint values than are worth the time."""


# --- means


def mean(roots, create_graph=False, points=4, most=2**15):
    """E of each of some nodes (or constants): arrays, or nodes of the parameters. The noise of estimators is uniform,
    and what they compute of it is a polynomial or smooth: four points are enough for the first."""
    nodes = [r for r in roots if isinstance(r, Node)]
    found = iter(_mean(nodes, create_graph, points, most)) if nodes else iter(())
    return [next(found) if isinstance(r, Node) else np.asarray(r) for r in roots]


def expectation(node, points=12, most=300_000):
    """E of a node (or a constant), as a node of the parameters; sums are taken apart first."""
    return _apart(node, points, most, {})


def leaves_of(roots):
    """The draws and the noise that lead to some nodes."""
    return [n for n in ancestors(roots, guards=True) if n.primitive is draw or n.primitive is noise]


def _apart(node, points, most, known):
    if not _is_random(node):
        return node
    if node.id not in known:
        name = node.primitive.name
        random = [k for k, o in enumerate(node.operands) if _is_random(o)]
        linear = (
            name in LINEAR
            and (name != "getitem" or random == [0])
            or name == "multiply"
            and len(random) == 1
            or name == "divide"
            and random == [0]
        )
        if linear and node.guard is None:
            known[node.id] = node.primitive(*[_apart(o, points, most, known) for o in node.operands], **node.statics)
        else:
            known[node.id] = _mean([node], True, points, most)[0]
    return known[node.id]


def _is_random(operand):
    return isinstance(operand, Node) and bool(leaves_of([operand]))


def _mean(roots, create_graph, points, most):
    sources = leaves_of(roots)
    if not sources:
        return [r if create_graph else r.value for r in roots]
    tables = [table(leaf, points, most) for leaf in sources]
    count = np.prod([float(len(values)) for values, _ in tables])
    if count > most:
        raise TooMany(f"{count:.0f} configurations")
    rows = np.indices([len(values) for values, _ in tables]).reshape(len(tables), -1)
    weight = np.prod([w[r] for (_, w), r in zip(tables, rows, strict=True)], axis=0)
    values = {leaf: column[r] for leaf, (column, _), r in zip(sources, tables, rows, strict=True)}
    scores = [np.sum(leaf.statics["site"].distribution.log_prob(leaf)) for leaf in sources if leaf.primitive is draw]
    scores = [s if isinstance(s, Node) else scg.parameter(s) for s in scores]
    with np.errstate(all="ignore"):  # of what is impossible
        found, logs = replay((roots, scores), values, list(values), create_graph=create_graph)
        for log in logs:
            weight = weight * np.exp(log)
    shaped = [np.reshape(weight, (-1, *[1] * r.ndim)) for r in roots]
    # what is impossible has no value; the weights of a Gauss rule are positive
    return [np.sum(np.where(w > 0, w, 0) * np.where(w > 0, f, 0), axis=0) for w, f in zip(shaped, found, strict=True)]


# --- values and weights


def table(leaf, points, most=300_000):
    """All values of a leaf, (number, *shape), and weights: those of a draw lack its probability or density."""
    distribution = leaf.statics["distribution"] if leaf.primitive is noise else leaf.statics["site"].distribution
    while isinstance(distribution, Independent):
        distribution = distribution.base
    if leaf.primitive is draw and distribution.has(FiniteSupport):
        event = len(distribution.event_shape)
        atoms = padded(distribution.atoms(), leaf.ndim)
        n = int(np.prod(leaf.shape[: leaf.ndim - event], dtype=int))
        each = np.broadcast_to(atoms, (len(atoms), *leaf.shape))
        each = each.reshape(len(atoms), n, *leaf.shape[leaf.ndim - event :])
        weights = np.ones((len(atoms), n))
    else:
        n = leaf.size
        if leaf.primitive is draw:
            distribution = distribution.detached()  # as recorded: its parameters may not depend on other draws
        if leaf.primitive is draw and isinstance(distribution, Discrete):
            each = np.repeat(np.arange(60.0)[:, None], n, axis=1)
            weights = np.ones(each.shape)
        else:
            each, weights = _rule(distribution, points, leaf.shape)
        if leaf.primitive is draw and not isinstance(distribution, Discrete):
            weights = weights / np.exp(distribution.log_prob(each.reshape(-1, *leaf.shape))).reshape(each.shape)
    if float(len(each)) ** n > most:
        raise TooMany(f"{len(each)} ** {n} configurations")
    picks = np.array(list(itertools.product(range(len(each)), repeat=n)), dtype=int).reshape(-1, n)
    columns = np.arange(n)
    return each[picks, columns].reshape(len(picks), *leaf.shape), weights[picks, columns].prod(axis=1)


def _rule(distribution, points, shape):
    """Values and weights, of shape (rows, elements), at which to take the mean over a distribution of numbers; those of
    a Gauss rule where it has a density."""
    size = int(np.prod(shape, dtype=int))
    if isinstance(distribution, Normal):
        x, w = np.polynomial.hermite_e.hermegauss(points)
        loc, scale = (np.broadcast_to(p, shape).reshape(-1) for p in (distribution.loc, distribution.scale))
        return loc + scale * x[:, None], np.repeat((w / w.sum())[:, None], size, axis=1)
    if isinstance(distribution, Uniform):
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


# --- derivatives and variances


def derivatives(graph, order=1, points=4):
    """Pairs (mean of the estimate, exact), for first and up to ``order``-th derivatives along a direction, concatenated
    over the parameters."""
    targets = [leaf for _, leaf in scg.tree.leaves(graph.parameters)]
    (exact,) = mean([graph.cost], True)
    pairs = _derivatives(graph.cost, exact, targets, order, lambda nodes: mean(nodes, points=points))
    return [tuple(np.concatenate([np.ravel(x) for x in side]) for side in pair) for pair in pairs]


def first_and_second(fn, theta, seed=0, order=2, points=12, highest=None):
    """(mean of the estimator's gradient, exact gradient), and from order 2 on the same of second derivatives along a
    fixed direction. ``highest`` order of the surrogate: None for all."""
    parameter = scg.parameter(theta)
    cost = fn(parameter, np.random.default_rng(seed))
    pairs = _derivatives(
        cost,
        expectation(cost, points),
        [parameter],
        order,
        lambda nodes: [expectation(x, points) for x in nodes],
        highest,
    )
    return [(found, right) for (found,), (right,) in pairs]


def moments(fn, theta, seed=0, points=12):
    """(mean, variance, exact gradient) of the estimator's gradient, element by element."""
    parameter = scg.parameter(theta)
    cost = fn(parameter, np.random.default_rng(seed))
    one = [np.ones((), cost.dtype)]
    exact = pull([expectation(cost, points)], one, [parameter])[0]
    loss = scg.surrogate(cost, 1, graph=True)
    assert loss.value == cost.value
    (g,) = pull([loss], one, [parameter], True)
    found, square = (_value(expectation(x, points)) for x in (g, g * g))
    return found, square - found**2, exact


def _derivatives(cost, exact, targets, order, means, highest=None):
    one = [np.ones((), cost.dtype)]
    loss = scg.surrogate(cost, 1, graph=True) if order == 1 else scg.surrogate(cost, highest)
    assert loss.value == cost.value
    estimates, truths = pull([loss], one, targets, True), pull([exact], one, targets, True)
    pairs = [([_value(x) for x in means(estimates)], [_value(x) for x in truths])]
    for _ in range(order - 1):
        estimates, truths = (_along(g, targets) for g in (estimates, truths))
        pairs.append(([_value(x) for x in means(estimates)], [_value(x) for x in truths]))
    return pairs


def _along(gradients, targets):
    """The derivative of gradients along the direction (1, ..., 2) of each of them that is a node."""
    nodes = [g for g in gradients if isinstance(g, Node)]
    directions = [np.linspace(1, 2, g.size).reshape(g.shape) for g in nodes]
    return pull(nodes, directions, targets, True) if nodes else [np.zeros(t.shape) for t in targets]


def _value(x):
    return x.value if isinstance(x, Node) else np.asarray(x)
