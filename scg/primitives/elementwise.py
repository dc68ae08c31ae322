"""Arithmetic, powers, exponentials, trigonometry, comparisons: NumPy's ufuncs, element by element.

Kinks and singular points follow one table; everywhere else the derivative is the mathematical one, infinite where that
is.

| function | where | derivative |
| --- | --- | --- |
| ``abs``, ``fabs``, ``hypot``, ``copysign``, ``arctan2`` | origin | 0; the second is NaN, unless it has a limit |
| ``maximum``, ``minimum``, ``fmax``, ``fmin`` | at a tie | a half to each operand |
| ``power(x, y)`` | x = 0, y = 0 | 0 in x, 0 in y; and 0 in y for all y > 0 |
| ``logaddexp`` | both operands -inf, both +inf | 0, a half |
| ``floor``, ``rint``, ``sign``, comparisons, ... | everywhere | 0: they are constant |
"""

import math

import numpy as np
from numpy._core import umath as np_umath

from scg.core.axes import elementwise
from scg.core.detaching import refuse
from scg.core.node import Node
from scg.core.primitive import Primitive, implements, primitive, smooth_primitive

UMATH = vars(np_umath)  # NumPy's ufuncs, those without a public name as well
LN2, LN10, DEGREE = math.log(2), math.log(10), math.pi / 180  # Python floats: they leave float32 as it is

# not `elementwise` itself: what 0 * inf means factors a VJP into g * slope, which no antiholomorphic function allows
_antiholomorphic = type(elementwise)()


def quadrant(x, y):
    """Which of four x + iy lies in: it changes at the origin, whatever the way through."""
    return 2 * (x > 0) + (y > 0)


def cut_at_zero(x, *rest):
    """Which quadrant a complex number lies in: it changes across the negative numbers, where log and powers jump."""
    return quadrant(np.real(x), np.imag(x))


def _cut_at_ones(x):
    """On which side of the real axis, and of -1 and 1 along it."""
    return 3 * (np.imag(x) > 0) + (np.real(x) > -1) + (np.real(x) > 1)


def _cut_at_units(x):
    """On which side of the imaginary axis, and of -i and i along it."""
    return 3 * (np.real(x) > 0) + (np.imag(x) > -1) + (np.imag(x) > 1)


def between_poles(x):
    """Between which poles of the gamma function, 0, -1, -2, ..., a number lies."""
    return np.where(np.real(x) > 0, 1, np.floor(np.real(x)))


def always(sign):
    """The sign of a result, whatever the operands are."""
    return lambda signs, *operands: sign


def _of_first(signs, *operands):
    return max(signs[0], 1)


primitive(
    np.add,
    elementwise,
    lambda g, out, x, y: g,
    lambda g, out, x, y: g,
    linear="together",
    sign=lambda signs, x, y: max(signs) if min(signs) else 0,
)
primitive(np.subtract, elementwise, lambda g, out, x, y: g, lambda g, out, x, y: -g, linear="together")
primitive(
    np.multiply,
    elementwise,
    lambda g, out, x, y: g * y,
    lambda g, out, x, y: g * x,
    linear="each",
    sign=lambda signs, x, y: min(signs),
)
primitive(
    np.divide,
    elementwise,
    lambda g, out, x, y: g / y,
    lambda g, out, x, y: -g * out / y,
    linear=[(0,)],
    cost=0.2,
    poles=lambda x, y: 1,
    sign=lambda signs, x, y: signs[0] if signs[1] else 0,
)
primitive(np.negative, elementwise, lambda g, out, x: -g, linear="together")
primitive(np.positive, elementwise, lambda g, out, x: g, linear="together", view=True, sign=lambda signs, x: signs[0])
smooth_primitive(np.square, elementwise, lambda g, out, x: g * (x + x), square=True, sign=_of_first)
smooth_primitive(
    np.reciprocal,
    elementwise,
    lambda g, out, x: -g * (out * out),
    poles=lambda x: 0,
    sign=lambda signs, x: 2 * bool(signs[0]),
)
smooth_primitive(np.sqrt, elementwise, lambda g, out, x: g / (out + out), cost=0.3, cuts=cut_at_zero, sign=_of_first)
smooth_primitive(np.cbrt, elementwise, lambda g, out, x: g / (3 * (out * out)), steep=lambda x: np.equal(x, 0))
primitive(np.conjugate, _antiholomorphic, lambda g, out, x: np.conjugate(g), linear="together")


def _log_except(flat, x, y):
    """log x, and 0 where x^y is ``flat``; complex where y is: of a negative number it is log|x| + i pi then."""
    base = np.where(flat, 1, x)
    return np.log(base + 0 * y if np.result_type(y).kind == "c" and np.result_type(x).kind != "c" else base)


def _above_zero(x, y):
    """x, and 1 where it is 0 to the power of 0."""
    return np.where((x == 0) & (y == 0), 1, x)


def _mixed(x, y):
    """d/dx d/dy x^y = x^(y-1) (1 + y log x): at x = 0 it is 0 for y > 1, else infinite."""
    flat = (x == 0) & (y > 1)
    return np.where(flat, 0, np.where(flat, 1, x) ** (y - 1) * (1 + y * _log_except(flat, x, y)))


power_in_base: Primitive = smooth_primitive(
    lambda x, y: y * _above_zero(x, y) ** (y - 1),
    elementwise,
    lambda g, out, x, y: g * (y * power_in_base(_above_zero(x, y), y - 1)),
    lambda g, out, x, y: g * _mixed(x, y),
    name="power_in_base",
)
"""d/dx x^y = y x^(y-1), and 0 for y = 0 also where x is 0."""

power_in_exponent = smooth_primitive(
    lambda x, y: x**y * _log_except((x == 0) & (y >= 0), x, y),
    elementwise,
    lambda g, out, x, y: g * _mixed(x, y),
    lambda g, out, x, y: g * (out * _log_except((x == 0) & (y >= 0), x, y)),
    name="power_in_exponent",
)
"""d/dy x^y = x^y log x, and 0 where x is 0 and y is not negative."""


def _slope_in_base(x, y):
    return (y * x ** (y - 1) if y else 0.0) if isinstance(y, (int, float)) else power_in_base(x, y)


for _power in (np.power, np.float_power):
    smooth_primitive(
        _power,
        elementwise,
        lambda g, out, x, y: g * _slope_in_base(x, y),
        lambda g, out, x, y: g * power_in_exponent(x, y),
        cuts=cut_at_zero,
        poles=lambda x, y: None if type(y) in (int, float) and y >= 0 else 0,
        sign=lambda signs, x, y: 2 * (signs[0] == 2) or 1 * bool(signs[0] or type(y) in (int, float) and y % 2 == 0),
    )

smooth_primitive(np.exp, elementwise, lambda g, out, x: g * out, cost=0.5, sign=always(2))
smooth_primitive(np.exp2, elementwise, lambda g, out, x: g * (LN2 * out), sign=always(2))
# out + 1 would lose all digits in the lower tail
smooth_primitive(np.expm1, elementwise, lambda g, out, x: g * np.exp(x), cost=1.0)
smooth_primitive(np.log, elementwise, lambda g, out, x: g / x, cost=0.5, cuts=cut_at_zero)
smooth_primitive(np.log2, elementwise, lambda g, out, x: g / (LN2 * x), cuts=cut_at_zero)
smooth_primitive(np.log10, elementwise, lambda g, out, x: g / (LN10 * x), cuts=cut_at_zero)
smooth_primitive(np.log1p, elementwise, lambda g, out, x: g / (1 + x), cost=0.5, cuts=lambda x: cut_at_zero(1 + x))


def _sigmoid(x):
    with np.errstate(over="ignore"):  # exp(-x) = inf gives the right 0
        return 1 / (1 + np.exp(-x))


sigmoid = smooth_primitive(
    _sigmoid, elementwise, lambda g, out, x: g * (out * (1 - out)), name="sigmoid", sign=always(2)
)
"""1 / (1 + exp(-x)), ten times faster than SciPy's ``expit``, to a few ulp in both tails; 0 where exp(x) is
subnormal."""


def _share(a, b, factor=1.0):
    """exp(a) / (exp(a) + exp(b)); 0 where both are -inf, a half where both are +inf. Sums with ``factor`` ln 2 for
    powers of two."""
    return sigmoid(factor * np.where((a == b) & np.isinf(a), 0, a - b)) * (a > -math.inf)


smooth_primitive(
    np.logaddexp, elementwise, lambda g, out, x, y: g * _share(x, y), lambda g, out, x, y: g * _share(y, x)
)
smooth_primitive(
    np.logaddexp2, elementwise, lambda g, out, x, y: g * _share(x, y, LN2), lambda g, out, x, y: g * _share(y, x, LN2)
)


def _root1(x):
    """sqrt(1 + x^2) without overflow; complex as well."""
    return np.hypot(1, x) if x.dtype.kind != "c" else np.sqrt(1 + x * x)


smooth_primitive(np.sin, elementwise, lambda g, out, x: g * np.cos(x), cost=1.0)
smooth_primitive(np.cos, elementwise, lambda g, out, x: -g * np.sin(x), cost=1.0)
primitive(np.tan, elementwise, lambda g, out, x: g * (1 + out * out), steps=lambda x: np.rint(np.real(x) / math.pi))
smooth_primitive(np.arcsin, elementwise, lambda g, out, x: g / np.sqrt((1 - x) * (1 + x)), cuts=_cut_at_ones)
smooth_primitive(np.arccos, elementwise, lambda g, out, x: -g / np.sqrt((1 - x) * (1 + x)), cuts=_cut_at_ones)
smooth_primitive(np.arctan, elementwise, lambda g, out, x: g / (1 + x * x), cuts=_cut_at_units)
smooth_primitive(np.sinh, elementwise, lambda g, out, x: g * np.cosh(x))
smooth_primitive(np.cosh, elementwise, lambda g, out, x: g * np.sinh(x), sign=always(2))
# no Python number: on small arrays that is a third less
smooth_primitive(np.tanh, elementwise, lambda g, out, x: g - g * (out * out), cost=0.5)
smooth_primitive(np.arcsinh, elementwise, lambda g, out, x: g / _root1(x), cuts=_cut_at_units)
smooth_primitive(np.arccosh, elementwise, lambda g, out, x: g / (np.sqrt(x - 1) * np.sqrt(x + 1)), cuts=_cut_at_ones)
smooth_primitive(np.arctanh, elementwise, lambda g, out, x: g / ((1 - x) * (1 + x)), cuts=_cut_at_ones)
for _fn, _factor in ((np.deg2rad, DEGREE), (np.radians, DEGREE), (np.rad2deg, 1 / DEGREE), (np.degrees, 1 / DEGREE)):
    primitive(_fn, elementwise, lambda g, out, x, factor=_factor: g * factor, linear="together")


over_radius = smooth_primitive(
    lambda x, radius: x / np.where(radius == 0, 1, radius),
    elementwise,
    lambda g, out, x, radius: g / radius,
    lambda g, out, x, radius: -g * out / radius,
    poles=lambda x, radius: 1,
    name="over_radius",
)
"""x / radius, and at the origin x itself, which is 0 there; a direction has no derivative at the origin: infinite or
NaN."""


def _over_square(x, other):
    """x / (x^2 + other^2) without overflow or underflow on the way, and 0 at the origin."""
    radius = np.hypot(x, other)
    return over_radius(over_radius(x, radius), radius)


direction = primitive(
    lambda x: np.sign(x),
    elementwise,
    lambda g, out, x: g * np.where(x == 0, np.nan, 0).astype(x.dtype),
    steps=np.sign,
    name="direction",
)
"""The sign of a real number, as the slope of ``abs``: constant but at 0, where it has no derivative."""

primitive(
    np.hypot,
    elementwise,
    lambda g, out, x, y: g * over_radius(x, out),
    lambda g, out, x, y: g * over_radius(y, out),
    kinks=quadrant,
    sign=lambda signs, x, y: max(*signs, 1),
)
primitive(
    np.arctan2,
    elementwise,
    lambda g, out, y, x: g * _over_square(x, y),
    lambda g, out, y, x: -g * _over_square(y, x),
    steps=quadrant,
)

primitive(
    np.absolute,
    elementwise,
    lambda g, out, x: g * (direction(x) if x.dtype.kind != "c" else over_radius(np.conjugate(x), out)),
    kinks=lambda x: quadrant(x.real, x.imag),
    sign=_of_first,
)
primitive(np.fabs, elementwise, lambda g, out, x: g * direction(x), kinks=lambda x: x > 0, sign=_of_first)
primitive(
    np.copysign,
    elementwise,
    lambda g, out, x, y: g * (direction(x) * np.copysign(1, y)),
    None,
    steps=lambda x, y: 2 * (x > 0) + np.signbit(y),
)


def _chosen(x, y, out):
    mine, ties = x == out, x == y
    return mine - ties * out.dtype.type(0.5) if np.count_nonzero(ties) else mine  # two passes less where nothing ties


chosen = primitive(_chosen, elementwise, name="chosen")
"""Of an extremum ``out`` of x and y: 1 where it is x, 1/2 where both are, 0 where it is y."""


share = smooth_primitive(
    lambda d, x, y: d,
    elementwise,
    lambda g, out, d, x, y: g,
    None,
    None,
    name="share",
    same=True,
    view=True,
    shares=lambda d, x, y: np.equal(x, y),
)
"""A cotangent ``d`` of an operand of an extremum of x and y, of which a tie gives a half."""


def _to_one(g, x, y, out):
    d = g * chosen(x, y, out)
    return share(d, x, y) if type(d) is Node else d  # arrays are not differentiated again


def _by_keyword(fn):
    """How a plan calls an extremum: a third position is on its way out of NumPy."""
    return lambda x, y: lambda x, y, out: fn(x, y, out=out)


for _extremum, _sign in ((np.maximum, max), (np.fmax, max), (np.minimum, min), (np.fmin, min)):
    primitive(
        _extremum,
        elementwise,
        lambda g, out, x, y: _to_one(g, x, y, out),
        lambda g, out, x, y: _to_one(g, y, x, out),
        kinks=lambda x, y: x > y,
        cuts=lambda x, y: x > y,  # in the order of the real parts
        sign=lambda signs, x, y, sign=_sign: sign(signs),
        into=_by_keyword(_extremum),
    )

# x - k y, where the integer k is constant between jumps
primitive(
    np.remainder,
    elementwise,
    lambda g, out, x, y: g,
    lambda g, out, x, y: -g * np.floor_divide(x, y),
    steps=np.floor_divide,
)
primitive(
    np.fmod,
    elementwise,
    lambda g, out, x, y: g,
    lambda g, out, x, y: -g * np.rint((x - out) / y),
    steps=lambda x, y: np.trunc(x / y),
)
_fraction = primitive(lambda x: np.modf(x)[0], elementwise, lambda g, out, x: g, name="modf", steps=np.trunc)
_exponent = primitive(lambda x: np.frexp(x)[1], elementwise, name="exponent")
_mantissa = primitive(
    lambda x: np.frexp(x)[0], elementwise, lambda g, out, x: np.ldexp(g, -_exponent(x)), name="frexp", steps=_exponent
)
primitive(np.ldexp, elementwise, lambda g, out, x, e: np.ldexp(g, e), None, linear=[(0,)])
primitive(
    np.heaviside,
    elementwise,
    None,
    lambda g, out, x, h: g * (x == 0),
    steps=lambda x, h: x > 0,
    ties=lambda x, h: np.equal(x, 0),
)
smooth_primitive(np.nextafter, elementwise, lambda g, out, x, y: g, None)


@implements(np.divmod)
def divmod(x1, x2, /):
    return np.floor_divide(x1, x2), np.remainder(x1, x2)


@implements(np.modf)
def modf(x, /):
    return _fraction(x), np.trunc(x)


@implements(np.frexp)
def frexp(x, /):
    return _mantissa(x), _exponent(x)


_sign = primitive(lambda x: np.sign(x), elementwise, name="sign", ties=lambda x: np.equal(x, 0))
_phase = primitive(  # x / |x|
    lambda x: np.sign(x),
    _antiholomorphic,
    lambda g, out, x: over_radius(g - np.real(g * out) * np.conjugate(out), np.absolute(x)) * (x != 0),
    name="phase",
    steps=lambda x: quadrant(x.real, x.imag),
)


@implements(np.sign)
def sign(x, /):
    return _phase(x) if x.dtype.kind == "c" else _sign(x)


# constant: the derivative is zero wherever it exists
for _step in (
    (np.rint, np.floor_divide, np.spacing, UMATH["_ones_like"])
    + (np.isnan, np.isinf, np.isfinite)
    + (np.logical_and, np.logical_or, np.logical_xor)
    + (
        np.bitwise_and,
        np.bitwise_or,
        np.bitwise_xor,
        np.invert,
        np.left_shift,
        np.right_shift,
        np.gcd,
        np.lcm,
        np.bitwise_count,
    )
):
    primitive(_step, elementwise)
for _step in (np.equal, np.not_equal, np.less, np.less_equal, np.greater, np.greater_equal):
    primitive(_step, elementwise, ties=np.equal)
for _step in (np.signbit, np.logical_not):
    primitive(_step, elementwise, ties=lambda x: np.equal(x, 0))
for _step in (np.floor, np.ceil, np.trunc):
    primitive(_step, elementwise, ties=lambda x: np.equal(x, np.floor(x)))

refuse("a node holds numbers, no dates: use np.isnan", np.isnat)
# strings have no numeric loop, so that their ufuncs list no types
for _of_text in [fn for fn in UMATH.values() if isinstance(fn, np.ufunc) and not fn.types]:
    refuse("a node holds numbers, no text: use node.value.astype(str)", _of_text)
