"""Arithmetic, powers, exponentials, trigonometry, comparisons: NumPy's ufuncs, element by element."""

import math

import numpy as np

from scg.axes import elementwise
from scg.graph import implements, primitive

LN2, LN10 = math.log(2), math.log(10)  # Python floats: they leave float32 as it is


primitive(np.add, elementwise, lambda g, out, x, y: g, lambda g, out, x, y: g)
primitive(np.subtract, elementwise, lambda g, out, x, y: g, lambda g, out, x, y: -g)
primitive(np.multiply, elementwise, lambda g, out, x, y: g * y, lambda g, out, x, y: g * x)
primitive(np.divide, elementwise, lambda g, out, x, y: g / y, lambda g, out, x, y: -g * out / y)
primitive(np.negative, elementwise, lambda g, out, x: -g)
primitive(np.positive, elementwise, lambda g, out, x: g)
primitive(np.square, elementwise, lambda g, out, x: g * (x + x))
primitive(np.reciprocal, elementwise, lambda g, out, x: -g * (out * out))
primitive(np.sqrt, elementwise, lambda g, out, x: g * 0.5 / out)
primitive(np.cbrt, elementwise, lambda g, out, x: g / (3 * (out * out)))


def _power_slope(x, y):
    """y x^(y-1), and 0 for y = 0 also where x is 0."""
    if isinstance(y, (int, float)):
        return y * x ** (y - 1) if y else 0 * x
    return y * x ** np.where(y == 0, 1, y - 1)


for _power in (np.power, np.float_power):
    primitive(
        _power,
        elementwise,
        lambda g, out, x, y: g * _power_slope(x, y),
        lambda g, out, x, y: g * out * np.log(np.where((x == 0) & (y >= 0), 1, x)),
    )

primitive(np.exp, elementwise, lambda g, out, x: g * out)
primitive(np.exp2, elementwise, lambda g, out, x: g * (LN2 * out))
primitive(np.expm1, elementwise, lambda g, out, x: g * (out + 1))
primitive(np.log, elementwise, lambda g, out, x: g / x)
primitive(np.log2, elementwise, lambda g, out, x: g / (LN2 * x))
primitive(np.log10, elementwise, lambda g, out, x: g / (LN10 * x))
primitive(np.log1p, elementwise, lambda g, out, x: g / (1 + x))


def _share(a, b):
    """exp(a) / (exp(a) + exp(b)); a half where both are infinite."""
    return 1 / (1 + np.exp(np.where(a == b, 0, b - a)))


primitive(np.logaddexp, elementwise, lambda g, out, x, y: g * _share(x, y), lambda g, out, x, y: g * _share(y, x))
primitive(
    np.logaddexp2,
    elementwise,
    lambda g, out, x, y: g * _share(LN2 * x, LN2 * y),
    lambda g, out, x, y: g * _share(LN2 * y, LN2 * x),
)

primitive(np.sin, elementwise, lambda g, out, x: g * np.cos(x))
primitive(np.cos, elementwise, lambda g, out, x: -g * np.sin(x))
primitive(np.tan, elementwise, lambda g, out, x: g * (1 + out * out))
primitive(np.arcsin, elementwise, lambda g, out, x: g / np.sqrt((1 - x) * (1 + x)))
primitive(np.arccos, elementwise, lambda g, out, x: -g / np.sqrt((1 - x) * (1 + x)))
primitive(np.arctan, elementwise, lambda g, out, x: g / (1 + x * x))
primitive(np.sinh, elementwise, lambda g, out, x: g * np.cosh(x))
primitive(np.cosh, elementwise, lambda g, out, x: g * np.sinh(x))
primitive(np.tanh, elementwise, lambda g, out, x: g * (1 - out * out))
primitive(np.arcsinh, elementwise, lambda g, out, x: g / np.hypot(1, x))
primitive(np.arccosh, elementwise, lambda g, out, x: g / np.sqrt((x - 1) * (x + 1)))
primitive(np.arctanh, elementwise, lambda g, out, x: g / ((1 - x) * (1 + x)))
for _scale, _factor in ((np.deg2rad, np.pi / 180), (np.radians, np.pi / 180), (np.rad2deg, 180 / np.pi), (np.degrees, 180 / np.pi)):
    primitive(_scale, elementwise, lambda g, out, x, factor=float(_factor): g * factor)
primitive(
    np.hypot,
    elementwise,
    lambda g, out, x, y: g * (x / np.where(out == 0, 1, out)),
    lambda g, out, x, y: g * (y / np.where(out == 0, 1, out)),
)
primitive(
    np.arctan2,
    elementwise,
    lambda g, out, y, x: g * (x / (x * x + y * y)),
    lambda g, out, y, x: -g * (y / (x * x + y * y)),
)

# kinks: at a tie each operand takes half, and |x| has derivative zero at zero
primitive(np.absolute, elementwise, lambda g, out, x: g * (np.sign(x) if x.dtype.kind != "c" else np.conjugate(x) / np.where(out == 0, 1, out)))
primitive(np.fabs, elementwise, lambda g, out, x: g * np.sign(x))


def _chosen(g, x, y, out):
    """The cotangent of ``x`` where the result is ``x``, half of it where ``y`` is the same."""
    half, is_x = 0.5 * g, x == out
    return half * is_x + half * (is_x & (y != out))


for _extremum in (np.maximum, np.fmax, np.minimum, np.fmin):
    primitive(_extremum, elementwise, lambda g, out, x, y: _chosen(g, x, y, out), lambda g, out, x, y: _chosen(g, y, x, out))

primitive(np.copysign, elementwise, lambda g, out, x, y: g * (np.sign(x) * np.copysign(1, y)), None)
primitive(np.remainder, elementwise, lambda g, out, x, y: g, lambda g, out, x, y: -g * np.floor(x / y))
primitive(np.fmod, elementwise, lambda g, out, x, y: g, lambda g, out, x, y: -g * np.trunc(x / y))
primitive(np.ldexp, elementwise, lambda g, out, x, e: g * 2.0**e, None)
primitive(np.conjugate, elementwise, lambda g, out, x: np.conjugate(g))

# constant: the derivative is zero wherever it exists
for _step in (
    (np.sign, np.floor, np.ceil, np.trunc, np.rint, np.floor_divide, np.heaviside, np.spacing, np.nextafter, np.signbit)
    + (np.isnan, np.isinf, np.isfinite, np.equal, np.not_equal, np.less, np.less_equal, np.greater, np.greater_equal)
    + (np.logical_and, np.logical_or, np.logical_xor, np.logical_not)
    + (np.bitwise_and, np.bitwise_or, np.bitwise_xor, np.invert, np.left_shift, np.right_shift, np.gcd, np.lcm, np.bitwise_count)
):
    primitive(_step, elementwise)

# products with the mask, not np.where: ten times faster, and the zeros absorb
_where = primitive(
    lambda c, x, y: np.where(c, x, y),
    elementwise,
    None,
    lambda g, out, c, x, y: g * c,
    lambda g, out, c, x, y: g * ~c,
    name="where",
)


@implements(np.where)
def where(condition, x=None, y=None, /):
    condition = condition if getattr(condition, "dtype", None) == bool else np.not_equal(condition, 0)
    return _where(condition, x, y)
