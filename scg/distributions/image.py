"""Images y = f(x) of samples under a map of bounded range that know their x.

Near an end of the range many x round to one y: tanh(20) is 1, where the density of y is not to be had from y. So images
lie strictly inside the range, and one that is a Node keeps x beside y: the density is taken, and differentiated, at x.
"""

from typing import TYPE_CHECKING

import numpy as np

from scg.core.aliases import Result
from scg.core.axes import elementwise
from scg.core.node import Node, Value
from scg.core.primitive import smooth_primitive
from scg.distributions.constraints import Truth
from scg.errors import ScgValueError, here

if TYPE_CHECKING:
    from scg.distributions.bijections import Bijection


class Rounded(ScgValueError):
    """A value at an end of the range of a map, where what it is the image of is not known."""


def is_bounded(bijection: "Bijection") -> bool:
    """Whether the range of a map has an end."""
    return bool(np.isfinite(bijection.low) or np.isfinite(bijection.high))


def imaged(bijection: "Bijection", x: Value) -> Value:
    """f(x), strictly inside the range."""
    y: Result = bijection.forward(x)
    if not is_bounded(bijection):
        return y
    return _image(y, x, bijection=bijection) if type(y) is Node else within(np.asarray(y), bijection)


def preimage(bijection: "Bijection", y: Value, closed: bool = False) -> Value:
    """The x with f(x) = y; where y is an image by ``bijection``, or a node that has its value, the x that it was made
    of. Outside the range it is any number, for a caller whose density is zero there.

    Run again, it looks at what y is made of then. Raises Rounded, a ScgValueError, for a node that was rounded to an
    end of the range and is no such image: to the nearest number inside or, where the density is ``closed`` and has a
    value at the ends, to an end itself.
    """
    node: object = y
    while type(node) is Node:
        if node.primitive is _image and _same(node.statics["bijection"], bijection):
            return _known(y, node.operands[1], bijection=bijection)
        first = node.operands[0] if node.operands else None
        # a sample by its path has the value of what is drawn
        node = first if type(first) is Node and first.raw is node.raw else None
    if type(y) is Node and is_bounded(bijection):
        if not any([type(p) is Node for p in bijection.parameters.values()]):
            return _preimage(y, bijection=bijection, closed=closed)
        y = _not_rounded(y, bijection=bijection)
    return bijection.inverse(_masked(y, bijection))


def _again(y: Value, bijection: "Bijection", closed: bool) -> Value:
    """``preimage``, of what stands in the place of y."""
    return preimage(bijection, y, closed)


def _same(one: "Bijection", two: "Bijection") -> bool:
    return one is two or type(one) is type(two) and not one.parameters


def _ends(dtype: np.dtype, bijection: "Bijection") -> tuple[float, float]:
    """The least and the greatest number of a dtype inside the range; at 0 the smallest normal one."""
    kind, low, high = np.finfo(dtype), dtype.type(bijection.low), dtype.type(bijection.high)
    first = float(kind.tiny) if low == 0 else float(np.nextafter(low, high))
    return first, float(np.nextafter(high, low))


def within(y: Value, bijection: "Bijection") -> Value:
    """``y``, moved to the nearest number inside the range where it is none."""
    return np.clip(y, *_ends(y.dtype, bijection))


def _masked(y: Value, bijection: "Bijection") -> Value:
    """y, and a number of the range where it is outside."""
    return np.where((y <= bijection.low) | (y >= bijection.high), bijection.inside, y) if is_bounded(bijection) else y


def _refuse_rounded(y: Value, rounded: Truth, bijection: "Bijection", closed: bool = False) -> None:
    first, last = _ends(y.dtype, bijection)
    if closed:
        y = np.where(y == bijection.low, first, np.where(y == bijection.high, last, y))
    if np.any(rounded & (((y == first) & np.isfinite(bijection.low)) | ((y == last) & np.isfinite(bijection.high)))):
        raise Rounded(
            f"a value was rounded to an end of the range of {bijection!r}, and what it is the image of is not known:"
            " draw by Reparameterized(), or draw x of the base with scg.sample and apply the map to x yourself"
            f" ({here()})"
        )


def _not_rounded_value(y: Value, bijection: "Bijection") -> Value:
    _refuse_rounded(y, True, bijection)
    return y


def _preimage_value(y: Value, bijection: "Bijection", closed: bool) -> Value:
    _refuse_rounded(y, True, bijection, closed)
    with np.errstate(all="ignore"):
        return np.asarray(bijection.inverse(_masked(y, bijection)))[()]


def _preimage_vjp(g: Value, out: Value, y: Value, bijection: "Bijection", closed: bool) -> Value:
    """dx/dy = 1 / f'(x); zero outside the range."""
    outside = np.less_equal(y, bijection.low) | np.greater_equal(y, bijection.high)
    return np.where(outside, 0, g * np.exp(-bijection.log_det(out)))


def _known_value(y: Value, x: Value, bijection: "Bijection") -> Value:
    made = within(bijection.forward(x), bijection) == y
    _refuse_rounded(y, ~made, bijection)
    with np.errstate(all="ignore"):
        return np.where(made, x, bijection.inverse(_masked(y, bijection)))[()]


def _known_vjp(g: Value, i: int, out: Value, y: Value, x: Value, bijection: "Bijection") -> Value:
    """dx/dy = 1 / f'(x), where it is y that x was taken from."""
    made = np.equal(within(bijection.forward(x), bijection), y)
    return np.where(made, g, 0) if i else np.where(made, 0, g * np.exp(-bijection.log_det(out)))


_image = smooth_primitive(
    lambda y, x, bijection: within(y, bijection),
    elementwise,
    every=lambda g, i, out, y, x, bijection: None if i else g,
    name="image",
)
_known = smooth_primitive(_known_value, elementwise, every=_known_vjp, name="preimage")
_preimage = smooth_primitive(_preimage_value, elementwise, _preimage_vjp, again=_again, name="preimage")
_not_rounded = smooth_primitive(_not_rounded_value, elementwise, lambda g, out, y, bijection: g, name="inside")
