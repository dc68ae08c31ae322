"""What a plan takes for constant, for a view, for finite, and for the value of now: calls with other numbers in the
same memory, and steps that change it."""

import _thread
import array
import os
import signal
import threading
import tracemalloc

import numpy as np
import pytest

import scg
from scg import distributions as dist
from scg import optim
from scg.errors import NonFiniteError, PlanError
from tests.support.compiled import agree

pytestmark = pytest.mark.fast


def _root(x):
    return np.sum(np.where(x > 0, np.sqrt(x), 0))


@pytest.mark.parametrize(
    "after",
    [
        lambda g: 2 * g,
        lambda g: np.clip(g, -1, 1),
        lambda g: g.T,
        lambda g: g.reshape(-1, 1),
        np.sum,
        lambda g: g / np.sqrt(np.sum(g * g)),
    ],
    ids=["scaled", "clipped", "transposed", "reshaped", "summed", "normalized"],
)
def test_zeros_absorb_in_gradients_that_are_processed_further(after):
    fn = lambda x: after(scg.grad(_root)(x))
    compiled = scg.compile(fn)
    with np.errstate(all="ignore"):
        for x in (np.array([1.0, 2.0, 3.0]), np.array([1.0, 0.0, -3.0]), np.array([4.0, 2.0, 3.0])):
            agree(compiled(x), fn(x), f"at {x}")


def test_a_processed_gradient_that_is_not_finite_changes_no_parameter():
    p = {"a": np.ones(3)}
    optimizer = optim.SGD(p, 0.1)

    @scg.compile
    def step(p, x):
        value, g = scg.value_and_grad(lambda p: np.sum(p["a"] * x))(p)
        optimizer.step({"a": np.clip(g["a"], -1, 1)})
        return value

    step(p, np.ones(3))
    with pytest.raises(NonFiniteError):
        step(p, np.array([1.0, np.nan, 1.0]))
    np.testing.assert_array_equal(p["a"], 0.9)
    assert optimizer.steps == 1


@pytest.mark.parametrize("shape", [(3, 2), (200, 300)])
@pytest.mark.parametrize("make", [lambda p: optim.SGD(p, 0.1), optim.Adam])
def test_a_gradient_that_is_another_parameter_is_read_before_this_changes(shape, make):
    def run(compile):
        p = {"a": np.ones(shape), "b": np.full(shape, 2.0)}
        optimizer = make(p)

        def step(p):
            a, b = scg.grad(lambda a: np.sum(a * p["b"]))(p["a"]), scg.grad(lambda b: np.sum(p["a"] * b))(p["b"])
            optimizer.step({"a": a, "b": b})
            return np.zeros(())

        run = compile(step)
        for _ in range(3):
            run(p)
        return p

    agree(run(scg.compile), run(lambda f: f), "parameters")


def test_results_are_what_parameters_were_before_the_step():
    def run(compile):
        p = {"a": np.arange(1.0, 4.0)}
        optimizer = optim.SGD(p, 0.1)

        def step(p):
            before = np.copy(p["a"]), p["a"] * 1, np.copy(p["a"].reshape(3, 1)[1:])
            value, g = scg.value_and_grad(lambda p: p["a"][1] + np.sum(p["a"] ** 2))(p)
            optimizer.step(g)
            return before, value

        run = compile(step)
        return [run(p) for _ in range(3)][-1]

    agree(run(scg.compile), run(lambda f: f), "results")


@pytest.mark.parametrize(
    "fn, x",
    [
        (lambda x: np.reshape(x, -1) * 2, np.asfortranarray(np.ones((4, 5)))),
        (lambda x: x @ np.ones((5, 3)), np.ones((4, 5, 6)).transpose(2, 0, 1)),
        (lambda x: np.reshape(x[:, ::2], (-1, 2)) + 1, np.ones((6, 8))[::2, ::2]),
        (lambda x: np.reshape(x, (2, 2, 5)) + 1, np.asfortranarray(np.ones((4, 5)))),
    ],
)
def test_a_strided_argument_is_read_anew(fn, x):
    compiled = scg.compile(fn)
    for value in (1.0, 7.0, -3.0):
        x[...] = value * np.arange(x.size).reshape(x.shape)
        agree(compiled(x), fn(x), f"{value}")
    assert compiled.recorded == 1 and compiled.plainly == 0


@pytest.mark.parametrize("dtype, large", [(np.float64, 1000.0), (np.float32, 100.0)])
@pytest.mark.parametrize(
    "fn",
    [
        lambda s, x: x / s,
        lambda s, x: s < 2000,
        lambda s, x: np.argmax(s),
        lambda s, x: np.exp(-s / 500),
        lambda s, x: np.minimum(s, 1 / s),
        lambda s, x: np.where(s > 1e30, 0, s),
    ],
)
def test_a_softplus_that_would_overflow_is_seen_where_no_result_shows_it(fn, dtype, large):
    whole = lambda x: fn(scg.special.softplus(x), x)
    compiled = scg.compile(whole)
    compiled(np.ones(3, dtype))
    for _ in range(2):
        x = np.array([1.0, 2.0, large], dtype)
        agree(compiled(x), whole(x), "softplus")
    assert compiled.recorded == 2


def test_a_factor_taken_out_does_not_overflow():
    fn = lambda w, a, b: w * a + w * b
    compiled = scg.compile(fn)
    for w, a in ((1.0, 1.0), (1e-300, 1e308), (1e-300, 1.2e308)):
        operands = np.full(3, w), np.full(3, a), np.full(3, a)
        agree(compiled(*operands), fn(*operands), f"{w} {a}")


def test_an_index_array_that_the_function_holds_is_read_anew():
    table, index = np.arange(10.0), np.array([1, 2, 3])
    table.flags.writeable = False
    compiled = scg.compile(lambda x: scg.parameter(table)[index] * x)
    for start in (1, 4, 6):
        index[:] = np.arange(start, start + 3)
        np.testing.assert_array_equal(compiled(np.ones(3)), np.arange(start, start + 3))


def test_memory_that_somebody_else_holds_is_read_anew(tmp_path):
    held = [
        np.memmap(tmp_path / "held", dtype="f8", mode="w+", shape=(8,)),
        array.array("d", range(8)),
        bytearray(64),
        np.zeros(8),
    ]
    looks = [lambda h: h[:4], lambda h: np.asarray(h)[:4], lambda h: np.frombuffer(memoryview(h))[:4], lambda h: h[::2]]
    for memory, look in zip(held, looks, strict=True):
        fn = lambda x, memory=memory, look=look: x * look(memory)
        compiled = scg.compile(fn)
        for value in (1.0, 5.0, 2.0):
            np.frombuffer(memory)[:] = value
            np.testing.assert_array_equal(compiled(np.ones(4)), value)
        # of Python's own memory the function may have taken numbers, without NumPy: another plan for others
        assert compiled.recorded == (1 if isinstance(memory, np.ndarray) else 3)


def test_a_number_that_the_dtype_does_not_hold_is_compared_as_numpy_does():
    for fn in (lambda x: x < 300, lambda x: x > -1, lambda x: np.equal(x, 300)):
        compiled = scg.compile(fn)
        for x in (np.arange(5, dtype=np.uint8), np.array([250, 3, 255], np.uint8)):
            agree(compiled(x), fn(x), "comparison")
        assert compiled.plainly == 0


def test_a_bound_method_is_the_same_at_each_call():
    class Model:
        def loss(self, x):
            return np.sum(x * x)

    model, other = Model(), Model()
    compiled = scg.compile(lambda loss, x: loss(x))
    for _ in range(3):
        assert compiled(model.loss, np.ones(3)) == 3
    assert compiled.recorded == 1
    compiled(other.loss, np.ones(3))
    assert compiled.recorded == 2


def test_who_asks_numpy_to_raise_gets_the_plain_call():
    compiled = scg.compile(np.log)
    compiled(np.ones(2))
    with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
        compiled(np.zeros(2))


def test_calls_that_come_out_otherwise_leave_no_threads_and_no_buffers():
    def fn(x, w):
        h = np.tanh(x @ w) + np.sin(x @ w.T)
        if np.sum(x) > 0:
            h = h * 2
        return np.sum(h)

    compiled, x = scg.compile(fn, threads=2), np.ones((300, 300))
    for k in range(4):
        compiled(x * (-1) ** k, x / 25)
    before = _thread._count()
    for k in range(20):
        compiled(x * (-1) ** k, x / 25)
    assert _thread._count() == before and compiled.recorded == 2 and compiled.plainly == 0


HELD = np.array([0.5, 1.0, 2.0])
COUNTS, TABLE = np.array([0.0, 1.0, 2.0]), np.eye(3)
READ_ANEW = {
    "product": lambda p: np.sum(p * HELD),
    "power": lambda p: np.sum(p**HELD),
    "vector": lambda p: p @ HELD,
    "reflected": lambda p: HELD @ p,
    "transposed": lambda p: np.sum(np.tanh(TABLE.T @ p)),
    "tensordot": lambda p: np.tensordot(p, HELD, 1) ** 2,
    "convolve": lambda p: np.sum(np.convolve(p, HELD) ** 2),
    "stacked": lambda p: np.sum((np.ones((2, 4, 3)) @ (TABLE @ p)) ** 2),
    "cross": lambda p: np.sum(np.cross(p, HELD) ** 2),
    "chosen": lambda p: np.sum(np.where(p > HELD, p, HELD)),
    "einsum": lambda p: np.einsum("i,ij,j", p, TABLE, HELD),
    "scale of a distribution": lambda p: np.sum(dist.Normal(p, HELD).log_prob(2.0)),
    "distribution": lambda p: np.sum(dist.Normal(HELD, HELD).log_prob(p)),
    "rate of a distribution": lambda p: np.sum(dist.Gamma(p, HELD).log_prob(1.5)),
    "divergence": lambda p: np.sum(dist.kl_divergence(dist.Normal(p, 1.0), dist.Normal(HELD, HELD))),
    "data": lambda p: np.sum(dist.Gamma(p, 1.0).log_prob(HELD)),
    "heavy-tailed data": lambda p: np.sum(dist.StudentT(p).log_prob(HELD)),
    "counts": lambda p: np.sum(dist.Poisson(p).log_prob(COUNTS)),
}


@pytest.mark.parametrize("name", READ_ANEW)
def test_held_arrays_are_read_anew_by_derivatives_too(name):
    plain = scg.value_and_grad(READ_ANEW[name])
    compiled = scg.compile(plain)
    p = np.array([1.1, 1.3, 0.7])
    for held, table, counts in (
        ([0.5, 1.0, 2.0], np.eye(3), [0, 1, 2]),
        ([3.0, 0.2, 1.4], np.arange(9.0).reshape(3, 3) / 9, [4, 0, 1]),
    ):
        HELD[:], TABLE[:], COUNTS[:] = held, table, counts
        found, expected = compiled(p), plain(p)
        np.testing.assert_allclose(found[0], expected[0], 1e-12)
        np.testing.assert_allclose(found[1], expected[1], 1e-12, 1e-14)
    assert (
        compiled.recorded <= 2 and compiled.plainly == 0
    )  # beside numbers of its own what is held is watched at first


@pytest.mark.parametrize(
    "loss",
    [
        lambda p, x: np.sum(np.tanh(p["w"].T @ x)),
        lambda p, x: np.sum(np.sum(p["w"], 1) * np.tanh(x[:, 0])),
        lambda p, x: np.sum(np.tanh(x.T @ p["w"])),
    ],
)
def test_a_gradient_that_is_not_contiguous_is_that_of_its_call(loss):
    """A step that begins where the plan ends must not copy what is not there yet."""
    runs = []
    for compile in (lambda f: f, scg.compile):
        params = {"w": np.ones((3, 4))}
        optimizer, gradient = optim.SGD(params, 0.1), scg.value_and_grad(loss)

        def step(p, x, optimizer=optimizer, gradient=gradient):
            value, g = gradient(p, x)
            optimizer.step(g)
            return value

        run = compile(step)
        runs.append([[run(params, np.random.default_rng(k).standard_normal((3, 5))) for k in range(3)], params["w"]])
    np.testing.assert_allclose(runs[1][0], runs[0][0], 1e-12)
    np.testing.assert_allclose(runs[1][1], runs[0][1], 1e-12)


def test_a_held_array_given_as_a_gradient_is_looked_at():
    held, params = np.ones(3), {"w": np.zeros(3)}
    optimizer = optim.SGD(params, 0.1)

    @scg.compile
    def step(p, x):
        optimizer.step({"w": held})
        return np.sum(x)

    step(params, np.ones(3))
    np.testing.assert_allclose(params["w"], -0.1)
    held[1] = np.nan
    with pytest.raises(NonFiniteError):
        step(params, np.ones(3))
    assert optimizer.steps == 1
    np.testing.assert_allclose(params["w"], -0.1)


def test_parameters_as_the_gradient_of_a_second_step_are_refused():
    params = {"w": np.ones(3)}
    first, decay = optim.SGD(params, 0.1), optim.SGD(params, 0.1)
    gradient = scg.value_and_grad(lambda p, x: np.sum(p["w"] ** 2 * x))

    @scg.compile
    def step(p, x):
        value, g = gradient(p, x)
        first.step(g)
        decay.step(p)
        return value

    with pytest.raises(PlanError, match="an earlier step changes"):
        step(params, np.ones(3))
    np.testing.assert_array_equal(params["w"], 1)


def test_gradients_that_are_parameters_are_those_of_before_the_step():
    start = {"a": np.ones(300_000), "b": np.full(300_000, 2.0)}
    params = {name: x.copy() for name, x in start.items()}
    optim.SGD(params, 0.1).step({"a": params["b"], "b": params["a"]})
    np.testing.assert_allclose(params["a"], start["a"] - 0.1 * start["b"])
    np.testing.assert_allclose(params["b"], start["b"] - 0.1 * start["a"])


@pytest.mark.parametrize("estimator", [scg.DisARM(), scg.ScoreFunction(samples=2, baseline=scg.LeaveOneOut())])
def test_distributions_of_numbers_of_the_generator_are_those_of_a_plain_call(estimator):
    def loss(p, d, rng):
        b = scg.sample(dist.Bernoulli(logits=d + rng.standard_normal(3)), estimator, rng=rng)
        return np.sum(p) + np.sum(b * d)

    plain = scg.value_and_grad(loss)
    compiled, first, second = scg.compile(plain), np.random.default_rng(0), np.random.default_rng(0)
    for _ in range(3):
        np.testing.assert_allclose(
            compiled(np.ones(3), np.ones(3), rng=first)[0], plain(np.ones(3), np.ones(3), rng=second)[0]
        )
    assert first.random() == second.random()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
def test_a_step_in_a_forked_process_does_not_wait_for_a_thread_that_is_not_there():
    optimizer, held, go = optim.SGD({"w": np.ones(3)}, 0.1), threading.Event(), threading.Event()

    def hold():
        with optimizer._turn():
            held.set()
            go.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(30)
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        optimizer.step({"w": np.ones(3)})
        os._exit(0 if optimizer.steps == 1 else 1)
    go.set()
    holder.join()
    assert os.waitpid(child, 0)[1] == 0


def test_recording_lets_go_of_cotangents_that_nobody_asks_for():
    x, layers = np.linspace(-1, 1, 20_000), 40

    def cost(x):
        for _ in range(layers):
            x = np.sin(x) + 0.5 * np.cos(x)  # whose cotangent both operands have
        return np.sum(x)

    gradient = scg.compile(scg.grad(cost))
    tracemalloc.start()
    found = gradient(x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_allclose(found, scg.grad(cost)(x), rtol=1e-12)
    assert peak < 16 * layers * x.nbytes  # 13 a layer; 20 where cotangents stay
