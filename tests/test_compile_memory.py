"""What a plan takes for constant, for a view, for finite, and for the value of now: calls with other numbers in the same memory, and steps that change it."""

import array
import threading

import numpy as np
import pytest

import scg
from scg import optim
from scg.errors import NonFiniteError
from tests.test_compile_catalogue import agree


def _root(x):
    return np.sum(np.where(x > 0, np.sqrt(x), 0))


@pytest.mark.parametrize(
    "after",
    [lambda g: 2 * g, lambda g: np.clip(g, -1, 1), lambda g: g.T, lambda g: g.reshape(-1, 1), np.sum, lambda g: g / np.sqrt(np.sum(g * g))],
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
    held = [np.memmap(tmp_path / "held", dtype="f8", mode="w+", shape=(8,)), array.array("d", range(8)), bytearray(64), np.zeros(8)]
    looks = [lambda h: h[:4], lambda h: np.asarray(h)[:4], lambda h: np.frombuffer(memoryview(h))[:4], lambda h: h[::2]]
    for memory, look in zip(held, looks, strict=True):
        fn = lambda x, memory=memory, look=look: x * look(memory)
        compiled = scg.compile(fn)
        for value in (1.0, 5.0, 2.0):
            np.frombuffer(memory)[:] = value
            np.testing.assert_array_equal(compiled(np.ones(4)), value)
        assert compiled.recorded == 1


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
    before = threading.active_count()
    for k in range(20):
        compiled(x * (-1) ** k, x / 25)
    assert threading.active_count() == before and compiled.recorded == 2 and compiled.plainly == 0
