"""NumPy's ufuncs. Domains keep away from kinks and jumps, where differences do not converge; see
``tests/primitives/test_special.py`` for these."""

import numpy as np

from tests.support.cases import Case, Domain

REAL, POSITIVE, UNIT = Domain(), Domain(0.3, 2.5), Domain(-0.9, 0.9)
LEFT, RIGHT = Domain(-2.0, -0.5), Domain(0.5, 2.0)


def apart(name, fn, order=2):
    """A call whose operands do not tie, in both orders."""
    return [Case(name, fn, (LEFT, RIGHT), order), Case(name, fn, (RIGHT, LEFT), order)]


CASES = [
    *[
        Case(f"np.{fn.__name__}", fn, (REAL, REAL))
        for fn in (np.add, np.subtract, np.multiply, np.logaddexp, np.logaddexp2)
    ],
    *[Case(f"np.{fn.__name__}", fn, (REAL, POSITIVE)) for fn in (np.divide, np.arctan2, np.hypot)],
    Case("np.arctan2", np.arctan2, (POSITIVE, REAL)),
    *[
        Case(f"np.{fn.__name__}", fn, (REAL,))
        for fn in (np.negative, np.positive, np.square, np.exp, np.exp2, np.expm1, np.conjugate)
    ],
    *[
        Case(f"np.{fn.__name__}", fn, (REAL,))
        for fn in (np.sin, np.cos, np.sinh, np.cosh, np.tanh, np.arctan, np.arcsinh)
    ],
    *[Case(f"np.{fn.__name__}", fn, (REAL,)) for fn in (np.deg2rad, np.radians, np.rad2deg, np.degrees)],
    *[
        Case(f"np.{fn.__name__}", fn, (POSITIVE,))
        for fn in (np.reciprocal, np.sqrt, np.cbrt, np.log, np.log2, np.log10, np.log1p)
    ],
    *[Case(f"np.{fn.__name__}", fn, (UNIT,)) for fn in (np.tan, np.arcsin, np.arccos, np.arctanh)],
    Case("np.arccosh", np.arccosh, (Domain(1.2, 3.0),)),
    *[Case(f"np.{fn.__name__}", fn, (domain,)) for fn in (np.absolute, np.fabs) for domain in (LEFT, RIGHT)],
    Case("np.power", np.power, (POSITIVE, REAL)),
    Case("np.power", lambda x: np.power(x, 3), (REAL,)),
    Case("np.power", lambda x: np.power(x, 1), (REAL,)),
    Case("np.power", lambda x: np.power(x, 0.0), (REAL,)),
    Case("np.power", lambda x: np.power(x, -2.0), (LEFT,)),
    Case("np.power", lambda x: x ** np.arange(4, dtype=np.int8), (Domain(-2.0, -0.5, (4,)),)),
    Case("np.power", lambda y: np.power(2, y), (REAL,)),
    Case("np.float_power", lambda x, y: np.float_power(x, y).astype(x.dtype), (POSITIVE, REAL)),
    *[case for fn in (np.maximum, np.minimum, np.fmax, np.fmin) for case in apart(f"np.{fn.__name__}", fn)],
    Case("np.maximum", lambda x: np.maximum(x, 0.0), (RIGHT,)),
    *apart("np.copysign", np.copysign),
    Case("np.remainder", lambda x, y: np.remainder(x, y), (Domain(5.3, 5.7), Domain(1.95, 2.1))),
    Case("np.remainder", lambda x, y: np.remainder(x, y), (Domain(-5.7, -5.3), Domain(1.95, 2.1))),
    Case("np.fmod", lambda x, y: np.fmod(x, y), (Domain(-5.7, -5.3), Domain(1.95, 2.1))),
    Case("np.divmod", lambda x, y: np.divmod(x, y), (Domain(5.3, 5.7), Domain(1.95, 2.1))),
    Case("np.modf", np.modf, (Domain(-2.9, -2.1),)),
    Case("np.frexp", lambda x: np.frexp(x)[0], (Domain(2.2, 3.8),)),
    Case("np.ldexp", lambda x: np.ldexp(x, 3), (REAL,)),
    Case("np.heaviside", lambda h: np.heaviside(0.0, h), (REAL,)),
    Case("np.nextafter", lambda x: np.nextafter(x, np.inf), (Domain(1.2, 1.8),), 1),
    Case("np.where", lambda x, y: np.where(True, x, y), (REAL, REAL)),
    Case(
        "np.where",
        lambda x, y: np.where(np.array([True, False, True]), x, y),
        (Domain(-2, 2, (3,)), Domain(-2, 2, (2, 3))),
    ),
    Case("np.where", lambda x: np.where(x > 0, x * x, 0.0), (RIGHT,)),
    # operands that are Python numbers, integer arrays or complex on the way
    Case("np.multiply", lambda x: 3 * x / 2.0 - 1, (REAL,)),
    Case("np.divide", lambda x: np.arange(3, dtype=np.int8) / x, (Domain(0.5, 2.0, (3,)),)),
    Case("np.exp", lambda x, y: np.real(np.exp(x + 1j * y)), (REAL, REAL)),
    Case("np.log", lambda x, y: np.imag(np.log(x + 1j * y)), (POSITIVE, REAL)),
    Case("np.sqrt", lambda x, y: np.real(np.sqrt(x + 1j * y)), (POSITIVE, REAL)),
    Case("np.sin", lambda x, y: np.imag(np.sin(x + 1j * y) * np.cos(x - 1j * y)), (REAL, REAL)),
    Case("np.absolute", lambda x, y: np.absolute(x + 1j * y), (POSITIVE, REAL)),
    Case("np.sign", lambda x, y: np.imag(np.sign(x + 1j * y)), (POSITIVE, REAL)),
    Case("np.conjugate", lambda x, y: np.imag(np.conjugate(x + 1j * y) * (x + 2j)), (POSITIVE, REAL)),
    Case("np.power", lambda x, y: np.real((x + 1j * y) ** 3), (POSITIVE, REAL)),
    Case("np.power", lambda x, y: np.imag(np.power(x + 1j * y, y - 1j * x)), (POSITIVE, REAL)),
    Case("np.square", lambda x, y: np.imag(np.square(x + 1j * y)), (REAL, REAL)),
    Case("np.divide", lambda x, y: np.real((y - 2j * x) / (x + 1j * y)), (POSITIVE, REAL)),
    Case("np.arcsinh", lambda x, y: np.real(np.arcsinh(x + 1j * y)), (POSITIVE, REAL)),
    Case("np.arccosh", lambda x, y: np.real(np.arccosh(-x + 1j * y)), (POSITIVE, POSITIVE)),
    # constants
    *[
        Case(f"np.{fn.__name__}", fn, (REAL,), 0)
        for fn in (np.sign, np.floor, np.ceil, np.trunc, np.rint, np.spacing, np.signbit)
    ],
    *[Case(f"np.{fn.__name__}", fn, (REAL,), 0) for fn in (np.isnan, np.isinf, np.isfinite, np.logical_not)],
    *[Case(f"np.{fn.__name__}", fn, (REAL, REAL), 0) for fn in (np.equal, np.not_equal, np.less, np.less_equal)],
    *[Case(f"np.{fn.__name__}", fn, (REAL, REAL), 0) for fn in (np.greater, np.greater_equal)],
    *[Case(f"np.{fn.__name__}", fn, (REAL, REAL), 0) for fn in (np.logical_and, np.logical_or, np.logical_xor)],
    *[
        Case(f"np.{fn.__name__}", lambda x, y, fn=fn: fn(x > 0, y > 0), (REAL, REAL), 0)
        for fn in (np.bitwise_and, np.bitwise_or, np.bitwise_xor)
    ],
    *[
        Case(
            f"np.{fn.__name__}",
            lambda x, y, fn=fn: fn(np.argsort(x), np.argsort(y)),
            (Domain(-2, 2, (3,)), Domain(-2, 2, (3,))),
            0,
        )
        for fn in (np.left_shift, np.right_shift, np.gcd, np.lcm)
    ],
    Case("np.bitwise_count", lambda x: np.bitwise_count(np.argsort(x)), (Domain(-2, 2, (5,)),), 0),
    Case("np.invert", lambda x: np.invert(x > 0), (REAL,), 0),
    Case("np.floor_divide", np.floor_divide, (REAL, POSITIVE), 0),
    Case("np.heaviside", lambda x: np.heaviside(x, 0.5), (REAL,), 0),
]
