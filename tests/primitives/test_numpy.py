"""What NumPy itself would do: values bit for bit, masks that are refused everywhere, functions that see their piece,
arrays changed in place."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import scg
from scg import distributions as dist
from scg.errors import ScgTypeError, ScgValueError
from tests.support.cases import all_cases
from tests.support.drawn import drawn

pytestmark = pytest.mark.fast

ODD = {
    "masked": lambda x: np.ma.masked_array(x, mask=np.arange(x.size).reshape(x.shape) % 2 == 0),
    "matrix": np.asmatrix,
}
# the cases' own lines make something else of it first
CONSUMED = ("operator.getitem", "np.left_shift", "np.right_shift", "np.gcd", "np.lcm", "np.pad")
CASES = [c for c in all_cases() if len(c.domains) > 1 and c.name not in CONSUMED and not any(d.make for d in c.domains)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ODD)
def test_a_masked_array_or_matrix_meets_a_node_nowhere(kind):
    for case in CASES:
        rng = np.random.default_rng(0)
        xs = [rng.uniform(d.low, d.high, (3,) if d.shape is None else d.shape) for d in case.domains]
        for i, x in enumerate(xs):
            if x.ndim == 2 or kind == "masked" and x.ndim:
                with pytest.raises(ScgTypeError):
                    case.fn(*[ODD[kind](x) if j == i else scg.parameter(y) for j, y in enumerate(xs)])
                    pytest.fail(f"{case.name} takes a {kind} operand {i}")


def test_a_masked_array_is_no_parameter_value_gradient_or_input():
    m, p = np.ma.masked_array([1.0, 50.0, 3.0], [0, 1, 0]), np.ones(3)
    graph = scg.trace(
        lambda t, rng: np.sum(scg.sample(dist.Normal(t, 1.0), scg.ScoreFunction(), rng=rng, name="z")),
        p,
        rng=np.random.default_rng(0),
    )
    doors = [
        lambda: dist.Normal(m, 1.0),
        lambda: dist.Normal(p, 1.0).log_prob(m),
        lambda: graph.run(parameters=m),
        lambda: graph.run(values={"z": m}),
        lambda: scg.replay(graph.cost, {graph.parameters: m}),
        lambda: scg.nn.apply([(np.eye(3), p)], m),
        lambda: scg.optim.SGD([p.copy()], 0.1).step([m]),
        lambda: scg.optim.SGD([m], 0.1),
        lambda: scg.objectives.iwae(m),
        lambda: scg.grad(np.sum)(m),
        lambda: scg.vjp(np.tanh)(p)[1](m),
        lambda: scg.hvp(lambda x: np.sum(x**3))(p, m),
        lambda: scg.parameter(p)[m],
        lambda: np.stack([scg.parameter(p), m]),
    ]
    for door in doors:
        with pytest.raises((ScgTypeError, ScgValueError), match="mask"):
            door()


@drawn(60)
@given(st.data())
def test_np_gradient_has_numpys_own_values(data):
    """To the last bit, also where an infinity or a NaN spreads, or a large number cancels."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    shape = data.draw(st.lists(st.integers(3, 5), min_size=1, max_size=3))
    f = rng.normal(size=shape).astype(data.draw(st.sampled_from([np.float32, np.float64])))
    f.reshape(-1)[rng.integers(f.size)] = data.draw(st.sampled_from([0.5, np.nan, np.inf, -np.inf, 1e8]))
    axis = data.draw(st.sampled_from([None, *range(-len(shape), len(shape))]))
    over = range(len(shape)) if axis is None else [axis]
    spacing = data.draw(
        st.sampled_from(
            [
                [],
                [0.7],
                [2],
                [np.float32(0.3)],
                [np.cumsum(rng.uniform(0.5, 1, shape[a])) for a in over],
                [np.arange(shape[a]) * 2 for a in over],
            ]
        )
    )
    order = data.draw(st.sampled_from([1, 2]))
    with np.errstate(all="ignore"):
        right, found = (np.gradient(x, *spacing, axis=axis, edge_order=order) for x in (f, scg.parameter(f)))
    for a, b in zip(
        right if isinstance(right, (tuple, list)) else [right],
        found if isinstance(found, tuple) else [found],
        strict=True,
    ):
        np.testing.assert_array_equal(a, b.value)
        assert a.dtype == b.dtype


PIECES = [
    lambda v: v - v.mean(),
    lambda v: v / v.size,
    lambda v: v.max(),
    np.cumsum,
    np.sort,
    np.abs,
    lambda v: v * v,
    2.5,
    -1,
]


@drawn(60)
@given(
    st.lists(st.sampled_from(PIECES), min_size=2, max_size=3),
    st.sampled_from([-9.0, 0.0, 0.4, 9.0]),
    st.integers(0, 2**32),
)
def test_np_piecewise_gives_each_function_its_piece(functions, cut, seed):
    x = np.random.default_rng(seed).normal(size=(2, 3))

    def fn(x):
        return np.piecewise(
            x,
            [x < cut, x > cut + 0.5][: len(functions) - 1] if len(functions) == 2 else [x < cut, x > cut + 0.5],
            functions,
        )

    np.testing.assert_array_equal(
        scg.value_and_grad(lambda x: np.sum(fn(x) * np.arange(6.0).reshape(2, 3)))(x)[0],
        np.sum(fn(x) * np.arange(6.0).reshape(2, 3)),
    )


def test_np_piecewise_is_differentiated_through_its_piece():
    """v - mean(v) on {0, 1}, v / 2 on {2, 9}: the Jacobian is I - 1/2 in one block and I / 2 in the other."""
    jacobian = scg.jacobian(lambda p: np.piecewise(p, [p < 2, p >= 2], [lambda v: v - v.mean(), lambda v: v / v.size]))(
        np.array([0.0, 1.0, 2.0, 9.0])
    )
    np.testing.assert_allclose(jacobian, [[0.5, -0.5, 0, 0], [-0.5, 0.5, 0, 0], [0, 0, 0.5, 0], [0, 0, 0, 0.5]])


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1.0, 1e30, 1e200])
def test_hypot_reduce_does_not_leave_the_range(scale):
    x = np.array([[3.0, 4.0], [0.0, 0.0], [5.0, 12.0]]) * scale
    value, gradient = scg.value_and_grad(lambda x: np.sum(np.hypot.reduce(x, axis=1) / scale))(x)
    np.testing.assert_allclose([value], [18.0], rtol=1e-15)
    np.testing.assert_allclose(gradient[[0, 2]] * scale, [[0.6, 0.8], [5 / 13, 12 / 13]], rtol=1e-14)


@pytest.mark.parametrize("labels", [[0, 1], [1, 0], [30, 2], [0, 30], [26, 25], [51, 0]])
def test_einsum_with_numbers_as_labels_has_numpys_order(labels):
    x, y = np.arange(6.0).reshape(2, 3), np.arange(12.0).reshape(3, 4)
    np.testing.assert_array_equal(np.einsum(scg.parameter(x), labels).value, np.einsum(x, labels))
    np.testing.assert_array_equal(
        np.einsum(scg.parameter(x), [40, 3], y, [3, 7]).value, np.einsum(x, [40, 3], y, [3, 7])
    )


@pytest.mark.parametrize("labels", [[-1, 0], [52, 0], [0.5, 1]])
def test_einsum_refuses_labels_that_numpy_does_not_have(labels):
    with pytest.raises((ScgTypeError, ScgValueError)):
        np.einsum(scg.parameter(np.ones((2, 3))), labels)


def _centred(v):
    v -= np.mean(v)


def _own(p):
    total = 0.0
    for k in range(4):
        total += p * k
    hidden = p * 2
    for _ in range(3):
        hidden += np.tanh(hidden * 0.5)  # of its own value
    held = [p * 3, p]
    held[0] **= 2
    count = np.sum(p)
    before = count
    count += 1  # numbers do not change
    return np.sum(total * hidden + held[0]) + before * count


def _argument(p):
    q = p * 1.0
    _centred(q)
    return np.sum(q**2)


def _parameter(p):
    p += 1
    return np.sum(p)


def _view(p):
    q = p * 1.0
    first = q[:1]
    first *= 10
    return np.sum(q)


def _view_of_a_view(p):
    q = p * 1.0
    last = np.reshape(q, (1, -1))[:, 1:]
    last /= 2
    return np.sum(q)


def _viewed(p):
    q = p * 1.0
    first = q[:1]
    q *= 10
    return np.sum(first)


def _rows(p):
    q = np.stack([p, p * 2])
    for row in q:
        row *= 3
    return np.sum(q)


def _listed(p):
    q = p * 1.0
    states = [q]
    q += 1
    return np.sum(states[0])


def _another_name(p):
    q = p * 1.0
    other = q
    q += np.tanh(q)
    return np.sum(other)


def test_in_place_operators_are_numpys_where_nobody_else_holds_the_array():
    x = np.array([1.0, 2.0, 6.0])
    np.testing.assert_allclose(scg.value_and_grad(_own)(x)[0], _own(x.copy()), rtol=1e-15)
    single = scg.trace(lambda p: np.sum(_kept(p)), x.astype(np.float32)).cost
    assert single.dtype == np.float32


def _kept(p):
    q = p * 2
    q += np.ones(3)  # of double precision, and q keeps its own
    return q


@pytest.mark.parametrize("fn", [_argument, _parameter, _view, _view_of_a_view, _viewed, _rows, _listed, _another_name])
def test_what_would_change_an_array_for_others_too_is_refused(fn):
    with pytest.raises(ScgTypeError, match=r"nodes are immutable: write v = v .* \.\.\., and return v"):
        scg.value_and_grad(fn)(np.array([1.0, 2.0, 6.0]))


def test_in_place_operators_keep_shape_and_dtype_as_numpys_do():
    def grown(p):
        q = p * 1.0
        q += np.ones((2, 3))
        return np.sum(q)

    with pytest.raises(ScgValueError, match="keeps the shape"):
        scg.grad(grown)(np.ones(3))


@pytest.mark.parametrize("data", [np.float32, np.float64])
@pytest.mark.parametrize("weights", [[1, 2], np.float32([1, 2]), np.float64([1, 2])], ids=str)
def test_averages_and_their_weights_have_numpy_s_dtypes(data, weights):
    x = np.ones(2, data)
    for got, expected in zip(
        np.average(scg.parameter(x), weights=weights, returned=True),
        np.average(x, weights=weights, returned=True),
        strict=True,
    ):
        assert got.dtype == expected.dtype
