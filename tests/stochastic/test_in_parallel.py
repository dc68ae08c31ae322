"""Replicates are functions of the graph and of the generator, whoever else asks for some at the same time."""

from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest

import scg
from tests.support.parallel import PARALLEL, in_parallel

pytestmark = pytest.mark.fast
SEEDS = range(6)


def gradients(graph, seed):
    """Of several blocks, the last of which is smaller."""
    return graph.gradients(rng=np.random.default_rng(seed), replicates=2 * graph.block + 100 + seed)


def trace(kind):
    return scg.trace(in_parallel(kind), np.linspace(-1, 1, 30), rng=np.random.default_rng(0))


def assert_same(found, alone):
    for seed in SEEDS:
        np.testing.assert_array_equal(found[seed], alone[seed], strict=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(PARALLEL))
def test_replicates_have_the_same_bits_for_any_number_of_threads(kind):
    alone = [gradients(trace(kind), seed) for seed in SEEDS]
    assert len({a.tobytes() for a in alone}) == len(SEEDS) and np.all(np.std(alone[0], axis=0) > 0)
    for workers in (1, 2, 3):
        graph = trace(kind)  # what it finds out about itself, too
        with ThreadPoolExecutor(workers) as executor:
            assert_same(list(executor.map(gradients, [graph] * len(SEEDS), SEEDS)), alone)


def test_replicates_have_the_same_bits_for_any_number_of_processes():
    graphs = [trace(kind) for kind in sorted(PARALLEL)]
    alone = [gradients(graph, seed) for seed, graph in zip(SEEDS, graphs, strict=True)]
    for workers in (1, 2, 3):
        with ProcessPoolExecutor(workers) as executor:
            assert_same(list(executor.map(gradients, graphs, SEEDS)), alone)


def test_a_replicate_that_depends_on_another_thread_is_seen():
    """The saboteur: threads that take from one generator."""
    graph, rng = trace("ARM"), np.random.default_rng(0)
    alone = [graph.gradients(rng=np.random.default_rng(0), replicates=100 + seed) for seed in SEEDS]
    with ThreadPoolExecutor(2) as executor:
        found = list(executor.map(lambda seed: graph.gradients(rng=rng, replicates=100 + seed), SEEDS))
    with pytest.raises(AssertionError):
        assert_same(found, alone)
