"""Discrete Fourier transforms. All are composites of five one-dimensional primitives along one axis.

The matrix of a DFT is symmetric, F_jk = exp(-2 pi i jk / n), so with the engine's cotangents G = dL/dRe - i dL/dIm its
VJP is itself: fft(g).
"""

import numpy as np

from scg.core.axes import along
from scg.core.primitive import Primitive, implements, primitive, smooth_primitive
from scg.errors import ScgValueError, here

_SWAPPED = {None: "forward", "backward": "forward", "forward": "backward", "ortho": "ortho"}


def _resized_value(x, axis, n):
    """The first n entries along an axis, with zeros after the last: its own transpose."""
    shape = list(x.shape)
    keep = (slice(None),) * (axis % x.ndim) + (slice(0, min(shape[axis], n)),)
    if n <= shape[axis]:
        return x[keep]
    shape[axis] = n
    out = np.zeros(shape, x.dtype)
    out[keep] = x
    return out


def _weights(like, axis, n, inner):
    """1 for the frequency zero (and n / 2), ``inner`` for those that stand for two conjugate ones."""
    weights = np.full(n // 2 + 1, inner, np.finfo(like.dtype).dtype)
    weights[0] = 1
    if n % 2 == 0:
        weights[-1] = 1
    return weights.reshape((-1,) + (1,) * (-1 - axis if axis < 0 else like.ndim - 1 - axis))


def _rfft_vjp(g, out, x, axis, norm):
    """Re sum_k g_k exp(-2 pi i jk / n): the unscaled irfft of conj(g), its inner frequencies halved, for irfft counts
    them twice."""
    n = x.shape[axis]
    return _irfft(np.conjugate(g) * _weights(out, axis, n, 0.5), axis=axis, n=n, norm=_SWAPPED[norm])


def _irfft_vjp(g, out, x, axis, n, norm):
    """conj(rfft(g)), its inner frequencies doubled."""
    return np.conjugate(_rfft(g, axis=axis, norm=_SWAPPED[norm])) * _weights(x, axis, n, 2)


_resized: Primitive = primitive(
    _resized_value,
    along,
    lambda g, out, x, axis, n: _resized(g, axis=axis, n=x.shape[axis]),
    name="resized",
    linear="together",
)
_fft: Primitive = smooth_primitive(
    lambda x, axis, norm: np.fft.fft(x, axis=axis, norm=norm),
    along,
    lambda g, out, x, axis, norm: _fft(g, axis=axis, norm=norm),
    name="fft",
)
_ifft: Primitive = smooth_primitive(
    lambda x, axis, norm: np.fft.ifft(x, axis=axis, norm=norm),
    along,
    lambda g, out, x, axis, norm: _ifft(g, axis=axis, norm=norm),
    name="ifft",
)
_rfft: Primitive = smooth_primitive(
    lambda x, axis, norm: np.fft.rfft(x, axis=axis, norm=norm), along, _rfft_vjp, name="rfft"
)
_irfft: Primitive = smooth_primitive(
    lambda x, axis, n, norm: np.fft.irfft(x, n, axis, norm), along, _irfft_vjp, name="irfft"
)


def _fitted(a, n, axis):
    if n is not None and n < 1:
        raise ScgValueError(f"a Fourier transform needs at least one point, got {n} ({here()})")
    return a if n is None or n == a.shape[axis] else _resized(a, axis=axis, n=n)


@implements(np.fft.fft)
def fft(a, n=None, axis=-1, norm=None):
    return _fft(_fitted(a, n, axis), axis=axis, norm=norm)


@implements(np.fft.ifft)
def ifft(a, n=None, axis=-1, norm=None):
    return _ifft(_fitted(a, n, axis), axis=axis, norm=norm)


@implements(np.fft.rfft)
def rfft(a, n=None, axis=-1, norm=None):
    return _rfft(_fitted(a, n, axis), axis=axis, norm=norm)


@implements(np.fft.irfft)
def irfft(a, n=None, axis=-1, norm=None):
    """The real signal of length n (2 (m - 1) by default); imaginary parts at frequency zero, and n / 2, are ignored and
    have gradient zero."""
    n = 2 * (a.shape[axis] - 1) if n is None else n
    if n < 1:
        raise ScgValueError(f"a Fourier transform needs at least one point, got {n} ({here()})")
    return _irfft(_fitted(a, n // 2 + 1, axis), axis=axis, n=n, norm=norm)


@implements(np.fft.hfft)
def hfft(a, n=None, axis=-1, norm=None):
    return irfft(np.conjugate(a), n, axis, _swapped(norm))


@implements(np.fft.ihfft)
def ihfft(a, n=None, axis=-1, norm=None):
    return np.conjugate(rfft(a, n, axis, _swapped(norm)))


def _swapped(norm):
    if norm not in _SWAPPED:
        raise ScgValueError(f"norm must be 'backward', 'ortho', 'forward' or None, got {norm!r} ({here()})")
    return _SWAPPED[norm]


def _sizes(a, s, axes, halved=False):
    """(length, axis) of every transform, in the order of ``axes``; for ``halved`` the last length is that of the real
    signal."""
    if axes is None:
        axes = range(-(a.ndim if s is None else len(s)), 0)
    if s is not None and len(s) != len(axes):
        raise ScgValueError(
            f"a Fourier transform needs a length for every axis, got s={s} and axes={tuple(axes)} ({here()})"
        )
    lengths = (
        [a.shape[axis] for axis in axes]
        if s is None
        else [a.shape[axis] if n == -1 else n for n, axis in zip(s, axes, strict=True)]
    )
    if halved and s is None:
        lengths[-1] = 2 * (lengths[-1] - 1)
    return list(zip(lengths, axes, strict=True))


@implements(np.fft.fftn)
def fftn(a, s=None, axes=None, norm=None):
    for n, axis in reversed(_sizes(a, s, axes)):
        a = fft(a, n, axis, norm)
    return a


@implements(np.fft.ifftn)
def ifftn(a, s=None, axes=None, norm=None):
    for n, axis in reversed(_sizes(a, s, axes)):
        a = ifft(a, n, axis, norm)
    return a


@implements(np.fft.rfftn)
def rfftn(a, s=None, axes=None, norm=None):
    *others, (n, axis) = _sizes(a, s, axes)
    a = rfft(a, n, axis, norm)
    for n, axis in reversed(others):
        a = fft(a, n, axis, norm)
    return a


@implements(np.fft.irfftn)
def irfftn(a, s=None, axes=None, norm=None):
    *others, (size, last) = _sizes(a, s, axes, halved=True)
    for n, axis in others:
        a = ifft(a, n, axis, norm)
    return irfft(a, size, last, norm)


@implements(np.fft.fft2)
def fft2(a, s=None, axes=(-2, -1), norm=None):
    return fftn(a, s, axes, norm)


@implements(np.fft.ifft2)
def ifft2(a, s=None, axes=(-2, -1), norm=None):
    return ifftn(a, s, axes, norm)


@implements(np.fft.rfft2)
def rfft2(a, s=None, axes=(-2, -1), norm=None):
    return rfftn(a, s, axes, norm)


@implements(np.fft.irfft2)
def irfft2(a, s=None, axes=(-2, -1), norm=None):
    return irfftn(a, s, axes, norm)


@implements(np.fft.fftshift)
def fftshift(x, axes=None):
    axes = _shifted(x, axes)
    return np.roll(x, [x.shape[axis] // 2 for axis in axes], axes)


@implements(np.fft.ifftshift)
def ifftshift(x, axes=None):
    axes = _shifted(x, axes)
    return np.roll(x, [-(x.shape[axis] // 2) for axis in axes], axes)


def _shifted(x, axes):
    return tuple(range(x.ndim)) if axes is None else (axes,) if isinstance(axes, (int, np.integer)) else tuple(axes)
