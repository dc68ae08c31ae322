"""Cases of ``np.fft``. A complex result is split into its parts, so that what is differentiated is real; other cases
take real functions of it."""

import numpy as np

from tests.support.cases import Case, Domain

CASES: list[Case] = []


def case(name, fn, *shape, order=2):
    CASES.append(Case(f"np.fft.{name}", fn, (Domain(-2.0, 2.0, shape),), order))


def both(z):
    return np.real(z), np.imag(z)


def complexed(x):
    """The complex numbers whose parts stand along the last axis."""
    return x[..., 0] + 1j * x[..., 1]


for _name in ("fft", "ifft"):
    _f = getattr(np.fft, _name)
    case(_name, lambda x, f=_f: np.abs(f(x)) ** 2, 5)
    case(_name, lambda x, f=_f: both(f(x)), 2, 3)
    case(_name, lambda x, f=_f: both(f(complexed(x))), 4, 2)
    case(_name, lambda x, f=_f: both(f(x, 3)), 5)
    case(_name, lambda x, f=_f: both(f(x, 6, 0, "ortho")), 4, 2)
    case(_name, lambda x, f=_f: both(f(x, axis=-2, norm="forward")), 2, 3, 2)
    _g = getattr(np.fft, _name + "2")
    case(_name + "2", lambda x, f=_g: both(f(x)), 2, 3)
    case(_name + "2", lambda x, f=_g: both(f(x, s=(3, 2), axes=(0, 1), norm="ortho")), 2, 3, 2)
    _h = getattr(np.fft, _name + "n")
    case(_name + "n", lambda x, f=_h: both(f(x)), 2, 3, 2)
    case(_name + "n", lambda x, f=_h: both(f(x, axes=(0,))), 2, 3)
    case(_name + "n", lambda x, f=_h: both(f(complexed(x), s=(4, -1), axes=(-1, 0), norm="forward")), 2, 3, 2)
for _name in ("rfft", "ihfft"):
    _f = getattr(np.fft, _name)
    case(_name, lambda x, f=_f: np.abs(f(x)) ** 2, 5)
    case(_name, lambda x, f=_f: both(f(x)), 2, 4)
    case(_name, lambda x, f=_f: both(f(x, 3)), 5)
    case(_name, lambda x, f=_f: both(f(x, 6, 0, "ortho")), 4, 2)
    case(_name, lambda x, f=_f: both(f(x, axis=-2, norm="forward")), 2, 3, 2)
    case(_name, lambda x, f=_f: both(f(x)), 1)
for _name in ("irfft", "hfft"):
    _f = getattr(np.fft, _name)
    case(_name, lambda x, f=_f: f(complexed(x)), 4, 2)
    case(_name, lambda x, f=_f: f(x), 2, 3)
    case(_name, lambda x, f=_f: f(complexed(x), 5), 3, 2)
    case(_name, lambda x, f=_f: f(complexed(x), 3), 4, 2)
    case(_name, lambda x, f=_f: f(complexed(x), 8, 0, "ortho"), 3, 2, 2)
    case(_name, lambda x, f=_f: f(complexed(x), axis=-2, norm="forward"), 3, 2, 2)
for _name in ("rfft2", "rfftn"):
    _f = getattr(np.fft, _name)
    case(_name, lambda x, f=_f: both(f(x)), 2, 3)
    case(_name, lambda x, f=_f: np.abs(f(x, s=(3, 2), axes=(1, 0), norm="ortho")) ** 2, 2, 3)
for _name in ("irfft2", "irfftn"):
    _f = getattr(np.fft, _name)
    case(_name, lambda x, f=_f: f(complexed(x)), 2, 3, 2)
    case(_name, lambda x, f=_f: f(complexed(x), s=(3, 5), axes=(1, 0), norm="forward"), 2, 3, 2)
case("rfftn", lambda x: both(np.fft.rfftn(x, axes=(0, 2))), 2, 3, 2)
for _name in ("fftshift", "ifftshift"):
    _f = getattr(np.fft, _name)
    case(_name, lambda x, f=_f: f(x), 3, 4)
    case(_name, lambda x, f=_f: f(x, axes=1), 2, 5)
    case(_name, lambda x, f=_f: f(x, axes=(0, -1)), 3, 2, 3)

# complex nodes through the elementwise, reducing and multiplying primitives, to a real result
case("fft", lambda x: np.real(np.sum(np.conjugate(np.fft.fft(x)) * np.exp(0.3 * np.fft.fft(x[::-1])), axis=0)), 4)
case("fft", lambda x: np.angle(np.fft.fft(x)[1] + 9), 4)
case("fft", lambda x: np.real(np.matmul(np.fft.fft(x), np.fft.ifft(x))), 3, 3)
case("irfft", lambda x: np.fft.irfft(np.fft.rfft(x) * np.fft.rfft(x[::-1]), 5), 5)
