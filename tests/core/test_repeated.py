"""What runs again and again gives what a replay would, in memory that it keeps."""

import gc
import tracemalloc
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import scg
from scg import distributions as dist
from scg.core.ambient import collect_guards
from scg.core.ancestry import ancestors
from scg.core.cotangents import results
from scg.core.node import Node
from scg.core.replay import live_bytes
from scg.core.tree import leaves
from scg.errors import GuardError, ScgError
from scg.stochastic.replicates import replays
from scg.stochastic.resampling import repeated, resample
from scg.stochastic.sites import noise_node
from scg.testing import graphs
from scg.testing.strategies.bindings import candidates
from tests.support.drawn import drawn
from tests.support.graphs import alternating

pytestmark = pytest.mark.fast

SEEDS = st.integers(0, 2**32 - 1)
A = np.array([[2.0, -1.0, 0.5], [0.25, 1.5, -0.75], [1.0, 0.0, -2.0]])
plain = scg.primitive(lambda x: np.sin(x), scg.axes.elementwise, name="plain")
looped = scg.primitive(np.tanh.__call__, None, name="looped_here")
halves = scg.primitive(lambda x: (np.sin(x), x * x), None, name="halves_here")
STEPS = {
    "exp": lambda x: np.exp(-x * x),
    "plain": plain,
    "matmul": lambda x: A @ x,
    "outer sum": lambda x: np.sum(np.reshape(x, (3, 1)) * x, axis=0),
    "gather": lambda x: x[np.array([1, 2, 0])],
    "slice": lambda x: np.concatenate([x[1:], x[:1]]),
    "total": lambda x: x + np.sum(x),
    "where": lambda x: np.where(x > 0.25, x, A[0]),
    "stack": lambda x: np.stack([x, A[1], x])[:, 1],
    "turned": lambda x: np.reshape(np.transpose(np.reshape(x, (1, 3)) + np.reshape(x, (3, 1))), 9)[2:5],
    "broadcast": lambda x: np.mean(np.broadcast_to(x, (2, 3)), axis=0),
    "held": lambda x: x * scg.stop_gradient(x),
    "loop": looped,
    "halves": lambda x: results(halves(x))[0] + results(halves(x))[1],
}
programs = st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=6)


def program(names):
    return alternating([STEPS[name] for name in names])


def check(roots, size, seed):
    """Three runs beside three replays, from one stream of random numbers."""
    rng, other = np.random.default_rng(seed), np.random.default_rng(seed)
    with np.errstate(all="ignore"):
        again = repeated(roots, rng, size)
        for k in range(3):
            if k and not again.repeatable:
                break
            if k:
                again.run()
            found = [np.array(y) for y in again.results]
            right = resample(roots, {}, rng=other, size=size, create_graph=False, checked=True)
            for x, y in zip(found, right, strict=True):
                assert x.dtype == y.dtype and x.shape in (y.shape, y.shape[1:])
                # sums along axes that lie otherwise in memory add in another order
                np.testing.assert_allclose(
                    np.broadcast_to(x, y.shape), y, rtol=1e-12, atol=1e-12 * np.max(np.abs(y), initial=0)
                )
    return again


@given(programs, SEEDS, st.integers(1, 5))
def test_what_repeats_a_program_is_its_replay(names, seed, size):
    x = noise_node(dist.Normal(0.0, 1.0), np.random.default_rng(seed), (3,), np.dtype(float))
    y = program(names)(x, 2.0 * x)
    assert check([y, np.sum(x * y), y + y, x], size, seed).repeatable


@pytest.mark.slow
@drawn(150)
@given(graphs(estimators=tuple(candidates(True))), SEEDS)
def test_what_repeats_the_gradient_of_a_drawn_graph_is_its_replay(graph, seed):
    roots = [g for g in graph.recorded if type(g) is Node]
    check(roots, 3, seed)


@given(programs, SEEDS)
def test_what_repeats_holds_no_more_than_live_bytes(names, seed):
    rng, size = np.random.default_rng(seed), 4000
    x = noise_node(dist.Normal(0.0, 1.0), rng, (3,), np.dtype(float))
    y = program([name for name in names if name not in ("loop", "halves")])(x, 2.0 * x)
    roots = [y, np.sum(x * y)]
    most = size * live_bytes(roots, ancestors(roots)) + 2**16
    tracemalloc.start()
    again = repeated(roots, rng, size)
    again.run()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    held = tracemalloc.get_traced_memory()[0]
    again.run()
    again = tracemalloc.get_traced_memory()[1] - held
    tracemalloc.stop()
    one = size * 3 * 8
    assert peak <= most + 8 * one and again <= 6 * one  # what is computed by a plain call is copied


@pytest.mark.parametrize("most", [1, 2, 3, 4, 7, 9])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_blocks_of_any_size_are_the_same_replicates_of_one_sample(most, dtype):
    """Samples of one node are one stream, so that no bit depends on the blocks."""
    logits = np.linspace(-2, 2, 5).astype(dtype)

    def cost(theta, rng):
        return np.mean((scg.sample(dist.Bernoulli(logits=theta), scg.ScoreFunction(), rng=rng) - dtype(0.3)) ** 2)

    roots = scg.trace(cost, logits, rng=np.random.default_rng(0)).recorded
    found, whole = (
        np.concatenate([np.array(block.values[0]) for block in replays(roots, np.random.default_rng(1), 9, size)])
        for size in (most, 9)
    )
    np.testing.assert_array_equal(found, whole)
    assert whole.dtype == dtype and whole.shape == (9, 5) and np.unique(whole).size > 2


@drawn(60)
@given(graphs(estimators=("scg.ScoreFunction()",)), SEEDS)
def test_what_repeats_a_cost_takes_new_parameters(graph, seed):
    targets = [leaf for _, leaf in leaves(graph.parameters)]
    inputs = [np.array(x.value) for x in targets]
    rng, other = np.random.default_rng(seed), np.random.default_rng(seed)
    again = repeated([graph.cost], rng, 5, dict(zip(targets, inputs, strict=True)))
    for k in range(3):
        if k:
            for x in inputs:
                x *= 0.9
            again.run()
        new = dict(zip(targets, inputs, strict=True))
        right = resample(graph.cost, new, rng=other, size=5, create_graph=False, checked=True)
        np.testing.assert_allclose(np.broadcast_to(again.results[0], right.shape), right, rtol=1e-12, atol=1e-12)


def test_what_stands_behind_an_if_is_not_repeated():
    x = noise_node(dist.Normal(0.0, 1.0), np.random.default_rng(0), (), np.dtype(float))
    with collect_guards():
        y = x * 2.0 if x > -100 else x
    assert repeated([y], np.random.default_rng(0), 3) is None


def test_a_run_that_fails_names_the_primitive_and_the_next_is_right():
    x = noise_node(dist.Normal(0.0, 1.0), np.random.default_rng(0), (3,), np.dtype(float))
    calls = []

    def tanh(x):
        calls.append(0)
        if len(calls) == 3:
            raise ValueError("not now")
        return np.tanh(x)

    y = scg.primitive(tanh, scg.axes.elementwise, name="fussy")(x)
    again = repeated([y], np.random.default_rng(1), 4)
    with pytest.raises(ScgError, match=r"fussy\(.*not now"):
        again.run()
    again.run()
    assert len(calls) == 4 and np.isfinite(again.results[0]).all()


def test_a_value_of_another_shape_is_not_kept_in_place():
    """What a primitive from outside returns in its first run, and in a later one, need not be what it announced."""
    x = noise_node(dist.Normal(0.0, 1.0), np.random.default_rng(0), (3,), np.dtype(float))
    single = scg.primitive(lambda x: x.astype(np.float32) if x.ndim > 1 else x, scg.axes.elementwise, name="single")
    y = single(x)
    again = repeated([y], np.random.default_rng(1), 4)
    assert not again.repeatable and again.results[0].dtype == np.float32
    calls = []
    once = scg.primitive(lambda x: x[:, : 3 - len(calls)] if x.ndim > 1 else x, scg.axes.elementwise, name="once")
    y = once(x)
    again = repeated([y], np.random.default_rng(1), 4)
    calls.append(0)
    with pytest.raises(GuardError, match="shape"):
        again.run()


def test_what_mixes_elements_is_not_written_over_its_operand():
    def turned(x):
        def call(x, out):
            for k in range(3):
                out[..., k] = x[..., 2 - k]

        return call

    turn = scg.primitive(
        lambda x: x[..., ::-1], scg.axes.contraction("i->i"), lambda g, out, x: g[..., ::-1], name="turn", into=turned
    )
    x = noise_node(dist.Normal(0.0, 1.0), np.random.default_rng(0), (3,), np.dtype(float))
    assert check([turn(np.exp(x)) + turn(np.sin(x))], 4, 0).repeatable


def test_its_memory_is_let_go_of_at_once():
    """Not when the garbage collector comes."""

    def cost(t, rng):
        return np.sum(np.exp(scg.sample(dist.Normal(t, 1.0), scg.ScoreFunction(), rng=rng, name="z")))

    root = scg.trace(cost, np.zeros(3), rng=np.random.default_rng(0)).cost
    again = repeated([root], np.random.default_rng(0), 5)
    again.run()
    gone = weakref.ref(again)
    gc.disable()
    try:
        del again
        assert gone() is None
    finally:
        gc.enable()
