"""Derivatives of derivatives at a tie: each operand of a maximum has a share there, and what is composed of shares is
compared with the derivatives nearby."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import scg
from tests.support.drawn import drawn

pytestmark = pytest.mark.fast

SIZES = {  # |u|, in ways that tie where u = 0
    "maximum": lambda u: np.maximum(u, -u),
    "minimum": lambda u: -np.minimum(u, -u),
    "fmax": lambda u: np.fmax(-u, u),
    "max of an axis": lambda u: np.max(np.stack([u, -u, u])),
    "range": lambda u: 0.5 * np.ptp(np.stack([u, -u])),
    "two rectifiers": lambda u: np.maximum(u, 0) + np.maximum(-u, 0),
    "clipped on both sides": lambda u: np.clip(u, 0, 9) - np.clip(u, -9, 0),
    "copysign": lambda u: np.copysign(u, 1.0),
    "where": lambda u: np.where(u > 0, u, -u),
    "where, on both sides": lambda u: np.where(u > 0, u, 0) - np.where(u < 0, u, 0),
    "masks": lambda u: (u > 0) * u - (u < 0) * u,
    "masks of floats": lambda u: u * (u >= 0).astype(u.dtype) - u * (0 >= u).astype(u.dtype),
    "joined masks": lambda u: np.where((u > 0) | ~(u >= 0), np.where(u > 0, u, -u), 0),
    "sign": lambda u: u * np.sign(u),
    "heaviside": lambda u: u * np.heaviside(u, 0.5) - u * np.heaviside(-u, 0.5),
    "a case at zero": lambda u: np.where(u == 0, 0, np.where(u > 0, u, -u)),
    "select": lambda u: np.select([u > 0, u < 0], [u, -u], 0),
    "abs": np.abs,
}
EVEN = {  # a smooth even function, and its second derivative at 0
    "square": (lambda m: m**2, 2.0),
    "product": (lambda m: 3 * m * m, 6.0),
    "cosh": (np.cosh, 1.0),
    "cos": (np.cos, -1.0),
    "bell": (lambda m: np.exp(-(m**2)), -2.0),
    "two branches": (lambda m: np.exp(m) + np.exp(-m), 2.0),
    "fourth power": (lambda m: m**4, 0.0),
    "rational": (lambda m: 1 / (1 + m**2), -2.0),
}


@pytest.mark.slow
@drawn(40)
@given(
    size=st.sampled_from(sorted(SIZES)),
    even=st.sampled_from(sorted(EVEN)),
    weights=st.lists(st.integers(-3, 3), min_size=1, max_size=3),
    point=st.lists(st.integers(-4, 4), min_size=3, max_size=3),
    dtype=st.sampled_from([np.float64, np.float32]),
)
def test_an_even_function_of_a_size_has_its_second_derivative_where_the_size_is_zero(size, even, weights, point, dtype):
    (fn, curvature), w, x = EVEN[even], np.array(weights, dtype), np.array(point[: len(weights)], dtype)
    shift = dtype(w @ x)
    f = lambda x: fn(SIZES[size](w @ x - shift))
    right = curvature * np.outer(w, w)
    v = np.arange(1, len(w) + 1, dtype=dtype)
    close = {"rtol": 2e-5, "atol": 2e-5} if dtype is np.float32 else {"rtol": 1e-7, "atol": 1e-7}
    for found, expected in (
        (scg.hessian(f)(x), right),
        (scg.jacobian(scg.grad(f))(x), right),
        (scg.hvp(f)(x, v), right @ v),
        (scg.grad(lambda x: scg.grad(f)(x) @ v)(x), right @ v),
        (scg.vjp(scg.grad(f))(x)[1](v), right @ v),
    ):
        assert found.dtype == dtype
        np.testing.assert_allclose(found, expected, **close)


@pytest.mark.parametrize("size", [name for name in sorted(SIZES) if name not in ("abs", "copysign")])
@pytest.mark.filterwarnings("ignore")
def test_where_the_sides_differ_there_is_no_second_derivative(size):
    half = lambda x: 0.5 * (x + SIZES[size](x))  # max(x, 0)
    at = np.array(0.0)
    assert np.isnan(scg.hessian(lambda x: half(x) ** 2)(at))  # 0 on one side, 2 on the other
    jumping = scg.hessian(lambda x: np.exp(SIZES[size](x)))(at)  # a slope that jumps, and has the slope 1 on both sides
    assert np.isnan(jumping) or jumping == 1 and "where" in size
    assert scg.grad(lambda x: half(x) ** 2)(at) == 0
    assert 0 <= scg.grad(half)(at) <= 1


SAME = {  # the identity near 0, by functions that are linear by pieces, and tie nowhere there
    "maximum": lambda x: np.maximum(x, -1),
    "minimum": lambda x: np.minimum(1, x),
    "fmax": lambda x: np.fmax(x, -1),
    "clip": lambda x: np.clip(x, -1, 1),
    "max of an axis": lambda x: np.max(np.stack([x, x - 1]), axis=0),
    "min of one": lambda x: np.min(x[:, None], axis=1),
    "median": lambda x: np.median(np.stack([x - 1, x, x + 2]), axis=0),
    "sort": lambda x: np.sort(np.stack([x, x - 1]), axis=0)[1],
    "abs": lambda x: np.abs(x + 1) - 1,
    "where": lambda x: np.where(x > -1, x, 0),
    "maximum of a maximum": lambda x: np.maximum(np.maximum(x, -1), -2),
    "scaled": lambda x: np.maximum(3 * x, -1) / 3,
    "cumulated": lambda x: np.diff(
        np.maximum.accumulate(np.cumsum(x) + np.arange(len(x))) - np.arange(len(x)), prepend=0
    ),
}
RADIAL = {  # functions of |x|^2 by way of sizes, which have kinks where they vanish, and the second derivative at 0
    "norm^2": (lambda x: np.linalg.norm(x) ** 2, 2.0),
    "sqrt(x.x)^2": (lambda x: np.sqrt(x @ x) ** 2, 2.0),
    "cos(norm)": (lambda x: np.cos(np.linalg.norm(x)), -1.0),
    "hypot^2": (lambda x: np.sum(np.hypot(x, 0) ** 2), 2.0),
    "abs^2": (lambda x: np.sum(np.abs(x) ** 2), 2.0),
    "complex abs^2": (lambda x: np.sum(np.abs(x * 1j) ** 2), 2.0),
    "squares of roots": (lambda x: np.sum(np.sqrt(x**2) ** 2), 2.0),
    "hypot of x.x": (lambda x: np.hypot(x @ x, 0), 2.0),
    "abs of a form": (lambda x: np.abs(x @ (3 * np.eye(len(x)) @ x)), 6.0),
    "norm of einsum": (lambda x: np.linalg.norm(np.einsum("i,i->", x, x)[None]), 2.0),
    "hypot of a matrix product": (lambda x: np.hypot(np.sum(x[None] @ x[:, None]), 0), 2.0),
    "norm of a chain": (lambda x: np.linalg.norm(np.linalg.multi_dot([x[None], np.eye(len(x)), x[:, None]])), 2.0),
    "norm of vecdot": (lambda x: np.linalg.norm(np.vecdot(x, x)[None]), 2.0),
}


def _series(coefficient):
    """The sum of coefficient(k) x^k, for |x| <= 1/2."""
    c = [coefficient(k) for k in range(48)]

    def horner(x):
        total = 0 * x
        for a in c[::-1]:
            total = total * x + a
        return total

    return horner


_F = [math.factorial(k) for k in range(60)]
_even = lambda shift: lambda k: (1 - k % 2) * (-1) ** (k // 2) / _F[k + shift]
QUOTIENTS = {  # whose numerator and denominator vanish at 0, where a mask has the value; and their power series
    "sin": (lambda x: np.where(x != 0, np.sin(x) / x, 1), _even(1)),
    "expm1": (lambda x: np.where(x == 0, 1, np.expm1(x) / np.where(x == 0, 1, x)), lambda k: 1 / _F[k + 1]),
    "exp": (lambda x: np.where(x != 0, (np.exp(x) - 1) / x, 1), lambda k: 1 / _F[k + 1]),
    "exp, a term further": (lambda x: np.where(x != 0, (np.exp(x) - 1 - x) / x**2, 0.5), lambda k: 1 / _F[k + 2]),
    "log1p": (lambda x: np.where(x == 0, 1, np.log1p(x) / x), lambda k: (-1) ** k / (k + 1)),
    "log1p, a term further": (
        lambda x: np.where(x == 0, 0.5, (x - np.log1p(x)) / x**2),
        lambda k: (-1) ** k / (k + 2),
    ),
    "cos": (lambda x: np.where(x != 0, (1 - np.cos(x)) / x**2, 0.5), _even(2)),
    "cos, a term less": (
        lambda x: np.where(x != 0, (1 - np.cos(x)) / x, 0),
        lambda k: (k % 2) * (-1) ** (k // 2) / _F[k + 1],
    ),
    "sin, a term further": (lambda x: np.where(x != 0, (x - np.sin(x)) / x**3, 1 / 6), _even(3)),
    "x^2": (lambda x: np.where(x != 0, x * x / x, 0), lambda k: float(k == 1)),
}
COSTS = {
    "sum": lambda y, x: np.sum(y),
    "product": lambda y, x: np.prod(y),
    "exp": lambda y, x: np.exp(np.sum(y)),
    "squares": lambda y, x: np.sum(y * y),
    "tanh": lambda y, x: np.prod(np.tanh(y)),
    "form": lambda y, x: y @ np.outer(np.arange(1, len(x) + 1), np.arange(2, len(x) + 2)) @ y,
    "beside a rectifier": lambda y, x: np.prod(y) + np.sum(np.maximum(x - 0.05, 0)),
    "beside a logarithm": lambda y, x: np.prod(y) * np.log(0.6 + x[0]),
    "of other elements": lambda y, x: np.sum((1 + x[::-1]) * y),
}


@drawn(120)
@given(
    quotient=st.sampled_from(sorted(QUOTIENTS)),
    cost=st.sampled_from(sorted(COSTS)),
    other=st.lists(st.sampled_from([0.0, 0.361, -0.3, 0.5, 0.01, -3e-3, 1e-4]), max_size=2),
)
def test_where_a_quotient_cancels_nearby_the_derivatives_at_its_mask_are_right(quotient, cost, other):
    """Or NaN: beside a kink, and a second derivative, of which more is lost, beside small elements."""
    x, (fn, coefficient) = np.array([0.0, *other]), QUOTIENTS[quotient]
    masked, smooth = [lambda x, f=f: COSTS[cost](f(x), x) for f in (fn, _series(coefficient))]
    small, kink = np.any((x != 0) & (np.abs(x) < 0.1)), "beside" in cost
    for derivative, may_be_nan in ((scg.grad, kink), (scg.hessian, kink or small)):
        with np.errstate(all="ignore"):
            found, right = derivative(masked)(x)[x == 0], derivative(smooth)(x)[x == 0]
        np.testing.assert_allclose(np.where(np.isnan(found) & may_be_nan, right, found), right, 1e-4, 1e-9)


def test_a_numerator_that_vanishes_close_by_is_no_limit():
    """1 - cos(x^2) is 0 where x < 1e-4, and x - sin(x) where x < 1e-8. What rounding leaves of that is odd, and cancels
    between opposite rays, with a slope of 1 beside it."""
    high = lambda x: np.where(x != 0, (1 - np.cos(x**2)) / x**3, 0)  # x / 2 near 0
    sine = QUOTIENTS["sin, a term further"][0]
    beside = lambda x: np.prod(sine(x)) + np.sum(3 * np.maximum(x - 0.05, 0) ** 2)
    with np.errstate(all="ignore"):
        slope = scg.grad(lambda x: np.sum(high(x)))(np.array([0.0, 1.0]))[0]
        curvature = scg.hessian(beside)(np.array([0.0, 1e-4]))[0, 0]
        one = scg.grad(lambda x: np.prod(sine(x)) + np.sum(np.maximum(x + 0.7, 0)))(np.array([0.0, 0.3, -2.0]))[0]
    assert one == pytest.approx(1)
    assert np.isnan(slope) or slope == pytest.approx(0.5)
    assert np.isnan(curvature) or curvature == pytest.approx(-1 / 360, rel=1e-4)


@drawn(40)
@given(
    quotient=st.sampled_from(sorted(QUOTIENTS)),
    cost=st.sampled_from(sorted(COSTS)),
    other=st.lists(st.sampled_from([0.0, 0.361, -0.3, 0.5]), max_size=2),
)
def test_a_gradient_inside_a_cost_has_its_limit_at_the_mask_of_a_quotient(quotient, cost, other):
    x, (fn, coefficient) = np.array([0.0, *other]), QUOTIENTS[quotient]
    masked, smooth = [lambda x, f=f: COSTS[cost](f(x), x) for f in (fn, _series(coefficient))]
    v = np.arange(1.0, len(x) + 1)
    with np.errstate(all="ignore"):
        penalties = [scg.value_and_grad(lambda x, f=f: np.sum(scg.grad(f)(x) ** 2))(x) for f in (masked, smooth)]
        products = [scg.hvp(f)(x, v) for f in (masked, smooth)]
        rows = [scg.jacobian(scg.grad(f))(x) for f in (masked, smooth)]
        pulled = [scg.vjp(scg.grad(f))(x)[0] for f in (masked, smooth)]
        elsewhere = [scg.vjp(scg.grad(f))(x - 0.2)[0] for f in (masked, smooth)]
    np.testing.assert_allclose(*elsewhere, 1e-6, 1e-9)
    values, slopes = zip(*penalties, strict=True)
    for (found, right), second in ((values, 0), (pulled, 0), (slopes, 1), (products, 1), (rows, 1)):
        may_be_nan = np.isnan(found) & ("beside" in cost or bool(second))
        np.testing.assert_allclose(np.where(may_be_nan, right, found), right, 1e-4, 1e-8)


@pytest.mark.slow
@drawn(60)
@given(
    same=st.sampled_from(sorted(SAME)),
    radial=st.sampled_from(sorted(RADIAL)),
    n=st.integers(1, 3),
    dtype=st.sampled_from([np.float64, np.float32]),
)
def test_what_is_linear_by_pieces_hides_no_second_derivative(same, radial, n, dtype):
    (fn, curvature), x = RADIAL[radial], np.zeros(n, dtype)
    f = lambda x: fn(SAME[same](x))
    v = np.arange(1, n + 1, dtype=dtype)
    np.testing.assert_allclose(scg.hessian(f)(x), curvature * np.eye(n), 1e-5, 1e-5)
    np.testing.assert_allclose(scg.hvp(f)(x, v), curvature * v, 1e-5, 1e-5)
    np.testing.assert_allclose(scg.compile(scg.hessian(f))(x), curvature * np.eye(n), 1e-5, 1e-5)


def test_shares_that_are_right_stay_to_the_last_bit():
    """The largest of equal logits is taken away, and its derivative cancels; a rectifier is linear on both sides; a
    maximum of a number and itself is that number."""

    def log_sum_exp(x):
        top = np.max(x)
        return top + np.log(np.sum(np.exp(x - top)))

    p = np.full(4, 0.25)
    np.testing.assert_allclose(scg.hessian(log_sum_exp)(np.zeros(4)), np.diag(p) - np.outer(p, p), atol=1e-16)
    rectified = lambda x: np.sum(np.maximum(x * np.array([1.0, 2.0]), 0) * x[::-1])
    x = np.array([0.0, 3.0])
    assert scg.hessian(lambda x: np.sum(np.maximum(x, 0)))(x).tolist() == [[0, 0], [0, 0]]
    assert scg.hessian(lambda x: np.maximum(x, x) ** 2)(np.array(0.0)) == 2
    assert scg.hessian(lambda x: np.sum(np.maximum(np.maximum(x - 1, 0), 0) ** 2))(x).tolist() == [[0, 0], [0, 2]]
    assert np.isnan(scg.hessian(rectified)(x)).tolist() == [[False, True], [True, False]]  # x_1 max(x_0, 0)
    assert scg.hessian(lambda x: np.maximum(x**2, 0))(np.array(0.0)) == 2
    assert scg.hessian(lambda x: np.where(x > 0, x, 0.5 * x) @ np.ones(2))(x).tolist() == [[0, 0], [0, 0]]


SMOOTH = {  # functions with a second derivative at 0, written with masks that tie there, and that derivative
    "what cancels nearby": (lambda x: np.where(x == 0, 1, np.sin(x) / np.where(x == 0, 1, x)), -1 / 3),
    "a size of a vector, squared": (
        lambda x: np.where(x * x == 0, 0, np.sqrt(np.where(x * x == 0, 1, x * x))) ** 2,
        2.0,
    ),
    "a part of an integer": (lambda x: np.floor(x) * (x - np.floor(x)) + (x - np.floor(x)) ** 2 / 2, 1.0),
    "a smooth step": (lambda x: np.where(x > 0, np.exp(x), 1 + x + x**2 / 2), 1.0),
    "a cube": (lambda x: np.where(x > 0, x**3, 0), 0.0),
    "data": (lambda x: np.where(np.zeros(2) > 0, x, 3 * x) @ np.ones(2) * x, 12.0),
    "not a number": (lambda x: np.where(x == x, x**2, 0), 2.0),
}


@pytest.mark.parametrize("name", sorted(SMOOTH))
@pytest.mark.filterwarnings("ignore")
def test_masks_that_tie_where_the_cost_is_smooth_keep_its_second_derivative(name):
    f, right = SMOOTH[name]
    compiled = scg.compile(scg.hessian(f))
    with np.errstate(all="ignore"):
        for at in (1.0, 0.0, 1.0, 0.0):
            found = scg.hessian(f)(np.array(at))
            np.testing.assert_allclose(compiled(np.array(at)), found, 1e-12)
            if at == 0:
                np.testing.assert_allclose(found, right, 1e-5, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("size", sorted(SIZES))
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.filterwarnings("ignore")
def test_a_plan_that_was_recorded_elsewhere_is_right_at_a_tie(size, dtype):
    """A maximum gives a half to each operand there, and one to the larger elsewhere: numbers of another type."""
    f = lambda x: np.sum(np.array([1, 2, 3], dtype) * SIZES[size](x)) + np.max(x) + np.sum(np.clip(x, -3, 2) ** 2)
    with np.errstate(all="ignore"):
        for order in ((1.0, 0.0), (0.0, 1.0)):
            compiled = scg.compile(scg.value_and_grad(f))
            for first in (*order, *order):
                x = np.array([first, 2.0, 0.0 if first == 0 else -3.0], dtype)
                for found, right in zip(compiled(x), scg.value_and_grad(f)(x), strict=True):
                    np.testing.assert_array_equal(found, right)
            assert compiled.recorded <= 3


FIRST = {  # masks that belong to neither side where they tie, at 0, and the first derivative there
    "expm1": (lambda x: np.where(x == 0, 1, np.expm1(x) / np.where(x == 0, 1, x)), 0.5),
    "log1p": (lambda x: np.where(x != 0, np.log1p(x) / np.where(x != 0, x, 1), 1), -0.5),
    "what cancels": (lambda x: np.where(x == 0, 1, (np.exp(x) - 1) / np.where(x == 0, 1, x)), 0.5),
    "both signs": (lambda x: np.where(x > 0, x, 0) + np.where(x < 0, x, 0), 1.0),
    "with an array": (lambda x: np.sum((x > np.zeros(2)) * x + (x < np.zeros(2)) * x) / 2, 1.0),
    "both masks": (lambda x: (0 < x) * x + (x < 0) * np.sin(x), 1.0),
    "select": (lambda x: np.select([x > 0, x < 0], [np.sin(x), x], 0), 1.0),
    "a rectifier": (lambda x: np.where(x > 0, x, 0), 0.0),
    "leaky, by masks": (lambda x: (x > 0) * x + (x <= 0) * 0.1 * x, 0.1),
    "x log x": (lambda x: np.where(x == 0, 0, x * np.log(np.where(x == 0, 1, x))), 0.0),
    "a safe size": (lambda x: np.where(x * x == 0, 0, np.sqrt(np.where(x * x == 0, 1, x * x))), 0.0),
    "a value by itself": (lambda x: np.where(x == 0, 5.0, x), 0.0),
    "data": (lambda x: np.where(np.zeros(()) == 0, x, 3 * x), 1.0),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(FIRST))
@pytest.mark.filterwarnings("ignore")
def test_a_mask_of_neither_side_gives_the_derivative_where_the_cost_is_smooth(name):
    f, right = FIRST[name]
    compiled, at = scg.compile(scg.grad(f)), np.array(0.0)
    with np.errstate(all="ignore"):
        compiled(np.array(1.0))
        for found in (scg.grad(f)(at), compiled(at), scg.vjp(f)(at)[1](1.0), scg.jacobian(f)(at)):
            np.testing.assert_allclose(found, right, 1e-6)
        three = lambda x: np.stack([f(x[0] - 1), f(x[1]), f(x[0] * x[1])])  # beside elements that are elsewhere
        rows = scg.jacobian(three)(np.array([1.0, 2.0]))
        away = scg.grad(f)(np.array(2.0))
        np.testing.assert_allclose(rows, [[right, 0], [0, away], [2 * away, away]], 1e-6)


def test_a_first_derivative_asks_no_derivatives_nearby(monkeypatch):
    """A rectifier at zeros costs what it costs elsewhere, and a plan has no shares."""
    calls = []
    monkeypatch.setattr("scg.core.limits.confirmed", lambda *args: calls.append(args))
    x = np.zeros(5)
    f = lambda x: np.sum(np.maximum(x, 0.0)) + np.max(x)
    assert scg.grad(f)(x).tolist() == [0.7] * 5
    step = scg.compile(scg.grad(f))
    assert step(x).tolist() == [0.7] * 5
    assert "share" not in step.explain(x)
    assert not calls


PAIRS = {  # smooth functions of the larger and the smaller of two numbers that do not tell which is which
    "sum": (lambda m, n: np.exp(m) + np.exp(n)),
    "product": (lambda m, n: np.sin(m) * np.sin(n)),
    "quotient": (lambda m, n: m * n / (1 + m**2 + n**2)),
    "difference": (lambda m, n: np.cos(m - n)),
}


@drawn(40)
@given(
    st.sampled_from(sorted(PAIRS)),
    st.sampled_from(sorted(PAIRS)),
    st.lists(st.integers(-4, 4), min_size=12, max_size=12),
    st.lists(st.integers(-2, 2), min_size=2, max_size=2),
)
def test_shares_of_several_pairs_are_the_derivative_where_there_is_one(first, second, k, x):
    """F(max(a, b), min(a, b)) G(max(c, d), -max(-c, -d)), F and G symmetric, at a(x) = b(x), c(x) = d(x): the shares
    agree with the derivative of F(a, b) G(c, d), by complex steps."""
    k, x = np.array(k, float).reshape(4, 3) / 3, np.array(x, float)

    def curves(y):
        each = [k[i, 0] * (y[0] - x[0]) + k[i, 1] * (y[1] - x[1]) + k[i, 2] * (y[0] - x[0]) ** 2 for i in range(4)]
        return [0.7 + each[0], 0.7 + each[1], each[2] - 0.2, each[3] - 0.2]

    def tied(y):
        a, b, c, d = curves(y)
        return PAIRS[first](np.maximum(a, b), np.minimum(b, a)) * PAIRS[second](np.fmax(c, d), -np.maximum(-c, -d))

    def smooth(y):
        a, b, c, d = curves(y)
        return PAIRS[first](a, b) * PAIRS[second](c, d)

    right = [np.imag(smooth(x + 1e-30j * e)) / 1e-30 for e in np.eye(2)]
    assert scg.grad(tied)(x) == pytest.approx(np.array(right), rel=1e-12, abs=1e-13)
    assert scg.grad(lambda t: np.maximum(np.minimum(t, t**2), 0))(np.array(0.0)) == 0.25  # a tie of ties: not 0
