"""Long chains under the default recursion limit: every operation is linear in time and memory, and everything is
freed."""

import gc
import io
import pickle
import sys
import tracemalloc
import weakref

import numpy as np
import pytest

import scg
from scg.core.ancestry import ancestors
from scg.core.backward import pull

N = 100_000


def chain(n, x=None):
    x = scg.parameter(np.float64(0.5)) if x is None else x
    y = x
    for _ in range(n // 2):
        y = y * 0.999999
        y = np.sin(y)
    return x, y


@pytest.fixture(scope="module")
def long():
    assert sys.getrecursionlimit() <= 1000 or sys.getrecursionlimit() < N
    return chain(N)


def expected(n, x):
    value, slope = x, 1.0
    for _ in range(n // 2):
        value = value * 0.999999
        slope = slope * 0.999999 * np.cos(value)
        value = np.sin(value)
    return value, slope


def test_forward_and_backward(long):
    x, y = long
    value, slope = expected(N, 0.5)
    assert y.value == value
    assert scg.gradients(y, [x])[0] == pytest.approx(slope, rel=N * 4e-16)


def test_the_gradient_as_a_graph(long):
    x, y = long
    (g,) = scg.gradients(y, [x], create_graph=True)
    assert g.value == pytest.approx(expected(N, 0.5)[1], rel=N * 4e-16)
    assert len(ancestors([g])) > N


def test_replay_plain_and_batched(long):
    x, y = long
    values = np.array([0.25, 0.5, -1.0])
    single = [scg.replay(y, {x: v}) for v in values]
    np.testing.assert_array_equal(scg.replay(y, {x: values}, batched=[x]), single)
    assert single[1] == y.value and single[0] == expected(N, np.float64(0.25))[0]


def test_print_and_repr(long):
    out = io.StringIO()
    print(long[1], file=out)
    assert len(out.getvalue()) < 200


def test_pickle(long):
    x, y = long
    x2, y2 = pickle.loads(pickle.dumps((x, y)))
    assert y2.value == y.value
    assert scg.gradients(y2, [x2])[0] == scg.gradients(y, [x])[0]


def test_free():
    gc.collect()
    gc.disable()
    try:
        x, y = chain(N)
        g = scg.gradients(y, [x], create_graph=True)[0]
        refs = [weakref.ref(node) for node in (x, y, g)]
        del x, y, g
        assert [ref() for ref in refs] == [None] * 3
    finally:
        gc.enable()


def test_a_long_while_loop_on_a_node():
    """A guard an iteration: linear too, in a replay, a pickle, and when it is freed."""

    def loop(x, n):
        k = 0
        while x < n:
            x, k = x + 1.0, k + 1
        return x * k

    n = N // 10
    x = scg.parameter(0.0)
    y = loop(x, float(n))
    assert y.value == n * n
    assert scg.replay(y, {x: 0.5}) == (n + 0.5) * n - 0.0
    with pytest.raises(scg.ScgError, match="test_scale"):
        scg.replay(y, {x: -1.0})
    x2, y2 = pickle.loads(pickle.dumps((x, y)))
    with pytest.raises(scg.ScgError, match="test_scale"):
        scg.replay(y2, {x2: -1.0})
    ref = weakref.ref(x)
    del x, y
    assert ref() is None
    assert scg.grad(lambda x: loop(x, float(n)))(0.0) == n


def test_many_guards_on_old_nodes():
    """Decisions that were computed beforehand form one chain, which is walked once."""
    n = N // 20
    x = scg.parameter(1.0)
    tests = [x > 0 for _ in range(n)]
    y = x
    for test in tests:
        if test:
            y = y + x
    assert scg.replay(y, {x: 2.0}) == 2.0 * (n + 1)
    assert pickle.loads(pickle.dumps(y)).value == n + 1
    ref = weakref.ref(x)
    del x, y, tests, test
    assert ref() is None


def test_a_wide_graph():
    x = scg.parameter(np.ones(3))
    total = x
    for _ in range(N // 10):
        total = total + x
    np.testing.assert_array_equal(scg.gradients(np.sum(total), [x])[0], np.full(3, N // 10 + 1.0))


def test_doubling_paths_are_walked_once():
    """2^2000 paths, 2000 nodes."""
    x = scg.parameter(1.0)
    y = x
    for _ in range(2000):
        y = (y + y) * 0.5
    assert scg.gradients(y, [x])[0] == 1.0
    assert scg.replay(y, {x: 3.0}) == 3.0
    assert len(ancestors([y])) == 4001


def peak(job):
    gc.collect()
    tracemalloc.start()
    try:
        kept = job()
        return tracemalloc.get_traced_memory()[1], kept
    finally:
        tracemalloc.stop()


JOBS = {
    "build": lambda x, y, n: chain(n),
    "gradients": lambda x, y, n: scg.gradients(y, [x]),
    "graph of the gradient": lambda x, y, n: scg.gradients(y, [x], create_graph=True),
    "replay": lambda x, y, n: scg.replay(y, {x: 0.25}),
    "batched replay": lambda x, y, n: scg.replay(y, {x: np.ones(3)}, batched=[x]),
    "pickle": lambda x, y, n: pickle.dumps(y),
    "unpickle": lambda x, y, n, data={}: pickle.loads(data.setdefault(n, pickle.dumps(y))),
    "repr": lambda x, y, n: repr(y),
}


@pytest.mark.parametrize("job", JOBS)
def test_memory_is_linear(job):
    """Four times the chain takes four times the memory, or up to twice that as tables grow in steps of two to four; a
    square would be 16."""
    n = 2000
    small, large = [peak(lambda m=m, g=chain(m): JOBS[job](*g, m))[0] for m in (n, 4 * n)]
    assert large <= 8 * small + 2**16
    assert small < 4000 * n


def calls(job):
    """Python and C calls: a measure of time that is the same each time."""
    count = 0

    def step(frame, event, arg):
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(step)
    try:
        job()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("job", JOBS)
def test_work_is_linear(job):
    n = 2000
    JOBS[job](*chain(10), 10)
    small, large = [calls(lambda m=m, g=chain(m): JOBS[job](*g, m)) for m in (n, 2 * n)]
    assert large <= 2 * small + 1000
    assert small < 200 * n


JOINED = {
    "gradients": lambda x, y: scg.gradients(y, [x]),
    "second derivatives": lambda x, y: scg.gradients(scg.gradients(y, [x], create_graph=True)[0], [x]),
    "batched replay": lambda x, y: scg.gradients(
        np.sum(scg.replay(y, {x: (new := scg.parameter(np.ones(3)))}, batched=[x])), [new]
    ),
}


@pytest.mark.parametrize(
    "join", [np.stack, np.hstack, lambda parts: np.concatenate([np.reshape(p, (1, 1)) for p in parts], 1)]
)
@pytest.mark.parametrize("job", JOINED)
def test_joining_many_pieces_is_linear(job, join):
    """Each piece of a stack finds its own place in one pass over all of them."""

    def joined(n):
        x = scg.parameter(np.ones(()))
        return x, np.sum(np.square(join([x * k for k in range(n)])))

    n = 500
    JOINED[job](*joined(10))
    small, large = [calls(lambda g=joined(m): JOINED[job](*g)) for m in (n, 2 * n)]
    assert large <= 2 * small + 1000


def test_the_last_step_of_a_chain_does_not_walk_it():
    """A gradient by a late node visits what is younger than it."""
    x, y = chain(4000)
    z = y * 2.0
    cost = np.sin(z)
    assert calls(lambda: pull([cost], [1.0], [z])) < 200
    assert calls(lambda: scg.replay(cost, {z: 1.0})) < 500  # a first one fills caches of types
