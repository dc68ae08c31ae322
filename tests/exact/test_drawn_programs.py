"""Elimination against a plain enumeration of all configurations, on 2,000 drawn programs of small width."""

import numpy as np
import pytest

import scg
import scg.exact
from scg.core.backward import pull
from scg.elimination.structure import NoStructure, Structure
from scg.elimination.sums import Sums
from scg.exact.choice import eliminated_distribution
from scg.exact.estimates import moments_of
from scg.exact.values import as_values
from scg.stochastic.surrogate import surrogate
from tests.support.discrete import everywhere, program
from tests.support.drawn import first

MOST = 2**7  # configurations of a program
BLOCKS = 10


def drawn(seed):
    rng = np.random.default_rng(seed)
    theta, w = rng.normal(size=2) * 0.5, rng.normal(size=2)
    return scg.trace(program(rng), theta, w, argnums=(0, 1), rng=rng)


def looked_at(roots):
    """The structure of some nodes."""
    structure = Structure(roots[0], {}, 2**20, roots=roots)
    structure.look()
    return structure


def near(mine, other, seed, rtol=1e-10):
    np.testing.assert_allclose(mine, other, rtol=rtol, atol=rtol * max(1, np.max(np.abs(other))), err_msg=str(seed))


def slopes(total, targets, graph=False, seed=1.0):
    if type(total) is not scg.Node:
        return [np.zeros(t.shape) for t in targets]
    return pull([total], [np.asarray(seed)], targets, graph, nearby=False)


def same(total, expected, targets, seed):
    """Of two nodes values and gradients."""
    near(total.value if type(total) is scg.Node else total, expected.value, seed)
    for a, b in zip(slopes(total, targets), slopes(expected, targets), strict=True):
        near(a, b, seed)


@pytest.mark.parametrize("block", first(1, range(BLOCKS)))
def test_two_thousand_drawn_programs_have_the_results_of_enumeration(block, monkeypatch):
    """Means and gradients; of some Hessians, evidence, distributions. What is alike is tabulated once, however few."""
    monkeypatch.setattr("scg.elimination.structure._FEW", 0)
    monkeypatch.setattr("scg.exact.choice._CHEAP", 0.0)
    ran, seed = 0, 10_000 * block
    while ran < 2000 // BLOCKS:
        graph, seed = drawn(seed), seed + 1
        known = everywhere(graph)
        if known is None:
            continue
        (logs, costs), targets = known, list(graph.parameters)
        chances, ran = np.exp(logs), ran + 1
        structure = looked_at([graph.cost])
        sums = Sums(structure)
        same(sums.mean(graph=True), np.sum(chances * costs), targets, seed)
        if ran % 50 == 1:
            total = sums.mean(True, True)
            near(sums.mean(), total.value if type(total) is scg.Node else total, seed, 1e-13)
            columns = [slopes(n, targets, True) for n in (total, np.sum(chances * costs))]
            for a, b in zip(*columns, strict=True):
                for unit in np.eye(2):
                    for x, y in zip(*[slopes(n, targets, seed=unit) for n in (a, b)], strict=True):
                        near(x, y, seed, 1e-9)
        if ran % 10 == 2:
            total = Sums(structure, evidence=True).log_mean_exp(True)
            same(total, np.log(np.sum(np.exp(logs + costs))), targets, seed)
        if ran % 10 == 3:
            values, weights = eliminated_distribution(graph.cost, {}, 2**20)
            order, other = np.argsort(values), np.argsort(costs.value)
            for edge in costs.value[other][:: max(1, len(other) // 5)] + 1e-9:
                mine = np.sum(weights[order][values[order] <= edge])
                near(mine, np.sum(chances.value[costs.value <= edge]), seed)


def test_drawn_programs_have_the_moments_of_enumeration(monkeypatch):
    """Of the gradient of score functions, a quadratic form of local terms."""
    monkeypatch.setattr("scg.elimination.structure._FEW", 0)
    monkeypatch.setattr("scg.exact.estimates._LOCAL", 3.0)  # so that sums of few are sums
    ran = refused = 0
    for seed in range(0, 150, 2):
        graph = drawn(seed)
        if everywhere(graph) is None:
            continue
        targets = list(graph.parameters)
        pulled = pull([surrogate(graph.cost, 1, graph=True)], [np.ones(())], targets, True)
        roots = as_values([g for g in pulled if type(g) is scg.Node])
        logs, _, *estimates = everywhere(graph, roots)
        chances = np.exp(logs.value)
        for root, rows in zip(roots, estimates, strict=True):
            values = rows.value
            for k in range(root.size):
                try:
                    found = moments_of(np.reshape(root, -1)[k], {}, 2**20, np.inf)
                except NoStructure:
                    refused += 1
                    continue
                near(found.mean, np.sum(chances * values[:, k]), seed)
                near(found.square, np.sum(chances * values[:, k] ** 2), seed)
                ran += 1
    assert ran > 75 and refused < 0.6 * ran, (ran, refused)
