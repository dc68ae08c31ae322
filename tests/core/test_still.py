"""The slope of x log(x) has no derivative at 0: a second derivative there is NaN, unless x stays 0, as a probability
outside a mask does."""

import numpy as np
import pytest
import scipy.special as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import scg
from scg.core.leaves import parameter
from scg.core.still import stays
from scg.special import log_softmax, sigmoid, softmax

pytestmark = pytest.mark.fast

MASKS = {
    "softmax of -inf": lambda x, mask: softmax(np.where(mask, x, -np.inf)),
    "softmax of -inf, added": lambda x, mask: softmax(x + np.where(mask, 0, -np.inf)),
    "softmax that underflows": lambda x, mask: softmax(np.where(mask, x, -1e9)),
    "exp of a logarithm": lambda x, mask: np.exp(log_softmax(np.where(mask, x, -np.inf))),
    "quotient": lambda x, mask: (e := np.exp(np.where(mask, x, -np.inf))) / np.sum(e),
    "factor": lambda x, mask: (e := np.exp(x) * mask) / np.sum(e),
    "odds": lambda x, mask: sigmoid(np.where(mask, x, -np.inf)),
}
ENTROPIES = {
    "xlogy": (lambda p: -sp.xlogy(p, p), lambda p: -p * np.log(p)),
    "xlog1py": (lambda p: sp.xlog1py(p, p - 1), lambda p: p * np.log(p)),
    "where": (lambda p: np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0), lambda p: p * np.log(p)),
    "rel_entr": (lambda p: sp.rel_entr(p, p**2), lambda p: -p * np.log(p)),
    "kl_div": (lambda p: sp.kl_div(p, p**2), lambda p: -p * np.log(p) - p + p**2),
}
AT_ZERO = {  # second derivatives that are infinite: of x log(x), x^2 log(x), (x log(x))^2
    "xlogy(x, x)": lambda x: sp.xlogy(x, x),
    "xlogy(x, 2x)": lambda x: sp.xlogy(x, 2 * x),
    "xlogy(x^2, x)": lambda x: sp.xlogy(x**2, x),
    "xlogy(x^2, x^2)": lambda x: sp.xlogy(x**2, x**2),
    "x xlogy(x, x)": lambda x: x * sp.xlogy(x, x),
    "xlogy(x, x)^2": lambda x: sp.xlogy(x, x) ** 2,
    "xlog1py(x, x - 1)": lambda x: sp.xlog1py(x, x - 1),
    "rel_entr(x, x^2)": lambda x: sp.rel_entr(x, x**2),
    "kl_div(x, x^2)": lambda x: sp.kl_div(x, x**2),
    "entr": lambda x: sp.entr(x),
}


@pytest.mark.parametrize("name", AT_ZERO)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_second_derivative_that_is_infinite_is_no_number(name, dtype):
    """Beside 1/2, where it is one; in every order of the two."""
    x = np.array([0, 0.5], dtype)
    for turn in (slice(None), slice(None, None, -1)):
        found = scg.hessian(lambda x, turn=turn: np.sum(AT_ZERO[name](x[turn])))(x)
        assert np.isfinite(found).tolist() == [[False, True], [True, True]]
        again = scg.grad(lambda x, turn=turn: np.sum(scg.grad(lambda y: np.sum(AT_ZERO[name](y[turn])))(x)))(x)
        assert np.isfinite(again).tolist() == [False, True]


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("entropy", ENTROPIES)
@settings(max_examples=4, deadline=None)
@given(st.lists(st.floats(-2, 2), min_size=4, max_size=4), st.lists(st.booleans(), min_size=4, max_size=4))
def test_an_entropy_of_masked_probabilities_is_that_of_the_others(mask, entropy, logits, kept):
    """Its gradient and Hessian are those of the entropy without the elements that are masked, and 0 by these."""
    x, kept = np.array(logits), np.array([True, *kept[1:]])
    masked, whole = ENTROPIES[entropy]
    everything = np.ones(int(kept.sum()), bool)

    def of_all(x):
        return np.sum(masked(MASKS[mask](x, kept)))

    def of_some(x):
        return np.sum(whole(MASKS[mask](x, everything)))

    gradient, hessian = np.zeros(4), np.zeros((4, 4))
    gradient[kept], hessian[np.ix_(kept, kept)] = scg.grad(of_some)(x[kept]), scg.hessian(of_some)(x[kept])
    np.testing.assert_allclose(scg.grad(of_all)(x), gradient, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(scg.hessian(of_all)(x), hessian, rtol=1e-11, atol=1e-13)


def test_probabilities_that_underflow_in_single_precision_stay_zero():
    x = np.array([0.3, -0.2, -150], np.float32)
    found = scg.hessian(lambda x: np.sum(sp.xlogy(p := softmax(x), p)))(x)
    expected = scg.hessian(lambda x: np.sum(sp.xlogy(p := softmax(x), p)))(x[:2].astype(float))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[:2, :2], expected, rtol=1e-5)
    assert not found[2].any() and not found[:, 2].any()


@pytest.mark.parametrize("mask", ["softmax of -inf", "softmax that underflows"])
def test_an_infinite_slope_before_what_stays_has_no_part_in_a_gradient(mask):
    x, kept = np.array([0.3, -0.2, 0.7]), np.array([True, True, False])
    found = scg.grad(lambda x: np.sum(sp.entr(MASKS[mask](x, kept))))(x)
    expected = scg.grad(lambda x: np.sum(sp.entr(softmax(x))))(x[:2])
    np.testing.assert_allclose(found, [*expected, 0], rtol=1e-13)


def test_what_is_moved_is_told_from_what_stays():
    """A square at 0, a maximum, a rounded number, and a sample."""
    x = parameter(np.array([0.0, -0.5, 0.5]))
    assert not stays(x, [x]).any()
    assert stays(x**2, [x]).tolist() == [False, False, False]
    assert stays(np.maximum(x, 0), [x]).tolist() == [False, True, False]
    assert stays(np.exp(x - 1000), [x]).all()
    assert not stays(np.exp(x.astype(np.float32) - 60), [x]).any()
    assert stays(x - x, [x]).all()


def test_without_the_mark_of_a_convention_a_second_derivative_at_zero_is_a_wrong_number(monkeypatch):
    from scg.primitives import special

    assert not np.isfinite(scg.hessian(lambda x: np.sum(sp.xlogy(x, x)))(np.zeros(1))).any()
    monkeypatch.setattr(special, "_agreed", lambda slope, at: slope)
    assert np.isfinite(scg.hessian(lambda x: np.sum(sp.xlogy(x, x)))(np.zeros(1))).all()
