"""Derivatives of functions: structures, dtypes, ownership, nesting, and the identities that tie grad, vjp, jacobian,
hessian and hvp."""

import functools
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import scg
from scg.core.cotangents import results
from scg.core.node import Node
from scg.errors import ScgValueError
from tests.support.drawn import drawn

pytestmark = pytest.mark.fast

X = np.array([0.5, -1.25, 2.0])
A = np.array([[2.0, -1.0, 0.5], [0.25, 1.5, -0.75]])


class Pair(NamedTuple):
    left: Any
    right: Any


@dataclass
class Layer:
    weight: Any
    bias: Any


@dataclass(frozen=True, slots=True)
class Model:
    layer: Any
    scale: Any


# drawn programs: compositions of smooth, bounded operations on vectors of three
STEPS = {
    "sin": np.sin,
    "tanh": np.tanh,
    "affine": lambda x: 0.5 * x + 0.25,
    "square": lambda x: x * x / 3,
    "mix": lambda x: A.T @ (A @ x) / 8,
    "flip": lambda x: x[::-1],
    "couple": lambda x: x * np.sum(x) / 4,
    "pad": lambda x: np.where(X > 0, x, -x),
    "exp": lambda x: np.exp(x / 4),
    "gather": lambda x: x[np.array([0, 2, 0])],
}
programs = st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=4)
vectors = st.lists(st.floats(-1, 1, width=16), min_size=3, max_size=3).map(np.array)
TOLERANCE = {"rtol": 1e-11, "atol": 1e-12}  # a few hundred roundings of numbers below 100


def vector_fn(names):
    return lambda x: functools.reduce(lambda y, name: STEPS[name](y), names, x)


def scalar_fn(names):
    return lambda x: np.sum(vector_fn(names)(x) * X)


def loop_jacobian(fn, x):
    """Row by row: the gradient of each element on its own."""
    size = np.size(fn(x))
    rows = [scg.grad(lambda v, i=i: np.reshape(fn(v), (size,))[i])(x) for i in range(size)]
    return np.reshape(np.array(rows), np.shape(fn(x)) + np.shape(x))


@given(programs, vectors)
def test_a_jacobian_is_the_loop_over_its_rows(names, x):
    fn = vector_fn(names)
    np.testing.assert_allclose(scg.jacobian(fn)(x), loop_jacobian(fn, x), **TOLERANCE)


@given(programs, vectors, vectors)
def test_a_vjp_is_v_times_the_jacobian(names, x, v):
    fn = vector_fn(names)
    value, pullback = scg.vjp(fn)(x)
    np.testing.assert_array_equal(value, fn(x))
    np.testing.assert_allclose(pullback(v), v @ scg.jacobian(fn)(x), **TOLERANCE)
    np.testing.assert_array_equal(pullback(v), pullback(v))


@given(programs, vectors, vectors)
def test_the_hessian_is_symmetric_and_hvp_is_its_product(names, x, v):
    fn = scalar_fn(names)
    hessian = scg.hessian(fn)(x)
    np.testing.assert_allclose(hessian, hessian.T, **TOLERANCE)
    np.testing.assert_allclose(scg.hvp(fn)(x, v), hessian @ v, **TOLERANCE)
    np.testing.assert_allclose(scg.jacobian(scg.grad(fn))(x), hessian, **TOLERANCE)
    np.testing.assert_allclose(scg.grad(lambda y: np.sum(scg.grad(fn)(y) * v))(x), hessian @ v, **TOLERANCE)


@drawn(25)
@given(programs, vectors, vectors)
def test_the_third_derivative_is_the_derivative_of_the_second(names, x, v):
    fn = scalar_fn(names)
    third = scg.jacobian(scg.hessian(fn))(x)
    assert third.shape == (3, 3, 3)
    for order in [(1, 0, 2), (2, 1, 0), (0, 2, 1)]:
        np.testing.assert_allclose(third, np.transpose(third, order), **TOLERANCE)
    nested = scg.grad(lambda a: np.sum(scg.grad(lambda b: np.sum(scg.grad(fn)(b) * v))(a) * v))(x)
    np.testing.assert_allclose(nested, third @ v @ v, **TOLERANCE)


@given(programs, vectors)
def test_value_and_grad_gives_the_value_itself(names, x):
    fn = scalar_fn(names)
    value, gradient = scg.value_and_grad(fn)(x)
    assert value == fn(x)
    np.testing.assert_array_equal(gradient, scg.grad(fn)(x))
    assert type(value) is type(fn(x))


@given(programs, vectors)
def test_a_program_s_own_graph_gives_the_function_s_gradient(names, x):
    node = scg.parameter(x)
    cost = scalar_fn(names)(node)
    np.testing.assert_array_equal(scg.gradients(cost, [node])[0], scg.grad(scalar_fn(names))(x))
    (as_node,) = scg.gradients(cost, [node], create_graph=True)
    np.testing.assert_array_equal(as_node.value, scg.grad(scalar_fn(names))(x))
    assert scg.gradients(np.sum(as_node), [node])[0].shape == (3,)


@pytest.mark.parametrize("order, expected", [(1, 3.0 * 2**2), (2, 6.0 * 2), (3, 6.0), (4, 0.0)])
def test_derivatives_of_a_cube_of_any_order(order, expected):
    fn = functools.reduce(lambda f, _: scg.grad(f), range(order), lambda x: x * x * x)
    assert fn(2.0) == expected


@pytest.mark.parametrize("name", [np.exp, np.sin])
def test_a_tenth_derivative(name):
    fn = functools.reduce(lambda f, _: scg.grad(f), range(8), name)
    assert fn(0.5) == pytest.approx(name(0.5), rel=1e-13)  # period one and four


# perturbation confusion


def test_inner_and_outer_derivatives_are_not_confused():
    """d/dx [x d/dy (x + y)] = 1, and 2 only for a tool that confuses x with y."""
    assert scg.grad(lambda x: x * scg.grad(lambda y: x + y)(1.0))(1.0) == 1.0
    assert scg.grad(lambda x: x * scg.grad(lambda y: x * y)(x))(3.0) == 6.0
    assert scg.grad(lambda x: scg.grad(lambda y: x * y * y)(x))(3.0) == 6.0 + 6.0


def test_derivatives_at_the_same_node_are_told_apart():
    def outer(x):
        return scg.grad(lambda a, b: a * b * b)(x, x) + scg.grad(lambda a, b: a * b * b, 1)(x, x)

    assert scg.grad(outer)(3.0) == 2 * 3.0 + 4 * 3.0


def test_an_inner_function_of_outer_nodes_only_has_a_zero_gradient():
    assert scg.grad(lambda x: x * x + scg.grad(lambda y: x * x)(1.0))(3.0) == 6.0


def test_inner_jacobian_hessian_vjp_and_hvp_can_be_differentiated():
    def fn(x):
        return np.sum(np.sin(x) * x[::-1])

    h = scg.hessian(fn)(X)
    np.testing.assert_allclose(scg.grad(lambda x: np.sum(scg.jacobian(np.sin)(x)))(X), -np.sin(X), **TOLERANCE)
    np.testing.assert_allclose(scg.grad(lambda x: np.sum(scg.vjp(fn)(x)[1](1.0)))(X), h.sum(0), **TOLERANCE)
    np.testing.assert_allclose(scg.grad(lambda v: np.sum(scg.hvp(fn)(X, v)))(X), h.sum(0), **TOLERANCE)
    np.testing.assert_allclose(scg.grad(lambda v: np.sum(scg.vjp(np.exp)(X)[1](v) * X))(X), X * np.exp(X), **TOLERANCE)
    third = scg.jacobian(scg.hessian(fn))(X)
    np.testing.assert_allclose(
        scg.grad(lambda x: np.sum(scg.hvp(fn)(x, X)))(X), np.einsum("ijk,j->k", third, X), **TOLERANCE
    )


# structures


def tree_cost(p):
    return (
        np.sum(p["w"] * p["w"])
        + 2 * np.sum(p["rest"][0]) * p["rest"][1].left
        + np.sum(p["rest"][1].right.layer.weight @ X)
    )


def tree():
    return {"w": X, "rest": [A, Pair(3.0, Model(Layer(A, None), ()))]}


def test_a_gradient_has_the_structure_of_its_argument():
    gradient = scg.grad(tree_cost)(tree())
    assert list(gradient) == ["w", "rest"]
    pair = gradient["rest"][1]
    assert (type(gradient["rest"]), type(pair), type(pair.right), type(pair.right.layer)) == (list, Pair, Model, Layer)
    assert pair.right.layer.bias is None and pair.right.scale == ()
    np.testing.assert_array_equal(gradient["w"], 2 * X)
    np.testing.assert_array_equal(gradient["rest"][0], np.full_like(A, 6.0))
    assert pair.left == 2 * A.sum()
    np.testing.assert_array_equal(pair.right.layer.weight, np.broadcast_to(X, A.shape))


@pytest.mark.parametrize("empty", [{}, [], (), None, {"a": None, "b": [()]}, Pair(None, ())])
def test_an_empty_structure_has_an_empty_gradient(empty):
    assert scg.grad(lambda p: 1.0)(empty) == empty
    value, gradient = scg.value_and_grad(lambda p, x: np.sum(x), (0, 1))(empty, X)
    assert gradient[0] == empty
    np.testing.assert_array_equal(gradient[1], np.ones(3))
    assert scg.grad(lambda p, x: np.sum(x))(empty, X) == empty
    assert scg.hessian(lambda p: 1.0)(empty) == empty


def test_several_arguments_give_a_tuple():
    def fn(x, y, z):
        return np.sum(x * y) * z

    gradients = scg.grad(fn, (2, 0))(X, 2 * X, 3.0)
    assert type(gradients) is tuple
    assert gradients[0] == np.sum(2 * X * X)
    np.testing.assert_array_equal(gradients[1], 6 * X)
    np.testing.assert_array_equal(scg.grad(fn, -1)(X, X, 3.0), np.sum(X * X))
    np.testing.assert_array_equal(scg.grad(fn, np.int64(1))(X, X, 3.0), 3 * X)
    assert scg.grad(fn, [0])(X, X, 3.0)[0].shape == (3,)


def test_the_hessian_of_a_structure_holds_every_block():
    def fn(p):
        return np.sum(p["a"] * p["a"] * p["b"][0]) + np.sum(A @ p["a"]) * p["b"][1]

    point = {"a": X, "b": (X + 1, 2.0)}
    h = scg.hessian(fn)(point)
    np.testing.assert_array_equal(h["a"]["a"], np.diag(2 * (X + 1)))
    np.testing.assert_array_equal(h["a"]["b"][0], np.diag(2 * X))
    np.testing.assert_array_equal(h["b"][0]["a"], h["a"]["b"][0].T)
    np.testing.assert_array_equal(h["b"][1]["a"], A.sum(0))
    np.testing.assert_array_equal(h["b"][0]["b"][0], np.zeros((3, 3)))
    assert h["b"][1]["b"][1].shape == ()
    v = {"a": X, "b": (X, 1.5)}
    product = scg.hvp(fn)(point, v)
    np.testing.assert_allclose(product["a"], h["a"]["a"] @ X + h["a"]["b"][0] @ X + h["a"]["b"][1] * 1.5, **TOLERANCE)


def test_vjp_of_a_structure_valued_function():
    value, pullback = scg.vjp(lambda x, y: {"s": np.sum(x * y), "rest": [np.exp(x), 1.0]}, (0, 1))(X, A)
    assert value["rest"][1] == 1.0 and not isinstance(value["s"], Node)
    gx, gy = pullback({"s": 2.0, "rest": [X, 0.0]})
    np.testing.assert_allclose(gx, 2 * A.sum(0) + X * np.exp(X), **TOLERANCE)
    np.testing.assert_array_equal(gy, np.broadcast_to(2 * X, A.shape))


def test_vectors_and_cotangents_are_matched_by_name_and_not_by_place():
    point = {"a": X, "b": (X + 1, 2.0)}
    fn = lambda p: np.sum(p["a"] ** 3) * p["b"][1] + np.sum(p["b"][0] ** 2)
    v = {"a": X, "b": (X - 1, 0.5)}
    product, turned = scg.hvp(fn)(point, v), scg.hvp(fn)(point, dict(reversed(v.items())))
    np.testing.assert_array_equal(turned["a"], product["a"])
    np.testing.assert_array_equal(turned["b"][0], product["b"][0])
    pullback = scg.vjp(lambda x: {"double": 2 * x, "triple": 3 * x})(X)[1]
    np.testing.assert_array_equal(pullback({"triple": X, "double": 0 * X}), 3 * X)
    for wrong in ([X, X], {"double": X}, {"double": X, "triple": [X]}, {"double": X, "other": X}, X):
        with pytest.raises(ScgValueError, match="the cotangent.* needs"):
            pullback(wrong)
    with pytest.raises(ScgValueError, match=r"the vector\['b'\]\[1\] needs an array, got NoneType"):
        scg.hvp(fn)(point, {"a": X, "b": (X, None)})


def test_keywords_are_handed_on():
    def fn(x, *, rng, scale=1.0):
        return np.sum(x * rng.normal(size=3)) * scale

    noise = np.random.default_rng(3).normal(size=3)
    np.testing.assert_array_equal(scg.grad(fn)(X, rng=np.random.default_rng(3), scale=2.0), 2 * noise)
    assert scg.grad(fn).__name__ == "fn"


# values and dtypes


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble])
@pytest.mark.parametrize("shape", [(), (3,), (2, 0), (1, 3)])
def test_a_gradient_has_the_dtype_and_shape_of_its_argument(dtype, shape):
    x = np.ones(shape, dtype)
    value, gradient = scg.value_and_grad(lambda v: np.sum(np.exp(v) * 2.0 + v * X[0]))(x)
    assert isinstance(gradient, np.ndarray)
    assert (gradient.shape, gradient.dtype) == (shape, dtype)
    assert np.shape(value) == ()


@pytest.mark.parametrize("x", [2.0, np.float64(2.0), np.array(2.0), np.float32(2.0), np.array([2.0])[0]])
def test_scalars_of_every_kind_are_differentiated(x):
    gradient = scg.grad(lambda v: v * v)(x)
    assert gradient == 4.0
    assert gradient.dtype == np.asarray(x).dtype and gradient.shape == ()


@pytest.mark.parametrize("constant", [1, 2.5, np.float32(1.0), np.array(3.0), np.int64(4)])
def test_a_function_that_ignores_its_input_has_a_zero_gradient(constant):
    value, gradient = scg.value_and_grad(lambda x: constant)(X)
    assert value == constant
    np.testing.assert_array_equal(gradient, np.zeros(3))
    assert not scg.jacobian(lambda x: np.ones((2, 2)))(X).any()
    assert scg.jacobian(lambda x: np.ones((2, 2)))(X).shape == (2, 2, 3)
    np.testing.assert_array_equal(scg.hessian(lambda x: constant)(X), np.zeros((3, 3)))
    np.testing.assert_array_equal(scg.hvp(lambda x: constant)(X, X), np.zeros(3))
    value, pullback = scg.vjp(lambda x: constant)(X)
    np.testing.assert_array_equal(pullback(1.0), np.zeros(3))


def test_the_hessian_of_a_linear_function_is_zero():
    np.testing.assert_array_equal(scg.hessian(np.sum)(X), np.zeros((3, 3)))
    np.testing.assert_array_equal(scg.hvp(np.sum)(X, X), np.zeros(3))
    np.testing.assert_array_equal(scg.grad(lambda x: np.sum(scg.grad(np.sum)(x)))(X), np.zeros(3))


def test_the_input_itself_as_result():
    assert scg.grad(lambda x: x)(2.0) == 1.0
    np.testing.assert_array_equal(scg.jacobian(lambda x: x)(X), np.eye(3))
    np.testing.assert_array_equal(scg.vjp(lambda x: x)(X)[1](A[0]), A[0])
    np.testing.assert_array_equal(scg.vjp(lambda x: (x, x))(X)[1]((A[0], A[1])), A.sum(0))


def test_the_same_array_twice_is_two_arguments():
    first, second = scg.grad(lambda x, y: np.sum(x * x + 3 * y), (0, 1))(X, X)
    np.testing.assert_array_equal(first, 2 * X)
    np.testing.assert_array_equal(second, np.full(3, 3.0))
    tied = scg.grad(lambda p: np.sum(p[0] * p[1]))([X, X])
    np.testing.assert_array_equal(tied[0], X)


@pytest.mark.parametrize(
    "fn",
    [
        np.sum,
        lambda x: x[0],
        lambda x: np.sum(x[::-1]),
        lambda x: np.sum(x.T),
        lambda x: np.sum(x * X),
        lambda x: 1.0,
        lambda x: np.sum(x + x),
    ],
)
def test_gradients_belong_to_the_caller(fn):
    x = X.copy()
    one, two = scg.grad(lambda a, b: fn(a) + fn(b), (0, 1))(x, x)
    pulled = scg.vjp(lambda v: v)(x)[1]
    seed = np.ones(3)
    three = pulled(seed)
    arrays = [one, two, three, seed, x, scg.jacobian(lambda v: v)(x)]
    for k, array in enumerate(arrays):
        assert array.flags.writeable
        array[...] = k
        for other in arrays[:k]:
            assert not np.may_share_memory(array, other)


@pytest.mark.parametrize("shape", [(0,), (0, 2), (2, 0)])
def test_empty_results_have_empty_jacobians(shape):
    assert scg.jacobian(lambda x: np.ones(shape) * np.sum(x))(X).shape == (*shape, 3)
    assert scg.jacobian(lambda x: np.reshape(x, shape))(np.ones(shape)).shape == shape + shape
    assert scg.grad(lambda x: np.sum(np.ones(shape) * x[0]))(X).tolist() == [0.0, 0.0, 0.0]


def test_a_jacobian_in_blocks_is_the_jacobian():
    """More rows than one block of the batched replay holds."""
    n = 2300
    x = np.linspace(0, 1, n)
    jacobian = scg.jacobian(lambda v: v * v + v[0])(x)
    expected = np.diag(2 * x)
    expected[:, 0] += 1
    np.testing.assert_array_equal(jacobian, expected)


def test_a_jacobian_of_a_matrix_by_a_matrix():
    b = np.arange(6.0).reshape(3, 2)
    jacobian = scg.jacobian(lambda a: a @ b)(A)
    np.testing.assert_array_equal(jacobian, np.einsum("ik,jl->ijkl", np.eye(2), b.T))
    both = scg.jacobian(lambda a, c: a @ c, (0, 1))(A, b)
    np.testing.assert_array_equal(both[0], jacobian)
    np.testing.assert_array_equal(both[1], np.einsum("ik,jl->ijkl", A, np.eye(2)))


def test_gradients_by_intermediate_nodes():
    x = scg.parameter(X)
    y = x * x
    cost = np.sum(y * y)
    gx, gy, gc = scg.gradients(cost, [x, y, cost])
    np.testing.assert_allclose(gx, 4 * X**3, **TOLERANCE)
    np.testing.assert_array_equal(gy, 2 * X * X)
    assert gc == 1.0
    assert scg.gradients(cost, {"x": x})["x"].shape == (3,)
    assert scg.gradients(cost, []) == []
    np.testing.assert_array_equal(scg.gradients(cost, [scg.parameter(X)])[0], np.zeros(3))


def test_what_stop_gradient_holds_is_constant_to_every_order():
    def fn(x):
        return np.sum(scg.stop_gradient(x * x) * x)

    np.testing.assert_array_equal(scg.grad(fn)(X), X * X)
    np.testing.assert_array_equal(scg.hessian(fn)(X), np.zeros((3, 3)))


# primitives declared outside the package


cubic = scg.primitive(lambda x: x**3, scg.axes.elementwise, lambda g, out, x: g * (3 * x * x), name="cubic")
power_sum = scg.primitive(
    lambda x, *, axis, power: np.sum(x**power, axis=axis),
    scg.axes.reduction,
    lambda g, out, x, axis, power: np.expand_dims(g, axis) * (power * x ** (power - 1)),
    name="power_sum",
)
total = scg.primitive(
    lambda *xs, weights: sum(w * x for w, x in zip(weights, xs, strict=True)),
    scg.axes.elementwise,
    every=lambda g, i, out, *xs, weights: g * weights[i],
    name="total",
)
polar = scg.primitive(
    lambda r, t: (r * np.cos(t), r * np.sin(t)),
    None,
    lambda g, out, r, t: g[0] * np.cos(t) + g[1] * np.sin(t),
    lambda g, out, r, t: g[1] * r * np.cos(t) - g[0] * r * np.sin(t),
    name="polar",
)
USERS = {
    "elementwise": (cubic, lambda x: x**3),
    "unmapped": (
        scg.primitive(lambda x: x**3, None, lambda g, out, x: g * (3 * x * x), name="unmapped"),
        lambda x: x**3,
    ),
    "reduction": (lambda x: power_sum(x * A, axis=(1,), power=3), lambda x: np.sum((x * A) ** 3, axis=1)),
    "variadic": (
        lambda x: total(x, x * x, np.sin(x), weights=(1.0, 2.0, -0.5)),
        lambda x: x + 2 * x * x - 0.5 * np.sin(x),
    ),
    "several": (
        lambda x: np.stack(results(polar(x, x * x))),
        lambda x: np.stack([x * np.cos(x * x), x * np.sin(x * x)]),
    ),
    "one of several": (lambda x: results(polar(x, x * x))[1], lambda x: x * np.sin(x * x)),
}


@pytest.mark.parametrize("name", USERS)
def test_a_primitive_from_outside_has_values_derivatives_of_any_order_and_replays(name):
    fn, plain = USERS[name]
    np.testing.assert_array_equal(fn(X), plain(X))
    node = scg.parameter(X)
    out = fn(node)
    np.testing.assert_allclose(out.value, plain(X), **TOLERANCE)
    for order in (
        scg.jacobian,
        lambda f: scg.jacobian(scg.jacobian(f)),
        lambda f: scg.jacobian(scg.jacobian(scg.jacobian(f))),
    ):
        np.testing.assert_allclose(order(fn)(X), order(plain)(X), rtol=1e-10, atol=1e-10)
    batch = np.stack([X, X + 1, -X, X * 0])
    got = scg.replay(out, {node: batch}, batched=[node])
    np.testing.assert_allclose(got, np.stack([plain(x) for x in batch]), **TOLERANCE)
    (slope,) = scg.gradients(np.sum(out), [node], create_graph=True)
    many = scg.replay(slope, {node: batch}, batched=[node])
    np.testing.assert_allclose(many, [scg.grad(lambda x: np.sum(plain(x)))(x) for x in batch], **TOLERANCE)


def test_a_constant_primitive_has_a_zero_derivative():
    rounded = scg.primitive(lambda x: np.round(x), scg.axes.elementwise, name="rounded")
    np.testing.assert_array_equal(scg.grad(lambda x: np.sum(rounded(x) * x))(X), np.round(X))
    assert not rounded.differentiable and cubic.differentiable


def test_a_ufunc_from_outside_that_makes_objects_is_refused():
    ufunc = np.frompyfunc(lambda x: x * 2.0, 1, 1)
    with pytest.raises(scg.ScgError, match="object arrays.*astype"):
        scg.primitive(ufunc, scg.axes.elementwise, lambda g, out, x: 2.0 * g)
    twice = scg.primitive(
        lambda x: ufunc(x).astype(float), scg.axes.elementwise, lambda g, out, x: 2.0 * g, name="twice"
    )
    np.testing.assert_array_equal(scg.jacobian(twice)(X), 2 * np.eye(3))


@pytest.mark.parametrize("fn", [lambda x: float(np.sum(x)), lambda x: np.sum(x), lambda x: np.sum(x).reshape(())])
def test_a_primitive_from_outside_may_return_a_python_number(fn):
    own = scg.primitive(fn, None, lambda g, out, x: g * np.ones(3), name="own")
    np.testing.assert_array_equal(scg.grad(lambda x: own(x) * 2)(X), np.full(3, 2.0))
    assert own(scg.parameter(X)).shape == ()


def test_a_primitive_from_outside_that_returns_no_array_is_refused():
    broken = scg.primitive(lambda x: [[1.0], [1.0, 2.0]], None, lambda g, out, x: g, name="broken")
    with pytest.raises(scg.ScgError, match="broken needs an array"):
        broken(scg.parameter(X))


# threads


def workload(seed):
    rng = np.random.default_rng(seed)
    w, x = rng.normal(size=(4, 3)), rng.normal(size=3)

    def fn(p):
        y = np.tanh(p @ x)
        if np.sum(y) > 0:
            y = y * y
        return np.sum(np.exp(y) / 3)

    return scg.grad(fn)(w), scg.hessian(fn)(w), scg.jacobian(lambda p: np.sin(p) @ x)(w)


def test_eight_threads_at_once_give_the_serial_results_bit_for_bit():
    seeds = range(48)
    serial = [workload(seed) for seed in seeds]
    barrier = threading.Barrier(8)

    def run(seed):
        if seed < 8:
            barrier.wait(10)
        return workload(seed)

    with ThreadPoolExecutor(8) as pool:
        for one, other in zip(serial, pool.map(run, seeds), strict=True):
            for a, b in zip(one, other, strict=True):
                assert a.tobytes() == b.tobytes()


def test_one_graph_is_differentiated_by_eight_threads():
    x = scg.parameter(X)
    cost = scalar_fn(["sin", "couple", "exp"])(x)
    expected = scg.gradients(cost, [x])[0].tobytes()
    with ThreadPoolExecutor(8) as pool:
        assert {g.tobytes() for g in pool.map(lambda _: scg.gradients(cost, [x])[0], range(64))} == {expected}


def test_a_guard_of_one_thread_is_none_of_another():
    x = scg.parameter(1.0)
    made = []

    def other():
        made.append(x * 3)

    if x > 0:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert made[0].guard is None
    assert (x * 2).guard is not None


def test_the_memory_of_a_hessian_is_bounded_whatever_stands_between():
    """Between 300 numbers and the cost stand arrays of 300 x 300: all rows at once would take 216 megabytes for each of
    some ten arrays."""
    x = np.random.default_rng(0).normal(size=300)

    def cost(p):
        return np.sum(np.tanh(np.outer(p, p)))

    tracemalloc.start()
    try:
        found = scg.hessian(cost)(x)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 150e6
    for k in (0, 150, 299):
        np.testing.assert_allclose(found[k], scg.hvp(cost)(x, np.eye(300)[k]), rtol=1e-12, atol=1e-12)


def running_mean(state):
    def loss(p):
        state["mean"] = 0.9 * state.get("mean", 0.0) + 0.1 * np.mean(p)
        return np.sum((p - state["mean"]) ** 2)

    return loss


RUNS = {
    "grad": scg.grad,
    "value_and_grad": scg.value_and_grad,
    "hessian": scg.hessian,
    "jacobian": scg.jacobian,
    "hvp": lambda fn: lambda x: scg.hvp(fn)(x, x),
    "vjp": lambda fn: lambda x: scg.vjp(fn)(x)[1](np.ones(())),
    "grad of grad": lambda fn: scg.grad(lambda x: np.sum(scg.grad(fn)(x) ** 2)),
}


@pytest.mark.parametrize("second", [*RUNS, "trace"])
@pytest.mark.parametrize("first", RUNS)
def test_a_node_of_a_run_that_is_over_does_not_enter_another_run(first, second):
    """It would be neither a constant nor differentiated: gradients would be nodes, and the graph would grow with each
    step."""
    loss, x = running_mean({}), np.array([1.0, 2.0, 4.0])
    RUNS[first](loss)(x)
    with pytest.raises(
        ScgValueError, match=r"made at .*test_transforms.py:\d+, in loss, belongs to a run that is over"
    ):
        scg.trace(loss, x) if second == "trace" else RUNS[second](loss)(x)


@pytest.mark.parametrize("first", RUNS)
def test_a_cached_node_of_a_run_that_is_over_is_no_constant(first):
    """d tr(W^-1) / dW = -W^-2, and not zero because the inverse was computed in the run before."""
    kept = []

    def loss(w):
        kept[1:] or kept.append(np.linalg.inv(w))
        return np.trace(kept[0])

    RUNS[first](loss)(np.eye(2))
    with pytest.raises(ScgValueError, match="belongs to a run that is over"):
        scg.grad(loss)(2 * np.eye(2))
    with pytest.raises(ScgValueError, match="belongs to a run that is over"):
        scg.grad(lambda w: np.sum(w * 2))(kept[0])


def test_numbers_of_an_earlier_run_and_living_nodes_enter_another_one():
    state, x = {}, np.array([1.0, 2.0])

    def by_number(p):
        state["mean"] = 0.9 * state.get("mean", 0.0) + 0.1 * np.mean(p).value
        return np.sum((p - state["mean"]) ** 2)

    for k in range(1, 4):
        np.testing.assert_allclose(scg.grad(by_number)(x), 2 * (x - (1 - 0.9**k) * 1.5))
    p = scg.parameter(x)
    np.testing.assert_array_equal(scg.grad(lambda q: np.sum(p * q))(x).value, x)  # its own to differentiate
    graph = scg.trace(lambda q: np.sum(q**3), x)
    np.testing.assert_array_equal(scg.grad(lambda q: graph.cost * np.sum(q))(x).value, [9.0, 9.0])
    _, pullback = scg.vjp(np.tanh)(x)
    np.testing.assert_allclose(scg.grad(lambda v: np.sum(pullback(v)))(x).value, 1 - np.tanh(x) ** 2)
    # an inner run over numbers, in a run that goes on
    hyper = scg.grad(lambda t: np.sum(scg.grad(lambda q: np.sum(t * q**3))(x)))
    np.testing.assert_allclose(hyper(np.array(2.0)), 15.0)


# auxiliary results


def with_predictions(params, x):
    predicted = np.tanh(x @ params["w"])
    return np.mean(predicted**2), {"predicted": predicted, "rows": len(x), "note": "text", "none": None, "data": x}


def test_auxiliary_results_come_back_beside_the_cost_as_they_are():
    params, x = {"w": X}, A
    plain_value, plain_gradient = scg.value_and_grad(lambda p, x: with_predictions(p, x)[0])(params, x)
    (value, aux), gradient = scg.value_and_grad(with_predictions, has_aux=True)(params, x)
    gradient_alone, aux_alone = scg.grad(with_predictions, has_aux=True)(params, x)
    assert value == plain_value and type(value) is type(plain_value)
    np.testing.assert_array_equal(gradient["w"], plain_gradient["w"])
    np.testing.assert_array_equal(gradient_alone["w"], plain_gradient["w"])
    for found in (aux, aux_alone):
        np.testing.assert_array_equal(found["predicted"], np.tanh(x @ X))
        assert type(found["predicted"]) is np.ndarray and found["data"] is x
        assert (found["rows"], type(found["rows"]), found["note"], found["none"]) == (2, int, "text", None)


def test_auxiliary_results_of_a_constant_cost_are_arrays():
    (value, aux), gradient = scg.value_and_grad(lambda p: (3.0, p * 2), has_aux=True)(X)
    assert value == 3.0 and type(aux) is np.ndarray
    np.testing.assert_array_equal(gradient, np.zeros(3))


def test_auxiliary_results_that_an_if_chose_keep_their_kind():
    def cost(p):
        return (np.sum(p), ("up", 1, True)) if p[0] > 0 else (np.sum(p * p), ("down", 0, False))

    (_, aux), _ = scg.value_and_grad(cost, has_aux=True)(X)
    assert aux == ("up", 1, True) and list(map(type, aux)) == [str, int, bool]


def test_auxiliary_results_nest():
    """Inside v = sum(q^2), aux = q^3 t; outside v + sum(aux) + sum(dv/dq) = sum(t^2 + t^4 + 2 t), as q = t."""

    def outer(t):
        (value, aux), slope = scg.value_and_grad(lambda q: (np.sum(q * q), q**3 * t), has_aux=True)(t)
        return value + np.sum(aux) + np.sum(slope)

    np.testing.assert_allclose(scg.grad(outer)(X), 2 * X + 4 * X**3 + 2, rtol=1e-12)


def test_auxiliary_results_depend_on_what_is_outside_where_the_cost_does_not():
    def outer(t):
        (_, aux), _ = scg.value_and_grad(lambda q: (np.sum(q * q), q * t), has_aux=True)(np.array([5.0, 0.0, 1.0]))
        return np.sum(aux)

    np.testing.assert_array_equal(scg.grad(outer)(X), [5.0, 0.0, 1.0])


def test_auxiliary_results_of_a_plan_are_those_of_the_function():
    plain = scg.value_and_grad(with_predictions, has_aux=True)
    compiled = scg.compile(plain)
    for scale in (1.0, 2.0, 0.5):
        (value, aux), gradient = plain({"w": X * scale}, A)
        (planned, planned_aux), planned_gradient = compiled({"w": X * scale}, A)
        assert value == planned
        np.testing.assert_array_equal(gradient["w"], planned_gradient["w"])
        np.testing.assert_array_equal(aux["predicted"], planned_aux["predicted"])
        assert planned_aux["note"] == "text" and planned_aux["rows"] == 2
    assert not compiled.plainly


def test_auxiliary_results_are_those_of_the_draw():
    def cost(t, rng):
        z = scg.sample(scg.distributions.Normal(t, 1.0), scg.ScoreFunction(), rng=rng)
        return z * z, z

    (value, z), _ = scg.value_and_grad(cost, has_aux=True)(np.array(0.5), rng=np.random.default_rng(3))
    assert value == z * z and isinstance(z, np.floating)
