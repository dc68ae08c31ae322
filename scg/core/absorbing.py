"""Zeros by structure and zeros that were computed: what a product 0 * inf in the chain rule means.

A branch that ``np.where`` did not take, an element that was not picked, a constant factor zero: nothing depends on what
stands behind such a zero, and it absorbs whatever it meets. The *support* of a cotangent says where it is not such a
zero. A zero that was computed, as the cotangent 2 sqrt(x) of sqrt(x) in sqrt(x)^2 at x = 0, may meet an infinite slope
in a product whose limit is not zero: it is marked NaN.

Two computed zeros absorb where the cost is finite (``sound``).

- A slope that vanishes where the cotangent is infinite. A function that is finite and infinitely steep at u is so at
  the edge of its domain (sqrt, arccos, a root), and u, which does not leave the domain, has an extremum there: the
  product is 0 where there is a derivative, and the mean over opposite directions where there is a kink, as for
  sqrt(sum(x^2)) at 0. A cube root is steep inside its domain, and says so (``Primitive.steep``).
- A cotangent that vanishes where the slope is infinite, and stays so nearby (``steady``): an overflow, as in 1 / (1 +
  exp(1000)), beyond which the cost is constant.
"""

import numpy as np

from scg.core.aliases import Result
from scg.core.ambient import ids
from scg.core.axes import Axes, elementwise
from scg.core.node import Node
from scg.core.primitive import primitive, smooth_primitive


def moves(d: Result, sources: set[int], newest: int, steps: bool = False) -> bool:
    """Whether ``d``, computed after the id ``newest`` was given, depends on one of ``sources`` differentiably: else its
    zeros are zeros by structure. With ``steps``, whether it depends on one in any way."""
    stack, seen = [d], set()
    while stack:
        node = stack.pop()
        if type(node) is tuple:
            stack += node
        if type(node) is not Node or node.id in seen:
            continue
        if node.id in sources:
            return True
        seen.add(node.id)
        if node.id > newest:
            primitive = node.primitive
            stack += (
                node.operands
                if steps or primitive.smooth
                else [o for o, vjp in zip(node.operands, primitive.vjps, strict=False) if vjp is not None]
            )
    return False


def stamp() -> int:
    """A number between those of the nodes that there are and of those that will be."""
    return next(ids)


def spread(support: Result, out: Axes, source: Axes, shape: tuple[int, ...]) -> Result:
    """The support of an operand whose axes have the factors ``source``: an element counts where an output element that
    may depend on it does.

    Softmax along axis 1, support (3, 4): factors out (i, 4'), source (i, 4''): any over 4', then all of 4''.
    """
    given, wanted = [f for axis in out for f in axis], [f for axis in source for f in axis]
    names = {label for label, _ in wanted}
    support = np.reshape(support, [n for _, n in given])
    gone = tuple([i for i, (label, _) in enumerate(given) if label not in names])
    support = np.any(support, axis=gone) if gone else support
    kept = [label for label, _ in given if label in names]
    support = np.transpose(support, [kept.index(label) for label, _ in wanted if label in kept])
    support = np.reshape(support, [n if label in kept else 1 for label, n in wanted])
    return np.reshape(np.broadcast_to(support, [n for _, n in wanted]), shape)


def weights(support: Result, dtype: Result) -> Result:
    """Positive numbers where the support is, no two of which cancel: where a linear map of them is zero, it is so by
    structure."""
    count = np.sqrt(np.arange(2.0, support.size + 2)).reshape(support.shape)
    return np.multiply(support, count).astype(dtype)


def _doubtful(g: Result, slope: Result, support: Result, sound: Result, steady: Result) -> Result:
    return support & (
        ((g == 0) & ~np.isfinite(slope) & ~(steady & sound)) | ((slope == 0) & (np.isnan(g) | np.isinf(g) & ~sound))
    )


doubtful = primitive(_doubtful, elementwise, name="doubtful")
"""Where a product g * slope is 0 * inf and no zero of it is one by structure."""

rough = primitive(lambda g, slope, support: support & np.isinf(g) & (slope == 0), elementwise, name="rough")
"""Where a slope that was computed absorbs an infinite cotangent: there may be a kink."""

mark: Result = smooth_primitive(
    lambda d, doubt, kink: np.where(doubt, np.nan, d).astype(d.dtype, copy=False),
    elementwise,
    lambda g, out, d, doubt, kink: g * np.where(doubt | kink, np.nan, 1),
    None,
    None,
    name="mark",
)
"""``d``, and NaN where there is doubt; where there is doubt or a kink its derivative is NaN."""
