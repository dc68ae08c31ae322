"""Products that sum over an axis."""

import numpy as np

from scg import axes
from scg.graph import implements, primitive


def _matmul_value(a, b):
    if b.ndim == 2 and a.ndim > 2:  # one large product is twice as fast as many small ones
        return (a.reshape(-1, a.shape[-1]) @ b).reshape(*a.shape[:-1], b.shape[-1])
    return np.matmul(a, b)


_matmul = primitive(
    _matmul_value,
    axes.contraction("ij,jk->ik"),
    lambda g, out, a, b: np.matmul(g, np.swapaxes(b, -1, -2)),
    lambda g, out, a, b: np.matmul(np.swapaxes(a, -1, -2), g),
    name="matmul",
)


@implements(np.matmul)
def matmul(a, b):
    return _matmul(a, b)
