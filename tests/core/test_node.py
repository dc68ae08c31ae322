"""What a Node is: it goes where an array goes, it never changes, and nothing detaches or mutates it behind the graph's
back."""

import copy
import gc
import operator
import pickle
import re
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import scg
from scg import distributions as dist
from scg.core.cotangents import results
from scg.core.node import Node
from scg.core.operands import frozen
from scg.errors import ScgError
from scg.primitives.layout import alias

pytestmark = pytest.mark.fast

OPERATORS = [
    operator.add,
    operator.sub,
    operator.mul,
    operator.truediv,
    operator.floordiv,
    operator.mod,
    operator.pow,
    divmod,
]
COMPARISONS = [operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge]
INTEGER_OPERATORS = [operator.and_, operator.or_, operator.xor, operator.lshift, operator.rshift]
X = np.array([[1.5, 2.5, 0.5], [3.5, 1.25, 2.0]])
OTHERS = [
    2,
    2.5,
    True,
    np.float64(1.5),
    np.float32(1.5),
    np.int64(2),
    np.array(1.5),
    np.array([1.0, 2.0, 3.0]),
    [1.0, 2.0, 3.0],
    (3, 2, 1),
    [[1], [2]],
    np.arange(1, 7).reshape(2, 3),
    np.ones((2, 3), bool),
    np.float32([[2.0], [4.0]]),
]


def raw(value):
    return tuple(map(raw, value)) if isinstance(value, tuple) else value.value if type(value) is Node else value


def assert_same(node, expected):
    """The value, shape and dtype that NumPy gives."""
    if isinstance(expected, tuple):
        assert len(node) == len(expected)
        for one, other in zip(node, expected, strict=True):
            assert_same(one, other)
        return
    assert type(node) is Node
    assert node.dtype == np.asarray(expected).dtype
    assert node.shape == np.shape(expected)
    np.testing.assert_array_equal(node.value, expected)


@pytest.mark.parametrize("op", OPERATORS + COMPARISONS)
@pytest.mark.parametrize("other", OTHERS, ids=repr)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_an_operator_gives_what_numpy_gives_on_either_side(op, other, dtype):
    x = X.astype(dtype)
    node = scg.parameter(x)
    assert_same(op(node, other), op(x, other))
    assert_same(op(other, node), op(other, x))


@pytest.mark.parametrize("op", OPERATORS + COMPARISONS)
def test_an_operator_of_two_nodes_gives_what_numpy_gives(op):
    assert_same(op(scg.parameter(X), scg.parameter(X[:1])), op(X, X[:1]))


@pytest.mark.parametrize("op", INTEGER_OPERATORS)
def test_integer_operators_act_on_integer_nodes(op):
    node = np.floor(scg.parameter(X)).astype(np.int64)
    whole = np.floor(X).astype(np.int64)
    assert_same(op(node, 1), op(whole, 1))
    assert_same(op(3, node), op(3, whole))
    assert_same(op(whole, node), op(whole, whole))
    assert_same(~node, ~whole)


@pytest.mark.parametrize("op", [operator.neg, operator.pos, abs])
def test_unary_operators(op):
    assert_same(op(scg.parameter(-X)), op(-X))


@pytest.mark.parametrize(
    "exponent", [0, 1, 2, 3, -1, 0.5, 2.0, -0.5, np.float64(2), np.int64(3), np.array(0.5)], ids=repr
)
def test_powers_are_numpy_s(exponent):
    assert_same(scg.parameter(X) ** exponent, X**exponent)


def test_matrix_products_on_either_side():
    a, b = X, X.T.copy()
    for left, right in [
        (scg.parameter(a), b),
        (a, scg.parameter(b)),
        (scg.parameter(a), scg.parameter(b)),
        (a.tolist(), scg.parameter(b)),
    ]:
        assert_same(
            left @ right,
            np.asarray(left if type(left) is not Node else left.value) @ (b if type(right) is Node else right),
        )
    assert_same(scg.parameter(a) @ b[:, 0], a @ b[:, 0])


METHODS = [
    ("sum", (), {}),
    ("sum", (0,), {}),
    ("sum", (), {"axis": -1, "keepdims": True}),
    ("mean", (), {"axis": 0}),
    ("max", (1,), {}),
    ("min", (), {}),
    ("prod", (), {"axis": 1}),
    ("var", (), {}),
    ("std", (0,), {}),
    ("cumsum", (), {"axis": 1}),
    ("cumprod", (0,), {}),
    ("all", (), {}),
    ("any", (0,), {}),
    ("argmax", (), {}),
    ("argmin", (1,), {}),
    ("argsort", (), {}),
    ("astype", (np.float32,), {}),
    ("astype", (int,), {}),
    ("clip", (1.0, 2.0), {}),
    ("copy", (), {}),
    ("conj", (), {}),
    ("conjugate", (), {}),
    ("diagonal", (), {}),
    ("dot", (X.T,), {}),
    ("flatten", (), {}),
    ("ravel", (), {}),
    ("repeat", (2,), {}),
    ("round", (1,), {}),
    ("reshape", (3, 2), {}),
    ("reshape", ((3, -1),), {}),
    ("reshape", (-1,), {}),
    ("squeeze", (), {}),
    ("swapaxes", (0, 1), {}),
    ("take", ([0, 2],), {"axis": 1}),
    ("trace", (), {}),
    ("transpose", (), {}),
    ("transpose", (1, 0), {}),
    ("transpose", ((1, 0),), {}),
    ("compress", ([True, False],), {"axis": 0}),
    ("nonzero", (), {}),
]


@pytest.mark.parametrize("name, args, kwargs", METHODS, ids=lambda v: str(v)[:20])
def test_methods_are_numpy_s(name, args, kwargs):
    got, expected = getattr(scg.parameter(X), name)(*args, **kwargs), getattr(X, name)(*args, **kwargs)
    if isinstance(expected, tuple):
        assert len(got) == len(expected)
        for one, other in zip(got, expected, strict=True):
            np.testing.assert_array_equal(raw(one), other)
    else:
        np.testing.assert_allclose(raw(got), expected, rtol=4e-16)
        assert raw(got).dtype == expected.dtype


@pytest.mark.parametrize("name", ["shape", "dtype", "ndim", "size", "nbytes", "itemsize", "device"])
def test_properties_are_the_value_s(name):
    assert getattr(scg.parameter(X), name) == getattr(X, name)


def test_a_node_is_on_the_device_of_numpy_and_goes_to_no_other():
    node = scg.parameter(X)
    assert node.to_device("cpu") is node
    with pytest.raises(ValueError, match="cpu|cuda"):
        node.to_device("cuda")


@pytest.mark.parametrize("name", ["T", "mT", "real", "imag"])
def test_views_are_nodes_with_a_derivative(name):
    node = scg.parameter(X)
    np.testing.assert_array_equal(getattr(node, name).value, getattr(X, name))
    gradient = scg.gradients(np.sum(getattr(node, name) * 3.0), [node])[0]
    np.testing.assert_array_equal(gradient, np.zeros_like(X) if name == "imag" else np.full_like(X, 3.0))


def test_iteration_length_and_unpacking():
    node = scg.parameter(X)
    assert len(node) == 2
    first, second = node
    assert_same(first, X[0])
    assert_same(second, X[1])
    (a, b, c), _ = node
    assert_same(c, X[0, 2])
    assert [row.shape for row in reversed(node)] == [(3,), (3,)]
    scalar = scg.parameter(1.0)
    for broken in (lambda: len(scalar), lambda: list(scalar)):
        with pytest.raises(TypeError) as caught:
            broken()
        assert isinstance(caught.value, ScgError)


def test_membership_is_refused_or_numpy_s():
    assert (2.5 in scg.parameter(X[0])) is True
    assert (9.0 in scg.parameter(X[0])) is False


def test_a_node_is_a_key_by_identity():
    x, y = scg.parameter(X), scg.parameter(X)
    table = {x: 1, y: 2}
    assert table[x] == 1 and table[y] == 2
    assert hash(x) != hash(y)
    assert len({x, y, x}) == 2


def test_formatting_shows_the_value():
    node = scg.parameter(1.23456)
    assert f"{node:.2f}" == "1.23"
    assert f"{node}" == repr(node) == str(node)


def several():
    return scg.primitive(lambda x: (x, 2 * x), None, lambda g, out, x: g[0] + 2 * g[1], name="several")


@pytest.mark.parametrize(
    "make",
    [
        lambda: scg.parameter(np.zeros(10**6)),
        lambda: scg.parameter(np.zeros((0, 3))),
        lambda: scg.parameter(np.float32(1e-30)),
        lambda: scg.parameter(np.array([np.nan, np.inf, -np.inf])),
        lambda: scg.parameter(X, name="x" * 10_000),
        lambda: several()(scg.parameter(np.zeros(10**6))),
        lambda: scg.parameter(X) * 1j,
        lambda: scg.parameter(X) > 0,
        lambda: np.exp(scg.parameter(np.ones((1,) * 30))),
    ],
)
def test_repr_is_short_and_never_fails(make):
    node = make()
    assert 5 < len(repr(node)) < 200
    assert "\n" not in repr(node)
    assert repr(node) == str(node)


def test_repr_names_the_operation_the_shape_and_a_small_value():
    assert repr(scg.parameter(np.array([1.0, 2.0]), name="w")) == "<parameter 'w': [1., 2.], shape (2,), float64>"
    assert "add" in repr(scg.parameter(X) + 1) and "(2, 3)" in repr(scg.parameter(X) + 1)


def test_copies_are_the_node_itself():
    node = np.exp(scg.parameter(X))
    assert copy.copy(node) is node
    assert copy.deepcopy({"a": [node]})["a"][0] is node


@pytest.mark.parametrize(
    "make",
    [lambda x: x, np.exp, np.transpose, alias, np.sum, lambda x: x[0], lambda x: np.reshape(x, (6,)), lambda x: x.T],
)
def test_a_value_is_read_only(make):
    node = make(scg.parameter(X.copy()))
    before = np.array(node.value)
    if node.shape:
        with pytest.raises(ValueError, match="read-only"):
            node.value[...] = 7.0
        with pytest.raises(ValueError, match="read-only"):
            np.add(node.value, 1.0, out=node.value)
    for change in (
        lambda: setattr(node, "value", 0.0),
        lambda: setattr(node, "shape", (6,)),
        lambda: setattr(node, "anything", 1),
    ):
        with pytest.raises(AttributeError):
            change()
    np.testing.assert_array_equal(node.value, before)


# frozen: what changes behind the graph's back changes nothing in it


def mutable_base():
    base = np.array([1.0, 2.0, 3.0, 4.0])
    view = base[::2]
    view.flags.writeable = False
    return base, view


@pytest.mark.parametrize(
    "combine", [lambda x, c: x * c, lambda x, c: c / x, lambda x, c: np.where(c > 1, x, c * x), np.dot]
)
def test_a_constant_beside_a_node_is_the_one_that_it_was(combine):
    c = np.array([1.0, 2.0, 3.0])
    x = scg.parameter(np.array([0.5, 0.25, 2.0]))
    y = np.sum(combine(x, c))
    value, gradient, again = y.value, scg.gradients(y, [x])[0], scg.replay(y, {x: np.ones(3)})
    c[:] = 100.0
    assert y.value == value
    np.testing.assert_array_equal(scg.gradients(y, [x])[0], gradient)
    np.testing.assert_array_equal(scg.replay(y, {x: np.ones(3)}), again)


def test_a_parameter_is_the_array_that_it_was():
    array = np.array([1.0, 2.0])
    x = scg.parameter(array)
    y = np.sum(x * x)
    array[:] = 50.0
    np.testing.assert_array_equal(x.value, [1.0, 2.0])
    np.testing.assert_array_equal(scg.gradients(y, [x])[0], [2.0, 4.0])


def test_an_input_changed_during_the_forward_pass_stays_what_it_was():
    array = np.array([1.0, 2.0])

    def fn(x):
        y = x * x
        array[:] = 50.0
        return np.sum(y * x)

    np.testing.assert_array_equal(scg.grad(fn)(array), [3.0, 12.0])


def test_an_index_array_or_mask_is_the_one_that_it_was():
    x = scg.parameter(np.array([1.0, 2.0, 3.0]))
    index, mask = np.array([0, 2]), np.array([True, False, True])
    picked = [np.sum(x[index] ** 2), np.sum(x[mask] ** 2), np.sum(np.take(x, index) ** 2)]
    index[:], mask[:] = 1, [False, True, False]
    for y in picked:
        np.testing.assert_array_equal(scg.gradients(y, [x])[0], [2.0, 0.0, 6.0])
        assert scg.replay(y, {x: np.array([2.0, 0.0, 2.0])}) == 8.0


def test_a_read_only_view_of_a_writable_array_is_copied():
    base, view = mutable_base()
    x = scg.parameter(view)
    y = np.sum(x * view)
    base[:] = 9.0
    np.testing.assert_array_equal(x.value, [1.0, 3.0])
    np.testing.assert_array_equal(scg.gradients(y, [x])[0], [1.0, 3.0])


def test_a_read_only_array_is_copied_since_its_owner_may_write_to_it_again():
    array = np.arange(1.0, 5.0)
    view = array[:]
    array.flags.writeable = view.flags.writeable = False
    x = scg.parameter(np.ones(4))
    distribution = dist.Normal(array, 1.0)
    costs = [np.sum(x * array), np.sum(x * view), np.sum(x * distribution.loc), np.sum(x * scg.parameter(array))]
    array.flags.writeable = True
    array[:] = 9
    for cost in costs:
        np.testing.assert_array_equal(scg.gradients(cost, [x])[0], [1.0, 2.0, 3.0, 4.0])


def test_memory_that_nobody_can_ever_write_to_is_not_copied():
    for array in (
        frozen(np.ones(3)),
        np.frombuffer(np.ones(3).tobytes()),
        frozen(np.ones((2, 3)).T),
        frozen(np.ones((0, 3))),
    ):
        assert frozen(array) is array and (scg.parameter(2.0) * array).operands[1] is array
        assert frozen(array[1:]).base is array or array.base is frozen(array[1:]).base
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.flags.writeable = True


@pytest.mark.parametrize("make", [lambda b: np.frombuffer(b), lambda b: np.frombuffer(memoryview(b))])
def test_memory_that_somebody_else_can_write_to_is_copied(make):
    buffer = bytearray(np.array([1.0, 2.0]).tobytes())
    array = make(buffer)
    array.flags.writeable = False
    x = scg.parameter(array)
    buffer[:] = bytes(16)
    np.testing.assert_array_equal(x.value, [1.0, 2.0])


def test_a_gradient_does_not_share_memory_with_the_graph_or_another_gradient():
    x, y = scg.parameter(X), scg.parameter(X)
    c = np.sum(x + y)
    first, second, third = scg.gradients(c, [x, y, x])
    again = scg.gradients(np.sum(x * X), [x])[0]
    for one, other in [(first, second), (first, third), (second, third), (again, X), (again, x.value)]:
        assert not np.may_share_memory(one, other)
    for one in (first, second, third, again):
        one[...] = np.nan  # writable
    np.testing.assert_array_equal(scg.gradients(c, [x])[0], np.ones_like(X))


# pickle


def round_trip(value):
    return pickle.loads(pickle.dumps(value))


doubled = scg.primitive(lambda x, *, times: times * x, None, lambda g, out, x, times: times * g, name="doubled")
split = scg.primitive(
    lambda x: (np.sin(x), np.cos(x)), None, lambda g, out, x: g[0] * out[1] - g[1] * out[0], name="split"
)


def test_a_pickled_graph_has_the_same_values_gradients_and_lines():
    def fn(x):
        s, c = results(split(x))
        return np.sum(doubled(s * X, times=3.0) + np.exp(c)[..., ::-1] ** 2 + x[0])

    x = scg.parameter(X, name="x")
    y = fn(x)
    z = round_trip(y)
    leaf = [n for n in scg.core.ancestry.ancestors([z]) if not n.operands][0]
    assert leaf.name == "x" and z.line == y.line and leaf.line == x.line
    np.testing.assert_array_equal(z.value, y.value)
    np.testing.assert_array_equal(scg.gradients(z, [leaf])[0], scg.gradients(y, [x])[0])
    np.testing.assert_array_equal(scg.replay(z, {leaf: X + 1}), scg.replay(y, {x: X + 1}))
    assert not z.value.flags.writeable if z.shape else True


def test_nodes_pickled_together_stay_one_graph():
    x = scg.parameter(X)
    a, b = x * 2, x * 3
    x2, a2, b2 = round_trip((x, a, b))
    got = scg.gradients(np.sum(a2 * b2), [x2])
    np.testing.assert_array_equal(got[0], scg.gradients(np.sum(a * b), [x])[0])


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_serves(protocol):
    assert pickle.loads(pickle.dumps(np.sum(scg.parameter(X)), protocol)).value == X.sum()


def test_a_primitive_is_pickled_by_its_name():
    assert round_trip(doubled) is doubled
    assert round_trip(scg.core.primitive.IMPLEMENTATIONS[np.exp]) is scg.core.primitive.IMPLEMENTATIONS[np.exp]


def test_a_primitive_without_a_name_says_what_it_needs():
    unbound = scg.primitive(lambda x: x, None, lambda g, out, x: g, name="unbound")
    with pytest.raises(ScgError, match=r"unbound.*top level of module"):
        pickle.dumps(unbound(scg.parameter(1.0)))


# freed by reference counting alone


@pytest.fixture
def no_collector():
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def fn_plain(x):
    return np.sum(np.exp(x[0]) * X)


def fn_guard(x):
    if np.sum(x) > 0:
        x = x * 2
    return np.sum(x)


def fn_error(x):
    raise RuntimeError(str(np.sum(x * x).shape))


@pytest.mark.slow
@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("fn", [fn_plain, fn_guard, fn_error], ids=lambda f: f.__name__)
@pytest.mark.parametrize(
    "use",
    [
        scg.grad,
        scg.value_and_grad,
        scg.jacobian,
        scg.hessian,
        scg.vjp,
        lambda f: scg.grad(lambda x: np.sum(scg.grad(f)(x) ** 2)),
    ],
)
def test_a_function_leaves_nothing_behind(fn, use):
    alive = []

    def watched(x):
        alive.append(weakref.ref(x))
        y = fn(x)
        alive.append(weakref.ref(y))
        return y

    try:
        use(watched)(X)
    except RuntimeError:
        pass
    assert alive and all(ref() is None for ref in alive)


@pytest.mark.usefixtures("no_collector")
def test_a_graph_built_in_a_program_is_freed_with_its_last_node():
    x = scg.parameter(X)
    y = np.exp(x)
    if np.sum(y) > 0:
        z = np.sum(y * x)
    scg.gradients(z, [x])
    scg.gradients(z, [x], create_graph=True)
    scg.replay(z, {x: X + 1})
    scg.replay(z, {x: np.stack([X, X])}, batched=[x])
    z2 = pickle.loads(pickle.dumps(z))
    refs = [weakref.ref(n) for n in (x, y, z, z2)]
    del x, y, z, z2
    assert [ref() for ref in refs] == [None] * 4


@pytest.mark.usefixtures("no_collector")
def test_a_loop_that_stops_by_a_node_does_not_keep_its_past():
    refs = []
    for _ in range(5):
        x = scg.parameter(X)
        cost = np.sum(x * x)
        if cost < 0:
            break
        refs.append(weakref.ref(x))
    assert [ref() is None for ref in refs] == [True] * 4 + [False]


@given(
    st.lists(
        st.sampled_from([np.tanh, np.sin, np.negative, lambda x: x * 2.0, lambda x: x + X, lambda x: x[::-1]]),
        min_size=1,
        max_size=6,
    )
)
def test_ids_are_a_topological_order(steps):
    x = scg.parameter(X)
    y = x
    for step in steps:
        y = step(y) + y
    order = scg.core.ancestry.ancestors([y])
    place = {node.id: k for k, node in enumerate(order)}
    assert order[0] is x and order[-1] is y
    for node in order:
        assert all(place[o.id] < place[node.id] for o in node.operands if type(o) is Node)


def test_the_line_of_a_node_is_the_user_s_own():
    node = np.exp(scg.parameter(X)) * 2
    assert re.search(r"test_node\.py:\d+, in test_the_line_of_a_node_is_the_user_s_own$", node.line)
    with open(__file__) as source:
        assert (
            "node = np.exp(scg.parameter(X)) * 2"
            in source.read().splitlines()[int(node.line.split(":")[1].split(",")[0]) - 1]
        )
