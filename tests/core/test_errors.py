"""Every refusal: a ScgError and the builtin that one expects, with the operation, the user's own line, what was needed
and the way out."""

import contextvars
import math
import pickle
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest

import scg
from scg.errors import GuardError, NonFiniteError, NotDifferentiable, ScgError, kin, location

pytestmark = pytest.mark.fast

X = np.array([1.0, 2.0, 3.0])
unknown = np.frompyfunc(lambda x: x, 1, 1)


def buffered(x, change):
    buffer = np.zeros(3)
    change(buffer, x)


def setitem(x):
    x[0] = 1.0


def setslice_buffer(buffer, x):
    buffer[:] = x


def add_in_place(buffer, x):
    buffer += x


def delete(x):
    del x[0]


class Custom:
    def __array__(self, dtype=None, copy=None):
        raise ValueError("no array here")


# (what is called, builtin kind, what the message must hold)
REFUSALS = [
    (lambda x: np.asarray(x), TypeError, ["detach", "parameter", "np.stack"]),
    (lambda x: np.array(x), TypeError, ["detach", "node.value"]),
    (lambda x: np.array([x, x]), TypeError, ["detach", "np.stack"]),
    (lambda x: np.array([x[0], x[1]]), TypeError, ["detach", "np.stack"]),
    (lambda x: np.float64(x[0]), TypeError, ["node.value"]),
    (lambda x: float(x[0]), TypeError, ["float()", "getitem", "node.value"]),
    (lambda x: int(x[0]), TypeError, ["int()", "node.value"]),
    (lambda x: complex(x[0]), TypeError, ["complex()", "node.value"]),
    (lambda x: math.sin(x[0]), TypeError, ["detach", "node.value"]),
    (lambda x: round(x[0]), TypeError, ["round"]),
    (lambda x: range(x[0]), TypeError, ["node.value"]),
    (lambda x: [1, 2][x[0]], TypeError, ["index", "node.value"]),
    (lambda x: X[x], TypeError, ["node.value"]),
    (lambda x: np.zeros(x), TypeError, ["node.value"]),
    (lambda x: x.item(), TypeError, ["item()", "reshape"]),
    (lambda x: x.tolist(), TypeError, ["tolist()", "node.value"]),
    (lambda x: x.sort(), TypeError, ["in place", "np.sort"]),
    (lambda x: buffered(x, setslice_buffer), TypeError, ["detach"]),
    (lambda x: buffered(x, add_in_place), TypeError, ["buffer", "add"]),
    (setitem, TypeError, ["immutable", "np.where"]),
    (delete, TypeError, ["immutable"]),
    (lambda x: np.add(x, 1.0, out=np.zeros(3)), TypeError, ["out=", "np.add"]),
    (lambda x: np.sum(x, out=np.zeros(())), TypeError, ["out", "np.sum"]),
    (lambda x: np.exp(x, where=X > 1), TypeError, ["np.where", "np.exp"]),
    (lambda x: np.exp(x, casting="no"), TypeError, ["casting"]),
    (lambda x: np.exp(x, order="F"), TypeError, ["order"]),
    (lambda x: np.exp(x, signature="f->f"), TypeError, ["signature"]),
    (lambda x: unknown(x), TypeError, ["no derivative", "scg.primitive", "node.value"]),
    (lambda x: np.add.at(x, 0, 1.0), TypeError, ["np.add.at"]),
    (lambda x: np.add([x[0], x[1], x[2]], x), TypeError, ["add", "np.stack"]),
    (lambda x: x + [x[0], x[1], x[2]], TypeError, ["add", "np.stack"]),
    (lambda x: x * np.array([1, None, 2]), TypeError, ["multiply", "object"]),
    (lambda x: x * [1, None, 2], TypeError, ["multiply", "object"]),
    (lambda x: x * None, TypeError, ["multiply", "NoneType"]),
    (lambda x: x + "1", TypeError, ["add", "'1'", "<U1"]),
    (lambda x: x + np.array(["a", "b", "c"]), TypeError, ["add", "<U1"]),
    (lambda x: x + np.datetime64("2020-01-01"), TypeError, ["add", "datetime64"]),
    (lambda x: x + np.ones(3, "m8[s]"), TypeError, ["add", "timedelta64"]),
    (lambda x: x + {"a": 1}, TypeError, ["add", "dict"]),
    (lambda x: x + [[1.0], [1.0, 2.0]], TypeError, ["add", "list"]),
    (lambda x: x + Custom(), TypeError, ["add", "Custom", "no array here"]),
    (lambda x: x + np.ma.masked_array(X, [0, 1, 0]), TypeError, ["add", "mask", "np.where"]),
    (lambda x: np.ma.masked_array(X, [0, 1, 0]) + x, TypeError, ["detach"]),
    (lambda x: x * np.matrix([[1.0, 2.0, 3.0]]), TypeError, ["matrix", "np.asarray"]),
    (lambda x: x + np.ones(4), ValueError, ["add", "float64[3]", "float64[4]", "broadcast"]),
    (lambda x: x @ np.ones((2, 2)), ValueError, ["matmul", "float64[2, 2]"]),
    (lambda x: np.reshape(x, (2, 2)), ValueError, ["reshape", "float64[3]"]),
    (lambda x: x[7], IndexError, ["getitem", "7"]),
    (lambda x: x[0, 0], IndexError, ["getitem"]),
    (lambda x: x[[0, 9]], IndexError, ["getitem", "9"]),
    (lambda x: x["name"], IndexError, ["getitem"]),
    (lambda x: np.sum(x, axis=3), ValueError, ["sum", "axis 3"]),
    (lambda x: np.sum(x, axis=3), IndexError, ["sum", "axis 3"]),
    (lambda x: bool(x), ValueError, ["ambiguous", "parameter"]),
    (lambda x: x < (1, 2), ValueError, ["less"]),
    (lambda x: np.linalg.cholesky(np.reshape(-x[0], (1, 1))), np.linalg.LinAlgError, ["cholesky", "positive definite"]),
    (lambda x: np.linalg.inv(np.zeros((2, 2)) * x[0]), np.linalg.LinAlgError, ["inv", "ingular"]),
    (lambda x: scg.parameter(x), TypeError, ["leaf", "node"]),
    (lambda x: scg.parameter(1), TypeError, ["floating", "int64", "1.0"]),
    (lambda x: scg.parameter(np.arange(3)), TypeError, ["floating", "int64", "astype(float)"]),
    (lambda x: np.random.default_rng(0).normal(x[0], 1.0), TypeError, ["detach", "scg.sample", "rng=rng"]),
    (lambda x: scg.parameter(True), TypeError, ["floating", "bool"]),
    (lambda x: scg.parameter("1.0"), TypeError, ["floating", "<U3"]),
    (lambda x: scg.parameter(1j), TypeError, ["complex128", "real and imaginary"]),
    (lambda x: scg.parameter([1.0, None]), TypeError, ["object"]),
    (lambda x: scg.parameter([[1.0], [1.0, 2.0]]), (TypeError, ValueError), ["parameter"]),
    (lambda x: scg.parameter(np.ma.masked_array(X, [0, 1, 0])), TypeError, ["mask"]),
    (lambda x: scg.primitive(np.exp), ValueError, ["np.exp", "already has an implementation"]),
    (
        lambda x: scg.primitive(lambda x: x**3, lambda g, out, x: 3 * g * x * x),
        TypeError,
        ["axis map", "before the VJPs", "None"],
    ),
    (lambda x: scg.primitive("cube"), TypeError, ["'cube'", "function"]),
    (lambda x: scg.minibatch(3, 2, rng=np.random.default_rng(0)).rows(np.arange(5.0)), ValueError, ["3 rows", "(5,)"]),
    (lambda x: scg.gradients(x, [x]), ValueError, ["scalar", "(3,)", "np.sum", "jacobian"]),
    (lambda x: scg.gradients(np.sum(x) > 0, [x]), TypeError, ["floating", "bool"]),
    (lambda x: scg.gradients(np.sum(x), [X]), TypeError, ["ndarray", "[0]"]),
    (lambda x: scg.gradients(1.0, [x]), TypeError, ["cost", "float"]),
    (lambda x: scg.replay(3.0, {x: X}), TypeError, ["float"]),
    (lambda x: scg.replay(x * 2, {x: np.ones(4)}), ValueError, ["(3,)", "(4,)"]),
    (lambda x: scg.replay(x * 2, {x: np.ones(3)}, batched=[x]), ValueError, ["replicate axis", "(3,)"]),
    (lambda x: scg.replay(x * 2, {x: 1.0}, batched=[x]), ValueError, ["replicate axis", "()"]),
    (lambda x: scg.replay(x * 2, {}, batched=[x]), ValueError, ["batched", "no replacement"]),
    (lambda x: scg.replay(x * 2, {x: ["a", "b", "c"]}), (TypeError, ValueError), ["replay"]),
    (lambda x: scg.replay(x * 2, {x: [1.0, [2.0], 3.0]}), (TypeError, ValueError), ["replay"]),
    (lambda x: scg.replay(x * 2, {"x": X}), TypeError, ["str"]),
    (lambda x: scg.replay(x * 2, {x: X + 1j}), TypeError, ["complex"]),
    (lambda x: scg.grad(np.sum)(np.arange(3)), TypeError, ["a", "int64", "astype(float)"]),
    (lambda x: scg.grad(np.sum)(True), TypeError, ["bool"]),
    (lambda x: scg.grad(np.sum)(1), TypeError, ["int"]),
    (lambda x: scg.grad(np.sum)("text"), TypeError, ["'text'", "floating"]),
    (lambda x: scg.grad(np.sum)(X + 0j), TypeError, ["complex128"]),
    (lambda x: scg.grad(np.sum)(np.array([None])), TypeError, ["object"]),
    (lambda x: scg.grad(lambda p: np.sum(p["w"][0]))({"w": [X, 3]}), TypeError, ["p['w'][1]", "int"]),
    (lambda x: scg.grad(lambda v: v)(X), ValueError, ["scalar", "(3,)"]),
    (lambda x: scg.grad(lambda v: np.sum(v) > 1)(X), TypeError, ["bool"]),
    (lambda x: scg.grad(lambda v: (np.sum(v), 1))(X), TypeError, ["scalar", "tuple"]),
    (lambda x: scg.grad(lambda v: None)(X), TypeError, ["scalar", "NoneType"]),
    (lambda x: scg.grad(lambda v: "0")(X), TypeError, ["scalar", "str"]),
    (lambda x: scg.grad(lambda v: np.ones(3))(X), TypeError, ["scalar", "(3,)"]),
    (lambda x: scg.grad(lambda v: np.sum(v) * 1j)(X), TypeError, ["complex"]),
    (lambda x: scg.grad(np.sum, 1)(X), ValueError, ["argnums", "1", "sum"]),
    (lambda x: scg.grad(np.sum, (0, -2))(X), ValueError, ["argnums", "-2"]),
    (lambda x: scg.grad(np.sum, (0, 0))(X), ValueError, ["argnums", "twice"]),
    (lambda x: scg.grad(np.sum, 0.5)(X), TypeError, ["argnums"]),
    (lambda x: scg.grad(np.sum, "x")(X), TypeError, ["argnums"]),
    (lambda x: scg.grad(3.0)(X), TypeError, ["function"]),
    (lambda x: scg.hvp(np.sum)(X), TypeError, ["vector"]),
    (lambda x: scg.hvp(np.sum)(X, np.ones(4)), ValueError, ["(3,)", "(4,)"]),
    (lambda x: scg.vjp(np.exp)(X)[1](np.ones(4)), ValueError, ["(3,)", "(4,)"]),
    (lambda x: scg.jacobian(lambda v: (v, v))(X), TypeError, ["tuple"]),
    (lambda x: scg.jacobian(lambda v: v > 0)(X), TypeError, ["bool"]),
    (lambda x: scg.hessian(lambda v: v)(X), ValueError, ["scalar"]),
]


def own_line(caught):
    """The innermost line of this file in the traceback, outside of helpers with a line of their own."""
    lines, trace = [], caught.tb
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == __file__:
            lines.append(trace.tb_lineno)
        trace = trace.tb_next
    return lines


@pytest.mark.parametrize("call, kind, parts", REFUSALS)
def test_a_refusal_is_a_scg_error_of_the_expected_kind_and_says_where_and_what(call, kind, parts):
    node = scg.parameter(X, name="node")
    with pytest.raises(ScgError) as caught:
        call(node)
    assert isinstance(caught.value, kind), type(caught.value).__mro__
    message = str(caught.value)
    for part in parts:
        assert part in message, message
    assert any(f"{__file__}:{line}," in message for line in own_line(caught)), message
    assert len(message) < 1000


@pytest.mark.parametrize("element", [lambda x: x[0], lambda x: x])
def test_a_node_does_not_enter_a_buffer_s_element(element):
    """NumPy asks for a float and wraps any refusal in its own ValueError: ours, with the advice, is the cause."""
    with pytest.raises((TypeError, ValueError)) as caught:
        np.zeros(3)[0] = element(scg.parameter(X))
        np.zeros(3)[0] = 1.0
    cause = caught.value if isinstance(caught.value, ScgError) else caught.value.__cause__
    assert isinstance(cause, NotDifferentiable)
    assert "np.stack" in str(cause) and __file__ in str(cause)


@pytest.mark.parametrize("name", ["size", "T", "shape"])
def test_an_unknown_attribute_is_an_ordinary_attribute_error(name):
    node = scg.parameter(X)
    assert hasattr(node, name)
    assert not hasattr(node, name + "_")
    assert not hasattr(node, "__array_interface__")


def test_an_error_of_another_kind_stays_itself_and_tells_the_line():
    class Broken(Exception):
        pass

    def fail(x):
        raise Broken("deep down")

    broken = scg.primitive(fail, None, lambda g, out, x: g, name="broken")
    with pytest.raises(Broken, match="deep down") as caught:
        broken(scg.parameter(X))
    assert any("broken(float64[3])" in note and __file__ in note for note in caught.value.__notes__)


def test_an_error_in_a_vjp_names_the_operation_and_the_line_that_recorded_it():
    def fail(g, out, x):
        return np.ones(3) + np.ones(4)

    broken = scg.primitive(
        np.copy.__wrapped__ if hasattr(np.copy, "__wrapped__") else lambda x: x + 0, None, fail, name="broken"
    )
    y = broken(scg.parameter(X))
    with pytest.raises(ScgError, match="broken") as caught:
        scg.gradients(np.sum(y), [y.operands[0]])
    assert isinstance(caught.value, ValueError)
    assert y.line in str(caught.value)


def test_a_node_in_a_python_comparison_of_lists_is_no_silent_answer():
    x = scg.parameter(X)
    with pytest.raises(ScgError):
        assert [x, 1] == [scg.parameter(X), 1]


@pytest.mark.parametrize("builtin", [TypeError, ValueError, IndexError, np.linalg.LinAlgError, np.exceptions.AxisError])
def test_every_kind_has_its_kin(builtin):
    error = builtin("message") if builtin is not np.exceptions.AxisError else builtin(3, 1)
    made = kin(error)
    assert issubclass(made, ScgError) and issubclass(made, builtin)
    assert kin(KeyError("k")) is None


def test_an_axis_that_is_not_there_is_an_error_of_numpy_s_own_kind():
    with pytest.raises(np.exceptions.AxisError, match="axis 3 is out of bounds") as caught:
        np.sum(scg.parameter(np.ones(2)), axis=3)
    assert isinstance(caught.value, ScgError) and str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_place_without_code_is_what_was_recorded():
    assert location("file.py:3, in f", 0) == "file.py:3, in f"
    assert location(None, 0) == "unknown line"
    code = sys._getframe().f_code
    assert location(code, sys._getframe().f_lasti).startswith(__file__)


# NaN


def test_nan_is_named_where_it_is_made_in_the_forward_pass():
    x = scg.parameter(np.array([-1.0, 1.0]), name="x")
    with np.errstate(invalid="ignore"), scg.detect_nan(), pytest.raises(NonFiniteError, match="sqrt") as caught:
        y = x * 2
        np.sqrt(y)
    assert isinstance(caught.value, FloatingPointError)
    assert any(f"{__file__}:{line}," in str(caught.value) for line in own_line(caught))


def test_nan_is_named_where_it_is_made_in_the_backward_pass():
    slope = scg.primitive(lambda x: x * 1.0, None, lambda g, out, x: g * np.log(x), name="slope")
    x = scg.parameter(np.array([-1.0, 1.0]))
    y = slope(x)
    cost = np.sum(y)
    with scg.detect_nan(), pytest.raises(NonFiniteError, match="derivative of <slope") as caught:
        scg.gradients(cost, [x])
    assert y.line in str(caught.value)
    assert np.isnan(scg.gradients(cost, [x])[0][0])


def test_a_nan_that_a_zero_absorbs_is_none():
    x = np.array([0.0, 4.0])
    plain = scg.grad(lambda v: np.sum(np.where(v > 0, np.sqrt(v), v)))
    np.testing.assert_array_equal(plain(x), [1.0, 0.25])
    with scg.detect_nan():
        np.testing.assert_array_equal(plain(x), [1.0, 0.25])
        np.testing.assert_array_equal(scg.grad(lambda v: np.sum(plain(v)[1]))(x), [0.0, -0.03125])


def test_a_nan_that_comes_in_is_not_made_by_an_operation_that_hands_it_on():
    x = scg.parameter(np.array([np.nan, 1.0]), name="x")
    with scg.detect_nan(), pytest.raises(NonFiniteError) as caught:
        x * 2
    assert "multiply" in str(caught.value) or "parameter" in str(caught.value)


def sought():
    return scg.core.ambient.nan_is_sought()


def test_the_search_for_nan_nests_and_ends_with_its_block_also_by_an_exception():
    assert not sought()
    with scg.detect_nan():
        with scg.detect_nan():
            assert sought()
        assert sought()
        with pytest.raises(KeyError), scg.detect_nan():
            raise KeyError
        assert sought()
    assert not sought()
    with pytest.raises(ScgError), scg.detect_nan():
        scg.parameter(1)
    assert not sought()


def test_the_search_for_nan_is_the_thread_s_own():
    seen = []
    with scg.detect_nan():
        thread = threading.Thread(target=lambda: seen.append(sought()))
        thread.start()
        thread.join()
        assert sought()
    assert seen == [False]


def test_the_search_for_nan_does_not_lose_a_guard():
    x = scg.parameter(1.0)
    with scg.detect_nan():
        if x > 0:
            pass
    y = x * 2
    with pytest.raises(GuardError):
        scg.replay(y, {x: -1.0})


@pytest.mark.parametrize("order", [1, 2])
def test_a_function_that_raises_leaves_no_context_behind(order):
    def fn(x):
        if np.sum(x) > 0:
            raise ZeroDivisionError
        return x

    g = scg.grad(fn) if order == 1 else scg.grad(lambda x: np.sum(scg.grad(fn)(x)))

    def run():
        with pytest.raises(ZeroDivisionError):
            g(X)
        return scg.core.ambient.AMBIENT.get(), scg.core.ambient.SCOPE.get()

    assert contextvars.Context().run(run) == (None, None)


def test_a_refused_name_gives_its_advice():
    namespace = SimpleNamespace(peculiar=lambda x: x)
    namespace.peculiar.__module__ = "elsewhere"
    scg.core.detaching.refuse("use np.exp", namespace.peculiar)
    try:
        with pytest.raises(NotDifferentiable, match="use np.exp") as caught:
            scg.core.primitive.IMPLEMENTATIONS[namespace.peculiar](scg.parameter(X))
        assert __file__ in str(caught.value)
    finally:
        del scg.core.primitive.IMPLEMENTATIONS[namespace.peculiar]
