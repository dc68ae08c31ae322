"""check_gradient accepts right derivatives at any point, and catches each way in which a declaration can be wrong."""

import dataclasses
import math
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import scg
from scg.core.axes import elementwise
from scg.testing import check_gradient, gradients
from tests.support.drawn import drawn

pytestmark = pytest.mark.fast

X = np.array([[0.3, -0.7, 1.1], [0.9, -1.3, 0.2]])
Y = np.array([0.4, 1.7, -0.6])
MANY = np.random.default_rng(5).uniform(0.2, 1.8, (3, 50))


class Pair(NamedTuple):
    left: np.ndarray
    right: np.ndarray


@dataclasses.dataclass(frozen=True)
class Layer:
    weight: np.ndarray
    steps: int


def by_hand(out, x):
    """sin, with the derivative given by the caller."""
    return scg.primitive(lambda x: np.sin(x), elementwise, lambda g, o, x: out(g, o, x), name="sine")(x)


def raw(x):
    return x.value if isinstance(x, scg.Node) else x


TIE = "at a tie, both sides share"
DOUBLE_ONLY = ("Python float", "constant", "cancels", "small against its rounding")
HONEST = {
    "analytic": (np.tanh, X),
    "not analytic": (np.absolute, X),
    "kinked": (lambda x: np.maximum(x, 0.5 * x), X),
    "a step": (np.floor, X),
    "declared constant": (scg.primitive(lambda x: np.rint(x), elementwise, None, name="nearest"), X),
    TIE: (lambda x: np.maximum(x, x + 0.0), X),
    "scalar of an array": (lambda x: np.sum(np.exp(x) * x), X),
    "Python float": (lambda x: x**3, 0.7),
    "two arguments that broadcast": (lambda x, y: np.exp(x) * y + x / y, X, Y),
    "several results": (lambda x: {"a": [np.sin(x), x * x], "b": x > 0}, X),
    "structures": (lambda p, q: p["w"] * q.left + np.exp(q.right) * p["c"][0], {"w": X, "c": (Y,)}, Pair(Y, X)),
    "a leaf of integers": (lambda layer, x: layer.weight * x**layer.steps, Layer(X, 3), Y),
    "no elements": (np.exp, np.zeros((0, 3))),
    "no dimension": (np.cos, np.array(0.3)),
    "many elements": (lambda x: np.log(x) * x, MANY),
    "complex within": (lambda x: np.absolute(np.exp(1j * x) + 2), X),
    "complex results": (lambda x: np.exp(1j * x) * x, X),
    "magnitudes apart": (lambda x, y: np.exp(x) * y, 1e-6 * X, 1e6 * Y),
    "small against its rounding": (lambda x: np.cos(x) - 1e8, X),
    "constant": (lambda x: np.ones(3), X),
    "the argument itself": (lambda x: x, X),
    "cancels": (lambda x: (x + 1e5) - 1e5, X),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HONEST)
def test_right_derivatives_pass_to_order_three(name):
    fn, *args = HONEST[name]
    order = 1 if name == TIE else 3
    check_gradient(fn, *args, order=order)
    if name not in DOUBLE_ONLY:
        single = scg.tree.map_leaves(lambda a: a.astype(np.float32) if isinstance(a, np.ndarray) else a, tuple(args))
        check_gradient(fn, *single, order=min(order, 2))


@given(
    seed=st.integers(0, 2**32),
    exponent=st.integers(-6, 6),
    name=st.sampled_from(["sin", "exp", "square", "absolute", "arctan", "expm1", "cbrt"]),
)
@drawn(60)
def test_no_false_alarm_over_drawn_points(seed, exponent, name):
    """Magnitudes from 1e-6 to 1e6 (1 where an exponential would overflow): the tolerance follows them."""
    rng = np.random.default_rng(seed)
    size = 10.0 ** (min(exponent, 0) if "exp" in name else exponent)
    order = 1 if name == "absolute" else 2
    check_gradient(getattr(np, name), rng.normal(size=3) * size, order=order, rng=rng)


@given(seed=st.integers(0, 2**32), exponent=st.integers(-8, -1))
@drawn(30)
def test_a_relative_error_of_1e_8_is_seen(seed, exponent):
    rng = np.random.default_rng(seed)
    x = rng.uniform(0.3, 1.2, 3)
    for order, slope in (
        (1, lambda g, o, x: g * np.cos(x) * (1 + 10.0**exponent)),
        (2, lambda g, o, x: g * (np.cos(x) + 10.0**exponent * (np.cos(x) - np.cos(raw(x))))),
    ):
        with pytest.raises(AssertionError, match=rf"derivative {order} by|derivative by"):
            check_gradient(lambda x, slope=slope: by_hand(slope, x), x, order=order, rng=rng)


SABOTEURS = {
    "factor": (lambda g, o, x: 2 * g * np.cos(x), "derivative by"),
    "sign": (lambda g, o, x: -g * np.cos(x), "derivative by"),
    "missing term": (lambda g, o, x: g * np.sqrt(1 - o * o), "derivative by"),  # the sign of the cosine
    "no gradient": (lambda g, o, x: None, "derivative by"),
    "second order: detached operand": (lambda g, o, x: g * np.cos(raw(x)), "derivative 2 by"),
    "second order: detached cotangent": (lambda g, o, x: raw(g) * np.cos(x), "derivative 2 by"),
    "second order: detached result": (lambda g, o, x: g * (np.cos(x) + 0.1 * (o - raw(o))), "derivative 2 by"),
    "not linear in the cotangent": (lambda g, o, x: g * g * np.cos(x), "derivative by"),
    "infinite": (lambda g, o, x: g * np.cos(x) / 0.0, "derivative by"),
    "NaN": (lambda g, o, x: g * np.cos(x) + math.nan, "derivative by"),
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("point", [np.array([2.3, -0.4]), MANY + 1, np.array(2.3)], ids=["few", "many", "scalar"])
@pytest.mark.parametrize("name", SABOTEURS)
def test_a_wrong_derivative_is_caught(name, point):
    slope, message = SABOTEURS[name]
    with pytest.raises(AssertionError, match=message):
        check_gradient(lambda x: by_hand(slope, x), point)
    check_gradient(lambda x: by_hand(lambda g, o, x: g * np.cos(x), x), point)


@pytest.mark.parametrize("name", [name for name in SABOTEURS if name.startswith("second order")])
def test_what_is_wrong_at_second_order_only_passes_at_the_first(name):
    check_gradient(lambda x: by_hand(SABOTEURS[name][0], x), np.array([2.3, -0.4]), order=1)


def test_a_missing_argument_is_named():
    product = scg.primitive(lambda x, y: x * y, elementwise, lambda g, o, x, y: g * y, None, name="half_product")
    with pytest.raises(
        AssertionError, match=r"derivative by args\[1\]\['b'\]\[0\]\[2\], against complex step: 0, expected -?0\.\d+"
    ):
        check_gradient(lambda x, p: product(x, p["b"][0]), np.array([0.0, 0.0, 2.0]), {"b": [Y]}, order=1)
    check_gradient(lambda x, y: product(x, y), Y, Y + 1, argnums=0)  # nobody asked for the other


def test_a_single_wrong_element_of_many_is_caught():
    wrong = np.ones(MANY.shape)
    wrong[2, 17] = 1.001
    with pytest.raises(AssertionError, match="along a random direction"):
        check_gradient(lambda x: by_hand(lambda g, o, x: g * np.cos(x) * wrong, x), MANY, order=1)
    with pytest.raises(AssertionError, match=r"derivative 2 by args\[0\].* at \[2, 17\]"):
        check_gradient(lambda x: by_hand(lambda g, o, x: g * (np.cos(x) + (wrong - 1) * (x - raw(x))), x), MANY)


def test_low_precision_must_be_kept():
    widens = scg.primitive(lambda x: np.sin(x).astype(float), elementwise, lambda g, o, x: g * np.cos(x), name="widens")
    check_gradient(widens, X)
    with pytest.raises(AssertionError, match="float64, but all that is differentiated is float32"):
        check_gradient(widens, X.astype(np.float32))


def test_low_precision_must_be_accurate():
    """A large number added and taken away again: right in float64, few digits in float32."""
    large = np.float32(1e4)
    coarse = scg.primitive(
        lambda x: np.sin(x), elementwise, lambda g, o, x: g * (np.cos(x) + large - large), name="coarse"
    )
    check_gradient(lambda x: coarse(x) * 1, np.array([0.3, 0.4]), order=1)
    with pytest.raises(AssertionError, match="in float32, against float64"):
        check_gradient(coarse, np.array([0.3, 0.4], np.float32), order=1)


def test_the_value_on_nodes_must_be_the_value_on_arrays():
    with pytest.raises(AssertionError, match="value on Nodes"):
        check_gradient(lambda x: x * 1.001 if isinstance(x, scg.Node) else x * 1, X)
    with pytest.raises(AssertionError, match=r"on Nodes is float64\[3, 2\], on arrays float64\[2, 3\]"):
        check_gradient(lambda x: x.T if isinstance(x, scg.Node) else x, X)


@pytest.mark.parametrize(
    "spoil", [lambda g: g.astype("f"), lambda g: g.ravel(), lambda g: g.tolist()], ids=["dtype", "shape", "type"]
)
def test_the_gradient_must_have_the_argument_s_kind(monkeypatch, spoil):
    honest = gradients.pull
    monkeypatch.setattr(
        gradients, "pull", lambda *args: [spoil(g) if isinstance(g, np.ndarray) else g for g in honest(*args)]
    )
    with pytest.raises(AssertionError, match=r"derivative 1 by args\[0\] is .*, the argument float64\[2, 3\]"):
        check_gradient(np.sin, X)


@pytest.mark.parametrize(
    ("fn", "args", "message"),
    [
        (np.sin, (3,), "no floating-point array"),
        (np.log, (np.array([0.0, 1.0]),), "not finite at this point"),
        (lambda x: np.maximum(x, 0), (np.array([0.0, 1.0]),), "do not converge"),
        (np.sqrt, (np.array(0.0),), "do not converge"),
    ],
    ids=["integers", "infinite", "second derivative at a kink", "edge of the domain"],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_where_nothing_can_be_checked_it_says_so(fn, args, message):
    with pytest.raises(scg.errors.ScgValueError, match=message):
        check_gradient(fn, *args)


def test_keywords_are_handed_on():
    check_gradient(lambda x, power: x**power, X, power=2)
