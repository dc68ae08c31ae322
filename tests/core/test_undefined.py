"""A cost that is a NaN has no gradient of zero: it is NaN where the NaN came from, and stays zero behind a mask."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import scg

NAN = np.nan
V = np.array([1.0, NAN, 3.0])

# of (1, nan, 3); each is NaN because of its second element alone
COSTS = {
    "max": np.max,
    "min": np.min,
    "max over an axis": lambda v: np.sum(np.max(v[:, None] * [1.0, 2.0], axis=0)),
    "maximum": lambda v: np.sum(np.maximum(v, 0)),
    "minimum": lambda v: np.sum(np.minimum(0, v)),
    "clip": lambda v: np.sum(np.clip(v, 0, 2)),
    "median": np.median,
    "quantile": lambda v: np.quantile(v, 0.3),
    "percentile": lambda v: np.percentile(v, [10, 90]).sum(),
    "ptp": np.ptp,
    "norm": np.linalg.norm,
    "norm 1": lambda v: np.linalg.norm(v, 1),
    "norm inf": lambda v: np.linalg.norm(v, np.inf),
    "sort": lambda v: np.sum(np.sort(v) * [1, 2, 3]),
    "partition": lambda v: np.partition(v, 1)[2],
    "argmax": lambda v: v[np.argmax(v)],
    "running maximum": lambda v: np.sum(np.maximum.accumulate(v)),
    "reduce": lambda v: np.maximum.reduce(v, initial=0.0),
    "outer": lambda v: np.sum(np.maximum.outer(v, np.zeros(2))),
    "zero weight": lambda v: np.sum(np.zeros(3) * v),
    "zero times a maximum": lambda v: 0 * np.max(v),
    "zeros in a product": lambda v: v @ np.zeros(3),
    "a zero in a matrix": lambda v: np.sum(np.array([[1.0, 0.0, 2.0], [1.0, 1.0, 1.0]]) @ v),
    "a zero in an einsum": lambda v: np.sum(np.einsum("i,ij->j", v, np.array([[1.0, 1.0], [0.0, 1.0], [1.0, 1.0]]))),
    "zeros in a product of stacks": lambda v: np.sum(np.stack([v, v])[:, None] @ np.zeros((3, 2))),
    "zeros in an outer product": lambda v: np.sum(np.outer(v, [0.0, 1.0])),
    "floor": lambda v: np.sum(np.floor(v)),
    "sign": lambda v: np.sum(np.sign(v)),
    "remainder": lambda v: np.sum(v % 1),
    "abs": lambda v: np.sum(np.abs(v)),
    "behind layers": lambda v: np.sum(np.maximum(np.maximum(2 * v, 0) @ np.ones((3, 2)), 0)),
    "reshaped": lambda v: np.max(np.reshape(v, (1, 3))[:, ::-1].T),
    "picked": lambda v: np.max(v[1:]),
    "beside others": lambda v: np.sum(v) + np.max(v),
}


@pytest.fixture(autouse=True)
def quiet():
    with np.errstate(all="ignore"):
        yield


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", COSTS)
def test_the_gradient_is_nan_at_the_nan(name, dtype):
    value, gradient = scg.value_and_grad(COSTS[name])(V.astype(dtype))
    assert np.isnan(value) and np.isnan(gradient[1])
    assert gradient.dtype == dtype
    node = scg.parameter(V)
    assert np.isnan(scg.gradients(COSTS[name](node), node, create_graph=True).value[1])


@pytest.mark.parametrize(
    "name", ["max", "maximum", "clip", "median", "sort", "zero weight", "zeros in a product", "floor", "norm inf"]
)
def test_a_plan_and_a_second_derivative_say_so_too(name):
    compiled = scg.compile(scg.value_and_grad(COSTS[name]))
    alone = scg.compile(scg.grad(COSTS[name]))
    usual = np.array([0.25, 0.5, 1.5])
    for x in (usual, V, usual):
        value, gradient = scg.value_and_grad(COSTS[name])(x)
        for found in (compiled(x)[1], alone(x)):
            np.testing.assert_array_equal(found, gradient)
        np.testing.assert_array_equal(compiled(x)[0], value)
    assert compiled.plainly == 2 and alone.plainly == 1  # for the NaN
    assert np.isnan(scg.hessian(COSTS[name])(V)[1]).all()
    assert np.isnan(scg.hvp(COSTS[name])(V, np.ones(3))[1])


# one element is NaN; a mask takes it out, and another may make the cost a NaN
MASKED = {
    "where": lambda v: np.sum(np.where(np.isnan(v), 0, v)),
    "where of a maximum": lambda v: np.sum(np.where(np.isnan(v), 0, np.maximum(v, 0))),
    "nansum": np.nansum,
    "nanmax": np.nanmax,
    "nanmedian": np.nanmedian,
    "nan_to_num": lambda v: np.sum(np.nan_to_num(v)),
    "select": lambda v: np.sum(np.select([v > 0], [np.maximum(v, 0)], 0)),
    "not picked": lambda v: np.max(v[::2]),
    "where=": lambda v: np.max(v, where=np.array([True, False, True]), initial=0.0),
}


@pytest.mark.parametrize("name", MASKED)
def test_what_a_mask_takes_out_has_derivative_zero(name):
    value, gradient = scg.value_and_grad(MASKED[name])(V)
    assert np.isfinite(value) and gradient[1] == 0
    np.testing.assert_array_equal(gradient[::2], scg.grad(lambda v: MASKED[name](np.stack([v[0], NAN, v[1]])))(V[::2]))


@pytest.mark.parametrize("name", ["where of a maximum", "nansum", "select", "not picked"])
def test_it_stays_zero_where_something_else_makes_the_cost_a_nan(name):
    gradient = scg.grad(lambda v, w: MASKED[name](v) + np.max(w))(V, V)
    assert gradient[1] == 0
    assert np.isnan(scg.grad(lambda v, w: MASKED[name](v) + np.max(w), 1)(V, V)[1])


@given(data=st.data(), rows=st.integers(1, 5))
def test_a_nan_among_data_reaches_the_weights_of_every_layer(data, rows):
    """In one row, whatever the others are: the gradient that they give alone would be wrong in silence."""
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    x = rng.standard_normal((rows, 3))
    x[data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, 2))] = NAN
    layers = [rng.standard_normal((3, 2)), rng.standard_normal((2, 1))]
    squash = data.draw(st.sampled_from([lambda h: np.maximum(h, 0), lambda h: np.clip(h, -1, 1), np.abs]))
    value, gradient = scg.value_and_grad(lambda w: np.mean(squash(x @ w[0]) @ w[1]))(layers)
    assert np.isnan(value)
    assert np.isnan(gradient[0]).any() and np.isnan(gradient[1]).any()


def test_constants_and_stopped_gradients_end_the_way():
    np.testing.assert_array_equal(scg.grad(lambda v, w: np.sum(v) + np.max(w))(np.ones(3), V), np.ones(3))
    np.testing.assert_array_equal(scg.grad(lambda v: np.max(scg.stop_gradient(v)) + np.sum(v))(V), np.ones(3))


def test_a_sum_of_infinities_keeps_its_zeros():
    """inf - inf is made by a sum, which has a derivative."""
    x = np.array([np.inf, -np.inf, 1.0, 0.0])
    np.testing.assert_array_equal(scg.grad(lambda v: np.sum(v * x))(np.ones(4)), x)


# functions of (1, nan, 3) with several results
VECTORS = {
    "maximum": lambda v: np.maximum(v, 0),
    "clip": lambda v: np.clip(v, 0, 2),
    "where": lambda v: np.where(v > 0, v, 2 * v),
    "masked": lambda v: np.where(np.isnan(v), 0, np.maximum(v, 0)),
    "zero weight": lambda v: np.array([0.0, 0.0, 1.0]) * v,
    "sort": np.sort,
    "running maximum": np.maximum.accumulate,
    "a zero in a matrix": lambda v: np.array([[1.0, 0.0, 2.0], [1.0, 1.0, 1.0]]) @ v,
    "the largest": lambda v: np.max(v[:, None] * [1.0, 2.0], axis=0),
    "a matrix": lambda v: np.maximum.outer(v, np.zeros(2)),
    "one number": np.max,
}


@pytest.mark.parametrize("name", VECTORS)
def test_rows_of_a_jacobian_are_the_gradients_of_the_elements(name):
    f = VECTORS[name]
    shape = f(V).shape
    rows = [scg.grad(lambda v, place=place: f(v)[place])(V) for place in np.ndindex(shape)]
    expected = np.reshape(rows, (*shape, 3))
    compiled = scg.compile(scg.jacobian(f))
    compiled(np.array([0.25, 0.5, 1.5]))
    for jacobian in (scg.jacobian(f), compiled):
        np.testing.assert_array_equal(jacobian(V), expected)
    pull = lambda v, seed: scg.vjp(f)(v)[1](seed)
    compiled = scg.compile(pull)
    compiled(np.array([0.25, 0.5, 1.5]), np.ones(shape))
    for k, place in enumerate(np.ndindex(shape)):
        seed = np.zeros(shape)
        seed[place] = 2.0
        for found in (pull, compiled):
            np.testing.assert_array_equal(found(V, seed), 2 * rows[k])
    total = scg.grad(lambda v: np.sum(f(v)))(V)
    np.testing.assert_array_equal(scg.vjp(f)(V)[1](np.ones(shape)), total)
