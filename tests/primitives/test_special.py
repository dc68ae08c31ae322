"""What the laws over the catalogue cannot see: tails, kinks, refusals, and what ``scg.special`` must be."""

import itertools
import math
import warnings

import mpmath
import numpy as np
import pytest
import scipy.special as sp
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import scg
import scg.special
from scg.core.primitive import IMPLEMENTATIONS
from scg.errors import NotDifferentiable, ScgError, ScgIndexError, ScgValueError
from scg.primitives.incomplete import (
    betainc_pdf,
    betainc_score,
    betainc_score_b,
    gammainc_pdf,
    gammainc_score,
    vonmises_score,
)
from scg.primitives.student import student_pdf, student_score
from scg.testing import check_gradient

pytestmark = pytest.mark.fast

INF = math.inf
EPS = np.finfo(float).eps


def slope(fn, *args, argnums=0):
    """d fn / d args[argnums], elementwise, without a warning on the way."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return scg.grad(lambda *a: np.sum(fn(*a)), argnums)(*[np.asarray(a, float) for a in args])


# references: 60 digits, rounded
@pytest.mark.parametrize(
    ("score", "tolerance", "rows"),
    [
        (
            gammainc_score,
            1e-12,
            [
                (0.01, 1e-08, -14.939901911588275),
                (0.5, 0.01, -0.52251433779748299),
                (0.5, 40, -2.1253415656995287e-18),
                (3, 2.5, -0.24711735748326824),
                (30, 5, -5.1121523193616428e-14),
                (30, 90, -7.2318726750962251e-14),
                (5000, 5100, -0.0020822637523762421),
                (19.9, 19.9, -0.089805882118048066),
            ],
        ),
        (
            betainc_score,
            1e-11,
            [
                (0.01, 0.5, 1e-06, -13.032396649292512),
                (0.5, 0.5, 0.5, -0.58312180806163756),
                (2, 3, 0.01, -0.0023823739052105298),
                (2, 3, 0.99, -4.2709536681027942e-6),
                (40, 0.1, 0.999, -0.0018494460787655192),
                (600, 500, 0.52, -0.0026911407134572343),
                (0.3, 200, 1e-05, -1.0433833242181917),
                (3000, 2600, 0.53125, -0.0039831789478772745),
                (2600, 3000, 0.46875, -0.0045549754481459593),
            ],
        ),
        (
            vonmises_score,
            1e-11,
            [
                (1, 0.01, 0.1342811235230845),
                (-2.5, 4, -0.00039727937098552612),
                (0.05, 1000, 9.0414893317009021e-5),
                (0.2, 1000, 2.7889536833572121e-12),
            ],
        ),
        (
            student_score,
            1e-12,
            [
                (0.05, -3, -1.1690249804633435),
                (0.5, 2, 0.23240356489323828),
                (3, 0.1, 0.00097788737391334916),
                (29.5, 1, 0.00013664771873270325),
                (30.5, -1.5, -0.00016737950793643415),
                (1000, 12, 9.493649002704632e-34),
                (1e5, -12, -9.8213191092341949e-40),
                (1e7, -0.5, -5.5010205605043296e-16),
                (1e7, 3, 3.3238906632443133e-16),
                (1e10, 8, 6.5679530463941636e-33),
            ],
        ),
    ],
)
def test_shape_derivatives_are_accurate_in_both_tails(score, tolerance, rows):
    *operands, expected = np.array(rows).T
    np.testing.assert_allclose(score(*operands), expected, rtol=tolerance)
    assert score(*operands[:-1], operands[-1].astype(np.float32)[:, None]).shape == (len(rows), len(rows))
    assert score(*[x.astype(np.float32) for x in operands]).dtype == np.float32


@pytest.mark.parametrize(
    ("quantile", "cdf", "shapes"),
    [
        (sp.stdtrit, sp.stdtr, ([0.3, 5, 1e3, 1e4, 1e7],)),
        (sp.gammaincinv, sp.gammainc, ([0.3, 5, 1e3, 1e5, 1e6],)),
        (sp.gammainccinv, sp.gammaincc, ([0.3, 5, 1e3, 1e5, 1e6],)),
        (sp.betaincinv, sp.betainc, ([0.3, 5, 1e3, 1e5, 1e5], [0.7, 5, 1e3, 1e5, 2e4])),
        (sp.betainccinv, sp.betaincc, ([0.3, 5, 1e3, 1e5, 1e5], [0.7, 5, 1e3, 1e5, 2e4])),
    ],
)
def test_pathwise_derivatives_in_float32_are_those_in_double(quantile, cdf, shapes):
    """-(dF/da) / (dF/dx) and 1 / (dF/dx) in double, at the quantile that is found in float32: three roundings."""
    operands = [np.tile(np.array(a, np.float32), (4, 1)) for a in shapes]
    operands.append(np.tile(np.array([[0.02], [0.3], [0.6], [0.97]], np.float32), 5))
    at = [x.astype(float) for x in (*operands[:-1], quantile(*operands))]
    *by_shape, density = (slope(cdf, *at, argnums=k) for k in range(len(at)))
    for k, expected in enumerate([-g / density for g in by_shape] + [1 / density]):
        found = scg.grad(lambda *x: np.sum(quantile(*x)), k)(*operands)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=4 * np.finfo(np.float32).eps)


@pytest.mark.parametrize(
    ("pdf", "log_pdf", "rows"),
    [
        (
            gammainc_pdf,
            lambda a, x: (a - 1) * mpmath.log(x) - x - mpmath.loggamma(a),
            [(0.3, 0.02), (5, 9), (1e3, 950), (1e5, 1e5), (1e6, 1003000)],
        ),
        (
            betainc_pdf,
            lambda a, b, x: (a - 1) * mpmath.log(x) + (b - 1) * mpmath.log1p(-x) - mpmath.log(mpmath.beta(a, b)),
            [(0.3, 0.7, 0.02), (40, 0.5, 0.9), (1e3, 2e3, 0.34), (1e5, 1e5, 0.5), (1e5, 30, 0.9997)],
        ),
        (
            student_pdf,
            lambda v, t: (
                -(v + 1) / 2 * mpmath.log1p(t * t / v) - mpmath.log(v) / 2 - mpmath.log(mpmath.beta(0.5, v / 2))
            ),
            [(0.3, 2), (5, 1e6), (29, 0.5), (1e3, 6), (1e7, 2)],
        ),
    ],
)
def test_densities_agree_with_forty_digits(pdf, log_pdf, rows):
    """In double to what rounding makes of a deviation of x, of order sqrt(a); in float32, at operands of that dtype, to
    one rounding."""
    operands = np.array(rows).T
    for dtype, allowed in ((float, 1e-12), (np.float32, 2 * np.finfo(np.float32).eps)):
        operands = operands.astype(dtype)
        with mpmath.workdps(40):
            expected = np.array(
                [float(mpmath.exp(log_pdf(*[mpmath.mpf(float(v)) for v in row]))) for row in operands.T]
            )
        np.testing.assert_allclose(pdf(*operands), expected, rtol=allowed)


@pytest.mark.parametrize(
    ("cdf", "shapes", "x"),
    [
        (sp.stdtr, [40.0], [-2.0, 0.5]),
        (sp.gammainc, [40.0], [30.0, 50.0]),
        (sp.betainc, [30.0, 40.0], [0.3, 0.5]),
        (sp.betaincc, [3.0, 4.0], [0.3, 0.5]),
    ],
)
def test_densities_are_differentiable_in_every_argument(cdf, shapes, x):
    """As derivatives of distribution functions, of order two in the argument and one in the shapes."""
    check_gradient(
        lambda *a: scg.grad(lambda y: np.sum(cdf(*a[:-1], y)))(a[-1]),
        *[np.array(a) for a in shapes],
        np.array(x),
        order=2,
    )
    mixed = scg.grad(lambda y: np.sum(scg.grad(lambda a: np.sum(cdf(a, *shapes[1:], y)))(np.array(shapes[0]))))(
        np.array(x)
    )
    other = scg.jacobian(lambda a: scg.grad(lambda y: np.sum(cdf(a, *shapes[1:], y)), 0)(np.array(x)))(
        np.array(shapes[0])
    )
    np.testing.assert_allclose(mixed, other, rtol=1e-9)


@given(st.floats(0.05, 50), st.floats(0.05, 50), st.floats(0.001, 0.999))
def test_beta_shapes_mirror_each_other(a, b, x):
    """I_x(a, b) = 1 - I_(1-x)(b, a)."""
    x = 1 - (1 - x)  # so that 1 - x is exact
    assert betainc_score_b(a, b, x) == -betainc_score(b, a, 1 - x)
    assert betainc_score(a, b, x) <= 0


@pytest.mark.parametrize(
    ("fn", "x", "expected"),
    [
        (sp.log_ndtr, -1e4, 10000.000099999998),
        (sp.log_ndtr, -30, 30.033259667433677),
        (sp.log_ndtr, 10, 7.6945986267064193e-23),
        (sp.erfcx, 24.9, -0.0009077758482472252),
        (sp.erfcx, 25.1, -0.00089340105292682062),
        (sp.erfcx, 1e3, -5.6418873726549667e-7),
        (sp.dawsn, -25.1, -0.00079553532116815607294),
        (sp.dawsn, 1e6, -5.0000000000075e-13),
        (sp.log_expit, 50, math.exp(-50)),
        (sp.log_expit, -50, 1),
        (sp.expit, 50, math.exp(-50)),
        (sp.expit, -50, math.exp(-50)),
        (sp.expm1, -50, math.exp(-50)),
        (np.expm1, -50, math.exp(-50)),
        (scg.special.softplus, -50, math.exp(-50)),
        (scg.special.softplus, 1e4, 1),
        (scg.special.log_sigmoid, 50, math.exp(-50)),
        (scg.special.log_sigmoid, -1e4, 1),
        (scg.special.sigmoid, -50, math.exp(-50)),
        (scg.special.sigmoid, -1e4, 0),
        (scg.special.log1mexp, -1e-20, -1e20),
        (scg.special.log1mexp, -50, -math.exp(-50)),
        (sp.rgamma, 0, 1),
        (sp.rgamma, -3, -6),
        (sp.i1, 0, 0.5),
        (sp.j1, 0, 0.5),
        (sp.exprel, 0, 0.5),
        (sp.ellipk, 0, math.pi / 8),
        (sp.ellipkm1, 1e-30, -0.5e30),
        (sp.spence, 1, -1),
    ],
)
def test_derivatives_in_tails_and_at_removable_singularities(fn, x, expected):
    np.testing.assert_allclose(slope(fn, x), expected, rtol=2e-13)


@pytest.mark.parametrize(
    ("fn", "args", "expected"),
    [
        (np.absolute, (0.0,), (0,)),
        (np.fabs, (0.0,), (0,)),
        (np.maximum, (1.0, 1.0), (0.5, 0.5)),
        (np.minimum, (1.0, 1.0), (0.5, 0.5)),
        (np.maximum, (-INF, -INF), (0.5, 0.5)),
        (np.maximum, (2.0, 1.0), (1, 0)),
        (np.fmax, (math.nan, 1.0), (0, 1)),
        (np.power, (0.0, 0.0), (0, 0)),
        (np.power, (0.0, 1.0), (1, 0)),
        (np.power, (0.0, 2.0), (0, 0)),
        (np.power, (INF, 0.0), (0, INF)),
        (np.hypot, (0.0, 0.0), (0, 0)),
        (np.hypot, (3e200, 4e200), (0.6, 0.8)),
        (np.arctan2, (0.0, 0.0), (0, 0)),
        (np.arctan2, (1e-200, 1e-200), (5e199, -5e199)),
        (np.logaddexp, (-INF, -INF), (0, 0)),
        (np.logaddexp, (-INF, 0.0), (0, 1)),
        (np.logaddexp, (INF, INF), (0.5, 0.5)),
        (np.logaddexp, (INF, 0.0), (1, 0)),
        (np.logaddexp, (1000.0, 0.0), (1, 0)),
        (np.copysign, (0.0, -1.0), (0, 0)),
        (np.copysign, (2.0, -1.0), (-1, 0)),
        (np.remainder, (-7.0, 2.0), (1, 4)),
        (np.remainder, (5.0, INF), (1, 0)),
        (np.fmod, (-7.0, 2.0), (1, 3)),
        (np.heaviside, (0.0, 0.3), (0, 1)),
        (np.heaviside, (1.0, 0.3), (0, 0)),
        (np.sqrt, (0.0,), (INF,)),
        (sp.xlogy, (0.0, 2.0), (math.log(2), 0)),
        (sp.xlogy, (0.0, 0.0), (0, 0)),
        (sp.xlog1py, (0.0, -1.0), (0, 0)),
        (sp.rel_entr, (0.0, 0.0), (0, 0)),
        (sp.kl_div, (0.0, 0.0), (0, 1)),
        (sp.boxcox, (0.0, 0.5), (INF, 4)),
        (sp.boxcox, (0.0, -0.5), (INF, INF)),
        (sp.boxcox, (0.0, 0.0), (INF, INF)),
        (sp.boxcox, (INF, -0.5), (0, 4)),
        (sp.boxcox1p, (-1.0, 0.5), (INF, 4)),
        (sp.exprel, (INF,), (INF,)),
        (sp.exprel, (1e100,), (INF,)),
        (sp.exprel, (-INF,), (0,)),
        (sp.exprel, (0.0,), (0.5,)),
        (sp.huber, (1.0, 3.0), (2, 1)),
        (sp.huber, (1.0, -0.5), (0, -0.5)),
    ],
)
def test_kinks_and_corners(fn, args, expected):
    found = slope(fn, *args, argnums=range(len(args)))
    np.testing.assert_allclose(found, expected, rtol=4 * EPS)


@pytest.mark.parametrize("z", [-900.0, -30.0, -1.5, -1.0, -0.9, 1e-9, 0.5, 1.0, 1.1, 40.0])
def test_exprel_and_boxcox_have_the_derivatives_of_their_integrals(z):
    """int_0^1 t^k e^(z t) dt, k = 1 and 2: of exprel(z), and of boxcox at lambda = z, x = e."""
    with mpmath.workdps(30):
        expected = [float(mpmath.quad(lambda t, k=k: t**k * mpmath.e ** (z * t), [0, 0.5, 1])) for k in (1, 2)]
        if z < -100:
            expected = [1 / z**2, -2 / z**3]
    for fn in (sp.exprel, lambda l: sp.boxcox(math.e, l)):
        found = scg.grad(fn)(np.array(z)), scg.grad(scg.grad(fn))(np.array(z))
        np.testing.assert_allclose(found, expected, 1e-12)


def test_mixed_second_derivative_of_a_power_at_exponent_zero():
    """d/dx d/dy x^y = x^(y-1) (1 + y log x), 1/x at y = 0."""
    mixed = scg.grad(lambda y: scg.grad(lambda x: np.power(x, y))(np.array(4.0)))(np.array(0.0))
    np.testing.assert_allclose(mixed, 0.25, rtol=4 * EPS)


@pytest.mark.parametrize("power", [np.power, np.float_power, lambda x, y: sp.powm1(x, y)])
@pytest.mark.parametrize(("y", "mixed"), [(0.5, -INF), (1.0, -INF), (1.5, 0.0), (2.0, 0.0), (3.0, 0.0)])
def test_mixed_second_derivatives_of_a_power_of_zero_agree(power, y, mixed):
    """x^(y-1) (1 + y log x) at x = 0, in either order: its limit, though the derivative in y alone is 0 there."""
    with np.errstate(all="ignore"):
        (_, one), (other, alone) = scg.hessian(lambda v: power(*v))((np.array(0.0), np.array(y)))
    assert one == other == mixed
    assert alone == 0


@pytest.mark.parametrize("x", [1e-9, -1e-6, 1e-3])
def test_second_derivatives_of_integrals_keep_their_digits_near_zero(x):
    """d/dx sin(x)/x = -x/3 + x^3/30 - ..., and the same of sinh without changing signs."""
    for fn, sign in (sp.sici, -1), (sp.shichi, 1):
        second = scg.grad(scg.grad(lambda x, fn=fn: fn(x)[0]))(np.array(x))
        np.testing.assert_allclose(second, sign * x / 3 + x**3 / 30, rtol=1e-12)


@pytest.mark.parametrize("x", [1e2, -1e4, 1e6])
def test_second_derivative_of_dawsons_integral_keeps_its_digits_far_out(x):
    """dawsn(x) ~ 1/2x + 1/4x^3 + 3/8x^5 + 15/16x^7 + ..."""
    second = scg.grad(scg.grad(sp.dawsn))(np.array(x))
    np.testing.assert_allclose(second, 1 / x**3 + 3 / x**5 + 45 / 4 / x**7 + 52.5 / x**9, rtol=1e-12)


def test_conjugate_where_a_zero_absorbs():
    """conj is not complex linear: the pass that guards against 0 * inf keeps its derivative."""

    def cost(x):
        z = np.conjugate(x[0] + 1j * x[1]) * (2 + 3j)
        return np.real(z) + np.where(x[0] > 0, 0.0, np.sqrt(np.maximum(-x[0], 0.0)))

    np.testing.assert_allclose(scg.grad(cost)(np.array([1.0, 1.0])), [2, 3])


UFUNCS = {name: fn for name, fn in vars(sp).items() if isinstance(fn, np.ufunc)}


@pytest.mark.parametrize("name", sorted(name for name, fn in UFUNCS.items() if fn not in IMPLEMENTATIONS))
def test_other_ufuncs_of_scipy_are_refused_by_name(name):
    fn = getattr(sp, name)
    with pytest.raises(NotDifferentiable, match=rf"{fn.__name__} has no derivative.*test_special.py"):
        fn(*[scg.parameter(np.array(0.5))] * fn.nin)


def test_at_least_75_ufuncs_of_scipy_have_a_derivative():
    found = [IMPLEMENTATIONS.get(fn) for fn in UFUNCS.values()]
    assert sum(getattr(one, "differentiable", one is not None) for one in found) >= 75


@pytest.mark.parametrize("fn", [np.isnat, np.strings.isalpha, np.strings.str_len])
def test_text_and_dates_are_refused(fn):
    with pytest.raises(NotDifferentiable, match="a node holds numbers"):
        fn(scg.parameter(np.ones(2)))


@pytest.mark.parametrize(
    ("fn", "argument"),
    [
        (lambda v: sp.jv(v, 1.0), "'v'"),
        (lambda a: sp.hyp2f1(a, 1.0, 2.0, 0.5), "'a'"),
        (lambda m: sp.ellipkinc(1.0, m), "'m'"),
    ],
)
def test_orders_have_no_silent_zero_derivative(fn, argument):
    with pytest.raises(NotDifferentiable, match=argument):
        scg.grad(fn)(np.array(0.5))


def test_no_second_derivative_in_a_shape_parameter():
    with pytest.raises(NotDifferentiable, match="not twice"):
        scg.grad(scg.grad(lambda a: sp.gammainc(a, 1.0)))(np.array(2.0))


@given(hnp.arrays(st.sampled_from([np.float64, np.float32]), st.integers(1, 20), elements=st.floats(-80, 80, width=32)))
def test_fast_logistic_functions_agree_with_scipy(x):
    eps = np.finfo(x.dtype).eps
    exact = x.astype(float)
    for fast, reference in (
        (scg.special.sigmoid, sp.expit),
        (scg.special.log_sigmoid, sp.log_expit),
        (scg.special.softplus, lambda x: -sp.log_expit(-x)),
    ):
        found = fast(x)
        assert found.dtype == x.dtype
        np.testing.assert_allclose(found, reference(exact), rtol=6 * eps)


ARRAYS = hnp.arrays(
    float,
    hnp.array_shapes(min_dims=1, max_dims=3, max_side=4),
    elements=st.one_of(st.floats(-50, 50), st.sampled_from([-INF, 1e300, -1e300, 700.0])),
)


@given(ARRAYS, st.data())
def test_reductions_agree_with_scipy(x, data):
    axes = st.integers(-x.ndim, x.ndim - 1)
    axis = data.draw(st.one_of(st.none(), axes, st.just((0, -1)) if x.ndim > 1 else axes))
    keepdims = data.draw(st.booleans())
    b = data.draw(hnp.arrays(float, x.shape[-1:], elements=st.one_of(st.floats(1e-3, 3), st.floats(-3, -1e-3))))
    with np.errstate(all="ignore"):
        for name, kwargs in (
            ("softmax", {}),
            ("log_softmax", {}),
            ("logsumexp", {"keepdims": keepdims}),
            ("logsumexp", {"keepdims": keepdims, "b": np.abs(b)}),
        ):
            found, expected = (
                getattr(scg.special, name)(x, axis=axis, **kwargs),
                getattr(sp, name)(x, axis=axis, **kwargs),
            )
            assert found.shape == expected.shape
            np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-14 + 8 * EPS * np.log(x.size))
        (found, sign), (expected, expected_sign) = (
            module.logsumexp(x, axis=axis, b=b, keepdims=keepdims, return_sign=True) for module in (scg.special, sp)
        )
        # what a sum loses by cancellation, it loses against the sum of magnitudes
        lost = (
            np.exp(np.minimum(scg.special.logsumexp(x, axis=axis, b=np.abs(b), keepdims=keepdims) - expected, 700))
            * 64
            * EPS
        )
        clear = ~(lost > 1e-6)
        finite = clear & np.isfinite(expected)
        np.testing.assert_array_equal(sign[clear], expected_sign[clear])
        np.testing.assert_array_less(np.abs(np.exp(found - expected) - 1)[finite], (lost + 1e-13)[finite])
        mean = scg.special.logmeanexp(x, axis=axis, keepdims=keepdims)
    total = sp.logsumexp(x, axis=axis, keepdims=keepdims)
    np.testing.assert_allclose(
        mean, total - math.log(x.size / max(total.size, 1)), rtol=1e-13, atol=1e-14 + 8 * EPS * np.log(x.size)
    )


@given(hnp.arrays(float, (3, 4), elements=st.floats(-20, 20)), st.floats(-1e3, 1e3))
def test_a_constant_shifts_logsumexp_and_leaves_softmax(x, c):
    tolerance = 16 * EPS * (40 + abs(c))
    np.testing.assert_allclose(
        scg.special.logsumexp(x + c, axis=1), scg.special.logsumexp(x, axis=1) + c, atol=tolerance
    )
    np.testing.assert_allclose(
        scg.special.softmax(x + c, axis=1), scg.special.softmax(x, axis=1), rtol=tolerance, atol=tolerance
    )
    np.testing.assert_allclose(
        slope(lambda a: scg.special.logsumexp(a, axis=1), x), scg.special.softmax(x, axis=1), rtol=tolerance
    )
    weights = np.arange(12.0).reshape(3, 4)
    gradient = slope(lambda a: weights * scg.special.softmax(a, axis=1), x)
    np.testing.assert_allclose(gradient.sum(axis=1), 0, atol=12 * 16 * EPS)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("magnitude", [0.0, 1e2, 1e4, 1e8, 1e16, 1e30, 1e307])
@given(data=st.data())
def test_the_gradient_of_logsumexp_is_softmax_however_large_the_numbers(dtype, magnitude, data):
    """Of sum 1, and of no less digits than the differences of the numbers have."""
    if magnitude > float(np.finfo(dtype).max):
        return
    shape = data.draw(st.sampled_from([(3,), (2, 3), (2, 2, 2)]))
    size = int(np.prod(shape))
    steps = data.draw(st.lists(st.sampled_from([-2.0, -0.5, 0.0, 0.0, 1.0]), min_size=size, max_size=size))
    x = (data.draw(st.sampled_from([-1, 1])) * magnitude + np.reshape(steps, shape)).astype(dtype)
    axis = data.draw(st.sampled_from([None, -1, tuple(range(len(shape)))]))
    for fn in (scg.special.logsumexp, scg.special.logmeanexp):
        found = scg.grad(lambda a, fn=fn: np.sum(fn(a, axis=axis)))(x)
        assert found.dtype == dtype
        np.testing.assert_allclose(found, scg.special.softmax(x, axis=axis), rtol=8 * np.finfo(dtype).eps)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([-INF, -INF], None, [0, 0]),
        ([-INF, 0.0], None, [0, 1]),
        ([1e300, -1e300], None, [1, 0]),
        ([INF, 0.0], None, [math.nan, 0]),
        ([1000.0, 1000.0], None, [0.5, 0.5]),
        ([-INF, -INF], [1.0, 2.0], [0, 0]),
        ([-1.0, -INF], [0.0, 1.0], [0, 0]),
        ([0.0, 0.0], [3.0, 1.0], [0.75, 0.25]),
    ],
)
def test_gradients_of_logsumexp_at_extremes(a, b, expected):
    np.testing.assert_allclose(
        slope(lambda a: scg.special.logsumexp(a, b=None if b is None else np.array(b)), a), expected
    )


def test_a_weight_of_zero_still_counts():
    """d/db log(sum b exp a) = exp(a - out)."""
    found = slope(lambda b: scg.special.logsumexp(np.array([1.0, 2.0]), b=b), [0.0, 1.0])
    np.testing.assert_allclose(found, np.exp([-1.0, 0.0]))


@pytest.mark.parametrize(
    "name", ["softmax", "log_softmax", "logsumexp", "logmeanexp", "softplus", "sigmoid", "log_sigmoid", "log1mexp"]
)
def test_float32_stays(name):
    fn = getattr(scg.special, name)
    x = np.array([-1.0, -2.0], np.float32)
    assert fn(x).dtype == np.float32
    assert scg.grad(lambda a: np.sum(fn(a)))(x).dtype == np.float32


def test_polygamma_and_multigammaln_are_scipys():
    x = np.linspace(2.5, 9, 5)
    for n in range(5):
        np.testing.assert_array_equal(scg.special.polygamma(n, x), sp.polygamma(n, x))
        np.testing.assert_allclose(
            slope(lambda x, n=n: scg.special.polygamma(n, x), x), sp.polygamma(n + 1, x), rtol=4 * EPS
        )
    np.testing.assert_allclose(scg.special.multigammaln(x, 4), [sp.multigammaln(a, 4) for a in x], rtol=16 * EPS)


@given(st.floats(-10, 10), st.floats(0.0, 300))
def test_vonmises_cdf_is_one_more_after_a_turn_and_symmetric(x, kappa):
    cdf = scg.special.vonmises_cdf
    assert cdf(x + 2 * math.pi, kappa) - cdf(x, kappa) == pytest.approx(1, abs=1e-13)
    assert cdf(x, kappa) + cdf(-x, kappa) == pytest.approx(1, abs=1e-13)


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (lambda x: scg.special.softmax(x, axis=3), ScgIndexError),
        (lambda x: scg.special.logsumexp(x, axis=(0, 0)), ScgIndexError),
        (lambda x: scg.special.polygamma(-1, x), ScgValueError),
        (lambda x: scg.special.polygamma(x, x), ScgValueError),
        (lambda x: scg.special.multigammaln(x, 9), ScgValueError),
        (lambda x: sp.logsumexp(x), ScgError),
        (lambda x: sp.polygamma(1, x), ScgError),
    ],
)
def test_errors_are_scgs(call, kind):
    with pytest.raises(kind, match=r"test_special\.py"):
        call(scg.parameter(np.ones(2)))


POLES = {
    "binom": (
        sp.binom,
        lambda n, k: mpmath.gamma(n + 1) * mpmath.rgamma(k + 1) * mpmath.rgamma(n - k + 1),
        [-3.5, 0, 1, 2, 5, 0.5, 7.3],
        [-2, -1, 0, 1, 2, 6, 0.5],
    ),
    "poch": (
        sp.poch,
        lambda z, m: mpmath.gamma(z + m) * mpmath.rgamma(z),
        [-4, -2, -1, 0, 1, 2.5, -0.5],
        [0, 1, 2, 5, 1.5],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", POLES)
def test_derivatives_where_a_gamma_function_has_a_pole(name):
    """Central differences in sixty digits, h = 1e-15, off by h^2 times the third derivative; in the first argument also
    the second derivative."""
    fn, exact, first, second = POLES[name]
    with mpmath.workdps(60):
        h = mpmath.mpf(10) ** -15
        for x, y in itertools.product(first, second):
            at = lambda s, t: exact(mpmath.mpf(x) + s * h, mpmath.mpf(y) + t * h)
            try:
                slopes = [
                    (at(1, 0) - at(-1, 0)) / (2 * h),
                    (at(0, 1) - at(0, -1)) / (2 * h),
                    (at(1.5, 0) - at(0.5, 0) - at(-0.5, 0) + at(-1.5, 0)) / (2 * h * h),
                ]
            except ValueError:
                continue
            for found, slope in zip(
                [
                    scg.grad(fn)(x * 1.0, y * 1.0),
                    scg.grad(fn, 1)(x * 1.0, y * 1.0),
                    scg.grad(scg.grad(fn))(x * 1.0, y * 1.0),
                ],
                slopes,
                strict=True,
            ):
                # in m it jumps there
                if not (name == "poch" and slope is slopes[1] and x <= 0 and x == int(x) and y == int(y)):
                    np.testing.assert_allclose(found, float(slope), 1e-8, 1e-8, err_msg=f"{name}({x}, {y})")


def test_binomials_of_negative_integers_are_the_polynomials():
    """SciPy's binom is NaN at negative integers, and where a cost is NaN its derivative is."""
    for p in (-3.0, -1.0):
        expected = np.nan if np.isnan(sp.binom(p, 2.0)) else p - 0.5
        np.testing.assert_allclose(scg.grad(lambda p: sp.binom(p, 2.0))(p), expected, 1e-12)
        for beside in (1e-9, -1e-5):
            at = p + beside
            np.testing.assert_allclose(scg.grad(lambda p: sp.binom(p, 2.0))(at), at - 0.5, 1e-10)
            np.testing.assert_allclose(scg.grad(lambda p: sp.poch(p, 3.0))(at), 3 * at * at + 6 * at + 2, 1e-6)
        np.testing.assert_allclose(scg.grad(lambda p: sp.poch(p, 2.0))(p), 2 * p + 1, 1e-12)
        np.testing.assert_allclose(scg.hvp(lambda p: sp.poch(p, 3.0))(p, 1.0), 6 * p + 6, 1e-12, 1e-12)


def test_half_precision_counts_and_sums_in_single():
    """70,000 is more than the largest half."""
    x = np.ones(70_000, np.float16)
    each = np.float16(1 / 70_000)
    np.testing.assert_array_equal(scg.grad(np.max)(x), each)
    np.testing.assert_array_equal(scg.special.softmax(x), each)
    assert scg.special.softmax(x).dtype == scg.special.logsumexp(x).dtype == np.float16
    assert scg.special.logsumexp(x) == np.float16(1 + np.log(70_000))
    assert scg.special.log_softmax(x)[0] == -np.float16(np.log(70_000))
    np.testing.assert_array_equal(
        scg.grad(lambda x: scg.special.logsumexp(x))(x), np.exp(1 - np.float16(1 + np.log(70_000)), dtype=np.float16)
    )
    np.testing.assert_allclose(
        scg.grad(lambda x: np.sum(scg.special.log_softmax(x)[:2]))(x)[:3], [1, 1, -2 * each], 1e-3, 1e-4
    )


@pytest.mark.parametrize("k", [np.array([1, 2, 200], np.uint8), np.array([True, False, True])], ids=["bytes", "truths"])
@pytest.mark.parametrize("name", ["sigmoid", "softplus", "log_sigmoid"])
def test_sigmoids_of_unsigned_numbers_do_not_wrap(name, k):
    fn = getattr(scg.special, name)
    np.testing.assert_allclose(fn(k), fn(k.astype(float)), rtol=1e-12)
    step = scg.compile(lambda x, k: np.sum(x * fn(k)))
    for _ in range(2):
        np.testing.assert_allclose(step(np.ones(3), k), np.sum(fn(k.astype(float))), rtol=1e-12)


@pytest.mark.parametrize("x", [-2.0, -0.3, 2.0])
@pytest.mark.parametrize("part", [np.real, np.imag])
def test_complex_powers_of_negative_numbers_have_the_principal_derivatives(x, part):
    """d x^p / dp = x^p log x and d x^p / dx = p x^(p-1), log x = log|x| + i pi for x < 0: by mpmath."""
    p, q = 1.3, 0.4
    exponent, base = mpmath.mpc(p, q), mpmath.mpf(x)
    power = base**exponent
    by_exponent, by_base = complex(power * mpmath.log(base)), complex(exponent * base ** (exponent - 1))
    for kind in (x, x + 0j):
        found = scg.grad(lambda p, kind=kind: part(np.power(kind, p + 1j * q)))(p)
        np.testing.assert_allclose(found, part(by_exponent), 1e-13)
    for kind in (0, 0j):
        found = scg.grad(lambda x, kind=kind: part((x + kind) ** (p + 1j * q)))(x)
        np.testing.assert_allclose(found, part(by_base), 1e-13)
    curvature = scg.hessian(lambda p: part(np.power(x, p + 1j * q)))(p)
    np.testing.assert_allclose(curvature, part(complex(power * mpmath.log(base) ** 2)), 1e-12)


def test_a_function_that_scipy_has_is_named_where_scg_has_none():
    with pytest.raises(AttributeError, match=r"scipy\.special\.expit\(x\) takes a Node itself"):
        scg.special.expit  # noqa: B018
    assert scg.grad(lambda x: sp.expit(x))(0.0) == 0.25
    with pytest.raises(AttributeError, match=r"has no attribute 'factorial'$"):
        scg.special.factorial  # noqa: B018


POLYNOMIALS = {  # by degree; of alpha and beta 0.7 and 0.3
    **{
        name: lambda n, x, fn=getattr(sp, f"eval_{name}"): fn(n, x)
        for name in "legendre sh_legendre chebyt chebyu sh_chebyt sh_chebyu chebyc chebys laguerre".split()
    },
    "gegenbauer": lambda n, x: sp.eval_gegenbauer(n, 0.7, x),
    "genlaguerre": lambda n, x: sp.eval_genlaguerre(n, 0.7, x),
    "jacobi": lambda n, x: sp.eval_jacobi(n, 0.7, 0.3, x),
}


@pytest.mark.parametrize("name", POLYNOMIALS)
def test_derivatives_of_orthogonal_polynomials_of_any_degree(name):
    """Against central differences, of first and second derivatives; of no integer degree they are functions of the
    hypergeometric family, and obey the same relations."""
    fn, h = POLYNOMIALS[name], 1e-4
    for n in (0, 1, 2, 5, 0.0, 1.0, 0.4, 1.3, 2.7, -0.5, -1.5):
        for x in (0.15, 0.4, 0.9):
            f = lambda x, n=n: fn(n, x)
            first = scg.grad(f)
            np.testing.assert_allclose(first(x), (f(x + h) - f(x - h)) / (2 * h), 1e-5, 1e-6)
            np.testing.assert_allclose(scg.grad(first)(x), (first(x + h) - first(x - h)) / (2 * h), 1e-5, 1e-6)
    for n in (-1, -2.0, -3):
        first = scg.grad(lambda x, n=n: fn(n, x))
        assert np.isnan(first(0.4)) and np.isnan(scg.grad(first)(0.4))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["yn", "kn", "expn", "bdtr", "bdtrc", "nbdtr", "nbdtrc"])
def test_where_scipy_truncates_an_order_so_does_the_derivative(name):
    fn, two = getattr(sp, name), name.endswith(("dtr", "dtrc"))
    for order in (0.6, 1.0, 1.7, 2.5, 3):
        for x in (0.2, 0.5, 0.8):
            f = (lambda x, n=order: fn(1, n + 1, x)) if two else (lambda x, n=order: fn(n, x))
            h = 1e-5
            np.testing.assert_allclose(scg.grad(f)(x), (f(x + h) - f(x - h)) / (2 * h), 1e-6, 1e-8)
