"""The second thread: both halves run, errors come back, a busy helper is not waited for; and what uses it gives the same numbers."""

import copy
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

import scg
from scg import halves, optim


@pytest.fixture
def second(monkeypatch):
    monkeypatch.setattr(halves, "ENABLED", True)


def test_both_run_on_two_threads(second):
    found = []
    for _ in range(3):
        halves.both(lambda: found.append(threading.current_thread().name), lambda: found.append(threading.current_thread().name))
    assert len(found) == 6 and len(set(found)) == 2


def test_an_error_in_either_half_comes_back_and_the_helper_goes_on(second):
    def fail():
        raise KeyError("half")

    for first, other in ((fail, lambda: None), (lambda: None, fail)):
        with pytest.raises(KeyError, match="half"):
            halves.both(first, other)
    found = []
    halves.both(lambda: found.append(1), lambda: found.append(2))
    assert sorted(found) == [1, 2]


def test_a_busy_helper_is_not_waited_for(second):
    found = []
    halves.both(lambda: halves.both(lambda: found.append(1), lambda: found.append(2)), lambda: halves.both(lambda: found.append(3), lambda: found.append(4)))
    assert sorted(found) == [1, 2, 3, 4]


@pytest.mark.usefixtures("second")
def test_a_forked_process_has_a_helper_of_its_own():
    halves.both(lambda: None, lambda: None)
    if not hasattr(os, "fork"):
        return
    child = os.fork()
    if child == 0:
        found = []
        halves.both(lambda: found.append(1), lambda: found.append(2))
        os._exit(0 if sorted(found) == [1, 2] else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("variable", ["OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"])
def test_the_environment_may_ask_for_one_thread(variable):
    rest = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    script = "from scg.halves import cores; print(cores())"
    run = lambda env: int(subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True).stdout)
    assert run({**rest, variable: "1"}) == 1
    if variable == "OMP_NUM_THREADS":
        assert run(rest) == len(os.sched_getaffinity(0))


@pytest.mark.parametrize("size", [optim._Flat.BLOCK // 2, optim._Flat.LARGE + 5, 3 * optim._Flat.BLOCK + 1])
def test_steps_in_halves_are_the_same_numbers(size, monkeypatch):
    rng = np.random.default_rng(0)
    params = {"a": rng.standard_normal(size).astype(np.float32), "b": rng.standard_normal((3, 4)), "c": rng.standard_normal((5, size // 7)).astype(np.float32).T}
    gradients = [scg.tree.map_leaves(lambda x: rng.standard_normal(x.shape).astype(x.dtype), params) for _ in range(3)]
    found = []
    for enabled in (True, False):
        monkeypatch.setattr(halves, "ENABLED", enabled)
        p = copy.deepcopy(params)
        optimizer = optim.Adam(p)
        for k, g in enumerate(gradients):
            if k == 1:
                p, optimizer = copy.deepcopy((p, optimizer))  # goes on with its own parameters and buffers
            optimizer.step(g)
        found.append((p, optimizer.state))
    for (path, a), (_, b) in zip(scg.tree.leaves(found[0]), scg.tree.leaves(found[1]), strict=True):
        np.testing.assert_array_equal(a, b, path)
    assert not np.array_equal(found[0][0]["c"], params["c"])


def test_regions_in_halves_are_the_same_numbers(monkeypatch):
    x = np.random.default_rng(0).standard_normal((700, 900))

    def fn(x):
        h = np.tanh(x) * 2.0 + 1.0
        return np.exp(-h) * x, np.sum(h * x, axis=-1)

    found = []
    for enabled in (True, False):
        monkeypatch.setattr(halves, "ENABLED", enabled)
        compiled = scg.compile(fn)
        compiled(x)
        found.append(compiled(x))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_array_equal(found[0][1], found[1][1])
