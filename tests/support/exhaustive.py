"""Exact means over all joint values of all draws, in one batched replay: nothing is taken apart, so nothing of the
surrogate is believed."""

import itertools

import numpy as np

import scg
from scg.core.axes import padded
from scg.core.backward import pull
from scg.core.node import Node, ancestors
from scg.core.replay import replay
from scg.stochastic.sites import draw, noise

MOST = 2**15


class TooMany(Exception):
    """More joint values than are worth the time."""


def leaves_of(roots):
    """The draws and the noise that lead to some nodes."""
    return [n for n in ancestors(roots, guards=True) if n.primitive is draw or n.primitive is noise]


def mean(roots, create_graph=False, points=4):
    """E of each of some nodes (or constants): arrays, or nodes of the parameters."""
    nodes = [r for r in roots if isinstance(r, Node)]
    found = iter(_mean(nodes, create_graph, points)) if nodes else iter(())
    return [next(found) if isinstance(r, Node) else np.asarray(r) for r in roots]


def _mean(roots, create_graph, points):
    sources = leaves_of(roots)
    if not sources:
        return [r if create_graph else r.value for r in roots]
    tables = [_table(leaf, points) for leaf in sources]
    count = np.prod([float(len(values)) for values, _ in tables])
    if count > MOST:
        raise TooMany(count)
    rows = np.indices([len(values) for values, _ in tables]).reshape(len(tables), -1)
    weight = np.prod([w[r] for (_, w), r in zip(tables, rows, strict=True)], axis=0)
    values = {leaf: table[r] for leaf, (table, _), r in zip(sources, tables, rows, strict=True)}
    scores = [np.sum(leaf.statics["site"].distribution.log_prob(leaf)) for leaf in sources if leaf.primitive is draw]
    scores = [s if isinstance(s, Node) else scg.parameter(s) for s in scores]
    with np.errstate(all="ignore"):  # of what is impossible
        found, logs = replay((roots, scores), values, list(values), create_graph=create_graph)
        for log in logs:
            weight = weight * np.exp(log)
    shaped = [np.reshape(weight, (-1, *[1] * r.ndim)) for r in roots]
    # what is impossible has no value
    return [np.sum(np.where(w > 0, w, 0) * np.where(w > 0, f, 0), axis=0) for w, f in zip(shaped, found, strict=True)]


def _table(leaf, points):
    """All values of a leaf, (number, *shape), and their weights but for the probabilities of a draw."""
    if leaf.primitive is noise:
        distribution = leaf.statics["distribution"]
        if not isinstance(distribution, scg.distributions.Uniform):
            raise TooMany(f"{distribution} is not uniform")
        x, w = np.polynomial.legendre.leggauss(points)  # estimators' own, in which they are polynomials
        each, weights = ((x + 1) / 2).reshape(-1, 1), w / 2
        n, event = leaf.size, ()
    else:
        distribution = leaf.statics["site"].distribution
        event = distribution.event_shape
        batch = leaf.shape[: leaf.ndim - len(event)]
        n = int(np.prod(batch, dtype=int))
        atoms = padded(distribution.atoms(), leaf.ndim)
        each = np.broadcast_to(atoms, (len(atoms), *leaf.shape)).reshape(len(atoms), n, *event)
        weights = np.ones(len(atoms))
    if len(each) ** n > MOST:
        raise TooMany(len(each) ** n)
    picks = np.array(list(itertools.product(range(len(each)), repeat=n)), dtype=int).reshape(-1, n)
    columns = np.arange(n) if each.shape[1] == n else np.zeros(n, int)
    return each[picks, columns].reshape(len(picks), *leaf.shape), weights[picks].prod(axis=1)


def derivatives(graph, order=1, points=4):
    """Pairs (mean of the estimate, exact), for first and up to ``order``-th derivatives along a direction, concatenated
    over the parameters."""
    targets = [leaf for _, leaf in scg.tree.leaves(graph.parameters)]
    one = [np.ones((), graph.cost.dtype)]
    loss = scg.surrogate(graph.cost, 1, graph=True) if order == 1 else scg.surrogate(graph.cost)
    assert loss.value == graph.cost.value
    (exact,) = mean([graph.cost], True)
    estimates, truths = pull([loss], one, targets, True), pull([exact], one, targets, True)
    pairs = [(_flat(mean(estimates, points=points)), _flat(truths))]
    for _ in range(order - 1):
        estimates, truths = (_along(g, targets) for g in (estimates, truths))
        pairs.append((_flat(mean(estimates, points=points)), _flat(truths)))
    return pairs


def _along(gradients, targets):
    nodes = [g for g in gradients if isinstance(g, Node)]
    directions = [np.linspace(1, 2, g.size).reshape(g.shape) for g in nodes]
    return pull(nodes, directions, targets, True) if nodes else [np.zeros(t.shape) for t in targets]


def _flat(arrays):
    return np.concatenate([np.ravel(a.value if isinstance(a, Node) else a) for a in arrays])
