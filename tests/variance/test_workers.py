"""A comparison is the same to the last bit however its chunks are run: here, in threads, in processes, on a cluster, in
any order, after a kill."""

import copy
import dataclasses
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import scg
from scg import distributions as dist
from scg import variance
from scg.variance import chunks, threads

ROOT = Path(__file__).parents[2]
W = np.random.default_rng(3).normal(size=(40, 30))
SHARED = scg.MovingAverage()


def model(theta, rng):  # a product of matrices, so that threads of linear algebra could add in another order
    b = scg.sample(dist.Bernoulli(logits=theta), scg.ScoreFunction(), rng=rng, name="b")
    return np.mean((W @ b - 0.45) ** 2)


def branching(theta, rng):
    b = scg.sample(dist.Bernoulli(logits=theta), scg.ScoreFunction(SHARED), rng=rng, name="b")
    if np.sum(b) > 1:
        return np.sum((b - 0.3) ** 2)
    return np.sum((b + 0.2) ** 2)


ROWS = {
    "REINFORCE": {},
    "leave-one-out": {"b": scg.ScoreFunction(samples=2, baseline=scg.LeaveOneOut())},
    "DisARM": {"b": scg.DisARM()},
}


def run(executor, fn=model, theta=None, rows=ROWS, **options):
    theta = np.zeros(30) if theta is None else theta
    return variance.compare(
        fn,
        rows,
        args=(theta,),
        **{"replicates": 4000, "budget": 0, **options},
        rng=np.random.default_rng(0),
        executor=executor,
    )


def bits(report):
    """All of a report but the times, as bytes."""
    untimed = [f.name for f in dataclasses.fields(variance.Entry) if "seconds" not in f.name]
    arrays = [getattr(row, name) for row in report.rows.values() for name in ("mean", "variance", "bias")]
    return pickle.dumps([[getattr(e, name) for name in untimed] for e in report.entries]) + b"".join(
        a.tobytes() for a in arrays if a is not None
    )


@pytest.fixture(scope="module")
def alone():
    return bits(run(None))


class LastFirst(Executor):
    """Runs what was handed to it in the opposite order, and tells when it was asked for what."""

    def __init__(self):
        self.jobs, self.done, self.order = [], threading.Event(), []
        threading.Thread(target=self.work, daemon=True).start()

    def submit(self, fn, *args):
        self.jobs.append((future := Future(), fn, args))
        return future

    def work(self):
        while len(self.jobs) < 16 and not self.done.wait(0.001):
            pass
        while self.jobs:
            future, fn, args = self.jobs.pop()
            self.order.append(args[-1][0])
            future.set_result(fn(*args))


def test_in_any_order(alone):
    executor = LastFirst()
    assert bits(run(executor)) == alone and executor.order == list(range(15, -1, -1))


def test_with_any_number_of_workers(alone):
    for workers in (1, 2, 4):
        with ProcessPoolExecutor(workers) as executor:
            assert bits(run(executor)) == alone
    with ThreadPoolExecutor(3) as executor:
        assert bits(run(executor)) == alone
    assert bits(run(lambda: ProcessPoolExecutor(2))) == alone


def test_not_a_thing_that_could_differ_is_taken_for_granted(alone, monkeypatch):
    assert bits(run(None, replicates=4001)) != alone  # what is compared does see a replicate
    monkeypatch.setattr(chunks, "generator", lambda entropy, *key: np.random.default_rng([entropy, *key, os.getpid()]))
    with ThreadPoolExecutor(2) as executor:
        assert bits(run(executor)) != alone  # and another seed


def test_with_a_precision(alone):
    few = run(None, precision=0.05)
    with ProcessPoolExecutor(2) as executor:
        assert bits(run(executor, precision=0.05)) == bits(few) != alone and 256 < few.replicates < 4000


def test_an_if_on_a_draw_and_a_baseline_that_learns(monkeypatch):
    monkeypatch.setattr(chunks, "LEAST", 20)
    theta, rows = np.full(3, 0.3), {"declared": {}, "own": {"b": scg.ScoreFunction(scg.MovingAverage(0.9))}}
    before = [copy.deepcopy(vars(b)) for b in (rows["own"]["b"].baseline, SHARED)]
    here = run(None, branching, theta, rows, replicates=100)
    with ProcessPoolExecutor(2) as executor:
        there = run(executor, branching, theta, rows, replicates=100)
    assert bits(here) == bits(there)
    # the user's learn nothing
    assert [vars(rows["own"]["b"].baseline), {**vars(SHARED), "_waiting": {}}] == [
        before[0],
        {**before[1], "_waiting": {}},
    ]
    mean = here["own"].total.mean
    with ThreadPoolExecutor(2) as executor:
        scg.grad(branching)(theta, rng=np.random.default_rng(0))  # but the user may teach them
        rows["own"]["b"].baseline._total, rows["own"]["b"].baseline._weight = 30.0, 1.0
        assert (
            run(executor, branching, theta, rows, replicates=100)["own"].total.variance
            > 10 * here["own"].total.variance
            and mean > 0
        )


def dies_once(monkeypatch, tmp_path, last_words=lambda: None):
    """The first worker that comes to draw is killed half-way."""
    draws, parent, mark = chunks.Task.draws, os.getpid(), tmp_path / "dead"

    def dying(self, *args):
        if os.getpid() != parent:
            try:
                mark.touch(exist_ok=False)
            except FileExistsError:
                return draws(self, *args)
            last_words()
            os.kill(os.getpid(), signal.SIGKILL)
        return draws(self, *args)

    monkeypatch.setattr(chunks.Task, "draws", dying)
    return mark


def writes_a_part():
    """A part of a result, as a worker leaves it that is killed while it writes."""
    frame = sys._getframe()
    while frame.f_code.co_name != "_process_worker":
        frame = frame.f_back
    queue = frame.f_locals["result_queue"]
    with queue._wlock:
        os.write(queue._writer.fileno(), (1000).to_bytes(4, "big") + b"part")


FORK = multiprocessing.get_context("fork")  # a worker has what was patched


@pytest.mark.parametrize("last_words, workers", [(lambda: None, 2), (writes_a_part, 2), (writes_a_part, 1)])
def test_a_worker_is_killed_and_a_fresh_executor_goes_on(alone, monkeypatch, tmp_path, last_words, workers):
    made = []

    def make():
        made.append(ProcessPoolExecutor(workers, mp_context=FORK))
        return made[-1]

    mark = dies_once(monkeypatch, tmp_path, last_words)
    assert bits(run(make)) == alone
    assert mark.exists() and len(made) == 2


def test_a_worker_is_killed_and_this_process_goes_on(alone, monkeypatch, tmp_path):
    mark = dies_once(monkeypatch, tmp_path)
    with (
        pytest.warns(RuntimeWarning, match="a worker died and broke the executor"),
        ProcessPoolExecutor(2, mp_context=FORK) as executor,
    ):
        assert bits(run(executor)) == alone
    assert mark.exists()


def test_workers_that_always_die_are_not_replaced_for_ever():
    made = []

    class Dying(Executor):
        def submit(self, fn, *args):
            from concurrent.futures import BrokenExecutor

            future = Future()
            future.set_exception(BrokenExecutor("out of memory"))
            return future

    def make():
        made.append(Dying())
        return made[-1]

    with pytest.raises(
        RuntimeError, match="row '[^']*': its worker died 5 times in a row .out of memory.; compare with executor=None"
    ):
        run(make)
    assert len(made) == 1 + chunks._RETRIES + 1  # and one that finds out whose fault it is


def test_what_cannot_travel_is_named():
    rows = {"ok": {}, "r": {"b": scg.RELAX(lambda phi, z: phi * z, np.array(0.3))}}
    assert len(run(None, rows=rows, replicates=100)) == 2
    with (
        ThreadPoolExecutor(1) as executor,
        pytest.raises(
            TypeError, match="row 'r' cannot be sent to the workers.*top level of a module.*test_workers.py:"
        ),
    ):
        run(executor, rows=rows)


def test_a_function_without_a_name_travels_as_its_graph(alone):
    with ProcessPoolExecutor(1) as executor:
        assert bits(run(executor, lambda theta, rng: model(theta, rng))) == alone


def test_an_error_in_a_worker_has_the_row():
    def rare(theta, rng):
        x = scg.sample(dist.Normal(theta, 1.0), scg.Reparameterized(), rng=rng, name="x")
        return x * x + np.where(scg.stop_gradient(x) > 3.2, np.inf, 0.0)

    with (
        ProcessPoolExecutor(2) as executor,
        pytest.raises(ValueError, match=r"row 'r': the cost of replicate \d+ is not finite.*test_workers.py:"),
    ):
        run(executor, rare, np.array(0.0), {"r": {}}, replicates=40_000)


class Fails(scg.ScoreFunction):
    """A score function that fails, in some way, where a method is called in another process than that in which it was
    made."""

    def __init__(self, way, method="draw"):
        super().__init__()
        self.way, self.method, self.home = way, method, os.getpid()

    def fail(self, method):
        if method == self.method and os.getpid() != self.home:
            if self.way == "exit":
                os._exit(3)
            raise {
                "error": ValueError("seven"),
                "key": KeyError("seven"),
                "system": SystemExit("seven"),
                "odd": Odd(lambda: "seven"),
            }[self.way]

    def draw(self, distribution, rng, shape):
        self.fail("draw")
        return super().draw(distribution, rng, shape)

    def expand(self, down):
        self.fail("expand")
        return super().expand(down)


class Odd(Exception):
    """It holds what cannot be pickled."""

    def __str__(self):
        return "seven"


@pytest.mark.parametrize("method", ["draw", "expand"])
@pytest.mark.parametrize(
    "way, kind, words",
    [
        ("error", ValueError, "ValueError: seven"),
        ("key", scg.ScgError, "KeyError: .*seven"),
        ("system", scg.ScgError, "SystemExit: seven"),
        ("odd", scg.ScgError, "Odd: seven"),
        ("exit", scg.ScgError, "its worker died"),
    ],
)
def test_a_row_that_fails_in_a_worker_is_named(way, kind, words, method):
    rows = {"good": {}, "bad": {"b": Fails(way, method)}}
    with pytest.raises(kind, match=f"row 'bad': .*{words}") as caught:
        run(lambda: ProcessPoolExecutor(2, mp_context=FORK), rows=rows, replicates=1000)
    assert isinstance(caught.value, scg.ScgError)


def test_a_row_that_fails_here_is_named_and_has_its_cause():
    here = Fails("error")
    here.home = -1
    with pytest.raises(ValueError, match="row 'bad': ValueError: seven") as caught:
        run(None, rows={"good": {}, "bad": {"b": here}}, replicates=1000)
    assert isinstance(caught.value, scg.ScgError) and type(caught.value.__cause__) is ValueError


@pytest.mark.parametrize("make", [lambda: None, lambda: ProcessPoolExecutor(2, mp_context=FORK)])
def test_an_interrupt_keeps_the_replicates_that_are_there(make):
    """All figures are those of as many replicates, chunk for chunk."""

    def stop(done, total):
        if done >= 768:
            signal.raise_signal(signal.SIGINT)

    executor = make()
    found = run(executor, replicates=4096, progress=stop)  # chunks of 256
    if executor is not None:
        executor.shutdown()
    assert (
        found.interrupted and found.replicates == 768 and "interrupted: drawing ended at 768 replicates" in str(found)
    )
    assert bits(found) == bits(run(None, replicates=768)) and not run(None, replicates=256).interrupted
    assert found.as_dict()["interrupted"] is True


def test_an_interrupt_before_there_is_anything_goes_on(monkeypatch):
    def interrupted(self, *args):
        raise KeyboardInterrupt

    monkeypatch.setattr(chunks.Task, "draws", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(None)


def test_a_sweep_ends_with_what_was_interrupted_and_a_search_is_not_decided_by_it(monkeypatch):
    draws, calls = chunks.Task.draws, []

    def interrupted(self, *args):
        calls.append(0)
        if len(calls) == 40:
            raise KeyboardInterrupt
        return draws(self, *args)

    monkeypatch.setattr(chunks.Task, "draws", interrupted)
    graph = scg.trace(model, np.zeros(30), rng=np.random.default_rng(0))
    found = variance.sweep(
        lambda value: graph, [1, 2, 3], {"r": {}}, rng=np.random.default_rng(0), replicates=8000, budget=0, _timed=0.0
    )
    assert (
        found.values == (1, 2, 3)[: len(found)]
        and found[-1].interrupted
        and not found[0].interrupted
        and len(found) == 3
    )
    calls.clear()
    with pytest.raises(KeyboardInterrupt):
        many = [scg.ScoreFunction(samples=n, baseline=scg.LeaveOneOut()) for n in range(2, 12)]
        variance.search(graph, {"b": many}, rng=np.random.default_rng(0), replicates=4000, work="evaluations", budget=0)


def test_progress_is_a_bar_on_stderr(capsys):
    run(None, replicates=512, progress=True)
    shown = capsys.readouterr()
    assert not shown.out and shown.err.count("\r") == 2 and shown.err.endswith(f"\r[{'#' * 30}] 512 of 512\n")
    with pytest.raises(scg.errors.ScgTypeError, match="progress must be"):
        run(None, progress="yes")


def test_a_chunk_has_one_thread_of_linear_algebra(monkeypatch):
    seen = []
    draws = chunks.Task.draws

    def watched(self, *args):
        seen.append(threads.counts())
        return draws(self, *args)

    monkeypatch.setattr(chunks.Task, "draws", watched)
    with ThreadPoolExecutor(2) as executor:
        run(executor, replicates=600)
    assert len(seen) > 6 and all(set(counts) <= {1} for counts in seen)


def test_a_cluster_of_dask_one_worker_of_which_is_killed(alone, tmp_path):
    from distributed import Client

    address, env = (
        tmp_path / "scheduler.json",
        {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "DASK_LOGGING__DISTRIBUTED": "critical",
        },
    )
    common = ["--scheduler-file", str(address), "--no-dashboard"]
    quiet = {"env": env, "cwd": tmp_path, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    command = [sys.executable, "-m", "distributed.cli.dask_worker", *common, "--no-nanny", "--nthreads", "1", "--name"]
    scheduler = subprocess.Popen(
        [sys.executable, "-m", "distributed.cli.dask_scheduler", *common, "--host", "127.0.0.1", "--port", "0"], **quiet
    )
    workers = {name: subprocess.Popen([*command, name], **quiet) for name in ("one", "two")}
    try:
        deadline = time.monotonic() + 60
        while not address.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        with Client(scheduler_file=str(address), timeout=60) as client:
            client.wait_for_workers(2, timeout=60)
            assert bits(run(client.get_executor())) == alone
            progress = lambda done, total: workers["one"].kill()  # at the first chunk, and again to no effect
            assert bits(run(client.get_executor(), progress=progress)) == alone
            assert workers["one"].wait(10) == -signal.SIGKILL and workers["two"].poll() is None
    finally:
        for process in (*workers.values(), scheduler):
            process.kill()
            process.wait()
