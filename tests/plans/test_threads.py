"""Plans on several threads: the same numbers as on one, bit for bit, however the threads interleave; what waits for
what; what a failure leaves behind."""

import _thread
import contextlib
import dis
import functools
import importlib
import itertools
import os
import random
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import scg
from scg import distributions as dist
from scg import optim
from scg.core.tree import leaves, map_leaves
from scg.errors import NonFiniteError, PlanError
from scg.plans import threads as team
from scg.plans.steps import Steps
from scg.plans.threads import Task, busy, pool, waiting
from scg.plans.threads import blas as blas_
from scg.plans.threads.waiting import awaited
from scg.testing import graphs, programs
from tests.support.compiled import PROGRAMS, agree, autoencoder, is_kept, plans_of
from tests.support.drawn import drawn
from tests.support.parallel import PARALLEL, in_parallel

SMALL = {
    "blocks": {"LARGE": 2, "BLOCK": 5},
    "sums": {"LARGE": 1, "LONG": 1},
    "choices": {"LARGE": 1},
    "finite": {"LARGE": 1},
    "norms": {"FLAT": 9},
    "schedule": {
        "LEAST": 0.0,
        "HANDOVER": 0.0,
        "LONG": 0.0,
        "CALL": 0.0,
        "GRAIN": 1,
        "PACKED": 0.0,
        "WORTH": np.inf,
        "WORTH_BLAS": np.inf,
    },
}
"""Of each pass the constants with which it strikes on arrays of a few elements."""


@contextlib.contextmanager
def all_large():
    """Everything is large enough to be run in blocks, and to be shared out."""
    with pytest.MonkeyPatch.context() as patch:
        for module, constants in SMALL.items():
            for name, value in constants.items():
                patch.setattr(importlib.import_module(f"scg.plans.passes.{module}"), name, value)
        yield


@pytest.fixture
def eager():
    with all_large():
        yield


@pytest.fixture
def jittery(monkeypatch):
    """Threads lose time at random places."""
    chance = random.Random(0)

    def run_steps(steps):
        for fn, args in steps:
            if chance.random() < 0.3:
                time.sleep(chance.random() * 2e-4)
            fn(*args)

    monkeypatch.setattr(pool, "run_steps", run_steps)


def in_order(monkeypatch):
    """Run threads as the one list that they were made from."""
    run = Steps.run
    monkeypatch.setattr(
        Steps, "run", lambda self, arrays, generators, threads, more: run(self, arrays, generators, None, more)
    )


# what waits for what


@st.composite
def tasks(draw, width=3):
    found = []
    for _ in range(draw(st.integers(1, 14))):
        accesses = []
        for _ in range(draw(st.integers(1, 3))):
            low = draw(st.integers(0, 6))
            accesses.append((draw(st.sampled_from("ab")), low, low + draw(st.integers(1, 4)), draw(st.booleans())))
        found.append(Task(draw(st.integers(0, width - 1)), [], accesses))
    return found


def _order(tasks, pairs):
    """Which task is before which, by their threads and the pairs."""
    before = [set() for _ in tasks]
    for k, task in enumerate(tasks):
        direct = [i for i in range(k) if tasks[i].thread == task.thread] + [i for i, j in pairs if j == k]
        before[k] = set(direct).union(*[before[i] for i in direct])
    return before


def _conflict(first, second):
    return any(
        [
            a[0] == b[0] and a[1] < b[2] and b[1] < a[2] and (a[3] or b[3])
            for a in first.accesses
            for b in second.accesses
        ]
    )


@drawn(200)
@given(tasks())
def test_whoever_touches_the_same_memory_keeps_the_order_and_nobody_waits_without_need(tasks):
    pairs = awaited(tasks, 3)
    before = _order(tasks, pairs)
    for i, k in itertools.combinations(range(len(tasks)), 2):
        assert i in before[k] or not _conflict(tasks[i], tasks[k])
    for i, k in pairs:
        assert i < k and tasks[i].thread != tasks[k].thread and _conflict(tasks[i], tasks[k])
        assert i not in _order(tasks, [p for p in pairs if p != (i, k)])[k], "follows from others"


# the same numbers


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("program", PROGRAMS)
def test_threads_give_the_numbers_of_one_list(program, threads, eager, jittery, monkeypatch):
    fn, params, x = PROGRAMS[program]
    gradient = scg.value_and_grad(fn)
    compiled = scg.compile(gradient, threads=threads)
    found = [compiled(params, x, rng=np.random.default_rng(seed)) for seed in range(4)]
    (plan,) = plans_of(compiled)
    assert plan.program.width == threads and any([turn.cuts for turn in plan.program.turns]) and compiled.plainly == 0
    assert len({turn.thread for turn in plan.program.turns if not turn.cuts}) > 1
    in_order(monkeypatch)
    for seed in range(4):
        agree(compiled(params, x, rng=np.random.default_rng(seed)), found[seed], program, 0)
        agree(found[seed], gradient(params, x, rng=np.random.default_rng(seed)), program)


@pytest.mark.parametrize("kind", sorted(PARALLEL))
def test_a_step_of_any_estimator_has_the_same_bits_on_any_number_of_threads(kind, eager, jittery):
    gradient, theta, found = scg.value_and_grad(in_parallel(kind)), np.linspace(-1, 1, 30), []
    for threads in (1, 2, 3):
        compiled = scg.compile(gradient, threads=threads)
        found.append([compiled(theta, rng=np.random.default_rng(seed)) for seed in range(3)])
        (plan,) = plans_of(compiled)
        assert plan.program.width == threads and compiled.plainly == 0
    for k in (1, 2):
        agree(found[k], found[0], kind, 0)


def _kept(function, args, rngs, ulps=2**12):
    plain = scg.value_and_grad(function, function.argnums)
    with all_large():
        for threads in (1, 2):
            # sums that vanish do so in one order only
            is_kept(plain, scg.compile(plain, threads=threads), args, ulps, rngs, least=1.0)


@drawn(60)
@given(programs())
def test_drawn_programs_in_blocks_and_threads(program):
    _kept(program, program.args, None)


@drawn(30)
@given(graphs())
def test_drawn_graphs_in_blocks_and_threads(graph):
    _kept(graph.program, graph.program.args, True)


@pytest.mark.long
@drawn(3000)
@given(programs())
def test_many_programs_in_blocks_and_threads(program):
    _kept(program, program.args, None)


@pytest.mark.long
@drawn(1500)
@given(graphs(finite=False, branches=True))
def test_many_graphs_in_blocks_and_threads(graph):
    _kept(graph.program, graph.program.args, True, 2**16)  # exponentials of exponentials


def test_an_operand_of_a_view_that_shows_nothing_in_it_may_have_a_later_turn(eager):
    """The score of each row is one, beside the cost, of whom a view shows the cost alone; its buffer is free later."""

    def cost(theta, rng):
        rows = dist.Independent(dist.Bernoulli(logits=theta))
        a = scg.sample(rows, scg.ScoreFunction(), rng=rng, shape=(1,))
        t = np.sum((a - 0.45) ** 2)
        return 0.5 * t if np.sum(a) > 0 else t

    plain, theta = scg.value_and_grad(cost), np.full((2, 2), 0.5)
    for without in ((), "aliases"):
        compiled = scg.compile(plain, threads=2, without=without)
        for seed in range(3):
            found = compiled(theta, rng=np.random.default_rng(seed))
            agree(found, plain(theta, rng=np.random.default_rng(seed)), f"seed {seed}")
        assert plans_of(compiled)[0].program.width == 2 and compiled.planned == 3


def squares(task):
    """Whether a task but adds up squares, by which arrays are seen to be finite."""
    return all([fn is np.vecdot and np.may_share_memory(*args[:2]) for fn, args in task.steps])


def test_a_wait_left_out_is_seen(eager, monkeypatch):
    """The saboteur of all of the above: of each pair the first is slow, and the second does not wait."""
    fn, params, x = PROGRAMS["evidence bound"]
    gradient = scg.value_and_grad(fn)
    expected = scg.compile(gradient, threads=2)(params, x, rng=np.random.default_rng(0))
    made = []
    monkeypatch.setattr(
        waiting, "awaited", lambda tasks, width: made.append((tasks, awaited(tasks, width))) or made[-1][1]
    )
    scg.compile(gradient, threads=2)(params, x, rng=np.random.default_rng(0))
    tasks, pairs = made[0]
    # the others are tests of what came out right
    pairs = [(i, k) for i, k in pairs if any([writes for *_, writes in tasks[k].accesses]) and not squares(tasks[k])]
    assert len(pairs) >= 8

    def is_seen(left_out, pause):
        def without(tasks, width):
            tasks[left_out[0]].steps.insert(0, (time.sleep, (pause,)))
            return [pair for pair in awaited(tasks, width) if pair != left_out]

        monkeypatch.setattr(waiting, "awaited", without)
        compiled = scg.compile(gradient, threads=2)
        with np.errstate(all="ignore"):
            found = compiled(params, x, rng=np.random.default_rng(0))
        same = all(np.array_equal(a, b) for (_, a), (_, b) in zip(leaves(found), leaves(expected), strict=True))
        return not same or compiled.plainly > 0

    for left_out in pairs:  # where others take the processors, the second is late as well
        seen = any(is_seen(left_out, pause) for pause in (0.02, 0.1, 0.5))
        assert seen, f"nobody sees that {left_out[1]} does not wait for {left_out[0]}"


# optimizers


@pytest.mark.parametrize("make", [optim.Adam, lambda p: optim.SGD(p, 1e-2, momentum=0.9, nesterov=True)])
def test_a_step_on_several_threads_is_that_on_one(make):
    rng = np.random.default_rng(0)
    shapes = [(300, 130), (7,), (200, 90), (90, 1), (5,), (70000,)]
    start, gradients = ([rng.standard_normal(s).astype(np.float32) for s in shapes] for _ in range(2))
    results = []
    for threads in (1, 2, 3):
        params = [x.copy() for x in start]
        params[2] = np.asfortranarray(params[2])
        optimizer = make(params)
        for _ in range(3):
            lists = optimizer._begin(threads, *gradients)
            assert len(lists) == threads and all(lists)
            for steps in reversed(lists):  # in any order
                pool.run_steps(steps)
        results.append((params, optimizer.state))
    for (path, a), (_, b), (_, c) in zip(*map(leaves, results), strict=True):
        np.testing.assert_array_equal(a, b, path)
        np.testing.assert_array_equal(a, c, path)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_training_step_on_threads(threads, eager, jittery):
    runs = []
    for compile in (lambda f: f, lambda f: scg.compile(f, threads=threads)):
        params, loss, data = autoencoder([16], 4, 9, 7, np.float64)
        optimizer, rng, gradient = optim.Adam(params), np.random.default_rng(5), scg.value_and_grad(loss)

        def step(params, x, rng, gradient=gradient, optimizer=optimizer):
            value, g = gradient(params, x, rng=rng)
            optimizer.step(g)
            return value

        run = compile(step)
        runs.append(([run(params, data(k), rng=rng) for k in range(6)], params, optimizer.state))
    agree(runs[1], runs[0], "a training step", 2**20)


# what a failure, a fork, a second caller leave behind


def _settings():
    return team.BLAS.threads(), os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None


@pytest.fixture
def two(eager):
    """A compiled function on two threads, which has run, its arguments, and its plan."""
    params, loss, data = autoencoder([16], 4, 9, 7)
    compiled = scg.compile(scg.value_and_grad(loss), threads=2)
    compiled(params, data(0), rng=np.random.default_rng(0))
    return compiled, (params, data(0)), plans_of(compiled)[0]


def test_settings_of_the_process_are_as_they_were(two):
    compiled, args, _ = two
    before = _settings()
    compiled(*args, rng=np.random.default_rng(0))
    assert _settings() == before

    def inside():
        assert team.BLAS.get() == 1 and (not team.BLAS.libraries or team.BLAS.users)
        return team.BLAS.threads()

    assert team.with_one_thread(lambda: (team.with_one_thread(inside), inside())) == (before[0], before[0])
    assert _settings() == before and not team.BLAS.users


@pytest.mark.parametrize("thread", [0, 1])
@pytest.mark.parametrize("where", [0.0, 0.5, 1.0])
def test_a_step_that_fails_ends_all_threads_and_the_call_runs_plainly(two, thread, where):
    compiled, (params, x), plan = two
    before, expected = _settings(), compiled(params, x, rng=np.random.default_rng(3))
    (bound,) = plan._idle
    steps = bound.lists[thread]
    place = int(where * len(steps))
    steps.insert(place, (lambda: 1 / 0, ()))
    rng = np.random.default_rng(3)
    agree(compiled(params, x, rng=rng), expected, "plainly")
    assert compiled.plainly == 1 and _settings() == before
    assert plan._idle == [bound]
    del steps[place]
    agree(compiled(params, x, rng=np.random.default_rng(3)), expected, "again", 0)
    assert compiled.plainly == 1


@pytest.mark.parametrize("thread", [0, 1])
@pytest.mark.parametrize("where", [0.0, 0.5, 1.0])
def test_no_thread_begins_the_optimizers_step_when_another_has_failed(eager, jittery, thread, where):
    params, loss, data = autoencoder([16], 4, 9, 7)
    optimizer, gradient = optim.Adam(params), scg.value_and_grad(loss)

    @scg.compile
    def step(params, x, rng):
        value, g = gradient(params, x, rng=rng)
        optimizer.step(g)
        return value

    step._options = replace(step._options, threads=2)
    step(params, data(0), np.random.default_rng(0))
    (plan,) = plans_of(step)
    (bound,) = plan._idle
    before = map_leaves(np.copy, [params, optimizer.state])

    def fail():
        time.sleep(2e-3)  # the other one waits for this one by now
        raise NonFiniteError("not finite")

    steps = bound.lists[thread]
    steps.insert(int(where * len(steps)), (fail, ()))
    with pytest.raises(NonFiniteError):
        plan.call([leaf for _, leaf in leaves([params, data(1)])], [np.random.default_rng(1)])
    for (path, a), (_, b) in zip(leaves([params, optimizer.state]), leaves(before), strict=True):
        np.testing.assert_array_equal(a, b, path)


@pytest.mark.parametrize("thread", [0, 1])
def test_what_is_not_finite_is_told_by_whichever_thread_finds_it(two, thread):
    compiled, (params, x), plan = two
    (bound,) = plan._idle

    def fail():
        raise NonFiniteError("not finite")

    bound.lists[thread].append((fail, ()))
    with pytest.raises(NonFiniteError):
        bound.run([leaf for _, leaf in leaves([params, x])], [np.random.default_rng(0)], team.borrow(2))


def test_an_interrupt_waits_for_the_other_thread():
    finished = []

    def slow():
        time.sleep(0.1)
        finished.append(True)

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        team.borrow(2).run([[(interrupt, ())], [(slow, ())]], lambda: None)
    assert finished == [True]


def interrupted(n, fn):
    """Whether ``fn()`` was interrupted, as a signal interrupts Python: before the n-th instruction of these after a
    call, a jump back or the begin of a function."""
    seen, before = [0], {}

    def local(frame, event, arg):
        if event == "opcode":
            if before.get(frame, "RESUME") in ("CALL", "CALL_FUNCTION_EX", "RESUME", "JUMP_BACKWARD"):
                seen[0] += 1
                if seen[0] == n:
                    sys.settrace(None)
                    raise KeyboardInterrupt
            before[frame] = dis.opname[frame.f_code.co_code[frame.f_lasti]]
        return local

    def trace(frame, event, arg):
        if frame.f_code.co_filename not in (pool.__file__, blas_.__file__):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return local

    tracer = sys.gettrace()
    sys.settrace(trace)
    try:
        fn()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(tracer)
        before.clear()
    return False


def test_an_interrupt_anywhere_leaves_blas_as_it_was(monkeypatch):
    class Library:
        count = 4

        def get_num_threads(self):
            return self.count

        def set_num_threads(self, count):
            self.count = count

    library, blas = Library(), blas_.Blas()
    blas.libraries = [library]
    monkeypatch.setattr(blas_, "BLAS", blas)
    found = []
    for n in itertools.count(1):
        during = []
        stopped = interrupted(n, lambda during=during: team.with_one_thread(lambda: during.append(library.count)))
        assert library.count == 4 and not blas.users and blas.threads() == 4
        assert during in ([1], []) and (stopped or during == [1])
        assert blas.lock.acquire(blocking=False)
        blas.lock.release()
        found.append(stopped)
        if not stopped:
            break
    assert len(found) > 20


def test_an_interrupt_anywhere_waits_for_the_other_thread_and_ends_it():
    count = _thread._count()
    for n in itertools.count(1):
        begun, ended, changed = [], [], []

        def slow(begun=begun, ended=ended):
            begun.append(True)
            time.sleep(1e-3)
            ended.append(True)

        two = team.Threads(2)
        steps = [[(int, ())], [(slow, ())]]
        stopped = interrupted(
            n, functools.partial(two.run, steps, lambda: None, [[(changed.append, (0,))], [(changed.append, (1,))]])
        )
        assert begun == ended and not two.helpers[0].busy
        assert stopped or sorted(changed) == [0, 1]
        if not stopped:
            break
    assert n > 20
    del two
    for _ in range(100):
        if _thread._count() <= count:
            break
        time.sleep(1e-2)
    assert _thread._count() <= count


def test_a_plan_pins_nobody_and_needs_threadpoolctl_for_threads(two, monkeypatch):
    compiled, args, _ = two
    if hasattr(os, "sched_setaffinity"):
        monkeypatch.setattr(os, "sched_setaffinity", lambda *given: pytest.fail("a processor was set"))
    compiled(*args, rng=np.random.default_rng(0))
    blas = blas_.Blas()
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    assert blas.libraries == [] and blas.threads() == 1
    blas.keep(blas)
    blas.release(blas)
    monkeypatch.setattr(blas_, "BLAS", blas)
    assert team.width() == 1


def test_many_callers_at_once(two):
    compiled, (params, x), plan = two
    expected = [compiled(params, x, rng=np.random.default_rng(seed)) for seed in range(4)]
    before, wrong = _settings(), []

    def call(seed):
        for _ in range(20):
            found = compiled(params, x, rng=np.random.default_rng(seed))
            if any(
                not np.array_equal(a, b) for (_, a), (_, b) in zip(leaves(found), leaves(expected[seed]), strict=True)
            ):
                wrong.append(seed)

    callers = [threading.Thread(target=call, args=(seed,)) for seed in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert wrong == [] and compiled.plainly == 0 and _settings() == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork")
def test_a_child_of_a_fork_has_threads_of_its_own(two):
    compiled, args, _ = two
    expected = compiled(*args, rng=np.random.default_rng(1))[0]
    child = os.fork()
    if child == 0:
        os._exit(0 if compiled(*args, rng=np.random.default_rng(1))[0] == expected else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_how_many_threads_is_checked_and_small_programs_have_one():
    for wrong in (0, -1, 2.0, True, "2"):
        with pytest.raises(PlanError, match="threads must be a positive number"):
            scg.compile(np.sin, threads=wrong)
    compiled = scg.compile(scg.grad(lambda x: np.sum(np.sin(x))), threads=2)
    compiled(np.ones(5))
    assert plans_of(compiled)[0].program.width == 1


@pytest.mark.parametrize("first", [0, 1])
def test_the_first_failure_is_told_not_what_follows_from_it(first):
    def fail(pause, error):
        time.sleep(pause)
        raise error

    lists = [[(fail, (0.05, RuntimeError("later")))], [(fail, (0.05, RuntimeError("later")))]]
    lists[first] = [(fail, (0.0, ValueError("first")))]
    with pytest.raises(ValueError, match="first"):
        team.borrow(2).run(lists, lambda: None)


class _Clock:
    """Nanoseconds, as a test tells them."""

    def __init__(self):
        self.now = self.process = self.own = 0

    def perf_counter_ns(self):
        return self.now

    def process_time_ns(self):
        return self.process

    def thread_time_ns(self):
        return self.own

    def pass_(self, others):
        """A window and some more, of which this thread takes all and others a part."""
        step = busy.WINDOW + 1
        self.now, self.own, self.process = self.now + step, self.own + step, self.process + step + int(others * step)


def test_others_that_are_busy_are_seen_and_helpers_are_no_others(monkeypatch):
    clock = _Clock()
    monkeypatch.setattr(busy, "time", clock)
    monkeypatch.setattr(busy, "taken", [0])
    watch, found = team.Watch(), []
    for others in (0.0, 0.0, 1.0, 1.0, 0.1, 0.0):
        clock.pass_(others)
        found.append(watch.look())
    assert found == [False, False, True, True, False, False]
    clock.pass_(1.0)
    busy.taken[0] += busy.WINDOW + 1  # it was our helper
    assert not watch.look()
    clock.now += 1000  # the window is not over
    clock.process += 10**9
    assert not watch.look()


def test_a_plan_keeps_to_the_callers_thread_while_others_are_busy(two, monkeypatch):
    compiled, args, plan = two
    expected = compiled(*args, rng=np.random.default_rng(2))
    monkeypatch.setattr(plan.watch, "look", lambda: True)
    monkeypatch.setattr(pool.Threads, "run", lambda *given: pytest.fail("on several threads"))
    agree(compiled(*args, rng=np.random.default_rng(2)), expected, "alone", 0)
    assert compiled.plainly == 0
