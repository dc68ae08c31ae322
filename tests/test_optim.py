"""Optimizers: their formulas, in place; state that resumes exactly; refusals before anything has changed."""

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from scg import ScgError, optim
from scg.core.tree import leaves, map_leaves
from scg.errors import NonFiniteError, ScgTypeError, ScgValueError
from tests.support.drawn import drawn

pytestmark = pytest.mark.fast

STEPS = 7


class Pair(NamedTuple):
    weight: np.ndarray
    bias: np.ndarray


def arrays(dtype):
    return hnp.arrays(
        dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4), elements=st.floats(-4, 4, width=16)
    )


def structures(dtype):
    a = arrays(dtype)
    return st.recursive(
        a,
        lambda t: (
            st.lists(t, max_size=3)
            | st.dictionaries(st.text("abc", min_size=1, max_size=2), t, max_size=3)
            | st.tuples(t, t)
            | st.builds(Pair, t, t)
        ),
        max_leaves=5,
    )


def sequence_of_gradients(params, seed, steps=STEPS):
    rng = np.random.default_rng(seed)
    return [
        map_leaves(lambda x: np.asarray(rng.standard_normal(x.shape) * 10.0 ** rng.integers(-3, 3), x.dtype), params)
        for _ in range(steps)
    ]


def adam(x, gs, a, b1, b2, e):
    m = v = np.zeros_like(x)
    for t, g in enumerate(gs, 1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        x = x - a * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + e)
    return x


def sgd(x, gs, a, momentum, nesterov):
    v = np.zeros_like(x)
    for g in gs:
        v = momentum * v + g
        x = x - a * (g + momentum * v if nesterov else v)
    return x


RULES = [
    (lambda p: optim.Adam(p), lambda x, gs: adam(x, gs, 1e-3, 0.9, 0.999, 1e-8)),
    (lambda p: optim.Adam(p, 0.1, 0.0, 0.5, 1e-3), lambda x, gs: adam(x, gs, 0.1, 0.0, 0.5, 1e-3)),
    (lambda p: optim.SGD(p, 0.03), lambda x, gs: sgd(x, gs, 0.03, 0, False)),
    (lambda p: optim.SGD(p, 0.03, momentum=0.8), lambda x, gs: sgd(x, gs, 0.03, 0.8, False)),
    (lambda p: optim.SGD(p, 0.03, momentum=0.8, nesterov=True), lambda x, gs: sgd(x, gs, 0.03, 0.8, True)),
]


@pytest.mark.slow
@pytest.mark.parametrize("make, reference", RULES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@drawn(20)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_each_rule_is_its_formula_in_place_and_in_the_dtype_of_the_parameters(make, reference, dtype, data, seed):
    params = data.draw(structures(dtype))
    gradients = sequence_of_gradients(params, seed)
    given_gradients = map_leaves(np.copy, gradients)
    start = [(path, x, x.astype(np.float64)) for path, x in leaves(params)]
    optimizer = make(params)
    for g in gradients:
        optimizer.step(g)
    for k, (path, x, before) in enumerate(start):
        gs = [np.float64([leaf for _, leaf in leaves(g)][k]) for g in gradients]
        expected = reference(before, gs)
        # a step has under 20 roundings, of sums that momentum keeps under |g| / (1 - momentum), and each is relative to
        # the largest
        travelled = (
            np.abs(before)
            + sum(np.abs(reference(np.zeros_like(before), gs[: i + 1])) for i in range(STEPS))
            + 20 * sum(map(np.abs, gs))
        )
        np.testing.assert_array_less(
            np.abs(x - expected), 20 * STEPS * np.finfo(dtype).eps * travelled + np.finfo(dtype).tiny
        )
        assert x.dtype == dtype and [leaf for p, leaf in leaves(params) if p == path][0] is x
    for a, b in zip(leaves(gradients), leaves(given_gradients), strict=True):
        np.testing.assert_array_equal(a[1], b[1])


@pytest.mark.parametrize("make", [make for make, _ in RULES])
@drawn(20)
@given(params=structures(np.float32), seed=st.integers(0, 2**32 - 1), pause=st.integers(0, STEPS))
def test_a_restored_state_goes_on_bit_for_bit(make, params, seed, pause):
    gradients = sequence_of_gradients(params, seed)
    copy = map_leaves(np.copy, params)
    straight, first = make(params), make(copy)
    for g in gradients:
        straight.step(g)
    for g in gradients[:pause]:
        first.step(g)
    kept, copy = first.state, map_leaves(np.copy, copy)
    for g in gradients[pause:]:
        first.step(g)  # the state that was taken must not follow
    second = make(copy)
    second.state = kept
    for g in gradients[pause:]:
        second.step(g)
    assert second.steps == straight.steps == STEPS
    for (_, a), (_, b) in zip(leaves((params, straight.state)), leaves((copy, second.state)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_views_and_transposed_parameters_are_updated_where_they_are():
    base = np.arange(24.0).reshape(4, 6)
    views = [base[::2, ::-1], base[1::2].T]
    g = [np.ones((2, 6)), np.ones((2, 6)).T]
    optim.SGD(views, 0.5).step(g)
    np.testing.assert_array_equal(base, np.arange(24.0).reshape(4, 6) - 0.5)


def test_adam_minimizes_a_quadratic():
    x = {"x": np.array([3.0, -2.0])}
    optimizer = optim.Adam(x, 0.1)
    for _ in range(400):
        optimizer.step({"x": 2 * (x["x"] - 1)})
    np.testing.assert_allclose(x["x"], 1, atol=1e-3)


def good():
    return {"w": np.ones((2, 3), np.float32), "b": [np.zeros(3, np.float32)]}


BAD_GRADIENTS = [
    (lambda g: g.pop("b"), ScgValueError, r"\['b'\]\[0\] is missing"),
    (lambda g: g.update(c=np.ones(1)), ScgValueError, r"no \['c'\]"),
    (lambda g: g.update(w=np.ones((3, 2), np.float32)), ScgValueError, r"gradients\['w'\].*\(2, 3\).*\(3, 2\)"),
    (lambda g: g.update(w=np.ones((2, 3))), ScgValueError, "float32.*float64"),
    (lambda g: g.update(w=np.ones(3, np.float32)), ScgValueError, "shape"),
    (lambda g: g.update(w=1.0), ScgTypeError, "float"),
    (lambda g: g.update(w=[1, 2]), ScgValueError, "structure"),
    (lambda g: g["b"][0].__setitem__(1, np.nan), NonFiniteError, r"gradients\['b'\]\[0\]"),
    (lambda g: g["b"][0].__setitem__(slice(0, 2), [np.inf, -np.inf]), NonFiniteError, "not finite"),
]


@pytest.mark.parametrize("make", [optim.Adam, lambda p: optim.SGD(p, 0.1, momentum=0.5)])
@pytest.mark.parametrize("spoil, kind, message", BAD_GRADIENTS)
def test_bad_gradients_change_nothing(make, spoil, kind, message):
    params, gradients = good(), good()
    optimizer = make(params)
    optimizer.step(good())
    before = map_leaves(np.copy, (params, optimizer.state))
    spoil(gradients)
    with pytest.raises(kind, match=message) as caught:
        optimizer.step(gradients)
    assert isinstance(caught.value, ScgError)
    for (_, a), (_, b) in zip(leaves(before), leaves((params, optimizer.state)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_gradients_whose_sum_overflows_are_finite():
    x = np.zeros(4, np.float32)
    optim.SGD(x, 0.5).step(np.full(4, 3e38, np.float32))
    np.testing.assert_array_equal(x, np.float32(-1.5e38))


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


SHARED = np.ones(4)
BAD_PARAMETERS = [
    ([np.ones(2, int)], ScgTypeError, r"params\[0\].*int64"),
    ([1.0], ScgTypeError, "float"),
    ([np.float64(1)], ScgTypeError, "float64"),
    ([np.ones(2, complex)], ScgTypeError, "complex"),
    ([read_only(np.ones(2))], ScgValueError, "read-only"),
    ({"a": SHARED, "b": SHARED[1:]}, ScgValueError, r"\['b'\] and params\['a'\] share memory"),
]


@pytest.mark.parametrize("params, kind, message", BAD_PARAMETERS)
def test_parameters_that_cannot_be_updated_are_refused(params, kind, message):
    with pytest.raises(kind, match=message):
        optim.Adam(params)


def test_interleaved_views_do_not_share_memory():
    assert optim.Adam([SHARED[::2], SHARED[1::2]]).steps == 0


@pytest.mark.parametrize(
    "settings",
    [
        {"learning_rate": -1},
        {"learning_rate": np.nan},
        {"learning_rate": "1"},
        {"beta1": 1},
        {"beta2": -0.1},
        {"epsilon": np.inf},
    ],
)
def test_settings_outside_their_range_are_refused(settings):
    (name,) = settings
    with pytest.raises(ScgError, match=name):
        optim.Adam(good(), **settings)


def test_a_learning_rate_may_be_scheduled_and_is_checked():
    x = np.zeros(1)
    optimizer = optim.SGD(x, 1.0)
    optimizer.learning_rate = 0.25
    optimizer.step(np.ones(1))
    assert x == -0.25
    optimizer.learning_rate = np.nan
    with pytest.raises(ScgValueError, match="learning_rate"):
        optimizer.step(np.ones(1))
    assert x == -0.25


@pytest.mark.parametrize(
    "spoil",
    [
        lambda s: s.pop("sum"),
        lambda s: s.update(steps=-1),
        lambda s: s.update(steps=1.5),
        lambda s: s.update(sum=[]),
        lambda s: s.update(velocity=1),
    ],
)
def test_a_foreign_state_is_refused(spoil):
    optimizer = optim.Adam(good())
    optimizer.step(good())
    before, state = optimizer.state, optimizer.state
    spoil(state)
    with pytest.raises(ScgError):
        optimizer.state = state
    for (_, a), (_, b) in zip(leaves(before), leaves(optimizer.state), strict=True):
        np.testing.assert_array_equal(a, b)


@given(decay=st.floats(0, 0.99), n=st.integers(1, 30))
def test_an_average_is_the_recursion_that_it_states(decay, n):
    xs = np.random.default_rng(n).standard_normal((n, 3))
    average, expected = optim.Average([xs[0] * 0], decay), np.zeros(3)
    for t, x in enumerate(xs, 1):
        average.step([x])
        d = min(decay, (1 + t) / (10 + t))
        expected = d * expected + (1 - d) * x
    np.testing.assert_allclose(average.params[0], expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    "step, kind",
    [
        (np.ones(2), ValueError),
        (np.ones((2, 3)), ValueError),
        (np.ones((3, 2), np.float32), ValueError),
        (np.ones((3, 2), int), ValueError),
        (np.full((3, 2), np.nan), NonFiniteError),
        (np.array([[1.0, np.inf], [0, 0], [0, 0]]), NonFiniteError),
        ("abc", ScgError),
    ],
    ids=repr,
)
def test_an_average_refuses_what_is_no_parameter_before_it_changes(step, kind):
    average = optim.Average({"a": np.zeros(2), "w": np.zeros((3, 2))}, 0.9)
    with pytest.raises(ScgError) as caught:
        average.step({"a": np.ones(2), "w": step})
    assert isinstance(caught.value, kind) and "params['w']" in str(caught.value) or step == "abc"
    assert average.steps == 0
    assert not average.params["a"].any() and not average.params["w"].any()


@pytest.mark.parametrize("start", [np.zeros(2, int), "abc", np.array([None]), 1j])
def test_an_average_is_of_real_floating_point_numbers(start):
    with pytest.raises(ScgError, match=r"params\['w'\]"):
        optim.Average({"w": start}, 0.9)
